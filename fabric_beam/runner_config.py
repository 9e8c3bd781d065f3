"""Runner configurations: YAML files that hold the options of one way to run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fabric_beam.errors import UsageError, nearest


def arguments(path: str | Path) -> list[str]:
    """Read a runner configuration as command-line arguments.

    Args:
        path: a YAML file, a mapping of options to values: a list gives an option several times, `true` gives one
            without a value, `false` and null leave it out.

    Returns:
        The arguments, to be put before those that the command line has, which win.

    Raises:
        UsageError: it cannot be read, or is no such mapping.

    Example:
        >>> import tempfile
        >>> with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        ...     _ = file.write("runner: SparkRunner\\nspark_master: local[2]\\nstreaming: true\\n")
        ...     file.flush()
        ...     arguments(file.name)
        ['--runner=SparkRunner', '--spark_master=local[2]', '--streaming']
    """
    import yaml

    path = Path(path)
    try:
        options = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        others = [str(other) for other in sorted(path.parent.glob("*.yaml"))]
        problem = f"Cannot read the runner configuration {path}: {error.strerror}. {nearest(str(path), others)}"
        raise UsageError(problem) from error
    except (ValueError, yaml.YAMLError) as error:
        raise UsageError(f"{path} is not readable as YAML: {error}") from error
    if not isinstance(options, dict) or not all(isinstance(name, str) for name in options):
        raise UsageError(f"{path}: a mapping of options to values expected, such as `runner: SparkRunner`.")
    return [argument for name, value in options.items() for argument in _one(path, name, value)]


def _one(path: Path, name: str, value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        raise UsageError(f"{path}: {name}: one value or a list of values expected, not a mapping.")
    for each in value if isinstance(value, list) else [value]:
        if each is True:
            yield f"--{name}"
        elif each is not None and each is not False:
            yield f"--{name}={each}"
