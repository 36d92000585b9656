"""Spaces: what may be searched, what fits a model, and points as recipes, numbers and Optuna's parameters."""

import itertools

import keras
import numpy as np
import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import regularity as rg
from regularity.data import Data
from regularity.study._asking import planned
from regularity.study._space import Dimension, brought, space_of

RNG = np.random.default_rng(0)


def dense(*hidden, output=2, loss="sparse_categorical_crossentropy"):
    model = keras.Sequential([keras.Input((4,)), *hidden, keras.layers.Dense(output)])
    model.compile("adam", loss)
    return model


ROWS = Data(RNG.normal(size=(8, 4)).astype("float32"), np.arange(8) % 2, None)


def test_ranges_are_the_techniques_own_unless_given():
    space = rg.Space(
        {"l2": None, "max_norm": None, "dropout@hidden*": (0.1, 0.4), "mixup": 0.2, "learning_rate": (1e-4, 1e-2)}
    )
    at = {d.key: d for d in space.dimensions}
    assert (at["l2"].low, at["l2"].high) == rg.techniques()["l2"].range
    assert (at["max_norm"].low, at["max_norm"].high) == rg.techniques()["max_norm"].range[::-1]
    assert (at["dropout@hidden*"].low, at["dropout@hidden*"].high) == (0.1, 0.4)
    assert space.fixed == {"mixup": 0.2}
    assert space.recipe({"l2": 1e-3, "learning_rate": 1e-3}, {}) == rg.Recipe(
        {"mixup": 0.2, "l2": 1e-3, "learning_rate": 1e-3}
    )


@given(st.sampled_from([("l2", 1e-6, 1.0, "log"), ("dropout", 0.05, 0.8, "linear"), ("ema", 0.9, 0.9999, "reverse_log"), ("max_norm", 10.0, 0.3, "log")]), st.floats(0, 1))  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_a_place_and_its_strength_are_each_others_inverse(ends, place):
    dimension = Dimension(*ends)
    assert dimension.place(dimension.strength(place)) == pytest.approx(place, abs=1e-6)
    low, high = sorted((dimension.low, dimension.high))
    assert low * (1 - 1e-9) <= dimension.strength(place) <= high * (1 + 1e-9)


def test_a_set_of_techniques_has_the_same_order_in_every_process():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4, "relu"), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    names = {"weight_decay", "l2", "dropout", "input_noise", "l1"}
    assert space_of(names, model, Data(np.ones((4, 3)), np.ones(4))).keys == tuple(sorted(names))


def test_a_reverse_log_range_spaces_the_distance_to_1():
    dimension = Dimension("ema", 0.9, 0.999, "reverse_log")
    assert dimension.strength(0.5) == pytest.approx(0.99)


def test_off_is_0_for_the_surrogate_and_the_weakest_strength_is_not():
    space = rg.Space({"l2": None, "dropout": {"strength": None, "schedule": ["constant", "linear"]}})
    assert space.encoded({}) == [0, 0, 0, 0]
    weakest = space.encoded({"l2": 1e-6, "dropout": 0.8, "dropout schedule": "linear"})
    assert weakest == pytest.approx([0.2, 1, 0, 1])


@pytest.mark.parametrize("seed", range(5))
def test_optuna_suggests_the_point_that_was_enqueued(seed):
    space = rg.Space(
        {"l2": None, "ema": None, "dropout": {"schedule": ["constant", "cosine"]}, "learning_rate": (1e-4, 1e-2)}
    )
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed))
    drawn = space.suggested(study.ask())
    study.enqueue_trial(space.enqueued(drawn))
    assert space.suggested(study.ask()) == pytest.approx(drawn)


def test_a_technique_alone_stands_at_a_share_of_its_range():
    space = rg.Space({"l2": (1e-5, 1e-1), "dropout": (0.2, 0.6), "learning_rate": (1e-4, 1e-2)})
    assert list(space.singles(0.5)) == [{"l2": pytest.approx(1e-3)}, {"dropout": pytest.approx(0.4)}]
    assert list(space.singles(0.25)) == [{"l2": pytest.approx(1e-4)}, {"dropout": pytest.approx(0.3)}]


