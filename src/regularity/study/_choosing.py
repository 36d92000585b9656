"""Choosing by held-out scores: epochs from the mean curve, ties by the paired standard error. All the statistics stand here."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

_TOLD = 1e-3  # share of a score's own standard error below which a difference tells nothing


class Choice(NamedTuple):
    """Which candidates were chosen, by index.

    Args:
        best: The best mean score.
        answer: The one that the rule for ties picks.
        as_good: Which candidates lie within one paired standard error of the best, or too close to it to tell, of
            (candidates,).
        error: The paired standard error of each candidate's difference to the best, of (candidates,).
    """

    best: int
    answer: int
    as_good: np.ndarray
    error: np.ndarray


def epochs_by_mean_curve(scores: np.ndarray) -> np.ndarray:
    """The epoch, from 0, at which each candidate's mean over folds is best.

    One number for all folds of a candidate: a fold's own luckiest epoch would be chosen on the rows it is scored on.

    Args:
        scores: Held-out scores of (candidates, folds, epochs); NaN where a member diverged.
    """
    mean = scores.mean(1)  # a candidate that diverged in one fold is no candidate at that epoch
    return np.where(np.isnan(mean), -np.inf, mean).argmax(1)


def paired_error(differences: np.ndarray, held_out_share: float) -> np.ndarray:
    """Standard error of the mean of paired differences over folds, corrected for folds that share training rows.

    Args:
        differences: Of (..., folds).
        held_out_share: Held-out rows over training rows of a fold; 0 where folds share no training rows.

    Nadeau and Bengio, "Inference for the generalization error", 2003.
    """
    folds = differences.shape[-1]
    if folds < 2:
        return np.full(differences.shape[:-1], np.nan)
    return np.sqrt((1 / folds + held_out_share) * differences.var(-1, ddof=1))


def choose(scores: np.ndarray, held_out_share: float, first: Sequence[int], strongest: Sequence[int]) -> Choice:
    """Choose among candidates by their scores on the same folds.

    Whatever lies within one paired standard error of the best is as good. Among those the first of `first` (the model
    as given, then 'off') is the answer, else the first of `strongest` that is better than all of `first`.

    With few folds a paired error can vanish by chance, and then nothing would be as good but the best itself. It
    therefore counts for no less than what a score can tell at all: a thousandth of the best candidate's own standard
    error over folds, plus the rounding of its mean in float32.

    Args:
        scores: Held-out scores of (candidates, folds), higher is better; NaN where a member diverged.
        held_out_share: Held-out rows over training rows of a fold.
        first: Candidates that win ties, in this order.
        strongest: All other candidates, the strongest first.

    Raises:
        ValueError: If every candidate diverged.
    """
    mean = scores.mean(1)
    if np.isnan(mean).all():
        raise ValueError(
            "Every candidate diverged: weights or loss ceased to be finite. Lower the learning rate or scale the inputs."
        )
    best = int(np.nanargmax(mean))
    error = paired_error(scores - scores[best], held_out_share)
    told = _TOLD * np.nan_to_num(paired_error(scores[best], 0.0)) + np.finfo("float32").eps * abs(mean[best])
    as_good = mean >= mean[best] - np.maximum(np.nan_to_num(error), told)
    as_good[best] = True
    floor = np.nanmax(
        mean[list(first)], initial=-np.inf
    )  # a strong candidate's error is wide: it must not fall below 'off'
    answer = next(i for i in (*first, *(i for i in strongest if mean[i] > floor)) if as_good[i])
    return Choice(best, answer, as_good, error)
