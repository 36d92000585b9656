"""Place 'weights': penalties on variables, added to the loss, each of one variable."""

import math
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from keras import ops

from regularity.catalogue._technique import (
    HidesStrengths,
    Strength,
    Technique,
    at_least_single,
    checked_strength,
    itself,
)


def l1(weights: Any, strength: Any) -> Any:
    """`strength * sum(|w|)`."""
    return ops.cast(strength * ops.sum(ops.absolute(at_least_single(weights))), weights.dtype)


def l2(weights: Any, strength: Any) -> Any:
    """`strength * sum(w ** 2)`, without a factor of one half, as in Keras."""
    return ops.cast(strength * ops.sum(ops.square(at_least_single(weights))), weights.dtype)


def group_lasso(weights: Any, strength: Any) -> Any:
    """`strength * sqrt(size) * sum(|w_u|)` over the incoming weights `w_u` of each output unit or filter, `size` of each."""
    return _sum_of_norms(weights, strength, tuple(range(len(weights.shape) - 1)))


def input_group_lasso(weights: Any, strength: Any) -> Any:
    """`strength * sqrt(size) * sum(|w_i|)` over the outgoing weights `w_i` of each input unit or channel, `size` of each."""
    inputs = max(len(weights.shape) - 2, 0)
    return _sum_of_norms(weights, strength, tuple(axis for axis in range(len(weights.shape)) if axis != inputs))


def _sum_of_norms(weights: Any, strength: Any, axes: tuple[int, ...]) -> Any:
    squares = ops.sum(ops.square(at_least_single(weights)), axes) if axes else ops.square(at_least_single(weights))
    away = squares > 0  # at 0 the norm has no gradient: there it counts as 0
    norms = ops.where(away, ops.sqrt(ops.where(away, squares, 1.0)), 0.0)
    size = math.prod(weights.shape[axis] for axis in axes)
    return ops.cast(strength * math.sqrt(size) * ops.sum(norms), weights.dtype)


def hoyer_square(weights: Any, strength: Any) -> Any:
    """`strength * sum(|w|) ** 2 / sum(w ** 2)`: how many weights count, whatever their scale."""
    w = at_least_single(weights)
    squares = ops.maximum(ops.sum(ops.square(w)), 1e-12)
    return ops.cast(strength * ops.square(ops.sum(ops.absolute(w))) / squares, weights.dtype)


def orthogonal(weights: Any, strength: Any) -> Any:
    """`strength * |W^T W - I| ** 2` of the weights as a matrix of (inputs, units), or of its transpose where that is wide."""
    w = _tall(weights)
    gram = ops.matmul(ops.transpose(w), w)
    return ops.cast(strength * ops.sum(ops.square(gram - ops.eye(w.shape[1]))), weights.dtype)


def _tall(weights: Any) -> Any:
    """The weights as a matrix of (inputs, units), or its transpose where that is wide."""
    units = math.prod(weights.shape[-1:])  # 1 for a scalar
    w = ops.reshape(at_least_single(weights), (-1, units))
    return ops.transpose(w) if w.shape[1] > w.shape[0] else w


def sparse_group_lasso(weights: Any, strength: Any, l1_share: float = 0.5) -> Any:
    """`strength * (0.5 * sqrt(size) * sum(|w_u|) + 0.5 * sum(|w|))`, `w_u` the `size` incoming weights of each output unit."""
    w = at_least_single(weights)
    return ops.cast(group_lasso(w, strength * (1 - l1_share)) + l1(w, strength * l1_share), weights.dtype)


def spectral_norm(weights: Any, strength: Any) -> Any:
    """`strength / 2 * sigma ** 2`, `sigma` the largest singular value of the weights as a matrix of (inputs, units)."""
    w = _tall(weights)
    v = _strongest(ops.stop_gradient(w))  # so that the gradient is `strength * sigma * u v^T`, as in the paper
    return ops.cast(strength / 2 * ops.sum(ops.square(ops.matmul(w, v))), weights.dtype)


