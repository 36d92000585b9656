"""A search, whole, on small networks: what it tries, what it says and what it hands out."""

import dataclasses
import json
from datetime import timedelta

import keras
import numpy as np
import optuna
import pandas as pd
import pytest
from sklearn.datasets import load_digits
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import LeaveOneOut, ShuffleSplit

import regularity as rg
from regularity.population._population import Population
from regularity.population._train import Trainer
from regularity.study import _search, _watch
from regularity.study._records import Judged
from regularity.study._rule import Trial, best_epoch
from regularity.study._search import _seconds
from regularity.study._store import packed, unpacked

RNG = np.random.default_rng(0)
X = RNG.normal(size=(100, 5)).astype("float32")
Y = (X[:, 0] + X[:, 1] * X[:, 2] + RNG.normal(size=100) > 0).astype("int64")
QUICK = {"trials": 10, "epochs": 3, "verbose": 0}


def classifier(*hidden):
    hidden = hidden or (keras.layers.Dense(8, "relu", name="hidden"),)
    model = keras.Sequential([keras.Input((5,)), *hidden, keras.layers.Dense(2, "softmax", name="output")], name="net")
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def searched(storage="sqlite://", techniques=("l2", "dropout"), model=None, x=X, y=Y, **settings):
    return rg.search(model or classifier(), x, y, list(techniques), storage=storage, **(QUICK | settings))


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return searched(tmp_path_factory.mktemp("study") / "one.db", name="one")


def test_a_study_does_not_show_the_password_of_its_storage(study):
    assert "secret" not in repr(dataclasses.replace(study, storage="postgresql://user:secret@host/studies"))


def same(a, b):
    pd.testing.assert_frame_equal(a.table.drop(columns="seconds"), b.table.drop(columns="seconds"), check_exact=True)
    pd.testing.assert_frame_equal(a.comparison, b.comparison, check_exact=True)
    assert a.recipe == b.recipe
    assert a.best == b.best


def test_the_table_has_a_row_for_each_trial_the_model_as_given_first(study):
    table = study.table
    assert table.index.tolist() == list(range(10))
    assert table["name"].tolist() == ["as given"] + [""] * 9
    assert table.loc[0, ["l2", "dropout"]].isna().all()
    assert table.loc[0, ["difference", "error"]].tolist() == [0, 0]
    assert (table["members"] >= 5).all()
    assert table["epochs"].between(1, 3).all()
    assert table["log_loss"].between(0, 3).all()
    assert table["score"].between(0, 1).all()


def test_each_technique_is_tried_alone_first_and_then_with_others(study):
    on = study.table[["l2", "dropout"]].notna().sum(axis=1)
    assert on[1:7].tolist() == [1] * 2 + [2] * 4


def test_the_answer_is_said_in_words_with_its_interval(study):
    row = study.comparison.loc["as given"]
    assert row["low"] <= row["difference"] <= row["high"]
    assert f"{row['difference']:+.3g}" in str(study) or study.best == rg.Recipe({"epochs": study.best.epochs})
    assert study.verdict in ("helps", "not separable")
    assert ("helps" in str(study)) == (study.verdict == "helps")
    if study.verdict == "not separable":
        assert not study.recipe.strengths
        assert study.score == study.as_given


def test_the_same_call_takes_all_from_the_store(study, monkeypatch):
    monkeypatch.setattr("regularity.population._train.Trainer.submit", lambda *a: pytest.fail("trained again"))
    same(searched(study.storage, name="one"), study)


def test_the_same_seed_gives_the_same_study_and_another_one_another(study):
    same(searched(name="two"), study)
    assert not np.array_equal(searched(seed=1).table["score"], study.table["score"])


def test_a_study_goes_on_with_as_many_members_together_as_it_began_with(tmp_path, monkeypatch):
    """Though the machine would choose otherwise, and layers that are built again have other names."""

    def nameless():
        model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(2, "softmax")])
        model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
        return model

    apart = {"techniques": ["batch_normalization", "l2"], "name": "one", "trials": 8}
    study = searched(tmp_path / "whole.db", model=nameless(), **apart)

    def stop(of, trial):
        if trial.number == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        searched(tmp_path / "one.db", model=nameless(), trial_callbacks=stop, **apart)
    sizes = []

    def chunk(self, tasks, chunk=Population.chunk):
        sizes.append(chunk(self, tasks))
        return sizes[-1]

    monkeypatch.setattr(Population, "chunk", chunk)
    monkeypatch.setattr(
        "regularity.population._calibration._fitting", lambda program: 1
    )  # as another machine may have it
    same(searched(tmp_path / "one.db", model=nameless(), **apart), study)
    together, sizes[:] = set(sizes), []
    searched(tmp_path / "other.db", name="other", trials=3)
    assert set(sizes) == {1}
    assert 1 not in together


def test_more_trials_go_on_from_those_that_there_are(study, tmp_path):
    kept = searched(tmp_path / "grow.db", name="grow")
    more = searched(tmp_path / "grow.db", name="grow", trials=14)
    same(kept, study)
    first = ["l2", "dropout"]
    pd.testing.assert_frame_equal(more.table.loc[:9, first], study.table[first])
    assert len(more.table) == 14


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"x": X + 1}, "data"),
        ({"y": 1 - Y}, "data"),
        ({"model": classifier(keras.layers.Dense(9, "relu", name="hidden"))}, "model"),
        ({"epochs": 4}, "epochs"),
        ({"techniques": ("l2",)}, "techniques"),
        ({"folds": 4}, "folds"),
        ({"score": "balanced_accuracy"}, "score"),
        ({"seeds": 2}, "seeds"),
        ({"seed": 3}, "seed"),
    ],
)
def test_a_study_of_something_else_is_refused_with_what_differs(study, change, what):
    with pytest.raises(ValueError, match=rf"another {what}.*`name` or a `storage`"):
        searched(study.storage, name="one", **change)


