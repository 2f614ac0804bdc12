"""Runs in Weights & Biases."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any, Literal

from nasrun.errors import UserError
from nasrun.run.files import read_object, write_json
from nasrun.run.layout import LOGGER_RUN
from nasrun.run.loggers import (
    LoggedRun,
    Logger,
    LoggerSettings,
    ProgramLogger,
    check_installed,
)


class Wandb(LoggerSettings):
    """Logs to Weights & Biases, as the user's own login and environment say where.

    project: its name for a group of runs. mode: online; offline: into files, which ``wandb sync``
    sends; disabled.
    """

    def __init__(self, *, project: str, mode: Literal["online", "offline", "disabled"]) -> None:
        self.project, self.mode = project, mode

    def check(self) -> None:
        check_installed("wandb", "wandb")

    def open(self, run: LoggedRun) -> Logger:
        import wandb

        path = run.directory / LOGGER_RUN
        known = read_object(path).get("wandb") if run.lengths and path.is_file() else None
        try:
            made = wandb.init(
                project=self.project,
                mode=self.mode,
                name=run.name[:120],
                id=known,
                resume="allow",
                dir=str(run.directory.parent),
            )
        except Exception as error:
            reason = " ".join(str(error).split())[:200]
            raise UserError(f"logger=wandb: it does not take the run ({reason})") from error
        write_json(path, {"wandb": str(made.id)})
        return WandbLogger(wandb, made, run)


class WandbLogger(ProgramLogger):
    """The logger of ``Wandb``. Each kind of curve counts steps of its own."""

    def __init__(self, wandb: Any, run: Any, logged: LoggedRun) -> None:
        super().__init__("wandb", logged)
        self.wandb, self.run = wandb, run
        self.curves: set[str] = set()

    def describe(self, settings: str, overrides: Mapping[str, str]) -> None:
        values = {**overrides, "configuration": settings}
        self.tell(lambda: self.run.config.update(values, allow_val_change=True))

    def metrics(self, curve: str, values: Mapping[str, float], step: int) -> None:
        if curve not in self.curves:
            own = f"{curve}/step"
            self.tell(lambda: self.run.define_metric(f"{curve}/*", step_metric=own))
            self.curves.add(curve)
        points = {f"{curve}/{key}": value for key, value in values.items()}
        self.tell(lambda: self.run.log({**points, f"{curve}/step": step}))

    def image(self, name: str, png: bytes) -> None:
        from PIL import Image

        picture = Image.open(io.BytesIO(png))
        self.tell(lambda: self.run.log({name: self.wandb.Image(picture)}))

    def result(self, numbers: Mapping[str, float]) -> None:
        self.tell(lambda: self.run.summary.update(dict(numbers)))

    def sync(self) -> None:
        pass  # its own process writes

    def close(self, *, done: bool) -> None:
        self.tell(lambda: self.run.finish(exit_code=0 if done else 1))
