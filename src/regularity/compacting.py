"""`rg.compact`: a smaller network that puts out the same, without the units that a penalty has emptied."""

from collections import Counter
from typing import Any, NamedTuple

import keras
import numpy as np

from regularity import _keras
from regularity.catalogue import CATALOGUE
from regularity.recipe._copying import carry_attributes, copy_state, rebuild

layers = keras.layers
_UNITS = {layers.Dense: "units", layers.Conv1D: "filters", layers.Conv2D: "filters", layers.Conv3D: "filters"}
# What does to each unit the same, whatever the others are.
_FUNCTIONS = tuple(
    getattr(keras.activations, name)
    for name in (
        "celu", "elu", "exponential", "gelu", "hard_shrink", "hard_sigmoid", "hard_silu", "hard_tanh", "leaky_relu", "linear",
        "log_sigmoid", "mish", "relu", "relu6", "selu", "sigmoid", "silu", "soft_shrink", "softplus", "softsign", "sparse_plus",
        "sparse_sigmoid", "squareplus", "tanh", "tanh_shrink", "threshold",
    )
)  # fmt: skip
_ACTIVATIONS = (layers.Activation, layers.ReLU, layers.LeakyReLU, layers.ELU)
_NOTHING_AT_INFERENCE = (
    layers.Dropout, layers.SpatialDropout1D, layers.SpatialDropout2D, layers.SpatialDropout3D, layers.GaussianDropout,
    layers.GaussianNoise, layers.AlphaDropout, layers.ActivityRegularization, layers.Identity,
    *(kind for t in CATALOGUE.values() if t.at_inference.startswith("nothing") for kind in t.components),
)  # fmt: skip
_POOLS = tuple(
    getattr(layers, f"{which}{kind}Pooling{rank}D")
    for which in ("", "Global")
    for kind in ("Max", "Average")
    for rank in (1, 2, 3)
)
_EACH_ITSELF = (*_ACTIVATIONS, *_NOTHING_AT_INFERENCE, *_POOLS, layers.BatchNormalization, layers.Flatten)
# What makes small numbers large, how large the data decide.
_NORMALIZATIONS = (
    layers.BatchNormalization, layers.LayerNormalization, layers.GroupNormalization, layers.RMSNormalization,
    layers.UnitNormalization,
)  # fmt: skip
_WITHOUT_LIMIT = 1e30  # times; not infinity, of which zero times is no number


def compact(model: Any, threshold: float = 1e-3) -> keras.Model:
    """Return a smaller model that puts out the same, without the units that are always the same or that nothing reads.

    A unit of a dense layer, or a filter of a convolution, goes where all weights into it, or all that read it, are near
    zero; what it puts out all the same is added to the biases behind it. Group penalties make such units:
    `input_group_lasso`, `group_lasso` and `sparse_group_lasso`.

    Between a layer and the `Dense`, `Conv1D`, `Conv2D` or `Conv3D` layers that read its units may stand Keras's elementwise
    activations, batch normalization, dropout and noise, pooling and `Flatten`. Whatever else stands there keeps the units, as
    do an activation of your own, two layers whose outputs are joined, such as those of a residual block, a layer that is
    called twice or that a model inside the model has, adapters (LoRA), quantized kernels, and initializers that are
    not Keras's or hold an array.

    Args:
        model: A built Sequential or Functional Keras model, or one that `Recipe.apply` returned; it is not touched.
        threshold: The largest weight, from 0, that counts as zero, times what batch normalization behind it multiplies by; 0
            takes only what changes nothing but rounding.

    Returns:
        A model of the same kind, compiled as the given one was. Its optimizer begins anew: its slots are of other shapes, and
        its count of steps is 0.

    Raises:
        ValueError: If the model is no graph of layers, is not built or can't be copied, or the threshold is no number from 0.

    Example:
        >>> import keras, numpy as np, regularity as rg
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(1)])
        >>> kernel, bias = model.layers[0].get_weights()
        >>> kernel[:, 3:] = 0.0
        >>> model.layers[0].set_weights([kernel, bias])
        >>> rg.compact(model).layers[0].units
        3

    Scardapane et al., "Group sparse regularization for deep neural networks", 2017, for what empties units.
    """
    if isinstance(threshold, bool) or not isinstance(threshold, (int, float, np.number)) or not 0 <= threshold < np.inf:
        raise ValueError(
            f"Invalid value received for argument `threshold`. Expected a number from 0. Received: threshold={threshold!r}"
        )
    model = model.to_keras() if hasattr(model, "to_keras") else model
    if not isinstance(model, keras.Model) or not _keras.is_rebuildable(model) or not model.built:
        raise ValueError(
            "Expected a built Sequential or Functional Keras model, to make one with other layers of it. Received: "
            f"{type(model).__name__}"
        )
    network = _Network(model)
    chains, goes_on = network.chains(), True
    while goes_on:  # what goes may have been all that read another
        goes_on = sum(network.shrink(chain, float(threshold)) for chain in reversed(chains)) > 0
    return _anew(model, chains, network.values)