def test_optuna_reads_what_is_kept(study):
    kept = optuna.load_study(study_name="one", storage=f"sqlite:///{study.storage}")
    frame = kept.trials_dataframe()
    assert (frame["state"] == "COMPLETE").all()
    assert frame["params_dropout"].dropna().tolist() == study.table["dropout"].dropna().tolist()
    assert kept.best_value == pytest.approx(max(frame["value"]))


def test_progress_says_how_long_the_trials_to_come_take(monkeypatch):
    monkeypatch.setattr(_watch.time, "monotonic", lambda: now)
    now = 100.0
    watch = _watch.Watch("accuracy", 50, None, 100.0, 0)
    now = 130.0  # it compiles, and takes what an earlier run has left
    for kept in (5, 10, 15, 20):
        watch.told([0.5] * kept, "5 in training")
    watch.told([0.5] * 20, "20 in training")
    assert "20 of 50 trials, 20 in training · 0:30 so far · 0 member" in watch.line
    now = 140.0
    watch.advance(9)
    watch.told([0.5] * 30, "20 in training")
    assert "· 0:40 so far, 0:20 to the last trial · 9 member" in watch.line
    watch.told([0.5] * 30, "racing 4")
    assert "to the last" not in watch.line
    watch.told([0.5] * 50, "judging")
    assert "to the last" not in watch.line


@pytest.mark.filterwarnings("ignore:Target and region quantiles")  # of ten trials
@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
@pytest.mark.parametrize(
    "picture", ["optimization_history", "slice", "param_importances", "parallel_coordinate", "contour", "timeline"]
)
def test_optunas_own_pictures_are_drawn_of_what_is_kept(study, picture):
    kept = optuna.load_study(study_name="one", storage=f"sqlite:///{study.storage}")
    assert getattr(optuna.visualization.matplotlib, f"plot_{picture}")(kept) is not None


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_optuna_draws_learning_curves_by_some_of_their_epochs_with_the_first_and_the_last(tmp_path):
    study = searched(tmp_path / "one.db", ["l2"], trials=3, epochs=25, name="one")
    kept = optuna.load_study(study_name="one", storage=f"sqlite:///{study.storage}")
    axes = optuna.visualization.matplotlib.plot_intermediate_values(kept)
    assert len(axes.lines) == 3
    for trial in study._found.trials:
        curve = trial.curves[:5, ..., 0].mean((0, 2))
        shown = kept.trials[trial.number].intermediate_values
        assert {1, 25} <= set(shown)
        assert 4 <= len(shown) <= 5
        assert shown == {epoch: pytest.approx(curve[epoch - 1]) for epoch in shown}


def harmed():
    """A network that leaves out nearly all that it knows, and the images that it is to learn."""
    x, y = load_digits(return_X_y=True)
    layers = [keras.layers.Dense(16, "relu"), keras.layers.Dropout(0.9), keras.layers.Dense(10, "softmax")]
    model = keras.Sequential([keras.Input((64,)), *layers])
    model.compile("adam", "sparse_categorical_crossentropy")
    return model, (x[:300] / 16).astype("float32"), y[:300]


@pytest.mark.parametrize("techniques", ["l2", "dropout"])
def test_what_the_model_brings_and_does_harm_is_left_out(techniques):
    model, x, y = harmed()
    study = searched(model=model, x=x, y=y, techniques=[techniques], trials=6, epochs=12, batch_size=16)
    assert study.verdict == "helps", str(study)
    assert (study.recipe["dropout"] or 0.0) < 0.9
    assert study.score.value > study.as_given.value + 0.1
    assert study._found.trials[study._found.choice.plain].name == "plain"
    assert "no dropout" in str(study) or study.recipe["dropout"]


def test_fold_models_that_diverged_are_left_out_of_the_ensemble(monkeypatch):
    submit = Trainer.submit

    def spoiled(trainer, tasks, *arguments):
        wait, left = submit(trainer, tasks, *arguments), [2]

        def outcomes():
            found = wait()
            for outcome in found:
                if outcome.weights is not None and left[0]:
                    left[0] -= 1
                    outcome.diverged, outcome.held_out[-1] = 1, np.full_like(outcome.held_out[-1], np.nan)
            return found

        return outcomes

    monkeypatch.setattr(Trainer, "submit", spoiled)
    study = searched(techniques=["l2"], trials=3)
    assert len(study._fold_models()) == 3
    single = [model.predict(X, verbose=0) for model in study._fold_models()]
    np.testing.assert_allclose(study.ensemble().predict(X, verbose=0), np.mean(single, 0), atol=1e-6)
    assert study._evidence.calibration.bins["rows"].sum() == 60
    with pytest.raises(ValueError, match="Every one diverged"):
        dataclasses.replace(study, _found=study._found._replace(weights=[])).ensemble()


