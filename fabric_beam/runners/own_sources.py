"""The code that workers elsewhere need and do not have installed."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path


def own_sources() -> list[Path]:
    """Top-level packages and modules that are loaded and not installed: the project's and the user's own."""
    installed = tuple({str(Path(p).resolve()) for p in (sys.prefix, sys.base_prefix)})
    found = set()
    for name in {name.partition(".")[0] for name in list(sys.modules)} | {"fabric_beam", "transforms", "pipelines"}:
        if name in ("__main__", "__mp_main__"):
            continue
        with contextlib.suppress(ValueError, ImportError):
            spec = find_spec(name)
            if spec is None:
                continue
            paths = list(spec.submodule_search_locations or []) or ([spec.origin] if spec.origin else [])
            for path in paths:
                if path.endswith(".py") or Path(path).is_dir():
                    resolved = Path(path).resolve()
                    inside = str(resolved).startswith(installed)
                    if not inside or (
                        name in ("fabric_beam", "transforms", "pipelines") and "site-packages" not in path
                    ):
                        found.add(resolved)
    return sorted(found)


def own_files() -> Iterator[tuple[Path, Path]]:
    """Each of their files, and its name in a folder that is to be imported from.

    What is kept of compiled loops goes with them: numba knows by the source's contents and the processor whether it
    holds elsewhere, and compiling takes a worker half a minute.
    """
    for source in own_sources():
        for file in sorted(source.rglob("*")) if source.is_dir() else [source]:
            if file.is_file() and ("__pycache__" not in file.parts or file.suffix in (".nbi", ".nbc")):
                yield file, file.relative_to(source.parent)
