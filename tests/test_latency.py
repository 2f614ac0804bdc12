"""Latencies: tables of a user, tables that are measured, kept and used again, and bad ones."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nasrun.budget.budget import Budget, Range
from nasrun.budget.candidates import Candidates
from nasrun.budget.latency import Latencies, Latency, read_table, write_table
from nasrun.cli.main import main
from nasrun.errors import UserError
from nasrun.run.screen import Screen
from nasrun.search_space.base import SearchSpace
from nasrun.search_space.layer import Layer
from nasrun.streams import Streams
from nasrun.values import Architecture, Problem
from tests.helpers import CPU, TASK, space_of

WORDS = [
    *("search", "search_space=spos_blocks", "sampler=uniform", "search_algo=evolution"),
    *("dataset=synthetic", "effort=smoke", "threads=1", "shortlist.count=1", "hydra.run.dir=run"),
]
SYNTHETIC = Problem(3, 8, 4)
ANY = Range(min=None, max=None)


def latency(store: Path, **changes: Any) -> Latency:
    values: dict[str, Any] = {"table": None, "store": str(store), "device": "auto"}
    values |= {"batch_size": 1, "repeats": 1, "warm_up": 1, "networks": 0}
    return Latency(**values | changes)


def bind(
    settings: Latency, space: SearchSpace, problem: Problem = TASK, kept: Path | None = None
) -> Latencies:
    return settings.bind(space, problem, CPU, Screen(), kept)


def names(space: SearchSpace, architecture: Architecture, problem: Problem = TASK) -> list[str]:
    return [layer.name for layer in space.layers(architecture, problem, "final")]


def all_names(space: SearchSpace, problem: Problem = TASK) -> list[str]:
    found = {
        name: None
        for option in range(4)
        for name in names(space, Architecture(space.name, (option,) * 20), problem)
    }
    return list(found)


def user_table(path: Path, space: SearchSpace, problem: Problem = TASK) -> dict[str, float]:
    """Numbers with all their digits."""
    rng = np.random.default_rng(0)
    table = {name: float(rng.random()) for name in all_names(space, problem)}
    write_table(path, table)
    return table


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is measured, by name; the times are made up, with all their digits."""
    measured: list[str] = []

    def time(self: Latency, layer: Layer, compute: Any) -> float:
        measured.append(layer.name)
        return 1 / (3 + len(measured))

    monkeypatch.setattr(Latency, "time", time)
    return measured


@pytest.fixture
def never_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.MonkeyPatch.setattr(monkeypatch, Latency, "time", no_time)


def no_time(self: Latency, layer: Layer, compute: Any) -> float:
    raise AssertionError(f"{layer.name} is measured")


def test_a_users_table_is_summed(tmp_path: Path, never_timed: None) -> None:
    space = space_of("spos_blocks")
    table = user_table(tmp_path / "mine.csv", space)
    part = latency(tmp_path / "store", table=str(tmp_path / "mine.csv"))
    measure = bind(part, space).measure
    for seed in range(20):
        architecture = space.sample(np.random.default_rng(seed))
        assert measure(architecture) == math.fsum(table[n] for n in names(space, architecture))
    assert not (tmp_path / "store").exists()


def test_an_operation_more_than_once_counts_more_than_once(tmp_path: Path) -> None:
    space = space_of("spos_blocks")
    alike = Architecture(space.name, (1,) * 20)
    assert len(names(space, alike)) > len(set(names(space, alike)))
    write_table(tmp_path / "mine.csv", dict.fromkeys(all_names(space), 1.0))
    measure = bind(latency(tmp_path, table=str(tmp_path / "mine.csv")), space).measure
    assert measure(alike) == len(names(space, alike)) == 22