_STEPS = 16
_TINY = 1e-30  # keeps 0 / 0 at 0


def _strongest(w: Any) -> Any:
    """The vector of length 1 that `w` makes longest, or 0 where `w` is 0, by Lanczos's method.

    A span of w^T w applied again and again to a first vector is searched for the best in it. It is all there is, and so
    the answer is exact, where `w` has at most 16 columns.
    """
    w = w / ops.maximum(ops.max(ops.absolute(w)), _TINY)  # else powers of it might overflow
    # Drawn, since a vector of a pattern, such as ones, may be at right angles to the answer; always the same.
    first = np.random.default_rng(0).normal(size=(w.shape[1], 1))
    first = ops.convert_to_tensor(first / np.linalg.norm(first), w.dtype)
    here, image = ops.eye(1, min(_STEPS, w.shape[1]), dtype=w.dtype), ops.matmul(w, first)
    found = (w, first * here, image * here, image)
    _, span, images, _ = ops.fori_loop(1, here.shape[1], _wider, found)
    # 4096 steps of the power method, from each axis at once: the longest column is not 0
    power = ops.fori_loop(0, 12, _squared, ops.matmul(ops.transpose(images), images))
    best = ops.matmul(span, ops.take(power, ops.argmax(ops.diagonal(power)), axis=1))
    return best / ops.maximum(ops.norm(best), _TINY)


def _wider(step: Any, found: Any) -> Any:
    """One step of Lanczos's method: the span has one vector more, at right angles to it, with its image under `w`."""
    w, span, images, image = found  # (rows, columns), (columns, steps), (rows, steps), (rows, 1)
    new = ops.matmul(ops.transpose(w), image)
    length = ops.norm(new)
    for _ in range(2):  # once leaves a part of the span in it, by rounding
        new = new - ops.matmul(span, ops.matmul(ops.transpose(span), new))
    # what is left by rounding alone adds nothing: as 0 it takes no part
    new = ops.where(ops.norm(new) > 1e-5 * length, new / ops.maximum(ops.norm(new), _TINY), 0.0)
    image, here = ops.matmul(w, new), ops.cast(ops.arange(span.shape[1]) == step, w.dtype)
    return w, span + new * here, images + image * here, image


def _squared(step: Any, power: Any) -> Any:
    del step
    power = power / ops.maximum(ops.trace(power), _TINY)
    return ops.matmul(power, power)


def nuclear_norm(weights: Any, strength: Any) -> Any:
    """`strength * sum(sigma)` over all singular values `sigma` of the weights as a matrix of (inputs, units)."""
    w = _tall(weights)
    return ops.cast(strength * ops.sum(w * _directions(ops.stop_gradient(w))), weights.dtype)


def _factors(least: float) -> list[float]:
    """By what to multiply at each step of `_directions`, until numbers from `least` to 1 have become 1."""
    factors = []
    while 1 - least > 1e-6:
        # The first makes the step as long as it can be. But what it makes more than sqrt(3) comes out negative, so the
        # second keeps off that by 2 %, more than what any precision rounds by that matrix products are computed in.
        factors.append(min(math.sqrt(3 / (1 + least + least**2)), 1.69))
        least = factors[-1] * least * (3 - (factors[-1] * least) ** 2) / 2
    return factors


_FACTORS = _factors(1e-3)


def _directions(w: Any) -> Any:
    """`U V^T` of `w = U S V^T`: the sum of `w * U V^T` is that of the singular values, and `U V^T` its gradient.

    By the iteration of Newton and Schulz, which takes matrix products alone, with the factors of Chen and Chow, "A stable
    scaling of Newton-Schulz", 2014. It acts on each singular value by itself: those above a thousandth of `|w|` become 1,
    and those that are 0 stay 0, so that this is the smallest of the subgradients. A decomposition would take many times as
    long, and its own derivative is not a number where singular values are equal.
    """
    w = w / ops.maximum(ops.max(ops.absolute(w)), _TINY)  # else squares might overflow
    w = w / ops.maximum(ops.norm(w), _TINY)
    _, directions = ops.fori_loop(0, len(_FACTORS), _nearer, (ops.convert_to_tensor(_FACTORS, w.dtype), w))
    return directions


