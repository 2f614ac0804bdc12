"""Loggers: what other programs are told of a run, the same whether it was stopped or not."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from nasrun.cli.resume import loses_logger
from nasrun.errors import UserError
from nasrun.report.image_sheet import image_sheet
from nasrun.run.loggers import LoggedRun, LoggerSettings, NoLogger
from nasrun.run.logs import Logs
from nasrun.run.mlflow_logger import Mlflow, as_key
from nasrun.run.wandb_logger import Wandb


def log_a_run(directory: Path, logger: LoggerSettings) -> None:
    """A run of two rounds that is stopped in the second one and goes on."""
    logs = Logs(directory, {}, logger.open(LoggedRun(directory, "search seed=3", {})))
    logs.describe({"seed": 3, "a": {"b": "x"}}, ["seed=3"])
    logs.image("supernet/batch", image_sheet(torch.rand(2, 3, 8, 8)))
    for step in (1, 2):
        logs.metrics("score/round0", step, {"best": step / 2})
    logs.metrics("score/round1", 1, {"best": 3.0})
    lengths = logs.lengths()
    logs.close()
    logs = Logs(directory, lengths, logger.open(LoggedRun(directory, "search seed=3", lengths)))
    logs.metrics("score/round1", 2, {"best": 4.0})
    logs.result({"test_accuracy": 0.5, "status": "done", "spent": {}})
    logs.close(done=True)


STEPS = {1: 0.5, 2: 1.0, 3: 3.0, 4: 4.0}


def test_without_a_logger_the_files_are_there(tmp_path: Path) -> None:
    log_a_run(tmp_path, NoLogger())
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"metrics.jsonl", "trials.jsonl"}
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 4


@pytest.mark.soak
def test_mlflows_local_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    run = tmp_path / "run"
    run.mkdir()
    log_a_run(run, Mlflow(folder=str(tmp_path / "mlruns"), experiment="nasrun"))
    client = mlflow.MlflowClient(tracking_uri=(tmp_path / "mlruns").as_uri())
    experiment = client.get_experiment_by_name("nasrun")
    (found,) = client.search_runs([experiment.experiment_id])  # one, although it was stopped
    assert found.info.status == "FINISHED" and found.info.run_name == "search seed=3"
    assert found.data.params == {"seed": "3"}
    assert found.data.metrics["result/test_accuracy"] == 0.5
    history = client.get_metric_history(found.info.run_id, "score/best")
    assert {point.step: point.value for point in history} == STEPS
    paths = {each.path for each in client.list_artifacts(found.info.run_id)}
    assert paths == {"configuration.yaml", "supernet"}


def test_names_that_mlflow_takes() -> None:
    assert as_key("health/trained/op (3x3) +1") == "health/trained/op _3x3_ _1"


class StandIn:
    """Weights & Biases, as far as it is used."""

    def __init__(self) -> None:
        self.runs: dict[str, Any] = {}
        self.logged: list[dict[str, Any]] = []
        self.ended: list[int] = []
        self.summary: dict[str, Any] = {}
        self.config: dict[str, Any] = {}
        self.steps: dict[str, str] = {}

    def init(self, **settings: Any) -> SimpleNamespace:
        name = settings["id"] or f"new{len(self.runs)}"
        self.runs[name] = settings
        return SimpleNamespace(
            id=name,
            config=SimpleNamespace(update=lambda values, **_: self.config.update(values)),
            summary=self.summary,
            log=self.logged.append,
            define_metric=lambda curve, step_metric: self.steps.update({curve: step_metric}),
            finish=lambda exit_code: self.ended.append(exit_code),
        )

    def Image(self, image: Any) -> Any:  # noqa: N802 - their name
        return image.size


def test_weights_and_biases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = StandIn()
    monkeypatch.setitem(sys.modules, "wandb", known)  # type: ignore[arg-type]
    log_a_run(tmp_path, Wandb(project="nasrun", mode="offline"))
    assert list(known.runs) == ["new0"] and known.ended == [1, 0]
    assert known.runs["new0"]["mode"] == "offline"
    points = [line for line in known.logged if "score/best" in line]
    assert {line["score/step"]: line["score/best"] for line in points} == STEPS
    assert known.steps == {"score/*": "score/step"}
    assert known.config["seed"] == "3" and "a.b: x" in known.config["configuration"]
    assert known.summary == {"test_accuracy": 0.5}
    assert json.loads((tmp_path / "logger.json").read_text()) == {"wandb": "new0"}


def test_a_program_that_fails_is_told_no_more_and_the_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known, said = StandIn(), []
    monkeypatch.setitem(sys.modules, "wandb", known)  # type: ignore[arg-type]
    run = LoggedRun(tmp_path, "search", {}, lambda line, style: said.append(line))
    logs = Logs(tmp_path, {}, Wandb(project="nasrun", mode="offline").open(run))
    logs._logger.run.log = lambda values: 1 / 0  # type: ignore[attr-defined]
    for step in (1, 2):
        logs.metrics("retrain", step, {"loss": 1.0})
    logs.close()
    (line,) = said
    assert "logger=wandb has failed (division by zero)" in line
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 2


@pytest.mark.parametrize("name", ["mlflow", "wandb"])
def test_what_is_not_installed_is_said_in_one_line(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    settings = {
        "mlflow": Mlflow(folder=os.fspath(tmp_path), experiment="nasrun"),
        "wandb": Wandb(project="nasrun", mode="offline"),
    }[name]
    with pytest.raises(UserError, match=rf"pip install 'nasrun\[{name}\]'"):
        settings.check()


def test_a_strangers_run_tells_no_other_program() -> None:
    for target, lost in (
        ("nasrun.run.loggers.TensorBoard", False),
        ("nasrun.run.loggers.NoLogger", False),
        ("nasrun.run.mlflow_logger.Mlflow", True),
        ("nasrun.run.wandb_logger.Wandb", True),
        ("theirs.Logger", True),
    ):
        settings: dict[str, Any] = {"logger": {"_target_": target}}
        assert loses_logger(settings) is lost
        assert ("logger" in settings) is not lost
    assert not loses_logger({})
