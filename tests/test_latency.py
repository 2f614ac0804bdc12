"""Latencies: tables of a user, tables that are measured, kept and used again, and bad ones."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pytest
import torch

from nasrun.budget import timing
from nasrun.budget.budget import Budget, Range
from nasrun.budget.calibration import OFFSET, SCALE, calibrate
from nasrun.budget.candidates import Candidates
from nasrun.budget.latency import Latencies, Latency
from nasrun.budget.latency_table import read_table, write_table
from nasrun.cli.main import main
from nasrun.errors import UserError
from nasrun.run import processor
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

    def times(self: Latency, layers: Sequence[Layer], *_: Any, **__: Any) -> list[list[float]]:
        found = []
        for layer in layers:
            measured.append(layer.name)
            found.append([1 / (3 + len(measured))])
        return found

    monkeypatch.setattr(Latency, "times", times)
    return measured


@pytest.fixture
def never_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.MonkeyPatch.setattr(monkeypatch, Latency, "times", no_time)


def no_time(self: Latency, layers: Sequence[Layer], *_: Any, **__: Any) -> list[list[float]]:
    raise AssertionError(f"{layers[0].name} is measured")


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
    monkeypatch.setattr(Latency, "times", no_time)
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
    measure = bind(latency(tmp_path, networks=3, min_r=-1), space).measure
    (path,) = tmp_path.glob("*.csv")
    table = read_table(path)
    scale, offset = table.pop(SCALE), table.pop(OFFSET)
    assert scale > 0 and offset >= 0
    assert all(0 < ms < 1e4 for ms in table.values())
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


@pytest.mark.few(2)
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
    monkeypatch.setattr(Latency, "times", no_time)
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
    # A smoke leaves the networks that a table is about at their size.
    assert main([*WORDS, *bound, "search_space.final.width=0.0625"]) == 0
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


class Work(torch.nn.Module):
    """A module that takes so many seconds of a made-up clock, which slows down."""

    clock = 0.0
    order: list[str]

    def __init__(self, name: str, seconds: float, order: list[str]) -> None:
        super().__init__()
        self.name, self.seconds, self.order = name, seconds, order

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.order.append(self.name)
        Work.clock += self.seconds * (1 + Work.clock)  # the machine gets busier and busier
        return images


def test_operations_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """So a machine that gets slower slows all of them alike; one after another it would not."""
    order: list[str] = []
    monkeypatch.setattr(Work, "clock", 0.0)
    monkeypatch.setattr(timing, "now", lambda: Work.clock)
    seconds = {"a": 0.001, "b": 0.002, "c": 0.001}

    def layer(name: str) -> Layer:
        return Layer(name, (1, 2, 2), lambda: Work(name, seconds[name], order))

    layers = [layer(name) for name in seconds]
    times = timing.times_in_turns(layers, CPU, batch_size=1, warm_up=2, repeats=100)
    assert order == list(seconds) * 102
    assert [len(each) for each in times] == [100] * 3
    a, b, c = (median(each) for each in times)
    assert c / a == pytest.approx(1, rel=0.01)
    assert b / a == pytest.approx(2, rel=0.01)
    monkeypatch.setattr(timing, "MAX_BYTES_IN_TURNS", 1)  # too little memory for two
    order.clear()
    timing.times_in_turns(layers, CPU, batch_size=1, warm_up=0, repeats=2)
    assert order == ["a", "a", "b", "b", "c", "c"]


def test_a_calibration() -> None:
    sums = np.array([1.0, 2.0, 4.0, 3.0])
    exact = calibrate(sums, 2 + 3 * sums)
    assert (exact.scale, exact.offset) == pytest.approx((3, 2))
    assert exact.r == pytest.approx(1) and exact.residual == pytest.approx(0, abs=1e-9)
    assert exact.is_good(0.9, 0.0)
    below = calibrate(sums, 3 * sums - 1)  # a network takes no less than nothing beside its sum
    assert below.offset == 0 and 2 < below.scale < 3 and below.r == pytest.approx(1)
    falling = calibrate(sums, 10 - sums)
    assert falling.scale > 0 and falling.r == pytest.approx(-1)
    assert not falling.is_good(0.9, 0.1)
    alike = calibrate(sums, np.full(4, 7.0))  # r is unknown, and so is what tells them apart
    assert alike.r == 0 and alike.residual == pytest.approx(0, abs=1e-9)


@pytest.fixture
def weighed(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Times that are made up: of layers by name, of networks by what ``weighed`` says of a sum."""
    space, made = space_of("spos_blocks"), dict[str, Any]()
    rng = np.random.default_rng(1)
    made["ms"] = {name: float(rng.uniform(1, 2)) for name in all_names(space)}
    made["calls"] = 0

    def times(self: Latency, layers: Sequence[Layer], *_: Any, **__: Any) -> list[list[float]]:
        made["calls"] += 1
        found, number = [], 0
        for layer in layers:
            if layer.name != "network":
                found.append([made["ms"][layer.name]])
                continue
            chosen = space.sample(Streams(0).numpy("latency", number))
            total = math.fsum(made["ms"][name] for name in names(space, chosen))
            found.append([made["whole"](total, number, made["calls"])])
            number += 1
        return found

    monkeypatch.setattr(Latency, "times", times)
    return made


