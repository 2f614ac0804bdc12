"""The parts of learned gates, each against a known answer, a closed form or another way to it."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from helpers import CPU, TASK, Images, gate_context, splits, trainer
from processes import outcome
from scipy import stats
from torch import nn
from torch.distributions import Dirichlet as TorchDirichlet
from torch.distributions import kl_divergence

from nasrun.budget.candidates import Candidates
from nasrun.cli.main import main
from nasrun.config.build import build_setup
from nasrun.config.compose import compose
from nasrun.errors import UserError
from nasrun.run.monitor import NullMonitor
from nasrun.search_algo.gates.agreement import Agreement
from nasrun.search_algo.gates.gumbel import Gumbel, ReinMax, StraightThrough, one_hot, reinmax
from nasrun.search_algo.gates.hessian import largest_eigenvalue
from nasrun.search_algo.gates.learned_gates import LearnedGates
from nasrun.search_algo.gates.perturbation import (
    Perturbation,
    on_simplex,
    perturb_against,
    perturb_at_random,
)
from nasrun.search_algo.gates.probe import Probe
from nasrun.search_algo.gates.readiness import correlation, free_correlation, varied_paths
from nasrun.search_algo.gates.regulariser import beta_decay_loss, dirichlet_kl, zero_one_loss
from nasrun.search_algo.gates.relaxation import Dirichlet, Sigmoid, sample_gammas
from nasrun.search_algo.gates.resource import CostFactor
from nasrun.search_algo.gates.selection import PerturbationSelection, Selection
from nasrun.search_algo.gates.settings import (
    CONSTANT,
    LARGEST,
    NO_FACTOR,
    NO_PERTURBATION,
    NO_REGULARISER,
    NO_STOP,
)
from nasrun.search_algo.gates.soft_gates import GateAdam
from nasrun.search_algo.gates.stop import EigenvalueStop, SkipStop
from nasrun.search_algo.gates.temperature import Temperature
from nasrun.search_space.base import Supernet
from nasrun.search_space.darts_cell import DartsCell, DartsScale
from nasrun.search_space.nas_bench_201 import NasBench201, Nb201Scale
from nasrun.search_space.noise import Noise
from nasrun.streams import Streams
from nasrun.testing import check_space
from nasrun.trainer.step_rules import StepRules
from nasrun.values import Problem

ADAM = GateAdam(lr=0.1, beta1=0.5, beta2=0.999, weight_decay=0.0)
SHUT = -torch.inf
SMALL = Nb201Scale(channels=4, cells=1)
BENCH = NasBench201(affine=False, partial_channels=1, search=SMALL, final=SMALL)
METHODS = (
    *("gdas", "reinmax", "drnas", "fair_darts", "sdarts_rs", "sdarts_adv", "robust_darts"),
    *("beta_darts", "oles", "darts_pt", "darts_minus"),
)


def darts_cell(operations: str = "all", nodes: int = 4) -> DartsCell:
    scale = DartsScale(cells=3, channels=4)
    return DartsCell(
        nodes=nodes,
        stem="small",
        affine=False,
        partial_channels=1,
        search=scale,
        final=scale,
        operations=operations,  # type: ignore[arg-type]
    )


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def learner(space, epochs: int = 2, **changed):
    algo = LearnedGates(**{"adam": ADAM, "rest_epochs": 0, "spread": 0.1, **changed})
    algo.check(space)
    return algo.make_learner(gate_context(space, epochs), Candidates(space))


def training(network, gates, epochs: int = 2):
    how = trainer(epochs=epochs, batch_size=16, log_every=1)
    return how.bind(network, splits().train, CPU, Streams(0), rules=StepRules(learner=gates))


def train(found, gates) -> None:
    found.train_round(NullMonitor(), "supernet", gates.gates)


# Relaxations.


def test_the_temperature_falls_linearly_or_exponentially():
    linear = Temperature(start=10.0, end=0.1, fall="linear", rate=0.0)
    assert [linear.at(step, 101, 10) for step in (0, 50, 100)] == pytest.approx([10, 5.05, 0.1])
    fbnet = Temperature(start=5.0, end=0.1, fall="exponential", rate=0.045)
    assert fbnet.at(9, 1000, 10) == 5.0  # the same within an epoch
    assert fbnet.at(10, 1000, 10) == pytest.approx(5 * math.exp(-0.045))
    assert fbnet.at(900, 1000, 10) == 0.1


def test_hard_choices_are_one_hot_and_have_the_derivatives_of_the_soft_ones():
    logits = torch.tensor([[0.3, -1.0, 0.5], [2.0, 0.1, SHUT]], requires_grad=True)
    along = torch.tensor([[1.0, -2.0, 0.5], [0.3, 1.0, 7.0]])
    hard = StraightThrough().weights(logits, 0.7, generator())
    soft = Gumbel().weights(logits, 0.7, generator())
    assert torch.equal(hard.detach(), one_hot(soft.detach()))
    assert hard.sum(1).tolist() == [1, 1] and hard[1, 2] == 0
    (of_hard,) = torch.autograd.grad((hard * along).sum(), logits, retain_graph=True)
    (of_soft,) = torch.autograd.grad((soft * along).sum(), logits)
    assert torch.allclose(of_hard, of_soft) and of_soft.any()


@pytest.mark.parametrize("temperature", [1.0, 1.5])
def test_reinmax_has_its_closed_form(temperature):
    """2 J(π') g - J(π) g / 2, with J(q) = diag(q) - q qᵀ (Algorithm 2 of the paper)."""
    logits = torch.randn(1, 4, dtype=torch.float64, generator=generator()).requires_grad_()
    along = torch.randn(1, 4, dtype=torch.float64, generator=generator(1))
    for option in range(4):
        sampled = nn.functional.one_hot(torch.tensor([option]), 4).double()
        found = reinmax(logits, sampled, temperature)
        assert torch.equal(found.detach(), sampled)
        (gradient,) = torch.autograd.grad((found * along).sum(), logits)
        share = logits.detach().softmax(1)[0]
        between = ((logits.detach() / temperature).softmax(1)[0] + sampled[0]) / 2

        def jacobian(q):
            return torch.diag(q) - torch.outer(q, q)

        expected = 2 * jacobian(between) @ along[0] - jacobian(share) @ along[0] / 2
        assert torch.allclose(gradient[0], expected)


def test_reinmax_is_exact_in_the_mean_for_quadratic_losses_and_straight_through_is_not():
    logits = torch.randn(1, 4, dtype=torch.float64, generator=generator()).requires_grad_()
    curved = torch.randn(4, 4, dtype=torch.float64, generator=generator(1))

    def loss(weights):
        return (weights @ curved @ weights.T).sum()

    share = logits.softmax(1)[0]
    hards = list(torch.eye(4, dtype=torch.float64)[:, None])
    mean = sum(share[k] * loss(hard) for k, hard in enumerate(hards))
    (exact,) = torch.autograd.grad(mean, logits)

    def estimate(choice_of):
        total = torch.zeros_like(exact)
        for k, hard in enumerate(hards):
            (own,) = torch.autograd.grad(loss(choice_of(hard)), logits)
            total += share[k].item() * own
        return total

    assert torch.allclose(estimate(lambda hard: reinmax(logits, hard, 1.0)), exact)
    straight = estimate(lambda hard: hard + logits.softmax(1) - logits.softmax(1).detach())
    assert (straight - exact).norm() > 0.1 * exact.norm()


def test_closed_options_are_never_sampled_by_reinmax():
    logits = torch.tensor([[0.0, 1.0, SHUT]], requires_grad=True)
    for seed in range(20):
        found = ReinMax().weights(logits, 1.0, generator(seed))
        assert found[0, 2] == 0 and found.sum() == 1
        (gradient,) = torch.autograd.grad(found[0, 0], logits)
        assert gradient.isfinite().all() and gradient[0, 2] == 0 and gradient.any()


def test_gamma_variables_have_their_distribution_and_the_derivative_of_their_mean():
    for shape in (0.2, 0.5, 1.0, 4.0):
        many = torch.full((20_000,), shape, requires_grad=True)
        found = sample_gammas(many, generator())
        assert stats.kstest(found.detach().numpy(), stats.gamma(shape).cdf).pvalue > 1e-3
        (gradient,) = torch.autograd.grad(found.sum(), many)
        assert gradient.mean().item() == pytest.approx(1, rel=0.1)  # the mean is the shape


def test_dirichlet_weights_have_its_mean_and_variance_and_the_derivative_of_the_mean():
    logits = torch.tensor([[0.5, -0.5, 1.0, SHUT]])
    concentration = torch.tensor([1.5, math.exp(-0.5), 2.0])
    total = concentration.sum()
    mean = concentration / total
    many = logits.expand(20_000, 4).clone().requires_grad_()
    found = Dirichlet().weights(many, 1.0, generator())
    assert (found[:, 3] == 0).all() and torch.allclose(found.sum(1), torch.ones(20_000))
    error = 4.5 * (mean * (1 - mean) / (total + 1) / 20_000).sqrt()
    assert ((found[:, :3].mean(0) - mean).abs() < error).all()
    variance = mean * (1 - mean) / (total + 1)
    assert torch.allclose(found[:, :3].var(0), variance, rtol=0.05)
    assert torch.allclose(Dirichlet().shares(logits)[0, :3], mean)
    (gradient,) = torch.autograd.grad(found[:, 0].sum(), many)
    by_concentration = torch.tensor([(total - 1.5) / total**2, -1.5 / total**2, -1.5 / total**2])
    by_logits = by_concentration * torch.tensor([1.0, math.exp(-0.5), 1.0])
    assert torch.allclose(gradient.mean(0)[:3], by_logits, atol=0.01)


def test_options_of_a_sigmoid_do_not_displace_each_other():
    logits = torch.tensor([[0.0, 3.0, SHUT]])
    assert Sigmoid().weights(logits, 1.0, generator())[0].tolist() == pytest.approx(
        [0.5, 1 / (1 + math.exp(-3)), 0]
    )
    assert Sigmoid().probabilities(logits).sum().item() == pytest.approx(1)


# Penalties.


def test_penalties_by_hand():
    logits = torch.tensor([[1.0, 2.0, SHUT], [0.0, 0.5, -1.0]], requires_grad=True)
    smooth = beta_decay_loss(logits)
    expected = (math.log(math.e + math.e**2) + math.log(1 + math.exp(0.5) + math.exp(-1))) / 2
    assert smooth.item() == pytest.approx(expected)
    (gradient,) = torch.autograd.grad(smooth, logits)
    assert torch.allclose(gradient, logits.softmax(1) / 2)  # of two decisions
    assert zero_one_loss(torch.tensor([[0.0, 1.0, 0.0]]), logits[:1]).item() == -0.25
    assert zero_one_loss(torch.tensor([[0.5, 0.5, 0.0]]), logits[:1]).item() == 0
    uniform = NO_REGULARISER.model_copy(update={"entropy": 2.0})
    found = uniform.penalty(torch.zeros(3, 5), Sigmoid(), 0.5)
    assert found.item() == pytest.approx(2 * math.log(5))
    decay = NO_REGULARISER.model_copy(update={"beta_decay": 50.0})
    found = decay.penalty(logits, Sigmoid(), 0.1)
    assert found.item() == pytest.approx(5 * expected)
    assert decay.penalises and not NO_REGULARISER.penalises


def test_the_distance_to_the_flat_dirichlet_is_that_of_torch():
    own = torch.rand(3, 4, generator=generator()) * 3 + 0.1
    known = kl_divergence(TorchDirichlet(own), TorchDirichlet(torch.ones(3, 4))).sum()
    assert dirichlet_kl(own).item() == pytest.approx(known.item(), rel=1e-5)
    shut = torch.cat([own, torch.zeros(3, 2)], 1)
    assert dirichlet_kl(shut).item() == pytest.approx(known.item(), rel=1e-5)


def test_an_auxiliary_skip_adds_its_weight_and_fades():
    one = BENCH
    with_skip = NO_REGULARISER.model_copy(update={"auxiliary_skip": 1.0})
    found, plain = learner(one, regulariser=with_skip), learner(one)
    for step, left in ((0, 1.0), (4, 0.5)):
        gates, usual = found.gates(step)[0], plain.gates(step)[0]
        for own, other in zip(gates, usual, strict=True):
            added = [own[option].item() - other[option].item() for option in range(5)]
            assert added == pytest.approx([0, left, 0, 0, 0], abs=1e-6)
    assert torch.equal(found.weights(), plain.weights())  # the architecture is chosen without


def test_the_factor_of_fbnet_is_a_power_of_the_logarithm():
    """Eq. 2 of the paper: α·log(latency)^β, with the natural logarithm."""
    factor = CostFactor(cost="latency_ms", reference=math.e, factor=0.2, power=0.6)
    assert factor.factor_of(torch.tensor(30.0)).item() == pytest.approx(0.2 * math.log(30) ** 0.6)


@pytest.mark.parametrize("of_sample", [True, False])
def test_the_factor_moves_the_logits_by_the_weights_of_the_step_or_by_their_expectation(of_sample):
    factor = CostFactor(cost="params", reference=math.e, factor=0.2, power=0.6, of_sample=of_sample)
    candidates = Candidates(BENCH, measure_of=lambda name: lambda one: 3e3 + 1e3 * sum(one.choices))
    algo = LearnedGates(adam=ADAM, rest_epochs=0, spread=0.3, relaxation="gumbel", cost=factor)
    gates = algo.make_learner(gate_context(BENCH), candidates)
    sample = gates.sample(0, "gumbel_gates", 0)
    weights = gates.relaxed(0, "gumbel_gates", 0) if of_sample else gates.weights()
    thousands = 3 + (weights * torch.arange(5.0)).sum()
    loss = 2.0 * 0.2 * thousands.log() ** 0.6
    (expected,) = torch.autograd.grad(loss, gates.logits)
    nothing = torch.zeros_like(sample.leaf)  # by the cross entropy
    gates.take_step(0, sample, nothing, torch.tensor([2.0, 0.5]))
    mean = gates.optimiser.state[gates.logits]["exp_avg"]
    assert torch.allclose(mean / (1 - ADAM.beta1), expected, atol=1e-6) and expected.any()


# Perturbations.


def test_perturbed_weights_are_weights():
    opened = torch.tensor([[True, True, True], [True, True, False]])
    weights = torch.tensor([[0.2, 0.3, 0.5], [0.9, 0.1, 0.0]])
    assert torch.equal(on_simplex(weights, opened), weights)
    assert on_simplex(torch.tensor([[-1.0, -0.5, -2.0]]), opened[:1]).tolist() == [[0, 1, 0]]
    seen = [perturb_at_random(weights, opened, 0.1, generator(seed)) for seed in range(50)]
    for found in seen:
        assert torch.allclose(found.sum(1), torch.ones(2)) and (found >= 0).all()
        assert found[1, 2] == 0
    spread = torch.stack(seen).std(0)
    assert (spread[0] > 0.02).all() and (spread[0] < 0.1).all()
    assert torch.allclose(perturb_at_random(weights, opened, 0.0, generator()), weights)
    falls = Perturbation(kind="random", start=0.03, end=0.3, steps=7)
    assert [falls.radius(p) for p in (0, 0.5, 1)] == pytest.approx([0.03, 0.165, 0.3])


def test_an_adversary_moves_weight_to_what_costs_most():
    opened = torch.ones(1, 3, dtype=torch.bool)
    weights = torch.full((1, 3), 1 / 3)
    costs = torch.tensor([[0.0, 1.0, 5.0]])

    def loss_at(at):
        return (at * costs).sum(), costs - 2  # the gradient is below 0 where weight must go

    found = perturb_against(weights, opened, 0.1, 7, loss_at, generator())
    assert (found * costs).sum() > (weights * costs).sum()
    assert found[0, 2] > weights[0, 2] > found[0, 0]

    def falling(at):
        return -(at * costs).sum(), costs  # moves that lower the loss are taken back

    assert torch.equal(perturb_against(weights, opened, 0.1, 7, falling, generator()), weights)


@pytest.mark.parametrize("kind", ["random", "adversarial"])
def test_only_the_weights_steps_are_perturbed(kind):
    one = BENCH
    moves = Perturbation(kind=kind, start=0.2, end=0.2, steps=2)
    gates = learner(one, perturbation=moves)
    seen = []

    class Watched(Supernet):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(64, TASK.classes)
            with torch.no_grad():  # the first class, whatever it sees: larger logits are worse
                self.linear.weight.zero_()
                self.linear.bias.copy_(torch.eye(TASK.classes)[0])

        def forward(self, x, gates):
            weights = torch.stack([torch.stack(list(gate.values())) for gate in gates])
            seen.append(weights.detach())
            return weights.square().sum() * self.linear(x.flatten(1))

    found = training(Watched(), gates)
    before = gates.weights().detach()
    batch = next(splits().train.train_batches(16, streams=Streams(1)))
    gates.learn_before(0, batch, found)
    assert torch.equal(seen[0], before)  # the gates' own step
    (perturbed,) = gates.gates(0)
    now = torch.stack([torch.stack(list(gate.values())) for gate in perturbed])
    assert not torch.allclose(now, gates.weights(), atol=1e-3)
    assert torch.allclose(now.sum(1), torch.ones(6))
    assert len(seen) == (1 if kind == "random" else 1 + 4)


def test_fair_darts_keeps_the_heavy_edges_alone():
    """Of two edges of a node at most; where nothing flows, the first node keeps its heaviest."""
    scale = DartsScale(cells=3, channels=4)
    loose = DartsCell(
        nodes=2,
        stem="small",
        affine=False,
        partial_channels=1,
        search=scale,
        final=scale,
        fewer_edges=True,
    )
    words = {"relaxation": "sigmoid", "selection": part(LARGEST, rule="threshold")}
    gates = learner(loose, **words)
    light = torch.full((10, 8), 0.1)
    light[0, 4], light[1, 3] = 0.9, 0.86  # node 0: sep_conv_3x3 on 0, skip_connect on 1
    light[2, 1], light[3, 2], light[4, 5] = 0.85, 0.95, 0.84  # node 1: 0.84 is not among the two
    light[5, 6], light[6, 1] = 0.3, 0.6  # reduction: node 0 has nothing above 0.85 ...
    light[9, 3] = 0.95  # ... and node 1 reads it
    with torch.no_grad():
        gates.logits.copy_(light.logit(eps=1e-6) + 1e-4)
    assert loose.write(gates.derive()) == (
        "Genotype(normal=[('sep_conv_3x3', 0), ('skip_connect', 1), ('max_pool_3x3', 0), "
        "('avg_pool_3x3', 1)], normal_concat=range(2, 4), reduce=[(('max_pool_3x3', 1),), "
        "(('skip_connect', 2),)], reduce_concat=range(2, 4))"
    )
    with torch.no_grad():
        gates.logits[3, 2] = 0.0
    assert "('skip_connect', 1)), (('max_pool_3x3', 0),)]" in loose.write(gates.derive())
    with pytest.raises(UserError, match=r"set search_space\.fewer_edges=true"):
        learner(darts_cell(nodes=2), **words)
    with pytest.raises(UserError, match="keep all of theirs"):
        learner(BENCH, **words)


# Rules of stopping.


def test_lanczos_finds_the_largest_eigenvalue():
    half = torch.randn(12, 12, generator=generator(), dtype=torch.float64)
    for matrix in (half + half.T, -(half @ half.T), torch.eye(12, dtype=torch.float64)):
        start = torch.randn(3, 4, generator=generator(1), dtype=torch.float64)
        found = largest_eigenvalue(
            lambda v, m=matrix: (m @ v.flatten()).view(3, 4), start, iterations=12
        )
        assert found == pytest.approx(torch.linalg.eigvalsh(matrix)[-1].item(), abs=1e-6)


class Smooth(Supernet):
    """Logits that are smooth in the weights of the gates of NAS-Bench-201's six decisions."""

    def __init__(self) -> None:
        super().__init__()
        with Streams(1).default("smooth"):
            self.layers = nn.ModuleList(nn.Linear(64, TASK.classes) for _ in range(5))

    def forward(self, x, gates):
        flat = x.flatten(1)
        outs = [layer(flat) for layer in self.layers]
        total = 0
        for place, gate in enumerate(gates):
            mixed = sum(w * outs[option] for option, w in gate.items())
            total = total + torch.sin(mixed * (1 + place))
        return 2 * total


def test_the_sharpness_is_the_largest_eigenvalue_of_the_full_hessian():
    one = BENCH
    gates = learner(one, spread=0.5)
    network = Smooth()
    found = training(network, gates)
    images, labels = gates.batches.batch_of_step(4)

    def loss(logits):
        weights = gates.mask_closed(logits.view(6, 5)).softmax(1)
        return nn.functional.cross_entropy(network(images, gates.gates_by(weights)), labels)

    hessian = torch.autograd.functional.hessian(loss, gates.logits.detach().flatten())
    exact = torch.linalg.eigvalsh(hessian)[-1].item()
    probe = Probe(gates, found, 4, images=8, iterations=15)
    assert exact > 0.05 and probe.sharpness() == pytest.approx(exact, rel=0.02)


class Measurements:
    """Eigenvalues and skips, epoch by epoch; the logits are the number of the epoch."""

    def __init__(self, values) -> None:
        self.values, self.epoch = values, 0

    @property
    def logits(self):
        return torch.full((1, 2), float(self.epoch))

    def sharpness(self):
        return self.values[self.epoch - 1]

    skip_count = sharpness


def test_gates_stop_where_the_mean_eigenvalue_grows_and_go_back():
    settings = NO_STOP.model_copy(update={"window": 2, "delta": 2, "from_epoch": 0.0})
    # means of two: 1, 1, 1, 1.1, 1.3, 1.6: 1.6 / 1.1 is the first ratio above 1.3
    rule, values = EigenvalueStop(settings), [1.0, 1.0, 1.0, 1.2, 1.4, 1.8]
    measured = Measurements(values)
    for epoch in range(1, 6):
        measured.epoch = epoch
        assert rule.look(epoch, measured) is None
        again = EigenvalueStop(settings)
        again.load_state_dict(rule.state_dict())
        rule = again
    measured.epoch = 6
    found = rule.look(6, measured)
    # the middle of the window is epoch 5, and two before it is 3
    assert found is not None and found.tolist() == [[3.0, 3.0]]
    later = EigenvalueStop(settings.model_copy(update={"from_epoch": 3.0}))
    for epoch in range(1, 7):
        measured.epoch = epoch
        assert later.look(epoch, measured) is None


def test_gates_stop_at_the_second_skip():
    rule = SkipStop(NO_STOP.model_copy(update={"from_epoch": 2.0}))
    measured = Measurements([2, 1, 2])
    stopped = []
    for epoch in (1, 2, 3):
        measured.epoch = epoch
        stopped.append(rule.look(epoch, measured) is not None)
    assert stopped == [False, False, True]


def test_stopped_gates_stay_as_they_are_and_say_so():
    one = BENCH
    stop = NO_STOP.model_copy(update={"rule": "skips", "skips": 1, "from_epoch": 1.0})
    gates = learner(one, epochs=3, stop=stop, spread=0.0)
    with torch.no_grad():
        gates.logits[:, 1] = 3.0  # skips
    found = training(Smooth(), gates, epochs=3)
    found.train_round(NullMonitor(), "supernet", gates.gates, epochs=2)
    assert gates.stopped == 1 and gates.optimiser.state  # it has learned for an epoch
    logits = gates.logits.detach().clone()
    train(found, gates)
    assert torch.equal(gates.logits, logits)
    assert gates.note() == "the gates stopped learning after epoch 1 (skips)"
    again = learner(one, epochs=3, stop=stop)
    again.load_state_dict(gates.state_dict())
    assert again.stopped == 1


@pytest.mark.parametrize("order", [1, 2])
def test_the_training_may_end_with_the_gates(order):
    """Its weights are those of a training that is left there, and so is its state."""
    stop = NO_STOP.model_copy(update={"rule": "skips", "skips": 1, "from_epoch": 1.0})
    found = []
    for then in ("train", "end"):
        part_ = stop.model_copy(update={"then": then})
        gates = learner(BENCH, epochs=3, stop=part_, spread=0.0, order=order)
        with torch.no_grad():
            gates.logits[:, 1] = 3.0  # skips
        one = training(Smooth(), gates, epochs=3)
        one.train_round(NullMonitor(), "supernet", gates.gates, epochs=1 if then == "train" else 2)
        found.append((one, gates))
    (left, _), (ended, gates) = found
    assert (left.mark, ended.mark, ended.ended) == ((0, 4), (1, 0), 1)
    states = left.state_dict(), ended.state_dict()
    for name, value in states[0]["network"].items():
        assert torch.equal(value, states[1]["network"][name])
    assert str(gates.note()).endswith(
        "(skips), and with them the training of the supernet, of 3 epochs at most"
    )
    assert gates.report() == {"supernet_epochs": 1}
    again = learner(BENCH, epochs=3, stop=part_, order=order)
    resumed = training(Smooth(), again, epochs=3)
    again.load_state_dict(gates.state_dict())
    resumed.load_state_dict(ended.state_dict())
    assert resumed.done and resumed.ended == 1


@pytest.mark.soak
def test_a_search_whose_training_ends_early_is_resumed_to_the_same_bytes(processes, tmp_path):
    line = (
        *("search", "search_space=nas_bench_201", "search_algo=darts", "effort=smoke", "threads=1"),
        *("search_algo.stop.rule=skips", "search_algo.stop.skips=1", "search_algo.spread=2"),
        *("search_algo.stop.from_epoch=1", "search_algo.stop.then=end", "trainer.epochs=4"),
        *("health.every=1", "checkpoint.steps=1", "hydra.run.dir=run"),
    )
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    whole.mkdir(), killed.mkdir()
    done = processes.run(whole, *line)
    assert (done.status, done.err) == (0, "") and "and with them the training" in done.out
    epochs = json.loads((whole / "run/result.json").read_text())["supernet_epochs"]
    scored = list(json.loads((whole / "run/health.json").read_text())["scores"])
    assert epochs < 4 and scored == [f"0/{epoch}" for epoch in range(1, epochs + 1)]
    words, stops = line, 0
    fault = ("signal_at", [15, "safe_point", "*", 1])
    while processes.run(killed, *words, faults=[fault]).status:
        words, stops = ("resume", "run"), stops + 1
        assert stops < 60
    assert stops > 4 and outcome(killed / "run") == outcome(whole / "run")


class TwoOperations(Supernet):
    """Operations of weights of their own, which a test gives gradients."""

    def __init__(self) -> None:
        super().__init__()
        self.operations = nn.ModuleList(nn.Linear(3, 2) for _ in range(2))

    def option_modules(self):
        yield from ((module, [(0, index)]) for index, module in enumerate(self.operations))


def test_an_operation_whose_gradients_disagree_is_frozen():
    network, rule = TwoOperations(), Agreement(threshold=0.4, looks=2)
    rule.begin(network)
    assert len(rule.parameters) == 4
    for _ in range(2):
        for parameter in network.parameters():
            parameter.grad = torch.ones_like(parameter)
        rule.take_held_out()
        assert all(parameter.grad is None for parameter in network.parameters())
        for parameter in network.operations[0].parameters():
            parameter.grad = torch.full_like(parameter, 2.0)  # cosine of 2 and 2 + 1: 1
        for parameter in network.operations[1].parameters():
            parameter.grad = torch.full_like(parameter, -0.5)  # of -0.5 and -0.5 + 1: -1
        assert rule.frozen == [False, False]
        rule.compare()
    assert rule.frozen == [False, True] and rule.metrics() == {"frozen": 0.5}
    assert [p.requires_grad for p in network.parameters()] == [True, True, False, False]
    other, again = TwoOperations(), Agreement(threshold=0.4, looks=2)
    again.load_state_dict(rule.state_dict())
    again.begin(other)
    assert [p.requires_grad for p in other.parameters()] == [True, True, False, False]


def test_agreement_is_of_the_training_gradient_with_the_sum_of_both():
    """Along the first dimension of each tensor, then the mean; opposite gradients may agree."""
    network = TwoOperations()
    rule = Agreement(threshold=0.4, looks=50)
    rule.begin(network)
    held = [torch.randn_like(parameter) for parameter in network.parameters()]
    for parameter, value in zip(network.parameters(), held, strict=True):
        parameter.grad = value.clone()
    rule.take_held_out()
    own = [torch.randn_like(parameter) for parameter in network.parameters()]
    for parameter, value in zip(network.parameters(), own, strict=True):
        parameter.grad = value.clone()
    rule.compare()
    found = []
    for operation in (0, 2):  # the places of their weights and biases
        cosines = []
        for one, other in list(zip(own, held, strict=True))[operation : operation + 2]:
            both = one + other
            along = (one * both).sum(0) / (one.norm(dim=0) * both.norm(dim=0))
            cosines.append(along.mean())
        found.append(torch.stack(cosines).mean())
    torch.testing.assert_close(rule.state_dict()["sums"], torch.stack(found))


def test_sigmoids_leave_no_option_without_a_gradient():
    """Nothing flows by ``none``, so that no loss would move its sigmoid, and no gate has it."""
    gates = learner(BENCH, relaxation="sigmoid")
    assert not gates.opened[:, 0].any() and gates.opened[:, 1:].all()
    (opened,) = gates.gates(0)
    assert all(isinstance(gate, dict) and list(gate) == [1, 2, 3, 4] for gate in opened)
    with torch.no_grad():
        gates.logits[:, 0] = 9.0
    assert 0 not in gates.derive().choices
    assert learner(BENCH, relaxation="softmax").opened.all()


# Selection.


def test_the_option_that_the_supernet_misses_is_chosen():
    one = BENCH
    needed = [3, 0, 2, 4, 1, 3]
    rule = PerturbationSelection(one, Streams(0), 10, 22)
    opened = torch.ones(6, 5, dtype=torch.bool)
    seen = []

    def accuracy(left):
        seen.append(left.clone())
        return sum(left[place, option].item() for place, option in enumerate(needed)) / 6

    assert not rule.decide(9, opened, accuracy) and opened.all()
    assert rule.decide(10, opened, accuracy) and opened.sum() == 26  # one decision
    assert all((left.sum(1) >= 4).all() for left in seen)  # one option less at a time
    again = PerturbationSelection(one, Streams(0), 10, 22)
    again.load_state_dict(rule.state_dict())
    assert again.decide(21, opened, accuracy)
    assert [row.nonzero().flatten().tolist() for row in opened] == [[option] for option in needed]
    assert not again.decide(22, opened, accuracy)


def test_nodes_keep_the_edges_that_the_supernet_misses():
    one = darts_cell(nodes=2)
    rule = PerturbationSelection(one, Streams(0), 0, 100)
    opened = torch.ones(10, 8, dtype=torch.bool)
    worth = [5, 1, 2, 9, 4, 3, 7, 1, 6, 8]  # of each edge, if its option 4 is open

    def accuracy(left):
        return sum(value * left[edge, 4].item() for edge, value in enumerate(worth)) / 100

    rule.decide(99, opened, accuracy)
    weights = opened.double().tolist()
    found = one.strongest(weights)
    assert one.check(found) == found and set(found.choices) == {0, 4}
    kept = [edge for edge, choice in enumerate(found.choices) if choice]
    assert kept == [0, 1, 3, 4, 5, 6, 8, 9]


class Needs(Supernet):
    """Gives the right answer by the planted option of each decision, and a wrong one by others."""

    def __init__(self, options) -> None:
        super().__init__()
        self.options = options
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(self, x, gates):
        opened = [gate if isinstance(gate, dict) else {gate: 1.0} for gate in gates]
        through = sum(gate.get(o, 0.0) for gate, o in zip(opened, self.options, strict=True))
        classes = torch.arange(TASK.classes, dtype=x.dtype).expand(len(x), -1)
        return through * classes + self.bias


def test_darts_pt_ends_with_what_its_own_supernet_needs():
    one = BENCH
    selection = Selection(rule="perturbation", threshold=0.85, epochs=1.5, images=16)
    gates = learner(one, epochs=2, selection=selection)
    found = training(Needs([2] * 6), gates)
    train(found, gates)
    assert gates.opened.sum(1).tolist() == [1] * 6  # each decision was taken


# Readiness.


class Young(Supernet):
    """Its paths lose more, or less, the more parameter-free operations they have."""

    def __init__(self, space, slope: float) -> None:
        super().__init__()
        self.space, self.slope = space, slope
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(self, x, gates):
        shares = 0.0
        if isinstance(gates[0], int):
            shares = sum(gate in (0, 1, 4) for gate in gates) / 6
        wrong = torch.arange(TASK.classes, dtype=x.dtype).expand(len(x), -1)
        return self.slope * shares * wrong + self.bias


def test_the_correlation_of_losses_with_parameter_free_shares():
    one = BENCH
    batch = Images(16).images, torch.zeros(16, dtype=torch.int64)
    paths = varied_paths(one, 30, Streams(0))
    for slope in (3.0, -3.0):  # class 0 becomes less likely by the share, or more
        found = free_correlation(Young(one, slope), one, paths, batch, CPU)
        assert found is not None and found * slope > 2.7
    assert free_correlation(Young(one, 0.0), one, paths, batch, CPU) is None
    assert correlation([1, 2, 3], [5, 3, 1]) == pytest.approx(-1)
    alike = SimpleNamespace(
        gate_kinds={"path"}, binary=False, sample=one.sample, free_share=lambda path: 0.5
    )
    assert varied_paths(alike, 20, Streams(0)) == []  # type: ignore[arg-type]


def test_gates_wait_until_the_supernet_is_ready(monkeypatch):
    one = BENCH
    gates = learner(one, epochs=4, rest="until_ready", paths=10)
    told = iter([-0.3, 0.2])
    monkeypatch.setattr("nasrun.search_algo.gates.probe.free_correlation", lambda *rest: next(told))
    found = training(Smooth(), gates, epochs=4)
    logits = gates.logits.detach().clone()
    found.train_round(NullMonitor(), "supernet", gates.gates, epochs=2)
    assert gates.correlation == -0.3 and torch.equal(gates.logits, logits)
    warning = gates.warning()
    assert warning is not None and "was -0.30" in warning
    again = learner(one, epochs=4, rest="until_ready", paths=10)
    again.load_state_dict(gates.state_dict())
    assert again.is_resting(9) and again.correlation == -0.3
    train(found, gates)
    assert gates.ready and not torch.equal(gates.logits, logits)
    assert gates.pop_metrics().read()["free_correlation"] == 0.2


# The small spaces of RobustDARTS.


def test_the_small_spaces_have_two_operations_an_edge():
    spaces = {name: darts_cell(f"s{name}") for name in "1234"}
    for name, one in spaces.items():
        # Two of 2, 3, 4 and 5 edges with one of two operations each, in two cells.
        assert one.size == (1 * 3 * 6 * 10 * 2**8) ** 2 and one.name == f"darts_cell/4/s{name}"
        opened = {tuple(gate) for gate in learner(one).gates(0)[0]}
        assert opened == {(0, 1, 2)} if name == "3" else {(1, 2)}
        for seed in range(3):
            found = one.sample(Streams(seed).numpy("x"))
            assert one.parse(one.write(found)) == one.check(found)
    decisions = spaces["1"].decisions
    assert decisions[5].options == ("none", "max_pool_3x3", "skip_connect")
    assert decisions[13].options == ("none", "dil_conv_3x3", "dil_conv_5x5")
    assert decisions[20].options == ("none", "max_pool_3x3", "sep_conv_3x3")
    assert spaces["1"].normal_skips[5] == 2 and 13 not in spaces["1"].normal_skips
    whole = darts_cell()
    found = spaces["2"].sample(Streams(0).numpy("x"))
    same = whole.parse(spaces["2"].write(found))
    assert whole.cost(same, TASK) == spaces["2"].cost(found, TASK)
    assert whole.free_share(same) == spaces["2"].free_share(found)
    text = spaces["2"].write(found).replace("sep_conv_3x3", "sep_conv_5x5")
    with pytest.raises(UserError, match="has no sep_conv_5x5 on this edge; it has skip_connect, "):
        spaces["2"].parse(text)
    with pytest.raises(UserError, match=r"set search_space\.nodes=4"):
        darts_cell("s1", nodes=2)


@pytest.mark.soak
@pytest.mark.parametrize("name", ["s4", "s1"])
def test_small_spaces_keep_the_laws(name):
    one = darts_cell(name)
    laws = ["costs_are_counted", "a_path_is_its_network", "only_the_path_is_trained"]
    check_space(one, Problem(1, 9, 4), samples=1, only=laws)


def test_noise_is_new_in_each_step_and_the_same_at_rest():
    noise, like = Noise(), torch.zeros(4, 3, 8, 8)
    assert torch.equal(noise.white(like), noise.white(like))
    seen = []
    for step in (0, 0, 1):
        stream = Streams(0).torch("x", step)
        noise.begin_step(stream, progress=1.0, drop_path_keep=1.0, dropout_keep=1.0)
        seen.append(noise.white(like))
    assert torch.equal(seen[0], seen[1]) and not torch.equal(seen[0], seen[2])
    assert seen[0].mean().item() == pytest.approx(0, abs=0.15)
    assert seen[0].std().item() == pytest.approx(1, abs=0.1)


# The named methods.


def test_every_setting_of_the_parts_stands_in_yaml_and_leaves_its_part_out():
    built = build_setup(compose(["task=search", "search_algo=darts", "search_space=darts_cell"]))
    algo = built.search_algo
    assert (algo.temperature, algo.cost, algo.regulariser) == (CONSTANT, NO_FACTOR, NO_REGULARISER)
    assert (algo.perturbation, algo.stop, algo.selection) == (NO_PERTURBATION, NO_STOP, LARGEST)
    plain = LearnedGates(adam=algo.adam, rest_epochs=algo.rest_epochs, spread=algo.spread)
    assert plain == replace(algo)


@pytest.mark.soak
@pytest.mark.parametrize(
    ("name", "differs"),
    [
        ("gdas", {"relaxation", "temperature"}),
        ("reinmax", {"relaxation"}),
        ("drnas", {"relaxation", "adam", "regulariser"}),
        ("fair_darts", {"relaxation", "adam", "regulariser"}),
        ("sdarts_rs", {"perturbation"}),
        ("sdarts_adv", {"perturbation"}),
        ("robust_darts", {"stop"}),
        ("beta_darts", {"regulariser"}),
        ("oles", {"stop"}),
        ("darts_pt", {"selection"}),
        ("darts_minus", {"regulariser"}),
        ("snas", {"relaxation", "temperature", "levels", "adam", "centre", "spread"}),
        ("proxyless", {"relaxation", "adam", "every", "rest_epochs"}),
    ],
)
def test_a_method_differs_from_darts_in_its_parts(name, differs):
    def algo(option):
        words = ["task=search", f"search_algo={option}", "search_space=darts_cell"]
        return vars(build_setup(compose(words)).search_algo)

    darts, own = algo("darts"), algo(name)
    assert {key for key in darts if darts[key] != own[key]} == differs


def part(given, **changed):
    return given.model_copy(update=changed)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"levels": 1, "order": 2}, "the gates have no steps of their own"),
        ({"levels": 1, "perturbation": part(NO_PERTURBATION, kind="random")}, "levels=2"),
        ({"relaxation": "reinmax", "edges": True}, "opens one option with weight 1"),
        ({"relaxation": "reinmax", "temperature": part(CONSTANT, end=0.5)}, "of 1 or more"),
        (
            {"relaxation": "sigmoid", "perturbation": part(NO_PERTURBATION, kind="random")},
            "must add up to 1",
        ),
        (
            {"relaxation": "binary", "selection": part(LARGEST, rule="perturbation", epochs=1.0)},
            "compares two options",
        ),
        ({"order": 2, "stop": part(NO_STOP, rule="agreement")}, r"set search_algo\.order=1"),
        ({"regulariser": part(NO_REGULARISER, kl=1.0)}, "has no Dirichlet distribution"),
        ({"selection": part(LARGEST, rule="perturbation")}, r"search_algo\.selection\.epochs=0"),
        ({"stop": part(NO_STOP, then="end")}, "the gates learn to the last epoch"),
        (
            {
                "stop": part(NO_STOP, rule="skips", then="end"),
                "selection": part(LARGEST, rule="perturbation", epochs=1.0),
            },
            "leaves no epochs for selection",
        ),
    ],
)
def test_settings_that_contradict_each_other_are_refused(changed, message):
    with pytest.raises(UserError, match=message):
        LearnedGates(adam=ADAM, rest_epochs=0, spread=0.0, **changed)


