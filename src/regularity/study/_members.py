"""The members of a candidate: one for each cell, all of one program whatever the recipe."""

from collections.abc import Sequence
from typing import Any

from regularity.catalogue import CATALOGUE
from regularity.population._tasks import Task
from regularity.population._train import strengths_for
from regularity.recipe import Recipe, sites_of
from regularity.recipe._recipe import schedules_of
from regularity.study._cells import Cell
from regularity.study._records import Settled
from regularity.study._rule import Trial
from regularity.study._space import brought


class Members:
    """What a search and all that follows it make of recipes.

    Args:
        model: The user's.
        settled: What the search goes by.
    """

    def __init__(self, model: Any, settled: Settled) -> None:
        space = settled.space
        self._model, self._settled, self._sites = model, settled, sites_of(model)
        self._epoch_rows: dict[int, int] = {}  # by how many folds are left out, the same for all that leave out as many
        for cell in (*settled.design.outer, *(cell for ring in settled.design.rings for cell in ring)):
            self._epoch_rows[len(cell.held)] = max(self._epoch_rows.get(len(cell.held), 0), len(cell.rows))
        # what the model brings is off where a point of the space does not have it
        self.off = {key: value for key, value in brought(model).items() if key not in space.fixed}
        self.all_on = space.recipe({d.key: d.strength(0.5) for d in space.dimensions}, self.off)
        self._scheduled = {
            site: "constant"
            for d in space.dimensions
            if d.schedules != ("constant",)
            for site in schedules_of(
                Recipe({d.key: {"strength": d.strength(0.5), "schedule": "linear"}}), self._sites, model
            )
        }

    def tasks(
        self, recipe: Recipe, cells: Sequence[tuple[Cell, int]], epochs: int, keep: bool = False, outputs: bool = False
    ) -> list[Task]:
        """A recipe's members on some cells, each with the number that sets its seed.

        Args:
            recipe: What they train with.
            cells: Rows to train on and folds to score on, with a number.
            epochs: How long.
            keep: Whether to hand back their weights.
            outputs: Whether to hand back what they put out for the folds.
        """
        _, strengths = strengths_for(self._model, self._sites, [self.all_on, recipe])
        design = self._settled.design
        schedules = self._scheduled | schedules_of(recipe, self._sites, self._model)
        return [
            Task(
                strengths, (self._settled.seed * 1_000_003 + number) % 2**31, epochs, recipe.learning_rate, cell.rows,
                tuple(design.folds[fold] for fold in cell.held), schedules, keep, outputs, self.epoch_rows(cell),
            )
            for cell, number in cells
        ]  # fmt: skip

    def epoch_rows(self, cell: Cell) -> int:
        """How many rows an epoch has for the members of a cell."""
        return self._epoch_rows[len(cell.held)]

    def is_point(self, name: str) -> bool:
        """Whether a candidate with a name is one that the space has: it has none of what the model brings, or that stays."""
        return not self._settled.space.fixed and not (name == "as given" and self.off)

    def tell_kind(self, trial: Trial) -> None:
        """Note on a trial what is not kept of it: whether it has neighbours, and whether it depends on how long training is."""
        trial.in_space = not trial.name or self.is_point(trial.name)
        trial.of_length = self.is_of_length(trial.recipe)

    @staticmethod
    def is_of_length(recipe: Recipe) -> bool:
        """Whether cutting its training short makes another thing of it."""
        on = [key for key, strength in recipe.strengths.items() if strength]
        return bool(recipe.schedules) or any(CATALOGUE[key.partition("@")[0]].of_length for key in on)
