"""JSON lines: the same rows and fields as Python's json and a plain loop, however lines are written."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import polars as pl
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fabric_beam.kernel import Split
from tests.transforms.formats.json_lines import SCHEMA, table
from transforms.formats.json import Json, infer_schema


def flattened(value: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, field in value.items():
        if isinstance(field, dict) and (prefix + key not in SCHEMA):
            yield from flattened(field, f"{prefix}{key}.")
        elif field is not None:
            yield prefix + key, field


def fitted(value: Any, kind: pl.DataType) -> Any:
    """A value as its type, or ValueError."""
    if kind == pl.String:
        if isinstance(value, float):
            return format(Decimal(repr(value)), "f").removesuffix(".0")
        return value if isinstance(value, str) else json.dumps(value)
    if isinstance(value, dict | list):
        raise ValueError
    if kind == pl.Boolean:
        return {"true": True, "false": False}[str(value).lower() if isinstance(value, bool) else value]
    if isinstance(value, bool):
        raise ValueError
    if kind == pl.Float64:
        return float(value)
    if isinstance(value, float):
        if not value.is_integer():
            raise ValueError
        value = int(value)
    number = int(value)
    if not -(2**63) <= number < 2**63:
        raise ValueError
    return number


def reference(line: str | None) -> dict[str, Any] | None:
    """The fields of a line, its others under `attributes`; None if it must be rejected."""

    def no_constant(_: str) -> None:
        raise ValueError

    try:
        value = json.loads(line or "", parse_constant=no_constant)
        if not isinstance(value, dict):
            return None
        fields = dict(flattened(value))
        known = {name: fitted(fields.pop(name), SCHEMA[name]) for name in SCHEMA if name in fields}
    except (ValueError, KeyError, TypeError):
        return None
    return {**dict.fromkeys(SCHEMA), **known, "attributes": fields or None}


def exact(text: str) -> Any:
    """A JSON text with numbers as they are written: 1e16, which Polars writes as 10000000000000000, is one number."""
    return json.loads(text, parse_int=Decimal, parse_float=Decimal)


def like(found: Any, expected: Any) -> bool:
    """Equal, or JSON text of what is equal."""
    if isinstance(expected, str) and isinstance(found, str) and expected[:1] in ("[", "{"):
        return bool(found == expected or exact(found) == exact(expected))
    return type(found) is type(expected) and bool(found == expected)


def check(lines: list[str | None], split: Split) -> None:
    """Rows are kept where the reference says so, with its fields; the others are rejected untouched."""
    given = table(lines)
    expected = [reference(line) for line in lines]
    assert split.kept["offset"].to_list() == [number for number, fields in enumerate(expected) if fields is not None]
    for row in split.kept.iter_rows(named=True):
        number = row.pop("offset")
        assert (row.pop("log.record.original"), row.pop("source")) == (lines[number], "file")
        fields = expected[number]
        assert fields is not None
        assert row.keys() == fields.keys()
        attributes, others = row.pop("attributes"), fields.pop("attributes")
        assert (attributes and json.loads(attributes)) == others, lines[number]
        assert [name for name in fields if not like(row[name], fields[name])] == [], (lines[number], row)
    rejected = pl.Series([fields is None for fields in expected], dtype=pl.Boolean)
    assert split.rejected.drop("rejected.rule", "rejected.message").equals(given.filter(rejected), null_equal=True)
    assert split.rejected["rejected.rule"].to_list() == ["json"] * int(rejected.sum())
    assert not split.rejected["rejected.message"].has_nulls()
    kinds = {**SCHEMA, "attributes": pl.String, "log.record.original": pl.String}
    assert split.kept.schema == {**kinds, "source": pl.String, "offset": pl.Int64}


KEYS = st.sampled_from([*SCHEMA, "http", "a", "b", "c", "status", "other", "", ":", 'q"', "back\\", "é", "a.b", "n:"])
TEXTS = st.text(max_size=8) | st.sampled_from(["12", "1.5", "true", "x", '":', '\\":', "[1]", '{"a":1}', ": null", "n"])
NUMBERS = (
    st.integers(-(2**70), 2**70)
    | st.integers(-5, 5)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from([2.0, 1e22, 1e-7, -0.0, 0.1, 9007199254740993, 2**63, -(2**63) - 1])
)
SCALARS = st.none() | st.booleans() | NUMBERS | TEXTS
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3), max_leaves=6
)
TYPICAL = st.fixed_dictionaries(
    {},
    optional={
        "text": TEXTS,
        "count": st.integers(-(2**63), 2**63 - 1),
        "share": st.floats(allow_nan=False, allow_infinity=False),
        "flag": st.booleans(),
        "http": st.fixed_dictionaries({}, optional={"status": st.integers(0, 999), "path": TEXTS | st.lists(TEXTS)}),
        "http.path": TEXTS | VALUES,
        "other": VALUES,
    },
)
WRITERS: list[dict[str, Any]] = [
    {},
    {"ensure_ascii": False},
    {"separators": (",", ":")},
    {"separators": (" , ", " : ")},
    {"separators": (",", "\t:\r")},
    {"indent": 1},
]


def once(value: dict[str, Any]) -> bool:
    """Whether every flattened name stands for one value."""
    names = [name for name, _ in flattened(value)]
    return len(names) == len(set(names))


OBJECTS = (TYPICAL | st.dictionaries(KEYS, VALUES, max_size=5)).filter(once)
LINES = st.tuples(OBJECTS, st.sampled_from(WRITERS), st.sampled_from(["", " ", "\r", "\t"])).map(
    lambda parts: parts[2] + json.dumps(parts[0], **parts[1]) + parts[2]
)
BROKEN = (
    st.tuples(LINES, st.integers(0, 200)).map(lambda parts: parts[0][: parts[1]])
    | st.tuples(LINES, st.sampled_from(["x", ",", "{}", ',{"text":"a"}', "\x00"])).map("".join)
    | st.text(max_size=10)
    | st.sampled_from(["{", "}", "null", "[{}]", '"{}"', "1", "{'a': 1}", '{"a":01}', '{"a":1,}', "{}{}", '{"text":"x'])
    | st.none()
)


@settings(deadline=None, max_examples=300)
@given(st.lists(LINES | LINES | BROKEN, max_size=12))
def test_rows_and_fields_are_what_a_plain_loop_over_python_json_gives(lines: list[str | None]) -> None:
    """Whatever is written however among whatever, the kernel keeps, types and rejects as the reference."""
    check(lines, Json(SCHEMA)(table(lines)))


@settings(deadline=None)
@given(st.lists(TYPICAL.filter(once), min_size=1, max_size=50))
@example([{"http.path": [5.037437674909747e16]}])
def test_batches_without_a_bad_line_lose_nothing(objects: list[dict[str, Any]]) -> None:
    """Ordinary batches, which nothing interrupts, give the reference's fields."""
    lines: list[str | None] = [json.dumps(value) for value in objects]
    check(lines, Json(SCHEMA)(table(lines)))


