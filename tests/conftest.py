"""What every test shares: the backend, chosen before Keras is imported, and one seed for all that is random."""

import os

os.environ.setdefault("KERAS_BACKEND", "jax")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# What Keras compiles runs for a moment here: a third of the time goes where XLA tries less hard.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")

import hypothesis
import pytest

# The same examples in each run, no time limit for one (the first of a shape is compiled), nothing written to disk.
hypothesis.settings.register_profile("regularity", derandomize=True, deadline=None, database=None, max_examples=25)
hypothesis.settings.load_profile("regularity")


@pytest.fixture(autouse=True)
def seeded() -> None:
    """The same random numbers for each test, in whatever order they run."""
    import keras

    keras.utils.set_random_seed(0)


def pytest_configure(config: pytest.Config) -> None:
    """Warnings are errors, but for this one, which Keras causes in itself when it makes an array of a variable."""
    config.addinivalue_line(
        "filterwarnings", "ignore:__array__ implementation doesn't accept a copy:DeprecationWarning"
    )
