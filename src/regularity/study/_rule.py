"""The rule by which a search chooses: evidence from paired folds, shared among neighbours in strength, ties to the simplest.

All the statistics of a search stand here; nothing trains.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from regularity.recipe import Recipe
from regularity.study._cells import Design
from regularity.study._choosing import paired_error
from regularity.study._warnings import ignoring

_WEIGHTS = (0.5, 0.5)  # of the user's score and of the log loss, see docs/choosing.md
_SMOOTHED = 5  # epochs over which a curve is averaged before its best epoch is taken
_LEADING = (4, 8)  # how many leaders say how long is long enough: a quarter, from the one to the other
_AS_LONG = 1.5  # times what is best for their median
_KEPT = 0.75  # share of the best one's gain that a simpler one has at least
_WORST = 100.0  # spreads, or usual distances, below what is usual: scores beyond are alike, and may be -1e20 before a network diverges
_LEAST_NOISE = 1e-3  # of the variance of merits, for a process that can be computed
_FITTED = 150  # candidates from which the surrogate learns how far each strength reaches


@dataclass
class Trial:
    """One candidate.

    Args:
        number: From 0; 0 is the model as given.
        name: `as given`, `plain`, or empty.
        recipe: What is applied, without epochs.
        point: Strengths that are on, by key of the space.
        curves: Scores of its members after each epoch, of (cells, epochs, sets, scores).
        rings: How many rings of cells have been trained.
        in_space: Whether its point says all of it, so that it has neighbours.
        of_length: Whether it depends on how long training is, so that it can't be cut short.
        diverged: Members whose weights or loss ceased to be finite.
        pruned: Whether it was stopped before all its epochs; its curves are NaN from there on.
        seconds: Since the study began, when it was finished.
        parameters: As Optuna has them.
        distributions: Likewise.
    """

    number: int
    name: str
    recipe: Recipe
    point: dict[str, Any]
    curves: np.ndarray = field(default_factory=lambda: np.zeros(0))
    rings: int = 0
    in_space: bool = True
    of_length: bool = False
    diverged: int = 0
    pruned: bool = False
    seconds: float = 0.0
    parameters: dict[str, Any] = field(default_factory=dict)
    distributions: dict[str, Any] = field(default_factory=dict)

    @property
    def techniques(self) -> int:
        """How many are on beside what the model brings."""
        return sum(1 for key in self.point if not key.endswith(" schedule") and key != "learning_rate")


class Standing(NamedTuple):
    """How the candidates of a study stand, by what may be looked at. Arrays have an entry for each trial.

    Args:
        epochs: How many each trains, from 1.
        score: Mean over folds at that epoch, of (trials, scores).
        merit: What is chosen by: how much more than the model as given, each less what is usual on its cells, in units of
            its spread among candidates.
        expected: The same as the surrogate has it, from all candidates.
        by_fold: The merit on each fold, less what is usual there, of (trials, folds); NaN on one that may not be looked at.
        difference: Mean paired difference to the model as given in the user's score.
        error: Its standard error.
    """

    epochs: np.ndarray
    score: np.ndarray
    merit: np.ndarray
    expected: np.ndarray
    by_fold: np.ndarray
    difference: np.ndarray
    error: np.ndarray


def weights_of(scores: int) -> np.ndarray:
    """What each of one or two scores counts in the merit."""
    return np.array(_WEIGHTS if scores == 2 else (1.0,))


def standing(
    trials: Sequence[Trial], design: Design, encoded: np.ndarray, weights: np.ndarray, without: int | None = None
) -> Standing:
    """How candidates stand when one fold, or none, is kept from the eye.

    Args:
        trials: The candidates; the first is the model as given, and has as many rings as any.
        design: Their cells.
        encoded: Points of (trials, columns), from 0 to 1.
        weights: What each score counts in the merit.
        without: The fold not to be looked at.
    """
    curves = [_by_fold(trial, trial.rings, design, without) for trial in trials]  # (folds, epochs, scores)
    # one that diverges in the end is none for its first epochs
    whole = np.array([t.pruned or np.isfinite(_mean(c)[-1]).all() for t, c in zip(trials, curves, strict=True)])
    spread = _spread(np.array([_best(_mean(c)) for c, ok in zip(curves, whole, strict=True) if ok or not whole.any()]))
    epochs = np.array(
        [best_epoch(_mean(c) @ (weights / spread), t.of_length) for c, t in zip(curves, trials, strict=True)]
    )
    score = np.array([_mean(c)[e] for c, e in zip(curves, epochs, strict=True)])
    known = np.array([np.isfinite(s).all() for s in score])
    views = [design.views(trial.rings, without) for trial in trials]
    scores = [
        np.array([trial.curves[cell, epoch, which] @ (weights / spread) for cell, which, _ in view])
        for trial, epoch, view in zip(trials, epochs, views, strict=True)
    ]
    floor = _worst_of(scores, known & whole)
    above_floor = np.array([own.min() > floor for own in scores])
    named = np.array([bool(trial.name) for trial in trials])
    finite = known & (whole | (named & above_floor))  # the model as given is cut short before it is given up
    sound = finite & (above_floor | named)
    base = int(finite.argmax())  # where the model as given diverges, another has to be what all are measured against
    above = _above_usual([np.maximum(own, floor) for own in scores], finite, sound)
    by_fold = np.array(
        [_means(own, [f for *_, f in view], len(design.folds)) for own, view in zip(above, views, strict=True)]
    )
    by_fold -= _mean(by_fold[base])
    merit = _mean(by_fold.T)
    noise = _noise(
        above, views, by_fold, [min(trial.rings, len(design.rings)) for trial in trials], design.candidates_share
    )
    paired = np.array(
        [_paired(t, e, trials[base], epochs[base], design, without) for t, e in zip(trials, epochs, strict=True)]
    )
    error = np.array([_error(d[:, 0], design.candidates_share) for d in paired])
    # neighbours say nothing for one that all but diverged, nor that for them
    points = sound & [trial.in_space for trial in trials]
    expected = np.where(points, surrogate(encoded, np.where(points, merit, np.nan), noise), merit)
    expected[base] = 0.0 if np.isfinite(merit[base]) else np.nan  # no surrogate needed
    return Standing(epochs + 1, score, merit, expected, by_fold, _mean(np.moveaxis(paired[..., 0], 1, 0)), error)


def _by_fold(trial: Trial, rings: int, design: Design, without: int | None) -> np.ndarray:
    """A trial's mean curve on each fold, of (folds, epochs, scores); NaN on a fold that may not be looked at."""
    found = np.full((len(design.folds), trial.curves.shape[1], trial.curves.shape[3]), np.nan)
    of_fold: dict[int, list[np.ndarray]] = {}
    for cell, which, fold in design.views(rings, without):
        of_fold.setdefault(fold, []).append(trial.curves[cell, :, which])
    for fold, curves in of_fold.items():
        found[fold] = np.mean(curves, 0)  # NaN where one member diverged
    seen = list(of_fold)
    found[np.ix_(seen)] = np.where(np.isnan(found[seen]).any(0), np.nan, found[seen])
    return found


