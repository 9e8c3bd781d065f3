"""List the named pipelines."""

from __future__ import annotations

import ast
from pathlib import Path


def main() -> None:
    """Print every pipeline and what it does."""
    print("Pipelines (python -m pipelines.NAME --help):\n")
    for path in sorted(Path(__file__).parent.glob("*.py")):
        if not path.stem.startswith("__"):
            text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
            print(f"  {path.stem:<12} {text.splitlines()[0]}")


if __name__ == "__main__":
    main()
