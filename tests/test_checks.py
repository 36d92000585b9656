"""`rg.check`: each check fires on its bad example and on that alone, and what is well made is left in peace."""

import json
import random
import re
import warnings

import keras
import numpy as np
import pytest
from keras import layers

import regularity as rg
from regularity.checks import CHECKS

BY_NAME = {check.name: check for check in CHECKS}


def made(code):
    """What `rg.check` is given for an example."""
    names = {"keras": keras, "np": np, "rg": rg}
    exec(code, names)
    return names["model"], {key: names[key] for key in ("x", "y", "callbacks") if key in names}


def found(code):
    model, given = made(code)
    return rg.check(model, **given)


@pytest.mark.parametrize("name", BY_NAME)
def test_each_fires_on_its_bad_example_and_not_on_the_mended(name):
    check = BY_NAME[name]
    findings = found(check.bad)
    assert [each.name for each in findings] == [name]
    assert (findings[0].code, findings[0].level) == (check.code, check.level)
    assert found(check.good) == []


@pytest.mark.parametrize("name", BY_NAME)
def test_each_says_what_a_reader_needs(name):
    check = BY_NAME[name]
    (finding,) = found(check.bad)
    assert re.fullmatch(r"RG\d{3}", check.code)
    assert finding.why.endswith(".")
    assert "\n" not in finding.why + finding.mend
    assert len(finding.why) < 140
    assert finding.page == f"docs/checks/{name}.md"
    assert all((check.summary, check.why, check.fine))
    assert finding.code in str(finding)
    assert finding.layer in str(finding)


def test_codes_and_names_are_given_once_and_in_order():
    assert [check.code for check in CHECKS] == sorted({check.code for check in CHECKS})
    assert len(BY_NAME) == len(CHECKS)


# A member of each family, as small as its code allows; others differ in depth and width alone.
APPLICATIONS = {
    "ConvNeXtTiny": 32,
    "DenseNet121": 32,
    "EfficientNetB0": 32,
    "EfficientNetV2B0": 32,
    "InceptionResNetV2": 75,
    "InceptionV3": 75,
    "MobileNet": 32,
    "MobileNetV2": 32,
    "MobileNetV3Small": 32,
    "NASNetMobile": 32,
    "ResNet50": 32,
    "ResNet50V2": 32,
    "VGG16": 32,
    "Xception": 71,
}


@pytest.fixture
def without_drawing(monkeypatch):
    """Weights are zeros: to draw them, XLA compiles a program for each shape, which takes longer than all the rest."""
    for name in ("RandomNormal", "RandomUniform", "TruncatedNormal", "VarianceScaling"):
        kind = getattr(keras.initializers, name)
        monkeypatch.setattr(kind, "__call__", lambda self, shape, dtype=None: np.zeros(shape, dtype or "float32"))


@pytest.mark.parametrize("name", APPLICATIONS)
@pytest.mark.usefixtures("without_drawing")
def test_networks_of_keras_are_left_in_peace(name):
    shape = (APPLICATIONS[name], APPLICATIONS[name], 3)
    model = getattr(keras.applications, name)(weights=None, input_shape=shape, classes=10)
    for optimizer in ("sgd", "adam"):
        model.compile(optimizer, "sparse_categorical_crossentropy")
        assert rg.check(model) == []


def test_good_practice_is_left_in_peace():
    inputs = keras.Input((16,))
    hidden = keras.layers.Dense(32, "relu")(inputs)
    hidden = keras.layers.LayerNormalization()(keras.layers.Dropout(0.2)(hidden) + hidden)
    outputs = [keras.layers.Dense(3, "softmax", name="a")(hidden), keras.layers.Dense(1, name="b")(hidden)]
    model = keras.Model(inputs, outputs)
    optimizer = keras.optimizers.AdamW(weight_decay=1e-4)
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    model.compile(optimizer, {"a": "sparse_categorical_crossentropy", "b": "mse"}, metrics={"a": "accuracy"})
    x, y = np.ones((8, 16), "float32"), {"a": np.zeros(8, "int32"), "b": np.ones(8, "float32")}
    stopping = keras.callbacks.EarlyStopping("val_a_accuracy", mode="max", restore_best_weights=True)
    assert rg.check(model, x, y, callbacks=[stopping]) == []


