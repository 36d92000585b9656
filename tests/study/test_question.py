"""What tells models and data of two studies apart."""

import functools
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import layers
from sklearn.metrics import fbeta_score, make_scorer

from regularity.study._question import description, digest, kept_weights, scorer


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


def of_own_code(times=None, loss=None):
    class Own(layers.Layer):
        def call(self, x):
            return x * 2

    class Other(layers.Layer):
        def call(self, x):
            return x * 3

    Other.__name__, Other.__qualname__ = Own.__name__, Own.__qualname__
    Other.call.__qualname__ = Own.call.__qualname__
    kind = Other if times == 3 else Own
    model = keras.Sequential([keras.Input((3,)), kind(name="own"), layers.Dense(1, name="last")], name="net")

    def distance(y, shown):
        return (y - shown) ** 2

    model.compile("adam", loss or distance)
    return model


def test_code_of_ones_own_counts_and_where_it_stands_does_not():
    def distance(y, shown):
        return (y - shown) ** 4

    distance.__qualname__ = "of_own_code.<locals>.distance"
    assert description(of_own_code()) == description(of_own_code())
    assert description(of_own_code(times=3)) != description(of_own_code())
    assert description(of_own_code(loss=distance)) != description(of_own_code())

    def again(y, shown):
        return (y - shown) ** 2

    again.__name__, again.__qualname__ = "distance", "of_own_code.<locals>.distance"
    assert description(of_own_code(loss=again)) == description(of_own_code())


STABLE = """
import keras
from regularity.study._question import _code_of
class Own(keras.layers.Layer):
    kind = "elu"
    def call(self, x):
        return x if self.kind in {"relu", "elu", "tanh", "selu", "gelu"} else -x
print(_code_of(Own))
"""


def test_code_of_ones_own_is_the_same_in_every_process_and_on_every_backend():
    found = set()
    for settings in ({"PYTHONHASHSEED": "1"}, {"PYTHONHASHSEED": "2", "KERAS_BACKEND": "torch"}):
        ran = subprocess.run(
            [sys.executable, "-c", STABLE], env={**os.environ, **settings}, capture_output=True, text=True, check=True
        )
        found.add(ran.stdout.strip())
    assert len(found) == 1


@pytest.mark.parametrize("what", ["constant", "static", "cached", "partial loss"])
def test_whatever_holds_code_of_ones_own_counts(what):
    def built(factor):
        def scaled(x, by=factor):
            return x * by

        class Own(layers.Layer):
            by = factor if what == "constant" else 1
            times = staticmethod(functools.wraps(scaled)(functools.partial(scaled))) if what == "static" else None
            once = functools.cached_property(scaled) if what == "cached" else None

            def call(self, x):
                return x

        def distance(y, shown, weight):
            return factor * weight if what == "partial loss" else weight

        model = keras.Sequential([keras.Input((3,)), Own(name="own")], name="net")
        model.compile("sgd", functools.partial(distance, weight=1.0))
        return description(model)

    assert built(2) == built(2) != built(3)


def test_arrays_differ_by_value_shape_and_type():
    ones = np.ones((2, 3), "float32")
    digests = {digest([a]) for a in (ones, ones + 1, ones.T, ones.astype("float64"), "ones", None)}
    assert len(digests) == 6
    assert digest([ones]) == digest([ones[:, ::-1]])


def test_names_that_the_user_gave_count_and_those_that_keras_counts_up_do_not():
    assert description(two_branches(names=("p", "q"))) == description(two_branches(names=("p", "q")))
    assert description(two_branches(names=("p", "q"))) != description(two_branches(names=("q", "p")))


def test_weights_that_fresh_members_keep_count_and_others_do_not():
    def weights(frozen=1.0, drawn=1.0, adapted=1.0, statistics=1.0):
        base = layers.Dense(2, kernel_initializer=keras.initializers.Constant(frozen), trainable=False)
        normalization = layers.Normalization()
        normalization.adapt(np.full((4, 3), adapted))
        batch = layers.BatchNormalization()
        last = layers.Dense(1, kernel_initializer=keras.initializers.Constant(drawn))
        keras.Sequential([keras.Input((3,)), normalization, base, batch, last])
        batch.moving_mean.assign([statistics] * 2)
        model = keras.Sequential([keras.Input((3,)), normalization, base, batch, last])
        return digest(kept_weights(model))

    assert weights() == weights(drawn=2.0) == weights(statistics=2.0)
    assert len({weights(), weights(frozen=2.0), weights(adapted=2.0)}) == 3


def test_scorers_of_one_name_are_told_apart_by_what_they_compute():
    def narrow(beta):
        return make_scorer(fbeta_score, beta=beta)

    assert scorer("accuracy", "accuracy") == scorer(None, "accuracy") == "accuracy"
    assert scorer(narrow(2.0), "fbeta_score") == scorer(narrow(2.0), "fbeta_score")
    first, second = (lambda e, x, y: 1.0), (lambda e, x, y: 2.0)
    texts = [
        scorer(s, "s")
        for s in (narrow(2.0), narrow(0.5), make_scorer(fbeta_score, greater_is_better=False, beta=2.0), first, second)
    ]
    assert len(set(texts)) == 5


def test_scorers_that_differ_in_what_they_hold_are_two():
    def make(power, *, offset=0.0):
        def own(y, shown, scale=offset):
            return -np.mean(np.abs(y - shown) ** power) + scale

        return own

    texts = {scorer(make(power, offset=offset), "own") for power, offset in ((1, 0.0), (2, 0.0), (2, 1.0))}
    assert len(texts) == 3
    partials = {scorer(functools.partial(fbeta_score, beta=beta), "score") for beta in (1, 2)}
    assert len(partials) == 2
    assert scorer(make(1), "own") == scorer(make(1), "own")


def test_what_a_scorer_holds_may_be_anything_and_may_change():
    teacher, words, seen = two_branches(), {"a", "b", "c"}, []

    def own(estimator, x, y):
        seen.append(len(x) + len(words))
        return float(teacher is not None)

    before = scorer(own, "own")
    seen.append(1)
    assert scorer(own, "own") == before

    class Holds:
        def __init__(self):
            self.me, self.teacher, self.words = [self], two_branches(), {"c", "b", "a"}

        def __call__(self, estimator, x, y):
            return 0.0

    assert scorer(Holds(), "own") == scorer(Holds(), "own")
    assert "['a', 'b', 'c']" in scorer(Holds(), "own").replace('"', "").replace("\\'", "'").replace("''", "'")
