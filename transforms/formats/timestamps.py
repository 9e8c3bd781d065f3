"""Time stamps as logs write them, text or number, to UTC microseconds."""

from __future__ import annotations

import difflib
import functools
import re
import zoneinfo
from dataclasses import dataclass, field

import polars as pl

from fabric_beam.errors import SchemaError, UsageError

UTC_MICROSECONDS = pl.Datetime("us", "UTC")

#: Year 1 to year 9999: what RFC 3339 and Python's datetime can say.
_FIRST, _LAST = -62_135_596_800_000_000, 253_402_300_799_999_999

#: What RFC 2822 allows in place of an offset, in seconds east of UTC.
_NAMED = {"Z": 0, "UT": 0, "UTC": 0, "GMT": 0} | {
    f"{zone}{kind}": -3600 * (hours - (kind == "DT"))
    for zone, hours in {"E": 5, "C": 6, "M": 7, "P": 8}.items()
    for kind in ("ST", "DT")
}

_DATE = r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
_TIME = r"[0-9]{2}:[0-9]{2}:[0-9]{2}"
_MONTH = r"[A-Z][a-z]{2}"
_FRACTION = r"(?:[.,](?P<fraction>[0-9]{1,9}))?"
_ZONE = rf"(?P<zone>[Zz]|[+-][0-9]{{2}}(?::?[0-9]{{2}})?|{'|'.join(sorted(_NAMED)[:-1])})"
_TAIL = rf"{_FRACTION}(?: ?{_ZONE})?$"


@dataclass(frozen=True)
class _Form:
    """One way to write a time: a strict pattern, and the format of its groups `main` and (after a space) `year`.

    Polars' own parser forgives much (one digit for two, blanks), so the pattern decides what fits. No text fits two.
    """

    pattern: str
    format: str
    python: re.Pattern[str] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "python", re.compile(self.pattern))


_FORMS = (
    _Form(rf"^(?P<main>{_DATE}T{_TIME}){_TAIL}", "%Y-%m-%dT%H:%M:%S"),
    _Form(rf"^(?P<main>{_DATE} {_TIME}){_TAIL}", "%Y-%m-%d %H:%M:%S"),
    _Form(rf"^(?P<main>[0-9]{{2}}/{_MONTH}/[0-9]{{4}}:{_TIME}){_TAIL}", "%d/%b/%Y:%H:%M:%S"),
    _Form(r"^(?P<epoch>-?[0-9]{1,19})(?:\.(?P<fraction>[0-9]{1,9}))?$", ""),
    _Form(
        rf"^(?:{_MONTH} )?(?P<main>{_MONTH} [ 0-3]?[0-9] {_TIME}){_FRACTION}(?: {_ZONE})? (?P<year>[0-9]{{4}})$",
        "%b %e %H:%M:%S %Y",
    ),
    _Form(rf"^(?:{_MONTH}, )?(?P<main>[0-9]{{1,2}} {_MONTH} [0-9]{{4}} {_TIME})(?: {_ZONE})?$", "%d %b %Y %H:%M:%S"),
    _Form(rf"^(?P<main>[0-9]{{4}}/[0-9]{{2}}/[0-9]{{2}} {_TIME}){_TAIL}", "%Y/%m/%d %H:%M:%S"),
    _Form(rf"^(?P<main>[0-9]{{2}}/[0-9]{{2}}/[0-9]{{2}} {_TIME}){_TAIL}", "%y/%m/%d %H:%M:%S"),
    _Form(rf"^(?P<main>[0-9]{{6}} [0-9]{{6}}){_TAIL}", "%y%m%d %H%M%S"),
    _Form(rf"^(?P<main>{_DATE}T[0-9]{{2}}:[0-9]{{2}})(?: ?{_ZONE})?$", "%Y-%m-%dT%H:%M"),
    _Form(rf"^(?P<main>{_DATE} [0-9]{{2}}:[0-9]{{2}})(?: ?{_ZONE})?$", "%Y-%m-%d %H:%M"),
    _Form(rf"^(?P<main>{_DATE})$", "%Y-%m-%d"),
)
#: The ISO times whose fraction Polars reads fastest.
_ISO = re.compile(rf"{_DATE}[T ]{_TIME}(?P<fraction>[.,](?:[0-9]{{3}}){{1,3}})?(?P<zone>Z|[+-][01][0-9]:[0-5][0-9])?")


