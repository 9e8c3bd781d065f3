"""The kernel: a pure function from table to table. Nothing here, and no kernel, knows of Beam."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import polars as pl

#: Added to the rows of `Split.rejected`, beside their own columns.
RULE = "rejected.rule"
MESSAGE = "rejected.message"


@dataclass(frozen=True)
class Split:
    """What a kernel returns when it may reject rows.

    Attributes:
        kept: the rows that go on, with the output schema.
        rejected: the input's own rows that do not, plus `rejected.rule` (the rule's short name) and
            `rejected.message` (what was wrong with that row, in words), both strings.
    """

    kept: pl.DataFrame
    rejected: pl.DataFrame


#: A pure, deterministic, row-order-preserving function of one table. It is called once with an empty table of the
#: input schema while the pipeline is built (what comes out is the output schema), then once a batch. One that holds
#: connections has a method `close`, which is called when a worker has no more batches for it.
Kernel = Callable[[pl.DataFrame], pl.DataFrame | Split]


def reject(table: pl.DataFrame, rule: str, message: pl.Expr | str) -> pl.DataFrame:
    """Mark every row of a table as rejected by one rule.

    Args:
        table: the rejected rows, with the kernel's input columns.
        rule: the rule's short name, such as `combined` or `status_range`.
        message: what was wrong, as text or as an expression over the row.

    Returns:
        The rows with string columns `rejected.rule` and `rejected.message` added: what `Split.rejected` takes.

    Example:
        >>> reject(pl.DataFrame({"body": ["x"]}), "json", "not JSON").row(0, named=True)
        {'body': 'x', 'rejected.rule': 'json', 'rejected.message': 'not JSON'}
    """
    if not table.height:
        # What nearly every batch needs: made without the engine, which costs half a millisecond a call.
        columns = [column for column in table.get_columns() if column.name not in (RULE, MESSAGE)]
        return pl.DataFrame([*columns, *(pl.Series(name, [], pl.String) for name in (RULE, MESSAGE))])
    text = pl.lit(message) if isinstance(message, str) else message
    return table.with_columns(pl.lit(rule).alias(RULE), text.cast(pl.String).alias(MESSAGE))
