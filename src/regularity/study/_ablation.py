"""What each technique of a recipe is worth: the recipe without it, it alone, and the recipe over its whole range of strengths."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from regularity.population._tasks import Outcome
from regularity.population._train import Trainer
from regularity.recipe import Recipe
from regularity.study._choosing import choose, paired_error
from regularity.study._members import Members
from regularity.study._records import Settled
from regularity.study._rule import best_epoch, judged_by_others
from regularity.study._scores import quiet_scorers
from regularity.study._space import Space

_FIRST_SEED = 700_000  # none that the search has used
_PLACES = np.linspace(0, 1, 7)  # shares of its range at which a technique is tried beside what was chosen
_APART = 0.05  # as near to what was chosen as this, such a place would show nothing new


class Ablation(NamedTuple):
    """What became of the variants of a recipe.

    Args:
        table: A row for each variant: `score`, `difference` to the whole recipe with its paired `error`, `train_score`,
            `gap` and `epochs`.
        curves: A row for each variant and epoch: mean `held_out` and `train` score, and whether it `stopped` there.
        profile: A row for each technique and strength, see `Study.profile`.
    """

    table: pd.DataFrame
    curves: pd.DataFrame
    profile: pd.DataFrame


class _Step(NamedTuple):
    """The recipe at another strength of one technique.

    Args:
        technique: Its key.
        strength: What it has there, NaN where it is off.
        place: The share of its range at which that stands, NaN where it is off.
        recipe: The recipe with it.
        variant: The variant that this is, if it is one.
    """

    technique: str
    strength: float
    place: float
    recipe: Recipe
    variant: str | None = None


class _Curves(NamedTuple):
    """What became of a recipe, after each epoch.

    Args:
        held: Held-out score on each fold, of (folds, epochs).
        seen: Mean score on rows trained on, of (epochs,).
        norm: Mean norm of all kernels, of (epochs,).
        zeros: Mean share of the kernels' entries that are near zero, of (epochs,).
        of_length: Whether only the last epoch counts.
    """

    held: np.ndarray
    seen: np.ndarray
    norm: np.ndarray
    zeros: np.ndarray
    of_length: bool

    @property
    def stop(self) -> int:
        """The epoch, from 0, at which the mean curve is best."""
        return best_epoch(self.held.mean(0), self.of_length)

    @property
    def scores(self) -> np.ndarray:
        """The score on each fold at the epoch that is best on the others, of (folds,)."""
        return judged_by_others(self.held, self.of_length)

    @property
    def measures(self) -> dict[str, float]:
        """Score on rows trained on, its distance to the held-out one, and after how many epochs that is."""
        train = float(self.seen[self.stop])
        return {"train_score": train, "gap": train - float(self.scores.mean()), "epochs": self.stop + 1}


def ablate(model: Any, settled: Settled, recipe: Recipe, epochs: int, seeds: int, verbose: Any) -> Ablation:
    """Train all variants of a recipe on every fold, for so many epochs; see `Study.ablation` and `Study.profile`."""
    members, design = Members(model, settled), settled.design
    variants = _variants(recipe, members.off)
    steps = _steps(recipe, variants, settled.space)
    # what is drawn over a whole range has a seed: the trend shows in its neighbours
    runs = [(each, seeds) for each in variants.values()] + [(step.recipe, 1) for step in steps if step.variant is None]
    cells = [[(cell, _FIRST_SEED + c * 1000 + seed) for c, cell in enumerate(design.outer) for seed in range(many)] for _, many in runs]  # fmt: skip
    tasks = [members.tasks(each, mine, epochs) for (each, _), mine in zip(runs, cells, strict=True)]
    every = [task for mine in tasks for task in mine]
    with quiet_scorers():
        outcomes = iter(Trainer(model, replace(settled.plan, seen=True), len(every)).train(every, verbose))
    found = [list(islice(outcomes, len(mine))) for mine in tasks]
    curves = {
        name: _curves(mine, seeds, settled, members.is_of_length(variant))
        for (name, variant), mine in zip(variants.items(), found, strict=False)
    }
    firsts = {name: mine[::seeds] for name, mine in zip(variants, found, strict=False)}  # of the seed that steps have
    further = iter(found[len(variants) :])
    along = [
        _curves(firsts[step.variant] if step.variant else next(further), 1, settled, members.is_of_length(step.recipe))
        for step in steps
    ]
    return Ablation(_table(curves, design.share), _by_epoch(curves), _profile(steps, along, model, design.share))


def _table(curves: Mapping[str, _Curves], share: float) -> pd.DataFrame:
    rows = {}
    for name, found in curves.items():
        difference = found.scores - curves["all"].scores
        error = float(paired_error(difference, share))
        rows[name] = {"score": found.scores.mean(), "difference": difference.mean(), "error": error, **found.measures}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("recipe")


def _by_epoch(curves: Mapping[str, _Curves]) -> pd.DataFrame:
    tables = []
    for name, found in curves.items():
        epochs = np.arange(1, len(found.seen) + 1)
        held = found.held.mean(0)
        tables.append(pd.DataFrame({"recipe": name, "epoch": epochs, "held_out": held, "train": found.seen}))
        tables[-1]["stopped"] = epochs == found.stop + 1
    return pd.concat(tables, ignore_index=True)


def _profile(steps: Sequence[_Step], along: Sequence[_Curves], model: Any, share: float) -> pd.DataFrame:
    """A row for each step, with the best of its technique and what the rule of a path chooses marked."""
    weights = sum(int(np.prod(v.shape)) for v in model.trainable_variables if len(v.shape) >= 2)
    rows = []
    for key in dict.fromkeys(step.technique for step in steps):
        mine = [i for i, step in enumerate(steps) if step.technique == key]
        scores = np.array([along[i].scores for i in mine])
        chosen = next(n for n, i in enumerate(mine) if steps[i].variant == "all")
        off = [n for n, i in enumerate(mine) if np.isnan(steps[i].strength)]
        strongest = sorted(set(range(len(mine))) - set(off), key=lambda n: -steps[mine[n]].place)
        marks = None if np.isnan(scores.mean(1)).all() else choose(scores, share, off, strongest)
        for n, i in enumerate(mine):
            step, found = steps[i], along[i]
            difference = scores[n] - scores[chosen]
            rows.append(
                {
                    "technique": key, "strength": step.strength, "place": step.place,
                    "score": scores[n].mean(), "error": float(paired_error(scores[n], share)),
                    "difference": difference.mean(), "difference_error": float(paired_error(difference, share)), **found.measures,
                    "norm": found.norm[found.stop], "weights": round(weights * (1 - found.zeros[found.stop])),
                    "chosen": n == chosen, "best": marks is not None and n == marks.best,
                    "one_se": marks is not None and n == marks.answer,
                }
            )  # fmt: skip
    columns = [
        "technique", "strength", "place", "score", "error", "difference", "difference_error", "train_score", "gap", "epochs",
        "norm", "weights", "chosen", "best", "one_se",
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=columns)


def _curves(outcomes: Sequence[Outcome], seeds: int, settled: Settled, of_length: bool) -> _Curves:
    """What became of a recipe's members, those of a cell one after the other."""
    held = np.full((len(settled.design.folds), len(outcomes[0].held_out)), np.nan)
    for c, cell in enumerate(settled.design.outer):
        of_cell = np.array([o.held_out for o in outcomes[c * seeds : (c + 1) * seeds]], "float64")[..., 0].mean(0)
        for s, fold in enumerate(cell.held):
            held[fold] = of_cell[:, s]
    held[~np.isfinite(held)] = np.nan
    seen = np.array([outcome.seen for outcome in outcomes], "float64")  # (members, epochs, scores)
    seen[~np.isfinite(seen)] = np.nan
    norm, zeros = (np.array([getattr(o, name) for o in outcomes], "float64").mean(0) for name in ("norm", "zeros"))
    return _Curves(held, seen[..., 0].mean(0), norm, zeros, of_length)


