"""Tables as messages of Kafka: compiled loops hand them to librdkafka and take its delivery reports."""

from __future__ import annotations

import ctypes
import itertools
import time
from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from fabric_beam.errors import UsageError
from fabric_beam.io.kafka.librdkafka import ERROR, call, library, load
from fabric_beam.views import Positions, Words, compiled

#: What a message's status is besides an error of librdkafka; 0 is delivered.
UNSENT, SENT = 1 << 30, 1 << 31
#: Functions that compiled loops call, by their place in the array of their addresses.
_PRODUCE, _CODE, _DESTROY = range(3)
_FUNCTIONS = ("produceva", "error_code", "error_destroy")
_PRODUCER, _PRIVATE = 0, 64
_REPORTS, _ERRORS = 1, 8
_QUEUED_AND_IN_FLIGHT = 3
_QUEUE_FULL = -184
#: An `rd_kafka_vu_t` in words: its kind, then the value it holds.
_WIDTH = 9
_TOPIC, _VALUE, _KEY, _OPAQUE, _FLAGS, _TIMESTAMP, _HEADER = 2, 4, 5, 6, 7, 8, 9
_COPY = 2
#: A message is known by its bulk's number and, in so many bits, its row.
_ROW_BITS, _ROW = 32, (1 << 32) - 1
_NUMBERS = itertools.count(1)
_POLL_SECONDS = 0.02
_PURGE_SECONDS = 1.0


@cache
def _library() -> tuple[Any, Words]:
    loaded, _ = library()
    pointer, text, size, number = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_int
    for name, result, arguments in (
        ("conf_set_events", None, (pointer, number)),
        ("queue_get_main", pointer, (pointer,)),
        ("queue_destroy", None, (pointer,)),
        ("queue_poll", pointer, (pointer, number)),
        ("event_type", number, (pointer,)),
        ("event_error", number, (pointer,)),
        ("event_error_string", text, (pointer,)),
        ("event_message_array", size, (pointer, pointer, size)),
        ("event_message_count", size, (pointer,)),
        ("event_destroy", None, (pointer,)),
        ("purge", number, (pointer, number)),
        ("err2str", text, (number,)),
        ("fatal_error", number, (pointer, pointer, size)),
    ):
        function = getattr(loaded, f"rd_kafka_{name}")
        function.restype, function.argtypes = result, arguments
    functions = [getattr(loaded, f"rd_kafka_{name}") for name in _FUNCTIONS]
    return loaded, np.array([ctypes.cast(one, pointer).value for one in functions], np.uint64)


class Messages:
    """Messages that are to be produced, and what became of each.

    Args:
        value: String or Binary; null is a tombstone.
        key: String or Binary; null is none. None if no message has one.
        headers: a column for each header, String or Binary, by its name.
        times: milliseconds since 1970; 0 is the time of producing.

    Attributes:
        number: tells these messages from others.
        status: of each message: `UNSENT`, `SENT`, 0 (delivered), or an error of librdkafka.
        alone: whether it was sent by itself, or librdkafka did not take it: its error is its own.
    """

    def __init__(
        self, value: pl.Series, key: pl.Series | None, headers: Mapping[str, pl.Series], times: pl.Series | None
    ) -> None:
        rows = len(value)
        self.number = next(_NUMBERS)
        self.status: Positions = np.full(rows, UNSENT, np.int64)
        self.alone = np.zeros(rows, np.bool_)
        self.times: Positions = np.zeros(rows, np.int64) if times is None else times.fill_null(0).to_numpy()
        names = [ctypes.create_string_buffer(name.encode()) for name in headers]
        fields = [value, key if key is not None else pl.Series([None], dtype=pl.Binary).new_from_index(0, rows)]
        fields += headers.values()
        self.addresses: Words = np.zeros((len(fields), rows), np.uint64)
        self.lengths: Positions = np.zeros((len(fields), rows), np.int64)
        self.names: Words = np.array([ctypes.addressof(name) for name in names], np.uint64)
        # What the addresses point into must live as long as they do.
        self._memory = [names, *(self._point(field, column) for field, column in enumerate(fields))]

    def _point(self, field: int, column: pl.Series) -> pa.Buffer | None:
        if column.null_count() == len(column):
            return None
        array = column.cast(pl.Binary).alias("").rechunk().to_arrow(compat_level=pl.CompatLevel.oldest())
        offsets = np.frombuffer(array.buffers()[1], np.int64)[array.offset : array.offset + len(array) + 1]
        self.lengths[field] = np.diff(offsets)
        # An empty text still has an address: without one it would be null.
        data = array.buffers()[2] if array.buffers()[2].size else pa.py_buffer(b"\0")
        self.addresses[field] = np.uint64(data.address) + offsets[:-1].astype(np.uint64)
        if column.null_count():
            absent = column.is_null().to_numpy()
            self.addresses[field][absent] = self.lengths[field][absent] = 0
        return data


