"""Validate: hold every row against a data contract."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from fabric_beam.contract import TYPES, Contract, Field, Rule
from fabric_beam.contract_file import load_contract
from fabric_beam.errors import SchemaError, UsageError, nearest
from fabric_beam.expressions import compile_predicate, evaluate, reject_failures
from fabric_beam.kernel import MESSAGE, RULE, Split
from fabric_beam.map_batches import MapBatches

FLAGS = "validation.flags"
WARNINGS = "validation.warnings"

_COLUMN_OF = {"flag": FLAGS, "warn": WARNINGS}
_NAMES = pl.List(pl.String)
#: Columns that every source adds, which no contract has to name.
_PROVENANCE = ("source", "offset")
#: Where the values of a converted column are kept as they came, while its row is checked.
_RAW = "\0raw:"
#: Characters of a value that a message quotes at most.
_LONGEST = 200
#: Parses RFC 3339, with `T` or a space, a fraction of any length and any offset.
_RFC_3339 = "%+"


class Validate(MapBatches):
    """Hold every row against a data contract.

    Args:
        contract: a contract, or the YAML file of one (`fabric_beam.contract`).

    Columns in: the contract's required fields. Columns out: all that came in, those of fields in the contract's types,
    and, if the contract flags or warns, `validation.flags` or `validation.warnings` (lists of the names of what a row
    breaks, such as `http.request.method.one_of` or a rule's name; null if it breaks nothing).

    A row that breaks what rejects goes to the dead letters under the first broken check's name (`type`, `required`,
    `min`, …) or rule's name, fields before rules, in the contract's order; the message tells all of them. Null breaks
    nothing but `required`.

    Raises:
        UsageError: when the contract cannot be read or contradicts itself.
        SchemaError: while the pipeline is built, if the contract does not fit the columns.

    Example:
        >>> from fabric_beam.contract import Contract, Field
        >>> from fabric_beam.testing import batch, collect
        >>> contract = Contract("sizes", 1, [Field("size", "int", min=1, action="flag")])
        >>> collect(batch(size=["7", "-1"]), Validate(contract)).rows()
        [(7, None), (-1, ['size.min'])]
    """

    def __init__(self, contract: str | Path | Contract) -> None:
        super().__init__()
        self.contract = contract if isinstance(contract, Contract) else load_contract(contract)

    def bind(self, schema: pl.Schema) -> ValidateKernel:
        return ValidateKernel(self.contract, schema)


@dataclass(frozen=True)
class _Check:
    """One thing that a row may break: what it is called, and what becomes of the row."""

    name: str
    action: str
    broken: pl.Expr
    message: pl.Expr
    mark: str


class ValidateKernel:
    """Hold the rows of a table against a contract; see `Validate`.

    Args:
        contract: the contract.
        schema: the columns of the tables to come.

    Example:
        >>> from fabric_beam.contract import Contract, Field
        >>> table = pl.DataFrame({"size": [7, -1]})
        >>> result = ValidateKernel(Contract("sizes", 1, [Field("size", "int", min=0)]), table.schema)(table)
        >>> result.rejected.row(0, named=True)
        {'size': -1, 'rejected.rule': 'min', 'rejected.message': 'size: -1 is below the minimum 0'}
    """

    def __init__(self, contract: Contract, schema: pl.Schema) -> None:
        _check_columns(contract, schema)
        present = [field for field in contract.fields if field.name in schema]
        casts = {field.name: _cast(contract, field, schema[field.name]) for field in present}
        self._casts = [cast.alias(name) for name, cast in casts.items() if cast is not None]
        self._raw = [pl.col(name).alias(_RAW + name) for name, cast in casts.items() if cast is not None]
        self._checks = [check for field in present for check in _field_checks(field, casts[field.name] is not None)]
        typed = pl.DataFrame(schema=schema).with_columns(self._casts).schema
        rules = [_rule_check(contract, rule, typed) for rule in contract.rules]
        self._rules = [check.broken for check in rules]
        self._checks += rules
        actions = {field.action for field in contract.fields} | {rule.action for rule in contract.rules}
        self._marks = [column for action, column in _COLUMN_OF.items() if action in actions]
        self._columns = schema.names()
        self._as_they_came = [
            pl.col(_RAW + name).alias(name) if casts.get(name) is not None else pl.col(name)
            for name in schema
            if name not in (RULE, MESSAGE)
        ]

    def __call__(self, table: pl.DataFrame) -> pl.DataFrame | Split:
        work = table.with_columns(*self._raw, *self._casts) if self._casts else table
        result = reject_failures(work, self._validate, self._rules)
        if isinstance(result, pl.DataFrame):
            return result
        return Split(result.kept, result.rejected.select(*self._as_they_came, RULE, MESSAGE))

    def _validate(self, work: pl.DataFrame) -> pl.DataFrame | Split:
        failing = self._failing(work)
        rejecting = [check for check in failing if check.action == "reject"]
        if not rejecting:
            return self._mark(work, failing)
        bad = evaluate(work, pl.any_horizontal(check.broken.fill_null(False) for check in rejecting))
        rules = [pl.when(check.broken).then(pl.lit(check.name)) for check in rejecting]
        messages = [pl.when(check.broken).then(check.message) for check in rejecting]
        message = pl.concat_str(messages, separator="; ", ignore_nulls=True)
        rejected = work.filter(bad).with_columns(pl.coalesce(rules).alias(RULE), message.alias(MESSAGE))
        return Split(self._mark(work.filter(~bad), failing), rejected)

    def _failing(self, work: pl.DataFrame) -> list[_Check]:
        """The checks that any row breaks, found in one pass, so that a batch without fault costs nothing more."""
        if not self._checks:
            return []
        broken = work.select(check.broken.any().alias(str(number)) for number, check in enumerate(self._checks)).row(0)
        return [check for check, is_broken in zip(self._checks, broken, strict=True) if is_broken]

    def _mark(self, work: pl.DataFrame, failing: Sequence[_Check]) -> pl.DataFrame:
        """The columns that go on, with the names of what each row breaks and is kept in spite of."""
        marks = []
        for mark in self._marks:
            checks = [check for check in failing if _COLUMN_OF.get(check.action) == mark]
            found = [_names(work, checks[start : start + 60]) for start in range(0, len(checks), 60)]
            if mark in work.columns:
                found.insert(0, work[mark])
            if len(found) > 1:
                parts = pl.DataFrame([names.alias(str(number)) for number, names in enumerate(found)])
                whole = pl.concat_list(pl.all().fill_null(pl.lit([], dtype=_NAMES)))
                found = [parts.select(pl.when(whole.list.len() > 0).then(whole)).to_series()]
            marks.append((found[0] if found else pl.lit(None, dtype=_NAMES)).alias(mark))
        return work.select(self._columns).with_columns(marks)


def _names(work: pl.DataFrame, checks: Sequence[_Check]) -> pl.Series:
    """The names of the checks that each row breaks: a list for each combination there is, and a number for each row."""
    bits = [
        check.broken.fill_null(False).cast(pl.UInt64) * pl.lit(2**bit, pl.UInt64) for bit, check in enumerate(checks)
    ]
    codes = evaluate(work, pl.sum_horizontal(bits))
    kinds = codes.unique().sort()
    lists = [[check.mark for bit, check in enumerate(checks) if kind >> bit & 1] or None for kind in kinds]
    return pl.Series(lists, dtype=_NAMES).gather(kinds.search_sorted(codes))


def _check_columns(contract: Contract, schema: pl.Schema) -> None:
    """Refuse a schema that lacks a required field, or has a column that a frozen contract does not know."""
    names = {field.name for field in contract.fields}
    for field in contract.fields:
        if field.required and field.name not in schema:
            problem = f"the required field {field.name!r} is not among the columns. {nearest(field.name, schema)}"
            raise SchemaError(f"{contract.where(field)}: {problem}")
    extra = [name for name in schema if name not in names and name not in (*_PROVENANCE, FLAGS, WARNINGS)]
    if contract.mode == "freeze" and extra:
        raise SchemaError(
            f"{contract.where()}: the contract is frozen, and the column {extra[0]!r} is not one of its fields. "
            f"{nearest(extra[0], names)} Drop the column before, add it to a new version, or set mode: evolve."
        )
    for mark in (FLAGS, WARNINGS):
        if schema.get(mark, _NAMES) != _NAMES:
            raise SchemaError(f"{contract.where()}: the column {mark!r} is {schema[mark]}, not a list of names.")


def _cast(contract: Contract, field: Field, dtype: pl.DataType) -> pl.Expr | None:
    """How a column becomes the field's type, with null for what it cannot hold; None where it has that type."""
    column, target = pl.col(field.name), TYPES[field.type]
    if dtype == target or _suits(dtype, field.type):
        return None
    if dtype in (pl.String, pl.Categorical, pl.Enum):
        return _from_text(column.cast(pl.String), field.type)
    if dtype == pl.Null or (field.type == "string" and not dtype.is_nested() and dtype != pl.Binary):
        return column.cast(target)
    if field.type == "timestamp" and isinstance(dtype, pl.Datetime):
        return column.dt.convert_time_zone("UTC") if dtype.time_zone else column.dt.replace_time_zone("UTC")
    if field.type in ("int", "float", "bool") and (dtype.is_numeric() or dtype == pl.Boolean):
        value = column.cast(target, strict=False)
        return pl.when(value.cast(dtype, strict=False) == column).then(value)
    raise SchemaError(
        f"{contract.where(field)}: field {field.name!r} is of type {field.type}; a column of type {dtype} cannot be "
        "converted to it."
    )


