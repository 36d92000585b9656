"""Place 'activations': a layer in the forward pass, weights that a layer computes with, or a penalty on what it puts out."""

import math
from typing import Any

import keras
import numpy as np
from keras import ops

from regularity import _keras
from regularity.catalogue import weights
from regularity.catalogue._draws import normal, uniform
from regularity.catalogue._technique import HidesStrengths, Strength, Technique, at_least_single
from regularity.catalogue.batch import Pairs, mixup_pairs

# The smallest share of units kept for which 1 / keep is finite in each precision: without it the branch that is
# not taken at rate 1 would hold an infinity, and its gradient a NaN.
_SMALLEST_KEEP = {"float16": 1e-4}


def dropout(inputs: Any, rate: Any, seed: Any, noise_shape: tuple[int | None, ...] | None = None) -> Any:
    """`inputs * mask / (1 - rate)` with `mask` 1 with probability `1 - rate`; rate 0 is the identity, rate 1 zeros."""
    shape = ops.shape(inputs)
    if noise_shape is not None:
        shape = tuple(shape[axis] if size is None else size for axis, size in enumerate(noise_shape))
    keep = 1.0 - ops.convert_to_tensor(rate)
    mask = ops.broadcast_to(keras.random.uniform(shape, dtype="float32", seed=seed) < keep, ops.shape(inputs))
    dtype = keras.backend.standardize_dtype(inputs.dtype)
    # In single precision at least, where also 1 / keep ** 2, which is in the gradient for the rate, is finite.
    scaled = at_least_single(inputs) / ops.maximum(keep, _SMALLEST_KEEP.get(dtype, 1e-7))
    return ops.where(mask, ops.cast(scaled, dtype), ops.zeros_like(inputs))


def gaussian_dropout(inputs: Any, rate: Any, seed: Any) -> Any:
    """`inputs * noise`, `noise` normal around 1 with the standard deviation `sqrt(rate / (1 - rate))` of dropout's own."""
    rate = ops.convert_to_tensor(rate)
    stddev = ops.sqrt(rate / ops.maximum(1.0 - rate, 1e-7))
    noise = 1.0 + stddev * normal(ops.shape(inputs), seed)
    return ops.cast(at_least_single(inputs) * noise, inputs.dtype)


def gaussian_noise(inputs: Any, stddev: Any, seed: Any) -> Any:
    """`inputs + stddev * noise`, `noise` standard normal."""
    noise = normal(ops.shape(inputs), seed)
    return inputs + ops.cast(ops.convert_to_tensor(stddev) * noise, inputs.dtype)


# What SELU gives far below 0, with the sign turned.
_SELU_FLOOR = 1.6732632423543772 * 1.0507009873554805


def alpha_dropout(inputs: Any, rate: Any, seed: Any, noise_shape: tuple[int | None, ...] | None = None) -> Any:
    """Dropped units go to SELU's floor, and `a * x + b` restores mean 0 and variance 1."""
    rate = ops.convert_to_tensor(rate)
    mask = ops.cast(dropout(ops.ones_like(inputs), rate, seed, noise_shape) > 0, "bool")
    # At rate 1 the scale would be infinite; all units are at the floor then, and b takes them to 0.
    scale = 1.0 / ops.sqrt(ops.maximum(1.0 - rate, 1e-7) * (1.0 + rate * _SELU_FLOOR**2))
    kept = ops.where(mask, at_least_single(inputs), -_SELU_FLOOR)
    return ops.cast(scale * kept + scale * _SELU_FLOOR * rate, inputs.dtype)


def drop_path(inputs: Any, rate: Any, seed: Any) -> Any:
    """Dropout of a row's whole branch: `inputs * mask / (1 - rate)` with one draw a row."""
    return dropout(inputs, rate, seed, (None, *(1 for _ in inputs.shape[1:])))


def shake_drop(inputs: Any, rate: Any, seed: Any) -> Any:
    """With probability `rate` a row's branch goes forward times `a`, uniform from -1 to 1, and its gradient times another, from 0 to 1.

    Both are scaled by `1 / (1 - rate)`, so that the expectation of what goes forward is the branch itself.
    """
    shape = (ops.shape(inputs)[0], *(1 for _ in inputs.shape[1:]))
    rate = ops.convert_to_tensor(rate)
    shaken = keras.random.uniform(shape, dtype="float32", seed=seed) < rate
    forward = ops.where(shaken, keras.random.uniform(shape, -1.0, 1.0, dtype="float32", seed=seed), 1.0)
    backward = ops.where(shaken, keras.random.uniform(shape, dtype="float32", seed=seed), 1.0)
    x = at_least_single(inputs) / ops.maximum(1.0 - rate, 1e-4)
    return ops.cast(x * backward + ops.stop_gradient(x * (forward - backward)), inputs.dtype)


def shake_shake(branches: tuple[Any, Any], strength: Any, seed: Any) -> tuple[Any, Any]:
    """Two branches go forward times `2 * a` and `2 * (1 - a)`, their gradients times `2 * b` and `2 * (1 - b)`, row by row.

    `a` and `b` are uniform around 1/2, from `(1 - strength) / 2` to `(1 + strength) / 2`: the expectation is the plain sum.
    """
    first, second = branches
    shape = (ops.shape(first)[0], *(1 for _ in first.shape[1:]))
    shares = keras.random.uniform((2, *shape), -1.0, 1.0, dtype="float32", seed=seed)
    forward, backward = ops.unstack(ops.convert_to_tensor(strength) * shares)

    def shaken(x: Any, ahead: Any, back: Any) -> Any:
        held = at_least_single(x)
        return ops.cast(held * (1.0 + back) + ops.stop_gradient(held * (ahead - back)), x.dtype)

    return shaken(first, forward, backward), shaken(second, -forward, -backward)


# Where the rate begins that concrete dropout learns, as in the paper; and odds whose tenth power leaves 1e-18 of an input.
_FIRST_RATE = 0.1
_SURE = 64.0


