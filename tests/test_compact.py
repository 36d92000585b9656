"""`rg.compact`: what is left puts out the same, by Keras itself; what can't go stays."""

import itertools

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from keras import layers

import regularity as rg

RNG = np.random.default_rng(0)


def emptied(model, share, seed=0):
    """The model with random biases, and with about a share of its units cut off from what comes in or from what reads them."""
    random = np.random.default_rng(seed)
    for layer in model.layers:
        layer.set_weights([w + 0.3 * random.random(w.shape).astype("float32") for w in layer.get_weights()])
    for source, readers in readers_of(model):
        kernel, *bias = source.get_weights()
        gone = np.flatnonzero(random.random(kernel.shape[-1]) < share)
        kernel[..., gone[::2]] = 0.0
        source.set_weights([kernel, *bias])
        for reader in readers:
            read, *rest = reader.get_weights()
            places = read.reshape(-1, kernel.shape[-1], read.shape[-1])
            places[:, gone[1::2]] = 0.0
            reader.set_weights([read, *rest])
    return model


def readers_of(model):
    if "stem" in [layer.name for layer in model.layers]:
        names = {"stem": ["left", "right"], "wide": ["inner"]}
        return [(model.get_layer(name), [model.get_layer(n) for n in readers]) for name, readers in names.items()]
    units = [layer for layer in model.layers if isinstance(layer, (layers.Dense, layers.Conv2D))]
    return [(source, [reader]) for source, reader in itertools.pairwise(units)]


def dense(activation="relu"):
    model = keras.Sequential(
        [
            keras.Input((5,)),
            layers.Dense(12, activation),
            layers.Dropout(0.2),
            layers.Dense(9, activation),
            layers.Dense(3),
        ]
    )
    return model, (5,)


def convolution(padding="valid"):
    stack = [
        layers.Conv2D(6, 3, padding=padding, activation="relu"), layers.BatchNormalization(), layers.MaxPooling2D(2, padding="same"),
        layers.Conv2D(5, 2, padding=padding), layers.Activation("tanh"), layers.Flatten(), layers.Dense(7, "elu"), layers.Dense(2, "softmax"),
    ]  # fmt: skip
    return keras.Sequential([keras.Input((9, 9, 2)), *stack]), (9, 9, 2)


def branches():
    """Two layers that read one, and a block that goes around another."""
    inputs = keras.Input((4,))
    stem = layers.Dense(8, "relu", name="stem")(inputs)
    left, right = layers.Dense(6, "relu", name="left")(stem), layers.Dense(5, "tanh", name="right")(stem)
    inner = layers.Dense(6, name="inner")(layers.Dense(7, "relu", name="wide")(left))
    joined = layers.Concatenate()([layers.Add()([left, inner]), right])
    return keras.Model(inputs, layers.Dense(2, name="out")(joined)), (4,)


MODELS = [dense, lambda: dense("sigmoid"), convolution, lambda: convolution("same"), branches]


@pytest.mark.parametrize("make", MODELS)
def test_what_is_left_puts_out_the_same(make):
    model, shape = make()
    emptied(model, 0.5)
    x = RNG.normal(size=(16, *shape)).astype("float32")
    before = [w.copy() for w in model.get_weights()]
    small = rg.compact(model, threshold=0.0)
    assert small.count_params() < model.count_params()
    np.testing.assert_allclose(small.predict(x, verbose=0), model.predict(x, verbose=0), atol=1e-5)
    assert type(small) is type(model)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


@given(share=st.floats(0, 1), seed=st.integers(0, 100), make=st.sampled_from([dense, branches]))
def test_any_share_of_units_may_be_empty(share, seed, make):
    model, shape = make()
    emptied(model, share, seed)
    x = np.random.default_rng(seed).normal(size=(5, *shape)).astype("float32")
    small = rg.compact(model, threshold=0.0)
    np.testing.assert_allclose(small(x), model(x), atol=1e-4)
    assert small.count_params() <= model.count_params()


