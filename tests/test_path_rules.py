"""Rules of supernet training that look at the paths of a step."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers import CPU, TASK, Images, Recorder, schedule, space, train_step, trainer

from nasrun.cli.errors import verdict
from nasrun.config.build import build_setup
from nasrun.config.compose import compose
from nasrun.errors import UserError
from nasrun.run.monitor import NullMonitor
from nasrun.sampler.sandwich import Sandwich
from nasrun.sampler.uniform import Uniform
from nasrun.streams import Streams
from nasrun.trainer.step_rules import PathRules, SizePower, StepRules
from nasrun.values import Architecture

POWER = SizePower(size="params", smallest=4, largest=0.25)


def rules(**changes) -> StepRules:
    options = {"gradients": "sum", "distillation": False, "size_power": None}
    options |= {"separate_momentum": False, **changes}
    return PathRules(**options).bind(space(), TASK, Streams(0))


def started(step_rules: StepRules, **changes):
    with Streams(0).default("init"):
        network = space().supernet(TASK)
    return trainer(**changes).bind(network, Images(64), CPU, Streams(0), rules=step_rules)


def test_the_power_goes_from_the_smallest_to_the_largest_in_the_logarithm_of_size():
    power = rules(size_power=POWER).power
    search_space = space()
    smallest, largest = search_space.extremes(
        search_space.sizer("params", TASK), Streams(0).sub("any")
    )
    assert power([smallest.choices]) == pytest.approx(4)
    assert power([largest.choices]) == pytest.approx(0.25)
    low, high = (math.log(search_space.cost(a, TASK).params) for a in (smallest, largest))
    for seed in range(20):
        path = search_space.sample(np.random.default_rng(seed))
        share = (math.log(search_space.cost(path, TASK).params) - low) / (high - low)
        assert power([path.choices]) == pytest.approx(4 - 3.75 * min(max(share, 0), 1))


@pytest.mark.soak
def test_the_learning_rate_of_a_step_is_that_of_its_path():
    """Known: without momentum and decay the update is lr times the gradient."""
    search_space = space()
    training = started(
        rules(size_power=POWER),
        momentum=0.0,
        weight_decay=0.0,
        clip=0.0,
        schedule=schedule(kind="polynomial", lr=0.1),
    )
    training.step = 5  # of 8
    path = search_space.sample(np.random.default_rng(3)).choices
    reference = copy.deepcopy(training.network).train()
    images, labels = next(Images(64).train_batches(16, streams=Streams(0)))
    F.cross_entropy(reference(images, path), labels).backward()
    training.network.train()
    train_step(training, images, labels, [path])
    lr = 0.1 * (1 - 5 / 8) ** training.rules.power([path])
    for ours, theirs in zip(training.network.parameters(), reference.parameters(), strict=True):
        expected = theirs if theirs.grad is None else theirs - lr * theirs.grad
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.soak
def test_the_logged_rate_is_that_of_the_last_path():
    training, monitor = (
        started(rules(size_power=POWER), log_every=1, schedule=schedule(kind="polynomial", lr=0.1)),
        Recorder(),
    )
    gates = Uniform().bind(space(), TASK, None, Streams(0), steps=100)
    training.train_round(monitor, "supernet", gates)
    for step, line in enumerate(monitor.metrics):
        power = training.rules.power(gates(step))
        assert line["lr"] == pytest.approx(0.1 * (1 - step / 8) ** power)


def test_every_option_of_one_decision_has_its_own_momentum():
    search_space = space()
    step_rules = rules(separate_momentum=True)
    training = started(step_rules)
    kinds = {len(d.options) for d in search_space.decisions if d.kind == "op"}
    assert step_rules.momenta in kinds and len(training.updates.optimisers) == step_rules.momenta
    batch = next(Images(64).train_batches(16, streams=Streams(0)))
    training.network.train()
    first = search_space.sample(np.random.default_rng(0)).choices
    used = step_rules.momentum([first])
    train_step(training, *batch, [first])
    filled = [len(optimiser.state) > 0 for optimiser in training.updates.optimisers]
    assert filled == [index == used for index in range(step_rules.momenta)]
    # The stem takes part in every path: its momentum is that of the option, not of the last step.
    other = next(
        path
        for seed in range(99)
        if step_rules.momentum([path := search_space.sample(np.random.default_rng(seed)).choices])
        != used
    )
    stem = next(training.network.stem.parameters())
    before = training.updates.optimisers[used].state[stem]["momentum_buffer"].clone()
    train_step(training, *batch, [other])
    assert torch.equal(training.updates.optimisers[used].state[stem]["momentum_buffer"], before)


def test_the_momentum_follows_one_decision_of_the_run():
    found = set()
    for seed in range(30):
        options = PathRules(
            gradients="sum", distillation=False, size_power=None, separate_momentum=True
        )
        step_rules = options.bind(space(), TASK, Streams(seed))
        found.add(
            next(
                index
                for index, decision in enumerate(space().decisions)
                if decision.kind == "op"
                and all(
                    step_rules.momentum([path]) == path[index]
                    for path in (space().sample(np.random.default_rng(i)).choices for i in range(9))
                )
            )
        )
    assert len(found) > 5


@pytest.mark.soak
@pytest.mark.parametrize("gradients", ["sum", "mean"])
def test_in_distillation_the_others_learn_the_first(gradients):
    """Labels are smoothed, the outputs of the teacher are not."""
    search_space, rng = space(), np.random.default_rng(0)
    paths = [search_space.sample(rng).choices for _ in range(3)]
    training = started(
        rules(distillation=True, gradients=gradients),
        momentum=0.0,
        weight_decay=0.0,
        clip=0.0,
        label_smoothing=0.2,
    )
    reference = copy.deepcopy(training.network).train()
    images, labels = next(Images(64).train_batches(16, streams=Streams(0)))
    teacher = reference(images, paths[0])
    loss = F.cross_entropy(teacher, labels, label_smoothing=0.2)
    soft = teacher.detach().softmax(1)
    for path in paths[1:]:
        logs = reference(images, path).log_softmax(1)
        loss = loss - (soft * logs).sum(1).mean()
    (loss if gradients == "sum" else loss / 3).backward()
    training.network.train()
    train_step(training, images, labels, paths)
    for ours, theirs in zip(training.network.parameters(), reference.parameters(), strict=True):
        expected = theirs if theirs.grad is None else theirs - 0.1 * theirs.grad
        torch.testing.assert_close(ours, expected, rtol=1e-3, atol=1e-5)


CALR = "path_rules.size_power={size:params,smallest:4,largest:0.25}"
TAUGHT = "path_rules.distillation=true"
APART = "path_rules.separate_momentum=true"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((CALR,), "trainer.schedule.kind=cosine: set it to polynomial"),
        ((CALR, "search_algo=darts", "search_space=darts_cell"), "set it to polynomial"),
        (("path_rules=distillation",), "path_rules.distillation=true: sampler Proportional"),
        ((TAUGHT, "sampler=uniform"), "largest path comes first"),
        ((TAUGHT, "sampler=fair", "search_algo=random"), "sampler Fair has no steps"),
        ((TAUGHT, "search_algo=enas"), "none can teach another"),
        ((APART, "search_algo=darts", "search_space=darts_cell"), "no step is that of one option"),
    ],
)
def test_rules_that_would_do_nothing_are_refused(words, said):
    setup = build_setup(compose(["task=search", *words]))
    with pytest.raises(UserError, match=said) as error:
        setup.check_algo()
    if "sampler" in said:
        assert verdict(error.value)[0].endswith("set it to false, or take sampler=sandwich")


@pytest.mark.parametrize(
    "words",
    [
        *((CALR, "trainer.schedule.kind=polynomial"), (TAUGHT, "sampler=sandwich")),
        *((APART,), (APART, "search_algo=enas")),
    ],
)
def test_rules_that_do_something_are_taken(words):
    build_setup(compose(["task=search", *words])).check_algo()


@pytest.mark.soak
def test_all_rules_together_go_on_to_the_same_bits():
    step_rules = rules(size_power=POWER, separate_momentum=True, distillation=True)
    gates = Sandwich(random=1, size="macs").bind(space(), TASK, None, Streams(0), steps=100)
    states = []
    whole = started(step_rules, schedule=schedule(kind="polynomial"))

    class Saves(NullMonitor):
        def safe_point(self):
            states.append(copy.deepcopy(whole.state_dict()))

    whole.train_round(Saves(), "supernet", gates)
    resumed = started(step_rules, schedule=schedule(kind="polynomial"))
    resumed.load_state_dict(states[4])
    resumed.train_round(NullMonitor(), "supernet", gates)
    for ours, theirs in zip(
        resumed.network.state_dict().values(), whole.network.state_dict().values(), strict=True
    ):
        assert torch.equal(ours, theirs)


def test_equal_sizes_have_the_power_of_the_largest():
    class Alike(type(space())):
        def cost(self, architecture, task, scale="search"):
            return super().cost(Architecture(self.name, (0,) * len(self.decisions)), task, scale)

    scale = space().scales["search"]
    alike = Alike(operations="small", nodes=5, stem="small", search=scale, final=scale)
    options = PathRules(
        gradients="sum", distillation=False, size_power=POWER, separate_momentum=False
    )
    power = options.bind(alike, TASK, Streams(0)).power
    assert power([alike.sample(np.random.default_rng(0)).choices]) == 0.25


def test_polynomial_schedule():
    rate = schedule(kind="polynomial", lr=0.1, lr_end=0.02, power=2)
    assert rate.learning_rate(0, 10, 1) == pytest.approx(0.1)
    assert rate.learning_rate(5, 10, 1) == pytest.approx(0.02 + 0.08 * 0.25)
    assert rate.learning_rate(5, 10, 1, power=1) == pytest.approx(0.06)
