"""The commands. Keras is imported when one runs, so that `--help` answers at once."""

import json
import os
import shutil
import sys
import textwrap
import warnings
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from regularity.cli._files import (
    Interrupted,
    Wrong,
    check_folder,
    check_picture,
    check_writable,
    load_model,
    load_with_rows,
    read_numbers,
)
from regularity.cli._printing import WIDEST, escape_what_pipes_lack, mark, pm, print_json, print_table, records, say
from regularity.cli._searching import Engine, Log, Outputs, Task, search_again, search_as_asked, where_of

_INTERRUPTED = 130  # as shells have it

app = typer.Typer(
    name="regularity",
    help="Which regularization for a Keras model, how strong, and why.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    epilog="Exit codes: 0 done, 1 the work failed or check found something, 2 the command line, a file or its data are wrong, 130 interrupted.",
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


class Init(StrEnum):
    """Where weights start."""

    fresh = "fresh"
    keep = "keep"


On = Annotated[Engine, typer.Option("--engine", help="Train on this machine, or on a Ray cluster.")]
Again = Annotated[
    Engine | None, typer.Option("--engine", help="Train on this machine, or on a Ray cluster; by default as before.")
]
Live = Annotated[
    bool, typer.Option("--live", help="Serve the report to a browser while the search runs, on this machine alone.")
]
Port = Annotated[
    int | None,
    typer.Option("--port", min=1024, max=65535, help="Of the live report; by default 8765, or one that is free."),
]


To = Annotated[
    list[Log] | None,
    typer.Option("--log", help="Show each trial there, TensorBoard in ./regularity/tensorboard; repeatable."),
]


@app.command()
def demo(
    folder: Annotated[Path, typer.Option("--folder", help="Where the pictures go.")] = Path("regularity"),
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Find the strength of L2 and of dropout for a network that overfits, on data that scikit-learn ships."""
    from regularity.demo import run

    check_folder(folder)
    rows, pictures, answers = run(folder, verbose=0 if quiet or as_json else "auto")
    if as_json:
        print_json({"table": rows, "pictures": [str(p) for p in pictures], "answers": answers})
        return
    print_table(
        "Diabetes, 250 rows to train and choose on, 192 that nothing has seen (R², higher is better)",
        ["technique", "", "strength", "epochs", "5 folds", f"{442 - 250} held-out rows"],
        [
            [
                r["technique"],
                r["candidate"],
                f"{r['strength']:.3g}",
                str(r["epochs"]),
                pm(r["r2_folds"], r["r2_folds_error"]),
                pm(r["r2_test"], r["r2_test_error"]),
            ]
            for r in rows
        ],
    )
    for answer in answers:
        say(answer)
    say("Pictures: " + ", ".join(str(p) for p in pictures))


@app.command()
def path(
    model: Annotated[Path, typer.Argument(help="A compiled model, as MODEL.keras.")],
    data: Annotated[Path, typer.Argument(help="Rows, as .npz (arrays x and y), .csv, .tsv or .parquet.")],
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
    storage: Annotated[
        str | None, typer.Option("--storage", help="A URL or a file to keep it in, for the same call to go on from.")
    ] = None,
    name: Annotated[str | None, typer.Option("--name", help="Keep it under that name.")] = None,
    plot: Annotated[Path, typer.Option("--plot", help="Where the picture goes.")] = Path("path.png"),
    out: Annotated[
        Path | None, typer.Option("--out", help="Train the answer on all rows and save it here, as .keras.")
    ] = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Vary one technique over a range of strengths on folds, and say which strength to take."""
    if out is not None and out.suffix != ".keras":
        raise Wrong(f"Expected --out to end in .keras. Received: {out}")
    check_picture(plot)
    if out is not None:
        check_writable(out)
    loaded, x, y = load_with_rows(model, data, target)
    import regularity as rg

    try:
        found = rg.path(
            loaded, x, y, technique=technique, strengths=strengths, folds=folds, epochs=epochs, seeds=seeds, score=score,
            batch_size=batch_size, init=init.value, seed=seed, storage=storage, name=name,
            verbose=0 if quiet or as_json else "auto",
        )  # fmt: skip
    except (ValueError, TypeError) as error:
        raise Wrong(str(error)) from error
    found.plot().savefig(plot, dpi=120)
    if out is not None:
        found.model.save(out)
    if as_json:
        print_json(
            {
                "technique": technique, "score": found.score_name, "verdict": found.verdict, "flat": found.flat, "answer": str(found),
                "best": json.loads(found.best.recipe.to_json()), "one_se": json.loads(found.one_se.recipe.to_json()),
                "table": records(found.table), "picture": str(plot), "model": None if out is None else str(out),
            }
        )  # fmt: skip
        return
    columns = ["strength", "score", "error", "difference", "difference_error", "train_score"]
    print_table(
        f"{technique}: {found.score_name} over {folds} folds",
        ["", "strength", "score", "±", "to best", "±", "train", "epochs", ""],
        [
            [str(r["name"]), *(f"{r[c]:.3g}" for c in columns), str(r["epochs"]), mark(found, r)]
            for _, r in found.table.iterrows()
        ],
    )
    say(str(found))
    say(f"Recipe: {found.one_se.recipe.to_json()}")
    say(f"Picture: {plot}" + (f"; model: {out}" if out else ""))


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
        typer.Argument(metavar="DATA", help="Rows beside a model, as .npz (arrays x and y), .csv, .tsv or .parquet."),
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
    epochs: Annotated[
        int | None, typer.Option("--epochs", min=1, help="How long members train at most; by default that is found.")
    ] = None,
    seeds: Annotated[
        int | None, typer.Option("--seeds", min=1, help="Members of a candidate on the same rows; by default one.")
    ] = None,
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
        raise Wrong(f"Expected rows, after a model or alone. Received: {data}")
    if model is None and init is Init.keep:
        raise Wrong("Expected a model where --init is keep, to have weights. Received: rows alone.")
    if model is not None and task is not Task.auto:
        raise Wrong(f"Expected no --task beside a model, whose loss says what it predicts. Received: --task {task}.")
    asked = {
        "model": model and str(model.resolve()), "data": str(data.resolve()), "target": target, "task": task.value,
        "techniques": techniques, "trials": trials, "budget": budget, "folds": folds, "epochs": epochs, "seeds": seeds, "score": score,
        "batch_size": batch_size, "init": init.value, "seed": seed, "engine": engine.value,
    }  # fmt: skip
    search_as_asked(
        asked,
        storage,
        name or first.stem,
        where_of(engine, live, port, log),
        Outputs(out, ensemble, page, as_json, quiet),
    )


@app.command()
def resume(
    study: Annotated[
        str, typer.Argument(help="The name of a study that `regularity search` began, its file, or its URL.")
    ],
    trials: Annotated[
        int | None, typer.Option("--trials", min=2, help="How many candidates in all, in place of what was asked.")
    ] = None,
    budget: Annotated[str | None, typer.Option("--budget", help="Time in all, in place of what was asked.")] = None,
    storage: Annotated[
        str | None, typer.Option("--storage", help="The URL or the file that the study with this name is in.")
    ] = None,
    engine: Again = None,
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
    instead = {"trials": trials, "budget": budget, "engine": engine and engine.value}
    outputs = Outputs(out, ensemble, page, as_json, quiet)
    search_again(study, storage, where_of(engine, live, port, log), outputs, instead)


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
    search_again(study, storage, where_of(), Outputs(report=out, as_json=as_json, quiet=quiet), {})


@app.command()
def check(
    model: Annotated[Path, typer.Argument(help="A model, as MODEL.keras.")],
    data: Annotated[
        Path | None, typer.Argument(help="Rows it is to train on, as .npz (arrays x and y), .csv, .tsv or .parquet.")
    ] = None,
    target: Annotated[str, typer.Option("--target", "-t", help="Column, or array in the .npz, to predict.")] = "y",
    as_json: AsJson = False,
) -> None:
    """Say what is silently wrong with the regularization of a model; ends with 1 where there is something."""
    x, y, _ = (None, None, None) if data is None else read_numbers(data, target)
    import regularity as rg

    loaded = load_model(model)
    try:
        found = rg.check(loaded, x, y)
    except (TypeError, ValueError) as error:
        raise Wrong(str(error)) from error
    if as_json:
        print_json(found.table.to_dict(orient="records"))
    else:
        say(str(found))
    raise typer.Exit(1 if found else 0)


@app.command()
def diagnose(
    model: Annotated[Path, typer.Argument(help="A compiled model, as MODEL.keras.")],
    data: Annotated[Path, typer.Argument(help="Rows, as .npz (arrays x and y), .csv, .tsv or .parquet.")],
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
    check_picture(plot)
    loaded, x, y = load_with_rows(model, data, target)
    import regularity as rg

    try:
        found = rg.diagnose(
            loaded, x, y, folds=folds, epochs=epochs, seeds=seeds, score=score, batch_size=batch_size, init=init.value, seed=seed,
            verbose=0 if quiet or as_json else "auto",
        )  # fmt: skip
    except (ValueError, TypeError) as error:
        raise Wrong(str(error)) from error
    if plot is not None:
        found.plot().savefig(plot, dpi=120)
    if as_json:
        print_json(
            {
                "verdict": found.verdict, "reasons": list(found.reasons), "next": found.next, "score": found.score_name, "epochs": found.epochs,
                "table": records(found.table, "index"), "shares": records(found.shares),
                "weights": records(found.weights[["kernel", "norm", "spectral_norm", "zeros"]]),
                "picture": None if plot is None else str(plot),
            }
        )  # fmt: skip
        return
    print_table(
        f"{model.name} on {len(y)} rows, {folds} folds",
        ["measure", "value", "90 % interval", ""],
        [[name, f"{r['value']:.4g}", f"{r['low']:.3g} to {r['high']:.3g}" if r["low"] < r["high"] else "", r["meaning"]] for name, r in found.table.iterrows()],
    )  # fmt: skip
    say(str(found))
    if plot is not None:
        say(f"Picture: {plot}")


@app.command()
def compact(
    model: Annotated[Path, typer.Argument(help="A model, as MODEL.keras.")],
    out: Annotated[Path, typer.Option("--out", help="Where the smaller one goes, as .keras.")],
    threshold: Annotated[float, typer.Option("--threshold", help="The largest weight that counts as zero.")] = 1e-3,
    as_json: AsJson = False,
) -> None:
    """Leave out the units that a penalty has emptied: a smaller model that puts out the same."""
    if out.suffix != ".keras":
        raise Wrong(f"Expected --out to end in .keras. Received: {out}")
    check_writable(out)
    import regularity as rg

    loaded = load_model(model)
    loaded = loaded.to_keras() if hasattr(loaded, "to_keras") else loaded
    try:
        found = rg.compact(loaded, threshold)
    except (TypeError, ValueError) as error:
        raise Wrong(str(error)) from error
    found.save(out)
    before, after = _units(loaded), _units(found)
    layers = [{"layer": name, "before": before[name], "after": n} for name, n in after.items() if n != before[name]]
    counts = {"before": loaded.count_params(), "after": found.count_params()}
    if as_json:
        print_json({"weights": counts, "layers": layers, "model": str(out)})
        return
    for each in layers:
        say(f"{each['layer']}: {each['after']} of {each['before']} units")
    say(f"{counts['after']} of {counts['before']} weights; model: {out}")


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
        print_json(
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
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else WIDEST  # a table is too wide for 80 columns
    for t in catalogue:
        off = ", None is off" if t.inverted else ""
        say(f"{t.name} ({t.place}): {t.range[0]:g} to {t.range[1]:g}, {t.scale.replace('_', ' ')}{off}")
        for text in (t.summary, t.paper):
            indent = "    "
            say(textwrap.fill(text, width, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False))


def main() -> None:
    """Run the command line: errors and warnings are one line, and errors exit with 2 where the input is wrong, else with 1."""
    if not os.environ.get("REGULARITY_DEBUG"):
        warnings.showwarning = _warn
    escape_what_pipes_lack()
    os.environ.setdefault("KERAS_BACKEND", "jax")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        code = app(standalone_mode=False) or 0
        if code == _INTERRUPTED:  # what Typer makes of it
            _fail("interrupted", _INTERRUPTED)
        sys.exit(code)
    except Wrong as error:
        if os.environ.get("REGULARITY_DEBUG") and error.__cause__ is not None:
            raise
        _fail(str(error), 2)
    except Interrupted as error:
        _fail(str(error), _INTERRUPTED)
    except (KeyboardInterrupt, typer.Abort):
        _fail("interrupted", _INTERRUPTED)
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


def _warn(message: Warning | str, *where: Any) -> None:
    del where  # a line of the library's source helps nobody at a prompt
    print("regularity: warning: " + " ".join(str(message).split()), file=sys.stderr)


def _fail(message: str, code: int) -> NoReturn:
    print("regularity: " + " ".join(message.split()), file=sys.stderr)
    sys.exit(code)
