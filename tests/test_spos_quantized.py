"""spos_quantized: published bit operations, quantisers by hand, and bits that count."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from networks import (
    CIFAR,
    assert_latencies_add_up,
    assert_layers_make_up_networks,
    counted,
    random_architectures,
)

from nasrun.config.build import build
from nasrun.config.compose import compose
from nasrun.errors import UserError
from nasrun.search_space.chain import WidthScale
from nasrun.search_space.layer import count_layers
from nasrun.search_space.spos_quantized import SposQuantized
from nasrun.search_space.spos_quantized import network as built
from nasrun.search_space.spos_quantized.layers import ConvPlan, parse_bits
from nasrun.search_space.spos_quantized.network import convolution_layer
from nasrun.search_space.spos_quantized.quantise import (
    levels,
    quantise_activation,
    quantise_weight,
)
from nasrun.testing import check_space
from nasrun.values import Architecture, MapSize, Problem

SIX = ("w1a2", "w2a2", "w1a4", "w2a4", "w3a4", "w4a4")
IMAGENET = Problem(3, 224, 1000)
TINY = Problem(3, 16, 5)
MIXTURES = ["gates_are_those_of_the_claims", "mixtures_are_sums"]


def space(
    *,
    depth=18,
    stem="cifar",
    bits=SIX,
    alpha=6.0,
    norms="shared",
    affine=True,
    width=0.0625,
    final=0.09,
) -> SposQuantized:
    return SposQuantized(
        depth=depth,
        stem=stem,
        bits=list(bits),
        alpha=alpha,
        norms=norms,
        affine=affine,
        search=WidthScale(width=width),
        final=WidthScale(width=final),
    )


def uniform(search_space: SposQuantized, bits: str) -> Architecture:
    choice = search_space.decisions[0].options.index(bits)
    return Architecture(search_space.name, (choice,) * len(search_space.decisions))


def observe(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int, int]]:
    """Record each quantised convolution that runs from now on.

    Its multiply-adds for one image, and the numbers of distinct values of weights and of input.
    """
    seen: list[tuple[int, int, int]] = []

    def conv2d(x, weight, **settings):
        out = F.conv2d(x, weight, **settings)
        if out.is_meta:
            return out  # a layer that is counted, without values
        macs = out[0].numel() * weight[0].numel()
        seen.append((macs, len(weight.unique()), len(x.unique())))
        return out

    monkeypatch.setattr(built, "F", SimpleNamespace(conv2d=conv2d, relu=F.relu))
    return seen


@pytest.mark.parametrize(
    ("depth", "bits", "published"),
    [(18, "w2a2", 6.32), (18, "w3a3", 14.21), (18, "w4a4", 25.27), (34, "w1a1", 3.30)],
)
def test_published_bit_operations_are_met(depth, bits, published):
    """Table 6 counts the shortcuts and takes 2^30 for a G; neither without the other fits."""
    search_space = space(depth=depth, stem="imagenet", bits=[bits], width=1.0)
    bitops = search_space.cost(uniform(search_space, bits), IMAGENET).bitops
    assert round(bitops / 2**30, 2) == published
    assert round(bitops / 1e9, 2) != published


@pytest.mark.parametrize("depth", [18, 34])
def test_the_base_network_is_the_published_resnet(depth):
    """All parameters of the ResNet, and a clipping value for each of its 3×3 convolutions."""
    from torchvision import models  # slow to import

    reference = getattr(models, f"resnet{depth}")
    search_space = space(depth=depth, stem="imagenet", width=1.0)
    with torch.device("meta"):
        expected = sum(parameter.numel() for parameter in reference().parameters())
    decisions = len(search_space.decisions)
    assert decisions == depth - 2
    cost = search_space.cost(uniform(search_space, "w4a4"), IMAGENET)
    assert cost.params == expected + decisions
    assert cost.macs == {18: 1_814_073_344, 34: 3_663_761_408}[depth]


@pytest.mark.few(1)
@pytest.mark.parametrize(
    ("depth", "stem", "problem"),
    [
        (18, "cifar", CIFAR),
        (34, "cifar", Problem(1, 9, 3)),
        (18, "imagenet", Problem(3, 65, 7)),
        (34, "imagenet", Problem(1, 32, 10)),
    ],
)
def test_costs_are_those_of_the_built_network(depth, stem, problem, monkeypatch):
    """Also: every quantised convolution sees only as many values as its bits can tell apart."""
    search_space = space(depth=depth, stem=stem)
    seen = observe(monkeypatch)
    for architecture in random_architectures(search_space, 2):
        for scale in ("search", "final"):
            network = search_space.network(architecture, problem, scale)
            cost = search_space.cost(architecture, problem, scale)
            assert (cost.params, cost.macs) == counted(network, problem)
            seen.clear()
            network(torch.randn(2, *problem.size.shape(problem.channels)))
            layers = [
                bits
                for block, first, second in zip(
                    network.blocks, network.bits[::2], network.bits[1::2], strict=True
                )
                for bits in (first, second, *([first] if block.shortcut else []))
            ]
            bitops = 0
            for (macs, weights, inputs), bits in zip(seen, layers, strict=True):
                assert weights <= 2**bits.weights and inputs <= 2**bits.activations
                bitops += macs * bits.weights * bits.activations
            assert cost.bitops == bitops


def test_bit_operations_by_hand():
    """4 to 8 channels, 6×6 pixels, stride 2: nine outputs a channel."""
    first, second = parse_bits(["w1a2", "w3a4"])
    layers = [
        convolution_layer(ConvPlan(4, 8, 3, 2, MapSize.square(6)), first, "first", 6.0),
        convolution_layer(ConvPlan(8, 8, 3, 1, MapSize.square(3)), second, "second", 6.0),
        convolution_layer(ConvPlan(4, 8, 1, 2, MapSize.square(6)), first, "shortcut", 6.0),
    ]
    assert count_layers(layers).bitops == 9 * ((9 + 1) * 4 * 8 * 2 + 9 * 8 * 8 * 12)


def test_the_bound_is_the_largest_cost():
    search_space = space()
    bound = search_space.cost_bound(CIFAR)
    assert bound == search_space.cost(uniform(search_space, "w4a4"), CIFAR)
    for architecture in random_architectures(search_space, 20):
        cost = search_space.cost(architecture, CIFAR)
        assert cost.bitops < bound.bitops
        assert (cost.params, cost.macs) == (bound.params, bound.macs)


@pytest.mark.parametrize("norms", ["shared", "per_option"])
def test_only_the_path_is_computed_and_trained(norms, monkeypatch):
    search_space = space(norms=norms)
    supernet = search_space.supernet(CIFAR)
    seen = observe(monkeypatch)
    (architecture,) = random_architectures(search_space, 1)
    F.cross_entropy(
        supernet(torch.randn(2, 3, 32, 32), architecture.choices), torch.tensor([0, 1])
    ).backward()
    assert len(seen) == 16 + 3
    network = search_space.network(architecture, CIFAR, "search")
    taken = {name for name, _ in network.named_parameters()}
    assert len(taken) == 3 + 16 * (3 + 1) + 3 * 3 + 2
    for name, parameter in supernet.named_parameters():
        assert (parameter.grad is not None) == (name in taken)


def test_bits_change_the_output_though_weights_are_shared():
    torch.manual_seed(0)
    search_space = space()
    supernet = search_space.supernet(CIFAR)
    images = torch.randn(4, 3, 32, 32)
    outputs = [
        supernet(images, uniform(search_space, bits).choices) for bits in ("w1a2", "w2a2", "w4a4")
    ]
    assert not torch.allclose(outputs[0], outputs[1]) and not torch.allclose(*outputs[1:])


@pytest.mark.parametrize("bits", range(1, 9))
def test_levels_are_evenly_spaced_and_nearest(bits):
    x = torch.linspace(0, 1, 5001)
    found = levels(x, bits)
    assert torch.allclose(found.unique(), torch.linspace(0, 1, 2**bits))
    assert (found - x).abs().max() <= 0.5 / (2**bits - 1) + 1e-6


def test_activations_and_their_gradients_by_hand():
    """Two bits and alpha 3: the levels are 0, 1, 2 and 3."""
    x = torch.tensor([-1.0, 0.4, 0.6, 1.4, 2.9, 3.0, 5.0], requires_grad=True)
    alpha = torch.tensor([3.0], requires_grad=True)
    out = quantise_activation(x, alpha, 2)
    assert out.tolist() == [0, 0, 1, 1, 3, 3, 3]
    out.backward(torch.tensor([1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0]))
    assert x.grad.tolist() == [0, 2, 4, 8, 16, 0, 0]
    assert alpha.grad.item() == 32 + 64


def test_a_clipping_value_below_zero_still_learns():
    alpha = torch.tensor([-1.0], requires_grad=True)
    out = quantise_activation(torch.tensor([-2.0, 1.0]), alpha, 2)
    out.sum().backward()
    assert out.abs().max() <= 1e-6 and alpha.grad.item() == 1


def test_weights_of_one_bit_and_their_gradients_by_hand():
    """The mean magnitude is 2; zero counts as positive."""
    weight = torch.tensor([[-1.0, 0.0], [2.0, -5.0]], requires_grad=True)
    out = quantise_weight(weight, 1)
    assert out.tolist() == [[-2, 2], [2, -2]]
    gradient = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    out.backward(gradient)
    assert torch.equal(weight.grad, gradient)


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_weights_of_more_bits_and_their_gradients_by_hand(bits):
    """Gradients: the derivative of tanh(w) / max |tanh(w)|, w[2] being the largest."""
    weight = torch.tensor([0.1, -0.4, -0.9, 0.7], dtype=torch.float64, requires_grad=True)
    gradient = torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64)
    out = quantise_weight(weight, bits)
    out.backward(gradient)
    squashed = np.tanh(weight.detach().numpy())
    largest, steps = -squashed[2], 2**bits - 1
    grid = 2 * np.round((squashed / largest + 1) / 2 * steps) / steps - 1
    assert np.allclose(out.detach().numpy(), grid)
    through = gradient.numpy() / largest
    through[2] += (gradient.numpy() * squashed).sum() / largest**2  # d largest / d squashed = -1
    assert np.allclose(weight.grad.numpy(), through * (1 - squashed**2))


def test_no_bits_give_more_values_than_they_can_and_more_bits_come_nearer():
    torch.manual_seed(0)
    weight, x, alpha = torch.randn(64, 32, 3, 3), 3 * torch.randn(8, 16, 9, 9), torch.tensor(4.3)
    fine_weight, fine_x = weight.tanh() / weight.tanh().abs().max(), x.clamp(0, 4.3)
    errors = []
    for bits in range(1, 9):
        coarse_weight, coarse_x = quantise_weight(weight, bits), quantise_activation(x, alpha, bits)
        assert len(coarse_weight.unique()) == len(coarse_x.unique()) == 2**bits
        errors.append(
            ((coarse_weight - fine_weight).abs().mean(), (coarse_x - fine_x).abs().mean())
        )
    weights, activations = zip(*errors, strict=True)
    assert list(weights) == sorted(weights, reverse=True)
    assert list(activations) == sorted(activations, reverse=True)


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_weights_that_are_all_zero_give_no_nan(bits):
    weight = torch.zeros(4, 3, 3, 3, requires_grad=True)
    out = quantise_weight(weight, bits)
    out.sum().backward()
    assert out.isfinite().all() and weight.grad.isfinite().all()


def test_many_bits_come_near_the_network_in_full_precision():
    """torchvision's ResNet-18 with the same weights, which lie in one order in both."""
    torch.manual_seed(0)
    problem = Problem(3, 64, 10)
    from torchvision.models import resnet18  # slow to import

    reference = resnet18(num_classes=10)
    images = torch.randn(8, 3, 64, 64)
    with torch.no_grad():
        expected = reference(images)
        errors = []
        for bits in ("w2a2", "w4a4", "w8a8"):
            search_space = space(stem="imagenet", bits=[bits], alpha=8.0, width=1.0)
            network = search_space.network(uniform(search_space, bits), problem, "search")
            own = network.state_dict()
            values = iter(reference.state_dict().values())
            network.load_state_dict(
                {name: own[name] if "alphas" in name else next(values) for name in own}
            )
            errors.append(float((network(images) - expected).norm() / expected.norm()))
    assert errors == sorted(errors, reverse=True) and errors[-1] < 0.1


