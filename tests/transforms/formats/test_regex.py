"""Regex: named groups as Python's `re` finds them, on patterns of every make and on real logs."""

from __future__ import annotations

import pickle
import re
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fabric_beam.errors import UsageError
from fabric_beam.kernel import Split
from transforms.formats.regex import Regex

DATA = Path(__file__).parents[3] / "../shared/data"


def table(lines: list[str | None]) -> pl.DataFrame:
    return pl.DataFrame(
        {"source": ["file"] * len(lines), "offset": range(len(lines)), "body": lines},
        schema={"source": pl.String, "offset": pl.Int64, "body": pl.String},
    )


def check(pattern: str, lines: list[str | None], split: Split) -> None:
    """Rows are kept exactly where `re.fullmatch` matches, with its groups; the others are rejected untouched."""
    given = table(lines)
    kept, rejected = [], []
    for row in given.iter_rows(named=True):
        match = None if row["body"] is None else re.fullmatch(pattern, row["body"])
        if match:
            fields = {name.replace("__", "."): value for name, value in match.groupdict().items()}
            kept.append((*fields.values(), row["body"], row["source"], row["offset"]))
        else:
            rejected.append((row["source"], row["offset"], row["body"]))
    names = [name.replace("__", ".") for name in re.compile(pattern).groupindex]
    schema = dict.fromkeys([*names, "log.record.original", "source"], pl.String) | {"offset": pl.Int64}
    assert split.kept.schema == schema
    assert split.kept.rows() == kept
    assert split.rejected.schema == {**given.schema, "rejected.rule": pl.String, "rejected.message": pl.String}
    assert split.rejected.drop("rejected.rule", "rejected.message").rows() == rejected
    assert split.rejected["rejected.rule"].to_list() == ["regex"] * len(rejected)
    assert not split.rejected["rejected.message"].has_nulls()


ATOM = st.sampled_from(["a", "b", r"\.", " ", "[ab]", "[^a]", ".", r"\d", "(?:a|b1)", "(?:ab|a)"])
PIECE = st.tuples(ATOM, st.sampled_from(["", "", "+", "*", "?", "+?", "{1,2}"])).map("".join)
PLAIN = st.lists(PIECE, min_size=1, max_size=3).map("".join)


@st.composite
def patterns(draw: st.DrawFn) -> str:
    """A pattern with named groups, some of them optional or in alternatives."""
    parts = []
    for number in range(draw(st.integers(1, 3))):
        group = f"(?P<f__{number}>{draw(PLAIN)})"
        shape = draw(st.sampled_from(["{0}", "{0}", "(?:{0} )?", "(?:{0}|{1})", "{1}{0}"]))
        parts.append(shape.format(group, draw(PLAIN)))
    return "".join(parts)


@settings(deadline=None)
@given(patterns(), st.lists(st.none() | st.text("ab1. é"), max_size=20))
def test_fields_are_what_python_re_finds(pattern: str, lines: list[str | None]) -> None:
    """Any pattern splits any lines as `re.fullmatch` does."""
    check(pattern, lines, Regex(pattern)(table(lines)))


def test_a_line_may_fit_without_any_group() -> None:
    """A line that fits is kept though none of its groups took part."""
    pattern = "x|(?P<a>a)"
    split = Regex(pattern)(table(["x", "a", "b"]))
    check(pattern, ["x", "a", "b"], split)
    assert split.kept["a"].to_list() == [None, "a"]


def test_both_ways_to_name_a_group_and_groups_without_a_name() -> None:
    """`(?P<name>` and `(?<name>` name columns, two underscores make a dot, other groups make no column."""
    split = Regex(r"(?P<http__request__method>\w+) (GET|POST)? ?(?<url_path>\S+)")(table(["PUT /x"]))
    assert split.kept.columns == ["http.request.method", "url_path", "log.record.original", "source", "offset"]


def test_a_column_of_the_same_name_gives_way() -> None:
    """A group named like another input column replaces it."""
    given = table(["a"]).with_columns(key=pl.lit(1))
    kept = Regex("(?P<key>.)")(given).kept
    assert kept.columns == ["key", "log.record.original", "source", "offset"]
    assert kept["key"].to_list() == ["a"]


