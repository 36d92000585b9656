"""Place 'gradient': where the gradient is taken, and what becomes of it before the optimizer has it."""

import math
from collections.abc import Sequence
from typing import Any

from keras import ops

from regularity import _keras
from regularity.catalogue._technique import Technique, at_least_single


def global_norm(gradients: Sequence[Any]) -> Any:
    """The Euclidean norm of all gradients together."""
    return ops.sqrt(sum(ops.sum(ops.square(at_least_single(g))) for g in gradients))


def sam(weights: Sequence[Any], gradients: Sequence[Any], rho: Any) -> list[Any]:
    """`w + rho * g / |g|`: where the loss rises steepest within a distance of `rho`, to first order."""
    step = rho / ops.maximum(global_norm(gradients), 1e-12)
    return [w + ops.cast(step * at_least_single(g), w.dtype) for w, g in zip(weights, gradients, strict=True)]


def clip_norm(gradients: Sequence[Any], inverse: Any) -> list[Any]:
    """`g * min(1, bound / |g|)`, the norm over all gradients together, with `inverse` 1 / bound and 0 for no bound."""
    excess = global_norm(gradients) * inverse
    scale = ops.where(excess > 1, 1.0 / ops.maximum(excess, 1.0), 1.0)
    return [ops.cast(at_least_single(g) * scale, g.dtype) for g in gradients]


def _own_clipping(model: Any) -> float | None:
    bound = _keras.innermost(model.optimizer).global_clipnorm
    return 1 / float(bound) if bound else None


def _restore_clipping(optimizer: Any, bound: float | None) -> None:
    optimizer.global_clipnorm = bound


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
        inverted=True,
    ),
)
