"""Fit a library's model to a problem: channels, small images, named randomness."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import log2

import torch
from torch import Tensor, nn

from nasrun.search_space.noise import Noise
from nasrun.values import MapSize

USUAL_SIDE = 224
"""Side of the images that the libraries' models are made for, in pixels."""

MAX_HALVINGS = 2
"""Halvings that are taken out of the beginning of a network, at most: those of the stem."""

Pool = nn.MaxPool2d | nn.AvgPool2d


def halvings_to_remove(size: MapSize) -> int:
    """Return how often the images are halved too often by a network for 224 pixels, at most 2.

    0 for a short side above 112 pixels, 1 above 56, 2 for smaller images.
    """
    return max(0, min(MAX_HALVINGS, int(log2(USUAL_SIDE / size.short))))


@dataclass(frozen=True)
class Halving:
    """A layer that lowers the resolution. level: halvings before it; stride: its own."""

    path: str
    level: int
    stride: int


def find_halvings(network: nn.Module, channels: int) -> list[Halving]:
    """Find convolutions and pools with a stride, in the order in which images pass them.

    network: on the meta device, where nothing is computed.
    """
    found: list[Halving] = []

    def note(path: str, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        stride = module.stride if isinstance(module.stride, int) else module.stride[0]  # type: ignore[index]
        if stride > 1 and inputs[0].dim() == 4:
            level = round(log2(USUAL_SIDE / inputs[0].shape[-1]))
            found.append(Halving(path, level, int(stride)))

    hooks = [
        module.register_forward_pre_hook(
            lambda module, inputs, path=path: note(path, module, inputs)
        )
        for path, module in network.named_modules()
        if isinstance(module, nn.Conv2d | Pool)
    ]
    try:
        with torch.device("meta"), torch.no_grad():
            network.eval()(torch.empty(1, channels, USUAL_SIDE, USUAL_SIDE))
    finally:
        for hook in hooks:
            hook.remove()
    return found


def remove_halvings(network: nn.Module, halvings: Sequence[Halving], count: int) -> None:
    """Take the first ``count`` halvings out of a network, in all of its branches.

    A pool is left out, a convolution gets a smaller stride; its kernel, and so its number of
    parameters, stays.
    """
    for one in halvings:
        if one.level >= count:
            continue
        module = network.get_submodule(one.path)
        stride = max(1, one.stride >> (count - one.level))
        if isinstance(module, nn.Conv2d):
            module.stride = (stride, stride)
        elif stride == 1:
            replace(network, one.path, nn.Identity())


def read_channels(network: nn.Module, channels: int) -> None:
    """Give the first convolution another number of input channels, with new weights."""
    for path, module in network.named_modules():
        if isinstance(module, nn.Conv2d):
            if module.in_channels == channels:
                return
            bias = module.bias is not None
            new = nn.Conv2d(
                channels,
                module.out_channels,
                module.kernel_size,  # type: ignore[arg-type]
                module.stride,  # type: ignore[arg-type]
                module.padding,  # type: ignore[arg-type]
                bias=bias,
            )
            replace(network, path, new)
            return


class StreamDropout(nn.Dropout):
    """Dropout by the generator of the training step, so that a run can be repeated and resumed."""

    def __init__(self, p: float, noise: Noise) -> None:
        super().__init__(p)
        self.noise = noise

    def forward(self, x: Tensor) -> Tensor:
        return self.noise.thinned(x, 1.0 - self.p) if self.training else x


class StreamDepth(nn.Module):
    """Stochastic depth by the generator of the training step: whole samples become 0.

    p: probability. by_sample: whether each sample is decided by itself, or all at once.
    """

    def __init__(self, p: float, noise: Noise, *, by_sample: bool) -> None:
        super().__init__()
        self.p, self.noise, self.by_sample = p, noise, by_sample

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        first = x.shape[0] if self.by_sample else 1
        return self.noise.thinned(x, 1.0 - self.p, (first, *[1] * (x.dim() - 1)))


def change_nothing_in_place(network: nn.Module) -> None:
    """Let activations return new tensors: one that changes its input cannot be recorded."""
    for module in network.modules():
        if getattr(module, "inplace", False) is True:
            module.inplace = False  # type: ignore[assignment]


def name_randomness(network: nn.Module, noise: Noise) -> None:
    """Let all dropout of a network take its random numbers from the noise of the step."""
    for path, module in list(network.named_modules()):
        if type(module) is nn.Dropout:
            replace(network, path, StreamDropout(module.p, noise))
        elif type(module).__name__ == "StochasticDepth":  # torchvision
            by_sample = module.mode == "row"
            replace(network, path, StreamDepth(float(module.p), noise, by_sample=by_sample))
        elif type(module).__name__ == "DropPath":  # timm
            p = float(module.drop_prob or 0.0)
            replace(network, path, StreamDepth(p, noise, by_sample=True))


def replace(network: nn.Module, path: str, new: nn.Module) -> None:
    """Put another module in the place of the one at ``path``."""
    owner, _, name = path.rpartition(".")
    setattr(network.get_submodule(owner), name, new)


@contextmanager
def outputs_of_parts(network: nn.Module) -> Iterator[list[tuple[str, tuple[int, ...]]]]:
    """Note the name and the shape of the output of each part that runs inside, in order.

    Parts are the children, and those of plain sequences among them.
    """
    found: list[tuple[str, tuple[int, ...]]] = []
    parts: dict[str, nn.Module] = {}
    for name, child in network.named_children():
        inner = dict(child.named_children()) if type(child) is nn.Sequential else {}
        parts |= {f"{name}.{key}": one for key, one in inner.items()} or {name: child}
    hooks = [
        module.register_forward_hook(
            lambda _, __, out, name=name: found.append((name, tuple(out.shape)))
        )
        for name, module in parts.items()
    ]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()
