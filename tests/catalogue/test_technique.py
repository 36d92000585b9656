"""A strength is a weight: what it may be, that assigning to it acts, and where it is kept."""

import copy
import json
import math
import pickle
import re
import warnings
from fractions import Fraction

import keras
import numpy as np
import pytest

import regularity as rg

BACKEND = keras.backend.backend()
array = keras.ops.convert_to_numpy

STRENGTHS = [
    (rg.regularizers.L1, "l1", "any finite number"),
    (rg.regularizers.L2, "l2", "any finite number"),
    (rg.regularizers.L1L2, "l1", "any finite number"),
    (rg.regularizers.L1L2, "l2", "any finite number"),
    (rg.layers.Dropout, "rate", "1"),
]
each_strength = pytest.mark.parametrize(
    ("kind", "name", "upper"), [pytest.param(*row, id=f"{row[0].__name__}-{row[1]}") for row in STRENGTHS]
)

NUMBERS = [
    0.25,
    0,
    1,
    True,
    -0.0,
    Fraction(1, 4),
    np.float16(0.25),
    np.float32(0.25),
    np.float64(0.25),
    np.int64(1),
    np.uint8(0),
    np.array(0.25),
    np.array(1),
]
NOT_NUMBERS = [
    -1,
    -1e-30,
    math.nan,
    math.inf,
    -math.inf,
    1e39,
    10**400,
    np.float32(np.nan),
    np.array(-0.5),
    "0.5",
    np.str_("0.5"),
    np.array("0.5"),
    b"0.5",
    [0.5],
    (),
    np.array([0.5]),
    {"rate": 0.5},
    0.5 + 1j,
    np.complex64(0.5),
    object,
]


@each_strength
@pytest.mark.parametrize("value", NUMBERS, ids=repr)
def test_any_real_number_in_range_is_taken(kind, name, upper, value):
    made = kind(**{name: value})
    assert float(getattr(made, name)) == float(value)
    assert made.get_config()[name] == float(value)
    changed = kind(**{name: 0.5})
    held = getattr(changed, name)
    setattr(changed, name, value)
    assert getattr(changed, name) is held
    assert float(getattr(changed, name)) == float(value)


@each_strength
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "int32"])
def test_tensor_without_axes_is_taken(kind, name, upper, dtype):
    value = keras.ops.ones((), dtype=dtype)
    assert float(getattr(kind(**{name: value}), name)) == 1.0
    assert float(getattr(kind(**{name: keras.Variable(value, trainable=False)}), name)) == 1.0


@each_strength
@pytest.mark.parametrize("value", NOT_NUMBERS, ids=lambda value: f"{type(value).__name__}-{value!r}"[:40])
def test_anything_else_is_refused_with_argument_value_and_range(kind, name, upper, value):
    def check(error):
        text = str(error.value)
        assert f"argument `{name}`" in text
        assert f"from 0 to {upper}" in text
        assert f"Received: {name}={value!r}" in text

    with pytest.raises(ValueError) as error:  # noqa: PT011, the text is checked below
        kind(**{name: value})
    check(error)
    made = kind(**{name: 0.5})
    with pytest.raises(ValueError) as error:  # noqa: PT011
        setattr(made, name, value)
    check(error)
    assert float(getattr(made, name)) == 0.5


def test_rate_above_1_and_none_are_refused():
    for value in (2, 1 + 1e-6, None):
        with pytest.raises(ValueError, match=rf"argument `rate`.*from 0 to 1.*rate={value}"):
            rg.layers.Dropout(value)
    layer = rg.layers.Dropout(0.5)
    with pytest.raises(ValueError, match="rate=2"):
        layer.rate = 2
    assert float(layer.rate) == 0.5


@keras.saving.register_keras_serializable(package="tests")
class CountsTraces(keras.layers.Layer):
    """The identity; where the step is compiled, `traces` says how often it was."""

    traces = 0

    def call(self, inputs):
        CountsTraces.traces += 1
        return inputs


