"""Run directories of strangers: data, read within bounds; refused or passed over, never obeyed."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hostile
import pytest
import torch
from hostile import (
    ESCAPE,
    KINDS,
    SEARCH,
    Reached,
    each,
    enlarge,
    manifests,
    nested,
    newest,
    payload,
    shown,
    stopped_before_training,
    write_manifest,
    write_record,
    write_tensors,
)

from nasrun.cli import main as cli
from nasrun.config.compose import compose

LOGS = {"_target_": "nasrun.run.logs.Logs", "directory": "../outside", "lengths": {}}
"""A class of nasrun, but none that a configuration is made of: it empties files."""


@pytest.fixture(scope="module")
def left_behind(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return hostile.left_behind(tmp_path_factory)


@pytest.fixture(autouse=True)
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory that no run may touch, nor the current one beside it; and no run trains on."""
    place, here = tmp_path / "outside", tmp_path / "here"
    place.mkdir()
    (place / "canary").write_text("canary\n" * 9)
    here.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.delenv("NASRUN_DEBUG", raising=False)
    with stopped_before_training():
        yield place
    assert {path.name for path in place.iterdir()} == {"canary"}
    assert (place / "canary").read_text() == "canary\n" * 9
    assert list(here.iterdir()) == []


@pytest.fixture
def run(left_behind: dict[str, Path], tmp_path: Path) -> Path:
    """A copy of a run that was killed while it trained its supernet."""
    return Path(shutil.copytree(left_behind["supernet"], tmp_path / "run"))


@pytest.fixture
def done(left_behind: dict[str, Path], tmp_path: Path) -> Path:
    """A copy of a run that has come to its end."""
    return Path(shutil.copytree(left_behind["done"], tmp_path / "done"))


Say = Callable[..., str]


@pytest.fixture
def refused(capfd: pytest.CaptureFixture[str]) -> Say:
    """Has a command refused, in a line for each mistake, and returns what is said."""

    def command(*words: object) -> str:
        capfd.readouterr()
        status = cli.main([str(word) for word in words])
        out, err = capfd.readouterr()
        lines = err.removesuffix("\n").split("\n")
        said = [line for line in lines if not line.startswith("nasrun: note: ")]
        assert status == 2 and "Traceback" not in out and "\x1b" not in out
        assert all(line.isprintable() for line in lines) and len("\n".join(said)) < 3000
        assert said[0].startswith("nasrun: error: ")
        if len(said) > 1:
            assert said[0] == f"nasrun: error: {len(said) - 1} mistakes:"
            assert all(line.startswith("  ") for line in said[1:])
        return "\n".join(said)

    return command


@pytest.fixture
def goes_on(capfd: pytest.CaptureFixture[str]) -> Say:
    """Has a command begin to train, and returns what it said until then."""

    def command(*words: object) -> str:
        capfd.readouterr()
        with pytest.raises(Reached):
            assert cli.main([str(word) for word in words]) == "never reached"
        said = "".join(capfd.readouterr())
        assert "\x1b" not in said and "Traceback" not in said
        return said

    return command


# Pickles.


@pytest.mark.few(1)
@pytest.mark.parametrize("name", ["run.json", "result.json"])
def test_a_pickle_that_must_be_read(name: str, run: Path, outside: Path, refused: Say) -> None:
    (run / name).write_bytes(payload(outside))
    assert "is not JSON" in refused("resume", run)


@pytest.mark.parametrize("name", ["run.json", "architecture.json"])
def test_retrain_from_a_pickle(name: str, done: Path, outside: Path, refused: Say) -> None:
    (done / name).write_bytes(payload(outside))
    assert "is not JSON" in refused("retrain", f"from={done}")


def test_pickles_that_are_passed_over(run: Path, outside: Path, goes_on: Say) -> None:
    names = ["metrics.jsonl", "trials.jsonl", "architecture.json", "lock", "supernet.safetensors"]
    names += ["events.out.tfevents.1", "checkpoints/000003.json"]
    for name in (*names, "checkpoints/000002-supernet.safetensors"):
        (run / name).write_bytes(payload(outside))
    said = goes_on("resume", run)
    assert said.count("passed over") == 2 and "continuing from checkpoint 1" in said