def _worst_of(scores: Sequence[np.ndarray], finite: np.ndarray) -> float:
    """The score below which a network all but diverged, by what candidates score on the cells that all have."""
    first = min(map(len, scores))
    known = np.array([own[:first] for own, ok in zip(scores, finite, strict=True) if ok])
    if not known.size:
        return -np.inf
    usual = np.median(known, 0)
    return float(usual.min() - _WORST * max(1.0, float(np.median(np.abs(known - usual)))))


def _above_usual(scores: Sequence[np.ndarray], finite: np.ndarray, sound: np.ndarray) -> list[np.ndarray]:
    """Each candidate's scores less what a usual one has on the same cells; NaN for those that diverged.

    Candidates with fewer rings have the first of the cells. The later ones only leaders have, who were picked by the
    first, so how much easier a cell is for all is told apart from how good those are who were there: cells are fixed
    effects, candidates random ones.

    Args:
        scores: Of each candidate, of (cells,), the first of which are the same.
        finite: Which candidates did not diverge.
        sound: Which of those say what is usual.

    Henderson, "Best linear unbiased estimation and prediction under a selection model", 1975.
    """
    known = [own for own, ok in zip(scores, sound, strict=True) if ok]
    first, most = min(map(len, scores)), max(map(len, scores))
    usual = known[0] if len(known) == 1 else np.zeros(most)
    if len(known) > 1:
        values, there = np.zeros((2, len(known), most))
        for i, own in enumerate(known):
            values[i, : len(own)], there[i, : len(own)] = own, 1
        # variances within candidates and between them, whatever a few that failed, on some cells or all, have
        common = values[:, :first] - np.median(values[:, :first], 0)
        levels = common.mean(1)
        squares = ((common - levels[:, None]) ** 2).sum(1)
        within = (
            float(np.median(squares)) / _usual_square(first - 1) * len(known) / (len(known) - 1) if first > 1 else 0.0
        )
        low, high = np.quantile(levels, [0.25, 0.75])
        between = max(((high - low) / 1.349) ** 2 - within / first, 0.0)
        # Henderson's equations, candidates eliminated
        kept = 1 / (there.sum(1) + (within / between if between > 0 else np.inf))
        left = np.diag(there.sum(0)) - there.T @ (there * kept[:, None])
        usual = np.linalg.lstsq(left, values.sum(0) - there.T @ (kept * values.sum(1)), rcond=None)[0]
    return [
        own - usual[: len(own)] if ok else np.full(len(own), np.nan) for own, ok in zip(scores, finite, strict=True)
    ]