def test_a_sampler_learns_where_networks_diverge():
    model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.01), "mse")
    space = {"learning_rate": (1e-3, 1e5), "l2": None}  # the upper half of it diverges
    study = rg.search(model, X, X[:, 0], space, storage="sqlite://", **QUICK | {"trials": 60})
    diverged = study.table["score"].isna()
    assert diverged[:20].sum() >= 3
    assert diverged[42:].sum() == 0  # the two before these are planned


def test_the_model_is_plain_keras_and_the_ensemble_the_mean_of_its_fold_models(study, tmp_path):
    assert type(study.model) is keras.Sequential
    average = study.ensemble()
    parts = [layer for layer in average.layers if isinstance(layer, keras.Model)]
    assert len(parts) == 5
    expected = np.mean([np.asarray(part(X)) for part in parts], 0)
    np.testing.assert_allclose(average.predict(X, verbose=0), expected, atol=1e-6)
    average.save(tmp_path / "ensemble.keras")
    loaded = keras.saving.load_model(tmp_path / "ensemble.keras")
    np.testing.assert_allclose(loaded.predict(X, verbose=0), expected, atol=1e-6)


def test_the_code_builds_the_model(study):
    names = {"x": X, "y": Y}
    exec(study.code(), names)
    assert [type(a) for a in names["model"].layers if a.weights] == [type(a) for a in study.model.layers if a.weights]


def test_ablation_leaves_out_each_technique_and_has_each_alone():
    model = classifier(keras.layers.Dense(8, "relu", name="hidden"), keras.layers.Dropout(0.3))
    study = rg.search(model, X, Y, {"l2": 1e-3, "dropout": (0.1, 0.5)}, storage="sqlite://", **QUICK)
    object.__setattr__(study, "_found", study._found._replace(choice=study._found.choice._replace(answer=3)))
    table = study.ablation(seeds=1)
    ablations = ["without l2", "without dropout", "l2 alone", "dropout alone"]
    assert set(table.index) == {"all", *ablations, "none", "as given"}
    assert table.loc["all", ["difference", "error"]].tolist() == [0, 0]
    # with one of two techniques left out the other is alone
    assert table.loc["without l2", "score"] == table.loc["dropout alone", "score"]
    assert (table["score"].between(0, 1)).all()


def test_what_the_model_brings_is_off_in_plain_and_varied_in_the_others():
    model = classifier(keras.layers.Dense(8, "relu", name="hidden"), keras.layers.Dropout(0.5))
    study = searched(model=model, techniques=["l2"])
    assert study.table["name"].tolist()[:2] == ["as given", "plain"]
    recipes = [trial.recipe for trial in study._found.trials]
    assert recipes[0] == rg.Recipe({})
    assert recipes[1] == rg.Recipe({"dropout": 0.0})
    assert all(recipe["dropout"] == 0 for recipe in recipes[2:])


def test_what_stays_is_in_all_but_the_model_as_given_and_plain():
    model = classifier(keras.layers.Dense(8, "relu", name="hidden"), keras.layers.Dropout(0.5))
    techniques = {"l2": None, "label_smoothing": 0.1, "learning_rate": (1e-3, 1e-1)}
    study = rg.search(model, X, Y, techniques, storage="sqlite://", **QUICK | {"trials": 14})
    recipes = [trial.recipe for trial in study._found.trials]
    assert recipes[:2] == [rg.Recipe({}), rg.Recipe({"dropout": 0.0})]
    assert all(recipe["label_smoothing"] == 0.1 and recipe["dropout"] == 0 for recipe in recipes[2:])
    assert [recipe.learning_rate for recipe in recipes[:3]] == [None] * 3  # a technique alone has the model's own
    assert any(recipe.learning_rate for recipe in recipes[3:])


@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")
def test_a_score_by_name_is_what_scikit_learn_says():
    study = searched(score="balanced_accuracy", techniques=["dropout"], trials=4)
    assert study.score_name == "balanced_accuracy"
    outputs, labels = RNG.normal(size=(3, 20, 4)), RNG.integers(0, 4, 20)
    from regularity.study._scores import _balanced_accuracy

    rows = np.stack([RNG.permutation(20) for _ in range(3)])
    valid = np.arange(20) < np.array([[20], [15], [7]])
    picked = np.take_along_axis(outputs, rows[..., None], 1)
    found = _balanced_accuracy(picked, labels[rows], valid)
    expected = [
        balanced_accuracy_score(labels[r[v]], o[v].argmax(-1)) for r, v, o in zip(rows, valid, picked, strict=True)
    ]
    np.testing.assert_allclose(found, expected)


def test_numbers_several_outputs_and_validation_rows():
    x = keras.Input((5,), name="x")
    hidden = keras.layers.Dense(8, "relu")(x)
    model = keras.Model(
        x, {"a": keras.layers.Dense(1, name="a")(hidden), "b": keras.layers.Dense(2, "softmax", name="b")(hidden)}
    )
    model.compile("adam", {"a": "mse", "b": "sparse_categorical_crossentropy"})
    targets = {"a": X[:, :1], "b": Y}
    held = (X[:40], {"a": X[:40, :1], "b": Y[:40]})
    study = rg.search(model, X, targets, ["l2"], validation_data=held, storage="sqlite://", **QUICK | {"trials": 4})
    assert study.score_name == "loss"
    assert len(study.table) == 4
    assert study.ensemble().output.keys() == {"a", "b"}


