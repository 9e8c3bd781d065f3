"""The cache of lookups: what it asks for, what it remembers and for how long."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fabric_beam.errors import InputError
from tests.lookups.memory_lookup import Clock, MemoryLevel, MemoryLookup, cache, keys, values

A, B, C = ("a", 1), ("ü", 2), ("c", 3)


def eventually(holds: Callable[[], bool]) -> None:
    """Wait for what another thread does."""
    until = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.01)


def test_distinct_keys_are_asked_for_in_one_request() -> None:
    """A batch asks for each of its keys once, never for one with a null, and answers come in the batch's order."""
    lookup = MemoryLookup({A: 1, B: 2})
    found = cache(lookup, Clock()).find(keys(B, A, ("a", None), B, C, (None, None), A))
    assert values(found) == [2, 1, None, 2, None, None, 1]
    assert found.found.to_list() == [True, True, False, True, False, False, True]
    assert not found.failures.is_not_null().any()
    assert lookup.asked == [[B, A, C]]


def test_a_request_has_at_most_so_many_keys() -> None:
    """What is more is asked for in further requests."""
    lookup = MemoryLookup({(f"h{n}", n): n for n in range(2_500)})
    asked = keys(*((f"h{n}", n) for n in range(2_500)))
    assert values(cache(lookup, Clock()).find(asked)) == list(range(2_500))
    assert [len(each) for each in lookup.asked] == [1_000, 1_000, 500]


def test_rows_live_for_their_time_and_lacking_keys_for_theirs() -> None:
    """A row is asked for again after `ttl`, a key that was not there after `negative_ttl`."""
    lookup, clock = MemoryLookup({A: 1}), Clock()
    cached = cache(lookup, clock, ttl=10, negative_ttl=2)
    assert values(cached.find(keys(A, B))) == [1, None]
    lookup.rows = {A: 5, B: 6}
    clock.now += 1.9
    assert values(cached.find(keys(A, B))) == [1, None]
    clock.now += 0.2
    assert values(cached.find(keys(A, B))) == [1, 6]
    clock.now += 8
    assert values(cached.find(keys(A, B))) == [5, 6]
    assert lookup.asked == [[A, B], [B], [A]]


def test_the_least_recently_used_are_forgotten() -> None:
    """No more than `size` keys are remembered; those last used stay; a batch with more is answered all the same."""
    lookup, clock = MemoryLookup({A: 1, B: 2, C: 3}), Clock()
    cached = cache(lookup, clock, size=2)
    cached.find(keys(A))
    cached.find(keys(B))
    cached.find(keys(A))
    cached.find(keys(C))
    assert values(cached.find(keys(A, C))) == [1, 3]
    assert lookup.asked == [[A], [B], [C]]
    assert values(cached.find(keys(C, B, A))) == [3, 2, 1]
    assert lookup.asked[3:] == [[B]]


def test_what_is_stale_is_used_while_it_is_refreshed() -> None:
    """Past its time to live an answer comes at once, and the next batch sees the store's; past `stale` it waits."""
    lookup, clock = MemoryLookup({A: 1}), Clock()
    cached = cache(lookup, clock, ttl=10, stale=5)
    cached.find(keys(A))
    lookup.rows = {A: 2}
    clock.now += 12
    lookup.gate.clear()
    assert values(cached.find(keys(A))) == [1]
    assert values(cached.find(keys(A))) == [1]
    lookup.gate.set()
    eventually(lambda: values(cached.find(keys(A))) == [2])
    assert lookup.asked == [[A], [A]]
    lookup.rows = {A: 3}
    clock.now += 15.1
    assert values(cached.find(keys(A))) == [3]


def test_what_is_used_is_refreshed_ahead() -> None:
    """A key that is used in the last part of its life is asked for in the background; one that is not used is not."""
    lookup, clock = MemoryLookup({A: 1, B: 2}), Clock()
    cached = cache(lookup, clock, ttl=10, refresh_ahead=0.2)
    cached.find(keys(A, B))
    lookup.rows = {A: 5, B: 6}
    clock.now += 7.9
    assert values(cached.find(keys(A))) == [1]
    clock.now += 0.2
    assert values(cached.find(keys(A))) == [1]
    eventually(lambda: values(cached.find(keys(A))) == [5])
    clock.now += 5
    assert values(cached.find(keys(A))) == [5]
    assert lookup.asked == [[A, B], [A]]


