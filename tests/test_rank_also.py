"""``rank.also``: a second way to score the supernet, beside the first and against the truth."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import pytest
from helpers import trainer

from nasrun.cli.main import main
from nasrun.evaluator.kl import KlEvaluator
from nasrun.evaluator.standalone import StandaloneEvaluator
from nasrun.metrics.bootstrap import Estimate
from nasrun.metrics.ranking import kendall
from nasrun.report.ranking import SecondScores
from nasrun.run.run import Run

TINY = [
    *("dataset=synthetic", "dataset.train_images=32", "dataset.validation=32"),
    *("dataset.test_images=16", "trainer.epochs=2", "trainer.batch_size=8", "rank.k=3"),
    *("rank.resamples=50", "threads=1", "rank.architectures.count=6"),
    *("search_space=one_shot_blocks", "search_space.search.channels=4"),
    *("search_space.blocks=2", "sampler=path_dropout", "sampler.ghost_batch=4"),
    *("rank.truth.trainer.epochs=1", "rank.truth.trainer.batch_size=8"),
    "rank.truth_store=store",
]
KL = ["evaluator@rank.also=kl", "rank.also.images=24", "rank.also.batch_size=16"]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def rank(run: str, *words: str) -> int:
    return main(["rank", *TINY, *words, f"hydra.run.dir={run}"])


def column(run: str, name: str) -> list[float]:
    with Path(run, "ranking.csv").open(newline="") as file:
        return [float(row[name]) for row in csv.DictReader(file)]


def result(run: str) -> dict[str, Any]:
    found = json.loads(Path(run, "result.json").read_text())
    assert isinstance(found, dict)
    return found


def error(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    capsys.readouterr()
    assert rank("refused", *words) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert not Path("refused").exists()
    return line


@pytest.mark.soak
def test_second_scores_are_what_the_evaluator_alone_gives(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert rank("both", *KL, "rank.epochs=[1]") == 0
    shown = capsys.readouterr().out
    assert "τ-b of rank.also" in shown
    alone = ["from=both", "evaluator=kl", "evaluator.images=24", "evaluator.batch_size=16"]
    assert main(["rank", *alone, "hydra.run.dir=alone"]) == 0
    assert column("alone", "score_0") == column("alone", "also_0") == column("both", "also_2")
    assert column("both", "also_1") != column("both", "also_2")
    assert all(0 < score < 1 for score in column("both", "also_2"))
    report = json.loads(Path("both/ranking.json").read_text())["also"]
    assert report["logarithm"] and list(report["epochs"]) == ["1", "2"]
    for name, other in (("with_scores", "score_2"), ("with_truth", "truth")):
        tau = kendall(column("both", "also_2"), column("both", other))
        assert report["epochs"]["2"][name]["value"] == pytest.approx(tau)
        assert result("both")[f"also_{name}"] == pytest.approx(tau)
        assert report["epochs"]["2"][name]["low"] <= tau <= report["epochs"]["2"][name]["high"]
    trials = [json.loads(line) for line in Path("both/trials.jsonl").read_text().splitlines()]
    evaluators = [trial["evaluation"]["evaluator"] for trial in trials]
    assert evaluators == (["supernet"] * 6 + ["kl"] * 6) * 2
    assert all(Path(f"both/also.{suffix}").stat().st_size > 5000 for suffix in ("png", "svg"))


@pytest.mark.soak
def test_the_first_way_again_agrees_with_itself() -> None:
    """The scores of the first are none other for there being a second."""
    assert rank("without") == 0
    same = ["evaluator@rank.also=supernet", "rank.also.batch_size=500"]
    assert rank("with", *same) == 0
    assert column("with", "also_2") == column("with", "score_2") == column("without", "score_2")
    found = result("without")
    for name, column_ in (("score", "score_2"), ("truth", "truth")):
        values = sorted(column("without", column_))
        assert found[f"{name}_min"] == values[0] and found[f"{name}_max"] == values[-1]
        assert found[f"{name}_median"] == pytest.approx((values[2] + values[3]) / 2)
    assert not any(key.startswith("also") for key in found)
    assert "also" not in json.loads(Path("without/ranking.json").read_text())
    assert not Path("without/also.png").exists()
    found = result("with")
    assert found["also_with_scores"] == pytest.approx(1)
    assert found["also_with_truth"] == found["kendall"]


@pytest.mark.soak
def test_an_interrupted_run_ends_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped between two second scores of the first epoch."""
    words = [*KL, "rank.epochs=[1]", "checkpoint.steps=1"]
    assert rank("whole", *words) == 0
    record, stops = Run.record, [9]

    def stopping(self: Run, *arguments: Any, **further: Any) -> None:
        record(self, *arguments, **further)
        counted.append(1)
        if stops and len(counted) == stops[0]:
            stops.pop(0)
            raise KeyboardInterrupt

    counted: list[int] = []
    monkeypatch.setattr(Run, "record", stopping)
    assert rank("stopped", *words) == 130
    assert main(["resume", "stopped"]) == 0
    assert not stops
    for name in ("ranking.csv", "ranking.json", "also.svg"):
        assert Path("stopped", name).read_bytes() == Path("whole", name).read_bytes(), name


