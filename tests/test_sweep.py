"""Sweeps: the arithmetic of the summary, and jobs that fail beside jobs that do not."""

from __future__ import annotations

import csv
import json
import math
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from helpers import as_job
from hydra.core.hydra_config import HydraConfig
from rich.console import Console

from nasrun.cli import main as cli
from nasrun.errors import UserError
from nasrun.report import sweep
from nasrun.report.run_files import of_last_line

SWEEP = ["search", "-m", "sampler=uniform,proportional", "seed=0,1"]


def make_job(
    folder: Path, number: int, overrides: list[str], result: dict[str, Any] | str | None
) -> None:
    job = folder / str(number)
    job.mkdir(parents=True)
    (job / "run.json").write_text(json.dumps({"task": "search", "overrides": overrides}))
    if result is not None:
        text = result if isinstance(result, str) else json.dumps(result)
        (job / "result.json").write_text(text)


def table(jobs: list[sweep.Job]) -> str:
    out = StringIO()
    sweep.show(jobs, Path("outputs/x"), Console(file=out, width=200))
    return out.getvalue()


@pytest.fixture
def six(tmp_path: Path) -> Path:
    """Two samplers, three seeds; the last job has failed."""
    scores = {0: 0.5, 1: 0.6, 2: 0.7, 3: 0.9, 4: 0.8}
    for number in range(6):
        overrides = [
            "effort=smoke",
            f"sampler={'uniform' if number < 3 else 'proportional'}",
            f"seed={number % 3}",
        ]
        result: dict[str, Any] = {"status": "failed", "error": "no [luck]", "kind": "user"}
        if number in scores:
            result = {
                "score": scores[number],
                "params": 1000 + number,
                "seed": number % 3,
                "resumed": True,
                "nested": {"score": 3},
                "loss": math.nan,
                "name": "x",
            }
        make_job(tmp_path, number, overrides, result)
    (tmp_path / "multirun.yaml").write_text("x: 1")
    (tmp_path / "notes").mkdir()
    return tmp_path


def test_summary_by_hand(six: Path) -> None:
    jobs = sweep.read_jobs(six)
    assert [job.number for job in jobs] == [0, 1, 2, 3, 4, 5]
    uniform, proportional = sweep.summary_rows(jobs)
    assert uniform == {
        "overrides": "sampler=uniform",
        "n": 3,
        "failed": 0,
        "score_mean": pytest.approx(0.6),
        "score_sd": pytest.approx(0.1),  # of n - 1: sqrt((0.01 + 0 + 0.01) / 2)
        "params_mean": 1001,
        "params_sd": 1,
    }
    assert proportional["n"] == 2
    assert proportional["failed"] == 1
    assert proportional["score_mean"] == pytest.approx(0.85)
    assert proportional["score_sd"] == pytest.approx(math.sqrt(0.005))