@pytest.mark.parametrize(("unavailable", "says"), [("reject", True), ("miss", False)])
def test_a_store_that_is_away(unavailable: str, says: bool) -> None:
    """It is tried again until the time limit, then spared; its keys fail or are misses, others are known."""
    lookup, clock = MemoryLookup({A: 1, B: 2}), Clock()
    cached = cache(lookup, clock, timeout=0.3, unavailable=unavailable)
    cached.find(keys(A))
    lookup.error = ConnectionError("gone")
    for _ in range(3):
        found = cached.find(keys(A, B))
        assert values(found) == [1, None]
        assert found.failures.is_not_null().to_list() == [False, says]
    assert (found.failures[1] == "redis://ann:***@memory/0 did not answer: gone") == says
    tried = len(lookup.asked)
    assert tried > 1
    cached.find(keys(B))
    assert len(lookup.asked) == tried
    lookup.error = None
    eventually(lambda: values(cached.find(keys(A, B))) == [1, 2])


def test_an_outage_shorter_than_stale_is_not_noticed() -> None:
    """Answers past their time to live go on until `stale` is over."""
    lookup, clock = MemoryLookup({A: 1}), Clock()
    cached = cache(lookup, clock, ttl=10, stale=60, timeout=0.1)
    cached.find(keys(A))
    lookup.error = ConnectionError("gone")
    for _ in range(4):
        clock.now += 14
        found = cached.find(keys(A))
        assert (values(found), found.failures[0]) == ([1], None)
    clock.now += 15
    assert cached.find(keys(A)).failures[0] is not None


def test_a_store_that_refuses_ends_the_run_without_its_password() -> None:
    """An error that will not pass is raised."""
    lookup = MemoryLookup()
    lookup.error = ValueError("ann:hunter2 may not read")
    with pytest.raises(InputError, match=r"redis://ann:\*\*\*@memory/0: ValueError: ann:\*\*\* may not read"):
        cache(lookup, Clock()).find(keys(A))


def test_closing_and_going_on() -> None:
    """A closed cache closes its connection, remembers what it had and connects again."""
    lookup = MemoryLookup({A: 1, B: 2})
    cached = cache(lookup, Clock())
    cached.find(keys(A))
    cached.close()
    assert not lookup.open
    assert values(cached.find(keys(A, B))) == [1, 2]
    assert (lookup.asked, lookup.connections) == ([[A], [B]], 2)


def test_threads_share_it() -> None:
    """Threads that look up other keys at a time, more than fit, each get their own answers."""
    rows = {(f"h{n}", n): n for n in range(300)}
    cached = cache(MemoryLookup(rows), Clock(), size=100)

    def find(thread: int) -> None:
        for turn in range(40):
            some = [(f"h{n}", n) for n in range((thread * 37 + turn * 11) % 250, 300, 7)]
            assert values(cached.find(keys(*some))) == [n for _, n in some]

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(find, range(4)))


@pytest.mark.parametrize("write", ["through", "behind"])
def test_the_second_level_is_shared(write: str) -> None:
    """Another process finds there what the first was answered, lacking keys too, and does not ask the store."""
    lookup, level, clock = MemoryLookup({A: 1, B: 2}), MemoryLevel(), Clock()
    first = cache(lookup, clock, level, write=write, ttl=10, negative_ttl=4, stale=1)
    assert values(first.find(keys(A, B, C))) == [1, 2, None]
    first.close()
    assert sorted(level.lives.values()) == [5_000, 11_000, 11_000]
    lookup.rows = {A: 7, B: 8, C: 9}
    assert values(cache(lookup, clock, level, ttl=10, negative_ttl=4).find(keys(C, B, A))) == [None, 2, 1]
    clock.now += 4
    assert values(cache(lookup, clock, level, ttl=10, negative_ttl=4).find(keys(A, C))) == [1, 9]
    clock.now += 6
    assert values(cache(lookup, clock, level, ttl=10, negative_ttl=4).find(keys(A))) == [7]
    assert lookup.asked == [[A, B, C], [C], [A]]


@pytest.mark.parametrize("fault", ["away", "filled by others"])
def test_a_second_level_that_is_no_help_is_done_without(fault: str) -> None:
    """Rows do not fail for want of it."""
    lookup, level, clock = MemoryLookup({A: 1}), MemoryLevel(), Clock()
    cache(lookup, clock, level).find(keys(A))
    if fault == "away":
        level.error = ConnectionError("gone")
    else:
        level.texts = dict.fromkeys(level.texts, "no json")
    assert values(cache(lookup, clock, level).find(keys(A))) == [1]
    assert len(lookup.asked) == 2


