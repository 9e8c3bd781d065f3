"""The tests of Beam's transforms that it marks for validating runners, on every runner: see docs/runners.md."""

from __future__ import annotations

import unittest
from collections.abc import Iterator
from importlib import import_module
from typing import Any

import pytest
from apache_beam.testing.test_pipeline import TestPipeline

from tests.integration.beam_suites import MARKS, suite

pytestmark = pytest.mark.timeout(300)
_MODULES = (
    "apache_beam.metrics.metric_test",
    "apache_beam.ml.inference.base_test",
    "apache_beam.pipeline_test",
    "apache_beam.runners.portability.fn_api_runner.translations_test",
    "apache_beam.transforms.combinefn_lifecycle_test",
    "apache_beam.transforms.combiners_test",
    "apache_beam.transforms.deduplicate_test",
    "apache_beam.transforms.dofn_lifecycle_test",
    "apache_beam.transforms.ptransform_test",
    "apache_beam.transforms.sideinputs_test",
    "apache_beam.transforms.util_test",
)
_HOMES = {
    "DirectRunner": "fabric_beam.runners.direct",
    "PrismRunner": "fabric_beam.runners.prism",
    "SparkRunner": "fabric_beam.runners.spark",
    "FlinkRunner": "fabric_beam.runners.flink",
}


def _marked() -> Iterator[tuple[type, dict[str, Any]]]:
    """Beam's classes that have such tests, and their other tests, hidden."""
    for module in map(import_module, _MODULES):
        for base in vars(module).values():
            if isinstance(base, type) and issubclass(base, unittest.TestCase) and base.__module__ == module.__name__:
                tests = {name: getattr(base, name) for name in dir(base) if name.startswith("test")}
                others = [name for name, test in tests.items() if not _is_marked(base) and not _is_marked(test)]
                if len(others) < len(tests):
                    yield base, dict.fromkeys(others)


def _is_marked(test: Any) -> bool:
    return any(mark.name == "it_validatesrunner" for mark in getattr(test, "pytestmark", ()))


def _on(runner: str) -> Any:
    @pytest.fixture(autouse=True)
    def _default_runner(self: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(TestPipeline, "pytest_test_pipeline_options", f"--runner={_HOMES[runner]}.{runner}")

    return _default_runner


for _base, _hidden in _marked():
    for _runner in MARKS:
        globals().update(suite(_base, _runner, {**_hidden, "_default_runner": _on(_runner)}))
del _base
