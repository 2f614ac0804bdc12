"""Gates that open several options: sums, laws, and the warm-up that uses them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers import space_of

from nasrun.errors import UserError
from nasrun.sampler.warm_up import WarmUp
from nasrun.search_space.gates import Gates, mixed, path_of, single_path
from nasrun.streams import Streams
from nasrun.values import Problem

TASK = Problem(3, 16, 10)
SPACES = ("nas_bench_macro", "nas_bench_201")


@pytest.mark.parametrize("name", SPACES)
def test_one_open_option_of_weight_one_is_the_single_path(name: str) -> None:
    space = space_of(name)
    torch.manual_seed(0)
    supernet = space.supernet(TASK).eval()
    images = torch.randn(4, 3, 16, 16)
    rng = np.random.default_rng(0)
    for _ in range(5):
        path = space.sample(rng).choices
        masks: Gates = [{choice: 1.0} for choice in path]
        assert torch.equal(supernet(images, masks), supernet(images, path))
        per_image: Gates = [{choice: torch.ones(4, 1, 1, 1)} for choice in path]
        assert torch.equal(supernet(images, per_image), supernet(images, path))


@pytest.mark.parametrize("name", SPACES)
def test_each_image_may_have_weights_of_its_own(name: str) -> None:
    space = space_of(name)
    torch.manual_seed(0)
    supernet = space.supernet(TASK).eval()
    images = torch.randn(2, 3, 16, 16)
    first, second = ([0] * 8, [2] * 8) if name == "nas_bench_macro" else ([1] * 6, [3] * 6)
    weights = torch.tensor([1.0, 0.0]).view(2, 1, 1, 1)
    both: Gates = [{a: weights, b: 1 - weights} for a, b in zip(first, second, strict=True)]
    out = supernet(images, both)
    assert torch.allclose(out[0], supernet(images, first)[0], atol=1e-6)
    assert torch.allclose(out[1], supernet(images, second)[1], atol=1e-6)


def test_mixed() -> None:
    calls: list[int] = []

    def option(index: int) -> torch.Tensor:
        calls.append(index)
        return torch.full((2,), float(index))

    assert mixed(3, option).tolist() == [3, 3]
    assert mixed({1: 0.5, 4: torch.tensor(2.0)}, option).tolist() == [8.5, 8.5]
    assert calls == [3, 1, 4]  # what is shut is not computed
    with pytest.raises(UserError, match="are shut"):
        mixed({}, option)


def test_paths() -> None:
    assert path_of([1, 2]) == (1, 2)
    assert path_of([1, {2: 1.0}]) is None
    with pytest.raises(UserError, match="one option"):
        single_path([{0: 0.5, 1: 0.5}])


def test_none_adds_nothing_to_an_edge() -> None:
    space = space_of("nas_bench_201")
    torch.manual_seed(0)
    supernet = space.supernet(TASK).eval()
    images = torch.randn(2, 3, 16, 16)
    with_none: Gates = [{0: 0.5, 3: 1.0}] * 6
    assert torch.equal(supernet(images, with_none), supernet(images, [3] * 6))
    assert torch.equal(supernet(images, [{0: 0.5}] * 6), supernet(images, [0] * 6))


def test_the_warm_up_opens_all_and_trains_all() -> None:
    space = space_of("nas_bench_macro")
    gates = WarmUp(epochs=1.5).put_before(lambda step: [[0] * 8], space, 4, Streams(0))
    assert [path_of(gates(step)[0]) for step in (0, 5, 6)] == [None, None, (0,) * 8]
    supernet = space.supernet(TASK)
    supernet(torch.randn(2, 3, 16, 16), gates(0)[0]).sum().backward()
    assert all(parameter.grad is not None for parameter in supernet.parameters())
    assert WarmUp(epochs=0).put_before(gates, space, 4, Streams(0)) is gates


def test_a_space_of_single_paths_has_no_warm_up() -> None:
    space = space_of("nao_cell")
    WarmUp(epochs=0).check(space)
    with pytest.raises(UserError, match=r"warm_up\.epochs=2: nao_cell"):
        WarmUp(epochs=2).check(space)
