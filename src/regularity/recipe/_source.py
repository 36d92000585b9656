"""A model and the training with its recipe as Python source: stock Keras where the recipe is, else with Regularity."""

import inspect
import json
import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import keras

from regularity import _keras
from regularity.catalogue import CATALOGUE
from regularity.recipe import _sites
from regularity.recipe._copying import matching, put_in_names, rebuild
from regularity.recipe._layout import Group, Parts
from regularity.recipe._recipe import FIELDS, Recipe, sites_of
from regularity.recipe._writing import Writer, cannot, has_auto_name


@_keras.without_tensorflow()
def source(
    model: Any,
    recipe: Recipe,
    *,
    batch_size: int = 32,
    epochs: int | None = None,
    class_weight: Mapping[int, float] | None = None,
    weighted: bool = False,
    kept: bool = False,
) -> str:
    """Return a Python program that builds `model` with fresh weights and trains it with `recipe`, on `x` and `y`.

    It is stock Keras where every technique of the recipe has a form in Keras that trains the same: regularizers,
    constraints, layers like dropout, arguments of the optimizer and of the loss. Else it writes the model as it is and
    applies the whole recipe with Regularity.

    Args:
        model: A compiled Sequential or Functional model, models of these kinds inside it included.
        recipe: What to train it with. Its own `epochs` and `learning_rate` go before others.
        batch_size: Rows of a step.
        epochs: How often to pass the rows where the recipe doesn't say; None for Keras's default.
        class_weight: The weight of each class, or None.
        weighted: Whether rows have weights of their own.
        kept: Whether training begins with the weights that `model` has, which the program's reader has to bring.

    Raises:
        ValueError: If the model can't be written: a subclassed one, one with a lambda, or a layer without a configuration.
    """
    if not _keras.is_rebuildable(model):
        raise ValueError(
            cannot(f"{type(model).__name__} {model.name!r}", "what its `call` computes stands only in its own code")
        )
    if _keras.compiles_in_its_own_way(model):
        raise ValueError(cannot(f"{type(model).__name__} {model.name!r}", "its class has a way of its own to compile"))
    applied = recipe.apply(model)
    settings = _Settings(
        rate=_keras.innermost(applied.optimizer).get_config()["learning_rate"],
        batch_size=batch_size,
        epochs=recipe.epochs or epochs,
        class_weight=class_weight,
        weighted=weighted,
        kept=kept,
    )
    plain, targets = applied.to_keras(), _targets(applied)
    if targets is not None and _is_stock(applied, plain):
        put_in = {path.rpartition("/")[2] for path in _put_in(applied).values()}
        return _program(plain, settings, targets=targets, unnamed=put_in)
    return _program(model, settings, entries=_entries(model, recipe))


@dataclass(frozen=True)
class _Settings:
    """What of a training is no technique; `rate` is a number or a schedule as Keras serializes it."""

    rate: Any
    batch_size: int
    epochs: int | None
    class_weight: Mapping[int, float] | None
    weighted: bool
    kept: bool


# -- what Keras has a form of ---------------------------------------------------------------------------------------------


def _is_stock(applied: Any, plain: Any) -> bool:
    """Whether `plain`, made anew by its arguments, trains with all strengths of `applied`."""
    if applied.__dict__["_schedules"]:
        return False
    names, wanted = _put_in(applied), {}
    for site in applied.__dict__["_sites"]:
        technique, value = CATALOGUE[site.technique], _sites.as_number(applied.strengths[site.key])
        if technique.hook == "cycle" and value:
            return False
        if technique.hook == "average" and value and _keras.batch_statistics(plain):
            return False  # Keras leaves the statistics of batch normalization as they are
        if technique.hook in ("layer", "cell", "attention") and value >= technique.limits[1]:
            return False  # some of Keras's divide by what is kept
        if technique.fold is not None and site.key in names:
            if value not in (0, 1):
                return False
        elif technique.hook != "targets":
            wanted[f"{technique.name}@{names[site.key]}" if site.key in names else site.key] = value
    written = _as_written(plain)
    found = {site.key: site.given for site in _sites.find_sites(written) if site.given}
    return not _differing(wanted, found) and all(
        _described(theirs.constraint) == _described(ours.constraint) for theirs, ours in matching(plain, written)
    )


