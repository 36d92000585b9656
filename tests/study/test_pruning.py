"""Optuna's pruners in a search: what they are told is the mean over folds, and who is stopped is stopped there."""

import keras
import numpy as np
import optuna
import pytest

import regularity as rg
from regularity.study._pruning import Stop

EPOCHS, AFTER = 8, 3
RNG = np.random.default_rng(0)
X = RNG.normal(size=(90, 6)).astype("float32")
Y = (X[:, 0] + RNG.normal(size=90) > 0).astype("int32")


class After(optuna.pruners.BasePruner):
    """Stops every candidate that it is asked about after some epochs, and notes what it was told of each."""

    def __init__(self):
        self.seen = {}

    def prune(self, study, trial):
        self.seen[trial.number] = dict(trial.intermediate_values)
        return trial.last_step >= AFTER


def searched(storage="sqlite://", trials=8, **arguments):
    layers = [keras.Input((6,)), keras.layers.Dense(12, "relu"), keras.layers.Dense(2, "softmax")]
    model = keras.Sequential(layers, name="net")
    model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy")
    return rg.search(
        model, X, Y, ["l2", "dropout"], trials, epochs=EPOCHS, batch_size=32, storage=storage, verbose=0, **arguments
    )


@pytest.fixture(scope="module")
def pruned():
    pruner = After()
    return searched(pruner=pruner), pruner


def test_candidates_without_a_name_are_stopped_where_the_pruner_says(pruned):
    study, _ = pruned
    for trial in study._found.trials:
        known = np.isfinite(trial.curves[:5]).all((0, 2, 3))
        assert known.sum() == (EPOCHS if trial.name else AFTER)
        assert known[: known.sum()].all()
    assert study.table["pruned"].tolist() == [not name for name in study.table["name"]]


def test_until_then_they_are_what_they_are_without_a_pruner(pruned):
    study, pruner = pruned
    whole = searched()
    for number, (a, b) in enumerate(zip(study._found.trials, whole._found.trials, strict=True)):
        if number > 6:  # the sampler's own
            break
        np.testing.assert_array_equal(a.curves[:5, :AFTER], b.curves[:5, :AFTER])
        if not a.name:
            told = pruner.seen[number]
            expected = b.curves[:5, :AFTER, :, 0].mean((0, 2))
            np.testing.assert_allclose([told[e] for e in range(1, AFTER + 1)], expected, rtol=1e-6)
    assert not whole.table["pruned"].any()


def test_optuna_sees_them_as_pruned_and_a_search_goes_on_with_them(tmp_path):
    first = searched(tmp_path / "kept.db", pruner=After())
    kept = optuna.load_study(study_name=first.name, storage=f"sqlite:///{tmp_path / 'kept.db'}")
    states = [trial.state.name for trial in sorted(kept.trials, key=lambda t: t.user_attrs["kept"]["number"])]
    assert states == ["COMPLETE"] + ["PRUNED"] * 7
    more = searched(tmp_path / "kept.db", 12, pruner=optuna.pruners.MedianPruner())
    assert len(more.table) == 12
    assert more.table["pruned"].head(8).tolist() == first.table["pruned"].tolist()


def test_a_member_that_diverges_stops_its_candidate():
    study = optuna.create_study(pruner=optuna.pruners.NopPruner())
    stop = Stop(study.ask(), 2)
    stop.told(1, np.array([[0.5, -1.0]]), diverged=False)
    assert not stop.stopped
    stop.told(1, np.array([[0.7, -1.0]]), diverged=False)
    assert not stop.stopped
    assert study.trials[0].intermediate_values == {1: pytest.approx(0.6)}
    stop.told(2, np.array([[np.nan, np.nan]]), diverged=True)
    assert stop.stopped


def test_a_score_that_is_not_defined_yet_stops_nothing():
    study = optuna.create_study(pruner=optuna.pruners.NopPruner())
    stop = Stop(study.ask(), 1)
    stop.told(1, np.array([[np.nan]]), diverged=False)
    stop.told(2, np.array([[0.7]]), diverged=False)
    assert not stop.stopped
    assert study.trials[0].intermediate_values == {2: pytest.approx(0.7)}


def test_a_pruner_on_a_cluster_is_refused():
    with pytest.raises(ValueError, match=r"`pruner`. Expected none where engine='ray'"):
        searched(pruner=optuna.pruners.MedianPruner(), engine="ray")


def test_what_is_no_pruner_is_refused():
    with pytest.raises(TypeError, match="`pruner` to be one of Optuna's"):
        searched(pruner="median")
