"""Which regularization, how strong, and why: every candidate of a Keras model trained at once."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from regularity import layers as layers
    from regularity import loggers as loggers
    from regularity import regularizers as regularizers
    from regularity import sklearn as sklearn
    from regularity.catalogue import techniques as techniques
    from regularity.checks import Finding as Finding
    from regularity.checks import Findings as Findings
    from regularity.checks import check as check
    from regularity.compacting import compact as compact
    from regularity.diagnosis import Diagnosis as Diagnosis
    from regularity.diagnosis import diagnose as diagnose
    from regularity.population import Member as Member
    from regularity.population import train as train
    from regularity.recipe import Recipe as Recipe
    from regularity.study import Path as Path
    from regularity.study import Space as Space
    from regularity.study import Study as Study
    from regularity.study import path as path
    from regularity.study import search as search
    from regularity.uncertainty import mc_predict as mc_predict

# Imported when first used, so that the command line answers before Keras is loaded.
_HOMES = {
    "check": "checks",
    "compact": "compacting",
    "Diagnosis": "diagnosis",
    "diagnose": "diagnosis",
    "Finding": "checks",
    "Findings": "checks",
    "Member": "population",
    "Path": "study",
    "mc_predict": "uncertainty",
    "path": "study",
    "search": "study",
    "Space": "study",
    "Study": "study",
    "train": "population",
    "Recipe": "recipe",
    "techniques": "catalogue",
}

__all__ = [
    "Diagnosis",
    "Finding",
    "Findings",
    "Member",
    "Path",
    "Recipe",
    "Space",
    "Study",
    "check",
    "compact",
    "diagnose",
    "layers",
    "loggers",
    "mc_predict",
    "path",
    "regularizers",
    "search",
    "sklearn",
    "techniques",
    "train",
]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        value = getattr(importlib.import_module(f"regularity.{_HOMES[name]}"), name)
    elif name in __all__:
        value = importlib.import_module(f"regularity.{name}")
    else:
        raise AttributeError(f"module 'regularity' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
