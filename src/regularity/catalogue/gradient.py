"""Place 'gradient': where the gradient is taken, and what becomes of it before the optimizer has it."""

import math
from collections.abc import Sequence
from typing import Any

from keras import ops, tree

from regularity import _keras
from regularity.catalogue._draws import normal
from regularity.catalogue._technique import Technique, at_least_single


def global_norm(gradients: Sequence[Any]) -> Any:
    """The Euclidean norm of all gradients together."""
    return ops.sqrt(sum(ops.sum(ops.square(at_least_single(g))) for g in gradients))


def sam(weights: Sequence[Any], gradients: Sequence[Any], rho: Any) -> list[Any]:
    """`w + rho * g / |g|`: where the loss rises steepest within a distance of `rho`, to first order."""
    gradients = _finite(gradients)
    step = rho / ops.maximum(global_norm(gradients), 1e-12)
    return [w + ops.cast(step * g, w.dtype) for w, g in zip(weights, gradients, strict=True)]


def _finite(gradients: Sequence[Any]) -> list[Any]:
    """All gradients, or zeros where one is not finite, as in half precision where the optimizer then leaves the step out."""
    singles = [at_least_single(g) for g in gradients]
    finite = ops.isfinite(global_norm(singles))
    return [ops.where(finite, g, 0.0) for g in singles]


# What the paper adds to the size of each weight, so that those at 0 are moved too.
_ASAM_ETA = 0.01


def asam(weights: Sequence[Any], gradients: Sequence[Any], rho: Any) -> list[Any]:
    """`w + rho * T ** 2 g / |T g|` with `T = |w| + 0.01`: as `sam`, each weight by its own size."""
    sizes = [ops.absolute(at_least_single(w)) + _ASAM_ETA for w in weights]
    scaled = [t * g for t, g in zip(sizes, _finite(gradients), strict=True)]
    step = rho / ops.maximum(global_norm(scaled), 1e-12)
    return [w + ops.cast(step * t * g, w.dtype) for w, t, g in zip(weights, sizes, scaled, strict=True)]


def fgsm(x: Any, gradients: Any, epsilon: Any) -> Any:
    """`x + epsilon * sign(g)`: where the loss of each row rises fastest, with no entry changed by more than `epsilon`."""
    return tree.map_structure(lambda a, g: a + ops.cast(epsilon, a.dtype) * ops.sign(g), x, gradients)


def input_gradient(gradients: Any, strength: Any) -> Any:
    """`strength` times the mean over rows of `sum((dl / dx) ** 2)`, `l` the loss of the row."""
    leaves = tree.flatten(gradients)
    rows = leaves[0].shape[0]
    # the gradients are of the mean over rows, in which each row's own is divided by their number
    return strength * rows * sum(ops.sum(ops.square(at_least_single(g))) for g in leaves)


def gradient_noise(variable: Any, stddev: Any, step: Any, seed: Any) -> Any:
    """`stddev * (1 + step) ** (-0.55 / 2) * noise`, `noise` standard normal."""
    noise = normal(ops.shape(variable), seed)
    return ops.cast(stddev * ops.power(1.0 + step, -0.275) * noise, variable.dtype)


def adaptive_clip(
    gradients: Sequence[Any], inverse: Any, weights: Sequence[Any], axes: Sequence[tuple[int, ...]]
) -> list[Any]:
    """`g * min(1, bound * max(|w|, 0.001) / |g|)` for the incoming weights `w` of each unit.

    What has one axis, such as the biases of a layer, is one unit; of more, as the biases of attention, each entry of the last.
    """
    return [_clipped_by_weight(g, inverse, w, over) for g, w, over in zip(gradients, weights, axes, strict=True)]


def _clipped_by_weight(gradient: Any, inverse: Any, weight: Any, axes: tuple[int, ...]) -> Any:
    g, w = (
        ops.sqrt(ops.sum(ops.square(at_least_single(a)), axes, keepdims=True))
        for a in (gradient, ops.convert_to_tensor(weight))
    )
    excess = inverse * g / ops.maximum(w, 1e-3)
    scale = ops.where(excess > 1, 1.0 / ops.maximum(excess, 1.0), 1.0)
    return ops.cast(at_least_single(gradient) * scale, gradient.dtype)


def clip_norm(gradients: Sequence[Any], inverse: Any, weights: Sequence[Any], axes: Sequence[Any]) -> list[Any]:
    """`g * min(1, bound / |g|)`, the norm over all gradients together, with `inverse` 1 / bound and 0 for no bound."""
    del weights, axes
    excess = global_norm(gradients) * inverse
    scale = ops.where(excess > 1, 1.0 / ops.maximum(excess, 1.0), 1.0)
    return [ops.cast(at_least_single(g) * scale, g.dtype) for g in gradients]


def _own_clipping(model: Any) -> float | None:
    bound = _keras.innermost(model.optimizer).global_clipnorm
    return 1 / float(bound) if bound else None


def _restore_clipping(optimizer: Any, bound: float | None) -> None:
    optimizer.global_clipnorm = bound


def _refuses_clipping(model: Any) -> str | None:
    optimizer = _keras.innermost(model.optimizer)
    others = [name for name in ("clipnorm", "clipvalue") if getattr(optimizer, name)]
    return (
        f"its optimizer clips by {others[0]} already, and Keras has one way at a time: compile it without."
        if others
        else None
    )


def _refuses_slopes(model: Any) -> str | None:
    return _keras.why_no_changed_rows(model) or _keras.why_not_the_step(model)


