"""PrismRunner here: Beam's own, with its Go binary found or built instead of downloaded."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import threading
from pathlib import Path
from typing import Any

from apache_beam.options.pipeline_options import DebugOptions, PipelineOptions, PrismRunnerOptions
from apache_beam.pipeline import Pipeline
from apache_beam.portability.api import beam_runner_api_pb2
from apache_beam.runners.portability import prism_runner
from apache_beam.runners.runner import PipelineState
from apache_beam.runners.worker import sdk_worker
from apache_beam.version import __version__ as beam_version
from grpc import RpcError

from fabric_beam.errors import FabricBeamError, UsageError

_MODULE = "github.com/apache/beam/sdks/v2/go/cmd/prism"


class PrismError(FabricBeamError):
    """Prism cannot be built or started (exit code 1)."""


#: The runs whose Prism may still be there, with it.
_runs: list[tuple[Any, Any]] = []
_lock = threading.Lock()

_lookup = sdk_worker.BundleProcessorCache.lookup


def _lookup_also_failed(cache: Any, instruction_id: str) -> Any:
    """The processor of a bundle; None for one that failed, as for one that is done.

    Prism asks how far a bundle is, and takes an error for an answer as the bundle's end, and the bundle as done: a
    failed run is a success, if it asks between the failure and the worker's account of it (apache/beam pull 35337).
    """
    try:
        return _lookup(cache, instruction_id)
    except RuntimeError:
        return None


class PrismRunner(prism_runner.PrismRunner):
    """Run on Prism, a local runner of the whole Beam model, with the workers in this process.

    The binary is `--prism_location` if given; else the one of Beam's version in the user's cache folder, built there
    once if Go is installed.

    Example:
        >>> import apache_beam as beam
        >>> with beam.Pipeline(runner=PrismRunner()) as p:  # doctest: +SKIP
        ...     _ = p | beam.Create([1, 2]) | beam.Map(str)
    """

    def __init__(self) -> None:
        super().__init__()
        self._server: Any = None

    def run_pipeline(self, pipeline: Pipeline, options: PipelineOptions) -> Any:
        """Start a pipeline.

        Raises:
            UsageError: it has windows that merge, or Prism is not there and cannot be built.
        """
        components = pipeline.to_runner_api().components
        for transform in components.transforms.values():
            for output in transform.outputs.values():
                strategy = components.windowing_strategies[components.pcollections[output].windowing_strategy_id]
                if strategy.merge_status == beam_runner_api_pb2.MergeStatus.NEEDS_MERGE:
                    raise UsageError(
                        f"{transform.unique_name}: Prism merges windows wrongly, so PrismRunner refuses windows that "
                        "merge, such as sessions: use DirectRunner, SparkRunner or FlinkRunner."
                    )
        sdk_worker.BundleProcessorCache.lookup = _lookup_also_failed
        # Beam would ask pip what is installed, for a log that nobody here reads: two seconds a run.
        options.view_as(DebugOptions).add_experiment("disable_logging_submission_environment")
        stop_finished()
        try:
            result = super().run_pipeline(pipeline, options)
        except BaseException:
            if self._server is not None:
                self._server.stop()
            raise
        if self._server is not None:
            _runs.append((result, self._server))
        return result

    def create_job_service(self, options: PipelineOptions) -> Any:
        """Start Prism and talk to it; interrupts stay with whom they were: Beam takes them, to stop Prism only."""
        handler = signal.getsignal(signal.SIGINT)
        try:
            return super().create_job_service(options)
        finally:
            with contextlib.suppress(ValueError):
                signal.signal(signal.SIGINT, handler)

    def create_job_service_handle(self, job_service: Any, options: PipelineOptions) -> Any:
        """Talk to Prism without Beam's limit of a minute to an answer: a run's end is one, too."""
        handle = super().create_job_service_handle(job_service, options)
        handle.timeout = None
        return handle

    def default_job_server(self, options: PipelineOptions) -> Any:
        """Start Prism.

        Raises:
            UsageError: there is no binary and no Go to build it with.
            PrismError: it cannot be built.
        """
        prism = options.view_as(PrismRunnerOptions)
        if prism.prism_location is None:
            prism.prism_location = str(binary())
        server = super().default_job_server(options)
        # Newer Beam has one Prism for all runs of a process, older Beam starts one for each, up to the process's end.
        self._server = None if hasattr(prism_runner.PrismRunner, "shared_handle") else server
        return server


def stop_finished() -> None:
    """Stop the Prisms of this process's runs that are over; the next run does so. Their results have no more to say."""
    with _lock:
        for run in list(_runs):
            result, server = run
            try:
                over = PipelineState.is_terminal(result.state)
            except RpcError:
                over = True
            if over:
                server.stop()
                _runs.remove(run)


def binary_path(version: str = beam_version) -> Path:
    """Where the Prism of a Beam version is, once it is built.

    Example:
        >>> binary_path("2.61.0").parent.name
        'prism-2.61.0'
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "fabric-beam" / f"prism-{version}" / "prism"


def binary(version: str = beam_version) -> Path:
    """The Prism of a Beam version, built by `go install` at the first time: that takes minutes.

    Args:
        version: Beam's.

    Returns:
        Where it is.

    Raises:
        UsageError: there is none and no Go to build it with.
        PrismError: it cannot be built.
    """
    built = binary_path(version)
    if built.exists():
        return built
    go = shutil.which("go")
    if go is None:
        raise UsageError(
            f"PrismRunner needs Prism {version}: install Go (https://go.dev/doc/install), with which it is built once, "
            "or give a binary or its URL as --prism_location."
        )
    result = subprocess.run(
        [go, "install", f"{_MODULE}@v{version}"],
        env={**os.environ, "GOBIN": str(built.parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode:
        raise PrismError(f"Prism {version} cannot be built by {go}: {result.stderr.strip()[-500:]}")
    return built
