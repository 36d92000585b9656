"""A user's data, in any of the forms that Keras takes, as NumPy arrays; checked before anything compiles."""

import numbers
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import pandas as pd

from regularity import _keras


@dataclass(frozen=True)
class Data:
    """Rows to train or score on.

    Args:
        x: An array of (rows, ...), or a dict or list of them.
        y: Likewise; None where the model's loss needs no targets.
        sample_weight: Weights of (rows,), likewise, or None.
    """

    x: Any
    y: Any = None
    sample_weight: Any = None

    @property
    def rows(self) -> int:
        return len(_leaves(self.x, "x")[0][1])

    def batch(self) -> tuple[Any, ...]:
        """The data as Keras's `train_step` takes them: `(x, y)` or `(x, y, sample_weight)`."""
        return (self.x, self.y) if self.sample_weight is None else (self.x, self.y, self.sample_weight)

    def take(self, rows: Any) -> "Data":
        """The given rows, an index or a slice."""
        return Data(*(each(lambda a: a[rows], part) for part in (self.x, self.y, self.sample_weight)))


def each(function: Callable[..., Any], *trees: Any) -> Any:
    """Apply a function to the arrays of nested dicts and lists of one structure; None stays None."""
    first = trees[0]
    if isinstance(first, dict):
        return {key: each(function, *(tree[key] for tree in trees)) for key in first}
    if isinstance(first, (list, tuple)):
        return [each(function, *items) for items in zip(*trees, strict=True)]
    return None if first is None else function(*trees)


def is_stream(x: Any) -> bool:
    """Whether `x` gives batches by itself: a PyDataset, a tf.data.Dataset, a torch DataLoader or a generator."""
    if isinstance(x, keras.utils.PyDataset):
        return True
    kinds = {f"{c.__module__.partition('.')[0]}.{c.__name__}" for c in type(x).__mro__}
    return bool(kinds & {"tensorflow.DatasetV2", "torch.DataLoader", "grain.DataLoader", "grain.MapDataset"}) or (
        isinstance(x, Iterator)
    )


def to_data(model: Any, x: Any, y: Any, sample_weight: Any = None, class_weight: Any = None, name: str = "") -> Data:
    """Convert and check a user's arrays for `model`.

    Args:
        model: The compiled model that is to take them.
        x: Arrays, data frames or tensors of any backend, or a dict or list of them.
        y: Likewise.
        sample_weight: Weights of rows, or None.
        class_weight: Mapping from class to weight, `balanced`, or None; not together with `sample_weight`, as in Keras.
        name: What to call the arguments in errors, such as `validation_data`; empty for `x` and `y` themselves.

    Raises:
        ValueError: If rows are missing, differ in number or hold NaN, shapes don't fit the model, or labels are out
            of range; with what was given and what was expected.
        TypeError: If a value can't be read as an array of numbers.
    """
    prefix = f"{name}: " if name else ""
    data = Data(
        _tree(x, f"{prefix}x"),
        None if y is None else _tree(y, f"{prefix}y"),
        None if sample_weight is None else _tree(sample_weight, f"{prefix}sample_weight"),
    )
    _check_rows(data, prefix)
    _check_finite(data, prefix)
    _check_inputs(model, data.x, f"{prefix}x")
    _check_targets(model, data.y, f"{prefix}y")
    if class_weight is None:
        return data
    if sample_weight is not None:
        raise ValueError(
            "Expected `sample_weight` or `class_weight`, not both. Multiply the class weights into `sample_weight`."
        )
    return Data(data.x, data.y, class_weights(model, data.y, class_weight))


def to_inputs(model: Any, x: Any) -> Any:
    """Convert and check what a model takes, without targets; as `to_data` does, and raising the same."""
    data = Data(_tree(x, "x"))
    _check_rows(data, "")
    _check_finite(data, "")
    _check_inputs(model, data.x, "x")
    return data.x


_ENDLESS = -1  # what tf.data gives as the number of batches of a stream that repeats for ever


class Batches(keras.utils.PyDataset):
    """A stream that was read to its end, to be read again."""

    def __init__(self, batches: list[Data]) -> None:
        super().__init__()
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        return self.batches[index].batch()


def stream_batches(stream: Any) -> Iterator[Data]:
    """The batches of one pass through a stream, as NumPy."""
    # an iterator gives its batches once, and Keras would read some of them to see what they are
    found = (
        map(keras.utils.unpack_x_y_sample_weight, stream)
        if isinstance(stream, Iterator)
        else _keras.numpy_batches(stream)
    )
    for batch in found:
        yield Data(*(each(lambda a: _in_range(np.asarray(a)), part) for part in batch))


