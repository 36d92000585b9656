"""Compiling, and what XLA is told: how hard to try depends on how much is to be computed."""

import contextlib
import gc
from collections.abc import Iterator
from typing import Any

import jax

# What XLA is told on CPU, for programs that compute so many numbers in all their calls, and for all larger ones. Level 1
# compiles in half the time of level 2 and runs as fast; level 0 in a third of the time of level 1, for programs a few
# times slower: it pays where little is to be computed, as in the ragged last step of some epochs. Without XLA's newer
# emitters a fused loop compiles in half the time, and runs as fast or up to a third slower. Wide vectors cost nothing
# where there are none.
_OPTIONS: dict[str, Any] = {"xla_backend_optimization_level": 1, "xla_cpu_prefer_vector_width": 512}
_SOON: dict[str, Any] = {**_OPTIONS, "xla_cpu_use_fusion_emitters": False}
_SOONEST: dict[str, Any] = {**_SOON, "xla_backend_optimization_level": 0}
_LITTLE, _MUCH = 5e8, 5e9  # in small dense networks about a tenth of a second on a core, and one second


@contextlib.contextmanager
def without_collecting() -> Iterator[None]:
    """Keep Python's garbage collector from its rounds while a program is traced.

    Tracing makes many objects and drops few of them in circles; the collector goes through all again and again.
    """
    was_on = gc.isenabled()
    try:
        gc.disable()
        yield
    finally:
        if was_on:
            gc.enable()


def compiler_options(device: Any, traced: Any, calls: int, passes: int | None = None) -> dict[str, Any] | None:
    """The options for a program that is called so often.

    Args:
        device: What it runs on.
        traced: Its jaxpr.
        calls: How often it will run, about.
        passes: How often a loop of no set length of its own does, if that is known.
    """
    if device.platform != "cpu":
        return None
    numbers = _computed(traced.jaxpr, passes) * calls
    return _SOONEST if numbers < _LITTLE else _SOON if numbers < _MUCH else _OPTIONS


def compile_with(lowered: Any, options: dict[str, Any] | None) -> Any:
    """Compile a program with options, but those that this release of XLA doesn't know: they are about speed alone."""
    while True:
        try:
            return lowered.compile(options)
        except jax.errors.JaxRuntimeError as error:
            known = {
                name: value
                for name, value in (options or {}).items()
                if f"No such compile option: '{name}'" not in str(error)
            }
            if len(known) == len(options or {}):
                raise
            options = known


def _computed(jaxpr: Any, passes: int | None = None) -> float:
    """How many numbers a traced program puts out, in all its operations."""
    total = 0.0
    for equation in jaxpr.eqns:
        often = equation.params.get("length", 1)
        if equation.primitive.name == "while":
            if passes is None:
                return float("inf")  # who knows how often
            often = passes
        inner = [v for v in jax.tree.leaves(list(equation.params.values()), is_leaf=_is_jaxpr) if _is_jaxpr(v)]
        if inner:
            total += often * sum(_computed(getattr(j, "jaxpr", j)) for j in inner)
        else:
            total += sum(getattr(v.aval, "size", 0) for v in equation.outvars)
    return total


def _is_jaxpr(value: Any) -> bool:
    return hasattr(value, "eqns") or hasattr(value, "jaxpr")
