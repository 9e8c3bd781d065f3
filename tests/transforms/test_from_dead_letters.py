"""FromDeadLetters: rows come back as they were, and what is no dead letter is rejected."""

from __future__ import annotations

import json

import polars as pl
import pytest

from fabric_beam.dead_letters import of_rows
from fabric_beam.errors import SchemaError
from fabric_beam.json_rows import to_json
from fabric_beam.kernel import reject
from fabric_beam.testing import check_transform, collect_with_dead_letters
from transforms import FromDeadLetters

ROWS = pl.DataFrame(
    {
        "timestamp": [1_767_225_600_000_000 + n for n in range(4)],
        "http.response.status_code": [200, None, 404, 500],
        "source": ["a.log"] * 4,
        "offset": [0, 10, 20, 30],
    },
    schema_overrides={"timestamp": pl.Datetime("us", "UTC"), "http.response.status_code": pl.Int32},
)


def _lines(rows: pl.DataFrame, step: str) -> list[str]:
    return to_json(of_rows(reject(rows, "unavailable", "no answer"), step)).to_list()


def _table(lines: list[str]) -> pl.DataFrame:
    return pl.DataFrame({"body": lines, "source": "dead.jsonl", "offset": range(len(lines))})


def test_rows_come_back_as_they_were() -> None:
    """In their types; letters of other steps are left out."""
    lines = _lines(ROWS, "Write(events)/WriteTo(redis://h/0)") + _lines(ROWS, "Parse")
    rows, letters = collect_with_dead_letters(_table(lines), FromDeadLetters(ROWS.schema, "Write(events)/"))
    assert rows.equals(ROWS)
    assert letters.height == 0


def test_what_is_no_dead_letter_is_rejected() -> None:
    """Alone: the others come through."""
    good = _lines(ROWS, "Write(events)/x")
    other = json.dumps({"payload": '{"offset":"ten"}', "step": "Write(events)/x", "rule": "unavailable"})
    lines = [good[0], "not JSON", good[1], other, "{}", *good[2:]]
    rows, letters = collect_with_dead_letters(_table(lines), FromDeadLetters(ROWS.schema, "Write(events)/"))
    assert rows.equals(ROWS)
    assert letters.sort("offset").select("offset", "rule").rows() == [
        (1, "dead_letter"),
        (3, "payload"),
        (4, "dead_letter"),
    ]


def test_it_keeps_the_rules_of_transforms() -> None:
    """Whatever the batches."""
    lines = [*_lines(ROWS, "Write(events)/x"), "not JSON", *_lines(ROWS, "Parse")]
    check_transform(lambda: FromDeadLetters(ROWS.schema, "Write(events)/"), _table(lines), filters=True)


def test_lines_are_needed() -> None:
    """Said while the pipeline is built."""
    with pytest.raises(SchemaError, match="takes lines in a String column 'body'"):
        FromDeadLetters(ROWS.schema, "").bind(pl.Schema({"a": pl.Int64()}))
