"""`rg.diagnose`: against problems whose answer is known, scikit-learn, Keras and the formulas of the papers."""

import json

import keras
import numpy as np
import pandas as pd
import pytest
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import accuracy_score, log_loss, r2_score
from sklearn.model_selection import StratifiedKFold

import regularity as rg
from regularity.data import Data
from regularity.diagnosis import _diagnose
from regularity.diagnosis._diagnosis import MEASURES, few_rows, next_of, reasons_of, table_of, verdict_of
from regularity.diagnosis._references import _affordable
from regularity.diagnosis._statistics import (
    bootstrapped,
    fitted_numbers,
    mean_interval,
    pseudo_values,
    row_scores,
    weighted,
)
from regularity.study._evidence import mean_of_each_row

RNG = np.random.default_rng(0)
X = RNG.normal(size=(120, 20)).astype("float32")
Y = (X[:, 0] + 0.7 * RNG.normal(size=120) > 0).astype("int64")


def network(*hidden, inputs=20, outputs=2, rate=0.01, loss="sparse_categorical_crossentropy"):
    last = keras.layers.Dense(outputs, "softmax" if outputs > 1 else None)
    model = keras.Sequential([keras.Input((inputs,)), *hidden, last])
    model.compile(keras.optimizers.Adam(rate), loss)
    return model


def wide():
    return network(keras.layers.Dense(64, "relu"))


def held_value(table):
    """Every interval holds its value."""
    assert ((table["low"] <= table["value"]) & (table["value"] <= table["high"])).all()


@pytest.fixture(scope="module")
def over():
    keras.utils.set_random_seed(0)
    return rg.diagnose(wide(), X, Y, folds=3, epochs=24, verbose=0)


# -- problems with a known answer --------------------------------------------------------------------------------------


def test_a_wide_network_on_few_noisy_rows_overfits(over):
    assert over.verdict == "over"
    assert over.table["low"]["gap_share"] > 0.1
    assert "rg.search" in over.next


def test_a_linear_model_of_a_linear_truth_on_many_rows_is_fine():
    x = RNG.normal(size=(900, 4)).astype("float32")
    y = x @ [1.0, -1.0, 0.5, 0.0] + 0.5 * RNG.normal(size=900)
    found = rg.diagnose(
        network(inputs=4, outputs=1, rate=0.05, loss="mse"), x, y.astype("float32"), epochs=20, verbose=0
    )
    assert found.verdict == "fine"
    assert found.table["value"]["held_out_score"] == pytest.approx(2.25 / 2.5, abs=0.03)  # R² of the truth
    # five weights were fitted, and the gap says so
    assert found.table["low"]["effective_parameters"] < 5 < found.table["high"]["effective_parameters"]
    assert found.score_name == "r2"


def test_too_much_of_a_penalty_underfits_and_a_path_of_it_is_next():
    model = keras.Sequential([keras.Input((20,)), keras.layers.Dense(1, kernel_regularizer=keras.regularizers.L2(3.0))])
    model.compile(keras.optimizers.Adam(0.05), "mse")
    found = rg.diagnose(model, X, X[:, 0] - X[:, 1], folds=3, epochs=16, verbose=0)
    assert found.verdict == "under"
    assert found.table["low"]["without_regularization"] > 0
    assert 'technique="l2"' in found.next
    assert set(found.curves["model"]) == {"as given", "plain", "random labels"}


def test_a_training_that_is_too_short_underfits_and_a_longer_one_is_next():
    found = rg.diagnose(network(keras.layers.Dense(8, "relu"), rate=3e-4), X, Y, folds=3, epochs=8, verbose=0)
    assert found.verdict == "under"
    assert found.next.startswith("rg.diagnose(model, x, y, epochs=16)")
    assert "still learns" in str(found)


