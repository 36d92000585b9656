"""Recipe.apply: the model it makes computes what the user's does, holds the strengths, and leaves the user's alone."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest

import regularity as rg


def compiled(model: Any, loss: Any = "mse", optimizer: Any = "adam", **arguments: Any) -> Any:
    model.compile(optimizer, loss, **arguments)
    return model


@keras.saving.register_keras_serializable(package="tests")
class Scaled(keras.layers.Layer):
    """A custom layer with a weight, a dropout and a dense layer of its own."""

    def __init__(self, units: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units = units
        self.dense = keras.layers.Dense(units, "relu")
        self.drop = keras.layers.Dropout(0.25)

    def build(self, shape: Any) -> None:
        self.scale = self.add_weight(shape=(self.units,), initializer="ones", name="scale")
        self.dense.build(shape)

    def call(self, x: Any, training: bool | None = None) -> Any:
        return self.drop(self.dense(x), training=training) * self.scale

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "units": self.units}


def sequential() -> Any:
    return keras.Sequential(
        [keras.Input((6,)), keras.layers.Dense(8, "relu"), keras.layers.Dropout(0.5), keras.layers.Dense(3)]
    )


def functional() -> Any:
    inputs = keras.Input((6,))
    hidden = keras.layers.Dense(8)(inputs)
    hidden = keras.layers.Activation("relu")(hidden) + 1.0
    return keras.Model(inputs, keras.layers.Dense(3)(keras.ops.tanh(hidden)))


def branched() -> Any:
    """Branches of different length, in which a layer put in changes the order in which Keras lists them."""
    inputs = keras.Input((6,))
    short = keras.layers.Dense(6, "relu", name="short")(inputs)
    long = keras.layers.Dense(6, "relu", name="long_1")(inputs)
    long = keras.layers.Dense(6, "relu", name="long_2")(long)
    return keras.Model(inputs, keras.layers.Dense(3)(keras.layers.concatenate([short, long])))


def nested() -> Any:
    inner_in = keras.Input((8,))
    inner = keras.Model(inner_in, keras.layers.Dense(8, "relu", name="deep")(inner_in), name="inner")
    middle = keras.Sequential([keras.Input((6,)), keras.layers.Dense(8, "relu", name="mid"), inner], name="middle")
    inputs = keras.Input((6,))
    return keras.Model(inputs, keras.layers.Dense(3, name="out")(middle(inputs)))


def shared() -> Any:
    inputs = keras.Input((6,))
    layer = keras.layers.Dense(6, "relu", name="twice")
    return keras.Model(inputs, keras.layers.Dense(3)(layer(layer(inputs))))


def custom() -> Any:
    return keras.Sequential([keras.Input((6,)), Scaled(8, name="scaled"), keras.layers.Dense(3)])


def normalized() -> Any:
    return keras.Sequential(
        [
            keras.Input((6,)),
            keras.layers.Dense(8),
            keras.layers.BatchNormalization(),
            keras.layers.ReLU(),
            keras.layers.Dense(3),
        ]
    )


def sequences() -> Any:
    inputs = keras.Input((6,))
    steps = keras.layers.Reshape((3, 2))(inputs)
    steps = keras.layers.Bidirectional(keras.layers.GRU(4, return_sequences=True, dropout=0.1))(steps)
    steps = keras.layers.MultiHeadAttention(2, 4, dropout=0.1)(steps, steps) + steps
    steps, _, _ = keras.layers.LSTM(4, return_sequences=True, return_state=True)(steps)
    return keras.Model(inputs, keras.layers.Dense(3)(keras.layers.LSTM(4)(steps)))


def adapted() -> Any:
    scaling = keras.layers.Normalization()
    scaling.adapt(np.random.default_rng(1).normal(3, 2, (50, 6)).astype("float32"))
    return keras.Sequential([keras.Input((6,)), scaling, keras.layers.Dense(8, "relu"), keras.layers.Dense(3)])


STRUCTURES = [adapted, sequential, functional, branched, nested, shared, custom, normalized, sequences]


@pytest.fixture
def x() -> Any:
    return np.random.default_rng(0).normal(size=(12, 6)).astype("float32")


def trainable(model: Any) -> list[str]:
    return [site for site in model.strengths if site.startswith("l2")]


@pytest.mark.parametrize("build", STRUCTURES, ids=lambda f: f.__name__)
def test_same_predictions_and_the_user_model_untouched(build: Callable[[], Any], x: Any) -> None:
    user = compiled(build())
    weights, config, variables = user.get_weights(), user.to_json(), [v.path for v in user.variables]
    applied = rg.Recipe({"l1": 1e-3, "l2": 1e-2, "dropout": 0.4}).apply(user)
    np.testing.assert_allclose(applied(x), user(x), atol=1e-6)
    applied.set_weights([w + 1 for w in applied.get_weights()])
    assert all((a == b).all() for a, b in zip(weights, user.get_weights(), strict=True))
    assert (user.to_json(), [v.path for v in user.variables], user.losses) == (config, variables, [])
    assert user.optimizer.iterations == 0
    assert applied.optimizer is not user.optimizer
    assert type(user.optimizer) is type(applied.optimizer)


@pytest.mark.parametrize("build", STRUCTURES, ids=lambda f: f.__name__)
def test_plain_model_predicts_the_same(build: Callable[[], Any], x: Any) -> None:
    applied = rg.Recipe({"l2": 1e-2, "dropout": 0.4}).apply(compiled(build()), init="fresh", seed=1)
    plain = applied.to_keras()
    np.testing.assert_allclose(plain(x), applied(x), atol=1e-6)
    np.testing.assert_allclose(sum(plain.losses), sum(applied.losses), rtol=1e-5)
    assert "regularity" not in plain.to_json()


def test_penalties_reach_kernels_only() -> None:
    keys = rg.Recipe({"l2": 0.1}).apply(compiled(normalized())).strengths
    assert len(keys) == 2
    assert all(key.endswith("/kernel") for key in keys)
    assert len(rg.Recipe({"l1": 0.1}).apply(compiled(custom())).strengths) == 2 + 1  # and the dropout that is there
    embedding = keras.Sequential(
        [keras.Input((4,), dtype="int32"), keras.layers.Embedding(5, 3), keras.layers.GRU(4), keras.layers.Dense(1)]
    )
    names = [key.rpartition("/")[2] for key in rg.Recipe({"l2": 0.1}).apply(compiled(embedding)).strengths]
    assert names == ["kernel", "recurrent_kernel", "kernel"]


def test_penalty_counts_a_shared_layer_once(x: Any) -> None:
    user = compiled(shared())
    applied = rg.Recipe({"l2@twice": 1.0}).apply(user)
    assert float(sum(applied.losses)) == pytest.approx(
        float((user.get_layer("twice").get_weights()[0] ** 2).sum()), rel=1e-6
    )


def test_dropout_stands_behind_hidden_activations_and_nowhere_else() -> None:
    applied = rg.Recipe({"dropout": 0.3}).apply(compiled(nested()))
    assert sorted(applied.strengths) == ["dropout@middle/inner/deep", "dropout@middle/mid"]
    assert [layer.name for layer in applied.get_layer("middle").layers] == ["mid", "mid_dropout", "inner"]
    (key,) = rg.Recipe({"dropout": 0.3}).apply(compiled(functional())).strengths
    assert key.startswith("dropout@activation")


def test_dropout_that_is_there_takes_the_strength_and_is_not_doubled() -> None:
    user = compiled(sequential())
    for recipe in ({"dropout": 0.3}, {f"dropout@{user.layers[0].name}": 0.3}, {f"dropout@{user.layers[1].name}": 0.3}):
        applied = rg.Recipe(recipe).apply(user)
        assert [float(s) for s in applied.strengths.values()] == [pytest.approx(0.3)]
        assert len(applied.layers) == len(user.layers)


def test_dropout_is_not_doubled_where_one_follows_the_model_inside() -> None:
    inputs = keras.Input((6,))
    inner = keras.Sequential(
        [keras.Input((6,)), keras.layers.Dense(8, "relu", name="a"), keras.layers.Dense(8, "relu", name="b")],
        name="inner",
    )
    user = compiled(keras.Model(inputs, keras.layers.Dense(3)(keras.layers.Dropout(0.5, name="drop")(inner(inputs)))))
    assert set(rg.Recipe({"dropout": 0.3}).apply(user).strengths) == {"dropout@inner/a", "dropout@drop"}
    assert float(rg.Recipe({"dropout@b": 0.3}).apply(user).strengths["dropout@drop"]) == pytest.approx(0.3)


def test_dropout_drops_in_training_only(x: Any) -> None:
    applied = rg.Recipe({"dropout": 1.0}).apply(compiled(nested()))
    assert np.abs(applied(x)).max() > 0
    bias = applied.get_layer("out").get_weights()[1]
    np.testing.assert_array_equal(applied(x, training=True), np.tile(bias, (len(x), 1)))


def test_dropout_behind_an_output_of_several_keeps_its_state(x: Any) -> None:
    user = compiled(sequences())
    first = next(layer.name for layer in user.layers if isinstance(layer, keras.layers.LSTM))
    applied = rg.Recipe({f"dropout@{first}": 0.5}).apply(user)
    np.testing.assert_allclose(applied(x), user(x), atol=1e-6)


def test_frozen_layers_get_no_penalty_and_stay_frozen(x: Any) -> None:
    user = nested()
    user.get_layer("middle").trainable = False
    compiled(user)
    applied = rg.Recipe({"l2": 0.1}).apply(user)
    assert list(applied.strengths) == ["l2@out/kernel"]
    assert len(applied.trainable_variables) == 2
    before = applied.get_layer("middle").get_weights()
    applied.fit(x, x[:, :3], verbose=0)
    assert all((a == b).all() for a, b in zip(before, applied.get_layer("middle").get_weights(), strict=True))


# -- training -----------------------------------------------------------------------------------------------------------


class Traces(keras.losses.Loss):
    """Mean squared error that counts how often it is traced."""

    def __init__(self) -> None:
        super().__init__(name="mse")
        self.count = 0

    def call(self, y: Any, y_pred: Any) -> Any:
        self.count += 1
        return keras.ops.mean(keras.ops.square(y - y_pred), -1)


@pytest.mark.parametrize(
    ("key", "raised", "shrinks"),
    [("l2@last/kernel", 1e2, True), ("dropout@hidden", 1.0, False), ("weight_decay@last/kernel", 30.0, True)],
)
def test_assigned_strength_acts_in_the_next_step_without_a_trace(
    x: Any, key: str, raised: float, shrinks: bool
) -> None:
    loss = Traces()
    layers = [keras.Input((6,)), keras.layers.Dense(8, "relu", name="hidden"), keras.layers.Dense(3, name="last")]
    user = compiled(keras.Sequential(layers), loss, keras.optimizers.SGD(1e-3 if shrinks else 0.1))
    applied = rg.Recipe({key: 0.0}).apply(user)
    applied.fit(x, x[:, :3], verbose=0, batch_size=4)
    count = loss.count
    kernel, bias = applied.get_layer("last").get_weights()
    applied.strengths[key].assign(raised)
    applied.fit(x, x[:, :3], verbose=0, batch_size=4)
    assert loss.count == count
    after, bias_after = applied.get_layer("last").get_weights()
    if shrinks:
        assert np.abs(after).sum() < 0.99 * np.abs(kernel).sum()
    else:  # all hidden units dropped: the last kernel has no gradient, the bias has
        np.testing.assert_array_equal(after, kernel)
        assert (bias_after != bias).any()


def test_fit_with_callbacks_validation_and_datasets(x: Any) -> None:
    applied = rg.Recipe({"l2": 1e-3, "dropout": 0.2}).apply(compiled(sequential(), metrics=["mae"]))
    stopped = keras.callbacks.EarlyStopping(patience=0, monitor="val_mae", mode="max", min_delta=100)
    history = applied.fit(x, x[:, :3], validation_data=(x, x[:, :3]), epochs=5, callbacks=[stopped], verbose=0)
    assert len(history.history["loss"]) == 2
    assert set(history.history) == {"loss", "mae", "val_loss", "val_mae"}


def test_fit_with_tf_data(x: Any) -> None:
    tf = pytest.importorskip("tensorflow", reason="tf.data needs TensorFlow: make test EXTRAS=dev,tensorflow")
    applied = rg.Recipe({"l2": 1e-3}).apply(compiled(sequential()))
    history = applied.fit(tf.data.Dataset.from_tensor_slices((x, x[:, :3])).batch(4), shuffle=False, verbose=0).history
    assert np.isfinite(history["loss"]).all()


@pytest.mark.parametrize("form", [dict, list])
def test_several_inputs_and_outputs(form: type, x: Any) -> None:
    left, right = keras.Input((6,), name="left"), keras.Input((6,), name="right")
    hidden = keras.layers.Dense(8, "relu")(keras.layers.concatenate([left, right]))
    one, two = keras.layers.Dense(2, name="one")(hidden), keras.layers.Dense(1, name="two")(hidden)
    if form is dict:
        user = keras.Model({"left": left, "right": right}, {"one": one, "two": two})
        compiled(user, {"one": "mse", "two": "mae"}, metrics={"two": ["mse"]})
        data = {"left": x, "right": -x}, {"one": x[:, :2], "two": x[:, :1]}
    else:
        user = compiled(keras.Model([left, right], [one, two]), ["mse", "mae"], loss_weights=[1.0, 2.0])
        data = [x, -x], [x[:, :2], x[:, :1]]
    applied = rg.Recipe({"dropout": 0.2, "l2": 1e-3}).apply(user)
    expected, got = user.predict(data[0], verbose=0), applied.predict(data[0], verbose=0)
    keras.tree.map_structure(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), expected, got)
    applied.strengths["dropout@" + user.layers[3].name].assign(0.0)
    history = applied.fit(*data, epochs=2, verbose=0).history
    assert set(user.evaluate(*data, verbose=0, return_dict=True)) == set(history)
    assert history["loss"][1] < history["loss"][0]


def test_own_losses_and_metrics_need_no_registration(x: Any) -> None:
    def odd(y: Any, y_pred: Any) -> Any:
        return keras.ops.mean(keras.ops.abs(y - y_pred) ** 1.5, -1)

    user = compiled(sequential(), odd, metrics=[odd])
    applied = rg.Recipe({"l2": 1e-3}).apply(user)
    applied.strengths  # noqa: B018
    assert "odd" in applied.fit(x, x[:, :3], verbose=0).history
    assert "odd" in applied.to_keras().evaluate(x, x[:, :3], verbose=0, return_dict=True)


def test_layer_known_only_as_a_custom_object(x: Any) -> None:
    class Unregistered(keras.layers.Layer):
        def call(self, x: Any) -> Any:
            return x * 2

    user = compiled(
        keras.Sequential([keras.Input((6,)), Unregistered(), keras.layers.Dense(8, "relu"), keras.layers.Dense(3)])
    )
    applied = rg.Recipe({"l2": 1e-3, "dropout": 0.1}).apply(user)
    np.testing.assert_allclose(applied(x), user(x), atol=1e-6)
    applied.fit(x, x[:, :3], verbose=0)


def test_regularized_model_can_be_regularized(x: Any) -> None:
    once = rg.Recipe({"l2": 0.1, "dropout": 0.2}).apply(compiled(nested()))
    again = rg.Recipe({"l2@out": 0.3}).apply(once.to_keras())
    assert float(again.strengths["l2@out/kernel"]) == pytest.approx(0.3)
    assert float(again.strengths["l2@middle/mid/kernel"]) == pytest.approx(0.1)
    np.testing.assert_allclose(again(x), once(x), atol=1e-6)


# -- weights and seeds -------------------------------------------------------------------------------------------------


def test_fresh_weights_follow_the_seed(x: Any) -> None:
    user = compiled(branched())
    first, same, other = (
        rg.Recipe({"dropout": 0.2}).apply(user, init="fresh", seed=s).get_weights() for s in (1, 1, 2)
    )
    assert all((a == b).all() for a, b in zip(first, same, strict=True))
    assert any((a != b).any() for a, b in zip(first, other, strict=True))
    without = rg.Recipe().apply(user, init="fresh", seed=1)
    with_layer = rg.Recipe({"dropout@long_2": 0.2}).apply(user, init="fresh", seed=1)
    np.testing.assert_allclose(with_layer(x), without(x), atol=1e-6)


def test_seed_sets_the_masks(x: Any) -> None:
    user = compiled(nested())
    outputs = [np.asarray(rg.Recipe({"dropout": 0.5}).apply(user, seed=s)(x, training=True)) for s in (1, 1, 2)]
    np.testing.assert_array_equal(outputs[0], outputs[1])
    assert (outputs[0] != outputs[2]).any()


def test_layers_have_different_masks() -> None:
    layers = [
        keras.Input((64,)),
        *(keras.layers.Dense(64, "relu", name=f"d{i}") for i in range(3)),
        keras.layers.Dense(1),
    ]
    applied = rg.Recipe({"dropout": 0.5}).apply(compiled(keras.Sequential(layers)), seed=0)
    masks = [np.asarray(applied.get_layer(f"d{i}_dropout")(np.ones((1, 64)), training=True)) for i in range(3)]
    assert len({m.tobytes() for m in masks}) == 3


# -- what is refused ------------------------------------------------------------------------------------------------------


def test_uncompiled_model_is_refused_with_how_to_compile() -> None:
    with pytest.raises(ValueError, match=r"compiled model.*model\.compile\(optimizer="):
        rg.Recipe({"l2": 0.1}).apply(sequential())


def test_unbuilt_model_is_refused_with_how_to_build() -> None:
    with pytest.raises(ValueError, match=r"built model.*keras\.Input"):
        rg.Recipe({"l2": 0.1}).apply(compiled(keras.Sequential([keras.layers.Dense(2)])))


@pytest.mark.parametrize("model", [None, "model.keras", keras.layers.Dense(2)], ids=str)
def test_what_is_no_model_is_refused(model: Any) -> None:
    with pytest.raises(TypeError, match=r"Expected a keras\.Model"):
        rg.Recipe({"l2": 0.1}).apply(model)


def test_unknown_init_is_refused() -> None:
    with pytest.raises(ValueError, match=r"argument `init`. Expected 'keep' or 'fresh'"):
        rg.Recipe().apply(compiled(sequential()), init="new")  # type: ignore[arg-type]


def test_layer_without_a_configuration_is_refused_by_name() -> None:
    class Secretive(keras.layers.Layer):
        def __init__(self, units: int) -> None:
            super().__init__(name="secretive")
            self.dense = keras.layers.Dense(units)

        def call(self, x: Any) -> Any:
            return self.dense(x)

        def get_config(self) -> dict[str, Any]:
            return {}

    user = compiled(keras.Sequential([keras.Input((6,)), Secretive(3)]))
    with pytest.raises(ValueError, match=r"(?s)Secretive 'secretive' can't be copied.*get_config"):
        rg.Recipe({"l2": 0.1}).apply(user)


@keras.saving.register_keras_serializable(package="tests")
class Subclassed(keras.Model):
    def __init__(self, units: int = 8, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units = units
        self.hidden = keras.layers.Dense(units, "relu")
        self.drop = keras.layers.Dropout(0.5)
        self.out = keras.layers.Dense(3)

    def build(self, shape: Any) -> None:
        self.hidden.build(shape)
        self.out.build((None, self.units))

    def call(self, x: Any, training: bool | None = None) -> Any:
        return self.out(self.drop(self.hidden(x), training=training))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "units": self.units}


def test_subclassed_model_has_its_dropout_exchanged_on_a_copy(x: Any) -> None:
    user = compiled(Subclassed())
    user(x)
    applied = rg.Recipe({"dropout": 1.0, "l2": 0.1}).apply(user)
    assert set(applied.strengths) == {"dropout@drop", "l2@hidden/kernel", "l2@out/kernel"}
    np.testing.assert_allclose(applied(x), user(x), atol=1e-6)
    assert (
        np.ptp(np.asarray(applied(x, training=True)), 0).max() == 0
    )  # every hidden unit dropped: only the bias is left
    assert type(user.drop) is keras.layers.Dropout
    assert user.drop.rate == 0.5
    applied.fit(x, x[:, :3], verbose=0)
    plain = applied.to_keras()
    assert type(plain) is Subclassed
    assert type(plain.drop) is keras.layers.Dropout
    np.testing.assert_allclose(plain(x), applied(x), atol=1e-6)


def test_layer_put_into_a_subclassed_model_is_refused_with_the_reason(x: Any) -> None:
    user = compiled(Subclassed())
    user(x)
    with pytest.raises(
        ValueError, match=r"the `call` of Subclassed would have to be rewritten.*keras\.layers\.Dropout"
    ):
        rg.Recipe({"dropout@hidden": 0.3}).apply(user)
