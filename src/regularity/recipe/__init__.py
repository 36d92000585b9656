"""Recipes: which techniques, where, how strong; and the models they make."""

from regularity.recipe._recipe import Recipe, as_given, sites_of
from regularity.recipe._regularized import Regularized

__all__ = ["Recipe", "Regularized", "as_given", "sites_of"]
