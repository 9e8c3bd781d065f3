"""JSON lines: the same rows and fields as Python's json and a plain loop, however lines are written."""

from __future__ import annotations

import json
import math
import pickle
import random
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fabric_beam.errors import UsageError
from fabric_beam.kernel import Split
from transforms.formats.json import Json, infer_schema

SCHEMA: dict[str, pl.DataType] = {
    "text": pl.String(),
    "count": pl.Int64(),
    "share": pl.Float64(),
    "flag": pl.Boolean(),
    "http.status": pl.Int64(),
    "http.path": pl.String(),
    "a.b.c": pl.String(),
    "a.b.d": pl.Int64(),
}


def table(lines: list[str | None]) -> pl.DataFrame:
    return pl.DataFrame(
        {"source": ["file"] * len(lines), "offset": range(len(lines)), "body": lines},
        schema={"source": pl.String, "offset": pl.Int64, "body": pl.String},
    )


def parse(line: str, schema: Mapping[str, pl.DataType] | None) -> dict[str, Any]:
    """What one line that is kept says."""
    split = Json(schema)(table([line]))
    assert split.rejected.height == 0, split.rejected["rejected.message"][0]
    row = split.kept.drop("source", "offset", "log.record.original").row(0, named=True)
    return {name: value for name, value in row.items() if value is not None}


def reason(line: str | None, schema: Mapping[str, pl.DataType] | None = SCHEMA) -> str:
    split = Json(schema)(table([line]))
    assert split.kept.height == 0
    assert split.rejected["rejected.rule"].to_list() == ["json"]
    return str(split.rejected["rejected.message"][0])


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


def like(found: Any, expected: Any) -> bool:
    """Equal, or JSON text of what is equal."""
    if isinstance(expected, str) and isinstance(found, str) and expected[:1] in ("[", "{"):
        return bool(found == expected or json.loads(found) == json.loads(expected))
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


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", "the line is empty"),
        (None, "the line is empty"),
        ("disk full", "not JSON: Expecting value at character 1"),
        ('{"count": 1', "not JSON: Expecting ',' delimiter at character 12"),
        ('{"text": "\x00"}', "not JSON: Invalid control character at at character 11"),
        ('{"share": NaN}', "not JSON: NaN is not a number there"),
        ('{"share": -Infinity}', "not JSON: -Infinity is not a number there"),
        ('{"share": 1e400}', "the number 1e400 is out of range"),
        ("[1]", "not an object but an array"),
        ("null", "not an object but null"),
        ("12", "not an object but a number"),
        ("true", "not an object but a boolean"),
        ('"text"', "not an object but a string"),
        ('{"count": 1.5}', "the field 'count' does not fit Int64: 1.5"),
        ('{"count": "many"}', "the field 'count' does not fit Int64: many"),
        ('{"count": [1, 2]}', "the field 'count' does not fit Int64: [1, 2]"),
        ('{"count": 9223372036854775808}', "the field 'count' does not fit Int64: 9223372036854775808"),
        ('{"flag": 1}', "the field 'flag' does not fit Boolean: 1"),
        ('{"http": {"status": true}}', "the field 'http.status' does not fit Int64: true"),
        ('{"other": 1, "count": null, "share": "x"}', "the field 'share' does not fit Float64: x"),
        ('{"other": ' + "[" * 100_000 + "]" * 100_000 + "}", "nested too deeply"),
    ],
)
def test_a_line_that_does_not_fit_says_why(line: str | None, message: str) -> None:
    """A rejected row names the place, or the field, its value and its type."""
    assert reason(line) == message


def test_a_misfit_does_not_take_its_batch_with_it() -> None:
    """Only the rows that do not fit are rejected, each with its own reason."""
    split = Json(SCHEMA)(table(['{"count": 1}', '{"count": "x"}', "x", '{"flag": 2}', '{"count": 2}']))
    assert split.kept["count"].to_list() == [1, 2]
    assert split.rejected["rejected.message"].to_list() == [
        "the field 'count' does not fit Int64: x",
        "not JSON: Expecting value at character 1",
        "the field 'flag' does not fit Boolean: 2",
    ]


