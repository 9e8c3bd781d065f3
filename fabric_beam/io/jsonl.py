"""`jsonl:` written."""

from __future__ import annotations

from typing import IO

import polars as pl

from fabric_beam.endpoints import Endpoint
from fabric_beam.io.file_sink import FileSink
from fabric_beam.json_rows import plain

_MAX_ROWS = 4_000_000


class WriteJsonLines(FileSink):
    """Write batches as JSON Lines: one object a row, as `fabric_beam.json_rows.to_json` writes it.

    Args:
        endpoint: `jsonl:FOLDER?max_rows=4000000`.
        job: what the files' names begin with.

    Source: https://jsonlines.org
    """

    def __init__(self, endpoint: Endpoint, job: str) -> None:
        max_rows = endpoint.option("max_rows", int, _MAX_ROWS)
        endpoint.no_more_options("max_rows")
        super().__init__(endpoint.path, job=job, suffix="jsonl", write=JsonLinesWriter, max_rows=max_rows)


class JsonLinesWriter:
    r"""Write tables as JSON Lines.

    Args:
        file: open for writing.

    Example:
        >>> import io
        >>> from datetime import datetime
        >>> file = io.BytesIO()
        >>> JsonLinesWriter(file).write(pl.DataFrame({"timestamp": [datetime(2015, 5, 17)], "body": ["x"]}))
        >>> file.getvalue()
        b'{"timestamp":"2015-05-17T00:00:00.000000","body":"x"}\n'
    """

    def __init__(self, file: IO[bytes], schema: pl.Schema | None = None) -> None:
        self._file = file

    def write(self, table: pl.DataFrame) -> None:
        """Append a line for each row."""
        plain(table).write_ndjson(self._file)

    def flush(self) -> None:
        """Nothing is held."""

    def close(self) -> None:
        """There is nothing behind the last line."""
