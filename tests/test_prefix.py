"""Paths that are walked together: the scores of one by one, to the bit, with less work."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from helpers import CPU, few_images
from processes import Processes, outcome
from torch import Tensor

from nasrun.evaluator.accuracy import Tally
from nasrun.evaluator.base import Scorer
from nasrun.evaluator.prefix import Walk, Work, depth_first, plan_walk
from nasrun.evaluator.supernet import SupernetEvaluator, SupernetScorer
from nasrun.run.compute import Compute
from nasrun.run.monitor import NullMonitor
from nasrun.run.ranks import Ranks
from nasrun.search_space.base import SearchSpace
from nasrun.search_space.chain import Piece, WidthScale
from nasrun.search_space.nas_bench_macro import NasBenchMacro
from nasrun.search_space.spos import SposBlocks, SposBlocksChannels, SposFinalScale
from nasrun.streams import Streams
from nasrun.task.scoring import Scores, score_all
from nasrun.values import Architecture, Cost, Problem, Trial

WORDS = ["abc", "xyz", "abd", "ab", "xyz", "aec", "xbc"]
CALLS = {1: 11, 2: 13, 3: 17}
"""First outputs that are kept -> letters that are computed; one by one there are 20."""


def spelled(walk: Walk, words: Sequence[str]) -> tuple[list[str], int]:
    """What a walk spells where a piece adds its letter, and how many letters it adds."""
    calls = 0

    def through(piece: Piece, before: str) -> str:
        nonlocal calls
        calls += 1
        return before + str(piece.key)

    paths = [[Piece(letter, lambda x: x) for letter in word] for word in words]
    return list(walk.run(paths, lambda: "", through)), calls


def test_a_walk_is_depth_first_and_branches_come_as_they_were_found() -> None:
    order = [(WORDS[step.place], step.shared) for step in depth_first(WORDS)]
    assert order == [
        *(("ab", 0), ("abc", 2), ("abd", 2), ("aec", 1)),
        *(("xyz", 0), ("xyz", 3), ("xbc", 1)),
    ]


@pytest.mark.parametrize("first_kept", CALLS)
def test_whatever_is_kept_every_path_is_computed(first_kept: int) -> None:
    walk = replace(Walk(depth_first(WORDS), 1, 1.0), first_kept=first_kept)
    found, calls = spelled(walk, WORDS)
    assert found == [WORDS[step.place] for step in walk.steps]
    assert calls == CALLS[first_kept]


@pytest.mark.parametrize(
    ("first", "calls", "numbers"), [(1, 11, 8), (2, 13, 6), (3, 17, 4), (4, 20, 3)]
)
def test_where_memory_is_short_the_first_outputs_are_computed_again(
    first: int, calls: int, numbers: int
) -> None:
    """The input of each piece has two numbers; input and output of one are always there."""
    work = [[Work(5, 2)] * len(word) for word in WORDS]
    walk = plan_walk(WORDS, work, 10, memory=10 * 4 * numbers)
    assert (walk.first_kept, walk.saving) == (first, pytest.approx(20 / calls))
    assert spelled(walk, WORDS)[1] == calls


def test_no_paths_and_one_path_save_nothing() -> None:
    assert plan_walk([], [], 10, 0).saving == 1
    assert plan_walk(["ab"], [[Work(1, 1)] * 2], 10, 1000).saving == 1


MACRO = NasBenchMacro(affine=True, search=WidthScale(width=0.05), final=WidthScale(width=0.05))
SCALES: Any = {"search": WidthScale(width=0.05), "final": SposFinalScale(width=0.05)}
SPACES: dict[str, SearchSpace] = {
    "macro": MACRO,
    "blocks": SposBlocks(stem="cifar", affine=True, **SCALES),
    "channels": SposBlocksChannels(stem="cifar", affine=True, ratios=[0.5, 1.0], **SCALES),
}


def scorer(name: str, protocol: str, compute: Compute = CPU, **changes: Any) -> SupernetScorer:
    settings = {"images": None, "batch_size": 10, "recalibration_images": 20, **changes}
    made = SupernetEvaluator(batch_norm=protocol, **settings)  # type: ignore[arg-type]
    return made.bind(SPACES[name], few_images(), compute, Streams(0))


def neighbours(name: str, count: int) -> list[Architecture]:
    """Architectures of which many have equal first choices, in no order."""
    search_space, rng = SPACES[name], np.random.default_rng(0)
    found = [search_space.sample(rng) for _ in range(2)]
    while len(found) < count:
        choices = list(found[int(rng.integers(len(found)))].choices)
        place = len(choices) - 1 - int(rng.integers(2))
        choices[place] = (choices[place] + 1) % len(search_space.decisions[place].options)
        one = Architecture(search_space.name, tuple(choices))
        if one not in found:
            found.append(one)
    rng.shuffle(found)  # type: ignore[arg-type]
    return found


class Seen:
    """Remembers the logits of all that is scored."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.logits: list[Tensor] = []
        add = Tally.add

        def spied(tally: Tally, logits: Tensor, labels: Tensor) -> None:
            self.logits.append(logits)
            add(tally, logits, labels)

        monkeypatch.setattr(Tally, "add", spied)

    def taken(self, count: int) -> list[Tensor]:
        """The logits of each architecture since the last time, [N, K]."""
        batches = len(self.logits) // count
        found = [
            torch.cat(self.logits[begin : begin + batches])
            for begin in range(0, len(self.logits), batches)
        ]
        self.logits.clear()
        return found


