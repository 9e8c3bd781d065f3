"""How rows are found in Redis and what they are: the reading half of `layouts.py`."""

from __future__ import annotations

import json
import re
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import polars as pl

from fabric_beam.endpoints import Endpoint
from fabric_beam.errors import UsageError, nearest
from fabric_beam.io.records.columns import Record
from fabric_beam.io.records.schema import infer
from fabric_beam.io.records.values import Convert, unchanged
from fabric_beam.io.redis.layouts import PREFIX, Stream
from fabric_beam.io.redis.replies import decoded
from fabric_beam.io.redis.texts import from_json_values, from_texts, infer_type

#: Keys that one range has, about; every range looks at all keys and keeps its own.
_RANGE = 250_000
_SCANNED = 10_000
_MOST_RANGES = 64
_PLACEHOLDER = re.compile(r"\{[^{}]+\}")

#: Sends commands and returns their answers.
Ask = Callable[[Sequence[Sequence[bytes]]], list[Any]]


class Row(NamedTuple):
    """What is stored of a row.

    Args:
        key: what no other row has.
        fields: its values; None if they are none.
        payload: what is there instead, for people.
    """

    key: str
    fields: Record | None
    payload: str = ""


class Stored(ABC):
    """How rows lie in the store: the reading half of what `layouts` writes."""

    def infer(self, records: list[Record]) -> dict[str, pl.DataType]:
        """The types that fields are of, by the values of a sample: texts, unless a layout knows better."""
        texts: dict[str, list[str]] = {}
        for record in records:
            for name, text in record.items():
                texts.setdefault(name, []).append(text)
        return {name: infer_type(found) for name, found in texts.items()}

    @property
    def convert(self) -> Convert:
        """What makes columns of the fields' values."""
        return from_texts

    @abstractmethod
    def splits(self, ask: Ask, count: int) -> list[str]:
        """Ranges that hold every row once: so many, or a number that fits if it is 0."""

    @abstractmethod
    def read(self, split: str, ask: Ask) -> Iterator[tuple[list[Row], str]]:
        """The rows of a range, in pages, and what is left of it after each."""

    @abstractmethod
    def nothing(self, ask: Ask) -> str:
        """What to say where there is no row."""


