"""The check of a GPU, on the CPU and at its smallest: every part runs, and what fails is told."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent.parent / "scripts/check_gpu.py"


def check(into: Path, *words: str) -> tuple[int, dict[str, list[dict[str, object]]], str]:
    """Exit status, what was found, and the tables."""
    command = [sys.executable, str(SCRIPT), *words, "--into", str(into)]
    done = subprocess.run(command, capture_output=True, text=True)
    found = json.loads((into / "check_gpu.json").read_text())
    found.pop("on")
    return done.returncode, found, (into / "check_gpu.md").read_text()


@pytest.mark.soak
def test_all_parts_run_on_the_cpu(tmp_path):
    status, found, tables = check(tmp_path, "--device", "cpu", "--quick")
    assert status == 0, tables
    assert all(found.values()) and not any(
        "error" in row for rows in found.values() for row in rows
    )
    speed = found["speed"][0]
    assert speed["images/s"] > 0 and speed["target images/s"] == 40_000
    assert "## rank_table6" in tables and "**NO**" not in tables


@pytest.mark.soak
def test_a_part_that_fails_or_takes_too_long_is_told_and_the_others_go_on(tmp_path):
    words = ["equality", "bits", "--device", "cpu", "--quick", "--limit", "1"]
    _, found, tables = check(tmp_path, *words)
    assert found["equality"][-1]["told"] == found["bits"][-1]["told"] == "stopped after 1 s"
    assert "stopped after 1 s" in tables
