"""Training steps that go wrong: losses that are not finite, and memory that does not suffice."""

from __future__ import annotations

import copy
import math
from dataclasses import replace

import pytest
import torch
from helpers import CPU, Images, Probe, Recorder, schedule, train_step, trainer

from nasrun.errors import UserError
from nasrun.run.layout import NONFINITE
from nasrun.run.monitor import NullMonitor
from nasrun.search_space.base import Network
from nasrun.streams import Streams
from nasrun.trainer import updates


class Explodes(Probe):
    """A loss that is not finite at one step; a buffer that every forward pass changes."""

    def __init__(self, steps: set[int], value: float = math.inf) -> None:
        super().__init__()
        self.steps, self.value = steps, value
        self.register_buffer("seen", torch.zeros(()))
        self.calls = 0

    def forward(self, x):
        out = super().forward(x)
        self.seen += 1
        self.calls += 1
        return out * self.value if self.calls - 1 in self.steps else out


def faulty(network, compute=CPU, **changes):
    return trainer(epochs=3, log_every=4, **changes).bind(network, Images(64), compute, Streams(0))


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_stops_with_its_step_rate_and_architecture(value):
    """The step is found although the loop looks only every fourth; the gates are named again."""

    class Notes(NullMonitor):
        def write_note(self, file, content):
            self.note = file, content
            return "see the note"

    class Gated(Explodes):
        def forward(self, x, gates):
            return super().forward(x)

    monitor = Notes()
    training = faulty(Gated({6}, value))
    kind = "not a number" if math.isnan(value) else "(infinite|not a number)"
    with pytest.raises(
        UserError, match=rf"architecture \[6, 7\] is {kind} at step 6 .* see the note"
    ):
        training.train_round(monitor, "supernet/round0", lambda step: [(step, 7)])
    file, content = monitor.note
    assert file == NONFINITE and content["step"] == 6 and content["architectures"] == [[6, 7]]
    assert content["lr"] == pytest.approx(schedule().learning_rate(6, 12, 4))


def test_spoilt_weights_are_never_saved():
    """A checkpoint that falls between a bad step and the next line of metrics is refused."""
    training = faulty(Explodes({5}))

    class Saves(NullMonitor):
        def safe_point(self):
            training.state_dict()

    with pytest.raises(UserError, match="at step 5 "):
        training.train_round(Saves(), "retrain")


def test_bad_steps_can_be_skipped_and_leave_no_trace():
    """Weights, momentum and buffers are those of a training in which the step did not happen."""
    compute = replace(CPU, on_nonfinite="skip")
    monitor = Recorder()
    network = Explodes({2, 6, 7})
    training = faulty(network, compute, schedule=schedule(kind="constant"))
    training.train_round(monitor, "retrain")
    assert network.calls == 12 and network.seen == 12 - 3
    assert [line["skipped"] for line in monitor.metrics] == [1, 3, 3]
    assert all(math.isfinite(line["loss"]) for line in monitor.metrics)

    reference = Explodes(set())
    whole = faulty(reference, compute, schedule=schedule(kind="constant"))
    batches = Images(64).train_batches(16, streams=Streams(0))
    for step in range(12):
        images, labels = next(batches)
        if step not in (2, 6, 7):
            train_step(whole, images, labels, None)
    assert torch.equal(network.weight, reference.weight)


def test_gradients_that_are_not_finite_are_skipped_too():
    class Steep(Probe):
        def forward(self, x):  # finite for the loss, infinite for its gradient
            return super().forward(x) + torch.sqrt(self.weight)

    training = faulty(Steep(), replace(CPU, on_nonfinite="skip"))
    images, labels = next(Images(64).train_batches(16, streams=Streams(0)))
    assert train_step(training, images, labels, None).isnan().all()
    assert training.network.weight == 0


def flat(state, name=""):
    """Yield the leaves of a state, by their names."""
    if not isinstance(state, dict):
        yield name, state
        return
    for key, value in state.items():
        yield from flat(value, f"{name}/{key}" if name else key)


