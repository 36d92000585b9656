"""The answer, trained on all rows: with another seed where the first one ruins the network, and never silently."""

import math
import warnings
from collections.abc import Mapping
from typing import Any, Literal

import keras
import numpy as np

from regularity import _keras
from regularity.data import Data
from regularity.population._tasks import Score
from regularity.population._train import train
from regularity.recipe import Recipe
from regularity.study._scores import quiet_scorers

_TRIES = 3
_DEVIATIONS = 3.0
_LITTLE = 0.01  # of the score: less than that is no ruin, however much alike the networks are


def refit(
    model: Any,
    data: Data,
    recipe: Recipe,
    score: Score | Literal["loss"],
    unseen: np.ndarray,
    rows: np.ndarray,
    seed: int,
    fit: Mapping[str, Any],
) -> keras.Model:
    """Train on all rows, as plain Keras; a network that is worse on these than others on unseen ones is drawn anew.

    Args:
        model: To train a copy of.
        data: All rows.
        recipe: With what, epochs included.
        score: The compiled loss without penalties or a function of the outputs; higher is better.
        unseen: What each network of the answer scored on the rows of a fold that it never saw.
        rows: Those that were held out by some fold, on which the network is scored too.
        seed: The first to be tried.
        fit: What else `rg.train` takes; callbacks see each network that is drawn.

    Warns:
        UserWarning: If a seed ruined the network: what it scores, and whether another did not.
    """
    networks: list[keras.Model] = []
    scores: list[float] = []
    floor = _lowest(unseen)
    while not scores or (len(scores) < _TRIES and scores[-1] < floor):
        (member,) = train(model, data.x, data.y, [recipe], seeds=[(seed + len(scores)) % 2**31], **fit)
        networks.append(member.model)
        scores.append(_score(member.model, data.take(rows), rows, score) if math.isfinite(floor) else 0.0)
    best = int(np.argmax(scores))
    if len(scores) > 1:
        found = (
            f"With another seed it has {scores[best]:.3g}, and that is what you get."
            if scores[best] >= floor
            else f"The best of {_TRIES} seeds, {scores[best]:.3g}, is what you get: look at what it predicts before you use it. "
            "A lower learning rate may help."
        )
        warnings.warn(
            f"The network that was trained on all rows scores {scores[0]:.3g} on them, worse than those of the folds on rows "
            f"that they never saw ({np.nanmedian(unseen):.3g}): its seed ruined it. {found}",
            stacklevel=4,  # behind the property that is read
        )
    return networks[best]


def _score(model: keras.Model, data: Data, rows: np.ndarray, score: Score | Literal["loss"]) -> float:
    """Of a network on these rows; one that puts out what can't be scored is worse than any other."""
    if score == "loss" and keras.backend.backend() != "jax":
        return math.inf  # what a row loses by itself is computed on JAX alone: nothing is known against it
    outputs = model.predict(data.x, verbose=0)
    if score == "loss":
        found = -float(np.mean(_keras.row_losses(model, data.y, outputs)))
    else:
        with quiet_scorers():
            found = float(score(np.asarray(outputs)[None], rows[None], np.ones((1, len(rows)), bool))[0])
    return found if math.isfinite(found) else -math.inf


def _lowest(unseen: np.ndarray) -> float:
    """What a network must score on its own rows not to be called ruined; none is where too few tell.

    Three standard deviations of single networks below their mean; the lowest fifth, which may be ruined ones themselves,
    is left out of both.
    """
    known = np.sort(unseen[np.isfinite(unseen)])
    if len(known) < 2:
        return -math.inf
    usual = known[len(known) // 5 :]
    return float(usual.mean() - max(_DEVIATIONS * usual.std(ddof=1), _LITTLE * abs(usual.mean())))
