"""darts_cell: published numbers, costs of networks, gates, genotypes, and who keeps to them."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from networks import (
    CIFAR,
    assert_latencies_add_up,
    assert_layers_make_up_networks,
    random_architectures,
)

from nasrun.config.build import build_setup
from nasrun.config.compose import compose
from nasrun.errors import UserError
from nasrun.search_space.darts_cell import DartsCell, DartsScale
from nasrun.search_space.darts_cell.edge import Edge, PartialEdge
from nasrun.search_space.general_cell import GeneralCell
from nasrun.search_space.genotype import read_genotype
from nasrun.search_space.noise import Noise
from nasrun.search_space.partial_channels import shuffled
from nasrun.testing import check_space, count_cost
from nasrun.values import Architecture, Problem

TASKS = [CIFAR, Problem(1, 8, 10), Problem(1, 28, 10), Problem(3, 27, 7)]
SILENT = Noise()
NONE, MAX, AVG, SKIP, SEP3, SEP5, DIL3, DIL5 = range(8)

DARTS_V1 = """DARTS_V1 = Genotype(
  normal=[('sep_conv_3x3', 1), ('sep_conv_3x3', 0), ('skip_connect', 0), ('sep_conv_3x3', 1),
    ('skip_connect', 0), ('sep_conv_3x3', 1), ('sep_conv_3x3', 0), ('skip_connect', 2)],
  normal_concat=[2, 3, 4, 5],
  reduce=[('max_pool_3x3', 0), ('max_pool_3x3', 1), ('skip_connect', 2), ('max_pool_3x3', 0),
    ('max_pool_3x3', 0), ('skip_connect', 2), ('skip_connect', 2), ('avg_pool_3x3', 0)],
  reduce_concat=[2, 3, 4, 5])"""
DARTS_V2 = (
    "Genotype(normal=[('sep_conv_3x3', 0), ('sep_conv_3x3', 1), ('sep_conv_3x3', 0), "
    "('sep_conv_3x3', 1), ('sep_conv_3x3', 1), ('skip_connect', 0), ('skip_connect', 0), "
    "('dil_conv_3x3', 2)], normal_concat=range(2, 6), reduce=[('max_pool_3x3', 0), "
    "('max_pool_3x3', 1), ('skip_connect', 2), ('max_pool_3x3', 1), ('max_pool_3x3', 0), "
    "('skip_connect', 2), ('skip_connect', 2), ('max_pool_3x3', 1)], reduce_concat=range(2, 6))"
)


def space(
    search: tuple[int, int] = (3, 4),
    final: tuple[int, int] = (4, 6),
    *,
    nodes: int = 4,
    stem: str = "small",
    affine: bool = True,
    parts: int = 1,
    **options: Any,
) -> DartsCell:
    """search, final: cells and channels."""
    return DartsCell(
        nodes=nodes,
        stem=stem,
        affine=affine,
        partial_channels=parts,
        search=DartsScale(cells=search[0], channels=search[1]),
        final=DartsScale(cells=final[0], channels=final[1]),
        **options,
    )


SPACE = space()
PUBLISHED = space((8, 16), (20, 36), affine=False)


def any_edges(count: int, of: DartsCell = SPACE) -> list[Architecture]:
    """Architectures with any number of open edges at a node."""
    rows = np.random.default_rng(0).integers(8, size=(count, len(of.decisions)))
    return [Architecture(of.name, tuple(row)) for row in rows.tolist()]


def test_nodes_may_have_fewer_edges():
    """They are counted and written; and their networks are those of general cells."""
    small = space(nodes=1, fewer_edges=True, operations="s2")
    found = {small.check(one) for one in small.every()}
    assert len(found) == small.size == (1 + 2 * 2 + 2 * 2) ** 2
    assert all(small.read(small.write(one)) == one for one in found)
    assert {small.sample(np.random.default_rng(seed)) for seed in range(3000)} == found
    with pytest.raises(UserError, match=r"has 1 open edges; an architecture of .* has 2 at each"):
        space(nodes=1).check(Architecture("darts_cell/1", (1, 0, 1, 1)))
    light = [[0.2, 0.3, 0.1], [0.6, 0.1, 0.3]] * 2  # ``none`` weighs most on the second edge
    assert small.strongest(light).choices == (1, 0, 1, 0)
    assert space(nodes=1, operations="s2").strongest(light).choices == (1, 2, 1, 2)
    assert small.strongest([[1.0, 0.0, 0.0]] * 4).choices == (0, 0, 0, 0)
    loose = space(fewer_edges=True)
    scale = DartsScale(cells=4, channels=6)
    general = GeneralCell(nodes=4, edges=2, stem="small", search=scale, final=scale)
    counts = set()
    for one in random_architectures(loose, 5):
        same = general.read(loose.write(one))
        assert loose.cost(one, CIFAR, "final") == general.cost(same, CIFAR, "final")
        assert loose.repair(one, np.random.default_rng(0)) == one
        counts |= {
            len(node) for cell in read_genotype(loose.write(one)).cells for node in cell.nodes
        }
    assert counts == {0, 1, 2}


@pytest.mark.parametrize(("text", "params"), [(DARTS_V1, 3_169_414), (DARTS_V2, 3_349_342)])
def test_the_published_cells_have_the_published_parameters(text, params):
    architecture = PUBLISHED.parse(text)
    assert PUBLISHED.cost(architecture, CIFAR, "final").params == params


def test_the_second_published_cell_also_as_built():
    network = PUBLISHED.network(PUBLISHED.parse(DARTS_V2), CIFAR, "final", auxiliary=True)
    main_part = [p.numel() for name, p in network.named_parameters() if "auxiliary" not in name]
    assert sum(main_part) == 3_349_342
    assert network.auxiliary_index == 13
    assert [index for index, reduces in enumerate(network.reductions) if reduces] == [6, 13]


def test_the_supernet_and_the_imagenet_network_have_the_published_sizes():
    """The first as NASLib has it for DARTS' own, the second as rounded in the paper."""
    supernet = PUBLISHED.supernet(CIFAR)
    assert sum(p.numel() for p in supernet.parameters()) == 1_930_618
    large = space(final=(14, 48), stem="imagenet")
    cost = large.cost(large.parse(DARTS_V2), Problem(3, 224, 1000), "final")
    assert round(cost.params / 1e6, 1) == 4.7