def test_many_jobs_cost_no_more_each(six: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What goes through all jobs is done once, not for each job; the screen shows a part."""
    calls: list[int] = []
    whole = sweep.metric_names
    monkeypatch.setattr(sweep, "metric_names", lambda jobs: calls.append(1) or whole(jobs))
    jobs = sweep.read_jobs(six)
    assert len(sweep.summary_rows(jobs)) == 2 and len(sweep.job_rows(jobs)) == 6
    assert len(calls) == 2
    monkeypatch.setattr(sweep, "MAX_SHOWN", 1)
    shown = table(jobs)
    assert "uniform" in shown and "proportional" not in shown.partition("1 of 6 jobs failed")[0]
    assert "1 more combination in summary.csv" in shown


def test_only_finite_numbers_at_the_top_are_metrics(six: Path) -> None:
    assert sweep.metric_names(sweep.read_jobs(six)) == ["score", "params"]


def test_one_value_has_no_spread(tmp_path: Path) -> None:
    make_job(tmp_path, 0, ["seed=1"], {"test_accuracy": 0.5})
    (row,) = sweep.summary_rows(sweep.read_jobs(tmp_path))
    assert row["test_accuracy_mean"] == 0.5
    assert row["test_accuracy_sd"] is None
    assert "±" not in table(sweep.read_jobs(tmp_path)).split("mean ±")[0]


def test_jobs_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for number in (10, 9, 0):
        make_job(tmp_path, number, [f"x={number}"], {"score": 1})
    assert [job.number for job in sweep.read_jobs(tmp_path)] == [0, 9, 10]


def test_broken_results_count_as_failed(tmp_path: Path) -> None:
    make_job(tmp_path, 0, ["x=0"], None)
    make_job(tmp_path, 1, ["x=1"], '{"score": ')
    make_job(tmp_path, 2, ["x=2"], "[1]")
    make_job(tmp_path, 3, ["x=3"], {"score": 1.0})
    jobs = sweep.read_jobs(tmp_path)
    assert [bool(job.error) for job in jobs] == [True, True, True, False]
    assert sweep.exit_status(jobs) == 1


def test_table_names_the_failed(six: Path) -> None:
    shown = table(sweep.read_jobs(six))
    assert "sampler=uniform" in shown
    assert "60.00±10.00" in shown
    assert "1 of 6 jobs failed" in shown
    assert "5/ (effort=smoke sampler=proportional seed=2): no [luck]" in shown


def test_table_of_failures_alone(tmp_path: Path) -> None:
    for number in range(2):
        failed = {"status": "failed", "error": "no", "kind": "user"}
        make_job(tmp_path, number, [f"seed={number}"], failed)
    jobs = sweep.read_jobs(tmp_path)
    assert "all 2 jobs failed" in table(jobs)
    assert sweep.exit_status(jobs) == 2


def test_files_can_be_read_back(six: Path) -> None:
    jobs = sweep.read_jobs(six)
    sweep.write_csv(six / "summary.csv", sweep.summary_rows(jobs))
    sweep.write_csv(six / "jobs.csv", sweep.job_rows(jobs))
    with (six / "summary.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["overrides"] for row in rows] == ["sampler=uniform", "sampler=proportional"]
    assert float(rows[0]["score_mean"]) == pytest.approx(0.6)
    with (six / "jobs.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 6
    assert rows[5]["status"] == "failed"
    assert rows[5]["error"] == "no [luck]"
    assert rows[5]["score"] == ""


# Real sweeps of a job that is made up.


def finish(score: float) -> None:
    place = Path(HydraConfig.get().runtime.output_dir)
    result = {"score": score, "overrides": cli.own_overrides()}
    (place / "result.json").write_text(json.dumps(result))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def the_sweep(folder: Path) -> Path:
    (directory,) = (folder / "outputs" / "search").iterdir()
    return directory


def test_a_sweep_that_ends_well(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def job(composed: Any) -> None:
        assert cli.job_name().endswith(f"seed={composed.seed}")
        print(cli.job_name())  # noqa: T201
        finish(composed.seed + (10 if "Uniform" in composed.sampler._target_ else 0))

    monkeypatch.setattr(cli, "job", as_job(job))
    assert cli.main([*SWEEP, "effort=smoke"]) == 0
    out, err = capfd.readouterr()
    assert err == ""
    assert "[2/4] sampler=uniform seed=1" in out
    assert "effort" not in out
    directory = the_sweep(folder)
    assert directory.name.startswith("multirun_")
    with (directory / "summary.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["overrides"] for row in rows] == ["sampler=uniform", "sampler=proportional"]
    assert [float(row["score_mean"]) for row in rows] == [10.5, 0.5]
    assert [float(row["score_sd"]) for row in rows] == pytest.approx([math.sqrt(0.5)] * 2)


@pytest.mark.soak
def test_failing_jobs_do_not_stop_the_others(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def job(composed: Any) -> None:
        if composed.seed == 0:
            raise UserError("seed 0 is\nunlucky")
        if "Uniform" not in composed.sampler._target_:
            raise RuntimeError("a bug")
        finish(1.0)

    monkeypatch.setattr(cli, "job", as_job(job))
    assert cli.main(SWEEP) == 1
    out, err = capfd.readouterr()
    lines = err.splitlines()
    assert lines[0] == "nasrun: [1/4] sampler=uniform seed=0: error: seed 0 is unlucky"
    assert "error: seed 0" in lines[1]
    assert "internal error: RuntimeError: a bug" in lines[2]
    assert len(lines) == 3
    assert "3 of 4 jobs failed" in out
    jobs = sweep.read_jobs(the_sweep(folder))
    assert [job.error is None for job in jobs] == [False, True, False, False]
    assert jobs[0].overrides == ("sampler=uniform", "seed=0")


@pytest.mark.soak
def test_all_jobs_fail_by_mistakes(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def job(composed: Any) -> None:
        raise UserError("no")

    monkeypatch.setattr(cli, "job", as_job(job))
    assert cli.main(["search", "-m", "seed=0,1"]) == 2
    assert "all 2 jobs failed" in capfd.readouterr().out
    assert len(sweep.read_jobs(the_sweep(folder))) == 2


def test_a_misspelt_option_stops_the_sweep_before_it_begins(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli, "job", as_job(lambda composed: pytest.fail("a job has begun")))
    assert cli.main(["search", "-m", "sampler=uniform,proportinal"]) == 2
    assert "did you mean 'proportional'" in capfd.readouterr().err
    assert list(folder.iterdir()) == []


def test_an_interrupt_stops_the_sweep(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    begun = []

    def job(composed: Any) -> None:
        begun.append(composed.seed)
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "job", as_job(job))
    assert cli.main(SWEEP) == 130
    assert begun == [0]
    told = f"nasrun: interrupted; go on with: nasrun resume {the_sweep(folder)}\n"
    assert capfd.readouterr().err == told


def test_equal_errors_stand_together(tmp_path: Path) -> None:
    for number in range(5):
        why = "no" if number == 3 else f"{tmp_path / str(number)} has no luck"
        failed = {"status": "failed", "error": why, "kind": "user"}
        make_job(tmp_path, number, [f"seed={number}"], failed)
    shown = table(sweep.read_jobs(tmp_path))
    assert "all 5 jobs failed" in shown
    assert "  4 jobs: JOB_DIR has no luck (jobs 0, 1, 2, 4)\n" in shown
    assert "  3/ (seed=3): no\n" in shown


def test_settings_of_the_machine_make_no_other_method(tmp_path: Path) -> None:
    for number, more in enumerate(([], ["resume=auto", "threads=2"], ["notes=x"])):
        overrides = ["sampler=fair", f"seed={number}", "checkpoint.minutes=1", *more]
        make_job(tmp_path, number, overrides, {"score": 1})
    (row,) = sweep.summary_rows(sweep.read_jobs(tmp_path))
    assert (row["overrides"], row["n"]) == ("", 3)
    for number, device in enumerate(("cpu", "cuda"), 3):
        make_job(tmp_path / "devices", number, [f"device={device}"], {"score": 1})
    labels = sweep.differing(sweep.read_jobs(tmp_path / "devices"))
    assert labels == {3: "device=cpu", 4: "device=cuda"}


def test_jobs_of_the_last_line(six: Path) -> None:
    jobs = sweep.read_jobs(six)
    assert of_last_line(jobs, six) == jobs
    (six / "begun.jsonl").write_text('{"job": 4}\nodd\n{"job": "x"}\n[1]\n{"job": 0}\n')
    assert [job.number for job in of_last_line(jobs, six)] == [0, 4]
    (six / "refused.jsonl").write_text('{"job": 5, "error": "no"}\n')
    assert [job.number for job in of_last_line(jobs, six)] == [0, 4, 5]


@pytest.mark.soak
def test_the_status_is_that_of_the_jobs_of_the_line(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def job(composed: Any) -> None:
        place = cli.job_directory(composed)
        if composed.seed == 1:
            raise UserError("unlucky")
        (place / "result.json").write_text('{"status": "done"}')

    monkeypatch.setattr(cli, "job", as_job(job))
    line = ["search", "-m", "hydra.sweep.dir=s", "resume=auto"]
    assert cli.main([*line, "seed=0,1"]) == 1
    assert cli.main([*line, "seed=0,2"]) == 0  # the job of seed 1 still lies there
    assert [bool(job.error) for job in sweep.read_jobs(folder / "s")] == [False, True, False]
    assert cli.main([*line, "seed=1"]) == 2
    assert cli.main([*line, "seed=2,1"]) == 1


def test_costs_have_a_table_of_their_own(tmp_path: Path) -> None:
    for number in range(2):
        spent = {"evaluations": 7, "images": 1000 * (number + 1), "device_seconds": 2.5}
        result = {"test_accuracy": 0.5, "spent": spent, "seconds": 3}
        make_job(tmp_path, number, [f"seed={number}"], result)
    jobs = sweep.read_jobs(tmp_path)
    (row,) = sweep.summary_rows(jobs)
    assert (row["spent_images_mean"], row["spent_evaluations_sd"]) == (1500, 0)
    _, cost = table(jobs).split("evaluations")
    assert cost.split()[:4] == ["images", "core", "or", "GPU"]
    assert "7  1,500±707" in cost and "test %" not in cost


@pytest.mark.soak
def test_jobs_have_directories_of_their_own(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def job(composed: Any) -> None:
        seen.append(HydraConfig.get().runtime.output_dir)
        finish(0)

    monkeypatch.setattr(cli, "job", as_job(job))
    assert cli.main(["search", "-m", "seed=range(3)"]) == 0
    assert cli.main(["search", "seed=1"]) == 0
    assert cli.main(["search", "seed=1"]) == 0
    assert len(set(seen)) == 5
    assert all(path.startswith(str(folder / "outputs" / "search")) for path in seen)
