"""PNAS: the cells and their children counted by hand, the beam on additive scores, its space."""

from __future__ import annotations

from itertools import pairwise, product
from typing import Any

import numpy as np
import pytest
import torch
from test_search_algo import Plain, saved, start

from nasrun.config.build import build_setup
from nasrun.config.compose import compose
from nasrun.errors import MissingCapabilityError, UserError
from nasrun.run.monitor import NullMonitor
from nasrun.search_algo.pnas import Pnas
from nasrun.search_algo.pnas.surrogate import Surrogate, SurrogateSettings
from nasrun.search_space.capabilities import GrowingCells, TwoInputNodes
from nasrun.search_space.nao_cell import CellScale, NaoCell
from nasrun.search_space.pnas_cell import PnasCell
from nasrun.streams import Streams
from nasrun.values import Architecture, Cost, Problem, Trial

SCALE = CellScale(layers=1, channels=4)
SURROGATE: dict[str, Any] = {
    "kind": "mlp",
    "members": 2,
    "share": 0.8,
    "embedding": 16,
    "hidden": 16,
    "init_range": 0.1,
    "epochs": 30,
    "batch": 32,
    "lr_first": 0.01,
    "lr": 0.002,
}


class Additive(PnasCell):
    """Cells whose score is the sum of the worths of their branches' operations, divided by ten."""

    WORTH = (0.1, 0.9, 0.4, 0.0, 0.6)

    def __init__(self, blocks: int = 4) -> None:
        super().__init__(operations="small", blocks=blocks, stem="small", search=SCALE, final=SCALE)

    def score(self, cell: Architecture) -> float:
        return sum(self.WORTH[op] for block in self.blocks(cell) for op in block[1::2]) / 10


def space(operations: str = "pnas", blocks: int = 5) -> PnasCell:
    return PnasCell(
        operations=operations,  # type: ignore[arg-type]
        blocks=blocks,
        stem="small",
        search=SCALE,
        final=SCALE,
    )


def pnas(surrogate: dict[str, Any] | None = None, **changes: Any) -> Pnas:
    sizes: dict[str, Any] = {"first": 100, "beam": 10, "blocks": 4, "batch": 50}
    return Pnas(**sizes | changes, surrogate=SurrogateSettings(**SURROGATE | (surrogate or {})))


def levels(search: Any) -> list[list[Architecture]]:
    """What is asked for, by the number of blocks."""
    found: dict[int, list[Architecture]] = {}
    while search.next_round(NullMonitor()):
        while batch := search.ask():
            for cell in batch:
                found.setdefault(len(search.space.blocks(cell)), []).append(cell)
                search.tell([Trial(cell, search.space.score(cell), Cost(1, 1), 0)])
    return [found[count] for count in sorted(found)]


# The space.


def test_the_first_cells_are_the_papers_136() -> None:
    """Two inputs and eight operations make 256 blocks, of which 136 differ (section 5)."""
    cells = list(space().first_cells())
    assert len(cells) == len({space().canonical(cell) for cell in cells}) == 136
    every = {
        space().canonical(space().of_blocks([block]))
        for block in product(range(2), range(8), range(2), range(8))
    }
    assert every == set(cells)


