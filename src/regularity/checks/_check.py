"""`rg.check`: run every check on a model."""

import html
import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import astuple, dataclass, fields
from typing import Any, Literal, NamedTuple

import keras
import pandas as pd

from regularity import _keras
from regularity.checks._seen import Seen
from regularity.data import is_stream, to_data, to_inputs
from regularity.recipe._plain import one_plain
from regularity.recipe._regularized import Regularized

_DOCS = "docs/checks/"


class Found(NamedTuple):
    """One place at which a check has something to say.

    Args:
        layer: Path of the layer, or what else it is about.
        why: One sentence.
        mend: One line of code.
    """

    layer: str
    why: str
    mend: str


@dataclass(frozen=True)
class Check:
    """One thing that may be wrong.

    Args:
        code: Stable.
        name: What is found, in words with hyphens.
        level: `wrong` where something does not do what it says, `doubtful` where it is seldom what was meant.
        summary: One line.
        why: What happens, and how one knows.
        fine: When it may stay.
        bad: Python that makes a `model`, and perhaps `x`, `y` and `callbacks`, on which it fires.
        good: The same, mended.
        find: Looks.
    """

    code: str
    name: str
    level: Literal["wrong", "doubtful"]
    summary: str
    why: str
    fine: str
    bad: str
    good: str
    find: Callable[[Seen], Iterable[Found]]


@dataclass(frozen=True)
class Finding:
    """Something that is wrong with the regularization of a model, or doubtful.

    Args:
        code: Of the check.
        name: Of the check.
        level: `wrong` or `doubtful`.
        layer: Path of the layer, or what else it is about, such as `optimizer`.
        why: One sentence.
        mend: One line of code.
        page: In the docs.

    Example:
        >>> import keras, regularity as rg
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dropout(0.95), keras.layers.Dense(1)])
        >>> (finding,) = rg.check(model)
        >>> finding.code, finding.name, finding.level
        ('RG401', 'extreme-dropout', 'doubtful')
    """

    code: str
    name: str
    level: str
    layer: str
    why: str
    mend: str
    page: str

    def __str__(self) -> str:
        return f"{self.code} {self.name} ({self.level}), {self.layer}: {self.why}\n    {self.mend}"


class Findings(list[Finding]):
    """What `rg.check` found: a list of `Finding`, in words when printed, a table in a notebook.

    Example:
        >>> import keras, regularity as rg
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dropout(0.95), keras.layers.Dense(1)])
        >>> rg.check(model).table["name"].tolist()
        ['extreme-dropout']
    """

    @property
    def table(self) -> pd.DataFrame:
        """A row for each finding, with the attributes of `Finding` as columns."""
        return pd.DataFrame([astuple(each) for each in self], columns=[field.name for field in fields(Finding)])

    def __str__(self) -> str:
        return (
            "\n".join(map(str, self)) or "Nothing is wrong with the regularization of this model that a check can see."
        )

    def _repr_html_(self) -> str:
        if not self:
            return f"<p>{self}</p>"
        rows = "".join(
            f"<tr><td>{each.code}</td><td>{html.escape(each.layer)}</td><td>{html.escape(each.why)}</td>"
            f"<td><code>{html.escape(each.mend)}</code></td></tr>"
            for each in self
        )
        head = "<tr><th>code</th><th>layer</th><th>why</th><th>mend it with</th></tr>"
        return f"<table><thead>{head}</thead><tbody>{rows}</tbody></table>"


def check(model: Any, x: Any = None, y: Any = None, *, callbacks: Any = ()) -> Findings:
    """Find what is silently wrong with the regularization of a model.

    Args:
        model: A Keras model that is built; compiled, or what optimizer and loss do is not looked at. It is not touched.
        x: Rows that it is to train on, or None: then what depends on data is not looked at.
        y: Their targets likewise.
        callbacks: What `fit` is to be given: one, or a list.

    Returns:
        The findings, what is wrong before what is doubtful; none where all is well.

    Raises:
        TypeError: If `model` is none of Keras's, or `x` no arrays.
        ValueError: If it has no weights yet, or the data don't fit it.

    Example:
        >>> import keras, regularity as rg
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(1)])
        >>> model.layers[0].kernel_regularizer = keras.regularizers.L2(0.01)  # too late: the kernel is there
        >>> [finding.name for finding in rg.check(model)]
        ['regularizer-after-build']
    """
    from regularity.checks._catalogue import CHECKS

    if not isinstance(model, keras.Model):
        raise TypeError(
            f"Invalid value received for argument `model`. Expected a Keras model. Received: {type(model).__name__}"
        )
    if not model.built:
        raise ValueError(
            "Expected a model that is built, to look at its weights. Give it an `Input`, or call it once on some rows."
        )
    if is_stream(x):
        raise TypeError(
            f"Invalid value received for argument `x`. Expected arrays, to count their rows. Received: {type(x).__name__}. "
            "Give some rows of it, or none."
        )
    if x is not None and y is not None and getattr(model, "optimizer", None) is not None:
        data = to_data(model, x, y)
        x, y = data.x, data.y
    elif x is not None:
        x = to_inputs(model, x)
    seen = Seen(_plain(model), model, x, y, tuple(each for each in keras.tree.flatten(callbacks) if each is not None))
    return Findings(_findings(seen, sorted(CHECKS, key=lambda check: check.level != "wrong")))


def _plain(model: Any) -> Any:
    """What plain Keras has of a model with a recipe, compiled with what checks look at; another model as it is."""
    if not isinstance(model, Regularized):
        return model
    state = random.getstate()  # by which Keras draws the seeds of layers that are made
    try:
        return one_plain(model, compile_like=_keras.compile_step_like)
    except (NotImplementedError, TypeError, ValueError):
        # What can't be copied, such as layers with adapters (LoRA), is looked at as it trains: strengths that are weights
        # are then penalties of a kind that no check knows, at 0 too.
        return model
    finally:
        random.setstate(state)


def _findings(seen: Seen, checks: Iterable[Check]) -> Iterator[Finding]:
    for each in checks:
        for found in each.find(seen):
            yield Finding(each.code, each.name, each.level, *found, f"{_DOCS}{each.name}.md")
