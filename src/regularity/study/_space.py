"""What to search: a recipe with ranges for numbers, and what of the catalogue fits a model."""

import copy
import math
import numbers
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np

from regularity import _keras
from regularity.catalogue import CATALOGUE, SCHEDULES, Technique
from regularity.data import Data
from regularity.recipe import Recipe, as_given, sites_of
from regularity.recipe._sites import deciding

# Where the weakest strength of a range stands on the way from 'off', at 0, to the strongest, at 1: near 'off', since a
# range begins where a technique hardly acts, but not upon it.
_WEAKEST = 0.2
# In this order; what a model has no place for is left out. None of them makes a program of its own.
_CANDIDATES = (
    "weight_decay",
    "l2",
    "dropout",
    "recurrent_dropout",
    "attention_dropout",
    "embedding_dropout",
    "drop_path",
    "label_smoothing",
    "mixup",
    "cutmix",
    "input_noise",
)


@dataclass(frozen=True)
class Dimension:
    """One number that a search looks for.

    Args:
        key: Of a recipe: a technique, `technique@pattern`, or `learning_rate`.
        low: The weakest strength.
        high: The strongest; where a strength is a bound this is the lower number.
        scale: As a technique's.
        schedules: What the strength may do while training; one name leaves no choice.
        off_at: Where 'off' stands for a surrogate, which for the learning rate is the optimizer's own.
    """

    key: str
    low: float
    high: float
    scale: str
    schedules: tuple[str, ...] = ("constant",)
    off_at: float = 0.5

    @property
    def technique(self) -> Technique | None:
        """What it is a strength of; None for the learning rate."""
        return CATALOGUE.get(self.key.partition("@")[0])

    def strength(self, place: float) -> float:
        """The strength at a share of the way from the weakest to the strongest."""
        low, high = self._inner(self.low), self._inner(self.high)
        if self.scale == "linear":
            return low + place * (high - low)
        inner = float(np.exp(np.log(low) + place * (np.log(high) - np.log(low))))
        return 1 - inner if self.scale == "reverse_log" else inner

    def place(self, strength: float) -> float:
        """The share of the way at which a strength stands."""
        low, high, at = (self._inner(value) for value in (self.low, self.high, strength))
        if self.scale != "linear":
            low, high, at = (float(np.log(max(value, 1e-30))) for value in (low, high, at))
        return (at - low) / (high - low)

    def _inner(self, strength: float) -> float:
        """What is spaced evenly, or by the logarithm."""
        return 1 - strength if self.scale == "reverse_log" else strength


