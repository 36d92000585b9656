"""Populations: members of one structure, trained together."""

from regularity.population._train import Member, train

__all__ = ["Member", "train"]
