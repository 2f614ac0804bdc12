"""Files that are whole or absent, and logs that are cut and continued."""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from nasrun.errors import UserError
from nasrun.report.image_sheet import image_sheet
from nasrun.run.files import (
    MAX_JSON_LEVELS,
    open_for_writing,
    parse_json,
    read_bytes,
    read_object,
    write_atomic,
    write_json,
)
from nasrun.run.layout import EVENTS_PREFIX
from nasrun.run.loggers import LoggedRun, TensorBoard
from nasrun.run.logs import Logs, missing, whole_lines

STRANGE: dict[str, Callable[[Path], object]] = {
    "link": lambda path: path.symlink_to(path.with_name("outside")),
    "dead link": lambda path: path.symlink_to(path.with_name("nowhere")),
    "pipe": os.mkfifo,
    "directory": Path.mkdir,
    "socket": lambda path: socket.socket(socket.AF_UNIX).bind(str(path)),
}


@pytest.mark.parametrize("kind", STRANGE)
def test_only_files_of_its_own_are_opened(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # the names of sockets must be short
    outside, path = Path("outside"), Path("run.json")
    outside.write_text("precious")
    STRANGE[kind](path)
    for action in (
        lambda: open_for_writing(path),
        lambda: open_for_writing(path, keep=3),
        lambda: open_for_writing(path, keep=None),
        lambda: read_bytes(path, 1000),
    ):
        with pytest.raises((UserError, OSError), match=r"run\.json"):
            action()
    assert outside.read_text() == "precious"
    assert not Path("nowhere").exists()


@pytest.mark.parametrize("kind", ["link", "dead link", "pipe"])
def test_what_stands_in_the_way_of_an_atomic_write_is_not_written(
    tmp_path: Path, kind: str
) -> None:
    outside, path = tmp_path / "outside", tmp_path / "run.json"
    outside.write_text("precious")
    STRANGE[kind](tmp_path / ".run.json.writing")
    with pytest.raises(UserError, match="refused"):
        write_json(path, {})
    STRANGE[kind](path)
    write_json(path, {"new": 1})  # the name is given to a new file
    assert read_object(path) == {"new": 1}
    assert outside.read_text() == "precious"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["outside", "run.json"]


def test_reading_has_a_limit(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"123")
    assert read_bytes(path, 3) == b"123"
    with pytest.raises(UserError, match="3 bytes are more than the 2"):
        read_bytes(path, 2)


def test_writing_from_a_byte_on(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"0123456789")
    for keep, expected in ((None, b"ab23456789"), (4, b"ab23ab"), (8, b"ab23ab\0\0ab"), (0, b"ab")):
        with open_for_writing(path, keep=keep) as file:
            file.write(b"ab")
        assert path.read_bytes() == expected


def test_a_failed_write_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "x"

    def fail(file: Any) -> None:
        file.write(b"half")
        file.flush()
        assert before is None or path.read_bytes() == before  # nobody sees it half-written
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    for before in (None, b"whole"):
        if before:
            write_atomic(path, lambda file: file.write(b"whole"))
        with pytest.raises(OSError, match="No space"):
            write_atomic(path, fail)
        assert [p.read_bytes() for p in tmp_path.iterdir()] == ([before] if before else [])


# Logs.


def write(logs: Logs, steps: range) -> None:
    for step in steps:
        logs.metrics("train", step, {"loss": step / 2, "lr": 1.0})


def points(directory: Path) -> list[tuple[int, float]]:
    """What TensorBoard shows of one curve."""
    accumulator = EventAccumulator(str(directory)).Reload()
    return [(event.step, event.value) for event in accumulator.Scalars("train/loss")]


def test_a_continued_log_has_every_line_and_point_once(tmp_path: Path) -> None:
    logs, lengths = Logs(tmp_path, {}), {}
    for begin in (0, 10, 20, 30):
        if begin:
            logs = Logs(tmp_path, lengths)
        write(logs, range(begin, begin + 10))
        lengths = logs.lengths()
        write(logs, range(begin + 10, begin + 17))  # lost: the process is killed
    Logs(tmp_path, lengths).close()
    found = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in found] == list(range(40))
    assert sorted(points(tmp_path)) == [(step, step / 2) for step in range(40)]


def test_rounds_are_one_curve_also_in_a_run_that_goes_on(tmp_path: Path) -> None:
    """Of any lengths: the steps of a round begin where those of the round before ended."""
    rounds = {"score/round0": 5, "score/round1": 3, "score/round2": 4}

    def write_all(directory: Path, kill_after: int | None) -> None:
        directory.mkdir()
        logs, lengths, written = Logs(directory, {}), {}, 0
        for stage, steps in rounds.items():
            for step in range(1, steps + 1):
                logs.metrics(stage, step, {"best": float(step)})
                written += 1
                if written == kill_after:
                    lengths = logs.lengths()
                    logs.metrics(stage, step + 1, {"best": 99.0})  # lost
                    logs = Logs(directory, lengths)
        logs.metrics("health", 7, {"trained/op": 0.5})
        logs.metrics("standalone/0123abcd", 2, {"loss": 1.0})
        logs.metrics("standalone/9999abcd", 2, {"loss": 2.0})
        logs.close()

    expected = [
        (at, float(at - begin))
        for begin, end in ((0, 5), (5, 8), (8, 12))
        for at in range(begin + 1, end + 1)
    ]
    for kill_after in (None, *range(1, 12)):
        directory = tmp_path / str(kill_after)
        write_all(directory, kill_after)
        shown = EventAccumulator(str(directory)).Reload()
        names = ["score/best", "standalone/loss", "supernet_health/trained/op"]
        assert sorted(shown.Tags()["scalars"]) == names
        found = sorted((point.step, point.value) for point in shown.Scalars("score/best"))
        assert found == expected, kill_after
        assert [point.step for point in shown.Scalars("standalone/loss")] == [2, 4]