def test_what_a_check_says_has_no_effect_has_none():
    for name in ("regularizer-after-build", "depthwise-kernel-regularizer", "penalty-on-frozen-weights"):
        model, _ = made(BY_NAME[name].bad)
        assert model.losses == [], name
    images = np.random.default_rng(0).normal(size=(8, 8, 8, 3)).astype("float32")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # JAX's, of what Keras does in this layer
        mixed = keras.ops.convert_to_numpy(keras.layers.MixUp(seed=0)(images, training=True))
    assert np.abs(mixed - images).max() > 0.1  # images alone are taken, and mixed


def test_a_regularizer_that_was_exchanged_or_taken_away_is_not_what_the_loss_has():
    hidden = keras.layers.Dense(8, kernel_regularizer=keras.regularizers.L2(0.01))
    model = keras.Sequential([keras.Input((4,)), hidden, keras.layers.Dense(1)])
    before = float(sum(model.losses))
    for late, said in (
        (keras.regularizers.L2(1.0), "is L2(1), the loss has L2(0.01)"),
        (None, "is None, the loss has L2"),
    ):
        hidden.kernel_regularizer = late
        (finding,) = rg.check(model)
        assert finding.name == "regularizer-after-build"
        assert said in finding.why
        assert float(sum(model.losses)) == before
    exec(finding.mend, {"layer": hidden})
    assert model.losses == []
    assert rg.check(model) == []
    hidden.kernel_regularizer, hidden.kernel.regularizer = "l2", keras.regularizers.L2(0.01)  # the same in other words
    assert rg.check(model) == []


@pytest.mark.parametrize(
    ("layer", "slot"),
    [
        (keras.layers.DepthwiseConv2D(3), "depthwise_regularizer"),
        (keras.layers.SeparableConv2D(3, 3), "depthwise_regularizer"),
        (keras.layers.SeparableConv2D(3, 3), "pointwise_regularizer"),
    ],
)
def test_slots_are_known_whose_weights_have_another_name(layer, slot):
    model = keras.Sequential([keras.Input((8, 8, 3)), layer])
    setattr(layer, slot, keras.regularizers.L2(0.1))
    assert model.losses == []
    assert [each.name for each in rg.check(model)] == ["regularizer-after-build"]


LAYERS = keras.layers
L2 = {"kernel_regularizer": "l2"}


@pytest.mark.parametrize(
    "layers",
    [
        [LAYERS.Dense(8, **L2), LAYERS.BatchNormalization(trainable=False)],  # normalizes by what it has
        [LAYERS.Dense(8, "relu"), LAYERS.Dropout(0.5), LAYERS.BatchNormalization(trainable=False)],
        [LAYERS.Dense(8, "relu"), LAYERS.Dropout(0.05), LAYERS.BatchNormalization()],
        [LAYERS.Reshape((2, 4)), LAYERS.PReLU(alpha_regularizer="l2"), LAYERS.BatchNormalization(), LAYERS.Flatten()],
        [LAYERS.Dense(8, "relu", kernel_regularizer="l1", kernel_constraint="max_norm")],  # sparse, and bounded
        [LAYERS.Dense(8, "relu", kernel_regularizer="l2", kernel_constraint="non_neg")],
        [LAYERS.Reshape((2, 4)), LAYERS.LSTM(8, "relu", recurrent_dropout=0.2)],  # has no fused kernel anyway
        [LAYERS.Reshape((2, 4)), LAYERS.GRU(8, recurrent_dropout=0.2, reset_after=False)],
    ],
)
def test_what_looks_alike_and_is_fine_is_left_in_peace(layers):
    model = keras.Sequential([keras.Input((8,)), *layers, LAYERS.Dense(1)])
    model.compile("sgd", "mse")
    assert rg.check(model) == []


def test_what_is_normalized_and_put_out_too_is_penalized_for_a_reason():
    inputs = keras.Input((4,))
    features = LAYERS.Dense(8, **L2)(inputs)
    model = keras.Model(inputs, [LAYERS.BatchNormalization()(features), features])
    assert rg.check(model) == []


def test_frozen_layers_are_one_finding():
    hidden = [LAYERS.Dense(4, "relu", name=f"d{i}", **L2) for i in range(5)]
    backbone = keras.Sequential([keras.Input((4,)), *hidden], name="base")
    backbone.trainable = False
    (finding,) = rg.check(keras.Sequential([backbone, LAYERS.Dense(1)]))
    assert (finding.name, finding.layer) == ("penalty-on-frozen-weights", "base/d0, base/d1, base/d2 and 2 more")


