"""Small networks and data for the tests of populations; each network is built with stock strengths, as a user would."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

CLASSES = 3


def penalty(l1: float, l2: float) -> Any:
    """Keras's own regularizer with these strengths, or None."""
    if l1 and l2:
        return keras.regularizers.L1L2(l1, l2)
    return keras.regularizers.L1(l1) if l1 else keras.regularizers.L2(l2) if l2 else None


def compiled(
    model: Any, optimizer: Any = "adam", loss: Any = "sparse_categorical_crossentropy", metrics: Any = ("accuracy",)
) -> Any:
    model.compile(optimizer, loss, metrics=None if metrics is None else list(metrics))
    return model


def dense(
    l1: float = 0.0,
    l2: float = 0.0,
    dropout: float = 0.0,
    optimizer: Any = "adam",
    loss: Any = "sparse_categorical_crossentropy",
) -> Any:
    layers = [
        keras.Input((6,)),
        keras.layers.Dense(16, "relu", kernel_regularizer=penalty(l1, l2), name="hidden"),
        keras.layers.Dropout(dropout, name="drop"),
        keras.layers.Dense(CLASSES, "softmax", kernel_regularizer=penalty(l1, l2), name="out"),
    ]
    return compiled(keras.Sequential(layers), optimizer, loss)


def one_hot(l1: float = 0.0, l2: float = 0.0, dropout: float = 0.0) -> Any:
    return dense(l1, l2, dropout, loss="categorical_crossentropy")


def normalized(l1: float = 0.0, l2: float = 0.0, dropout: float = 0.0) -> Any:
    layers = [
        keras.Input((6,)),
        keras.layers.Dense(16, kernel_regularizer=penalty(l1, l2)),
        keras.layers.BatchNormalization(),
        keras.layers.Activation("relu"),
        keras.layers.Dropout(dropout, name="drop"),
        keras.layers.Dense(CLASSES, "softmax", kernel_regularizer=penalty(l1, l2)),
    ]
    return compiled(keras.Sequential(layers), metrics=None)


def recurrent(l1: float = 0.0, l2: float = 0.0, dropout: float = 0.0) -> Any:
    both = penalty(l1, l2)
    layers = [
        keras.Input((5, 4)),
        keras.layers.LSTM(6, kernel_regularizer=both, recurrent_regularizer=both),
        keras.layers.Dropout(dropout, name="drop"),
        keras.layers.Dense(CLASSES, "softmax", kernel_regularizer=both),
    ]
    return compiled(keras.Sequential(layers))


def convolutional(l1: float = 0.0, l2: float = 0.0, dropout: float = 0.0) -> Any:
    both = penalty(l1, l2)
    layers = [
        keras.Input((6, 6, 1)),
        keras.layers.Conv2D(4, 3, activation="relu", kernel_regularizer=both),
        keras.layers.Flatten(),
        keras.layers.Dropout(dropout, name="drop"),
        keras.layers.Dense(CLASSES, "softmax", kernel_regularizer=both),
    ]
    return compiled(keras.Sequential(layers))


def two_outputs(l1: float = 0.0, l2: float = 0.0, dropout: float = 0.0) -> Any:
    both = penalty(l1, l2)
    inputs = keras.Input((6,))
    hidden = keras.layers.Dense(16, "relu", kernel_regularizer=both)(inputs)
    hidden = keras.layers.Dropout(dropout, name="drop")(hidden)
    kind = keras.layers.Dense(CLASSES, "softmax", kernel_regularizer=both, name="kind")(hidden)
    size = keras.layers.Dense(1, kernel_regularizer=both, name="size")(hidden)
    model = keras.Model(inputs, {"kind": kind, "size": size})
    model.compile(
        "adam",
        {"kind": "sparse_categorical_crossentropy", "size": "mse"},
        loss_weights={"kind": 1.0, "size": 0.5},
        metrics={"kind": ["accuracy"], "size": ["mae"]},
    )
    return model


class OwnStep(keras.Model):
    """A model with its own `train_step` on JAX: half of Keras's gradient is taken."""

    def train_step(self, state: Any, data: Any) -> Any:
        import jax

        trainable, non_trainable, optimizer, metrics = state
        x, y, weight = keras.utils.unpack_x_y_sample_weight(data)
        gradient = jax.value_and_grad(self.compute_loss_and_updates, has_aux=True)
        (_, aux), grads = gradient(
            trainable, non_trainable, metrics, x, y, weight, training=True, optimizer_variables=optimizer
        )
        grads = [g / 2 for g in grads]
        unscaled, y_pred, non_trainable, metrics = aux
        trainable, optimizer = self.optimizer.stateless_apply(optimizer, grads, trainable)
        logs, metrics = self._update_metrics_variables(metrics, unscaled, x, y, y_pred, weight)
        return logs, (trainable, non_trainable, optimizer, metrics)


def own_step(l1: float = 0.0, l2: float = 0.0, dropout: float = 0.0) -> Any:
    inputs = keras.Input((6,))
    hidden = keras.layers.Dense(16, "relu", kernel_regularizer=penalty(l1, l2))(inputs)
    hidden = keras.layers.Dropout(dropout, name="drop")(hidden)
    outputs = keras.layers.Dense(CLASSES, "softmax", kernel_regularizer=penalty(l1, l2))(hidden)
    return compiled(OwnStep(inputs, outputs), "sgd")


def rows(count: int = 80, shape: tuple[int, ...] = (6,)) -> tuple[Any, Any]:
    """Data of three classes that a network can learn, but not at once."""
    random = np.random.default_rng(0)
    x = random.normal(size=(count, *shape)).astype("float32")
    y = (x.reshape(count, -1)[:, :CLASSES] + random.normal(scale=0.5, size=(count, CLASSES))).argmax(1).astype("int32")
    return x, y


def solo(build: Callable[..., Any], user: Any, applied: Any, strengths: dict[str, float]) -> Any:
    """The stock model with stock strengths, the user's weights, and the seed of its dropout as `applied` has it."""
    stock = build(**strengths)
    stock.set_weights(user.get_weights())
    if strengths.get("dropout"):
        stock.get_layer("drop").seed_generator.state.assign(applied.get_layer("drop").seed_generator.state)
    return stock


def distance(ours: Any, theirs: Any) -> float:
    """The largest difference between two models' weights, or lists of them."""
    ours, theirs = (w if isinstance(w, list) else w.get_weights() for w in (ours, theirs))
    return max(float(np.abs(np.asarray(a) - np.asarray(b)).max()) for a, b in zip(ours, theirs, strict=True))
