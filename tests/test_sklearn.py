"""The estimators keep to scikit-learn's own battery of checks, and do their work on tables of real kinds."""

import datetime
import decimal
import pickle
import subprocess
import sys

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

# Most of a fit is compiling; small batches give the checks that want some accuracy their steps in few epochs.
CHECKED = {
    "hidden": (16,), "trials": 2, "epochs": 8, "learning_rate": 0.05, "folds": 2, "batch_size": 8, "techniques": ["l2"],
}  # fmt: skip
QUICK = CHECKED | {"trials": 3, "learning_rate": 0.02, "techniques": ["dropout"], "random_state": 0}


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


@pytest.fixture(scope="module")
def iris():
    x, y = load_iris(return_X_y=True)
    return RegularizedClassifier(**QUICK).fit(x, y), x, y


def test_what_was_fitted_can_be_pickled_and_says_the_same(iris):
    estimator, x, _ = iris
    loaded = pickle.loads(pickle.dumps(estimator))
    np.testing.assert_array_equal(loaded.predict_proba(x), estimator.predict_proba(x))
    assert loaded.recipe_ == estimator.recipe_
    assert estimator.study_.name
    assert not hasattr(loaded, "study_")


def test_the_same_random_state_predicts_the_same_and_another_does_not(iris):
    estimator, x, y = iris
    one = estimator.predict_proba(x)
    same, other = (
        RegularizedClassifier(**QUICK | {"random_state": seed}).fit(x, y).predict_proba(x) for seed in (0, 1)
    )
    np.testing.assert_array_equal(one, same)
    assert np.abs(one - other).max() > 1e-3


def test_a_row_is_predicted_the_same_wherever_it_stands(iris):
    estimator, x, _ = iris
    all_at_once = estimator.predict_proba(x)
    order = np.random.default_rng(0).permutation(len(x))
    np.testing.assert_array_equal(estimator.predict_proba(x[order]), all_at_once[order])
    np.testing.assert_array_equal(estimator.predict_proba(x[7:8])[0], all_at_once[7])
    many = estimator.predict_proba(np.tile(x, (8, 1)))  # more than a block
    np.testing.assert_array_equal(many, np.tile(all_at_once, (8, 1)))


def test_the_ensemble_or_the_answer_predicts(iris):
    estimator, x, y = iris
    answer = RegularizedClassifier(**QUICK, ensemble=False).fit(x, y)
    assert estimator.model_.name.endswith("ensemble")
    assert estimator.recipe_ == estimator.study_.best
    assert not answer.model_.name.endswith("ensemble")
    assert answer.recipe_ == answer.study_.recipe
    assert min(estimator.score(x, y), answer.score(x, y)) > 0.8


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
    estimator = RegularizedClassifier(**QUICK | {"epochs": 20}).fit(frame, target)
    assert estimator.score(frame, target) > 0.85
    assert list(estimator.feature_names_in_) == list(frame)
    assert estimator.classes_.tolist() == ["no", "yes"]
    unknown = frame.assign(town="Cairo").head(3)
    assert estimator.predict(unknown).shape == (3,)
    with pytest.raises(ValueError, match="feature names"):
        estimator.predict(frame.rename(columns={"town": "city"}))
    with pytest.raises(ValueError, match=r"a data frame with the columns that `fit` was given\. Received: ndarray"):
        estimator.predict(frame[["age"]].to_numpy())


def test_a_missing_category_is_another_than_one_that_is_called_missing():
    frame = pd.DataFrame({"kind": np.array(["missing", None, "a"] * 20, object)})
    estimator = RegularizedClassifier(**QUICK | {"epochs": 30}).fit(frame, frame["kind"].isna())
    assert estimator.score(frame, frame["kind"].isna()) == 1


@pytest.mark.parametrize(
    ("column", "target", "message"),
    [
        (pd.date_range("2020-01-01", periods=30), np.arange(30.0), r"Received: datetime64.* in \['more'\].*days since"),
        (["a", "b"] * 15, np.where(np.arange(30) == 3, np.nan, 1), "y contains NaN"),
        (["a", "b"] * 15, np.arange(29.0), "inconsistent numbers of samples"),
        (["a", "b"] * 15, None, "requires y to be passed"),
    ],
)
def test_frames_and_their_targets_are_checked_before_anything_trains(column, target, message):
    frame = pd.DataFrame({"age": np.arange(30.0), "more": column})
    with pytest.raises(ValueError, match=message):
        RegularizedRegressor(**QUICK).fit(frame, target)


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
    estimator = RegularizedRegressor(**QUICK)
    assert cross_val_score(estimator, x, y, cv=2).min() > cross_val_score(DummyRegressor(), x, y, cv=2).max() + 0.2
    both = RegularizedRegressor(**QUICK).fit(x, np.stack([y, -y], 1)).predict(x)
    assert both.shape == (442, 2)
    assert np.corrcoef(both[:, 0], both[:, 1])[0, 1] < -0.9


