"""Where techniques may act in a model: the sites, what the model has there already, and which of them a recipe reaches."""

import fnmatch
import inspect
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import keras
import numpy as np

from regularity import _keras
from regularity.catalogue import CATALOGUE, Technique
from regularity.catalogue.activations import ConcreteDropout, DropPath
from regularity.recipe._formats import format_behind

_NORMALIZATION = (
    keras.layers.BatchNormalization,
    keras.layers.LayerNormalization,
    keras.layers.GroupNormalization,
    keras.layers.RMSNormalization,
    keras.layers.Normalization,
)
_ACTIVATION = (keras.layers.ReLU, keras.layers.LeakyReLU, keras.layers.PReLU, keras.layers.ELU)
_NOISE = (
    keras.layers.Dropout,
    keras.layers.GaussianDropout,
    keras.layers.GaussianNoise,
    keras.layers.AlphaDropout,
    ConcreteDropout,
    DropPath,
)
_MASKABLE = (keras.layers.Dense, keras.layers.EinsumDense, _keras.BaseConv, _keras.BaseDepthwiseConv)
_CELLS = (keras.layers.LSTMCell, keras.layers.GRUCell, keras.layers.SimpleRNNCell)
_NOT_KERNELS = ("bias", "embedding", "gamma", "beta", "alpha")


@dataclass(frozen=True)
class Site:
    """One place in one model where one technique has, or may be given, a strength.

    Args:
        technique: Name of the technique.
        path: Path of the variable or layer, such as `encoder/dense/kernel`; unique for the technique; empty for the `model`.
        kind: A `variable`, a layer's `output` (a penalty on it), a recurrent `cell`, a way `around` a layer, a `join` of
            branches, a `layer` that is the technique, `after` a layer, or the whole `model`.
        names: What a pattern without a slash is matched with: the layer, those around it, the one a dropout follows.
        given: Strength in the user's model, None where the technique is not there.
        default: Whether a key without a pattern, or a pattern over layer names, reaches it though nothing is given.
        rank: Number of axes of what a layer puts out, rows included, where it is known.
        share: What a key that names it and others gives it of the strength.
        data_format: Where what a layer puts out has its channels, where that is known.
    """

    technique: str
    path: str
    kind: Literal["variable", "output", "cell", "around", "join", "layer", "after", "model"]
    names: tuple[str, ...]
    given: float | None
    default: bool
    rank: int | None = None
    share: float = 1.0
    data_format: str | None = None

    @property
    def key(self) -> str:
        """The recipe key that reaches this site alone."""
        return self.technique if self.kind == "model" else f"{self.technique}@{self.path}"


def find_sites(model: Any) -> list[Site]:
    """Return every site of `model`, technique by technique, in the order of its layers."""
    hidden, branches = dict(_hidden(model, format_behind(model))), _branches(model)
    return [site for technique in CATALOGUE.values() for site in _sites(model, technique, hidden, branches)]


def _sites(
    model: Any, technique: Technique, hidden: Mapping[str, "_Hidden"], branches: Sequence[tuple[str, Any]]
) -> Iterator[Site]:
    if technique.refuses is not None and technique.refuses(model) is not None:
        return
    if technique.hook == "hidden" and not narrows(model):
        return
    if technique.reach == "model":
        given = technique.given(model) if technique.given is not None else None
        yield Site(technique.name, "", "model", (), given, True)
    elif technique.reach == "variables":
        yield from _variable_sites(model, technique)
    elif technique.reach == "outputs":
        yield from _output_sites(model, technique, hidden)
    elif technique.reach == "cells":
        for path, cell in _keras.walk(model):
            if type(cell) in technique.stock and cell.trainable:
                yield Site(
                    technique.name, path, "cell", tuple(path.split("/")), given_strength(technique, cell) or None, True
                )
    else:
        yield from _layer_sites(model, technique, hidden, branches)


def given_strength(technique: Technique, held: Any) -> float | None:
    """The strength of `technique` in an object of the user's model, stock or ours; None where it is another thing."""
    attribute = technique.stock.get(type(held))
    return None if attribute is None else as_number(technique.inside(float(getattr(held, attribute))))


def as_number(strength: Any) -> float:
    """A strength as the shortest number that is the same in single precision, in which Keras and we hold it."""
    return float(str(np.float32(float(strength))))