@pytest.mark.few(1)
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("training", [False, True])
def test_a_path_of_the_supernet_is_the_stand_alone_network(affine, training):
    """But for the norms behind the pools, which the supernet alone has."""
    torch.manual_seed(0)
    supernet = space(affine=affine).supernet(CIFAR).train(training)
    norms = 0
    for module in supernet.modules():
        if isinstance(module, Edge):
            for pool in (MAX, AVG):
                norms += isinstance(module.options[str(pool)][1], torch.nn.BatchNorm2d)
                module.options[str(pool)][1] = torch.nn.Identity()
    assert norms == 2 * 14 * 3
    images = torch.randn(2, 3, 32, 32)
    for architecture in [*random_architectures(SPACE, 5), *any_edges(2)]:
        network = SPACE.network(architecture, CIFAR, "search").train(training)
        own, shared = network.state_dict(), supernet.state_dict()
        network.load_state_dict({name: shared.get(name, own[name]) for name in own})
        assert torch.equal(network(images), supernet(images, architecture.choices))


def test_without_affine_no_norm_of_a_cell_has_weights():
    supernet = PUBLISHED.supernet(CIFAR)
    assert not any(p.dim() == 1 for p in supernet.cells.parameters())
    assert sum(p.dim() == 1 for p in supernet.stem.parameters()) == 2


def test_soft_gates_with_all_weight_on_one_option_are_the_path():
    torch.manual_seed(0)
    for parts in (1, 2):
        supernet = space(parts=parts).supernet(CIFAR).eval()
        images = torch.randn(2, 3, 32, 32)
        for architecture in random_architectures(SPACE, 3):
            path = architecture.choices
            expected = supernet(images, path)
            assert torch.equal(supernet(images, [{choice: 1.0} for choice in path]), expected)
            each = [{choice: torch.ones(2, 1, 1, 1)} for choice in path]
            assert torch.equal(supernet(images, each), expected)
            zeros = [
                {option: torch.tensor(float(option == choice)) for option in range(8)}
                for choice in path
            ]
            if parts == 1:  # of a closed edge all else is open here, times 0
                torch.testing.assert_close(supernet(images, zeros), expected)


