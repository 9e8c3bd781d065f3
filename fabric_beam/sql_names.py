"""Write bare dotted column names and times the way Polars' SQL parser reads them."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import NoReturn

import polars as pl

from fabric_beam.errors import UsageError, nearest

_TOKEN = re.compile(
    r"""(?P<space>\s+|--[^\n]*|/\*.*?\*/)
      | (?P<time>timestamp(?:tz)?\s*'(?:[^']|'')*')
      | (?P<string>'(?:[^']|'')*')
      | (?P<quoted>"(?:[^"]|"")*"|`(?:[^`]|``)*`)
      | (?P<number>(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?)
      | (?P<name>[^\W\d]\w*(?:\.\w+)*)
      | (?P<operator><=>|<>|!=|<=|>=|==|\|\||::|->>?|!?~\*?|.)""",
    re.VERBOSE | re.DOTALL | re.IGNORECASE,
)
#: Words that may stand where a column may, and are never taken for one unless quoted.
_RESERVED = {"between", "case", "distinct", "false", "ilike", "in", "like", "not", "null", "regexp", "rlike", "true"}
#: Words after which a column may stand; after any other, a name is a keyword: EXTRACT(hour FROM timestamp).
_BEFORE_COLUMN = {"and", "between", "case", "else", "from", "ilike", "in", "is", "like", "not", "or", "regexp", "rlike"}
_BEFORE_COLUMN |= {"by", "then", "when"}
_CLOCK = {"current_date", "current_time", "current_timestamp", "localtime", "localtimestamp", "now"}
_COMPARISONS = {"=", "==", "!=", "<>", "<", "<=", ">", ">=", "<=>"}
#: Texts (S) beside a timestamp column (T), where a token is one letter: o a comparison, B BETWEEN, N NOT, A AND, I IN.
_TEXTS_AS_TIMES = re.compile(r"TN?(?:oS|BSAS|I\(S(?:,S)*\))|SoT")
_LETTERS = {"not": "N", "between": "B", "and": "A", "in": "I"}


#: Said of an expression that would look at more than its own row.
ONE_ROW = "An expression sees one row at a time: no aggregate, window function, sub-query or list of rows."


@dataclass(frozen=True)
class Token:
    """A piece of an SQL expression.

    Attributes:
        kind: `space`, `time`, `string`, `quoted`, `number`, `name` or `operator`.
        text: as it was written.
        start: where, in characters from the start.
        sql: as Polars is to read it.
        column: the column that it names, if it does.
        dtype: that column's type.
    """

    kind: str
    text: str
    start: int
    sql: str
    column: str | None = None
    dtype: pl.DataType | None = None


def resolve(text: str, schema: pl.Schema) -> list[Token]:
    """Split an SQL expression and find the columns and times in it.

    Args:
        text: the expression.
        schema: the columns that it may use.

    Returns:
        Its tokens; `sql` of them all, joined by spaces, is the expression as Polars reads it.

    Raises:
        UsageError: for a dotted or quoted name that is no column, a time that is none, an open quote or bracket, or a
            clock.

    Example:
        >>> schema = pl.Schema({"service.name": pl.String()})
        >>> " ".join(token.sql for token in resolve("service.name = 'a.b'", schema))
        '"service.name" = \\'a.b\\''
    """
    found = [match for match in _TOKEN.finditer(text) if match.lastgroup != "space"]
    tokens = [Token(str(match.lastgroup), match[0], match.start(), match[0]) for match in found]
    opened: list[Token] = []
    for place, token in enumerate(tokens):
        before = tokens[place - 1] if place else None
        after = tokens[place + 1] if place + 1 < len(tokens) else None
        if token.kind == "quoted":
            tokens[place] = _quoted(text, token, schema)
        elif token.kind == "name":
            tokens[place] = _named(text, token, before, after, schema)
        elif token.text in ("'", '"', "`"):
            refuse(text, f"What opens with {token.text} is not closed.", token)
        elif token.text in ("(", "["):
            opened.append(token)
        elif token.text in (")", "]") and (not opened or opened.pop().text + token.text not in ("()", "[]")):
            refuse(text, f"{token.text} closes nothing.", token)
    if opened:
        refuse(text, f"{opened[-1].text} is not closed.", opened[-1])
    _check_distinct_from(text, tokens)
    return _write_times(text, tokens)


def refuse(text: str, problem: str, token: Token | None = None) -> NoReturn:
    """Raise a `UsageError` that shows an expression and, by a caret, the place of what is wrong with it."""
    if token is None:
        shown = text.strip() or "(empty)"
    else:
        start = text.rfind("\n", 0, token.start) + 1
        shown = f"{text[start:].splitlines()[0]}\n{' ' * (token.start - start)}^"
    raise UsageError(problem + "".join(f"\n    {line}" for line in shown.splitlines()))


def _check_distinct_from(text: str, tokens: list[Token]) -> None:
    """Polars takes all that follows DISTINCT FROM, even AND and OR, for its right side: ask for brackets."""
    words = [token.text.lower() for token in tokens]
    for place in range(2, len(words)):
        if words[place - 2 : place] == ["distinct", "from"]:
            depth = 0
            for word, token in zip(words[place:], tokens[place:], strict=True):
                depth += (word in ("(", "[")) - (word in (")", "]"))
                if depth < 0:
                    break
                if depth == 0 and word in ("and", "or"):
                    problem = f"Put the comparison before this {token.text} in brackets: (… IS DISTINCT FROM …)."
                    refuse(text, problem, token)


def _quoted(text: str, token: Token, schema: pl.Schema) -> Token:
    mark = token.text[0]
    name = token.text[1:-1].replace(mark * 2, mark)
    if name not in schema or _is_pattern(name):
        hint = f" Text stands in single quotes: '{name}'." if mark == '"' else ""
        refuse(text, f"There is no column {name!r}.{hint} {nearest(name, schema)}", token)
    return replace(token, column=name, dtype=schema[name])


def _named(text: str, token: Token, before: Token | None, after: Token | None, schema: pl.Schema) -> Token:
    word = token.text.lower()
    if word in _CLOCK and token.text not in schema:
        refuse(text, f"{token.text} would be the time when the pipeline is built: compare with a column.", token)
    if word == "select" and token.text not in schema:
        refuse(text, ONE_ROW, token)
    if word in _RESERVED or (after is not None and (after.text == "(" or after.kind == "string")):
        return token
    if before is not None and (
        before.column is not None
        or before.kind in ("number", "string", "time")
        or before.text in (")", "]", ".")
        or (before.kind == "name" and before.text.lower() not in _BEFORE_COLUMN)
    ):
        return token
    parts = token.text.split(".")
    for length in range(len(parts), 0, -1):
        name = ".".join(parts[:length])
        if name in schema and not _is_pattern(name):
            inner = "".join(f'."{part}"' for part in parts[length:])
            return replace(token, sql=f'"{name}"{inner}', column=name, dtype=None if inner else schema[name])
    if len(parts) > 1:
        refuse(text, f"There is no column {token.text!r}. {nearest(token.text, schema)}", token)
    return token


def _write_times(text: str, tokens: list[Token]) -> list[Token]:
    """Polars compares no text with a time, and drops the offset of TIMESTAMP '…+02:00': write times out in UTC."""
    letters = "".join(_letter(token) for token in tokens)
    for match in _TEXTS_AS_TIMES.finditer(letters):
        column = tokens[match.start() + match[0].index("T")]
        for place in range(match.start(), match.end()):
            if letters[place] == "S":
                tokens[place] = _time(text, tokens[place], column.dtype)
    return [_time(text, token, pl.Datetime("us", "UTC")) if token.kind == "time" else token for token in tokens]


def _letter(token: Token) -> str:
    if token.column is not None:
        return "T" if isinstance(token.dtype, pl.Datetime) else "?"
    if token.kind in ("string", "time"):
        return "S"
    if token.text in _COMPARISONS:
        return "o"
    return _LETTERS.get(token.text.lower(), token.text if token.text in ("(", ",", ")") else "?")


def _time(text: str, token: Token, dtype: pl.DataType | None) -> Token:
    written = token.text[token.text.index("'") + 1 : -1]
    try:
        moment = datetime.fromisoformat(written)
    except ValueError:
        refuse(text, f"{written!r} is not a time in ISO 8601, such as '2015-05-17T10:00:00Z'.", token)
    moment = moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    if isinstance(dtype, pl.Datetime) and dtype.time_zone is None:
        return replace(token, kind="string", sql=f"TIMESTAMP '{moment.replace(tzinfo=None).isoformat()}'")
    return replace(token, kind="string", sql=f"TIMESTAMPTZ '{moment.isoformat()}'")


def _is_pattern(name: str) -> bool:
    """Whether Polars would take a name for several columns."""
    return name == "*" or (name.startswith("^") and name.endswith("$"))
