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
from regularity.population._draws import hasten_draws


def drawing(layer: keras.layers.Layer) -> Any:
    """A regularized model that holds a layer which draws, as a population takes it."""
    model = keras.Sequential([keras.Input((4,)), layer, keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    return rg.Recipe({"input_noise": 0.1}).apply(model)


def hastened(seed: np.ndarray) -> tuple[Any, Any]:
    """Two generators in one state, the first as Keras made it, the second as a population has it."""
    plain, model = keras.random.SeedGenerator(0), drawing(keras.layers.Dropout(0.5))
    hasten_draws(model)
    (generator,) = model.__dict__["_generators"].values()
    for each in (plain, generator):
        each.state.assign(seed)
    return plain, generator


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
    plain, generator = hastened(np.array(seed, "uint32"))
    # a gamma variable is computed from many draws, in a program of its own that may round otherwise
    rounding = 3e-7 if name in ("gamma", "beta") else 0
    for _ in range(2):  # the state moves on as it does in Keras
        np.testing.assert_allclose(DRAWS[name](shape, generator), DRAWS[name](shape, plain), rtol=rounding, atol=0)
    np.testing.assert_array_equal(plain.state, generator.state)


def test_numbers_of_another_hash_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    model = drawing(keras.layers.Dropout(0.5))
    with jax.default_prng_impl("rbg"):
        hasten_draws(model)
    assert not any("next" in vars(generator) for generator in model.__dict__["_generators"].values())


def test_a_layer_of_the_users_own_keeps_plain_keys() -> None:
    class Split(keras.layers.Layer):
        """Does with a key what only the plain array of it allows."""

        def __init__(self) -> None:
            super().__init__()
            self.seed_generator = keras.random.SeedGenerator(0)

        def call(self, x: Any) -> Any:
            key = self.seed_generator.next()
            return x + keras.ops.cast(key[0] % 2, "float32") * jax.random.uniform(key, x.shape)

    x = np.random.default_rng(0).normal(size=(8, 4)).astype("float32")
    model = keras.Sequential([keras.Input((4,)), Split(), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    (member,) = rg.train(model, x, x[:, :1], {"weight_decay": 0.1}, epochs=1)
    assert np.isfinite(member.history["loss"]).all()
