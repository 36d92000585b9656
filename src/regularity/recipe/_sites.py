"""Where techniques may act in a model: the sites, what the model has there already, and which of them a recipe reaches."""

import fnmatch
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import keras
import numpy as np

from regularity import _keras
from regularity.catalogue import CATALOGUE, Technique

_NORMALIZATION = (
    keras.layers.BatchNormalization,
    keras.layers.LayerNormalization,
    keras.layers.GroupNormalization,
    keras.layers.RMSNormalization,
    keras.layers.Normalization,
)
_ACTIVATION = (keras.layers.ReLU, keras.layers.LeakyReLU, keras.layers.PReLU, keras.layers.ELU)
_NOT_KERNELS = ("bias", "embedding", "gamma", "beta", "alpha")


@dataclass(frozen=True)
class Site:
    """One place in one model where one technique has, or may be given, a strength.

    Args:
        technique: Name of the technique.
        path: Path of the variable or layer, such as `encoder/dense/kernel`; unique for the technique.
        kind: A `variable`, a layer's `output` (a penalty on it), a `layer` that is the technique, or `after` a layer.
        names: What a pattern without a slash is matched with: the layer, those around it, the one a dropout follows.
        given: Strength in the user's model, None where the technique is not there.
        default: Whether a key without a pattern, or a pattern over layer names, reaches it though nothing is given.
    """

    technique: str
    path: str
    kind: Literal["variable", "output", "layer", "after"]
    names: tuple[str, ...]
    given: float | None
    default: bool

    @property
    def key(self) -> str:
        """The recipe key that reaches this site alone."""
        return f"{self.technique}@{self.path}"


def find_sites(model: Any) -> list[Site]:
    """Return every site of `model`, technique by technique, in the order of its layers."""
    hidden = dict(_hidden(model))
    places = {"weights": _variable_sites, "update": _variable_sites, "activations": _activation_sites}
    return [site for technique in CATALOGUE.values() for site in places[technique.place](model, technique, hidden)]


def given_strength(technique: Technique, held: Any) -> float | None:
    """The strength of `technique` in an object of the user's model, stock or ours; None where it is another thing."""
    attribute = technique.stock.get(type(held))
    return None if attribute is None else as_number(getattr(held, attribute))


def as_number(strength: Any) -> float:
    """A strength as the shortest number that is the same in single precision, in which Keras and we hold it."""
    return float(str(np.float32(float(strength))))


def _variable_sites(model: Any, technique: Technique, hidden: Mapping[str, Any]) -> Iterator[Site]:
    del hidden
    if technique.place == "update" and _keras.decays_in_its_own_way(_keras.innermost(model.optimizer)):
        return
    taken: set[str] = set()
    for path, layer in [("", model), *_keras.walk(model)]:
        for variable in _keras.own_variables(layer):
            if not variable.trainable:
                continue  # Keras takes no penalty of a frozen variable, and steps none
            name = f"{path}/{variable.name}".lstrip("/")
            while name in taken:
                name += "_"
            taken.add(name)
            if technique.place == "weights":
                given = given_strength(technique, variable.regularizer) or None
            else:
                optimizer = _keras.innermost(model.optimizer)
                given = float(optimizer.weight_decay) if _keras.decays(optimizer, variable) else None
            yield Site(technique.name, name, "variable", tuple(path.split("/")), given, _is_kernel(layer, variable))


def _is_kernel(layer: Any, variable: Any) -> bool:
    return (
        len(variable.shape) >= 2
        and not isinstance(layer, _NORMALIZATION)
        and not any(word in variable.name for word in _NOT_KERNELS)
    )


def _activation_sites(model: Any, technique: Technique, hidden: Mapping[str, Any]) -> Iterator[Site]:
    for path, layer in _keras.walk(model):
        if not layer.trainable:
            continue  # a frozen part stays as it was pretrained, its dropout too
        names = tuple(path.split("/"))
        if not _is_layer(technique):
            given = given_strength(technique, layer.activity_regularizer) or None
            after = hidden.get(path)
            yield Site(technique.name, path, "output", names, given, after is not None and after.activation)
        elif given_strength(technique, layer) is not None:
            follows = [other.name for other in hidden.values() if layer in other.dropouts]
            yield Site(technique.name, path, "layer", (*names, *follows), given_strength(technique, layer), True)
        elif path in hidden and not hidden[path].dropouts:
            yield Site(technique.name, path, "after", names, None, hidden[path].activation)


def _is_layer(technique: Technique) -> bool:
    """Whether the technique's component is a layer that stands in the graph, not a penalty that a layer holds."""
    return technique.component is not None and not issubclass(technique.component, keras.regularizers.Regularizer)


@dataclass(frozen=True)
class _Hidden:
    """A layer of a graph after which a layer may be put in: kernels follow it."""

    name: str
    activation: bool
    dropouts: tuple[Any, ...]  # the dropout layers on the way from it to the next layer with weights


