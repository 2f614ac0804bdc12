"""The health report: how training treats each option of a supernet, and its scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Annotated, Any, get_args

from pydantic import Field, NonNegativeInt
from torch import Tensor

from nasrun.dataset.base import Splits
from nasrun.evaluator.batch_norm import Protocol
from nasrun.evaluator.supernet import SupernetEvaluator, SupernetScorer
from nasrun.limits import Count, Images
from nasrun.metrics.share import COLLAPSE_SHARE
from nasrun.report.health import HealthSummary
from nasrun.run.files import write_json
from nasrun.run.layout import HEALTH
from nasrun.run.monitor import NullMonitor
from nasrun.run.run import Run
from nasrun.search_algo.gates.readiness import free_correlation, varied_paths
from nasrun.search_space.base import SearchSpace, Supernet
from nasrun.search_space.gates import BINARY, Gates
from nasrun.trainer.option_stats import OptionCounts, OptionGradients
from nasrun.trainer.training import Training

MIN_PATHS = 20
"""Random paths below which their correlation says too little to warn; ours."""

PROTOCOLS: tuple[Protocol, ...] = get_args(Protocol)

ArchitectureCount = Annotated[int, Field(ge=0, le=1000)]


class Health:
    """Settings of measurements on a supernet in training; these do not change the training.

    gradient_every: steps between two measurements of the gradients; 0: none. architectures: number
    of random architectures, the same in the whole run, that are scored under all batch norm
    protocols, on ``images`` of the validation split. free_paths: number of random paths whose
    losses are compared with their shares of parameter-free operations, on a batch of these images.
    every: epochs between two scorings; 0: only at the end of each round.
    """

    def __init__(
        self,
        *,
        gradient_every: NonNegativeInt,
        architectures: ArchitectureCount,
        free_paths: ArchitectureCount,
        every: NonNegativeInt,
        images: Annotated[Images, Field(ge=2)],
        recalibration_images: Annotated[Images, Field(ge=2)],
        batch_size: Annotated[Count, Field(ge=2)],
    ) -> None:
        self.gradient_every, self.architectures, self.every = gradient_every, architectures, every
        self.images, self.recalibration_images = images, recalibration_images
        self.batch_size, self.free_paths = batch_size, free_paths

    def epochs(self, epochs: int) -> list[int]:
        """Return the epochs of a round after which health is measured."""
        between = range(self.every, epochs, self.every) if self.every else ()
        return [*between, epochs]

    def evaluator(self, splits: Splits) -> SupernetEvaluator | None:
        """Make the evaluator; None if nothing is to be scored, or there are too few images."""
        images = min(self.images, len(splits.validation))
        calibrating = min(self.recalibration_images, len(splits.train))
        if not self.architectures or min(images, calibrating) < 2:
            return None
        return SupernetEvaluator(
            images=images,
            batch_size=self.batch_size,
            batch_norm="recalibrated",
            recalibration_images=calibrating,
        )


class HealthReport:
    """The health of the supernets of one run, kept in its checkpoints."""

    def __init__(self, settings: Health, space: SearchSpace, splits: Splits, run: Run) -> None:
        self.settings, self.space, self.run = settings, space, run
        self.counts = OptionCounts(space.decisions)
        self.gradients = OptionGradients(space.decisions)
        self.scores: dict[str, dict[str, list[float]]] = {}
        rng = run.streams.numpy("health")
        self.architectures = [space.sample(rng) for _ in range(settings.architectures)]
        evaluator = settings.evaluator(splits)
        self.scorer: SupernetScorer | None = None
        if evaluator is not None:
            self.scorer = evaluator.bind(space, splits, run.compute, run.streams)
        self._warned = False
        self.split = splits.validation
        self.paths = varied_paths(space, settings.free_paths, run.streams.sub("health"))
        self.correlations: dict[str, float | None] = {}

    def begin(self, supernet: Supernet) -> None:
        """Observe a supernet that is about to be trained."""
        self.gradients.begin(supernet)

    def stepped(self, step: int, paths: Sequence[Gates], good: Tensor | None) -> None:
        """See ``StepWatch``."""
        self.counts.add(paths, good)
        if self.settings.gradient_every and step % self.settings.gradient_every == 0:
            self.gradients.look(good)

    def logged(self, metrics: Mapping[str, float], progress: float) -> None:
        """Warn once if learned gates mostly favour parameter-free operations.

        In the first half of the training they may do so by chance, so there is no warning.
        """
        share = metrics.get("parameter_free", 0.0)
        if progress > 0.5 and not self._warned:
            self._warned = warn_of_collapse(
                self.run, share, "what the gates favour now", learned=True
            )

    def measure(self, training: Training[Supernet], round_: int, epoch: int) -> None:
        """Score the fixed architectures and log all statistics, once for each epoch.

        Does nothing unless ``epoch`` epochs of the round have just been trained and health is
        measured after this epoch. Does not change the supernet.
        """
        if epoch not in self.settings.epochs(training.settings.epochs):
            return
        key = f"{round_}/{training.ended or epoch}"
        ends = (round_ + 1, 0) if epoch == training.settings.epochs else None
        now = (round_, epoch * training.steps_per_epoch)
        if key in self.scores or training.mark != (ends or now):
            return
        found: dict[str, list[float]] = {}
        if self.scorer is not None:
            for protocol in PROTOCOLS:
                scorer = self.scorer.with_protocol(protocol)
                # NullMonitor: no checkpoint may be written while the statistics are changed.
                trials = scorer.score(self.architectures, training.network, NullMonitor())
                found[protocol] = [trial.score for trial in trials]
        self.scores[key] = found
        self.correlations[key] = self._correlation(training.network)
        metrics = {f"score/{name}/mean": fmean(scores) for name, scores in found.items()}
        for name, scores in found.items():
            metrics |= {f"score/{name}/{index}": score for index, score in enumerate(scores)}
        for name, row in self.by_name().items():
            metrics[f"trained/{name}"] = fmean(row["trained"])
            if row["gradient"]:
                metrics[f"gradient/{name}"] = sum(row["gradient"])
        if (correlation := self.correlations[key]) is not None:
            metrics["free_correlation"] = correlation
        self.run.logs.metrics("health", training.global_step, metrics)
        if ends is not None and correlation is not None:
            warn_of_youth(self.run, correlation, len(self.paths))
        write_json(self.run.directory / HEALTH, self.to_json())

    def _correlation(self, network: Supernet) -> float | None:
        """Return ``free_correlation`` on one batch; None if it does not exist."""
        size = max(min(self.settings.batch_size, self.settings.images), 2)
        batch = next(self.split.eval_batches(size, size), None) if self.paths else None
        if batch is None or len(batch[1]) < 2:
            return None
        return free_correlation(network, self.space, self.paths, batch, self.run.compute)

    def by_name(self) -> dict[str, dict[str, list[float]]]:
        """Return the shares of each kind of option, by a name like ``op/sep_conv_3x3``.

        ``trained``: for each decision that has the option, the share of passes that trained it;
        ``gradient``: likewise its share of the gradient, if it is known. Of decisions between off
        and on only ``on`` is listed, by the decision's own kind.
        """
        passes, sums = max(self.counts.passes, 1), self.gradients.sums
        found: dict[str, dict[str, list[float]]] = {}
        for index, decision in enumerate(self.space.decisions):
            for option, name in enumerate(decision.options):
                if decision.options == BINARY:
                    if not option:
                        continue
                    label = decision.kind
                else:
                    label = f"{decision.kind}/{name}"
                row = found.setdefault(label, {"trained": [], "gradient": []})
                row["trained"].append(self.counts.counts[index][option] / passes)
                if self.gradients.knows(index):
                    row["gradient"].append(sums[index][option] / self.gradients.samples)
        return found

    def summary(self) -> HealthSummary:
        """Return the numbers that are shown at the end of the run."""
        return HealthSummary(
            self.counts.passes,
            self.by_name(),
            self.scores,
            len(self.architectures),
            self.run.directory / HEALTH,
            self.correlations,
            len(self.paths),
        )

    def to_json(self) -> dict[str, Any]:
        """Return the content of health.json.

        It has the number of passes; for each option of each decision the passes that trained it and
        its share of the gradient (null: unknown); and the scores by round and epoch.
        """
        counts, sums = self.counts.counts, self.gradients.sums
        samples, known = self.gradients.samples, self.gradients.knows
        decisions = {
            decision.name: {
                name: {
                    "trained": counts[index][option],
                    "gradient": sums[index][option] / samples if known(index) else None,
                }
                for option, name in enumerate(decision.options)
            }
            for index, decision in enumerate(self.space.decisions)
        }
        return {
            "passes": self.counts.passes,
            "gradient_samples": samples,
            "decisions": decisions,
            "architectures": [
                self.space.write(architecture) for architecture in self.architectures
            ],
            "scores": {key: dict(found) for key, found in self.scores.items()},
            "free_correlation": dict(self.correlations),
        }

    def state_dict(self) -> dict[str, Any]:
        return {
            "counts": self.counts.state_dict(),
            "gradients": self.gradients.state_dict(),
            "scores": {key: dict(found) for key, found in self.scores.items()},
            "correlations": dict(self.correlations),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from ``state``; raises ValueError if it is of another search space."""
        self.counts.load_state_dict(state["counts"])
        self.gradients.load_state_dict(state["gradients"])
        self.scores = {
            str(key): {str(name): list(map(float, scores)) for name, scores in found.items()}
            for key, found in state["scores"].items()
        }
        self.correlations = {
            str(key): None if found is None else float(found)
            for key, found in state["correlations"].items()
        }


