"""DARTS and its heirs: gradients against known ones, what the gates learn, going on, bad input."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from helpers import (
    CPU,
    TASK,
    Images,
    Recorder,
    gate_context,
    space_of,
    splits,
    train_step,
    trainer,
)
from torch import nn

from nasrun.budget.candidates import Candidates
from nasrun.cli.main import main
from nasrun.config.build import build, build_setup
from nasrun.config.compose import compose
from nasrun.run.monitor import NullMonitor
from nasrun.search_algo.gates.bilevel import second_order
from nasrun.search_algo.gates.binary import BinaryGates
from nasrun.search_algo.gates.learned_gates import LearnedGates
from nasrun.search_algo.gates.mixed_gates import MixedGates
from nasrun.search_algo.gates.p_darts import PDarts, ProgressiveGates, StagedSupernet
from nasrun.search_algo.gates.resource import CostFactor, ExpectedCost
from nasrun.search_algo.gates.soft_gates import GateAdam
from nasrun.search_algo.gates.temperature import Temperature
from nasrun.search_algo.gates.widening import widen
from nasrun.search_space.base import Supernet
from nasrun.search_space.darts_cell.edge import Edge
from nasrun.search_space.darts_cell.operations import SKIP
from nasrun.search_space.noise import Noise
from nasrun.streams import Streams
from nasrun.trainer.step import BatchGradients
from nasrun.trainer.step_rules import StepRules
from nasrun.values import Architecture

ALGORITHMS = ("darts", "snas", "proxyless", "p_darts")
DEVICE = torch.device("cpu")
ADAM = GateAdam(lr=0.1, beta1=0.5, beta2=0.999, weight_decay=0.0)


def started(algo: str, *words: str, space: str = "darts_cell", epochs: int = 2):
    """The algorithm as a smoke run has it, and its training: 4 steps an epoch."""
    overrides = [f"search_space={space}", f"search_algo={algo}", "effort=smoke", *words]
    built = build_setup(compose(["task=search", *overrides]))
    algo_settings, one = built.search_algo, built.search_space
    algo_settings.check(one)
    found = algo_settings.bind(Candidates(one), Streams(0), DEVICE)
    found.bind_learner(gate_context(one, epochs))
    with Streams(0).default("init"):
        supernet = algo_settings.supernet(one, TASK, auxiliary=False)
    how = trainer(epochs=epochs, batch_size=16, log_every=1)
    rules = StepRules(learner=found.learner)
    return found, how.bind(supernet, splits().train, CPU, Streams(0), rules=rules)


def train(algo, training, monitor=None, **changed) -> None:
    training.train_round(monitor or NullMonitor(), "supernet", algo.learner.gates, **changed)


def settings(**changed) -> LearnedGates:
    return LearnedGates(**{"adam": ADAM, "rest_epochs": 0, "spread": 0.0, **changed})


def gates_of(space, epochs: int = 2, **changed) -> MixedGates:
    one = settings(**changed)
    return one.make_learner(gate_context(space, epochs), Candidates(space))


def snas_gates(space) -> MixedGates:
    falls = Temperature(start=1.0, end=0.03, fall="linear", rate=0.0)
    return gates_of(space, 500, relaxation="gumbel", levels=1, temperature=falls)


class Toy(Supernet):
    """Two decisions of two options; the logits are smooth in the weights and in the gates."""

    def __init__(self) -> None:
        super().__init__()
        with Streams(1).default("toy"):
            self.layers = nn.ModuleList(nn.Linear(64, 4, bias=False) for _ in range(4))

    def forward(self, x, gates):
        flat = x.flatten(1)
        a, b = gates
        first = sum(w * torch.tanh(self.layers[o](flat)) for o, w in a.items())
        return sum(w * torch.sin(self.layers[2 + o](flat)) for o, w in b.items()) * (1 + first)


@pytest.mark.parametrize("own_step", [True, False])
def test_gates_learn_in_fp32_where_weights_learn_in_bf16(own_step):
    """In steps of their own, and where they learn with the weights (SNAS)."""
    images, labels = next(Images(64).train_batches(16, streams=Streams(5)))
    shares = torch.tensor([[0.3, 0.7], [0.6, 0.4]])

    def learned(bf16: bool, gates_learn: bool = True) -> list[torch.Tensor]:
        training = trainer().bind(Toy(), Images(64), replace(CPU, bf16=bf16), Streams(0))
        leaf = shares.clone().requires_grad_(gates_learn)
        gates = [{0: row[0], 1: row[1]} for row in leaf]
        if own_step and gates_learn:
            training.gradients(images, labels, gates, [leaf])
            return [leaf.grad]
        training.batch_gradients.add(images, labels, [gates], training.position)
        weights = [layer.weight.grad for layer in training.network.layers]
        return [leaf.grad, *weights] if gates_learn else weights

    assert all(torch.equal(a, b) for a, b in zip(learned(False), learned(True), strict=True))
    plain = zip(learned(False, False), learned(True, False), strict=True)
    assert not any(torch.equal(a, b) for a, b in plain)


@pytest.mark.parametrize(("momentum", "steps"), [(0.0, 0), (0.9, 3)])
def test_the_second_order_gradient_is_that_of_automatic_differentiation(momentum, steps):
    how = trainer(momentum=momentum, weight_decay=0.01, decay_norm_and_bias=True, clip=0.0)
    training = how.bind(Toy(), Images(64), CPU, Streams(0))
    batches = Images(64).train_batches(16, streams=Streams(5))
    uniform = [{0: 0.5, 1: 0.5}] * 2
    for _ in range(steps):  # so that there is momentum
        train_step(training, *next(batches), [uniform])
        training.step += 1
    images, held_out = next(batches), next(Images(32, seed=1).train_batches(16, streams=Streams(6)))
    weights = torch.tensor([[0.3, 0.7], [0.6, 0.4]])

    gates = gates_of(space_of("nas_bench_201"), order=2, spread=0.1)
    gates.opened = torch.ones(2, 2, dtype=torch.bool)
    before = [p.detach().clone() for p in training.network.parameters()]
    found, _ = second_order(training, images, held_out, weights, gates.gates_by)
    assert all(
        torch.equal(a, b) for a, b in zip(before, training.network.parameters(), strict=True)
    )
    assert all(p.grad is None for p in training.network.parameters())

    leaf = weights.clone().requires_grad_()
    names = [name for name, _ in training.network.named_parameters()]

    def loss(parameters, batch):
        mixture = [{0: row[0], 1: row[1]} for row in leaf]
        logits = torch.func.functional_call(
            training.network, dict(zip(names, parameters, strict=True)), (batch[0], mixture)
        )
        return nn.functional.cross_entropy(logits, batch[1])

    parameters = [p.detach().clone().requires_grad_() for p in before]
    own = torch.autograd.grad(loss(parameters, images), parameters, create_graph=True)
    state = training.updates.optimisers[0].state
    velocities = [
        state[p]["momentum_buffer"] if p in state else torch.zeros_like(p)
        for p in training.network.parameters()
    ]
    assert bool(steps) == any(v.any() for v in velocities)
    rate = training.learning_rate()
    moved = [
        p - rate * (g + 0.01 * p + momentum * v)
        for p, g, v in zip(parameters, own, velocities, strict=True)
    ]
    loss(moved, held_out).backward()
    first = torch.zeros_like(weights)
    assert torch.allclose(found, leaf.grad, rtol=2e-2, atol=2e-4)
    # The first order alone is far off: the test would notice a missing second term.
    direct = weights.clone().requires_grad_()
    training.gradients(*held_out, gates.gates_by(direct), [direct])
    first = direct.grad
    assert (first - leaf.grad).norm() > 5 * (found - leaf.grad).norm()


@pytest.mark.parametrize("space", ["darts_cell", "nas_bench_201", "nas_bench_macro"])
def test_all_weight_on_one_option_is_the_single_path(space):
    one = space_of(space)
    with Streams(0).default("init"):
        supernet = one.supernet(TASK).eval()
    gates = gates_of(one, spread=0.0)
    path = one.sample(Streams(0).numpy("x")).choices
    with torch.no_grad():
        gates.logits.zero_()
        for row, choice in zip(gates.logits, path, strict=True):
            row[choice] = 1e4
    images = Images(8).images
    soft = supernet(images, gates.gates(0)[0])
    assert torch.allclose(soft, supernet(images, path), atol=1e-6)


def test_shares_add_up_and_closed_options_have_none():
    one = space_of("darts_cell")
    gates = gates_of(one, spread=1.0, edges=True)
    gates.opened[3, 2:5] = False
    weights = gates.weights()
    assert one.edges_by_node == one.groups
    for group in one.groups:  # the edges of a node share one, and so do the options of each
        assert weights[list(group)].sum().item() == pytest.approx(1)
    assert (weights[3, 2:5] == 0).all() and (weights[3, 5:] > 0).all()
    shut = gates.gates(0)[0][3]
    assert set(shut) == {0, 1, 5, 6, 7}
    gates.edges = False
    assert torch.allclose(gates.weights().sum(1), torch.ones(28))


def test_edges_of_nas_bench_201_share_the_weight_of_their_node():
    one = space_of("nas_bench_201")
    gates = gates_of(one, spread=1.0, edges=True)
    nodes = [[0], [1, 2], [3, 4, 5]]  # 1←0; 2←0, 2←1; 3←0, 3←1, 3←2
    shares = gates.weights().sum(1)
    for node in nodes:
        assert torch.allclose(shares[node], gates.edge_logits[node].softmax(0))
    target = torch.tensor([1.0, 0.2, 0.8, 0.6, 0.3, 0.1])
    for _ in range(300):
        weights = gates.weights()
        gates.update(weights, 2 * (weights.sum(1) - target)[:, None].expand_as(weights).detach())
    assert torch.allclose(gates.weights().sum(1), target, atol=0.02)


@pytest.mark.parametrize("name", ["darts_cell", "nas_bench_macro"])
def test_gates_that_are_all_alike_are_warned_of(name):
    gates = gates_of(space_of(name), spread=1e-3)
    assert gates.warning() is not None
    with torch.no_grad():
        gates.logits[:, 1] += 0.5
    assert gates.warning() is None
    gates.opened[:, 0] = False
    gates.opened[:, 2:] = False
    assert gates.warning() is None  # where one option is left there is nothing to learn


def test_a_genotype_takes_two_inputs_of_each_node_and_never_none():
    one = space_of("darts_cell")
    weights = torch.zeros(28, 8)
    weights[:, 0] = 0.9  # none is heaviest everywhere
    weights[2, 5], weights[4, 1], weights[3, 7] = 0.5, 0.4, 0.3  # node 1 reads its edges 2, 3, 4
    found = one.strongest(weights.tolist())
    assert one.check(found) == found
    assert (found.choices[2], found.choices[3], found.choices[4]) == (5, 0, 1)


class Planted(Supernet):
    """One option of every decision lets the class through, all others let nothing through."""

    def __init__(self, option: int) -> None:
        super().__init__()
        self.option = option
        with Streams(1).default("planted"):
            self.linear = nn.Linear(64, TASK.classes)

    def forward(self, x, gates):
        opened = [gate if isinstance(gate, dict) else {gate: 1.0} for gate in gates]
        through = sum(gate.get(self.option, 0.0) for gate in opened) / len(opened)
        return through * self.linear(x.flatten(1))


@pytest.mark.few(2)
@pytest.mark.parametrize("option", [0, 3])
@pytest.mark.parametrize("algo", ["darts", "darts search_algo.order=2", "snas", "proxyless"])
def test_they_find_the_option_that_helps(algo, option):
    epochs, monitor = 40, Recorder()
    name, *words = algo.split()
    words += ["search_algo.adam.lr=0.1", "search_algo.rest_epochs=1"]
    found, _ = started(name, *words, space="nas_bench_201", epochs=epochs)
    how = trainer(epochs=epochs, batch_size=16, log_every=1)
    rules = StepRules(learner=found.learner)
    train(found, how.bind(Planted(option), splits().train, CPU, Streams(0), rules=rules), monitor)
    assert found.learner.derive().choices == (option,) * 6
    assert found.learner.weights()[:, option].min() > 0.3  # 0.2 at first; the loss is soon small
    entropy = [line["gates_entropy"] for line in monitor.metrics]
    assert entropy[0] == pytest.approx(math.log(5), abs=0.05) and entropy[-1] < 0.95 * entropy[0]


def test_gates_rest_while_the_weights_learn_alone():
    algo, training = started("darts", "search_algo.rest_epochs=1", space="nas_bench_201")
    logits = algo.learner.logits.detach().clone()
    train(algo, training, epochs=1)
    assert torch.equal(algo.learner.logits, logits)
    train(algo, training)
    assert not torch.equal(algo.learner.logits, logits)


def test_snas_draws_softer_or_harder_choices_as_the_temperature_falls():
    one = space_of("nas_bench_201")
    gates = snas_gates(one)
    assert gates.temperature(0) == 1.0 and gates.temperature(1999) == pytest.approx(0.03)
    assert gates.temperature(1000) == pytest.approx((1 + 0.03) / 2, rel=1e-3)

    def heaviest(steps) -> torch.Tensor:
        drawn = [gates.gates(step)[0] for step in steps]
        with torch.no_grad():
            return torch.tensor([[float(max(g.values())) for g in path] for path in drawn])

    soft, hard = heaviest(range(200)), heaviest(range(1900, 2000))
    assert hard.mean() > 0.95 > 0.7 > soft.mean()


def test_logits_of_snas_start_as_in_its_released_code():
    found, _ = started("snas", space="nas_bench_201")
    logits = found.learner.logits.detach()
    assert logits.mean().item() == pytest.approx(1, abs=4 * 0.01 / math.sqrt(30))
    assert logits.std().item() == pytest.approx(0.01, rel=0.5)


@pytest.mark.few(1)
@pytest.mark.parametrize(("name", "norm"), [("darts", 0.0), ("p_darts", 5.0), ("snas", 10.0)])
def test_the_gradient_of_all_logits_together_is_clipped(name, norm):
    built = build_setup(compose(["task=search", f"search_algo={name}", "search_space=darts_cell"]))
    assert built.search_algo.adam.clip == norm
    one = space_of("nas_bench_201")
    adam = ADAM.model_copy(update={"clip": norm})
    gates = gates_of(one, adam=adam, spread=1.0, edges=True)
    weights = gates.weights()
    gates.update(weights, torch.arange(30.0).view(6, 5) * 1e3)
    means = [gates.optimiser.state[logits]["exp_avg"] for logits in gates.learned]
    found = torch.cat([mean.flatten() for mean in means]).norm().item() / (1 - ADAM.beta1)
    assert found == pytest.approx(norm, rel=1e-4) if norm else found > 100


def test_snas_chooses_options_by_their_shares():
    """The Gumbel trick: the heaviest of the relaxed choices is option k with probability p_k."""
    one = space_of("nas_bench_201")
    gates = snas_gates(one)
    shares = torch.tensor([0.5, 0.25, 0.15, 0.07, 0.03])
    with torch.no_grad():
        gates.logits.copy_(shares.log().expand(6, 5))
    drawn = torch.zeros(5)
    for step in range(600):
        for gate in gates.gates(step)[0]:
            drawn[max(gate, key=gate.get)] += 1
    drawn /= drawn.sum()
    error = 4.5 * (shares * (1 - shares) / 3600).sqrt()
    assert ((drawn - shares).abs() < error).all()


def test_snas_learns_from_the_weights_own_step():
    algo, training = started("snas", "search_algo.adam.lr=0.1", space="nas_bench_201")
    calls = []
    training.gradients = lambda *rest: calls.append(rest)  # type: ignore[method-assign]
    before = algo.learner.logits.detach().clone()
    train(algo, training)
    assert not calls and not torch.equal(before, algo.learner.logits)


@pytest.mark.soak
def test_a_resource_term_makes_cheap_options_heavier():
    words = ("search_algo.adam.lr=0.1", "search_algo.resource.cost=macs")
    costs = {}
    for weight in (0, 1000):
        built = build_setup(
            compose(
                [
                    *("task=search", "search_space=nas_bench_macro", "search_algo=snas"),
                    *("effort=smoke", *words, f"search_algo.resource.weight={weight}"),
                ]
            )
        )
        one = built.search_space
        candidates = Candidates(one, measure_of=lambda n, o=one: o.sizer(n, TASK))
        algo = built.search_algo.bind(candidates, Streams(0), DEVICE)
        algo.bind_learner(gate_context(one, epochs=5))
        with Streams(0).default("init"):
            supernet = one.supernet(TASK)
        rules = StepRules(learner=algo.learner)
        how = trainer(epochs=5)
        train(algo, how.bind(supernet, splits().train, CPU, Streams(0), rules=rules))
        costs[weight] = one.cost(algo.learner.derive(), TASK).macs
    assert costs[1000] < costs[0]


def test_expected_costs_are_the_means_over_all_architectures():
    one = space_of("nas_bench_macro")
    expected = ExpectedCost(one, one.sizer("macs", TASK))
    shares = torch.rand(8, 3).softmax(1)
    mean = 0.0
    for place in range(8):  # exact, as costs add up: check by single and by random architectures
        for option in range(3):
            choices = [0] * 8
            choices[place] = option
            found = Architecture(one.name, tuple(choices))
            assert expected.base + expected.added[place, option] == one.cost(found, TASK).macs
            mean += float(shares[place, option] * expected.added[place, option])
    assert expected.expected_of(shares).item() == pytest.approx(expected.base + mean, rel=1e-5)
    assert expected.largest == one.cost_bound(TASK).macs


def binary(**changed) -> BinaryGates:
    adam = GateAdam(lr=0.1, beta1=0.0, beta2=0.999, weight_decay=0)
    gates = gates_of(
        space_of("nas_bench_201"), 500, **{"relaxation": "binary", "adam": adam, **changed}
    )
    assert isinstance(gates, BinaryGates)
    return gates


def test_proxyless_trains_paths_by_their_shares():
    gates = binary()
    shares = torch.tensor([0.5, 0.25, 0.15, 0.07, 0.03])
    with torch.no_grad():
        gates.logits.copy_(shares.log().expand(6, 5))
    drawn = torch.zeros(5)
    for step in range(600):
        for choice in gates.gates(step)[0]:
            drawn[choice] += 1
    error = 4.5 * (shares * (1 - shares) / 3600).sqrt()
    assert ((drawn / 3600 - shares).abs() < error).all()
    resting = binary(rest_epochs=100)
    with torch.no_grad():
        resting.logits[:, 0] = 100.0
    chosen = {choice for step in range(30) for choice in resting.gates(step)[0]}
    assert chosen == {0, 1, 2, 3, 4}


class Slope:
    """A training whose loss has the derivative ``slope[option]`` by the gate of each option."""

    def __init__(self, slope: list[float]) -> None:
        self.slope, self.network = slope, nn.Module()
        self.pairs: list[set[int]] = []

    def gradients(self, images, labels, gates, inputs):
        assert len(inputs) == 1
        self.pairs = [set(gate) for gate in gates]
        assert all(sorted(w.item() for w in gate.values()) == [0.0, 1.0] for gate in gates)
        total = sum(self.slope[option] * w for gate in gates for option, w in gate.items())
        total.backward()
        return torch.tensor([1.0, 0.5])


def test_proxyless_moves_two_logits_and_keeps_the_sum_of_their_exponentials():
    gates, slope = binary(spread=0.5), Slope([3.0, 1.0, 0.0, -1.0, -2.0])
    for step in range(20):
        before = gates.logits.detach().clone()
        gates.learn_before(step, (torch.zeros(0), torch.zeros(0)), slope)  # type: ignore[arg-type]
        for row, old, pair in zip(gates.logits, before, slope.pairs, strict=True):
            low, high = sorted(pair, key=slope.slope.__getitem__)
            assert len(pair) == 2
            assert row[low] > old[low] and row[high] < old[high]  # the one that lowers the loss
            others = [option for option in range(5) if option not in pair]
            assert torch.equal(row[others], old[others])
            two = [low, high]
            assert row[two].exp().sum().item() == pytest.approx(old[two].exp().sum().item())
    for step in range(20, 300):
        gates.learn_before(step, (torch.zeros(0), torch.zeros(0)), slope)  # type: ignore[arg-type]
    assert (gates.logits.argmax(1) == 4).all()


def test_proxyless_cost_factor_by_hand():
    factor = CostFactor(cost="latency_ms", reference=100.0, factor=0.2, power=0.3)
    assert factor.factor_of(torch.tensor(100.0)).item() == pytest.approx(0.2)
    expected = 0.2 * (math.log(50) / math.log(100)) ** 0.3
    assert factor.factor_of(torch.tensor(50.0)).item() == pytest.approx(expected)


@pytest.mark.parametrize(("cost", "unit"), [("latency_ms", 1), ("macs", 1e6), ("params", 1e3)])
def test_the_cost_factor_takes_logarithms_in_the_unit_of_its_reference(cost, unit):
    """Networks of 40 and 80 units bite alike in each cost, by the released formula."""
    factor = CostFactor(cost=cost, reference=60, factor=0.2, power=0.3)
    for units in (40, 80):
        expected = torch.tensor(units * unit, dtype=torch.float64, requires_grad=True)
        found = factor.factor_of(expected)
        share = math.log(units) / math.log(60)
        assert found.item() == pytest.approx(0.2 * share**0.3)
        found.backward()
        slope = 0.2 * 0.3 * share**-0.7 / math.log(60) / units
        assert expected.grad.item() * unit == pytest.approx(slope)


@pytest.mark.soak
def test_p_darts_grows_and_keeps_the_heaviest_options():
    algo, training = started("p_darts", epochs=3)
    assert isinstance(training.network, StagedSupernet)
    counts = [len(one.cells) for one in training.network.stages]
    assert counts == [3, 3, 4]
    opened, heaviest = [], []
    for epoch in (1, 2, 3):
        train(algo, training, epochs=epoch)
        opened.append(algo.learner.opened.clone())
        heaviest.append(algo.learner.weights().detach())
    assert [int(one.sum()) for one in opened] == [28 * 8, 28 * 5, 28 * 3]
    for before, after, weights in zip(opened, opened[1:], heaviest, strict=False):
        assert (before | after).equal(before)  # what is closed stays so
        kept = weights.masked_fill(~after, 2.0).min(1).values
        gone = weights.masked_fill(after | ~before, -1.0).max(1).values
        assert (kept >= gone).all()
    assert training.network.stage == 2
    half = algo.learner.derive().choices[:14]
    assert sum(choice == SKIP for choice in half) <= 2


def test_weights_go_on_in_wider_operations():
    """Each further channel repeats one, as an input and as an output; all else is the same."""
    space = build(compose(["search_space=darts_cell", "search_space.nodes=1"])["search_space"], "x")
    narrow, wide = (
        space.of_cells(3, partial_channels=k).supernet(TASK, auxiliary=False) for k in (4, 2)
    )
    widen(narrow, wide, torch.Generator().manual_seed(0))
    repeated = 0
    for (small, _), (large, _) in zip(narrow.option_modules(), wide.option_modules(), strict=True):
        places = None
        for before, value in zip(small.parameters(), large.parameters(), strict=True):
            assert torch.equal(value[: before.shape[0], : before.shape[1]], before)
            if value.shape[1] == 1:  # a depthwise convolution tells which channels are repeated
                gaps = (value[:, None] - before[None]).flatten(2).abs().sum(2)
                assert (gaps.min(1).values == 0).all()
                places = gaps.argmin(1)
            elif places is not None:
                assert torch.equal(value, before[places][:, places])
                repeated += len(places) - len(before)
    assert repeated
    others = dict(narrow.named_parameters())
    for name, value in wide.named_parameters():
        if ".options." not in name:
            assert torch.equal(value, others[name]), name


@pytest.mark.soak
def test_drnas_goes_on_in_its_second_stage():
    words = ("search_space.nodes=1", "search_algo.rest_epochs=1")
    algo, training = started("drnas_stages", *words, epochs=4)
    gates = algo.learner
    train(algo, training, epochs=2)
    logits, weights = gates.logits.detach().clone(), gates.weights().detach()
    moments = [state["exp_avg"].clone() for state in gates.optimiser.state.values()]
    assert gates.stage == 0 and gates.opened.all() and moments
    train(algo, training, epochs=3)  # the first of the second stage, in which the gates rest
    assert gates.stage == training.network.stage == 1
    assert torch.equal(gates.logits, logits)
    kept = [state["exp_avg"] for state in gates.optimiser.state.values()]
    assert all(map(torch.equal, kept, moments))
    assert (gates.opened.sum(1) == 4).all()
    heaviest = weights.topk(4, 1).indices
    assert gates.opened.gather(1, heaviest).all()
    train(algo, training, epochs=4)
    assert not torch.equal(gates.logits, logits)


@pytest.mark.soak
def test_p_darts_drops_elements_of_skips_only_in_training():
    algo, training = started("p_darts", "search_algo.skip_dropout=[0.9,0.9,0.9]", epochs=3)
    assert isinstance(algo.algo, PDarts)
    train(algo, training, epochs=1)
    noise = training.network.noise
    assert 0 < noise.skip_dropout < 0.9
    x = torch.ones(2, 3, 4, 4)
    assert torch.equal(noise.skip(x), x)  # at rest
    noise.begin_step(Streams(0).torch("x"), progress=1.0, drop_path_keep=1.0, dropout_keep=1.0)
    dropped = noise.skip(torch.ones(64, 16, 8, 8))
    assert (dropped == 0).float().mean().item() == pytest.approx(noise.skip_dropout, abs=0.02)
    assert dropped.mean().item() == pytest.approx(1, abs=0.1)


class Noisy(Supernet):
    """Remembers what the noise leaves of ones: of a skip, of features, of a path."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(64, TASK.classes)

    def forward(self, x, gates):
        ones, noise = torch.ones(100, 4, 4, 4), self.noise
        self.left = (noise.skip(ones), noise.dropout(ones.flatten(1)), noise.drop_path(ones, 1.0))
        return gates[0][0] * self.linear(x.flatten(1))


