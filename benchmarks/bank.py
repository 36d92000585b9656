"""A bank of candidates, trained once on every fold, pair of folds and refit: what rules of choosing are tried on.

For a data set and a split into outer training rows and test rows, each candidate is trained
    on all outer training rows but two of five folds, for each of the ten pairs: a *cell*, scored on either fold;
    on all but one fold, for each fold: scored on that fold and on the test rows;
    on all of them, with two seeds: scored on the test rows.
All scores after each epoch go to one file for each data set and split; a file that is there is not made again.
"""

import os
import time
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks import datasets

TECHNIQUES = ("weight_decay", "dropout", "label_smoothing", "mixup", "cutmix", "input_noise")
SCORES = ("accuracy", "balanced accuracy", "log loss", "balanced log loss")  # losses are negated: higher is better
FOLDS, REFITS = 5, 2
PAIRS = sorted(combinations(range(FOLDS), 2), key=lambda pair: ((pair[1] - pair[0]) not in (1, FOLDS - 1), pair))
RING = len(PAIRS) // 2  # the first so many pairs are neighbours in a ring, the others two apart
_SINGLES = (0.25, 0.5, 0.75)  # shares of its range at which each technique is tried alone
_WIDTHS, _RATE, _BATCH = (128, 128, 128), 1e-3, 128
_EPSILON = 1e-7


class Bank(NamedTuple):
    """What a file holds.

    Args:
        encoded: Candidates of (candidates, techniques): 0 is off, 0.2 to 1 from the weakest to the strongest.
        pairs: Scores of cells on their two folds, of (candidates, cells, epochs, 2, scores).
        folds: Scores of fold models on their fold, of (candidates, folds, epochs, scores).
        folds_test: Their scores on the test rows, of (candidates, folds, epochs, scores).
        ensemble: Mean of their probabilities for the test rows, of (candidates, epochs, rows, classes).
        refits: Probabilities of refits for the test rows, of (candidates, refits, epochs, rows, classes).
        y_test: Classes of the test rows.
        share: Rows of a fold over rows that a fold model trains on.
        seconds: Of training.
    """

    encoded: np.ndarray
    pairs: np.ndarray
    folds: np.ndarray
    folds_test: np.ndarray
    ensemble: np.ndarray
    refits: np.ndarray
    y_test: np.ndarray
    share: np.ndarray
    seconds: np.ndarray


