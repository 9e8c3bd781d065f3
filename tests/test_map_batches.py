"""MapBatches: schemas before the run, dead letters, the account of rows."""

from __future__ import annotations

from datetime import UTC, datetime

import apache_beam as beam
import polars as pl
import pyarrow as pa
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from hypothesis import given, settings
from hypothesis import strategies as st

from fabric_beam import FromBatches, MapBatches, Split, ToBatches, reject
from fabric_beam.batches import BatchCoder, BatchOf, from_batch, to_batch
from fabric_beam.errors import MissingExtraError, RejectedRowsError, SchemaError
from fabric_beam.ledger import Ledger
from fabric_beam.runners.direct import DirectRunner
from fabric_beam.testing import batch, check_transform, collect, collect_with_dead_letters, run


def only_positive(table: pl.DataFrame) -> Split:
    """Reject rows whose `n` is not above zero."""
    good = pl.col("n") > 0
    return Split(table.filter(good), reject(table.filter(~good), "positive", pl.format("n is {}", "n")))


def test_one_bad_row_never_takes_its_batch_along() -> None:
    """Good rows of a batch go on; the bad one is a dead letter with its reason and the way back."""
    rows = batch(n=[1, -2, 3], source=["a.log"] * 3, offset=[0, 10, 20], body=["x", "y", "z"])
    kept, dead = collect_with_dead_letters(rows, MapBatches(only_positive))
    assert sorted(kept["n"]) == [1, 3]
    assert dead.rows() == [("y", "Transform", "positive", "n is -2", "a.log", 10)]


def test_rejected_rows_without_a_handler_fail_the_run_and_say_what_to_do() -> None:
    """As in Beam, errors that nobody handles stop the run; the message names row, rule and remedy."""
    with pytest.raises(RejectedRowsError, match=r"n is -2 .*rule 'positive'.*with_error_handler"):
        collect(batch(n=[1, -2]), MapBatches(only_positive))


def test_the_rules_of_transforms_hold() -> None:
    """The shared suite passes on a transform that rejects."""
    check_transform(lambda: MapBatches(only_positive), batch(n=[1, -2, 3, 4]))


def test_the_shared_suite_catches_a_transform_that_loses_rows() -> None:
    """A kernel that drops rows without saying so does not pass."""
    with pytest.raises(AssertionError, match="3 rows came in, 1 came out"):
        check_transform(lambda: MapBatches(lambda table: table.filter(pl.col("n") > 2)), batch(n=[1, 2, 3]))


def test_the_shared_suite_catches_a_transform_that_depends_on_batches() -> None:
    """A kernel whose result for a row depends on its batch does not pass."""
    mean = MapBatches(lambda table: table.with_columns(pl.col("n").mean()))
    with pytest.raises(AssertionError, match="depend on how they are batched"):
        check_transform(lambda: mean, batch(n=[1.0, 2.0, 30.0]))


@pytest.mark.parametrize(
    ("kernel", "message"),
    [
        (
            lambda table: table.select(pl.col("severty_text")),
            "Transform: there is no column 'severty_text'. Did you mean 'severity_text'",
        ),
        (lambda table: table.select(pl.col("severity_text").dt.year()), "Transform: the kernel does not fit its input"),
    ],
)
def test_a_wrong_column_fails_while_the_pipeline_is_built(kernel: object, message: str) -> None:
    """The error names the transform, the column and the nearest match, before anything runs."""
    with pytest.raises(SchemaError, match=message):
        collect(batch(severity_text=["INFO"]), MapBatches(kernel))  # type: ignore[arg-type]


def test_a_missing_extra_is_named_with_its_step() -> None:
    """What an optional dependency raises while the pipeline is built keeps its install line."""

    def missing(table: pl.DataFrame) -> pl.DataFrame:
        raise MissingExtraError("IsolationForest", "sklearn")

    with pytest.raises(MissingExtraError, match=r'Transform: .*pip install "fabric-beam\[sklearn\]"'):
        collect(batch(n=[1]), MapBatches(missing))


def test_the_output_schema_is_known_before_the_run() -> None:
    """The type hint of the output carries the kernel's schema."""
    p = beam.Pipeline(DirectRunner(), options=PipelineOptions([]))
    rows = p | beam.Create([{"n": 1}]) | ToBatches({"n": pl.Int64()})
    out = rows | MapBatches(lambda table: table.with_columns(pl.col("n").cast(pl.String).alias("text")))
    assert [f"{field.name}: {field.type}" for field in out.element_type.schema] == ["n: int64", "text: string_view"]


def test_rows_with_a_schema_are_batched_by_themselves() -> None:
    """A transform takes a PCollection of beam.Rows as it takes batches."""

    class FromRows(beam.PTransform):
        def expand(self, pcoll: beam.PCollection) -> beam.PCollection:
            return pcoll | FromBatches() | MapBatches(lambda table: table.with_columns(twice=pl.col("n") * 2))

    assert sorted(collect(batch(n=[1, 2]), FromRows()).rows()) == [(1, 2), (2, 4)]


