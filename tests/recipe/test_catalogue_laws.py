"""Laws of every technique, from its declaration alone: off is plain, a member is what it is alone, files keep it, inference is plain."""

import functools
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
import pytest
from keras import layers

import regularity as rg
from regularity import _keras
from regularity.catalogue import Technique

TECHNIQUES = list(rg.techniques().values())
each = pytest.mark.parametrize("technique", TECHNIQUES, ids=lambda technique: technique.name)
TRAINED: dict[str, Any] = {
    "epochs": 2,
    "batch_size": 16,
    "shuffle": False,
}  # no ragged last batch, which compiles once more
LABELS = np.random.default_rng(1).integers(0, 3, 48)


def dense() -> tuple[Any, np.ndarray]:
    """A residual network of dense layers."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6,))
    stem = layers.Dense(8, "relu", name="stem")(inputs)
    branch = layers.Dense(8, name="out")(layers.Dense(8, "relu", name="in")(stem))
    outputs = layers.Dense(3, "softmax", name="last")(layers.Add(name="add")([stem, branch]))
    return keras.Model(inputs, outputs), np.random.default_rng(0).normal(size=(48, 6)).astype("float32")


def image() -> tuple[Any, np.ndarray]:
    """A small convolutional network."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((5, 5, 2)), layers.Conv2D(4, 3, activation="relu"), layers.Flatten(), layers.Dense(3, "softmax")]
    )
    return model, np.random.default_rng(0).normal(size=(48, 5, 5, 2)).astype("float32")


def text() -> tuple[Any, np.ndarray]:
    """A recurrent network with attention, on words."""
    keras.utils.set_random_seed(0)
    words = keras.Input((7,), dtype="int32")
    states = layers.LSTM(5, return_sequences=True, name="lstm")(layers.Embedding(9, 4)(words))
    attended = layers.MultiHeadAttention(2, 3)(states, states)
    outputs = layers.Dense(3, "softmax")(layers.GlobalAveragePooling1D()(attended))
    return keras.Model(words, outputs), np.random.default_rng(0).integers(0, 9, (48, 7)).astype("int32")