@pytest.mark.few(1)
@pytest.mark.parametrize(
    ("space", "word", "message"),
    [
        ("spos_blocks", "regulariser.auxiliary_skip=1", "has no option that is one: leave it out"),
        ("nas_bench_201", "regulariser.skip_dropout=0.2", "or take search_space=darts_cell"),
        ("spos_blocks", "rest=until_ready", "do not differ in them: set search_algo.rest=epochs"),
        ("nao_cell", "order=2", "opens one option of a decision at a time: take search_space="),
    ],
)
def test_a_space_that_lacks_what_a_part_needs_is_named(space, word, message, tmp_path, capsys):
    run = tmp_path / "run"
    words = [f"search_space={space}", "search_algo=darts", "effort=smoke", f"search_algo.{word}"]
    assert main(["search", *words, f"hydra.run.dir={run}"]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1 and not run.exists()


RUNS = [
    *((name, "nas_bench_201") for name in (*METHODS, "pc_darts")),
    *((name, "darts_cell") for name in ("gdas", "drnas", "oles", "darts_pt")),
    *((name, "spos_blocks") for name in ("reinmax", "fair_darts", "robust_darts")),
]


@pytest.mark.soak
@pytest.mark.parametrize(("name", "space"), RUNS)
def test_a_method_runs_in_a_space_of_mixtures(name, space, tmp_path):
    words = [f"search_space={space}", f"search_algo={name}", "effort=smoke", "threads=1"]
    words += ["search_space.nodes=2"] * (space == "darts_cell")
    assert main(["search", *words, f"hydra.run.dir={tmp_path / 'run'}"]) == 0
