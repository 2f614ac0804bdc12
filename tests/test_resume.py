"""Runs that are stopped, killed and starved go on, and end with the bits of undisturbed ones."""

from __future__ import annotations

import errno
import os
import shutil
import signal
from pathlib import Path

import pytest
from processes import SEARCH, Fault, Processes, manifests, outcome, snapshot
from resuming import (
    FOUND,
    HUP,
    INT,
    KILL,
    TERM,
    check_full_disk,
    check_second_signal,
    check_stopped,
    check_stopped_again_and_again,
    go_on,
    metrics_at,
    points,
)


@pytest.mark.few(1)
@pytest.mark.parametrize(
    ("number", "method", "stage", "count"),
    [
        (INT, "safe_point", "supernet/round0", 3),
        (HUP, "poll", "score/round0", 1),  # while the first architecture is scored
        (TERM, "safe_point", "predictor/round1", 1),
        (INT, "safe_point", "retrain", 2),
        (TERM, "poll", "", 3),  # while the winner is measured
    ],
    ids=lambda value: value.name if isinstance(value, signal.Signals) else str(value),
)
def test_a_signal_stops_at_a_safe_point(
    number: signal.Signals,
    method: str,
    stage: str,
    count: int,
    processes: Processes,
    undisturbed: Path,
    tmp_path: Path,
) -> None:
    check_stopped(processes, tmp_path, undisturbed, number, method, stage, count)


@pytest.mark.soak
def test_stopped_again_and_again(processes: Processes, undisturbed: Path, tmp_path: Path) -> None:
    """At every fourth safe point of the whole run."""
    assert check_stopped_again_and_again(processes, tmp_path, undisturbed, 4) >= 8


@pytest.mark.parametrize("number", [TERM, INT])
def test_a_signal_before_the_run_leaves_nothing(
    number: signal.Signals, processes: Processes, tmp_path: Path
) -> None:
    done = processes.run(tmp_path, *SEARCH, faults=[("signal_at", [number, "begin"])])
    assert done.status == 128 + number
    assert done.err.startswith("nasrun: ")
    assert "resume" not in done.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.soak
def test_a_signal_as_a_run_begins_or_goes_on(
    processes: Processes, undisturbed: Path, tmp_path: Path
) -> None:
    """It has begun, or it has not: there is always something to go on with."""
    done = processes.run(tmp_path, *SEARCH, faults=[("signal_at", [TERM, "_write_record"])])
    assert (done.status, "all work is saved" in done.err) == (143, True)
    for method in ("_go_back", "keep", "_write_record"):
        done = processes.run(tmp_path, "resume", "run", faults=[("signal_at", [INT, method])])
        assert (done.status, "all work is saved" in done.err) == (130, True)
    assert FOUND in go_on(processes, tmp_path, undisturbed)


@pytest.mark.soak
def test_a_second_signal_stops_at_once(
    processes: Processes, undisturbed: Path, tmp_path: Path
) -> None:
    check_second_signal(processes, tmp_path, undisturbed, (TERM, INT))