def test_lines_that_only_together_are_json_are_not_joined() -> None:
    """Two halves of an object on two lines are two bad lines, and two objects on one line are one."""
    split = Json(SCHEMA)(table(['{"text": "a', 'b"}', '{"count": 1}, {"count": 2}', '{"count": 3}']))
    assert split.kept["offset"].to_list() == [3]
    assert split.rejected.height == 3


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (r'{"text": "\ud83d\ude00 \u00e9"}', "😀 é"),
        (r'{"text": "a\ud800b"}', "a\ufffdb"),
        (r'{"text": ["\udc00", "\u0000"]}', '["\ufffd", "\\u0000"]'),
        ('{"text": "😀\u2028"}', "😀\u2028"),
        (r'{"text": "a\u0000b"}', "a\x00b"),
        ('\ufeff{"text": "after a byte order mark"}', "after a byte order mark"),
        ('{"text": 12345678901234567890123456789012345678901234567890}', "1234567890" * 5),
    ],
)
def test_unusual_text_is_kept(line: str, text: str) -> None:
    """Escapes, surrogates and large numbers come through, an unpaired surrogate as U+FFFD."""
    assert parse(line, SCHEMA) == {"text": text}


def test_a_key_that_is_written_twice_gives_one_of_its_values() -> None:
    """Duplicate keys are neither an error nor an attribute."""
    assert parse('{"count": 1, "count": 2}', SCHEMA)["count"] in (1, 2)


def test_fields_named_like_provenance_get_a_prefix() -> None:
    """A field never replaces a column that says where a row came from, nor another column of the input."""
    line = '{"source": "a", "offset": 7, "attributes": "b", "log.record.original": "c", "partition": 1, "body": "d"}'
    schema = infer_schema([line])
    kept = Json(schema)(table([line]).with_columns(partition=pl.lit(3))).kept
    assert kept.drop("log.record.original").row(0, named=True) == {
        "attributes.source": "a",
        "attributes.offset": 7,
        "attributes.attributes": "b",
        "attributes.log.record.original": "c",
        "attributes.partition": 1,
        "body": "d",
        "attributes": None,
        "source": "file",
        "offset": 0,
        "partition": 3,
    }


@pytest.mark.parametrize("name", ["^.*$", "*", "", ".", "a..b", "reason", "0", "a b", 'q"', "back\\", "\n"])
def test_fields_may_have_any_name(name: str) -> None:
    """No name is taken for a pattern, a path or a column of the kernel's own."""
    line = json.dumps({name: 1, "x": 2})
    assert parse(line, {name: pl.Int64(), "x": pl.Int64()}) == {name: 1, "x": 2}
    assert parse(line, {"x": pl.Int64()}) == {"x": 2, "attributes": json.dumps({name: 1})}


def test_a_field_that_is_a_value_here_and_an_object_there_is_text() -> None:
    """Where a schema names an object itself, the object is its JSON text."""
    lines = ['{"a": 1}', '{"a": {"b": 2}}', '{"a": null}', '{"a.c": true}']
    schema = infer_schema(lines)
    assert schema == {"a": pl.String(), "a.c": pl.Boolean()}
    assert [parse(line, schema) for line in lines] == [{"a": "1"}, {"a": '{"b": 2}'}, {}, {"a.c": True}]


def test_other_types_of_a_contract_are_read() -> None:
    """Small integers, 32-bit floats and times are types, and their limits hold."""
    schema = {"status": pl.UInt16(), "share": pl.Float32(), "at": pl.Datetime("ms", "UTC"), "seen": pl.Datetime("us")}
    line = '{"status": 200, "share": 0.5, "at": "2024-05-17T10:00:00+02:00", "seen": 1431857103}'
    assert parse(line, schema) == {
        "status": 200,
        "share": 0.5,
        "at": datetime(2024, 5, 17, 8, tzinfo=UTC),
        "seen": datetime(2015, 5, 17, 10, 5, 3),
    }
    assert reason('{"status": 70000}', schema) == "the field 'status' does not fit UInt16: 70000"
    assert reason('{"share": 1e39}', schema).startswith("the field 'share' does not fit Float32: 1000")
    assert reason('{"at": "soon"}', schema).startswith("the field 'at' does not fit Datetime")


