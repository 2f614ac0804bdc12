"""Evaluators: the three batch norm protocols, and that scoring leaves no trace."""

from __future__ import annotations

import copy
import json
import math

import numpy as np
import pytest
import torch
from helpers import CPU, TASK, Images, few_images, space, space_of, splits, trainer
from test_dataset import load
from test_dataset_folder import draw, options
from torch import nn

from nasrun.dataset.streamed import Transforms
from nasrun.errors import UserError
from nasrun.evaluator.accuracy import accuracy, top_accuracies
from nasrun.evaluator.batch_norm import CumulativeStatistics, estimate_statistics
from nasrun.evaluator.batches import fixed_batches
from nasrun.evaluator.supernet import SupernetEvaluator
from nasrun.run.monitor import NullMonitor
from nasrun.sampler.uniform import Uniform
from nasrun.search_space.spos.sliced import SlicedBatchNorm
from nasrun.streams import Streams
from nasrun.testing import check_evaluator
from nasrun.values import Architecture, Problem, Trial

PROTOCOLS = ["batch", "recalibrated", "inherited"]


@pytest.fixture(scope="module")
def trained():
    search_space, rng = space(), np.random.default_rng(0)
    pool = [search_space.sample(rng) for _ in range(4)]
    with Streams(0).default("init"):
        network = search_space.supernet(TASK)
    training = trainer(epochs=8).bind(network, Images(64), CPU, Streams(0))
    gates = Uniform().bind(search_space, TASK, pool, Streams(0), steps=100)
    training.train_round(NullMonitor(), "supernet", gates)
    return search_space, network, pool


def evaluator(search_space, protocol: str, **changes):
    options = {"images": None, "batch_size": 16, "recalibration_images": 48, **changes}
    made = SupernetEvaluator(batch_norm=protocol, **options)
    return made.bind(search_space, splits(), CPU, Streams(7))


def scores(made, pool, network):
    return [trial.score for trial in made.score(pool, network, NullMonitor())]


@pytest.mark.parametrize("protocol", ["recalibrated", "inherited"])
def test_the_other_protocols_keep_the_laws(protocol):
    settings = {"images": None, "batch_size": 8, "recalibration_images": 16}
    made = SupernetEvaluator(batch_norm=protocol, **settings)
    check_evaluator(made, space_of("nas_bench_macro"), few_images())


@pytest.mark.soak
def test_batch_statistics_are_those_of_training_mode(trained):
    search_space, network, pool = trained
    reference = copy.deepcopy(network).train()
    for path, score in zip(
        pool, scores(evaluator(search_space, "batch"), pool, network), strict=True
    ):
        with torch.no_grad():
            correct = [
                (reference(x, path.choices).argmax(1) == y).sum().item()
                for x, y in splits().validation.eval_batches(16)
            ]
        assert score == sum(correct) / 32