@pytest.mark.parametrize(("shape", "found"), [((3,), []), ((), ["mixed-images-in-the-model"])])
def test_a_graph_that_mixes_images_with_their_labels_needs_them_one_hot(shape, found):
    images, labels = keras.Input((8, 8, 3)), keras.Input(shape)
    mixed = LAYERS.MixUp()({"images": images, "labels": labels})
    assert [each.name for each in rg.check(keras.Model([images, labels], mixed))] == found


def test_a_checkpoint_of_every_epoch_watches_nothing():
    model, _ = made(BY_NAME["watches-the-penalty"].good)
    assert rg.check(model, callbacks=[keras.callbacks.ModelCheckpoint("a.keras")]) == []
    best = keras.callbacks.ModelCheckpoint("a.keras", save_best_only=True)
    assert [each.name for each in rg.check(model, callbacks=[best])] == ["watches-the-penalty"]


def test_penalties_above_the_data_are_news_before_training_alone():
    model, given = made(BY_NAME["penalty-above-the-data"].bad)
    model.fit(**given, verbose=0)
    assert model.evaluate(**given, verbose=0) > 1
    assert rg.check(model, **given) == []


@pytest.mark.parametrize("name", ["Adam", "Lion"])
def test_an_adaptive_optimizer_decays_less_where_gradients_are_large(name):
    """Two weights of 1, of which one has gradients of 0.01 and one of 10 besides that of the penalty."""
    decayed = []
    for penalty in (0.0, 0.02):
        weights = keras.Variable(np.ones(2, "float32"))
        optimizer = getattr(keras.optimizers, name)(0.01)
        optimizer.build([weights])
        for step in range(30):
            gradient = np.array([0.01, 10.0], "float32") * (-1) ** step
            optimizer.apply([keras.ops.convert_to_tensor(gradient) + penalty * weights], [weights])
        decayed.append(keras.ops.convert_to_numpy(weights))
    small, large = decayed[0] - decayed[1]
    assert small > 0.1 > 0.01 > abs(large)


def test_a_kernel_before_a_normalization_may_have_any_scale():
    x = np.random.default_rng(0).normal(size=(64, 4)).astype("float32")
    for normalization in (LAYERS.BatchNormalization(epsilon=1e-7), LAYERS.LayerNormalization(epsilon=1e-7)):
        hidden = LAYERS.Dense(8)
        model = keras.Sequential([keras.Input((4,)), hidden, normalization])
        before = keras.ops.convert_to_numpy(model(x, training=True))
        hidden.kernel.assign(0.5 * hidden.kernel)
        assert keras.ops.convert_to_numpy(model(x, training=True)) == pytest.approx(before, abs=1e-3)


@pytest.mark.parametrize(("rate", "least"), [(0.0, 0.98), (0.05, 0.93), (0.5, 0.5)])
def test_dropout_shifts_what_batch_normalization_learns(rate, least):
    x = np.random.default_rng(0).normal(size=(1024, 16)).astype("float32") + 1
    model = keras.Sequential([keras.Input((16,)), LAYERS.Dropout(rate), LAYERS.BatchNormalization(momentum=0.5)])
    for _ in range(30):
        model(x, training=True)
    spread = float(keras.ops.convert_to_numpy(model(x)).std(0).mean())
    assert least < spread < least + 0.1  # 1 is what it is to be


@pytest.mark.parametrize(
    "layer",
    [
        LAYERS.LSTM(4, recurrent_dropout=0.95, use_cudnn=False),
        LAYERS.SimpleRNN(4, dropout=0.95),
        LAYERS.ConvLSTM1D(4, 1, dropout=0.95, return_sequences=True),
    ],
)
def test_dropout_inside_a_cell_may_be_extreme_too(layer):
    shape = (5, 6, 2) if isinstance(layer, LAYERS.ConvLSTM1D) else (5, 2)
    model = keras.Sequential([keras.Input(shape), layer, LAYERS.Dense(1)])
    assert [(each.name, each.layer) for each in rg.check(model)] == [("extreme-dropout", f"{layer.name}/cell")]


def test_dropout_of_attention_may_be_extreme_too():
    inputs = keras.Input((5, 4))
    model = keras.Model(inputs, LAYERS.MultiHeadAttention(2, 2, dropout=0.95)(inputs, inputs))
    assert [each.name for each in rg.check(model)] == ["extreme-dropout"]