@pytest.mark.parametrize("kind", ["pickle", "torch.save"])
def test_a_pickle_that_its_digest_vouches_for(
    kind: str, run: Path, outside: Path, refused: Say
) -> None:
    torch.save({"x": torch.zeros(2)}, outside.parent / "file")
    data = payload(outside) if kind == "pickle" else (outside.parent / "file").read_bytes()
    write_tensors(run, "supernet", data)
    assert "no safetensors file" in refused("resume", run)


# What run.json asks for.

TARGETS = [
    *("os.system", "builtins.eval", "subprocess.Popen", "functools.partial", "hydra.utils.call"),
    *(
        "hydra._internal.utils._locate",
        "nasrun.config.build.os.system",
        "nasrun.cli.main.os.system",
    ),
    *("nasrun.run.files.os.system", "nasrun.config.compose.Path", "nasrun.errors.UserError"),
    *("torch.optim.lr_scheduler.partial", "torch.optim.sgd.torch.load", "torch.optim.SGD"),
    *("nаsrun.sampler.uniform.Uniform", "nasrun.sampler.uniform.Uniform\u200b"),  # Cyrillic; hidden
    *("nasrun" + ".a" * 5000, f"nasrun.x.{ESCAPE}", "../../outside/evil", ""),
    *(["os.system"], {"_target_": "os.system"}, 3, None),
]


@pytest.mark.parametrize("target", TARGETS, ids=shown)
def test_a_target(target: Any, run: Path, refused: Say) -> None:
    write_record(run, "config/sampler", {"_target_": target, "size": "params"})
    assert "_target_" in refused("resume", run) or target in ("torch.optim.SGD", TARGETS[10])


@pytest.mark.few(6)
@pytest.mark.parametrize(
    "where",
    "x sampler sampler/x sampler/_args_ sampler/_partial_ seed trainer/schedule trainer/schedule/x "
    f"trainer/schedule/kind checkpoint/steps dataset/mean search_space/search {ESCAPE}".split(),
    ids=shown,
)
def test_a_class_that_is_none_of_the_parts(where: str, run: Path, refused: Say) -> None:
    write_record(run, f"config/{where}", [LOGS] if where == "dataset/mean" else LOGS)
    refused("resume", run)


@each(
    {
        "task": ["../../outside/evil", "__init__", "os", "retrain", ["search"], {}, None],
        "config": [[], None],
        "config/task": [["search"]],
        "config/device": ["${oc.env:HOME}", ESCAPE, "\ud800", 10**4000],
        "config/seed": [math.inf, math.nan, "${seed}", "x" * 10**6],
        "config/dataset": ["${dataset}", nested(900)],
        "config/dataset/mean": [["${oc.decode:${oc.env:HOME}}"], nested(500)],
        f"config/{ESCAPE}": [1],
        "config/" + "x" * 10**6: [1],
        "resumed": [nested(900)],
    }
)
def test_a_record(where: str, value: Any, run: Path, refused: Say) -> None:
    write_record(run, where, value)
    assert os.environ["HOME"] not in refused("resume", run).replace(str(run), "")


@pytest.mark.parametrize("text", ["[" * 10**5, "9" * 10**4, "[]", "\xff", "", "nul"], ids=shown)
@pytest.mark.parametrize("name", ["run.json", "result.json"])
def test_odd_json(text: str, name: str, run: Path, refused: Say) -> None:
    (run / name).write_text(text, encoding="latin-1")
    refused("resume", run)


def test_words_that_no_terminal_or_file_takes(run: Path, goes_on: Say) -> None:
    write_record(run, "overrides", ["\ud800", ESCAPE, nested(9)])
    (run / "lock").write_text(json.dumps({"host": ESCAPE, "pid": nested(900), "since": "\ud800"}))
    assert "taking over the lock" in goes_on("resume", run)
    assert json.loads((run / "run.json").read_text())["overrides"][:2] == ["\ud800", ESCAPE]


def test_no_data_is_placed_where_a_run_says(run: Path, outside: Path, refused: Say) -> None:
    dataset = compose([f"dataset.root={outside / 'new'}", "dataset=cifar10"])["dataset"]
    write_record(run, "config/dataset", dataset)
    assert dataset["download"] and "absent" in refused("resume", run)


