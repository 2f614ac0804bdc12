"""The same line again (resume=auto), and what may be changed when a run goes on."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from processes import SEARCH, TINY, Processes, lines, manifests, outcome, snapshot

from nasrun import __version__
from nasrun.cli.failed_job import record_failure
from nasrun.report.run_files import read_jobs
from nasrun.run import provenance
from nasrun.run.lock import Lock
from nasrun.run.provenance import made_here

AUTO = ("search", *TINY, "resume=auto")
FINISHED = "is finished, test accuracy"
FOUND = "continuing from checkpoint"


def stop(stage: str, count: int) -> list[tuple[str, list[Any]]]:
    return [("signal_at", [signal.SIGTERM, "safe_point", stage, count])]


def config(run: Path) -> dict[str, Any]:
    found = json.loads((run / "run.json").read_text())["config"]
    assert isinstance(found, dict)
    return found


def runs(place: Path, task: str = "search") -> list[Path]:
    return sorted((place / "outputs" / task).iterdir())


# The same line again.


@pytest.mark.soak
def test_the_same_line_begins_continues_and_ends(
    processes: Processes, undisturbed: Path, tmp_path: Path
) -> None:
    first = processes.run(tmp_path, *AUTO, faults=stop("score/round1", 2))
    assert first.status == 143
    (run,) = runs(tmp_path)
    # What says only how this machine computes is no other run, and in whatever order.
    changed = ("resume=auto", *TINY[::-1], "checkpoint.steps=2", "device=cpu")
    second = processes.run(tmp_path, "search", *changed)
    assert (second.status, second.err) == (0, "")
    assert FOUND in second.out
    assert runs(tmp_path) == [run]
    assert config(run)["checkpoint"]["steps"] == 2
    assert outcome(run) == outcome(undisturbed)
    before = snapshot(run)
    for words in (AUTO[1:], changed, (*AUTO[1:], "threads=2", "trainer.log_every=1")):
        third = processes.run(tmp_path, "search", *words)
        assert (third.status, third.err) == (0, "")
        assert FINISHED in third.out
        assert snapshot(run) == before
    other = processes.run(tmp_path, *AUTO, "seed=1", faults=stop("supernet/round0", 1))
    assert other.status == 143
    assert FOUND not in other.out
    assert len(runs(tmp_path)) == 2
    assert snapshot(run) == before


@pytest.mark.soak
def test_a_named_directory_is_continued_only_by_the_same_line(
    processes: Processes, undisturbed: Path, tmp_path: Path
) -> None:
    line = (*AUTO, "hydra.run.dir=run")
    assert processes.run(tmp_path, *line, faults=stop("score/round0", 2)).status == 143
    before = snapshot(tmp_path)
    done = processes.run(tmp_path, *line, "seed=1")
    assert done.status == 2
    assert "seed=1: a run cannot go on with another seed (it is 0)" in done.err
    assert snapshot(tmp_path) == before
    assert FOUND in processes.run(tmp_path, *line).out
    assert outcome(tmp_path / "run") == outcome(undisturbed)


@pytest.mark.soak
def test_a_sweep_does_only_what_is_left(
    processes: Processes, undisturbed: Path, tmp_path: Path
) -> None:
    """Its first job fails, its second ends well, its third is stopped."""
    line = ("search", "-m", *TINY, "resume=auto", "seed=0,1,2")
    first = processes.run(tmp_path, *line, faults=[("fail_at", [7]), *stop("shortlist", 5)])
    assert first.status == 143
    assert "[1/3] seed=0: internal error: RuntimeError: a bug" in first.err
    (sweep,) = runs(tmp_path)
    jobs = [sweep / str(number) for number in range(3)]
    status = [
        json.loads(path.read_text())["status"] if path.exists() else None
        for path in (job / "result.json" for job in jobs)
    ]
    assert status == ["failed", "done", None]
    before = snapshot(jobs[1])
    second = processes.run(tmp_path, *line)
    assert (second.status, second.err) == (0, "")
    assert second.out.count(FINISHED) == 1
    assert second.out.count(FOUND) == 2
    assert snapshot(jobs[1]) == before
    assert runs(tmp_path) == [sweep]
    assert outcome(jobs[0]) == outcome(undisturbed)
    alone = processes.run(tmp_path, *SEARCH, "seed=2")
    assert alone.status == 0
    assert outcome(jobs[2]) == outcome(tmp_path / "run")
    everything = {str(job): snapshot(job) for job in jobs}
    third = processes.run(tmp_path, *line)
    assert third.status == 0
    assert third.out.count(FINISHED) == 3
    assert {str(job): snapshot(job) for job in jobs} == everything


def test_a_run_is_never_overwritten(
    processes: Processes, undisturbed: Path, tmp_path: Path
) -> None:
    shutil.copytree(undisturbed, tmp_path / "run")
    before = snapshot(tmp_path)
    for line in (SEARCH, (*SEARCH, "seed=1"), ("retrain", "from=run", "hydra.run.dir=run")):
        done = processes.run(tmp_path, *line)
        assert done.status == 2
        assert f"{tmp_path / 'run'} holds a run already" in done.err
        assert done.err.count("\n") == 1
        assert snapshot(tmp_path) == before


@pytest.mark.soak
def test_a_refused_sweep_leaves_the_results_of_finished_jobs(
    processes: Processes, undisturbed: Path, tmp_path: Path
) -> None:
    """Its jobs are of the same words but of seed 0, as if a default had changed meanwhile."""
    sweep = tmp_path / "sweep"
    for number in range(3):
        shutil.copytree(undisturbed, sweep / str(number))
        record = json.loads((sweep / str(number) / "run.json").read_text())
        record["overrides"].append(f"seed={7 + number}")
        (sweep / str(number) / "run.json").write_text(json.dumps(record))
    (sweep / "2" / "result.json").unlink()
    before = snapshot(tmp_path)
    line = ("search", "-m", *TINY, "resume=auto", "hydra.sweep.dir=sweep")
    done = processes.run(tmp_path, *line, "seed=7,8,9")
    assert done.status == 2
    assert "seed=7: a run cannot go on with another seed (it is 0)" in done.err
    own = {f"sweep/{name}" for name in ("refused.jsonl", "jobs.csv", "summary.csv")}
    after = {name: content for name, content in snapshot(tmp_path).items() if name in before}
    assert after == before
    assert own <= snapshot(tmp_path).keys()
    refused = lines(sweep / "refused.jsonl")
    assert [entry["job"] for entry in refused] == [0, 1, 2]
    assert {entry["kind"] for entry in refused} == {"user"}
    assert [entry["overrides"][-1] for entry in refused] == ["seed=7", "seed=8", "seed=9"]
    assert "all 3 jobs failed" in done.out
    # A job that another process works in is refused as well, and its result is left to that one.
    with Lock(sweep / "2"):
        done = processes.run(tmp_path, *line, "seed=9")
    assert "is in use by process" in done.err
    assert [entry["job"] for entry in lines(sweep / "refused.jsonl")] == [2]
    assert not (sweep / "2" / "result.json").exists()


@pytest.mark.parametrize(
    ("status", "begun", "ran", "kept"),
    [
        (None, False, False, True),  # a mistake in a new job
        (None, True, False, False),  # the directory is another run's
        (None, True, True, True),
        ("failed", True, True, True),
        ("failed", True, False, False),
        ("done", True, True, False),
        ("done", True, False, False),
    ],
)
def test_who_may_write_that_a_job_has_failed(
    status: str | None, begun: bool, ran: bool, kept: bool, tmp_path: Path
) -> None:
    job = tmp_path / "0"
    job.mkdir()
    if begun:
        (job / "run.json").write_text("{}")
    if status is not None:
        (job / "result.json").write_text(json.dumps({"status": status}))
    record_failure(job, tmp_path, 0, {"status": "failed", "error": "new"}, ran=ran)
    path = job / "result.json"
    found = json.loads(path.read_text()) if path.exists() else {"status": None}
    assert (found == {"status": "failed", "error": "new"}) == kept
    assert kept or found == {"status": status}
    assert (tmp_path / "refused.jsonl").exists() != kept
    assert read_jobs(tmp_path)[0].error == "new"


@pytest.mark.soak
def test_a_retraining_is_new_although_its_search_was_not(
    finished: Path, processes: Processes
) -> None:
    """What is taken from a run is how it was done, not that it was to be continued."""
    record = json.loads((finished / "run.json").read_text())
    record["overrides"].append("resume=auto")
    (finished / "run.json").write_text(json.dumps(record))
    for _ in range(2):
        assert processes.run(finished.parent, "retrain", "from=run").status == 0
    assert len(runs(finished.parent, "retrain")) == 2


# Changes.


@pytest.fixture(scope="module")
def stopped(processes: Processes, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was stopped while its second supernet was trained."""
    place = tmp_path_factory.mktemp("stopped")
    assert processes.run(place, *SEARCH, faults=stop("supernet/round1", 2)).status == 143
    return place / "run"


