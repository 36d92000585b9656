"""The program that builds a model and trains it with a recipe, run and compared with the model and its training."""

import ast
import contextlib
import io
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

import regularity as rg
from regularity.recipe._source import source

ROWS = 32


def built(program: str, **known: Any) -> Any:
    """The compiled model of a program, which is run up to its `fit`."""
    namespace: dict[str, Any] = dict(known)
    exec(program[: program.index("model.fit(")], namespace)
    return namespace["model"]


def clean(config: Any) -> Any:
    """A configuration without names, and without what only a built layer knows."""
    if isinstance(config, dict):
        left_out = ("name", "build_config", "compile_config", "registered_name", "attention_axes")
        return {key: clean(value) for key, value in config.items() if key not in left_out}
    if isinstance(config, (list, tuple)):
        return clean(config[0]) if len(config) == 1 else [clean(value) for value in config]
    return float(np.float32(config)) if isinstance(config, float) else config


def structure(model: Any) -> list[Any]:
    """What a model is made of, without names; graphs layer by layer, since their configurations refer to names."""
    parts = []
    for layer in model.layers:
        inside = structure(layer) if isinstance(layer, keras.Model) else clean(layer.get_config())
        parts.append((type(layer).__name__, inside))
    return sorted(parts, key=repr) if type(model).__name__ == "Functional" else parts


def assert_trains_the_same(model: Any, recipe: rg.Recipe, x: Any, y: Any, **known: Any) -> str:
    """Losses of the program are those of `recipe.apply(model).fit`; returns the program."""
    program = source(model, recipe)
    applied, ours = recipe.apply(model), built(program, **known)
    ours.set_weights(applied.get_weights())
    theirs, ours = (m.fit(x, y, epochs=2, shuffle=False, verbose=0).history["loss"] for m in (applied, ours))
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)
    return program


def assert_formatted(program: str, tmp_path: Path) -> None:
    options = ["--isolated", "--line-length", "100"]
    for command in (["format", "--diff"], ["check", "--select", "E,F,W,I", "--ignore", "F821"]):
        run = subprocess.run(
            [sys.executable, "-m", "ruff", *command, *options, "-"],
            input=program, capture_output=True, text=True, cwd=tmp_path, check=False,
        )  # fmt: skip
        assert run.returncode == 0, run.stdout + run.stderr


def numbers(*shape: int) -> Any:
    return np.random.default_rng(0).normal(size=(ROWS, *shape)).astype("float32")


def classes(count: int) -> Any:
    return np.random.default_rng(1).integers(0, count, ROWS)


def compiled(model: Any, optimizer: Any = "adam", loss: Any = "mse", **others: Any) -> Any:
    model.compile(optimizer, loss, **others)
    return model


def small(optimizer: Any = "adam", loss: Any = "mse", **others: Any) -> Any:
    stack = [keras.Input((6,)), layers.Dense(8, "relu", name="hidden"), layers.Dense(3, "softmax", name="out")]
    return compiled(keras.Sequential(stack), optimizer, loss, **others)


# -- the post --------------------------------------------------------------------------------------------------------------


def post(*, penalties: bool) -> Any:
    l1, l2 = (keras.regularizers.L1(0.01), keras.regularizers.L2(0.01)) if penalties else (None, None)
    model = keras.Sequential([keras.Input((100,))])
    model.add(layers.Dense(64, activation="relu", kernel_regularizer=l1))
    if not penalties:
        model.add(layers.Dropout(0.5))
    model.add(layers.Dense(64, activation="relu", kernel_regularizer=l2))
    if not penalties:
        model.add(layers.Dropout(0.5))
    model.add(layers.Dense(10, activation="softmax"))
    return compiled(model, "adam", "categorical_crossentropy", metrics=["accuracy"])


