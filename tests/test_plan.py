"""nasrun plan: stages, times by a made-up clock, and nothing that is left on the disk."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from helpers import CPU
from processes import TINY, lines

from nasrun.cli.arguments import CommandLine
from nasrun.cli.commands import plan as command
from nasrun.cli.main import main
from nasrun.run.run import CheckpointEvery
from nasrun.task.rehearsal import MODEL_ERROR, Rehearsal, TimedStage, total_of
from nasrun.task.rehearsal_settings import looks_of, rehearsed
from nasrun.trainer.training import Training


class Clock:
    """A clock that only steps of training move."""

    now = 0.0


@pytest.fixture
def second_a_step(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every step of a training takes a second, and nothing else takes any time."""
    real = Training.update

    def update(self: Any, *arguments: Any) -> Any:
        Clock.now += 1.0
        return real(self, *arguments)

    monkeypatch.setattr(Training, "update", update)
    monkeypatch.setattr(Clock, "now", 0.0)
    yield


def stages_of(*words: str) -> dict[str, TimedStage]:
    _, stages = command.plan(CommandLine(words[0], words[1:], ()), clock=lambda: Clock.now)
    return {stage.name: stage for stage in stages}


LONGER = ("trainer.epochs=50", "retrain.trainer.epochs=40", "shortlist.trainer.epochs=25")


def test_a_plan_tells_the_time_of_every_step(
    second_a_step: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By hand: 4 steps an epoch; two rounds, a shortlist of two networks, the winner."""
    monkeypatch.chdir(tmp_path)
    found = stages_of("search", *TINY, *LONGER)
    times = {name: stage.seconds for name, stage in found.items() if stage.seconds}
    assert times == pytest.approx(
        {"supernet/round0": 200, "supernet/round1": 200, "shortlist": 200, "retrain": 160}
    )
    assert [found[f"score/round{index}"].steps for index in (0, 1)] == [4, 6]
    assert found["retrain"].guessed == pytest.approx(160 - 4)  # one untimed, and three timed
    assert list(tmp_path.iterdir()) == []


def test_looks_along_the_way_count_as_often_as_they_are(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """By hand: 20 looks of two seconds, of which a rehearsal does two, between 4 steps of one."""
    settings = {
        "retrain": {"validate_every": 2, "trainer": {"epochs": 40}},
        "health": {"every": 0},
        "trainer": {"epochs": 8},
    }
    assert looks_of(settings) == {"retrain": 20}
    shorter, _ = rehearsed(settings, Path("x"))
    assert looks_of(shorter) == {"retrain": 2}
    clock = [0.0]
    run = Rehearsal(
        Path("nowhere"),
        factors={"predictor": 10.0},
        looks={"retrain": 20},
        clock=lambda: clock[0],
        task="search",
        config={},
        overrides=[],
        seed=0,
        compute=CPU,
        checkpoint=CheckpointEvery(minutes=None, steps=None),
    )
    for _ in range(2):
        with run.screen.stage("retrain", 9):
            clock[0] += 4.0
        clock[0] += 2.0  # a look
    with run.screen.stage("predictor/round1", 6):
        clock[0] += 1.0
    run.screen.show("a table")  # of scores that are made up
    assert not capsys.readouterr().out
    found = {stage.name: stage for stage in run.done()}
    assert found["retrain"].seconds == 2 * 4.0 + 20 * 2.0
    assert (found["predictor/round1"].seconds, found["predictor/round1"].steps) == (10.0, 60)


@pytest.mark.soak
def test_a_plan_has_the_stages_of_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["plan", *TINY]) == 0
    told = capsys.readouterr().out.splitlines()
    assert list(tmp_path.iterdir()) == []
    assert main(["search", *TINY, "hydra.run.dir=run"]) == 0
    stages = {line["stage"] for line in lines(Path("run/metrics.jsonl"))} - {
        "health",
        "retrain/validation",
    }
    stages = {each for each in stages if not each.startswith("standalone")}  # of the shortlist
    rows = {line.split()[0]: line.split() for line in told if line.startswith("  ")}
    assert stages | {"stage", "loading", "shortlist", "total"} <= rows.keys()
    assert rows["predictor/round1"][1] == str(
        json.loads(Path("run/run.json").read_text())["config"]["search_algo"]["predictor"]["epochs"]
    )
    assert all(len(line) <= 80 for line in told)


METHODS = (
    ("search", "experiment=pc_darts_cifar10"),
    ("search", "experiment=p_darts_cifar10"),
    ("search", "experiment=enas_cifar10"),
    ("search", "experiment=dso_share_cifar10"),
    ("search", "experiment=spos_cifar10"),
    ("search", "experiment=proxyless_cifar10"),
    ("rank", "experiment=rank_bender_small"),
    ("rank", "search_space=nas_bench_macro"),
    ("supernet", "search_space=nas_bench_201", "search_algo=random"),
    ("compare", "experiment=shootout_nas_bench_macro"),
)


@pytest.mark.soak
@pytest.mark.parametrize("words", METHODS, ids=" ".join)
def test_every_kind_of_run_can_be_planned(
    words: Sequence[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """With more steps than are timed, so that every method meets the jump over the rest."""
    monkeypatch.chdir(tmp_path)
    longer = ["trainer.epochs=40", "effort=smoke", "threads=1"]
    assert main(["plan", *words, *longer]) == 0
    assert "total" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


def test_a_plan_is_for_one_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "search", "-m", "seed=0,1"]) == 2
    assert "plan is for one run" in capsys.readouterr().err


def test_mistakes_are_those_of_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for words, said in (
        (["dataset=image_folder", "dataset.root=nowhere"], "nowhere"),
        (["trainer.epochs=0", "sampler.exponent=-9"], "2 mistakes"),
        (["trainer.epoch=3"], "did you mean 'trainer.epochs'"),
    ):
        assert main(["plan", *words]) == 2
        assert said in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_what_will_not_fit_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stages = [TimedStage("supernet/round0", 9, memory=10**15, disk=10**18)]
    memory, disk = command.warnings(stages, tmp_path / "outputs", on_gpu=False)
    assert "supernet/round0 takes 909.5 TiB of memory" in memory
    assert "choose another place with outputs=DIR" in disk
    assert command.warnings([TimedStage("x", 1)], tmp_path, on_gpu=False) == []


def test_the_error_of_the_total() -> None:
    """By hand: two standard deviations, and the share of what was not measured, at right angles."""
    stages = [
        TimedStage("a", 1, seconds=100.0, variance=4.0, guessed=60.0),
        TimedStage("b", 1, seconds=50.0, variance=12.0, guessed=40.0),
    ]
    seconds, error = total_of(stages)
    assert seconds == 150.0
    assert error == pytest.approx((4 * 16.0 + (MODEL_ERROR * 100) ** 2) ** 0.5)


def test_many_stages_share_rows() -> None:
    stages = [TimedStage(f"score/round{i}", 10, seconds=1.0) for i in range(30)]
    (row,) = command.merged(stages)
    assert (row.name, row.steps, row.seconds) == ("score (30 stages)", 300, 30.0)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (3.24, "3.2 s"),
        (9.96, "10 s"),
        (133, "2 min 13 s"),
        (11100, "3 h 05 min"),
        (187200, "2 d 4 h"),
    ],
)
def test_times_as_people_say_them(seconds: float, words: str) -> None:
    assert command.short_or_long(seconds) == words
