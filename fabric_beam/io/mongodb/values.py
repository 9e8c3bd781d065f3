"""Values of BSON's types, as Python's."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from fabric_beam.io.records.values import from_milliseconds

_UUID_BYTES = 16


def plain(value: Any) -> Any:
    """A value of one of BSON's types as one of Python's; JSON text, if Python has none."""
    return _makers().get(type(value), as_json)(value)


@functools.lru_cache
def _makers() -> dict[type, Callable[[Any], Any]]:
    from bson import Decimal128, Int64, ObjectId, Timestamp
    from bson.binary import ALL_UUID_SUBTYPES, Binary
    from bson.datetime_ms import DatetimeMS

    return {
        Int64: int,
        ObjectId: str,
        Decimal128: lambda value: value.to_decimal(),
        Binary: lambda value: (
            str(value.as_uuid(value.subtype))
            if value.subtype in ALL_UUID_SUBTYPES and len(value) == _UUID_BYTES
            else bytes(value)
        ),
        # Of a time that Python does not have.
        DatetimeMS: int,
        Timestamp: lambda value: from_milliseconds(value.time * 1000),
    }


def as_json(value: Any) -> str:
    """A document, or any value of one, in MongoDB's extended JSON, relaxed."""
    from bson.json_util import RELAXED_JSON_OPTIONS, dumps

    return dumps(value, json_options=RELAXED_JSON_OPTIONS, ensure_ascii=False)
