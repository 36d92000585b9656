"""The one module that touches Keras's private names; tried on keras 3.15.1.

Everything that another Keras version may break stands here, each function with the private names it leans on.
"""

import contextlib
import copy
import functools
import inspect
import math
import sys
import threading
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal

import jax
import keras
import numpy as np
from keras.src.backend.common import masking
from keras.src.backend.common.stateless_scope import get_stateless_scope, in_stateless_scope
from keras.src.initializers.random_initializers import RandomInitializer
from keras.src.layers.convolutional.base_conv import BaseConv
from keras.src.layers.convolutional.base_conv_transpose import BaseConvTranspose
from keras.src.layers.convolutional.base_depthwise_conv import BaseDepthwiseConv as BaseDepthwiseConv
from keras.src.layers.convolutional.base_separable_conv import BaseSeparableConv
from keras.src.losses.losses import LossFunctionWrapper
from keras.src.models.functional import Functional, functional_like_constructor
from keras.src.random.seed_generator import draw_seed
from keras.src.saving import serialization_lib
from keras.src.saving.object_registration import GLOBAL_CUSTOM_NAMES
from keras.src.saving.serialization_lib import SafeModeScope
from keras.src.trainers import data_adapters
from keras.src.utils import module_utils
from keras.src.utils.naming import to_snake_case


def is_rebuildable(model: Any) -> bool:
    """Whether `model` is a graph or a stack whose class can be made anew from layers, so that layers may be put in."""
    if isinstance(model, keras.Sequential):
        return type(model).__init__ is keras.Sequential.__init__
    return isinstance(model, Functional) and functional_like_constructor(type(model))


def input_layer(model: keras.Sequential) -> Any:
    """The input layer of a Sequential model, as `Input` makes it anew, or None where it has none yet (`_layers`)."""
    if not model._layers or not isinstance(model._layers[0], keras.layers.InputLayer):
        return None
    first = model._layers[0]
    return keras.Input(
        batch_shape=first.batch_shape, dtype=first.dtype, name=first.name, sparse=first.sparse, optional=first.optional
    )


def run_graph(model: Any, clone: Callable[[Any], Any], call: Callable[..., Any]) -> Any:
    """Build a Functional model anew: `clone` makes each operation, `call` applies it (`_run_through_graph`).

    `keras.models.clone_model` would also serialize and compile, which fails for losses that are not registered.
    """

    def anew(x: Any) -> Any:
        optional = getattr(x._keras_history.operation, "optional", False)
        return keras.Input(batch_shape=x.shape, dtype=x.dtype, name=x.name, sparse=x.sparse, optional=optional)

    inputs = keras.tree.map_structure(anew, model.input)
    outputs = model._run_through_graph(inputs, operation_fn=clone, call_fn=call)
    return type(model)(inputs, outputs, name=model.name)


class _IfImported:
    """A module that Keras imports when it is first asked for, but not by the question whether it is there."""

    def __init__(self, module: Any) -> None:
        self._module = module

    @property
    def available(self) -> bool:
        return self._module.name in sys.modules and self._module.available

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)


_serializing: list[None] = []  # an entry for each that is under way, in whatever thread
_serializing_lock = threading.Lock()


@contextlib.contextmanager
def without_tensorflow() -> Iterator[None]:
    """Have Keras serialize without importing TensorFlow (`serialization_lib.tf`).

    It asks of whatever it serializes whether that is TensorFlow's, and on every backend imports it for the question, which
    takes seconds. Where nobody has imported it nothing is of it, so that others who serialize meanwhile lose nothing.
    """
    with _serializing_lock:
        _serializing.append(None)
        serialization_lib.tf = _IfImported(module_utils.tensorflow)
    try:
        yield
    finally:
        with _serializing_lock:
            _serializing.pop()
            if not _serializing:
                serialization_lib.tf = module_utils.tensorflow


@without_tensorflow()
def from_config(layer: Any, instead: Mapping[str, Any] = MappingProxyType({})) -> Any:
    """A copy of a layer, operation or model by its own configuration, with some of it replaced (`SafeModeScope`).

    The layer comes from the user's own process, so its lambdas are as safe as there. A subclass whose `__init__` takes
    no keywords of Keras's, as in most tutorials, is made by those arguments that it does take.
    """
    config = {**layer.get_config(), **instead}
    if isinstance(getattr(layer, "activation", None), types.FunctionType) and not isinstance(
        config.get("activation"), str
    ):
        config["activation"] = layer.activation  # Keras can't read what it writes of a lambda
    with SafeModeScope(False):
        try:
            return type(layer).from_config(config)
        except TypeError:
            parameters = inspect.signature(type(layer).__init__).parameters
            if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
                raise
            copied = type(layer)(**{name: value for name, value in config.items() if name in parameters})
            copied.name = layer.name
            copied.trainable = layer.trainable
            return copied


def edges(model: Any) -> Iterator[tuple[Any, Any]]:
    """Each pair of operations of a Functional or Sequential model of which the second takes the first's output."""
    if isinstance(model, keras.Sequential):
        yield from zip(model.layers, model.layers[1:], strict=False)
        return
    for nodes in model._nodes_by_depth.values():
        for node in nodes:
            for tensor in node.input_tensors:
                yield tensor._keras_history.operation, node.operation


def ends(model: Any) -> list[Any]:
    """The operations whose outputs a Functional or Sequential model puts out (`_keras_history`)."""
    return [tensor._keras_history.operation for tensor in model.outputs]


def starts(model: Any) -> list[Any]:
    """The operations that take what a Functional or Sequential model takes (`_keras_history`)."""
    if isinstance(model, keras.Sequential):
        return model.layers[:1]
    return [tensor._keras_history.operation for tensor in model.inputs]


def graph_structure(model: Any) -> tuple[Any, Any]:
    """What a Functional model takes and puts out, as structures of symbolic tensors; a list of one is that one."""

    def unpacked(structure: Any) -> Any:
        one = isinstance(structure, (list, tuple)) and len(structure) == 1
        return structure[0] if one else structure

    return unpacked(model._inputs_struct), unpacked(model._outputs_struct)


