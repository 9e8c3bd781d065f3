"""JSON lines taken apart by the compiled loop: the same as by Python's json, or left to it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fabric_beam.views import Text
from transforms.formats.json_fields import JsonFields

_SCHEMA = pl.Schema(
    {
        "text": pl.String,
        "http.status": pl.Int64,
        "share": pl.Float64,
        "a.b.c": pl.String,
        "": pl.Boolean,
        "é": pl.String,
    }
)
_FIELDS = JsonFields(_SCHEMA)
_KEYS = st.sampled_from([*_SCHEMA, "http", "status", "a", "b", "c", "b.c", "x", "yy", 'q"'])
_TEXTS = st.text(max_size=30) | st.sampled_from(['\\":', "x" * 63 + '"', "x" * 64 + "é", "\u20ac\n" * 20, "\x00"])
_SCALARS = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(-1e9, 1e9) | _TEXTS
_VALUES = st.recursive(
    _SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_KEYS, inner, max_size=4), max_leaves=12
)
_OBJECTS = st.dictionaries(_KEYS, _VALUES, max_size=6)
_WRITERS: list[dict[str, Any]] = [{}, {"ensure_ascii": False}, {"separators": (",", ":")}, {"indent": 1}]
_PIECES = [
    "{",
    "}",
    "[",
    "]",
    '"',
    ",",
    ":",
    "\\",
    " ",
    "\t",
    "\n",
    "\x0b",
    "-",
    "0",
    "1",
    ".",
    "e",
    "null",
    "true",
    "é",
]
_PIECES += ["\\u", "\\ud800", "\\udc00", "\\u00e9", "NaN", "1e5", "1e400", "-0", "01", '"a":1,', "[1,]", "\ufeff"]


def _flattened(value: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, field in value.items():
        name = prefix + key
        if isinstance(field, dict) and name not in _SCHEMA:
            yield from _flattened(field, f"{name}.")
        elif field is not None:
            yield name, field


def _strict(name: str) -> None:
    raise ValueError(name)


def _loads(text: str) -> Any:
    return json.loads(text, parse_constant=_strict, parse_float=Decimal)


def _check(lines: list[str]) -> int:
    """What is said of lines is what Python's json says; returns how many are left to it."""
    columns, others, left = _FIELDS(pl.Series(lines, dtype=pl.String))
    untold = set(left)
    for number, line in enumerate(lines):
        texts = {name: column[number] for name, column in zip(_SCHEMA, columns, strict=True)}
        rest = others[number]
        if number in untold:
            assert (set(texts.values()), rest) == ({None}, None)
            continue
        fields: dict[str, Any] = {}
        for name, field in _flattened(_loads(line)):
            # A key that is written twice is left to others, unless one is null or an empty object.
            fields.setdefault(name, field)
        for name, text in texts.items():
            field = fields.pop(name, None)
            if isinstance(field, str) or field is None:
                assert text == field, (line, name)
            else:
                assert _loads(text) == field, (line, name)
        assert (_loads(rest) if rest else {}) == fields, line
    return len(untold)


@given(objects=st.lists(_OBJECTS, max_size=20), writer=st.sampled_from(_WRITERS))
def test_fields_are_those_of_pythons_json(objects: list[dict[str, Any]], writer: dict[str, Any]) -> None:
    """Whatever is in an object, and however it is written."""
    _check([json.dumps(value, **writer) for value in objects])


@given(
    objects=st.lists(_OBJECTS, max_size=5),
    edits=st.lists(
        st.tuples(st.integers(0, 4), st.integers(0, 300), st.integers(0, 6), st.sampled_from(["", *_PIECES])),
        max_size=8,
    ),
    ascii=st.booleans(),
)
@example(objects=[{"text": "a"}, {}], edits=[(0, 1, 0, ","), (1, 0, 0, "[")], ascii=True)
def test_what_is_not_json_is_left_to_others(
    objects: list[dict[str, Any]], edits: list[tuple[int, int, int, str]], *, ascii: bool
) -> None:
    """Of lines with pieces taken out and put in, only those are told of that are right."""
    lines = [json.dumps(value, ensure_ascii=ascii) for value in objects]
    for number, at, size, piece in edits:
        if number < len(lines):
            line = lines[number]
            start = at % (len(line) + 1)
            lines[number] = line[:start] + piece + line[start + size :]
    _check(lines)


