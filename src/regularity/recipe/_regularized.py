"""The model that a recipe makes: the user's, built anew, with strengths as weights; and the way back to plain Keras."""

import inspect
import zlib
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from types import MappingProxyType
from typing import Any, Literal

import keras
import numpy as np

from regularity import _keras
from regularity.catalogue import CATALOGUE, HidesStrengths, SavedVariables, add_strength
from regularity.catalogue.update import SNAPSHOTS
from regularity.catalogue.weights import stock_penalty
from regularity.recipe._optimizing import constrained_axes, take_over
from regularity.recipe._sites import (
    Site,
    as_number,
    component,
    find_sites,
    given_strength,
    joins,
    narrows,
    variables_by_path,
)
from regularity.recipe._step import Acting, TrainingStep, in_step

_NAME = "regularity>Regularized"


class Regularized(TrainingStep, HidesStrengths):
    """What `Recipe.apply` adds to the class of the user's model: strengths, and what depends on them."""

    regularity_strengths: dict[str, keras.Variable]
    _given: Callable[[], keras.Model]  # a call, since Keras would save a model that it finds as an attribute
    _sites: Sequence[Site]

    @property
    def strengths(self) -> dict[str, keras.Variable]:
        """Each strength by its key `technique@path`, or `technique`: assign to one and the next step uses it.

        Where the strength in a recipe is a bound, as that of `max_norm`, this one is 1 / bound, and 0 is 'off'.
        """
        return dict(self.__dict__["regularity_strengths"])

    @property
    def variables(self) -> list[keras.Variable]:
        return [*super().variables, *(held for kept in self.__dict__.get("_snapshots", ()) for _, held in kept)]

    @cached_property
    def saved_snapshots(self) -> SavedVariables:
        """What Keras finds and saves of weights that are kept beside those in training."""
        held = {f"{n}/{i}": h for n, kept in enumerate(self.__dict__["_snapshots"]) for i, (_, h) in enumerate(kept)}
        return SavedVariables(lambda: held)

    def _forget_snapshots(self) -> None:
        """Have the model put out what its weights put out."""
        for kept in self.__dict__.get("_snapshots", ()):
            for variable, held in kept:
                held.assign(keras.ops.convert_to_numpy(variable))  # a copy, as in `copy_state`

    def set_weights(self, weights: Sequence[Any]) -> None:
        super().set_weights(weights)
        self._forget_snapshots()

    def load_weights(self, *args: Any, **kwargs: Any) -> Any:
        """As Keras; what is kept beside the weights becomes them where the file has none, as that of a stock model."""
        pairs = [pair for kept in self.__dict__.get("_snapshots", ()) for pair in kept]
        pairs = [pair for pair in pairs if keras.backend.is_float_dtype(pair[1].dtype)]
        instead = [keras.ops.convert_to_numpy(held).copy() for _, held in pairs]  # if the file can't be read
        for _, held in pairs:
            held.assign(
                np.full(held.shape, np.nan)
            )  # what the file has none of stays so, in whatever way Keras reads it
        try:
            returned = super().load_weights(*args, **kwargs)  # type: ignore[misc]
            instead = [keras.ops.convert_to_numpy(variable) for variable, _ in pairs]
        finally:
            for (_, held), value in zip(pairs, instead, strict=True):
                if np.isnan(keras.ops.convert_to_numpy(held)).all():
                    held.assign(value)
        return returned

    def to_keras(self) -> keras.Model:
        """Return the model as plain Keras, with the same weights and stock objects in place of ours.

        Penalties become stock regularizers in the slots that layers have for them, dropout layers stock ones, weight
        decay the optimizer's argument. Strengths of 0 leave nothing behind.
        """
        return _to_keras(self)

    def compile(self, *args: Any, **kwargs: Any) -> None:
        super().compile(*args, **kwargs)  # type: ignore[misc]
        own = self.__dict__
        values = {**own["_values"], **{key: float(v) for key, v in own["regularity_strengths"].items()}}
        strengths, numbers, own["_clock"] = take_over(
            self, own["_sites"], values, own["_schedules"], own["_constraints"], again=own["_was_compiled"]
        )
        own["_was_compiled"] = True
        own["regularity_strengths"].update(strengths)
        own["_scheduled"] = {key: (self.strengths[key], number) for key, number in numbers.items()}

    def compile_from_config(self, config: dict[str, Any]) -> None:
        if _keras.compiles_in_its_own_way(self):
            super().compile_from_config(config)  # type: ignore[misc]
        else:
            self.compile(**keras.saving.deserialize_keras_object(config))
        self.optimizer.build(self.trainable_variables)  # type: ignore[attr-defined]

    def __reduce__(self) -> Any:
        _, *rest = super().__reduce__()
        return keras.Model._unpickle_model, *rest  # of this class, which is made at run time, pickle finds no name

    def get_config(self) -> dict[str, Any]:
        given = keras.saving.serialize_keras_object(self.__dict__["_given"]())
        seeds = {path: np.asarray(g.state).tolist() for path, g in _keras.seed_generators(self)}
        strengths = {key: as_number(v) for key, v in self.strengths.items()}
        frozen = [path for path, layer in [("", self), *_keras.walk(self)] if not layer.trainable]
        return {
            "model": given,
            "frozen": frozen,
            "strengths": strengths,
            "schedules": self.__dict__["_schedules"],
            "seeds": seeds,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: dict[str, Any] | None = None) -> "Regularized":
        given = keras.saving.deserialize_keras_object(config["model"], custom_objects=custom_objects)
        applied = regularize(
            given, find_sites(given), config["strengths"], schedules=config["schedules"], compiled=False
        )
        for path, generator in _keras.seed_generators(applied):
            generator.state.assign(np.array(config["seeds"][path], "uint32"))
        for path, layer in [("", applied), *_keras.walk(applied)]:
            if layer.trainable and path in config["frozen"]:
                layer.trainable = False
        return applied


