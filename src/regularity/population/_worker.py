"""A population for users whose Keras runs on TensorFlow or torch: a process on JAX takes the model and gives results back."""

import contextlib
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cloudpickle
import keras

from regularity import _keras
from regularity.data import Data, kept
from regularity.population._tasks import Outcome, Plan, Task

_SAID = "regularity-said "  # before what is told of its progress as JSON, on a line of the worker's standard output


def train_elsewhere(
    model: Any, tasks: Sequence[Task], plan: Plan, members: int, advance: Callable[[int], None]
) -> list[Outcome]:
    """Train tasks in a process where Keras runs on JAX.

    A stream is read once, into memory: its batches can't be read from another process.
    """
    if not isinstance(plan.data, Data):
        plan = replace(plan, data=kept(plan.data))
    return call_elsewhere(model, _train, (list(tasks), plan, members), advance)


def _train(model: Any, tasks: list[Task], plan: Plan, members: int, advance: Callable[[int], None]) -> list[Outcome]:
    from regularity.population._train import Trainer

    return Trainer(model, plan, members).train_here(tasks, advance)


def call_elsewhere(
    model: Any, function: Callable[..., Any], arguments: tuple[Any, ...], tell: Callable[[Any], None]
) -> Any:
    """What `function(model, *arguments, tell)` returns in a process where Keras runs on JAX; all goes by files.

    Args:
        model: Of this process's backend.
        function: Of a module that the process can import.
        arguments: What can be pickled.
        tell: Called here with what the function calls it with there: what JSON holds, such as how many member-epochs are done.

    Raises:
        RuntimeError: If the process fails, with what it said.
    """
    with tempfile.TemporaryDirectory(prefix="regularity-") as folder:
        sent, returned = Path(folder, "sent"), Path(folder, "returned")
        sent.write_bytes(cloudpickle.dumps((packed(model), function, arguments)))
        process = subprocess.Popen(
            [sys.executable, "-m", "regularity.population._worker", folder],
            env={**os.environ, "KERAS_BACKEND": "jax", "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
            stdin=subprocess.PIPE,  # which ends with this process
            stdout=subprocess.PIPE,
            stderr=(errors := tempfile.TemporaryFile("w+")),  # noqa: SIM115
            text=True,
        )
        try:
            assert process.stdout is not None
            for line in process.stdout:
                if line.startswith(_SAID):
                    tell(json.loads(line.removeprefix(_SAID)))
            if process.wait() != 0:
                errors.seek(0)
                raise RuntimeError(f"Training in a process on JAX failed:\n{errors.read()[-4000:]}")
        finally:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout, errors):
                assert pipe is not None
                pipe.close()
        return cloudpickle.loads(returned.read_bytes())


@_keras.without_tensorflow()
def packed(model: Any) -> bytes:
    """A model and how it was compiled, for a process where Keras runs on JAX, with the user's own classes by value."""
    with tempfile.TemporaryDirectory(prefix="regularity-") as folder:
        file = Path(folder, "model.keras")
        model.save(file)
        config = _keras.portable_compile_config(model)
        return cloudpickle.dumps((_keras.custom_objects(model), config, file.read_bytes()))


@_keras.without_tensorflow()
def unpacked(sent: bytes) -> Any:
    """The model that `packed` was given."""
    custom_objects, config, saved = cloudpickle.loads(sent)
    with tempfile.TemporaryDirectory(prefix="regularity-") as folder, keras.saving.custom_object_scope(custom_objects):
        file = Path(folder, "model.keras")
        file.write_bytes(saved)
        # the model comes from the user's own process, so its lambdas are as safe here as there
        model = keras.saving.load_model(file, compile=False, safe_mode=False)
        model.compile_from_config(config)
    return model


def _work(folder: str) -> None:
    threading.Thread(target=_end_with, args=(sys.stdin.fileno(), folder), daemon=True).start()
    sent, function, arguments = cloudpickle.loads(Path(folder, "sent").read_bytes())
    tell = _teller(sys.stdout)
    with contextlib.redirect_stdout(io.StringIO()):  # what a model prints is no progress
        found = function(unpacked(sent), *arguments, tell)
    Path(folder, "returned").write_bytes(cloudpickle.dumps(found))


def _end_with(pipe: int, folder: str) -> None:
    """End this process, and leave nothing behind, when the one that holds the other end of a pipe is gone."""
    os.read(pipe, 1)  # not by `sys.stdin`, whose lock Python wants when it ends
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(1)


def _teller(out: Any) -> Callable[[Any], None]:
    """What tells of progress to whoever reads `out`, a line each, from any lane."""
    lock = threading.Lock()

    def tell(said: Any) -> None:
        with lock:  # else two lanes' texts may come before their line ends
            print(f"{_SAID}{json.dumps(said)}", file=out, flush=True)

    return tell


if __name__ == "__main__":
    _work(sys.argv[1])