def concrete_dropout(inputs: Any, strength: Any, seed: Any, logit: Any, axis: int = -1) -> Any:
    """`inputs * (1 - z) / (1 - p)`, `z = sigmoid((logit(p) + logit(u)) / 0.1)`, `u` uniform; a strength of 0 is the identity.

    One draw a row and feature, along `axis`, which space and steps share, so that whole maps go.
    """
    features = range(len(inputs.shape))[axis]
    shape = tuple(size if i in (0, features) else 1 for i, size in enumerate(ops.shape(inputs)))
    u = uniform(shape, seed)
    fixed = ops.stop_gradient(logit)
    keep = ops.maximum(ops.sigmoid(-fixed), 1e-7)
    # 1 - z by the tenth power of odds, without logarithms, and the gradient that the rate learns by written out, all of it in
    # one factor, which is 1: both together spare an eighth of a small network's step. The second derivative in the rate,
    # which nothing takes, is not in it.
    odds = (1.0 - keep) / keep * ((u + keras.config.epsilon()) / (1.0 - u + keras.config.epsilon()))
    odds = ops.square(ops.minimum(odds, _SURE))
    mask = 1.0 / (1.0 + ops.square(ops.square(odds)) * odds)
    slope = 1.0 - keep - 10.0 * (1.0 - mask)
    dropped = ops.cast(at_least_single(inputs) * (mask / keep * (1.0 + slope * (logit - fixed))), inputs.dtype)
    return ops.where(ops.convert_to_tensor(strength) > 0, dropped, inputs)


def certainty_of_dropping(logit: Any, strength: Any, features: int) -> Any:
    """`strength * features * (p log p + (1 - p) log(1 - p))`: less the entropy of the masks."""
    p = ops.sigmoid(logit)
    return strength * features * (p * ops.log_sigmoid(logit) + (1.0 - p) * ops.log_sigmoid(-logit))


def token_dropout(inputs: Any, rate: Any, seed: Any) -> Any:
    """Dropout of whole steps of (rows, steps, features): `inputs * mask / (1 - rate)` with one draw a step."""
    return dropout(inputs, rate, seed, (None, None, 1))


def drop_block(inputs: Any, rate: Any, seed: Any, size: int = 7, channels_first: bool = False) -> Any:
    """Squares of `size` in each feature map go to 0, a share of about `rate` in all, and the rest is scaled to keep its sum.

    Of the centres at which a square fits, each is one with the probability that gives this share if no two overlap.
    """
    axes = (2, 3) if channels_first else (1, 2)
    height, width = (inputs.shape[axis] for axis in axes)
    size = min(size, height, width)
    fit = (height - size + 1) * (width - size + 1)
    probability = ops.convert_to_tensor(rate) * height * width / (size * size * fit)
    centres = keras.random.uniform(ops.shape(inputs), dtype="float32", seed=seed) < probability
    before, after = size // 2, size - 1 - size // 2
    for axis, length in zip(axes, (height, width), strict=True):
        at = ops.arange(length)
        inside = (at >= before) & (at < length - after)
        centres = centres & ops.reshape(inside, [length if i == axis else 1 for i in range(4)])
    pool = {"strides": 1, "padding": "same", "data_format": "channels_first" if channels_first else "channels_last"}
    dropped = ops.max_pool(ops.cast(centres, "float32"), size, **pool)
    dropped = ops.where(ops.convert_to_tensor(rate) < 1, dropped, 1.0)
    kept = ops.maximum(1.0 - ops.mean(dropped), 1e-7)
    return ops.cast(at_least_single(inputs) * (1.0 - dropped) / kept, inputs.dtype)


def temporal_activity(outputs: Any, strength: Any) -> Any:
    """`strength * sum over rows of mean((h[t + 1] - h[t]) ** 2)`, the mean over steps and units; Keras divides by the rows.

    And 0 for what has no steps: Keras hands over the last states of a recurrent layer too, where it returns them.
    """
    if len(outputs.shape) != 3:
        return ops.zeros((), outputs.dtype)
    h = at_least_single(ops.convert_to_tensor(outputs))
    apart = ops.square(h[:, 1:] - h[:, :-1])
    count = ops.cast(ops.maximum(ops.shape(apart)[1], 1), apart.dtype) * apart.shape[2]
    return ops.cast(strength * ops.sum(apart) / count, outputs.dtype)


def manifold_mixup(x: Any, alpha: Any, seed: Any, places: int) -> tuple[Pairs, list[Pairs]]:
    """Mixup in one of so many places, drawn evenly: pairs for the targets, and for each place, where all but one mix nothing."""
    pairs = mixup_pairs(x, alpha, seed)
    chosen = keras.random.randint((), 0, places, seed=seed)
    return pairs, [Pairs(pairs.other, ops.where(chosen == place, pairs.share, 1.0)) for place in range(places)]


def embedding_dropout(embeddings: Any, rate: Any, seed: Any) -> Any:
    """Dropout of whole rows of an embedding: a word is dropped wherever it stands."""
    return dropout(embeddings, rate, seed, (None, 1))


def drop_connect(weights: Any, rate: Any, seed: Any) -> Any:
    """`weights * mask / (1 - rate)`, one draw a weight and step, shared by the rows of a batch."""
    keep = 1.0 - ops.convert_to_tensor(rate)
    scaled = ops.cast(at_least_single(weights) / ops.maximum(keep, 1e-7), weights.dtype)
    return ops.where(uniform(ops.shape(weights), seed) < keep, scaled, ops.zeros_like(weights))


class _Noise(HidesStrengths):
    """What the layers share that act in training alone, on floating-point numbers."""

    def _acts(self, inputs: Any, training: bool | None) -> bool:
        if training and not keras.backend.is_float_dtype(inputs.dtype):
            raise ValueError(
                "Invalid value received for argument `inputs`. Expected floating-point numbers. "
                f"Received: {keras.backend.standardize_dtype(inputs.dtype)}. Convert them before they are changed at random."
            )
        return bool(training)


