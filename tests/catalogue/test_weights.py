"""L1, L2 and L1L2 against Keras's own: values, gradients, and every slot of every layer that has one."""

import inspect
import math

import hypothesis.extra.numpy as arrays
import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import regularity as rg
from regularity.catalogue import weights as place

NAMES = ["L1", "L2", "L1L2"]
array = keras.ops.convert_to_numpy

# A few shapes only, since each new one is compiled: a scalar, nothing, a vector, a matrix, a convolution's kernel.
shapes = st.sampled_from([(), (0,), (1,), (5,), (3, 4), (2, 2, 3, 2)])
entries = st.floats(-100, 100, width=32)
values = shapes.flatmap(lambda shape: arrays.arrays(np.float32, shape, elements=entries))
strengths = st.one_of(st.sampled_from([0.0, 1.0, 1e-7, 0.01, 1000.0]), st.floats(0, 10))


def pair(name, *strengths):
    """Our regularizer and Keras's with the same strengths, as many as it takes."""
    strengths = strengths if name == "L1L2" else strengths[:1]
    return getattr(rg.regularizers, name)(*strengths), getattr(keras.regularizers, name)(*strengths)


@pytest.mark.parametrize("name", NAMES)
@given(x=values, first=strengths, second=strengths)
def test_penalty_and_gradient_equal_those_of_keras(gradient, name, x, first, second):
    ours, stock = pair(name, first, second)
    # Relative 1e-6 is a few roundings in single precision; absolute 1e-30 is for products that are hardly numbers.
    np.testing.assert_allclose(array(ours(x)), array(stock(x)), rtol=1e-6, atol=1e-30)
    slope = gradient(ours, x)
    assert np.isfinite(slope).all()
    np.testing.assert_allclose(slope, gradient(stock, x), rtol=1e-6, atol=1e-30)


# Twice the distance between neighbouring numbers of that precision: Keras rounds the strength, the sum and the product.
@pytest.mark.parametrize(("dtype", "tolerance"), [("float16", 2 * 2**-10), ("bfloat16", 2 * 2**-7)])
@pytest.mark.parametrize("name", NAMES)
@given(
    x=arrays.arrays(np.float32, (3, 4), elements=st.floats(-10, 10, width=16)),
    first=st.floats(1 / 64, 1, width=16),
    second=st.floats(1 / 64, 1, width=16),
)
def test_penalty_in_half_precision_equals_that_of_keras(gradient, name, dtype, tolerance, x, first, second):
    x = keras.ops.cast(x, dtype)
    ours, stock = pair(name, first, second)
    penalty, expected = ours(x), stock(x)
    assert keras.backend.standardize_dtype(penalty.dtype) == dtype
    single = [array(keras.ops.cast(p, "float32")) for p in (penalty, expected)]
    # Absolute: below the smallest normal number of half precision roundings are no longer relative.
    np.testing.assert_allclose(*single, rtol=tolerance, atol=1e-6)
    assert np.isfinite(gradient(ours, x).astype("float32")).all()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("strength", [0.0, 1e-6])
def test_penalty_is_right_where_the_sum_overflows_half_precision(name, strength):
    x = np.full((100, 100), 200.0)  # 2e6 summed, 4e8 squared and summed; the largest number in float16 is 65504
    ours, _ = pair(name, strength, strength)
    expected = strength * {"L1": 2e6, "L2": 4e8, "L1L2": 2e6 + 4e8}[name]
    assert float(ours(keras.ops.cast(x, "float16"))) == pytest.approx(expected, rel=2e-3)


@pytest.mark.parametrize("name", NAMES)
def test_arguments_and_defaults_are_those_of_keras(name):
    ours, stock = (getattr(module, name) for module in (rg.regularizers, keras.regularizers))
    signatures = (inspect.signature(kind).parameters.values() for kind in (ours, stock))
    made, expected = ({p.name: p.default for p in parameters} for parameters in signatures)
    assert made == expected
    arguments = list(expected)
    for made, expected in ((ours(), stock()), (ours(*[None] * len(arguments)), stock(*[None] * len(arguments)))):
        assert made.get_config() == pytest.approx(expected.get_config(), rel=1e-7)
    by_keyword = dict.fromkeys(arguments, 0.25)
    assert ours(**by_keyword).get_config() == by_keyword


@pytest.mark.parametrize(("alias", "name"), [("l1", "L1"), ("l2", "L2"), ("l1_l2", "L1L2")])
def test_alias_is_the_class_as_in_keras(alias, name):
    assert getattr(keras.regularizers, alias) is getattr(keras.regularizers, name)
    assert getattr(rg.regularizers, alias) is getattr(rg.regularizers, name)


def test_regularizers_are_regularizers_to_keras():
    penalty = rg.regularizers.L1L2(0.1, 0.2)
    assert isinstance(penalty, keras.regularizers.Regularizer)
    assert keras.regularizers.get(penalty) is penalty
    again = keras.regularizers.deserialize(keras.regularizers.serialize(penalty))
    assert type(again) is rg.regularizers.L1L2
    assert again.get_config() == penalty.get_config()


