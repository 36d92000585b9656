"""A recipe: which techniques, where, how strong."""

import difflib
import html
import json
import math
import numbers
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal

from regularity import _keras
from regularity.catalogue import CATALOGUE, SCHEDULES, checked_strength
from regularity.recipe import _sites
from regularity.recipe._regularized import Regularized, regularize

FIELDS = ("epochs", "learning_rate")


class Recipe:
    """Which techniques, where and how strong: a mapping from `technique` or `technique@pattern` to a strength.

    A key without a pattern reaches the technique's usual places and every place where the model has it already. A
    pattern is shell-style: without a slash over layer names (then the usual variables of those layers), with a slash
    over paths such as `encoder/dense/kernel`. An exact name beats a pattern, the last pattern beats earlier ones, a
    recipe beats what the model brings, and strengths are never added up.

    Args:
        techniques: Keys and strengths: a number, or a mapping with `strength` and, for one that changes while training, a
            `schedule`: linear, cosine, flat_cos, coslog4, warm_up or step, by the share of training done. The keys `epochs` (whole
            number from 1) and `learning_rate` (above 0) are fields of their own, and attributes. Each technique's page says
            what a unit of its strength is and which are allowed; 0 is 'off', or None where it is a bound, as that of
            `max_norm` and `clip_norm`.

    Raises:
        ValueError: If a technique, a field or a strength is not one that the catalogue allows.
        TypeError: If `techniques` or a value is of another form.

    Example:
        >>> import regularity as rg
        >>> recipe = rg.Recipe({"l2": 3e-4, "dropout@dense*": 0.3, "epochs": 20})
        >>> recipe["l2"], recipe.epochs
        (0.0003, 20)
        >>> rg.Recipe.from_json(recipe.to_json()) == recipe
        True

    Holzmüller, Grinsztajn and Steinwart, "Better by default: strong pre-tuned MLPs and boosted trees on tabular data", 2024,
    for flat_cos and coslog4.
    """

    def __init__(self, techniques: Mapping[str, Any] | None = None) -> None:
        if not isinstance(techniques, (Mapping, type(None))):
            raise TypeError(
                "Invalid value received for argument `techniques`. Expected a mapping such as {'l2': 1e-3}. "
                f"Received: techniques={techniques!r} (of type {type(techniques).__name__})"
            )
        entries = dict(techniques or {})
        self.epochs = _checked_epochs(entries.pop("epochs", None))
        self.learning_rate = _checked_learning_rate(entries.pop("learning_rate", None))
        self._strengths = {key: _checked_entry(key, value) for key, value in entries.items()}
        self._schedules = {key: _checked_schedule(key, value) for key, value in entries.items()}

    @property
    def strengths(self) -> Mapping[str, float | None]:
        """The strengths by key, without the fields."""
        return MappingProxyType(self._strengths)

    @property
    def schedules(self) -> Mapping[str, str]:
        """The schedules of strengths that change while training, by key."""
        return MappingProxyType({key: name for key, name in self._schedules.items() if name != "constant"})

    def apply(self, model: Any, *, init: Literal["keep", "fresh"] = "keep", seed: int | None = None) -> Regularized:
        """Return a new model whose strengths are weights and which trains with this recipe by itself.

        Strengths that `model` has already (stock regularizers and dropout, an optimizer's weight decay) become
        strengths too, unless the recipe sets them. `model` is not touched.

        Args:
            model: A compiled Keras model; Sequential and Functional ones of any nesting, or a subclassed one, in which
                layers can be exchanged but none put in.
            init: `keep` carries the weights over, `fresh` draws them anew by the model's own initializers.
            seed: Whole number from 0 that sets the fresh weights and all random numbers of training; None keeps what there is.

        Returns:
            A compiled `keras.Model` of the same kind, with `.strengths` and `.to_keras()`.

        Raises:
            TypeError: If `model` is none of Keras's.
            ValueError: If the model is not compiled or built, or a key reaches nothing in it.

        Example:
            >>> import keras, regularity as rg
            >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8, "relu", name="hidden"), keras.layers.Dense(1)])
            >>> model.compile("adam", "mse")
            >>> regularized = rg.Recipe({"l2": 1e-3, "dropout": 0.2}).apply(model)
            >>> sorted(regularized.strengths)[0]
            'dropout@hidden'
        """
        sites = sites_of(model)
        strengths = _sites.resolve(self._strengths, sites, model)
        schedules = schedules_of(self, sites, model)
        applied = regularize(model, sites, strengths, schedules=schedules, init=init, seed=seed)
        if self.learning_rate is not None:
            _keras.learning_rate_variable(applied.optimizer).assign(self.learning_rate)
        return applied

    def to_json(self) -> str:
        """Return the recipe as JSON, one object with the keys in their order.

        Example:
            >>> import regularity as rg
            >>> rg.Recipe({"mixup": {"strength": 0.2, "schedule": "flat_cos"}, "max_norm": None}).to_json()
            '{"mixup": {"strength": 0.2, "schedule": "flat_cos"}, "max_norm": null}'
        """
        fields = {name: getattr(self, name) for name in FIELDS if getattr(self, name) is not None}
        entries = {
            key: {"strength": strength, "schedule": self.schedules[key]} if key in self.schedules else strength
            for key, strength in self._strengths.items()
        }
        return json.dumps({**entries, **fields})

    @classmethod
    def from_json(cls, text: str) -> "Recipe":
        """Read a recipe that `to_json` wrote, or that was written by hand.

        Args:
            text: One JSON object.

        Raises:
            ValueError: If `text` is not JSON, or not a recipe.

        Example:
            >>> import regularity as rg
            >>> rg.Recipe.from_json('{"dropout": 0.3, "epochs": 20}')
            Recipe({'dropout': 0.3, 'epochs': 20})
        """
        try:
            return cls(json.loads(text))
        except (json.JSONDecodeError, TypeError) as error:
            raise ValueError(
                f'Expected a recipe as JSON, such as {{"l2": 0.001}}. Received: {text!r} ({error})'
            ) from None

    def __getitem__(self, key: str) -> float | None:
        return self._strengths[key]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Recipe) and self.to_json() == other.to_json()

    def __hash__(self) -> int:
        return hash(self.to_json())

    def __repr__(self) -> str:
        return f"Recipe({json.loads(self.to_json())!r})"

    def _repr_html_(self) -> str:
        """A row for each key, as a notebook shows it."""
        rows = "".join(
            f"<tr><th>{html.escape(key)}</th><td>{html.escape(json.dumps(value))}</td></tr>"
            for key, value in json.loads(self.to_json()).items()
        )
        return f"<table>{rows}</table>" if rows else "<p>A recipe without techniques</p>"


