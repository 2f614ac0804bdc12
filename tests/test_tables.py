"""The scripts of the papers' tables, and the curves of a sweep, over sweeps with known numbers."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

from nasrun.report import sweep, sweep_rankings

SCRIPTS = Path(__file__).parent.parent / "scripts"


def ranked(folder: Path, overrides: list[str], tau: dict[int, float | None]) -> None:
    """A job of a sweep with a ranking of tau-b ``tau`` by epoch; pairs are (tau + 1) / 2."""
    folder.mkdir(parents=True)
    report = {
        str(epoch): {
            "agreement": {
                "kendall": {
                    "value": value,
                    "low": None if value is None else value - 0.1,
                    "high": None if value is None else value + 0.1,
                },
                "pairwise_accuracy": {
                    "value": None if value is None else (value + 1) / 2,
                    "low": None,
                    "high": None,
                },
            }
        }
        for epoch, value in tau.items()
    }
    (folder / "ranking.json").write_text(json.dumps({"epochs": report}))
    result = {"status": "done", "kendall": (last := list(tau.values())[-1])}
    result |= {"overrides": overrides}
    if last is not None:
        result["pairwise_accuracy"] = (last + 1) / 2
    (folder / "result.json").write_text(json.dumps(result))


@pytest.fixture
def rankings(tmp_path: Path) -> Path:
    ranked(tmp_path / "0", ["sampler=uniform", "seed=0"], {5: 0.2, 50: 0.4})
    ranked(tmp_path / "1", ["sampler=uniform", "seed=1"], {5: 0.4, 50: 0.6})
    ranked(tmp_path / "2", ["sampler=proportional", "seed=0"], {5: 0.5, 50: 0.8})
    return tmp_path


def printed(script: str, *words: str) -> str:
    command = [sys.executable, str(SCRIPTS / script), *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return " ".join(done.stdout.split())


@pytest.fixture
def lengths(tmp_path: Path) -> Path:
    """A sweep of trainings of 5 and 50 epochs; one has been looked into after 5 of its 50."""
    for number, (sampler, epochs, seed, tau) in enumerate(
        [
            *(("uniform", 5, 0, {5: 0.2}), ("uniform", 5, 1, {5: 0.4})),
            *(("uniform", 50, 0, {5: -1.0, 50: 0.5}), ("proportional", 50, 0, {50: 0.8})),
        ]
    ):
        words = [f"sampler={sampler}", f"trainer.epochs={epochs}", f"seed={seed}"]
        ranked(tmp_path / str(number), words, tau)
    return tmp_path


def test_table2_and_6(lengths: Path) -> None:
    text = printed("table6.py", "--of", str(lengths))
    assert "5 62 65.00 ± 7.07 (n=2) 69 - " in text
    assert "10 65 - 72 -" in text
    assert "50 76 75.00 (n=1) 78 90.00 (n=1)" in text
    text = printed("table2.py", "--of", str(lengths))
    assert "50 76 82.50 ± 10.61 (n=2)" in text


def test_lengths_are_one_line_of_trainings_of_their_own(lengths: Path) -> None:
    jobs = sweep.combinations(sweep.read_jobs(lengths))
    folders = {name: [job.directory for job in members] for name, members in jobs.items()}
    curves = sweep_rankings.tau_by_epoch(folders)
    values = {name: [(e, found.value) for e, found in line] for name, line in curves.items()}
    assert values == {
        "sampler=uniform": [(5, pytest.approx(0.3)), (50, pytest.approx(0.5))],
        "sampler=proportional": [(50, pytest.approx(0.8))],
    }


def test_table3(tmp_path: Path) -> None:
    word = "architectures@rank.architectures=similar_size"
    ranked(tmp_path / "0", [word], {5: 0.5})
    text = printed("table3.py", "--of", str(tmp_path))
    assert "uniform 62 - similar_size 73 75.00 (n=1)" in text


def test_table7(tmp_path: Path) -> None:
    for job, accuracy in enumerate((0.97, 0.98)):
        folder = tmp_path / str(job)
        folder.mkdir()
        result = {"status": "done", "test_accuracy": accuracy, "overrides": [f"seed={job}"]}
        (folder / "result.json").write_text(json.dumps(result))
    text = printed("table7.py", "--of", str(tmp_path))
    assert "0 2.60 3.00 1 2.63 2.00" in text
    assert "2.67 ± 0.07 (n=5) 2.50 ± 0.71 (n=2)" in text


def test_table1(tmp_path: Path) -> None:
    accuracies = {"enas_cifar10": (0.97, 0.98), "darts_cifar10": (0.96,)}
    number = 0
    for recipe, values in accuracies.items():
        for seed, accuracy in enumerate(values):
            folder = tmp_path / str(number)
            folder.mkdir()
            words = [f"experiment={recipe}", f"seed={seed}"]
            result = {"status": "done", "test_accuracy": accuracy, "overrides": words}
            (folder / "result.json").write_text(json.dumps(result))
            number += 1
    text = printed("table1.py", "--of", str(tmp_path))
    assert "ENAS 2.89 2.98 ± 0.12 (n=5) 2.50 ± 0.71 (n=2)" in text
    assert "DARTS 2.83 2.96 ± 0.08 (n=5) 4.00 (n=1)" in text
    assert "NAO-WS 2.93 2.98 ± 0.06 (n=5) -" in text


def test_a_sweep_without_jobs_is_told(tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPTS / "table2.py"), "--of", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "has no job that ended well" in done.stderr


def test_curves_of_a_sweep(rankings: Path) -> None:
    jobs = sweep.combinations(sweep.read_jobs(rankings))
    folders = {name: [job.directory for job in members] for name, members in jobs.items()}
    curves = sweep_rankings.tau_by_epoch(folders)
    assert list(curves) == ["sampler=uniform", "sampler=proportional"]
    (epoch, first), (_, last) = curves["sampler=uniform"]
    assert epoch == 5
    assert (first.value, last.value) == pytest.approx((0.3, 0.5))
    assert (first.low, first.high) == pytest.approx((0.3 - 0.02**0.5, 0.3 + 0.02**0.5))
    single = curves["sampler=proportional"][0][1]
    assert (single.low, single.value, single.high) == pytest.approx((0.4, 0.5, 0.6))
    drawn = sweep_rankings.plot_tau(folders, rankings)
    assert sorted(path.suffix for path in drawn) == [".png", ".svg"]
    assert all(path.stat().st_size > 1000 for path in drawn)


def test_no_curves_without_rankings(tmp_path: Path) -> None:
    (tmp_path / "0").mkdir()
    assert sweep_rankings.plot_tau({"": [tmp_path / "0"]}, tmp_path) == []
    (tmp_path / "0/ranking.json").write_text('{"epochs": {"5": {"agreement": 3}}}')
    assert sweep_rankings.plot_tau({"": [tmp_path / "0"]}, tmp_path) == []
    ranked(tmp_path / "1", [], {5: None, 6: 0.5})
    ((_, undefined), _) = sweep_rankings.tau_by_epoch({"": [tmp_path / "1"]})["all"]
    assert math.isnan(undefined.value)
    assert len(sweep_rankings.plot_tau({"": [tmp_path / "1"]}, tmp_path)) == 2


@pytest.mark.soak
def test_dso_control(tmp_path: Path) -> None:
    """Three seeds that keep the same five edges of 28, and are 0 to 3 points better than chance."""
    choices = {"dso": [], "penalty": [], "random": range(28, 32)}
    best = [8, 20, 21, 22, 23]  # edges of blocks; what a penalty alone leaves is empty
    for folder, kept in {**choices, "dso": best}.items():
        for seed, points in enumerate((0, 0.01, 0.03)):
            run = tmp_path / folder / str(seed)
            run.mkdir(parents=True)
            opened = [int(place in kept) for place in range(32)]
            result = {
                "status": "done",
                "overrides": [],
                "architecture": {"space": "dso_block", "choices": opened},
                "params": 1000 * len(kept),
                "test_accuracy": 0.8 + (points if folder == "dso" else 0),
            }
            (run / "result.json").write_text(json.dumps(result))
            (run / "run.json").write_text(json.dumps({"seed": seed}))
    text = printed("dso_control.py", "--of", str(tmp_path), "effort=smoke")
    assert "DSO-NAS 5.0 ± 0.0 (n=3) 5.0 ± 0.0 (n=3) 81.33 ± 1.53 (n=3)" in text
    assert "penalty alone 0.0 ± 0.0 (n=3) 0.0 ± 0.0 (n=3) 80.00 ± 0.00 (n=3)" in text
    assert "DSO-NAS 3 +1.33 -2.46 to +5.13" in text
    assert "DSO-NAS 5.00 1.000 0.005" in text  # p is 1 / 201, the least that it can be
    assert "any of 28 edges 0.89" in text  # 25 / 28
