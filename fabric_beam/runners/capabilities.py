"""What of Beam's own runner tests an engine does not do, and why: docs/runners.md is made from this."""

from __future__ import annotations

#: Beam skips its tests of that, too.
CLEAR = "Beam's FnApiRunner fires event-time timers that were cleared (apache/beam issue 35168)"
_SESSIONS = "Prism merges windows wrongly: pipelines with such windows are refused"
_DRAIN = "Prism cannot drain a pipeline"
_METRICS = "a portable result has the user's metrics, not those of the system"
_PACKED = "Prism does not know the coder of combiners that Beam has packed together"
_TRIGGER = "Prism lacks triggers that count elements, and says so"
_STREAM = "TestStream is unbounded, and pipelines are bounded so far"

#: By engine, then by the name of Beam's test.
NOT_SUPPORTED: dict[str, dict[str, str]] = {
    "DirectRunner": {
        "test_pardo_et_timer_with_no_firing": CLEAR,
        "test_pardo_et_timer_with_no_reset": CLEAR,
        "test_deduplication_in_different_windows": _STREAM,
        "test_multi_triggered_gbk_side_input": _STREAM,
    },
    "PrismRunner": {
        "test_custom_merging_window": _SESSIONS,
        "test_windowing": _SESSIONS,
        "test_windowed_combine_per_key": _SESSIONS,
        "test_custom_window_type": "Prism has no coder for windows of other types than Beam's own",
        "test_pack_combiners": _PACKED,
        "test_run_packable_combine_globally": _PACKED,
        "test_run_packable_combine_limit": _PACKED,
        "test_run_packable_combine_per_key": _PACKED,
        "test_combine": "Prism does not know the coder of accumulators that Beam pickles",
        "test_non_liftable_combine": _TRIGGER,
        "test_multi_triggered_gbk_side_input": _TRIGGER,
        "test_deduplication_in_different_windows": "Prism hands the elements of TestStream over in another coder",
        "test_sdf_default_truncate_when_unbounded": _DRAIN,
        "test_sdf_with_truncate": _DRAIN,
        "test_element_count_metrics": _METRICS,
        "test_non_user_metrics": _METRICS,
        "test_progress_metrics": _METRICS,
        "test_user_counter_using_pardo": _METRICS,
        "test_read_metrics": "Prism names the steps of a source otherwise",
    },
    "SparkRunner": {
        "test_batch_rebatch_pardos": "a warning that a transform raises in a worker is not raised again in the client",
        "test_deduplication_in_different_windows": _STREAM,
        "test_multi_triggered_gbk_side_input": _STREAM,
    },
    "FlinkRunner": {
        "test_deduplication_in_different_windows": _STREAM,
        "test_multi_triggered_gbk_side_input": _STREAM,
    },
}
