"""FlinkRunner: a bounded Beam pipeline as one PyFlink job, without a job server."""

from __future__ import annotations

import contextlib
import logging
import pickle
import re
import shutil
import sys
import uuid
from pathlib import Path
from typing import Any

from apache_beam.internal import pickler
from apache_beam.options.pipeline_options import FlinkRunnerOptions, PipelineOptions, SetupOptions
from apache_beam.portability.api import metrics_pb2
from apache_beam.runners.portability.fn_api_runner.fn_runner import RunnerResult
from apache_beam.runners.runner import PipelineRunner, PipelineState

from fabric_beam.errors import UsageError
from fabric_beam.progress import PROGRESS
from fabric_beam.runners.failures import unpack
from fabric_beam.runners.flink import cluster, seams
from fabric_beam.runners.flink.cluster import LOCAL, FlinkError
from fabric_beam.runners.metrics import merge
from fabric_beam.runners.own_sources import own_files
from fabric_beam.runners.plan import Plan, plan

_JOB = "fabric-beam"
_RESTARTS = 5
_LOGGER = logging.getLogger(__name__)


class FlinkOptions(PipelineOptions):
    """What the Flink runner can be told besides Beam's own `--flink_master` and `--parallelism`."""

    @classmethod
    def _add_argparse_args(cls, parser: Any) -> None:
        parser.add_argument(
            "--flink_python", default=sys.executable, help="Python on the machines of a session cluster."
        )
        parser.add_argument(
            "--flink_group_memory", type=int, default=256, help="MiB that a slot groups in before it spills to disk"
        )
        parser.add_argument(
            "--flink_config",
            action="append",
            default=[],
            help="KEY=VALUE of Flink's own configuration; may be repeated.",
        )


class FlinkRunner(PipelineRunner):
    """Run bounded pipelines on Flink: a mini-cluster in this machine's JVM, or a session cluster.

    Every fused stage is an operator. On the mini-cluster, this process runs the Python code in threads, a worker a
    core; on a session cluster, Flink starts Python workers, and restarts what fails.

    Args:
        drain: truncate unbounded splittable DoFns, as when a job is drained.
        unbounded: take unbounded sources too, each of which must have an end.

    Example:
        >>> import apache_beam as beam
        >>> with beam.Pipeline(FlinkRunner()) as p:  # doctest: +SKIP
        ...     _ = p | beam.Create([1, 2]) | beam.Map(str)
    """

    def __init__(self, *, drain: bool = False, unbounded: bool = False) -> None:
        super().__init__()
        self._drain = drain
        self._unbounded = unbounded
        cluster.check()

    def run_pipeline(self, pipeline: Any, options: PipelineOptions) -> RunnerResult:
        """Run a pipeline and wait for its end.

        Raises:
            FabricBeamError: what Flink, its cluster or the pipeline cannot do.
        """
        setup = options.view_as(SetupOptions)
        # dill, the default of older Beam, loses the globals of `__main__`.
        if setup.pickle_library == "default":
            setup.pickle_library = "cloudpickle"
        pickler.set_library(setup.pickle_library)
        planned = plan(pipeline, engine="FlinkRunner", drain=self._drain, unbounded=self._unbounded)
        return run(planned, options)


def run(planned: Plan, options: PipelineOptions) -> RunnerResult:
    """Run a plan on the Flink that the options name."""
    from fabric_beam.runners.flink import job

    flink = options.view_as(FlinkRunnerOptions)
    own = options.view_as(FlinkOptions)
    parallelism = flink.parallelism if flink.parallelism > 0 else cluster.cores()
    local = flink.flink_master in LOCAL
    if local:
        address = cluster.mini_cluster(parallelism)
    else:
        address = flink.flink_master.removeprefix("http://").rstrip("/")
        cluster.check_session(address, parallelism)
    values = _configuration(address, parallelism)
    if local:
        values["python.executable"] = str(cluster.worker_script())
    else:
        values |= {
            "python.executable": own.flink_python,
            # A restart without free slots fails at once and counts: together the waits, of 1, 3, 9, 27 and 30 s, give a
            # TaskManager that died a minute to be replaced.
            "restart-strategy.type": "exponential-delay",
            "restart-strategy.exponential-delay.initial-backoff": "1 s",
            "restart-strategy.exponential-delay.backoff-multiplier": "3.0",
            "restart-strategy.exponential-delay.max-backoff": "30 s",
            "restart-strategy.exponential-delay.jitter-factor": "0.0",
            "restart-strategy.exponential-delay.attempts-before-reset-backoff": str(_RESTARTS),
            "pipeline.jars": f"file://{_python_jar()}",
            "python.files": str(_project()),
        }
    values |= _settings(own.flink_config)
    jvm = cluster.gateway().jvm
    environment = jvm.org.apache.flink.streaming.api.environment.StreamExecutionEnvironment(
        cluster.configuration(values)
    )
    pickle_library, memory = options.view_as(SetupOptions).pickle_library, own.flink_group_memory << 20
    reports = job.build(planned, environment, parallelism, pickle_library, memory).collectAsync()
    try:
        environment.executeAsync(_JOB)
        found = _collect(reports, local)
    except BaseException as error:
        cluster.cancel(address, values[seams.JOB_ID], submitted=isinstance(error, Exception))
        if isinstance(error, Exception):
            raise _explain(error, address, values[seams.JOB_ID]) from None
        # Interrupted: who asked for that may leave without running what is registered for the process's end.
        cluster.stop_java()
        raise
    finally:
        with contextlib.suppress(Exception):
            reports.close()
    if missing := job.subtasks(planned, parallelism) - set(found):
        raise FlinkError(
            f"The job ended, but {len(missing)} of its tasks did not run to their end. Look at Flink's log."
        )
    infos: dict[str, list[Any]] = {}
    for (number, _), serialized in found.items():
        of_stage = infos.setdefault(planned.stages[number].name, [])
        of_stage += [metrics_pb2.MonitoringInfo.FromString(info) for info in serialized]
    return RunnerResult(PipelineState.DONE, {"": []} | {stage: merge(of_stage) for stage, of_stage in infos.items()})