keras.saving.register_keras_serializable(package="regularity", name="Regularized")(Regularized)


def regularize(
    model: Any,
    sites: Sequence[Site],
    values: Mapping[str, float],
    *,
    schedules: Mapping[str, str] = MappingProxyType({}),
    init: Literal["keep", "fresh"] = "keep",
    seed: int | None = None,
    compiled: bool = True,
) -> Any:
    """Build `model` anew with a strength at each site in `values`.

    Args:
        model: The user's model, built; it is not touched.
        sites: Its sites.
        values: Strength by key of the site.
        schedules: Name of a schedule by key of each site whose strength changes while training.
        init: `keep` or `fresh`.
        seed: Sets fresh weights and the random numbers of training; None keeps what there is.
        compiled: Whether to compile the new model as `model` is.
    """
    if init not in ("keep", "fresh"):
        raise ValueError(
            f"Invalid value received for argument `init`. Expected 'keep' or 'fresh'. Received: init={init!r}"
        )
    sites = [site for site in sites if site.key in values]
    names = put_in_names(model, sites)
    new: dict[str, dict[str, Any]] = {}  # the layers to put in, by path of the layer before them and by key
    for site in sites:
        if site.kind == "after":
            kind = _component(site)
            new.setdefault(site.path, {})[site.key] = kind(values[site.key], name=names[site.key].rpartition("/")[2])
    with _keras.recorded_initializers() as initializers:
        applied = rebuild(model, {path: list(put_in.values()) for path, put_in in new.items()})
    layers = dict(_keras.walk(applied))
    strengths: dict[str, keras.Variable] = {}
    for site in sites:
        if site.kind == "after":
            layer = new[site.path][site.key]
        elif site.kind == "layer":
            layer, stock = layers[site.path], CATALOGUE[site.technique].stock
            config = {**layer.get_config(), stock[type(layer)]: values[site.key]}
            _keras.become(layer, _component(site, layer), config, tuple(stock.values()))
            if CATALOGUE[site.technique].hook == "attention":
                _keras.set_attention_dropout(
                    layers[site.path.rpartition("/")[0]], 0.5
                )  # any above 0: the layer decides
        else:
            continue
        strengths[site.key] = getattr(layer, CATALOGUE[site.technique].stock[type(layer)])

    base = type(applied)
    kind = type("Regularized", (Regularized, base), {"__module__": __name__})
    _keras.registered_as(kind, _NAME)
    applied.__class__ = kind
    applied.__dict__.update(
        regularity_strengths=strengths,
        _given=lambda: model,
        _sites=sites,
        _values=dict(values),
        _schedules=dict(schedules),
        _strengths={},
        _generators={},
        _in_step=[],
        _snapshots=[],
        _constraints={},
        _was_compiled=False,
        _initializers=initializers,
    )
    carry_regularizers(model, applied)
    _add_penalties(applied, layers, sites, values)
    _add_masks(applied, layers, sites, values)
    _add_cell_masks(applied, layers, sites, values)
    _add_skips(applied, layers, sites, values)
    _add_shares_of_branches(applied, model, layers, sites, values)
    for site in sites:
        if in_step(site.technique):
            strength, technique = _add_strength(applied, site, values[site.key]), CATALOGUE[site.technique]
            generator = _add_generator(applied, site) if technique.hook in ("batch", "hidden", "noise") else None
            applied.__dict__["_in_step"].append(Acting(technique, strength, generator))
            if technique.hook == "hidden":
                _add_mixing(applied, layers, narrows(model))
            if technique.hook == "cycle":
                _add_snapshots(applied)
    applied.__dict__["regularity_strengths"].update(applied.__dict__["_strengths"])
    copy_state(model, applied)
    if compiled:
        _keras.compile_like(applied, model)
        carry_attributes(model, applied)
    if init == "fresh":
        draw_fresh(applied, seed)
    if seed is not None:
        for (_, generator), state in zip(_keras.seed_generators(applied), seed_states(applied, [seed]), strict=True):
            generator.state.assign(state[0])
    applied._forget_snapshots()
    return applied


