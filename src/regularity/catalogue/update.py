"""Place 'update': what happens to the weights beside the optimizer's step, and which weights are kept in the end."""

import math
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from regularity import _keras
from regularity.catalogue._technique import Technique, itself


def weight_decay(variable: Any, strength: Any, learning_rate: Any) -> Any:
    """`w - learning_rate * strength * w`, apart from the gradient, as Keras's optimizers do it."""
    return variable - variable * strength * learning_rate


def max_norm(variable: Any, inverse: Any, axis: Sequence[int]) -> Any:
    """`w * min(1, bound / |w|)`, the norm over `axis`, with `inverse` 1 / bound and 0 for no bound."""
    variable = ops.convert_to_tensor(variable)
    excess = ops.sqrt(ops.sum(ops.square(variable), tuple(axis), keepdims=True)) * inverse
    return ops.where(excess > 1, variable / ops.maximum(excess, 1), variable)


def unit_norm(variable: Any, strength: Any, axis: Sequence[int]) -> Any:
    """`(1 - strength) * w + strength * w / |w|`, the norm over `axis`; zeros stay zeros, as in Keras's `UnitNorm`."""
    variable = ops.convert_to_tensor(variable)
    norms = ops.sqrt(ops.sum(ops.square(variable), tuple(axis), keepdims=True))
    return (1 - strength) * variable + strength * (variable / (norms + keras.config.epsilon()))


def proximal_l1(variable: Any, held: Any, strength: Any, step: Any, learning_rate: Any) -> tuple[Any, None]:
    """`sign(w) * max(|w| - learning_rate * strength, 0)`."""
    del held, step
    return ops.sign(variable) * ops.maximum(ops.absolute(variable) - learning_rate * strength, 0.0), None


# As in the paper's experiments.
_LOOKAHEAD_STEPS = 5


def lookahead(variable: Any, held: Any, strength: Any, step: Any, learning_rate: Any) -> tuple[Any, Any]:
    """Every fifth step `w = s + (1 - strength) * (w - s)`, where `s` is what `w` was five steps before."""
    del learning_rate
    now = (step + 1) % _LOOKAHEAD_STEPS == 0
    # written so that a strength of 0 leaves the weight as it is, to the bit
    back = ops.where(now, variable - strength * (variable - held), variable)
    return back, ops.where(now, back, held)


def cpr(variable: Any, held: Any, inverse: Any, step: Any, learning_rate: Any) -> tuple[Any, Any]:
    """`w - 2 * m * w` with `m = max(0, m + mean(w ** 2) - bound * start)`, which rises while the bound is broken.

    `held` is `m` and `start`, the mean square at the first step; `inverse` is 1 / bound, and 0 for no bound.
    """
    del step, learning_rate
    multiplier, start = ops.unstack(held)
    bound = start / ops.maximum(inverse, 1e-30)
    multiplier = ops.maximum(multiplier + ops.mean(ops.square(variable)) - bound, 0.0)
    multiplier = ops.where(inverse > 0, multiplier, 0.0)
    return variable - 2.0 * multiplier * variable, ops.stack([multiplier, start])


def _multiplier_and_square(variable: Any) -> Any:
    square = ops.mean(ops.square(variable))
    return ops.stack([ops.zeros_like(square), square])


def ema(momentum: Any, step: Any, begin: Any, length: Any) -> Any:
    """What is kept of the average at each step: `momentum`, nothing at the first step."""
    del length
    return ops.where(step > begin, momentum, 0.0)


def swa(share: Any, step: Any, begin: Any, length: Any) -> Any:
    """What is kept of the average at each step: `1 - 1 / n` at the n-th step of the last `share` of training, nothing before.

    So the average is the plain mean over those steps.
    """
    first = begin + ops.floor((1.0 - share) * length)  # the step after which weights count
    n = ops.maximum(step + 1.0 - first, 1.0)
    return 1.0 - 1.0 / n


# Ends of cycles that are kept.
SNAPSHOTS = 5


