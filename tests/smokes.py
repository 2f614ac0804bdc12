"""A smoke run's result: what any run of its task has found and said."""

from __future__ import annotations

import json
import re
from pathlib import Path

from processes import Done


def check_smoke(done: Done, directory: Path, task: str) -> None:
    """done: the process of a recipe's smoke; directory: its run."""
    assert done.status == 0, done.err
    result = json.loads((directory / "result.json").read_text())
    assert result["status"] == "done"
    if task == "compare":
        assert result["regret_random"] >= 0
        assert "regret (95 % interval)" in done.out
        assert (directory / "compare.png").stat().st_size > 1000
    elif task == "rank":
        assert -1 <= result["kendall"] <= 1
        assert "Kendall" in done.out
        assert (directory / "ranking.png").stat().st_size > 1000
    else:
        assert 0 <= result["test_accuracy"] <= 1
        assert "test accuracy" in done.out
        assert re.search(rf"^nasrun retrain from=\S*{directory.name} seed=1$", done.out, re.M)