@given(st.integers(0, 10**6), st.sampled_from([1, 2, 5]), st.sampled_from([1, 8]))
@settings(max_examples=40, deadline=None)
def test_points_at_random_have_several_techniques_and_spread_over_each_range(seed, techniques, many):
    entries = {
        "l2": None,
        "ema": None,
        "max_norm": None,
        "dropout": {"schedule": ["constant", "cosine"]},
        "mixup": None,
    }
    space = rg.Space(dict(list(entries.items())[:techniques]))
    points = space.combined(many, seed)
    assert len(points) == many
    assert points == space.combined(many, seed)
    for dimension in space.dimensions:
        places = [dimension.place(point[dimension.key]) for point in points if dimension.key in point]
        parts = [int(min(place + 1e-9, 1 - 1e-9) * len(places)) for place in places]
        assert sorted(parts) == list(range(len(places)))  # each in another part of the range, and none is left out
    for point in points:
        on = [key for key in point if not key.endswith(" schedule")]
        assert min(2, techniques) <= len(on) <= techniques
        assert ("dropout schedule" in point) == ("dropout" in point)
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(0))
        study.enqueue_trial(space.enqueued(point))
        assert space.suggested(study.ask()) == pytest.approx(point)


NAMED = [("as given", {}), ("plain", {})]


@pytest.mark.parametrize(("at_once", "combinations"), [(2, 8), (5, 8), (30, 33)])
def test_when_a_sampler_is_first_asked_combinations_have_been_told_of(at_once, combinations):
    space = rg.Space({"l2": None, "dropout": None, "mixup": None})
    found = planned(space, NAMED, 4, at_once, 0, True)
    first = [found[number] for number in range(5 + combinations)]
    assert [name for name, _ in first[:2]] == ["as given", "plain"]
    assert [len(point) for _, point in first[2:5]] == [1, 1, 1]
    assert all(len(point) > 1 for _, point in first[5:])
    assert sorted(found)[5 + combinations :] == list(range(40, 46))
    places = {d.key: d for d in space.dimensions}
    later = [places[key].place(value) for n in range(40, 46) for key, value in found[n][1].items()]
    assert later == pytest.approx([0.25] * 3 + [0.75] * 3)


def test_a_sampler_of_the_users_draws_in_place_of_combinations():
    space = rg.Space({"l2": None, "dropout": None})
    assert list(planned(space, NAMED, 4, 30, 0, False)) == [0, 1, 2, 3, *range(40, 44)]


def test_in_a_job_candidates_of_one_program_stand_side_by_side():
    space = rg.Space({"l2": None, "sam": None, "r_drop": None})
    found = planned(space, NAMED[:1], 6, 2, 0, True)
    assert found[0] == NAMED[0]
    for job in ([found[n] for n in range(start, start + 6)] for start in (0, 6)):
        programs = [("sam" in point, "r_drop" in point) for _, point in job]
        assert len(set(programs)) == 1 + sum(a != b for a, b in itertools.pairwise(programs))


def test_auto_takes_what_model_and_data_have_a_place_for():
    hidden = keras.layers.Dense(8, "relu")
    assert set(space_of("auto", dense(hidden), ROWS).keys) == {"weight_decay", "dropout", "label_smoothing", "mixup", "cutmix", "input_noise"}  # fmt: skip
    numbers = dense(keras.layers.Dense(8, "relu"), output=1, loss="mse")
    assert "label_smoothing" not in space_of("auto", numbers, ROWS).keys
    tokens = keras.Sequential(
        [keras.Input((4,)), keras.layers.Embedding(9, 4), keras.layers.LSTM(5), keras.layers.Dense(2)]
    )
    tokens.compile("adam", "sparse_categorical_crossentropy")
    keys = space_of("auto", tokens, Data(np.ones((8, 4), "int32"), ROWS.y, None)).keys
    assert {"recurrent_dropout", "embedding_dropout"} <= set(keys)
    assert not {"mixup", "cutmix", "input_noise"} & set(keys)


