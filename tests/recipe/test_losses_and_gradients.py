"""One step of gradient descent with a recipe is that of the paper's loss, differentiated by JAX alone."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import keras
import numpy as np
import pytest
from keras import layers
from scipy import stats

import regularity as rg

RANDOM = np.random.default_rng(0)
ROWS = RANDOM.normal(size=(12, 6)).astype("float32")
LABELS = RANDOM.integers(0, 3, 12)
ONE_HOT = np.eye(3, dtype="float32")[LABELS]
WEIGHT = RANDOM.random(12).astype("float32")
RATE = 0.5


def network(
    loss: Any = "sparse_categorical_crossentropy",
    last: Callable[[], Any] | None = None,
    optimizer: Any = None,
    noise: float = 0.0,
) -> Any:
    keras.utils.set_random_seed(0)
    hidden = [layers.Dense(8, "tanh"), *([layers.Dropout(noise)] if noise else [])]
    model = keras.Sequential([keras.Input((6,)), *hidden, last() if last else layers.Dense(3, "softmax")])
    model.compile(optimizer or keras.optimizers.SGD(RATE), loss)
    return model


def stepped(recipe: dict[str, Any], model: Any, y: Any = LABELS, weight: Any = None) -> tuple[list[Any], float]:
    """The weights after a step with a recipe, and the loss that it reports."""
    applied: Any = rg.Recipe(recipe).apply(model, seed=1)
    loss = applied.train_on_batch(ROWS, y, sample_weight=weight)
    return applied.get_weights(), float(loss)


def outputs(model: Any, weights: Any, x: Any = ROWS) -> Any:
    fixed = [v.value for v in model.non_trainable_variables]
    return model.stateless_call(weights, fixed, x)[0]


def cross_entropy(model: Any, weights: Any, x: Any = ROWS) -> Any:
    """Of each row."""
    return -jnp.log((outputs(model, weights, x) * ONE_HOT).sum(-1))


def check(found: tuple[list[Any], float], model: Any, loss: Callable[[Any], Any], at: Any = None) -> None:
    """Compare with a step down `loss`, its gradient taken at the model's weights or elsewhere, and what it is at these."""
    weights = [v.value for v in model.trainable_variables]
    gradients = jax.grad(loss)(weights if at is None else at)
    assert found[1] == pytest.approx(float(loss(weights)), rel=1e-5)
    for after, weight, gradient in zip(found[0], weights, gradients, strict=True):
        np.testing.assert_allclose(after, weight - RATE * gradient, atol=2e-6)


@pytest.mark.parametrize("weight", [None, WEIGHT])
def test_confidence_penalty_takes_the_entropy_off_the_loss(weight: Any) -> None:
    def loss(weights: Any) -> Any:
        p = outputs(model, weights)
        return (
            (cross_entropy(model, weights) + 0.7 * (p * jnp.log(p)).sum(-1)) * (1 if weight is None else weight)
        ).mean()

    model = network()
    check(stepped({"confidence_penalty": 0.7}, model, weight=weight), model, loss)


def test_losses_of_rows_are_the_same_for_labels_and_outputs_of_every_form() -> None:
    recipe = {"confidence_penalty": 0.3, "focal": 1.5}
    expected, value = stepped(recipe, network())
    forms = [
        (network("categorical_crossentropy"), ONE_HOT),
        (
            network(keras.losses.SparseCategoricalCrossentropy(from_logits=True), lambda: layers.Dense(3)),
            LABELS[:, None],
        ),
        (network(keras.losses.CategoricalCrossentropy(from_logits=True), lambda: layers.Dense(3)), ONE_HOT),
    ]
    for model, y in forms:
        found, loss = stepped(recipe, model, y)
        assert loss == pytest.approx(value, rel=1e-5)
        for after, other in zip(found, expected, strict=True):
            np.testing.assert_allclose(after, other, atol=2e-6)


def test_focal_is_keras_focal_crossentropy() -> None:
    stock = network(keras.losses.CategoricalFocalCrossentropy(alpha=1.0, gamma=2.0))
    loss = stock.train_on_batch(ROWS, ONE_HOT)
    found, value = stepped({"focal": 2.0}, network())
    assert value == pytest.approx(float(loss), rel=1e-5)
    for after, other in zip(found, stock.get_weights(), strict=True):
        np.testing.assert_allclose(after, other, atol=2e-6)


@pytest.mark.parametrize("logits", [False, True])
def test_focal_of_two_classes_is_that_of_keras(logits: bool) -> None:
    def binary(loss: Any) -> Any:
        return network(loss, lambda: layers.Dense(2, None if logits else "sigmoid"))

    y = RANDOM.integers(0, 2, (12, 2)).astype("float32")
    stock = binary(keras.losses.BinaryFocalCrossentropy(gamma=1.5, from_logits=logits))
    loss = stock.train_on_batch(ROWS, y)
    found, value = stepped({"focal": 1.5}, binary(keras.losses.BinaryCrossentropy(from_logits=logits)), y)
    assert value == pytest.approx(float(loss), rel=1e-5)
    for after, other in zip(found, stock.get_weights(), strict=True):
        np.testing.assert_allclose(after, other, atol=2e-6)


