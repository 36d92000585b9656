"""Predictions by many passes: their moments, and that nothing about the model changes."""

from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

import regularity as rg

ROWS = np.random.default_rng(0).normal(size=(21, 6)).astype("float32")


def network(*noise: Any) -> Any:
    keras.utils.set_random_seed(0)
    hidden = [layers.Dense(8, "relu"), layers.BatchNormalization(name="bn"), *noise, layers.Dense(2, name="out")]
    model = keras.Sequential([keras.Input((6,)), *hidden])
    model.compile("adam", "mse")
    return model


@pytest.mark.parametrize("dropout", [layers.Dropout, rg.layers.Dropout])
def test_mean_and_spread_are_those_of_masks_on_a_linear_layer(dropout: Any) -> None:
    model = network(dropout(0.4))
    units = keras.Model(model.inputs[0], model.get_layer("bn").output)(ROWS, training=False)
    kernel, bias = (np.asarray(w) for w in model.get_layer("out").get_weights())
    mean, spread = rg.mc_predict(model, ROWS, samples=4000, batch_size=8)
    units = keras.ops.convert_to_numpy(units)
    deviation = np.sqrt(0.4 / 0.6 * (units**2) @ (kernel**2))
    error = deviation / 4000**0.5
    assert (np.abs(mean - (units @ kernel + bias)) < 5 * error + 1e-6).all()
    np.testing.assert_allclose(spread, deviation, rtol=0.1)


def test_the_model_stays_as_it_is_and_a_seed_repeats() -> None:
    model = network(layers.Dropout(0.4))
    model.fit(ROWS, ROWS[:, :2], verbose=0)
    before = [keras.ops.convert_to_numpy(v) for v in model.variables]
    first, again, other = (rg.mc_predict(model, ROWS, samples=5, seed=seed) for seed in (1, 1, 2))
    for a, b in zip(before, model.variables, strict=True):
        np.testing.assert_array_equal(a, keras.ops.convert_to_numpy(b))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    assert "call" not in vars(model.get_layer("bn"))
    model.fit(ROWS, ROWS[:, :2], verbose=0)  # and batch normalization trains on
    assert not np.array_equal(before[4], keras.ops.convert_to_numpy(model.get_layer("bn").moving_mean))


def test_structures_are_those_of_predict() -> None:
    one, two = keras.Input((6,), name="one"), keras.Input((3,), name="two")
    both = layers.GaussianNoise(0.1)(layers.Concatenate()([one, two]))
    model = keras.Model({"one": one, "two": two}, {"a": layers.Dense(2)(both), "b": layers.Dense(1)(both)})
    x = {"one": ROWS, "two": ROWS[:, :3]}
    mean, spread = rg.mc_predict(model, x, samples=3, batch_size=10)
    expected = model.predict(x, verbose=0)
    for found in (mean, spread):
        assert {name: a.shape for name, a in found.items()} == {name: a.shape for name, a in expected.items()}
    assert all((a > 0).all() for a in spread.values())


def test_what_makes_no_spread_is_refused() -> None:
    with pytest.raises(ValueError, match=r"draws at random.*Expected one with dropout"):
        rg.mc_predict(network(), ROWS)
    for samples in (1, 2.0, True, "3"):
        with pytest.raises(ValueError, match=r"`samples`.*whole number from 2.*Received"):
            rg.mc_predict(network(layers.Dropout(0.1)), ROWS, samples=samples)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"`batch_size`.*whole number from 1.*Received: batch_size=0"):
        rg.mc_predict(network(layers.Dropout(0.1)), ROWS, batch_size=0)
    with pytest.raises(TypeError, match=r"Expected a Keras model. Received: model=5"):
        rg.mc_predict(5, ROWS)
