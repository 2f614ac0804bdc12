"""Links planted in a run directory or a sweep: what they point to is never written."""

from __future__ import annotations

import csv
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from processes import SEARCH, TINY, Fault, Processes

from nasrun.budget.latency_table import write_table
from nasrun.cli.main import main
from nasrun.errors import UserError
from nasrun.evaluator.store import TrialStore
from nasrun.report import canvas, sweep
from nasrun.run import files, layout
from nasrun.run.checkpoints import Checkpoints
from nasrun.run.lock import Lock
from nasrun.run.logs import Logs
from nasrun.values import Architecture, Cost, Trial
from tests.helpers import space_of

CANARY = b"canary\n" * 9

CONSTANTS = {name: value for name, value in vars(layout).items() if name.isupper()}
PICTURES = {
    f"{stem}.{suffix}"
    for name, value in CONSTANTS.items()
    if "PICTURE" in name
    for stem in ([value] if isinstance(value, str) else value)
    for suffix in ("png", "svg")
}
NAMES = {value for name, value in CONSTANTS.items() if "PICTURE" not in name} - {
    layout.EVENTS_PREFIX,
    layout.CHECKPOINTS,
}
IN_PLACE = {layout.METRICS, layout.TRIALS, layout.SAID, layout.LOCK}
"""Files that are not replaced as a whole; a link of such a name is refused."""

BEGINNINGS = {layout.RECORD, layout.RESULT}
"""Files by which a directory is known as a run."""


def planted(directory: Path, names: set[str], outside: Path) -> dict[str, Path]:
    """Plant links, soft and hard in turn; returns the file outside for each name."""
    directory.mkdir(parents=True, exist_ok=True)
    outside.mkdir(exist_ok=True)
    found = {}
    for number, name in enumerate(sorted(names)):
        target = found[name] = outside / name
        target.write_bytes(CANARY)
        path = directory / name
        path.unlink(missing_ok=True)
        path.hardlink_to(target) if number % 2 else path.symlink_to(target)
    return found


def replaced(directory: Path, names: set[str]) -> set[str]:
    """Names that are files of their own by now."""
    paths = (directory / name for name in names)
    return {
        path.name
        for path in paths
        if path.is_file() and not path.is_symlink() and path.stat().st_nlink == 1
    }


def untouched(targets: dict[str, Path]) -> bool:
    return all(path.read_bytes() == CANARY for path in targets.values())


# Each writer for itself.


def figure(path: Path) -> object:
    with canvas.house_style():
        return canvas.save_figure(canvas.column_figure(1.0)[0], path.with_suffix(""))


WRITERS: dict[str, Callable[[Path], object]] = {
    "x.json": lambda path: files.write_json(path, {}),
    "x.csv": lambda path: files.write_csv(path, ["a"], [[1]]),
    "x.bin": lambda path: files.write_bytes(path, b"1"),
    "x.png": figure,
    "x.svg": figure,
    "jobs.csv": lambda path: sweep.write_csv(path, [{"job": 1}]),
    "latency.csv": lambda path: write_table(path, {"x": 1.0}),
    "x.jsonl": lambda path: files.append(path, b"1\n"),
    "metrics.jsonl": lambda path: Logs(path.parent, {}),
    "trials.jsonl": lambda path: Logs(path.parent, {}),
    "lock": lambda path: Lock(path.parent).acquire(),
}


@pytest.mark.parametrize("kind", ["soft", "hard"])
@pytest.mark.parametrize("name", WRITERS)
def test_no_writer_follows_a_link(name: str, kind: str, tmp_path: Path) -> None:
    target, path = tmp_path / "outside", tmp_path / "run" / name
    target.write_bytes(CANARY)
    path.parent.mkdir()
    path.symlink_to(target) if kind == "soft" else path.hardlink_to(target)
    try:
        WRITERS[name](path)
    except UserError as error:
        assert f"{path} is refused" in str(error)
        assert name in IN_PLACE | {"x.jsonl"}
    else:
        assert replaced(path.parent, {name}) == {name}
    assert target.read_bytes() == CANARY


