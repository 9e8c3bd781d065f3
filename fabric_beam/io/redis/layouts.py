"""How rows lie in Redis: one class a layout, chosen by the option `as`."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Any, ClassVar

import polars as pl

from fabric_beam.endpoints import Endpoint
from fabric_beam.errors import OutputError, SchemaError, UsageError, nearest
from fabric_beam.io.redis.commands import command, count
from fabric_beam.io.store import PROVENANCE, identities
from fabric_beam.io.templates import Template, text
from fabric_beam.json_rows import to_json
from fabric_beam.option_kinds import whole

#: What the keys of rows begin with, unless the URL says otherwise.
PREFIX = "row"

#: Sends commands, so many for each row, and returns the lines that answer them, in order.
Exchange = Callable[[pl.Series, int], pl.Series]

_KEY = "\0key"
_VALUE = "\0value"

#: Replaces a hash by other fields, at once.
_REPLACE = """\
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], unpack(ARGV, 2))
if ARGV[1] ~= '0' then redis.call('EXPIRE', KEYS[1], ARGV[1]) end
return 1"""

#: Appends an entry unless one of its identity was appended in the last ARGV[1] seconds. Identities lie in two sets, of
#: this period of so many seconds and of the one before, which go away whole. First the entry, then the identity: a
#: script that fails on the way is not undone.
_APPEND = """\
local period = math.floor(redis.call('TIME')[1] / ARGV[1])
local seen, before = KEYS[1] .. ':seen:' .. period, KEYS[1] .. ':seen:' .. (period - 1)
if redis.call('SISMEMBER', seen, ARGV[4]) == 1 or redis.call('SISMEMBER', before, ARGV[4]) == 1 then return 0 end
if ARGV[3] == '0' then
  redis.call('XADD', KEYS[1], '*', unpack(ARGV, 5))
else
  redis.call('XADD', KEYS[1], 'MAXLEN', ARGV[2], ARGV[3], '*', unpack(ARGV, 5))