def _configuration(address: str, parallelism: int) -> dict[str, str]:
    host, _, port = address.rpartition(":")
    return {
        "execution.target": "remote",
        "execution.attached": "true",
        "execution.runtime-mode": "STREAMING",
        # Known before the job is sent, so that it can be cancelled whatever happens.
        seams.JOB_ID: uuid.uuid4().hex,
        "rest.address": host,
        "rest.port": port,
        "parallelism.default": str(parallelism),
        "restart-strategy.type": "none",
        # Checkpoints never come due: what is whole only at its end is run again from its start. But the results of a
        # job that may restart can only be collected from one with checkpoints.
        "execution.checkpointing.interval": "3650 d",
        "execution.checkpointing.mode": "AT_LEAST_ONCE",
        "execution.checkpointing.checkpoints-after-tasks-finish.enabled": "false",
        "slot.request.timeout": "30 s",
        "python.fn-execution.bundle.size": "64",
        "python.fn-execution.bundle.time": "100",
        "pipeline.closure-cleaner-level": "NONE",
    }


def _collect(reports: Any, local: bool) -> dict[tuple[int, int], list[bytes]]:
    """The monitoring infos of every subtask: of its last attempt, if there were several."""
    from fabric_beam.runners.flink.worker import Counts, Report

    found: dict[tuple[int, int], list[bytes]] = {}
    while reports.hasNext():
        report: Counts | Report = pickle.loads(bytes(reports.next().getField(3)))
        if isinstance(report, Counts):
            # The mini-cluster's worker is this process, which has counted already.
            if not local:
                PROGRESS.add(**report._asdict())
            continue
        if report.error is not None:
            raise unpack(report.error)
        found[report.stage, report.subtask] = report.infos
    return found


def _settings(settings: list[str]) -> dict[str, str]:
    for setting in settings:
        if "=" not in setting:
            raise UsageError(f"--flink_config {setting!r}: KEY=VALUE of Flink's configuration expected.")
    return dict(setting.split("=", 1) for setting in settings)


def _explain(error: Exception, address: str, job: str) -> Exception:
    """What Flink raised, in a sentence."""
    from py4j.protocol import Py4JJavaError

    if not isinstance(error, Py4JJavaError):
        return error
    _LOGGER.debug("%s", error)
    messages = []
    java = error.java_exception
    while java is not None:
        messages.append(f"{java.getClass().getSimpleName()}: {java.getMessage()}")
        java = java.getCause()
    text = "\n".join(messages)
    if "NoResourceAvailable" in text:
        return FlinkError(
            f"The cluster at {address} had no free task slots for the job. Add TaskManagers, or lower --parallelism."
        )
    memory = (
        "Look for what the system killed for its memory (`dmesg`), and for OutOfMemoryError in TaskManagers' logs: "
        "smaller batches or a lower --parallelism take less."
    )
    if "io.grpc.StatusRuntimeException" in text:
        return FlinkError(f"Flink lost its Python worker{_where(address, job)}. {memory}")
    if re.search("(?i)task ?manager with id|remote task ?manager", text):
        return FlinkError(f"Flink lost a TaskManager{_where(address, job)}. {memory}")
    last = re.sub(r"\s+", " ", messages[-1] if messages else str(error))
    return FlinkError(f"Flink's job failed: {last[:1000]}")


def _where(address: str, job: str) -> str:
    """In which stage a job failed at last, and how often it did, as far as that is known."""
    tasks = cluster.failures(address, job)
    named = next((f" while running {task!r}" for task in tasks if task), "")
    return named + (f", {len(tasks)} times" if len(tasks) > 1 else "")


def _python_jar() -> Path:
    import pyflink

    return next((Path(pyflink.__file__).parent / "opt").glob("flink-python-*.jar"))


def _project() -> Path:
    """A folder of the packages and modules that are in use here and not installed, for workers elsewhere."""
    folder = cluster.new_folder()
    for file, name in own_files():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, folder / name)
    return folder
