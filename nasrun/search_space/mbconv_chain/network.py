"""The supernet of a chain, its stand-alone networks, and their lists of layers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache, partial

from torch import Tensor, nn

from nasrun.search_space.base import Network, Supernet
from nasrun.search_space.chain import ChoiceLayer, LoneLayer, Piece
from nasrun.search_space.gates import Gates, mixed, single_path
from nasrun.search_space.layer import Layer
from nasrun.search_space.mbconv_chain.choices import Present, StageChoices, present_options
from nasrun.search_space.mbconv_chain.kernels import SuperKernel
from nasrun.search_space.mbconv_chain.layers import Head, build_option, initialise, stem
from nasrun.search_space.mbconv_chain.table import (
    ChainPlan,
    MbconvPlan,
    Option,
    Share,
    name_of,
)
from nasrun.search_space.noise import Noise
from nasrun.search_space.operation import remove_affine


def choice_layer(plan: MbconvPlan, options: Mapping[int, Option]) -> ChoiceLayer:
    """Build some of the options of a layer; blocks that keep the shape add their input."""
    modules = {index: build_option(plan, option) for index, option in options.items()}
    residual = [index for index, option in options.items() if plan.keeps_shape and option]
    return ChoiceLayer(modules, residual)


class Chain(Network):
    """Stem, layers, head.

    stages: the places of the decisions, by which gates reach the layers.
    """

    def __init__(
        self, plan: ChainPlan, stages: Sequence[StageChoices], layers: Mapping[int, nn.Module]
    ) -> None:
        super().__init__()
        self.stages, self.plans, self.count = tuple(stages), plan.layers, len(plan.layers)
        self.stem = stem(plan)
        self.layers = nn.ModuleDict({str(index): layer for index, layer in layers.items()})
        self.head = Head(plan, self.noise)
        initialise(self)

    def logits(self, x: Tensor, gates: Gates) -> Tensor:
        """x [B, C, H, W] -> [B, K]."""
        x = self.stem(x)
        for stage in self.stages:
            x = self._run_stage(stage, x, gates)
        logits: Tensor = self.head(x)
        return logits

    def _run_stage(self, stage: StageChoices, x: Tensor, gates: Gates) -> Tensor:
        """Run as many layers as the longest open depth has; depths mix their last outputs."""
        longest, depth = len(stage.layers), None if stage.depth is None else gates[stage.depth]
        if depth is not None:
            longest = stage.shortest + (depth if isinstance(depth, int) else max(depth))
        outputs = [x]
        for layer, op in zip(stage.layers[:longest], stage.ops[:longest], strict=True):
            gate = 0 if op is None else gates[op]
            place = (layer + 1) / self.count
            outputs.append(self.layers[str(layer)](outputs[-1], gate, self.noise, place))
        if depth is None:
            return outputs[-1]
        return mixed(depth, lambda option: outputs[stage.shortest + option])


def choice_layers(plan: ChainPlan, present: Present) -> dict[int, nn.Module]:
    """Build the layers with weights of their own for each option."""
    return {index: choice_layer(plan.layers[index], options) for index, options in present.items()}


class MbconvNetwork(Chain):
    """The network of one architecture: [B, C, H, W] -> [B, K]."""

    def __init__(
        self, plan: ChainPlan, stages: Sequence[StageChoices], choices: Sequence[int]
    ) -> None:
        present = present_options(stages, choices)
        super().__init__(plan, stages, choice_layers(plan, present))
        self.choices = tuple(choices)

    def forward(self, x: Tensor) -> Tensor:
        return self.logits(x, self.choices)


class MbconvSupernet(Chain, Supernet):
    """All options in every layer: images and gates -> logits [B, K].

    The weights have the names that they have in a stand-alone network, except in super-kernels.
    """

    def __init__(
        self, plan: ChainPlan, stages: Sequence[StageChoices], share: Share, *, affine: bool
    ) -> None:
        """Build all options; affine: whether their batch norms scale and shift."""
        every = {layer: options for stage in stages for layer, options in stage.every().items()}
        layers = choice_layers(plan, every)
        if share == "kernels":
            layers |= {
                layer: SuperKernel(plan.layers[layer], list(options.values()))
                for layer, options in every.items()
                if len(options) > 1
            }
        super().__init__(plan, stages, layers)
        if not affine:
            for layer in self.layers.values():
                remove_affine(layer)

    def _decided(self) -> Iterator[tuple[int, nn.Module]]:
        """Yield the layers with several options, each behind its decision."""
        for stage in self.stages:
            for layer, op in zip(stage.layers, stage.ops, strict=True):
                if op is not None:
                    yield op, self.layers[str(layer)]

    def option_modules(self) -> Iterator[tuple[nn.Module, list[tuple[int, int]]]]:
        """Yield the options of layers; those of super-kernels are parts of the same weights."""
        for decision, layer in self._decided():
            if isinstance(layer, ChoiceLayer):
                for option, module in layer.options.items():
                    yield module, [(decision, int(option))]

    def norms(self) -> dict[int, Tensor]:
        """Return the squared norms of each decision's super-kernel, [rings, groups of channels]."""
        found: dict[int, Tensor] = {}
        for decision, layer in self._decided():
            if isinstance(layer, SuperKernel):
                found[decision] = layer.norms() + found.get(decision, 0.0)
        return found

    def pieces(self, gates: Gates) -> list[Piece]:
        """Return stem, options that do something, and head (see ``ChainSupernet``)."""
        found = [Piece("stem", self.stem)]
        for index, options in working_options(self.plans, self.stages, single_path(gates)).items():
            (choice,) = options
            place = (index + 1) / self.count
            run = partial(self.layers[str(index)], gate=choice, noise=self.noise, depth=place)
            found.append(Piece((index, choice), run))
        return [*found, Piece("head", self.head)]

    def forward(self, x: Tensor, gates: Gates) -> Tensor:
        return self.logits(x, gates)


