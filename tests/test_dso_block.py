"""DSO-NAS' space: known counts, liveness, blocks by hand, and widths within a budget."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from networks import CIFAR, counted, random_architectures

from nasrun.errors import UserError
from nasrun.search_space.dso_block import DsoBlock, FinalScale, SearchScale
from nasrun.search_space.dso_block.wiring import INPUT, OPERATION_NAMES, Edges, open_edges, wire
from nasrun.testing import check_space
from nasrun.values import Architecture, Problem

IMAGENET = Problem(3, 224, 1000)


def space(**changed: object) -> DsoBlock:
    final = {"channels": 10, "step": 1, "params": None, "macs": None}
    final |= changed.pop("final", {})  # type: ignore[arg-type]
    settings = {
        "share": True,
        "levels": 4,
        "blocks": [2, 1, 1],
        "stem": "small",
        "density": 0.3,
        "search": SearchScale(channels=changed.pop("channels", 6)),
        "final": FinalScale(**final),
    }
    return DsoBlock(**{**settings, **changed})


def architecture(space: DsoBlock, *opened: str) -> Architecture:
    names = [decision.name for decision in space.decisions]
    for name in opened:
        assert name in names, name
    return Architecture(space.name, tuple(int(name in opened) for name in names))


def test_the_papers_counts():
    assert Edges(4).count == 124
    cifar = {"blocks": [8, 8, 8], "channels": 48}
    assert len(space(**cifar).decisions) == 124 + 4
    assert len(space(**cifar, share=False).decisions) == 24 * 124 + 4
    cost = space(**cifar).cost_bound(CIFAR)
    assert 9.85e6 < cost.params < 10.05e6  # "about 9.9 M"
    supernet = space(**cifar).supernet(CIFAR)
    learned = sum(p.numel() for p in supernet.parameters() if p.requires_grad)
    widths = 48 + 96 + 192
    # A scale for each channel of: operations and output of the blocks, shortcuts of the first of
    # each stage, the four operations of the reductions, stem, head.
    fixed = 8 * (16 + 1) * widths + widths + 2 * (96 + 192) + 48 + 192
    assert learned == cost.params - fixed
    assert cost.params - 8 * 16 * widths == 9_987_994


def test_each_decision_has_a_name_of_its_own_that_tells_its_edge():
    for complete in (space(), space(share=False)):
        names = [decision.name for decision in complete.decisions]
        assert len(set(names)) == len(names)
    names = [decision.name for decision in space().decisions]
    assert names[0] == "block/level2.sep_conv_3x3/input"
    assert names[1] == "block/level2.sep_conv_3x3/level1.sep_conv_3x3"
    assert names[108] == "block/output/level1.sep_conv_3x3"
    assert names[-4:] == [f"reduction{r}/conv_{k}x{k}" for r in (1, 2) for k in (1, 3)]
    # What path dropout takes for one group: 5, 9 and 13 inputs, and 16 outputs.
    groups = [name.rpartition("/")[0] for name in names]
    sizes = [groups.count(group) for group in dict.fromkeys(groups)]
    assert sizes == [5] * 4 + [9] * 4 + [13] * 4 + [16, 2, 2]


def brute_force(opened: list[int], edges: Edges) -> set[int]:
    """The operations on any way from the input to the output, by walking."""
    after: dict[int, set[int]] = {index: set() for index in (INPUT, *edges.operations)}
    for index in edges.operations:
        if index < len(OPERATION_NAMES):
            after[INPUT].add(index)
        sources = [INPUT, *range(index // len(OPERATION_NAMES) * len(OPERATION_NAMES))]
        for source, decision in zip(sources, edges.inputs(index), strict=False):
            if opened[decision]:
                after[source].add(index)
    good: set[int] = set()

    def walk(way: list[int]) -> None:
        if way[-1] != INPUT and opened[edges.output(way[-1])]:
            good.update(way[1:])
        for index in after[way[-1]]:
            walk([*way, index])

    walk([INPUT])
    return good


def test_what_is_alive_is_what_lies_on_a_way_from_input_to_output():
    edges, rng = Edges(3), np.random.default_rng(0)
    seen = set()
    for density in (0.05, 0.1, 0.2, 0.4) * 20:
        opened = (rng.random(edges.count) < density).astype(int).tolist()
        wiring = wire(opened, edges)
        alive = {node.index for node in wiring.nodes}
        assert alive == brute_force(opened, edges)
        assert wire(open_edges(wiring, edges), edges) == wiring
        seen.add(len(alive))
    assert len(seen) > 6


def hand(space: DsoBlock, problem: Problem) -> torch.nn.Module:
    found = architecture(
        space,
        "block/level2.max_pool_3x3/input",
        "block/level2.max_pool_3x3/level1.sep_conv_3x3",
        "block/output/level2.max_pool_3x3",
        "block/level2.avg_pool_3x3/input",  # leads nowhere
        "block/level3.sep_conv_5x5/level2.sep_conv_5x5",  # comes from nowhere
        "block/output/level3.sep_conv_5x5",
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return space.network(found, problem, "search").eval()


def test_a_block_by_hand():
    one = space(blocks=[2])
    network = hand(one, CIFAR)
    assert sorted(network.blocks[1].operations) == ["0", "6"]
    x = torch.randn(2, 6, 8, 8)
    first, block = network.blocks
    sep, pool = block.operations["0"], block.operations["6"]
    out = block.outputs["6"](pool(x + sep(x)))
    expected = torch.relu(block.norm(out)) + x
    weights = [1.0 if choice else None for choice in network.choices]
    wiring = wire([choice == 1 for choice in network.choices], one.edges)
    assert torch.equal(block(x, wiring, weights, network.noise, 1.0), expected)
    # The first block of a stage has a convolution in its shortcut.
    assert isinstance(block.shortcut, torch.nn.Identity) and len(first.shortcut) == 3


def test_weights_count_where_they_stand_and_shut_edges_cost_nothing():
    one = space(blocks=[1], levels=2)
    supernet = one.supernet(CIFAR).eval()
    x = torch.randn(2, 3, 32, 32)
    gates: list = [0] * len(one.decisions)
    names = [decision.name for decision in one.decisions]
    for name in ("block/output/level1.sep_conv_5x5", "block/output/level1.avg_pool_3x3"):
        gates[names.index(name)] = {1: torch.tensor(0.5)}
    calls: list[str] = []
    for index, operation in supernet.blocks[0].operations.items():
        operation.register_forward_hook(lambda *_, index=index: calls.append(index))
    stem = supernet.stem(x)
    block = supernet.blocks[0]
    out = sum(0.5 * block.outputs[i](block.operations[i](stem)) for i in ("1", "3"))
    features = torch.relu(block.norm(out)) + block.shortcut(stem)
    expected = supernet.classifier(supernet.head(features).mean((2, 3)))
    calls.clear()
    assert torch.allclose(supernet(x, gates), expected, atol=1e-6)
    assert calls == ["1", "3"]


@pytest.mark.parametrize("share", [True, False])
def test_a_pruned_network_computes_what_the_whole_one_did_with_zeros(share):
    """Edges that lead nowhere have weight 0 too: then all is computed, and adds nothing.

    (A reduction that is left without operations would be another thing.)
    """
    one = space(share=share, density=0.25)
    drawn = one.sample(np.random.default_rng(3)).choices
    found = Architecture(one.name, (*drawn[:-4], 1, 0, 0, 1))
    kept = one.canonical(found).choices
    assert sum(kept) < sum(found.choices)
    values = torch.rand(len(kept)) * torch.tensor(kept)
    supernet = one.supernet(CIFAR).eval()
    x = torch.randn(2, 3, 32, 32)
    zeros = supernet(x, [{1: value} for value in values])
    pruned = supernet(x, [{1: v} if on else 0 for v, on in zip(values, kept, strict=True)])
    assert torch.allclose(zeros, pruned, atol=1e-5) and zeros.std() > 0


def test_nothing_left_is_the_shortcuts_and_every_second_pixel():
    one = space()
    empty = Architecture(one.name, (0,) * len(one.decisions))
    network = one.network(empty, CIFAR, "search")
    assert network(torch.randn(2, 3, 32, 32)).shape == (2, 10)
    assert counted(network, CIFAR) == (one.cost(empty, CIFAR).params, one.cost(empty, CIFAR).macs)
    assert "output of the shortcut alone" in one.describe(empty)


@pytest.mark.few(3)
@pytest.mark.parametrize("limit", [{"params": 20e3}, {"macs": 3e6}, {"params": 50e3, "macs": 3e6}])
@pytest.mark.parametrize("step", [1, 4])
def test_the_width_lands_within_one_step_below_the_budget(limit, step):
    one = space(final={**limit, "step": step})
    for found in random_architectures(one, 5):
        channels = one.channels(found, CIFAR, "final")
        cost = one.cost(found, CIFAR, "final")
        assert channels % step == 0
        assert all(getattr(cost, name) <= most for name, most in limit.items())
        wider = space(final={"channels": channels + step}).cost(found, CIFAR, "final")
        assert any(getattr(wider, name) > most for name, most in limit.items())
        network = one.network(found, CIFAR, "final")
        assert counted(network, CIFAR) == (cost.params, cost.macs)


def test_a_budget_below_the_narrowest_network_is_refused():
    one = space(final={"params": 100.0, "step": 4})
    with pytest.raises(UserError, match="not even one of 4 channels, of at most 100 params: this"):
        one.cost(random_architectures(one, 1)[0], CIFAR, "final")


@pytest.mark.parametrize("share", [True, False])
def test_what_is_no_architecture_is_refused(share):
    one = space(share=share)
    found = random_architectures(one, 1)[0]
    for text in ("", "ff", one.write(found) + "-0", "g" + one.write(found)[1:], "0" * 35):
        with pytest.raises(UserError, match="is no architecture of dso_block"):
            one.parse(text)
    with pytest.raises(UserError, match="'f' opens edges that do not exist"):
        one.parse(one.write(found)[:-1] + "f")


def test_an_auxiliary_head_without_a_reduction_is_refused():
    with pytest.raises(UserError, match="with a single stage it has none"):
        space(blocks=[3]).supernet(CIFAR, auxiliary=True)


def test_every_block_is_a_graph_and_costs_something():
    one = space(share=False)
    found = random_architectures(one, 1)[0]
    graphs, costs = one.graphs(found, CIFAR), one.block_costs(found, CIFAR)
    assert (
        list(graphs)
        == list(costs)
        == [*("stage1.block1", "stage1.block2", "stage2.block1", "stage3.block1")]
    )
    rest = one.cost(found, CIFAR).macs - sum(cost.macs for cost in costs.values())
    empty = Architecture(one.name, (0,) * len(one.decisions))
    shortcuts = sum(cost.macs for cost in one.block_costs(empty, CIFAR).values())
    assert rest > 0 and one.cost(empty, CIFAR).macs > shortcuts


@pytest.mark.few(1)
@pytest.mark.parametrize("share", [True, False])
def test_laws_with_the_imagenet_stem_and_blocks_of_their_own(share):
    laws = ["costs_are_counted", "a_path_is_its_network", "only_the_path_is_trained"]
    laws += ["canonical_forms_are_one_network", "words_and_graphs_fit"]
    one = space(share=share, stem="imagenet", density=0.2)
    check_space(one, Problem(3, 64, 7), samples=1, only=laws)
