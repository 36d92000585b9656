"""What the curves of a single run of `fit` say."""

from collections.abc import Mapping
from statistics import NormalDist
from typing import Any

import numpy as np
import pandas as pd

from regularity.diagnosis._diagnosis import Diagnosis, next_of, reasons_of, table_of, verdict_of

_FEWEST = 8  # epochs of a single run, to tell what its curves do from how they scatter
_MEANINGS = {  # where they are not those of folds
    "held_out_loss": "loss on rows that were held out, as `fit` reports it: with penalties, averaged over the last epochs",
    "train_loss": "loss on the rows trained on, likewise: with dropout, too",
    "learnt": "held-out loss after the first epoch minus where it is lowest",
}


def of_history(history: Any) -> Diagnosis:
    """The verdict that the curves of one run allow; errors are those of its own scatter, and say nothing of other rows.

    Args:
        history: What `fit` returned, or its dict.

    Raises:
        ValueError: If it has no losses of training and validation in each of at least eight epochs.
    """
    train, held, of = _losses(dict(getattr(history, "history", history)))
    table, epochs = _measured(train, held)
    count = len(held)
    verdict = verdict_of(table)
    reasons, then = reasons_of(table, "loss", epochs, count), next_of(verdict, table, epochs, count, [])
    if count < of:
        reasons.insert(
            0,
            f"That holds of the first {count} epochs alone: in epoch {count + 1} of {of} the loss ceases to be finite. Lower "
            "the learning rate, or clip the gradients (`clipnorm`).",
        )
        then = f"# first a lower learning rate, or `clipnorm`\n{then}"
    if table["high"]["loss_gap"] < 0:
        reasons.append(
            "The training loss lies above the held-out one, as with dropout or augmentation, which act on it alone: how far "
            "they are apart says nothing here, only how each moves."
        )
    reasons.append("One run: with model and rows `rg.diagnose(model, x, y)` says more, and how sure it is.")
    curves = pd.DataFrame(
        {"model": "as given", "epoch": np.arange(1, count + 1), "held_out_loss": held, "train_loss": train}
    )
    nothing = pd.DataFrame()
    return Diagnosis(verdict, reasons, then, "loss", epochs, table, curves, nothing, None, nothing)


def _losses(logs: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray, int]:
    """Training and held-out loss of each epoch, up to where one ceases to be finite, and how many epochs there are; checked."""
    if not {"loss", "val_loss"} <= set(logs):
        raise ValueError(
            "Expected a history with `loss` and `val_loss`: fit with `validation_data` or `validation_split`. "
            f"Received: {sorted(map(str, logs))}"
        )
    try:
        train, held = (np.asarray(logs[name], "float64") for name in ("loss", "val_loss"))
    except (TypeError, ValueError):
        train = held = np.zeros((0, 0))
    if train.ndim != 1 or held.ndim != 1:
        raise ValueError(
            "Expected `loss` and `val_loss` to be lists of one number for each epoch. Received: "
            f"loss={logs['loss']!r:.60}, val_loss={logs['val_loss']!r:.60}"
        )
    if len(train) != len(held):
        raise ValueError(
            f"Expected `loss` and `val_loss` of the same epochs. Received: {len(train)} and {len(held)} of them. Fit with "
            "`validation_freq=1`."
        )
    known = np.isfinite(train) & np.isfinite(held)
    count = len(known) if known.all() else int(known.argmin())
    if count < _FEWEST:
        raise ValueError(
            f"Expected at least {_FEWEST} epochs with finite losses, to tell a trend from scatter. Received: {count}"
        )
    return train[:count], held[:count], len(known)


def _measured(train: np.ndarray, held: np.ndarray) -> tuple[pd.DataFrame, int]:
    """What is measured of a run, and after how many epochs the held-out loss is lowest."""
    count = len(held)
    width = max(3, count // 8)  # epochs over which curves are averaged

    def scatter(curve: np.ndarray) -> float:
        """Standard error of such an average, by how its last half jumps from epoch to epoch."""
        return float(np.std(np.diff(curve[-max(_FEWEST, count // 2) :]), ddof=1)) / np.sqrt(2 * width)

    def measured(value: float, error: float, among: float = 1.0) -> tuple[float, float, float]:
        """The value with its interval, so wide that it holds for the most extreme of as many."""
        reach = NormalDist().inv_cdf(1 - 0.05 / among) * error
        return value, value - reach, value + reach

    smooth, fitted = (np.convolve(curve, np.ones(width) / width, "valid") for curve in (held, train))
    at, end = int(smooth.argmin()), len(smooth) - 1
    error, both = scatter(held), float(np.hypot(scatter(held), scatter(train)))
    learnt = float(held[0] - smooth[at])
    rise, fall = float(smooth[end] - smooth[at]), float(fitted[at] - fitted[end])
    quarter = float(smooth[max(0, end - count // 4)] - smooth[end]) / (abs(learnt) or 1.0)
    found = {
        "held_out_loss": measured(float(smooth[end]), error),
        "train_loss": measured(float(fitted[end]), scatter(train)),
        "loss_gap": measured(float(smooth[end] - fitted[end]), both),
        "learnt": (learnt, learnt, learnt),
        "last_quarter": measured(quarter, np.sqrt(2) * error / (abs(learnt) or 1.0)),
    }
    if at + width <= end:  # averages over the same epochs tell no rise
        found["after_best"] = measured(rise, np.sqrt(2) * error, count / width)
        found["rise_over_training"] = measured(rise + fall, np.sqrt(2) * both, count / width)
    return table_of(found, _MEANINGS), min(count, at + width // 2 + 1)
