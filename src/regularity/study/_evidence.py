"""What a study shows besides its answer, as tidy tables: for figures, for the report, and for whoever wants the numbers."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import keras
import numpy as np
import pandas as pd

from regularity.population._program import NEAR_ZERO
from regularity.study._scores import Kind, labels, target_kind, to_probabilities

if TYPE_CHECKING:
    from regularity.study._study import Study

_BINS = 10  # of a reliability curve, each with as many rows
_STEPS = 40  # of a histogram of weights
_DRAWS = 1000  # of what would be so if every word were true


class Calibration(NamedTuple):
    """Whether what the fold models say can be taken at its word.

    Args:
        kind: `classes` where the model says how sure it is, `numbers` where it says how much.
        bins: A row for each tenth of the held-out rows, by what was said: `predicted` (mean confidence in the class that
            was named, or mean prediction), `observed` (share that was right, or mean target), its `error`, and `rows`.
        error: Expected calibration error, in the unit of the targets (Guo et al. 2017, "On calibration of modern neural
            networks", equation 3, over bins of as many rows).
        chance: What it stays below in 95 % of draws where every word is true: an error is never zero, since bins have few
            rows (Vaicenavicius et al. 2019, "Evaluating model calibration in classification", section 5).
    """

    kind: str
    bins: pd.DataFrame
    error: float
    chance: float


class Evidence:
    """Tables of a study, each made when first read.

    Args:
        study: Whose.
    """

    def __init__(self, study: "Study") -> None:
        self._study = study

    @cached_property
    def strengths(self) -> pd.DataFrame:
        """A row for each technique of each trial: its `strength`, and the trial's `score` and `difference` to the model as given.

        `place` is the share of its range, `alone` whether nothing else that was searched was on, the learning rate included,
        `error` the paired one of the difference.
        """
        found, space = self._study._found, self._study._settled.space
        difference, error = self._study._difference_to_given
        rows = [
            {
                "trial": trial.number,
                "technique": dimension.key,
                "strength": trial.point[dimension.key],
                "place": dimension.place(trial.point[dimension.key]),
                "score": found.at.score[i, 0],
                "difference": difference[i],
                "error": error[i],
                "alone": not any(other.key in trial.point for other in space.dimensions if other is not dimension),
            }
            for dimension in space.dimensions
            for i, trial in enumerate(found.trials)
            if dimension.key in trial.point
        ]
        columns = ["trial", "technique", "strength", "place", "score", "difference", "error", "alone"]
        return pd.DataFrame(rows, columns=columns)

    @cached_property
    def curves(self) -> pd.DataFrame:
        """A row for each variant of the ablation and epoch: mean `held_out` and `train` score, and where it `stopped`."""
        return self._study._ablated().curves

    @cached_property
    def calibration(self) -> Calibration | None:
        """How far what the fold models of the best recipe predict can be taken at its word; None where that has no meaning."""
        study, settled = self._study, self._study._settled
        kind = target_kind(study._model, settled.data)
        if kind == "other" or not self._models:
            return None
        outputs, rows = [], []
        for model, (cell, _) in zip(self._models, study._found.weights, strict=True):
            held = np.concatenate([settled.design.folds[fold] for fold in settled.design.outer[cell].held])
            outputs.append(np.asarray(model.predict(settled.data.take(held).x, batch_size=256, verbose=0)))
            rows.append(held)
        probabilities = to_probabilities(study._model, kind)
        said, of = mean_of_each_row([probabilities(shown.astype("float64")) for shown in outputs], rows)
        return calibration(said, settled.data.y[of], kind)

    @cached_property
    def weights(self) -> pd.DataFrame:
        """A row for each kernel of the best recipe's fold models: `shape`, `norm`, `spectral_norm`, share of `zeros`, histogram.

        `low`, `high` and `counts` are those of the histogram, over all folds; entries below 0.001 count as zero.
        """
        values: dict[str, list[np.ndarray]] = {}
        for model in self._models:
            for variable in _kernels(model):  # of several networks in one model some have the same path
                values.setdefault(variable.path, []).append(keras.ops.convert_to_numpy(variable.value))
        return kernels(values)

    @cached_property
    def _models(self) -> list[Any]:
        """The fold models of the best recipe, as plain Keras."""
        return self._study._fold_models()


def _kernels(model: Any) -> list[Any]:
    return [variable for variable in model.trainable_variables if len(variable.shape) >= 2]


def kernels(values: Mapping[str, Sequence[np.ndarray]]) -> pd.DataFrame:
    """A row for each kernel: `shape`, `norm`, `spectral_norm`, share of `zeros`, and `low`, `high`, `counts` of a histogram.

    Args:
        values: By its name, the kernel as each of some models has it.
    """
    rows = []
    for name, same in values.items():
        stacked = np.stack(same).astype("float64")
        matrices = stacked.reshape(len(stacked), -1, stacked.shape[-1])
        reach = float(np.quantile(np.abs(stacked), 0.999)) or 1.0
        counts, _ = np.histogram(stacked, _STEPS, (-reach, reach))
        rows.append(
            {
                "kernel": name,
                "shape": tuple(stacked.shape[1:]),
                "norm": float(np.linalg.norm(matrices, axis=(1, 2)).mean()),
                "spectral_norm": float(np.linalg.norm(matrices, 2, axis=(1, 2)).mean()),
                "zeros": float((np.abs(stacked) < NEAR_ZERO).mean()),
                "low": -reach,
                "high": reach,
                "counts": (counts / len(stacked)).tolist(),
            }
        )
    columns = ["kernel", "shape", "norm", "spectral_norm", "zeros", "low", "high", "counts"]
    return pd.DataFrame(rows, columns=columns)


def mean_of_each_row(shown: Sequence[np.ndarray], rows: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """What several models say of rows, each row once: the mean of those that speak of it, and which rows these are.

    A row that came several times would count as so many, and what is put down to chance would be too little.

    Args:
        shown: Of each model, of (its rows, ...).
        rows: Of each model, by number.
    """
    said, numbers = np.concatenate(shown), np.concatenate(rows)
    own, place, times = np.unique(numbers, return_inverse=True, return_counts=True)
    sums = np.zeros((len(own), *said.shape[1:]))
    np.add.at(sums, place, said)
    return sums / times.reshape(-1, *[1] * (said.ndim - 1)), own


def calibration(shown: np.ndarray, y: np.ndarray, kind: Kind) -> Calibration | None:
    """Put what was predicted beside what was so.

    Args:
        shown: Probabilities of (rows, classes), or numbers of (rows, ...).
        y: Targets of (rows, ...).
        kind: What they are.
    """
    if kind == "numbers":
        if np.prod(shown.shape[1:]) > 1:  # of several units, perhaps
            return None
        said, so = shown.ravel(), np.asarray(y, "float64").ravel()
    else:
        said, so = shown.max(-1).ravel(), (shown.argmax(-1).ravel() == labels(y)).astype("float64")
    if said.shape != so.shape or not np.isfinite(said).all():
        return None
    bins = [
        {
            "predicted": said[part].mean(),
            "observed": so[part].mean(),
            "error": so[part].std(ddof=1) / np.sqrt(len(part)) if len(part) > 1 else np.nan,
            "rows": len(part),
        }
        for part in _parts(said)
    ]
    random = np.random.default_rng(0)
    if kind == "numbers":
        errors = so - said
        drawn = (said + random.choice(errors - errors.mean(), len(said)) for _ in range(_DRAWS))
    else:
        drawn = ((random.random(len(said)) < said).astype("float64") for _ in range(_DRAWS))
    chance = float(np.quantile([_calibration_error(said, each) for each in drawn], 0.95))
    shown_kind = "numbers" if kind == "numbers" else "classes"
    return Calibration(shown_kind, pd.DataFrame(bins), _calibration_error(said, so), chance)


def _parts(said: np.ndarray) -> list[np.ndarray]:
    """The numbers of rows in each bin, by what was said of them."""
    return [part for part in np.array_split(np.argsort(said, kind="stable"), _BINS) if len(part)]


def _calibration_error(said: np.ndarray, so: np.ndarray) -> float:
    parts = _parts(said)
    return float(sum(abs(said[part].mean() - so[part].mean()) * len(part) for part in parts) / len(said))
