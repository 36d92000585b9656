"""What follows the optimizer's step is the paper's algorithm, done by hand between batches of a plain Keras model."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

import regularity as rg

RANDOM = np.random.default_rng(0)
ROWS = RANDOM.normal(size=(96, 6)).astype("float32")
LABELS = RANDOM.integers(0, 3, 96)
SPARSE = "sparse_categorical_crossentropy"
HOW: dict[str, Any] = {"batch_size": 8, "shuffle": False, "verbose": 0}  # 12 steps
CLOSE = {"atol": 2e-6}  # sums in another order, in single precision


def network(penalty: Any = None, optimizer: Any = None, constraint: Any = None) -> Any:
    keras.utils.set_random_seed(0)
    hidden = layers.Dense(8, "relu", name="h", kernel_regularizer=penalty, kernel_constraint=constraint)
    model = keras.Sequential([keras.Input((6,)), hidden, layers.Dense(3, "softmax", name="o")])
    model.compile(optimizer or keras.optimizers.SGD(0.1), SPARSE)
    return model


def fitted(recipe: dict[str, Any], model: Any) -> list[np.ndarray]:
    applied: Any = rg.Recipe(recipe).apply(model)
    applied.fit(ROWS, LABELS, **HOW)
    return applied.get_weights()


def by_hand(model: Any, after: Callable[[list[np.ndarray], int], list[np.ndarray]]) -> list[np.ndarray]:
    """The weights of a plain model that `after` changes behind each batch."""
    for step, at in enumerate(range(0, 96, 8)):
        model.train_on_batch(ROWS[at : at + 8], LABELS[at : at + 8])
        model.set_weights(after(model.get_weights(), step))
    return model.get_weights()


def same(found: list[np.ndarray], expected: list[np.ndarray]) -> None:
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, **CLOSE)


@pytest.mark.parametrize("optimizer", ["SGD", "Adam"])
def test_l2_sp_trains_as_its_penalty_does(optimizer: str) -> None:
    make = getattr(keras.optimizers, optimizer)
    start = keras.ops.convert_to_tensor(network().get_weights()[0])
    stock = network(lambda w: 0.3 * keras.ops.sum(keras.ops.square(w - start)), make(0.01))
    stock.fit(ROWS, LABELS, **HOW)
    same(fitted({"l2_sp@h/kernel": 0.3}, network(optimizer=make(0.01))), stock.get_weights())


def test_l2_sp_starts_where_each_member_starts() -> None:
    members = rg.train(network(), ROWS, LABELS, [{}, {"l2_sp": 4.0}], seeds=[3], batch_size=8, epochs=8)
    fresh: Any = rg.Recipe({}).apply(network(), init="fresh", seed=3)
    start = fresh.get_weights()[0]
    free, held = (np.linalg.norm(member.model.get_weights()[0] - start) for member in members)
    assert held < 0.3 * free


def test_lookahead_is_the_papers_algorithm() -> None:
    model = network()
    slow = model.get_weights()

    def after(weights: list[np.ndarray], step: int) -> list[np.ndarray]:
        nonlocal slow
        if (step + 1) % 5 == 0:
            slow = [s + 0.5 * (w - s) for w, s in zip(weights, slow, strict=True)]  # alpha 0.5
            return slow
        return weights

    same(fitted({"lookahead": 0.5}, network()), by_hand(model, after))


@pytest.mark.parametrize("bound", [0.9, 100.0])
def test_cpr_is_the_papers_algorithm(bound: float) -> None:
    model = network()
    kernels = [0, 2]
    squares = {k: np.mean(model.get_weights()[k] ** 2) for k in kernels}
    multipliers, largest = dict.fromkeys(kernels, 0.0), 0.0

    def after(weights: list[np.ndarray], step: int) -> list[np.ndarray]:
        nonlocal largest
        for k in kernels:
            broken = np.mean(weights[k] ** 2) - bound * squares[k]
            multipliers[k] = max(0.0, multipliers[k] + broken)
            largest = max(largest, multipliers[k])
            weights[k] = weights[k] - 2 * multipliers[k] * weights[k]
        return weights

    found = fitted({"cpr": bound}, network())
    same(found, by_hand(model, after))
    assert (largest > 0) == (bound < 100)


def test_proximal_l1_is_soft_thresholding_and_leaves_exact_zeros() -> None:
    def after(weights: list[np.ndarray], step: int) -> list[np.ndarray]:
        return [
            np.sign(w) * np.maximum(np.abs(w) - 0.1 * 0.2, 0) if w.ndim > 1 else w for w in weights
        ]  # the learning rate times the strength

    found = fitted({"proximal_l1": 0.2}, network())
    same(found, by_hand(network(), after))
    assert (found[0] == 0).mean() > 0.2


def test_what_follows_the_step_comes_behind_a_constraint_that_is_there() -> None:
    found = fitted({"proximal_l1": 0.05, "max_norm": 1.0}, network(constraint=keras.constraints.NonNeg()))
    assert found[0].min() >= 0
    assert np.linalg.norm(found[0], axis=0).max() <= 1 + 1e-5


def test_all_go_on_in_a_second_fit_and_through_a_file(tmp_path: Any) -> None:
    recipe = {"l2_sp": 0.1, "lookahead": 0.5, "cpr": 1.0, "proximal_l1": 0.01}
    once: Any = rg.Recipe(recipe).apply(network())
    once.fit(ROWS, LABELS, **HOW)
    once.save(tmp_path / "model.keras")
    loaded: Any = keras.models.load_model(tmp_path / "model.keras")
    for model in (once, loaded):
        model.fit(ROWS, LABELS, **HOW)
    whole: Any = rg.Recipe(recipe).apply(network())
    whole.fit(ROWS, LABELS, epochs=2, **HOW)
    same(once.get_weights(), whole.get_weights())
    same(loaded.get_weights(), whole.get_weights())


def test_with_gradients_gathered_over_batches_only_steps_are_followed() -> None:
    every = 2
    model = network(optimizer=keras.optimizers.SGD(0.1, gradient_accumulation_steps=every))
    slow = model.get_weights()
    squares, multipliers = {k: np.mean(slow[k] ** 2) for k in (0, 2)}, {0: 0.0, 2: 0.0}

    def after(weights: list[np.ndarray], batch: int) -> list[np.ndarray]:
        nonlocal slow
        if (batch + 1) % every:
            return weights
        for k in (0, 2):
            shrunk = np.sign(weights[k]) * np.maximum(np.abs(weights[k]) - 0.1 * 0.2, 0)
            multipliers[k] = max(0.0, multipliers[k] + np.mean(shrunk**2) - 0.9 * squares[k])
            weights[k] = shrunk - 2 * multipliers[k] * shrunk
        if (batch + 1) // every % 5 == 0:
            slow = weights = [s + 0.5 * (w - s) for w, s in zip(weights, slow, strict=True)]
        return weights

    gathering = network(optimizer=keras.optimizers.SGD(0.1, gradient_accumulation_steps=every))
    found = fitted({"proximal_l1": 0.2, "cpr": 0.9, "lookahead": 0.5}, gathering)
    same(found, by_hand(model, after))


@pytest.mark.parametrize("recipe", [{"lookahead": 0.5}, {"cpr": 1.0}, {"unit_norm": 0.5}])
def test_where_no_step_is_due_nothing_moves(recipe: dict[str, float]) -> None:
    start = network().get_weights()
    still = network(optimizer=keras.optimizers.SGD(0.0, gradient_accumulation_steps=13))  # of 12 batches
    same(fitted(recipe, still), start)


def test_averages_are_of_the_weights_as_each_step_leaves_them() -> None:
    averages: list[np.ndarray] = []

    def after(weights: list[np.ndarray], step: int) -> list[np.ndarray]:
        nonlocal averages
        weights = [np.sign(w) * np.maximum(np.abs(w) - 0.1 * 0.2, 0) if w.ndim > 1 else w for w in weights]
        averages = [0.9 * a + 0.1 * w for a, w in zip(averages or weights, weights, strict=True)]
        return weights

    plain = network(constraint=keras.constraints.MaxNorm(0.3))
    by_hand(plain, after)
    found = fitted({"max_norm@h": 0.3, "proximal_l1": 0.2, "ema": 0.9}, network())
    assert np.linalg.norm(found[0], axis=0).max() <= 0.3 + 1e-5
    same(found, averages)


def test_averages_that_the_optimizer_has_are_those_of_keras() -> None:
    def model() -> Any:
        average = keras.optimizers.SGD(0.1, use_ema=True, ema_momentum=0.9)
        return network(optimizer=average, constraint=keras.constraints.MaxNorm(0.3))

    expected = model()
    expected.fit(ROWS, LABELS, **HOW)
    same(fitted({}, model()), expected.get_weights())
