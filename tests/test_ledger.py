"""The ledger balances when, and only when, every row is accounted for."""

from __future__ import annotations

from typing import Any

import pytest

from fabric_beam.ledger import Ledger

GOOD: dict[str, dict[str, int]] = {
    "Read": {"read": 10},
    "Parse": {"in": 10, "out": 9, "rejected": 1},
    "Filter": {"in": 9, "out": 5, "filtered": 4},
    "Events": {"written": 5},
    "Dead": {"written": 1},
}
SINKS = {"Events": ("events", "parquet:out"), "Dead": ("dead_letters", "jsonl:out")}


def ledger(**changes: dict[str, int]) -> Ledger:
    return Ledger({**GOOD, **changes}, ["Read", "Parse", "Filter"], SINKS)


def test_a_whole_account_balances() -> None:
    """Read = written + filtered + rejected, and rejected = dead letters written."""
    account: dict[str, Any] = ledger().as_dict()
    assert account["balanced"]
    assert (account["read"], account["filtered"], account["rejected"]) == (10, 4, 1)
    assert account["written"] == {"events": {"parquet:out": 5}, "dead_letters": {"jsonl:out": 1}}


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"Events": {"written": 4}}, "events: 10 rows read, but 4 written"),
        ({"Dead": {"written": 0}}, "dead_letters: 1 rows rejected, but 0 written"),
        ({"Filter": {"in": 9, "out": 5, "filtered": 3}}, "Filter: 9 rows in, but 5 out"),
        ({"Filter": {"in": 8, "out": 5, "filtered": 3}}, "Filter: 8 rows came in, but 9 left Parse"),
        ({"Events": {"written": 6}}, "events: 10 rows read, but 6 written"),
    ],
)
def test_a_lost_or_doubled_row_is_named_by_its_step(changes: dict[str, dict[str, int]], problem: str) -> None:
    """Each imbalance says which step or sink does not add up."""
    problems = ledger(**changes).problems()
    assert any(problem in text for text in problems), problems
