"""A path: candidates of one technique on the same folds, told apart honestly, and the answer as plain Keras."""

import json

import keras
import numpy as np
import pytest
from sklearn.datasets import load_diabetes, load_wine
from sklearn.dummy import DummyRegressor
from sklearn.metrics import r2_score
from sklearn.model_selection import GroupKFold, KFold, RepeatedKFold, StratifiedKFold, cross_val_score
from sklearn.preprocessing import scale

import regularity as rg
from regularity.data import Data
from regularity.study import _path

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
    table = l2_path.table
    assert table["norm"].iloc[-1] < 0.1 * table["norm"].iloc[0]
    assert table["train_score"].iloc[-1] < table["train_score"].iloc[0]
    assert table["zeros"].iloc[-1] > table["zeros"].iloc[0]


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


def test_score_is_that_of_keras_fit_alone():
    x, y = numbers()
    folds = own_folds()[:2]
    path = of_numbers(technique="l2", strengths=[0.03], folds=folds, epochs=6, score="r2")
    row = path.table.iloc[-1]
    scores = []
    for rows, held in folds:
        member = rg.Recipe({"l2": 0.03}).apply(regressor(), init="fresh", seed=0)
        batches = Shuffled(x[rows], y[rows])
        member.fit(batches, epochs=int(row["epochs"]), shuffle=False, verbose=0)
        scores.append(r2_score(y[held], member.predict(x[held], verbose=0)))
    assert row["score"] == pytest.approx(np.mean(scores), rel=1e-4)


class Shuffled(keras.utils.PyDataset):
    """Batches in the order that the first seed has: a permutation for each epoch."""

    def __init__(self, x, y):
        super().__init__()
        self.x, self.y, self.epoch = x, y, 0

    def __len__(self):
        return len(self.x) // BATCH

    def __getitem__(self, index):
        order = np.random.default_rng([0, self.epoch]).permutation(len(self.x))
        rows = order[index * BATCH : (index + 1) * BATCH]
        return self.x[rows], self.y[rows]

    def on_epoch_end(self):
        self.epoch += 1


# -- the loss as a score ---------------------------------------------------------------------------------------------

UNEVEN = [(np.arange(32), np.arange(32, 80)), (np.arange(16, 80), np.arange(13))]  # the shorter is padded to the longer


def test_loss_is_the_compiled_one_without_penalty():
    x, y = numbers()
    penalized, plain = regressor(penalty=keras.regularizers.L2(0.5)), regressor()
    path = of_numbers(penalized, strengths=[0.5], score="loss", folds=UNEVEN, epochs=1, init="keep")
    losses = []
    for rows, held in UNEVEN:
        (member,) = rg.train(penalized, x[rows], y[rows], {"dropout": 0.5}, init="keep", **QUICK)
        plain.set_weights(member.model.get_weights())
        losses.append(plain.evaluate(x[held], y[held], verbose=0))
    short = len(UNEVEN[0][0]) != len(UNEVEN[1][0])
    assert short  # a member whose fold has fewer rows draws some again, so only the second equals training alone
    assert path.score_name == "loss"
    second = 2 * path.table["score"].iloc[-1] - _first_of(path, x, y, penalized, plain)
    assert -second == pytest.approx(losses[1], rel=1e-4)


def _first_of(path, x, y, penalized, plain):
    raise NotImplementedError
