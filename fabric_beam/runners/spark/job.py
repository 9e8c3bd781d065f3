"""A plan on Spark: each stage is one job whose outputs, accounts included, are the blocks of one shuffle."""

from __future__ import annotations

import contextlib
import os
import pickle
import re
import sys
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any, cast

from apache_beam.portability.api import metrics_pb2
from py4j.protocol import Py4JError
from pyspark import AccumulatorParam, SparkContext
from pyspark.core.rdd import RDD, PipelinedRDD
from pyspark.util import _load_from_socket

from fabric_beam.errors import FabricBeamError
from fabric_beam.progress import PROGRESS
from fabric_beam.runners.elements import IMPULSE, Coders, side_input_values
from fabric_beam.runners.failures import unpack
from fabric_beam.runners.metrics import merge
from fabric_beam.runners.plan import Plan, Port, Stage
from fabric_beam.runners.spark.task import Account, Blocks, Route, Source, Task

_STAGES_AT_ONCE = 8
_POLL_SECONDS = 0.1
#: Side inputs above this are broadcast, below they are sent with each stage.
_BROADCAST = 256 << 10
_LESS_MEMORY = (
    "Fewer cores at a time (--spark_master local[1], spark.executor.cores) or a smaller --spark_group_memory take less"
)


class _Reports(AccumulatorParam[list[Any]]):
    """Keeps what tasks report as they end, in the order in which it comes."""

    def zero(self, value: list[Any]) -> list[Any]:
        return []

    def addInPlace(self, value1: list[Any], value2: list[Any]) -> list[Any]:
        value1.extend(value2)
        return value1


@dataclass
class _Written:
    """A stage that has run: the blocks it wrote.

    Attributes:
        pairs: Java pair RDD of partition and block.
        routes: by buffer.
        filled: partitions with anything in them.
    """

    pairs: Any
    routes: dict[str, Route]
    filled: set[int]

    def partitions(self, buffer: str) -> list[int]:
        route = self.routes[buffer]
        return sorted(p for p in self.filled if route.first <= p < route.first + route.width)