@pytest.mark.parametrize("bits", ["w8a8", "w7a2"])
def test_quantised_layers_compute_in_fp32_under_autocast(bits):
    """Equal bits with and without; values of 7 and 8 bits have no place in bf16."""
    torch.manual_seed(0)
    found = []
    layer = convolution_layer(
        ConvPlan(4, 8, 3, 1, MapSize(5, 5)), *parse_bits([bits]), "first", 2.0
    )
    module, x = layer.build(), torch.randn(2, 4, 5, 5).bfloat16()
    for autocast in (False, True):
        given = x.clone() if autocast else x.float()
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            out = module(given)
        out.square().sum().backward()
        found.append([out, *(parameter.grad.clone() for parameter in module.parameters())])
        module.zero_grad()
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


@pytest.mark.soak
@pytest.mark.parametrize("autocast", [False, True])
def test_training_lowers_the_loss(autocast):
    torch.manual_seed(0)
    search_space = space(stem="cifar", width=0.125)
    supernet = search_space.supernet(TINY).to(memory_format=torch.channels_last)
    labels = torch.arange(20) % 5
    images = torch.randn(5, 3, 16, 16)[labels] + 0.1 * torch.randn(20, 3, 16, 16)
    optimiser = torch.optim.SGD(supernet.parameters(), lr=0.05, momentum=0.9)
    rng, losses = np.random.default_rng(0), []
    for _ in range(30):
        optimiser.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            logits = supernet(images, search_space.sample(rng).choices)
        loss = F.cross_entropy(logits.float(), labels)
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert np.mean(losses[-5:]) < 0.5 * np.mean(losses[:5])
    alphas = [p for name, p in supernet.named_parameters() if ".alphas." in name]
    assert any(alpha.item() != 6 for alpha in alphas)


