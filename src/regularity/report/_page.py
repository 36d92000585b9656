"""The report of a study: one HTML file that opens without a network, for whoever would rather look than read."""

import json
import os
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd
import vl_convert

from regularity.report import _charts, _trials
from regularity.report.figures import label

_KERNELS = 12  # whose histograms are drawn


def write(study: Any, file: str | os.PathLike[str]) -> Path:
    """Write the report of a study; see `Study.report`."""
    file = Path(file)
    if file.suffix.lower() != ".html":
        raise ValueError(
            f"Invalid value received for argument `file`. Expected a name that ends in .html. Received: {file}"
        )
    if not file.parent.is_dir():
        raise ValueError(f"Invalid value received for argument `file`. Expected a folder that exists. Received: {file}")
    file.write_text(page(study), encoding="utf-8")
    return file


def page(study: Any) -> str:
    """The report of a study, as HTML."""
    here = files("regularity.report")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"signed": lambda value: _number(value, "+"), "number": _number, "percent": "{:.1%}".format}
    template = environment.from_string(here.joinpath("page.html").read_text("utf-8"))
    return template.render(
        **_contents(study),
        style=here.joinpath("page.css").read_text("utf-8"),
        # what would end the element that it stands in is written otherwise
        vega=vl_convert.javascript_bundle().replace("</script", "<\\/script"),
        script=here.joinpath("page.js").read_text("utf-8"),
    )


def _contents(study: Any) -> dict[str, Any]:
    evidence, score = study._evidence, label(study.score_name)
    rows = _trials.rows(study)
    kernels = evidence.weights.to_dict("records")
    strengths = evidence.strengths.merge(
        rows[["trial", "role", "label"]].rename(columns={"label": "recipe"}), on="trial"
    )
    scales = {dimension.key: dimension.scale for dimension in study._settled.space.dimensions}
    techniques = [key for key in scales if (strengths["technique"] == key).any()]
    parallel = _trials.places(study, rows)
    calibration = evidence.calibration
    # a model that brings no strength of its own is plain as given
    comparison, ablation = _distinct(study.comparison, "plain"), _distinct(study.ablation(), "none")
    charts: dict[str, Any] = {"comparison": _charts.comparison(comparison, score)}
    for number, key in enumerate(techniques):
        of_key = strengths[strengths["technique"] == key]
        charts[f"strength-{number}"] = _charts.strengths(of_key, key, score, scales[key], _trials.span(strengths))
    charts["curves"] = _charts.curves(evidence.curves[evidence.curves["recipe"].isin(ablation.index)], score)
    charts["ablation"] = _charts.ablation(ablation, score)
    charts["trials"] = _charts.trials(parallel, list(dict.fromkeys(parallel["axis"])))
    if calibration is not None:
        charts["calibration"] = _charts.calibration(calibration.bins, calibration.kind == "numbers")
    for number, kernel in enumerate(kernels[:_KERNELS]):
        charts[f"kernel-{number}"] = _charts.histogram(kernel)
    return {
        "study": study,
        "score": score,
        "answer": str(study),
        "comparison": comparison,
        "techniques": techniques,
        "trials": rows.to_dict("records"),
        "searched": list(scales),
        "total": len(study.table),
        "ablation": ablation,
        "calibration": calibration,
        "kernels": kernels,
        "recipe": json.dumps(json.loads(study.recipe.to_json()), indent=2),
        "code": _code(study),
        "facts": _facts(study),
        "charts": json.dumps(charts, allow_nan=False, default=str).replace("<", "\\u003c"),
    }


def _distinct(table: pd.DataFrame, row: str) -> pd.DataFrame:
    """A table without a row that says the same as that of the model as given."""
    return table.drop(index=row) if row in table.index and table.loc[row].equals(table.loc["as given"]) else table


def _code(study: Any) -> str:
    try:
        return study.code()
    except (ValueError, TypeError) as error:
        return f"# This model has no source of its own: {error}"


def _facts(study: Any) -> dict[str, str]:
    """How it was measured, in words."""
    settled, record = study._settled, study._record
    design, members = settled.design, int(study.table["members"].sum())
    judged = "that neither training nor choosing saw" if design.nested else "that the choice did not look at"
    held = sum(len(fold) for fold in design.folds)
    apart = "" if design.share else f", beside {settled.data.rows - held} to train on"
    corrected = (
        "; errors are corrected for folds that share training rows (Nadeau and Bengio 2003)" if design.share else ""
    )
    found = {
        "Judged on": f"{held} rows in {len(design.folds)} folds, {judged}{apart}",
        "Score": f"{study.score_name}, without penalties{corrected}",
        "Candidates": f"{len(study.table)}, trained as {members} networks of at most {settled.epochs} epochs, "
        f"{settled.plan.batch_size} rows a step",
        "Choice": "the fewest techniques within one paired standard error of the best; the model as given wins ties",
        "Seed": str(settled.seed),
        "Study": f"{study.name}, in {record['storage']}",
    }
    if record.get("seconds"):
        found["Time"] = f"{record['seconds']:.0f} seconds"
    question, environment = record.get("question") or {}, record.get("environment") or {}
    if question:
        found["Techniques"] = question["techniques"]
        found["Fingerprints"] = (
            f"data {question['data'][:16]}, model {question['model'][:16]}, folds {question['folds'][:16]}"
        )
    if environment:
        found["Versions"] = ", ".join(f"{name} {number}" for name, number in environment.items())
    return found | {"Written": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")}


def _number(value: Any, sign: str = "") -> str:
    if value is None or pd.isna(value):
        return "–"
    return f"{value:{sign}.4g}" if isinstance(value, (float, np.floating)) else f"{value:{sign}}"
