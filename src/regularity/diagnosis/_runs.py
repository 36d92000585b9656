"""All members of a diagnosis in training, and what their curves say."""

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from regularity.diagnosis._asked import Asked
from regularity.diagnosis._statistics import Curves, Interval, mean_interval
from regularity.population._tasks import Outcome, Task
from regularity.population._train import Trainer, strengths_for
from regularity.recipe import Recipe, sites_of
from regularity.study._choosing import paired_error
from regularity.study._rule import best_epoch
from regularity.study._space import brought

SHARES = (0.25, 0.5, 1.0)  # of a fold's rows to train on
RANDOM_SEEDS = 2  # members that are taught random labels


class Runs:
    """All members in training, and their curves.

    Raises:
        ValueError: If the model as given diverges.
    """

    def __init__(self, model: Any, asked: Asked, advance: Callable[[int], None]) -> None:
        self._asked, self._advance = asked, advance
        off = brought(model)
        self._given, plain = strengths_for(model, sites_of(model), [Recipe({}), Recipe(off)])
        variants: dict[Any, list[Task]] = {
            share: [self._task(self._given, cell, share) for cell in asked.cells] for share in SHARES
        }
        if off:
            variants["plain"] = [self._task(plain, cell) for cell in asked.cells]
        copied, (_, held, first) = np.arange(asked.rows, asked.data.rows), asked.cells[0]
        variants["random labels"] = [self._task(self._given, (copied, held, first + n)) for n in range(RANDOM_SEEDS)]
        queue = [task for tasks in variants.values() for task in tasks]
        self._trainer = Trainer(model, asked.plan, len(queue))
        outcomes = iter(self._trainer.train_here(queue, advance))
        self._found = {name: self._curves([next(outcomes) for _ in tasks]) for name, tasks in variants.items()}
        _check_finite(self._found[1.0])
        self.epochs = 1 + best_epoch(self._found[1.0].held_out[..., 0].mean(0), False)

    def _task(self, strengths: dict[str, float], cell: tuple[np.ndarray, np.ndarray, int], share: float = 1.0) -> Task:
        rows, held, seed = cell
        rows = self._some(rows, seed)[: max(1, round(share * len(rows)))] if share < 1 else rows
        return Task(strengths, seed, self._asked.epochs, rows=rows, held_out=self._asked.sets(held), keep_weights=False)

    def _some(self, rows: np.ndarray, seed: int) -> np.ndarray:
        """Rows in an order of which each beginning has as much of each class; another for each seed."""
        rows = np.random.default_rng([self._asked.seed, seed]).permutation(rows)
        if self._asked.classes is None:
            return rows
        classes, place = self._asked.classes[rows], np.zeros(len(rows))
        for label in np.unique(classes):
            mine = np.flatnonzero(classes == label)
            place[mine] = (np.arange(len(mine)) + 0.5) / len(mine)
        return rows[np.argsort(place, kind="stable")]

    def _curves(self, outcomes: Sequence[Outcome]) -> Curves:
        units = min(self._asked.units, len(outcomes))
        held = np.array([outcome.held_out for outcome in outcomes], "float64")  # (members, epochs, sets, scores)
        seen = np.array([outcome.seen for outcome in outcomes], "float64")
        parts = np.moveaxis(held[:, :, 1:], 2, 1)
        return Curves(
            *(
                a.reshape(units, len(a) // units, *a.shape[1:]).mean(1)
                for a in map(_finite, (held[:, :, 0], seen, parts))
            )
        )

    def fitted(self) -> list[list[np.ndarray]]:
        """The weights of the model as given in each cell, after the number of epochs that suits it."""
        tasks = [Task(self._given, seed, self.epochs, rows=rows, held_out=()) for rows, _, seed in self._asked.cells]
        outcomes = self._trainer.train_here(tasks, self._advance)
        self._advance(len(tasks) * (self._asked.epochs - self.epochs))
        return [outcome.weights or [] for outcome in outcomes]

    @cached_property
    def curves(self) -> pd.DataFrame:
        """A row for each variant on all rows and epoch."""
        names = {1.0: "as given", "plain": "plain", "random labels": "random labels"}
        epochs = np.arange(1, self._asked.epochs + 1)
        found = [
            pd.DataFrame({"model": names[name], "epoch": epochs, **curves.row(slice(None))})
            for name, curves in self._found.items()
            if name in names
        ]
        return pd.concat(found, ignore_index=True)

    @cached_property
    def shares(self) -> pd.DataFrame:
        """A row for each share of the rows."""
        rows = np.mean([len(train) for train, _, _ in self._asked.cells])
        found = []
        for share in SHARES:
            curves = self._found[share]
            at = best_epoch(curves.held_out[..., 0].mean(0), False)
            error = float(paired_error(curves.held_out[:, at, 0], self._asked.share))
            if not self._asked.folded:  # over rows too
                mean, _, high = mean_interval(curves.of_parts(0)[..., at], 0.0)
                error = (high - mean) / 1.645
            found.append({"share": share, "rows": round(share * rows), **curves.row(at), "error": error})
        return pd.DataFrame(found)

    @property
    def training_score(self) -> np.ndarray:
        """Of the model as given after the number of epochs that suits it, of (units, 1)."""
        return self._found[1.0].seen[:, self.epochs - 1, :1]

    @property
    def held_out_score(self) -> np.ndarray:
        """The same on held-out rows, of (units, parts)."""
        return self._found[1.0].of_parts(0)[..., self.epochs - 1]

    @property
    def random_score(self) -> float:
        """Mean training score on random labels, the best of all epochs."""
        scores = self._found["random labels"].seen[..., 0].mean(0)
        return float(np.nanmax(scores)) if np.isfinite(scores).any() else np.nan

    def measured(self, constant: float | None) -> dict[str, Interval]:
        """What the curves say, each as value and interval over folds, or over seeds and rows.

        Args:
            constant: The held-out loss of always saying the same, or None where that has no meaning.
        """
        share = self._asked.share
        given, half = self._found[1.0], self._found[0.5]
        losses = -given.of_parts(-1)  # (units, parts, epochs)
        mean, lowest = -given.held_out[..., -1].mean(0), -given.judged(-1)
        learnt = (mean[0] if constant is None else constant) - mean.min()
        found = {"after_best": mean_interval(losses[..., -1] - lowest, share), "learnt": (float(learnt),) * 3}
        if np.isfinite(half.held_out[..., -1]).all():
            found["half_the_rows"] = mean_interval(-half.judged(-1) - lowest, share)
        width = max(1, self._asked.epochs // 10)
        quarter = self._asked.epochs - max(1, self._asked.epochs // 4)
        if quarter >= width:
            gained = losses[..., quarter - width : quarter].mean(-1) - losses[..., -width:].mean(-1)
            found["last_quarter"] = mean_interval(gained / (float(mean[0] - mean.min()) or 1.0), share)
        if "plain" in self._found:
            found["without_regularization"] = mean_interval(self._found["plain"].judged(0) - given.judged(0), share)
        return {name: values for name, values in found.items() if np.isfinite(values[0])}


def _finite(a: np.ndarray) -> np.ndarray:
    return np.where(np.isfinite(a), a, np.nan)


def _check_finite(given: Curves) -> None:
    finite = np.isfinite(np.concatenate([given.held_out, given.seen], -1)).all((0, 2))
    if not finite.all():
        raise ValueError(
            f"Expected a model that trains for {finite.size} epochs. Received one that diverges: in epoch "
            f"{int(finite.argmin()) + 1} weights or loss cease to be finite. Lower the learning rate, clip the gradients "
            "(`clipnorm`), or scale the inputs."
        )
