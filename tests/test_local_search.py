"""Local search: climbs end at local optima, all is found in the end; planted scores, a table."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import stats
from test_evolution import Planted, flat, started
from test_regularized_evolution import Published
from test_search_algo import Cell, Plain, start

from nasrun.errors import UserError
from nasrun.search_algo.local_search import Climb, LocalSearch
from nasrun.search_algo.random_search import RandomSearch
from nasrun.values import Architecture


class Rugged(Plain):
    """Decisions of three options, with scores by chance: many local optima."""

    def __init__(self, seed: int) -> None:
        super().__init__(6, 3)
        self.scores = np.random.default_rng(seed).random((3,) * 6)

    def score(self, architecture: Architecture) -> float:
        return float(self.scores[architecture.choices])

    def neighbours(self, of: Architecture) -> list[Architecture]:
        """By hand: all that differ in one decision."""
        return [
            Architecture(self.name, (*of.choices[:i], option, *of.choices[i + 1 :]))
            for i in range(6)
            for option in range(3)
            if option != of.choices[i]
        ]


def local(**changes: Any) -> LocalSearch:
    sizes = {"evaluations": 300, "starts": 4, "whole_neighbourhood": False}
    return LocalSearch(**sizes | {"at_optimum": "restart"} | changes)


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("at_optimum", ["restart", "next_best"])
def test_a_climb_ends_where_no_neighbour_is_better(
    whole: bool, at_optimum: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An exhaustive look at the neighbours of the first place that is left without a better one."""
    space = Rugged(0)
    ended: list[Architecture] = []
    name = "begin" if at_optimum == "restart" else "_leave"
    original = getattr(Climb, name)

    def watched(self: Climb) -> None:
        if self.here is not None:
            ended.append(self.here)
        original(self)

    monkeypatch.setattr(Climb, name, watched)
    flat(start(local(whole_neighbourhood=whole, at_optimum=at_optimum), space))
    climbs = ended if at_optimum == "restart" else ended[:1]
    assert len(climbs) > (4 if at_optimum == "restart" else 0)
    for end in climbs:
        assert all(space.score(one) < space.score(end) for one in space.neighbours(end))


@pytest.mark.few(1)
@pytest.mark.parametrize("at_optimum", ["restart", "next_best"])
def test_all_of_a_small_space_is_found(at_optimum: str) -> None:
    search = start(local(at_optimum=at_optimum, evaluations=1000), Rugged(1))
    assert len(flat(search)) == 3**6
    assert search.best(1)[0].score == Rugged(1).scores.max()


def test_the_first_better_neighbour_is_taken_or_the_best_of_all() -> None:
    """By hand: from the best of the starts on, a move to what was scored last, or to the best."""
    space = Rugged(2)
    first = start(local(evaluations=40, at_optimum="next_best"), space)
    asked = flat(first)
    begin = max(asked[:4], key=space.score)
    better = next(one for one in asked[4:] if space.score(one) > space.score(begin))
    assert first.space.canonical(better) in first.visited
    whole = start(local(evaluations=4 + 12, whole_neighbourhood=True), space)
    asked = flat(whole)
    begin = max(asked[:4], key=space.score)
    around = [one for one in space.neighbours(begin) if one not in asked[:4]]
    assert set(asked[4 : 4 + len(around)]) == set(around)


def test_equal_networks_count_once() -> None:
    search = start(local(evaluations=100), Cell())
    forms = [Cell().canonical(one) for one in flat(search)]
    assert len(set(forms)) == len(forms) == 100


def test_it_finds_more_than_random_search() -> None:
    wins = 0
    for seed in range(7):
        space = Planted(seed)
        ours = started(local(evaluations=100), space, seed)
        theirs = started(RandomSearch(evaluations=200, batch=200), space, seed)
        assert len(flat(ours)) == 100  # half as many
        flat(theirs)
        wins += ours.best(1)[0].score > theirs.best(1)[0].score
    assert stats.binomtest(wins, 7, alternative="greater").pvalue < 0.01


def test_nothing_outside_the_budget_is_asked_for() -> None:
    space = Planted(0)
    asked = flat(started(local(evaluations=60), space, high=11.0))
    assert len(asked) == 60 and all(space.price(one) <= 11 for one in asked)


@pytest.mark.soak
def test_a_cell_of_the_top_one_per_cent_of_nas_bench_201() -> None:
    space, needed = Published(), []
    for seed in range(10):
        algo = local(evaluations=150, starts=10, at_optimum="next_best")
        scores = list(map(space.score, flat(start(algo, space, seed))))
        needed.append(next(n for n, score in enumerate(scores, 1) if score >= space.top))
    assert np.median(needed) <= 60  # random search: 100 on average


def test_more_starts_than_evaluations_are_refused() -> None:
    with pytest.raises(UserError, match=r"starts=9 is more than search_algo\.evaluations=8"):
        local(starts=9, evaluations=8)
