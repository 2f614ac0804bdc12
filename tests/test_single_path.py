"""Single-Path NAS: indicators, parts of kernels by norms, and the gradients of both."""

from __future__ import annotations

from math import exp
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml
from helpers import few_images
from torch import Tensor

from nasrun.budget.candidates import Candidates
from nasrun.building.build import build
from nasrun.errors import MissingCapabilityError, UserError
from nasrun.run.compute import Compute
from nasrun.search_algo.gates.single_path import KernelChoices, NormGates, indicator
from nasrun.streams import Streams
from nasrun.trainer.gate_learner import GateContext
from nasrun.values import Problem

CONF = Path(__file__).parents[1] / "conf"
PROBLEM = Problem(3, 16, 4)
OPTIONS = ("k3_e3", "k3_e6", "k5_e3", "k5_e6", "identity")
PARTS = ((0, 0), (0, 1), (1, 0), (1, 1), None)


def test_an_indicator_is_0_or_1_and_learns_like_a_sigmoid():
    x = torch.tensor([-1.0, 0.0, 2.0], requires_grad=True)
    values = indicator(x)
    values.sum().backward()
    by_hand = [exp(-a) / (1 + exp(-a)) ** 2 for a in (-1.0, 0.0, 2.0)]
    assert values.tolist() == [0, 1, 1]
    assert torch.allclose(x.grad, torch.tensor(by_hand))


def choices(*parts: Any) -> KernelChoices:
    """The options of some decisions, whose number is that of the arguments."""
    space = SimpleNamespace(decisions=parts)
    return KernelChoices(space, dict(enumerate(parts)), torch.device("cpu"))  # type: ignore[arg-type]


SQUARES = torch.tensor([[[4.0, 4.0], [9.0, 12.0]]])
"""Rings: norms of √8 and √21. Groups: of 2 and 2 without the outer ring, of √13 and 4 with it."""


@pytest.mark.parametrize(
    ("thresholds", "chosen"),
    [
        ((0, 0, 0), "k5_e6"),
        ((4.5, 0, 0), "k5_e6"),  # √21 = 4.58
        ((4.6, 0, 0), "k3_e6"),
        ((0, 0, 3), "k5_e6"),  # with the ring the second group has a norm of 4
        ((5, 0, 3), "k3_e3"),  # and without it one of 2
        ((0, 3.7, 0), "identity"),  # √13 = 3.61
        ((0, 3.5, 4.1), "k5_e3"),
        ((5, 2.1, 0), "identity"),
    ],
)
def test_norms_choose_a_part_of_the_kernel_by_hand(thresholds, chosen):
    shares = choices(PARTS).shares(SQUARES, torch.tensor([thresholds]), torch.ones(1, 3))
    assert shares.tolist() == [[float(name == chosen) for name in OPTIONS]]


def test_a_layer_without_an_identity_keeps_its_first_channels():
    thresholds = torch.full((2, 3), 9.0)
    found = choices(PARTS, PARTS[:4]).shares(SQUARES.expand(2, 2, 2), thresholds, torch.ones(2, 3))
    assert found.tolist() == [[0, 0, 0, 0, 1], [1, 0, 0, 0, 0]]


def test_a_kernel_with_fewer_parts_is_padded():
    of_both = choices(PARTS, ((0, 0), (0, 1)))
    norms = {0: SQUARES[0], 1: torch.tensor([[4.0, 4.0]])}
    squares = of_both.squares(norms)
    assert squares[1].tolist() == [[4, 4], [0, 0]]
    found = of_both.shares(squares, torch.zeros(2, 3), torch.ones(2, 3))
    assert found.tolist() == [[0, 0, 0, 1, 0], [0, 1, 0, 0, 0]]


def test_a_dropped_indicator_counts_as_0():
    kept = torch.tensor([[0.0, 1.0, 1.0]])
    assert choices(PARTS).shares(SQUARES, torch.zeros(1, 3), kept)[0].argmax() == 1  # k3_e6


def test_the_threshold_of_a_ring_learns_by_hand():
    """Where groups hang on nothing, a larger threshold takes σ'(norm - t) from all kernels of 5."""
    thresholds = torch.tensor([[4.0, -99.0, -99.0]], requires_grad=True)
    shares = choices(PARTS).shares(SQUARES, thresholds, torch.ones(1, 3))
    (shares * torch.tensor([0.0, 0.0, 1.0, 1.0, 0.0])).sum().backward()
    sigmoid = 1 / (1 + exp(4 - 21**0.5))
    assert thresholds.grad is not None
    assert thresholds.grad[0, 0].item() == pytest.approx(-sigmoid * (1 - sigmoid))


def built(group: str, option: str, **changes: Any) -> Any:
    return build(
        {**yaml.safe_load((CONF / group / f"{option}.yaml").read_text()), **changes}, group
    )


def chain(**changes: Any) -> Any:
    """Two stages with decisions on parts of kernels, the first of them without an identity."""
    stages = [
        {"channels": 8, "layers": 1, "stride": 1},
        {"channels": 8, "layers": 2, "stride": 2, "least": 1},
    ]
    table = {"stages": stages, "stem_channels": 8, "features": 8, "search": {"width": 1.0}}
    return built("search_space", "mbconv_single_path", **{**table, **changes})


