"""Detectors of anomalies in windows and events, free of Beam: one a file, registered here by name."""

from __future__ import annotations

import inspect
from typing import Any

from fabric_beam.errors import UsageError, nearest
from transforms.detectors.base import Detector
from transforms.detectors.isolation_forest import IsolationForest
from transforms.detectors.robust_zscore import RobustZScore

__all__ = ["DETECTORS", "Detector", "IsolationForest", "RobustZScore", "detector"]

DETECTORS: dict[str, type[Detector]] = {"robust_zscore": RobustZScore, "isolation_forest": IsolationForest}


def detector(name: str, **options: Any) -> Detector:
    """Make the detector of a name.

    Args:
        name: a key of `DETECTORS`.
        options: arguments of its class.

    Returns:
        The detector.

    Raises:
        UsageError: there is no detector of that name, or it takes no such option or value.
        MissingExtraError: it needs a package that is not installed.

    Example:
        >>> detector("robust_zscore", history=120).history
        120
    """
    if name not in DETECTORS:
        raise UsageError(f"there is no detector {name!r}. {nearest(name, DETECTORS)}")
    known = inspect.signature(DETECTORS[name]).parameters
    for option in options:
        if option not in known:
            raise UsageError(f"detector {name!r} has no option {option!r}. {nearest(option, known)}")
    return DETECTORS[name](**options)
