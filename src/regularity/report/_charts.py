"""The charts of the HTML report, as Vega-Lite: drawn from the same tables as the figures; nothing is computed here.

Colours are those of the page's style sheet, so that they follow it from light to dark. A chart of trials has two
parameters that the page sets in all of them: `picked` are shown before the others, `hidden` not at all.
"""

from typing import Any

import altair as alt
import numpy as np
import pandas as pd

from regularity.report._trials import axis, reach

_HELD_OUT, _TRAINED, _CHOSEN, _MUTED = "var(--held-out)", "var(--trained)", "var(--chosen)", "var(--muted)"
_NAMED = {"all": _CHOSEN, "as given": _TRAINED, "none": _HELD_OUT}
_OTHERS = ["var(--fourth)", "var(--fifth)", "var(--sixth)", _MUTED]
_FEW = alt.Axis(tickCount=5)
_MARKS = {
    "chosen": ("diamond", _CHOSEN),
    "best mean": ("triangle-up", _HELD_OUT),
    "within one error": ("square", _MUTED),
}
_ROLES = {"chosen": _CHOSEN, "as given": _TRAINED, "best tenth": _HELD_OUT, "other": _MUTED}


def comparison(table: pd.DataFrame, score: str) -> dict[str, Any]:
    """What was chosen minus each of the others, with its interval."""
    rows = table[table.index != "chosen"].rename_axis("role").reset_index()
    base = alt.Chart(rows).encode(y=alt.Y("role:N", title=None, sort=None, axis=alt.Axis(labelLimit=140)))
    zero = alt.Chart().mark_rule(strokeDash=[2, 3], color=_MUTED).encode(x=alt.datum(0))
    interval = base.mark_rule(strokeWidth=3, color=_HELD_OUT).encode(
        x=alt.X("low:Q", title=f"{score}: chosen minus this", axis=_FEW),
        x2="high:Q",
        tooltip=_tips(rows, ["role", "difference", "low", "high", "score"]),
    )
    points = base.mark_point(filled=True, size=90, color=_HELD_OUT, opacity=1).encode(x="difference:Q")
    return _finished(alt.layer(zero, interval, points), 34 * len(rows) + 30)


def strengths(rows: pd.DataFrame, technique: str, score: str, scale: str, span: tuple[float, float]) -> dict[str, Any]:
    """The difference to the model as given over the strength of one technique, alone with errors, or among others.

    Args:
        rows: Of that technique.
        technique: Its key.
        score: Its name.
        scale: `linear`, `log`, or `reverse_log` for strengths that crowd below 1.
        span: The differences that are drawn; what lies beyond stands at the edge.
    """
    rows = rows.assign(low=rows["difference"] - rows["error"], high=rows["difference"] + rows["error"])
    rows = rows[np.isfinite(rows["difference"])]
    drawn = axis(rows["strength"], technique, scale)
    scaled = (
        alt.Scale(type="log", reverse=drawn.backwards) if drawn.log else alt.Scale(zero=False, reverse=drawn.backwards)
    )
    field = "at" if drawn.backwards else "strength"
    x = alt.X(f"{field}:Q", title=drawn.title, scale=scaled, axis=alt.Axis(tickCount=4))
    rows = rows.assign(at=drawn.at) if drawn.backwards else rows
    base = alt.Chart(rows).transform_filter("indexof(hidden, datum.trial) < 0").encode(x=x)
    zero = alt.Chart().mark_rule(strokeDash=[2, 3], color=_MUTED).encode(y=alt.datum(0))
    errors = (
        base.transform_filter("datum.alone").mark_rule(color=_HELD_OUT, strokeWidth=1.5).encode(y="low:Q", y2="high:Q")
    )
    points = base.mark_point(filled=True).encode(
        y=alt.Y(
            "difference:Q",
            title=f"{score}, minus as given",
            axis=_FEW,
            scale=alt.Scale(domain=span, clamp=True, nice=False),
        ),
        color=_colour(),
        size=alt.condition("datum.role === 'chosen'", alt.value(150), alt.value(45)),
        shape=alt.condition("datum.role === 'chosen'", alt.value("diamond"), alt.value("circle")),
        opacity=_picked("datum.alone", 1, 0.5),
        tooltip=_tips(rows, ["trial", "strength", "difference", "error", "alone", "recipe"]),
    )
    return _finished(alt.layer(zero, errors, points).add_params(*_params()), 190)


