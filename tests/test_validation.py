"""Validation while the winner is trained: it changes no bit, keeps the best, stops in time."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import CPU, TASK, Images, splits, trainer
from torch import Tensor

from nasrun.errors import UserError
from nasrun.evaluator.accuracy import accuracy
from nasrun.run.monitor import NullMonitor
from nasrun.run.run import CheckpointEvery, Run
from nasrun.run.state import pack
from nasrun.search_space.base import Network
from nasrun.streams import Streams
from nasrun.task import validation as module
from nasrun.task.retrain import trained
from nasrun.task.setup import Retrain
from nasrun.task.validation import Validation
from nasrun.trainer.training import Training

EPOCHS = 3


def run_in(place: Path) -> Run:
    run = Run(
        place,
        task="retrain",
        config={},
        overrides=[],
        seed=0,
        compute=CPU,
        checkpoint=CheckpointEvery(minutes=None, steps=None),
    )
    run.begin()
    return run


class Tiny(Network):
    """A network with all that looking could change: weights, statistics, and noise of the steps."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = torch.nn.BatchNorm2d(1)
        self.head = torch.nn.Linear(64, TASK.classes)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.noise.drop_path(self.norm(x), 1.0).flatten(1)
        found: Tensor = self.head(self.noise.dropout(hidden))
        self.auxiliary_logits = found if self.training else None
        return found


def started() -> Training[Network]:
    """A training of two steps an epoch."""
    with Streams(0).default("init"):
        network = Tiny()
    noise = {"drop_path_keep": 0.8, "dropout_keep": 0.8}
    return trainer(epochs=EPOCHS, batch_size=32, **noise).bind(network, Images(64), CPU, Streams(0))


def settings_of(**changes: Any) -> Retrain:
    return Retrain(**{"images": "train", "trainer": trainer(epochs=EPOCHS), **changes})


class Setup:
    """As much of a built configuration as is needed here."""

    def __init__(self, **changes: Any) -> None:
        self.retrain = settings_of(**changes)


def state(network: Network) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


def train_all(place: Path, **changes: Any) -> tuple[Training[Network], Network, dict[str, Any]]:
    run, training = run_in(place), started()
    images = replace(splits(), validation=Images(32, seed=1))
    used, told = trained(Setup(**changes), run, images, training, "digest")  # type: ignore[arg-type]
    run.close()
    return training, used, told


def lines(place: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (place / "metrics.jsonl").read_text().splitlines()]


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_looking_changes_no_bit_and_the_best_epoch_is_kept(tmp_path: Path) -> None:
    blind, network, told = train_all(tmp_path / "blind", validate_every=0)
    assert told == {} and network is blind.network
    watched, network, told = train_all(tmp_path / "watched")
    assert network is watched.network
    assert equal(state(blind.network), state(watched.network))
    (tree, tensors), (other_tree, others) = pack(blind.state_dict()), pack(watched.state_dict())
    assert tree == other_tree and equal(tensors, others)
    by_stage = [line for line in lines(tmp_path / "watched") if line["stage"] == "retrain"]
    assert by_stage == lines(tmp_path / "blind")
    looks = [line for line in lines(tmp_path / "watched") if line["stage"] != "retrain"]
    assert [line["step"] for line in looks] == [2, 4, 6]
    # The same accuracies by a second way: trained up to each epoch, and measured there.
    found = [line["accuracy"] for line in looks]
    training = started()
    for epoch, expected in enumerate(found, 1):
        training.train_round(NullMonitor(), "retrain", epochs=epoch)
        images = Images(32, seed=1).eval_batches(32)
        measured = accuracy(training.network, images, CPU, NullMonitor())
        assert measured == expected
        if epoch == told["epochs"]["best"]:
            best = state(training.network)
    assert told["epochs"] == {
        "trained": EPOCHS,
        "used": EPOCHS,
        "best": found.index(max(found)) + 1,
        "best_validation_accuracy": max(found),
    }
    _, network, told = train_all(tmp_path / "best", use="best")
    assert equal(state(network), best)
    assert told["epochs"]["used"] == told["epochs"]["best"]
    names = {path.name for path in (tmp_path / "best").glob("*.safetensors")}
    assert names == {"network_last.safetensors"}


def falling(monkeypatch: pytest.MonkeyPatch, accuracies: list[float]) -> None:
    """Let the looks find these accuracies."""
    values = iter(accuracies)
    monkeypatch.setattr(module, "accuracy", lambda *arguments: next(values))


@pytest.mark.parametrize(
    ("accuracies", "patience", "trained_epochs", "best"),
    [
        ([0.5, 0.4, 0.9], None, 3, 3),
        ([0.5, 0.5, 0.9], 1, 2, 1),  # an equal one is no better one
        ([0.5, 0.4, 0.6], 2, 3, 3),
        ([float("nan"), 0.1, 0.0], 1, 3, 2),
    ],
)
def test_early_stopping(
    accuracies: list[float],
    patience: int | None,
    trained_epochs: int,
    best: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    falling(monkeypatch, accuracies)
    training, _, told = train_all(tmp_path, patience=patience)
    assert (told["epochs"]["trained"], told["epochs"]["best"]) == (trained_epochs, best)
    assert training.global_step == 2 * trained_epochs


def test_a_state_goes_on_and_others_are_refused(tmp_path: Path) -> None:
    training, run = started(), run_in(tmp_path)
    watched = Validation(settings_of(), Images(32, seed=1), training.network, run)
    training.train_round(run, "retrain", epochs=1)
    watched.look(training, 1)
    watched.look(training, 1)  # once is enough
    assert watched.mark == 1
    kept = copy.deepcopy(watched.state_dict())
    again = Validation(settings_of(), Images(32, seed=1), started().network, run)
    again.load_state_dict(kept)
    assert again.measured == watched.measured and equal(again.weights, state(training.network))
    name = next(iter(again.weights))
    for change in (
        {"epochs": [1, 1], "accuracies": [0.5, 0.5]},
        {"accuracies": [1.5]},
        {"accuracies": [float("nan")]},
        {"weights": {}},
        {"weights": {**kept["weights"], name: kept["weights"][name].double()}},
        {"weights": {**kept["weights"], name: kept["weights"][name][..., None]}},
    ):
        with pytest.raises(ValueError):
            again.load_state_dict({**kept, **change})
        assert again.measured == watched.measured
    run.close()


@pytest.mark.few(1)
@pytest.mark.parametrize("change", [{"use": "best"}, {"patience": 2}])
def test_what_needs_held_out_images_is_refused_without(change: dict[str, Any]) -> None:
    for without in ({"images": "train+validation"}, {"validate_every": 0}):
        with pytest.raises(UserError, match="goes by validation images"):
            settings_of(**change, **without)
