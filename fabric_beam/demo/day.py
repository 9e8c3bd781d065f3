"""The simulated day: how busy each service is in each minute, and the incidents that disturb it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
from numpy.typing import NDArray

START = datetime(2026, 3, 3, tzinfo=UTC)
MINUTES = 24 * 60

#: Each service's number of hosts, share of the requests, and hour of its daily peak.
SERVICES = {"web": (3, 0.55, 14.5), "api": (2, 0.30, 16.0), "checkout": (2, 0.15, 19.0)}
_INDEX = {service: row for row, service in enumerate(SERVICES)}

#: The usual probability of an answer 5xx, and what the incidents do.
FAILED = 0.004
SURGE, DROP, SPIKE, SHIFT, SCAN = 4.0, 0.03, 0.4, 8.0, 0.4
SCANNER = "203.0.113.77"

#: Each kind's service, earliest start (hour), metric in which it shows, and description.
_KINDS = {
    "scan": ("web", 2, "not_found_ratio", f"{SCANNER} probes for weaknesses: {SCAN:.0%} of requests, all 404"),
    "error_spike": ("api", 8, "error_ratio", f"{SPIKE:.0%} of answers are 5xx, at 10 times the usual duration"),
    "size_shift": ("api", 11, "response_size", f"answers have {SHIFT:.0f} times the usual size and duration"),
    "traffic_drop": ("web", 14, "request_count", f"outage: {DROP:.0%} of the usual requests arrive"),
    "traffic_surge": ("checkout", 19, "request_count", f"{SURGE:.0f} times the usual requests arrive"),
}


@dataclass(frozen=True)
class Incident:
    """What happened to one service, from the start of one minute to the start of another.

    Attributes:
        kind: scan, error_spike, size_shift, traffic_drop or traffic_surge.
        service: the only service that it touches.
        start: its first minute, RFC 3339 UTC.
        end: the first minute after it, RFC 3339 UTC.
        metric: the per-minute metric of the service that shows it: request_count, error_ratio (5xx),
            not_found_ratio (404) or response_size (mean bytes).
        description: what happened, in words.
    """

    kind: str
    service: str
    start: str
    end: str
    metric: str
    description: str


@dataclass(frozen=True)
class Day:
    """One day: every array has a row a service (in the order of `SERVICES`) and a column a minute.

    Attributes:
        rate: the relative number of requests; the whole array sums to 1.
        failed: the probability that a request is answered 5xx.
        scanned: the probability that a request is the scanning client's.
        weight: the factor on response sizes and durations.
        incidents: what was done to them, in order of time.
    """

    rate: NDArray[np.float64]
    failed: NDArray[np.float64]
    scanned: NDArray[np.float64]
    weight: NDArray[np.float64]
    incidents: list[Incident]


def simulate_day(rng: np.random.Generator) -> Day:
    """Draw a day's traffic and its incidents.

    Args:
        rng: the source of chance; its state decides when the incidents happen and how long they last.

    Returns:
        The day. All effects are relative to the service's own traffic, so they show at any number of lines.

    Example:
        >>> [incident.kind for incident in simulate_day(np.random.default_rng(1)).incidents]
        ['scan', 'error_spike', 'size_shift', 'traffic_drop', 'traffic_surge']
    """
    shape = (len(SERVICES), MINUTES)
    _, share, peak = (np.array(column)[:, None] for column in zip(*SERVICES.values(), strict=True))
    angle = 2 * np.pi * (np.arange(MINUTES) / 60 - peak) / 24
    # Real traffic varies from minute to minute by more than chance alone.
    rate = share * (1 + 0.6 * np.cos(angle) + 0.15 * np.cos(2 * angle)) * rng.lognormal(0, 0.05, shape)
    failed, scanned, weight = np.full(shape, FAILED), np.zeros(shape), np.ones(shape)
    incidents = []
    for kind, (service, hour, metric, description) in _KINDS.items():
        start = hour * 60 + int(rng.integers(0, 90))
        end = start + int(rng.integers(10, 21))
        during = _INDEX[service], slice(start, end)
        if kind == "scan":
            scanned[during] = SCAN
            rate[during] /= 1 - SCAN
        elif kind == "error_spike":
            failed[during] = SPIKE
        elif kind == "size_shift":
            weight[during] = SHIFT
        else:
            rate[during] *= SURGE if kind == "traffic_surge" else DROP
        incidents.append(Incident(kind, service, _rfc3339(start), _rfc3339(end), metric, description))
    return Day(rate / rate.sum(), failed, scanned, weight, incidents)


def _rfc3339(minute: int) -> str:
    return f"{START + timedelta(minutes=minute):%Y-%m-%dT%H:%M:%SZ}"