def graph_calls(model: Any) -> list[tuple[Any, tuple[Any, ...], dict[str, Any], list[Any]]]:
    """Each call that a Functional model's outputs need, in order: operation, arguments, keywords and what it puts out.

    Without what Keras adds to calls by itself: whether the call is for training, which `fit` decides, and masks that
    tensors carry along (`_nodes_by_depth`, `_call_context_args`, `masking`).
    """
    needed = {id(tensor) for tensor in model.outputs}
    calls: list[Any] = []
    for depth in sorted(model._nodes_by_depth):  # from the outputs back to the inputs
        of_depth = []
        for node in model._nodes_by_depth[depth]:
            if node.is_input or not needed & {id(tensor) for tensor in node.outputs}:
                continue
            args, kwargs = node.arguments.args, node.arguments.kwargs
            carried = [masking.get_keras_mask(t) for t in keras.tree.flatten((args, kwargs)) if is_symbolic(t)]
            added = {"training", *getattr(node.operation, "_call_context_args", ())}
            kwargs = {
                key: value
                for key, value in kwargs.items()
                if key not in added
                and value is not None
                and not (
                    key.endswith("mask") and all(_is_one_of(mask, carried) for mask in keras.tree.flatten([value]))
                )
            }
            needed |= {id(tensor) for tensor in keras.tree.flatten((args, kwargs)) if is_symbolic(tensor)}
            of_depth.append((node.operation, args, kwargs, node.outputs))
        calls = of_depth + calls
    return calls


def _is_one_of(mask: Any, carried: list[Any]) -> bool:
    """Whether a mask is carried by a tensor, or computed in the same way, as in a graph that was built anew."""

    def same(a: Any, b: Any) -> bool:
        if a is b or not (is_symbolic(a) and is_symbolic(b)):
            return a is b or (not is_symbolic(a) and not is_symbolic(b) and np.array_equal(a, b))
        nodes = [t._keras_history.operation._inbound_nodes[t._keras_history.node_index] for t in (a, b)]
        kinds = {type(node.operation) for node in nodes}
        args = [keras.tree.flatten(node.arguments.args) for node in nodes]
        alike = (
            len(kinds) == 1 and not isinstance(nodes[0].operation, keras.layers.Layer) and len(args[0]) == len(args[1])
        )
        return alike and all(map(same, *args))

    return mask is None or any(mask is other or (other is not None and same(mask, other)) for other in carried)


def is_symbolic(value: Any) -> bool:
    """Whether `value` is a tensor of a graph."""
    return isinstance(value, keras.KerasTensor)


def auto_name(kind: type) -> str:
    """The name that Keras gives what is of a class, before it counts (`to_snake_case`)."""
    return to_snake_case(kind.__name__)


def by_configuration(kind: type, config: dict[str, Any]) -> Any:
    """A `kind` made by a part of its configuration, lambdas allowed (`SafeModeScope`)."""
    with SafeModeScope(False):
        return kind.from_config(copy.deepcopy(config))  # type: ignore[attr-defined]


def deserialized(config: dict[str, Any]) -> Any:
    """What Keras serialized, lambdas allowed (`SafeModeScope`)."""
    with SafeModeScope(False):
        return keras.saving.deserialize_keras_object(copy.deepcopy(config))


def children(layer: Any) -> list[tuple[str, Any]]:
    """The layers that `layer` holds, each with a name that a copy of `layer` gives it too.

    Graphs and stacks name their layers; the layers inside others are often named by a global counter, so they are
    called by the attribute that holds them.
    """
    if isinstance(layer, (Functional, keras.Sequential)):
        return [(child.name, child) for child in layer.layers]
    held, found = {id(child) for child in layer._layers}, []
    for attribute, value in vars(layer).items():
        if attribute == "_layers":
            continue
        name = attribute.lstrip("_")
        if isinstance(value, (list, tuple)):
            found += [(f"{name}_{i}", child) for i, child in enumerate(value) if id(child) in held]
        elif isinstance(value, dict):
            found += [(f"{name}_{key}", child) for key, child in value.items() if id(child) in held]
        elif id(value) in held:
            found.append((name, value))
    named = {id(child) for _, child in found}
    return found + [(f"layer_{i}", child) for i, child in enumerate(layer._layers) if id(child) not in named]


def walk(model: Any) -> Iterator[tuple[str, Any]]:
    """Each layer below `model` once, outer before inner, with its path `outer/inner`."""
    seen = {id(model)}

    def below(layer: Any, prefix: str) -> Iterator[tuple[str, Any]]:
        for name, child in children(layer):
            if id(child) not in seen:
                seen.add(id(child))
                yield prefix + name, child
                yield from below(child, f"{prefix}{name}/")

    yield from below(model, "")


def by_path(model: Any) -> dict[str, Any]:
    """Each layer below `model` under all of its paths, and the model itself under the empty one."""
    found: dict[str, Any] = {"": model}

    def below(layer: Any, prefix: str, around: frozenset[int]) -> None:
        for name, child in children(layer):
            if id(child) not in around:
                found[prefix + name] = child
                below(child, f"{prefix}{name}/", around | {id(child)})

    below(model, "", frozenset({id(model)}))
    return found


def is_of_keras(thing: Any) -> bool:
    """Whether the class of `thing` is Keras's own."""
    return type(thing).__module__.startswith("keras.")


def attributes(layer: Any) -> dict[str, Any]:
    """The attributes of a layer or model that its user's code set, without those that Keras itself keeps there."""
    return {k: v for k, v in vars(layer).items() if not k.startswith("_") and k not in _kept_by_keras()}


@functools.cache
def _kept_by_keras() -> frozenset[str]:
    """What Keras keeps in any model, besides what training adds."""
    while_training = ("optimizer", "history", "stop_training", "stop_evaluating", "stop_predicting")
    return frozenset((*vars(keras.Model(name="regularity")), *while_training))


def own_variables(layer: Any) -> list[Any]:
    """The variables that `layer` itself holds, not its children's (`_trainable_variables`)."""
    return [*layer._trainable_variables, *layer._non_trainable_variables]


def seed_generators(model: Any) -> list[tuple[str, Any]]:
    """Each seed generator of `model` with a stable path (`_seed_generators`)."""
    found = [(f"seed{i}", generator) for i, generator in enumerate(model._seed_generators)]
    for path, layer in walk(model):
        found += [(f"{path}/seed{i}", generator) for i, generator in enumerate(layer._seed_generators)]
    return found


def become(layer: Any, kind: type, config: dict[str, Any], strengths: tuple[str, ...]) -> None:
    """Turn a layer into one of another class, in place, so that all who hold it hold the new one; its weights are drawn anew.

    Args:
        layer: What to turn.
        kind: Into what.
        config: The arguments of the new layer's `__init__`.
        strengths: Attributes of the old layer that the new one must not find.
    """
    nodes = layer._inbound_nodes, layer._outbound_nodes
    called, built = layer._called, layer.built
    shapes = layer.get_build_config() if layer.weights else None
    scopes = layer.path.split("/")[:-1] if layer.weights else []
    for attribute in (
        "seed_generator",
        "_strengths",
        *strengths,
        "_tracker",
    ):  # without its tracker, which is locked, the layer starts a new one
        layer.__dict__.pop(attribute, None)
    layer.__class__ = kind
    layer.__init__(**config)
    if shapes is not None:
        with contextlib.ExitStack() as within:  # for the names of its weights
            for scope in scopes:
                within.enter_context(keras.name_scope(scope))
            layer.build_from_config(shapes)
    layer._inbound_nodes, layer._outbound_nodes = nodes
    layer._called, layer.built = called, built