@pytest.mark.parametrize(("rows", "strength"), [(1_000, 1e-4), (60_000, 1e-4), (60_000, 1e-3), (1_000, 1e-2)])
def test_usual_strengths_are_not_far_from_the_data_size(rows, strength):
    l2 = {
        "kernel_regularizer": keras.regularizers.L2(strength),
        "kernel_initializer": keras.initializers.Constant(0.01),
    }
    layers = [LAYERS.Conv2D(32, 3, activation="relu", **l2), LAYERS.Flatten(), LAYERS.Dense(128, "relu", **l2)]
    model = keras.Sequential([keras.Input((28, 28, 1)), *layers, LAYERS.Dense(10, "softmax")])
    model.compile("sgd", "sparse_categorical_crossentropy")
    assert rg.check(model, np.broadcast_to(np.zeros((1, 28, 28, 1), "float32"), (rows, 28, 28, 1))) == []


def test_a_model_that_trains_in_a_way_of_its_own_has_no_loss_to_compare_with():
    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.out = keras.layers.Dense(1, kernel_regularizer=keras.regularizers.L2(10.0))

        def call(self, x):
            return self.out(x)

        def train_step(self, *arguments):
            raise NotImplementedError

    model, x, y = Own(), np.ones((8, 4), "float32"), np.ones(8, "float32")
    model(x)
    model.compile("sgd")
    assert rg.check(model, x, y) == []


def test_layers_of_nested_models_are_found_by_their_paths():
    inner = keras.Sequential([keras.Input((8,)), keras.layers.Dense(8, name="late")], name="inner")
    inner.layers[0].kernel_regularizer = keras.regularizers.L1(0.1)
    model = keras.Sequential([keras.Input((8,)), inner, keras.layers.Dense(1)])
    (finding,) = rg.check(model)
    assert finding.layer == "inner/late"
    assert inner.losses == []
    exec(finding.mend, {"layer": inner.layers[0]})
    assert len(model.losses) == 1
    assert rg.check(model) == []


def test_a_mend_that_is_a_recipe_mends():
    for name in ("l2-with-an-adaptive-optimizer", "l2-with-weight-decay"):
        model, _ = made(BY_NAME[name].bad)
        (finding,) = rg.check(model)
        names = {"model": model, "rg": rg}
        exec(finding.mend, names)
        assert float(sum(names["model"].losses)) == 0.0
        assert names["model"].to_keras().optimizer.weight_decay == 0.01
        assert rg.check(names["model"].to_keras()) == []


def test_the_model_is_not_touched():
    model, given = made(BY_NAME["penalty-above-the-data"].bad)
    before = [w.copy() for w in model.get_weights()]
    config = model.get_config()
    rg.check(model, **given)
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))
    assert model.get_config() == config


def test_metrics_take_no_note_of_a_check():
    inputs = keras.Input((4,))
    hidden = keras.layers.Dense(4, kernel_regularizer=keras.regularizers.L2(1.0))(inputs)
    model = keras.Model(inputs, [keras.layers.Dense(1, name=name)(hidden) for name in "ab"])
    model.compile("sgd", {"a": "mse", "b": "mse"})
    x, y = np.ones((8, 4), "float32"), {"a": np.ones(8, "float32"), "b": np.ones(8, "float32")}
    model.evaluate(x, y, verbose=0)
    before = [metric.result() for metric in model.metrics]
    assert [each.name for each in rg.check(model, x, y)] == ["penalty-above-the-data"]
    assert [metric.result() for metric in model.metrics] == before


def test_layers_that_are_quantized_or_adapted_are_left_in_peace():
    quantized, adapted = (keras.layers.Dense(8, kernel_regularizer="l2") for _ in range(2))
    model = keras.Sequential([keras.Input((8,)), quantized, adapted])
    quantized.quantize("int8")
    adapted.enable_lora(2)
    assert rg.check(model) == []


def test_ours_are_looked_at_as_keras_own_are():
    layers = [
        keras.layers.Dense(8, kernel_regularizer=rg.regularizers.L2(0.1)),
        rg.layers.Dropout(0.95),
        keras.layers.Dense(1),
    ]
    model = keras.Sequential([keras.Input((4,)), *layers])
    model.compile("adam", "mse")
    assert {each.name for each in rg.check(model)} == {"l2-with-an-adaptive-optimizer", "extreme-dropout"}
    model.layers[0].kernel_regularizer.l2 = 0.0
    model.layers[1].rate = 0.0
    assert rg.check(model) == []


