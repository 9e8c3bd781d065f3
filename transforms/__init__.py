"""The transforms, one file each. Names are loaded on first use: importing Beam takes seconds."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transforms.aggregate import Aggregate as Aggregate
    from transforms.anomaly_score import AnomalyScore as AnomalyScore
    from transforms.enrich import Enrich as Enrich
    from transforms.filter import Filter as Filter
    from transforms.from_dead_letters import FromDeadLetters as FromDeadLetters
    from transforms.most_frequent import MostFrequent as MostFrequent
    from transforms.normalize import Normalize as Normalize
    from transforms.parse import Parse as Parse
    from transforms.validate import Validate as Validate

_HOMES = {
    "Aggregate": "aggregate",
    "AnomalyScore": "anomaly_score",
    "Enrich": "enrich",
    "Filter": "filter",
    "FromDeadLetters": "from_dead_letters",
    "MostFrequent": "most_frequent",
    "Normalize": "normalize",
    "Parse": "parse",
    "Validate": "validate",
}

__all__ = [*_HOMES]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
