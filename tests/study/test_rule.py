"""The rule of choosing, on scores whose truth is known: nothing trains here."""

import numpy as np
import pytest
from scipy import stats
from sklearn.model_selection import KFold

from regularity.recipe import Recipe
from regularity.study._cells import design_of
from regularity.study._rule import (
    Trial,
    _above_usual,
    _means,
    _noise,
    best_epoch,
    best_on_the_whole,
    choose,
    estimate,
    helps,
    long_enough,
    ruled_out,
    soonest,
    standing,
    surrogate,
)

FOLDS, EPOCHS = 5, 8
DESIGN = design_of(list(KFold(FOLDS).split(np.zeros(100))), 0)
ONE = np.ones(1)
RNG = np.random.default_rng(0)


def trial(number, level, techniques=1, rings=1, name="", noise=0.0, seed=None, by_fold=None):
    """A candidate whose members score `level`, the more the later, plus noise."""
    cells = [cell for ring in range(rings) for cell in DESIGN.ring(ring)]
    random = np.random.default_rng(number if seed is None else seed)
    curves = np.full((len(cells), EPOCHS, 2, 1), level) + 0.01 * np.arange(EPOCHS)[None, :, None, None]
    curves += noise * random.normal(size=curves.shape)
    if by_fold is not None:
        for c, cell in enumerate(cells):
            curves[c] += by_fold[list(cell.held)][None, :, None]
    point = dict.fromkeys(("l2", "dropout", "mixup")[:techniques], 0.1)
    return Trial(number, name, Recipe(point), point, curves, rings)


def given_and(*others, **settings):
    return [trial(0, 0.5, 0, 3, "as given", **settings), *others]


def stand(trials, without=None):
    return standing(trials, DESIGN, np.eye(len(trials)), ONE, without)  # no candidate is a neighbour of another


def test_differences_are_paired_on_the_cells_that_both_have():
    shift = np.array([0.3, -0.2, 0.1, 0.0, 0.4])  # a fold is easy or hard for all alike
    at = stand(given_and(trial(1, 0.53, by_fold=shift), trial(2, 0.49, rings=2, by_fold=shift), by_fold=shift))
    assert at.difference == pytest.approx([0, 0.03, -0.01])
    assert at.error == pytest.approx([0, 0, 0], abs=1e-7)
    assert at.epochs.tolist() == [EPOCHS] * 3


def test_few_epochs_are_as_good_where_scores_are_beyond_single_precision():
    assert soonest(np.array([[-1e30, 0.1, 0.1], [-3e30, 0.2, 0.2]], "float32")) == 3


@pytest.mark.parametrize("rings", [2, 3])
def test_luck_of_the_model_as_given_on_one_ring_lifts_nobody_who_has_that_ring_alone(rings):
    raced = [trial(number, 0.60, rings=rings) for number in range(1, 9)]
    unlucky = given_and(*raced, trial(9, 0.55))
    ring = len(DESIGN.ring(0))
    unlucky[0].curves[:ring] -= 0.1
    at = stand(unlucky)
    assert at.difference[9] > at.difference[1] - 0.01  # paired with the model as given alone it looks as good
    assert at.merit[1:9] == pytest.approx(np.full(8, at.merit[1]))
    assert at.merit[1] > 1.2 * at.merit[9]  # that ring of the model as given is one in ten of what all have there
    assert choose(unlucky, at, DESIGN.candidates_share).best in range(1, 9)


def bias_for_leaders(first, failing, spread=1.0):
    """How much more than they are worth the leaders have over the others, by what is usual and by plain means of cells."""
    random, found = np.random.default_rng(0), []
    for _ in range(300):  # the eight best by their first cells are on three times as many more, easier than those
        worth = spread * random.normal(size=32)
        scores = [w + 0.6 * random.normal(size=first) for w in worth]
        for i in range(failing):
            scores[i] -= 10 * (random.random(first) < 0.4)
        leaders = np.argsort([-own.mean() for own in scores])[:8]
        for i in leaders:
            scores[i] = np.concatenate([scores[i], 2 + worth[i] + 0.6 * random.normal(size=3 * first)])
        later = np.mean([scores[i][first:] for i in leaders], 0)
        usual = np.concatenate([np.mean([own[:first] for own in scores], 0), later])
        others = [i for i in range(failing, 32) if i not in leaders]
        for above in (_above_usual(scores, *np.full((2, 32), True)), [own - usual[: len(own)] for own in scores]):
            error = np.array([own.mean() for own in above]) - worth
            found.append(error[leaders].mean() - error[others].mean())
    return np.reshape(found, (-1, 2)).mean(0)