@pytest.mark.soak
def test_a_sweep_in_one_command(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["sampler.rate=0.01,0.5", "hydra.sweep.dir=sweep", "dataset=digits", *KL]
    kept = [word for word in TINY if not word.startswith("dataset")]
    small = ["dataset.train_images=200", "dataset.validation=100", "trainer.batch_size=32"]
    small += ["trainer.epochs=1", "sampler.ghost_batch=8"]
    by_key = {word.split("=", 1)[0]: word for word in [*kept, *small]}
    assert main(["rank", "-m", *by_key.values(), *words]) == 0
    shown = capsys.readouterr().out
    assert "(rankings.png, spread.png, also_scores.png, also_truth.png)" in shown
    text = Path("sweep/rankings.svg").read_text(encoding="utf-8")
    for job, rate in enumerate(("0.01", "0.5")):
        found = result(f"sweep/{job}")
        words_ = f"τ-b {found['kendall']:.3f} ({found['kendall_low']:.3f} to"
        assert f"<!-- sampler.rate={rate} -->" in text and words_ in text
    (store,) = Path("store").iterdir()
    assert len(store.read_text().splitlines()) == 1 + 6  # trained once for both rates
    assert column("sweep/0", "truth") == column("sweep/1", "truth")
    assert Path("sweep/spread.svg").read_text(encoding="utf-8").count("<!-- truth") == 1
    with Path("sweep/summary.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {"score_min_mean", "truth_max_mean", "also_with_truth_mean"} <= set(rows[0])


def test_what_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    said = error(capsys, "evaluator@rank.also=standalone")
    assert "rank.also" in said and "take evaluator@rank.also=kl or supernet" in said
    said = error(capsys, *KL[:1], "rank.also.images=33")
    assert "rank.also: " in said and "training split has 32 images" in said
    cell = ["search_space=nao_cell", "sampler=uniform"]
    keys = ("search_space", "sampler")
    kept = [word for word in TINY if not word.startswith(keys)]
    assert main(["rank", *kept, *cell, *KL, "hydra.run.dir=refused"]) == 2
    said = capsys.readouterr().err
    assert "rank.also: " in said and "opens one option of a decision at a time" in said
    assert not Path("refused").exists()


def second(**agreement: Estimate) -> SecondScores:
    return SecondScores([0.1, 0.2], {1: agreement}, "score", logarithm=False)


def test_scores_that_are_all_equal_have_no_tau() -> None:
    """Not defined is left out of the results, and plotted without one."""
    nothing = Estimate(math.nan, math.nan, math.nan)
    also = second(with_truth=nothing, with_scores=Estimate(0.5, 0.1, 0.9))
    assert also.result() == {
        "also_with_scores": 0.5,
        "also_with_scores_low": 0.1,
        "also_with_scores_high": 0.9,
    }
    assert json.dumps(also.to_json(), allow_nan=False)


def test_a_value_without_an_interval_is_no_nan() -> None:
    bare = Estimate(0.5, math.nan, math.nan)  # rank.resamples=0
    also = second(with_truth=bare, with_scores=bare)
    assert all(math.isfinite(value) for value in also.result().values())


def test_only_divergences_are_plotted_as_logarithms() -> None:
    assert KlEvaluator(images=4, batch_size=4).axis("rank.also").logarithm
    assert not StandaloneEvaluator(trainer=trainer()).axis("rank.also").logarithm
