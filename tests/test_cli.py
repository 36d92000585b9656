"""The command line: quick help, results to read or to parse, and one line for each thing that can be wrong."""

import json
import os
import re
import subprocess
import sys
import zipfile
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace

import keras
import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_iris
from typer.testing import CliRunner

import regularity as rg
from regularity import cli
from regularity.cli import _files, _printing

SMALL = ["--technique", "dropout", "--strengths", "2", "--folds", "2", "--epochs", "2", "--batch-size", "25"]
KINDS = np.array(["setosa", "versicolor", "virginica"])


def network(inputs=4):
    layers = [keras.Input((inputs,)), keras.layers.Dense(8, "relu", name="hidden"), keras.layers.Dense(3, "softmax")]
    return keras.Sequential(layers)


def compiled():
    model = network()
    model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy")
    return model


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Models and data, good and bad, as a user might have them."""
    folder = tmp_path_factory.mktemp("files")
    x, y = load_iris(return_X_y=True)
    x, y = x[::3].astype("float32"), y[::3]
    frame = pd.DataFrame(x, columns=["sepal length", "sepal width", "petal length", "petal width"])

    network().save(folder / "uncompiled.keras")
    compiled().save(folder / "model.keras")
    (folder / "broken.keras").write_text("this is no model")
    with zipfile.ZipFile(folder / "empty.keras", "w"):
        pass

    np.savez(folder / "data.npz", x=x, y=y)
    np.savez(folder / "lonely.npz", y=y)
    np.savez(folder / "narrow.npz", x=x[:, :3], y=y)
    np.savez(folder / "objects.npz", x=np.array([{}] * 5), y=y[:5])
    np.savez(folder / "high.npz", x=x, y=y + 1)
    np.savez(folder / "several.npz", x=x, a=x, y=y)
    left, right = keras.Input((4,), name="left"), keras.Input((4,), name="right")
    two = keras.Model([left, right], keras.layers.Dense(3, "softmax")(left + right))
    two.compile("adam", "sparse_categorical_crossentropy")
    two.save(folder / "two.keras")
    (folder / "header.csv").write_text("a,b,kind\n")
    (folder / "broken.npz").write_text("this is no archive")
    frame.assign(kind=KINDS[y]).to_csv(folder / "data.csv", index=False)
    frame.assign(kind=y).to_csv(folder / "numbers.csv", index=False)
    frame.assign(kind=y, place="garden").to_csv(folder / "text.csv", index=False)
    frame.assign(kind=y).replace({"sepal width": {frame["sepal width"][3]: np.nan}}).to_csv(
        folder / "gaps.csv", index=False
    )
    frame.assign(kind=np.where(y == 1, None, KINDS[y])).to_csv(folder / "unlabelled.csv", index=False)
    (folder / "data.txt").write_text("1 2 3")
    (folder / "empty.csv").write_text("")
    (folder / "is_a_folder.png").mkdir()
    return folder


@pytest.fixture
def run(folder, monkeypatch, command_line):
    """Run a command line in the folder; gives exit code, standard output and standard error."""
    monkeypatch.chdir(folder)
    return command_line


# -- help ------------------------------------------------------------------------------------------------------------


def in_a_process(code):
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False)
    assert run.returncode == 0, run.stderr
    return run.stdout


def test_help_loads_nothing_heavy():
    """So that it answers at once."""
    said = in_a_process(
        "import sys\n"
        "from regularity import cli\n"
        "sys.argv = ['regularity', 'path', '--help']\n"
        "try:\n    cli.main()\n"
        "except SystemExit as ended:\n    code = ended.code\n"
        "heavy = {'keras', 'jax', 'matplotlib', 'pandas', 'scipy', 'sklearn', 'numpy', 'optuna', 'tensorflow', 'torch'}\n"
        "print('LAST', code, sorted(heavy & set(sys.modules)))\n"
    )
    assert said.splitlines()[-1] == "LAST 0 []"
    assert "--technique" in said


def test_no_arguments_are_help(run):
    code, out, err = run()
    assert code == 2
    assert "techniques" in out + err


def test_the_docs_name_every_command_and_each_prints_json(run):
    page = (Path(__file__).parents[1] / "docs" / "command-line.md").read_text()
    commands = {command.name or command.callback.__name__: command.callback for command in cli.app.registered_commands}
    assert set(commands) == set(re.findall(r"^\| `regularity (\w+)", page, re.MULTILINE))
    assert all("as_json" in callback.__annotations__ for callback in commands.values())


def test_a_shell_completes_commands():
    found = subprocess.run(
        [Path(sys.executable).with_name("regularity")],
        env={**os.environ, "_REGULARITY_COMPLETE": "complete_bash", "COMP_WORDS": "regularity dia", "COMP_CWORD": "1"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert found.stdout.split() == ["diagnose"]


@pytest.mark.parametrize("command", ["demo", "path", "techniques"])
def test_each_command_has_help(run, command):
    code, out, err = run(command, "--help")
    assert (code, err) == (0, "")
    assert "--json" in out


# -- techniques ------------------------------------------------------------------------------------------------------


def test_techniques_are_listed(run):
    code, out, err = run("techniques")
    assert (code, err) == (0, "")
    assert out.isascii()
    lines = out.splitlines()
    assert len(lines) == 3 * len(rg.techniques())
    for name, technique in rg.techniques().items():
        (start,) = [i for i, line in enumerate(lines) if line.startswith(f"{name} (")]
        first, summary, paper = lines[start : start + 3]
        low, high = technique.range
        assert first.startswith(f"{name} ({technique.place}): {low:g} to {high:g}, ")
        assert first.endswith(", None is off") == technique.inverted
        assert (summary, paper) == (f"    {technique.summary}", f"    {_printing.as_ascii(technique.paper)}")


def test_techniques_fit_a_narrow_terminal(run, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    code, out, err = run("techniques")
    assert (code, err) == (0, "")
    assert max(map(len, out.splitlines())) <= 80
    said = " ".join(out.split())
    for technique in rg.techniques().values():
        assert f"{technique.summary} {technique.paper}" in said


def test_techniques_as_json_are_the_catalogue(run):
    code, out, err = run("techniques", "--json")
    assert (code, err) == (0, "")
    listed = {entry["name"]: entry for entry in json.loads(out)}
    assert list(listed) == list(rg.techniques())
    for name, technique in rg.techniques().items():
        assert tuple(listed[name]["range"]) == technique.range
        assert listed[name]["place"] == technique.place
        assert listed[name]["paper"] == technique.paper
        assert listed[name]["off"] == (None if technique.inverted else 0.0)


# -- a path ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def saved(folder):
    """A path as JSON, with its picture and its model; and the same from Python."""
    outputs = ["--json", "--out", "new/answer.keras", "--plot", "new/path.svg"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        result = CliRunner().invoke(cli.app, ["path", "model.keras", "data.npz", *SMALL, *outputs])
    assert result.exit_code == 0, result.output
    with np.load(folder / "data.npz") as arrays:
        x, y = arrays["x"], arrays["y"]
    settings = {"technique": "dropout", "strengths": 2, "folds": 2, "epochs": 2, "batch_size": 25, "verbose": 0}
    return result.stdout, rg.path(compiled(), x, y, **settings)


def test_path_as_json_is_the_path_of_python(saved):
    out, path = saved
    found = json.loads(out)
    pd.testing.assert_frame_equal(pd.DataFrame(found["table"]), path.table, check_exact=False, rtol=1e-6)
    assert any(row["norm"] != round(row["norm"], 10) for row in found["table"])
    assert found["best"] == json.loads(path.best.recipe.to_json())
    assert found["one_se"] == json.loads(path.one_se.recipe.to_json())
    assert (found["score"], found["verdict"], found["flat"]) == (path.score_name, path.verdict, path.flat)
    assert (found["picture"], found["model"]) == ("new/path.svg", "new/answer.keras")


def test_picture_and_model_are_in_a_folder_that_was_made(saved, folder):
    assert "<svg" in (folder / "new" / "path.svg").read_text()
    assert keras.saving.load_model(folder / "new" / "answer.keras").count_params() == network().count_params()


def test_saved_model_loads_where_regularity_is_not(saved, folder):
    _, path = saved
    with np.load(folder / "data.npz") as arrays:
        expected = path.model.predict(arrays["x"], verbose=0)
    np.save(folder / "expected.npy", expected)
    in_a_process(
        "import sys, warnings\n"
        "sys.modules['regularity'] = None\n"
        "warnings.simplefilter('error', UserWarning)\n"
        "import keras, numpy as np\n"
        f"folder = {str(folder)!r}\n"
        "model = keras.saving.load_model(folder + '/new/answer.keras')\n"
        "found = model.predict(np.load(folder + '/data.npz')['x'], verbose=0)\n"
        "np.testing.assert_allclose(found, np.load(folder + '/expected.npy'), atol=1e-5)\n"
        "assert model.optimizer is not None\n"
    )


def table_rows(out):
    return [[cell.strip() for cell in line[1:-1].split("|")] for line in out.splitlines() if line.startswith("| ")]


def test_path_of_a_table_with_text_as_target(run, folder):
    code, out, err = run("path", "model.keras", "data.csv", "--target", "kind", *SMALL)
    assert code == 0
    assert err == "Classes: 0 = setosa, 1 = versicolor, 2 = virginica\n"
    assert out.isascii()
    header, *rows = table_rows(out)
    assert header[1:5] == ["strength", "score", "+-", "to best"]
    assert [row[1] for row in rows] == ["0", "0.8"]
    assert any("answer" in line for line in out.splitlines())
    assert (folder / "path.png").read_bytes().startswith(b"\x89PNG")
    assert "Picture: path.png" in out
    (recipe,) = [line for line in out.splitlines() if line.startswith("Recipe: ")]
    assert set(json.loads(recipe.removeprefix("Recipe: "))) == {"dropout", "epochs"}


@pytest.mark.parametrize("kind", ["parquet", "parquet with integers that may be missing"])
def test_path_of_a_parquet_file(run, folder, kind):
    pytest.importorskip("pyarrow", reason="pyarrow is not installed; to run this: make test EXTRAS=dev")
    frame = pd.read_csv(folder / "numbers.csv")
    if "missing" in kind:
        frame["kind"] = frame["kind"].astype("Int64")
    frame.to_parquet(folder / "data.parquet")
    code, out, err = run("path", "model.keras", "data.parquet", "-t", "kind", *SMALL, "--json")
    assert (code, err) == (0, "")
    assert len(json.loads(out)["table"]) == 2


def test_path_that_is_kept_is_there_again_and_no_search_that_could_be_resumed(run, folder, monkeypatch):
    asked = ["path", "model.keras", "data.npz", *SMALL, "--name", "kept", "--json"]
    code, first, err = run(*asked)
    assert (code, err) == (0, "")
    monkeypatch.setattr("regularity.population._train.Trainer.train", lambda *_: pytest.fail("it trains"))
    assert run(*asked) == (0, first, "")
    code, _, err = run(*asked, "--seed", "1")
    assert code == 2
    assert "another folds" in err
    code, _, err = run("resume", "kept")
    assert code == 2
    assert "'kept' was not begun by regularity search. Run again what began it" in err


def test_model_that_brings_a_strength_has_each_choice_marked_once(run, folder):
    layers = [keras.layers.Dense(8, "relu"), keras.layers.Dropout(0.8), keras.layers.Dense(3, "softmax")]
    model = keras.Sequential([keras.Input((4,)), *layers])
    model.compile("adam", "sparse_categorical_crossentropy")
    model.save(folder / "brings.keras")
    code, out, _ = run("path", "brings.keras", "data.npz", *SMALL)
    assert code == 0
    _, *rows = table_rows(out)
    assert [row[:2] for row in rows] == [["as given", "0.8"], ["off", "0"], ["", "0.8"]]
    assert sorted(", ".join(row[8] for row in rows if row[8]).split(", ")) == ["answer", "best"]


def test_model_as_given_is_marked_though_its_strengths_are_several():
    given, off = ({"name": name, "strength": strength} for name, strength in (("as given", float("nan")), ("off", 0.0)))
    point = SimpleNamespace(name="as given", strength=float("nan"))
    path = SimpleNamespace(best=SimpleNamespace(name="off", strength=0.0), one_se=point)
    assert (_printing.mark(path, given), _printing.mark(path, off)) == ("answer", "best")


def test_terminal_gets_signs_that_a_file_does_not(monkeypatch, capsys):
    _printing.say("R² 0.5 ± 0.1")
    assert capsys.readouterr().out == "R2 0.5 +- 0.1\n"
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    _printing.say("R² 0.5 ± 0.1")
    assert capsys.readouterr().out == "R² 0.5 ± 0.1\n"


def test_numbers_in_json_are_whole_and_none_where_they_are_none():
    table = pd.DataFrame({"strength": [1e-11, 0.1 + 0.2, np.nan, np.inf], "epochs": 3, "name": ["", "off", None, "ż"]})
    found = json.loads(json.dumps(_printing.records(table)))
    assert found[0] == {"strength": 1e-11, "epochs": 3, "name": ""}
    assert [row["strength"] for row in found[1:]] == [0.1 + 0.2, None, None]
    by_name = json.loads(json.dumps(_printing.records(table.head(2).set_index("name"), "index")))
    assert by_name["off"] == {"strength": 0.1 + 0.2, "epochs": 3}


def test_a_name_that_a_pipe_can_not_encode_is_escaped():
    program = (
        "from regularity import cli\n"
        "from regularity.cli import _commands, _printing\n"
        "def work(**_):\n"
        "    _printing.print_table('title', ['name'], [['\\u017c']])\n"
        "    _printing.say('\\u0142')\n"
        "_commands.app = work\n"
        "cli.main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONIOENCODING": "cp1252"},
        capture_output=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert rb"\u017c" in done.stdout
    assert rb"\u0142" in done.stdout


def test_models_that_hold_what_is_ours_are_loaded(folder):
    """By a process that has not imported what is in the file."""
    stack = [keras.layers.Dense(8, "relu", kernel_regularizer=rg.regularizers.L2(1e-3)), rg.layers.Dropout(0.2)]
    by_hand = keras.Sequential([keras.Input((4,)), *stack, keras.layers.Dense(3, "softmax")])
    by_hand.compile("sgd", "sparse_categorical_crossentropy")
    by_hand.save(folder / "by_hand.keras")
    rg.Recipe({"dropout": 0.2, "l2": 1e-3}).apply(compiled()).save(folder / "applied.keras")
    in_a_process(
        "import os, sys\n"
        f"os.chdir({str(folder)!r})\n"
        "from regularity import cli\n"
        "for name in ('by_hand', 'applied'):\n"
        "    for command in (['check', f'{name}.keras'], ['compact', f'{name}.keras', '--out', 'small.keras']):\n"
        "        sys.argv = ['regularity', *command]\n"
        "        try:\n            cli.main()\n"
        "        except SystemExit as ended:\n            assert ended.code in (0, 1), ended.code\n"
    )
    assert not any(
        type(layer).__module__.startswith("regularity")
        for layer in keras.models.load_model(folder / "small.keras").layers
    )


def test_text_as_target_of_a_model_of_numbers_is_refused(run, folder):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    model.compile("adam", "mse")
    model.save(folder / "of_numbers.keras")
    code, _, err = run("path", "of_numbers.keras", "data.csv", "--target", "kind", *SMALL)
    assert code == 2
    assert (
        "Expected numbers in 'kind' of data.csv, since the model's loss is of numbers. Received: text, such as 'setosa'."
        in err
    )


def test_text_as_target_of_a_model_that_is_not_compiled_has_the_usual_error(run, folder):
    code, _, err = run("path", "uncompiled.keras", "data.csv", "--target", "kind", *SMALL)
    assert code == 2
    assert "Expected a compiled model" in err


def test_decimals_of_a_parquet_file_are_numbers(folder):
    pytest.importorskip("pyarrow", reason="pyarrow is not installed; to run this: make test EXTRAS=dev")
    cents = [Decimal(n) / 100 for n in range(10)]
    pd.DataFrame({"a": cents, "price": cents}).to_parquet(folder / "prices.parquet")
    x, y = _files.read_rows(folder / "prices.parquet", "price")
    assert (x["a"].dtype, y.dtype) == ("float64", "float64")


def test_columns_of_a_parquet_file_may_be_named_by_numbers(run, folder):
    pytest.importorskip("pyarrow", reason="pyarrow is not installed; to run this: make test EXTRAS=dev")
    frame = pd.read_csv(folder / "numbers.csv")
    frame.set_axis(range(frame.shape[1]), axis=1).to_parquet(folder / "numbered.parquet")
    code, _, err = run("path", "model.keras", "numbered.parquet", "-t", "4", *SMALL, "--json")
    assert (code, err) == (0, "")


# -- what can be wrong -----------------------------------------------------------------------------------------------

MODEL, DATA = "model.keras", "data.npz"
WRONG = {
    "no such model": (["nothing.keras", DATA], "No such file: nothing.keras. Expected a model"),
    "no such data": ([MODEL, "nothing.csv"], "No such file: nothing.csv. Expected rows"),
    "a name of a model that is too long": ([f"{'a' * 300}.keras", DATA], f"{'a' * 300}.keras"),
    "a name of data that is too long": ([MODEL, f"{'a' * 300}.csv"], f"{'a' * 300}.csv"),
    "a name of a picture that is too long": (
        [MODEL, DATA, "--plot", f"{'a' * 300}.png"],
        f"Can't write to {'a' * 300}.png",
    ),
    "no model": (["broken.keras", DATA], "broken.keras does not load as a Keras model"),
    "an archive without a model": (["empty.keras", DATA], "empty.keras does not load as a Keras model"),
    "data as a model": ([DATA, DATA], "data.npz does not load as a Keras model"),
    "not compiled": (["uncompiled.keras", DATA], "Expected a compiled model"),
    "an unknown ending": (
        [MODEL, "data.txt"],
        "(these two also as .csv.gz and the like) or .parquet. Received: data.txt",
    ),
    "a broken archive": ([MODEL, "broken.npz"], "broken.npz can't be read as npz: it is no archive"),
    "pickled objects": ([MODEL, "objects.npz"], "objects.npz can't be read as npz: array 'x': it holds objects"),
    "several arrays": ([MODEL, "several.npz"], "one array beside the target 'y', since the model has one input"),
    "inputs of other names": (
        ["two.keras", "several.npz"],
        "each input of the model, ['left', 'right']. Received: ['a', 'x']",
    ),
    "a header alone": ([MODEL, "header.csv", "-t", "kind"], "Expected header.csv to have rows"),
    "an empty table": ([MODEL, "empty.csv"], "empty.csv can't be read as csv"),
    "no such array": ([MODEL, DATA, "-t", "z"], "data.npz has no array 'z'. It has ['x', 'y']"),
    "no inputs": ([MODEL, "lonely.npz"], "lonely.npz has no array beside the target 'y'"),
    "no such column": ([MODEL, "data.csv", "-t", "sort"], "has no column 'sort'. It has ['sepal length'"),
    "columns of text": ([MODEL, "text.csv", "-t", "kind"], "Received text in ['place'] of text.csv"),
    "gaps": ([MODEL, "gaps.csv", "-t", "kind"], "x to be finite. Received: NaN or infinity in"),
    "rows without a class": (
        [MODEL, "unlabelled.csv", "-t", "kind"],
        "Expected a 'kind' in every row of unlabelled.csv",
    ),
    "too few columns": (
        [MODEL, "narrow.npz"],
        "Expected x of shape (rows, 4), as the model takes. Received: shape (50, 3)",
    ),
    "classes out of range": ([MODEL, "high.npz"], "classes from 0 to 2"),
    "unknown technique": ([MODEL, DATA, "--technique", "droput"], "Did you mean 'dropout'?"),
    "a pattern that reaches nothing": ([MODEL, DATA, "--technique", "l2@conv*"], "matches no place"),
    "unknown score": ([MODEL, DATA, "--score", "acuracy"], "score='acuracy'"),
    "a score of other targets": (
        [MODEL, DATA, "--score", "neg_mean_gamma_deviance"],
        "score='neg_mean_gamma_deviance'",
    ),
    "too many folds": ([MODEL, DATA, "--folds", "51"], "number of rows, 50. Received: folds=51"),
    "an unknown picture": (
        [MODEL, DATA, "--plot", "path.docx"],
        "--plot to end in .png, .svg or .pdf. Received: path.docx",
    ),
    "a model of another kind": ([MODEL, DATA, "--out", "answer.h5"], "--out to end in .keras. Received: answer.h5"),
    "a file as folder": ([MODEL, DATA, "--plot", "data.csv/path.png"], "Can't write to data.csv"),
    "a folder as picture": (
        [MODEL, DATA, "--plot", "is_a_folder.png"],
        "Can't write to is_a_folder.png: it is a folder",
    ),
    "a file as folder of the model": ([MODEL, DATA, "--out", "data.csv/a.keras"], "Can't write to data.csv"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_one_line_before_any_work(run, monkeypatch, case):
    from regularity.study import _path

    monkeypatch.setattr(_path.Trainer, "train", lambda *_: pytest.fail("trained before all was checked"))
    arguments, message = WRONG[case]
    code, out, err = run("path", *arguments)
    assert (code, out) == (2, "")
    last = err.rstrip("\n")
    assert last.startswith("regularity: ")
    assert "\n" not in last
    assert "Traceback" not in last
    assert message in last


@pytest.mark.parametrize(
    "arguments",
    [
        ["search"],
        ["path"],
        ["path", MODEL, DATA, "--strengths", "1"],
        ["path", MODEL, DATA, "--init", "warm"],
        ["path", MODEL, DATA, "--seed", str(2**40)],
        ["path", MODEL, DATA, "--nonsense"],
    ],
)
def test_wrong_usage_is_exit_code_2(run, arguments):
    code, _, err = run(*arguments)
    assert code == 2
    assert err.startswith("regularity: ")
    assert err.count("\n") == 1
    assert "--help" in err


def test_failure_of_the_work_itself_is_exit_code_1(run, monkeypatch):
    from regularity.study import _path

    def fail(*_):
        raise MemoryError("no more\nroom")

    monkeypatch.setattr(_path.Trainer, "train", fail)
    code, out, err = run("path", MODEL, DATA, *SMALL)
    assert (code, out) == (1, "")
    assert err == "regularity: MemoryError: no more room (set REGULARITY_DEBUG=1 for the traceback)\n"


def test_traceback_is_there_for_who_asks(run, monkeypatch):
    from regularity.study import _path

    def fail(*_):
        raise MemoryError("no more room")

    monkeypatch.setattr(_path.Trainer, "train", fail)
    monkeypatch.setattr(sys, "argv", ["regularity", "path", MODEL, DATA, *SMALL])
    monkeypatch.setenv("REGULARITY_DEBUG", "1")
    with pytest.raises(MemoryError):
        cli.main()


def test_demo_prints_a_table_and_where_the_pictures_are(run, monkeypatch, tmp_path):
    from regularity import demo

    row = {"technique": "l2", "candidate": "best", "strength": 0.01, "epochs": 3, "r2_folds": 0.5}
    row |= {"r2_folds_error": 0.1, "r2_test": 0.4, "r2_test_error": 0.01}
    monkeypatch.setattr(demo, "run", lambda folder, verbose: ([row], [folder / "a.png"], ["l2 helps: r2 0.5 ± 0.1"]))
    code, out, err = run("demo", "--folder", tmp_path / "new")
    assert (code, err) == (0, "")
    assert out.isascii()
    assert table_rows(out)[1] == ["l2", "best", "0.01", "3", "0.500 +- 0.100", "0.400 +- 0.010"]
    assert "l2 helps: r2 0.5 +- 0.1" in out
    assert f"Pictures: {tmp_path / 'new' / 'a.png'}" in out
    _, out, _ = run("demo", "--folder", tmp_path / "new", "--json")
    assert json.loads(out)["table"] == [row]


def test_demo_that_can_not_write_says_so(run):
    code, _, err = run("demo", "--folder", "data.csv")
    assert code == 2
    assert err.startswith("regularity: Can't write to data.csv")


def test_demo_sees_that_a_folder_can_only_be_read_before_the_work(run, monkeypatch, tmp_path):
    from regularity import demo

    monkeypatch.setattr(demo, "run", lambda *_, **__: pytest.fail("worked before all was checked"))
    monkeypatch.setattr(_files.os, "access", lambda path, mode: mode != os.W_OK)  # root may do all
    code, out, err = run("demo", "--folder", tmp_path)
    assert (code, out) == (2, "")
    assert err == f"regularity: Can't write to {tmp_path}: permission denied.\n"


def test_backend_of_pictures_is_left_as_it_was(saved):
    import matplotlib.pyplot as plt

    assert plt.get_fignums() == []
    assert mpl.rcParams["figure.dpi"] == 100
