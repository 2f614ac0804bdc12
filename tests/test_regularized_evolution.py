"""Regularised evolution: who is parent, who dies, what counts; planted scores and a real table."""

from __future__ import annotations

import inspect
from collections import deque
from typing import Any

import numpy as np
import pytest
from helpers import space_of
from networks import ONE_NETWORK, search_spaces
from scipy import stats
from tables import NB201, rows
from test_evolution import Planted, flat, started, told
from test_nas_bench_201 import space as nb201
from test_search_algo import Cell, Plain, canonical_pool, conf, saved, start

from nasrun.config.build import build
from nasrun.errors import UserError
from nasrun.run.monitor import NullMonitor
from nasrun.search_algo import counted
from nasrun.search_algo.random_search import RandomSearch
from nasrun.search_algo.regularized_evolution import AgingSearch, RegularizedEvolution
from nasrun.search_algo.variation import change_one
from nasrun.search_space.base import SearchSpace
from nasrun.values import Architecture, Cost, Decision, Trial

SIZES: dict[str, Any] = {"population": 8, "tournament": 3, "identity": 0.05, "evaluations": 60}


def aging(**changes: Any) -> RegularizedEvolution:
    return RegularizedEvolution(**SIZES | changes)


def differences(a: Architecture, b: Architecture) -> int:
    return sum(x != y for x, y in zip(a.choices, b.choices, strict=True))


# Mutation.


def test_exactly_one_decision_changes_and_each_alike() -> None:
    options = (2, 3, 7, 1)
    decisions = [Decision(f"d{i}", tuple(map(str, range(n)))) for i, n in enumerate(options)]
    parent, rng, count = Architecture("x", (1, 0, 5, 0)), np.random.default_rng(0), 6000
    children = [change_one(parent, decisions, lambda _: True, rng) for _ in range(count)]
    assert {differences(parent, child) for child in children} == {1}
    changed = np.array([child.choices for child in children]) != parent.choices
    assert changed[:, 3].sum() == 0  # it has no other option
    assert stats.chisquare(changed[:, :3].sum(0)).pvalue > 1e-3
    third = [child.choices[2] for child in children if child.choices[2] != 5]
    found = np.bincount(third, minlength=7)
    assert found[5] == 0
    assert stats.chisquare(found[[0, 1, 2, 3, 4, 6]]).pvalue > 1e-3


def test_what_the_budget_forbids_is_passed_over() -> None:
    decisions = [Decision(f"d{i}", tuple("abc")) for i in range(3)]
    parent, rng = Architecture("x", (0, 0, 0)), np.random.default_rng(0)
    only = Architecture("x", (0, 2, 0))
    assert {change_one(parent, decisions, lambda a: a == only, rng) for _ in range(50)} == {only}
    assert change_one(parent, decisions, lambda _: False, rng) == parent
    assert change_one(parent, [], lambda _: True, rng) == parent


# Whole searches.


@pytest.mark.parametrize("seed", range(3))
def test_by_the_book(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every child differs from a member by one decision; the oldest member goes, not the worst."""
    algo, space = started(aging(identity=0.2), Planted(0), seed), Planted(0)
    queue: deque[Architecture] = deque()
    bred: list[int] = []
    original = AgingSearch.child

    def watched(self: AgingSearch, parent: Architecture, rng: np.random.Generator) -> Architecture:
        assert list(self.members) == list(queue)
        child = original(self, parent, rng)
        nearest = min(differences(child, member) for member in queue)
        assert nearest <= 1
        queue.append(child)
        queue.popleft()
        bred.append(nearest)
        return child

    monkeypatch.setattr(AgingSearch, "child", watched)
    assert algo.next_round(NullMonitor())
    first = algo.ask()
    queue.extend(first)
    algo.tell(told(space, first))
    flat(algo)
    assert len(algo.pool.trials) == 60
    assert bred.count(0) > 2  # identities, which are not scored again
    assert len(bred) - bred.count(0) >= 52


def test_the_best_member_dies_of_age() -> None:
    space = Planted(1)
    algo = started(aging(population=4, tournament=1, identity=0.0), space)
    flat(algo)
    best = algo.best(1)[0]
    scores = [space.score(member) for member in algo.members]
    assert len(algo.members) == 4
    assert best.score > max(scores)  # a random walk has left its best point behind
    assert algo.pool.trials[best.architecture] == best  # but it is not forgotten


def test_the_parent_is_the_best_of_those_drawn() -> None:
    """By hand: of the members with scores 3, 1, 2, 4 (per cent), places 1 and 2 are drawn."""

    class Drawn:
        def integers(self, high: int, size: int) -> Any:
            assert (high, size) == (4, 2)
            return np.array([1, 2])

        def random(self) -> float:
            return 0.04  # below the probability of an identity: the child is the parent

    algo = start(aging(population=4, tournament=2), Plain(1, 5))
    assert algo.next_round(NullMonitor())
    members = [Architecture("plain", (choice,)) for choice in (3, 1, 2, 4)]
    algo.add({member: member for member in members})
    algo.tell(told(Plain(1, 5), members))
    drawn: Any = Drawn()
    parent = algo.parent(drawn)
    assert parent == algo.child(parent, drawn) == members[2]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("identity", [0.0, 0.05, 0.5])
def test_nothing_is_scored_twice(seed: int, identity: float) -> None:
    algo = start(aging(identity=identity), Cell(), seed)
    asked = flat(algo)
    forms = canonical_pool(algo)
    assert len(asked) == len(forms) == len(set(forms)) == 60
    assert len(algo.members) == 8
    for member in algo.members:
        assert algo._rank_key(member)[0] == pytest.approx(Cell().score(member))


def test_longer_searches_and_random_ones_begin_with_the_same() -> None:
    one = flat(start(aging(), Cell()))
    # More evaluations begin with the same.
    assert flat(start(aging(evaluations=90), Cell()))[:60] == one
    # The first ones are those of random search with the same seed.
    drawn = flat(start(RandomSearch(evaluations=8, batch=3), Cell()))
    assert one[:8] == drawn


def test_a_space_of_one() -> None:
    algo = start(aging(), Plain(3, 1))
    assert len(flat(algo)) == 1


def test_a_budget_with_islands_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of three architectures within the budget none is one change from another."""
    monkeypatch.setattr(counted, "MAX_FRUITLESS_SAMPLES", 1000)
    space = Plain(6, 5)
    islands = [Architecture("plain", (i,) * 6) for i in (0, 2, 4)]
    algo = start(aging(population=3, evaluations=9), space)
    algo.pool.candidates.allows = islands.__contains__
    algo.pool.sample = lambda rng, count, found: found.update({a: a for a in islands})
    assert sorted(flat(algo), key=lambda a: a.choices) == islands
    assert algo.next_round(NullMonitor()) is None


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("cycles", -1, "is no number"),
        ("cycles", 1.5, "is no number"),
        ("members", [{"space": "toy", "choices": [0] * 8}] * 9, "9 members of a population of 8"),
        ("members", [{"space": "toy", "choices": [9] * 8}], "out of range"),
        ("members", [{"space": "other", "choices": [0] * 8}], "belongs to search space"),
    ],
)
def test_a_state_of_no_search_is_refused(key: str, value: Any, said: str) -> None:
    algo = start(aging(), Cell())
    flat(algo)
    state = saved(algo.state_dict()) | {key: value}
    with pytest.raises((ValueError, UserError), match=said):
        start(aging(), Cell()).load_state_dict(state)


