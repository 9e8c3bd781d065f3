"""Lookups as `Enrich` uses them: made while the pipeline is built, one cache a process."""

from __future__ import annotations

from typing import Any

import cloudpickle
import numpy as np
import polars as pl
import pytest

from fabric_beam.endpoints import Endpoint, masked
from fabric_beam.errors import InputError, SchemaError, UsageError
from fabric_beam.kernel import Split
from fabric_beam.lookups import shared
from fabric_beam.lookups.key_table import KeyTable, hashes, positions
from fabric_beam.lookups.options import Cache
from fabric_beam.lookups.shared import SharedLookup
from fabric_beam.schemes import LOOKUPS, SECOND_LEVELS
from tests.lookups.memory_lookup import COLUMNS, KEYS, MemoryLevel, MemoryLookup, keys
from transforms import Enrich

EVENTS = pl.DataFrame({"host.name": ["b", "x", None, "a"], "port": [2, 2, 1, 1]})
ON = {"host.name": "host", "port": "port"}


class Registered(MemoryLookup):
    """What `memory:` names; all copies of it are one."""

    OPTIONS = ("space",)
    shared = MemoryLookup()

    def __init__(self, endpoint: Endpoint) -> None:
        endpoint.option("space", str, "")
        self.down = endpoint.path == "down"

    def __reduce__(self) -> Any:
        return type(self), (Endpoint("memory", "down" if self.down else ""),)

    def connect(self, timeout: float) -> None:
        if self.down:
            raise ConnectionError("nobody there")
        self.shared.connect(timeout)

    def get(self, keys: pl.DataFrame, columns: pl.Schema) -> pl.DataFrame:
        return self.shared.get(keys, columns)

    def close(self) -> None:
        self.shared.close()


class RegisteredLevel(MemoryLevel):
    """What `level:` names."""

    def __init__(self, endpoint: Endpoint) -> None:
        super().__init__()


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LOOKUPS, "memory", f"{__name__}:Registered")
    monkeypatch.setitem(SECOND_LEVELS, "level", f"{__name__}:RegisteredLevel")
    Registered.shared = MemoryLookup({("a", 1): 10, ("b", 2): 20})


def enrich(transform: Enrich, events: pl.DataFrame = EVENTS) -> Split:
    """Run a transform's kernel, as a Split."""
    kernel = transform.bind(events.schema)
    result = kernel(events)
    kernel.close()
    return result if isinstance(result, Split) else Split(result, events.clear())


@pytest.mark.parametrize(
    ("miss", "kept", "rejected"),
    [
        ("null", [20, None, None, 10], []),
        ("drop", [20, 10], []),
        (
            "reject",
            [20, 10],
            [
                "memory: has no row for host.name = 'x', port = '2'",
                "memory: has no row for host.name = null, port = '1'",
            ],
        ),
    ],
)
def test_misses(miss: Any, kept: list[int | None], rejected: list[str]) -> None:
    """Keys that the store lacks, and those with nulls, are nulls, filtered or rejected, as the URL or Python says."""
    for said in (
        Enrich("memory:", ON, miss=miss, prefix="host."),
        Enrich(f"memory:?fabric.miss={miss}", ON, miss="reject" if miss == "null" else "null", prefix="host."),
    ):
        result = enrich(said)
        assert result.kept["host.value"].to_list() == kept
        assert result.kept.columns == ["host.name", "port", "host.value"]
        assert said._filters == (miss == "drop")
        if rejected:
            assert result.rejected["rejected.message"].to_list() == rejected


def test_a_store_that_is_away_rejects_only_what_needs_it() -> None:
    """By the rule `lookup`; keys that are null are misses all the same."""
    Registered.shared.error = ConnectionError("gone")
    result = enrich(Enrich("memory:?fabric.timeout=0.1", ON, columns=COLUMNS))
    assert result.kept.rows() == [(None, 1, None)]
    assert result.rejected["rejected.rule"].to_list() == ["lookup"] * 3
    result = enrich(Enrich("memory:?fabric.timeout=0.1&fabric.unavailable=miss", ON, columns=COLUMNS))
    assert result.kept["value"].to_list() == [None] * 4


def test_no_rows_ask_nothing_and_keep_the_columns() -> None:
    """While the pipeline is built the kernel runs on no rows."""
    result = enrich(Enrich("memory:", ON, metadata={"run": "1"}), EVENTS.clear())
    assert result.kept.schema == {**EVENTS.schema, "value": pl.Int64, "run": pl.String}
    assert Registered.shared.asked == []


