"""Logs of a run as typed values: trials and curves, within bounds, without damaged lines."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nasrun.errors import UserError, plural
from nasrun.report import words
from nasrun.run.files import parse_json, read_beginning
from nasrun.values import Architecture, Cost

MAX_LOG_BYTES = 64 * 2**20
"""Bytes of a log that are read, from its beginning; those of long runs have a few millions."""

SIZES = ("params", "macs", "bitops")


@dataclass(frozen=True)
class TrialLine:
    """A line of trials.jsonl.

    number: of the line, from 1. group: the round, epoch or role that it was scored in, in words.
    parents: digests of the architectures that it was made from. by: how it was made.
    images: validation images that it was scored on; None: unknown.
    final: costs of its final network, as far as they are bounded or goals.
    """

    number: int
    architecture: Architecture
    score: float
    cost: Cost
    group: str
    evaluator: str
    parents: tuple[str, ...] = ()
    by: str = ""
    images: float | None = None
    final: Mapping[str, float] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """Eight digits that name the architecture."""
        return self.architecture.digest

    @property
    def searched(self) -> bool:
        """True if the search itself has scored it, not the shortlist or a judge."""
        return self.group not in ("shortlist", "truth", "also")


@dataclass
class Curve:
    """One metric of one stage: [points] steps and values, in order."""

    steps: list[float] = field(default_factory=list)
    values: list[float] = field(default_factory=list)


Curves = Mapping[str, Mapping[str, Curve]]
"""Curves by stage, then by metric, in order of appearance."""


@dataclass(frozen=True)
class Damage:
    """A note of what was not read. lines: no JSON of ours. cut: the file is too long."""

    lines: int = 0
    cut: bool = False

    def words(self, name: str) -> str:
        """Return a sentence about it; empty if all was read."""
        parts = [f"{plural(self.lines, 'damaged line')} left out"] if self.lines else []
        parts += [f"only its first {MAX_LOG_BYTES >> 20} MiB were read"] if self.cut else []
        return f"{name}: {' and '.join(parts)}." if parts else ""


def read_trials(path: Path) -> tuple[list[TrialLine], Damage]:
    """Read trials.jsonl, without what is damaged; empty if it is absent."""
    found: list[TrialLine] = []
    lines, damaged, cut = _objects(path)
    for number, line in lines:
        try:
            trial = _trial(number, line)
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, UserError):
            damaged += 1
        else:
            found.append(trial)
    return found, Damage(damaged, cut)


def _trial(number: int, line: Mapping[str, Any]) -> TrialLine:
    score, cost = float(line["score"]), line["cost"]
    sizes = {name: cost[name] for name in SIZES if cost.get(name) is not None}
    if not math.isfinite(score) or not all(type(size) is int for size in sizes.values()):
        raise ValueError("no finite score, or a size that is no whole number")
    evaluation = line["evaluation"]
    parents = line.get("parents") or ()
    return TrialLine(
        number,
        Architecture.from_json(line["architecture"]),
        score,
        Cost(**sizes),
        _group(line),
        str(evaluation.get("evaluator", ""))[:40],
        tuple(str(parent)[:16] for parent in parents[:4]),
        str(line.get("by") or "")[:40],
        words.number(evaluation.get("images")),
        _costs(line.get("final") or {}),
    )


def _costs(found: Mapping[str, Any]) -> dict[str, float]:
    costs = {str(name)[:40]: float(cost) for name, cost in found.items()}
    if not all(map(math.isfinite, costs.values())):
        raise ValueError("no finite cost")
    return costs


def _group(line: Mapping[str, Any]) -> str:
    if "role" in line:
        return str(line["role"])[:40]
    if "epoch" in line:
        return f"epoch {str(line['epoch'])[:20]}"
    place = str(line.get("round", ""))[:20]
    return f"round {place}" if place.isdecimal() else place


def architecture_in(path: Path, number: int) -> Any:
    """Return the architecture, as JSON, in a line of trials.jsonl; raises UserError if none."""
    try:
        data, _ = read_beginning(path, MAX_LOG_BYTES)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    lines = data.split(b"\n")[:-1]
    if not 1 <= number <= len(lines):
        raise UserError(f"trial={number}: {path} has the lines 1 to {len(lines):,}")
    try:
        found = parse_json(lines[number - 1])
        return found["architecture"]
    except (ValueError, LookupError, TypeError) as error:
        raise UserError(f"line {number} of {path} is damaged: it names no architecture") from error


def read_curves(path: Path) -> tuple[dict[str, dict[str, Curve]], Damage]:
    """Read metrics.jsonl, without what is damaged; empty if it is absent."""
    found: dict[str, dict[str, Curve]] = {}
    lines, damaged, cut = _objects(path)
    for _, line in lines:
        stage, step = line.get("stage"), words.number(line.get("step"))
        if not isinstance(stage, str) or step is None:
            damaged += 1
            continue
        metrics = found.setdefault(stage[:100], {})
        for name, value in line.items():
            if name in ("stage", "step") or type(value) not in (int, float):
                continue
            with suppress(OverflowError):
                if math.isfinite(float(value)):
                    curve = metrics.setdefault(name[:100], Curve())
                    curve.steps.append(step)
                    curve.values.append(float(value))
    return found, Damage(damaged, cut)


def _objects(path: Path) -> tuple[list[tuple[int, dict[str, Any]]], int, bool]:
    """Return the objects of a log by line, the number of damaged lines, and whether it is cut.

    The last line may be half-written while the run goes on, so it is no damage.
    """
    try:
        data, cut = read_beginning(path, MAX_LOG_BYTES)
    except (OSError, UserError):
        return [], 0, False
    lines = data.split(b"\n")
    lines.pop()  # what follows the last line end
    found, damaged = [], 0
    for number, line in enumerate(lines, 1):
        try:
            value = parse_json(line)
        except ValueError:
            value = None
        if isinstance(value, dict):
            found.append((number, value))
        else:
            damaged += 1
    return found, damaged, cut


def read_rows(path: Path) -> list[dict[str, str]]:
    """Read the rows of a CSV file of ours as texts; empty if it is absent or no text."""
    try:
        data, _ = read_beginning(path, MAX_LOG_BYTES)
        rows = list(csv.DictReader(io.StringIO(data.decode(), newline="")))
    except (OSError, ValueError, UserError, csv.Error):
        return []
    return [{key: value for key, value in row.items() if isinstance(value, str)} for row in rows]


def read_front(path: Path) -> dict[str, tuple[int, dict[str, float]]]:
    """Read the places in front.json, with the costs, by the digest of the architecture.

    What is damaged is left out; empty if the file is absent.
    """
    try:
        rows = parse_json(read_beginning(path, MAX_LOG_BYTES)[0])
    except (OSError, ValueError, UserError):
        return {}
    found = {}
    for place, row in enumerate(rows if isinstance(rows, list) else []):
        with suppress(UserError, LookupError, TypeError, OverflowError, AttributeError):
            costs = {
                str(name): float(value)
                for name, value in row.items()
                if name != "score" and type(value) in (int, float) and math.isfinite(value)
            }
            found[Architecture.from_json(row["architecture"]).digest] = (place, costs)
    return found


def numbers(row: Mapping[str, str], *names: str) -> list[float]:
    """Return cells of a row as finite numbers; raises ValueError or LookupError."""
    values = [float(row[name]) for name in names]
    if not all(map(math.isfinite, values)):
        raise ValueError("no finite number")
    return values


def joined(curves: Curves, stage: str, metric: str) -> Curve:
    """Join the rounds of a stage, ``supernet/round0``, ``supernet/round1`` ..., into one curve.

    stage: its name before the slash, or as a whole. Steps count on from round to round.
    """
    found, before = Curve(), 0.0
    pattern = re.compile(rf"{re.escape(stage)}(/round\d+)?")
    for name in (name for name in curves if pattern.fullmatch(name)):
        every = [step for curve in curves[name].values() for step in curve.steps]
        curve = curves[name].get(metric, Curve())
        found.steps += [before + step for step in curve.steps]
        found.values += curve.values
        before += max(every, default=0.0)
    return found


def best_so_far(trials: list[TrialLine]) -> Iterator[tuple[int, float]]:
    """Yield (evaluations so far, best score so far) for each trial of the search."""
    best = -math.inf
    for count, trial in enumerate((trial for trial in trials if trial.searched), 1):
        best = max(best, trial.score)
        yield count, best