ROWS = 24
data = np.random.default_rng(0)
X, Y = data.normal(size=(ROWS, 5)).astype("float32"), data.normal(size=(ROWS, 2)).astype("float32")
AT_FIRST = {"l1": 0.01, "l2": 0.02, "activity_l1": 0.03, "activity_l2": 0.04, "rate": 0.0}


def build(regularizers, dropout, strengths):
    """One layer for each way to hold a strength. The rate of learning is 0, so that losses can be compared."""
    s = strengths
    activity = {}
    if "activity_l1" in s:
        activity["activity_regularizer"] = regularizers.L1L2(s["activity_l1"], s["activity_l2"])
    model = keras.Sequential(
        [
            keras.Input((5,)),
            CountsTraces(name="traces"),
            keras.layers.Dense(
                6,
                activation="tanh",
                kernel_regularizer=regularizers.L1(s["l1"]),
                **activity,
                name="hidden",
            ),
            dropout(s["rate"], seed=1, name="dropout"),
            keras.layers.Dense(2, kernel_regularizer=regularizers.L2(s["l2"]), name="out"),
        ]
    )
    weights = np.random.default_rng(1)
    model.set_weights([weights.normal(size=w.shape) for w in model.get_weights()])
    model.compile(keras.optimizers.SGD(0.0), keras.losses.MeanSquaredError())
    return model


def ours(strengths=AT_FIRST):
    return build(rg.regularizers, rg.layers.Dropout, strengths)


def stock(strengths=AT_FIRST):
    return build(keras.regularizers, keras.layers.Dropout, strengths)


def holders(model):
    """Where each strength is: the object that has it, and the attribute."""
    hidden, dropout, out = (model.get_layer(name) for name in ("hidden", "dropout", "out"))
    return {
        "l1": (hidden.kernel_regularizer, "l1"),
        "l2": (out.kernel_regularizer, "l2"),
        "activity_l1": (hidden.activity_regularizer, "l1"),
        "activity_l2": (hidden.activity_regularizer, "l2"),
        "rate": (dropout, "rate"),
    }


def strengths_of(model):
    return {name: float(getattr(*holder)) for name, holder in holders(model).items()}


def assign(model, name, value):
    getattr(*holders(model)[name]).assign(value)


def set_attribute(model, name, value):
    setattr(*holders(model)[name], value)


def fit(model, **options):
    history = model.fit(X, Y, batch_size=ROWS, verbose=0, shuffle=False, **options).history["loss"]
    return history if options else history[0]


def evaluate(model):
    return model.evaluate(X, Y, batch_size=ROWS, verbose=0)


@pytest.fixture(scope="module")
def fitted():
    """A model that has been fitted, evaluated and asked once; each test sets all strengths that it relies on."""
    model = ours()
    fit(model)
    evaluate(model)
    model.predict(X, verbose=0)
    return model


@pytest.fixture(scope="module")
def stock_losses():
    """What the stock model loses at given strengths, built anew, so that Keras cannot have frozen others into it."""
    return {
        "at first": evaluate(stock()),
        **{name: evaluate(stock({**AT_FIRST, name: 0.5})) for name in AT_FIRST if name != "rate"},
    }


def reset(model):
    for name, value in AT_FIRST.items():
        assign(model, name, value)


@pytest.mark.parametrize("change", [assign, set_attribute])
@pytest.mark.parametrize("name", [name for name in AT_FIRST if name != "rate"])
def test_penalty_changed_after_fit_acts_without_a_retrace(fitted, stock_losses, name, change):
    reset(fitted)
    before = CountsTraces.traces
    assert fit(fitted) == pytest.approx(stock_losses["at first"], rel=1e-5)
    change(fitted, name, 0.5)
    assert abs(stock_losses[name] - stock_losses["at first"]) > 0.1
    assert fit(fitted) == pytest.approx(stock_losses[name], rel=1e-5)
    assert evaluate(fitted) == pytest.approx(stock_losses[name], rel=1e-5)
    if BACKEND != "torch":  # where every call is a call of Python
        assert CountsTraces.traces == before


