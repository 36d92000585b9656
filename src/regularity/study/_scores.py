"""Scores of outputs on held-out rows: never with a penalty in them, and higher is better."""

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy.stats import rankdata
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.exceptions import UndefinedMetricWarning
from sklearn.metrics import get_scorer, get_scorer_names

from regularity import _keras
from regularity._keras import loss_name
from regularity.data import Data
from regularity.study._warnings import ignoring

_EPSILON = 1e-7  # Keras clips probabilities at this before the logarithm
Kind = Literal["classes", "binary", "numbers", "other"]


@dataclass(frozen=True)
class Scoring:
    """How held-out rows are scored.

    Args:
        name: Of the score, as scikit-learn calls it, or `loss` for the compiled loss without penalties, negated.
        kind: What the targets are: classes, two classes with a single output, numbers, or something else.
        score: For the population: a function of outputs of (members, rows, ...), rows and which of them count.
    """

    name: str
    kind: Kind
    score: Callable[[Any, np.ndarray, np.ndarray], np.ndarray] | Literal["loss"]


def target_kind(model: Any, data: Data) -> Kind:
    """What a model with one output predicts, by the loss it was compiled with."""
    loss = _keras.compiled_loss(model)
    if isinstance(data.y, (dict, list)) or data.y is None or isinstance(loss, (dict, list, tuple)):
        return "other"
    name, y = loss_name(loss), data.y
    column = y.ndim == 1 or (y.ndim == 2 and y.shape[-1] == 1)
    if "sparse_categorical" in name:
        return "classes" if column and getattr(loss, "ignore_class", None) is None else "other"
    if "categorical" in name:
        return "classes" if y.ndim == 2 and y.shape[-1] > 1 else "other"
    if "binary" in name or "hinge" in name:
        return "binary" if column and np.isin(y, (-1, 0, 1)).all() else "other"
    return "numbers" if _is_one_number_a_target(model, y) else "other"


def _is_one_number_a_target(model: Any, y: np.ndarray) -> bool:
    """Whether the model puts out as many numbers as there are targets; a loss of the user's own may take anything."""
    outputs = getattr(model, "outputs", None) or []
    shape = tuple(outputs[0].shape[1:]) if len(outputs) == 1 else ()
    return None in shape or not outputs or (len(outputs) == 1 and math.prod(shape) == math.prod(y.shape[1:]))


def _are_labels(model: Any, y: Any) -> bool:
    """Whether targets are several labels a row, each of which it has or has not."""
    loss = _keras.compiled_loss(model)
    if not isinstance(y, np.ndarray) or y.ndim != 2 or y.shape[-1] < 2 or isinstance(loss, (dict, list, tuple)):
        return False
    return "binary" in loss_name(loss) and bool(np.isin(y, (0, 1)).all()) and _is_one_number_a_target(model, y)


def scoring(model: Any, data: Data, score: Any = None) -> Scoring:
    """Return how to score `model` on rows of `data`.

    Args:
        model: The compiled model.
        data: All rows, with their targets.
        score: A name or scorer of scikit-learn, `loss`, or None: accuracy for classes, R² for numbers, else the loss. For
            several labels a row those that scikit-learn has for them, such as `f1_macro`, `roc_auc` or `average_precision`.

    Raises:
        ValueError: If the score is unknown, or is not one of such targets.
    """
    kind = target_kind(model, data)
    if score is None:
        score = {"classes": "accuracy", "binary": "accuracy", "numbers": "r2", "other": "loss"}[kind]
    if score == "loss":
        return Scoring("loss", kind, "loss")
    of: Kind | Literal["labels"] = "labels" if kind == "other" and _are_labels(model, data.y) else kind
    if of == "other":
        raise ValueError(
            f"Invalid value received for argument `score`. Expected 'loss', since the model has several outputs, or "
            f"targets that are neither one class, nor labels of 0 and 1, nor one number for each output. Received: score={score!r}"
        )
    name = score if isinstance(score, str) else getattr(getattr(score, "_score_func", score), "__name__", "score")
    if not isinstance(score, str) and not callable(score):
        raise TypeError(f"Expected `score` to be a name or a scorer of scikit-learn. Received: {score!r}")
    if isinstance(score, str) and score not in get_scorer_names():
        raise ValueError(
            f"Invalid value received for argument `score`. Expected 'loss' or one of scikit-learn's "
            f"{sorted(get_scorer_names())}. Received: score={score!r}"
        )
    y = data.y if of == "numbers" else np.asarray(data.y, "int64") if of == "labels" else labels(data.y)
    probabilities = to_probabilities(model, of)
    if isinstance(score, str) and _is_fast(score, of, model):
        return Scoring(name, kind, _Fast(name, kind, y, probabilities))
    own = _Any(score, y, of, probabilities)
    try:
        good = own.of(*_good_outputs(y, of, y), y)
        if of == "labels" and good < own.of(np.full(y.shape, 0.99), y):
            raise ValueError("it is best for outputs that are 1 for every label")
    except Exception as error:  # scikit-learn raises anything here, from ValueError to AttributeError
        raise ValueError(
            f"Invalid value received for argument `score`. Expected one that takes {of if of in ('numbers', 'labels') else 'classes'} "
            f"such as these targets. Received: score={score!r}, which says: {error}"
        ) from error
    return Scoring(name, kind, own)