def profile(rows: pd.DataFrame, technique: str, score: str, scale: str) -> dict[str, Any]:
    """The best recipe over the strength of one of its techniques, held out with errors and on rows trained on.

    On top stands how many weights are not near zero, at the line what it scores without the technique.

    Args:
        rows: Of that technique, as `Study.profile` has them.
        technique: Its key.
        score: Its name.
        scale: As in `strengths`.
    """
    rows = rows.assign(mark=np.select([rows["chosen"], rows["best"], rows["one_se"]], list(_MARKS), ""))
    off, on = rows[rows["strength"].isna()], rows[rows["strength"].notna()]
    drawn = axis(on["strength"], technique, scale)
    on = on.assign(at=drawn.at, low=on["score"] - on["error"], high=on["score"] + on["error"])
    linear = {} if drawn.log else {"zero": False}
    scaled = alt.Scale(type="log" if drawn.log else "linear", nice=False, padding=14, reverse=drawn.backwards, **linear)
    x = alt.X("at:Q", title=drawn.title, scale=scaled, axis=alt.Axis(tickCount=4))
    y = alt.Y("score:Q", title=score, axis=_FEW, scale=alt.Scale(domain=reach(rows), clamp=True, nice=False))
    tips = _tips(
        on, ["strength", "score", "error", "difference", "difference_error", "train_score", "gap", "weights", "epochs"]
    )
    base = alt.Chart(on).transform_filter("isValid(datum.score)").encode(x=x)
    without = (
        alt.Chart(off).mark_rule(strokeDash=[2, 3], color=_MUTED).encode(y=y, tooltip=_tips(off, ["score", "error"]))
    )
    errors = base.mark_rule(color=_HELD_OUT, strokeWidth=1.5).encode(y=alt.Y("low:Q"), y2="high:Q")
    held = base.mark_line(color=_HELD_OUT, point=alt.OverlayMarkDef(size=40, color=_HELD_OUT)).encode(y=y, tooltip=tips)
    trained = base.mark_line(color=_TRAINED, strokeDash=[5, 4]).encode(y=alt.Y("train_score:Q"))
    domain, styles = list(_MARKS), list(_MARKS.values())
    mark = {
        "shape": alt.Shape("mark:N", scale=alt.Scale(domain=domain, range=[s[0] for s in styles]), legend=None),
        "color": alt.Color("mark:N", scale=alt.Scale(domain=domain, range=[s[1] for s in styles]), legend=None),
    }
    marks = base.transform_filter("datum.mark !== ''").mark_point(filled=True, size=150, opacity=1)
    marks = marks.encode(y=y, tooltip=tips, **mark)
    off_marks = alt.Chart(off).transform_filter("datum.mark !== ''").mark_point(filled=True, size=150, opacity=1)
    off_marks = off_marks.encode(x=alt.value(5), y=y, **mark)
    ends = on.iloc[[0, -1]][["at", "weights"]]
    counts = alt.Chart(ends).mark_text(dy=-6, fontSize=10, color="currentColor")
    counts = counts.encode(x=x, y=alt.value(0), text=alt.Text("weights:Q", format=".2~s"))
    return _finished(alt.layer(without, errors, trained, held, off_marks, marks, counts), 230)