def test_losses_of_rows_go_with_a_stock_label_smoothing() -> None:
    smooth = network(keras.losses.CategoricalCrossentropy(label_smoothing=0.2))
    smooth.train_on_batch(ROWS, ONE_HOT)
    found, _ = stepped(
        {"confidence_penalty": 0.0}, network(keras.losses.CategoricalCrossentropy(label_smoothing=0.2)), ONE_HOT
    )
    for after, other in zip(found, smooth.get_weights(), strict=True):
        np.testing.assert_allclose(after, other, atol=2e-6)


def test_r_drop_is_half_of_the_papers_loss_of_two_passes() -> None:
    """With the masks of dropout as the layer draws them for the rows twice."""
    model, alpha = network(noise=0.4), 3.0
    applied: Any = rg.Recipe({"r_drop": alpha}).apply(model, seed=1)
    fixed = [np.asarray(v.value) for v in applied.non_trainable_variables]
    weights = applied.get_weights()

    def loss(weights: Any) -> Any:
        both = applied.stateless_call(weights, fixed, np.concatenate([ROWS, ROWS]), training=True)[0]
        p, q = both[:12], both[12:]
        of_both = -jnp.log((p * ONE_HOT).sum(-1)) - jnp.log((q * ONE_HOT).sum(-1))
        apart = ((p * jnp.log(p / q)).sum(-1) + (q * jnp.log(q / p)).sum(-1)) / 2
        return (of_both + alpha * apart).mean() / 2

    value, gradients = jax.value_and_grad(loss)(weights)
    assert float(applied.train_on_batch(ROWS, LABELS)) == pytest.approx(float(value), rel=1e-5)
    for after, weight, gradient in zip(applied.get_weights(), weights, gradients, strict=True):
        np.testing.assert_allclose(after, weight - RATE * gradient, atol=2e-6)


def test_fgsm_is_half_the_loss_at_the_rows_and_half_beside_them() -> None:
    model = network()
    weights = [v.value for v in model.trainable_variables]
    beside = ROWS + 0.2 * np.sign(jax.grad(lambda x: cross_entropy(model, weights, x).sum())(ROWS))

    def loss(weights: Any) -> Any:
        return (cross_entropy(model, weights).mean() + cross_entropy(model, weights, beside).mean()) / 2

    check(stepped({"fgsm": 0.2}, model), model, loss)


@pytest.mark.parametrize("scaled", [False, True])
def test_input_gradient_is_double_backpropagation(scaled: bool) -> None:
    def loss(weights: Any) -> Any:
        slopes = jax.vmap(jax.grad(lambda x, y: -jnp.log((outputs(model, weights, x[None])[0] * y).sum())))(
            ROWS, ONE_HOT
        )
        return cross_entropy(model, weights).mean() + 0.8 * (slopes**2).sum(-1).mean()

    optimizer = keras.optimizers.SGD(RATE)
    model = network(optimizer=keras.optimizers.LossScaleOptimizer(optimizer) if scaled else optimizer)
    check(stepped({"input_gradient": 0.8}, model), model, loss)


@pytest.mark.parametrize("technique", ["fgsm", "input_gradient"])
def test_whole_numbers_have_slopes_as_the_same_floating_point_ones_do(technique: str) -> None:
    whole = RANDOM.integers(0, 4, ROWS.shape)
    found = []
    for kind in ("uint8", "float32"):
        applied: Any = rg.Recipe({technique: 0.2}).apply(network())
        loss = applied.train_on_batch(whole.astype(kind), LABELS)
        found.append([loss, *applied.get_weights()])
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


def test_asam_is_the_paper_written_out() -> None:
    model, rho = network(), 0.7
    weights = [v.value for v in model.trainable_variables]
    gradients = jax.grad(lambda w: cross_entropy(model, w).mean())(weights)
    sizes = [abs(w) + 0.01 for w in weights]
    norm = np.sqrt(sum(float(((t * g) ** 2).sum()) for t, g in zip(sizes, gradients, strict=True)))
    there = [w + rho * t**2 * g / norm for w, t, g in zip(weights, sizes, gradients, strict=True)]
    check(stepped({"asam": rho}, model), model, lambda w: cross_entropy(model, w).mean(), there)


def test_what_is_reported_is_of_the_weights_and_not_of_their_worst_neighbours() -> None:
    model = network(optimizer=keras.optimizers.SGD(0.0))
    model.compile(keras.optimizers.SGD(0.0), "sparse_categorical_crossentropy", metrics=["accuracy"])
    applied: Any = rg.Recipe({"sam": 2.0, "asam": 2.0}).apply(model)
    found = applied.train_on_batch(ROWS, LABELS, return_dict=True)
    for name, value in model.evaluate(ROWS, LABELS, verbose=0, return_dict=True).items():
        assert found[name] == pytest.approx(value, rel=1e-5)


