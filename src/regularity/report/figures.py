"""Figures, drawn with matplotlib from what a study found; nothing is computed here."""

import io
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

from regularity.report._trials import axis, places, reach, span
from regularity.report._trials import rows as trial_rows

_HELD_OUT, _TRAINED, _CHOSEN, _MUTED = "#1f4e9c", "#c26a12", "#b3123f", "#6b7280"
_LINE = "#e5e7eb"
_MARKS = {
    "one_se": ("s", _MUTED, "within one error"),
    "best": ("^", _HELD_OUT, "best mean"),
    "chosen": ("D", _CHOSEN, "chosen"),
}


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
        line = f"{', '.join(['as given', *chosen])}: {given['score']:.4g}"
        scores.axhline(
            given["score"],
            color=_CHOSEN if chosen else _MUTED,
            linewidth=1.2 if chosen else 1,
            linestyle=":",
            label=line,
        )
    _mark(scores, path.best, table, where, "best mean", marker="^", color=_HELD_OUT)
    _mark(scores, path.one_se, table, where, "answer, by one standard error", marker="D", color=_CHOSEN)
    scores.set_ylabel(label(path.score_name))
    scores.set_title(_title(path), loc="left", fontsize=11)
    scores.legend(frameon=False, fontsize=8.5, loc="best")

    norms.plot(where, table["norm"], color=_MUTED, linewidth=1.2)
    norms.set_ylabel("norm of\nthe kernels")
    norms.set_ylim(bottom=0)
    norms.set_xlabel(f"strength of {path.technique}")
    for axes in (norms,) if norms.get_shared_x_axes().joined(norms, scores) else (scores, norms):
        _strength_axis(axes, table["strength"].to_numpy(), where)
    for axes in (scores, norms):
        _plain(axes)
    return figure


def plot_comparison(study: Any, ax: Any = None) -> Any:
    """Draw what was chosen minus the model as given, plain and the best single technique, with 95 % intervals."""
    rows = study.comparison.drop(index="chosen")
    axes = _axes(ax, (7, 0.5 * len(rows) + 1.2))
    reach = [rows["difference"] - rows["low"], rows["high"] - rows["difference"]]
    _differences(axes, rows.index, rows["difference"], reach)
    axes.set_xlabel(f"{label(study.score_name)}: chosen minus this, 95 % interval")
    axes.set_title(
        f"{study._subject} helps" if study.verdict == "helps" else "Not separable from the model as given",
        loc="left",
        fontsize=11,
    )
    return axes.figure


def plot_strengths(study: Any, ax: Any = None) -> Any:
    """Draw each technique's trials over its strength: the difference to the model as given, with errors where it was alone.

    Raises:
        ValueError: If the model as given diverges, or no trial has a technique that was searched.
    """
    if study._given_diverges:
        raise ValueError(
            "Expected a model as given with a score, to draw differences to it. Received: one that diverges."
        )
    rows = study._evidence.strengths.merge(trial_rows(study)[["trial", "role"]], on="trial")
    dimensions = [d for d in study._settled.space.dimensions if (rows["technique"] == d.key).any()]
    if not dimensions:
        raise ValueError(
            f"Expected a trial with a technique that was searched. Received: {len(study.table)} trials without any. Search "
            "with more `trials`."
        )
    found = _grid(ax, len(dimensions), "technique")
    low, high = span(rows)
    for axes, dimension in zip(found, dimensions, strict=True):
        mine = rows[(rows["technique"] == dimension.key) & np.isfinite(rows["difference"])]
        at, title, log, backwards = axis(mine["strength"], dimension.key, dimension.scale)
        shown = mine["difference"].clip(low, high)
        alone = mine["alone"].to_numpy()
        axes.axhline(0, color=_MUTED, linewidth=1, linestyle=":")
        axes.errorbar(
            at[alone], shown[alone], mine["error"][alone], color=_HELD_OUT, fmt="o", markersize=4, elinewidth=0.9, capsize=2
        )  # fmt: skip
        axes.plot(at[~alone], shown[~alone], "o", color=_MUTED, markersize=3.5, alpha=0.5)
        chosen = (mine["role"] == "chosen").to_numpy()
        axes.plot(at[chosen], shown[chosen], "D", color=_CHOSEN, markersize=8, markeredgecolor="white", zorder=5)
        if log:
            _logarithmic(axes, at)
        if backwards:
            axes.invert_xaxis()
        axes.set_xlabel(title)
        axes.set_ylim(low, high)
        _plain(axes)
    found[0].set_ylabel(f"{label(study.score_name)},\nminus as given")
    return found[0].figure


