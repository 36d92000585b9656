"""Where a study is kept: in a database of Optuna's, each finished trial written once, so that Optuna's tools read it."""

import base64
import contextlib
import hashlib
import json
import os
import platform
import re
import time
import uuid
import zlib
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import regularity
from regularity.recipe import Recipe
from regularity.study._rule import Trial
from regularity.study._warnings import Together, ignoring

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None

_FOLDER = "regularity"
_TRIES = 30  # to have a lock on a server, a tenth of a second each
_SHOWN = 4  # epochs at most, about, after which Optuna's tools see a score
_PACKAGES = ("keras", "jax", "optuna", "numpy", "scikit-learn")


class Asked(NamedTuple):
    """A storage, and what the command line was asked when it began the search, for `resume`."""

    storage: Any
    asked: dict[str, Any]


class Store:
    """A study's trials and what else it found out, on disk or in any database that Optuna's storage reaches.

    Args:
        storage: A URL such as `postgresql://…`, a file, an Optuna storage, or None for a file in `./regularity/`.
        name: Of the study.

    Raises:
        ValueError: If nothing can be kept there, with the reason.
    """

    def __init__(self, storage: Any, name: str) -> None:
        import optuna

        self.name = name
        storage, self._asked = storage if isinstance(storage, Asked) else (storage, None)
        storage = Path(_FOLDER, f"{name}.db") if storage is None else storage
        with _reached(storage), quiet_optuna():
            self.file, place = _located(storage)
            if isinstance(place, str) and _is_memory(place):  # SQL would only make it slower
                place = optuna.storages.InMemoryStorage()
            if self.file is not None:
                self.file.parent.mkdir(parents=True, exist_ok=True)
            self.study = optuna.create_study(storage=place, study_name=name, direction="maximize", load_if_exists=True)
            # a file in a folder that can't be written opens all the same, and fails at the first trial
            self.study.set_user_attr("opened", datetime.now(UTC).isoformat())
        self.where = storage if self.file is None else self.file
        self.in_memory = isinstance(place, optuna.storages.InMemoryStorage)  # where only this process can read it
        self._found = dict(self.study.user_attrs)

    @property
    def folder(self) -> Path | None:
        """For weights and what is in training, beside a database that is a file; its name is no other study's."""
        if self.file is None:
            return None
        if self.noted("folder") is None:
            self.note("folder", uuid.uuid4().hex)
        return self.file.with_name(f"{self.file.name}.weights") / self.noted("folder")

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Keep others from working on this study, in a file or on a PostgreSQL server; whoever is killed lets go of it.

        Raises:
            ValueError: If another does so now.
        """
        url = getattr(self.where, "url", self.where)  # of an Optuna storage
        if self.file is not None:
            lock = _locked_file(self.file.with_name(f"{self.file.name}.weights"), self.name)
        elif str(url).startswith("postgresql"):
            lock = _locked_on_server(self.where, self.name)
        else:
            lock = contextlib.nullcontext(True)
        with lock as mine:
            if not mine:
                raise ValueError(
                    f"Expected nobody else at work on the study {self.name!r} in {shown(self.where)}. Received: another "
                    "process that works on it. Wait for it, or give this call a `name` of its own."
                )
            self.reread()
            yield

    def reread(self) -> None:
        """Take what another process has noted meanwhile."""
        self._found = dict(self.study.user_attrs)

    def keep_weights(self, key: str, weights: Sequence[np.ndarray]) -> None:
        """Write a member's weights, whole or not at all, beside a database that is a file."""
        if self.folder is None:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        partial = self.folder / f"{key}.{os.getpid()}.npz"
        # NumPy reads back only its own types, which bfloat16 is not
        np.savez(partial, *(a.astype("float32") if a.dtype.kind == "V" else a for a in map(np.asarray, weights)))
        partial.replace(self.folder / f"{key}.npz")

    def weights(self, key: str) -> list[np.ndarray] | None:
        """The weights that were kept under a key, or None."""
        if self.folder is None or not (self.folder / f"{key}.npz").exists():
            return None
        with np.load(self.folder / f"{key}.npz") as arrays:
            return [arrays[name] for name in arrays.files]

    def clear(self) -> None:
        """Remove what was written of members in training, and what a kill left half written: a study needs neither."""
        if self.folder is not None:
            for file in [
                *self.folder.glob("*.pickle"),
                *self.folder.glob("*.*[0-9]"),
                *self.folder.glob("*.*[0-9].npz"),
            ]:
                file.unlink(missing_ok=True)

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
            before = question
        differs = [name for name, value in question.items() if before.get(name) != value]
        if differs:
            raise ValueError(
                f"Expected what the study {self.name!r} in {shown(self.where)} was begun with. Received: another "
                f"{', another '.join(differs)}. Give this call a `name` or a `storage` of its own."
            )
        if self._asked is not None:
            self.note("asked", self._asked)

    def note(self, key: str, value: Any) -> None:
        """Keep something that JSON holds, as it does, wherever the study is."""
        value = self._found[key] = json.loads(json.dumps(value))
        self.study.set_user_attr(key, value)

    def noted(self, key: str) -> Any:
        """What was kept under a key, or None."""
        return self._found.get(key)

    @property
    def record(self) -> dict[str, Any]:
        """How the study was made, for whoever looks at it."""
        return {part: self.noted(part) for part in ("question", "environment", "devices", "seconds")} | {
            "storage": shown(self.where)
        }

    def add(self, trial: Trial, value: float, reported: Mapping[int, float] | None = None) -> None:
        """Keep a finished trial, in one transaction, with its score after some of its epochs.

        Each of these costs half a millisecond, and each attribute as much: what only we read is one of them.
        """
        reported = reported or {}
        epochs = sorted(reported)
        some = epochs[:: -(-len(epochs) // _SHOWN) or 1] + epochs[-1:]
        kept = {
            "number": trial.number,
            "point": trial.point,
            "curves": packed(trial.curves),
            "diverged": trial.diverged,
            "pruned": trial.pruned,
            "seconds": trial.seconds,
        }
        with quiet_optuna():
            self.study.add_trial(as_optunas(trial, value, {epoch: reported[epoch] for epoch in some}, {"kept": kept}))

    def trials(self) -> dict[int, Trial]:
        """The trials that finished, by number, with those rings of cells that they began with."""
        found = {}
        for theirs in self.study.get_trials(deepcopy=False):
            has = theirs.user_attrs
            kept = has.get("kept", has)  # before 0.1 these were attributes themselves
            if "number" not in kept or kept["number"] in found:
                continue
            found[kept["number"]] = Trial(
                kept["number"],
                has["name"],
                Recipe(has["recipe"]),
                kept["point"],
                unpacked(kept["curves"]),
                1,
                diverged=kept["diverged"],
                pruned=kept["pruned"],
                seconds=kept["seconds"],
                parameters=theirs.params,
                distributions=theirs.distributions,
            )
        return found


def as_optunas(trial: Trial, value: float, reported: Mapping[int, float], more: Mapping[str, Any] | None = None) -> Any:
    """A finished trial as Optuna has them: its name and its recipe are attributes.

    Args:
        trial: The trial.
        value: Its score; NaN where it has none, since it diverged.
        reported: Its score after each epoch.
        more: Further attributes.
    """
    import optuna

    states, finished = optuna.trial.TrialState, np.isfinite(value)
    with quiet_optuna():
        found = optuna.create_trial(
            state=states.PRUNED if trial.pruned else states.COMPLETE if finished else states.FAIL,
            value=float(value) if finished else None,
            params=trial.parameters,
            distributions=trial.distributions,
            intermediate_values=dict(reported),
            user_attrs={"name": trial.name, "recipe": json.loads(trial.recipe.to_json()), **(more or {})},
        )
    found.number = trial.number
    return found


def shown(storage: Any) -> str:
    """A storage as a message may name it: without the passwords of a URL."""
    text = str(storage)
    if "://" in text:  # drivers take one in the query, too
        text = re.sub(r"([?&]\w*(?:password|passwd)=)[^&]*", r"\1***", text, flags=re.IGNORECASE)
    return re.sub(r"(://[^:/@]*):.*@", r"\1:***@", text)


def study_file(name: str) -> Path:
    """The file of a study, from its name, which may have dots, or its path."""
    file = Path(_FOLDER, f"{name}.db")
    return file if file.is_file() else Path(name)


def names_in(storage: str | Path) -> list[str]:
    """The names of the studies that a storage holds, none where there is no such file; nothing is written there.

    Raises:
        ValueError: If it is nothing that Optuna reads, with the reason.
    """
    import optuna

    with _reached(storage), quiet_optuna():
        file, url = _located(storage)
        if file is not None and not file.is_file():
            return []
        return sorted(optuna.get_all_study_names(optuna.storages.RDBStorage(url, skip_table_creation=True)))


def asked_of(storage: str | Path, name: str) -> dict[str, Any] | None:
    """What the command line was asked when it began a study, or None where it did not begin it."""
    import optuna

    with _reached(storage), quiet_optuna():
        return optuna.load_study(study_name=name, storage=_located(storage)[1]).user_attrs.get("asked")


@contextlib.contextmanager
def _locked_file(folder: Path, name: str) -> Iterator[bool]:
    """Hold a lock beside a database that is a file, and say whether that could be had."""
    if fcntl is None:
        yield True
        return
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{hashlib.sha256(name.encode()).hexdigest()[:16]}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        except OSError:  # a file system without locks
            pass
        yield True


@contextlib.contextmanager
def _locked_on_server(storage: Any, name: str) -> Iterator[bool]:
    """Hold a lock of PostgreSQL's, which ends with the connection, and say whether that could be had.

    It belongs to a transaction that stays open, so that a proxy which shares connections leaves this one alone.
    """
    from sqlalchemy import create_engine, text
    from sqlalchemy.pool import NullPool

    key = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big", signed=True)
    how = getattr(storage, "engine_kwargs", {}).get("connect_args", {})  # of an Optuna storage, as its URL
    engine = create_engine(getattr(storage, "url", storage), poolclass=NullPool, connect_args=how)
    with contextlib.ExitStack() as stack:
        with _reached(storage):
            connection = stack.enter_context(engine.connect())
            # a machine that is gone without a word lets go of it after a minute
            for setting in ("idle = 30", "interval = 10", "count = 3"):
                connection.execute(text(f"set local tcp_keepalives_{setting}"))
            for _ in range(_TRIES):
                tried = connection.execute(text("select pg_try_advisory_xact_lock(:key)"), {"key": key})
                if mine := bool(tried.scalar()):
                    break
                time.sleep(0.1)  # the server may not have noticed yet that whoever held it was killed
        yield mine


def _located(storage: Any) -> tuple[Path | None, Any]:
    """The file that a storage is, or None, and what Optuna takes for it."""
    from sqlalchemy.engine import URL, make_url

    if not isinstance(storage, (str, os.PathLike)):
        return None, storage
    file = Path(storage)
    if "://" in str(storage):
        url = make_url(str(storage))
        if url.get_backend_name() != "sqlite" or url.query or _is_memory(str(storage)):
            return None, str(storage)
        file = Path(str(url.database))
    return file, URL.create("sqlite", database=str(file.resolve())).render_as_string()


def _is_memory(url: str) -> bool:
    from sqlalchemy.engine import make_url

    parts = make_url(url)
    return parts.get_backend_name() == "sqlite" and parts.database in (None, "", ":memory:")


@contextlib.contextmanager
def _reached(storage: Any) -> Iterator[None]:
    """Say in one way what is the matter with a storage: Optuna, SQLAlchemy and each driver have their own."""
    try:
        yield
    except Exception as error:
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        reason = "it is a folder" if _is_folder(storage) else getattr(cause, "strerror", None) or str(cause)
        raise ValueError(
            "Invalid value received for argument `storage`. Expected a file that can be written, a URL such as "
            "'postgresql://user@host/database' with its driver installed, or an Optuna storage. "
            f"Received: {shown(storage)} ({shown(' '.join(reason.split()))[:300]})"
        ) from error


def _is_folder(storage: Any) -> bool:
    return isinstance(storage, (str, os.PathLike)) and Path(storage).is_dir()


def packed(array: np.ndarray) -> dict[str, Any]:
    """An array as JSON holds it, in single precision."""
    values = np.ascontiguousarray(array, "<f4")
    return {"shape": values.shape, "f4": base64.b64encode(zlib.compress(values.tobytes())).decode()}


def unpacked(value: Mapping[str, Any]) -> np.ndarray:
    """The array that `packed` was given, in single precision."""
    return np.frombuffer(zlib.decompress(base64.b64decode(value["f4"])), "<f4").reshape(value["shape"])


@contextlib.contextmanager
def _telling_errors_alone() -> Iterator[None]:
    import optuna

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    yield
    optuna.logging.set_verbosity(before)


_QUIET = Together(_telling_errors_alone)


@contextlib.contextmanager
def quiet_optuna() -> Iterator[None]:
    """Have Optuna say nothing of what it is used for, and leave its own settings as they were."""
    import optuna

    with _QUIET, ignoring({"category": optuna.exceptions.ExperimentalWarning}):
        yield