def parse_timestamps(values: pl.Series, zone: str = "UTC") -> pl.Series:
    """Read time stamps from a column of text or numbers, whatever mixture of forms it holds.

    Forms: RFC 3339 and ISO 8601 (`T` or a space, with or without seconds, a fraction of 1 to 9 digits after `.` or
    `,`, a zone as `Z`, `+02:00`, `+0200`, `+02` or none; a date alone is its midnight), Apache access
    (`17/May/2015:10:05:03 +0000`), ctime and Apache error (`Sun Dec 04 04:47:44 2005`), nginx error and Go
    (`2015/05/17 10:05:03`), Spark (`17/06/09 20:10:40`, year first), HDFS (`081109 203615`), RFC 2822 and HTTP dates,
    and seconds, milliseconds, microseconds or nanoseconds since 1970, told apart by size (below 1e11, 1e14, 1e17).
    Weekdays are not checked; two-digit years are 1969 to 2068; what is finer than a microsecond is cut off; a leap
    second (`:60`) is the first second after it, as in POSIX time.

    Args:
        values: a String, integer, float or Datetime column.
        zone: the zone of times that name none: an IANA name, or an offset such as `+02:00`. A time that a clock
            change repeats is taken as the first of the two; one that it skips is read with the offset before it.

    Returns:
        The same rows as `Datetime("us", "UTC")` under the same name: null where there is no such time.

    Raises:
        UsageError: the zone is unknown.
        SchemaError: the column is of another type.

    Example:
        >>> parse_timestamps(pl.Series(["2015-05-17T10:05:03.5+02:00", "1431857103", "soon"])).dt.to_string().to_list()
        ['2015-05-17 08:05:03.500000+00:00', '2015-05-17 10:05:03.000000+00:00', None]

    Sources: RFC 3339, RFC 2822 (section 3.3), RFC 9110 (section 5.6.7), POSIX.1-2017 (4.16, seconds since the Epoch).
    """
    local = parse_zone(zone)
    kind = values.dtype
    if isinstance(kind, pl.Datetime):
        micros = _utc_micros(values.cast(pl.Datetime("us", kind.time_zone)), 0 if kind.time_zone else local)
    elif kind == pl.String:
        micros = _text(values, local)
    elif kind.is_integer():
        micros = _epoch(values.cast(pl.Int64, strict=False))
    elif kind.is_float():
        x = pl.col("x")
        micros = values.to_frame("x").select(_by_size(x, x * 1e6, x * 1e3, x, x / 1e3).round()).to_series()
        micros = micros.cast(pl.Int64, strict=False)
    elif kind == pl.Null:
        micros = values.cast(pl.Int64)
    else:
        raise SchemaError(f"column {values.name!r} is {kind}, not a time: expected String, integer, float or Datetime")
    return micros.set(~micros.is_between(_FIRST, _LAST), None).cast(UTC_MICROSECONDS).alias(values.name)


@functools.cache
def parse_zone(zone: str) -> int | str:
    """Check a time zone.

    Args:
        zone: an IANA name such as `Europe/Berlin`, or an offset such as `+02:00`.

    Returns:
        Seconds east of UTC for an offset and for UTC, else the name.

    Raises:
        UsageError: there is no such zone.

    Example:
        >>> parse_zone("-05:30"), parse_zone("Europe/Berlin")
        (-19800, 'Europe/Berlin')
    """
    seconds = _offset(zone)
    if seconds is not None:
        return seconds
    try:
        pl.Series([], dtype=pl.Datetime("us")).dt.replace_time_zone(zone or "?")
    except pl.exceptions.PolarsError:
        names = {name.lower(): name for name in zoneinfo.available_timezones()}
        close = difflib.get_close_matches(zone.lower(), names, n=1)
        hint = f" Did you mean {names[close[0]]!r}?" if close else ""
        raise UsageError(
            f"unknown time zone {zone!r}: expected an IANA name such as 'Europe/Berlin' or an offset such as "
            f"'+02:00'.{hint}"
        ) from None
    return zone


def to_utc(naive: pl.Series, zone: int | str) -> pl.Series:
    """Read wall-clock times in a zone; clock changes as `parse_timestamps` says.

    Args:
        naive: Datetime in microseconds, without a zone.
        zone: what `parse_zone` returned.

    Returns:
        The same rows as `Datetime("us", "UTC")`.

    Example:
        >>> to_utc(pl.Series(["2024-07-01T12:00:00"]).str.to_datetime(time_unit="us"), "Europe/Berlin").dt.hour()[0]
        10
    """
    return _utc_micros(naive, zone).cast(UTC_MICROSECONDS)


def _offset(zone: str) -> int | None:
    """Seconds east of UTC that a zone in a time stamp stands for, None if it says nothing."""
    named = _NAMED.get(zone.upper())
    if named is not None:
        return named
    found = re.fullmatch(r"([+-])([0-9]{2})(?::?([0-9]{2}))?", zone)
    if not found or int(found[2]) > 23 or int(found[3] or 0) > 59:
        return None
    return int(found[1] + "1") * (3600 * int(found[2]) + 60 * int(found[3] or 0))


def _utc_micros(naive: pl.Series, zone: int | str) -> pl.Series:
    if isinstance(zone, int):
        return naive.to_physical() - zone * 1_000_000
    micros = naive.dt.replace_time_zone(zone, ambiguous="earliest", non_existent="null").to_physical()
    if micros.null_count() == naive.null_count():
        return micros
    # A skipped hour: the day before has the offset from before the change.
    before = naive.dt.offset_by("-1d").dt.replace_time_zone(zone, ambiguous="earliest", non_existent="null")
    return micros.zip_with(micros.is_not_null(), before.to_physical() + 86_400_000_000)