@pytest.fixture
def run(stopped: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(stopped, tmp_path / "run"))


def test_changes_that_are_allowed_are_used(
    run: Path, processes: Processes, undisturbed: Path
) -> None:
    changes = ["device=cpu", "threads=1", "trainer.log_every=1", "checkpoint.steps=1"]
    done = processes.run(run.parent, "resume", "run", *changes, "seed=0", "sampler.exponent=1")
    assert (done.status, done.err) == (0, "")
    now = config(run)
    assert (now["device"], now["trainer"]["log_every"], now["checkpoint"]["steps"]) == ("cpu", 1, 1)
    record = json.loads((run / "run.json").read_text())
    assert record["overrides"] == list(TINY)
    assert [entry["overrides"][:4] for entry in record["resumed"]] == [changes]
    ours, theirs = outcome(run), outcome(undisturbed)
    trained = [
        line["step"]
        for line in map(json.loads, ours.pop("metrics.jsonl").splitlines())
        if line["stage"] == "supernet/round1"
    ]
    assert trained == [3, 4]  # the first two belong to the first of these lines
    del theirs["metrics.jsonl"]
    assert ours == theirs
    assert int(manifests(run)[-1].stem) > 20


@pytest.mark.few(8)
@pytest.mark.parametrize(
    "change",
    [
        "seed=1",
        "search_space.nodes=2",
        "search_space.search.channels=8",
        "dataset=synthetic",
        "dataset.validation=17",
        "sampler=uniform",
        "sampler.exponent=2",
        "trainer.batch_size=16",
        "trainer.schedule.lr=0.5",
        "trainer.epochs=2",
        "search_algo.rounds=3",
        "evaluator.images=8",
        "shortlist.count=1",
        "task=retrain",
        "nonsense=1",
        "trainer.log_evry=1",
        "+new=1",
        "~seed",
        "seed=1,2",
        "hydra.run.dir=elsewhere",
        "threads=-1",
        "device=tpu",
        "checkpoint.steps=0",
    ],
)
def test_other_changes_are_refused_by_name(change: str, run: Path, processes: Processes) -> None:
    kept = {
        name: (run / name).read_bytes() for name in ("run.json", "metrics.jsonl", "trials.jsonl")
    }
    before = [(path, path.read_bytes()) for path in manifests(run)]
    done = processes.run(run.parent, "resume", "run", change)
    assert done.status == 2
    assert change.partition("=")[0].strip("+~") in done.err
    assert done.err.count("\n") == 1
    assert {name: (run / name).read_bytes() for name in kept} == kept
    assert [(path, path.read_bytes()) for path in manifests(run)] == before
    assert not (run / "lock").exists()


