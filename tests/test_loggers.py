"""A search in TensorBoard, MLflow and Weights & Biases: what each one's own readers find of it afterwards."""

import copy
import importlib.util
import json
import pickle
import shutil
import struct
import subprocess
import sys
import types
import warnings
from importlib.machinery import ModuleSpec

import keras
import numpy as np
import optuna
import pytest
from sklearn.base import clone
from sqlalchemy import event
from sqlalchemy.engine import Engine

import regularity as rg

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 4)).astype("float32")
TECHNIQUES = {"learning_rate": (1e-3, 1e25), "dropout@hidden*": None, "l2": (1e-3, 1e-1)}


def searched(storage, trials=8, **settings):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(4, "relu", name="hidden"), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.01), "mse")
    return rg.search(
        model, X, X[:, 0], TECHNIQUES, trials, folds=2, epochs=2, storage=storage, name="a study", verbose=0, **settings
    )  # fmt: skip


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return tmp_path_factory.mktemp("search") / "study.db"


@pytest.fixture(scope="module")
def told(file):
    """What a search tells of its trials, of which some diverge, and the first again as if a pruner had stopped it."""
    found = []
    searched(file, trial_callbacks=lambda study, trial: found.append((study, trial)))
    assert {trial.state.name for _, trial in found} == {"COMPLETE", "FAIL"}
    study, trial = found[0]
    pruned = copy.copy(trial)
    pruned.state, pruned.number = optuna.trial.TrialState.PRUNED, len(found)
    return [*found, (study, pruned)]


def show(told, logger):
    for study, trial in told:
        logger(study, trial)


def best(trial):
    return {} if trial.value is None else {"best/r2": pytest.approx(trial.value, rel=1e-6)}


# -- TensorBoard -------------------------------------------------------------------------------------------------------


@pytest.fixture
def tensorboard(monkeypatch):
    pytest.importorskip("tensorboard", reason="needs TensorBoard, of the loggers extra")
    # its readers import TensorFlow where there is one, for seconds, unless there is a module of this name
    monkeypatch.setitem(sys.modules, "tensorboard.compat.notf", types.ModuleType("notf"))
    return importlib.import_module("tensorboard.backend.event_processing.event_accumulator").EventAccumulator


def test_tensorboard_has_a_run_for_each_trial_with_its_score_after_each_epoch(told, tensorboard, tmp_path):
    show(told, rg.loggers.TensorBoard(tmp_path))
    assert sorted(p.name for p in (tmp_path / "a_study").iterdir()) == [f"trial-{i:04d}" for i in range(len(told))]
    for _, trial in told:
        run = tensorboard(str(tmp_path / "a_study" / f"trial-{trial.number:04d}")).Reload()
        found = {tag: {each.step: each.value for each in run.Scalars(tag)} for tag in run.Tags()["scalars"]}
        assert found.get("r2", {}) == pytest.approx(trial.intermediate_values, rel=1e-6)
        assert {tag: value[0] for tag, value in found.items() if tag != "r2"} == best(trial)


def test_the_hparams_tab_shows_the_search(told, tensorboard, tmp_path):
    from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
    from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
    from tensorboard.context import RequestContext
    from tensorboard.plugins.base_plugin import TBContext
    from tensorboard.plugins.hparams import api_pb2, backend_context, get_experiment, list_session_groups

    show(told, rg.loggers.TensorBoard(tmp_path))
    show([(optuna.create_study(study_name="other"), told[0][1])], rg.loggers.TensorBoard(tmp_path))
    runs = EventMultiplexer().AddRunsFromDirectory(str(tmp_path)).Reload()
    about = RequestContext(), backend_context.Context(TBContext(data_provider=MultiplexerDataProvider(runs, ""))), ""
    experiment = get_experiment.Handler(*about, api_pb2.GetExperimentRequest(include_metrics=True)).run()
    infos = {info.name: info for info in experiment.hparam_infos}
    assert set(infos) == {f"{key}{on}" for key in TECHNIQUES for on in ("", " on")}
    assert infos["l2 on"].type == api_pb2.DATA_TYPE_BOOL
    assert infos["dropout@hidden*"].type == api_pb2.DATA_TYPE_FLOAT64
    assert [metric.name.tag for metric in experiment.metric_infos] == ["best/r2", "best/value", "r2", "value"]

    every = api_pb2.ListSessionGroupsRequest(
        allowed_statuses=api_pb2.Status.values(),
        col_params=[api_pb2.ColParams(metric=metric.name) for metric in experiment.metric_infos],
        slice_size=100,
    )
    groups = list_session_groups.Handler(*about, every).run().session_groups
    assert len(groups) == len(told) + 1
    for _, trial in told:
        [group] = [group for group in groups if group.name == f"trial-{trial.number:04d} of a study"]
        shown = {name: getattr(value, value.WhichOneof("kind")) for name, value in group.hparams.items()}
        assert shown == trial.params
        metrics = {each.name.tag: each.value for each in group.metric_values}
        assert {tag: value for tag, value in metrics.items() if tag == "best/r2"} == best(trial)
        status = api_pb2.STATUS_FAILURE if trial.state.name == "FAIL" else api_pb2.STATUS_SUCCESS
        assert [session.status for session in group.sessions] == [status]