def _nearer(step: Any, found: Any) -> Any:
    factors, w = found
    w = w * ops.take(factors, step)
    return factors, 1.5 * w - 0.5 * ops.matmul(w, ops.matmul(ops.transpose(w), w))


def l2_sp(variable: Any, start: Any, strength: Any) -> Any:
    """The gradient `2 * strength * (w - start)` of `strength * sum((w - start) ** 2)`."""
    return 2.0 * strength * (variable - start)


class Penalty(keras.regularizers.Regularizer, HidesStrengths):
    """A regularizer that is also a layer, so that the layer that holds it tracks its strengths."""

    def __init__(self, **strengths: Any) -> None:
        keras.layers.Layer.__init__(self)
        for name, value in strengths.items():
            setattr(self, name, value)
        self.built = True  # it has no inputs to wait for

    def quantize(self, *args: Any, **kwargs: Any) -> None:
        """Have `Model.quantize` say what it leaves out: it takes a layer only where that holds no other."""
        raise NotImplementedError(
            f"{type(self).__name__} {self.name!r} keeps its layer from being quantized, since it is a layer too. "
            "To quantize that layer, load the weights into the model with Keras's own regularizers first."
        )

    @property
    def settings(self) -> dict[str, float]:
        """The arguments of the technique's function beside the strength, as recipes are to leave them."""
        return {}

    def get_config(self) -> dict[str, float]:
        return {name: float(variable) for name, variable in self.__dict__["_strengths"].items()}


class OneStrength(Penalty):
    """A penalty with one strength, a number from 0 (off) up."""

    strength = Strength((0.0, math.inf))

    def __init__(self, strength: Any = 0.01) -> None:
        super().__init__(strength=0.01 if strength is None else strength)


@keras.saving.register_keras_serializable(package="regularity")
class L1(Penalty):
    """Penalty `l1 * sum(|w|)` whose strength is a weight: assign to it and the next step uses it.

    Args:
        l1: Strength, a number from 0 (off) up.

    Raises:
        ValueError: If `l1` is negative, NaN or infinite.

    Example:
        >>> import keras, regularity as rg
        >>> layer = keras.layers.Dense(2, kernel_initializer="ones", kernel_regularizer=rg.regularizers.L1(0.5))
        >>> layer.build((None, 3))
        >>> float(layer.losses[0])
        3.0
        >>> layer.kernel_regularizer.l1 = 0.25
        >>> float(layer.losses[0])
        1.5

    Tibshirani, "Regression shrinkage and selection via the lasso", 1996.
    """

    l1 = Strength((0.0, math.inf))

    def __init__(self, l1: Any = 0.01) -> None:
        super().__init__(l1=0.01 if l1 is None else l1)

    def __call__(self, x: Any) -> Any:
        return l1(x, self.l1)


@keras.saving.register_keras_serializable(package="regularity")
class L2(Penalty):
    """Penalty `l2 * sum(w ** 2)` whose strength is a weight: assign to it and the next step uses it.

    Args:
        l2: Strength, a number from 0 (off) up.

    Raises:
        ValueError: If `l2` is negative, NaN or infinite.

    Example:
        >>> import keras, regularity as rg
        >>> layer = keras.layers.Dense(2, kernel_initializer="ones", kernel_regularizer=rg.regularizers.L2(0.5))
        >>> layer.build((None, 3))
        >>> float(layer.losses[0])
        3.0

    Hoerl and Kennard, "Ridge regression", 1970; Krogh and Hertz, "A simple weight decay can improve
    generalization", 1991.
    """

    l2 = Strength((0.0, math.inf))

    def __init__(self, l2: Any = 0.01) -> None:
        super().__init__(l2=0.01 if l2 is None else l2)

    def __call__(self, x: Any) -> Any:
        return l2(x, self.l2)


