"""Time stamps: every form against Python's datetime, whatever stands beside it in the batch."""

from __future__ import annotations

import email.utils
from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fabric_beam.errors import SchemaError, UsageError
from transforms.formats.timestamps import _FORMS, parse_timestamps, parse_zone

EXAMPLES = {
    "2015-05-17T10:05:03Z": datetime(2015, 5, 17, 10, 5, 3),
    "2015-05-17T10:05:03.123456789Z": datetime(2015, 5, 17, 10, 5, 3, 123456),
    "2015-05-17T10:05:03,5+0230": datetime(2015, 5, 17, 7, 35, 3, 500000),
    "2015-05-17 10:05:03.123-05": datetime(2015, 5, 17, 15, 5, 3, 123000),
    "2015-05-17 10:05:03,123": datetime(2015, 5, 17, 10, 5, 3, 123000),
    "2015-05-17 10:05:03 UTC": datetime(2015, 5, 17, 10, 5, 3),
    "2015-05-17T10:05+02:00": datetime(2015, 5, 17, 8, 5),
    "2015-05-17 10:05": datetime(2015, 5, 17, 10, 5),
    "2015-05-17": datetime(2015, 5, 17),
    "17/May/2015:10:05:03 +0000": datetime(2015, 5, 17, 10, 5, 3),
    "17/May/2015:10:05:03 -0730": datetime(2015, 5, 17, 17, 35, 3),
    "Sun Dec 04 04:47:44 2005": datetime(2005, 12, 4, 4, 47, 44),
    "Sun Dec  4 04:47:44.123456 2005": datetime(2005, 12, 4, 4, 47, 44, 123456),
    "Sun Dec  4 04:47:44 EST 2005": datetime(2005, 12, 4, 9, 47, 44),
    "2015/05/17 10:05:03": datetime(2015, 5, 17, 10, 5, 3),
    "081109 203615": datetime(2008, 11, 9, 20, 36, 15),
    "17/06/09 20:10:40": datetime(2017, 6, 9, 20, 10, 40),
    "Sun, 17 May 2015 10:05:03 +0200": datetime(2015, 5, 17, 8, 5, 3),
    "1 May 2015 10:05:03 GMT": datetime(2015, 5, 1, 10, 5, 3),
    "1431857103": datetime(2015, 5, 17, 10, 5, 3),
    "1431857103.5": datetime(2015, 5, 17, 10, 5, 3, 500000),
    "1431857103123": datetime(2015, 5, 17, 10, 5, 3, 123000),
    "1431857103123.25": datetime(2015, 5, 17, 10, 5, 3, 123250),
    "1431857103123456": datetime(2015, 5, 17, 10, 5, 3, 123456),
    "1431857103123456789": datetime(2015, 5, 17, 10, 5, 3, 123456),
    "-1.5": datetime(1969, 12, 31, 23, 59, 58, 500000),
    "1969-12-31T23:59:59.999999Z": datetime(1969, 12, 31, 23, 59, 59, 999999),
    "0001-01-01T00:00:00Z": datetime(1, 1, 1),
    "9999-12-31T23:59:59.999999Z": datetime(9999, 12, 31, 23, 59, 59, 999999),
    "2016-12-31T23:59:60Z": datetime(2017, 1, 1),
    "2016-12-31T23:59:60.500Z": datetime(2017, 1, 1, 0, 0, 0, 500000),
}
NOT_TIMES = (
    "",
    " ",
    "soon",
    "2015-02-29T00:00:00Z",
    "2015-5-17T10:05:03Z",
    "2015-05-17T10:05:3Z",
    "2015-05-17T24:00:00Z",
    "2015-05-17T10:05:03Zulu",
    "2015-05-17T10:05:03.1234567890Z",
    "2015-05-17T10:05:03+99:00",
    "2015-05-17  10:05:03",
    "0000-01-01T00:00:00Z",
    "0001-01-01T00:00:00+01:00",
    "9999-12-31T23:59:59-01:00",
    "\u0662\u0660\u0661\u0665-05-17T10:05:03Z",
    "17/Mai/2015:10:05:03 +0000",
    "1431857103s",
    "99999999999999999999",
    "2015-05-17T10:05:03Z\n",
    "x" * 1_000_000,
    "\x00",
)


def parsed(texts: list[str | None], zone: str = "UTC") -> list[datetime | None]:
    return [time and time.replace(tzinfo=None) for time in parse_timestamps(pl.Series(texts, dtype=pl.String), zone)]


@pytest.mark.parametrize(("text", "expected"), EXAMPLES.items())
def test_a_common_form_is_read_when_alone(text: str, expected: datetime) -> None:
    """Every common form is read when a column holds nothing else."""
    assert parsed([text]) == [expected]


def test_a_mixture_of_all_forms_is_read_in_any_order() -> None:
    """What a text means does not depend on what stands before it, and what is no time is null."""
    texts = [*EXAMPLES, *NOT_TIMES, None]
    expected = [*EXAMPLES.values(), *([None] * (len(NOT_TIMES) + 1))]
    for shift in range(0, len(texts), 5):
        assert parsed(texts[shift:] + texts[:shift]) == expected[shift:] + expected[:shift]


