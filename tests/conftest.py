"""Tests run side by side on few cores: one thread each, set before torch starts its own."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from processes import SEARCH, Processes

os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def processes() -> Iterator[Processes]:
    """Runs nasrun in processes of their own."""
    server = Processes()
    yield server
    server.close()


@pytest.fixture(scope="session")
def undisturbed(processes: Processes, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a search that has run from its beginning to its end."""
    place = tmp_path_factory.mktemp("undisturbed")
    done = processes.run(place, *SEARCH)
    assert done.status == 0, done.err
    return place / "run"