@pytest.mark.parametrize(("folds", "cells"), [({"folds": 5}, 5), ({"validation_data": (X[:40], Y[:40])}, 1)])
def test_seeds_are_members_on_the_same_rows(folds, cells, tmp_path):
    asked = {"techniques": ["l2"], "trials": 4, "seeds": 2, **folds}
    study = searched(tmp_path / "study.db", name="two", **asked)
    first = [trial.curves[: 2 * cells] for trial in study._found.trials]
    assert all(len(trial.curves) % (2 * cells) == 0 for trial in study._found.trials)
    assert all((curves[:cells] != curves[cells:]).any() for curves in first)  # another seed is another network
    same(study, searched(tmp_path / "study.db", name="two", **asked))


def test_splits_that_overlap_are_taken_and_said_to_be_no_nested_ones():
    study = searched(folds=ShuffleSplit(5, random_state=0), techniques=["dropout"], trials=4)
    assert not study._settled.design.nested
    assert study.best == study.recipe or "though candidates trained on them" in str(study)


def test_a_technique_that_trains_apart_and_a_schedule():
    techniques = {"sam": None, "dropout": {"schedule": ["constant", "linear"]}, "learning_rate": (1e-3, 1e-1)}
    study = rg.search(classifier(), X, Y, techniques, storage="sqlite://", **QUICK | {"trials": 30})
    table = study.table
    assert 0 < table["sam"].notna().sum() < len(table)
    scheduled = [trial for trial in study._found.trials if trial.recipe.schedules]
    assert scheduled
    assert all(table.loc[trial.number, "epochs"] == 3 for trial in scheduled)
    assert table["learning_rate"].dropna().between(1e-3, 1e-1).all()


@pytest.mark.parametrize("sampler", [optuna.samplers.RandomSampler, optuna.samplers.TPESampler])
def test_another_sampler_of_optunas_goes_on_where_it_was(sampler, tmp_path):
    whole = searched(sampler=sampler(seed=3), trials=12, name="whole")
    searched(tmp_path / "some.db", sampler=sampler(seed=3), trials=9, name="some")
    same(searched(tmp_path / "some.db", sampler=sampler(seed=3), trials=12, name="some"), whole)
    other = searched(tmp_path / "some.db", sampler=sampler(), trials=14, name="some")
    pd.testing.assert_frame_equal(other.table.loc[:11, ["l2", "dropout"]], whole.table[["l2", "dropout"]])


def test_a_sampler_that_has_no_more_ends_the_search():
    grid = optuna.samplers.GridSampler({"dropout on": [True], "dropout": [0.1, 0.2, 0.4, 0.5]})
    study = rg.search(
        classifier(), X, Y, {"dropout": (0.05, 0.7)}, sampler=grid, storage="sqlite://", **QUICK | {"trials": 40}
    )
    assert set(study.table["dropout"]) >= {0.1, 0.2, 0.4, 0.5}
    assert len(study.table) < 40


def test_a_budget_that_is_too_short_is_overrun_and_said(monkeypatch):
    monkeypatch.setattr("regularity.study._search._MOMENT", 0.0)
    with pytest.warns(UserWarning, match=r"took [\d.]+ seconds instead of 0\.01: .* longer `budget`"):
        study = searched(trials=None, budget=0.01)
    assert study.verdict in ("helps", "not separable")


@pytest.mark.filterwarnings("ignore:The search took")  # where other programs keep the machine busy
def test_an_interrupted_search_within_a_budget_goes_on(tmp_path, monkeypatch):
    from regularity.study._store import Store

    quick = {"trials": None, "budget": "9s"}
    add, kept = Store.add, []

    def interrupted(self, trial, *what):
        add(self, trial, *what)
        kept.append(trial.number)
        if len(kept) == 5:
            raise KeyboardInterrupt

    monkeypatch.setattr(Store, "add", interrupted)
    with pytest.raises(KeyboardInterrupt):
        searched(tmp_path / "one.db", name="one", **quick)
    monkeypatch.setattr(Store, "add", add)
    study = searched(tmp_path / "one.db", name="one", **quick)
    assert len(study.table) > 5

    # one that came to its end within a budget has it spent
    monkeypatch.setattr("regularity.population._train.Trainer.submit", lambda *a: pytest.fail("trained again"))
    same(searched(tmp_path / "one.db", name="one", **quick), study)


@pytest.mark.filterwarnings("ignore:The search took")
@pytest.mark.parametrize("where", ["race", "judge"])
def test_a_search_that_was_cut_off_at_its_end_takes_a_smaller_budget(tmp_path, monkeypatch, where):
    from regularity.study._search import _Search

    rest = getattr(_Search, where)

    def interrupted(self, pool):
        raise KeyboardInterrupt

    monkeypatch.setattr(_Search, where, interrupted)
    with pytest.raises(KeyboardInterrupt):
        searched(tmp_path / "one.db", name="one", trials=4, budget=60)
    monkeypatch.setattr(_Search, where, rest)
    assert len(searched(tmp_path / "one.db", name="one", trials=None, budget=0.01).table) == 4


def test_a_budget_that_trials_left_over_is_not_spent(tmp_path):
    settings = {"name": "one", "budget": 600, "techniques": ["dropout"]}
    assert len(searched(tmp_path / "one.db", trials=3, **settings).table) == 3
    assert len(searched(tmp_path / "one.db", trials=5, **settings).table) == 5


