"""Budgets: exact extremes, uniform draws, what is refused, and searches that keep to them."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from scipy import stats
from test_search_algo import Plain

from nasrun.budget import candidates as candidates_module
from nasrun.budget.additive import AdditiveCosts
from nasrun.budget.budget import Budget, Range
from nasrun.budget.candidates import Bounds, Candidates
from nasrun.building.field_words import in_our_words
from nasrun.building.hints import checked
from nasrun.cli.main import main
from nasrun.config.build import build
from nasrun.config.compose import compose
from nasrun.config.groups import conf_dir
from nasrun.config.yaml_files import read
from nasrun.errors import UserError
from nasrun.run.screen import Screen
from nasrun.search_algo import pool as pool_module
from nasrun.search_algo.pool import Pool
from nasrun.search_space.base import Measure, SearchSpace
from nasrun.search_space.dso_block.space import FinalScale as DsoFinalScale
from nasrun.search_space.spos.space import SposFinalScale
from nasrun.streams import Streams
from nasrun.values import Architecture, Decision, Problem
from tests.helpers import TASK, space_of

CIFAR = Problem(3, 32, 10)


class Pairs(SearchSpace):
    """Groups of two decisions whose costs multiply, and one decision alone."""

    name = "pairs"
    gate_kinds = frozenset({"path"})
    decisions = tuple(Decision(f"d{i}", ("a", "b", "c", "d")[:n]) for i, n in enumerate((3, 4, 2)))
    additive = ((2, 0), (1,))
    supernet = network = cost = cost_bound = None  # type: ignore[assignment]


def pairs_cost(architecture: Architecture) -> float:
    a, b, c = architecture.choices
    return 5.5 + (a + 1) * (3 * c - 2) + 0.25 * b * b


def macs(space: SearchSpace, problem: Problem = TASK) -> Measure:
    return space.sizer("macs", problem, "final")


@pytest.fixture(scope="module")
def macro() -> tuple[SearchSpace, dict[Architecture, float]]:
    space = space_of("nas_bench_macro")
    return space, {a: macs(space)(a) for a in space.every()}


def within(costs: dict[Architecture, float], low: float, high: float) -> list[Architecture]:
    return [a for a, cost in costs.items() if low <= cost <= high]


def check_uniform(
    space: SearchSpace, measure: Measure, costs: dict[Architecture, float], low: float, high: float
) -> None:
    """Candidates draw exactly what was enumerated, all alike."""
    feasible = within(costs, low, high)
    window = AdditiveCosts(space, measure).window(low, high)
    assert window.count >= len(feasible) > 0
    candidates = Candidates(space, [Bounds("macs", low, high)], {"macs": measure})
    rng = np.random.default_rng(len(feasible))
    drawn = Counter(candidates.sample(rng) for _ in range(3000))
    assert drawn.keys() <= set(feasible)
    # At least ten expected draws to a cell, so several architectures may share one.
    cells = min(len(feasible), 300)
    found, expected = np.zeros(cells), np.zeros(cells)
    for place, architecture in enumerate(feasible):
        found[place % cells] += drawn[architecture]
        expected[place % cells] += 3000 / len(feasible)
    if cells > 1:
        assert stats.chisquare(found, expected).pvalue > 1e-3


# Costs that add up.


@pytest.mark.few(2)
@pytest.mark.parametrize("name", ["nas_bench_macro", "nas_bench_201"])
@pytest.mark.parametrize("size", ["params", "macs"])
def test_terms_make_up_the_cost_of_every_architecture(name: str, size: Any) -> None:
    space = space_of(name)
    measure = space.sizer(size, CIFAR, "final")
    additive = AdditiveCosts(space, measure)
    costs = []
    for architecture in list(space.every())[:: 1 if name == "nas_bench_macro" else 11]:
        picks = [
            options.index(tuple(architecture.choices[i] for i in group))
            for group, options in zip(additive.groups, additive.options, strict=True)
        ]
        assert additive.architecture(picks) == architecture
        terms = zip(additive.terms, picks, strict=True)
        costs.append(measure(architecture))
        assert additive.base + sum(terms[pick] for terms, pick in terms) == costs[-1]
    assert additive.low <= min(costs)
    assert additive.high >= max(costs)
    assert {measure(a) for a in space.extremes(measure, Streams(3))} == {
        additive.low,
        additive.high,
    }
    if name == "nas_bench_macro":
        assert (additive.low, additive.high) == (min(costs), max(costs))


def test_terms_of_decisions_that_cost_together() -> None:
    space = Pairs()
    costs = {a: pairs_cost(a) for a in space.every()}
    additive = AdditiveCosts(space, pairs_cost)
    assert (additive.low, additive.high) == (min(costs.values()), max(costs.values()))
    values = sorted(set(costs.values()))
    points = [(value, value) for value in values[::5]]
    for low, high in [(-math.inf, math.inf), (values[2], values[5]), *points]:
        check_uniform(space, pairs_cost, costs, low, high)
    for low, high in pairwise(values[:6]):
        with pytest.raises(UserError, match=r"no architecture of pairs was found within"):
            middle = (low + high) / 2
            Candidates(space, [Bounds("macs", middle, middle)], {"macs": pairs_cost})


def test_a_space_that_does_not_add_up() -> None:
    with pytest.raises(ValueError, match="plain is not additive"):
        AdditiveCosts(Plain(2, 2), lambda a: 1.0)


@pytest.mark.few(2)
@pytest.mark.parametrize("quantiles", [(0, 1), (0, 0.4), (0.49, 0.51), (0.2, 0.2)])
def test_draws_are_uniform_among_all_within(macro: Any, quantiles: tuple[float, float]) -> None:
    space, costs = macro
    low, high = np.quantile(list(costs.values()), quantiles, method="nearest").tolist()
    check_uniform(space, macs(space), costs, low, high)


def test_the_ends_of_the_costs(macro: Any) -> None:
    space, costs = macro
    values = sorted(set(costs.values()))
    for low, high in [
        (-math.inf, values[0]),
        (values[-2], math.inf),
    ]:
        check_uniform(space, macs(space), costs, low, high)


def test_a_window_that_holds_everything_or_nothing(macro: Any) -> None:
    space, _ = macro
    additive = AdditiveCosts(space, macs(space))
    assert additive.window(-math.inf, math.inf).count == 3**8
    assert additive.window(0, 1e30).count == 3**8
    for low, high in [(0, additive.low - 1e3), (additive.high + 1e3, math.inf)]:
        window = additive.window(low, high)
        assert window.count == 0
        with pytest.raises(ValueError, match="empty"):
            window.sample(np.random.default_rng(0))


def test_no_narrow_window_misses_an_architecture() -> None:
    # Costs that no binary fraction is: the bounds are the architecture's own cost.
    space = Pairs()
    for seed in range(10):
        worth = np.random.default_rng(seed).random((3, 4, 2)) * 10.0 ** (seed % 5 - 3)

        def cost(architecture: Architecture, worth: Any = worth) -> float:
            a, b, c = architecture.choices
            return math.fsum([0.1, worth[a, 0, c], worth[0, b, 1]])

        additive = AdditiveCosts(space, cost)
        for architecture in space.every():
            value = cost(architecture)
            for low, high in [(value, value), (-math.inf, value), (value, math.inf)]:
                assert additive.window(low, high).count >= 1
            candidates = Candidates(space, [Bounds("macs", value, value)], {"macs": cost})
            assert cost(candidates.sample(np.random.default_rng(0))) == value


def test_costs_that_are_all_the_same() -> None:
    space = Pairs()
    for value in (0.0, 7.25):
        window = AdditiveCosts(space, lambda a, value=value: value).window(value, value)  # type: ignore[misc]
        assert window.count == space.size
        assert AdditiveCosts(space, lambda a, v=value: v).window(0, value / 2).count in (
            0,
            space.size,
        )  # type: ignore[misc]


# What architectures are drawn from.


def test_without_bounds_draws_are_those_of_the_space() -> None:
    space = space_of("nao_cell")
    ours, theirs = np.random.default_rng(5), np.random.default_rng(5)
    candidates = Candidates(space)
    assert [candidates.sample(ours) for _ in range(50)] == [space.sample(theirs) for _ in range(50)]
    assert candidates.allows(space.sample(ours))
    assert candidates.costs(space.sample(ours)) == {}


def test_an_unreachable_bound_is_named_with_the_nearest_value(macro: Any) -> None:
    space, costs = macro
    low, high = min(costs.values()), max(costs.values())

    def refused(bound: Bounds) -> str:
        with pytest.raises(UserError) as caught:
            Candidates(space, [bound], {"macs": macs(space)})
        return str(caught.value)

    message = refused(Bounds("macs", -math.inf, low - 1))
    assert f"budget.macs.max={low - 1:,} cannot be met" in message
    assert message.endswith(f"the smallest macs of nas_bench_macro is {low:,}")
    message = refused(Bounds("macs", high + 1, math.inf))
    assert f"budget.macs.min={high + 1:,} cannot be met" in message
    assert message.endswith(f"the largest macs of nas_bench_macro is {high:,}")


class Counting:
    """A measure that counts its calls."""

    def __init__(self, measure: Measure) -> None:
        self.measure, self.calls = measure, 0

    def __call__(self, architecture: Architecture) -> float:
        self.calls += 1
        return self.measure(architecture)


def test_bounds_that_contradict_each_other(macro: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(candidates_module, "MAX_WINDOW_SAMPLES", 2000)
    space, costs = macro
    size = Counting(macs(space))
    params = Counting(space.sizer("params", TASK, "final"))
    most = max(map(params.measure, costs))
    bounds = [Bounds("macs", 0, min(costs.values())), Bounds("params", most, math.inf)]
    with pytest.raises(
        UserError, match=r"budget.macs.max=.* budget.params.min=.*: no architecture"
    ):
        Candidates(space, bounds, {"macs": size, "params": params})
    assert size.calls + params.calls < 20_000


def test_two_bounds_are_both_kept(macro: Any) -> None:
    space, costs = macro
    params = space.sizer("params", TASK, "final")
    low, high = np.quantile(list(map(params, costs)), [0.3, 0.6]).tolist()
    middle = float(np.median(list(costs.values())))
    bounds = [Bounds("macs", -math.inf, middle), Bounds("params", low, high)]
    candidates = Candidates(space, bounds, {"macs": macs(space), "params": params})
    feasible = {a for a in costs if costs[a] <= middle and low <= params(a) <= high}
    assert {candidates.sample(np.random.default_rng(i)) for i in range(300)} <= feasible
    assert {a for a in costs if candidates.allows(a)} == feasible


@pytest.mark.few(1)
@pytest.mark.parametrize("name", ["spos_blocks", "spos_blocks_channels"])
def test_narrow_budgets_are_drawn_in_a_few_steps(name: str) -> None:
    space = space_of(name, "effort=full")
    plain = macs(space, CIFAR)
    middle = plain(space.sample(np.random.default_rng(1)))
    additive = AdditiveCosts(space, plain)
    for low, high in [
        (middle, middle),
        (middle * 0.9999, middle * 1.0001),
        (-math.inf, additive.low),
        (additive.high, math.inf),
    ]:
        measure = Counting(plain)
        candidates = Candidates(space, [Bounds("macs", low, high)], {"macs": measure})
        measure.calls, rng = 0, np.random.default_rng(2)
        drawn = [candidates.sample(rng) for _ in range(10)]
        assert measure.calls < 1000  # plain draws would need thousands for each
        assert all(low <= plain(a) <= high for a in drawn)


@pytest.mark.soak
def test_where_costs_do_not_add_up() -> None:
    space = space_of("nao_cell")
    measure = macs(space)
    low, high = map(measure, space.extremes(measure, Streams(0)))
    most = low + 0.05 * (high - low)
    candidates = Candidates(space, [Bounds("macs", -math.inf, most)], {"macs": measure})
    assert not candidates.exact
    drawn = {candidates.sample(np.random.default_rng(i)) for i in range(20)}
    assert all(measure(a) <= most for a in drawn)
    assert len(drawn) == 20
    for bound in (Bounds("macs", 0, low / 2), Bounds("macs", high * 2, math.inf)):
        with pytest.raises(UserError, match=r"cannot be met: .* that was found is"):
            Candidates(space, [bound], {"macs": measure})


def test_pools_take_nothing_outside_the_budget(macro: Any, monkeypatch: Any) -> None:
    space, costs = macro
    monkeypatch.setattr(pool_module, "MAX_FRUITLESS_SAMPLES", 2000)
    most = sorted(costs.values())[60]
    candidates = Candidates(space, [Bounds("macs", 0, most)], {"macs": macs(space)})
    pool = Pool(candidates)
    found: dict[Architecture, Architecture] = {}
    pool.collect(space.every(), 10_000, found)
    feasible = within(costs, 0, most)
    assert set(found) == {space.canonical(a) for a in feasible}
    # Random draws find all of them too, and end.
    drawn: dict[Architecture, Architecture] = {}
    pool.sample(np.random.default_rng(0), 10_000, drawn)
    assert set(drawn) == set(found)
    assert set(drawn.values()) <= set(feasible)


# From the command line.

SMOKE = ("effort=smoke", "threads=1", "dataset=synthetic", "sampler=uniform")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NASRUN_DEBUG", raising=False)
    return tmp_path


@pytest.fixture
def refused(here: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    def call(*words: str) -> str:
        assert main(["search", *SMOKE, *words]) == 2
        said = capsys.readouterr().err
        assert said.startswith("nasrun: error: ")
        assert said.count("\n") == 1
        assert not list(here.glob("outputs/search/*"))
        return said

    return call


@pytest.mark.few(5)
@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("budget.macs.min=3e6 budget.macs.max=2e6", "budget.macs: min=3e+06 is above max=2e+06"),
        ("budget.macs.max=1", "budget.macs.max=1 cannot be met: the smallest macs of spos_blocks"),
        ("budget.bitops.max=1e9", "no bits, so it has no bitops: take search_space=spos_quantized"),
        ("budget.macs.max=-1", "max = -1"),
        ("budget.macs.max=many", "macs.max = many"),
        ("search_algo=nsga2 search_algo.goals=[bitops]", "so it has no bitops"),
        ("search_algo=nsga2 search_algo.goals=[macs,macs]", "each goal once"),
        ("search_algo.population=0", "population = 0"),
        ("search_algo.population=5 search_algo.top=6", "top=6 is more than"),
        ("search_algo.mutations=5", "mutations=5 and crossovers=2 are more than"),
    ],
)
def test_what_cannot_be_is_refused(refused: Callable[..., str], words: str, said: str) -> None:
    assert said in refused("search_space=spos_blocks", "search_algo=evolution", *words.split())


@pytest.mark.few(1)
@pytest.mark.parametrize(
    ("space", "algo", "size"),
    [
        ("spos_blocks", "random", "params"),
        ("spos_blocks", "evolution", "macs"),
        ("spos_quantized", "nsga2", "bitops"),
        ("nao_cell", "nao", "macs"),
    ],
)
def test_every_trial_keeps_to_the_budget(here: Path, space: str, algo: str, size: Any) -> None:
    # Final networks are wider than those of the supernet, and the budget is theirs.
    final = "search_space.final." + {"nao_cell": "channels=6"}.get(space, "width=0.1875")
    words = [f"search_space={space}", f"search_algo={algo}", final, "shortlist.count=1"]
    if algo == "nsga2":
        words.append("search_algo.goals=[bitops]")
    if algo == "nao":
        words += ["search_algo.predictor.hidden=8", "search_algo.initial=4"]
    built = space_of(space, final)
    problem = Problem(3, 8, 4)  # dataset=synthetic
    measure = built.sizer(size, problem, "final")
    values = [measure(built.sample(np.random.default_rng(i))) for i in range(100)]
    low, high = (int(value) for value in np.quantile(values, [0.2, 0.35]))
    budget = [f"budget.{size}.min={low}", f"budget.{size}.max={high}"]
    assert main(["search", *SMOKE, *words, *budget, "hydra.run.dir=run"]) == 0
    trials = [json.loads(line) for line in Path("run/trials.jsonl").read_text().splitlines()]
    assert len(trials) >= 6
    for trial in trials:
        cost = built.cost(built.read(trial["architecture"]), problem, "final")
        assert low <= getattr(cost, size) <= high


@pytest.mark.parametrize(
    ("text", "number"),
    [
        *(("600M", 600e6), ("0.33G", 330e6), ("330e6", 330e6), ("3.5 M", 3.5e6), ("12k", 12e3)),
        *((".5K", 500.0), (7, 7.0), (2.5, 2.5), ("1.1M", 1_100_000.0)),
    ],
)
def test_amounts_as_people_write_them(text: object, number: float) -> None:
    built = build({"_target_": "nasrun.budget.budget.Budget", **ranges(max=text)}, "budget")
    assert built.ranges["macs"].max == number
    for scale in (SposFinalScale, DsoFinalScale):
        fields = {"macs": text, "params": text, "width": 1.0, "channels": 16, "step": 2}
        made = checked({k: fields[k] for k in scale.model_fields if k in fields}, scale, "final")
        assert made.macs == made.params == number


def ranges(**macs: object) -> dict[str, Any]:
    free = {"min": None, "max": None}
    latency = read(conf_dir() / "budget" / "default.yaml")["latency"] | {"store": "s"}
    names = ("params", "bitops", "latency_ms")
    return {"macs": {**free, **macs}, "latency": latency, **dict.fromkeys(names, free)}


@pytest.mark.parametrize("name", ["macs", "params"])
def test_a_bound_may_be_a_share_of_the_largest_network(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    space = space_of("spos_blocks")
    free = Range(min=None, max=None)
    bounds = dict.fromkeys(("params", "macs", "bitops", "latency_ms"), free)
    latency: Any = None
    wanted = Range(min="20%", max="60 %")  # type: ignore[arg-type]
    budget = Budget(**bounds | {name: wanted}, latency=latency)
    assert budget.ranges[name].max is None  # not known yet
    candidates = budget.bind(space, TASK, latency, Screen())
    measure = space.sizer(cast(Any, name), TASK, "final")
    choices = [0] * len(space.decisions)
    for place in range(len(choices)):  # costs add up, so each decision is settled by itself

        def with_option(option: int, place: int = place) -> float:
            return measure(
                Architecture(space.name, (*choices[:place], option, *choices[place + 1 :]))
            )

        choices[place] = max(range(4), key=with_option)
    largest = measure(Architecture(space.name, tuple(choices)))
    assert budget.ranges[name].max == pytest.approx(0.6 * largest)
    assert budget.ranges[name].min == pytest.approx(0.2 * largest)
    found = [candidates.sample(np.random.default_rng(seed)) for seed in range(50)]
    costs = [measure(each) for each in found if each is not None]
    assert len(costs) == 50 and 0.2 * largest <= min(costs) <= max(costs) <= 0.6 * largest
    said = capsys.readouterr().out
    assert f"budget.{name}.max=60% of the largest network's" in said and "at most" in said


@pytest.mark.parametrize("text", ["0%", "101%", "-5%", "%", "x%"])
def test_shares_beyond_all_networks_are_refused(text: str) -> None:
    with pytest.raises(UserError, match=r"budget.macs.max = .*must be"):
        build({"_target_": "nasrun.budget.budget.Budget", **ranges(max=text)}, "budget")


def test_a_fitted_width_knows_no_share() -> None:
    config = compose(["search_space=dso_block", "budget.macs.max=60%"])
    with pytest.raises(UserError, match=r"search_space.final.macs = 60%: .*no share"):
        build(config["search_space"], "search_space")


@pytest.mark.parametrize("text", ["600m", "1,5M", "600MB", "M", "1e6M", "-3M", "nan", "inf", ""])
def test_other_words_are_no_amounts(text: object) -> None:
    with pytest.raises(UserError, match=r"budget.macs.max = |must be") as error:
        build({"_target_": "nasrun.budget.budget.Budget", **ranges(max=text)}, "budget")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("key", "setting", "unit"),
    [
        ("budget.flops.max", "budget.macs.max", "one is two FLOPs"),
        ("budget.MFLOPs.min", "budget.macs.min", "one is two FLOPs"),
        ("budget.max_flops", "budget.macs.max", "one is two FLOPs"),
        ("budget.flops", "budget.macs.max", "one is two FLOPs"),
        ("flops", "budget.macs.max", "one is two FLOPs"),
        ("budget.madds.max", "budget.macs.max", "multiply-adds of one image"),
        ("budget.mult_adds", "budget.macs.max", "multiply-adds of one image"),
        ("budget.parameters.max", "budget.params.max", "number of parameters"),
        ("max_params", "budget.params.max", "number of parameters"),
        ("budget.latency.max", "budget.latency_ms.max", "milliseconds of one batch"),
        ("budget.min_latency", "budget.latency_ms.min", "milliseconds of one batch"),
        ("budget.bops.max", "budget.bitops.max", "bit-operations"),
    ],
)
def test_words_of_the_field_lead_to_the_setting(key: str, setting: str, unit: str) -> None:
    told = in_our_words(key)
    assert told is not None
    assert told.startswith(f"the bound is {setting}, in ")
    assert unit in told


@pytest.mark.parametrize("key", ["search_algo.lr_min", "time", "trainer.size", "max", "budget.x"])
def test_other_words_lead_nowhere(key: str) -> None:
    assert in_our_words(key) is None


def test_a_budget_in_other_words_is_told_the_setting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["search", "budget.flops.max=600e6", "--cfg", "job"]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "there is no setting 'budget.flops.max': the bound is budget.macs.max" in err
    config = compose(["+budget.latency.max=25"])["budget"]  # as a file of settings may add it
    with pytest.raises(UserError, match=r"budget\.latency\.max: .*is budget\.latency_ms\.max"):
        build(config, "budget")
