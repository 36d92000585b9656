"""What tells models and data of two studies apart."""

import keras
import numpy as np
import pytest
from keras import layers

from regularity.study._question import description, digest


def two_branches(swapped=False, units=4, loss_weights=None, loss="mse", optimizer="adam", names=(None, None)):
    inputs = keras.Input((3,))
    first, second = layers.Dense(units, "relu", name=names[0]), layers.Dense(units, "relu", name=names[1])
    a, b = first(inputs), second(inputs)
    joined = layers.Concatenate()([b, a] if swapped else [a, b])
    model = keras.Model(inputs, [layers.Dense(1)(joined), layers.Dense(1)(a)])
    model.compile(optimizer, [loss, "mse"], loss_weights=loss_weights)
    return model


def test_a_model_that_is_built_twice_is_the_same():
    assert description(two_branches()) == description(two_branches())
    assert description(two_branches(loss=keras.losses.Huber(0.5))) == description(
        two_branches(loss=keras.losses.Huber(0.5))
    )


@pytest.mark.parametrize(
    "other",
    [
        {"swapped": True},
        {"units": 5},
        {"loss_weights": [1.0, 0.5]},
        {"loss": "mae"},
        {"loss": keras.losses.Huber(2.0)},
        {"optimizer": "sgd"},
        {"optimizer": keras.optimizers.Adam(0.1)},
    ],
    ids=["wiring", "units", "loss_weights", "loss", "argument of the loss", "optimizer", "learning rate"],
)
def test_another_model_is_another(other):
    assert description(two_branches(**other)) != description(two_branches())


def test_losses_that_differ_in_an_argument_are_two():
    assert description(two_branches(loss=keras.losses.Huber(0.5))) != description(
        two_branches(loss=keras.losses.Huber(2.0))
    )


def test_a_subclassed_model_without_a_configuration_has_a_description():
    class Own(keras.Model):
        def __init__(self, units):
            super().__init__()
            self.dense, self.last = layers.Dense(units), layers.Dense(1)

        def call(self, x):
            return self.last(self.dense(x))

    def built(units):
        model = Own(units)
        model(np.zeros((1, 3), "float32"))
        model.compile("adam", lambda y, p: (y - p) ** 2)
        return model

    assert description(built(4)) == description(built(4))
    assert description(built(4)) != description(built(5))


def test_arrays_differ_by_value_shape_and_type():
    ones = np.ones((2, 3), "float32")
    digests = {digest([a]) for a in (ones, ones + 1, ones.T, ones.astype("float64"), "ones", None)}
    assert len(digests) == 6
    assert digest([ones]) == digest([ones[:, ::-1]])