def test_penalties_of_other_kinds_are_no_l2():
    kernel = {"kernel_regularizer": keras.regularizers.OrthogonalRegularizer(0.1), "kernel_constraint": "unit_norm"}
    normalized = [keras.layers.Dense(4, **kernel), keras.layers.BatchNormalization()]
    odd = keras.layers.Dense(4, kernel_regularizer=lambda kernel: keras.ops.sum(kernel**4))
    model = keras.Sequential([keras.Input((4,)), *normalized, odd, keras.layers.Dense(1)])
    model.compile("adam", "mse")
    x = np.ones((8, 4), "float32")
    assert rg.check(model, x, np.full(8, 1e3, "float32")) == []


def test_data_that_do_not_fit_are_refused():
    model, given = made(BY_NAME["penalty-above-the-data"].bad)
    with pytest.raises(ValueError, match="rows"):
        rg.check(model, given["x"], given["y"][:-1])
    with pytest.raises(ValueError, match=r"Expected x of shape \(rows, 4\)"):
        rg.check(model, given["x"][:, 1:])
    with pytest.raises(TypeError, match=r"Expected arrays, to count their rows\. Received: list_iterator"):
        rg.check(model, iter([given["x"]]))
    with pytest.raises(TypeError, match="Expected x to hold numbers"):
        rg.check(model, "rows.csv")


def test_rows_may_be_lists_and_callbacks_one_or_none():
    model, given = made(BY_NAME["l2-far-from-the-data-size"].bad)
    assert [each.name for each in rg.check(model, given["x"].tolist())] == ["l2-far-from-the-data-size"]
    model, given = made(BY_NAME["early-stopping-keeps-the-last-weights"].bad)
    (one,) = given["callbacks"]
    assert [each.name for each in rg.check(model, callbacks=one)] == ["early-stopping-keeps-the-last-weights"]
    assert rg.check(model, callbacks=None) == []


def test_subclassed_models_are_looked_into():
    class Mine(keras.Model):
        def __init__(self):
            super().__init__()
            self.hidden = keras.layers.Dense(4)
            self.left_out = keras.layers.Dropout(0.95)

        def call(self, x, training=False):
            return self.left_out(self.hidden(x), training=training)

    model = Mine()
    with pytest.raises(ValueError, match="built"):
        rg.check(model)
    model(np.ones((2, 3), "float32"))
    model.hidden.kernel_regularizer = keras.regularizers.L2(0.1)
    assert {each.name for each in rg.check(model)} == {"regularizer-after-build", "extreme-dropout"}


def test_no_model_is_no_model():
    with pytest.raises(TypeError, match=r"Expected a Keras model\. Received: str"):
        rg.check("model.keras")


def test_findings_are_a_list_a_text_and_a_table():
    findings = found(BY_NAME["regularizer-after-build"].bad)
    assert findings.table["code"].tolist() == ["RG101"]
    assert str(findings) == str(findings[0])
    assert "&quot;" in found(BY_NAME["l2-with-an-adaptive-optimizer"].bad)._repr_html_()
    none = found(BY_NAME["regularizer-after-build"].good)
    assert "Nothing is wrong" in str(none)
    assert "Nothing is wrong" in none._repr_html_()
    assert none.table.empty


# -- the command line --------------------------------------------------------------------------------------------------


@pytest.fixture
def run(tmp_path, monkeypatch, command_line):
    monkeypatch.chdir(tmp_path)
    return command_line


def test_command_says_what_it_found_and_ends_with_1(run):
    model, _ = made(BY_NAME["extreme-dropout"].bad)
    model.save("net.keras")
    code, out, err = run("check", "net.keras")
    assert (code, err) == (1, "")
    assert "RG401 extreme-dropout" in out
    code, out, _ = run("check", "net.keras", "--json")
    assert code == 1
    assert [each["name"] for each in json.loads(out)] == ["extreme-dropout"]


def test_command_looks_at_data(run):
    model, given = made(BY_NAME["penalty-above-the-data"].bad)
    model.save("net.keras")
    np.savez("data.npz", **given)
    assert run("check", "net.keras")[0] == 0
    code, out, _ = run("check", "net.keras", "data.npz")
    assert (code, "RG402" in out) == (1, True)