def test_a_member_without_a_score_is_refused() -> None:
    algo = start(aging(evaluations=9), Cell())
    flat(algo)
    state = saved(algo.state_dict())
    unseen = next(a for a in Cell().every() if Cell().canonical(a) not in algo.known)
    with pytest.raises(ValueError, match="has no score"):
        start(aging(), Cell()).load_state_dict(state | {"members": [unseen.to_json()]})


@pytest.mark.few(2)
@pytest.mark.parametrize("name", [n for n in search_spaces() if n not in ONE_NETWORK])
def test_every_space_is_searched(name: str) -> None:
    """All that is asked for is of the space, and of different networks."""
    space = space_of(name)
    search = start(aging(evaluations=30), space)
    forms = set()
    while search.next_round(NullMonitor()):
        while batch := search.ask():
            for one in batch:
                forms.add(space.canonical(space.check(one)))
                search.tell([Trial(one, sum(one.choices) / 1000, Cost(1, 1), 0)])
    assert len(forms) == 30


# Configuration.


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"population": 0}, r"search_algo\.population = 0"),
        ({"tournament": 0}, r"search_algo\.tournament = 0"),
        ({"tournament": 11}, r"tournament=11 is more than search_algo\.population=10"),
        ({"population": 61}, r"population=61 is more than search_algo\.evaluations=60"),
        ({"identity": 1.0}, r"search_algo\.identity = 1\.0"),
        ({"identity": -0.1}, r"search_algo\.identity = -0\.1"),
    ],
)
def test_bad_input(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        build(conf("regularized_evolution.yaml") | changes, "search_algo")


def test_the_yaml_has_nats_benchs_sizes() -> None:
    node = conf("regularized_evolution.yaml")
    assert node.keys() == {"_target_", *inspect.signature(RegularizedEvolution).parameters}
    algo = build(node, "search_algo")
    assert type(algo) is RegularizedEvolution
    assert (algo.population, algo.tournament, algo.identity) == (10, 3, 0.05)


# Known answers.


def test_it_finds_more_than_random_search() -> None:
    wins = 0
    for seed in range(20):
        space = Planted(seed)
        ours = started(aging(population=20, tournament=6, evaluations=300), space, seed)
        theirs = started(RandomSearch(evaluations=600, batch=600), space, seed)
        assert len(flat(ours)) == 300  # half as many
        flat(theirs)
        wins += ours.best(1)[0].score > theirs.best(1)[0].score
    assert stats.binomtest(wins, 20, alternative="greater").pvalue < 1e-3


class Published(SearchSpace):
    """The cells of NAS-Bench-201 with their published accuracies."""

    name = "nas_bench_201"
    gate_kinds = frozenset({"path"})
    supernet = network = cost = cost_bound = None  # type: ignore[assignment]

    def __init__(self) -> None:
        space = nb201()
        self.accuracy = {space.parse(row["ops"]): float(row["c10_test_200"]) for row in rows(NB201)}
        self.top = sorted(self.accuracy.values())[-len(self.accuracy) // 100]
        self.canonical = space.canonical  # type: ignore[method-assign]
        self.decisions = space.decisions  # type: ignore[misc]

    def score(self, architecture: Architecture) -> float:
        return self.accuracy[architecture]


@pytest.mark.soak
def test_a_cell_of_the_top_one_per_cent_of_nas_bench_201() -> None:
    """Over 100 seeds the median is 32 queries and the most 111; random search needs 100 on
    average."""
    space, needed = Published(), []
    for seed in range(20):
        scores = list(
            map(space.score, flat(start(aging(population=10, evaluations=120), space, seed)))
        )
        needed.append(next(n for n, score in enumerate(scores, 1) if score >= space.top))
    assert np.median(needed) <= 40
    assert max(needed) <= 120