def test_program_of_the_posts_penalties() -> None:
    model = post(penalties=True)
    assert source(model, rg.Recipe({"l1": 0.00037, "l2": 0, "epochs": 10})) == (
        "import keras\n"
        "from keras import regularizers\n"
        "from keras.layers import Dense\n"
        "\n"
        "# x, y: your data\n"
        "\n"
        "model = keras.Sequential()\n"
        "model.add(keras.Input((100,)))\n"
        'model.add(Dense(64, activation="relu", kernel_regularizer=regularizers.L1(0.00037)))\n'
        'model.add(Dense(64, activation="relu", kernel_regularizer=regularizers.L1(0.00037)))\n'
        'model.add(Dense(10, activation="softmax", kernel_regularizer=regularizers.L1(0.00037)))\n'
        "\n"
        'model.compile(loss="categorical_crossentropy", optimizer="adam", metrics=["accuracy"])\n'
        "model.fit(x, y, epochs=10, batch_size=32)\n"
    )
    assert_trains_the_same(model, rg.Recipe(), numbers(100), np.eye(10)[classes(10)])


def test_program_of_the_posts_dropout_runs_as_it_is() -> None:
    model = post(penalties=False)
    program = source(model, rg.Recipe({"dropout": 0.3}), batch_size=16, epochs=2)
    namespace = {"x": numbers(100), "y": np.eye(10)[classes(10)]}
    with contextlib.redirect_stdout(io.StringIO()):
        exec(program, namespace)
    ours: Any = namespace["model"]
    assert "regularity" not in program
    assert ours.history.epoch == [0, 1]
    assert ours.optimizer.iterations == 4
    assert structure(ours) == structure(rg.Recipe({"dropout": 0.3}).apply(model).to_keras())
    assert [layer.rate for layer in ours.layers if isinstance(layer, layers.Dropout)] == [0.3, 0.3]


# -- what is stock -----------------------------------------------------------------------------------------------------------

STOCK = {
    "l1": 0.01,
    "l2@hidden": 0.1,
    "activity_l2": 0.01,
    "weight_decay": 0.5,
    "max_norm": 0.5,
    "clip_norm": 0.1,
    "ema": 0.9,
    "label_smoothing": 0.2,
    "learning_rate": 0.02,
}


def test_stock_techniques_train_the_same_without_regularity(tmp_path: Path) -> None:
    recipe = rg.Recipe(STOCK)
    model = small(keras.optimizers.SGD(0.5, momentum=0.9), "categorical_crossentropy")
    program = assert_trains_the_same(model, recipe, numbers(6), np.eye(3)[classes(3)])
    assert "regularity" not in program
    assert "label_smoothing=0.2" in program
    assert "learning_rate=0.02" in program
    assert_formatted(program, tmp_path)
    assert structure(built(program)) == structure(recipe.apply(model).to_keras())


@pytest.mark.parametrize(
    ("recipe", "loss"),
    [
        ({"label_smoothing": 0.2}, "sparse_categorical_crossentropy"),  # Keras smooths no whole numbers
        ({"weight_decay@hidden": 0.1, "weight_decay@out": 0.2}, "mse"),  # its optimizers have one decay
        ({"l2": {"strength": 0.1, "schedule": "linear"}}, "mse"),
        ({"group_lasso": 0.1, "dropout": 0.2}, "mse"),
        ({"unit_norm": 0.1}, "mse"),
        ({"dropout@hid*": 1.0}, "mse"),
        ({"batch_normalization": 0.5}, "mse"),
        ({"adaptive_clip": 0.1}, "mse"),
        ({"mixup": 0.2}, "mse"),
        ({"sam": 0.1}, "mse"),
        ({"swa": 0.5}, "mse"),
    ],
)
def test_what_keras_has_not_is_applied_by_regularity(recipe: Any, loss: str) -> None:
    model = small(loss=loss)
    program = source(model, rg.Recipe(recipe))
    ours, theirs = built(program), rg.Recipe(recipe).apply(model)
    assert "recipe = rg.Recipe(" in program
    assert {k: float(v) for k, v in ours.strengths.items()} == {k: float(v) for k, v in theirs.strengths.items()}
    assert ours.get_config()["schedules"] == theirs.get_config()["schedules"]


