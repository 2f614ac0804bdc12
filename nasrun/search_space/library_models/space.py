"""Search spaces of one network: a model of torchvision or timm, to compare winners with."""

from __future__ import annotations

from functools import cached_property, lru_cache, partial
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from nasrun.errors import UserError, shortened
from nasrun.search_space.base import Network, Scale, SearchSpace, Supernet
from nasrun.search_space.gates import GateKind, Gates, single_path
from nasrun.search_space.graph import Graph, chain, classes_node, image_node, with_shape
from nasrun.search_space.layer import Layer, count_layers
from nasrun.search_space.library_models.adapting import (
    USUAL_SIDE,
    Halving,
    change_nothing_in_place,
    find_halvings,
    halvings_to_remove,
    name_randomness,
    outputs_of_parts,
    read_channels,
    remove_halvings,
)
from nasrun.search_space.library_models.libraries import Library, Timm, Torchvision
from nasrun.values import Architecture, Cost, Decision, MapSize, Problem

StemRule = Literal["fit", "published"]
"""``fit``: fewer halvings at the beginning for images below 113 pixels. ``published``: as it is."""

MAX_SIDE = 1024
"""Side up to which the smallest images that a model takes are looked for, in pixels."""

REFUSALS = (RuntimeError, ValueError, TypeError, AssertionError, ArithmeticError, LookupError)
"""Errors by which a library's model refuses images that are too small, or of a wrong size."""


class LibraryNetwork(Network):
    """A library's model: [B, C, H, W] -> [B, K]. Its dropout is that of the library."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        name_randomness(model, self.noise)
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.model(x)
        return logits


class LibrarySupernet(Supernet):
    """The same with gates, of which there is one: it stands in the place of a supernet."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        name_randomness(model, self.noise)
        self.model = model

    def forward(self, x: Tensor, gates: Gates) -> Tensor:
        single_path(gates)
        logits: Tensor = self.model(x)
        return logits


