"""Rows as documents: nested dicts, made from whole columns by code that is written for the columns at hand."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import polars as pl

#: Where a value stands in a document: the names on the way to it.
Path = tuple[str, ...]
Tree = dict[str, "Tree | int"]


def leaves(table: pl.DataFrame, nested: bool) -> list[tuple[Path, pl.Series]]:
    """The columns that documents are made of, structs taken apart.

    Args:
        table: rows of any schema.
        nested: whether a dotted name is a path.

    Returns:
        Each path with its column, in the table's order.

    Example:
        >>> table = pl.DataFrame({"url.path": ["/"], "user": [{"name": "ann"}]})
        >>> [path for path, _ in leaves(table, nested=True)]
        [('url', 'path'), ('user', 'name')]
    """
    return [leaf for column in table.get_columns() for leaf in _leaves((), column, nested)]


def _leaves(parents: Path, column: pl.Series, nested: bool) -> Iterator[tuple[Path, pl.Series]]:
    path = (*parents, *(column.name.split(".") if nested else [column.name]))
    if not isinstance(column.dtype, pl.Struct):
        yield path, column
        return
    for field in column.struct.unnest().get_columns():
        yield from _leaves(path, field, nested)


def clash(paths: Iterable[Path]) -> tuple[Path, Path] | None:
    """Two paths that cannot be in one document, because one leads to or through the other's value.

    Example:
        >>> clash([("a",), ("b", "c"), ("b", "c", "d")])
        (('b', 'c'), ('b', 'c', 'd'))
    """
    seen: set[Path] = set()
    for path in sorted(paths):
        for end in range(1, len(path) + 1):
            if path[:end] in seen:
                return path[:end], path
        seen.add(path)
    return None


@functools.lru_cache(maxsize=256)
def builder(paths: tuple[Path, ...], nullable: tuple[bool, ...]) -> Callable[..., list[dict[str, Any]]]:
    """A function that makes documents from lists of values, one list a path.

    Nulls are left out, and so is a nested document that would have nothing in it; fields keep the order of the paths.

    Args:
        paths: where the values go; the first is never null.
        nullable: whether a list has nulls.

    Example:
        >>> build = builder((("_id",), ("url", "path"), ("user", "name")), (False, False, True))
        >>> build([1, 2], ["/", "/b"], ["ann", None])
        [{'_id': 1, 'url': {'path': '/'}, 'user': {'name': 'ann'}}, {'_id': 2, 'url': {'path': '/b'}}]
    """
    tree: Tree = {}
    for number, path in enumerate(paths):
        node: Any = tree
        for name in path[:-1]:
            node = node.setdefault(name, {})
        node[path[-1]] = number
    lines: list[str] = []
    document, _ = _dict(tree, nullable, lines)
    columns = "".join(f"v{number}, " for number in range(len(paths)))
    body = "\n        ".join([*lines, f"append({document})"])
    source = f"""
def build({columns}):
    documents = []
    append = documents.append
    for {columns} in zip({columns}strict=True):
        {body}
    return documents
"""
    made: dict[str, Any] = {}
    exec(compile(source, "<documents>", "exec"), made)
    build: Callable[..., list[dict[str, Any]]] = made["build"]
    return build


def _dict(tree: Tree, nullable: Sequence[bool], lines: list[str]) -> tuple[str, str]:
    """Write what makes one dict; returns the expression it is and, if it may be left out, that for its being there."""
    fields = []
    for name, node in tree.items():
        if isinstance(node, int):
            fields.append((name, f"v{node}", f"v{node} is not None" if nullable[node] else ""))
        else:
            fields.append((name, *_dict(node, nullable, lines)))
    optional = [there for _, _, there in fields if there]
    first = next((n for n, (_, _, there) in enumerate(fields) if there), len(fields))
    literal = "{" + ", ".join(f"{name!r}: {value}" for name, value, _ in fields[:first]) + "}"
    if not optional:
        return literal, ""
    variable = f"d{len(lines)}"
    lines.append(f"{variable} = {literal}")
    for name, value, there in fields[first:]:
        lines.append(f"{f'if {there}: ' if there else ''}{variable}[{name!r}] = {value}")
    return variable, variable if len(optional) == len(fields) else ""
