"""The interface of tasks: settings, files taken from another run, and the work itself."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from nasrun.errors import UserError
from nasrun.run.files import at_home

if TYPE_CHECKING:
    from nasrun.dataset.base import Splits
    from nasrun.run.run import Run
    from nasrun.run.stages import PlannedStage
    from nasrun.task.setup import Setup


class Task(ABC):
    """The task ``nasrun NAME``: the class ``NameTask`` of the module ``nasrun.task.name``.

    The constructor takes the task's own settings, if it has any.
    """

    settings: ClassVar[str | None] = None
    """The configuration node that names this class and holds its settings; None: no settings."""

    takes: ClassVar[str | None] = None
    """The file of another run that ``from=RUN_DIR`` provides; None: the task takes no file."""

    takes_file: ClassVar[bool] = False
    """Whether ``from=`` may also name that file itself, wherever it lies."""

    same_images: ClassVar[bool] = False
    """Whether the split of images of that run is used: a supernet must not be scored on images that
    it was trained on."""

    repeats_shapes: ClassVar[bool] = False
    """Whether one network sees images of one shape again and again: then cuDNN's search for the
    fastest way to convolve each pays. A supernet has too many shapes for that: see docs/gpu.md."""

    changeable: ClassVar[tuple[str, ...]] = (
        *(
            "device",
            "precision",
            "deterministic",
            "threads",
            "batch_size",
            "on_nonfinite",
            "sync_batch_norm",
            "compile",
            "report",
        ),
        *("checkpoint.*", "dataset.root", "dataset.download", "dataset.workers"),
        *("budget.latency.store", "*.log_every", "*.report_every"),
        *("evaluator.share", "evaluator.store", "rank.also.share", "rank.also.store"),
        *("trainer.epochs", "retrain.trainer.epochs"),
    )
    """Patterns of the settings that may change when a run is continued: device and precision, logs,
    length of training. With any other change no single configuration could give the result."""

    stores: ClassVar[Mapping[str, str]] = {
        "budget.latency.store": "latency",
        "evaluator.store": "scores",
        "rank.also.store": "scores",
        "logger.folder": "mlruns",
    }
    """Settings that name folders shared by runs -> default names of these folders."""

    @classmethod
    def source(cls, settings: Mapping[str, Any]) -> Path | None:
        """Return the file that a new run starts from; None if it needs no file.

        Raises UserError if the settings contradict each other.
        """
        if cls.takes is None or settings.get("from") is None:
            return None
        return at_home(str(settings["from"])) / cls.takes

    @classmethod
    def copy_of_source(cls, settings: Mapping[str, Any], directory: Path) -> Path | None:
        """Return the copy of the source in the ``directory`` of a run that is continued.

        Such a run reads nothing outside its directory again.
        """
        if cls.takes is None or settings.get("from") is None:
            return None
        return directory / cls.takes

    @classmethod
    def objective(cls, settings: Mapping[str, Any]) -> str | None:
        """Name the number of result.json that a sweeper maximises; None: the task has none.

        It must not be measured on test images.
        """
        return None

    def stages(self, setup: Setup, splits: Splits) -> list[PlannedStage]:
        """Plan the stages of the task, in order, as far as the settings tell."""
        return []

    @abstractmethod
    def run(self, setup: Setup, run: Run, source: Path | None) -> dict[str, Any]:
        """Do the task, or the rest of it; returns the content of result.json.

        A run that is continued executes the same lines again. Every object that is kept in
        checkpoints knows its progress, so finished work is not repeated.
        """


def find_task(name: str) -> type[Task]:
    """Return the class of the task ``name``; imports torch.

    Raises UserError if there is no such task.
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
