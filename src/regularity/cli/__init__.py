"""The command line."""

from regularity.cli._commands import app, main

__all__ = ["app", "main"]