def test_of_all_noise_only_skip_dropout_acts_in_the_gates_own_step():
    network, leaf = Noisy(), torch.ones(()).requires_grad_()
    how = trainer(dropout_keep=0.5, drop_path_keep=0.5)
    training = how.bind(network, Images(64), CPU, Streams(0))
    batch = next(Images(64).train_batches(16, streams=Streams(5)))

    def of_gates(rate: float) -> torch.Tensor:
        network.noise.skip_dropout = rate
        training.gradients(*batch, [{0: leaf}], [leaf])
        skip, features, path = network.left
        assert (features == 1).all() and (path == 1).all()
        return skip

    assert (of_gates(0.0) == 1).all()
    first = of_gates(0.4)
    assert (first == 0).float().mean().item() == pytest.approx(0.4, abs=0.03)
    assert first[first > 0].unique().item() == pytest.approx(1 / 0.6)
    assert torch.equal(of_gates(0.4), first)  # all gradients of a step have the same
    train_step(training, *batch, [[{0: 1.0}]])
    assert not torch.equal(network.left[0], first)
    assert all((left == 0).any() for left in network.left)
    training.step += 1
    later = of_gates(0.4)
    assert not torch.equal(later, first)
    other = how.bind(Noisy(), Images(64), CPU, Streams(0))
    other.step = 1  # as a run that goes on there
    other.network.noise.skip_dropout = 0.4
    other.gradients(*batch, [{0: leaf}], [leaf])
    assert torch.equal(other.network.left[0], later)


