"""Compiled regions of networks: which they are, and that they compute what the eager ones do."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import CPU, TASK, Images, space_of, splits, train_step, trainer
from torch import nn

from nasrun.evaluator.supernet import SupernetEvaluator
from nasrun.run.monitor import NullMonitor
from nasrun.streams import Streams
from nasrun.trainer.regions import regions
from nasrun.trainer.training import Training

COMPILED = replace(CPU, compiled=True)
SPACES = sorted(
    path.stem for path in (Path(__file__).parent.parent / "conf/search_space").glob("[!_]*.yaml")
)


def trained(name: str, compiled: bool, steps: int = 3) -> tuple[list[float], Training[Any]]:
    """The losses of some steps along random paths, and the training."""
    space = space_of(name)
    with Streams(0).default("init"):
        network = space.supernet(TASK)
    compute = COMPILED if compiled else CPU
    made = trainer(clip=0.0).bind(network, Images(64), compute, Streams(0))
    made.network.train()
    batches, rng = Images(64).train_batches(16, streams=Streams(5)), np.random.default_rng(0)
    losses = []
    for _ in range(steps):
        gates = space.whole if space.binary else space.sample(rng).choices
        losses.append(train_step(made, *next(batches), [gates])[0].item())
        made.step += 1
    return losses, made


def test_a_region_is_the_largest_part_that_takes_one_tensor_and_no_noise():
    """NAS-Bench-Macro: the stem, two convolving options in each of eight layers, and those
    identities that change the shape, the features at the end."""
    network = space_of("nas_bench_macro").supernet(TASK)
    names = {id(module): name for name, module in network.named_modules()}
    found = [names[id(region)] for region in regions(network)]
    changing = sum(not layer.residual for layer in network.layers)
    assert found[0] == "stem" and found[-1] == "features"
    assert len(found) == 2 + 2 * 8 + changing
    assert all(name.startswith("layers.") and ".options." in name for name in found[1:-1])


def test_only_what_estimates_no_statistics_runs_compiled(monkeypatch):
    """Also: weights keep their names, and a copy of the network is not compiled."""
    calls: list[int] = []

    def compile_(function: Callable[..., Any], **_: Any) -> Callable[..., Any]:
        return lambda x: calls.append(1) or function(x)

    monkeypatch.setattr(torch, "compile", compile_)
    plain, _ = trained("nas_bench_macro", compiled=False)
    losses, training = trained("nas_bench_macro", compiled=True)
    assert losses == plain and calls
    network, space = training.network, space_of("nas_bench_macro")
    assert network.state_dict().keys() == space.supernet(TASK).state_dict().keys()
    paths = [space.sample(np.random.default_rng(1))]

    def calls_of(protocol: str, scored: nn.Module) -> int:
        calls.clear()
        settings = {"images": 16, "batch_size": 16, "recalibration_images": 32}
        made = SupernetEvaluator(batch_norm=protocol, **settings)
        list(made.bind(space, splits(), CPU, Streams(0)).score(paths, scored, NullMonitor()))
        return len(calls)

    once = calls_of("batch", network)
    assert once and calls_of("recalibrated", network) == once  # the two calibrating passes are not
    assert calls_of("batch", copy.deepcopy(network)) == 0


@pytest.mark.soak
@pytest.mark.skipif(shutil.which("g++") is None, reason="inductor needs a C++ compiler")
@pytest.mark.parametrize("name", SPACES)
def test_compiled_blocks_learn_what_eager_ones_learn(name):
    torch._dynamo.reset()
    (plain, eager), (losses, compiled) = (trained(name, each) for each in (False, True))
    assert losses == pytest.approx(plain, rel=1e-4)
    for one, other in zip(eager.network.parameters(), compiled.network.parameters(), strict=True):
        torch.testing.assert_close(other, one, rtol=1e-3, atol=1e-4)