def test_clipping_values_are_one_for_each_number_of_bits_and_decay_like_weights():
    supernet = space(alpha=2.5).supernet(CIFAR)
    for block in supernet.blocks:
        for layer in (block.first_input, block.second_input):
            assert set(layer.alphas) == {"2", "4"}
            assert all(alpha.dim() == 4 and alpha == 2.5 for alpha in layer.alphas.values())


def test_without_affine_only_the_blocks_lose_it():
    search_space = space(affine=False)
    supernet = search_space.supernet(CIFAR)
    assert not any(p.dim() == 1 for p in supernet.blocks.parameters())
    assert supernet.stem[1].affine
    network = search_space.network(uniform(search_space, "w2a2"), CIFAR, "final")
    assert all(m.affine for m in network.modules() if isinstance(m, torch.nn.BatchNorm2d))


def test_blocks_drop_with_drop_path():
    supernet = space().supernet(CIFAR)
    block, (bits,) = supernet.blocks[1], parse_bits(["w2a2"])
    x = 6 * torch.rand(64, 4, 4, 4)  # two bits make zeros of what lies below 1
    supernet.noise.begin_step(
        torch.Generator().manual_seed(0), progress=1.0, drop_path_keep=0.5, dropout_keep=1.0
    )
    unchanged = (block(x, bits, bits, supernet.noise, 1.0) == x).all(dim=(1, 2, 3)).sum()
    assert 16 <= unchanged <= 48


