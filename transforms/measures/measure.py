"""What a measure is, and the register of measure functions."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable

import polars as pl

from fabric_beam.errors import SchemaError, UsageError, nearest
from transforms.measures.parse import Call
from transforms.measures.state import Grouped, Scalar


class Measure(ABC):
    """One measure of the events of a group; a subclass a function, prepared once and then applied to any table.

    Args:
        call: the measure as it was written.
        schema: the columns of the events.

    Raises:
        UsageError: the measure does not fit the schema.
    """

    #: The state that the measure needs. Measures share states of the same name.
    states: tuple[Scalar | Grouped, ...]

    @abstractmethod
    def __init__(self, call: Call, schema: pl.Schema) -> None: ...

    @abstractmethod
    def finish(self, merged: pl.DataFrame) -> pl.Expr | pl.Series:
        """Turn merged state into the output column.

        Args:
            merged: the table of merged states, a row a group.

        Returns:
            The output column, under any name: an expression over `merged`, or a series as long.
        """


_REGISTER: list[tuple[re.Pattern[str], tuple[str, ...], type[Measure]]] = []


def register(pattern: str, *examples: str) -> Callable[[type[Measure]], type[Measure]]:
    """Register a class under the function's name.

    Args:
        pattern: the name, as a regular expression.
        examples: names to list in an error message, where the pattern is more than a name.

    Returns:
        The class decorator.
    """

    def add(measure: type[Measure]) -> type[Measure]:
        _REGISTER.append((re.compile(pattern), examples or (pattern,), measure))
        return measure

    return add


def build(call: Call, schema: pl.Schema) -> Measure:
    """Build the measure that a call names.

    Args:
        call: the measure as it was written.
        schema: the columns of the events.

    Returns:
        The measure.

    Raises:
        UsageError: there is no such function, or its argument is wrong.
    """
    for pattern, _, measure in _REGISTER:
        if pattern.fullmatch(call.function):
            return measure(call, schema)
    known = nearest(call.function, (name for _, names, _ in _REGISTER for name in names))
    raise UsageError(f"measure {call.text!r}: there is no function {call.function!r}. {known}")


def column_type(
    call: Call,
    schema: pl.Schema,
    accepts: Callable[[pl.DataType], bool] = lambda dtype: dtype.is_numeric(),
    expected: str = "a number",
) -> pl.DataType:
    """Check the column that a measure is of.

    Args:
        call: the measure as it was written; its argument is the column.
        schema: the columns of the events.
        accepts: whether the measure can be taken of a type.
        expected: the accepted types in words.

    Returns:
        The column's type.

    Raises:
        SchemaError: there is no such column, or its type does not fit.
        UsageError: no column is named.
    """
    if not call.argument:
        raise UsageError(f"measure {call.text!r}: expected a column, as in {call.function}(column)")
    if call.argument not in schema:
        raise SchemaError(f"measure {call.text!r}: no column {call.argument!r}. {nearest(call.argument, schema)}")
    dtype = schema[call.argument]
    if not accepts(dtype):
        raise SchemaError(f"measure {call.text!r}: column {call.argument!r} is {dtype}, expected {expected}")
    return dtype
