"""Run directories that are made up, for what lists and names them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

RETRAIN = {"images": "train", "truth": None}


def make_run(
    directory: Path,
    *overrides: str,
    minute: int = 0,
    task: str = "search",
    name: str | None = None,
    result: Mapping[str, Any] | None = None,
    files: tuple[str, ...] = (),
    **config: Any,
) -> Path:
    """Make a run that began at ``minute``; result: of a run that is done. Returns its directory."""
    directory.mkdir(parents=True)
    settings = {"task": task, "name": name, "retrain": RETRAIN, "shortlist": {"count": 1}, **config}
    record = {
        "task": task,
        "overrides": list(overrides),
        "seed": settings.get("seed", 0),
        "started": f"2026-11-26T04:{minute:02}:00+0000",
        "config": settings,
    }
    (directory / "run.json").write_text(json.dumps(record))
    if result is not None:
        text = json.dumps({"status": "done", "task": task, **result})
        (directory / "result.json").write_text(text)
    for file in files:
        (directory / file).write_text("{}")
    return directory


def make_sweep(directory: Path, *validation: float | None, minute: int = 0, **more: Any) -> Path:
    """Make a sweep of searches over seeds; validation: accuracy of each job, None: it stopped."""
    for number, accuracy in enumerate(validation):
        # The worst job by validation images is the best by test images.
        result = accuracy and {
            "validation_accuracy": accuracy,
            "test_accuracy": 1 - accuracy,
            "spent": {"images": 30},
            "seconds": 1.5,
        }
        words = (f"seed={number}", "sampler=uniform")
        make_run(directory / str(number), *words, minute=minute, seed=number, result=result, **more)
    (directory / "multirun.yaml").write_text("x: 1\n")
    return directory