@pytest.mark.soak
def test_nothing_else_in_the_directory_is_read(
    run: Path, done: Path, outside: Path, goes_on: Say, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = ["", "nasrun/", "torch/", "hydra_plugins/evil/", ".hydra/", "conf/", "conf/task/"]
    names = ["__init__.py", "sitecustomize.py", "usercustomize.py", "multirun.yaml"]
    names += ["config.yaml", "overrides.yaml", "hydra.yaml", "retrain.yaml", "search.yaml"]
    laughs = "".join(f"x{i}: &x{i} [*x{i - 1}, *x{i - 1}]\n" for i in range(1, 99))
    for place in (
        f"{root}/{folder}{name}" for root in (run, done) for folder in folders for name in names
    ):
        Path(place).parent.mkdir(exist_ok=True, parents=True)
        python, yaml = f"open({str(outside / 'evil')!r}, 'w')\n", f"x0: &x0 [_target_]\n{laughs}"
        Path(place).write_text(yaml if place.endswith(".yaml") else python)
    command = [sys.executable, "-P", "-m", "nasrun"]
    for words in (["retrain", "from=.", "--cfg", "job"], ["resume", "."]):
        ended = subprocess.run([*command, *words], cwd=done, capture_output=True, check=False)
        assert (ended.returncode, ended.stderr) == (0, b"")
    monkeypatch.chdir(run)
    goes_on("resume", ".")


# Files without end, and what is no plain file.


def test_files_without_end(run: Path, goes_on: Say, refused: Say) -> None:
    """What is too large is not read, also where a manifest declares it."""
    body = newest(run)
    body["parts"]["supernet"]["tensors"]["size"] = 2**40
    write_manifest(run, body)
    names = ["metrics.jsonl", "trials.jsonl", "lock", "events.out.tfevents.0"]
    for name in (*names, "checkpoints/000002-supernet.safetensors", "checkpoints/000003.json"):
        enlarge(run / name)
    said = goes_on("resume", run)
    assert said.count("passed over") == 2 and "continuing from checkpoint 1" in said
    assert sum(path.stat().st_size for path in run.rglob("*") if path.is_file()) < 2**24
    for name in ("result.json", "run.json"):
        enlarge(run / name)
        assert "more than the" in refused("resume", run)


@pytest.mark.parametrize("length", [10**15, 10**400], ids=shown)
def test_logs_shorter_than_every_checkpoint_says(length: int, run: Path, goes_on: Say) -> None:
    body = newest(run)
    manifests(run)[0].unlink()
    write_manifest(run, {**body, "logs": dict.fromkeys(body["logs"], length)})
    enlarge(run / "metrics.jsonl")
    (run / "trials.jsonl").write_text("{}\n{")
    assert "lacks its last" in goes_on("resume", run)
    assert (run / "metrics.jsonl").stat().st_size == 0
    assert (run / "trials.jsonl").read_text() == "{}\n"


@pytest.mark.few(10)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["run.json", "result.json", "lock", "checkpoints"])
def test_no_plain_file_to_begin_with(
    name: str, kind: str, run: Path, outside: Path, refused: Say
) -> None:
    path = run / name
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    if (name, kind) in {("result.json", "dangling"), ("checkpoints", "folder")}:
        return  # as good as absent
    KINDS[kind](path, outside)
    assert str(run) in refused("resume", run)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["run.json", "architecture.json"])
def test_retrain_from_no_plain_file(
    name: str, kind: str, done: Path, outside: Path, refused: Say
) -> None:
    (done / name).unlink()
    KINDS[kind](done / name, outside)
    assert str(done) in refused("retrain", f"from={done}")


@pytest.mark.few(2)
@pytest.mark.parametrize("kind", ["link", "dangling", "hard link"])
@pytest.mark.parametrize(
    "name",
    ["metrics.jsonl", "trials.jsonl", ".run.json.writing", "checkpoints/.000003.json.writing"],
)
def test_no_plain_file_to_write_to(
    name: str, kind: str, run: Path, outside: Path, refused: Say
) -> None:
    (run / name).unlink(missing_ok=True)
    KINDS[kind](run / name, outside)
    assert f"{run / name} is refused" in refused("resume", run)


@pytest.mark.few(3)
@pytest.mark.parametrize("kind", KINDS)
def test_no_plain_files_to_pass_over(kind: str, run: Path, outside: Path, goes_on: Say) -> None:
    names = ["architecture.json", "supernet.safetensors", "network.safetensors"]
    names += ["events.out.tfevents.0"] if kind != "folder" else []
    names += ["checkpoints/000003.json", "checkpoints/000003-x.safetensors"]
    for name in (*names, "checkpoints/000002-supernet.safetensors"):
        (run / name).unlink(missing_ok=True)
        KINDS[kind](run / name, outside)
    said = goes_on("resume", run)
    assert said.count("passed over") == 2 and "continuing from checkpoint 1" in said