def shaken() -> tuple[Any, np.ndarray]:
    """A residual network of two branches a block, joined as the paper draws them, and one joined apart from what is skipped."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((5,))
    stem = layers.Dense(8, "relu", name="stem")(inputs)
    block = layers.Add(name="add")([stem, *(layers.Dense(8, "relu", name=name)(stem) for name in "ab")])
    mean = layers.Average(name="mean")([layers.Dense(8, "tanh", name=name)(block) for name in "cd"])
    outputs = layers.Dense(3, "softmax", name="last")(layers.Add(name="skip")([block, mean]))
    return keras.Model(inputs, outputs), np.random.default_rng(0).normal(size=(48, 5)).astype("float32")


def stack() -> tuple[Any, np.ndarray]:
    """Dense layers one behind the other, of the same width."""
    keras.utils.set_random_seed(0)
    hidden = [layers.Dense(8, "relu", name=name) for name in ("one", "two", "three")]
    model = keras.Sequential([keras.Input((4,)), *hidden, layers.Dense(3, "softmax")])
    return model, np.random.default_rng(0).normal(size=(48, 4)).astype("float32")


MODELS = (dense, image, text, shaken, stack)

# R-Drop compares two passes, which are the same one where nothing is drawn.
BESIDE = {"r_drop": {"dropout": 0.5}}


def recipe(technique: Technique, strength: float | None) -> rg.Recipe:
    """One that gives a technique this strength, and another that it needs beside it one too, unless it is off."""
    beside = {name: value if strength else 0.0 for name, value in BESIDE.get(technique.name, {}).items()}
    return rg.Recipe({technique.name: strength, **beside})


def model_for(technique: Technique) -> tuple[Any, np.ndarray]:
    """The first of the models that has a place for a technique."""
    for make in MODELS:
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
    return (0.5 * high, high) if technique.scale == "linear" else (0.5 * high, 0.9 * high)


def differ(a: np.ndarray, b: np.ndarray, by: float) -> bool:
    """Whether weights differ, be it in their number."""
    return a.shape != b.shape or np.abs(a - b).max() > by


def flat(weights: Any) -> np.ndarray:
    return np.concatenate([np.ravel(w) for w in weights])


class Fitted(NamedTuple):
    """A model that was trained, with what it was right after: tests may train it on."""

    model: Any
    weights: np.ndarray
    history: dict[str, list[float]]


def fitted(model: Any, rows: np.ndarray) -> Fitted:
    history = model.fit(rows, LABELS, verbose=0, **TRAINED).history
    plain = model.to_keras() if hasattr(model, "to_keras") else model
    return Fitted(model, flat(plain.get_weights()), history)


# Compiling is nearly all of the time, so that tests share trainings, and techniques the plain model.


@functools.cache
def plain_fitted(shape: tuple[int, ...]) -> tuple[Fitted, np.ndarray]:
    """The model without the technique after one training, and its weights after another."""
    model, rows = next((m, rows) for m, rows in (make() for make in MODELS) if rows.shape[1:] == shape)
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    once = fitted(model, rows)
    return once, fitted(model, rows).weights


@functools.cache
def off_fitted(name: str) -> Fitted:
    """The model with the technique at 'off'; `traces` counts how often its forward pass is traced."""
    technique = rg.techniques()[name]
    model, rows = model_for(technique)
    applied: Any = recipe(technique, off(technique)).apply(model, seed=2)
    traces: list[int] = []
    forward = applied.call

    def call(*args: Any, **kwargs: Any) -> Any:
        traces.append(1)
        return forward(*args, **kwargs)

    applied.__dict__["call"] = call
    applied.__dict__["traces"] = traces
    return fitted(applied, rows)


@functools.cache
def on_fitted(name: str) -> tuple[Fitted, Any]:
    """The model with the technique in the middle of its range, trained alone; and what is plain Keras of it then."""
    technique = rg.techniques()[name]
    model, rows = model_for(technique)
    applied: Any = recipe(technique, strengths(technique)[0]).apply(model, seed=2)
    found = fitted(applied, rows)
    return found, applied.to_keras()


@pytest.fixture(scope="module", autouse=True)
def shared() -> Iterator[None]:
    """What tests share takes gigabytes, and is let go of in the end."""
    yield
    for trained in (plain_fitted, off_fitted, on_fitted):
        trained.cache_clear()


@each
def test_off_is_the_plain_model(technique: Technique) -> None:
    _, rows = model_for(technique)
    off_one, (plain, _) = off_fitted(technique.name), plain_fitted(rows.shape[1:])
    # to rounding: another graph may add in another order, which Adam's first steps magnify
    np.testing.assert_allclose(off_one.weights, plain.weights, atol=2e-6)
    for name, values in plain.history.items():
        np.testing.assert_allclose(off_one.history[name], values, rtol=1e-5)


@each
def test_a_member_is_what_it_is_alone(technique: Technique) -> None:
    model, rows = model_for(technique)
    values = (off(technique), *strengths(technique))
    recipes = [recipe(technique, value) for value in values]
    together = rg.train(model, rows, LABELS, recipes, init="keep", seeds=[2], **TRAINED)
    found = [flat(member.model.get_weights()) for member in together]
    for a, b in ((0, 1), (0, 2), (1, 2)):
        assert differ(found[a], found[b], 1e-6), "strengths make no difference"
    alone, plain = on_fitted(technique.name)
    # 1e-5: lanes of a population add in another order than one model does, which Adam's first steps magnify
    np.testing.assert_allclose(flat(plain.get_weights()), found[1], atol=1e-5)
    np.testing.assert_allclose(alone.history["loss"], together[1].history["loss"], rtol=1e-5)


@each
def test_files_keep_it_and_inference_is_plain_keras(technique: Technique, tmp_path: Any) -> None:
    model, rows = model_for(technique)
    (applied, _, _), plain = on_fitted(technique.name)
    np.testing.assert_allclose(plain.predict(rows, verbose=0), applied.predict(rows, verbose=0), atol=1e-6)
    for part in (plain, plain.optimizer, *(layer for _, layer in _keras.walk(plain))):
        assert not type(part).__module__.startswith("regularity")
    assert "regularity" not in plain.to_json()
    assert (plain.count_params() > model.count_params()) == (technique.hook in ("structure", "cycle"))

    applied.save(tmp_path / "model.keras")
    loaded: Any = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.strengths.keys() == applied.strengths.keys()
    for key, strength in applied.strengths.items():
        assert float(loaded.strengths[key]) == pytest.approx(float(strength), rel=1e-6)
    seeds, loaded_seeds = (
        {path: np.asarray(generator.state).tolist() for path, generator in _keras.seed_generators(one)}
        for one in (applied, loaded)
    )
    assert loaded_seeds == seeds
    for again in (applied, loaded):  # both as if there had been no file
        again.fit(rows[:32], LABELS[:32], batch_size=16, shuffle=False, verbose=0)
    np.testing.assert_allclose(flat(loaded.get_weights()), flat(applied.get_weights()), atol=1e-6)


@each
def test_a_strength_that_is_assigned_acts_in_the_next_step_without_a_retrace(technique: Technique) -> None:
    _, rows = model_for(technique)
    applied = off_fitted(technique.name).model
    _, plain_twice = plain_fitted(rows.shape[1:])
    traces = applied.__dict__["traces"]
    before = len(traces)
    assert before
    acting = technique.inside(strengths(technique)[0])
    values = {technique.name: acting, **BESIDE.get(technique.name, {})}
    assert {key.partition("@")[0] for key in applied.strengths} == set(values)
    for key, strength in applied.strengths.items():
        strength.assign(values[key.partition("@")[0]])
    again = fitted(applied, rows)
    assert len(traces) == before
    # far above the rounding by which one that is off may differ from the plain model
    assert differ(again.weights, plain_twice, 2e-5)


LOADS = """
import json, sys
import keras, numpy as np
folder, names = sys.argv[1], json.loads(sys.argv[2])
for name in names:
    model = keras.models.load_model(f"{folder}/{name}.keras")
    held = np.load(f"{folder}/{name}.npz")
    np.testing.assert_allclose(np.asarray(model(held["rows"])), held["outputs"], atol=1e-6, err_msg=name)
