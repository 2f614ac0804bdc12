"""ENAS: the controller's probabilities, REINFORCE against exact gradients, and searches with it."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from helpers import CPU, TASK, Recorder, space_of, splits, trainer

from nasrun.budget.candidates import Bounds, Candidates
from nasrun.cli.main import main
from nasrun.config.build import build_setup
from nasrun.config.compose import compose
from nasrun.errors import UserError
from nasrun.run.monitor import NullMonitor
from nasrun.search_algo.enas.controller import Controller, ControllerSettings, Sample
from nasrun.search_algo.enas.enas import Enas, EnasSearch
from nasrun.search_algo.enas.reinforce import EnasLearning, ReinforceSettings
from nasrun.search_space.base import SearchSpace
from nasrun.search_space.nao_cell import CellScale, NaoCell
from nasrun.streams import Streams
from nasrun.trainer.gate_learner import GateContext
from nasrun.trainer.step_rules import StepRules
from nasrun.trainer.training import Training

DEVICE = torch.device("cpu")
RELEASED = ControllerSettings(
    hidden=64, init_range=0.1, tanh_constant=1.1, op_tanh_reduce=2.5, conv_bias=10, normal_bias=0.25
)
FREE = replace(RELEASED, tanh_constant=None, conv_bias=0.0, normal_bias=0.0)
LEARN = ReinforceSettings(
    steps=2,
    aggregate=10,
    lr=0.0035,
    beta1=0.0,
    epsilon=1e-3,
    baseline_decay=0.99,
    entropy_weight=1e-4,
)
EVERY_SPACE = [
    *("nao_cell", "darts_cell", "dso_block", "one_shot_blocks", "nas_bench_201"),
    *("nas_bench_macro", "spos_blocks", "spos_channels", "spos_blocks_channels", "spos_quantized"),
]


def cells(nodes: int, operations: tuple[str, ...] | None = None) -> NaoCell:
    scale = CellScale(layers=1, channels=4)
    space = NaoCell(operations="small", nodes=nodes, stem="small", search=scale, final=scale)
    if operations:
        space.operations = operations
    return space


def controller(
    space: SearchSpace, settings: ControllerSettings = RELEASED, **changes
) -> Controller:
    with Streams(changes.pop("seed", 0)).default("controller"):
        return Controller(replace(settings, **changes), space)


def all_of(space: SearchSpace) -> torch.Tensor:
    return torch.tensor([architecture.choices for architecture in space.every()])


@pytest.mark.parametrize(
    ("space", "architectures"),
    [
        (cells(1, ("sep_conv_3x3", "identity", "zero")), 36**2),
        (cells(2, ("sep_conv_3x3",)), 36**2),  # attention over two and over three states
        (space_of("nas_bench_macro"), 3**8),
    ],
)
def test_the_probabilities_of_all_architectures_sum_to_one(space, architectures):
    made = controller(space, hidden=4, init_range=3.0).double()
    with torch.no_grad():
        found = made.probabilities_of(all_of(space))
    probabilities = found.log_prob.exp()
    assert len(probabilities) == architectures
    assert probabilities.sum().item() == pytest.approx(1, abs=1e-9)
    assert probabilities.max() > 10 * probabilities.min()
    # The chain rule: the entropy of the whole is the expected sum of those of the decisions.
    whole = -(probabilities * found.log_prob).sum().item()
    assert (probabilities * found.entropy).sum().item() == pytest.approx(whole, abs=1e-9)


def test_architectures_are_drawn_as_often_as_their_probability_says():
    space = cells(1, ("sep_conv_3x3", "identity"))
    made = controller(space, hidden=4, init_range=3.0)
    every = all_of(space)
    drawn = made.sample(40_000, torch.Generator().manual_seed(0)).choices
    places = (2 ** torch.arange(7, -1, -1) * drawn).sum(1)
    counts = torch.bincount(places, minlength=256)
    expected = 40_000 * made.probabilities_of(every).log_prob.exp()
    many = expected > 5
    deviations = ((counts - expected) ** 2 / expected)[many]
    assert deviations.sum() < many.sum() + 5 * math.sqrt(2 * many.sum())


@pytest.mark.few(4)
@pytest.mark.parametrize("name", EVERY_SPACE)
def test_what_is_drawn_has_the_probability_of_what_is_given_and_is_of_the_space(name):
    space = space_of(name)
    made = controller(space)
    drawn = made.sample(5, torch.Generator().manual_seed(1))
    again = made.probabilities_of(drawn.choices)
    assert torch.equal(again.choices, drawn.choices)
    assert torch.allclose(again.log_prob, drawn.log_prob, atol=1e-5)
    assert torch.allclose(again.entropy, drawn.entropy, atol=1e-5)
    alone = made.probabilities_of(drawn.choices[2:3])  # one does not depend on the others
    assert torch.allclose(alone.log_prob, drawn.log_prob[2:3], atol=1e-4)
    for architecture in made.architectures(drawn.choices, np.random.default_rng(0)):
        space.check(architecture)


def test_a_policy_without_weights_is_uniform():
    space = cells(5)
    made = controller(space, init_range=0.0, conv_bias=0.0, normal_bias=0.0)
    drawn = made.sample(3, torch.Generator().manual_seed(0))
    assert drawn.log_prob.tolist() == pytest.approx([-math.log(space.size)] * 3, rel=1e-5)
    # two cells, of each node two inputs of 2, 3, 4, 5 or 6 states and two of 5 operations
    by_hand = 4 * sum(math.log(states) + math.log(5) for states in range(2, 7))
    assert drawn.entropy.tolist() == pytest.approx([by_hand] * 3, rel=1e-5)


def test_the_biases_of_the_released_code_by_hand():
    """0.44 tanh(10) + 0.25 of a convolution in a normal cell, 0.44 in a reduction cell."""
    space = cells(1)
    made = controller(space, init_range=0.0)
    inputs = 4 * math.log(2)
    for op, normal in ((0, 0.69), (1, 0.69), (2, -0.25), (4, -0.25)):
        total = 2 * math.exp(0.69) + 3 * math.exp(-0.25)
        reduction = 0.44 if op < 2 else 0.0
        total_reduction = 2 * math.exp(0.44) + 3
        found = made.probabilities_of(torch.tensor([[0, op, 1, op] * 2])).log_prob.item()
        expected = 2 * (normal - math.log(total) + reduction - math.log(total_reduction)) - inputs
        assert found == pytest.approx(expected, abs=1e-5)


def test_an_input_is_drawn_before_the_operations_of_its_node():
    """Both inputs, then both operations: another operation x changes that of y, not input y."""
    space = cells(1, ("sep_conv_3x3", "identity"))
    made = controller(space, hidden=4, init_range=3.0).double()
    every = all_of(space)
    weights = made.probabilities_of(every).log_prob.exp()

    def chance(**wanted: int) -> float:
        names = {d.name.removeprefix("normal/node0/"): i for i, d in enumerate(space.decisions)}
        chosen = torch.ones(len(every), dtype=torch.bool)
        for name, choice in wanted.items():
            chosen &= every[:, names[name.replace("_", "/")]] == choice
        return weights[chosen].sum().item()

    given_inputs = [
        chance(x_input=0, y_input=0, x_op=op, y_op=0) / chance(x_input=0, y_input=0, x_op=op)
        for op in (0, 1)
    ]
    assert given_inputs[0] != pytest.approx(given_inputs[1], abs=1e-3)
    plan = [(step.act, step.decision) for step in made.plan]
    node = [("input", 0), ("input", 2), ("option", 1), ("option", 3), ("node", -1)]
    assert plan[:6] == [("cell", -1), *node]


def exact_case() -> tuple[Controller, torch.Tensor, torch.Tensor]:
    """A policy over 256 architectures in double precision, and a random reward of each."""
    space = cells(1, ("sep_conv_3x3", "identity"))
    made = controller(space, hidden=3, init_range=1.0, conv_bias=0.3).double()
    every = all_of(space)
    rewards = torch.rand(len(every), generator=torch.Generator().manual_seed(3)).double()
    return made, every, rewards


@pytest.mark.parametrize("baseline", [0.0, 0.7])
def test_the_expected_gradient_is_that_of_the_expected_reward(baseline):
    made, every, rewards = exact_case()

    @torch.no_grad()
    def expected_reward() -> float:
        return (made.probabilities_of(every).log_prob.exp() * rewards).sum().item()

    log_prob = made.probabilities_of(every).log_prob
    shares = len(every) * log_prob.detach().exp()
    EnasLearning.loss(log_prob, shares * (rewards - baseline)).backward()
    step = 1e-5
    for name, weight in made.named_parameters():
        values, gradient = weight.data.view(-1), weight.grad.view(-1)
        for place in range(0, len(values), max(len(values) // 3, 1)):
            before = values[place].item()
            values[place] = before + step
            above = expected_reward()
            values[place] = before - step
            slope = (above - expected_reward()) / (2 * step)
            values[place] = before
            assert -gradient[place].item() == pytest.approx(slope, abs=1e-8), name


def test_the_mean_over_many_samples_is_the_exact_gradient():
    made, every, rewards = exact_case()

    def gradient(log_prob: torch.Tensor, advantages: torch.Tensor) -> torch.Tensor:
        made.zero_grad()
        EnasLearning.loss(log_prob, advantages).backward()
        return torch.cat([weight.grad.flatten() for weight in made.parameters()])

    log_prob = made.probabilities_of(every).log_prob
    exact = gradient(log_prob, len(every) * log_prob.detach().exp() * (rewards - 0.5))
    drawn = made.sample(60_000, torch.Generator().manual_seed(0))
    earned = rewards[(2 ** torch.arange(7, -1, -1) * drawn.choices).sum(1)]
    estimate = gradient(drawn.log_prob, earned - 0.5)
    assert (estimate - exact).norm() < 0.1 * exact.norm()


def test_reward_baseline_and_loss_by_hand():
    made = controller(cells(1))
    settings = replace(LEARN, baseline_decay=0.9, entropy_weight=0.1)
    learner = EnasLearning(made, settings)
    drawn = made.sample(2, torch.Generator().manual_seed(0))
    log_prob = drawn.log_prob.tolist()
    drawn = Sample(drawn.choices, drawn.log_prob, torch.tensor([2.0, 4.0]))
    measured = learner.update(drawn, [0.8, 0.6]).tolist()
    # rewards 0.8 + 0.1·2 = 1 and 0.6 + 0.1·4 = 1; baselines 0.1 and 0.19, advantages 0.9 and 0.81
    assert learner.baseline == pytest.approx(0.19)
    loss = -(0.9 * log_prob[0] + 0.81 * log_prob[1]) / 2
    assert measured == pytest.approx([1.0, 0.145, 3.0, loss], rel=1e-5)


@pytest.mark.few(1)
@pytest.mark.parametrize("seed", range(3))
def test_it_learns_a_planted_reward_in_60_steps(seed):
    """The share of one operation and of one input."""
    made = controller(cells(1), FREE, seed=seed)
    learner = EnasLearning(made, replace(LEARN, lr=0.01))
    for step in range(60):
        drawn = made.sample(10, Streams(seed).torch("step", step))
        learner.update(drawn, planted(drawn.choices).tolist())
    drawn = made.sample(200, torch.Generator().manual_seed(0))
    assert planted(drawn.choices).mean() > 0.9 and drawn.entropy.mean() < 4


def planted(choices: torch.Tensor) -> torch.Tensor:
    return ((choices[:, 1::2] == 4).float() + (choices[:, ::2] == 1).float()).mean(1) / 2


def test_the_bounds_of_the_released_code_keep_it_exploring():
    """No softmax of logits within ±1.1 gives an input more than e^1.1 / (e^1.1 + e^-1.1)."""
    made = controller(cells(1))
    with torch.no_grad():
        for weight in made.parameters():
            weight.mul_(1000)
    drawn = made.sample(300, torch.Generator().manual_seed(0))
    chance = math.exp(1.1) / (math.exp(1.1) + math.exp(-1.1))
    operation = math.exp(0.69) / (math.exp(0.69) + 4 * math.exp(-0.69))
    most = 4 * math.log(chance) + 4 * math.log(operation)
    assert drawn.log_prob.max() <= most + 1e-4


def started(
    *words: str, epochs: int = 3, bound: float | None = None, **compute: Any
) -> tuple[EnasSearch, Training]:
    """The algorithm of a smoke run, and its training, of 4 steps an epoch."""
    line = ["task=search", "search_algo=enas", "effort=smoke", "search_space.nodes=2", *words]
    built, found = build_setup(compose(line)), splits()
    settings, space = built.search_algo, built.search_space
    assert isinstance(settings, Enas)
    bounds = [] if bound is None else [Bounds("params", 0, bound)]
    measures = {"params": lambda a: float(space.cost(a, TASK).params)} if bounds else {}
    algo = settings.bind(Candidates(space, bounds, measures), Streams(0), DEVICE)
    where = replace(CPU, **compute)
    context = GateContext(
        *(space, TASK, found.train, found.validation),
        *(16, epochs * 4, 4, where, Streams(0).sub("gates")),
    )
    algo.bind_learner(context)
    with Streams(0).default("init"):
        supernet = space.supernet(TASK)
    training = trainer(epochs=epochs, batch_size=16, log_every=1).bind(
        supernet, found.train, where, Streams(0), rules=replace(StepRules(), learner=algo.learner)
    )
    return algo, training


def train(
    algo: EnasSearch, training: Training, monitor: NullMonitor | None = None, **changed
) -> None:
    training.train_round(monitor or NullMonitor(), "supernet", algo.learner.gates, **changed)


@pytest.mark.soak
def test_it_learns_after_every_epoch_on_held_out_images_and_leaves_the_network_alone(monkeypatch):
    algo, training = started()
    learner, seen, drawn = algo.learner, [], []
    inner, draw, update = learner.batches.batch_of_step, learner.sample, learner.reinforce.update
    spy = lambda n: seen.append((n, inner(n))) or seen[-1][1]  # noqa: E731
    monkeypatch.setattr(learner.batches, "batch_of_step", spy)
    monkeypatch.setattr(learner, "sample", lambda *args: drawn.append(args[1:]) or draw(*args))
    weights: list[bool] = []

    def checked(*args: Any) -> torch.Tensor:
        now = {name: value.clone() for name, value in training.network.state_dict().items()}
        measured = update(*args)
        known = states[-1] if states else now
        weights.append(all(torch.equal(now[name], known[name]) for name in now))
        states.append(now)
        return measured

    states: list[dict[str, torch.Tensor]] = []
    monkeypatch.setattr(learner.reinforce, "update", checked)
    monitor = Recorder()
    train(algo, training, monitor)
    assert [number for number, _ in seen] == list(range(3 * 2 * 3))
    images = splits().validation.images
    for _, (batch, _) in seen:
        assert all(any(torch.equal(one, other) for other in images) for one in batch)
    assert drawn == [("weights", epoch, 4) for epoch in range(3)]
    # Between the controller's own two steps nothing changes, over an epoch the weights do.
    assert weights == [True, True, False, True, False, True]
    lines = [index for index, line in enumerate(monitor.metrics) if "reward" in line]
    assert lines == [3, 7, 11]
    last = monitor.metrics[11]
    assert 0 < last["baseline"] < last["reward"] <= 1.1 and last["entropy"] > 5
    assert math.isfinite(last["controller_loss"])
    assert training.network.training is False


def test_one_epoch_trains_different_architectures_and_another_other_ones():
    algo, _ = started()
    paths = [tuple(algo.learner.gates(step)[0]) for step in range(8)]
    assert len(set(paths)) == 8
    assert [tuple(algo.learner.gates(step)[0]) for step in range(8)] == paths


def test_a_policy_that_is_sure_derives_few(monkeypatch):
    monkeypatch.setattr("nasrun.search_algo.enas.enas.MAX_FRUITLESS_BATCHES", 3)
    algo, _ = started("search_algo.derive=50", "search_algo.controller.tanh_constant=null")
    with torch.no_grad():
        for name, weight in algo.learner.controller.named_parameters():
            weight.mul_(0 if "bias" in name else 1e6)
    assert 1 <= len(algo.ask()) < 50


def test_outside_the_budget_nothing_is_earned_or_derived():
    free, _ = started()
    sizes = sorted(
        free.candidates.space.cost(one, TASK).params
        for one in free.learner.sample(Streams(1), "x", 0, 40)
    )
    algo, training = started(epochs=2, bound=sizes[10])
    score = algo.learner._score
    inside, outside = [], []

    def spy(architecture, number, network):
        earned = score(architecture, number, network)
        (inside if algo.candidates.allows(architecture) else outside).append(earned)
        return earned

    algo.learner._score = spy  # type: ignore[method-assign]
    train(algo, training)
    assert outside and set(outside) == {0.0} and any(inside)
    found = algo.ask()
    assert found and all(map(algo.candidates.allows, found))


def test_a_budget_that_the_policy_never_meets_is_met_at_random(monkeypatch):
    algo, _ = started()
    rare = algo.candidates.space.sample(np.random.default_rng(5))
    monkeypatch.setattr(algo.candidates, "allows", lambda one: one == rare)
    monkeypatch.setattr(algo.candidates, "sample", lambda rng: rare)
    monkeypatch.setattr("nasrun.search_algo.pool.MAX_FRUITLESS_SAMPLES", 10)
    monkeypatch.setattr("nasrun.search_algo.enas.enas.MAX_FRUITLESS_BATCHES", 2)
    algo.monitor = monitor = Recorder()
    assert algo.ask() == [rare]
    assert "the controller samples nothing within the budget" in monitor.lines[0]


def test_rewards_that_are_no_numbers_stop_or_count_as_the_worst():
    for what in ("stop", "skip"):
        algo, training = started(on_nonfinite=what)
        with torch.no_grad():
            training.network.classifier.weight.fill_(torch.nan)
        if what == "stop":
            with pytest.raises(UserError, match="the controller has no reward"):
                algo.learner.learn_from(0, training.network)
        else:
            algo.learner.learn_from(0, training.network)
            assert 0 < algo.learner.pop_metrics().read()["reward"] < 0.01  # of the entropy alone


def test_a_controller_that_runs_away_is_stopped():
    made = controller(cells(1), FREE)
    learner = EnasLearning(made, replace(LEARN, lr=1e6, entropy_weight=1e6))
    with pytest.raises(UserError, match="lower search_algo"):
        for step in range(50):
            drawn = made.sample(10, Streams(0).torch("step", step))
            learner.update(drawn, [float("inf")] * 10)


def test_a_state_of_another_controller_is_refused():
    learner = EnasLearning(controller(cells(1)), LEARN)
    state = learner.state_dict()
    with pytest.raises(ValueError, match="not finite"):
        learner.load_state_dict({**state, "baseline": math.nan})
    with pytest.raises(RuntimeError):
        EnasLearning(controller(cells(1), hidden=8), LEARN).load_state_dict(state)


@pytest.mark.soak
@pytest.mark.parametrize("space", ["nao_cell", "darts_cell"])
def test_a_search_runs_and_says_what_the_controller_earned(space, tmp_path, capsys):
    run = tmp_path / "run"
    words = [f"search_space={space}", "search_space.nodes=2", "search_algo=enas"]
    words += ["effort=smoke", "threads=1"]
    assert main(["search", *words, f"hydra.run.dir={run}"]) == 0
    result = json.loads((run / "result.json").read_text())
    assert result["status"] == "done" and "test accuracy" in capsys.readouterr().out
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    last = [line for line in lines if line["stage"] == "supernet/round0"][-1]
    assert {"reward", "baseline", "entropy", "controller_loss"} <= set(last)
    trials = [json.loads(line) for line in (run / "trials.jsonl").read_text().splitlines()]
    assert [trial["round"] for trial in trials] == [0] * 4 + ["shortlist"] * 2


def test_the_papers_settings_stand_in_the_recipe():
    built = build_setup(compose(["task=search", "experiment=enas_cifar10"]))
    algo, how, final = built.search_algo, built.trainer, built.retrain.trainer
    assert (how.epochs, how.batch_size, how.schedule.lr, how.schedule.lr_end) == (
        *(150, 160, 0.05, 0.0005),
    )
    assert (final.epochs, final.batch_size, final.drop_path_keep) == (630, 144, 0.6)
    assert algo.controller == RELEASED
    assert algo.reinforce == replace(LEARN, steps=30)
    scales = built.search_space.scales
    assert [3 * scales[name].layers + 2 for name in ("search", "final")] == [8, 17]
    # Both end with a whole cosine cycle: 10 + 20 + 40 + 80, and up to 320.
    assert sum(10 * 2**cycle for cycle in range(4)) == how.epochs
    assert sum(10 * 2**cycle for cycle in range(6)) == final.epochs


@pytest.mark.few(2)
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["search_algo.controller.hidden=100000"], "search_algo.controller needs about"),
        (["search_algo.controller.hidden=0"], "search_algo.controller.hidden = 0: must be"),
        (["search_algo.controller.tanh_constant=0"], "search_algo.controller.tanh_constant = 0"),
        (["search_algo.reinforce.beta1=1"], "search_algo.reinforce.beta1 = 1: must be less than"),
        (["search_algo.reinforce.aggregate=0"], "search_algo.reinforce.aggregate = 0: must be"),
        (["search_algo.derive=0"], "search_algo.derive = 0: must be greater than 0"),
        (["search_algo.reinforce.step=3"], "did you mean 'search_algo.reinforce.steps'"),
        (["evaluator=standalone"], "take evaluator=kl or supernet"),
        (["warm_up.epochs=1"], "sets the gates of every step itself; set warm_up.epochs=0"),
    ],
)
def test_bad_input_is_refused_in_one_line(words, message, tmp_path, capsys):
    run = tmp_path / "run"
    line = ["search_algo=enas", "effort=smoke", "threads=1", *words, f"hydra.run.dir={run}"]
    assert main(["search", *line]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not run.exists()
