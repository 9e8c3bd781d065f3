"""The MongoDB sink without a server: its URL, its options, the documents that rows become."""

from __future__ import annotations

import pickle
import subprocess
import sys
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fabric_beam import WriteTo
from fabric_beam.endpoints import Endpoint
from fabric_beam.errors import MissingExtraError, UsageError
from fabric_beam.io.mongodb.documents import Path, builder, clash, leaves
from fabric_beam.io.mongodb.target import CLIENT_OPTIONS
from fabric_beam.schemes import SINKS

bson = pytest.importorskip("bson")
pymongo = pytest.importorskip("pymongo")

from fabric_beam.io.mongodb.sink import MongoStore  # noqa: E402


def store(url: str) -> MongoStore:
    """A store that is not connected."""
    return MongoStore(Endpoint.parse(url, SINKS))


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("mongodb://host", "does not name a host, a database and a collection"),
        ("mongodb://host/logs", "does not name a host, a database and a collection"),
        ("mongodb:///logs/events", "does not name a host, a database and a collection"),
        ("mongodb:logs/events", "does not name a host, a database and a collection"),
        ("mongodb://host/a.b/events", "does not name"),
        ("mongodb://host/logs/system.users", "does not name"),
        ("mongodb://host/logs/a$b", "does not name"),
        ("mongodb://host:port/logs/events", "[Pp]ort"),
        ("mongodb://a b:c@host@host/logs/events", "escaped"),
        ("mongodb://host/logs/events?ttl=0", "ttl='0' is not a number of seconds from 1 to 630720000"),
        ("mongodb://host/logs/events?ttl=1.5", "ttl"),
        ("mongodb://host/logs/events?nested=no", "nested='no' is not true or false"),
        ("mongodb://host/logs/events?READPREFERENCE=best", "best"),
        ("mongodb://host/logs/events?tlsCAFile=missing.pem", "No such file .*missing.pem"),
        ("mongodb://host/logs/events?tls=perhaps", "tls must be"),
        ("mongodb+srv://host.example.com/logs/events?wTimeoutMS=x", "wtimeoutms must be an integer"),
        ("mongodb://host/logs/events?w=0", "nobody knows what was written"),
        ("mongodb://host/logs/events?authSorce=admin", "Did you mean 'authSource'"),
        ("mongodb://host/logs/events?timeseries=timestamp", "timeseries='timestamp' is not true or false"),
        ("mongodb://host/logs/events?granularity=hours", "has no option 'granularity'"),
        ("mongodb://ann:${NOT_SET_HERE}@host/logs/events", "NOT_SET_HERE"),
    ],
)
def test_wrong_urls_are_said_when_the_pipeline_is_built(url: str, message: str) -> None:
    """With what is wrong, without connecting anywhere."""
    with pytest.raises(UsageError, match=message):
        WriteTo(url)


def test_options_take_variables_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is sent to workers has their names alone, and no message their values."""
    monkeypatch.setenv("HIDDEN", "hunter2")
    aws = "authMechanism=MONGODB-AWS&authMechanismProperties=AWS_SESSION_TOKEN:${HIDDEN}"
    made = store(f"mongodb://host/logs/events?{aws}")
    assert b"hunter2" not in pickle.dumps(made)
    assert "AWS_SESSION_TOKEN%3Ahunter2" in made._target.uri({})
    assert made._endpoint.clean("hunter2") == "***"


def test_passwords_are_in_no_message() -> None:
    """Neither those in the URL, nor in the label of the step."""
    with pytest.raises(UsageError) as raised:
        WriteTo("mongodb://ann:hunter2@host:port/logs/events")
    assert "hunter2" not in str(raised.value)
    assert "hunter2" not in WriteTo("mongodb://ann:hunter2@host/logs/events?authSource=admin").default_label()


def test_options_of_the_client_reach_it_in_any_case() -> None:
    """And those of the user come before the sink's own."""
    target = store("mongodb://ann:p%40@h1:1,h2/logs/a/b?replicaset=rs0&SOCKETTIMEOUTMS=7&w=majority")._target
    assert (target.database, target.collection) == ("logs", "a/b")
    uri = target.uri({"socketTimeoutMS": 1000, "retryWrites": "false"})
    assert uri == "mongodb://ann:p%40@h1:1,h2/logs?socketTimeoutMS=7&retryWrites=false&replicaSet=rs0&w=majority"


@pytest.mark.filterwarnings("ignore:Unsupported compressor")
@pytest.mark.parametrize("name", CLIENT_OPTIONS)
def test_the_client_knows_its_options(name: str) -> None:
    """None is passed on that it would ignore."""
    try:
        pymongo.uri_parser.split_options(f"{name}=1", validate=True, warn=False)
    except (ValueError, OSError, pymongo.errors.PyMongoError) as error:
        assert "Unknown option" not in str(error)


