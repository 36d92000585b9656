"""Studies: candidates judged on held-out rows, and what to choose among them."""

from regularity.study._path import Path, Point, path
from regularity.study._search import search
from regularity.study._space import Space
from regularity.study._study import Score, Study

__all__ = ["Path", "Point", "Score", "Space", "Study", "path", "search"]
