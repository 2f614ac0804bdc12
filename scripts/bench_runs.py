"""Time ``nasrun runs`` on made-up runs: python scripts/bench_runs.py [COUNT].

Each has the whole configuration of a search, as run.json holds it; every tenth is a sweep of six.
Measured on a busy machine of two cores (Python 3.11): 4 s of CPU for 10,000 runs.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from nasrun.config.compose import compose

COUNT = 10_000
"""Runs that are made."""

JOBS = 6
"""Jobs of a sweep."""


def make(folder: Path, count: int) -> None:
    """Make ``count`` runs, a tenth of them in sweeps."""
    config = compose(["task=search"])
    result = {"status": "done", "task": "search", "score": 0.5, "test_accuracy": 0.75}
    spent = {"evaluations": 50, "training_steps": 1000, "images": 64000, "device_seconds": 9.5}
    for number in range(count):
        name = f"2026-11-26_04-28-28-{number:06d}"
        if number % 10 == 0:
            (folder / f"multirun_{number // 10 // JOBS}").mkdir(exist_ok=True)
            (folder / f"multirun_{number // 10 // JOBS}" / "multirun.yaml").write_text("x: 1\n")
            name = f"multirun_{number // 10 // JOBS}/{number // 10 % JOBS}"
        run = folder / name
        run.mkdir()
        record = {
            "nasrun": "0",
            "task": "search",
            "overrides": [f"seed={number}", "sampler=uniform", "trainer.epochs=3"],
            "seed": number,
            "started": "2026-11-26T04:28:28+0000",
            "config": {**config, "seed": number},
        }
        (run / "run.json").write_text(json.dumps(record, indent=2))
        (run / "result.json").write_text(json.dumps({**result, "spent": spent}, indent=2))


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else COUNT
    with tempfile.TemporaryDirectory() as scratch:
        make(Path(scratch), count)
        for words in ([], ["seed=77"], ["--csv"]):
            began, before = time.monotonic(), os.times()
            line = [sys.executable, "-m", "nasrun", "runs", f"outputs={scratch}", *words]
            subprocess.run(line, stdout=subprocess.DEVNULL, check=True)
            after = os.times()
            cpu = after.children_user + after.children_system
            cpu -= before.children_user + before.children_system
            print(f"runs {' '.join(words):9} {time.monotonic() - began:.1f} s, {cpu:.1f} s of CPU")


if __name__ == "__main__":
    main()