def test_none_adds_nothing_and_is_not_computed():
    torch.manual_seed(0)
    supernet = SPACE.supernet(CIFAR).eval()
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(
        supernet(images, [{NONE: 0.7, SEP3: 1.0}] * 28), supernet(images, [SEP3] * 28)
    )
    nothing = supernet(images, [NONE] * 28)
    assert torch.equal(nothing, supernet(images, [{NONE: 1.0}] * 28))
    assert torch.equal(nothing, supernet.classifier.bias.expand(2, -1))
    assert all("0" not in m.options for m in supernet.modules() if isinstance(m, Edge))


def test_only_open_edges_run_in_all_cells_of_their_kind():
    """Each opens one more: 5 cells, of which two are reductions."""
    supernet = space((5, 4)).supernet(CIFAR)
    ran: Counter[str] = Counter()
    for name, module in supernet.named_modules():
        if ".options." in name and name.count(".") == 5:
            module.register_forward_hook(lambda *_, name=name: ran.update([name]))
    choices = [NONE] * 28
    choices[3], choices[14 + 8] = DIL5, MAX
    supernet(torch.randn(2, 3, 32, 32), choices)
    assert supernet.reductions == [False, True, False, True, False]
    assert ran == Counter(
        [f"cells.{i}.edges.3.options.7" for i in (0, 2, 4)]
        + [f"cells.{i}.edges.8.options.1" for i in (1, 3)]
    )


def test_weights_of_gates_learn():
    """Their gradient is the slope of the loss."""
    torch.manual_seed(0)
    supernet = space((3, 2)).supernet(Problem(3, 8, 4)).double().eval()
    images = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    alphas = torch.randn(28, 8, dtype=torch.float64, requires_grad=True)

    def loss(logits: torch.Tensor) -> torch.Tensor:
        gates = [dict(enumerate(row.unbind())) for row in logits.softmax(-1)]
        return F.cross_entropy(supernet(images, gates), torch.tensor([1, 2]))

    (gradient,) = torch.autograd.grad(loss(alphas), alphas)
    assert gradient.isfinite().all() and (gradient != 0).all()
    for edge, option in ((0, SEP3), (13, NONE), (14, SKIP), (27, AVG)):
        step = torch.zeros_like(alphas)
        step[edge, option] = 1e-5
        with torch.no_grad():
            slope = (loss(alphas + step) - loss(alphas - step)) / 2e-5
        torch.testing.assert_close(gradient[edge, option], slope, rtol=1e-4, atol=1e-9)


def test_the_operations_by_hand():
    x = torch.randn(4, 2, 9, 9)
    dilated = Edge(2, 2, [DIL3], norm_pools=False).train()
    (_, depthwise, pointwise, norm) = dilated.options[str(DIL3)]
    z = F.conv2d(x.relu(), depthwise.weight, stride=2, padding=2, dilation=2, groups=2)
    z = F.batch_norm(F.conv2d(z, pointwise.weight), None, None, training=True)
    torch.testing.assert_close(dilated(x, DIL3, SILENT), z)
    assert z.shape == (4, 2, 5, 5) and isinstance(norm, torch.nn.BatchNorm2d)
    pooling = Edge(2, 1, [AVG], norm_pools=True).train()
    mean = F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
    expected = F.batch_norm(mean, None, None, training=True)
    torch.testing.assert_close(pooling(x, AVG, SILENT), expected)
    assert torch.equal(Edge(2, 1, [SKIP], norm_pools=True)(x, SKIP, SILENT), x)
    halved = Edge(2, 2, [SKIP], norm_pools=True).train()
    # The ReLU comes first: of what is negative only the norm's shift is left.
    assert torch.equal(halved(-x.abs(), SKIP, SILENT), torch.zeros(4, 2, 5, 5))


def test_drop_path_spares_plain_skips_and_is_alike_in_all_cells():
    noise = Noise()
    noise.begin_step(
        torch.Generator().manual_seed(0), progress=1.0, drop_path_keep=0.5, dropout_keep=1.0
    )
    x = torch.ones(2000, 1, 2, 2)
    assert torch.equal(Edge(1, 1, [SKIP], norm_pools=False)(x, SKIP, noise), x)
    dropped = Edge(1, 1, [MAX], norm_pools=False)(x, MAX, noise).flatten(1)
    assert set(dropped.unique().tolist()) == {0.0, 2.0}
    assert 0.45 < (dropped[:, 0] == 0).float().mean() < 0.55


