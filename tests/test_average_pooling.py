"""Average pooling that stands in for torch's own where that passes gradients to wrong pixels."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nasrun.run import average_pooling
from nasrun.run.average_pooling import avg_pool2d, mend_average_pooling, torch_avg_pool2d


def _pooled(pool: object, maps: Tensor, **how: object) -> tuple[Tensor, Tensor]:
    """Pool the maps; returns what came out and the gradient of a weighted sum of it."""
    maps = maps.detach().requires_grad_()
    out = pool(maps, **how)  # type: ignore[operator]
    weights = torch.arange(out.numel(), dtype=out.dtype).reshape(out.shape)
    (gradient,) = torch.autograd.grad((out * weights).sum(), maps)
    return out.detach(), gradient


@pytest.mark.parametrize("counted", [True, False])
@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "ceil"),
    [(3, 1, 1, False), (3, 2, 1, False), (2, 2, 0, True), (5, 1, 2, False), (2, 1, 1, False)],
)
def test_pools_and_gradients_equal_those_of_torch(
    kernel: int, stride: int, padding: int, ceil: bool, counted: bool
) -> None:
    maps = torch.randn(2, 3, 7, 7, dtype=torch.float64)
    how = {"kernel_size": kernel, "stride": stride, "padding": padding}
    how |= {"ceil_mode": ceil, "count_include_pad": counted}
    want = _pooled(torch_avg_pool2d, maps, **how)
    for layout in (torch.contiguous_format, torch.channels_last):
        found = _pooled(avg_pool2d, maps.contiguous(memory_format=layout), **how)
        torch.testing.assert_close(found, want)


def test_torch_pools_maps_of_its_own_layout_and_the_layout_is_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    layouts = []

    def pool(maps: Tensor, *how: int) -> Tensor:
        layouts.append(maps.is_contiguous())
        return torch_avg_pool2d(maps, *how)

    monkeypatch.setattr(average_pooling, "torch_avg_pool2d", pool)
    maps = torch.randn(2, 3, 8, 8)
    assert avg_pool2d(maps, 3, 1, 1).is_contiguous()
    last = avg_pool2d(maps.contiguous(memory_format=torch.channels_last), 3, 1, 1)
    assert last.is_contiguous(memory_format=torch.channels_last) and not last.is_contiguous()
    assert layouts == [True, True]
    assert avg_pool2d(maps[0], 3, 1, 1).shape == (3, 8, 8)  # maps of one image


@pytest.mark.parametrize(
    ("version", "mended"), [("2.13.1+cu130", True), ("2.9.0", True), ("2.14.0", False)]
)
def test_only_torch_that_is_wrong_gets_it_and_modules_too(
    version: str, mended: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(F, "avg_pool2d", torch_avg_pool2d)
    calls = []
    monkeypatch.setattr(
        average_pooling, "avg_pool2d", lambda *args: calls.append(1) or torch_avg_pool2d(*args)
    )
    mend_average_pooling(version)
    nn.AvgPool2d(3, 1, 1)(torch.ones(1, 1, 4, 4))
    assert bool(calls) == mended