@keras.saving.register_keras_serializable(package="regularity")
class Dropout(keras.layers.Dropout, _Noise):
    """Keras's `Dropout`, on inputs of any shape, with a rate that is a weight: assign to it and the next step uses it.

    Args:
        rate: Share of units set to 0 in training, a number from 0 (off) to 1.
        noise_shape: Shape of the mask, as in Keras; None for one draw a unit.
        seed: Integer seed of the masks; None for one drawn anew.

    Raises:
        ValueError: If `rate` is not a number from 0 to 1.

    Example:
        >>> import numpy as np, regularity as rg
        >>> layer = rg.layers.Dropout(0.5, seed=0)
        >>> sorted(set(np.asarray(layer(np.ones((4, 8)), training=True)).ravel().tolist()))
        [0.0, 2.0]
        >>> layer.rate = 0.0
        >>> float(np.asarray(layer(np.ones((4, 8)), training=True)).min())
        1.0

    Srivastava et al., "Dropout: a simple way to prevent neural networks from overfitting", 2014.
    """

    rate = Strength((0.0, 1.0))

    def __init__(
        self, rate: Any, noise_shape: tuple[int | None, ...] | None = None, seed: int | None = None, **kwargs: Any
    ) -> None:
        # Keras makes the seed state only where the rate is above 0; a rate of 0 must be able to rise later.
        super().__init__(0.5, noise_shape=noise_shape, seed=seed, **kwargs)
        self.rate = rate

    def call(self, inputs: Any, training: bool | None = False) -> Any:
        if not self._acts(inputs, training):
            return inputs
        return dropout(inputs, self.rate, self.seed_generator, self.noise_shape)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "rate": float(self.rate)}


class _SpatialDropout(_Noise):
    """Dropout of whole feature maps."""

    rate = Strength((0.0, 1.0))
    rank: int

    def call(self, inputs: Any, training: bool | None = False) -> Any:
        if not self._acts(inputs, training):
            return inputs
        first = getattr(self, "data_format", "channels_last") == "channels_first"
        space = (1,) * (self.rank - 2)
        return dropout(inputs, self.rate, self.seed_generator, (None, None, *space) if first else (None, *space, None))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "rate": float(self.rate)}


@keras.saving.register_keras_serializable(package="regularity")
class SpatialDropout1D(_SpatialDropout, keras.layers.SpatialDropout1D):
    """Keras's `SpatialDropout1D`, on inputs of (rows, steps, features), with a rate that is a weight.

    Args:
        rate: Share of feature maps set to 0 in training, a number from 0 (off) to 1.
        seed: Integer seed of the masks; None for one drawn anew.

    Raises:
        ValueError: If `rate` is not a number from 0 to 1.

    Example:
        >>> import numpy as np, regularity as rg
        >>> outputs = np.asarray(rg.layers.SpatialDropout1D(0.5, seed=0)(np.ones((8, 3, 4)), training=True))
        >>> bool((outputs == outputs[:, :1]).all())
        True

    Tompson et al., "Efficient object localization using convolutional networks", 2015.
    """

    rank = 3

    def __init__(self, rate: Any, seed: int | None = None, name: str | None = None, dtype: Any = None) -> None:
        keras.layers.SpatialDropout1D.__init__(self, 0.5, seed=seed, name=name, dtype=dtype)
        self.rate = rate


@keras.saving.register_keras_serializable(package="regularity")
class SpatialDropout2D(_SpatialDropout, keras.layers.SpatialDropout2D):
    """Keras's `SpatialDropout2D`, on inputs of (rows, height, width, channels), with a rate that is a weight.

    Args:
        rate: Share of feature maps set to 0 in training, a number from 0 (off) to 1.
        data_format: `channels_last` or `channels_first`; None for Keras's setting.
        seed: Integer seed of the masks; None for one drawn anew.

    Raises:
        ValueError: If `rate` is not a number from 0 to 1.

    Example:
        >>> import numpy as np, regularity as rg
        >>> outputs = np.asarray(rg.layers.SpatialDropout2D(0.5, seed=0)(np.ones((8, 3, 3, 4)), training=True))
        >>> bool((outputs == outputs[:, :1, :1]).all())
        True

    Tompson et al., "Efficient object localization using convolutional networks", 2015.
    """

    rank = 4

    def __init__(
        self,
        rate: Any,
        data_format: str | None = None,
        seed: int | None = None,
        name: str | None = None,
        dtype: Any = None,
    ) -> None:
        keras.layers.SpatialDropout2D.__init__(self, 0.5, data_format=data_format, seed=seed, name=name, dtype=dtype)
        self.rate = rate


@keras.saving.register_keras_serializable(package="regularity")
class SpatialDropout3D(_SpatialDropout, keras.layers.SpatialDropout3D):
    """Keras's `SpatialDropout3D`, on inputs of (rows, depth, height, width, channels), with a rate that is a weight.

    Args:
        rate: Share of feature maps set to 0 in training, a number from 0 (off) to 1.
        data_format: `channels_last` or `channels_first`; None for Keras's setting.
        seed: Integer seed of the masks; None for one drawn anew.

    Raises:
        ValueError: If `rate` is not a number from 0 to 1.

    Example:
        >>> import numpy as np, regularity as rg
        >>> outputs = np.asarray(rg.layers.SpatialDropout3D(0.5, seed=0)(np.ones((8, 2, 3, 3, 4)), training=True))
        >>> bool((outputs == outputs[:, :1, :1, :1]).all())
        True

    Tompson et al., "Efficient object localization using convolutional networks", 2015.
    """

    rank = 5

    def __init__(
        self,
        rate: Any,
        data_format: str | None = None,
        seed: int | None = None,
        name: str | None = None,
        dtype: Any = None,
    ) -> None:
        keras.layers.SpatialDropout3D.__init__(self, 0.5, data_format=data_format, seed=seed, name=name, dtype=dtype)
        self.rate = rate


@keras.saving.register_keras_serializable(package="regularity")
class GaussianDropout(keras.layers.GaussianDropout, _Noise):
    """Keras's `GaussianDropout`, on inputs of any shape, with a rate that is a weight.

    Args:
        rate: Of the dropout with the same variance: the noise has a standard deviation of `sqrt(rate / (1 - rate))`. A
            number from 0 (off) to 1.
        seed: Integer seed of the noise; None for one drawn anew.

    Raises:
        ValueError: If `rate` is not a number from 0 to 1.

    Example:
        >>> import numpy as np, regularity as rg
        >>> layer = rg.layers.GaussianDropout(0.5, seed=0)
        >>> bool(abs(np.asarray(layer(np.ones((100, 100)), training=True)).std() - 1) < 0.05)
        True

    Srivastava et al., "Dropout: a simple way to prevent neural networks from overfitting", 2014, section 10.
    """

    rate = Strength((0.0, 1.0))

    def __init__(self, rate: Any, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(0.5, seed=seed, **kwargs)
        self.rate = rate

    def call(self, inputs: Any, training: bool | None = False) -> Any:
        return gaussian_dropout(inputs, self.rate, self.seed_generator) if self._acts(inputs, training) else inputs

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "rate": float(self.rate)}


