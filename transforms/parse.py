"""Parse: raw lines to fields."""

from __future__ import annotations

import inspect
from importlib import import_module
from typing import Any

import polars as pl

from fabric_beam.errors import SchemaError, UsageError, nearest
from fabric_beam.kernel import Kernel
from fabric_beam.map_batches import MapBatches
from transforms.formats import FORMATS


class Parse(MapBatches):
    """Take raw lines apart.

    Args:
        format: `combined`, `common`, `json`, `lines`, `regex` or `syslog`.
        **options: of the format: `pattern` (regex), `schema` (json: field → Polars type), `year` and `zone` (syslog).

    Columns in: `body`, one line each, and others, which pass.
    Columns out: the format's fields (see `transforms.formats`), `log.record.original` (the line), the others. Lines
    that do not fit the format are rejected.

    Raises:
        UsageError: if there is no such format, or it has no such option.
        SchemaError: when the pipeline is built, if there is no `body`.

    Example:
        >>> from fabric_beam.testing import batch, collect
        >>> line = '::1 - - [17/May/2015:10:05:03 +0000] "GET /a HTTP/1.1" 200 12 "-" "curl/8.0"'
        >>> collect(batch(body=[line]), Parse("combined"))["http.response.status_code"].to_list()
        [200]
    """

    def __init__(self, format: str, **options: Any) -> None:
        super().__init__()
        if format not in FORMATS:
            raise UsageError(f"There is no format {format!r}. {nearest(format, FORMATS)}")
        module, _, name = FORMATS[format].partition(":")
        kernel = getattr(import_module(f"transforms.formats.{module}"), name)
        known = inspect.signature(kernel).parameters
        if "format" in known:
            options["format"] = format
        for option in options.keys() - known.keys():
            raise UsageError(f"The format {format!r} has no option {option!r}. {nearest(option, known)}")
        try:
            self._parser: Kernel = kernel(**options)
        except TypeError:
            missing = next(name for name, parameter in known.items() if parameter.default is parameter.empty)
            raise UsageError(f"The format {format!r} needs the option {missing!r}.") from None

    def bind(self, schema: pl.Schema) -> Kernel:
        if schema.get("body") != pl.String:
            raise SchemaError(
                f"Parse takes lines in a String column 'body', which its input does not have: {dict(schema)}."
            )
        return self._parser
