"""`regularity search`, `resume` and `report`: for a model or for rows alone, and where a study is found again."""

import json
import shlex
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import typer

from regularity.cli._files import (
    MOST_CLASSES,
    Interrupted,
    Wrong,
    check_classes,
    check_writable,
    load_with_rows,
    read_rows,
)
from regularity.cli._printing import print_json, print_table, records, say

if TYPE_CHECKING:
    import numpy as np

_BUDGET = "5min"  # where neither trials nor a budget are given
_SHARED = ("trials", "budget", "folds", "epochs", "seeds", "batch_size")  # options of a search with a model and without
_ROWS_OF_A_CLASS = 5  # numbers that come less often on average are no classes
_SHOWN = 8  # classes and columns of text that are named


class Engine(StrEnum):
    """Where members train."""

    local = "local"
    ray = "ray"


class Log(StrEnum):
    """Where trials show while a search runs."""

    tensorboard = "tensorboard"
    mlflow = "mlflow"
    wandb = "wandb"


class Task(StrEnum):
    """What the target of a table is."""

    auto = "auto"
    classification = "classification"
    regression = "regression"


class Outputs(NamedTuple):
    """What is made of what a search found: files to write, and what is printed."""

    model: Path | None = None
    ensemble: Path | None = None
    report: Path | None = None
    as_json: bool = False
    quiet: bool = False


def where_of(
    engine: Engine | None = Engine.local, live: bool = False, port: int | None = None, log: list[Log] | None = None
) -> dict[str, Any]:
    """Where members train and where that is shown, which a study does not depend on; None is where they did before."""
    return {"engine": engine and engine.value, "live": port or live, "trial_callbacks": _loggers(log or [])}


def search_again(
    study: str,
    storage: str | None,
    where: dict[str, Any],
    outputs: Outputs,
    instead: dict[str, Any],
) -> None:
    """The search that began a study, with some of what was asked then replaced where it is not None.

    How many candidates or how much time there is to be takes the place of both: what was asked may have ended it.
    """
    from regularity.study._store import asked_of

    storage, study = _kept(study, storage)
    asked = asked_of(storage, study)
    if asked is None:
        raise Wrong(
            f"The study {study!r} was not begun by regularity search. Run again what began it, rg.search(...), rg.path(...) or "
            "regularity path: it goes on where it stopped. What rg.search returns has a report(...)."
        )
    asked = dict.fromkeys(_SHARED) | asked  # an option may have come since
    instead = {key: value for key, value in instead.items() if value is not None}
    if "trials" in instead or "budget" in instead:
        asked |= {"trials": None, "budget": None}
    asked |= instead
    engine = where["engine"] or asked.get("engine", Engine.local.value)
    search_as_asked(asked, storage, study, where | {"engine": engine}, outputs)


def _kept(study: str, storage: str | None) -> tuple[str, str]:
    """Where a study is and its name there, from what the command line says of it."""
    from regularity.study._store import names_in, shown, study_file

    try:
        where = storage or (study if "://" in study else str(study_file(study)))
        names = names_in(where)
    except ValueError as error:
        raise Wrong(str(error)) from error
    except OSError as error:
        raise Wrong(f"Can't read {shown(storage or study)}: {error.strerror}.") from error
    if not names:
        there = (
            "a name in ./regularity/, or a file that `regularity search` named"
            if storage is None
            else "a storage that has it"
        )
        raise Wrong(f"No such study: {study}. Expected {there}. Received: {shown(where)}, which has none.")
    meant = [study] if storage is not None else [study, Path(study).stem, *(names if len(names) == 1 else [])]
    for name in meant:
        if name in names:
            return where, name
    raise Wrong(
        f"Expected one of the studies in {shown(where)}: {', '.join(map(repr, names))}. Received: {study!r}. Name it, for example: "
        f"regularity resume {shlex.quote(names[0])} --storage {shlex.quote(shown(where))}"
    )


