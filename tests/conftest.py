"""What every test shares."""

from __future__ import annotations

from pathlib import Path

import pytest

REAL_DATA = Path(__file__).parents[2] / "shared" / "data"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip the tests on recorded logs where these are not."""
    if not REAL_DATA.is_dir():
        skip = pytest.mark.skip(reason=f"the recorded logs are not here: there is no folder {REAL_DATA}")
        for item in items:
            if item.get_closest_marker("real_data"):
                item.add_marker(skip)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of recorded logs."""
    return REAL_DATA
