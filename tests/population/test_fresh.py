"""`init="fresh"`: each member's weights come from the model's own initializers, by its seed alone."""

from typing import Any

import keras
import networks
import numpy as np
import pytest

import regularity as rg

SEEDS = 40
# a rate this small changes no weight: what comes back is what was drawn
STILL = {"learning_rate": 1e-30}


@pytest.fixture(scope="module")
def user() -> Any:
    inputs = keras.Input((20,))
    layers = [
        keras.layers.Dense(30, "relu", kernel_initializer="he_normal", bias_initializer="ones", name="he"),
        keras.layers.BatchNormalization(name="norm"),
        keras.layers.Dense(30, "relu", kernel_initializer=keras.initializers.Orthogonal(seed=5), name="orthogonal"),
        keras.layers.Dense(3, "softmax", name="glorot"),
    ]
    frozen = keras.layers.Dense(20, name="frozen", trainable=False)
    hidden = frozen(inputs)
    for layer in layers:
        hidden = layer(hidden)
    return networks.compiled(keras.Model(inputs, hidden), "sgd")


@pytest.fixture(scope="module")
def members(user: Any) -> list[Any]:
    x, y = networks.rows(16, (20,))
    return rg.train(user, x, y, [STILL, {**STILL, "dropout@he": 0.5}], seeds=SEEDS, epochs=1, batch_size=16)


def weights(members: list[Any], layer: str, index: int = 0) -> Any:
    """One weight of each member's first recipe: (members, ...)."""
    return np.stack([member.model.get_layer(layer).get_weights()[index] for member in members[:SEEDS]])


def test_equal_to_apply(user: Any, members: list[Any]) -> None:
    for member in (members[0], members[7], members[SEEDS + 7]):
        alone = member.recipe.apply(user, init="fresh", seed=member.seed)
        for name in ("he", "orthogonal", "glorot"):
            for ours, theirs in zip(
                member.model.get_layer(name).get_weights(), alone.get_layer(name).get_weights(), strict=True
            ):
                np.testing.assert_allclose(ours, theirs, atol=1e-6)  # a matrix factored in a batch rounds differently


def test_seeds_differ_and_recipes_with_the_same_seed_do_not(members: list[Any]) -> None:
    for name in ("he", "orthogonal", "glorot"):
        assert len({w.tobytes() for w in weights(members, name)}) == SEEDS
        same = members[SEEDS + 3].model.get_layer(name).get_weights()[0]
        np.testing.assert_array_equal(weights(members, name)[3], same)


def test_variables_of_one_shape_differ() -> None:
    twins = networks.compiled(keras.Sequential([keras.Input((6,)), keras.layers.Dense(6), keras.layers.Dense(6)]))
    first, _, second, _ = rg.Recipe().apply(twins, init="fresh", seed=0).get_weights()
    assert (first != second).all()


def test_drawn_as_the_initializers_say(members: list[Any]) -> None:
    he, glorot, orthogonal = (weights(members, name) for name in ("he", "glorot", "orthogonal"))
    assert he.std() == pytest.approx(np.sqrt(2 / 20), rel=0.03)  # 24,000 draws: 0.5 % standard error
    assert np.abs(he).max() <= 2 * np.sqrt(2 / 20) / 0.87962566 + 1e-6  # a normal distribution cut at two sigmas
    limit = np.sqrt(6 / 33)
    assert glorot.std() == pytest.approx(limit / np.sqrt(3), rel=0.03)
    assert 0.99 * limit < np.abs(glorot).max() <= limit
    np.testing.assert_allclose(orthogonal[4].T @ orthogonal[4], np.eye(30), atol=1e-5)
    assert (weights(members, "he", 1) == 1).all()
    assert np.abs(he.mean((1, 2))).max() < 5 * he.std() / np.sqrt(600)  # no member is drawn from a shifted distribution


def test_frozen_weights_are_those_of_the_model(user: Any, members: list[Any]) -> None:
    assert (weights(members, "frozen") == user.get_layer("frozen").get_weights()[0]).all()


def test_statistics_start_anew() -> None:
    model = networks.normalized()
    x, y = networks.rows()
    model.fit(x + 5, y, verbose=0)
    norm = next(layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization))
    fresh = rg.Recipe().apply(model, init="fresh", seed=0).get_layer(norm.name)
    assert (np.asarray(norm.moving_mean) != 0).any()
    assert (np.asarray(fresh.moving_mean) == 0).all()
    assert (np.asarray(fresh.moving_variance) == 1).all()


def test_adapted_statistics_are_kept() -> None:
    x, y = networks.rows()
    scaling = keras.layers.Normalization()
    scaling.adapt(x * 3 + 1)
    model = networks.compiled(keras.Sequential([keras.Input((6,)), scaling, keras.layers.Dense(3, "softmax")]))
    (member,) = rg.train(model, x, y, {"l2": 0.1})
    np.testing.assert_allclose(member.model.layers[0].mean, scaling.mean)


def test_same_seeds_same_run_to_the_bit(members: list[Any]) -> None:
    model, (x, y) = networks.dense(), networks.rows()
    arguments: dict[str, Any] = {
        "recipes": {"dropout": 0.4, "l2": 1e-3},
        "seeds": [5, 6, 5],
        "epochs": 3,
        "batch_size": 16,
    }
    first = rg.train(model, x, y, **arguments)
    again = rg.train(model, x, y, **arguments)
    for one, other in zip(first, again, strict=True):
        assert one.history == other.history
        assert networks.distance(one.model, other.model) == 0
    assert networks.distance(first[0].model, first[2].model) == 0
    assert networks.distance(first[0].model, first[1].model) > 1e-3


def test_members_have_masks_and_orders_of_their_own() -> None:
    # from the same weights, in the same order of rows, only the masks make members differ
    model, (x, y) = networks.dense(), networks.rows()
    arguments: dict[str, Any] = {"seeds": 3, "epochs": 1, "batch_size": 16, "init": "keep"}
    masked = rg.train(model, x, y, {"dropout": 0.5}, shuffle=False, **arguments)
    assert len({member.history["loss"][0] for member in masked}) == 3
    shuffled = rg.train(model, x, y, {"dropout": 0.0}, **arguments)
    assert len({member.history["loss"][0] for member in shuffled}) == 3
    neither = rg.train(model, x, y, {"dropout": 0.0}, shuffle=False, **arguments)
    assert len({member.history["loss"][0] for member in neither}) == 1


def test_names_of_layers_do_not_matter() -> None:
    # a notebook that builds its model once more gets other names, and is to get the same run
    x, y = networks.rows()
    keras.utils.clear_session()
    first, second = (rg.train(networks.normalized(), x, y, {"dropout": 0.4}, init="fresh")[0] for _ in range(2))
    assert first.history == second.history
