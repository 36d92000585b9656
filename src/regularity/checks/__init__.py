"""What is silently wrong with the regularization of a model: declared once each, found by `check`."""

from regularity.checks._catalogue import CHECKS
from regularity.checks._check import Check, Finding, Findings, check

__all__ = ["CHECKS", "Check", "Finding", "Findings", "check"]
