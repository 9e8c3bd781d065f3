"""What every lookup must do, on its real server: a class of tests to inherit."""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import polars as pl
import pytest

from fabric_beam.errors import InputError
from fabric_beam.kernel import Split
from fabric_beam.lookups.options import Cache
from fabric_beam.testing import collect_with_dead_letters
from fabric_beam.testing.servers.process import ServerProcess
from transforms import Enrich

EVENTS = pl.DataFrame(
    {"host.name": ["a", "x", None, "ü {}'\" \n*", "a", "b"], "port": [1, 1, 1, 2, 1, 1], "offset": range(6)}
)
#: The rows in the store, by their keys; of the last, the second column is missing.
ROWS = {
    ("a", 1): {"tier": "gold", "rack.number": 7},
    ("ü {}'\" \n*", 2): {"tier": "sílver\r\n", "rack.number": -1},
    ("b", 1): {"tier": "tin"},
}
COLUMNS = {"tier": pl.String, "rack.number": pl.Int64}
FOUND = [("gold", 7), (None, None), (None, None), ("sílver\r\n", -1), ("gold", 7), ("tin", None)]
KEYS = ["host.name", "port"]
#: For tests in which nothing befalls the server: it may be slow.
PATIENT = Cache(timeout=60)


class LookupSuite(ABC):
    """Inherit it as `class TestRedisEnrich(LookupSuite)`, with a fixture `server` that every test may kill and freeze.

    The server must keep what it acknowledged over `kill` and `restart`.
    """

    #: Keys in a batch: more than a request has.
    MANY: ClassVar[int] = 24_000

    @pytest.fixture(autouse=True)
    def _server(self, server: ServerProcess) -> Iterator[None]:
        self.server = server
        self.fill(ROWS)
        yield
        server.thaw()

    @abstractmethod
    def url(self, **options: Any) -> str:
        """What `Enrich` takes, to look up by `host.name` and `port`; options go to its query string."""

    @abstractmethod
    def fill(self, rows: dict[tuple[str, int], dict[str, Any]]) -> None:
        """Let just these rows be there."""

    @abstractmethod
    def wrong_credentials(self) -> str:
        """The URL with the password `hunter2`, which is wrong."""

    def enrich(self, events: pl.DataFrame = EVENTS, **options: Any) -> tuple[pl.DataFrame, pl.DataFrame]:
        """The rows and the dead letters of a run."""
        return collect_with_dead_letters(
            events, Enrich(self.url(), KEYS, columns=COLUMNS, **{"cache": PATIENT, **options})
        )

    def kernel(self, **options: Any) -> Any:
        """A kernel, as a worker has it, that is connected."""
        kernel = Enrich(self.url(), KEYS, columns=COLUMNS, cache=Cache(**options)).bind(EVENTS.schema)
        self.until(lambda: kernel(EVENTS.head(1).with_columns(pl.lit("elsewhere").alias("host.name"))), [None])
        return kernel

    @staticmethod
    def until(find: Callable[[], pl.DataFrame | Split], tiers: list[str | None]) -> None:
        """Ask until this is the answer."""
        end = time.monotonic() + 120
        while isinstance(found := find(), Split) or found["tier"].to_list() != tiers:
            assert time.monotonic() < end, found
            time.sleep(0.1)

    def test_rows_are_found_by_several_keys(self) -> None:
        """Nulls, keys that are not there, other letters and signs, rows that lack a column."""
        kept, letters = self.enrich()
        assert kept.select(*COLUMNS).rows() == FOUND
        assert kept.drop(*COLUMNS).equals(EVENTS)
        assert not letters.height

    @pytest.mark.parametrize("miss", ["drop", "reject"])
    def test_misses(self, miss: Any) -> None:
        """Dropped, or dead letters."""
        kept, letters = self.enrich(miss=miss)
        assert kept["offset"].to_list() == [0, 3, 4, 5]
        assert letters.height == (2 if miss == "reject" else 0)

    def test_no_columns(self) -> None:
        """Which keys are there."""
        kept, _ = collect_with_dead_letters(EVENTS, Enrich(self.url(), KEYS, columns=[], miss="drop", cache=PATIENT))
        assert kept["offset"].to_list() == [0, 3, 4, 5]

    def test_many_keys(self) -> None:
        """More than a request has, many of which are there."""
        many = self.MANY
        rows = {(f"h{n}", n): {"tier": f"t{n}", "rack.number": n} for n in range(0, many, 2)}
        self.fill(rows)
        events = pl.DataFrame({"host.name": [f"h{n}" for n in range(many)], "port": range(many)})
        kernel = Enrich(self.url(), KEYS, columns=COLUMNS, cache=PATIENT).bind(events.schema)
        kept = kernel(events)
        kernel.close()
        assert kept["tier"].to_list() == [f"t{n}" if n % 2 == 0 else None for n in range(many)]
        assert kept["rack.number"].to_list() == [n if n % 2 == 0 else None for n in range(many)]

    def test_a_refresh_without_a_restart(self) -> None:
        """Later batches see what was changed in the store meanwhile, and keys that were not there, in their time."""
        before, after = [tier for tier, _ in FOUND], ["lead", "new", None, None, "lead", None]
        kernels = [self.kernel(timeout=60, ttl=life, negative_ttl=life) for life in (0.5, 3600)]
        assert [kernel(EVENTS)["tier"].to_list() for kernel in kernels] == [before, before]
        self.fill({("a", 1): {"tier": "lead"}, ("x", 1): {"tier": "new"}})
        self.until(lambda: kernels[0](EVENTS), after)
        assert kernels[1](EVENTS)["tier"].to_list() == before
        for kernel in kernels:
            kernel.close()

    @pytest.mark.parametrize("unavailable", ["reject", "miss"])
    def test_killed_and_restarted(self, unavailable: Any) -> None:
        """While it is down, keys that are not known fail or are misses; then it is asked again."""
        kernel = self.kernel(timeout=1, ttl=3600, unavailable=unavailable)
        known, other = EVENTS.head(1), EVENTS.tail(1)
        self.until(lambda: kernel(known), ["gold"])
        self.server.kill()
        try:
            assert kernel(known)["tier"].item() == "gold"
            result = kernel(other)
            if unavailable == "reject":
                assert isinstance(result, Split)
                assert result.rejected["rejected.rule"].to_list() == ["lookup"]
                assert "did not answer" in result.rejected["rejected.message"][0]
            else:
                assert result["tier"].item() is None
        finally:
            self.server.restart()
        self.until(lambda: kernel(other), ["tin"])
        kernel.close()

    def test_frozen(self) -> None:
        """One that stands still fails the rows that wait for it, and stops none that need not."""
        kernel = self.kernel(timeout=1, ttl=0.2, stale=3600)
        self.until(lambda: kernel(EVENTS.head(1)), ["gold"])
        time.sleep(0.3)
        self.server.freeze()
        assert kernel(EVENTS.head(1))["tier"].item() == "gold"
        assert isinstance(kernel(EVENTS.tail(1)), Split)
        self.server.thaw()
        kernel.close()

    def test_a_short_pause_is_waited_for(self) -> None:
        """A server that comes back within the time limit costs no row."""
        kernel = self.kernel(timeout=60)
        self.server.freeze()
        threading.Timer(1, self.server.thaw).start()
        assert kernel(EVENTS)["tier"].to_list() == [tier for tier, _ in FOUND]
        kernel.close()

    def test_wrong_credentials_end_the_run(self) -> None:
        """And do not show the password."""
        kernel = Enrich(self.wrong_credentials(), KEYS, columns=COLUMNS, cache=PATIENT).bind(EVENTS.schema)
        with pytest.raises(InputError) as raised:
            kernel(EVENTS)
        kernel.close()
        assert "hunter2" not in str(raised.value)
