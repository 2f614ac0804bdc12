"""Runs that are stopped at every place, and on a disk that is full at every operation."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from processes import SEARCH, Fault, Processes
from resuming import (
    HUP,
    INT,
    KILL,
    TERM,
    check_full_disk,
    check_second_signal,
    check_stopped,
    check_stopped_again_and_again,
    go_on,
)

SAFE_POINTS = range(1, 41)
"""Of the search: it has fewer, and a signal after the last one does nothing."""


@pytest.mark.parametrize(
    ("number", "method", "stage", "count"),
    [
        (TERM, "safe_point", "supernet/round0", 2),
        (INT, "safe_point", "supernet/round0", 3),
        (HUP, "poll", "score/round0", 1),  # while the first architecture is scored
        (INT, "safe_point", "score/round0", 4),
        (TERM, "safe_point", "predictor/round1", 1),
        (INT, "safe_point", "supernet/round1", 1),
        (TERM, "safe_point", "score/round1", 3),
        (INT, "safe_point", "standalone/*", 6),
        (TERM, "safe_point", "shortlist", 1),
        (INT, "safe_point", "retrain", 2),
        (TERM, "poll", "", 3),  # while the winner is measured
    ],
    ids=lambda value: value.name if isinstance(value, signal.Signals) else str(value),
)
def test_a_signal_in_every_stage(
    number: signal.Signals,
    method: str,
    stage: str,
    count: int,
    processes: Processes,
    undisturbed: Path,
    tmp_path: Path,
) -> None:
    check_stopped(processes, tmp_path, undisturbed, number, method, stage, count)


@pytest.mark.parametrize("count", SAFE_POINTS)
@pytest.mark.parametrize("number", [TERM, KILL], ids=["stop", "kill"])
def test_the_end_of_a_process_at_every_safe_point(
    number: int, count: int, processes: Processes, undisturbed: Path, tmp_path: Path
) -> None:
    fault = ("signal_at", [number, "safe_point", "*", count])
    done = processes.run(tmp_path, *SEARCH, "checkpoint.steps=3", faults=[fault])
    if done.status:
        assert done.status == (-KILL if number == KILL else 128 + number)
    go_on(processes, tmp_path, undisturbed)


@pytest.mark.parametrize("every", [2, 3, 4, 5])
def test_stopped_again_and_again(
    every: int, processes: Processes, undisturbed: Path, tmp_path: Path
) -> None:
    assert check_stopped_again_and_again(processes, tmp_path, undisturbed, every) >= 6


@pytest.mark.parametrize("numbers", [(INT, INT), (TERM, INT), (HUP, TERM)])
def test_a_second_signal_stops_at_once(
    numbers: tuple[int, int], processes: Processes, undisturbed: Path, tmp_path: Path
) -> None:
    check_second_signal(processes, tmp_path, undisturbed, numbers)


@pytest.mark.parametrize(
    "fault",
    [
        *(("largest_file", [size]) for size in (1000, 20_000, 50_000)),
        *(("no_space", [count]) for count in range(1, 61)),
    ],
    ids=str,
)
def test_a_disk_that_is_full_at_every_fsync(
    fault: Fault, processes: Processes, undisturbed: Path, tmp_path: Path
) -> None:
    check_full_disk(processes, tmp_path, undisturbed, fault)
