"""Every recipe is killed at random instants, resumed, and ends with the bits of an undisturbed run.

These are the longest tests. The script does the work: ``python scripts/soak_kill.py --help``.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SCRIPT = ROOT / "scripts" / "soak_kill.py"
RECIPES = sorted(path.stem for path in (ROOT / "conf" / "experiment").glob("*.yaml"))
RUNS = ["search", "retrain", "supernet", "search_from", *RECIPES]
GROUPS = [tuple(RUNS[first : first + 5]) for first in range(0, len(RUNS), 5)]
"""Tested together, as a process of the script takes seconds to import what it needs."""

KILLS = 5
"""Of each recipe's run."""


@pytest.mark.parametrize("recipes", GROUPS, ids=lambda some: some[0])
def test_killed_at_random_instants(recipes: tuple[str, ...], tmp_path: Path) -> None:
    seed = len(recipes[0])  # any, but always the same
    done = subprocess.run(
        [
            *(sys.executable, str(SCRIPT), "--kills", str(KILLS * len(recipes))),
            *("--seed", str(seed), *recipes),
        ],
        cwd=tmp_path,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for recipe in recipes:
        found = re.search(
            rf"^{recipe} +kills (\d+)  resumes (\d+)  runs (\d+)  differences 0\n",
            done.stdout,
            re.MULTILINE,
        )
        assert found, done.stdout
        kills, resumes, runs = map(int, found.groups())
        assert kills >= KILLS
        assert resumes >= 1
        assert runs >= 1


def test_the_script_sees_every_difference(undisturbed: Path, tmp_path: Path) -> None:
    specification = importlib.util.spec_from_file_location("soak_kill", SCRIPT)
    assert specification
    assert specification.loader
    script = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(script)
    for name in (
        *("metrics.jsonl", "trials.jsonl", "architecture.json", "result.json"),
        *("supernet.safetensors", "network.safetensors"),
    ):
        other = tmp_path / name
        shutil.copytree(undisturbed, other)
        assert list(script.differences(undisturbed, other)) == []
        if name == "result.json":
            result = json.loads((other / name).read_text())
            (other / name).write_text(json.dumps({**result, "seconds": 0.5}))
            assert list(script.differences(undisturbed, other)) == []
            (other / name).write_text(json.dumps({**result, "test_accuracy": 0.5}))
        else:
            content = (other / name).read_bytes()
            (other / name).write_bytes(content[:-1])
            assert list(script.differences(undisturbed, other)) == [f"{name} differs"]
            (other / name).unlink()
        assert len(list(script.differences(undisturbed, other))) == 1
    (other / ".run.json.writing").touch()
    assert len(list(script.differences(undisturbed, other))) == 2
