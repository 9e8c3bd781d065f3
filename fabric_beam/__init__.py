"""Fabric Beam: Apache Beam pipelines for logs and metrics whose elements are Arrow record batches.

Names are loaded on first use: importing Beam takes seconds, and `--help` must not wait for it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fabric_beam.batches import BatchOf as BatchOf
    from fabric_beam.endpoints import Read as Read
    from fabric_beam.endpoints import WriteTo as WriteTo
    from fabric_beam.kernel import Kernel as Kernel
    from fabric_beam.kernel import Split as Split
    from fabric_beam.kernel import reject as reject
    from fabric_beam.map_batches import MapBatches as MapBatches
    from fabric_beam.rows import FromBatches as FromBatches
    from fabric_beam.rows import ToBatches as ToBatches

_HOMES = {
    "BatchOf": "batches",
    "FromBatches": "rows",
    "Kernel": "kernel",
    "MapBatches": "map_batches",
    "Read": "endpoints",
    "Split": "kernel",
    "ToBatches": "rows",
    "WriteTo": "endpoints",
    "reject": "kernel",
}

__all__ = [*_HOMES]  # noqa: PLE0604
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