def warn_of_youth(run: Run, correlation: float, paths: int) -> bool:
    """Warn of a supernet whose paths lose less, the more parameter-free operations they have.

    paths: number of random paths that were compared. Returns whether the correlation is so low that
    it is below 0 by more than two standard errors.
    """
    if paths < MIN_PATHS or correlation > -2 / paths**0.5:
        return False
    run.say(
        f"the supernet is young: the loss of {paths} random paths falls with their share of "
        f"operations without parameters (correlation {correlation:.2f}), so that scores and "
        "learned gates favour skips and pools: train it for longer (trainer.epochs), or let gates "
        "wait with search_algo.rest=until_ready",
        "yellow",
    )
    return True


def warn_of_collapse(run: Run, share: float, whose: str, *, learned: bool) -> bool:
    """Warn of too many parameter-free operations; returns whether there are too many.

    Weight sharing and learned gates tend towards operations that need no training, i.e. skips and
    pools, and then give networks that learn little (DARTS+, arXiv 1909.06035).

    whose: name of the architecture in the message, e.g. "the best architecture". learned: whether
    the search learns gates, which can be stopped earlier.
    """
    if share <= COLLAPSE_SHARE:
        return False
    advice = "compare with search_algo=random, or train the supernet for longer"
    if learned:
        advice += ", or stop the gates earlier (fewer trainer.epochs, more search_algo.rest_epochs)"
    run.say(
        f"the search may have collapsed: {100 * share:.0f} % of the operations of {whose} have no "
        f"parameters (skip, pool, none): {advice}",
        "yellow",
    )
    return True