@keras.saving.register_keras_serializable(package="regularity")
class GaussianNoise(keras.layers.GaussianNoise, _Noise):
    """Keras's `GaussianNoise`, on inputs of any shape, with a standard deviation that is a weight.

    Args:
        stddev: Standard deviation of the noise, in the unit of the inputs, a number from 0 (off) to 1, as in Keras.
        seed: Integer seed of the noise; None for one drawn anew.

    Raises:
        ValueError: If `stddev` is not a number from 0 to 1.

    Example:
        >>> import numpy as np, regularity as rg
        >>> layer = rg.layers.GaussianNoise(0.0, seed=0)
        >>> float(np.asarray(layer(np.ones((2, 2)), training=True)).max())
        1.0

    Bishop, "Training with noise is equivalent to Tikhonov regularization", 1995.
    """

    stddev = Strength((0.0, 1.0))

    def __init__(self, stddev: Any, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(0.5, seed=seed, **kwargs)
        self.stddev = stddev

    def call(self, inputs: Any, training: bool | None = False) -> Any:
        return gaussian_noise(inputs, self.stddev, self.seed_generator) if self._acts(inputs, training) else inputs

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "stddev": float(self.stddev)}


@keras.saving.register_keras_serializable(package="regularity")
class AlphaDropout(keras.layers.AlphaDropout, _Noise):
    """Keras's `AlphaDropout`, for networks of SELU units, on inputs of any shape, with a rate that is a weight.

    Args:
        rate: Share of units set to SELU's floor in training, a number from 0 (off) to 1.
        noise_shape: Shape of the mask, as in Keras; None for one draw a unit.
        seed: Integer seed of the masks; None for one drawn anew.

    Raises:
        ValueError: If `rate` is not a number from 0 to 1.

    Example:
        >>> import numpy as np, regularity as rg
        >>> x = np.random.default_rng(0).normal(size=(400, 50))
        >>> outputs = np.asarray(rg.layers.AlphaDropout(0.5, seed=0)(x, training=True))
        >>> bool(abs(outputs.mean()) < 0.05), bool(abs(outputs.std() - 1) < 0.05)
        (True, True)

    Klambauer et al., "Self-normalizing neural networks", 2017.
    """

    rate = Strength((0.0, 1.0))

    def __init__(
        self, rate: Any, noise_shape: tuple[int | None, ...] | None = None, seed: int | None = None, **kwargs: Any
    ) -> None:
        super().__init__(0.5, noise_shape=noise_shape, seed=seed, **kwargs)
        self.rate = rate

    def call(self, inputs: Any, training: bool | None = False) -> Any:
        if not self._acts(inputs, training):
            return inputs
        return alpha_dropout(inputs, self.rate, self.seed_generator, self.noise_shape)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "rate": float(self.rate)}


@keras.saving.register_keras_serializable(package="regularity")
class DropPath(_Noise):
    """Drops the whole of what it is given, (rows, ...), row by row: at the end of a residual branch it is stochastic depth.

    Args:
        rate: Share of rows set to 0 in training, the others scaled up; a number from 0 (off) to 1.
        seed: Integer seed of the masks; None for one drawn anew.

    Raises:
        ValueError: If `rate` is not a number from 0 to 1.

    Example:
        >>> import numpy as np, regularity as rg
        >>> outputs = np.asarray(rg.layers.DropPath(0.5, seed=0)(np.ones((6, 3)), training=True))
        >>> bool((outputs == outputs[:, :1]).all())
        True

    Huang et al., "Deep networks with stochastic depth", 2016.
    """

    rate = Strength((0.0, 1.0))

    def __init__(self, rate: Any, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)
        self.supports_masking = True
        self.rate = rate
        self.built = True  # it has no weights to make

    def call(self, inputs: Any, training: bool | None = False) -> Any:
        return drop_path(inputs, self.rate, self.seed_generator) if self._acts(inputs, training) else inputs

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "rate": float(self.rate), "seed": self.seed}


@keras.saving.register_keras_serializable(package="regularity")
class ShakeDrop(DropPath):
    """Shakes the whole of what it is given, (rows, ...), row by row: at the end of a residual branch it is ShakeDrop.

    Args:
        rate: Share of rows whose branch is shaken in training, a number from 0 (off) to 1.
        seed: Integer seed of the draws; None for one drawn anew.

    Raises:
        ValueError: If `rate` is not a number from 0 to 1.

    Example:
        >>> import numpy as np, regularity as rg
        >>> outputs = np.asarray(rg.layers.ShakeDrop(0.5, seed=0)(np.ones((6, 3)), training=True))
        >>> bool((outputs == outputs[:, :1]).all()), len(set(outputs[:, 0].tolist())) > 1
        (True, True)

    Yamada et al., "ShakeDrop regularization for deep residual learning", 2019. The paper scales by `1 - rate` at
    inference; here what is trained is scaled up instead, so that nothing is left at inference.
    """

    def call(self, inputs: Any, training: bool | None = False) -> Any:
        return shake_drop(inputs, self.rate, self.seed_generator) if self._acts(inputs, training) else inputs


@keras.saving.register_keras_serializable(package="regularity")
class ConcreteDropout(_Noise):
    """Dropout of (rows, ..., features) that learns its rate, a weight of the layer; of images and sequences it drops whole features.

    Args:
        strength: What the entropy of the masks is worth, for each of the features: the paper's is 1 / rows for a
            cross-entropy. A number from 0 (off) up.
        seed: Integer seed of the masks; None for one drawn anew.
        axis: Of the features; 1 where channels come first.

    Raises:
        ValueError: If `strength` is negative, NaN or infinite.

    Example:
        >>> import numpy as np, regularity as rg
        >>> layer = rg.layers.ConcreteDropout(0.01, seed=0)
        >>> outputs = layer(np.ones((4, 8)), training=True)
        >>> round(float(layer.rate), 3)
        0.1

    Gal, Hron and Kendall, "Concrete dropout", 2017. Of the prior's two parts the one on the weights is left out, which
    vanishes with the prior's length scale (the authors' programs have 1e-4) and has the form of an L2 penalty.
    """

    strength = Strength((0.0, math.inf))

    def __init__(self, strength: Any, seed: int | None = None, axis: int = -1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.axis = axis
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)
        self.supports_masking = True
        self.strength = strength

    def build(self, input_shape: Any) -> None:
        del input_shape
        first = math.log(_FIRST_RATE / (1 - _FIRST_RATE))
        start = keras.initializers.Constant(first)
        self.logit = self.add_weight(shape=(), initializer=start, dtype="float32", autocast=False, name="logit")

    @property
    def rate(self) -> Any:
        """The rate that is learned, a number from 0 to 1; None before the layer is built."""
        return ops.sigmoid(self.logit) if self.built else None

    def call(self, inputs: Any, training: bool | None = False) -> Any:
        if not self._acts(inputs, training):
            return inputs
        self.add_loss(certainty_of_dropping(self.logit, self.strength, inputs.shape[self.axis]))
        return concrete_dropout(inputs, self.strength, self.seed_generator, self.logit, self.axis)

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "strength": float(self.strength), "seed": self.seed, "axis": self.axis}


