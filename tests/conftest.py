"""What every test shares: the backend, chosen before Keras is imported, and one seed for all that is random."""

import os
import sys
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "jax")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# What Keras compiles runs for a moment here: half of the time goes where XLA tries less hard.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false")
# What one test compiled no other compiles again, in whatever process, nor does the next run.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parents[1] / ".pytest_cache" / "jax"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")

import hypothesis
import pytest

# The same examples in each run, no time limit for one (the first of a shape is compiled), nothing written to disk.
hypothesis.settings.register_profile("regularity", derandomize=True, deadline=None, database=None, max_examples=25)
hypothesis.settings.load_profile("regularity")


# Files of few tests that take long: begun last, one worker would be left alone with them.
LONG = ("test_examples", "test_killed", "test_ray", "test_backends", "test_process", "test_readme", "test_demo")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes long."""
    items.sort(key=lambda item: item.path.stem not in LONG)


@pytest.fixture(autouse=True)
def seeded() -> None:
    """The same random numbers for each test, in whatever order they run."""
    import keras

    keras.utils.set_random_seed(0)


@pytest.fixture
def command_line(monkeypatch, capsys):
    """Run a command line where the test stands; gives exit code, standard output and standard error."""
    from regularity import cli

    monkeypatch.delenv("REGULARITY_DEBUG", raising=False)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["regularity", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return ended.value.code, *capsys.readouterr()

    return run


@pytest.fixture(scope="session")
def study():
    """A search for three techniques on a network for two classes, which brings dropout of its own; run once."""
    import keras
    import numpy as np

    import regularity as rg

    keras.utils.set_random_seed(0)
    random = np.random.default_rng(0)
    x = random.normal(size=(90, 6)).astype("float32")
    y = (x[:, 0] + random.normal(size=90) > 0).astype("int64")
    layers = [
        keras.layers.Dense(16, "relu", name="hidden"),
        keras.layers.Dropout(0.2),
        keras.layers.Dense(2, "softmax"),
    ]
    model = keras.Sequential([keras.Input((6,)), *layers], name="network")
    model.compile("adam", "sparse_categorical_crossentropy")
    return rg.search(
        model, x, y, ["l2", "dropout", "max_norm"], trials=14, folds=4, epochs=6, storage="sqlite://", name="</script><b>&", verbose=0
    )  # fmt: skip


def pytest_configure(config: pytest.Config) -> None:
    """Warnings are errors, but for this one, which Keras causes in itself when it makes an array of a variable."""
    config.addinivalue_line(
        "filterwarnings", "ignore:__array__ implementation doesn't accept a copy:DeprecationWarning"
    )
