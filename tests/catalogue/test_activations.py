"""Dropout against Keras's own: the same arguments, masks and errors, and rates that can be anything from 0 to 1."""

import inspect
import math

import keras
import numpy as np
import pytest

import regularity as rg
from regularity.catalogue.activations import dropout

array = keras.ops.convert_to_numpy
HALF = ["float16", "bfloat16"]
PRECISIONS = ["float32", *HALF]
NEAR_ONE = [0.999999, 1 - 1e-7, 1.0]


def dropped(layer, inputs):
    return array(keras.ops.cast(layer(inputs, training=True), "float32"))


def message(make, *arguments, **keywords):
    with pytest.raises((TypeError, ValueError)) as error:
        make(*arguments, **keywords)
    return type(error.value), str(error.value)


def test_arguments_and_defaults_are_those_of_keras():
    ours, stock = (inspect.signature(kind.__init__).parameters for kind in (rg.layers.Dropout, keras.layers.Dropout))
    assert [(p.name, p.default, p.kind) for p in ours.values()] == [(p.name, p.default, p.kind) for p in stock.values()]
    arguments = {"name": "d", "dtype": "float16", "trainable": False}
    ours, stock = (kind(0.25, [None, 1], 7, **arguments) for kind in (rg.layers.Dropout, keras.layers.Dropout))
    assert ours.get_config() == stock.get_config()
    assert ours.compute_output_shape((None, 3)) == (None, 3)


@pytest.mark.parametrize(
    "wrong",
    [
        {"noise_shape": "abc"},
        {"noise_shape": 3},
        {"noise_shape": (1.5, 2)},
        {"noise_shape": (0, 2)},
        {"noise_shape": (-1, None)},
        {"seed": "abc"},
        {"seed": 1.5},
        {"units": 3},
        {"dtype": "float17"},
    ],
    ids=str,
)
def test_wrong_argument_raises_the_error_of_keras(wrong):
    assert message(rg.layers.Dropout, 0.5, **wrong) == message(keras.layers.Dropout, 0.5, **wrong)


@pytest.mark.parametrize("rate", [-0.1, 1.1, math.inf, math.nan])
def test_rate_out_of_range_raises_the_kind_of_error_of_keras(rate):
    kind, text = message(rg.layers.Dropout, rate)
    stock_kind, stock_text = message(keras.layers.Dropout, rate)
    assert kind is stock_kind
    shared = "Invalid value received for argument `rate`."
    assert text.startswith(shared)
    assert stock_text.startswith(shared)


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="Keras draws its masks in another way on this backend")
@pytest.mark.parametrize(
    ("rate", "noise_shape"),
    [
        *((rate, None) for rate in (0.0, 0.1, 1 / 3, 0.5, 0.9, 0.999, 1.0)),
        *((0.5, noise_shape) for noise_shape in ((None, 1, 5), (1, 4, None), (4, 1), (1,))),
    ],
    ids=str,
)
def test_masks_are_those_of_keras(rate, noise_shape):
    inputs = np.random.default_rng(0).normal(size=(30, 4, 5)).astype("float32")
    ours, stock = (kind(rate, noise_shape, seed=3) for kind in (rg.layers.Dropout, keras.layers.Dropout))
    for _ in range(3):
        mask, expected = dropped(ours, inputs), dropped(stock, inputs)
        np.testing.assert_array_equal(mask == 0, expected == 0)
        # The rate is in single precision, so 1 - rate is off by up to 2 ** -24, relative to 1e-3 about 6e-5.
        np.testing.assert_allclose(mask, expected, rtol=1e-4)
    if 0 < rate < 1:  # where Keras draws anything
        np.testing.assert_array_equal(array(ours.seed_generator.state), array(stock.seed_generator.state))