@keras.saving.register_keras_serializable(package="regularity")
class TokenDropout(DropPath):
    """Drops whole steps of (rows, steps, features): words behind an embedding, patches of an image.

    Args:
        rate: Share of steps set to 0 in training, the others scaled up; a number from 0 (off) to 1.
        seed: Integer seed of the masks; None for one drawn anew.

    Raises:
        ValueError: If `rate` is not a number from 0 to 1.

    Example:
        >>> import numpy as np, regularity as rg
        >>> outputs = np.asarray(rg.layers.TokenDropout(0.5, seed=0)(np.ones((8, 6, 3)), training=True))
        >>> bool((outputs == outputs[..., :1]).all()), sorted(set(outputs.ravel().tolist()))
        (True, [0.0, 2.0])

    Iyyer et al., "Deep unordered composition rivals syntactic methods for text classification", 2015; Liu et al.,
    "PatchDropout: economizing vision transformers using patch dropout", 2023, which leaves the patches out where here they
    become 0.
    """

    rank = 3

    def call(self, inputs: Any, training: bool | None = False) -> Any:
        return token_dropout(inputs, self.rate, self.seed_generator) if self._acts(inputs, training) else inputs


@keras.saving.register_keras_serializable(package="regularity")
class DropBlock2D(DropPath):
    """Drops squares of the feature maps of (rows, height, width, channels), so that neighbours go together.

    Args:
        rate: Share of each map that is set to 0 in training, about; a number from 0 (off) to 1.
        block_size: Side of a square, in units of the map; no longer than the map.
        data_format: `channels_last` or `channels_first`; None for Keras's setting.
        seed: Integer seed of the masks; None for one drawn anew.

    Raises:
        ValueError: If `rate` is not a number from 0 to 1, or `block_size` no whole number from 1.

    Example:
        >>> import numpy as np, regularity as rg
        >>> layer = rg.layers.DropBlock2D(0.3, block_size=3, seed=0)
        >>> outputs = np.asarray(layer(np.ones((64, 16, 16, 1)), training=True))
        >>> bool(abs((outputs == 0).mean() - 0.3) < 0.05)
        True

    Ghiasi et al., "DropBlock: a regularization method for convolutional networks", 2018.
    """

    rank = 4

    def __init__(
        self, rate: Any, block_size: int = 7, data_format: str | None = None, seed: int | None = None, **kwargs: Any
    ) -> None:
        if not isinstance(block_size, int) or block_size < 1:
            raise ValueError(
                "Invalid value received for argument `block_size`. Expected a whole number from 1. "
                f"Received: block_size={block_size!r}"
            )
        super().__init__(rate, seed=seed, **kwargs)
        self.block_size = block_size
        self.data_format = data_format or keras.config.image_data_format()

    def call(self, inputs: Any, training: bool | None = False) -> Any:
        if not self._acts(inputs, training):
            return inputs
        first = self.data_format == "channels_first"
        return drop_block(inputs, self.rate, self.seed_generator, self.block_size, first)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "block_size": self.block_size, "data_format": self.data_format}


def batch_normalization(inputs: Any, normalized: Any, share: Any) -> Any:
    """`x + share * (normalized - x)`."""
    return inputs + ops.cast(share, inputs.dtype) * (normalized - inputs)


def skip(inputs: Any, outputs: Any, share: Any) -> Any:
    """`f(x) + share * x`."""
    return outputs + ops.cast(share, outputs.dtype) * ops.cast(inputs, outputs.dtype)


@keras.saving.register_keras_serializable(package="regularity")
class BatchNormalization(keras.layers.BatchNormalization, HidesStrengths):
    """Keras's `BatchNormalization` of which a share acts: 0 is the identity, 1 is Keras's layer.

    Args:
        share: Of the normalized inputs in what it puts out, the rest being the inputs as they are; a number from 0 (off) to 1.
        **kwargs: The arguments of Keras's layer.

    Raises:
        ValueError: If `share` is not a number from 0 to 1.

    Example:
        >>> import numpy as np, regularity as rg
        >>> x = np.random.default_rng(0).normal(3.0, size=(64, 2)).astype("float32")
        >>> means = [np.asarray(rg.layers.BatchNormalization(s)(x, training=True)).mean() for s in (0, 0.5, 1)]
        >>> [round(abs(float(mean / x.mean())), 2) for mean in means]
        [1.0, 0.5, 0.0]

    Ioffe and Szegedy, "Batch normalization: accelerating deep network training by reducing internal covariate shift", 2015.
    """

    share = Strength((0.0, 1.0))

    def __init__(self, share: Any = 1.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.share = share

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        return batch_normalization(inputs, super().call(inputs, training=training, mask=mask), self.share)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "share": float(self.share)}


def _fold_normalization(layer: Any, share: float) -> None:
    """Have a layer of Keras's compute at inference what one of ours with these weights and this share does."""
    deviation = np.sqrt(np.asarray(layer.moving_variance) + layer.epsilon)
    layer.beta.assign(share * np.asarray(layer.beta) + (1 - share) * np.asarray(layer.moving_mean))
    layer.gamma.assign(share * np.asarray(layer.gamma) + (1 - share) * deviation)


