"""`redis:` without a server: URLs, options, columns, and the commands that rows become."""

from __future__ import annotations

import pickle
import sys

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fabric_beam import WriteTo
from fabric_beam.dead_letters import dead_letters
from fabric_beam.endpoints import Endpoint
from fabric_beam.errors import MissingExtraError, OutputError, SchemaError, UsageError
from fabric_beam.io.redis.commands import command
from fabric_beam.io.redis.sink import RedisStore
from fabric_beam.io.templates import Template
from fabric_beam.kernel import reject
from fabric_beam.schemes import SINKS

pytest.importorskip("redis")


def store(query: str) -> RedisStore:
    return RedisStore(Endpoint.parse(f"redis://localhost/0?{query}", SINKS))


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("redis:", "redis://host:port/database"),
        ("redis://localhost/events", "database is a number"),
        ("redis://localhost:port/0", "redis://host:port/database"),
        ("redis://localhost/0?as=hsh", "'hash'"),
        ("redis://localhost/0?prefx=a", "Did you mean 'prefix'"),
        ("redis://localhost/0?key=a:{host.name", "a text with columns in braces"),
        ("redis://localhost/0?key=", "a text with columns in braces"),
        ("redis://localhost/0?ttl=0", "a whole number above zero"),
        ("redis://localhost/0?as=json&ttl=1.5", "a whole number above zero"),
        ("redis://localhost/0?limit=3", "is of as=top, not of as=hash"),
        ("redis://localhost/0?as=top&key=a&member=b", "needs score="),
        ("redis://localhost/0?as=counter&key=a", "needs value="),
        ("redis://localhost/0?as=stream", "needs key="),
        ("redis://localhost/0?as=stream&key=a&maxlen=about", "a number of entries"),
        ("redis://localhost/0?ssl_ca_certs=ca.pem", "rediss://"),
    ],
)
def test_what_is_wrong_with_a_url(url: str, said: str) -> None:
    """It is said when the pipeline is built."""
    with pytest.raises(UsageError, match=said.replace("?", r"\?")):
        WriteTo(url)


def test_a_wrong_url_does_not_show_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither written out nor from the environment."""
    monkeypatch.setenv("REDIS_PASSWORD", "hunter2")
    for password in ("hunter2", "${REDIS_PASSWORD}"):
        with pytest.raises(UsageError) as raised:
            WriteTo(f"redis://ann:{password}@localhost/events")
        assert "hunter2" not in str(raised.value)


def test_the_client_is_an_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without it the message has the line that installs it."""
    monkeypatch.setitem(sys.modules, "redis", None)
    with pytest.raises(MissingExtraError, match=r"fabric-beam\[redis\]"):
        WriteTo("redis://localhost/0")


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("key=a:{hots.name}", "Did you mean 'host.name'"),
        ("as=counter&key=a&value=cuont", "Did you mean 'count'"),
        ("as=top&key=a&member=count&score=host.name", "scores are numbers"),
    ],
)
def test_columns_that_do_not_fit(query: str, said: str) -> None:
    """They are said before the run."""
    schema = pl.Schema({"host.name": pl.String(), "count": pl.Int64()})
    with pytest.raises(SchemaError, match=said):
        store(query).check(schema)


def test_bytes_inside_of_others() -> None:
    """Neither a list nor a struct of them has a JSON form: it is said before the run."""
    with pytest.raises(OutputError, match=r"'parts' is .*no bytes"):
        store("as=json").check(pl.Schema({"parts": pl.List(pl.Struct({"x": pl.Binary()}))}))


def test_a_store_goes_to_workers() -> None:
    """It is pickled, with its layout."""
    sent = pickle.loads(pickle.dumps(store("as=top&key=a&member=b&score=c")))
    with pytest.raises(SchemaError, match="'b'"):
        sent.check(pl.Schema())


@given(st.lists(st.tuples(st.none() | st.text(), st.none() | st.integers(-(2**63), 2**63 - 1)), max_size=5))
def test_commands_are_those_of_the_protocol(rows: list[tuple[str | None, int | None]]) -> None:
    """Each argument with its length in bytes, nulls left out: as a plain loop would pack them."""
    table = pl.DataFrame(rows, schema={"a.é": pl.String, "n": pl.Int64}, orient="row").cast(pl.String)
    packed = table.select(c=command("HSET", pl.lit("k"), fields=table.columns))["c"]
    expected = []
    for row in table.rows():
        arguments = [
            "HSET",
            "k",
            *(t for name, v in zip(table.columns, row, strict=True) if v is not None for t in (name, v)),
        ]
        expected.append(f"*{len(arguments)}\r\n" + "".join(f"${len(t.encode())}\r\n{t}\r\n" for t in arguments))
    assert packed.to_list() == expected


def test_templates() -> None:
    """Columns in braces are filled in, and null makes null."""
    table = pl.DataFrame({"host.name": ["a", None], "n": ["1", "2"]})
    filled = Template("{n}/{host.name}:{n}!").filled()
    assert table.select(key=filled)["key"].to_list() == ["1/a:1!", None]
    assert Template("{n}/{host.name}:{n}!").columns == ["n", "host.name"]


def test_dead_letters_of_one_row_are_apart() -> None:
    """Two steps have rejected it: neither letter takes the other's place; the same letter again does."""
    rejected = reject(pl.DataFrame({"body": ["x"], "source": ["a.log"], "offset": [7]}), "rule", "why")
    first, second, again = (dead_letters(rejected, step) for step in ("Parse", "Write", "Parse"))
    keys = store("")._layout.keys(pl.concat([first, second, again])).to_list()
    assert len(set(keys)) == 2 and keys[0] == keys[2]
