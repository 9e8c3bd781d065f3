"""Rows looked up at a web service that answers in JSON."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple
from urllib.parse import quote, urlencode

import polars as pl

from fabric_beam.endpoints import Endpoint, filled
from fabric_beam.errors import SchemaError, UsageError, nearest
from fabric_beam.io.records.values import converter, unchanged
from fabric_beam.io.templates import text
from fabric_beam.kernel import MESSAGE, Split
from fabric_beam.lookups.lookup import Lookup
from fabric_beam.lookups.rows import field, from_records
from fabric_beam.option_kinds import boolean

if TYPE_CHECKING:
    import requests

_COLUMN = re.compile(r"\{([^{}]+)\}")
_VARIABLE = re.compile(r"\$\{(\w+)\}")
_HEADER = "fabric.header."
_MISSING = {204, 404, 410}
#: Answers that concern every key.
_FOR_ALL = {401, 402, 403, 405, 407}
_PASSING = {408, 425, 429}


class ServiceError(Exception):
    """A web service did not answer as it should.

    Attributes:
        passes: whether it may do so later.
    """

    def __init__(self, text: str, passes: bool) -> None:
        super().__init__(text)
        self.passes = passes


class _Answer(NamedTuple):
    """What came for a key: a record, None if there is none, or why it is not known."""

    record: dict[str, Any] | None
    failure: str | None = None


class HttpLookup(Lookup):
    """Look up rows at a web service.

    One GET a key, several at a time: the answer is a JSON object, or an array with one; 404, 410, 204, `null` and `[]`
    say that there is none. Or one POST of a JSON array of keys (values, or objects if there are several key columns):
    the answer is an array of objects that have the key's fields, or an object from keys to objects. Dotted columns are
    paths in the objects. Answers 408, 425, 429 and 5xx are tried again.

    Args:
        endpoint: `http://host/hosts/{host.name}?view=short` or `https://`: columns in braces are filled in by the key.
            What is not named `fabric.…` is the service's own. `fabric.bulk=true`: POST to the URL;
            `fabric.concurrency`: GETs at a time (16); `fabric.header.NAME`: a header of each request, such as
            `fabric.header.Authorization=Bearer ${TOKEN}`.
    """

    OPTIONS: ClassVar[tuple[str, ...]] = ("fabric.bulk", "fabric.concurrency")
    KEYS: ClassVar[int] = 1_000

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._bulk = endpoint.option("fabric.bulk", boolean, False)
        self._concurrency = endpoint.option("fabric.concurrency", _concurrency, 16)
        self._headers = {
            name.removeprefix(_HEADER): endpoint.options.pop(name)
            for name in list(endpoint.options)
            if name.startswith(_HEADER)
        }
        own = [name for name in endpoint.options if not name.startswith("fabric.")]
        self._query = {name: endpoint.options.pop(name) for name in own}
        self._columns = _COLUMN.findall(_VARIABLE.sub("", " ".join([endpoint.path, *self._query.values()])))
        if self._bulk and self._columns:
            raise UsageError(f"{endpoint.url}: with fabric.bulk=true keys are in the body, not in the URL.")
        for value in (*self._query.values(), *self._headers.values()):
            self._filled(value, {})
        self._timeout = 0.0
        self._session: requests.Session | None = None
        self._pool: ThreadPoolExecutor | None = None

    def check(self, keys: pl.Schema) -> None:
        for name in self._columns:
            if name not in keys:
                raise SchemaError(f"{self._endpoint.url}: {{{name}}} is no key column. {nearest(name, keys)}")
        for name in keys:
            if name not in self._columns and not self._bulk:
                raise SchemaError(
                    f"{self._endpoint.url} does not have the key column {{{name}}}. Put it in, or say fabric.bulk=true."
                )

    def connect(self, timeout: float) -> None:
        import requests
        from requests.adapters import HTTPAdapter

        self._timeout = timeout
        session = requests.Session()
        session.headers.update({"Accept": "application/json"})
        session.headers.update({name: self._filled(value, {}) for name, value in self._headers.items()})
        for scheme in ("http://", "https://"):
            session.mount(scheme, HTTPAdapter(pool_maxsize=self._concurrency))
        self._session = session
        self._pool = ThreadPoolExecutor(self._concurrency, thread_name_prefix="http-lookup")

    def get(self, keys: pl.DataFrame, columns: pl.Schema) -> pl.DataFrame | Split:
        until = time.monotonic() + self._timeout
        answers = self._in_bulk(keys, until) if self._bulk else self._one_by_one(keys, until)
        records = {n: answer.record for n, answer in enumerate(answers) if answer.record is not None}
        rows = from_records(keys[list(records)], list(records.values()), columns, converter(unchanged))
        failed = {n: answer.failure for n, answer in enumerate(answers) if answer.failure is not None}
        if not failed and not rows.rejected.height:
            return rows.kept
        reasons = pl.Series(MESSAGE, list(failed.values()), pl.String)
        return Split(rows.kept, pl.concat([rows.rejected, keys[list(failed)].with_columns(reasons)]))

    def transient(self, error: Exception) -> bool:
        return isinstance(error, ServiceError) and error.passes

    def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown()
        if self._session is not None:
            self._session.close()
        self._pool = self._session = None

    def _one_by_one(self, keys: pl.DataFrame, until: float) -> list[_Answer]:
        assert self._pool is not None
        texts = keys.select(text(name, dtype) for name, dtype in keys.schema.items())
        return list(self._pool.map(lambda key: self._one(key, until), texts.to_dicts()))

    def _one(self, key: Mapping[str, str], until: float) -> _Answer:
        response = self._request("GET", self._url(key), until)
        if response.status_code in _MISSING:
            return _Answer(None)
        if response.status_code >= 400:
            return _Answer(None, f"{response.status_code} {response.reason}")
        return self._record(_json(response))

    def _in_bulk(self, keys: pl.DataFrame, until: float) -> list[_Answer]:
        texts = json.loads(keys.write_json()) if keys.width > 1 else keys.to_series().to_list()
        response = self._request("POST", self._url({}), until, json.dumps(texts, default=str))
        if response.status_code >= 400:
            raise ServiceError(f"{response.status_code} {response.reason}", passes=False)
        found = _json(response)
        if isinstance(found, dict) and keys.width == 1:
            return [self._record(found.get(str(value))) for value in texts]
        if not isinstance(found, list) or not all(isinstance(record, dict) for record in found):
            raise ServiceError("the answer is neither an array of objects nor an object of objects", passes=False)
        names = keys.columns
        known = {tuple(str(field(record, name)) for name in names): record for record in found}
        asked = keys.select(pl.all().cast(pl.String)).rows()
        return [self._record(known.get(key)) for key in asked]

    def _record(self, found: Any) -> _Answer:
        if isinstance(found, list):
            found = found[-1] if found else None
        if found is None or isinstance(found, dict):
            return _Answer(found)
        return _Answer(None, f"is no JSON object: {str(found)[:80]!r}")

    def _request(self, method: str, url: str, until: float, body: str | None = None) -> requests.Response:
        """Ask the service.

        Raises:
            ServiceError: there is no answer, or one that concerns every key.
        """
        import requests

        assert self._session is not None
        left = until - time.monotonic()
        if left <= 0:
            raise ServiceError(f"no answer within {self._timeout:g} s", passes=True)
        headers = {"Content-Type": "application/json"} if body else None
        try:
            response = self._session.request(
                method, url, data=body.encode() if body else None, headers=headers, timeout=left
            )
        except requests.exceptions.SSLError as error:
            raise ServiceError(_reason(error), passes=False) from None
        except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError) as error:
            # The client's own text has the whole URL, and what is secret in it.
            raise ServiceError(_reason(error), passes=True) from None
        except requests.RequestException as error:
            raise ServiceError(_reason(error), passes=False) from None
        status = response.status_code
        if status >= 500 or status in _PASSING or status in _FOR_ALL:
            raise ServiceError(f"{status} {response.reason}", passes=status not in _FOR_ALL)
        return response

    def _url(self, key: Mapping[str, str]) -> str:
        base = self._endpoint.scheme + self._endpoint.target[len(self._endpoint.scheme) :]
        path = _COLUMN.sub(lambda match: quote(key[match[1]], safe=""), base)
        query = {name: self._filled(value, key) for name, value in self._query.items()}
        return f"{path}?{urlencode(query)}" if query else path

    def _filled(self, value: str, key: Mapping[str, str]) -> str:
        """A value with variables of the environment, and, if there is one, the key filled in."""
        value = filled(value, self._endpoint.url)
        return _COLUMN.sub(lambda match: key.get(match[1], match[0]), value) if key else value


def _json(response: requests.Response) -> Any:
    try:
        return response.json()
    except ValueError:
        return response.text or "(nothing)"


def _reason(error: BaseException) -> str:
    """An error's kind, and what the system said."""
    name, cause = type(error).__name__, error
    while (deeper := cause.__cause__ or cause.__context__) is not None:
        cause = deeper
    strerror = getattr(cause, "strerror", None)
    return f"{name}: {strerror}" if strerror else name


def _concurrency(text: str) -> int:
    if not 0 < int(text) <= 256:
        raise ValueError(text)
    return int(text)


_concurrency.__name__ = "a number from 1 to 256"