def test_a_linear_model_of_a_round_truth_underfits_beside_a_forest():
    x = RNG.normal(size=(300, 2)).astype("float32")
    y = (np.square(x).sum(1) > 1.4).astype("int64")
    found = rg.diagnose(network(inputs=2, rate=0.05), x, y, folds=3, epochs=20, verbose=0)
    assert found.verdict == "under"
    assert found.table["low"]["forest_over_training"] > 0
    assert "random forest" in str(found)


def test_several_numbers_of_a_linear_truth_are_fine_and_each_has_its_own_weights():
    """Every estimate is better with more rows: that alone is no fault."""
    x = RNG.normal(size=(400, 10)).astype("float32")
    y = (x @ RNG.normal(size=(10, 8)) + RNG.normal(size=(400, 8))).astype("float32")
    model = keras.Sequential([keras.Input((10,)), keras.layers.Dense(8)])
    model.compile(keras.optimizers.Adam(0.05), "mse")
    found = rg.diagnose(model, x, y, epochs=25, verbose=0)
    assert found.verdict == "fine"
    assert found.table["low"]["half_the_rows"] > 0
    assert found.table["low"]["effective_parameters"] < 88 < found.table["high"]["effective_parameters"]
    held_value(found.table)


def test_few_rows_of_numbers_are_said_to_be_few_and_have_no_absurd_interval():
    x = np.random.default_rng(0).normal(size=(30, 3)).astype("float32")
    y = (x.sum(1) + 1.7 * np.random.default_rng(1).normal(size=30)).astype("float32")
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.Adam(0.05), "mse")
    found = rg.diagnose(model, x, y, epochs=30, verbose=0)
    assert "Only 6 rows are held out at a time" in str(found)
    assert few_rows(10) == []
    held_value(found.table)
    finite = found.table[["value", "low", "high"]].astype(float).to_numpy()
    assert np.isfinite(finite).all()


def test_a_network_whose_units_are_dead_learns_nothing():
    dead = keras.layers.Dense(16, "relu", bias_initializer=keras.initializers.Constant(-1e3))
    found = rg.diagnose(network(dead), X, Y, folds=3, epochs=24, verbose=0)
    assert found.verdict == "under"
    assert "It learns nothing" in str(found)
    assert "learning_rate" in found.next
    assert "Normalization" in found.next
    assert "gap_share" not in found.table.index


def test_classes_of_which_one_is_rare_are_learnt_although_accuracy_does_not_show_it():
    """Always saying the frequent class is as accurate, and not as good."""
    x = np.random.default_rng(0).normal(size=(400, 4)).astype("float32")
    y = (np.random.default_rng(1).random(400) < 0.3 / (1 + np.exp(-2 * x[:, 0]))).astype("int64")
    found = rg.diagnose(network(inputs=4, rate=0.05), x, y, folds=3, epochs=20, verbose=0)
    assert found.table["low"]["train_over_constant"] <= 0 < found.table["low"]["train_loss_below_constant"]
    assert found.verdict == "fine"


# -- what is measured --------------------------------------------------------------------------------------------------


def test_scores_are_those_of_keras_fitted_on_the_same_folds_for_as_long(over):
    """As given, by `rg.train` on each fold's rows: other orders of rows, so that means agree, and not to the bit."""
    held = []
    for train, test in StratifiedKFold(3, shuffle=True, random_state=0).split(X, Y):
        (member,) = rg.train(wide(), X[train], Y[train], epochs=over.epochs, verbose=0)
        held.append(accuracy_score(Y[test], member.model.predict(X[test], verbose=0).argmax(-1)))
    assert over.table["value"]["held_out_score"] == pytest.approx(np.mean(held), abs=0.06)
    curve = over.curves[over.curves["model"] == "as given"].set_index("epoch")
    assert curve["held_out"][over.epochs] == pytest.approx(over.table["value"]["held_out_score"], abs=1e-6)
    assert curve["held_out_loss"][over.epochs] == pytest.approx(over.table["value"]["held_out_loss"], rel=1e-4)


