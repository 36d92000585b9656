"""`rg.compact`: a smaller network that puts out the same, without the units that a penalty has emptied."""

from collections import Counter
from typing import Any, NamedTuple

import keras
import numpy as np

from regularity import _keras

layers = keras.layers
_UNITS = {layers.Dense: "units", layers.Conv1D: "filters", layers.Conv2D: "filters", layers.Conv3D: "filters"}
_POOLS = tuple(getattr(layers, f"{kind}Pooling{rank}D") for kind in ("Max", "Average") for rank in (1, 2, 3))
_GLOBAL = tuple(getattr(layers, f"Global{kind}Pooling{rank}D") for kind in ("Max", "Average") for rank in (1, 2, 3))
# What does to each unit the same, whatever the others are; but an activation that looks at all of them.
_EACH_ITSELF = (
    layers.Activation, layers.ReLU, layers.LeakyReLU, layers.ELU, layers.Dropout, layers.SpatialDropout1D,
    layers.SpatialDropout2D, layers.SpatialDropout3D, layers.GaussianDropout, layers.GaussianNoise, layers.AlphaDropout,
    layers.BatchNormalization, layers.Flatten, layers.ActivityRegularization, *_POOLS, *_GLOBAL,
)  # fmt: skip
_OF_ALL = ("softmax", "log_softmax", "sparsemax", "glu")


class _Chain(NamedTuple):
    """A layer of units, what its units go through one by one, and the layers that read them."""

    source: Any
    between: list[Any]
    readers: list[Any]


