"""Windowed measures of events: partial tables that merge. A measure is one file, imported here."""

from transforms.measures import count, count_if, distinct, extrema, percentile, stddev, sum  # noqa: F401
from transforms.measures.aggregation import Aggregation
from transforms.measures.window import Window

__all__ = ["Aggregation", "Window"]