@keras.saving.register_keras_serializable(package="regularity")
class TemporalActivity(weights.OneStrength):
    """Penalty on how much what a layer puts out, (rows, steps, units), changes from step to step, for its `activity_regularizer`.

    Args:
        strength: Of the mean squared change, a number from 0 (off) up.

    Raises:
        ValueError: If `strength` is negative, NaN or infinite.

    Example:
        >>> import keras, numpy as np, regularity as rg
        >>> layer = keras.layers.Activation("linear", activity_regularizer=rg.regularizers.TemporalActivity(0.5))
        >>> outputs = layer(np.array([[[0.0], [1.0], [3.0]]]))
        >>> float(layer.losses[0])
        1.25

    Merity et al., "Revisiting activation regularization for language RNNs", 2017.
    """

    rank = 3

    def __call__(self, x: Any) -> Any:
        return temporal_activity(x, self.strength)


_CELLS = (keras.layers.LSTMCell, keras.layers.GRUCell, keras.layers.SimpleRNNCell)
_HIDDEN = "the outputs of hidden activations, and every {} layer that is there; never the model's output"

TECHNIQUES = (
    Technique(
        name="batch_normalization",
        place="activations",
        hook="structure",
        summary="Puts batch normalization behind hidden layers, which brings the outputs of each unit to mean 0 and variance 1.",
        helps="Deep networks, high learning rates; the noise of the batches regularizes.",
        hurts="Batches are small, or rows of a batch are alike.",
        unit="share of the normalization in what is put out: 1 is that of Keras",
        limits=(0.0, 1.0),
        range=(0.0, 1.0),
        scale="linear",
        acts_on="the outputs of hidden activations that no normalization stands before or behind; never the model's output",
        at_inference="a BatchNormalization layer of Keras's",
        paper="Ioffe and Szegedy 2015, Batch normalization: accelerating deep network training by reducing internal covariate shift",
        function=batch_normalization,
        components=(BatchNormalization,),
        stock={BatchNormalization: "share"},
        fold=_fold_normalization,
    ),
    Technique(
        name="skip",
        place="activations",
        hook="around",
        summary="Adds what a hidden layer takes to what it puts out.",
        helps="Networks are deep: signals and gradients find a short way, and a layer has only to learn what is to change.",
        hurts="Networks are shallow, or layers are to forget what they take.",
        unit="share of its input that is added to the output of a layer",
        limits=(0.0, 1.0),
        range=(0.0, 1.0),
        scale="linear",
        acts_on="hidden layers with kernels and an activation that put out as much as they take, where no branch leads around them",
        at_inference="a stock Add of both, behind a Rescaling where the share is not 1; a Sequential model becomes a Functional one",
        paper="He et al. 2016, Identity mappings in deep residual networks; for tables Kadra et al. 2021, Well-tuned simple nets",
        function=skip,
    ),
    Technique(
        name="dropout",
        place="activations",
        hook="layer",
        summary="Sets a random share of a layer's outputs to zero at each training step and scales up the rest.",
        helps="Hidden layers are wide and the training score is far above the held-out one.",
        hurts="Layers are narrow, or batch normalization follows, whose statistics then differ between training and use.",
        unit="share of units dropped",
        limits=(0.0, 1.0),
        range=(0.0, 0.8),
        scale="linear",
        acts_on=_HIDDEN.format("Dropout"),
        at_inference="nothing: the expectation is the plain model",
        paper="Srivastava et al. 2014, Dropout: a simple way to prevent neural networks from overfitting",
        function=dropout,
        components=(Dropout,),
        stock={keras.layers.Dropout: "rate", Dropout: "rate"},
    ),
    Technique(
        name="spatial_dropout",
        place="activations",
        hook="layer",
        summary="Sets whole feature maps to zero at each training step and scales up the rest.",
        helps="Neighbours are alike, as in images and sequences, so that dropping single units takes little away.",
        hurts="There are few feature maps.",
        unit="share of feature maps dropped",
        limits=(0.0, 1.0),
        range=(0.0, 0.6),
        scale="linear",
        acts_on=_HIDDEN.format("SpatialDropout").replace("activations", "activations with space or time"),
        at_inference="nothing: the expectation is the plain model",
        paper="Tompson et al. 2015, Efficient object localization using convolutional networks",
        function=dropout,
        components=(SpatialDropout1D, SpatialDropout2D, SpatialDropout3D),
        stock=dict.fromkeys(
            (
                *(keras.layers.SpatialDropout1D, keras.layers.SpatialDropout2D, keras.layers.SpatialDropout3D),
                *(SpatialDropout1D, SpatialDropout2D, SpatialDropout3D),
            ),
            "rate",
        ),
    ),
    Technique(
        name="gaussian_dropout",
        place="activations",
        hook="layer",
        summary="Multiplies a layer's outputs by Gaussian noise around 1 at each training step.",
        helps="As dropout does, where units should be shaken rather than lost.",
        hurts="Rates near 1, where the noise has no bound.",
        unit="rate of the dropout with the same variance",
        limits=(0.0, 1.0),
        range=(0.0, 0.8),
        scale="linear",
        acts_on=_HIDDEN.format("GaussianDropout"),
        at_inference="nothing: the expectation is the plain model",
        paper="Srivastava et al. 2014, Dropout: a simple way to prevent neural networks from overfitting, section 10",
        function=gaussian_dropout,
        components=(GaussianDropout,),
        stock={keras.layers.GaussianDropout: "rate", GaussianDropout: "rate"},
    ),
    Technique(
        name="gaussian_noise",
        place="activations",
        hook="layer",
        summary="Adds Gaussian noise to a layer's outputs at each training step.",
        helps="Outputs are of a known size, as behind a normalization or a bounded activation.",
        hurts="Nothing bounds the outputs: the network grows them until the noise is small beside them.",
        unit="standard deviation of the noise, in units of the outputs",
        limits=(0.0, 1.0),
        range=(0.01, 1.0),
        scale="log",
        acts_on=_HIDDEN.format("GaussianNoise"),
        at_inference="nothing: the expectation is the plain model",
        paper="Bishop 1995, Training with noise is equivalent to Tikhonov regularization",
        function=gaussian_noise,
        components=(GaussianNoise,),
        stock={keras.layers.GaussianNoise: "stddev", GaussianNoise: "stddev"},
    ),
    Technique(
        name="alpha_dropout",
        place="activations",
        hook="layer",
        summary="Sets a random share of a layer's outputs to SELU's floor and restores their mean and variance.",
        helps="Networks of SELU units, which ordinary dropout would take out of their fixed point.",
        hurts="Any other activation.",
        unit="share of units dropped",
        limits=(0.0, 1.0),
        range=(0.0, 0.5),
        scale="linear",
        acts_on=_HIDDEN.format("AlphaDropout"),
        at_inference="nothing: mean and variance are those of the plain model",
        paper="Klambauer et al. 2017, Self-normalizing neural networks",
        function=alpha_dropout,
        components=(AlphaDropout,),
        stock={keras.layers.AlphaDropout: "rate", AlphaDropout: "rate"},
    ),
    Technique(
        name="concrete_dropout",
        place="activations",
        hook="layer",
        summary="Dropout that learns the rate of each layer while it trains, against a reward for the entropy of its masks.",
        helps="Layers want rates of their own, which need not be searched; predictions are to know how sure they are.",
        hurts="Training is short: rates begin at 0.1 and move slowly; other dropout stands beside it.",
        unit="what one nat of the entropy of a mask is worth, summed over features; the paper's is 1 / rows for a cross-entropy",
        limits=(0.0, math.inf),
        range=(1e-5, 1e-1),
        scale="log",
        acts_on=_HIDDEN.format("ConcreteDropout"),
        at_inference="nothing: the expectation is the plain model",
        paper="Gal, Hron and Kendall 2017, Concrete dropout",
        function=concrete_dropout,
        components=(ConcreteDropout,),
        stock={ConcreteDropout: "strength"},
        learns=True,
    ),
    Technique(
        name="drop_path",
        place="activations",
        hook="branch",
        summary="Leaves out whole residual branches at each training step, row by row, and scales up the rest.",
        helps="Deep residual networks: each step trains a shallower one.",
        hurts="There are few blocks, or the branch is all there is.",
        unit="share of rows for which the last branch is left out; that of the l-th of L branches is l / L of it",
        limits=(0.0, 1.0),
        range=(0.0, 0.5),
        scale="linear",
        acts_on="the branch of every residual block that ends in an addition, and every DropPath layer that is there",
        at_inference="nothing: the expectation is the plain model",
        paper="Huang et al. 2016, Deep networks with stochastic depth",
        function=drop_path,
        components=(DropPath,),
        stock={DropPath: "rate"},
    ),
    Technique(
        name="drop_connect",
        place="activations",
        hook="mask",
        summary="Sets a random share of the weights to zero at each training step and scales up the rest.",
        helps="Layers have many weights for each unit, as dense layers behind a convolution.",
        hurts="Layers are narrow, or weights are shared by many positions, which all lose the same ones.",
        unit="share of weights dropped",
        limits=(0.0, 1.0),
        range=(0.0, 0.6),
        scale="linear",
        acts_on="kernels of trainable layers; not biases, embeddings or normalization",
        at_inference="nothing: the expectation is the plain model",
        paper="Wan et al. 2013, Regularization of neural networks using DropConnect",
        function=drop_connect,
    ),
    Technique(
        name="recurrent_drop_connect",
        place="activations",
        hook="mask",
        summary="Sets a random share of the recurrent weights to zero for a whole sequence and scales up the rest.",
        helps="Recurrent networks that memorize: what is remembered is regularized, and no step of it is lost.",
        hurts="Few units, whose memory then has holes.",
        unit="share of recurrent weights dropped",
        limits=(0.0, 1.0),
        range=(0.0, 0.6),
        scale="linear",
        acts_on="recurrent kernels of trainable layers",
        at_inference="nothing: the expectation is the plain model",
        paper="Merity et al. 2018, Regularizing and optimizing LSTM language models",
        function=drop_connect,
        variables="recurrent_kernels",
    ),
    Technique(
        name="embedding_dropout",
        place="activations",
        hook="mask",
        summary="Drops a random share of the words of a vocabulary at each training step, wherever they stand, and scales up the rest.",
        helps="Text, and categories: the network must not lean on single words.",
        hurts="Rows have a few words each.",
        unit="share of words dropped",
        limits=(0.0, 1.0),
        range=(0.0, 0.5),
        scale="linear",
        acts_on="embeddings of trainable Embedding layers",
        at_inference="nothing: the expectation is the plain model",
        paper="Gal and Ghahramani 2016, A theoretically grounded application of dropout in recurrent neural networks",
        function=embedding_dropout,
        variables="embeddings",
    ),
    Technique(
        name="variational_dropout",
        place="activations",
        hook="cell",
        summary="Drops inputs of recurrent layers, the same ones at all steps of a sequence; `dropout=` of Keras's layers.",
        helps="Recurrent networks: noise that changes at each step would drown what is to be remembered.",
        hurts="There are few inputs a step.",
        unit="share of inputs dropped",
        limits=(0.0, 1.0),
        range=(0.0, 0.6),
        scale="linear",
        acts_on="the inputs of LSTM, GRU and SimpleRNN cells",
        at_inference="nothing: the expectation is the plain model",
        paper="Gal and Ghahramani 2016, A theoretically grounded application of dropout in recurrent neural networks",
        function=dropout,
        stock=dict.fromkeys(_CELLS, "dropout"),
    ),
    Technique(
        name="recurrent_dropout",
        place="activations",
        hook="cell",
        summary="Drops what recurrent layers remember, the same units at all steps of a sequence; `recurrent_dropout=` of Keras's layers.",
        helps="Recurrent networks that memorize.",
        hurts="Long sequences whose beginning matters; on a GPU Keras's layers lose their fast kernel.",
        unit="share of remembered units dropped",
        limits=(0.0, 1.0),
        range=(0.0, 0.5),
        scale="linear",
        acts_on="the states of LSTM, GRU and SimpleRNN cells",
        at_inference="nothing: the expectation is the plain model",
        paper="Gal and Ghahramani 2016, A theoretically grounded application of dropout in recurrent neural networks",
        function=dropout,
        stock=dict.fromkeys(_CELLS, "recurrent_dropout"),
    ),
    Technique(
        name="attention_dropout",
        place="activations",
        hook="attention",
        summary="Drops a random share of the attention that each step pays to others and scales up the rest.",
        helps="Transformers on few rows: no step may lean on a single other one.",
        hurts="Sequences are short.",
        unit="share of attention probabilities dropped",
        limits=(0.0, 1.0),
        range=(0.0, 0.5),
        scale="linear",
        acts_on="MultiHeadAttention and GroupQueryAttention layers, as their `dropout=`",
        at_inference="nothing: the expectation is the plain model",
        paper="Vaswani et al. 2017, Attention is all you need",
        function=dropout,
        components=(Dropout,),
        stock={keras.layers.Dropout: "rate", Dropout: "rate"},
    ),
    Technique(
        name="token_dropout",
        place="activations",
        hook="layer",
        summary="Sets whole steps of a sequence to zero at each training step, words or patches, and scales up the rest.",
        helps="Many steps say the same, as in texts and images cut into patches.",
        hurts="A single step carries the answer.",
        unit="share of steps dropped",
        limits=(0.0, 1.0),
        range=(0.0, 0.5),
        scale="linear",
        acts_on="the outputs of embeddings and of hidden activations with steps; never the model's output",
        at_inference="nothing: the expectation is the plain model",
        paper="Iyyer et al. 2015, Deep unordered composition rivals syntactic methods; Liu et al. 2023, PatchDropout",
        function=token_dropout,
        components=(TokenDropout,),
        stock={TokenDropout: "rate"},
        behind=(keras.layers.Embedding,),
    ),
    Technique(
        name="drop_block",
        place="activations",
        hook="layer",
        summary="Sets squares of each feature map to zero at each training step and scales up the rest.",
        helps="Convolutional networks: neighbours are alike, so that dropping single units takes little away.",
        hurts="Maps are hardly larger than a square, which is 7 wide where the map is.",
        unit="share of each feature map dropped",
        limits=(0.0, 1.0),
        range=(0.0, 0.4),
        scale="linear",
        acts_on=_HIDDEN.format("DropBlock2D").replace("activations", "activations with height and width"),
        at_inference="nothing: the expectation is the plain model",
        paper="Ghiasi et al. 2018, DropBlock: a regularization method for convolutional networks",
        function=drop_block,
        cost=5.0,
        components=(DropBlock2D,),
        stock={DropBlock2D: "rate"},
    ),
    Technique(
        name="shake_drop",
        place="activations",
        hook="branch",
        summary="Multiplies residual branches by random numbers, others forward than backward, row by row.",
        helps="Deep residual networks trained for long: stronger than leaving branches out.",
        hurts="Training is short: it has to learn through much noise.",
        unit="share of rows for which the last branch is shaken; that of the l-th of L branches is l / L of it",
        limits=(0.0, 1.0),
        range=(0.0, 0.5),
        scale="linear",
        acts_on="the branch of every residual block that ends in an addition, and every ShakeDrop layer that is there",
        at_inference="nothing: the expectation is the plain model",
        paper="Yamada et al. 2019, ShakeDrop regularization for deep residual learning",
        function=shake_drop,
        components=(ShakeDrop,),
        stock={ShakeDrop: "rate"},
    ),
    Technique(
        name="shake_shake",
        place="activations",
        hook="join",
        summary="Weighs the two branches of residual blocks against one another by random numbers, others forward than backward, row by row.",
        helps="Deep residual networks of two branches trained for long: it is as if the branches had been augmented.",
        hurts="Training is short: it has to learn through much noise.",
        unit="share of the way from equal weights to any: at 1 a branch weighs from 0 to 2, and both together 2",
        limits=(0.0, 1.0),
        range=(0.0, 1.0),
        scale="linear",
        acts_on="every Add or Average that joins two branches with as many kernels each, computed from the same",
        at_inference="nothing: the expectation is the plain model",
        paper="Gastaldi 2017, Shake-shake regularization",
        function=shake_shake,
    ),
    Technique(
        name="manifold_mixup",
        place="activations",
        hook="hidden",
        summary="Trains on mixtures of pairs of rows and of their targets, mixed in a layer that is drawn anew at each step.",
        helps="As mixup does, also where rows between two rows mean nothing: what hidden layers make of them can be mixed.",
        hurts="Layers are few or narrow: then it is hard to keep apart what is mixed, and the network fits too little.",
        unit="alpha of the Beta(alpha, alpha) that a row's share in the mixture is drawn from, one draw a batch",
        limits=(0.0, math.inf),
        range=(0.05, 32.0),
        scale="log",
        acts_on="the hidden activations that all of the network passes through, the inputs where they are numbers, and all targets",
        at_inference="nothing",
        paper="Verma et al. 2019, Manifold mixup: better representations by interpolating hidden states",
        function=manifold_mixup,
        refuses=_keras.why_not_the_step,
    ),
    Technique(
        name="temporal_activity",
        place="activations",
        hook="output",
        summary="Adds the squared change of a layer's outputs from one step to the next to the loss.",
        helps="Recurrent networks whose states should change slowly.",
        hurts="What matters is sudden.",
        unit="added to the loss per unit of the mean squared change, over steps and units",
        limits=(0.0, math.inf),
        range=(1e-3, 10.0),
        scale="log",
        acts_on="the outputs of hidden activations and recurrent layers that have steps",
        at_inference="nothing",
        paper="Merity et al. 2017, Revisiting activation regularization for language RNNs",
        function=temporal_activity,
        components=(TemporalActivity,),
        stock={TemporalActivity: "strength"},
    ),
    *(
        Technique(
            name=f"activity_{penalty.name}",
            place="activations",
            hook="output",
            summary=f"Adds the {what} of a layer's outputs, averaged over the batch, to the loss.",
            helps=helps,
            hurts="Batch normalization follows, which undoes any scale.",
            unit=f"added to the loss per unit of the {what} of one row's outputs",
            limits=(0.0, math.inf),
            range=(1e-6, 1e-1),
            scale="log",
            acts_on="the outputs of hidden activations, and every layer that has such a penalty",
            at_inference="nothing",
            paper="Glorot et al. 2011, Deep sparse rectifier neural networks; "
            "Merity et al. 2017, Revisiting activation regularization",
            function=penalty.function,
            components=penalty.components,
            stock=penalty.stock,
        )
        for penalty, what, helps in zip(
            weights.TECHNIQUES[:2],
            ("sum of absolute values", "sum of squares"),
            ("Few units should answer to each row.", "Outputs grow without need, as in recurrent networks."),
            strict=True,
        )
    ),
)