@pytest.mark.parametrize(
    "line",
    [
        "{}",
        ' {"text" : "x",\t"http": {"status": 200, "path": null}} ',
        '{"x": {"y": {"z": [1, {"a": "}]"}, [], [[]], {}]}}, "e": {}, "n": null}',
        r'{"text": "\"a\\\/\b\f\n\r\t\u00e9\u20acb", "x": "\u00e9", "é": "é\u0041"}',
        r'{"text": "\ud83d\ude00 \ud800\udc00\udbff\udfff\u07ff\u0800\uffff\u007f\u0080", "x": "\ud83d\ude00"}',
        '{"share": -1.50, "x": [1.5e3, -0.0, 0], "a": {"b": {"c": 1.25, "d": true}}}',
        '{"share": 1e-5, "http.status": -7, "": false}',
        '{"text": [{"a": 1}, "b"], "a.b.c": {"d": {}}}',
        '{"text": "' + "long " * 1000 + '", "x": "' + "long " * 1000 + '"}',
    ],
)
def test_what_is_usual_is_told(line: str) -> None:
    """Nested objects, arrays, escapes, fractions, white space, long text."""
    assert _check([line, '{"text": "next"}']) == 0


@pytest.mark.parametrize(
    "line",
    [
        "",
        "[1]",
        r'{"\u0061": 1}',
        '{"x": 1, "x": 2}',
        '{"text": "a", "text": "b"}',
        '{"x.y": 1, "x": {"y": 2}}',
        '{"x": 1e400}',
        '{"http.status": 1.0}',
        '{"text": 1.50}',
        r'{"text": "\ud83d"}',
        r'{"text": "\ude00\ud83d"}',
        r'{"text": "\ud83d\u0041"}',
        '{"x": ' * 100 + "1" + "}" * 100,
        '{"x": ' + "[" * 100 + "]" * 100 + "}",
        '{"' + "x" * 5000 + '": 1}',
        json.dumps({f"x{number}": 1 for number in range(1000)}),
        json.dumps({"x" * 1000: {str(number): 1 for number in range(100)}}),
    ],
)
def test_what_is_not_is_left_to_others_alone(line: str) -> None:
    """Its neighbours are told of all the same."""
    usual = r'{"x": 1, "text": "t\n"}'
    columns, others, left = _FIELDS(pl.Series([usual, line, usual]))
    assert columns[0].to_list() == ["t\n", None, "t\n"]
    assert others.to_list() == ['{"x": 1}', None, '{"x": 1}']
    assert left.to_list() == [1]


def test_lines_of_a_block_are_read_where_they_lie() -> None:
    """A file's block may only be read."""
    lines = [r'{"text": "a\\b", "x": 1}', '{"text": "c", "a.b.c": "something longer"}']
    lengths = np.array([len(line) for line in lines])
    block = Text(pa.py_buffer("\n".join(lines).encode())).cut(np.array([0, lengths[0] + 1]), lengths)
    columns, others, left = _FIELDS(block)
    assert (columns[0].to_list(), others.to_list(), len(left)) == (["a\\b", "c"], ['{"x": 1}', None], 0)
    assert block.to_list() == lines


def test_the_lines_themselves_stay_as_they_are() -> None:
    """What escapes stand for is not written into the column that is read, whose rows may share their bytes."""
    line = r'{"text": "a long text with an \u00e9 and a \n in it"}'
    lines = pl.Series(["not this one", line]).gather([1, 1, 1])
    columns, _, left = _FIELDS(lines)
    assert columns[0].to_list() == ["a long text with an é and a \n in it"] * 3
    assert len(left) == 0
    assert lines.to_list() == [line] * 3
