"""The grammar of JSON for compiled loops: where a string, a number or a value ends, or that it is not sure to be one.

What is refused here, with -1, is not sure to be wrong: half a surrogate pair, large exponents and deep nesting are left
to a decoder that takes its time. What is not refused is right.

Source: RFC 8259
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fabric_beam.simd import WIDTH, below, equal, first
from fabric_beam.views import Bytes, compiled, inlined

QUOTE, BACKSLASH, COMMA, COLON, DOT = (ord(character) for character in '"\\,:.')
OPEN, CLOSE, OPEN_LIST, CLOSE_LIST, SPACE = (ord(character) for character in "{}[] ")
#: Kinds of numbers: an integer; a fraction as Python writes it; another fraction; one with an exponent.
INTEGER, SHORTEST, FRACTION, EXPONENT = range(4)

_MINUS, _PLUS, _ZERO, _NINE, _E, _U = (ord(character) for character in "-+09eu")
_TAB, _LINE_FEED, _RETURN = (ord(character) for character in "\t\n\r")
_NUL, _TRUE, _FALSE = (np.array(list(text), np.uint8) for text in (b"null", b"true", b"false"))
_HIGH, _LOW = 0xD800, 0xDC00
_LONG, _DEPTH, _DIGITS = 300, 60, 15
_BAD = 255
_HEX = np.full(256, _BAD, np.uint8)
_HEX[[ord(digit) for digit in "0123456789abcdefABCDEF"]] = [*range(16), *range(10, 16)]
#: What a letter behind a backslash stands for; 0 if for nothing.
_ESCAPES = np.zeros(256, np.uint8)
_ESCAPES[[ord(letter) for letter in '"\\/bfnrt']] = [ord(character) for character in '"\\/\b\f\n\r\t']
_QUOTES, _BACKSLASHES, _SPACES = np.uint8(QUOTE), np.uint8(BACKSLASH), np.uint8(SPACE)


@inlined
def skip(text: Bytes, at: int, end: int) -> int:
    """Behind white space."""
    while at < end and text[at] <= SPACE and text[at] in (SPACE, _TAB, _LINE_FEED, _RETURN):
        at += 1
    return at


@inlined
def string(text: Bytes, at: int, end: int) -> tuple[int, bool]:
    """Where the closing quote of a string is that begins at `at`, behind its opening quote; whether it has escapes."""
    escaped = False
    while at < end:
        stops = equal(text, at, _QUOTES) | equal(text, at, _BACKSLASHES) | below(text, at, _SPACES)
        if not stops:
            at += WIDTH
            continue
        at += first(stops)
        if at >= end:
            break
        if text[at] == QUOTE:
            return at, escaped
        if text[at] != BACKSLASH:
            break
        escaped = True
        if _ESCAPES[text[at + 1]]:
            at += 2
            continue
        point, size = _point(text, at)
        if text[at + 1] != _U or point < 0:
            break
        at += size
    return -1, escaped


@inlined
def _unit(text: Bytes, at: int) -> Any:
    """What four digits are; -1 if they are not."""
    high, low = _HEX[text[at]] | _HEX[text[at + 1]], _HEX[text[at + 2]] | _HEX[text[at + 3]]
    if _BAD in (high, low):
        return np.int64(-1)
    return (
        np.int64(_HEX[text[at]]) << 12
        | np.int64(_HEX[text[at + 1]]) << 8
        | np.int64(_HEX[text[at + 2]]) << 4
        | np.int64(_HEX[text[at + 3]])
    )


@inlined
def _point(text: Bytes, at: int) -> tuple[Any, int]:
    """The code point that begins at a backslash and a u, and how many bytes it takes; -1 if there is none."""
    point = _unit(text, at + 2)
    if point >> 11 != _HIGH >> 11:
        return point, 6
    if point < _LOW and text[at + 6] == BACKSLASH and text[at + 7] == _U:
        low = _unit(text, at + 8)
        if low >> 10 == _LOW >> 10:
            return (point - _HIGH << 10) + (low - _LOW) + 0x10000, 12
    return np.int64(-1), 6


@compiled
def unescape(text: Bytes, at: int, end: int) -> int:
    """Write what a string stands for over it, in UTF-8; where that ends."""
    put = at
    while at < end:
        if text[at] != BACKSLASH:
            text[put] = text[at]
            put += 1
            at += 1
        elif text[at + 1] != _U:
            text[put] = _ESCAPES[text[at + 1]]
            put += 1
            at += 2
        else:
            point, size = _point(text, at)
            at += size
            if point < 0x80:
                text[put] = np.uint8(point)
                put += 1
                continue
            # Of two, three or four bytes, the first says how many follow, with six bits each.
            follow = 1 + (point >= 0x800) + (point >= 0x10000)
            text[put] = np.uint8(0xFF00 >> follow + 1 & 0xFF | point >> 6 * follow)
            for step in range(1, follow + 1):
                text[put + step] = np.uint8(0x80 | point >> 6 * (follow - step) & 0x3F)
            put += follow + 1
    return put


@inlined
def _digits(text: Bytes, at: int, end: int) -> int:
    while at < end and _ZERO <= text[at] <= _NINE:
        at += 1
    return at


@inlined
def number(text: Bytes, at: int, end: int) -> tuple[int, int]:
    """Behind a number, and its kind."""
    start, kind = at, INTEGER
    at += text[at] == _MINUS
    whole = at
    at = _digits(text, at, end)
    if at == whole or (text[whole] == _ZERO and (at > whole + 1 or (whole > start and text[at] != DOT))):
        return -1, kind
    if at < end and text[at] == DOT:
        point = at
        at = _digits(text, at + 1, end)
        if at == point + 1:
            return -1, kind
        kind = SHORTEST if at - whole <= _DIGITS and text[at - 1] != _ZERO else FRACTION
    if at < end and text[at] | 0x20 == _E:
        at += 1
        at += at < end and text[at] in (_MINUS, _PLUS)
        exponent = at
        at = _digits(text, at, end)
        kind = EXPONENT
        if not exponent < at <= exponent + 2:
            return -1, kind
    if at - start > _LONG:
        return -1, kind
    return at, kind


@inlined
def _literal(text: Bytes, at: int, end: int, word: Bytes) -> int:
    if at + len(word) > end:
        return -1
    for step in range(len(word)):
        if text[at + step] != word[step]:
            return -1
    return at + len(word)


@inlined
def literal(text: Bytes, at: int, end: int) -> int:
    """Behind true, false or null."""
    if text[at] == _TRUE[0]:
        return _literal(text, at, end, _TRUE)
    if text[at] == _FALSE[0]:
        return _literal(text, at, end, _FALSE)
    return _literal(text, at, end, _NUL)


@inlined
def _key(text: Bytes, at: int, end: int) -> int:
    """Behind a key and its colon."""
    if at >= end or text[at] != QUOTE:
        return -1
    at, _ = string(text, at + 1, end)
    if at < 0:
        return -1
    at = skip(text, at + 1, end)
    if at >= end or text[at] != COLON:
        return -1
    return skip(text, at + 1, end)


@compiled
def value(text: Bytes, at: int, end: int) -> int:  # noqa: PLR0911, PLR0912 - a state machine
    """Behind a value of any type."""
    depth, objects = 0, np.uint64(0)
    while at < end:
        byte = text[at]
        if byte in (OPEN, OPEN_LIST):
            if depth == _DEPTH:
                return -1
            depth += 1
            objects = objects << np.uint64(1) | np.uint64(byte == OPEN)
            at = skip(text, at + 1, end)
            if at >= end:
                return -1
            if text[at] != (CLOSE if byte == OPEN else CLOSE_LIST):
                if byte == OPEN:
                    at = _key(text, at, end)
                    if at < 0:
                        return -1
                continue
        else:
            if byte == QUOTE:
                at, _ = string(text, at + 1, end)
                at += at >= 0
            elif byte == _MINUS or _ZERO <= byte <= _NINE:
                at, _ = number(text, at, end)
            else:
                at = literal(text, at, end)
            if at < 0 or depth == 0:
                return at
        while True:
            at = skip(text, at, end)
            if at >= end:
                return -1
            in_object = objects & np.uint64(1) == np.uint64(1)
            if text[at] == COMMA:
                at = skip(text, at + 1, end)
                if in_object:
                    at = _key(text, at, end)
                    if at < 0:
                        return -1
                break
            if text[at] != (CLOSE if in_object else CLOSE_LIST):
                return -1
            at += 1
            depth -= 1
            objects >>= np.uint64(1)
            if depth == 0:
                return at
    return -1
