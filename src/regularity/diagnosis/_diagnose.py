"""`rg.diagnose`: the trainings that tell over- from underfitting, all of one population."""

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, Literal, NamedTuple

import keras
import numpy as np
import pandas as pd

from regularity import _keras
from regularity.data import Data, each
from regularity.diagnosis._diagnosis import (
    Diagnosis,
    next_of,
    of_history,
    reasons_of,
    table_of,
    verdict_of,
)
from regularity.population._progress import Progress
from regularity.population._tasks import Outcome, Plan, Task
from regularity.population._train import (
    Trainer,
    checked_count,
    checked_init,
    checked_seeds,
    strengths_for,
    with_recipe,
)
from regularity.population._worker import call_elsewhere
from regularity.recipe import Recipe, sites_of
from regularity.recipe._regularized import as_given
from regularity.study._choosing import paired_error
from regularity.study._evidence import Calibration, calibration, kernels
from regularity.study._folds import checked_seed, data_and_splits
from regularity.study._rule import best_epoch, interval, judged_by_others
from regularity.study._scores import Scoring, check_on_folds, labels, quiet_scorers, scoring, to_probabilities
from regularity.study._space import brought

_SHARES = (0.25, 0.5, 1.0)  # of a fold's rows to train on
_RANDOM_SEEDS = 2  # members that are taught random labels
_RANDOM_ROWS = 10_000  # that they are taught at most
_DRAWS = 200  # of a bootstrap
_FOREST = 3_000_000  # numbers in x beyond which no forest is grown beside the network
_MOVED, _MOVES, _MOVED_ROWS = 0.05, 4, 1000  # how far a kernel is moved, how often, on how many rows

_LEVEL = 0.9

Interval = tuple[float, float, float]


