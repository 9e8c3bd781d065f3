"""Validate holds rows against a contract: conversions, limits, rules, and what becomes of each row."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import cloudpickle
import polars as pl
import pytest

from fabric_beam.contract import Contract, Field, Rule
from fabric_beam.contract_file import load_contract
from fabric_beam.errors import SchemaError
from fabric_beam.kernel import Split
from fabric_beam.testing import collect_with_dead_letters
from transforms.validate import FLAGS, WARNINGS, Validate, ValidateKernel

CONTRACTS = Path(__file__).parents[2] / "contracts"


def validate(table: pl.DataFrame, *parts: Field | Rule, **options: Any) -> Split:
    """Run the kernel of a contract of some fields and rules, as a Split."""
    fields = [part for part in parts if isinstance(part, Field)]
    rules = [part for part in parts if isinstance(part, Rule)]
    result = ValidateKernel(Contract("test", 1, fields, rules, **options), table.schema)(table)
    return result if isinstance(result, Split) else Split(result, table.clear())


MESSAGES = [
    ({"size": ["12", "x"]}, Field("size", "int"), "type", "size: 'x' is not of type int"),
    ({"size": [1.0, 1.5]}, Field("size", "int"), "type", "size: '1.5' is not of type int"),
    ({"size": [1, None]}, Field("size", "int", required=True), "required", "size: required, but null"),
    ({"size": [1, 0]}, Field("size", "int", min=1), "min", "size: 0 is below the minimum 1"),
    ({"size": [1, 2]}, Field("size", "float", max=1.5), "max", "size: 2.0 is above the maximum 1.5"),
    ({"size": [1.0, float("nan")]}, Field("size", "float", max=1.5), "max", "size: NaN is above the maximum 1.5"),
    ({"size": [1.0, float("nan")]}, Field("size", "float", min=0.5), "min", "size: NaN is below the minimum 0.5"),
    ({"m": ["ab", "é"]}, Field("m", "string", min_length=2), "min_length", "m: 1 characters, fewer than 2"),
    ({"m": ["é", "ab"]}, Field("m", "string", max_length=1), "max_length", "m: 2 characters, more than 1"),
    ({"m": ["a1", "b"]}, Field("m", "string", pattern=r"\d"), "pattern", r"m: 'b' does not match '\\d'"),
    (
        {"m": ["a", "x" * 300]},
        Field("m", "string", one_of=["a", "b"]),
        "one_of",
        f"m: '{'x' * 200}' is not one of a, b",
    ),
    ({"s": [200, 418]}, Field("s", "int", one_of=[200]), "one_of", "s: '418' is not one of 200"),
    (
        {"t": [datetime(2015, 5, 17, tzinfo=UTC), datetime(2015, 5, 16, tzinfo=UTC)]},
        Field("t", "timestamp", min="2015-05-17"),
        "min",
        "t: 2015-05-16 00:00:00.000000+00:00 is below the minimum 2015-05-17 00:00:00+00:00",
    ),
    ({"size": [1, -1]}, Rule("positive", "size > 0"), "positive", "positive: not true: size > 0"),
    ({"size": [1, -1]}, Rule("positive", "size > 0", message="sizes grow"), "positive", "positive: sizes grow"),
    (
        {"size": ["1", "x"]},
        Rule("positive", "CAST(size AS INT) > 0"),
        "expression",
        "cannot convert 'x' to Int32",
    ),
]


@pytest.mark.parametrize(("columns", "part", "rule", "message"), MESSAGES)
def test_rejection_says_what_was_wrong(columns: dict[str, Any], part: Field | Rule, rule: str, message: str) -> None:
    """The second row is rejected, with the rule's name and the field, the value and the limit."""
    table = pl.DataFrame(columns)
    result = validate(table, part)
    assert result.kept.height == 1
    assert result.rejected.select(table.columns).equals(table[1:])
    assert result.rejected.select("rejected.rule", "rejected.message").row(0) == (rule, message)


CONVERSIONS = [
    ("int", ["1", "-2", "+3", None], [1, -2, 3, None]),
    ("int", [True, False], [1, 0]),
    ("int", [-0.0, 3.0], [0, 3]),
    ("float", ["1.5", "2", "1e3"], [1.5, 2.0, 1000.0]),
    ("float", [1, 2], [1.0, 2.0]),
    ("bool", ["true", "False", None], [True, False, None]),
    ("bool", [0, 1], [False, True]),
    ("string", [1, None], ["1", None]),
    ("string", [True], ["true"]),
    (
        "timestamp",
        ["2015-05-17T10:00:00Z", "2015-05-17 12:00:00.5+02:00", "2015-05-17T10:00:01", None],
        [
            datetime(2015, 5, 17, 10, tzinfo=UTC),
            datetime(2015, 5, 17, 10, 0, 0, 500_000, tzinfo=UTC),
            datetime(2015, 5, 17, 10, 0, 1, tzinfo=UTC),
            None,
        ],
    ),
    ("timestamp", [datetime(2015, 5, 17, 10)], [datetime(2015, 5, 17, 10, tzinfo=UTC)]),
    ("int", [None, None], [None, None]),
]