def started(weight: float = 0.0, **changes: Any) -> tuple[NormGates, Any]:
    """The learner, and a supernet that it knows; no warm-up."""
    cost = {"cost": "params", "weight": weight}
    algo = built("search_algo", "single_path", **{"warm_up_epochs": 0, "resource": cost, **changes})
    space, images = chain(), few_images()
    algo.check(space)
    compute = Compute(torch.device("cpu"), bf16=False, channels_last=False)
    context = GateContext(
        space, PROBLEM, images.train, images.validation, 8, 6, 3, compute, Streams(0)
    )
    candidates = Candidates(
        space, measure_of=lambda name: lambda one: space.cost(one, PROBLEM).params
    )
    learner = algo.make_learner(context, candidates)
    with Streams(1).default("supernet"):
        supernet = space.supernet(PROBLEM)
    learner.learn_before(0, None, SimpleNamespace(network=supernet))
    return learner, supernet


def kernels(supernet: Any) -> list[Tensor]:
    return [one for name, one in supernet.named_parameters() if name.endswith("kernel.weight")]


def gradients(weight: float, parts: int) -> tuple[Tensor, list[Tensor]]:
    """The gradients of thresholds and kernels after a step whose batch comes in equal parts."""
    learner, supernet = started(weight)
    (gates,) = learner.gates(0)
    images = torch.randn(4, 3, 16, 16, generator=Streams(2).torch("images"))
    supernet.eval()  # so that the parts do not hang together by batch norm
    for some in images.chunk(parts):
        (supernet(some, gates).square().mean() / parts).backward()
    assert learner.thresholds.grad is not None
    return learner.thresholds.grad, [kernel.grad for kernel in kernels(supernet)]


def test_parts_of_a_batch_add_up_and_the_cost_counts_once():
    one, two = gradients(0.3, 1), gradients(0.3, 2)
    assert torch.allclose(one[0], two[0], atol=1e-6) and one[0].abs().sum() > 0
    for whole, halves in zip(one[1], two[1], strict=True):
        assert torch.allclose(whole, halves, atol=1e-6)


def test_the_cost_moves_weights_and_thresholds_as_its_logarithm_says():
    """Apart from all else, as the difference of two runs; by autograd through the norms."""
    (with_cost, of_kernels), (without, before) = gradients(0.3, 1), gradients(0.0, 1)
    learner, supernet = started()
    shares = learner._shares(torch.ones_like(learner.thresholds))
    assert learner.cost is not None
    term = 0.3 * (learner.cost.expected_of(shares) / 1e3).log()
    wanted = torch.autograd.grad(term, [learner.thresholds, *kernels(supernet)])
    found = [with_cost - without, *(a - b for a, b in zip(of_kernels, before, strict=True))]
    for one, other in zip(found, wanted, strict=True):
        assert torch.allclose(one, other, atol=1e-6) and other.abs().sum() > 0


def test_all_is_open_at_first_and_cost_alone_shuts_all():
    """In steps of the thresholds alone, the loss of the images being times 0."""
    learner, supernet = started(
        weight=1.0, adam={"lr": 0.1, "beta1": 0.9, "beta2": 0.999, "weight_decay": 0.0}
    )
    space = learner.space
    assert space.write(learner.derive()) == "k5_e6,k5_e6,k5_e6"
    images = torch.randn(2, 3, 16, 16, generator=Streams(2).torch("images"))
    supernet.eval()
    for step in range(40):
        (gates,) = learner.gates(step)
        (0.0 * supernet(images, gates).sum()).backward()
        learner.learn_after(step)
    assert space.write(learner.derive()) == "k3_e3,k3_e3,identity"
    assert learner.pop_metrics().read() == {"parameter_free": pytest.approx(1 / 3)}


def test_indicators_are_dropped_in_the_warm_up_alone():
    """By hand: of 3 · 3 indicators about 60 % are kept; the cost does not count yet."""
    learner, _ = started(warm_up_epochs=1, keep=0.6)
    opened = [
        [[weight.item() for weight in gate.values()] for gate in learner.gates(step)[0]]  # type: ignore[union-attr]
        for step in (0, 1, 2, 3)
    ]
    assert any(rows != opened[3] for rows in opened[:3])
    assert opened[3] == [[0, 0, 0, 1], [0, 0, 0, 1], [0, 0, 0, 1, 0]]
    assert all(sum(row) == 1 for rows in opened for row in rows)


@pytest.mark.parametrize(
    ("space", "error", "message"),
    [
        (lambda: chain(share="none"), UserError, "set search_space.share=kernels"),
        (
            lambda: built("search_space", "nas_bench_macro"),
            MissingCapabilityError,
            "nas_bench_macro has none",
        ),
    ],
)
def test_a_space_without_super_kernels_is_refused(space, error, message):
    with pytest.raises(error, match=message):
        built("search_algo", "single_path").check(space())