@pytest.mark.parametrize("first", [2, 10])
@pytest.mark.parametrize("failing", [0, 6])
def test_leaders_lose_nothing_by_being_compared_with_each_other_on_the_later_cells(first, failing):
    ours, plain = bias_for_leaders(first, failing)
    assert abs(ours) < 0.2
    assert plain < -0.5


def test_leaders_win_nothing_where_all_are_worth_the_same():
    ours, _ = bias_for_leaders(10, 0, spread=0.0)
    assert abs(ours) < 0.2


def test_noise_is_the_variance_of_a_merit():
    def variance_and_noise(design, of_row, of_seed, without=None):
        random, found = np.random.default_rng(1), []
        for _ in range(60):
            trials = []
            for number in range(12):
                cells = design.ring(0)
                curves = np.array([random.normal(0, of_seed) + np.zeros((1, len(cell.held), 1)) for cell in cells])
                own = random.normal(0, of_row, size=len(design.folds))
                curves += np.array([own[list(cell.held)] for cell in cells])[:, None, :, None]
                trials.append(Trial(number, "" if number else "as given", Recipe({}), {}, curves, 1))
            views = [design.views(1, without)] * 12
            above = _above_usual(
                [np.array([t.curves[c, 0, s, 0] for c, s, _ in views[0]]) for t in trials], *np.full((2, 12), True)
            )
            folds = np.array([_means(own, [f for *_, f in views[0]], len(design.folds)) for own in above])
            found.append(
                (
                    np.var(np.nanmean(folds, 1), ddof=1),
                    _noise(above, views, folds, [1] * 12, design.candidates_share).mean(),
                )
            )
        return np.mean(found, 0)

    parts = design_of([(np.arange(60), np.arange(60, 100))], 0)
    # the correction for overlap makes it 1 + 5 / 3 times as much where folds share training rows
    for design, of_row, of_seed, without, overlap in [
        (DESIGN, 1.0, 0.0, None, 8 / 3), (DESIGN, 1.0, 0.0, 2, 1.67), (parts, 1.0, 0.0, None, 1), (parts, 0.0, 1.0, None, 1),
    ]:  # fmt: skip
        true, told = variance_and_noise(design, of_row, of_seed, without)
        assert told == pytest.approx(overlap * true, rel=0.25)


def test_where_one_fold_is_seen_the_noise_is_fitted():
    two = design_of(list(KFold(2).split(np.zeros(40))), 0)
    random = np.random.default_rng(2)
    trials = [
        Trial(n, "" if n else "as given", Recipe({}), {"l2": 0.1} if n else {}, random.normal(size=(2, 3, 1, 1)), 1)
        for n in range(20)
    ]
    at = standing(trials, two, np.linspace(0, 1, 20)[:, None], ONE, without=0)
    assert np.isfinite(at.expected).all()
    assert np.std(at.expected[1:]) < 0.7 * np.std(at.merit[1:])  # what is noise alone is not believed


@pytest.mark.parametrize("without", [None, 0])
def test_how_easy_a_ring_is_for_all_changes_nothing(without):
    def some():
        others = (trial(n, 0.5 + 0.01 * n, rings=1 + n % 3, noise=0.02) for n in range(1, 7))
        return given_and(*others, noise=0.02)

    easier = some()
    for one in easier:
        cells = [cell for ring in range(one.rings) for cell in DESIGN.ring(ring)]
        for c, cell in enumerate(cells):
            one.curves[c] += 0.05 * np.sin(c + 3 * np.array(cell.held))[None, :, None]
    before, after = stand(some(), without), stand(easier, without)
    scale = after.merit[1] / before.merit[1]  # the unit is the spread among candidates
    assert after.merit == pytest.approx(before.merit * scale, abs=1e-9)