@pytest.mark.parametrize("text", NOT_TIMES)
def test_what_is_no_time_is_null_when_alone(text: str) -> None:
    """A text that is not a time is null."""
    assert parsed([text]) == [None]


@pytest.mark.parametrize("text", EXAMPLES)
def test_no_text_fits_two_forms(text: str) -> None:
    """Forms exclude each other, so their order changes nothing."""
    assert sum(form.python.match(text) is not None for form in _FORMS) == 1


def test_a_run_of_equal_times_gives_each_row_its_time() -> None:
    """Repeated texts, nulls among them, keep their places."""
    texts: list[str | None] = ["2015-05-17T10:05:03Z"] * 5 + [None] * 3 + ["soon"] * 4 + ["2015-05-17T10:05:04Z"] * 5
    three, four = datetime(2015, 5, 17, 10, 5, 3), datetime(2015, 5, 17, 10, 5, 4)
    assert parsed(texts) == [three] * 5 + [None] * 7 + [four] * 5


OFFSETS = st.integers(-23 * 60 - 59, 23 * 60 + 59).map(lambda minutes: timezone(timedelta(minutes=minutes)))
MOMENTS = st.datetimes(datetime(1, 1, 3), datetime(9999, 12, 29), timezones=OFFSETS)


@settings(deadline=None)
@given(st.lists(st.tuples(MOMENTS, st.sampled_from("T "), st.integers(0, 6), st.sampled_from(".,"))))
def test_iso_times_are_what_datetime_says(rows: list[tuple[datetime, str, int, str]]) -> None:
    """RFC 3339 text with any number of fraction digits and any offset gives datetime's own instant."""
    texts: list[str | None] = []
    expected = []
    for moment, separator, digits, point in rows:
        cut = moment.replace(microsecond=moment.microsecond - moment.microsecond % 10 ** (6 - digits))
        text = cut.isoformat(separator, "microseconds")
        texts.append(text[:19] + (point + text[20 : 20 + digits] if digits else "") + text[26:])
        expected.append(cut.astimezone(UTC).replace(tzinfo=None))
    assert parsed(texts) == expected


DIGITS = st.lists(st.tuples(*(st.integers(0, top) for top in (9999, 13, 32, 25, 61, 59))), min_size=1, max_size=30)


@settings(deadline=None)
@given(DIGITS)
def test_iso_fields_that_make_no_time_are_null(rows: list[tuple[int, ...]]) -> None:
    """Fields are a time exactly when datetime accepts them."""

    def reference(fields: tuple[int, ...]) -> datetime | None:
        try:
            return datetime(*fields)  # type: ignore[arg-type]
        except ValueError:
            return None

    texts: list[str | None] = ["{:04}-{:02}-{:02}T{:02}:{:02}:{:02}Z".format(*row) for row in rows]
    assert parsed(texts) == [reference(row) for row in rows]


FORMATS = {
    "%d/%b/%Y:%H:%M:%S %z": 2,
    "%a %b %d %H:%M:%S %Y": 1,
    "%a %b %e %H:%M:%S.%f %Y": 1,
    "%Y/%m/%d %H:%M:%S": 1,
    "%y%m%d %H%M%S": 1,
    "%y/%m/%d %H:%M:%S": 1,
    "%Y-%m-%d %H:%M": 1,
    "%Y-%m-%d": 1,
}


@settings(deadline=None)
@given(st.lists(st.tuples(st.datetimes(datetime(1970, 1, 1), datetime(2068, 1, 1)), st.sampled_from(sorted(FORMATS)))))
def test_other_forms_are_what_strptime_says(rows: list[tuple[datetime, str]]) -> None:
    """The forms that strptime can read are read as it reads them."""
    texts: list[str | None] = [moment.replace(tzinfo=UTC).strftime(form) for moment, form in rows]
    expected = [
        datetime.strptime(moment.replace(tzinfo=UTC).strftime(form), form.replace("%e", "%d")).replace(tzinfo=None)
        for moment, form in rows
    ]
    assert parsed(texts) == expected


@settings(deadline=None)
@given(st.lists(MOMENTS.filter(lambda moment: moment.year >= 1000)))
def test_rfc_2822_dates_are_what_email_utils_says(moments: list[datetime]) -> None:
    """Mail and HTTP dates give the instants that they were written from."""
    moments = [moment.replace(microsecond=0) for moment in moments]
    assert parsed([email.utils.format_datetime(moment) for moment in moments]) == [
        moment.astimezone(UTC).replace(tzinfo=None) for moment in moments
    ]