@pytest.mark.parametrize(("blocks", "children"), [(1, 24 * 25 // 2), (2, 32 * 33 // 2)])
def test_children_have_one_block_more(blocks: int, children: int) -> None:
    cell = space().of_blocks([(0, 1, 1, 2), (2, 0, 0, 4)][:blocks])
    grown = list(space().grown(cell))
    assert len({space().canonical(child) for child in grown}) == len(grown) == children
    assert all(space().blocks(child)[:blocks] == space().blocks(cell) for child in grown)
    assert (
        list(space(blocks=blocks).grown(space(blocks=blocks).of_blocks(space().blocks(cell)))) == []
    )


def test_a_cell_has_the_cost_of_the_same_two_cells_of_nao() -> None:
    problem, blocks = Problem(3, 32, 10), [(0, 1, 1, 2), (2, 0, 0, 4), (3, 1, 1, 1)]
    nao = NaoCell(operations="small", nodes=3, stem="small", search=SCALE, final=SCALE)
    genes = tuple(gene for block in blocks for gene in block)
    ours = Additive()
    assert ours.cost(ours.of_blocks(blocks), problem) == nao.cost(
        Architecture(nao.name, genes + genes), problem
    )


def test_blocks_that_a_cell_has_not_are_of_no_effect() -> None:
    ours = space(blocks=3)
    one = Architecture(ours.name, (0, 0, 1, 1, 2, *(1, 3, 0, 0), *(2, 2, 3, 1)))
    assert ours.canonical(one) == ours.of_blocks([(0, 1, 1, 2)])
    assert ours.operations_of(one) == ["sep_conv_5x5", "sep_conv_7x7"]
    with Streams(0).default("init"):
        supernet = ours.supernet(Problem(1, 16, 3)).eval()
    images = torch.rand(2, 1, 16, 16)
    with torch.no_grad():
        assert torch.equal(
            supernet(images, one.choices), supernet(images, ours.canonical(one).choices)
        )


def test_it_grows_and_is_none_of_enas_cells() -> None:
    """ENAS' controller takes its decisions in order, since they are not those of two cells."""
    assert isinstance(space(), GrowingCells) and not isinstance(space(), TwoInputNodes)


# The surrogate.


@pytest.mark.few(1)
@pytest.mark.parametrize("kind", ["mlp", "lstm"])
def test_the_surrogate_learns_what_blocks_are_worth(kind: str) -> None:
    ours, rng = Additive(), np.random.default_rng(0)
    settings = SurrogateSettings(**SURROGATE | {"kind": kind, "epochs": 40})
    surrogate = Surrogate(settings, ours, Streams(0))
    cells = [ours.blocks(cell) for cell in ours.first_cells()]
    scores = [ours.score(ours.of_blocks(cell)) for cell in cells]
    surrogate.fit(1, cells, scores, NullMonitor())
    assert np.corrcoef(surrogate.predict(cells), scores)[0, 1] > 0.9
    larger = [ours.blocks(c) for c in (ours.sample(rng) for _ in range(200)) if c.choices[0] == 1]
    known = [ours.score(ours.of_blocks(cell)) for cell in larger]
    assert np.corrcoef(surrogate.predict(larger), known)[0, 1] > (0.8 if kind == "mlp" else 0.4)


def test_a_cell_is_predicted_alike_in_any_company() -> None:
    ours = Additive()
    surrogate = Surrogate(SurrogateSettings(**SURROGATE), ours, Streams(0))
    cells = [ours.blocks(cell) for cell in ours.first_cells()]
    together = surrogate.predict(cells)
    assert torch.allclose(surrogate.predict(cells[7:8]), together[7:8], atol=1e-6)
    swapped = [[(*block[2:], *block[:2]) for block in cell] for cell in cells]
    assert surrogate.predict(swapped).shape == together.shape


# The search.


def test_the_beam_finds_the_optimum_of_an_additive_score() -> None:
    """The best cell has the best operation in all branches: 4 · 2 · 0.9 / 10."""
    search = start(pnas(), Additive())
    asked = levels(search)
    assert [len(cells) for cells in asked] == [55, 10, 10, 10]
    assert search.best(1)[0].score == pytest.approx(0.72)
    for before, cells in pairwise(asked):
        parents = {search.space.blocks(cell) for cell in before}
        assert all(search.space.blocks(cell)[:-1] in parents for cell in cells)


def test_a_smaller_first_level_is_sampled() -> None:
    asked = levels(start(pnas(first=8, beam=3, blocks=2), Additive()))
    assert [len(cells) for cells in asked] == [8, 3]


def test_the_recipe_scores_the_papers_1160_cells() -> None:
    setup = build_setup(compose(["task=search", "experiment=pnas_cifar10"]))
    assert setup.search_algo.scored_in(0) == 136 + 4 * 256 == 1160


def test_an_interrupted_training_of_the_surrogate_begins_anew() -> None:
    """Within the training the state is that before it."""
    algo = pnas({"epochs": 2}, first=8, beam=3, blocks=2)
    search = start(algo, Additive())
    states: list[Any] = []

    class Watch(NullMonitor):
        def advance(self, steps: int = 1, **metrics: float) -> None:
            states.append(saved(search.state_dict()))

    search.next_round(Watch())
    for cell in search.pool.pending[:]:
        search.tell([Trial(cell, search.space.score(cell), Cost(1, 1), 0)])
    asked = search.ask()
    assert len(states) == 2 * 2
    again = start(algo, Additive())
    again.load_state_dict(states[len(states) // 2])
    assert again.ask() == asked


def test_what_it_needs_of_a_space() -> None:
    with pytest.raises(MissingCapabilityError, match="architectures of plain have one size"):
        pnas().check(Plain(2, 2))
    with pytest.raises(UserError, match=r"search_algo\.blocks=9: cells .* at most 4 blocks"):
        pnas(blocks=9).check(Additive())
