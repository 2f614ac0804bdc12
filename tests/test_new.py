"""``nasrun new``: packages that keep nasrun's laws and run as they are written."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from nasrun.cli import new_package
from nasrun.cli.main import main
from nasrun.cli.new_package import KINDS, package_files
from nasrun.config.groups import groups
from nasrun.config.yaml_files import read
from nasrun.errors import UserError
from nasrun.sampler.base import Sampler

ROOT = Path(__file__).parents[1]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def programs(place: Path) -> dict[str, str]:
    """An environment whose PATH has this nasrun and this pytest."""
    folder = place / "bin"
    folder.mkdir()
    for name in ("nasrun", "pytest"):
        words = f"{shlex.quote(sys.executable)} -m {name}"
        (folder / name).write_text(
            f'#!/bin/sh\nPYTHONPATH="$PYTHONPATH:{ROOT}" exec {words} "$@"\n'
        )
        (folder / name).chmod(0o755)
    path = f"{folder}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "OMP_NUM_THREADS": "1"}


def test_a_sampler_at_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["new", "sampler", "my_rule_7"]) == 0
    assert "pytest my_rule_7" in capsys.readouterr().out
    place = folder / "my_rule_7"
    monkeypatch.syspath_prepend(str(place))
    target = read(place / "conf" / "sampler" / "my_rule_7.yaml")["_target_"]
    module, _, name = target.rpartition(".")
    assert issubclass(getattr(import_module(module), name), Sampler)
    scope: dict[str, object] = {"__file__": str(place / "tests" / "test_my_rule_7.py")}
    exec((place / "tests" / "test_my_rule_7.py").read_text(), scope)  # noqa: S102
    check = scope["test_it_keeps_the_laws"]
    assert callable(check)
    check()


@pytest.mark.soak
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_tested_and_used_in_three_commands(kind: str, folder: Path) -> None:
    environment = programs(folder)

    def typed(line: str) -> str:
        done = subprocess.run(
            ["bash", "-c", line],  # noqa: S607
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    lines = typed(f"nasrun new {kind} mine").splitlines()
    test, search = (line.strip() for line in lines[-2:])
    assert "1 passed" in typed(test)
    typed(f"{search} threads=1")
    (run,) = folder.glob("outputs/search/*")
    record = json.loads((run / "run.json").read_text())
    assert record["config"][kind]["_target_"].startswith("mine.")
    assert json.loads((run / "result.json").read_text())["status"] == "done"


@pytest.mark.soak
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_written_is_clean(kind: str, folder: Path) -> None:
    assert main(["new", kind, "mine"]) == 0
    rules = ["--isolated", "--line-length", "100", "--select", "E,F,B,UP,N,RUF"]
    rules += ["--ignore", "N812,RUF001,RUF002"]
    done = subprocess.run(
        [sys.executable, "-m", "ruff", "check", *rules, "mine"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_nothing_is_overwritten(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "mine").mkdir()
    assert main(["new", "sampler", "mine"]) == 2
    assert "is there already" in capsys.readouterr().err
    assert list((folder / "mine").iterdir()) == []
    (folder / "there").mkdir()
    assert main(["new", "sampler", "mine", "into=there"]) == 0
    assert (folder / "there" / "mine" / "mine" / "sampler.py").is_file()


def test_nothing_is_left_half_written(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(path: Path, data: bytes) -> None:
        if path.suffix == ".yaml":
            raise OSError(28, "No space left on device", str(path))
        path.write_bytes(data)

    monkeypatch.setattr("nasrun.run.files.write_bytes", full)
    assert main(["new", "sampler", "mine"]) != 0
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    "name",
    [
        *("", "Mine", "7x", "a-b", "../x", "a/b", "x" * 41, "é"),
        *("class", "null", "uniform", "json", "numpy", "nasrun", "path", "tests"),
    ],
)
def test_bad_names_are_refused(name: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["new", "sampler", name]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "a kind"),
        (["samplr", "mine"], "did you mean 'sampler'"),
        (["sampler"], "one name"),
        (["sampler", "a", "b"], "one name"),
        (["sampler", "mine", "into=nowhere"], "no such folder"),
        (["sampler", "mine", "seed=1"], "into=DIR"),
    ],
)
def test_mistakes(
    words: list[str], said: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["new", *words]) == 2
    assert said in capsys.readouterr().err
    assert list(folder.iterdir()) == []


def test_kinds_are_groups_and_templates_are_theirs() -> None:
    assert KINDS.keys() <= groups().keys()
    for kind in KINDS:
        files = package_files(kind, "mine")
        assert all(b"$" not in data for data in files.values())
    with pytest.raises(UserError, match="CountedAlgo"):
        package_files("search_algo", "counted")
    names = {path.name for path in new_package.TEMPLATES.iterdir()}
    common = {"README.md.txt", "pyproject.toml.txt", "init.py.txt", "test.py.txt"}
    assert names == common | {f"{kind}.{end}.txt" for kind in KINDS for end in ("py", "yaml")}
