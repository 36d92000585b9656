"""What a recipe adds to the optimizer's step: clipping before it, decay in it, constraints and averages after it.

The strengths are variables of the optimizer, since Keras lends its step no others.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from regularity import _keras
from regularity.catalogue import CATALOGUE, Technique
from regularity.catalogue._schedules import number_of
from regularity.catalogue._technique import at_least_single
from regularity.recipe._sites import Site, given_strength, variables_by_path

_HOOKS = ("anchor", "gradients", "decay", "constraint", "after", "average")


def in_optimizer(technique: str) -> bool:
    """Whether a technique's strength is held by the optimizer."""
    return CATALOGUE[technique].hook in _HOOKS


def take_over(
    model: Any,
    sites: Sequence[Site],
    values: Mapping[str, float],
    schedules: Mapping[str, str],
    constraints: dict[str, Any],
    *,
    again: bool,
) -> tuple[dict[str, keras.Variable], dict[str, keras.Variable], keras.Variable | None]:
    """Have the optimizer of `model`, newly compiled, do what `sites` ask for.

    Args:
        model: The regularized model.
        sites: Its sites.
        values: Their strengths, by key.
        schedules: Names of schedules, by key of the site.
        constraints: What variables had before a technique constrained them, by path; kept for the next time.
        again: Whether it was compiled before: then the user chose this optimizer, and what that decays without a site stays.

    Returns:
        The strengths by key, the numbers of schedules by key, and the clock: the step at which training begins and how many
        it has, where that matters.
    """
    optimizer = _keras.innermost(model.optimizer)
    by_hook: dict[str, list[Site]] = defaultdict(list)
    strengths: dict[str, keras.Variable] = {}
    for n, site in enumerate(s for s in sites if in_optimizer(s.technique)):
        by_hook[CATALOGUE[site.technique].hook].append(site)
        variable = keras.Variable(values[site.key], dtype="float32", trainable=False, name=site.technique)
        strengths[site.key] = variable
        setattr(
            optimizer, f"regularity_strength_{n}", variable
        )  # one by one: the optimizer tracks variables, not lists
    variables = variables_by_path(model, dict(_keras.walk(model)))
    if by_hook["decay"] or optimizer.weight_decay is not None:
        _decay(optimizer, variables, by_hook["decay"], strengths, again)
    acting = [_Acting(site, path, variable) for site in sites for path, variable in _of_site(site, variables)]
    held = _hold(optimizer, acting)
    layers = _keras.by_path(model)
    if by_hook["gradients"] or held:
        axes = {
            id(variable): _keras.incoming_axes(layers.get(path.rpartition("/")[0], model), variable)
            for path, variable in variables.items()
        }
        _clip(optimizer, by_hook["gradients"], strengths, held, axes)
    after = [one for one in acting if one.technique.hook in ("constraint", "after")]
    for one in after:
        one.variable.constraint = constraints.setdefault(one.path, one.variable.constraint)
    for one in after:
        if one.technique.hook == "constraint":
            holder = layers.get(one.path.rpartition("/")[0], model)
            _constrain(optimizer, holder, one.variable, one.site, strengths[one.site.key])
        else:
            _follow(optimizer, one, strengths[one.site.key], held.get(one))
    numbers: dict[str, keras.Variable] = {}
    for n, (key, name) in enumerate(schedules.items()):
        numbers[key] = keras.Variable(float(number_of(name)), dtype="float32", trainable=False, name="schedule")
        setattr(optimizer, f"regularity_schedule_{n}", numbers[key])
    clock = None
    if by_hook["average"] or schedules or any(CATALOGUE[site.technique].hook == "cycle" for site in sites):
        clock = keras.Variable([0.0, 0.0], dtype="float32", trainable=False, name="clock")
        optimizer.regularity_clock = clock
    if by_hook["average"]:
        _average(optimizer, by_hook["average"], strengths, clock)
    return strengths, numbers, clock


@dataclass(frozen=True, eq=False)
class _Acting:
    """A technique that acts on a variable in the optimizer's step."""

    site: Site
    path: str
    variable: Any

    @property
    def technique(self) -> Technique:
        return CATALOGUE[self.site.technique]