def test_messages_tell_a_partial_match_from_none() -> None:
    """The message says whether the pattern was nearly right."""
    messages = Regex("(?P<a>a+)")(table(["aab", "b", "", None])).rejected["rejected.message"].to_list()
    assert messages == [
        "the pattern matches only a part of the line: it must match all of it",
        "the line does not match the pattern",
        "the line does not match the pattern",
        "there is no line",
    ]


def test_a_verbose_pattern_may_end_in_a_comment() -> None:
    """Verbose patterns keep their meaning when they are tied to the line's ends."""
    split = Regex("(?x) (?P<a> a+ )  # letters")(table(["aa", "aa ", "b"]))
    assert split.kept["a"].to_list() == ["aa"]


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("(?P<a>", r"(?s)\(\?P<a>\n.*\^\nerror: unclosed group"),
        ("[z(?P<a>x)", "unclosed character class"),
        ("(?P<a>x)(?=y)", r"look-around.*not supported\. Patterns run in linear time"),
        (r"(?P<a>x)\1", r"backreferences are not supported\. Patterns run in linear time"),
        ("(?P<a>(?:a{1000}){1000})", "exceeds size limit"),
        ("abc", "'abc' has no named group"),
        ("(abc)", "has no named group"),
        ("(?P<source>x)", "the group 'source' would replace the column 'source'"),
        ("(?P<log__record__original>x)", "would replace the column 'log.record.original'"),
        ("(?P<a__b>x)(?P<a.b>y)", "two groups are named 'a.b'"),
    ],
)
def test_a_wrong_pattern_is_refused(pattern: str, message: str) -> None:
    """A pattern that cannot work fails at once, with the place and the reason."""
    with pytest.raises(UsageError, match=message):
        Regex(pattern)


def test_hostile_lines_are_kept_or_rejected_whole() -> None:
    """Empty, huge and binary lines neither stop the kernel nor change."""
    lines = ["", None, "\x00", "k=\x00\x07\u2028é😀", "k=" + "x" * 1_000_000, "y" * 1_000_000, "k=a\nb"]
    pattern = r"(?P<key>\w)=(?P<value>[^\n]*)"
    check(pattern, lines, Regex(pattern)(table(lines)))


def test_an_empty_table_has_the_schema_of_a_full_one() -> None:
    """What is known before the run is what comes out of it."""
    check("(?P<a>.)(?P<b__c>.)?", [], Regex("(?P<a>.)(?P<b__c>.)?")(table([])))


def test_the_kernel_survives_pickling() -> None:
    """The kernel travels to workers."""
    kernel = pickle.loads(pickle.dumps(Regex("(?P<a>.)")))
    assert kernel(table(["x"])).kept["a"].to_list() == ["x"]


LEVEL = r"(?P<Level>[A-Z]+)"
REAL = {
    "HDFS": rf"(?P<Date>\d{{6}}) (?P<Time>\d{{6}}) (?P<Pid>\d+) {LEVEL} (?P<Component>[^:]+): (?P<body>.*)",
    "Hadoop": rf"(?P<Date>\S+) (?P<time>\S+) {LEVEL} +\[(?P<Process>.*?)\] (?P<Component>[\w.$]+): ?(?P<body>.*)",
    "Spark": rf"(?P<Date>[\d/]+) (?P<Time>[\d:]+) {LEVEL} (?P<Component>[^: ]+): (?P<body>.*)",
    "Zookeeper": rf"(?P<Date>\S+) (?P<time>\S+) - {LEVEL} +\[(?P<node>.*):.*?@(?P<Id>\d+)\] - (?P<body>.*)",
    "Apache": r"\[(?P<Time>[^\]]+)\] \[(?P<Level>\w+)\] (?P<body>.*)",
}


@pytest.mark.real_data
@pytest.mark.parametrize("system", REAL)
def test_real_logs_give_the_fields_of_their_labels(system: str) -> None:
    """Every line of real logs is kept, with the fields that its label names."""
    folder = DATA / "loghub" / system
    lines: list[str | None] = [*(folder / f"{system}_2k.log").read_text().splitlines()]
    split = Regex(REAL[system])(table(lines))
    check(REAL[system], lines, split)
    labels = pl.read_csv(folder / f"{system}_2k.log_structured.csv", infer_schema=False)
    shared = [name for name in labels.columns if name in split.kept.columns]
    assert "Level" in shared
    assert split.kept.select(shared).rows() == labels.select(shared).rows()
