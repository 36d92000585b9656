"""The way back: a regularized model as plain Keras, with stock objects in place of ours."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any

import keras
import numpy as np

from regularity import _keras
from regularity.catalogue import CATALOGUE
from regularity.catalogue.weights import stock_penalty
from regularity.recipe._copying import (
    carry_attributes,
    carry_regularizers,
    copy_state,
    is_ours,
    other_penalty,
    put_in_names,
    rebuild,
)
from regularity.recipe._optimizing import constrained_axes
from regularity.recipe._sites import Site, as_number, component_at, given_strength, new_layer, variables_by_path


def to_keras(applied: Any) -> keras.Model:
    cycles = [site.key for site in applied.__dict__["_sites"] if CATALOGUE[site.technique].hook == "cycle"]
    if not any(float(applied.strengths[key]) for key in cycles):
        return one_plain(applied)
    to_numpy = keras.ops.convert_to_numpy
    kept = applied.__dict__["_snapshots"]
    each = [{id(variable): to_numpy(held) for variable, held in one} for one in kept]
    members = [one_plain(applied, instead, 1 / len(kept)) for instead in each]
    return _keras.average_of(members, applied.__dict__["_given"](), members[0])


@_keras.without_tensorflow()
def one_plain(
    applied: Any,
    instead: Mapping[int, np.ndarray] = MappingProxyType({}),
    share: float = 1.0,
    compile_like: Callable[[Any, Any], None] = _keras.compile_like,
) -> keras.Model:
    """The model as plain Keras.

    Args:
        applied: The model with a recipe.
        instead: Values to take in place of those of variables, by id of the variable.
        share: Of the strength of each penalty, how much the plain model has.
        compile_like: Compiles a model as another is.
    """
    given, sites = applied.__dict__["_given"](), applied.__dict__["_sites"]
    values = applied._numbers()
    names = put_in_names(given, sites)
    plain = _rebuilt_with_stock(given, sites, values, names)
    carry_regularizers(given, plain)
    layers = dict(_keras.walk(plain))
    _stock_settings(layers, sites, values)
    copy_state(applied, plain, instead)
    for site in sites:
        fold = CATALOGUE[site.technique].fold
        if fold is None or (site.kind == "after" and not values[site.key]):
            continue
        layer = layers[names[site.key] if site.kind == "after" else site.path]
        if not is_ours(layer):  # one that stays needs no folding
            fold(layer, values[site.key])
    variables = variables_by_path(plain, layers)
    _stock_penalties(layers, variables, sites, values, share)
    _stock_constraints(plain, sites, variables, values)
    if getattr(applied, "optimizer", None) is None:  # of a file that was loaded without compiling
        return plain
    compile_like(plain, applied)
    carry_attributes(applied, plain)
    _stock_decay(plain, variables, {s.path: values[s.key] for s in sites if CATALOGUE[s.technique].hook == "decay"})
    if any(CATALOGUE[site.technique].hook == "average" for site in sites):
        _keras.innermost(plain.optimizer).use_ema = False  # unless a technique says otherwise
    for site in sites:
        technique = CATALOGUE[site.technique]
        if technique.restore is not None:
            technique.restore(_keras.innermost(plain.optimizer), technique.outside(values[site.key]))
    _keras.innermost(plain.optimizer).build(plain.trainable_variables)  # else a file of it warns when loaded
    return plain


def _rebuilt_with_stock(given: Any, sites: Sequence[Site], values: Mapping[str, Any], names: Mapping[str, str]) -> Any:
    """The model anew, with Keras's own layers put in where a strength is on."""
    new: dict[str, list[Any]] = {}
    for site in sites:
        if site.kind != "after" or not values[site.key]:
            continue
        stock, name = _stock_layer(site), names[site.key].rpartition("/")[2]
        if stock is not None:
            strength = () if CATALOGUE[site.technique].fold else (values[site.key],)
            new.setdefault(site.path, []).append(new_layer(stock, site, *strength, name=name))
    skips = put_in_names(given, sites, "around")
    around = {
        site.path: partial(_stock_skip, share=values[site.key], name=skips[site.key].rpartition("/")[2])
        for site in sites
        if site.kind == "around" and values[site.key]
    }
    return rebuild(given, new, around)


