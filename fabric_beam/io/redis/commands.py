r"""Rows as commands of the Redis protocol, made column by column: text that is sent as it is.

Source: https://valkey.io/topics/protocol/
"""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl


def command(*arguments: str | pl.Expr, fields: Sequence[str] = ()) -> pl.Expr:
    r"""A command for each row of a table of texts.

    Args:
        arguments: texts, the same for each row, or expressions without nulls.
        fields: columns whose names and values follow as further arguments, where they are not null.

    Example:
        >>> table = pl.DataFrame({"key": ["a", "b"], "status": ["200", None]})
        >>> table.select(c=command("HSET", pl.col("key"), fields=["status"]))["c"][0]
        '*4\r\n$4\r\nHSET\r\n$1\r\na\r\n$6\r\nstatus\r\n$3\r\n200\r\n'
        >>> table.select(c=command("HSET", pl.col("key"), fields=["status"]))["c"][1]
        '*2\r\n$4\r\nHSET\r\n$1\r\nb\r\n'
    """
    length = (len(arguments) + 2 * count(fields)).cast(pl.String) if fields else pl.lit(str(len(arguments)))
    parts = [pl.lit("*"), length, pl.lit("\r\n"), *map(_argument, arguments)]
    parts += [pl.concat_str(_argument(name), _argument(pl.col(name))) for name in fields]
    return pl.concat_str(parts, ignore_nulls=True)


def count(fields: Sequence[str]) -> pl.Expr:
    """How many of the columns are not null."""
    return pl.sum_horizontal(pl.col(name).is_not_null().cast(pl.UInt32) for name in fields)


def _argument(value: str | pl.Expr) -> pl.Expr:
    if isinstance(value, str):
        return pl.lit(f"${len(value.encode())}\r\n{value}\r\n")
    return pl.concat_str(pl.lit("$"), value.str.len_bytes().cast(pl.String), pl.lit("\r\n"), value, pl.lit("\r\n"))