def sites_of(model: Any) -> list[_sites.Site]:
    """Return the sites of a model that can be trained, or say what it lacks.

    Raises:
        TypeError: If `model` is not a Keras model.
        ValueError: If it is not compiled or not built.
    """
    import keras

    if not isinstance(model, keras.Model):
        raise TypeError(
            "Invalid value received for argument `model`. Expected a keras.Model. "
            f"Received: model={model!r} (of type {type(model).__name__})"
        )
    if isinstance(model, Regularized):
        raise ValueError(
            f"Invalid value received for argument `model`. Expected a model of your own. Received: {model.name!r}, to which "
            "a recipe has been applied. Pass its way back, model.to_keras(), which keeps its strengths."
        )
    if not model.compiled or getattr(model, "optimizer", None) is None:
        raise ValueError(
            f"Invalid value received for argument `model`. Expected a compiled model. Received: {model.name!r}, which "
            "is not. Compile it first, for example: "
            "model.compile(optimizer='adam', loss='sparse_categorical_crossentropy', metrics=['accuracy'])"
        )
    if not model.built:
        raise ValueError(
            f"Invalid value received for argument `model`. Expected a built model. Received: {model.name!r}, which has "
            "no weights yet. Give it an input, for example keras.Input((20,)) as the first layer, or call it once on data."
        )
    return _sites.find_sites(model)


def as_given(model: Any) -> Recipe:
    """The recipe of a compiled model as it is: every strength it brings, under names made from its layers."""
    sites = sites_of(model)
    entries: dict[str, float | None] = {}
    for name, technique in CATALOGUE.items():
        given = [site for site in sites if site.technique == name and site.given is not None]
        reached = [site for site in sites if site.technique == name and (site.default or site.given is not None)]
        same = {site.given for site in given}
        if given and given == reached and len(same) == 1:
            entries[name] = technique.outside(float(same.pop() or 0.0))
        else:
            entries.update({site.key: technique.outside(float(site.given or 0.0)) for site in given})
    return Recipe(entries)


def _checked_entry(key: Any, value: Any) -> float | None:
    if not isinstance(key, str):
        raise TypeError(f"Expected a string such as 'l2' or 'l2@dense*' as key of a recipe. Received: {key!r}")
    name, at, pattern = key.partition("@")
    if name not in CATALOGUE or (at and not pattern):
        close = difflib.get_close_matches(name, CATALOGUE, n=1)
        hint = f" Did you mean {close[0]!r}?" if close and name not in CATALOGUE else ""
        raise ValueError(
            f"Invalid key in a recipe. Expected `technique` or `technique@pattern`, with a technique of "
            f"{list(CATALOGUE)}, or a field of {list(FIELDS)}. Received: {key!r}.{hint}"
        )
    if isinstance(value, Mapping):
        unknown = [parameter for parameter in value if parameter not in ("strength", "schedule")]
        if unknown or "strength" not in value:
            raise ValueError(
                f"Invalid value received for {key!r}. Expected a number, or a mapping with the key 'strength' and perhaps "
                f"'schedule' ({name!r} has no further parameters). Received: {dict(value)!r}"
            )
        value = value["strength"]
    return CATALOGUE[name].checked(value, key)


def _checked_schedule(key: str, value: Any) -> str:
    name = value.get("schedule", "constant") if isinstance(value, Mapping) else "constant"
    if not isinstance(name, str) or name not in SCHEDULES:
        raise ValueError(
            f"Invalid value received for the schedule of {key!r}. Expected one of {list(SCHEDULES)}. Received: {name!r}"
        )
    return name


def schedules_of(recipe: "Recipe", sites: Sequence[_sites.Site], model: Any) -> dict[str, str]:
    """The schedule of every site whose strength changes while training, by the site's key."""
    deciding = _sites.deciding(recipe.strengths, sites, model)
    return {at: recipe.schedules[key] for at, key in deciding.items() if key in recipe.schedules}


def _checked_epochs(value: Any) -> int | None:
    if value is None:
        return None
    number = float(value) if isinstance(value, numbers.Real) and not isinstance(value, bool) else math.nan
    if not number >= 1 or not number.is_integer():
        raise ValueError(
            f"Invalid value received for argument `epochs`. Expected a whole number from 1. Received: epochs={value!r}"
        )
    return int(number)


def _checked_learning_rate(value: Any) -> float | None:
    if value is None:
        return None
    rate = checked_strength(value, "learning_rate", (0.0, float("inf")))
    if rate == 0:
        raise ValueError(
            f"Invalid value received for argument `learning_rate`. Expected a number above 0. Received: learning_rate={value}"
        )
    return rate