def test_recipe_of_patterns_is_stock_where_its_techniques_are() -> None:
    stack = [keras.Input((6,)), *(layers.Dense(4, "relu", name=f"hidden_{i}") for i in (1, 2)), layers.Dense(1)]
    model = compiled(keras.Sequential(stack))
    program = source(model, rg.Recipe({"dropout@hidden*": 0.3, "l2@hidden_2": 0.00037}))
    assert 'model.add(Dense(4, activation="relu", name="hidden_1"))\nmodel.add(Dropout(0.3))\n' in program
    assert "kernel_regularizer=regularizers.L2(0.00037)" in program
    assert "model.add(Dense(1))" in program


def test_names_that_patterns_need_are_kept() -> None:
    stack = [keras.Input((6,)), layers.Dense(4, "relu"), layers.Dense(4, "relu"), layers.Dense(1)]
    model = compiled(keras.Sequential(stack))
    first, second, _ = model.layers
    recipe = rg.Recipe({f"dropout@{second.name}": 0.3, f"group_lasso@{first.name}": 0.1})
    program = source(model, recipe)
    assert f'name="{first.name}"' in program
    assert list(built(program).strengths) == list(recipe.apply(model).strengths)


def test_averages_beside_batch_normalization_need_regularity() -> None:
    stack = [keras.Input((6,)), layers.Dense(4, "relu"), layers.BatchNormalization(), layers.Dense(1)]
    model = compiled(keras.Sequential(stack))
    assert 'rg.Recipe({"ema": 0.9})' in source(model, rg.Recipe({"ema": 0.9}))


def test_decay_that_leaves_out_some_kernels_is_written_as_a_recipe() -> None:
    optimizer = keras.optimizers.AdamW(weight_decay=0.5)
    model = small()
    optimizer.exclude_from_weight_decay(var_list=[v for v in model.variables if v is not model.layers[0].kernel])
    model.compile(optimizer, "mse")
    program = source(model, rg.Recipe())
    assert {k: float(v) for k, v in built(program).strengths.items() if float(v)} == {"weight_decay@hidden/kernel": 0.5}


def test_decay_that_is_off_is_off_in_an_optimizer_that_must_have_one() -> None:
    model = small(keras.optimizers.AdamW(weight_decay=0.5))
    program = source(model, rg.Recipe({"weight_decay": 0}))
    assert "optimizers.AdamW(weight_decay=0.0)" in program
    assert not built(program).optimizer.weight_decay


def test_learning_rate_on_a_schedule_is_written_and_named_losses_are_kept() -> None:
    schedule = keras.optimizers.schedules.CosineDecay(0.1, decay_steps=100)
    model = small(keras.optimizers.Adam(schedule), {"out": keras.losses.Huber(delta=0.5)}, metrics={"out": ["mae"]})
    program = source(model, rg.Recipe({"l2": 0.1}))
    assert "learning_rate=optimizers.schedules.CosineDecay(0.1, 100)" in program
    assert 'loss={"out": losses.Huber(delta=0.5)}' in program
    assert 'metrics={"out": ["mae"]}' in program
    assert built(program).optimizer.get_config()["learning_rate"]["config"]["decay_steps"] == 100


# -- models of all kinds -------------------------------------------------------------------------------------------------------


def two_inputs_and_outputs() -> tuple[Any, Any, Any]:
    left, right = keras.Input((4,), name="left"), keras.Input((5,), dtype="int32", name="right")
    words = layers.Embedding(7, 4, mask_zero=True)(right)
    both = layers.Concatenate()([layers.Dense(4, "tanh")(left), layers.LSTM(4)(words)])
    ends = {"price": layers.Dense(1, name="price")(both), "kind": layers.Dense(3, "softmax", name="kind")(both)}
    model = keras.Model({"left": left, "right": right}, ends)
    compiled(
        model,
        "sgd",
        {"price": "mse", "kind": "sparse_categorical_crossentropy"},
        loss_weights={"price": 0.5, "kind": 1.0},
    )
    words = np.random.default_rng(0).integers(0, 7, (ROWS, 5))
    return model, {"left": numbers(4), "right": words}, {"price": numbers(1), "kind": classes(3)}