class _Chain(NamedTuple):
    """A layer of units, what its units go through one by one, and the layers that read them."""

    source: Any
    between: list[Any]
    readers: list[Any]


class _Network:
    """How the layers of a model follow one another, and the values of those variables that were asked for or cut."""

    def __init__(self, model: Any) -> None:
        self.values: dict[int, np.ndarray] = {}  # by id of the variable
        self._model = model
        self._behind: dict[int, list[Any]] = {}
        self._inputs: Counter[int] = Counter()
        for before, after in _keras.edges(model):
            self._behind.setdefault(id(before), []).append(after)
            self._inputs[id(after)] += 1
        self._ends = {id(layer) for layer in _keras.ends(model)}
        self._places = Counter(map(id, _keras.by_path(model).values()))

    def chains(self) -> list[_Chain]:
        """The layers whose units can go one by one, and what reads them."""
        found = (self._chain(layer) for layer in self._model.layers if _has_units(layer) and self._is_alone(layer))
        return [chain for chain in found if chain is not None]

    def _chain(self, layer: Any) -> _Chain | None:
        if not _is_elementwise(layer.activation) or not _takes_any_shape(layer.bias_initializer):
            return None
        between, at = [], layer
        while True:
            after = self._behind.get(id(at), [])
            if id(at) in self._ends or not after or not all(map(self._is_alone, after)):
                return None
            if all(map(_has_units, after)):
                return _Chain(layer, between, after)
            if len(after) > 1 or not _lets_through(after[0]):
                return None
            at = after[0]
            between.append(at)

    def _is_alone(self, layer: Any) -> bool:
        """Whether a layer is called once, and no model inside the model has it too."""
        return self._inputs[id(layer)] <= 1 and self._places[id(layer)] == 1

    def shrink(self, chain: _Chain, threshold: float) -> bool:
        """Take those units out of the values that need not be, and say whether there were any."""
        kernel = self._value(chain.source.kernel)
        units = kernel.shape[-1]
        largest = np.abs(kernel).reshape(-1, units).max(0) * self._gain(chain.source, units)
        kernels = [self._value(reader.kernel) for reader in chain.readers]
        # behind `Flatten` a unit stands in many places: (places, units, outputs)
        read = [each.reshape(-1, units, each.shape[-1]) for each in kernels]
        gains = [self._gain(reader, each.shape[-1]) for reader, each in zip(chain.readers, read, strict=True)]
        unread = np.max([(np.abs(r) * g).max((0, 2)) for r, g in zip(read, gains, strict=True)], 0) <= threshold
        said = self._said(chain)
        # a reader must have a bias for it, and at its border a padded convolution sees zeros instead
        takes = all(reader.use_bias and getattr(reader, "padding", "valid") == "valid" for reader in chain.readers)
        gone = unread | ((largest <= threshold) & (takes | (np.abs(said).max(0) <= threshold)))
        if gone.all():
            gone[largest.argmax()] = False
        if not gone.any():
            return False
        always = gone & ~unread
        for reader, before, each in zip(chain.readers, kernels, read, strict=True):
            if takes:
                everywhere = np.broadcast_to(said, each.shape[:2])
                moved = np.einsum("pu,puo->o", everywhere[:, always], each[:, always])
                self.values[id(reader.bias)] = self._value(reader.bias) + moved
            kept = each[:, ~gone].reshape(*before.shape[:-2], -1, before.shape[-1])
            self.values[id(reader.kernel)] = kept
        for layer in (chain.source, *chain.between):
            if _has_units(layer) or isinstance(layer, layers.BatchNormalization):
                for variable in _keras.own_variables(layer):
                    self.values[id(variable)] = _without(self._value(variable), gone)
        return True

    def _gain(self, layer: Any, units: int) -> np.ndarray:
        """What normalization behind a layer at most multiplies each of its units by, of (units,)."""

        def of(after: Any) -> np.ndarray:
            if _lets_through(after):
                gain = self._gain(after, units)
                if isinstance(after, layers.BatchNormalization):
                    scale, _, _ = self._normalization(after)
                    gain = gain * np.abs(scale).reshape(-1, units).max(0)
                return gain
            return np.full(units, _WITHOUT_LIMIT if isinstance(after, _NORMALIZATIONS) else 1.0)

        return np.max([of(after) for after in self._behind.get(id(layer), [])] or [np.ones(units)], 0)

    def _said(self, chain: _Chain) -> np.ndarray:
        """What the readers read of each unit if all weights into it are zero, of (1 or places, units)."""
        units = self._value(chain.source.kernel).shape[-1]
        bias = self._value(chain.source.bias) if chain.source.use_bias else np.zeros(units, "float32")
        said = _activated(chain.source.activation, bias)[None]
        for layer in chain.between:
            if isinstance(layer, layers.BatchNormalization):
                scale, mean, beta = (each.reshape(-1, units) for each in self._normalization(layer))
                said = (said - mean) * scale + beta
            elif type(layer) in _ACTIVATIONS:
                said = _activated(layer, said)
        return said

    def _normalization(self, layer: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """What batch normalization multiplies by, after what it takes off and before what it adds."""
        mean, variance = self._value(layer.moving_mean), self._value(layer.moving_variance)
        gamma = self._value(layer.gamma) if layer.scale else np.ones_like(mean)
        beta = self._value(layer.beta) if layer.center else np.zeros_like(mean)
        return gamma / np.sqrt(variance + layer.epsilon), mean, beta

    def _value(self, variable: Any) -> np.ndarray:
        """The value of a variable as floats that NumPy computes with."""
        if id(variable) not in self.values:
            value = keras.ops.convert_to_numpy(variable)
            self.values[id(variable)] = value.astype(np.promote_types(value.dtype, np.float32))
        return self.values[id(variable)]


def _has_units(layer: Any) -> bool:
    """Whether a layer has a kernel whose axes are inputs and units, neither parted into groups, and a bias, and that is all."""
    return (
        type(layer) in _UNITS
        and getattr(layer, "groups", 1) == 1
        and _is_channels_last(layer)
        and {variable.name for variable in _keras.own_variables(layer)} <= {"kernel", "bias"}
        and _takes_any_shape(layer.kernel_initializer)
    )


def _takes_any_shape(initializer: Any) -> bool:
    return _keras.is_of_keras(initializer) and np.ndim(getattr(initializer, "value", 0)) == 0


def _lets_through(layer: Any) -> bool:
    """Whether a layer does to each unit the same, whatever the others are, and by itself the same again."""
    if type(layer) not in _EACH_ITSELF or not _is_channels_last(layer) or _keras.trains_always(layer):
        return False
    if isinstance(layer, layers.BatchNormalization):
        return all(layer.axis in (-1, len(shape) - 1) for (shape, *_) in _keras.taken_shapes(layer))
    return type(layer) not in _ACTIVATIONS or _is_elementwise(layer)


def _is_channels_last(layer: Any) -> bool:
    return getattr(layer, "data_format", "channels_last") == "channels_last"


def _is_elementwise(activation: Any) -> bool:
    """Whether a function or layer is known to make of each number another, by itself."""
    if type(activation) is layers.Activation:
        return _is_elementwise(activation.activation)
    return type(activation) in _ACTIVATIONS or any(activation is function for function in _FUNCTIONS)


def _activated(activation: Any, values: np.ndarray) -> np.ndarray:
    activate = activation.call if isinstance(activation, layers.Layer) else activation
    return keras.ops.convert_to_numpy(activate(keras.ops.convert_to_tensor(values)))


def _without(value: np.ndarray, gone: np.ndarray) -> np.ndarray:
    """A kernel, or what holds a number for each unit and place behind `Flatten`, without some of the units."""
    if value.ndim == 1:
        return value.reshape(-1, len(gone))[:, ~gone].reshape(-1)
    return value[..., ~gone]


def _anew(model: Any, chains: list[_Chain], values: dict[int, np.ndarray]) -> keras.Model:
    """A copy of a model with these values, and as many units as they have."""
    units = {id(each.source): {_UNITS[type(each.source)]: values[id(each.source.kernel)].shape[-1]} for each in chains}
    smaller = rebuild(model, {}, instead=units)
    if smaller.trainable != model.trainable:
        smaller.trainable = model.trainable
    copy_state(model, smaller, values)
    if getattr(model, "optimizer", None) is not None:
        _keras.compile_like(smaller, model)
        carry_attributes(model, smaller)
        _keras.innermost(smaller.optimizer).build(smaller.trainable_variables)  # else a file of it warns when loaded
    return smaller
