"""Checkpoints: whole, or recognised as damaged; never only one of them; on a disk that is full."""

from __future__ import annotations

import errno
import os
import random
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nasrun.run import files
from nasrun.run.checkpoints import SPARE_BYTES, Checkpoint, Checkpoints, TrackedState


class Weights:
    """A part: all its tensors say its mark."""

    def __init__(self, mark: int = 0, marked: bool = True) -> None:
        self.value = mark
        if marked:
            self.mark = mark

    def set(self, value: int) -> None:
        self.value = value
        if hasattr(self, "mark"):
            self.mark = value

    def state_dict(self) -> dict[str, Any]:
        return {"value": self.value, "weights": torch.full((60,), float(self.value))}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        raise NotImplementedError


def value(checkpoints: Checkpoints, checkpoint: Checkpoint, part: str) -> int:
    """What the part says in all its places."""
    state = checkpoints.state(checkpoint.states[part], SPARE_BYTES)
    assert state["weights"].tolist() == [state["value"]] * 60
    return int(state["value"])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two checkpoints: of 1, and of 2, which shares no file with it."""
    checkpoints, parts = (
        Checkpoints(tmp_path),
        {"a": TrackedState(Weights(1)), "b": TrackedState(Weights(1))},
    )
    checkpoints.write(parts, {}, {"metrics.jsonl": 10}, 1.0)
    for kept in parts.values():
        kept.stateful.set(2)  # type: ignore[attr-defined]
    checkpoints.write(parts, {}, {"metrics.jsonl": 20}, 2.0)
    return tmp_path


def check(folder: Path, damaged: str, *, may_be_whole: bool = False) -> None:
    """Reading tells of ``damaged`` of the second checkpoint, and gives the first."""
    told: list[str] = []
    checkpoints = Checkpoints(folder)
    found = checkpoints.read(told.append)
    numbers = [checkpoint.number for checkpoint in found]
    if may_be_whole and numbers == [2, 1]:  # JSON has places where a space more is nothing
        assert (found[0].seconds, found[0].logs) == (2.0, {"metrics.jsonl": 20})
        assert told == []
    else:
        assert numbers == [1]
        assert len(told) == 1
        assert "000002.json" in told[0]
        assert damaged == "000002.json" or damaged in told[0]
        assert (found[0].seconds, found[0].logs) == (1.0, {"metrics.jsonl": 10})
    for checkpoint in found:
        for part in "ab":
            assert value(checkpoints, checkpoint, part) == checkpoint.number


FILES = ("000002.json", "000002-a.safetensors", "000002-b.safetensors")


@pytest.mark.parametrize("name", FILES)
def test_a_damaged_checkpoint_is_recognised(folder: Path, name: str) -> None:
    path, chance = folder / name, random.Random(7)  # noqa: S311
    whole = path.read_bytes()
    size = len(whole)

    def damage(content: bytes, **how: bool) -> None:
        path.write_bytes(content)
        check(folder, name, **how)

    for tenth in range(10):
        damage(whole[: size * tenth // 10])
        damage(whole[: size * tenth // 10].ljust(size, b"\x00"))
    for _ in range(60):
        flipped = bytearray(whole)
        flipped[chance.randrange(size)] ^= 1 << chance.randrange(8)
        damage(bytes(flipped))
    for _ in range(20):
        place = chance.randrange(size)
        damage(whole[:place] + whole[place + 1 :], may_be_whole=name.endswith(".json"))
        more = bytes([chance.randrange(256)])
        damage(whole[:place] + more + whole[place:], may_be_whole=name.endswith(".json"))
    damage(whole + b"{")
    path.unlink()
    if name.endswith(".json"):  # never written, as far as anyone can tell
        assert [checkpoint.number for checkpoint in Checkpoints(folder).read(pytest.fail)] == [1]
    else:
        check(folder, name)
    path.write_bytes(whole)
    assert [checkpoint.number for checkpoint in Checkpoints(folder).read(pytest.fail)] == [2, 1]


@pytest.mark.parametrize("kind", ["000001.json 000002.json", "000001-a 000002-b"])
def test_all_damaged(folder: Path, kind: str) -> None:
    for name in kind.split():
        (path,) = folder.glob(f"{name}*")
        path.write_bytes(path.read_bytes()[:-3])
    told: list[str] = []
    checkpoints = Checkpoints(folder)
    assert checkpoints.read(told.append) == []
    assert len(told) == 2
    written = checkpoints.write({"a": TrackedState(Weights(3))}, {}, {}, 0.0)
    assert written.number == 3
    assert sorted(path.name for path in folder.iterdir()) == ["000003-a.safetensors", "000003.json"]


def test_what_has_not_changed_is_not_written_again(folder: Path) -> None:
    checkpoints = Checkpoints(folder)
    newest = checkpoints.read(pytest.fail)[0]
    parts = {
        name: TrackedState(Weights(2, marked=name != "b"), mark=2, written=newest.states[name])
        for name in "ab"
    }
    parts["a"].label = "other"
    third = checkpoints.write(parts, {}, {}, 3.0)
    assert third.files() == {"000002-a.safetensors", "000003-b.safetensors"}  # b has no mark
    parts["a"].stateful.set(3)  # type: ignore[attr-defined]
    fourth = checkpoints.write(parts, {"c": newest.states["a"]}, {}, 4.0)
    assert fourth.files() == {
        "000004-a.safetensors",
        "000004-b.safetensors",
        "000002-a.safetensors",  # of a part that nobody has taken up yet
    }
    again = Checkpoints(folder)
    found, before = again.read(pytest.fail)[:2]
    assert (found, before) == (fourth, third)
    assert [checkpoint.states["a"].label for checkpoint in (before, found)] == ["other", "other"]
    assert [value(again, found, part) for part in "abc"] == [3, 2, 2]


STEPS = st.lists(
    st.sets(st.sampled_from(["a", "b", "c", "drop c", "resume", "lose the newest"])), max_size=14
)


@pytest.mark.soak
@settings(max_examples=120, deadline=None)
@given(STEPS)
def test_no_file_is_needed_by_all_checkpoints(steps: list[set[str]]) -> None:
    """Where any checkpoint ever shared no file with the newest one, one that is kept does not."""
    with tempfile.TemporaryDirectory() as place, pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: None)  # slow
        folder, checkpoints = Path(place), Checkpoints(Path(place))
        parts = {name: TrackedState(Weights(0)) for name in "abc"}
        ever: list[Checkpoint] = []
        for number, step in enumerate(steps, 1):
            if "resume" in step and ever:
                if "lose the newest" in step and len(checkpoints.kept) > 1:
                    (folder / f"{ever[-1].number:06d}.json").unlink()
                    ever = checkpoints.kept[:-1]
                checkpoints = Checkpoints(folder)
                newest = checkpoints.read(pytest.fail)[0]
                assert newest == ever[-1]
                parts = {
                    name: TrackedState(Weights(mark), mark=mark, written=stored)
                    for name, stored in newest.states.items()
                    for mark in [value(checkpoints, newest, name)]
                }
            if "drop c" in step:
                parts.pop("c", None)
            elif "c" in step:
                parts.setdefault("c", TrackedState(Weights(0)))
            for name in step & parts.keys():
                parts[name].stateful.set(number)  # type: ignore[attr-defined]
            ever.append(checkpoints.write(parts, {}, {}, float(number)))

            kept = checkpoints.kept
            assert kept[-2:] == ever[-2:]
            assert len(kept) <= 3
            apart = [
                checkpoint for checkpoint in ever if checkpoint.files().isdisjoint(ever[-1].files())
            ]
            assert not apart or any(
                checkpoint.files().isdisjoint(ever[-1].files()) for checkpoint in kept
            )
            manifests = {f"{checkpoint.number:06d}.json" for checkpoint in kept}
            assert {path.name for path in folder.iterdir()} == manifests.union(
                *(checkpoint.files() for checkpoint in kept)
            )
        assert Checkpoints(folder).read(pytest.fail) == checkpoints.kept[::-1]


class FullDisk:
    """The ``number``-th call of one kind fails, and all later ones, as on a disk without space."""

    def __init__(self, patch: pytest.MonkeyPatch, kind: str, number: int) -> None:
        self.calls, self.number = 0, number
        if kind == "open":
            patch.setattr(files, "_open", self.then(files._open))
        elif kind == "rename":
            patch.setattr(Path, "replace", self.then(Path.replace))
        elif kind == "fsync":
            patch.setattr(os, "fsync", self.then(os.fsync))
        else:
            patch.setattr(files, "open_for_writing", self.half_writing(files.open_for_writing))

    def then(self, original: Any) -> Any:
        def call(*arguments: Any, **named: Any) -> Any:
            self.calls += 1
            if self.calls >= self.number:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return original(*arguments, **named)

        return call

    def half_writing(self, original: Any) -> Any:
        def open_(path: Path, **named: Any) -> Any:
            file = original(path, **named)
            self.calls += 1
            if self.calls >= self.number:
                write = file.raw.write

                class Half:
                    def __getattr__(self, name: str) -> Any:
                        return getattr(file, name)

                    def __enter__(self) -> Half:
                        return self

                    def __exit__(self, *error: Any) -> None:
                        file.close()

                    def write(self, data: bytes) -> None:
                        write(data[: len(data) // 2])
                        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

                return Half()
            return file

        return open_


@pytest.mark.parametrize("kind", ["open", "write", "fsync", "rename"])
def test_a_disk_that_is_full_leaves_what_was_there(
    folder: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Whichever write of a checkpoint fails; then the same checkpoint is written after all."""
    failures = 0
    for number in range(1, 9):
        checkpoints = Checkpoints(folder)
        before = checkpoints.read(pytest.fail)
        parts = {name: TrackedState(Weights(number + 9)) for name in "ab"}
        with monkeypatch.context() as patch:
            disk = FullDisk(patch, kind, number)
            try:
                checkpoints.write(parts, {}, {}, float(number))
                failed = False
            except OSError as error:
                assert error.errno == errno.ENOSPC
                failed = True
        again = Checkpoints(folder)
        found = again.read(pytest.fail)
        assert not list(folder.glob(".*"))
        if failed:
            failures += 1
            assert found == before
        else:
            assert found[1:] == before[: len(found) - 1]
        for checkpoint in found:
            assert value(again, checkpoint, "a") == value(again, checkpoint, "b")
        written = checkpoints.write(parts, {}, {}, float(number))
        assert Checkpoints(folder).read(pytest.fail)[0] == written
        assert [value(checkpoints, written, part) for part in "ab"] == [number + 9] * 2
        if disk.calls < number:
            break
    # Two files of tensors, and the manifest; a directory need not be safe, but what follows it.
    assert failures == (5 if kind == "fsync" else 3)


@pytest.mark.soak
def test_a_long_search_has_a_checkpoint_that_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A search of 100,000 evaluations keeps more than other JSON files may have."""
    long = Weights(7)
    monkeypatch.setattr(long, "state_dict", lambda: {"text": "x" * (files.MAX_JSON_BYTES + 1)})
    Checkpoints(tmp_path).write({"search": TrackedState(long)}, {}, {}, 1.0)
    said: list[str] = []
    assert [each.number for each in Checkpoints(tmp_path).read(said.append)] == [1]
    monkeypatch.setattr("nasrun.run.checkpoints.available_bytes", lambda: 2**30)
    assert not Checkpoints(tmp_path).read(said.append)
    assert "are more than the" in said[0]
