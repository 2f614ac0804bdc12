"""Every recipe's run is killed at random events, resumed, and ends with an undisturbed one's bits.

``python scripts/soak_kill.py --help`` does the same with other numbers, and on a GPU.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from kills import RUNS, soak
from processes import Processes

KILLS = 5


@pytest.mark.parametrize("run", RUNS)
def test_killed_at_random_events(run: str, processes: Processes, tmp_path: Path) -> None:
    counts = soak(processes, run, KILLS, 0, tmp_path, "checkpoint.steps=3")
    assert not counts.differences
    assert counts.kills >= KILLS
    assert counts.resumes >= 1
    assert counts.runs >= 1
