"""What every test shares."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from hypothesis import settings

# The same examples every time, so that a change is judged by its own merits; `make soak` looks for new ones.
settings.register_profile("same", derandomize=True, deadline=None)
settings.register_profile("new", deadline=None, max_examples=2000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))

# Where the tests were started in the background, interrupts are ignored, by what they start, too: Ctrl-C is tested.
signal.signal(signal.SIGINT, signal.default_int_handler)

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
