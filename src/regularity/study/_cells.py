"""Which rows the members of a candidate train on and are scored on, so that a choice can be judged on rows it never saw.

A *cell* is one training set with the folds it leaves out. With K folds a cell leaves out two of them: the model is
scored on each. What is chosen for fold k by cells that leave out k, from scores on their *other* fold, has never seen
fold k, neither in training nor in choosing: nested folds, at hardly more than the price of plain ones. The pairs come
in rings, {i, i+1} first, then {i, i+2}: each ring scores every fold twice, with each seed.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from scipy.sparse import csr_array
from sklearn.model_selection import KFold, StratifiedKFold

_FEWEST = 4  # folds from which leaving out two leaves enough rows to train on
_PARTS = 5  # of the rows of `validation_data`, when these take the place of folds
_VALIDATION_SEEDS = 3  # members of a candidate that are scored on `validation_data`


class Cell(NamedTuple):
    """One training set.

    Args:
        rows: To train on.
        held: Folds to score on, by number.
        seed: Which repeat of the training set it is, from 0.
    """

    rows: np.ndarray
    held: tuple[int, ...]
    seed: int = 0


@dataclass(frozen=True)
class Design:
    """All training sets of a study.

    Args:
        folds: Held-out rows of each fold.
        rings: Cells that a candidate gets together; after the last ring they come again with other seeds.
        outer: Cells that are judged, on folds that what is judged there was not chosen by.
        share: Held-out rows over training rows of those; 0 where they all train on the same rows.
        candidates_share: The same of the rings, whose cells may train on less.
        nested: Whether what is chosen for a fold has not seen it, neither in training nor in choosing.
    """

    folds: list[np.ndarray]
    rings: list[list[Cell]]
    outer: list[Cell]
    share: float
    candidates_share: float
    nested: bool

    def ring(self, number: int) -> list[Cell]:
        """The cells of a ring, counted on past the last one."""
        again, which = divmod(number, len(self.rings))
        return [cell._replace(seed=cell.seed + again * self.seeds) for cell in self.rings[which]]

    @property
    def seeds(self) -> int:
        """How many members of a candidate a ring has on the same rows."""
        return 1 + max(cell.seed for ring in self.rings for cell in ring)

    def views(self, rings: int, without: int | None) -> list[tuple[int, int, int]]:
        """What may be looked at to choose for a fold, as (cell, set, fold), cells counted through the rings.

        Args:
            rings: How many a candidate has.
            without: The fold that is to be judged on, or None to look at everything.
        """
        cells = [cell for number in range(rings) for cell in self.ring(number)]
        found = [(c, s, fold) for c, cell in enumerate(cells) for s, fold in enumerate(cell.held)]
        if without is None:
            return found
        if self.nested and len(cells[0].held) == 2:
            return [(c, s, fold) for c, s, fold in found if without in cells[c].held and fold != without]
        may_see = ~self._share_rows[without] if self._has_folds_apart else np.arange(len(self.folds)) != without
        return [(c, s, fold) for c, s, fold in found if may_see[fold]]

    @property
    def unseen(self) -> str:
        """What the folds that are judged on have to do with what is chosen for them, in words."""
        if self.nested:
            return "that neither training nor choosing saw"
        if self._has_folds_apart:
            return "that the choice did not look at, though candidates trained on them"
        return "that share rows with those that the choice looked at"

    @cached_property
    def _share_rows(self) -> np.ndarray:
        """Which folds hold out some row in common, of (folds, folds): repeats of folds do."""
        rows = np.concatenate(self.folds)
        which = np.repeat(np.arange(len(self.folds)), [len(fold) for fold in self.folds])
        held = csr_array((np.ones(len(rows)), (which, rows)))
        return (held @ held.T).toarray() > 0

    @property
    def _has_folds_apart(self) -> bool:
        """Whether beside each fold there is another that shares no row with it."""
        return bool((~self._share_rows).any(1).all())


def design_of(
    splits: list[tuple[np.ndarray, np.ndarray]], seed: int, classes: np.ndarray | None = None, seeds: int | None = None
) -> Design:
    """The cells of some splits: pairs of folds where these leave enough rows, else the splits themselves.

    A single split is that of `validation_data`: its held-out rows are parted, and members differ in their seeds.

    Args:
        splits: Rows to train on and held out.
        seed: Sets how held-out rows are parted.
        classes: The class of each row, where there are classes: parts then have as much of each.
        seeds: Members of a candidate on each training set; None for one, or three where there is but one training set.

    Raises:
        ValueError: If a single split holds out less than 2 rows, or is to have a single seed.
    """
    if len(splits) == 1:
        rows, held = splits[0]
        if len(held) < 2:
            raise ValueError(
                "Expected at least 2 rows of `validation_data`: what is chosen by some of them is judged on the others. "
                f"Received: {len(held)}"
            )
        if seeds == 1:
            raise ValueError(
                "Invalid value received for argument `seeds`. Expected at least two with `validation_data`, to know how lucky a "
                "seed is. Received: seeds=1"
            )
        parts = _parted(held, seed, None if classes is None else classes[held])
        every = tuple(range(len(parts)))
        ring = [Cell(rows, every, n) for n in range(seeds or _VALIDATION_SEEDS)]
        return Design(parts, [ring], [Cell(rows, every)], 0.0, 0.0, True)
    folds = [held for _, held in splits]
    outer = [Cell(rows, (k,)) for k, (rows, _) in enumerate(splits)]
    share = float(np.mean([len(held) / len(rows) for rows, held in splits]))
    count = len(splits)
    if count >= _FEWEST and _are_parts(splits):
        rings = []
        for step in range(1, count // 2 + 1):
            pairs = dict.fromkeys(tuple(sorted((i, (i + step) % count))) for i in range(count))
            rings.append([Cell(_of_both(splits[i][0], splits[j][0]), (i, j)) for i, j in pairs])
        own = float(np.mean([len(folds[k]) / len(cell.rows) for cell in rings[0] for k in cell.held]))
        return Design(folds, [_repeated(ring, seeds or 1) for ring in rings], outer, share, own, True)
    return Design(folds, [_repeated(outer, seeds or 1)], outer, share, share, False)


def _repeated(cells: list[Cell], seeds: int) -> list[Cell]:
    return [cell._replace(seed=n) for n in range(seeds) for cell in cells]


def _of_both(rows: np.ndarray, others: np.ndarray) -> np.ndarray:
    """The rows that two splits both train on, as often as the first does: what one of them leaves out stays out."""
    return np.sort(rows[np.isin(rows, others)])


def _parted(held: np.ndarray, seed: int, classes: np.ndarray | None) -> list[np.ndarray]:
    """Parts of held-out rows: as many as leave two rows to each, and a row of each class where it has two."""
    rarest = 0 if classes is None else int(np.unique(classes, return_counts=True)[1].min())
    count = min(_PARTS, len(held) // 2) if rarest < 2 else min(_PARTS, rarest)
    if count < 2:  # a score may still have something to say of a single row
        return [np.sort(part) for part in np.array_split(held, 2)]
    splitter = (StratifiedKFold if rarest >= 2 else KFold)(count, shuffle=True, random_state=seed)
    return [np.sort(held[part]) for _, part in splitter.split(held, classes)]


def _are_parts(splits: list[tuple[np.ndarray, np.ndarray]]) -> bool:
    """Whether each split trains on all that the others hold out: then a pair of folds can be left out of both."""
    everything = np.unique(np.concatenate([held for _, held in splits]))
    disjoint = len(everything) == sum(len(held) for _, held in splits)
    return disjoint and all(np.isin(np.setdiff1d(everything, held), rows).all() for rows, held in splits)