@keras.saving.register_keras_serializable(package="regularity")
class L1L2(Penalty):
    """Penalty `l1 * sum(|w|) + l2 * sum(w ** 2)`, both strengths weights.

    Args:
        l1: Strength of the absolute values, a number from 0 (off) up.
        l2: Strength of the squares, a number from 0 (off) up.

    Raises:
        ValueError: If a strength is negative, NaN or infinite.

    Example:
        >>> import keras, regularity as rg
        >>> penalty = rg.regularizers.L1L2(l1=0.5, l2=0.25)
        >>> layer = keras.layers.Dense(2, kernel_initializer="ones", kernel_regularizer=penalty)
        >>> layer.build((None, 3))
        >>> float(layer.losses[0])
        4.5
        >>> penalty.l2 = 0.0
        >>> float(layer.losses[0])
        3.0

    Zou and Hastie, "Regularization and variable selection via the elastic net", 2005.
    """

    l1 = Strength((0.0, math.inf))
    l2 = Strength((0.0, math.inf))

    def __init__(self, l1: Any = 0.0, l2: Any = 0.0) -> None:
        super().__init__(l1=0.0 if l1 is None else l1, l2=0.0 if l2 is None else l2)

    def __call__(self, x: Any) -> Any:
        return l1(x, self.l1) + l2(x, self.l2)


@keras.saving.register_keras_serializable(package="regularity")
class GroupLasso(OneStrength):
    """Penalty `strength * sqrt(size) * sum(|w_u|)` whose strength is a weight: assign to it and the next step uses it.

    `w_u` are the incoming weights of each output unit, or of each filter of a convolution, `size` their number. A kernel
    alone does not say which these are, so that its last axis counts as units: of a depthwise one, (h, w, inputs, multiplier),
    that makes one group a multiplier. A recipe knows the layer, and has one for each output channel.

    Args:
        strength: A number from 0 (off) up.

    Raises:
        ValueError: If `strength` is negative, NaN or infinite.

    Example:
        >>> import keras, numpy as np, regularity as rg
        >>> layer = keras.layers.Dense(2, use_bias=False, kernel_regularizer=rg.regularizers.GroupLasso(0.5))
        >>> layer.build((None, 4))
        >>> layer.set_weights([np.array([[3.0, 0], [4, 0], [0, 0], [0, 0]])])
        >>> round(float(layer.losses[0]), 4)
        5.0

    Yuan and Lin, "Model selection and estimation in regression with grouped variables", 2006; Scardapane et al., "Group
    sparse regularization for deep neural networks", 2017.
    """

    def __call__(self, x: Any) -> Any:
        return group_lasso(x, self.strength)


@keras.saving.register_keras_serializable(package="regularity")
class InputGroupLasso(OneStrength):
    """Penalty `strength * sqrt(size) * sum(|w_i|)` whose strength is a weight: assign to it and the next step uses it.

    `w_i` are the outgoing weights of each input unit, or of each input channel of a convolution, `size` their number. A
    kernel alone does not say which these are, so that its last axis but one counts as inputs; a recipe knows the layer (see
    `GroupLasso`).

    Args:
        strength: A number from 0 (off) up.

    Raises:
        ValueError: If `strength` is negative, NaN or infinite.

    Example:
        >>> import keras, numpy as np, regularity as rg
        >>> layer = keras.layers.Dense(2, use_bias=False, kernel_regularizer=rg.regularizers.InputGroupLasso(0.5))
        >>> layer.build((None, 4))
        >>> layer.set_weights([np.array([[3.0, 0], [4, 0], [0, 0], [0, 0]])])
        >>> round(float(layer.losses[0]), 4)
        4.9497

    Scardapane et al., "Group sparse regularization for deep neural networks", 2017.
    """

    def __call__(self, x: Any) -> Any:
        return input_group_lasso(x, self.strength)


