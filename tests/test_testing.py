"""Every law of nasrun.testing is broken here by something that is made to break it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import few_images
from torch import nn

from nasrun import testing
from nasrun.dataset.base import Dataset, Splits
from nasrun.dataset.digits import Digits
from nasrun.errors import UserError
from nasrun.evaluator.base import Scorer, choices_of
from nasrun.evaluator.supernet import SupernetEvaluator
from nasrun.run.monitor import NullMonitor
from nasrun.sampler.base import Sampler
from nasrun.search_algo.base import Round, Search, SearchAlgo
from nasrun.search_algo.gates.mixed_gates import MixedGates
from nasrun.search_algo.gates.settings import GateSettings
from nasrun.search_algo.gates.soft_gates import GateAdam
from nasrun.search_space.graph import Graph
from nasrun.streams import Streams
from nasrun.testing import (
    check_algo,
    check_dataset,
    check_evaluator,
    check_sampler,
    check_space,
)
from nasrun.values import Architecture, Decision, MapSize, Problem, Trial

sys.path.append(str(Path(__file__).parents[1] / "examples" / "plugin"))

from nasrun_plugin.my_sampler import MySampler
from nasrun_plugin.my_space import NAMES, ChainSupernet, MySpace

PROBLEM = Problem(3, 6, 4)


def space(kind: type[MySpace] = MySpace) -> MySpace:
    return kind(search=4, final=6)


class SameName(MySpace):
    @cached_property
    def decisions(self):
        return (Decision("layer/op", NAMES),) * 4


class Binary(MySpace):
    binary = True


class Unseeded(MySpace):
    def sample(self, rng):
        return super().sample(np.random.default_rng())


class Constant(MySpace):
    def sample(self, rng):
        return Architecture(self.name, (3, 2, 1, 0))


class NeverIdentity(MySpace):
    def sample(self, rng):
        return Architecture(self.name, tuple(rng.integers(1, 4, 4).tolist()))


class WritesLines(MySpace):
    def write(self, architecture):
        return "\n".join(map(str, architecture.choices))


class ReadsTheReverse(MySpace):
    def parse(self, text):
        return Architecture(self.name, super().parse(text).choices[::-1])


class TakesStrangers(MySpace):
    def check(self, architecture):
        return architecture


class RepairsAnything(MySpace):
    def repair(self, architecture, rng):
        return self.sample(rng)


class LeavesOut(MySpace):
    @property
    def groups(self):
        return ((0,), (1, 2))


class VariesOthers(MySpace):
    def variants(self, start, group):
        for one in super().variants(start, group):
            yield from (one, Architecture(self.name, tuple((c + 1) % 4 for c in one.choices)))


class ListsTwice(MySpace):
    def every(self):
        for one in super().every():
            yield from (one, one)


class Miscounts(MySpace):
    """A batch norm more than there is, at the final scale alone."""

    def cost(self, architecture, problem, scale="search"):
        cost = super().cost(architecture, problem, scale)
        return replace(cost, params=cost.params + 12 * (scale == "final"))


class CountsSquares(MySpace):
    def cost(self, architecture, problem, scale="search"):
        square = replace(problem, size=MapSize.square(problem.size.height))
        return super().cost(architecture, square, scale)


class BoundsTooLow(MySpace):
    def cost_bound(self, problem, scale="search"):
        return self.cost(Architecture(self.name, (3, 3, 3, 0)), problem, scale)


class NotAdditive(MySpace):
    def cost(self, architecture, problem, scale="search"):
        cost = super().cost(architecture, problem, scale)
        both = architecture.choices[0] == architecture.choices[1]
        return replace(cost, macs=cost.macs + both)


class WrongExtremes(MySpace):
    def extremes(self, measure, streams):
        return super().extremes(measure, streams)[::-1]


class GraphOfNothing(MySpace):
    def graphs(self, architecture, problem, scale="final"):
        return {"cell": Graph(["x"], [(0, 1, "op")])}


class GraphInACircle(MySpace):
    def graphs(self, architecture, problem, scale="final"):
        return {"cell": Graph(["x", "y"], [(0, 1, "op"), (1, 0, "")])}


class RefusesInSupernets(MySpace):
    """The supernet alone refuses small images."""

    def _check(self, problem, *, auxiliary=False):
        if auxiliary:
            super()._check(problem, auxiliary=auxiliary)

    def supernet(self, problem, *, auxiliary=False):
        super()._check(problem)
        return super().supernet(problem, auxiliary=auxiliary)


class StartsAnyhow(MySpace):
    """Weights that no seed decides."""

    def supernet(self, problem, *, auxiliary=False):
        found = super().supernet(problem, auxiliary=auxiliary)
        found.classifier.bias.data += torch.tensor(np.random.default_rng().random())
        return found


class Dead(MySpace):
    """All images have the same logits."""

    def network(self, *arguments, **options):
        return _without_images(super().network(*arguments, **options))

    def supernet(self, *arguments, **options):
        return _without_images(super().supernet(*arguments, **options))


def _without_images(network: Any) -> Any:
    network.stem.register_forward_hook(lambda module, inputs, out: 0 * out)
    return network


class OfSupernets(MySpace):
    """A space with a supernet of another kind."""

    kind: type[ChainSupernet] = ChainSupernet

    def supernet(self, problem, *, auxiliary=False):
        self._check(problem, auxiliary=auxiliary)
        return self.kind(problem, self.channels["search"])


class OtherPath(OfSupernets):
    class kind(ChainSupernet):  # noqa: N801
        def forward(self, x, gates):
            return 1.01 * super().forward(x, gates)


class OtherStatistics(OfSupernets):
    class kind(ChainSupernet):  # noqa: N801
        def forward(self, x, gates):
            out = super().forward(x, gates)
            for module in self.modules():
                if isinstance(module, nn.BatchNorm2d) and self.training:
                    module.running_var.mul_(1.5)
            return out


class TrainsAll(OfSupernets):
    class kind(ChainSupernet):  # noqa: N801
        def forward(self, x, gates):
            rest = sum(parameter.sum() for parameter in self.parameters())
            return super().forward(x, gates) + 0 * rest


class ComputesAll(OfSupernets):
    """Shut options get no gradient, but are computed all the same."""

    class kind(ChainSupernet):  # noqa: N801
        def forward(self, x, gates):
            with torch.no_grad():
                for layer in self.layers:
                    layer["1"](self.stem(x))
            return super().forward(x, gates)


class OfNoDecision(OfSupernets):
    class kind(ChainSupernet):  # noqa: N801
        def option_modules(self):
            for module, _ in super().option_modules():
                yield module, [(9, 0)]


class OwnedByOthers(OfSupernets):
    class kind(ChainSupernet):  # noqa: N801
        def option_modules(self):
            for module, ((layer, option),) in super().option_modules():
                yield module, [(layer, (option + 1) % 4)]


class NoForm(MySpace):
    def canonical(self, architecture):
        return Architecture(self.name, architecture.choices[::-1])


class FormOfOtherSize(MySpace):
    def canonical(self, architecture):
        return Architecture(self.name, tuple(min(c, 2) for c in architecture.choices))


class UnlikeEquivalents(MySpace):
    def equivalent(self, architecture, rng):
        return self.sample(rng)


class OnlyPaths(MySpace):
    """It runs mixtures, which it does not claim."""

    gate_kinds = frozenset({"path"})


class NoMixtures(OfSupernets):
    class kind(ChainSupernet):  # noqa: N801
        def forward(self, x, gates):
            if not all(isinstance(gate, int) for gate in gates):
                raise UserError("single paths alone")
            return super().forward(x, gates)


def _changed(gate: Any, change: Any) -> Any:
    if isinstance(gate, int):
        return gate
    return {o: change(w) if isinstance(w, torch.Tensor) else w for o, w in gate.items()}


class DetachedWeights(OfSupernets):
    """The weights of gates learn nothing."""

    class kind(ChainSupernet):  # noqa: N801
        def forward(self, x, gates):
            return super().forward(x, [_changed(gate, torch.Tensor.detach) for gate in gates])


class MeanOfImages(OfSupernets):
    """The weights of images are taken for one of the batch."""

    class kind(ChainSupernet):  # noqa: N801
        def forward(self, x, gates):
            return super().forward(x, [_changed(gate, torch.Tensor.mean) for gate in gates])


class SilentlyWithoutHead(MySpace):
    """The network has no auxiliary head, and does not say so."""

    def network(self, architecture, problem, scale, *, auxiliary=False):
        return super().network(architecture, problem, scale)


BROKEN_SPACES = [
    (SameName, "decisions_are_well_formed"),
    (Binary, "decisions_are_well_formed"),
    (Unseeded, "samples_follow_the_generator"),
    (Constant, "samples_follow_the_generator"),
    (NeverIdentity, "every_option_is_sampled"),
    (WritesLines, "architectures_are_written_and_read"),
    (ReadsTheReverse, "architectures_are_written_and_read"),
    (TakesStrangers, "strangers_are_refused"),
    (RepairsAnything, "repairs_are_architectures"),
    (LeavesOut, "groups_partition_the_decisions"),
    (VariesOthers, "groups_partition_the_decisions"),
    (ListsTwice, "all_architectures_are_listed"),
    (Miscounts, "costs_are_counted"),
    (CountsSquares, "rectangles_are_images"),
    (BoundsTooLow, "no_cost_exceeds_the_bound"),
    (NotAdditive, "costs_add_up"),
    (WrongExtremes, "extremes_bound_the_costs"),
    (GraphOfNothing, "words_and_graphs_fit"),
    (GraphInACircle, "words_and_graphs_fit"),
    (RefusesInSupernets, "small_images_are_refused"),
    (StartsAnyhow, "weights_follow_the_generator"),
    (Dead, "logits_are_finite"),
    (OtherPath, "a_path_is_its_network"),
    (OtherStatistics, "a_path_is_its_network"),
    (TrainsAll, "only_the_path_is_trained"),
    (ComputesAll, "only_the_path_is_trained"),
    (OwnedByOthers, "only_the_path_is_trained"),
    (OfNoDecision, "option_modules_own_their_weights"),
    (NoForm, "canonical_forms_are_one_network"),
    (FormOfOtherSize, "canonical_forms_are_one_network"),
    (UnlikeEquivalents, "canonical_forms_are_one_network"),
    (OnlyPaths, "gates_are_those_of_the_claims"),
    (NoMixtures, "gates_are_those_of_the_claims"),
    (DetachedWeights, "gates_are_those_of_the_claims"),
    (MeanOfImages, "mixtures_are_sums"),
    (SilentlyWithoutHead, "auxiliary_heads_are_extra"),
]


@pytest.mark.parametrize(("kind", "law"), BROKEN_SPACES)
def test_a_space_that_breaks_a_law_is_caught(kind: type[MySpace], law: str) -> None:
    with pytest.raises(AssertionError, match=rf"space my_space on .* breaks the law {law} \("):
        check_space(space(kind), PROBLEM, only=[law])


def test_laws_are_named() -> None:
    assert {law for _, law in BROKEN_SPACES} == {law.__name__ for law in testing.SPACE_LAWS}
    with pytest.raises(ValueError, match=r"there are no laws .'costs'.; there are decisions_"):
        check_space(space(), PROBLEM, only=["costs"])
    with pytest.raises(AssertionError, match=r"\(The cost is that of .*\): Cost\(params="):
        check_space(space(Miscounts), PROBLEM)


class Changed(Dataset):
    """Digits, with something wrong about the training split."""

    name = "changed"

    def load(self, streams: Streams, device: torch.device) -> Splits:
        parts = self.digits(streams, device)
        return replace(parts, train=Twisted(parts.train, self))

    def digits(self, streams: Streams, device: torch.device) -> Splits:
        settings = {
            "image_size": None,
            "crop_padding": 1,
            "flip": False,
            "mean": [0.3],
            "std": [0.4],
        }
        return Digits(validation=20, train_images=30, **settings).load(streams, device)

    def batches(self, split: Any, batch_size: int, **options: Any) -> Iterator[Any]:
        yield from split.train_batches(batch_size, **options)

    def evaluate(self, split: Any, batch_size: int, count: int | None) -> Iterator[Any]:
        yield from split.eval_batches(batch_size, count)


class Twisted:
    """A split that asks its dataset for its batches."""

    def __init__(self, split: Any, dataset: Changed) -> None:
        self.split, self.dataset = split, dataset
        self.steps_per_epoch, self.fingerprint = split.steps_per_epoch, split.fingerprint

    def __len__(self) -> int:
        return len(self.split)

    def train_batches(self, batch_size: int, **options: Any) -> Iterator[Any]:
        return self.dataset.batches(self.split, batch_size, **options)

    def eval_batches(self, batch_size: int, count: int | None = None) -> Iterator[Any]:
        return self.dataset.evaluate(self.split, batch_size, count)


class Overlapping(Changed):
    def load(self, streams, device):
        parts = self.digits(streams, device)
        return replace(parts, validation=parts.train_and_validation())


class SeedlessSplits(Changed):
    def load(self, streams, device):
        return self.digits(Streams(0), device)


class Doubles(Changed):
    def batches(self, split, batch_size, **options):
        for images, labels in split.train_batches(batch_size, **options):
            yield images.double(), labels


class FirstBatchOnly(Changed):
    def batches(self, split, batch_size, **options):
        found = next(iter(split.train_batches(batch_size, **options)))
        while True:
            yield found


class ForgetsFirstStep(Changed):
    def batches(self, split, batch_size, first_step=0, **options):
        yield from split.train_batches(batch_size, **options)


class SeedlessOrder(Changed):
    def batches(self, split, batch_size, streams, **options):
        yield from split.train_batches(batch_size, streams=Streams(0), **options)


class CutsToOnes(Changed):
    def batches(self, split, batch_size, cutout=0, **options):
        for images, labels in split.train_batches(batch_size, **options):
            yield images + bool(cutout), labels


class DropsTheLast(Changed):
    def evaluate(self, split, batch_size, count):
        for images, labels in split.eval_batches(batch_size, count):
            if len(labels) == batch_size:
                yield images, labels


class LacksNames(Changed):
    def load(self, streams, device):
        return replace(super().load(streams, device), classes=("zero", "one"))


class OfAnotherSide(Changed):
    def load(self, streams, device):
        parts = super().load(streams, device)
        assert parts.preprocessing is not None
        return replace(parts, preprocessing=parts.preprocessing.model_copy(update={"size": 9}))


BROKEN_DATASETS = [
    (Overlapping, "splits_are_disjoint"),
    (SeedlessSplits, "splits_follow_the_seed"),
    (Doubles, "batches_have_the_shape_of_the_problem"),
    (FirstBatchOnly, "an_epoch_trains_every_image_once"),
    (ForgetsFirstStep, "batches_depend_on_seed_and_step"),
    (SeedlessOrder, "batches_depend_on_seed_and_step"),
    (CutsToOnes, "cutout_sets_pixels_to_zero"),
    (DropsTheLast, "evaluation_is_all_images_in_order"),
    (LacksNames, "names_and_preprocessing_fit_the_problem"),
    (OfAnotherSide, "names_and_preprocessing_fit_the_problem"),
]


@pytest.mark.parametrize(("kind", "law"), BROKEN_DATASETS)
def test_a_dataset_that_breaks_a_law_is_caught(kind: type[Changed], law: str) -> None:
    assert {law for _, law in BROKEN_DATASETS} == {law.__name__ for law in testing.DATASET_LAWS}
    check_dataset(Changed(), only=[law])
    with pytest.raises(AssertionError, match=rf"dataset changed breaks the law {law} \("):
        check_dataset(kind(), only=[law])


class Rule(Sampler):
    """``my_sampler``, whose gates a subclass may change."""

    def bind(self, space, problem, pool, streams, **further):
        sampler = MySampler(candidates=2, size="params")
        gates = sampler.bind(space, problem, pool, streams, **further)
        return lambda step: self.change(gates(step))

    def change(self, paths):
        return paths


class BeyondTheOptions(Rule):
    def change(self, paths):
        return [[choice + 1 for choice in path] for path in paths]


class Mixes(Rule):
    """It does not say that it opens several options."""

    def change(self, paths):
        return [[{choice: 0.5} for choice in path] for path in paths]


class NotFinite(Rule):
    gate_kind = "mix"

    def change(self, paths):
        return [[{choice: float("nan")} for choice in path] for path in paths]


class Counting(Rule):
    """The gates of a step depend on how often they were asked for."""

    calls = 0

    def change(self, paths):
        self.calls += 1
        return [[self.calls % 4] * 4]


class Seedless(Rule):
    def bind(self, space, problem, pool, streams, **further):
        return super().bind(space, problem, pool, Streams(0), **further)


class HalfOfTheBatch(Rule):
    def ghost_batch_of(self, batch_size):
        return batch_size // 2

    def change(self, paths):
        return paths[:1]


class ForgetsThePool(Rule):
    def bind(self, space, problem, pool, streams, **further):
        return super().bind(space, problem, None, streams, **further)


class SaysNothingOfPools(ForgetsThePool):
    takes_pool = False


class BoundToWhatItRefuses(Rule):
    def check(self, space):
        raise UserError("not in this space")


BROKEN_SAMPLERS = [
    (BeyondTheOptions, "gates_are_those_of_the_space"),
    (Mixes, "gates_are_those_of_the_space"),
    (NotFinite, "the_supernet_takes_the_gates"),
    (Counting, "gates_depend_on_seed_and_step"),
    (Seedless, "gates_depend_on_seed_and_step"),
    (HalfOfTheBatch, "the_batch_is_divided"),
    (ForgetsThePool, "a_pool_is_kept_to"),
    (SaysNothingOfPools, "a_pool_is_kept_to"),
    (BoundToWhatItRefuses, "must_be_refused"),
]


@pytest.mark.parametrize(("kind", "law"), BROKEN_SAMPLERS)
def test_a_sampler_that_breaks_a_law_is_caught(kind: type[Rule], law: str) -> None:
    laws = {law.__name__ for law in testing.SAMPLER_LAWS}
    assert {law for _, law in BROKEN_SAMPLERS} == {*laws, "must_be_refused"}
    check_sampler(Rule(), space(), PROBLEM)
    with pytest.raises(AssertionError, match=rf"sampler {kind.__name__} .* the law {law} \("):
        check_sampler(kind(), space(), PROBLEM, only=[law])


class Guess(SearchAlgo):
    """Six random architectures; subclasses do something wrong."""

    rounds = 1

    def __init__(self, evaluations: int = 6) -> None:
        self.evaluations = evaluations

    def bind(self, candidates, streams, device):
        return Guesses(self, candidates, streams)

    def form(self, space, architecture):
        return space.canonical(architecture)

    def sample(self, candidates, rng):
        return candidates.sample(rng)

    def announced(self, waiting):
        return len(waiting)

    def choose(self, waiting):
        return waiting[:4]

    def take(self, trials):
        return trials

    def order(self, trials):
        return sorted(trials, key=lambda trial: -trial.score)

    def saved(self, trials):
        return trials


class Guesses(Search):
    def __init__(self, algo, candidates, streams):
        super().__init__(candidates, streams)
        self.algo, self.told, found = algo, [], {}
        for index in range(200):
            one = algo.sample(candidates, streams.numpy("guess", index))
            if len(found) < algo.evaluations:
                found.setdefault(algo.form(self.space, one), one)
        self.waiting = list(found.values())

    def begin_round(self):
        waiting = self.waiting
        return Round(0, None, True, self.algo.announced(waiting)) if waiting else None

    def ask(self):
        return self.algo.choose(self.waiting)

    def tell(self, trials):
        for trial in trials:
            self.waiting.remove(trial.architecture)
        self.told += self.algo.take(trials)

    def best(self, count):
        return self.algo.order(self.told)[:count]

    def state_dict(self):
        waiting = [one.to_json() for one in self.waiting]
        return {"waiting": waiting, "told": [t.to_json() for t in self.algo.saved(self.told)]}

    def load_state_dict(self, state):
        self.waiting = [self.space.read(one) for one in state["waiting"]]
        self.told = [Trial.from_json(trial) for trial in state["told"]]


class SeedlessGuess(Guess):
    def bind(self, candidates, streams, device):
        return super().bind(candidates, Streams(0), device)


class FewerEachTime(Guess):
    """The settings change with every search."""

    def bind(self, candidates, streams, device):
        self.evaluations -= 1
        return super().bind(candidates, streams, device)


class GuessesStrangers(Guess):
    def sample(self, candidates, rng):
        return Architecture("other", candidates.sample(rng).choices)


class AnnouncesFewer(Guess):
    def announced(self, waiting):
        return len(waiting) - 1


class OthersEachTime(Guess):
    calls = 0

    def choose(self, waiting):
        self.calls += 1
        return waiting[self.calls % len(waiting) :][:4] if waiting else []


class TakesTheLast(Guess):
    """Of several scores at once it keeps one."""

    def take(self, trials):
        return trials[-1:]


class BestAreTheFirst(Guess):
    def order(self, trials):
        return trials


class SavesNothing(Guess):
    def saved(self, trials):
        return trials[:0]


class AnyPrice(Guess):
    def sample(self, candidates, rng):
        return candidates.space.sample(rng)


class ByChoices(Guess):
    """It scores architectures that stand for one network."""

    def form(self, space, architecture):
        return architecture


class Normalises(Guess):
    def order(self, trials):
        scores = [trial.score for trial in trials]
        return sorted(trials, key=lambda trial: -trial.score / (max(scores) - min(scores)))

    def take(self, trials):
        self.order(trials)
        return trials


ADAM = GateAdam(lr=0.1, beta1=0.5, beta2=0.999, weight_decay=0.0)


@dataclass(frozen=True, kw_only=True)
class LearnedGuess(GateSettings):
    """DARTS, whose learner a subclass may change."""

    adam: GateAdam = ADAM
    rest_epochs: float = 0.0
    spread: float = 0.1

    def make_learner(self, context, candidates):
        return self.learner(self, context)

    def learner(self, algo, context):
        return MixedGates(algo, context)


class SeedlessGates(LearnedGuess):
    def learner(self, algo, context):
        return MixedGates(algo, replace(context, streams=Streams(0)))


class ForgetsTheAverages(LearnedGuess):
    """A learner that goes on has lost the averages of its optimiser."""

    class learner(MixedGates):  # noqa: N801
        def load_state_dict(self, state):
            super().load_state_dict(state)
            self.optimiser.state.clear()


BROKEN_ALGOS = [
    (SeedlessGuess, "seed_and_scores_decide"),
    (FewerEachTime, "seed_and_scores_decide"),
    (GuessesStrangers, "what_is_asked_for_is_new"),
    (AnnouncesFewer, "rounds_are_as_announced"),
    (OthersEachTime, "the_same_is_asked_until_told"),
    (TakesTheLast, "scores_may_be_told_one_by_one"),
    (BestAreTheFirst, "the_best_are_sorted"),
    (SavesNothing, "a_search_goes_on_from_its_state"),
    (AnyPrice, "a_budget_is_kept"),
    (ByChoices, "an_exhausted_space_ends_the_search"),
    (Normalises, "equal_scores_break_nothing"),
    (SeedlessGates, "gates_follow_the_seed"),
    (ForgetsTheAverages, "gates_learn_on_from_their_state"),
]


@pytest.mark.parametrize("kind", [Guess, LearnedGuess])
def test_sound_algorithms_pass(kind: Any) -> None:
    check_algo(kind(), space(), few_images(), seed=1)


@pytest.mark.parametrize(("kind", "law"), BROKEN_ALGOS)
def test_an_algorithm_that_breaks_a_law_is_caught(kind: Any, law: str) -> None:
    laws = (*testing.ALGO_LAWS, *testing.GATE_LAWS)
    assert {law for _, law in BROKEN_ALGOS} == {law.__name__ for law in laws}
    with pytest.raises(AssertionError, match=rf"algorithm {kind.__name__} .* the law {law} \("):
        check_algo(kind(), space(), few_images(), only=[law])


class Judge(SupernetEvaluator):
    """Scores by a supernet, which subclasses change."""

    published: dict[Architecture, list[float]] | None = None

    def __init__(self) -> None:
        super().__init__(images=None, batch_size=8, batch_norm="batch", recalibration_images=8)
        self.calls = 0

    def bind(self, space, splits, compute, streams):
        judge, inner = self, super().bind(space, splits, compute, streams)

        class Judging(Scorer):
            published_scores = judge.published

            def score(self, architectures, supernet, monitor, gates_of=choices_of):
                for one in architectures:
                    judge.calls += 1
                    yield judge.judge(inner, one, supernet, gates_of)

        return Judging()

    def judge(self, inner, architecture, supernet, gates_of):
        (trial,) = inner.score([architecture], supernet, NullMonitor(), gates_of)
        return self.change(trial)

    def change(self, trial):
        return trial


class SaysOtherSeeds(Judge):
    def change(self, trial):
        return replace(trial, seed=7)


class PerCent(Judge):
    def change(self, trial):
        return replace(trial, score=100 * trial.score)


class Drifts(Judge):
    def change(self, trial):
        return replace(trial, score=trial.score / self.calls)


class Favours(Judge):
    """Together the first one has a better score."""

    def bind(self, space, splits, compute, streams):
        scorer = super().bind(space, splits, compute, streams)

        def together(architectures, *rest):
            first, *others = scorer.score(architectures, *rest)
            return architectures, [replace(first, score=first.score / 2 + 0.5), *others]

        scorer.together = together
        return scorer


class FewerImages(Judge):
    """Every other architecture is scored on fewer images."""

    def judge(self, inner, *rest):
        fewer = replace(inner, validation=list(inner.validation)[: 1 + self.calls % 2])
        return super().judge(fewer, *rest)


class NeedsNoSupernet(Judge):
    """It demands a supernet and does not use it."""

    def judge(self, inner, architecture, supernet, gates_of):
        cost = inner.space.cost(architecture, inner.problem)
        return Trial(architecture, 0.5, cost, inner.seed, {"evaluator": "none"})


class KeepsTraining(Judge):
    def judge(self, inner, architecture, supernet, gates_of):
        try:
            return super().judge(inner, architecture, supernet, gates_of)
        finally:
            supernet.train()


class OwnPaths(Judge):
    def judge(self, inner, architecture, supernet, gates_of):
        return super().judge(inner, architecture, supernet, choices_of)


class NothingForNaN(Judge):
    def change(self, trial):
        return trial if trial.score == trial.score else replace(trial, score=0.0)


class PublishesOthers(Judge):
    def __init__(self) -> None:
        super().__init__()
        options = range(4)
        self.published = {Architecture("my_space", (option,) * 4): [0.99] for option in options}


BROKEN_EVALUATORS = [
    (SaysOtherSeeds, "trials_say_how_they_came_about"),
    (PerCent, "scores_are_shares"),
    (Drifts, "scores_do_not_depend_on_the_others"),
    (Favours, "scores_together_are_scores_alone"),
    (FewerImages, "all_are_scored_on_the_same_images"),
    (NeedsNoSupernet, "all_are_scored_on_the_same_images"),
    (KeepsTraining, "the_supernet_is_left_as_it_was"),
    (OwnPaths, "gates_of_says_what_is_run"),
    (NothingForNaN, "outputs_that_are_not_finite_have_no_score"),
    (PublishesOthers, "published_scores_are_the_scores"),
]


@pytest.mark.parametrize(("kind", "law"), BROKEN_EVALUATORS)
def test_an_evaluator_that_breaks_a_law_is_caught(kind: type[Judge], law: str) -> None:
    assert {law for _, law in BROKEN_EVALUATORS} == {law.__name__ for law in testing.EVALUATOR_LAWS}
    check_evaluator(Judge(), space(), few_images(), only=[law])
    with pytest.raises(AssertionError, match=rf"evaluator {kind.__name__} .* the law {law} \("):
        check_evaluator(kind(), space(), few_images(), only=[law])