def test_decisions_are_read_and_written():
    search_space = space()
    assert search_space.decisions[9].name == "layer09/bits"
    assert search_space.decisions[9].options == SIX and search_space.size == 6**16
    assert len(space(depth=34).decisions) == 32
    assert search_space.describe(uniform(search_space, "w1a4"))[3] == "layer03/bits: w1a4"


@pytest.mark.parametrize(
    ("bits", "message"),
    [
        (["w9a2"], "'w9a2' is no option: write w2a4"),
        (["w2a0"], "'w2a0' is no option"),
        (["w2a2", "a2w2"], "'a2w2' is no option"),
        (["w2a2\n"], "is no option"),
        (["w2a2", "w1a2", "w2a2"], "w2a2 stands there twice"),
        ([], "there are none"),
    ],
)
def test_strange_bits_are_refused(bits, message):
    with pytest.raises(UserError, match=message):
        space(bits=bits)


def test_what_cannot_be_is_refused():
    search_space = space()
    architecture = uniform(search_space, "w2a2")
    with pytest.raises(UserError, match=r"stem=imagenet, .* 5 times \(at least 32×32\)"):
        space(stem="imagenet").cost(architecture, Problem(3, 31, 10))


def test_the_configuration_is_the_published_space():
    node = compose(["search_space=spos_quantized", "effort=full"])["search_space"]
    search_space = build(node, "search_space")
    assert isinstance(search_space, SposQuantized)
    assert search_space.decisions == space().decisions
    for setting, message in (
        ({"depth": 50}, "search_space.depth = 50"),
        ({"bits": "w2a2"}, "search_space.bits = w2a2: "),
        ({"bits": ["w2"]}, "search_space: bits: 'w2' is no option"),
        ({"alpha": 0}, "search_space.alpha = 0"),
    ):
        with pytest.raises(UserError, match=message):
            build({**node, **setting}, "search_space")


