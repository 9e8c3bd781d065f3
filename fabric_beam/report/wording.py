"""Numbers, sizes and times as people read them."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# The years 2 and 9999: a wrong unit (milliseconds read as seconds) makes times far beyond.
_FIRST, _LAST = -62_104_060_800_000_000, 253_402_300_799_999_999
_UNITS = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))


def short(value: float | None) -> str:
    """Write a number with three significant digits and its SI prefix, a count below 100,000 exactly.

    Args:
        value: any number, or None where there is none.

    Returns:
        Text such as `13.8 M`; "none" for None and NaN.

    Example:
        >>> short(13_812_331), short(2056), short(0.00412), short(None)
        ('13.8 M', '2,056', '0.00412', 'none')
    """
    if value is None or math.isnan(value):
        return "none"
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    if isinstance(value, int) and abs(value) < 100_000:
        return f"{value:,}"
    for power, prefix in ((12, "T"), (9, "G"), (6, "M"), (3, "k")):
        if abs(value) >= 0.9995 * 10**power:
            return f"{_three_digits(value / 10**power)} {prefix}"
    return _three_digits(value)


def _three_digits(value: float) -> str:
    rounded = float(f"{value:.3g}")
    return f"{rounded:.0f}" if rounded == int(rounded) else f"{rounded:g}"


def size(octets: float) -> str:
    """Write a number of bytes in decimal units.

    Args:
        octets: the number of bytes.

    Returns:
        Text such as `2.72 GB`.

    Example:
        >>> size(2_721_029_207), size(12)
        ('2.72 GB', '12 B')
    """
    text = short(float(octets))
    return f"{text}B" if text[-1].isalpha() else f"{text} B"


def share(part: float, whole: float) -> str:
    """Write a part of a whole in percent.

    Args:
        part: what is counted.
        whole: of how much.

    Returns:
        Text such as `3.4 %`; never 0 % for a part that is not zero.

    Example:
        >>> share(34, 1000), share(1, 10_000_000), share(0, 0)
        ('3.4 %', '< 0.01 %', '0 %')
    """
    percent = 100 * part / whole if whole else 0.0
    return "< 0.01 %" if 0 < percent < 0.01 else f"{_three_digits(percent)} %"


def duration(micros: float) -> str:
    """Write a length of time by its two largest units.

    Args:
        micros: microseconds, not negative.

    Returns:
        Text such as `1 h 12 min`.

    Example:
        >>> duration(60e6), duration(4_320e6), duration(1_200), duration(41.72e6)
        ('1 min', '1 h 12 min', '1.2 ms', '41.7 s')
    """
    seconds = micros / 1e6
    if seconds < 1:
        return f"{_three_digits(seconds * 1e3)} ms"
    if seconds < 60:
        return f"{_three_digits(seconds)} s"
    parts: list[str] = []
    rest = round(seconds)
    for length, unit in _UNITS:
        count, rest = divmod(rest, length)
        if count and len(parts) < 2:
            parts.append(f"{count} {unit}")
    return " ".join(parts)


def per(micros: float) -> str:
    """Write a length of time as it follows "events per".

    Example:
        >>> per(60e6), per(300e6)
        ('min', '5 min')
    """
    return duration(micros).removeprefix("1 ")


def instant(micros: int) -> datetime:
    """Turn microseconds since 1970 into a UTC time, or the nearest that a calendar can hold."""
    return _EPOCH + timedelta(microseconds=min(max(micros, _FIRST), _LAST))


def period(start: datetime, end: datetime) -> str:
    """Write a stretch of time without saying the day twice.

    Args:
        start: its first instant.
        end: its end, not part of it.

    Returns:
        Text such as `20 Nov 2026, 09:20 to 09:35`.

    Example:
        >>> period(datetime(2026, 11, 20, 9, 20), datetime(2026, 11, 20, 9, 35))
        '20 Nov 2026, 09:20 to 09:35'
        >>> period(datetime(2026, 11, 20), datetime(2026, 11, 21))
        '20 Nov 2026, 00:00 to 24:00'
        >>> period(datetime(2026, 11, 20, 23, 59), datetime(2026, 11, 21, 0, 4))
        '20 Nov 2026, 23:59 to 21 Nov 2026, 00:04'
    """
    midnight = end.time() == end.min.time() and end - timedelta(days=1) == start.replace(
        hour=0, minute=0, second=0, microsecond=0
    )
    if start == end:
        return f"{_day(start)}, {_clock(start)}"
    if start.date() == end.date() or midnight:
        return f"{_day(start)}, {_clock(start)} to {'24:00' if midnight else _clock(end)}"
    return f"{_day(start)}, {_clock(start)} to {_day(end)}, {_clock(end)}"


def _day(time: datetime) -> str:
    return f"{time.day} {time:%b %Y}"


def _clock(time: datetime) -> str:
    return f"{time:%H:%M}" if not (time.second or time.microsecond) else f"{time:%H:%M:%S}"