@pytest.fixture
def finished(undisturbed: Path, tmp_path: Path) -> Path:
    """A copy of a run that has come to its end."""
    return Path(shutil.copytree(undisturbed, tmp_path / "run"))


def longer(run: Path) -> tuple[int, int]:
    """Epochs in the configuration, and steps of retraining that the log has."""
    steps = [line["step"] for line in lines(run / "metrics.jsonl") if line["stage"] == "retrain"]
    return config(run)["retrain"]["trainer"]["epochs"], max(steps)


def test_a_finished_run_is_trained_for_longer(
    finished: Path, processes: Processes, undisturbed: Path
) -> None:
    place = finished.parent
    assert longer(finished) == (1, 4)
    before = snapshot(finished)
    for words in ([], ["retrain.trainer.epochs=1"], ["threads=1"]):
        assert FINISHED in processes.run(place, "resume", "run", *words).out
        assert snapshot(finished) == before
    old = json.loads((finished / "result.json").read_text())
    # It is stopped on the way: then it is not finished, with the new settings.
    more = ("resume", "run", "retrain.trainer.epochs=3")
    assert processes.run(place, *more, faults=stop("retrain", 3)).status == 143
    assert not (finished / "result.json").exists()
    done = processes.run(place, "resume", "run")
    assert (done.status, done.err) == (0, "")
    assert longer(finished) == (3, 12)
    new = json.loads((finished / "result.json").read_text())
    assert (new["status"], new["architecture"]) == ("done", old["architecture"])
    assert new["seconds"] > old["seconds"]
    weights = "network.safetensors"
    assert (finished / weights).read_bytes() != (undisturbed / weights).read_bytes()
    assert json.loads((finished / "run.json").read_text())["resumed"][0]["result"] == old
    # Nothing is untrained.
    before = {name: content for name, (content, _) in snapshot(finished).items()}
    for epochs in (1, 2):
        done = processes.run(place, "resume", "run", f"retrain.trainer.epochs={epochs}")
        assert done.status == 2
        assert f"epochs={epochs}: 3 epochs are trained already" in done.err
        now = snapshot(finished)
        assert {name: now[name][0] for name in before} == before
    assert FINISHED in processes.run(place, "resume", "run").out


