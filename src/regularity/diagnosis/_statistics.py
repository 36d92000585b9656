"""How sure what was measured is: all the statistics of a diagnosis. Nothing trains here.

On folds, what compares two trainings is a mean over folds. On `validation_data` all seeds share the same few held-out rows:
a score then varies with the seeds and with those rows, and its error has both parts.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from regularity.study._rule import best_epoch, estimate, judged_by_others

LEVEL = 0.9
_PARTS = 10  # of the held-out rows, each left out once
_DRAWS = 200  # of a bootstrap
_EPSILON = 1e-7  # Keras clips probabilities at this before the logarithm

Interval = tuple[float, float, float]


def exact(value: float) -> Interval:
    return value, value, value


class Curves(NamedTuple):
    """The scores of a variant after each epoch: the user's first, the loss, negated, last.

    Args:
        held_out: Of (units, epochs, scores); a unit is a fold, or a seed where there are no folds.
        seen: Likewise, of training rows.
        without: The same as `held_out` without a part of the rows, of (units, parts, epochs, scores); no parts on folds.
    """

    held_out: np.ndarray
    seen: np.ndarray
    without: np.ndarray

    def row(self, epoch: int | slice) -> dict[str, Any]:
        """Mean over units, as a diagnosis shows it."""
        (score, loss), (own, own_loss) = (a.mean(0)[epoch].T[[0, -1]] for a in (self.held_out, self.seen))
        return {"held_out": score, "train": own, "held_out_loss": -loss, "train_loss": -own_loss}

    def of_parts(self, which: int) -> np.ndarray:
        """A score, of (units, parts, epochs): what a part of the held-out rows has to say, where rows are in parts.

        For a mean over rows that is the mean over the part; for any score it is Tukey's pseudo-value of the jackknife
        (Efron and Tibshirani, "An introduction to the bootstrap", 1993, section 11.5).
        """
        return pseudo_values(self.held_out[..., which], self.without[..., which])

    def judged(self, which: int) -> np.ndarray:
        """A score of (units, parts), each at the epoch that is best for other units on other rows."""
        if not self.without.shape[1]:
            return judged_by_others(self.held_out[..., which])[:, None]
        values, without = self.of_parts(which), self.without[..., which]
        others = [
            [best_epoch(np.delete(without[:, part], unit, 0).mean(0), False) for part in range(values.shape[1])]
            for unit in range(len(values))
        ]
        return np.take_along_axis(values, np.array(others)[..., None], -1)[..., 0]


def pseudo_values(whole: np.ndarray, without: np.ndarray) -> np.ndarray:
    """Of (units, parts, ...), from a score of (units, ...) and the same without each part, of (units, parts, ...)."""
    parts = without.shape[1]
    return parts * whole[:, None] - (parts - 1) * without if parts else whole[:, None]


def parts_of(held: np.ndarray, classes: np.ndarray | None, seed: int) -> list[np.ndarray]:
    """Held-out rows without a tenth of them, each tenth in turn; tenths have as much of each class."""
    held = np.random.default_rng(seed).permutation(held)
    if classes is not None:
        held = held[np.argsort(classes[held], kind="stable")]
    parts = min(_PARTS, len(held))
    return [np.delete(held, np.s_[part::parts]) for part in range(parts)] if parts > 1 else []


def mean_interval(values: np.ndarray, share: float) -> Interval:
    """The mean of (units, parts) with its interval: of folds that share training rows, or, with parts, of seeds that share these."""
    found = estimate(values, share if values.shape[1] == 1 else 0.0)
    return found.mean, *found.interval(LEVEL)


def bootstrapped(
    measure: Callable[[np.ndarray, Any], Mapping[str, float]],
    names: np.ndarray,
    networks: int,
    alike: bool,
    seed: int,
) -> dict[str, Interval]:
    """What is measured of networks and rows, each value with an interval by drawing rows anew.

    An interval is the percentiles of the draws, moved by their median onto the value: it holds the value, also where a
    score of drawn rows is biased (Efron and Tibshirani 1993, section 10.2).

    Args:
        measure: Of how often each row counts, and which networks do, an index of them.
        names: What each row belongs to: rows of one name are drawn together.
        networks: How many there are.
        alike: Whether these differ in their seeds alone, so that they are drawn anew too.
        seed: Of the draws.
    """  # fmt: skip
    random, count, every = np.random.default_rng(seed), int(names.max()) + 1, slice(None)
    value = measure(np.ones(len(names), int), every)
    drawn = [
        measure(
            np.bincount(random.integers(0, count, count), minlength=count)[names],
            random.integers(0, networks, networks) if alike else every,
        )
        for _ in range(_DRAWS)
    ]
    found = {}
    for name, at in value.items():
        draws = np.array([draw[name] for draw in drawn])
        draws = draws[np.isfinite(draws)]
        if not np.isfinite(at) or not len(draws):
            continue
        low, middle, high = np.quantile(draws, [(1 - LEVEL) / 2, 0.5, (1 + LEVEL) / 2])
        found[name] = (at, float(at + low - middle), float(at + high - middle))
    return found


def weighted(values: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Mean over networks of the mean over rows, each so often: of (networks, rows, ...) and (networks, rows).

    A network none of whose rows were drawn does not count.
    """
    some: Any = times.sum(1) > 0
    if not some.any():
        return np.full(values.shape[2:], np.nan)
    if not some.all():
        values, times = values[some], times[some]
    flat = values.reshape(*times.shape, -1)
    sums = (times[:, None].astype(flat.dtype) @ flat)[:, 0] / times.sum(1)[:, None]
    return sums.mean(0).reshape(values.shape[2:])


