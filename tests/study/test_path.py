"""A path: candidates of one technique on the same folds, told apart honestly, and the answer as plain Keras."""

import json

import keras
import numpy as np
import optuna
import pandas as pd
import pytest
from sklearn.datasets import load_diabetes, load_wine
from sklearn.dummy import DummyRegressor
from sklearn.metrics import r2_score
from sklearn.model_selection import GroupKFold, KFold, RepeatedKFold, StratifiedKFold, cross_val_score
from sklearn.preprocessing import scale

import regularity as rg
from regularity.data import Data
from regularity.population._train import checked_seeds
from regularity.study import _folds, _path

ROWS, BATCH, FOLDS = 80, 16, 5  # 64 rows to train on in each fold: whole batches, so that no row is drawn twice
QUICK = {"batch_size": BATCH, "verbose": 0}
COLUMNS = {
    "name": "O",
    "strength": "f",
    "score": "f",
    "error": "f",
    "difference": "f",
    "difference_error": "f",
    "as_good": "b",
    "train_score": "f",
    "gap": "f",
    "norm": "f",
    "zeros": "f",
    "epochs": "i",
    "diverged": "i",
}


def numbers():
    x, y = load_diabetes(return_X_y=True)
    return scale(x[:ROWS]).astype("float32"), scale(y[:ROWS]).astype("float32")


def classes():
    x, y = load_wine(return_X_y=True)
    rows = np.random.default_rng(0).permutation(len(x))[:ROWS]
    return scale(x)[rows].astype("float32"), y[rows]


def regressor(inputs=10, optimizer=None, penalty=None, rate=None):
    layers = [keras.Input((inputs,)), keras.layers.Dense(16, "relu", kernel_regularizer=penalty, name="hidden")]
    layers += [] if rate is None else [keras.layers.Dropout(rate, name="drop")]
    model = keras.Sequential([*layers, keras.layers.Dense(1, kernel_regularizer=penalty, name="out")])
    model.compile(optimizer or keras.optimizers.Adam(0.01), "mse")
    return model