@settings(deadline=None)
@given(st.lists(LINES | BROKEN, max_size=12))
def test_without_a_schema_every_object_is_its_own_attributes(lines: list[str | None]) -> None:
    """Without a schema lines are only checked."""
    split = Json(None)(table(lines))

    def is_object(line: str | None) -> bool:
        try:
            return isinstance(json.loads(line or ""), dict)
        except ValueError:
            return False

    assert split.kept["attributes"].to_list() == [line for line in lines if is_object(line)]
    assert split.kept.columns == ["attributes", "log.record.original", "source", "offset"]
    assert split.rejected["body"].to_list() == [line for line in lines if not is_object(line)]


@settings(deadline=None)
@given(st.lists(st.dictionaries(KEYS, VALUES, max_size=4), min_size=1, max_size=6))
def test_samples_fit_the_schema_that_they_gave(objects: list[dict[str, Any]]) -> None:
    """Every line that a schema was inferred from is kept by it."""
    lines: list[str | None] = [json.dumps(value) for value in objects]
    split = Json(infer_schema([line for line in lines if line]))(table(lines))
    assert split.kept.height == len(lines)


def test_large_batches_keep_their_order_and_every_row() -> None:
    """Ten thousand rows, some broken, some with other fields, come out as the reference says."""
    chance = random.Random(7)
    lines: list[str | None] = []
    for number in range(10_000):
        line = json.dumps({"text": f"row {number}", "count": number, "share": chance.random(), "http": {"status": 200}})
        kind = chance.random()
        lines.append(line if kind > 0.02 else line[:-3] if kind > 0.01 else line[:-1] + ', "other": [1.5, {"k": "v"}]}')
    check(lines, Json(SCHEMA)(table(lines)))


def test_floats_are_exact() -> None:
    """Floats are the nearest to their text, to the last bit."""
    chance = random.Random(1)
    values = [math.ldexp(chance.random(), chance.randrange(-1000, 1000)) for _ in range(5000)]
    kept = Json(SCHEMA)(table([f'{{"share":{value!r}}}' for value in values])).kept
    assert kept["share"].to_list() == values
