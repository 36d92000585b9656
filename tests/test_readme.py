"""What the README shows is what happens."""

import re
from pathlib import Path

import keras
import matplotlib

README = Path(__file__).parents[1] / "README.md"


def test_the_readmes_python_runs(tmp_path, monkeypatch, capsys):
    matplotlib.use("agg")
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    exec(compile(code, str(README), "exec"), {})
    assert "l2" in capsys.readouterr().out
    assert (tmp_path / "path.png").stat().st_size > 10_000
    assert keras.saving.load_model(tmp_path / "regularized.keras").count_params() == 25_089