@contextlib.contextmanager
def unlocked(layer: Any) -> Iterator[None]:
    """Let a built layer take new variables (`_tracker`)."""
    locked = layer._tracker.locked
    layer._tracker.unlock()
    try:
        yield
    finally:
        if locked:
            layer._tracker.lock()


_RECORDING = threading.RLock()  # what is recorded stands in for a method of a class that all threads share


@contextlib.contextmanager
def recorded_initializers() -> Iterator[dict[int, Callable[..., Any]]]:
    """Note which initializer made each variable, by id of the variable: Keras forgets (`_initialize_with_initializer`)."""
    record: dict[int, Callable[..., Any]] = {}
    with _RECORDING:
        original = keras.Variable._initialize_with_initializer

        def noted(self: Any, initializer: Callable[..., Any]) -> None:
            record[id(self)] = initializer
            original(self, initializer)

        keras.Variable._initialize_with_initializer = noted
        try:
            yield record
        finally:
            keras.Variable._initialize_with_initializer = original


def draws(initializer: Any) -> bool:
    """Whether an initializer draws by a seed of its own, which a member's seed takes the place of.

    That the user gave the seed can't be told: attention layers hand random ones to their parts.
    """
    return isinstance(initializer, RandomInitializer)


def draw(initializer: Any, variable: Any, seed: int) -> Any:
    """The values that `initializer` gives a variable, drawn by `seed` where it draws."""
    if draws(initializer):
        initializer = copy.copy(initializer)
        initializer.seed = seed
    return initializer(variable.shape, dtype=variable.dtype)


def compile_arguments(model: Any) -> dict[str, Any]:
    """What `model` was compiled with, stateful parts made anew (`_compile_config`); losses are shared, they have no state."""
    arguments = dict(model._compile_config.config)
    optimizer = model.optimizer
    arguments["optimizer"] = type(optimizer).from_config(optimizer.get_config())

    def anew(metric: Any) -> Any:
        return type(metric).from_config(metric.get_config()) if isinstance(metric, keras.Metric) else metric

    for name in ("metrics", "weighted_metrics"):
        arguments[name] = _map_leaves(anew, arguments.get(name))
    return arguments


def compiled_with(model: Any) -> dict[str, Any]:
    """What `model` was compiled with, as it was given (`_compile_config`)."""
    return dict(model._compile_config.config)


_MISSING = object()


def _check_metric(metric: Any) -> None:
    if isinstance(metric, keras.Metric):
        check_copyable(metric, "Metric")


def check_copyable(thing: Any, what: str) -> None:
    """Refuse what would be made anew with defaults in place of the arguments that it was given.

    Args:
        thing: A metric, layer or model.
        what: Which of these, for the error.
    """
    kind = type(thing)
    if is_of_keras(thing):
        return
    of_keras = next(base for base in kind.__mro__ if base.__module__.startswith("keras."))
    if kind.from_config.__func__ is not of_keras.from_config.__func__:
        return  # it knows how
    config = thing.get_config()
    named = list(inspect.signature(kind.__init__).parameters.values())[1:]
    lacking = [
        p.name
        for p in named
        if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
        and p.name not in ("name", "dtype", "trainable", *config)
        and (p.default is p.empty or not _is_default(getattr(thing, p.name, _MISSING), p.default))
    ]
    if lacking:
        raise ValueError(
            f"{what} {thing.name!r} can't be copied: the configuration of {kind.__name__} lacks {lacking}, arguments of "
            "its `__init__`. Give the class a `get_config` that returns them, for example: "
            f"return {{**super().get_config(), {lacking[0]!r}: self.{lacking[0]}}}"
        )


def _is_default(value: Any, default: Any) -> bool:
    try:
        return bool(value == default)
    except (TypeError, ValueError):  # such as an array of several
        return False


def compile_like(copy_: Any, model: Any) -> None:
    """Compile `copy_` as `model` was (`_compile_config`)."""
    for name in ("metrics", "weighted_metrics"):
        _map_leaves(_check_metric, model._compile_config.config.get(name))
    if compiles_in_its_own_way(model):
        copy_.compile_from_config(model.get_compile_config())
    else:
        copy_.compile(**compile_arguments(model))


def compile_step_like(copy_: Any, model: Any) -> None:
    """Compile `copy_` with an optimizer like that of `model`, and nothing else."""
    keras.Model.compile(copy_, optimizer=type(model.optimizer).from_config(model.optimizer.get_config()))


def compiles_in_its_own_way(model: Any) -> bool:
    """Whether the user's class of a model knows how to compile one from the configuration that it keeps."""
    kinds = [kind for kind in type(model).__mro__ if "compile_from_config" in vars(kind)]
    return not _is_keras_class(next(kind for kind in kinds if not kind.__module__.startswith("regularity.")))


