"""SQL expressions over the columns of one row, checked against their types while the pipeline is built.

The language is SQL as Polars reads it (`polars.sql_expr`), with the dotted names of event fields written bare:
`http.response.status_code >= 500 AND service.name = 'api'`. Text stands in single quotes; a name that SQL would misread
stands in double quotes. A time is ISO 8601 text beside a timestamp column, or `TIMESTAMP '2015-05-17T10:00:00Z'`; it
is in UTC unless it names its offset. A row that `CAST` cannot convert is rejected; `TRY_CAST` gives null instead.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import polars as pl

from fabric_beam.errors import nearest
from fabric_beam.kernel import Kernel, Split, reject
from fabric_beam.sql_names import ONE_ROW, Token, refuse, resolve

#: The rule of rows on which an expression fails, such as a CAST of text that is not a number.
EXPRESSION = "expression"

_ROW_WISE = {"BinaryExpr", "Cast", "Column", "Function", "Literal", "Ternary"}
_COMPARISONS = {"Eq", "EqValidity", "NotEq", "NotEqValidity", "Lt", "LtEq", "Gt", "GtEq"}
_VALUE = "\0value"
_FAILURES = (pl.exceptions.PolarsError, pl.exceptions.PanicException)
_TIMES = " Write a time as TIMESTAMP '2015-05-17T10:00:00Z'."


def compile_expression(text: str, schema: pl.Schema) -> pl.Expr:
    """Compile an SQL expression over the columns of one row.

    Args:
        text: the expression; column names are case-sensitive.
        schema: the columns that it may use.

    Returns:
        The expression; its value for a row depends on that row alone.

    Raises:
        UsageError: naming the expression, the place and what is wrong: a syntax error, an unknown column, types that
            do not fit, an aggregate, a window function, a sub-query or a clock.

    Example:
        >>> table = pl.DataFrame({"http.response.body.size": [512, 2048]})
        >>> kilobytes = compile_expression("http.response.body.size / 1024", table.schema)
        >>> table.select(kilobytes).to_series().to_list()
        [0.5, 2.0]
    """
    tokens = resolve(text, schema)
    try:
        expression = pl.sql_expr(" ".join(token.sql for token in tokens))
    except pl.exceptions.PolarsError as error:
        refuse(text, f"This is not an SQL expression that Polars can read: {_reason(error)}.")
    _check(text, tokens, expression, schema)
    return expression


def compile_predicate(text: str, schema: pl.Schema) -> pl.Expr:
    """Compile an SQL expression that is true, false or null for each row.

    Args:
        text: the expression; column names are case-sensitive.
        schema: the columns that it may use.

    Returns:
        A Boolean expression over at least one column.

    Raises:
        UsageError: as `compile_expression`, and when it is not Boolean or uses no column.

    Example:
        >>> table = pl.DataFrame({"http.response.status_code": [200, 503]})
        >>> table.filter(compile_predicate("http.response.status_code >= 500", table.schema)).rows()
        [(503,)]
    """
    expression = compile_expression(text, schema)
    result = _dtype(expression, schema)
    if result != pl.Boolean:
        refuse(text, f"A condition is needed, true or false for each row; this gives {result}.")
    if not expression.meta.root_names():
        refuse(text, "It uses no column, so it is the same for every row. Names stand bare or in \"…\"; '…' is text.")
    return expression


def evaluate(table: pl.DataFrame, expression: pl.Expr) -> pl.Series:
    """The value of an expression for each row of a table.

    Args:
        table: the rows.
        expression: an expression over its columns. A constant is repeated, and so is what Polars gives as one value for
            them all, such as `COALESCE(size, 0) < 0.5` where every size is null.

    Returns:
        As many values as there are rows.

    Example:
        >>> evaluate(pl.DataFrame({"size": [None, None]}), pl.coalesce("size", 0)).to_list()
        [0, 0]
    """
    values = table.select(expression).to_series()
    return values if len(values) == table.height else values.new_from_index(0, table.height)


def reject_failures(table: pl.DataFrame, kernel: Kernel, expressions: Sequence[pl.Expr] = ()) -> pl.DataFrame | Split:
    """Run a kernel; if Polars fails on some rows, reject those alone and keep the others.

    Args:
        table: the rows.
        kernel: a kernel whose result for a row depends on that row alone.
        expressions: those that it evaluates, if known: rows that their CASTs cannot convert are then found all at once.

    Returns:
        What the kernel gives; rows on which it fails are rejected by the rule `expression`.

    Example:
        >>> table = pl.DataFrame({"size": ["12", "-"]})
        >>> reject_failures(table, lambda rows: rows.select(pl.col("size").cast(pl.Int64))).rejected["size"].to_list()
        ['-']
    """
    try:
        return kernel(table)
    except _FAILURES as error:
        if table.height == 1:
            kept = _split(kernel(table.clear()), table).kept
            return Split(kept, reject(table, EXPRESSION, f"the expression fails on this row: {_reason(error)}"))
    rejected = []
    for expression in expressions:
        table, unconvertible = _without_unconvertible(table, expression)
        rejected += unconvertible
    if rejected:
        result = _split(reject_failures(table, kernel), table)
        return Split(result.kept, pl.concat([result.rejected, *rejected]))
    middle = table.height // 2
    halves = [_split(reject_failures(half, kernel), half) for half in (table[:middle], table[middle:])]
    return Split(pl.concat([half.kept for half in halves]), pl.concat([half.rejected for half in halves]))


def _without_unconvertible(table: pl.DataFrame, expression: pl.Expr) -> tuple[pl.DataFrame, list[pl.DataFrame]]:
    """The rows that every CAST of an expression can convert, and the others, rejected."""
    rejected = []
    casts = [node for node, kind, content in _nodes(expression) if kind == "Cast" and content["options"] == "Strict"]
    for cast in reversed(casts):  # the inner ones first
        operand, target = cast.meta.pop()[0], _dtype(cast, table.schema)
        try:
            failed = evaluate(table, operand.is_not_null() & operand.cast(target, strict=False).is_null())
        except _FAILURES:
            continue
        if failed.any():
            message = pl.concat_str(pl.lit("cannot convert '"), operand.cast(pl.String), pl.lit(f"' to {target}"))
            rejected.append(reject(table.filter(failed), EXPRESSION, message))
            table = table.filter(~failed)
    return table, rejected


def _split(result: pl.DataFrame | Split, table: pl.DataFrame) -> Split:
    return result if isinstance(result, Split) else Split(result, reject(table.clear(), "", ""))


def _check(text: str, tokens: list[Token], expression: pl.Expr, schema: pl.Schema) -> None:
    """Refuse what Polars would run but a row-wise, typed expression must not have."""
    nodes = list(_nodes(expression))
    for node, kind, content in nodes:
        if kind == "Alias":
            refuse(text, f"An expression takes no alias, and this names its result {node.meta.output_name()!r}.")
        if kind not in _ROW_WISE or (kind == "Function" and _is_reduction(node)):
            refuse(text, ONE_ROW)
        if kind == "Function" and '"format": null' in json.dumps(content["function"]) and node.meta.root_names():
            refuse(text, "Without a format Polars guesses it from other rows: write STRPTIME(column, '%Y-%m-%d').")
    for node, kind, _ in nodes:
        if kind == "Column" and (name := node.meta.output_name()) not in schema:
            refuse(text, f"There is no column {name!r}. {nearest(name, schema)}", _place(tokens, name))
    for node, kind, content in nodes:
        operands = node.meta.pop()[::-1]
        compared = kind == "BinaryExpr" and content["op"] in _COMPARISONS
        if compared or (kind == "Function" and '"IsIn"' in json.dumps(content["function"])):
            _check_comparison(text, tokens, operands, schema)
        elif kind == "BinaryExpr" and content["op"] == "Minus":
            _check_difference(text, node, schema)
        elif kind == "Cast":
            _check_cast(text, tokens, operands[0], node, schema)
    try:
        _dtype(expression, schema)
    except pl.exceptions.PolarsError as error:
        types = ", ".join(f"{name} is {schema[name]}" for name in dict.fromkeys(expression.meta.root_names()))
        refuse(text, f"{_reason(error)}. {types}.")


def _check_comparison(text: str, tokens: list[Token], operands: list[pl.Expr], schema: pl.Schema) -> None:
    try:
        left, right = (_dtype(operand, schema) for operand in operands)
    except pl.exceptions.PolarsError:
        return  # the fault lies deeper, and the last check of the whole names it
    if isinstance(right, pl.List) and not operands[1].meta.root_names():
        right = _dtype(operands[1].explode(), schema)  # the list of an IN
    families = {_family(left), _family(right)} - {"Null"}
    if len(families) > 1:
        sides = " with ".join(_describe(operand, schema) for operand in operands)
        hint = _TIMES if families == {"time", "text"} else ""
        refuse(text, f"Cannot compare {sides}.{hint}", _place(tokens, *operands[0].meta.root_names()))


def _check_cast(text: str, tokens: list[Token], operand: pl.Expr, node: pl.Expr, schema: pl.Schema) -> None:
    try:
        source, target = _dtype(operand, schema), _dtype(node, schema)
    except pl.exceptions.PolarsError:
        return
    castable = source == target or not source.is_nested()
    if source == pl.String:
        try:
            pl.Series(["1"]).cast(target, strict=False)
        except pl.exceptions.PolarsError:
            castable = False
    if not castable:
        problem = f"Cannot convert {_describe(operand, schema)} to {target}."
        refuse(text, problem, _place(tokens, *operand.meta.root_names()))


def _check_difference(text: str, node: pl.Expr, schema: pl.Schema) -> None:
    try:
        dtype = _dtype(node, schema)
    except pl.exceptions.PolarsError:
        return
    if dtype.is_unsigned_integer():
        problem = f"A difference of type {dtype} wraps round below 0: write CAST(… AS BIGINT) around its first part."
        refuse(text, problem)


def _nodes(node: pl.Expr) -> Iterator[tuple[pl.Expr, str, Any]]:
    """Every node of an expression with its kind and content, operands after what they belong to."""
    tree = json.loads(node.meta.serialize(format="json"))
    kind, content = next(iter(tree.items())) if isinstance(tree, dict) else (tree, None)
    yield node, kind, content
    if kind != "SubPlan":
        for operand in node.meta.pop()[::-1]:
            yield from _nodes(operand)


def _is_reduction(node: pl.Expr) -> bool:
    try:
        return bool(node.meta.root_names()) and (node.meta.is_scalar() or not node.meta.is_length_preserving())
    except pl.exceptions.PolarsError:
        return False  # SQL's own arithmetic, which is row-wise, cannot say before it knows the types


def _dtype(expression: pl.Expr, schema: pl.Schema) -> pl.DataType:
    return pl.DataFrame(schema=schema).select(expression.alias(_VALUE)).schema[_VALUE]


def _family(dtype: pl.DataType) -> str:
    if dtype.is_numeric():
        return "number"
    if dtype in (pl.String, pl.Categorical, pl.Enum):
        return "text"
    return "time" if dtype in (pl.Datetime, pl.Date) else str(dtype)


def _describe(operand: pl.Expr, schema: pl.Schema) -> str:
    dtype = _dtype(operand, schema)
    if not operand.meta.root_names():
        return f"{pl.select(operand).to_series().to_list()[0]!r} ({dtype})"
    return f"{operand.meta.output_name()} ({dtype})" if operand.meta.is_column() else f"a value of type {dtype}"


def _place(tokens: list[Token], *names: str) -> Token | None:
    """Where the first of some columns is written."""
    return next((token for token in tokens if names and names[0] in (token.column, token.text)), None)


def _reason(error: BaseException) -> str:
    """What Polars says, without its hints and its own rendering of the expression."""
    return " ".join(str(error).split("\n\n")[0].split()).rstrip(".")[:300]
