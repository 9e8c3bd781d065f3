"""The Redis source without a server: its URL, and the answers that it takes apart."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fabric_beam import Read
from fabric_beam.errors import UsageError
from fabric_beam.io.redis.replies import decoded, parse
from fabric_beam.io.redis.texts import from_texts, infer_type

pytest.importorskip("redis")

#: What a server may answer, and texts that look like its answers.
REPLIES = st.recursive(
    st.none() | st.integers() | st.text("\r\n$*:-1é"),
    lambda inner: st.lists(inner, max_size=5),
    max_leaves=20,
)


def encoded(reply: Any) -> bytes:
    """A reply, as a server sends it."""
    if reply is None:
        return b"$-1\r\n"
    if isinstance(reply, int):
        return b":%d\r\n" % reply
    if isinstance(reply, str):
        data = reply.encode()
        return b"$%d\r\n%s\r\n" % (len(data), data)
    return b"*%d\r\n" % len(reply) + b"".join(map(encoded, reply))


def read(reply: Any) -> Any:
    """A reply with its texts decoded."""
    if isinstance(reply, list):
        return [read(item) for item in reply]
    return decoded(reply) if isinstance(reply, str) else reply


@given(st.lists(REPLIES, max_size=5))
def test_answers_are_taken_apart(replies: list[Any]) -> None:
    """Whatever stands in the values: line ends, and what looks like the protocol."""
    assert read(parse(b"".join(map(encoded, replies)), len(replies))) == replies


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["1", "-20", "0"], pl.Int64()),
        (["1", "2.5", "NaN", "-inf", "1e300"], pl.Float64()),
        (["1", "x"], pl.String()),
        (["01", "02"], pl.String()),
        (["12345678901234567890", "1"], pl.Float64()),
        (["true", "false"], pl.Boolean()),
        (["2026-01-02T03:04:05.678901Z"], pl.Datetime("us", "UTC")),
        (["2026-01-02T03:04:05.678901"], pl.Datetime("us")),
        (["2026-01-02"], pl.Date()),
        (["2026-13-02"], pl.String()),
        (["01:02:03.000004"], pl.Time()),
        (['["a"]', "[]"], pl.List(pl.String())),
        (['{"a": 1}'], pl.Struct({"a": pl.Int64()})),
        (["[a]"], pl.String()),
        (["[1]", '{"a": 1}'], pl.String()),
        ([""], pl.String()),
        ([], pl.String()),
    ],
)
def test_types_of_texts_are_found(texts: list[str], expected: pl.DataType) -> None:
    """Only what all of them are, and what comes out as it was."""
    assert infer_type(texts) == expected
    assert from_texts(texts, expected)[1] == {}


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("redis://host/0?as=top", "as=top that can be read. Known: hash, json, stream"),
        ("redis://host/0?as=stream", "needs key="),
        ("redis://host/0?as=stream&key=a:{b}", "needs key="),
        ("redis://host/0?match=a&prefix=b", "match and prefix are given"),
        ("redis://host/0?ranges=0", "ranges='0' is not a whole number above zero"),
        ("redis://host/0?ttl=5", "no option 'ttl'"),
        ("redis://host/zero", "is not redis://host:port/database"),
        ("redis://host/0?ssl_ca_certs=x", "is for TLS"),
        ("redis://ann:${NOT_SET}@host/0", "NOT_SET, which is not set"),
        ("redis://host/0?schema=no.yaml", "cannot read the contract"),
    ],
)
def test_a_wrong_url_is_said_at_once(url: str, text: str) -> None:
    """Without a server."""
    with pytest.raises(UsageError, match=text.replace("?", r"\?")):
        Read(url)