def test_units_that_go_are_those_that_are_empty():
    model, _ = dense()
    kernel, bias = model.layers[0].get_weights()
    kernel[:, [1, 4]] = 0.0
    model.layers[0].set_weights([kernel, bias])
    assert [layer.units for layer in rg.compact(model).layers if hasattr(layer, "units")] == [10, 9, 3]
    np.testing.assert_array_equal(rg.compact(model).layers[0].get_weights()[0], np.delete(kernel, [1, 4], 1))


def test_what_went_takes_with_it_what_it_alone_has_read():
    model, _ = dense()
    kernel, bias = model.layers[2].get_weights()
    kernel[3, 1:] = 0.0  # the fourth unit is read by one alone,
    model.layers[2].set_weights([kernel, bias])
    last, bias = model.layers[3].get_weights()
    last[0] = 0.0  # which nothing reads
    model.layers[3].set_weights([last, bias])
    assert [layer.units for layer in rg.compact(model).layers if hasattr(layer, "units")] == [11, 8, 3]


def test_what_is_joined_or_looks_at_all_stays():
    model, _ = branches()
    for layer in model.layers:
        layer.set_weights([np.zeros_like(w) for w in layer.get_weights()])
    small = {layer.name: layer for layer in rg.compact(model).layers}
    assert (small["left"].units, small["inner"].units, small["right"].units) == (6, 6, 5)
    assert small["wide"].units == 1  # one is left, since a layer must have one
    soft = keras.Sequential([keras.Input((3,)), layers.Dense(4, "softmax"), layers.Dense(2)])
    soft.layers[0].set_weights([np.zeros((3, 4)), np.zeros(4)])
    assert rg.compact(soft).layers[0].units == 4


def test_a_group_penalty_makes_a_smaller_network_that_is_as_good():
    random = np.random.default_rng(1)
    x = random.normal(size=(300, 8)).astype("float32")
    y = (x[:, 0] * x[:, 1] > 0).astype("int64")
    model = keras.Sequential([keras.Input((8,)), layers.Dense(64, "relu"), layers.Dense(2, "softmax")])
    model.compile(keras.optimizers.Adam(0.02), "sparse_categorical_crossentropy", metrics=["accuracy"])
    (member,) = rg.train(model, x, y, {"group_lasso": 0.01, "proximal_l1": 0.01}, epochs=60, verbose=0)
    small = rg.compact(member.model, threshold=0.01)
    whole, left = (m.evaluate(x, y, verbose=0, return_dict=True)["accuracy"] for m in (member.model, small))
    assert small.layers[0].units < 48
    assert left == pytest.approx(whole, abs=0.02)
    small.fit(x, y, epochs=1, verbose=0)  # compiled as the given one was


def test_it_is_kept_in_a_file(tmp_path):
    model, shape = convolution()
    emptied(model, 0.5)
    small = rg.compact(model)
    small.save(tmp_path / "small.keras")
    x = RNG.normal(size=(3, *shape)).astype("float32")
    np.testing.assert_allclose(keras.models.load_model(tmp_path / "small.keras")(x), small(x), atol=1e-6)


def test_what_can_not_be_compacted_says_why():
    model, _ = dense()
    for threshold in (-1.0, np.nan, np.inf, "0.1", True):
        with pytest.raises(ValueError, match=r"`threshold`. Expected a number from 0"):
            rg.compact(model, threshold)
    with pytest.raises(ValueError, match="Sequential or Functional"):
        rg.compact(layers.Dense(2))
    with pytest.raises(ValueError, match="Sequential or Functional"):
        rg.compact(keras.Sequential([layers.Dense(2)]))


def test_the_command_line_writes_it_and_says_what_went(tmp_path, monkeypatch, command_line):
    monkeypatch.chdir(tmp_path)
    model, _ = dense()
    emptied(model, 0.5)
    model.save("model.keras")
    code, out, _ = command_line("compact", "model.keras", "--out", "small.keras", "--threshold", "0")
    assert code == 0
    assert f"of {model.count_params()} weights" in out
    assert "of 12 units" in out
    small = keras.models.load_model("small.keras")
    assert small.count_params() < model.count_params()
    code, _, error = command_line("compact", "model.keras", "--out", "small.h5")
    assert code == 2
    assert "--out to end in .keras" in error
