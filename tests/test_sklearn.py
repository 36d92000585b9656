"""The estimators keep to scikit-learn's own battery of checks, and do their work on tables of real kinds."""

import pickle

import jax
import numpy as np
import pandas as pd
import pytest
from jax.experimental.compilation_cache import compilation_cache
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris
from sklearn.dummy import DummyRegressor
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import regularity as rg
from regularity.sklearn import RegularizedClassifier, RegularizedRegressor

# Few candidates, but long enough for the checks that want some accuracy.
CHECKED = {
    "hidden": (16,), "trials": 2, "epochs": 40, "learning_rate": 0.02, "folds": 2, "batch_size": 16, "techniques": ["weight_decay"],
}  # fmt: skip
QUICK = {
    "hidden": (16,),
    "trials": 3,
    "epochs": 10,
    "learning_rate": 0.01,
    "techniques": ["dropout"],
    "random_state": 0,
}


@pytest.fixture(scope="module", autouse=True)
def compiled_once(tmp_path_factory):
    """JAX's own cache: the checks fit many times on rows of few shapes."""
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs", "jax_persistent_cache_min_entry_size_bytes")  # fmt: skip
    before = {name: getattr(jax.config, name) for name in names}
    for name, value in zip(names, (str(tmp_path_factory.mktemp("compiled")), 0.0, -1), strict=True):
        jax.config.update(name, value)
    compilation_cache.reset_cache()
    yield
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


def differs(estimator):
    return {
        "check_sample_weight_equivalence_on_dense_data": "rows come in random batches, in which two of one kind are not one of "
        "twice the weight"
    }


@pytest.mark.filterwarnings("ignore")  # the checks fit on what they know to be strange
@parametrize_with_checks(
    [RegularizedClassifier(**CHECKED), RegularizedRegressor(**CHECKED)],
    expected_failed_checks=differs,
    xfail_strict=False,
)
def test_scikit_learns_own_checks(estimator, check):
    if "array_api" in str(check):
        return  # runs where SCIPY_ARRAY_API is set before anything is imported, and would skip here
    check(estimator)


def rows():
    x, y = load_breast_cancer(return_X_y=True)
    return x[:200], y[:200]


def test_in_a_pipeline_cross_validated_and_cloned():
    x, y = rows()
    estimator = RegularizedClassifier(**QUICK)
    pipeline = make_pipeline(MinMaxScaler(), clone(estimator))
    scores = cross_val_score(pipeline, x, y, cv=2)
    assert scores.min() > 0.85
    assert clone(estimator).get_params() == estimator.get_params()


def test_what_was_fitted_can_be_pickled_and_says_the_same():
    x, y = load_iris(return_X_y=True)
    estimator = RegularizedClassifier(**QUICK).fit(x, y)
    loaded = pickle.loads(pickle.dumps(estimator))
    np.testing.assert_allclose(loaded.predict_proba(x), estimator.predict_proba(x), atol=1e-6)
    assert loaded.recipe_ == estimator.recipe_
    assert estimator.study_.name


def test_the_same_random_state_predicts_the_same_and_another_does_not():
    x, y = load_iris(return_X_y=True)
    one, same, other = (
        RegularizedClassifier(**QUICK | {"random_state": seed}).fit(x, y).predict_proba(x) for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(one, same)
    assert np.abs(one - other).max() > 1e-3


def test_the_ensemble_or_the_answer_predicts():
    x, y = load_iris(return_X_y=True)
    both = (
        RegularizedClassifier(**QUICK, ensemble=True).fit(x, y),
        RegularizedClassifier(**QUICK, ensemble=False).fit(x, y),
    )
    assert both[0].model_.name.endswith("ensemble")
    assert both[1].recipe_ == both[1].study_.recipe
    for estimator in both:
        assert estimator.score(x, y) > 0.8


def table():
    random = np.random.default_rng(0)
    town = random.choice(["Rome", "Oslo", "Lima"], 150).astype(object)
    frame = pd.DataFrame({"age": random.normal(40, 9, 150), "town": town, "member": random.random(150) > 0.5})
    frame["kind"] = pd.Categorical(random.choice(["a", "b"], 150))
    target = np.where((frame["town"] == "Oslo") | (frame["kind"] == "b"), "yes", "no")
    frame.loc[random.choice(150, 20), "age"] = np.nan
    frame.loc[random.choice(150, 20), "town"] = np.nan
    return frame, target


def test_text_categories_truth_values_and_missing_ones():
    frame, target = table()
    estimator = RegularizedClassifier(**QUICK | {"epochs": 30}).fit(frame, target)
    assert estimator.score(frame, target) > 0.85
    assert list(estimator.feature_names_in_) == list(frame)
    assert estimator.classes_.tolist() == ["no", "yes"]
    unknown = frame.assign(town="Cairo").head(3)
    assert estimator.predict(unknown).shape == (3,)
    with pytest.raises(ValueError, match="feature names"):
        estimator.predict(frame.rename(columns={"town": "city"}))


def test_a_balanced_class_weight_finds_more_of_the_rare_class():
    random = np.random.default_rng(0)
    x = random.normal(size=(300, 3))
    y = (x[:, 0] + random.normal(size=300) > 1.6).astype(int)
    plain, balanced = (
        RegularizedClassifier(**QUICK | {"epochs": 20}, class_weight=weight).fit(x, y).predict(x)
        for weight in (None, "balanced")
    )
    assert balanced[y == 1].mean() > plain[y == 1].mean() + 0.1


def test_numbers_one_or_several_are_predicted_better_than_by_their_mean():
    x, y = load_diabetes(return_X_y=True)
    estimator = RegularizedRegressor(**QUICK | {"epochs": 20})
    assert cross_val_score(estimator, x, y, cv=2).min() > cross_val_score(DummyRegressor(), x, y, cv=2).max() + 0.2
    both = RegularizedRegressor(**QUICK).fit(x, np.stack([y, -y], 1)).predict(x)
    assert both.shape == (442, 2)
    assert np.corrcoef(both[:, 0], both[:, 1])[0, 1] < -0.9


def test_no_file_is_left_behind(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    RegularizedClassifier(**QUICK).fit(*load_iris(return_X_y=True))
    assert not list(tmp_path.iterdir())


def test_wrong_parameters_are_refused_where_they_act():
    x, y = load_iris(return_X_y=True)
    with pytest.raises(ValueError, match="Did you mean 'dropout'"):
        RegularizedClassifier(**QUICK | {"techniques": ["droput"]}).fit(x, y)
    with pytest.raises(ValueError, match="Expected a time such as"):
        RegularizedClassifier(**QUICK | {"budget": "soon"}).fit(x, y)
    with pytest.raises(ValueError, match="one class"):
        RegularizedClassifier(**QUICK).fit(x, np.zeros(150))
    assert rg.sklearn.RegularizedClassifier is RegularizedClassifier
