"""The main job on data that scikit-learn ships: which strength for a network that overfits, honestly held out."""

import os
from pathlib import Path
from typing import Any

import keras
import numpy as np
from sklearn.datasets import load_diabetes
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import PolynomialFeatures, StandardScaler

TECHNIQUES = ("l2", "dropout")
_SEEDS = 5


def data() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Diabetes progression of 442 patients from 10 measurements, their squares and products; (x, y) to train on, then to test.

    Efron et al. 2004, "Least angle regression", with the same features.
    """
    x, y = load_diabetes(return_X_y=True)
    x = StandardScaler().fit_transform(PolynomialFeatures(2, include_bias=False).fit_transform(x))
    y = (y - y.mean()) / y.std()
    x_train, x_test, y_train, y_test = train_test_split(
        x.astype("float32"), y.astype("float32"), train_size=250, random_state=0
    )
    return x_train, y_train, x_test, y_test


def network(inputs: int) -> keras.Model:
    """A network with a hundred times as many weights as there are rows."""
    model = keras.Sequential(
        [
            keras.Input((inputs,)),
            keras.layers.Dense(128, "relu", name="hidden_1"),
            keras.layers.Dense(128, "relu", name="hidden_2"),
            keras.layers.Dense(1, name="output"),
        ]
    )
    model.compile("adam", "mse")
    return model


def run(folder: str | os.PathLike[str], verbose: Any = "auto") -> tuple[list[dict[str, Any]], list[Path], list[str]]:
    """Vary each technique on the training rows, then score its choices on rows that nothing has seen.

    Args:
        folder: Where the pictures go.
        verbose: As in `rg.train`.

    Returns:
        Rows of the table, the pictures, and each path's answer in words.
    """
    import regularity as rg

    x, y, x_test, y_test = data()
    model = network(x.shape[1])
    paths = [rg.path(model, x, y, technique=technique, strengths=30, verbose=verbose) for technique in TECHNIQUES]
    points = [(path, name, point) for path in paths for name, point in _candidates(path)]
    members = rg.train(model, x, y, [point.recipe for _, _, point in points], seeds=_SEEDS, verbose=verbose)
    rows = []
    for i, (path, name, point) in enumerate(points):
        held_out = [_r2(m.model, x_test, y_test) for m in members[i * _SEEDS : (i + 1) * _SEEDS]]
        rows.append(
            {
                "technique": path.technique,
                "candidate": name,
                "strength": point.strength,
                "epochs": point.epochs,
                "r2_folds": point.score,
                "r2_folds_error": point.error,
                "r2_test": float(np.mean(held_out)),
                "r2_test_error": float(np.std(held_out, ddof=1) / np.sqrt(_SEEDS)),
            }
        )
    pictures = [Path(folder, f"regularity-demo-{path.technique}.png") for path in paths]
    for path, picture in zip(paths, pictures, strict=True):
        path.plot().savefig(picture, dpi=120)
    return rows, pictures, [str(path) for path in paths]


def _candidates(path: Any) -> list[tuple[str, Any]]:
    return [("plain", path.off), ("best", path.best), ("one-SE", path.one_se)]


def _r2(model: keras.Model, x: np.ndarray, y: np.ndarray) -> float:
    # called, since `predict` would compile for each model anew
    predicted = keras.ops.convert_to_numpy(model(x, training=False)).reshape(y.shape)
    return 1 - float(np.square(predicted - y).mean() / y.var())