def _is_fast(score: str, of: str, model: Any) -> bool:
    """Whether a score is one that is computed for all members at once."""
    if score == "roc_auc":  # of two classes
        outputs = getattr(model, "outputs", None) or []
        return of == "binary" or (of == "classes" and len(outputs) == 1 and outputs[0].shape[-1] == 2)
    return of != "labels" and score in _FAST["numbers" if of == "numbers" else "classes"]


def proper(model: Any, data: Data, judge: Scoring) -> Scoring | None:
    """A score that is best for the true probabilities, to stand beside one of classes; None where that is such a score.

    Where every class counts the same, however rare, it does here too.
    """
    if judge.kind not in ("classes", "binary") or judge.name in ("neg_log_loss", "log_loss", "loss"):
        return None
    balanced = ("balanced_accuracy", "balanced_accuracy_score")  # by name, and as a scorer calls it
    name = "balanced_log_loss" if judge.name in balanced else "neg_log_loss"
    return Scoring(name, judge.kind, _Fast(name, judge.kind, labels(data.y), to_probabilities(model, judge.kind)))


def check_on_folds(judge: Scoring, folds: Sequence[np.ndarray], what: str = "fold") -> None:
    """See that a score can be computed on the rows of each fold, whatever the model puts out.

    Args:
        judge: How to score.
        folds: Rows of each.
        what: What they are, for the message.

    Raises:
        ValueError: If it can't, with the fold and what it has.
    """
    if not isinstance(judge.score, (_Fast, _Any)):
        return
    whole = judge.score.y
    for number, rows in enumerate(folds):
        y, says = whole[rows], ""
        try:
            with quiet_scorers():
                value = judge.score.of(*_good_outputs(y, judge.score.kind, whole), y)
        except Exception as error:  # as in `scoring`
            value, says = math.nan, f" It says: {error}"
        if not math.isfinite(value):
            has = f" of classes {np.unique(y).tolist()}" if judge.kind in ("classes", "binary") else ""
            raise ValueError(
                f"The score is not a number on the held-out rows of {what} {number}: {judge.name} can't be computed from "
                f"{len(y)} row{'s' * (len(y) != 1)}{has}. {'Take fewer folds' if what == 'fold' else 'Give more rows'}, or "
                f"another with `score`.{says}"
            )


@contextlib.contextmanager
def quiet_scorers() -> Iterator[None]:
    """Have scikit-learn not warn of each member that says one class only, or the like.

    For the thread that waits for the lanes, not for each of them.
    """
    with ignoring({"category": UndefinedMetricWarning}, {"module": r"sklearn\."}):
        yield


def labels(y: np.ndarray) -> np.ndarray:
    """Classes of (rows,), from whole numbers, a column of them, or one-hot rows."""
    if y.ndim > 1:
        y = y[..., 0] if y.shape[-1] == 1 else y.argmax(-1)
    return np.maximum(np.round(y), 0).astype("int64")  # a hinge's classes may be -1 and 1


def _good_outputs(y: np.ndarray, kind: str, whole: np.ndarray) -> tuple[np.ndarray]:
    """Outputs that are close to the targets `y`, some of the whole, as probabilities where those are classes."""
    if kind == "numbers":
        return (y.reshape(len(y), -1) + np.float32(0.25),)
    if kind == "labels":
        return (0.9 * y + 0.05,)
    classes = max(int(whole.max()) + 1, 2)
    return (np.eye(classes)[y] * 0.9 + 0.1 / classes,)


