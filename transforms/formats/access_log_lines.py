"""The loop that cuts access-log lines, compiled to machine code."""

from __future__ import annotations

import calendar

import numpy as np
import numpy.typing as npt

from fabric_beam import simd
from fabric_beam.views import Bytes, Mask, Positions, Words, compiled, inlined, load, put_view

#: The text fields, in the order in which `cut_lines` gives them.
TEXTS = (
    "client.address",
    "user.name",
    "http.request.method",
    "url.original",
    "network.protocol.version",
    "http.request.header.referer",
    "user_agent.original",
)
_ADDRESS, _USER, _METHOD, _TARGET, _VERSION, _REFERER, _AGENT, _SIZE = range(len(TEXTS) + 1)

_QUOTE, _DASH, _SPACE, _BRACKET, _BACKSLASH, _NEWLINE = (ord(character) for character in '"- [\\\n')
_HTTP, _SIX_BYTES = (np.uint64(int.from_bytes(text, "little")) for text in (b" HTTP/", b"\xff" * 6))
_MONTHS = np.array([int.from_bytes(f"/{month}/".encode()) for month in calendar.month_abbr[1:]])
_DAYS = np.array([31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31])
_NO_DATE = -(1 << 62)
#: The shortest end of a line, from the bracket on.
_SHORTEST = len('[17/May/2015:10:05:03 +0000] "" 200 -')


@compiled
def cut_lines(  # noqa: PLR0912, PLR0915 - one pass over a line's bytes, from left to right
    text: Bytes,
    starts: Positions,
    lengths: Positions,
    combined: bool,
    rows: Positions,
    times: Positions,
    status: npt.NDArray[np.int32],
    sizes: Positions,
    views: Words,
    valid: Mask,
) -> int:
    """Cut the lines that fit the format.

    Args:
        text: the text that the lines are in, with 64 bytes or more behind it.
        starts: each line's first byte.
        lengths: each line's length, in bytes.
        combined: whether referer and user agent are expected.
        rows: filled with the numbers of the lines that fit.
        times: filled with their times, in microseconds since the epoch.
        status: filled with their status codes.
        sizes: filled with their sizes.
        views: filled with their text fields, in the order of `TEXTS`.
        valid: filled with whether those have a value, and in the last row, whether the size has.

    Returns:
        How many lines fit: so many places of each array are filled.
    """
    count = 0
    date, year, zone, midnight = np.uint64(0), np.uint64(0), np.uint64(0), _NO_DATE
    for row in range(len(starts)):
        start, end = starts[row], starts[row] + lengths[row]
        while end > start and _is_space(text[end - 1]):
            end -= 1
        address_end = _field_end(text, start, end)
        ident_end = _field_end(text, address_end + 1, end) if address_end < end else end
        user = ident_end + 1
        bracket, clock = user, -1
        while clock < 0:
            # A user's name ends where a time and a quote follow, whatever else it has.
            bracket = _next_bracket(text, bracket + 1, end)
            if bracket + _SHORTEST > end:
                break
            at = bracket + 1
            # A log's date and zone change rarely: they are read again when their bytes do.
            if load(text, at) != date or load(text, at + 4) != year or load(text, at + 20) != zone:
                midnight = _midnight(text, at)
                date, year, zone = load(text, at), load(text, at + 4), load(text, at + 20)
            if midnight != _NO_DATE and text[at + 28] == _QUOTE:
                clock = _clock(text, at + 12)
        if clock < 0:
            continue

        request = bracket + 30
        request_end = _closing_quote(text, request, end)
        if request_end < 0 or request_end + len('" 200 -') > end or text[request_end + 1] != _SPACE:
            continue
        code = _number(text, request_end + 2, 3)
        size = request_end + 6
        size_end = size
        while size_end < end and ord("0") <= text[size_end] <= ord("9"):
            size_end += 1
        is_dash = size_end == size and text[size] == _DASH
        if is_dash:
            size_end += 1
        if code < 0 or text[size - 1] != _SPACE or size_end == size:
            continue

        referer, referer_end, agent = size_end + 2, end, end
        if combined:
            if referer >= end or text[size_end] != _SPACE or text[size_end + 1] != _QUOTE:
                continue
            referer_end = _closing_quote(text, referer, end)
            agent = referer_end + 3
            if referer_end < 0 or agent >= end or text[agent - 2] != _SPACE or text[agent - 1] != _QUOTE:
                continue
            if _closing_quote(text, agent, end) != end - 1:
                continue
            valid[_REFERER, count] = _put_field(text, views[_REFERER], count, referer, referer_end)
            valid[_AGENT, count] = _put_field(text, views[_AGENT], count, agent, end - 1)
        elif size_end != end:
            continue

        rows[count] = row
        times[count] = (midnight + clock) * 1_000_000
        status[count] = code
        # Nineteen digits may be more than an Int64 holds.
        valid[_SIZE, count] = not is_dash and size_end - size < 19
        sizes[count] = _number(text, size, size_end - size) if valid[_SIZE, count] else 0
        valid[_ADDRESS, count] = _put_field(text, views[_ADDRESS], count, start, address_end)
        valid[_USER, count] = _put_field(text, views[_USER], count, user, bracket - 1)
        method_end = _method_end(text, request, request_end)
        valid[_METHOD, count] = valid[_VERSION, count] = method_end >= 0
        put_view(text, views[_METHOD], count, request, max(method_end - request, 0))
        put_view(text, views[_VERSION], count, request_end - 3, 3)
        if method_end >= 0:
            request = method_end + 1
            request_end -= len(" HTTP/1.1")
        valid[_TARGET, count] = _put_field(text, views[_TARGET], count, request, request_end)
        count += 1
    return count