class Producer:
    """An idempotent producer of one topic's messages; several threads may use it.

    Args:
        settings: of librdkafka; `bootstrap.servers` among them.
        topic: its name.

    Attributes:
        problem: what the connections to the brokers last suffered from, as (error of librdkafka, words); None: nothing.

    Raises:
        UsageError: a setting is wrong.
    """

    def __init__(self, settings: Mapping[str, str], topic: str) -> None:
        self._library, self._functions = _library()
        self.problem: tuple[int, str] | None = None
        self._known: dict[int, Messages] = {}
        said = ctypes.create_string_buffer(512)
        conf = self._library.rd_kafka_conf_new()
        self._library.rd_kafka_conf_set_log_cb(conf, None)
        self._library.rd_kafka_conf_set_events(conf, _REPORTS | _ERRORS)
        client = None
        if not any(
            self._library.rd_kafka_conf_set(conf, name.encode(), value.encode(), said, len(said))
            for name, value in settings.items()
        ):
            client = self._library.rd_kafka_new(_PRODUCER, conf, said, len(said))
        if not client:
            self._library.rd_kafka_conf_destroy(conf)
            raise UsageError(f"kafka: {said.value.decode(errors='replace')}.")
        self._client = client
        self._topic = self._library.rd_kafka_topic_new(client, topic.encode(), None)
        self._queue = self._library.rd_kafka_queue_get_main(client)

    @property
    def is_broken(self) -> bool:
        """Whether it cannot go on without the risk of messages that are lost, twice, or out of order."""
        return bool(self._library.rd_kafka_fatal_error(self._client, None, 0))

    def deliver(self, messages: Messages, rows: Positions, until: float) -> bool:
        """Produce messages that are `UNSENT`, and wait until the fate of all that are `SENT` is known.

        Args:
            messages: the messages; their status is kept up to date. What an earlier call sent is not sent again: it is
                still on its way.
            rows: which of them, in order.
            until: when to wait no longer, by `time.monotonic`.

        Returns:
            Whether nothing of them is `UNSENT` or `SENT` any more.
        """
        self._known[messages.number] = messages
        unsent = rows[messages.status[rows] == UNSENT]
        request = self._request(messages)
        while len(unsent):
            taken = _produce(
                self._functions,
                np.uint64(self._client),
                request,
                unsent,
                messages.number << _ROW_BITS,
                messages.addresses,
                messages.lengths,
                messages.times,
                messages.status,
                messages.alone,
            )
            unsent = unsent[taken:]
            if len(unsent) and not self._collect(until):
                return False
        while (messages.status[rows] == SENT).any():
            if not self._collect(until):
                return False
        return True

    def forget(self, messages: Messages) -> None:
        """Deliver nothing more of messages, nor of any others: what was `SENT` becomes an error.

        Those that are on their way may arrive all the same.
        """
        self._library.rd_kafka_purge(self._client, _QUEUED_AND_IN_FLIGHT)
        until = time.monotonic() + _PURGE_SECONDS
        while (messages.status == SENT).any() and self._collect(until):
            pass
        self.done(messages)

    def done(self, messages: Messages) -> None:
        """Say that nobody waits for these messages any more."""
        self._known.pop(messages.number, None)

    def close(self) -> None:
        """Leave the brokers; what was not delivered is forgotten."""
        self._library.rd_kafka_purge(self._client, _QUEUED_AND_IN_FLIGHT)
        self._library.rd_kafka_queue_destroy(self._queue)
        self._library.rd_kafka_topic_destroy(self._topic)
        self._library.rd_kafka_destroy(self._client)

    def _request(self, messages: Messages) -> Words:
        """The arguments of a message, but for its own values."""
        kinds = [_TOPIC, _FLAGS, _OPAQUE, _TIMESTAMP, _VALUE, _KEY] + [_HEADER] * len(messages.names)
        request = np.zeros((len(kinds), _WIDTH), np.uint64)
        request[:, 0] = kinds
        request[:2, 1] = self._topic, _COPY
        request[6:, 1] = messages.names
        return request

    def _collect(self, until: float) -> bool:
        """Take what librdkafka has to say next, of any thread's messages; False when the time is up."""
        left = until - time.monotonic()
        if left <= 0:
            return False
        # No longer than a moment: another thread may take what this one waits for.
        event = self._library.rd_kafka_queue_poll(self._queue, max(1, int(min(left, _POLL_SECONDS) * 1000)))
        if not event:
            return True
        try:
            kind = self._library.rd_kafka_event_type(event)
            if kind == _ERRORS:
                words = self._library.rd_kafka_event_error_string(event) or b""
                self.problem = self._library.rd_kafka_event_error(event), words.decode(errors="replace")
            elif kind == _REPORTS:
                reports = np.zeros(self._library.rd_kafka_event_message_count(event), np.uint64)
                self._library.rd_kafka_event_message_array(event, reports.ctypes.data, len(reports))
                messages, codes = (np.empty(len(reports), np.int64) for _ in range(2))
                _read(reports, messages, codes)
                self._note(messages, codes)
        finally:
            self._library.rd_kafka_event_destroy(event)
        return True

    def _note(self, messages: Positions, codes: Positions) -> None:
        numbers, rows = messages >> _ROW_BITS, messages & _ROW
        for number in np.unique(numbers).tolist():
            known = self._known.get(number)
            if known is not None:
                these = numbers == number
                known.status[rows[these]] = codes[these]


