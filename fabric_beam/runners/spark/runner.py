"""SparkRunner: a Beam runner on PySpark."""

from __future__ import annotations

import contextlib
import logging
import threading
from argparse import ArgumentParser
from typing import Any

from apache_beam.options.pipeline_options import PipelineOptions, SetupOptions
from apache_beam.options.value_provider import RuntimeValueProvider
from apache_beam.pipeline import Pipeline
from apache_beam.runners.portability.fn_api_runner.fn_runner import RunnerResult
from apache_beam.runners.runner import PipelineRunner, PipelineState

from fabric_beam.errors import UsageError
from fabric_beam.runners.failures import ours
from fabric_beam.runners.plan import Plan, plan
from fabric_beam.runners.spark import processes

_ENGINE = "SparkRunner"


class SparkOptions(PipelineOptions):
    """Options of SparkRunner."""

    @classmethod
    def _add_argparse_args(cls, parser: ArgumentParser) -> None:
        parser.add_argument("--spark_master", default="local[*]", help="local[*], local[N], spark://host:port, yarn, …")
        parser.add_argument("--spark_parallelism", type=int, default=0, help="partitions of a shuffle (all cores)")
        parser.add_argument(
            "--spark_conf", action="append", default=[], metavar="KEY=VALUE", help="Spark's own settings"
        )
        parser.add_argument(
            "--spark_executor_timeout", type=float, default=20.0, help="seconds to wait for a cluster's first executor"
        )
        parser.add_argument(
            "--spark_group_memory", type=int, default=256, help="MiB that a task groups in before it spills to disk"
        )
        parser.add_argument("--spark_log_level", default="OFF", help="of Spark's own log: WARN, INFO, …")


class SparkRunner(PipelineRunner):
    """Run bounded pipelines on Spark, on this machine or on a cluster.

    Options are those of `SparkOptions`. A SparkContext that is active is used and left as it is; else one is made, and
    stopped when the run is over.

    Args:
        drain: truncate unbounded splittable DoFns, as when a job is drained.
        unbounded: take unbounded sources too, each of which must have an end.

    Example:
        >>> import apache_beam as beam
        >>> with beam.Pipeline(runner=SparkRunner()) as p:  # doctest: +SKIP
        ...     _ = p | beam.Create([1, 2]) | beam.Map(str)
    """

    def __init__(self, *, drain: bool = False, unbounded: bool = False) -> None:
        super().__init__()
        self._drain = drain
        self._unbounded = unbounded

    def run_pipeline(self, pipeline: Pipeline, options: PipelineOptions) -> SparkResult:
        """Start a pipeline.

        Raises:
            FabricBeamError: it cannot run on Spark, or Spark cannot be reached.
        """
        RuntimeValueProvider.set_runtime_options({})
        setup = options.view_as(SetupOptions)
        # dill, the default of older Beam, loses the globals of `__main__`.
        setup.pickle_library = setup.pickle_library or "cloudpickle"
        planned = plan(pipeline, engine=_ENGINE, drain=self._drain, unbounded=self._unbounded)
        return SparkResult(planned, options.view_as(SparkOptions))


class SparkResult(RunnerResult):
    """A run on Spark, going on in a thread."""

    def __init__(self, planned: Plan, options: SparkOptions) -> None:
        super().__init__(PipelineState.RUNNING, {})
        self._options = options
        self._plan = planned
        self._job: Any = None
        self._error: BaseException | None = None
        self._cancelled = False
        self._owned = False
        self._open = contextlib.ExitStack()
        spark = self._context()
        self._thread = threading.Thread(target=self._run, args=(spark,), name="spark-run")
        self._thread.start()

    def _context(self) -> Any:
        from fabric_beam.runners.spark import session

        processes.require()
        from pyspark import SparkContext

        active = SparkContext._active_spark_context
        if active is not None:
            return active
        conf = {}
        for setting in self._options.spark_conf:
            key, equals, value = setting.partition("=")
            if not equals or not key.startswith("spark."):
                raise UsageError(f"--spark_conf {setting!r}: spark.some.setting=value expected.")
            conf[key] = value
        spark = session.context(
            self._options.spark_master,
            conf=conf,
            executor_seconds=self._options.spark_executor_timeout,
            log_level=self._options.spark_log_level,
        )
        self._open.callback(spark.stop)
        self._owned = True
        return spark

    def _run(self, spark: Any) -> None:
        from fabric_beam.runners.spark.job import Job

        try:
            with self._open:
                parallelism = self._options.spark_parallelism or spark.defaultParallelism
                memory = self._options.spark_group_memory << 20
                # A transform that fails on this machine fails again; a worker that dies is tried again by Spark.
                attempts = 1 if spark.master.startswith("local") else int(spark.getConf().get("spark.task.maxFailures"))
                self._job = Job(spark, self._plan, parallelism, memory, attempts)
                if self._cancelled:
                    self._job.cancel()
                self._monitoring_infos_by_stage = {"": [], **self._job.run()}
                self._state = PipelineState.DONE
        except BaseException as error:
            self._error = ours(error) or error
            self._state = PipelineState.CANCELLED if self._cancelled else PipelineState.FAILED

    @property
    def state(self) -> str:
        """Where the run is."""
        return str(self._state)

    def wait_until_finish(self, duration: int | None = None) -> str:
        """Wait for the end.

        Args:
            duration: milliseconds to wait at most; None is without limit.

        Raises:
            Exception: what a transform raised.
        """
        try:
            self._thread.join(duration / 1000 if duration is not None else None)
        except KeyboardInterrupt:
            self.cancel()
            raise
        if self._error is not None and not self._cancelled:
            raise self._error
        return self.state

    def cancel(self) -> str:
        """Stop all tasks."""
        self._cancelled = True
        if self._job is not None:
            self._job.cancel()
        self._thread.join()
        if self._owned:
            # Spark lets a worker that is in the middle of an element go on to its end: it may still make a file.
            processes.end_workers()
        return self.state

    def metrics(self) -> Any:
        """The metrics of committed tasks, once the run is over."""
        self.wait_until_finish()
        return super().metrics()


logging.getLogger("py4j").setLevel(logging.ERROR)
__all__ = ["SparkOptions", "SparkResult", "SparkRunner"]