def test_what_tensorboard_shows_beside_curves(tmp_path: Path) -> None:
    logger = TensorBoard().open(LoggedRun(tmp_path, "search", {}))
    logs = Logs(tmp_path, {}, logger)
    logs.describe({"a": {"b": [1, "x"]}, "c": None}, ["+seed=3", "sampler=uniform", "~x"])
    logs.image("batch", image_sheet(torch.arange(2 * 1 * 3 * 4.0).reshape(2, 1, 3, 4)))
    logs.close()
    shown = EventAccumulator(str(tmp_path), size_guidance={}).Reload()
    assert shown.Tags()["images"] == ["batch"]
    (image,) = shown.Images("batch")
    assert (image.width, image.height) == (2 * (4 * 22 + 1), 3 * 22 + 1)
    (text,) = shown.Tensors("configuration")
    assert text.tensor_proto.string_val[0].decode() == "    a.b: [1, 'x']\n    c: None"
    content = shown.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    info = HParamsPluginData.FromString(content).session_start_info
    assert info.group_name == "search"
    assert info.hparams["seed"].number_value == 3
    assert info.hparams["sampler"].string_value == "uniform" and "x" not in info.hparams


def test_points_are_on_the_disk_when_the_lengths_are_told(tmp_path: Path) -> None:
    """In a process that ends by a kill, with no chance to flush anything."""
    process = os.fork()
    if process == 0:
        logs = Logs(tmp_path, {})
        write(logs, range(5))
        write_json(tmp_path / "lengths.json", logs.lengths())
        write(logs, range(5, 9))
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(process, 0)
    lengths = read_object(tmp_path / "lengths.json")
    assert len((tmp_path / "metrics.jsonl").read_bytes()) > lengths["metrics.jsonl"]
    logs = Logs(tmp_path, lengths)
    write(logs, range(5, 7))
    logs.close()
    assert sorted(points(tmp_path)) == [(step, step / 2) for step in range(7)]


def test_an_event_file_cut_within_a_point_is_continued(tmp_path: Path) -> None:
    logs = Logs(tmp_path, {})
    write(logs, range(3))
    lengths = logs.lengths()
    write(logs, range(3, 6))
    logs.close()
    (path,) = tmp_path.glob(f"{EVENTS_PREFIX}*")
    for cut in (path.stat().st_size - 5, lengths[path.name] + 1):
        os.truncate(path, cut)
        again = Logs(tmp_path, lengths)
        write(again, range(3, 4))
        again.close()
        assert sorted(points(tmp_path)) == [(step, step / 2) for step in range(4)]


def test_a_disk_without_space_is_told_of_at_once(tmp_path: Path, capfd: Any) -> None:
    logs = Logs(tmp_path, {})
    with open("/dev/full", "wb", buffering=0) as full:  # noqa: PTH123
        os.dup2(full.fileno(), logs._logger.events._file.fileno())
    with pytest.raises(OSError, match="No space left"):
        write(logs, range(1))
    logs.close()
    assert capfd.readouterr().err == ""


def test_a_log_that_has_become_shorter(tmp_path: Path) -> None:
    logs = Logs(tmp_path, {})
    write(logs, range(4))
    lengths = logs.lengths()
    logs.close()
    path = tmp_path / "metrics.jsonl"
    whole = path.read_bytes()
    line = len(whole) // 4
    assert missing(tmp_path, lengths) == {}
    for cut, kept in ((1, 3), (line - 1, 3), (line, 3), (line + 1, 2), (len(whole), 0)):
        path.write_bytes(whole[: len(whole) - cut])
        assert missing(tmp_path, lengths) == {"metrics.jsonl": cut}
        assert whole_lines(tmp_path, lengths) == {**lengths, "metrics.jsonl": kept * line}
        Logs(tmp_path, whole_lines(tmp_path, lengths)).close()
        assert path.read_bytes() == whole[: kept * line]
    path.unlink()
    assert missing(tmp_path, lengths) == {"metrics.jsonl": len(whole)}
    assert whole_lines(tmp_path, lengths)["metrics.jsonl"] == 0
    path.write_bytes(whole + b"more")
    assert missing(tmp_path, lengths) == {}
    assert whole_lines(tmp_path, lengths) == lengths


@pytest.mark.parametrize("beside", ["", "[],{}," * 99], ids=["few", "many"])
def test_levels_of_json(beside: str) -> None:
    for deep, ok in ((MAX_JSON_LEVELS, True), (MAX_JSON_LEVELS + 1, False)):
        text = f"[{beside}" + "[" * (deep - 1) + "1" + "]" * deep
        for data in (text, text.encode(), text.encode("utf-16")):
            if ok:
                assert parse_json(data) == json.loads(text)
            else:
                with pytest.raises(ValueError, match="more than 64 levels"):
                    parse_json(data)
