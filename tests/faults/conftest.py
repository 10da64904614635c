"""Publishes what came of the cases of bad input when pytest ends."""

from faults.cases import pytest_sessionfinish  # noqa: F401
