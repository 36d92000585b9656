"""Keras objects and models as Python source that makes them anew."""

import builtins
import inspect
import keyword
import math
import re
import sys
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from types import MappingProxyType
from typing import Any

import keras
import numpy as np

from regularity import _keras, layers, regularizers
from regularity.recipe._layout import WIDTH, Group, Parts, Tuple, laid_out
from regularity.recipe._sites import as_number

# Where a class or function is at home: those of layers are imported by name, others with their module.
_HOMES: dict[str, Any] = {
    "layers": keras.layers,
    "regularizers": keras.regularizers,
    "initializers": keras.initializers,
    "constraints": keras.constraints,
    "optimizers": keras.optimizers,
    "optimizers.schedules": keras.optimizers.schedules,
    "losses": keras.losses,
    "metrics": keras.metrics,
    "activations": keras.activations,
    "ops": keras.ops,
    "dtype_policies": keras.dtype_policies,
    "keras": keras,
    "rg.layers": layers,
    "rg.regularizers": regularizers,
}
_TAKEN = (
    "x",
    "y",
    "sample_weight",
    "model",
    "recipe",
    "optimizer",
    "keras",
    "rg",
    *(name.partition(".")[0] for name in _HOMES),
)


class Writer:
    """Statements that make Keras objects and models, and what they import.

    Args:
        model: The model that will be written, which decides what is used several times and so gets a variable.
        keep: Whether the name of a layer or model is written.
    """

    def __init__(self, model: Any, keep: Callable[[Any], bool]) -> None:
        self.lines: list[str] = []
        self._modules = {"rg"}  # that may stand before a dot
        self._layers: set[str] = set()
        self._yours: dict[str, str] = {}  # what imports or announces a class or function of the user's, by its name
        self._keep = keep
        self._variables: dict[int, str] = {}  # of layers, models and symbolic tensors, by id
        self._taken = set(_TAKEN)
        self._frozen = False
        self._counted: dict[
            int, Any
        ] = {}  # models whose calls are in `uses`; held, so that no other thing gets their ids
        self._uses = Counter(id(layer) for layer in _uses(model, self._counted))

    @property
    def header(self) -> list[str]:
        """The imports, sorted, and what the reader has to bring along."""
        text = "\n".join(self.lines)
        used = [root for root in sorted(self._modules - {"keras"}) if re.search(rf"(?<![\w.]){root}\.", text)]
        for name in self._yours:
            if name in self._layers or name in self._taken:
                raise ValueError(cannot(f"your {name!r}", "the program needs this name for another thing; rename it"))
        lines = ["import keras"]
        if "rg" in used:
            lines.append("import regularity as rg")
        for package, names in (
            ("keras", [root for root in used if root != "rg"]),
            ("keras.layers", _sorted(self._layers)),
        ):
            line = f"from {package} import {', '.join(names)}"
            if len(line) > WIDTH:
                line = f"from {package} import (\n" + "".join(f"    {name},\n" for name in names) + ")"
            if names:
                lines.append(line)
        yours = sorted(self._yours.values())
        imports = [line for line in yours if not line.startswith("#")]
        notes = [line for line in yours if line.startswith("#")]
        return [*lines, *([""] if imports else []), *imports, *([""] if notes else []), *notes]

    def write(self, *parts: str | Group) -> None:
        """Add a statement."""
        self.lines.append(laid_out(parts))

    # -- models --------------------------------------------------------------------------------------------------------

    def model(self, model: Any, variable: str | None = None) -> str:
        """Write the statements that build a Sequential or Functional model, those inside it before it; return its variable."""
        if id(model) in self._variables:
            return self._variables[id(model)]
        self._uses.update(id(layer) for layer in _uses(model, self._counted))  # of one inside a wrapper
        around, self._frozen = self._frozen, self._frozen or not model.trainable
        (self._sequential if isinstance(model, keras.Sequential) else self._functional)(model, variable)
        self._frozen = around
        if not model.trainable and not around:
            self.write(f"{self._variables[id(model)]}.trainable = False")
        self.lines.append("")
        return self._variables[id(model)]

    def _sequential(self, model: Any, variable: str | None) -> None:
        expressions = [self._layer(layer) for layer in model.layers]
        variable = self._name(model, variable)
        self.write(f"{variable} = ", *self._call(self._class(model, keras.Sequential), self._named(model)))
        first = _keras.input_layer(model)
        if first is not None:
            self.write(f"{variable}.add", Group([self._input(first)]))
        for expression in expressions:
            self.write(f"{variable}.add", Group([expression]))

    def _functional(self, model: Any, variable: str | None) -> None:
        calls = _keras.graph_calls(model)
        for operation, *_ in calls:
            if _is_written_out(operation):
                self.model(operation)
        inputs, outputs = _keras.graph_structure(model)
        several = len(model.inputs) > 1
        for n, tensor in enumerate(model.inputs):
            stem = f"input_{n + 1}" if several else "inputs"
            named = not has_auto_name(tensor._keras_history.operation)
            self._variables[id(tensor)] = self._unique(tensor.name if named else stem)
            self.write(f"{self._variables[id(tensor)]} = ", *self._input(tensor))
        for operation, args, kwargs, puts_out in calls:
            expression = self._operation(operation, args, kwargs)
            structure = _output_structure(operation, args, kwargs, puts_out)
            self.write(f"{self._unpacked(operation, structure)} = ", *expression)
        ends = [self.value(inputs), self.value(outputs), *self._named(model)]
        self.write(f"{self._name(model, variable)} = ", *self._call(self._class(model, keras.Model), ends))

    def _class(self, model: Any, of_keras: type) -> str:
        return f"keras.{of_keras.__name__}" if _keras.is_of_keras(model) else self.reference(type(model))

    def _named(self, model: Any) -> list[Parts]:
        return [("name=", _text(model.name))] if self._keep(model) else []

    def _unpacked(self, operation: Any, structure: Any) -> str:
        """The variables to which an operation's output is assigned, as its caller sees it."""
        stem = self._stem(operation)
        if isinstance(structure, (list, tuple)) and all(map(_keras.is_symbolic, structure)):
            for tensor in structure:
                self._variables[id(tensor)] = self._unique(stem)
            return ", ".join(self._variables[id(tensor)] for tensor in structure) + "," * (len(structure) == 1)
        whole = self._unique(stem)
        for path, tensor in _leaves(structure):
            self._variables[id(tensor)] = whole + path
        return whole

    def _operation(self, operation: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Parts:
        """One call in a graph."""
        if not isinstance(operation, keras.layers.Layer) and _keras.is_of_keras(operation):
            return self._function(operation, args, kwargs)
        arguments = [self.value(a) for a in args] + [(f"{key}=", *self.value(value)) for key, value in kwargs.items()]
        return (*self._layer(operation), Group(arguments))

    def _function(self, operation: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Parts:
        """The call of `keras.ops` that made an operation."""
        kind = type(operation)
        if kind.__name__ == "GetItem":
            return (*self.value(args[0]), f"[{_index(args[1])}]")
        function = getattr(keras.ops, _keras.auto_name(kind), None)
        settings = {key: value for key, value in operation.get_config().items() if key != "name"}
        if function is None:
            raise ValueError(cannot(f"operation {operation.name!r}", f"keras.ops has no function for {kind.__name__}"))
        arguments: list[Parts] = []
        left, parameters = list(args), inspect.signature(function).parameters
        for name, parameter in parameters.items():
            if parameter.kind is parameter.VAR_POSITIONAL:
                arguments += [self.value(value) for value in left]
                left = []
            elif name in settings or name in kwargs:
                value = settings.pop(name, kwargs.get(name))
                if not _same(value, parameter.default):
                    positional = parameter.default is parameter.empty
                    arguments.append(self.value(value) if positional else (f"{name}=", *self.value(value)))
            elif left:
                arguments.append(self.value(left.pop(0)))
        if left or settings or any(name not in parameters for name in kwargs):
            raise ValueError(cannot(f"operation {operation.name!r}", f"keras.ops.{function.__name__} takes others"))
        return (self.reference(function), Group(arguments))

    def _layer(self, layer: Any) -> Parts:
        """A layer: the variable of one that is used several times, or of a model, or what makes it."""
        if _is_written_out(layer):
            return (self.model(layer),)
        if id(layer) not in self._variables:
            expression = self.thing(layer, named=True)
            if self._uses[id(layer)] < 2:
                return expression
            self._variables[id(layer)] = self._unique(f"{self._stem(layer)}_layer")
            self.write(f"{self._variables[id(layer)]} = ", *expression)
        return (self._variables[id(layer)],)

    def _input(self, given: Any) -> Parts:
        """`keras.Input` of an input layer or its tensor."""
        batch, *shape = given.batch_shape if hasattr(given, "batch_shape") else given.shape
        layer = given if isinstance(given, keras.layers.InputLayer) else given._keras_history.operation
        sized = self.value(tuple(shape)) if batch is None else ("batch_shape=", *self.value((batch, *shape)))
        arguments: list[Parts] = [sized]
        if given.dtype != keras.config.floatx():
            arguments.append(("dtype=", _text(given.dtype)))
        arguments += [(f"{option}=True",) for option in ("sparse", "optional") if getattr(layer, option, False)]
        return self._call("keras.Input", [*arguments, *self._named(layer)])

    # -- objects -------------------------------------------------------------------------------------------------------

    def thing(self, thing: Any, *, named: bool = False, unlike: Mapping[str, Any] = MappingProxyType({})) -> Parts:
        """What makes a layer, regularizer, optimizer or any other thing with a configuration.

        Args:
            thing: What to write.
            named: Whether its name is written, where names are kept.
            unlike: Arguments that take the place of those in its configuration.
        """
        if _is_written_out(thing):
            return (self.model(thing),)
        if isinstance(thing, keras.layers.Lambda):
            return self._call("Lambda", self._lambda(thing), of_layers=True)
        kind, config = type(thing), _configuration(thing)
        parameters = list(inspect.signature(kind.__init__).parameters.values())[1:]
        defaults = _defaults(kind, config, parameters)
        config |= unlike
        by_name = any(p.kind is p.VAR_KEYWORD for p in parameters)
        names = [p.name for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
        arguments: list[Parts] = []
        for parameter in parameters:
            if parameter.name not in config or parameter.default is not parameter.empty:
                break
            arguments.append(self._argument(thing, parameter.name, config))
        strengths = [p.name for p in parameters if _is_strength(p, thing)]
        if strengths and strengths == names[:1]:
            arguments.append(self._argument(thing, names[0], config))
        positional = names[: len(arguments)]
        for key in [*names, *(key for key in config if key not in names)]:
            is_name = key == "name" and not isinstance(thing, (keras.Loss, keras.Metric))
            if key in positional or key not in config or is_name:
                continue
            if key in defaults and key not in strengths and _same(config[key], defaults[key]):
                continue
            if key == "trainable" and self._frozen:
                continue  # the model around it is frozen as a whole
            if key not in names and not by_name:
                raise ValueError(cannot(f"{kind.__name__}", f"its `__init__` takes no {key!r}, which is not as usual"))
            arguments.append((f"{key}=", *self._argument(thing, key, config)))
        if named and "name" in config and self._keep(thing):
            arguments.append(("name=", _text(thing.name)))
        return (self.reference(kind), Group(arguments))

    def around(self, outer: Any, inner: Any, variable: str) -> Parts:
        """What makes an optimizer around another one, which stands in a variable."""
        self._variables[id(inner)] = variable
        return self.thing(outer, unlike={"inner_optimizer": inner})

    def _argument(self, thing: Any, key: str, config: dict[str, Any]) -> Parts:
        value = config[key]
        if _is_serialized(value):
            return self._serialized(value, getattr(thing, key, None))
        return self.value(value)

    def _serialized(self, config: dict[str, Any], held: Any) -> Parts:
        """What a configuration holds of another thing, which is perhaps still `held` by its owner."""
        name = config["class_name"]
        if name == "DTypePolicy":
            return (_text(config["config"]["name"]),)
        if name == "function" and getattr(held, "__name__", None) == config["config"]:
            return (self.reference(held),)
        try:
            thing = _keras.deserialized(config)
        except (TypeError, ValueError, AttributeError, ImportError) as error:
            if type(held).__name__ != name:
                raise ValueError(cannot(f"a {name}", f"it can't be made from its configuration: {error}")) from error
            thing = held
        if isinstance(thing, keras.Initializer) and _keras.is_of_keras(thing):
            text = _keras.auto_name(type(thing))
            if self.thing(thing)[1] == Group([]) and type(keras.initializers.get(text)) is type(thing):
                return (_text(text),)
        return self.value(thing)

    def _lambda(self, layer: Any) -> list[Parts]:
        arguments: list[Parts] = [(self.reference(layer.function),)]
        config = _configuration(layer)
        for key in ("output_shape", "mask", "arguments"):
            held = getattr(layer, f"_{key}" if key == "output_shape" else key, None)
            if held is not None and held != {}:
                arguments.append((f"{key}=", *self.value(held)))
        if layer.dtype_policy.name != keras.config.dtype_policy().name:
            arguments.append(("dtype=", *self.value(config["dtype"])))
        return arguments + self._named(layer)

    def value(self, value: Any) -> Parts:
        """Any value that may stand in a configuration, a call or `compile`."""
        if id(value) in self._variables:
            return (self._variables[id(value)],)
        if _is_serialized(value):
            return self._serialized(value, None)
        if isinstance(value, str):
            return (_text(value),)
        if isinstance(value, (float, np.floating)):
            return (_number(float(value)),)
        if value is None or isinstance(value, (bool, int)):
            return (repr(value),)
        if isinstance(value, (np.ndarray, np.generic)) or keras.ops.is_tensor(value):
            return self.value(np.asarray(value).tolist())
        if isinstance(value, dict):
            return (Group([(*self.value(key), ": ", *self.value(item)) for key, item in value.items()], "{}"),)
        if isinstance(value, tuple):
            return (Tuple([self.value(item) for item in value]),)
        if isinstance(value, list):
            return (Group([self.value(item) for item in value], "[]"),)
        if inspect.isroutine(value) or inspect.isclass(value):
            return (self.reference(value),)
        if isinstance(value, keras.DTypePolicy) and type(value) is keras.DTypePolicy:
            return (_text(value.name),)
        if hasattr(value, "get_config"):
            return self.thing(value)
        raise ValueError(cannot(repr(value), f"a {type(value).__name__} has no name and no configuration"))

    def reference(self, thing: Any) -> str:
        """The name by which a program knows a class or function, which it imports."""
        name = getattr(thing, "__name__", "")
        for home, module in _HOMES.items():
            there = getattr(module, name, None)
            if there is None or (there is not thing and there not in _own_kinds(thing)):
                continue
            if home == "layers":
                self._layers.add(name)
                return name
            self._modules.add(home.partition(".")[0])
            return f"{home}.{name}"
        module = getattr(thing, "__module__", None) or "__main__"
        if not name.isidentifier():
            what = "a lambda, which has no name" if name == "<lambda>" else repr(thing)
            raise ValueError(cannot(what, "only what has a name can be imported; define it with `def`"))
        line = f"# {name} is yours, from {module}: import or define it here"
        if module != "__main__" and getattr(sys.modules.get(module), name, None) is thing:
            line = f"from {module} import {name}"
        if self._yours.setdefault(name, line) != line:
            raise ValueError(cannot(f"{name} of {module}", "the model has another of this name; rename one"))
        return name

    def _call(self, name: str, arguments: Collection[Parts], *, of_layers: bool = False) -> Parts:
        if of_layers:
            self._layers.add(name)
        return (name, Group(list(arguments)))

    def _name(self, thing: Any, variable: str | None = None) -> str:
        self._variables[id(thing)] = variable or self._unique(self._stem(thing))
        return self._variables[id(thing)]

    def _stem(self, thing: Any) -> str:
        return thing.name if self._keep(thing) else _keras.auto_name(type(thing))

    def _unique(self, stem: str) -> str:
        stem = "".join(c if c.isalnum() else "_" for c in stem).lstrip("0123456789") or "layer"
        name, n = stem, 0
        while name in self._taken or keyword.iskeyword(name) or hasattr(builtins, name) or hasattr(keras.layers, name):
            n += 1
            name = f"{stem}_{n}"
        self._taken.add(name)
        return name


def _sorted(names: Collection[str]) -> list[str]:
    """As linters sort what is imported: names in capitals first."""
    return sorted(names, key=lambda name: (not name.isupper(), name))


def _own_kinds(thing: Any) -> tuple[type, ...]:
    """A class of Keras's own with those that it is made from: on torch optimizers are of others than the public ones."""
    return thing.__mro__ if inspect.isclass(thing) and thing.__module__.startswith("keras.") else ()


def _uses(model: Any, counted: dict[int, Any]) -> Iterator[Any]:
    """Each layer as often as it is called in a model and in those inside it, which are noted and not counted again."""
    if id(model) in counted:
        return
    counted[id(model)] = model
    calls = model.layers if isinstance(model, keras.Sequential) else [c[0] for c in _keras.graph_calls(model)]
    for operation in calls:
        yield operation
        if _is_written_out(operation):
            yield from _uses(operation, counted)


def _is_written_out(thing: Any) -> bool:
    return isinstance(thing, keras.Model) and _keras.is_rebuildable(thing)


def has_auto_name(thing: Any) -> bool:
    """Whether Keras named a layer or model, by its class and a counter."""
    stem, _, number = thing.name.rpartition("_")
    auto = _keras.auto_name(type(thing))
    autos = (auto, "keras_tensor") if isinstance(thing, keras.layers.InputLayer) else (auto,)
    return thing.name in autos or (stem in autos and number.isdecimal())


def _output_structure(operation: Any, args: tuple[Any, ...], kwargs: dict[str, Any], outputs: list[Any]) -> Any:
    """What a call of an operation puts out, as a structure of the graph's own tensors."""
    if _is_written_out(operation) and not isinstance(operation, keras.Sequential):
        structure = _keras.graph_structure(operation)[1]
    elif len(outputs) == 1:
        return outputs[0]
    else:
        structure = operation.compute_output_spec(*args, **kwargs)
    return keras.tree.pack_sequence_as(structure, outputs)


def _leaves(structure: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(structure, dict):
        for key, item in structure.items():
            yield from _leaves(item, f"{path}[{_text(key)}]")
    elif isinstance(structure, (list, tuple)):
        for i, item in enumerate(structure):
            yield from _leaves(item, f"{path}[{i}]")
    else:
        yield path, structure


def _configuration(thing: Any) -> dict[str, Any]:
    try:
        config = dict(thing.get_config())
    except (NotImplementedError, TypeError, ValueError) as error:
        what = f"{type(thing).__name__} {getattr(thing, 'name', '')!r}"
        why = "its class needs a `get_config` that returns the arguments of its `__init__`"
        raise ValueError(cannot(what, f"{why} ({error})")) from error
    if isinstance(thing, keras.layers.Normalization) and config["mean"] is None and thing.built:
        # it was adapted to data, which no argument says
        config |= {"mean": np.asarray(thing.adapt_mean), "variance": np.asarray(thing.adapt_variance)}
    if isinstance(thing, keras.Loss):
        config |= _keras.loss_arguments(thing)
    axes = config.get("axis")
    if isinstance(axes, (list, tuple)) and len(axes) == 1:
        config["axis"] = axes[0]  # which layers keep as a list
    return config


def _defaults(kind: type, config: dict[str, Any], parameters: list[inspect.Parameter]) -> dict[str, Any]:
    """The configuration of a `kind` made by those arguments alone that it needs."""
    needed = [p.name for p in parameters if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    lacking = [name for name in needed if name not in config]
    if lacking:
        raise ValueError(cannot(kind.__name__, f"its `get_config` lacks {lacking}, arguments of its `__init__`"))
    signature = {p.name: p.default for p in parameters if p.default is not p.empty}
    usual = {"trainable": True, "dtype": keras.saving.serialize_keras_object(keras.config.dtype_policy())}
    try:
        return _configuration(_keras.by_configuration(kind, {name: config[name] for name in needed}))
    except Exception:  # whatever a class of the user's makes of too few arguments: then all that differs is written
        return {**usual, **signature}


def _is_strength(parameter: inspect.Parameter, thing: Any) -> bool:
    """Whether a parameter of a regularizer or constraint is a number to be chosen, which is always written."""
    is_one = isinstance(thing, (keras.Regularizer, keras.constraints.Constraint)) and parameter.name != "axis"
    return is_one and isinstance(parameter.default, (int, float)) and not isinstance(parameter.default, bool)


def _is_serialized(value: Any) -> bool:
    return isinstance(value, dict) and "class_name" in value and "config" in value


def _same(value: Any, other: Any) -> bool:
    return bool(_comparable(value) == _comparable(other))


def _comparable(value: Any) -> Any:
    """A value as configurations are compared: in single precision, without names and with lists for tuples."""
    if _is_serialized(value):
        if value["class_name"] == "DTypePolicy":
            return value["config"]["name"]
        config = value["config"]  # a name, of functions
        if isinstance(config, dict):
            config = {key: item for key, item in config.items() if key != "name"}
        return [value["class_name"], _comparable(config)]
    if isinstance(value, dict):
        return {key: _comparable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_comparable(item) for item in value]
    if isinstance(value, (np.ndarray, np.generic)):
        return _comparable(value.tolist())
    if isinstance(value, float):
        return _number(value)
    return value


def _number(value: float) -> str:
    """The shortest number that is the same in single precision; one that it can't hold as it is."""
    if not math.isfinite(value):
        return f'float("{value}")'
    with np.errstate(over="ignore", under="ignore"):
        short = as_number(value)
    return repr(short if math.isfinite(short) and bool(short) == bool(value) else value)


def _text(text: str) -> str:
    written = repr(text)
    return f'"{written[1:-1]}"' if written[0] == "'" and '"' not in text else written


def _index(index: Any) -> str:
    """What stands between the brackets of `x[...]`."""
    if isinstance(index, tuple):
        return ", ".join(map(_index, index)) + "," * (len(index) == 1)
    if isinstance(index, slice):
        ends = ["" if end is None else _index(end) for end in (index.start, index.stop)]
        return ":".join(ends if index.step is None else [*ends, _index(index.step)])
    if index is Ellipsis:
        return "..."
    if index is None or isinstance(index, bool):
        return repr(index)
    if isinstance(index, (int, np.integer)):
        return repr(int(index))
    raise ValueError(cannot(f"[{index!r}]", "only whole numbers, slices of them, None and ... stand between brackets"))


def cannot(what: str, why: str) -> str:
    return (
        f"Expected a model that can be written as source. Received: {what}; {why}. Instead, save the model with "
        "model.save('model.keras') and train it by rg.Recipe({...}).apply(keras.models.load_model('model.keras'))."
    )