def test_bounds_at_the_ends_of_a_users_table(tmp_path: Path) -> None:
    # Sums of such numbers depend on their order in the last digit; the bounds that errors name
    # as the nearest are reachable all the same.
    space = space_of("spos_blocks")
    user_table(tmp_path / "mine.csv", space)
    measure = bind(latency(tmp_path, table=str(tmp_path / "mine.csv")), space).measure
    low, high = map(measure, space.extremes(measure, Streams(0)))

    def candidates_within(**bounds: float) -> Candidates:
        budget = Budget(
            params=ANY,
            macs=ANY,
            bitops=ANY,
            latency_ms=Range(**{"min": None, "max": None} | bounds),
            latency=latency(tmp_path, table=str(tmp_path / "mine.csv")),
        )
        return budget.bind(space, TASK, bind(budget.latency, space), Screen())

    rng = np.random.default_rng(0)
    for bounds, value in (({"max": low}, low), ({"min": high}, high)):
        candidates = candidates_within(**bounds)
        assert candidates.exact
        for _ in range(5):
            assert measure(candidates.sample(rng)) == pytest.approx(value, rel=1e-12)
    for bounds in ({"max": low * (1 - 1e-6)}, {"min": high * (1 + 1e-6)}):
        with pytest.raises(UserError, match=r"budget.latency_ms.m.*cannot be met"):
            candidates_within(**bounds)


def test_measured_once(tmp_path: Path, timed: list[str], monkeypatch: Any) -> None:
    space = space_of("spos_blocks")
    first = bind(latency(tmp_path), space).measure
    assert sorted(timed) == sorted(all_names(space))
    (path,) = tmp_path.glob("*.csv")
    table = read_table(path)
    assert list(table) == sorted(all_names(space))
    assert table[timed[0]] == 1 / 4
    monkeypatch.setattr(Latency, "time", no_time)
    second = bind(latency(tmp_path), space).measure
    for seed in range(20):
        architecture = space.sample(np.random.default_rng(seed))
        assert first(architecture) == second(architecture)  # to the last digit
    with pytest.raises(AssertionError, match="is measured"):
        _ = bind(latency(tmp_path, batch_size=2), space).measure


def test_what_is_missing_is_measured_on_demand(tmp_path: Path, timed: list[str]) -> None:
    space = space_of("spos_blocks")
    _ = bind(latency(tmp_path), space).measure
    (path,) = tmp_path.glob("*.csv")
    table = read_table(path)
    lost = sorted(table)[3]
    timed.clear()
    write_table(path, {name: ms for name, ms in table.items() if name != lost})
    latencies = bind(latency(tmp_path), space)
    kept = tmp_path / "run.csv"
    latencies.keep(kept)
    assert not kept.exists()  # nothing was asked for
    measure = latencies.measure
    assert timed == [lost]
    # One that is met only later.
    del latencies.table.milliseconds[lost]
    latencies.keep(kept)
    for option in range(4):
        measure(Architecture(space.name, (option,) * 20))
    assert timed == [lost, lost]
    assert read_table(path) == read_table(kept) == latencies.table.milliseconds