def cache() -> Path:
    """Where banks are kept unless somebody says where."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "regularity", "banks")


def load(folder: Path, name: str, seed: int) -> Bank:
    file = _file(folder, name, seed)
    with np.load(file) as found:
        bank = Bank(**{key: found[key] for key in Bank._fields})
    if bank.folds.shape[-1] != len(SCORES):
        raise SystemExit(
            f"{file} has {bank.folds.shape[-1]} scores, not {', '.join(SCORES)}: remove it, and it is made anew."
        )
    return bank


def seeds(folder: Path, name: str) -> list[int]:
    """The splits of a data set for which there is a file."""
    return sorted(int(file.stem.rpartition("-")[2]) for file in folder.glob(f"{name}-*.npz"))


def make(folder: Path, name: str, seed: int, candidates: int, epochs: int) -> None:
    """Train the bank of a data set and a split, unless its file is there."""
    file = _file(folder, name, seed)
    if file.exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    bank = train(datasets.split(datasets.LOADERS[name](), seed), seed, candidates, epochs)
    partial = file.with_suffix(f".{os.getpid()}.part")
    with partial.open("wb") as out:
        np.savez_compressed(out, **bank._asdict())
    partial.replace(file)


def train(rows: datasets.Split, seed: int, candidates: int, epochs: int) -> Bank:
    """Train all candidates on all that they are judged by."""
    from sklearn.model_selection import StratifiedKFold

    from regularity.study._space import Space

    begun = time.monotonic()
    space = Space(dict.fromkeys(TECHNIQUES))
    points = drawn(space, candidates, seed)
    x, y = np.concatenate([rows.x, rows.x_test]), np.concatenate([rows.y, rows.y_test])
    every, test = np.arange(len(rows.y)), np.arange(len(rows.y), len(y))
    splitter = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
    folds = [held for _, held in splitter.split(rows.x, rows.y)]
    cells = [(np.setdiff1d(every, np.concatenate([folds[i], folds[j]])), (folds[i], folds[j])) for i, j in PAIRS]
    outer = [(np.setdiff1d(every, fold), (fold, test)) for fold in folds]

    def trained(given: Sequence[Any], keep: int) -> np.ndarray:
        return _trained(x, y, [space.recipe(point, {}) for point in points], given, epochs, keep)

    of_pairs = trained(cells, 0)
    of_folds = trained(outer, len(test))
    of_refits = trained([(every, (test,))] * REFITS, len(test))
    count, shape = len(SCORES), (candidates, -1, epochs, len(test), int(y.max()) + 1)
    return Bank(
        np.array([space.encoded(point) for point in points]),
        of_pairs,
        of_folds[..., 0, :count],
        of_folds[..., 1, :count],
        of_folds[..., 1, count:].mean(1).reshape(shape[:1] + shape[2:]).astype("float16"),
        of_refits[..., 0, count:].reshape(shape).astype("float16"),
        rows.y_test,
        np.array(len(folds[0]) / len(outer[0][0])),
        np.array(time.monotonic() - begun),
    )


def drawn(space: Any, count: int, seed: int) -> list[dict[str, float]]:
    """The candidates: plain, each technique alone, then recipes at random, each technique on or off by a coin."""
    random = np.random.default_rng(seed)
    points: list[dict[str, float]] = [{}, *({d.key: d.strength(p)} for p in _SINGLES for d in space.dimensions)]
    while len(points) < count:
        on = random.random(len(space.dimensions)) < 0.5
        places = random.random(len(space.dimensions))
        points.append({d.key: d.strength(p) for d, p, is_on in zip(space.dimensions, places, on, strict=True) if is_on})
    return points[:count]


def net(features: int, classes: int) -> Any:
    import keras

    hidden = [keras.layers.Dense(width, activation="relu") for width in _WIDTHS]
    model = keras.Sequential([keras.Input((features,)), *hidden, keras.layers.Dense(classes, activation="softmax")])
    model.compile(keras.optimizers.Adam(_RATE), "sparse_categorical_crossentropy")
    return model


def told(y: np.ndarray, keep: int) -> Any:
    """What is read off the outputs for a set of rows: the scores, then the probabilities of its first `keep` rows."""
    classes = int(y.max()) + 1

    def read(outputs: np.ndarray, rows: np.ndarray, valid: np.ndarray) -> np.ndarray:
        truth = y[rows]
        found = scores(np.asarray(outputs), truth, valid)
        kept = np.zeros((len(rows), keep, classes), "float32")
        kept[:, : rows.shape[1]] = outputs[:, :keep]
        return np.concatenate([found, kept.reshape(len(rows), -1)], 1).astype("float32")

    return read


def scores(outputs: np.ndarray, y: np.ndarray, valid: np.ndarray | None = None) -> np.ndarray:
    """Accuracy and negated log loss of probabilities (..., rows, classes), each by row and by class, of (..., scores)."""
    valid = np.ones(y.shape, bool) if valid is None else valid
    right = (outputs.argmax(-1) == y) & valid
    classes = np.arange(outputs.shape[-1])
    of_class = (y[..., None] == classes) & valid[..., None]
    counts = np.maximum(of_class.sum(-2), 1)
    recalls = (right[..., None] & of_class).sum(-2) / counts
    chosen = np.take_along_axis(outputs, np.broadcast_to(y, outputs.shape[:-1])[..., None], -1)[..., 0]
    logs = np.where(valid, np.log(np.clip(chosen.astype("float64"), _EPSILON, 1)), 0)
    count = valid.sum(-1)
    by_class = (logs[..., None] * of_class).sum(-2) / counts
    there = of_class.any(-2).sum(-1)  # classes; the sums of those that these rows lack are 0
    return np.stack(
        [right.sum(-1) / count, recalls.sum(-1) / there, logs.sum(-1) / count, by_class.sum(-1) / there], -1
    )


def _trained(
    x: np.ndarray, y: np.ndarray, recipes: Sequence[Any], cells: Sequence[Any], epochs: int, keep: int
) -> np.ndarray:
    """Every recipe on every cell: what is read after each epoch, of (recipes, cells, epochs, sets, read)."""
    from regularity.data import Data
    from regularity.population._tasks import Plan, Task
    from regularity.population._train import Trainer, strengths_for
    from regularity.recipe import sites_of

    model = net(x.shape[1], int(y.max()) + 1)
    plan = Plan(Data(x, y), _BATCH, scores=(told(y, keep),), full_steps=True)
    strengths = strengths_for(model, sites_of(model), recipes)
    tasks = [
        Task(own, seed, epochs, rows=rows, held_out=held, keep_weights=False)  # candidates share what chance does
        for own in strengths
        for seed, (rows, held) in enumerate(cells)
    ]
    outcomes = Trainer(model, plan, len(tasks)).train_here(tasks, lambda epochs: None)
    found = np.array([outcome.held_out for outcome in outcomes])[..., 0]
    return found.reshape(len(recipes), len(cells), *found.shape[1:])


def _file(folder: Path, name: str, seed: int) -> Path:
    return folder / f"{name}-{seed}.npz"
