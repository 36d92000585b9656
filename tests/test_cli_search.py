"""`regularity search` and `resume`: for a model or for rows alone, and where the study is found again."""

import json
import os
import shlex
import shutil
import sys
from pathlib import Path

import joblib
import keras
import numpy as np
import optuna
import pandas as pd
import pytest
from sklearn.datasets import load_diabetes, load_iris

from regularity.cli import _printing, _searching
from regularity.cli._files import read_rows
from regularity.sklearn import RegularizedClassifier, RegularizedRegressor
from regularity.study._store import Store, quiet_optuna

SMALL = ["--trials", "3", "--folds", "2", "--epochs", "3", "--batch-size", "25", "--techniques", "l2"]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A model and rows, as a user might have them."""
    folder = tmp_path_factory.mktemp("files")
    x, y = load_iris(return_X_y=True)
    x, y = x[::3].astype("float32"), y[::3]
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(3, "softmax")])
    model.compile("adam", "sparse_categorical_crossentropy")
    model.save(folder / "net.v2.keras")
    np.savez(folder / "data.npz", x=x, y=y)
    np.savez(folder / "several.npz", x=x, a=x, y=y)
    frame = pd.DataFrame(x, columns=["a", "b", "c", "d"]).assign(kind=np.array(["one", "two", "three"])[y])
    frame["place"] = np.where(y == 0, "garden", "wood")
    frame.loc[::7, ["a", "place"]] = None
    frame.to_csv(folder / "flowers.csv", index=False)
    frame[["kind"]].to_csv(folder / "bare.csv", index=False)
    x, y = load_diabetes(return_X_y=True, as_frame=True)
    x.assign(y=y).head(80).to_csv(folder / "diabetes.csv", index=False)
    (folder / "text.txt").write_text("this is no database")
    return folder


@pytest.fixture
def run(files, tmp_path, monkeypatch, command_line):
    """Run a command line beside the files, in a folder of its own; gives exit code, standard output and standard error."""
    for file in files.iterdir():
        (tmp_path / file.name).symlink_to(file)
    monkeypatch.chdir(tmp_path)
    return command_line


def as_json(ran):
    code, out, err = ran
    assert code == 0, err
    return json.loads(out)


# -- with a model ----------------------------------------------------------------------------------------------------


def test_search_saves_what_it_found_and_resume_goes_on_by_its_name(run):
    first = as_json(run("search", "net.v2.keras", "data.npz", *SMALL, "--out", "answer.keras", "--json"))
    assert (first["study"], first["storage"], first["model"]) == ("net.v2", "regularity/net.v2.db", "answer.keras")
    assert keras.saving.load_model("answer.keras").input_shape == (None, 4)
    assert any(row["seconds"] != round(row["seconds"], 10) for row in first["table"])
    assert any(row["error"] != round(row["error"], 10) for row in first["comparison"].values())
    for study in ("net.v2", "regularity/net.v2.db"):
        again = as_json(run("resume", study, "--json"))
        assert again["table"] == first["table"]  # to the second: nothing was trained again
    ran = run("resume", "net.v2", "--trials", "5", "--ensemble", "all.keras", "--json", "--live")
    more = as_json(ran)
    assert "Live at http://127.0.0.1:" in ran[2]
    assert [row["l2"] for row in more["table"]][:3] == [row["l2"] for row in first["table"]]
    assert (len(more["table"]), more["ensemble"]) == (5, "all.keras")
    code, out, _ = run("resume", "net.v2", "--quiet")
    assert code == 0
    assert "5 trials in regularity/net.v2.db" in out


@pytest.mark.filterwarnings("ignore:The search took")
def test_more_candidates_than_there_was_time_for_and_more_members(run):
    asked = [*SMALL[2:], "--budget", "1s", "--seeds", "2", "--quiet"]
    assert run("search", "net.v2.keras", "data.npz", *asked)[0] == 0
    first = as_json(run("resume", "net.v2", "--json"))
    # two folds with two seeds, and more where they lead
    assert {trial["members"] % 4 for trial in first["table"]} == {0}
    many = len(first["table"]) + 3
    assert len(as_json(run("resume", "net.v2", "--trials", str(many), "--json"))["table"]) == many


def test_report_of_a_study_is_written_beside_it_or_later(run):
    code, out, _ = run("search", "net.v2.keras", "data.npz", *SMALL, "--report", "first.html", "--quiet")
    assert (code, "report: first.html" in out) == (0, True)
    found = as_json(run("report", "net.v2", "--out", "later.html", "--json"))
    assert found["report"] == "later.html"
    assert found["answer"] in Path("later.html").read_text("utf-8").replace("&#39;", "'")
    assert run("report", "net.v2", "--quiet")[0] == 0
    assert Path("report.html").stat().st_size == pytest.approx(Path("first.html").stat().st_size, rel=0.01)


def test_a_study_in_a_file_of_another_name_is_found(run):
    first = as_json(run("search", "net.v2.keras", "data.npz", *SMALL, "--storage", "kept", "--name", "one", "--json"))
    assert as_json(run("resume", "kept", "--json"))["table"] == first["table"]
    with quiet_optuna():
        optuna.create_study(study_name="other", storage="sqlite:///kept")
    code, _, err = run("resume", "kept")
    assert code == 2
    assert "one of the studies in kept: 'one', 'other'. Received: 'kept'." in err
    assert "regularity resume one --storage kept" in err
    assert as_json(run("resume", "one", "--storage", "kept", "--json"))["table"] == first["table"]
    code, _, err = run("resume", "other", "--storage", "kept")
    assert (code, "'other' was not begun by regularity search" in err) == (2, True)


@pytest.mark.filterwarnings("default:The search took")
def test_a_warning_is_one_line(run, monkeypatch):
    monkeypatch.setattr("regularity.study._search._MOMENT", 0.0)
    code, _, err = run("search", "net.v2.keras", "data.npz", *SMALL, "--budget", "0.01", "--json")
    (line,) = [line for line in err.splitlines() if "warning" in line.lower()]
    assert (code, line.startswith("regularity: warning: The search took ")) == (0, True)


def test_a_search_that_is_refused_leaves_what_was_asked_before(run):
    small = [*SMALL, "--storage", "kept.db", "--name", "one"]
    first = as_json(run("search", "net.v2.keras", "data.npz", *small, "--budget", "60", "--json"))  # seconds
    code, _, err = run("search", "net.v2.keras", "data.npz", *small, "--epochs", "4")
    assert (code, "Received: another epochs" in err) == (2, True)
    assert as_json(run("resume", "one", "--storage", "kept.db", "--json"))["table"] == first["table"]
    assert as_json(run("resume", "sqlite:///kept.db", "--json"))["table"] == first["table"]


def test_a_search_that_is_refused_leaves_no_study(run):
    code, _, err = run("search", "net.v2.keras", "data.npz", *SMALL, "--storage", "kept.db", "--score", "r2d2")
    assert (code, "r2d2" in err) == (2, True)
    code, _, err = run("resume", "kept.db")
    assert (code, "which has none" in err) == (2, True)


def test_what_a_search_without_ray_was_asked_stays(run, monkeypatch):
    small = [*SMALL, "--storage", "kept.db", "--name", "one", "--json"]
    first = as_json(run("search", "net.v2.keras", "data.npz", *small))
    monkeypatch.setitem(sys.modules, "ray", None)
    assert run("resume", "one", "--storage", "kept.db", "--trials", "9", "--engine", "ray")[0] == 2
    assert as_json(run("resume", "one", "--storage", "kept.db", "--json"))["table"] == first["table"]


def test_a_study_goes_on_where_it_was_trained_before(run, monkeypatch):
    small = [*SMALL, "--storage", "kept.db", "--name", "one", "--json"]
    first = as_json(run("search", "net.v2.keras", "data.npz", *small))
    with quiet_optuna():
        study = optuna.load_study(study_name="one", storage="sqlite:///kept.db")
        study.set_user_attr("asked", study.user_attrs["asked"] | {"engine": "ray"})
    monkeypatch.setitem(sys.modules, "ray", None)
    code, _, err = run("resume", "one", "--storage", "kept.db")
    assert (code, "pip install 'regularity[ray]'" in err) == (2, True)
    assert run("report", "one", "--storage", "kept.db", "--quiet")[0] == 0  # for which nothing is left to train
    assert run("resume", "one", "--storage", "kept.db")[0] == 2
    for engine in (["--engine", "local"], []):
        assert as_json(run("resume", "one", "--storage", "kept.db", *engine, "--json"))["table"] == first["table"]


@pytest.mark.parametrize("storage", [[], ["--storage", "kept in.db"]])
def test_a_search_that_is_interrupted_says_how_to_go_on(run, monkeypatch, storage):
    def interrupted(self, *what, add=Store.add):
        add(self, *what)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Store, "add", interrupted)
        code, out, err = run("search", "net.v2.keras", "data.npz", *SMALL, *storage)
    assert (code, out) == (130, "")
    said, _, again = err.strip().splitlines()[-1].partition(" to go on: regularity ")
    assert said == "regularity: interrupted. What is finished is kept;"
    assert again == ("resume net.v2 --storage 'kept in.db'" if storage else "resume net.v2")
    assert len(as_json(run(*shlex.split(again), "--json"))["table"]) == 3


def test_a_search_in_memory_that_is_interrupted_has_nothing_to_go_on_with(run, monkeypatch):
    monkeypatch.setattr(Store, "add", lambda *arguments: (_ for _ in ()).throw(KeyboardInterrupt))
    code, _, err = run("search", "net.v2.keras", "data.npz", *SMALL, "--storage", "sqlite://")
    assert (code, err.strip().splitlines()[-1]) == (130, "regularity: interrupted")


def test_a_search_that_is_interrupted_before_there_is_a_study_says_so(run, monkeypatch):
    monkeypatch.setattr(Store, "__init__", lambda *arguments: (_ for _ in ()).throw(KeyboardInterrupt))
    code, _, err = run("search", "net.v2.keras", "data.npz", *SMALL)
    assert (code, err.strip().splitlines()[-1]) == (130, "regularity: interrupted before there was a study.")
    assert not Path("regularity").exists()


def test_what_optuna_keeps_under_the_name_is_left(run):
    with quiet_optuna():
        own = optuna.create_study(storage="sqlite:///kept.db", study_name="net.v2")
        own.add_trial(optuna.create_trial(value=1.0))
    assert run("search", "net.v2.keras", "data.npz", *SMALL, "--storage", "kept.db", "--score", "r2d2")[0] == 2
    assert len(own.get_trials()) == 1


def test_a_search_on_ray_without_ray_is_told_so(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    code, _, err = run("search", "net.v2.keras", "data.npz", *SMALL, "--storage", "kept.db", "--engine", "ray")
    assert (code, "pip install 'regularity[ray]'" in err) == (2, True)


def test_each_trial_shows_in_tensorboard_once(run):
    pytest.importorskip("tensorboard", reason="needs TensorBoard, of the loggers extra")
    logs = Path("regularity", "tensorboard", "net.v2")
    assert run("search", "net.v2.keras", "data.npz", *SMALL, "--log", "tensorboard", "--quiet")[0] == 0
    assert sorted(p.name for p in logs.iterdir()) == ["trial-0000", "trial-0001", "trial-0002"]
    shutil.rmtree(logs)
    assert run("resume", "net.v2", "--quiet")[0] == 0  # where trials show is not a part of what is asked
    assert not logs.exists()
    assert run("resume", "net.v2", "--trials", "4", "--log", "tensorboard", "--quiet")[0] == 0
    assert [p.name for p in logs.iterdir()] == ["trial-0003"]


def test_a_logger_that_is_not_installed_is_told_of_before_any_work(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    code, out, err = run("search", "net.v2.keras", "data.npz", *SMALL, "--log", "wandb")
    assert (code, out) == (2, "")
    assert err == "regularity: `rg.loggers.WandB` needs wandb. Try: pip install 'regularity[loggers]'\n"
    assert not Path("regularity").exists()


# -- rows alone ------------------------------------------------------------------------------------------------------


def test_rows_alone_are_prepared_and_what_predicts_keeps_that(run):
    outputs = ["--out", "new/answer.joblib", "--ensemble", "all.joblib", "--json"]
    ran = run("search", "flowers.csv", "--target", "kind", *SMALL, *outputs, "--live")
    first = as_json(ran)
    assert "Live at http://127.0.0.1:" in ran[2]
    assert (first["study"], first["storage"], first["score"]) == ("flowers", "regularity/flowers.db", "accuracy")
    assert (first["model"], first["ensemble"]) == ("new/answer.joblib", "all.joblib")
    rows = pd.read_csv("flowers.csv").drop(columns="kind")
    answer, ensemble = joblib.load("new/answer.joblib"), joblib.load("all.joblib")
    assert set(answer.predict(rows)) <= {"one", "two", "three"}
    assert np.abs(answer.predict_proba(rows) - ensemble.predict_proba(rows)).max() > 1e-4
    assert json.loads(answer.recipe_.to_json()) == first["recipe"]
    assert json.loads(ensemble.recipe_.to_json()) == first["best"]
    again = as_json(run("resume", "flowers", "--json"))
    assert again["table"] == first["table"]
    more = as_json(run("resume", "flowers", "--trials", "4", "--json"))
    assert len(more["table"]) == 4


def test_rows_alone_show_in_tensorboard_too_and_what_is_saved_knows_nothing_of_it(run):
    pytest.importorskip("tensorboard", reason="needs TensorBoard, of the loggers extra")
    logged = ["--log", "tensorboard", "--out", "answer.joblib", "--quiet"]
    assert run("search", "flowers.csv", "--target", "kind", *SMALL, *logged)[0] == 0
    assert len(list(Path("regularity", "tensorboard", "flowers").iterdir())) == 3
    assert joblib.load("answer.joblib").trial_callbacks is None


def test_rows_alone_are_searched_as_the_estimator_does(run):
    found = as_json(
        run("search", "diabetes.csv", *SMALL, "--seed", "3", "--json", "--score", "neg_mean_absolute_error")
    )
    rows = pd.read_csv("diabetes.csv")
    settings = {"trials": 3, "folds": 2, "epochs": 3, "batch_size": 25, "techniques": ["l2"], "random_state": 3}
    estimator = RegularizedRegressor(**settings, scoring="neg_mean_absolute_error").fit(
        rows.drop(columns="y"), rows["y"]
    )
    table = pd.DataFrame(found["table"]).set_index("trial").drop(columns="seconds")
    pd.testing.assert_frame_equal(table, estimator.study_.table.drop(columns="seconds"), rtol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "kind", "said"),
    [
        (["data.npz"], RegularizedClassifier, "Task: classification, of 3 distinct numbers (else --task regression)\n"),
        (["data.npz", "--task", "regression"], RegularizedRegressor, ""),
        (["diabetes.csv"], RegularizedRegressor, "Task: regression, of 65 distinct numbers (else --task classification)\nColumns: 10 of numbers\n"),
        (["flowers.csv", "-t", "kind"], RegularizedClassifier, "Task: classification, of the classes one, three, two\nColumns: 4 of numbers, 1 as categories: place (2 different)\n"),
    ],
)  # fmt: skip
def test_the_task_is_what_the_target_says_or_what_is_asked(run, monkeypatch, arguments, kind, said):
    def fit(self, x, y):
        raise ValueError(type(self).__name__)

    monkeypatch.setattr(RegularizedClassifier, "fit", fit)
    monkeypatch.setattr(RegularizedRegressor, "fit", fit)
    assert run("search", *arguments) == (2, "", f"{said}regularity: {kind.__name__}\n")


@pytest.mark.parametrize(
    ("targets", "classes"),
    [
        (["a", "b", "c"], True),
        ([True, False], True),
        ([0, 1, 1], True),
        ([0.0, 1.0, 1.0], True),
        ([0.5, 1.0, 1.0], False),
        (list(range(10)) * 5, True),
        (list(range(10)) * 4, False),
        (list(range(21)) * 100, False),
        ([[0, 1]] * 9, False),
        ([0.0, np.inf, 1.0], False),
    ],
)
def test_text_truth_values_and_few_whole_numbers_are_classes(targets, classes):
    assert _searching._are_classes(np.array(targets)) is classes


# -- what can be wrong -----------------------------------------------------------------------------------------------

MODEL, DATA = "net.v2.keras", "data.npz"
WRONG = {
    "a model alone": (["search", MODEL], f"Expected rows, after a model or alone. Received: {MODEL}"),
    "a model as rows": (["search", MODEL, MODEL], "Expected rows, after a model or alone"),
    "three files": (["search", MODEL, DATA, DATA], "Got unexpected extra argument"),
    "a task beside a model": (["search", MODEL, DATA, "--task", "regression"], "no --task beside a model"),
    "weights of no model": (["search", DATA, "--init", "keep"], "Expected a model where --init is keep"),
    "text beside a model": (["search", MODEL, "flowers.csv", "-t", "kind"], "Received text in ['place'] of"),
    "text as numbers": (["search", "flowers.csv", "-t", "kind", "--task", "regression"], "Expected numbers in 'kind'"),
    "fractions as classes": (["search", "flowers.csv", "-t", "b", "--task", "classification"], "continuous"),
    "no columns": (["search", "bare.csv", "-t", "kind"], "to have columns beside the target 'kind'"),
    "several arrays": (["search", "several.npz"], "one array beside the target 'y', without a model"),
    "preparation lost": (["search", DATA, "--out", "a.keras"], "--out to end in .joblib, since how columns"),
    "a model in a pickle": (["search", MODEL, DATA, "--ensemble", "a.joblib"], "--ensemble to end in .keras. Received"),
    "no such budget": (["search", DATA, "--budget", "9 parsecs"], "Expected a time such as"),
    "a text file as storage": (["search", DATA, "--storage", "text.txt"], "text.txt (file is not a database)"),
    "an unknown URL": (["search", MODEL, DATA, "--storage", "magic://a:b@c/d"], "magic://a:***@c/d (Can't load plugin"),
    "an unknown engine": (["search", MODEL, DATA, "--engine", "slurm"], "Invalid value for '--engine'"),
    "an unknown logger": (["search", MODEL, DATA, "--log", "excel"], "Invalid value for '--log'"),
    "a report of another kind": (["search", MODEL, DATA, "--report", "a.pdf"], "the report to end in .html. Received: a.pdf"),
    "a report of no study": (["report", "zz"], "No such study: zz. Expected a name in ./regularity/"),
    "no such study": (["resume", "zz"], "No such study: zz. Expected a name in ./regularity/, or a file"),
    "no such file": (["resume", "zz", "--storage", "nofile.db"], "No such study: zz"),
    "no study's file": (["resume", "text.txt"], "text.txt (file is not a database)"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_one_line_before_any_work(run, monkeypatch, case):
    monkeypatch.setattr("regularity.population._train.Trainer.submit", lambda *_: pytest.fail("trained"))
    arguments, message = WRONG[case]
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    *_, last = err.rstrip("\n").split("\n")
    assert last.startswith("regularity: ")
    assert message in last
    assert "Traceback" not in err
    if arguments[0] in ("resume", "report"):
        assert not os.path.exists("nofile.db")
        assert not Path("regularity").exists()


@pytest.mark.parametrize("command", ["search", "resume", "report"])
def test_each_command_has_help(run, command):
    code, out, err = run(command, "--help")
    assert (code, err) == (0, "")
    assert "--json" in out
    assert "[]" not in out


@pytest.fixture
def written(run, monkeypatch):
    """Write a table and search it, up to where an estimator would be fitted; gives the exit code, what was said, and the columns."""
    taken = {}

    def fit(self, x, y):
        taken.update(columns=list(x.columns), kind=type(self).__name__)
        raise ValueError("fitted")

    monkeypatch.setattr(RegularizedClassifier, "fit", fit)
    monkeypatch.setattr(RegularizedRegressor, "fit", fit)

    def written(text, *arguments):
        Path("rows.csv").write_text(text)
        code, out, err = run("search", "rows.csv", *arguments)
        assert (code, out) == (2, "")
        return err, dict(taken)

    return written


def lines(*columns):
    return "\n".join(",".join(map(str, row)) for row in zip(*columns, strict=True)) + "\n"


PRICES = [round(300 + 7.13 * i % 91, 2) for i in range(60)]


@pytest.mark.parametrize("odd", ["?", "$300", "1;299"])
def test_one_odd_price_does_not_make_classes_of_prices(written, odd):
    err, taken = written(lines(["a", *range(60)], ["y", odd, *PRICES[1:]]))
    assert f"different texts in 60 rows, such as '{odd}'. All but 1 are numbers: mend '{odd}', or" in err
    assert not taken


def test_text_that_nearly_always_differs_is_no_class(written):
    err, taken = written(lines(["a", *range(30)], ["y", *(f"name {i}" for i in range(30))]))
    assert (
        "Received: 30 different texts in 30 rows, such as 'name 0', 'name 1', 'name 10'. A class comes in several"
        in err
    )
    assert not taken


def test_text_is_classes_where_that_is_said(written):
    codes = [*map(str, range(25)), "V45"] * 3
    err, _ = written(lines(["a", *range(78)], ["y", *codes]))
    assert "say --task classification" in err
    _, taken = written(lines(["a", *range(78)], ["y", *codes]), "--task", "classification")
    assert taken["kind"] == "RegularizedClassifier"


@pytest.mark.parametrize("name", ["rows.tsv", "rows.csv.gz", "rows.TSV.xz", "rows.csv.bz2"])
def test_text_may_have_tabs_and_be_compressed(tmp_path, name):
    table = pd.DataFrame({"a": range(6), "b, or c": ["x", "y\tz"] * 3, "y": [0, 1] * 3})
    table.to_csv(tmp_path / name, sep="\t" if "tsv" in name.lower() else ",", index=False)
    x, y = read_rows(tmp_path / name, "y")
    pd.testing.assert_frame_equal(x, table[["a", "b, or c"]])
    assert y.tolist() == [0, 1] * 3


def test_a_column_that_is_named_twice_is_refused(written):
    err, _ = written("y,a,y\n1,2,1\n3,4,3\n")
    assert "rows.csv to name each column once. Received twice: ['y']." in err


def test_the_index_that_pandas_writes_is_no_input(written):
    err, taken = written(lines(["", *range(30)], ["a", *range(30)], ["y", *([0.5, 1.5, 2.5] * 10)]))
    assert "Left out: the first column, which has no name" in err
    assert taken == {"columns": ["a"], "kind": "RegularizedRegressor"}
    err, taken = written(lines(["", *range(5, 95, 3)], ["a", *range(30)], ["y", *([0.5, 1.5, 2.5] * 10)]))
    assert "Left out" not in err  # whole numbers, all different, which count nothing
    assert taken["columns"] == ["Unnamed: 0", "a"]


def test_text_that_only_looks_like_dates_to_pandas_is_taken(written):
    seasons = [f"{2000 + i % 5}-{i % 5 + 10}" for i in range(20)]
    _, taken = written(lines(["season", *seasons], ["a", *range(20)], ["y", *("no", "yes") * 10]))
    assert taken["columns"] == ["season", "a"]


def test_dates_as_text_are_refused_and_other_text_is_said(written):
    days = [f"2020-01-{1 + i:02d}" for i in range(20)]
    err, taken = written(lines(["when", *days], ["a", *range(20)], ["y", *("no", "yes") * 10]))
    assert "Received: dates in ['when']. Turn them into numbers" in err
    assert not taken
    err, taken = written(lines(["town", *(["Rome", "Oslo"] * 10)], ["a", *range(20)], ["y", *("no", "yes") * 10]))
    assert err.startswith(
        "Task: classification, of the classes no, yes\nColumns: 1 of numbers, 1 as categories: town (2 different)\n"
    )


def test_a_name_of_a_study_that_is_too_long_is_refused(run):
    code, out, err = run("resume", "a" * 300)
    assert (code, out) == (2, "")
    assert "a" * 300 in err


def test_one_number_as_target_is_refused(run):
    np.savez("one.npz", x=np.zeros((5, 2)), y=5)
    code, out, err = run("search", "one.npz")
    assert (code, out) == (2, "")
    assert err.endswith("one.npz to have rows. Received: the single 5.\n")


def test_names_with_brackets_are_shown_as_they_are(capsys):
    _printing.print_table("rows[/tmp] [final]: accuracy", ["", "score"], [["l2@block[ab]* :smile:", "1"]])
    out = capsys.readouterr().out
    assert "rows[/tmp] [final]: accuracy" in " ".join(out.split())
    assert "l2@block[ab]* :smile:" in out