def test_real_times(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    space = space_of("nas_bench_macro")
    measure = bind(latency(tmp_path, networks=3), space).measure
    (path,) = tmp_path.glob("*.csv")
    assert all(0 < ms < 1e4 for ms in read_table(path).values())
    assert measure(space.sample(np.random.default_rng(0))) > 0
    assert "against 3 whole networks" in capsys.readouterr().out


def test_tables_are_read_as_they_were_written(tmp_path: Path) -> None:
    table = {'a "b", c': 0.1, "ä,1\n2": 1 / 3, "x": 1e-300, "": 12345678.9012345, "y\x85z": 0.0}
    write_table(tmp_path / "t.csv", table)
    assert read_table(tmp_path / "t.csv") == table


@pytest.mark.few(4)
@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"op,ms\na,1\n", "has the columns operation and ms"),
        (b"operation,ms\na,1\nb,-1\n", "line 3: ms = '-1' is no time"),
        (b"operation,ms\na,nan\n", "line 2: ms = 'nan' is no time"),
        (b"operation,ms\na,fast\n", "line 2: ms = 'fast' is no time"),
        (b"operation,ms\n" + b"a" * 200_000 + b",1\n", "field larger than field limit"),
        (b"\xff\xfe\x00", "cannot read the latencies in mine.csv"),
        (b"operation,ms\na,1\n", "mine.csv has no latency of operation 'spos/"),
        (None, "cannot read the latencies in mine.csv"),
    ],
)
def test_bad_tables(
    text: bytes | None,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    if text is not None:
        Path("mine.csv").write_bytes(text)
    bound = "budget.latency_ms.max=9"
    assert main([*WORDS, bound, "budget.latency.table=mine.csv"]) == 2
    err = capsys.readouterr().err
    assert said in err
    assert err.startswith("nasrun: error: ")
    assert err.count("\n") == 1
    assert not Path("run").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("budget.latency.device=cuda:77", "device=cuda:77: this machine has"),
        ("budget.latency.device=abacus", "device=abacus is no device"),
        ("budget.latency.store=file", "budget.latency.store=DIR"),
        ("budget.latency_ms.max=1e-9", "cannot be met: the smallest latency_ms of spos_blocks is"),
    ],
)
def test_what_cannot_be_measured(
    words: str,
    said: str,
    tmp_path: Path,
    timed: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    assert main([*WORDS, "budget.latency_ms.max=1e9", *words.split()]) == 2
    err = capsys.readouterr().err
    assert said in err
    assert err.count("\n") == 1
    assert not Path("run").exists()


def test_a_space_without_a_list_of_operations(tmp_path: Path, monkeypatch: Any) -> None:
    space = space_of("spos_blocks")
    monkeypatch.setattr(type(space), "layers", SearchSpace.layers)
    with pytest.raises(UserError, match="has no list of layers"):
        _ = bind(latency(tmp_path), space).measure


@pytest.mark.soak
def test_a_run_goes_by_the_table_that_it_began_with(
    tmp_path: Path, timed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    goal = ["search_algo=nsga2", "search_algo.goals=[latency_ms]"]
    assert main([*WORDS, *goal, "budget.latency.networks=0"]) == 0
    space, kept = space_of("spos_blocks"), Path("run/latency.csv")
    (stored,) = Path("outputs/latency").glob("*.csv")
    assert kept.read_bytes() == stored.read_bytes()
    front = json.loads(Path("run/front.json").read_text())
    table = read_table(kept)
    for point in front:
        layers = names(space, space.read(point["architecture"]), SYNTHETIC)
        assert point["latency_ms"] == math.fsum(table[name] for name in layers)
    # Others measure in the same store meanwhile: what the run has kept counts.
    write_table(stored, {name: 2 * ms for name, ms in table.items()})
    monkeypatch.setattr(Latency, "time", no_time)
    measure = bind(latency(stored.parent), space, SYNTHETIC, kept).measure
    for point in front:
        assert measure(space.read(point["architecture"])) == point["latency_ms"]


@pytest.mark.soak
def test_a_resumed_run_reads_its_own_copy_of_a_users_table(
    tmp_path: Path, never_timed: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    space, mine = space_of("spos_blocks"), Path("mine.csv")
    table = user_table(mine, space, SYNTHETIC)
    middle = math.fsum(
        table[name] for name in names(space, Architecture("spos_blocks", (1,) * 20), SYNTHETIC)
    )
    bound = [f"budget.latency_ms.max={middle!r}", "budget.latency.table=mine.csv"]
    assert main([*WORDS, *bound]) == 0
    trials, result = Path("run/trials.jsonl").read_bytes(), Path("run/result.json")
    for line in trials.splitlines():
        layers = names(space, space.read(json.loads(line)["architecture"]), SYNTHETIC)
        assert math.fsum(table[name] for name in layers) <= middle
    assert read_table(Path("run/latency.csv")) == table
    with mine.open("w") as file:  # it has changed since, beyond use
        csv.writer(file).writerows([("operation", "ms"), ("x", 1)])
    result.unlink()  # as if it had been killed at the very end
    assert main(["resume", "run"]) == 0
    assert Path("run/trials.jsonl").read_bytes() == trials
    assert json.loads(result.read_text())["test_accuracy"] >= 0