def test_auto_drops_paths_of_residual_models_and_attention_where_there_is_some():
    x = inputs = keras.Input((6, 8))
    x = keras.layers.Add()([x, keras.layers.MultiHeadAttention(2, 4, name="attention")(x, x)])
    x = keras.layers.Add()([x, keras.layers.Dense(8, "relu")(x)])
    outputs = keras.layers.Dense(2, "softmax")(keras.layers.GlobalAveragePooling1D()(x))
    model = keras.Model(inputs, outputs)
    model.compile("adam", "sparse_categorical_crossentropy")
    rows = Data(np.ones((8, 6, 8), "float32"), ROWS.y, None)
    assert {"drop_path", "attention_dropout", "dropout", "weight_decay"} <= set(space_of("auto", model, rows).keys)


def test_auto_mixes_images_of_whole_numbers():
    model = keras.Sequential(
        [
            *(keras.Input((6, 6, 1)), keras.layers.Rescaling(1 / 255), keras.layers.Conv2D(4, 3, activation="relu")),
            *(keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(2, "softmax")),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy")
    pixels = np.random.default_rng(0).integers(0, 256, (40, 6, 6, 1))
    keys = set(space_of("auto", model, Data(pixels.astype("uint8"), np.arange(40) % 2, None)).keys)
    assert {"mixup", "cutmix"} <= keys
    assert "input_noise" not in keys  # up to 1 of 255
    assert not {"mixup", "cutmix"} & set(space_of("auto", model, Data(pixels, np.arange(40) % 2, None)).keys)


def test_auto_takes_what_the_model_brings():
    model = dense(keras.layers.Dense(8, "relu", kernel_regularizer="l1"), keras.layers.Dropout(0.5))
    assert {"l1", "dropout"} <= set(space_of("auto", model, ROWS).keys)
    assert brought(model) == {"dropout": 0.0, "l1": 0.0}


@pytest.mark.parametrize(
    ("techniques", "message"),
    [
        (["droput"], "Did you mean 'dropout'"),
        ([], "at least one technique"),
        ({"l2": (1.0, 0.1)}, "Expected a range"),
        ({"l2": (0.0, 0.1)}, "begins above 0"),
        ({"dropout": (0.1, 1.5)}, "from 0 to 1"),
        ({"l2": "strong"}, "Expected a range"),
        ({"l2": {"strength": None, "schedule": "sine"}}, "Expected names of"),
        ({"l2": {"power": 1}}, "'strength' and 'schedule'"),
        ({"epochs": (5, 10), "l2": None}, "the argument `epochs`"),
        ({"l2": 0.1}, "Expected something to search"),
        (["recurrent_dropout"], "no LSTM"),
    ],
)
def test_what_cannot_be_searched_is_refused_with_the_reason(techniques, message):
    with pytest.raises(ValueError, match=message):
        space_of(techniques, dense(keras.layers.Dense(8, "relu")), ROWS)


@pytest.mark.parametrize("techniques", ["dropout", 3, None])
def test_other_forms_are_refused(techniques):
    with pytest.raises(TypeError, match="Expected 'auto', a list"):
        space_of(techniques, dense(keras.layers.Dense(8, "relu")), ROWS)


def test_schedules_tell_one_space_from_another():
    some, other = ({"dropout": {"schedule": names}} for names in (["linear"], ["linear", "flat_cos"]))
    assert len({repr(rg.Space(entries)) for entries in ({"dropout": None}, some, other)}) == 3


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"learning_rate": None, "l2": None}, r"Expected a range such as \{'learning_rate': \(1e-4, 1e-2\)\}"),
        ({"dropout": {"schedule": []}}, r"schedule of 'dropout'\. Expected one of \['constant'.* Received: none"),
        ({"ema": (0.9, 1.0)}, r"'ema'\. Expected a range that ends below 1.* Received: \(0\.9, 1\.0\)"),
    ],
)
def test_what_no_range_can_be_made_of_says_what_to_give(entries, message):
    with pytest.raises(ValueError, match=message):
        rg.Space(entries)


def test_the_optimizers_own_rate_stands_where_it_is():
    model = dense()
    model.compile(keras.optimizers.Adam(1e-2), "mse")
    given = rg.Space({"learning_rate": (1e-3, 1e-1), "l2": None})
    space = space_of(given, model, ROWS)
    assert space.encoded({})[0] == pytest.approx(0.5)
    model.compile(keras.optimizers.Adam(1e-3), "mse")
    assert space_of(given, model, ROWS).encoded({})[0] == pytest.approx(0.0, abs=1e-6)
    assert given.dimensions[0].off_at == 0.5  # the user's is not touched