def plot_profile(study: Any, ax: Any = None) -> Any:
    """Draw the best recipe over the range of each of its techniques: held out, on training rows, and weights that are not near zero.

    Raises:
        ValueError: If it has none that was searched.
    """
    rows, scales = study.profile(), {d.key: d.scale for d in study._settled.space.dimensions}
    names = list(dict.fromkeys(rows["technique"]))
    if not names:
        raise ValueError("Expected a best recipe with a technique that was searched. Received: one without any.")
    found = _grid(ax, len(names), "technique")
    for axes, name in zip(found, names, strict=True):
        mine = rows[(rows["technique"] == name) & rows["strength"].notna()]
        off = rows[(rows["technique"] == name) & rows["strength"].isna()].iloc[0]
        at, title, log, backwards = axis(mine["strength"], name, scales[name])
        axes.axhline(off["score"], color=_MUTED, linewidth=1, linestyle=":", label="off")
        axes.errorbar(
            at, mine["score"], mine["error"], color=_HELD_OUT, marker="o", markersize=4, elinewidth=0.9, capsize=2, label="held out"
        )  # fmt: skip
        axes.plot(at, mine["train_score"], color=_TRAINED, linewidth=1.2, linestyle="--", label="trained on")
        for mark, (shape, color, words) in _MARKS.items():
            one = mine[mark].to_numpy()
            axes.plot(
                at[one], mine["score"][one], shape, color=color, markersize=9, markeredgecolor="white", zorder=5, label=words
            )  # fmt: skip
        if log:
            _logarithmic(axes, at)
        if backwards:
            axes.invert_xaxis()
        axes.set_ylim(reach(rows[rows["technique"] == name]))
        axes.set_xlabel(title)
        top = axes.secondary_xaxis("top")
        top.set_xticks(at.iloc[[0, -1]], [f"{n:,}" for n in mine["weights"].iloc[[0, -1]]], fontsize=8)
        top.minorticks_off()
        top.set_xlabel("weights not near zero", fontsize=8)
        _plain(axes)
    found[0].set_ylabel(label(study.score_name))
    found[0].legend(fontsize=7.5, loc="lower left", framealpha=0.8, edgecolor="none")
    return found[0].figure


def plot_curves(study: Any, ax: Any = None) -> Any:
    """Draw held-out and training scores by epoch of the best recipe and its variants, and where each stops."""
    axes, rows = _axes(ax, (8, 4.5)), study._evidence.curves
    for number, name in enumerate(dict.fromkeys(rows["recipe"])):
        mine = rows[rows["recipe"] == name]
        color = _CHOSEN if name == "all" else f"C{number % 10}"
        axes.plot(mine["epoch"], mine["held_out"], color=color, linewidth=1.4, label=name)
        axes.plot(mine["epoch"], mine["train"], color=color, linewidth=1.1, linestyle="--")
        stop = mine[mine["stopped"]]
        axes.plot(stop["epoch"], stop["held_out"], "o", color=color, markersize=6, markeredgecolor="white")
    axes.set_xlabel("epoch")
    axes.set_ylabel(label(study.score_name))
    axes.set_title("Held out (solid, with where it stops) and on training rows (dashed)", loc="left", fontsize=11)
    axes.legend(frameon=False, fontsize=8.5)
    _plain(axes)
    return axes.figure