def row_scores(name: str, shown: np.ndarray, y: np.ndarray, rows: np.ndarray) -> np.ndarray | None:
    """What each row adds to a score that is a mean over some of the rows, of (rows,); None where it is no such mean.

    R² counts as one, over the variance of the targets of those rows: the variance of few rows drawn anew is too small, and a
    ratio to it far off.

    Args:
        name: Of the score.
        shown: Probabilities or numbers of (rows, ...).
        y: Classes, or targets of (rows, ...).
        rows: Those that it is the score of.
    """
    if name == "accuracy":
        return (shown.argmax(-1) == y).astype("float64")
    if name == "neg_log_loss":
        return np.log(np.clip(np.take_along_axis(shown, y[:, None], -1)[:, 0], _EPSILON, 1))
    if name not in ("r2", "neg_mean_squared_error"):
        return None
    flat = np.asarray(y, "float64").reshape(len(y), -1)
    squares = np.square(shown.reshape(flat.shape) - flat)
    if name == "neg_mean_squared_error":
        return -squares.mean(-1)
    spread = flat[rows].var(0)
    same = spread == 0  # there scikit-learn says 1 where nothing is wrong, else 0
    return np.where(same, squares == 0, 1 - squares / np.where(same, 1, spread)).mean(-1)


def share_of(gap: float, learnt: float) -> float:
    """The gap as a share of what was learnt; without bound where that is nothing, so that no draw is left out."""
    return gap / learnt if learnt > 0 else float(np.sign(gap)) * 1e6


def fitted_numbers(rows: float, held_out: np.ndarray, trained: np.ndarray, squares: bool) -> float:
    """How many numbers were fitted, by what the gap says.

    Args:
        rows: Trained on.
        held_out: Squared errors of each target, or the log loss, of (targets,).
        trained: The same of the training rows.
        squares: Which of the two.

    Murata, Yoshizawa and Amari 1994, equation 4.10, for the log loss; Akaike 1969 for squared errors, solved for the number:
    `held_out / trained = (rows + k) / (rows - k)`, for each target by itself.
    """
    gap = held_out - trained
    both = held_out + trained
    return float(rows * np.sum(gap / np.where(both > 0, both, 1) if squares else gap))
