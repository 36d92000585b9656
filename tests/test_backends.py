"""The Keras components on the other backends: the tests in `catalogue/` once more, in a process for each."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent


@pytest.mark.parametrize("backend", ["tensorflow", "torch"])
def test_components_pass_their_tests_on(backend: str) -> None:
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed; to run this: make test EXTRAS=dev,{backend}")
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(TESTS / "catalogue")],
        cwd=TESTS.parent,
        # Small nets: one thread, since several that wait for one another on busy cores cost torch most of its time.
        env={**os.environ, "KERAS_BACKEND": backend, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert run.returncode == 0, f"\n{run.stdout}\n{run.stderr}"
