"""What each technique of a recipe is worth: the recipe without it, and it alone."""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from regularity.population._train import Trainer
from regularity.recipe import Recipe
from regularity.study._choosing import paired_error
from regularity.study._members import Members
from regularity.study._rule import best_epoch
from regularity.study._scores import quiet_scorers
from regularity.study._study import Settled

_FIRST_SEED = 700_000  # none that the search has used


def ablate(model: Any, settled: Settled, recipe: Recipe, seeds: int, verbose: Any) -> pd.DataFrame:
    """Train all variants of a recipe on every fold; see `Study.ablation`."""
    members, design = Members(model, settled), settled.design
    variants = _variants(recipe, members.off)
    cells = [(cell, _FIRST_SEED + c * 1000 + seed) for c, cell in enumerate(design.outer) for seed in range(seeds)]
    tasks = [task for variant in variants.values() for task in members.tasks(variant, cells, settled.epochs)]
    with quiet_scorers():
        outcomes = Trainer(model, settled.plan, len(tasks)).train(tasks, verbose)
    scores = {}
    for n, (name, variant) in enumerate(variants.items()):
        mine = outcomes[n * len(cells) : (n + 1) * len(cells)]
        curves = np.full((len(design.folds), settled.epochs), np.nan)
        for c, cell in enumerate(design.outer):
            of_cell = np.array([o.held_out for o in mine[c * seeds : (c + 1) * seeds]], "float64")[..., 0].mean(0)
            for s, fold in enumerate(cell.held):
                curves[fold] = of_cell[:, s]
        scores[name] = _scored(curves, members.is_of_length(variant))
    rows = {}
    for name, score in scores.items():
        difference = score - scores["all"]
        error = float(paired_error(difference, design.share))
        rows[name] = {"score": score.mean(), "difference": difference.mean(), "error": error}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("recipe")


def _variants(recipe: Recipe, off: Mapping[str, Any]) -> dict[str, Recipe]:
    entries = {key: value for key, value in json.loads(recipe.to_json()).items() if key != "epochs"}
    on = [key for key, strength in recipe.strengths.items() if strength]
    rest = {**off, **{key: value for key, value in entries.items() if key not in on}}
    found = {"all": Recipe(entries)}
    if len(on) > 1:
        found |= {f"without {key}": Recipe(rest | {k: entries[k] for k in on if k != key}) for key in on}
        found |= {f"{key} alone": Recipe(rest | {key: entries[key]}) for key in on}
    return found | {"none": Recipe(rest), "as given": Recipe({})}


def _scored(curves: np.ndarray, of_length: bool) -> np.ndarray:
    """The score on each fold at the epoch that is best on the other folds, of (folds,)."""
    others = [np.delete(curves, fold, 0).mean(0) for fold in range(len(curves))]
    return np.array([curve[best_epoch(mean, of_length)] for curve, mean in zip(curves, others, strict=True)])
