"""Which rule chooses best: candidates are chosen by scores on folds, then judged on rows that no rule has seen.

    python -m benchmarks.rules --data credit-g vehicle --splits 10     train the banks that are missing, then judge
    python -m benchmarks.rules --judge                                 judge by the banks that are there

A rule sees the scores of a bank's candidates (see benchmarks/bank.py) on folds and says which candidate, and which of its
epochs. It is judged by what refits of that candidate score at that epoch on the test rows, less what refits of plain
score at the epoch that the same rule gives plain.
"""

import argparse
import json
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from benchmarks import bank as banks
from benchmarks import datasets
from benchmarks.bank import FOLDS, PAIRS, RING, SCORES, Bank

ACCURACY, BALANCED, LOG_LOSS, _ = np.eye(len(SCORES))
_SMOOTHED = 5  # epochs
_RACED = 8
_DRAWN = 2 / 3  # of the candidates
_HALVES = 10  # random halves of the test rows for the oracle
REFERENCE = "best: balanced accuracy, 5 folds"
_TEST_SHARE = 0.25  # test rows over outer training rows, for splits that overlap

View = Literal["split", "folds", "ring", "rings"]
# The Gaussian process of `rg.search`, with the noise of most candidates; one whose noise is fitted; one that besides can't
# bend so sharply; and others.
Surrogate = Literal["process", "fitted noise", "stiff", "forest", "additive"]


@dataclass(frozen=True)
class Rule:
    """How to choose.

    Args:
        view: What it sees: one validation split, five folds, one ring of pairs of folds, or both rings.
        weights: What each score counts, each in units of its spread among candidates.
        smooth: Whether curves are averaged over some epochs before the best one is taken.
        surrogate: What shares evidence among neighbours in strength, or None for each candidate's own scores.
        race: Whether the leaders on one ring alone get the other one.
        own: How much of a candidate's own scores stands beside what the surrogate has.
        top: How many of the best, whose fold models' probabilities are averaged; 0 for refits of the best alone.
        ties: Whether whatever is as good as the best by the paired error gives way to the fewest techniques, however much
            of the gain that costs.
        last: Whether all train to the last epoch.
    """

    view: View
    weights: np.ndarray
    smooth: bool = False
    surrogate: Surrogate | None = None
    race: bool = False
    own: float = 0.0
    top: int = 0
    ties: bool = False
    last: bool = False


class Chosen(NamedTuple):
    """What a rule chooses.

    Args:
        picks: Candidates with their epochs, from 0.
        five: The five best likewise.
        plain: The epoch that it gives plain.
        said: The mean scores of the first pick on the folds.
        said_plain: Those of plain.
    """

    picks: list[tuple[int, int]]
    five: list[tuple[int, int]]
    plain: int
    said: np.ndarray
    said_plain: np.ndarray


class Judged(NamedTuple):
    """How a rule did on one split, in each score.

    Args:
        tested: On the test rows, by refits, or by fold models averaged where the rule says so.
        gain: The same less that of refits of plain, at the epoch that the rule gives plain.
        steady: The gain by all models of a candidate that saw no test row, each alone: less noise, but fold models that
            were lucky are what a rule that sees five folds may have chosen them for.
        five: What refits of its five best score on the test rows, on average: less noise than one choice has.
        said: What the folds say it gains.
        optimism: What the folds say of the chosen one less what the test rows say.
    """

    tested: np.ndarray
    gain: np.ndarray
    steady: np.ndarray
    five: np.ndarray
    said: np.ndarray
    optimism: np.ndarray


def mixed(
    accuracy: float = 0.0, balanced: float = 0.0, log_loss: float = 0.0, balanced_log_loss: float = 0.0
) -> np.ndarray:
    return np.array([accuracy, balanced, log_loss, balanced_log_loss])


