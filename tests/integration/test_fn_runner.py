"""Beam's own tests of what a runner must do, on every runner: docs/runners.md is their account."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.runners.portability.fn_api_runner import fn_runner_test

from fabric_beam.runners.direct import DirectRunner
from fabric_beam.runners.prism import PrismRunner
from tests.integration.beam_suites import suite

pytestmark = pytest.mark.timeout(300)


def _spark(is_drain: bool) -> Any:
    from fabric_beam.runners.spark import SparkRunner

    return SparkRunner(drain=is_drain, unbounded=True)


def _flink(is_drain: bool) -> Any:
    from fabric_beam.runners.flink import FlinkRunner

    return FlinkRunner(drain=is_drain, unbounded=True)


_RUNNERS: dict[str, Callable[[bool], Any]] = {
    "DirectRunner": lambda is_drain: DirectRunner(drain=is_drain, unbounded=True),
    "PrismRunner": lambda is_drain: PrismRunner(),
    "SparkRunner": _spark,
    "FlinkRunner": _flink,
}


def _with_runner(runner: Callable[[bool], Any]) -> Any:
    def create_pipeline(self: Any, is_drain: bool = False) -> Any:
        return beam.Pipeline(runner=runner(is_drain))

    return create_pipeline


for _base in (fn_runner_test.FnApiRunnerTest, fn_runner_test.FnApiRunnerMetricsTest):
    for _name, _runner in _RUNNERS.items():
        globals().update(suite(_base, _name, {"create_pipeline": _with_runner(_runner)}))
# Only on runners is it a test of theirs.
del _base
