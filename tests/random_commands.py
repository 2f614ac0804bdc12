"""Random command lines in this process: a valid run, or one clear line and exit status 2.

tests/ holds a few of them, tests/soak/ many.
"""

from __future__ import annotations

import io
import json
import os
import re
import resource
import shutil
import signal
import warnings
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hydra._internal.hydra import Hydra
from hypothesis import HealthCheck, settings
from random_lines import small_run

from nasrun.budget.candidates import Candidates
from nasrun.cli.main import main
from nasrun.config.groups import tasks
from nasrun.run.run import Run
from nasrun.task.base import Task, find_task
from nasrun.task.setup import Setup

LONGEST_LINE = 600
CPU_SECONDS = 600  # after which a command counts as hanging
MEMORY = 4 * 2**30  # bytes that a command may take


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An empty folder to work in, and a bound on memory."""
    before, limits = Path.cwd(), resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    soft = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (soft, limits[1]))
    place = tmp_path_factory.mktemp("random")
    os.chdir(place)
    yield place
    os.chdir(before)
    resource.setrlimit(resource.RLIMIT_AS, limits)


def too_long(number: int, frame: Any) -> None:
    raise AssertionError(f"has not ended after {CPU_SECONDS} s of computing")


def run(words: list[str], place: Path) -> int:
    """The exit status of the command in an empty folder; it must be 0, or 2 with one clear line.

    Before that line there may be one note.
    """
    for path in place.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    architecture = {"space": "nao_cell/small/5", "choices": [0] * 40}
    (place / "a.json").write_text(json.dumps(architecture))
    screen, errors = io.StringIO(), io.StringIO()
    signal.signal(signal.SIGPROF, too_long)
    signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
    try:
        with (
            redirect_stdout(screen),
            redirect_stderr(errors),
            warnings.catch_warnings(record=True) as warned,
        ):
            status = main(words)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    told = errors.getvalue()
    assert status in (0, 2), (words, status, told)
    assert Path.cwd() == place, words
    if status == 2:
        # A note may tell which settings of a recipe mean nothing to the chosen options.
        note, _, rest = told.partition("\n")
        told = rest if note.startswith("nasrun: note: ") else told
        assert told.startswith("nasrun: error: ") and len(told) > 20, (words, told)
        first, *others = told.splitlines()
        several = re.fullmatch(r"nasrun: error: (\d+) mistakes:", first)
        assert len(others) == (int(several[1]) if several else 0), (words, told)
        assert all(line.startswith("  ") for line in others) and told.endswith("\n"), (words, told)
        assert max(map(len, told.splitlines())) < LONGEST_LINE, (words, told)
        assert "Traceback" not in told + screen.getvalue(), words
        assert "out of memory" not in told, (words, told)
        assert not warned, (words, warned[0].message)
    return status


@pytest.fixture
def no_task(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything up to the task itself, which only looks at its setup."""

    def look(task: Task, setup: Setup, run: Run, source: Path | None) -> dict[str, Any]:
        setup.check_algo()
        setup.search_algo.bind(Candidates(setup.search_space), run.streams, run.compute.device)
        return {}

    for name in tasks():
        monkeypatch.setattr(find_task(name), "run", look)
    # Hydra would compose everything once more, only to learn that it is no sweep.
    monkeypatch.setattr(Hydra, "get_mode", lambda self, **arguments: None)


def each_of(count: int) -> settings:
    """Settings of Hypothesis: always the same ``count`` lines, however long they take."""
    return settings(
        max_examples=count,
        database=None,
        deadline=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )


def check_line(words: list[str], place: Path) -> None:
    """A line that is refused leaves nothing on the disk."""
    if run(words, place) == 2:
        assert [path.name for path in place.iterdir()] == ["a.json"], words


def check_small_run(number: int, place: Path) -> None:
    """The first line from seed ``number`` that is not refused runs to its end."""
    rng = np.random.default_rng(number)
    refused = 0
    while run(small_run(rng), place) == 2:
        refused += 1
        assert refused < 20
    (path,) = place.glob("outputs/search/*/result.json")
    assert json.loads(path.read_text())["status"] == "done"