def check_ends(stream: Any) -> None:
    """See that a stream does not repeat for ever, where it tells: an epoch is one pass through it.

    Raises:
        ValueError: If it does.
    """
    count = stream.cardinality() if hasattr(stream, "cardinality") else 0
    endless = int(getattr(count, "numpy", lambda: count)()) == _ENDLESS
    if isinstance(stream, keras.utils.PyDataset):
        try:
            endless = stream.num_batches is None
        except NotImplementedError:  # nor does it say that it ends
            endless = True
    if endless:
        raise ValueError(
            "Expected a stream that ends, since an epoch is one pass through it. Received: one that repeats without end. "
            "Leave out `.repeat()`, bound it with `.take(batches)`, or give a PyDataset its `__len__`."
        )


def kept(stream: Any) -> Batches:
    """All batches of one pass through a stream.

    Raises:
        ValueError: If there is none, or if they never end or fill half of the memory of this machine.
    """
    check_ends(stream)
    batches, room = [], _memory() // 2
    for batch in stream_batches(stream):
        batches.append(batch)
        room -= sum(a.nbytes for part in batch.batch() for _, a in _leaves(part, ""))
        if room < 0:
            raise ValueError(
                "Expected a stream that ends and fits into memory, since it is read once and kept. Received: one that had "
                f"filled half of the memory after {len(batches)} batches. Bound it, for example with itertools.islice."
            )
    if not batches:
        raise ValueError(
            "Expected a stream with at least one batch. Received one that is empty (is it a generator that ran out?)."
        )
    return Batches(batches)


