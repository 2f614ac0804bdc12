"""Samplers: their laws, by counting."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from scipy.stats import chisquare

from nasrun.sampler.proportional import Proportional
from nasrun.sampler.uniform import Uniform
from nasrun.search_space.nao_cell import CellScale, NaoCell
from nasrun.streams import Streams
from nasrun.values import Architecture, ImageTask

TASK = ImageTask(3, 16, 10)


def space(nodes: int = 5) -> NaoCell:
    scale = CellScale(layers=1, channels=8)
    return NaoCell(operations="small", nodes=nodes, stem="small", search=scale, final=scale)


def p_value(observed, expected) -> float:
    expected = np.asarray(expected, dtype=float)
    return float(chisquare(observed, expected * sum(observed) / expected.sum()).pvalue)


@pytest.mark.parametrize("size", ["params", "macs"])
@pytest.mark.parametrize("exponent", [0.0, 1.0, 2.5])
def test_a_pool_is_sampled_in_proportion_to_size(size, exponent):
    search_space = space()
    rng = np.random.default_rng(0)
    pool = [search_space.sample(rng) for _ in range(25)]
    gates = Proportional(size=size, exponent=exponent).over(search_space, TASK, pool, Streams(1))
    counts = Counter(gates(step)[0] for step in range(20_000))
    weights = [getattr(search_space.cost(a, TASK), size) ** exponent for a in pool]
    assert p_value([counts[a.choices] for a in pool], weights) > 1e-3


def every_architecture(search_space: NaoCell) -> list[Architecture]:
    sizes = [len(decision.options) for decision in search_space.decisions]
    return [Architecture(search_space.name, choices) for choices in np.ndindex(*sizes)]


@pytest.mark.parametrize("size", ["params", "macs"])
def test_a_whole_space_is_sampled_in_proportion_to_size(size):
    """All 10,000 architectures of one node: draws fall into ten size classes as Eq. 3 says."""
    search_space = space(nodes=1)
    everything = every_architecture(search_space)
    assert len(everything) == 10_000
    weight = {a.choices: getattr(search_space.cost(a, TASK), size) for a in everything}
    edges = np.quantile(list(weight.values()), np.linspace(0, 1, 11)[1:-1])
    gates = Proportional(size=size, exponent=1.0).over(search_space, TASK, None, Streams(0))
    draws = [weight[gates(step)[0]] for step in range(20_000)]
    observed = np.bincount(np.searchsorted(edges, draws), minlength=10)
    classes = np.searchsorted(edges, list(weight.values()))
    expected = np.bincount(classes, weights=list(weight.values()), minlength=10)
    occupied = expected > 0
    assert p_value(observed[occupied], expected[occupied]) > 1e-3
    assert p_value(observed[occupied], np.bincount(classes, minlength=10)[occupied]) < 1e-3


def test_uniform_sampling_is_uniform_over_pool_and_space():
    search_space = space(nodes=1)
    rng = np.random.default_rng(0)
    pool = [search_space.sample(rng) for _ in range(20)]
    gates = Uniform().over(search_space, TASK, pool, Streams(0))
    counts = Counter(gates(step)[0] for step in range(10_000))
    assert p_value([counts[a.choices] for a in pool], np.ones(20)) > 1e-3
    gates = Uniform().over(search_space, TASK, None, Streams(0))
    firsts = Counter(gates(step)[0][1] for step in range(10_000))
    assert p_value([firsts[op] for op in range(5)], np.ones(5)) > 1e-3


@pytest.mark.parametrize("sampler", [Uniform(), Proportional(size="params", exponent=1.0)])
def test_draws_are_named_by_seed_and_step(sampler):
    search_space = space()
    gates = sampler.over(search_space, TASK, None, Streams(3))
    again = sampler.over(search_space, TASK, None, Streams(3))
    other = sampler.over(search_space, TASK, None, Streams(4))
    assert gates(7000) == again(7000)  # whatever was drawn before
    assert [gates(step) for step in range(20)] != [other(step) for step in range(20)]