def test_leaders_get_no_more_rings_where_there_are_more_folds():
    study = searched(folds=10, trials=3)
    assert study.table["members"].max() <= 4 * 10


def test_members_that_diverge_are_counted_and_not_chosen():
    model = classifier()
    model.compile("sgd", "sparse_categorical_crossentropy")
    study = rg.search(
        model, X * 10, Y, {"learning_rate": (0.01, 1e30), "l2": None}, storage="sqlite://", **QUICK | {"trials": 16}
    )
    broken = study.table[study.table["diverged"] > 0]
    assert len(broken) > 0
    assert broken["score"].isna().any()  # others were finite for an epoch or two
    assert np.isfinite(study.score.value)


@pytest.mark.parametrize("rate", [1e6, 50.0], ids=["to no number", "to a loss whose square is none"])
def test_a_model_that_diverges_as_given_is_helped_by_what_does_not(rate):
    model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(rate), "mse")
    study = rg.search(model, X, X[:, 0], {"learning_rate": (1e-3, 1e-2), "l2": None}, storage="sqlite://", **QUICK)
    score = study.table["score"][0]
    assert np.isnan(score) if rate > 50 else score < -1e3
    assert study.verdict == "helps"
    assert study.recipe.learning_rate is not None
    assert "diverges as given" in str(study)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"score": "roc_auc", "folds": [(np.arange(50, 100), np.flatnonzero(Y[:50])), (np.arange(50), np.arange(50, 100))]}, r"fold 0: roc_auc can't be computed from \d+ rows of classes \[1\]"),
        ({"score": "roc_auc_ovr", "y": np.where(np.arange(100) < 3, 2, Y)}, r"fold \d: roc_auc_ovr can't be computed from \d+ rows of classes \[0, 1\]"),
        ({"score": "roc_auc", "validation_data": (X[:8], np.ones(8, int))}, r"part of `validation_data` 0: roc_auc can't"),
    ],
)  # fmt: skip
def test_a_score_that_a_fold_can_not_have_is_refused_before_anything_trains(settings, message, monkeypatch):
    monkeypatch.setattr("regularity.population._train.Trainer.submit", lambda *a: pytest.fail("trained"))
    model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(3, "softmax")])
    model.compile("adam", "sparse_categorical_crossentropy")
    with pytest.raises(ValueError, match=message):
        searched(model=model, **settings)


def test_validation_rows_are_parted_by_class_so_that_each_part_has_a_score():
    y = np.where(np.arange(40) % 10, 0, 1)  # 4 of 40
    study = searched(score="roc_auc", techniques=["l2"], trials=3, validation_data=(X[:40], y))
    assert len(study._settled.design.folds) == 4
    assert study.table["score"].notna().all()


def test_one_row_to_validate_on_leaves_nothing_to_judge_by():
    with pytest.raises(ValueError, match=r"at least 2 rows of `validation_data`.*Received: 1"):
        searched(validation_data=(X[:1], Y[:1]))


def test_where_all_diverge_or_no_fold_has_a_score_the_error_says_which():
    model = classifier()
    model.compile(keras.optimizers.SGD(1e30), "sparse_categorical_crossentropy")
    with pytest.raises(ValueError, match=r"Every candidate diverged.*learning rate"):
        searched(model=model, techniques=["l2"], trials=3, folds=2)
    model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(1)])
    model.compile("adam", "mse")
    with pytest.raises(ValueError, match=r"fold 0: r2 can't be computed from 1 row\..*fewer folds"):
        searched(model=model, techniques=["l2"], x=X[:8], y=X[:8, 0], trials=3, folds=LeaveOneOut())


@pytest.mark.parametrize(
    ("budget", "seconds"),
    [
        ("90s", 90),
        ("5min", 300),
        ("1h 30min", 5400),
        ("1.5h", 5400),
        (12, 12),
        ("2 m", 120),
        ("90", 90),
        (" 1.5 ", 1.5),
        ("5 minutes", 300),
        ("1d", 86400),
        ("1 day 2h", 93600),
        ("2w", 1209600),
        ("PT5M", 300),
        ("5M", 300),
        (timedelta(minutes=5), 300),
        (np.timedelta64(90, "s"), 90),
    ],
)
def test_a_budget_is_a_time(budget, seconds):
    assert _seconds(budget) == seconds


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"budget": "5 parsecs"}, "Expected a time such as"),
        ({"budget": -1}, "Expected a time such as"),
        ({"budget": "0"}, "Expected a time such as"),
        ({"budget": True}, "Expected a time such as"),
        ({"budget": "nat"}, "Expected a time such as"),
        ({"budget": "5:00"}, "Expected a time such as"),
        ({"trials": 1}, "the model as given is one"),
        ({"trials": 2.5}, "Expected a whole number from 1"),
        ({"epochs": 0}, "Expected a whole number from 1"),
        ({"seeds": 0}, "Expected a whole number from 1"),
        ({"folds": 1}, "from 2 to the number of rows"),
        ({"init": "warm"}, "'fresh' or 'keep'"),
        ({"score": "acuracy"}, "one of scikit-learn's"),
        ({"storage": "/proc/none/study.db"}, "a file that can be written"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_trains(settings, message, monkeypatch):
    monkeypatch.setattr("regularity.population._train.Trainer.submit", lambda *a: pytest.fail("trained"))
    with pytest.raises(ValueError, match=message):
        searched(**settings)


def test_what_is_kept_is_what_was_given():
    curves = RNG.normal(size=(5, 3, 2, 2)).astype("float32")
    curves[0, 0] = np.nan
    found = unpacked(json.loads(json.dumps(packed(curves))))
    np.testing.assert_array_equal(found, curves)


def test_a_model_that_is_built_again_goes_on_with_its_study(tmp_path):
    def unnamed():
        model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(2, "softmax")])
        model.compile("adam", "sparse_categorical_crossentropy")
        return model

    settings = {"techniques": ["l2"], "trials": 2, "epochs": 1}
    names = {searched(tmp_path / "all.db", model=unnamed(), **settings).name for _ in range(2)}
    assert len(names) == 1
    assert names.pop().startswith("sequential-")


