"""Samplers: their laws, by counting."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from helpers import space_of
from scipy.stats import chisquare

from nasrun.cli.main import main
from nasrun.config.compose import compose
from nasrun.config.unused import refuse_unused_sampler
from nasrun.errors import UserError
from nasrun.sampler.fair import Fair
from nasrun.sampler.proportional import Proportional
from nasrun.sampler.sandwich import Sandwich
from nasrun.sampler.size_bins import SizeBins
from nasrun.sampler.uniform import Uniform
from nasrun.search_space.nao_cell import CellScale, NaoCell
from nasrun.streams import Streams
from nasrun.values import Architecture, Cost, Problem

TASK = Problem(3, 16, 10)


def space(nodes: int = 5) -> NaoCell:
    scale = CellScale(layers=1, channels=8)
    return NaoCell(operations="small", nodes=nodes, stem="small", search=scale, final=scale)


def p_value(observed, expected) -> float:
    expected = np.asarray(expected, dtype=float)
    return float(chisquare(observed, expected * sum(observed) / expected.sum()).pvalue)


@pytest.mark.few(2)
@pytest.mark.parametrize("size", ["params", "macs"])
@pytest.mark.parametrize("exponent", [0.0, 1.0, 2.5, -1.0])
def test_a_pool_is_sampled_in_proportion_to_size(size, exponent):
    search_space = space()
    rng = np.random.default_rng(0)
    pool = [search_space.sample(rng) for _ in range(25)]
    gates = Proportional(size=size, exponent=exponent).bind(
        search_space, TASK, pool, Streams(1), steps=100
    )
    counts = Counter(gates(step)[0] for step in range(20_000))
    weights = [getattr(search_space.cost(a, TASK), size) ** exponent for a in pool]
    assert p_value([counts[a.choices] for a in pool], weights) > 1e-3


def every_architecture(search_space: NaoCell) -> list[Architecture]:
    sizes = [len(decision.options) for decision in search_space.decisions]
    return [Architecture(search_space.name, choices) for choices in np.ndindex(*sizes)]


@pytest.mark.soak
@pytest.mark.parametrize("size", ["params", "macs"])
def test_a_whole_space_is_sampled_in_proportion_to_size(size):
    """All 10,000 architectures of one node: draws fall into ten size classes as Eq. 3 says."""
    search_space = space(nodes=1)
    everything = every_architecture(search_space)
    assert len(everything) == 10_000
    weight = {a.choices: getattr(search_space.cost(a, TASK), size) for a in everything}
    edges = np.quantile(list(weight.values()), np.linspace(0, 1, 11)[1:-1])
    gates = Proportional(size=size, exponent=1.0).bind(
        search_space, TASK, None, Streams(0), steps=100
    )
    draws = [weight[gates(step)[0]] for step in range(20_000)]
    observed = np.bincount(np.searchsorted(edges, draws), minlength=10)
    classes = np.searchsorted(edges, list(weight.values()))
    expected = np.bincount(classes, weights=list(weight.values()), minlength=10)
    occupied = expected > 0
    assert p_value(observed[occupied], expected[occupied]) > 1e-3
    assert p_value(observed[occupied], np.bincount(classes, minlength=10)[occupied]) < 1e-3


def test_small_networks_of_a_whole_space_are_favoured_exactly():
    """With exponent -1: counts fall into classes of size as 1 / size says."""
    macro = space_of("nas_bench_macro")
    weight = {a.choices: 1 / macro.cost(a, TASK).macs for a in macro.every()}
    edges = np.quantile(list(weight.values()), np.linspace(0, 1, 11)[1:-1])
    gates = Proportional(size="macs", exponent=-1.0).bind(macro, TASK, None, Streams(0), steps=1)
    sampled = np.searchsorted(edges, [weight[gates(step)[0]] for step in range(3000)])
    classes = np.searchsorted(edges, list(weight.values()))
    expected = np.bincount(classes, weights=list(weight.values()), minlength=10)
    observed = np.bincount(sampled, minlength=10)
    assert p_value(observed, expected) > 1e-3
    assert p_value(observed, np.bincount(classes, minlength=10)) < 1e-6


@pytest.mark.parametrize(
    ("name", "exponent", "said"),
    [
        ("nao_cell", -1.0, "sampler.exponent=-1: the smallest macs of nao_cell.* are not known"),
        ("nas_bench_macro", -8.0, "sampler.exponent=-8: architectures as small as are favoured"),
    ],
)
def test_small_networks_of_a_whole_space_that_cannot_be_sampled(name, exponent, said):
    search_space = space_of(name)
    sampler = Proportional(size="macs", exponent=exponent)
    with pytest.raises(UserError, match=said):
        sampler.bind(search_space, TASK, None, Streams(0), steps=1)
    pool = [search_space.sample(np.random.default_rng(0)) for _ in range(3)]
    gates = sampler.bind(search_space, TASK, pool, Streams(0), steps=1)
    assert gates(0)[0] in {architecture.choices for architecture in pool}


def test_uniform_sampling_is_uniform_over_pool_and_space():
    search_space = space(nodes=1)
    rng = np.random.default_rng(0)
    pool = [search_space.sample(rng) for _ in range(20)]
    gates = Uniform().bind(search_space, TASK, pool, Streams(0), steps=100)
    counts = Counter(gates(step)[0] for step in range(10_000))
    assert p_value([counts[a.choices] for a in pool], np.ones(20)) > 1e-3
    gates = Uniform().bind(search_space, TASK, None, Streams(0), steps=100)
    firsts = Counter(gates(step)[0][1] for step in range(10_000))
    assert p_value([firsts[op] for op in range(5)], np.ones(5)) > 1e-3


@pytest.mark.parametrize("sampler", [Uniform(), Proportional(size="params", exponent=1.0)])
def test_samples_are_named_by_seed_and_step(sampler):
    search_space = space()
    gates = sampler.bind(search_space, TASK, None, Streams(3), steps=100)
    again = sampler.bind(search_space, TASK, None, Streams(3), steps=100)
    other = sampler.bind(search_space, TASK, None, Streams(4), steps=100)
    assert gates(7000) == again(7000)  # whatever was drawn before
    assert [gates(step) for step in range(20)] != [other(step) for step in range(20)]


# Rules that set several paths a step.


class Table(NaoCell):
    """nao_cell with sizes by a formula, so that the extremes are known."""

    def cost(self, architecture, problem, scale="search"):
        total = sum((i + 1) * choice for i, choice in enumerate(architecture.choices))
        return Cost(total + 1, 2 * total + 1)


def table() -> Table:
    scale = CellScale(layers=1, channels=8)
    return Table(operations="small", nodes=2, stem="small", search=scale, final=scale)


def test_fair_trains_every_option_once_where_the_counts_are_equal():
    search_space = space()
    gates = Fair().bind(search_space, TASK, None, Streams(0), steps=100)
    most = max(len(decision.options) for decision in search_space.decisions)
    for step in range(50):
        paths = gates(step)
        assert len(paths) == most
        for index, decision in enumerate(search_space.decisions):
            counts = Counter(path[index] for path in paths)
            assert set(counts) == set(range(len(decision.options)))
            assert max(counts.values()) - min(counts.values()) <= 1
            if len(decision.options) == most:
                assert set(counts.values()) == {1}
    assert gates(3) == gates(3) != gates(4)


def test_fair_draws_every_path_alike():
    search_space = space(nodes=2)
    gates = Fair().bind(search_space, TASK, None, Streams(0), steps=100)
    decision = len(search_space.decisions) - 1
    pairs = Counter((path[1], path[decision]) for step in range(4000) for path in gates(step))
    shape = [len(search_space.decisions[i].options) for i in (1, decision)]
    counts = np.array([[pairs[a, b] for b in range(shape[1])] for a in range(shape[0])])
    assert (counts > 0).all()
    rows = counts.sum(1, keepdims=True) * counts.sum(0, keepdims=True) / counts.sum()
    assert np.abs(counts / rows - 1).max() < 0.08  # the decisions are independent


def test_fair_and_a_pool_are_refused():
    with pytest.raises(UserError, match="whole search space"):
        pool = [space().sample(np.random.default_rng(0))]
        Fair().bind(space(), TASK, pool, Streams(0), steps=100)


def test_the_sandwich_has_the_known_extremes():
    search_space = table()
    gates = Sandwich(random=2, size="params").bind(search_space, TASK, None, Streams(0), steps=100)
    largest = tuple(len(decision.options) - 1 for decision in search_space.decisions)
    for step in range(5):
        paths = gates(step)
        assert paths[0] == largest and paths[1] == (0,) * len(largest) and len(paths) == 4
    assert gates(0)[2:] == gates(0)[2:] != gates(1)[2:]


@pytest.mark.parametrize("size", ["params", "macs"])
def test_the_extremes_of_a_real_space_bound_random_architectures(size):
    search_space, rng = space(), np.random.default_rng(1)
    smallest, largest = search_space.extremes(search_space.sizer(size, TASK), Streams(0))
    sizes = [getattr(search_space.cost(search_space.sample(rng), TASK), size) for _ in range(500)]
    assert getattr(search_space.cost(smallest, TASK), size) <= min(sizes)
    assert getattr(search_space.cost(largest, TASK), size) >= max(sizes)


def test_the_sandwich_of_a_pool():
    search_space, rng = table(), np.random.default_rng(0)
    pool = [search_space.sample(rng) for _ in range(9)]
    sizes = [search_space.cost(architecture, TASK).macs for architecture in pool]
    gates = Sandwich(random=1, size="macs").bind(search_space, TASK, pool, Streams(0), steps=100)
    members = {architecture.choices for architecture in pool}
    for step in range(20):
        paths = gates(step)
        assert paths[0] == pool[int(np.argmax(sizes))].choices
        assert paths[1] == pool[int(np.argmin(sizes))].choices
        assert set(paths) <= members


def test_bins_of_size_are_drawn_alike():
    search_space = table()
    sampler = SizeBins(size="macs", bins=5, low=200, high=600)
    gates = sampler.bind(search_space, TASK, None, Streams(0), steps=100)
    sizes = [
        search_space.cost(Architecture(search_space.name, tuple(gates(step)[0])), TASK).macs
        for step in range(5000)
    ]
    counts, _ = np.histogram(sizes, bins=np.linspace(200, 600, 6))
    assert sum(counts) == 5000 and p_value(counts, np.ones(5)) > 1e-3


def test_bins_without_bounds_cover_the_sizes_and_an_empty_range_is_refused():
    search_space, rng = table(), np.random.default_rng(0)
    pool = [search_space.sample(rng) for _ in range(9)]
    members = {architecture.choices for architecture in pool}
    gates = SizeBins(size="params", bins=3, low=None, high=None).bind(
        search_space, TASK, pool, Streams(0), steps=100
    )
    assert {gates(step)[0] for step in range(300)} <= members
    with pytest.raises(UserError, match=r"no architecture of nao_cell.* between 1e\+06 and"):
        SizeBins(size="macs", bins=3, low=1e6, high=2e6).bind(
            search_space, TASK, None, Streams(0), steps=100
        )
    with pytest.raises(UserError, match="must be below"):
        SizeBins(size="macs", bins=3, low=2, high=1)


@pytest.mark.parametrize(
    "words",
    [("search_algo=enas", "sampler=fair"), ("experiment=dso_full_cifar10", "sampler.size=macs")],
)
def test_a_sampler_beside_gates_that_are_learned_is_refused(words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["search", *words]) == 2
    assert "sampler has no part in it; leave it out" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_sampler_that_a_recipe_names_for_others_is_no_mistake():
    recipe = ["experiment=shootout_nao_cell", "search_algo=enas"]
    for words, task in (
        (recipe, "search"),
        (["search_algo=random", "sampler=fair"], "search"),
        (["search_algo=enas", "sampler=fair"], "rank"),
    ):
        refuse_unused_sampler(compose([f"task={task}", *words]), words)