@pytest.mark.parametrize(("type_", "values", "expected"), CONVERSIONS)
def test_columns_are_converted_without_loss(type_: str, values: list[Any], expected: list[Any]) -> None:
    """A column of another type becomes the field's, as long as no value changes its meaning."""
    result = validate(pl.DataFrame({"x": values}), Field("x", type_))
    assert result.kept["x"].to_list() == expected
    assert result.rejected.is_empty()


@pytest.mark.parametrize(
    ("type_", "values"),
    [
        ("int", ["1.0", "", " 1", "1e3", "9223372036854775808", "x", "0x1"]),
        ("int", [0.5, float("nan"), float("inf"), 1e19]),
        ("float", ["", "1,5", "x"]),
        ("float", [2**53 + 1]),
        ("bool", ["yes", "1", ""]),
        ("bool", [2, -1]),
        ("timestamp", ["2015-05-17", "10:00", "1431857103", "2015-02-30T00:00:00Z", "17/May/2015:10:05:03 +0000"]),
    ],
)
def test_values_that_would_change_are_rejected(type_: str, values: list[Any]) -> None:
    """Every value that the type cannot hold is rejected as it came, by the rule `type`."""
    table = pl.DataFrame({"x": values})
    result = validate(table, Field("x", type_))
    assert result.kept.is_empty()
    assert result.rejected.select("x").equals(table)
    assert set(result.rejected["rejected.rule"]) == {"type"}


@pytest.mark.parametrize("dtype", [pl.Int8, pl.UInt16, pl.Int32, pl.UInt64])
def test_any_width_of_int_is_an_int(dtype: type[pl.DataType]) -> None:
    """An integer column keeps its width, and limits beyond it are no trouble."""
    table = pl.DataFrame({"x": [0, 100]}, schema={"x": dtype})
    result = validate(table, Field("x", "int", min=-1, max=599, one_of=[0, 100, 599]))
    assert result.kept.equals(table)
    assert result.kept.schema == table.schema


def test_all_reasons_are_told_and_the_first_names_the_rejection() -> None:
    """Fields come before rules, each in the contract's order."""
    table = pl.DataFrame({"a": ["x"], "b": [None]}, schema={"a": pl.String, "b": pl.Int64})
    parts = (Rule("never", "offset < 0"), Field("b", "int", required=True), Field("a", "int"))
    result = validate(table.with_row_index("offset"), *parts)
    assert result.rejected["rejected.rule"].item() == "required"
    assert result.rejected["rejected.message"].item() == (
        "b: required, but null; a: 'x' is not of type int; never: not true: offset < 0"
    )


def test_null_passes_every_check_but_required() -> None:
    """As in an SQL CHECK, what is not known breaks nothing."""
    table = pl.DataFrame({"x": [None, None]}, schema={"x": pl.Int64})
    result = validate(table, Field("x", "int", min=1, max=2, one_of=[1]), Rule("r", "x > 1"), Rule("s", "NOT x > 1"))
    assert result.kept.equals(table)


def test_marks_add_to_those_of_an_earlier_contract() -> None:
    """A second contract's flags join the first one's."""
    table = pl.DataFrame({"x": [1, -1, 9, 20]})
    once = validate(table, Field("x", "int", min=0, action="flag")).kept
    twice = validate(once, Field("x", "int", max=5, action="flag"), Rule("odd", "x % 2 = 1", "flag")).kept
    assert twice[FLAGS].to_list() == [None, ["x.min", "odd"], ["x.max"], ["x.max", "odd"]]
    assert validate(once, Field("x", "int", max=99, action="flag")).kept[FLAGS].to_list() == once[FLAGS].to_list()


def test_any_number_of_marks_is_told() -> None:
    """More than a hundred broken rules on one row are all listed, in order."""
    rules = [Rule(f"rule{number}", f"x <> {number % 2}", "flag") for number in range(130)]
    flags = validate(pl.DataFrame({"x": [0, 1, 2]}), *rules).kept[FLAGS].to_list()
    assert flags == [[f"rule{n}" for n in range(0, 130, 2)], [f"rule{n}" for n in range(1, 130, 2)], None]


def test_one_row_is_enough() -> None:
    """A table of one row is marked like any other."""
    kept = validate(pl.DataFrame({"x": [0]}), Field("x", "int", min=1, action="warn")).kept
    assert kept.rows() == [(0, ["x.min"])]


