"""Laws of runs that are stopped, killed and starved: tests/ holds a few cases, tests/soak/ all."""

from __future__ import annotations

import json
import shlex
import signal
from pathlib import Path

from processes import SEARCH, Fault, Processes, manifests, outcome
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

TERM, INT, HUP, KILL = signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGKILL
FOUND = "continuing from checkpoint"


def points(run: Path) -> dict[str, list[tuple[int, float]]]:
    """The curves that TensorBoard shows."""
    shown = EventAccumulator(str(run)).Reload()
    return {
        curve: sorted((point.step, point.value) for point in shown.Scalars(curve))
        for curve in shown.Tags()["scalars"]
    }


def metrics_at(run: Path, number: int) -> int:
    """Bytes of metrics.jsonl as that checkpoint knows them."""
    body = json.loads(manifests(run)[number].read_text())["checkpoint"]
    return int(json.loads(body)["logs"]["metrics.jsonl"])


def go_on(processes: Processes, place: Path, undisturbed: Path, *faults: Fault) -> str:
    """Resume the run in ``place``, to the same end; what it says."""
    done = processes.run(place, "resume", "run", faults=faults)
    assert (done.status, done.err) == (0, "")
    assert outcome(place / "run") == outcome(undisturbed)
    left = {path.name for path in (place / "run").iterdir()}
    assert not any(name == "lock" or name.endswith(".writing") for name in left)
    return done.out


def check_stopped(
    processes: Processes,
    place: Path,
    undisturbed: Path,
    number: signal.Signals,
    method: str,
    stage: str,
    count: int,
) -> None:
    """A signal in the ``count``-th call of ``method`` of Run stops at a safe point."""
    done = processes.run(place, *SEARCH, faults=[("signal_at", [number, method, stage, count])])
    run = place / "run"
    assert done.status == 128 + number
    assert done.err.count("\n") == 1
    assert metrics_at(run, -1) == (run / "metrics.jsonl").stat().st_size  # nothing is lost
    assert not (run / "result.json").exists()
    assert not (run / "lock").exists()
    command = shlex.split(done.err.partition("all work is saved, go on with: nasrun ")[2])
    assert command == ["resume", str(run)]
    assert FOUND in go_on(processes, place, undisturbed)
    assert points(run) == points(undisturbed)


def check_stopped_again_and_again(
    processes: Processes, place: Path, undisturbed: Path, every: int
) -> int:
    """A run that is stopped at each ``every``-th safe point; the number of stops."""
    words, stops = SEARCH, 0
    fault = ("signal_at", [TERM, "safe_point", "*", every])
    while (done := processes.run(place, *words, faults=[fault])).status:
        assert done.status == 128 + TERM
        words, stops = ("resume", "run"), stops + 1
        assert stops < 60
    assert outcome(place / "run") == outcome(undisturbed)
    assert points(place / "run") == points(undisturbed)
    return stops


def check_second_signal(
    processes: Processes, place: Path, undisturbed: Path, numbers: tuple[int, int]
) -> None:
    """A second signal within a step that would never end stops at once; the run goes on."""
    done = processes.run(place, *SEARCH, faults=[("signals_in_a_step", [*numbers])])
    assert done.status == 128 + numbers[1]
    assert done.err.count("\n") == 1
    assert "saved" not in done.err
    go_on(processes, place, undisturbed)


def check_full_disk(processes: Processes, place: Path, undisturbed: Path, fault: Fault) -> None:
    """A disk that is full is told in one line, and with space the run goes on."""
    done = processes.run(place, *SEARCH, "checkpoint.steps=3", faults=[fault])
    run = place / "run"
    assert done.status == 2
    assert done.err.startswith("nasrun: error: no space left to write ")
    assert done.err.count("\n") == 1
    assert not list(run.rglob(".*"))
    if not (run / "run.json").exists():
        assert processes.run(place, *SEARCH).status == 0
        assert outcome(run) == outcome(undisturbed)
        return
    assert done.err.endswith(f"then go on with: nasrun resume {run}\n")
    go_on(processes, place, undisturbed)
