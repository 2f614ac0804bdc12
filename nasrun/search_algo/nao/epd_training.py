"""Training of the encoder-predictor-decoder on the scored pool.

All state is in one object, and every random stream is named by (round, epoch). So a training that
stops after any epoch and continues from the saved state gives the same bits.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nasrun.errors import UserError
from nasrun.metrics import pairwise_accuracy
from nasrun.run.monitor import Monitor
from nasrun.run.state import load_optimiser_state, optimiser_state, whole_number
from nasrun.search_algo.nao.epd import EPD, PredictorSettings
from nasrun.search_algo.nao.tokens import Vocabulary
from nasrun.streams import Streams
from nasrun.values import Trial


def normalise(scores: Sequence[float]) -> list[float]:
    """Min-max normalisation to [0, 1] over the pool; 0.5 if all scores are equal."""
    low, high = min(scores), max(scores)
    if low == high:
        return [0.5] * len(scores)
    return [(score - low) / (high - low) for score in scores]


@contextmanager
def one_thread() -> Iterator[None]:
    """Run torch's CPU kernels on one thread inside.

    More threads hardly help networks this small, and take several times as long if the cores are
    busy.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@dataclass(frozen=True)
class Examples:
    """Architectures with their scores, on the predictor's device.

    tokens: [N, L], int64.
    targets: [N], float32, in [0, 1].
    """

    tokens: Tensor
    targets: Tensor

    def __len__(self) -> int:
        return len(self.targets)


class PredictorTraining:
    """The training of the predictor in one round; ``epoch`` counts the epochs that are done.

    previous: the training of the previous round, whose weights it takes over if ``keep_weights``;
    the optimiser is new in every round.
    """

    def __init__(
        self,
        settings: PredictorSettings,
        vocabulary: Vocabulary,
        streams: Streams,
        device: torch.device,
        index: int,
        previous: PredictorTraining | None = None,
    ) -> None:
        self.settings = settings
        self.vocabulary = vocabulary
        self.streams = streams
        self.device = device
        self.index = index
        self.epoch = 0
        # Sampled on the CPU, so that every device starts from the same weights.
        with streams.default("predictor/init", index):
            self.model = EPD(settings, vocabulary).to(device)
        if previous is not None and settings.keep_weights:
            self.model.load_state_dict(previous.model.state_dict())
        self.optimiser = torch.optim.Adam(
            self.model.parameters(), lr=settings.lr, weight_decay=settings.weight_decay
        )

    @property
    def done(self) -> bool:
        return self.epoch >= self.settings.epochs

    @one_thread()
    def train(self, trials: Sequence[Trial], monitor: Monitor) -> None:
        """Train the remaining epochs on ``trials``, which must be the same after a resumption."""
        training, held_out = self.examples(trials)
        with monitor.stage(f"predictor/round{self.index}", self.settings.epochs) as stage:
            if self.epoch:
                stage.advance(self.epoch)
            while not self.done:
                metrics = {"loss": self.train_epoch(training)}
                if not math.isfinite(metrics["loss"]):
                    raise UserError(
                        f"predictor/round{self.index}: the loss is {metrics['loss']} in epoch "
                        f"{self.epoch} with learning rate {self.settings.lr:.3g}: lower "
                        "search_algo.predictor.lr"
                    )
                if self.epoch % self.settings.report_every == 0 or self.done:
                    metrics |= self.evaluate(held_out)
                stage.advance(1, **metrics)
                monitor.safe_point()

    def examples(self, trials: Sequence[Trial]) -> tuple[Examples, Examples]:
        """Return training and held-out examples.

        The split comes before the augmentation, so equivalents of a held-out architecture are not
        trained on.
        """
        rng = self.streams.numpy("predictor/examples", self.index)
        targets = normalise([trial.score for trial in trials])
        order = rng.permutation(len(trials)).tolist()
        # At least one example is left for training.
        count = min(round(self.settings.validation_share * len(trials)), len(trials) - 1)
        equivalent = self.vocabulary.space.equivalent
        training = []
        for i in order[count:]:
            architecture = trials[i].architecture
            training.append((architecture, targets[i]))
            training += [
                (equivalent(architecture, rng), targets[i]) for _ in range(self.settings.expand - 1)
            ]
        held_out = [(trials[i].architecture, targets[i]) for i in order[:count]]
        return self._tensors(training), self._tensors(held_out)

    def train_epoch(self, examples: Examples) -> float:
        """Make one pass over ``examples`` in random batches; returns the mean loss."""
        settings, model = self.settings, self.model
        shuffle = self.streams.torch("predictor/batches", self.index, self.epoch)
        noise = self.streams.torch("predictor/dropout", self.index, self.epoch, device=self.device)
        order = torch.randperm(len(examples), generator=shuffle).to(self.device)
        total = torch.zeros((), device=self.device)
        for batch in torch.split(order, settings.batch):
            tokens, targets = examples.tokens[batch], examples.targets[batch]
            encoded = model.encode(tokens)
            embedding = model.embed(encoded)
            prediction = F.mse_loss(model.predict(embedding, noise), targets)
            logits = model.reconstruct(tokens, encoded, embedding)
            reconstruction = F.cross_entropy(logits.flatten(0, 1), tokens.flatten())
            loss = settings.trade_off * prediction + (1 - settings.trade_off) * reconstruction
            self.optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(model.parameters(), settings.clip_norm)
            self.optimiser.step()
            total += loss.detach() * len(batch)
        self.epoch += 1
        return total.item() / len(examples)

    @torch.no_grad()
    def evaluate(self, examples: Examples) -> dict[str, float]:
        """Return pairwise accuracy of prediction and Hamming distance of reconstruction.

        Hamming distance: mean share of the decisions that the decoder gets wrong, in [0, 1].
        Empty for fewer than two examples.
        """
        if len(examples) < 2:
            return {}
        encoded = self.model.encode(examples.tokens)
        predicted = self.model.predict(self.model.embed(encoded))
        wrong = self.model.decode(encoded) != examples.tokens
        return {
            "pairwise_accuracy": pairwise_accuracy(
                predicted.cpu().numpy(), examples.targets.cpu().numpy()
            ),
            "hamming_distance": wrong.float().mean().item(),
        }

    def state_dict(self) -> dict[str, Any]:
        return {
            "index": self.index,
            "epoch": self.epoch,
            "model": dict(self.model.state_dict()),
            "optimiser": optimiser_state(self.optimiser),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.index = state["index"]
        self.epoch = whole_number(state["epoch"], most=self.settings.epochs)
        self.model.load_state_dict(state["model"])
        load_optimiser_state(self.optimiser, state["optimiser"])

    def _tensors(self, pairs: Sequence[tuple[Any, float]]) -> Examples:
        tokens = self.vocabulary.encode([architecture for architecture, _ in pairs])
        targets = torch.tensor([target for _, target in pairs], dtype=torch.float32)
        return Examples(tokens.to(self.device), targets.to(self.device))
