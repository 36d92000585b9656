"""Laws of every technique, from its declaration alone: off is plain, a member is what it is alone, files keep it, inference is plain."""

from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

import regularity as rg
from regularity import _keras
from regularity.catalogue import Technique

TECHNIQUES = list(rg.techniques().values())
each = pytest.mark.parametrize("technique", TECHNIQUES, ids=lambda technique: technique.name)
TRAINED: dict[str, Any] = {"epochs": 2, "batch_size": 16, "shuffle": False}  # 40 rows: a ragged last batch
LABELS = np.random.default_rng(1).integers(0, 3, 40)


def dense() -> tuple[Any, np.ndarray]:
    """A residual network of dense layers."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6,))
    stem = layers.Dense(8, "relu", name="stem")(inputs)
    branch = layers.Dense(8, name="out")(layers.Dense(8, "relu", name="in")(stem))
    outputs = layers.Dense(3, "softmax", name="last")(layers.Add(name="add")([stem, branch]))
    return keras.Model(inputs, outputs), np.random.default_rng(0).normal(size=(40, 6)).astype("float32")


def image() -> tuple[Any, np.ndarray]:
    """A small convolutional network."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((5, 5, 2)), layers.Conv2D(4, 3, activation="relu"), layers.Flatten(), layers.Dense(3, "softmax")]
    )
    return model, np.random.default_rng(0).normal(size=(40, 5, 5, 2)).astype("float32")


def model_for(technique: Technique) -> tuple[Any, np.ndarray]:
    """The first of the models that has a place for a technique."""
    for make in (dense, image):
        model, rows = make()
        model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
        try:
            rg.Recipe({technique.name: off(technique)}).apply(model)
        except ValueError:
            continue
        return model, rows
    raise AssertionError(f"no model here takes {technique.name}")


def off(technique: Technique) -> float | None:
    return None if technique.inverted else 0.0


def strengths(technique: Technique) -> tuple[float, float]:
    """One in the middle of the range and one near its strong end, which both change what a short training finds."""
    low, high = technique.range
    if technique.inverted:
        return low, low / 3
    return (0.4 * high, 0.8 * high) if technique.scale == "linear" else (0.5 * high, 0.9 * high)


def flat(weights: Any) -> np.ndarray:
    return np.concatenate([np.ravel(w) for w in weights])


@each
def test_off_is_the_plain_model(technique: Technique) -> None:
    model, rows = model_for(technique)
    applied: Any = rg.Recipe({technique.name: off(technique)}).apply(model)
    history = applied.fit(rows, LABELS, verbose=0, **TRAINED).history
    plain = model.fit(rows, LABELS, verbose=0, **TRAINED).history
    # to rounding: another graph may add in another order, which Adam's first steps magnify
    np.testing.assert_allclose(flat(applied.get_weights()), flat(model.get_weights()), atol=2e-6)
    for name, values in plain.items():
        np.testing.assert_allclose(history[name], values, rtol=1e-5)


@each
def test_a_member_is_what_it_is_alone(technique: Technique) -> None:
    model, rows = model_for(technique)
    values = (off(technique), *strengths(technique))
    recipes = [rg.Recipe({technique.name: value}) for value in values]
    together = rg.train(model, rows, LABELS, recipes, init="keep", **TRAINED)
    found = [flat(member.model.get_weights()) for member in together]
    for a, b in ((0, 1), (0, 2), (1, 2)):
        assert np.abs(found[a] - found[b]).max() > 1e-6, "strengths make no difference"
    applied: Any = recipes[1].apply(model, seed=0)
    history = applied.fit(rows, LABELS, verbose=0, **TRAINED).history
    np.testing.assert_allclose(flat(applied.to_keras().get_weights()), found[1], atol=1e-5)
    np.testing.assert_allclose(history["loss"], together[1].history["loss"], rtol=1e-5)


@each
def test_files_keep_it_and_inference_is_plain_keras(technique: Technique, tmp_path: Any) -> None:
    model, rows = model_for(technique)
    applied: Any = rg.Recipe({technique.name: strengths(technique)[0]}).apply(model, seed=1)
    applied.fit(rows, LABELS, verbose=0, **TRAINED)

    plain = applied.to_keras()
    np.testing.assert_allclose(plain.predict(rows, verbose=0), applied.predict(rows, verbose=0), atol=1e-6)
    for part in (plain, plain.optimizer, *(layer for _, layer in _keras.walk(plain))):
        assert not type(part).__module__.startswith("regularity")
    assert "regularity" not in plain.to_json()
    assert plain.count_params() == model.count_params()

    applied.save(tmp_path / "model.keras")
    loaded: Any = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.strengths.keys() == applied.strengths.keys()
    for key, strength in applied.strengths.items():
        assert float(loaded.strengths[key]) == pytest.approx(float(strength), rel=1e-6)
    for again in (applied, loaded):  # both as if there had been no file
        again.fit(rows[:32], LABELS[:32], batch_size=16, shuffle=False, verbose=0)
    np.testing.assert_allclose(flat(loaded.get_weights()), flat(applied.get_weights()), atol=1e-6)