def test_command_ends_with_2_where_data_are_no_numbers(run):
    model, _ = made(BY_NAME["penalty-above-the-data"].bad)
    model.save("net.keras")
    np.savez("text.npz", x=np.full((3, 4), "a"), y=np.ones(3))
    code, out, err = run("check", "net.keras", "text.npz")
    assert (code, out) == (2, "")
    assert err.startswith("regularity: Expected x to hold numbers.")


def test_command_ends_with_0_where_all_is_well_and_with_2_without_a_model(run):
    model, _ = made(BY_NAME["extreme-dropout"].good)
    model.save("net.keras")
    code, out, _ = run("check", "net.keras")
    assert (code, "Nothing is wrong" in out) == (0, True)
    code, out, err = run("check", "nothing.keras")
    assert (code, out) == (2, "")
    assert err.startswith("regularity: No such file: nothing.keras.")


def net(*layers):
    model = keras.Sequential([keras.Input((4,)), *layers])
    model.compile("sgd", "mse")
    return model


def test_alpha_dropout_before_a_normalization_keeps_its_variance():
    layers = [keras.layers.Dense(8, "selu"), keras.layers.AlphaDropout(0.2), keras.layers.BatchNormalization()]
    assert not [f for f in rg.check(net(*layers, keras.layers.Dense(1))) if f.code == "RG205"]


def test_a_regularizer_without_a_configuration_that_was_set_too_late_is_found():
    class Own(keras.regularizers.Regularizer):
        def __call__(self, x):
            return 0.01 * keras.ops.sum(x**2)

    model = net(keras.layers.Dense(8, "relu", kernel_regularizer=Own()), keras.layers.Dense(1))
    model.layers[0].kernel_regularizer = Own()
    assert "RG101" in [f.code for f in rg.check(model)]


# -- models that a recipe was applied to -----------------------------------------------------------------------------------


def recurrent(l2=None, dropout=None, cell=0.0, memory=0.0, decay=None, constraint=None, activity=None):
    """A network with what Keras has of a recipe, or without."""
    keras.utils.set_random_seed(0)
    body = [
        layers.LSTM(4, dropout=cell, recurrent_dropout=memory, name="lstm"),
        layers.Dense(
            8, "relu", kernel_regularizer=l2, kernel_constraint=constraint, activity_regularizer=activity, name="h"
        ),
        *([] if dropout is None else [layers.Dropout(dropout, name="h_dropout")]),
        layers.Dense(1, name="out"),
    ]
    model = keras.Sequential([keras.Input((5, 4)), *body])
    optimizer = keras.optimizers.Adam(weight_decay=decay)
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    model.compile(optimizer, "mse", metrics=["mse"])
    return model


def said(model):
    callbacks = [keras.callbacks.EarlyStopping("val_loss", restore_best_weights=True)]
    rows = np.ones((8, 5, 4), "float32"), np.full(8, 5.0, "float32")
    return [(each.code, each.layer, each.why) for each in rg.check(model, *rows, callbacks=callbacks)]


STRONG = keras.regularizers.L2(10.0)
IN_KERAS = [
    ({"l2@h/kernel": 0.01}, {"l2": keras.regularizers.L2(0.01)}, {"RG201", "RG301"}),
    ({"l2@h/kernel": 10.0}, {"l2": STRONG}, {"RG201", "RG301", "RG402"}),
    ({"l2@h/kernel": 0.01, "weight_decay": 0.1}, {"l2": keras.regularizers.L2(0.01), "decay": 0.1}, {"RG202", "RG301"}),
    ({"l2@h/kernel": 0.01, "max_norm@h/kernel": 2.0}, {"l2": keras.regularizers.L2(0.01), "constraint": keras.constraints.MaxNorm(2.0)}, {"RG207", "RG201", "RG301"}),
    ({"dropout@h": 0.95}, {"dropout": 0.95}, {"RG401"}),
    ({"variational_dropout": 0.0005, "recurrent_dropout": 0.95}, {"cell": 0.0005, "memory": 0.95}, {"RG208", "RG401"}),
    ({"activity_l2@h": 0.01}, {"activity": keras.regularizers.L2(0.01)}, {"RG301"}),
]  # fmt: skip


