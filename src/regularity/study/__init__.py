"""Studies: candidates judged on held-out rows, and what to choose among them."""

from regularity.study._path import Path, Point, path

__all__ = ["Path", "Point", "path"]
