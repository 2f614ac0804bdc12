"""nas_bench_macro: all published costs and results, layers by hand, and its notation."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import tables
import torch
from networks import (
    CIFAR,
    assert_latencies_add_up,
    assert_layers_make_up_networks,
    random_architectures,
)

from nasrun.errors import UserError
from nasrun.search_space.chain import WidthScale
from nasrun.search_space.layer import Layer, count_layer
from nasrun.search_space.nas_bench_macro import NasBenchMacro
from nasrun.search_space.nas_bench_macro.layers import LayerPlan, MBConv
from nasrun.values import Architecture, Problem

TASKS = [CIFAR, Problem(1, 8, 10), Problem(1, 28, 10), Problem(3, 33, 7)]


def space(*, width: float = 0.125, final: float = 0.2, affine: bool = True) -> NasBenchMacro:
    return NasBenchMacro(
        affine=affine, search=WidthScale(width=width), final=WidthScale(width=final)
    )


def test_all_published_costs_are_met():
    """Parameters, and multiply-adds of convolutions and of the linear layer, without its biases."""
    search_space = space(width=1.0)
    published = {
        row["arch"]: (int(row["params"]), int(row["flops"])) for row in tables.rows(tables.MACRO)
    }
    found = {}
    for architecture in search_space.every():
        cost = search_space.cost(architecture, CIFAR)
        found[search_space.write(architecture)] = cost.params, cost.macs
    assert len(found) == 6561 and found == published


def test_equal_networks_have_one_published_result():
    """Identities that do nothing: the 3,969 classes are those that have one row of results."""
    search_space = space()
    rows: dict[Architecture, set[tuple[str, ...]]] = {}
    for row in tables.rows(tables.MACRO):
        form = search_space.canonical(search_space.parse(row["arch"]))
        rows.setdefault(form, set()).add(tuple(row.values())[1:])
    assert len(rows) == 3969 == len(set().union(*rows.values()))
    assert all(len(results) == 1 for results in rows.values())


def test_equal_networks_compute_the_same():
    search_space, rng = space(), np.random.default_rng(0)
    images = torch.randn(2, 3, 32, 32)
    one = search_space.parse("10010202")
    assert search_space.write(search_space.canonical(one)) == "10010220"
    twins = {search_space.equivalent(one, rng) for _ in range(30)}
    assert {search_space.write(twin) for twin in twins} == {
        f"10{middle}{last}" for middle in ("010", "001") for last in ("202", "220")
    }
    network = search_space.network(one, CIFAR, "search").eval()
    for twin in twins:
        assert search_space.canonical(twin) == search_space.canonical(one)
        assert search_space.cost(twin, CIFAR) == search_space.cost(one, CIFAR)
        other = search_space.network(twin, CIFAR, "search").eval()
        weights = network.state_dict().values()  # in the order of the layers
        other.load_state_dict(dict(zip(other.state_dict(), weights, strict=True)))
        assert torch.equal(other(images), network(images))


def test_costs_by_hand():
    """32 to 64 channels, 32×32 pixels, stride 2, kernel 3, expansion 3: 96 channels inside."""
    build = partial(MBConv(3, 3).module, LayerPlan(32, 64, 32, 2))
    cost = count_layer(Layer("test/mbconv", (32, 32, 32), build))
    assert cost.params == (32 * 96 + 192) + (9 * 96 + 192) + (96 * 64 + 128)
    assert cost.macs == 32 * 96 * 1024 + 9 * 96 * 256 + 96 * 64 * 256


def test_identities_where_the_shape_stays_have_no_weights_and_blocks_have_a_residual():
    search_space = space()
    supernet = search_space.supernet(CIFAR).eval()
    changing = [layer for layer in supernet.layers if not layer.residual]
    assert [index for index, layer in enumerate(supernet.layers) if layer in changing] == [0, 2, 5]
    for layer in supernet.layers:
        weights = sum(p.numel() for p in layer.options["0"].parameters())
        assert (weights == 0) == bool(layer.residual)
        if layer.residual:
            block = layer.options["2"]
            torch.nn.init.zeros_(block[-1].weight)  # the last batch norm
            x = torch.randn(2, block[0].in_channels, 8, 8)
            for option in (0, 2):
                assert torch.equal(layer(x, option, supernet.noise, 1.0), x)


def test_residual_blocks_drop_with_drop_path():
    supernet = space().supernet(CIFAR)
    layer = supernet.layers[1]
    x = torch.randn(64, layer.options["1"][0].in_channels, 4, 4)
    supernet.noise.begin_step(
        torch.Generator().manual_seed(0), progress=1.0, drop_path_keep=0.5, dropout_keep=1.0
    )
    unchanged = (layer(x, 1, supernet.noise, 1.0) == x).all((1, 2, 3)).sum()
    assert 16 <= unchanged <= 48


def test_without_affine_only_the_options_lose_it():
    supernet = space(affine=False).supernet(CIFAR)
    assert not any(p.dim() == 1 for p in supernet.layers.parameters())
    assert supernet.stem[1].affine and supernet.features[1].affine
    network = space(affine=False).network(Architecture("nas_bench_macro", (1,) * 8), CIFAR, "final")
    assert all(m.affine for m in network.modules() if isinstance(m, torch.nn.BatchNorm2d))
    supernet(torch.randn(2, 3, 32, 32), [0, 1, 2] * 2 + [0, 1]).sum().backward()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("2221222", "has 8 decisions, this one has 7"),
        ("222122200", "has 8 decisions, this one has 9"),
        ("22212223", "layer7/op = 3 is out of range: 0 to 2"),
        ("2221222x", "list of integers"),
        ("-2221222", "list of integers"),
        ("", "has 8 decisions, this one has 0"),
    ],
)
def test_strange_words_are_refused(text, message):
    for read in (space().parse, space().read):
        with pytest.raises(UserError, match=message):
            read(text)


def test_architectures_are_read_from_digits_and_from_files():
    search_space = space()
    best = search_space.parse(" 22212220\n")
    assert best.choices == (2, 2, 2, 1, 2, 2, 2, 0)
    assert search_space.read("22212220") == search_space.read(best.to_json()) == best
    assert search_space.describe(best)[3] == "layer3/op: mbconv_3x3_e3"


def test_layers_make_up_the_network():
    assert_layers_make_up_networks(space(), TASKS)
    assert_latencies_add_up(space())


def test_layers_one_after_the_other_are_the_network():
    torch.manual_seed(0)
    search_space = space()
    for architecture in random_architectures(search_space, 3):
        network = search_space.network(architecture, CIFAR, "search").eval()
        layers = [layer.build() for layer in search_space.layers(architecture, CIFAR)]
        chain = torch.nn.Sequential(*layers).eval()
        weights = network.state_dict().values()  # in the order of the layers
        chain.load_state_dict(dict(zip(chain.state_dict(), weights, strict=True)))
        images = torch.randn(2, 3, 32, 32)
        assert torch.equal(chain(images), network(images))
