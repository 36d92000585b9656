"""Which rows members train on: what is chosen for a fold has never seen it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import GroupKFold, KFold, RepeatedKFold, ShuffleSplit, TimeSeriesSplit

from regularity.study._cells import design_of

ROWS = 60


def splits_of(splitter, groups=None):
    return list(splitter.split(np.zeros(ROWS), groups=groups))


@pytest.mark.parametrize("count", [4, 5, 6, 7])
def test_rings_are_all_pairs_once_and_each_leaves_out_both_its_folds(count):
    design = design_of(splits_of(KFold(count, shuffle=True, random_state=0)), 0)
    pairs = [cell.held for ring in design.rings for cell in ring]
    assert sorted(pairs) == [(i, j) for i in range(count) for j in range(i + 1, count)]
    for ring in design.rings:
        for cell in ring:
            held = np.concatenate([design.folds[k] for k in cell.held])
            assert sorted([*cell.rows, *held]) == list(range(ROWS))
    assert sorted(k for cell in design.rings[0] for k in cell.held) == sorted([*range(count)] * 2)


@given(st.integers(4, 8), st.integers(1, 6), st.integers(0, 2**16), st.sampled_from([None, 1, 3]))
@settings(max_examples=40, deadline=None)
def test_what_is_chosen_for_a_fold_never_saw_it(count, rings, seed, seeds):
    design = design_of(splits_of(KFold(count, shuffle=True, random_state=seed)), seed, seeds=seeds)
    assert design.nested
    for fold, rows in enumerate(design.folds):
        views = design.views(rings, fold)
        assert views
        cells = [cell for ring in range(rings) for cell in design.ring(ring)]
        for cell, which, scored in views:
            assert not np.intersect1d(cells[cell].rows, rows).size
            assert cells[cell].held[which] == scored != fold
            assert not np.intersect1d(design.folds[scored], rows).size


def test_a_fold_is_a_larger_share_of_what_candidates_train_on_than_of_what_is_judged():
    design = design_of(splits_of(KFold(5)), 0)
    assert design.share == pytest.approx(1 / 4)
    assert design.candidates_share == pytest.approx(1 / 3)


def test_rings_come_again_with_other_seeds():
    design = design_of(splits_of(KFold(5)), 0)
    assert [cell.seed for ring in range(6) for cell in design.ring(ring)] == [0] * 10 + [1] * 10 + [2] * 10
    assert all((a.rows == b.rows).all() for a, b in zip(design.ring(0), design.ring(2), strict=True))


@pytest.mark.parametrize("splits", [splits_of(KFold(5)), splits_of(KFold(3)), splits_of(KFold(2))[:1]])
def test_seeds_repeat_the_training_sets_of_a_ring(splits):
    seeds = 2 if len(splits) == 1 else 1
    once, twice = design_of(splits, 0, seeds=seeds), design_of(splits, 0, seeds=2 * seeds)
    assert (once.seeds, twice.seeds) == (seeds, 2 * seeds)
    rings = range(2 * len(once.rings))
    for ring in rings:
        first, second = np.split(np.array(twice.ring(ring), object), 2)
        for cells in (first, second):
            assert all((a[0] == b.rows).all() and a[1] == b.held for a, b in zip(cells, once.ring(ring), strict=True))
    cells = [(cell.held, tuple(cell.rows), cell.seed) for ring in rings for cell in twice.ring(ring)]
    assert len(set(cells)) == len(cells)


def test_one_seed_on_one_training_set_says_nothing_of_its_luck():
    with pytest.raises(ValueError, match=r"at least two with `validation_data`.*Received: seeds=1"):
        design_of(splits_of(KFold(2))[:1], 0, seeds=1)


def test_groups_stay_together():
    groups = np.arange(ROWS) // 3
    for cell in design_of(splits_of(GroupKFold(5), groups), 0).rings[1]:
        assert not np.intersect1d(groups[cell.rows], groups[np.setdiff1d(np.arange(ROWS), cell.rows)]).size


@pytest.mark.parametrize("splitter", [KFold(3), ShuffleSplit(5, random_state=0), TimeSeriesSplit(5)])
def test_splits_that_do_not_part_the_rows_are_taken_as_they_are(splitter):
    splits = splits_of(splitter)
    design = design_of(splits, 0)
    assert not design.nested
    assert design.candidates_share == design.share
    assert [cell.held for cell in design.rings[0]] == [(k,) for k in range(len(splits))]
    assert all((cell.rows == rows).all() for cell, (rows, _) in zip(design.rings[0], splits, strict=True))
    for fold in range(len(splits)):
        assert all(scored != fold for _, _, scored in design.views(2, fold))


def test_validation_rows_are_parted_and_members_differ_in_their_seeds():
    rows, held = np.arange(40), np.arange(40, 60)
    design = design_of([(rows, held)], 0)
    assert design.nested
    assert sorted(np.concatenate(design.folds)) == list(held)
    assert [cell.seed for cell in [*design.ring(0), *design.ring(1)]] == list(range(6))
    assert design.share == design.candidates_share == 0
    assert {scored for _, _, scored in design.views(1, 2)} == {0, 1, 3, 4}


def test_rows_that_one_of_two_splits_leaves_out_are_in_no_cell_of_both():
    """Copies of each row, which a split leaves out where the row is held out."""
    splits = [(np.concatenate([rows, rows + ROWS]), held) for rows, held in splits_of(KFold(5))]
    design = design_of(splits, 0)
    assert design.nested
    for cell in (cell for ring in design.rings for cell in ring):
        for fold in cell.held:
            assert not np.isin(design.folds[fold] + ROWS, cell.rows).any()


def test_rows_that_a_split_repeats_are_repeated_in_its_cells():
    splits = [(np.concatenate([rows, rows[-7:]]), held) for rows, held in splits_of(KFold(5))]
    cell = design_of(splits, 0).rings[0][0]
    _, counts = np.unique(cell.rows, return_counts=True)
    assert counts.max() == 2


def test_what_is_chosen_for_a_fold_of_repeated_ones_looks_at_none_of_its_rows():
    design = design_of(splits_of(RepeatedKFold(n_splits=5, n_repeats=2, random_state=0)), 0)
    assert "did not look at" in design.unseen
    for fold, rows in enumerate(design.folds):
        views = design.views(1, fold)
        assert len(views) >= 4
        assert not any(np.isin(design.folds[scored], rows).any() for *_, scored in views)


def test_folds_that_all_share_rows_are_said_to():
    design = design_of(splits_of(ShuffleSplit(5, test_size=0.6, random_state=0)), 0)
    assert "share rows" in design.unseen
    assert len(design.views(1, 0)) == 4
