"""Place 'weights': penalties on variables, added to the loss, each a sum over the entries of one variable."""

import math
from collections.abc import Mapping
from typing import Any

import keras
from keras import ops

from regularity.catalogue._technique import HidesStrengths, Strength, Technique, at_least_single


def l1(weights: Any, strength: Any) -> Any:
    """`strength * sum(|w|)`."""
    return ops.cast(strength * ops.sum(ops.absolute(at_least_single(weights))), weights.dtype)


def l2(weights: Any, strength: Any) -> Any:
    """`strength * sum(w ** 2)`, without a factor of one half, as in Keras."""
    return ops.cast(strength * ops.sum(ops.square(at_least_single(weights))), weights.dtype)


class _Penalty(keras.regularizers.Regularizer, HidesStrengths):
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

    def get_config(self) -> dict[str, float]:
        return {name: float(variable) for name, variable in self.__dict__["_strengths"].items()}


@keras.saving.register_keras_serializable(package="regularity")
class L1(_Penalty):
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
class L2(_Penalty):
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
class L1L2(_Penalty):
    """Penalty `l1 * sum(|w|) + l2 * sum(w ** 2)`, both strengths weights.

    Args:
        l1: Strength of the absolute values, a number from 0 (off) up.
        l2: Strength of the squares, a number from 0 (off) up.

    Raises:
        ValueError: If a strength is negative, NaN or infinite.

    Zou and Hastie, "Regularization and variable selection via the elastic net", 2005.
    """

    l1 = Strength((0.0, math.inf))
    l2 = Strength((0.0, math.inf))

    def __init__(self, l1: Any = 0.0, l2: Any = 0.0) -> None:
        super().__init__(l1=0.0 if l1 is None else l1, l2=0.0 if l2 is None else l2)

    def __call__(self, x: Any) -> Any:
        return l1(x, self.l1) + l2(x, self.l2)


def stock_penalty(strengths: Mapping[str, float]) -> keras.regularizers.Regularizer | None:
    """Keras's own regularizer with these strengths, by name of technique; None where all are 0."""
    on = {name: value for name, value in strengths.items() if value}
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
)
