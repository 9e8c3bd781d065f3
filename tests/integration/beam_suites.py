"""Beam's own tests as suites of ours: one for each runner, with what it does not support marked."""

from __future__ import annotations

import importlib.util
from types import FunctionType
from typing import Any

import pytest

from fabric_beam.runners.capabilities import CLEAR, NOT_SUPPORTED
from fabric_beam.runners.prism import binary_path

MARKS: dict[str, list[pytest.MarkDecorator]] = {
    "DirectRunner": [],
    "PrismRunner": [pytest.mark.skipif(not binary_path().exists(), reason="Prism is not built: that takes Go")],
    "SparkRunner": [
        pytest.mark.usefixtures("spark"),
        pytest.mark.skipif(importlib.util.find_spec("pyspark") is None, reason="PySpark is not installed"),
    ],
    "FlinkRunner": [pytest.mark.skipif(importlib.util.find_spec("pyflink") is None, reason="PyFlink needs Beam 2.61")],
}


def suite(base: type, runner: str, members: dict[str, Any]) -> dict[str, type]:
    """A class of Beam's tests on a runner, by the name that it is to have.

    What is not supported is expected to fail, strictly: a test that passes again has to be taken out of that list. Only
    what fails by chance is not run: threads that fail at the same time can break pytest's report of it on Python 3.11.

    Args:
        base: Beam's class.
        runner: the runner's name.
        members: what is other than in Beam's class.
    """
    for test, reason in NOT_SUPPORTED[runner].items():
        if (original := members.get(test, getattr(base, test, None))) is not None:
            # A copy: the mark must not reach the other runners' tests.
            copy = FunctionType(
                original.__code__, original.__globals__, test, original.__defaults__, original.__closure__
            )
            # What Prism does not do, it now and then does.
            expected = pytest.mark.xfail(reason=reason, strict=runner != "PrismRunner", run=reason != CLEAR)
            members[test] = expected(copy)
    made: Any = type(f"Test{base.__name__.removesuffix('Test')}On{runner}", (base,), members)
    for mark in MARKS[runner]:
        made = mark(made)
    return {made.__name__: made}