def test_p_darts_thins_the_skips_of_stride_1_alone():
    noise, x = Noise(), torch.rand(8, 4, 8, 8) + 0.1
    noise.skip_dropout = 0.9
    for stride in (1, 2):
        edge = Edge(4, stride, [SKIP], norm_pools=True).eval()
        noise.stop()
        whole = edge(x, SKIP, noise)
        noise.begin_step(Streams(0).torch("x"), progress=1.0, drop_path_keep=1.0, dropout_keep=1.0)
        assert torch.equal(edge(x, SKIP, noise), whole) == (stride == 2)


def test_skip_dropout_falls_as_in_the_released_code_of_p_darts():
    words = ("search_algo.rest_epochs=10", "search_algo.skip_dropout=[0.1,0.4,0.7]")
    line = ("task=search", "search_algo=p_darts", "search_space=darts_cell", *words)
    one = space_of("darts_cell")
    algo = build_setup(compose(list(line))).search_algo
    gates = ProgressiveGates(algo, gate_context(one, 75), Candidates(one), one)
    for stage, rate in enumerate((0.1, 0.4, 0.7)):
        for epoch in range(25):
            resting = rate * (25 - epoch - 1) / 25
            learning = rate * math.exp(-0.2 * (epoch - 10))
            found = gates.skip_dropout(stage, 4 * epoch)
            assert found == pytest.approx(resting if epoch < 10 else learning)


