"""The ledger of a run, as the report shows it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

Ledger = Mapping[str, object]


@dataclass(frozen=True)
class Step:
    """One step's rows; `lost` is what went in and is not accounted for (negative: more came out)."""

    name: str
    rows_in: int
    rows_out: int
    filtered: int
    rejected: int

    @property
    def lost(self) -> int:
        return self.rows_in - self.rows_out - self.filtered - self.rejected if self.rows_in else 0


@dataclass(frozen=True)
class Written:
    """The rows that one sink took: the output's name, the sink's URL, how many."""

    output: str
    sink: str
    rows: int


@dataclass(frozen=True)
class Account:
    """The ledger with its types; None is what it does not say.

    Attributes:
        read: rows read.
        filtered: rows that filters took out.
        rejected: rows sent to the dead letters.
        balanced: whether rows read = rows written + filtered + rejected.
        seconds: how long the run took.
        size: bytes read.
        job: the pipeline's name, or "".
        inputs: what was read.
        steps: the rows of each step that takes some, in order; sources and sinks are counted by `read` and `written`.
        written: each sink's rows.
    """

    read: int | None
    filtered: int | None
    rejected: int | None
    balanced: bool | None
    seconds: float | None
    size: int | None
    job: str
    inputs: list[str]
    steps: list[Step]
    written: list[Written]

    @property
    def events_written(self) -> int | None:
        """The rows of the main output, `events`, in the sink that took most."""
        return max((one.rows for one in self.written if one.output == "events"), default=None)

    @property
    def missing(self) -> int | None:
        """Rows read that are neither written nor filtered nor rejected; None where the ledger does not say."""
        if self.read is None or self.events_written is None:
            return None
        return self.read - self.events_written - (self.filtered or 0) - (self.rejected or 0)


def account(ledger: Ledger) -> Account:
    """Read the JSON ledger of a run; every key may be missing.

    Args:
        ledger: `read`, `filtered`, `rejected`, `bytes` (integers), `written` ({output: {sink: rows}}), `balanced`
            (bool), `steps` ({name: {in, out, filtered, rejected}}), `seconds`, `inputs` (list) and `job`.

    Returns:
        The same with types.

    Example:
        >>> account({"read": 3, "rejected": 1, "written": {"events": {"parquet:out": 2}}}).missing
        0
    """
    balanced, seconds, inputs = ledger.get("balanced"), ledger.get("seconds"), ledger.get("inputs")
    steps = [(name, _mapping(rows)) for name, rows in _mapping(ledger.get("steps")).items()]
    return Account(
        read=_count(ledger.get("read")),
        filtered=_count(ledger.get("filtered")),
        rejected=_count(ledger.get("rejected")),
        balanced=balanced if isinstance(balanced, bool) else None,
        seconds=float(seconds) if isinstance(seconds, int | float) and seconds > 0 else None,
        size=_count(ledger.get("bytes")),
        job=str(ledger.get("job") or ""),
        inputs=[str(one) for one in inputs] if isinstance(inputs, list | tuple) else [],
        steps=[Step(name, *(_count(rows.get(key)) or 0 for key in ("in", "out", "filtered", "rejected")))
               for name, rows in steps if "in" in rows],
        written=[Written(output, sink, _count(rows) or 0)
                 for output, sinks in _mapping(ledger.get("written")).items()
                 for sink, rows in _mapping(sinks).items()],
    )  # fmt: skip


def _mapping(value: object) -> Mapping[str, object]:
    return value if isinstance(value, Mapping) else {}


def _count(value: object) -> int | None:
    return int(value) if isinstance(value, int | float) else None
