"""Pipelines on Prism."""

from __future__ import annotations

import time

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import PipelineOptions

from fabric_beam.runners.prism import PrismRunner, binary_path

pytestmark = [
    pytest.mark.skipif(not binary_path().exists(), reason="Prism is not built: that takes Go"),
    pytest.mark.timeout(300),
]


class _SlowToTell(Exception):
    """An error whose message takes so long that Prism asks meanwhile how far the bundle is."""

    def __str__(self) -> str:
        time.sleep(1)
        return "cannot read"


def _fail(_: int) -> None:
    raise _SlowToTell


def test_a_failed_pipeline_is_never_a_success() -> None:
    """An error of a DoFn fails the run, also if Prism asks after the bundle before it is told of it."""
    with pytest.raises(RuntimeError, match="cannot read"), beam.Pipeline(PrismRunner()) as p:
        _ = p | beam.Create([1]) | beam.Map(_fail)


def test_a_run_may_take_longer_than_an_answer() -> None:
    """Beam's limit for what Prism answers is none for the run."""
    with beam.Pipeline(PrismRunner(), options=PipelineOptions(["--job_server_timeout=2"])) as p:
        _ = p | beam.Create([5]) | beam.Map(time.sleep)