@pytest.mark.soak
def test_recalibrated_statistics_are_the_exact_average(trained):
    search_space, network, pool = trained
    path = pool[0]
    reference = copy.deepcopy(network)
    inputs = []
    norm = reference.stem.layers[1]
    norm.register_forward_hook(lambda module, args, out: inputs.append(args[0].detach()))
    made = evaluator(search_space, "recalibrated")
    with torch.no_grad():
        reference.train()
        for x, _ in splits().train.eval_batches(16, 48):
            reference(x, path.choices)
    mean = torch.stack([x.mean(dim=(0, 2, 3)) for x in inputs]).mean(0)
    var = torch.stack([x.var(dim=(0, 2, 3)) for x in inputs]).mean(0)
    seen = {}

    def spy(module, args, out):
        seen.update(mean=module.running_mean.clone(), var=module.running_var.clone())

    handle = network.stem.layers[1].register_forward_hook(spy)
    scores(made, [path], network)
    handle.remove()
    torch.testing.assert_close(seen["mean"], mean, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(seen["var"], var, rtol=1e-4, atol=1e-6)


@pytest.mark.soak
def test_the_protocols_differ_and_are_written_into_the_trial(trained):
    search_space, network, pool = trained
    for protocol in PROTOCOLS:
        made = evaluator(search_space, protocol, images=20)
        trial = next(made.score(pool[:1], network, NullMonitor()))
        assert trial.evaluation["batch_norm"] == protocol
        assert trial.evaluation["images"] == 20
        assert (trial.score * 20) == pytest.approx(round(trial.score * 20))  # counts of 20 images
    logits = []
    for protocol in PROTOCOLS:
        handle = network.register_forward_hook(
            lambda m, a, k, out: logits.append(out), with_kwargs=True
        )
        scores(evaluator(search_space, protocol, images=16), pool[:1], network)
        handle.remove()
    assert not torch.equal(logits[0], logits[-1])


def test_files_are_decoded_once_and_give_the_same_bits(tmp_path, monkeypatch):
    """Nine images in batches of four: the last one alone joins the batch before."""
    found = load("image_folder", **options(draw(tmp_path, 8)), resident_limit_mb=0)
    split, opened = found.train, []
    original = Transforms.open
    monkeypatch.setattr(
        Transforms, "open", lambda self, path: opened.append(path) or original(self, path)
    )
    expected = [torch.cat(parts) for parts in zip(*split.eval_batches(4, 9), strict=True)]

    def passes() -> int:
        """Go over the images twice; returns how many files were opened."""
        opened.clear()
        made = fixed_batches(split, found.problem, 4, 9)
        for _ in range(2):
            given = list(made)
            assert [len(labels) for _, labels in given] == [4, 5]
            for whole, parts in zip(expected, zip(*given, strict=True), strict=True):
                assert torch.equal(torch.cat(parts), whole)
        return len(opened)

    assert passes() == 9  # few enough to stay normalised
    monkeypatch.setattr("nasrun.evaluator.batches.MAX_READY_BYTES", 0)
    assert passes() == 9  # kept as bytes
    monkeypatch.setattr("nasrun.evaluator.batches.available_bytes", lambda: 0)
    assert passes() == 9  # kept on the device, which here is the CPU
    monkeypatch.setattr("nasrun.evaluator.batches.free_memory", lambda device: 0)
    assert passes() == 18


def test_a_scorer_of_another_protocol_shares_the_batches(trained):
    search_space, network, pool = trained
    first = evaluator(search_space, "recalibrated")
    other = first.with_protocol("batch")
    assert other.validation is first.validation and other.calibration is first.calibration
    assert scores(other, pool, network) == scores(evaluator(search_space, "batch"), pool, network)
    assert first.batch_norm == "recalibrated"


def test_more_images_than_there_are_is_refused():
    with pytest.raises(UserError, match=r"evaluator.images=33: the validation split has 32"):
        evaluator(space(), "batch", images=33)


def test_accuracy_counts_every_image_once():
    batches = [
        (torch.eye(4)[[0, 1, 2]], torch.tensor([0, 1, 3])),
        (torch.eye(4)[[3]], torch.tensor([3])),
    ]
    batches = [(x[:, :, None, None], y) for x, y in batches]
    assert accuracy(lambda x: x.flatten(1), batches, CPU, NullMonitor()) == 0.75
    batches[1][0][0] = math.nan
    assert math.isnan(accuracy(lambda x: x.flatten(1), batches, CPU, NullMonitor()))


def test_a_label_among_the_best_is_counted():
    logits = torch.tensor([[4.0, 3, 2, 1], [4, 3, 2, 1], [1, 2, 3, 4], [1, 2, 3, 4]])
    batches = [
        (logits[:3, :, None, None], torch.tensor([0, 1, 1])),
        (logits[3:, :, None, None], torch.tensor([0])),
    ]
    found = top_accuracies(lambda x: x.flatten(1), batches, CPU, NullMonitor(), [1, 2, 3, 4])
    assert found == [1 / 4, 1 / 4, 2 / 4, 3 / 4, 1.0]


@pytest.mark.soak
def test_ties_are_broken_by_the_label_among_the_best(trained):
    search_space, network, pool = trained
    made = evaluator(search_space, "batch", ties="top5")  # of four classes the best three
    plain = evaluator(search_space, "batch").score(pool, network, NullMonitor())
    reference = copy.deepcopy(network).train()
    for path, trial, same in zip(
        pool, made.score(pool, network, NullMonitor()), plain, strict=True
    ):
        with torch.no_grad():
            right = [
                (reference(x, path.choices).argsort(1)[:, 1:] == y[:, None]).sum().item()
                for x, y in splits().validation.eval_batches(16)
            ]
        assert trial.score == same.score and trial.tie_break == sum(right) / 32
        assert same.tie_break is None and "tie_break" not in same.to_json()
        assert Trial.from_json(json.loads(json.dumps(trial.to_json()))) == trial


def test_counted_statistics_are_those_of_torchs_cumulative_average_to_the_bit():
    """Also of a norm that a pass runs twice, and after another path."""
    norms = [nn.BatchNorm2d(3), SlicedBatchNorm(3)]
    ours = nn.Sequential(norms[0], nn.ReLU(), norms[1], norms[0])
    torchs = copy.deepcopy(ours)
    images = [torch.randn(4, 3, 5, 5) for _ in range(7)]
    statistics = CumulativeStatistics(norms)
    for each in (images[:3], images):
        statistics.begin()
        for norm in list(torchs)[::2]:
            norm.reset_running_stats()
            norm.momentum = None
        for x in each:
            assert torch.equal(ours(x), torchs(x))
        for (name, one), other in zip(ours.named_buffers(), torchs.buffers(), strict=True):
            assert torch.equal(one, other), name
    statistics.end()
    before = copy.deepcopy(ours.state_dict())
    ours.eval()(images[0])
    assert all(torch.equal(value, before[name]) for name, value in ours.state_dict().items())
    assert [norm.momentum for norm in norms] == [0.1, 0.1]


def test_estimated_statistics_are_the_mean_over_the_batches():
    with Streams(0).default("init"):
        network = space_of("nas_bench_macro").network(
            Architecture("nas_bench_macro", (1,) * 8), Problem(3, 16, 4), "final"
        )
    images = [torch.randn(6, 3, 16, 16) for _ in range(3)]
    before = copy.deepcopy(network)
    norms = [module for module in before.train().modules() if isinstance(module, nn.BatchNorm2d)]
    inputs = [[] for _ in norms]
    for norm, seen in zip(norms, inputs, strict=True):
        norm.register_forward_hook(lambda _, args, __, seen=seen: seen.append(args[0].detach()))
    with torch.no_grad():
        for x in images:
            before(x)
    estimate_statistics(network, [(x, torch.zeros(6)) for x in images], CPU, NullMonitor())
    assert not network.training
    found = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm, seen in zip(found, inputs, strict=True):
        mean = torch.stack([x.mean((0, 2, 3)) for x in seen]).mean(0)
        var = torch.stack([x.var((0, 2, 3)) for x in seen]).mean(0)
        torch.testing.assert_close(norm.running_mean, mean, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(norm.running_var, var, rtol=1e-4, atol=1e-5)
        assert norm.momentum == 0.1 and norm.num_batches_tracked == 3
    for one, other in zip(network.parameters(), before.parameters(), strict=True):
        assert torch.equal(one, other)
