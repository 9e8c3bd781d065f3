"""`kafka:` written."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np
import polars as pl

from fabric_beam.endpoints import Endpoint
from fabric_beam.errors import OutputError, UsageError, nearest
from fabric_beam.io.kafka.layout import MessageLayout
from fabric_beam.io.kafka.librdkafka import library
from fabric_beam.io.kafka.producer import UNSENT, Messages, Producer, reason
from fabric_beam.io.kafka.topic import Topic
from fabric_beam.io.store import Store
from fabric_beam.io.store_sink import StoreSink
from fabric_beam.kernel import reject
from fabric_beam.option_kinds import boolean, one_of, whole

if TYPE_CHECKING:
    from confluent_kafka.admin import AdminClient

_COMPRESSIONS = ("none", "gzip", "snappy", "lz4", "zstd")
#: Errors of single messages: too large, an invalid record or timestamp.
_INVALID_RECORD, _OTHER_IS_INVALID = 87, -138
_TOGETHER = (4, 10, 18, 32)
_REFUSED = (*_TOGETHER, _INVALID_RECORD, _OTHER_IS_INVALID)
#: Errors that waiting does not mend: authentication, authorization, no such topic, a setting that does not fit.
_FOR_GOOD = {-190, -188, -186, -181, -169, 3, 17, 29, 31, 33, 34, 35, 37, 38, 40, 42, 44, 53, 54, 58, 65, 76}
_TOPIC_EXISTS = 36
_SETTINGS = {
    "enable.idempotence": "true",
    "linger.ms": "5",
    "queue.buffering.max.messages": "1000000",
    # How long a bulk is tried for is the sink's to say.
    "message.timeout.ms": "0",
    "reconnect.backoff.max.ms": "1000",
}


class _Bulk(NamedTuple):
    """Rows that are being written, and what became of each so far."""

    table: pl.DataFrame
    messages: Messages
    producer: Producer


class KafkaStore(Store):
    """A topic, and an idempotent producer for it."""

    OPTIONS: ClassVar[tuple[str, ...]] = (
        *MessageLayout.OPTIONS,
        *("compression", "create", "partitions", "replication", "librdkafka.NAME"),
    )
    ROWS: ClassVar[int] = 50_000
    # A producer sends several requests at a time by itself; with several bulks rows of one key would lose their order.
    CONCURRENCY: ClassVar[int] = 1

    def __init__(self, endpoint: Endpoint) -> None:
        library()
        self._topic = Topic.of(endpoint)
        self._layout = MessageLayout(endpoint)
        self._compression = endpoint.option("compression", one_of(*_COMPRESSIONS), "zstd")
        self._create = endpoint.option("create", boolean, True)
        self._shape = {name: endpoint.option(name, whole, -1) for name in ("partitions", "replication")}
        self._timeout = 0.0
        self._largest = ""
        self._producer: Producer | None = None
        self._broken: list[Producer] = []
        self._bulks: dict[int, _Bulk] = {}
        self._lock: Any = None
        if "transactional.id" in self._topic.configuration:
            raise UsageError(
                "kafka: transactions would not keep rows that are written again from being there twice, and are not "
                "offered: leave out librdkafka.transactional.id."
            )
        # A variable that is not set is known here, not in a worker.
        self._topic.settings()

    def connect(self, timeout: float) -> None:
        self._timeout = timeout
        admin, topics = self._admin()
        if self._topic.name not in topics:
            if not self._create:
                raise OutputError(
                    f"{self._topic.url}: there is no such topic, and create=false. {nearest(self._topic.name, topics)}"
                )
            self._create_topic(admin)
        self._largest = self._largest_message(admin)
        self._lock = threading.Lock()

    def check(self, schema: pl.Schema) -> None:
        self._layout.check(schema)

    def write(self, table: pl.DataFrame) -> pl.DataFrame | None:
        with self._lock:
            producer = self._open()
            bulk = self._bulks.get(id(table))
        # A bulk that is tried again goes on where it was: what was acknowledged or is on its way is not produced again.
        messages = bulk.messages if bulk else self._layout.messages(table)
        if bulk and bulk.producer is not producer:
            bulk.producer.forget(messages)
            messages.status[messages.status != 0], messages.alone[:] = UNSENT, False
        self._bulks[id(table)] = _Bulk(table, messages, producer)
        until = time.monotonic() + self._timeout
        self._deliver(producer, messages, np.arange(table.height), until)
        # A broker refuses messages together, and does not always say which were to blame.
        while len(innocent := np.flatnonzero(messages.status == _OTHER_IS_INVALID)):
            messages.status[innocent] = UNSENT
            self._deliver(producer, messages, innocent, until)
        self._narrow(producer, messages, np.flatnonzero(np.isin(messages.status, _TOGETHER) & ~messages.alone), until)
        producer.done(messages)
        del self._bulks[id(table)]
        failed = np.flatnonzero(messages.status)
        if not len(failed):
            return None
        reasons = pl.Series([f"{reason(int(code))} ({self._topic.name})" for code in messages.status[failed]])
        return reject(table[failed], "refused", pl.lit(reasons))

    def abandon(self, table: pl.DataFrame) -> pl.DataFrame:
        bulk = self._bulks.pop(id(table), None)
        if bulk is None:
            return table
        bulk.producer.forget(bulk.messages)
        return table.filter(pl.Series(bulk.messages.status != 0))

    def transient(self, error: Exception) -> bool:
        from confluent_kafka import KafkaException

        return isinstance(error, KafkaException) and error.args[0].code() not in _FOR_GOOD

    def close(self) -> None:
        for producer in [*self._broken, *([self._producer] if self._producer else [])]:
            producer.close()
        self._producer, self._broken, self._bulks, self._lock = None, [], {}, None

    def _open(self) -> Producer:
        if self._producer is None:
            milliseconds = str(int(self._timeout * 1000))
            settings = {
                **_SETTINGS,
                "compression.type": self._compression,
                "socket.timeout.ms": milliseconds,
                "request.timeout.ms": milliseconds,
                **({"message.max.bytes": self._largest} if self._largest else {}),
                **self._topic.settings(),
                "delivery.report.only.error": "false",
            }
            self._producer = Producer(settings, self._topic.name)
        return self._producer

    def _deliver(self, producer: Producer, messages: Messages, rows: Any, until: float) -> None:
        """Produce rows until each is delivered or refused.

        Raises:
            KafkaException: there was an error that is not of single rows; those that it befell will be produced again,
                and those that are still on their way will be waited for again.
        """
        over = producer.deliver(messages, rows, until)
        codes = messages.status[rows]
        failed = (codes != 0) & (codes < UNSENT) & ~np.isin(codes, _REFUSED)
        if failed.any():
            code = int(codes[failed][0])
            messages.status[rows[failed]], messages.alone[rows[failed]] = UNSENT, False
            if producer.is_broken:
                with self._lock:
                    if self._producer is producer:
                        self._broken.append(producer)
                        self._producer = None
            raise _exception(code, reason(code))
        if not over:
            waiting = int((codes >= UNSENT).sum())
            code, said = producer.problem or (-185, "brokers do not answer")
            raise _exception(
                code, f"{waiting} message(s) were not acknowledged within {self._timeout:g} s: {said or reason(code)}"
            )

    def _narrow(self, producer: Producer, messages: Messages, rows: Any, until: float) -> None:
        """Produce rows that were refused together again, in ever smaller parts: those to blame are refused alone."""
        for part in np.array_split(rows, min(2, len(rows))) if len(rows) else []:
            messages.status[part], messages.alone[part] = UNSENT, len(part) == 1
            self._deliver(producer, messages, part, until)
            self._narrow(
                producer, messages, part[np.isin(messages.status[part], _TOGETHER) & ~messages.alone[part]], until
            )

    def _admin(self) -> tuple[AdminClient, dict[str, Any]]:
        """A client for administration, and the topics that there are."""
        from confluent_kafka import KafkaException
        from confluent_kafka.admin import AdminClient

        problems: list[Any] = []
        milliseconds = int(self._timeout * 1000)
        settings = {"log_level": 0, "socket.timeout.ms": milliseconds, **self._topic.settings()}
        try:
            admin = AdminClient({**settings, "error_cb": problems.append})
        except KafkaException as error:
            raise UsageError(f"kafka: {error.args[0].str()}.") from error
        until = time.monotonic() + self._timeout
        while True:
            try:
                return admin, admin.list_topics(timeout=max(0.01, min(1.0, until - time.monotonic()))).topics
            except KafkaException as error:
                admin.poll(0)
                for_good = [problem for problem in problems if problem.code() in _FOR_GOOD]
                if for_good or time.monotonic() >= until:
                    problem = (for_good or problems or [error.args[0]])[-1]
                    raise _exception(problem.code(), problem.str()) from error

    def _create_topic(self, admin: AdminClient) -> None:
        from confluent_kafka import KafkaException
        from confluent_kafka.admin import NewTopic

        name = self._topic.name
        topic = NewTopic(name, self._shape["partitions"], self._shape["replication"])
        try:
            admin.create_topics([topic], request_timeout=self._timeout)[name].result(self._timeout)
        except KafkaException as error:
            # Another worker may have been faster.
            if error.args[0].code() != _TOPIC_EXISTS:
                raise
        until = time.monotonic() + self._timeout
        while name not in admin.list_topics(timeout=self._timeout).topics:
            if time.monotonic() > until:
                raise _exception(-185, f"the topic {name} was created and is not there after {self._timeout:g} s")
            time.sleep(0.05)

    def _largest_message(self, admin: AdminClient) -> str:
        """The most bytes that the topic takes; empty if that may not be asked."""
        from confluent_kafka import KafkaException
        from confluent_kafka.admin import ConfigResource

        asked = admin.describe_configs(
            [ConfigResource(ConfigResource.Type.TOPIC, self._topic.name)], request_timeout=self._timeout
        )
        try:
            largest = int(next(iter(asked.values())).result(self._timeout)["max.message.bytes"].value)
        except KafkaException:
            return ""
        return str(min(max(largest, 1000), 1_000_000_000))


class WriteKafka(StoreSink):
    """Write batches to a topic of Kafka, a message a row.

    Args:
        endpoint: `kafka://host:port[,host:port]/topic?options`. `value` is `json` (the default: the row as an object,
            times as RFC 3339, binary as base64) or a String or Binary column, whose nulls are tombstones; `key` a
            column or a text with columns in braces, such as `{source}:{offset}` (none by default: messages go to all
            partitions in turn; a row without a value for it has none); `headers` columns, by commas; `id` the columns
            that tell rows apart (default: `source` and `offset`, or all); `timestamp` the column that is the message's
            time (default: when it is sent, so that the topic's retention begins then); `compression` `zstd`, `lz4`,
            `snappy`, `gzip` or `none`. A topic that is not there is created with so many `partitions` and so much
            `replication` (default: the broker's) unless `create=false`. Any setting of librdkafka goes by
            `librdkafka.NAME`; secrets in it are `${VARIABLE}`. And what every store's URL takes: see `StoreSink`.
        job: not used.

    The header `id` of every message has its row's identity. Dead letters, if neither `value` nor `headers` is given,
    are messages of their original `payload`, with the other columns as headers.

    Delivery: brokers acknowledge a message when all in-sync replicas have it, and drop what librdkafka sends again.
    A message is produced once, however often brokers fail or stand still. It is there again when its rows are written
    again, because a worker died or a run was repeated: readers tell by `id`, or the topic is compacted and `key` is the
    identity. A row that became a dead letter as `unavailable` while it was on its way may be there too.

    Source: https://kafka.apache.org/documentation/#producerconfigs; idempotence: KIP-98
    """

    store = KafkaStore


def _exception(code: int, words: str) -> Exception:
    from confluent_kafka import KafkaError, KafkaException

    error: Exception = KafkaException(KafkaError(code, words))
    return error
