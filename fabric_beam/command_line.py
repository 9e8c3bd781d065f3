"""The command line of named pipelines: parsed and checked before Beam is imported, which takes seconds."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import NoReturn

from fabric_beam import runner_config
from fabric_beam.errors import UsageError, nearest

RUNNERS = (
    "DirectRunner",
    "DataflowRunner",
    "FlinkRunner",
    "FnApiRunner",
    "PortableRunner",
    "PrismRunner",
    "SparkRunner",
)


class Parser(argparse.ArgumentParser):
    """An argparse parser that raises `UsageError` with the nearest option instead of printing its whole usage."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}. See {self.prog} --help.")

    def parse(self, argv: list[str]) -> tuple[argparse.Namespace, list[str]]:
        """Parse arguments; those that are not ours must be Beam's.

        Args:
            argv: the arguments.

        Returns:
            Our options, and the arguments for Beam's `PipelineOptions`.

        Raises:
            UsageError: an option is neither ours nor Beam's, or a value is wrong.
        """
        config, argv = _CONFIG.parse_known_args(argv)
        if config.runner_config:
            argv = [*runner_config.arguments(config.runner_config), *argv]
        options, rest = self.parse_known_args(argv)
        known = {
            name for action in self._actions for name in action.option_strings if name.startswith("--")
        } | beam_options()
        for argument in rest:
            if not argument.startswith("-"):
                continue
            name = argument.partition("=")[0]
            if name not in known:
                close = nearest(name, known).partition(" Known:")[0]
                close = close if close.startswith("Did you mean") else "See --help for ours; Beam's own are known too."
                raise UsageError(f"There is no option {name}. {close}")
        return options, rest


def add_running(parser: Parser) -> None:
    """Add the options that every pipeline takes: where and how it runs."""
    add = parser.add_argument_group("running").add_argument
    add(
        "--runner",
        type=runner,
        default="DirectRunner",
        help="DirectRunner, SparkRunner, FlinkRunner, PrismRunner, or another of Beam's (%(default)s)",
    )
    add("--runner_config", metavar="FILE", help="options of one way to run, in YAML, such as runner_configs/*.yaml")
    add("--dry_run", action="store_true", help="print the steps and the schema after each, and stop")
    add("--debug", action="store_true", help="show tracebacks")


_CONFIG = Parser(add_help=False, allow_abbrev=False)
_CONFIG.add_argument("--runner_config")


def beam_options() -> set[str]:
    """The names of Beam's own pipeline options and of our runners', read from source: importing it takes seconds."""
    spec = find_spec("apache_beam")
    assert spec is not None and spec.origin is not None
    sources = [Path(spec.origin).parent / "options" / "pipeline_options.py"]
    sources += (Path(__file__).parent / "runners").rglob("*.py")
    return {name for file in sources for name in re.findall(r"""['"](--\w+)['"]""", file.read_text(encoding="utf-8"))}


def one_of(what: str, known: Iterable[str]) -> Callable[[str], str]:
    """An argparse type that takes one of some names.

    Args:
        what: what the names are of, for the message.
        known: the names.

    Example:
        >>> one_of("format", ["combined", "json"])("jsn")
        Traceback (most recent call last):
        fabric_beam.errors.UsageError: There is no format 'jsn'. Did you mean 'json'? Known: combined, json.
    """

    def check(name: str) -> str:
        if name not in known:
            raise UsageError(f"There is no {what} {name!r}. {nearest(name, known)}")
        return name

    return check


def runner(name: str) -> str:
    """Check the name of a runner, or the dotted path of a class.

    Raises:
        UsageError: there is no such runner.
    """
    return name if "." in name else one_of("runner", RUNNERS)(name)
