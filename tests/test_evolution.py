"""Variation, the evolution of SPOS and NSGA-II, on planted scores and costs."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from test_search_algo import Cell, Plain, canonical_pool, saved, start

from nasrun.budget.candidates import Bounds, Candidates
from nasrun.errors import UserError
from nasrun.run.monitor import NullMonitor
from nasrun.search_algo.evolution import Evolution, EvolutionSearch
from nasrun.search_algo.nsga2 import Nsga2, crowding, pareto_ranks
from nasrun.search_algo.random_search import RandomSearch
from nasrun.search_algo.variation import cross, mutate
from nasrun.search_space.base import SearchSpace
from nasrun.streams import Streams
from nasrun.values import Architecture, Cost, Decision, Trial

CPU = torch.device("cpu")
SIZES: dict[str, Any] = {
    "population": 10,
    "generations": 6,
    "mutations": 5,
    "crossovers": 4,
    "batch": 3,
} | {
    "probability": 0.2,
    "tries": 10,
}


class Planted(SearchSpace):
    """Twelve decisions of four options; each option has a worth and a price, by chance."""

    name = "planted"
    gate_kinds = frozenset({"path"})
    decisions = tuple(Decision(f"d{i}", tuple("abcd")) for i in range(12))
    additive = tuple((i,) for i in range(12))
    supernet = network = cost = cost_bound = None  # type: ignore[assignment]

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.worths, self.prices = rng.random((12, 4)), rng.random((12, 4))
        self.prices += self.worths  # what is good is dear

    def score(self, architecture: Architecture) -> float:
        return float(self.worths[np.arange(12), list(architecture.choices)].sum()) / 12

    def price(self, architecture: Architecture) -> float:
        return float(self.prices[np.arange(12), list(architecture.choices)].sum())


def evolution(**changes: Any) -> Evolution:
    return Evolution(**SIZES | {"top": 4} | changes)


def nsga2(**changes: Any) -> Nsga2:
    return Nsga2(**SIZES | {"goals": ["macs"]} | changes)


def started(algo: Any, space: Planted, seed: int = 0, high: float = np.inf) -> Any:
    bounds = [Bounds("macs", -np.inf, high)] if np.isfinite(high) else []
    return algo.bind(Candidates(space, bounds, {"macs": space.price}), Streams(seed), CPU)


def told(space: Any, architectures: Sequence[Architecture]) -> list[Trial]:
    return [Trial(a, space.score(a), Cost(1, 1), 0) for a in architectures]


def finish(algo: Any) -> list[list[Architecture]]:
    """What is left of the search: all that it asks for, a batch each."""
    batches = []
    while algo.next_round(NullMonitor()):
        while batch := algo.ask():
            batches.append(batch)
            for trial in told(algo.pool.space, batch):
                algo.tell([trial])
    return batches


def flat(algo: Any) -> list[Architecture]:
    return [architecture for batch in finish(algo) for architecture in batch]


# Variation.


@pytest.mark.parametrize("probability", [0.1, 0.5, 1.0])
def test_each_decision_is_drawn_anew_with_that_probability(probability: float) -> None:
    options = (2, 3, 7, 1)
    decisions = [Decision(f"d{i}", tuple(map(str, range(n)))) for i, n in enumerate(options)]
    parent, rng = Architecture("x", (1, 0, 5, 0)), np.random.default_rng(4)
    count = 6000
    children = np.array([mutate(parent, decisions, probability, rng).choices for _ in range(count)])
    for index, number in enumerate(options):
        expected = np.full(number, probability / number)
        expected[parent.choices[index]] += 1 - probability
        found = np.bincount(children[:, index], minlength=number)
        assert len(found) == number
        if number > 1:
            assert stats.chisquare(found, expected * count).pvalue > 1e-3
    # Independently of each other.
    changed = children != parent.choices
    both = (changed[:, 1] & changed[:, 2]).mean()
    assert both == pytest.approx(changed[:, 1].mean() * changed[:, 2].mean(), abs=0.03)


def test_genes_come_from_either_parent_alike() -> None:
    first, second = Architecture("x", (0,) * 6 + (4,)), Architecture("x", (1,) * 6 + (4,))
    rng, count = np.random.default_rng(0), 4000
    children = np.array([cross(first, second, rng).choices for _ in range(count)])
    assert (children[:, 6] == 4).all()
    for gene in children[:, :6].T:
        assert set(gene) == {0, 1}
        assert stats.binomtest(int(gene.sum()), count).pvalue > 1e-3
    pairs = np.bincount(children[:, 0] * 2 + children[:, 1], minlength=4)
    assert stats.chisquare(pairs).pvalue > 1e-3
    assert cross(first, first, rng) == first


def test_other_spaces_are_not_crossed() -> None:
    rng = np.random.default_rng(0)
    for other in (Architecture("y", (1, 1)), Architecture("x", (1, 1, 1))):
        with pytest.raises(UserError, match="an architecture of x cannot be crossed with one of"):
            cross(Architecture("x", (0, 0)), other, rng)


# What evolution and NSGA-II have in common.

BOTH = pytest.mark.parametrize("make", [evolution, nsga2])


def start_toy(make: Any, space: Any, seed: int = 0, **changes: Any) -> Any:
    measures = {"macs": lambda a: float(sum(a.choices))}
    return make(**changes).bind(Candidates(space, (), measures), Streams(seed), CPU)


@BOTH
@pytest.mark.parametrize("batch", [1, 3, 10, 999])
def test_every_generation_is_scored_and_nothing_twice(make: Any, batch: int) -> None:
    algo = start_toy(make, Cell(), batch=batch)
    round_ = algo.next_round(NullMonitor())
    assert (round_.index, round_.pool, round_.evaluations) == (0, None, 60)
    batches = finish(algo)
    sizes = [len(b) for b in batches]
    assert sizes == {1: [1] * 10, 3: [3, 3, 3, 1], 10: [10], 999: [10]}[batch] * 6
    forms = canonical_pool(algo)
    assert len(set(forms)) == len(forms) == 60
    assert [a for b in batches for a in b] == list(algo.pool.trials)


@BOTH
def test_the_batch_changes_nothing(make: Any) -> None:
    asked = [flat(start_toy(make, Cell(), batch=n)) for n in (1, 4, 100)]
    assert asked[0] == asked[1] == asked[2]


@BOTH
@pytest.mark.parametrize("generation", [-1, 7, 1.5, True, None, "2"])
def test_a_state_of_no_search_is_refused(make: Any, generation: Any) -> None:
    algo = start_toy(make, Cell())
    finish(algo)
    state = saved(algo.state_dict()) | {"generation": generation}
    with pytest.raises(ValueError, match="is no number from 0 to 6"):
        start_toy(make, Cell()).load_state_dict(state)


def test_children_come_from_parents() -> None:
    # Without mutations and random ones all genes of a child are those of parents.
    space = Planted(0)
    algo = started(evolution(mutations=0, crossovers=10, tries=1000), space)
    asked = flat(algo)
    best = sorted(asked[:10], key=space.score, reverse=True)[:4]
    genes = [set(column) for column in zip(*(a.choices for a in best), strict=True)]
    for child in asked[10:20]:
        assert all(gene in known for gene, known in zip(child.choices, genes, strict=True))


@pytest.mark.parametrize("tries", [1, 10])
def test_what_brings_nothing_new_is_filled_up_with_random_ones(tries: int) -> None:
    # All children of one parent by crossover are the parent.
    algo = start(evolution(top=1, mutations=0, crossovers=10, tries=tries), Plain(6, 5))
    assert len(flat(algo)) == 60


# Evolution.


def test_parents_are_the_best_of_all_that_were_visited(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    parents = EvolutionSearch.parents

    def watched(self: EvolutionSearch, rng: np.random.Generator) -> Sequence[Trial]:
        found = parents(self, rng)
        scores = sorted((self.pool.space.score(a) for a in self.pool.trials), reverse=True)
        seen.append(([t.score for t in found], scores[: self.algo.top], len(scores)))
        return found

    monkeypatch.setattr(EvolutionSearch, "parents", watched)
    finish(start(evolution(), Cell()))
    assert [count for *_, count in seen] == [10, 20, 30, 40, 50]
    assert all(found == expected and len(found) == 4 for found, expected, _ in seen)
    worst = [found[-1] for found, *_ in seen]
    assert all(a <= b for a, b in pairwise(worst))


def test_of_equal_scores_the_higher_tie_break_is_better() -> None:
    """Also in a search that is taken up from its state as JSON."""
    algo = start(evolution(), Cell())
    algo.next_round(NullMonitor())
    while batch := algo.pool.ask(1):
        rank = len(algo.pool.trials) - len(algo.pool.pending)
        good = rank % 3 == 1
        algo.tell([Trial(batch[0], 0.5 + 0.25 * good, Cost(1, 1), 0, {}, rank / 100)])
    again = start(evolution(), Cell())
    again.load_state_dict(saved(algo.state_dict()))
    found = list(algo.pool.trials)
    expected = [found[i] for i in (7, 4, 1, 9, 8, 6, 5, 3, 2, 0)]
    for search in (algo, again):
        rng = np.random.default_rng(0)
        assert [trial.architecture for trial in search.parents(rng)] == expected[:4]
        assert [trial.architecture for trial in search.best(10)] == expected


def test_evolution_finds_more_than_random_search() -> None:
    sizes = {"population": 20, "generations": 15, "top": 6, "mutations": 10, "crossovers": 10}
    wins, optima = 0, 0
    for seed in range(20):
        space = Planted(seed)
        ours = started(evolution(**sizes, batch=20, probability=0.1), space, seed)
        theirs = started(RandomSearch(evaluations=600, batch=600), space, seed)
        asked = flat(ours)
        finish(theirs)
        assert len(asked) == 300  # half as many
        wins += ours.best(1)[0].score > theirs.best(1)[0].score
        optimum = space.worths.max(axis=1).sum() / 12
        optima += ours.best(1)[0].score > 0.97 * optimum
    assert stats.binomtest(wins, 20, alternative="greater").pvalue < 1e-3
    assert optima >= 15


# NSGA-II.


def test_crowding_by_hand() -> None:
    inf = np.inf
    # Spans 4 and 10: (3 - 0) / 4 + (10 - 4) / 10, (4 - 1) / 4 + (7 - 0) / 10.
    front = np.array([[0.0, 10.0], [1.0, 7.0], [3.0, 4.0], [4.0, 0.0]])
    expected = np.array([inf, 3 / 4 + 6 / 10, 3 / 4 + 7 / 10, inf])
    assert crowding(front) == pytest.approx(expected)
    order = [2, 0, 3, 1]
    assert crowding(front[order]) == pytest.approx(expected[order])
    assert crowding(front * [1, 1000]) == pytest.approx(expected)
    assert crowding(front[:1]).tolist() == [inf]
    assert crowding(front[:2]).tolist() == [inf, inf]
    # Three goals, of which one has no span.
    assert crowding(np.column_stack([front, np.ones(4)]))[1:3] == pytest.approx(expected[1:3])


def dominates(a: Sequence[float], b: Sequence[float]) -> bool:
    """a is nowhere greater and somewhere less."""
    return all(x <= y for x, y in zip(a, b, strict=True)) and tuple(a) != tuple(b)


@pytest.mark.parametrize("goals", [["macs"], ["macs", "params"]])
@pytest.mark.parametrize("seed", range(3))
def test_the_front_is_what_nothing_dominates(seed: int, goals: list[Any]) -> None:
    # Few values: many architectures are alike in all goals.
    space = Cell()
    measures = {
        "macs": lambda a: float(a.choices[1] + a.choices[3]),
        "params": lambda a: float(a.choices[0] % 2),
    }
    algo = nsga2(goals=goals).bind(Candidates(space, (), measures), Streams(seed), CPU)
    assert algo.next_round(NullMonitor())
    while batch := algo.ask():
        algo.tell([Trial(a, round(space.score(a)), Cost(1, 1), 0) for a in batch])

    def values(trial: Trial) -> list[float]:
        return [-trial.score, *(measures[goal](trial.architecture) for goal in goals)]

    trials = algo.best(99)
    assert len(trials) == 60
    expected = [t for t in trials if not any(dominates(values(o), values(t)) for o in trials)]
    front = algo.front()
    assert set(front) == set(expected)
    assert len({tuple(values(t)) for t in front}) < len(front)
    assert [t.score for t in front] == sorted((t.score for t in front), reverse=True)
    for trial in front:
        assert [-trial.score, *algo.costs(trial).values()] == values(trial)
    # Parents: every one of a better front before any of a worse one.
    parents = algo.parents(np.random.default_rng(0))
    assert len(parents) == 10
    assert len(set(parents)) == 10
    layers, left = [], list(trials)
    while left:
        layer = [t for t in left if not any(dominates(values(o), values(t)) for o in left)]
        layers.append(layer)
        left = [t for t in left if t not in layer]
    depth = {t: i for i, layer in enumerate(layers) for t in layer}
    taken = [depth[t] for t in parents]
    assert taken == sorted(depth.values())[:10]


def test_the_better_of_two_is_chosen() -> None:
    algo = start_toy(nsga2, Plain(3, 4))
    parents = told(Plain(3, 4), [Architecture("plain", (i, 0, 0)) for i in range(4)])
    rng = np.random.default_rng(0)
    drawn = [algo.choose_parent(parents, rng).choices[0] for _ in range(4000)]
    # P(the smaller of two draws is i) = (2 (4 - i) - 1) / 16.
    expected = np.array([7, 5, 3, 1]) / 16 * 4000
    assert stats.chisquare(np.bincount(drawn, minlength=4), expected).pvalue > 1e-3


def hypervolume(points: list[list[float]], reference: list[float]) -> float:
    """The area that points of two goals, both to be lowered, dominate up to a reference."""
    area, ceiling = 0.0, reference[1]
    for first, second in sorted(points):
        if first < reference[0] and second < ceiling:
            area += (reference[0] - first) * (ceiling - second)
            ceiling = second
    return area


@pytest.mark.parametrize("goals", [1, 2, 3])
def test_ranks_are_the_layers_of_fronts(goals: int) -> None:
    rng = np.random.default_rng(goals)
    for count in (1, 2, 7, 30):
        points = rng.integers(0, 5, size=(count, goals)).astype(float)  # with many ties
        left, layers = set(range(count)), []
        while left:
            beaten = {
                i
                for i in left
                for j in left
                if (points[j] <= points[i]).all() and (points[j] < points[i]).any()
            }
            layers.append(left - beaten)
            left = beaten
        expected = [next(r for r, layer in enumerate(layers) if i in layer) for i in range(count)]
        assert pareto_ranks(points).tolist() == expected


def test_nsga2_beats_random_search() -> None:
    wins = 0
    for seed in range(12):
        space = Planted(seed)
        sizes = {"population": 20, "generations": 12, "mutations": 10, "crossovers": 10}
        ours = started(nsga2(**sizes, batch=20, probability=0.1), space, seed)
        theirs = started(RandomSearch(evaluations=240, batch=240), space, seed)
        reference = [0.0, float(space.prices.max(axis=1).sum())]
        volumes = []
        for algo in (ours, theirs):
            assert len(flat(algo)) == 240
            points = [[-t.score, space.price(t.architecture)] for t in algo.best(240)]
            volumes.append(hypervolume(points, reference))
        front = [[-t.score, space.price(t.architecture)] for t in ours.front()]
        assert hypervolume(front, reference) == pytest.approx(volumes[0])
        wins += volumes[0] > volumes[1]
    assert wins >= 11


def test_other_algorithms_have_no_front() -> None:
    algo = start(evolution(), Cell())
    finish(algo)
    assert algo.front() is None
    assert algo.costs(algo.best(1)[0]) == {}
