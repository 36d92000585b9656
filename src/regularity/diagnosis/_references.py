"""What a network is to be compared with: a random forest on the same folds, and what can be learnt by heart."""

from typing import Any

import numpy as np

from regularity.diagnosis._asked import Asked
from regularity.diagnosis._runs import Runs
from regularity.diagnosis._statistics import Interval, exact, mean_interval, pseudo_values

_TREES = 100
_FOREST = 1e8  # numbers that the forests of all folds may sort: a few seconds
_KEPT = 1.25e8  # numbers that the trees of a forest may keep: a gigabyte
_FRACTION = 0.01  # or as many for each weight, row and epoch of the training: about half of its time
_FEWEST = 200  # rows below which no forest is grown in place of one on more


def references(asked: Asked, runs: Runs, parameters: float) -> dict[str, Interval]:
    """Scores of the references beside the network's, with intervals as other scores have them.

    Args:
        asked: What is to be diagnosed.
        runs: Its members.
        parameters: How many numbers the network trains: the longer that takes, the longer a forest may.
    """
    if asked.said is None:
        return {}
    copied = np.arange(asked.rows, asked.data.rows)
    constant = np.tile(asked.constant(copied), (len(copied), 1))
    found = {
        "random_labels": exact(runs.random_score),
        "random_labels_by_chance": exact(asked.scored(constant, copied)),
    }
    forest = _forest_scores(asked, parameters)
    if forest is not None:
        found["forest"] = mean_interval(forest - runs.held_out_score, asked.share)
        found["forest_over_training"] = mean_interval(forest - runs.training_score, asked.share)
    return {name: values for name, values in found.items() if np.isfinite(values[0])}


def _forest_scores(asked: Asked, parameters: float) -> np.ndarray | None:
    """Of (folds, 1), or (1, parts of the held-out rows); None where no forest is grown."""
    assert asked.said is not None
    if not isinstance(asked.data.x, np.ndarray):
        return None
    every = min(len(train) for train, _ in asked.splits)
    most = max(_FOREST, _FRACTION * parameters * every * asked.epochs * len(asked.cells)) / len(asked.splits)
    rows = _affordable(asked, every, most)
    if rows is None:
        return None
    scores, without = [], []
    for train, held in asked.splits:
        shown = np.zeros((asked.data.rows, asked.said.shape[1]))
        shown[held] = _forest(
            asked, np.random.default_rng(asked.seed).permutation(train)[:rows] if rows else train, held
        )
        scores.append(asked.scored(shown[held], held))
        without.append([asked.scored(shown[part], part) for part in asked.parts])
    return pseudo_values(np.array(scores), np.array(without))


def _affordable(asked: Asked, rows: int, numbers: float) -> int | None:
    """On how many rows to grow a forest that sorts and keeps no more than so many numbers: 0 for all, None for no forest.

    Each node keeps a number for each class, and there are about as many nodes as rows.
    """
    assert asked.said is not None
    features = np.prod(asked.data.x.shape[1:])
    tried = np.sqrt(features) if asked.classes is not None else features / 3 * asked.said.shape[1]
    most = numbers / (_TREES * max(1.0, tried) * np.log2(max(rows, 2)))
    most = min(most, _KEPT / (_TREES * asked.said.shape[1]))
    if most >= rows:
        return 0
    return int(most) if most >= _FEWEST else None


def _forest(asked: Asked, rows: np.ndarray, held: np.ndarray) -> np.ndarray:
    """What a random forest predicts of held-out rows: probabilities of classes, or numbers."""
    from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor

    assert asked.said is not None
    x, said, weights = asked.data.x.reshape(asked.data.rows, -1), asked.said, asked.data.sample_weight
    own = weights[rows] if isinstance(weights, np.ndarray) and weights.ndim == 1 else None
    how: dict[str, Any] = {"n_estimators": _TREES, "random_state": asked.seed, "n_jobs": -1}
    if asked.classes is not None:
        forest = RandomForestClassifier(**how, max_features="sqrt").fit(x[rows], asked.classes[rows], own)
        shown = np.zeros((len(held), said.shape[1]))
        shown[:, forest.classes_] = forest.predict_proba(x[held])
        return shown
    numbers = RandomForestRegressor(**how, max_features=1 / 3)  # Breiman 2001: a third of the inputs at each split
    numbers.fit(x[rows], said[rows] if said.shape[1] > 1 else said[rows, 0], own)
    return numbers.predict(x[held]).reshape(len(held), -1)