def test_the_error_is_that_of_nadeau_and_bengio():
    shift = np.array([0.02, 0.05, -0.01, 0.03, 0.01])
    at = stand(given_and(trial(1, 0.5, by_fold=shift)))
    assert at.difference[1] == pytest.approx(shift.mean())
    assert at.error[1] == pytest.approx(np.sqrt((1 / FOLDS + 20 / 60) * shift.var(ddof=1)))


def test_a_fold_that_is_kept_from_the_eye_changes_nothing():
    before = given_and(trial(1, 0.52, noise=0.05), trial(2, 0.51, noise=0.05), noise=0.05)
    seen = stand(before, without=2)
    for one in before:
        cells = [cell for ring in range(one.rings) for cell in DESIGN.ring(ring)]
        for c, cell in enumerate(cells):
            for s, fold in enumerate(cell.held):
                if fold == 2 or 2 not in cell.held:  # its own rows, and models that trained on them
                    one.curves[c, :, s] += RNG.normal(size=one.curves[c, :, s].shape)
    for a, b in zip(seen, stand(before, without=2), strict=True):
        np.testing.assert_array_equal(a, b)


def test_one_lucky_epoch_is_not_the_best():
    curve = np.array([0.1, 0.2, 0.7, 0.2, 0.5, 0.6, 0.62, 0.6, 0.5, 0.4])
    assert best_epoch(curve, of_length=False) == 6
    assert best_epoch(curve, of_length=True) == 9
    assert best_epoch(np.array([0.1, 0.5]), of_length=False) == 1


def test_how_long_is_best_is_what_the_scores_say_together():
    curves = np.full((4, 12, 2, 2), np.nan)
    curves[..., 0] = -np.abs(np.arange(12) - 8.0)[None, :, None]  # best after 9 epochs
    curves[..., 1] = -np.abs(np.arange(12) - 3.0)[None, :, None]
    assert best_on_the_whole(curves) == 6  # of 9 and 4
    assert best_on_the_whole(curves[..., 1:]) == 4
    curves[0] -= 100  # they diverge: the others say it
    curves[0, 9:], curves[1, 9:] = np.nan, -np.inf
    curves[2:, :1] = np.nan  # not defined yet
    assert best_on_the_whole(curves) == 6
    assert best_on_the_whole(np.full_like(curves, np.nan)) == 0


def test_candidates_train_longer_where_the_leaders_are_best_near_the_end_and_not_for_one_of_them():
    late, early = [(0.8 + 0.01 * i, 20) for i in range(8)], [(0.5, 3)] * 30
    assert long_enough(late + early, 20, 150) == 30
    assert long_enough(late + early, 20, 25) == 25
    assert long_enough(late + early, 40, 150) == 40
    assert long_enough([*late[:3], *early], 20, 150) == 20
    assert long_enough([*late[:4], (0.1, 3)], 20, 150) == 30
    assert long_enough([*late[:3], (np.nan, 20)], 20, 150) == 20  # too few to say
    assert long_enough([], 20, 150) == 20


def test_a_curve_that_is_level_is_as_good_as_soon_as_it_is():
    rising, noise = 1 - np.exp(-np.arange(40) / 4), np.random.default_rng(0).normal(size=(5, 40))
    assert soonest(rising + 1e-6 * noise) >= 38  # still rising, by little but surely
    assert 8 <= soonest(np.minimum(rising, 0.9) + 0.01 * noise) <= 16  # where it is level its best may be anywhere
    late = np.where(np.arange(40) < 5, np.nan, rising)  # not defined in its first epochs
    assert soonest(late + 1e-6 * noise) >= 38
    assert soonest(np.minimum(rising, 0.9)[None]) == best_epoch(np.minimum(rising, 0.9), of_length=False) + 1
    assert soonest(np.full((5, 40), np.nan)) == 40