def test_no_rows_keep_the_same_columns() -> None:
    """An empty table has the output's schema: converted types and the columns of marks."""
    schema = pl.Schema({"x": pl.String(), "other": pl.List(pl.Int8)})
    part = Field("x", "int", required=True, min=1, action="flag")
    empty = validate(pl.DataFrame(schema=schema), part).kept.schema
    assert empty == {"x": pl.Int64(), "other": pl.List(pl.Int8), FLAGS: pl.List(pl.String)}
    assert (
        validate(pl.DataFrame([("1", [1]), ("0", [2]), ("x", [])], schema=schema, orient="row"), part).kept.schema
        == empty
    )


def test_rule_over_values_that_are_all_null() -> None:
    """A rule on which Polars gives one value for the whole table is still one answer a row."""
    table = pl.DataFrame({"x": [None, None]}, schema={"x": pl.Int64})
    result = validate(table, Rule("r", "COALESCE(x, 0) > 0.5"))
    assert result.rejected["rejected.rule"].to_list() == ["r", "r"]


WRONG_SCHEMAS = [
    (
        [Field("sizes", "int", required=True)],
        {},
        "the required field 'sizes' is not among the columns. Did you mean",
    ),
    ([Field("size", "timestamp")], {}, "field 'size' is of type timestamp; a column of type Int64 cannot be converted"),
    (
        [Field("tags", "string")],
        {},
        "field 'tags' is of type string; a column of type List(String)",
    ),
    (
        [Field("size", "int")],
        {"mode": "freeze"},
        "the contract is frozen, and the column 'tags' is not one",
    ),
    ([Rule("r", "siz > 1")], {}, "rule 'r': There is no column 'siz'. Did you mean 'size'?"),
    ([Rule("r", "size")], {}, "rule 'r': A condition is needed, true or false for each row; this gives Int64."),
]


@pytest.mark.parametrize(("parts", "options", "message"), WRONG_SCHEMAS)
def test_unfit_contract_is_refused(parts: list[Field | Rule], options: dict[str, Any], message: str) -> None:
    """Columns that a contract cannot judge are refused before any row is."""
    table = pl.DataFrame({"size": [1], "tags": [["a"]], "source": ["a.log"], "offset": [0]})
    with pytest.raises(SchemaError) as error:
        validate(table, *parts, **options)
    assert str(error.value).startswith(f"contract 'test': {message}")


def test_optional_fields_may_be_missing() -> None:
    """A field that is not required is not judged where its column is absent; provenance is no extra column."""
    table = pl.DataFrame({"size": [1], "source": ["a.log"], "offset": [0]})
    assert validate(table, Field("size", "int"), Field("method", "string", min_length=1), mode="freeze").kept.equals(
        table
    )


def test_kernel_travels_to_workers() -> None:
    """A kernel does the same after pickling."""
    table = pl.DataFrame({"size": ["1", "x", "-1"], "method": ["GET", "PUT", "POST"]})
    fields = [Field("size", "int", min=0), Field("method", "string", one_of=["GET"], pattern="G", action="flag")]
    kernel = ValidateKernel(Contract("test", 1, fields, [Rule("r", "method IN ('GET')")]), table.schema)
    result, again = kernel(table), cloudpickle.loads(cloudpickle.dumps(kernel))(table)
    assert isinstance(result, Split)
    assert again.kept.equals(result.kept)
    assert again.rejected.equals(result.rejected)


def test_validate_in_a_pipeline() -> None:
    """A file's contract sends bad rows to the dead letters and flags odd ones."""
    table = pl.DataFrame(
        {
            "timestamp": [datetime(2015, 5, 17, tzinfo=UTC)] * 3,
            "client.address": ["83.149.9.216"] * 3,
            "http.request.method": ["GET", "BREW", "GET"],
            "http.response.status_code": ["200", "418", "1000"],
            "http.response.body.size": [10, 0, 0],
            "source": ["a.log"] * 3,
            "offset": [0, 90, 180],
        }
    )
    kept, letters = collect_with_dead_letters(table, Validate(CONTRACTS / "access_log.yaml"))
    assert kept.select("http.response.status_code", FLAGS, WARNINGS).rows() == [
        (200, None, None),
        (418, ["http.request.method.one_of"], None),
    ]
    assert letters.select("rule", "message", "source", "offset").row(0) == (
        "max",
        "http.response.status_code: 1000 is above the maximum 599",
        "a.log",
        180,
    )


def test_position_of_a_rule_that_does_not_fit_is_told(tmp_path: Path) -> None:
    """A rule from a file is refused with the file and its line."""
    path = tmp_path / "sizes.yaml"
    path.write_text("contract: s\nversion: 1\nrules:\n  - {name: r, expression: siz > 1}\n", encoding="utf-8")
    with pytest.raises(SchemaError, match=r"sizes\.yaml:4: rule 'r': There is no column 'siz'"):
        Validate(path).bind(pl.Schema({"size": pl.Int64()}))
    assert load_contract(path).rules[0].line == 4
