"""The ledger: the account of rows that every run must balance."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

NAMESPACE = "fabric_beam.ledger"
ROLES = ("read", "in", "out", "filtered", "rejected", "written", "bytes")


class Account:
    """The counters of one step, kept as Beam metrics so that every runner merges them and counts retries once.

    Args:
        step: the transform's full label.
    """

    def __init__(self, step: str) -> None:
        from apache_beam.metrics import Metrics

        self._counters = {role: Metrics.counter(NAMESPACE, f"{role}:{step}") for role in ROLES}

    def add(self, role: str, rows: int) -> None:
        """Add to one counter of the step; `role` is one of `ROLES`."""
        if rows:
            self._counters[role].inc(rows)


@dataclass
class Ledger:
    """Every step's counts of one run, and whether they add up.

    Attributes:
        steps: step label → role → rows (`bytes`: bytes).
        path: the labels of the steps that every row of `events` goes through, in order, from the source on.
        sinks: step label of a sink → (dataset, URL without secrets).
    """

    steps: dict[str, dict[str, int]]
    path: list[str]
    sinks: dict[str, tuple[str, str]]

    @classmethod
    def from_counters(
        cls, counters: Iterable[Any], path: Sequence[str] = (), sinks: Mapping[str, tuple[str, str]] | None = None
    ) -> Ledger:
        """Read the account out of a Beam result.

        Args:
            counters: `result.metrics().query()["counters"]`.
            path: the steps of the `events`, in order.
            sinks: step label of a sink → (dataset, URL).
        """
        steps: dict[str, dict[str, int]] = {}
        for counter in counters:
            if counter.key.metric.namespace == NAMESPACE:
                role, step = counter.key.metric.name.split(":", 1)
                roles = steps.setdefault(step, {})
                roles[role] = roles.get(role, 0) + int(counter.result)
        return cls(steps, list(path), dict(sinks or {}))

    def count(self, role: str, *, on_path: bool = False) -> int:
        """A role's count over all steps, or over those of the `events` alone."""
        return sum(roles.get(role, 0) for step, roles in self.steps.items() if not on_path or step in self.path)

    @property
    def written(self) -> dict[str, dict[str, int]]:
        """Dataset → URL → rows written."""
        written: dict[str, dict[str, int]] = {}
        for step, (dataset, url) in self.sinks.items():
            written.setdefault(dataset, {})[url] = self.steps.get(step, {}).get("written", 0)
        return written

    def problems(self) -> list[str]:
        """What does not add up, a sentence each; empty if the ledger balances.

        Example:
            >>> Ledger({"Parse": {"in": 10, "out": 8, "rejected": 1}}, [], {}).problems()
            ['Parse: 10 rows in, but 8 out + 0 filtered + 1 rejected = 9.']
        """
        problems = []
        for step, roles in self.steps.items():
            if step in self.sinks:
                continue
            into, out, filtered, rejected = (roles.get(role, 0) for role in ("in", "out", "filtered", "rejected"))
            if into != out + filtered + rejected:
                problems.append(
                    f"{step}: {into:,} rows in, but {out:,} out + {filtered:,} filtered + {rejected:,} rejected = "
                    f"{out + filtered + rejected:,}."
                )
        arrived, before = self.count("read"), "the source"
        for step in self.path:
            roles = self.steps.get(step, {})
            if "in" in roles:
                if roles["in"] != arrived:
                    problems.append(f"{step}: {roles['in']:,} rows came in, but {arrived:,} left {before}.")
                arrived, before = roles.get("out", 0), step
        read, filtered, rejected = (
            self.count("read"),
            self.count("filtered", on_path=True),
            self.count("rejected", on_path=True),
        )
        for step, (dataset, url) in self.sinks.items():
            rows, refused = (self.steps.get(step, {}).get(role, 0) for role in ("written", "rejected"))
            total = rows + filtered + rejected + refused
            if dataset == "events" and read != total:
                problems.append(
                    f"events: {read:,} rows read, but {rows:,} written to {url} + {filtered:,} filtered "
                    f"+ {rejected + refused:,} rejected = {total:,}."
                )
        for url, rows in self.written.get("dead_letters", {}).items():
            if rows != self.count("rejected"):
                problems.append(
                    f"dead_letters: {self.count('rejected'):,} rows rejected, but {rows:,} written to {url}."
                )
        return problems

    def as_dict(self) -> dict[str, Any]:
        """The account as it goes to `ledger.json`."""
        return {
            "read": self.count("read"),
            "written": self.written,
            "filtered": self.count("filtered", on_path=True),
            "rejected": self.count("rejected"),
            "balanced": not self.problems(),
            "problems": self.problems(),
            "bytes": self.count("bytes"),
            "steps": self.steps,
        }
