"""Unfinished runs, and ways to put into them what a stranger might."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path
from typing import Any

import pytest

from nasrun.cli import main as cli
from nasrun.run.run import Run
from nasrun.search_algo.nao.epd_training import PredictorTraining
from nasrun.trainer.training import Training

SEARCH = (
    *("search", "effort=smoke", "threads=1", "checkpoint.steps=1", "search_space.nodes=2"),
    *("search_algo.initial=4", "search_algo.new_per_round=2", "search_algo.step_max=2"),
    *("dataset.train_images=32", "dataset.validation=16"),
)
ESCAPE = "\x1b]0;owned\x07\x9b31m"
"""What would rename a terminal and colour it."""

KINDS: dict[str, Callable[[Path, Path], object]] = {
    "link": lambda path, outside: path.symlink_to(outside / "canary"),
    "dangling": lambda path, outside: path.symlink_to(outside / "new"),
    "link to a folder": lambda path, outside: path.symlink_to(outside),
    "device": lambda path, outside: path.symlink_to("/dev/zero"),
    "hard link": lambda path, outside: path.hardlink_to(outside / "canary"),
    "pipe": lambda path, outside: os.mkfifo(path),
    "folder": lambda path, outside: path.mkdir(),
}
"""How to make at a path what is no file of its own."""

_left_behind: dict[str, Path] = {}


class Reached(BaseException):
    """A run has taken up its state, written a checkpoint, and would now train; its argument."""


@contextmanager
def stopped_before_training() -> Iterator[None]:
    def reached(monitor: Any) -> None:
        monitor.checkpoint()
        raise Reached(monitor)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Training, "train_round", lambda self, monitor, *_, **__: reached(monitor))
        patch.setattr(PredictorTraining, "train", lambda self, trials, monitor: reached(monitor))
        yield


def left_behind(factory: pytest.TempPathFactory) -> dict[str, Path]:
    """What a search leaves that is killed while it trains its supernet, its predictor or its
    winner, and what it leaves at its end; two checkpoints each. Made once."""
    place = factory.mktemp("runs")
    seen: dict[str, int] = {}
    write = Run.checkpoint

    def checkpoint(run: Run) -> None:
        write(run)
        learned = getattr(run._tracked["search_algo"].stateful, "predictor", None)
        phase = "retrain" if "retrain" in run._tracked else "predictor" if learned else "supernet"
        seen[phase] = seen.get(phase, 0) + 1
        if seen[phase] == 2:
            shutil.copytree(run.directory, place / phase, ignore=shutil.ignore_patterns("lock"))

    if not _left_behind:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Run, "checkpoint", checkpoint)
            assert cli.main([*SEARCH, f"hydra.run.dir={place / 'done'}"]) == 0
        _left_behind.update({path.name: path for path in place.iterdir()})
    return _left_behind


def payload(outside: Path) -> bytes:
    """A pickle that leaves a file where none may be."""

    class Payload:
        def __reduce__(self) -> Any:
            return os.system, (f"touch {outside / 'pickled'}",)

    return pickle.dumps(Payload())


def each(table: Mapping[str, Sequence[Any]]) -> pytest.MarkDecorator:
    """A case for each place and value."""
    cases = [(where, value) for where, values in table.items() for value in values]
    return pytest.mark.parametrize(("where", "value"), cases, ids=shown)


def shown(value: object) -> str:
    return ascii(value)[:40]


def nested(depth: int) -> Any:
    inside = None
    for _ in range(depth):
        inside = [inside]
    return inside


def put(node: Any, where: str, value: Any) -> None:
    *parents, leaf = where.split("/")
    for name in parents:
        node = node[int(name) if isinstance(node, list) else name]
    node[int(leaf) if isinstance(node, list) else leaf] = value


def enlarge(path: Path) -> None:
    """To a terabyte, most of it a hole."""
    path.touch()
    os.truncate(path, 2**40)


def write_record(run: Path, where: str, value: Any) -> None:
    """A value in run.json becomes another one."""
    record = json.loads((run / "run.json").read_text())
    put(record, where, value)
    (run / "run.json").write_text(json.dumps(record))


def manifests(run: Path) -> list[Path]:
    return sorted((run / "checkpoints").glob("*.json"))


def newest(run: Path) -> Any:
    return json.loads(json.loads(manifests(run)[-1].read_text())["checkpoint"])


def digest(data: bytes) -> str:
    return blake2b(data, digest_size=16).hexdigest()


def write_manifest(run: Path, body: Any) -> None:
    """The newest checkpoint becomes ``body``, with a digest that fits."""
    text = body if isinstance(body, str) else json.dumps(body)
    whole = {"digest": digest(text.encode()), "checkpoint": text}
    manifests(run)[-1].write_text(json.dumps(whole))


def write_tensors(run: Path, part: str, data: bytes) -> None:
    """The newest checkpoint's tensors of ``part`` become ``data``, with digests that fit."""
    body = newest(run)
    file = body["parts"][part]["tensors"]
    (run / "checkpoints" / file["name"]).write_bytes(data)
    file |= {"size": len(data), "digest": digest(data)}
    write_manifest(run, body)