def test_sums_are_calibrated_against_whole_networks(
    tmp_path: Path, weighed: dict[str, Any]
) -> None:
    weighed["whole"] = lambda total, number, call: 5 + 0.5 * total
    space = space_of("spos_blocks")
    measure = bind(latency(tmp_path, networks=8), space).measure
    one = space.sample(np.random.default_rng(7))
    total = math.fsum(weighed["ms"][name] for name in names(space, one))
    assert measure(one) == pytest.approx(5 + 0.5 * total)
    (path,) = tmp_path.glob("*.csv")
    assert read_table(path)[SCALE] == pytest.approx(0.5)
    assert bind(latency(tmp_path, networks=8), space).measure(one) == measure(one)
    assert weighed["calls"] == 1


def test_bad_measurements_are_repeated_once_and_never_kept(
    tmp_path: Path, weighed: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    """What passed without a word before: sums that tell nothing of whole networks."""
    noise = np.random.default_rng(0).uniform(1, 9, 8)
    weighed["whole"] = lambda total, number, call: float(noise[number])
    space = space_of("spos_blocks")
    with pytest.raises(UserError, match=r"cannot be trusted: .* r -?0\.\d+ .*, twice"):
        _ = bind(latency(tmp_path, networks=8), space).measure
    assert weighed["calls"] == 2 and not list(tmp_path.glob("*.csv"))
    assert "measured again" in capsys.readouterr().out
    weighed["whole"] = lambda total, number, call: float(noise[number]) if call == 3 else total
    _ = bind(latency(tmp_path, networks=8), space).measure
    (path,) = tmp_path.glob("*.csv")
    assert weighed["calls"] == 4 and read_table(path)[OFFSET] == pytest.approx(0, abs=1e-9)
    weighed["whole"] = lambda total, number, call: float(noise[number])
    _ = bind(latency(tmp_path, networks=8, min_r=-1), space).measure  # the user takes them
    assert len(list(tmp_path.glob("*.csv"))) == 2  # apart from those that were checked


def test_another_processor_has_another_table(
    tmp_path: Path, timed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    space, info = space_of("nas_bench_macro"), tmp_path / "cpuinfo"
    monkeypatch.setattr(processor, "CPU_INFO", info)
    for number, model in enumerate(("Made Up(R) 9000 @ 2.20GHz", "Other 1")):
        info.write_text(f"processor : 0\nmodel name\t: {model}\nflags : x\n")
        assert processor.processor() == model
        _ = bind(latency(tmp_path / "store"), space).measure
        assert len(list((tmp_path / "store").iterdir())) == number + 1
    assert list((tmp_path / "store").glob("made-up-r-9000-2-20ghz-cpu-*.csv"))


def test_the_winner_is_measured_as_a_whole(tmp_path: Path, weighed: dict[str, Any]) -> None:
    weighed["whole"] = lambda total, number, call: total
    space = space_of("spos_blocks")
    one = space.sample(Streams(0).numpy("latency", 0))
    unused = bind(latency(tmp_path, networks=3), space)
    assert unused.of_winner(one) == {}
    used = bind(latency(tmp_path, networks=3), space)
    predicted = used.measure(one)
    found = used.of_winner(one)
    assert found["latency_ms_predicted"] == predicted
    assert [found["latency_ms"], *found["latency_ms_interval"]] == pytest.approx([predicted] * 3)
