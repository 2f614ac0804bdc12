"""The settings of a rehearsal: those of the run, its lengths cut and its stores elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nasrun.trainer.trainer import Trainer

REHEARSED_TRAINER = "nasrun.task.rehearsal.RehearsedTrainer"
"""The class that stands for ``Trainer``, of which a rehearsal does a few steps."""


@dataclass(frozen=True)
class Shortened:
    """A length that is cut in a rehearsal, and the stages whose time goes with it.

    setting: its full key. most: its value in the rehearsal, if it is larger. stage: first word of
    the names of these stages.
    """

    setting: str
    most: float
    stage: str


SHORTENED = (
    Shortened("search_algo.predictor.epochs", 6, "predictor"),
    Shortened("retrain.batch_norm_epochs", 0.1, "batch norm"),
    Shortened("compare.seeds", 2, "compare"),
)

LEFT_OUT: Mapping[str, Any] = {
    "rank.every": 0,
    "checkpoint.minutes": None,
    "checkpoint.steps": None,
    "evaluator.store": None,
    "rank.also.store": None,
}
"""Settings of a rehearsal that measure or save along the way."""


LOOKS = (
    ("supernet", "health.every", "trainer.epochs"),
    ("retrain", "retrain.validate_every", "retrain.trainer.epochs"),
)
"""Stages that are interrupted to measure, the setting that says how often, and their epochs.

A rehearsal looks twice at most, in the middle and at the end.
"""


def looks_of(settings: Mapping[str, Any]) -> dict[str, int]:
    """Return how often the stages of each kind are looked at, the end included."""
    found = {}
    for kind, every, epochs in LOOKS:
        between, length = _at(settings, every), _at(settings, epochs)
        if isinstance(between, int) and isinstance(length, int) and between > 0:
            found[kind] = -(-length // between)
    return found


def rehearsed(settings: Mapping[str, Any], folder: Path) -> tuple[dict[str, Any], dict[str, float]]:
    """Return the settings of a rehearsal, and by how much stages are longer in the run itself.

    folder: for what the run would keep in folders that runs share; deleted afterwards.
    """
    found = deepcopy(dict(settings))
    factors: dict[str, float] = {}
    for cut in SHORTENED:
        value = _at(found, cut.setting)
        if isinstance(value, int | float) and value > cut.most:
            factors[cut.stage] = value / cut.most
            _put(found, cut.setting, type(value)(cut.most))
    for kind, every, epochs in LOOKS:
        if looks_of(found).get(kind, 0) > 2:
            _put(found, every, -(-_at(found, epochs) // 2))
    stores = {"rank.truth_store": folder / "truth", "budget.latency.store": folder / "latency"}
    for key, value in {**LEFT_OUT, **{key: str(path) for key, path in stores.items()}}.items():
        if _at(found, key) is not None:
            _put(found, key, value)
    _exchange_trainers(found)
    return found, factors


def _at(settings: Any, key: str) -> Any:
    for name in key.split("."):
        settings = settings.get(name) if isinstance(settings, Mapping) else None
    return settings


def _put(settings: dict[str, Any], key: str, value: Any) -> None:
    *parents, leaf = key.split(".")
    for name in parents:
        settings = settings[name]
    settings[leaf] = value


def _exchange_trainers(node: Any) -> None:
    inner = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    if isinstance(node, dict) and node.get("_target_") == f"{Trainer.__module__}.Trainer":
        node["_target_"] = REHEARSED_TRAINER
    for each in inner:
        _exchange_trainers(each)