def test_of_candidates_that_score_alike_the_shortest_say_how_long_is_enough():
    assert long_enough([(1.0, best) for best in range(1, 31)], 30, 150) == 30


def test_the_surrogate_is_nearer_to_the_truth_than_what_it_is_given():
    x = RNG.uniform(size=(80, 2))
    truth = np.sin(3 * x[:, 0]) - x[:, 1] ** 2
    noisy = truth + 0.4 * RNG.normal(size=80)
    found = surrogate(x, noisy, np.full(80, 0.4**2))
    assert np.mean((found - truth) ** 2) < 0.25 * np.mean((noisy - truth) ** 2)
    assert np.corrcoef(found, truth)[0, 1] > 0.9


def test_the_surrogate_smooths_less_what_is_known_better():
    x = RNG.uniform(size=(60, 1))
    noisy = np.sin(3 * x[:, 0]) + 0.3 * RNG.normal(size=60)
    alike = np.full(60, 0.3**2)
    once, often = surrogate(x, noisy, alike), surrogate(x, noisy, np.where(np.arange(60) < 5, 0.01, 1) * alike)
    assert np.abs(often - noisy)[:5].mean() < 0.5 * np.abs(once - noisy)[:5].mean()


def test_few_candidates_that_differ_by_more_than_the_noise_are_not_taken_for_noise():
    x = np.random.default_rng(3).uniform(size=(14, 3))  # of one that is much better no neighbour knows
    merit = np.where(np.arange(14) == 5, 4.0, 0.3 * np.sin(7 * x[:, 0]))
    assert surrogate(x, merit, np.full(14, 0.1**2))[5] > 3.0


def test_what_diverged_has_no_place_in_the_surrogate():
    merit = np.where(np.arange(20) == 3, np.nan, np.linspace(0, 1, 20))
    found = surrogate(np.linspace(0, 1, 20)[:, None], merit, np.full(20, 0.1))
    assert np.isnan(found).tolist() == (np.arange(20) == 3).tolist()


def test_the_simplest_of_those_as_good_is_the_answer():
    wobble = 0.05 * np.array([1, -1, 0.5, -0.5, 0])
    trials = given_and(trial(1, 0.600, 2), trial(2, 0.598, 1, by_fold=wobble), trial(3, 0.55, 1), trial(4, 0.599, 3))
    chosen = choose(trials, stand(trials), DESIGN.candidates_share)
    assert chosen.best == 1
    assert chosen.answer == 2
    assert chosen.single == 2
    assert not chosen.tied


def test_to_be_simple_costs_no_more_than_a_quarter_of_the_gain():
    wild = 0.4 * np.array([1, -1, 1, -1, 0])  # so wide an error that nobody is told from it
    others = [trial(number, 0.40) for number in range(4, 9)]
    trials = given_and(
        trial(1, 0.60, 3), trial(2, 0.55, 1, by_fold=wild), trial(3, 0.59, 2, by_fold=0.1 * wild), *others
    )
    at = stand(trials)
    assert at.expected[2] > at.expected[1] - at.error[2] * at.merit[1] / at.difference[1]  # as good by its own error
    assert choose(trials, at, DESIGN.candidates_share).answer == 3


def test_where_none_is_better_the_model_as_given_is_the_answer():
    trials = given_and(trial(1, 0.40), trial(2, 0.45))
    chosen = choose(trials, stand(trials), DESIGN.candidates_share)
    assert (chosen.answer, chosen.plain, chosen.tied) == (0, 0, True)


def test_what_is_within_the_error_of_the_model_as_given_is_tied_with_it():
    trials = given_and(trial(1, 0.51, by_fold=0.1 * np.array([1, -1, 1, -1, 0])))
    assert choose(trials, stand(trials), DESIGN.candidates_share).tied
    trials = given_and(trial(1, 0.60, by_fold=0.1 * np.array([1, -1, 1, -1, 0])))
    assert not choose(trials, stand(trials), DESIGN.candidates_share).tied