def _memory() -> int:
    """Bytes of memory of this machine; a generous number where the system does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return 2**36


def gather(stream: Any) -> Data:
    """All rows of one pass through a stream."""
    batches = kept(stream).batches
    parts = [[getattr(b, part) for b in batches] for part in ("x", "y", "sample_weight")]
    shapes = {str([np.shape(leaf)[1:] for leaf in keras.tree.flatten((b.x, b.y))]): None for b in batches}
    if len(shapes) > 1:
        raise ValueError(
            "Expected batches whose rows have one shape, where all rows of a stream are read into memory. Received: "
            f"{' and '.join(list(shapes)[:2])}. Pad them to one length, as `keras.utils.pad_sequences` does."
        )
    return Data(*(each(lambda *a: np.concatenate(a), *p) for p in parts))


def _tree(value: Any, name: str) -> Any:
    if isinstance(value, Mapping):
        return {key: _tree(item, f"{name}[{key!r}]") for key, item in value.items()}
    if isinstance(value, (list, tuple)) and value and not np.isscalar(value[0]) and hasattr(value[0], "shape"):
        return [_tree(item, f"{name}[{i}]") for i, item in enumerate(value)]
    return _array(value, name)


def _array(value: Any, name: str) -> np.ndarray:
    if hasattr(value, "toarray"):
        raise TypeError(
            f"Expected {name} to be a dense array. Received: a sparse {type(value).__name__} of shape {value.shape}. "
            f"Pass {name.rpartition(': ')[2]}.toarray()."
        )
    frame = hasattr(value, "to_numpy")  # asked first: the columns of a frame are attributes too, whatever their names
    for attribute in () if frame else ("detach", "cpu"):  # a torch tensor that takes gradients, or is on an accelerator
        value = getattr(value, attribute)() if hasattr(value, attribute) else value
    if str(getattr(value, "dtype", "")).endswith("bfloat16"):  # which NumPy has no numbers of
        value = value.float() if hasattr(value, "float") else np.asarray(value).astype("float32")
    convert = value.to_numpy if frame else getattr(value, "numpy", None)
    try:
        array = np.asarray(convert() if convert else value)
    except (TypeError, ValueError) as error:
        if "inhomogeneous" in str(error):
            raise _ragged(name, value) from None
        raise TypeError(
            f"Expected {name} to be an array of numbers. Received: {type(value).__name__} ({error})"
        ) from None
    if array.dtype.kind == "O":  # such as pandas's integers that may be missing
        missing = pd.isna(array)
        try:
            array = np.asarray(np.where(missing, np.nan, array).tolist() if missing.any() else array.tolist())
        except ValueError:
            raise _ragged(name, array) from None
    if array.dtype.kind not in "fiub":
        columns = getattr(value, "dtypes", None)
        text = (
            ""
            if columns is None or not hasattr(columns, "items")
            else f" in {[c for c, t in columns.items() if t.kind not in 'fiub']}"
        )
        raise TypeError(
            f"Expected {name} to hold numbers. Received: {array.dtype}{text}. Encode categories and text as numbers first, "
            "for example with sklearn.preprocessing.LabelEncoder or OneHotEncoder."
        )
    if array.ndim == 0:
        raise ValueError(f"Expected {name} to have rows. Received: the single number {array}")
    if array.dtype.kind == "f":
        return array.astype(keras.config.floatx())
    return array.astype("int32") if (array := _in_range(array)).dtype in (np.int64, np.uint64, np.uint32) else array


def _in_range(array: np.ndarray) -> np.ndarray:
    """Whole numbers beyond int32 as floats: a backend would wrap them silently."""
    if array.dtype not in (np.int64, np.uint64, np.uint32) or not array.size:
        return array
    limits = np.iinfo("int32")
    fits = int(array.min()) >= limits.min and int(array.max()) <= limits.max
    return array if fits else array.astype(keras.config.floatx())


def _ragged(name: str, value: Any) -> ValueError:
    lengths = sorted({len(row) if hasattr(row, "__len__") else 1 for row in value})
    return ValueError(
        f"Expected {name} to have rows of one shape. Received: rows of different shapes"
        f"{f', of lengths from {lengths[0]} to {lengths[-1]}' if len(lengths) > 1 else ''}. Pad them, for example with "
        "keras.utils.pad_sequences."
    )


def _leaves(tree: Any, name: str) -> list[tuple[str, np.ndarray]]:
    if isinstance(tree, dict):
        return [leaf for key, item in tree.items() for leaf in _leaves(item, f"{name}[{key!r}]")]
    if isinstance(tree, list):
        return [leaf for i, item in enumerate(tree) for leaf in _leaves(item, f"{name}[{i}]")]
    return [] if tree is None else [(name, tree)]


def _check_rows(data: Data, prefix: str) -> None:
    leaves = [leaf for part in ("x", "y", "sample_weight") for leaf in _leaves(getattr(data, part), f"{prefix}{part}")]
    counts = {name: len(array) for name, array in leaves}
    if len(set(counts.values())) > 1:
        raise ValueError(
            f"Expected the same number of rows everywhere. Received: {', '.join(f'{n} with {c}' for n, c in counts.items())}"
        )
    if not all(counts.values()):
        raise ValueError(f"Expected at least one row. Received: {next(iter(counts))} with none.")


def _check_finite(data: Data, prefix: str) -> None:
    for part in ("x", "y", "sample_weight"):
        for name, array in _leaves(getattr(data, part), f"{prefix}{part}"):
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                bad = ~np.isfinite(array.reshape(len(array), -1)).all(1)
                raise ValueError(
                    f"Expected {name} to be finite. Received: NaN or infinity in {bad.sum()} of {len(array)} rows, the first in "
                    f"row {int(bad.argmax())}. Fill or drop them, for example with sklearn.impute.SimpleImputer."
                )


def _check_inputs(model: Any, x: Any, name: str) -> None:
    inputs = getattr(model, "inputs", None)
    if not inputs:
        return  # a subclassed model does not say what it takes
    if isinstance(x, dict):
        given = None if isinstance(model, keras.Sequential) else model.input
        named = given if isinstance(given, dict) else {t.name: t for t in inputs}
        missing = [key for key in named if key not in x]
        if missing:
            raise ValueError(
                f"Expected {name} to have the inputs {list(named)}. Received: {list(x)}; {missing} missing."
            )
        pairs = [(f"{name}[{key!r}]", tuple(t.shape), x[key]) for key, t in named.items()]
    else:
        leaves = _leaves(x, name)
        if len(leaves) != len(inputs):
            raise ValueError(
                f"Expected {name} to have {len(inputs)} input(s), as the model has. Received: {len(leaves)}."
            )
        pairs = [(label, tuple(t.shape), array) for (label, array), t in zip(leaves, inputs, strict=True)]
    for label, shape, array in pairs:
        if not _fits(array.shape, shape):
            raise ValueError(
                f"Expected {label} of shape {_rows_of(shape)}, as the model takes. Received: shape {array.shape}."
            )


def _fits(given: tuple[int, ...], shape: tuple[int | None, ...]) -> bool:
    """Whether an array fits a tensor but for the number of rows; as in Keras a last axis of 1 may be there or not."""
    found, expected = given[1:], shape[1:]
    if len(found) > len(expected) and found[-1] == 1:
        found = found[:-1]
    elif len(found) < len(expected) and expected[-1] == 1:
        expected = expected[:-1]
    return len(found) == len(expected) and all(e is None or e == f for e, f in zip(expected, found, strict=True))


def _rows_of(shape: tuple[int | None, ...]) -> str:
    return f"(rows, {', '.join('any' if s is None else str(s) for s in shape[1:])})"


def _check_targets(model: Any, y: Any, name: str) -> None:
    if y is None:
        if not _trains_its_own_way(model) and model._compile_config.config.get("loss") is not None:
            raise ValueError(f"Expected {name}, since the model was compiled with a loss. Received: None.")
        return
    if not _has_loss(model):
        raise ValueError(
            "Invalid value received for argument `model`. Expected a model compiled with a loss, to train towards "
            f"{name}. Received: {model.name!r}, compiled without. Compile it with one, for example: "
            "model.compile(optimizer='adam', loss='mse'); or pass y=None if its layers add their losses themselves."
        )
    for label, array, loss, shape in _outputs(model, y, name):
        kind = _keras.loss_name(loss)
        if kind in _SPREADING and shape and not _fits(array.shape, shape):
            raise ValueError(
                f"Expected {label} of shape {_rows_of(shape)}, as the model puts out. Received: shape {array.shape}."
            )
        if kind == "binary_crossentropy" and not (array.min() >= 0 and array.max() <= 1):
            raise ValueError(
                f"Expected {label} from 0 to 1, for the loss {kind}. Received: values from {array.min()} to {array.max()}."
            )
        if "sparse_categorical" in kind and shape and isinstance(shape[-1], int):
            if array.dtype.kind == "f" and not (array == np.round(array)).all():
                raise ValueError(
                    f"Expected {label} to hold classes as whole numbers, for the loss {kind}. Received: {array.dtype} with fractions."
                )
            labels = array[array != getattr(loss, "ignore_class", None)]
            low, high = (int(labels.min()), int(labels.max())) if labels.size else (0, 0)
            if low < 0 or high >= shape[-1]:
                raise ValueError(
                    f"Expected {label} to hold classes from 0 to {shape[-1] - 1}, since the model puts out {shape[-1]}. "
                    f"Received: classes from {low} to {high}."
                )
            if array.ndim == len(shape) and array.shape[-1] == shape[-1] and shape[-1] > 1:
                raise ValueError(
                    f"Expected {label} to hold classes as whole numbers, for the loss {kind}. Received: shape {array.shape}, which "
                    "looks one-hot; compile with 'categorical_crossentropy' or pass y.argmax(-1)."
                )
        elif kind.startswith("categorical") and shape and (array.ndim != len(shape) or array.shape[-1] != shape[-1]):
            raise ValueError(
                f"Expected {label} one-hot, of shape (rows, {shape[-1]}), for the loss {kind}. Received: shape {array.shape}; "
                "compile with 'sparse_categorical_crossentropy' or pass keras.utils.to_categorical(y)."
            )


def _trains_its_own_way(model: Any) -> bool:
    return any(
        getattr(type(model), method) is not getattr(keras.Model, method) for method in ("train_step", "compute_loss")
    )


def _has_loss(model: Any) -> bool:
    """Whether there is anything to train towards: a loss of `compile`, or what the model or its layers bring."""
    if _trains_its_own_way(model) or model._compile_config.config.get("loss") is not None:
        return True
    return any(
        "add_loss" in type(layer).call.__code__.co_names for layer in model._flatten_layers() if _is_plain(layer)
    )


def _is_plain(layer: Any) -> bool:
    return hasattr(getattr(type(layer), "call", None), "__code__")


def _outputs(model: Any, y: Any, name: str) -> list[tuple[str, np.ndarray, Any, tuple[int | None, ...] | None]]:
    """Each target with its label in errors, its loss and the shape that the model puts out, where known."""
    leaves = _leaves(y, name)
    try:
        outputs = [tuple(t.shape) for t in model.outputs]
        names = [t._keras_history.operation.name for t in model.outputs]
    except (AttributeError, TypeError):
        return []
    if len(outputs) != len(leaves):
        return []
    losses = _keras.compiled_loss(model)
    puts_out = getattr(model, "output", None)
    # keys of a dict in Keras's order
    named = keras.tree.flatten({key: key for key in puts_out}) if isinstance(puts_out, dict) else names
    by_name = isinstance(y, dict) and len(named) == len(set(named)) and set(y) == set(named)
    order = [named.index(key) for key in y] if by_name else list(range(len(outputs)))
    outputs = [outputs[place] for place in order]
    if isinstance(losses, dict):
        picked = [losses.get(key) for key in (y if isinstance(y, dict) else names)]
    elif isinstance(losses, (list, tuple)):
        picked = [losses[place] for place in order] if len(losses) == len(order) else list(losses)
    else:
        picked = [losses] * len(leaves)
    return [(n, a, loss, shape) for (n, a), loss, shape in zip(leaves, picked, outputs, strict=False)]


# Losses for which Keras spreads targets of another shape over the outputs, silently.
_SPREADING = (
    "mse", "mean_squared_error", "mae", "mean_absolute_error", "mape", "mean_absolute_percentage_error",
    "msle", "mean_squared_logarithmic_error", "huber", "huber_loss", "log_cosh", "logcosh", "poisson", "binary_crossentropy",
)  # fmt: skip


def class_weight_of(data: Data) -> dict[int, float] | None:
    """The weight of each class, where what rows weigh is a matter of their class alone; else None."""
    y, weight = data.y, data.sample_weight
    if not isinstance(y, np.ndarray) or not isinstance(weight, np.ndarray) or weight.ndim != 1:
        return None
    labels = _class_of(y)
    if labels.ndim > 1 or (labels != np.round(labels)).any() or labels.min() < 0:
        return None
    found = {int(label): weight[labels == label] for label in np.unique(labels)}
    if len(found) < 2 or any(np.ptp(own) for own in found.values()):
        return None
    return {label: float(own[0]) for label, own in found.items()}


def _class_of(y: np.ndarray) -> np.ndarray:
    """The number of each row's class, of whole numbers or one-hot."""
    return y if y.ndim == 1 else y[..., 0] if y.shape[-1] == 1 else y.argmax(-1)


