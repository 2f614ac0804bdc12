"""Trained networks as files of other formats: each computes what the network computes."""

from __future__ import annotations

import ast

import pytest
import torch
from test_contracts import built, options
from torch import Tensor, nn

from nasrun.export import programs
from nasrun.export.recording import UnwritableError
from nasrun.export.source_code import write_classes
from nasrun.run.state import encode_tensors, pack
from nasrun.streams import Streams
from nasrun.testing.space_case import SpaceCase
from nasrun.values import Problem

PROBLEM = Problem(3, 32, 7)
HEAD = "import torch\nimport torch.nn.functional as F\nfrom torch import Tensor, nn\n\n\n"


def networks(name: str, count: int, problem: Problem = PROBLEM) -> list[nn.Module]:
    """Networks of a space with weights and statistics that are not those of the beginning."""
    space = built("search_space", f"search_space={name}")
    case = SpaceCase(space, problem, count, Streams(0))
    found = []
    for index, architecture in enumerate(case.architectures):
        with Streams(index).default("init"):
            network = space.network(architecture, problem, "final").eval()
            found.append(shaken(network))
    return found


def shaken(network: nn.Module) -> nn.Module:
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.3)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
            if module.affine:
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.normal_(module.bias, std=0.3)
    return network


def images(count: int, problem: Problem = PROBLEM) -> Tensor:
    return torch.randn(count, *problem.shape, generator=torch.Generator().manual_seed(1))


def logits_of(network: nn.Module, pixels: Tensor) -> Tensor:
    with torch.no_grad():
        found: Tensor = network(pixels)
    return found


def python_program(network: nn.Module, shape: tuple[int, int, int]) -> tuple[str, programs.Run]:
    text = HEAD + write_classes(network, shape)
    weights = encode_tensors(pack(dict(network.state_dict()))[1])
    return text, programs.run_python(text, weights)


@pytest.mark.few(1)
@pytest.mark.parametrize("name", options("search_space"))
def test_networks_of_all_spaces_are_written_as_python(name: str) -> None:
    for network in networks(name, 1):
        text, run = python_program(network, PROBLEM.shape)
        pixels = images(5)
        gap = programs.largest_difference(run, pixels, logits_of(network, pixels), (1, 4))
        assert gap <= 1e-5, name
        imported = {
            alias.name
            for node in ast.walk(ast.parse(text))
            if isinstance(node, ast.Import)
            for alias in node.names
        }
        assert imported == {"torch", "torch.nn.functional"}


def test_equal_modules_share_a_class_that_takes_their_sizes() -> None:
    class Unit(nn.Module):
        def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
            super().__init__()
            self.conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False)
            self.norm = nn.BatchNorm2d(outputs)

        def forward(self, x: Tensor) -> Tensor:
            return self.norm(self.conv(x)).relu()

    class Whole(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.units = nn.ModuleList([Unit(3, 4, 3), Unit(4, 8, 5), Unit(8, 8, 7)])
            self.head = nn.Linear(8, 2)

        def forward(self, x: Tensor) -> Tensor:
            for unit in self.units:
                x = unit(x)
            return self.head(x.mean((2, 3)))

    text, run = python_program(shaken(Whole().eval()), (3, 9, 9))
    assert "class Unit(nn.Module):" in text and text.count("class ") == 2
    assert "nn.Conv2d(channels, channels2, kernel, padding=kernel // 2, bias=False)" in text
    assert "nn.ModuleList([Unit(3, 4, 3), Unit(4, 8, 5), Unit(8, 8, 7)])" in text
    assert run(torch.zeros(4, 3, 9, 9)).shape == (4, 2)


class Sized(nn.Module):
    """Makes a tensor of the size of the batch, and leaves a head unused."""

    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Linear(100, 100)
        self.scale = nn.Parameter(torch.tensor([2.0, 3.0]))

    def forward(self, x: Tensor) -> Tensor:
        zeros = x.new_zeros(len(x), 2)
        return zeros + x.reshape(len(x), -1)[:, :2] * self.scale


def test_numbers_of_the_batch_stay_open_and_what_is_unused_goes() -> None:
    network = Sized().eval()
    text, run = python_program(network, (1, 4, 4))
    assert "batch = len(x)" in text and "unused" not in text
    pixels = images(11, Problem(1, 4, 2))
    assert torch.equal(run(pixels), network(pixels))


class Branching(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3)) if len(x) > 2 else x.sum((2, 3))


class Assigning(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        x = x.clone()
        x[:, 0] = 0.0
        return x.mean((2, 3))


@pytest.mark.parametrize("kind", [Branching, Assigning])
def test_what_cannot_be_written_is_told(kind: type[nn.Module]) -> None:
    with pytest.raises(UnwritableError):
        write_classes(kind().eval(), (1, 4, 4))


@pytest.mark.soak
@pytest.mark.parametrize("name", options("search_space"))
def test_networks_of_all_spaces_are_exported(name: str) -> None:
    """For any number of images."""
    pixels = images(12)
    for network in networks(name, 1)[:2]:
        logits = logits_of(network, pixels)
        data = programs.torch_program(network, PROBLEM.shape)
        run = programs.run_torch_program(data)
        assert programs.largest_difference(run, pixels, logits, (1, 7, 3)) <= 1e-4, name
        pytest.importorskip("onnxruntime")
        run = programs.run_onnx_program(programs.onnx_program(network, PROBLEM.shape))
        assert programs.largest_difference(run, pixels, logits, (1, 7, 3)) <= 1e-4, name