assert not [module for module in sys.modules if module.partition(".")[0] == "regularity"]
print(len(names))
"""


def test_files_of_plain_models_load_where_regularity_is_not_imported(tmp_path: Path) -> None:
    names = [technique.name for technique in TECHNIQUES]
    for technique in TECHNIQUES:
        _, rows = model_for(technique)
        _, plain = on_fitted(technique.name)
        plain.save(tmp_path / f"{technique.name}.keras")
        np.savez(tmp_path / f"{technique.name}.npz", rows=rows, outputs=np.asarray(plain(rows)))
    command = [sys.executable, "-W", "error::UserWarning", "-c", LOADS, str(tmp_path), json.dumps(names)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-1] == str(len(names))


BAD = [True, float("nan"), float("inf"), -0.1, "0.1", [0.1], {"strength": -1.0}, {"rate": 0.1}]


@each
@pytest.mark.parametrize("value", BAD, ids=repr)
def test_a_bad_strength_is_refused_by_name(technique: Technique, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"{technique.name}.*Expected.*Received"):
        rg.Recipe({technique.name: value})


@each
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -0.1, "0.1"], ids=repr)
def test_what_is_said_of_a_bad_strength_has_its_key_its_value_and_the_limits(technique: Technique, value: Any) -> None:
    low, high = technique.limits
    with pytest.raises(ValueError, match=rf"`{technique.name}@dense\*`") as caught:
        rg.Recipe({f"{technique.name}@dense*": value})
    upper = f"{high:g}" if np.isfinite(high) else "any finite number"
    assert f"Expected a number from {low:g} to {upper}." in str(caught.value)
    assert repr(value) in str(caught.value)


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
    technique = rg.techniques()[name]
    with pytest.raises(ValueError, match=rf"'{name}@dense'.*leave the pattern out"):
        rg.Recipe({f"{name}@dense": off(technique)}).apply(model_for(technique)[0])


class OwnStep(keras.Model):
    def train_step(self, *args: Any) -> Any:
        return super().train_step(*args)


def embedding() -> Any:
    return keras.Sequential([keras.Input((4,)), layers.Embedding(9, 4), layers.Flatten(), layers.Dense(3, "softmax")])


def own_step() -> Any:
    inputs = keras.Input((6,))
    return OwnStep(inputs, layers.Dense(3, "softmax")(inputs))


def of_any_length(**how: Any) -> Any:
    inputs = keras.Input((None, 8))
    x = layers.Conv1D(8, 3, activation="relu", **how)(inputs)
    return keras.Model(inputs, layers.Dense(3, "softmax")(layers.GlobalAveragePooling1D()(x)))


REFUSED = {
    "smoothing without classes": ("label_smoothing", lambda: dense()[0], {"loss": "mse"}, "no cross-entropy"),
    "smoothing twice": (
        "label_smoothing",
        lambda: dense()[0],
        {"loss": keras.losses.CategoricalCrossentropy(label_smoothing=0.1)},
        "label_smoothing=0.1 already",
    ),
    "smoothing over classes elsewhere": (
        "label_smoothing",
        lambda: dense()[0],
        {"loss": keras.losses.SparseCategoricalCrossentropy(axis=1)},
        "not on the last axis",
    ),
    "slopes of a sum": (
        "input_gradient",
        lambda: dense()[0],
        {"loss": keras.losses.SparseCategoricalCrossentropy(reduction="sum")},
        "reduction='sum'.*sum_over_batch_size",
    ),
    "mixed tokens": ("mixup", embedding, {}, "takes whole numbers"),
    "noisy tokens": ("input_noise", embedding, {}, "takes whole numbers"),
    "mixing where nothing is hidden": (
        "manifold_mixup",
        lambda: keras.Sequential([keras.Input((6,)), layers.Dense(3, "softmax")]),
        {},
        "no hidden activation",
    ),
    "mixing in a step of one's own": ("cutmix", own_step, {}, "`train_step` of its own"),
    "sam in a step of one's own": ("sam", own_step, {}, "`train_step` of its own"),
    "pictures without images": ("augment", lambda: dense()[0], {}, "no input with images"),
    "a focal loss twice": (
        "focal",
        lambda: dense()[0],
        {"loss": keras.losses.CategoricalFocalCrossentropy()},
        "no cross-entropy of Keras",
    ),
    "a neighbour of tokens": ("fgsm", embedding, {}, "takes whole numbers"),
    "maps without space": ("spatial_dropout", lambda: dense()[0], {}, "no hidden layer with space or time"),
    "paths without branches": ("drop_path", lambda: image()[0], {}, "no residual block"),
    "ways around where widths differ": ("skip", lambda: image()[0], {}, "puts out as much as it takes"),
    "ways around where lengths differ": (
        "skip",
        lambda: of_any_length(padding="valid"),
        {},
        "puts out as much as it takes",
    ),
    "ways around where steps are left out": (
        "skip",
        lambda: of_any_length(padding="same", strides=2),
        {},
        "puts out as much as it takes",
    ),
    "ways around where there is one": ("skip", lambda: dense()[0], {}, "no branch leads around"),
    "shares without branches": ("shake_shake", lambda: dense()[0], {}, "no residual block of two branches"),
    "two averages": ("swa", lambda: dense()[0], {"optimizer": keras.optimizers.Adam(use_ema=True)}, "use_ema=True"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_a_model_cannot_take_is_refused_with_the_reason(case: str) -> None:
    name, make, compiled, reason = REFUSED[case]
    model = make()
    model.compile(**{"optimizer": "adam", "loss": "sparse_categorical_crossentropy", **compiled})
    with pytest.raises(ValueError, match=rf"'{name}'.*{reason}"):
        rg.Recipe({name: 0.1}).apply(model)