def _steps(recipe: Recipe, variants: Mapping[str, Recipe], space: Space) -> list[_Step]:
    """The recipe over the whole range of each technique that it has and that was searched, off first, then weak to strong."""
    entries = json.loads(variants["all"].to_json())
    found = []
    for dimension in space.dimensions:
        key, chosen = dimension.key, recipe.strengths.get(dimension.key)
        if not chosen or dimension.technique is None:
            continue
        without = f"without {key}" if f"without {key}" in variants else "none"
        found.append(_Step(key, np.nan, np.nan, variants[without], without))
        at = dimension.place(chosen)
        steps = [_Step(key, chosen, at, variants["all"], "all")]
        for place in _PLACES[np.abs(_PLACES - at) > _APART].tolist():
            strength = dimension.strength(place)
            entry = {**entries[key], "strength": strength} if isinstance(entries[key], dict) else strength
            steps.append(_Step(key, strength, place, Recipe({**entries, key: entry})))
        found += sorted(steps, key=lambda step: step.place)
    return found


def _variants(recipe: Recipe, off: Mapping[str, Any]) -> dict[str, Recipe]:
    entries = {key: value for key, value in json.loads(recipe.to_json()).items() if key != "epochs"}
    on = [key for key, strength in recipe.strengths.items() if strength]
    rest = {**off, **{key: value for key, value in entries.items() if key not in on}}
    found = {"all": Recipe(entries)}
    if len(on) > 1:
        found |= {f"without {key}": Recipe(rest | {k: entries[k] for k in on if k != key}) for key in on}
        found |= {f"{key} alone": Recipe(rest | {key: entries[key]}) for key in on}
    return found | {"none": Recipe(rest), "as given": Recipe({})}