def test_scores_are_in_the_units_of_the_targets():
    x, y = load_diabetes(return_X_y=True)
    study = RegularizedRegressor(**QUICK, scoring="neg_mean_absolute_error").fit(x, y).study_
    assert study.score_name == "neg_mean_absolute_error"
    assert 30 < -study.score.value < 90  # of standardised targets it would be below 1
    with pytest.raises(ValueError, match="Received: score='f1'"):
        RegularizedRegressor(**QUICK, scoring="f1").fit(x, y)


@pytest.mark.parametrize("rows", [2, 3, 7])
def test_few_rows_are_held_out_in_fewer_folds(rows):
    x = np.random.default_rng(0).normal(size=(rows, 1))
    estimator = RegularizedRegressor(**QUICK | {"folds": 5, "epochs": 2}).fit(x, x[:, 0])
    assert np.isfinite(estimator.predict(x)).all()


def test_groups_are_in_no_two_folds_and_seeds_are_members(iris):
    _, x, y = iris
    groups = np.arange(len(x)) // 5
    fitted = RegularizedClassifier(**QUICK | {"seeds": 2, "folds": 3}).fit(x, y, groups=groups)
    folds = fitted.study_._settled.design.folds
    assert sum(len(np.unique(groups[rows])) for rows in folds) == len(np.unique(groups))
    assert fitted.study_.table["members"].min() == 2 * len(folds)


def test_a_class_of_one_row_and_columns_that_never_change():
    x = np.ones((20, 2))
    estimator = RegularizedClassifier(**QUICK | {"epochs": 2}).fit(x, ["rare"] + ["one", "two"] * 9 + ["two"])
    assert estimator.predict_proba(x).shape == (20, 3)


def test_a_study_is_kept_where_asked_and_goes_on_there(tmp_path):
    settings = QUICK | {"storage": tmp_path / "kept.db", "name": "iris", "epochs": 2}
    x, y = load_iris(return_X_y=True)
    first = RegularizedClassifier(**settings).fit(x, y)
    again = RegularizedClassifier(**settings).fit(x, y)
    assert first.study_.name == "iris"
    pd.testing.assert_frame_equal(first.study_.table, again.study_.table)  # to the second: nothing was trained again
    with pytest.raises(ValueError, match="another data"):
        RegularizedClassifier(**settings).fit(x[:100], y[:100])


def test_the_module_is_imported_without_keras():
    code = "import sys, regularity.sklearn; sys.exit('keras' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_no_file_is_left_behind(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    RegularizedClassifier(**QUICK).fit(*load_iris(return_X_y=True))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"techniques": ["droput"]}, "Did you mean 'dropout'"),
        ({"budget": "soon"}, "Expected a time such as"),
        ({"hidden": 8}, r"units of each hidden layer.*Received: hidden=8"),
        ({"hidden": (8, 0)}, r"whole number from 1\. Received: hidden=0"),
        ({"learning_rate": 0}, r"a number above 0.*Received: learning_rate=0"),
        ({"folds": 1}, r"Expected a number from 2.*Received: folds=1"),
        ({"class_weight": "equal"}, "'class_weight' parameter"),
    ],
)
def test_wrong_parameters_are_refused_where_they_act(settings, message):
    x, y = load_iris(return_X_y=True)
    with pytest.raises(ValueError, match=message):
        RegularizedClassifier(**QUICK | settings).fit(x, y)


def test_what_can_not_be_learned_from_is_refused():
    x, y = load_iris(return_X_y=True)
    with pytest.raises(ValueError, match=r"Received: one class, 0\.0\."):
        RegularizedClassifier(**QUICK).fit(x, np.zeros(150))
    with pytest.raises(ValueError, match="Negative values in data passed to `sample_weight`"):
        RegularizedClassifier(**QUICK).fit(x, y, sample_weight=-np.ones(150))
    with pytest.raises(ValueError, match="n_samples=1"):
        RegularizedRegressor(**QUICK).fit(x[:1], y[:1])
    assert rg.sklearn.RegularizedClassifier is RegularizedClassifier