end
redis.call('SADD', seen, ARGV[4])
if redis.call('SCARD', seen) == 1 then redis.call('EXPIRE', seen, 2 * ARGV[1]) end
return 1"""


class Layout(ABC):
    """How rows lie in the store.

    Args:
        endpoint: the URL; a layout takes its own options out of it.

    Attributes:
        OPTIONS: their names.
        COLUMNS: those of them that name a column.
        SCRIPT: in Lua, to be loaded, if its commands call one.
        BY_IDENTITY: whether it needs the rows' identities though it is given keys.

    Raises:
        UsageError: an option is missing or wrong.
    """

    OPTIONS: ClassVar[tuple[str, ...]] = ("key",)
    COLUMNS: ClassVar[tuple[str, ...]] = ()
    SCRIPT: ClassVar[str] = ""
    BY_IDENTITY: ClassVar[bool] = False

    def __init__(self, endpoint: Endpoint) -> None:
        self._key = endpoint.option("key", _template, None)
        self._prefix = endpoint.option("prefix", str, PREFIX)
        if self._key is None and "prefix" not in self.OPTIONS:
            raise UsageError(
                f"{endpoint.scheme}: as={self.name()} needs key=, such as key={self.name()}:{{host.name}}."
            )
        self._named = {name: endpoint.option(name, str, "") for name in self.COLUMNS}
        for name, column in self._named.items():
            if not column:
                raise UsageError(f"{endpoint.scheme}: as={self.name()} needs {name}=, a column.")
        self._ttl = endpoint.option("ttl", whole, 0)

    @classmethod
    def name(cls) -> str:
        """What the option `as` calls it."""
        return cls.__name__.lower()

    def needed(self, schema: pl.Schema) -> list[str]:
        """The columns that a row must have a value in."""
        identity = PROVENANCE if self.BY_IDENTITY or not self._key else ()
        named = [*(self._key.columns if self._key else ()), *self._named.values()]
        return list(dict.fromkeys([*named, *(identity if set(identity) <= set(schema) else ())]))

    def check(self, schema: pl.Schema) -> None:
        """Make sure that it can hold rows of a schema.

        Raises:
            SchemaError: a column that an option names is missing or of the wrong type.
            OutputError: a column holds what has no text.
        """
        for name in self.needed(schema):
            if name not in schema:
                raise SchemaError(
                    f"redis: an option names {name!r}, and there is no such column. {nearest(name, schema)}"
                )
        for name, dtype in schema.items():
            if dtype.is_nested() and _holds_bytes(dtype):
                raise OutputError(
                    f"redis: column {name!r} is {dtype}: nested values are JSON there, which has no bytes."
                )

    @abstractmethod
    def write(self, table: pl.DataFrame, exchange: Exchange) -> dict[int, str]:
        """Write rows, none of which lacks what is `needed`.

        Returns:
            The errors of rows that were refused, by the row's number.
        """

    def keys(self, table: pl.DataFrame) -> pl.Series:
        """The key of each row."""
        return self._texts(table, ())[_KEY]

    def _texts(self, table: pl.DataFrame, columns: Iterable[str]) -> pl.DataFrame:
        """Columns as text, and the key."""
        if self._key is None:
            keys = pl.lit(f"{self._prefix}:") + pl.lit(identities(table, []))
        else:
            columns, keys = (*columns, *self._key.columns), self._key.filled()
        texts = [text(name, table.schema[name]) for name in dict.fromkeys(columns)]
        return (table.select(texts) if texts else table).with_columns(keys.alias(_KEY))

    def _set(self, value: pl.Expr) -> pl.Expr:
        return command("SET", pl.col(_KEY), value, *(("EX", str(self._ttl)) if self._ttl else ()))


class Hash(Layout):
    """One hash a row, a field for each column that is not null.

    New hashes take one HSET. Where some of the fields were there, others may be too, of an earlier form of the row:
    those hashes are counted, and the ones with more fields than their row are replaced whole.
    """

    OPTIONS = ("key", "prefix", "ttl")

    def write(self, table: pl.DataFrame, exchange: Exchange) -> dict[int, str]:
        names = [name for name, dtype in table.schema.items() if dtype != pl.Null]
        rows = self._texts(table, names)
        hset = command("HSET", pl.col(_KEY), fields=names)
        commands = [hset, command("EXPIRE", pl.col(_KEY), str(self._ttl))] if self._ttl else [hset]
        lines = exchange(_joined(rows, *commands), len(commands))
        errors = _errors(lines, len(commands))
        rows = rows.with_columns((":" + count(names).cast(pl.String)).alias(_VALUE))
        # As many fields were new as the row has: the hash was. (Its key's own columns are among them.)
        added = lines.gather_every(len(commands))
        seen = (
            rows.filter((added != rows[_VALUE]) & ~added.str.starts_with("-"))
            if self._key is None or self._key.columns
            else rows
        )
        if seen.height:
            self._replace_others(seen.unique(_KEY, keep="last", maintain_order=True), names, exchange)
        return errors

    def _replace_others(self, rows: pl.DataFrame, names: list[str], exchange: Exchange) -> None:
        rows = rows.filter(exchange(_joined(rows, command("HLEN", pl.col(_KEY))), 1) != rows[_VALUE])
        if rows.height:
            exchange(_joined(rows, command("EVAL", _REPLACE, "1", pl.col(_KEY), str(self._ttl), fields=names)), 1)


class Json(Layout):
    """One string a row: the row as JSON."""

    OPTIONS = ("key", "prefix", "ttl")

    def write(self, table: pl.DataFrame, exchange: Exchange) -> dict[int, str]:
        rows = _with_json(self._texts(table, ()), table)
        return _errors(exchange(_joined(rows, self._set(pl.col(_VALUE))), 1), 1)


class Counter(Layout):
    """One string a key: a column's value, the last one written."""

    OPTIONS = ("key", "value", "ttl")
    COLUMNS = ("value",)

    def write(self, table: pl.DataFrame, exchange: Exchange) -> dict[int, str]:
        value = self._named["value"]
        return _errors(exchange(_joined(self._texts(table, [value]), self._set(pl.col(value))), 1), 1)


