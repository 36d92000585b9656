"""The answer trained on all rows, where some seeds ruin the network: rectified units that put out nothing for any row."""

import warnings

import keras
import numpy as np
import pytest

import regularity as rg
from regularity.data import Data
from regularity.study._refit import refit
from regularity.study._scores import scoring

X = np.random.default_rng(0).uniform(0.5, 1.5, (60, 1)).astype("float32")
Y = 3 * X[:, 0]
FIT = {"batch_size": 10, "verbose": 0}


def network(units=1):
    """Half of the units are dead from the start: their weight is negative, and no input is."""
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(units, "relu"), keras.layers.Dense(1)], name="net")
    model.compile(keras.optimizers.Adam(0.05), "mse")
    return model


def r2(model, x=X, y=Y):
    return 1 - np.square(model.predict(x, verbose=0)[:, 0] - y).mean() / y.var()


@pytest.fixture(scope="module")
def alive():
    """By seed, whether the network learns at all."""
    return [r2(member.model) > 0.5 for member in rg.train(network(), X, Y, seeds=24, epochs=30, **FIT)]


def refitted(seed, unseen=(0.9, 0.92, 0.95, 0.93, -0.01), score=None, model=None):
    data, model = Data(X, Y[:, None]), model or network()
    how = scoring(model, data, score).score
    return refit(model, data, rg.Recipe({"epochs": 30}), how, np.array(unseen), np.arange(len(X)), seed, FIT)


def of_seed(seed):
    return rg.train(network(), X, Y, seeds=[seed], epochs=30, **FIT)[0].model.get_weights()


def same(model, weights):
    return all(np.allclose(a, b, atol=1e-5) for a, b in zip(model.get_weights(), weights, strict=True))


def test_network_that_learns_is_the_first_seeds_and_nothing_is_said(alive):
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        assert same(refitted(alive.index(True)), of_seed(alive.index(True)))


@pytest.mark.parametrize("score", [None, "loss"])
def test_where_a_seed_ruins_the_network_another_is_drawn_and_it_is_said(alive, score):
    seed = next(i for i in range(23) if not alive[i] and alive[i + 1])
    unseen = (0.9, 0.92, 0.95, 0.93, -0.01) if score is None else (-0.05, -0.06, -0.04, -0.05, -0.9)
    with pytest.warns(UserWarning, match=r"its seed ruined it. With another seed it has"):
        model = refitted(seed, unseen, score)
    assert r2(model) > 0.5
    assert same(model, of_seed(seed + 1))


def test_where_three_seeds_do_the_best_is_handed_out_and_it_is_said(alive):
    seed = next(i for i in range(22) if not any(alive[i : i + 3]))
    with pytest.warns(UserWarning, match=r"its seed ruined it. The best of 3 seeds"):
        refitted(seed)


def test_folds_that_do_not_tell_raise_no_alarm(alive):
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        for unseen in [(np.nan, 0.9), (0.9, 0.4, 0.1), (0.2, -0.3, 0.1, 0.0, -0.1)]:
            refitted(alive.index(False), unseen)


@pytest.mark.parametrize("changed", ["sum", "penalty on outputs"])
def test_a_loss_is_compared_with_losses_of_rows_without_penalties_whatever_the_reduction(alive, changed):
    model = network()
    if changed == "sum":
        model.compile(keras.optimizers.Adam(0.005), keras.losses.MeanSquaredError(reduction="sum"))
    else:
        model.layers[0].activity_regularizer = keras.regularizers.L2(0.1)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        refitted(alive.index(True), (-0.3, -0.31, -0.29, -0.3, -0.35), "loss", model)


def test_rows_that_no_fold_held_out_raise_no_alarm():
    """Labels of training rows are wrong half of the time, those of validation rows never."""
    random = np.random.default_rng(0)
    x = random.normal(size=(300, 4)).astype("float32")
    y = (x[:, 0] > 0).astype(int)
    y[:200] ^= random.random(200) < 0.35
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1, "sigmoid")], name="net")
    model.compile(keras.optimizers.Adam(0.05), "binary_crossentropy")
    validation = (x[200:], y[200:])
    fit = {"strengths": [0.01], "epochs": 10, "validation_data": validation, "verbose": 0}
    path = rg.path(model, x[:200], y[:200], technique="l2", **fit)
    assert path.one_se.score > 0.8
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        assert path.model.evaluate(x[:200], y[:200], verbose=0) > 0.5


def test_a_search_says_so_too():
    seeds = [seed * 1_000_003 % 2**31 for seed in range(300)]
    members = rg.train(network(6), X, Y, seeds=seeds, epochs=30, **FIT)
    seed = next(i for i, member in enumerate(members) if r2(member.model) < 0.5)
    study = rg.search(network(6), X, Y, ["l2"], trials=2, epochs=30, seed=seed, storage="sqlite://", **FIT)
    with pytest.warns(UserWarning, match=r"its seed ruined it. With another seed it has"):
        assert r2(study.model) > 0.5
