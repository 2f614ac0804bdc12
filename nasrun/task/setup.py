"""The objects that a configuration stands for, once it is built."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from nasrun.budget.budget import Budget
from nasrun.dataset.base import Dataset, Splits
from nasrun.errors import MissingCapabilityError, UserError
from nasrun.evaluator.base import Evaluator, needs_no_supernet, scores_a_supernet
from nasrun.evaluator.standalone import StandaloneEvaluator
from nasrun.limits import Epochs
from nasrun.run.compute import BatchSize, Compile, OnNonfinite, Precision
from nasrun.run.loggers import LoggerSettings
from nasrun.run.memory import available_bytes, check_fits, network_bytes
from nasrun.run.run import CheckpointEvery, Run
from nasrun.sampler.base import Sampler, has_teacher, takes_pool, takes_slices
from nasrun.sampler.warm_up import WarmUp
from nasrun.search_algo.base import SearchAlgo
from nasrun.search_algo.gates.learned import LearnedAlgo
from nasrun.search_space.base import Scale, SearchSpace
from nasrun.search_space.gates import GatesOfStep
from nasrun.streams import Streams
from nasrun.task.health import Health
from nasrun.trainer.step_rules import PathRules
from nasrun.trainer.trainer import Trainer
from nasrun.values import Architecture, Problem

BYTES_TRAINED = 12
"""For each parameter: value, gradient and momentum, of four bytes each."""

SHARING_FACTOR = 8
"""Upper bound: params(supernet) < SHARING_FACTOR × options × params(largest network)."""


class Shortlist:
    """Settings of brief trainings that rank the best ``count`` of a search again; 0, 1: none."""

    def __init__(self, *, count: NonNegativeInt, trainer: Trainer) -> None:
        self.count = count
        self.evaluator = StandaloneEvaluator(trainer=trainer)
        self.trainer = trainer


class Retrain:
    """Settings of the training of the winner from scratch.

    images: the images to train on.
    batch_norm_epochs: passes over these images after the training, in which the statistics of
    batch norm are estimated anew and no weight changes; 0: those of the training stay.
    truth: an evaluator, e.g. a table, whose score replaces the training; None: train.
    validate_every: epochs between two looks at the validation images, if these are held out; 0:
    only at the end. use: which weights are tested and kept as the network: those of the last epoch,
    or of the best on the validation images. patience: epochs without a better one after which the
    training stops; None: it never does.
    Raises UserError if what is asked for needs looks that there are not.
    """

    def __init__(
        self,
        *,
        images: Literal["train", "train+validation"],
        trainer: Trainer,
        batch_norm_epochs: Epochs = 0,
        truth: Evaluator | None = None,
        validate_every: NonNegativeInt = 1,
        use: Literal["last", "best"] = "last",
        patience: PositiveInt | None = None,
    ) -> None:
        self.validates = images == "train" and truth is None and validate_every > 0
        for name, wanted in (("use=best", use == "best"), ("patience", patience is not None)):
            if wanted and not self.validates:
                raise UserError(
                    f"retrain.{name} goes by validation images, which must be held out and looked "
                    "at: set retrain.images=train and retrain.validate_every=1"
                )
        if truth is not None and truth.needs_supernet:
            raise MissingCapabilityError(
                "retrain.truth: what stands for retraining needs no supernet",
                group="evaluator@retrain.truth",
                has=needs_no_supernet,
            )
        self.images = images
        self.trainer = trainer
        self.batch_norm_epochs = batch_norm_epochs
        self.truth = truth
        self.validate_every, self.use, self.patience = validate_every, use, patience


@dataclass(frozen=True)
class Setup:
    """The built configuration: an object for each group, and the settings of the top level."""

    seed: NonNegativeInt
    split_seed: NonNegativeInt
    device: str
    precision: Precision
    deterministic: bool
    threads: Annotated[int, Field(ge=1, le=1024)] | Literal["auto"] | None
    batch_size: BatchSize
    on_nonfinite: OnNonfinite
    compile: Compile
    checkpoint: CheckpointEvery
    dataset: Dataset
    search_space: SearchSpace
    sampler: Sampler
    search_algo: SearchAlgo
    evaluator: Evaluator
    trainer: Trainer
    path_rules: PathRules
    warm_up: WarmUp
    budget: Budget
    shortlist: Shortlist
    retrain: Retrain
    health: Health | None = None
    logger: LoggerSettings | None = None
    sync_batch_norm: bool = True

    def load(self, run: Run) -> Splits:
        """Load the images, and show and record what their folders hold.

        Raises UserError if the dataset cannot provide them.
        """
        streams = Streams(self.split_seed).sub("dataset")
        with run.compute.ranks.first_alone():  # it downloads what is absent
            splits = self.dataset.load_with_survey(streams, run.compute.device, run)
        if splits.survey is not None:
            for line in splits.survey.lines():
                run.say(line)
            run.data = splits.survey.to_json()
        return splits

    def check_gates(self) -> None:
        """Raise UserError if the sampler sets gates that the search space does not take.

        Or if a rule of the steps would do nothing with that sampler and schedule.
        """
        kind, kinds = self.sampler.gate_kind, self.search_space.gate_kinds
        if kind not in kinds:
            raise UserError(
                f"sampler {type(self.sampler).__name__} sets gates of kind {kind!r}, but "
                f"{self.search_space.name} takes {', '.join(sorted(kinds))}"
            )
        self.sampler.check(self.search_space)
        self.warm_up.check(self.search_space)
        self._check_size_power()
        _ = self.ghost_batch
        if self.path_rules.distillation and not self.sampler.has_teacher:
            raise MissingCapabilityError(
                f"path_rules.distillation=true: sampler {type(self.sampler).__name__} has no steps "
                "in which the largest path comes first and can teach others: set it to false, or",
                group="sampler",
                has=has_teacher,
            )

    @property
    def ghost_batch(self) -> int | None:
        """The images of a step that each of its paths trains; None: every path trains all.

        Raises UserError if the sampler or the size of the batch does not suit such slices.
        """
        batch_size, slices = self.trainer.batch_size, self.path_rules.slices
        if slices == 1:
            return self.sampler.ghost_batch_of(batch_size)
        if not self.sampler.takes_slices:
            raise MissingCapabilityError(
                f"path_rules.slices={slices}: sampler {type(self.sampler).__name__} sets the gates "
                "of a step by a rule of its own",
                group="sampler",
                has=takes_slices,
            )
        if batch_size % slices or batch_size < 2 * slices:
            raise UserError(
                f"path_rules.slices={slices}: trainer.batch_size={batch_size} has no {slices} "
                "equal slices of two images at least"
            )
        return batch_size // slices

    def _check_size_power(self) -> None:
        kind = self.trainer.schedule.kind
        if self.path_rules.size_power is not None and kind != "polynomial":
            raise UserError(
                "path_rules.size_power is the power of a polynomial schedule, but "
                f"trainer.schedule.kind={kind}: set it to polynomial, or leave size_power=null"
            )

    def gates(
        self,
        problem: Problem,
        pool: Sequence[Architecture] | None,
        streams: Streams,
        *,
        steps: int,
        steps_per_epoch: int,
    ) -> GatesOfStep:
        """Return the gates of each step: first those of the warm-up, then those of the sampler.

        steps: of the whole training.
        """
        batch_size = self.trainer.batch_size
        ghost_batch = self.ghost_batch or batch_size
        gates = self.sampler.bind(
            self.search_space,
            problem,
            pool,
            streams.sub("sampler"),
            steps=steps,
            ghost_batches=batch_size // ghost_batch,
        )
        return self.warm_up.put_before(
            gates, self.search_space, steps_per_epoch, streams.sub("warm_up")
        )

    def check_algo(self) -> None:
        """Check that the search algorithm fits the space, the sampler and the evaluator.

        Raises UserError if it does not fit.
        """
        algo = self.search_algo
        name = type(algo).__name__
        if self.search_space.fixed:
            raise UserError(
                f"{self.search_space.name} is one network, so there is nothing to search: "
                "nasrun retrain with the same search_space trains it"
            )
        algo.check(self.search_space)
        if not algo.learns_gates:
            self.check_gates()
        else:
            self._check_learner(name)
        if algo.trains_pool and not self.sampler.takes_pool:
            raise MissingCapabilityError(
                f"sampler {type(self.sampler).__name__} trains the whole search space, but "
                f"search_algo {name} trains a pool of architectures: take search_algo=random, or",
                group="sampler",
                has=takes_pool,
            )

    def _check_learner(self, name: str) -> None:
        """Raise UserError over what means nothing to the algorithm ``name``, which learns gates."""
        if self.warm_up.epochs:
            raise UserError(
                f"warm_up.epochs={self.warm_up.epochs:g}: search_algo {name} sets the gates of "
                "every step itself; set warm_up.epochs=0"
            )
        if not self.evaluator.needs_supernet:
            raise MissingCapabilityError(
                f"search_algo {name} learns its gates while a supernet trains",
                group="evaluator",
                has=scores_a_supernet,
            )
        if self.path_rules.distillation:
            raise UserError(
                f"path_rules.distillation=true: search_algo {name} trains a single path or mixture "
                "a step, so none can teach another; set it to false"
            )
        if self.path_rules.slices > 1:
            raise UserError(
                f"path_rules.slices={self.path_rules.slices}: search_algo {name} sets the gates of "
                "a step for all of its images; set it to 1"
            )
        if self.path_rules.separate_momentum and isinstance(self.search_algo, LearnedAlgo):
            raise UserError(
                f"path_rules.separate_momentum=true: search_algo {name} weighs the options of a "
                "decision, so that no step is that of one option; set it to false"
            )
        self._check_size_power()

    def check_networks(self, problem: Problem, architecture: Architecture | None = None) -> None:
        """Build the stand-alone networks once, before anything trains.

        Raises UserError if they cannot be built or do not fit into the memory.
        """
        streams = Streams(self.seed).sub("check")
        chosen = architecture or self.search_space.sample(streams.numpy("architecture"))
        wanted: list[tuple[Scale, Trainer]] = [("final", self.retrain.trainer)]
        if architecture is None and self.shortlist.count > 1:
            wanted.append(("search", self.shortlist.trainer))
        for scale, trainer in wanted:
            check_fits(
                BYTES_TRAINED * self.search_space.cost(chosen, problem, scale).params,
                "training the network",
                f"the sizes in search_space.{scale}",
            )
            with streams.default("init"):
                self.search_space.network(chosen, problem, scale, auxiliary=trainer.auxiliary)

    def check_supernet(self, problem: Problem) -> None:
        """Raise UserError if the supernet in training does not fit into the memory."""
        space = self.search_space
        options = sum(len(decision.options) for decision in space.decisions)
        most = BYTES_TRAINED * SHARING_FACTOR * options * space.cost_bound(problem).params
        if most > available_bytes():  # only then count exactly, which takes seconds
            exact = network_bytes(lambda: space.supernet(problem, auxiliary=self.trainer.auxiliary))
            check_fits(
                BYTES_TRAINED // 4 * exact,
                "training the supernet",
                "the sizes in search_space.search",
            )