def _component(site: Site, layer: Any = None) -> Any:
    """The class of ours that a site's technique puts in, or that takes the place of the `layer` which is there."""
    technique = CATALOGUE[site.technique]
    if layer is None:
        return component(technique, site.rank)
    return next(kind for kind in technique.components if isinstance(layer, kind) or issubclass(kind, type(layer)))


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


def carry_regularizers(source: Any, target: Any) -> None:
    """Carry over regularizers that are no technique and were set on variables or layers after these were built."""
    for theirs, ours in matching(source, target):
        if ours.regularizer is None:
            ours.regularizer = _other_penalty(theirs.regularizer)
    there = _keras.by_path(target)
    for path, layer in [("", source), *_keras.walk(source)]:
        if path in there and there[path].activity_regularizer is None:
            there[path].activity_regularizer = _other_penalty(layer.activity_regularizer)


def carry_attributes(source: Any, target: Any) -> None:
    """Carry over plain attributes that were set by hand, or by a `compile` of the user's.

    On the model itself and on layers of classes that are the user's; those of Keras have theirs by configuration.
    """
    there = _keras.by_path(target)
    for path, layer in [("", source), *_keras.walk(source)]:
        if path not in there or (path and (_keras.is_of_keras(layer) or _is_ours(layer))):
            continue
        _carry_attributes(layer, there[path])


def _is_ours(layer: Any) -> bool:
    return type(layer).__module__.startswith("regularity.")


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


def matching(source: Any, target: Any) -> list[tuple[Any, Any]]:
    """Each weight of a model with the one that a model built anew from it has in its place.

    By path, since a layer put into one branch of a graph may change the order in which Keras lists all layers.
    """
    there = _keras.by_path(target)
    found = []
    for path, layer in [("", source), *_keras.walk(source)]:
        ours = _keras.own_variables(there[path]) if path in there else []
        if not ours and _is_ours(layer):
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


