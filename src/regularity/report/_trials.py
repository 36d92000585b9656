"""The trials of a study as the report and its figures show them: each in words, with its part in the answer."""

from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from regularity.recipe import Recipe

_MOST = 500  # trials that are shown, the best of all: a page stays light and a picture clear


def rows(study: Any) -> pd.DataFrame:
    """A row for each trial that is shown, the best first by what is expected of it.

    What was chosen and the model as given come before all. `trial`, its recipe as `label`, its `role` (`chosen`, `as given`, `best tenth` or `other`), `score`, `difference` to the
    model as given with its `error`, `epochs`, what became of it as `note`, and a `strengths` mapping.
    """
    found, keys = study._found, [dimension.key for dimension in study._settled.space.dimensions]
    table = study.table.reset_index()
    order = table["expected"].rank(ascending=False, method="first", na_option="bottom")
    tenth = max(1, len(table) // 10)
    roles = np.where(order <= tenth, "best tenth", "other").astype(object)
    roles[0] = "as given"
    roles[found.choice.answer] = "chosen"
    table = table.assign(
        label=[trial.name or _label(trial.recipe) for trial in found.trials],
        role=roles,
        note=[_note(row) for row in table.to_dict("records")],
        strengths=[{key: trial.point[key] for key in keys if key in trial.point} for trial in found.trials],
    )
    named = np.isin(np.arange(len(table)), [0, found.choice.answer, found.choice.plain, found.choice.single])
    order[0], order[found.choice.answer] = 0, -1
    shown = table[(order <= _MOST) | named].assign(order=order)
    columns = ["trial", "label", "role", "score", "difference", "error", "epochs", "note", "strengths"]
    return shown.sort_values("order")[columns].reset_index(drop=True)


def places(study: Any, shown: pd.DataFrame) -> pd.DataFrame:
    """A row for each trial and axis: the techniques, each from off at 0 to its strongest at 1, and the score last.

    The worst tenth of scores, and those that are none, stand at the bottom.
    """
    dimensions = {dimension.key: dimension for dimension in study._settled.space.dimensions}
    finite = shown["score"][np.isfinite(shown["score"])]
    low, high = float(finite.quantile(0.1)), float(finite.max())
    found = []
    for trial in shown.to_dict("records"):
        same = {"trial": trial["trial"], "role": trial["role"], "recipe": trial["label"]}
        for key, dimension in dimensions.items():
            strength = trial["strengths"].get(key)
            # the weakest stands a little above off
            at = 0.0 if strength is None else 0.1 + 0.9 * dimension.place(strength)
            found.append({**same, "axis": key, "at": at, "shown": "off" if strength is None else f"{strength:.3g}"})
        score = trial["score"]
        at = min(1.0, max(0.0, (score - low) / (high - low or 1.0))) if np.isfinite(score) else 0.0
        found.append({**same, "axis": study.score_name, "at": at, "shown": f"{score:.4g}"})
    return pd.DataFrame(found)


class Axis(NamedTuple):
    """How the strengths of a technique are drawn.

    Args:
        at: Where each stands; its distance to 1 where strengths crowd below it.
        title: What that is.
        log: Whether logarithmically.
        backwards: Whether from right to left, so that the strongest stands on the right.
    """

    at: pd.Series
    title: str
    log: bool
    backwards: bool


def axis(strengths: pd.Series, technique: str, scale: str) -> Axis:
    """The axis for strengths of a technique, `scale` being that of its dimension."""
    backwards = scale == "reverse_log"
    at = 1 - strengths if backwards else strengths
    title = f"1 − {technique}" if backwards else technique
    return Axis(at, title, scale != "linear" and bool((at > 0).all()), backwards)


def span(strengths: pd.DataFrame) -> tuple[float, float]:
    """The differences that a picture has room for: what ruins the network would leave none for all else."""
    known = strengths["difference"][np.isfinite(strengths["difference"])]
    alone = strengths[strengths["alone"] & np.isfinite(strengths["difference"])]
    high = max(0.0, known.max(), (alone["difference"] + alone["error"]).max() if len(alone) else 0.0)
    low = min(0.0, max(known.min(), known.quantile(0.25) - 2 * (known.max() - known.quantile(0.25))))
    margin = 0.05 * (high - low or 1.0)
    return float(low - margin), float(high + margin)


def reach(profile: pd.DataFrame) -> tuple[float, float]:
    """The scores that a picture of one technique's profile has room for, likewise."""
    off = profile["score"][profile["strength"].isna()].max()
    best, worst = profile["score"].max(), (profile["score"] - profile["error"]).min()
    if np.isnan(best):  # every strength diverged on some fold
        return 0.0, 1.0
    base = best if np.isnan(off) else off
    low = max(worst, base - max(3 * (best - base), 4 * profile["error"].median()))
    shown = profile[profile["score"] >= low]  # the error of what ruins the network knows no bounds
    high = max((shown["score"] + shown["error"]).max(), shown["train_score"].max())
    margin = 0.06 * (high - low or 1.0)
    return float(low - margin), float(high + margin)


def _label(recipe: Recipe) -> str:
    """What a recipe has on, with what was not searched too."""
    on = [
        f"{key} {strength:.3g} {recipe.schedules.get(key, '')}".rstrip()
        for key, strength in recipe.strengths.items()
        if strength
    ]
    rate = [f"learning_rate {recipe.learning_rate:.3g}"] if recipe.learning_rate else []
    return ", ".join(on + rate) or "nothing"


def _note(row: dict[str, Any]) -> str:
    notes = [f"{row['diverged']} diverged"] if row["diverged"] else []
    return ", ".join([*notes, "pruned"] if row["pruned"] else notes)