def _variable_sites(model: Any, technique: Technique) -> Iterator[Site]:
    optimizer = _keras.innermost(model.optimizer)
    if technique.hook == "decay" and _keras.decays_in_its_own_way(optimizer):
        return
    taken: set[str] = set()
    for path, layer in [("", model), *_keras.walk(model)]:
        for variable in _keras.own_variables(layer):
            name = f"{path}/{variable.name}".lstrip("/")
            while name in taken:
                name += "_"
            taken.add(name)
            if not variable.trainable:
                continue  # Keras takes no penalty of a frozen variable, and steps none
            kernel = _is_kernel(layer, variable)
            if technique.hook == "mask":
                if _has_mask(technique, layer, variable, kernel):
                    yield Site(technique.name, name, "variable", tuple(path.split("/")), None, True)
                continue
            if technique.hook == "penalty":
                given = given_strength(technique, variable.regularizer) or None
            elif technique.hook == "constraint":
                given = given_strength(technique, variable.constraint) or None
            elif technique.hook in ("anchor", "after"):
                given = None
            else:
                given = float(optimizer.weight_decay) if _keras.decays(optimizer, variable) else None
            yield Site(technique.name, name, "variable", tuple(path.split("/")), given, kernel)


def _has_mask(technique: Technique, layer: Any, variable: Any, kernel: bool) -> bool:
    if technique.variables == "kernels":
        return kernel and isinstance(layer, _MASKABLE)
    if technique.variables == "embeddings":
        return isinstance(layer, keras.layers.Embedding) and variable.name == "embeddings"
    return variable.name == "recurrent_kernel" and isinstance(layer, _CELLS)


def _is_kernel(layer: Any, variable: Any) -> bool:
    return (
        len(variable.shape) >= 2
        and not isinstance(layer, _NORMALIZATION)
        and not any(word in variable.name for word in _NOT_KERNELS)
    )


def _output_sites(model: Any, technique: Technique, hidden: Mapping[str, "_Hidden"]) -> Iterator[Site]:
    for path, layer in _keras.walk(model):
        after = hidden.get(path)
        data_format = None if after is None else after.data_format
        given = given_strength(technique, layer.activity_regularizer) or None
        if layer.trainable and (given or component(technique, _keras.output_rank(layer), data_format) is not None):
            default = after is not None and after.activation
            yield Site(technique.name, path, "output", tuple(path.split("/")), given, default)


def _layer_sites(
    model: Any, technique: Technique, hidden: Mapping[str, "_Hidden"], branches: Sequence[tuple[str, Any]]
) -> Iterator[Site]:
    attended = _keras.attention_dropouts(model)
    around = _skippable(model) if technique.hook == "around" else joins(model) if technique.hook == "join" else ()
    ends = {path: (n + 1) / len(branches) for n, (path, _) in enumerate(branches)}
    for path, layer in _keras.walk(model):
        if not layer.trainable:
            continue  # a frozen part stays as it was pretrained, its dropout too
        names, rank = tuple(path.split("/")), _keras.output_rank(layer)
        given = given_strength(technique, layer)
        if (technique.hook == "attention") != (path in attended):
            continue
        if given is not None:
            follows = [other.name for other in hidden.values() if layer in other.noise]
            given = given or None if technique.hook == "attention" else given  # each such layer holds one, most at 0
            yield Site(technique.name, path, "layer", (*names, *follows), given, True)
        elif technique.hook == "branch":
            if path in ends:
                yield Site(technique.name, path, "after", names, None, True, rank, ends[path])
        elif technique.hook in ("around", "join"):
            if path in around:
                yield Site(technique.name, path, technique.hook, names, None, True)
        elif path in hidden and not _is_there(technique, hidden[path].noise):
            data_format = hidden[path].data_format
            default = hidden[path].activation or isinstance(layer, technique.behind)
            default = default and not (technique.hook == "structure" and hidden[path].normalized)
            if component(technique, rank, data_format) is not None:
                yield Site(technique.name, path, "after", names, None, default, rank, data_format=data_format)


def component(technique: Technique, rank: int | None, data_format: str | None = None) -> type | None:
    """The class of `technique` that takes inputs of so many axes, with channels there, or None."""
    kind = next((kind for kind in technique.components if getattr(kind, "rank", rank) == rank), None)
    first = data_format == "channels_first"  # asked before signatures are read, which is slow
    return None if first and hasattr(kind, "rank") and not _arguments(kind, data_format) else kind