def search_as_asked(
    asked: dict[str, Any],
    storage: str | None,
    name: str,
    where: dict[str, Any],
    outputs: Outputs,
) -> None:
    """Search as asked, and show what was found."""
    ending, why = (".keras", "") if asked["model"] else (".joblib", ", since how columns are prepared is a part of it")
    for option, file in (("--out", outputs.model), ("--ensemble", outputs.ensemble)):
        if file is not None and file.suffix != ending:
            raise Wrong(f"Expected {option} to end in {ending}{why}. Received: {file}")
        if file is not None:
            check_writable(file)  # now, not after the work
    if outputs.report is not None:
        if outputs.report.suffix.lower() != ".html":
            raise Wrong(f"Expected the report to end in .html. Received: {outputs.report}")
        check_writable(outputs.report)
    limited = asked if asked["trials"] or asked["budget"] else {**asked, "budget": _BUDGET}
    search = _with_model(limited) if asked["model"] else _with_table(limited)
    from regularity.study._store import Asked

    try:
        verbose = 0 if outputs.quiet or outputs.as_json else "auto"
        found, save = search(storage=Asked(storage, asked), name=name, verbose=verbose, **where)
    except KeyboardInterrupt:
        raise Interrupted(_kept_of(storage, name)) from None
    except (ValueError, TypeError, ImportError) as error:
        raise Wrong(str(error)) from error
    for file, average in ((outputs.model, False), (outputs.ensemble, True)):
        if file is not None:
            save(file, average)
    if outputs.report is not None:
        found.report(outputs.report)
    _show(found, outputs)


def _kept_of(storage: str | None, name: str) -> str:
    """What is kept of a search that was interrupted, and how to go on with it."""
    from regularity.study._store import names_in, shown, study_file

    try:
        names = names_in(storage or study_file(name))
    except ValueError:  # in memory, or a server that is gone
        return "interrupted"
    if name not in names:
        return "interrupted before there was a study."
    where = "" if storage is None else f" --storage {shlex.quote(shown(storage))}"
    return f"interrupted. What is finished is kept; to go on: regularity resume {shlex.quote(name)}{where}"


def _show(found: Any, outputs: Outputs) -> None:
    """Print what a search found, and which files there are of it."""
    from regularity.study._store import shown

    files = {name: str(file) for name, file in outputs._asdict().items() if isinstance(file, Path)}
    if outputs.as_json:
        print_json(
            {
                "study": found.name, "storage": shown(found.storage), "score": found.score_name, "verdict": found.verdict, "answer": str(found),
                "recipe": json.loads(found.recipe.to_json()), "best": json.loads(found.best.to_json()),
                "comparison": records(found.comparison, "index"), "table": records(found.table.reset_index()),
                **{name: files.get(name) for name in ("model", "ensemble", "report")},
            }
        )  # fmt: skip
        return
    print_table(
        f"{found.name}: {found.score_name} on folds that the choice never saw, of one refit",
        ["", found.score_name, "±", "chosen minus this", "±", "95 % interval"],
        [
            [str(role), f"{r['score']:.4g}", f"{r['error']:.2g}", f"{r['difference']:+.3g}", f"{r['difference_error']:.2g}", f"{r['low']:+.3g} to {r['high']:+.3g}"]
            for role, r in found.comparison.iterrows()
        ],
    )  # fmt: skip
    say(str(found))
    say(f"Recipe: {found.recipe.to_json()}")
    written = "".join(f"; {name}: {file}" for name, file in files.items())
    say(f"{len(found.table)} trials in {shown(found.storage)}{written}")


def _with_model(asked: dict[str, Any]) -> Callable[..., tuple[Any, Callable[[Path, bool], Any]]]:
    """A search for a model in a file, its files read: it gives the study, and what saves the answer or the ensemble."""
    model, x, y = load_with_rows(Path(asked["model"]), Path(asked["data"]), asked["target"])
    import regularity as rg

    options = {key: asked[key] for key in (*_SHARED, "score", "init", "seed")}

    def search(**where: Any) -> tuple[Any, Callable[[Path, bool], Any]]:
        found = rg.search(model, x, y, _keys(asked["techniques"]), **options, **where)
        return found, lambda file, average: (found.ensemble() if average else found.model).save(file)

    return search


def _with_table(asked: dict[str, Any]) -> Callable[..., tuple[Any, Callable[[Path, bool], Any]]]:
    """The same for a table without a model, by an estimator that prepares its columns."""
    x, y = read_rows(Path(asked["data"]), asked["target"])
    if isinstance(x, dict):
        raise Wrong(
            f"Expected {asked['data']} to have one array beside the target {asked['target']!r}, without a model. Received: {sorted(x)}."
        )
    x = _without_index(x)
    _check_dates(x)
    numbers = y.dtype.kind in "iuf"
    if not numbers and asked["task"] == Task.auto:
        check_classes(y, Path(asked["data"]), asked["target"])
    classes = asked["task"] == Task.classification or (asked["task"] == Task.auto and _are_classes(y))
    if not classes and not numbers:
        raise Wrong(f"Expected numbers in {asked['target']!r} for a regression. Received: {type(y[0]).__name__}.")
    if asked["task"] == Task.auto:
        typer.echo(f"Task: {_in_words(y, classes)}", err=True)
    _say_columns(x)
    import joblib

    import regularity as rg

    estimator = (rg.sklearn.RegularizedClassifier if classes else rg.sklearn.RegularizedRegressor)(
        techniques=_keys(asked["techniques"]), scoring=asked["score"], random_state=asked["seed"],
        **{key: asked[key] for key in _SHARED},
    )  # fmt: skip

    def search(**where: Any) -> tuple[Any, Callable[[Path, bool], Any]]:
        estimator.set_params(**where).fit(x, y)
        return estimator.study_, save

    def save(file: Path, average: bool) -> None:
        estimator.set_params(
            ensemble=average, storage=None, trial_callbacks=None, live=False
        )  # a URL may have a password
        estimator._take_model()
        joblib.dump(estimator, file)

    return search


