"""The two programs of the post that the library starts from, with nothing changed but what they import."""

import keras
import numpy as np
import pytest

import regularity as rg

pytestmark = pytest.mark.filterwarnings("ignore:Do not pass an `input_shape`/`input_dim` argument:UserWarning")

ROWS, FEATURES, CLASSES = 320, 100, 10


def data():
    rng = np.random.default_rng(0)
    labels = rng.integers(CLASSES, size=ROWS)
    centres = rng.normal(size=(CLASSES, FEATURES))
    x = centres[labels] + rng.normal(size=(ROWS, FEATURES))
    return x.astype("float32"), np.eye(CLASSES, dtype="float32")[labels]


def with_penalties(regularizers):
    from keras.layers import Dense
    from keras.models import Sequential

    model = Sequential()
    model.add(Dense(64, input_dim=FEATURES, activation="relu", kernel_regularizer=regularizers.l1(0.01)))
    model.add(Dense(64, activation="relu", kernel_regularizer=regularizers.l2(0.01)))
    model.add(Dense(CLASSES, activation="softmax"))
    return model


def with_dropout(layers):
    from keras.layers import Dense
    from keras.models import Sequential

    model = Sequential()
    model.add(Dense(64, input_dim=FEATURES, activation="relu"))
    model.add(layers.Dropout(0.5))
    model.add(Dense(64, activation="relu"))
    model.add(layers.Dropout(0.5))
    model.add(Dense(CLASSES, activation="softmax"))
    return model


def losses(program, components):
    keras.utils.set_random_seed(1)
    model = program(components)
    model.compile(loss="categorical_crossentropy", optimizer="adam", metrics=["accuracy"])
    x, y = data()
    history = model.fit(x, y, epochs=10, batch_size=32, verbose=0).history
    assert np.isfinite(history["loss"]).all()
    return history["loss"]


def test_program_with_l1_and_l2_trains_as_with_keras():
    ours = losses(with_penalties, rg.regularizers)
    assert ours[-1] < 0.8 * ours[0]
    # A hundred steps of Adam; the two programs differ in nothing but the order of some roundings.
    np.testing.assert_allclose(ours, losses(with_penalties, keras.regularizers), rtol=1e-4)


def test_program_with_dropout_trains_as_with_keras():
    ours, stock = losses(with_dropout, rg.layers), losses(with_dropout, keras.layers)
    assert ours[-1] < 0.8 * ours[0]
    # The same masks on JAX; elsewhere others of the same law, so that only the course is alike.
    np.testing.assert_allclose(ours, stock, rtol=1e-4 if keras.backend.backend() == "jax" else 0.35)
