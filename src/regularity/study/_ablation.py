"""What each technique of a recipe is worth: the recipe without it, and it alone."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from regularity.population._tasks import Outcome
from regularity.population._train import Trainer
from regularity.recipe import Recipe
from regularity.study._choosing import paired_error
from regularity.study._members import Members
from regularity.study._rule import best_epoch, judged_by_others
from regularity.study._scores import quiet_scorers
from regularity.study._study import Settled

_FIRST_SEED = 700_000  # none that the search has used


class Ablation(NamedTuple):
    """What became of the variants of a recipe.

    Args:
        table: A row for each variant: `score`, `difference` to the whole recipe with its paired `error`, `train_score`,
            `gap` and `epochs`.
        curves: A row for each variant and epoch: mean `held_out` and `train` score, and whether it `stopped` there.
    """

    table: pd.DataFrame
    curves: pd.DataFrame


def ablate(model: Any, settled: Settled, recipe: Recipe, seeds: int, verbose: Any) -> Ablation:
    """Train all variants of a recipe on every fold; see `Study.ablation`."""
    members, design = Members(model, settled), settled.design
    variants = _variants(recipe, members.off)
    cells = [(cell, _FIRST_SEED + c * 1000 + seed) for c, cell in enumerate(design.outer) for seed in range(seeds)]
    tasks = [task for variant in variants.values() for task in members.tasks(variant, cells, settled.epochs)]
    with quiet_scorers():
        outcomes = Trainer(model, replace(settled.plan, seen=True), len(tasks)).train(tasks, verbose)
    scores, stops, curves = {}, {}, []
    for n, (name, variant) in enumerate(variants.items()):
        mine = outcomes[n * len(cells) : (n + 1) * len(cells)]
        held, seen = _curves(mine, seeds, settled)
        of_length = members.is_of_length(variant)
        scores[name] = judged_by_others(held, of_length)
        stops[name] = best_epoch(held.mean(0), of_length)
        curves.append(
            pd.DataFrame({"recipe": name, "epoch": np.arange(1, settled.epochs + 1), "held_out": held.mean(0), "train": seen})
        )  # fmt: skip
        curves[-1]["stopped"] = curves[-1].index == stops[name]
    rows = {}
    for (name, score), curve in zip(scores.items(), curves, strict=True):
        difference = score - scores["all"]
        error = float(paired_error(difference, design.share))
        train = float(curve["train"][stops[name]])
        rows[name] = {
            "score": score.mean(), "difference": difference.mean(), "error": error, "train_score": train,
            "gap": train - float(curve["held_out"][stops[name]]), "epochs": stops[name] + 1,
        }  # fmt: skip
    return Ablation(
        pd.DataFrame.from_dict(rows, orient="index").rename_axis("recipe"), pd.concat(curves, ignore_index=True)
    )


def _curves(outcomes: Sequence[Outcome], seeds: int, settled: Settled) -> tuple[np.ndarray, np.ndarray]:
    """A variant's held-out score on each fold after each epoch, of (folds, epochs), and its mean score on training rows."""
    held = np.full((len(settled.design.folds), settled.epochs), np.nan)
    for c, cell in enumerate(settled.design.outer):
        of_cell = np.array([o.held_out for o in outcomes[c * seeds : (c + 1) * seeds]], "float64")[..., 0].mean(0)
        for s, fold in enumerate(cell.held):
            held[fold] = of_cell[:, s]
    seen = np.array([outcome.seen for outcome in outcomes], "float64")  # (members, epochs, scores)
    return held, seen[..., 0].mean(0)


def _variants(recipe: Recipe, off: Mapping[str, Any]) -> dict[str, Recipe]:
    entries = {key: value for key, value in json.loads(recipe.to_json()).items() if key != "epochs"}
    on = [key for key, strength in recipe.strengths.items() if strength]
    rest = {**off, **{key: value for key, value in entries.items() if key not in on}}
    found = {"all": Recipe(entries)}
    if len(on) > 1:
        found |= {f"without {key}": Recipe(rest | {k: entries[k] for k in on if k != key}) for key in on}
        found |= {f"{key} alone": Recipe(rest | {key: entries[key]}) for key in on}
    return found | {"none": Recipe(rest), "as given": Recipe({})}
