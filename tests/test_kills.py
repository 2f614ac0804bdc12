"""A few runs are killed at random events and resumed; tests/soak/ does it with every recipe."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from kills import Counts, differences, soak
from processes import Processes

COVERING = ("search", "retrain", "search_from", "rank_macro_small", "small_dso_fashion_mnist")
"""Each task, a predictor, a supernet of another run, a table of truth, and learned gates."""


@pytest.mark.soak
@pytest.mark.parametrize("run", COVERING)
def test_killed_at_random_events(run: str, processes: Processes, tmp_path: Path) -> None:
    counts = soak(processes, run, 2, 0, tmp_path, "checkpoint.steps=3")
    assert not counts.differences
    assert counts.kills >= 2
    assert counts.resumes >= 1


def test_counts_are_told_in_words() -> None:
    assert str(Counts(5, 4, 1, ["x"])) == "kills 5  resumes 4  runs 1  differences 1"


@pytest.mark.soak
def test_every_difference_is_seen(undisturbed: Path, tmp_path: Path) -> None:
    for name in (
        *("metrics.jsonl", "trials.jsonl", "architecture.json", "result.json"),
        *("supernet.safetensors", "network.safetensors"),
    ):
        other = tmp_path / name
        shutil.copytree(undisturbed, other)
        assert list(differences(undisturbed, other)) == []
        if name == "result.json":
            result = json.loads((other / name).read_text())
            (other / name).write_text(json.dumps({**result, "seconds": 0.5}))
            assert list(differences(undisturbed, other)) == []
            (other / name).write_text(json.dumps({**result, "test_accuracy": 0.5}))
        else:
            content = (other / name).read_bytes()
            (other / name).write_bytes(content[:-1])
            assert list(differences(undisturbed, other)) == [f"{name} differs"]
            (other / name).unlink()
        assert len(list(differences(undisturbed, other))) == 1
    (other / ".run.json.writing").touch()
    assert len(list(differences(undisturbed, other))) == 2
