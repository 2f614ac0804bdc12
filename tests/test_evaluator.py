"""Evaluators: the three batch norm protocols, and that scoring leaves no trace."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from helpers import CPU, TASK, Images, few_images, space, space_of, splits, trainer

from nasrun.errors import UserError
from nasrun.evaluator.accuracy import accuracy
from nasrun.evaluator.supernet import SupernetEvaluator
from nasrun.run.monitor import NullMonitor
from nasrun.sampler.uniform import Uniform
from nasrun.streams import Streams
from nasrun.testing import check_evaluator

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
