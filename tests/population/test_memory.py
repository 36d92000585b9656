"""What all members share exists once; what a member has of its own is its weights and moments, and little more."""

import gc
from collections.abc import Callable
from typing import Any

import jax
import keras
import networks
import pytest

import regularity as rg
from regularity.population import _lanes, _train

MEMBERS = 24
WIDE = 512
PLACED = WIDE * WIDE * 4  # bytes of the frozen kernel
ROWS = 2000


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """The most bytes that live arrays held at the end of any chunk's epoch, above those from before."""
    most = [0]
    gc.collect()
    before = jax.live_arrays()  # kept, so that none that comes has the id of one that went
    seen = {id(a) for a in before}

    def advance(self: Any, epochs: int) -> None:
        most[0] = max(most[0], sum(a.nbytes for a in jax.live_arrays() if id(a) not in seen and not a.is_deleted()))

    monkeypatch.setattr(_train.Progress, "advance", advance)
    return lambda: most[0]


def test_frozen_weights_and_data_exist_once(held: Callable[[], int]) -> None:
    inputs = keras.Input((WIDE,))
    hidden = keras.layers.Dense(WIDE, "relu", trainable=False)(inputs)
    user = networks.compiled(keras.Model(inputs, keras.layers.Dense(3, "softmax", name="head")(hidden)))
    x, y = networks.rows(ROWS, (WIDE,))
    rg.train(user, x, y, {"l2": 1e-3}, seeds=MEMBERS, epochs=2, batch_size=256)
    own = 3 * MEMBERS * (WIDE * 3 + 3) * 4  # head and Adam's two moments
    # once for the model that is the pattern, once for the population; a copy a member would be 24
    assert held() < 3 * PLACED + 1.5 * x.nbytes + 4 * own
    assert held() > PLACED + x.nbytes  # the hook saw the training


def test_own_state_is_no_more_than_four_times_weights_and_moments(held: Callable[[], int]) -> None:
    layers = [
        keras.Input((6,)),
        keras.layers.Dense(256, "relu"),
        keras.layers.Dense(256, "relu"),
        keras.layers.Dense(3, "softmax"),
    ]
    user = networks.compiled(keras.Sequential(layers))
    x, y = networks.rows()
    rg.train(user, x, y, {"l2": 1e-3, "dropout": 0.2}, seeds=MEMBERS, epochs=2)
    # weights and Adam's two moments of every member, though only those in the lanes are held at a time
    assert held() < 4 * MEMBERS * 3 * user.count_params() * 4


def test_members_that_are_done_leave_their_weights_alone() -> None:
    user, (x, y) = networks.dense(), networks.rows()
    rg.train(user, x, y, {"l2": 1e-3}, seeds=2)
    gc.collect()
    before = sum(a.nbytes for a in jax.live_arrays())
    members = rg.train(user, x, y, {"l2": 1e-3}, seeds=MEMBERS)
    gc.collect()
    assert len(members) == MEMBERS
    weights = MEMBERS * user.count_params() * 4
    assert sum(a.nbytes for a in jax.live_arrays()) <= before + 1.1 * weights  # moments would be twice that again


def test_a_stream_holds_two_states_of_each_member(monkeypatch: pytest.MonkeyPatch) -> None:
    layers = [keras.Input((6,)), keras.layers.Dense(WIDE, "relu"), keras.layers.Dense(WIDE), keras.layers.Dense(3)]
    user = networks.compiled(keras.Sequential([*layers, keras.layers.Softmax()]))
    x, y = networks.rows(96)
    batches = [(x[i : i + 16], y[i : i + 16]) for i in range(0, 96, 16)]
    monkeypatch.setattr(_lanes, "_BLOCK_STEPS", 2)
    most, call = [0], _lanes.Lanes.call

    def watched(self: Any, *arguments: Any, **options: Any) -> Any:
        found = call(self, *arguments, **options)
        most[0] = max(most[0], sum(a.nbytes for a in jax.live_arrays() if id(a) not in seen and not a.is_deleted()))
        return found

    gc.collect()
    seen = {id(a) for a in jax.live_arrays()}
    monkeypatch.setattr(_lanes.Lanes, "call", watched)
    rg.train(user, iter(batches), recipes={"l2": 1e-3}, seeds=8, epochs=2)
    state = 8 * 3 * user.count_params() * 4  # weights and Adam's moments
    assert state < most[0] < 2.5 * state  # as the epoch began and as it is, and once what the members started from
