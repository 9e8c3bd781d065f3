"""Beam pipelines on Apache Flink through PyFlink, without a job server."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fabric_beam.runners.flink.runner import FlinkOptions as FlinkOptions
    from fabric_beam.runners.flink.runner import FlinkRunner as FlinkRunner

__all__ = ["FlinkOptions", "FlinkRunner"]


def __getattr__(name: str) -> Any:
    # Flink's JVM is started before Beam is imported, which takes seconds: `cluster` needs neither.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from fabric_beam.runners.flink import runner

    return getattr(runner, name)
