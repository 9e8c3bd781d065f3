"""Endpoints: URLs that name sources and sinks, and the two transforms that take them."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Self, TypeVar
from urllib.parse import parse_qsl, quote, unquote, urlsplit, urlunsplit

import apache_beam as beam
from apache_beam.transforms.error_handling import ErrorHandler

from fabric_beam.errors import UsageError, nearest
from fabric_beam.schemes import SINKS, SOURCES

#: Schemes of Beam's file systems: with no scheme of ours before them they name text files.
FILE_SYSTEMS = ("file", "gs", "s3", "hdfs", "azfs")

#: An option that is a secret, unless it only names a variable of the environment: `${NAME}`.
_SECRET_OPTION = re.compile(
    r"([?&][^=&]*(?:password|secret|token|api[-_.]?key|authorization|pem|oauthbearer\.config|jaas\.config)[^=&]*=)"
    r"(?!\$\{\w+\}(?:&|$))[^&]*",
    re.IGNORECASE,
)
#: The password of a URL that is an option.
_NESTED_PASSWORD = re.compile(r"(=\w+(?:://|%3A%2F%2F)[^/?#@&:]*:)[^/?#@&]*@", re.IGNORECASE)

T = TypeVar("T")
#: A part of a URL that stands in the environment, such as a password.
_VARIABLE = r"\$\{(\w+)\}"


@dataclass
class Endpoint:
    """A parsed endpoint URL.

    Args:
        scheme: the kind of source or sink.
        path: what follows the scheme, without the query string.
        options: the query string.
    """

    scheme: str
    path: str
    options: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._variables = re.findall(_VARIABLE, " ".join([self.path, *self.options.values()]))

    @classmethod
    def parse(cls, url: str, known: dict[str, str], default: str | None = None) -> Endpoint:
        """Parse an endpoint URL.

        Args:
            url: such as `parquet:out/events?max_rows=100000`, `logs/*.gz`, or `-`.
            known: the schemes there are.
            default: the scheme of a URL that has none.

        Raises:
            UsageError: if the scheme is not known; the message names the nearest one.

        Example:
            >>> Endpoint.parse("parquet:out/events?max_rows=9", SINKS)
            Endpoint(scheme='parquet', path='out/events', options={'max_rows': '9'})
        """
        scheme, colon, rest = url.partition(":")
        if not colon or scheme in FILE_SYSTEMS:
            if default is None:
                raise UsageError(
                    f"{masked(url)!r} has no scheme, such as parquet:{url}. Schemes: {', '.join(sorted(known))}."
                )
            return cls(default, url)
        if scheme not in known:
            raise UsageError(f"There is no endpoint scheme {scheme!r} (in {masked(url)!r}). {nearest(scheme, known)}")
        path, _, query = rest.partition("?")
        return cls(scheme, path, dict(parse_qsl(query, keep_blank_values=True)))

    def option(self, name: str, kind: Callable[[str], T], default: T) -> T:
        """Take one option out of the query string.

        Raises:
            UsageError: if its value is not of the kind.
        """
        text = self.options.pop(name, None)
        if text is None:
            return default
        try:
            return kind(text)
        except ValueError:
            raise UsageError(
                f"{self.scheme}: option {name}={text!r} is not {getattr(kind, '__name__', kind)}."
            ) from None

    @property
    def url(self) -> str:
        """The URL without options and without what is secret in it, for messages."""
        return masked(f"{self.scheme}:{self.path}")

    @property
    def target(self) -> str:
        """The URL without options, its `${NAME}` filled in from the environment: for connecting, never for showing.

        Raises:
            UsageError: if a variable is not set.
        """
        return filled(f"{self.scheme}:{self.path}", self.url, lambda value: quote(value, safe=""))

    def clean(self, text: str) -> str:
        """A text, such as a client's error, without the secrets of this URL."""
        secrets = [os.environ.get(name, "") for name in self._variables]
        secrets.append(unquote(urlsplit(self.target).password or ""))
        for secret in filter(None, secrets):
            text = text.replace(secret, "***")
        return text

    def no_more_options(self, *known: str) -> None:
        """Say that every option was taken.

        Raises:
            UsageError: if one was not; the message names the nearest of those there are.
        """
        for name in self.options:
            raise UsageError(f"{self.scheme}: has no option {name!r}. {nearest(name, known)}")


class Sink(beam.PTransform):
    """What `WriteTo` applies: the base of every sink."""

    def prepare(self) -> None:
        """Make sure, before the run, that rows can be written.

        Raises:
            OutputError: if they cannot.
        """

    def clean_up(self) -> None:
        """Remove what a failed run has left."""

    def with_error_handler(self, error_handler: ErrorHandler | None) -> Self:
        """Take the error handler that rejected rows go to; a sink that takes every row leaves it alone."""
        return self


