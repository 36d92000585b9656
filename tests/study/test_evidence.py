"""What a study shows besides its answer: against scikit-learn, NumPy and what the study itself says."""

import dataclasses
import json

import keras
import numpy as np
import pandas as pd
import pytest
from sklearn.calibration import calibration_curve

import regularity as rg
from regularity.report import _page, _trials
from regularity.study import _ablation
from regularity.study._evidence import calibration
from regularity.study._records import Judged


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
    for c, weights in study._found.weights:
        cell = study._settled.design.outer[c]
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
        assert row["gap"] == pytest.approx(row["train_score"] - row["score"])


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


def test_profile_has_each_technique_of_the_best_recipe_over_its_range(study):
    found, table = study.profile(), study.ablation()
    on = [key for key, strength in study.best.strengths.items() if strength]
    assert set(found["technique"]) == set(on)
    for key, mine in found.groupby("technique"):
        assert np.isnan(mine["strength"].iloc[0])
        assert mine["place"].iloc[1:].is_monotonic_increasing
        assert mine["place"].max() == pytest.approx(1)
        (chosen,), (best,), (one_se,) = (mine[mine[mark]].to_dict("records") for mark in ("chosen", "best", "one_se"))
        assert chosen["strength"] == study.best[key]
        assert chosen["difference"] == chosen["difference_error"] == 0
        assert best["score"] == mine["score"].max()
        assert one_se["score"] <= best["score"]
        np.testing.assert_allclose(mine["difference"], mine["score"] - chosen["score"], atol=1e-12)
        np.testing.assert_allclose(mine["gap"], mine["train_score"] - mine["score"], atol=1e-12)
        assert mine["weights"].between(1, 6 * 16 + 16 * 2).all()
    assert len(table)


def test_a_step_of_a_profile_is_that_recipe_trained_alone(study):
    settled, model = study._settled, study._model
    found = study.profile()
    row = found[found["strength"].notna() & ~found["chosen"]].iloc[-1]
    entries = json.loads(study.best.to_json()) | {row["technique"]: row["strength"]}
    alone = _ablation.ablate(model, settled, rg.Recipe(entries), settled.epochs, 1, 0).table.loc["all"]
    assert row["score"] == pytest.approx(alone["score"], abs=1e-6)
    assert row["train_score"] == pytest.approx(alone["train_score"], abs=1e-6)
    off = found[found["strength"].isna()].iloc[0]
    without = _ablation.ablate(model, settled, study.best, settled.epochs, 1, 0).table
    name = f"without {off['technique']}" if f"without {off['technique']}" in without.index else "none"
    assert off["score"] == pytest.approx(without.loc[name, "score"], abs=1e-6)


def test_strong_penalty_leaves_fewer_weights_and_a_smaller_gap():
    random = np.random.default_rng(0)
    x = random.normal(size=(60, 8)).astype("float32")
    y = (x[:, 0] + random.normal(size=60)).astype("float32")
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(16, "relu"), keras.layers.Dense(1)])
    model.compile(keras.optimizers.Adam(0.01), "mse")
    study = rg.search(
        model, x, y, {"proximal_l1": (1e-4, 1.0)}, trials=5, folds=4, epochs=20, storage="sqlite://", verbose=0
    )
    choice = study._found.choice._replace(answer=1)
    object.__setattr__(study, "_found", study._found._replace(choice=choice))
    found = study.profile()
    weak, strong = found.iloc[1], found.iloc[-1]
    assert strong["weights"] < 0.5 * weak["weights"]
    assert strong["norm"] < 0.5 * weak["norm"]
    assert strong["gap"] < weak["gap"]


def test_a_recipe_without_any_technique_has_no_profile():
    random = np.random.default_rng(0)
    x, y = random.normal(size=(40, 4)).astype("float32"), random.normal(size=40).astype("float32")
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    study = rg.search(model, x, y, ["l2"], trials=2, folds=4, epochs=1, storage="sqlite://", verbose=0)
    object.__setattr__(study, "_found", study._found._replace(choice=study._found.choice._replace(answer=0)))
    assert len(study.profile()) == 0
    with pytest.raises(ValueError, match="technique that was searched"):
        study.plot_profile()
    assert 'data-chart="profile' not in _page.page(study)


def test_what_is_searched_is_alone_where_what_the_model_brings_is_off(study):
    found = study._evidence.strengths
    numbers = found["trial"][found["alone"] & (found["technique"] == "l2")]
    others = [study._found.trials[number].recipe.strengths["dropout"] for number in numbers]
    assert others
    assert not any(others)  # the model has 0.2
    assert "nothing else was changed" not in _page.page(study)


def unjudged(study):
    """A study as a page shows it while its search runs."""
    return dataclasses.replace(study, _found=study._found._replace(judged=Judged([], {}), gains=None, weights=[]))


def test_where_the_model_as_given_diverges_nothing_has_a_difference_to_it():
    random = np.random.default_rng(0)
    x = random.normal(size=(60, 5)).astype("float32")
    model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(1e30), "mse")
    space = {"learning_rate": (1e-3, 1e-2), "l2": None}
    study = rg.search(model, x, x[:, 0], space, trials=6, folds=4, epochs=2, storage="sqlite://", verbose=0)
    assert study.table["score"].notna().any()
    for shown in (study.table, study._evidence.strengths, _trials.rows(study)):
        assert shown[["difference", "error"]].isna().all(axis=None)
    words = str(unjudged(study))
    assert words.startswith("The model diverges as given. The best guess up to now is ")
    assert "nan" not in words
    for page in (_page.page(study), _page.page(unjudged(study))):
        assert "that one diverges" in page
        assert 'data-chart="strength-' not in page
    with pytest.raises(ValueError, match=r"as given.*diverges"):
        study.plot_strengths()


def test_a_recipe_is_named_with_what_the_space_fixes():
    random = np.random.default_rng(0)
    x, y = random.normal(size=(40, 4)).astype("float32"), random.normal(size=40).astype("float32")
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    space = {"l2": {"strength": None, "schedule": ["cosine"]}, "mixup": 0.2, "learning_rate": (1e-4, 1e-1)}
    study = rg.search(model, x, y, space, trials=8, folds=4, epochs=1, storage="sqlite://", verbose=0)
    for row in _trials.rows(study).to_dict("records"):
        trial = study._found.trials[row["trial"]]
        if not trial.name:
            assert "mixup 0.2" in row["label"]
            assert ("l2" in row["label"]) == ("l2" in trial.point)
            assert ("l2" in row["label"]) == ("cosine" in row["label"])
            assert ("learning_rate" in row["label"]) == ("learning_rate" in trial.point)