def reason(code: int) -> str:
    """An error of librdkafka in words."""
    return str(_library()[0].rd_kafka_err2str(code).decode(errors="replace"))


@compiled
def _produce(
    functions: Words,
    client: Any,
    request: npt.NDArray[np.uint64],
    rows: Positions,
    first: int,
    addresses: npt.NDArray[np.uint64],
    lengths: npt.NDArray[np.int64],
    times: Positions,
    status: Positions,
    alone: npt.NDArray[np.bool_],
) -> int:
    """Produce messages until librdkafka has no more room; returns how many it took or refused."""
    arguments, count = np.uint64(request.ctypes.data), np.uint64(len(request))
    for place in range(len(rows)):
        row = rows[place]
        request[2, 1] = np.uint64(first + row)
        request[3, 1] = np.uint64(times[row])
        for field in range(len(addresses)):
            # A header holds its name before its value.
            at = 1 if field < 2 else 2
            request[4 + field, at] = addresses[field, row]
            request[4 + field, at + 1] = np.uint64(lengths[field, row])
        status[row] = SENT
        failed = call(functions[_PRODUCE], (client, arguments, count))
        if failed != np.uint64(0):
            code = np.int64(np.int32(call(functions[_CODE], (failed,)) & np.uint64(0xFFFFFFFF)))
            call(functions[_DESTROY], (failed,))
            if code == _QUEUE_FULL:
                status[row] = UNSENT
                return place
            status[row], alone[row] = code, True
    return len(rows)


@compiled
def _read(reports: Words, messages: Positions, codes: Positions) -> None:
    """Which messages delivery reports are of, and their errors."""
    for place in range(len(reports)):
        messages[place] = np.int64(load(reports[place] + np.uint64(_PRIVATE)))
        codes[place] = np.int64(np.int32(load(reports[place] + np.uint64(ERROR)) & np.uint64(0xFFFFFFFF)))
