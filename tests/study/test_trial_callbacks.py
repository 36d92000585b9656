"""Who is told of each finished trial: in Optuna's words, once, and the search does not depend on it."""

import json
import pickle

import keras
import numpy as np
import optuna
import pytest
from test_search import X, Y, classifier, same, searched

import regularity as rg


def test_each_finished_trial_is_told_of_once_also_over_two_runs(tmp_path):
    told = []

    def listener(study, trial):
        assert isinstance(study, optuna.Study)
        told.append(trial)

    searched(tmp_path / "one.db", name="one", trial_callbacks=[listener])
    assert [trial.number for trial in told] == list(range(10))
    study = searched(tmp_path / "one.db", name="one", trials=12, trial_callbacks=listener)
    assert [trial.number for trial in told] == list(range(12))
    same(study, searched(trials=12))
    kept = optuna.load_study(study_name="one", storage=f"sqlite:///{tmp_path}/one.db").trials
    for trial, other in zip(told, kept, strict=True):
        assert trial.params == other.params
        assert trial.value == other.value
        assert max(trial.intermediate_values.values()) == pytest.approx(trial.value, abs=1e-6)
        recipe = rg.Recipe(trial.user_attrs["recipe"])
        assert json.loads(recipe.to_json()) == other.user_attrs["recipe"]
        assert "curves" not in trial.user_attrs


def test_one_that_fails_warns_and_the_search_goes_on():
    def listener(study, trial):
        if trial.number == 3:
            raise OSError("no server")

    with pytest.warns(UserWarning, match=r"failed at trial 3: OSError: no server. The search goes on"):
        study = searched(trial_callbacks=[listener])
    assert len(study.table) == 10


def test_one_that_stops_the_study_ends_the_search(tmp_path):
    kept = []

    def keep(study, trial):
        kept.append(pickle.dumps(study.stop))  # as a callback does that writes the study to a file

    asked = {"trials": 200, "trial_callbacks": [optuna.study.MaxTrialsCallback(4, states=None), keep]}
    study = searched(tmp_path / "one.db", name="one", **asked)
    assert 4 <= len(kept) == len(study.table) < 200
    assert study.verdict in ("helps", "not separable")
    same(study, searched(tmp_path / "one.db", name="one", **asked))  # it is over
    more = searched(tmp_path / "one.db", name="one", trials=len(study.table) + 2)
    assert len(more.table) == len(study.table) + 2


def test_one_that_fails_twice_in_a_row_is_told_no_more():
    told = []

    def listener(study, trial):
        told.append(trial.number)
        if trial.number not in (0, 2):
            raise OSError("no server")

    with pytest.warns(UserWarning, match="failed at trial") as heard:
        searched(trial_callbacks=[listener])
    assert told == [0, 1, 2, 3, 4]
    said = [str(warning.message) for warning in heard if "failed at trial" in str(warning.message)]
    assert ["no more trials" in message for message in said] == [False, False, True]


def test_what_is_no_callable_is_refused_before_any_work():
    with pytest.raises(TypeError, match=r"list of callables.*Received: 'mlflow'"):
        rg.search(classifier(), X, Y, trial_callbacks=["mlflow"], trials=2, storage="sqlite://")


def test_a_sampler_that_is_none_of_optunas_is_refused_before_any_work():
    with pytest.raises(TypeError, match=r"`sampler` to be one of Optuna's, such as .*Received: 5"):
        rg.search(classifier(), X, Y, sampler=5, trials=2, storage="sqlite://")


def test_a_trial_that_diverged_has_no_value_as_a_failed_one_of_optunas():
    model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.01), "mse")
    told = []
    space = {"l2": (1e-3, 1e-1), "learning_rate": (1e-3, 1e25)}
    rg.search(
        model, X, X[:, 0], space, trials=12, epochs=2, storage="sqlite://", trial_callbacks=[lambda s, t: told.append(t)], verbose=0
    )  # fmt: skip
    values = [trial.value for trial in told]
    assert len(told) == 12
    assert None in values
    assert all(v is None or np.isfinite(v) for v in values)