def _targets(applied: Any) -> dict[str, float] | None:
    """The arguments of Keras's losses that do what techniques do to targets, or None where there are no such."""
    strengths = {key: _sites.as_number(v) for key, v in applied.strengths.items()}
    targets = {key: value for key, value in strengths.items() if value and CATALOGUE[_technique(key)].hook == "targets"}
    losses = keras.tree.flatten(_keras.compiled_with(applied)["loss"])
    return targets if all(_with_targets(loss, targets) is not None for loss in losses if loss is not None) else None


def _with_targets(loss: Any, targets: Mapping[str, float]) -> Any:
    """A loss with further arguments, as it is where none are for it, or None where it does not take them."""
    if not targets or _keras.stock_loss(loss) is None:
        return loss
    if not isinstance(loss, keras.Loss):
        loss = keras.losses.get("".join(map(str.capitalize, _keras.loss_name(loss).split("_"))))
    config = loss.get_config()
    return type(loss).from_config({**config, **targets}) if targets.keys() <= config.keys() else None


def _entries(model: Any, recipe: Recipe) -> dict[str, Any]:
    """The recipe to apply to `model` made anew by its arguments: without fields, with strengths that arguments can't say."""
    written = _as_written(model)
    wanted, found = (_sites.resolve(recipe.strengths, sites_of(one), one) for one in (model, written))
    entries = {key: value for key, value in json.loads(recipe.to_json()).items() if key not in FIELDS}
    more = {key: CATALOGUE[_technique(key)].outside(wanted.get(key, 0.0)) for key in _differing(wanted, found)}
    return {**entries, **more}


def _as_written(model: Any) -> Any:
    """`model` made anew by its arguments alone, as the program makes it, to see what they say of its strengths.

    Raises:
        ValueError: If it trains other variables.
    """
    written = rebuild(model, {})
    there = _keras.by_path(written)
    for path, layer in [("", model), *_keras.walk(model)]:
        if not layer.trainable:
            there[path].trainable = False
    for theirs, ours in matching(model, written):
        if theirs.trainable != ours.trainable:
            raise ValueError(cannot(f"variable {theirs.path!r}", "it was frozen by itself, without its layer"))
    optimizer = _keras.innermost(model.optimizer)
    config = {**optimizer.get_config(), **_decay_argument(optimizer)}
    optimizer = type(optimizer).from_config(config)
    optimizer.exclude_from_weight_decay(var_names=_not_decayed(model))
    written.compile(optimizer, _keras.compiled_with(model)["loss"])
    return written


def _not_decayed(model: Any) -> list[str]:
    """Names of variables that tell those which the optimizer leaves out of its weight decay, or none if no names do."""
    optimizer = _keras.innermost(model.optimizer)
    if optimizer.weight_decay is None:
        return []
    decays = [(variable.name, _keras.decays(optimizer, variable)) for variable in model.trainable_variables]
    left_out = sorted({name for name, on in decays if not on})
    apart = not any(re.search("|".join(left_out), name) for name, on in decays if on)
    return left_out if apart else []


def _decay_argument(optimizer: Any) -> dict[str, float]:
    """What an optimizer that must have a weight decay is given where it has none."""
    default = inspect.signature(type(optimizer).__init__).parameters.get("weight_decay")
    required = default is not None and default.default is not None
    return {"weight_decay": 0.0} if required and optimizer.weight_decay is None else {}


def _differing(wanted: Mapping[str, float], found: Mapping[str, float | None]) -> list[str]:
    """The keys of strengths that are not the same, those that are missing being 0."""

    def same(key: str) -> bool:
        return math.isclose(wanted.get(key) or 0.0, found.get(key) or 0.0, rel_tol=1e-6)

    return [key for key in {**wanted, **found} if not same(key)]


def _described(constraint: Any) -> Any:
    return constraint and (type(constraint), getattr(constraint, "get_config", dict)())


def _put_in(applied: Any) -> dict[str, str]:
    return put_in_names(applied.__dict__["_given"](), applied.__dict__["_sites"])


def _technique(key: str) -> str:
    return key.partition("@")[0]


# -- the program ----------------------------------------------------------------------------------------------------------


