"""The ledger: the account of rows that every run must balance."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
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

    def count(self, *, rows_in: int, rows_out: int, rejected: int = 0) -> None:
        """Count a batch through a transform; what neither left nor was rejected was filtered."""
        self.add("in", rows_in)
        self.add("out", rows_out)
        self.add("rejected", rejected)
        self.add("filtered", rows_in - rows_out - rejected)

    def add(self, role: str, rows: int) -> None:
        """Add to one counter of the step; `role` is one of `ROLES`."""
        if rows:
            self._counters[role].inc(rows)


@dataclass
class Ledger:
    """Every step's counts of one run, and whether they add up.

    Attributes:
        steps: step label → role → rows (`bytes`: bytes).
        sinks: step label of a sink → (dataset, URL without secrets).
    """

    steps: dict[str, dict[str, int]] = field(default_factory=dict)
    sinks: dict[str, tuple[str, str]] = field(default_factory=dict)

    @classmethod
    def from_counters(cls, counters: Iterable[Any], sinks: Mapping[str, tuple[str, str]]) -> Ledger:
        """Read the account out of a Beam result.

        Args:
            counters: `result.metrics().query()["counters"]`.
            sinks: step label of a sink → (dataset, URL).
        """
        steps: dict[str, dict[str, int]] = {}
        for counter in counters:
            if counter.key.metric.namespace == NAMESPACE:
                role, step = counter.key.metric.name.split(":", 1)
                roles = steps.setdefault(step, {})
                roles[role] = roles.get(role, 0) + int(counter.result)
        return cls(steps, dict(sinks))