def check_chain(made: SupernetScorer, network: Any, path: Architecture) -> None:
    """The pieces of a chain are the layers of its space, one to one."""
    x, layers = torch.zeros(2, *made.problem.shape), made.space.layers(path, made.problem)
    for piece, layer in zip(network.pieces(path.choices), layers, strict=True):
        assert x.shape[1:] == layer.shape
        x = piece.run(x)
    assert x.shape == (2, made.problem.classes)


@pytest.mark.few(1)
@pytest.mark.parametrize("memory", ["ample", "short"])
@pytest.mark.parametrize("protocol", ["recalibrated", "batch", "inherited"])
@pytest.mark.parametrize("name", SPACES)
def test_together_logits_are_those_of_one_by_one_to_the_bit(
    name: str, protocol: str, memory: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, chosen = scorer(name, protocol, ties="top5"), neighbours(name, 6)
    with Streams(0).default("init"):
        network = CPU.place(made.space.supernet(made.problem))
    # Statistics that no path has changed would be zeros and ones under ``inherited``.
    network.train()(few_images().train.images, chosen[0].choices)  # type: ignore[attr-defined]
    check_chain(made, network, chosen[0])
    seen = Seen(monkeypatch)
    alone = list(made.score(chosen, network, NullMonitor()))
    logits = dict(zip(chosen, seen.taken(len(chosen)), strict=True))
    before = {key: value.clone() for key, value in network.state_dict().items()}
    if memory == "short":  # all but the last outputs are computed again
        layers = made.space.layers(chosen[0], made.problem)
        largest = max(int(np.prod(layer.shape)) for layer in layers)
        images = made.count + (made.calibrating if protocol == "recalibrated" else 0)
        free = (2 * largest + int(np.prod(layers[-2].shape))) * 4 * images * 4
        monkeypatch.setattr("nasrun.run.compute.available_bytes", lambda: free)
    walk = made.walk_for([one.choices for one in chosen], network)
    assert walk is not None and (walk.first_kept > 5) == (memory == "short")
    in_order, trials = made.together(chosen, network, NullMonitor())
    found = list(trials)
    assert {trial.architecture: trial for trial in found} == dict(zip(chosen, alone, strict=True))
    assert not torch.equal(logits[chosen[0]], logits[chosen[1]])
    for one, together in zip(in_order, seen.taken(len(chosen)), strict=True):
        assert torch.equal(together, logits[one])
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert not any(module.training for module in network.modules())


def test_only_what_shares_enough_is_walked(monkeypatch: pytest.MonkeyPatch) -> None:
    macro, chosen = scorer("macro", "batch"), neighbours("macro", 6)
    network = CPU.place(macro.space.supernet(macro.problem))
    paths = [one.choices for one in chosen]
    walk = macro.walk_for(paths, network)
    assert walk is not None and walk.saving > 1.1
    assert replace(macro, share=False).walk_for(paths, network) is None
    assert macro.walk_for([(2,) * 8, (1,) * 8], network) is None  # the stem alone
    assert macro.walk_for(paths[:1], network) is None
    assert macro.walk_for([[dict.fromkeys(range(3), 1 / 3)] * 8] * 2, network) is None
    monkeypatch.setattr("nasrun.run.compute.available_bytes", lambda: 1000)
    assert macro.walk_for(paths, network) is None
    monkeypatch.undo()
    whole: Any = torch.nn.Identity()  # no chain
    assert macro.walk_for(paths, whole) is None
    twice = macro.walk_for([*paths, *paths], whole)  # computed once nevertheless
    assert twice is not None and twice.saving == pytest.approx(2)


def test_canonical_forms_stand_for_all_that_are_one_network() -> None:
    made = scorer("macro", "batch", canonical=True)
    plain = replace(made, canonical=False)
    with Streams(0).default("init"):
        network = CPU.place(made.space.supernet(made.problem))
    chosen = [made.space.parse(text) for text in ("22120101", "22120110", "22102101", "22012110")]
    forms = [made.space.canonical(one) for one in chosen]
    assert len(set(forms)) == 2
    calls = []
    for layer in network.layers:
        layer.register_forward_hook(lambda *_: calls.append(1))
    _, trials = made.together(chosen, network, NullMonitor())
    found = {trial.architecture: trial for trial in trials}
    together = len(calls)
    alone = list(made.score(chosen, network, NullMonitor()))
    of_forms = list(plain.score(forms, network, NullMonitor()))
    for one, trial, form in zip(chosen, alone, of_forms, strict=True):
        assert found[one] == trial and trial.score == form.score
        assert trial.evaluation["canonical"] and "canonical" not in form.evaluation
    assert together <= 2 * 8 * 2 < len(calls) - together  # two networks, two batches


@pytest.mark.soak
@pytest.mark.parametrize(("canonical", "saving"), [(False, 3.73), (True, 6.19)])
def test_the_whole_of_nas_bench_macro_takes_a_fourth_or_a_sixth_of_the_work(
    canonical: bool, saving: float
) -> None:
    """At full width, stem and head included: each first part of a path is computed once."""
    macro = NasBenchMacro(affine=True, search=WidthScale(width=1), final=WidthScale(width=1))
    every = list(macro.every())
    paths = [macro.canonical(one) if canonical else one for one in every]
    made = replace(scorer("macro", "batch"), space=macro, problem=Problem(3, 32, 10))
    known: dict[str, Work] = {}
    work = [made._work(path.choices, known) for path in paths]
    keys = [("stem", *path.choices, "head") for path in paths]
    macs = {
        key[: index + 1]: pieces[index].macs
        for key, pieces in zip(keys, work, strict=True)
        for index in range(len(key))
    }
    alone = sum(macro.cost(one, made.problem).macs for one in every)
    assert alone / sum(macs.values()) == pytest.approx(saving, abs=0.01)
    assert plan_walk(keys, work, 1, 2**40).saving == pytest.approx(alone / sum(macs.values()))


class Backwards(Scorer):
    """Scores the last one first."""

    def __init__(self) -> None:
        self.scored: list[Architecture] = []

    def score(self, architectures: Any, *rest: Any) -> Iterator[Trial]:
        for one in architectures:
            self.scored.append(one)
            yield Trial(one, one.choices[0] / 10, Cost(1, 1), 0)

    def together(self, architectures: Any, *rest: Any) -> Any:
        return architectures[::-1], self.score(architectures[::-1])


class Logged:
    """A run that keeps what is said to it; it stops at a safe point."""

    def __init__(self, stop: int = 0) -> None:
        self.compute = SimpleNamespace(on_nonfinite="stop", ranks=Ranks())
        self.recorded: list[Trial] = []
        self.ahead_of: list[int] = []
        self.left = stop

    def measured(self, trials: Iterator[Trial], architectures: Any) -> Iterator[Trial]:
        return trials

    def record(self, trials: list[Trial], **context: Any) -> None:
        self.recorded += trials

    def safe_point(self) -> None:
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt

    def ahead(self, steps: int) -> None:
        self.ahead_of.append(steps)


def test_trials_come_in_their_turn_and_early_ones_are_kept_in_checkpoints() -> None:
    search_space = MACRO
    chosen = [Architecture(search_space.name, (option,) * 8) for option in (0, 1, 2, 1)]

    def go_on(scores: Scores, run: Any) -> Backwards:
        trials, made = scores.trials_of("all"), Backwards()
        left = chosen[len(trials) :]
        list(score_all(made, left, trials, run, run))
        return made

    whole, quiet = Scores(search_space), Logged()
    assert go_on(whole, quiet).scored == [chosen[2], chosen[1], chosen[0]]
    assert [trial.architecture for trial in quiet.recorded] == chosen
    assert quiet.ahead_of[:3] == [1, 2, 2] and quiet.ahead_of[-1] == 0
    for stop in range(1, 7):
        scores, run = Scores(search_space), Logged(stop)
        with pytest.raises(KeyboardInterrupt):
            go_on(scores, run)
        again, mark = Scores(search_space), scores.mark
        again.load_state_dict(scores.state_dict())
        assert again.mark == mark
        rest = go_on(again, Logged())
        assert len(rest.scored) == max(3 - stop, 0)  # nothing is scored twice
        assert (
            again.state_dict()
            == whole.state_dict()
            == {"all": [trial.to_json() for trial in quiet.recorded]}
        )


WALKED = (
    *("search", "effort=smoke", "threads=1", "hydra.run.dir=run", "search_space=nas_bench_macro"),
    *("sampler=uniform", "search_algo=random", "search_algo.evaluations=40", "checkpoint.steps=1"),
    *("dataset.train_images=32", "dataset.validation=16", "shortlist.count=0"),
)


@pytest.mark.soak
def test_a_search_ends_the_same_walked_one_by_one_stopped_killed_and_known(
    processes: Processes, tmp_path: Path
) -> None:
    store = f"evaluator.store={tmp_path / 'scores'}"
    assert processes.run(tmp_path / "alone", *WALKED, "evaluator.share=false").status == 0
    whole = outcome(tmp_path / "alone" / "run")
    for name, words in (("walked", ()), ("filled", (store,)), ("known", (store,))):
        assert processes.run(tmp_path / name, *WALKED, *words).status == 0
        assert outcome(tmp_path / name / "run") == whole
    for number in (signal.SIGTERM, signal.SIGKILL):
        words, stops = WALKED, 0
        fault = ("signal_at", [number, "safe_point", "score/round0", 13])
        place = tmp_path / number.name
        while processes.run(place, *words, faults=[fault]).status:
            words, stops = ("resume", "run"), stops + 1
        assert outcome(place / "run") == whole
        assert stops >= 3  # each time at least some were not scored again