@settings(deadline=None)
@given(st.lists(st.integers(-(2**63), 2**63 - 1) | st.integers(-(10**12), 10**12)), st.booleans())
def test_epoch_numbers_go_by_size(numbers: list[int], as_text: bool) -> None:
    """Below 1e11 is seconds, then milliseconds, microseconds, nanoseconds: as text and as integers."""

    def reference(number: int) -> datetime | None:
        factors = {10**11: 1_000_000, 10**14: 1000, 10**17: 1}
        factor = next((factor for limit, factor in factors.items() if abs(number) < limit), None)
        micros = number * factor if factor else number // 1000
        try:
            return datetime(1970, 1, 1) + timedelta(microseconds=micros)
        except OverflowError:
            return None

    expected = [reference(number) for number in numbers]
    if as_text:
        assert parsed([str(number) for number in numbers]) == expected
    else:
        values = parse_timestamps(pl.Series(numbers, dtype=pl.Int64))
        assert [time and time.replace(tzinfo=None) for time in values] == expected


@settings(deadline=None)
@given(st.lists(st.datetimes(datetime(1970, 1, 1), datetime(2100, 1, 1))))
def test_fractional_epoch_seconds_keep_every_microsecond(moments: list[datetime]) -> None:
    """Seconds with a fraction, as text or as floats, give the exact microsecond."""
    micros = [(moment - datetime(1970, 1, 1)) // timedelta(microseconds=1) for moment in moments]
    assert parsed([f"{value // 1_000_000}.{value % 1_000_000:06}" for value in micros]) == moments
    floats = parse_timestamps(pl.Series([value / 1e6 for value in micros], dtype=pl.Float64))
    assert [time and time.replace(tzinfo=None) for time in floats] == moments


def test_floats_that_are_no_time_are_null() -> None:
    """NaN, infinities and numbers past the year 9999 are null."""
    values = parse_timestamps(pl.Series([float("nan"), float("inf"), -1e300, None, 0.0]))
    assert values.to_list() == [None, None, None, None, datetime(1970, 1, 1, tzinfo=UTC)]


@settings(deadline=None)
@given(
    st.lists(st.datetimes(datetime(1980, 1, 1), datetime(2030, 1, 1))),
    st.sampled_from(["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Pacific/Apia", "Asia/Kolkata"]),
)
def test_local_times_are_what_zoneinfo_says(moments: list[datetime], zone: str) -> None:
    """A time without a zone is read in `zone`, doubled and skipped hours included."""
    expected = [moment.replace(tzinfo=ZoneInfo(zone)).astimezone(UTC).replace(tzinfo=None) for moment in moments]
    assert parsed([moment.isoformat(" ", "microseconds") for moment in moments], zone) == expected


@pytest.mark.parametrize(
    ("local", "utc"), [("2024-03-31 02:30:00", "2024-03-31 01:30:00"), ("2024-10-27 02:30:00", "2024-10-27 00:30:00")]
)
def test_a_clock_change_is_settled_as_documented(local: str, utc: str) -> None:
    """A skipped hour keeps the offset before the change; of a doubled one, the first is taken."""
    assert parsed([local], "Europe/Berlin") == parsed([utc])


def test_a_zone_in_the_text_beats_the_default() -> None:
    """Only times that name no zone are in the default zone, here an offset."""
    assert parsed(["2024-01-01 10:00:00", "2024-01-01 10:00:00Z"], "-05:30") == [
        datetime(2024, 1, 1, 15, 30),
        datetime(2024, 1, 1, 10),
    ]


@pytest.mark.parametrize("kind", [pl.String, pl.Int64, pl.Float64, pl.UInt64, pl.Null, pl.Datetime("ms")])
def test_an_empty_column_keeps_its_name_and_becomes_utc(kind: pl.DataType) -> None:
    """No rows of any kind are no rows of UTC microseconds."""
    values = parse_timestamps(pl.Series("at", [], dtype=kind))
    assert (values.name, values.dtype, len(values)) == ("at", pl.Datetime("us", "UTC"), 0)


def test_a_datetime_column_is_converted() -> None:
    """A column that holds times already only changes its unit and zone."""
    naive = pl.Series([datetime(2024, 7, 1, 12)], dtype=pl.Datetime("ns"))
    assert parse_timestamps(naive, "Europe/Berlin").dt.hour().to_list() == [10]
    assert parse_timestamps(naive.dt.replace_time_zone("Asia/Tokyo"), "Europe/Berlin").dt.hour().to_list() == [3]


def test_a_column_of_another_type_is_refused() -> None:
    """A column that cannot hold times is named."""
    with pytest.raises(SchemaError, match="column 'flag' is Boolean, not a time"):
        parse_timestamps(pl.Series("flag", [True]))


@pytest.mark.parametrize("zone", ["Europe/Berln", "", "+25:00", "Mars/Olympus"])
def test_an_unknown_zone_is_refused(zone: str) -> None:
    """A zone that does not exist is refused before any row is read."""
    with pytest.raises(UsageError, match="unknown time zone"):
        parse_timestamps(pl.Series([], dtype=pl.String), zone)


def test_an_unknown_zone_names_the_nearest() -> None:
    """The message for a misspelt zone says which was probably meant."""
    with pytest.raises(UsageError, match="Did you mean 'Europe/Berlin'"):
        parse_zone("europe/berln")