def test_what_stays_is_tried_alone():
    study = rg.search(classifier(), X, Y, {"l2": None, "label_smoothing": 0.1}, storage="sqlite://", **QUICK)
    alone = study._found.trials[1]
    assert (alone.point, dict(alone.recipe.strengths)) == ({}, {"label_smoothing": 0.1})


@pytest.fixture
def judged(study):
    """A study of which the scores of judged networks, of (folds, seeds), and the choice are set."""

    def judged(given, answer, recipe=1):
        found = study._found
        networks = found.judged.networks | {"as given": np.array(given), "answer": np.array(answer)}
        choice = found.choice._replace(answer=recipe, tied=False)
        changed = found._replace(judged=Judged(found.judged.contestants, networks), choice=choice)
        return dataclasses.replace(study, _found=changed)

    return judged


def test_one_network_that_diverges_is_no_help(judged):
    given = np.full((5, 3), 0.7)
    given[2, 1] = np.nan
    study = judged(given, np.full((5, 3), 0.6))
    assert study.verdict == "not separable"
    assert study.as_given.value == pytest.approx(0.7)
    assert "left out: 1 of 15 of the model as given" in str(study)


def test_networks_that_diverge_more_often_than_by_chance_are_helped_by_what_never_does(judged):
    given = np.full((5, 3), 0.7)
    given[[0, 3]] = np.nan  # on two whole folds
    study = judged(given, np.full((5, 3), 0.6))
    assert study.verdict == "helps"
    assert str(study).startswith("The model diverges as given, in 6 of 15 networks; with ")
    assert judged(given, np.full((5, 3), 0.6), recipe=0).verdict == "not separable"
    given[0] = given[3, 1:] = 0.7
    few = judged(given, np.full((5, 3), 0.6))
    assert few.verdict == "not separable"
    assert "nan" not in str(few)


def test_a_learning_rate_alone_is_not_called_regularization():
    model = classifier()
    model.compile(keras.optimizers.Adam(1e-6), "sparse_categorical_crossentropy")
    entries = {"learning_rate": (0.03, 0.05), "l2": (1e-9, 1e-8)}
    study = rg.search(model, X, (X[:, 0] > 0).astype(int), entries, storage="sqlite://", **QUICK | {"epochs": 6})
    assert study.verdict == "helps"
    expected = (
        "Regularization with another learning rate" if any(study.best.strengths.values()) else "Another learning rate"
    )
    assert str(study).startswith(f"{expected} helps: ")


def test_on_validation_data_several_networks_are_judged_and_averaged():
    study = searched(validation_data=(X[:40], Y[:40]), trials=3)
    assert study._found.judged.networks["answer"].shape == (5, 5)
    assert len(study._fold_models()) == 3
    single = [model.predict(X, verbose=0) for model in study._fold_models()]
    np.testing.assert_allclose(study.ensemble().predict(X, verbose=0), np.mean(single, 0), atol=1e-6)
    right = [shown.argmax(1) == Y for shown in (*single, np.mean(single, 0))]
    folds = [
        fold - len(X) for fold in study._settled.design.folds
    ]  # the rows of `validation_data` come after the others
    gains = [right[-1][fold].mean() - np.mean([one[fold].mean() for one in right[:-1]]) for fold in folds]
    np.testing.assert_allclose(study._found.gains, gains, atol=1e-6)
    assert study.gain_of_averaging.value == pytest.approx(np.mean(gains))
    assert study._evidence.calibration.bins["rows"].sum() == 40


def test_further_seeds_are_judged_where_there_turns_out_to_be_time(monkeypatch):
    at_once = searched(techniques=["l2"], trials=4)
    monkeypatch.setattr(_search._Search, "_judged_seeds", lambda *_: 1)
    study = searched(techniques=["l2"], trials=4, budget=600)
    assert study._found.judged.networks["answer"].shape == (5, 3)
    for role, networks in at_once._found.judged.networks.items():
        np.testing.assert_allclose(study._found.judged.networks[role], networks, atol=1e-6)
    np.testing.assert_allclose(study._found.gains, at_once._found.gains, atol=1e-6)
    monkeypatch.setattr(_search._Search, "_left", 0.0)
    study = searched(techniques=["l2"], trials=4)
    assert study._found.judged.networks["answer"].shape == (5, 1)
    assert study.gain_of_averaging is None