@pytest.mark.parametrize("change", [assign, set_attribute])
def test_rate_changed_after_fit_acts_without_a_retrace(fitted, stock_losses, change):
    reset(fitted)
    before = CountsTraces.traces
    assert fit(fitted) == pytest.approx(stock_losses["at first"], rel=1e-5)
    change(fitted, "rate", 0.2)
    some, others = fit(fitted), fit(fitted)
    assert len({some, others, stock_losses["at first"]}) == 3
    change(fitted, "rate", 1.0)
    bias = fitted.get_layer("out").get_weights()[1]
    penalties = stock_losses["at first"] - np.square(fitted.predict(X, verbose=0) - Y).mean()
    assert fit(fitted) == pytest.approx(np.square(bias - Y).mean() + penalties, rel=1e-5)
    assert evaluate(fitted) == pytest.approx(stock_losses["at first"], rel=1e-5)
    if BACKEND != "torch":
        assert CountsTraces.traces == before


def test_traces_are_counted():
    model = ours()
    fit(model)
    before = CountsTraces.traces
    model.compile(keras.optimizers.SGD(0.0), "mse")
    fit(model)
    assert CountsTraces.traces > before


def test_strength_assigned_between_epochs_acts_in_the_next(fitted, stock_losses):
    reset(fitted)
    raised = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda epoch, logs=None: assign(fitted, "l2", 0.5) if epoch else None
    )
    losses = fit(fitted, epochs=2, callbacks=[raised])
    assert losses == pytest.approx([stock_losses["at first"], stock_losses["l2"]], rel=1e-5)


def test_penalty_shrinks_what_is_trained():
    norms = []
    for l2 in (0.0, 0.5):
        model = ours({**AT_FIRST, "l2": 0.0})
        model.optimizer.learning_rate = 0.1
        fit(model)
        assign(model, "l2", l2)
        fit(model, epochs=5)
        norms.append(np.linalg.norm(model.get_layer("out").get_weights()[0]))
    assert norms[1] < 0.8 * norms[0]  # five steps of 0.1 * 2 * 0.5 would alone leave 0.9 ** 5, about 0.6


def through_file(model, folder):
    model.save(folder / "model.keras")
    return keras.models.load_model(folder / "model.keras")


def through_weights(model, folder):
    model.save_weights(folder / "model.weights.h5")
    other = ours({**dict.fromkeys(AT_FIRST, 0.0), **CHANGED_ACTIVITY})
    other.load_weights(folder / "model.weights.h5")
    return other


def through_clone(model, folder):
    other = keras.models.clone_model(model)
    other.set_weights(model.get_weights())
    other.compile(keras.optimizers.SGD(0.0), keras.losses.MeanSquaredError())
    return other


def through_json(model, folder):
    other = keras.models.model_from_json(json.dumps(json.loads(model.to_json())))
    other.set_weights(model.get_weights())
    return other


CHANGED = {"l1": 0.1, "l2": 0.3, "activity_l1": 0.5, "activity_l2": 0.7, "rate": 0.9}
# Weight files have no place for what the slot `activity_regularizer` holds, see the test of that name.
CHANGED_ACTIVITY = {name: CHANGED[name] for name in ("activity_l1", "activity_l2")}


@pytest.mark.parametrize(
    "way",
    [
        through_file,
        through_weights,
        through_clone,
        through_json,
        lambda model, _: pickle.loads(pickle.dumps(model)),
        lambda model, _: copy.deepcopy(model),
    ],
    ids=["keras", "weights.h5", "clone_model", "json", "pickle", "deepcopy"],
)
def test_strengths_assigned_after_fit_survive(fitted, tmp_path, way):
    for name, value in CHANGED.items():
        assign(fitted, name, value)
    again = way(fitted, tmp_path)
    assert again is not fitted
    assert strengths_of(again) == strengths_of(fitted) == pytest.approx(CHANGED)
    np.testing.assert_allclose(again.predict(X, verbose=0), fitted.predict(X, verbose=0), rtol=1e-5)
    if again.compiled:
        assert evaluate(again) == pytest.approx(evaluate(fitted), rel=1e-5)
    # What came back is a weight again, not a constant.
    assign(again, "rate", 1.0)
    assert not array(again.get_layer("dropout")(np.ones((2, 6), "float32"), training=True)).any()


