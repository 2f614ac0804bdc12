"""Path dropout by counting, and ghost batch norm: laws of a training step with ghost batches."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers import CPU, TASK, Images, Probe, Recorder, space, space_of, train_step, trainer

from nasrun.cli.errors import verdict
from nasrun.config.build import build_setup
from nasrun.config.compose import compose
from nasrun.errors import MissingCapabilityError, UserError
from nasrun.run.monitor import NullMonitor
from nasrun.sampler.path_dropout import PathDropout
from nasrun.sampler.warm_up import WarmUp
from nasrun.search_space.one_shot_blocks.wiring import input_at, operation_at
from nasrun.streams import Streams
from nasrun.trainer.step_rules import PathRules, StepRules

SPACE = space_of("one_shot_blocks")
EVERYTHING = SPACE.whole
GROUPS = [
    range(start, start + count)
    for block in range(4)
    for start, count in ((input_at(block, 0), block + 2), (operation_at(block, 0), 7))
]


def gates_of(rate=0.3, ghost_batch=2, batch_size=4000, steps=11, seed=0):
    sampler = PathDropout(rate=rate, ghost_batch=ghost_batch)
    ghost_batches = batch_size // (sampler.ghost_batch_of(batch_size) or batch_size)
    return sampler.bind(SPACE, TASK, None, Streams(seed), steps=steps, ghost_batches=ghost_batches)


def patterns(step: int, **changes) -> np.ndarray:
    """Ten seeds of 2,000 patterns [20000, decisions]."""
    return np.concatenate([gates_of(seed=seed, **changes)(step) for seed in range(10)])


@pytest.mark.parametrize("rate", [0.02, 0.3, 0.8])
def test_all_k_paths_of_a_group_are_dropped_with_the_rate_whatever_k_is(rate):
    drawn = patterns(10, rate=rate)
    error = 4.5 * np.sqrt(rate * (1 - rate) / len(drawn))
    for group in GROUPS:
        none_left = (drawn[:, list(group)] == 0).all(1).mean()
        assert abs(none_left - rate) < error
        one = rate ** (1 / len(group))
        off = (drawn[:, list(group)] == 0).mean(0)
        assert np.abs(off - one).max() < 4.5 * np.sqrt(one * (1 - one) / len(drawn))


def test_dropout_rises_linearly_from_none_in_the_first_step():
    assert (patterns(0) == 1).all()
    for step in (2, 5):
        drawn = patterns(step)
        for group in GROUPS:
            expected = step / 10 * 0.3 ** (1 / len(group))
            assert (drawn[:, list(group)] == 0).mean() == pytest.approx(expected, abs=0.01)
    assert gates_of(steps=1)(0) == [EVERYTHING] * 2000  # the first step of one


def test_patterns_are_named_by_seed_and_step_and_differ_between_ghost_batches():
    one, again, other = gates_of(batch_size=8), gates_of(batch_size=8), gates_of(seed=1)
    assert one(7) == again(7) and len(one(7)) == 4
    assert len({*one(7), *one(8)}) == 8 and one(7) != other(7)[:4]
    assert len(gates_of(ghost_batch=None)(7)) == 1


@pytest.mark.soak
def test_what_is_refused():
    with pytest.raises(UserError, match=r"batch=64 is larger than trainer\.batch_size=32"):
        PathDropout(rate=0.1, ghost_batch=64).ghost_batch_of(32)
    with pytest.raises(UserError, match=r"batch=12 does not divide trainer\.batch_size=32"):
        PathDropout(rate=0.1, ghost_batch=12).ghost_batch_of(32)
    for name in ("nao_cell", "nas_bench_201", "spos_blocks"):
        with pytest.raises(MissingCapabilityError, match=f"{name}.* has no such") as error:
            PathDropout(rate=0.1, ghost_batch=None).check(space_of(name))
        assert verdict(error.value)[0].endswith(": take search_space=dso_block or one_shot_blocks")
    with pytest.raises(UserError, match="not a pool"):
        PathDropout(rate=0.1, ghost_batch=None).bind(SPACE, TASK, [], Streams(0), steps=1)
    for wrong in ("rate=0", "rate=1", "rate=-1", "ghost_batch=1", "ghost_batch=0"):
        words = ["task=search", "sampler=path_dropout", f"sampler.{wrong}"]
        with pytest.raises(UserError, match=wrong.replace("=", " = ")):
            build_setup(compose(words))
    rules = PathRules(gradients="sum", distillation=True, size_power=None, separate_momentum=False)
    with pytest.raises(UserError, match="none can teach another"):
        rules.bind(SPACE, TASK, Streams(0), ghost_batch=4)


# Training with ghost batches.


def started(ghost_batch: int | None, **changes):
    with Streams(0).default("init"):
        network = SPACE.supernet(TASK)
    rules = StepRules(ghost_batch=ghost_batch)
    training = trainer(**changes).bind(network, Images(64), CPU, Streams(0), rules=rules)
    training.network.train()
    return training


def batch(count: int = 16):
    return next(Images(64).train_batches(count, streams=Streams(0)))


def weights(training) -> list[torch.Tensor]:
    return list(training.network.state_dict().values())


def test_one_ghost_batch_is_the_plain_step():
    path = SPACE.sample(np.random.default_rng(0)).choices
    plain, ghost = started(None), started(16)
    for training in (plain, ghost):
        measured = [train_step(training, *batch(), [path]) for _ in range(2)]
    assert measured[0].isfinite().all()
    for ours, theirs in zip(weights(ghost), weights(plain), strict=True):
        assert torch.equal(ours, theirs)


def test_ghost_batches_are_accumulated_into_one_update_each_with_its_own_gates():
    rng, (images, labels) = np.random.default_rng(0), batch()
    gates = [SPACE.sample(rng).choices for _ in range(4)]
    training = started(4, momentum=0.0, clip=0.0, weight_decay=0.0)
    reference = copy.deepcopy(training.network)
    loss, accuracy = train_step(training, images, labels, gates)
    parts = zip(images.split(4), labels.split(4), gates, strict=True)
    outputs = [(reference(part, path), answers) for part, answers, path in parts]
    expected = sum(F.cross_entropy(logits, answers) for logits, answers in outputs) / 4
    expected.backward()
    assert loss.item() == pytest.approx(expected.item())
    correct = sum((logits.argmax(1) == answers).sum().item() for logits, answers in outputs)
    assert accuracy.item() == pytest.approx(correct / 16)
    for ours, theirs in zip(training.network.parameters(), reference.parameters(), strict=True):
        moved = theirs if theirs.grad is None else theirs - 0.1 * theirs.grad
        torch.testing.assert_close(ours, moved, rtol=1e-5, atol=1e-6)


class GhostNorm(torch.nn.Module):
    """Ghost batch norm by the book: every ghost batch by its own mean and variance."""

    def __init__(self, norm: torch.nn.BatchNorm2d, ghost_batch: int) -> None:
        super().__init__()
        self.norm, self.ghost_batch = norm, ghost_batch

    def forward(self, x):
        norm = self.norm
        return torch.cat(
            [
                F.batch_norm(part, None, None, norm.weight, norm.bias, training=True, eps=norm.eps)
                for part in x.split(self.ghost_batch)
            ]
        )


def test_equal_gates_are_ghost_batch_norm():
    images, labels = batch()
    training = started(4, momentum=0.0, clip=0.0, weight_decay=0.0)
    reference = copy.deepcopy(training.network)
    for module in list(reference.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, torch.nn.BatchNorm2d):
                setattr(module, name, GhostNorm(child, 4))
    loss, _ = train_step(training, images, labels, [EVERYTHING])  # one for all ghost batches
    expected = F.cross_entropy(reference(images, EVERYTHING), labels)
    expected.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    for ours, theirs in zip(training.network.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs - 0.1 * theirs.grad, rtol=1e-3, atol=1e-5)
    same, whole = started(4), started(None)
    train_step(same, images, labels, [EVERYTHING] * 4)
    train_step(whole, images, labels, [EVERYTHING])
    assert not all(torch.equal(a, b) for a, b in zip(weights(same), weights(whole), strict=True))


def test_what_no_ghost_batch_opens_is_not_decayed():
    path = list(EVERYTHING)
    for index in GROUPS[-1]:  # the last block's operations
        path[index] = 0
    training = started(4, weight_decay=0.5)
    before = copy.deepcopy(training.network.state_dict())
    train_step(training, *batch(), [tuple(path)] * 4)
    for name, parameter in training.network.named_parameters():
        shut = ".blocks.3." in name or name.startswith(tuple(f"cells.{k}.norms.5" for k in "012"))
        assert torch.equal(parameter, before[name]) == shut, name


class Sizes(Probe):
    """Remembers how many images come with which gates."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[int, int]] = []

    def forward(self, x, gates):
        self.seen.append((len(x), gates[0]))
        return super().forward(x)


