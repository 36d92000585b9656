"""What a user compiles a model with, and what a recipe says of training, works in a population as in `fit`."""

from typing import Any

import keras
import networks
import numpy as np
import pytest

import regularity as rg

STEPS = {"epochs": 3, "batch_size": 16, "shuffle": False}
RECIPES = [{"l2": 1e-3}, {"l2": 1e-3, "weight_decay": 0.1, "dropout": 0.4}]


def optimizers() -> dict[str, Any]:
    schedule = keras.optimizers.schedules.CosineDecay(0.05, 15)
    return {
        "schedule": keras.optimizers.SGD(schedule),
        "moving average": keras.optimizers.Adam(3e-3, use_ema=True, ema_momentum=0.9),
        "overwriting average": keras.optimizers.SGD(0.05, use_ema=True, ema_momentum=0.9, ema_overwrite_frequency=4),
        "accumulation": keras.optimizers.Adam(3e-3, gradient_accumulation_steps=3),
        "clipnorm": keras.optimizers.SGD(0.1, clipnorm=0.1),
        "global_clipnorm": keras.optimizers.SGD(0.1, global_clipnorm=0.1),
        "scaled loss": keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(3e-3)),
    }


@pytest.mark.parametrize("name", optimizers())
def test_optimizer_works_as_in_fit(name: str) -> None:
    user = networks.dense(optimizer=optimizers()[name])
    x, y = networks.rows()
    members = rg.train(user, x, y, RECIPES, init="keep", **STEPS)
    alone = rg.Recipe(RECIPES[1]).apply(user, seed=0)
    history = alone.fit(x, y, verbose=0, **STEPS).history
    np.testing.assert_allclose(members[1].history["loss"], history["loss"], atol=1e-5)
    assert networks.distance(members[1].model, alone) < 1e-5
    assert networks.distance(members[0].model, members[1].model) > 1e-4


def test_epochs_and_learning_rate_of_a_recipe() -> None:
    user, (x, y) = networks.dense(), networks.rows()
    recipes = [{"epochs": 1}, {}, {"epochs": 5, "learning_rate": 0.02}, {"learning_rate": 0.02}]
    members = rg.train(user, x, y, recipes, init="keep", **STEPS)
    assert [len(member.history["loss"]) for member in members] == [1, 3, 5, 3]
    assert members[2].history["loss"][:3] == pytest.approx(members[3].history["loss"], abs=1e-6)
    for member in members:
        alone = member.recipe.apply(user, seed=0)
        alone.fit(x, y, verbose=0, **{**STEPS, "epochs": len(member.history["loss"])})
        assert networks.distance(member.model, alone) < 1e-5
        assert float(member.model.optimizer.learning_rate) == pytest.approx(member.recipe.learning_rate or 1e-3)


def test_learning_rate_where_a_schedule_sets_it_is_refused() -> None:
    user = networks.dense(optimizer=optimizers()["schedule"])
    with pytest.raises(ValueError, match=r"`learning_rate` needs an optimizer with a constant one.*CosineDecay"):
        rg.train(user, *networks.rows(), {"learning_rate": 0.1})
    with pytest.raises(ValueError, match=r"`learning_rate` needs an optimizer with a constant one.*CosineDecay"):
        rg.Recipe({"learning_rate": 0.1}).apply(user)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_trains(policy: str) -> None:
    keras.config.set_dtype_policy(policy)
    try:
        user = networks.dense()
    finally:
        keras.config.set_dtype_policy("float32")
    x, y = networks.rows()
    for member in rg.train(user, x, y, RECIPES, init="keep", **STEPS):
        assert member.diverged is None
        assert all(w.dtype == np.float32 for w in member.model.get_weights())
        history = member.recipe.apply(user, seed=0).fit(x, y, verbose=0, **STEPS).history
        np.testing.assert_allclose(member.history["loss"], history["loss"], atol=0.01)  # 3 digits a step


def test_metrics_of_every_kind_are_those_of_fit() -> None:
    user, (x, y) = networks.dense(loss="categorical_crossentropy"), networks.rows(83)
    y = keras.utils.to_categorical(y, 3)
    user.compile(
        "adam",
        "categorical_crossentropy",
        metrics=[keras.metrics.AUC(name="auc"), keras.metrics.F1Score(name="f1"), "accuracy"],
        weighted_metrics=["mae"],
    )
    weight = np.random.default_rng(0).uniform(0, 2, len(x)).astype("float32")
    arguments: dict[str, Any] = {**STEPS, "sample_weight": weight, "validation_data": (x[:20], y[:20], weight[:20])}
    member, _ = rg.train(user, x, y, [{"l2": 1e-3}, {"l2": 0.1}], init="keep", **arguments)
    history = rg.Recipe({"l2": 1e-3}).apply(user, seed=0).fit(x, y, verbose=0, **arguments).history
    assert list(member.history) == list(history)
    for name, values in history.items():
        np.testing.assert_allclose(np.array(member.history[name]), np.array(values), atol=1e-5, err_msg=name)


def test_strengths_of_one_member_alone_come_with_it() -> None:
    user, (x, y) = networks.dense(), networks.rows()
    recipes = [{"l1@hidden": 0.1}, {"l2@out": 0.2, "dropout": 0.3}]
    first, second = rg.train(user, x, y, recipes, epochs=1)
    assert first.model.get_layer("hidden").kernel_regularizer.l1 == pytest.approx(0.1)
    assert first.model.get_layer("out").kernel_regularizer is None
    assert second.model.get_layer("out").kernel_regularizer.l2 == pytest.approx(0.2)
    assert second.model.get_layer("drop").rate == pytest.approx(0.3)
    assert "regularity" not in second.model.to_json()
    assert (first.recipe, second.recipe) == tuple(rg.Recipe(r) for r in recipes)


