"""The law: a member of a population equals `recipe.apply(model).fit`, and the stock model with stock strengths."""

from collections.abc import Callable
from typing import Any

import keras
import networks
import numpy as np
import pytest

import regularity as rg

KINDS = [{}, {"l1": 1e-3}, {"l2": 1e-2}, {"l1": 1e-3, "l2": 1e-2}, {"dropout": 0.4}]
TWO_KINDS = [{}, {"l1": 1e-3, "l2": 1e-2, "dropout": 0.4}]
OPTIMIZERS = {
    "adam": lambda: keras.optimizers.Adam(3e-3),
    "momentum": lambda: keras.optimizers.SGD(0.05, momentum=0.9),
    "adamw": lambda: keras.optimizers.AdamW(3e-3, weight_decay=0.1),
}
STEPS = {"epochs": 10, "batch_size": 16, "shuffle": False}  # 50 steps with 80 rows


def assert_members_equal_stock(
    build: Callable[..., Any],
    kinds: Any,
    x: Any,
    y: Any,
    weights_within: float = 1e-5,
    losses_within: float = 1e-5,
    **arguments: Any,
) -> None:
    """Train a population with one recipe a kind, and each kind alone as stock Keras, on the same batches."""
    user = build()
    arguments = {**STEPS, **arguments}
    members = rg.train(user, x, y, [dict(kind) for kind in kinds], seeds=[7], init="keep", **arguments)
    for kind, member in zip(kinds, members, strict=True):
        stock = networks.solo(build, user, rg.Recipe(kind).apply(user, seed=7), kind)
        history = stock.fit(x, y, verbose=0, **arguments).history
        assert history.keys() == member.history.keys()
        for name, values in history.items():
            np.testing.assert_allclose(member.history[name], values, atol=losses_within, err_msg=f"{name} of {kind}")
        assert networks.distance(member.model, stock) < weights_within, kind


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_members_equal_stock_keras(optimizer: str) -> None:
    def build(**strengths: float) -> Any:
        return networks.dense(**strengths, optimizer=OPTIMIZERS[optimizer]())

    x, y = networks.rows()
    validation = {"validation_data": networks.rows(40)} if optimizer == "adam" else {}
    assert_members_equal_stock(build, KINDS, x, y, **validation)


def test_members_equal_apply_then_fit() -> None:
    user = networks.dense(optimizer=OPTIMIZERS["adamw"]())
    x, y = networks.rows()
    recipes = [{}, {"l1": 1e-3, "l2@out": 1e-2}, {"dropout": 0.4, "weight_decay": 0.5, "activity_l2": 1e-3}]
    for member in rg.train(user, x, y, recipes, seeds=[3, 4], init="keep", **STEPS):
        alone = member.recipe.apply(user, seed=member.seed)
        history = alone.fit(x, y, verbose=0, **STEPS).history
        assert networks.distance(member.model, alone) < 1e-5
        np.testing.assert_allclose(member.history["loss"], history["loss"], atol=1e-5)


def test_members_equal_apply_then_fit_where_another_member_has_a_layer_more() -> None:
    user = keras.Sequential(
        [
            keras.Input((6,)),
            keras.layers.Dense(8, "relu", name="first"),
            keras.layers.Dense(8, "relu", name="second"),
            keras.layers.Dropout(0.3, name="drop"),
            keras.layers.Dense(3, "softmax"),
        ]
    )
    networks.compiled(user)
    x, y = networks.rows()
    given, _ = rg.train(user, x, y, [{}, {"dropout@first": 0.5}], seeds=[3], init="keep", **STEPS)
    alone = rg.Recipe().apply(user, seed=3)
    alone.fit(x, y, verbose=0, **STEPS)
    assert networks.distance(given.model, alone) < 1e-5


