"""What the command line reads and writes: models, rows, and whether a file can be written before the work is done."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    import numpy as np

MOST_CLASSES = 20  # more distinct numbers are no classes
_COMPRESSED = (".gz", ".bz2", ".xz", ".zst")  # text, as pandas reads it
_SEPARATORS = {".csv": ",", ".tsv": "\t"}
_ROWS = ".npz, .csv, .tsv (these two also as .csv.gz and the like) or .parquet"


class Wrong(Exception):
    """What the user gave is wrong; the message is one line."""


class Interrupted(Exception):
    """The user has had enough; the message says what is kept."""


def make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Wrong(f"Can't write to {folder}: {error.strerror}.") from error


def check_folder(folder: Path) -> None:
    """See that files can be written in a folder, which is made where it is not there."""
    make_folder(folder)
    if not os.access(folder, os.W_OK):
        raise Wrong(f"Can't write to {folder}: permission denied.")


def check_picture(file: Path | None) -> None:
    """See that a picture can be written, now and not after the work."""
    if file is None:
        return
    if file.suffix.lower() not in (".png", ".svg", ".pdf"):
        raise Wrong(f"Expected --plot to end in .png, .svg or .pdf. Received: {file}")
    check_writable(file)


def check_writable(file: Path) -> None:
    make_folder(file.parent)
    try:
        folder, there = file.is_dir(), file.exists()
    except OSError as error:  # a folder that can't be entered, or a name that is too long
        raise Wrong(f"Can't write to {file}: {error.strerror}.") from error
    if folder or not os.access(file if there else file.parent, os.W_OK):
        raise Wrong(f"Can't write to {file}: {'it is a folder' if folder else 'permission denied'}.")


def _is_file(file: Path) -> bool:
    try:
        return file.is_file()
    except OSError as error:  # likewise
        raise Wrong(f"Can't read {file}: {error.strerror}.") from error


def load_model(file: Path) -> Any:
    if not _is_file(file):
        raise Wrong(f"No such file: {file}. Expected a model that Keras saved, as .keras.")
    import warnings
    import zipfile

    import keras

    import regularity.recipe  # noqa: F401  its classes and those of the catalogue are found in the file by their names

    try:
        with warnings.catch_warnings():  # of an optimizer that has not trained yet; its state is of no use here
            warnings.filterwarnings("ignore", message="Skipping variable loading for optimizer")
            return keras.saving.load_model(file)
    except Exception as error:  # Keras raises anything here, from zipfile's errors to TypeError
        why = " ".join(str(error).split())[:300]
        if zipfile.is_zipfile(file):
            why += ". If it has classes, functions or lambdas of your own, it is for Python: rg.search(...)"
        raise Wrong(f"{file} does not load as a Keras model: {why}") from error


def read_rows(file: Path, target: str) -> tuple[Any, "np.ndarray"]:
    if not _is_file(file):
        raise Wrong(f"No such file: {file}. Expected rows as {_ROWS}.")
    ending = file.suffix.lower()
    if ending in _COMPRESSED and file.with_suffix("").suffix.lower() in _SEPARATORS:
        ending = file.with_suffix("").suffix.lower()
    if ending not in (".npz", *_SEPARATORS, ".parquet"):
        raise Wrong(f"Expected a file that ends in {_ROWS}. Received: {file}")
    try:
        return _npz(file, target) if ending == ".npz" else _frame(file, target, _SEPARATORS.get(ending))
    except Wrong:
        raise
    except Exception as error:  # as with models: readers raise anything on a broken file
        raise Wrong(f"{file} can't be read as {ending[1:]}: {error}") from error


def load_with_rows(model_file: Path, file: Path, target: str) -> tuple[Any, Any, "np.ndarray"]:
    """A model and rows for it: the model, its inputs, and targets as numbers."""
    x, y, of_text = read_numbers(file, target)
    model = load_model(model_file)
    _check_names(model, x, file, target)
    if of_text and model.compiled:  # another error says that it is not
        from regularity.data import Data
        from regularity.study._scores import target_kind

        if target_kind(model, Data(x, y)) == "numbers":
            raise Wrong(
                f"Expected numbers in {target!r} of {file}, since the model's loss is of numbers. Received: text, such as "
                f"{of_text!r}."
            )
    return model, x, y


def _check_names(model: Any, x: Any, file: Path, target: str) -> None:
    """Whether several arrays of a file are named as the inputs of the model."""
    if not isinstance(x, dict) or not getattr(model, "inputs", None):
        return
    given = model.input if len(model.inputs) > 1 else None
    names = list(given) if isinstance(given, dict) else [tensor.name for tensor in model.inputs]
    if len(names) == 1:
        raise Wrong(
            f"Expected {file} to have one array beside the target {target!r}, since the model has one input. "
            f"Received: {sorted(x)}. Save that one alone, for example np.savez(file, x=x, {target}={target})."
        )
    if any(name not in x for name in names):
        raise Wrong(
            f"Expected {file} to have an array for each input of the model, {names}. Received: {sorted(x)} beside the "
            f"target {target!r}. Name them as the inputs, for example np.savez(file, **{{{names[0]!r}: …}}, {target}={target})."
        )


def _npz(file: Path, target: str) -> tuple[Any, "np.ndarray"]:
    import zipfile

    import numpy as np

    if not zipfile.is_zipfile(file):
        raise Wrong(
            f"{file} can't be read as npz: it is no archive, or a broken one. Write it with np.savez(file, x=x, y=y)."
        )
    with np.load(file, allow_pickle=False) as arrays:
        named = {}
        for name in arrays.files:
            try:
                named[name] = arrays[name]
            except ValueError as error:
                text = "it holds objects" if "Object arrays" in str(error) else str(error)
                raise Wrong(
                    f"{file} can't be read as npz: array {name!r}: {text}. Save arrays of numbers with np.savez(file, x=x, y=y)."
                ) from None
    if target not in named:
        raise Wrong(f"{file} has no array {target!r}. It has {sorted(named)}; choose one with --target.")
    y = named.pop(target)
    if y.ndim == 0:
        raise Wrong(f"Expected {target!r} of {file} to have rows. Received: the single {y.item()!r}.")
    if not named:
        raise Wrong(
            f"{file} has no array beside the target {target!r}. Save inputs as x, for example np.savez(file, x=x, y=y)."
        )
    return (next(iter(named.values())) if len(named) == 1 else named), y


def _frame(file: Path, target: str, separator: str | None) -> tuple[Any, "np.ndarray"]:
    """A table, of text where there is a separator."""
    import pandas as pd

    if separator is not None:
        header = pd.read_csv(file, sep=separator, header=None, nrows=1, dtype=str).iloc[0].dropna()
        if header.duplicated().any():  # pandas would number them, and an input could be the target itself
            raise Wrong(
                f"Expected {file} to name each column once. Received twice: {header[header.duplicated()].tolist()}."
            )
        frame = pd.read_csv(file, sep=separator)
    else:
        try:
            frame = pd.read_parquet(file)
        except ImportError as error:
            raise Wrong("Rows in a .parquet file need pyarrow. Try: pip install 'regularity[parquet]'") from error
    frame.columns = frame.columns.map(str)
    for name in [name for name, kind in frame.dtypes.items() if kind.kind == "O"]:
        if pd.api.types.infer_dtype(frame[name], skipna=True) == "decimal":  # as databases have prices
            frame[name] = frame[name].astype("float64")
    if target not in frame:
        raise Wrong(f"{file} has no column {target!r}. It has {list(frame.columns)}; choose one with --target.")
    if frame.empty:
        raise Wrong(f"Expected {file} to have rows. Received: the header {list(frame.columns)} alone.")
    x, y = frame.drop(columns=target), frame[target]
    if x.shape[1] == 0:
        raise Wrong(f"Expected {file} to have columns beside the target {target!r}. Received: that one alone.")
    if y.isna().any():
        raise Wrong(f"Expected a {target!r} in every row of {file}. Received: {int(y.isna().sum())} rows without.")
    return x, y.to_numpy()


def check_classes(y: "np.ndarray", file: Path, target: str) -> None:
    """Whether text can be classes, or is rather numbers that something odd stands among."""
    import numpy as np
    import pandas as pd

    found = np.unique(y.astype(str))
    none = found[pd.isna(pd.to_numeric(found, errors="coerce"))]
    of_numbers = 0 < len(none) < len(found) / 2 and len(found) > MOST_CLASSES
    if of_numbers or len(found) > max(2, len(y) / 2):
        odd = ", ".join(map(repr, (none if of_numbers else found)[:3].tolist()))
        hint = (
            f"All but {len(none)} are numbers: mend {odd}"
            if of_numbers
            else "A class comes in several rows: choose another"
        )
        raise Wrong(
            f"Expected numbers or classes in {target!r} of {file}. Received: {len(found)} different texts in {len(y)} rows, "
            f"such as {odd}. {hint}, or say --task classification."
        )


def read_numbers(file: Path, target: str) -> tuple[Any, "np.ndarray", str | None]:
    """Rows for a model, which takes numbers alone: inputs, targets, and where these were text one of them."""
    import numpy as np
    import pandas as pd

    x, y = read_rows(file, target)
    if not isinstance(x, pd.DataFrame):
        return x, y, None
    text = [c for c in x.columns if not pd.api.types.is_numeric_dtype(x[c]) and not pd.api.types.is_bool_dtype(x[c])]
    if text:
        raise Wrong(
            f"Expected columns of numbers beside a model. Received text in {text} of {file}. Encode them first, for example with "
            "pandas.get_dummies; `regularity search` without a model takes them as they are."
        )
    given = None
    if y.dtype.kind not in "iufb":
        classes, y = np.unique(y.astype(str), return_inverse=True)
        given = str(classes[0])
        typer.echo(f"Classes: {', '.join(f'{i} = {c}' for i, c in enumerate(classes))}", err=True)
    return x.to_numpy("float32", na_value=np.nan), y, given
