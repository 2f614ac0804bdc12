"""The training loop: what it may touch, what it must reproduce, and its arithmetic."""

from __future__ import annotations

import copy
import math
import traceback

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers import CPU, TASK, Images, Probe, Recorder, schedule, space, train_step, trainer
from torch.optim.sgd import sgd

from nasrun.errors import UserError
from nasrun.run.monitor import NullMonitor
from nasrun.sampler.uniform import Uniform
from nasrun.streams import Streams
from nasrun.trainer.step_rules import StepRules
from nasrun.trainer.updates import Updates


def supernet(search_space=None, seed: int = 0):
    with Streams(seed).default("init"):
        return (search_space or space()).supernet(TASK)


def test_options_not_sampled_get_no_update_no_decay_and_no_momentum():
    search_space, rng = space(), np.random.default_rng(0)
    first, second = search_space.sample(rng), search_space.sample(rng)
    training = trainer(weight_decay=0.1).bind(
        supernet(search_space), Images(64), CPU, Streams(0), rounds=2
    )
    batch = next(Images(64).train_batches(16, streams=Streams(0)))
    training.network.train()
    for _ in range(3):
        train_step(training, *batch, [first.choices])  # gives its options momentum
    before = {name: p.detach().clone() for name, p in training.network.named_parameters()}
    training.network.zero_grad()
    training.network(batch[0], second.choices).sum().backward()
    drawn = {name for name, p in training.network.named_parameters() if p.grad is not None}
    training.network.zero_grad()
    train_step(training, *batch, [second.choices])
    for name, parameter in training.network.named_parameters():
        assert torch.equal(parameter, before[name]) == (name not in drawn), name
    assert 0 < len(drawn) < len(before)


@pytest.mark.few(1)
@pytest.mark.parametrize(("nesterov", "decay_all"), [(False, True), (True, False)])
def test_options_that_coast_follow_torchs_own_optimiser_with_zeroed_gradients(nesterov, decay_all):
    """Up to rounding: SGD over all weights, whose gradients are zeroed and never dropped."""
    search_space, rng = space(), np.random.default_rng(0)
    paths = [search_space.sample(rng).choices for _ in range(3)]

    def started(seed):
        return trainer(
            idle_options="coast", nesterov=nesterov, decay_norm_and_bias=decay_all, clip=0.0
        ).bind(supernet(search_space, seed), Images(64), CPU, Streams(0))

    training = started(0)
    training.network.train()
    reference = copy.deepcopy(training.network)
    first = {name: p.detach().clone() for name, p in reference.named_parameters()}
    decayed = [p for p in reference.parameters() if decay_all or p.dim() >= 2]
    others = [p for p in reference.parameters() if not decay_all and p.dim() < 2]
    optimiser = torch.optim.SGD(
        [{"params": decayed, "weight_decay": 1e-3}, {"params": others, "weight_decay": 0.0}],
        lr=0.1,
        momentum=0.9,
        nesterov=nesterov,
        foreach=False,
    )
    images, labels = next(Images(64).train_batches(16, streams=Streams(0)))
    moved_while_idle = 0
    for step, path in enumerate([paths[0], paths[1], paths[0], paths[2], paths[2], paths[1]]):
        if step == 3:  # as after a kill: what coasts is known from the state
            state = copy.deepcopy(training.state_dict())
            training = started(99)
            training.load_state_dict(state)
            training.network.train()
        optimiser.zero_grad(set_to_none=False)
        before = [p.detach().clone() for p in reference.parameters()]
        F.cross_entropy(reference(images, path), labels).backward()
        optimiser.step()
        train_step(training, images, labels, [path])
        for ours, theirs, old in zip(
            training.network.parameters(), reference.parameters(), before, strict=True
        ):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5, msg=str(step))
            assert ours.grad is None
            idle = theirs.grad is not None and not theirs.grad.any()
            moved_while_idle += idle and not torch.equal(theirs, old)
    assert moved_while_idle > 20
    never = [n for n, p in reference.named_parameters() if p.grad is None]
    assert never and all(torch.equal(reference.get_parameter(n), first[n]) for n in never)


