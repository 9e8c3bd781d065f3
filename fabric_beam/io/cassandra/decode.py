"""Rows as CQL's protocol brings them, made into columns by compiled loops.

Source: https://github.com/apache/cassandra/blob/trunk/doc/native_protocol_v4.spec, section 4.2.5.2 (rows)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import polars as pl
import pyarrow as pa

from fabric_beam.errors import InputError
from fabric_beam.io.cassandra.values import TEXTS
from fabric_beam.views import Bytes, Positions, Text, compiled, numbers

if TYPE_CHECKING:
    from cassandra.cluster import Session

_PROTOCOL = 4
_MICROSECONDS = 1_000
#: Simple types in CQL → those of the columns that are read. Numbers of any size stay exact as texts.
# fmt: off
_READ: dict[str, Any] = {
    **dict.fromkeys((*TEXTS, "inet", "uuid", "timeuuid", "varint", "decimal"), pl.String()),
    "boolean": pl.Boolean(), "tinyint": pl.Int8(), "smallint": pl.Int16(), "int": pl.Int32(), "bigint": pl.Int64(),
    "counter": pl.Int64(), "float": pl.Float32(), "double": pl.Float64(), "blob": pl.Binary(),
    "timestamp": pl.Datetime("us", "UTC"), "date": pl.Date(), "time": pl.Time(), "duration": pl.Duration("us"),
}
# fmt: on


def read_type(cql: Any) -> Any:
    """The type of the column that values of a type of CQL (a class of the client's) are read into; None if there is
    none."""
    name, inner = cql.typename, [read_type(each) for each in getattr(cql, "subtypes", ())]
    if name in _READ:
        return _READ[name]
    if None in inner or not inner:
        return None
    if name in ("list", "set"):
        return pl.List(inner[0])
    if name == "map":
        return pl.List(pl.Struct({"key": inner[0], "value": inner[1]}))
    return pl.Struct(dict(zip(_fields(cql), inner, strict=True)))


def decoded(body: bytes, names: Sequence[str], types: Sequence[Any]) -> pl.DataFrame:
    """The rows of a result.

    Args:
        body: how many rows there are, and their values.
        names: of the columns.
        types: of the columns, classes of the client's.

    Returns:
        Columns of the types that `read_type` says.

    Raises:
        InputError: a value has no place in such a column.
    """
    rows, columns = int.from_bytes(body[:4], "big"), len(types)
    data = np.frombuffer(body, np.uint8)
    starts, lengths = (np.empty((columns, rows), np.int64) for _ in range(2))
    _find_values(data, starts, lengths)
    text = Text(pa.py_buffer(body)) if rows else None
    made = []
    for name, cql, start, length in zip(names, types, starts, lengths, strict=True):
        column = _column(data, text, cql, start, length) if rows else pl.Series([], dtype=read_type(cql))
        made.append(column.alias(name))
    return pl.DataFrame(made)


def raw_results(session: Session) -> None:
    """Let a session leave the values of results as they came: the client makes them Python's one by one."""
    from cassandra.protocol import ProtocolHandler, ResultMessage

    class Result(ResultMessage):
        def recv_results_rows(self, f: Any, version: Any, types: Any, described: Any, policy: Any) -> None:
            self.recv_results_metadata(f, types)
            columns = self.column_metadata or described
            self.column_names = [column[2] for column in columns]
            self.column_types = [column[3] for column in columns]
            self.parsed_rows = [(f.read(), self.column_names, self.column_types)]

    class Handler(ProtocolHandler):
        message_types_by_opcode: ClassVar[dict[int, Any]] = {
            **ProtocolHandler.message_types_by_opcode,
            ResultMessage.opcode: Result,
        }

    session.client_protocol_handler = Handler


def _column(data: Bytes, text: Text | None, cql: Any, starts: Positions, lengths: Positions) -> pl.Series:
    name = cql.typename
    if name in TEXTS:
        assert text is not None
        there = lengths >= 0
        cut = text.cut(np.where(there, starts, 0), np.maximum(lengths, 0))
        return cut if there.all() else cut.zip_with(pl.Series(there), pl.Series([None], dtype=pl.String))
    if name in _NUMBERS:
        values = np.empty(len(starts), np.int64)
        _read_numbers(data, starts, lengths, values)
        return _NUMBERS[name](numbers(pa.int64(), values, lengths > 0))
    found = [
        None if length < 0 else data[start : start + length].tobytes()
        for start, length in zip(starts.tolist(), lengths.tolist(), strict=True)
    ]
    if name == "blob":
        return pl.Series(found, dtype=pl.Binary)
    plain = _plain(cql)
    return pl.Series(
        [plain(cql.deserialize(value, _PROTOCOL)) if value else None for value in found], dtype=read_type(cql)
    )


def _plain(cql: Any) -> Callable[[Any], Any]:
    """What makes of the client's values those of a column."""
    name = cql.typename
    if name in _VALUES:
        return _VALUES[name]
    inner = [_plain(each) for each in getattr(cql, "subtypes", ())]

    def each(make: Callable[[Any], Any], value: Any) -> Any:
        return None if value is None else make(value)

    if name in ("list", "set"):
        return lambda values: [each(inner[0], value) for value in values]
    if name == "map":
        return lambda items: [{"key": each(inner[0], k), "value": each(inner[1], v)} for k, v in items.items()]
    if not inner:
        return lambda value: value
    fields = list(zip(_fields(cql), inner, strict=True))
    # A type that has got more fields has shorter values.
    return lambda value: {field: each(make, part) for (field, make), part in zip(fields, value, strict=False)}


def _fields(cql: Any) -> list[str]:
    return list(getattr(cql, "fieldnames", None) or (f"field_{n}" for n in range(len(cql.subtypes))))


def _duration(value: Any) -> timedelta:
    if value.months:
        raise InputError(
            f"cassandra: a duration of {value} has months, which have no fixed length. Leave the column out (fields=)."
        )
    return timedelta(days=value.days, microseconds=value.nanoseconds // _MICROSECONDS)


def _days(values: pl.Series) -> pl.Series:
    """Days since 1970 of numbers without a sign, in whose middle it lies."""
    return values.to_frame("v").select(pl.col("v").cast(pl.UInt32, wrap_numerical=True).cast(pl.Int64) - (1 << 31))["v"]


def _as_float(bits: Any, kind: Any) -> Callable[[pl.Series], pl.Series]:
    def as_float(values: pl.Series) -> pl.Series:
        there = values.is_not_null().to_numpy()
        floats = pl.Series(values.fill_null(0).to_numpy().astype(bits).view(kind))
        return floats if there.all() else floats.zip_with(pl.Series(there), pl.Series([None], dtype=floats.dtype))

    return as_float


_VALUES: dict[str, Callable[[Any], Any]] = {
    **dict.fromkeys(("inet", "uuid", "timeuuid", "varint", "decimal"), str),
    "duration": _duration,
    "date": lambda value: value.date(),
    "time": lambda value: value.time(),
}
#: Types of a fixed width, which are read as whole numbers first.
_NUMBERS: dict[str, Callable[[pl.Series], pl.Series]] = {
    **{name: lambda values, dtype=dtype: values.cast(dtype) for name, dtype in _READ.items() if dtype.is_integer()},  # type: ignore[misc]
    "boolean": lambda values: values != 0,
    "float": _as_float(np.int32, np.float32),
    "double": _as_float(np.int64, np.float64),
    "timestamp": lambda values: (values * _MICROSECONDS).cast(pl.Datetime("us", "UTC")),
    "date": lambda values: _days(values).cast(pl.Int32).cast(pl.Date),
    "time": lambda values: values.cast(pl.Time),
}


@compiled
def _find_values(data: Bytes, starts: Positions, lengths: Positions) -> None:
    """Find where each value starts, and how many bytes it has; fewer than none where there is none."""
    at = 4
    columns, rows = starts.shape
    for row in range(rows):
        for column in range(columns):
            length: Any = np.int64(np.int32(_number(data, at, 4)))
            at += 4
            starts[column, row], lengths[column, row] = at, length
            at += length if length > 0 else 0


@compiled
def _read_numbers(data: Bytes, starts: Positions, lengths: Positions, values: Positions) -> None:
    for row in range(len(starts)):
        length = max(lengths[row], 0)
        # The sign is in the first bit, however many bytes follow.
        unused = np.int64(64 - 8 * length)
        values[row] = (_number(data, starts[row], length) << unused) >> unused if length else 0


@compiled
def _number(data: Bytes, at: Any, length: Any) -> Any:
    number = np.int64(0)
    for n in range(length):
        number = (number << 8) | np.int64(data[at + n])
    return number