def _stock_settings(layers: Mapping[str, Any], sites: Sequence[Site], values: Mapping[str, Any]) -> None:
    """Have layers that hold a strength be Keras's own, with it as a number."""
    for site in sites:
        technique = CATALOGUE[site.technique]
        if site.kind == "cell":
            cell = layers[site.path]
            _keras.set_cell_dropout(cell, {technique.stock[type(cell)]: values[site.key]})
        if site.kind != "layer":
            continue
        layer = layers[site.path]
        kind, config = _stock_layer(site, layer), layer.get_config()
        names_of_strength = tuple(technique.stock.values())
        if technique.fold is not None:
            if layer.gamma is not None and layer.beta is not None:  # else there is nothing to fold a share into
                rest = {k: v for k, v in config.items() if k not in names_of_strength}
                _keras.become(layer, kind, rest, names_of_strength)
        elif kind is None:  # Keras has none, and at inference it is nothing
            base = {name: config[name] for name in ("name", "trainable", "dtype")}
            _keras.become(layer, keras.layers.Identity, base, names_of_strength)
        else:
            config[technique.stock[kind]] = values[site.key]
            _keras.become(layer, kind, config, names_of_strength)
        if technique.hook == "attention":
            _keras.set_attention_dropout(layers[site.path.rpartition("/")[0]], values[site.key])


def _stock_penalties(
    layers: Mapping[str, Any],
    variables: Mapping[str, Any],
    sites: Sequence[Site],
    values: Mapping[str, Any],
    share: float,
) -> None:
    """Give variables and layers Keras's own regularizers, with a share of each strength, in the slots that layers have for them."""
    penalties: dict[tuple[str, str], dict[str, float]] = {}
    for site in sites:
        if CATALOGUE[site.technique].hook in ("penalty", "output"):
            name = site.technique.removeprefix("activity_")
            penalties.setdefault((site.kind, site.path), {})[name] = share * values[site.key]
    for (kind, path), strengths in penalties.items():
        penalty = stock_penalty(strengths)
        if kind == "output":
            if other_penalty(layers[path].activity_regularizer) is None:
                layers[path].activity_regularizer = penalty
            continue
        variable, layer = variables[path], layers.get(path.rpartition("/")[0])
        if other_penalty(variable.regularizer) is None:
            variable.regularizer = penalty
            for slot in (f"{variable.name}_regularizer", f"{variable.name.removesuffix('_kernel')}_regularizer"):
                if hasattr(layer, slot):
                    setattr(layer, slot, penalty)


def _stock_skip(inputs: Any, outputs: Any, share: float, name: str) -> Any:
    """A share of what a layer takes added to what it puts out, by layers of Keras's."""
    if share != 1:
        inputs = keras.layers.Rescaling(share, name=f"{name}_share")(inputs)
    return keras.layers.Add(name=name)([outputs, inputs])


def _stock_layer(site: Site, layer: Any = None) -> Any:
    """Keras's own class of a layer that does what the technique of `site` does, or None."""
    technique, own = CATALOGUE[site.technique], component_at(site, layer)
    if technique.fold is not None:
        return own.__mro__[1]
    return next((kind for kind in own.__mro__ if kind in technique.stock and kind is not own), None)


def _stock_constraints(plain: Any, sites: Sequence[Site], variables: Mapping[str, Any], values: Any) -> None:
    """Give variables Keras's own constraints, in the slots that layers have for them."""
    layers = dict(_keras.walk(plain))
    for site in sites:
        technique = CATALOGUE[site.technique]
        if technique.hook != "constraint" or not technique.stock:
            continue  # Keras has none that holds its strength
        (kind, attribute), *_ = technique.stock.items()
        variable, layer = variables[site.path], layers.get(site.path.rpartition("/")[0])
        if variable.constraint is not None and given_strength(technique, variable.constraint) is None:
            continue  # it has another, and Keras has one place
        axis, bound = constrained_axes(layer or plain, variable, technique), technique.outside(values[site.key])
        constraint = None if bound is None else kind(**{attribute: as_number(bound), "axis": list(axis)})
        variable.constraint = constraint
        for slot in (f"{variable.name}_constraint", f"{variable.name.removesuffix('_kernel')}_constraint"):
            if hasattr(layer, slot):
                setattr(layer, slot, constraint)


def _stock_decay(plain: Any, variables: Mapping[str, Any], decays: Mapping[str, float]) -> None:
    """Give the optimizer the one weight decay that Keras has, with the variables that it leaves out.

    Where variables decay by different strengths Keras has no such thing, and the plain model decays none.
    """
    optimizer, on = _keras.innermost(plain.optimizer), {value for value in decays.values() if value}
    if not decays:
        return
    optimizer.weight_decay = on.pop() if len(on) == 1 else None
    left_out = [variable for path, variable in variables.items() if not decays.get(path)]
    optimizer.exclude_from_weight_decay(var_list=left_out)
