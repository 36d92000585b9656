"""What a technique is: one declaration, and the strength that Keras components hold as a weight."""

import math
import numbers
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import keras
from keras import ops

# The largest number in single precision, in which strengths are held: what lies above would become an infinity.
_LARGEST = (2 - 2**-23) * 2.0**127

Place = Literal["batch", "activations", "targets", "weights", "gradient", "update"]

# The ways in which a technique may take part in Keras's own training step, and the signature of its function:
#   batch      rows change, targets and weights with them                       function(x, strength, seed)
#   structure  a layer with weights of its own behind hidden layers             function(inputs, outputs, strength)
#   layer      a layer behind hidden layers                                     function(inputs, strength, seed)
#   branch     a layer at the end of residual branches                          function(inputs, strength, seed)
#   around     a way around hidden layers                                       function(inputs, outputs, strength)
#   join       two residual branches change together before they are added      function(branches, strength, seed)
#   output     a penalty on what a layer puts out                               function(outputs, strength)
#   cell       masks of what recurrent cells take in or remember                function(ones, strength, seed)
#   attention  a layer that the probabilities of attention pass                 function(inputs, strength, seed)
#   hidden     rows are mixed in one of several places of the model             function(x, strength, seed, places)
#   mask       variables have other values while their layer computes           function(variable, strength, seed)
#   targets    soft targets of each cross-entropy                               function(targets, strength, classes)
#   rows       losses of the rows of each cross-entropy                         function(losses, targets, probabilities, strength)
#   twice      as `rows`, where the second half are the rows passed again       function(losses, targets, probabilities, strength)
#   penalty    a penalty on variables                                           function(variable, strength)
#   adversary  other rows beside those given, by the loss's gradient for them   function(x, gradients, strength)
#   slope      a penalty on the gradient of the loss for the inputs             function(gradients, strength)
#   perturb    the gradient is taken elsewhere                                  function(weights, gradients, strength)
#   noise      is added to the gradient of each variable                        function(variable, strength, step, seed)
#   gradients  all gradients together, before the optimizer's step              function(gradients, strength, weights, axes)
#   decay      variables shrink before the optimizer's step                     function(variable, strength, learning_rate)
#   anchor     is added to the gradient, by where a variable started            function(variable, start, strength)
#   after      variables change after the step, with what is held beside them   function(variable, held, strength, step,
#                                                                                        learning_rate) -> variable, held
#   constraint variables are put right after the step                           function(variable, strength, axis)
#   average    averages of the weights take their place in the end              function(strength, step, begin, length)
#   cycle      the learning rate falls in cycles, whose ends are kept           function(strength, step, begin, length)
#                                                                                        -> share of the rate, number of the cycle
Hook = Literal[
    "batch", "structure", "layer", "branch", "around", "join", "output", "cell", "attention", "hidden", "mask", "targets", "rows", "twice", "penalty", "adversary", "slope", "perturb",
    "noise", "gradients", "decay", "anchor", "after", "constraint", "average", "cycle"
]  # fmt: skip


