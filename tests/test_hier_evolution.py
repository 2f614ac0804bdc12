"""Hierarchical evolution and its space: motifs and widths by hand, tournaments, mutations."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from test_evolution import Planted, flat, started
from test_search_algo import Cell, start

from nasrun.errors import UserError
from nasrun.search_algo.hierarchical_evolution import HierarchicalEvolution, sample_place
from nasrun.search_algo.random_search import RandomSearch
from nasrun.search_space.hier_cell import HierCell, HierScale
from nasrun.search_space.hier_cell.motifs import assemble, edges_of, live_edges
from nasrun.search_space.hier_cell.network import PRIMITIVES
from nasrun.streams import Streams
from nasrun.values import Architecture, Problem

CONV, DEPTHWISE, SEPARABLE, MAX, AVG, SAME = range(1, 7)
PROBLEM = Problem(3, 8, 10)


def space(
    motifs: int = 6, motif_nodes: int = 4, cell_nodes: int = 5, channels: int = 4
) -> HierCell:
    scale = HierScale(cells=1, channels=channels)
    return HierCell(
        motifs=motifs, motif_nodes=motif_nodes, cell_nodes=cell_nodes, search=scale, final=scale
    )


def evolution(**changes: Any) -> HierarchicalEvolution:
    sizes: dict[str, Any] = {"population": 20, "initial_mutations": 10, "evaluations": 100}
    return HierarchicalEvolution(**sizes | {"tournament": 0.05} | changes)


# Motifs.


def test_the_papers_space_has_46_edges() -> None:
    """Six motifs of four nodes with six edges each, and ten edges of the cell (section 4.1)."""
    ours = space()
    assert len(ours.decisions) == 6 * 6 + 10 == 46
    assert {len(decision.options) for decision in ours.decisions} == {7}
    assert edges_of(4) == [(0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3)]


def test_a_motif_of_letters_by_hand() -> None:
    """Node 2 reads nothing that has a value, so the edge from it is none."""

    def words(*options: int) -> str | None:
        return assemble(options, 4, "x", lambda edge, op, value: f"{'abc'[op]}({value})", "+".join)

    assert words(1, 0, 2, 0, 0, 3) == "c(b(a(x)))"  # a chain
    assert words(1, 0, 0, 2, 3, 1) == "b(x)+c(a(x))"
    assert words(0, 0, 1, 0, 0, 2) is None
    assert live_edges((1, 0, 0, 2, 3, 1), 4) == [0, 3, 4]


def test_widths_grow_and_are_brought_back_by_hand() -> None:
    """A motif: identity and convolution side by side, C + C; the cell has it twice in a row."""
    ours = space(motifs=1, motif_nodes=2, cell_nodes=3)
    chain = ours.genotype((SAME, 1, 1, 1))  # edges 0-1, 0-2 and 1-2 of the cell
    assert sorted(chain.primitives(4, 4)) == [(edge, 0, "identity", 4) for edge in range(3)]
    assert chain.width(4, 4, lambda *_: None) == 8
    wide = space(motifs=1, motif_nodes=3, cell_nodes=3).genotype((SAME, CONV, SAME, 1, 0, 1))
    # Node 1: C. Output: convolution of the input (C) beside node 1 (C): 2C; then C + 2C.
    assert wide.width(4, 4, lambda *_: None) == 12
    assert sorted(wide.primitives(4, 4)) == [
        (0, 0, "identity", 4),
        (0, 1, "conv_1x1", 4),
        (0, 2, "identity", 4),
        (2, 0, "identity", 8),
        (2, 1, "conv_1x1", 8),
        (2, 2, "identity", 8),
    ]


def test_the_trivial_architecture_changes_nothing() -> None:
    ours = space()
    trivial = ours.check(ours.trivial)
    assert set(ours.operations_of(trivial)) == {"identity"}
    with Streams(0).default("init"):
        network = ours.network(trivial, PROBLEM, "search").eval()
    x = torch.rand(2, 4, 8, 8)
    assert torch.equal(network.cells[0](x, network.genotype), x)
    # Stem 3·9·4 + 8, transitions 4 → 8 → 16, linear 16 → 10, batch norms.
    by_hand = (108 + 8) + (36 + 32 + 16) + (72 + 128 + 32) + 170
    assert (
        sum(p.numel() for p in network.parameters())
        == by_hand
        == ours.cost(trivial, PROBLEM).params
    )


def test_a_path_of_the_supernet_computes_its_network() -> None:
    """With the first channels of its weights, by the names of the primitives."""
    ours, rng = space(motifs=2, motif_nodes=3, cell_nodes=3), np.random.default_rng(3)
    with Streams(0).default("init"):
        supernet = ours.supernet(PROBLEM).eval()
        for norm in supernet.modules():
            if isinstance(norm, torch.nn.BatchNorm2d):
                torch.nn.init.uniform_(norm.running_var, 0.5, 1.5)
    images = torch.rand(2, 3, 8, 8)
    for _ in range(8):
        one = ours.sample(rng)
        network = ours.network(one, PROBLEM, "search").eval()
        weights = supernet.state_dict()
        own = {
            name: weights[name][tuple(slice(0, size) for size in value.shape)]
            for name, value in network.state_dict().items()
        }
        network.load_state_dict(own)
        assert torch.allclose(supernet(images, one.choices), network(images), atol=1e-5)


def test_equal_networks_have_one_form() -> None:
    ours = space(motifs=2, motif_nodes=3, cell_nodes=3)
    # Motif 1 is not used, and edge 0-1 of motif 0 leads nowhere; nor does 0-1 of the cell.
    one = Architecture(ours.name, (CONV, MAX, 0, AVG, AVG, AVG, 1, 1, 0))
    assert ours.canonical(one).choices == (0, MAX, 0, 0, 0, 0, 0, 1, 0)
    assert ours.operations_of(one) == ["max_pool_3x3"]
    nothing = Architecture(ours.name, (CONV, 0, 0, 0, 0, 0, 1, 1, 1))
    assert not any(ours.canonical(nothing).choices)
    assert ours.graphs(nothing, PROBLEM)["cell"].edges == [(0, 1, "zeros")]
    assert ours.describe(nothing) == ["cell: nothing"]
    with Streams(0).default("init"):
        logits = ours.network(nothing, PROBLEM, "search").eval()(torch.rand(2, 3, 8, 8))
    assert torch.equal(logits[0], logits[1])  # a cell of zeros


def test_mutations_choose_a_level_then_a_motif_then_a_node_then_an_edge() -> None:
    ours, rng, count = space(), np.random.default_rng(0), 6000
    found = Counter(sample_place(ours.places, rng) for _ in range(count))
    assert sorted(found) == list(range(46))
    inner = {(s, t): 1 / 2 / 6 / 3 / t for s, t in edges_of(4)}
    outer = {(s, t): 1 / 2 / 4 / t for s, t in edges_of(5)}
    expected = [*inner.values()] * 6 + [*outer.values()]
    assert sum(expected) == pytest.approx(1)
    seen = [found[place] for place in range(46)]
    assert stats.chisquare(seen, np.array(expected) * count).pvalue > 1e-3


def test_many_mutations_make_all_edges_random() -> None:
    search = start(evolution(population=12, initial_mutations=1000), space())
    search.begin_round()
    options = np.array([one.choices for one in search.pool.pending])
    assert stats.chisquare(np.bincount(options.ravel(), minlength=7)).pvalue > 1e-3
    trivial, rng = space().trivial, np.random.default_rng(0)
    once = [search.child(trivial, rng).choices for _ in range(50)]
    changed = [sum(a != b for a, b in zip(one, trivial.choices, strict=True)) for one in once]
    assert set(changed) == {0, 1}


# The search.


def test_the_parent_is_the_best_of_a_share_and_nobody_dies(monkeypatch: pytest.MonkeyPatch) -> None:
    space, sizes = Planted(0), []
    search = started(evolution(population=40, tournament=0.1, evaluations=60), space)

    class Rng:
        def __init__(self, rng: np.random.Generator) -> None:
            self.rng = rng

        def choice(self, count: int, size: int, replace: bool) -> Any:
            assert not replace
            sizes.append((count, size))
            return self.rng.choice(count, size, replace=replace)

        def __getattr__(self, name: str) -> Any:
            return getattr(self.rng, name)

    original = type(search).parent
    monkeypatch.setattr(type(search), "parent", lambda self, rng: original(self, Rng(rng)))
    assert len(flat(search)) == 60
    assert sizes[0] == (40, 4) and sizes[-1][0] == 59 and sizes[-1][1] == 6


def test_a_tournament_of_all_breeds_from_the_best_alone() -> None:
    search = started(evolution(population=10, tournament=1.0, evaluations=40), Planted(1))
    best: Architecture | None = None
    for one in flat(search)[:10]:
        if best is None or Planted(1).score(one) > Planted(1).score(best):
            best = one
    child = flat(started(evolution(population=10, tournament=1.0, evaluations=11), Planted(1)))[-1]
    assert best is not None
    assert sum(a != b for a, b in zip(child.choices, best.choices, strict=True)) == 1


def test_it_finds_more_than_random_search() -> None:
    wins = 0
    for seed in range(6):
        space = Planted(seed)
        ours = started(evolution(evaluations=150, tournament=0.2), space, seed)
        theirs = started(RandomSearch(evaluations=300, batch=300), space, seed)
        assert len(flat(ours)) == 150  # half as many
        flat(theirs)
        wins += ours.best(1)[0].score > theirs.best(1)[0].score
    assert stats.binomtest(wins, 6, alternative="greater").pvalue < 0.05


def test_nothing_is_scored_twice() -> None:
    asked = flat(start(evolution(), Cell()))
    assert len({Cell().canonical(one) for one in asked}) == len(asked) == 100


def test_a_population_larger_than_the_search_is_refused() -> None:
    with pytest.raises(
        UserError, match=r"population=101 is more than search_algo\.evaluations=100"
    ):
        evolution(population=101)


def test_the_primitives_are_the_papers() -> None:
    assert len(PRIMITIVES) == 6
