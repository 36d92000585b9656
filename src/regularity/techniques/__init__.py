"""The catalogue: every technique, declared once, in the order in which data pass through a training step."""

import sys
from collections.abc import Mapping
from types import MappingProxyType, ModuleType

from regularity.techniques import activations, update, weights
from regularity.techniques._technique import HidesStrengths, Technique, add_strength, checked_strength

CATALOGUE: Mapping[str, Technique] = MappingProxyType(
    {t.name: t for module in (activations, weights, update) for t in module.TECHNIQUES}
)


def techniques() -> Mapping[str, Technique]:
    """Return the catalogue: a mapping from each technique's name to its declaration, in catalogue order.

    Example:
        >>> import regularity as rg
        >>> rg.techniques()["dropout"].limits
        (0.0, 1.0)
    """
    return CATALOGUE


class _Package(ModuleType):
    """This package, callable: importing it puts it where `rg.techniques`, the function, is looked for."""

    def __call__(self) -> Mapping[str, Technique]:
        return techniques()


sys.modules[__name__].__class__ = _Package

__all__ = ["CATALOGUE", "HidesStrengths", "Technique", "add_strength", "checked_strength", "techniques"]