_PLAIN_SCORES = {"accuracy": ACCURACY, "balanced accuracy": BALANCED, "log loss": LOG_LOSS}
_HALF, _HALF_BALANCED = "bal. 0.5 + log loss 0.5", "bal. 0.5 + balanced log loss 0.5"
_MIXTURES = {
    "bal. 0.7 + log loss 0.3": mixed(balanced=0.7, log_loss=0.3),
    _HALF: mixed(balanced=0.5, log_loss=0.5),
    _HALF_BALANCED: mixed(balanced=0.5, balanced_log_loss=0.5),
    "bal. 0.3 + log loss 0.7": mixed(balanced=0.3, log_loss=0.7),
    "acc. 0.5 + log loss 0.5": mixed(accuracy=0.5, log_loss=0.5),
    "acc. 0.5 + bal. 0.5": mixed(accuracy=0.5, balanced=0.5),
    "a third of each": mixed(1 / 3, 1 / 3, 1 / 3),
}
_VIEWS: dict[View, str] = {"split": "one split", "folds": "5 folds", "ring": "ring 1", "rings": "both rings"}


def rules() -> dict[str, Rule]:
    """All rules by name."""
    found: dict[str, Rule] = {}
    for view, seen in _VIEWS.items():
        for name, weights in _PLAIN_SCORES.items():
            found[f"best: {name}, {seen}"] = Rule(view, weights)
    for view in ("split", "folds", "ring", "rings"):
        for name, weights in {**_PLAIN_SCORES, **_MIXTURES}.items():
            found[f"smooth: {name}, {_VIEWS[view]}"] = Rule(view, weights, smooth=True)
    for view in ("folds", "ring", "rings"):
        for name, weights in {**_PLAIN_SCORES, **_MIXTURES}.items():
            found[f"GP: {name}, {_VIEWS[view]}"] = Rule(view, weights, smooth=True, surrogate="process")
    for name in ("balanced accuracy", "log loss", _HALF, _HALF_BALANCED):
        weights = {**_PLAIN_SCORES, **_MIXTURES}[name]
        process = Rule("rings", weights, smooth=True, surrogate="process")
        for kind in ("forest", "additive", "stiff", "fitted noise"):
            found[f"{kind}: {name}, both rings"] = replace(process, surrogate=kind)
            found[f"{kind}: {name}, 5 folds"] = replace(process, surrogate=kind, view="folds")
        found[f"GP and own: {name}, both rings"] = replace(process, own=0.5)
        found[f"GP, race: {name}"] = replace(process, race=True)
        found[f"GP, race and own: {name}"] = replace(process, race=True, own=0.5)
        found[f"GP, ties: {name}, both rings"] = replace(process, ties=True)
        found[f"GP, ties: {name}, 5 folds"] = replace(process, ties=True, view="folds")
        found[f"GP, last epoch: {name}, both rings"] = replace(process, last=True)
    halves = {name: _MIXTURES[name] for name in (_HALF, _HALF_BALANCED)}
    for name, weights in {**_PLAIN_SCORES, **halves}.items():
        found[f"ensemble of best: {name}, 5 folds"] = Rule("folds", weights, top=1)
    for view in ("folds", "rings"):
        for name, weights in {"balanced accuracy": BALANCED, **halves}.items():
            for top in (1, 3, 10):
                process = Rule(view, weights, smooth=True, surrogate="process", top=top)
                found[f"ensemble of {top} by GP: {name}, {_VIEWS[view]}"] = process
    return found


# -- what a rule sees --------------------------------------------------------------------------------------------------


class Seen:
    """A bank as rules see it, and the test rows as they don't; what several rules ask for is computed once."""

    def __init__(self, bank: Bank) -> None:
        self.bank = bank
        self.candidates, self.epochs = bank.folds.shape[0], bank.folds.shape[2]
        self._expected: dict[Any, np.ndarray] = {}

    def curves(self, view: View, split: int = 0) -> np.ndarray:
        """Scores by fold, of (candidates, folds, epochs, scores)."""
        if view == "split":
            return self.bank.folds[:, split : split + 1]
        if view == "folds":
            return self.bank.folds
        cells = range(RING if view == "ring" else len(PAIRS))
        of_fold = [
            [self.bank.pairs[:, c, :, PAIRS[c].index(fold)] for c in cells if fold in PAIRS[c]] for fold in range(FOLDS)
        ]
        return np.stack([np.mean(own, 0) for own in of_fold], 1)

    def expected(self, key: Any, merit: np.ndarray, noise: np.ndarray, kind: Surrogate) -> Any:
        """What a surrogate fitted to the merits has for each candidate."""
        key = (*key, kind)
        if key not in self._expected:
            self._expected[key] = surrogate(kind, self.bank.encoded, merit, noise)
        return self._expected[key]

    @cached_property
    def refits(self) -> np.ndarray:
        """Test scores of each refit, of (candidates, refits, epochs, scores)."""
        return banks.scores(self.bank.refits.astype("float32"), self.bank.y_test)

    @cached_property
    def every(self) -> np.ndarray:
        """Test scores of all that saw no test row, of (candidates, models, epochs, scores)."""
        return np.concatenate([self.refits, self.bank.folds_test], 1)