def test_strengths_survive_the_legacy_file_format(tmp_path):
    model = ours()  # its own, since Keras forgets the optimizer of a model that it saves in this format
    for name, value in CHANGED.items():
        assign(model, name, value)
    model.save(tmp_path / "model.h5")
    again = keras.models.load_model(tmp_path / "model.h5")
    assert strengths_of(again) == strengths_of(model)
    np.testing.assert_allclose(again.predict(X, verbose=0), model.predict(X, verbose=0), rtol=1e-5)


def test_components_themselves_can_be_copied_and_pickled():
    for made, name in ((rg.regularizers.L2(0.25), "l2"), (rg.layers.Dropout(0.25, (None, 1), 3), "rate")):
        getattr(made, name).assign(0.5)
        for again in (copy.deepcopy(made), pickle.loads(pickle.dumps(made)), type(made).from_config(made.get_config())):
            assert type(again) is type(made)
            assert again.get_config() == made.get_config()
            again.__setattr__(name, 0.75)
            assert float(getattr(made, name)) == 0.5


def test_weight_files_have_no_place_for_the_slot_activity_regularizer(fitted, tmp_path):
    reset(fitted)
    assign(fitted, "activity_l1", 0.5)
    fitted.save_weights(tmp_path / "model.weights.h5")
    again = ours({**AT_FIRST, "activity_l1": 0.25})
    again.load_weights(tmp_path / "model.weights.h5")
    assert strengths_of(again)["activity_l1"] == 0.25


def shares_one(regularizers):
    penalty = regularizers.L2(0.25)
    first, second = (keras.layers.Dense(3, kernel_regularizer=penalty, name=name) for name in ("first", "second"))
    return keras.Sequential([keras.Input((5,)), first, second])


def test_one_instance_in_two_layers_is_one_strength_and_two_after_loading(tmp_path):
    model = shares_one(rg.regularizers)
    expected = shares_one(keras.regularizers)
    expected.set_weights(model.get_weights())
    np.testing.assert_allclose(array(sum(model.losses)), array(sum(expected.losses)), rtol=1e-6)

    model.get_layer("first").kernel_regularizer.l2 = 0.5
    np.testing.assert_allclose(array(sum(model.losses)), 2 * array(sum(expected.losses)), rtol=1e-6)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    first, second = (again.get_layer(name).kernel_regularizer for name in ("first", "second"))
    assert first is not second
    assert float(first.l2) == float(second.l2) == 0.5
    np.testing.assert_allclose(array(sum(again.losses)), array(sum(model.losses)), rtol=1e-6)

    model.save_weights(tmp_path / "model.weights.h5")
    again.load_weights(tmp_path / "model.weights.h5")
    built_anew = shares_one(rg.regularizers)
    built_anew.load_weights(tmp_path / "model.weights.h5")
    assert float(built_anew.get_layer("second").kernel_regularizer.l2) == 0.5


def test_one_instance_in_attention_survives_loading(tmp_path):
    inputs = keras.Input((4, 6))
    attention = keras.layers.MultiHeadAttention(2, 3, kernel_regularizer=rg.regularizers.L2(0.25))
    model = keras.Model(inputs, attention(inputs, inputs))
    next(v for v in model.variables if v.name == "l2").assign(0.5)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert [float(v) for v in again.variables if v.name == "l2"] == [0.5]
    np.testing.assert_allclose(
        [float(array(x)) for x in again.losses], [float(array(x)) for x in model.losses], rtol=1e-6
    )


@pytest.mark.parametrize("file", ["model.weights.h5", "model.keras"])
@pytest.mark.parametrize("rate", [0.0, 0.5])
@pytest.mark.parametrize(("source", "target"), [(stock, ours), (ours, stock)], ids=["stock to ours", "ours to stock"])
def test_weight_files_go_both_ways(source, target, rate, file, tmp_path):
    source, target = (make({**AT_FIRST, "rate": rate}) for make in (source, target))
    source.set_weights([w + 1 for w in source.get_weights()])
    (source.save if file.endswith(".keras") else source.save_weights)(tmp_path / file)
    target.load_weights(tmp_path / file)
    for w, expected in zip(target.get_weights(), source.get_weights(), strict=True):
        np.testing.assert_array_equal(w, expected)
    if target.get_layer("dropout").__class__ is rg.layers.Dropout:
        assert strengths_of(target) == pytest.approx({**AT_FIRST, "rate": rate})


