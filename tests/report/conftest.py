"""A study to be looked at, searched once for all tests of the report."""

import keras
import numpy as np
import pytest

import regularity as rg


@pytest.fixture(scope="session")
def study():
    """Two techniques on a network for two classes, which brings dropout of its own."""
    keras.utils.set_random_seed(0)
    random = np.random.default_rng(0)
    x = random.normal(size=(96, 6)).astype("float32")
    y = (x[:, 0] + random.normal(size=96) > 0).astype("int64")
    layers = [
        keras.layers.Dense(16, "relu", name="hidden"),
        keras.layers.Dropout(0.2),
        keras.layers.Dense(2, "softmax"),
    ]
    model = keras.Sequential([keras.Input((6,)), *layers], name="network")
    model.compile("adam", "sparse_categorical_crossentropy")
    return rg.search(
        model, x, y, ["l2", "dropout", "max_norm"], trials=14, folds=4, epochs=6, storage="sqlite://", name="</script><b>&", verbose=0
    )  # fmt: skip