def convolutional() -> tuple[Any, Any, Any]:
    stack = [
        keras.Input((8, 8, 1)),
        layers.Conv2D(4, 3, activation="relu", kernel_initializer="he_normal"),
        layers.BatchNormalization(),
        layers.MaxPooling2D(),
        layers.SeparableConv2D(4, 2, padding="same", activation="relu"),
        layers.Flatten(),
        layers.Dense(3, name="logits"),
    ]
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    return compiled(keras.Sequential(stack), "sgd", loss), numbers(8, 8, 1), classes(3)


def recurrent() -> tuple[Any, Any, Any]:
    stack = [
        keras.Input((5, 3)),
        layers.Bidirectional(layers.LSTM(3, return_sequences=True)),
        layers.GRU(4, kernel_constraint=keras.constraints.UnitNorm()),
        layers.Dense(1),
    ]
    return compiled(keras.Sequential(stack), "sgd"), numbers(5, 3), numbers(1)


def shared_and_residual() -> tuple[Any, Any, Any]:
    inputs = keras.Input((4,))
    shared = layers.Dense(4, "tanh")
    x = layers.Add()([inputs, shared(shared(inputs))])
    x = keras.ops.concatenate([x, 2 * keras.ops.mean(x, axis=-1, keepdims=True), x[:, 1:3]], axis=1)
    return compiled(keras.Model(inputs, layers.Dense(1)(x)), "sgd"), numbers(4), numbers(1)


def nested() -> tuple[Any, Any, Any]:
    inside = keras.Input((4,))
    hidden = layers.Dense(3, "relu")(inside)
    encoder = keras.Model(inside, [hidden, layers.Dense(2)(hidden)], name="encoder")
    head = keras.Sequential([keras.Input((3,)), layers.Dense(4, "relu"), layers.Dense(1)])
    frozen = keras.Sequential([keras.Input((4,)), layers.Dense(4, name="fixed")], name="frozen")
    frozen.trainable = False
    inputs = keras.Input((4,))
    (a, _), (b, c) = encoder(inputs), encoder(frozen(inputs))
    outputs = layers.Concatenate()([head(a), head(b), c])
    return compiled(keras.Model(inputs, outputs), "sgd"), numbers(4), numbers(4)


KINDS = (two_inputs_and_outputs, convolutional, recurrent, shared_and_residual, nested)


@pytest.mark.parametrize("kind", KINDS)
def test_models_of_all_kinds_train_the_same(kind: Any, tmp_path: Path) -> None:
    model, x, y = kind()
    recipe = rg.Recipe({"l2": 0.01, "weight_decay": 0.1, "max_norm": 0.8})
    program = assert_trains_the_same(model, recipe, x, y)
    assert_formatted(program, tmp_path)
    assert structure(built(source(model, rg.Recipe()))) == structure(model)


@pytest.mark.parametrize("kind", KINDS)
def test_layers_are_put_in_where_the_recipe_does(kind: Any, tmp_path: Path) -> None:
    model, x, _ = kind()
    recipe = rg.Recipe({"dropout": 0.25, "batch_normalization": 1})
    program = source(model, recipe)
    plain, ours = recipe.apply(model).to_keras(), built(program)
    assert "rg." not in program
    assert structure(ours) == structure(plain)
    ours.set_weights(plain.get_weights())
    keras.tree.map_structure(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), ours(x), plain(x))
    assert_formatted(program, tmp_path)


def test_models_inside_wrappers_keep_what_they_share() -> None:
    inside, shared = keras.Input((4,)), layers.Dense(4)
    each_step = keras.Model(inside, shared(shared(inside)))
    model = compiled(keras.Sequential([keras.Input((3, 4)), layers.TimeDistributed(each_step), layers.Dense(1)]))
    ours = built(source(model, rg.Recipe()))
    ours.set_weights(model.get_weights())
    np.testing.assert_allclose(ours(numbers(3, 4)), model(numbers(3, 4)), atol=1e-6)