class LibrarySpace(SearchSpace):
    """A search space of one architecture, a model of a library, fitted to the task.

    It is built for the classes and the channels of the images. Libraries' models halve images of
    224 pixels five times or so. With ``stem=fit`` the first halvings are taken out for smaller
    images, one for 57 to 112 pixels and two for less: strides of convolutions become 1 and pools
    are left out, while all kernels stay. Models for one size of images, such as vision
    transformers, are built for that of the task instead.

    model: its name in the library. stem: see above.
    """

    library: ClassVar[Library]
    gate_kinds: frozenset[GateKind] = frozenset({"path"})
    fixed = True

    def __init__(self, *, model: str, stem: StemRule) -> None:
        self.library.check(model)
        self.model = model
        self.stem: StemRule = stem
        self.name = f"{self.library.name}/{model}"

    @cached_property
    def decisions(self) -> tuple[Decision, ...]:
        return (Decision("network/model", (self.model,)),)

    def _module(self, problem: Problem) -> nn.Module:
        """Build the fitted model, randomly initialised."""
        module = built(self.library, self.model, problem)
        read_channels(module, problem.channels)
        change_nothing_in_place(module)
        if self.stem == "fit" and not self.library.has_fixed_size(self.model):
            count = halvings_to_remove(problem.size)
            remove_halvings(module, _halvings(type(self), self.model) if count else (), count)
        return module

    def _fits(self, problem: Problem) -> str | None:
        """Return why the model does not take images of this size; None if it does."""
        try:
            with torch.device("meta"), torch.no_grad():
                self._module(problem).eval()(torch.empty(1, *problem.shape))
        except REFUSALS as error:
            return shortened(" ".join(str(error).split()), 120) or type(error).__name__
        return None

    @cached_property
    def _checked(self) -> dict[Problem, None]:
        return {}

    def _check_size(self, problem: Problem) -> None:
        """Raise UserError, with the smallest size, if the model does not take such images."""
        if problem in self._checked:
            return
        refusal = self._fits(problem)
        if refusal is None:
            self._checked[problem] = None
            return
        words = f"{self.model} of {self.library.name}"
        if self.library.has_fixed_size(self.model):
            raise UserError(
                f"{words} cannot be built for images of {problem.size.words} pixels: {refusal}"
            )
        for side in range(problem.size.short + 1, MAX_SIDE):
            if self._fits(Problem(problem.channels, MapSize.square(side), problem.classes)) is None:
                raise UserError(
                    f"images of {problem.size.words} pixels are too small for {words} (at least "
                    f"{side}×{side} with search_space.stem={self.stem})"
                )
        raise UserError(f"{words} takes no images of {problem.size.words} pixels: {refusal}")

    def supernet(self, problem: Problem, *, auxiliary: bool = False) -> LibrarySupernet:
        self.refuse_auxiliary(auxiliary)
        self._check_size(problem)
        return LibrarySupernet(self._module(problem))

    def network(
        self, architecture: Architecture, problem: Problem, scale: Scale, *, auxiliary: bool = False
    ) -> LibraryNetwork:
        self.refuse_auxiliary(auxiliary)
        self.check(architecture)
        self._check_size(problem)
        return LibraryNetwork(self._module(problem))

    def layers(
        self, architecture: Architecture, problem: Problem, scale: Scale = "search"
    ) -> list[Layer]:
        """List the whole network as one layer, with attention counted as torch counts it."""
        self._check_size(problem)
        stem = "" if self.stem == "fit" else " as published"
        name = f"{self.name}{stem} {problem.channels}-{problem.classes} {problem.size}"
        return [Layer(name, problem.shape, partial(self._module, problem), attention=True)]

    def cost_bound(self, problem: Problem, scale: Scale = "search") -> Cost:
        return count_layers(self.layers(Architecture(self.name, (0,)), problem, scale))

    def describe(self, architecture: Architecture) -> list[str]:
        return [f"{self.model} of {self.library.name}"]

    def graphs(
        self, architecture: Architecture, problem: Problem, scale: Scale = "final"
    ) -> dict[str, Graph]:
        """The parts of the model in the order in which they run, as a chain."""
        self._check_size(problem)
        with torch.device("meta"), torch.no_grad():
            module = self._module(problem).eval()
            with outputs_of_parts(module) as parts:
                module(torch.empty(1, *problem.shape))
        labels = [
            with_shape(name, shape[1], MapSize(*shape[2:])) if len(shape) == 4 else name
            for name, shape in parts
        ]
        return {"network": chain([image_node(problem), *labels, classes_node(problem)])}

    def write(self, architecture: Architecture) -> str:
        return self.model

    def parse(self, text: str) -> Architecture:
        """Read the name of the model, or its only choice, 0."""
        return super().parse("0" if text.strip() == self.model else text)


class TorchvisionModel(LibrarySpace):
    """``torchvision``: a classification model of torchvision.models, not pretrained.

    model: e.g. ``resnet18``, ``mobilenet_v2``. stem: ``fit`` or ``published``, see LibrarySpace.
    """

    library = Torchvision()


class TimmModel(LibrarySpace):
    """``timm``: a model of timm, not pretrained; needs the extra ``timm``.

    model: e.g. ``resnet18d``. stem: ``fit`` or ``published``, see LibrarySpace.
    """

    library = Timm()


def built(library: Library, model: str, problem: Problem) -> nn.Module:
    """Build a model on the default device; leaves no trace in torch's generator if that is meta."""
    if torch.get_default_device().type != "meta":
        return library.build(model, problem)
    try:
        return library.build(model, problem)
    except RuntimeError:  # some models compute with tensors while they are built
        with torch.device("cpu"), torch.random.fork_rng(devices=[]), _MetaWeights():
            return library.build(model, problem).to("meta")


class _MetaWeights(TorchFunctionMode):
    """Makes weights on the meta device, so that they take no memory, and all else on the CPU."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func in (torch.empty, torch.zeros, torch.ones):
            return func(*args, **{**(kwargs or {}), "device": "meta"})
        return func(*args, **(kwargs or {}))


@lru_cache(maxsize=64)
def _halvings(space: type[LibrarySpace], model: str) -> tuple[Halving, ...]:
    """Find the layers of a model that lower the resolution, for images of the usual size."""
    usual = Problem(3, MapSize.square(USUAL_SIDE), 2)
    with torch.device("meta"):
        module = built(space.library, model, usual)
    return tuple(find_halvings(module, 3))