layers = keras.layers
WHOLE, TOKENS = (2, 4, 6), "tokens"
SLOTS = [
    (layers.Dense, {"units": 3}, (2, 6), ["kernel", "bias", "activity"]),
    (layers.EinsumDense, {"equation": "abc,cd->abd", "output_shape": (None, 3), "bias_axes": "d"}, WHOLE, ["kernel"]),
    (layers.Conv2D, {"filters": 2, "kernel_size": 2}, (2, 3, 3, 2), ["kernel", "bias"]),
    (layers.Conv1DTranspose, {"filters": 3, "kernel_size": 2}, WHOLE, ["kernel"]),
    (layers.DepthwiseConv1D, {"kernel_size": 2}, WHOLE, ["depthwise"]),
    (layers.SeparableConv1D, {"filters": 3, "kernel_size": 2}, WHOLE, ["depthwise", "pointwise"]),
    (layers.Embedding, {"input_dim": 5, "output_dim": 3}, TOKENS, ["embeddings", "activity"]),
    (layers.LSTM, {"units": 3}, WHOLE, ["kernel", "recurrent", "activity"]),
    (layers.GRU, {"units": 3}, WHOLE, ["bias"]),
    (layers.BatchNormalization, {}, (2, 6), ["beta", "gamma"]),
    (layers.LayerNormalization, {}, (2, 6), ["gamma"]),
    (layers.PReLU, {}, (2, 6), ["alpha"]),
    (layers.MultiHeadAttention, {"num_heads": 2, "key_dim": 3}, WHOLE, ["kernel", "activity"]),
]


@pytest.mark.parametrize(
    ("kind", "config", "shape", "slot", "name"),
    [
        pytest.param(kind, config, shape, slot, name, id=f"{kind.__name__}-{slot}-{name}")
        for kind, config, shape, slots in SLOTS
        for slot in slots
        for name in (NAMES if kind is layers.Dense else ["L1L2"])
    ],
)
def test_losses_of_a_slot_equal_those_with_the_regularizer_of_keras(kind, config, shape, slot, name):
    rng = np.random.default_rng(0)
    inputs = np.array([[1, 2, 0], [4, 3, 1]]) if shape == TOKENS else rng.normal(size=shape).astype("float32")
    called_with = (inputs, inputs) if kind is layers.MultiHeadAttention else (inputs,)
    regularizers = pair(name, 0.1, 0.03)
    ours, stock = (kind(**config, **{f"{slot}_regularizer": regularizer}) for regularizer in regularizers)
    for layer in (ours, stock):
        layer.build(*(x.shape for x in called_with))
    stock.set_weights([rng.normal(size=w.shape) for w in stock.get_weights()])
    ours.set_weights(stock.get_weights())

    def losses(layer):
        if slot == "activity":  # the others need no call, which is slow the first time
            layer(*called_with)
        return np.array([float(array(loss)) for loss in layer.losses])

    assert losses(stock).sum() > 0.01
    np.testing.assert_allclose(losses(ours), losses(stock), rtol=1e-5)  # the layer's own arithmetic is in it

    held = [v for v in ours.variables if v.path.split("/")[-1] in ("l1", "l2")]
    assert len(held) == len(regularizers[1].get_config())
    before = losses(ours)
    for strength in held:
        strength.assign(2 * strength)
    np.testing.assert_allclose(losses(ours), 2 * before, rtol=1e-5)


def test_activity_penalty_can_be_set_on_any_layer_and_is_averaged_over_the_batch():
    layer = keras.layers.Activation("linear", activity_regularizer=rg.regularizers.L2(0.5))
    layer(np.ones((4, 3), "float32"))
    assert float(array(sum(layer.losses))) == pytest.approx(0.5 * 3, rel=1e-6)


def test_frozen_layer_has_no_penalty_as_in_keras():
    ours, stock = (keras.layers.Dense(2, kernel_regularizer=regularizer) for regularizer in pair("L2", 0.1))
    for layer in (ours, stock):
        layer.build((None, 3))
        layer.trainable = False
    assert ours.losses == stock.losses == []


def test_strength_is_never_trained():
    layer = keras.layers.Dense(2, kernel_regularizer=rg.regularizers.L1L2(0.1, 0.2))
    layer.build((None, 3))
    assert [v.name for v in layer.trainable_variables] == ["kernel", "bias"]
    assert [v.name for v in layer.non_trainable_variables] == ["l1", "l2"]


@pytest.mark.parametrize(
    ("strengths", "kind"),
    [
        ({}, None),
        ({"l1": 0.0, "l2": 0.0}, None),
        ({"l1": 0.5, "l2": 0.0}, keras.regularizers.L1),
        ({"l2": 0.5}, keras.regularizers.L2),
        ({"l2": 0.5, "l1": 0.25}, keras.regularizers.L1L2),
    ],
)
def test_stock_penalty_has_the_strengths_that_are_not_zero(strengths, kind):
    penalty = place.stock_penalty(strengths)
    if kind is None:
        assert penalty is None
    else:
        assert type(penalty) is kind
        assert penalty.get_config() == {name: value for name, value in strengths.items() if value}


@given(x=arrays.arrays(np.float32, (3, 4), elements=entries))
def test_functions_are_the_formulas(x):
    wide = x.astype(float)
    assert float(place.l1(x, 0.5)) == pytest.approx(0.5 * math.fsum(abs(wide).ravel()), rel=1e-5)
    assert float(place.l2(x, 0.5)) == pytest.approx(0.5 * math.fsum((wide**2).ravel()), rel=1e-5)
