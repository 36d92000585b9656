"""Techniques compose: random recipes of two to six on networks of five kinds train two steps, or are refused with a reason."""

from typing import Any

import keras
import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from keras import layers

import regularity as rg

LABELS = np.random.default_rng(1).integers(0, 3, 20)


def ended(inputs: Any, hidden: Any) -> Any:
    model = keras.Model(inputs, layers.Dense(3, "softmax")(hidden))
    model.compile("adam", "sparse_categorical_crossentropy")
    return model


def dense() -> Any:
    inputs = keras.Input((6,))
    return ended(inputs, layers.Dense(5, "relu")(layers.Dense(6, "relu")(inputs)))


def conv() -> Any:
    inputs = keras.Input((6, 6, 2))
    return ended(inputs, layers.Flatten()(layers.BatchNormalization()(layers.Conv2D(3, 3, activation="relu")(inputs))))


def recurrent() -> Any:
    inputs = keras.Input((4, 3))
    return ended(inputs, layers.LSTM(4)(layers.Dense(4, "relu")(inputs)))


def attention() -> Any:
    inputs = keras.Input((4, 6))
    attended = layers.MultiHeadAttention(2, 3)(inputs, inputs)
    return ended(inputs, layers.GlobalAveragePooling1D()(layers.Add()([inputs, attended])))


def residual() -> Any:
    inputs = keras.Input((6,))
    stem = layers.Dense(6, "relu")(inputs)
    return ended(inputs, layers.Add()([stem, layers.Dense(6)(layers.Dense(5, "selu")(stem))]))


@st.composite
def recipes(draw: Any) -> dict[str, float]:
    """A recipe of two to six techniques, each at some strength of its range."""
    catalogue = rg.techniques()
    names = draw(st.lists(st.sampled_from(list(catalogue)), min_size=2, max_size=6, unique=True))
    return {name: draw(st.floats(*catalogue[name].range)) for name in names}


REASONS = (
    "no hidden layer",
    "no hidden activation",
    "no residual block",
    "no trainable ",
    "no LSTM, GRU or SimpleRNN",
    "no MultiHeadAttention",
    "What would match: layers",
    "no input with",
)


def why_not(model: Any, recipe: dict[str, float]) -> str:
    """What is said where a model refuses a recipe."""
    try:
        rg.Recipe(recipe).apply(model)
    except ValueError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("make", [dense, conv, recurrent, attention, residual])
@settings(max_examples=2, phases=[Phase.generate])  # each example compiles, so that there are few, and none is shrunk
@given(recipe=recipes())
def test_a_random_recipe_trains_or_is_refused_with_a_reason(make: Any, recipe: dict[str, float]) -> None:
    keras.utils.set_random_seed(0)
    model = make()
    rows = np.random.default_rng(0).normal(size=(20, *model.input_shape[1:])).astype("float32")
    refused = {name: why_not(model, {name: strength}) for name, strength in recipe.items()}
    for name, why in refused.items():
        assert not why or (repr(name) in why and any(reason in why for reason in REASONS))
    if any(refused.values()):
        with pytest.raises(ValueError, match="|".join(repr(name) for name, why in refused.items() if why)):
            rg.train(model, rows, LABELS, [{}, recipe], epochs=1, batch_size=10)
    recipe = {name: strength for name, strength in recipe.items() if not refused[name]}
    members = rg.train(model, rows, LABELS, [{}, recipe], epochs=1, batch_size=10)  # two steps
    assert len(members) == 2
    for member in members:
        assert member.diverged is None
        assert len(member.history["loss"]) == 1
        assert np.isfinite(member.history["loss"]).all()
        assert all(np.isfinite(w).all() for w in member.model.get_weights())