def test_source_has_the_weights_of_classes_rows_and_the_kept_model():
    weights = np.where(Y == 1, 1.5, 0.5)
    quick = {"techniques": ["l2"], "trials": 2, "epochs": 1}
    assert "class_weight={0: 0.5, 1: 1.5}" in searched(class_weight={0: 0.5, 1: 1.5}, **quick).code()
    assert "class_weight={0: 0.5, 1: 1.5}" in searched(sample_weight=weights, **quick).code()
    code = searched(sample_weight=weights + np.arange(100), init="keep", **quick).code()
    assert "# x, y, sample_weight: your data" in code
    assert "model.fit(x, y, sample_weight=sample_weight, " in code
    assert "model.set_weights(yours.get_weights())" in code
    exec(code, {"x": X, "y": Y, "sample_weight": weights})


def test_what_averaging_gains_is_kept_and_not_known_of_a_loss(study, monkeypatch):
    assert study._found.gains.shape == (5,)
    assert np.isfinite(study.gain_of_averaging.value)
    monkeypatch.setattr("regularity.population._train.Trainer.submit", lambda *a: pytest.fail("trained again"))
    assert searched(study.storage, name="one").gain_of_averaging == study.gain_of_averaging
    monkeypatch.undo()
    assert searched(score="loss", techniques=["l2"], trials=2, epochs=1).gain_of_averaging is None


def test_networks_that_were_trained_before_anybody_asked_for_what_they_put_out_are_trained_again(tmp_path, monkeypatch):
    """A search that is killed in its judging, with time for fewer seeds than are averaged, and goes on with more."""
    from regularity.population import _calibration, _checkpoints
    from regularity.study import _judging

    monkeypatch.setattr(_checkpoints, "_EVERY", 0.0)
    monkeypatch.setattr(_calibration, "_CHUNK_BYTES", 1)  # each network is written by itself
    quick = {"techniques": ["l2"], "trials": 2, "epochs": 2, "name": "one"}
    expected = searched(tmp_path / "other.db", **quick)
    note = _search.Store.note

    def killed(self, key, value):
        if key.startswith("judged"):
            raise KeyboardInterrupt
        note(self, key, value)

    with monkeypatch.context() as patched:
        patched.setattr(_judging, "_SEEDS", 2)
        patched.setattr(_search.Store, "note", killed)
        with pytest.raises(KeyboardInterrupt):
            searched(tmp_path / "one.db", **quick)
    found = searched(tmp_path / "one.db", **quick)
    same(found, expected)
    np.testing.assert_array_equal(found._found.gains, expected._found.gains)


def of_length(study):
    return [trial.curves.shape[1] for trial in study._found.trials]


def fast(rate=0.02):
    """A network that has learnt all there is to learn in a few epochs."""
    model = keras.Sequential(
        [
            keras.Input((5,)),
            keras.layers.Dense(32, "relu", name="hidden"),
            keras.layers.Dense(2, "softmax", name="output"),
        ]
    )
    model.compile(keras.optimizers.Adam(rate), "sparse_categorical_crossentropy")
    return model


def noting(monkeypatch):
    """How long the members of each job are asked to train, as they are asked."""
    from regularity.study._search import _Search

    asked, train = [], _Search._train

    def noted(self, tasks, pool):
        asked.extend(task.epochs for task in tasks[:1])
        return train(self, tasks, pool)

    monkeypatch.setattr(_Search, "_train", noted)
    return asked


def test_without_epochs_candidates_train_three_times_as_long_as_is_best_for_the_model_as_given(tmp_path):
    for looked in (10, 20, 50):  # until the best is in the first half
        curves = searched(model=fast(), epochs=looked, trials=2)._found.trials[0].curves[:5]  # its first ring
        score, loss = (best_epoch(curves.mean((0, 2))[:, score], False) + 1 for score in range(2))
        best = round((score * loss) ** 0.5)
        if 2 * best <= looked:
            break
    assert 10 < 3 * best < 150
    study = searched(tmp_path / "found.db", model=fast(), epochs=None, trials=4, name="found")
    assert of_length(study) == [3 * best] * 4
    assert study._ablated().curves["epoch"].max() == 3 * best
    same(searched(tmp_path / "found.db", model=fast(), epochs=None, trials=4, name="found"), study)
    with pytest.raises(ValueError, match="another epochs"):
        searched(tmp_path / "found.db", model=fast(), epochs=3 * best, trials=4, name="found")


def test_where_the_model_as_given_is_best_late_candidates_train_longer_than_was_looked(monkeypatch):
    from regularity.study import _search

    monkeypatch.setattr(_search, "_LOOKED", (2, 4, 6))
    monkeypatch.setattr(_search, "_MOST_EPOCHS", 16)
    asked = noting(monkeypatch)
    study = searched(model=fast(1e-4), epochs=None, trials=2)
    assert asked[:3] == [2, 4, 6]
    assert of_length(study) == [16, 16]


def test_a_budget_that_is_too_short_for_a_dozen_candidates_makes_them_no_longer(monkeypatch):
    from regularity.study import _search

    monkeypatch.setattr(_search, "_LOOKED", (4, 6))
    monkeypatch.setattr(_search.Pace, "seconds", 10.0)  # a member-epoch, with which there is no time for another look
    study = searched(model=fast(1e-4), epochs=None, trials=None, budget=60)
    assert set(of_length(study)) == {6}