@cache
def _usual_square(freedom: int) -> float:
    """The median of the sum of so many squares of standard normal numbers, which is less than its mean."""
    from scipy.stats import chi2

    return float(chi2.median(freedom))


def _means(values: np.ndarray, groups: Sequence[int], count: int) -> np.ndarray:
    """The mean of the values of each group, of (count,); NaN for a group without any."""
    totals, counts = np.bincount(groups, values, count), np.bincount(groups, minlength=count)
    return np.where(counts > 0, totals / np.maximum(counts, 1), np.nan)


def _paired(trial: Trial, epoch: int, base: Trial, at: int, design: Design, without: int | None) -> np.ndarray:
    """A trial's scores less those of another on the same cells, of (folds, scores)."""
    rings = min(trial.rings, base.rings)
    return _by_fold(trial, rings, design, without)[:, epoch] - _by_fold(base, rings, design, without)[:, at]


def _mean(by_fold: np.ndarray) -> np.ndarray:
    """Mean over the folds that may be looked at; NaN where there is none."""
    return _mean_of_known(by_fold, 0)


def _noise(
    above: Sequence[np.ndarray],
    views: Sequence[Sequence[tuple[int, int, int]]],
    by_fold: np.ndarray,
    rings: Sequence[int],
    share: float,
) -> np.ndarray:
    """Variance of each merit about what it is worth, of (trials,): half its own, half that of most; NaN where one fold is seen.

    By the folds, whose rows, seeds and training rows differ. Where all train on the same rows (a share of 0) seeds are no
    folds' own, and come besides.

    Args:
        above: Scores of each trial less what is usual.
        views: Cell, set and fold of each of these.
        by_fold: Merits on each fold.
        rings: Different ones that each trial has: the more, the less noise.
        share: Held-out rows over training rows.
    """
    own, typical = np.full((2, len(above)), np.nan)
    seen = ~np.isnan(by_fold).all(0)
    centred = by_fold[:, seen] - np.nanmedian(by_fold[:, seen], 0)  # what is usual, whatever a few that failed have
    for i, (values, view, merits) in enumerate(zip(above, views, centred, strict=True)):
        of_folds = merits[np.isfinite(merits)]
        if len(of_folds) < 2:
            continue
        own[i] = float(paired_error(of_folds, share)) ** 2 * rings[i]
        cells = [cell for cell, *_ in view]
        if share == 0 and max(cells) > 0:
            of_cells = _means(values, cells, max(cells) + 1)
            own[i] += of_cells.var(ddof=1) / len(of_cells) * rings[i]
        freedom = len(of_folds) - 1
        typical[i] = own[i] * freedom / _usual_square(freedom)
    usual = np.nanmedian(typical) if np.isfinite(typical).any() else np.nan
    return (np.where(np.isfinite(own), own, usual) + usual) / 2 / np.array(rings)


def _error(differences: np.ndarray, share: float) -> float:
    return float(paired_error(differences[np.isfinite(differences)], share))


def _best(curve: np.ndarray) -> np.ndarray:
    """The best of each score, of (epochs, scores)."""
    return np.fmax.reduce(curve, 0)


