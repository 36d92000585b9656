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


def refitted(seed, unseen=(0.9, 0.92, 0.95, 0.93, -0.01), score=None):
    data = Data(X, Y[:, None])
    how = scoring(network(), data, score).score
    return refit(network(), data, rg.Recipe({"epochs": 30}), how, np.array(unseen), seed, FIT)


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


def test_a_search_says_so_too():
    seeds = [seed * 1_000_003 % 2**31 for seed in range(300)]
    members = rg.train(network(6), X, Y, seeds=seeds, epochs=30, **FIT)
    seed = next(i for i, member in enumerate(members) if r2(member.model) < 0.5)
    study = rg.search(network(6), X, Y, ["l2"], trials=2, epochs=30, seed=seed, storage="sqlite://", **FIT)
    with pytest.warns(UserWarning, match=r"its seed ruined it. With another seed it has"):
        assert r2(study.model) > 0.5
