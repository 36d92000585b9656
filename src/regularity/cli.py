"""The command line. Keras is imported when a command runs, so that `--help` answers at once."""

import json
import os
import shlex
import shutil
import sys
import textwrap
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

if TYPE_CHECKING:
    import numpy as np

app = typer.Typer(
    name="regularity",
    help="Which regularization for a Keras model, how strong, and why.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    epilog="Exit codes: 0 done, 1 the work failed or check found something, 2 the command line, a file or its data are wrong.",
)

AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")]


Out = Annotated[
    Path | None,
    typer.Option("--out", help="Train the answer on all rows and save it here, as .keras; without a model as .joblib."),
]
Ensemble = Annotated[
    Path | None, typer.Option("--ensemble", help="Save the averaged fold models of the best recipe here, likewise.")
]
Page = Annotated[
    Path | None, typer.Option("--report", help="Write all that was found here, as .html, to be looked at.")
]

_WIDEST = 400  # columns of a table that no terminal shows
_BUDGET = "5min"  # where neither trials nor a budget are given
_SHARED = ("trials", "budget", "folds", "epochs", "batch_size")  # options of a search with a model and without
_CLASSES = 20  # more distinct numbers are no classes,
_ROWS_OF_A_CLASS = 5  # nor are those that come less often on average


class Init(StrEnum):
    """Where weights start."""

    fresh = "fresh"
    keep = "keep"


class Engine(StrEnum):
    """Where members train."""

    local = "local"
    ray = "ray"


On = Annotated[Engine, typer.Option("--engine", help="Train on this machine, or on a Ray cluster.")]
Live = Annotated[
    bool, typer.Option("--live", help="Show the report in a browser while the search runs, on this machine alone.")
]
Port = Annotated[
    int | None,
    typer.Option("--port", min=1024, max=65535, help="Of the live report; by default 8765, or one that is free."),
]


class Log(StrEnum):
    """Where trials show while a search runs."""

    tensorboard = "tensorboard"
    mlflow = "mlflow"
    wandb = "wandb"


To = Annotated[
    list[Log] | None,
    typer.Option("--log", help="Show each trial there, TensorBoard in ./regularity/tensorboard; repeatable."),
]


class Task(StrEnum):
    """What the target of a table is."""

    auto = "auto"
    classification = "classification"
    regression = "regression"


class _Wrong(Exception):
    """What the user gave is wrong; the message is one line."""