@inlined
def _is_space(byte: int) -> bool:
    return byte == _SPACE or 9 <= byte <= 13


@inlined
def _field_end(text: Bytes, at: int, end: int) -> int:
    """Where a field without white space ends; the line's end if it is empty or no space follows."""
    place = at
    while place < end:
        bits = simd.below(text, place, _SPACE + 1)
        if not bits:
            place += simd.WIDTH
            continue
        place += simd.first(bits)
        if place >= end or _is_space(text[place]):
            break
        place += 1
    return place if place > at and place < end and text[place] == _SPACE else end


@inlined
def _next_bracket(text: Bytes, at: int, end: int) -> int:
    """Where the next ` [` has its bracket, at least one byte after `at`; the line's end if there is none."""
    for place in range(at + 1, end):
        if text[place] == _BRACKET and text[place - 1] == _SPACE:
            return place
        if text[place] == _NEWLINE:
            return end
    return end


@inlined
def _closing_quote(text: Bytes, at: int, end: int) -> int:
    """Where the next quote is that no backslash escapes; -1 if there is none before the end."""
    while at < end:
        bits = simd.equal(text, at, _QUOTE) | simd.equal(text, at, _BACKSLASH)
        if bits:
            at += simd.first(bits)
            if at >= end or text[at] == _QUOTE:
                return at if at < end else -1
            if text[at + 1] == _NEWLINE:
                return -1
            at += 2
        else:
            at += simd.WIDTH
    return -1


@inlined
def _method_end(text: Bytes, at: int, end: int) -> int:
    """Where the method ends in a request of the form `METHOD target HTTP/x.y`; -1 if it has another form."""
    place = at
    while place < end and ord("a") <= text[place] | 32 <= ord("z"):
        place += 1
    tail = end - len(" HTTP/1.1")
    if not 3 <= place - at <= 16 or place + 1 > tail or text[place] != _SPACE:
        return -1
    if load(text, tail) & _SIX_BYTES != _HTTP or text[end - 2] != ord("."):
        return -1
    if _number(text, end - 3, 1) < 0 or _number(text, end - 1, 1) < 0:
        return -1
    return place


@inlined
def _put_field(text: Bytes, views: Words, row: int, at: int, end: int) -> bool:
    """Put a field's view in its place; returns whether it has a value, that is, whether it is not `-`."""
    put_view(text, views, row, at, end - at)
    return end - at != 1 or text[at] != _DASH


@inlined
def _number(text: Bytes, at: int, digits: int) -> int:
    """The number that some digits spell; -1 if one of them is none."""
    number = 0
    for place in range(at, at + digits):
        if not ord("0") <= text[place] <= ord("9"):
            return -1
        number = number * 10 + text[place] - ord("0")
    return number


@inlined
def _clock(text: Bytes, at: int) -> int:
    """The seconds of `10:05:03`; -1 if it is not such."""
    hours, minutes, seconds = _number(text, at, 2), _number(text, at + 3, 2), _number(text, at + 6, 2)
    if text[at + 2] != ord(":") or text[at + 5] != ord(":"):
        return -1
    if not (0 <= hours < 24 and 0 <= minutes < 60 and 0 <= seconds < 60):
        return -1
    return hours * 3600 + minutes * 60 + seconds


@compiled
def _midnight(text: Bytes, at: int) -> int:
    """Seconds since the epoch at the start of the day of `17/May/2015:10:05:03 +0000] `; `_NO_DATE` if it is not such.

    Source: https://howardhinnant.github.io/date_algorithms.html#days_from_civil
    """
    name = 0
    for place in range(at + 2, at + 7):
        name = name << 8 | text[place]
    month = 0
    while month < 12 and _MONTHS[month] != name:
        month += 1
    day, year = _number(text, at, 2), _number(text, at + 7, 4)
    hours, minutes = _number(text, at + 22, 2), _number(text, at + 24, 2)
    if month == 12 or not 1000 <= year < 3000 or not 0 <= hours < 24 or not 0 <= minutes < 60:
        return _NO_DATE
    leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    if not 1 <= day <= _DAYS[month] + (month == 1 and leap):
        return _NO_DATE
    if text[at + 11] != ord(":") or text[at + 20] != _SPACE or text[at + 26] != ord("]") or text[at + 27] != _SPACE:
        return _NO_DATE
    if text[at + 21] != ord("+") and text[at + 21] != ord("-"):
        return _NO_DATE
    zone = hours * 3600 + minutes * 60
    # Years that begin in March, so that a leap day is their last.
    years = year - (month < 2)
    day_of_year = (153 * ((month + 10) % 12) + 2) // 5 + day - 1
    days = years * 365 + years // 4 - years // 100 + years // 400 + day_of_year - 719_468
    return days * 86_400 + (zone if text[at + 21] == ord("-") else -zone)
