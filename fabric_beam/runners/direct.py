"""DirectRunner here: Beam's FnApiRunner in one process, with one in-memory worker thread a core."""

from __future__ import annotations

import gc
import os
from typing import Any

from apache_beam.options.pipeline_options import DirectOptions
from apache_beam.runners.portability.fn_api_runner.fn_runner import FnApiRunner


class DirectRunner(FnApiRunner):
    """Run on this machine's cores without servers, subprocesses or gRPC.

    Batches spend their time in Polars and Arrow, which release Python's lock, so threads of one process use every core
    and elements never leave it. `--direct_num_workers` above 1 or `--direct_running_mode` take over when given.

    Args:
        workers: worker threads; 0 is one a core.

    Example:
        >>> import apache_beam as beam
        >>> with beam.Pipeline(runner=DirectRunner()) as p:
        ...     _ = p | beam.Create([1, 2]) | beam.Map(str)
    """

    def __init__(self, workers: int = 0) -> None:
        super().__init__()
        self._workers = workers or len(os.sched_getaffinity(0))

    def run_via_runner_api(self, pipeline_proto: Any, options: Any) -> Any:
        direct = options.view_as(DirectOptions)
        if direct.direct_running_mode == "in_memory" and direct.direct_num_workers <= 1:
            self._num_workers = self._workers
        # What was imported and built lives on: the garbage collector need not look through it again and again.
        gc.freeze()
        try:
            return super().run_via_runner_api(pipeline_proto, options)
        finally:
            gc.unfreeze()