def _map_leaves(function: Callable[[Any], Any], value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _map_leaves(function, item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_map_leaves(function, item) for item in value]
    return function(value)


def innermost(optimizer: Any) -> Any:
    """The optimizer that makes the step, inside any that scale the loss."""
    while hasattr(optimizer, "inner_optimizer"):
        optimizer = optimizer.inner_optimizer
    return optimizer


def learning_rate_variable(optimizer: Any) -> Any:
    """The variable that holds the learning rate, or an error where a schedule sets it (`_learning_rate`)."""
    rate = innermost(optimizer)._learning_rate
    if not isinstance(rate, keras.Variable):
        raise ValueError(
            "A recipe with a `learning_rate` needs an optimizer with a constant one. "
            f"Received: an optimizer with the schedule {type(rate).__name__}."
        )
    return rate


def why_no_cycles(model: Any) -> str | None:
    """Why the learning rate of `model` can't rise and fall, or its outputs be a mean of several networks', or None (`_learning_rate`, `_call_has_training_arg`)."""
    rate = innermost(model.optimizer)._learning_rate
    if not isinstance(rate, keras.Variable):
        return f"its learning rate follows the schedule {type(rate).__name__}: compile it with a constant one."
    if not getattr(model, "inputs", None):
        return f"{type(model).__name__} does not say what its inputs are: build it as Functional or Sequential."
    if not model._call_has_training_arg:
        return f"the `call` of {type(model).__name__} takes no `training`, by which it would know when to put out the mean."
    return None


def decays(optimizer: Any, variable: Any) -> bool:
    """Whether the optimizer's own weight decay reaches `variable` (`_use_weight_decay`)."""
    return optimizer.weight_decay is not None and optimizer._use_weight_decay(variable)


def decays_in_its_own_way(optimizer: Any) -> bool:
    """Whether the optimizer's class has a weight decay of its own, as Muon has (`_apply_weight_decay`)."""
    owner = next(kind for kind in type(optimizer).__mro__ if "_apply_weight_decay" in vars(kind))
    return not owner.__module__.startswith(("keras.src.optimizers.base_optimizer", "keras.src.backend."))


def registered_as(kind: type, name: str) -> None:
    """Let a class made at run time be saved under the registered name of another (`GLOBAL_CUSTOM_NAMES`)."""
    GLOBAL_CUSTOM_NAMES[kind] = name


def symbolic_build(model: Any, batch: tuple[Any, ...]) -> None:
    """Build optimizer and metrics from one batch, without touching weights (`_symbolic_build`)."""
    model._symbolic_build(data_batch=batch)


def jax_state(model: Any) -> tuple[list[Any], list[Any], list[Any], list[Any]]:
    """Values of the trainable, non-trainable, optimizer and metric variables, as `train_step` takes them."""
    groups = (
        model.trainable_variables,
        model.non_trainable_variables,
        model.optimizer.variables,
        model.metrics_variables,
    )
    return tuple([v.value for v in group] for group in groups)  # type: ignore[return-value]


def numpy_batches(stream: Any) -> Iterator[tuple[Any, ...]]:
    """The batches of one pass through any stream that Keras takes, as `(x, y, sample_weight)` (`get_data_adapter`)."""
    adapter = data_adapters.get_data_adapter(stream)
    adapter.on_epoch_begin()
    try:
        for batch in adapter.get_numpy_iterator():
            yield keras.utils.unpack_x_y_sample_weight(batch)
    finally:  # as in `fit`, a look at the first batch ends an epoch too
        adapter.on_epoch_end()


def averages(optimizer: Any) -> list[Any] | None:
    """The moving averages that Keras puts in place of the weights when `fit` ends, or None (`use_ema`)."""
    inner = innermost(optimizer)
    return inner._model_variables_moving_average if inner.use_ema else None


def row_losses(model: Any, y: Any, y_pred: Any) -> Any:
    """The compiled loss of each row by itself, without any penalty, of (rows,); on JAX (`_compile_loss`).

    A row at a time, so that the way in which a loss reduces a batch does not matter; masks go with their rows
    (`masking`). The loss notes each output's own in metrics of the model, hence the scope.
    """

    def one(y: Any, y_pred: Any, masks: Any) -> Any:
        outputs = [p[None] for p in keras.tree.flatten(y_pred)]
        for output, mask in zip(outputs, masks, strict=True):
            if mask is not None:
                masking.set_keras_mask(output, mask[None])
        with keras.StatelessScope():
            return model._compile_loss(
                keras.tree.map_structure(lambda a: a[None], y), keras.tree.pack_sequence_as(y_pred, outputs)
            )

    masks = [masking.get_keras_mask(p) for p in keras.tree.flatten(y_pred)]
    return jax.vmap(one)(y, y_pred, masks)


def metrics_result(model: Any, values: list[Any]) -> dict[str, Any]:
    """What `fit` would report with these values of the metric variables (`StatelessScope`)."""
    with keras.StatelessScope(state_mapping=list(zip(model.metrics_variables, values, strict=True))):
        return model.get_metrics_result()


def mean_of(outputs: Sequence[Any]) -> Any:
    """The mean of what several calls of a model put out, with the masks of the first (`masking`)."""

    def mean(*each: Any) -> Any:
        found = sum(each) / len(each)
        mask = masking.get_keras_mask(each[0])
        if mask is not None:
            masking.set_keras_mask(found, mask)
        return found

    return keras.tree.map_structure(mean, *outputs)


def average_of(members: Sequence[Any], model: Any, like: Any = None) -> Any:
    """One model whose outputs are the mean of those of plain models, made of `model` and compiled as it was, or as `like`."""
    if not getattr(model, "inputs", None):
        raise ValueError(
            f"Expected a model that says what its inputs are, to put several into one. Received: {type(model).__name__}, "
            "a subclass without. Build it as Functional or Sequential, or average what its fold models predict."
        )
    given = model.inputs[0] if isinstance(model, keras.Sequential) else model.input
    inputs = keras.tree.map_structure(
        lambda t: keras.Input(
            batch_shape=t.shape, dtype=t.dtype, sparse=t.sparse, name=t._keras_history.operation.name
        ),
        given,
    )
    outputs = []
    for number, member in enumerate(members):
        member.name = f"{member.name}_{number}"
        outputs.append(member(inputs))
    if len(outputs) > 1:  # by the names that losses and metrics may be given for, in the precision that they have
        each = list(zip(*map(keras.tree.flatten, outputs), strict=True))
        names: Sequence[str | None] = getattr(model, "output_names", ())
        if len(set(names)) != len(each):  # a Sequential model has none, and a layer may put out several
            names = [None] * len(each)
        means = [
            keras.layers.Average(name=name, dtype=same[0].dtype)(list(same))
            for name, same in zip(names, each, strict=True)
        ]
        outputs = [keras.tree.pack_sequence_as(outputs[0], means)]
    average = keras.Model(inputs, outputs[0], name=f"{model.name}_ensemble")
    if getattr(like or model, "optimizer", None) is None:  # of a file that was loaded without compiling
        return average
    compile_like(average, like or model)
    if like is not None and innermost(like.optimizer).weight_decay is not None:
        of_all = [(innermost(member.optimizer), v) for member in members for v in member.trainable_variables]
        left_out = [variable for optimizer, variable in of_all if not decays(optimizer, variable)]
        innermost(average.optimizer).exclude_from_weight_decay(var_list=left_out)
    average.optimizer.build(average.trainable_variables)  # else Keras warns of it when a file of it is loaded
    return average


def portable_compile_config(model: Any) -> dict[str, Any]:
    """A model's compile configuration for another backend: torch names optimizers by classes of its own."""

    def portable(value: Any) -> Any:
        if isinstance(value, dict):
            value = {key: portable(item) for key, item in value.items()}
            if str(value.get("module")).startswith("keras.src.backend."):
                value["module"] = "keras.optimizers"
            return value
        return [portable(item) for item in value] if isinstance(value, (list, tuple)) else value

    return portable(model.get_compile_config())


def is_plain_convolution(layer: Any) -> bool:
    """Whether `layer` convolves by `convolution_op` with channels last and one group (`BaseConv`)."""
    return isinstance(layer, BaseConv) and layer.groups == 1 and layer.data_format == "channels_last"


def is_to_draw_with() -> bool:
    """Within what stands in for a seed generator's `next`: whether `keras.random` asks, which hands the key on to JAX (`draw_seed`).

    Whoever else asks may do with a key what only a plain array allows.
    """
    return sys._getframe(2).f_code is draw_seed.__code__


def custom_objects(model: Any) -> dict[str, Any]:
    """Classes and functions that are not Keras's own and that a process must know to load `model`."""
    found = dict(keras.saving.get_custom_objects())
    for kind in not_of_keras(model, "loss", "metrics", "weighted_metrics"):
        found.setdefault(kind.__name__, kind)
    return found


def not_of_keras(model: Any, *compiled: str) -> list[Any]:
    """Classes and functions that `model`, its optimizer and some of what it was compiled with are made of, and that Keras has not."""
    config = model._compile_config.config
    parts = [model, *(layer for _, layer in walk(model)), model.optimizer]
    parts += keras.tree.flatten([config.get(name) for name in compiled])
    kinds = [part if callable(part) and hasattr(part, "__name__") else type(part) for part in parts]
    return list(dict.fromkeys(k for k in kinds if k.__module__.partition(".")[0] not in ("keras", "builtins")))


def compiled_loss(model: Any) -> Any:
    """The loss that a model was compiled with, in the form it was given (`_compile_config`)."""
    loss = model._compile_config.config.get("loss")
    return loss[0] if isinstance(loss, (list, tuple)) and len(loss) == 1 else loss


def loss_name(loss: Any) -> str:
    """A loss as its function's name, such as `sparse_categorical_crossentropy`, whatever alias or name it was given."""
    if isinstance(loss, str):
        try:
            loss = keras.losses.get(loss)
        except ValueError:  # a custom object that is not known here
            return loss
    loss = getattr(loss, "fn", loss)  # what Keras's own losses wrap
    return str(getattr(loss, "__name__", None) or getattr(loss, "name", None) or type(loss).__name__)


def stock_loss(loss: Any) -> str | None:
    """The name of a cross-entropy that is Keras's own, or None: what a user makes of one may be another thing."""
    if not isinstance(loss, str) and not is_of_keras(loss) and loss is not getattr(keras.losses, loss_name(loss), None):
        return None
    function = getattr(loss, "fn", None)
    name = loss_name(loss)
    own = function is None or function is getattr(keras.losses, name, None)
    return name if name in _CROSS_ENTROPIES and own else None


_CROSS_ENTROPIES = (
    "sparse_categorical_crossentropy",
    "categorical_crossentropy",
    "binary_crossentropy",
    "categorical_focal_crossentropy",
    "binary_focal_crossentropy",
)
# Those whose loss of a row is the logarithm of a probability, and no more.
_OF_ROWS = ("sparse_categorical_crossentropy", "categorical_crossentropy", "binary_crossentropy")
# Layers that take whole numbers, whatever the type of the inputs is.
_OF_WHOLE_NUMBERS = (
    keras.layers.Embedding,
    keras.layers.CategoryEncoding,
    keras.layers.Discretization,
    keras.layers.Hashing,
    keras.layers.IntegerLookup,
    keras.layers.StringLookup,
)


def why_not_the_step(model: Any) -> str | None:
    """Why the loss of `model` can't be computed in another way, or None."""
    for method in ("train_step", "compute_loss", "compute_loss_and_updates"):
        if any(method in vars(kind) and not _is_keras_class(kind) for kind in type(model).__mro__):
            return f"{type(model).__name__} has a `{method}` of its own, which stays as it is."
    return None


def _is_keras_class(kind: type) -> bool:
    return kind.__module__.partition(".")[0] in ("keras", "regularity")


def why_no_changed_rows(model: Any) -> str | None:
    """Why the rows of `model` can't be changed before it sees them, or None."""
    for tensor in getattr(model, "inputs", None) or []:
        if not keras.backend.is_float_dtype(tensor.dtype):
            return f"its input {tensor.name!r} is of type {tensor.dtype}, not of numbers that can be changed a little."
    for path, layer in walk(model):
        if isinstance(layer, _OF_WHOLE_NUMBERS):
            return f"its layer {path!r} ({type(layer).__name__}) takes whole numbers, which can't be changed a little."
    return None


def why_no_mixed_rows(model: Any) -> str | None:
    """Why rows of `model` can't be mixed with one another, or None."""
    return why_no_changed_rows(model) or why_not_the_step(model)


def why_no_soft_targets(model: Any) -> str | None:
    """Why the targets of `model` can't be probabilities of classes, or None."""
    losses = [loss for loss in _losses(model) if stock_loss(loss)]
    if not losses:
        return f"its loss is no cross-entropy of Keras's, but {[loss_name(loss) for loss in _losses(model)]}."
    for loss in losses:
        own = getattr(loss, "_fn_kwargs", {})
        if own.get("label_smoothing"):
            return f"its loss has label_smoothing={own['label_smoothing']} already: compile it without."
        if own.get("ignore_class") is not None:
            return "its loss ignores a class, which can't have a probability."
        if not loss_name(loss).startswith("binary") and own.get("axis", -1) != -1:
            return "the classes of its loss are not on the last axis."
    return None


def why_no_losses_of_rows(model: Any) -> str | None:
    """Why the loss of each row of `model` can't be told from its targets and probabilities, or None."""
    names = [loss_name(loss) for loss in _losses(model)]
    if not any(stock_loss(loss) in _OF_ROWS for loss in _losses(model)):
        return f"its loss is no cross-entropy of Keras's, but {names}."
    for loss in _losses(model):
        if _option(loss, "ignore_class") is not None and _option(loss, "ignore_class") is not False:
            return "its loss ignores a class, which can't have a probability."
        if _option(loss, "axis") not in (False, -1):
            return "the classes of its loss are not on the last axis."
    return None


def why_no_mean_of_rows(model: Any) -> str | None:
    """Why the loss of `model` is no mean over rows, or None."""
    if any(getattr(loss, "reduction", None) == "sum" for loss in _losses(model)):
        return "its loss is a sum over rows (reduction='sum'): compile it with reduction='sum_over_batch_size'."
    return None


def _losses(model: Any) -> list[Any]:
    """The losses that `model` was compiled with, in the form they were given (`_compile_config`)."""
    return [loss for loss in keras.tree.flatten(model._compile_config.config.get("loss")) if loss is not None]


@contextlib.contextmanager
def changed_losses(model: Any, change: Callable[[Any], Any]) -> Iterator[None]:
    """Put `change(loss)` in the place of each output's compiled loss, once these are known (`_flat_losses`)."""
    compiled = model._compile_loss
    if compiled is None or compiled._flat_losses is None:
        yield
        return
    own = compiled._flat_losses
    compiled._flat_losses = [entry._replace(loss=change(entry.loss)) for entry in own]
    try:
        yield
    finally:
        compiled._flat_losses = own


def changed_loss(
    loss: Any, change: Callable[[Any, int], Any] | None, rows: Callable[[Any, Any, Any], Any] | None
) -> Callable[..., Any]:
    """A cross-entropy of changed targets, which are probabilities even where `loss` takes whole numbers; others stay.

    Args:
        loss: An output's compiled loss (`LossFunctionWrapper`).
        change: From targets, with a last axis of classes or one number for two, and the number of classes, to other targets.
        rows: From the loss of each prediction, its targets and its probabilities, both with a last axis of classes, to other
            losses.
    """
    kind = stock_loss(loss)
    if kind is None or (change is None and kind not in _OF_ROWS):
        return loss

    def changed(y: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        y, y_pred = keras.ops.convert_to_tensor(y), keras.ops.convert_to_tensor(y_pred)
        if kind == "sparse_categorical_crossentropy":
            if len(y.shape) == len(y_pred.shape) and y.shape[-1] == 1:
                y = keras.ops.squeeze(y, -1)
            y = keras.ops.one_hot(keras.ops.cast(y, "int32"), y_pred.shape[-1], dtype=y_pred.dtype)
        if not keras.backend.is_float_dtype(y.dtype):
            y = keras.ops.cast(y, keras.config.floatx())
        y = y if change is None else change(y, 2 if kind.startswith("binary") else y_pred.shape[-1])
        if kind in _OF_ROWS and rows is not None:
            function = functools.partial(_loss_of_rows, loss, rows)
        elif kind == "sparse_categorical_crossentropy":
            function = functools.partial(_cross_entropy, _option(loss, "from_logits"))
        else:
            return loss(y, y_pred, sample_weight)
        twin = LossFunctionWrapper(function, reduction=loss.reduction, name=loss.name, dtype=loss.dtype)
        return twin(y, y_pred, sample_weight)

    return changed


def _loss_of_rows(loss: Any, rows: Callable[[Any, Any, Any], Any], y: Any, y_pred: Any) -> Any:
    """What `rows` makes of a cross-entropy, for each row; those of binary outputs are averaged, as Keras does."""
    binary, logits = loss_name(loss).startswith("binary"), _option(loss, "from_logits")
    smoothing = _option(loss, "label_smoothing")
    if smoothing:
        y = y * (1.0 - smoothing) + smoothing / (2 if binary else y_pred.shape[-1])
    if not binary:
        losses = _cross_entropy(logits, y, y_pred)
        sums = keras.ops.sum(y_pred, -1, keepdims=True)
        return rows(losses, y, keras.ops.softmax(y_pred) if logits else y_pred / sums)
    losses = keras.ops.binary_crossentropy(y, y_pred, from_logits=logits)
    probabilities = keras.ops.sigmoid(y_pred) if logits else y_pred
    of_both = [keras.ops.stack([1.0 - p, p], -1) for p in (y, probabilities)]
    return keras.ops.mean(rows(losses, *of_both), -1)


def _cross_entropy(logits: bool, y: Any, y_pred: Any) -> Any:
    """That of Keras; but a logit of minus infinity, which rules a class out, counts for nothing where the target is 0."""
    if not logits:
        return keras.losses.categorical_crossentropy(y, y_pred)
    terms = y * keras.ops.log_softmax(y_pred)
    return -keras.ops.sum(keras.ops.where(y > 0, terms, 0.0), -1)


def _option(loss: Any, name: str) -> Any:
    """An argument that one of Keras's losses was made with (`_fn_kwargs`)."""
    return getattr(loss, "_fn_kwargs", {}).get(name, False)


def loss_arguments(loss: Any) -> dict[str, Any]:
    """What one of Keras's losses was made with, also where its configuration lacks it, as that of `Huber` does (`_fn_kwargs`)."""
    return dict(getattr(loss, "_fn_kwargs", {})) if is_of_keras(loss) else {}


def scaled(model: Any, loss: Any, optimizer_variables: Any) -> Any:
    """A loss as the optimizer scales it, with these values of its variables (`StatelessScope`, `scale_loss`)."""
    with keras.StatelessScope(list(zip(model.optimizer.variables, optimizer_variables, strict=True))):
        return model.optimizer.scale_loss(loss)


def first(outputs: Any, rows: int) -> Any:
    """The first rows of outputs, with their masks (`masking`)."""

    def cut(a: Any) -> Any:
        mask, a = masking.get_keras_mask(a), a[:rows]
        if mask is not None:
            masking.set_keras_mask(a, mask[:rows])
        return a

    return keras.tree.map_structure(cut, outputs)


def output_rank(layer: Any) -> int | None:
    """The number of axes of what a layer of a graph puts out, rows included, or None (`_inbound_nodes`)."""
    for node in getattr(layer, "_inbound_nodes", ()):
        return len(node.output_tensors[0].shape) if node.output_tensors else None
    return None


def keeps_shape(layer: Any) -> bool:
    """Whether a layer of a graph puts out one tensor of the shape of the one that it takes (`_inbound_nodes`)."""
    shapes = [
        [tuple(tensor.shape) for tensor in (*node.input_tensors, *node.output_tensors)]
        for node in getattr(layer, "_inbound_nodes", ())
    ]
    if any(None in shape[1:] for of_call in shapes for shape in of_call) and not _keeps_length(layer):
        return False
    return bool(shapes) and all(len(of_call) == 2 and of_call[0] == of_call[1] for of_call in shapes)


def _keeps_length(layer: Any) -> bool:
    """Whether a layer keeps sizes that are not known, which all but convolutions do."""
    if not isinstance(layer, (BaseConv, BaseDepthwiseConv)):
        return True
    return layer.padding in ("same", "causal") and all(stride == 1 for stride in layer.strides)


def taken_shapes(layer: Any) -> list[list[tuple[int | None, ...]]]:
    """The shapes of what a layer of a graph takes, in each of its calls (`_inbound_nodes`)."""
    return [[tuple(tensor.shape) for tensor in node.input_tensors] for node in getattr(layer, "_inbound_nodes", ())]


def trains_always(layer: Any) -> bool:
    """Whether a layer of a graph computes as in training, whatever the model does (`_inbound_nodes`)."""
    return any(node.arguments.kwargs.get("training") for node in getattr(layer, "_inbound_nodes", ()))


def loses_fused_kernel(layer: Any) -> bool:
    """Whether nothing but its `recurrent_dropout` keeps an LSTM or GRU from the fused kernel of a GPU (`cudnn_ok`)."""
    return (
        float(layer.recurrent_dropout) > 0
        and layer.use_cudnn in (True, "auto")
        and layer.activation is keras.activations.tanh
        and layer.recurrent_activation is keras.activations.sigmoid
        and layer.use_bias
        and not layer.unroll
        and getattr(layer, "reset_after", True)
    )


_ATTENTION = (keras.layers.MultiHeadAttention, keras.layers.GroupQueryAttention)


def attention_dropouts(model: Any) -> dict[str, Any]:
    """The layers that hold a dropout of attention probabilities, by the path of that dropout (`_dropout_layer`)."""
    return {f"{path}/dropout_layer": layer for path, layer in walk(model) if isinstance(layer, _ATTENTION)}


def set_attention_dropout(layer: Any, rate: float) -> None:
    """Have an attention layer use its dropout, where the rate is above 0, or not (`_dropout`)."""
    setattr(layer, "_dropout" if hasattr(layer, "_dropout") else "dropout", rate)


def set_cell_dropout(cell: Any, rates: dict[str, float]) -> None:
    """Set `dropout` and `recurrent_dropout` of a cell, which decide on more when it is made (`dropout_mask_count`)."""
    vars(cell).update(rates)
    twin = type(cell)(1, dropout=cell.dropout, recurrent_dropout=cell.recurrent_dropout)
    for name in ("implementation", "dropout_mask_count"):
        if hasattr(twin, name):
            object.__setattr__(cell, name, getattr(twin, name))


def with_cell_masks(cell: Any, name: Literal["dropout", "recurrent_dropout"], draw: Callable[[Any], Any]) -> None:
    """Have `cell` take its masks from `draw(ones)`, each kept for the whole sequence (`get_dropout_mask`)."""
    kept = "_dropout_mask" if name == "dropout" else "_recurrent_dropout_mask"

    def mask(step: Any) -> Any:
        if getattr(cell, kept, None) is None:
            ones, count = keras.ops.ones_like(step), getattr(cell, "dropout_mask_count", None)
            object.__setattr__(cell, kept, draw(ones) if count is None else [draw(ones) for _ in range(count)])
        return getattr(cell, kept)

    object.__setattr__(cell, f"get_{name}_mask", mask)


@contextlib.contextmanager
def other_values(values: list[tuple[Any, Any]]) -> Iterator[None]:
    """Within, variables have other values than their own (`StatelessScope.state_mapping`, `Variable._value`)."""
    scope = get_stateless_scope() if in_stateless_scope() else None
    if scope is not None:
        before = [(variable, scope.state_mapping.get(id(variable))) for variable, _ in values]
        scope.state_mapping.update({id(variable): value for variable, value in values})
        try:
            yield
        finally:
            for variable, value in before:
                if value is None:
                    del scope.state_mapping[id(variable)]
                else:
                    scope.state_mapping[id(variable)] = value
        return
    before = [(variable, variable._value) for variable, _ in values]
    for variable, value in values:
        object.__setattr__(variable, "_value", value)
    try:
        yield
    finally:
        for variable, value in before:
            object.__setattr__(variable, "_value", value)


def is_training(layer: Any) -> bool:
    """Whether the call that `layer` is in trains (`_get_call_context`)."""
    return bool(layer._get_call_context().training)


def incoming_axes(layer: Any, variable: Any) -> tuple[int, ...]:
    """The axes of a variable of `layer` over which a unit's incoming weights lie: of a plain layer's kernel all but the last.

    What has no more than one axis, such as a bias, is one unit.
    """
    axes = range(len(variable.shape))
    if len(axes) < 2:
        return tuple(axes)
    if _is_depthwise(layer, variable):
        return tuple(axes[:-2])
    if isinstance(layer, BaseConvTranspose) and variable.name == "kernel":
        return tuple(axis for axis in axes if axis != axes[-2])
    if isinstance(layer, keras.layers.EinsumDense) and variable.name == "kernel":
        inputs = layer.equation.partition(",")[0]
        weights, outputs = layer.equation.partition(",")[2].replace(" ", "").split("->")
        return tuple(axis for axis in axes if weights[axis] in inputs and weights[axis] not in outputs)
    return tuple(axes[:-1])


def _is_depthwise(layer: Any, variable: Any) -> bool:
    name = "depthwise_kernel" if isinstance(layer, BaseSeparableConv) else "kernel"
    return isinstance(layer, (BaseDepthwiseConv, BaseSeparableConv)) and variable.name == name


def units_last(layer: Any, variable: Any, *, of_inputs: bool = False) -> Callable[[Any], Any] | None:
    """How a kernel is put so that its units are on the last axis and its inputs on the one before; None where they are.

    Units of a depthwise kernel have one input each: there it is one of both, and `of_inputs` says that it is the inputs.
    """
    incoming, shape = incoming_axes(layer, variable), tuple(variable.shape)
    depthwise, dense = _is_depthwise(layer, variable), isinstance(layer, keras.layers.EinsumDense)
    there = incoming == tuple(range(len(shape) - 1)) and not (dense and len(incoming) > 1)
    if len(shape) < 2 or there or (depthwise and of_inputs):
        return None
    outgoing = tuple(axis for axis in range(len(shape)) if axis not in incoming)
    sizes = [shape[axis] for axis in incoming]
    sizes = [math.prod(sizes)] if dense else [*sizes, 1] if depthwise else sizes

    def put(weights: Any) -> Any:
        return keras.ops.reshape(keras.ops.transpose(weights, (*incoming, *outgoing)), (*sizes, -1))

    return put


def wrap_call(layer: Any, wrapped: Callable[..., Any]) -> None:
    """Have `layer` run `wrapped(call, *args, **kwargs)` in place of its `call`."""
    call = layer.call
    object.__setattr__(layer, "call", functools.wraps(call)(functools.partial(wrapped, call)))


def hook_optimizer(optimizer: Any, name: Literal["_apply_weight_decay", "_clip_gradients"], function: Any) -> None:
    """Have `optimizer` call `function` in place of one of its own methods."""
    object.__setattr__(optimizer, name, function)


def own_clipping(optimizer: Any) -> Callable[[list[Any]], list[Any]]:
    """How `optimizer` clips gradients by itself (`_clip_gradients`)."""
    return optimizer._clip_gradients


def batches_seen(optimizer: Any) -> Any:
    """The variable that counts batches; `iterations` counts steps, of which one may take several (`_iterations`)."""
    return innermost(optimizer)._iterations


def stepped(optimizer: Any) -> list[Any]:
    """The variables that `optimizer` steps, in the order of its gradients (`_trainable_variables`)."""
    return optimizer._trainable_variables


def average_with(optimizer: Any, momentum: Callable[[Any], Any], *, constrained: bool) -> None:
    """Have `optimizer` average the weights, keeping a share `momentum(step)` of the averages at each step.

    Before it is built (`use_ema`, `_update_model_variables_moving_average`, `apply`, `finalize_variable_values`).

    Args:
        optimizer: It, innermost.
        momentum: The share, by the number of batches before.
        constrained: Whether the weights are averaged behind their constraints; Keras does so before them.
    """
    optimizer.use_ema = True
    if not optimizer.built or not hasattr(optimizer, "_model_variables_moving_average"):
        optimizer._model_variables_moving_average = []

    def kept() -> Any:
        return momentum(keras.ops.cast(batches_seen(optimizer), "float32"))

    def update(variables: list[Any], kept: Any) -> None:
        for variable, average in zip(variables, optimizer._model_variables_moving_average, strict=True):
            if average is not None:
                share = keras.ops.cast(kept, variable.dtype)
                average.assign(share * average + (1 - share) * variable)

    def in_the_step(variables: list[Any]) -> None:
        if not constrained:
            update(variables, kept())

    own = functools.partial(type(optimizer).apply, optimizer)  # also where the model is compiled with it again

    def apply(*arguments: Any, **keywords: Any) -> None:
        share = kept()  # the step that ends counts as the next
        own(*arguments, **keywords)
        update(optimizer._trainable_variables, share)

    def finalize(variables: list[Any]) -> None:
        # Keras hands the averages' own buffers to the weights, which the next `fit` gives away twice, and fails
        for variable, average in zip(variables, optimizer._model_variables_moving_average, strict=True):
            if average is not None:
                variable.assign(keras.ops.copy(average))

    object.__setattr__(optimizer, "_update_model_variables_moving_average", in_the_step)
    if constrained:
        object.__setattr__(optimizer, "apply", apply)
    object.__setattr__(optimizer, "finalize_variable_values", finalize)


def batch_statistics(model: Any) -> dict[int, Any]:
    """The moving statistics of batch normalization that trains, by id of the variable, each with its layer."""
    layers = [
        layer for _, layer in walk(model) if isinstance(layer, keras.layers.BatchNormalization) and layer.trainable
    ]
    return {id(v): layer for layer in layers for v in (layer.moving_mean, layer.moving_variance)}


def kept_by(model: Any, one_pass: Callable[[], Any]) -> dict[int, float]:
    """The share of each moving statistic, by id of the variable, that `one_pass` in training keeps of what it was before.

    The momentum, once for each time that the layer is called: one that two branches share is called twice.
    """
    statistics = batch_statistics(model)
    calls = {id(layer): 0 for layer in statistics.values()}

    def counted(layer: Any, call: Callable[..., Any], inputs: Any, training: Any = None, **keywords: Any) -> Any:
        calls[id(layer)] += bool(training)
        return call(inputs, training=training, **keywords)

    layers = {id(layer): layer for layer in statistics.values()}.values()
    for layer in layers:
        wrap_call(layer, functools.partial(counted, layer))
    try:
        one_pass()
    finally:
        for layer in layers:
            object.__delattr__(layer, "call")
    return {at: layer.momentum ** max(calls[id(layer)], 1) for at, layer in statistics.items()}


def after_a_pass(model: Any, trainable: list[Any], non_trainable: list[Any], x: Any) -> list[Any]:
    """The non-trainable variables after a forward pass in training (`stateless_call`, `_call_has_training_arg`)."""
    training = {"training": True} if model._call_has_training_arg else {}
    return model.stateless_call(trainable, non_trainable, x, **training)[1]


@contextlib.contextmanager
def fixed_statistics(model: Any) -> Iterator[None]:
    """Within, batch normalization computes as at inference, whatever the call is for (`BatchNormalization.call`)."""
    layers = [layer for _, layer in walk(model) if isinstance(layer, keras.layers.BatchNormalization)]

    def fixed(call: Callable[..., Any], inputs: Any, training: Any = None, **keywords: Any) -> Any:
        del training
        return call(inputs, training=False, **keywords)

    for layer in layers:
        wrap_call(layer, fixed)
    try:
        yield
    finally:
        for layer in layers:
            object.__delattr__(layer, "call")


def noisy_passes(model: Any, samples: int) -> Callable[[Any], Any]:
    """A function from a batch to the outputs of so many passes as in training, stacked in front, as arrays of NumPy."""
    training = {"training": True} if model._call_has_training_arg else {}
    if keras.backend.backend() != "jax":

        def eagerly(batch: Any) -> Any:
            passes = [
                keras.tree.map_structure(keras.ops.convert_to_numpy, model(batch, **training)) for _ in range(samples)
            ]
            return keras.tree.map_structure(lambda *outputs: np.stack(outputs), *passes)

        return eagerly
    trainable = [v.value for v in model.trainable_variables]

    @jax.jit
    def compiled(batch: Any, non_trainable: list[Any]) -> Any:
        def one(state: list[Any], _: Any) -> tuple[list[Any], Any]:
            outputs, after = model.stateless_call(trainable, state, batch, **training)
            return after, outputs

        return jax.lax.scan(one, non_trainable, None, samples)[1]

    def passes(batch: Any) -> Any:
        return keras.tree.map_structure(np.asarray, compiled(batch, [v.value for v in model.non_trainable_variables]))

    return passes


def batches(x: Any, batch_size: int) -> Iterator[Any]:
    """The inputs of each batch, in order, of arrays or of any stream that Keras takes."""
    leaves = keras.tree.flatten(x)
    if leaves and hasattr(leaves[0], "shape"):
        for begin in range(0, len(leaves[0]), batch_size):
            yield keras.tree.map_structure(lambda a, at=begin: a[at : at + batch_size], x)
    else:
        for batch in numpy_batches(x):
            yield batch[0]
