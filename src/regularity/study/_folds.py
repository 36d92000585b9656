"""Which rows train and which are held out: folds of several kinds, checked before anything compiles."""

import numbers
import warnings
from dataclasses import replace
from typing import Any

import numpy as np
from sklearn.model_selection import GroupKFold, KFold, StratifiedGroupKFold, StratifiedKFold

from regularity.data import Data, class_weights, each, gather, is_stream
from regularity.population._train import checked_data, checked_validation
from regularity.study._scores import labels, target_kind


def data_and_splits(
    model: Any,
    x: Any,
    y: Any,
    folds: Any,
    groups: Any,
    validation: Any,
    sample_weight: Any,
    class_weight: Any,
    seed: int,
) -> tuple[Data, list[tuple[np.ndarray, np.ndarray]]]:
    """All rows, and for each fold the rows to train on and those held out."""
    if is_stream(x):
        if validation is None:
            raise ValueError("Expected `validation_data` with a stream, since a stream has no folds.")
        extra = [name for name, value in (("y", y), ("sample_weight", sample_weight)) if value is not None]
        if extra:
            raise ValueError(
                f"Expected a stream to bring targets and weights itself, as `(x, y)` or `(x, y, sample_weight)`. Received: also {extra}."
            )
        read = gather(x)
        x, y, sample_weight = read.x, read.y, read.sample_weight
    data = checked_data(model, x, y, sample_weight, class_weight)
    if data.y is None:
        raise ValueError("Expected targets `y` to score held-out rows by. Received: y=None.")
    if validation is not None:
        if groups is not None:
            raise ValueError(
                "Expected no `groups` beside `validation_data`: it says itself which rows of a group are held out. "
                "Leave out one of the two."
            )
        held = checked_validation(model, validation)
        assert held is not None
        both = Data(
            each(_below_each_other, data.x, held.x),
            each(_below_each_other, data.y, held.y),
        )
        held_weight = _weights_of_held_out(model, data, held, sample_weight, class_weight)
        if data.sample_weight is not None:
            both = replace(both, sample_weight=each(_below_each_other, data.sample_weight, held_weight))
        return both, [(np.arange(data.rows), np.arange(data.rows, both.rows))]
    return data, _folds(model, data, folds, groups, seed)


def _weights_of_held_out(model: Any, data: Data, held: Data, sample_weight: Any, class_weight: Any) -> Any:
    """Weights of validation rows in the refit, which trains on them too: theirs, or else what training rows have."""
    if held.sample_weight is not None and sample_weight is None:
        raise ValueError(
            "Expected `validation_data` as (x, y) without weights, since scores count each row once. Received: also a "
            "sample_weight. Leave it out, or give `sample_weight` too: both then weight the rows of the refit."
        )
    if class_weight is not None:
        return class_weights(model, held.y, class_weight, of=data.y)
    if held.sample_weight is not None:
        return held.sample_weight
    return each(lambda a: np.full((held.rows, *a.shape[1:]), a.mean(), a.dtype), data.sample_weight)


def _below_each_other(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.concatenate([a, b.reshape(-1, *a.shape[1:])])  # a last axis of 1 may be there or not


def _folds(model: Any, data: Data, folds: Any, groups: Any, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    rows = np.arange(data.rows)
    if groups is not None and np.shape(groups)[:1] != (data.rows,):
        raise ValueError(
            f"Invalid value received for argument `groups`. Expected a group for each of the {data.rows} rows. "
            f"Received: groups of shape {np.shape(groups)}. Pass one name or number a row, in the order of x."
        )
    classes = labels(data.y) if target_kind(model, data) in ("classes", "binary") else None
    if isinstance(folds, numbers.Integral):
        if not 2 <= int(folds) <= data.rows:
            raise ValueError(
                f"Invalid value received for argument `folds`. Expected a number from 2 to the number of rows, {data.rows}. Received: folds={folds}"
            )
        if groups is not None and len(np.unique(groups)) < int(folds):
            raise ValueError(
                f"Invalid value received for argument `groups`. Expected at least as many groups as folds, {folds}, since no "
                f"group is in two folds. Received: {len(np.unique(groups))} groups. Take fewer folds."
            )
        kinds = (StratifiedGroupKFold, GroupKFold) if groups is not None else (StratifiedKFold, KFold)
        stratify = classes is not None and np.bincount(classes).max() >= folds
        folds = kinds[0 if stratify else 1](folds, shuffle=True, random_state=seed)
    if hasattr(folds, "split") and not isinstance(folds, str):
        with warnings.catch_warnings():  # a class with fewer rows than folds is in some of them only
            warnings.filterwarnings("ignore", message="The least populated class", category=UserWarning)
            targets = data.y if isinstance(data.y, np.ndarray) else np.zeros(data.rows)
            splits = list(folds.split(rows, classes if classes is not None else targets, groups))
    else:
        splits = _checked_splits(folds)
    for number, (train_rows, held) in enumerate(splits):
        both = np.concatenate([train_rows, held])
        if (
            not len(train_rows)
            or not len(held)
            or both.min() < 0
            or both.max() >= data.rows
            or np.intersect1d(train_rows, held).size
        ):
            raise ValueError(
                f"Invalid value received for argument `folds`. Expected training and held-out rows from 0 to {data.rows - 1}, none in both. "
                f"Received: fold {number} with {len(train_rows)} and {len(held)} rows, from {both.min(initial=0)} to {both.max(initial=0)}."
            )
        torn = (
            [] if groups is None else np.intersect1d(np.asarray(groups)[train_rows], np.asarray(groups)[held]).tolist()
        )
        if torn:
            raise ValueError(
                f"Invalid value received for argument `folds`. Expected no group on both sides of a fold. Received: fold {number} with "
                f"rows of {torn[0]!r} in both. Pass how many folds, or a splitter that minds groups, such as GroupKFold."
            )
    if len(splits) < 2:
        raise ValueError(
            "Expected at least two folds, to know the error of a score. Pass the one split as `validation_data` instead."
        )
    return splits


def _checked_splits(folds: Any) -> list[tuple[np.ndarray, np.ndarray]]:
    """The rows of a list of splits; whether they are within the data is checked with those of all kinds of folds."""
    try:
        splits = [(np.asarray(rows), np.asarray(held)) for rows, held in folds]
        if all(part.ndim == 1 and (part.dtype.kind in "iu" or not part.size) for split in splits for part in split):
            return splits
    except (TypeError, ValueError):
        pass
    raise ValueError(
        "Invalid value received for argument `folds`. Expected how many, a splitter of scikit-learn, or a list of "
        f"(training rows, held-out rows), each a list of whole numbers. Received: folds={folds!r:.200}"
    )


def checked_seed(seed: Any) -> int:
    """A whole number that scikit-learn takes as one."""
    if isinstance(seed, numbers.Integral) and not isinstance(seed, bool) and 0 <= int(seed) < 2**32:
        return int(seed)
    raise ValueError(
        f"Invalid value received for argument `seed`. Expected a whole number from 0 to {2**32 - 1}. Received: seed={seed!r}"
    )
