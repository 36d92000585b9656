"""What a recipe is: which keys and numbers it takes, JSON there and back, and which key wins where several reach a place."""

import json
import math

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import regularity as rg
from regularity.recipe import as_given

STRENGTHS = {"l1": 1e3, "l2": 1e3, "dropout": 1.0, "activity_l1": 1e3, "activity_l2": 1e3, "weight_decay": 1e3}
keys = st.builds(
    lambda name, pattern: name if pattern is None else f"{name}@{pattern}",
    st.sampled_from(sorted(STRENGTHS)),
    st.none() | st.text("abz*?/[]_@0", min_size=1, max_size=8),
)
entries = st.dictionaries(keys, st.floats(0, 1), max_size=5)
fields = st.fixed_dictionaries({}, optional={"epochs": st.integers(1, 10**6), "learning_rate": st.floats(1e-9, 10)})


@pytest.fixture(scope="module")
def model() -> keras.Model:
    layers = [
        keras.Input((4,)),
        keras.layers.Dense(8, "relu", kernel_regularizer=keras.regularizers.L2(0.5), name="dense_a"),
        keras.layers.Dense(8, "relu", name="dense_b"),
        keras.layers.Dense(2, name="head"),
    ]
    model = keras.Sequential(layers)
    model.compile("adam", "mse")
    return model


def strengths(recipe: dict, model: keras.Model) -> dict[str, float]:
    return {key: float(value) for key, value in rg.Recipe(recipe).apply(model).strengths.items()}


@given(entries, fields)
def test_json_round_trip(entries: dict, fields: dict) -> None:
    recipe = rg.Recipe({**entries, **fields})
    again = rg.Recipe.from_json(recipe.to_json())
    assert again == recipe
    assert hash(again) == hash(recipe)
    assert dict(again.strengths) == entries
    assert (again.epochs, again.learning_rate) == (fields.get("epochs"), fields.get("learning_rate"))


def test_recipes_that_differ_are_not_equal() -> None:
    assert rg.Recipe({"l2": 0.1}) != rg.Recipe({"l2": 0.2})
    assert rg.Recipe({"l2": 0.1}) != rg.Recipe({"l2": 0.1, "epochs": 3})
    assert rg.Recipe({"l2": 0.1}) != {"l2": 0.1}


def test_equal_recipes_may_be_written_in_different_ways() -> None:
    assert rg.Recipe({"l2": {"strength": 1}}) == rg.Recipe({"l2": 1.0}) == rg.Recipe({"l2": np.float64(1)})


def test_text_after_the_first_at_is_the_pattern() -> None:
    assert dict(rg.Recipe({"l2@a@b": 0.1}).strengths) == {"l2@a@b": 0.1}


def test_recipe_reads_back_from_its_repr() -> None:
    recipe = rg.Recipe({"l2": 3e-4, "epochs": 20})
    assert eval(repr(recipe), {"Recipe": rg.Recipe}) == recipe


def test_given_mapping_is_not_touched() -> None:
    mapping = {"l2": 0.1, "epochs": 3}
    rg.Recipe(mapping)
    assert mapping == {"l2": 0.1, "epochs": 3}


@pytest.mark.parametrize(
    ("key", "close"), [("dropuot", "dropout"), ("L2", None), ("l2@", None), ("", None), ("epoch", None)]
)
def test_unknown_technique_is_refused_with_those_there_are(key: str, close: str | None) -> None:
    with pytest.raises(ValueError, match=r"technique.*'l1', 'l2'|'dropout'") as error:
        rg.Recipe({key: 0.1})
    assert repr(key) in str(error.value)
    if close:
        assert f"Did you mean '{close}" in str(error.value)


@pytest.mark.parametrize("value", [-0.1, math.nan, math.inf, 1e39, "0.1", None, [0.1]], ids=str)
def test_strength_that_is_none_is_refused(value: object) -> None:
    with pytest.raises(
        ValueError, match=r"argument `l2`. Expected a number from 0 to any finite number. Received: l2="
    ):
        rg.Recipe({"l2": value})