KEY = st.sampled_from([A, B, C, ("a", 2), ("", 0)])
STEP = st.one_of(
    st.tuples(st.just("wait"), st.sampled_from([0.5, 1.0, 3.0, 7.0])),
    st.tuples(st.just("set"), KEY, st.none() | st.integers(0, 99)),
    st.tuples(st.just("find"), st.lists(KEY, min_size=1, max_size=6)),
)


@settings(max_examples=150)
@given(st.lists(STEP, max_size=30))
def test_it_is_a_dict_with_times(steps: list[Any]) -> None:
    """Without refreshing, each answer is what a plain dict of (value, time) gives."""
    lookup, clock = MemoryLookup(), Clock()
    cached = cache(lookup, clock, ttl=5, negative_ttl=2)
    model: dict[Any, tuple[int | None, float]] = {}
    for kind, *what in steps:
        if kind == "wait":
            clock.now += what[0]
        elif kind == "set":
            lookup.rows.pop(what[0], None)
            lookup.rows |= {what[0]: what[1]} if what[1] is not None else {}
        else:
            for key in what[0]:
                value, until = model.get(key, (None, 0.0))
                if clock.now >= until:
                    value = lookup.rows.get(key)
                    model[key] = value, clock.now + (2 if value is None else 5)
            assert values(cached.find(keys(*what[0]))) == [model[key][0] for key in what[0]]


@settings(max_examples=60)
@given(st.lists(STEP, max_size=30), st.integers(1, 4), st.booleans())
def test_no_answer_is_older_than_its_time(steps: list[Any], size: int, second: bool) -> None:
    """With all that refreshes, every answer is one that the store had within `ttl` + `stale`."""
    lookup, clock = MemoryLookup(), Clock()
    cached = cache(
        lookup, clock, MemoryLevel() if second else None,
        size=size, ttl=4, negative_ttl=2, stale=2, refresh_ahead=0.5,
    )  # fmt: skip
    history: dict[Any, list[tuple[float, int | None]]] = {}
    for kind, *what in steps:
        if kind == "wait":
            clock.now += what[0]
        elif kind == "set":
            # First noted, then done: a refresh may run at any time.
            history.setdefault(what[0], []).append((clock.now, what[1]))
            if what[1] is None:
                lookup.rows.pop(what[0], None)
            else:
                lookup.rows[what[0]] = what[1]
        else:
            for key, value in zip(what[0], values(cached.find(keys(*what[0]))), strict=True):
                changes = [(0.0, None), *history.get(key, [])]
                oldest = clock.now - (4 if value is None else 6)
                ends = [end for end, _ in changes[1:]] + [clock.now + 1]
                assert any(each == value and end >= oldest for (_, each), end in zip(changes, ends, strict=True))
    cached.close()


def test_many_batches_at_a_time_ask_once_for_a_refresh() -> None:
    """While a refresh is under way no other is started for the same keys."""
    lookup, clock = MemoryLookup({A: 1}), Clock()
    cached = cache(lookup, clock, ttl=10, stale=5)
    cached.find(keys(A))
    clock.now += 11
    lookup.gate.clear()
    threads = [threading.Thread(target=cached.find, args=(keys(A),)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lookup.gate.set()
    cached.close()
    assert len(lookup.asked) == 2


def test_no_columns_tell_what_is_there() -> None:
    """A lookup of no columns says which keys there are, from the second level as well."""
    from fabric_beam.lookups.cache import LookupCache
    from fabric_beam.lookups.options import Cache
    from fabric_beam.lookups.second_level import SharedAnswers
    from tests.lookups.memory_lookup import KEYS, endpoint

    lookup, level = MemoryLookup({A: 1}), MemoryLevel()
    for _ in range(2):
        shared = SharedAnswers(level, endpoint(), "memory", KEYS, pl.Schema(), 1.0)
        found = LookupCache(lookup, endpoint(), KEYS, pl.Schema(), Cache(), shared).find(keys(A, B))
        assert (found.found.to_list(), found.rows.width) == ([True, False], 0)
    assert len(lookup.asked) == 1
