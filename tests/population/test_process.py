"""Other processes: importing changes nothing, and where Keras runs on TensorFlow or torch a worker on JAX trains."""

import importlib.util
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from regularity.population import _worker

BACKENDS = ["tensorflow", "torch"]


def run(script: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a script in a process of its own, in `folder`."""
    path = folder / "script.py"
    path.write_text(script)
    return subprocess.run(
        [sys.executable, str(path)],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_importing_changes_nothing(tmp_path: Path) -> None:
    script = """
import os, sys
before = dict(os.environ)
import keras, jax, numpy
config = dict(jax.config.values)
policy, floatx, threads = keras.config.dtype_policy().name, keras.config.floatx(), os.environ.get("OMP_NUM_THREADS")
state = numpy.random.get_state()[1].tolist()
environment = dict(os.environ)
import regularity as rg
rg.Recipe, rg.train, rg.layers, rg.regularizers, rg.techniques
import regularity.population, regularity.recipe
from jax._src import xla_bridge
assert dict(jax.config.values) == config
assert not xla_bridge.backends_are_initialized(), "a backend was initialised"
assert dict(os.environ) == environment
assert (keras.config.dtype_policy().name, keras.config.floatx()) == (policy, floatx)
assert numpy.random.get_state()[1].tolist() == state
print("unchanged")
"""
    process = run(script, tmp_path)
    assert process.stdout.strip().endswith("unchanged"), process.stderr


@pytest.mark.skipif(os.environ["KERAS_BACKEND"] == "tensorflow", reason="there everything is TensorFlow's")
def test_nobody_imports_tensorflow_to_ask_whether_anything_is_of_it(monkeypatch) -> None:
    import keras
    from keras.src.saving import serialization_lib
    from keras.src.utils import module_utils

    import regularity as rg

    asked = []
    monkeypatch.delitem(sys.modules, "tensorflow", raising=False)
    monkeypatch.setattr(module_utils.tensorflow, "_available", None)
    monkeypatch.setattr(module_utils.tensorflow, "initialize", lambda: asked.append("tensorflow"))
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4, "relu"), keras.layers.Dense(2, "softmax")])
    model.compile("adam", "sparse_categorical_crossentropy")
    x, y = np.random.default_rng(0).normal(size=(40, 3)).astype("float32"), np.arange(40) % 2
    study = rg.search(model, x, y, ["dropout"], trials=3, epochs=2, storage="sqlite://")
    assert study.model.count_params() == model.count_params()
    study.ensemble()
    assert "model.fit" in study.code()
    _worker.unpacked(_worker.packed(rg.Recipe({"l2": 0.1}).apply(model)))
    assert not asked
    assert serialization_lib.tf is module_utils.tensorflow


def test_layers_that_need_tensorflow_have_it_in_a_process_on_jax(tmp_path: Path) -> None:
    """As one that prepares what a stream puts out, which no call of the model takes part in."""
    pytest.importorskip("tensorflow", reason="such layers need it; to run this: make test EXTRAS=dev,tensorflow")
    script = """
import sys, keras
from regularity.population import _worker

class Prepares(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.lookup, self.out = keras.layers.Hashing(4), keras.layers.Dense(1)
    def build(self, shape):
        self.out.build(shape)
        self.built = True
    def call(self, x):
        return self.out(x)

model = Prepares()
model.build((None, 2))
model.compile("sgd", "mse")
assert _worker.unpacked(_worker.packed(model)).out.units == 1
print("made")
"""
    process = run(script, tmp_path, KERAS_BACKEND="jax")
    assert process.stdout.strip().endswith("made"), process.stderr


def test_importing_the_package_alone_does_not_load_keras(tmp_path: Path) -> None:
    process = run("import sys, regularity; assert not {'keras', 'jax', 'numpy'} & set(sys.modules)", tmp_path)
    assert process.returncode == 0, process.stderr


ELSEWHERE = """
import json, sys
import keras, numpy as np
import regularity as rg

class Doubled(keras.layers.Layer):
    "Defined in the user's script, known to no other process."
    def __init__(self, by=2.0, **kwargs):
        super().__init__(**kwargs)
        self.by = by
    def call(self, x):
        return x * self.by
    def get_config(self):
        return {**super().get_config(), "by": self.by}

def own_loss(y, y_pred):
    return keras.ops.mean(keras.ops.square(keras.ops.one_hot(keras.ops.cast(y, "int32"), 3) - y_pred), -1)

if __name__ == "__main__":
    x, y = np.load("x.npy"), np.load("y.npy")
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(8, "relu", name="hidden"), Doubled(3.0), keras.layers.Dense(3)])
    model.set_weights([np.full(w.shape, 0.1, "float32") * np.arange(1, w.shape[-1] + 1) for w in model.get_weights()])
    model.compile(keras.optimizers.Adam(0.01), own_loss)
    class Batches(keras.utils.PyDataset):
        def __len__(self): return 5
        def __getitem__(self, i): return x[16 * i : 16 * i + 16], y[16 * i : 16 * i + 16]
    recipes, found = [{"l2": 0.01}, {"dropout": 0.4, "weight_decay": 0.1}], {}
    arrays = rg.train(model, x, y, recipes, seeds=2, epochs=2, batch_size=16, init="keep", validation_data=(x, y))
    stream = rg.train(model, Batches(), recipes=recipes, seeds=2, epochs=2, init="fresh")
    for member in arrays + stream:
        assert "regularity" not in member.model.to_json()
    found = {
        "backend": keras.backend.backend(),
        "predictions": [np.asarray(m.model.predict(x[:5], verbose=0)).tolist() for m in arrays + stream],
        "histories": [m.history for m in arrays + stream],
    }
    print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    random = np.random.default_rng(0)
    np.save(folder / "x.npy", random.normal(size=(80, 6)).astype("float32"))
    np.save(folder / "y.npy", random.integers(0, 3, 80).astype("int32"))
    return folder