def test_several_hosts_and_srv_are_taken() -> None:
    """As in any connection string."""
    WriteTo("mongodb://h1:27017,[::1]:27018/logs/events?ttl=3600&key=a,b&rows=10&timeout=5")
    WriteTo("mongodb+srv://ann:x@cluster.example.com/logs/events?retryWrites=true&tls=true")


def test_a_missing_client_names_the_extra() -> None:
    """When the pipeline is built."""
    code = (
        "import sys; sys.modules['pymongo'] = None\nfrom fabric_beam import WriteTo\n"
        "try: WriteTo('mongodb://host/logs/events')\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    out = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == (
        f"{MissingExtraError.__name__} mongodb: needs an extra that is not installed: "
        'pip install "fabric-beam[mongodb]"'
    )


def test_times_beyond_what_python_holds() -> None:
    """A BSON date holds years that a Python datetime does not."""
    far = 300_000_000_000_000_123
    [document, null] = store("mongodb://h/d/c")._build(
        pl.DataFrame({"t": pl.Series([far, None]).cast(pl.Datetime("us")), "n": [1, 2]})
    )
    options = bson.CodecOptions(datetime_conversion=bson.DatetimeConversion.DATETIME_MS)
    assert int(bson.decode(bson.encode(document), options)["t"]) == far // 1000
    assert "t" not in null


@pytest.mark.parametrize(
    ("error", "passes"),
    [
        (pymongo.errors.AutoReconnect("gone"), True),
        (pymongo.errors.NetworkTimeout("slow"), True),
        (pymongo.errors.ServerSelectionTimeoutError("nobody"), True),
        (pymongo.errors.NotPrimaryError("not primary"), True),
        (pymongo.errors.WTimeoutError("waiting for replication timed out", 64), True),
        (pymongo.errors.OperationFailure("no space left", 14031), True),
        (pymongo.errors.OperationFailure("any", 1, {"errorLabels": ["RetryableWriteError"]}), True),
        (pymongo.errors.OperationFailure("authentication failed", 18), False),
        (pymongo.errors.OperationFailure("not authorized", 13), False),
        (pymongo.errors.ConfigurationError("bad"), False),
        (ValueError("bad"), False),
    ],
)
def test_which_errors_pass(error: Exception, passes: bool) -> None:
    """A server that is away, slow, full or changing its primary is tried again; a refusal is not."""
    assert store("mongodb://h/d/c").transient(error) is passes


def _plain(paths: list[Path], values: list[Any]) -> dict[str, Any]:
    """A document made path by path: what `builder` must agree with."""
    document: dict[str, Any] = {}
    for path, value in zip(paths, values, strict=True):
        if value is not None:
            node = document
            for name in path[:-1]:
                node = node.setdefault(name, {})
            node[path[-1]] = value
    return document


_NAMES = st.sampled_from(["a", "b", "c'\"\\", "é\n"])
_PATHS = st.lists(st.lists(_NAMES, min_size=1, max_size=4).map(tuple), min_size=1, max_size=8, unique=True)


@settings(max_examples=50)
@given(st.data(), _PATHS.filter(lambda paths: clash(paths) is None))
def test_documents_are_those_made_path_by_path(data: st.DataObject, paths: list[Path]) -> None:
    """Whatever the paths and wherever nulls are."""
    rows = data.draw(st.integers(0, 5))
    columns = [
        data.draw(st.lists(st.one_of(st.none(), st.integers(0, 9)), min_size=rows, max_size=rows)) for _ in paths
    ]
    build = builder((("_id",), *paths), (False, *(None in column for column in columns)))
    expected = [_plain([("_id",), *paths], [n, *values]) for n, values in enumerate(zip(*columns, strict=True))]
    assert build(range(rows), *columns) == expected


@given(_PATHS)
def test_paths_clash_if_one_leads_through_the_other(paths: list[Path]) -> None:
    """And only then."""
    through = any(a != b and b[: len(a)] == a for a in paths for b in paths)
    assert (clash(paths) is not None) is through


def test_structs_are_taken_apart() -> None:
    """At any depth; null structs are null fields; lists stay whole."""
    table = pl.DataFrame({"a": [{"b.c": {"d": 1}, "e": [1]}, None]})
    found = leaves(table, nested=True)
    assert [(path, column.to_list()) for path, column in found] == [
        (("a", "b", "c", "d"), [1, None]),
        (("a", "e"), [[1], None]),
    ]
    assert [path for path, _ in leaves(table, nested=False)] == [("a", "b.c", "d"), ("a", "e")]
