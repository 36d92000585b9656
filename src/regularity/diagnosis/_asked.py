"""What is to be diagnosed, all arguments checked, and the members that tell."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from regularity.data import Data
from regularity.diagnosis._statistics import parts_of
from regularity.population._tasks import Plan
from regularity.study._scores import Scoring, labels


@dataclass(frozen=True)
class Asked:
    """What is to be diagnosed.

    Args:
        data: All rows, and below them a copy of some whose targets were dealt out at random.
        rows: How many there are without the copy.
        cells: For each member as given the rows to train on, the held-out rows and its seed; seeds within folds.
        folded: Whether there are folds; else units are seeds, which share training rows and held-out rows.
        units: Over how many folds or seeds an error is computed.
        judge: How rows are scored.
        plan: How members train.
        epochs: How long.
        groups: The group of each row, or None.
        seed: Sets all that is random.
    """

    data: Data
    rows: int
    cells: list[tuple[np.ndarray, np.ndarray, int]]
    folded: bool
    units: int
    judge: Scoring
    plan: Plan
    epochs: int
    groups: np.ndarray | None
    seed: int

    @property
    def splits(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """The rows to train on and held out of each fold; one where there are no folds."""
        return (
            [cell[:2] for cell in self.cells[:: len(self.cells) // self.units]] if self.folded else [self.cells[0][:2]]
        )

    @property
    def share(self) -> float:
        """Held-out rows over training rows of a fold."""
        return float(np.mean([len(held) / len(train) for train, held in self.splits]))

    @cached_property
    def classes(self) -> np.ndarray | None:
        """The class of each row, where there are classes."""
        return labels(self.data.y) if self.judge.kind in ("classes", "binary") else None

    @cached_property
    def said(self) -> np.ndarray | None:
        """The targets as a model that is right would put them out, of (rows, classes or numbers); None if scored by a loss."""
        if self.judge.kind == "other" or self.judge.score == "loss":
            return None
        if self.classes is None:
            return self.data.y.reshape(self.data.rows, -1)
        return np.eye(int(self.classes.max()) + 1)[self.classes]

    @cached_property
    def parts(self) -> list[np.ndarray]:
        """The held-out rows without each part of them, where all members share these rows; none on folds."""
        return [] if self.folded else parts_of(self.cells[0][1], self.classes, self.seed)

    def sets(self, held: np.ndarray) -> tuple[np.ndarray, ...]:
        """What a member is scored on after each epoch: its held-out rows, and these without each part."""
        return (held, *self.parts)

    def scored(self, shown: np.ndarray, rows: np.ndarray) -> float:
        """The score of numbers or probabilities of (rows, ...); NaN where there is none."""
        judge: Any = self.judge.score
        try:
            return judge.of(shown, judge.y[rows]) if len(rows) else np.nan
        except Exception:  # some of the rows, or rows drawn anew, may miss a class that the scorer asks for
            return np.nan

    def constant(self, rows: np.ndarray) -> np.ndarray:
        """What always saying the same says, which is what these rows are on average, of (classes or numbers,)."""
        assert self.said is not None
        return self.said[rows].mean(0)
