"""DNAS: its parts in the configuration, its cost by hand, and gates that its cost alone moves."""

from __future__ import annotations

import math

import pytest
import torch
from helpers import gate_context, space_of

from nasrun.budget.candidates import Candidates
from nasrun.config.build import build_setup
from nasrun.config.compose import compose
from nasrun.search_algo.gates.resource import ExpectedCost
from nasrun.values import Architecture, Problem

PROBLEM = Problem(1, 8, 4)


def test_the_parts_are_those_of_the_paper() -> None:
    algo = build_setup(compose(["task=search", "experiment=dnas_cifar10"])).search_algo
    temperature = algo.temperature
    assert (algo.relaxation, algo.levels, algo.cost.of_sample) == ("gumbel", 2, True)
    assert temperature.at(0, 900, 10) == 5
    assert temperature.at(400, 900, 10) == pytest.approx(5 * math.exp(-0.025 * 40))
    found = algo.cost.factor_of(torch.tensor(2.2e9)).item()
    assert found == pytest.approx(0.1 * math.log(2200) ** 0.9, rel=1e-4)


@pytest.mark.soak
def test_the_expected_bit_operations_of_one_network_are_its_own() -> None:
    space = space_of("spos_quantized")
    expected = ExpectedCost(space, space.sizer("bitops", PROBLEM, "final"))
    choices = tuple(place % 6 for place in range(16))
    shares = torch.nn.functional.one_hot(torch.tensor(choices), 6).float()
    own = space.cost(Architecture(space.name, choices), PROBLEM, "final").bitops
    assert expected.expected_of(shares).item() == pytest.approx(own, rel=1e-6)


class Flat:
    """A training whose loss is 1 whatever the gates are."""

    network = torch.nn.Module()

    def gradients(self, images, labels, gates, inputs):  # type: ignore[no-untyped-def]
        for leaf in inputs:
            leaf.grad = torch.zeros_like(leaf)
        return torch.tensor([1.0, 0.5])


@pytest.mark.soak
def test_where_the_loss_says_nothing_few_bits_win() -> None:
    words = ["search_space=spos_quantized", "search_algo=dnas", "search_algo.adam.lr=0.3"]
    words += ["search_space.final.width=1", "search_algo.rest_epochs=0"]
    setup = build_setup(compose(["task=search", "effort=smoke", *words]))
    space = setup.search_space
    measured = {"bitops": space.sizer("bitops", PROBLEM, "final")}
    learner = setup.search_algo.make_learner(
        gate_context(space, epochs=10), Candidates(space, (), measured)
    )
    batch = (torch.zeros(0), torch.zeros(0))
    for step in range(40):
        learner.gates(step)
        learner.learn_before(step, batch, Flat())  # type: ignore[arg-type]
    products = [bits.weights * bits.activations for bits in space.bits]
    chosen = {products[choice] for choice in learner.derive().choices}
    assert chosen <= {2, 4} and sorted(products) == [2, 4, 4, 8, 12, 16]  # Adam moves all alike
