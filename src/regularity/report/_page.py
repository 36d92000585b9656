"""The report of a study: one HTML file that opens without a network, for whoever would rather look than read."""

import json
import os
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

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


class Drawn(NamedTuple):
    """What a page shows, apart from what all pages have.

    Args:
        title: Of the window.
        main: The sections, as HTML.
        charts: Vega-Lite by the chart's name, as JSON that may stand in HTML.
    """

    title: str
    main: str
    charts: str


def page(study: Any) -> str:
    """The report of a study, as HTML."""
    return whole(drawn(study))


def drawn(study: Any) -> Drawn:
    """The sections of a study; of one that nothing has judged yet, those that there are."""
    contents = _contents(study)
    title = f"{study.name}: {study.verdict if contents['judged'] else 'searching'}"
    return Drawn(title, _block("main", contents), contents["charts"])


def waiting(name: str) -> Drawn:
    """What stands there before a trial of a study is finished."""
    return Drawn(f"{name}: searching", _block("waiting", {"name": name}), "{}")


def whole(shown: Drawn, status: str | None = None, version: int = 0, over: bool = False) -> str:
    """A page that holds all it needs.

    Args:
        shown: Its sections.
        status: What a search that runs does; the page asks for news then.
        version: The number of what is shown, by which the page asks.
        over: Whether that is final.
    """
    return _template().render(
        shown=shown,
        status=status,
        version=version,
        over=over,
        style=_text("page.css"),
        # what would end the element that it stands in is written otherwise
        vega=vl_convert.javascript_bundle().replace("</script", "<\\/script"),
        script=_text("page.js"),
    )


def _block(name: str, contents: dict[str, Any]) -> str:
    template = _template("sections.html")
    return "".join(template.blocks[name](template.new_context(contents)))


def _template(file: str = "page.html") -> jinja2.Template:
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"signed": lambda value: _number(value, "+"), "number": _number, "percent": "{:.1%}".format}
    return environment.from_string(_text(file))


def _text(file: str) -> str:
    return files("regularity.report").joinpath(file).read_text("utf-8")


def _contents(study: Any) -> dict[str, Any]:
    evidence, score, judged = study._evidence, label(study.score_name), bool(study._found.judged.networks)
    rows = _trials.rows(study)
    kernels = evidence.weights.to_dict("records")
    strengths = evidence.strengths.merge(
        rows[["trial", "role", "label"]].rename(columns={"label": "recipe"}), on="trial"
    )
    scales = {dimension.key: dimension.scale for dimension in study._settled.space.dimensions}
    searched = strengths["technique"][: 0 if study._given_diverges else None]
    techniques = [key for key in scales if (searched == key).any()]
    parallel = _trials.places(study, rows)
    calibration = evidence.calibration
    comparison = ablation = profile = None
    charts: dict[str, Any] = {}
    if judged:
        # a model that brings no strength of its own is plain as given
        comparison, ablation = _distinct(study.comparison, "plain"), _distinct(study.ablation(), "none")
        charts["comparison"] = _charts.comparison(comparison, score)
        charts["curves"] = _charts.curves(evidence.curves[evidence.curves["recipe"].isin(ablation.index)], score)
        charts["ablation"] = _charts.ablation(ablation, score)
        profile = study.profile()
        for number, (key, of_key) in enumerate(profile.groupby("technique", sort=False)):
            charts[f"profile-{number}"] = _charts.profile(of_key, str(key), score, scales[key])
    for number, key in enumerate(techniques):
        of_key = strengths[strengths["technique"] == key]
        charts[f"strength-{number}"] = _charts.strengths(of_key, key, score, scales[key], _trials.span(strengths))
    charts["trials"] = _charts.trials(parallel, list(dict.fromkeys(parallel["axis"])))
    if calibration is not None:
        charts["calibration"] = _charts.calibration(calibration.bins, calibration.kind == "numbers")
    for number, kernel in enumerate(kernels[:_KERNELS]):
        charts[f"kernel-{number}"] = _charts.histogram(kernel)
    return {
        "study": study,
        "judged": judged,
        "score": score,
        "answer": str(study),
        "comparison": comparison,
        "profile": profile,
        "techniques": techniques,
        "trials": rows.to_dict("records"),
        "searched": list(scales),
        "total": len(study.table),
        "ablation": ablation,
        "calibration": calibration,
        "kernels": kernels,
        "recipe": json.dumps(json.loads((study.recipe if judged else study.best).to_json()), indent=2),
        "code": _code(study) if judged else None,
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
    held = len(np.unique(np.concatenate(design.folds)))  # repeated folds have the same rows again
    apart = "" if design.share else f", beside {settled.data.rows - held} to train on"
    corrected = (
        "; errors are corrected for folds that share training rows (Nadeau and Bengio 2003)" if design.share else ""
    )
    found = {
        "Judged on": f"{held} rows in {len(design.folds)} folds {design.unseen}{apart}",
        "Score": f"{study.score_name}, without penalties{corrected}",
        "Candidates": f"{len(study.table)}, trained as {members} networks of at most {study._found.epochs} epochs, "
        f"{settled.plan.batch_size} rows a step",
        "Choice": "the fewest techniques that are within one paired standard error of the best and keep three quarters of "
        "its gain; the model as given wins ties",
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
    if record.get("devices"):
        found["Devices"] = ", then ".join(record["devices"])
    if environment:
        found["Versions"] = ", ".join(f"{name} {number}" for name, number in environment.items())
    return found | {"Written": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")}


def _number(value: Any, sign: str = "") -> str:
    if value is None or pd.isna(value):
        return "–"
    return f"{value:{sign}.4g}" if isinstance(value, (float, np.floating)) else f"{value:{sign}}"