@pytest.mark.parametrize("case", ["sample_weight", "class_weight", "ragged", "one_hot"])
def test_members_equal_stock_keras_with(case: str) -> None:
    x, y = networks.rows(83 if case == "ragged" else 80)
    build, arguments = networks.dense, {}
    if case == "sample_weight":
        arguments = {"sample_weight": np.random.default_rng(1).uniform(0, 2, len(x)).astype("float32")}
    elif case == "class_weight":
        arguments = {"class_weight": {0: 0.5, 1: 1.0, 2: 3.0}}
    elif case == "one_hot":
        build, y = networks.one_hot, keras.utils.to_categorical(y, networks.CLASSES)
    assert_members_equal_stock(build, TWO_KINDS, x, y, **arguments)


def test_members_equal_stock_keras_with_several_outputs() -> None:
    x, y = networks.rows()
    targets = {"kind": y, "size": x[:, :1] * 2}
    assert_members_equal_stock(
        networks.two_outputs, TWO_KINDS, x, targets, validation_data=(x[:30], {k: v[:30] for k, v in targets.items()})
    )


@pytest.mark.parametrize(
    ("build", "shape"),
    [(networks.recurrent, (5, 4)), (networks.convolutional, (6, 6, 1)), (networks.own_step, (6,))],
    ids=["lstm", "convolution", "own train_step"],
)
def test_members_equal_stock_keras_on(build: Callable[..., Any], shape: tuple[int, ...]) -> None:
    x, y = networks.rows(shape=shape)
    assert_members_equal_stock(build, TWO_KINDS, x, y)


def test_members_equal_stock_keras_on_batch_normalization() -> None:
    # The bias in front of a normalization has no gradient but rounding, which Adam makes steps of: so losses are compared.
    x, y = networks.rows()
    assert_members_equal_stock(
        networks.normalized, TWO_KINDS, x, y, weights_within=np.inf, losses_within=1e-4, validation_data=(x, y)
    )


def test_population_of_64_gives_the_same_as_one_of_1() -> None:
    user = networks.dense()
    x, y = networks.rows()
    recipes = [{"l2": 10.0 ** -(1 + i / 8), "dropout": i / 40} for i in range(32)]
    many = rg.train(user, x, y, recipes, seeds=2, **{**STEPS, "shuffle": True})
    assert len(many) == 64
    for i in (5, 62):
        (one,) = rg.train(user, x, y, many[i].recipe, seeds=[many[i].seed], **{**STEPS, "shuffle": True})
        assert networks.distance(many[i].model, one.model) < 1e-5  # after 50 steps
        np.testing.assert_allclose(many[i].history["loss"], one.history["loss"], atol=1e-5)


def test_user_model_is_not_touched() -> None:
    user = networks.dense(dropout=0.3)
    x, y = networks.rows()
    before, config = user.get_weights(), user.to_json()
    rg.train(user, x, y, [{"l2": 0.1}], epochs=1)
    assert networks.distance(before, user.get_weights()) == 0
    assert user.to_json() == config
    assert user.optimizer.iterations == 0


def test_members_of_a_graph_with_branches_equal_apply_then_fit() -> None:
    # A dropout in one branch changes the order in which Keras lists the layers of both.
    inputs = keras.Input((6,))
    short = keras.layers.Dense(6, "relu", name="short")(inputs)
    long = keras.layers.Dense(6, "relu", name="long_1")(inputs)
    long = keras.layers.Dense(6, "relu", name="long_2")(long)
    user = networks.compiled(
        keras.Model(inputs, keras.layers.Dense(3, "softmax")(keras.layers.concatenate([short, long])))
    )
    x, y = networks.rows()
    for member in rg.train(user, x, y, [{}, {"dropout@long_2": 0.3}], seeds=[3], **{**STEPS, "epochs": 2}):
        alone = member.recipe.apply(user, init="fresh", seed=3)
        alone.fit(x, y, verbose=0, **{**STEPS, "epochs": 2})
        np.testing.assert_allclose(member.model(x), alone(x), atol=1e-5)