def curves(rows: pd.DataFrame, score: str) -> dict[str, Any]:
    """Scores by epoch, held out and on training rows, and where each stops."""
    long = rows.melt(["recipe", "epoch", "stopped"], ["held_out", "train"], "rows", "score")
    long["rows"] = long["rows"].map({"held_out": "held out", "train": "trained on"})
    names = list(dict.fromkeys(rows["recipe"]))
    others = [name for name in names if name not in _NAMED]
    colours = _NAMED | {name: _OTHERS[i % len(_OTHERS)] for i, name in enumerate(others)}
    pick = alt.selection_point(fields=["recipe"], bind="legend", name="legend")
    base = (
        alt.Chart(long)
        .transform_filter("isValid(datum.score)")
        .encode(
            x=alt.X("epoch:Q", axis=alt.Axis(tickMinStep=1, tickCount=8, format="d")),
            y=alt.Y("score:Q", title=score, scale=alt.Scale(zero=False)),
            color=alt.Color(
                "recipe:N",
                sort=names,
                scale=alt.Scale(domain=names, range=[colours[name] for name in names]),
                legend=alt.Legend(orient="top", title=None, columns=3, labelLimit=200),
            ),
            opacity=alt.condition(pick, alt.value(1), alt.value(0.1)),
        )
    )
    lines = base.mark_line(strokeWidth=1.8).encode(
        strokeDash=alt.StrokeDash(
            "rows:N",
            scale=alt.Scale(domain=["held out", "trained on"], range=[[1, 0], [5, 4]]),
            legend=alt.Legend(orient="top", title=None),
        ),
        tooltip=_tips(long, ["recipe", "rows", "epoch", "score"]),
    )
    stops = base.transform_filter("datum.stopped && datum.rows === 'held out'").mark_point(filled=True, size=110)
    return _finished(alt.layer(lines.add_params(pick), stops), 300)


def ablation(table: pd.DataFrame, score: str) -> dict[str, Any]:
    """What each variant loses or gains beside the whole recipe."""
    rows = table[table.index != "all"].reset_index()
    rows = rows.assign(low=rows["difference"] - 2 * rows["error"], high=rows["difference"] + 2 * rows["error"])
    base = alt.Chart(rows).encode(y=alt.Y("recipe:N", title=None, sort=None, axis=alt.Axis(labelLimit=140)))
    zero = alt.Chart().mark_rule(strokeDash=[2, 3], color=_MUTED).encode(x=alt.datum(0))
    errors = base.mark_rule(strokeWidth=3, color=_HELD_OUT).encode(
        x=alt.X("low:Q", title=f"{score}: this minus all", axis=_FEW),
        x2="high:Q",
        tooltip=_tips(rows, ["recipe", "difference", "error", "score", "train_score", "gap"]),
    )
    points = base.mark_point(filled=True, size=90, color=_HELD_OUT, opacity=1).encode(x="difference:Q")
    return _finished(alt.layer(zero, errors, points), 30 * len(rows) + 30)


def trials(rows: pd.DataFrame, axes: list[str]) -> dict[str, Any]:
    """All trials as lines across the techniques: how strong each is, from off at the bottom, and the score last.

    Args:
        rows: A row for each trial and axis: `at` from 0 to 1, `shown` in words, `role` and `recipe`.
        axes: In their order.
    """
    base = (
        alt.Chart(rows[::-1])  # the best on top of the others
        .transform_filter("indexof(hidden, datum.trial) < 0")
        .encode(
            x=alt.X("axis:N", sort=axes, title=None, axis=alt.Axis(labelAngle=-30, grid=True, labelLimit=130)),
            y=alt.Y("at:Q", axis=None, scale=alt.Scale(domain=[-0.05, 1.05])),
            color=_colour(),
            detail="trial:N",
            opacity=_picked("datum.role === 'other'", 0.25, 0.9),
            tooltip=_tips(rows, ["trial", "axis", "shown", "recipe"]),
        )
    )
    lines = base.mark_line(strokeWidth=1.6, interpolate="monotone")
    return _finished(alt.layer(lines, base.mark_point(filled=True, size=22)).add_params(*_params()), 300)


