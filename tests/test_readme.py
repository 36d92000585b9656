"""What the README shows is what happens."""

import re
from pathlib import Path

import keras
import matplotlib

README = Path(__file__).parents[1] / "README.md"


def test_the_readmes_python_runs(tmp_path, monkeypatch, capsys):
    matplotlib.use("agg")
    monkeypatch.chdir(tmp_path)
    path, search = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    code = path + search.replace('budget="1min"', "trials=8, epochs=10")  # no test waits for a minute
    exec(compile(code, str(README), "exec"), {})
    said = capsys.readouterr().out
    assert "l2" in said
    assert "against the model as given" in said or "Not separable" in said
    assert "import keras" in said
    assert keras.saving.load_model(tmp_path / "ensemble.keras").input_shape == (None, 65)
    assert (tmp_path / "path.png").stat().st_size > 10_000
    assert keras.saving.load_model(tmp_path / "regularized.keras").count_params() == 25_089
