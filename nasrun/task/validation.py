"""Validation of the winner in training: accuracy by epoch, best weights, early stopping."""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
from torch import Tensor

from nasrun.dataset.base import Split
from nasrun.evaluator.accuracy import accuracy
from nasrun.run.run import Run
from nasrun.run.state import whole_number
from nasrun.search_space.base import Network
from nasrun.task.setup import Retrain
from nasrun.trainer.training import Training


class Validation:
    """Measures a network in training on validation images, and keeps the best weights so far.

    It is kept in checkpoints. Looking changes neither weights nor statistics nor random streams, so
    the training ends with the same bits.

    measured: accuracy after each epoch that was looked at. weights: those of the best epoch, of
    equals the first.
    """

    def __init__(self, settings: Retrain, split: Split, network: Network, run: Run) -> None:
        self.settings, self.split, self.run = settings, split, run
        self.measured: dict[int, float] = {}
        # From the beginning as large as later: a stored state may not be larger than this one.
        self.weights = {name: value.clone() for name, value in network.state_dict().items()}

    @property
    def best_epoch(self) -> int:
        """The epoch of the highest accuracy, of equals the first; 0 before any look."""
        return max(self.measured, key=self.measured.__getitem__, default=0)

    @property
    def out_of_patience(self) -> bool:
        """Whether too many epochs have brought nothing better."""
        patience, last = self.settings.patience, max(self.measured, default=0)
        return patience is not None and last - self.best_epoch >= patience

    @property
    def mark(self) -> int:
        """The number of looks: equal marks mean equal states."""
        return len(self.measured)

    def train(self, training: Training[Network]) -> None:
        """Train what is left, and look after every few epochs and at the end."""
        epochs, every = training.settings.epochs, self.settings.validate_every
        for epoch in [*range(every, epochs, every), epochs]:
            if self.out_of_patience:
                self.run.say(
                    f"stopped after epoch {max(self.measured)} of {epochs}: none since epoch "
                    f"{self.best_epoch} was better on the validation images (retrain.patience="
                    f"{self.settings.patience})"
                )
                self.run.screen.progress.end("retrain")
                return
            if not training.done and training.step < epoch * training.steps_per_epoch:
                training.train_round(self.run, "retrain", epochs=epoch)
            self.look(training, epoch)

    def look(self, training: Training[Network], epoch: int) -> None:
        """Measure after an epoch, once; outputs that are not finite count as 0."""
        last = epoch == training.settings.epochs
        now = (1, 0) if last else (0, epoch * training.steps_per_epoch)
        if epoch in self.measured or training.mark != now:
            return
        batches = self.split.eval_batches(training.settings.batch_size)
        found = accuracy(training.network, batches, self.run.compute, self.run)
        # On devices that round differently the ranks would stop after different epochs.
        found = self.run.compute.ranks.agree(0.0 if math.isnan(found) else found)
        if found > self.measured.get(self.best_epoch, -1.0):
            for name, value in training.network.state_dict().items():
                self.weights[name].copy_(value)
        self.measured[epoch] = found
        self.run.logs.metrics("retrain/validation", training.global_step, {"accuracy": found})

    def best_network(self, network: Network) -> Network:
        """Return a copy of the network with the weights of the best epoch."""
        network.auxiliary_logits = None  # belongs to the last step, and cannot be copied
        found = copy.deepcopy(network)
        found.load_state_dict(self.weights)
        return found

    def report(self) -> dict[str, Any]:
        """Return what the result tells of the epochs."""
        best = self.best_epoch
        trained = max(self.measured)
        return {
            "trained": trained,
            "used": best if self.settings.use == "best" else trained,
            "best": best,
            "best_validation_accuracy": self.measured[best],
        }

    def in_words(self) -> str:
        """Say which weights are used and why."""
        found = self.report()
        best = f"epoch {found['best']}, {100 * found['best_validation_accuracy']:.2f} %"
        if self.settings.use == "best":
            return f"weights: of the best epoch on the validation images, {best} (retrain.use=best)"
        return (
            f"weights: of the last epoch, {found['trained']} (retrain.use=last); the best on the "
            f"validation images was {best}"
        )

    def state_dict(self) -> dict[str, Any]:
        epochs = list(self.measured)
        return {
            "epochs": epochs,
            "accuracies": [self.measured[epoch] for epoch in epochs],
            "weights": dict(self.weights),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from ``state``; raises ValueError if it is none of this network."""
        epochs = [whole_number(epoch, most=2**31) for epoch in state["epochs"]]
        accuracies = [float(value) for value in state["accuracies"]]
        if sorted(set(epochs)) != epochs or not all(0 <= value <= 1 for value in accuracies):
            raise ValueError("its epochs are none of a training")
        stored: dict[str, Tensor] = state["weights"]
        if stored.keys() != self.weights.keys():
            raise ValueError("its weights are of another network")
        for name, value in self.weights.items():
            if stored[name].shape != value.shape or stored[name].dtype != value.dtype:
                raise ValueError(f"{name} is of another network")
        self.measured = dict(zip(epochs, accuracies, strict=True))
        with torch.no_grad():
            for name, value in self.weights.items():
                value.copy_(stored[name])