def working_options(
    plans: Sequence[MbconvPlan], stages: Sequence[StageChoices], choices: Sequence[int]
) -> Present:
    """Return the layers of an architecture without identities that do nothing."""
    return {
        layer: options
        for layer, options in present_options(stages, choices).items()
        if not (plans[layer].keeps_shape and None in options.values())
    }


def list_layers(
    plan: ChainPlan, stages: Sequence[StageChoices], choices: Sequence[int]
) -> list[Layer]:
    """List stem, layers and head, in the order of the network; what does nothing is left out."""
    working = working_options(plan.layers, stages, choices)
    layers = [
        lone_layer(plan.layers[index], option)
        for index, options in working.items()
        for option in options.values()
    ]
    return [_stem_layer(plan), *layers, _head_layer(plan)]


def _stem_layer(plan: ChainPlan) -> Layer:
    problem = plan.problem
    channels = f"{problem.channels}-{plan.stem}"
    name = f"mbconv/stem {channels} {problem.size} s{plan.stem_stride} {plan.activation}"
    return Layer(name, problem.size.shape(problem.channels), partial(stem, plan))


@lru_cache(maxsize=4096)  # a search uses the same few hundred layers many times
def lone_layer(plan: MbconvPlan, option: Option) -> Layer:
    """Return a layer with one option as a layer of a list."""
    name = f"mbconv/{name_of(option)} {plan.inputs}-{plan.outputs} {plan.size} s{plan.stride}"
    name += f" {plan.activation}"
    if option is not None:
        squeezed = plan.squeezed(option)
        hard = "hard_" if plan.style.squeeze == "mobilenet_v3" else ""
        name += "" if squeezed is None else f" {hard}se{squeezed}"
        name += " expanded" if option.expansion == 1 and plan.style.expand_always else ""
    return Layer(
        name, plan.size.shape(plan.inputs), lambda: LoneLayer(choice_layer(plan, {0: option}))
    )


def _head_layer(plan: ChainPlan) -> Layer:
    inputs = plan.layers[-1].outputs
    channels = "-".join(map(str, filter(None, (inputs, plan.features, plan.mix))))
    name = f"mbconv/head {channels}-{plan.problem.classes} {plan.size} {plan.activation}"
    return Layer(name, plan.size.shape(inputs), partial(Head, plan, Noise()))