def snapshots(strength: Any, step: Any, begin: Any, length: Any) -> tuple[Any, Any]:
    """The share of the learning rate, `1 - strength * (1 - cos(pi * t)) / 2` with `t` from 0 to 1 in each of five cycles; and which cycle it is."""
    # of a length that nobody has said, as by `train_on_batch`, it is always the beginning
    cycles = ops.where(length > 0, SNAPSHOTS * (step - begin) / ops.maximum(length, 1.0), 0.0)
    number = ops.floor(cycles)
    return 1.0 - strength * (1.0 - ops.cos(math.pi * (cycles - number))) / 2.0, number


def _own_average(model: Any) -> float | None:
    optimizer = _keras.innermost(model.optimizer)
    return float(optimizer.ema_momentum) if optimizer.use_ema else None


def _restore_average(optimizer: Any, momentum: float | None) -> None:
    optimizer.use_ema = bool(momentum)
    optimizer.ema_momentum = momentum or optimizer.ema_momentum


def _refuses_average(model: Any) -> str | None:
    if _own_average(model) is not None:
        return "its optimizer averages weights already (use_ema=True): compile it without, or use the technique 'ema'."
    return None


def _refuses_snapshots(model: Any) -> str | None:
    return _keras.why_not_the_step(model) or _keras.why_no_cycles(model)