def test_the_forest_is_scikit_learns_on_the_same_folds(over):
    scores = []
    for train, test in StratifiedKFold(3, shuffle=True, random_state=0).split(X, Y):
        scores.append(RandomForestClassifier(random_state=0).fit(X[train], Y[train]).score(X[test], Y[test]))
    at = over.table["value"]
    assert at["forest"] + at["held_out_score"] == pytest.approx(np.mean(scores), abs=1e-6)


def test_the_share_of_the_gap_is_of_what_is_learnt_over_the_most_frequent_class(over):
    at = over.table["value"]
    constant = at["held_out_score"] - at["over_constant"]
    assert constant == pytest.approx(np.bincount(Y).max() / len(Y), abs=0.01)
    assert at["gap_share"] == pytest.approx(at["gap"] / (at["train_score"] - constant))


def test_effective_parameters_are_the_papers_of_the_gap(over):
    at = over.table["value"]  # the compiled loss is the log loss here
    assert at["effective_parameters"] == pytest.approx(80 * at["loss_gap"], rel=1e-3)
    assert at["parameters"] == 20 * 64 + 64 + 64 * 2 + 2


def test_random_labels_are_learnt_by_heart_by_a_wide_network_alone(over):
    narrow = rg.diagnose(network(rate=0.01), X, Y, folds=3, epochs=24, verbose=0)
    assert over.table["value"]["random_labels"] > 0.95
    assert narrow.table["value"]["random_labels"] < 0.85
    assert over.table["value"]["random_labels_by_chance"] == pytest.approx(np.bincount(Y).max() / 120, abs=0.03)


def test_intervals_hold_their_value_and_are_as_wide_as_rows_allow(over):
    held_value(over.table)
    score = over.table.loc["held_out_score"]
    binomial = 2 * 1.645 * np.sqrt(score["value"] * (1 - score["value"]) / 120)
    assert score["high"] - score["low"] == pytest.approx(binomial, rel=0.3)


def test_groups_that_are_copies_widen_the_interval():
    x, y = np.repeat(X[:60], 4, 0), np.repeat(Y[:60], 4)
    model, how = network(rate=0.05), {"folds": 3, "epochs": 4, "verbose": 0}
    rows, groups = (rg.diagnose(model, x, y, groups=g, **how).table for g in (None, np.repeat(np.arange(60), 4)))
    wide = [t["high"]["held_out_loss"] - t["low"]["held_out_loss"] for t in (rows, groups)]
    assert wide[1] > 1.4 * wide[0]


def test_weights_shares_and_calibration_are_there(over):
    assert over.weights["shape"].tolist() == [(20, 64), (64, 2)]
    assert (over.weights["spectral_norm"] <= over.weights["norm"]).all()
    assert over.shares["rows"].tolist() == [20, 40, 80]
    assert over.calibration.bins["rows"].sum() == 120
    assert over.table["value"]["sharpness"] > 0


def test_the_same_seed_gives_the_same_diagnosis():
    first, second, other = (
        rg.diagnose(network(), X, Y, folds=2, epochs=2, seed=seed, verbose=0).table.drop(columns="meaning")
        for seed in (1, 1, 2)
    )
    pd.testing.assert_frame_equal(first, second)
    assert not first.equals(other)


def test_the_model_is_not_touched():
    model = wide()
    before = [np.array(w) for w in model.weights]
    rg.diagnose(model, X, Y, folds=2, epochs=2, verbose=0)
    for old, new in zip(before, model.weights, strict=True):
        np.testing.assert_array_equal(old, new)


# -- the statistics ----------------------------------------------------------------------------------------------------


def test_nothing_is_above_zero_in_one_of_twenty_where_all_seeds_share_the_held_out_rows():
    random, found = np.random.default_rng(0), []
    for _ in range(600):
        rows, seeds, both = random.normal(size=(1, 10)), random.normal(size=(5, 1)), random.normal(size=(5, 10))
        found.append(mean_interval(rows + 0.3 * seeds + 0.3 * both, 0.0)[1] > 0)
    assert 0.02 < np.mean(found) < 0.07


