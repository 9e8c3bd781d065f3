"""Messages of Kafka as tables: compiled loops copy them into columns."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from fabric_beam.io.kafka import librdkafka as rd
from fabric_beam.io.kafka.librdkafka import call, is_error, load
from fabric_beam.io.lines import as_utf8, is_utf8
from fabric_beam.views import Mask, Positions, Text, Words, compiled, inlined, numbers, padded

HEADERS = pl.List(pl.Struct({"key": pl.String(), "value": pl.String()}))
SCHEMA = pl.Schema(
    {
        "key": pl.String(),
        "body": pl.String(),
        "headers": HEADERS,
        "timestamp": pl.Datetime("us", "UTC"),
        "source": pl.String(),
        "offset": pl.Int64(),
    }
)


def table_of_messages(messages: Words, source: str) -> pl.DataFrame:
    """Copy messages into columns.

    Args:
        messages: their addresses.
        source: the topic and partition that they are of.

    Returns:
        A row for each; bytes that are not UTF-8 are U+FFFD.
    """
    functions = rd.library()[1]
    rows = len(messages)
    if not rows:
        return pl.DataFrame(schema=SCHEMA)
    offsets, times = np.empty(rows, np.int64), np.empty(rows, np.int64)
    counts = np.zeros(rows, np.int64)
    scratch = np.zeros(4, np.uint64)
    size, headers = _measure(functions, messages, scratch, counts)
    # Each text is followed by a zero: no character can begin in one and end in the next.
    texts = 2 * (rows + headers)
    words = padded(size + texts)
    starts, lengths, valid = np.empty(texts, np.int64), np.empty(texts, np.int64), np.empty(texts, np.bool_)
    at = _copy(functions, messages, scratch, words.view(np.uint8), counts, starts, lengths, valid, offsets, times)
    words.view(np.uint8)[at:] = 0
    text = Text(pa.py_buffer(words))
    if not is_utf8(words, at):
        text = as_utf8(words, at, starts, lengths, np.arange(texts))

    def column(first: int, last: int) -> pl.Series:
        there = valid[first:last]
        if not there.any():
            return pl.Series([None], dtype=pl.String).new_from_index(0, last - first)
        cut = text.cut(starts[first:last], lengths[first:last])
        return cut if there.all() else cut.zip_with(pl.Series(there), pl.Series([None], dtype=pl.String))

    names, values = column(2 * rows, 2 * rows + headers), column(2 * rows + headers, texts)
    return pl.DataFrame(
        [
            column(rows, 2 * rows).alias("key"),
            column(0, rows).alias("body"),
            _lists(names, values, counts).alias("headers"),
            numbers(pa.timestamp("us", "UTC"), times, times >= 0).alias("timestamp"),
            pl.Series("source", [source]).new_from_index(0, rows),
            numbers(pa.int64(), offsets).alias("offset"),
        ]
    )


def _lists(names: pl.Series, values: pl.Series, counts: Positions) -> pl.Series:
    """Headers as a list for each message, of which they have so many."""
    structs = pl.DataFrame({"key": names, "value": values}).to_struct()
    ends = np.concatenate([[0], np.cumsum(counts)])
    array = pa.LargeListArray.from_arrays(pa.array(ends), structs.to_arrow(compat_level=pl.CompatLevel.newest()))
    lists = pl.from_arrow(array)
    assert isinstance(lists, pl.Series)
    return lists


@compiled
def errors_among(messages: Words, first: int, last: int) -> int:
    """How many of these addresses are not of messages but of errors."""
    count = 0
    for row in range(first, last):
        count += is_error(load(messages[row] + np.uint64(rd.ERROR)))
    return count


@compiled
def size_of(messages: Words, first: int, last: int) -> int:
    """The bytes of their keys and bodies."""
    size = np.uint64(0)
    for row in range(first, last):
        size += load(messages[row] + np.uint64(rd.LENGTH)) + load(messages[row] + np.uint64(rd.KEY_LENGTH))
    return int(size)


@compiled
def _measure(functions: Words, messages: Words, scratch: Words, counts: Positions) -> tuple[int, int]:
    """The bytes of all texts, and how many headers there are; those of each message go to `counts`."""
    out = np.uint64(scratch.ctypes.data)
    name, value, length = out, out + np.uint64(8), out + np.uint64(16)
    size, total = size_of(messages, 0, len(messages)), 0
    for row in range(len(messages)):
        if is_error(call(functions[rd.HEADERS], (messages[row], out + np.uint64(24)))):
            continue
        headers = scratch[3]
        count = np.uint64(0)
        while not is_error(call(functions[rd.HEADER], (headers, count, name, value, length))):
            size += int(call(functions[rd.STRLEN], (scratch[0],)) + scratch[2])
            count += np.uint64(1)
        counts[row] = np.int64(count)
        total += counts[row]
    return size, total


@compiled
def _copy(
    functions: Words,
    messages: Words,
    scratch: Words,
    text: npt.NDArray[np.uint8],
    counts: Positions,
    starts: Positions,
    lengths: Positions,
    valid: Mask,
    offsets: Positions,
    times: Positions,
) -> int:
    """Copy bodies, keys, headers' names and their values, in this order of `starts`; returns the bytes written."""
    out, base = np.uint64(scratch.ctypes.data), np.uint64(text.ctypes.data)
    name, value, length = out, out + np.uint64(8), out + np.uint64(16)
    rows = len(messages)
    total = (len(starts) - 2 * rows) >> 1
    at, header = 0, 2 * rows
    for row in range(rows):
        message = messages[row]
        offsets[row] = np.int64(load(message + np.uint64(rd.OFFSET)))
        milliseconds = np.int64(call(functions[rd.TIMESTAMP], (message, out)))
        times[row] = milliseconds * 1000 if milliseconds >= 0 else -1
        for place, field, size in ((row, rd.PAYLOAD, rd.LENGTH), (rows + row, rd.KEY, rd.KEY_LENGTH)):
            address, count = load(message + np.uint64(field)), load(message + np.uint64(size))
            at = _put(functions, base, text, at, place, address, count, starts, lengths, valid)
        if counts[row]:
            call(functions[rd.HEADERS], (message, out + np.uint64(24)))
            headers = scratch[3]
            for index in range(counts[row]):
                call(functions[rd.HEADER], (headers, np.uint64(index), name, value, length))
                count = call(functions[rd.STRLEN], (scratch[0],))
                at = _put(functions, base, text, at, header, scratch[0], count, starts, lengths, valid)
                at = _put(functions, base, text, at, header + total, scratch[1], scratch[2], starts, lengths, valid)
                header += 1
    return at


@inlined
def _put(
    functions: Any,
    base: Any,
    text: Any,
    at: Any,
    place: Any,
    address: Any,
    count: Any,
    starts: Any,
    lengths: Any,
    valid: Any,
) -> Any:
    """Copy one text to its place, a zero behind it; returns where the next one goes."""
    starts[place], lengths[place], valid[place] = at, np.int64(count), address != np.uint64(0)
    call(functions[rd.COPY], (base + np.uint64(at), address, count))
    end = at + np.int64(count)
    text[end] = 0
    return end + 1