TECHNIQUES = (
    Technique(
        name="weight_decay",
        place="update",
        hook="decay",
        summary="Shrinks weights by a share of themselves at each step, apart from the gradient.",
        helps="Nearly everywhere, above all under Adam, where an L2 penalty is distorted.",
        hurts="Training is short or the learning rate small: then little decays, since the share is of the learning rate.",
        unit="share of the weight per step, times the learning rate",
        limits=(0.0, math.inf),
        range=(1e-4, 1.0),
        scale="log",
        acts_on="kernels of trainable layers, and every variable that the optimizer decays already",
        at_inference="nothing",
        paper="Loshchilov and Hutter 2019, Decoupled weight decay regularization",
        function=weight_decay,
    ),
    Technique(
        name="max_norm",
        place="update",
        hook="constraint",
        summary="Shortens the incoming weights of each unit to a largest norm after each step.",
        helps="The learning rate is high, as together with dropout: weights can't grow without end.",
        hurts="A layer must grow large weights, such as one before a softmax over many classes.",
        unit="largest Euclidean norm of a unit's incoming weights; None for no bound",
        limits=(0.0, math.inf),
        range=(0.3, 10.0),
        scale="log",
        acts_on="kernels of trainable layers, over the incoming weights of each unit; every kernel that has such a constraint",
        at_inference="nothing",
        paper="Srebro and Shraibman 2005, Rank, trace-norm and max-norm; Srivastava et al. 2014, Dropout",
        function=max_norm,
        stock={keras.constraints.MaxNorm: "max_value"},
        inverted=True,
    ),
    Technique(
        name="unit_norm",
        place="update",
        hook="constraint",
        summary="Moves the incoming weights of each unit towards a norm of 1 after each step.",
        helps="Only the directions of weights should be learned, and all units should count alike.",
        hurts="Units must differ in size, as in a last layer, or some are to be driven to zero.",
        unit="share of the way to weights of norm 1 that is gone after each step; 1 is Keras's UnitNorm",
        limits=(0.0, 1.0),
        range=(1e-4, 1.0),
        scale="log",
        acts_on="kernels of trainable layers, over the incoming weights of each unit; after a constraint that the model has",
        at_inference="nothing: the weights have the norms that training left them",
        paper="Salimans and Kingma 2016, Weight normalization; Loshchilov et al. 2025, nGPT: Normalized transformer",
        function=unit_norm,
    ),
    Technique(
        name="proximal_l1",
        place="update",
        hook="after",
        summary="Moves each weight towards zero by the same amount after each step, and those that reach it stay there.",
        helps="Weights that are exactly 0 are wanted: l1 under Adam, or plain descent, leaves them near it.",
        hurts="Every weight carries a little.",
        unit="moved per step, times the learning rate",
        limits=(0.0, math.inf),
        range=(1e-5, 1.0),
        scale="log",
        acts_on="kernels of trainable layers",
        at_inference="nothing",
        paper="Parikh and Boyd 2014, Proximal algorithms; Duchi and Singer 2009, Efficient online and batch learning using forward backward splitting",
        function=proximal_l1,
    ),
    Technique(
        name="cpr",
        place="update",
        hook="after",
        summary="Lets the weights of each layer grow to a bound, and decays them by as much as it takes to keep them there.",
        helps="Instead of weight decay, which is too strong for some layers where it is too weak for others.",
        hurts="Weights start far from the size that they need.",
        unit="largest mean square of a layer's weights, as a multiple of that at the start; None for no bound",
        limits=(0.0, math.inf),
        range=(0.5, 32.0),
        scale="log",
        acts_on="kernels of trainable layers",
        at_inference="nothing",
        paper="Franke et al. 2024, Improving deep learning optimization through constrained parameter regularization",
        function=cpr,
        start=_multiplier_and_square,
        inverted=True,
    ),
    Technique(
        name="lookahead",
        place="update",
        hook="after",
        summary="Takes the weights a share of the way back every fifth step, to where they were five steps before.",
        helps="The learning rate is high, or training wanders about a minimum.",
        hurts="Training is short: it makes progress slower.",
        unit="share of the way back; 1 less alpha of the paper",
        limits=(0.0, 1.0),
        range=(0.0, 0.8),
        scale="linear",
        acts_on="all trainable weights",
        at_inference="nothing",
        paper="Zhang et al. 2019, Lookahead optimizer: k steps forward, 1 step back",
        function=lookahead,
        start=itself,
        whole=True,
    ),
    Technique(
        name="ema",
        place="update",
        hook="average",
        summary="Keeps an exponential moving average of the weights, which takes their place in the end.",
        helps="The learning rate does not fall to zero, batches are small or labels noisy.",
        hurts="Training is shorter than the average is long, which is 1 / (1 - momentum) steps.",
        unit="share of the average that is kept at each step",
        limits=(0.0, 1.0),
        range=(0.9, 0.9999),
        scale="reverse_log",
        acts_on="all trainable weights",
        at_inference="nothing: the weights are the averages, with the statistics of batch normalization that these have on the rows",
        paper="Polyak and Juditsky 1992, Acceleration of stochastic approximation by averaging",
        function=ema,
        given=_own_average,
        restore=_restore_average,
    ),
    Technique(
        name="swa",
        place="update",
        hook="average",
        summary="Takes the mean of the weights over the last share of training.",
        helps="Training is long enough to wander about a minimum.",
        hurts="Weights still move much in that share of training.",
        unit="share of the training's steps, its last, that is averaged",
        limits=(0.0, 1.0),
        range=(0.0, 0.75),
        scale="linear",
        acts_on="all trainable weights",
        at_inference="nothing: the weights are the means, with the statistics of batch normalization that these have on the rows",
        paper="Izmailov et al. 2018, Averaging weights leads to wider optima and better generalization",
        function=swa,
        refuses=_refuses_average,
        of_length=True,
    ),
    Technique(
        name="snapshots",
        place="update",
        hook="cycle",
        summary="Lets the learning rate fall to zero five times, and averages the outputs of the five networks that are there at the ends.",
        helps="One network's outputs depend on chance, and training is long enough to come near a minimum five times.",
        hurts="Training is short, or the network that is used must be small: it is five networks.",
        unit="share of the learning rate by which it falls in each cycle; 1 is the paper's",
        limits=(0.0, 1.0),
        range=(0.0, 1.0),
        scale="linear",
        acts_on="all trainable weights, and the statistics of batch normalization",
        at_inference="the mean of the outputs of the five networks, each as training left it at the end of a cycle",
        paper="Huang et al. 2017, Snapshot ensembles: train 1, get M for free",
        function=snapshots,
        refuses=_refuses_snapshots,
        of_length=True,
        cost=1.5,
    ),
)