def plot_ablation(study: Any, ax: Any = None) -> Any:
    """Draw what each variant of the best recipe loses or gains beside the whole of it, with two standard errors."""
    rows = study.ablation().drop(index="all")
    axes = _axes(ax, (7, 0.4 * len(rows) + 1.2))
    _differences(axes, rows.index, rows["difference"], 2 * rows["error"])
    axes.set_xlabel(f"{label(study.score_name)}: this minus the whole recipe, ± two standard errors")
    return axes.figure


def plot_trials(study: Any, ax: Any = None) -> Any:
    """Draw all trials as lines across the techniques, off at the bottom and the strongest at the top, the score last."""
    rows = places(study, trial_rows(study))
    names = list(dict.fromkeys(rows["axis"]))
    axes = _axes(ax, (max(6, 1.3 * len(names)), 4))
    style = {
        "other": (_MUTED, 0.25, 0.8), "best tenth": (_HELD_OUT, 0.8, 1.2), "as given": (_TRAINED, 1, 1.8), "chosen": (_CHOSEN, 1, 2.2)
    }  # fmt: skip
    for role, (color, alpha, width) in style.items():
        for number, (_, line) in enumerate(rows[rows["role"] == role].groupby("trial", sort=False)):
            axes.plot(
                line["axis"], line["at"], color=color, alpha=alpha, linewidth=width, label=None if number else role
            )
    axes.set_yticks([])
    axes.tick_params("x", labelrotation=25)
    axes.legend(frameon=False, fontsize=8.5, loc="upper left", bbox_to_anchor=(1, 1))
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.grid(axis="x", color=_LINE, linewidth=0.7)
    return axes.figure


def plot_calibration(study: Any, ax: Any = None) -> Any:
    """Draw what was so over what the fold models said, on held-out rows.

    Raises:
        ValueError: If that has no meaning here: several outputs, or a loss of another kind.
    """
    found = study._evidence.calibration
    if found is None:
        raise ValueError(
            "Expected a model that predicts one class or one number a row, to say how far it can be taken at its word."
        )
    axes = _axes(ax, (5, 4.5))
    _reliability(axes, found)
    _plain(axes)
    return axes.figure


def plot_weights(study: Any, ax: Any = None) -> Any:
    """Draw a histogram of the weights of each kernel of the best recipe's fold models."""
    kernels = study._evidence.weights.to_dict("records")
    found = _grid(ax, len(kernels), "kernel")
    for axes, kernel in zip(found, kernels, strict=True):
        edges = np.linspace(kernel["low"], kernel["high"], len(kernel["counts"]) + 1)
        axes.stairs(kernel["counts"], edges, fill=True, color=_HELD_OUT)
        axes.set_title(f"{kernel['kernel']}, {kernel['zeros']:.1%} below 0.001", loc="left", fontsize=9)
        _plain(axes)
    return found[0].figure


def plot_diagnosis(diagnosis: Any, ax: Any = None) -> Any:
    """Draw the loss by epoch, the score by share of the rows, and the calibration, of those what is known."""
    draw: list[tuple[Any, Any]] = [(_epochs, diagnosis)]
    draw += [(_shares, diagnosis)] if len(diagnosis.shares) else []
    draw += [(_reliability, diagnosis.calibration)] if diagnosis.calibration is not None else []
    found = _grid(ax, len(draw), "picture")
    for axes, (each, what) in zip(found, draw, strict=True):
        each(axes, what)
        _plain(axes)
    return found[0].figure