@dataclass(frozen=True)
class Technique:
    """One way to regularize, declared once; recipes, searches, listings, docs and tests read only this.

    Args:
        name: The key in a recipe.
        place: Where in a training step it acts.
        hook: How it takes part in Keras's step, and so what `function` takes.
        summary: What it does, in one sentence.
        helps: When it helps, in one sentence.
        hurts: When it hurts, in one sentence.
        unit: What one unit of strength means: what is summed, averaged or drawn.
        limits: Smallest and largest strength allowed, both included; 0 is always 'off'.
        range: Where a search looks by default; the lower end is above 0 where `scale` is log.
        scale: How strengths are spaced over `range`; `reverse_log` spaces their distance to 1 as `log` does.
        acts_on: What a key without a pattern reaches.
        at_inference: What is left of it in the plain Keras model.
        paper: Where it comes from.
        function: The mathematics, a pure function of arrays and strength.
        components: The Keras classes that put it into a model, where it has such; one for each rank of inputs where that
            matters.
        stock: Keras's own classes that do the same, and ours, each with the name of its strength.
        given: From a compiled model to the strength that its optimizer has already, or None.
        restore: What plain Keras has of it in an optimizer: sets that, given the optimizer and the strength as recipes have
            it.
        refuses: From a compiled model to why it can't take this, or None.
        variables: Which of a model's variables have a mask.
        behind: Layers behind which a key without a pattern puts it, beside hidden activations.
        start: What is held beside a variable at its first step, of the variable; None for nothing.
        whole: Whether one strength is for all trainable weights, where others have one for each kernel.
        of_inputs: Whether it is of what each input of a kernel leads to, where others are of what leads to each unit.
        fold: Has the layer of Keras's that takes the place of a component, with its weights, compute what that does at this
            strength.
        inverted: Whether the strength in a recipe runs the other way: a bound, with None for 'off'. Inside it is 1 / bound.
        of_length: Whether it depends on how long training is, so that a part of a longer training is another thing.
        learns: Whether its component has weights of its own, of which nothing is left at inference.
        cost: At most about how many times as long as one without a step takes, where it takes more than one gradient or as
            much work. Those from 1.5 up are present or absent: members that have them train apart, so that no other pays.
    """

    name: str
    place: Place
    hook: Hook
    summary: str
    helps: str
    hurts: str
    unit: str
    limits: tuple[float, float]
    range: tuple[float, float]
    scale: Literal["log", "linear", "reverse_log"]
    acts_on: str
    at_inference: str
    paper: str
    function: Callable[..., Any]
    components: tuple[type, ...] = ()
    stock: Mapping[type, str] = field(default_factory=dict)
    given: Callable[[Any], float | None] | None = None
    restore: Callable[[Any, float | None], None] | None = None
    refuses: Callable[[Any], str | None] | None = None
    variables: Literal["kernels", "recurrent_kernels", "embeddings"] = "kernels"
    behind: tuple[type, ...] = ()
    start: Callable[[Any], Any] | None = None
    whole: bool = False
    of_inputs: bool = False
    fold: Callable[[Any, float], None] | None = None
    inverted: bool = False
    of_length: bool = False
    learns: bool = False
    cost: float = 1.0

    @property
    def reach(self) -> Literal["model", "layers", "outputs", "cells", "variables"]:
        """What it is given a strength for: each variable, or layer, or the whole training step."""
        of_hook: dict[Hook, Any] = {"output": "outputs", "cell": "cells"}
        of_hook |= dict.fromkeys(("structure", "layer", "branch", "around", "join", "attention"), "layers")
        of_hook |= dict.fromkeys(("mask", "penalty", "decay", "anchor", "constraint"), "variables")
        if self.hook == "after":
            return "model" if self.whole else "variables"
        return of_hook.get(self.hook, "model")

    @property
    def apart(self) -> bool:
        """Whether members that have it train apart from those that have not."""
        return self.cost >= 1.5 or self.hook == "structure" or self.learns

    @property
    def off(self) -> float:
        """The strength that does nothing, as a number: 0, or a bound of infinity."""
        return math.inf if self.inverted else 0.0

    def checked(self, value: Any, name: str) -> float | None:
        """Return a strength as recipes have it, or say what is wrong with it.

        Raises:
            ValueError: If `value` is not a number within `limits`; None is 'off' where the strength is a bound.
        """
        if isinstance(value, bool):
            raise ValueError(
                f"Invalid value received for argument `{name}`. Expected a number. Received: {name}={value!r}"
            )
        if not self.inverted:
            return checked_strength(value, name, self.limits)
        if value is None:
            return None
        bound = checked_strength(value, name, self.limits)
        if bound < 1e-30:
            raise ValueError(
                f"Invalid value received for argument `{name}`. Expected a number above 0, or None for 'off'. "
                f"Received: {name}={value!r}"
            )
        return bound

    def inside(self, value: float | None) -> float:
        """The strength that the training step computes with, 0 for 'off', of one that a recipe has."""
        if not self.inverted:
            return float(value or 0.0)
        return 0.0 if value is None else 1 / value

    def outside(self, strength: float) -> float | None:
        """The strength as recipes have it, of one that the training step computes with."""
        if not self.inverted:
            return strength
        return 1 / strength if strength else None


def checked_strength(value: Any, name: str, limits: tuple[float, float]) -> float:
    """Return `value` as a float, or say which argument is out of which range.

    Raises:
        ValueError: If `value` is not a number, not finite, or outside `limits`.
    """
    low, high = limits
    upper = f"{high:g}" if math.isfinite(high) else "any finite number"
    try:
        strength = float(value) if _is_real(value) else math.nan
    except (TypeError, ValueError, OverflowError):
        strength = math.nan
    if not (low <= strength <= min(high, _LARGEST)):
        raise ValueError(
            f"Invalid value received for argument `{name}`. Expected a number from {low:g} to {upper}. "
            f"Received: {name}={value!r}"
        )
    return strength


