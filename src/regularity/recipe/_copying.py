"""A model built anew from its layers' configurations, and what is carried over to it."""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal

import keras
import numpy as np

from regularity import _keras
from regularity.catalogue import CATALOGUE
from regularity.recipe._sites import Site, given_strength


def rebuild(
    model: Any,
    new: Mapping[str, Sequence[Any]],
    around: Mapping[str, Callable[[Any, Any], Any]] = MappingProxyType({}),
    instead: Mapping[int, Mapping[str, Any]] = MappingProxyType({}),
) -> Any:
    """Build a model anew from its layers' configurations.

    Args:
        model: The model; where something leads around a layer, a Sequential one becomes Functional.
        new: The layers to put in behind the layer at each path.
        around: From what the layer at each path takes and puts out to what takes the place of the latter.
        instead: What to replace in the configuration of a layer, by its id.
    """
    copies: dict[int, Any] = {}

    def anew(layer: Any, path: str) -> Any:
        if id(layer) not in copies:
            nested = isinstance(layer, keras.Model) and _keras.is_rebuildable(layer)
            copies[id(layer)] = build(layer, f"{path}/") if nested else _from_config(layer, instead.get(id(layer), {}))
        return copies[id(layer)]

    def build(model: Any, prefix: str) -> Any:
        leads_around = any(prefix + layer.name in around for layer in model.layers)
        if isinstance(model, keras.Sequential) and not leads_around:
            first = _keras.input_layer(model)
            stack = [] if first is None else [first]
            for layer in model.layers:
                path = prefix + layer.name
                stack += [anew(layer, path), *new.get(path, ())]
            return type(model)(stack, name=model.name, trainable=model.trainable)
        names = {}

        def clone(operation: Any) -> Any:
            path = prefix + operation.name
            copied = anew(operation, path)
            names[id(copied)] = path
            return copied

        def call(operation: Any, *args: Any, **kwargs: Any) -> Any:
            outputs = operation(*args, **kwargs)
            if names[id(operation)] in around:
                outputs = around[names[id(operation)]](args[0], outputs)
            for behind in new.get(names[id(operation)], ()):
                # what has several outputs, such as an LSTM that returns its state, puts out the sequence first
                several = isinstance(outputs, (list, tuple))
                outputs = [behind(outputs[0]), *outputs[1:]] if several else behind(outputs)
            return outputs

        if isinstance(model, keras.Sequential):
            first = _keras.input_layer(model)
            last = first
            for layer in model.layers:
                last = call(clone(layer), last)
            return keras.Model(first, last, name=model.name, trainable=model.trainable)
        return _keras.run_graph(model, clone, call)

    copied = build(model, "") if _keras.is_rebuildable(model) else _from_config(model)
    weights, expected = (
        _own_weights(copied, [layer for put_in in new.values() for layer in put_in]),
        _own_weights(model),
    )
    if weights > expected:
        raise ValueError(
            f"Model {model.name!r} can't be copied: its copy has {weights} weights where {expected} were expected. A layer that "
            "others hold too, such as a wrapper, is copied once for each: have each hold a layer of its own, or call the one "
            "in the graph of the model alone."
        )
    return copied


def _own_weights(model: Any, but: Sequence[Any] = ()) -> int:
    """How many variables the layers of a model hold, each layer counted once, but for some and what is below them."""
    without = {id(layer) for put_in in but for layer in [put_in, *(below for _, below in _keras.walk(put_in))]}
    layers = [model, *(layer for _, layer in _keras.walk(model))]
    return sum(len(_keras.own_variables(layer)) for layer in layers if id(layer) not in without)


def _from_config(layer: Any, instead: Mapping[str, Any] = MappingProxyType({})) -> Any:
    """A copy of a layer, operation or model by its own configuration, built where it was built."""
    try:
        copied = _keras.from_config(layer, instead)
    except (NotImplementedError, TypeError, ValueError) as error:
        raise ValueError(
            f"{type(layer).__name__} {layer.name!r} can't be copied from its configuration: {error}. "
            "Give the class a `get_config` that returns the arguments of its `__init__`, and register it with "
            "@keras.saving.register_keras_serializable()."
        ) from error
    if not _keras.is_of_keras(layer):
        if isinstance(layer, keras.Model):
            _keras.check_copyable(layer, "Model")
        _carry_attributes(layer, copied)  # before it is built, since its `call` may read them
    if isinstance(layer, keras.Model) and layer.built and not copied.built:
        copied.build_from_config(layer.get_build_config() or {})
        if len(copied.weights) != len(layer.weights):
            raise ValueError(
                f"{type(layer).__name__} {layer.name!r} was copied, but its copy has {len(copied.weights)} weights where "
                f"{len(layer.weights)} were expected. Give the class a `build` that makes all its weights."
            )
    return copied


