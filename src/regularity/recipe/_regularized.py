"""The model that a recipe makes: the user's, built anew, with strengths as weights."""

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
from regularity.recipe._copying import (
    carry_attributes,
    carry_regularizers,
    copy_state,
    matching,
    other_penalty,
    put_in_names,
    rebuild,
)
from regularity.recipe._optimizing import take_over
from regularity.recipe._plain import to_keras
from regularity.recipe._sites import (
    Site,
    as_number,
    component_at,
    find_sites,
    given_strength,
    joins,
    narrows,
    new_layer,
    variables_by_path,
)
from regularity.recipe._step import Acting, TrainingStep, in_step

_NAME = "regularity>Regularized"
# A penalty, its strength, and what it is given in place of a variable.
_Term = tuple[Callable[..., Any], keras.Variable, Callable[[Any], Any] | None]


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

    def _numbers(self) -> dict[str, float]:
        """Each strength as a number by its key, also those that an optimizer holds once there is one."""
        return {**self.__dict__["_values"], **{key: as_number(variable) for key, variable in self.strengths.items()}}

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
        return to_keras(self)

    def compile(self, *args: Any, **kwargs: Any) -> None:
        super().compile(*args, **kwargs)  # type: ignore[misc]
        own = self.__dict__
        strengths, numbers, own["_clock"] = take_over(
            self, own["_sites"], self._numbers(), own["_schedules"], own["_constraints"], again=own["_was_compiled"]
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
        frozen = [path for path, layer in [("", self), *_keras.walk(self)] if not layer.trainable]
        return {
            "model": given,
            "frozen": frozen,
            "strengths": self._numbers(),
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


@_keras.without_tensorflow()
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
    with _keras.recorded_initializers() as initializers:
        applied, put_in = _with_layers_put_in(model, sites, values)
    layers = dict(_keras.walk(applied))
    strengths = _held_by_layers(layers, put_in, sites, values)
    kind = type("Regularized", (Regularized, type(applied)), {"__module__": __name__})
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
    _add_acting(applied, model, layers, sites, values)
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


def _with_layers_put_in(
    model: Any, sites: Sequence[Site], values: Mapping[str, float]
) -> tuple[Any, Mapping[str, Any]]:
    """The model anew with a layer of ours behind each site of that kind, and these layers by key of their site."""
    names = put_in_names(model, sites)
    put_in: dict[str, Any] = {}
    behind: dict[str, list[Any]] = {}
    for site in sites:
        if site.kind == "after":
            name = names[site.key].rpartition("/")[2]
            put_in[site.key] = new_layer(component_at(site), site, values[site.key], name=name)
            behind.setdefault(site.path, []).append(put_in[site.key])
    return rebuild(model, behind), put_in


def _held_by_layers(
    layers: Mapping[str, Any], put_in: Mapping[str, Any], sites: Sequence[Site], values: Mapping[str, float]
) -> dict[str, keras.Variable]:
    """The strengths, by key, that layers hold which were put in, and which are there and become ours."""
    strengths = {}
    for site in sites:
        stock = CATALOGUE[site.technique].stock
        if site.kind == "after":
            layer = put_in[site.key]
        elif site.kind == "layer":
            layer = layers[site.path]
            config = {**layer.get_config(), stock[type(layer)]: values[site.key]}
            _keras.become(layer, component_at(site, layer), config, tuple(stock.values()))
            if CATALOGUE[site.technique].hook == "attention":
                attention = layers[site.path.rpartition("/")[0]]
                _keras.set_attention_dropout(attention, 0.5)  # any above 0: the layer decides
        else:
            continue
        strengths[site.key] = getattr(layer, stock[type(layer)])
    return strengths


def as_given(applied: Any) -> list[Any]:
    """The weights of a regularized model, in the order in which the user's model has them, then those of layers put in and snapshots."""
    layers, names = dict(_keras.walk(applied)), put_in_names(applied.__dict__["_given"](), applied.__dict__["_sites"])
    added = [weight for path in names.values() for weight in layers[path].weights]
    theirs = {id(given): ours for given, ours in matching(applied.__dict__["_given"](), applied)}
    kept = [held for kept in applied.__dict__.get("_snapshots", ()) for _, held in kept]
    return [*(theirs[id(given)] for given in applied.__dict__["_given"]().weights), *added, *kept]


def _add_penalties(applied: Any, layers: Mapping[str, Any], sites: Sequence[Site], values: Mapping[str, float]) -> None:
    """Give the variables and outputs of `sites` their penalties, whose strengths are weights of the model."""
    terms: dict[tuple[str, str], list[_Term]] = {}
    variables = variables_by_path(applied, layers)

    def slot_of(kind: str, path: str) -> tuple[Any, str]:
        return (variables[path], "regularizer") if kind == "variable" else (layers[path], "activity_regularizer")

    for site in sites:
        technique = CATALOGUE[site.technique]
        if is_penalty(site.key):
            held = getattr(*slot_of(site.kind, site.path))
            # what the model has already keeps its settings, such as a share of L1, and gets its strength from here
            settings = getattr(held, "settings", {}) if given_strength(technique, held) is not None else {}
            function, form = partial(technique.function, **settings), None
            if site.kind == "variable":
                layer = layers.get(site.path.rpartition("/")[0], applied)
                form = _keras.units_last(layer, variables[site.path], of_inputs=technique.of_inputs)
            variable = _add_strength(applied, site, values[site.key])
            terms.setdefault((site.kind, site.path), []).append((function, variable, form))
    for (kind, path), penalties in terms.items():
        holder, slot = slot_of(kind, path)
        setattr(holder, slot, _summed(other_penalty(getattr(holder, slot)), penalties))


def is_penalty(key: str) -> bool:
    """Whether the strength with this key is that of a penalty which is in the loss."""
    return CATALOGUE[key.partition("@")[0]].hook in ("penalty", "output")


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


def _add_acting(
    applied: Any, model: Any, layers: Mapping[str, Any], sites: Sequence[Site], values: Mapping[str, float]
) -> None:
    """Have the training step do what the techniques of `sites` do there."""
    for site in sites:
        if not in_step(site.technique):
            continue
        strength, technique = _add_strength(applied, site, values[site.key]), CATALOGUE[site.technique]
        generator = _add_generator(applied, site) if technique.hook in ("batch", "hidden", "noise") else None
        applied.__dict__["_in_step"].append(Acting(technique, strength, generator))
        if technique.hook == "hidden":
            _add_mixing(applied, layers, narrows(model))
        if technique.hook == "cycle":
            _add_snapshots(applied)


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


def _summed(other: Callable[[Any], Any] | None, penalties: Sequence[_Term]) -> Callable[[Any], Any]:
    """The sum of penalties, each on what its form makes of a variable, and of another one on the variable as it is."""

    def penalty(x: Any) -> Any:
        x = keras.ops.convert_to_tensor(x)
        total = sum(function(x if form is None else form(x), strength) for function, strength, form in penalties)
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