@dataclass
class Job:
    """Runs a plan once.

    Args:
        context: where.
        plan: what.
        parallelism: partitions of groupings and of splittable sources.
        memory: bytes of values that a task holds to group them before it spills.
        attempts: how often Spark tries a task whose transform raises.
        tries: how often it tries a task whose worker dies.
    """

    context: SparkContext
    plan: Plan
    parallelism: int
    memory: int
    attempts: int
    tries: int = 4
    run_id: str = field(default_factory=lambda: uuid.uuid4().hex)

    def __post_init__(self) -> None:
        self._written: dict[str, _Written] = {}
        self._infos: dict[str, list[metrics_pb2.MonitoringInfo]] = {}
        self._coders = Coders(self.plan.components)
        self._reports = self.context.accumulator([], _Reports())
        self._reported = 0
        self._broadcasts: list[Any] = []
        self._cancelled = threading.Event()
        self._lock = threading.Lock()

    def run(self) -> dict[str, list[metrics_pb2.MonitoringInfo]]:
        """Run every stage once, each as soon as what it reads is there.

        Returns:
            Beam's monitoring infos by stage: of committed tasks only.

        Raises:
            Exception: the first that a transform raised.
        """
        waiting = list(self.plan.stages)
        running: dict[Future[None], Stage] = {}
        threads = ThreadPoolExecutor(_STAGES_AT_ONCE, thread_name_prefix="spark-stage")
        try:
            while waiting or running:
                for stage in [stage for stage in waiting if self._ready(stage)]:
                    waiting.remove(stage)
                    running[threads.submit(self._run_stage, stage)] = stage
                done, _ = wait(running, timeout=_POLL_SECONDS, return_when=FIRST_COMPLETED)
                self._take_reports()
                for future in done:
                    del running[future]
                    future.result()
        except BaseException:
            self.cancel()
            raise
        finally:
            threads.shutdown(wait=True)
            self._take_reports(raising=False)
            for broadcast in self._broadcasts:
                with contextlib.suppress(Exception):
                    broadcast.unpersist()
        if missing := {stage.name for stage in self.plan.stages} - set(self._infos):
            raise RuntimeError(f"Stages that did not run: {', '.join(sorted(missing))}.")
        return self._infos

    def cancel(self) -> None:
        """Stop all tasks."""
        self._cancelled.set()
        with contextlib.suppress(Exception):
            self.context.cancelJobGroup(self.run_id)

    def _take_reports(self, raising: bool = True) -> None:
        reports = list(self._reports.value)
        fresh, self._reported = reports[self._reported :], len(reports)
        for kind, value in fresh:
            if kind == "progress":
                total, size, rows, dead_letters = value
                PROGRESS.add(total=total, bytes=size, rows=rows, dead_letters=dead_letters)
            elif raising:
                raise unpack(value)

    def _ready(self, stage: Stage) -> bool:
        buffers = {port.buffer for port in stage.inputs} | {side.buffer for side in stage.side_inputs}
        return all(producer.name in self._written for buffer in buffers for producer in self.plan.producers(buffer))

    def _run_stage(self, stage: Stage) -> None:
        if self._cancelled.is_set():
            return
        sources, data = self._inputs(stage)
        routes, partitions = self._routes(stage, sum(source.partitions for source in sources))
        by_buffer = {port.buffer: routes[port.transform] for port in stage.outputs}
        if data is None:
            self._written[stage.name] = _Written(None, by_buffer, set())
            self._infos[stage.name] = []
            return
        task = Task(
            self.run_id,
            stage,
            self.plan.components,
            sources,
            routes,
            partitions,
            self._side_inputs(stage),
            os.getcwd(),  # noqa: PTH109
            self.memory,
            self.attempts,
            self._reports,
        )
        pairs = self._shuffled(data, task, partitions + 1)
        self.context.setJobGroup(self.run_id, stage.transforms[0] if stage.transforms else stage.name, True)
        try:
            accounts = [pickle.loads(block) for block in self._read(self._values(self._pruned(pairs, [partitions])))]
        except Py4JError as error:
            raise self._explained(stage, error) from error
        self._account(stage, accounts)
        filled = set().union(*(account.filled for account in accounts))
        self._written[stage.name] = _Written(pairs, by_buffer, filled)

    def _explained(self, stage: Stage, error: Py4JError) -> FabricBeamError:
        """What Spark gave up for: workers that die, as what transforms raise comes another way."""
        where = ", ".join(stage.transforms)
        if self._cancelled.is_set():
            return FabricBeamError(f"Cancelled while running {where}.")
        text = str(getattr(error, "java_exception", error))
        if lost := re.search(r"ExecutorLostFailure \(.*?\) Reason: (.*)", text):
            signal = " (137: signal 9)" if "code 137" in lost[1] else ""
            return FabricBeamError(
                f"An executor died {self.tries} times while running {where}: {lost[1].strip().rstrip('.')}{signal}. "
                f"Mostly the system or the cluster killed it for want of memory. {_LESS_MEMORY}; "
                "spark.executor.memoryOverhead=2g gives Python more of it on YARN and Kubernetes."
            )
        if "Python worker" in text or "MemoryError" in text:
            return FabricBeamError(
                f"A Python worker died {self.tries} times while running {where}: killed by the system for want of "
                f"memory, or by a crash in a native library. {_LESS_MEMORY}."
            )
        reason = next((line for line in text.splitlines() if line.strip()), type(error).__name__)
        return FabricBeamError(f"Spark gave up while running {where}: {reason[:500]}")

    def _account(self, stage: Stage, accounts: list[Account]) -> None:
        for account in accounts:
            if account.failure:
                raise unpack(account.failure)
        with self._lock:
            for account in sorted(accounts, key=lambda account: account.task):
                if account.printed:
                    sys.stdout.buffer.write(account.printed)
            sys.stdout.flush()
        infos = (metrics_pb2.MonitoringInfo.FromString(info) for account in accounts for info in account.infos)
        self._infos[stage.name] = merge(infos)

    def _inputs(self, stage: Stage) -> tuple[tuple[Source, ...], Any]:
        """A stage's sources, and the Java RDD of their blocks; None if there are none."""
        sources, parts = [], []
        for port in stage.inputs:
            grouping = self.plan.groupings.get(port.buffer) if port.kind == "group" else None
            if port.kind == "impulse":
                parts.append(self.context._jsc.parallelize([bytearray(IMPULSE)], 1))
                sources.append(Source(1, port, None))
                continue
            blocks = self._blocks(port.buffer, grouping is not None or stage.key is not None)
            if blocks is not None:
                parts.append(blocks)
                sources.append(Source(blocks.getNumPartitions(), port, grouping))
        return tuple(sources), _union(parts) if parts else None

    def _blocks(self, buffer: str, together: bool) -> Any:
        """The blocks of a buffer as a Java RDD, keys together in a partition if they have to be."""
        written = [self._written[stage.name] for stage in self.plan.producers(buffer)]
        found = [(one.pairs, one.partitions(buffer)) for one in written if one.pairs is not None]
        found = [(pairs, partitions) for pairs, partitions in found if partitions]
        if not found:
            return None
        jvm: Any = self.context._jvm
        if together and len(found) > 1:
            # Keys are at the same place in every producer's range, and every range begins at a multiple of its width.
            pairs = [jvm.JavaPairRDD.fromJavaRDD(self._pruned(pairs, numbers)) for pairs, numbers in found]
            together_again = _union(pairs).partitionBy(jvm.PythonPartitioner(self.parallelism, 0))
            return jvm.PythonRDD.valueOfPair(together_again)
        return _union([self._values(self._pruned(pairs, numbers)) for pairs, numbers in found])

    def _routes(self, stage: Stage, tasks: int) -> tuple[dict[str, Route], int]:
        """Where each output goes in the stage's shuffle, and how many partitions that takes."""
        routes: dict[str, Route] = {}
        first = 0
        # Those by key first: see `_blocks`. A PCollection flattened with itself is written twice to one buffer.
        buffers = {port.buffer: self._route(port) for port in stage.outputs}
        for by, width in (("key", self.parallelism), ("element", 2 * self.parallelism), ("task", max(1, tasks))):
            for buffer in [buffer for buffer, (how, _) in buffers.items() if how == by]:
                route = Route(first, width, by, buffers[buffer][1])
                routes |= {port.transform: route for port in stage.outputs if port.buffer == buffer}
                first += width
        return routes, first

    def _route(self, port: Port) -> tuple[str, str]:
        if port.kind == "group":
            return "key", self.plan.groupings[port.buffer].before[0]
        consumers = self.plan.consumers(port.buffer)
        for consumer in consumers:
            if consumer.key is not None:
                return "key", consumer.key
        for consumer in consumers:
            if consumer.splittable:
                return "element", port.coder
        return "task", port.coder

    def _side_inputs(self, stage: Stage) -> Any:
        values: dict[bytes, bytes] = {}
        for side in stage.side_inputs:
            blocks = self._blocks(side.buffer, together=False)
            values.update(side_input_values(side, self._coders, self._read(blocks) if blocks is not None else ()))
        if sum(map(len, values.values())) <= _BROADCAST:
            return values
        broadcast = self.context.broadcast(values)
        self._broadcasts.append(broadcast)
        return broadcast

    def _shuffled(self, data: Any, task: Task, partitions: int) -> Any:
        """The Java pair RDD of what a stage's tasks write, each block in its partition."""
        jvm: Any = self.context._jvm
        work: Any = PipelinedRDD(RDD(data, self.context, Blocks()), cast(Any, task))
        work._jrdd_deserializer = Blocks()
        pairs = jvm.PairwiseRDD(work._jrdd.rdd()).asJavaPairRDD()
        return pairs.partitionBy(jvm.PythonPartitioner(partitions, 0))

    def _pruned(self, pairs: Any, partitions: list[int]) -> Any:
        """Only some partitions of a Java RDD."""
        jvm: Any = self.context._jvm
        # A Scala set is a function from what may be in it to whether it is.
        wanted = jvm.PythonUtils.toSeq(partitions).toSet()
        return jvm.org.apache.spark.rdd.PartitionPruningRDD.create(pairs.rdd(), wanted).toJavaRDD()

    def _values(self, pairs: Any) -> Any:
        jvm: Any = self.context._jvm
        return jvm.PythonRDD.valueOfPair(jvm.JavaPairRDD.fromJavaRDD(pairs))

    def _read(self, data: Any) -> Iterator[bytes]:
        """The blocks of a Java RDD, here; runs what they depend on."""
        jvm: Any = self.context._jvm
        with _load_from_socket(jvm.PythonRDD.collectAndServe(data.rdd()), Blocks()) as blocks:
            yield from blocks


def _union(parts: list[Any]) -> Any:
    """Java RDDs as one, the partitions of the first first."""
    union = parts[0]
    for part in parts[1:]:
        union = union.union(part)
    return union
