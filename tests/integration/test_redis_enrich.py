"""`Enrich` from Redis, and with Redis as its second level, on a real server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from fabric_beam.lookups.options import Cache
from fabric_beam.run import main
from fabric_beam.testing import collect_with_dead_letters
from fabric_beam.testing.servers.redis import RedisServer
from pipelines.logs import build
from pipelines.parts.options import parse_logs
from tests.integration.lookup_suite import COLUMNS, EVENTS, FOUND, KEYS, ROWS, LookupSuite
from transforms import Enrich

redis = pytest.importorskip("redis")


@pytest.fixture
def server(redis_server: RedisServer) -> RedisServer:
    return redis_server


class TestRedisEnrich(LookupSuite):
    """The suite of every lookup, with hashes."""

    def client(self, db: int = 0) -> Any:
        return redis.Redis(port=self.server.port, db=db, decode_responses=True)

    def url(self, **options: Any) -> str:
        query = "".join(f"&{name}={value}" for name, value in options.items())
        return f"redis://{self.server.address}/0?key=host:{{host.name}}:{{port}}{query}"

    def fill(self, rows: dict[tuple[str, int], dict[str, Any]]) -> None:
        with self.client() as client:
            client.flushall()
            client.acl_deluser("ann")
            pipeline = client.pipeline(transaction=False)
            for (host, port), row in rows.items():
                pipeline.hset(f"host:{host}:{port}", mapping={**row, "more": "than is asked for"})
            pipeline.execute()

    def wrong_credentials(self) -> str:
        with self.client() as client:
            client.acl_setuser("ann", enabled=True, passwords=["+other"], keys=["*"], commands=["+@all"])
        return self.url().replace("redis://", "redis://ann:hunter2@")

    def test_json_texts(self) -> None:
        """Objects, flat or nested; what is no object is a dead letter of its key."""
        with self.client() as client:
            client.flushall()
            client.set("host:a:1", json.dumps({"tier": "gold", "rack": {"number": 7}}))
            client.set("host:b:1", json.dumps({"tier": "tin", "rack.number": None}))
            client.set("host:x:1", "[1]")
            client.hset("host:y:1", "tier", "hash")
        events = pl.DataFrame({"host.name": ["a", "b", "x", "y", "z"], "port": [1] * 5})
        kept, letters = collect_with_dead_letters(events, Enrich(self.url(**{"as": "json"}), KEYS, columns=COLUMNS))
        assert kept.rows() == [("a", 1, "gold", 7), ("b", 1, "tin", None), ("z", 1, None, None)]
        assert ["no JSON object" in letters["message"][0], "WRONGTYPE" in letters["message"][1]] == [True, True]

    def test_texts_of_every_type(self) -> None:
        """Fields of hashes are read as the types that are declared, as the sink writes them."""
        types = {
            "n": pl.Int64, "x": pl.Float64, "up": pl.Boolean, "at": pl.Datetime("us", "UTC"), "day": pl.Date,
            "tags": pl.List(pl.String), "raw": pl.Binary, "small": pl.Int8,
        }  # fmt: skip
        good = {
            "n": "-5", "x": "0.1", "up": "true", "at": "2026-01-01T12:00:00.000005Z", "day": "2026-01-02",
            "tags": '["a"]', "raw": "eA==", "small": "1",
        }  # fmt: skip
        with self.client() as client:
            client.hset("host:a:1", mapping=good)
            for name, wrong in [("n", "1.5"), ("up", "yes"), ("at", "noon"), ("tags", "{"), ("small", "300")]:
                client.hset(f"host:{name}:1", mapping={**good, name: wrong})
        events = pl.DataFrame({"host.name": ["a", "n", "up", "at", "tags", "small"], "port": [1] * 6})
        kept, letters = collect_with_dead_letters(events, Enrich(self.url(), KEYS, columns=types))
        row = kept.row(0, named=True)
        assert (row["n"], row["x"], row["up"], str(row["at"]), str(row["day"]), row["tags"], row["raw"]) == (
            -5, 0.1, True, "2026-01-01 12:00:00.000005+00:00", "2026-01-02", ["a"], b"x",
        )  # fmt: skip
        assert kept.height == 1
        said = [message.rpartition(": ")[0].rpartition(": ")[2] for message in letters["message"]]
        assert said == [
            "n is not Int64", "up is not Boolean", "at is not Datetime(time_unit='us', time_zone='UTC')",
            "tags is not List(String)", "small is not Int8",
        ]  # fmt: skip

    @pytest.mark.parametrize("write", ["through", "behind"])
    def test_two_runs_share_the_second_level(self, write: Any) -> None:
        """The second run finds the first one's answers there, and the store is not asked."""
        cache = Cache(second=f"redis://{self.server.address}/1", write=write)
        assert self.enrich(cache=cache)[0].select(*COLUMNS).rows() == FOUND
        with self.client(1) as client:
            kept = {key: client.pttl(key) for key in client.scan_iter()}
        assert len(kept) == len(ROWS) + 1
        assert 0 < min(kept.values()) <= 30_000 < max(kept.values()) <= 300_000
        with self.client() as client:
            client.flushdb()
        assert self.enrich(cache=cache)[0].select(*COLUMNS).rows() == FOUND
        assert self.enrich()[0]["tier"].null_count() == EVENTS.height

    def test_a_second_level_that_is_down(self) -> None:
        """Rows do not fail for want of it."""
        cache = Cache(second="redis://127.0.0.1:1/1", timeout=1)
        kept, letters = self.enrich(cache=cache)
        assert kept.select(*COLUMNS).rows() == FOUND
        assert not letters.height

    def test_on_the_command_line(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """--enrich URL=COLUMN: the dry run shows the columns and no password, the run has the values."""
        monkeypatch.chdir(tmp_path)
        Path("a.jsonl").write_text('{"host.name": "a", "port": 1}\n{"host.name": "b", "port": 1}\n', encoding="utf-8")
        with self.client() as client:
            client.acl_setuser("ann", enabled=True, passwords=["+hunter2"], keys=["*"], commands=["+@all"])
        url = self.url(**{"fabric.columns": "tier:string,rack.number:int"}).replace("redis://", "redis://ann:hunter2@")
        arguments = [
            "--input",
            "a.jsonl",
            "--format",
            "json",
            "--enrich",
            f"{url}=host.name,port",
            "--detector",
            "none",
        ]
        assert main(parse_logs, build, [*arguments, "--dry_run"]) == 0
        shown = capsys.readouterr().out
        assert "tier: string_view" in shown
        assert "ann:***@" in shown
        assert "hunter2" not in shown
        assert main(parse_logs, build, [*arguments, "--sink", "*=parquet:out", "--report", "none"]) == 0
        rows = pl.read_parquet("out/events/**/*.parquet").sort("host.name")
        assert rows.select("tier", "rack.number").rows() == [("gold", 7), ("tin", None)]
