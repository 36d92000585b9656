"""Strengths that change while training: by the share of it that is done, the same in `fit` and in a population."""

import itertools
import json
import math
from typing import Any

import keras
import numpy as np
import pytest

import regularity as rg
from regularity.catalogue import SCHEDULES
from regularity.catalogue._schedules import number_of, shape

ROWS = np.random.default_rng(0).normal(size=(70, 4)).astype("float32")
LABELS = np.random.default_rng(1).integers(0, 3, 70)

# The papers' formulas, in plain Python.
FORMULAS = {
    "constant": lambda t: 1.0,
    "linear": lambda t: 1 - t,
    "cosine": lambda t: (1 + math.cos(math.pi * t)) / 2,
    "flat_cos": lambda t: (1 + math.cos(math.pi * (max(1, 2 * t) - 1))) / 2,
    "coslog4": lambda t: (1 - math.cos(2 * math.pi * math.log2(1 + 15 * t))) / 2,
    "warm_up": lambda t: min(1, 10 * t),
    "step": lambda t: 1.0 if t < 0.5 else 0.1 if t < 0.75 else 0.01,
}


def network() -> Any:
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(6, "relu"), keras.layers.Dense(3, "softmax")])
    model.compile("sgd", "sparse_categorical_crossentropy")
    return model


def flat(model: Any) -> np.ndarray:
    return np.concatenate([w.ravel() for w in model.get_weights()])


def test_every_schedule_has_a_formula_here() -> None:
    assert list(FORMULAS) == list(SCHEDULES)


@pytest.mark.parametrize("name", SCHEDULES)
def test_factors_are_those_of_the_formula(name: str) -> None:
    for step in range(0, 41):
        factor = float(shape(number_of(name), float(step + 7), 7.0, 40.0))
        # cosines in single precision, of angles up to eight pi
        assert factor == pytest.approx(FORMULAS[name](step / 40), abs=1e-5)


def test_a_linear_l2_is_a_gradient_step_with_that_strength_written_out() -> None:
    model = network()
    applied: Any = rg.Recipe({"l2": {"strength": 0.2, "schedule": "linear"}}).apply(model)
    applied.fit(ROWS, LABELS, epochs=2, batch_size=35, shuffle=False, verbose=0)
    by_hand = network()
    solo: Any = rg.Recipe({"l2": 0.0}).apply(by_hand)
    for step in range(4):
        for key in solo.strengths:
            solo.strengths[key].assign(0.2 * (1 - step / 4))
        half = slice(0, 35) if step % 2 == 0 else slice(35, 70)
        solo.train_on_batch(ROWS[half], LABELS[half])
    np.testing.assert_allclose(flat(applied), flat(solo), atol=1e-6)  # single precision, four steps


@pytest.mark.parametrize("technique", ["l2", "dropout", "mixup", "clip_norm"])
def test_members_with_different_schedules_are_what_they_are_alone(technique: str) -> None:
    model, strength = network(), 0.2
    recipes = [
        {technique: strength},
        *({technique: {"strength": strength, "schedule": s}} for s in ("linear", "coslog4")),
    ]
    members = rg.train(model, ROWS, LABELS, recipes, epochs=2, batch_size=32, init="keep", shuffle=False)
    weights = [flat(m.model) for m in members]
    assert all(np.abs(a - b).max() > 1e-6 for a, b in itertools.pairwise(weights))
    for recipe, found in zip(recipes, weights, strict=True):
        applied: Any = rg.Recipe(recipe).apply(model, seed=0)
        applied.fit(ROWS, LABELS, epochs=2, batch_size=32, shuffle=False, verbose=0)
        np.testing.assert_allclose(flat(applied.to_keras()), found, atol=1e-6)


def test_the_strength_itself_stays_as_it_was_given() -> None:
    applied: Any = rg.Recipe({"dropout": {"strength": 0.5, "schedule": "cosine"}}).apply(network())
    applied.fit(ROWS, LABELS, epochs=1, verbose=0)
    assert [float(v) for v in applied.strengths.values()] == [0.5]


def test_json_has_the_schedule_and_a_saved_model_keeps_it(tmp_path: Any) -> None:
    recipe = rg.Recipe({"l2@dense": {"strength": 0.1, "schedule": "linear"}, "dropout": {"strength": 0.1}})
    assert json.loads(recipe.to_json()) == {"l2@dense": {"strength": 0.1, "schedule": "linear"}, "dropout": 0.1}
    assert rg.Recipe.from_json(recipe.to_json()) == recipe
    model = keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(6, "relu", name="dense"), keras.layers.Dense(3, "softmax")]
    )
    model.compile("adam", "sparse_categorical_crossentropy")
    applied: Any = recipe.apply(model, seed=1)
    applied.fit(ROWS, LABELS, epochs=1, shuffle=False, verbose=0)
    applied.save(tmp_path / "model.keras")
    loaded: Any = keras.models.load_model(tmp_path / "model.keras")
    for again in (applied, loaded):
        again.fit(ROWS, LABELS, epochs=1, shuffle=False, verbose=0)
    np.testing.assert_allclose(flat(loaded), flat(applied), atol=1e-7)


@pytest.mark.parametrize("schedule", ["exponential", "", None, 3])
def test_an_unknown_schedule_is_refused_with_those_there_are(schedule: Any) -> None:
    with pytest.raises(ValueError, match=r"schedule of 'l2'.*'flat_cos'.*Received"):
        rg.Recipe({"l2": {"strength": 0.1, "schedule": schedule}})


def test_training_of_unknown_length_is_refused() -> None:
    applied: Any = rg.Recipe({"l2": {"strength": 0.1, "schedule": "linear"}}).apply(network())
    with pytest.raises(ValueError, match="steps_per_epoch"):
        applied.fit(iter([(ROWS, LABELS)]), verbose=0)