def _arguments(kind: Any, data_format: str | None) -> dict[str, Any]:
    """What tells a class of layers, of ours or of Keras's, where channels are, if it can be told that."""
    names = {name for base in kind.__mro__ for name in inspect.signature(base.__init__).parameters}
    if data_format is not None and "data_format" in names:
        return {"data_format": data_format}
    return {"axis": 1} if data_format == "channels_first" and "axis" in names else {}


def new_layer(kind: Any, site: Site, *strength: float, name: str) -> Any:
    """A layer of a class for a site, which knows where channels are there."""
    return kind(*strength, name=name, **_arguments(kind, site.data_format))


def component_at(site: Site, layer: Any = None) -> Any:
    """The class of ours that a site's technique puts in, or that takes the place of the `layer` which is there."""
    technique = CATALOGUE[site.technique]
    if layer is None:
        return component(technique, site.rank)
    return next(kind for kind in technique.components if isinstance(layer, kind) or issubclass(kind, type(layer)))


def _is_there(technique: Technique, noise: Sequence[Any]) -> bool:
    """Whether one of the layers does what `technique` would do, or as good as."""
    drops = issubclass(technique.components[0], keras.layers.Dropout)
    return any(
        given_strength(technique, layer) is not None or (drops and isinstance(layer, keras.layers.Dropout))
        for layer in noise
    )


def _branches(model: Any) -> list[tuple[str, Any]]:
    """The last layer of each residual branch, in the order of the blocks, with its path.

    A branch is what is added to something that it was computed from, or, where both were computed from the same, what
    has more weights on its way.
    """
    found: list[tuple[str, Any]] = []
    for sum_ in _sums(model):
        if not isinstance(sum_.layer, keras.layers.Add) or len(sum_.ends) != 2:
            continue
        first, second = sum_.kernels
        last = sum_.ends[int(second > first)]
        if first != second and sum_.leads_here_alone[int(second > first)] and last.trainable:
            found.append((sum_.prefix + last.name, last))
    return found


def joins(model: Any) -> dict[str, tuple[int, int]]:
    """Paths of the layers that join two residual branches, each with which of their inputs these are.

    Branches have as many kernels on their ways, and the third input, where there is one, fewer.
    """
    found: dict[str, tuple[int, int]] = {}
    for sum_ in _sums(model):
        if len(sum_.ends) > 3:
            continue
        *rest, first, second = sorted(range(len(sum_.ends)), key=sum_.kernels.__getitem__)
        most = sum_.kernels[first]
        alike = 0 < most == sum_.kernels[second] and all(sum_.kernels[other] < most for other in rest)
        if (
            alike
            and sum_.ways[first] & sum_.ways[second]
            and sum_.ends[first].trainable
            and sum_.ends[second].trainable
        ):
            found[sum_.prefix + sum_.layer.name] = (first, second)
    return found


@dataclass(frozen=True)
class _Sum:
    """A layer that adds up or averages what others put out.

    Args:
        prefix: Path of the model that it stands in.
        layer: It.
        ends: The layers whose outputs it takes.
        ways: For each of them, what it was computed by, as ids.
        kernels: For each of them, how many kernels are on its way and on that of no other.
        leads_here_alone: For each of them, whether nothing else takes its output.
    """

    prefix: str
    layer: Any
    ends: Sequence[Any]
    ways: Sequence[set[int]]
    kernels: Sequence[int]
    leads_here_alone: Sequence[bool]


def _sums(model: Any, prefix: str = "") -> Iterator[_Sum]:
    """The sums of a graph, and of graphs inside it, in the order of the blocks."""
    if not _keras.is_rebuildable(model) or not model.built:
        return
    before, behind = defaultdict(list), defaultdict(list)
    for first, second in _keras.edges(model):
        before[id(second)].append(first)
        behind[id(first)].append(id(second))
    ids = {key: [id(layer) for layer in layers] for key, layers in before.items()}
    ancestors = {id(layer): _reached([id(layer)], ids) for layer in model.layers}
    weights = {id(layer): sum(len(w.shape) >= 2 for w in layer.weights) for layer in model.layers}
    for layer in sorted(model.layers, key=lambda layer: len(ancestors[id(layer)])):
        if isinstance(layer, keras.Model) and layer.trainable:
            yield from _sums(layer, f"{prefix}{layer.name}/")
        ends = before[id(layer)]
        if not isinstance(layer, (keras.layers.Add, keras.layers.Average)) or len(ends) < 2:
            continue
        ways = [ancestors.get(id(end), set()) for end in ends]
        alone = [way.difference(*ways[:i], *ways[i + 1 :]) for i, way in enumerate(ways)]
        kernels = [sum(weights.get(key, 0) for key in way) for way in alone]
        yield _Sum(prefix, layer, ends, ways, kernels, [behind[id(end)] == [id(layer)] for end in ends])


