"""The search space of a chain of inverted residuals, as its table says."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Annotated

import numpy as np
from pydantic import Field

from nasrun.errors import UserError, nearest, shortened
from nasrun.limits import Width
from nasrun.search_space.additive import AdditiveSpace
from nasrun.search_space.base import Scale, Supernet
from nasrun.search_space.chain import WidthScale
from nasrun.search_space.gates import GateKind
from nasrun.search_space.graph import Graph, classes_node, image_node, staged, with_shape
from nasrun.search_space.layer import Layer
from nasrun.search_space.mbconv_chain.choices import Decide, Layout, StageChoices
from nasrun.search_space.mbconv_chain.kernels import Part, check_nested, parts_of
from nasrun.search_space.mbconv_chain.network import MbconvNetwork, MbconvSupernet, list_layers
from nasrun.search_space.mbconv_chain.table import (
    IDENTITY,
    Activation,
    ChainPlan,
    OperationNames,
    Share,
    SqueezeKind,
    Stage,
    StemKind,
    Style,
    Table,
)
from nasrun.values import Architecture, Decision, Problem

SpaceName = Annotated[str, Field(pattern="^[a-z0-9_]{1,64}$")]
"""The name that architectures carry."""


class MbconvChain(AdditiveSpace):
    """``mbconv_*``: chains of inverted residuals (MobileNetV2's blocks), as a table says.

    An architecture is written as the names of its options with commas between them: ``k5_e6`` is
    the block of kernel 5 and expansion 6, ``k3_e1_g2`` has two groups, ``k3_e6_se`` squeeze-excite,
    ``identity`` passes its input on. An identity that keeps the shape does nothing, so its place
    behind the first layer of its stage makes no difference.

    name: what architectures say that they belong to; the option's name, so that files find it.
    decide, share: see ``Decide``, ``Share``.
    stem: see ``StemKind``. stem_channels: after the stem.
    stages: the table; see ``Stage``.
    operations: the options of a layer, where its stage has none of its own.
    features, mix: see ``ChainPlan``.
    activation: of stem and head, and of stages without their own.
    squeeze, expand_always: see ``Style``.
    divisor: all channels are multiples of it.
    affine: whether the batch norms of the supernet's options scale and shift; those of stand-alone
    networks always do.
    """

    gate_kinds: frozenset[GateKind] = frozenset({"path", "mix"})

    def __init__(
        self,
        *,
        name: SpaceName,
        decide: Decide,
        share: Share,
        stem: StemKind,
        stem_channels: Width,
        stages: Annotated[list[Stage], Field(min_length=1, max_length=64)],
        operations: OperationNames,
        features: Width,
        mix: Width | None,
        activation: Activation,
        squeeze: SqueezeKind,
        expand_always: bool,
        divisor: Annotated[int, Field(ge=1, le=64)],
        affine: bool,
        search: WidthScale,
        final: WidthScale,
    ) -> None:
        self.name, self.share, self.affine = name, share, affine
        self.scales: dict[Scale, WidthScale] = {"search": search, "final": final}
        self.table = Table(
            name,
            stem,
            stem_channels,
            tuple(stages),
            features,
            mix,
            activation,
            divisor,
            Style(squeeze, expand_always),
        )
        self._layout = Layout(self.table, decide, operations)
        if share == "kernels":
            for number, stage in enumerate(self.stages, 1):
                check_nested(number, stage.options[-1], self.table.style)

    @cached_property
    def decisions(self) -> tuple[Decision, ...]:
        return tuple(self._layout.decisions)

    @cached_property
    def stages(self) -> tuple[StageChoices, ...]:
        """The places of the decisions, for each stage."""
        return tuple(self._layout.stages)

    @cached_property
    def additive(self) -> tuple[tuple[int, ...], ...] | None:
        """Each decision by itself; a stage's operation and number of layers together."""
        return tuple(
            group
            for stage in self.stages
            for group in (
                [(place,) for place in stage.decisions]
                if stage.depth is None
                else [stage.decisions]
            )
        )

    @property
    def kernel_parts(self) -> dict[int, tuple[Part | None, ...]]:
        """Decisions on parts of a super-kernel, by index -> the part of each option; {}: none."""
        if self.share == "none":
            return {}
        return {
            op: parts_of(options)
            for stage in self.stages
            for op, options in zip(stage.ops, stage.options, strict=True)
            if op is not None
        }

    def _plan(self, problem: Problem, scale: Scale) -> ChainPlan:
        return self.table.plan(problem, self.scales[scale].width)

    def supernet(self, problem: Problem, *, auxiliary: bool = False) -> Supernet:
        self.refuse_auxiliary(auxiliary)
        plan = self._plan(problem, "search")
        return MbconvSupernet(plan, self.stages, self.share, affine=self.affine)

    def network(
        self, architecture: Architecture, problem: Problem, scale: Scale, *, auxiliary: bool = False
    ) -> MbconvNetwork:
        self.refuse_auxiliary(auxiliary)
        choices = self.check(architecture).choices
        return MbconvNetwork(self._plan(problem, scale), self.stages, choices)

    def layers(
        self, architecture: Architecture, problem: Problem, scale: Scale = "search"
    ) -> list[Layer]:
        """List stem, layers and head.

        Names contain the operation, its channels, the input's side, the stride and the activation:
        ``mbconv/k3_e6 24-32 56 s2 relu6``.
        """
        return list_layers(self._plan(problem, scale), self.stages, architecture.choices)

    def graphs(
        self, architecture: Architecture, problem: Problem, scale: Scale = "final"
    ) -> dict[str, Graph]:
        """The stages of the chain, with the shape of each output."""
        plan = self._plan(problem, scale)
        stem = with_shape("stem conv 3×3", plan.stem, plan.layers[0].size, plan.stem_stride)
        labels, counts = [image_node(problem), stem], list[int]()
        for stage in self.stages:
            before = len(labels) if counts else 0
            for index, options in stage.present(architecture.choices).items():
                layer, (option,) = plan.layers[index], options.values()
                text = IDENTITY if option is None else option.words
                labels.append(with_shape(text, layer.outputs, layer.size_out, layer.stride))
            counts.append(len(labels) - before)
        head = [with_shape("conv 1×1", plan.features, plan.size)]
        head += [] if plan.mix is None else [f"linear\n{plan.mix} channels"]
        counts[-1] += len(head) + 1
        return staged([*labels, *head, classes_node(problem)], counts)

    def canonical(self, architecture: Architecture) -> Architecture:
        """Put identities that do nothing last in their stage."""
        return self._rearranged(architecture, lambda blocks: sorted(blocks, reverse=True))

    def equivalent(self, architecture: Architecture, rng: np.random.Generator) -> Architecture:
        """Put identities that do nothing at uniformly random places of their stage."""
        return self._rearranged(architecture, lambda blocks: rng.permutation(blocks).tolist())

    def _rearranged(
        self, architecture: Architecture, arrange: Callable[[list[bool]], list[bool]]
    ) -> Architecture:
        """Move the blocks of each stage, in their order, to other places.

        arrange: tells which places have blocks from now on, from which had.
        """
        choices = list(architecture.choices)
        for stage in self.stages:
            identity = len(stage.options[-1]) - 1
            before = [choices[place] for place in stage.movable]
            blocks = iter([choice for choice in before if choice != identity])
            there = arrange([choice != identity for choice in before])
            for place, block in zip(stage.movable, there, strict=True):
                choices[place] = next(blocks) if block else identity
        return Architecture(self.name, tuple(choices))

    def write(self, architecture: Architecture) -> str:
        return ",".join(
            decision.options[choice]
            for decision, choice in zip(self.decisions, architecture.choices, strict=True)
        )

    def parse(self, text: str) -> Architecture:
        """Read the names of the options, separated by commas, spaces or bars.

        Raises UserError if it is not an architecture of this space.
        """
        words = text.replace(",", " ").replace("|", " ").split()
        choices: list[int] = []
        for decision, word in zip(self.decisions, words, strict=False):
            if word not in decision.options:
                raise UserError(
                    f"{decision.name}: there is no option {shortened(word, 40)!r}"
                    f"{nearest(word, decision.options)}; it has {', '.join(decision.options)}"
                )
            choices.append(decision.options.index(word))
        return self.check(Architecture(self.name, (*choices, *(0 for _ in words[len(choices) :]))))