def test_what_parts_say_is_their_mean_for_a_mean():
    values = np.random.default_rng(0).normal(size=(3, 20))
    without = np.array([np.delete(values, np.s_[part::5], 1).mean(1) for part in range(5)]).T
    parts = np.array([values[:, part::5].mean(1) for part in range(5)]).T
    np.testing.assert_allclose(pseudo_values(values.mean(1), without), parts)


def test_means_of_rows_are_those_of_scikit_learn():
    y, shown, rows = RNG.normal(size=(50, 2)), RNG.normal(size=(50, 2)), np.arange(10, 40)
    times = np.isin(np.arange(50), rows).astype(int)[None]
    scores = row_scores("r2", shown, y, rows)
    assert weighted(scores[None], times) == pytest.approx(r2_score(y[rows], shown[rows]))
    classes, sure = RNG.integers(0, 3, 50), RNG.dirichlet(np.ones(3), 50)
    for name, of in (("accuracy", sure.argmax(1)), ("neg_log_loss", sure)):
        function = accuracy_score if name == "accuracy" else lambda y, p: -log_loss(y, p)
        scores = row_scores(name, sure, classes, rows)
        assert weighted(scores[None], times) == pytest.approx(function(classes[rows], of[rows]))
    assert row_scores("roc_auc", sure, classes, rows) is None


def test_drawn_rows_are_nearly_unbiased_for_r2_of_few_rows_a_fold():
    random = np.random.default_rng(0)
    y, folds = random.normal(size=40), np.arange(40) % 5 == np.arange(5)[:, None]
    shown = y + random.normal(size=40)
    scores = np.array([row_scores("r2", shown, y, np.flatnonzero(held)) for held in folds])
    drawn = []

    def measure(counts, _):
        drawn.append(float(weighted(scores, folds * counts)))
        return {"r2": drawn[-1]}

    value, low, high = bootstrapped(measure, np.arange(40), 5, False, 0)["r2"]
    assert low < value < high
    assert np.mean(drawn[1:]) == pytest.approx(value, abs=0.03)
    assert value == pytest.approx(np.mean([r2_score(y[held], shown[held]) for held in folds]))


def test_numbers_fitted_are_summed_over_targets():
    own = np.array([1.0, 4.0])
    out = own * (100 + 5) / (100 - 5)  # Akaike's ratio, with five numbers each
    assert fitted_numbers(100, out, own, True) == pytest.approx(10)


def test_each_row_is_said_once_on_average():
    said, rows = mean_of_each_row([np.array([1.0, 2.0]), np.array([3.0, 5.0])], [np.array([4, 7]), np.array([7, 2])])
    assert rows.tolist() == [2, 4, 7]
    assert said.tolist() == [5.0, 1.0, 2.5]


def test_a_weight_goes_with_its_label_where_labels_are_dealt_out():
    y = np.arange(50) % 2
    data = _diagnose._with_random_labels(Data(X[:50], y, y + 1.0), np.arange(50), 0)
    np.testing.assert_array_equal(data.sample_weight, data.y + 1)
    assert (data.y[50:] != y[_rows_of(data.x[50:])]).any()


def _rows_of(x):
    return [int(np.flatnonzero((row == X).all(1))[0]) for row in x]