@pytest.mark.few(1)
@pytest.mark.parametrize("name", ["run.json", "result.json"])
@pytest.mark.parametrize("after", [False, True])
def test_a_kill_as_a_finished_run_goes_on(
    name: str, after: bool, finished: Path, processes: Processes
) -> None:
    """It is never taken to be done with settings that it has not been trained with."""
    more = ("resume", "run", "retrain.trainer.epochs=2")
    done = processes.run(finished.parent, *more, faults=[("kill_around", [name, after])])
    assert done.status == -signal.SIGKILL
    assert processes.run(finished.parent, "resume", "run").status == 0
    assert longer(finished) in ((1, 4), (2, 8))
    assert json.loads((finished / "result.json").read_text())["status"] == "done"


@pytest.mark.soak
def test_epochs_of_the_supernet_before_it_is_used(processes: Processes, tmp_path: Path) -> None:
    """More of them while none of its scores is known: as if it had been asked for at once."""
    constant = ("trainer.schedule.kind=constant", *SEARCH[1:])
    first = processes.run(tmp_path, "search", *constant, faults=stop("supernet/round0", 2))
    assert first.status == 143
    done = processes.run(tmp_path, "resume", "run", "trainer.epochs=2")
    assert (done.status, done.err) == (0, "")
    whole = processes.run(tmp_path / "whole", "search", *constant, "trainer.epochs=2")
    assert whole.status == 0
    assert outcome(tmp_path / "run") == outcome(tmp_path / "whole/run")


