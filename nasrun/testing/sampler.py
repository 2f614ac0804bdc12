"""The laws of samplers: gates that the space takes, named by seed and step, within the pool."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch

from nasrun.errors import UserError
from nasrun.sampler.base import Sampler
from nasrun.search_space.base import SearchSpace
from nasrun.search_space.gates import GatesOfStep, path_of
from nasrun.streams import Streams
from nasrun.testing.law import refusal, require
from nasrun.values import Architecture, Problem

POOL = 5
"""Architectures of the pool that a sampler must keep to."""


@dataclass(frozen=True)
class SamplerCase:
    """A sampler in a space. steps: of the training; batch_size: images of a batch."""

    sampler: Sampler
    space: SearchSpace
    problem: Problem
    seed: int
    steps: int
    batch_size: int

    def gates(self, pool: Sequence[Architecture] | None = None, seed: int = 0) -> GatesOfStep:
        """The rule, over ``pool`` or the whole space."""
        part = self.sampler.ghost_batch_of(self.batch_size) or self.batch_size
        return self.sampler.bind(
            self.space,
            self.problem,
            pool,
            Streams(self.seed + seed, "testing/"),
            steps=self.steps,
            ghost_batches=self.batch_size // part,
        )

    @cached_property
    def rule(self) -> GatesOfStep:
        """The rule over the whole space."""
        return self.gates()

    @property
    def pool(self) -> list[Architecture]:
        """Some random architectures."""
        streams = Streams(self.seed, "testing/")
        return [self.space.sample(streams.numpy("pool", index)) for index in range(POOL)]

    @property
    def fits(self) -> bool:
        """Whether the rule means something in the space."""
        return refusal(lambda: self.sampler.check(self.space)) is None


def gates_are_those_of_the_space(case: SamplerCase) -> None:
    """Each step opens options that the decisions have, as the space's kinds of gates allow."""
    gates, decisions = case.rule, case.space.decisions
    for step in range(case.steps):
        opened = gates(step)
        require(opened, f"step {step} trains nothing")
        for one in opened:
            require(len(one) == len(decisions), f"step {step}: {len(one)} gates")
            require(
                path_of(one) is not None
                or "mix" in case.space.gate_kinds & {case.sampler.gate_kind},
                f"step {step} mixes options, which space or sampler do not claim",
            )
            for gate, decision in zip(one, decisions, strict=True):
                options = [gate] if isinstance(gate, int) else list(gate)
                require(
                    options and all(0 <= option < len(decision.options) for option in options),
                    f"step {step}, {decision.name}: options {options}",
                )


def the_supernet_takes_the_gates(case: SamplerCase) -> None:
    """The supernet gives finite logits with the gates of the first and of the last step."""
    gates, problem = case.rule, case.problem
    with Streams(case.seed, "testing/").default("supernet"):
        supernet = case.space.supernet(problem)
        images = torch.randn(2, *problem.size.shape(problem.channels))
    for step in (0, case.steps - 1):
        for one in gates(step):
            require(supernet(images, one).isfinite().all(), f"step {step}: logits not finite")


def gates_depend_on_seed_and_step(case: SamplerCase) -> None:
    """A step has the same gates again, whatever was asked for before; seeds and steps differ."""
    gates, again, other = case.rule, case.gates(), case.gates(seed=1)
    steps = range(case.steps)
    found = [gates(step) for step in steps]
    require([again(step) for step in reversed(steps)] == found[::-1], "the order of steps matters")
    require([other(step) for step in steps] != found, "the seed does not matter")
    require(any(one != found[0] for one in found), "all steps are alike")


def the_batch_is_divided(case: SamplerCase) -> None:
    """If the gates of a step train a part of the batch each, the parts make up the batch."""
    part = case.sampler.ghost_batch_of(case.batch_size)
    if part is not None:
        count = len(case.rule(0))
        require(count * part == case.batch_size, f"{count} gates of {part} images each")


def a_pool_is_kept_to(case: SamplerCase) -> None:
    """All paths are of the pool; a sampler that takes none says so with a UserError."""
    pool = case.pool
    if not case.sampler.takes_pool:
        told = refusal(lambda: case.gates(pool))
        require(told is not None and "pool" in told, f"a pool is not refused: {told}")
        return
    for some in (pool, pool[:1]):
        gates = case.gates(some)
        members = {architecture.choices for architecture in some}
        found = {path_of(one) for step in range(10 * case.steps) for one in gates(step)}
        require(found <= members, f"{len(found - members)} paths are none of the pool")
        require(len(found) > 1 or len(members) == 1, "one architecture of the pool alone")


SAMPLER_LAWS = (
    gates_are_those_of_the_space,
    the_supernet_takes_the_gates,
    gates_depend_on_seed_and_step,
    the_batch_is_divided,
    a_pool_is_kept_to,
)
"""The laws of a sampler, in the order in which they are checked."""


def must_be_refused(case: SamplerCase) -> None:
    """A rule that means nothing in the space is refused when it is bound to it, too."""
    try:
        case.gates()
    except UserError:
        return
    require(False, "check refuses the space, but the sampler is bound to it")
