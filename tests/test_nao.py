"""NAO on a small space with a planted score: rounds, switches, exact resume, small spaces."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from helpers import few_images
from test_search_algo import (
    LEARN,
    Cell,
    Plain,
    Recorder,
    canonical_pool,
    nao,
    run,
    saved,
    start,
    trial,
)

from nasrun.budget.candidates import Candidates
from nasrun.errors import UserError
from nasrun.run.monitor import NullMonitor
from nasrun.search_algo.nao.linking import Linking, Offset
from nasrun.search_algo.pool import ByForm, Pool
from nasrun.search_algo.random_search import RandomSearch
from nasrun.testing import check_algo
from nasrun.values import Architecture, Cost, Trial


def test_rounds_of_nao() -> None:
    algo, recorder = start(nao(train_on="pool", fresh_supernet=True)), Recorder()
    history = run(algo, recorder)
    assert [r.index for r, _ in history] == [0, 1, 2]
    assert [len(r.pool) for r, _ in history] == [30, 40, 50]
    assert [len(asked) for _, asked in history] == [30, 40, 50]
    assert all(r.fresh_supernet for r, _ in history)
    assert algo.next_round(NullMonitor()) is None
    assert algo.ask() == []
    # Every score is the newest: of the last round.
    assert {t.seed for t in algo.best(99)} == {2}
    assert recorder.steps == {
        "predictor/round1": 3,
        "architectures/round1": 10,
        "predictor/round2": 3,
        "architectures/round2": 10,
    }
    for i in (1, 2):
        assert recorder.metrics[f"architectures/round{i}"][-1]["random"] == algo.filled[i]


def test_a_new_supernet_scores_nothing_that_it_has_not_trained() -> None:
    with pytest.raises(UserError, match="cannot score their architectures"):
        nao(fresh_supernet=True, train_on="new", rescore="pool")
    for train_on, rescore in (("pool", "pool"), ("pool", "new"), ("new", "new")):
        nao(fresh_supernet=True, train_on=train_on, rescore=rescore)


@pytest.mark.few(3)
@pytest.mark.parametrize("train_on", ["new", "pool"])
@pytest.mark.parametrize("rescore", ["new", "pool"])
@pytest.mark.parametrize("replace", ["none", "worst"])
def test_switches(train_on: str, rescore: str, replace: str) -> None:
    algo = start(nao(train_on=train_on, rescore=rescore, replace=replace, fresh_supernet=False))
    history = run(algo)
    grows = replace == "none"
    sizes = [30, 40, 50] if grows else [30, 30, 30]
    assert [len(r.pool) for r, _ in history] == (sizes if train_on == "pool" else [30, 10, 10])
    assert [len(asked) for _, asked in history] == (sizes if rescore == "pool" else [30, 10, 10])
    assert [r.fresh_supernet for r, _ in history] == [True, False, False]
    forms = canonical_pool(algo)
    assert len(forms) == len(set(forms)) == sizes[-1]
    if not grows:
        first = sorted((Cell().score(a) for a in history[0][1]), reverse=True)
        old = [t.score for t in algo.best(30) if t.architecture in history[0][1]]
        assert sorted(old, reverse=True)[:10] == first[:10]
    if rescore == "new":
        assert {t.seed for t in algo.best(99)} == {0, 1, 2}


def test_dropped_architectures_do_not_come_back() -> None:
    algo = start(nao(rounds=6, replace="worst", rescore="new"))
    asked = [algo.pool.space.canonical(a) for _, batch in run(algo) for a in batch]
    assert len(asked) == len(set(asked)) == 80


def test_ascent_beats_random_search() -> None:
    space = Cell(nodes=2, ops=6)
    changes = {"rounds": 2, "initial": 100, "new_per_round": 20, "seeds": 20, "step_max": 50.0}
    algo = start(nao(LEARN, **changes), space)
    (_, first), (second, _) = run(algo)
    random = np.mean([space.score(a) for a in first])
    seeds = np.mean(sorted((space.score(a) for a in first), reverse=True)[:20])
    new = np.mean([space.score(a) for a in second.pool])
    assert algo.filled == [100, 0]
    assert new > seeds > random


def test_laws_of_linked_rounds() -> None:
    laws = ["rounds_are_as_announced", "the_best_are_sorted", "an_exhausted_space_ends_the_search"]
    check_algo(nao(rescore="new", anchors=4, carried=2), Cell(), few_images(), only=laws)


SHORT: dict[str, Any] = {"initial": 9, "new_per_round": 4, "batch": 5, "step_max": 2.0}


@pytest.mark.few(1)
@pytest.mark.parametrize(
    "algo",
    [
        nao({"epochs": 2}, **SHORT, rounds=2, rescore="new", replace="worst", anchors=3, carried=2),
        nao({"epochs": 2}, **SHORT, rounds=3),
        nao({"epochs": 2, "keep_weights": False}, **SHORT, rounds=2, train_on="pool"),
    ],
)
def test_searches_of_other_rules_go_on_from_their_states(algo: Any) -> None:
    """Also inside next_round, after every epoch and every step of the ascent."""
    check_algo(algo, Cell(), few_images(), only=["a_search_goes_on_from_its_state"])


LINKED: dict[str, Any] = {"rescore": "new", "anchors": 8, "carried": 3}


def worth(architecture: Architecture) -> float:
    """A quarter of the planted score, as a multiple of 1/1024: sums and differences are exact."""
    return round(256 * Cell().score(architecture)) / 1024


def shifted_run(algo: Any, shifts: list[float]) -> list[tuple[Any, list[Architecture]]]:
    """A search whose round i scores every architecture ``shifts[i]`` higher than it is worth."""
    history = []
    while round_ := algo.next_round(NullMonitor()):
        asked: list[Architecture] = []
        while batch := algo.ask():
            asked += batch
            for one in batch:
                score = worth(one) + shifts[round_.index]
                algo.tell([Trial(one, score, Cost(1, 2), round_.index)])
        history.append((round_, asked))
    return history


@pytest.mark.parametrize("carried", [0, 3])
def test_a_supernet_that_scores_all_higher_does_not_win_by_that(carried: int) -> None:
    """The second supernet adds 20 points to all; the best network is one of the first round."""
    sizes = {"rounds": 2, "new_per_round": 4, "seeds": 1, "step_max": 1.0}
    as_they_are = start(nao(**sizes, rescore="new"))
    linked = start(nao(**sizes, **LINKED | {"carried": carried}))
    for algo in (as_they_are, linked):
        (_, first), (_, second) = shifted_run(algo, [0.0, 0.2])
        best = max([*first, *second], key=worth)
        assert best in first
        assert (algo.best(1)[0].architecture == best) == (algo is linked)
    if carried:  # all from one supernet, the last
        assert {trial.seed for trial in linked.best(99)} == {1}
        assert len(linked.best(99)) == len(second)


def test_a_constant_added_to_a_rounds_scores_changes_nothing() -> None:
    """Seeds and targets, hence the predictor's weights and what it finds, and the winner."""
    plain, moved = (start(nao(**LINKED)) for _ in range(2))
    histories = [shifted_run(plain, [0, 0, 0]), shifted_run(moved, [0.125, 0.5, -0.25])]
    assert histories[0] == histories[1]
    assert plain.linking.ranked() == moved.linking.ranked()
    weights = [algo.predictor.model.state_dict() for algo in (plain, moved)]
    assert all(weights[0][name].equal(weights[1][name]) for name in weights[0])
    assert [t.architecture for t in plain.best(9)] == [t.architecture for t in moved.best(9)]
    offsets = [(row["round"], row["mean"], row["error"]) for row in moved.report()["round_offsets"]]
    assert offsets == [(1, 0.375, 0.0), (2, -0.375, 0.0)]