@each
def test_a_strength_that_is_assigned_acts_in_the_next_step_without_a_retrace(
    technique: Technique, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, rows = model_for(technique)
    traces = []
    forward = type(model).call

    def call(*args: Any, **kwargs: Any) -> Any:
        traces.append(1)
        return forward(*args, **kwargs)

    applied: Any = rg.Recipe({technique.name: off(technique)}).apply(model, seed=0)
    other: Any = rg.Recipe({technique.name: off(technique)}).apply(model, seed=0)
    monkeypatch.setattr(type(model), "call", call)
    for one in (applied, other):
        one.fit(rows[:32], LABELS[:32], batch_size=16, shuffle=False, verbose=0)
    assert traces
    for strength in applied.strengths.values():
        strength.assign(technique.inside(strengths(technique)[0]))
    before = len(traces)
    for one in (applied, other):
        one.fit(rows[:32], LABELS[:32], batch_size=16, epochs=2, shuffle=False, verbose=0)
    assert len(traces) == before
    assert np.abs(flat(applied.get_weights()) - flat(other.get_weights())).max() > 1e-7


BAD = [float("nan"), float("inf"), -0.1, "0.1", [0.1], {"strength": -1.0}, {"rate": 0.1}]


@each
@pytest.mark.parametrize("value", BAD, ids=repr)
def test_a_bad_strength_is_refused_by_name(technique: Technique, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"{technique.name}.*Expected.*Received"):
        rg.Recipe({technique.name: value})


@each
def test_a_strength_above_the_limits_or_none_is_refused(technique: Technique) -> None:
    if np.isfinite(technique.limits[1]):
        with pytest.raises(ValueError, match=rf"`{technique.name}`.*from 0 to {technique.limits[1]:g}.*Received"):
            rg.Recipe({technique.name: technique.limits[1] * 1.01})
    if technique.inverted:
        with pytest.raises(ValueError, match=rf"`{technique.name}`.*above 0, or None for 'off'"):
            rg.Recipe({technique.name: 0.0})
    else:
        with pytest.raises(ValueError, match=rf"`{technique.name}`.*Received.*None"):
            rg.Recipe({technique.name: None})


@pytest.mark.parametrize("name", [t.name for t in TECHNIQUES if t.reach == "model"])
def test_what_acts_on_the_whole_step_takes_no_pattern(name: str) -> None:
    model, _ = dense()
    model.compile("adam", "sparse_categorical_crossentropy")
    value = off(rg.techniques()[name])
    with pytest.raises(ValueError, match=rf"'{name}@stem'.*leave the pattern out"):
        rg.Recipe({f"{name}@stem": value}).apply(model)


class OwnStep(keras.Model):
    def train_step(self, *args: Any) -> Any:
        return super().train_step(*args)


def embedding() -> Any:
    return keras.Sequential([keras.Input((4,)), layers.Embedding(9, 4), layers.Flatten(), layers.Dense(3, "softmax")])


def own_step() -> Any:
    inputs = keras.Input((6,))
    return OwnStep(inputs, layers.Dense(3, "softmax")(inputs))


REFUSED = {
    "smoothing without classes": ("label_smoothing", lambda: dense()[0], {"loss": "mse"}, "no cross-entropy"),
    "smoothing twice": (
        "label_smoothing",
        lambda: dense()[0],
        {"loss": keras.losses.CategoricalCrossentropy(label_smoothing=0.1)},
        "label_smoothing=0.1 already",
    ),
    "mixed tokens": ("mixup", embedding, {}, "takes whole numbers"),
    "noisy tokens": ("input_noise", embedding, {}, "takes whole numbers"),
    "mixing in a step of one's own": ("cutmix", own_step, {}, "`train_step` of its own"),
    "sam in a step of one's own": ("sam", own_step, {}, "`train_step` of its own"),
    "maps without space": ("spatial_dropout", lambda: dense()[0], {}, "no hidden layer with space or time"),
    "paths without branches": ("drop_path", lambda: image()[0], {}, "no residual block"),
    "two averages": ("swa", lambda: dense()[0], {"optimizer": keras.optimizers.Adam(use_ema=True)}, "use_ema=True"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_a_model_cannot_take_is_refused_with_the_reason(case: str) -> None:
    name, make, compiled, reason = REFUSED[case]
    model = make()
    model.compile(**{"optimizer": "adam", "loss": "sparse_categorical_crossentropy", **compiled})
    with pytest.raises(ValueError, match=rf"'{name}'.*{reason}"):
        rg.Recipe({name: 0.1}).apply(model)