class Space:
    """A recipe with ranges for numbers: what a search looks for.

    Args:
        entries: Recipe keys, each with a range `(low, high)`, a number that stays, None for the technique's own range, or a
            mapping with `strength` (one of these) and `schedule` (a name or a list of names). 'Off' is always tried
            beside a range. The key `learning_rate` has a range or a number; 'off' is the optimizer's own.

    Raises:
        ValueError: If a key is not one of a recipe, or a range is none of the technique's.
        TypeError: If `entries` is no mapping.

    Example:
        >>> import regularity as rg
        >>> rg.Space({"dropout": None, "l2": (1e-5, 1e-2), "learning_rate": (1e-4, 1e-2)}).keys
        ('dropout', 'l2', 'learning_rate')
    """

    def __init__(self, entries: Mapping[str, Any]) -> None:
        if not isinstance(entries, Mapping):
            raise TypeError(
                "Invalid value received for argument `entries`. Expected a mapping such as {'l2': (1e-5, 1e-2)}. "
                f"Received: {entries!r} (of type {type(entries).__name__})"
            )
        self.fixed: dict[str, Any] = {}
        self.dimensions: list[Dimension] = []
        for key, value in entries.items():
            found = _entry(key, value)
            if isinstance(found, Dimension):
                self.dimensions.append(found)
            else:
                self.fixed[key] = found
        if not self.dimensions:
            raise ValueError(
                "Invalid value received for argument `techniques`. Expected something to search: a technique, or a range "
                f"such as {{'l2': (1e-5, 1e-2)}}. Received: {dict(entries)!r}"
            )

    @property
    def keys(self) -> tuple[str, ...]:
        """What is searched or fixed."""
        return (*(dimension.key for dimension in self.dimensions), *self.fixed)

    def __repr__(self) -> str:
        ranges = {
            d.key: (d.low, d.high)
            if d.schedules == ("constant",)
            else {"strength": (d.low, d.high), "schedule": list(d.schedules)}
            for d in self.dimensions
        }
        return f"Space({ranges | self.fixed!r})"

    # -- points: strength by key, and schedule by `key schedule`; what is off is left out ---------------------------

    def recipe(self, point: Mapping[str, Any], off: Mapping[str, float | None]) -> Recipe:
        """The recipe of a point.

        Args:
            point: Strengths that are on, by key.
            off: What the model brings, and how to switch it off.
        """
        entries: dict[str, Any] = {**off, **self.fixed}
        for dimension in self.dimensions:
            if dimension.key in point:
                schedule = point.get(f"{dimension.key} schedule", dimension.schedules[0])
                strength = point[dimension.key]
                entries[dimension.key] = (
                    strength if schedule == "constant" else {"strength": strength, "schedule": schedule}
                )
        return Recipe(entries)

    def encoded(self, point: Mapping[str, Any]) -> list[float]:
        """A point as numbers from 0 to 1, for a surrogate: 0 is off, and schedules are columns of their own."""
        row: list[float] = []
        for dimension in self.dimensions:
            on = dimension.key in point
            if dimension.technique is None:
                row.append(dimension.place(point[dimension.key]) if on else dimension.off_at)
                continue
            row.append(_WEAKEST + (1 - _WEAKEST) * dimension.place(point[dimension.key]) if on else 0.0)
            if len(dimension.schedules) > 1:
                chosen = point.get(f"{dimension.key} schedule") if on else None
                row += [float(name == chosen) for name in dimension.schedules]
        return row

    def singles(self, place: float) -> Iterator[dict[str, Any]]:
        """Each technique alone, at a share of its range."""
        for dimension in self.dimensions:
            if dimension.technique is not None:
                yield {dimension.key: dimension.strength(place), **_schedule(dimension, 0)}

    def combined(self, many: int, seed: int) -> list[dict[str, Any]]:
        """Points at random, of two dimensions to all of them, spread over each range.

        McKay, Beckman and Conover, "A comparison of three methods for selecting values of input variables", 1979, for how
        they are spread.
        """
        random, most = np.random.default_rng(seed), len(self.dimensions)
        points: list[dict[str, Any]] = [{} for _ in range(many)]
        on = np.zeros((many, most), bool)
        for row in on:
            row[random.choice(most, random.integers(min(2, most), most + 1), replace=False)] = True
        for i, dimension in enumerate(self.dimensions):
            those = np.flatnonzero(on[:, i])
            places = (random.permutation(len(those)) + random.random(len(those))) / max(len(those), 1)
            for n, place in zip(those, places, strict=True):
                points[n][dimension.key] = dimension.strength(float(place))
                points[n] |= _schedule(dimension, int(random.integers(len(dimension.schedules))))
        return points

    def suggested(self, trial: Any) -> dict[str, Any]:
        """The point that a trial of Optuna suggests."""
        point: dict[str, Any] = {}
        for dimension in self.dimensions:
            if not trial.suggest_categorical(f"{dimension.key} on", [False, True]):
                continue
            if dimension.scale == "reverse_log":
                inner = trial.suggest_float(f"1 - {dimension.key}", 1 - dimension.high, 1 - dimension.low, log=True)
                point[dimension.key] = 1 - inner
            else:
                low, high = sorted((dimension.low, dimension.high))
                point[dimension.key] = trial.suggest_float(dimension.key, low, high, log=dimension.scale == "log")
            if len(dimension.schedules) > 1:
                name = f"{dimension.key} schedule"
                point[name] = trial.suggest_categorical(name, list(dimension.schedules))
        return point

    def enqueued(self, point: Mapping[str, Any]) -> dict[str, Any]:
        """Parameters with which Optuna suggests a point."""
        parameters: dict[str, Any] = {}
        for dimension in self.dimensions:
            on = dimension.key in point
            parameters[f"{dimension.key} on"] = on
            if on and dimension.scale == "reverse_log":
                parameters[f"1 - {dimension.key}"] = 1 - point[dimension.key]
            elif on:
                parameters[dimension.key] = point[dimension.key]
            if on and len(dimension.schedules) > 1:
                parameters[f"{dimension.key} schedule"] = point[f"{dimension.key} schedule"]
        return parameters

    def apart(self) -> list[str]:
        """What makes a program of its own when on, by key."""
        return [d.key for d in self.dimensions if d.technique is not None and d.technique.apart]


def _schedule(dimension: Dimension, which: int) -> dict[str, str]:
    return {f"{dimension.key} schedule": dimension.schedules[which]} if len(dimension.schedules) > 1 else {}