def _suits(dtype: pl.DataType, type_: str) -> bool:
    """Whether a column is of a field's type, in whatever width or unit."""
    if type_ == "timestamp":
        return isinstance(dtype, pl.Datetime) and dtype.time_zone == "UTC"
    return dtype.is_integer() if type_ == "int" else type_ == "float" and dtype.is_float()


def _from_text(text: pl.Expr, type_: str) -> pl.Expr:
    if type_ == "bool":
        lower = text.str.to_lowercase()
        return pl.when(lower == "true").then(True).when(lower == "false").then(False)
    if type_ == "timestamp":
        utc = (
            whole.str.to_datetime(_RFC_3339, time_unit="us", time_zone="UTC", strict=False)
            for whole in (text, text + "Z")
        )
        return pl.coalesce(utc)
    return text.cast(TYPES[type_], strict=False)


def _field_checks(field: Field, converted: bool) -> list[_Check]:
    """What a field's values may break, in the order of `fabric_beam.contract.CHECKS`."""
    column = pl.col(field.name)
    raw = pl.col(_RAW + field.name) if converted else column
    length = column.str.len_chars()
    nan = [column.is_nan()] if field.type == "float" else []
    checks = []

    def add(name: str, broken: pl.Expr, *message: pl.Expr | str) -> None:
        action = "reject" if name in ("type", "required") else field.action
        said = [pl.lit(part) if isinstance(part, str) else part.cast(pl.String).str.head(_LONGEST) for part in message]
        text = pl.concat_str(pl.lit(f"{field.name}: "), *said)
        checks.append(_Check(name, action, broken, text, f"{field.name}.{name}"))

    if converted:
        add("type", raw.is_not_null() & column.is_null(), "'", raw, f"' is not of type {field.type}")
    if field.required:
        add("required", raw.is_null(), "required, but null")
    if field.min is not None:
        add("min", pl.any_horizontal(column < field.min, *nan), column, f" is below the minimum {field.min}")
    if field.max is not None:
        add("max", pl.any_horizontal(column > field.max, *nan), column, f" is above the maximum {field.max}")
    if field.min_length is not None:
        add("min_length", length < field.min_length, length, f" characters, fewer than {field.min_length}")
    if field.max_length is not None:
        add("max_length", length > field.max_length, length, f" characters, more than {field.max_length}")
    if field.pattern is not None:
        add("pattern", ~column.str.contains(field.pattern), "'", column, f"' does not match {field.pattern!r}")
    if field.one_of is not None:
        known = ", ".join(str(value) for value in field.one_of)
        add("one_of", ~column.is_in(list(field.one_of)), "'", column, f"' is not one of {known}")
    return checks


def _rule_check(contract: Contract, rule: Rule, schema: pl.Schema) -> _Check:
    try:
        passed = compile_predicate(rule.expression, schema)
    except UsageError as error:
        raise SchemaError(f"{contract.where(rule)}: rule {rule.name!r}: {error}") from error
    message = pl.lit(f"{rule.name}: {rule.message or 'not true: ' + rule.expression}")
    return _Check(rule.name, rule.action, ~passed, message, rule.name)