@keras.saving.register_keras_serializable(package="regularity")
class HoyerSquare(OneStrength):
    """Penalty `strength * sum(|w|) ** 2 / sum(w ** 2)` whose strength is a weight: assign to it and the next step uses it.

    It does not change when all weights grow by one factor, so that it asks for few weights rather than small ones.

    Args:
        strength: A number from 0 (off) up.

    Raises:
        ValueError: If `strength` is negative, NaN or infinite.

    Example:
        >>> import keras, numpy as np, regularity as rg
        >>> layer = keras.layers.Dense(2, use_bias=False, kernel_regularizer=rg.regularizers.HoyerSquare(0.5))
        >>> layer.build((None, 4))
        >>> layer.set_weights([np.array([[3.0, 0], [4, 0], [0, 0], [0, 0]])])
        >>> round(float(layer.losses[0]), 4)
        0.98

    Yang et al., "DeepHoyer: learning sparser neural network with differentiable scale-invariant sparsity measures", 2020.
    """

    def __call__(self, x: Any) -> Any:
        return hoyer_square(x, self.strength)


@keras.saving.register_keras_serializable(package="regularity")
class Orthogonal(OneStrength):
    """Penalty `strength * |W^T W - I| ** 2` whose strength is a weight: assign to it and the next step uses it.

    `W` are the weights as a matrix of (inputs, units), or its transpose where that is wide. Variables of any rank will do;
    Keras's `OrthogonalRegularizer` takes matrices alone, and asks for right angles without unit length.

    Args:
        strength: A number from 0 (off) up.

    Raises:
        ValueError: If `strength` is negative, NaN or infinite.

    Example:
        >>> import keras, numpy as np, regularity as rg
        >>> layer = keras.layers.Dense(2, use_bias=False, kernel_regularizer=rg.regularizers.Orthogonal(0.5))
        >>> layer.build((None, 4))
        >>> layer.set_weights([np.array([[3.0, 0], [4, 0], [0, 0], [0, 0]])])
        >>> round(float(layer.losses[0]), 4)
        288.5

    Bansal et al., "Can we gain more from orthogonality regularizations in training deep networks?", 2018.
    """

    def __call__(self, x: Any) -> Any:
        return orthogonal(x, self.strength)


@keras.saving.register_keras_serializable(package="regularity")
class SparseGroupLasso(Penalty):
    """Penalty of `GroupLasso` and of `L1` in one, whose strength is a weight: assign to it and the next step uses it.

    It is `strength * ((1 - l1_share) * sqrt(size) * sum(|w_u|) + l1_share * sum(|w|))`, where `w_u` are the incoming weights
    of each output unit, or of each filter of a convolution, `size` their number.

    Args:
        strength: A number from 0 (off) up.
        l1_share: How much of it is the absolute values, from 0 (`GroupLasso`) to 1 (`L1`). A recipe that reaches such a
            penalty sets its strength and leaves its share; one that puts it in takes 0.5.

    Raises:
        ValueError: If `strength` is negative, NaN or infinite, or `l1_share` not a number from 0 to 1.

    Example:
        >>> import keras, numpy as np, regularity as rg
        >>> layer = keras.layers.Dense(2, use_bias=False, kernel_regularizer=rg.regularizers.SparseGroupLasso(0.5))
        >>> layer.build((None, 4))
        >>> layer.set_weights([np.array([[3.0, 0], [4, 0], [0, 0], [0, 0]])])
        >>> round(float(layer.losses[0]), 4)
        4.25

    Simon et al., "A sparse-group lasso", 2013; Scardapane et al., "Group sparse regularization for deep neural networks",
    2017.
    """

    strength = Strength((0.0, math.inf))

    def __init__(self, strength: Any = 0.01, l1_share: float = 0.5) -> None:
        super().__init__(strength=0.01 if strength is None else strength)
        self.l1_share = checked_strength(l1_share, "l1_share", (0.0, 1.0))

    def __call__(self, x: Any) -> Any:
        return sparse_group_lasso(x, self.strength, **self.settings)

    @property
    def settings(self) -> dict[str, float]:
        return {"l1_share": self.l1_share}

    def get_config(self) -> dict[str, float]:
        return {**super().get_config(), **self.settings}


