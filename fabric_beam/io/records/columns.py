"""Records to tables: each field to its column, the others together."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import polars as pl

from fabric_beam.io.records.values import Convert, Plain, to_text

Record = dict[str, Any]
#: Where fields go that are not in the schema.
OTHERS = "attributes"


class Columns:
    """Makes tables of records.

    A field that is not in the schema goes, by its dotted name, into the JSON object in the column `attributes`
    (together with what the record has there). A record with a value that does not fit its column is left out.

    Args:
        paths: each column's way into the record: one name, or those of nested records and the field in the last.
        schema: the columns' types, and `attributes` last if it is none of them.
        convert: makes a column of values.
        plain: makes simple values of those of other types.

    Example:
        >>> from fabric_beam.io.records.values import converter, unchanged
        >>> schema = pl.Schema({"a": pl.Int64(), "b.c": pl.String(), "attributes": pl.String()})
        >>> columns = Columns({"a": ("a",), "b.c": ("b", "c")}, schema, converter(unchanged), unchanged)
        >>> table, wrong = columns([{"a": 1, "b": {"c": "x"}}, {"a": "y"}, {"d": 2}])
        >>> table.rows()[0], table.rows()[2], wrong
        ((1, 'x', None), (None, None, '{"d":2}'), {1: "the field 'a' is not Int64: 'y'"})
    """

    def __init__(self, paths: Mapping[str, tuple[str, ...]], schema: pl.Schema, convert: Convert, plain: Plain) -> None:
        self._tree: dict[str, Any] = {}
        for name, path in paths.items():
            node = self._tree
            for part in path[:-1]:
                node = node.setdefault(part, {})
            node[path[-1]] = name
        self._schema = schema
        self._convert = convert
        self._plain = plain

    def __call__(self, records: Sequence[Record]) -> tuple[pl.DataFrame, dict[int, str]]:
        """A row for each record, and by number those that do not fit, with the reason."""
        values: dict[str, list[Any]] = {}
        odd: set[int] = set()
        self._take(records, self._tree, values, odd)
        for name in self._schema:
            values.setdefault(name, [None] * len(records))
        wrong: dict[int, str] = {}
        for number in odd:
            self._place(records[number], number, values, wrong)
        columns = []
        for name, dtype in self._schema.items():
            column, misfits = self._convert(values[name], dtype)
            columns.append(column.alias(name))
            for number, value in misfits.items():
                wrong.setdefault(number, f"the field {name!r} is not {dtype}: {value}")
        return pl.DataFrame(columns), wrong

    def _take(
        self, records: Sequence[Record], tree: dict[str, Any], values: dict[str, list[Any]], odd: set[int]
    ) -> None:
        known = tree.keys()
        odd.update(number for number, record in enumerate(records) if not record.keys() <= known)
        for key, node in tree.items():
            found = [record.get(key) for record in records]
            if isinstance(node, str):
                values[node] = found
                continue
            if not set(map(type, found)) <= {dict, type(None)}:
                odd.update(n for n, value in enumerate(found) if value is not None and not isinstance(value, dict))
            self._take([value if isinstance(value, dict) else {} for value in found], node, values, odd)

    def _place(self, record: Record, number: int, values: dict[str, list[Any]], wrong: dict[int, str]) -> None:
        """Put a record's fields in their places one by one, and the others together."""
        others: Record = {}
        for column in values.values():
            column[number] = None
        for name, value in self._fields(record, self._tree, ""):
            if name in self._schema and values[name][number] is None:
                values[name][number] = value
            elif value is not None and value != {}:
                others[name] = value
        if others:
            own = values[OTHERS][number] or "{}"
            try:
                values[OTHERS][number] = to_text({**json.loads(own), **others}, self._plain)
            except (TypeError, ValueError):
                wrong[number] = f"there are other fields ({', '.join(others)}), and {OTHERS!r} is no JSON object"

    def _fields(self, record: Record, tree: Any, prefix: str) -> Iterator[tuple[str, Any]]:
        for key, value in record.items():
            name, node = prefix + key, tree.get(key) if isinstance(tree, dict) else None
            if isinstance(value, dict) and value and not isinstance(node, str) and name not in self._schema:
                yield from self._fields(value, node, f"{name}.")
            else:
                yield name, value
