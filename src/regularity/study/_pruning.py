"""Candidates that one of Optuna's pruners stops early: told of their mean score over members after each epoch."""

import threading
from typing import Any

import numpy as np


class Stop:
    """Says when the members of a candidate are to stop; they tell it how they do, each from its lane.

    Args:
        trial: Optuna's, under way in a study that has a pruner.
        members: How many there are.
    """

    def __init__(self, trial: Any, members: int) -> None:
        self.stopped = False
        self._trial, self._members = trial, members
        self._told: dict[int, list[float]] = {}
        self._lock = threading.Lock()

    def told(self, epoch: int, scores: np.ndarray) -> None:
        """Take a member's scores after an epoch, of (sets, scores); the first score is what a pruner goes by."""
        with self._lock:
            values = self._told.setdefault(epoch, [])
            values.append(float(np.mean(scores[:, 0])))
            if len(values) < self._members or self.stopped:
                return
            mean = float(np.mean(values))
            if np.isfinite(mean):
                self._trial.report(mean, epoch)
            self.stopped = not np.isfinite(mean) or self._trial.should_prune()
