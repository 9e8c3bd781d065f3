"""DirectRunner here: Beam's FnApiRunner in one process, with one in-memory worker thread a core."""

from __future__ import annotations

import gc
import os
from typing import Any

from apache_beam.options.pipeline_options import DirectOptions
from apache_beam.portability.api import beam_fn_api_pb2
from apache_beam.runners.portability.fn_api_runner.fn_runner import BundleManager, FnApiRunner, ParallelBundleManager
from apache_beam.utils import thread_pool_executor

from fabric_beam.runners import metrics
from fabric_beam.runners.plan import refuse_streams


class DirectRunner(FnApiRunner):
    """Run on this machine's cores without servers, subprocesses or gRPC.

    Batches spend their time in Polars and Arrow, which release Python's lock, so threads of one process use every core
    and elements never leave it. `--direct_num_workers` above 1 or `--direct_running_mode` take over when given.

    Args:
        workers: worker threads; 0 is one a core.
        drain: truncate unbounded splittable DoFns, as when a job is drained.
        unbounded: take unbounded sources too, each of which must have an end.

    Example:
        >>> import apache_beam as beam
        >>> with beam.Pipeline(runner=DirectRunner()) as p:
        ...     _ = p | beam.Create([1, 2]) | beam.Map(str)
    """

    def __init__(self, workers: int = 0, *, drain: bool = False, unbounded: bool = False) -> None:
        super().__init__(is_drain=drain)
        self._unbounded = unbounded
        self._workers = workers or len(os.sched_getaffinity(0))

    def run_via_runner_api(self, pipeline_proto: Any, options: Any) -> Any:
        """Run a pipeline.

        Raises:
            UsageError: it is unbounded.
        """
        refuse_streams(pipeline_proto, "DirectRunner", unbounded=self._unbounded)
        direct = options.view_as(DirectOptions)
        if direct.direct_running_mode == "in_memory" and direct.direct_num_workers <= 1:
            self._num_workers = self._workers
        # What was imported and built lives on: the garbage collector need not look through it again and again.
        gc.freeze()
        try:
            return super().run_via_runner_api(pipeline_proto, options)
        finally:
            gc.unfreeze()

    def _get_bundle_manager(self, bundle_context_manager: Any) -> Any:
        manager = super()._get_bundle_manager(bundle_context_manager)
        if isinstance(manager, ParallelBundleManager):
            manager = _ParallelBundleManager(
                bundle_context_manager,
                self._progress_frequency,
                cache_token_generator=FnApiRunner.get_cache_token_generator(static=False),
            )
        return manager


class _ParallelBundleManager(ParallelBundleManager):
    """Runs a bundle in as many parts as there are workers, and keeps what is left over of every part.

    Beam's own forgets the residuals of splittable DoFns that stop in the middle of their work (their output is lost),
    and all metrics but sums and distributions.
    """

    def process_bundle(
        self,
        inputs: Any,
        expected_outputs: Any,
        fired_timers: Any,
        expected_output_timers: Any,
        dry_run: bool = False,
    ) -> Any:
        parts = {name: buffer.partition(self._num_workers) for name, buffer in inputs.items()}

        def execute(worker: int) -> Any:
            manager = BundleManager(
                self.bundle_context_manager,
                self._progress_frequency,
                cache_token_generator=self._cache_token_generator,
            )
            return manager.process_bundle(
                {name: part[worker] for name, part in parts.items()},
                expected_outputs,
                fired_timers if worker == 0 else {},
                expected_output_timers,
                dry_run,
            )

        with thread_pool_executor.shared_unbounded_instance() as executor:
            responses, splits = zip(*executor.map(execute, range(self._num_workers)), strict=True)
        bundles = [response.process_bundle for response in responses]
        merged = beam_fn_api_pb2.ProcessBundleResponse(
            monitoring_infos=metrics.merge(info for bundle in bundles for info in bundle.monitoring_infos),
            residual_roots=[root for bundle in bundles for root in bundle.residual_roots],
        )
        error = next((response.error for response in responses if response.error), "")
        response = beam_fn_api_pb2.InstructionResponse(process_bundle=merged, error=error)
        return response, [split for part in splits for split in part]