def test_what_the_model_brings_is_left_out_where_it_harms():
    wobble = 0.02 * np.array([1, -1, 1, -1, 0])
    plain = trial(1, 0.60, 0, 3, "plain")
    trials = given_and(plain, trial(2, 0.55), trial(3, 0.604, 2, by_fold=wobble))
    chosen = choose(trials, stand(trials), DESIGN.candidates_share)
    assert (chosen.best, chosen.answer, chosen.tied) == (3, 1, False)  # none at all is the simplest of those as good
    trials = given_and(plain, trial(2, 0.55))
    chosen = choose(trials, stand(trials), DESIGN.candidates_share)
    assert (chosen.best, chosen.answer, chosen.tied) == (1, 1, False)


def test_what_is_within_the_error_of_plain_alone_is_not_tied_with_the_model_as_given():
    wobble = 0.2 * np.array([1, -1, 1, -1, 0])
    trials = given_and(trial(1, 0.51, 0, 3, "plain", by_fold=wobble), trial(2, 0.6, 1))
    chosen = choose(trials, stand(trials), DESIGN.candidates_share)
    assert (chosen.answer, chosen.tied) == (2, False)
    trials = given_and(trial(1, 0.45, 0, 3, "plain"), trial(2, 0.48, 1))
    chosen = choose(trials, stand(trials), DESIGN.candidates_share)
    assert (chosen.answer, chosen.tied) == (0, True)


def test_plain_is_no_answer_where_something_is_to_stay():
    plain, fixed = trial(1, 0.6, 0, 3, "plain"), trial(2, 0.599, 0)
    plain.in_space, fixed.recipe = False, Recipe({"label_smoothing": 0.1})
    trials = given_and(plain, fixed)
    assert choose(trials, stand(trials), DESIGN.candidates_share).answer == 2


def test_a_single_technique_has_no_learning_rate_of_its_own():
    trials = given_and(trial(1, 0.6), trial(2, 0.55))
    trials[1].point["learning_rate"] = 0.01
    chosen = choose(trials, stand(trials), DESIGN.candidates_share)
    assert (chosen.answer, chosen.single) == (1, 2)


@pytest.mark.parametrize("epochs", [slice(None), slice(-1, None)], ids=["at once", "in the end"])
def test_a_candidate_that_diverged_is_never_chosen(epochs):
    broken = trial(1, 0.9)
    broken.curves[0, epochs] = np.nan
    trials = given_and(broken, trial(2, 0.55))
    chosen = choose(trials, stand(trials), DESIGN.candidates_share)
    assert chosen.best == chosen.answer == 2


@pytest.mark.parametrize("where", [slice(None), slice(2, 5)], ids=["everywhere", "in some cells"])
@pytest.mark.parametrize("worst", [-1e3, -1e20, -1e38])
def test_a_candidate_that_all_but_diverged_changes_nothing_for_the_others(worst, where):
    """An R² of -1e20 is finite: its square is not, in single precision, and beside it nothing else is seen in double."""

    def some(level):
        trials = given_and(*(trial(i, 0.5 + 0.05 * i, noise=0.02) for i in range(1, 7)))
        trials[6].curves[where] = level
        at = stand(trials)
        return at, choose(trials, at, DESIGN.candidates_share)

    (beside, chosen), (expected, usual) = some(worst), some(-1e3)
    np.testing.assert_allclose(beside.merit[:6], expected.merit[:6], atol=1e-9)
    np.testing.assert_allclose(beside.expected[:6], expected.expected[:6], atol=1e-9)
    assert chosen == usual
    assert chosen.best == chosen.answer == 5
    assert beside.expected[6] == beside.merit[6] < -5


def test_where_all_diverge_the_error_says_so():
    trials = given_and(trial(1, 0.5))
    for one in trials:
        one.curves[:] = np.nan
        one.diverged = len(one.curves)
    with pytest.raises(ValueError, match="Every candidate diverged"):
        choose(trials, stand(trials), DESIGN.candidates_share)