def _spread(scores: np.ndarray) -> np.ndarray:
    """The spread of each score among candidates, of (candidates, scores), whatever a few that failed have."""
    finite = scores[np.isfinite(scores).all(1)]
    if len(finite) < 2:
        return np.ones(scores.shape[1])
    low, high = np.quantile(finite, [0.25, 0.75], axis=0)
    spread = np.where(high > low, high - low, np.ptp(finite, axis=0))
    return np.where(spread > 0, spread, 1.0)


def value_of(trial: Trial, ring: int) -> float:
    """What Optuna is told: the mean score, over the first ring's cells, at the epoch at which it is best."""
    curve = trial.curves[:ring, ..., 0].mean((0, 2))
    if trial.of_length:
        return float(curve[-1])
    # some scores are not defined after the first epochs; a member that has diverged has none to the end
    known = curve[np.isfinite(curve)] if trial.pruned or np.isfinite(curve[-1]) else curve
    return float(known.max()) if len(known) else math.nan


def reported(trial: Trial, ring: int) -> dict[int, float]:
    """The mean score over the first ring's cells after each epoch, from 1, at which all its members have one."""
    curve = trial.curves[:ring, ..., 0].mean((0, 2))
    return {epoch: float(value) for epoch, value in enumerate(curve, 1) if np.isfinite(value)}


def best_epoch(curve: np.ndarray, of_length: bool) -> int:
    """The epoch, from 0, at which a mean curve is best, averaged with its neighbours: one peak is mostly luck."""
    if of_length:
        return len(curve) - 1
    return int(_smoothed(curve).argmax())