class _Asked(NamedTuple):
    """What is to be diagnosed, all arguments checked.

    Args:
        data: All rows, and below them a copy of some whose targets were dealt out at random.
        rows: How many there are without the copy.
        cells: For each member as given the rows to train on, the held-out rows and its seed; seeds within folds.
        units: Over how many folds, or seeds where there are no folds, an error is computed.
        share: Held-out rows over training rows; 0 where all train on the same.
        judge: How rows are scored.
        plan: How members train.
        epochs: How long.
        groups: The group of each row, or None.
        seed: Sets all that is random.
    """

    data: Data
    rows: int
    cells: list[tuple[np.ndarray, np.ndarray, int]]
    units: int
    share: float
    judge: Scoring
    plan: Plan
    epochs: int
    groups: np.ndarray | None
    seed: int

    @property
    def splits(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """The rows to train on and held out of each unit."""
        return [cell[:2] for cell in self.cells[:: max(1, len(self.cells) // self.units)]]

    @property
    def said(self) -> np.ndarray | None:
        """The targets as a model that is right would put them out, of (rows, classes or numbers); None if scored by a loss."""
        if self.judge.kind == "other" or self.judge.score == "loss":
            return None
        if self.judge.kind == "numbers":
            return self.data.y.reshape(self.data.rows, -1)
        classes = labels(self.data.y)
        return np.eye(int(classes.max()) + 1)[classes]

    def scored(self, shown: np.ndarray, rows: np.ndarray) -> float:
        """The score of numbers or probabilities of (rows, ...)."""
        judge: Any = self.judge.score
        return judge.of(shown, judge.y[rows])


def diagnose(
    model: Any,
    x: Any = None,
    y: Any = None,
    *,
    folds: Any = 5,
    epochs: int = 50,
    seeds: int | Sequence[int] = 1,
    score: Any = None,
    groups: Any = None,
    batch_size: int = 32,
    validation_data: Any = None,
    init: Literal["fresh", "keep"] = "fresh",
    sample_weight: Any = None,
    class_weight: Mapping[int, float] | Literal["balanced"] | None = None,
    seed: int = 0,
    verbose: bool | int | Literal["auto"] = "auto",
) -> Diagnosis:
    """Say whether a network overfits, underfits, or neither, what that rests on, and what to do next.

    Trained on folds, all at once: the model as given, on all rows of a fold, half and a quarter of them; with every
    strength at 0, where it brings any; and on labels dealt out at random. A random forest is grown on the same folds.

    Args:
        model: A compiled Keras model, which is not touched; or what `fit` returned, and then nothing else: one run says
            less.
        x: Arrays, data frames or tensors of (rows, ...), or a dict or list of them; a stream is read into memory once.
        y: Targets likewise.
        folds: How many, from 2, a splitter of scikit-learn, or a list of (training rows, held-out rows). Stratified for
            classes; ignored with `validation_data`.
        epochs: How long members train, from 1: as long as you would.
        seeds: How many seeds a fold (averaged), or which.
        score: A name or scorer of scikit-learn, or `loss`; by default accuracy for classes, R² for numbers, and the loss,
            without penalties, for all else.
        groups: Group of each row; no group is in two folds. Not beside `validation_data`.
        batch_size: Rows of a step, from 1.
        validation_data: Held-out rows in place of folds, `(x, y)` or a stream. Errors are then over seeds, five by default.
        init: `fresh` or `keep`, as in `rg.train`.
        sample_weight: Weights of (rows,) in training; scores count every row once.
        class_weight: Mapping from class to weight, or `balanced`, likewise.
        seed: Whole number from 0, which sets all that is random; the same seed gives the same diagnosis.
        verbose: As in `rg.train`.

    Returns:
        The diagnosis.

    Raises:
        TypeError: If `model` is neither a model of Keras's nor a history.
        ValueError: If model and data don't fit each other, or the model as given diverges; with a history, if it
            has no losses of both training and validation.

    Example:
        >>> import keras, numpy as np, regularity as rg
        >>> rng = np.random.default_rng(0)
        >>> x = rng.normal(size=(80, 20)); y = (x[:, 0] + rng.normal(size=80) > 0).astype(int)
        >>> model = keras.Sequential([keras.Input((20,)), keras.layers.Dense(64, "relu"), keras.layers.Dense(2, "softmax")])
        >>> model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy")
        >>> rg.diagnose(model, x, y, epochs=30).verdict
        'over'

    Murata, Yoshizawa and Amari, "Network information criterion", 1994, and Akaike, "Fitting autoregressive models for
    prediction", 1969, for the effective number of parameters; Zhang et al., "Understanding deep learning requires
    rethinking generalization", 2017, for random labels.
    """
    if isinstance(model, (keras.callbacks.History, Mapping)):
        if x is not None or y is not None or validation_data is not None:
            raise ValueError("Expected a history alone, or a model with rows. Received: a history with rows.")
        return of_history(model)
    sites_of(model)  # says what it lacks
    if x is None:
        raise ValueError("Expected rows `x` and targets `y` to train on, or a history. Received: x=None.")
    seed = checked_seed(seed)
    data, splits = data_and_splits(model, x, y, folds, groups, validation_data, sample_weight, class_weight, seed)
    folded = validation_data is None
    own_seeds = checked_seeds(5 if not folded and seeds == 1 else seeds)
    if not folded and len(own_seeds) < 2:
        raise ValueError(
            "Invalid value received for argument `seeds`. Expected at least two with `validation_data`, to know the error "
            f"of a score. Received: seeds={seeds}"
        )
    rows = data.rows
    data = _with_random_labels(data, splits[0][0], seed)
    judge = scoring(model, data, score)
    check_on_folds(judge, [held for _, held in splits], "fold" if folded else "set")
    numbers = [(seed * 1_000_003 + n) % 2**31 for n in own_seeds]
    cells = [(train, held, number) for train, held in splits for number in numbers]
    asked = _Asked(
        data, rows, cells, len(splits) if folded else len(numbers),
        float(np.mean([len(held) / len(train) for train, held in splits])) if folded else 0.0,
        judge,
        Plan(
            data, checked_count(batch_size, "batch_size"), fresh=checked_init(init) == "fresh", seen=True,
            scores=(judge.score,) if judge.score == "loss" else (judge.score, "loss"), full_steps=True,
        ),
        checked_count(epochs, "epochs"), None if groups is None else np.asarray(groups), seed,
    )  # fmt: skip
    members = len(cells) * (len(_SHARES) + bool(brought(model))) + _RANDOM_SEEDS
    with Progress(members + len(cells), (members + len(cells)) * asked.epochs, verbose) as progress:
        if keras.backend.backend() == "jax":
            return _diagnose(model, asked, progress.advance)
        return call_elsewhere(model, _diagnose, (asked,), progress.advance)


def _with_random_labels(data: Data, rows: np.ndarray, seed: int) -> Data:
    """The data, and below them some rows with targets of others: what can be learnt of those is learnt by heart."""
    random = np.random.default_rng(seed)
    some = random.permutation(rows)[:_RANDOM_ROWS]
    copy, dealt = data.take(some), random.permutation(len(some))
    parts = ((data.x, copy.x), (data.y, each(lambda a: a[dealt], copy.y)), (data.sample_weight, copy.sample_weight))
    return Data(*(each(lambda a, b: np.concatenate([a, b]), *both) for both in parts))


def _diagnose(model: Any, asked: _Asked, advance: Callable[[int], None]) -> Diagnosis:
    """Train, measure, and say; on JAX in this process."""
    with quiet_scorers():
        runs = _Runs(model, asked, advance)
        networks = _Networks(model, asked, runs.fitted())
        constant = _constant(asked)
        measured = networks.measured(constant) | runs.measured() | _references(asked, runs, constant)
        table = table_of(measured)
    verdict = verdict_of(table)
    reasons = reasons_of(table, asked.judge.name, runs.epochs, asked.epochs)
    then = next_of(verdict, table, runs.epochs, asked.epochs, list(brought(model)))
    return Diagnosis(
        verdict, reasons, then, asked.judge.name, runs.epochs, table, runs.curves, runs.shares, networks.calibration, networks.weights
    )  # fmt: skip


class _Curves(NamedTuple):
    """The scores of a variant after each epoch, of (units, epochs, scores): the user's first, the loss, negated, last."""

    held_out: np.ndarray
    seen: np.ndarray

    def row(self, epoch: int | slice) -> dict[str, Any]:
        """Mean over units, as a diagnosis shows it."""
        (score, loss), (own, own_loss) = (a.mean(0)[epoch].T[[0, -1]] for a in (self.held_out, self.seen))
        return {"held_out": score, "train": own, "held_out_loss": -loss, "train_loss": -own_loss}


class _Runs:
    """All members in training, and their curves."""

    def __init__(self, model: Any, asked: _Asked, advance: Callable[[int], None]) -> None:
        self._asked, self._advance = asked, advance
        off = brought(model)
        self._given, plain = strengths_for(model, sites_of(model), [Recipe({}), Recipe(off)])
        tasks = {share: [self._task(self._given, cell, share) for cell in asked.cells] for share in _SHARES}
        variants: dict[Any, list[Task]] = dict(tasks)
        if off:
            variants["plain"] = [self._task(plain, cell) for cell in asked.cells]
        copied, held = np.arange(asked.rows, asked.data.rows), asked.cells[0][1]
        variants["random labels"] = [
            self._task(self._given, (copied, held, asked.cells[0][2] + n)) for n in range(_RANDOM_SEEDS)
        ]
        queue = [task for tasks in variants.values() for task in tasks]
        self._trainer = Trainer(model, asked.plan, len(queue))
        outcomes = iter(self._trainer.train_here(queue, advance))
        self._found = {name: self._curves([next(outcomes) for _ in tasks]) for name, tasks in variants.items()}
        given = self._found[1.0]
        finite = np.isfinite(given.held_out).all((0, 2)) & np.isfinite(given.seen).all((0, 2))
        if not finite.all():
            raise ValueError(
                f"Expected a model that trains for {asked.epochs} epochs. Received one that diverges: in epoch "
                f"{int(finite.argmin()) + 1} weights or loss cease to be finite. Lower the learning rate, clip the gradients "
                "(`clipnorm`), or scale the inputs."
            )
        self.epochs = 1 + best_epoch(given.held_out[..., 0].mean(0), False)

    def _task(self, strengths: dict[str, float], cell: tuple[np.ndarray, np.ndarray, int], share: float = 1.0) -> Task:
        rows, held, seed = cell
        rows = self._some(rows)[: max(1, round(share * len(rows)))] if share < 1 else rows
        return Task(strengths, seed, self._asked.epochs, rows=rows, held_out=(held,), keep_weights=False)

    def _some(self, rows: np.ndarray) -> np.ndarray:
        """Rows in an order of which each beginning has as much of each class."""
        rows = np.random.default_rng(self._asked.seed).permutation(rows)
        if self._asked.judge.kind not in ("classes", "binary"):
            return rows
        classes, place = labels(self._asked.data.y)[rows], np.zeros(len(rows))
        for label in np.unique(classes):
            mine = np.flatnonzero(classes == label)
            place[mine] = (np.arange(len(mine)) + 0.5) / len(mine)
        return rows[np.argsort(place, kind="stable")]

    def _curves(self, outcomes: Sequence[Outcome]) -> _Curves:
        units = min(self._asked.units, len(outcomes))
        held = np.array([[sets[0] for sets in outcome.held_out] for outcome in outcomes], "float64")
        seen = np.array([outcome.seen for outcome in outcomes], "float64")
        return _Curves(
            *(np.where(np.isfinite(a), a, np.nan).reshape(units, -1, *a.shape[1:]).mean(1) for a in (held, seen))
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
        for share in _SHARES:
            curves = self._found[share]
            at = best_epoch(curves.held_out[..., 0].mean(0), False)
            error = float(paired_error(curves.held_out[:, at, 0], self._asked.share))
            found.append({"share": share, "rows": round(share * rows), **curves.row(at), "error": error})
        return pd.DataFrame(found)

    def training_score(self) -> np.ndarray:
        """Of the model as given after the number of epochs that suits it, of (units,)."""
        return self._found[1.0].seen[:, self.epochs - 1, 0]

    def held_out_score(self) -> np.ndarray:
        return self._found[1.0].held_out[:, self.epochs - 1, 0]

    def random_score(self) -> float:
        """Mean training score on random labels, the best of all epochs."""
        return float(np.nanmax(self._found["random labels"].seen[..., 0].mean(0)))

    def measured(self) -> dict[str, Interval]:
        """What the curves say, each as value and interval over folds or seeds."""
        share = self._asked.share
        losses = {name: -curves.held_out[..., -1] for name, curves in self._found.items()}
        given = losses[1.0]
        lowest = judged_by_others(-given)
        found = {"after_best": _interval(given[:, -1] + lowest, share)}
        if np.isfinite(losses[0.5]).all():
            found["half_the_rows"] = _interval(lowest - judged_by_others(-losses[0.5]), share)
        width = max(1, self._asked.epochs // 10)
        quarter = self._asked.epochs - max(1, self._asked.epochs // 4)
        if quarter >= width:
            gained = given[:, quarter - width : quarter].mean(1) - given[:, -width:].mean(1)
            learnt = abs(float(given[:, 0].mean() - given.mean(0).min())) or 1.0
            found["last_quarter"] = _interval(gained / learnt, share)
        if "plain" in self._found:
            scores = [self._found[name].held_out[..., 0] for name in ("plain", 1.0)]
            found["without_regularization"] = _interval(
                judged_by_others(scores[0]) - judged_by_others(scores[1]), share
            )
        return {name: values for name, values in found.items() if np.isfinite(values[0])}


def _interval(values: np.ndarray, share: float) -> Interval:
    return interval(values, share, _LEVEL)


def _exact(value: float) -> Interval:
    return value, value, value


def _constant(asked: _Asked) -> np.ndarray | None:
    """What always saying the same scores on each unit's held-out rows, of (units,); None where that has no meaning."""
    if asked.said is None:
        return None
    return np.array([asked.scored(_mean(asked.said[rows], len(held)), held) for rows, held in asked.splits])


def _mean(said: np.ndarray, rows: int) -> np.ndarray:
    return np.tile(said.mean(0), (rows, 1))


def _references(asked: _Asked, runs: _Runs, constant: np.ndarray | None) -> dict[str, Interval]:
    """What a random forest scores on the same folds, beside the network, and what can be learnt by heart."""
    if constant is None or asked.said is None:
        return {}
    copied = np.arange(asked.rows, asked.data.rows)
    found = {
        "over_constant": _interval(runs.held_out_score() - constant, asked.share),
        "random_labels": _exact(runs.random_score()),
        "random_labels_by_chance": _exact(asked.scored(_mean(asked.said[copied], len(copied)), copied)),
    }
    if isinstance(asked.data.x, np.ndarray) and asked.data.x.size <= _FOREST:
        shown = _forests(asked, asked.said)
        forest = np.array([asked.scored(a, held) for a, (_, held) in zip(shown, asked.splits, strict=True)])
        found["forest"] = _interval(forest - runs.held_out_score(), asked.share)
        found["forest_over_training"] = _interval(forest - runs.training_score(), asked.share)
    return found


def _forests(asked: _Asked, said: np.ndarray) -> list[np.ndarray]:
    """What a random forest predicts of each unit's held-out rows: probabilities of classes, or numbers."""
    from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor

    x, weights = asked.data.x.reshape(asked.data.rows, -1), asked.data.sample_weight
    classes = asked.judge.kind != "numbers"
    found: dict[bytes, np.ndarray] = {}  # where seeds take the place of folds, all units have the same rows
    for rows, held in asked.splits:
        if held.tobytes() in found:
            continue
        own = weights[rows] if isinstance(weights, np.ndarray) and weights.ndim == 1 else None
        forest: Any = (RandomForestClassifier if classes else RandomForestRegressor)(random_state=asked.seed, n_jobs=-1)
        if classes:
            shown = np.zeros((len(held), said.shape[1]))
            forest.fit(x[rows], said[rows].argmax(-1), own)
            shown[:, forest.classes_] = forest.predict_proba(x[held])
        else:
            forest.fit(x[rows], said[rows] if said.shape[1] > 1 else said[rows, 0], own)
            shown = forest.predict(x[held]).reshape(len(held), -1)
        found[held.tobytes()] = shown
    return [found[held.tobytes()] for _, held in asked.splits]


class _Networks:
    """The model as given, trained in each cell: what it puts out for every row, and its weights."""

    def __init__(self, model: Any, asked: _Asked, weights: list[list[np.ndarray]]) -> None:
        self._asked, self._model = asked, model
        self._network = with_recipe(model, Recipe({}))
        self._fitted = weights
        self._own = as_given(self._network)
        rows = asked.data.take(np.arange(asked.rows))
        _keras.symbolic_build(self._network, rows.take(slice(0, 1)).batch())
        self._rows = rows
        self._held = np.array([np.isin(np.arange(asked.rows), held) for _, held, _ in asked.cells])
        self._trained = np.array([np.isin(np.arange(asked.rows), train) for train, _, _ in asked.cells])
        self._outputs, self._losses, moved = [], [], []
        for which, own in enumerate(weights):
            self._take(own)
            self._outputs.append(self._predict(rows))
            self._losses.append(self._loss_of(rows, self._outputs[-1]))
            moved.append(self._rise(which))
        self._moved = np.array(moved)

    def _take(self, weights: list[np.ndarray]) -> None:
        for variable, value in zip(self._own, weights, strict=True):
            variable.assign(value)

    def _predict(self, data: Data) -> Any:
        return self._network.predict(data.x, batch_size=256, verbose=0)

    def _loss_of(self, data: Data, outputs: Any) -> np.ndarray:
        """The compiled loss of each row."""
        return np.asarray(_keras.row_losses(self._network, data.y, outputs), "float64")

    def _rise(self, which: int) -> float:
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
            rises.append(self._loss_of(rows, self._predict(rows)).mean() - self._losses[which][some].mean())
        return float(np.mean(rises))

    def measured(self, constant: np.ndarray | None) -> dict[str, Interval]:
        """Scores, losses and what follows from them, with intervals by drawing rows, or groups, anew.

        Args:
            constant: What always saying the same scores, of (units,), or None.
        """
        asked = self._asked
        random = np.random.default_rng(asked.seed)
        names = np.arange(asked.rows) if asked.groups is None else np.unique(asked.groups, return_inverse=True)[1]
        count = int(names.max()) + 1
        least = None if constant is None else float(constant.mean())
        value = self._on(np.ones(asked.rows, int), least)
        drawn = [
            self._on(np.bincount(random.integers(0, count, count), minlength=count)[names], least)
            for _ in range(_DRAWS)
        ]
        found = {}
        for name, at in value.items():
            others = np.array([draw.get(name, np.nan) for draw in drawn])
            others = others[np.isfinite(others)]
            low, high = np.quantile(others, [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2]) if len(others) else (np.nan, np.nan)
            found[name] = (at, float(low), float(high))
        parameters = float(sum(np.prod(v.shape) for v in self._model.trainable_variables))
        found["parameters"] = _exact(parameters)
        units = self._moved.reshape(asked.units, -1).mean(1)
        return found | {"sharpness": _interval(units, asked.share)}

    def _on(self, counts: np.ndarray, constant: float | None) -> dict[str, float]:
        """What is measured where each row counts so often."""
        held, trained = self._held * counts, self._trained * counts
        with np.errstate(invalid="ignore", divide="ignore"):
            out, own = (float(((np.array(self._losses) * w).sum(1) / w.sum(1)).mean()) for w in (held, trained))
        found = {"held_out_loss": out, "train_loss": own, "loss_gap": out - own}
        if self._asked.judge.score != "loss":
            scores = [self._score(weights) for weights in (held, trained)]
            found |= {"held_out_score": scores[0], "train_score": scores[1], "gap": scores[1] - scores[0]}
            if constant is not None and scores[1] > constant:
                found["gap_share"] = found["gap"] / (scores[1] - constant)
        if self._proper is not None:
            out, own = (float(((self._proper * w).sum(1) / w.sum(1)).mean()) for w in (held, trained))
            rows = float(np.mean(self._trained.sum(1)))
            squares = self._asked.judge.kind == "numbers"
            found["effective_parameters"] = rows * (out - own) / ((out + own) if squares else 1.0)
        return found

    def _score(self, weights: np.ndarray) -> float:
        """Mean over networks of the score on rows, each so often, of (networks, rows)."""
        judge: Any = self._asked.judge.score
        found = []
        for outputs, times in zip(self._outputs, weights, strict=True):
            rows = np.repeat(np.arange(len(times)), times)
            shown = each(lambda a, rows=rows: a[rows][None], outputs)
            found.append(judge(shown, rows[None], np.ones((1, len(rows)), bool))[0] if len(rows) else np.nan)
        return float(np.mean(found))

    @cached_property
    def _proper(self) -> np.ndarray | None:
        """Squared error or log loss of each row, of (networks, rows), whatever the compiled loss is."""
        kind, y = self._asked.judge.kind, self._rows.y
        if kind == "other":
            return None
        outputs = np.array(self._outputs, "float64")
        if kind == "numbers":
            flat = outputs.reshape(len(outputs), len(y), -1)
            return np.square(flat - y.reshape(len(y), -1)).mean(-1)
        shown = to_probabilities(self._model, kind)(outputs)
        right = np.take_along_axis(shown, labels(y)[None, :, None], -1)[..., 0]
        return -np.log(np.clip(right, 1e-7, 1))

    @cached_property
    def calibration(self) -> Calibration | None:
        """What they say of the rows that each has not seen."""
        kind, y = self._asked.judge.kind, self._rows.y
        if kind == "other":
            return None
        shown = to_probabilities(self._model, kind)(np.array(self._outputs, "float64"))
        rows = [np.flatnonzero(held) for held in self._held]
        said = np.concatenate([a[own] for a, own in zip(shown, rows, strict=True)])
        return calibration(said, y[np.concatenate(rows)], kind)

    @cached_property
    def weights(self) -> pd.DataFrame:
        """A row for each kernel."""
        of_all = zip(*self._fitted, strict=True)
        return kernels({v.path: a for v, a in zip(self._own, of_all, strict=True) if v.trainable and len(v.shape) > 1})
