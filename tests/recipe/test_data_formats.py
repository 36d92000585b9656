"""Where channels are: a recipe follows the layers of the model, whatever Keras's setting; the twin with channels last says what is right."""

import functools
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

import regularity as rg
from regularity.recipe import sites_of
from regularity.recipe._formats import channels_first
from regularity.recipe._source import source

RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.normal(size=(16, 8, 6, 3)).astype("float32")
SEQUENCES = RANDOM.normal(size=(16, 8, 3)).astype("float32")
LABELS = np.arange(16) % 3
# Sums in another order, in single precision, over eight steps.
CLOSE = {"atol": 1e-5}


@pytest.fixture
def setting(request: Any) -> Iterator[str]:
    """Keras's setting."""
    keras.config.set_image_data_format(request.param)
    yield request.param
    keras.config.set_image_data_format("channels_last")


either_setting = pytest.mark.parametrize("setting", ["channels_first", "channels_last"], indirect=True)


def plain(data_format: str) -> list[Any]:
    return [layers.Conv2D(5, 3, activation="relu", data_format=data_format, name="conv")]


def apart(data_format: str) -> list[Any]:
    """The activation is a layer of its own, behind a normalization."""
    axis = 1 if data_format == "channels_first" else -1
    convolution = layers.Conv2D(5, 3, data_format=data_format)
    return [convolution, layers.LayerNormalization(axis=axis), layers.Activation("relu", name="relu")]


def nested(data_format: str) -> list[Any]:
    """The convolution stands in a model of its own, the activation in another."""
    inside = keras.Sequential([keras.Input(shape(data_format, IMAGES)), layers.Conv2D(5, 3, data_format=data_format)])
    between = keras.Input(inside.outputs[0].shape[1:])
    return [inside, keras.Model(between, layers.ReLU(name="relu")(between), name="behind")]


def shape(data_format: str, rows: np.ndarray) -> tuple[int, ...]:
    return turned(data_format, rows).shape[1:]


def turned(data_format: str, rows: np.ndarray) -> np.ndarray:
    return np.moveaxis(rows, -1, 1).copy() if data_format == "channels_first" else rows


def ended(data_format: str, rows: np.ndarray, body: list[Any]) -> Any:
    pooling = layers.GlobalAveragePooling2D if rows.ndim == 4 else layers.GlobalAveragePooling1D
    stack, inputs = (
        [*body, pooling(data_format=data_format), layers.Dense(3, "softmax")],
        keras.Input(shape(data_format, rows)),
    )
    if rows.ndim == 3:
        model = keras.Sequential([inputs, *stack])
    else:
        model = keras.Model(inputs, functools.reduce(lambda hidden, layer: layer(hidden), stack, inputs))
    model.compile(keras.optimizers.SGD(0.5), "sparse_categorical_crossentropy")
    return model


def trained(recipe: dict[str, Any], data_format: str, rows: np.ndarray, body: Any) -> list[np.ndarray]:
    keras.utils.set_random_seed(0)
    applied: Any = rg.Recipe(recipe).apply(ended(data_format, rows, body(data_format)), seed=0)
    applied.fit(turned(data_format, rows), LABELS, batch_size=8, epochs=4, shuffle=False, verbose=0)
    return applied.get_weights()


def same_as_twin(recipe: dict[str, Any], rows: np.ndarray, body: Any) -> None:
    found = [trained(recipe, data_format, rows, body) for data_format in ("channels_first", "channels_last")]
    without = trained({}, "channels_last", rows, body)
    assert any(
        len(without) != len(found[1]) or np.abs(a - b).max() > 1e-3 for a, b in zip(found[1], without, strict=False)
    )
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a, b, **CLOSE)


@pytest.mark.parametrize("body", [plain, apart, nested], ids=lambda body: body.__name__)
def test_layers_put_in_have_the_format_of_the_layer_that_they_stand_behind(body: Any) -> None:
    same_as_twin({"spatial_dropout": 0.5}, IMAGES, body)


