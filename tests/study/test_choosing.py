"""The rule for choosing: paired standard errors, ties, and epochs from the mean curve."""

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import assume, given
from scipy import stats

from regularity.study._choosing import choose, epochs_by_mean_curve, paired_error
from regularity.study._path import flat_from

NONE, GIVEN_AND_OFF = [], [0, 1]


@st.composite
def tables(draw, diverging=False):
    """Held-out scores of (candidates, folds) that may lie close together or far apart, some NaN if they may diverge."""
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    candidates, folds = draw(st.integers(2, 8)), draw(st.integers(2, 10))
    effect, noise = draw(st.sampled_from([0.0, 0.1, 1.0])), draw(st.sampled_from([0.01, 0.3]))
    scores = random.normal(size=folds) + effect * random.normal(size=(candidates, 1))
    scores = scores + noise * random.normal(size=(candidates, folds))
    if diverging:
        scores[random.random(scores.shape) < draw(st.sampled_from([0.0, 0.1, 0.3]))] = np.nan
    return scores


def first_and_strongest(scores, first):
    return first, [i for i in range(len(scores))[::-1] if i not in first]


def test_paired_error_is_the_formula_of_nadeau_and_bengio():
    differences = np.array([0.1, -0.2, 0.4, 0.3, 0.05])
    mean = sum(differences) / 5
    variance = sum((d - mean) ** 2 for d in differences) / 4
    held_out, trained = 20, 80
    assert paired_error(differences, held_out / trained) == pytest.approx(((1 / 5 + 20 / 80) * variance) ** 0.5)


@given(tables())
def test_paired_error_without_correction_is_the_standard_error_of_the_mean(scores):
    np.testing.assert_allclose(paired_error(scores, 0.0), stats.sem(scores, axis=1), rtol=1e-10)


def test_paired_error_of_one_fold_is_not_known():
    assert np.isnan(paired_error(np.array([[0.3], [0.1]]), 0.25)).tolist() == [True, True]


@given(tables(diverging=True), st.sampled_from([NONE, [0], GIVEN_AND_OFF]), st.sampled_from([0.0, 0.25, 1.0]))
def test_choice_is_the_rule_spelled_out(scores, first, share):
    means = [row.mean() if np.isfinite(row).all() else None for row in scores]
    if not any(mean is not None for mean in means):
        return
    best = max((i for i, mean in enumerate(means) if mean is not None), key=lambda i: means[i])

    def is_as_good(i):
        difference = scores[best] - scores[i]
        folds = len(difference)
        error = np.sqrt((1 / folds + share) * np.var(difference, ddof=1))
        own = np.std(scores[best], ddof=1) / np.sqrt(folds)
        told = 1e-3 * np.nan_to_num(own) + np.finfo("float32").eps * abs(means[best])
        return means[i] is not None and np.mean(difference) <= max(error, told)

    tied = [i for i in first if is_as_good(i)]
    floor = max([means[i] for i in first if means[i] is not None], default=-np.inf)
    expected = tied or [i for i in range(len(scores))[::-1] if i not in first and is_as_good(i) and means[i] > floor]

    choice = choose(scores, share, *first_and_strongest(scores, first))
    assert choice.best == best
    assert choice.answer == expected[0]
    assert choice.as_good.tolist() == [is_as_good(i) for i in range(len(scores))]


@given(tables(), st.integers(0, 2**32 - 1))
def test_what_a_fold_adds_to_all_candidates_changes_nothing(scores, seed):
    harder_folds = scores + np.random.default_rng(seed).normal(scale=5, size=scores.shape[1])
    error = np.delete(choose(scores, 0.25, *first_and_strongest(scores, GIVEN_AND_OFF)).error, scores.mean(1).argmax())
    assume(error.min() > 2e-3 * np.ptp(harder_folds))  # below that a difference tells nothing
    before, after = (choose(s, 0.25, *first_and_strongest(s, GIVEN_AND_OFF)) for s in (scores, harder_folds))
    assert (before.best, before.answer) == (after.best, after.answer)
    np.testing.assert_array_equal(before.as_good, after.as_good)
    np.testing.assert_allclose(before.error, after.error, atol=1e-9)


