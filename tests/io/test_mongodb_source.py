"""The MongoDB source without a server: its URL, and the ranges that it reads by."""

from __future__ import annotations

import math
from operator import ge, gt, le
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fabric_beam import Read
from fabric_beam.errors import UsageError
from fabric_beam.io.mongodb.ranges import query, ranges, rest

bson = pytest.importorskip("bson")

NUMBERS, TEXTS = (1, 16, 18, 19), (2, 14)
#: Ids of the kinds that are sorted by value in the same way here as there.
IDS = st.lists(st.integers(-5, 5) | st.just(math.nan) | st.sampled_from("abcdef") | st.none(), unique_by=str)


def kind(value: Any) -> tuple[int, ...]:
    """The BSON types that an id is sorted among."""
    return (10,) if value is None else TEXTS if isinstance(value, str) else NUMBERS


def place(value: Any) -> tuple[int, Any]:
    """What ids are sorted by: null, what is no number, numbers, texts."""
    if value is None:
        return 0, 0
    return (2, value) if isinstance(value, str) else (1, -math.inf if math.isnan(value) else value)


def matches(value: Any, asked: dict[str, Any]) -> bool:
    """Whether a server finds an id by a query, as far as those here go."""
    if "$or" in asked:
        return any(matches(value, one) for one in asked["$or"])
    for operator, operand in asked.get("_id", {}).items():
        if operator == "$type":
            fits = any(number in kind(value) for number in operand)
        elif operator == "$not":
            fits = not matches(value, {"_id": operand})
        else:
            compare = {"$gt": gt, "$gte": ge, "$lte": le}[operator]
            fits = kind(value) == kind(operand) and value is not None and compare(value, operand)
        if not fits:
            return False
    return True


@given(IDS, IDS, st.integers(1, 4))
def test_ranges_hold_every_id_once_however_they_are_paged(ids: list[Any], cuts: list[Any], page: int) -> None:
    """Of whatever kinds the ids are, and those that the collection is cut at."""
    found = []
    for text in ranges(sorted(cuts, key=place)):
        left: str | None = text
        while left is not None:
            asked = query(left)
            matching = sorted((each for each in ids if asked is not None and matches(each, asked)), key=place)[:page]
            found += matching
            left = rest(left, matching[-1]) if matching else None
    assert sorted(map(str, found)) == sorted(map(str, ids))


def test_ids_of_any_type_can_be_bounds() -> None:
    """They go through the text and come out as they were."""
    for bound in (bson.ObjectId(), bson.Int64(5), 5, b"x", {"b": 1, "a": 2}, True, bson.Decimal128("1.50")):
        last = ranges([bound])[1]
        assert query(last) == {"_id": {"$gt": bound}}
        assert type(query(last)["_id"]["$gt"]) is type(bound)  # type: ignore[index]


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("mongodb://host/db", "does not name a host, a database and a collection"),
        ("mongodb://host/db/c?filter={", "is not a query in JSON"),
        ("mongodb://host/db/c?filter=[1]", "is not a query in JSON"),
        ("mongodb://host/db/c?sample=x", "sample='x' is not a whole number above zero"),
        ("mongodb://host/db/c?ttl=5", "no option 'ttl'"),
        ("mongodb://ann:${NOT_SET}@host/db/c", "NOT_SET, which is not set"),
    ],
)
def test_a_wrong_url_is_said_at_once(url: str, text: str) -> None:
    """Without a server."""
    with pytest.raises(UsageError, match=text):
        Read(url)
