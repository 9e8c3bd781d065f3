"""The report's tables: findings, top sources and dead letters, cut to what a person reads."""

from __future__ import annotations

from typing import Any

import polars as pl

from fabric_beam.report.charts import Axis
from fabric_beam.report.wording import duration, instant, period

MAX_FINDINGS = 50
MAX_SOURCES = 20
MAX_RULES = 50
MAX_SAMPLES = 5
MAX_TEXT = 300
_FIGURES = ("start", "end", "windows", "measure", "score", "threshold", "value", "reason")


def finding_rows(found: pl.DataFrame, axis: Axis | None) -> list[dict[str, Any]]:
    """Take the findings with the highest scores.

    Args:
        found: what `findings` returns.
        axis: the charts' bins, or None where there are no charts.

    Returns:
        For each its columns, `number`, `when`, `length`, `series` ({column: value}) and `mark`: its place on the
        charts in bins, or None where it lies outside of them.
    """
    shown = []
    times = pl.col("start", "end").dt.epoch("us")
    for number, row in enumerate(found.head(MAX_FINDINGS).with_columns(times).iter_rows(named=True), start=1):
        series = {name: value for name, value in row.items() if name not in _FIGURES and value is not None}
        label = " ".join(str(value) for value in [*series.values(), row["measure"]] if value is not None)
        start, end = row["start"], row["end"]
        shown.append(
            row
            | {
                "number": number,
                "when": period(instant(start), instant(end)),
                "length": duration(end - start) if end > start else "",
                "series": series,
                "mark": _mark(number, label, start, end, axis) if axis else None,
            }
        )
    return shown


def _mark(number: int, label: str, start: int, end: int, axis: Axis) -> dict[str, object] | None:
    first, last = axis.position(start), axis.position(end)
    if last < 0 or first >= axis.bins:
        return None
    return {"number": number, "label": label, "from": max(first, 0), "to": min(last, axis.bins)}


def source_rows(top: pl.DataFrame, events: int) -> dict[str, Any] | None:
    """Take the sources with the most events.

    Args:
        top: one key column, `count` and `error` (by how much a count may be too low), in any order.
        events: how many there are, with those of sources that are not counted.

    Returns:
        `key` (the column's name), `rows` (`name`, `count`, `width` of its bar and `share` of all, both in percent),
        `others` and `others_count` (what is not shown), `error`; None where the table is empty.
    """
    if top.is_empty():
        return None
    key = next(name for name in top.columns if name not in ("count", "error"))
    ordered = top.select(pl.col(key).alias("name"), pl.col("count").fill_null(0)).sort(
        "count", descending=True, maintain_order=True
    )
    shown, rest = ordered.head(MAX_SOURCES), ordered.slice(MAX_SOURCES)
    bars = shown.with_columns(
        width=100 * pl.col("count") / max(int(shown["count"][0]), 1),
        share=100 * pl.col("count") / max(int(ordered["count"].sum()), events, 1),
    )
    return {
        "key": key,
        "rows": bars.to_dicts(),
        "others": len(rest),
        "others_count": int(rest["count"].sum()),
        "error": int(top["error"][0]),
    }


def letter_rows(rejected: pl.DataFrame, sample: pl.DataFrame) -> list[dict[str, Any]]:
    """Group the dead letters by step and rule.

    Args:
        rejected: `step`, `rule`, `count`: exact counts.
        sample: some of the rejected rows: `step`, `rule`, `message`, `payload`, `source`, `offset`.

    Returns:
        For each step and rule, the most frequent first: `count`, `exact` (false where only the sample tells), and
        `rows`, at most `MAX_SAMPLES` with different messages first, their message and payload cut to `MAX_TEXT`
        characters (`more` says how many of the payload are left) and made printable.
    """
    keys = ["step", "rule"]
    counts = {} if rejected.is_empty() else dict(rejected.group_by(keys, maintain_order=True))
    samples = {} if sample.is_empty() else dict(sample.group_by(keys, maintain_order=True))
    rules = []
    for key in dict.fromkeys([*counts, *samples]):
        part = samples.get(key, sample.clear())
        rules.append(
            {
                "step": key[0],
                "rule": key[1],
                "count": int(counts[key]["count"].sum()) if key in counts else len(part),
                "exact": key in counts,
                "rows": _samples(part),
            }
        )
    return sorted(rules, key=lambda rule: -int(rule["count"]))


def _samples(part: pl.DataFrame) -> list[dict[str, Any]]:
    if part.is_empty():
        return []
    different_first = part.sort(pl.int_range(pl.len()).over("message"), maintain_order=True)
    return [
        row
        | {"message": _printable(row["message"]), "payload": _printable(row["payload"]), "more": _more(row["payload"])}
        for row in different_first.head(MAX_SAMPLES).iter_rows(named=True)
    ]


def _text(value: object) -> str:
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value or "")


def _printable(value: object) -> str:
    # Unprintable characters hide what is wrong with a row, or turn the text around (bidirectional overrides).
    start = _text(value)[:MAX_TEXT]
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in start)


def _more(value: object) -> int:
    return max(len(_text(value)) - MAX_TEXT, 0)