def test_rate_above_1_is_refused() -> None:
    with pytest.raises(ValueError, match=r"`dropout@a`. Expected a number from 0 to 1. Received: dropout@a=1.5"):
        rg.Recipe({"dropout@a": 1.5})


@pytest.mark.parametrize("value", [{}, {"rate": 0.1}, {"strength": 0.1, "side": "flat"}], ids=str)
def test_mapping_without_just_a_strength_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="mapping with the key 'strength'"):
        rg.Recipe({"l2": value})


@pytest.mark.parametrize("epochs", [0, -1, 2.5, True, math.nan, math.inf, "many"], ids=str)
def test_epochs_that_are_no_whole_number_are_refused(epochs: object) -> None:
    with pytest.raises(ValueError, match=r"argument `epochs`. Expected a whole number from 1"):
        rg.Recipe({"epochs": epochs})


@pytest.mark.parametrize("rate", [0, -1e-3, math.nan, math.inf])
def test_learning_rate_not_above_0_is_refused(rate: float) -> None:
    with pytest.raises(ValueError, match=r"argument `learning_rate`. Expected a number"):
        rg.Recipe({"learning_rate": rate})


@pytest.mark.parametrize("techniques", ["l2", [("l2", 0.1)], 0.1], ids=str)
def test_what_is_no_mapping_is_refused(techniques: object) -> None:
    with pytest.raises(TypeError, match="Expected a mapping"):
        rg.Recipe(techniques)  # type: ignore[arg-type]


def test_key_that_is_no_string_is_refused() -> None:
    with pytest.raises(TypeError, match="Expected a string"):
        rg.Recipe({2: 0.1})  # type: ignore[dict-item]


@pytest.mark.parametrize("text", ["", "{", "l2: 0.1"])
def test_text_that_is_no_json_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="Expected a recipe as JSON"):
        rg.Recipe.from_json(text)


def test_json_is_plain_and_keeps_the_order_of_keys() -> None:
    text = rg.Recipe({"l2@b": 1, "l2@a": np.float32(0.5), "epochs": 3}).to_json()
    assert json.loads(text) == {"l2@b": 1.0, "l2@a": 0.5, "epochs": 3}
    assert list(json.loads(text)) == ["l2@b", "l2@a", "epochs"]


# -- which key wins ------------------------------------------------------------------------------------------------


def test_recipe_takes_the_place_of_what_the_model_brings(model: keras.Model) -> None:
    assert strengths({}, model) == {"l2@dense_a/kernel": 0.5}
    assert strengths({"l2": 0.1}, model) == pytest.approx(
        {f"l2@{n}/kernel": 0.1 for n in ("dense_a", "dense_b", "head")}
    )
    assert strengths({"l2@dense_b": 0.1}, model) == pytest.approx({"l2@dense_a/kernel": 0.5, "l2@dense_b/kernel": 0.1})
    assert strengths({"l2": 0.0}, model)["l2@dense_a/kernel"] == 0


@pytest.mark.parametrize("order", [1, -1])
def test_exact_beats_pattern_beats_bare_whatever_the_order(model: keras.Model, order: int) -> None:
    recipe = dict([("l2", 0.1), ("l2@dense*", 0.2), ("l2@dense_a", 0.3)][::order])
    assert strengths(recipe, model) == pytest.approx(
        {"l2@dense_a/kernel": 0.3, "l2@dense_b/kernel": 0.2, "l2@head/kernel": 0.1}
    )


def test_last_pattern_beats_earlier_ones(model: keras.Model) -> None:
    assert strengths({"l2@dense*": 0.2, "l2@*_a": 0.3}, model)["l2@dense_a/kernel"] == pytest.approx(0.3)
    assert strengths({"l2@*_a": 0.3, "l2@dense*": 0.2}, model)["l2@dense_a/kernel"] == pytest.approx(0.2)


