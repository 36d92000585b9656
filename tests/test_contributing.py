"""The worked example of CONTRIBUTING works: two blocks of code add a technique that trains."""

import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

CONTRIBUTING = Path(__file__).parents[1] / "CONTRIBUTING.md"

SCRIPT = """
from regularity.catalogue import weights

namespace = vars(weights)
exec({function!r}, namespace)
weights.TECHNIQUES += (eval({declaration!r}, namespace),)
"""

USE = """
import sys
import types

# the catalogue is made when it is first imported, so the example joins its module before that
import importlib.util
import keras

package = importlib.util.find_spec("regularity.catalogue")
source = open(package.origin).read().replace("CATALOGUE: Mapping", ADD + "\\nCATALOGUE: Mapping", 1)
module = importlib.util.module_from_spec(package)
sys.modules["regularity.catalogue"] = module
exec(compile(source, package.origin, "exec"), vars(module))

import numpy as np
import regularity as rg

model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1, kernel_initializer="ones")])
model.compile(keras.optimizers.SGD(0.0), "mse")
rows = np.zeros((8, 4), "float32")
off, on = rg.train(model, rows, rows[:, :1], [{"l4": 0.0}, {"l4": 0.5}])
print(list(rg.techniques())[-8:], on.history["loss"][0] - off.history["loss"][0])
assert "l4" in rg.techniques()
assert abs(on.history["loss"][0] - off.history["loss"][0] - 0.5 * 4) < 1e-5
"""


def test_the_worked_example_is_a_technique_that_trains(tmp_path: Path) -> None:
    function, declaration = (
        textwrap.dedent(block) for block in re.findall(r"```python\n(.*?)```", CONTRIBUTING.read_text(), re.DOTALL)[:2]
    )
    add = SCRIPT.format(function=function, declaration=declaration)
    script = tmp_path / "script.py"
    script.write_text(f"ADD = {add!r}\n" + USE)
    done = subprocess.run(
        [sys.executable, str(script)],
        env={**os.environ, "KERAS_BACKEND": "jax"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