def test_partial_channels_by_hand():
    """C = 4, K = 2: the first two channels are skipped through, the others go round."""
    x = torch.randn(3, 4, 6, 6)
    edge = PartialEdge(4, 1, range(8), divisor=2).eval()
    assert shuffled(torch.arange(6.0).view(1, 6, 1, 1), 2).flatten().tolist() == [0, 3, 1, 4, 2, 5]
    assert torch.equal(edge(x, SKIP, SILENT), x[:, [0, 2, 1, 3]])
    assert edge(x, NONE, SILENT) is None and edge(x, {NONE: 0.3}, SILENT) is None
    gate = {NONE: 0.2, SKIP: torch.tensor(0.3), MAX: 0.1}
    pooled = edge.options[str(MAX)](x[:, :2])
    mixed = 0.3 * x[:, :2] + 0.1 * pooled
    expected = torch.cat([mixed, 0.6 * x[:, 2:]], dim=1)[:, [0, 2, 1, 3]]
    torch.testing.assert_close(edge(x, gate, SILENT), expected)
    strided = PartialEdge(4, 2, range(8), divisor=2).eval()
    out = strided(x, DIL3, SILENT)
    assert torch.equal(out[:, 1::2], F.max_pool2d(x[:, 2:], 2)) and out.shape == (3, 4, 3, 3)


@pytest.mark.few(1)
@pytest.mark.parametrize("size", [8, 9])
def test_a_supernet_of_partial_channels_is_smaller_and_learns(size):
    whole, part = space((3, 8)), space((3, 8), parts=4)
    problem = Problem(3, size, 4)
    sizes = [sum(p.numel() for p in s.supernet(problem).cells.parameters()) for s in (whole, part)]
    assert sizes[1] < sizes[0] / 2
    gates = [{option: torch.rand(()).requires_grad_() for option in range(8)} for _ in range(28)]
    part.supernet(problem)(torch.randn(4, 3, size, size), gates).square().sum().backward()
    assert all(weight.grad is not None for gate in gates for weight in gate.values())
    architecture = random_architectures(part, 1)[0]
    assert part.cost(architecture, problem) == whole.cost(architecture, problem)


def test_auxiliary_heads():
    large = space(stem="imagenet")
    problem = Problem(3, 224, 10)
    network = large.network(large.parse(DARTS_V2), problem, "search", auxiliary=True)
    norms = [m for m in network.auxiliary.features if isinstance(m, torch.nn.BatchNorm2d)]
    assert len(norms) == 1
    network(torch.randn(2, 3, 224, 224))
    assert network.auxiliary_logits.shape == (2, 10)


def test_what_cannot_be_is_refused():
    with pytest.raises(UserError, match=r"at least 32×32 with search_space.stem=imagenet"):
        space(stem="imagenet").supernet(Problem(3, 28, 10))
    with pytest.raises(UserError, match=r"partial_channels=3 does not divide .*channels=4"):
        space(parts=3)
    for setting in ("nodes=0", "search.cells=2", "partial_channels=0", "stem=large"):
        with pytest.raises(UserError, match=setting.partition("=")[0].rpartition(".")[2]):
            build_setup(
                compose(["task=search", "search_space=darts_cell", f"search_space.{setting}"])
            )


def test_layers_make_up_the_network():
    assert_layers_make_up_networks(SPACE, TASKS[:3])
    assert_layers_make_up_networks(space(stem="imagenet"), [Problem(3, 48, 10)])
    assert_latencies_add_up(SPACE)


@pytest.mark.parametrize("problem", [CIFAR, Problem(3, 27, 7)])
def test_costs_of_any_edges_are_those_of_the_built_network(problem):
    for architecture, scale in zip(any_edges(2), ("search", "final"), strict=True):
        cost = SPACE.cost(architecture, problem, scale)
        assert cost == count_cost(SPACE.network(architecture, problem, scale), problem)


@pytest.mark.soak
def test_laws_with_fewer_edges():
    check_space(space(fewer_edges=True), Problem(1, 9, 3), samples=1)


@pytest.mark.soak
def test_laws_with_the_imagenet_stem_and_with_partial_channels():
    laws = ["costs_are_counted", "a_path_is_its_network", "small_images_are_refused"]
    check_space(space((3, 4), (5, 6), stem="imagenet"), Problem(3, 37, 20), only=laws)
    # Not mixtures_are_sums: beside a mixture that has none, the other channels go through.
    gates = ["gates_are_those_of_the_claims", "only_the_path_is_trained", "logits_are_finite"]
    check_space(space(parts=2), Problem(1, 9, 3), only=gates)