@app.command()
def demo(
    folder: Annotated[Path, typer.Option("--folder", help="Where the pictures go.")] = Path("regularity"),
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Find the strength of L2 and of dropout for a network that overfits, on data that scikit-learn ships."""
    from regularity.demo import run

    _folder(folder)
    rows, pictures, answers = run(folder, verbose=0 if quiet or as_json else "auto")
    if as_json:
        _print_json({"table": rows, "pictures": [str(p) for p in pictures], "answers": answers})
        return
    _table(
        "Diabetes, 250 rows to train and choose on, 192 that nothing has seen (R², higher is better)",
        ["technique", "", "strength", "epochs", "5 folds", f"{442 - 250} held-out rows"],
        [
            [
                r["technique"],
                r["candidate"],
                f"{r['strength']:.3g}",
                str(r["epochs"]),
                _pm(r["r2_folds"], r["r2_folds_error"]),
                _pm(r["r2_test"], r["r2_test_error"]),
            ]
            for r in rows
        ],
    )
    for answer in answers:
        _say(answer)
    _say("Pictures: " + ", ".join(str(p) for p in pictures))


@app.command()
def path(
    model: Annotated[Path, typer.Argument(help="A compiled model, as MODEL.keras.")],
    data: Annotated[Path, typer.Argument(help="Rows, as .npz (arrays x and y), .csv or .parquet.")],
    target: Annotated[str, typer.Option("--target", "-t", help="Column, or array in the .npz, to predict.")] = "y",
    technique: Annotated[
        str, typer.Option("--technique", help="What to vary: l1, l2, dropout, weight_decay, or technique@pattern.")
    ] = "l2",
    strengths: Annotated[int, typer.Option("--strengths", min=2, help="How many strengths.")] = 50,
    folds: Annotated[int, typer.Option("--folds", min=2, help="How many folds.")] = 5,
    epochs: Annotated[int, typer.Option("--epochs", min=1, help="How long members train.")] = 50,
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="Seeds a fold.")] = 1,
    score: Annotated[str | None, typer.Option("--score", help="A score of scikit-learn, or loss.")] = None,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Rows of a step.")] = 32,
    init: Annotated[Init, typer.Option("--init", help="Fresh weights, or those of the model.")] = Init.fresh,
    seed: Annotated[int, typer.Option("--seed", min=0, max=2**32 - 1, help="The same seed gives the same path.")] = 0,
    plot: Annotated[Path, typer.Option("--plot", help="Where the picture goes.")] = Path("path.png"),
    out: Annotated[
        Path | None, typer.Option("--out", help="Train the answer on all rows and save it here, as .keras.")
    ] = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Vary one technique over a range of strengths on folds, and say which strength to take."""
    if out is not None and out.suffix != ".keras":
        raise _Wrong(f"Expected --out to end in .keras. Received: {out}")
    x, y = _numbers(data, target)
    _picture_to_write(plot)
    if out is not None:
        _file_to_write(out)
    import regularity as rg

    loaded = _model(model)
    _check_names(loaded, x, data, target)
    try:
        found = rg.path(
            loaded, x, y, technique=technique, strengths=strengths, folds=folds, epochs=epochs, seeds=seeds, score=score,
            batch_size=batch_size, init=init.value, seed=seed, verbose=0 if quiet or as_json else "auto",
        )  # fmt: skip
    except (ValueError, TypeError) as error:
        raise _Wrong(str(error)) from error
    found.plot().savefig(plot, dpi=120)
    if out is not None:
        found.model.save(out)
    if as_json:
        _print_json(
            {
                "technique": technique, "score": found.score_name, "verdict": found.verdict, "flat": found.flat, "answer": str(found),
                "best": json.loads(found.best.recipe.to_json()), "one_se": json.loads(found.one_se.recipe.to_json()),
                "table": json.loads(found.table.to_json(orient="records")), "picture": str(plot), "model": None if out is None else str(out),
            }
        )  # fmt: skip
        return
    columns = ["strength", "score", "error", "difference", "difference_error", "train_score"]
    _table(
        f"{technique}: {found.score_name} over {folds} folds",
        ["", "strength", "score", "±", "to best", "±", "train", "epochs", ""],
        [
            [str(r["name"]), *(f"{r[c]:.3g}" for c in columns), str(r["epochs"]), _mark(found, r)]
            for _, r in found.table.iterrows()
        ],
    )
    _say(str(found))
    _say(f"Recipe: {found.one_se.recipe.to_json()}")
    _say(f"Picture: {plot}" + (f"; model: {out}" if out else ""))


@app.command()
def search(
    first: Annotated[
        Path,
        typer.Argument(
            metavar="MODEL.keras|DATA", help="A compiled model; or rows alone, and a network is built for them."
        ),
    ],
    second: Annotated[
        Path | None,
        typer.Argument(metavar="DATA", help="Rows beside a model, as .npz (arrays x and y), .csv or .parquet."),
    ] = None,
    target: Annotated[str, typer.Option("--target", "-t", help="Column, or array in the .npz, to predict.")] = "y",
    task: Annotated[
        Task,
        typer.Option(
            "--task", help="What the target of rows alone is; by default text and few whole numbers are classes."
        ),
    ] = Task.auto,
    techniques: Annotated[
        str, typer.Option("--techniques", help="What to search: auto, or keys with commas between, as l2,dropout.")
    ] = "auto",
    trials: Annotated[int | None, typer.Option("--trials", min=2, help="How many candidates.")] = None,
    budget: Annotated[
        str | None, typer.Option("--budget", help="Time for all of it, as 90s or 5min. With neither, 5min.")
    ] = None,
    folds: Annotated[int, typer.Option("--folds", min=2, help="How many folds.")] = 5,
    epochs: Annotated[int, typer.Option("--epochs", min=1, help="How long members train at most.")] = 50,
    score: Annotated[str | None, typer.Option("--score", help="A score of scikit-learn, or loss.")] = None,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Rows of a step.")] = 32,
    init: Annotated[Init, typer.Option("--init", help="Fresh weights, or those of the model.")] = Init.fresh,
    seed: Annotated[int, typer.Option("--seed", min=0, max=2**32 - 1, help="Sets all that is random.")] = 0,
    storage: Annotated[
        str | None, typer.Option("--storage", help="A URL or a file; by default a file in ./regularity/.")
    ] = None,
    engine: On = Engine.local,
    live: Live = False,
    port: Port = None,
    log: To = None,
    name: Annotated[str | None, typer.Option("--name", help="Of the study; by default that of the first file.")] = None,
    out: Out = None,
    ensemble: Ensemble = None,
    page: Page = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Find which techniques a model needs and how strong, and whether that is real.

    Rows alone may have text and gaps: they are prepared, and a network is built, as rg.sklearn's estimators do.
    """
    model, data = (None, first) if second is None else (first, second)
    if data.suffix == ".keras":
        raise _Wrong(f"Expected rows, after a model or alone. Received: {data}")
    if model is None and init is Init.keep:
        raise _Wrong("Expected a model where --init is keep, to have weights. Received: rows alone.")
    if model is not None and task is not Task.auto:
        raise _Wrong(f"Expected no --task beside a model, whose loss says what it predicts. Received: --task {task}.")
    asked = {
        "model": model and str(model.resolve()), "data": str(data.resolve()), "target": target, "task": task.value,
        "techniques": techniques, "trials": trials, "budget": budget, "folds": folds, "epochs": epochs, "score": score,
        "batch_size": batch_size, "init": init.value, "seed": seed,
    }  # fmt: skip
    _search(asked, storage, name or first.stem, _where(engine, live, port, log), out, ensemble, page, as_json, quiet)


@app.command()
def resume(
    study: Annotated[
        str, typer.Argument(help="The name of a study that `regularity search` began, its file, or its URL.")
    ],
    trials: Annotated[int | None, typer.Option("--trials", min=2, help="More candidates than were asked for.")] = None,
    budget: Annotated[str | None, typer.Option("--budget", help="More time in all than was given.")] = None,
    storage: Annotated[
        str | None, typer.Option("--storage", help="The URL or the file that the study with this name is in.")
    ] = None,
    engine: On = Engine.local,
    live: Live = False,
    port: Port = None,
    log: To = None,
    out: Out = None,
    ensemble: Ensemble = None,
    page: Page = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Go on with a study where it stopped, or where it was killed."""
    where = _where(engine, live, port, log)
    _again(study, storage, where, out, ensemble, page, as_json, quiet, {"trials": trials, "budget": budget})


@app.command()
def report(
    study: Annotated[
        str, typer.Argument(help="The name of a study that `regularity search` began, its file, or its URL.")
    ],
    out: Annotated[Path, typer.Option("--out", help="Where it goes, as .html.")] = Path("report.html"),
    storage: Annotated[
        str | None, typer.Option("--storage", help="The URL or the file that the study with this name is in.")
    ] = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Write a study as one HTML page, to be looked at. What a study that was stopped lacks is trained first."""
    _again(study, storage, _where(), None, None, out, as_json, quiet, {})


def _where(
    engine: Engine = Engine.local, live: bool = False, port: int | None = None, log: list[Log] | None = None
) -> dict[str, Any]:
    """Where members train and where that is shown, which a study does not depend on."""
    return {"engine": engine.value, "live": port or live, "trial_callbacks": _loggers(log or [])}


def _again(
    study: str,
    storage: str | None,
    where: dict[str, Any],
    out: Path | None,
    ensemble: Path | None,
    page: Path | None,
    as_json: bool,
    quiet: bool,
    instead: dict[str, Any],
) -> None:
    """The search that began a study, with some of what was asked then replaced where it is not None."""
    from regularity.study._store import asked_of

    storage, study = _kept(study, storage)
    asked = asked_of(storage, study)
    if asked is None:
        raise _Wrong(
            f"The study {study!r} was begun from Python. Run the same rg.search(...) again: it goes on where it stopped."
        )
    asked |= {key: value for key, value in instead.items() if value is not None}
    _search(asked, storage, study, where, out, ensemble, page, as_json, quiet)


def _kept(study: str, storage: str | None) -> tuple[str, str]:
    """Where a study is and its name there, from what the command line says of it."""
    from regularity.study._store import names_in, shown, study_file

    where = storage or (study if "://" in study else str(study_file(study)))
    try:
        names = names_in(where)
    except ValueError as error:
        raise _Wrong(str(error)) from error
    if not names:
        there = (
            "a name in ./regularity/, or a file that `regularity search` named"
            if storage is None
            else "a storage that has it"
        )
        raise _Wrong(f"No such study: {study}. Expected {there}. Received: {shown(where)}, which has none.")
    meant = [study] if storage is not None else [study, Path(study).stem, *(names if len(names) == 1 else [])]
    for name in meant:
        if name in names:
            return where, name
    raise _Wrong(
        f"Expected one of the studies in {shown(where)}: {', '.join(map(repr, names))}. Received: {study!r}. Name it, for example: "
        f"regularity resume {shlex.quote(names[0])} --storage {shlex.quote(shown(where))}"
    )


def _search(
    asked: dict[str, Any],
    storage: str | None,
    name: str,
    where: dict[str, Any],
    out: Path | None,
    ensemble: Path | None,
    page: Path | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Search as asked, and show what was found."""
    ending, why = (".keras", "") if asked["model"] else (".joblib", ", since how columns are prepared is a part of it")
    for option, file in (("--out", out), ("--ensemble", ensemble)):
        if file is not None and file.suffix != ending:
            raise _Wrong(f"Expected {option} to end in {ending}{why}. Received: {file}")
        if file is not None:
            _file_to_write(file)  # now, not after the work
    if page is not None:
        if page.suffix.lower() != ".html":
            raise _Wrong(f"Expected the report to end in .html. Received: {page}")
        _file_to_write(page)
    limited = asked if asked["trials"] or asked["budget"] else {**asked, "budget": _BUDGET}
    search = _with_model(limited) if asked["model"] else _with_table(limited)
    from regularity.study._store import Asked, shown

    try:
        verbose = 0 if quiet or as_json else "auto"
        found, save = search(storage=Asked(storage, asked), name=name, verbose=verbose, **where)
    except (ValueError, TypeError, ImportError) as error:
        raise _Wrong(str(error)) from error
    for file, average in ((out, False), (ensemble, True)):
        if file is not None:
            save(file, average)
    if page is not None:
        found.report(page)
    if as_json:
        table = found.table.reset_index()
        _print_json(
            {
                "study": found.name, "storage": shown(found.storage), "score": found.score_name, "verdict": found.verdict, "answer": str(found),
                "recipe": json.loads(found.recipe.to_json()), "best": json.loads(found.best.to_json()),
                "comparison": json.loads(found.comparison.to_json(orient="index")), "table": json.loads(table.to_json(orient="records")),
                "model": None if out is None else str(out), "ensemble": None if ensemble is None else str(ensemble),
                "report": None if page is None else str(page),
            }
        )  # fmt: skip
        return
    _table(
        f"{found.name}: {found.score_name} on folds that the choice never saw, of one refit",
        ["", found.score_name, "±", "chosen minus this", "±", "95 % interval"],
        [
            [str(role), f"{r['score']:.4g}", f"{r['error']:.2g}", f"{r['difference']:+.3g}", f"{r['difference_error']:.2g}", f"{r['low']:+.3g} to {r['high']:+.3g}"]
            for role, r in found.comparison.iterrows()
        ],
    )  # fmt: skip
    _say(str(found))
    _say(f"Recipe: {found.recipe.to_json()}")
    files = "".join(
        f"; {word}: {file}" for word, file in (("model", out), ("ensemble", ensemble), ("report", page)) if file
    )
    _say(f"{len(found.table)} trials in {shown(found.storage)}{files}")


def _with_model(asked: dict[str, Any]) -> Callable[..., tuple[Any, Callable[[Path, bool], Any]]]:
    """A search for a model in a file, its files read: it gives the study, and what saves the answer or the ensemble."""
    x, y = _numbers(Path(asked["data"]), asked["target"])
    import regularity as rg

    model = _model(Path(asked["model"]))
    _check_names(model, x, Path(asked["data"]), asked["target"])
    options = {key: asked[key] for key in (*_SHARED, "score", "init", "seed")}

    def search(**where: Any) -> tuple[Any, Callable[[Path, bool], Any]]:
        found = rg.search(model, x, y, _keys(asked["techniques"]), **options, **where)
        return found, lambda file, average: (found.ensemble() if average else found.model).save(file)

    return search


def _with_table(asked: dict[str, Any]) -> Callable[..., tuple[Any, Callable[[Path, bool], Any]]]:
    """The same for a table without a model, by an estimator that prepares its columns."""
    x, y = _rows(Path(asked["data"]), asked["target"])
    if isinstance(x, dict):
        raise _Wrong(
            f"Expected {asked['data']} to have one array beside the target {asked['target']!r}, without a model. Received: {sorted(x)}."
        )
    numbers = y.dtype.kind in "iuf"
    classes = asked["task"] == Task.classification or (asked["task"] == Task.auto and _are_classes(y))
    if not classes and not numbers:
        raise _Wrong(f"Expected numbers in {asked['target']!r} for a regression. Received: {type(y[0]).__name__}.")
    if asked["task"] == Task.auto and numbers:  # text leaves no doubt
        task, other = (Task.classification, Task.regression)[:: 1 if classes else -1]
        typer.echo(f"Task: {task}, of {len(set(y.ravel().tolist()))} distinct numbers (else --task {other})", err=True)
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
        estimator.set_params(ensemble=average, storage=None, trial_callbacks=None)  # a URL may have a password
        estimator._take_model()
        joblib.dump(estimator, file)

    return search


def _loggers(log: list[Log]) -> list[Any]:
    """What tells others of each trial.

    Raises:
        _Wrong: If what it needs is not installed.
    """
    import regularity as rg

    make = {
        Log.tensorboard: lambda: rg.loggers.TensorBoard(Path("regularity", "tensorboard")),
        Log.mlflow: lambda: rg.loggers.MLflow(),
        Log.wandb: lambda: rg.loggers.WandB(),
    }
    try:
        return [make[each]() for each in dict.fromkeys(log)]
    except ImportError as error:
        raise _Wrong(str(error)) from error


def _keys(words: str) -> str | list[str]:
    return words if words == "auto" else [key.strip() for key in words.split(",")]


def _are_classes(y: "np.ndarray") -> bool:
    """Whether targets are taken for classes: text, truth values, or few whole numbers of which each comes often."""
    import numpy as np

    if y.dtype.kind not in "iuf":
        return True
    found = np.unique(y)
    few = len(found) <= max(2, min(_CLASSES, len(y) // _ROWS_OF_A_CLASS))
    return bool(few and y.ndim == 1 and (found == np.round(found)).all())


@app.command()
def check(
    model: Annotated[Path, typer.Argument(help="A model, as MODEL.keras.")],
    data: Annotated[
        Path | None, typer.Argument(help="Rows it is to train on, as .npz (arrays x and y), .csv or .parquet.")
    ] = None,
    target: Annotated[str, typer.Option("--target", "-t", help="Column, or array in the .npz, to predict.")] = "y",
    as_json: AsJson = False,
) -> None:
    """Say what is silently wrong with the regularization of a model; ends with 1 where there is something."""
    x, y = (None, None) if data is None else _numbers(data, target)
    import regularity as rg

    loaded = _model(model)
    try:
        found = rg.check(loaded, x, y)
    except (TypeError, ValueError) as error:
        raise _Wrong(str(error)) from error
    if as_json:
        _print_json(found.table.to_dict(orient="records"))
    else:
        _say(str(found))
    raise typer.Exit(1 if found else 0)


@app.command()
def diagnose(
    model: Annotated[Path, typer.Argument(help="A compiled model, as MODEL.keras.")],
    data: Annotated[Path, typer.Argument(help="Rows, as .npz (arrays x and y), .csv or .parquet.")],
    target: Annotated[str, typer.Option("--target", "-t", help="Column, or array in the .npz, to predict.")] = "y",
    folds: Annotated[int, typer.Option("--folds", min=2, help="How many folds.")] = 5,
    epochs: Annotated[int, typer.Option("--epochs", min=1, help="How long members train: as long as you would.")] = 50,
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="Seeds a fold.")] = 1,
    score: Annotated[str | None, typer.Option("--score", help="A score of scikit-learn, or loss.")] = None,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Rows of a step.")] = 32,
    init: Annotated[Init, typer.Option("--init", help="Fresh weights, or those of the model.")] = Init.fresh,
    seed: Annotated[int, typer.Option("--seed", min=0, max=2**32 - 1, help="Sets all that is random.")] = 0,
    plot: Annotated[
        Path | None, typer.Option("--plot", help="Draw the learning curves and the calibration here.")
    ] = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Say whether a model overfits, underfits, or neither, what that rests on, and what to do next."""
    x, y = _numbers(data, target)
    _picture_to_write(plot)
    import regularity as rg

    loaded = _model(model)
    _check_names(loaded, x, data, target)
    try:
        found = rg.diagnose(
            loaded, x, y, folds=folds, epochs=epochs, seeds=seeds, score=score, batch_size=batch_size, init=init.value, seed=seed,
            verbose=0 if quiet or as_json else "auto",
        )  # fmt: skip
    except (ValueError, TypeError) as error:
        raise _Wrong(str(error)) from error
    if plot is not None:
        found.plot().savefig(plot, dpi=120)
    if as_json:
        _print_json(
            {
                "verdict": found.verdict, "reasons": list(found.reasons), "next": found.next, "score": found.score_name, "epochs": found.epochs,
                "table": json.loads(found.table.to_json(orient="index")), "shares": json.loads(found.shares.to_json(orient="records")),
                "weights": json.loads(found.weights[["kernel", "norm", "spectral_norm", "zeros"]].to_json(orient="records")),
                "picture": None if plot is None else str(plot),
            }
        )  # fmt: skip
        return
    _table(
        f"{model.name} on {len(y)} rows, {folds} folds",
        ["measure", "value", "90 % interval", ""],
        [[name, f"{r['value']:.4g}", f"{r['low']:.3g} to {r['high']:.3g}" if r["low"] < r["high"] else "", r["meaning"]] for name, r in found.table.iterrows()],
    )  # fmt: skip
    _say(str(found))
    if plot is not None:
        _say(f"Picture: {plot}")


@app.command()
def compact(
    model: Annotated[Path, typer.Argument(help="A model, as MODEL.keras.")],
    out: Annotated[Path, typer.Option("--out", help="Where the smaller one goes, as .keras.")],
    threshold: Annotated[float, typer.Option("--threshold", help="The largest weight that counts as zero.")] = 1e-3,
    as_json: AsJson = False,
) -> None:
    """Leave out the units that a penalty has emptied: a smaller model that puts out the same."""
    if out.suffix != ".keras":
        raise _Wrong(f"Expected --out to end in .keras. Received: {out}")
    _file_to_write(out)
    import regularity as rg

    loaded = _model(model)
    loaded = loaded.to_keras() if hasattr(loaded, "to_keras") else loaded
    try:
        found = rg.compact(loaded, threshold)
    except (TypeError, ValueError) as error:
        raise _Wrong(str(error)) from error
    found.save(out)
    before, after = _units(loaded), _units(found)
    layers = [{"layer": name, "before": before[name], "after": n} for name, n in after.items() if n != before[name]]
    counts = {"before": loaded.count_params(), "after": found.count_params()}
    if as_json:
        _print_json({"weights": counts, "layers": layers, "model": str(out)})
        return
    for each in layers:
        _say(f"{each['layer']}: {each['after']} of {each['before']} units")
    _say(f"{counts['after']} of {counts['before']} weights; model: {out}")


def _units(model: Any) -> dict[str, int]:
    """How many units or filters each layer of a model has, by its name."""
    found = {layer.name: getattr(layer, "units", getattr(layer, "filters", None)) for layer in model.layers}
    return {name: units for name, units in found.items() if units is not None}


@app.command()
def techniques(as_json: AsJson = False) -> None:
    """List the techniques: where they act, over which range, and their paper."""
    import regularity as rg

    catalogue = rg.techniques().values()
    if as_json:
        _print_json(
            [
                {
                    "name": t.name,
                    "place": t.place,
                    "summary": t.summary,
                    "unit": t.unit,
                    "range": t.range,
                    "scale": t.scale,
                    "off": None if t.inverted else 0.0,
                    "at_inference": t.at_inference,
                    "paper": t.paper,
                }
                for t in catalogue
            ]
        )
        return
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else _WIDEST  # a table is too wide for 80 columns
    for t in catalogue:
        off = ", None is off" if t.inverted else ""
        _say(f"{t.name} ({t.place}): {t.range[0]:g} to {t.range[1]:g}, {t.scale.replace('_', ' ')}{off}")
        for text in (t.summary, t.paper):
            indent = "    "
            _say(textwrap.fill(text, width, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False))


def main() -> None:
    """Run the command line: errors are one line, and exit with 2 where the input is wrong, else with 1."""
    os.environ.setdefault("KERAS_BACKEND", "jax")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        sys.exit(app(standalone_mode=False) or 0)
    except _Wrong as error:
        _fail(str(error), 2)
    except (KeyboardInterrupt, typer.Abort):
        _fail("interrupted", 130)
    except Exception as error:  # a traceback helps nobody at a prompt
        if hasattr(error, "format_message"):  # the command line itself is wrong
            _fail(_usage(error), 2)
        if os.environ.get("REGULARITY_DEBUG"):
            raise
        _fail(f"{type(error).__name__}: {error} (set REGULARITY_DEBUG=1 for the traceback)", 1)


def _usage(error: Any) -> str:
    """What is wrong with the command line, in one line; the help where there is none at all."""
    where = getattr(error, "ctx", None)
    message = " ".join(error.format_message().split()).removesuffix(".")
    if where is None:
        return f"{message}."
    if not message or type(error).__name__ == "NoArgsIsHelpError":  # the help has been printed
        sys.exit(2)
    return f"{message}. See {where.command_path} --help."


def _fail(message: str, code: int) -> NoReturn:
    print("regularity: " + " ".join(message.split()), file=sys.stderr)
    sys.exit(code)


def _folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _Wrong(f"Can't write to {folder}: {error.strerror}.") from error


def _picture_to_write(file: Path | None) -> None:
    """See that a picture can be written, now and not after the work."""
    if file is None:
        return
    if file.suffix.lower() not in (".png", ".svg", ".pdf"):
        raise _Wrong(f"Expected --plot to end in .png, .svg or .pdf. Received: {file}")
    _file_to_write(file)


def _file_to_write(file: Path) -> None:
    _folder(file.parent)
    if file.is_dir() or not os.access(file if file.exists() else file.parent, os.W_OK):
        raise _Wrong(f"Can't write to {file}: {'it is a folder' if file.is_dir() else 'permission denied'}.")


def _model(file: Path) -> Any:
    if not file.is_file():
        raise _Wrong(f"No such file: {file}. Expected a model that Keras saved, as .keras.")
    import warnings

    import keras

    import regularity.recipe  # noqa: F401  its classes and those of the catalogue are found in the file by their names

    try:
        with warnings.catch_warnings():  # of an optimizer that has not trained yet; its state is of no use here
            warnings.filterwarnings("ignore", message="Skipping variable loading for optimizer")
            return keras.saving.load_model(file)
    except Exception as error:  # Keras raises anything here, from zipfile's errors to TypeError
        raise _Wrong(f"{file} does not load as a Keras model: {' '.join(str(error).split())[:300]}") from error


def _rows(file: Path, target: str) -> tuple[Any, "np.ndarray"]:
    if not file.is_file():
        raise _Wrong(f"No such file: {file}. Expected rows as .npz, .csv or .parquet.")
    readers = {".npz": _npz, ".csv": _frame, ".parquet": _frame}
    if file.suffix.lower() not in readers:
        raise _Wrong(f"Expected a file that ends in .npz, .csv or .parquet. Received: {file}")
    try:
        return readers[file.suffix.lower()](file, target)
    except _Wrong:
        raise
    except Exception as error:  # as with models: readers raise anything on a broken file
        raise _Wrong(f"{file} can't be read as {file.suffix[1:]}: {error}") from error


def _check_names(model: Any, x: Any, file: Path, target: str) -> None:
    """Whether several arrays of a file are named as the inputs of the model."""
    if not isinstance(x, dict) or not getattr(model, "inputs", None):
        return
    given = model.input if len(model.inputs) > 1 else None
    names = list(given) if isinstance(given, dict) else [tensor.name for tensor in model.inputs]
    if len(names) == 1:
        raise _Wrong(
            f"Expected {file} to have one array beside the target {target!r}, since the model has one input. "
            f"Received: {sorted(x)}. Save that one alone, for example np.savez(file, x=x, {target}={target})."
        )
    if any(name not in x for name in names):
        raise _Wrong(
            f"Expected {file} to have an array for each input of the model, {names}. Received: {sorted(x)} beside the "
            f"target {target!r}. Name them as the inputs, for example np.savez(file, **{{{names[0]!r}: …}}, {target}={target})."
        )


def _npz(file: Path, target: str) -> tuple[Any, "np.ndarray"]:
    import zipfile

    import numpy as np

    if not zipfile.is_zipfile(file):
        raise _Wrong(
            f"{file} can't be read as npz: it is no archive, or a broken one. Write it with np.savez(file, x=x, y=y)."
        )
    with np.load(file, allow_pickle=False) as arrays:
        named = {}
        for name in arrays.files:
            try:
                named[name] = arrays[name]
            except ValueError as error:
                text = "it holds objects" if "Object arrays" in str(error) else str(error)
                raise _Wrong(
                    f"{file} can't be read as npz: array {name!r}: {text}. Save arrays of numbers with np.savez(file, x=x, y=y)."
                ) from None
    if target not in named:
        raise _Wrong(f"{file} has no array {target!r}. It has {sorted(named)}; choose one with --target.")
    y = named.pop(target)
    if not named:
        raise _Wrong(
            f"{file} has no array beside the target {target!r}. Save inputs as x, for example np.savez(file, x=x, y=y)."
        )
    return (next(iter(named.values())) if len(named) == 1 else named), y


def _frame(file: Path, target: str) -> tuple[Any, "np.ndarray"]:
    import pandas as pd

    frame = pd.read_csv(file) if file.suffix.lower() == ".csv" else pd.read_parquet(file)
    if target not in frame:
        raise _Wrong(f"{file} has no column {target!r}. It has {list(frame.columns)}; choose one with --target.")
    if frame.empty:
        raise _Wrong(f"Expected {file} to have rows. Received: the header {list(frame.columns)} alone.")
    x, y = frame.drop(columns=target), frame[target]
    if x.shape[1] == 0:
        raise _Wrong(f"Expected {file} to have columns beside the target {target!r}. Received: that one alone.")
    if y.isna().any():
        raise _Wrong(f"Expected a {target!r} in every row of {file}. Received: {int(y.isna().sum())} rows without.")
    return x, y.to_numpy()


def _numbers(file: Path, target: str) -> tuple[Any, "np.ndarray"]:
    """Rows for a model, which takes numbers alone."""
    import numpy as np
    import pandas as pd

    x, y = _rows(file, target)
    if not isinstance(x, pd.DataFrame):
        return x, y
    text = [c for c in x.columns if not pd.api.types.is_numeric_dtype(x[c]) and not pd.api.types.is_bool_dtype(x[c])]
    if text:
        raise _Wrong(
            f"Expected columns of numbers beside a model. Received text in {text} of {file}. Encode them first, for example with "
            "pandas.get_dummies; `regularity search` without a model takes them as they are."
        )
    if y.dtype.kind not in "iufb":
        classes, y = np.unique(y.astype(str), return_inverse=True)
        typer.echo(f"Classes: {', '.join(f'{i} = {c}' for i, c in enumerate(classes))}", err=True)
    return x.to_numpy("float32", na_value=np.nan), y


def _pm(value: float, error: float) -> str:
    return f"{value:.3f} ± {error:.3f}"


def _print_json(value: Any) -> None:
    typer.echo(json.dumps(value, indent=2))


def _table(title: str, header: list[str], rows: list[list[str]]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = Console()
    if not console.is_terminal:  # a file or a pipe has no edge to fold at
        console.width = _WIDEST
    shown = str if console.is_terminal else _ascii
    table = Table(title=shown(title), title_justify="left", box=box.SIMPLE_HEAD if console.is_terminal else box.ASCII2)
    for name in header:
        table.add_column(shown(name), overflow="fold")
    for row in rows:
        table.add_row(*map(shown, row))
    console.print(table)


def _say(line: str) -> None:
    typer.echo(line if sys.stdout.isatty() else _ascii(line))


def _ascii(text: str) -> str:
    """What a file or a pipe gets, whatever its encoding: signs of ours in ASCII; names of the user's stay."""
    return text.translate({ord("±"): "+-", ord("²"): "2", ord("×"): "x"})


def _mark(path: Any, row: Any) -> str:
    """Which of a path's choices a row of its table is."""
    marks = [
        word
        for word, point in (("best", path.best), ("answer", path.one_se))
        if row["name"] == point.name and (point.name or row["strength"] == point.strength)
    ]
    return ", ".join(marks)


if __name__ == "__main__":
    main()
