"""Small reference tables read from files, whose rows can be named by line in messages."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import polars as pl

from fabric_beam.errors import UsageError, nearest

_SUFFIXES = (".csv", ".json", ".jsonl", ".ndjson", ".parquet")
#: Text that a number would not write back as it was: `007`, `+49`.
_NOT_A_NUMBER = r"^[+-]?0\d|^\+"


@dataclass(frozen=True)
class Reference:
    """A reference table.

    Attributes:
        rows: the table.
        name: what messages call it: its path.
        unit: what messages call a row: `line` or `row`.
        first: the number of the first row.
        untyped: whether every value is text as it is written in a CSV file, to be given a type by `typed`.
    """

    rows: pl.DataFrame
    name: str = "the table"
    unit: str = "row"
    first: int = 1
    untyped: bool = False

    def place(self, *rows: int) -> str:
        """Name rows as a message does, such as `lines 2 and 5`."""
        numbers = " and ".join(str(row + self.first) for row in rows)
        return f"{self.unit}{'s' if len(rows) > 1 else ''} {numbers}"


def read_reference(table: str | Path | pl.DataFrame) -> Reference:
    """Read a reference table.

    Args:
        table: a `.csv` file with a header, a `.json` file (an array of objects, or one object a line), a `.jsonl` or
            `.ndjson` file, a `.parquet` file, or a table.

    Returns:
        The table.

    Raises:
        UsageError: when the file cannot be read as what its name says.

    Example:
        >>> read_reference(pl.DataFrame({"host": ["a", "b"]})).place(0, 1)
        'rows 1 and 2'
    """
    if isinstance(table, pl.DataFrame):
        return Reference(table)
    path = Path(table)
    try:
        if path.suffix == ".csv":
            rows = pl.read_csv(path, infer_schema=False)
            one_line_each = not any(column.str.contains("\n", literal=True).any() for column in rows)
            unit, first = ("line", 2) if one_line_each else ("row", 1)
            return Reference(rows, str(path), unit, first, untyped=True)
        if path.suffix == ".parquet":
            return Reference(pl.read_parquet(path), str(path))
        if path.suffix == ".json" and path.read_bytes().lstrip()[:1] == b"[":
            return Reference(pl.read_json(path, infer_schema_length=None), str(path))
        if path.suffix in _SUFFIXES:
            return Reference(pl.read_ndjson(path, infer_schema_length=None), str(path), "line")
    except FileNotFoundError as error:
        raise UsageError(f"{path}: there is no such file. {nearest(path.name, _siblings(path))}") from error
    except (OSError, pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        raise UsageError(f"{path}: cannot be read as {path.suffix[1:]}: {error}") from error
    known = ", ".join(_SUFFIXES)
    raise UsageError(f"{path}: the kind of a reference table shows in its name, which must end in one of {known}.")


def typed(text: pl.Series) -> pl.Series:
    """Give a column of text its natural type, unless that would change how a value is written.

    Args:
        text: a column of text.

    Returns:
        Whole numbers as Int64, numbers as Float64, `true` and `false` as Boolean; anything else, and columns with codes
        such as `007`, as they were.

    Example:
        >>> typed(pl.Series(["12", "7"])).to_list(), typed(pl.Series(["12", "007"])).to_list()
        ([12, 7], ['12', '007'])
    """
    values = text.drop_nulls()
    if values.is_empty():
        return text
    if values.is_in(["true", "false"]).all():
        return text == "true"
    if not values.str.contains(_NOT_A_NUMBER).any():
        for dtype in (pl.Int64, pl.Float64):
            numbers = text.cast(dtype, strict=False)
            if numbers.null_count() == text.null_count():
                return numbers
    return text


def _siblings(path: Path) -> list[str]:
    return [other.name for other in path.parent.glob("*") if other.suffix in _SUFFIXES]