def test_a_look_that_takes_more_than_a_tenth_of_a_budget_is_left_out(monkeypatch):
    from regularity.study import _search

    monkeypatch.setattr(_search, "_LOOKED", (4, 6))
    monkeypatch.setattr(_search, "_LONGER", 1)
    monkeypatch.setattr(_search, "_FEWEST_EPOCHS", 5)
    monkeypatch.setattr(_search.Pace, "seconds", 10.0)
    asked = noting(monkeypatch)
    assert set(of_length(searched(model=fast(1e-4), epochs=None, trials=None, budget=60))) == {5}
    assert asked[0] == 4
    assert 6 not in asked


def test_candidates_train_longer_where_the_leaders_ask_for_it(monkeypatch):
    from regularity.study import _search

    monkeypatch.setattr(_search, "_LOOKED", (2,))
    monkeypatch.setattr(_search, "_FEWEST_EPOCHS", 2)
    monkeypatch.setattr(_search, "_LONGER", 2)
    monkeypatch.setattr(_search, "_MOST_EPOCHS", 7)
    lengths = of_length(searched(model=fast(1e-4), epochs=None, trials=40, score="loss"))
    assert set(lengths[:8]) == {4}
    assert lengths[-1] > 4
    assert max(lengths) <= 7


@pytest.mark.parametrize(
    ("members", "chunk", "lanes", "share"), [(5, 5, 1, 1.0), (5, 1, 2, 5 / 6), (5, 20, 2, 1 / 8), (3, 1, 1, 1.0)]
)
def test_a_few_members_alone_are_a_share_of_what_full_lanes_do(members, chunk, lanes, share):
    from regularity.study._search import _share_of_work

    assert _share_of_work(members, chunk, lanes) == pytest.approx(share)


def test_a_longer_budget_later_has_time_for_longer_training(tmp_path, monkeypatch):
    from regularity.study import _search

    monkeypatch.setattr(_search, "_LOOKED", (2, 4))
    monkeypatch.setattr(_search, "_FEWEST_EPOCHS", 2)
    monkeypatch.setattr(_search, "_MOST_EPOCHS", 8)
    pace = _search.Pace.seconds
    monkeypatch.setattr(_search.Pace, "seconds", 100.0)
    storage = tmp_path / "one.db"
    searched(storage, model=fast(1e-4), epochs=None, trials=2, budget=60, name="one")
    monkeypatch.setattr(_search.Pace, "seconds", pace)
    study = searched(storage, model=fast(1e-4), epochs=None, trials=4, budget=60_000, name="one")
    assert of_length(study) == [4, 4, 6, 6]  # three times the two of its one look


def test_a_score_that_is_not_defined_in_the_first_epochs_is_no_failure():
    """As deviances of predictions below 0; a member that has diverged has no score to the end."""
    from regularity.study._rule import value_of

    curves = np.full((5, 6, 2, 1), 0.5)
    curves[:, 3] = 0.7
    late, gone = curves.copy(), curves.copy()
    late[2, :2] = np.nan
    gone[2, 4:] = np.nan
    assert value_of(Trial(1, "", rg.Recipe({}), {}, late, 1), 5) == 0.7
    assert np.isnan(value_of(Trial(1, "", rg.Recipe({}), {}, gone, 1), 5))
    assert np.isnan(value_of(Trial(1, "", rg.Recipe({}), {}, np.full_like(curves, np.nan), 1), 5))


def test_the_time_of_judging_is_reckoned_by_how_long_candidates_train_at_their_best(monkeypatch):
    """Not by the longest training: a budget would be half unused where all are best after few epochs."""
    from regularity.study import _search

    judge, train, reckoned, room, submitted = _search._Search.judge, _search._Search._train, [], [], []

    def trained(self, tasks, pool):
        submitted.append(tasks)
        return train(self, tasks, pool)

    def judged(self, pool):
        reckoned.append((self._seconds_of_judging(3), self.pace.seconds, self.pace.compiling, self.choosing))
        room.append((self.size, self.lanes))
        return judge(self, pool)

    monkeypatch.setattr(_search._Search, "judge", judged)
    monkeypatch.setattr(_search._Search, "_train", trained)
    study = searched(epochs=12, trials=4)
    curves = [trial.curves[:5, ..., 0].mean((0, 2)) for trial in study._found.trials]
    best = [best_epoch(curve, False) + 1 for curve in curves]
    ((seconds, pace, compiling, choosing),) = reckoned
    # judged members train on four of the five folds and are read on one, candidates' on three and two; a row that trains
    # counts as three that are read
    more = (3 * 4 + 1) / (3 * 3 + 2)
    ((size, lanes),) = room
    rounds = _search._rounds([best[0]] * 15 + [max(best)] * 30, size, lanes)  # plain is the model as given
    assert 45 <= -(-45 // size) * size <= lanes * size * rounds  # chunks and lanes that are not full take as long
    assert seconds == pytest.approx(
        size * lanes * rounds * more * pace + _search._COMPILED_AGAIN * compiling + 6 * choosing, rel=0.02
    )
    assert 15 <= len(submitted[-1]) <= 45


@pytest.mark.parametrize(
    ("epochs", "chunk", "lanes", "rounds"),
    [([3] * 10, 5, 2, 3), ([3] * 11, 5, 2, 6), ([1, 9, 1, 9], 2, 1, 10), ([4, 3, 3], 1, 2, 6), ([], 5, 2, 0)],
)
def test_members_of_several_lengths_take_as_long_as_the_longest_of_each_chunk(epochs, chunk, lanes, rounds):
    from regularity.study._search import _rounds

    assert _rounds(epochs, chunk, lanes) == rounds