def smoothed(curves: np.ndarray) -> np.ndarray:
    """Curves of (..., epochs), each epoch averaged with its neighbours."""
    half = _SMOOTHED // 2
    padded = np.pad(curves, [(0, 0)] * (curves.ndim - 1) + [(half, half)], mode="edge")
    return np.lib.stride_tricks.sliding_window_view(padded, _SMOOTHED, axis=-1).mean(-1)


def spread(values: np.ndarray) -> np.ndarray:
    """Interquartile range of each score among candidates, of (candidates, scores)."""
    low, high = np.nanquantile(values, [0.25, 0.75], axis=0)
    return np.where(high > low, high - low, 1.0)


def surrogate(kind: Surrogate, encoded: np.ndarray, merit: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """What a model of the merits over the strengths has for each candidate, of (candidates,); NaN where one diverged.

    Args:
        kind: Which model.
        encoded: Candidates of (candidates, techniques).
        merit: Of (candidates,).
        noise: Variance of each merit by its folds.
    """
    from sklearn.ensemble import RandomForestRegressor
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel
    from sklearn.linear_model import RidgeCV

    from regularity.study import _rule

    if kind == "process":
        return _rule.surrogate(encoded, merit, noise)
    known = np.isfinite(merit)
    x, y = encoded[known], merit[known]
    centre, scale = np.median(y), max(float(np.std(y)), 1e-12)
    y = np.clip((y - centre) / scale, -3, 3)
    if kind == "forest":
        model = RandomForestRegressor(300, min_samples_leaf=3, random_state=0)
    elif kind == "additive":
        x = np.concatenate([x > 0, x, x**2], 1)
        model = RidgeCV(np.logspace(-3, 3, 13))
    else:
        shortest = 0.5 if kind == "stiff" else 0.1
        kernel = ConstantKernel(1.0, (1e-2, 1e2)) * Matern(np.ones(x.shape[1]), (shortest, 30.0), nu=2.5)
        model = GaussianProcessRegressor(kernel + WhiteKernel(0.3, (1e-3, 10.0)))
    expected = np.full(len(merit), np.nan)
    expected[known] = model.fit(x, y).predict(x) * scale + centre
    return expected


# -- choosing ----------------------------------------------------------------------------------------------------------


def choose(rule: Rule, seen: Seen) -> list[Chosen]:
    """What a rule chooses; where it sees one split, for each fold in its place."""
    return [_choose(rule, seen, split) for split in range(FOLDS if rule.view == "split" else 1)]


def _choose(rule: Rule, seen: Seen, split: int) -> Chosen:
    by_fold = seen.curves("ring" if rule.race else rule.view, split)
    scale, merits, epochs = _merits(by_fold, rule)
    counts = np.full(seen.candidates, by_fold.shape[1])
    key = ("ring" if rule.race else rule.view, split, tuple(rule.weights), rule.smooth, rule.last)
    share = float(seen.bank.share)
    final = _standing(rule, seen, key, merits, _noise(by_fold, scale, epochs, share))
    if rule.race:
        leaders = np.argsort(-np.nan_to_num(final, nan=-np.inf))[:_RACED]
        raced = np.union1d(leaders, [0])
        by_fold = by_fold.copy()
        by_fold[raced] = seen.curves("rings")[raced]
        scale, merits, epochs = _merits(by_fold, rule)
        counts[raced] *= 2
        noise = _noise(by_fold, scale, epochs, share) * counts.min() / counts
        final = _standing(rule, seen, ("race", *key), merits, noise)
        final = np.where(np.isin(np.arange(len(final)), raced), final, np.nan)
    ranked = np.argsort(-np.nan_to_num(final, nan=-np.inf), kind="stable")
    best = _simplest(seen, by_fold, scale, final, epochs) if rule.ties else int(ranked[0])
    first = [(int(i), int(epochs[i])) for i in ranked]
    picks = first[: rule.top] if rule.top > 1 else [(best, int(epochs[best]))]
    said = by_fold.mean(1)
    return Chosen(picks, first[:5], int(epochs[0]), said[best, epochs[best]], said[0, epochs[0]])


def _merits(by_fold: np.ndarray, rule: Rule) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What each score counts, the merit at the best epoch less that of plain at its own, and which epoch that is."""
    mean = by_fold.mean(1)  # (candidates, epochs, scores); NaN where one diverged
    scale = rule.weights / spread(np.nanmax(mean, 1))
    curves = mean @ scale
    curves = smoothed(curves) if rule.smooth else curves
    curves = np.where(np.isnan(curves), -np.inf, curves)
    epochs = np.full(len(curves), curves.shape[-1] - 1) if rule.last else curves.argmax(-1)
    merits = curves[np.arange(len(curves)), epochs]
    return scale, np.where(np.isfinite(merits), merits - merits[0], np.nan), epochs


def _noise(by_fold: np.ndarray, scale: np.ndarray, epochs: np.ndarray, share: float) -> np.ndarray:
    """Variance of each merit, of (candidates,): that of most, since five folds tell little of each."""
    own = by_fold[np.arange(len(epochs)), :, epochs] @ scale  # (candidates, folds)
    own = own - np.nanmedian(own, 0)  # some folds are harder than others, for all
    folds = own.shape[1]
    return np.full(len(own), np.nanmedian(own.var(1, ddof=1)) * (1 / folds + share) if folds > 1 else np.nan)


def _standing(rule: Rule, seen: Seen, key: Any, merits: np.ndarray, noise: np.ndarray) -> np.ndarray:
    if rule.surrogate is None:
        return merits
    expected = seen.expected(key, merits, noise, rule.surrogate)
    return (1 - rule.own) * expected + rule.own * merits


def _simplest(seen: Seen, by_fold: np.ndarray, scale: np.ndarray, final: np.ndarray, epochs: np.ndarray) -> int:
    """Of those within one paired standard error of the best that with the fewest techniques, the best of them."""
    from regularity.study._choosing import paired_error

    best = int(np.nanargmax(final))
    own = by_fold[np.arange(len(epochs)), :, epochs] @ scale  # (candidates, folds)
    error = paired_error(own - own[best], float(seen.bank.share))
    as_good = final >= final[best] - np.nan_to_num(error)
    techniques = (seen.bank.encoded > 0).sum(1)
    return min(np.flatnonzero(as_good), key=lambda i: (techniques[i], -final[i]))


# -- judging -----------------------------------------------------------------------------------------------------------


def judge(rule: Rule, seen: Seen) -> Judged:
    """How a rule does on a split."""
    found = [_judge(rule, seen, chosen) for chosen in choose(rule, seen)]
    return Judged(*(np.mean(part, 0) for part in zip(*found, strict=True)))


def _judge(rule: Rule, seen: Seen, chosen: Chosen) -> Judged:
    (best, epoch), plain = chosen.picks[0], seen.refits[0, :, chosen.plain].mean(0)
    if rule.top:
        together = np.mean([seen.bank.ensemble[i, e].astype("float32") for i, e in chosen.picks], 0)
        tested = banks.scores(together, seen.bank.y_test)
    else:
        tested = seen.refits[best, :, epoch].mean(0)
    steady = seen.every[best, :, epoch].mean(0) - seen.every[0, :, chosen.plain].mean(0)
    five = np.mean([seen.refits[i, :, e].mean(0) for i, e in chosen.five], 0)
    return Judged(tested, tested - plain, steady, five, chosen.said - chosen.said_plain, chosen.said - tested)


def oracle(seen: Seen) -> Judged:
    """Chosen on half of the test rows and judged on the other half, and the other way round, by balanced accuracy."""
    from sklearn.model_selection import StratifiedShuffleSplit

    y, found = seen.bank.y_test, []
    refits = seen.bank.refits.astype("float32")
    for halves in StratifiedShuffleSplit(_HALVES, test_size=0.5, random_state=0).split(y, y):
        for here, there in (halves, halves[::-1]):
            chosen = smoothed(banks.scores(refits[..., here, :], y[here])[..., 1].mean(1))
            best, epoch = np.unravel_index(np.nanargmax(chosen), chosen.shape)
            own = chosen[0].argmax()
            tested = banks.scores(refits[[best, 0], :, [epoch, own]][:, :, there], y[there]).mean(1)
            said = banks.scores(refits[[best, 0], :, [epoch, own]][:, :, here], y[here]).mean(1)
            gain = tested[0] - tested[1]
            found.append(Judged(tested[0], gain, gain, tested[0], said[0] - said[1], said[0] - tested[0]))
    return Judged(*(np.mean(part, 0) for part in zip(*found, strict=True)))


def as_search(seen: Seen, score: str, beside: str, answer: bool) -> Judged:
    """What the code of `rg.search` chooses from both rings by two scores: the best it expects, or the simplest as good."""
    from regularity.recipe import Recipe
    from regularity.study import _rule
    from regularity.study._cells import Cell, Design

    bank, nothing = seen.bank, np.zeros(0, int)
    cells = [Cell(nothing, pair) for pair in PAIRS]
    design = Design(
        [nothing] * FOLDS,
        [cells[:RING], cells[RING:]],
        [],
        float(bank.share),
        float(bank.share / (1 - bank.share)),
        True,
    )
    of_two = [SCORES.index(score), SCORES.index(beside)]
    curves = bank.pairs[..., of_two]  # (candidates, cells, epochs, sets, scores)
    trials = [
        _rule.Trial(i, "" if i else "as given", Recipe({}), {str(k): 1 for k in np.flatnonzero(on)}, own, 2)
        for i, (on, own) in enumerate(zip(bank.encoded, curves, strict=True))
    ]
    at = _rule.standing(trials, design, bank.encoded, np.array([0.5, 0.5]))
    chosen = _rule.choose(trials, at, design.candidates_share)
    best = chosen.answer if answer else chosen.best
    epochs = at.epochs - 1
    said = seen.curves("rings").mean(1)
    ranked = [(int(i), int(epochs[i])) for i in np.argsort(-np.nan_to_num(at.expected, nan=-np.inf), kind="stable")]
    picked = Chosen(
        [(best, int(epochs[best]))], ranked[:5], int(epochs[0]), said[best, epochs[best]], said[0, epochs[0]]
    )
    return _judge(Rule("rings", BALANCED), seen, picked)


def plain(seen: Seen, rule: Rule) -> Judged:
    """Plain, at the epoch that a rule gives it."""
    chosen = choose(rule, seen)[0]
    return _judge(
        rule, seen, chosen._replace(picks=[(0, chosen.plain)], five=[(0, chosen.plain)], said=chosen.said_plain)
    )


def judge_all(bank: Bank, draws: int) -> dict[str, Judged]:
    """How all rules do on a split: on the mean over random subsets of its candidates, plain always among them.

    One choice among one set of candidates says more about luck than about the rule.
    """
    random = np.random.default_rng(0)
    count = len(bank.encoded)
    some = [np.sort(random.permutation(np.arange(1, count))[: round(_DRAWN * count) - 1]) for _ in range(draws)]
    found = [_judge_all(Seen(taken(bank, np.concatenate([[0], own])))) for own in some]
    return {
        name: Judged(*(np.mean(part, 0) for part in zip(*(one[name] for one in found), strict=True)))
        for name in found[0]
    }


def taken(bank: Bank, candidates: np.ndarray) -> Bank:
    """The bank of some of the candidates."""
    own = {"encoded", "pairs", "folds", "folds_test", "ensemble", "refits"}
    return bank._replace(**{name: getattr(bank, name)[candidates] for name in own})


def _judge_all(seen: Seen) -> dict[str, Judged]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # diverged candidates, and processes at the ends of their ranges
        found = {name: judge(rule, seen) for name, rule in rules().items()}
        for score, beside, name in (
            ("accuracy", "log loss", "acc. 0.5 + log loss 0.5"),
            ("balanced accuracy", "balanced log loss", _HALF_BALANCED),
            ("balanced accuracy", "log loss", _HALF),  # which `rg.search` itself does not mix
        ):
            for answer in (False, True):
                what = "answer" if answer else "best"
                found[f"rg.search, {what}: {name}"] = as_search(seen, score, beside, answer)
    found["oracle: half of the test rows"] = oracle(seen)
    for name, rule in (
        ("balanced accuracy, 5 folds", Rule("folds", BALANCED, smooth=True)),
        ("log loss, 5 folds", Rule("folds", LOG_LOSS, smooth=True)),
        ("last epoch", Rule("folds", LOG_LOSS, last=True)),
    ):
        found[f"plain: {name}"] = plain(seen, rule)
        found[f"ensemble of plain: {name}"] = plain(seen, replace(rule, top=1))
    return found


# -- tables ------------------------------------------------------------------------------------------------------------


def error(differences: np.ndarray) -> float:
    """Standard error of a mean over splits that overlap."""
    from regularity.study._choosing import paired_error

    return float(paired_error(np.asarray(differences), _TEST_SHARE))


class Line(NamedTuple):
    """A rule on a data set by one score, in points; a pair is a mean and its error."""

    tested: float
    ahead: tuple[float, float]
    five: tuple[float, float]
    gain: tuple[float, float]
    steady: tuple[float, float]
    said: float
    optimism: float


def lines(found: Sequence[dict[str, Judged]], score: int) -> dict[str, Line]:
    """A line for each rule from how it did on each split, by one of the scores."""
    columns = {
        name: [np.array(part) * 100 for part in zip(*(one[name] for one in found), strict=True)] for name in found[0]
    }
    base, base_five = columns[REFERENCE][0][:, score], columns[REFERENCE][3][:, score]
    return {
        name: Line(
            float(tested[:, score].mean()),
            mean_and_error(tested[:, score] - base),
            mean_and_error(five[:, score] - base_five),
            mean_and_error(gain[:, score]),
            mean_and_error(steady[:, score]),
            *(float(values.mean()) for values in (said[:, score], optimism[:, score])),
        )
        for name, (tested, gain, steady, five, said, optimism) in columns.items()
    }


def mean_and_error(differences: np.ndarray) -> tuple[float, float]:
    """Mean over splits that overlap, and its standard error."""
    from regularity.study._choosing import paired_error

    return float(differences.mean()), float(paired_error(differences, _TEST_SHARE))


def over_data(of_data: Sequence[dict[str, Line]]) -> dict[str, Line]:
    """The mean over data sets of each rule's line; the errors are independent."""

    def mean(values: Sequence[Any]) -> Any:
        if not isinstance(values[0], tuple):
            return float(np.mean(values))
        means, errors = np.array(values).T
        return float(means.mean()), float(np.sqrt(np.square(errors).sum()) / len(errors))

    return {name: Line(*map(mean, zip(*(own[name] for own in of_data), strict=True))) for name in of_data[0]}


def steps(names: Sequence[str]) -> dict[str, list[tuple[str, str]]]:
    """Pairs of rules that differ in one thing, by what that is."""

    def swapped(old: str, new: str, having: str = "") -> list[tuple[str, str]]:
        pairs = [(name, name.replace(old, new)) for name in names if old in name and having in name]
        return [pair for pair in pairs if pair[1] in names and not pair[0].startswith("plain")]

    return {
        "5 folds instead of one split": swapped("one split", "5 folds"),
        "both rings instead of 5 folds": swapped("5 folds", "both rings"),
        "both rings instead of ring 1": swapped("ring 1", "both rings"),
        "curves smoothed": swapped("best:", "smooth:"),
        "half log loss instead of balanced accuracy alone": swapped(": balanced accuracy", f": {_HALF}"),
        "half balanced log loss instead of balanced accuracy alone": swapped(
            ": balanced accuracy", f": {_HALF_BALANCED}"
        ),
        "half balanced log loss instead of half log loss": swapped(f": {_HALF}", f": {_HALF_BALANCED}"),
        "half log loss instead of accuracy alone": swapped(": accuracy", ": acc. 0.5 + log loss 0.5"),
        "balanced accuracy instead of accuracy": swapped(": accuracy", ": balanced accuracy"),
        "half log loss, half balanced accuracy instead of log loss alone": swapped(": log loss", f": {_HALF}"),
        "a Gaussian process instead of own scores": swapped("smooth:", "GP:"),
        "that process stiffer": swapped("GP:", "stiff:"),
        "that process with a noise that is fitted": swapped("GP:", "fitted noise:"),
        "a forest instead of the process": swapped("GP:", "forest:"),
        "a sum of curves instead of the process": swapped("GP:", "additive:"),
        "a race on ring 2 instead of ring 2 for all": [
            (name, name.replace("GP:", "GP, race:").removesuffix(", both rings"))
            for name in names
            if name.replace("GP:", "GP, race:").removesuffix(", both rings") in names and name.startswith("GP:")
        ],
        "the simplest that is as good": [
            *swapped("GP:", "GP, ties:"),
            *swapped("rg.search, best", "rg.search, answer"),
        ],
        "the last epoch for all": swapped("GP:", "GP, last epoch:"),
        "fold models averaged instead of a refit": [
            *swapped("best:", "ensemble of best:"),
            *swapped("GP:", "ensemble of 1 by GP:"),
        ],
        "three recipes averaged instead of one": swapped("ensemble of 1", "ensemble of 3"),
        "ten recipes averaged instead of one": swapped("ensemble of 1", "ensemble of 10"),
    }


def effects(judged: Sequence[Sequence[dict[str, Judged]]]) -> str:
    """What each step changes in each score, on the mean over all pairs of rules that differ in it alone, in points."""
    rows = [f"| step | pairs | {' | '.join(SCORES)} |", "| --- | --- " + "| --- " * len(SCORES) + "|"]
    for step, pairs in steps(list(judged[0][0])).items():
        of_data = [
            [np.mean([one[new].tested - one[old].tested for old, new in pairs], 0) * 100 for one in found]
            for found in judged
        ]
        cells = []
        for number in range(len(SCORES)):
            means, errors = zip(*(mean_and_error(np.array(own)[:, number]) for own in of_data), strict=True)
            cells.append(f"{np.mean(means):+.2f} ± {np.sqrt(np.square(errors).sum()) / len(errors):.2f}")
        rows.append(f"| {step} | {len(pairs)} | {' | '.join(cells)} |")
    return "\n".join(rows)


def table(of_rule: dict[str, Line]) -> str:
    """A row for each rule, the best first."""
    names = [
        "test",
        "over reference",
        "its five best",
        "over plain",
        "by all models",
        "folds say",
        "optimism",
    ]
    rows = [f"| rule | {' | '.join(names)} |", "| --- " * (len(names) + 1) + "|"]
    for name, line in sorted(of_rule.items(), key=lambda item: -item[1].tested):
        cells = [f"{v[0]:+.2f} ± {v[1]:.2f}" if isinstance(v, tuple) else f"{v:+.2f}" for v in line[1:]]
        cells.insert(0, f"{line.tested:.2f}")
        rows.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rules", description=__doc__.splitlines()[0])
    parser.add_argument("--data", nargs="+", choices=list(datasets.LOADERS), default=["credit-g", "vehicle", "kc1"])
    parser.add_argument("--splits", type=int, default=10, help="outer splits of each data set")
    parser.add_argument("--candidates", type=int, default=60)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--out", type=Path, default=banks.cache(), help="where the banks are, or go")
    parser.add_argument("--draws", type=int, default=8, help="subsets of the candidates that rules choose among")
    parser.add_argument("--judge", action="store_true", help="train nothing")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write all numbers there, too")
    options = parser.parse_args()
    os.environ["KERAS_BACKEND"] = "jax"  # Keras is imported with the first bank
    if not options.judge:
        for seed in range(options.splits):
            for name in options.data:
                banks.make(options.out, name, seed, options.candidates, options.epochs)
    judged: dict[str, list[dict[str, Judged]]] = {}
    for name in options.data:
        seeds = banks.seeds(options.out, name)
        if len(seeds) > 1:
            judged[name] = [judge_all(banks.load(options.out, name, seed), options.draws) for seed in seeds]
    for own in dict.fromkeys([*((name,) for name in judged), tuple(judged)]):
        if own:
            print(f"\n## what each step changes: {', '.join(own)}\n\n{effects([judged[name] for name in own])}")
    report: dict[str, dict[str, dict[str, Line]]] = {}
    for number, score in enumerate(SCORES):
        found = {f"{name}, {len(own)} splits": lines(own, number) for name, own in judged.items()}
        if found:
            found["mean over data sets"] = over_data(list(found.values()))
        for name, of_rule in found.items():
            print(f"\n## {score}: {name}\n\n{table(of_rule)}", flush=True)
        report[score] = found
    if options.json:
        numbers = {s: {d: {r: v._asdict() for r, v in o.items()} for d, o in f.items()} for s, f in report.items()}
        options.json.write_text(json.dumps(numbers, indent=1) + "\n")


if __name__ == "__main__":
    main()