def test_neither_a_search_that_goes_on_nor_one_from_anew_doubles_a_trial(told, tensorboard, file, tmp_path):
    study = searched(file, trial_callbacks=rg.loggers.TensorBoard(tmp_path))
    assert not list(tmp_path.iterdir())
    searched(file, len(study.table) + 1, trial_callbacks=rg.loggers.TensorBoard(tmp_path))
    [run] = (tmp_path / "a_study").iterdir()
    assert run.name == f"trial-{len(study.table):04d}"
    show(told, rg.loggers.TensorBoard(tmp_path))
    show(told, rg.loggers.TensorBoard(tmp_path))
    again = tensorboard(str(tmp_path / "a_study" / "trial-0000")).Reload()
    assert [each.step for each in again.Scalars("r2")] == [1, 2]
    assert len(list(run.iterdir())) == 1


def test_no_name_leads_out_of_the_folder(told, tensorboard, tmp_path):
    show([(optuna.create_study(study_name="../.."), told[0][1])], rg.loggers.TensorBoard(tmp_path / "logs"))
    assert [file.relative_to(tmp_path).parts[:2] for file in tmp_path.rglob("*tfevents*")] == [("logs", "_")]


def test_tensorflow_is_not_imported(tmp_path):
    pytest.importorskip("tensorboard", reason="needs TensorBoard, of the loggers extra")
    program = """
import sys
import optuna
import regularity as rg
optuna.create_study().optimize(lambda trial: 1.0, n_trials=1, callbacks=[rg.loggers.TensorBoard("logs")])
assert "tensorflow" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True)
    assert len(list(tmp_path.rglob("*tfevents*"))) == 1


# -- MLflow ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    """A database as MLflow wants it, empty."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
        mlflow = pytest.importorskip("mlflow", reason="needs MLflow, of the loggers extra")

        def hasty(connection, record):
            connection.execute("PRAGMA synchronous=OFF")

        event.listen(
            Engine, "connect", hasty
        )  # it makes its tables in a hundred steps, and each would wait for the disk
        file = tmp_path_factory.mktemp("mlflow") / "empty.db"
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The ``noload`` loader strategy is deprecated")  # SQLAlchemy's, of MLflow
            mlflow.MlflowClient(f"sqlite:///{file}")
        yield file
        event.remove(Engine, "connect", hasty)


@pytest.fixture
def mlflow(database, tmp_path, monkeypatch):
    """MLflow with a database of its own in use, and another, `other.db`, beside it."""
    for name in ("runs.db", "other.db"):
        shutil.copy(database, tmp_path / name)
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/runs.db")
    return importlib.import_module("mlflow")


def test_mlflow_has_a_run_for_each_trial(told, mlflow):
    show(told, rg.loggers.MLflow())
    client = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name("a study")
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    assert len(runs) == len(told)
    for _, trial in told:
        run = runs[f"trial-{trial.number:04d}"]
        names = {key: key.replace("@", "_").replace("*", "_") for key in trial.params}
        assert run.data.params == {names[key]: str(value) for key, value in trial.params.items()}
        history = client.get_metric_history(run.info.run_id, "r2") if trial.intermediate_values else []
        assert {each.step: each.value for each in history} == trial.intermediate_values
        assert {key: value for key, value in run.data.metrics.items() if key != "r2"} == best(trial)
        assert rg.Recipe.from_json(run.data.tags["recipe"]) == rg.Recipe(trial.user_attrs["recipe"])
        assert run.data.tags["state"] == trial.state.name
        status = {"COMPLETE": "FINISHED", "FAIL": "FAILED", "PRUNED": "KILLED"}[trial.state.name]
        assert run.info.status == status


def test_mlflow_leaves_an_active_run_and_the_uri_alone(told, mlflow, tmp_path):
    uri = f"sqlite:///{tmp_path}/other.db"
    before = mlflow.get_tracking_uri()
    with mlflow.start_run() as mine:
        show(told[:1], rg.loggers.MLflow("strengths", uri))
        mlflow.log_metric("mine", 1.0)
        assert mlflow.active_run().info.run_id == mine.info.run_id
    assert mlflow.get_tracking_uri() == before
    assert mlflow.get_run(mine.info.run_id).data.metrics == {"mine": 1.0}
    other = mlflow.MlflowClient(uri)
    assert len(other.search_runs([other.get_experiment_by_name("strengths").experiment_id])) == 1


# -- Weights & Biases --------------------------------------------------------------------------------------------------


