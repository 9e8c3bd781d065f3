"""JSON lines for tests: a schema, a table of lines, and what the kernel says of one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl

from transforms.formats.json import Json

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