# retrain from=RUN_DIR


@pytest.mark.few(10)
@pytest.mark.parametrize(
    "override",
    [
        *("hydra.run.dir=../outside/x", "+x=1", "++hydra.callbacks.x._target_=os.system"),
        *("dataset=../../outside/x", "dataset={_target_: os.system}", "dataset@hydra.x=digits"),
        *("seed=${oc.env:HOME}", "--config-dir=../outside", "seed=1\nhydra.run.dir=x"),
        *("seed=" + "[" * 5000, "seed=" + "[" * 400 + "]" * 400, "seed=" + "9" * 5000),
        *("a." * 400 + "b=1", "x" * 10**6 + "=1", ESCAPE, f"seed='{ESCAPE}'", "seed=\ud800"),
        *("sampler._target_=os.system", "sampler._target_=nasrun.run.logs.Logs"),
        "dataset.mean=[{_target_: nasrun.run.logs.Logs, directory: ../outside, lengths: {}}]",
        *("rank={truth_store: ../outside}", ["seed=1"], {"seed": 1}, None),
    ],
    ids=shown,
)
def test_an_override(override: Any, done: Path, refused: Say) -> None:
    write_record(done, "overrides", [*SEARCH[1:], override])
    assert os.environ["HOME"] not in refused("retrain", f"from={done}").replace(str(done), "")


def test_thousands_of_overrides(done: Path, refused: Say) -> None:
    write_record(done, "overrides", ["seed=1"] * 5000)
    assert "5000 overrides" in refused("retrain", f"from={done}")


@pytest.mark.parametrize("task", ["../../outside/evil", "os", ESCAPE], ids=shown)
def test_a_task_that_there_is_not(task: str, done: Path, refused: Say) -> None:
    write_record(done, "task", task)
    write_record(done, "overrides", ["dataset.root=x"])
    assert "dataset.root" in refused("retrain", f"from={done}")


@pytest.mark.few(3)
@pytest.mark.parametrize(
    "choices", [[10**400], [0] * 10**5, nested(900), [math.nan], "9" * 5000, None], ids=shown
)
def test_an_architecture(choices: Any, done: Path, refused: Say) -> None:
    architecture = {"space": "nao_cell/small/2", "choices": choices}
    (done / "architecture.json").write_text(json.dumps(architecture))
    refused("retrain", f"from={done}")


def test_notes_do_not_steer_the_terminal(done: Path, capfd: pytest.CaptureFixture[str]) -> None:
    write_record(done, "config", {"seed": ESCAPE + "x" * 10**6})
    write_record(done, "overrides", [f"seed='{ESCAPE}'"])
    for more in ([], ["experiment=small_cifar10"]):
        assert cli.main(["retrain", f"from={done}", *more, "--cfg", "job"]) == 0
        out, err = capfd.readouterr()
        assert "nasrun: note: " in err and "\\x1b" in err and len(err) < 3000
        assert "\x1b" not in err + out


CIFAR = ["dataset=cifar10", "dataset.root=../outside/new"]


@pytest.mark.few(3)
@pytest.mark.parametrize(
    ("theirs", "mine", "download"),
    [
        (CIFAR, [], "false"),
        ([*CIFAR, "dataset.download=true"], [], "false"),
        ([*CIFAR, "dataset.download=true"], ["seed=1"], "false"),
        (CIFAR, ["dataset.download=true"], "true"),
        (CIFAR, ["dataset.root=mine"], "true"),
        (CIFAR, ["dataset=cifar100"], "true"),
        (["dataset=cifar10", "rank.truth_store=../outside"], [], "true"),
        (["dataset=image_folder", *CIFAR[1:]], [], None),
    ],
)
def test_a_place_for_data(
    theirs: list[str],
    mine: list[str],
    download: str | None,
    done: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    write_record(done, "overrides", theirs)
    assert cli.main(["retrain", f"from={done}", *mine, "--cfg", "job"]) == 0
    out = capfd.readouterr().out
    assert (f"  download: {download} " in out) if download else ("download:" not in out)


def test_a_place_for_data_is_left_alone(done: Path, refused: Say) -> None:
    write_record(done, "overrides", [*CIFAR, "search_space.nodes=2"])
    assert "absent" in refused("retrain", f"from={done}")
