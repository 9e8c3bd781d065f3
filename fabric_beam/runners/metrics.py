"""Beam's monitoring infos of several bundles or tasks as one."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from apache_beam.metrics import monitoring_infos
from apache_beam.portability.api import metrics_pb2

_Infos = list[metrics_pb2.MonitoringInfo]


def merge(infos: Iterable[metrics_pb2.MonitoringInfo]) -> _Infos:
    """Merge monitoring infos of the same metric: sums are added, distributions joined, the latest gauge is kept.

    Beam's own `consolidate` leaves the types apart that it does not know.

    Args:
        infos: of any bundles.

    Returns:
        One for each metric.
    """
    grouped: dict[Any, _Infos] = {}
    for info in infos:
        grouped.setdefault(monitoring_infos.to_key(info), []).append(info)
    return [_merge(same) if len(same) > 1 else same[0] for same in grouped.values()]


def _merge(same: _Infos) -> metrics_pb2.MonitoringInfo:
    payloads = [info.payload for info in same]
    merged = metrics_pb2.MonitoringInfo()
    merged.CopyFrom(same[0])
    combine = _COMBINE.get(same[0].type)
    merged.payload = combine(same) if combine else payloads[-1]
    return merged


def _pairwise(combine: Callable[[bytes, bytes], bytes]) -> Callable[[_Infos], bytes]:
    def all_of(same: _Infos) -> bytes:
        payload = same[0].payload
        for info in same[1:]:
            payload = combine(payload, info.payload)
        return bytes(payload)

    return all_of


def _latest(same: _Infos) -> bytes:
    return bytes(max(same, key=lambda info: monitoring_infos.extract_gauge_value(info)[0]).payload)


def _strings(same: _Infos) -> bytes:
    strings = set().union(*(monitoring_infos.extract_string_set_value(info) for info in same))
    return bytes(monitoring_infos.user_set_string("", "", strings).payload)


def _tries(same: _Infos) -> bytes:
    trie = monitoring_infos.extract_bounded_trie_value(same[0])
    for info in same[1:]:
        trie = trie.combine(monitoring_infos.extract_bounded_trie_value(info))
    return bytes(monitoring_infos.user_bounded_trie("", "", trie).payload)


_COMBINE: dict[str, Callable[[_Infos], bytes]] = {
    monitoring_infos.SUM_INT64_TYPE: _pairwise(monitoring_infos.sum_payload_combiner),
    monitoring_infos.DISTRIBUTION_INT64_TYPE: _pairwise(monitoring_infos.distribution_payload_combiner),
    monitoring_infos.LATEST_INT64_TYPE: _latest,
    monitoring_infos.STRING_SET_TYPE: _strings,
}
# Newer Beam only.
if hasattr(monitoring_infos, "BOUNDED_TRIE_TYPE"):
    _COMBINE[monitoring_infos.BOUNDED_TRIE_TYPE] = _tries
