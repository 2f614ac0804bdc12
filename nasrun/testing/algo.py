"""The laws of search algorithms: what they ask for, by what, and that they can be continued."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from itertools import pairwise
from typing import Any

import torch

from nasrun.budget.candidates import Candidates
from nasrun.errors import UserError
from nasrun.run.monitor import NullMonitor
from nasrun.run.state import State
from nasrun.testing.algo_case import (
    MAX_ASKS,
    AlgoCase,
    Record,
    SafePoints,
    Tiny,
    learn,
    same,
    stored,
)
from nasrun.testing.law import refusal, require
from nasrun.values import Architecture, Trial

ROOMY = 100
"""In a space of so many architectures for each evaluation, a round asks for all it announced."""


def _settings(value: Any) -> Any:
    """All settings inside ``value`` as nested tuples, which can be compared."""
    if hasattr(value, "__dict__"):
        return type(value).__name__, _settings(vars(value))
    if isinstance(value, dict):
        return tuple((key, _settings(inner)) for key, inner in value.items())
    if isinstance(value, list | tuple):
        return tuple(map(_settings, value))
    return value


class StoppedError(Exception):
    """A training was stopped on purpose."""


def _asked(record: Record) -> list[Architecture]:
    return [one for asked in record.asked for one in asked]


def seed_and_scores_decide(case: AlgoCase) -> None:
    """One seed asks for the same, given the same scores; another seed asks for, or learns, more."""
    settings = _settings(case.algo)
    first, again = case.record, case.drive(case.search())
    require(first.asked == again.asked, "one seed asks for two sequences")
    require(first.outcome == again.outcome, "one seed has two outcomes")
    require(_settings(case.algo) == settings, "the search changes its settings")
    if not case.algo.learns_gates:
        require(case.drive(case.search(seed=1)).asked != first.asked, "the seed changes nothing")


def what_is_asked_for_is_new(case: AlgoCase) -> None:
    """Architectures are of the space, and no two of a round stand for the same network."""
    record, space = case.record, case.space
    for round_, asked in zip(record.rounds, record.asked, strict=True):
        forms = [space.canonical(space.check(one)) for one in asked]
        require(len(set(forms)) == len(forms), f"round {round_.index} asks twice for one network")
        for one in round_.pool or ():
            space.check(one)


def rounds_are_as_announced(case: AlgoCase) -> None:
    """Rounds count from 0, train a pool where the algorithm says so, and keep their evaluations."""
    algo, record = case.algo, case.record
    indices = [round_.index for round_ in record.rounds]
    require(indices == list(range(len(indices))) and indices, f"rounds {indices}")
    require(len(indices) <= algo.rounds, f"{len(indices)} rounds of {algo.rounds}")
    require(record.rounds[0].fresh_supernet, "the first round starts from old weights")
    for round_, asked in zip(record.rounds, record.asked, strict=True):
        require((round_.pool is not None) == algo.trains_pool, f"trains the pool {round_.pool}")
        most = round_.evaluations
        require(0 < len(asked) <= most, f"{len(asked)} evaluations, {most} were announced")
        if case.space.size >= ROOMY * most:
            require(len(asked) == most, f"{len(asked)} evaluations, {most} were announced")
    search = record.search
    require(search.next_round(NullMonitor()) is None, "a search that is over begins a round")
    require(not search.ask(), "a search that is over asks for more")


def the_same_is_asked_until_told(case: AlgoCase) -> None:
    """Until scores are told, ``ask`` and ``next_round`` give the same again."""
    search, trials = case.search(), case.record.told
    scores = {trial.architecture: trial for trial in trials}
    for _ in range(case.algo.rounds):
        if not (begun := search.next_round(NullMonitor())):
            return
        left = begun.evaluations
        while architectures := search.ask():
            require(search.ask() == architectures, "asked twice, others are asked for")
            again = search.next_round(NullMonitor())
            require(again is not None, "the round is over before its scores are told")
            assert again is not None  # noqa: S101
            require(search.ask() == architectures, "begun again, a round asks for others")
            like = replace(begun, evaluations=again.evaluations)
            require(again == like, f"begun again, a round is {again}, not {like}")
            if case.space.size >= ROOMY * begun.evaluations:
                require(again.evaluations == left, f"{again.evaluations} are left, not {left}")
            search.tell([scores[one] for one in architectures])
            left -= len(architectures)


def scores_may_be_told_one_by_one(case: AlgoCase) -> None:
    """It does not matter whether scores are told in one list or one by one."""
    lists, single = case.record, case.drive(case.search(), single=True)
    require(lists.asked == single.asked, "told one by one, others are asked for")
    require(lists.outcome == single.outcome, "told one by one, the outcome is another")


def the_best_are_sorted(case: AlgoCase) -> None:
    """``best`` and ``front`` give distinct trials that were told, and the highest score first."""
    record = case.record
    count = len(record.told)
    best = record.search.best(count + 1)
    scores = [trial.score for trial in best]
    require(scores == sorted(scores, reverse=True), f"the best are not sorted: {scores}")
    require(len({trial.architecture for trial in best}) == len(best), "one of the best comes twice")
    for found in (best, record.search.front() or []):
        require(all(trial in record.told for trial in found), "one of the best was never told")
    highest = max(trial.score for trial in record.told)
    require(scores[:1] == [highest], f"the best score is {scores[:1]}, not {highest}")
    for few in range(1, count + 1):
        require(record.search.best(few) == best[:few], f"the best {few} are not the first {few}")
    for trial in best:
        costs = record.search.costs(trial)
        require(torch.tensor(list(costs.values())).isfinite().all(), f"costs {costs}")


def a_search_goes_on_from_its_state(case: AlgoCase) -> None:
    """From each of its states, written and read, a search goes on as if nothing had happened."""
    search = case.search()
    points: list[tuple[State, list[Trial]]] = []

    def keep() -> None:
        state = stored(search.state_dict())
        if not points or not same(state, points[-1][0]):
            points.append((state, search.best(MAX_ASKS)))

    whole = case.drive(search, single=True, take=keep)
    require(_asked(whole) == _asked(case.record), "it asks for others where its state is kept")
    for number, (state, best) in enumerate(points):
        place = f"from state {number} of {len(points)} on"
        resumed, following = case.bind(), points[number + 1 : number + 2]
        resumed.load_state_dict(state)
        require(same(resumed.state_dict(), state), f"state {number} is read as another one")
        require(resumed.best(MAX_ASKS) == best, f"{place}, the best are forgotten")
        found: list[State] = []

        def stop() -> None:
            now = stored(resumed.state_dict())  # noqa: B023
            if not same(now, state):  # noqa: B023
                found.append(now)  # noqa: B023
                raise StoppedError

        with suppress(StoppedError):
            case.drive(resumed, single=True, take=stop)
        require(len(found) == len(following), f"{place}, it goes on for longer, or not at all")
        right = [same(now, then) for now, (then, _) in zip(found, following, strict=True)]
        require(all(right), f"{place}, the next state is another")
    require(resumed.front() == search.front(), "from the last state on, the front is another")


def a_budget_is_kept(case: AlgoCase) -> None:
    """All that is asked for is within the budget; an algorithm that takes none refuses it."""
    candidates = case.within_budget()
    told = refusal(lambda: case.bind(candidates))
    if told is not None:
        require("budget" in told, f"a budget is refused without a word of it: {told}")
        return
    record = case.drive(case.search(candidates))
    outside = [one for one in _asked(record) if not candidates.allows(one)]
    require(not outside, f"{len(outside)} architectures are outside the budget")
    for round_, asked in zip(record.rounds, record.asked, strict=True):
        if case.space.size >= ROOMY * round_.evaluations:
            require(len(asked) == round_.evaluations, f"{len(asked)} evaluations are too few")
    pooled = [one for round_ in record.rounds for one in round_.pool or ()]
    require(all(map(candidates.allows, pooled)), "the pool is not within the budget")


def an_exhausted_space_ends_the_search(case: AlgoCase) -> None:
    """In a space of three networks the search asks for each of them, and ends."""
    space = Tiny()
    tiny = AlgoCase(case.algo, space, case.splits, case.trainer, case.seed)
    try:
        case.algo.check(space)
        search = tiny.bind(Candidates(space, measure_of=tiny.measure))
    except UserError:
        return  # the algorithm means nothing there
    record = tiny.drive(search)
    wanted = min(3, max(round_.evaluations for round_ in record.rounds))
    forms = {space.canonical(one) for one in _asked(record)}
    require(len(forms) == wanted, f"{len(forms)} of three networks were asked for")
    require(max(map(len, record.asked)) <= wanted, "a network is asked for twice in a round")


def equal_scores_break_nothing(case: AlgoCase) -> None:
    """A search whose scores are all equal asks for as many architectures."""
    usual, equal = case.record, case.drive(case.search(), lambda _: 0.5)
    counts = [len(asked) for asked in usual.asked], [len(asked) for asked in equal.asked]
    require(counts[0] == counts[1], f"{counts[1]} architectures, else {counts[0]}")


def gates_follow_the_seed(case: AlgoCase) -> None:
    """The gates of a step are the same when asked for again; another seed learns others."""
    _, learned, training = case.trained
    search, other = case.training(seed=1)
    learner = other.rules.learner
    require(learner is not None, "learns_gates, but bind_learner gives no learner")
    assert learner is not None  # noqa: S101
    require(all(learner.gates(s) == learner.gates(s) for s in (0, 1)), "gates change when asked")
    learn(other, NullMonitor())
    require(not same(search.state_dict(), learned), "the seed changes nothing")
    asking, (images, _) = case.search(), next(case.splits.validation.eval_batches(4))
    asking.next_round(NullMonitor())
    for one in asking.ask():
        with torch.no_grad():
            logits = training.network(images, asking.gates(one))
        require(logits.isfinite().all(), "the supernet has no finite logits by the gates to score")


def gates_learn_on_from_their_state(case: AlgoCase) -> None:
    """From its state before any step, learner and network come to the same bits after it."""
    states, *_ = case.trained
    for step, (before, after) in enumerate(pairwise(states)):
        search, training = case.training()
        search.load_state_dict(before[0])
        training.load_state_dict(before[1])
        found: list[bool] = []

        def stop() -> None:
            found.append(same(search.state_dict(), after[0]))  # noqa: B023
            found.append(same(training.state_dict(), after[1]))  # noqa: B023
            raise StoppedError

        with suppress(StoppedError):
            learn(training, SafePoints(stop))
        require(found[0], f"continued before step {step}, the learner is another")
        require(found[1], f"continued before step {step}, the network is another")


ALGO_LAWS = (
    seed_and_scores_decide,
    what_is_asked_for_is_new,
    rounds_are_as_announced,
    the_same_is_asked_until_told,
    scores_may_be_told_one_by_one,
    the_best_are_sorted,
    a_search_goes_on_from_its_state,
    a_budget_is_kept,
    an_exhausted_space_ends_the_search,
    equal_scores_break_nothing,
)
"""The laws of a search algorithm, in the order in which they are checked."""

GATE_LAWS = (gates_follow_the_seed, gates_learn_on_from_their_state)
"""Further laws of an algorithm that learns gates, which are checked first."""