def as_given(applied: Any) -> list[Any]:
    """The weights of a regularized model, in the order in which the user's model has them, then those of layers put in and snapshots."""
    layers, names = dict(_keras.walk(applied)), put_in_names(applied.__dict__["_given"](), applied.__dict__["_sites"])
    added = [weight for path in names.values() for weight in layers[path].weights]
    theirs = {id(given): ours for given, ours in matching(applied.__dict__["_given"](), applied)}
    kept = [held for kept in applied.__dict__.get("_snapshots", ()) for _, held in kept]
    return [*(theirs[id(given)] for given in applied.__dict__["_given"]().weights), *added, *kept]


def _add_penalties(applied: Any, layers: Mapping[str, Any], sites: Sequence[Site], values: Mapping[str, float]) -> None:
    """Give the variables and outputs of `sites` their penalties, whose strengths are weights of the model."""
    terms: dict[tuple[str, str], list[tuple[Callable[..., Any], keras.Variable]]] = {}
    variables = variables_by_path(applied, layers)

    def slot_of(kind: str, path: str) -> tuple[Any, str]:
        return (variables[path], "regularizer") if kind == "variable" else (layers[path], "activity_regularizer")

    for site in sites:
        technique = CATALOGUE[site.technique]
        if technique.hook in ("penalty", "output"):
            held = getattr(*slot_of(site.kind, site.path))
            # what the model has already keeps its settings, such as a share of L1, and gets its strength from here
            settings = getattr(held, "settings", {}) if given_strength(technique, held) is not None else {}
            variable = _add_strength(applied, site, values[site.key])
            terms.setdefault((site.kind, site.path), []).append((partial(technique.function, **settings), variable))
    for (kind, path), penalties in terms.items():
        holder, slot = slot_of(kind, path)
        form = None
        if kind == "variable":
            form = _keras.units_last(layers.get(path.rpartition("/")[0], applied), holder)
        setattr(holder, slot, _summed(_other_penalty(getattr(holder, slot)), penalties, form))


def _add_masks(applied: Any, layers: Mapping[str, Any], sites: Sequence[Site], values: Mapping[str, float]) -> None:
    """Have the layers of `sites` compute with other values of their variables in training."""
    variables = variables_by_path(applied, layers)
    masks: dict[str, list[tuple[Any, Callable[..., Any], keras.Variable, Any]]] = {}
    for site in sites:
        if CATALOGUE[site.technique].hook == "mask":
            strength, generator = _add_strength(applied, site, values[site.key]), _add_generator(applied, site)
            holder = site.path.rpartition("/")[0]
            while isinstance(layers.get(holder.rpartition("/")[0]), (keras.layers.RNN, keras.layers.StackedRNNCells)):
                holder = holder.rpartition("/")[0]  # the mask of a cell is drawn once for all steps
            masks.setdefault(holder, []).append(
                (variables[site.path], CATALOGUE[site.technique].function, strength, generator)
            )
    for path, held in masks.items():
        _mask(layers[path], held)


def _add_cell_masks(
    applied: Any, layers: Mapping[str, Any], sites: Sequence[Site], values: Mapping[str, float]
) -> None:
    """Have recurrent cells drop by strengths that are weights of the model, with the seeds that they have."""
    for site in sites:
        technique = CATALOGUE[site.technique]
        if technique.hook != "cell":
            continue
        cell, strength = layers[site.path], _add_strength(applied, site, values[site.key])
        name: Any = technique.stock[type(cell)]
        _keras.set_cell_dropout(cell, {name: 0.5})  # any between 0 and 1: the strength decides

        def draw(ones: Any, strength: Any = strength, cell: Any = cell, technique: Any = technique) -> Any:
            return technique.function(ones, strength.value, cell.seed_generator)

        _keras.with_cell_masks(cell, name, draw)


def _add_skips(applied: Any, layers: Mapping[str, Any], sites: Sequence[Site], values: Mapping[str, float]) -> None:
    """Have the layers of `sites` put out what a technique makes of what they take and put out."""

    def lead_around(layer: Any, technique: Any, strength: keras.Variable) -> None:
        def changed(call: Callable[..., Any], inputs: Any, *args: Any, **kwargs: Any) -> Any:
            return technique.function(inputs, call(inputs, *args, **kwargs), strength.value)

        _keras.wrap_call(layer, changed)

    for site in sites:
        if site.kind == "around":
            lead_around(layers[site.path], CATALOGUE[site.technique], _add_strength(applied, site, values[site.key]))