class Falters(Network):
    """Its outputs are infinite at some steps; each third step uses a weight that others do not."""

    def __init__(self, steps: set[int]) -> None:
        super().__init__()
        self.steps, self.calls = steps, 0
        with Streams(0).default("init"):
            self.convolution = torch.nn.Conv2d(1, 4, 3)
            self.seldom = torch.nn.Conv2d(4, 4, 3, padding=1)
            self.norm, self.last = torch.nn.BatchNorm2d(4), torch.nn.Linear(4, 4)

    def forward(self, x):
        step, self.calls = self.calls, self.calls + 1
        x = self.convolution(x)
        x = self.seldom(x) if step % 3 == 2 else x
        out = self.last(self.norm(x).relu().mean((2, 3)))
        return out * math.inf if step in self.steps else out


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("bad", [{0, 2, 5, 6, 11}, {3, 4}])
def test_where_the_device_decides_what_is_skipped_the_bits_are_those_of_the_host(
    bad, fused, monkeypatch
):
    """A device leaves what it decided to the next line of metrics, also over a break."""
    monkeypatch.setattr(updates, "are_fused", lambda parameters: fused)

    def train(unseen):
        monitor, states = Recorder(), []
        training = faulty(Falters(bad), replace(CPU, on_nonfinite="skip"), clip=1.0)
        training.skips_unseen = unseen

        def save():
            state = dict(flat(copy.deepcopy(training.state_dict())))
            # A momentum begins with 0, whether it is there or not.
            states.append({k: v for k, v in state.items() if "momentum" not in k or v.any()})

        monitor.safe_point = save
        training.train_round(monitor, "retrain")
        return monitor.metrics, states

    (lines, states), (other_lines, other_states) = train(False), train(True)
    assert lines == other_lines and lines[-1]["skipped"] == len(bad)
    assert len(states) == len(other_states) == 12
    for state, other in zip(states, other_states, strict=True):
        assert state.keys() == other.keys() and "momenta/0/0/momentum_buffer" in states[-1]
        for name, value in state.items():
            # Not a number is what a skipped step has measured.
            torch.testing.assert_close(value, other[name], rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("unseen", [False, True])
def test_skipping_has_an_end(unseen):
    training = faulty(Explodes(set(range(10**6))), replace(CPU, on_nonfinite="skip"))
    training.skips_unseen = unseen
    with pytest.raises(UserError, match="100 steps were skipped, 100 in a row"):
        for _ in range(20):
            training.rounds_done = 0
            training.train_round(NullMonitor(), "retrain")


def test_skipped_steps_survive_a_break():
    compute = replace(CPU, on_nonfinite="skip")
    states: list = []
    training = faulty(Explodes({1, 2}), compute)

    class Saves(Recorder):
        def safe_point(self):
            states.append(copy.deepcopy(training.state_dict()))

    whole = Saves()
    training.train_round(whole, "retrain")
    resumed, rest = faulty(Explodes(set()), compute), Recorder()
    resumed.load_state_dict(states[2])  # after step 2, before the first line
    resumed.train_round(rest, "retrain")
    assert rest.metrics == whole.metrics and rest.steps == whole.steps
    assert torch.equal(resumed.network.weight, training.network.weight)


class Hungry(Network):
    """It has memory for so many images at once; its statistics are those of its batch norm."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self.room = room
        self.norm = torch.nn.BatchNorm2d(1)
        self.classifier = torch.nn.Linear(64, 4)
        self.batches: list[int] = []

    def forward(self, x):
        out = self.norm(x)
        if len(x) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 7 EiB")
        self.batches.append(len(x))
        return self.classifier(out.flatten(1))


def hungry(room: int) -> Hungry:
    with Streams(0).default("init"):
        return Hungry(room)


def test_out_of_memory_names_the_batch_and_the_way_out():
    training = faulty(hungry(8))
    with pytest.raises(UserError, match=r"retrain: out of memory on cpu at step 0 with 16 images"):
        training.train_round(NullMonitor(), "retrain")
    training = faulty(hungry(1), replace(CPU, batch_size="auto"))
    with pytest.raises(UserError, match="with 2 images at once: take a larger device"):
        training.train_round(NullMonitor(), "retrain")


def test_other_errors_are_not_taken_for_a_lack_of_memory():
    class Broken(Probe):
        def forward(self, x):
            raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes"):
        faulty(Broken(), replace(CPU, batch_size="auto")).train_round(NullMonitor(), "retrain")


def test_a_batch_that_does_not_fit_is_split_and_the_update_is_that_of_the_whole():
    """Known: without batch norm the gradient of the microbatches is that of the batch."""
    monitor = Recorder()
    split = hungry(5)
    split.norm = torch.nn.Identity()
    faulty(split, replace(CPU, batch_size="auto")).train_round(monitor, "retrain")
    assert monitor.metrics[-1]["images_at_once"] == 4 and set(split.batches) == {4}
    whole = hungry(99)
    whole.norm = torch.nn.Identity()
    reference = Recorder()
    faulty(whole).train_round(reference, "retrain")
    assert monitor.metrics[-1]["loss"] == pytest.approx(reference.metrics[-1]["loss"], rel=1e-4)
    torch.testing.assert_close(split.classifier.weight, whole.classifier.weight)


def test_a_failed_attempt_leaves_no_trace_in_batch_norm():
    """What auto finds after failing is, bit for bit, what a run with that number gives."""
    found, given = hungry(5), hungry(99)
    faulty(found, replace(CPU, batch_size="auto")).train_round(NullMonitor(), "retrain")
    faulty(given, replace(CPU, batch_size=4)).train_round(NullMonitor(), "retrain")
    for ours, theirs in zip(found.state_dict().values(), given.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("images", range(2, 12))
@pytest.mark.parametrize("at_once", [2, 3, 4, 8])
def test_microbatches_are_never_too_small_for_batch_norm(images, at_once):
    network = hungry(99)
    training = faulty(network, replace(CPU, batch_size=at_once))
    batch = next(Images(64).train_batches(images, streams=Streams(0)))
    network.train()
    train_step(training, *batch, None)
    assert sum(network.batches) == images and min(network.batches) >= 2
    assert max(network.batches) <= max(at_once, 3)
