"""What a search goes by and what it hands to the study: plain records."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from regularity.data import Data
from regularity.population._tasks import Plan
from regularity.study._cells import Design
from regularity.study._rule import Choice, Standing, Trial
from regularity.study._space import Space


@dataclass(frozen=True)
class Judged:
    """What was chosen without each fold, scored on it.

    Args:
        contestants: For each fold, by role, the trial's index and its epochs.
        networks: By role, the score of each network, of (folds, seeds).
    """

    contestants: Sequence[Mapping[str, tuple[int, int]]]
    networks: Mapping[str, np.ndarray]

    def differences(self, role: str) -> np.ndarray:
        """What was chosen minus another, each network beside one of the same rows and seed, of (folds, seeds)."""
        return self.networks["answer"] - self.networks[role]


class Settled(NamedTuple):
    """What a search goes by, all arguments checked.

    Args:
        data: All rows.
        design: Which of them members train on.
        space: What to look for.
        plan: How members train.
        epochs: How long, or None where that is to be found.
        seed: Sets all that is random.
        sampler: Of Optuna's, or None.
        count: Candidates, or None.
        seconds: Wall-clock time, or None.
        begun: When it began, by the monotonic clock.
        engine: Where members train, `local` or `ray`.
        pruner: Of Optuna's, or None.
    """

    data: Data
    design: Design
    space: Space
    plan: Plan
    epochs: int | None
    seed: int
    sampler: Any
    count: int | None
    seconds: float | None
    begun: float
    engine: str = "local"
    pruner: Any = None


class Found(NamedTuple):
    """What a search hands to the study.

    Args:
        trials: All candidates.
        at: How they stand.
        choice: What is chosen among them.
        judged: What the choice is worth; of nobody while the search runs.
        gains: What averaging some networks of the best recipe gains over one of them, on each fold; or None.
        weights: Of the best recipe's model on each of the design's outer cells, with several seeds if there is one cell, beside
            the number of the cell; what diverged is left out.
    """

    trials: list[Trial]
    at: Standing
    choice: Choice
    judged: Judged
    gains: np.ndarray | None
    weights: list[tuple[int, list[np.ndarray]]]

    @property
    def epochs(self) -> int:
        """How long candidates trained at most."""
        return max(trial.curves.shape[1] for trial in self.trials)
