"""Single values as the client encodes them: for types that have no faster way."""

from __future__ import annotations

import socket
from collections.abc import Callable
from datetime import time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import polars as pl

from fabric_beam.io.templates import text

TEXTS = ("text", "varchar", "ascii")


def adapter(dtype: Any, cql: Any) -> Callable[[Any], Any]:
    """What makes of Python values of a type of Polars such that the client encodes as a type of CQL.

    Args:
        dtype: the type of Polars, which the other one holds.
        cql: the type of CQL, a class of the client's.
    """
    if cql.typename in TEXTS:
        return _texts(dtype)
    if cql.typename in _SINGLE:
        return _SINGLE[cql.typename]
    if cql.typename in ("list", "set"):
        inner = adapter(dtype.inner, cql.subtypes[0])
        kind = list if cql.typename == "list" else _set
        return lambda values: kind([inner(value) for value in values])
    if cql.typename == "map":
        return _map(dtype, cql)
    return _tuple(dtype, cql) if isinstance(dtype, pl.Struct) else _same


def _map(dtype: Any, cql: Any) -> Callable[[Any], Any]:
    from cassandra.util import OrderedMap

    if isinstance(dtype, pl.Struct):
        fields = {f.name: adapter(f.dtype, cql.subtypes[1]) for f in dtype.fields}
        return lambda value: {name: fields[name](each) for name, each in value.items() if each is not None}
    key, item = (adapter(f.dtype, kind) for f, kind in zip(dtype.inner.fields, cql.subtypes, strict=True))
    return lambda pairs: OrderedMap([(key(k), item(v)) for k, v in (tuple(pair.values()) for pair in pairs)])


def _tuple(dtype: Any, cql: Any) -> Callable[[Any], Any]:
    """Structs as tuples, or as a type that a user has made, whose fields have names."""
    types = {f.name: f.dtype for f in dtype.fields}
    names = getattr(cql, "fieldnames", None) or list(types)
    fields = [
        (name, adapter(types[name], kind) if name in types else _same)
        for name, kind in zip(names, cql.subtypes, strict=True)
    ]
    return lambda value: tuple(None if value.get(name) is None else adapt(value[name]) for name, adapt in fields)


def _texts(dtype: Any) -> Callable[[Any], Any]:
    if dtype.base_type() in (pl.String, pl.Categorical, pl.Enum):
        return _same
    return lambda value: pl.DataFrame({"v": pl.Series([value], dtype=dtype)}).select(text("v", dtype)).item()


def _same(value: Any) -> Any:
    return value


def _set(values: list[Any]) -> Any:
    from cassandra.util import SortedSet

    return SortedSet(values)


def _address(value: str) -> str:
    socket.inet_pton(socket.AF_INET6 if ":" in value else socket.AF_INET, value)
    return value


def _uuid(value: Any) -> UUID:
    return UUID(bytes=value) if isinstance(value, bytes) else UUID(value)


def _timeuuid(value: Any) -> UUID:
    made = _uuid(value)
    if made.version != 1:
        raise ValueError("it is not of version 1")
    return made


def _microseconds(value: Any) -> int:
    """Of a duration, or of a time since 1970, where numbers are kept."""
    if isinstance(value, timedelta):
        return value // timedelta(microseconds=1)
    return int(pl.Series([value]).dt.epoch("us").item()) if hasattr(value, "year") else int(value)


def _nanoseconds(value: time) -> int:
    return ((value.hour * 60 + value.minute) * 60 + value.second) * 1_000_000_000 + value.microsecond * 1_000


def _duration(value: timedelta) -> Any:
    from cassandra.util import Duration

    return Duration(0, 0, value // timedelta(microseconds=1) * 1_000)


_SINGLE: dict[str, Callable[[Any], Any]] = {
    **dict.fromkeys(("tinyint", "smallint", "int", "varint"), int),
    **dict.fromkeys(("float", "double"), float),
    "bigint": _microseconds,
    "decimal": lambda value: Decimal(str(value)),
    "blob": lambda value: value.encode() if isinstance(value, str) else value,
    "inet": _address,
    "uuid": _uuid,
    "timeuuid": _timeuuid,
    "time": _nanoseconds,
    "duration": _duration,
}
