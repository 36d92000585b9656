"""A search for those whose Keras runs on TensorFlow or torch: it trains on JAX and answers with a model of theirs."""

import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

BACKENDS = ("jax", "tensorflow", "torch")

SEARCH = """
import json, sys
import keras, numpy as np
import regularity as rg
from regularity.population import _progress

class Doubled(keras.layers.Layer):
    "Known to no other process."
    def call(self, x):
        return 2 * x

if __name__ == "__main__":
    _progress._WRITTEN = 0.0
    rng = np.random.default_rng(0)
    x = rng.normal(size=(80, 4)).astype("float32")
    y = (x[:, 0] + rng.normal(size=80) > 0).astype("int64")
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(6, "relu"), Doubled(), keras.layers.Dense(2, "softmax")])
    model.compile("adam", "sparse_categorical_crossentropy")
    told, trials = [], int(sys.argv[1])
    study = rg.search(
        model, x, y, ["dropout", "l2"], trials=trials, epochs=3, batch_size=16, storage="sqlite://", verbose=1,
        trial_callbacks=lambda study, trial: told.append(trial.number),
    )
    print(json.dumps({
        "backend": keras.backend.backend(),
        "scores": study.table["score"].tolist(),
        "verdict": study.verdict,
        "recipe": study.best.to_json(),
        "told": told,
        "shown": [study.model.predict(x[:5], verbose=0).tolist(), study.ensemble().predict(x[:5], verbose=0).tolist()],
        "plain": "regularity" not in study.model.to_json(),
    }))
"""


def started(folder, backend, trials):
    folder.mkdir(exist_ok=True)
    (folder / "script.py").write_text(SEARCH)
    return subprocess.Popen(
        [sys.executable, "script.py", str(trials)],
        cwd=folder,
        env={**os.environ, "KERAS_BACKEND": backend, "TMPDIR": str(folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What the script found, and said, on each backend that is installed; the processes run side by side."""
    processes = {
        backend: started(tmp_path_factory.mktemp(backend), backend, 4)
        for backend in BACKENDS
        if importlib.util.find_spec(backend)
    }
    said = {backend: process.communicate(timeout=300) for backend, process in processes.items()}
    for backend, process in processes.items():
        assert process.returncode == 0, f"{backend}: {said[backend][1]}"
    return {backend: (json.loads(out.splitlines()[-1]), errors) for backend, (out, errors) in said.items()}


def needs(backend):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed; to run this: make test EXTRAS=dev,{backend}")


@pytest.mark.parametrize("backend", BACKENDS[1:])
def test_a_search_on_another_backend_is_that_on_jax(backend, found):
    needs(backend)
    (ours, said), (theirs, _) = found[backend], found["jax"]
    assert ours["backend"] == backend
    assert ours["plain"]
    assert ours["told"] == theirs["told"] == [0, 1, 2, 3]
    for name in ("scores", "verdict", "recipe"):
        assert ours[name] == theirs[name]
    np.testing.assert_allclose(ours["shown"], theirs["shown"], atol=1e-5)
    lines = said.splitlines()
    assert any(line.startswith("best accuracy 0.") and " 4 of 4 trials, " in line for line in lines), said


def test_the_process_on_jax_ends_with_the_one_that_began_it(tmp_path):
    needs("torch")
    folder = tmp_path / "killed"
    process = started(folder, "torch", 1000)
    assert any("first candidates" in line for line in process.stderr)  # it is at work
    (child,) = children(process.pid)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    until(lambda: child not in running() and not list(folder.glob("regularity-*")))


def running():
    """The processes of this machine: the number of each, and of the one that began it."""
    found = {}
    for file in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has ended
            state, parent = file.read_text().rpartition(") ")[2].split()[:2]
            if state != "Z":
                found[int(file.parent.name)] = int(parent)
    return found


def children(process):
    return [child for child, parent in running().items() if parent == process]


def until(holds, seconds=60.0):
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)