@pytest.mark.soak
def test_weights_that_coast_add_nothing_to_the_norm_that_is_clipped():
    search_space, rng = space(), np.random.default_rng(0)
    paths = [search_space.sample(rng).choices for _ in range(2)]
    training = trainer(idle_options="coast", clip=0.05).bind(
        supernet(search_space), Images(64), CPU, Streams(0)
    )
    training.network.train()
    reference = copy.deepcopy(training.network)
    wide = [p for p in reference.parameters() if p.dim() >= 2]
    narrow = [p for p in reference.parameters() if p.dim() < 2]
    groups = [{"params": wide, "weight_decay": 1e-3}, {"params": narrow}]
    optimiser = torch.optim.SGD(groups, lr=0.1, momentum=0.9)
    images, labels = next(Images(64).train_batches(16, streams=Streams(0)))
    for path in (*paths, *paths):
        optimiser.zero_grad(set_to_none=False)
        F.cross_entropy(reference(images, path), labels).backward()
        assert torch.nn.utils.clip_grad_norm_(reference.parameters(), 0.05) > 0.05
        optimiser.step()
        train_step(training, images, labels, [path])
    for ours, theirs in zip(training.network.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


@pytest.mark.soak
@pytest.mark.parametrize("idle_options", ["freeze", "coast"])
def test_a_look_ahead_moves_all_weights_as_the_next_step_does(idle_options):
    search_space, rng = space(), np.random.default_rng(0)
    first, second = search_space.sample(rng), search_space.sample(rng)
    training = trainer(idle_options=idle_options, clip=0.0).bind(
        supernet(search_space), Images(64), CPU, Streams(0)
    )
    batch = next(Images(64).train_batches(16, streams=Streams(0)))
    training.network.train()
    for _ in range(2):
        train_step(training, *batch, [first.choices])
    other = copy.deepcopy(training.network)
    moved = training.batch_gradients.add(*batch, [second.choices], training.position)
    training.look_ahead()
    ahead = [p.detach().clone() for p in training.network.parameters()]
    training.network.load_state_dict(other.state_dict())
    training.update(training.batch_gradients.add(*batch, [second.choices], training.position), None)
    assert moved.isfinite().all()
    for ours, theirs in zip(training.network.parameters(), ahead, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-7)


def test_what_coasts_is_known_by_its_momentum():
    with pytest.raises(UserError, match="idle_options=coast needs a momentum above 0"):
        trainer(idle_options="coast", momentum=0.0)


def test_each_element_of_the_gradient_is_clipped_before_the_decay():
    network = space().network(space().sample(np.random.default_rng(0)), TASK, "search")
    training = trainer(clip=0.0, clip_value=0.01, momentum=0.0, weight_decay=0.5).bind(
        network, Images(64), CPU, Streams(0)
    )
    reference = copy.deepcopy(network).train()
    images, labels = next(Images(64).train_batches(16, streams=Streams(0)))
    F.cross_entropy(reference(images), labels).backward()
    network.train()
    train_step(training, images, labels, None)
    clipped = 0
    for ours, theirs in zip(network.parameters(), reference.parameters(), strict=True):
        decay = 0.5 * theirs if theirs.dim() >= 2 else 0
        expected = theirs - 0.1 * (theirs.grad.clamp(-0.01, 0.01) + decay)
        torch.testing.assert_close(ours, expected)
        clipped += int((theirs.grad.abs() > 0.01).sum())
    assert clipped > 20


@pytest.mark.few(1)
@pytest.mark.parametrize("gradients", ["sum", "mean"])
def test_several_paths_are_accumulated_into_one_update(gradients):
    search_space, rng = space(), np.random.default_rng(0)
    paths = [search_space.sample(rng).choices for _ in range(3)]
    batch = next(Images(64).train_batches(16, streams=Streams(0)))
    training = trainer(momentum=0.0, clip=0.0, weight_decay=0.0).bind(
        *(supernet(search_space), Images(64), CPU, Streams(0)),
        rules=StepRules(gradients=gradients),
    )
    reference = copy.deepcopy(training.network).train()
    training.network.train()
    measured = train_step(training, *batch, paths)
    loss = sum(F.cross_entropy(reference(batch[0], path), batch[1]) for path in paths)
    assert measured[0].item() == pytest.approx(loss.item() / 3, rel=1e-5)
    (loss if gradients == "sum" else loss / 3).backward()
    for ours, theirs in zip(training.network.parameters(), reference.parameters(), strict=True):
        expected = theirs if theirs.grad is None else theirs - 0.1 * theirs.grad
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("decay_all", [False, True])
def test_weight_decay_spares_batch_norm_and_bias(decay_all):
    network = space().network(space().sample(np.random.default_rng(0)), TASK, "search")
    training = trainer(weight_decay=0.5, decay_norm_and_bias=decay_all, clip=1e-12).bind(
        network, Images(64), CPU, Streams(0)
    )
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    network.train()
    train_step(training, *next(Images(64).train_batches(16, streams=Streams(0))), None)
    for name, parameter in network.named_parameters():
        # the clip leaves next to nothing of the gradient: what moves is decay
        decayed = before[name] * (1 - 0.1 * 0.5)
        expected = decayed if decay_all or parameter.dim() >= 2 else before[name]
        torch.testing.assert_close(parameter, expected, rtol=1e-5, atol=1e-6)


def trained(rounds: int, stop_after: int | None, **changes):
    """Weights after ``rounds`` rounds; with a break and a new process' objects after one."""
    search_space = space()
    gates = Uniform().bind(search_space, TASK, None, Streams(3), steps=100)
    options = trainer(drop_path_keep=0.7, dropout_keep=0.8, **changes)
    training = options.bind(supernet(search_space), Images(64), CPU, Streams(3), rounds=rounds)
    monitor = Recorder()
    for index in range(rounds):
        if index == stop_after:
            state = copy.deepcopy(training.state_dict())
            training = options.bind(
                supernet(search_space, seed=99), Images(64), CPU, Streams(3), rounds=rounds
            )
            training.load_state_dict(state)
        training.train_round(monitor, "supernet", gates)
    return training, monitor


@pytest.mark.soak
@pytest.mark.parametrize("spans", ["round", "run"])
def test_a_resumed_training_gives_the_same_bits(spans):
    whole, metrics = trained(3, None, schedule=schedule(spans=spans))
    broken, broken_metrics = trained(3, 1, schedule=schedule(spans=spans))
    assert metrics.metrics == broken_metrics.metrics and metrics.steps == 3 * whole.steps_per_round
    for ours, theirs in zip(
        whole.network.state_dict().values(), broken.network.state_dict().values(), strict=True
    ):
        assert torch.equal(ours, theirs)


def test_seeds_matter_and_equal_seeds_agree():
    def weights(seed):
        network = space().network(space().sample(np.random.default_rng(0)), TASK, "search")
        with Streams(0).default("same init"):
            for parameter in network.parameters():
                torch.nn.init.normal_(parameter)
        training = trainer().bind(network, Images(64), CPU, Streams(seed))
        training.train_round(NullMonitor(), "x")
        return torch.cat([p.flatten() for p in network.parameters()])

    assert torch.equal(weights(0), weights(0))
    assert not torch.equal(weights(0), weights(1))


def test_it_learns_and_says_so():
    network = space().network(space().sample(np.random.default_rng(0)), TASK, "search")
    monitor = Recorder()
    training = trainer(epochs=12).bind(network, Images(64), CPU, Streams(0))
    training.train_round(monitor, "retrain")
    assert monitor.metrics[-1]["accuracy"] > 0.9 and monitor.metrics[-1]["loss"] < 0.4
    assert monitor.steps == 12 * 4
    assert not network.training
    x = torch.randn(2, 1, 8, 8)
    assert torch.equal(network(x), network(x))  # no noise is left behind


def test_a_loss_that_is_no_number_stops_with_step_and_rate():
    network = space().network(space().sample(np.random.default_rng(0)), TASK, "search")
    images = Images(64)
    images.images[:] = math.nan
    training = trainer().bind(network, images, CPU, Streams(0))
    with pytest.raises(UserError, match=r"not a number at step 0 with learning rate 0\.1:"):
        training.train_round(NullMonitor(), "retrain")


def test_label_smoothing_and_auxiliary_loss():
    """Uniform logits over K classes have cross entropy log K, smoothed or not."""
    batch = torch.zeros(8, 1, 8, 8), torch.zeros(8, dtype=torch.int64)
    for changes, expected in (
        ({}, math.log(4)),
        ({"label_smoothing": 0.1}, math.log(4)),
        ({"auxiliary_weight": 0.4}, 1.4 * math.log(4)),
    ):
        training = trainer(**changes).bind(Probe(), Images(64), CPU, Streams(0))
        loss, _ = train_step(training, *batch, None).tolist()
        assert loss == pytest.approx(expected)
    training = trainer(momentum=0, weight_decay=0, clip=0, label_smoothing=0.1).bind(
        Probe(), Images(64), CPU, Streams(0)
    )
    train_step(training, *batch, None)
    # gradient of the logit: softmax - smoothed target = 1/4 - (0.9 + 0.1/4)
    assert training.network.weight.item() == pytest.approx(0.1 * (0.925 - 0.25))


def test_schedules():
    cosine = schedule(lr=0.025, lr_end=0.001)
    assert cosine.learning_rate(0, 100, 10) == 0.025
    assert cosine.learning_rate(50, 100, 10) == pytest.approx(0.013)
    assert cosine.learning_rate(100, 100, 10) == pytest.approx(0.001)
    restarts = schedule(lr=0.05, lr_end=0.0005, cycle_epochs=10, cycle_factor=2)
    assert [restarts.learning_rate(epoch * 7, 700, 7) for epoch in (0, 10, 30, 70)] == [0.05] * 4
    assert restarts.learning_rate(20 * 7, 700, 7) == pytest.approx((0.05 + 0.0005) / 2)
    exponential = schedule(kind="exponential", lr=0.1, decay=0.97)
    assert exponential.learning_rate(0, 500, 10) == exponential.learning_rate(9, 500, 10) == 0.1
    assert exponential.learning_rate(25, 500, 10) == pytest.approx(0.1 * 0.97**2)
    linear = schedule(kind="linear", lr=0.5)
    assert linear.learning_rate(30, 100, 10) == pytest.approx(0.35)
    warm = schedule(lr=0.1, warmup_epochs=1)
    assert [warm.learning_rate(step, 100, 10) for step in (0, 4, 9, 10)] == pytest.approx(
        [0.01, 0.05, 0.1, 0.1]
    )
    assert schedule(kind="constant").learning_rate(99, 100, 10) == 0.1


@pytest.mark.soak
def test_a_rate_that_changes_once_an_epoch():
    """Known: (lr - lr_end) (1 + cos(pi e / E)) / 2 + lr_end in all steps of epoch e of E."""
    cosine = schedule(lr=0.025, lr_end=0.001, per="epoch")
    for step in range(70):
        expected = 0.001 + 0.024 * (1 + math.cos(math.pi * (step // 7) / 10)) / 2
        assert cosine.learning_rate(step, 70, 7) == pytest.approx(expected)
    restarts = schedule(lr=0.05, cycle_epochs=2, cycle_factor=2, per="epoch")
    rates = [restarts.learning_rate(step, 42, 7) for step in range(0, 42, 7)]
    assert rates == pytest.approx([0.05, 0.025, 0.05, 0.05 * (2 + 2**0.5) / 4, 0.025, rates[5]])
    assert restarts.learning_rate(13, 42, 7) == rates[1]
    warm = schedule(kind="linear", lr=0.1, warmup_epochs=0.5, per="epoch")
    assert warm.learning_rate(5, 100, 10) == warm.learning_rate(9, 100, 10) == 0.1
    assert warm.learning_rate(10, 100, 10) == warm.learning_rate(19, 100, 10) < 0.1


def test_drop_path_keeps_expectation_and_grows_with_depth_and_time():
    network = Probe()
    x = torch.ones(4000, 1, 1, 1)
    for progress, depth, keep in ((1.0, 1.0, 0.8), (0.5, 1.0, 0.8), (1.0, 0.25, 0.8)):
        network.noise.begin_step(
            Streams(0).torch("noise", 0), progress=progress, drop_path_keep=keep, dropout_keep=1.0
        )
        out = network.noise.drop_path(x, depth)
        dropped = progress * depth * (1 - keep)
        assert (out == 0).float().mean().item() == pytest.approx(dropped, abs=0.03)
        assert out.max().item() == pytest.approx(1 / (1 - dropped))
    network.noise.stop()
    assert network.noise.drop_path(x, 1.0) is x and network.noise.dropout(x) is x


@pytest.mark.soak
@pytest.mark.parametrize("stop", range(1, 12))
def test_a_training_taken_up_at_any_step_gives_the_same_bits(stop):
    def started(seed):
        return trainer(log_every=5, drop_path_keep=0.7, epochs=3).bind(
            supernet(seed=seed), Images(64), CPU, Streams(3)
        )

    gates = Uniform().bind(space(), TASK, None, Streams(3), steps=100)
    whole, states, monitor = started(0), [], Recorder()

    class Saves(Recorder):
        def safe_point(self):
            states.append(copy.deepcopy(whole.state_dict()))

    saves = Saves()
    whole.train_round(saves, "supernet", gates)
    resumed = started(1)
    resumed.load_state_dict(states[stop - 1])
    resumed.train_round(monitor, "supernet", gates)
    skipped = stop // 5  # lines that were written before
    assert monitor.metrics == saves.metrics[skipped:] and monitor.steps == saves.steps
    for ours, theirs in zip(
        resumed.network.state_dict().values(), whole.network.state_dict().values(), strict=True
    ):
        assert torch.equal(ours, theirs)


@pytest.mark.soak
def test_more_epochs_train_on_and_fewer_than_done_are_refused():
    def started(epochs):
        return trainer(epochs=epochs).bind(Probe(), Images(64), CPU, Streams(0))

    first = started(2)
    first.train_round(NullMonitor(), "retrain")
    state = first.state_dict()
    longer, monitor = started(5), Recorder()
    longer.load_state_dict(state)
    assert not longer.done and longer.step == 8
    longer.train_round(monitor, "retrain")
    assert longer.done and monitor.steps == 5 * 4
    with pytest.raises(UserError, match="epochs=1: 2 epochs are trained already"):
        started(1).load_state_dict(state)


@pytest.mark.parametrize(
    "change",
    [{"step": -1}, {"rounds_done": 9}, {"rounds_done": -1}, {"measured": torch.zeros(99, 2)}],
)
def test_positions_that_cannot_be_are_refused(change):
    training = trainer().bind(Probe(), Images(64), CPU, Streams(0))
    with pytest.raises(ValueError, match="position"):
        training.load_state_dict({**training.state_dict(), **change})


def test_the_gradient_is_two_frames_below_the_caller_of_a_round():
    class Frames(Probe):
        own: list[str] = []  # noqa: RUF012

        def forward(self, x):
            frames = traceback.extract_stack()
            self.own[:] = [frame.name for frame in frames if "/nasrun/trainer/" in frame.filename]
            return super().forward(x)

    network = Frames()
    trainer().bind(network, Images(64), CPU, Streams(0)).train_round(NullMonitor(), "retrain")
    assert network.own == ["train_round", "add"]


@pytest.mark.parametrize("rule", ["freeze", "coast"])
@pytest.mark.parametrize(
    ("groups", "strides"), [(6, (9, 77, 3, 1)), (1, (54, 9, 3, 1)), (2, (1, 6, 18, 54))]
)
def test_gradients_get_the_strides_of_their_weights(rule, groups, strides, monkeypatch):
    """Strides of sides of 1 mean nothing, but one operation for all weights compares them."""
    seen = []

    def record(weights, gradients, momenta, **settings):
        seen.extend(
            (w.stride(), g.stride(), m.stride())
            for w, g, m in zip(weights, gradients, momenta, strict=True)
        )
        return sgd(weights, gradients, momenta, **settings)

    monkeypatch.setattr("nasrun.trainer.updates.sgd", record)
    network = torch.nn.Conv2d(6, 6, 3, groups=groups, bias=False)
    network = network.to(memory_format=torch.channels_last)
    start = network.weight.detach().clone()
    settings = trainer(idle_options=rule, momentum=0.9, weight_decay=0.0, clip=0.0)
    updates = Updates(settings, network)
    odd = torch.empty_strided(start.shape, strides).copy_(torch.randn(start.shape))
    gradient = odd.clone()
    assert odd.stride() != network.weight.stride()
    network.weight.grad = odd
    updates.update(0.1)
    (found,) = seen
    assert len(set(found)) == 1
    torch.testing.assert_close(network.weight.detach(), start - 0.1 * gradient)


@pytest.mark.parametrize("rule", ["freeze", "coast"])
@pytest.mark.parametrize("nesterov", [True, False])
def test_a_fused_update_is_that_of_one_operation_after_the_other(rule, nesterov, monkeypatch):
    """Weights that join later included: they have no momentum yet."""
    settings = trainer(idle_options=rule, nesterov=nesterov, weight_decay=0.01, momentum=0.9)
    moved = []
    for fused in (True, False):
        monkeypatch.setattr("nasrun.trainer.updates.are_fused", lambda _, fused=fused: fused)
        torch.manual_seed(0)
        network = torch.nn.ModuleList([torch.nn.Conv2d(3, 5, 3), torch.nn.Linear(7, 2)])
        network = network.to(memory_format=torch.channels_last)
        updates = Updates(settings, network)
        for step in range(6):
            for number, parameter in enumerate(network.parameters()):
                if (step + number) % 3:  # other weights in each step
                    parameter.grad = torch.randn_like(parameter)
            updates.update(0.1)
        moved.append([parameter.detach() for parameter in network.parameters()])
        assert len(updates.state_dict()["0"]) == 4
    for ours, plain in zip(*moved, strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-5, atol=1e-6)
