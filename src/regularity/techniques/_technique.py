"""What a technique is: one declaration, and the strength that Keras components hold as a weight."""

import math
import numbers
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import keras

Place = Literal["batch", "activations", "targets", "weights", "gradient", "update"]


@dataclass(frozen=True)
class Technique:
    """One way to regularize, declared once; recipes, searches, listings and tests read only this.

    Args:
        name: The key in a recipe.
        place: Where in a training step it acts.
        summary: What it does, in one sentence.
        unit: What one unit of strength means: what is summed, averaged or drawn.
        limits: Smallest and largest strength allowed, both included; 0 is always 'off'.
        range: Where a search looks by default, lower end above 0.
        scale: How strengths are spaced over `range`.
        acts_on: What a key without a pattern reaches.
        at_inference: What is left of it in the plain Keras model.
        paper: Where it comes from.
        function: The mathematics, a pure function of arrays and strength.
        component: The Keras class that puts it into a model, where it has one.
        stock: Keras's own classes that do the same, each with the name of its strength.
    """

    name: str
    place: Place
    summary: str
    unit: str
    limits: tuple[float, float]
    range: tuple[float, float]
    scale: Literal["log", "linear"]
    acts_on: str
    at_inference: str
    paper: str
    function: Callable[..., Any]
    component: type | None = None
    stock: Mapping[type, str] = field(default_factory=dict)


def checked_strength(value: Any, name: str, limits: tuple[float, float]) -> float:
    """Return `value` as a float, or say which argument is out of which range.

    Raises:
        ValueError: If `value` is not a number, not finite, or outside `limits`.
    """
    low, high = limits
    upper = f"{high:g}" if math.isfinite(high) else "any finite number"
    number = isinstance(value, numbers.Real) or getattr(value, "shape", None) == ()
    try:
        strength = float(value) if number else math.nan
    except (TypeError, ValueError):
        strength = math.nan
    if not (low <= strength <= high) or math.isinf(strength):
        raise ValueError(
            f"Invalid value received for argument `{name}`. Expected a number from {low:g} to {upper}. "
            f"Received: {name}={value}"
        )
    return strength


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
    """Give a layer (or model) a strength: a scalar, never trained, in single precision whatever the layer computes in."""
    return layer.add_weight(
        shape=(),
        initializer=keras.initializers.Constant(value),
        dtype="float32",
        autocast=False,
        trainable=False,
        name=name,
    )


class HidesStrengths(keras.layers.Layer):
    """A layer whose strengths are state, as seeds are: among its `variables` and in its files, not among its `weights`.

    So `get_weights`, `set_weights` and weight files are those of the stock layer, and a file without strengths loads.
    """

    @property
    def weights(self) -> list[keras.Variable]:
        hidden = {id(v) for v in self.__dict__.get("_strengths", {}).values()}
        return [w for w in super().weights if id(w) not in hidden]

    def load_own_variables(self, store: Any) -> None:
        if len(store.keys()):  # else a file of the stock model, or a shared instance saved elsewhere: the config has it
            super().load_own_variables(store)
