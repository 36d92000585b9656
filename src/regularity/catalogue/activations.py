"""Place 'activations': a layer in the forward pass, or a penalty on what a layer puts out."""

import math
from typing import Any

import keras
from keras import ops

from regularity.catalogue import weights
from regularity.catalogue._technique import HidesStrengths, Strength, Technique, at_least_single

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


@keras.saving.register_keras_serializable(package="regularity")
class Dropout(keras.layers.Dropout, HidesStrengths):
    """Keras's `Dropout` with a rate that is a weight: assign to it and the next step uses it.

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
        if not training:
            return inputs
        if not keras.backend.is_float_dtype(inputs.dtype):
            raise ValueError(
                "Invalid value received for argument `inputs`. Expected floating-point numbers. "
                f"Received: {keras.backend.standardize_dtype(inputs.dtype)}. Convert them before they are dropped."
            )
        return dropout(inputs, self.rate, self.seed_generator, self.noise_shape)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "rate": float(self.rate)}


TECHNIQUES = (
    Technique(
        name="dropout",
        place="activations",
        summary="Sets a random share of a layer's outputs to zero at each training step and scales up the rest.",
        unit="share of units dropped",
        limits=(0.0, 1.0),
        range=(0.0, 0.8),
        scale="linear",
        acts_on="the outputs of hidden activations, and every Dropout layer that is there; never the model's output",
        at_inference="nothing: the expectation is the plain model",
        paper="Srivastava et al. 2014, Dropout: a simple way to prevent neural networks from overfitting",
        function=dropout,
        component=Dropout,
        stock={keras.layers.Dropout: "rate", Dropout: "rate"},
    ),
    *(
        Technique(
            name=f"activity_{penalty.name}",
            place="activations",
            summary=f"Adds the {what} of a layer's outputs, averaged over the batch, to the loss.",
            unit=f"added to the loss per unit of the {what} of one row's outputs",
            limits=(0.0, math.inf),
            range=(1e-6, 1e-1),
            scale="log",
            acts_on="the outputs of hidden activations, and every layer that has such a penalty",
            at_inference="nothing",
            paper="Glorot et al. 2011, Deep sparse rectifier neural networks; "
            "Merity et al. 2017, Revisiting activation regularization",
            function=penalty.function,
            component=penalty.component,
            stock=penalty.stock,
        )
        for penalty, what in zip(weights.TECHNIQUES, ("sum of absolute values", "sum of squares"), strict=True)
    ),
)