def _add_shares_of_branches(
    applied: Any, model: Any, layers: Mapping[str, Any], sites: Sequence[Site], values: Mapping[str, float]
) -> None:
    """Have the layers of `sites` that join two branches of `model` join them changed in training."""

    def join(layer: Any, ends: tuple[int, int], technique: Any, strength: keras.Variable, generator: Any) -> None:
        def changed(call: Callable[..., Any], inputs: Any, **kwargs: Any) -> Any:
            if _keras.is_training(layer):
                inputs, (first, second) = list(inputs), ends
                branches = (inputs[first], inputs[second])
                inputs[first], inputs[second] = technique.function(branches, strength.value, generator)
            return call(inputs, **kwargs)

        _keras.wrap_call(layer, changed)

    joined = joins(model)
    for site in sites:
        if site.kind == "join":
            strength, generator = _add_strength(applied, site, values[site.key]), _add_generator(applied, site)
            join(layers[site.path], joined[site.path], CATALOGUE[site.technique], strength, generator)


def _add_mixing(applied: Any, layers: Mapping[str, Any], paths: Sequence[str]) -> None:
    """Have the layers at `paths`, and the inputs where they are numbers, be places where the training step mixes rows."""
    inputs = [""] if _keras.why_no_changed_rows(applied) is None else []
    applied.__dict__["_mixed_at"] = [*inputs, *paths]

    def mix_behind(path: str) -> None:
        def mixed(call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
            outputs, mixing = call(*args, **kwargs), applied._noted("hidden")
            return mixing[path].mix(outputs) if mixing else outputs

        _keras.wrap_call(layers[path], mixed)

    for path in paths:
        mix_behind(path)


def _add_snapshots(applied: Any) -> None:
    """Have a model hold its weights several times, and put out the mean of what these put out where it does not train."""
    layers = [layer for layer in (applied, *(layer for _, layer in _keras.walk(applied))) if layer.trainable]
    changing = {id(v) for layer in layers for v in _keras.own_variables(layer)}  # trained, or statistics of what passes
    variables = [v for v in as_given(applied) if id(v) in changing]
    for n in range(SNAPSHOTS):
        with keras.name_scope(f"{applied.name}_snapshot_{n}"):
            held = [
                keras.Variable(np.zeros(v.shape), dtype=v.dtype, trainable=False, name=v.path.replace("/", "_"))
                for v in variables
            ]
        applied.__dict__["_snapshots"].append(list(zip(variables, held, strict=True)))

    signature = inspect.signature(applied.call)

    def averaged(call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if signature.bind_partial(*args, **kwargs).arguments.get("training"):
            return call(*args, **kwargs)
        outputs = []
        for kept in applied.__dict__["_snapshots"]:
            with _keras.other_values([(variable, held.value) for variable, held in kept]):
                outputs.append(call(*args, **kwargs))
        return _keras.mean_of(outputs)

    _keras.wrap_call(applied, averaged)


def _mask(layer: Any, masks: Sequence[tuple[Any, Callable[..., Any], keras.Variable, Any]]) -> None:
    def masked(call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if not _keras.is_training(layer):
            return call(*args, **kwargs)
        values = [(v, function(v.value, strength.value, generator)) for v, function, strength, generator in masks]
        with _keras.other_values(values):
            return call(*args, **kwargs)

    _keras.wrap_call(layer, masked)


def _add_strength(applied: Any, site: Site, value: float) -> keras.Variable:
    """A strength that the model itself holds."""
    with _keras.unlocked(applied):
        variable = add_strength(applied, site.key.replace("/", "_").replace("@", "_at_"), value)
    applied.__dict__["_strengths"][site.key] = variable
    return variable


def _add_generator(applied: Any, site: Site) -> Any:
    """What a site of the model itself draws by."""
    generator = keras.random.SeedGenerator()
    with _keras.unlocked(applied):
        setattr(applied, f"regularity_seeds_{len(applied.__dict__['_generators'])}", generator)
    applied.__dict__["_generators"][site.key] = generator
    return generator


def _other_penalty(held: Any) -> Callable[[Any], Any] | None:
    """A regularizer that is no technique of the catalogue, and so stays as it is."""
    known = any(given_strength(technique, held) is not None for technique in CATALOGUE.values())
    return None if known else held


def _summed(
    other: Callable[[Any], Any] | None,
    penalties: Sequence[tuple[Callable[..., Any], keras.Variable]],
    form: Callable[[Any], Any] | None = None,
) -> Callable[[Any], Any]:
    """The sum of penalties, on what `form` makes of a variable, and of another one on the variable as it is."""

    def penalty(x: Any) -> Any:
        x = keras.ops.convert_to_tensor(x)
        w = x if form is None else form(x)
        total = sum(function(w, strength) for function, strength in penalties)
        return total if other is None else total + other(x)

    return penalty


def fresh_seed(seed: int, *stream: int) -> int:
    """The seed of one of a model's random streams, 31 bits, from the seed of the whole model."""
    return int(np.random.SeedSequence([seed, *stream]).generate_state(1)[0]) & 0x7FFFFFFF


def weight_seed(seed: int, index: int) -> int:
    """The seed of the initial values of a model's `index`-th fresh variable: a stream apart from those of training."""
    return fresh_seed(seed, 2**31 + index)


def seed_states(applied: Any, seeds: Sequence[int]) -> list[np.ndarray]:
    """For each seed generator of `applied` its first state under each of `seeds`: arrays of (seeds, 2).

    A generator's stream follows from the place of its layer in the user's model, so that a layer put in for one
    member of a population changes no random number of another.
    """
    given, sites = applied.__dict__["_given"](), applied.__dict__["_sites"]
    places = {path: i for i, (path, _) in enumerate(_keras.walk(given))}
    names = put_in_names(given, sites)
    put_in = {names[s.key]: (places[s.path], zlib.crc32(s.technique.encode())) for s in sites if s.key in names}
    own = {id(generator): key for key, generator in applied.__dict__["_generators"].items()}
    streams = []
    for path, generator in _keras.seed_generators(applied):
        layer, _, number = f"/{path}".rpartition("/seed")
        layer = layer.removeprefix("/")
        if id(generator) in own:
            technique, _, at = own[id(generator)].partition("@")
            holder, _, variable = at.rpartition("/")
            stream = zlib.crc32(f"{technique}@{variable}".encode())
            streams.append((len(places), places.get(holder, len(places)), stream))
        elif layer in put_in and layer not in places:
            place, technique = put_in[layer]
            streams.append((place, int(number), technique))
        else:
            streams.append((places.get(layer, len(places)), int(number), 0))
    return [np.array([[fresh_seed(seed, *stream), 0] for seed in seeds], "uint32") for stream in streams]


def drawn_anew(applied: Any) -> list[tuple[Any, Callable[..., Any]]]:
    """The variables that `init="fresh"` draws, each with its initializer.

    These are the trainable ones, and the statistics of batch normalization that trains; what was frozen or adapted, or
    stands fixed beside weights that train, is kept.
    """
    initializers = applied.__dict__["_initializers"]
    anew = set()
    for layer in [applied, *(layer for _, layer in _keras.walk(applied))]:
        variables = _keras.own_variables(layer)
        statistics = isinstance(layer, keras.layers.BatchNormalization) and layer.trainable
        anew |= {id(v) for v in variables if v.trainable or statistics}
    return [(v, initializers[id(v)]) for v in as_given(applied) if id(v) in anew and id(v) in initializers]


def draw_fresh(applied: Any, seed: int | None) -> None:
    """Draw the weights of one model anew, in place."""
    if seed is None:
        seed = int(np.random.SeedSequence().generate_state(1)[0])
    for i, (variable, initializer) in enumerate(drawn_anew(applied)):
        variable.assign(_keras.draw(initializer, variable, weight_seed(seed, i)))


def _to_keras(applied: Any) -> keras.Model:
    cycles = [site.key for site in applied.__dict__["_sites"] if CATALOGUE[site.technique].hook == "cycle"]
    if not any(float(applied.strengths[key]) for key in cycles):
        return _one_plain(applied)
    to_numpy = keras.ops.convert_to_numpy
    kept = applied.__dict__["_snapshots"]
    each = [{id(variable): to_numpy(held) for variable, held in one} for one in kept]
    members = [_one_plain(applied, instead, 1 / len(kept)) for instead in each]
    return _keras.average_of(members, applied.__dict__["_given"](), members[0])


def _one_plain(
    applied: Any, instead: Mapping[int, np.ndarray] = MappingProxyType({}), share: float = 1.0
) -> keras.Model:
    """The model as plain Keras, with other values `instead` of those of some variables, and that share of the penalties."""
    given, sites = applied.__dict__["_given"](), applied.__dict__["_sites"]
    values = {key: as_number(variable) for key, variable in applied.strengths.items()}
    names = put_in_names(given, sites)
    plain = _rebuilt_with_stock(given, sites, values, names)
    carry_regularizers(given, plain)
    layers = dict(_keras.walk(plain))
    _stock_settings(layers, sites, values)
    copy_state(applied, plain, instead)
    for site in sites:
        fold = CATALOGUE[site.technique].fold
        if fold is None or (site.kind == "after" and not values[site.key]):
            continue
        layer = layers[names[site.key] if site.kind == "after" else site.path]
        if not _is_ours(layer):  # one that stays needs no folding
            fold(layer, values[site.key])
    variables = variables_by_path(plain, layers)
    _stock_penalties(layers, variables, sites, values, share)
    _keras.compile_like(plain, applied)
    carry_attributes(applied, plain)
    _stock_decay(plain, variables, {s.path: values[s.key] for s in sites if CATALOGUE[s.technique].hook == "decay"})
    _stock_constraints(plain, sites, variables, values)
    if any(CATALOGUE[site.technique].hook == "average" for site in sites):
        _keras.innermost(plain.optimizer).use_ema = False  # unless a technique says otherwise
    for site in sites:
        technique = CATALOGUE[site.technique]
        if technique.restore is not None:
            technique.restore(_keras.innermost(plain.optimizer), technique.outside(values[site.key]))
    _keras.innermost(plain.optimizer).build(plain.trainable_variables)  # else a file of it warns when loaded
    return plain


def _rebuilt_with_stock(given: Any, sites: Sequence[Site], values: Mapping[str, Any], names: Mapping[str, str]) -> Any:
    """The model anew, with Keras's own layers put in where a strength is on."""
    new: dict[str, list[Any]] = {}
    for site in sites:
        if site.kind != "after" or not values[site.key]:
            continue
        stock, name = _stock_layer(site), {"name": names[site.key].rpartition("/")[2]}
        if stock is not None:
            put_in = stock(**name) if CATALOGUE[site.technique].fold else stock(values[site.key], **name)
            new.setdefault(site.path, []).append(put_in)
    skips = put_in_names(given, sites, "around")
    around = {
        site.path: partial(_stock_skip, share=values[site.key], name=skips[site.key].rpartition("/")[2])
        for site in sites
        if site.kind == "around" and values[site.key]
    }
    return rebuild(given, new, around)


def _stock_settings(layers: Mapping[str, Any], sites: Sequence[Site], values: Mapping[str, Any]) -> None:
    """Have layers that hold a strength be Keras's own, with it as a number."""
    for site in sites:
        technique = CATALOGUE[site.technique]
        if site.kind == "cell":
            cell = layers[site.path]
            _keras.set_cell_dropout(cell, {technique.stock[type(cell)]: values[site.key]})
        if site.kind != "layer":
            continue
        layer = layers[site.path]
        kind, config = _stock_layer(site, layer), layer.get_config()
        names_of_strength = tuple(technique.stock.values())
        if technique.fold is not None:
            if layer.gamma is not None and layer.beta is not None:  # else there is nothing to fold a share into
                rest = {k: v for k, v in config.items() if k not in names_of_strength}
                _keras.become(layer, kind, rest, names_of_strength)
        elif kind is None:  # Keras has none, and at inference it is nothing
            base = {name: config[name] for name in ("name", "trainable", "dtype")}
            _keras.become(layer, keras.layers.Identity, base, names_of_strength)
        else:
            config[technique.stock[kind]] = values[site.key]
            _keras.become(layer, kind, config, names_of_strength)
        if technique.hook == "attention":
            _keras.set_attention_dropout(layers[site.path.rpartition("/")[0]], values[site.key])


def _stock_penalties(
    layers: Mapping[str, Any],
    variables: Mapping[str, Any],
    sites: Sequence[Site],
    values: Mapping[str, Any],
    share: float,
) -> None:
    """Give variables and layers Keras's own regularizers, with a share of each strength, in the slots that layers have for them."""
    penalties: dict[tuple[str, str], dict[str, float]] = {}
    for site in sites:
        if CATALOGUE[site.technique].hook in ("penalty", "output"):
            name = site.technique.removeprefix("activity_")
            penalties.setdefault((site.kind, site.path), {})[name] = share * values[site.key]
    for (kind, path), strengths in penalties.items():
        penalty = stock_penalty(strengths)
        if kind == "output":
            if _other_penalty(layers[path].activity_regularizer) is None:
                layers[path].activity_regularizer = penalty
            continue
        variable, layer = variables[path], layers.get(path.rpartition("/")[0])
        if _other_penalty(variable.regularizer) is None:
            variable.regularizer = penalty
            for slot in (f"{variable.name}_regularizer", f"{variable.name.removesuffix('_kernel')}_regularizer"):
                if hasattr(layer, slot):
                    setattr(layer, slot, penalty)


def _stock_skip(inputs: Any, outputs: Any, share: float, name: str) -> Any:
    """A share of what a layer takes added to what it puts out, by layers of Keras's."""
    if share != 1:
        inputs = keras.layers.Rescaling(share, name=f"{name}_share")(inputs)
    return keras.layers.Add(name=name)([outputs, inputs])


def _stock_layer(site: Site, layer: Any = None) -> Any:
    """Keras's own class of a layer that does what the technique of `site` does, or None."""
    technique, own = CATALOGUE[site.technique], _component(site, layer)
    if technique.fold is not None:
        return own.__mro__[1]
    return next((kind for kind in own.__mro__ if kind in technique.stock and kind is not own), None)


def _stock_constraints(plain: Any, sites: Sequence[Site], variables: Mapping[str, Any], values: Any) -> None:
    """Give variables Keras's own constraints, in the slots that layers have for them."""
    layers = dict(_keras.walk(plain))
    for site in sites:
        technique = CATALOGUE[site.technique]
        if technique.hook != "constraint" or not technique.stock:
            continue  # Keras has none that holds its strength
        (kind, attribute), *_ = technique.stock.items()
        variable, layer = variables[site.path], layers.get(site.path.rpartition("/")[0])
        if variable.constraint is not None and given_strength(technique, variable.constraint) is None:
            continue  # it has another, and Keras has one place
        axis, bound = constrained_axes(layer or plain, variable, technique), technique.outside(values[site.key])
        constraint = None if bound is None else kind(**{attribute: as_number(bound), "axis": list(axis)})
        variable.constraint = constraint
        for slot in (f"{variable.name}_constraint", f"{variable.name.removesuffix('_kernel')}_constraint"):
            if hasattr(layer, slot):
                setattr(layer, slot, constraint)


def _stock_decay(plain: Any, variables: Mapping[str, Any], decays: Mapping[str, float]) -> None:
    """Give the optimizer the one weight decay that Keras has, with the variables that it leaves out.

    Where variables decay by different strengths Keras has no such thing, and the plain model decays none.
    """
    optimizer, on = _keras.innermost(plain.optimizer), {value for value in decays.values() if value}
    if not decays:
        return
    optimizer.weight_decay = on.pop() if len(on) == 1 else None
    left_out = [variable for path, variable in variables.items() if not decays.get(path)]
    optimizer.exclude_from_weight_decay(var_list=left_out)
