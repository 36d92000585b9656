"""What tells the question of one study from that of another: digests of data and model, the same in every process."""

import contextlib
import functools
import hashlib
import inspect
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from regularity import _keras
from regularity.data import Data
from regularity.recipe._writing import has_auto_name

_BASES = (keras.Layer, keras.Model, keras.Loss, keras.optimizers.Optimizer)
_DEEPEST = 8  # things in things that are looked into


def digest(parts: Sequence[Any]) -> str:
    """A name for some arrays and texts that others don't have."""
    found = hashlib.sha256()
    for part in parts:
        if part is None or isinstance(part, str):
            found.update(_without_addresses(repr(part)).encode())
        else:
            array = np.ascontiguousarray(part)
            found.update(f"{array.dtype}{array.shape}".encode())
            found.update(array.tobytes())
    return found.hexdigest()


def about(model: Any, data: Data, rows: Sequence[np.ndarray], init: str) -> dict[str, str]:
    """What a study is about: digests of its data, its model and the rows that folds train on and hold out."""
    weights = model.get_weights() if init == "keep" else kept_weights(model)
    return {
        "data": digest(keras.tree.flatten((data.x, data.y, data.sample_weight))),
        "model": digest([description(model), *weights]),
        "folds": digest(rows),
    }


def name_of(model: Any, question: Mapping[str, str]) -> str:
    """A name for a study that none of another question has."""
    stem = re.sub(r"_\d+$", "", model.name) if has_auto_name(model) else model.name  # built again it is counted up
    return f"{stem}-{digest([json.dumps(question)])[:8]}"


def kept_weights(model: Any) -> list[np.ndarray]:
    """The weights that fresh members start from too: frozen ones, and what layers such as `Normalization` were adapted to."""
    drawn = _keras.batch_statistics(model)
    return [np.asarray(w) for w in model.weights if not w.trainable and id(w) not in drawn]


def scorer(score: Any, name: str) -> str:
    """A text for a score: its name, or for a scorer of the user's what it computes."""
    return name if score is None or isinstance(score, str) else _without_addresses(f"{name} {_told(score)}")


def _told(value: Any, depth: int = 0) -> str:
    """What tells a function or a callable from others: where it stands, its code, and what it was made with."""

    def told(part: Any) -> str:
        return _told(part, depth + 1)

    if depth > _DEEPEST or isinstance(value, (type, keras.layers.Layer)):  # what holds itself, or counts up its names
        return getattr(value, "__qualname__", type(value).__qualname__)
    if isinstance(value, dict):
        return repr(sorted((str(key), told(item)) for key, item in value.items()))
    if isinstance(value, (list, tuple)):
        return repr([told(item) for item in value])
    if isinstance(value, (set, frozenset)):
        return repr(sorted(map(told, value)))
    if isinstance(value, np.ndarray):
        return digest([value])
    if isinstance(value, functools.partial):
        return f"partial {told([value.func, value.args, value.keywords])}"
    code = getattr(value, "__code__", None)
    if code is not None:
        text = f"{value.__module__}.{value.__qualname__} {digest([_code(code)])}"
        return " ".join([text, *map(told, _held(value))])
    if callable(value) and hasattr(value, "__dict__"):
        return f"{type(value).__qualname__} {told(vars(value))}"
    return repr(value)


def _code(code: Any) -> str:
    """What some code does, wherever it stands."""
    return repr((code.co_code, [_constant(part) for part in code.co_consts], code.co_names))


def _constant(value: Any) -> str:
    """A constant of some code; sets have another order in each process."""
    if hasattr(value, "co_code"):
        return _code(value)
    if isinstance(value, (tuple, frozenset)):
        parts = [_constant(part) for part in value]
        return repr(parts if isinstance(value, tuple) else sorted(parts))
    return repr(value)


def _held(function: Any) -> list[Any]:
    """What a function closes over and its defaults, of which others than numbers, texts and functions may change as it is called."""
    cells = []
    for cell in function.__closure__ or ():
        with contextlib.suppress(ValueError):  # nothing has been put in
            cells.append(cell.cell_contents)
    defaults = [*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]
    return [
        part if _is_fixed(part) and part is not function else type(part).__qualname__ for part in [*cells, *defaults]
    ]


