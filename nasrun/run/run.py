"""One run and its directory: configuration, metrics, trials, checkpoints, result."""

from __future__ import annotations

import json
import platform
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TextIO

import torch
from torch.utils.tensorboard import SummaryWriter

from nasrun import __version__
from nasrun.run.compute import Compute
from nasrun.run.files import write_atomic, write_json
from nasrun.run.screen import Screen, ScreenStage
from nasrun.streams import Streams
from nasrun.values import Architecture, Trial


class Run:
    """A run directory; nothing is written before ``begin``.

    run.json: what was asked for, on what (written once); metrics.jsonl and TensorBoard events;
    trials.jsonl: every trial; checkpoints/; architecture.json: the winner; result.json: the end.
    """

    def __init__(
        self,
        directory: Path,
        *,
        task: str,
        config: Mapping[str, Any],
        overrides: list[str],
        seed: int,
        compute: Compute,
    ) -> None:
        self.directory = directory
        self.task = task
        self.config = config
        self.overrides = overrides
        self.streams = Streams(seed)
        self.compute = compute
        self.screen = Screen()
        self.started = time.monotonic()
        self._files: list[TextIO] = []
        self._events: SummaryWriter | None = None

    def begin(self) -> None:
        """Write run.json and open the logs: the task has found all that it needs."""
        (self.directory / "checkpoints").mkdir(parents=True, exist_ok=True)
        write_json(self.directory / "run.json", self._record())
        self._metrics = self._open("metrics.jsonl")
        self._trials = self._open("trials.jsonl")
        self._events = SummaryWriter(str(self.directory))
        self.screen.say(f"{self.task} on {self.compute.describe()}, seed {self.streams.seed}")
        self.screen.say(f"writing to {self.directory}")

    def _open(self, name: str) -> TextIO:
        file = (self.directory / name).open("w", encoding="utf-8", buffering=1)
        self._files.append(file)
        return file

    def close(self) -> None:
        for file in self._files:
            file.close()
        if self._events is not None:
            self._events.close()

    def _record(self) -> dict[str, Any]:
        return {
            "nasrun": __version__,
            "task": self.task,
            "overrides": self.overrides,
            "seed": self.streams.seed,
            "device": self.compute.describe(),
            "versions": _versions(),
            "git": _git_state(),
            "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "config": self.config,
        }

    def say(self, line: str = "", style: str | None = None) -> None:
        self.screen.say(line, style)

    @contextmanager
    def stage(self, name: str, total: int) -> Iterator[RunStage]:
        """A stretch of work: a progress bar, and metrics logged under ``name`` (see Monitor)."""
        with self.screen.stage(name, total) as stage:
            yield RunStage(self, name, stage)

    def log(self, name: str, step: int, metrics: Mapping[str, float]) -> None:
        """A line of metrics.jsonl and a point of each TensorBoard curve."""
        self._metrics.write(json.dumps({"stage": name, "step": step, **metrics}) + "\n")
        assert self._events is not None  # noqa: S101
        for key, value in metrics.items():
            self._events.add_scalar(f"{name}/{key}", value, step)

    def record(self, trials: Iterable[Trial], **context: Any) -> None:
        """Append trials to trials.jsonl; context: e.g. the round they belong to."""
        for trial in trials:
            self._trials.write(json.dumps({**context, **trial.to_json()}) + "\n")

    def save(self, name: str, state: dict[str, Any]) -> Path:
        """checkpoints/NAME.pt: tensors and plain values."""
        path = self.directory / "checkpoints" / f"{name}.pt"
        write_atomic(path, lambda file: torch.save(state, file))
        return path

    def save_architecture(self, architecture: Architecture) -> None:
        write_json(self.directory / "architecture.json", architecture.to_json())

    def finish(self, result: dict[str, Any]) -> dict[str, Any]:
        """Write result.json: the run is done."""
        seconds = round(time.monotonic() - self.started, 1)
        result = {"status": "done", "task": self.task, **result, "seconds": seconds}
        write_json(self.directory / "result.json", result)
        return result


class RunStage:
    """A stage that shows itself on the screen and logs its metrics."""

    def __init__(self, run: Run, name: str, screen: ScreenStage) -> None:
        self.run, self.name, self.screen = run, name, screen

    def advance(self, steps: int = 1, **metrics: float) -> None:
        self.screen.advance(steps, metrics)
        if metrics:
            self.run.log(self.name, self.screen.done, metrics)


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version(), "torch": torch.__version__}
    for package in ("torchvision", "numpy", "hydra-core", "omegaconf"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "absent"
    return found


def _git_state() -> dict[str, Any] | None:
    """Commit and cleanliness of the checkout that nasrun runs from; None outside a checkout."""

    def git(*words: str) -> str:
        command = ["git", "-C", str(Path(__file__).parent), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return {"commit": git("rev-parse", "HEAD"), "clean": not git("status", "--porcelain")}
    except (OSError, subprocess.CalledProcessError):
        return None
