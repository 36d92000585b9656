"""What a path says over many data sets of which the truth is known: nothing where there is nothing, and help where it helps."""

import keras
import numpy as np
import pytest
from scipy.stats import binomtest

import regularity as rg

SETS = 24
# "Most of the time": so often that a coin would say it with a probability below 1 %; of 24 that is 19 times or more.
MOST = next(n for n in range(SETS + 1) if binomtest(n, SETS, 0.5, alternative="greater").pvalue < 0.01)


def few_rows(random):
    """Sixty rows of forty columns, of which two carry a linear truth."""
    x = random.normal(size=(60, 40))
    return x, x[:, 0] - x[:, 1] + 0.3 * random.normal(size=60)


def regressor():
    """Without a penalty it learns sixty rows by heart."""
    model = keras.Sequential([keras.Input((40,)), keras.layers.Dense(32, "relu"), keras.layers.Dense(1)])
    model.compile(keras.optimizers.Adam(0.01), "mse")
    return model


def verdicts_on(model, draw, **arguments):
    return [rg.path(model, *draw(np.random.default_rng(n)), seed=n, verbose=0, **arguments) for n in range(SETS)]


@pytest.fixture(scope="module")
def paths_on_noise():
    """Labels that have nothing to do with the rows: no strength is better than any other."""
    model = keras.Sequential([keras.Input((10,)), keras.layers.Dense(16, "relu"), keras.layers.Dense(2, "softmax")])
    model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy")

    def draw(random):
        return random.normal(size=(80, 10)), random.permutation(np.arange(80) % 2)

    return verdicts_on(model, draw, technique="dropout", strengths=[0.2, 0.4, 0.6], epochs=8)


@pytest.fixture(scope="module")
def paths_on_few_rows():
    return verdicts_on(regressor(), few_rows, technique="l1", strengths=[0.003, 0.03, 0.1], epochs=40)


def test_the_bound_is_nineteen_of_twenty_four():
    assert MOST == 19


def test_noise_is_not_separable_most_of_the_time(paths_on_noise):
    assert sum(path.verdict == "not separable" for path in paths_on_noise) >= MOST


def test_answer_on_noise_is_off_whenever_it_is_not_separable(paths_on_noise):
    assert all(path.one_se == path.off for path in paths_on_noise if path.verdict == "not separable")


def test_score_on_noise_is_no_better_than_chance(paths_on_noise):
    scores = [path.off.score for path in paths_on_noise]
    error = np.std(scores, ddof=1) / np.sqrt(SETS)
    # the number of epochs was chosen on the same rows: eight looks at a coin, which the mean over folds makes small
    assert abs(np.mean(scores) - 0.5) < 0.05 + 2 * error


def test_penalty_helps_on_few_rows_most_of_the_time(paths_on_few_rows):
    assert sum(path.verdict == "helps" for path in paths_on_few_rows) >= MOST


def test_help_is_real_on_rows_that_nothing_has_seen(paths_on_few_rows):
    random = np.random.default_rng(SETS)
    x = random.normal(size=(2000, 40))
    truth = x[:, 0] - x[:, 1]
    for n, path in enumerate(paths_on_few_rows[:2]):
        rows = few_rows(np.random.default_rng(n))
        members = rg.train(regressor(), *rows, [path.off.recipe, path.one_se.recipe], verbose=0)
        errors = [np.mean((member.model.predict(x, verbose=0)[:, 0] - truth) ** 2) for member in members]
        assert errors[1] < 0.5 * errors[0]