def narrows(model: Any) -> list[str]:
    """Paths of the hidden activations that train and that all of a graph passes through, once."""
    hidden = dict(_hidden(model, lambda _: None))  # where channels are is of no matter
    return [path for path in _narrows(model) if path in hidden and hidden[path].activation]


def _skippable(model: Any) -> list[str]:
    """Paths of the layers with kernels and an activation around which nothing leads, and that put out what they could take."""
    layers = {"": model, **dict(_keras.walk(model))}

    def in_a_graph(path: str) -> bool:
        """A Sequential model becomes a graph, if that does not take a class of the user's from it."""
        kind = type(layers[path.rpartition("/")[0]])
        return kind is keras.Sequential or not issubclass(kind, keras.Sequential)

    alike = [path for path in narrows(model) if in_a_graph(path) and _keras.keeps_shape(layers[path])]
    return [path for path in alike if isinstance(layers[path], _MASKABLE)]


def _narrows(model: Any, prefix: str = "") -> Iterator[str]:
    if not _keras.is_rebuildable(model) or not model.built:
        return
    before = defaultdict(list)
    for first, second in _keras.edges(model):
        before[id(second)].append(id(first))
    before, ends = dict(before), [id(operation) for operation in _keras.ends(model)]
    for layer in model.layers:
        key, path = id(layer), prefix + layer.name
        around = _reached(ends, {k: v for k, v in before.items() if k != key}) - {key}
        once = len(before.get(key, ())) <= 1  # what is called several times takes several inputs
        if layer.trainable and once and all(k in before for k in around):
            yield path
            yield from _narrows(layer, f"{path}/")


@dataclass(frozen=True)
class _Hidden:
    """A layer of a graph after which a layer may be put in: kernels follow it."""

    name: str
    activation: bool
    data_format: str | None  # of what it puts out, where that is known
    noise: tuple[Any, ...]  # the layers like dropout on the way from it to the next layer with weights
    normalized: bool  # whether a normalization stands on that way, or on the one from the layer with weights before it


