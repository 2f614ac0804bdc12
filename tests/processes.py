"""Runs in processes of their own, disturbed on demand, and what they leave on the disk."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TINY = (
    "effort=smoke",
    "threads=1",
    "search_space.nodes=1",
    "search_algo.predictor.hidden=8",
    "search_algo.initial=4",
    "search_algo.new_per_round=2",
    "dataset.train_images=32",
    "dataset.validation=16",
)
"""A search with all its stages in two seconds."""

SEARCH = ("search", *TINY, "hydra.run.dir=run")


Fault = tuple[str, list[Any]]
"""A function of fork_server.py, and its arguments."""


@dataclass(frozen=True)
class Done:
    """How a process has ended, and what it said."""

    status: int
    out: str
    err: str


class Processes:
    """The client of fork_server.py."""

    def __init__(self) -> None:
        self.server = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("fork_server.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "NASRUN_DEBUG": "0"},
        )
        assert self._answer() == "ready"

    def run(self, place: Path, *words: str, faults: Sequence[Fault] = ()) -> Done:
        """nasrun's ``words`` in the directory ``place``."""
        (done,) = self._order(place, {"words": words, "faults": faults})
        return done

    def ranks(
        self,
        place: Path,
        *words: str,
        size: int = 2,
        call: str | None = None,
        faults: Sequence[Fault] = (),
        faulty: int = 0,
    ) -> list[Done]:
        """nasrun's ``words``, or the function ``call`` (``module:name``), by several ranks.

        faults: of the rank ``faulty`` alone.
        """
        return self._order(
            place,
            {"words": words, "call": call, "ranks": size, "faults": faults, "faulty": faulty},
        )

    def _order(self, place: Path, order: dict[str, Any]) -> list[Done]:
        place.mkdir(parents=True, exist_ok=True)
        out, err = (place.parent / f"{place.name}.{stream}.txt" for stream in ("out", "err"))
        order = {"place": str(place), "out": str(out), "err": str(err), **order}
        assert self.server.stdin
        self.server.stdin.write(json.dumps(order) + "\n")
        self.server.stdin.flush()
        return [
            Done(int(status), *(Path(f"{path}{rank or ''}").read_text() for path in (out, err)))
            for rank, status in enumerate(self._answer().split())
        ]

    def _answer(self) -> str:
        assert self.server.stdout
        return self.server.stdout.readline().strip()

    def close(self) -> None:
        assert self.server.stdin
        self.server.stdin.close()
        self.server.wait()


def outcome(run: Path) -> dict[str, Any]:
    """What must be the same in two runs that mean the same: logs, winner, result, weights."""
    result = json.loads((run / "result.json").read_text())
    del result["seconds"]
    result.pop("ranking_seconds", None)
    del result["spent"]["device_seconds"]
    names = ("metrics.jsonl", "trials.jsonl", "architecture.json")
    return {
        "result": result,
        **{name: (run / name).read_bytes() for name in names},
        **{path.name: tensors(path) for path in run.glob("*.safetensors")},
    }


def tensors(path: Path) -> tuple[dict[str, Any], bytes]:
    """The tensors of a file, and what it says of them; its manifest names the run, so it is left
    out."""
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    header.pop("__metadata__", None)
    return header, data[8 + size :]


def snapshot(directory: Path) -> dict[str, Any]:
    """Every file under ``directory``: its content and when it was written."""
    return {
        str(path.relative_to(directory)): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in files(directory)
    }


def files(directory: Path) -> Iterator[Path]:
    return (path for path in sorted(directory.rglob("*")) if path.is_file())


def manifests(run: Path) -> list[Path]:
    """Those of the checkpoints, oldest first."""
    return sorted((run / "checkpoints").glob("*.json"))


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]