def _text(values: pl.Series, local: int | str) -> pl.Series:
    """Microseconds of text: every form on the rows that no form before it fitted, the likeliest form first."""
    runs = values.rle_id()
    if len(runs) and runs[-1] < len(runs) // 2:
        # A busy log writes the same second many times over: read each run once.
        starts = runs.search_sorted(pl.int_range(runs[-1] + 1, eager=True))
        return _text(values.gather(starts), local).gather(runs)
    micros = pl.repeat(None, len(values), dtype=pl.Int64, eager=True)
    todo = values.is_not_null().arg_true()
    if not len(todo):
        return micros
    first = values[int(todo[0])]
    readers = [functools.partial(_read, form) for form in sorted(_FORMS, key=lambda form: not form.python.match(first))]
    if iso := _ISO.fullmatch(first):
        readers.insert(0, functools.partial(_read_alike, iso))
    for read in readers:
        whole = len(todo) == len(values)
        found, fits = read(values if whole else values.gather(todo), local)
        if whole and fits.all():
            return found
        micros = micros.scatter(todo.filter(fits), found.filter(fits))
        todo = todo.filter(~fits)
        if not len(todo):
            break
    return micros


def _read_alike(iso: re.Match[str], text: pl.Series, local: int | str) -> tuple[pl.Series, pl.Series]:
    """As `_read`, for what is written exactly like one ISO time (same zone, as many digits): half the cost."""
    fraction, zone = iso["fraction"] or "", iso["zone"] or ""
    pattern = "^" + re.sub("[0-9]", "[0-9]", re.escape(iso.string.removesuffix(zone))) + re.escape(zone) + "$"
    form = f"%Y-%m-%d{iso.string[10]}%H:%M:%S" + (f"{fraction[0]}%{len(fraction) - 1}f" if fraction else "") + zone
    naive = text.str.strptime(pl.Datetime("us"), form, strict=False, cache=not fraction)
    return _utc_micros(naive, parse_zone(zone) if zone else local), text.str.contains(pattern)


def _read(form: _Form, text: pl.Series, local: int | str) -> tuple[pl.Series, pl.Series]:
    """The microseconds of one form, and which rows have its shape (a shape may hold no time: 30 February)."""
    groups = text.str.extract_groups(form.pattern).struct.unnest()
    if "epoch" in groups.columns:
        return _epoch(groups["epoch"].cast(pl.Int64, strict=False), groups), groups["epoch"].is_not_null()
    main = groups["main"]
    if "year" in groups.columns:
        main = groups.select(pl.concat_str("main", "year", separator=" ")).to_series()
    naive = main.str.strptime(pl.Datetime("us"), form.format, strict=False)
    micros = _zoned(naive, groups["zone"], local) if "zone" in groups.columns else _utc_micros(naive, local)
    if "fraction" in groups.columns and groups["fraction"].null_count() < len(groups):
        micros = micros + groups.select((_nanos() // 1000).fill_null(0)).to_series()
    return micros, main.is_not_null()


def _zoned(naive: pl.Series, zones: pl.Series, local: int | str) -> pl.Series:
    known = {zone: _offset(zone) for zone in zones.unique().drop_nulls()}
    if not known:
        return _utc_micros(naive, local)
    if len(known) == 1 and not zones.null_count() and (offset := _offset(zones[0])) is not None:
        return _utc_micros(naive, offset)
    offsets = zones.replace_strict(list(known), list(known.values()), default=None, return_dtype=pl.Int64)
    micros = naive.to_physical() - offsets * 1_000_000
    return micros.zip_with(zones.is_not_null(), _utc_micros(naive, local)) if zones.null_count() else micros


def _nanos() -> pl.Expr:
    """Nine digits of the group `fraction`, as a number."""
    powers = pl.lit(pl.Series([10**n for n in range(9, -1, -1)]))
    return pl.col("fraction").cast(pl.Int64) * powers.gather(pl.col("fraction").str.len_bytes())


def _by_size(x: pl.Expr, seconds: pl.Expr, millis: pl.Expr, micros: pl.Expr, nanos: pl.Expr) -> pl.Expr:
    """Choose by the unit that the size of a number since 1970 tells."""
    below = [x.is_between(-(10**limit), 10**limit, closed="none") for limit in (11, 14, 17)]
    return pl.when(below[0]).then(seconds).when(below[1]).then(millis).when(below[2]).then(micros).otherwise(nanos)


def _epoch(whole: pl.Series, groups: pl.DataFrame | None = None) -> pl.Series:
    x = pl.col("x")
    micros = _by_size(x, x * 1_000_000, x * 1000, x, x // 1000)
    if groups is None or groups["fraction"].null_count() == len(groups):
        return whole.to_frame("x").select(micros).to_series()
    part = _by_size(x, _nanos() // 1000, _nanos() // 1_000_000, pl.lit(0), pl.lit(0)).fill_null(0)
    sign = pl.when(pl.col("epoch").str.starts_with("-")).then(-1).otherwise(1)
    return groups.with_columns(whole.alias("x")).select(micros + sign * part).to_series()
