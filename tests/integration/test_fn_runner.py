"""Beam's own tests of what a runner must do, on every runner: docs/runners.md is their account."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from types import FunctionType
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.runners.portability.fn_api_runner import fn_runner_test

from fabric_beam.runners.capabilities import NOT_SUPPORTED
from fabric_beam.runners.direct import DirectRunner
from fabric_beam.runners.prism import PrismRunner, binary_path

pytestmark = pytest.mark.timeout(300)


def _spark(is_drain: bool) -> Any:
    from fabric_beam.runners.spark import SparkRunner

    return SparkRunner(drain=is_drain, unbounded=True)


def _flink(is_drain: bool) -> Any:
    from fabric_beam.runners.flink import FlinkRunner

    return FlinkRunner(drain=is_drain, unbounded=True)


def _suites(name: str, runner: Callable[[bool], Any], *marks: pytest.MarkDecorator) -> dict[str, type]:
    """Beam's suites with their pipelines on a runner.

    What is not supported is expected to fail, strictly: a test that passes again has to be taken out of that list.
    """
    suites = {}
    for base in (fn_runner_test.FnApiRunnerTest, fn_runner_test.FnApiRunnerMetricsTest):

        def create_pipeline(self: Any, is_drain: bool = False) -> Any:
            return beam.Pipeline(runner=runner(is_drain))

        members: dict[str, Any] = {"create_pipeline": create_pipeline}
        for test, reason in NOT_SUPPORTED[name].items():
            if original := getattr(base, test, None):
                # A copy: the mark must not reach the other runners' tests.
                copy = FunctionType(
                    original.__code__, original.__globals__, test, original.__defaults__, original.__closure__
                )
                # What Prism does not do, it now and then does.
                members[test] = pytest.mark.xfail(reason=reason, strict=name != "PrismRunner")(copy)
        suite: Any = type(f"Test{base.__name__.removeprefix('FnApiRunner')}On{name}", (base,), members)
        for mark in marks:
            suite = mark(suite)
        suites[suite.__name__] = suite
    return suites


globals().update(
    _suites("DirectRunner", lambda is_drain: DirectRunner(drain=is_drain))
    | _suites(
        "PrismRunner",
        lambda is_drain: PrismRunner(),
        pytest.mark.skipif(not binary_path().exists(), reason="Prism is not built: that takes Go"),
    )
    | _suites(
        "SparkRunner",
        _spark,
        pytest.mark.usefixtures("spark"),
        pytest.mark.skipif(importlib.util.find_spec("pyspark") is None, reason="PySpark is not installed"),
    )
    | _suites(
        "FlinkRunner",
        _flink,
        pytest.mark.skipif(importlib.util.find_spec("pyflink") is None, reason="PyFlink needs Beam 2.61"),
    )
)
