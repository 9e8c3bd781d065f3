"""One partition of Kafka, read from an offset on."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Mapping
from typing import Self

import numpy as np
import polars as pl

from fabric_beam.errors import InputError
from fabric_beam.io.kafka.columns import errors_among, size_of, table_of_messages
from fabric_beam.io.kafka.librdkafka import ERROR, OFFSET, ON_ERROR, connect, destroy, library
from fabric_beam.io.kafka.topic import gone
from fabric_beam.views import Words

#: A batch is not made longer once it holds so many bytes.
_BYTES = 16 << 20
_NO_OFFSET_RESET, _PARTITION_EOF = -140, -191
#: Errors that waiting does not mend: authentication, authorization of topic, group and cluster.
_REFUSED = {-169, 29, 30, 31, 58}
#: What may be set otherwise: with librdkafka's own values, a reader that is faster than the brokers waits for a second
#: each time that librdkafka holds enough.
_DEFAULTS = {"fetch.queue.backoff.ms": "10", "fetch.message.max.bytes": "4194304"}
#: Without a group nothing is stored; the end of a partition is told, and what was deleted is an error.
_SETTINGS = {
    "enable.auto.commit": "false",
    "enable.auto.offset.store": "false",
    "enable.partition.eof": "true",
    "auto.offset.reset": "error",
}


class PartitionReader:
    """The messages of one partition from an offset on; a context manager.

    Args:
        settings: of librdkafka; `bootstrap.servers` among them.
        topic: its name.
        partition: its number.
        start: the first offset.
        timeout: seconds without any news from the brokers until it gives up.

    Attributes:
        position: the offset after the last message that was read, or that is known not to be there.

    Raises:
        UsageError: a setting is wrong.
    """

    def __init__(self, settings: Mapping[str, str], topic: str, partition: int, start: int, *, timeout: float) -> None:
        self.position = start
        self._source = f"{topic}-{partition}"
        self._partition, self._timeout = partition, timeout
        self._reason = "they say nothing"
        self._client = self._topic = None
        self._on_error = ON_ERROR(self._keep_reason)
        self._library, self._functions = library()
        self._client = connect({**_DEFAULTS, **settings, **_SETTINGS}, self._on_error)
        self._topic = self._library.rd_kafka_topic_new(self._client, topic.encode(), None)
        if self._library.rd_kafka_consume_start(self._topic, partition, start):
            self.close()
            raise InputError(f"kafka: {self._source} cannot be read from offset {start}.")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Leave the brokers."""
        if self._topic is not None:
            self._library.rd_kafka_consume_stop(self._topic, self._partition)
            self._library.rd_kafka_topic_destroy(self._topic)
        if self._client is not None:
            self._library.rd_kafka_destroy(self._client)
        self._client = self._topic = None

    def read(self, stop: int, *, max_rows: int, max_wait: float) -> pl.DataFrame:
        """The next messages; none if there are only control records and aborted messages up to `stop`.

        Args:
            stop: the offset to end before; `position` is there once all are read.
            max_rows: how many at most.
            max_wait: seconds to wait for more once there is one.

        Returns:
            Columns `key`, `body`, `headers`, `timestamp`, `source` and `offset`.

        Raises:
            InputError: the messages were deleted, reading is not allowed, or no broker answers for too long.
        """
        wanted = min(max_rows, stop - self.position)
        messages = np.zeros(wanted, np.uint64)
        rows = 0
        try:
            rows = self._fetch(messages, stop, max_wait)
            table = table_of_messages(messages[:rows], self._source)
        finally:
            destroy(self._functions, messages)
        if self.position > stop:
            self.position = stop
            table = table.filter(pl.col("offset") < stop)
        return table

    def _fetch(self, messages: Words, stop: int, max_wait: float) -> int:
        """Fill an array with the addresses of messages; returns how many there are."""
        rows, size, begun, until = 0, 0, time.monotonic(), None
        while rows < len(messages) and size < _BYTES and self.position < stop:
            # What has arrived is taken at once, and is bounded by what librdkafka keeps; for more, wait for one.
            count = self._consume(messages[rows:], 0) or self._consume(messages[rows : rows + 1], 100)
            self._library.rd_kafka_poll(self._client, 0)
            now = time.monotonic()
            if count:
                before = self.position
                count = self._sort_out(messages, rows, count)
                size += size_of(messages, rows, rows + count)
                rows += count
                if count:
                    # The end may have been told behind the last message, beyond control records that nobody gets.
                    self.position = max(self.position, _offset(int(messages[rows - 1])) + 1)
                    until = until or now + max_wait
                begun = now if self.position > before else begun
            elif rows and until is not None and now > until:
                break
            elif now - begun > self._timeout:
                raise InputError(
                    f"kafka: {self._source}: nothing came from the brokers for {self._timeout:.0f} s, at offset "
                    f"{self.position} of {stop}: {self._reason}."
                )
        return rows

    def _consume(self, room: Words, milliseconds: int) -> int:
        address = room.ctypes.data
        count = self._library.rd_kafka_consume_batch(self._topic, self._partition, milliseconds, address, len(room))
        return max(int(count), 0)

    def _sort_out(self, messages: Words, first: int, count: int) -> int:
        """Take what are no messages out of new ones; returns how many are left."""
        if not errors_among(messages, first, first + count):
            return count
        kept, errors = [], []
        for address in messages[first : first + count].tolist():
            error = ctypes.c_int.from_address(address + ERROR).value
            if error:
                reason = self._library.rd_kafka_message_errstr(address).decode(errors="replace")
                errors.append((error, _offset(address), reason))
                self._library.rd_kafka_message_destroy(address)
            else:
                kept.append(address)
        messages[first : first + count] = kept + [0] * (count - len(kept))
        for error, offset, reason in errors:
            if error == _PARTITION_EOF:
                self.position = max(self.position, offset)
            elif error == _NO_OFFSET_RESET:
                first_left, _ = self._offsets()
                raise InputError(gone(self._source, _offset(kept[-1]) + 1 if kept else self.position, first_left))
            elif error in _REFUSED:
                raise InputError(f"kafka: {self._source} may not be read: {reason}.")
            else:
                self._reason = reason
        return len(kept)

    def _offsets(self) -> tuple[int, int]:
        low, high = ctypes.c_int64(-1), ctypes.c_int64(-1)
        topic, partition = self._source.rpartition("-")[0].encode(), self._partition
        self._library.rd_kafka_query_watermark_offsets(
            self._client, topic, partition, ctypes.byref(low), ctypes.byref(high), 5000
        )
        return low.value, high.value

    def _keep_reason(self, client: int, error: int, reason: bytes, opaque: int) -> None:
        self._reason = reason.decode(errors="replace")


def _offset(message: int) -> int:
    return ctypes.c_int64.from_address(message + OFFSET).value