def classifier():
    layers = [keras.Input((13,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(3, "softmax")]
    model = keras.Sequential(layers)
    model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy")
    return model


def of_numbers(model=None, **arguments):
    x, y = numbers()
    settings = {"technique": "dropout", "strengths": [0.5], "folds": FOLDS, "epochs": 3, **QUICK, **arguments}
    return rg.path(model or regressor(), x, y, **settings)


def of_classes(**arguments):
    x, y = classes()
    settings = {"technique": "dropout", "strengths": [0.5], "folds": 3, "epochs": 3, **QUICK, **arguments}
    return rg.path(classifier(), x, y, **settings)


def own_folds(rows=ROWS, folds=FOLDS, seed=0):
    return list(KFold(folds, shuffle=True, random_state=seed).split(np.arange(rows)))


@pytest.fixture(scope="module")
def l2_path():
    """From where L2 does nothing to where it leaves nothing."""
    return of_numbers(technique="l2", strengths=12, epochs=40)


@pytest.fixture(scope="module")
def dropout_path():
    return of_numbers(technique="dropout", strengths=[0.3, 0.6], epochs=25, score="neg_mean_squared_error")


# -- the table -------------------------------------------------------------------------------------------------------


def test_table_has_its_columns(l2_path):
    kinds = {name: column.dtype.kind for name, column in l2_path.table.items()}
    assert list(kinds) == list(COLUMNS)
    assert {**kinds, "name": "O"} == COLUMNS
    assert l2_path.table.notna().all(axis=None)


def test_rows_are_by_strength_and_off_is_first(l2_path):
    table = l2_path.table
    assert table["name"].tolist() == ["off"] + [""] * 11
    assert table["strength"].iloc[0] == 0
    assert (np.diff(table["strength"]) > 0).all()


def test_columns_agree_with_one_another_and_with_the_choices(l2_path):
    table, best = l2_path.table, l2_path.table["score"].idxmax()
    np.testing.assert_allclose(table["gap"], table["train_score"] - table["score"])
    np.testing.assert_allclose(table["difference"], table["score"] - table["score"][best])
    assert (table["as_good"] == (table["difference"] >= -table["difference_error"])).all()
    assert l2_path.best[1:5] == tuple(table.loc[best, ["strength", "score", "error", "epochs"]])
    answer = table[table["strength"] == l2_path.one_se.strength].iloc[0]
    assert answer["as_good"]
    assert l2_path.one_se[2:5] == tuple(answer[["score", "error", "epochs"]])
    assert l2_path.off[1:5] == tuple(table.loc[0, ["strength", "score", "error", "epochs"]])


def test_penalty_shrinks_weights_and_what_the_network_learns_by_heart(l2_path):
    off, strong, top = (l2_path.table.iloc[i] for i in (0, -3, -1))
    assert strong["norm"] < 0.3 * off["norm"]
    assert strong["zeros"] > 10 * off["zeros"]
    assert off["gap"] > strong["gap"]
    assert off["train_score"] > strong["train_score"] > top["train_score"]


# -- against members trained alone -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def solo(dropout_path):
    """The strongest candidate's folds, each trained alone on its own rows and validated by Keras on the others."""
    x, y = numbers()
    recipe = {"dropout": dropout_path.table["strength"].iloc[-1]}
    return [
        rg.train(regressor(), x[rows], y[rows], recipe, epochs=25, validation_data=(x[held], y[held]), **QUICK)[0]
        for rows, held in own_folds()
    ]


def test_epochs_are_the_best_of_the_mean_curve(dropout_path, solo):
    mean = np.mean([member.history["val_loss"] for member in solo], 0)  # dropout adds no penalty to it
    assert dropout_path.table["epochs"].iloc[-1] == mean.argmin() + 1


def test_score_is_that_of_members_trained_alone_on_the_folds(dropout_path, solo):
    row = dropout_path.table.iloc[-1]
    scores = [-member.history["val_loss"][row["epochs"] - 1] for member in solo]
    assert row["score"] == pytest.approx(np.mean(scores), rel=1e-4)
    assert row["error"] == pytest.approx(np.std(scores, ddof=1) / np.sqrt(FOLDS), rel=1e-3)


def test_score_is_that_of_steps_by_keras_alone():
    x, y = numbers()
    folds = own_folds()[:2]
    row = of_numbers(technique="l2", strengths=[0.03], folds=folds, epochs=6).table.iloc[-1]
    scores = []
    for rows, held in folds:
        model = rg.Recipe({"l2": 0.03}).apply(regressor(), init="fresh", seed=0)
        for epoch in range(row["epochs"]):
            order = np.random.default_rng([0, epoch]).permutation(rows)  # that of the first seed
            for step in order.reshape(-1, BATCH):
                model.train_on_batch(x[step], y[step])
        scores.append(r2_score(y[held], model.predict(x[held], verbose=0)))
    assert row["score"] == pytest.approx(np.mean(scores), abs=1e-4)


# -- the loss as a score ---------------------------------------------------------------------------------------------

UNEVEN = [(np.arange(32), np.arange(32, 80)), (np.arange(48, 80), np.arange(13))]  # 48 rows held out, and 13


def test_loss_is_the_compiled_one_without_penalty():
    x, y = numbers()
    penalized, plain = regressor(penalty=keras.regularizers.L2(0.5)), regressor()
    path = of_numbers(penalized, score="loss", folds=UNEVEN, epochs=1, init="keep")
    losses = []
    for rows, held in UNEVEN:
        (member,) = rg.train(penalized, x[rows], y[rows], {"dropout": 0.5}, init="keep", **QUICK)
        plain.set_weights(member.model.get_weights())
        losses.append(plain.evaluate(x[held], y[held], verbose=0))
    assert path.score_name == "loss"
    assert path.table["score"].iloc[-1] == pytest.approx(-np.mean(losses), rel=1e-4)
    assert path.table["error"].iloc[-1] == pytest.approx(np.std(losses, ddof=1) / np.sqrt(2), rel=1e-3)


def two_outputs(penalty=None):
    inputs = keras.Input((10,))
    hidden = keras.layers.Dense(8, "relu", kernel_regularizer=penalty)(inputs)
    number = keras.layers.Dense(1, name="number")(hidden)
    kind = keras.layers.Dense(3, "softmax", name="kind")(hidden)
    model = keras.Model(inputs, {"number": number, "kind": kind})
    losses = {"number": "mse", "kind": "sparse_categorical_crossentropy"}
    model.compile("adam", losses, loss_weights={"number": 0.3, "kind": 2.0})
    return model


def test_loss_of_several_outputs_is_the_weighted_sum_that_keras_reports():
    x, y = numbers()
    targets = {"number": y, "kind": np.arange(ROWS) % 3}
    penalized, plain = two_outputs(keras.regularizers.L1(0.1)), two_outputs()
    settings = {"technique": "dropout", "strengths": [0.5], "epochs": 1, "init": "keep", **QUICK}
    path = rg.path(penalized, x, targets, folds=UNEVEN, **settings)
    losses = []
    for rows, held in UNEVEN:
        kept, left_out = ({k: v[i] for k, v in targets.items()} for i in (rows, held))
        (member,) = rg.train(penalized, x[rows], kept, {"dropout": 0.5}, init="keep", **QUICK)
        plain.set_weights(member.model.get_weights())
        losses.append(plain.evaluate(x[held], left_out, verbose=0, return_dict=True)["loss"])
    assert path.score_name == "loss"
    assert path.table["score"].iloc[-1] == pytest.approx(-np.mean(losses), rel=1e-4)


# -- strengths -------------------------------------------------------------------------------------------------------


def test_top_of_l2_is_where_the_network_is_a_constant(l2_path):
    x, y = numbers()
    constant = cross_val_score(DummyRegressor(), x, y, cv=KFold(FOLDS, shuffle=True, random_state=0)).mean()
    table = l2_path.table
    assert table["score"].iloc[-1] == pytest.approx(constant, abs=0.1 * np.ptp(table["score"]))
    assert table["score"].max() > constant + 0.3
    assert table["strength"].iloc[-1] / table["strength"].iloc[1] == pytest.approx(1e4)
    decade_below = table[table["strength"] < table["strength"].iloc[-1] / 9].iloc[-1]
    assert abs(decade_below["score"] - constant) > 0.1 * np.ptp(table["score"])


@pytest.mark.parametrize(
    ("technique", "strengths"),
    [
        ("dropout", [0.0, 0.4, 0.8]),
        ("weight_decay", [0.0, 1e-4, 1.0]),
        ("weight_decay@hidden", [0.0, 1e-4, 1.0]),
    ],
)
def test_strengths_are_spread_over_the_range_of_the_technique(technique, strengths):
    path = of_numbers(technique=technique, strengths=3, epochs=1, folds=2)
    assert path.table["strength"].tolist() == pytest.approx(strengths)


def test_strengths_given_are_sorted_once_each_with_off_among_them():
    path = of_numbers(strengths=(0.5, np.float32(0.25), 0.5), epochs=1, folds=2)
    assert path.table["strength"].tolist() == [0.0, 0.25, 0.5]


@pytest.mark.parametrize("technique", ["l1", "l2", "l2@hidden", "weight_decay", "weight_decay@out"])
def test_technique_on_weights_leaves_smaller_ones_the_stronger_it_is(technique):
    path = of_numbers(technique=technique, strengths=[0.2, 5.0], epochs=1, folds=2)
    assert np.diff(path.table["norm"]).max() < 0
    assert path.technique == technique
    assert path.off.recipe == rg.Recipe({technique: 0.0, "epochs": 1})


def test_much_dropout_keeps_from_learning_by_heart():
    table = of_numbers(technique="dropout", strengths=[0.8], epochs=15, folds=2).table
    assert table["train_score"].iloc[1] < table["train_score"].iloc[0]


def test_pattern_that_reaches_the_same_places_gives_the_same_path():
    everywhere, by_pattern = (of_numbers(technique=key, strengths=[0.4]) for key in ("dropout", "dropout@hid*"))
    assert by_pattern.table.equals(everywhere.table)
    assert by_pattern.off.recipe.strengths == {"dropout@hid*": 0.0}


# -- folds -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def by_number():
    return of_numbers(folds=4, seed=3)


@pytest.mark.parametrize(
    "folds",
    [KFold(4, shuffle=True, random_state=3), own_folds(folds=4, seed=3), np.int64(4)],
    ids=["splitter", "list", "number"],
)
def test_folds_are_a_number_a_splitter_or_a_list(folds, by_number):
    assert of_numbers(folds=folds, seed=3).table.equals(by_number.table)


def test_repeated_folds_are_folds():
    once, twice = (of_numbers(folds=RepeatedKFold(n_splits=4, n_repeats=n, random_state=0)) for n in (1, 2))
    assert twice.table["error"].iloc[0] < once.table["error"].iloc[0] * 1.5
    assert not twice.table["score"].equals(once.table["score"])


def splits_of(model, x, y, **arguments):
    settings = {"folds": 5, "groups": None, "seed": 0, **arguments}
    return _folds._folds(model, Data(x, y), **settings)


@pytest.mark.parametrize("encode", [lambda y: y, lambda y: y[:, None], lambda y: np.eye(3)[y]])
def test_folds_of_classes_have_the_same_share_of_each(encode):
    x, y = classes()
    model, target = classifier(), encode(y)
    if target.ndim == 2 and target.shape[1] == 3:
        model.compile("sgd", "categorical_crossentropy")
    splits = splits_of(model, x, target)
    expected = StratifiedKFold(5, shuffle=True, random_state=0).split(x, y)
    for (rows, held), (other_rows, other_held) in zip(splits, expected, strict=True):
        np.testing.assert_array_equal(rows, other_rows)
        np.testing.assert_array_equal(held, other_held)
        assert np.ptp(np.bincount(y[held], minlength=3) - np.bincount(y, minlength=3) / 5) <= 2


def test_class_with_fewer_rows_than_folds_is_no_obstacle():
    x, y = classes()
    y = np.where(np.arange(ROWS) < 2, 2, y % 2)
    splits = splits_of(classifier(), x, y)
    assert sorted(np.concatenate([held for _, held in splits])) == list(range(ROWS))


@pytest.mark.parametrize("kind", ["classes", "numbers"])
@pytest.mark.parametrize("folds", [3, GroupKFold(3)], ids=["number", "splitter"])
def test_no_group_is_on_both_sides_of_a_fold(kind, folds):
    x, y = classes() if kind == "classes" else numbers()
    groups = np.random.default_rng(0).integers(0, 12, ROWS)
    splits = splits_of(classifier() if kind == "classes" else regressor(), x, y, folds=folds, groups=groups)
    assert len(splits) == 3
    assert all(not set(groups[rows]) & set(groups[held]) for rows, held in splits)
    assert sorted(np.concatenate([held for _, held in splits])) == list(range(ROWS))


def test_groups_reach_the_folds_of_a_path():
    x, _ = numbers()
    groups = np.arange(ROWS) // 20
    path = of_numbers(groups=groups, folds=4)
    listed = of_numbers(folds=list(GroupKFold(4, shuffle=True, random_state=0).split(x, groups=groups)))
    assert path.table.equals(listed.table)


@pytest.mark.parametrize(
    "folds", [KFold(4), [(np.arange(10, ROWS), np.arange(10)), (np.arange(40), np.arange(40, ROWS))]]
)
@pytest.mark.filterwarnings("ignore:The groups parameter is ignored")
def test_folds_that_tear_a_group_are_refused(folds):
    x, y = numbers()
    with pytest.raises(
        ValueError, match=r"Expected no group on both sides of a fold. Received: fold 0 with rows of \d+ in both"
    ):
        splits_of(regressor(), x, y, folds=folds, groups=np.arange(ROWS) % 7)


def test_splitter_sees_the_targets():
    x, y = numbers()

    class Sorted:
        def split(self, rows, targets, groups):
            order = np.argsort(targets)
            return [(order[:40], order[40:]), (order[40:], order[:40])]

    ((rows, held), _) = splits_of(regressor(), x, y, folds=Sorted())
    assert y[rows].max() <= y[held].min()


# -- seeds -----------------------------------------------------------------------------------------------------------


def test_same_seed_gives_the_same_table_to_the_bit_and_another_seed_another(by_number):
    assert of_numbers(folds=4, seed=3).table.equals(by_number.table)
    folds = own_folds(folds=4, seed=3)
    assert not of_numbers(folds=folds, seed=4).table["score"].equals(by_number.table["score"])


def test_seeds_are_averaged_within_folds():
    both, first, second = (of_numbers(seeds=seeds, epochs=1) for seeds in (2, [0], [1]))
    for column in ("score", "train_score", "norm"):
        np.testing.assert_allclose(both.table[column], (first.table[column] + second.table[column]) / 2, rtol=1e-5)
    assert (both.table["error"] < first.table["error"] + second.table["error"]).all()


# -- the model as given ----------------------------------------------------------------------------------------------

BRINGS = {
    "l2": lambda rate: regressor(optimizer=keras.optimizers.Adam(rate), penalty=keras.regularizers.L2(0.02)),
    "dropout": lambda rate: regressor(optimizer=keras.optimizers.Adam(rate), rate=0.4),
    "weight_decay": lambda rate: regressor(optimizer=keras.optimizers.AdamW(rate, weight_decay=0.1)),
}
STRENGTHS = {"l2": 0.02, "dropout": 0.4, "weight_decay": 0.1}


@pytest.mark.parametrize("technique", BRINGS)
def test_model_that_brings_a_strength_is_a_row_of_its_own(technique):
    path = of_numbers(BRINGS[technique](0.01), technique=technique, strengths=[STRENGTHS[technique], 0.5])
    table = path.table
    assert table["name"].tolist() == ["as given", "off", "", ""]
    assert table["strength"].tolist() == pytest.approx(
        [STRENGTHS[technique], 0.0, *sorted([STRENGTHS[technique], 0.5])]
    )
    same = table[(table["name"] == "") & np.isclose(table["strength"], STRENGTHS[technique])].iloc[0]
    for column in ("score", "train_score", "norm", "epochs"):
        assert table[column].iloc[0] == same[column]
    assert table["score"].iloc[0] != table["score"].iloc[1]


@pytest.mark.parametrize("technique", BRINGS)
def test_model_as_given_wins_ties(technique):
    path = of_numbers(BRINGS[technique](0.0), technique=technique, strengths=[0.5])  # nothing learns, so all are equal
    assert (path.table["score"] == path.table["score"].iloc[0]).all()
    assert path.one_se.name == "as given"
    assert path.one_se.recipe == rg.Recipe({"epochs": 1})
    assert path.verdict == "not separable"


def test_strength_of_a_model_that_brings_several_is_not_a_number():
    weak, strong = keras.regularizers.L2(0.02), keras.regularizers.L2(0.5)
    layers = [keras.layers.Dense(8, "relu", kernel_regularizer=weak), keras.layers.Dense(1, kernel_regularizer=strong)]
    model = keras.Sequential([keras.Input((10,)), *layers])
    model.compile("adam", "mse")
    path = of_numbers(model, technique="l2", strengths=[0.1])
    assert np.isnan(path.table["strength"].iloc[0])
    assert path.table["name"].tolist() == ["as given", "off", ""]


def test_off_is_the_answer_where_what_the_model_brings_harms():
    path = of_numbers(regressor(rate=0.95), strengths=[0.9], epochs=40)
    assert path.one_se.name == "off"
    assert path.verdict == "helps"  # a strength of 0 is better than the model as given
    assert "No strength of dropout is better than the model without it" in str(path)
    assert "as given" in str(path)


# -- other data ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("column", [False, True])
def test_validation_data_take_the_place_of_folds_and_seeds_give_the_error(column):
    x, y = numbers()
    held = (x[64:], y[64:, None] if column else y[64:])
    settings = {"technique": "dropout", "strengths": [0.5], "epochs": 4, **QUICK}
    path = rg.path(regressor(), x[:64], y[:64], validation_data=held, score="neg_mean_squared_error", **settings)
    members = rg.train(
        regressor(), x[:64], y[:64], {"dropout": 0.5}, seeds=5, epochs=4, validation_data=(x[64:], y[64:]), **QUICK
    )
    losses = np.array([member.history["val_loss"] for member in members])
    row = path.table.iloc[-1]
    assert row["epochs"] == losses.mean(0).argmin() + 1
    at_best = losses[:, row["epochs"] - 1]
    assert row["score"] == pytest.approx(-at_best.mean(), rel=1e-4)
    assert row["error"] == pytest.approx(np.std(at_best, ddof=1) / np.sqrt(5), rel=1e-3)


def weights_with_validation(validation, **weights):
    x, y = classes()
    data, splits = _folds.data_and_splits(
        classifier(), x[:64], y[:64], 5, None, validation, weights.get("sample_weight"), weights.get("class_weight"), 0
    )
    assert [part.tolist() for part in splits[0]] == [list(range(64)), list(range(64, 80))]
    return data.sample_weight


def test_validation_rows_have_weights_like_the_others_in_the_refit():
    x, y = classes()
    held, weight = (x[64:], y[64:]), np.linspace(5, 15, 64, dtype="float32")
    by_class = weights_with_validation(held, class_weight={0: 10.0, 1: 5.0})
    np.testing.assert_array_equal(by_class, np.array([10.0, 5.0, 1.0])[y])
    np.testing.assert_allclose(weights_with_validation(held, sample_weight=weight)[64:], 10.0, rtol=1e-6)
    own = weights_with_validation((*held, np.full(16, 3.0)), sample_weight=weight)
    np.testing.assert_array_equal(own, [*weight, *[3.0] * 16])
    listed = weights_with_validation(held, sample_weight=[weight])
    np.testing.assert_allclose(listed[0][64:], 10.0, rtol=1e-6)
    for weights in ({}, {"class_weight": {0: 2.0}}):
        with pytest.raises(ValueError, match="scores count each row once"):
            weights_with_validation((*held, np.ones(16)), **weights)


@pytest.mark.parametrize("seed", [-1, 2**40, None, 1.5, True])
def test_seed_that_is_none_is_refused(seed):
    with pytest.raises(ValueError, match=r"`seed`. Expected a whole number from 0 to 4294967295"):
        of_numbers(seed=seed)


@pytest.mark.parametrize("seeds", [1.5, [1.7, 2], [True], True, [], -1, "2", None])
def test_seeds_that_are_none_are_refused(seeds):
    with pytest.raises(ValueError, match=r"argument `seeds`. Expected how many"):
        checked_seeds(seeds)


def test_seeds_may_be_numbers_of_numpy():
    assert checked_seeds(np.int64(2)) == [0, 1]
    assert checked_seeds(np.array([3, 1])) == [3, 1]
    assert checked_seeds(range(2)) == [0, 1]


def test_seeds_may_be_an_array_beside_validation_data():
    x, y = numbers()
    held = x[64:], y[64:]
    paths = [
        rg.path(
            regressor(),
            x[:64],
            y[:64],
            technique="l2",
            strengths=[0.1],
            seeds=s,
            epochs=1,
            validation_data=held,
            **QUICK,
        )
        for s in (np.arange(5), 1)
    ]
    np.testing.assert_array_equal(paths[0].table["score"], paths[1].table["score"])


def test_a_class_that_validation_data_lack_may_have_a_weight():
    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = keras.layers.Dense(3, "softmax")

        def call(self, x):
            return self.dense(x)

    x, y = np.random.default_rng(0).normal(size=(60, 4)).astype("float32"), np.arange(60) % 3
    model = Own()
    model.compile("adam", "sparse_categorical_crossentropy")
    model(x[:1])
    two = y < 2
    weights = {0: 1.0, 1: 1.0, 2: 5.0}
    rows, _ = _folds.data_and_splits(model, x, y, 5, None, (x[two][:9], y[two][:9]), None, weights, 0)
    assert rows.sample_weight[:60].tolist() == [weights[label] for label in y]
    with pytest.raises(ValueError, match=r"Received: the keys \[3\]"):
        _folds.data_and_splits(model, x, y, 5, None, (x[two][:9], y[two][:9]), None, {3: 1.0}, 0)


def test_groups_beside_validation_data_are_refused():
    x, y = numbers()
    with pytest.raises(ValueError, match=r"no `groups` beside `validation_data`.*which rows of a group"):
        rg.path(regressor(), x, y, groups=np.arange(len(y)), validation_data=(x, y), epochs=1)


def test_groups_of_another_length_are_refused():
    with pytest.raises(
        ValueError, match=r"`groups`. Expected a group for each of the 80 rows. Received: groups of shape \(7,\)"
    ):
        splits_of(regressor(), *numbers(), groups=np.arange(7))


def test_stream_with_validation_data_is_read_into_rows():
    x, y = numbers()

    class Stream(keras.utils.PyDataset):
        def __len__(self):
            return 4

        def __getitem__(self, index):
            return x[index * 16 : index * 16 + 16], y[index * 16 : index * 16 + 16]

    settings = {"technique": "dropout", "strengths": [0.5], "epochs": 2, "validation_data": (x[64:], y[64:]), **QUICK}
    streamed, rows = rg.path(regressor(), Stream(), **settings), rg.path(regressor(), x[:64], y[:64], **settings)
    assert streamed.table.equals(rows.table)


def test_class_weight_is_a_weight_for_each_row():
    _, y = classes()
    weights = {0: 0.2, 2: 3.0}
    by_class = of_classes(class_weight=weights)
    by_row = of_classes(sample_weight=np.array([weights.get(label, 1.0) for label in y]))
    unweighted = of_classes()
    assert by_class.table.equals(by_row.table)
    assert not by_class.table["norm"].equals(unweighted.table["norm"])


def test_rows_without_weight_teach_nothing():
    x, y = numbers()
    weight = (np.arange(ROWS) % 2).astype("float32")
    spoiled = np.where(weight == 0, 100.0, y).astype("float32")
    folds = [(np.arange(64), np.arange(65, 80, 2)), (np.arange(16, 80), np.arange(1, 16, 2))]
    settings = {"technique": "l2", "strengths": [0.1], "folds": folds, "sample_weight": weight, "epochs": 3, **QUICK}
    honest, other = (rg.path(regressor(), x, target, **settings) for target in (y, spoiled))
    for column in ("score", "norm"):
        assert honest.table[column].equals(other.table[column])


# -- what fails ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def exploding():
    """A step with this rate and the upper strength makes weights grow a hundredfold."""
    return of_numbers(regressor(optimizer=keras.optimizers.SGD(0.05)), technique="l2", strengths=[0.01, 1e3], epochs=30)


def test_strength_that_diverges_is_reported_and_not_chosen(exploding):
    table = exploding.table
    assert table["diverged"].tolist() == [0, 0, FOLDS]
    assert np.isnan(table["score"].iloc[-1])
    assert not table["as_good"].iloc[-1]
    assert 1e3 not in (exploding.best.strength, exploding.one_se.strength)
    assert "nan" not in str(exploding)


def test_path_in_which_all_diverge_is_an_error():
    with pytest.raises(ValueError, match="Every candidate diverged"):
        of_numbers(regressor(optimizer=keras.optimizers.SGD(1e30)), folds=2)


def test_score_that_is_defined_on_no_fold_is_an_error():
    with pytest.raises(
        ValueError, match=r"not a number on the held-out rows of fold 0: r2 can't be computed from 1 row\..*fewer folds"
    ):
        of_numbers(folds=[(np.arange(16), np.array([20])), (np.arange(16), np.array([21]))], score="r2")


def refuse(*arguments):
    raise AssertionError("compiled before all was checked")


NAN = np.full((ROWS, 10), np.nan, "float32")
BAD = {
    "no technique of ours": ({"technique": "l3"}, r"technique of \['mixup'.*Received: 'l3'"),
    "a pattern that reaches nothing": ({"technique": "dropout@conv*"}, r"'dropout@conv\*'.*layers \['hidden'\]"),
    "one strength": ({"strengths": 1}, r"`strengths`.*from 2.*strengths=1"),
    "no strength": ({"strengths": []}, r"`strengths`.*strengths=\[\]"),
    "only off": ({"strengths": [0]}, r"`strengths`.*at least one above 0.*strengths=\[0\]"),
    "true": ({"strengths": True}, r"`strengths`.*strengths=True"),
    "half a strength": ({"strengths": 2.5}, r"`strengths`.*strengths=2.5"),
    "a word": ({"strengths": "many"}, r"`strengths`.*strengths='many'"),
    "a negative strength": ({"strengths": [-0.1, 0.1]}, r"`dropout`.*from 0 to 1.*-0.1"),
    "a strength of NaN": ({"strengths": [np.nan, 0.1]}, r"`dropout`.*nan"),
    "one fold": ({"folds": 1}, r"`folds`.*from 2 to the number of rows, 80.*folds=1"),
    "more folds than rows": ({"folds": 81}, r"`folds`.*folds=81"),
    "a split": ({"folds": [([0, 1], [2, 3])]}, r"at least two folds.*validation_data"),
    "rows on both sides": ({"folds": [([0, 1], [1, 2]), ([0], [1])]}, r"`folds`.*none in both.*fold 0"),
    "rows that are not there": ({"folds": [([0, 1], [2]), ([0], [80])]}, r"`folds`.*0 to 79.*fold 1"),
    "an empty side": ({"folds": [([0, 1], [2]), ([0], [])]}, r"`folds`.*fold 1 with 1 and 0 rows"),
    "folds in words": ({"folds": "five"}, r"`folds`.*how many, a splitter.*folds='five'"),
    "masks for folds": ({"folds": [(np.ones(80, bool), np.zeros(80, bool))] * 2}, r"`folds`.*whole numbers"),
    "no epochs": ({"epochs": 0}, r"`epochs`.*epochs=0"),
    "no rows in a step": ({"batch_size": 0}, r"`batch_size`.*batch_size=0"),
    "no seeds": ({"seeds": 0}, r"`seeds`.*seeds=0"),
    "one seed for one split": ({"seeds": [3], "validation_data": numbers()}, r"`seeds`.*at least two.*seeds=\[3\]"),
    "another init": ({"init": "warm"}, r"`init`.*'fresh' or 'keep'.*'warm'"),
    "NaN": ({"x": NAN}, r"x to be finite.*80 of 80 rows"),
    "too many columns": ({"x": np.zeros((ROWS, 11))}, r"shape \(rows, 10\).*\(80, 11\)"),
    "fewer targets": ({"y": np.zeros(79)}, r"same number of rows.*x with 80, y with 79"),
    "no targets": ({"y": None}, r"Expected y"),
    "fewer groups than folds": (
        {"groups": np.arange(80) % 3},
        r"`groups`.*as many groups as folds, 5.*Received: 3 groups",
    ),
    "both weights": ({"sample_weight": np.ones(ROWS), "class_weight": {0: 1}}, r"not both"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_does_not_fit_is_an_error_before_anything_compiles(case, monkeypatch):
    monkeypatch.setattr(_path.Trainer, "train", refuse)
    arguments, message = BAD[case]
    x, y = numbers()
    settings = {"x": x, "y": y, "technique": "dropout", "strengths": [0.5], "verbose": 0, **arguments}
    with pytest.raises(ValueError, match=message):
        rg.path(regressor(), settings.pop("x"), settings.pop("y"), **settings)


def test_classes_out_of_range_are_an_error_before_anything_compiles(monkeypatch):
    monkeypatch.setattr(_path.Trainer, "train", refuse)
    x, y = classes()
    with pytest.raises(ValueError, match=r"classes from 0 to 2.*Received: classes from 1 to 3"):
        rg.path(classifier(), x, y + 1, verbose=0)


def test_technique_of_another_type_is_an_error():
    with pytest.raises(TypeError, match=r"`technique` to be a key such as 'l2'.*Received: 3"):
        of_numbers(technique=3)


def test_stream_without_validation_data_is_an_error():
    with pytest.raises(ValueError, match="`validation_data` with a stream"):
        rg.path(regressor(), iter([numbers()]))


# -- the answer ------------------------------------------------------------------------------------------------------


def test_answer_in_words_names_scores_strengths_and_epochs(l2_path):
    assert l2_path.verdict == "helps"
    assert not l2_path.flat
    answer, best, off = l2_path.one_se, l2_path.best, l2_path.off
    assert answer.strength >= best.strength > 0
    text = str(l2_path)
    assert text.startswith(f"l2 helps: r2 {answer.score:.4g}")
    for part in (
        f"strength {answer.strength:.3g} ({answer.epochs} epochs)",
        f"{off.score:.4g}",
        f"at {best.strength:.3g}",
    ):
        assert part in text


def test_technique_that_makes_no_difference_says_so():
    path = of_numbers(regressor(optimizer=keras.optimizers.SGD(0.0)))  # nothing learns
    assert path.flat
    assert path.verdict == "not separable"
    assert str(path).startswith("dropout makes no difference here")


def test_recipe_of_a_candidate_is_what_to_train_with(l2_path):
    for point in (l2_path.off, l2_path.best, l2_path.one_se):
        assert json.loads(point.recipe.to_json()) == {"l2": point.strength, "epochs": point.epochs}


class Watch(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.epochs, self.batches = 0, 0

    def on_epoch_end(self, epoch, logs=None):
        self.epochs += 1

    def on_train_batch_end(self, batch, logs=None):
        self.batches += 1


@pytest.fixture(scope="module")
def watched():
    watch = Watch()
    path = of_numbers(technique="l2", strengths=[0.05], epochs=8, folds=2, callbacks=[watch])
    return path, path.model, watch


def test_model_is_trained_on_all_rows_for_the_chosen_epochs_and_callbacks_see_it(watched):
    path, _, watch = watched
    assert watch.epochs == path.one_se.epochs
    assert watch.batches == watch.epochs * ROWS // BATCH


def test_model_is_that_of_a_member_trained_with_the_answer():
    x, y = numbers()
    weight = np.linspace(0, 3, ROWS)
    path = of_numbers(technique="l2", strengths=[0.05], epochs=8, folds=2, sample_weight=weight)
    (member,) = rg.train(regressor(), x, y, path.one_se.recipe, sample_weight=weight, **QUICK)
    for found, expected in zip(path.model.get_weights(), member.model.get_weights(), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-6)
    assert path.model is path.model  # trained once


def test_model_is_plain_keras(watched):
    _, model, _ = watched
    assert "regularity" not in model.to_json()
    assert "regularity" not in json.dumps(keras.saving.serialize_keras_object(model.optimizer))
    assert type(model) is keras.Sequential


def test_users_model_is_not_touched():
    model = regressor()
    before = [w.copy() for w in model.get_weights()]
    config = model.to_json()
    of_numbers(model, technique="l2", strengths=[0.1], folds=2).model  # noqa: B018
    assert model.to_json() == config
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_moving_averages_are_judged_where_they_are_handed_back():
    random = np.random.default_rng(0)
    x = random.normal(size=(60, 5)).astype("float32")
    model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(16, "relu"), keras.layers.Dense(1)])
    model.compile(keras.optimizers.Adam(0.01, use_ema=True, ema_momentum=0.999), "mse")
    path = rg.path(model, x, x[:, 0], technique="l2", strengths=[1e-3], folds=3, epochs=20)
    handed_back = 1 - path.model.evaluate(x, x[:, 0], verbose=0) / x[:, 0].var()
    assert path.one_se.score == pytest.approx(handed_back, abs=0.3)  # raw weights would score above 0.9 here


@pytest.mark.parametrize("reduction", ["sum_over_batch_size", "mean_with_sample_weight", "sum"])
def test_loss_of_a_row_is_one_whatever_the_reduction(reduction):
    x = np.random.default_rng(0).normal(size=(50, 5)).astype("float32")
    layer = keras.layers.Dense(2, "softmax", kernel_initializer="zeros")
    model = keras.Sequential([keras.Input((5,)), layer])
    model.compile(keras.optimizers.SGD(0.0), keras.losses.SparseCategoricalCrossentropy(reduction=reduction))
    rows = np.arange(50)
    folds = [(rows[:40], rows[40:]), (rows[:10], rows[10:])]
    path = rg.path(model, x, rows % 2, strengths=[1e-3], folds=folds, epochs=1, score="loss")
    np.testing.assert_allclose(path.table["score"], -np.log(2), rtol=1e-5)


def kept(storage, technique="dropout", **asked):
    """A short path on classes; those whose strengths are found train for these first."""
    asked = {"strengths": 4, "epochs": 3, "folds": 3} | QUICK | asked
    return rg.path(classifier(), *classes(), technique=technique, storage=storage, **asked)


@pytest.mark.parametrize("technique", ["dropout", "l2", "max_norm"])
def test_path_that_was_kept_is_there_again_without_training(technique, tmp_path, monkeypatch):
    first = kept(tmp_path / "paths.db", technique)
    monkeypatch.setattr(_path.Trainer, "train", lambda *_: pytest.fail("it trains"))
    second = kept(tmp_path / "paths.db", technique)
    pd.testing.assert_frame_equal(first.table, second.table, check_exact=True)
    assert str(first) == str(second)
    assert first.one_se == second.one_se
    np.testing.assert_array_equal(first._unseen, second._unseen)


def test_path_is_the_same_kept_or_not(tmp_path):
    alone = kept(None)
    pd.testing.assert_frame_equal(alone.table, kept(tmp_path / "paths.db").table, check_exact=True)


def test_path_with_a_name_is_kept_in_a_file_of_that_name_and_one_with_neither_nowhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    kept(None)
    assert not list(tmp_path.iterdir())
    kept(None, name="mine")
    assert (tmp_path / "regularity" / "mine.db").is_file()


@pytest.mark.parametrize(
    ("other", "differs"),
    [
        ({"technique": "l2"}, "technique"),
        ({"seed": 1}, "folds, another seeds"),
        ({"score": "balanced_accuracy"}, "score"),
    ],
)
def test_another_path_under_the_name_of_one_that_was_kept_is_refused(other, differs, tmp_path):
    kept(tmp_path / "paths.db", name="mine")
    with pytest.raises(ValueError, match=f"Received: another {differs}. Give this call a `name`"):
        kept(tmp_path / "paths.db", name="mine", **other)


def test_optuna_reads_a_path_that_was_kept(tmp_path):
    path = kept(tmp_path / "paths.db", name="mine")
    study = optuna.load_study(study_name="mine", storage=f"sqlite:///{tmp_path / 'paths.db'}")
    assert [trial.params["dropout"] for trial in study.trials] == pytest.approx(path.table["strength"].tolist())
    assert [trial.value for trial in study.trials] == pytest.approx(path.table["score"].tolist(), rel=1e-6)
    assert rg.Recipe(study.trials[-1].user_attrs["recipe"]) == rg.Recipe({"dropout": 0.8})
    path = kept(tmp_path / "paths.db", "l2", name="log")
    study = optuna.load_study(study_name="log", storage=f"sqlite:///{tmp_path / 'paths.db'}")
    assert [trial.params.get("l2", 0.0) for trial in study.trials] == pytest.approx(path.table["strength"].tolist())
    assert "l2" not in study.trials[0].params  # off, which a logarithmic axis does not have
    assert study.trials[1].distributions["l2"].log
    path = kept(
        tmp_path / "paths.db", "swa", name="whole", strengths=[0.1, 0.5]
    )  # which is nothing before the last epoch
    study = optuna.load_study(study_name="whole", storage=f"sqlite:///{tmp_path / 'paths.db'}")
    assert [trial.value for trial in study.trials] == pytest.approx(path.table["score"].tolist(), rel=1e-6)
    assert path.table["epochs"].tolist()[1:] == [3, 3]


def test_sequences_with_masks_are_scored():
    random = np.random.default_rng(0)
    x, y = random.integers(1, 20, (20, 5)), random.integers(0, 3, (20, 5))
    x[:, 3:] = 0
    embedding = keras.layers.Embedding(20, 4, mask_zero=True)
    layers = [
        keras.Input((5,)),
        embedding,
        keras.layers.LSTM(4, return_sequences=True),
        keras.layers.Dense(3, "softmax"),
    ]
    model = keras.Sequential(layers)
    model.compile(keras.optimizers.SGD(0.0), "sparse_categorical_crossentropy")
    path = rg.path(model, x, y, strengths=[1e-3], folds=2, epochs=1, init="keep")
    assert path.off.score == pytest.approx(-model.evaluate(x, y, verbose=0), rel=1e-5)