def test_p_darts_takes_skips_away_from_the_normal_cell_alone():
    algo, _ = started("p_darts", "search_algo.skips=1")
    with torch.no_grad():
        algo.learner.logits[:, SKIP] = 5.0 + torch.arange(28) / 10
        algo.learner.opened[:] = True
    choices = algo.learner.derive().choices
    assert sum(choice == SKIP for choice in choices[:14]) == 1
    assert sum(choice == SKIP for choice in choices[14:]) == 8


@pytest.mark.soak
def test_methods_with_one_seed_see_the_same_images_in_the_same_order(tmp_path, monkeypatch):
    seen: dict[str, list[tuple[int, float]]] = {}
    inner = BatchGradients.add

    def spy(self, images, labels, gates, position, inputs=None):
        if isinstance(self.network, Supernet) and inputs is None:
            total = images.double().sum().item()
            seen.setdefault(name, []).append((position.global_step, total))
        return inner(self, images, labels, gates, position, inputs)

    monkeypatch.setattr(BatchGradients, "add", spy)
    for name in ("random", "darts", "snas", "proxyless", "enas"):
        words = ["search_space=nas_bench_201", f"search_algo={name}", "effort=smoke", "threads=1"]
        assert main(["search", *words, f"hydra.run.dir={tmp_path / name}"]) == 0
    assert len(set(map(tuple, seen.values()))) == 1
    first = seen["random"]
    assert len(first) == len({total for _, total in first}) > 3