def test_weights_are_those_of_the_stock_model_and_variables_have_the_strengths():
    model, expected = ours(), stock()
    assert [w.name for w in model.weights] == [w.name for w in expected.weights]
    assert [w.shape for w in model.get_weights()] == [w.shape for w in expected.get_weights()]
    assert model.count_params() == expected.count_params()
    assert [v.name for v in model.trainable_variables] == [v.name for v in expected.trainable_variables]
    model.set_weights(expected.get_weights())
    np.testing.assert_array_equal(model.predict(X, verbose=0), expected.predict(X, verbose=0))
    held = {id(v) for v in model.non_trainable_variables}
    assert all(id(getattr(*holder)) in held for holder in holders(model).values())
    assert len(held) == len(AT_FIRST) + 1  # and the seed of dropout


def test_one_strength_can_be_given_the_value_of_another():
    first, second = rg.regularizers.L2(0.25), rg.regularizers.L2(0.5)
    second.l2 = first.l2
    third = rg.regularizers.L2(first.l2)
    first.l2 = 0.75
    for penalty in (second, third):
        assert float(penalty.l2) == 0.25
        assert [v.name for v in penalty.variables] == ["l2"]


# Keras says so of each layer that has no kernel, its own Dropout among them.
@pytest.mark.filterwarnings("ignore:Layer .* does not have a `quantize` method implemented:UserWarning")
def test_quantize_takes_the_layers_without_our_penalties_and_names_the_penalty_that_keeps_one_out(tmp_path):
    models = ours({**AT_FIRST, "rate": 0.5}), stock({**AT_FIRST, "rate": 0.5})
    for model in models:
        model.pop()
        model.add(keras.layers.Dense(2, kernel_initializer="ones", name="out"))
    model, expected = models
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.quantize("int8")
    said = [str(warning.message) for warning in caught]
    for kind in ("L1", "L1L2"):
        assert any(re.match(rf"{kind} '.*' keeps its layer from being quantized", text) for text in said)
    kinds = [keras.backend.standardize_dtype(model.get_layer(name).kernel.dtype) for name in ("hidden", "out")]
    assert kinds == ["float32", "int8"]
    expected.quantize("int8", filters="out")
    np.testing.assert_allclose(*(m.predict(X, verbose=0) for m in models), rtol=1e-5)

    # The way round that the warning names.
    model = ours()
    model.save_weights(tmp_path / "model.weights.h5")
    expected = stock()
    expected.load_weights(tmp_path / "model.weights.h5")
    expected.quantize("int8")
    assert keras.backend.standardize_dtype(expected.get_layer("hidden").kernel.dtype) == "int8"
    np.testing.assert_allclose(expected.predict(X, verbose=0), model.predict(X, verbose=0), atol=0.05)


def test_strengths_stay_in_single_precision_where_layers_compute_in_half(mixed_policy):
    strengths = {**AT_FIRST, "l2": 1e-9, "activity_l1": 1e-7}  # 1e-9 is 0 in float16
    if BACKEND == "tensorflow":  # where Keras fails to add an activity penalty in half precision to its other losses
        strengths = {name: value for name, value in strengths.items() if not name.startswith("activity")}
    model, expected = ours(strengths), stock(strengths)
    held = {v.name: v for v in model.non_trainable_variables if v.shape == ()}
    assert {keras.backend.standardize_dtype(v.dtype) for v in held.values()} == {"float32"}
    assert float(held["rate"]) == 0
    assert float(model.get_layer("out").kernel_regularizer.l2) == pytest.approx(1e-9, rel=1e-6)
    assert fit(model) == pytest.approx(evaluate(expected), rel=2**-7)
    assign(model, "l2", 0.5)
    norm = np.square(model.get_layer("out").get_weights()[0]).sum()
    assert fit(model) == pytest.approx(evaluate(expected) + 0.5 * norm, rel=2**-7)