@given(tables(diverging=True))
def test_answer_is_as_good_and_no_worse_in_mean_than_the_model_as_given(scores):
    mean = scores.mean(1)
    if np.isnan(mean).all():
        return
    choice = choose(scores, 0.25, *first_and_strongest(scores, GIVEN_AND_OFF))
    assert choice.as_good[choice.answer]
    assert choice.answer in GIVEN_AND_OFF or not (mean[choice.answer] < mean[GIVEN_AND_OFF]).any()


@given(tables(diverging=True))
def test_candidate_that_diverged_in_any_fold_never_wins(scores):
    diverged = np.isnan(scores).any(1)
    if diverged.all():
        return
    choice = choose(scores, 0.25, *first_and_strongest(scores, GIVEN_AND_OFF))
    assert not diverged[[choice.best, choice.answer]].any()
    assert not (choice.as_good & diverged).any()


def test_strongest_of_those_as_good_is_the_answer_where_off_is_worse():
    off, weak, middle, strong = [0.1, 0.2, 0.1, 0.2], [0.8, 0.9, 0.8, 1.0], [0.9, 0.8, 0.9, 0.8], [0.3, 0.3, 0.4, 0.3]
    choice = choose(np.array([off, weak, middle, strong]), 1 / 3, [0], [3, 2, 1])
    assert (choice.best, choice.answer) == (1, 2)


def test_equal_scores_are_as_good_even_where_the_paired_error_vanishes_by_chance():
    off = np.array([0.50, 0.58])
    tiny = off + np.array([1.00e-6, 1.01e-6])
    choice = choose(np.array([off, tiny]), 0.5, [0], [1])
    assert choice.error[0] < 1e-7
    assert (choice.best, choice.answer) == (1, 0)
    same = np.full(3, 0.7)
    rounded = choose(np.array([same, same + 1e-8]), 0.5, [0], [1])
    assert rounded.answer == 0


def test_strong_candidate_with_a_wide_error_does_not_win_below_off():
    off, good, wild = [0.5, 0.5, 0.5, 0.5], [0.6, 0.6, 0.6, 0.6], [0.0, 1.2, 0.1, 0.6]
    choice = choose(np.array([off, good, wild]), 1 / 3, [0], [2, 1])
    assert choice.as_good.tolist() == [False, True, True]
    assert choice.answer == 1


def test_every_candidate_diverged_is_an_error():
    with pytest.raises(ValueError, match=r"Every candidate diverged.*learning rate"):
        choose(np.full((3, 4), np.nan), 0.25, [0], [2, 1])


def test_epochs_are_those_of_the_mean_curve_not_of_a_fold():
    early, late = [9.0, 4.0, 3.0, 0.0], [0.0, 4.0, 7.0, 9.5]  # each fold's own best epoch is the first or the last
    curves = np.array([[early, late]])
    assert epochs_by_mean_curve(curves).tolist() == [2]


@given(tables(), st.integers(1, 12))
def test_no_epoch_has_a_better_mean_over_folds(scores, epochs):
    curves = scores[:, :, None] + np.random.default_rng(epochs).normal(size=(*scores.shape, epochs))
    chosen = epochs_by_mean_curve(curves)
    for candidate, epoch in zip(curves, chosen, strict=True):
        means = [np.mean([fold[e] for fold in candidate]) for e in range(epochs)]
        assert means[epoch] == max(means)


def test_epochs_end_where_one_fold_diverged():
    curves = np.array([[[1.0, 2.0, 9.0], [1.0, 2.0, np.nan]], [[np.nan] * 3, [1.0, 2.0, 3.0]]])
    assert epochs_by_mean_curve(curves).tolist() == [1, 0]


@pytest.mark.parametrize(
    ("scores", "first_flat"),
    [
        ([0.1, 0.5, 0.8, 0.4, 0.0, 0.0, 0.0], 4),
        ([0.8, 0.7, 0.6, 0.01, 0.0, 0.02, 0.0], 3),  # within a tenth of the range
        ([0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.0], 6),  # flat nowhere: the top is the last
        ([0.0, 0.0, 0.9, 0.9, 0.0, 0.0], 4),  # what is equal below a rise is not the end
        ([0.3, 0.3, 0.3], 0),
        ([0.8, 0.6, 0.1, np.nan, np.nan], 2),  # diverged is as bad as the worst
        ([0.8, 0.6, 0.1, -np.inf, np.nan], 2),
        ([np.nan, np.nan], 0),
    ],
)
def test_path_is_flat_from(scores, first_flat):
    assert flat_from(np.array(scores)) == first_flat