@either_setting
def test_keras_has_no_say_in_it(setting: str) -> None:
    del setting
    same_as_twin({"spatial_dropout": 0.5, "cutout": 0.5}, IMAGES, plain)


@pytest.mark.parametrize(
    "recipe", [{"concrete_dropout": 0.1}, {"batch_normalization": 1.0}], ids=lambda r: next(iter(r))
)
def test_so_have_those_that_take_an_axis(recipe: dict[str, float]) -> None:
    same_as_twin(recipe, IMAGES, plain)


@either_setting
@pytest.mark.parametrize("technique", ["drop_block", "spatial_dropout", "batch_normalization"])
def test_so_have_those_of_files_of_plain_models_and_of_programs(technique: str, setting: str, tmp_path: Any) -> None:
    other = {"channels_first": "channels_last", "channels_last": "channels_first"}[setting]

    def formats(model: Any) -> list[Any]:
        found = [layer for layer in model.layers if layer.name == f"conv_{technique}"]
        return [
            getattr(layer, "data_format", None) or {1: "channels_first"}.get(layer.axis, "channels_last")
            for layer in found
        ]

    model = ended(other, IMAGES, plain(other))
    applied: Any = rg.Recipe({technique: 0.5}).apply(model)
    assert formats(applied) == [other]
    applied.save(tmp_path / "model.keras")
    assert formats(keras.saving.load_model(tmp_path / "model.keras")) == [other]
    assert formats(applied.to_keras()) == ([] if technique == "drop_block" else [other])
    if technique == "spatial_dropout":
        assert f'SpatialDropout2D(0.5, data_format="{other}")' in source(model, rg.Recipe({technique: 0.5}))


class MyPermute(layers.Permute):
    pass


class ToLast(layers.Layer):
    def call(self, x: Any) -> Any:
        return keras.ops.transpose(x, (0, 2, 3, 1))


class Doubled(layers.Layer):
    def call(self, x: Any) -> Any:
        return 2 * x


def behind(between: Any) -> str:
    """The format of what is put in behind an activation, which stands behind something that follows a convolution."""
    inputs = keras.Input((3, 8, 6))
    hidden = layers.Conv2D(5, 3, data_format="channels_first")(inputs)
    hidden = layers.ReLU(name="relu")(between(hidden))
    model = keras.Model(inputs, layers.Dense(3, "softmax")(layers.Flatten()(hidden)))
    model.compile("sgd", "sparse_categorical_crossentropy")
    applied: Any = rg.Recipe({"spatial_dropout@relu": 0.5}).apply(model)
    return applied.get_layer("relu_spatial_dropout").data_format


TURNING: list[Any] = [
    layers.Permute((2, 3, 1)),
    MyPermute((2, 3, 1)),
    ToLast(),
    layers.Lambda(lambda x: keras.ops.transpose(x, (0, 2, 3, 1)), output_shape=(6, 4, 5)),
    lambda x: keras.ops.einsum("bchw->bhwc", x),
]


@pytest.mark.parametrize("turn", TURNING, ids=["Permute", "a kind of it", "own", "Lambda", "einsum"])
def test_what_turns_axes_leaves_them_to_the_setting_of_keras(turn: Any) -> None:
    assert behind(turn) == "channels_last"


@pytest.mark.parametrize(
    "between", [Doubled(), rg.layers.Dropout(0.1), lambda x: x + 1], ids=["own", "ours", "operation"]
)
def test_what_leaves_axes_in_their_places_is_looked_through(between: Any) -> None:
    assert behind(between) == "channels_first"


def convolved(data_format: str) -> list[Any]:
    return [layers.Conv1D(5, 3, activation="relu", data_format=data_format, name="conv")]


def test_what_knows_sequences_with_channels_last_alone_is_not_put_elsewhere() -> None:
    names = {"spatial_dropout", "token_dropout", "temporal_activity"}
    for data_format, expected in (("channels_last", names), ("channels_first", set())):
        model = ended(data_format, SEQUENCES, convolved(data_format))
        assert {site.technique for site in sites_of(model)} & names == expected
    with pytest.raises(ValueError, match="channels first"):
        rg.Recipe({"token_dropout": 0.1}).apply(model)


