"""Validate, against a plain loop over the rows."""

import re
from dataclasses import dataclass
from typing import Any

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from fabric_beam.contract import ACTIONS, Contract, Field, Rule
from fabric_beam.kernel import Split
from transforms.validate import FLAGS, WARNINGS, ValidateKernel

FRACTIONS = st.sampled_from([-2.0, -0.5, 0.0, 1.0, 2.5, 3.0, float("inf"), 1e300])
NUMBERS = {
    pl.Int64: st.integers(-5, 5),
    pl.Int8: st.integers(-5, 5),
    pl.UInt16: st.integers(0, 5),
    pl.Float64: FRACTIONS,
    pl.String: st.sampled_from(["1", "-3", "+2", "007", "", "x", "1.5", " 1", "1_0", "-0", "99999999999999999999"]),
}
TEXTS = st.none() | st.sampled_from(["GET", "PUT", "", "é", "日本語", "a long one", "it's {}"])


@dataclass(frozen=True)
class Expected:
    """What a loop over the rows would do: kept rows with their marks, and rejected rows with each broken check."""

    kept: list[tuple[Any, ...]]
    rejected: list[tuple[int, str, list[str]]]


def whole(value: Any) -> int | None:
    """What a value is as an int, or None if it is none."""
    if isinstance(value, str):
        return int(value) if re.fullmatch(r"[+-]?\d+", value) and abs(int(value)) < 2**63 else None
    return int(value) if abs(value) < 2**63 and value == int(value) else None


def by_hand(rows: list[tuple[Any, ...]], size: Field, method: Field, rule: Rule) -> Expected:
    kept, rejected = [], []
    for offset, (raw, text) in enumerate(rows):
        value = None if raw is None else whole(raw)
        broken = [("reject", "type", "size")] if raw is not None and value is None else []
        broken += [("reject", "required", "size")] if raw is None and size.required else []
        if value is not None:
            broken += [(size.action, "min", "size")] if size.min is not None and value < size.min else []
            broken += [(size.action, "max", "size")] if size.max is not None and value > size.max else []
        broken += [("reject", "required", "method")] if text is None and method.required else []
        if text is not None:
            least, most = method.min_length or 0, 99 if method.max_length is None else method.max_length
            broken += [(method.action, "min_length", "method")] if len(text) < least else []
            broken += [(method.action, "max_length", "method")] if len(text) > most else []
            matches = method.pattern is None or re.search(method.pattern, text)
            broken += [] if matches else [(method.action, "pattern", "method")]
            known = method.one_of is None or text in method.one_of
            broken += [] if known else [(method.action, "one_of", "method")]
        if (value is not None and value <= 0) and text is not None and text != "GET":
            broken.append((rule.action, rule.name, ""))
        if reasons := [(name, field) for action, name, field in broken if action == "reject"]:
            rejected.append((offset, reasons[0][0], [field or name for name, field in reasons]))
        else:
            flags, warnings = (
                [f"{field}.{name}" if field else name for action, name, field in broken if action == wanted] or None
                for wanted in ("flag", "warn")
            )
            kept.append((offset, value, text, flags, warnings))
    return Expected(kept, rejected)


def limits(low: st.SearchStrategy[int | None], high: st.SearchStrategy[int | None]) -> st.SearchStrategy[Any]:
    return st.tuples(low, high).filter(lambda pair: None in pair or pair[0] <= pair[1])


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_validate_does_what_a_loop_would_do(data: st.DataObject) -> None:
    """Rows, types and limits at random: the same rows are kept, marked and rejected for the same reasons."""
    dtype = data.draw(st.sampled_from(list(NUMBERS)))
    rows = data.draw(st.lists(st.tuples(st.none() | NUMBERS[dtype], TEXTS), max_size=20))
    small = st.none() | st.integers(-3, 3)
    low, high = data.draw(limits(small, small))
    size = Field(
        "size", "int", required=data.draw(st.booleans()), min=low, max=high, action=data.draw(st.sampled_from(ACTIONS))
    )
    low, high = data.draw(limits(st.none() | st.integers(0, 3), st.none() | st.integers(0, 5)))
    method = Field(
        "method",
        "string",
        required=data.draw(st.booleans()),
        min_length=low,
        max_length=high,
        pattern=data.draw(st.sampled_from([None, "^[A-Z]*$", "[a{]"])),
        one_of=data.draw(st.sampled_from([None, ["GET", "PUT", "é"], ["it's {}"]])),
        action=data.draw(st.sampled_from(ACTIONS)),
    )
    rule = Rule("positive_or_get", "size > 0 OR method = 'GET'", data.draw(st.sampled_from(ACTIONS)))
    schema = {"size": dtype, "method": pl.String}
    table = pl.DataFrame(rows, schema=schema, orient="row").with_row_index("offset")
    result = ValidateKernel(Contract("test", 1, [size, method], [rule]), table.schema)(table)
    result = result if isinstance(result, Split) else Split(result, table.clear())
    expected = by_hand(rows, size, method, rule)
    marks = [column for column in (FLAGS, WARNINGS) if column in result.kept.columns]
    actions = {size.action, method.action, rule.action}
    assert marks == [column for action, column in (("flag", FLAGS), ("warn", WARNINGS)) if action in actions]
    absent = [pl.lit(None).alias(column) for column in (FLAGS, WARNINGS) if column not in marks]
    columns = ["offset", "size", "method", FLAGS, WARNINGS]
    assert result.kept.with_columns(absent).select(columns).rows() == expected.kept
    assert result.rejected.select(table.columns).equals(table[[offset for offset, *_ in expected.rejected]])
    if expected.rejected:
        reasons = result.rejected.select("offset", "rejected.rule", "rejected.message").rows()
        assert [(o, r, [part.split(": ")[0] for part in m.split("; ")]) for o, r, m in reasons] == expected.rejected
