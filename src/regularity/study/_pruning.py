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

    def told(self, epoch: int, scores: np.ndarray, diverged: bool) -> None:
        """Take a member's scores after an epoch, of (sets, scores), and whether it has diverged.

        The first score is what a pruner goes by; where some have none yet, as deviances of predictions below 0, it waits.
        """
        with self._lock:
            values = self._told.setdefault(epoch, [])
            values.append(float(np.mean(scores[:, 0])))
            self.stopped |= diverged
            if len(values) < self._members or self.stopped:
                return
            mean = float(np.mean(values))
            if np.isfinite(mean):
                self._trial.report(mean, epoch)
                self.stopped = self._trial.should_prune()
