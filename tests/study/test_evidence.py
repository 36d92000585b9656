"""What a study shows besides its answer: against scikit-learn, NumPy and what the study itself says."""

import keras
import numpy as np
import pandas as pd
import pytest
from sklearn.calibration import calibration_curve

import regularity as rg
from regularity.study._evidence import calibration


def test_reliability_is_scikit_learns():
    random = np.random.default_rng(1)
    positive = random.uniform(0.5, 1, 400)  # so that the second class is the one that is named
    y = (random.uniform(size=400) < positive**2).astype("int64")
    found = calibration(np.stack([1 - positive, positive], -1), y, "classes")
    observed, predicted = calibration_curve(y, positive, n_bins=10, strategy="quantile")
    np.testing.assert_allclose(found.bins["predicted"], predicted, atol=1e-12)
    np.testing.assert_allclose(found.bins["observed"], observed, atol=1e-12)
    assert found.error == pytest.approx(np.abs(observed - predicted).mean())


@pytest.mark.parametrize(("off", "beyond"), [(0.0, (0, 8)), (0.15, (60, 60))])
def test_calibration_error_is_beyond_chance_where_words_are_not_true(off, beyond):
    """A test at 5 %: of 60 draws 3 are beyond it where all is well, and more than 8 once in 300 times."""
    random, count = np.random.default_rng(2), 0
    for _ in range(60):
        sure = random.uniform(0.65, 1, 500)
        right = random.uniform(size=500) < sure - off
        found = calibration(np.stack([sure, 1 - sure], -1), np.where(right, 0, 1), "classes")
        count += found.error > found.chance
    assert beyond[0] <= count <= beyond[1]


def test_numbers_that_are_off_are_beyond_chance():
    random = np.random.default_rng(4)
    said = random.normal(size=300)
    true, half = said + random.normal(size=300), 0.5 * said + random.normal(size=300)
    found = [calibration(said[:, None], so, "numbers") for so in (true, half)]
    assert [each.error > each.chance for each in found] == [False, True]
    assert calibration(np.ones((5, 2)), np.ones((5, 2)), "numbers") is None


def test_numbers_are_set_beside_what_was_so():
    random = np.random.default_rng(3)
    said = random.normal(size=(200, 1))
    found = calibration(said, 2 * said[:, 0], "numbers")
    np.testing.assert_allclose(found.bins["observed"], 2 * found.bins["predicted"])
    assert found.bins["rows"].sum() == 200


def test_calibration_is_of_rows_that_the_fold_models_did_not_see(study):
    found, hits = study._evidence.calibration, []
    for weights, cell in zip(study._found.weights, study._settled.design.outer, strict=True):
        held = np.concatenate([study._settled.design.folds[fold] for fold in cell.held])
        model = keras.models.clone_model(study._fold_models()[0])
        model.set_weights([w for w in weights if w.ndim])
        data = study._settled.data.take(held)
        hits += (model.predict(data.x, verbose=0).argmax(-1) == data.y).tolist()
    assert len(hits) == found.bins["rows"].sum() == 90
    mean = np.average(found.bins["observed"], weights=found.bins["rows"])
    assert mean == pytest.approx(np.mean(hits))


def test_weights_are_those_of_the_fold_models(study):
    found = study._evidence.weights
    kernels = [[w for w in model.get_weights() if w.ndim == 2] for model in study._fold_models()]
    assert found["shape"].tolist() == [(6, 16), (16, 2)]
    for row, same in zip(found.to_dict("records"), zip(*kernels, strict=True), strict=True):
        assert row["norm"] == pytest.approx(np.mean([np.linalg.norm(w) for w in same]), rel=1e-5)
        assert row["spectral_norm"] == pytest.approx(np.mean([np.linalg.svd(w)[1][0] for w in same]), rel=1e-5)
        assert row["zeros"] == pytest.approx(np.mean([np.abs(w) < 1e-3 for w in same]))
        assert sum(row["counts"]) == pytest.approx(same[0].size, rel=0.01)


def test_strengths_are_those_of_the_table(study):
    found = study._evidence.strengths
    for key in ("l2", "dropout"):
        mine = found[found["technique"] == key].set_index("trial")
        expected = study.table[key].dropna()
        pd.testing.assert_series_equal(mine["strength"], expected, check_names=False)
        pd.testing.assert_series_equal(mine["difference"], study.table["difference"].loc[mine.index])
        others = study.table[[k for k in ("l2", "dropout", "max_norm") if k != key]].notna().any(axis=1)
        assert mine["alone"].tolist() == (~others.loc[mine.index]).tolist()


def test_curves_stop_where_the_ablation_says(study):
    table, curves = study.ablation(), study._evidence.curves
    for name, row in table.iterrows():
        mine = curves[curves["recipe"] == name]
        assert len(mine) == 6
        (stop,) = mine[mine["stopped"]].to_dict("records")
        assert stop["epoch"] == row["epochs"]
        assert stop["train"] == pytest.approx(row["train_score"])
        assert stop["train"] - stop["held_out"] == pytest.approx(row["gap"])


def test_the_ablation_is_trained_once(study, monkeypatch):
    first = study.ablation()
    monkeypatch.setattr("regularity.study._ablation.Trainer", None)
    pd.testing.assert_frame_equal(study.ablation(), first)
    mine = study.ablation()
    mine["score"] = 0.0  # what a user has is a copy
    pd.testing.assert_frame_equal(study.ablation(), first)


def test_a_technique_is_not_alone_beside_another_learning_rate():
    random = np.random.default_rng(0)
    x, y = random.normal(size=(40, 4)).astype("float32"), random.normal(size=40).astype("float32")
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    space = {"l2": {"strength": None, "schedule": ["constant", "cosine"]}, "learning_rate": (1e-4, 1e-1)}
    study = rg.search(model, x, y, space, trials=12, folds=4, epochs=1, storage="sqlite://", verbose=0)
    found = study._evidence.strengths.set_index(["technique", "trial"])["alone"]
    both = study.table.index[study.table["l2"].notna() & study.table["learning_rate"].notna()]
    only = study.table.index[study.table["l2"].notna() & study.table["learning_rate"].isna()]
    assert len(both)
    assert len(only)
    assert not found["l2"].loc[both].any()
    assert found["l2"].loc[only].all()
