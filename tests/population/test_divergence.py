"""A member whose weights or loss cease to be finite is left as it was and reported; the others do not notice."""

from typing import Any

import networks
import numpy as np
import pytest

import regularity as rg

CALM = {"l2": 1e-2, "dropout": 0.3}
ARGUMENTS = {"seeds": 2, "epochs": 4, "batch_size": 16}


@pytest.fixture(scope="module")
def both() -> tuple[list[Any], list[Any]]:
    """A population in which the middle recipe explodes, and one of the same size in which none does."""
    user, (x, y) = networks.dense(), networks.rows()
    exploding = rg.train(user, x, y, [CALM, {**CALM, "learning_rate": 1e30}, CALM], **ARGUMENTS)
    calm = rg.train(user, x, y, [CALM, CALM, CALM], **ARGUMENTS)
    return exploding, calm


def test_diverged_member_is_reported(both: tuple[list[Any], list[Any]]) -> None:
    assert [member.diverged for member in both[0]] == [None, None, 1, 1, None, None]
    assert [member.diverged for member in both[1]] == [None] * 6


def test_others_are_the_same_to_the_bit(both: tuple[list[Any], list[Any]]) -> None:
    for i in (0, 1, 4, 5):
        assert both[0][i].history == both[1][i].history
        assert networks.distance(both[0][i].model, both[1][i].model) == 0


def test_diverged_member_keeps_the_weights_from_before(both: tuple[list[Any], list[Any]]) -> None:
    wild = both[0][2]
    assert all(np.isfinite(w).all() for w in wild.model.get_weights())
    start = rg.Recipe(CALM).apply(networks.dense(), init="fresh", seed=wild.seed)
    assert networks.distance(wild.model, start) == 0  # it diverged in its first epoch


def test_history_of_a_diverged_member_is_nan_from_then_on(both: tuple[list[Any], list[Any]]) -> None:
    wild = both[0][2]
    assert {name: len(values) for name, values in wild.history.items()} == {"loss": 4, "accuracy": 4}
    assert np.isnan(wild.history["loss"]).all()
    assert np.isnan(wild.history["accuracy"]).all()


def test_member_that_diverges_late_stays_frozen() -> None:
    user, (x, y) = networks.dense(optimizer="sgd"), networks.rows()
    # a step with l2 and this rate makes weights grow twofold: they pass the largest number after some epochs
    (wild,) = rg.train(user, x, y, {"l2": 1.0, "learning_rate": 1.6}, epochs=30, batch_size=16, validation_data=(x, y))
    assert wild.diverged is not None
    assert 1 < wild.diverged < 30
    before = wild.diverged - 1
    assert np.isfinite(wild.history["loss"][:before]).all()
    assert np.isnan(wild.history["loss"][before:]).all()
    assert np.isnan(wild.history["val_loss"][before:]).all()
    assert all(np.isfinite(w).all() for w in wild.model.get_weights())
