"""One run and its directory: configuration, logs, checkpoints, result."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, PositiveFloat, PositiveInt
from torch import nn

from nasrun.errors import Interrupted, UserError
from nasrun.run import provenance, signals
from nasrun.run.checkpoints import (
    SPARE_BYTES,
    Checkpoint,
    Checkpoints,
    StoredState,
    TrackedState,
    state_bytes,
)
from nasrun.run.commands import command, shown
from nasrun.run.compute import Compute
from nasrun.run.end_box import RunEnd, duration, first_known
from nasrun.run.files import make_folder, read_bytes, write_bytes, write_json
from nasrun.run.layout import (
    ARCHITECTURE,
    CHECKPOINTS,
    RECORD,
    REPORT_PAGE,
    RESULT,
    ResumedRun,
)
from nasrun.run.loggers import LoggedRun, LoggerSettings, NoLogger, TensorBoard
from nasrun.run.logs import Logs, missing, whole_lines
from nasrun.run.screen import Screen, ScreenStage
from nasrun.run.spent import Spent
from nasrun.run.stages import PlannedStage
from nasrun.run.state import Stateful, decode_tensors, encode_tensors, pack
from nasrun.streams import Streams
from nasrun.values import Architecture, Trial

MISFIT_ERRORS = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
"""Errors that Python raises if a state has an unexpected form."""

MAX_CHECKPOINT_SHARE = 0.02
"""Upper bound of the share of time spent on checkpoints; slow ones are written less often."""


class CheckpointEvery(BaseModel):
    """Settings that say when a checkpoint is due; None: never.

    minutes, steps: since the last checkpoint. A step is a training step, an epoch of a predictor,
    or a scored architecture.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    minutes: PositiveFloat | None
    steps: PositiveInt | None