def calibration(bins: pd.DataFrame, numbers: bool) -> dict[str, Any]:
    """What was so over what was said."""
    rows = bins.assign(low=bins["observed"] - bins["error"], high=bins["observed"] + bins["error"])
    ends = pd.DataFrame({"predicted": [rows["predicted"].min(), rows["predicted"].max()]})
    line = alt.Chart(ends).mark_line(strokeDash=[2, 3], color=_MUTED).encode(x="predicted:Q", y="predicted:Q")
    base = alt.Chart(rows).encode(
        x=alt.X("predicted:Q", title="predicted" if numbers else "confidence", scale=alt.Scale(zero=False))
    )
    errors = base.mark_rule(color=_HELD_OUT).encode(
        y=alt.Y("low:Q", title="observed" if numbers else "share that was right", scale=alt.Scale(zero=False)),
        y2="high:Q",
    )
    points = base.mark_line(point=alt.OverlayMarkDef(size=55, color=_HELD_OUT), color=_HELD_OUT).encode(
        y="observed:Q", tooltip=_tips(rows, ["predicted", "observed", "error", "rows"])
    )
    return _finished(alt.layer(line, errors, points), 260)


def histogram(kernel: Any) -> dict[str, Any]:
    """The weights of one kernel."""
    edges = np.linspace(kernel["low"], kernel["high"], len(kernel["counts"]) + 1)
    rows = pd.DataFrame({"from": edges[:-1], "to": edges[1:], "weights": kernel["counts"]})
    chart = (
        alt.Chart(rows)
        .mark_rect(color=_HELD_OUT)
        .encode(
            x=alt.X("from:Q", title="weight", axis=alt.Axis(tickCount=4)),
            x2="to:Q",
            y=alt.Y("weights:Q", title="how many", axis=alt.Axis(tickCount=3)),
            y2=alt.datum(0),
            tooltip=_tips(rows, ["from", "to", "weights"]),
        )
    )
    return _finished(chart, 110)


def _params() -> list[Any]:
    return [alt.param(name="picked", value=[]), alt.param(name="hidden", value=[])]


def _picked(test: str, yes: float, no: float) -> dict[str, Any]:
    """Opacity: of those that are picked all, of others little; while none is, one of two by a test."""
    return {
        "condition": [
            {"test": "indexof(picked, datum.trial) >= 0", "value": 1},
            {"test": "length(picked) > 0", "value": 0.06},
            {"test": test, "value": yes},
        ],
        "value": no,
    }


def _colour() -> Any:
    return alt.Color("role:N", scale=alt.Scale(domain=list(_ROLES), range=list(_ROLES.values())), legend=None)


def _tips(rows: pd.DataFrame, columns: list[str]) -> list[Any]:
    return [
        alt.Tooltip(column, title=column.replace("_", " "), format=".4g")
        if rows[column].dtype.kind == "f"
        else alt.Tooltip(column, title=column.replace("_", " "))
        for column in columns
    ]


def _finished(chart: Any, height: int) -> dict[str, Any]:
    """A chart in the page's colours, as wide as the place it stands in."""
    chart = (
        chart.properties(width="container", height=height, autosize=alt.AutoSizeParams(type="fit-x", contains="padding"))
        .configure(background="transparent", aria=False, font="system-ui, sans-serif", view={"stroke": None})
        .configure_axis(
            labelColor="currentColor",
            titleColor="currentColor",
            gridColor="var(--line)",
            domainColor="var(--line)",
            tickColor="var(--line)",
            titleFontWeight="normal",
            labelFontSize=11,
            titleFontSize=12,
            labelOverlap=True,
        )
        .configure_axisX(grid=False)
        .configure_legend(labelColor="currentColor", titleColor="currentColor", labelFontSize=12)
    )  # fmt: skip
    with alt.data_transformers.disable_max_rows():  # long curves and many trials have more than Altair's 5000 rows
        return chart.to_dict()
