"""The laws of evaluators: scores that depend on the architecture alone, and leave no trace."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from statistics import fmean
from typing import Any

import torch
from torch import Tensor, nn

from nasrun.dataset.base import Split, Splits
from nasrun.evaluator.base import Evaluator, GatesOf, Scorer, choices_of
from nasrun.run.monitor import NullMonitor
from nasrun.search_space.base import SearchSpace, Supernet
from nasrun.streams import Streams
from nasrun.testing.algo_case import CPU
from nasrun.testing.law import require
from nasrun.values import Architecture, Trial

TWINS = 3
"""Architectures that differ in one group of decisions."""

TRIES = 100
"""Samples for each architecture that is wanted, until it is another one."""


def _forbidden() -> Split:
    raise AssertionError("it reads images that are none of train and validation")


@dataclass(frozen=True)
class EvaluatorCase:
    """An evaluator in a space, on images. samples: architectures that are scored."""

    evaluator: Evaluator
    space: SearchSpace
    splits: Splits
    samples: int
    seed: int

    def bind(self, seed: int = 0) -> Scorer:
        """The scorer, to which the test images are forbidden."""
        splits = replace(self.splits, test=_forbidden, train_and_validation=_forbidden)
        return self.evaluator.bind(self.space, splits, CPU, Streams(self.seed + seed, "testing/"))

    @cached_property
    def scorer(self) -> Scorer:
        return self.bind()

    @cached_property
    def architectures(self) -> list[Architecture]:
        """Distinct architectures: those with published scores, or random ones."""
        if published := self.scorer.published_scores:
            return list(published)[: self.samples]
        found: dict[Architecture, None] = {}
        for index in range(TRIES * self.samples):
            rng = Streams(self.seed, "testing/").numpy("sample", index)
            found[self.space.sample(rng)] = None
            if len(found) == self.samples:
                break
        return list(found)

    @cached_property
    def supernet(self) -> Supernet | None:
        """An untrained supernet at rest, with statistics of its own; None: there is need of none.

        Its paths differ by more than new ones do.
        """
        if not self.evaluator.needs_supernet:
            return None
        streams, problem = Streams(self.seed, "testing/"), self.splits.problem
        with streams.default("supernet"):
            network = CPU.place(self.space.supernet(problem)).train()
            with torch.no_grad():
                for parameter in network.parameters():
                    if parameter.dim() == 1:
                        parameter.add_(0.3 * torch.randn_like(parameter))
        images, _ = next(self.splits.train.eval_batches(16))
        with torch.no_grad():
            for architecture in self.architectures:
                network(images, architecture.choices)
        return network.eval()

    def score(
        self,
        architectures: Sequence[Architecture] | None = None,
        supernet: Supernet | None = None,
        gates_of: GatesOf = choices_of,
    ) -> list[Trial]:
        """The trials; of all architectures, in the supernet of the case, where none is given."""
        chosen = self.architectures if architectures is None else architectures
        network = supernet or self.supernet
        return list(self.scorer.score(chosen, network, NullMonitor(), gates_of))

    @cached_property
    def trials(self) -> list[Trial]:
        return self.score()


@contextmanager
def _inputs(network: nn.Module, see: Callable[[Tensor], None]) -> Any:
    """Call ``see`` with the images of every forward pass inside."""
    hook = network.register_forward_pre_hook(lambda module, inputs: see(inputs[0]))
    try:
        yield
    finally:
        hook.remove()


def _scores(trials: Sequence[Trial]) -> list[float]:
    return [trial.score for trial in trials]


def trials_say_how_they_came_about(case: EvaluatorCase) -> None:
    """A trial for each architecture, in order, with its cost, the seed, and JSON for the rest."""
    architectures, trials = case.architectures, case.trials
    require([trial.architecture for trial in trials] == architectures, "trials of others")
    for trial in trials:
        cost = case.space.cost(trial.architecture, case.splits.problem)
        require(trial.cost == cost, f"the cost is {trial.cost}, not {cost}")
        require(trial.seed == case.seed, f"the seed is {trial.seed}, not {case.seed}")
        require("evaluator" in trial.evaluation, "the evaluation does not name the evaluator")
        again = Trial.from_json(json.loads(json.dumps(trial.to_json())))
        require(again == trial, f"written and read, it is another: {again}")
    require(not list(case.score([])), "no architectures have trials")


def scores_are_shares(case: EvaluatorCase) -> None:
    """Scores are finite and in [0, 1]."""
    for score in _scores(case.trials):
        require(math.isfinite(score) and 0 <= score <= 1, f"a score of {score}")


def scores_do_not_depend_on_the_others(case: EvaluatorCase) -> None:
    """A score is the same in any order, alone, again, and by another scorer of the same seed."""
    scores, architectures = _scores(case.trials), case.architectures
    backwards = _scores(case.score(architectures[::-1]))[::-1]
    require(backwards == scores, f"in reverse order {backwards}, not {scores}")
    last = architectures[-1]
    again = _scores(case.score([last, last]))
    require(again == 2 * scores[-1:], f"twice alone {again}, not {scores[-1]}")
    other = [*case.bind().score([last], case.supernet, NullMonitor())]
    require(_scores(other) == scores[-1:], "another scorer has other scores")


def scores_together_are_scores_alone(case: EvaluatorCase) -> None:
    """Scored together, architectures have the trials that they have one by one, in any order."""
    chosen = [*case.architectures]
    if case.supernet is not None:  # some that differ in little may share their work
        chosen += [*islice(case.space.variants(chosen[0], case.space.groups[-1]), TWINS)]
        rng = Streams(case.seed, "testing/").numpy("repair")
        chosen = list(dict.fromkeys(case.space.repair(one, rng) for one in chosen))
    alone = dict(zip(chosen, case.score(chosen), strict=True))
    in_order, found = case.scorer.together(chosen, case.supernet, NullMonitor())
    require(set(in_order) == set(chosen), "together, others are scored")
    trials = list(found)
    require([trial.architecture for trial in trials] == list(in_order), "trials of others")
    for trial in trials:
        require(trial == alone[trial.architecture], f"together {trial.score}, not that of alone")


def all_are_scored_on_the_same_images(case: EvaluatorCase) -> None:
    """A supernet runs each architecture on the same images; only what needs one runs it."""
    seen: list[bytes] = []
    network = case.supernet or nn.Identity()
    with _inputs(network, lambda images: seen.append(images.contiguous().numpy().tobytes())):
        by_architecture = []
        architectures = [case.architectures[0], *case.architectures]
        for _ in case.scorer.score(architectures, case.supernet, NullMonitor()):
            by_architecture.append(tuple(seen))
            seen.clear()
    # Before the first one there may be passes that serve all of them.
    _, *others = by_architecture
    require(len(set(others)) == 1, "each architecture sees images of its own")
    require(bool(others[0]) == case.evaluator.needs_supernet, "needs_supernet is not true")


def the_supernet_is_left_as_it_was(case: EvaluatorCase) -> None:
    """Weights, statistics, settings and gradients stay; the supernet rests, in evaluation mode."""
    network = case.supernet
    random = torch.get_rng_state()
    if network is None:
        case.score(case.architectures[:1])
    else:
        before = copy.deepcopy(network.state_dict())
        settings = [_settings(module) for module in network.modules()]
        scores = _scores(case.score())
        for name, value in network.state_dict().items():
            require(torch.equal(value, before[name]), f"{name} is changed")
        require([_settings(m) for m in network.modules()] == settings, "modules are changed")
        require(all(p.grad is None for p in network.parameters()), "it leaves gradients")
        network.train()
        require(_scores(case.score()) == scores, "in training mode it has other scores")
        require(not any(m.training for m in network.modules()), "it is left in training mode")
    require(torch.equal(torch.get_rng_state(), random), "torch's own generator is used")


def _settings(module: nn.Module) -> dict[str, Any]:
    """All settings of a module that are plain values; the mode is among them."""
    plain = (bool, int, float, str, type(None))
    return {name: value for name, value in vars(module).items() if isinstance(value, plain)}


def gates_of_says_what_is_run(case: EvaluatorCase) -> None:
    """A supernet runs the gates that ``gates_of`` gives, not the choices of the architecture."""
    if case.supernet is None:
        return
    first = case.architectures[0]
    found = _scores(case.score(gates_of=lambda _: first.choices))
    require(set(found) == {case.trials[0].score}, f"with the gates of one, scores are {found}")


def outputs_that_are_not_finite_have_no_score(case: EvaluatorCase) -> None:
    """The score is NaN where a supernet's outputs are not finite."""
    if case.supernet is None:
        return
    broken = copy.deepcopy(case.supernet)
    with torch.no_grad():
        for parameter in broken.parameters():
            parameter.fill_(math.nan)
    found = _scores(case.score(case.architectures[:1], broken))
    require(math.isnan(found[0]), f"the score is {found[0]}")


def published_scores_are_the_scores(case: EvaluatorCase) -> None:
    """A score is the mean of the published scores of the architecture, where there are any."""
    published = case.scorer.published_scores
    for trial in case.trials if published is not None else ():
        known = fmean((published or {})[trial.architecture])
        require(trial.score == known, f"the score is {trial.score}, the published one {known}")


EVALUATOR_LAWS = (
    trials_say_how_they_came_about,
    scores_are_shares,
    scores_do_not_depend_on_the_others,
    scores_together_are_scores_alone,
    all_are_scored_on_the_same_images,
    the_supernet_is_left_as_it_was,
    gates_of_says_what_is_run,
    outputs_that_are_not_finite_have_no_score,
    published_scores_are_the_scores,
)
"""The laws of an evaluator, in the order in which they are checked."""