@pytest.mark.parametrize("knows", [True, False])
def test_no_reader_follows_a_link(
    knows: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether the system refuses links by itself or not."""
    if not knows:
        monkeypatch.setattr(files, "_CAUTION", files._CAUTION & ~getattr(os, "O_NOFOLLOW", 0))
    (tmp_path / "own").write_bytes(CANARY)
    for name, target in (("link", "own"), ("broken", "absent")):
        (tmp_path / name).symlink_to(target)
        with pytest.raises(UserError, match=f"{name} is refused: it is a link"):
            files.read_bytes(tmp_path / name, 100)
    assert files.read_bytes(tmp_path / "own", 100) == CANARY
    with pytest.raises(UserError, match="63 bytes are more than the 62 allowed"):
        files.read_bytes(tmp_path / "own", 62)
    with pytest.raises(FileNotFoundError):
        files.read_bytes(tmp_path / "absent", 100)


def test_the_store_of_trials_is_no_link(tmp_path: Path) -> None:
    trial = Trial(Architecture("x", (0,)), 0.5, Cost(1, 1), 0)
    for link in (Path.symlink_to, Path.hardlink_to):
        store = TrialStore(tmp_path / link.__name__, {"networks": 1})
        target = tmp_path / "outside"
        target.write_bytes(CANARY)
        store.path.parent.mkdir()
        link(store.path, target)
        with pytest.raises(UserError, match="is refused"):
            store.add(trial)
        assert target.read_bytes() == CANARY


def test_a_new_run_writes_no_checkpoints_through_a_link(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "000001.json").write_bytes(CANARY)  # looks like one to be pruned
    (tmp_path / "checkpoints").symlink_to(outside)
    with pytest.raises(UserError, match="it is a link"):
        files.make_folder(tmp_path / "checkpoints")
    with pytest.raises(UserError, match="it is a link"):
        Checkpoints(tmp_path / "checkpoints").read(print)
    assert [path.name for path in outside.iterdir()] == ["000001.json"]


# Whole runs, from the beginning, in a directory full of links.

DARTS = (
    *("search_space=darts_cell", "dataset=synthetic", "effort=smoke", "threads=1"),
    *("dataset.train_images=32", "dataset.validation=16"),
)
CELLS = (*DARTS, "sampler=uniform", "search_algo=random", "search_algo.evaluations=2")
SPOS = (
    *("search_space=spos_blocks", "sampler=uniform", "dataset=synthetic", "effort=smoke"),
    "threads=1",
)
MACRO = (
    *("search_space=nas_bench_macro", "search_space.search.width=0.125"),
    *("search_space.final.width=0.25", "dataset=synthetic", "effort=smoke", "threads=1"),
)
RANK = (
    *("rank.architectures.count=4", "rank.resamples=0", "rank.k=2", "rank.truth_store=store"),
    *("evaluator@rank.also=kl", "rank.also.images=16", "trainer.epochs=2", "rank.epochs=[1]"),
)
TABLE = ("evaluator.path=table.csv", "evaluator.score=score", "evaluator=table")
RUNS: dict[str, tuple[tuple[str, ...], set[str]]] = {
    "supernet": (
        ("supernet", *SPOS, "search_algo=random", "health.every=1"),
        {layout.SUPERNET, layout.HEALTH},
    ),
    "search": (
        ("search", *CELLS),
        {"architecture.png", layout.ARCHITECTURE, layout.SUPERNET, layout.NETWORK},
    ),
    "search with goals": (
        *(("search", *SPOS, "search_algo=nsga2", "search_algo.goals=[macs,latency_ms]"),),
        {layout.FRONT, "front.png", "front.svg"},
    ),
    "search by pruning": (
        ("search", "search_space=dso_block", "search_algo=dso", *SPOS[2:]),
        {layout.BLOCK_MACS, "block_macs.svg"},
    ),
    "retrain": (
        ("retrain", "architecture=given.json", *DARTS),
        {layout.NETWORK, "architecture.svg"},
    ),
    "rank": (
        ("rank", *MACRO, *RANK),
        {layout.RANKING, layout.RANKING_TABLE, "size_bias.png", "tau_by_epoch.svg", "also.png"},
    ),
    "compare": (
        ("compare", *MACRO, *TABLE, "compare.evaluations=20"),
        {layout.COMPARISON, layout.COMPARISON_CURVES, "compare.png", layout.SEARCHES},
    ),
    "compare by tau": (
        *(("compare", *MACRO, *TABLE, "compare.taus=[0.5,0.9]", "compare.evaluations=20"),),
        {layout.REGRET_BY_TAU, "regret_by_tau.svg"},
    ),
}


@pytest.mark.soak
@pytest.mark.few(1)
@pytest.mark.parametrize("kind", ["retrain", *(kind for kind in RUNS if kind != "retrain")])
def test_a_run_in_a_directory_full_of_links(
    kind: str, processes: Processes, tmp_path: Path
) -> None:
    words, wanted = RUNS[kind]
    if kind == "retrain":
        given = space_of("darts_cell").sample(np.random.default_rng(0))
        (tmp_path / "given.json").write_text(json.dumps(given.to_json()))
    if "compare" in kind:
        write_scores(tmp_path / "table.csv")
        words = (*words, "compare.seeds=3", "compare.resamples=0")
    run = tmp_path / "run"
    names = (NAMES | PICTURES | {f"{layout.EVENTS_PREFIX}1"}) - IN_PLACE - BEGINNINGS
    # A run reads the latencies in its directory, so it refuses a link there; see above.
    plant = names - {layout.LATENCIES} if "latency_ms" in " ".join(words) else names
    targets = planted(run, plant, tmp_path / "outside")
    done = processes.run(tmp_path, *words, "hydra.run.dir=run")
    assert (done.status, done.err) == (0, "")
    assert untouched(targets)
    written = replaced(run, names)
    assert wanted <= written
    check_names(run, names)


def check_names(run: Path, names: set[str]) -> None:
    """Every file of a run has a name of the table in layout.py."""
    for path in run.iterdir():
        known = path.name in names | IN_PLACE | BEGINNINGS | {layout.CHECKPOINTS}
        assert known or path.name.startswith(layout.EVENTS_PREFIX), path.name


def write_scores(path: Path) -> None:
    space = space_of("nas_bench_macro")
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["arch", "score"])
        for number, architecture in enumerate(space.every()):
            writer.writerow(["".join(map(str, architecture.choices)), 50 + number % 40])


@pytest.mark.soak
def test_a_run_goes_on_in_a_directory_full_of_links(processes: Processes, tmp_path: Path) -> None:
    stop: Fault = ("signal_at", [15, "safe_point", "score*", 1])
    line = ("search", *CELLS, "hydra.run.dir=run")
    assert processes.run(tmp_path, *line, faults=[stop]).status == 143
    run = tmp_path / "run"
    names = (NAMES | PICTURES) - IN_PLACE - {layout.RECORD, layout.RESULT}
    targets = planted(run, names, tmp_path / "outside")
    done = processes.run(tmp_path, "resume", "run")
    assert (done.status, done.err) == (0, "")
    assert untouched(targets)
    assert {"architecture.png", "architecture.svg", "supernet.safetensors"} <= replaced(run, names)
    check_names(run, names)


@pytest.mark.few(1)
@pytest.mark.parametrize("name", [layout.CHECKPOINTS, *sorted(IN_PLACE), ".run.json.writing"])
def test_links_that_a_new_run_refuses(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    outside, run = tmp_path / "outside", tmp_path / "run"
    targets = planted(run, {name}, outside)
    if name == layout.CHECKPOINTS:
        (run / name).unlink()
        (run / name).symlink_to(outside)
    assert main(SEARCH) == 2
    said = capsys.readouterr().err
    assert f"{run / name} is refused" in said and said.count("\n") == 1
    assert untouched(targets) and len(list(outside.iterdir())) == 1


# Sweeps.


@pytest.mark.soak
def test_a_sweep_in_a_folder_full_of_links(
    processes: Processes, undisturbed: Path, tmp_path: Path
) -> None:
    """Its job is another run, so that it is refused, and nothing trains."""
    folder, outside = tmp_path / "sweep", tmp_path / "outside"
    shutil.copytree(undisturbed, folder / "0")
    targets = planted(folder, NAMES | PICTURES, outside)
    shutil.copytree(undisturbed, outside / "1")
    (folder / "1").symlink_to(outside / "1")
    line = ("search", "-m", *TINY, "seed=5,0", "resume=auto", "hydra.sweep.dir=sweep")
    before = {path: path.read_bytes() for path in (outside / "1").rglob("*") if path.is_file()}
    done = processes.run(tmp_path, *line)
    assert done.status == 2, done.err
    assert "Traceback" not in done.out + done.err
    assert f"{folder / '1'} is refused: it is a link" in done.err
    assert untouched(targets)
    assert before == {
        path: path.read_bytes() for path in (outside / "1").rglob("*") if path.is_file()
    }
    written = replaced(folder, NAMES)
    assert {"jobs.csv", "summary.csv", "multirun.yaml", "refused.jsonl"} <= written
    assert json.loads((folder / "0/result.json").read_text())["status"] == "done"


@pytest.mark.soak
def test_pictures_of_a_sweep_in_a_folder_full_of_links(
    processes: Processes, tmp_path: Path
) -> None:
    folder = tmp_path / "sweep"
    targets = planted(folder, NAMES | PICTURES, tmp_path / "outside")
    line = ("rank", "-m", *MACRO, *RANK, "sampler=uniform,fair", "seed=0,1,2")
    done = processes.run(tmp_path, *line, "hydra.sweep.dir=sweep")
    assert done.status == 0
    # Where reports are written, what has their name and is none of ours is left alone.
    assert done.err == "" or done.err.startswith("nasrun: no report was written: sweep/report.")
    assert done.err.count("\n") <= 1
    assert untouched(targets)
    wanted = {"rankings", "spread", "also_scores", "also_truth", "proxies", "methods"}
    assert {f"{stem}.{suffix}" for stem in wanted for suffix in ("png", "svg")} <= replaced(
        folder, PICTURES
    )
    assert {path.name for path in folder.iterdir() if path.is_file()} <= NAMES | PICTURES