def test_strengths_are_not_added_up(model: keras.Model) -> None:
    applied = rg.Recipe({"l2": 0.1, "l2@dense*": 0.2, "l2@dense_a/kernel": 0.3}).apply(model)
    expected = sum(
        s * (applied.get_layer(n).get_weights()[0] ** 2).sum()
        for n, s in [("dense_a", 0.3), ("dense_b", 0.2), ("head", 0.1)]
    )
    assert float(sum(applied.losses)) == pytest.approx(float(expected), rel=1e-6)


def test_path_reaches_what_is_not_usual(model: keras.Model) -> None:
    assert strengths({"l1@dense_a/bias": 0.1}, model)["l1@dense_a/bias"] == pytest.approx(0.1)
    assert set(strengths({"l1@*/bias": 0.1, "l2": 0}, model)) >= {"l1@dense_a/bias", "l1@dense_b/bias", "l1@head/bias"}


@pytest.mark.parametrize(
    ("recipe", "could"),
    [
        (
            {"l2@dens": 0.1},
            r"pattern 'dens' matches no place.*layers \['dense_a', 'dense_b', 'head'\].*'dense_a/kernel'",
        ),
        ({"l2@conv*": 0.1}, r"layers \['dense_a'"),
        ({"dropout@head": 0.1}, r"layers \['dense_a', 'dense_b'\].*not behind the output"),
        ({"activity_l2@nothing": 0.1}, r"layers \['dense_a'"),
    ],
    ids=str,
)
def test_pattern_that_matches_nothing_is_refused_with_what_would(model: keras.Model, recipe: dict, could: str) -> None:
    with pytest.raises(ValueError, match=could) as error:
        rg.Recipe(recipe).apply(model)
    assert repr(next(iter(recipe))) in str(error.value)


def test_technique_without_a_place_is_refused_with_the_reason() -> None:
    linear = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    linear.compile("adam", "mse")
    with pytest.raises(ValueError, match="no hidden layer"):
        rg.Recipe({"dropout": 0.1}).apply(linear)
    linear.trainable = False
    linear.compile("adam", "mse")
    with pytest.raises(ValueError, match="frozen"):
        rg.Recipe({"l2": 0.1}).apply(linear)


# -- what a model brings ---------------------------------------------------------------------------------------------


def test_as_given_names_what_the_model_brings(model: keras.Model) -> None:
    assert as_given(model) == rg.Recipe({"l2@dense_a/kernel": 0.5})


def test_as_given_is_short_where_all_places_have_the_same() -> None:
    layers = [
        keras.Input((4,)),
        keras.layers.Dense(8, "relu", kernel_regularizer=keras.regularizers.L1L2(0.01, 0.01)),
        keras.layers.Dropout(0.25),
        keras.layers.Dense(2, kernel_regularizer=keras.regularizers.L1L2(0.01, 0.01)),
    ]
    model = keras.Sequential(layers)
    model.compile(keras.optimizers.AdamW(weight_decay=0.004), "mse")
    brought = as_given(model).strengths
    assert {name: brought[name] for name in ("dropout", "l1", "l2")} == {"dropout": 0.25, "l1": 0.01, "l2": 0.01}
    assert {name.partition("@")[0] for name in brought} == {"dropout", "l1", "l2", "weight_decay"}
    assert set(brought.values()) == {0.25, 0.01, 0.004}


def test_as_given_of_a_model_without_any_is_empty() -> None:
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(2)])
    model.compile("adam", "mse")
    assert as_given(model) == rg.Recipe()


@pytest.mark.parametrize("order", [1, -1])
def test_as_given_applied_changes_nothing(model: keras.Model, order: int) -> None:
    assert strengths(dict(list(as_given(model).strengths.items())[::order]), model) == strengths({}, model)
