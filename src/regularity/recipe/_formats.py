"""Where the channels are of what passes through a model: as its layers have it, of which each says so for itself."""

from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras

from regularity import _keras

# What may turn axes, layers and operations of `keras.ops`, and what is made of these: beyond it channels are elsewhere.
_TURNING = {"Permute", "Reshape", "Transpose", "Moveaxis", "Swapaxes", "Einsum", "Rearrange"}
# What has its units on the last axis, whatever it takes.
_UNITS_LAST = (
    keras.layers.Dense,
    keras.layers.EinsumDense,
    keras.layers.Embedding,
    keras.layers.RNN,
    keras.layers.Bidirectional,
    keras.layers.MultiHeadAttention,
    keras.layers.GroupQueryAttention,
    keras.layers.TimeDistributed,
)


def format_behind(model: Any) -> Callable[[Any], str | None]:
    """From a layer of a graph to the `data_format` of what it puts out, that of the nearest layer before it that has one."""
    before: dict[int, list[Any]] = defaultdict(list)
    for first, second in _pairs(model):
        before[id(second)].append(first)

    def found(layer: Any) -> str | None:
        axes = _keras.output_rank(layer)
        return _nearest(
            _last(layer), before, axes, lambda each: _keras.output_rank(each) == axes and not _in_time(each)
        )

    return found


def channels_first(model: Any, x: Any) -> Any:
    """Of each array of what a model is given, in the same structure, whether its channels come first.

    As the first layers say that take it, or other arrays of as many axes; else as Keras's setting says of images, and last of
    sequences.
    """
    behind: dict[int, list[Any]] = defaultdict(list)
    for first, second in _pairs(model):
        behind[id(first)].append(second)
    by_setting = keras.config.image_data_format()
    inputs = list(zip(model.inputs, _keras.starts(model), strict=False)) if _is_graph(model) else []
    said = {}
    for tensor, start in inputs:
        axes = len(tensor.shape)
        said[tensor.name] = (axes, _nearest(_first(start), behind, axes, _means_its_format))

    def first_in(a: Any, by_its_layers: tuple[int, str | None]) -> bool:
        axes, format_ = by_its_layers
        if axes != len(a.shape) or format_ is None:
            others = {other for axes, other in said.values() if axes == len(a.shape)} - {None}
            format_ = others.pop() if len(others) == 1 else by_setting if len(a.shape) > 3 else None
        return format_ == "channels_first" and len(a.shape) > 2

    leaves, unknown = keras.tree.flatten(x), (0, None)
    if isinstance(x, dict) and x.keys() <= said.keys():
        return {name: first_in(a, said[name]) for name, a in x.items()}
    each = list(said.values()) if len(said) == len(leaves) else [unknown] * len(leaves)
    return keras.tree.pack_sequence_as(x, [first_in(a, one) for a, one in zip(leaves, each, strict=True)])


def _nearest(
    start: Sequence[Any], graph: Mapping[int, Sequence[Any]], axes: int | None, counts: Callable[[Any], bool]
) -> str | None:
    """The format of the nearest layer that has one and counts, seen through those that put out as many axes, in place."""
    seen, queue = set(), deque(start)
    while queue:
        layer = queue.popleft()
        if id(layer) in seen:
            continue
        seen.add(id(layer))
        if getattr(layer, "data_format", None) is not None and counts(layer):
            return layer.data_format
        if _keras.output_rank(layer) == axes and _leaves_axes(layer):
            queue.extend(graph.get(id(layer), ()))
    return None


def _means_its_format(layer: Any) -> bool:
    """Whether its format is of the axes after the rows of what it takes; that of flattening is Keras's setting, seldom asked."""
    return not isinstance(layer, (keras.layers.Flatten, keras.layers.RNN))


def _in_time(layer: Any) -> bool:
    """Whether time comes before the channels of what it puts out, as behind a convolution in a recurrence."""
    return isinstance(layer, keras.layers.RNN) and layer.return_sequences


def _leaves_axes(layer: Any) -> bool:
    """Whether it leaves axes in their places; of what is the user's own that is known where it puts out the shape it takes."""
    if isinstance(layer, _UNITS_LAST) or _TURNING & {kind.__name__ for kind in type(layer).__mro__}:
        return False
    known = _keras.is_of_keras(layer) or type(layer).__module__.startswith("regularity.")
    return (known and not isinstance(layer, keras.layers.Lambda)) or _keras.keeps_shape(layer)


def _pairs(model: Any) -> Iterator[tuple[Any, Any]]:
    """Each pair of operations of which the second takes the first's output, of a graph and those inside it as of one."""
    for graph in (model, *(layer for _, layer in _keras.walk(model))):
        for before, after in _keras.edges(graph) if _is_graph(graph) else ():
            yield from ((first, second) for first in _last(before) for second in _first(after))


def _first(layer: Any) -> list[Any]:
    return [first for start in _keras.starts(layer) for first in _first(start)] if _is_graph(layer) else [layer]


def _last(layer: Any) -> list[Any]:
    return [last for end in _keras.ends(layer) for last in _last(end)] if _is_graph(layer) else [layer]


def _is_graph(layer: Any) -> bool:
    return isinstance(layer, keras.Model) and layer.built and _keras.is_rebuildable(layer)
