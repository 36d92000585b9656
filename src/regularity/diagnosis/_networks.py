"""The model as given, trained in each cell: what it puts out for every row, and what follows from that."""

from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from regularity import _keras
from regularity.data import Data
from regularity.diagnosis._asked import Asked
from regularity.diagnosis._statistics import (
    Interval,
    bootstrapped,
    exact,
    fitted_numbers,
    mean_interval,
    row_scores,
    share_of,
    weighted,
)
from regularity.population._train import with_recipe
from regularity.recipe import Recipe
from regularity.recipe._regularized import as_given
from regularity.study._evidence import Calibration, calibration, kernels, mean_of_each_row
from regularity.study._scores import puts_out_logits, to_probabilities

_MOVED, _MOVES, _MOVED_ROWS = 0.05, 4, 1000  # how far a kernel is moved, how often, on how many rows
_SURE = 1e-7  # the least probability that has a logarithm here


class Networks:
    """The model as given with the weights of each cell.

    Args:
        model: The user's.
        asked: What is to be diagnosed.
        weights: Of each cell.
    """

    def __init__(self, model: Any, asked: Asked, weights: list[list[np.ndarray]]) -> None:
        self._asked, self._model = asked, model
        self._network = with_recipe(model, Recipe({}))
        self._fitted = weights
        self._own = as_given(self._network)
        self._rows = asked.data.take(np.arange(asked.rows))
        _keras.symbolic_build(self._network, self._rows.take(slice(0, 1)).batch())
        masks = [[np.isin(np.arange(asked.rows), cell[n]) for cell in asked.cells] for n in (1, 0)]
        self._masks: dict[str, np.ndarray] = {"held": np.array(masks[0]), "trained": np.array(masks[1])}
        self._outputs, losses, moved = [], [], []
        for which, own in enumerate(weights):
            self._take(own)
            self._outputs.append(self._predict(self._rows))
            losses.append(self._loss_of(self._rows, self._outputs[-1]))
            moved.append(self._rise(which, losses[-1]))
        self._losses, self._moved = np.array(losses), np.array(moved)

    def _take(self, weights: list[np.ndarray]) -> None:
        for variable, value in zip(self._own, weights, strict=True):
            variable.assign(value)

    def _predict(self, data: Data) -> Any:
        return self._network.predict(data.x, batch_size=256, verbose=0)

    def _loss_of(self, data: Data, outputs: Any) -> np.ndarray:
        """The compiled loss of each row."""
        return np.asarray(_keras.row_losses(self._network, data.y, outputs), "float64")

    def _rise(self, which: int, losses: np.ndarray) -> float:
        """How much the training loss rises when each kernel is moved at random."""
        random = np.random.default_rng([self._asked.seed, which])
        some = random.permutation(self._asked.cells[which][0])[:_MOVED_ROWS]
        rows, own = self._rows.take(some), self._fitted[which]
        rises = []
        for _ in range(_MOVES):
            noise = [
                random.normal(size=a.shape) if v.trainable and a.ndim > 1 else np.zeros(a.shape)
                for v, a in zip(self._own, own, strict=True)
            ]
            self._take([
                a + (_MOVED * np.linalg.norm(a) / (np.linalg.norm(n) or 1.0) * n).astype(a.dtype) if n.any() else a
                for a, n in zip(own, noise, strict=True)
            ])  # fmt: skip
            rises.append(self._loss_of(rows, self._predict(rows)).mean() - losses[some].mean())
        return float(np.mean(rises))

    def measured(self) -> dict[str, Interval]:
        """Scores, losses and what follows from them, with intervals by drawing rows, or groups, anew."""
        asked = self._asked
        names = np.arange(asked.rows) if asked.groups is None else np.unique(asked.groups, return_inverse=True)[1]
        found = bootstrapped(self._on, names, len(asked.cells), not asked.folded, asked.seed)
        if "gap_share" in found and found["train_over_constant"][1] <= 0:
            del found["gap_share"]  # a share of what may be nothing
        found["parameters"] = exact(float(sum(np.prod(v.shape) for v in self._model.trainable_variables)))
        units = self._moved.reshape(asked.units, -1).mean(1)
        return found | {"sharpness": mean_interval(units[:, None], asked.share if asked.folded else 0.0)}

    def _on(self, counts: np.ndarray, networks: Any) -> dict[str, float]:
        """What is measured where each row counts so often, of these networks."""
        times = {name: mask[networks] * counts for name, mask in self._masks.items()}
        at = {name: float(weighted(a[networks], times[of])) for name, (a, of) in self._by_row.items()}
        if self._scored and "held_out_score" not in at:
            at |= self._scores(times, networks)
        found = {name: at[name] for name in ("held_out_loss", "train_loss")}
        found["loss_gap"] = at["held_out_loss"] - at["train_loss"]
        if self._scored:
            found |= {name: at[name] for name in ("held_out_score", "train_score")}
            found["gap"] = at["train_score"] - at["held_out_score"]
            found["gap_share"] = share_of(found["gap"], at["train_score"] - at["constant_held_out_score"])
            found["over_constant"] = at["held_out_score"] - at["constant_held_out_score"]
            found["train_over_constant"] = at["train_score"] - at["constant_train_score"]
            found["train_loss_below_constant"] = at["constant_train_loss"] - at["train_loss"]
        if self._proper is not None:
            out, own = (weighted(self._proper[networks], times[of]) for of in ("held", "trained"))
            rows = float(np.mean(self._masks["trained"].sum(1)))
            found["effective_parameters"] = fitted_numbers(rows, out, own, self._asked.judge.kind == "numbers")
        return found

    @property
    def _scored(self) -> bool:
        return self._asked.said is not None

    @cached_property
    def _shown(self) -> np.ndarray:
        """Probabilities or numbers of (networks, rows, ...)."""
        return to_probabilities(self._model, self._asked.judge.kind)(np.array(self._outputs, "float64"))

    @cached_property
    def _said(self) -> list[np.ndarray]:
        """The same of always saying the same, which is what the training rows are on average; a row for each network."""
        return [self._asked.constant(train) for train, _, _ in self._asked.cells]

    @cached_property
    def _by_row(self) -> dict[str, tuple[np.ndarray, str]]:
        """Whatever is a mean over rows, of (networks, rows), and over which rows."""
        found = {"held_out_loss": (self._losses, "held"), "train_loss": (self._losses, "trained")}
        if not self._scored:
            return found
        found["constant_held_out_loss"] = (self._constant_losses, "held")
        found["constant_train_loss"] = (self._constant_losses, "trained")
        judge: Any = self._asked.judge
        y = judge.score.y[: self._asked.rows]
        tiled = [np.tile(said, (len(y), 1)) for said in self._said]
        for start, shown in (("", self._shown), ("constant_", tiled)):
            for name, of in (("held_out_score", "held"), ("train_score", "trained")):
                each_row = [
                    row_scores(getattr(judge.score, "name", ""), a, y, np.flatnonzero(mask))
                    for a, mask in zip(shown, self._masks[of], strict=True)
                ]
                if each_row[0] is not None:
                    found[start + name] = (np.array(each_row), of)
        return found

    def _scores(self, times: dict[str, np.ndarray], networks: Any) -> dict[str, float]:
        """Means over networks of a score that is no mean over rows, of rows that count so often."""
        found: dict[str, list[float]] = {}
        for name, of in (("held_out_score", "held"), ("train_score", "trained")):
            for network, own in zip(np.arange(len(self._shown))[networks], times[of], strict=True):
                rows = np.repeat(np.arange(len(own)), own)
                found.setdefault(name, []).append(self._asked.scored(self._shown[network][rows], rows))
                # whatever rows are drawn, such a score of always saying the same hardly changes
                found.setdefault(f"constant_{name}", []).append(self._constant_scores[of][network])
        return {name: float(np.mean(values)) for name, values in found.items()}

    @cached_property
    def _constant_scores(self) -> dict[str, list[float]]:
        """What always saying the same scores on the rows of each network."""
        rows = {of: [np.flatnonzero(mask) for mask in masks] for of, masks in self._masks.items()}
        return {
            of: [
                self._asked.scored(np.tile(said, (len(own), 1)), own)
                for said, own in zip(self._said, each, strict=True)
            ]
            for of, each in rows.items()
        }

    @cached_property
    def _constant_losses(self) -> np.ndarray:
        """The compiled loss of each row where always the same is said, of (networks, rows)."""
        kind, shape = self._asked.judge.kind, np.shape(self._outputs[0])
        found = []
        for said in self._said:
            if kind != "numbers":
                said = np.log(np.clip(said, _SURE, 1)) if puts_out_logits(self._model) else said
                said = said[1:] - (said[0] if puts_out_logits(self._model) else 0) if kind == "binary" else said
                width = shape[-1] if kind == "classes" else 1
                missing = np.log(_SURE) if puts_out_logits(self._model) else 0.0  # classes that no row has
                said = np.concatenate([said, np.full(width - len(said), missing)])
            outputs = np.broadcast_to(said.reshape(shape[1:]), shape).astype("float32")
            found.append(self._loss_of(self._rows, outputs))
        return np.array(found)

    @property
    def constant_loss(self) -> float | None:
        """The mean held-out loss of always saying the same; None where that has no meaning."""
        if not self._scored:
            return None
        loss = float(weighted(self._constant_losses, self._masks["held"].astype(int)))
        return loss if np.isfinite(loss) else None

    @cached_property
    def _proper(self) -> np.ndarray | None:
        """Squared error of each target, or log loss, of (networks, rows, targets), whatever the compiled loss is."""
        kind, y = self._asked.judge.kind, self._rows.y
        if kind == "other":
            return None
        if kind == "numbers":
            errors = self._shown.reshape(len(self._shown), len(y), -1) - y.reshape(len(y), -1)
            return np.square(errors).astype("float32")  # there may be a thousand of each row
        right = np.take_along_axis(self._shown, self._asked.classes[None, : len(y), None], -1)  # type: ignore[index]
        return -np.log(np.clip(right, _SURE, 1))

    @cached_property
    def calibration(self) -> Calibration | None:
        """What they say of the rows that each has not seen, on average where several have not."""
        kind = self._asked.judge.kind
        if kind == "other":
            return None
        rows = [np.flatnonzero(held) for held in self._masks["held"]]
        said, of = mean_of_each_row([a[own] for a, own in zip(self._shown, rows, strict=True)], rows)
        return calibration(said, self._rows.y[of], kind)

    @cached_property
    def weights(self) -> pd.DataFrame:
        """A row for each kernel."""
        of_all = zip(*self._fitted, strict=True)
        return kernels({v.path: a for v, a in zip(self._own, of_all, strict=True) if v.trainable and len(v.shape) > 1})