def test_elements_without_a_schema_are_refused_with_the_way_out() -> None:
    """Plain ints are an error that says what to give instead."""
    p = beam.Pipeline(DirectRunner(), options=PipelineOptions([]))
    with pytest.raises(SchemaError, match=r"has no schema .* ToBatches"):
        p | beam.Create([1, 2]) | MapBatches(lambda table: table)


def test_dicts_that_do_not_fit_are_dead_letters() -> None:
    """A wrong type or an unknown key rejects that dict alone; a missing key is null."""

    class Dicts(beam.PTransform):
        def with_error_handler(self, handler: object) -> Dicts:
            self.handler = handler
            return self

        def expand(self, pcoll: beam.PCollection) -> beam.PCollection:
            dicts = [{"n": 1, "text": "a"}, {"n": "one"}, {"m": 1}, {"n": 2}]
            rows = pcoll | beam.FlatMap(lambda _: dicts)
            return rows | ToBatches({"n": pl.Int64(), "text": pl.String()}).with_error_handler(self.handler)

    kept, dead = collect_with_dead_letters(batch(x=[1]), Dicts())
    assert sorted(kept.rows()) == [(1, "a"), (2, None)]
    assert {"{'n': 'one'}", "{'m': 1}"} == set(dead["payload"])


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.tuples(st.text(max_size=30), st.one_of(st.none(), st.integers(-(2**62), 2**62)), st.floats(allow_nan=False)),
        max_size=30,
    )
)
def test_the_coder_gives_back_what_it_was_given(rows: list[tuple[str, int | None, float]]) -> None:
    """Batches survive Arrow IPC unchanged."""
    table = pl.DataFrame(rows, schema={"text": pl.String, "number": pl.Int64, "real": pl.Float64}, orient="row")
    assert to_batch(table).equals(BatchCoder().decode(BatchCoder().encode(to_batch(table))))


def test_the_coder_gives_back_slices_of_lists() -> None:
    """Lists whose values lie in the middle of a longer column survive too."""
    lists = pa.LargeListArray.from_arrays(pa.array([5, 7, 9], pa.int64()), pa.array(range(20)))
    table = from_batch(pa.RecordBatch.from_arrays([lists], ["list"]))
    assert table.equals(from_batch(BatchCoder().decode(BatchCoder().encode(to_batch(table)))))


def test_the_coder_sends_only_the_bytes_of_the_rows_it_is_given() -> None:
    """One row left over of many does not bring the text of all of them along."""
    table = pl.DataFrame({"body": [f"a line of text that is long enough, number {n}" for n in range(50_000)]})
    encoded = BatchCoder().encode(to_batch(table.filter(pl.col("body").str.ends_with("number 7"))))
    assert len(encoded) < 2_000
    assert from_batch(BatchCoder().decode(encoded))["body"].to_list() == [
        "a line of text that is long enough, number 7"
    ]


def test_type_hints_tell_schemas_apart() -> None:
    """Two hints are equal if, and only if, their schemas are."""
    one, same, other = (BatchOf(to_batch(batch(**{name: [1]})).schema) for name in ("a", "a", "b"))
    assert one == same
    assert hash(one) == hash(same)
    assert one != other


def test_batches_are_timestamped_by_their_least_event_time() -> None:
    """The watermark must hold for the earliest row of a batch."""
    times = [datetime(2026, 1, 1, 12, minute, tzinfo=UTC) for minute in (30, 5, 59)]

    class Stamps(beam.PTransform):
        def expand(self, pcoll: beam.PCollection) -> beam.PCollection:
            return pcoll | MapBatches(lambda table: table) | beam.Map(lambda _, at=beam.DoFn.TimestampParam: float(at))

    assert [min(times).timestamp()] == run(batch(timestamp=times), Stamps())


def test_a_kernel_that_loses_rows_unbalances_the_ledger() -> None:
    """Rows dropped without `filters=True` are named as lost; with it they are filtered."""
    for filters, problems in ((False, ["Drop: 3 rows in, but 1 out + 0 filtered + 0 rejected = 1."]), (True, [])):
        p = beam.Pipeline(DirectRunner(), options=PipelineOptions([], pickle_library="cloudpickle"))
        rows = p | beam.Create([{"n": n} for n in (1, 2, 3)]) | ToBatches({"n": pl.Int64()})
        rows | "Drop" >> MapBatches(lambda table: table.filter(pl.col("n") > 2), filters=filters)
        ledger = Ledger.from_counters(p.run().metrics().query()["counters"], ["Drop"])
        assert problems == [problem for problem in ledger.problems() if "rows in" in problem]


def test_a_kernel_may_change_its_table_in_place() -> None:
    """What it returns counts, also where that is the table it was given."""

    def rename(table: pl.DataFrame) -> pl.DataFrame:
        table.columns = ["size"]
        return table

    assert collect(batch(bytes=[1, 2]), MapBatches(rename)).to_dict(as_series=False) == {"size": [1, 2]}