@pytest.mark.parametrize(("recipe", "stock", "codes"), IN_KERAS, ids=lambda value: "+".join(sorted(value)))
def test_of_a_recipe_it_says_what_it_says_of_the_same_in_keras(recipe, stock, codes):
    found = said(rg.Recipe(recipe).apply(recurrent()))
    assert {code for code, *_ in found} == codes
    assert found == said(recurrent(**stock))
    assert said(recurrent()) == []
    off = {key: None if "norm" in key else 0.0 for key in recipe}
    assert said(rg.Recipe(off).apply(recurrent())) == []
    assert said(rg.Recipe(off).apply(recurrent(**stock))) == []


def test_penalties_that_keras_lacks_are_penalties():
    assert {code for code, *_ in said(rg.Recipe({"group_lasso@h/kernel": 0.001}).apply(recurrent()))} == {"RG301"}
    assert {code for code, *_ in said(rg.Recipe({"group_lasso@h/kernel": 9.0}).apply(recurrent()))} == {
        "RG301",
        "RG402",
    }
    assert said(rg.Recipe({"group_lasso": 0.0, "batch_normalization": 0.0, "snapshots": 1.0}).apply(recurrent())) == []


def test_a_strength_that_changes_is_read_as_it_is_now():
    applied = rg.Recipe({"l2@h/kernel": 0.0, "dropout@h": 0.95}).apply(recurrent())
    applied.strengths["l2@h/kernel"].assign(0.01)
    applied.strengths["dropout@h"].assign(0.5)
    assert {code for code, *_ in said(applied)} == {"RG201", "RG301"}
    applied.strengths["l2@h/kernel"].assign(10.0)
    applied.train_on_batch(np.ones((8, 5, 4), "float32"), np.ones(8, "float32"))
    assert {code for code, *_ in said(applied)} == {"RG201", "RG301"}  # it is being trained


def test_what_is_set_too_late_on_a_model_with_a_recipe_is_seen(tmp_path):
    applied = rg.Recipe({"l2@out/kernel": 0.0}).apply(recurrent())
    applied.get_layer("h").kernel_regularizer = STRONG
    assert [code for code, *_ in said(applied)] == ["RG101"]
    applied = rg.Recipe({"dropout@h": 0.95, "l2@h/kernel": 0.0}).apply(recurrent())
    applied.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", compile=False)
    assert [each.code for each in rg.check(loaded)] == ["RG401"]


def reloaded(recipe, path):
    rg.Recipe(recipe).apply(recurrent()).save(path / "model.keras")
    return keras.saving.load_model(path / "model.keras", compile=False)


@pytest.mark.parametrize("recipe", [{"max_norm@h/kernel": 2.0}, {"ema": 0.9}, {"snapshots": 1.0}], ids=str)
def test_a_recipe_is_looked_at_without_an_optimizer(recipe, tmp_path):
    assert rg.check(reloaded({**recipe, "dropout@h": 0.95}, tmp_path))[0].code == "RG401"


class Own(keras.metrics.Mean):
    """A metric that has no configuration."""

    def __init__(self, unit):
        super().__init__(name="own")
        self.unit = unit


def test_a_model_with_a_recipe_that_can_not_be_copied_is_looked_at():
    applied = rg.Recipe({"dropout@h": 0.95, "l2@out/kernel": 0.01}).apply(recurrent())
    applied.get_layer("h").enable_lora(2)
    assert "RG401" in [each.code for each in rg.check(applied)]
    quantized = rg.Recipe({"dropout@h": 0.95, "l2@h/kernel": 0.01}).apply(recurrent())
    quantized.get_layer("h").quantize("int8")
    codes = [each.code for each in rg.check(quantized)]
    assert "RG401" in codes
    assert "RG103" not in codes


def test_metrics_are_not_copied_for_a_check():
    applied = rg.Recipe({"l2@h/kernel": 0.01}).apply(recurrent())
    applied.compile("adam", "mse", metrics=[Own("m")])
    assert [each.code for each in rg.check(applied)] == ["RG201"]


def test_a_check_draws_nothing():
    applied = rg.Recipe({"l2@h/kernel": 0.01, "dropout": 0.2}).apply(recurrent())
    before = random.getstate()
    rg.check(applied)
    assert random.getstate() == before


@pytest.mark.parametrize("technique", ["l2", "group_lasso"])
def test_a_penalty_of_a_recipe_on_a_layer_that_is_frozen_later_is_found(technique):
    for strength, codes in ((0.01, ["RG103"]), (0.0, [])):
        applied = rg.Recipe({f"{technique}@h/kernel": strength}).apply(recurrent())
        applied.get_layer("h").trainable = False
        assert [each.code for each in rg.check(applied)] == codes
