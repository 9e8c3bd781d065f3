"""The fields of JSON lines that have no column: the same as of Python's json, or left to it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from transforms.formats.json_others import OtherFields

_NAMES = ["text", "http.status", "http.path", "a.b.c", "", "é"]
_OTHERS = OtherFields(_NAMES)
_KEYS = st.sampled_from(
    ["text", "http", "http.status", "status", "path", "a", "b", "c", "b.c", "", "é", "x", "yy", 'q"']
)
_SCALARS = (
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(-1e9, 1e9) | st.text(max_size=20)
)  # fmt: skip
_VALUES = st.recursive(
    _SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_KEYS, inner, max_size=4), max_leaves=12
)
_OBJECTS = st.dictionaries(_KEYS, _VALUES, max_size=6)


def _flattened(value: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, field in value.items():
        name = prefix + key
        if isinstance(field, dict) and name not in _NAMES:
            yield from _flattened(field, f"{name}.")
        elif field is not None:
            yield name, field


def _without_text(value: Any) -> Any:
    if isinstance(value, str):
        return ""
    return [_without_text(field) for field in value] if isinstance(value, list) else value


@given(
    objects=st.lists(_OBJECTS, max_size=20),
    separators=st.sampled_from([(", ", ": "), (",", ":"), (" , ", " : ")]),
    ascii=st.booleans(),
)
def test_fields_are_those_of_pythons_json(
    objects: list[dict[str, Any]], separators: tuple[str, str], *, ascii: bool
) -> None:
    """Where the loop is certain, it finds what Python finds."""
    lines = [json.dumps(value, separators=separators, ensure_ascii=ascii) for value in objects]
    others, named, columns = _OTHERS(pl.Series(lines, dtype=pl.String))
    assert len(others) == len(named) == len(lines)
    for value, text, count in zip(objects, others, named, strict=True):
        fields = list(_flattened(value))
        if count >= 0:
            assert count == sum(name in _NAMES for name, _ in fields)
            assert (json.loads(text) if text else {}) == {name: field for name, field in fields if name not in _NAMES}
        else:
            assert text is None
    texts = {
        (line, name): json.loads(text) for name, found in columns.items() for line, text in zip(*found, strict=True)
    }
    expected = {
        (line, name): field
        for line, value in enumerate(objects)
        if named[line] >= 0
        for name, field in _flattened(value)
        if name in _NAMES and isinstance(field, dict | list) and "{" in json.dumps(_without_text(field))
    }
    assert texts == expected


@pytest.mark.parametrize(
    ("line", "others", "named"),
    [
        ("{}", None, 0),
        ('{"text": "x", "http": {"status": 200, "path": null}}', None, 2),
        ('{"x": {"y": {"z": [1, {"a": "}]"}]}}, "e": {}, "n": null}', '{"x.y.z": [1, {"a": "}]"}]}', 0),
        (r'{"x": "a\"b\\", "y": -1.50, "t": true}', r'{"x": "a\"b\\", "y": -1.50, "t": true}', 0),
        ('{"a":{"b":{"c":1,"d":2}}}', '{"a.b.d": 2}', 1),
        ('{"x": "' + "long " * 1000 + '"}', '{"x": "' + "long " * 1000 + '"}', 0),
    ],
)
def test_what_is_usual_is_certain(line: str, others: str | None, named: int) -> None:
    """Nested objects are flattened, nulls and empty objects left out, values as they are written."""
    found, counts, _ = _OTHERS(pl.Series([line]))
    assert (found.to_list(), counts.to_list()) == ([others], [named])


@pytest.mark.parametrize(
    "line",
    [
        r'{"\u0061": 1}',
        '{"x": 1, "x": 2}',
        '{"x.y": 1, "x": {"y": 2}}',
        '{"x": 1e400}',
        '{"text": {}, "x": 1e5}',
        '{"x": ' * 100 + "1" + "}" * 100,
        '{"' + "x" * 5000 + '": 1}',
        json.dumps({f"x{number}": 1 for number in range(1000)}),
        json.dumps({"x" * 1000: {str(number): 1 for number in range(100)}}),
        '{"x": 1',
        '{"x": "1',
        '{"x": [1',
        '{"x": 1} {',
    ],
)
def test_what_is_not_is_left_to_others(line: str) -> None:
    """Of such a line it says nothing, and its neighbours are found all the same."""
    usual = '{"x": 1, "text": "t"}'
    found, counts, objects = _OTHERS(pl.Series([usual, line, usual]))
    assert found.to_list() == ['{"x": 1}', None, '{"x": 1}']
    assert counts.to_list() == [1, -1, 1]
    assert objects == {}
