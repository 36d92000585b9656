"""Where a study is kept: in a database of Optuna's, each finished trial written once, so that Optuna's tools read it."""

import base64
import contextlib
import json
import os
import platform
import zlib
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

import regularity
from regularity.recipe import Recipe
from regularity.study._rule import Trial

_FOLDER = "regularity"
_PACKAGES = ("keras", "jax", "optuna", "numpy", "scikit-learn")


class Store:
    """A study's trials and what else it found out, on disk or in any database that Optuna's storage reaches.

    Args:
        storage: A URL such as `postgresql://…`, a file, an Optuna storage, or None for a file in `./regularity/`.
        name: Of the study.
    """

    def __init__(self, storage: Any, name: str) -> None:
        import optuna

        self.name = name
        self.where = storage
        if storage is None:
            storage = Path(_FOLDER, f"{name}.db")
        url = storage
        if isinstance(storage, (str, os.PathLike)) and "://" not in str(storage):
            self.where = Path(storage)
            try:
                self.where.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise ValueError(
                    f"Invalid value received for argument `storage`. Expected a file that can be written. Received: {storage} "
                    f"({error.strerror})"
                ) from error
            url = f"sqlite:///{self.where.resolve()}"
        with quiet_optuna():
            self.study = optuna.create_study(storage=url, study_name=name, direction="maximize", load_if_exists=True)
        self._found = dict(self.study.user_attrs)

    def keep_weights(self, key: str, weights: Sequence[np.ndarray]) -> None:
        """Write a member's weights, whole or not at all, beside a database that is a file."""
        if isinstance(self.where, Path):
            file = self._file(key)
            file.parent.mkdir(parents=True, exist_ok=True)
            partial = file.with_suffix(f".{os.getpid()}.npz")
            np.savez(partial, *weights)
            partial.replace(file)

    def weights(self, key: str) -> list[np.ndarray] | None:
        """The weights that were kept under a key, or None."""
        if not isinstance(self.where, Path) or not self._file(key).exists():
            return None
        with np.load(self._file(key)) as arrays:
            return [arrays[name] for name in arrays.files]

    @property
    def checkpoints(self) -> Path | None:
        """The folder for what is in training, beside a database that is a file."""
        return self._file("checkpoints").with_suffix("") if isinstance(self.where, Path) else None

    def _file(self, key: str) -> Path:
        assert isinstance(self.where, Path)
        return self.where.with_suffix("") / f"{key}.npz"

    def check(self, question: Mapping[str, str]) -> None:
        """Note what is asked, or see that it is what was asked before.

        Raises:
            ValueError: If the study was begun with something else, with what differs.
        """
        before = self._found.get("question")
        if before is None:
            environment = {package: version(package) for package in _PACKAGES}
            environment |= {"regularity": regularity.__version__, "python": platform.python_version()}
            self.note("environment", environment | {"machine": platform.machine()})
            self.note("question", dict(question))
            return
        differs = [name for name, value in question.items() if before.get(name) != value]
        if differs:
            raise ValueError(
                f"Expected what the study {self.name!r} in {self.where} was begun with. Received: another "
                f"{', another '.join(differs)}. Give this search a `name` or a `storage` of its own."
            )

    def note(self, key: str, value: Any) -> None:
        """Keep something, as JSON."""
        self._found[key] = value
        self.study.set_user_attr(key, value)

    def noted(self, key: str) -> Any:
        """What was kept under a key, or None."""
        return self._found.get(key)

    def add(self, trial: Trial, value: float) -> None:
        """Keep a finished trial, in one transaction."""
        import optuna

        finished = np.isfinite(value)
        attributes = {
            "number": trial.number,
            "name": trial.name,
            "recipe": json.loads(trial.recipe.to_json()),
            "point": trial.point,
            "curves": packed(trial.curves),
            "diverged": trial.diverged,
            "seconds": trial.seconds,
        }
        with quiet_optuna():
            self.study.add_trial(
                optuna.create_trial(
                    state=optuna.trial.TrialState.COMPLETE if finished else optuna.trial.TrialState.FAIL,
                    value=float(value) if finished else None,
                    params=trial.parameters,
                    distributions=trial.distributions,
                    user_attrs=attributes,
                )
            )

    def trials(self) -> dict[int, Trial]:
        """The trials that finished, by number, with those rings of cells that they began with."""
        found = {}
        for kept in self.study.get_trials(deepcopy=False):
            has = kept.user_attrs
            if "number" not in has or has["number"] in found:
                continue
            found[has["number"]] = Trial(
                has["number"],
                has["name"],
                Recipe(has["recipe"]),
                has["point"],
                unpacked(has["curves"]),
                1,
                diverged=has["diverged"],
                seconds=has["seconds"],
                parameters=kept.params,
                distributions=kept.distributions,
            )
        return found


def study_file(name: str) -> Path:
    """The file of a study, from its path or its name."""
    return Path(name) if Path(name).suffix else Path(_FOLDER, f"{name}.db")


def asked_of(storage: Any, name: str) -> dict[str, Any] | None:
    """What the command line was asked when it began a study, or None where it did not begin it.

    Raises:
        KeyError: If there is no such study, with the names of those that there are.
    """
    import optuna

    if "://" not in str(storage):
        storage = f"sqlite:///{Path(storage).resolve()}"
    with quiet_optuna():
        names = optuna.get_all_study_names(storage)
        if name not in names:
            raise KeyError(names)
        return optuna.load_study(study_name=name, storage=storage).user_attrs.get("asked")


def packed(array: np.ndarray) -> dict[str, Any]:
    """An array as JSON holds it, in single precision."""
    values = np.ascontiguousarray(array, "<f4")
    return {"shape": values.shape, "f4": base64.b64encode(zlib.compress(values.tobytes())).decode()}


def unpacked(value: Mapping[str, Any]) -> np.ndarray:
    """The array that `packed` was given, in single precision."""
    return np.frombuffer(zlib.decompress(base64.b64decode(value["f4"])), "<f4").reshape(value["shape"])


@contextlib.contextmanager
def quiet_optuna() -> Iterator[None]:
    """Have Optuna say nothing of what it is used for, and leave its own settings as they were."""
    import warnings

    import optuna

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(before)