@pytest.fixture(scope="module")
def killed(processes: Processes, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a killed process leaves: several checkpoints, longer logs, a lock."""
    place = tmp_path_factory.mktemp("killed")
    kill = ("signal_at", [KILL, "safe_point", "", 3])  # as the winner has just been trained
    done = processes.run(place, *SEARCH, "checkpoint.steps=3", faults=[kill])
    assert (done.status, done.err) == (-KILL, "")
    assert len(manifests(place / "run")) >= 2
    return place / "run"


@pytest.fixture
def place(killed: Path, tmp_path: Path) -> Path:
    """A directory with a copy of it."""
    shutil.copytree(killed, tmp_path / "run")
    return tmp_path


@pytest.mark.soak
def test_a_kill_leaves_a_lock_that_nobody_holds(
    place: Path, processes: Processes, undisturbed: Path
) -> None:
    said = go_on(processes, place, undisturbed)
    assert "taking over the lock that process" in said
    assert FOUND in said


@pytest.mark.few(1)
@pytest.mark.parametrize("kind", ["json", "safetensors"])
def test_a_damaged_checkpoint_is_passed_over(
    kind: str, place: Path, processes: Processes, undisturbed: Path
) -> None:
    number = manifests(place / "run")[-1].stem
    (path,) = (place / "run/checkpoints").glob(f"{number}{'-retrain' * (kind != 'json')}.{kind}")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    said = go_on(processes, place, undisturbed)
    assert f"checkpoint {number}.json is damaged and passed over" in said
    assert FOUND in said


@pytest.mark.soak
def test_without_any_whole_checkpoint_it_starts_again(
    place: Path, processes: Processes, undisturbed: Path
) -> None:
    found = manifests(place / "run")
    for path in found:
        os.truncate(path, path.stat().st_size - 1)
    said = go_on(processes, place, undisturbed)
    assert said.count("is damaged and passed over") == len(found)
    assert "no checkpoint to continue from: starting at the beginning" in said
    shutil.rmtree(place / "run/checkpoints")
    (place / "run/result.json").unlink()
    said = go_on(processes, place, undisturbed)
    assert "starting at the beginning" in said


@pytest.mark.parametrize("behind", [-1, 0])
def test_a_log_cut_within_a_line(
    behind: int, place: Path, processes: Processes, undisturbed: Path
) -> None:
    """Behind the newest checkpoint, or behind the oldest: then that one is taken."""
    run = place / "run"
    with (run / "metrics.jsonl").open("ab") as file:
        file.write(b'{"stage": "retr')
    os.truncate(run / "metrics.jsonl", metrics_at(run, behind) + 9)
    assert FOUND in go_on(processes, place, undisturbed)


def test_a_log_that_no_checkpoint_has_so_short(
    place: Path, processes: Processes, undisturbed: Path
) -> None:
    run = place / "run"
    kept = (run / "metrics.jsonl").read_bytes().partition(b"\n")[0] + b"\n"
    (run / "metrics.jsonl").write_bytes(kept + b'{"sta')
    done = processes.run(place, "resume", "run")
    assert (done.status, done.err) == (0, "")
    assert f"metrics.jsonl lacks its last {lengths_said(done.out)} bytes" in done.out
    ours, theirs = outcome(run), outcome(undisturbed)
    lines = ours.pop("metrics.jsonl").splitlines()
    all_lines = theirs.pop("metrics.jsonl").splitlines()
    assert ours == theirs
    assert lines == [all_lines[0], *all_lines[1 - len(lines) :]]


def lengths_said(text: str) -> str:
    return text.partition("lacks its last ")[2].partition(" ")[0]


@pytest.mark.few(1)
@pytest.mark.parametrize("days", [-365, 365])
def test_the_clock_is_set(days: int, place: Path, processes: Processes, undisturbed: Path) -> None:
    assert FOUND in go_on(processes, place, undisturbed, ("clock", [days * 86400.0]))
    assert points(place / "run") == points(undisturbed)


@pytest.mark.few(1)
@pytest.mark.parametrize(
    "fault",
    [
        ("largest_file", [1000]),  # not even run.json
        ("no_space", [40]),
    ],
    ids=str,
)
def test_a_full_disk(fault: Fault, processes: Processes, undisturbed: Path, tmp_path: Path) -> None:
    check_full_disk(processes, tmp_path, undisturbed, fault)


@pytest.mark.few(1)
@pytest.mark.parametrize("fault", [("largest_file", [20_000]), ("no_space", [1])], ids=str)
def test_a_disk_that_is_still_full(
    fault: Fault, place: Path, processes: Processes, undisturbed: Path
) -> None:
    """A resume that fails so costs nothing."""
    before = [path.read_bytes() for path in manifests(place / "run")]
    done = processes.run(place, "resume", "run", faults=[fault])
    assert done.status == 2
    assert done.err.endswith(f"then go on with: nasrun resume {place / 'run'}\n")
    assert [path.read_bytes() for path in manifests(place / "run")] == before
    assert FOUND in go_on(processes, place, undisturbed)


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES])
def test_a_directory_that_cannot_be_written(number: int, place: Path, processes: Processes) -> None:
    before = snapshot(place / "run")
    fault = ("read_only", [str(place / "run"), number])
    done = processes.run(place, "resume", "run", faults=[fault])
    assert done.status == 2
    assert done.err.startswith("nasrun: error: cannot write ")
    assert os.strerror(number) in done.err
    assert done.err.count("\n") == 1
    assert snapshot(place / "run") == before


def test_what_is_no_run(processes: Processes, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for words, message in (
        (["nowhere"], "there is no such directory"),
        (["empty"], "no run has begun in it"),
        ([], "resume takes a run's directory"),
        (["-m", "empty"], "no switch like -m"),
    ):
        done = processes.run(tmp_path, "resume", *words)
        assert (done.status, message in done.err) == (2, True)
    assert list(tmp_path.rglob("*")) == [tmp_path / "empty"]