def _in_words(y: "np.ndarray", classes: bool) -> str:
    """What a target was taken for."""
    found = sorted(set(y.ravel().tolist()), key=str)  # of several types, perhaps
    if y.dtype.kind not in "iuf":  # which leaves no doubt
        shown = ", ".join(map(str, found[:_SHOWN]))
        return f"{Task.classification}, of the classes {shown}{', …' if len(found) > _SHOWN else ''}"
    task, other = (Task.classification, Task.regression)[:: 1 if classes else -1]
    return f"{task}, of {len(found)} distinct numbers (else --task {other})"


def _without_index(x: Any) -> Any:
    """Rows without the nameless first column that counts them, which `to_csv` writes unless told not to."""
    if not hasattr(x, "columns") or x.columns[0] != "Unnamed: 0" or x.shape[1] == 1:
        return x
    counted = x.iloc[:, 0].sort_values().to_numpy()
    if counted.dtype.kind != "i" or (counted != range(counted[0], counted[0] + len(counted))).any() or counted[0] > 1:
        return x
    typer.echo("Left out: the first column, which has no name and counts the rows", err=True)
    return x.iloc[:, 1:]


def _say_columns(x: Any) -> None:
    """Say how the columns of a table are taken."""
    if not hasattr(x, "columns"):
        return
    text = _of_text(x)
    words = f"{x.shape[1] - len(text)} of numbers"
    if text:
        shown = ", ".join(f"{name} ({x[name].nunique()} different)" for name in text[:_SHOWN])
        words += f", {len(text)} as categories: {shown}{', …' if len(text) > _SHOWN else ''}"
    typer.echo(f"Columns: {words}", err=True)


def _check_dates(x: Any) -> None:
    """See that no column of a table is dates as text, of which each would be a category of its own."""
    dates = [name for name in _of_text(x) if _are_dates(x[name])] if hasattr(x, "columns") else []
    if dates:
        raise Wrong(
            f"Expected columns of numbers, text or truth values. Received: dates in {dates}. Turn them into numbers that mean "
            "something, for example days since the first date."
        )


def _of_text(x: Any) -> list[str]:
    """The columns of a table that are no numbers; an estimator refuses those that pandas knows for dates."""
    return [name for name, kind in x.dtypes.items() if kind.kind not in "iufmMc"]


def _are_dates(column: Any) -> bool:
    """Whether all texts of a column are days, perhaps with a time, as ISO 8601 has them."""
    import pandas as pd

    known = column.dropna()
    if not len(known) or not known.map(lambda value: isinstance(value, str)).all():
        return False
    if not known.str.match(r"\d{4}-\d\d-\d\d").all():  # not all that pandas takes for one, such as four digits, is one
        return False
    return bool(pd.to_datetime(known, format="ISO8601", errors="coerce").notna().all())


def _loggers(log: list[Log]) -> list[Any]:
    """What tells others of each trial.

    Raises:
        Wrong: If what it needs is not installed, or nobody is logged in.
    """
    import regularity as rg

    make = {
        Log.tensorboard: lambda: rg.loggers.TensorBoard(Path("regularity", "tensorboard")),
        Log.mlflow: lambda: rg.loggers.MLflow(),
        Log.wandb: lambda: rg.loggers.WandB(),
    }
    try:
        return [make[each]() for each in dict.fromkeys(log)]
    except (ImportError, ValueError) as error:
        raise Wrong(str(error)) from error


def _keys(words: str) -> str | list[str]:
    return words if words == "auto" else [key.strip() for key in words.split(",")]


def _are_classes(y: "np.ndarray") -> bool:
    """Whether targets are taken for classes: text, truth values, or few whole numbers of which each comes often."""
    import numpy as np

    if y.dtype.kind not in "iuf":
        return True
    found = np.unique(y)
    few = len(found) <= max(2, min(MOST_CLASSES, len(y) // _ROWS_OF_A_CLASS))
    return bool(few and y.ndim == 1 and (found == np.round(found)).all())