@pytest.fixture
def wandb(tmp_path, monkeypatch):
    """Weights & Biases without a network, with all that it writes in one folder."""
    for what in ("", "CACHE_", "CONFIG_", "DATA_", "ARTIFACT_"):
        monkeypatch.setenv(f"WANDB_{what}DIR", str(tmp_path))
    monkeypatch.setenv("WANDB_MODE", "offline")
    for what in ("ERROR_REPORTING", "X_DISABLE_STATS"):
        monkeypatch.setenv(f"WANDB_{what}", str(what.startswith("X")).lower())
    return pytest.importorskip("wandb", reason="needs wandb, of the loggers extra")


def runs_in(folder, wandb):
    """What was logged of each run, by its name: the run, its configuration, its rows, its summary and its exit code."""
    from wandb.proto.wandb_internal_pb2 import Record

    wandb.teardown()  # only then all is written
    found = {}
    for file in folder.glob("wandb/offline-run-*/run-*.wandb"):
        run, config, rows, summary, code = None, {}, [], {}, None
        for record in map(Record.FromString, records_of(file.read_bytes())):
            kind = record.WhichOneof("record_type")
            if kind == "run":
                run = record.run
            elif kind == "config":
                config |= values(record.config.update)
            elif kind == "history":
                rows.append(values(record.history.item))
            elif kind == "summary":
                summary |= values(record.summary.update)
            elif kind == "exit":
                code = record.exit.exit_code
        found[run.display_name] = run, config, rows, summary, code
    return found


def values(items):
    return {item.key or item.nested_key[0]: json.loads(item.value_json) for item in items}


def records_of(log):
    """The records of a log as LevelDB writes it, in blocks of 32 KiB, after a header of wandb's."""
    place, record = 7, b""
    while place < len(log):
        left = 32768 - place % 32768
        if left < 7:
            place += left
            continue
        size, kind = struct.unpack_from("<HB", log, place + 4)
        record += log[place + 7 : place + 7 + size]
        place += 7 + size
        if kind in (1, 4):  # whole, or its last part
            yield record
            record = b""


def test_wandb_has_a_run_for_each_trial(told, wandb, tmp_path):
    show(told, rg.loggers.WandB("strengths", tags=["digits"]))
    runs = runs_in(tmp_path, wandb)
    assert len(runs) == len(told)
    for _, trial in told:
        run, config, rows, summary, code = runs[f"trial-{trial.number:04d}"]
        assert (run.project, run.run_group, list(run.tags)) == ("strengths", "a study", ["digits"])
        assert config == trial.params
        assert {row["_step"]: row["r2"] for row in rows} == pytest.approx(trial.intermediate_values)
        assert {key: value for key, value in summary.items() if key.startswith("best")} == best(trial)
        assert summary["state"] == trial.state.name
        assert rg.Recipe.from_json(summary["recipe"]) == rg.Recipe(trial.user_attrs["recipe"])
        assert code == (trial.state.name == "FAIL")


def test_wandb_leaves_an_active_run_alone(told, wandb, tmp_path):
    mine = wandb.init(project="mine", name="mine", settings={"silent": True})
    show(told[:1], rg.loggers.WandB())
    assert wandb.run is mine
    mine.log({"mine": 1.0})
    mine.finish()
    runs = runs_in(tmp_path, wandb)
    assert [row["mine"] for row in runs["mine"][2]] == [1.0]
    assert set(runs) == {"mine", "trial-0000"}
    assert "r2" not in runs["mine"][3]


# -- all of them -------------------------------------------------------------------------------------------------------

EVERY = {
    "tensorboard": lambda: rg.loggers.TensorBoard("logs"),
    "mlflow": lambda: rg.loggers.MLflow(tracking_uri="https://me:secret@host"),
    "wandb": lambda: rg.loggers.WandB(settings={"api_key": "secret"}),
}


@pytest.mark.parametrize("package", EVERY)
@pytest.mark.parametrize("found", [None, ModuleSpec("a mere folder", None)])
def test_a_missing_package_is_said_before_any_work(monkeypatch, package, found):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: found if name == package else pytest.fail(name))
    with pytest.raises(ImportError, match=rf"needs {package}\. Try: pip install 'regularity\[loggers\]'"):
        EVERY[package]()


@pytest.mark.parametrize("package", EVERY)
def test_a_logger_is_a_value_that_tells_no_secret(package):
    pytest.importorskip(package, reason=f"needs {package}, of the loggers extra")
    logger = EVERY[package]()
    assert "secret" not in repr(logger)
    assert pickle.loads(pickle.dumps(logger)) == logger
    table = rg.sklearn.RegularizedClassifier(trial_callbacks=logger)
    assert clone(table).trial_callbacks == logger


def test_wandb_without_a_login_is_refused_before_the_search_and_asks_nothing(wandb, monkeypatch):
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setattr(wandb, "login", lambda prompt: prompt)  # as where there is no key
    with pytest.raises(ValueError, match=r"login to Weights & Biases, or mode='offline'.*`wandb login`"):
        rg.loggers.WandB()
    assert rg.loggers.WandB(mode="offline").project == "regularity"