def compact(model: Any, threshold: float = 1e-3) -> keras.Model:
    """Return a smaller model that puts out the same, without the units that are always the same or that nothing reads.

    A unit of a dense layer, or a filter of a convolution, goes where all weights into it, or all that read it, are near
    zero; what it puts out all the same is added to the biases behind it. Group penalties make such units:
    `input_group_lasso`, `group_lasso` and `sparse_group_lasso`. Layers whose units are joined with others, such as those of a
    residual block, keep theirs, and so do those of a model inside the model.

    Args:
        model: A built Sequential or Functional Keras model, or one that `Recipe.apply` returned; it is not touched.
        threshold: The largest weight, from 0, that counts as zero; 0 takes only what changes nothing but rounding.

    Returns:
        A model of the same kind, compiled as the given one was.

    Raises:
        ValueError: If the model is no graph of layers, is not built, or the threshold is no number from 0.

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
    weights = {id(layer): layer.get_weights() for _, layer in _keras.walk(model)}
    chains, goes_on = _chains(model), True
    while goes_on:  # what goes may have been all that read another
        goes_on = sum(_shrink(chain, weights, float(threshold)) for chain in reversed(chains)) > 0
    return _anew(model, weights)


def _chains(model: Any) -> list[_Chain]:
    """The layers whose units can go one by one, and what reads them."""
    behind: dict[int, list[Any]] = {}
    inputs: Counter[int] = Counter()
    for before, after in _keras.edges(model):
        behind.setdefault(id(before), []).append(after)
        inputs[id(after)] += 1
    ends = {id(layer) for layer in _keras.ends(model)}

    def chain_of(layer: Any) -> _Chain | None:
        between, at = [], layer
        while True:
            after = behind.get(id(at), [])
            if id(at) in ends or not after or any(inputs[id(each)] > 1 for each in after):
                return None
            if all(_reads_units(each) for each in after):
                return _Chain(layer, between, after)
            if len(after) > 1 or not _lets_through(after[0]):
                return None
            at = after[0]
            between.append(at)

    has_units = (layer for layer in model.layers if _reads_units(layer) and inputs[id(layer)] <= 1)
    found = (chain_of(layer) for layer in has_units if not _looks_at_all(layer))
    return [chain for chain in found if chain is not None]


def _reads_units(layer: Any) -> bool:
    """Whether a layer has a kernel whose axes are inputs and units, and neither are parted into groups."""
    return type(layer) in _UNITS and getattr(layer, "groups", 1) == 1 and _is_channels_last(layer)


def _lets_through(layer: Any) -> bool:
    """Whether a layer does to each unit the same, whatever the others are."""
    axis = layer.axis if isinstance(layer, layers.BatchNormalization) else -1
    last = axis in (-1, len(layer.input.shape) - 1)
    return type(layer) in _EACH_ITSELF and last and _is_channels_last(layer) and not _looks_at_all(layer)


def _is_channels_last(layer: Any) -> bool:
    return getattr(layer, "data_format", "channels_last") == "channels_last"


def _looks_at_all(layer: Any) -> bool:
    return getattr(getattr(layer, "activation", None), "__name__", "") in _OF_ALL


def _shrink(chain: _Chain, weights: dict[int, list[np.ndarray]], threshold: float) -> bool:
    """Take those units out of the weights that need not be, and say whether there were any."""
    kernel = weights[id(chain.source)][0]
    units = kernel.shape[-1]
    largest = np.abs(kernel).reshape(-1, units).max(0)
    # behind `Flatten` a unit stands in many places: (places, units, outputs)
    read = [weights[id(reader)][0].reshape(-1, units, weights[id(reader)][0].shape[-1]) for reader in chain.readers]
    unread = np.max([np.abs(each).max((0, 2)) for each in read], 0) <= threshold
    said = _said(chain, weights)
    # a reader must have a bias for it, and at its border a padded convolution sees zeros instead
    takes = all(reader.use_bias and getattr(reader, "padding", "valid") == "valid" for reader in chain.readers)
    gone = unread | ((largest <= threshold) & (takes | (np.abs(said) <= threshold)))
    if gone.all():
        gone[largest.argmax()] = False
    if not gone.any():
        return False
    always = gone & ~unread
    for reader, each in zip(chain.readers, read, strict=True):
        own = weights[id(reader)]
        if takes:
            own[1] = own[1] + np.einsum("u,kuo->o", said[always], each[:, always])
        kept = each[:, ~gone]
        own[0] = kept.reshape(*(reader.kernel_size if hasattr(reader, "kernel_size") else ()), -1, kept.shape[-1])
    for layer in (chain.source, *chain.between):
        weights[id(layer)] = [each[..., ~gone] for each in weights[id(layer)]]
    return True


def _said(chain: _Chain, weights: dict[int, list[np.ndarray]]) -> np.ndarray:
    """What the readers read of each unit if all weights into it are zero, the same in all places, of (units,)."""
    kernel, *bias = weights[id(chain.source)]
    said = np.asarray(chain.source.activation(bias[0] if bias else np.zeros(kernel.shape[-1], kernel.dtype)))
    for layer in chain.between:
        if isinstance(layer, layers.BatchNormalization):
            *scale, mean, variance = weights[id(layer)]
            gamma = scale.pop(0) if layer.scale else 1.0
            said = (said - mean) / np.sqrt(variance + layer.epsilon) * gamma + (scale[0] if layer.center else 0.0)
        elif isinstance(layer, (layers.Activation, layers.ReLU, layers.LeakyReLU, layers.ELU)):
            said = keras.ops.convert_to_numpy(layer(said))
    return keras.ops.convert_to_numpy(said)


def _anew(model: Any, weights: dict[int, list[np.ndarray]]) -> keras.Model:
    """A model of layers that have as many units as their weights."""

    def clone(layer: Any) -> Any:
        if type(layer) not in _UNITS:
            return _keras.from_config(layer)
        units = {_UNITS[type(layer)]: weights[id(layer)][0].shape[-1]}
        return _keras.by_configuration(type(layer), {**layer.get_config(), **units})

    if isinstance(model, keras.Sequential):
        first = _keras.input_layer(model)
        stack = [] if first is None else [first]
        smaller = type(model)([*stack, *map(clone, model.layers)], name=model.name)
        if not smaller.built:
            smaller.build(model.input_shape)
    else:
        copies: dict[int, Any] = {}
        smaller = _keras.run_graph(
            model,
            lambda layer: copies.setdefault(id(layer), copies.get(id(layer)) or clone(layer)),
            lambda layer, *args, **kwargs: layer(*args, **kwargs),
        )
    there = dict(_keras.walk(smaller))
    for path, layer in _keras.walk(model):
        if path not in there:  # an input, which has no weights
            continue
        there[path].trainable = layer.trainable
        if type(layer) in (*_UNITS, *_EACH_ITSELF):
            there[path].set_weights(weights[id(layer)])
        else:
            for ours, theirs in zip(_keras.own_variables(there[path]), _keras.own_variables(layer), strict=True):
                ours.assign(theirs)
    if getattr(model, "optimizer", None) is not None:
        _keras.compile_like(smaller, model)
    return smaller