def test_units_of_other_layers_are_last_whatever_they_take() -> None:
    body = [*convolved("channels_first"), layers.GRU(4, return_sequences=True, name="gru")]
    sites = sites_of(ended("channels_last", SEQUENCES, body))
    assert {"gru"} == {site.path for site in sites if site.technique == "token_dropout"}
    assert {"gru"} == {site.path for site in sites if site.technique == "temporal_activity"}


@pytest.mark.parametrize("technique", ["cutmix", "cutout", "time_mask", "frequency_mask", "augment"])
def test_rows_change_as_the_model_takes_them(technique: str) -> None:
    same_as_twin({technique: 0.5}, IMAGES, plain)


@pytest.mark.parametrize("technique", ["cutout", "frequency_mask"])
def test_so_do_sequences(technique: str) -> None:
    same_as_twin({technique: 0.5}, SEQUENCES, convolved)


def test_a_penalty_that_the_model_has_is_a_site_wherever_its_channels_are() -> None:
    given = rg.regularizers.TemporalActivity(0.1)
    body = [
        layers.Conv1D(5, 3, activation="relu", data_format="channels_first", name="conv", activity_regularizer=given)
    ]
    sites = sites_of(ended("channels_first", SEQUENCES, body))
    assert [(site.path, site.given) for site in sites if site.technique == "temporal_activity" and site.given] == [
        ("conv", 0.1)
    ]


def test_what_a_model_takes_is_asked_of_layers_that_put_out_fewer_axes() -> None:
    for data_format in ("channels_first", "channels_last"):
        rows = turned(data_format, IMAGES)
        assert channels_first(ended(data_format, IMAGES, []), rows) == (data_format == "channels_first")
        inputs = keras.Input(shape(data_format, IMAGES))
        flat, pooled = layers.Flatten()(inputs), layers.GlobalAveragePooling2D(data_format=data_format)(inputs)
        model = keras.Model(inputs, layers.Concatenate()([flat, pooled]))
        assert channels_first(model, rows) == (data_format == "channels_first")


def test_inputs_have_formats_of_their_own() -> None:
    formats = {"b": "channels_first", "a": "channels_last"}
    inputs = {name: keras.Input(shape(formats[name], IMAGES), name=name) for name in formats}
    ends = [layers.GlobalAveragePooling2D(data_format=formats[name])(each) for name, each in inputs.items()]
    outputs, rows = layers.Concatenate()(ends), {name: turned(formats[name], IMAGES) for name in formats}
    named, listed = keras.Model(inputs, outputs), keras.Model(list(inputs.values()), outputs)
    for model, given, expected in (
        (named, rows, {"b": True, "a": False}),
        (listed, rows, {"b": True, "a": False}),
        (listed, [rows["b"], rows["a"]], [True, False]),
    ):
        assert channels_first(model, given) == expected
        model.compile("sgd", "mse")
        applied: Any = rg.Recipe({"cutout": 0.5}).apply(model)
        applied.fit(given, np.zeros((16, 6)), verbose=0)


def test_channels_behind_time_are_not_looked_for() -> None:
    inputs = keras.Input((4, 3, 8, 6))
    for sequences, expected in ((False, "channels_first"), (True, "channels_last")):
        recurrent = layers.ConvLSTM2D(5, 3, data_format="channels_first", return_sequences=sequences, name="recurrent")
        hidden = layers.ReLU(name="relu")(recurrent(inputs))
        model = keras.Model(inputs, layers.Dense(3, "softmax")(layers.Flatten()(hidden)))
        model.compile("sgd", "sparse_categorical_crossentropy")
        assert not channels_first(model, np.zeros((1, 4, 3, 8, 6)))
        applied: Any = rg.Recipe({"spatial_dropout@relu": 0.5}).apply(model)
        assert applied.get_layer("relu_spatial_dropout").data_format == expected
