"""Pinot by way of Kafka: rows are messages of a topic that a REALTIME table with upserts is fed from."""

from __future__ import annotations

import re
import time
from dataclasses import replace
from typing import ClassVar

import polars as pl

from fabric_beam.endpoints import Endpoint, filled
from fabric_beam.errors import SchemaError, UsageError, nearest
from fabric_beam.io.kafka.producer import Messages
from fabric_beam.io.kafka.sink import KafkaStore
from fabric_beam.io.pinot.columns import unfit, values
from fabric_beam.io.pinot.controller import Controller
from fabric_beam.io.pinot.tables import ID, WRITTEN, Table
from fabric_beam.io.store import identities
from fabric_beam.io.store_sink import StoreSink
from fabric_beam.json_rows import to_json

_KAFKA_OPTIONS = ("compression", "create", "partitions", "replication")
_LIBRDKAFKA, _STREAM = "librdkafka.", "stream."


class RealtimeStore(KafkaStore):
    """A topic, and the table that is fed from it."""

    OPTIONS: ClassVar[tuple[str, ...]] = (
        *("kafka", "key", *_KAFKA_OPTIONS, "librdkafka.NAME", "stream.NAME"),
        *(*Table.OPTIONS, *Controller.OPTIONS),
    )

    def __init__(self, endpoint: Endpoint) -> None:
        self._controller = Controller(endpoint)
        servers, _, topic = endpoint.option("kafka", str, "").partition("/")
        if not re.fullmatch(r"[^/@\s]+:\d+", servers):
            raise UsageError(f"pinot: kafka={servers} is not HOST:PORT[,HOST:PORT][/TOPIC].")
        topic = topic or self._controller.table
        stream = {
            "streamType": "kafka",
            "stream.kafka.topic.name": topic,
            "stream.kafka.broker.list": servers,
            "stream.kafka.consumer.type": "lowlevel",
            "stream.kafka.consumer.prop.auto.offset.reset": "smallest",
            "stream.kafka.consumer.factory.class.name": "org.apache.pinot.plugin.stream.kafka20.KafkaConsumerFactory",
            "stream.kafka.decoder.class.name": "org.apache.pinot.plugin.stream.kafka.KafkaJSONMessageDecoder",
            **{name.removeprefix(_STREAM): text for name, text in _taken(endpoint, _STREAM).items()},
        }
        self._table = Table.of(endpoint, self._controller.table, "REALTIME", stream)
        self._url = endpoint.url
        # A variable that is not set is known here, not in a worker.
        self._with_secrets()
        self._key = [name for name in endpoint.option("key", str, "").split(",") if name]
        options = {name: endpoint.options.pop(name) for name in _KAFKA_OPTIONS if name in endpoint.options}
        options |= _taken(endpoint, _LIBRDKAFKA)
        super().__init__(Endpoint("kafka", f"//{servers}/{topic}", options))
        self._layout: _Layout = _Layout(self._key)  # type: ignore[assignment]
        # Rows without those that are refused: the producer knows a bulk that is tried again by its table.
        self._parts: dict[int, tuple[pl.DataFrame, pl.DataFrame]] = {}

    def check(self, schema: pl.Schema) -> None:
        for name in self._key:
            if name not in schema:
                raise SchemaError(f"pinot: key={','.join(self._key)}: there is no {name!r}. {nearest(name, schema)}")
        self._table.columns(schema)

    def connect(self, timeout: float) -> None:
        self._controller.timeout = timeout
        super().connect(timeout)

    def ensure(self, schema: pl.Schema) -> None:
        self._controller.ensure(self._with_secrets(), schema)

    def write(self, table: pl.DataFrame) -> pl.DataFrame | None:
        if id(table) not in self._parts:
            self._parts[id(table)] = unfit(table)
        fit, bad = self._parts[id(table)]
        refused = super().write(fit) if fit.height else None
        del self._parts[id(table)]
        if not bad.height:
            return refused
        return bad if refused is None else pl.concat([bad, refused])

    def abandon(self, table: pl.DataFrame) -> pl.DataFrame:
        fit, bad = self._parts.pop(id(table), (table, table.clear()))
        return pl.concat([bad.select(table.columns), super().abandon(fit)])

    def transient(self, error: Exception) -> bool:
        return super().transient(error) or self._controller.transient(error)

    def _with_secrets(self) -> Table:
        """The table, variables of the environment filled in."""
        return replace(self._table, stream={name: filled(text, self._url) for name, text in self._table.stream.items()})


class _Layout:
    """A message is a row as JSON; its key, by which it goes to a partition, is the row's identity."""

    def __init__(self, key: list[str]) -> None:
        self._key = key

    def messages(self, table: pl.DataFrame) -> Messages:
        ids = identities(table, self._key)
        rows = values(table).with_columns(ids.alias(ID), pl.lit(time.time_ns() // 1_000_000).alias(WRITTEN))
        return Messages(to_json(rows), ids, {}, None)


class WriteRealtime(StoreSink):
    """Write batches to a table of Pinot that is fed from a topic of Kafka, where a row replaces that of its identity.

    Args:
        endpoint: `pinot://[user:password@]controller[:port]/table?kafka=host:port[,host:port][/topic]`; the topic is
            named like the table if not otherwise. `key` (columns, by commas) is the identity instead of `source` and
            `offset`; `layout` `analytics`, `dashboards` or `reports` (indexes), `dimensions` the columns that queries
            filter and group by, `ttl` in seconds, `alter=true` adds columns to a table that is there, `https=true`;
            `stream.NAME` is any of the table's settings for Kafka, and `compression`, `create`, `partitions`,
            `replication`, `librdkafka.NAME` are those of `WriteKafka`. And what every store's URL takes: see
            `StoreSink`.
        job: not used.

    Rows are written when all in-sync replicas of Kafka have them, whether Pinot runs or not; they can be queried some
    tens of milliseconds later, or once it runs again.

    Source: https://docs.pinot.apache.org/basics/data-import/upsert
    """

    store = RealtimeStore


def _taken(endpoint: Endpoint, prefix: str) -> dict[str, str]:
    return {name: endpoint.options.pop(name) for name in list(endpoint.options) if name.startswith(prefix)}