def _program(
    model: Any,
    settings: _Settings,
    *,
    entries: Mapping[str, Any] = MappingProxyType({}),
    targets: Mapping[str, float] = MappingProxyType({}),
    unnamed: Collection[str] = (),
) -> str:
    """The program of a model, of what its losses are given and, unless it is empty, of a recipe to apply."""
    compiled = _keras.compiled_with(model)
    by_name = {key for value in compiled.values() if isinstance(value, dict) for key in value}
    patterns = any("@" in key for key in entries)

    def keep(thing: Any) -> bool:
        if thing.name in unnamed:
            return False
        matched = patterns and thing is not model and not isinstance(thing, keras.layers.InputLayer)
        return matched or thing.name in by_name or not has_auto_name(thing)

    writer = Writer(model, keep)
    if keras.config.dtype_policy().name != "float32":
        writer.write("keras.config.set_dtype_policy", Group([writer.value(keras.config.dtype_policy())]))
    if keras.config.image_data_format() != "channels_last":
        writer.write('keras.config.set_image_data_format("channels_first")')
    writer.lines += [*([""] if writer.lines else []), _data(model, settings.weighted), ""]
    writer.model(model, "model")
    if any(layer.weights and not layer.trainable for _, layer in _keras.walk(model)):
        writer.lines.append("# What is frozen has fresh weights here: give it those that it was trained to.")
    if settings.kept:
        writer.lines.append(
            "# The search went on from the weights of your model: model.set_weights(yours.get_weights())"
        )
    _compile(writer, model, compiled, settings.rate, targets)
    if entries:
        writer.write("recipe = rg.Recipe", Group([writer.value(dict(entries))]))
        writer.write("model = recipe.apply(model)")
    arguments: list[Parts] = [("x",), ("y",)]
    if settings.weighted:
        arguments.append(("sample_weight=sample_weight",))
    if settings.class_weight is not None:
        arguments.append(("class_weight=", *writer.value(dict(settings.class_weight))))
    if settings.epochs is not None:
        arguments.append((f"epochs={settings.epochs}",))
    writer.write("model.fit", Group([*arguments, (f"batch_size={settings.batch_size}",)]))
    return "\n".join([*writer.header, "", *writer.lines, ""])


def _compile(writer: Writer, model: Any, compiled: Mapping[str, Any], rate: Any, targets: Mapping[str, float]) -> None:
    inner = _keras.innermost(model.optimizer)
    optimizer = writer.thing(inner, unlike={"learning_rate": rate, **_decay_argument(inner)})
    name, alone = type(inner).__name__.lower(), model.optimizer is inner
    usual = alone and optimizer[1] == Group([]) and _keras.is_of_keras(inner)
    if usual and type(keras.optimizers.get(name)) is type(inner):
        optimizer = writer.value(name)
    left_out = _not_decayed(model)
    if left_out or not alone:
        writer.write("optimizer = ", *optimizer)
        optimizer = ("optimizer",)
    if left_out:
        writer.write("optimizer.exclude_from_weight_decay", Group([("var_names=", *writer.value(left_out))]))
    if not alone:
        optimizer = writer.around(model.optimizer, inner, "optimizer")
    loss = keras.tree.map_structure(lambda leaf: _with_targets(leaf, targets), compiled["loss"])
    arguments = [("loss=", *writer.value(loss)), ("optimizer=", *optimizer)]
    parameters = inspect.signature(keras.Model.compile).parameters
    for key, value in compiled.items():
        if key in ("loss", "optimizer", "jit_compile"):
            continue  # Keras notes of the last what it made of "auto"
        if key not in parameters or value != parameters[key].default:
            arguments.append((f"{key}=", *writer.value(value)))
    writer.write("model.compile", Group(arguments))


def _data(model: Any, weighted: bool) -> str:
    """The comment that says what the program's reader has to have."""
    yours = "# x, y, sample_weight: your data and what each row weighs" if weighted else "# x, y: your data"
    if isinstance(model, keras.Sequential):
        return yours
    forms = zip("xy", _keras.graph_structure(model), strict=True)
    several = [f"{name} is {_form(structure)}" for name, structure in forms if not _keras.is_symbolic(structure)]
    return "; ".join([yours, *several])


def _form(structure: Any) -> str:
    if isinstance(structure, dict):
        return f"a dict of {', '.join(map(repr, structure))}".replace("'", '"')
    return f"a list of {len(structure)} arrays"
