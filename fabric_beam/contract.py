"""Data contracts: a versioned YAML file that says what the fields of an event must be, and what follows if not."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import polars as pl

from fabric_beam.errors import UsageError, nearest

ACTIONS = ("reject", "flag", "warn")
MODES = ("evolve", "freeze")
#: The limits that a field of each type may have.
LIMITS = {
    "string": ("min_length", "max_length", "pattern", "one_of"),
    "int": ("min", "max", "one_of"),
    "float": ("min", "max", "one_of"),
    "bool": (),
    "timestamp": ("min", "max"),
}
#: What columns of each type hold.
TYPES: dict[str, pl.DataType] = {
    "string": pl.String(),
    "int": pl.Int64(),
    "float": pl.Float64(),
    "bool": pl.Boolean(),
    "timestamp": pl.Datetime("us", "UTC"),
}
#: The checks of a field, in the order in which they are made; the first two always reject.
CHECKS = ("type", "required", "min", "max", "min_length", "max_length", "pattern", "one_of")

_PYTHON_TYPES: dict[str, Any] = {"string": str, "int": int, "float": (int, float)}


class KeyedError(UsageError):
    """A key of a contract is wrong: the loader adds the line."""

    def __init__(self, key: str, problem: str) -> None:
        super().__init__(problem)
        self.key = key


@dataclass(frozen=True)
class Field:
    """What a field must be.

    Args:
        name: the column, such as `http.response.status_code`.
        type: `string`, `int`, `float`, `bool` or `timestamp` (UTC). A column of another type is converted row by row.
        required: whether null is refused, and so is a schema without the column.
        min: the least value allowed (int, float, timestamp). NaN is outside every range.
        max: the greatest value allowed (int, float, timestamp).
        min_length: the least length allowed, in characters (string).
        max_length: the greatest length allowed, in characters (string).
        pattern: a regular expression (Rust's `regex` syntax) found in every value (string); anchor it by ^ and $.
        one_of: the values allowed (string, int, float).
        action: what follows if a limit is broken (see `Rule`); a wrong type or a missing required value always rejects.
        description: for people.
        line: where it stands in its file.

    Raises:
        UsageError: when it contradicts itself.
    """

    name: str
    type: str
    required: bool = False
    min: Any = None
    max: Any = None
    min_length: int | None = None
    max_length: int | None = None
    pattern: str | None = None
    one_of: Sequence[Any] | None = None
    action: str = "reject"
    description: str = ""
    line: int | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        self._must(isinstance(self.name, str) and bool(self.name), "type", "the name is text.")
        self._must(self.type in LIMITS, "type", _unknown("type", self.type, tuple(LIMITS)))
        self._must(isinstance(self.required, bool), "required", f"required is true or false, not {self.required!r}.")
        self._must(self.action in ACTIONS, "action", _unknown("action", self.action, ACTIONS))
        for limit in CHECKS[2:]:
            if getattr(self, limit) is not None:
                self._check_limit(limit)
        for least, most in (("min", "max"), ("min_length", "max_length")):
            low, high = getattr(self, least), getattr(self, most)
            if low is not None and high is not None:
                self._must(low <= high, least, f"{least} {low} is above {most} {high}: no value satisfies both.")

    def _check_limit(self, limit: str) -> None:
        value, known = getattr(self, limit), LIMITS[self.type]
        has = f"whose limits are: {', '.join(known)}" if known else "which has no limits"
        self._must(limit in known, limit, f"{limit} does not apply to type {self.type}, {has}.")
        if limit in ("min", "max"):
            object.__setattr__(self, limit, self._value(limit, value))
        elif limit == "one_of":
            self._must(isinstance(value, list | tuple) and bool(value), limit, f"one_of is a list, not {value!r}.")
            object.__setattr__(self, limit, tuple(self._value(limit, item) for item in value))
        elif limit == "pattern":
            try:
                pl.Series([""]).str.contains(value)
            except (pl.exceptions.PolarsError, TypeError) as error:
                raise self._wrong(limit, f"pattern {value!r} is not a regular expression: {error}") from error
        else:
            whole = type(value) is int and value >= 0
            self._must(whole, limit, f"{limit} is a number of characters, not {value!r}.")

    def _value(self, limit: str, value: Any) -> Any:
        """A limit in the field's own type; of a timestamp, a moment in UTC from YAML's dates or ISO 8601 text."""
        if self.type == "timestamp":
            try:
                moment = datetime.fromisoformat(value.isoformat() if isinstance(value, date) else value)
            except (ValueError, TypeError) as error:
                raise self._wrong(limit, f"{limit} is a time in ISO 8601, not {value!r}.") from error
            return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
        fits = (
            isinstance(value, _PYTHON_TYPES[self.type])
            and not isinstance(value, bool)
            and not (isinstance(value, float) and math.isnan(value))
        )
        quotes = " Put it in quotes." if self.type == "string" else ""
        self._must(fits, limit, f"{limit} {value!r} is not of type {self.type}.{quotes}")
        return value

    def _must(self, condition: bool, key: str, problem: str) -> None:
        if not condition:
            raise self._wrong(key, problem)

    def _wrong(self, key: str, problem: str) -> KeyedError:
        return KeyedError(key, f"field {self.name!r}: {problem}")


@dataclass(frozen=True)
class Rule:
    """A condition over the fields of a row.

    Args:
        name: what it is called in dead letters, flags and warnings.
        expression: an SQL condition (`fabric_beam.expressions`). As in an SQL CHECK, null counts as passed.
        action: what follows if it is false. `reject` sends the row to the dead letters; `flag` keeps it and adds the
            name to its `validation.flags`; `warn` keeps it and adds the name to its `validation.warnings`.
        message: what to tell people.
        line: where it stands in its file.

    Raises:
        UsageError: when a part is missing or unknown.
    """

    name: str
    expression: str
    action: str = "reject"
    message: str = ""
    line: int | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        for key in ("name", "expression", "message"):
            value = getattr(self, key)
            if not isinstance(value, str) or (key != "message" and not value.strip()):
                raise KeyedError(key, f"rule {self.name!r}: {key} is text, not {value!r}.")
        if self.name in CHECKS:
            raise KeyedError("name", f"rule {self.name!r}: a check of fields has this name; choose another.")
        if self.action not in ACTIONS:
            raise KeyedError("action", f"rule {self.name!r}: {_unknown('action', self.action, ACTIONS)}")


@dataclass(frozen=True)
class Contract:
    """What every row of a data set must be.

    Args:
        name: the data set.
        version: a whole number, raised by each change that can break a reader.
        fields: one for each column that it speaks of.
        rules: conditions over several fields.
        mode: `evolve` lets other columns pass; `freeze` refuses them while the pipeline is built, but for `source` and
            `offset`, which every source adds.
        description: for people.
        path: the file it came from.

    Raises:
        UsageError: when it contradicts itself.

    Example:
        >>> Contract("access_log", 1, [Field("http.response.status_code", "int", min=100, max=599)]).mode
        'evolve'
    """

    name: str
    version: int
    fields: Sequence[Field] = ()
    rules: Sequence[Rule] = ()
    mode: str = "evolve"
    description: str = ""
    path: Path | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise KeyedError("contract", f"contract is the name of a data set, not {self.name!r}.")
        if type(self.version) is not int or self.version < 1:
            raise KeyedError("version", f"version is a whole number from 1, not {self.version!r}.")
        if self.mode not in MODES:
            raise KeyedError("mode", _unknown("mode", self.mode, MODES))
        if not self.fields and not self.rules:
            raise KeyedError("contract", "it has no fields and no rules, so it checks nothing.")
        for key, names in (
            ("fields", [part.name for part in self.fields]),
            ("rules", [part.name for part in self.rules]),
        ):
            if twice := next((name for name in names if names.count(name) > 1), None):
                raise KeyedError(key, f"two {key} are named {twice!r}.")

    def where(self, part: Field | Rule | None = None) -> str:
        """Where a part of the contract stands, to begin a message with."""
        place = str(self.path) if self.path else f"contract {self.name!r}"
        return f"{place}:{part.line}" if part is not None and part.line else place


def _unknown(key: str, value: Any, known: Sequence[str]) -> str:
    return f"{key} {value!r} is unknown. {nearest(str(value), known)}"
