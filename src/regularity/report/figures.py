"""Figures, drawn with matplotlib from what a study found; nothing is computed here."""

import io
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

_HELD_OUT, _TRAINED, _CHOSEN, _MUTED = "#1f4e9c", "#c26a12", "#b3123f", "#6b7280"


class Picture(Figure):
    """A figure that a notebook shows, and that pyplot does not know: no state of its own, nothing to close."""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", dpi=120)
        return buffer.getvalue()


def plot_path(path: Any, ax: Any = None) -> Any:
    """Draw a path: scores over strength with both choices marked, the weight norm below.

    Args:
        path: A `regularity.Path`.
        ax: Two axes, such as `plt.subplots(2)[1]` to see them in a window, or None for a new figure.

    Returns:
        The figure.
    """
    if ax is None:
        ax = Picture(figsize=(8, 6), layout="constrained").subplots(2, 1, sharex=True, height_ratios=[3, 1])
    scores, norms = ax
    figure = scores.figure
    table = path.table[path.table["name"] != "as given"]
    where = _positions(table["strength"].to_numpy())

    _band(path, scores)
    scores.errorbar(
        where,
        table["score"],
        table["error"],
        color=_HELD_OUT,
        ecolor=_HELD_OUT,
        elinewidth=0.8,
        capsize=2,
        marker="o",
        markersize=3.5,
        linewidth=1.2,
        label="held-out rows, mean ± standard error",
    )
    scores.plot(where, table["train_score"], color=_TRAINED, linewidth=1.2, linestyle="--", label="rows trained on")
    if path.table["name"].iloc[0] == "as given":
        given = path.table.iloc[0]
        chosen = [
            word for word, point in (("best mean", path.best), ("answer", path.one_se)) if point.name == "as given"
        ]
        label = f"{', '.join(['as given', *chosen])}: {given['score']:.4g}"
        scores.axhline(
            given["score"],
            color=_CHOSEN if chosen else _MUTED,
            linewidth=1.2 if chosen else 1,
            linestyle=":",
            label=label,
        )
    _mark(scores, path.best, table, where, "best mean", marker="^", color=_HELD_OUT)
    _mark(scores, path.one_se, table, where, "answer, by one standard error", marker="D", color=_CHOSEN)
    scores.set_ylabel(_label(path.score_name))
    scores.set_title(_title(path), loc="left", fontsize=11)
    scores.legend(frameon=False, fontsize=8.5, loc="best")

    norms.plot(where, table["norm"], color=_MUTED, linewidth=1.2)
    norms.set_ylabel("norm of\nthe kernels")
    norms.set_ylim(bottom=0)
    norms.set_xlabel(f"strength of {path.technique}")
    _strength_axis(norms, table["strength"].to_numpy(), where)
    for axes in (scores, norms):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="#e5e7eb", linewidth=0.7)
        axes.set_axisbelow(True)
    return figure


def _positions(strengths: np.ndarray) -> np.ndarray:
    """Where strengths stand: logarithmic where they are spaced so, weak to strong, 'off' a little to the left of all."""
    direction = _direction(strengths)
    if not direction:
        return strengths
    near_one = direction < 0 and not np.isinf(strengths[0])
    logs = direction * np.log10(1 - strengths[1:] if near_one else strengths[1:])
    gap = max(0.06 * np.ptp(logs), np.diff(logs).mean() if len(logs) > 1 else 1.0)
    return np.concatenate([[logs[0] - gap], logs])


def _direction(strengths: np.ndarray) -> int:
    """1 where strengths are spaced logarithmically, -1 where bounds or distances to 1 are, 0 where they are not."""
    if len(strengths) <= 2:
        return 0
    if np.isinf(strengths[0]) or (strengths[-1] < 1 and 1 - strengths[1] > 50 * (1 - strengths[-1])):
        return -1
    return int(strengths[0] == 0 and strengths[-1] / strengths[1] > 50)


def _strength_axis(axes: Any, strengths: np.ndarray, where: np.ndarray) -> None:
    direction = _direction(strengths)
    if not direction:
        return
    powers = np.arange(np.ceil(where[1]), np.floor(where[-1]) + 1)
    powers = powers if len(powers) else where[[1, -1]]
    if np.isinf(strengths[0]) or direction > 0:
        labels = [f"$10^{{{direction * p + 0:.3g}}}$" for p in powers]
    else:
        labels = [f"{1 - 10**-p:.6g}" for p in powers]
    axes.set_xticks([where[0], *powers], ["off", *labels])
    axes.xaxis.set_minor_locator(NullLocator())


def _band(path: Any, axes: Any) -> None:
    """The scores that lie within the paired error of the best."""
    good = path.table[path.table["as_good"]]
    axes.axhspan(
        good["score"].min(), good["score"].max(), color=_HELD_OUT, alpha=0.08, linewidth=0, label="as good as the best"
    )


def _mark(axes: Any, point: Any, table: Any, where: np.ndarray, label: str, **style: Any) -> None:
    if point.name == "as given":
        return  # its line is there
    row = int(np.flatnonzero(table["strength"].to_numpy() == point.strength)[0])
    strength = "off" if point.name == "off" else f"{point.strength:.3g}"
    axes.plot(
        where[row],
        point.score,
        markersize=9,
        markeredgecolor="white",
        linestyle="none",
        zorder=5,
        label=f"{label}: {strength} ({point.score:.4g})",
        **style,
    )


def _title(path: Any) -> str:
    if path.flat:
        return f"{path.technique} makes no difference here"
    if path.one_se.name:
        return f"{path.technique}: no strength is better than the model {'as given' if path.one_se.name == 'as given' else 'without it'}"
    return f"{path.technique} helps at {path.one_se.strength:.3g}"


def _label(score: str) -> str:
    return {"r2": "R²", "loss": "loss, negated"}.get(
        score, score.removeprefix("neg_").replace("_", " ") + (", negated" if score.startswith("neg_") else "")
    )
