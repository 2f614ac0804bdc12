"""``nasrun checks``: what a run finds on this machine, told on one screen."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from nasrun.cli import machine
from nasrun.cli.main import main


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NASRUN_DATA", str(tmp_path / "data"))
    return tmp_path


def as_json(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    assert main(["checks", "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_what_is_there_is_found(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    empty = as_json(capsys)
    assert empty["data"]["found"] == ["digits", "synthetic"]
    assert empty["completion"] == {"bash": False, "zsh": False, "fish": False}
    for name in ("cifar-10-batches-py", "imagenet/train", "tables"):
        (folder / "data" / name).mkdir(parents=True)
    (folder / "data" / "tables" / "mine.csv.gz").touch()
    (folder / ".zshrc").write_text('eval "$(nasrun completion zsh)"\n')
    found = as_json(capsys)
    assert found["data"] == {
        "root": str(folder / "data"),
        "named_by": "$NASRUN_DATA",
        "found": ["digits", "synthetic", "cifar10"],
        "absent": ["cifar100", "fashion_mnist", "imagenet", "image_folder"],
        "tables": ["mine.csv.gz"],
    }
    assert found["completion"] == {"bash": False, "zsh": True, "fish": False}
    assert found["packages"]["torch"] and found["torch"]["version"] == torch.__version__
    assert found["torch"]["threads"] == torch.get_num_threads()
    assert 0 < found["memory"]["free"] <= found["memory"]["total"]
    assert sorted(path.name for path in folder.iterdir()) == [".zshrc", "data"]


def test_one_screen(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "_torch", lambda: {}["no torch here"])
    monkeypatch.setattr(machine, "requires", lambda name: ["filelock", "x-y>=1; extra == 'more'"])
    assert main(["checks", "outputs=there"]) == 0
    lines = capsys.readouterr().out.splitlines()
    text = " ".join(" ".join(lines).split())
    assert len(lines) <= 40 and all(len(line) <= 80 or " " not in line.strip() for line in lines)
    assert "NOT FOUND OUT: KeyError: 'no torch here'" in text
    assert "absent: x-y (pip install 'nasrun[more]')" in text
    assert str(folder / "there").rpartition("/")[2] in text


def test_nothing_else_is_taken(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["checks", "dataset=cifar10"]) == 2
    assert "outputs=DIR" in capsys.readouterr().err