@pytest.mark.parametrize(
    ("shape", "targets", "kind", "rows"),
    [((20,), 2, "classes", 0), ((784,), 10, "classes", 20_000), ((784,), 1, "numbers", 2_000), ((784,), 784, "numbers", None), ((20,), 1000, "classes", 1_250)],
)  # fmt: skip
def test_a_forest_is_grown_on_as_many_rows_as_there_is_time_for(shape, targets, kind, rows):
    class Asked:
        data = Data(np.broadcast_to(np.float32(0), (60_000, *shape)))
        said = np.broadcast_to(0.0, (60_000, targets))
        classes = said[:, 0] if kind == "classes" else None

    found = _affordable(Asked, 1_000 if rows == 0 else 48_000, 3e8)
    assert (found is None) if rows is None else (found <= rows)
    assert found is None or (found > 0) == (rows > 0)


# -- kinds of data -----------------------------------------------------------------------------------------------------


def test_numbers_on_validation_data_are_judged_over_seeds_and_rows():
    y = (X[:, :2] + 0.1 * RNG.normal(size=(120, 2))).astype("float32")
    model = keras.Sequential([keras.Input((20,)), keras.layers.Dense(2)])
    model.compile(keras.optimizers.Adam(0.05), "mse")
    found = rg.diagnose(model, X[:80], y[:80], validation_data=(X[80:], y[80:]), epochs=20, seeds=3, verbose=0)
    (member,) = rg.train(model, X[:80], y[:80], epochs=found.epochs, verbose=0)
    expected = r2_score(y[80:], member.model.predict(X[80:], verbose=0))
    assert found.table["value"]["held_out_score"] == pytest.approx(expected, abs=0.05)
    assert found.calibration is None  # of two numbers a row, perhaps of two units
    held_value(found.table)
    assert found.plot().axes


def test_a_score_that_is_no_mean_of_rows_on_validation_data_counts_each_row_once():
    found = rg.diagnose(
        network(rate=0.05),
        X[:80],
        Y[:80],
        validation_data=(X[80:], Y[80:]),
        score="roc_auc",
        epochs=4,
        seeds=2,
        verbose=0,
    )
    held_value(found.table)
    assert {"held_out_score", "over_constant", "forest", "half_the_rows"} <= set(found.table.index)
    assert found.calibration.bins["rows"].sum() == 40


def test_a_part_of_validation_data_without_a_class_leaves_out_what_needs_it():
    y = np.where(np.arange(120) % 40 == 0, 2, Y)  # of class 2 one row is held out: a part of them lacks it
    model = network(outputs=3)
    found = rg.diagnose(
        model, X[:80], y[:80], validation_data=(X[80:], y[80:]), score="roc_auc_ovr", epochs=3, seeds=2, verbose=0
    )
    assert "held_out_score" in found.table.index
    held_value(found.table)


def test_several_inputs_and_outputs_are_judged_by_their_loss():
    inputs = [keras.Input((10,), name="a"), keras.Input((10,), name="b")]
    hidden = keras.layers.Dense(8, "relu")(keras.layers.Concatenate()(inputs))
    outputs = {
        "sign": keras.layers.Dense(1, "sigmoid", name="sign")(hidden),
        "size": keras.layers.Dense(1, name="size")(hidden),
    }
    model = keras.Model(inputs, outputs)
    model.compile("adam", {"sign": "binary_crossentropy", "size": "mse"})
    x, y = {"a": X[:, :10], "b": X[:, 10:]}, {"sign": Y[:, None], "size": np.abs(X[:, :1])}
    found = rg.diagnose(model, x, y, folds=2, epochs=3, verbose=0)
    assert "held_out_score" not in found.table.index
    assert np.isfinite(found.table.loc["loss_gap", ["value", "low", "high"]].astype(float)).all()
    assert "loss" in found.reasons[0]


# -- one run -----------------------------------------------------------------------------------------------------------


def curves(*, rises=0.0, falls=0.0, epochs=40):
    """Losses of a run: both fall and level off, then the held-out one rises, or both fall on."""
    at, noise = np.arange(epochs), np.random.default_rng(1).normal(size=(2, epochs)) * 0.004
    fall = np.exp(-at / 5) + falls * (1 - at / epochs)
    held = 0.5 + fall + rises * np.clip(at - 15, 0, None) + noise[0]
    return {"loss": list(0.4 + fall - 4 * rises * at + noise[1]), "val_loss": list(held)}