def puts_out_logits(model: Any) -> bool:
    """Whether the loss takes logits, or margins: of a hinge, too, what is above 0, or the largest, is the class."""
    loss = _keras.compiled_loss(model)
    logits = getattr(loss, "from_logits", getattr(loss, "_fn_kwargs", {}).get("from_logits", False))
    return bool(logits) or "hinge" in loss_name(loss)


def to_probabilities(model: Any, kind: str) -> Callable[[np.ndarray], np.ndarray]:
    """What turns outputs into probabilities of (..., classes), or one for each label; numbers stay as they are."""
    logits = puts_out_logits(model)

    def classes(outputs: np.ndarray) -> np.ndarray:
        powers = np.exp(outputs - outputs.max(-1, keepdims=True)) if logits else outputs
        return powers / np.maximum(powers.sum(-1, keepdims=True), _EPSILON)  # as Keras's losses do

    def binary(outputs: np.ndarray) -> np.ndarray:
        second = outputs[..., 0] if outputs.shape[-1:] == (1,) else outputs
        second = of_labels(second)
        return np.stack([1 - second, second], -1)

    def of_labels(outputs: np.ndarray) -> np.ndarray:
        return np.exp(-np.logaddexp(0, -outputs)) if logits else outputs

    return {"classes": classes, "binary": binary, "labels": of_labels}.get(kind, lambda outputs: outputs)


def _squares(outputs: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.square(outputs.reshape(y.shape) - y).reshape(*y.shape[:2], -1).mean(-1)


def _accuracy(outputs: np.ndarray, y: np.ndarray, valid: np.ndarray) -> np.ndarray:
    return _mean(outputs.argmax(-1) == y, valid)


def _balanced_accuracy(outputs: np.ndarray, y: np.ndarray, valid: np.ndarray) -> np.ndarray:
    return _mean_of_classes(outputs.argmax(-1) == y, y, valid)


def _log_loss(outputs: np.ndarray, y: np.ndarray, valid: np.ndarray) -> np.ndarray:
    return _mean(_log_of_right(outputs, y), valid)


def _balanced_log_loss(outputs: np.ndarray, y: np.ndarray, valid: np.ndarray) -> np.ndarray:
    return _mean_of_classes(_log_of_right(outputs, y), y, valid)


def _log_of_right(outputs: np.ndarray, y: np.ndarray) -> np.ndarray:
    right = np.take_along_axis(outputs, y[..., None], -1)[..., 0]
    return np.log(np.clip(right, _EPSILON, 1))


def _roc_auc(outputs: np.ndarray, y: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Of two classes: Mann and Whitney's share of pairs in which the second is ranked above the first, 1947."""
    second, padding = valid & (y == 1), (~valid).sum(1)  # which is ranked below all
    ranks = rankdata(np.where(valid, outputs[..., 1], -np.inf), axis=1)
    many = second.sum(1)
    above = np.where(second, ranks, 0).sum(1) - many * padding - many * (many + 1) / 2
    pairs = many * (valid.sum(1) - many)
    return np.where(pairs > 0, above / np.maximum(pairs, 1), np.nan)


def _r2(outputs: np.ndarray, y: np.ndarray, valid: np.ndarray) -> np.ndarray:
    flat = y.reshape(*y.shape[:2], -1)
    error, centre = _mean_columns(np.square(outputs.reshape(flat.shape) - flat), valid), _mean_columns(flat, valid)
    spread = _mean_columns(np.square(flat - centre[:, None]), valid)
    constant = spread == 0  # there scikit-learn says 1 where nothing is wrong, else 0
    scores = np.where(constant, error == 0, 1 - error / np.where(constant, 1, spread))
    return np.where(valid.sum(1) < 2, np.nan, scores.mean(-1))


def _root_mean_square(outputs: np.ndarray, y: np.ndarray, valid: np.ndarray) -> np.ndarray:
    squares = np.square(outputs.reshape(y.shape) - y).reshape(*y.shape[:2], -1)
    return np.sqrt(_mean_columns(squares, valid)).mean(-1)


def _mean(values: np.ndarray, valid: np.ndarray) -> np.ndarray:
    return np.where(valid, values, 0).sum(1, dtype="float64") / valid.sum(1)


def _mean_of_classes(values: np.ndarray, y: np.ndarray, valid: np.ndarray) -> np.ndarray:
    means, there = [], []
    for label in np.unique(y[valid]):
        of_class = valid & (y == label)
        sums = np.where(of_class, values, 0).sum(1, dtype="float64")
        means.append(sums / np.maximum(of_class.sum(1), 1))
        there.append(of_class.any(1))  # a class that a member has no rows of does not count
    return np.sum(means, 0) / np.sum(there, 0)


def _mean_columns(values: np.ndarray, valid: np.ndarray) -> np.ndarray:
    return np.where(valid[..., None], values, 0).sum(1, dtype="float64") / valid.sum(1)[:, None]


# The scores that are read most, over all members at once: a scorer of scikit-learn takes a millisecond for each.
_FAST: dict[str, dict[str, Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]]] = {
    "classes": {
        "accuracy": _accuracy,
        "balanced_accuracy": _balanced_accuracy,
        "neg_log_loss": _log_loss,
        "balanced_log_loss": _balanced_log_loss,  # not one of scikit-learn's
        "roc_auc": _roc_auc,  # of two classes
    },
    "numbers": {
        "r2": _r2,
        "neg_mean_squared_error": lambda o, y, valid: -_mean(_squares(o, y), valid),
        "neg_root_mean_squared_error": lambda o, y, valid: -_root_mean_square(o, y, valid),
    },
}


@dataclass(frozen=True)
class _Fast:
    name: str
    kind: Kind
    y: np.ndarray
    probabilities: Callable[[np.ndarray], np.ndarray]

    def __call__(self, outputs: Any, rows: np.ndarray, valid: np.ndarray) -> np.ndarray:
        with np.errstate(
            over="ignore", invalid="ignore"
        ):  # a member that diverges gives NaN, which is reported as such
            return self._score(self.probabilities(np.asarray(outputs)), self.y[rows], valid)

    def of(self, shown: np.ndarray, y: np.ndarray) -> float:
        """Score numbers or probabilities of (rows, ...)."""
        return float(self._score(shown[None], y[None], np.ones((1, len(y)), bool))[0])

    @property
    def _score(self) -> Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]:
        return _FAST["numbers" if self.kind == "numbers" else "classes"][self.name]