def _hidden(
    model: Any,
    behind_it: Callable[[Any], str | None],
    prefix: str = "",
    followed: bool = False,
    then: tuple[Any, ...] = (),
) -> Iterator[tuple[str, _Hidden]]:
    """Each layer of `model`, and of graphs inside it, that is not on the way to the output after the last kernel.

    `behind_it` says which format a layer's output has. For a graph inside another, `followed` says whether kernels follow it
    there, `then` which layers like dropout do.
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
    last = {id(operation) for operation in _keras.ends(model)}
    for layer in model.layers:
        key, path = id(layer), prefix + layer.name
        on_the_way = _reached(behind[key], {k: v for k, v in behind.items() if k not in weighted})
        noise = tuple(objects[k] for k in on_the_way if isinstance(objects[k], _NOISE))
        if last & ({key} | on_the_way - weighted):
            noise += then
        if key in hidden and not isinstance(layer, (keras.layers.InputLayer, *_NOISE)):
            back = _reached(
                [] if key in weighted else before[key], {k: v for k, v in before.items() if k not in weighted}
            )
            normalized = any(isinstance(objects[k], _NORMALIZATION) for k in on_the_way | back)
            yield path, _Hidden(layer.name, _is_activation(layer), behind_it(layer), noise, normalized)
        if isinstance(layer, keras.Model) and layer.trainable:
            yield from _hidden(layer, behind_it, f"{path}/", key in hidden, noise)


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


def variables_by_path(model: Any, layers: Mapping[str, Any]) -> dict[str, Any]:
    """The variables under the paths that sites have, also those that were frozen since these were found."""
    found: dict[str, Any] = {}
    for path, layer in [("", model), *layers.items()]:
        for variable in _keras.own_variables(layer):
            name = f"{path}/{variable.name}".lstrip("/")
            while name in found:
                name += "_"
            found[name] = variable
    return found


def resolve(strengths: Mapping[str, float | None], sites: Sequence[Site], model: Any) -> dict[str, float]:
    """Return the strength, as the training step computes with it, of every site that model or recipe give one, by its key.

    What the model gives comes first, then keys without a pattern, then patterns in their order, then exact names:
    the later takes the place of the earlier, and nothing is added up.

    Raises:
        ValueError: If a key reaches nothing, with what it could reach.
    """
    resolved = {site.key: site.given for site in sites if site.given is not None}
    by_key = {site.key: site for site in sites}
    for at, key in deciding(strengths, sites, model).items():
        name, _, pattern = key.partition("@")
        share = 1.0 if by_key[at].path == pattern else by_key[at].share
        resolved[at] = CATALOGUE[name].inside(strengths[key]) * share
    return resolved


def deciding(keys: Iterable[str], sites: Sequence[Site], model: Any) -> dict[str, str]:
    """Which of a recipe's keys decides on each site that they reach, by the site's key.

    Raises:
        ValueError: If a key reaches nothing, with what it could reach.
    """
    found: dict[str, str] = {}

    def rank(key: str) -> int:
        pattern = key.partition("@")[2]
        return 0 if "@" not in key else 1 if any(c in pattern for c in "*?[") else 2

    for key in sorted(keys, key=rank):
        name, at, pattern = key.partition("@")
        candidates = [site for site in sites if site.technique == name]
        reached = [site for site in candidates if _reaches(pattern if at else None, site)]
        if not reached:
            raise ValueError(_nothing_reached(key, candidates, model))
        found.update({site.key: key for site in reached})
    return found


def _reaches(pattern: str | None, site: Site) -> bool:
    """Whether a key with this pattern (None: without one) reaches the site."""
    usual = site.default or site.given is not None
    if site.kind == "model":
        return pattern is None
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
    if candidates and candidates[0].kind == "model":
        can = f"{name!r} acts on the whole training step: leave the pattern out."
    elif not candidates:
        can = f"No layer of this model can take {name!r}: {_why_none(CATALOGUE[name], model)}"
    else:
        can = f"What would match: layers {_listed(names)}; paths {_listed(paths)}."
        if CATALOGUE[name].hook == "layer":
            can += f" {name} goes behind hidden layers, not behind the output."
            can += "" if _keras.is_rebuildable(model) else f" Elsewhere: {_why_none(CATALOGUE[name], model)}"
    return f"Invalid value received for argument `recipe`. Key {key!r}: {what}. {can}"


def _why_none(technique: Technique, model: Any) -> str:
    why = technique.refuses(model) if technique.refuses is not None else None
    if why is not None:
        return why
    if technique.hook == "hidden":
        return "it has no hidden activation that all of a Functional or Sequential model passes through."
    if technique.hook == "decay" and _keras.decays_in_its_own_way(_keras.innermost(model.optimizer)):
        return f"its optimizer {type(model.optimizer).__name__} has a weight decay of its own, which stays as it is."
    if technique.reach == "variables":
        return (
            "it has no trainable variables (is it frozen?)."
            if technique.hook != "mask"
            else f"it has no trainable {technique.variables.replace('_', ' ')} that it could act on."
        )
    if technique.reach == "cells":
        return "it has no LSTM, GRU or SimpleRNN layer."
    if technique.hook == "attention":
        return "it has no MultiHeadAttention or GroupQueryAttention layer."
    if not _keras.is_rebuildable(model):
        return (
            f"to put a layer in, the `call` of {type(model).__name__} would have to be rewritten. "
            f"Give the model a {_layer_name(technique)} (a strength of 0 is enough) where it should act, or build the model "
            "as Functional or Sequential."
        )
    if technique.hook == "branch":
        return "it has no residual block: no keras.layers.Add of a branch and what the branch was computed from."
    if technique.hook == "around":
        return "it has no hidden layer that puts out as much as it takes, where no branch leads around it."
    if technique.hook == "join":
        return "it has no residual block of two branches: no keras.layers.Add of two with as many kernels each."
    if all(hasattr(kind, "rank") for kind in technique.components) and technique.components:
        first = any(getattr(layer, "data_format", None) == "channels_first" for _, layer in _keras.walk(model))
        return f"it has no hidden layer with space or time{', or has its channels first there' if first else ''}."
    return "it has no hidden layer, only an output."


def _layer_name(technique: Technique) -> str:
    kind = next(iter(technique.stock), None)
    if kind is None:
        return "layer of your own"
    return f"{'keras' if kind.__module__.startswith('keras.') else 'rg'}.layers.{kind.__name__}"


def _listed(names: Sequence[str], most: int = 12) -> str:
    shown = ", ".join(repr(n) for n in names[:most])
    return f"[{shown}{', …' if len(names) > most else ''}]"