@pytest.mark.parametrize(
    ("verdict", "how"),
    [("over", {"rises": 0.01}), ("under", {"falls": 1.0}), ("fine", {})],
    ids=["over", "under", "fine"],
)
def test_one_run_is_judged_by_its_curves(verdict, how):
    history = keras.callbacks.History()
    history.history = curves(**how)
    found = rg.diagnose(history)
    assert found.verdict == verdict == rg.diagnose(history.history).verdict
    assert "One run" in str(found)
    assert len(found.plot().axes) == 1


def test_a_run_with_dropout_overfits_although_its_training_loss_lies_above():
    at, noise = np.arange(40), np.random.default_rng(0).normal(size=(2, 40)) * 0.002
    held = 0.5 + np.exp(-at / 4) + 0.01 * np.clip(at - 12, 0, None)
    found = rg.diagnose({"loss": 0.9 + np.exp(-at / 5) + noise[0], "val_loss": held + noise[1]})
    assert found.verdict == "over"
    assert "lies above the held-out one" in str(found)
    assert "without penalties" not in " ".join(found.table["meaning"])


def test_a_run_whose_losses_both_rise_is_not_called_overfitting():
    rise = np.concatenate([np.exp(-np.arange(15) / 3), 0.03 * np.arange(25)])
    noise = np.random.default_rng(0).normal(size=(2, 40)) * 0.002
    assert rg.diagnose({"loss": 0.6 + rise + noise[0], "val_loss": 0.6 + rise + noise[1]}).verdict != "over"


def test_a_run_that_is_best_at_its_end_has_no_endless_interval():
    falling = np.exp(-np.arange(40) / 8)
    table = rg.diagnose({"loss": falling, "val_loss": 0.1 + falling}).table
    assert np.isfinite(table[["value", "low", "high"]].astype(float).to_numpy()).all()


def test_a_run_that_ends_in_nan_says_in_which_epoch_and_what_to_do():
    logs = curves()
    assert "finite" not in str(rg.diagnose(logs))
    logs["loss"][25:] = [np.nan] * 15
    found = rg.diagnose(logs)
    assert "in epoch 26 of 40 the loss ceases to be finite" in found.reasons[0]
    assert "learning rate" in found.reasons[0]
    assert "clipnorm" in found.reasons[0]
    assert "After" in found.reasons[1]
    assert len(found.curves) == 25
    compile(found.next, "next", "exec")


def test_scatter_alone_is_seldom_a_rise_or_learning():
    """Tests at 5 %: of 200 runs 10 each, and more than 20 once in 500 times."""
    random, found = np.random.default_rng(0), []
    for _ in range(200):
        noise = random.normal(size=(2, 60)) * 0.05
        found.append(rg.diagnose({"loss": 0.4 + noise[0], "val_loss": 0.5 + noise[1]}).verdict)
    assert found.count("over") <= 20
    assert found.count("under") <= 20


# -- what is said ------------------------------------------------------------------------------------------------------


def measured(**values):
    """A table in which what is named has this interval, and all else none."""
    usual = {"held_out_score": (0.8, 0.7, 0.9), "train_score": (0.9, 0.8, 1.0)}
    return table_of(usual | values)


ABOVE, AROUND = (0.3, 0.2, 0.4), (0.0, -0.1, 0.1)


