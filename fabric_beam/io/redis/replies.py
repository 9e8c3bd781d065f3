r"""Answers of the Redis protocol, many at a time.

The client's own reader takes one line after the other; here the text is cut into lines at once. A value with a line end
in it shows by its length, and then the answers are read again with care.

Source: https://valkey.io/topics/protocol/
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import redis

_READ_BYTES = 1 << 18


class _Misread(Exception):
    """A line end belonged to a value."""


def ask(connection: redis.Connection, commands: Sequence[Sequence[bytes]]) -> list[Any]:
    """Send commands and wait for all answers.

    Args:
        connection: nobody else's, with no answers under way; `ECHO` is allowed on it.
        commands: each with its arguments.

    Returns:
        An answer for each: a text whose characters are its bytes (see `decoded`), an integer, None, a list of these, or
        an error (not raised).
    """
    import redis

    # No value can hold what was made up after it was stored.
    mark = os.urandom(16).hex().encode()
    connection.send_packed_command([b"".join(map(_packed, [*commands, (b"ECHO", mark)]))])
    end = b"$32\r\n" + mark + b"\r\n"
    sock: Any = connection._sock
    parts: list[bytes] = []
    tail = b""
    while tail != end:
        part = sock.recv(_READ_BYTES)
        if not part:
            raise redis.ConnectionError("The server closed the connection.")
        parts.append(part)
        tail = (tail + part)[-len(end) :]
    return parse(b"".join(parts)[: -len(end)], len(commands))


def parse(answers: bytes, count: int) -> list[Any]:
    r"""Take answers apart.

    Example:
        >>> parse(b"*2\r\n$1\r\na\r\n$3\r\n1\r\n\r\n:5\r\n$-1\r\n", 3)
        [['a', '1\r\n'], 5, None]
    """
    # A character for each byte: lengths stay what they are.
    text = answers.decode("latin-1")
    try:
        return _replies(_Lines(text), count)
    except (_Misread, ValueError, IndexError):
        return _replies(_Bytes(text), count)


def decoded(text: str) -> str:
    """A text of an answer in its own characters; what is not UTF-8 is U+FFFD."""
    return text if text.isascii() else text.encode("latin-1").decode(errors="replace")


def _packed(command: Sequence[bytes]) -> bytes:
    return b"*%d\r\n" % len(command) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in command)


class _Lines:
    """Answers by line, as long as no value has line ends in it."""

    def __init__(self, text: str) -> None:
        self._lines = text.split("\r\n")
        self._at = 0

    def line(self) -> str:
        self._at += 1
        return self._lines[self._at - 1]

    def value(self, length: int) -> str:
        value = self.line()
        if len(value) != length:
            raise _Misread
        return value

    def values(self, count: int) -> list[str] | None:
        """The next answers, if all of them are texts."""
        sizes = self._lines[self._at : self._at + 2 * count : 2]
        values = self._lines[self._at + 1 : self._at + 2 * count : 2]
        if [f"${len(value)}" for value in values] != sizes:
            return None
        self._at += 2 * count
        return values


class _Bytes:
    """Answers by the lengths of their values."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def line(self) -> str:
        end = self._text.index("\r\n", self._at)
        line, self._at = self._text[self._at : end], end + 2
        return line

    def value(self, length: int) -> str:
        value = self._text[self._at : self._at + length]
        self._at += length + 2
        return value

    def values(self, count: int) -> list[str] | None:
        return None


def _replies(source: _Lines | _Bytes, count: int) -> list[Any]:
    import redis

    line, value, values = source.line, source.value, source.values

    def reply() -> Any:
        head = line()
        kind, rest = head[0], head[1:]
        if kind == "$":
            return value(int(rest)) if rest != "-1" else None
        if kind == "*":
            size = int(rest)
            return None if size < 0 else values(size) or [reply() for _ in range(size)]
        if kind == "-":
            return redis.ResponseError(rest)
        if kind == ":":
            return int(rest)
        if kind == "+":
            return rest
        raise _Misread

    one: Callable[[], Any] = reply
    return [one() for _ in range(count)]