def test_a_run_in_use_is_left_alone(run: Path, processes: Processes) -> None:
    before = snapshot(run)
    with Lock(run):
        for line in (("resume", "run"), SEARCH, (*SEARCH, "resume=auto")):
            done = processes.run(run.parent, *line)
            assert done.status == 2
            assert f"{run} is in use by process " in done.err
            assert done.err.count("\n") == 1
    assert snapshot(run) == before


# Shared folders, and what a run goes on with.


@pytest.mark.soak
def test_a_store_keeps_its_place_and_strangers_choose_none(
    processes: Processes, tmp_path: Path
) -> None:
    home, elsewhere = tmp_path / "home", tmp_path / "elsewhere"
    line = (*SEARCH, "budget.latency.store=mine/store")
    assert processes.run(home, *line, faults=stop("score/round0", 2)).status == 143
    run, store = home / "run", str(home / "mine" / "store")
    assert config(run)["budget"]["latency"]["store"] == store

    def resumed(directory: Path, *words: str) -> tuple[str, str]:
        again = stop("score*", 2)
        done = processes.run(elsewhere, "resume", str(directory), *words, faults=again)
        assert (done.status, done.err.count("\n")) == (143, 1), done.err
        return " ".join(done.out.split()), config(directory)["budget"]["latency"]["store"]

    out, kept = resumed(run)
    assert kept == store and "is not used" not in out and "going on with" not in out
    copy = tmp_path / "copy" / "run"
    shutil.copytree(run, copy)
    out, kept = resumed(copy, f"budget.latency.store={store}")
    assert kept == store and "is not used" not in out
    shutil.rmtree(copy)
    shutil.copytree(run, copy)
    out, kept = resumed(copy)
    assert kept == str(copy / "latency")
    assert f"budget.latency.store={store} is not used" in out.replace("- ", "-")


def test_differences_since_the_last_time() -> None:
    now = {"nasrun": __version__, "threads": torch.get_num_threads()}
    record = {**now, "versions": {"torch": torch.__version__}}
    assert provenance.differences(record) == ""
    assert provenance.differences({}) == ""  # of a version that recorded less
    assert provenance.differences({"versions": 3, "resumed": {}}) == ""
    older = {**record, "threads": 99, "nasrun": "0"}
    said = provenance.differences(older)
    assert f"nasrun {__version__} (was 0), threads {now['threads']} (was 99)" in said
    assert provenance.differences({**older, "resumed": [record]}) == ""
    assert "was 99" in provenance.differences({**record, "resumed": [older]})


@pytest.mark.soak
def test_another_version_is_recorded_and_told(processes: Processes, tmp_path: Path) -> None:
    assert processes.run(tmp_path, *SEARCH, faults=stop("score/round0", 2)).status == 143
    run = tmp_path / "run"
    record = json.loads((run / "run.json").read_text())
    now = (record["nasrun"], record["versions"]["torch"])
    record["nasrun"], record["threads"] = "0.0.1", 9
    record["versions"]["torch"] = "1.2.3\x1b"
    (run / "run.json").write_text(json.dumps(record))
    out = processes.run(tmp_path, "resume", "run", faults=stop("score*", 2)).out
    told = f"nasrun {now[0]} (was 0.0.1), torch {now[1]} (was 1.2.3\\x1b), threads 1 (was 9)"
    assert f"going on with {told}" in " ".join(out.split())
    entry = json.loads((run / "run.json").read_text())["resumed"][-1]
    assert (entry["nasrun"], entry["versions"]["torch"], entry["threads"]) == (*now, 1)
    out = processes.run(tmp_path, "resume", "run", faults=stop("score*", 2)).out
    assert "going on with" not in out  # as since the last time


@pytest.mark.parametrize(
    ("recorded", "own"),
    [("inode", True), (None, False), (True, False), ("0", False), (1, False)],
)
def test_whose_run_it_is(recorded: Any, own: bool, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("{}")
    number = tmp_path.stat().st_ino if recorded == "inode" else recorded
    assert made_here({"inode": number}, tmp_path) == own
    assert not made_here({"inode": number}, tmp_path / "nowhere")
