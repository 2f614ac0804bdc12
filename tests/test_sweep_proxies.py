"""The proxies of a sweep of rankings, from files with known numbers."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from nasrun.report import sweep, sweep_proxies
from nasrun.report.sweep_proxies import Proxies, compare, plot, short
from nasrun.run.stopwatch import Stopwatch


def estimate(value: float, half: float = 0.1) -> dict[str, float]:
    return {"value": value, "low": value - half, "high": value + half}


def ranked(
    folder: Path,
    tau: float,
    seconds: Any,
    *overrides: str,
    macs: float = 0.5,
    device: str = "CPU, 1 thread, fp32",
    ceiling: float | None = 0.9,
) -> None:
    """A job of a sweep that ranks with ``tau`` after ``seconds``; epoch 5 is not its last one."""
    folder.mkdir(parents=True)

    def report(tau: float) -> dict[str, Any]:
        sizes = {"params_alone": estimate(0.2), "macs_alone": estimate(macs)}
        return {"confidence": 0.9, "agreement": {"kendall": estimate(tau)}, "size alone": sizes}

    content = {
        "epochs": {"10": report(tau), "5": report(-1)},
        "noise_ceiling": {} if ceiling is None else {"kendall": estimate(ceiling)},
    }
    (folder / "ranking.json").write_text(json.dumps(content))
    (folder / "run.json").write_text(json.dumps({"overrides": overrides, "device": device}))
    result = {"status": "done", "overrides": overrides, "kendall": tau, "ranking_seconds": seconds}
    (folder / "result.json").write_text(json.dumps(result))


def proxies_of(folder: Path) -> Proxies | None:
    found = sweep.combinations(sweep.read_jobs(folder))
    return compare({name: [job.directory for job in members] for name, members in found.items()})


def test_time_truth_and_what_is_to_beat(tmp_path: Path) -> None:
    ranked(tmp_path / "0", 0.6, 100.0, "dataset.image_size=16", "seed=0", macs=0.4)
    ranked(tmp_path / "1", 0.8, 300.0, "dataset.image_size=16", "seed=1", macs=0.6)
    ranked(tmp_path / "2", 0.3, 50, "dataset.image_size=8", "seed=0", macs=0.5)
    found = proxies_of(tmp_path)
    assert found is not None
    small, large = found.proxies
    assert (small.name, small.seconds) == ("image_size=8", 50)
    assert (small.tau.low, small.tau.value) == pytest.approx((0.2, 0.3))  # its own interval
    assert (large.name, large.seconds) == ("image_size=16", 200)
    spread = math.sqrt(0.02)  # s.d. of 0.6 and 0.8
    assert large.tau.value == pytest.approx(0.7)
    assert large.tau.high - large.tau.value == pytest.approx(spread)
    assert found.size is not None and found.size[0] == "multiply-adds alone"
    assert (found.size[1].low, found.size[1].value) == pytest.approx((0.4, 0.5))
    assert found.ceiling is not None and found.ceiling.value == pytest.approx(0.9)
    assert found.unit == "core seconds"


def test_the_front_is_what_no_cheaper_proxy_beats(tmp_path: Path) -> None:
    for job, (tau, seconds) in enumerate([(0.5, 40), (0.4, 10), (0.45, 90), (0.7, 200), (0.4, 20)]):
        ranked(tmp_path / str(job), tau, seconds, f"trainer.epochs={job}")
    found = proxies_of(tmp_path)
    assert found is not None
    assert [proxy.seconds for proxy in found.front] == [10, 40, 200]


def test_the_picture_and_the_words(tmp_path: Path) -> None:
    for job, size in enumerate((8, 16, 32)):
        words = [f"dataset.image_size={size}", f"search_space.search.width={0.5 - job / 10}"]
        ranked(tmp_path / str(job), 0.4 + job / 10, 10.0**job, *words)
    found = proxies_of(tmp_path)
    assert found is not None
    files = plot(found, tmp_path)
    assert [path.name for path in files] == ["proxies.png", "proxies.svg"]
    picture = files[1].read_text(encoding="utf-8")
    for words in ("image_size=16 width=0.4", "multiply-adds alone", "ceiling", "core seconds"):
        assert words in picture
    console = Console(record=True, width=200)
    sweep_proxies.show(found, console)
    said = console.export_text()
    assert "τ-b 0.600 in 100 core seconds, image_size=32 width=0.3" in said
    assert "to beat without training: τ-b 0.500 of multiply-adds alone" in said


@pytest.mark.parametrize("seconds", [None, 0, -1.0, "10", [1]])
def test_a_ranking_without_its_time_is_passed_over(tmp_path: Path, seconds: Any) -> None:
    ranked(tmp_path / "0", 0.6, 100.0, "trainer.epochs=1")
    ranked(tmp_path / "1", 0.8, seconds, "trainer.epochs=2")
    assert proxies_of(tmp_path) is None
    ranked(tmp_path / "2", 0.7, 50.0, "trainer.epochs=3", device="Tesla", ceiling=None)
    found = proxies_of(tmp_path)
    assert found is not None and len(found.proxies) == 2 and found.unit == "GPU or core seconds"


def test_labels_are_shortened_while_they_differ() -> None:
    assert short(["a.b=1 c=2", "a.b=2 c=2"]) == ["b=1 c=2", "b=2 c=2"]
    assert short(["trainer.epochs=3", "retrain.epochs=3"]) == [
        "trainer.epochs=3",
        "retrain.epochs=3",
    ]
    assert short([""]) == ["(as it is)"]


def test_a_stopwatch_counts_what_runs_inside_and_goes_on_after_a_kill(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [100.0]
    monkeypatch.setattr("time.process_time", lambda: now[0])
    watch = Stopwatch(torch.device("cpu"))
    now[0] += 5
    with watch.running():
        now[0] += 2
        state = watch.state_dict()  # a checkpoint in the middle
        now[0] += 1
    now[0] += 5
    assert (state, watch.seconds) == ({"seconds": 2.0}, 3.0)
    again = Stopwatch(torch.device("cpu"))
    again.load_state_dict(state)
    with again.running():
        now[0] += 4
    assert again.seconds == 6.0
    for wrong in (-1, math.nan, math.inf):
        with pytest.raises(ValueError, match="seconds"):
            again.load_state_dict({"seconds": wrong})