@dataclass(frozen=True)
class _Any:
    scorer: Any
    y: np.ndarray
    kind: Kind | Literal["labels"]
    probabilities: Callable[[np.ndarray], np.ndarray]

    def __call__(self, outputs: Any, rows: np.ndarray, valid: np.ndarray) -> np.ndarray:
        found = []
        for member in range(len(rows)):
            shown = np.asarray(outputs)[member][valid[member]]
            score = np.nan
            if np.isfinite(shown).all():
                # a score that every fold has may still miss something in a sample of training rows, or in these outputs
                with contextlib.suppress(Exception):
                    score = self.of(self.probabilities(shown), self.y[rows[member][valid[member]]])
            found.append(score)
        return np.array(found)

    def of(self, shown: np.ndarray, y: np.ndarray) -> float:
        """Score numbers or probabilities of (rows, ...)."""
        if self.kind == "labels":
            estimator = _Labels()
        else:
            estimator = _Numbers() if self.kind == "numbers" else _Classes(np.unique(self.y))
        return float(get_scorer(self.scorer)(estimator, shown, y))


class _Numbers(RegressorMixin, BaseEstimator):
    """A fitted regressor whose inputs are its outputs, for scikit-learn's scorers."""

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def predict(self, outputs: np.ndarray) -> np.ndarray:
        return outputs[..., 0] if outputs.shape[-1:] == (1,) else outputs


class _Classes(ClassifierMixin, BaseEstimator):
    """A fitted classifier whose inputs are its probabilities, for scikit-learn's scorers."""

    def __init__(self, classes: np.ndarray | None = None) -> None:
        self.classes = classes

    @property
    def classes_(self) -> Any:
        return self.classes

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def predict_proba(self, probabilities: np.ndarray) -> np.ndarray:
        shown = probabilities[:, self.classes_]
        return shown / np.maximum(shown.sum(-1, keepdims=True), _EPSILON)

    def predict(self, probabilities: np.ndarray) -> np.ndarray:
        return probabilities.argmax(-1)


class _Labels(ClassifierMixin, BaseEstimator):
    """A fitted classifier of several labels whose inputs are the probabilities of each, for scikit-learn's scorers."""

    classes_ = ((0, 1), (0, 1))  # by which scikit-learn sees that there are several, however many

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def predict_proba(self, probabilities: np.ndarray) -> np.ndarray:
        return probabilities

    def predict(self, probabilities: np.ndarray) -> np.ndarray:
        return (probabilities > 0.5).astype("int64")
