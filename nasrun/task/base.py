"""A task of the command line: what it is told, what it takes from another run, what it does."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from nasrun.errors import UserError

if TYPE_CHECKING:
    from nasrun.run.run import Run
    from nasrun.task.setup import Setup


class Task(ABC):
    """The task ``nasrun NAME``: the class ``NameTask`` of the module ``nasrun.task.name``.

    Its constructor takes the settings of its own, if any.
    """

    settings: ClassVar[str | None] = None
    """The node of the configuration that names this class and holds its own settings; None: it has
    none."""

    takes: ClassVar[str | None] = None
    """The file of another run that ``from=RUN_DIR`` hands over; None: the task takes none."""

    same_images: ClassVar[bool] = False
    """Whether that run's split of images is kept: a supernet must not be scored on images that it
    was trained on."""

    changeable: ClassVar[tuple[str, ...]] = (
        *("device", "precision", "deterministic", "threads", "batch_size", "on_nonfinite"),
        *("checkpoint.*", "dataset.root", "dataset.download", "dataset.workers"),
        *("budget.latency.store", "*.log_every", "*.report_every"),
        *("trainer.epochs", "retrain.trainer.epochs"),
    )
    """Settings, as patterns, with which a run may go on otherwise than it began: where and how it
    is computed, how much it says, how long it trains. Any other would make its result that of no
    run at all."""

    stores: ClassVar[Mapping[str, str]] = {"budget.latency.store": "latency"}
    """Settings that name folders which runs share, and what these folders are called."""

    @classmethod
    def source(cls, settings: Mapping[str, Any]) -> Path | None:
        """Return the file that a new run starts from; None if it starts from nothing.

        Raises UserError if the settings contradict each other.
        """
        if cls.takes is None or settings.get("from") is None:
            return None
        return Path(str(settings["from"])).expanduser() / cls.takes

    @classmethod
    def copy_of_source(cls, settings: Mapping[str, Any], directory: Path) -> Path | None:
        """Return the copy of that file in the ``directory`` of a run that is continued.

        Such a run reads nothing outside of its directory again.
        """
        if cls.takes is None or settings.get("from") is None:
            return None
        return directory / cls.takes

    @abstractmethod
    def run(self, setup: Setup, run: Run, source: Path | None) -> dict[str, Any]:
        """Do the task, or what is left of it; returns what stands in result.json.

        A run that is continued goes through the same lines: each thing that is kept knows how far
        it has come, and what is done is not done again.
        """


def find_task(name: str) -> type[Task]:
    """Return the class of the task ``name``; imports torch.

    Raises UserError if there is none.
    """
    module = f"nasrun.task.{name}"
    try:
        found = getattr(import_module(module), f"{name.title().replace('_', '')}Task", None)
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
        raise UserError(f"task {name} has no code: there is no module {module}") from error
    if not (isinstance(found, type) and issubclass(found, Task)):
        raise UserError(f"task {name} has no code: there is no task in {module}")
    return found
