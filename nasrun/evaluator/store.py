"""The store of trials: scores of stand-alone networks, kept for all later runs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Any

from nasrun.errors import UserError
from nasrun.run.files import append, at_home, read_bytes
from nasrun.search_space.base import SearchSpace
from nasrun.values import Architecture, Problem, Trial

MAX_STORE_BYTES = 2**30
"""Size of a store that is still read."""


class TrialStore:
    """Trials of stand-alone networks in a file of JSON lines, one file for each definition.

    definition: everything besides architecture and seed on which a score depends. Equal definitions
    share a file. A trial is appended in one write, so several processes may append side by side.
    """

    def __init__(self, folder: Path, definition: Mapping[str, Any]) -> None:
        text = json.dumps(definition, sort_keys=True)
        name = blake2b(text.encode(), digest_size=8).hexdigest()
        self.path = at_home(folder) / f"{name}.jsonl"
        self.definition = text

    def read(self, space: SearchSpace, problem: Problem) -> dict[tuple[Architecture, int], Trial]:
        """Read all trials so far; raises UserError if the networks have changed since then.

        A line that a killed process left unfinished is skipped.
        """
        found: dict[tuple[Architecture, int], Trial] = {}
        if not self.path.exists():
            return found
        for number, line in enumerate(read_bytes(self.path, MAX_STORE_BYTES).splitlines(), 1):
            try:
                trial = Trial.from_json(json.loads(line)["trial"])
            except (ValueError, KeyError, TypeError, RecursionError, UserError):
                continue
            architecture = space.check(trial.architecture)
            if trial.cost != space.cost(architecture, problem):
                raise UserError(
                    f"{self.path}, line {number}: {trial.cost.params:,} parameters and "
                    f"{trial.cost.macs:,} MACs, but the architecture has "
                    f"{space.cost(architecture, problem).params:,} and "
                    f"{space.cost(architecture, problem).macs:,}: it was trained with another "
                    "definition of the networks; move the file away, or set rank.truth_store"
                )
            found[architecture, trial.seed] = trial
        return found

    def add(self, trial: Trial) -> None:
        """Append a trial in a single write, and wait until it is on the disk."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        line = b""
        if not self.path.exists():
            line = json.dumps({"definition": json.loads(self.definition)}).encode() + b"\n"
        elif not read_bytes(self.path, MAX_STORE_BYTES).endswith(b"\n"):
            line = b"\n"  # ends a line that a killed process left unfinished
        line += json.dumps({"trial": trial.to_json()}).encode() + b"\n"
        append(self.path, line)