def test_model_of_a_member_is_compiled_and_scores_as_it_was_trained() -> None:
    user, (x, y) = networks.dense(), networks.rows()
    (member,) = rg.train(user, x, y, {"l2": 1e-2}, epochs=2, validation_data=(x, y))
    scores = member.model.evaluate(x, y, verbose=0, return_dict=True)
    assert scores == pytest.approx(
        {"loss": member.history["val_loss"][-1], "accuracy": member.history["val_accuracy"][-1]}, abs=1e-6
    )


def test_column_of_numbers_for_a_model_with_one_input() -> None:
    user = networks.compiled(
        keras.Sequential([keras.Input((1,)), keras.layers.Dense(4, "relu"), keras.layers.Dense(3, "softmax")])
    )
    x, y = networks.rows()
    flat, column = (rg.train(user, data, y, {"l2": 1e-3}, epochs=1)[0] for data in (x[:, 0], x[:, :1]))
    assert flat.history == column.history


# -- callbacks -------------------------------------------------------------------------------------------------------------


def test_callbacks_see_each_member_alone() -> None:
    user, (x, y) = networks.dense(), networks.rows()
    stopping = keras.callbacks.EarlyStopping(monitor="val_loss", mode="max", patience=1, min_delta=100)
    arguments: dict[str, Any] = {"seeds": 2, "batch_size": 16, "init": "keep", "shuffle": False}
    members = rg.train(user, x, y, RECIPES, epochs=9, validation_data=(x, y), callbacks=[stopping], **arguments)
    assert [len(member.history["val_loss"]) for member in members] == [2, 2, 2, 2]
    together = rg.train(user, x, y, RECIPES, epochs=2, validation_data=(x, y), **arguments)
    for alone, member in zip(members, together, strict=True):
        np.testing.assert_allclose(alone.history["val_loss"], member.history["val_loss"], atol=1e-5)
        assert networks.distance(alone.model, member.model) < 1e-5


def test_nothing_is_printed_where_there_is_no_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    user, (x, y) = networks.dense(), networks.rows()
    capfd.readouterr()
    rg.train(user, x, y, {"l2": 1e-3})
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize("technique", ["batch_normalization", "concrete_dropout"])
@pytest.mark.parametrize("strength", [0.0, 1.0])
def test_members_with_callbacks_have_their_models(technique: str, strength: float) -> None:
    x, y = np.ones((8, 4), "float32"), np.zeros(8, "float32")
    layers = [keras.layers.Dense(6, "relu", name="hidden"), keras.layers.Dense(1)]
    model = keras.Sequential([keras.Input((4,)), *layers])
    model.compile("sgd", "mse")
    arguments: dict[str, Any] = {"recipes": {technique: strength}, "epochs": 1, "verbose": 0}
    (alone,) = rg.train(model, x, y, **arguments, callbacks=[keras.callbacks.Callback()])
    (member,) = rg.train(model, x, y, **arguments)
    for ours, theirs in zip(alone.model.get_weights(), member.model.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_callbacks_see_the_member_that_the_population_trains() -> None:
    random = np.random.default_rng(0)
    x = random.normal(size=(40, 5)).astype("float32")
    model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(1)])
    model.compile("adam", "mse")
    arguments = {"recipes": [{"l2": 0.1, "dropout": 0.2}], "seeds": [3], "epochs": 3, "batch_size": 16}
    (together,) = rg.train(model, x, x[:, 0], **arguments)
    (alone,) = rg.train(model, x, x[:, 0], **arguments, callbacks=[keras.callbacks.Callback()])
    assert alone.history["loss"] == pytest.approx(together.history["loss"], rel=1e-5)
    (gone,) = rg.train(model, 1e20 * x, x[:, 0], epochs=2, callbacks=[keras.callbacks.Callback()])
    assert gone.diverged == 1


def test_weights_that_stand_fixed_beside_trained_ones_are_kept() -> None:
    model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(8, "relu", name="fixed"), keras.layers.Dense(1)])
    model.get_layer("fixed").kernel.trainable = False
    model.compile("adam", "mse")
    x = np.random.default_rng(0).normal(size=(20, 5)).astype("float32")
    (member,) = rg.train(model, x, x[:, 0])
    np.testing.assert_array_equal(member.model.get_layer("fixed").kernel, model.get_layer("fixed").kernel)


class SumOfSquares(keras.layers.Layer):
    """What it adds to the loss grows with the rows of a batch."""

    def call(self, inputs: Any) -> Any:
        self.add_loss(0.01 * keras.ops.sum(inputs**2))
        return inputs


def test_validation_is_in_the_batches_of_fit() -> None:
    keras.utils.set_random_seed(0)
    x = np.random.default_rng(0).normal(size=(70, 6)).astype("float32")
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(8), SumOfSquares(), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    fixed: dict[str, Any] = {
        "epochs": 2,
        "batch_size": 32,
        "shuffle": False,
        "validation_data": (x, x.sum(1)),
        "verbose": 0,
    }
    (member,) = rg.train(model, x, x.sum(1), init="keep", **fixed)
    expected = model.fit(x, x.sum(1), **fixed).history
    np.testing.assert_allclose(member.history["val_loss"], expected["val_loss"], rtol=1e-5)