def deviations(rate, claimed, units=200_000):
    """How many standard errors the share of zeros and the mean output lie from what the rate `claimed` promises."""
    outputs = dropped(rg.layers.Dropout(rate, seed=1), np.ones((units // 100, 100), "float32"))
    share_error = math.sqrt(claimed * (1 - claimed) / units)
    mean_error = share_error / (1 - claimed)
    mean = outputs.mean(dtype=float) * (1 - rate) / (1 - claimed)
    return abs((outputs == 0).mean() - claimed) / share_error, abs(mean - 1) / mean_error


@pytest.mark.parametrize("rate", [0.02, 0.3, 0.5, 0.9])
def test_share_of_zeros_is_the_rate_and_the_expectation_is_kept(rate):
    # Six standard errors: one seed in 5e8 lies outside if the rate is right.
    assert max(deviations(rate, claimed=rate)) < 6
    # And the test would notice a rate, or a scale, that is wrong by 0.01.
    assert min(deviations(rate + 0.01, claimed=rate)) > 6


def test_kept_units_are_divided_by_the_share_kept():
    outputs = dropped(rg.layers.Dropout(0.2, seed=1), np.full((50, 4), 2.0, "float32"))
    np.testing.assert_allclose(np.unique(outputs), [0, 2.5], rtol=1e-6)


@pytest.mark.parametrize("dtype", PRECISIONS)
def test_rate_0_is_the_identity_to_the_bit(dtype):
    values = [0.0, -0.0, 1e-7, -3.3, 6e4, np.inf, -np.inf, np.nan, *np.random.default_rng(0).normal(size=500)]
    inputs = keras.ops.cast(np.array(values, "float32"), dtype)
    outputs = rg.layers.Dropout(0, seed=1, dtype=dtype)(inputs, training=True)
    assert keras.backend.standardize_dtype(outputs.dtype) == dtype
    single = [array(keras.ops.cast(x, "float32")) for x in (inputs, outputs)]
    assert single[0].tobytes() == single[1].tobytes()


@pytest.mark.parametrize("rate", [0.5, 1.0])
def test_inference_is_the_identity(rate):
    inputs = np.random.default_rng(0).normal(size=(3, 4)).astype("float32")
    layer = rg.layers.Dropout(rate)
    np.testing.assert_array_equal(array(layer(inputs)), inputs)
    np.testing.assert_array_equal(array(layer(inputs, training=False)), inputs)


@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize("rate", [0.0, 0.5, *NEAR_ONE])
def test_value_and_gradient_are_finite_at_every_rate(gradient, dtype, rate):
    inputs = keras.ops.cast(np.random.default_rng(0).normal(size=(50, 40)), dtype)
    outputs = dropped(rg.layers.Dropout(rate, seed=1, dtype=dtype), inputs)
    slope = gradient(lambda x: keras.ops.sum(rg.layers.Dropout(rate, seed=1, dtype=dtype)(x, training=True)), inputs)
    slope = slope.astype("float32")
    assert np.isfinite(outputs).all()
    assert np.isfinite(slope).all()
    # The gradient is the mask over the share kept, as accurate as that precision is.
    np.testing.assert_array_equal(slope == 0, outputs == 0)
    rtol = {"float32": 1e-6, "float16": 2**-9, "bfloat16": 2**-6}[dtype]
    kept = slope != 0
    np.testing.assert_allclose(outputs[kept], (array(keras.ops.cast(inputs, "float32")) * slope)[kept], rtol=rtol)
    if rate == 1:
        assert not outputs.any()
        assert not slope.any()


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="a strength is differentiated on JAX only")
@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize("rate", [0.0, 0.5, *NEAR_ONE])
def test_gradient_with_respect_to_the_rate_is_finite(gradient, dtype, rate):
    inputs = keras.ops.cast(np.random.default_rng(0).normal(size=(50, 40)) * 100, dtype)

    def total(rate):
        return keras.ops.sum(keras.ops.cast(dropout(inputs, rate, seed=1), "float32"))

    slope = gradient(total, np.float32(rate))
    assert np.isfinite(slope)
    if rate == 0.5 and dtype == "float32":  # d/drate sum(x mask / (1 - rate)) = value / (1 - rate), the mask held fixed
        assert slope == pytest.approx(float(total(0.5)) / 0.5, rel=1e-4)


@pytest.mark.parametrize(("noise_shape", "alike"), [((None, 1, None), 1), ((None, None, 1), 2), ((1, 4, 50), 0)])
def test_noise_shape_shares_one_draw_along_its_ones(noise_shape, alike):
    outputs = dropped(rg.layers.Dropout(0.5, noise_shape, seed=1), np.ones((20, 4, 50), "float32"))
    np.testing.assert_array_equal(outputs, np.broadcast_to(outputs.take([0], axis=alike), outputs.shape))
    for other in {0, 1, 2} - {alike}:
        assert (outputs != outputs.take([0], axis=other)).any()


@pytest.mark.parametrize("noise_shape", [(3, 2), (2, 3, 4), (1, 1, 1)], ids=str)
def test_noise_shape_that_does_not_fit_is_refused(noise_shape):
    with pytest.raises(Exception, match=r"(?i)shape|broadcast|expand"):
        rg.layers.Dropout(0.5, noise_shape)(np.ones((3, 4), "float32"), training=True)


@pytest.mark.parametrize("dtype", ["float32", "int32"])
def test_integers_are_refused_in_training(dtype):
    inputs = keras.ops.ones((3, 4), dtype="int32")
    with pytest.raises(ValueError, match=r"Expected floating-point numbers\. Received: .*int32"):
        rg.layers.Dropout(0.5, dtype=dtype)(inputs, training=True)


def test_masks_differ_between_calls_and_between_layers_and_repeat_with_the_seed():
    inputs = np.ones((10, 10), "float32")
    layer, twin, other = (rg.layers.Dropout(0.5, seed=seed) for seed in (1, 1, 2))
    first, second = dropped(layer, inputs), dropped(layer, inputs)
    assert (first != second).any()
    assert (first != dropped(other, inputs)).any()
    np.testing.assert_array_equal(dropped(twin, inputs), first)
    np.testing.assert_array_equal(dropped(twin, inputs), second)


def test_layer_made_at_rate_0_has_a_seed_and_can_be_raised():
    inputs = np.ones((100, 100), "float32")
    layer, twin = rg.layers.Dropout(0, seed=1), rg.layers.Dropout(0.5, seed=1)
    assert len(layer.variables) == len(twin.variables) == 2
    layer.rate = 0.5
    np.testing.assert_array_equal(dropped(layer, inputs), dropped(twin, inputs))


def test_mask_of_a_sequence_passes_through():
    inputs = np.array([[[1.0], [2.0], [0.0], [0.0]]], "float32")

    def outputs(*between):
        keras.utils.set_random_seed(1)
        model = keras.Sequential([keras.layers.Masking(), *between, keras.layers.LSTM(2, seed=1)])
        return array(model(inputs))

    assert rg.layers.Dropout(0.5).supports_masking
    np.testing.assert_array_equal(outputs(rg.layers.Dropout(0.5)), outputs())
    assert (outputs() != array(keras.layers.LSTM(2)(inputs))).any()


@pytest.mark.parametrize("rate", [0.25, 0.9999, 1.0])  # in float16 the second would be 1
def test_mixed_precision_drops_in_half_and_keeps_the_rate_in_single(mixed_policy, rate):
    layer = rg.layers.Dropout(rate, seed=1)
    outputs = layer(np.ones((1000, 1000), "float32"), training=True)
    assert keras.backend.standardize_dtype(outputs.dtype) == mixed_policy.removeprefix("mixed_")
    assert keras.backend.standardize_dtype(layer.rate.dtype) == "float32"
    outputs = array(keras.ops.cast(outputs, "float32"))
    # Six standard errors of a million draws; what is kept is as accurate as half precision is.
    assert (outputs == 0).mean() == pytest.approx(rate, abs=6 * math.sqrt(rate * (1 - rate)) / 1000)
    assert outputs.max() == pytest.approx(1 / (1 - rate) if rate < 1 else 0, rel=2**-8)
