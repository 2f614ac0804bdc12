"""The pictures of a sweep of rankings, from files with known numbers."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nasrun.report import sweep, sweep_rankings
from nasrun.report.run_files import job_files
from nasrun.report.run_ranking import Ranking
from nasrun.report.sweep_rankings import chosen, plot

SCORES = [0.1, 0.3, 0.2, 0.4, 0.5]
TRUTH = [0.80, 0.82, 0.81, 0.83, 0.79]
TAU = {"value": 0.2, "low": -0.6, "high": 1.0}
ALSO = {
    "axis": "nearness",
    "logarithm": True,
    "epochs": {
        "10": {
            "with_scores": {"value": 0.123, "low": 0.1, "high": 0.2},
            "with_truth": {"value": 0.456, "low": 0.4, "high": 0.5},
        }
    },
}


def ranked(
    folder: Path,
    *overrides: str,
    scores: list[float] = SCORES,
    truth: list[float] = TRUTH,
    also: dict[str, Any] | None = None,
    epochs: tuple[str, ...] = ("10", "5"),
) -> Path:
    """A job of a sweep; its ranking is that of epoch 10, whatever the order of the epochs."""
    folder.mkdir(parents=True)
    columns: dict[str, list[Any]] = {
        "architecture": [f"a{index}" for index in range(len(scores))],
        "params": [1_000_000 * (index + 1) for index in range(len(scores))],
        "truth": truth,
        **{f"score_{epoch}": scores if epoch == "10" else truth for epoch in epochs},
    }
    if also is not None:
        columns["also_10"] = [math.exp(-score) for score in scores]
    with (folder / "ranking.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
    report = {"confidence": 0.9, "agreement": {"kendall": TAU}}
    content: dict[str, Any] = {"epochs": dict.fromkeys(epochs, report)}
    if also is not None:
        content["also"] = also
    (folder / "ranking.json").write_text(json.dumps(content))
    seeds = [int(word[5:]) for word in overrides if word.startswith("seed=")] or [0]
    (folder / "run.json").write_text(json.dumps({"seed": seeds[0], "overrides": overrides}))
    (folder / "result.json").write_text(json.dumps({"status": "done", "overrides": overrides}))
    return folder


def combinations(folder: Path) -> dict[str, list[Path]]:
    found = sweep.combinations(sweep.read_jobs(folder))
    return {name: [job.directory for job in members] for name, members in found.items()}


def ranking_of(directory: Path) -> Ranking | None:
    return job_files(directory).ranking


def text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def test_what_a_job_has_measured(tmp_path: Path) -> None:
    found = ranking_of(ranked(tmp_path / "0", "seed=3", also=ALSO))
    assert found is not None and found.second is not None
    assert found.scores.tolist() == SCORES and found.truth.tolist() == TRUTH
    assert found.params.tolist() == [1, 2, 3, 4, 5]
    assert (found.tau.value, found.confidence, found.seed) == (0.2, 0.9, 3)
    assert found.second.values == pytest.approx([-score for score in SCORES])
    assert found.second.with_truth.value == 0.456
    plain = ranking_of(ranked(tmp_path / "1", also={**ALSO, "logarithm": False}))
    assert plain is not None and plain.second is not None
    assert plain.second.values == pytest.approx(np.exp(-np.array(SCORES)))


def broken(folder: Path, name: str, content: str) -> Path:
    (ranked(folder) / name).write_text(content)
    return folder


def test_what_is_no_ranking_is_passed_over(tmp_path: Path) -> None:
    jobs = [
        broken(tmp_path / "0", "ranking.csv", "architecture,truth\n"),
        broken(tmp_path / "1", "ranking.csv", "truth,score_10,params\n0.1,,3\n"),
        broken(tmp_path / "2", "ranking.csv", "truth,score_10,params\n0.1,nan,3\n"),
        broken(tmp_path / "3", "ranking.json", "[1]"),
        broken(tmp_path / "4", "ranking.json", '{"epochs": {}}'),
        broken(tmp_path / "5", "ranking.json", '{"epochs": {"x": {}}}'),
        broken(tmp_path / "6", "run.json", "{"),
        tmp_path / "7",
    ]
    (tmp_path / "8").mkdir()
    assert [ranking_of(job) for job in [*jobs, tmp_path / "8"]] == [None] * 9
    assert plot({"a": jobs}, tmp_path) == []
    assert plot({"a": [*jobs, ranked(tmp_path / "9")]}, tmp_path) == []  # one is no comparison
    assert plot({}, tmp_path) == []
    assert not list(tmp_path.glob("*.png"))


def test_a_panel_for_each_rate(tmp_path: Path) -> None:
    for job, rate in enumerate(("0.01", "0.1", "0.5")):
        ranked(tmp_path / str(job), f"sampler.rate={rate}", "threads=1")
    files = plot(combinations(tmp_path), tmp_path)
    assert {path.name for path in files} == {
        f"{name}.{suffix}" for name in ("rankings", "spread") for suffix in ("png", "svg")
    }
    assert all(path.stat().st_size > 5000 for path in files)
    panels, spread = text(tmp_path / "rankings.svg"), text(tmp_path / "spread.svg")
    assert "threads" not in panels and "90 % intervals" in panels and "jobs" not in panels
    for rate in ("0.01", "0.1", "0.5"):
        assert f"<!-- sampler.rate={rate} -->" in panels
        assert f"<!-- sampler.rate={rate} -->" in spread
    assert panels.count("τ-b 0.200 (-0.600 to 1.000), n = 5") == 3
    assert spread.count("<!-- truth") == 1  # which all of them share


@pytest.mark.soak
def test_second_scores_have_pictures_of_their_own(tmp_path: Path) -> None:
    ranked(tmp_path / "0", "sampler.rate=0.1", also=ALSO)
    ranked(tmp_path / "1", "sampler.rate=0.5", also=ALSO)
    ranked(tmp_path / "2", "sampler.rate=0.9")
    assert len(plot(combinations(tmp_path), tmp_path)) == 8
    scores, truth = text(tmp_path / "also_scores.svg"), text(tmp_path / "also_truth.svg")
    assert "nearness" in scores and "nearness" in truth
    assert scores.count("τ-b 0.123") == 2 and "0.456" not in scores
    assert truth.count("τ-b 0.456") == 2 and "0.123" not in truth
    assert "rate=0.9" not in scores and "rate=0.9" in text(tmp_path / "rankings.svg")


@pytest.mark.soak
def test_seeds_are_told_apart(tmp_path: Path) -> None:
    for job, (rate, seed) in enumerate(((0.1, 0), (0.1, 1), (0.5, 0))):
        truth = [accuracy + seed / 100 for accuracy in TRUTH]
        ranked(tmp_path / str(job), f"rate={rate}", f"seed={seed}", truth=truth)
    found, count = chosen(combinations(tmp_path))
    assert list(found) == ["rate=0.1 seed=0", "rate=0.1 seed=1", "rate=0.5"] and count == 3
    assert list(sweep_rankings.distinct(found)) == [
        "truth, rate=0.1 seed=0",
        "truth, rate=0.1 seed=1",
    ]
    plot(combinations(tmp_path), tmp_path)
    assert text(tmp_path / "spread.svg").count("<!-- truth") == 2


@pytest.mark.soak
def test_no_combination_goes_short_where_there_are_many_jobs(tmp_path: Path) -> None:
    """Four rates of three seeds: the first two seeds of each have room, and one third."""
    for job in range(12):
        ranked(tmp_path / str(job), f"rate={job // 3}", f"seed={job % 3}")
    found, count = chosen(combinations(tmp_path))
    assert count == 12
    expected = [f"rate={job // 3} seed={job % 3}" for job in range(12)]
    assert list(found) == [name for name in expected if name[-1] != "2" or name[5] == "0"]
    plot(combinations(tmp_path), tmp_path)
    panels = text(tmp_path / "rankings.svg")
    assert "9 of 12 jobs" in panels and panels.count("n = 5") == 9


def test_jobs_that_differ_in_nothing_but_the_seed(tmp_path: Path) -> None:
    ranked(tmp_path / "0", "seed=4")
    ranked(tmp_path / "1", "seed=5")
    assert list(chosen(combinations(tmp_path))[0]) == ["seed=4", "seed=5"]
    assert list(chosen({"": [ranked(tmp_path / "2")]})[0]) == ["all"]
    same = chosen({"": [tmp_path / "0", tmp_path / "0"]})[0]
    assert len(same) == 2