@pytest.mark.parametrize("names", [[1, 0], [1, 2], ["a", "b"]])
def test_columns_are_prepared_by_what_they_hold_whatever_they_are_called(names):
    frame = pd.DataFrame({names[0]: [True, False] * 15, names[1]: np.arange(30.0)})
    estimator = RegularizedClassifier(**QUICK | {"epochs": 2}).fit(frame, np.arange(30) % 2)
    prepared = estimator.preprocessor_.transform(frame)
    assert prepared.shape == (30, 3)  # a number, and a truth value one-hot
    assert prepared[:, 0].std() == pytest.approx(1)


def test_numbers_that_stand_in_objects_are_numbers():
    x, y = load_diabetes(return_X_y=True)
    x, y = x[:60, :3].astype("float32"), y[:60]
    plain = pd.DataFrame(x, columns=list("abc"))
    objects = plain.astype(object)
    objects.loc[0, "a"], gap = None, plain.copy()
    gap.loc[0, "a"] = np.nan
    objects["b"] = [decimal.Decimal(str(float(value))) for value in x[:, 1]]
    expected = RegularizedRegressor(**QUICK).fit(gap, y).predict(gap)
    fitted = RegularizedRegressor(**QUICK).fit(objects, y)
    np.testing.assert_allclose(fitted.predict(objects), expected, rtol=1e-5)
    np.testing.assert_allclose(fitted.predict(gap), expected, rtol=1e-5)


def test_codes_mean_the_same_whether_they_are_read_as_text_or_as_numbers():
    frame = pd.DataFrame({"code": ["7", "A1", "7", "B"] * 15})
    y = np.where(frame["code"] == "7", 0, 1)
    table = RegularizedClassifier(**QUICK).fit(frame, y)
    as_text = table.predict_proba(frame[:1])
    np.testing.assert_array_equal(table.predict_proba(pd.DataFrame({"code": [7, 7, None]}))[:1], as_text)
    np.testing.assert_array_equal(table.predict_proba(pd.DataFrame({"code": [7]})), as_text)


def test_whole_numbers_too_large_for_floats_are_codes():
    frame = pd.DataFrame({"code": np.array([2**60, 2**60 + 1, None] * 10, object), "age": np.arange(30.0)})
    table = RegularizedClassifier(**QUICK).fit(frame, np.arange(30) % 3 == 0)
    assert table.preprocessor_.transform(frame).shape == (30, 4)


def test_a_column_of_lists_is_refused_by_name():
    frame = pd.DataFrame({"age": np.arange(30.0), "words": [[1.0, 2.0]] * 30})
    with pytest.raises(ValueError, match=r"lists or arrays in \['words'\]"):
        RegularizedClassifier(**QUICK).fit(frame, np.arange(30) % 2)


@pytest.mark.parametrize(
    "dates",
    [[datetime.date(2020, 1, 1), None] * 15, pd.period_range("2020", periods=30, freq="D"), [pd.Timedelta("1D")] * 30],
    ids=["objects", "periods", "spans"],
)
def test_dates_of_any_type_are_refused(dates):
    frame = pd.DataFrame({"age": np.arange(30.0), "when": dates})
    with pytest.raises(ValueError, match=r"in \['when'\].*days since"):
        RegularizedRegressor(**QUICK).fit(frame, np.arange(30.0))


@pytest.mark.parametrize("target", [["a", None, "b"] * 10, [0, None, 1] * 10, [True, False, None] * 10])
def test_a_class_that_is_missing_is_refused(target):
    with pytest.raises(ValueError, match="a class for each row; leave out rows without"):
        RegularizedClassifier(**QUICK).fit(np.arange(30.0)[:, None], np.array(target, object))


def test_a_study_that_is_kept_goes_on_though_no_random_state_is_given(tmp_path):
    x = np.random.default_rng(0).normal(size=(40, 2))
    settings = QUICK | {"random_state": None, "storage": tmp_path / "kept.db", "epochs": 2}
    names = {RegularizedClassifier(**settings).fit(x, x[:, 0] > 0).study_.name for _ in range(2)}
    assert len(names) == 1
