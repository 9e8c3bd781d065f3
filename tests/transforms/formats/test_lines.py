"""Lines: the line is the message."""

from __future__ import annotations

import pickle

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from transforms.formats.lines import Lines


@given(st.lists(st.none() | st.text()))
def test_every_line_is_its_own_message(lines: list[str | None]) -> None:
    """Whatever a line is, it is kept as it stands, and nothing is rejected."""
    table = pl.DataFrame({"offset": range(len(lines)), "body": lines}, schema={"offset": pl.Int64, "body": pl.String})
    split = pickle.loads(pickle.dumps(Lines()))(table)
    assert split.kept.equals(table.select("body", "offset"), null_equal=True)
    assert split.kept.schema == {"body": pl.String, "offset": pl.Int64}
    assert split.rejected.schema == {**table.schema, "rejected.rule": pl.String, "rejected.message": pl.String}
    assert split.rejected.height == 0