def class_weights(model: Any, y: Any, class_weight: Any, of: Any = None) -> np.ndarray:
    """The weight of each row by the class of its target, as Keras counts: 1 for a class without one.

    Args:
        model: What is trained.
        y: Targets of the rows.
        class_weight: Mapping from class to weight, or `balanced`.
        of: Targets of other rows, whose classes may have weights too.

    Raises:
        ValueError: If there are several outputs, a key is no class or a weight no number.
        TypeError: If `class_weight` is neither a mapping nor `balanced`.
    """
    if not isinstance(class_weight, Mapping) and not (isinstance(class_weight, str) and class_weight == "balanced"):
        raise TypeError(
            "Invalid value received for argument `class_weight`. Expected a mapping from class to weight, such as "
            f"{{0: 1.0, 1: 5.0}}, or 'balanced'. Received: class_weight={class_weight!r:.200}"
        )
    if y is None or isinstance(y, (dict, list)):
        raise ValueError(
            "Expected `class_weight` only for a model with a single output, as in Keras. Use `sample_weight`."
        )
    labels, shapes = _class_of(y), [shape for *_, shape in _outputs(model, y, "y")]
    if labels.ndim > 1 or (y.ndim > 1 and y.shape[-1] > 1 and any(shape and len(shape) > 2 for shape in shapes)):
        raise ValueError(
            f"Expected one class for each row where there is a `class_weight`. Received: y of shape {y.shape}. Use "
            "`sample_weight`."
        )
    if not isinstance(class_weight, Mapping):
        from sklearn.utils.class_weight import compute_sample_weight

        if (labels != np.round(labels)).any():
            raise ValueError(
                "Expected targets that are classes where class_weight='balanced'. Received: y with fractions. Use "
                "`sample_weight`."
            )
        return compute_sample_weight("balanced", labels).astype(keras.config.floatx())
    labels = np.round(labels).astype("int64")
    wide = [shape[-1] for shape in shapes if shape and isinstance(shape[-1], int)]
    known = labels if of is None else np.concatenate([labels, np.round(_class_of(of)).astype("int64")])
    classes = {*np.unique(known).tolist(), *range(max([2, *wide]))}
    unknown = [key for key in class_weight if key not in classes]
    if unknown:
        raise ValueError(
            f"Invalid value received for argument `class_weight`. Expected classes of {sorted(classes)!r:.200} as keys. "
            f"Received: the keys {unknown!r:.200}. Name each class by its whole number in y."
        )
    for key, weight in class_weight.items():
        if not isinstance(weight, numbers.Real) or not 0 <= float(weight) < float("inf"):
            raise ValueError(
                "Invalid value received for argument `class_weight`. Expected numbers from 0 as weights. "
                f"Received: {weight!r} for the class {key!r}."
            )
    return np.array([class_weight.get(label, 1.0) for label in labels.tolist()], keras.config.floatx())
