"""Ranges of `_id`, of whatever types the ids are: what they are as text, and how they are asked for.

A query compares an id with those of its kind only, while the index has one kind after the other: so a range is a part
of one kind, or all ids of several.

Source: https://www.mongodb.com/docs/manual/reference/bson-type-comparison-order/
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from itertools import groupby, pairwise
from typing import Any

#: The numbers of BSON's types in the order in which values are sorted; those on a line are compared by value.
_KINDS = (
    *((-1,), (6,), (10,)),
    (1, 16, 18, 19),
    (2, 14),
    *((3,), (4,), (5,), (7,), (8,), (9,), (17,), (11,), (12,), (13,), (15,), (127,)),
)
_ALL = [number for types in _KINDS for number in types]
#: The least and the greatest key, undefined and null: kinds of one value.
_SINGLE = (0, 1, 2, len(_KINDS) - 1)


def ranges(ids: Sequence[Any]) -> list[str]:
    """Ranges that together hold every id once.

    Args:
        ids: where to cut, sorted as the store sorts.

    Returns:
        Each as text: of which types ids are, and above which one they begin and with which one they end.

    Example:
        >>> ranges(["m"])[:2]
        ['{"types": [2, 14], "to": "m"}', '{"types": [2, 14], "after": "m"}']
        >>> ranges([])
        ['{"types": [-1, 6, 10, 1, 16, 18, 19, 2, 14, 3, 4, 5, 7, 8, 9, 17, 11, 12, 13, 15, 127]}']
    """
    found = []
    whole = dict(enumerate(_KINDS))
    for kind, members in groupby(ids, _kind):
        bounds = [each for each in members if not _is_nan(each)]
        if kind in _SINGLE or not bounds:
            continue
        types = list(whole.pop(kind))
        found.append(_text(types, to=bounds[0]))
        found += [_text(types, after=one, to=other) for one, other in pairwise(bounds) if one != other]
        found.append(_text(types, after=bounds[-1]))
    return [*found, _text([number for types in whole.values() for number in types])]


def rest(text: str, last: Any) -> str:
    """What is left of a range after an id."""
    return _text(**{**_parse(text), "after": last})


def query(text: str) -> dict[str, Any] | None:
    """What finds the ids of a range; None if there can be none.

    Example:
        >>> query(ranges(["m"])[0])
        {'_id': {'$type': [2, 14], '$not': {'$gt': 'm'}}}
        >>> query(ranges(["m"])[1])
        {'_id': {'$gt': 'm'}}
    """
    parsed = _parse(text)
    types, to = parsed["types"], {"$lte": parsed["to"]} if "to" in parsed else {}
    if "after" not in parsed:
        if not to and len(types) == len(_ALL):
            return {}
        # Not `$lte`: what is not a number is no less than one, and no more.
        return {"_id": {"$type": types, **({"$not": {"$gt": parsed["to"]}} if to else {})}}
    kind, clauses = _kind(parsed["after"]), []
    if kind not in _SINGLE:
        after = {"$gte": float("-inf")} if _is_nan(parsed["after"]) else {"$gt": parsed["after"]}
        clauses.append({"_id": {**after, **to}})
    if later := [number for number in types if any(number in each for each in _KINDS[kind + 1 :])]:
        clauses.append({"_id": {"$type": later}})
    return {"$or": clauses} if len(clauses) > 1 else next(iter(clauses), None)


def _kind(value: Any) -> int:
    """The place of an id's kind among the kinds."""
    import bson

    # A document with it says what type it is encoded as: the first byte after the length.
    number = bson.encode({"": value})[4]
    return next(place for place, types in enumerate(_KINDS) if (number if number != 255 else -1) in types)


def _is_nan(value: Any) -> bool:
    from bson import Decimal128

    return (
        value.to_decimal().is_nan() if isinstance(value, Decimal128) else isinstance(value, float) and math.isnan(value)
    )


def _text(types: list[int], **bounds: Any) -> str:
    from bson.json_util import CANONICAL_JSON_OPTIONS, dumps

    exact = dumps(bounds, json_options=CANONICAL_JSON_OPTIONS)
    return json.dumps({"types": types, **json.loads(exact)})


def _parse(text: str) -> dict[str, Any]:
    from bson.codec_options import DatetimeConversion
    from bson.json_util import JSONOptions, loads

    return dict(
        loads(text, json_options=JSONOptions(tz_aware=False, datetime_conversion=DatetimeConversion.DATETIME_AUTO))
    )