def _epochs(axes: Any, diagnosis: Any) -> None:
    for name, color in (("as given", _HELD_OUT), ("plain", _MUTED)):
        mine = diagnosis.curves[diagnosis.curves["model"] == name]
        if len(mine):
            axes.plot(mine["epoch"], mine["held_out_loss"], color=color, linewidth=1.4, label=f"{name}, held out")
            axes.plot(mine["epoch"], mine["train_loss"], color=color, linewidth=1.1, linestyle="--", label="trained on")
    axes.axvline(diagnosis.epochs, color=_CHOSEN, linewidth=1, linestyle=":")
    axes.set_xlabel("epoch")
    axes.set_ylabel("loss, without penalties" if len(diagnosis.shares) else "loss")
    axes.set_title(f"Best after {diagnosis.epochs} epochs", loc="left", fontsize=10)
    axes.legend(frameon=False, fontsize=8)


def _shares(axes: Any, diagnosis: Any) -> None:
    rows = diagnosis.shares
    axes.errorbar(
        rows["rows"],
        rows["held_out"],
        rows["error"],
        color=_HELD_OUT,
        marker="o",
        markersize=4,
        capsize=2,
        label="held out",
    )
    axes.plot(rows["rows"], rows["train"], color=_TRAINED, linestyle="--", marker="o", markersize=3, label="trained on")
    axes.set_xscale("log", base=2)
    axes.set_xticks(rows["rows"], rows["rows"])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("rows to train on")
    axes.set_ylabel(label(diagnosis.score_name))
    axes.set_title("More rows", loc="left", fontsize=10)
    axes.legend(frameon=False, fontsize=8)


def _reliability(axes: Any, found: Any) -> None:
    """What was so over what was said."""
    bins = found.bins
    ends = [bins["predicted"].min(), bins["predicted"].max()]
    axes.plot(ends, ends, color=_MUTED, linewidth=1, linestyle=":")
    axes.errorbar(
        bins["predicted"], bins["observed"], bins["error"], color=_HELD_OUT, marker="o", markersize=4, capsize=2
    )
    axes.set_xlabel("predicted" if found.kind == "numbers" else "confidence")
    axes.set_ylabel("observed" if found.kind == "numbers" else "share that was right")
    axes.set_title(f"Calibration error {found.error:.2g} (chance {found.chance:.2g})", loc="left", fontsize=10)


def _axes(ax: Any, size: tuple[float, float]) -> Any:
    return Picture(figsize=size, layout="constrained").subplots() if ax is None else ax


def _grid(ax: Any, count: int, what: str) -> list[Any]:
    """Axes for each of some things, three in a row."""
    if ax is None:
        columns = min(3, count)
        rows = -(-count // columns)
        found = Picture(figsize=(3.6 * columns, 2.7 * rows), layout="constrained").subplots(
            rows, columns, squeeze=False
        )
        for spare in found.ravel()[count:]:
            spare.set_visible(False)
        return list(found.ravel()[:count])
    given = list(np.ravel(ax))
    if len(given) != count:
        raise ValueError(
            f"Invalid value received for argument `ax`. Expected {count} axes, one for each {what}. Received: {len(given)}"
        )
    return given


def _differences(axes: Any, names: Any, differences: Any, reach: Any) -> None:
    """Points with intervals beside zero, the first on top."""
    at = np.arange(len(names))[::-1]
    axes.axvline(0, color=_MUTED, linewidth=1, linestyle=":")
    axes.errorbar(differences, at, xerr=reach, color=_HELD_OUT, fmt="o", markersize=6, elinewidth=2)
    axes.set_yticks(at, names)
    axes.set_ylim(-0.6, len(names) - 0.4)
    axes.spines[["top", "right"]].set_visible(False)


def _logarithmic(axes: Any, at: Any) -> None:
    """A logarithmic axis for strengths: over less than two decades also with numbers between the powers of ten."""
    axes.set_xscale("log")
    if len(at) and at.max() / at.min() < 100:
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 3)))
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.xaxis.set_minor_locator(NullLocator())


def _plain(axes: Any) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color=_LINE, linewidth=0.7)
    axes.set_axisbelow(True)


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


def label(score: str) -> str:
    return {"r2": "R²", "loss": "loss, negated"}.get(
        score, score.removeprefix("neg_").replace("_", " ") + (", negated" if score.startswith("neg_") else "")
    )