class Run:
    """A run and its directory, whose files are listed in layout.py.

    Nothing is written before ``begin``, and nothing but by the first of several ranks. The others
    read the same directory, and stop when the first one has.
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
        checkpoint: CheckpointEvery,
        earlier: ResumedRun | None = None,
        changed: frozenset[str] = frozenset(),
        logger: LoggerSettings | None = None,
    ) -> None:
        """Make a run that has not begun.

        task, config, overrides: for run.json. seed: of all random streams.
        earlier: the run to be continued, if any. changed: settings that differ from its own.
        logger: what shows the run; None: TensorBoard.
        """
        self.directory = directory
        self.task = task
        self.config = config
        self.overrides = overrides
        self.streams = Streams(seed)
        self.compute = compute
        self.screen = Screen()
        self.screen.task = task
        self.end: RunEnd | None = None  # what is shown last
        self.data: dict[str, Any] | None = None  # what the dataset's folders hold, for run.json
        self.changed = changed
        self.logger = (logger or TensorBoard()) if self.writes else NoLogger()
        self.every = checkpoint
        self.stop = signals.stop
        self.spent = Spent(compute.device)
        self._earlier = earlier
        self._checkpoints = Checkpoints(directory / CHECKPOINTS)
        self._tracked: dict[str, TrackedState] = {}
        self._unclaimed: dict[str, StoredState] = {}
        self._logs: Logs | None = None
        self._seconds = 0.0  # computing time before this process
        self._started = time.monotonic()
        self._due = math.inf  # when the next checkpoint by time
        self._steps = 0  # safe points since the last checkpoint
        self._finished = False
        self._recorded = False  # whether run.json has an entry of this process

    @property
    def writes(self) -> bool:
        """Whether this process writes the files of the run."""
        return self.compute.ranks.writes

    @property
    def seconds(self) -> float:
        """Seconds of computing so far, over all processes that worked on this run."""
        return self._seconds + time.monotonic() - self._started

    @property
    def logs(self) -> Logs:
        """The logs of a run that has begun."""
        assert self._logs is not None, "the run has not begun"  # noqa: S101
        return self._logs

    def begin(self, architecture: Architecture | None = None) -> None:
        """Write run.json and open the logs; to be called when the task has all that it needs.

        A run that is continued goes back to its last checkpoint.
        architecture: an architecture that the run is given, if any.
        """
        self.logger.check()
        self.stop.deferred = True  # a signal must not stop the run halfway here
        lengths: dict[str, int] = {}
        if self._earlier is None:
            make_folder(self.directory / CHECKPOINTS)
            if architecture is not None:
                self.save_architecture(architecture)
        else:
            lengths = self._go_back()
        self.compute.ranks.wait()  # all have read what is there before the first one writes
        name = " ".join([self.task, *self.overrides])
        logged = LoggedRun(self.directory, name, lengths, self.say)
        self._logs = Logs(self.directory, lengths, self.logger.open(logged))
        if not lengths:
            self._logs.describe(self.config, self.overrides)
        self.screen.say(f"{self.task} on {self.compute.describe()}, seed {self.streams.seed}")
        self.screen.say(f"writing to {self.directory}")
        if self._earlier is None:
            self._write_record()
        elif changed := provenance.differences(self._earlier.record):
            self.say(changed, "yellow")
        self.keep("spent", self.spent)
        self._set_due(0.0)

    def _go_back(self) -> dict[str, int]:
        """Restore the newest undamaged checkpoint; returns the lengths of the logs at that time."""
        make_folder(self.directory / CHECKPOINTS)
        whole = self._checkpoints.read(lambda line: self.say(line, "yellow"))
        intact = [
            checkpoint for checkpoint in whole if not missing(self.directory, checkpoint.logs)
        ]
        chosen: Checkpoint | None = next(iter(intact or whole), None)
        if chosen is None:
            self.say("no checkpoint to continue from: starting at the beginning")
            return {}
        for name, count in missing(self.directory, chosen.logs).items():
            self.say(f"{name} lacks its last {count:,} bytes; they cannot be had again", "yellow")
        self._checkpoints.kept = [
            checkpoint for checkpoint in whole[::-1] if checkpoint.number <= chosen.number
        ]
        self._unclaimed = dict(chosen.states)
        self._seconds = chosen.seconds
        self.say(
            f"continuing from checkpoint {chosen.number}, after {chosen.seconds:.0f} s of work"
        )
        return whole_lines(self.directory, chosen.logs)

    def _record(self) -> dict[str, Any]:
        if self._earlier is None:
            record = provenance.record(
                *(self.task, self.config, self.overrides, self.streams.seed),
                *(self.compute, self.directory),
            )
            return record if self.data is None else {**record, "data": self.data}
        resumed = self._earlier.record.get("resumed")
        entry = provenance.resumption(self.overrides, self.seconds, self.compute)
        if self._earlier.result is not None:
            entry["result"] = self._earlier.result
        return {
            **self._earlier.record,
            "config": self.config,
            "resumed": [*(resumed if isinstance(resumed, list) else []), entry],
        }

    def _write_record(self) -> None:
        """Write run.json, and open log.txt; a continued run does so at its first checkpoint.

        By then all states have been restored, so changed settings are known to fit.
        """
        if not self.writes:
            return
        words = command(self.task, *self.overrides)
        go_on = self._earlier is not None
        self.screen.log.open(self.directory, f"resumed: {words}" if go_on else words, go_on=go_on)
        record = self._record()
        # Delete result.json first: a kill in between must not leave a finished-looking run with
        # settings that it was not trained with. Its content is in the record.
        (self.directory / RESULT).unlink(missing_ok=True)
        write_json(self.directory / RECORD, record)
        self._recorded = True

    def close(self) -> None:
        """Close the logs, however the task ended."""
        self.stop.deferred = False
        self.screen.close()
        if self._logs is not None:
            self._logs.close(done=self._finished)

    def say(self, line: str = "", style: str | None = None) -> None:
        """Show a line on the screen."""
        self.screen.say(line, style)

    def expect(self, stages: Sequence[PlannedStage]) -> None:
        """Plan the stages that are to come, for the time that is left."""
        self.screen.expect(stages)

    def show_end(
        self, title: str, rows: Sequence[tuple[str, str]], next_commands: Sequence[str]
    ) -> None:
        """Keep what is to be shown last: a box, and below it the commands to type next.

        title: what was done; the time is added. rows: a label and a text each, five at most; the
        place of the report, or of all files, is added. next_commands: by importance; three are
        shown, of tasks that there are.
        """
        title = f"{title} in {duration(self.seconds)}"
        self.end = RunEnd(title, tuple(rows), tuple(next_commands))

    def say_end(self, known: Sequence[str] | None = None) -> None:
        """Show the box, if the task has made one. known: the tasks that commands may name."""
        if self.end is None:
            return
        page = self.directory / REPORT_PAGE
        place = ("report", page) if page.is_file() else ("files", self.directory)
        end = replace(
            self.end,
            rows=(*self.end.rows, (place[0], shown(place[1]))),
            commands=tuple(first_known(self.end.commands, known)),
        )
        self.say()
        for line in end.lines(ascii_only=self.screen.ascii_only):
            self.say(line)

    @contextmanager
    def stage(self, name: str, total: int) -> Iterator[RunStage]:
        """Begin a stretch of work with a progress bar; metrics are logged under ``name``."""
        with self.screen.stage(name, total) as stage:
            yield RunStage(self, name, stage)

    def measured(
        self, trials: Iterator[Trial], architectures: Sequence[Architecture]
    ) -> Iterator[Trial]:
        """Return the trials of these architectures; a rehearsal measures only some of them."""
        return trials

    def record(self, trials: Iterable[Trial], **context: Any) -> None:
        """Append trials to trials.jsonl; context: e.g. the round they belong to."""
        trials = list(trials)
        self.logs.trials(trials, **context)
        self.spent.evaluations += len(trials)

    def spend(self, stage: str, *, steps: int, images: int) -> None:
        """Count training as part of the run's cost (see Monitor)."""
        self.spent.add(stage, steps=steps, images=images)

    def keep(self, name: str, stateful: Stateful, label: str = "") -> None:
        """Track a state (see Monitor); raises UserError if the stored one does not fit."""
        self._tracked[name] = tracked = TrackedState(stateful, label)
        stored = self._unclaimed.pop(name, None)
        if stored is None or stored.label != label:
            return
        limit = 4 * state_bytes(stateful.state_dict()) + SPARE_BYTES
        try:
            stateful.load_state_dict(self._checkpoints.state(stored, limit))
        except MISFIT_ERRORS as error:
            reason = " ".join(str(error).split())[:300]
            raise UserError(
                f"the state of {name} in {self.directory / CHECKPOINTS} does not fit this run "
                f"({type(error).__name__}: {reason})"
            ) from error
        tracked.mark, tracked.written = getattr(stateful, "mark", None), stored

    def drop(self, name: str) -> None:
        """Leave the object ``name`` out of later checkpoints (see Monitor)."""
        self._tracked.pop(name, None)

    def safe_point(self) -> None:
        """Write a checkpoint if one is due; raises Interrupted if told to stop."""
        self._steps += 1
        by_steps = self.every.steps is not None and self._steps >= self.every.steps
        if by_steps or time.monotonic() >= self._due:
            self.checkpoint()
        self.poll()

    def poll(self) -> None:
        """Raise Interrupted if told to stop; the first rank saves, and the others stop after it."""
        if self.stop.signal is not None and (self.writes or self.compute.ranks.first_has_ended()):
            if self._steps:
                self.checkpoint()
            raise Interrupted(self.stop.signal, str(self.directory))

    def checkpoint(self) -> None:
        """Write all tracked states now."""
        if not self.writes:
            return
        began = time.monotonic()
        if not self._recorded:
            self._write_record()
        self._checkpoints.write(self._tracked, self._unclaimed, self.logs.lengths(), self.seconds)
        self._steps = 0
        self._set_due(time.monotonic() - began)

    def _set_due(self, cost: float) -> None:
        """Set the time of the next checkpoint; cost: seconds that the last one took."""
        minutes = math.inf if self.every.minutes is None else self.every.minutes
        self._due = time.monotonic() + max(60 * minutes, cost / MAX_CHECKPOINT_SHARE)

    def write_note(self, file: str, content: Mapping[str, Any]) -> str:
        """Write a file that helps to find the cause of an error; returns words with its path."""
        path = self.directory / file
        write_json(path, content)
        return f"see {path}"

    def save_weights(
        self, file: str, network: nn.Module, metadata: Mapping[str, str] | None = None
    ) -> None:
        """Write the parameters and buffers of a network to a file of the run.

        metadata: texts that say in the file what it holds.
        """
        _, tensors = pack(dict(network.state_dict()))
        data = encode_tensors(tensors, metadata)
        write_bytes(self.directory / file, data)

    def load_weights(self, path: Path, network: nn.Module) -> None:
        """Load the weights of another run; raises UserError if they do not fit ``network``."""
        try:
            limit = 2 * state_bytes(dict(network.state_dict())) + SPARE_BYTES
            network.load_state_dict(decode_tensors(read_bytes(path, limit)))
        except (OSError, *MISFIT_ERRORS) as error:
            reason = " ".join(str(error).split())[:200]
            raise UserError(f"{path}: not the weights of this network ({reason})") from error

    def save_architecture(self, architecture: Architecture) -> None:
        """Write architecture.json."""
        write_json(self.directory / ARCHITECTURE, architecture.to_json())

    def finish(self, result: dict[str, Any]) -> dict[str, Any]:
        """Write result.json: the run is done. Its last checkpoint stays for further training."""
        self.checkpoint()
        self.screen.rest()
        if self.writes:
            self._checkpoints.keep_only(self._checkpoints.kept[-1:])
        cost = {"spent": self.spent.to_json(self.compute.ranks), "seconds": round(self.seconds, 1)}
        result = {"status": "done", "task": self.task, **result, **cost}
        write_json(self.directory / RESULT, result)
        self.logs.result(result)
        self._finished = True
        self.stop.deferred = False
        return result


class RunStage:
    """A stage of a run: shown on the screen, and its metrics logged."""

    def __init__(self, run: Run, name: str, screen: ScreenStage) -> None:
        self.run, self.name, self.screen = run, name, screen

    def advance(self, steps: int = 1, **metrics: float) -> None:
        self.screen.advance(steps, metrics)
        if metrics:
            self.run.logs.metrics(self.name, self.screen.done, metrics)

    def ahead(self, steps: int) -> None:
        """Tell how many steps are done that are counted later, each in its turn."""
        if steps != self.screen.ahead:
            self.screen.ahead = steps
            self.screen.advance(0, {})