def _is_fixed(value: Any) -> bool:
    """Whether a value says all of what it is, and does not change."""
    if isinstance(value, tuple):
        return all(map(_is_fixed, value))
    plain = (bool, int, float, complex, str, bytes, np.generic, np.ndarray, functools.partial)
    return value is None or isinstance(value, plain) or hasattr(value, "__code__")


def _without_addresses(text: str) -> str:
    return re.sub(r" object at 0x[0-9a-f]+| at 0x[0-9a-f]+", "", text)


@_keras.without_tensorflow()
def description(model: Any) -> str:
    """A text for what a model is, how its layers hang together and how it is trained.

    The names that Keras counts up as layers are made stand in it by their order, so that a model built twice is the same.
    """
    layers = [
        (type(layer).__name__, [w.shape for w in layer.weights], _config(layer)) for _, layer in _keras.walk(model)
    ]
    loss, config = _keras.compiled_loss(model), model._compile_config.config
    training = (_config(model.optimizer), _config(loss), config.get("loss_weights"))
    losses = keras.tree.flatten(config.get("loss"))
    own = [_code_of(kind) for kind in _keras.not_of_keras(model, "loss")]
    own += [[_told(loss)] for loss in losses if isinstance(loss, functools.partial)]
    whole = [layers, _config(model), training, own]
    numbers = {name: f"#{number}" for number, name in enumerate(dict.fromkeys(_names(whole)))}
    text = json.dumps(_renamed(whole, numbers), default=repr, sort_keys=True)
    return _without_addresses(text)


def _code_of(kind: Any) -> list[str]:
    """What a function of the user's does, or a class by its methods and constants; of Regularity's a version says that."""
    if not isinstance(kind, type):
        return [_told(kind)]
    known = {base for own in _BASES for base in own.__mro__}  # with what a backend has its layers made of
    packages = ("keras", "builtins", "regularity", "functools")
    found = []
    for base in kind.__mro__:
        if base in known or base.__module__.partition(".")[0] in packages:
            continue
        for name, part in sorted(vars(base).items()):
            for holder in ("__func__", "fget", "func"):  # of a class or static method, a property, a cached one
                part = getattr(part, holder, part)
            part = inspect.unwrap(part) if callable(part) else part
            if hasattr(part, "__code__") or (_is_fixed(part) and not name.startswith("__")):
                found.append(f"{base.__qualname__}.{name} {_told(part)}")
    return found


def _config(thing: Any) -> Any:
    """The configuration of a model, a layer or of losses; some of the user's own have none."""
    if isinstance(thing, dict):
        return {str(key): _config(item) for key, item in thing.items()}
    if isinstance(thing, (list, tuple)):
        return [_config(item) for item in thing]
    try:  # Keras's losses leave some of their arguments out
        return [keras.saving.serialize_keras_object(thing), _keras.loss_arguments(thing)]
    except Exception:  # from NotImplementedError to whatever a `get_config` of the user's raises
        return type(thing).__name__ if isinstance(thing, keras.layers.Layer) else repr(thing)


def _names(value: Any) -> Iterator[str]:
    """Names that Keras counted up; one that the user gave may be a key of a recipe."""
    if isinstance(value, dict):
        kind, config = value.get("class_name"), value.get("config")
        name = config.get("name") if isinstance(config, dict) else None
        if isinstance(name, str) and re.sub(r"_\d+$", "", name).replace("_", "") == str(kind).lower():
            yield name
        for item in value.values():
            yield from _names(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _names(item)


def _renamed(value: Any, numbers: dict[str, str]) -> Any:
    if isinstance(value, dict):
        left_out = ("shared_object_id", "build_config", "registered_name")
        return {
            numbers.get(str(key), str(key)): _renamed(item, numbers)
            for key, item in value.items()
            if key not in left_out
        }
    if isinstance(value, (list, tuple)):
        return [_renamed(item, numbers) for item in value]
    return numbers.get(value, value) if isinstance(value, str) else value