def _refuses_mean_slopes(model: Any) -> str | None:
    return _refuses_slopes(model) or _keras.why_no_mean_of_rows(model)


TECHNIQUES = (
    Technique(
        name="sam",
        place="gradient",
        hook="perturb",
        summary="Takes the gradient where the loss is worst nearby, so that training ends in flat minima.",
        helps="Labels are noisy, or the network memorizes its training rows.",
        hurts="Time is short: a step costs two. Small batches and a large distance keep it from fitting at all.",
        unit="distance, in the Euclidean norm of all weights, at which the gradient is taken",
        limits=(0.0, math.inf),
        range=(0.01, 1.0),
        scale="log",
        acts_on="all trainable weights",
        at_inference="nothing",
        paper="Foret et al. 2021, Sharpness-aware minimization for efficiently improving generalization",
        function=sam,
        cost=2.0,
        refuses=_keras.why_not_the_step,
    ),
    Technique(
        name="asam",
        place="gradient",
        hook="perturb",
        summary="Takes the gradient where the loss is worst nearby, near meaning by a share of each weight's own size.",
        helps="As sam does, where weights are of unlike sizes: rescaling a layer changes nothing.",
        hurts="Time is short: a step costs two.",
        unit="distance at which the gradient is taken, each weight measured by its own size; some ten times that of sam",
        limits=(0.0, math.inf),
        range=(0.1, 5.0),
        scale="log",
        acts_on="all trainable weights",
        at_inference="nothing",
        paper="Kwon et al. 2021, ASAM: adaptive sharpness-aware minimization for scale-invariant learning",
        function=asam,
        cost=2.0,
        refuses=_keras.why_not_the_step,
    ),
    Technique(
        name="fgsm",
        place="gradient",
        hook="adversary",
        summary="Trains on each row and on its worst neighbour, every entry moved a little where the loss rises.",
        helps="Inputs are measured and standardized; small changes of them must not change the answer.",
        hurts="Time is short: a step costs three. Small differences of inputs matter, or inputs are categories.",
        unit="largest change of an entry, in units of the inputs; half of the loss is that of the changed rows",
        limits=(0.0, math.inf),
        range=(0.003, 0.3),
        scale="log",
        acts_on="all inputs, which must be numbers",
        at_inference="nothing",
        paper="Goodfellow et al. 2015, Explaining and harnessing adversarial examples",
        function=fgsm,
        cost=3.0,
        refuses=_refuses_slopes,
    ),
    Technique(
        name="input_gradient",
        place="gradient",
        hook="slope",
        summary="Adds the squared gradient of each row's loss for its inputs to the loss, so that it is flat around the rows.",
        helps="Rows are few and small changes of inputs must not change the answer.",
        hurts="Time is short: a step costs three. Units that are flat or linear by parts feel it little.",
        unit="added to the loss per unit of a row's summed squares",
        limits=(0.0, math.inf),
        range=(1e-3, 10.0),
        scale="log",
        acts_on="all inputs, which must be numbers",
        at_inference="nothing",
        paper="Drucker and Le Cun 1992, Improving generalization performance using double backpropagation",
        function=input_gradient,
        cost=3.0,
        refuses=_refuses_mean_slopes,
    ),
    Technique(
        name="gradient_noise",
        place="gradient",
        hook="noise",
        summary="Adds Gaussian noise to the gradient, less of it as training goes on.",
        helps="Very deep networks, or a bad start: training leaves poor regions.",
        hurts="Adam and its kin: where gradients are small they turn the noise into whole steps.",
        unit="standard deviation of the noise at the first step; at step t it is (1 + t) ** -0.275 of it",
        limits=(0.0, math.inf),
        range=(1e-3, 1.0),
        scale="log",
        acts_on="the gradients of all trainable weights",
        at_inference="nothing",
        paper="Neelakantan et al. 2015, Adding gradient noise improves learning for very deep networks",
        function=gradient_noise,
        cost=2.0,
        refuses=_keras.why_not_the_step,
    ),
    Technique(
        name="clip_norm",
        place="gradient",
        hook="gradients",
        summary="Shortens the gradient to a largest norm, over all weights together.",
        helps="Losses spike, as with recurrent networks, rare labels or a high learning rate.",
        hurts="The bound is far below the usual norm: then it only makes the learning rate smaller.",
        unit="largest Euclidean norm of all gradients together; None for no bound",
        limits=(0.0, math.inf),
        range=(0.01, 10.0),
        scale="log",
        acts_on="the gradients of all trainable weights",
        at_inference="nothing",
        paper="Pascanu et al. 2013, On the difficulty of training recurrent neural networks",
        function=clip_norm,
        given=_own_clipping,
        restore=_restore_clipping,
        refuses=_refuses_clipping,
        inverted=True,
    ),
    Technique(
        name="adaptive_clip",
        place="gradient",
        hook="gradients",
        summary="Shortens the gradient of each unit's weights to a largest share of the weights themselves.",
        helps="Deep networks without batch normalization, high learning rates, large batches.",
        hurts="Layers start at 0, such as a last one that is fine-tuned: it takes long until they may move.",
        unit="largest norm of a unit's gradient, as a share of the norm of its incoming weights; None for no bound",
        limits=(0.0, math.inf),
        range=(0.001, 1.0),
        scale="log",
        acts_on="the gradients of all trainable weights",
        at_inference="nothing",
        paper="Brock et al. 2021, High-performance large-scale image recognition without normalization",
        function=adaptive_clip,
        inverted=True,
    ),
)