def test_cells_and_attention_take_their_rates() -> None:
    inputs = keras.Input((5,), dtype="int32")
    x = layers.Embedding(7, 4, mask_zero=True)(inputs)
    x, state = layers.GRU(4, return_sequences=True, return_state=True)(x)
    x = layers.MultiHeadAttention(2, 2)(x, x)
    x = layers.Concatenate()([layers.GlobalAveragePooling1D()(x), state])
    model = compiled(keras.Model(inputs, layers.Dense(1)(x)))
    recipe = rg.Recipe({"recurrent_dropout": 0.1, "variational_dropout": 0.2, "attention_dropout": 0.3})
    program = source(model, recipe)
    plain, ours = recipe.apply(model).to_keras(), built(program)
    assert structure(ours) == structure(plain)
    assert "mask=" not in program
    ours.set_weights(plain.get_weights())
    words = np.random.default_rng(0).integers(0, 7, (ROWS, 5))
    np.testing.assert_allclose(ours(words), plain(words), atol=1e-6)
    assert 'rg.Recipe({"l2": 0.1})' in source(model, rg.Recipe({"l2": 0.1}))  # Keras's has one for all of its kernels


def test_normalization_keeps_what_it_was_adapted_to() -> None:
    normalization = layers.Normalization()
    normalization.adapt(3 * numbers(4) + 5)
    model = compiled(keras.Sequential([keras.Input((4,)), normalization, layers.Dense(1)]))
    ours = built(source(model, rg.Recipe()))
    np.testing.assert_allclose(ours.layers[0](numbers(4)), normalization(numbers(4)), atol=1e-5)


def test_components_of_ours_stay_where_keras_has_none() -> None:
    hidden = layers.Dense(4, "relu", kernel_regularizer=rg.regularizers.GroupLasso(0.1))
    model = compiled(keras.Sequential([keras.Input((6,)), hidden, rg.layers.Dropout(0.3), layers.Dense(1)]))
    program = source(model, rg.Recipe())
    assert "kernel_regularizer=rg.regularizers.GroupLasso(0.1)" in program
    assert "rg.Recipe" not in program
    assert structure(built(program)) == structure(model)
    stock = source(model, rg.Recipe({"group_lasso": 0}))
    assert "rg." not in stock
    assert "model.add(Dropout(0.3))" in stock


def test_optimizers_inside_others_are_written() -> None:
    inner = keras.optimizers.AdamW(weight_decay=0.1)
    model = small(keras.optimizers.LossScaleOptimizer(inner), weighted_metrics=["mse"])
    program = source(model, rg.Recipe({"weight_decay": 0.2}))
    assert "optimizer = optimizers.AdamW(weight_decay=0.2)" in program
    assert "optimizer=optimizers.LossScaleOptimizer(optimizer)" in program
    assert type(built(program).optimizer).__name__ == "LossScaleOptimizer"


def test_precision_is_written_where_it_is_another() -> None:
    keras.config.set_dtype_policy("mixed_float16")
    try:
        stack = [keras.Input((6,)), layers.Dense(4, "relu"), layers.Dense(1, dtype="float32", trainable=False)]
        program = source(compiled(keras.Sequential(stack)), rg.Recipe({"l2@*": 0.1}))
    finally:
        keras.config.set_dtype_policy("float32")
    assert 'keras.config.set_dtype_policy("mixed_float16")\n' in program
    assert 'model.add(Dense(1, trainable=False, dtype="float32"))' in program
    assert "# What is frozen has fresh weights here" in program


# -- what is the user's own --------------------------------------------------------------------------------------------------


