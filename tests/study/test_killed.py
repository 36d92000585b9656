"""A search that is killed, again and again, by the system itself: nothing that was finished is lost or counted twice."""

import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

KILLS = 25
TRIALS = 60

# Everything is imported once; each search then runs in a fork, which no thread of JAX has been started before. A fork
# that has a delay ends itself without warning, so long after it began to search, or after it first wrote something: of a trial
# that is finished, or of a chunk in training, which is written after every epoch here.
SCRIPT = f"""
import os, signal, sys, threading
os.environ["KERAS_BACKEND"] = "jax"
import jax, keras, numpy as np, optuna, regularity as rg
from scipy import stats
from sklearn.gaussian_process import GaussianProcessRegressor
from regularity.population import _checkpoints
from regularity.study._store import Store
rg.search, rg.train
_checkpoints._EVERY = 0.0
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

def search(storage, table):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 4)).astype("float32")
    y = (x[:, 0] + rng.normal(size=60) > 0).astype("int64")
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(6, "relu"), keras.layers.Dense(2, "softmax")], name="net")
    model.compile("adam", "sparse_categorical_crossentropy")
    study = rg.search(model, x, y, ["dropout", "l2"], trials={TRIALS}, epochs=4, batch_size=16, storage=storage, name="one", verbose=0)
    study.table.drop(columns="seconds").to_pickle(table)
    study.comparison.to_pickle(table + ".comparison")

for line in sys.stdin:
    storage, table, since, delay = line.split()
    child = os.fork()
    if not child:
        if since != "never":
            delay = float(delay)
            {{
                "start": lambda: die(delay),
                "write": lambda: die_after(delay, (Store, "add"), (Store, "note")),
                "save": lambda: die_after(delay, (_checkpoints.Checkpoint, "save")),
            }}[since]()
        try:
            search(storage, table)
        except BaseException as error:
            print(repr(error), file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@pytest.fixture
def searches(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(tmp_path / "compiled")],
        env={**os.environ, "KERAS_BACKEND": "jax", "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    yield process
    process.stdin.close()
    process.wait(60)
    process.stdout.close()


def test_a_search_that_is_killed_again_and_again_ends_as_one_that_is_not(searches, tmp_path):
    def search(storage: Path, table: Path, since: str = "never", delay: float = 0.0) -> int:
        print(storage, table, since, delay, file=searches.stdin, flush=True)
        return int(searches.stdout.readline())

    whole, killed = tmp_path / "whole.table", tmp_path / "killed.table"
    assert search(tmp_path / "whole.db", whole) == 0

    random = np.random.default_rng(0)
    ended, found = [], []
    for n in range(KILLS):
        since, longest = [("start", 3.0), ("save", 0.1), ("write", 0.6), ("save", 0.3), ("write", 0.3)][n % 5]
        ended.append(search(tmp_path / "killed.db", killed, since, random.uniform(0, longest)))
        found.append(numbers_kept(tmp_path / "killed.db"))
        if ended[-1] == 0:  # it was faster than its end: the next begins anew
            compare(whole, killed)
            (tmp_path / "killed.db").unlink()
    assert set(ended) <= {0, -signal.SIGKILL}
    assert sum(code != 0 for code in ended) >= KILLS // 2
    assert any(0 < len(numbers) < TRIALS for numbers in found), "none was killed between its trials"
    for numbers in found:
        assert numbers == list(range(len(numbers))), "a trial was lost, or counted twice"

    assert search(tmp_path / "killed.db", killed) == 0
    compare(whole, killed)


def numbers_kept(file: Path) -> list[int]:
    """The numbers of the trials in a database, as they stand there."""
    if not file.exists():
        return []
    with sqlite3.connect(file) as database:
        try:
            rows = database.execute("select value_json from trial_user_attributes where key = 'number'").fetchall()
        except sqlite3.OperationalError:  # killed before there were tables
            return []
    return sorted(int(row[0]) for row in rows)


def compare(whole: Path, killed: Path) -> None:
    """Tables are equal to the bit."""
    for suffix in ("", ".comparison"):
        expected, found = pd.read_pickle(f"{whole}{suffix}"), pd.read_pickle(f"{killed}{suffix}")
        pd.testing.assert_frame_equal(expected, found, check_exact=True)
