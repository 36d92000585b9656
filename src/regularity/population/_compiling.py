"""What XLA is told when it compiles: how hard to try depends on how much is to be computed."""

from typing import Any

import jax

# What XLA is told on CPU. Level 1 compiles in half the time of level 2 and runs as fast; level 0 in half the time again,
# for programs a few times slower: it pays where little is to be computed, as in the ragged last step of some epochs.
# Wide vectors help where there are some, and cost nothing where there are none.
_OPTIONS: dict[str, Any] = {"xla_backend_optimization_level": 1, "xla_cpu_prefer_vector_width": 512}
_QUICK: dict[str, Any] = {**_OPTIONS, "xla_backend_optimization_level": 0}
_LITTLE = 3e8  # numbers that a program computes in all its calls: a few tenths of a second on a core


def compiler_options(device: Any, traced: Any, calls: int) -> dict[str, Any] | None:
    """The options for a program that is called so often.

    Args:
        device: What it runs on.
        traced: Its jaxpr.
        calls: How often it will run, about.
    """
    if device.platform != "cpu":
        return None
    return _QUICK if _computed(traced.jaxpr) * calls < _LITTLE else _OPTIONS


def _computed(jaxpr: Any) -> float:
    """How many numbers a traced program computes."""
    total = 0.0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "while":
            return float("inf")  # who knows how often
        inner = [v for v in jax.tree.leaves(list(equation.params.values()), is_leaf=_is_jaxpr) if _is_jaxpr(v)]
        if inner:
            total += equation.params.get("length", 1) * sum(_computed(getattr(j, "jaxpr", j)) for j in inner)
        else:
            total += sum(getattr(v.aval, "size", 0) for v in equation.outvars)
    return total


def _is_jaxpr(value: Any) -> bool:
    return hasattr(value, "eqns") or hasattr(value, "jaxpr")
