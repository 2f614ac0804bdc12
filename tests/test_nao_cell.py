"""nao_cell: costs against built networks, known answers, and the supernet against its paths."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from networks import (
    CIFAR,
    assert_layers_make_up_networks,
    counted,
    random_architectures,
)

from nasrun.errors import UserError
from nasrun.search_space.nao_cell import CellScale, NaoCell
from nasrun.search_space.nao_cell.cell import unused_states
from nasrun.search_space.operation import OPERATIONS, Pointwise
from nasrun.search_space.stages import reduced_side
from nasrun.testing import check_space
from nasrun.values import Architecture, Problem

NAONET_V2 = "1 1 0 1 2 4 0 0 0 0 2 1 0 0 0 2 0 3 0 0 | 0 2 0 2 2 2 1 0 0 0 0 1 0 0 0 3 0 0 0 1"


def space(
    operations="small", nodes=5, stem="small", search=(1, 4), final=(2, 6), calibration="needed"
) -> NaoCell:
    return NaoCell(
        operations=operations,
        nodes=nodes,
        stem=stem,
        search=CellScale(layers=search[0], channels=search[1]),
        final=CellScale(layers=final[0], channels=final[1]),
        calibration=calibration,
    )


def paper() -> NaoCell:
    return space(search=(3, 20), final=(6, 36))


def test_naonet_v2_has_the_published_size():
    cost = paper().cost(paper().read(NAONET_V2), CIFAR, "final")
    assert cost.params == 4_387_654  # 4.39 M at C=36, N=6, without the auxiliary head


def test_all_inputs_of_cells_may_be_calibrated():
    """On ImageNet the stem's output has the right shape for the first two cells."""
    large = Problem(3, 224, 1000)
    needed, always = (
        space(stem="imagenet", final=(4, 52), calibration=kind).cost(
            paper().read(NAONET_V2), large, "final"
        )
        for kind in ("needed", "always")
    )
    assert always.params - needed.params == 2 * (52 * 52 + 2 * 52)
    assert always.macs - needed.macs == 2 * 52 * 52 * 28 * 28
    small, problem = space(stem="imagenet", calibration="always"), Problem(3, 65, 7)
    architecture = small.read(NAONET_V2)
    cost = small.cost(architecture, problem, "final")
    assert counted(small.network(architecture, problem, "final"), problem) == (
        cost.params,
        cost.macs,
    )


@pytest.mark.soak
def test_the_supernet_has_the_published_size():
    supernet = paper().supernet(CIFAR)
    assert sum(p.numel() for p in supernet.parameters()) == 7_387_350  # 7.39 M


def test_sizes_of_random_architectures_are_distributed_as_published():
    """Over 20,000: median 0.493, mean 0.495, s.d. 0.116, p5 0.307, p95 0.690 (M parameters)."""
    search_space = paper()
    params = np.array(
        [search_space.cost(a, CIFAR).params for a in random_architectures(search_space, 4000)]
    )
    millions = params / 1e6
    assert np.mean(millions) == pytest.approx(0.495, abs=0.008)  # 4 s.e. and rounding
    assert np.median(millions) == pytest.approx(0.493, abs=0.010)
    assert np.std(millions, ddof=1) == pytest.approx(0.116, abs=0.006)
    assert np.percentile(millions, 5) == pytest.approx(0.307, abs=0.015)
    assert np.percentile(millions, 95) == pytest.approx(0.690, abs=0.018)


@pytest.mark.few(1)
@pytest.mark.parametrize("operations", ["small", "middle", "large"])
@pytest.mark.parametrize(
    ("stem", "tasks"),
    [("small", [CIFAR, Problem(1, 11, 3)]), ("imagenet", [Problem(3, 65, 7)])],
)
def test_layers_make_up_the_network(operations, stem, tasks):
    """All parameters, the auxiliary head's aside, which networks of use have not."""
    search_space = space(operations, stem=stem)
    assert_layers_make_up_networks(search_space, tasks)
    assert search_space.additive is None  # widths hang on how many states nothing reads


def test_layers_of_naonet_v2():
    """Counted by hand: 20 cells of two inputs and ten operations; nothing reads four states."""
    layers = paper().layers(paper().read(NAONET_V2), CIFAR, "final")
    found = Counter(layer.name.removeprefix("nao_cell/") for layer in layers)
    assert len(layers) == 1 + 20 * (2 + 10) + 1
    for name, count in {
        "stem_small 3-108 32": 1,
        "relu_conv_1x1 108-36 32": 3,  # both inputs of the first cell, one of the second
        "sep_conv_3x3 36 32 s1": 24,
        "sep_conv_5x5 36 32 s1": 18,
        "sep_conv_3x3 72 32 s2": 4,
        "avg_pool_3x3 72 16 s1": 1 + 6,
        "relu_reduce 144-72 32": 1,  # after the reduction, cell k-2 is larger than cell k-1
        "head 576-10 8": 1,
    }.items():
        assert found[name] == count, name