def test_where_all_are_finite_and_the_score_is_none_the_error_says_so():
    trials = given_and(trial(1, 0.5))
    for one in trials:
        one.curves[:] = np.nan
    with pytest.raises(ValueError, match="score is not a number on the held-out rows"):
        choose(trials, stand(trials), DESIGN.candidates_share)


def test_only_what_is_clearly_worse_loses_its_next_folds():
    trials = given_and(trial(1, 0.60), trial(2, 0.595, by_fold=0.02 * np.array([1, -1, 1, -1, 0])), trial(3, 0.4))
    assert ruled_out(trials, stand(trials), [0, 1, 2, 3], DESIGN.candidates_share) == [0, 3]


@pytest.mark.parametrize("seed", range(20))
def test_helps_is_the_one_sided_t_test_where_folds_share_no_rows(seed):
    values = np.random.default_rng(seed).normal(0.8, 1, 6)
    expected = stats.ttest_1samp(values, 0, alternative="greater").pvalue < 0.05
    assert helps(values, 0.0) == expected
    found = estimate(values, 0.0)
    low, high = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert found.interval(0.95) == pytest.approx((low, high))


def test_helps_is_said_of_nothing_at_most_as_often_as_its_level():
    """Folds whose differences share part of their noise, as much as the correction supposes: 5 % of 4000, give or take."""
    random = np.random.default_rng(1)
    share = 0.25
    shared = share / (1 / FOLDS + share)  # the variance of the mean is then (1 / folds + share) times that of a fold
    own = random.normal(size=(4000, FOLDS))
    common = random.normal(size=(4000, 1)) * np.sqrt(share)
    said = np.mean([helps(row, share) for row in own + common])
    assert 0 < shared < 1
    assert said == pytest.approx(0.05, abs=4 * np.sqrt(0.05 * 0.95 / 4000))


def test_no_difference_at_all_does_not_help():
    assert not helps(np.zeros(5), 0.25)
    assert not helps(np.full(5, -0.1), 0.25)


def test_luck_of_seeds_that_all_parts_share_is_not_called_help():
    """Two procedures alike, scored on five parts of the same rows by networks that are lucky or not: 5 % of 2000, at most."""
    random = np.random.default_rng(2)
    lucky = random.normal(0, 1.0, (2000, 1, 10)) - random.normal(0, 1.0, (2000, 1, 10))
    values = lucky + random.normal(0, 0.8, (2000, 5, 10))
    assert np.mean([helps(each, 0.0) for each in values]) < 0.05 + 3 * np.sqrt(0.05 * 0.95 / 2000)
    assert np.mean([helps(each.mean(1), 0.0) for each in values]) > 0.2  # what the parts alone would say


def test_an_estimate_of_seeds_that_are_all_alike_is_that_of_the_folds():
    of_folds = np.random.default_rng(3).normal(size=5)
    for share in (0.0, 0.25):
        alone, several = estimate(of_folds, share), estimate(np.repeat(of_folds[:, None], 3, 1), share)
        assert several == pytest.approx(alone)


def test_networks_without_a_score_are_left_out_of_an_estimate():
    values = np.random.default_rng(4).normal(size=(5, 3))
    values[1, 2] = np.nan
    expected = [row[np.isfinite(row)].mean() for row in values]
    assert estimate(values, 0.25) == pytest.approx(estimate(np.array(expected), 0.25))
    values[1] = np.nan  # a fold that none has a score on
    assert estimate(values, 0.25) == pytest.approx(estimate(values[[0, 2, 3, 4]], 0.25))
    assert np.isnan(estimate(np.full((5, 3), np.nan), 0.25).mean)
    assert not helps(np.full((5, 3), np.nan), 0.25)


def test_what_stays_in_a_space_may_be_the_answer_alone():
    fixed = trial(1, 0.6, 0)
    fixed.recipe = Recipe({"label_smoothing": 0.1})
    trials = given_and(fixed, trial(2, 0.55, 1))
    assert choose(trials, stand(trials), DESIGN.candidates_share).answer == 1
    fixed.recipe = trials[0].recipe  # the model as given once more
    assert choose(trials, stand(trials), DESIGN.candidates_share).answer != 1