def test_later_supernets_train_and_score_the_anchors_and_the_best() -> None:
    algo = start(nao(**LINKED, replace="worst"))
    history = shifted_run(algo, [0.0, 0.2, 0.1])
    (_, first), *later = history
    known = list(first)
    for round_, asked in later:
        new = [one for one in asked if one not in known]
        best = sorted(known, key=worth, reverse=True)[:3]
        assert len(new) == 10 and set(asked) == {*new, *first[:8], *best}
        assert round_.pool == tuple(asked)
        known += new
    assert set(first[:8]) <= set(algo.pool.trials) and len(algo.pool.trials) == 30


def test_an_anchor_without_a_finite_score_links_nothing() -> None:
    pool = Pool(Candidates(Cell()))
    found: ByForm = {}
    pool.sample(np.random.default_rng(0), 3, found)
    pool.add_pending(found)
    linking = Linking(pool)
    linking.choose(3)
    for round_, scores in enumerate([(0.25, 0.5, 0.0), (0.5, 0.875, 0.75)]):
        for one, score in zip(found.values(), scores, strict=True):
            pool.trials[one] = Trial(
                one, score, Cost(1, 2), 0, {"nonfinite": True} if not score else {}
            )
            linking.take([pool.trials[one]], round_)
    assert linking.offset(1) == Offset(0.3125, 0.0625, 2)
    assert linking.offset(0) == Offset(0.0, 0.0, 2)
    assert "+31.25 ± 6.25 points" in linking.say()
    assert [trial.score for trial in linking.trials()] == [0.1875, 0.5625, 0.4375]