@keras.saving.register_keras_serializable(package="regularity")
class SpectralNorm(OneStrength):
    """Penalty `strength / 2 * sigma ** 2` whose strength is a weight: assign to it and the next step uses it.

    `sigma` is the largest singular value of the weights as a matrix of (inputs, units), all axes but the last taken as
    inputs: how much longer a layer may make its input. It is computed anew at each step, without a state, and is exact to
    rounding where there are at most 16 inputs or 16 units. Beyond that it may come out too small, where the two largest are
    nearly equal: in random matrices of 64 to 1024 columns by less than half a hundredth as a rule, by up to 2 %. Keras's
    `SpectralNormalization` divides weights by `sigma` instead.

    Args:
        strength: A number from 0 (off) up.

    Raises:
        ValueError: If `strength` is negative, NaN or infinite.

    Example:
        >>> import keras, numpy as np, regularity as rg
        >>> layer = keras.layers.Dense(2, use_bias=False, kernel_regularizer=rg.regularizers.SpectralNorm(0.5))
        >>> layer.build((None, 4))
        >>> layer.set_weights([np.array([[3.0, 0], [4, 0], [0, 1], [0, 1]])])
        >>> round(float(layer.losses[0]), 4)
        6.25

    Yoshida and Miyato, "Spectral norm regularization for improving the generalizability of deep learning", 2017.
    """

    def __call__(self, x: Any) -> Any:
        return spectral_norm(x, self.strength)


@keras.saving.register_keras_serializable(package="regularity")
class NuclearNorm(OneStrength):
    """Penalty `strength * sum(sigma)` whose strength is a weight: assign to it and the next step uses it.

    `sigma` are the singular values of the weights as a matrix of (inputs, units), all axes but the last taken as inputs. It
    is to them what `L1` is to weights: it drives many of them towards zero, so that the matrix is nearly one of low rank.
    Singular values below a thousandth of the weights' Euclidean norm count as less than they are, the less the smaller.

    Args:
        strength: A number from 0 (off) up.

    Raises:
        ValueError: If `strength` is negative, NaN or infinite.

    Example:
        >>> import keras, numpy as np, regularity as rg
        >>> layer = keras.layers.Dense(2, use_bias=False, kernel_regularizer=rg.regularizers.NuclearNorm(0.5))
        >>> layer.build((None, 4))
        >>> layer.set_weights([np.array([[3.0, 0], [4, 0], [0, 1], [0, 0]])])
        >>> round(float(layer.losses[0]), 4)
        3.0

    Recht et al., "Guaranteed minimum-rank solutions of linear matrix equations via nuclear norm minimization", 2010.
    """

    def __call__(self, x: Any) -> Any:
        return nuclear_norm(x, self.strength)


def stock_penalty(strengths: Mapping[str, float]) -> keras.regularizers.Regularizer | None:
    """Keras's own regularizer with these strengths, by name of technique; None where all it has are 0."""
    on = {name: value for name, value in strengths.items() if value and name in ("l1", "l2")}
    if not on:
        return None
    if len(on) > 1:
        return keras.regularizers.L1L2(**on)
    return {"l1": keras.regularizers.L1, "l2": keras.regularizers.L2}[next(iter(on))](*on.values())