def filled(text: str, url: str, encoded: Callable[[str], str] = str) -> str:
    """A part of a URL, such as an option, with its `${NAME}` from the environment: for connecting, never for showing.

    Args:
        text: the part.
        url: the URL, for messages.
        encoded: what is done to each variable's value.

    Raises:
        UsageError: if a variable is not set.
    """

    def value(match: re.Match[str]) -> str:
        if match[1] not in os.environ:
            raise UsageError(f"{url} needs the environment variable {match[1]}, which is not set.")
        return encoded(os.environ[match[1]])

    return re.sub(_VARIABLE, value, text)


def masked(url: str) -> str:
    """A URL without its password and the secrets in its options, for messages.

    Example:
        >>> masked("redis://ann:secret@host/0")
        'redis://ann:***@host/0'
        >>> masked("kafka://host/logs?librdkafka.sasl.password=secret&start=earliest")
        'kafka://host/logs?librdkafka.sasl.password=***&start=earliest'
    """
    url = _NESTED_PASSWORD.sub(r"\1***@", _SECRET_OPTION.sub(r"\1***", url))
    parts = urlsplit(url)
    if parts.password is None:
        return url
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"{parts.username or ''}:***@{host}"))


def load(homes: dict[str, str], scheme: str) -> Any:
    """The class that a registry such as `SINKS` names for a scheme."""
    module, _, name = homes[scheme].partition(":")
    return getattr(import_module(module), name)


def step(pipeline: beam.Pipeline) -> str:
    """The label under which the source or sink that is being applied keeps its account: `Read`'s or `WriteTo`'s own."""
    *_, outer, current = pipeline.transforms_stack
    named = outer if isinstance(outer.transform, (Read, WriteTo)) else current
    return str(named.full_label)


class Read(beam.PTransform):
    """Read batches from endpoints.

    Args:
        urls: paths, globs, folders or URLs, all of one scheme; text lines where there is no scheme, `-` for standard
            input.
        limit: read at most this many rows, in order; None for all.

    Output: batches with the source's columns, always among them `source` (file or topic) and `offset`.

    Raises:
        UsageError: if a scheme or an option is not known, or schemes are mixed.
        InputError: if nothing matches, or it cannot be read.

    Example:
        >>> from apache_beam.testing.test_pipeline import TestPipeline
        >>> with TestPipeline() as p:
        ...     lines = p | Read("setup.py")
        >>> lines.element_type.schema.names
        ['body', 'source', 'offset', 'observed_timestamp']
    """

    def __init__(self, *urls: str, limit: int | None = None) -> None:
        super().__init__()
        endpoints = [Endpoint.parse(url, SOURCES, default="lines") for url in urls]
        schemes = {endpoint.scheme for endpoint in endpoints}
        if len(schemes) != 1:
            raise UsageError(f"Read takes URLs of one scheme at a time, not {', '.join(sorted(schemes)) or 'none'}.")
        self.source = load(SOURCES, schemes.pop())(endpoints, limit=limit)

    def with_error_handler(self, error_handler: ErrorHandler | None) -> Self:
        """Send what is no row of the source's schema to one of Beam's error handlers instead of failing the run.

        Args:
            error_handler: an `apache_beam.transforms.error_handling.ErrorHandler`; it gets batches of dead letters. A
                source that has no such rows leaves it alone.

        Returns:
            The transform itself.
        """
        if hasattr(self.source, "with_error_handler"):
            self.source.with_error_handler(error_handler)
        return self

    def expand(self, pbegin: Any) -> beam.PCollection:
        return pbegin | self.source


class WriteTo(beam.PTransform):
    """Write batches to an endpoint.

    Args:
        url: such as `parquet:out/events`, `jsonl:out/events` or `stdout:`.
        dataset: the name under which the ledger counts what is written.
        job: names the files: a run with the same job replaces what an earlier one wrote there, another only adds.

    Input: batches of any schema.

    Raises:
        UsageError: if the scheme or an option is not known.

    Example:
        >>> import tempfile
        >>> import polars as pl
        >>> from fabric_beam.testing import batch, run
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = run(batch(a=[1, 2]), WriteTo(f"parquet:{folder}"))
        ...     pl.read_parquet(f"{folder}/*.parquet").height
        2
    """

    def __init__(self, url: str, *, dataset: str = "", job: str = "part") -> None:
        super().__init__()
        self.url = masked(url)
        self.dataset = dataset
        endpoint = Endpoint.parse("stdout:" if url == "-" else url, SINKS)
        self.schema: Any = None
        self.sink: Sink = load(SINKS, endpoint.scheme)(endpoint, job)

    def with_error_handler(self, error_handler: ErrorHandler | None) -> Self:
        """Send rows that the sink does not take to one of Beam's error handlers instead of failing the run.

        Args:
            error_handler: an `apache_beam.transforms.error_handling.ErrorHandler`; it gets batches of dead letters.

        Returns:
            The transform itself.
        """
        self.sink.with_error_handler(error_handler)
        return self

    def default_label(self) -> str:
        return f"WriteTo({self.url})"

    def expand(self, pcoll: beam.PCollection) -> beam.PCollection:
        # An ordinary PCollection of rows is batched on the way.
        self.schema = getattr(pcoll.element_type, "schema", None)
        return pcoll | self.sink
