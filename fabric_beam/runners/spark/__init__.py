"""SparkRunner: Beam's fused stages in PySpark's own Python workers, without a job server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fabric_beam.runners.spark.runner import SparkOptions, SparkRunner

__all__ = ["SparkOptions", "SparkRunner"]


def __getattr__(name: str) -> Any:
    # Spark's processes start while Beam is imported, so what starts them must not wait for it.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from fabric_beam.runners.spark import runner

    return getattr(runner, name)
