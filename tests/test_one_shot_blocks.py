"""one_shot_blocks: subsets of inputs and operations, blocks by hand, and what is off."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from helpers import space_of
from networks import CIFAR, counted, random_architectures
from torch import nn

from nasrun.errors import UserError
from nasrun.search_space.layer import Layer, count_layer
from nasrun.search_space.noise import Noise
from nasrun.search_space.one_shot_blocks import BlockScale, OneShotBlocks
from nasrun.search_space.one_shot_blocks.network import Cell
from nasrun.search_space.one_shot_blocks.operations import BLOCK_OPERATIONS, OPERATION_NAMES
from nasrun.search_space.one_shot_blocks.wiring import input_at, operation_at, wire
from nasrun.testing import check_space
from nasrun.values import Architecture, Problem

TASKS = [CIFAR, Problem(1, 9, 4), Problem(3, 33, 7)]
NOTHING, EVERYTHING = (0,) * 42, (1,) * 42


def space(blocks: int = 4, **changes) -> OneShotBlocks:
    values = {
        "density": 0.3,
        "stem": "small",
        "search": BlockScale(channels=4, cells=1),
        "final": BlockScale(channels=3, cells=2),
    }
    return OneShotBlocks(blocks=blocks, **{**values, **changes})


SPACE = space()


def any_architectures(search_space: OneShotBlocks, count: int) -> list[Architecture]:
    """From almost nothing open to almost everything, blocks without inputs included."""
    rng = np.random.default_rng(1)
    size = len(search_space.decisions)
    found = [
        Architecture(search_space.name, tuple((rng.random(size) < share).astype(int).tolist()))
        for share in np.linspace(0.05, 0.95, count)
    ]
    both = [(choice,) * size for choice in (0, 1)]
    return [*found, *(Architecture(search_space.name, choices) for choices in both)]


def opened(*names: str, blocks: int = 4) -> Architecture:
    """The architecture that has these decisions on."""
    known = [decision.name for decision in space(blocks).decisions]
    assert set(names) <= set(known)
    return Architecture("one_shot_blocks", tuple(int(name in names) for name in known))


def test_decisions():
    names = [decision.name for decision in SPACE.decisions]
    assert len(names) == len(set(names)) == 42 == 2 + 3 + 4 + 5 + 4 * 7
    assert names[:3] == ["block0/input/cell k-2", "block0/input/cell k-1", "block0/op/identity"]
    assert names[input_at(3, 4)] == "block3/input/block 2"
    assert names[operation_at(2, 6)] == "block2/op/avg_pool_3x3" and SPACE.binary


@pytest.mark.parametrize("name", OPERATION_NAMES)
@pytest.mark.parametrize("stride", [1, 2])
def test_operations(name, stride):
    module = BLOCK_OPERATIONS[name].module(4, stride)
    build = partial(BLOCK_OPERATIONS[name].module, 4, stride)
    cost = count_layer(Layer(f"test/{name} s{stride}", (4, 9, 9), build))
    assert (cost.params, cost.macs) == counted(module, Problem(4, 9, 0))
    side = 9 if stride == 1 else 5
    assert module(torch.randn(2, 4, 9, 9)).shape == (2, 4, side, side)
    first = next((m for m in module.modules() if not list(m.children())), None)
    if name.startswith(("sep", "conv")):
        assert isinstance(first, nn.BatchNorm2d)


def test_the_bound_is_the_whole_supernet_and_no_network_exceeds_it():
    bound = SPACE.cost_bound(CIFAR)
    assert bound.params == sum(p.numel() for p in SPACE.supernet(CIFAR).parameters())
    for architecture in any_architectures(SPACE, 30):
        cost = SPACE.cost(architecture, CIFAR)
        assert cost.params <= bound.params and cost.macs <= bound.macs


def test_nothing_open_still_trains():
    for network, gates in (
        (SPACE.supernet(CIFAR), (NOTHING,)),
        (SPACE.network(Architecture("one_shot_blocks", NOTHING), CIFAR, "final"), ()),
    ):
        logits = network(torch.randn(2, 3, 32, 32), *gates)
        assert logits.isfinite().all() and torch.equal(logits[0], logits[1])
        nn.functional.cross_entropy(logits, torch.tensor([1, 2])).backward()
        assert network.classifier.bias.grad.abs().sum() > 0


def test_the_sum_of_1x1_convolutions_is_that_of_the_concatenation():
    torch.manual_seed(0)
    wiring = wire([True] * 42, 4)
    cell, x, y = Cell(3, wiring).eval(), torch.randn(2, 3, 5, 5), torch.randn(2, 3, 5, 5)
    names = ("block0/input/cell k-2", "block0/input/cell k-1", "block0/op/identity")
    second = ("block1/input/cell k-1", "block1/input/block 0", "block1/op/avg_pool_3x3")
    weights = [1.0 if choice else None for choice in opened(*names, *second).choices]
    out = cell((x, y), wire([w is not None for w in weights], 4), weights, Noise(), 1.0)

    def joined(convolutions, states):
        weight = torch.cat([convolution.weight for convolution in convolutions], dim=1)
        return nn.functional.conv2d(torch.cat(states, dim=1), weight)

    first, then = cell.blocks["0"], cell.blocks["1"]
    a, b = cell.norms["0"](x), cell.norms["1"](y)
    block0 = joined([first.inputs["0"], first.inputs["1"]], [a, b])
    c = cell.norms["2"](block0)
    block1 = joined([then.inputs["1"], then.inputs["2"]], [b, c])
    block1 = nn.functional.avg_pool2d(block1, 3, 1, 1, count_include_pad=False)
    expected = joined([first.output, then.output], [c, cell.norms["3"](block1)])
    torch.testing.assert_close(out, expected)


def test_weights_of_operations_and_images():
    """A sum of operations is weighted term by term, and each image may have weights of its own."""
    torch.manual_seed(0)
    supernet, images = SPACE.supernet(CIFAR).train(), torch.randn(2, 3, 16, 16)
    one = opened("block0/input/cell k-1", "block0/op/identity").choices
    other = opened("block0/input/cell k-1", "block0/op/sep_conv_5x5").choices
    for module in supernet.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.5  # fresh statistics leave next to nothing of the images
    for path in (one, other, one, other):
        supernet(torch.randn(8, 3, 16, 16), path)
    supernet.eval()
    first = torch.tensor([1.0, 0.0]).view(2, 1, 1, 1)
    gates = [
        1 if a and b else {1: first} if a else {1: 1 - first} if b else 0
        for a, b in zip(one, other, strict=True)
    ]
    out = supernet(images, gates)
    assert torch.allclose(out[0], supernet(images, one)[0], atol=1e-6)
    assert torch.allclose(out[1], supernet(images, other)[1], atol=1e-6)
    halved = [{0: 0.5, 1: 0.5} if choice else 0 for choice in one]
    assert not torch.allclose(out[0], supernet(images, other)[0], atol=1e-3)
    assert not torch.allclose(supernet(images, halved), supernet(images, one), atol=1e-3)


def test_what_leads_nowhere_is_not_there():
    # Of six cells each reads cell k-2 only: the last, the fourth and the second are a network.
    skips = opened("block2/input/cell k-2", "block2/op/identity")
    network = SPACE.network(skips, CIFAR, "final")
    assert list(network.cells) == ["1", "3", "5"]
    assert [list(network.reductions[str(stage)]) for stage in (1, 2)] == [["newer"], ["newer"]]
    assert list(network.cells["1"].norms) == ["0", "4"]
    # Block 0 has no operation and block 1 no input that is on: block 2 is all that there is.
    more = opened(
        *("block0/input/cell k-1", "block1/input/block 0", "block1/op/conv_1x7_7x1"),
        *("block2/input/cell k-2", "block2/input/block 1", "block2/op/identity"),
    )
    assert SPACE.canonical(more) == skips
    assert SPACE.cost(more, CIFAR) == SPACE.cost(skips, CIFAR)
    assert SPACE.describe(more) == [
        "block 0 is off",
        "block 1 is off",
        "block 2 = identity of cell k-2",
        "block 3 is off",
    ]


def test_canonical_forms_stand_for_the_same_network():
    torch.manual_seed(0)
    supernet, images = SPACE.supernet(CIFAR).train(), torch.randn(4, 3, 16, 16)
    changed = 0
    for architecture in any_architectures(SPACE, 12):
        form = SPACE.canonical(architecture)
        changed += form != architecture
        assert SPACE.canonical(form) == form
        assert SPACE.cost(form, CIFAR) == SPACE.cost(architecture, CIFAR)
        assert torch.equal(supernet(images, form.choices), supernet(images, architecture.choices))
    assert changed > 2


@pytest.mark.parametrize("density", [0.05, 0.3, 0.9])
def test_random_architectures_have_the_density_asked_for(density):
    """An input or operation is on with probability d, given that not all k of its block are off."""
    search_space = space(density=density)
    drawn = random_architectures(search_space, 2000)
    assert all(search_space.canonical(found) == found for found in drawn[:200])
    share = np.mean([found.choices for found in drawn], axis=0)
    for block in range(4):
        for start, count in ((input_at(block, 0), block + 2), (operation_at(block, 0), 7)):
            expected = density / (1 - (1 - density) ** count)
            error = 4.5 * np.sqrt(expected * (1 - expected) / len(drawn))
            assert np.abs(share[start : start + count] - expected).max() < error


def test_writing_and_reading():
    for architecture in [*any_architectures(SPACE, 10), *random_architectures(SPACE, 10)]:
        text = SPACE.write(architecture)
        assert SPACE.parse(text.replace("-", "")) == architecture
    assert SPACE.write(Architecture("one_shot_blocks", EVERYTHING)).split("-") == [
        part for count in (2, 3, 4, 5) for part in ("1" * count, "1" * 7)
    ]
    for text in ("", "1", "2" * 42, "1" * 43, "x" * 42, "-1" * 41):
        with pytest.raises(UserError):
            SPACE.parse(text)


def test_what_is_refused():
    with pytest.raises(UserError, match=r"stem=imagenet.*at least 32×32"):
        space(stem="imagenet").cost(SPACE.parse("1" * 42), Problem(3, 31, 10))


def test_the_whole_space_opens_everything():
    assert SPACE.whole == EVERYTHING
    assert space_of("nas_bench_201").whole == [dict.fromkeys(range(5), 0.2)] * 6


@pytest.mark.few(1)
@pytest.mark.parametrize(
    ("search_space", "problem"),
    [(space(1), Problem(3, 33, 7)), (space(stem="imagenet"), Problem(3, 65, 5))],
)
def test_laws_of_one_block_and_with_the_imagenet_stem(search_space, problem):
    laws = ["costs_are_counted", "a_path_is_its_network", "only_the_path_is_trained"]
    check_space(search_space, problem, only=laws)