@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        ({}, "fine"),
        ({"loss_gap": ABOVE}, "fine"),  # every network that learns has a gap
        ({"loss_gap": ABOVE, "after_best": ABOVE}, "over"),
        ({"loss_gap": ABOVE, "half_the_rows": ABOVE}, "over"),
        ({"loss_gap": AROUND, "half_the_rows": ABOVE}, "fine"),
        (
            {"loss_gap": ABOVE, "half_the_rows": ABOVE, "learnt": (5.0, 5.0, 5.0)},
            "fine",
        ),  # less than 5 % of what is learnt
        ({"loss_gap": ABOVE, "after_best": ABOVE, "learnt": (5.0, 5.0, 5.0)}, "fine"),
        ({"loss_gap": ABOVE, "after_best": ABOVE, "learnt": (-1.0, -1.0, -1.0)}, "over"),  # nothing to undo
        ({"loss_gap": AROUND, "after_best": ABOVE, "rise_over_training": ABOVE}, "over"),
        ({"without_regularization": (0.002, 0.001, 0.003), "over_constant": ABOVE}, "fine"),  # it is never of no effect
        ({"without_regularization": (0.002, 0.001, 0.003), "over_constant": AROUND}, "under"),
        ({"train_over_constant": AROUND, "train_loss_below_constant": AROUND}, "under"),
        ({"train_over_constant": AROUND, "train_loss_below_constant": ABOVE}, "fine"),
        ({"gap_share": ABOVE}, "over"),
        ({"gap_share": (0.08, 0.05, 0.2)}, "fine"),
        ({"gap_share": ABOVE, "last_quarter": ABOVE}, "under"),
        ({"last_quarter": (0.03, 0.01, 0.04)}, "fine"),  # a trend, but hardly any
        ({"gap_share": ABOVE, "without_regularization": ABOVE}, "under"),
        ({"forest_over_training": ABOVE}, "under"),
        ({"forest": ABOVE}, "fine"),
    ],
)
def test_the_verdict_is_read_off_the_intervals(values, verdict):
    table = measured(**values)
    assert verdict_of(table) == verdict
    assert next_of(verdict, table, 5, 20, ["l2", "dropout"])
    assert all(reason.endswith(".") for reason in reasons_of(table, "accuracy", 5, 20))


def test_more_epochs_come_before_more_units():
    table = measured(forest_over_training=ABOVE)
    assert "learning_rate" in next_of("under", table, 12, 20, [])
    assert next_of("under", table, 20, 20, []).startswith("rg.diagnose(model, x, y, epochs=40)")


@pytest.mark.parametrize("name", ["over", "under", "nothing", "too much", "fine"])
def test_what_is_next_is_python(name):
    values = {
        "over": {"gap_share": ABOVE},
        "under": {"last_quarter": ABOVE},
        "nothing": {"train_over_constant": AROUND},
        "too much": {"without_regularization": ABOVE},
        "fine": {},
    }
    table = measured(**values[name])
    for brought in (["l2"], ["l2", "dropout"]):
        compile(next_of(verdict_of(table), table, 5, 20, brought), "next", "exec")


@pytest.mark.filterwarnings("ignore:The search took")  # on a machine that does other things
def test_what_is_next_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    table = measured(train_over_constant=AROUND)
    code = next_of("under", table, 5, 20, []).replace("5min", "2s")
    names = {"rg": rg, "model": network(), "x": X, "y": Y}
    exec(code, names)
    assert isinstance(names["study"].recipe, rg.Recipe)


def test_a_notebook_shows_it(over):
    page = over._repr_html_()
    assert "It overfits" in page
    assert "<img" in page
    assert set(over.table.index) <= set(MEASURES)
    assert repr(over) == "<Diagnosis: over>"


# -- what is refused ---------------------------------------------------------------------------------------------------


