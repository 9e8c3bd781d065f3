"""`kafka:` read: the messages that a topic holds when the run begins."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
import polars as pl
import pyarrow as pa
from apache_beam.io.restriction_trackers import OffsetRange, OffsetRestrictionTracker
from apache_beam.transforms.core import RestrictionProvider

from fabric_beam import ledger
from fabric_beam.batches import BatchOf, arrow_schema, to_batch
from fabric_beam.endpoints import Endpoint, step
from fabric_beam.errors import UsageError
from fabric_beam.io.kafka.columns import SCHEMA
from fabric_beam.io.kafka.reader import PartitionReader
from fabric_beam.io.kafka.topic import Bound, Partition, Topic, partitions
from fabric_beam.memory import keep_freed_buffers
from fabric_beam.progress import PROGRESS

_OPTIONS = ("start", "stop", "group", "max_rows", "max_wait", "timeout", "librdkafka.…")


class ReadKafka(beam.PTransform):
    """Read the messages that topics of Kafka hold when the run begins.

    Each partition is read on its own. Transactions are seen once they are committed (`librdkafka.isolation.level`). A
    broker that goes away and comes back loses and repeats nothing. Nothing is committed: the same read gives the same
    rows again.

    Args:
        endpoints: `kafka://HOST:PORT[,HOST:PORT]/TOPIC?OPTIONS`, where the options are

            - `start`: `earliest` (the default), `committed`, an offset (of every partition), or a time (RFC 3339; the
              first message of then or later). `committed` is where `group` has committed, and the earliest where it has
              not.
            - `stop`: `latest` (the default: the end as it is when the run begins), an offset or a time; what is there
              is not read any more.
            - `group`: the consumer group whose committed offsets are meant.
            - `max_rows`: messages in a batch at most, 16384.
            - `max_wait`: seconds that a batch waits for more messages, 1.
            - `timeout`: seconds without news from the brokers after which the read fails, 60.
            - `librdkafka.NAME`: any setting of librdkafka, as `librdkafka.security.protocol=SASL_SSL`. `${NAME}` in a
              value is taken from the environment, of each worker, when it connects.
        limit: read at most this many messages, partition by partition.

    Output: batches with `key` and `body` (the message's key and value, null where there is none; bytes that are not
    UTF-8 are U+FFFD), `headers` (a list of `key` and `value`), `timestamp` (Datetime µs UTC), `source` (topic and
    partition, as `logs-0`), `offset`.

    Raises:
        UsageError: an option is wrong, or `stop` is `never`: this source has an end.
        InputError: no broker answers, there is no such topic, or messages that were asked for are not there (any more).

    Source: https://github.com/confluentinc/librdkafka/blob/master/CONFIGURATION.md
    """

    def __init__(self, endpoints: Sequence[Endpoint], *, limit: int | None = None) -> None:
        super().__init__()
        self._limit = limit
        self.work = [work for endpoint in endpoints for work in _work(endpoint)]

    def sample(self, messages: int = 1000) -> list[str]:
        """The first messages' bodies: what a format's schema is inferred from."""
        found: list[str] = []
        for work in self.work:
            for table in _tables(work, messages - len(found)):
                found += table["body"].drop_nulls().to_list()
        return found

    def expand(self, pbegin: Any) -> beam.PCollection:
        label = step(pbegin.pipeline)
        if self._limit is None:
            messages = (
                pbegin
                | "Partitions" >> beam.Create(self.work, reshuffle=False)
                | "Spread" >> beam.Reshuffle()
                | "Messages" >> beam.ParDo(_ReadPartition(label))
            )
        else:
            # Reading in order up to a limit takes one reader.
            messages = (
                pbegin
                | "Partitions" >> beam.Create([self.work], reshuffle=False)
                | "Messages" >> beam.ParDo(_ReadInOrder(label, self._limit))
            )
        messages.element_type = BatchOf(arrow_schema(pl.DataFrame(schema=SCHEMA)))
        return messages


@dataclass(frozen=True)
class Work:
    """A partition, and how it is read."""

    partition: Partition
    max_rows: int
    max_wait: float
    timeout: float

    def open(self, start: int) -> PartitionReader:
        """A reader of the partition from an offset on."""
        topic = self.partition.topic
        return PartitionReader(topic.settings(), topic.name, self.partition.number, start, timeout=self.timeout)


def _work(endpoint: Endpoint) -> list[Work]:
    topic = Topic.of(endpoint)
    start = endpoint.option("start", str, "earliest")
    stop = endpoint.option("stop", str, "latest")
    group = endpoint.option("group", str, "")
    max_rows = endpoint.option("max_rows", int, 16_384)
    max_wait = endpoint.option("max_wait", float, 1.0)
    timeout = endpoint.option("timeout", float, 60.0)
    endpoint.no_more_options(*_OPTIONS)
    if stop == "never":
        raise UsageError("kafka: stop=never: this source reads what is there and ends. Leave stop out for all of it.")
    if max_rows < 1 or not max_wait >= 0 or not timeout > 0:
        raise UsageError("kafka: max_rows must be at least 1, max_wait at least 0, and timeout more than 0.")
    if (start == "committed") != bool(group):
        raise UsageError("kafka: start=committed and group=NAME go together: the group is whose committed offsets.")
    bounds = Bound.parse("start", start, "earliest", "committed"), Bound.parse("stop", stop, "latest")
    for one, other in ((bounds[0].offset, bounds[1].offset), (bounds[0].milliseconds, bounds[1].milliseconds)):
        if one is not None and other is not None and one > other:
            raise UsageError(f"kafka: start={start} is after stop={stop}.")
    return [Work(partition, max_rows, max_wait, timeout) for partition in partitions(topic, *bounds, group)]


def _tables(work: Work, limit: int) -> Iterator[pl.DataFrame]:
    """The first messages of a partition, at most so many."""
    stop, left = work.partition.stop, limit
    if work.partition.start < stop and left:
        with work.open(work.partition.start) as reader:
            while reader.position < stop and left:
                table = reader.read(stop, max_rows=min(work.max_rows, left), max_wait=work.max_wait)
                left -= table.height
                yield table


class _PartitionTracker(OffsetRestrictionTracker):
    """Offsets, claimed a batch at a time by its last one."""

    def try_claim(self, position: int) -> bool:
        # A batch that a split has cut off is claimed again up to there, so this was no attempt.
        return bool(position < self._range.stop and super().try_claim(position))


class _Offsets(RestrictionProvider):
    def initial_restriction(self, element: Work) -> OffsetRange:
        return OffsetRange(element.partition.start, element.partition.stop)

    def create_tracker(self, restriction: OffsetRange) -> _PartitionTracker:
        return _PartitionTracker(restriction)

    def restriction_size(self, element: Work, restriction: OffsetRange) -> int:
        return int(restriction.size())


class _Counted(beam.DoFn):
    """Counts what is read."""

    def __init__(self, step: str) -> None:
        self._account = ledger.Account(step)

    def setup(self) -> None:
        keep_freed_buffers()

    def batch(self, table: pl.DataFrame) -> pa.RecordBatch:
        """The messages as a batch, counted as read."""
        self._account.add("read", table.height)
        PROGRESS.add(rows=table.height)
        return to_batch(table)


#: The tracker of the restriction that is processed.
_TRACKER = beam.DoFn.RestrictionParam(_Offsets())


class _ReadPartition(_Counted):
    def process(self, element: Work, tracker: Any = _TRACKER) -> Iterator[pa.RecordBatch]:
        claimed = tracker.current_restriction().start
        if claimed == tracker.current_restriction().stop:
            return
        with element.open(claimed) as reader:
            while claimed < (stop := tracker.current_restriction().stop):
                table = reader.read(stop, max_rows=element.max_rows, max_wait=element.max_wait)
                end = reader.position
                while claimed < end and not tracker.try_claim(end - 1):
                    end = tracker.current_restriction().stop
                if end < reader.position:
                    table = table.filter(pl.col("offset") < end)
                claimed = max(claimed, end)
                if table.height:
                    yield self.batch(table)


class _ReadInOrder(_Counted):
    def __init__(self, step: str, limit: int) -> None:
        super().__init__(step)
        self._limit = limit

    def process(self, element: list[Work]) -> Iterator[pa.RecordBatch]:
        left = self._limit
        for work in element:
            for table in _tables(work, left):
                left -= table.height
                if table.height:
                    yield self.batch(table)