def _smoothed(curves: np.ndarray) -> np.ndarray:
    """Curves of (..., epochs), each epoch averaged with its neighbours; less than any other where one of them is not known."""
    known = np.where(np.isnan(curves), -np.inf, curves)
    half = min(_SMOOTHED // 2, (known.shape[-1] - 1) // 2)
    padded = np.pad(known, [(0, 0)] * (known.ndim - 1) + [(half, half)], mode="edge")
    return np.lib.stride_tricks.sliding_window_view(padded, 2 * half + 1, axis=-1).mean(-1)


def soonest(curves: np.ndarray) -> int:
    """The fewest epochs that are as good as the best on the mean, for members of (members, epochs).

    Those within two paired standard errors of it: a curve that is level may be best anywhere.
    """
    smooth = _smoothed(curves)
    known = np.flatnonzero(np.isfinite(smooth).all(0))  # some scores are not defined after the first epochs
    if not len(known):
        return curves.shape[1]
    smooth = smooth[:, known].astype("float64")  # an R² may be beyond what has a square in single precision
    behind = smooth[:, [smooth.mean(0).argmax()]] - smooth
    error = np.nan_to_num(paired_error(behind.T, 0.0))
    return int(known[behind.mean(0) <= 2 * error][0]) + 1


def best_on_the_whole(curves: np.ndarray) -> int:
    """How many epochs are best on the mean for members of (members, epochs, sets, scores), as all scores have it together.

    The geometric mean of what each asks for: one that counts classes may be level, and best anywhere, where the loss beside it
    has long been rising. By the members that have not diverged; 0 where all have.
    """
    finite = curves[np.isfinite(curves[:, -1]).all((1, 2))]
    if not len(finite):
        return 0
    # some scores are not defined after the first epochs
    mean = _mean_of_known(np.where(np.isfinite(finite), finite, np.nan), (0, 2))
    best = [best_epoch(curve, of_length=False) + 1 for curve in mean.T]
    return round(math.prod(best) ** (1 / len(best)))


def long_enough(told: Sequence[tuple[float, int]], at_first: int, most: int) -> int:
    """How long to train, in epochs: as at first, but more where the leaders are best near the end.

    Args:
        told: The score of each candidate, and how many epochs are as good as the best for it.
        at_first: How long the first candidates train.
        most: How long any may.
    """
    ranked = sorted((-score, best) for score, best in told if np.isfinite(score))  # of ties the shortest
    if len(ranked) < _LEADING[0]:
        return at_first
    leaders = ranked[: min(max(len(ranked) // 4, _LEADING[0]), _LEADING[1])]
    return min(most, max(at_first, int(np.ceil(_AS_LONG * np.median([best for _, best in leaders])))))


def judged_by_others(curves: np.ndarray, of_length: bool = False) -> np.ndarray:
    """The score on each fold at the epoch that is best on the other folds, of (folds,), from curves of (folds, epochs)."""
    others = [np.delete(curves, fold, 0).mean(0) for fold in range(len(curves))]
    return np.array([curve[best_epoch(mean, of_length)] for curve, mean in zip(curves, others, strict=True)])


def surrogate(encoded: np.ndarray, merit: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """The mean of a Gaussian process over the strengths, at each candidate: what neighbours have is shared.

    Args:
        encoded: Points of (trials, columns), from 0 to 1.
        merit: Of (trials,); NaN where a member diverged.
        noise: Variance of each merit about what it is worth: the less, the less it is smoothed. NaN to have one fitted.

    Rasmussen and Williams, "Gaussian Processes for Machine Learning", 2006, section 2.2.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

    known = np.flatnonzero(np.isfinite(merit))
    expected = np.full(len(merit), np.nan)
    if len(known) < 4 or np.ptp(merit[known]) == 0:
        expected[known] = merit[known]
        return expected
    x, y = encoded[known], merit[known]
    centre, scale = np.median(y), max(float(np.std(y)), 1e-12)
    y = np.clip((y - centre) / scale, -3, 3)  # a recipe that ruins the network says little about the others
    kernel = ConstantKernel(1.0, (1e-2, 1e2)) * Matern(np.full(x.shape[1], 1.0), (0.1, 30.0), nu=2.5)
    # fitted, it takes a few candidates that differ much for noise: what the folds say of it is better
    if np.isnan(noise[known]).any():
        kernel += WhiteKernel(0.3, (1e-3, 10.0))
    alpha = np.maximum(np.nan_to_num(noise[known]) / scale**2, _LEAST_NOISE)
    some = np.random.default_rng(0).permutation(len(known))[:_FITTED]
    with ignoring({"category": ConvergenceWarning}):
        process = GaussianProcessRegressor(kernel, alpha=alpha[some], random_state=0).fit(x[some], y[some])
    if len(some) < len(known):
        process = GaussianProcessRegressor(process.kernel_, alpha=alpha, optimizer=None).fit(x, y)
    expected[known] = process.predict(x) * scale + centre
    return expected


class Choice(NamedTuple):
    """What the rule chooses, by index.

    Args:
        best: The best by the surrogate.
        answer: Among those within an error and a quarter of the gain of the best the one with the fewest techniques, which
            may be plain; the model as given where none is better.
        single: The best with one technique alone, at the learning rate of all.
        plain: The model without any.
        tied: Whether the model as given is as good as the best.
    """

    best: int
    answer: int
    single: int
    plain: int
    tied: bool


def choose(trials: Sequence[Trial], at: Standing, share: float) -> Choice:
    """Choose among candidates as they stand.

    Raises:
        ValueError: If every candidate diverged, or the score is not a number on any fold.
    """
    if np.isnan(at.expected).all() and not any(trial.diverged for trial in trials):
        raise ValueError(
            "The score is not a number on the held-out rows of any candidate: it can't take what the model puts out. Take "
            "another with `score`."
        )
    if np.isnan(at.expected).all():
        raise ValueError(
            "Every candidate diverged: weights or loss ceased to be finite. Lower the learning rate or scale the inputs."
        )
    named = {trial.name: i for i, trial in enumerate(trials) if trial.name}
    given, plain = named["as given"], named.get("plain", named["as given"])
    # a sampler may draw nothing at all: unless something stays in the space, that is one of those with a name once more
    same = [trials[i].recipe for i in named.values()]
    again = [i for i, trial in enumerate(trials) if not trial.point and not trial.name and trial.recipe in same]
    others = [i for i, trial in enumerate(trials) if i != given and i not in again and trial.in_space]
    finite = np.flatnonzero(np.isfinite(at.expected)).tolist()
    best = max([i for i in finite if i in (given, *others)] or finite, key=lambda i: at.expected[i])
    error = np.array([_error(own - at.by_fold[best], share) for own in at.by_fold])
    as_good = at.expected >= at.expected[best] - np.nan_to_num(error)
    floor = at.expected[given] if np.isfinite(at.expected[given]) else -np.inf
    # the more its scores vary, the wider is a candidate's error: to be simple must not cost what there is to gain
    enough = floor + _KEPT * (at.expected[best] - floor) if np.isfinite(floor) else -np.inf
    better = [i for i in others if as_good[i] and at.expected[i] >= enough and at.expected[i] > floor]
    answer = min(
        better,
        key=lambda i: (trials[i].techniques, -at.expected[i]),
        default=best if np.isnan(at.expected[given]) else given,
    )
    alone = [i for i, trial in enumerate(trials) if trial.techniques == 1 and "learning_rate" not in trial.point]
    single = max((i for i in alone if np.isfinite(at.expected[i])), key=lambda i: at.expected[i], default=given)
    return Choice(best, answer, single, plain, bool(as_good[given]))


def ruled_out(trials: Sequence[Trial], at: Standing, among: Sequence[int], share: float) -> list[int]:
    """Those that are worse than the leader by more than two paired standard errors."""
    leader = max(among, key=lambda i: at.expected[i])
    gone = []
    for i in among:
        difference = at.by_fold[leader] - at.by_fold[i]
        error = _error(difference, share)
        if np.nanmean(difference) > 2 * error and at.expected[leader] - at.expected[i] > 2 * error:
            gone.append(i)
    return gone


class Estimate(NamedTuple):
    """A mean with its standard error, and the degrees of freedom of that."""

    mean: float
    error: float
    freedom: float

    def interval(self, level: float) -> tuple[float, float]:
        """The ends of its interval at a level: Student's t."""
        from scipy.stats import t

        reach = float(t.ppf(0.5 + level / 2, self.freedom)) * self.error
        return self.mean - reach, self.mean + reach


def estimate(values: np.ndarray, share: float) -> Estimate:
    """The mean of what networks score, each on one fold.

    Folds that share training rows have the paired error's correction, over means of their seeds. Where all train on the same
    rows (a share of 0), how lucky seeds are is the same on all folds: the variances over folds and over seeds are added, as
    for crossed random effects (Owen, "The pigeonhole bootstrap", 2007), which counts what they have in common twice and so is
    rather too wide; degrees of freedom after Satterthwaite, "An approximate distribution of estimates of variance
    components", 1946.

    Args:
        values: Of (folds,) or (folds, seeds); NaN where a network diverged, which is left out, as is a fold without any.
        share: Held-out rows over training rows.
    """
    values = values.reshape(len(values), -1)
    if share or values.shape[1] == 1:
        of_folds = _mean_of_known(values, 1)
        of_folds = of_folds[np.isfinite(of_folds)]
        if not len(of_folds):
            return Estimate(np.nan, np.nan, np.nan)
        return Estimate(float(np.mean(of_folds)), float(paired_error(of_folds, share)), len(of_folds) - 1)
    values = values[:, np.isfinite(values).all(0)]
    if not values.size:
        return Estimate(np.nan, np.nan, np.nan)
    variances = [(values.mean(axis).var(ddof=1) / n, n - 1) for axis, n in enumerate(values.shape[::-1]) if n > 1]
    total = float(sum(variance for variance, _ in variances))
    freedom = total**2 / sum(v**2 / f for v, f in variances) if total else np.inf
    return Estimate(float(values.mean()), float(np.sqrt(total)), freedom)


def _mean_of_known(values: np.ndarray, axis: int | tuple[int, ...]) -> np.ndarray:
    """The mean of what is a number; NaN where nothing is, of which NumPy's own would warn."""
    known = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        return np.where(known, values, 0.0).sum(axis) / known.sum(axis)


def helps(differences: np.ndarray, share: float, level: float = 0.95) -> bool:
    """Whether paired differences are above 0, one-sided, at a level: Student's t with the error of `estimate`.

    Args:
        differences: Score of what was chosen minus that of the model as given, on each fold that the choice never saw: of
            (folds,) or (folds, seeds).
        share: Held-out rows over training rows.
        level: Share of times in which nothing that helps is called so.

    Nadeau and Bengio, "Inference for the generalization error", 2003.
    """
    found = estimate(differences, share)
    low, _ = found.interval(2 * level - 1)
    return bool(low > 0)