@pytest.mark.soak
@pytest.mark.parametrize("norms", ["shared", "per_option"])
@pytest.mark.parametrize(
    ("depth", "stem", "tasks"),
    [(18, "cifar", [CIFAR, TINY]), (34, "imagenet", [Problem(1, 65, 7)])],
)
def test_layers_make_up_the_network(depth, stem, tasks, norms):
    search_space = space(depth=depth, stem=stem, norms=norms)
    assert_layers_make_up_networks(search_space, tasks)
    assert_latencies_add_up(search_space)


def test_layers_have_the_bits_of_their_layers(monkeypatch):
    """Weights and inputs of few values, as in the whole network, and names that tell how many."""
    search_space = space()
    seen = observe(monkeypatch)
    (architecture,) = random_architectures(search_space, 1)
    for layer in search_space.layers(architecture, CIFAR):
        seen.clear()
        layer.build()(6 * torch.rand(2, *layer.shape))
        place = layer.name.removeprefix("spos_quantized/").split()
        if place[0] in ("first", "second", "shortcut"):
            ((_, weights, inputs),) = seen
            (bits,) = parse_bits(place[-1:])
            assert weights <= 2**bits.weights
            # the shortcut's input comes quantised from the block's first convolution
            assert (inputs <= 2**bits.activations) == (place[0] != "shortcut")


@pytest.mark.few(1)
@pytest.mark.parametrize(
    ("norms", "affine", "depth"), [("per_option", True, 18), ("shared", False, 34)]
)
def test_laws_with_other_norms_and_depths(norms, affine, depth):
    laws = ["a_path_is_its_network", "only_the_path_is_trained", "costs_add_up"]
    check_space(space(norms=norms, affine=affine, depth=depth), TINY, samples=1, only=laws)


def test_a_mixture_is_the_weighted_sum_of_a_layer_with_each_of_its_bits():
    """By hand at one layer; of one option with weight 1 it is the path, bit by bit."""
    supernet = space(norms="per_option", width=0.03125).supernet(TINY).eval()
    images, options = torch.rand(2, 3, 16, 16), supernet.options
    path = [3] * 16
    with torch.no_grad():
        assert torch.equal(supernet(images, [{3: 1.0}] * 16), supernet(images, path))
        block = supernet.blocks[0]
        x = torch.rand(2, 2, 16, 16)
        of_bits = [block.second(block.second_input(x, bits.activations), bits) for bits in options]
        gate = dict(zip(options, (0.1, 0.2, 0.3, 0.15, 0.05, 0.2), strict=True))
        found = built.Quantised(block.second_input, x).through(block.second, gate)
        expected = sum(weight * out for weight, out in zip(gate.values(), of_bits, strict=True))
    assert torch.allclose(found, expected, atol=1e-6)


def test_every_option_of_a_mixture_learns():
    check_space(space(bits=("w2a2", "w4a4")), TINY, samples=1, only=MIXTURES)
