"""Rows looked up in Redis: hashes, or JSON texts, by keys that events fill in."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, ClassVar

import polars as pl

from fabric_beam.endpoints import Endpoint
from fabric_beam.errors import SchemaError, UsageError, nearest
from fabric_beam.io.redis.server import PASSING, TLS, Server, transient
from fabric_beam.io.redis.texts import from_json_values, from_texts
from fabric_beam.io.templates import Template, text
from fabric_beam.kernel import MESSAGE, Split
from fabric_beam.lookups.lookup import Lookup
from fabric_beam.lookups.rows import from_columns, from_records

if TYPE_CHECKING:
    import redis


class RedisLookup(Lookup):
    """Look up rows in Redis, Valkey, or another server that speaks their protocol.

    Args:
        endpoint: `redis://[user:password@]host[:port][/db]?key=user:{user.id}`, `rediss://` with TLS as for
            `WriteRedis`. `key` is a template of the keys; `as` is how a row lies there: `hash` (a hash, its fields by
            the columns' names) or `json` (a string: an object, dotted columns being paths in it).
    """

    OPTIONS: ClassVar[tuple[str, ...]] = ("key", "as", *TLS)

    def __init__(self, endpoint: Endpoint) -> None:
        self._server = Server(endpoint)
        self._key = endpoint.option("key", _template, None)
        self._as = endpoint.option("as", str, "hash")
        if self._as not in ("hash", "json"):
            raise UsageError(f"redis: as={self._as} cannot be looked up in. {nearest(self._as, ('hash', 'json'))}")
        if self._key is None:
            raise UsageError(f"{endpoint.url} needs key=, what the keys are there: key=user:{{user.id}}.")
        self._template: Template = self._key
        self._client: redis.Redis | None = None

    def check(self, keys: pl.Schema) -> None:
        for name in self._template.columns:
            if name not in keys:
                raise SchemaError(f"redis: key= names {name!r}, which is no key column. {nearest(name, keys)}")
        for name in keys:
            if name not in self._template.columns:
                raise SchemaError(f"redis: key= does not have the key column {{{name}}}.")

    def connect(self, timeout: float) -> None:
        self._client = self._server.client(timeout)
        self._client.ping()

    def get(self, keys: pl.DataFrame, columns: pl.Schema) -> pl.DataFrame | Split:
        texts = keys.select(text(name, dtype) for name, dtype in keys.schema.items())
        names = texts.select(self._template.filled().alias("name"))["name"].to_list()
        answers = self._ask([("GET", name) if self._as == "json" else _of_hash(name, columns) for name in names])
        failed = {n: str(answer) for n, answer in enumerate(answers) if isinstance(answer, Exception)}
        there = [n for n, answer in enumerate(answers) if n not in failed and _is_there(answer)]
        if self._as == "hash" and columns:
            # A hash that has none of the fields is there all the same.
            empty = [n for n, answer in enumerate(answers) if n not in failed and not _is_there(answer)]
            known = self._ask([("EXISTS", names[n]) for n in empty])
            there = sorted([*there, *(n for n, answer in zip(empty, known, strict=True) if answer)])
        if self._as == "hash":
            values = {name: [answers[n][at] for n in there] for at, name in enumerate(columns)}
            rows = from_columns(keys[there], values, columns, from_texts)
        else:
            records = {}
            for n in there:
                try:
                    records[n] = json.loads(answers[n])
                except ValueError:
                    records[n] = None
                if not isinstance(records[n], dict):
                    failed[n] = f"is no JSON object: {answers[n][:80]!r}"
            good = [n for n in there if n not in failed]
            rows = from_records(keys[good], [records[n] for n in good], columns, from_json_values)
        if not failed and not rows.rejected.height:
            return rows.kept
        reasons = pl.Series(MESSAGE, list(failed.values()), pl.String)
        rejected = pl.concat([rows.rejected, keys[list(failed)].with_columns(reasons)])
        return Split(rows.kept, rejected)

    def transient(self, error: Exception) -> bool:
        return transient(error)

    def close(self) -> None:
        if self._client is not None:
            self._client.close()
        self._client = None

    def _ask(self, commands: list[tuple[str, ...]]) -> list[Any]:
        """The answers; errors that are of one key alone are among them."""
        import redis

        if not commands:
            return []
        assert self._client is not None
        with self._client.pipeline(transaction=False) as pipeline:
            for command in commands:
                pipeline.execute_command(*command)
            answers: list[Any] = pipeline.execute(raise_on_error=False)
        for answer in answers:
            if isinstance(answer, Exception) and (
                not isinstance(answer, redis.ResponseError)
                or str(answer).split(" ")[0] in PASSING
                or not str(answer).startswith("WRONGTYPE")
            ):
                raise answer
        return answers


def _of_hash(name: str, columns: pl.Schema) -> tuple[str, ...]:
    return ("HMGET", name, *columns) if columns else ("EXISTS", name)


def _is_there(answer: Any) -> bool:
    if isinstance(answer, list):
        return any(value is not None for value in answer)
    return bool(answer) if isinstance(answer, int) else answer is not None


def _template(text: str) -> Template:
    return Template(text)


_template.__name__ = "a text with columns in braces, such as user:{user.id}"
