"""Importing is cheap, and imports go one way."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def _loaded(statement: str) -> set[str]:
    code = f"import sys; {statement}; print(*sys.modules)"
    return set(
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
        ).stdout.split()
    )


@pytest.mark.parametrize("package", ["fabric_beam", "transforms", "pipelines.parts.options", "fabric_beam.run"])
def test_what_a_command_line_needs_does_not_import_beam(package: str) -> None:
    """`--help` and usage errors must not wait for Beam, Polars or Arrow."""
    assert not {"apache_beam", "polars", "pyarrow", "numpy"} & _loaded(f"import {package}")


def test_transforms_load_no_optional_dependency() -> None:
    """Stores' clients, engines and scikit-learn are imported only where they are used."""
    loaded = _loaded(
        "from transforms import Parse, Validate, Normalize, Enrich, Filter, Aggregate, AnomalyScore;"
        "import fabric_beam.endpoints"
    )
    assert not {"sklearn", "pyspark", "pyflink", "duckdb"} & loaded


def test_imports_go_one_way() -> None:
    """fabric_beam imports neither transforms nor pipelines; transforms do not import pipelines."""
    for package, forbidden in (("fabric_beam", ("transforms", "pipelines")), ("transforms", ("pipelines",))):
        for path in (ROOT / package).glob("**/*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
                names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                assert not [name for name in names if name.partition(".")[0] in forbidden], path


def test_kernels_do_not_import_beam() -> None:
    """Formats, measures and detectors are free of Beam."""
    for folder in ("formats", "measures", "detectors"):
        for path in (ROOT / "transforms" / folder).glob("*.py"):
            assert "apache_beam" not in path.read_text(encoding="utf-8"), path
