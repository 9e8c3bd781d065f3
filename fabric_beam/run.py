"""Run a named pipeline: progress while it runs, the ledger when it ends, an exit code that tells how it went."""

from __future__ import annotations

import atexit
import contextlib
import gc
import json
import logging
import os
import shutil
import signal
import sys
import threading
import time
import warnings
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fabric_beam.errors import FabricBeamError, OutputError, UsageError
from fabric_beam.interrupts import Interrupts

if TYPE_CHECKING:
    from fabric_beam.ledger import Ledger

DONE, FAILED, USAGE, UNBALANCED = 0, 1, 2, 3

_INTERVAL_SECONDS = 10.0


def main(
    parse: Callable[[Sequence[str]], tuple[Namespace, list[str]]],
    build: Callable[[Any, Namespace], Callable[[Ledger, float], list[str]] | None],
    argv: Sequence[str] | None = None,
) -> int:
    """Run a named pipeline from its command line.

    Args:
        parse: takes the arguments; returns the pipeline's options, among them `runner`, `dry_run`, `ledger` (a path or
            empty) and `debug`, and Beam's arguments.
        build: assembles the pipeline; what it returns, if anything, is called with the ledger and the seconds once the
            run is over, and returns lines for the summary.
        argv: the arguments; those of the process by default.

    Returns:
        The exit code: 0 done and balanced, 1 failed, 2 usage, 3 the ledger does not balance.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        with Interrupts():
            options, beam_arguments = parse(arguments)
            return _run(build, options, beam_arguments)
    except BrokenPipeError:
        # Who reads our output has seen enough, as `head` has.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except KeyboardInterrupt:
        # Again, it ends the process at once.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        _say("interrupted: the output is not complete. The same command again replaces what there is.")
        # Worker threads would go on reading to the end, which Python waits for; what they write is already gone.
        atexit._run_exitfuncs()
        sys.stderr.flush()
        os._exit(130)
    except Exception as error:
        if "--debug" in arguments:
            raise
        from fabric_beam.runners.failures import ours

        cause = ours(error) or error
        _say(f"error: {_message(cause)}")
        if not isinstance(cause, FabricBeamError):
            _say("This was not expected. --debug shows where it happened.")
        return USAGE if isinstance(cause, UsageError) else FAILED
    finally:
        gc.enable()


def _message(error: BaseException) -> str:
    text = str(error).partition(" [while running '")[0]
    return text if isinstance(error, FabricBeamError) else f"{type(error).__name__}: {text}"


def _say(text: str) -> None:
    print(text, file=sys.stderr)


def _run(build: Callable[..., Any], options: Namespace, beam_arguments: list[str]) -> int:
    if not options.debug:
        warnings.filterwarnings("ignore")
        logging.getLogger("apache_beam").setLevel(logging.CRITICAL)
    # What is imported stays: looking through it for garbage, again and again, is a quarter of the time to start.
    gc.disable()
    # Nor when the process ends, where that takes another second.
    atexit.register(gc.freeze)
    from fabric_beam.runners import runner, start

    if not options.dry_run:
        start(options.runner, beam_arguments)
    import apache_beam as beam
    from apache_beam.options.pipeline_options import PipelineOptions

    from fabric_beam import graph
    from fabric_beam.batches import schema_to_text
    from fabric_beam.ledger import Ledger

    if options.ledger:
        check_text(options.ledger)
    # dill, the default of older Beam, loses the globals of `__main__`.
    beam_options = PipelineOptions(beam_arguments, pickle_library="cloudpickle")
    pipeline = beam.Pipeline(runner=runner(options.runner, beam_arguments), options=beam_options)
    # Beam removes it after a run, not when there is none.
    atexit.register(shutil.rmtree, pipeline.local_tempdir, ignore_errors=True)
    report = build(pipeline, options)
    gc.freeze()
    gc.enable()
    if options.dry_run:
        for label, hint in graph.plan(pipeline):
            print(label)
            for field in hint.schema if hint else ():
                print(f"    {field.name}: {field.type}")
        if options.runner in ("SparkRunner", "FlinkRunner"):
            from fabric_beam.runners.plan import plan

            print(f"\nThe stages of {options.runner}:\n{plan(pipeline, engine=options.runner).describe()}")
        return DONE

    sinks = graph.sinks(pipeline)
    started = time.monotonic()
    try:
        for sink in sinks.values():
            sink.sink.prepare()
        with _progress():
            result = pipeline.run()
            result.wait_until_finish()
    finally:
        # After a run that went well, too: an engine that lost a process may write files anew that nobody waits for.
        for sink in sinks.values():
            sink.sink.clean_up()
    seconds = time.monotonic() - started

    datasets = {label: (sink.dataset, sink.url) for label, sink in sinks.items() if sink.dataset}
    events = next((label for label, (dataset, _) in datasets.items() if dataset == "events"), "")
    counters = result.metrics().query()["counters"]
    ledger = Ledger.from_counters(counters, graph.path_to(pipeline, events) if events else [], datasets)
    lines = report(ledger, seconds) if report else []
    if options.ledger:
        # What `pipelines.replay` needs to make rows of dead letters.
        schemas = {sink.dataset: schema_to_text(sink.schema) for sink in sinks.values() if sink.dataset and sink.schema}
        account = {**ledger.as_dict(), "seconds": round(seconds, 3), "schemas": schemas}
        write_text(options.ledger, json.dumps(account, indent=2))
    _summarise(ledger, seconds, lines)
    return UNBALANCED if ledger.problems() else DONE


def write_text(path: str, text: str) -> None:
    """Write a text file, whole or not at all, making its folder.

    Raises:
        OutputError: if it cannot be written.
    """
    file = Path(path)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary = file.with_name(f".{file.name}.tmp")
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(file)
    except OSError as error:
        raise OutputError(
            f"Cannot write {path}: {error.strerror or error}. Check the folder and its permissions."
        ) from error


def check_text(path: str) -> None:
    """Make sure, before a run, that `write_text` can write a file when it is over; nothing is made.

    Raises:
        OutputError: if it cannot.
    """
    folder = next(parent for parent in Path(path).absolute().parents if parent.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(f"Cannot write {path}: {str(folder)!r} is not a folder that you may write to.")


@contextlib.contextmanager
def _progress() -> Iterator[None]:
    """A bar on a terminal, a line at intervals elsewhere, for as long as the run lasts."""
    stop = threading.Event()
    thread = threading.Thread(target=_bar if sys.stderr.isatty() else _lines, args=(stop,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _bar(stop: threading.Event) -> None:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    from fabric_beam.progress import PROGRESS

    columns = (
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TextColumn("{task.fields[rows]:,} rows"),
        TextColumn("{task.fields[speed]:,.0f} rows/s"),
        TextColumn("{task.fields[dead]:,} dead letters"),
        TimeRemainingColumn(),
    )
    started = time.monotonic()
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None, rows=0, speed=0, dead=0)
        while not stop.wait(0.2):
            speed = PROGRESS.rows / max(time.monotonic() - started, 1e-9)
            bar.update(
                task,
                total=PROGRESS.total or None,
                completed=PROGRESS.bytes,
                rows=PROGRESS.rows,
                speed=speed,
                dead=PROGRESS.dead_letters,
            )


def _lines(stop: threading.Event) -> None:
    from fabric_beam.progress import PROGRESS

    started = time.monotonic()
    while not stop.wait(_INTERVAL_SECONDS):
        seconds = time.monotonic() - started
        share = f" ({PROGRESS.bytes / PROGRESS.total:.0%})" if PROGRESS.total else ""
        _say(
            f"{seconds:.0f} s: {PROGRESS.rows:,} rows, {PROGRESS.rows / seconds:,.0f} rows/s, "
            f"{PROGRESS.bytes / 1e6:,.0f} MB{share}, {PROGRESS.dead_letters:,} dead letters"
        )


def _summarise(ledger: Ledger, seconds: float, lines: Sequence[str]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(stderr=True)
    read = ledger.count("read")
    table = Table(title=f"{read:,} rows in {seconds:.1f} s ({read / max(seconds, 1e-9):,.0f} rows/s)")
    table.add_column("step")
    for role in ("in", "out", "filtered", "rejected"):
        table.add_column(role, justify="right")
    for step in ledger.path:
        roles = ledger.steps.get(step, {})
        if "in" in roles:
            table.add_row(step, *(f"{roles.get(role, 0):,}" for role in ("in", "out", "filtered", "rejected")))
    console.print(table)
    for dataset, urls in ledger.written.items():
        for url, rows in urls.items():
            console.print(f"{dataset}: {rows:,} rows to {url}", markup=False, highlight=False)
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    problems = ledger.problems()
    for problem in problems:
        console.print(f"NOT BALANCED: {problem}", style="bold red", markup=False)
    if not problems:
        console.print("The ledger balances: every row is accounted for.", style="green")
