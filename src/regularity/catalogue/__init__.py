"""The catalogue: every technique, declared once, in the order in which data pass through a training step."""

from collections.abc import Mapping
from types import MappingProxyType

from regularity.catalogue import activations, batch, gradient, targets, update, weights
from regularity.catalogue._schedules import SCHEDULES
from regularity.catalogue._technique import HidesStrengths, SavedVariables, Technique, add_strength, checked_strength

CATALOGUE: Mapping[str, Technique] = MappingProxyType(
    {t.name: t for module in (batch, activations, targets, weights, gradient, update) for t in module.TECHNIQUES}
)


def techniques() -> Mapping[str, Technique]:
    """Return the catalogue: a mapping from each technique's name to its declaration, in the order of a training step.

    Returns:
        Declarations by name. Each has, among others, a `summary`, when it `helps` and `hurts`, its `place`, the `unit` of its
        strength, the `limits` that are allowed, the `range` that is searched, and its `paper`.

    Example:
        >>> import regularity as rg
        >>> rg.techniques()["dropout"].limits
        (0.0, 1.0)
    """
    return CATALOGUE


__all__ = [
    "CATALOGUE",
    "SCHEDULES",
    "HidesStrengths",
    "SavedVariables",
    "Technique",
    "add_strength",
    "checked_strength",
    "techniques",
]