class _Keys(Stored):
    """Rows that have a key each.

    Keys come in no order, some of them twice, and after a restart in another one. So a range is the keys whose checksum
    is its own; it takes one look at all keys, and reads them sorted.
    """

    def __init__(self, pattern: str, kind: str, page: int) -> None:
        self._page = page
        self._pattern = pattern.encode()
        self._kind = kind.encode()

    def splits(self, ask: Ask, count: int) -> list[str]:
        size = ask([(b"DBSIZE",)])[0]
        count = count or max(1, min(-(-_known(size) // _RANGE), _MOST_RANGES))
        return [json.dumps({"of": count, "number": number}) for number in range(count)]

    def read(self, split: str, ask: Ask) -> Iterator[tuple[list[Row], str]]:
        part = json.loads(split)
        keys = sorted(self._own(ask, part))
        for start in range(0, len(keys), self._page):
            page = keys[start : start + self._page]
            rows = [row for key, row in zip(page, self._rows(page, ask), strict=True) if row is not None]
            yield rows, json.dumps({**part, "after": page[-1]})

    def nothing(self, ask: Ask) -> str:
        return (
            f"there is no {self._kind.decode()} whose key is like {self._pattern.decode()!r} among the "
            f"{_known(ask([(b'DBSIZE',)])[0]):,} keys of the database. Say which: match=, prefix= or key=, and as="
        )

    def _own(self, ask: Ask, part: dict[str, Any]) -> set[str]:
        found: set[str] = set()
        of, number, after = part["of"], part["number"], part.get("after", "")
        cursor = "0"
        while True:
            scan = (b"SCAN", cursor.encode(), b"MATCH", self._pattern, b"COUNT", b"%d" % _SCANNED, b"TYPE", self._kind)
            cursor, keys = _known(ask([scan])[0])
            if of > 1:
                keys = [key for key in keys if zlib.crc32(key.encode("latin-1")) % of == number]
            found.update(key for key in keys if key > after) if after else found.update(keys)
            if cursor == "0":
                return found

    @abstractmethod
    def _rows(self, keys: list[str], ask: Ask) -> list[Row | None]:
        """What the keys hold; None for one that is gone."""


class _Hashes(_Keys):
    def __init__(self, pattern: str, page: int) -> None:
        super().__init__(pattern, "hash", page)

    def _rows(self, keys: list[str], ask: Ask) -> list[Row | None]:
        answers = ask([(b"HGETALL", key.encode("latin-1")) for key in keys])
        return [
            Row(decoded(key), _fields(answer)) if (answer := _of_key(each)) else None
            for key, each in zip(keys, answers, strict=True)
        ]


class _Json(_Keys):
    def __init__(self, pattern: str, page: int) -> None:
        super().__init__(pattern, "string", page)

    def infer(self, records: list[Record]) -> dict[str, pl.DataType]:
        found = {field.name: pl.Series([], dtype=field.dtype).dtype for field in infer(records, unchanged).fields}
        for name in [name for name, dtype in found.items() if dtype == pl.String]:
            values = [record[name] for record in records if record.get(name) is not None]
            if all(isinstance(value, str) for value in values):
                found[name] = infer_type(values, of_json=True)
        return found

    @property
    def convert(self) -> Convert:
        return from_json_values

    def _rows(self, keys: list[str], ask: Ask) -> list[Row | None]:
        answers = _known(ask([(b"MGET", *(key.encode("latin-1") for key in keys))])[0])
        return [self._row(decoded(key), text) for key, text in zip(keys, answers, strict=True)]

    @staticmethod
    def _row(key: str, text: str | None) -> Row | None:
        if text is None:
            return None
        text = decoded(text)
        try:
            fields = json.loads(text)
        except (ValueError, RecursionError):
            fields = None
        return Row(key, fields if isinstance(fields, dict) else None, text)


class _Entries(Stored):
    """The entries of a stream, by their ids."""

    def __init__(self, key: str, page: int) -> None:
        self._page = page
        self._key = key

    def splits(self, ask: Ask, count: int) -> list[str]:
        key = self._key.encode()
        length, first, last = map(
            _known,
            ask(
                [
                    (b"XLEN", key),
                    (b"XRANGE", key, b"-", b"+", b"COUNT", b"1"),
                    (b"XREVRANGE", key, b"+", b"-", b"COUNT", b"1"),
                ]
            ),
        )
        if not length:
            return []
        (begin, _), (end, end_number) = _id(first[0][0]), _id(last[0][0])
        count = count or max(1, min(length // _RANGE, _MOST_RANGES))
        bounds = sorted({begin + (end - begin) * n // count for n in range(1, count)})
        starts = ["0-0", *(f"{bound}-0" for bound in bounds)]
        stops = [*(f"{bound - 1}-{2**64 - 1}" for bound in bounds), f"{end}-{end_number}"]
        return [json.dumps({"from": start, "to": stop}) for start, stop in zip(starts, stops, strict=True)]

    def read(self, split: str, ask: Ask) -> Iterator[tuple[list[Row], str]]:
        part = json.loads(split)
        while True:
            asked = (
                b"XRANGE",
                self._key.encode(),
                part["from"].encode(),
                part["to"].encode(),
                b"COUNT",
                b"%d" % self._page,
            )
            entries = _known(ask([asked])[0])
            if not entries:
                return
            milliseconds, number = _id(entries[-1][0])
            part = {**part, "from": f"{milliseconds}-{number + 1}"}
            yield [Row(f"{self._key}/{name}", _fields(values)) for name, values in entries], json.dumps(part)

    def nothing(self, ask: Ask) -> str:
        found = _known(ask([(b"SCAN", b"0", b"COUNT", b"10000", b"TYPE", b"stream")])[0])[1]
        return f"there is no stream {self._key!r}, or nothing in it. {nearest(self._key, map(decoded, found))}"


#: The options that say it.
OPTIONS = ("as", "match", "prefix", "key")


def stored(endpoint: Endpoint, page: int) -> Stored:
    name = endpoint.option("as", str, "hash")
    kinds: dict[str, Callable[[str, int], Stored]] = {"hash": _Hashes, "json": _Json, Stream.name(): _Entries}
    if name not in kinds:
        raise UsageError(f"{endpoint.scheme}: there is no layout as={name} that can be read. {nearest(name, kinds)}")
    given = {option: text for option in ("match", "prefix", "key") if (text := endpoint.option(option, str, ""))}
    if name == Stream.name():
        key = given.get("key", "")
        if given.keys() != {"key"} or _PLACEHOLDER.search(key):
            raise UsageError(
                f"{endpoint.scheme}: as=stream needs key=, the name of one stream, and neither match= nor prefix=."
            )
        return kinds[name](key, page)
    if len(given) > 1:
        raise UsageError(f"{endpoint.scheme}: {' and '.join(given)} are given, where one says which keys are meant.")
    if "match" in given:
        return kinds[name](given["match"], page)
    if "key" in given:
        return kinds[name]("*".join(map(_literal, _PLACEHOLDER.split(given["key"]))), page)
    return kinds[name](_literal(given.get("prefix", PREFIX)) + ":*", page)


def _literal(text: str) -> str:
    return re.sub(r"([*?\[\]\\])", r"\\\1", text)


def _known(answer: Any) -> Any:
    """An answer that is no error.

    Raises:
        redis.ResponseError: it is one.
    """
    if isinstance(answer, Exception):
        raise answer
    return answer


def _of_key(answer: Any) -> Any:
    """An answer about one key, of which another kind of value may have taken the place."""
    return None if str(answer).startswith("WRONGTYPE") else _known(answer)


def _fields(flat: list[str]) -> Record:
    if not all(map(str.isascii, flat)):
        flat = list(map(decoded, flat))
    return dict(zip(flat[::2], flat[1::2], strict=True))


def _id(text: str) -> tuple[int, int]:
    milliseconds, _, number = text.partition("-")
    return int(milliseconds), int(number)
