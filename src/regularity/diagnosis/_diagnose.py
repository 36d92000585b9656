"""`rg.diagnose`: checks what is asked, has the members trained, and says what follows."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import keras
import numpy as np

from regularity.data import Data, each
from regularity.diagnosis._asked import Asked
from regularity.diagnosis._diagnosis import Diagnosis, few_rows, next_of, reasons_of, table_of, verdict_of
from regularity.diagnosis._history import of_history
from regularity.diagnosis._networks import Networks
from regularity.diagnosis._references import references
from regularity.diagnosis._runs import RANDOM_SEEDS, SHARES, Runs
from regularity.population._progress import Progress
from regularity.population._tasks import Plan
from regularity.population._train import checked_count, checked_init, checked_seeds
from regularity.population._worker import call_elsewhere
from regularity.recipe import sites_of
from regularity.study._folds import checked_seed, data_and_splits
from regularity.study._scores import check_on_folds, quiet_scorers, scoring
from regularity.study._space import brought

_RANDOM_ROWS = 10_000  # that are taught with random labels at most
_SEEDS = 5  # with `validation_data`


def diagnose(
    model: Any,
    x: Any = None,
    y: Any = None,
    *,
    folds: Any = 5,
    epochs: int = 50,
    seeds: int | Sequence[int] | None = None,
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
    strength at 0, where it brings any; and on labels dealt out at random. A random forest is grown on the same folds, on
    some of the rows where that would take long, and not for many targets.

    Args:
        model: A compiled Keras model, which is not touched; or what `fit` returned, and then nothing else: one run says
            less.
        x: Arrays, data frames or tensors of (rows, ...), or a dict or list of them; a stream is read into memory once.
        y: Targets likewise.
        folds: How many, from 2, a splitter of scikit-learn, or a list of (training rows, held-out rows). Stratified for
            classes; ignored with `validation_data`.
        epochs: How long members train, from 1: as long as you would.
        seeds: How many seeds, or which: by default one a fold (of several, scores are averaged), and five with
            `validation_data`, where at least two are needed.
        score: A name or scorer of scikit-learn, or `loss`; by default accuracy for classes, R² for numbers, and the loss,
            without penalties, for all else.
        groups: Group of each row; no group is in two folds. Not beside `validation_data`.
        batch_size: Rows of a step, from 1.
        validation_data: Held-out rows in place of folds, `(x, y)` or a stream. Errors are then over seeds and over
            these rows.
        init: `fresh` or `keep`, as in `rg.train`.
        sample_weight: Weights of (rows,) in training; scores count every row once.
        class_weight: Mapping from class to weight, or `balanced`, likewise.
        seed: Whole number from 0, which sets all that is random; the same seed gives the same diagnosis.
        verbose: As in `rg.train`.

    Returns:
        The diagnosis.

    Raises:
        TypeError: If `model` is neither a model of Keras's nor a history.
        ValueError: If model and data don't fit each other, all targets are the same, or the model as given diverges; with
            a history, if it has no losses of both training and validation, or any other argument stands beside it.

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
        _check_alone(locals())
        return of_history(model)
    sites_of(model)  # says what it lacks
    if x is None:
        raise ValueError("Expected rows `x` and targets `y` to train on, or a history. Received: x=None.")
    seed = checked_seed(seed)
    data, splits = data_and_splits(model, x, y, folds, groups, validation_data, sample_weight, class_weight, seed)
    folded, rows = validation_data is None, data.rows
    numbers = _seeds(seeds, folded, seed)
    data = _with_random_labels(data, splits[0][0], seed)
    judge = scoring(model, data, score)
    check_on_folds(judge, [held for _, held in splits], "fold" if folded else "set")
    plan = Plan(
        data, checked_count(batch_size, "batch_size"), fresh=checked_init(init) == "fresh", seen=True,
        scores=(judge.score,) if judge.score == "loss" else (judge.score, "loss"), full_steps=True,
    )  # fmt: skip
    cells = [(train, held, number) for train, held in splits for number in numbers]
    units = len(splits) if folded else len(numbers)
    asked = Asked(
        data, rows, cells, folded, units, judge, plan, checked_count(epochs, "epochs"),
        None if groups is None else np.asarray(groups), seed,
    )  # fmt: skip
    _check_targets(asked)
    members = len(cells) * (len(SHARES) + bool(brought(model))) + RANDOM_SEEDS
    with Progress(members + len(cells), (members + len(cells)) * asked.epochs, verbose) as progress:
        if keras.backend.backend() == "jax":
            return _diagnose(model, asked, progress.advance)
        found = call_elsewhere(model, _diagnosis_or_error, (asked,), progress.advance)
    if isinstance(found, ValueError):
        raise found
    return found


def _check_alone(given: Mapping[str, Any]) -> None:
    """See that nothing stands beside a history."""
    usual = inspect.signature(diagnose).parameters
    others = [name for name, value in given.items() if name != "model" and value is not usual[name].default]
    if others:
        raise ValueError(f"Expected a history alone, or a model with rows. Received: a history with {others}.")


def _seeds(seeds: Any, folded: bool, seed: int) -> list[int]:
    """Of the members of a fold, apart for each `seed`."""
    numbers = checked_seeds((1 if folded else _SEEDS) if seeds is None else seeds)
    if not folded and len(numbers) < 2:
        raise ValueError(
            "Invalid value received for argument `seeds`. Expected at least two with `validation_data`, to know the error "
            f"of a score. Received: seeds={seeds}"
        )
    return [(seed * 1_000_003 + n) % 2**31 for n in numbers]


def _check_targets(asked: Asked) -> None:
    if asked.said is not None and (asked.said[: asked.rows] == asked.said[0]).all():
        raise ValueError(
            f"Expected targets `y` that differ: there is nothing to learn else. Received: {asked.rows} rows, all with "
            f"{np.asarray(asked.data.y[0]).tolist()}. See which column y is, and whether rows are sorted by it and cut."
        )


def _with_random_labels(data: Data, rows: np.ndarray, seed: int) -> Data:
    """The data, and below them some rows with targets of others: what can be learnt of those is learnt by heart.

    A weight goes with its target, since it may be that of a class.
    """
    random = np.random.default_rng(seed)
    some = random.permutation(rows)[:_RANDOM_ROWS]
    copy, dealt = data.take(some), random.permutation(len(some))
    y, weight = (each(lambda a: a[dealt], part) for part in (copy.y, copy.sample_weight))
    parts = ((data.x, copy.x), (data.y, y), (data.sample_weight, weight))
    return Data(*(each(lambda a, b: np.concatenate([a, b]), *both) for both in parts))


def _diagnosis_or_error(model: Any, asked: Asked, advance: Callable[[int], None]) -> Diagnosis | ValueError:
    """For another process, which would put a traceback around what is to be said."""
    try:
        return _diagnose(model, asked, advance)
    except ValueError as error:
        return error


def _diagnose(model: Any, asked: Asked, advance: Callable[[int], None]) -> Diagnosis:
    """Train, measure, and say; on JAX in this process."""
    with quiet_scorers():
        runs = Runs(model, asked, advance)
        networks = Networks(model, asked, runs.fitted())
        measured = networks.measured() | runs.measured(networks.constant_loss)
        measured |= references(asked, runs, measured["parameters"][0])
    table = table_of(measured)
    verdict = verdict_of(table)
    reasons = reasons_of(table, asked.judge.name, runs.epochs, asked.epochs)
    reasons += few_rows(min(len(held) for _, held in asked.splits))
    then = next_of(verdict, table, runs.epochs, asked.epochs, list(brought(model)))
    return Diagnosis(
        verdict, reasons, then, asked.judge.name, runs.epochs, table, runs.curves, runs.shares, networks.calibration, networks.weights
    )  # fmt: skip