class Scale(layers.Layer):
    """Multiplies by a weight."""

    def __init__(self, start: float, sign: int = 1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.start, self.sign = start, sign

    def build(self, shape: Any) -> None:
        self.factor = self.add_weight(shape=(shape[-1],), initializer=keras.initializers.Constant(self.start))

    def call(self, inputs: Any) -> Any:
        return inputs * self.factor * self.sign

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "start": self.start, "sign": self.sign}


def cubes(y: Any, y_pred: Any) -> Any:
    return keras.ops.mean(keras.ops.abs(y - y_pred) ** 3, -1)


def test_own_layers_and_losses_are_imported() -> None:
    stack = [keras.Input((6,)), layers.Dense(4, "relu"), Scale(0.5), layers.Dense(1)]
    model = compiled(keras.Sequential(stack), "sgd", cubes)
    program = assert_trains_the_same(model, rg.Recipe({"l2": 0.1}), numbers(6), numbers(1))
    assert f"\nfrom {__name__} import Scale\n" in program
    assert f"\nfrom {__name__} import cubes\n" in program
    assert "model.add(Scale(0.5))" in program
    assert "loss=cubes" in program


def test_own_functions_that_cannot_be_imported_are_named() -> None:
    def fourth(y: Any, y_pred: Any) -> Any:
        return keras.ops.mean((y - y_pred) ** 4, -1)

    model = small(loss=fourth)
    program = source(model, rg.Recipe())
    assert f"# fourth is yours, from {__name__}: import or define it here\n" in program
    assert_trains_the_same(model, rg.Recipe(), numbers(6), numbers(3), fourth=fourth)


# -- what can't be written -----------------------------------------------------------------------------------------------------


class Subclassed(keras.Model):
    def __init__(self) -> None:
        super().__init__()
        self.dense = layers.Dense(1)

    def call(self, inputs: Any) -> Any:
        return self.dense(inputs)


def refused() -> list[Any]:
    subclassed = compiled(Subclassed())
    subclassed(numbers(4))
    anonymous = compiled(keras.Sequential([keras.Input((4,)), layers.Lambda(lambda x: 2 * x), layers.Dense(1)]))
    namesake = type("Dense", (layers.Layer,), {"__module__": __name__, "call": lambda self, inputs: inputs})()
    frozen = small()
    frozen.layers[0].bias.trainable = False
    return [
        (subclassed, "Subclassed"),
        (anonymous, "lambda"),
        (small(loss=lambda y, y_pred: keras.ops.mean(y - y_pred, -1)), "lambda"),
        (frozen, "frozen by itself"),
        (compiled(keras.Sequential([keras.Input((4,)), namesake, layers.Dense(1)])), "'Dense'"),
    ]


def test_what_cannot_be_written_is_refused_with_what_to_do() -> None:
    for model, reason in refused():
        with pytest.raises(ValueError, match=reason) as caught:
            source(model, rg.Recipe())
        assert "rg.Recipe({...}).apply(keras.models.load_model('model.keras'))" in str(caught.value)


def test_lines_are_at_most_100_characters_long() -> None:
    model = two_inputs_and_outputs()[0]
    program = source(model, rg.Recipe({"l1": 0.00012345, "l2": 0.00012345, "max_norm": 1.2345}))
    assert max(map(len, program.splitlines())) <= 100
    assert ast.parse(program)
    assert not re.search(r"\d{9}", program)


def test_a_layer_that_is_named_as_a_class_does_not_hide_it():
    inputs = keras.Input((4,), name="Dropout")
    hidden = layers.Dense(8, "relu", name="Dense")(inputs)
    model = compiled(keras.Model(inputs, layers.Dense(1)(layers.Dropout(0.5)(hidden))))
    assert structure(built(source(model, rg.Recipe({})))) == structure(model)


def test_slices_by_numbers_of_numpy_are_written_as_numbers():
    inputs = keras.Input((6,))
    model = compiled(keras.Model(inputs, layers.Dense(1)(inputs[:, np.int64(1) : np.int64(5) : np.int64(2)])))
    program = source(model, rg.Recipe({}))
    assert "inputs[:, 1:5:2]" in program
    assert structure(built(program)) == structure(model)