def _of_site(site: Site, variables: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """The variables of a site with their paths, those of the whole model where it is that."""
    if site.kind == "variable":
        return [(site.path, variables[site.path])]
    return [(path, variable) for path, variable in variables.items() if variable.trainable]


def _hold(optimizer: Any, acting: Sequence[_Acting]) -> dict[_Acting, keras.Variable]:
    """What techniques hold beside a variable from its first step on, as variables of the optimizer."""
    held: dict[_Acting, keras.Variable] = {}
    for one in acting:
        if one.technique.start is not None:
            shape = one.technique.start(keras.ops.zeros(one.variable.shape)).shape
            held[one] = keras.Variable(
                np.zeros(shape, "float32"), trainable=False, name=f"held_by_{one.technique.name}"
            )
            setattr(optimizer, f"regularity_held_{len(held)}", held[one])
    return held


def _follow(optimizer: Any, acting: _Acting, strength: keras.Variable, held: keras.Variable | None) -> None:
    """After each step the variable changes once more, behind the constraint that it has."""
    before = acting.variable.constraint

    def follow(value: Any) -> Any:
        value = keras.ops.convert_to_tensor(value if before is None else before(value))
        now = (keras.ops.convert_to_tensor(optimizer.iterations), optimizer.learning_rate)
        kept = None if held is None else held.value
        changed, kept = acting.technique.function(at_least_single(value), kept, strength.value, *now)
        if held is not None:
            held.assign(_if_stepped(optimizer, kept, held.value))
        return _if_stepped(optimizer, keras.ops.cast(changed, value.dtype), value)

    acting.variable.constraint = follow


def _if_stepped(optimizer: Any, changed: Any, value: Any) -> Any:
    """`changed`, or `value` behind a batch whose gradients are only gathered: Keras applies constraints there too."""
    batches = optimizer.gradient_accumulation_steps
    if not batches:
        return changed
    return keras.ops.where((_keras.batches_seen(optimizer) + 1) % batches == 0, changed, value)


def _decay(
    optimizer: Any,
    variables: Mapping[str, Any],
    sites: Sequence[Site],
    strengths: Mapping[str, keras.Variable],
    again: bool,
) -> None:
    """Each variable decays by a strength of its own; one without a site as the optimizer has it, if the user chose that."""
    if _keras.decays_in_its_own_way(optimizer):
        return
    acting = {id(variables[site.path]): (CATALOGUE[site.technique].function, strengths[site.key]) for site in sites}

    own = optimizer._apply_weight_decay

    def decay(trainable: list[Any]) -> None:
        for variable in trainable:
            if id(variable) in acting:
                function, strength = acting[id(variable)]
                rate = keras.ops.cast(optimizer.learning_rate, variable.dtype)
                variable.assign(function(variable, keras.ops.cast(strength, variable.dtype), rate))
        if again:
            own([variable for variable in trainable if id(variable) not in acting])

    _keras.hook_optimizer(optimizer, "_apply_weight_decay", decay)


def _clip(
    optimizer: Any,
    sites: Sequence[Site],
    strengths: Mapping[str, keras.Variable],
    held: Mapping[_Acting, keras.Variable],
    axes: Mapping[int, tuple[int, ...]],
) -> None:
    """Gradients change one technique after the other, and before them in the optimizer's own way, if it has another.

    What is held beside variables starts here, where a step begins and the variables still are what they were. `axes` are
    those over which each variable's units have their incoming weights, by its id; of one that was not there when the model
    was compiled, such as an adapter's (LoRA), all but the last.
    """
    if any(site.given is not None for site in sites):
        optimizer.global_clipnorm = None  # it is a strength now
    own = _keras.own_clipping(optimizer)

    def clip(gradients: list[Any]) -> list[Any]:
        gradients, stepped = list(gradients), [id(v) for v in _keras.stepped(optimizer)]
        first = keras.ops.equal(optimizer.iterations, 0)
        for one, beside in held.items():
            start: Any = one.technique.start
            value = keras.ops.cast(keras.ops.convert_to_tensor(one.variable), "float32")
            beside.assign(keras.ops.where(first, start(value), beside.value))
            if one.technique.hook == "anchor" and id(one.variable) in stepped:
                place, strength = stepped.index(id(one.variable)), strengths[one.site.key].value
                more = one.technique.function(value, beside.value, strength)
                gradients[place] = gradients[place] + keras.ops.cast(more, gradients[place].dtype)
        gradients = list(own(gradients))
        there = [i for i, g in enumerate(gradients) if g is not None]
        for site in sites:
            strength, weights = strengths[site.key].value, [_keras.stepped(optimizer)[i] for i in there]
            of_units = [axes.get(id(weight), _keras.incoming_axes(None, weight)) for weight in weights]
            changed = CATALOGUE[site.technique].function([gradients[i] for i in there], strength, weights, of_units)
            for i, gradient in zip(there, changed, strict=True):
                gradients[i] = gradient
        return gradients

    _keras.hook_optimizer(optimizer, "_clip_gradients", clip)


def _constrain(optimizer: Any, holder: Any, variable: Any, site: Site, strength: keras.Variable) -> None:
    """After each step the variable is put right, by what it had and then by the technique."""
    held, technique = variable.constraint, CATALOGUE[site.technique]
    axis = constrained_axes(holder, variable, technique)
    held = None if given_strength(technique, held) is not None else held

    def constrain(value: Any) -> Any:
        value = keras.ops.convert_to_tensor(value if held is None else held(value))
        changed = technique.function(value, keras.ops.cast(strength, value.dtype), axis)
        # what Keras has too acts as it does there, behind every batch
        return changed if technique.stock else _if_stepped(optimizer, changed, value)

    variable.constraint = constrain


def constrained_axes(layer: Any, variable: Any, technique: Technique) -> tuple[int, ...]:
    """The axes over which the norm of a variable is taken: those of the constraint it has, or of a unit's incoming weights."""
    held = variable.constraint
    if given_strength(technique, held) is not None:
        return (held.axis,) if isinstance(held.axis, int) else tuple(held.axis)
    return _keras.incoming_axes(layer, variable)


def _average(optimizer: Any, sites: Sequence[Site], strengths: Mapping[str, keras.Variable], clock: Any) -> None:
    """Averages of the weights take their place in the end; of several techniques the slowest average is kept."""

    def momentum(step: Any) -> Any:
        begin, length = keras.ops.unstack(clock.value)
        kept = [CATALOGUE[s.technique].function(strengths[s.key].value, step, begin, length) for s in sites]
        total = kept[0]
        for other in kept[1:]:
            total = keras.ops.maximum(total, other)
        return total

    # an average that the user's optimizer has stays as Keras takes it
    _keras.average_with(optimizer, momentum, constrained=all(site.given is None for site in sites))
