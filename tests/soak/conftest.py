"""The soak: long tests, run whole in a night, or as a sample that the date chooses.

make soak                              # everything
make soak SAMPLE=8                     # eight tests, others every day
make soak SAMPLE=8 DATE=2026-11-25     # those of that day again
"""

from __future__ import annotations

import os
from datetime import UTC, datetime

import pytest
from chosen import sample

SAMPLE, DATE = "NASRUN_SOAK_SAMPLE", "NASRUN_SOAK_DATE"
"""Environment variables: the number of tests (absent or empty: all), and the date in their place
of today's. Workers of pytest-xdist take both from the process that starts them."""


def pytest_configure(config: pytest.Config) -> None:
    # Set once, as the day may end before the last worker begins.
    os.environ[DATE] = os.environ.get(DATE) or datetime.now(UTC).date().isoformat()


def pytest_report_header(config: pytest.Config) -> str:
    count = os.environ.get(SAMPLE)
    date = os.environ[DATE]
    return f"soak: {count} tests chosen by DATE={date}" if count else "soak: all tests"


@pytest.hookimpl(trylast=True)  # of what tests/conftest.py has left
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if count := os.environ.get(SAMPLE):
        chosen = sample([item.nodeid for item in items], int(count), os.environ[DATE])
        config.hook.pytest_deselected(items=[i for i in items if i.nodeid not in chosen])
        items[:] = [item for item in items if item.nodeid in chosen]