def test_copies_in_one_process_share_one_cache() -> None:
    """The last one to leave closes the connection; what was remembered stays for the run, and not for another."""
    others = {token for token, (_, users) in shared._CACHES.items() if users}
    kernel = Enrich("memory:", ON).bind(EVENTS.schema)
    copies = [cloudpickle.loads(cloudpickle.dumps(kernel)) for _ in range(2)]
    for copy in copies:
        assert copy(EVENTS)["value"].to_list() == [20, None, None, 10]
    copies[0].close()
    assert Registered.shared.open
    copies[1].close()
    assert not Registered.shared.open
    later = cloudpickle.loads(cloudpickle.dumps(kernel))
    later(EVENTS)
    later.close()
    assert len(Registered.shared.asked) == 1
    another = Enrich("memory:", ON).bind(EVENTS.schema)
    another(EVENTS)
    another.close()
    assert len(Registered.shared.asked) == 2
    # What runs that are over have left is given up.
    assert len(shared._CACHES.keys() - others) == 1


def test_options_of_the_url_go_before_those_of_python() -> None:
    """Both say how long what is remembered."""
    made = SharedLookup("memory:?space=a&fabric.ttl=7&fabric.write=behind", KEYS, None, Cache(ttl=1, size=5))
    assert made._options == Cache(ttl=7, size=5, write="behind")
    made = SharedLookup("memory:?fabric.columns=value:float", KEYS)
    assert made.columns == {"value": pl.Float64}


def test_columns_of_another_store_are_asked_for() -> None:
    """By name, and by nearest name when wrong."""
    assert SharedLookup("memory:", KEYS, ["value"]).columns == COLUMNS
    with pytest.raises(SchemaError, match=r"memory:: no column 'valu'. Did you mean 'value'"):
        SharedLookup("memory:", KEYS, ["valu"])


@pytest.mark.parametrize(
    ("url", "options", "error", "said"),
    [
        ("memory:?fabric.ttl=soon", {}, UsageError, "option fabric.ttl='soon' is not float"),
        ("memory:?fabric.tl=1", {}, UsageError, "Did you mean 'fabric.ttl'"),
        ("memory:?spce=1", {}, UsageError, "Did you mean 'space'"),
        ("memory:?fabric.size=0", {}, UsageError, "size=0 is not from 1"),
        ("memory:?fabric.refresh_ahead=2", {}, UsageError, "refresh_ahead=2.0 is not from 0 to 1"),
        ("memory:?fabric.write=later", {}, UsageError, "write='later' is unknown"),
        ("memory:?fabric.unavailable=drop", {}, UsageError, "Known: miss, reject"),
        ("memory:?fabric.second=leve:", {}, UsageError, "Did you mean 'level'"),
        ("memory:${NOT_SET}", {}, UsageError, "NOT_SET"),
        ("memory:down", {}, InputError, "nobody there. Or declare them"),
        ("hosts.csv", {"cache": Cache()}, UsageError, "are for the URL of a store"),
        ("hosts.csv", {"columns": COLUMNS}, UsageError, "are for the URL of a store"),
        ("memory:", {"metadata": {"value": "x"}}, SchemaError, "'value' already"),
        ("memory:?fabric.columns=port:int", {}, SchemaError, "'port' already"),
    ],
)
def test_what_is_wrong(url: str, options: dict[str, Any], error: type[Exception], said: str) -> None:
    """It is said while the pipeline is built."""
    with pytest.raises(error, match=said):
        Enrich(url, ON, **options).bind(EVENTS.schema)


def test_secrets_are_not_shown() -> None:
    """Neither those of the second level in the URL, nor keys of services."""
    assert masked("redis://h/0?fabric.second=redis://ann:hunter2@h/1&a=b") == (
        "redis://h/0?fabric.second=redis://ann:***@h/1&a=b"
    )
    assert masked("redis://h/0?fabric.second=redis://:hunter2@h/1") == "redis://h/0?fabric.second=redis://:***@h/1"
    assert "hunter2" not in masked("redis://h/0?fabric.second=redis%3A%2F%2F:hunter2@h/1")
    assert "hunter2" not in masked("http://h/a?fabric.header.Authorization=Bearer hunter2&b=c")
    assert "hunter2" not in masked("http://h/a?api_key=hunter2")


def test_keys_with_the_hash_of_another_are_not_it() -> None:
    """Only equal keys are found, whatever their hashes."""
    known = keys(("a", 1))
    assert positions(keys(("b", 2)), known, hashes(keys(("b", 2)))).tolist() == [-1]


def test_a_table_of_many_keys_is_a_join() -> None:
    """Found rows are those of a join, for keys of several types."""
    random = np.random.default_rng(1)
    known = pl.DataFrame(
        {"host": [f"h{n}" for n in range(5_000)], "port": range(5_000), "x": [0.0, 1.5, -2.0, 3.0] * 1_250}
    )
    asked = pl.DataFrame(
        {
            "host": [f"h{n}" for n in random.integers(0, 6_000, 3_000)],
            "x": random.choice([0.0, 1.5, -2.0, float("nan")], 3_000),
        }
    )
    rows, found = KeyTable(known.select("host", "x"), known.select("port")).find(asked)
    joined = asked.join(known, on=["host", "x"], how="left", maintain_order="left")
    assert rows["port"].equals(joined["port"])
    assert found.to_list() == joined["port"].is_not_null().to_list()