def _hidden(
    model: Any, prefix: str = "", followed: bool = False, then: tuple[Any, ...] = ()
) -> Iterator[tuple[str, _Hidden]]:
    """Each layer of `model`, and of graphs inside it, that is not on the way to the output after the last kernel.

    For a graph inside another, `followed` says whether kernels follow it there, `then` which dropout layers do.
    """
    if not _keras.is_rebuildable(model) or not model.built:
        return
    before, behind = defaultdict(list), defaultdict(list)
    objects: dict[int, Any] = {id(layer): layer for layer in model.layers}
    for first, second in _keras.edges(model):
        before[id(second)].append(id(first))
        behind[id(first)].append(id(second))
        objects.update({id(first): first, id(second): second})
    weighted = {key for key, layer in objects.items() if any(len(w.shape) >= 2 for w in getattr(layer, "weights", ()))}
    hidden = _reached((b for key in weighted for b in before[key]), before)
    if followed:
        hidden |= set(objects)
    last = {id(tensor._keras_history.operation) for tensor in model.outputs}
    for layer in model.layers:
        key, path = id(layer), prefix + layer.name
        on_the_way = _reached(behind[key], {k: v for k, v in behind.items() if k not in weighted})
        dropouts = tuple(objects[k] for k in on_the_way if isinstance(objects[k], keras.layers.Dropout))
        if last & ({key} | on_the_way - weighted):
            dropouts += then
        if key in hidden and not isinstance(layer, (keras.layers.InputLayer, keras.layers.Dropout)):
            yield path, _Hidden(layer.name, _is_activation(layer), dropouts)
        if isinstance(layer, keras.Model) and layer.trainable:
            yield from _hidden(layer, f"{path}/", key in hidden, dropouts)


def _reached(start: Any, graph: Mapping[int, Sequence[int]]) -> set[int]:
    reached, stack = set(), list(start)
    while stack:
        key = stack.pop()
        if key not in reached:
            reached.add(key)
            stack.extend(graph.get(key, ()))
    return reached


def _is_activation(layer: Any) -> bool:
    if isinstance(layer, keras.layers.Wrapper):
        return _is_activation(layer.layer)
    if isinstance(layer, (*_ACTIVATION, keras.layers.RNN, keras.layers.Bidirectional)):
        return True
    activation = getattr(layer, "activation", None)
    return callable(activation) and activation not in (keras.activations.linear, keras.activations.softmax)


def resolve(strengths: Mapping[str, float], sites: Sequence[Site], model: Any) -> dict[str, float]:
    """Return the strength of every site that the model or the recipe gives one, by the site's key.

    What the model gives comes first, then keys without a pattern, then patterns in their order, then exact names:
    the later takes the place of the earlier, and nothing is added up.

    Raises:
        ValueError: If a key reaches nothing, with what it could reach.
    """
    resolved = {site.key: site.given for site in sites if site.given is not None}

    def rank(key: str) -> int:
        pattern = key.partition("@")[2]
        return 0 if "@" not in key else 1 if any(c in pattern for c in "*?[") else 2

    for key in sorted(strengths, key=rank):
        name, at, pattern = key.partition("@")
        candidates = [site for site in sites if site.technique == name]
        reached = [site for site in candidates if _reaches(pattern if at else None, site)]
        if not reached:
            raise ValueError(_nothing_reached(key, candidates, model))
        resolved.update({site.key: strengths[key] for site in reached})
    return resolved


def _reaches(pattern: str | None, site: Site) -> bool:
    """Whether a key with this pattern (None: without one) reaches the site."""
    usual = site.default or site.given is not None
    if pattern is None:
        return usual
    if "/" in pattern or site.path == pattern:
        return fnmatch.fnmatchcase(site.path, pattern)
    return (usual or site.kind in ("after", "output")) and any(fnmatch.fnmatchcase(n, pattern) for n in site.names)


def _nothing_reached(key: str, candidates: Sequence[Site], model: Any) -> str:
    name, at, pattern = key.partition("@")
    paths = [site.path for site in candidates]
    names = list(dict.fromkeys(n for site in candidates for n in site.names[:1] if n))
    what = (
        f"the pattern {pattern!r} matches no place in model {model.name!r}"
        if at
        else f"model {model.name!r} has no place for it"
    )
    if not candidates:
        can = f"No layer of this model can take {name!r}: {_why_none(CATALOGUE[name], model)}"
    else:
        can = f"What would match: layers {_listed(names)}; paths {_listed(paths)}."
        if _is_layer(CATALOGUE[name]):
            can += f" {name} goes behind hidden layers, not behind the output."
            can += "" if _keras.is_rebuildable(model) else f" Elsewhere: {_why_none(CATALOGUE[name], model)}"
    return f"Invalid value received for argument `recipe`. Key {key!r}: {what}. {can}"


def _why_none(technique: Technique, model: Any) -> str:
    if technique.place == "update" and _keras.decays_in_its_own_way(_keras.innermost(model.optimizer)):
        return f"its optimizer {type(model.optimizer).__name__} has a weight decay of its own, which stays as it is."
    if technique.place != "activations":
        return "it has no trainable variables (is it frozen?)."
    if not _keras.is_rebuildable(model):
        return (
            f"to put a layer in, the `call` of {type(model).__name__} would have to be rewritten. "
            "Give the model a keras.layers.Dropout (a rate of 0 is enough) where it should act, or build the model as Functional or Sequential."
        )
    return "it has no hidden layer, only an output."


def _listed(names: Sequence[str], most: int = 12) -> str:
    shown = ", ".join(repr(n) for n in names[:most])
    return f"[{shown}{', …' if len(names) > most else ''}]"