def copy_state(source: Any, target: Any, instead: Mapping[int, np.ndarray] = MappingProxyType({})) -> None:
    """Carry weights, seeds and what is frozen over from a model to one built anew from it.

    Args:
        source: The model.
        target: The one built anew.
        instead: Values to take in place of those of variables of `source`, by id of the variable.
    """
    there = dict(_keras.walk(target))
    for path, layer in _keras.walk(source):
        if path in there and there[path].trainable != layer.trainable:
            there[path].trainable = layer.trainable
    for theirs, ours in matching(source, target):
        # a copy: two variables that held one buffer would lose it when `fit` gives it away; on the host, since eager JAX
        # would compile a small program for each shape
        ours.assign(instead[id(theirs)] if id(theirs) in instead else keras.ops.convert_to_numpy(theirs))
        ours.trainable = theirs.trainable
    for layer in there.values():
        if isinstance(layer, keras.layers.Normalization):
            layer.finalize_state()  # it computes with what it makes of its weights
    seeds = dict(_keras.seed_generators(source))
    for path, generator in _keras.seed_generators(target):
        if path in seeds:
            generator.state.assign(keras.ops.convert_to_numpy(seeds[path].state))


def matching(source: Any, target: Any) -> list[tuple[Any, Any]]:
    """Each weight of a model with the one that a model built anew from it has in its place.

    By path, since a layer put into one branch of a graph may change the order in which Keras lists all layers.
    """
    there = _keras.by_path(target)
    found = []
    for path, layer in [("", source), *_keras.walk(source)]:
        ours = _keras.own_variables(there[path]) if path in there else []
        if not ours and is_ours(layer):
            continue  # it was put in, or is nothing there
        theirs = _keras.own_variables(layer)
        if len(ours) != len(theirs):
            raise ValueError(
                f"{type(layer).__name__} {path!r} was copied, but its copy has {len(ours)} weights where {len(theirs)} were "
                "expected. Take off what was done to it after it was built, such as adapters (LoRA) or quantizing, or have its "
                "class make all weights from its configuration."
            )
        found += zip(theirs, ours, strict=True)
    return found


def carry_regularizers(source: Any, target: Any) -> None:
    """Carry over regularizers that are no technique and were set on variables or layers after these were built."""
    for theirs, ours in matching(source, target):
        if ours.regularizer is None:
            ours.regularizer = other_penalty(theirs.regularizer)
    there = _keras.by_path(target)
    for path, layer in [("", source), *_keras.walk(source)]:
        if path in there and there[path].activity_regularizer is None:
            there[path].activity_regularizer = other_penalty(layer.activity_regularizer)


def carry_attributes(source: Any, target: Any) -> None:
    """Carry over plain attributes that were set by hand, or by a `compile` of the user's.

    On the model itself and on layers of classes that are the user's; those of Keras have theirs by configuration.
    """
    there = _keras.by_path(target)
    for path, layer in [("", source), *_keras.walk(source)]:
        if path not in there or (path and (_keras.is_of_keras(layer) or is_ours(layer))):
            continue
        _carry_attributes(layer, there[path])


def _carry_attributes(source: Any, target: Any) -> None:
    held = vars(target)
    for name, value in _keras.attributes(source).items():
        if _is_plain(value) and (name not in held or (_is_plain(held[name]) and not _same(value, held[name]))):
            setattr(target, name, _copied(value))


def _is_plain(value: Any) -> bool:
    """Whether `value` is made of numbers, texts, arrays of NumPy and containers of them alone."""
    if isinstance(value, dict):
        return all(_is_plain(item) for item in value.values())
    if isinstance(value, (list, tuple)):
        return all(_is_plain(item) for item in value)
    return value is None or isinstance(value, (int, float, str, np.ndarray, np.generic))


def _copied(value: Any) -> Any:
    """A copy of a plain value, without the containers that Keras wraps around those of its layers."""
    if isinstance(value, dict):
        return {key: _copied(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return value if hasattr(value, "_fields") else tuple(map(_copied, value))
    if isinstance(value, list):
        return [_copied(item) for item in value]
    return value.copy() if isinstance(value, np.ndarray) else value


def _same(value: Any, other: Any) -> bool:
    a: Any = value
    b: Any = other
    if isinstance(value, dict) and isinstance(other, dict):
        return value.keys() == other.keys() and all(_same(item, other[key]) for key, item in value.items())
    if isinstance(value, (list, tuple)) and isinstance(other, (list, tuple)):
        return len(value) == len(other) and all(map(_same, value, other))
    return type(value) is type(other) and np.array_equal(a, b)


def put_in_names(given: Any, sites: Sequence[Site], kind: Literal["after", "around"] = "after") -> dict[str, str]:
    """The path of each layer that is put in at sites of a kind, by the key of its site; unlike all that are there."""
    taken = {path for path, _ in _keras.walk(given)}
    names = {}
    for site in sites:
        if site.kind == kind:
            name = f"{site.path}_{site.technique}"
            while name in taken:
                name += "_"
            taken.add(name)
            names[site.key] = name
    return names


def other_penalty(held: Any) -> Callable[[Any], Any] | None:
    """A regularizer that is no technique of the catalogue, and so stays as it is."""
    known = any(given_strength(technique, held) is not None for technique in CATALOGUE.values())
    return None if known else held


def is_ours(layer: Any) -> bool:
    return type(layer).__module__.startswith("regularity.")