def test_a_type_that_json_cannot_fill_is_refused() -> None:
    """A schema with another type fails before the run and names the field."""
    with pytest.raises(UsageError, match=r"the field 'tags' has the type List\(String\)"):
        Json({"tags": pl.List(pl.String())})


def test_an_empty_table_has_the_schema_of_a_full_one() -> None:
    """What is known before the run is what comes out of it."""
    for schema in (SCHEMA, None):
        empty, full = Json(schema)(table([])), Json(schema)(table(['{"count": 1, "z": 2}', "x"]))
        assert (empty.kept.schema, empty.rejected.schema) == (full.kept.schema, full.rejected.schema)


def test_the_kernel_survives_pickling() -> None:
    """The kernel travels to workers."""
    kernel = pickle.loads(pickle.dumps(Json(SCHEMA)))
    assert kernel(table(['{"count": 1}'])).kept["count"].to_list() == [1]


def test_a_huge_line_is_read() -> None:
    """A line of a megabyte is a line."""
    assert parse(json.dumps({"text": "x" * 1_000_000}), SCHEMA) == {"text": "x" * 1_000_000}


def test_large_batches_keep_their_order_and_every_row() -> None:
    """Ten thousand rows, some broken, some with other fields, come out as the reference says."""
    chance = random.Random(7)
    lines: list[str | None] = []
    for number in range(10_000):
        line = json.dumps({"text": f"row {number}", "count": number, "share": chance.random(), "http": {"status": 200}})
        kind = chance.random()
        lines.append(line if kind > 0.02 else line[:-3] if kind > 0.01 else line[:-1] + ', "other": [1.5, {"k": "v"}]}')
    check(lines, Json(SCHEMA)(table(lines)))


def test_a_schema_is_found_in_samples() -> None:
    """Types are what all samples agree on; what they do not agree on is text."""
    samples = [
        '{"i": 1, "f": 1.5, "n": 1, "b": true, "s": "x", "m": 1, "l": [1], "o": {"p": {"q": 1}}, "z": null, "e": {}}',
        '{"i": null, "n": 2.5, "m": "x", "big": 9223372036854775808, "mix": true}',
        '{"late": 1, "mix": 1}',
        "not JSON",
        "[1]",
        "",
    ]
    assert infer_schema(samples) == {
        "i": pl.Int64(),
        "f": pl.Float64(),
        "n": pl.Float64(),
        "b": pl.Boolean(),
        "s": pl.String(),
        "m": pl.String(),
        "l": pl.String(),
        "o.p.q": pl.Int64(),
        "z": pl.String(),
        "big": pl.String(),
        "mix": pl.String(),
        "late": pl.Int64(),
    }
    assert infer_schema([]) == {}


def test_an_object_that_is_sometimes_null_or_empty_is_still_an_object() -> None:
    """Nulls and empty objects do not make a field of the object's own name."""
    lines = ['{"a": null}', '{"a": {}}', '{"a": {"b": 1}}', '{"c": {}}', '{"c": 1}']
    assert infer_schema(lines) == {"a.b": pl.Int64(), "c": pl.String()}
    assert [parse(line, infer_schema(lines)) for line in lines] == [{}, {}, {"a.b": 1}, {"c": "{}"}, {"c": "1"}]


@settings(deadline=None)
@given(st.lists(st.dictionaries(KEYS, VALUES, max_size=4), min_size=1, max_size=6))
def test_samples_fit_the_schema_that_they_gave(objects: list[dict[str, Any]]) -> None:
    """Every line that a schema was inferred from is kept by it."""
    lines: list[str | None] = [json.dumps(value) for value in objects]
    split = Json(infer_schema([line for line in lines if line]))(table(lines))
    assert split.kept.height == len(lines)


def test_floats_are_exact() -> None:
    """Floats are the nearest to their text, to the last bit."""
    chance = random.Random(1)
    values = [math.ldexp(chance.random(), chance.randrange(-1000, 1000)) for _ in range(5000)]
    kept = Json(SCHEMA)(table([f'{{"share":{value!r}}}' for value in values])).kept
    assert kept["share"].to_list() == values