def test_what_can_not_be_diagnosed_says_why():
    with pytest.raises(ValueError, match=r"`loss` and `val_loss`.*Received: \['loss'\]"):
        rg.diagnose({"loss": [1.0] * 20})
    with pytest.raises(ValueError, match="at least 8 epochs"):
        rg.diagnose({"loss": [1.0] * 20, "val_loss": [1.0] * 5 + [np.nan] * 15})
    with pytest.raises(ValueError, match="at least 8 epochs"):
        rg.diagnose({"loss": [1.0] * 3, "val_loss": [1.0] * 3})
    with pytest.raises(ValueError, match=r"a history alone.*\['x', 'y'\]"):
        rg.diagnose({"loss": [1.0] * 20, "val_loss": [1.0] * 20}, X, Y)
    with pytest.raises(ValueError, match=r"a history alone.*\['epochs', 'score'\]"):
        rg.diagnose({"loss": [1.0] * 20, "val_loss": [1.0] * 20}, epochs=-3, score="r2")
    with pytest.raises(ValueError, match=r"20 and 10 of them.*validation_freq=1"):
        rg.diagnose({"loss": [1.0] * 20, "val_loss": [1.0] * 10})
    with pytest.raises(ValueError, match="one number for each epoch"):
        rg.diagnose({"loss": ["a"] * 20, "val_loss": ["b"] * 20})
    with pytest.raises(ValueError, match=r"targets `y` that differ.*120 rows, all with 1"):
        rg.diagnose(wide(), X, np.ones_like(Y))
    with pytest.raises(ValueError, match=r"targets `y` that differ.*120 rows, all with 2\.5"):
        rg.diagnose(network(outputs=1, loss="mse"), X, np.full(120, 2.5))
    with pytest.raises(ValueError, match="Received: x=None"):
        rg.diagnose(wide())
    with pytest.raises(TypeError, match=r"Expected a keras\.Model"):
        rg.diagnose("model", X, Y)
    with pytest.raises(ValueError, match="at least two with `validation_data`"):
        rg.diagnose(wide(), X, Y, validation_data=(X, Y), seeds=[3])
    with pytest.raises(ValueError, match="at least two with `validation_data`"):
        rg.diagnose(wide(), X, Y, validation_data=(X, Y), seeds=1)


def test_a_model_that_diverges_says_so():
    model = keras.Sequential([keras.Input((20,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(1e30), "mse")
    with pytest.raises(ValueError, match="diverges: in epoch 1 "):
        rg.diagnose(model, X, X[:, 0], folds=2, epochs=3, verbose=0)


def test_what_another_process_refuses_is_said_in_this_one(monkeypatch):
    """It would come back as a RuntimeError with a traceback otherwise."""

    def diverges(*_):
        raise ValueError("diverges: in epoch 1")

    monkeypatch.setattr(_diagnose, "_diagnose", diverges)
    error = _diagnose._diagnosis_or_error(None, None, None)
    assert isinstance(error, ValueError)
    monkeypatch.setattr(keras.backend, "backend", lambda: "torch")
    monkeypatch.setattr(_diagnose, "call_elsewhere", lambda *_: error)
    with pytest.raises(ValueError, match="diverges: in epoch 1"):
        rg.diagnose(wide(), X, Y, verbose=0)


# -- the command line --------------------------------------------------------------------------------------------------


def test_the_command_line_says_the_same(tmp_path, monkeypatch, command_line):
    monkeypatch.chdir(tmp_path)
    wide().save("model.keras")
    np.savez("data.npz", x=X, y=Y)
    arguments = ("diagnose", "model.keras", "data.npz", "--folds", 2, "--epochs", 12)
    code, out, _ = command_line(*arguments, "--json", "--plot", "new/picture.svg")
    found = json.loads(out)
    assert code == 0
    assert found["verdict"] == "over"
    for rows in (found["table"].values(), found["shares"], found["weights"]):
        assert any(value != round(value, 10) for row in rows for value in row.values() if isinstance(value, float))
    assert (tmp_path / "new" / "picture.svg").stat().st_size > 1000
    code, out, _ = command_line(*arguments)
    assert code == 0
    assert "It overfits." in out
    assert "rg.search" in out
    assert "held_out_score" in out
    code, out, error = command_line("diagnose", "model.keras", "data.npz", "--plot", "picture.docx")
    assert (code, out) == (2, "")
    assert "--plot to end in" in error