def test_current_round_again_after_a_resume() -> None:
    algo = start(nao())
    first = algo.next_round(NullMonitor())
    algo.tell([trial(algo.pool.space, a) for a in algo.ask()])
    resumed = start(nao())
    resumed.load_state_dict(saved(algo.state_dict()))
    again = resumed.next_round(NullMonitor())
    assert (again.index, again.pool, again.fresh_supernet) == (0, first.pool, True)
    assert again.evaluations == first.evaluations - 7
    assert resumed.ask() == algo.ask() == algo.ask()


def test_state_of_another_space_is_refused() -> None:
    algo = start(RandomSearch(evaluations=3, batch=3), Plain(4, 2))
    algo.next_round(NullMonitor())
    with pytest.raises(UserError, match="search space"):
        start(RandomSearch(evaluations=3, batch=3)).load_state_dict(saved(algo.state_dict()))


def test_tiny_space_is_exhausted() -> None:
    space = Plain(decisions=4, options=2)
    algo = start(nao(initial=10, new_per_round=4, rounds=9, step_max=3.0), space)
    history = run(algo)
    assert [len(asked) for _, asked in history] == [10, 14, 16]
    assert len(set(canonical_pool(algo))) == 16
    assert algo.next_round(NullMonitor()) is None


def test_only_one_architecture() -> None:
    algo = start(nao(), Plain(decisions=4, options=1))
    assert [len(asked) for _, asked in run(algo)] == [1]


def test_random_fills_where_the_ascent_finds_too_few() -> None:
    algo = start(nao(seeds=1, step_max=1.0), Plain(decisions=8, options=6))
    history = run(algo)
    assert [len(r.pool) for r, _ in history] == [30, 10, 10]
    assert algo.filled[0] == 30
    assert all(9 <= filled <= 10 for filled in algo.filled[1:])


def test_best_is_ordered_and_ties_go_to_the_earlier() -> None:
    space = Plain(decisions=2, options=3)
    algo = start(RandomSearch(evaluations=9, batch=4), space)
    (_, asked) = run(algo)[0]
    best = algo.best(9)
    ranks = [(-t.score, asked.index(t.architecture)) for t in best]
    assert ranks == sorted(ranks)
    assert algo.best(2) == best[:2]
    assert len(algo.best(99)) == 9


def test_strangers_are_refused() -> None:
    algo = start(nao())
    algo.next_round(NullMonitor())
    unasked = next(
        a
        for a in (Cell().sample(np.random.default_rng(i)) for i in range(99))
        if a not in algo.pool.trials
    )
    with pytest.raises(ValueError):
        algo.tell([trial(Cell(), unasked)])


def test_steps_of_the_ascent() -> None:
    assert nao(step_max=50.0).step_sizes() == [float(i) for i in range(1, 51)]
    tenth = nao(step_start=0.1, step_increment=0.1, step_max=0.3).step_sizes()
    assert tenth == pytest.approx([0.1, 0.2, 0.3])
    with pytest.raises(UserError, match="step_start = 5"):
        nao(step_start=5.0, step_max=4.0)
