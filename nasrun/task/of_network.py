"""Tasks about a trained network: where it comes from, and its copy in their own directory."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from nasrun.errors import UserError
from nasrun.model.model import Model, load, weights_of
from nasrun.report.run_files import job_files
from nasrun.run.checkpoints import MAX_TENSOR_BYTES
from nasrun.run.commands import command
from nasrun.run.files import read_bytes, write_bytes, write_json
from nasrun.run.layout import NETWORK, SOURCE
from nasrun.run.run import Run
from nasrun.task.base import Task
from nasrun.task.setup import Setup

Prepared = TypeVar("Prepared")
"""The type of what a task prepares before anything is written."""


@dataclass(frozen=True)
class Source:
    """Facts about the run that has trained a network, as far as its files tell them.

    The files may be a stranger's: the facts are shown, compared and nothing else.
    content: of source.json; ``{}`` where the network's file lies alone.
    """

    content: Mapping[str, Any]

    @staticmethod
    def beside(file: Path) -> Source:
        """Collect the facts about the run in whose directory the network's ``file`` lies."""
        run = job_files(file.parent)
        if run.has(SOURCE):
            return Source(run.read_object(SOURCE))
        record = run.record
        if not record:
            return Source({})
        kept = ("task", "seed", "device", "threads", "started", "nasrun", "versions", "git", "data")
        return Source(
            {
                "run": str(file.parent.resolve()),
                "overrides": [str(word) for word in run.overrides],
                **{key: record[key] for key in kept if key in record},
                "dataset": run.config.get("dataset"),
                "result": run.result,
            }
        )

    @property
    def dataset(self) -> Mapping[str, Any] | None:
        """The data set's part of the configuration of that run; None: unknown."""
        found = self.content.get("dataset")
        return found if isinstance(found, dict) else None

    @property
    def images_of_class(self) -> dict[str, int] | None:
        """Number of images in the folder of each class, over all splits; None: unknown."""
        data = self.content.get("data")
        try:
            counts = list(data["images"].values())  # type: ignore[index]
            classes = enumerate(data["classes"])  # type: ignore[index]
            return {str(name): sum(int(split[k]) for split in counts) for k, name in classes}
        except (TypeError, LookupError, ValueError, AttributeError):
            return None

    @property
    def command(self) -> str | None:
        """The command that began the run; None: unknown."""
        task, words = self.content.get("task"), self.content.get("overrides")
        return command(task, *words) if isinstance(words, list) else None


class OfNetwork(Task, Generic[Prepared]):
    """A task about a trained network: of a run, or of a network.safetensors by itself."""

    takes: ClassVar[str | None] = NETWORK
    takes_file = True
    same_images = True

    @classmethod
    def source(cls, settings: Mapping[str, Any]) -> Path | None:
        """Return the file of the network; raises UserError if none is given, or it is absent."""
        given = settings.get("from")
        if given is None:
            raise UserError(
                f"{settings.get('task')} needs from=RUN_DIR, of a search or a retraining, or "
                f"from=FILE, a {NETWORK}"
            )
        return weights_of(Path(str(given)))

    def run(self, setup: Setup, run: Run, source: Path | None) -> dict[str, Any]:
        """Load the network, copy it into the directory of this run, and do the work with it.

        A run that is continued does its work again, with its own copy.
        """
        assert source is not None  # see above  # noqa: S101
        model, facts = load(source), Source.beside(source)
        prepared = self.prepare(setup, run, model, facts)
        if source.parent != run.directory:
            # Copied before the run begins: after that only its own directory is read.
            write_bytes(run.directory / NETWORK, read_bytes(source, MAX_TENSOR_BYTES))
            write_json(run.directory / SOURCE, dict(facts.content))
        run.begin()
        return self.work(setup, run, model, facts, prepared)

    @abstractmethod
    def prepare(self, setup: Setup, run: Run, model: Model, source: Source) -> Prepared:
        """Check and load what the work needs, before anything is written."""

    @abstractmethod
    def work(
        self, setup: Setup, run: Run, model: Model, source: Source, prepared: Prepared
    ) -> dict[str, Any]:
        """Do the work; returns the content of result.json, as ``Run.finish`` does."""