def _is_real(value: Any) -> bool:
    """Whether `value` is a real number or a tensor of one; NumPy's own strings and arrays of text have a shape too."""
    if isinstance(value, numbers.Real):
        return True
    dtype = getattr(value, "dtype", None)
    return (
        dtype is not None
        and value.shape == ()
        and (keras.backend.is_float_dtype(dtype) or keras.backend.is_int_dtype(dtype))
    )


class Strength:
    """A strength as an attribute of a Keras layer: read, it is a `keras.Variable`; set, it assigns to that variable.

    In Keras a number would be frozen into the compiled step; this one acts in the next step, without a retrace.
    """

    def __init__(self, limits: tuple[float, float]) -> None:
        self.limits = limits

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, layer: Any, owner: type | None = None) -> Any:
        if layer is None:
            return self
        try:
            return layer.__dict__["_strengths"][self.name]
        except KeyError:
            raise AttributeError(self.name) from None

    def __set__(self, layer: Any, value: Any) -> None:
        value = checked_strength(value, self.name, self.limits)
        variables = layer.__dict__.setdefault("_strengths", {})
        if self.name in variables:
            variables[self.name].assign(value)
        else:
            variables[self.name] = add_strength(layer, self.name, value)


def add_strength(layer: Any, name: str, value: float) -> keras.Variable:
    """Make a strength for a layer (or model): a scalar, never trained, single precision whatever the layer computes in.

    The layer has it once it is in `layer.__dict__["_strengths"]`, see `HidesStrengths`.
    """

    def initializer(shape: Any, dtype: Any) -> Any:  # `Constant` multiplies, which eager JAX compiles a program for
        return ops.convert_to_tensor(value, dtype)

    with keras.name_scope(layer.name):
        return keras.Variable(initializer, shape=(), dtype="float32", trainable=False, autocast=False, name=name)


def at_least_single(x: Any) -> Any:
    """Return `x`, half precision made single: there a sum soon overflows, and 0 times an infinity is not 0."""
    return ops.cast(x, keras.backend.result_type(x.dtype, "float32"))


def itself(variable: Any) -> Any:
    """What is held beside a variable where that is what it starts with."""
    return variable


class HidesStrengths(keras.layers.Layer):
    """A layer whose strengths are state, as seeds are: among its `variables`, not among its `weights`.

    So `get_weights` and `set_weights` are those of the stock layer. In files the strengths stand beside the layer's own
    variables, where the stock layer does not look: files load either way, and one without strengths leaves them as
    they are. Weight files have no place for a layer's `activity_regularizer`, since Keras does not look there for
    anything to save; in a `.keras` file the configuration has its strengths.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(getattr(type(self), name, None), Strength):
            object.__setattr__(self, name, value)  # untracked: another layer's strength is a number to copy
        else:
            super().__setattr__(name, value)

    @property
    def variables(self) -> list[keras.Variable]:
        return [*super().variables, *self.__dict__.get("_strengths", {}).values()]

    @cached_property
    def saved_strengths(self) -> "SavedVariables":
        """What Keras finds and saves, as it does any layer that it finds as an attribute."""
        return SavedVariables(lambda: self.__dict__.get("_strengths", {}))


class SavedVariables(keras.layers.Layer):
    """Variables that no weight of Keras's is, as a file has them, by name."""

    def __init__(self, held: Callable[[], dict[str, keras.Variable]]) -> None:
        super().__init__()
        self.held = held  # a call, since the variables stay those of the layer that they belong to

    def save_own_variables(self, store: Any) -> None:
        for name, variable in self.held().items():
            store[_in_files(name)] = variable

    def load_own_variables(self, store: Any) -> None:
        names = set(store.keys())  # none in a file of the stock model, or for an instance shared when it was saved
        misfit = None
        for name, variable in self.held().items():
            if _in_files(name) in names:
                try:
                    variable.assign(store[_in_files(name)])
                except ValueError as error:  # with `skip_mismatch` the others are to be read all the same
                    misfit = misfit or error
        if misfit is not None:
            raise misfit


def _in_files(name: str) -> str:
    return name.replace("/", "|")  # which would make a folder