TECHNIQUES = (
    Technique(
        name="l1",
        place="weights",
        hook="penalty",
        helps="Many inputs carry nothing, or a network with few weights that matter is wanted.",
        hurts="Weights are many and all of them small; under Adam they come near zero, not to it.",
        summary="Adds the sum of absolute weights to the loss, which drives weights that carry little towards zero.",
        unit="added to the loss per unit of summed |w|",
        limits=(0.0, math.inf),
        range=(1e-7, 1e-1),
        scale="log",
        acts_on="kernels of trainable layers; not biases, embeddings or normalization",
        at_inference="nothing",
        paper="Tibshirani 1996, Regression shrinkage and selection via the lasso",
        function=l1,
        components=(L1,),
        stock={keras.regularizers.L1: "l1", keras.regularizers.L1L2: "l1", L1: "l1", L1L2: "l1"},
    ),
    Technique(
        name="l2",
        place="weights",
        hook="penalty",
        helps="Rows are few and the training score is far above the held-out one.",
        hurts="Under Adam it is divided by the gradient's size, so that weight_decay is often the better form.",
        summary="Adds the sum of squared weights to the loss, which keeps weights small.",
        unit="added to the loss per unit of summed w ** 2, with no factor of one half",
        limits=(0.0, math.inf),
        range=(1e-6, 1.0),
        scale="log",
        acts_on="kernels of trainable layers; not biases, embeddings or normalization",
        at_inference="nothing",
        paper="Hoerl and Kennard 1970, Ridge regression; "
        "Krogh and Hertz 1991, A simple weight decay can improve generalization",
        function=l2,
        components=(L2,),
        stock={keras.regularizers.L2: "l2", keras.regularizers.L1L2: "l2", L2: "l2", L1L2: "l2"},
    ),
    Technique(
        name="group_lasso",
        place="weights",
        hook="penalty",
        summary="Adds the norms of the incoming weights of each unit or filter to the loss, which drives whole units towards zero.",
        helps="A layer has more units than it needs: those that carry little can be taken out.",
        hurts="Every unit carries a little.",
        unit="added to the loss per unit of summed norms, each times the root of its number of weights",
        limits=(0.0, math.inf),
        range=(1e-6, 1e-1),
        scale="log",
        acts_on="kernels of trainable layers; not biases, embeddings or normalization",
        at_inference="nothing",
        paper="Yuan and Lin 2006, Model selection and estimation in regression with grouped variables",
        function=group_lasso,
        components=(GroupLasso,),
        stock={GroupLasso: "strength"},
    ),
    Technique(
        name="input_group_lasso",
        place="weights",
        hook="penalty",
        summary="Adds the norms of the outgoing weights of each input to the loss, which drives whole inputs towards zero.",
        helps="Many columns carry nothing: it selects among them.",
        hurts="Columns that belong together, such as a one-hot category, are judged one by one.",
        unit="added to the loss per unit of summed norms, each times the root of its number of weights",
        limits=(0.0, math.inf),
        range=(1e-6, 1e-1),
        scale="log",
        acts_on="kernels of trainable layers; not biases, embeddings or normalization",
        at_inference="nothing",
        paper="Scardapane et al. 2017, Group sparse regularization for deep neural networks",
        function=input_group_lasso,
        of_inputs=True,
        components=(InputGroupLasso,),
        stock={InputGroupLasso: "strength"},
    ),
    Technique(
        name="hoyer_square",
        place="weights",
        hook="penalty",
        summary="Adds the number of weights that count to the loss, whatever their scale, which asks for few rather than small weights.",
        helps="A sparse network is wanted without the shrinkage of L1.",
        hurts="The network is to be smooth rather than sparse.",
        unit="added to the loss per weight that counts",
        limits=(0.0, math.inf),
        range=(1e-7, 1e-2),
        scale="log",
        acts_on="kernels of trainable layers; not biases, embeddings or normalization",
        at_inference="nothing",
        paper="Yang et al. 2020, DeepHoyer: learning sparser neural network with differentiable scale-invariant sparsity measures",
        function=hoyer_square,
        components=(HoyerSquare,),
        stock={HoyerSquare: "strength"},
    ),
    Technique(
        name="orthogonal",
        place="weights",
        hook="penalty",
        summary="Adds the distance of each kernel from one with orthogonal columns of unit length to the loss.",
        helps="Deep networks without normalization, where signals should neither grow nor vanish.",
        hurts="The answer needs few directions of large weight, as in a last layer.",
        unit="added to the loss per unit of the squared distance",
        limits=(0.0, math.inf),
        range=(1e-6, 1e-1),
        scale="log",
        acts_on="kernels of trainable layers; not biases, embeddings or normalization",
        at_inference="nothing",
        paper="Bansal et al. 2018, Can we gain more from orthogonality regularizations in training deep networks?",
        function=orthogonal,
        cost=2.5,
        components=(Orthogonal,),
        stock={Orthogonal: "strength"},
    ),
    Technique(
        name="sparse_group_lasso",
        place="weights",
        hook="penalty",
        summary="Adds the norms of each unit's incoming weights and the sum of absolute weights to the loss, half and half.",
        helps="A layer has more units than it needs, and those that it needs use few of their inputs.",
        hurts="Every unit carries a little, of every input.",
        unit="added to the loss per unit of half the group_lasso and half the l1",
        limits=(0.0, math.inf),
        range=(1e-6, 1e-1),
        scale="log",
        acts_on="kernels of trainable layers; not biases, embeddings or normalization",
        at_inference="nothing",
        paper="Simon et al. 2013, A sparse-group lasso; "
        "Scardapane et al. 2017, Group sparse regularization for deep neural networks",
        function=sparse_group_lasso,
        components=(SparseGroupLasso,),
        stock={SparseGroupLasso: "strength"},
    ),
    Technique(
        name="spectral_norm",
        place="weights",
        hook="penalty",
        summary="Adds half the square of each kernel's largest singular value to the loss, so that no direction is made much longer.",
        helps="Predictions should change little when inputs do, as with noisy rows or adversarial ones.",
        hurts="The answer needs one direction of large weight, as in a last layer.",
        unit="added to the loss per unit of half the squared singular value",
        limits=(0.0, math.inf),
        range=(1e-5, 1.0),
        scale="log",
        acts_on="kernels of trainable layers; not biases, embeddings or normalization",
        at_inference="nothing",
        paper="Yoshida and Miyato 2017, Spectral norm regularization for improving the generalizability of deep learning",
        function=spectral_norm,
        cost=4.0,
        components=(SpectralNorm,),
        stock={SpectralNorm: "strength"},
    ),
    Technique(
        name="nuclear_norm",
        place="weights",
        hook="penalty",
        summary="Adds the sum of each kernel's singular values to the loss, which drives kernels towards low rank.",
        helps="Few directions of a layer's inputs matter: kernels near low rank can be split into two small layers.",
        hurts="Time is short: a step takes 22 products as large as that of a kernel with itself.",
        unit="added to the loss per unit of summed singular values",
        limits=(0.0, math.inf),
        range=(1e-6, 1e-1),
        scale="log",
        acts_on="kernels of trainable layers; not biases, embeddings or normalization",
        at_inference="nothing",
        paper="Recht et al. 2010, Guaranteed minimum-rank solutions of linear matrix equations via nuclear norm minimization",
        function=nuclear_norm,
        cost=10.0,
        components=(NuclearNorm,),
        stock={NuclearNorm: "strength"},
    ),
    Technique(
        name="l2_sp",
        place="weights",
        hook="anchor",
        summary="Pulls weights towards where they started, as l2 pulls them towards zero.",
        helps="A pretrained network is fine-tuned on few rows: what it knows is kept.",
        hurts="Weights start at random: then where they started means nothing.",
        unit="weight of the summed (w - start) ** 2; the loss that is reported does not have it",
        limits=(0.0, math.inf),
        range=(1e-5, 1.0),
        scale="log",
        acts_on="kernels of trainable layers; not biases, embeddings or normalization",
        at_inference="nothing",
        paper="Li et al. 2018, Explicit inductive bias for transfer learning with convolutional networks",
        function=l2_sp,
        start=itself,
    ),
)