@pytest.mark.parametrize(
    ("images", "sizes"),
    [(16, [4, 4, 4, 4]), (14, [4, 4, 4, 2]), (13, [4, 4, 5]), (5, [5]), (3, [3]), (2, [2])],
)
def test_a_smaller_batch_has_fewer_ghost_batches_and_none_of_one_image(images, sizes):
    rules = StepRules(ghost_batch=4)
    training = trainer().bind(Sizes(), Images(64), CPU, Streams(0), rules=rules)
    train_step(training, *batch(images), [(index,) for index in range(4)])
    assert training.network.seen == [(size, index) for index, size in enumerate(sizes)]


def test_the_warm_up_opens_everything_for_all_ghost_batches():
    gates = gates_of(ghost_batch=4, batch_size=16, steps=8)
    rule = WarmUp(epochs=0.5).put_before(gates, SPACE, 4, Streams(0))
    assert rule(1) == [EVERYTHING] and rule(2) == gates(2)
    training = started(4)
    training.train_round(NullMonitor(), "supernet", rule, epochs=1)
    assert training.step == 4


@pytest.mark.soak
@pytest.mark.parametrize("stop", [1, 6])
def test_a_training_taken_up_at_any_step_gives_the_same_bits(stop):
    gates, states = gates_of(ghost_batch=4, batch_size=16, steps=8), []

    class Saves(Recorder):
        def safe_point(self):
            states.append(copy.deepcopy(whole.state_dict()))

    whole, resumed = started(4), started(4)
    whole.train_round(Saves(), "supernet", gates)
    resumed.load_state_dict(states[stop - 1])
    resumed.train_round(NullMonitor(), "supernet", gates)
    for ours, theirs in zip(weights(resumed), weights(whole), strict=True):
        assert torch.equal(ours, theirs)


def test_ghost_batches_are_never_split():
    class Full(Probe):
        def forward(self, x, gates):
            raise torch.OutOfMemoryError("full")

    compute = replace(CPU, batch_size="auto")
    rules = StepRules(ghost_batch=4)
    training = trainer().bind(Full(), Images(64), compute, Streams(0), rules=rules)
    with pytest.raises(UserError, match=r"make them smaller \(sampler\.ghost_batch"):
        train_step(training, *batch(), [(0,)] * 4)


def test_other_samplers_train_whole_batches():
    for name in ("uniform", "fair", "proportional", "sandwich"):
        sampler = build_setup(compose(["task=search", f"sampler={name}"])).sampler
        assert sampler.ghost_batch_of(32) is None
        sampler.check(space())
