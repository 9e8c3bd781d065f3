"""JSON lines: what each gives or why it does not fit, and the schema that samples have."""

from __future__ import annotations

import json
import pickle
from datetime import UTC, datetime

import polars as pl
import pytest

from fabric_beam.errors import UsageError
from tests.transforms.formats.json_lines import SCHEMA, parse, reason, table
from transforms.formats.json import Json, infer_schema


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
    assert reason('{"share": 1e39}', schema).startswith("the field 'share' does not fit Float32: 1e39")
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