class Stream(Layout):
    """An entry of a stream a row, a field for each column that is not null."""

    OPTIONS = ("key", "maxlen", "seen")
    SCRIPT = _APPEND
    BY_IDENTITY = True

    def __init__(self, endpoint: Endpoint) -> None:
        super().__init__(endpoint)
        maxlen = endpoint.option("maxlen", _length, "0")
        self._maxlen = ("~" if maxlen.startswith("~") else "=", maxlen.removeprefix("~"))
        self._seen = endpoint.option("seen", whole, 3600)

    def write(self, table: pl.DataFrame, exchange: Exchange) -> dict[int, str]:
        names = [name for name, dtype in table.schema.items() if dtype != pl.Null]
        rows = self._texts(table, names).with_columns(identities(table, []).alias(_VALUE))
        script = hashlib.sha1(self.SCRIPT.encode()).hexdigest()
        fixed = (script, "1", pl.col(_KEY), str(self._seen), *self._maxlen, pl.col(_VALUE))
        return _errors(exchange(_joined(rows, command("EVALSHA", *fixed, fields=names)), 1), 1)


class Top(Layout):
    """The members with the highest scores of each key, in a sorted set."""

    OPTIONS = ("key", "member", "score", "limit", "ttl")
    COLUMNS = ("member", "score")

    def __init__(self, endpoint: Endpoint) -> None:
        super().__init__(endpoint)
        self._limit = endpoint.option("limit", whole, 100)

    def check(self, schema: pl.Schema) -> None:
        super().check(schema)
        score = self._named["score"]
        if not schema[score].is_numeric():
            raise SchemaError(f"redis: score={score!r} is {schema[score]}: scores are numbers.")

    def write(self, table: pl.DataFrame, exchange: Exchange) -> dict[int, str]:
        rows = self._texts(table, self._named.values())
        key, score, member = (pl.col(name) for name in (_KEY, self._named["score"], self._named["member"]))
        errors = _errors(exchange(_joined(rows, command("ZADD", key, score, member)), 1), 1)
        commands = [command("ZREMRANGEBYRANK", key, "0", str(-self._limit - 1))]
        if self._ttl:
            commands.append(command("EXPIRE", key, str(self._ttl)))
        exchange(_joined(rows.unique(_KEY), *commands), len(commands))
        return errors


class Publish(Layout):
    """A message a row: the row as JSON, to whoever listens."""

    def write(self, table: pl.DataFrame, exchange: Exchange) -> dict[int, str]:
        rows = _with_json(self._texts(table, ()), table)
        return _errors(exchange(_joined(rows, command("PUBLISH", pl.col(_KEY), pl.col(_VALUE))), 1), 1)


LAYOUTS: dict[str, type[Layout]] = {kind.name(): kind for kind in (Hash, Json, Stream, Counter, Top, Publish)}
OPTIONS = tuple(dict.fromkeys(["as", *(option for kind in LAYOUTS.values() for option in kind.OPTIONS)]))


def layout(endpoint: Endpoint) -> Layout:
    """The layout that a URL asks for, its options taken.

    Raises:
        UsageError: there is none of that name, or an option is wrong, or of another layout.
    """
    name = endpoint.option("as", str, Hash.name())
    if name not in LAYOUTS:
        raise UsageError(f"{endpoint.scheme}: there is no layout as={name}. {nearest(name, LAYOUTS)}")
    for option in endpoint.options:
        if option in OPTIONS and option not in LAYOUTS[name].OPTIONS:
            of = " and ".join(f"as={other}" for other, kind in LAYOUTS.items() if option in kind.OPTIONS)
            raise UsageError(f"{endpoint.scheme}: option {option!r} is of {of}, not of as={name}.")
    return LAYOUTS[name](endpoint)


def _with_json(rows: pl.DataFrame, table: pl.DataFrame) -> pl.DataFrame:
    return rows.with_columns(to_json(table).alias(_VALUE))


def _joined(rows: pl.DataFrame, *commands: pl.Expr) -> pl.Series:
    return rows.select(pl.concat_str(*commands).alias("commands"))["commands"]


def _errors(lines: pl.Series, replies: int) -> dict[int, str]:
    """The first error of each row that has one."""
    return {n // replies: lines[n][1:] for n in reversed(lines.str.starts_with("-").arg_true().to_list())}


def _holds_bytes(dtype: Any) -> bool:
    match dtype:
        case pl.List() | pl.Array():
            return _holds_bytes(dtype.inner)
        case pl.Struct():
            return any(_holds_bytes(field.dtype) for field in dtype.fields)
    return bool(dtype == pl.Binary)


def _template(template: str) -> Template:
    return Template(template)


_template.__name__ = "a text with columns in braces, such as {source}:{offset}"


def _length(length: str) -> str:
    whole(length.removeprefix("~"))
    return length


_length.__name__ = "a number of entries, exact (1000) or about (~1000)"