@pytest.mark.soak
@pytest.mark.parametrize("name", ALGORITHMS)
def test_a_run_ends_with_a_genotype(name, tmp_path, capsys):
    run = tmp_path / "run"
    words = ["search_space=darts_cell", f"search_algo={name}", "effort=smoke", "threads=1"]
    assert main(["search", *words, f"hydra.run.dir={run}"]) == 0
    screen = capsys.readouterr().out
    assert "Genotype(normal=" in screen and "gates_entropy" in screen
    assert "the gates have hardly learned: " in screen.replace("\n", " ")  # in so few steps
    assert len((run / "trials.jsonl").read_text().splitlines()) == 1


@pytest.mark.few(3)
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["search_algo=darts", "search_space=nao_cell"],
            "opens one option of a decision at a time",
        ),
        (["search_algo=snas", "search_space=spos_channels"], "take search_space=darts_cell or"),
        (["search_algo=p_darts", "search_space=nas_bench_201"], "take search_space=darts_cell"),
        (["search_algo=p_darts", "search_algo.options=[8,5]"], "here 3, 2 and 3"),
        (["search_algo=p_darts", "search_algo.carry=true"], "must be the same in all stages"),
        (["search_algo=drnas_stages", "search_algo.partial_channels=[4]"], "here 1 and 2"),
        (["search_algo=p_darts", "search_algo.options=[3,5,8]"], "must fall from stage to stage"),
        (["search_algo=p_darts", "search_algo.rest_epochs=1"], "leaves nothing of a stage"),
        (["search_algo=darts", "search_algo.order=3"], "search_algo.order = 3: "),
        (
            ["search_algo=darts", "budget.macs.max=1e9"],
            "budget (macs): learned gates end",
        ),
        (["search_algo=darts", "evaluator=size"], "take evaluator=kl or supernet"),
        (["search_algo=snas", "search_algo.temperature.end=0"], "temperature.end = 0: "),
    ],
)
def test_bad_input_is_refused_in_one_line(words, message, tmp_path, capsys):
    run = tmp_path / "run"
    line = ["search_space=darts_cell", *words, "effort=smoke", f"hydra.run.dir={run}"]
    if any(word.startswith("search_space=") for word in words):
        line = line[1:]
    assert main(["search", *line]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not run.exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            "search_algo=darts search_algo.edges=true",
            "set search_algo.edges=false, or take search_space=darts_cell or nas_bench_201",
        ),
        ("search_algo=proxyless search_algo.cost.cost=macs", "million multiply-adds, and the log"),
        ("search_algo=proxyless search_algo.cost.reference=1", "greater than 1"),
        ("search_algo=proxyless search_algo.cost.reference=60e6", "less than or equal to 1000000"),
    ],
)
def test_settings_that_would_do_nothing_are_refused(words, message, tmp_path, capsys):
    line = ["search_space=nas_bench_macro", *words.split(), "effort=smoke"]
    assert main(["search", *line, f"hydra.run.dir={tmp_path / 'run'}"]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_darts_is_what_pc_darts_is_made_of():
    built = build_setup(compose(["task=search", "experiment=pc_darts_cifar10"]))
    assert isinstance(built.search_algo, LearnedGates) and built.search_algo.edges
    assert built.search_space.partial_channels == 4  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("name", "batch", "keep"),
    [("darts", 96, 0.8), ("pc_darts", 96, 0.7), ("p_darts", 128, 0.7), ("snas", 96, 0.8)],
)
def test_retraining_is_that_of_each_released_code(name, batch, keep):
    built = build_setup(compose(["task=search", f"experiment={name}_cifar10"]))
    found = built.retrain.trainer
    assert (found.batch_size, found.drop_path_keep) == (batch, keep)


@pytest.mark.soak
@pytest.mark.filterwarnings("error::UserWarning")
@pytest.mark.parametrize("name", ["darts", "snas", "proxyless", "dso"])
def test_a_loss_that_is_no_number_stops_in_one_short_line_or_is_skipped(name, tmp_path, capsys):
    space = "dso_block" if name == "dso" else "nas_bench_201"
    wild = ["trainer.schedule.lr=1e6", "trainer.clip=0", "trainer.epochs=3", "trainer.log_every=1"]
    words = [f"search_space={space}", f"search_algo={name}", "effort=smoke", *wild]
    assert main(["search", *words, f"hydra.run.dir={tmp_path / 'stop'}"]) == 2
    error = capsys.readouterr().err
    assert "is not a number at step" in error or "is infinite at step" in error
    assert "with learning rate" in error and len(error) < 500
    assert (tmp_path / "stop/nonfinite.json").exists()
    skipped = [*words, "on_nonfinite=skip", f"hydra.run.dir={tmp_path / 'skip'}"]
    assert main(["search", *skipped]) == 0
    assert (tmp_path / "skip/result.json").exists()
