"""Tests run side by side on few cores: one thread each, set before torch starts its own.

``make test`` leaves out what is marked ``soak``, and of a parametrised test that is marked
``few(n)`` all but n cases, evenly spread; ``make soak`` runs what was left out, and tests/soak/.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from processes import SEARCH, Processes

os.environ.setdefault("OMP_NUM_THREADS", "1")


SOAK = "NASRUN_SOAK"
"""Environment variable: whether the long tests are run, and they alone."""

settings.register_profile("same", derandomize=True)
if not os.environ.get(SOAK):  # the same examples in every run; in the soak others each time
    settings.load_profile("same")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    long = {item.nodeid for item in items if item.get_closest_marker("soak")}
    long |= {item.nodeid for item in items if "soak" in item.path.parts}
    families: dict[str, list[pytest.Item]] = {}
    for item in items:
        if item.get_closest_marker("few"):
            families.setdefault(item.nodeid.partition("[")[0], []).append(item)
    for family in families.values():
        marker = family[0].get_closest_marker("few")
        assert marker is not None
        count = min(marker.args[0], len(family))
        kept = {index * len(family) // count for index in range(count)}
        long |= {item.nodeid for index, item in enumerate(family) if index not in kept}
    soak = bool(os.environ.get(SOAK))
    config.hook.pytest_deselected(items=[i for i in items if (i.nodeid in long) != soak])
    items[:] = [item for item in items if (item.nodeid in long) == soak]


@pytest.fixture(autouse=True)
def composed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hydra composes everything twice, at first only to learn whether a file asks for a sweep; in
    the soak it does."""
    if not os.environ.get(SOAK):
        monkeypatch.setattr("hydra._internal.hydra.Hydra.get_mode", lambda self, **arguments: None)


@pytest.fixture(autouse=True)
def no_reports(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A report takes a part of a second at the end of each run; tests of reports ask for it, and
    in the soak every run has one."""
    if not os.environ.get(SOAK) and not request.node.get_closest_marker("reports"):
        monkeypatch.setattr("nasrun.cli.reporting.wanted", lambda settings: False)


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