def _entry(key: Any, value: Any) -> Any:
    """A dimension, or what stays."""
    if key == "learning_rate":
        if isinstance(value, numbers.Real):
            return Recipe({key: value}).learning_rate
        if value is None:
            raise ValueError(
                f"Invalid value received for {key!r} in a space. Expected a range such as {{{key!r}: (1e-4, 1e-2)}}, since it "
                "has none of its own. Received: None"
            )
        low, high = _range(key, value)
        for end in (low, high):
            Recipe({key: end})
        return Dimension(key, low, high, "log")
    strength, schedules = value, ("constant",)
    if isinstance(value, Mapping):
        unknown = [name for name in value if name not in ("strength", "schedule")]
        if unknown:
            raise ValueError(
                f"Invalid value received for {key!r}. Expected a mapping with 'strength' and 'schedule'. Received: {dict(value)!r}"
            )
        strength = value.get("strength")
        given = value.get("schedule", "constant")
        schedules = (given,) if isinstance(given, str) else tuple(given)
        if not schedules:
            raise ValueError(
                f"Invalid value received for the schedule of {key!r}. Expected one of {list(SCHEDULES)}, or several. "
                "Received: none"
            )
        for name in schedules:
            if name not in SCHEDULES:
                raise ValueError(
                    f"Invalid value received for the schedule of {key!r}. Expected names of {list(SCHEDULES)}. Received: {given!r}"
                )
    if key == "epochs":
        raise ValueError(
            "Invalid key in a space: 'epochs'. How long to train is read off the curves of each candidate. "
            "Set the longest training with the argument `epochs`."
        )
    if isinstance(strength, numbers.Real) and not isinstance(strength, bool):
        recipe = Recipe({key: value})
        return {"strength": recipe[key], "schedule": schedules[0]} if recipe.schedules else recipe[key]
    technique = _technique(key)
    if strength is None:
        low, high = technique.range
    else:
        low, high = _range(key, strength)
        for end in (low, high):
            technique.checked(end, key)
        if technique.scale == "log" and low <= 0:
            raise ValueError(
                f"Invalid value received for {key!r}. Expected a range that begins above 0, since its scale is logarithmic "
                f"and 'off' is tried besides. Received: {strength!r}"
            )
        if technique.scale == "reverse_log" and high >= 1:
            raise ValueError(
                f"Invalid value received for {key!r}. Expected a range that ends below 1, since strengths crowd there. "
                f"Received: {strength!r}"
            )
    if technique.scale == "linear" and low == 0:
        low = high / 20  # what lies below is as good as off, which is tried besides
    return Dimension(key, *((high, low) if technique.inverted else (low, high)), technique.scale, schedules)


def _technique(key: Any) -> Technique:
    declared = CATALOGUE.get(str(key).partition("@")[0])
    Recipe({key: None if declared is not None and declared.inverted else 0.0})  # says what is wrong with the key
    return CATALOGUE[str(key).partition("@")[0]]


def _range(key: str, value: Any) -> tuple[float, float]:
    try:
        low, high = (float(end) for end in value)
        if -math.inf < low < high < math.inf and not isinstance(value, (str, bytes)):
            return low, high
    except (TypeError, ValueError):
        pass
    raise ValueError(
        f"Invalid value received for {key!r} in a space. Expected a range (low, high), a number that stays, or None for "
        f"the technique's own range. Received: {value!r}"
    )


def space_of(techniques: Any, model: Any, data: Data) -> Space:
    """The space that a user asked for, or what fits the model; every key reaches something."""
    if isinstance(techniques, Space):
        space = techniques
    elif isinstance(techniques, Mapping):
        space = Space(techniques)
    elif techniques == "auto":
        space = Space(dict.fromkeys(_fitting(model, data)))
    elif isinstance(techniques, Iterable) and not isinstance(techniques, (str, bytes)):
        # a set has another order in each process, and with it the study another name
        names = sorted(techniques, key=str) if isinstance(techniques, (set, frozenset)) else list(techniques)
        if not names:
            raise ValueError(
                "Invalid value received for argument `techniques`. Expected at least one technique, or 'auto'. Received: none."
            )
        space = Space(dict.fromkeys(names))
    else:
        raise TypeError(
            "Invalid value received for argument `techniques`. Expected 'auto', a list such as ['l2', 'dropout'], or a "
            f"mapping with ranges. Received: techniques={techniques!r}"
        )
    deciding([key for key in space.keys if key != "learning_rate"], sites_of(model), model)
    if "learning_rate" in space.keys:
        own = float(_keras.learning_rate_variable(model.optimizer).numpy())  # says that a schedule can't be set
        space = copy.copy(space)
        space.dimensions = [
            d if d.technique is not None else replace(d, off_at=float(np.clip(d.place(own), -1, 2)))
            for d in space.dimensions
        ]
    return space


def brought(model: Any) -> dict[str, float | None]:
    """How to switch off each technique that a model brings, wherever it does."""
    names = dict.fromkeys(key.partition("@")[0] for key, strength in as_given(model).strengths.items() if strength)
    return {name: None if CATALOGUE[name].inverted else 0.0 for name in names}


def _fitting(model: Any, data: Data) -> list[str]:
    """What the model has places for and its data can take, and what it brings."""
    sites = sites_of(model)
    usual = {site.technique for site in sites if site.default or site.given is not None}
    arrays = keras.tree.flatten(data.x)
    floats = [array.dtype.kind == "f" for array in arrays]
    pixels = [array.dtype == "uint8" and array.ndim in (3, 4) for array in arrays]
    found = []
    for name in _CANDIDATES:
        technique = CATALOGUE[name]
        # whole numbers may be categories, but not where they are pixels; noise is in the unit of inputs, and so is its range
        may_change = np.logical_or(floats, pixels) if name != "input_noise" else floats
        if name not in usual or (technique.place == "batch" and not all(may_change)):
            continue
        if name == "l2" and "weight_decay" in found:
            continue  # the same aim twice; decoupled from the gradient one strength holds for all layers
        found.append(name)
    return [*found, *(name for name in brought(model) if name not in found and not CATALOGUE[name].apart)]
