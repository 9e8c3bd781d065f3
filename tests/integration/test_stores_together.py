"""One run of the logs pipeline from Kafka into every store there is: the same rows in all of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from fabric_beam import Read
from fabric_beam.testing import read_all
from fabric_beam.testing.servers.process import free_port
from tests.integration.logs_command import ROOT, generate, run, tables
from tests.integration.store_suite import write

redis = pytest.importorskip("redis")
pymongo = pytest.importorskip("pymongo")
LINES = 20_000


@pytest.fixture(scope="module")
def raw(kafka: Any, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A topic with access-log lines, malformed ones among them."""
    folder = generate(tmp_path_factory.mktemp("demo"), LINES, seed=11)
    lines = [line for path in sorted(folder.rglob("*.log")) for line in path.read_bytes().splitlines()]
    url = f"kafka://{kafka.address}/raw"
    table = pl.DataFrame({"body": [line.decode(errors="replace") for line in lines]})
    write(table, f"jsonl:{tmp_path_factory.mktemp('dead')}", f"{url}?value=body&partitions=2")
    return url


def _in_mongodb(address: str) -> dict[str, pl.DataFrame]:
    client: Any = pymongo.MongoClient(f"mongodb://{address}")
    found = {name: pl.DataFrame(list(client.together[name].find())) for name in ("events", "metrics", "dead_letters")}
    client.close()
    return found


def test_every_store_holds_the_same_rows(raw: str, kafka: Any, redis_server: Any, mongodb: Any, tmp_path: Path) -> None:
    """Parquet, MongoDB, Redis and Kafka, in one run; read back and compared; a second run adds nothing but messages."""
    arguments = [
        f"--input={raw}",
        f"--sink=*=mongodb://{mongodb.address}/together/{{dataset}}",
        f"--sink=events=redis://{redis_server.address}/1?prefix=events",
        f"--sink=metrics=redis://{redis_server.address}/1?prefix=metrics",
        f"--sink=events=kafka://{kafka.address}/events?partitions=2",
        f"--sink=dead_letters=kafka://{kafka.address}/dead?partitions=1",
    ]
    for _ in range(2):
        code, printed = run(tmp_path / "out", *arguments)
        assert code == 0, printed
    in_files = tables(tmp_path / "out")
    assert in_files["events"].height + in_files["dead_letters"].height == LINES
    assert in_files["dead_letters"].height > 0

    account = json.loads((tmp_path / "out" / "ledger.json").read_text())
    assert set(account["written"]["events"].values()) == {in_files["events"].height}
    assert len(account["written"]["events"]) == 4

    in_mongodb = _in_mongodb(mongodb.address)
    for name, table in in_mongodb.items():
        assert table.height == in_files[name].height
    identities = set(in_files["events"].select(pl.format("{}:{}", "source", "offset")).to_series())
    assert set(in_mongodb["events"]["_id"]) == identities

    with redis.Redis(port=redis_server.port, db=1, decode_responses=True) as client:
        assert set(client.scan_iter("events:*", count=10_000)) == {f"events:{identity}" for identity in identities}
        assert sum(1 for _ in client.scan_iter("metrics:*")) == in_files["metrics"].height
        row = in_files["events"].row(0, named=True)
        stored = client.hgetall(f"events:{row['source']}:{row['offset']}")
        assert stored["url.original"] == row["url.original"]

    messages = read_all(Read(f"kafka://{kafka.address}/events"))
    sent = messages.select(pl.col("headers").list.eval(pl.element().struct.field("value")).list.first())
    assert messages.height == 2 * len(identities)
    assert set(sent.to_series()) == identities
    assert read_all(Read(f"kafka://{kafka.address}/dead"))["body"].n_unique() <= in_files["dead_letters"].height


def test_a_sink_that_is_down_is_replayed_later(raw: str, redis_server: Any, tmp_path: Path) -> None:
    """Its rows are dead letters of a balanced run; `pipelines.replay` brings them to the store once it is there."""
    down = f"redis://127.0.0.1:{free_port()}/2?required=false&timeout=1&call_timeout=1"
    code, printed = run(tmp_path / "out", f"--input={raw}", f"--sink=events={down}")
    assert code == 0, printed
    account = json.loads((tmp_path / "out" / "ledger.json").read_text())
    events = sum(pl.read_parquet(path).height for path in (tmp_path / "out" / "events").rglob("*.parquet"))
    assert sorted(account["written"]["events"].values()) == [0, events]

    up = f"--sink=redis://{redis_server.address}/2?prefix=events"
    code, printed = run_replay(tmp_path / "out" / "ledger.json", up)
    assert code == 0, printed
    with redis.Redis(port=redis_server.port, db=2, decode_responses=True) as client:
        assert sum(1 for _ in client.scan_iter("events:*", count=10_000)) == events
    assert json.loads((tmp_path / "out" / "replay" / "ledger.json").read_text())["balanced"]


def run_replay(ledger: Path, *arguments: str) -> tuple[int, str]:
    """Run `pipelines.replay`."""
    import subprocess
    import sys

    command = [sys.executable, "-W", "ignore", "-m", "pipelines.replay", f"--ledger={ledger}", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    return done.returncode, done.stdout + done.stderr