@pytest.fixture(scope="module")
def found(data: Path) -> dict[str, Any]:
    """What the script found on each backend that is installed; the processes run side by side."""
    (data / "script.py").write_text(ELSEWHERE)
    processes = {
        backend: subprocess.Popen(
            [sys.executable, "script.py"],
            cwd=data,
            env={**os.environ, "KERAS_BACKEND": backend},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for backend in ("jax", *BACKENDS)
        if importlib.util.find_spec(backend)
    }
    outputs = {backend: process.communicate() for backend, process in processes.items()}
    for backend, process in processes.items():
        assert process.returncode == 0, f"{backend}: {outputs[backend][1]}"
    return {backend: json.loads(out.splitlines()[-1]) for backend, (out, _) in outputs.items()}


@pytest.mark.parametrize("backend", BACKENDS)
def test_members_on_another_backend_are_those_of_jax(backend: str, found: dict[str, Any]) -> None:
    if backend not in found:
        pytest.skip(f"{backend} is not installed; to run this: make test EXTRAS=dev,{backend}")
    ours, theirs = found[backend], found["jax"]
    assert (ours["backend"], theirs["backend"]) == (backend, "jax")
    np.testing.assert_allclose(ours["predictions"], theirs["predictions"], atol=1e-5)
    for one, other in zip(ours["histories"], theirs["histories"], strict=True):
        assert one.keys() == other.keys()
        for name, values in other.items():
            np.testing.assert_allclose(one[name], values, atol=1e-5)


FAILING = """
import subprocess
import keras, numpy as np
import regularity as rg

class Failing(keras.layers.Layer):
    def call(self, x):
        if keras.backend.backend() == "jax":
            raise ArithmeticError("no such thing on JAX")
        return x

if __name__ == "__main__":
    model = keras.Sequential([keras.Input((6,)), Failing(), keras.layers.Dense(3)])
    model.compile("adam", "mse")
    try:
        rg.train(model, np.ones((8, 6)), np.ones((8, 3)), {"l2": 0.01})
    except RuntimeError as error:
        assert "Training in a process on JAX failed" in str(error)
        assert "no such thing on JAX" in str(error)
    subprocess.Popen = None
    try:
        rg.train(model, np.ones((8, 5)), np.ones((8, 3)), {"l2": 0.01})
    except ValueError as error:  # before a worker starts
        assert "Expected x of shape (rows, 6)" in str(error)
        print("refused")
"""


def test_worker_that_fails_says_why_and_data_that_do_not_fit_start_none(tmp_path: Path) -> None:
    backend = next((b for b in reversed(BACKENDS) if importlib.util.find_spec(b)), None)
    if backend is None:
        pytest.skip("neither TensorFlow nor torch is installed; to run this: make test EXTRAS=dev,torch")
    process = run(FAILING, tmp_path, KERAS_BACKEND=backend)
    assert process.stdout.strip().endswith("refused"), process.stderr


def test_lanes_that_end_an_epoch_at_once_are_told_line_by_line() -> None:
    class Slow(list[str]):
        def write(self, text: str) -> None:
            self.append(text)
            time.sleep(1e-3)  # another thread runs meanwhile

        def flush(self) -> None:
            pass

    told = Slow()
    with ThreadPoolExecutor(4) as lanes:
        list(lanes.map(_worker._teller(told), range(20)))
    lines = "".join(told).splitlines()
    assert sorted(int(line.removeprefix(_worker._SAID)) for line in lines) == list(range(20))