def test_asam_does_not_mind_how_layers_share_their_scale() -> None:
    """Twice the weights of one layer and half of the next is the same network of ReLUs, and the same distance: but for eta."""
    from regularity.catalogue.gradient import asam

    weights = [1.0 + RANDOM.random((4, 5)), 1.0 + RANDOM.random((5, 2))]
    gradients = [RANDOM.normal(size=w.shape) for w in weights]
    there = asam([jnp.asarray(w) for w in weights], [jnp.asarray(g) for g in gradients], 0.5)
    factors = (2.0, 0.5)
    other = asam(
        [jnp.asarray(f * w) for f, w in zip(factors, weights, strict=True)],
        [jnp.asarray(g / f) for f, g in zip(factors, gradients, strict=True)],
        0.5,
    )
    for a, b, w, f in zip(there, other, weights, factors, strict=True):
        np.testing.assert_allclose((b / f - w) / (a - w), 1.0, atol=0.05)  # eta is up to a hundredth of a weight


def test_gradient_noise_is_normal_and_fades_as_in_the_paper() -> None:
    model = network(optimizer=keras.optimizers.SGD(1.0))
    applied: Any = rg.Recipe({"gradient_noise": 0.6}).apply(model, seed=1)
    noise = []
    for _ in range(30):
        weights = applied.get_weights()
        gradients = jax.grad(lambda w: cross_entropy(applied, w).mean())(weights)
        loss = float(applied.train_on_batch(ROWS, LABELS))
        assert loss == pytest.approx(float(cross_entropy(applied, weights).mean()), rel=1e-5)
        noise.append(
            np.concatenate(
                [np.ravel(w - a - g) for w, a, g in zip(weights, applied.get_weights(), gradients, strict=True)]
            )
        )
    deviations = 0.6 / (1 + np.arange(30)) ** (0.55 / 2)
    assert stats.kstest((np.array(noise) / deviations[:, None]).ravel(), "norm").pvalue > 1e-3
    assert np.abs(np.corrcoef(noise)[0, 1:]).max() < 0.4


@pytest.mark.parametrize("bound", [0.02, 5000.0])
def test_adaptive_clip_is_the_unitwise_rule_of_the_paper(bound: float) -> None:
    model = network()
    found, _ = stepped({"adaptive_clip": bound}, model)
    weights = [v.value for v in model.trainable_variables]
    gradients = jax.grad(lambda w: cross_entropy(model, w).mean())(weights)
    clipped = 0
    for after, weight, gradient in zip(found, map(np.asarray, weights), map(np.asarray, gradients), strict=True):
        for unit in range(weight.shape[-1]) if weight.ndim > 1 else [slice(None)]:
            w, g = np.linalg.norm(weight[..., unit]), np.linalg.norm(gradient[..., unit])
            scale = min(1.0, bound * max(w, 1e-3) / g)
            clipped += scale < 1
            expected = weight[..., unit] - RATE * scale * gradient[..., unit]
            np.testing.assert_allclose(after[..., unit], expected, atol=2e-6)
    assert (clipped > 0) == (bound < 1)


def test_several_rows_more_and_mixed_targets_go_together() -> None:
    """Each row beside its neighbour, both twice, with the targets of a mixture: metrics know the given rows alone."""
    model = network(noise=0.3)
    model.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy", metrics=["accuracy"])
    recipe = {"mixup": 0.4, "fgsm": 0.05, "r_drop": 1.0, "asam": 0.5, "input_gradient": 0.1, "gradient_noise": 0.01}
    applied: Any = rg.Recipe(recipe).apply(model, seed=2)
    history = applied.fit(ROWS, LABELS, batch_size=5, epochs=3, sample_weight=WEIGHT, verbose=0).history
    assert np.isfinite(history["loss"]).all()
    assert all(0 <= value <= 1 for value in history["accuracy"])


def test_a_member_with_a_ragged_last_batch_is_what_it_is_alone() -> None:
    model = network(noise=0.3)
    model.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy", metrics=["accuracy"])
    recipe = {
        "mixup": 0.4,
        "cutout": 0.2,
        "label_smoothing": 0.1,
        "focal": 1.0,
        "sam": 0.05,
        "r_drop": 1.0,
        "fgsm": 0.05,
    }
    how: dict[str, Any] = {"batch_size": 5, "epochs": 2, "shuffle": False, "sample_weight": WEIGHT, "verbose": 0}
    _, member = rg.train(model, ROWS, LABELS, [{}, recipe], init="keep", **how)
    applied: Any = rg.Recipe(recipe).apply(model, seed=0)
    history = applied.fit(ROWS, LABELS, **how).history
    for name, values in history.items():
        np.testing.assert_allclose(member.history[name], values, rtol=1e-5)
    for a, b in zip(applied.to_keras().get_weights(), member.model.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-6)
