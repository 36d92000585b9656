"""What everyone is timed on: the data, the two programs, and the strengths to try."""

from typing import Any, Literal, NamedTuple

import numpy as np

Kind = Literal["l1l2", "dropout"]
PROGRAMS: dict[Kind, str] = {"l1l2": "L1 and L2", "dropout": "dropout"}
STRENGTHS = 64
ROWS, VALIDATION_ROWS, FEATURES, CLASSES = 2000, 500, 100, 10
WIDTHS = (64, 64)
BATCH = 32
STEPS = -(-ROWS // BATCH)  # of an epoch; the last batch is ragged


class Rows(NamedTuple):
    """Features of (rows, 100) and one-hot labels of (rows, 10)."""

    x: np.ndarray
    y: np.ndarray


def rows() -> tuple[Rows, Rows]:
    """Rows to train on and rows to score on: labels of a linear teacher under noise, so that a network overfits."""
    random = np.random.default_rng(0)
    x = random.normal(size=(ROWS + VALIDATION_ROWS, FEATURES)).astype("float32")
    logits = x @ random.normal(size=(FEATURES, CLASSES))
    labels = (logits + random.normal(scale=5, size=logits.shape)).argmax(1)
    y = np.eye(CLASSES, dtype="float32")[labels]
    return Rows(x[:ROWS], y[:ROWS]), Rows(x[ROWS:], y[ROWS:])


def strengths(kind: Kind, count: int = STRENGTHS) -> list[float]:
    """`count` of the strengths to try, evenly picked from all of them."""
    every = np.linspace(0, 0.8, STRENGTHS) if kind == "dropout" else np.geomspace(1e-6, 1e-1, STRENGTHS)
    picked = np.linspace(0, STRENGTHS - 1, count).round().astype(int)
    return [float(strength) for strength in every[picked]]


def recipe(kind: Kind, strength: float) -> dict[str, float]:
    """What `program(kind, strength)` is trained with, as a recipe for a program of any strength."""
    if kind == "dropout":
        return {"dropout": strength}
    return {"l1@hidden_1/kernel": strength, "l2@hidden_2/kernel": strength}


def program(kind: Kind, strength: float = 0.01, metrics: tuple[str, ...] = ("accuracy",)) -> Any:
    """The program as a stock Keras model, compiled."""
    import keras
    from keras import layers, regularizers

    if kind == "dropout":
        stack = [
            layers.Dense(WIDTHS[0], activation="relu", name="hidden_1"),
            layers.Dropout(strength),
            layers.Dense(WIDTHS[1], activation="relu", name="hidden_2"),
            layers.Dropout(strength),
        ]
    else:
        stack = [
            layers.Dense(WIDTHS[0], activation="relu", name="hidden_1", kernel_regularizer=regularizers.L1(strength)),
            layers.Dense(WIDTHS[1], activation="relu", name="hidden_2", kernel_regularizer=regularizers.L2(strength)),
        ]
    model = keras.Sequential([keras.Input((FEATURES,)), *stack, layers.Dense(CLASSES, activation="softmax")])
    model.compile("adam", "categorical_crossentropy", metrics=list(metrics))
    return model
