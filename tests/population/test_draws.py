"""What a population draws on CPU is what JAX draws, to the bit."""

from typing import Any

import jax
import jax.numpy as jnp
import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import regularity as rg
from regularity import _keras
from regularity.population import _draws


def drawing() -> Any:
    """A regularized model that draws for the batch and in a layer, as a population takes it."""
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dropout(0.5), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    return rg.Recipe({"input_noise": 0.1}).apply(model)


def generators(model: Any) -> list[Any]:
    return [generator for _, generator in _keras.seed_generators(model)]


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many numbers were hashed by the hash written out, draw by draw."""
    sizes: list[int] = []
    original = _draws._hash

    def counted(key: Any, count: Any) -> Any:
        sizes.append(count.size)
        return original(key, count)

    monkeypatch.setattr(_draws, "_hash", counted)
    return sizes


DRAWS = {
    "uniform": lambda shape, seed: keras.random.uniform(shape, -2.0, 3.0, seed=seed),
    "normal": lambda shape, seed: keras.random.normal(shape, seed=seed),
    "truncated normal": lambda shape, seed: keras.random.truncated_normal(shape, seed=seed),
    "half precision": lambda shape, seed: keras.random.uniform(shape, dtype="float16", seed=seed),
    "whole numbers": lambda shape, seed: keras.random.randint(shape, 0, 1000, seed=seed),
    "mask": lambda shape, seed: keras.random.dropout(jnp.ones(shape), 0.3, seed=seed),
    "gamma": lambda shape, seed: keras.random.gamma(shape, 0.4, seed=seed),
    "beta": lambda shape, seed: keras.random.beta(shape, 0.4, 0.6, seed=seed),
    "order": lambda shape, seed: keras.random.shuffle(jnp.arange(max(1, int(np.prod(shape)))), seed=seed),
}
WORDS = st.integers(0, 2**32 - 1)
SHAPES = st.sampled_from([(), (5,), (13, 11)])  # few numbers, and an odd number of many


@pytest.mark.parametrize("name", DRAWS)
@settings(max_examples=15, deadline=None)
@given(seed=st.tuples(WORDS, WORDS), shape=SHAPES)
def test_draws_are_those_of_jax(name: str, seed: tuple[int, int], shape: tuple[int, ...]) -> None:
    model = drawing()
    _draws.hasten_draws(model)
    plain, (generator, *_) = keras.random.SeedGenerator(0), generators(model)
    for each in (plain, generator):
        each.state.assign(np.array(seed, "uint32"))
    # JAX draws these by another program where the hash is not its own: exponentials of logarithms, which round otherwise
    rounding = 1e-4 if name in ("gamma", "beta") else 0
    for _ in range(2):  # the state moves on as it does in Keras
        np.testing.assert_allclose(DRAWS[name](shape, generator), DRAWS[name](shape, plain), rtol=rounding, atol=0)
    np.testing.assert_array_equal(plain.state, generator.state)


@pytest.mark.parametrize("of", ["the batch", "a layer"])
def test_every_generator_of_a_model_draws_by_the_hash_written_out(of: str, hashed: list[int]) -> None:
    model = drawing()
    shape = (3, 41, 7 if of == "a layer" else 5)  # of a shape that is compiled nowhere else
    generator = generators(model)[of == "a layer"]
    keras.random.uniform(shape, seed=generator)
    assert not hashed
    _draws.hasten_draws(model)
    keras.random.uniform(shape, seed=generator)
    assert hashed == [-(-np.prod(shape) // 2)]  # traced once, in a loop of two


def test_a_population_draws_by_it(hashed: list[int]) -> None:
    x = np.random.default_rng(0).normal(size=(40, 4)).astype("float32")
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(9, "relu"), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    rg.train(model, x, x[:, :1], {"dropout": 0.5}, epochs=1, batch_size=40)
    assert 40 * 9 // 2 in hashed


def test_numbers_of_another_hash_are_left_alone() -> None:
    model = drawing()
    with jax.default_prng_impl("rbg"):
        _draws.hasten_draws(model)
    with jax.threefry_partitionable(False):
        _draws.hasten_draws(model)
    assert not any("next" in vars(generator) for generator in generators(model))


def test_who_asks_for_a_key_otherwise_gets_the_plain_array_of_it() -> None:
    class Split(keras.layers.Layer):
        """Does with the key of another layer what only a plain array allows."""

        def __init__(self) -> None:
            super().__init__()
            self.dropout = keras.layers.Dropout(0.5, seed=0)

        def call(self, x: Any) -> Any:
            key = self.dropout.seed_generator.next()
            return self.dropout(x) + keras.ops.cast(key[0] % 2, "float32") * jax.random.uniform(key, x.shape)

    x = np.random.default_rng(0).normal(size=(8, 4)).astype("float32")
    model = keras.Sequential([keras.Input((4,)), Split(), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    (member,) = rg.train(model, x, x[:, :1], {"weight_decay": 0.1}, epochs=1)
    assert np.isfinite(member.history["loss"]).all()