@pytest.mark.parametrize(("kernel", "params"), [(3, 620), (5, 940), (7, 1420)])
def test_dilated_separable_convolutions_have_the_published_size(kernel, params):
    """One (ReLU, depthwise of dilation 2, pointwise, batch norm); DARTS' is the same."""
    for stride in (1, 2):
        module = OPERATIONS[f"dil_sep_conv_{kernel}x{kernel}"].module(20, stride)
        assert sum(p.numel() for p in module.parameters()) == params
    layers = ["ReLU", "Depthwise", "Pointwise", "BatchNorm2d"]
    assert [type(layer).__name__ for layer in module] == layers
    assert (module[1].dilation, module[1].groups) == ((2, 2), 20)


@pytest.mark.parametrize("kernel", [3, 7])
def test_both_convolutions_of_a_pair_are_rectified_before_and_normalised_after(kernel):
    """By hand: 1×k, then k×1, each between a ReLU and a batch norm; negative outputs remain."""
    x = torch.randn(4, 5, 9, 9)
    module = OPERATIONS[f"conv_1x{kernel}_{kernel}x1"].module(5, 2)
    first, second = (layer for layer in module if isinstance(layer, torch.nn.Conv2d))
    assert (first.kernel_size, first.stride) == ((1, kernel), (1, 2))
    assert (second.kernel_size, second.stride) == ((kernel, 1), (2, 1))
    expected = x
    for convolution in (first, second):
        out = convolution(expected.relu())
        mean, var = out.mean((0, 2, 3), keepdim=True), out.var((0, 2, 3), False, True)
        expected = (out - mean) / (var + 1e-5).sqrt()
    assert expected.min() < 0
    torch.testing.assert_close(module(x), expected, rtol=1e-4, atol=1e-5)
    assert sum(p.numel() for p in module.parameters()) == 2 * (kernel * 25 + 2 * 5)


def test_a_larger_cell_before_the_last_is_rectified_before_it_is_halved():
    """Negative inputs do not matter, in the supernet and alone; the output is no longer >= 0."""
    search_space = space()
    alone = search_space.network(random_architectures(search_space, 1)[0], CIFAR, "search")
    for network in (alone, search_space.supernet(CIFAR)):
        after = [i + 1 for i, reduction in enumerate(network.reductions) if reduction]
        assert len(after) == 2
        for index in after:
            calibrate = network.cells[index].calibrate[0].eval()
            first = next(m for m in calibrate.modules() if isinstance(m, torch.nn.Conv2d))
            x = torch.randn(2, first.in_channels, 8, 8)
            out = calibrate(x)
            assert out.shape[2:] == (4, 4) and (out < 0).any()
            assert torch.equal(calibrate(x.relu()), out)
            assert not torch.equal(calibrate(-x), out)


def test_the_bound_is_reached_within_a_factor_that_keeps_rejection_cheap():
    search_space = paper()
    sizes = [search_space.cost(a, CIFAR).params for a in random_architectures(search_space, 300)]
    assert np.mean(sizes) > 0.3 * search_space.cost_bound(CIFAR).params


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [8, 7])
def test_operations_keep_channels_and_divide_the_size(name, stride, size):
    module = OPERATIONS[name].module(6, stride)
    assert module(torch.randn(2, 6, size, size)).shape == (2, 6, *[reduced_side(size, stride)] * 2)


@pytest.mark.parametrize("kernel", [2, 3, 5])
def test_pooling_a_constant_gives_the_constant_also_at_the_border(kernel):
    for kind in ("avg", "max"):
        for stride in (1, 2):
            pool = OPERATIONS[f"{kind}_pool_{kernel}x{kernel}"].module(1, stride)
            out = pool(torch.full((1, 1, 7, 7), -3.0))
            assert torch.equal(out, torch.full_like(out, -3.0))


@pytest.mark.parametrize("size", [8, 7])
def test_a_strided_pointwise_convolution_is_torchs(size):
    ours = Pointwise(6, 4, stride=2)
    x = torch.randn(2, 6, size, size)
    expected = torch.nn.functional.conv2d(x, ours.weight, stride=2)
    torch.testing.assert_close(ours(x), expected)


