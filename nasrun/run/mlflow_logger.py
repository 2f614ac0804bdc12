"""Runs in MLflow: its table of runs, with curves and pictures."""

from __future__ import annotations

import io
import os
import re
import time
from collections.abc import Mapping
from typing import Any

from nasrun.errors import UserError
from nasrun.run.files import at_home, read_object, write_json
from nasrun.run.layout import LOGGER_RUN
from nasrun.run.loggers import (
    LoggedRun,
    Logger,
    LoggerSettings,
    ProgramLogger,
    check_installed,
)

MAX_PARAMETER_CHARACTERS = 500
"""Length of a parameter that every version of MLflow takes."""

URI_VARIABLE = "MLFLOW_TRACKING_URI"
"""MLflow's own environment variable: the server. No file of settings may choose where data goes."""


class Mlflow(LoggerSettings):
    """Logs to MLflow: to the server of $MLFLOW_TRACKING_URI, else into a folder.

    folder: of MLflow's local files. experiment: MLflow's name for a group of runs.
    """

    def __init__(self, *, folder: str, experiment: str) -> None:
        self.folder, self.experiment = folder, experiment

    def check(self) -> None:
        check_installed("mlflow", "mlflow")

    def open(self, run: LoggedRun) -> Logger:
        from mlflow import MlflowClient

        # Newer versions take local files only if they are told so; a database needs more packages.
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        uri = os.environ.get(URI_VARIABLE) or at_home(self.folder).absolute().as_uri()
        client = MlflowClient(tracking_uri=uri)
        try:
            return MlflowLogger(client, self._run_id(client, run), run)
        except Exception as error:  # MLflow's own errors have no common base with those of servers
            reason = " ".join(str(error).split())[:200]
            raise UserError(f"logger=mlflow: {uri} does not take the run ({reason})") from error

    def _run_id(self, client: Any, run: LoggedRun) -> str:
        """Return the run in MLflow: the one that has begun, or a new one."""
        path = run.directory / LOGGER_RUN
        if run.lengths and path.is_file():
            known = str(read_object(path).get("mlflow"))
            client.update_run(known, status="RUNNING")
            return known
        found = client.get_experiment_by_name(self.experiment)
        experiment = found.experiment_id if found else client.create_experiment(self.experiment)
        tags = {"nasrun.directory": str(run.directory)}
        made = client.create_run(experiment, run_name=run.name[:250], tags=tags)
        write_json(path, {"mlflow": made.info.run_id})
        return str(made.info.run_id)


class MlflowLogger(ProgramLogger):
    """The logger of ``Mlflow``. A point that is told again after a kill is there twice, alike."""

    def __init__(self, client: Any, run_id: str, run: LoggedRun) -> None:
        super().__init__("mlflow", run)
        self.client, self.run_id = client, run_id

    def describe(self, settings: str, overrides: Mapping[str, str]) -> None:
        from mlflow.entities import Param

        parameters = [
            Param(as_key(key), value[:MAX_PARAMETER_CHARACTERS]) for key, value in overrides.items()
        ]
        self.tell(lambda: self.client.log_batch(self.run_id, params=parameters))
        self.tell(lambda: self.client.log_text(self.run_id, settings, "configuration.yaml"))

    def metrics(self, curve: str, values: Mapping[str, float], step: int) -> None:
        from mlflow.entities import Metric

        now = int(1000 * time.time())
        points = [
            Metric(as_key(f"{curve}/{key}"), float(value), now, step)
            for key, value in values.items()
        ]
        self.tell(lambda: self.client.log_batch(self.run_id, metrics=points))

    def image(self, name: str, png: bytes) -> None:
        from PIL import Image

        picture = Image.open(io.BytesIO(png))
        self.tell(lambda: self.client.log_image(self.run_id, picture, f"{name}.png"))

    def result(self, numbers: Mapping[str, float]) -> None:
        self.metrics("result", numbers, 0)

    def sync(self) -> None:
        pass  # MLflow writes at once

    def close(self, *, done: bool) -> None:
        status = "FINISHED" if done else "KILLED"
        self.tell(lambda: self.client.set_terminated(self.run_id, status))


def as_key(name: str) -> str:
    """Replace the characters that MLflow takes in no name."""
    return re.sub(r"[^\w\-. /]", "_", name)