def test_only_the_sampled_path_is_computed_and_trained():
    torch.manual_seed(0)
    search_space = space()
    supernet = search_space.supernet(CIFAR)
    architecture = random_architectures(search_space, 1)[0]
    supernet(torch.randn(2, 3, 32, 32), architecture.choices).sum().backward()
    for cell_index, cell in enumerate(supernet.cells):
        nodes = search_space.cells(architecture)[supernet.reductions[cell_index]]
        for index, branch_module in enumerate(cell.branches):
            chosen = nodes[index // 2][index % 2]
            for source, operations in enumerate(branch_module.options):
                for op, module in enumerate(operations):
                    on = (source, op) == (chosen.input, chosen.op)
                    for parameter in module.parameters():
                        assert (parameter.grad is not None) == on
        for state, weight in enumerate(cell.combine.slices):
            assert (weight.grad is not None) == (state in unused_states(nodes))


def test_branches_may_be_swapped_in_the_stand_alone_network():
    """Canonical form and equivalents stand for the same network: same weights, same function."""
    search_space = space()
    rng = np.random.default_rng(1)
    images = torch.randn(2, 3, 32, 32)
    for architecture in random_architectures(search_space, 5):
        twin = search_space.equivalent(architecture, rng)
        assert search_space.canonical(twin) == search_space.canonical(architecture)
        assert search_space.cost(twin, CIFAR) == search_space.cost(architecture, CIFAR)
        network = search_space.network(architecture, CIFAR, "search").eval()
        other = search_space.network(twin, CIFAR, "search").eval()
        other.stem.load_state_dict(network.stem.state_dict())
        other.classifier.load_state_dict(network.classifier.state_dict())
        for cell, swapped in zip(network.cells, other.cells, strict=True):
            swapped.calibrate.load_state_dict(cell.calibrate.state_dict())
            swapped.reduce.load_state_dict(cell.reduce.state_dict())
            for index, (node, swapped_node) in enumerate(
                zip(cell.nodes, swapped.nodes, strict=True)
            ):
                order = (0, 1) if node == swapped_node else (1, 0)
                for branch in range(2):
                    source = cell.branches[2 * index + branch]
                    swapped.branches[2 * index + order[branch]].load_state_dict(source.state_dict())
        torch.testing.assert_close(network(images), other(images), rtol=1e-4, atol=1e-5)


def test_the_supernet_computes_the_stand_alone_cell():
    """With one unused state and an identity for the combining convolution, both agree."""
    search_space = space()
    chain = [0, 0, 1, 1, *[x for node in range(1, 5) for x in (node + 1, 0, node, 4)]]
    architecture = search_space.check(Architecture(search_space.name, tuple(chain * 2)))
    assert unused_states(search_space.cells(architecture)[0]) == [6]
    supernet = search_space.supernet(CIFAR).eval()
    network = search_space.network(architecture, CIFAR, "search").eval()
    cell, alone = supernet.cells[0], network.cells[0]
    alone.calibrate.load_state_dict(cell.calibrate.state_dict())
    for index, node in enumerate(alone.nodes):
        for branch in range(2):
            options = cell.branches[2 * index + branch].options
            chosen = options[node[branch].input][node[branch].op]
            alone.branches[2 * index + branch].load_state_dict(chosen.state_dict())
    with torch.no_grad():
        cell.combine.slices[6].copy_(torch.eye(4)[:, :, None, None])
    x = torch.randn(2, 12, 32, 32)
    expected = torch.relu(alone(x, x, network.noise, 1.0)) / np.sqrt(1 + 1e-5)
    actual = cell(x, x, alone.nodes, supernet.noise, 1.0)
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)


def test_architecture_strings_and_files():
    search_space = paper()
    architecture = search_space.read(NAONET_V2)
    assert search_space.read(architecture.to_json()) == architecture
    assert len(search_space.decisions) == 40
    assert "node 1 = identity(node 0) + sep_conv_3x3(cell k-2)" in "\n".join(
        search_space.describe(architecture)
    )


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"space": "nao_cell/middle/5", "choices": [0] * 40}, "belongs to search space"),
        ({"space": "nao_cell/small/5", "choices": [0] * 39}, "40 decisions, this one has 39"),
        ({"space": "nao_cell/small/5", "choices": [2] + [0] * 39}, "out of range"),
        ({"space": "nao_cell/small/5", "choices": [0, -1] + [0] * 38}, "out of range"),
        ({"space": "nao_cell/small/5", "choices": [True] * 40}, "list of integers"),
        ({"space": "nao_cell/small/5", "choices": "0"}, "list of integers"),
        ([1, 2, 3], "an architecture is"),
        ("1 2 x", "list of integers"),
        ("1 2 3", "40 decisions"),
    ],
)
def test_strange_architectures_are_refused(value, message):
    with pytest.raises(UserError, match=message):
        paper().read(value)


@pytest.mark.few(1)
@pytest.mark.parametrize(
    ("operations", "stem", "problem"),
    [
        ("middle", "small", Problem(1, 27, 3)),
        ("large", "small", Problem(3, 11, 4)),
        ("large", "imagenet", Problem(3, 65, 7)),
    ],
)
def test_costs_of_other_operations_and_stems(operations, stem, problem):
    laws = ["costs_are_counted", "no_cost_exceeds_the_bound"]
    check_space(space(operations, stem=stem, search=(2, 4)), problem, only=laws)


def test_images_too_small_are_refused():
    with pytest.raises(UserError, match="too small"):
        space(stem="imagenet").supernet(Problem(3, 63, 10))
