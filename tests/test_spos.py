"""The SPOS spaces: published costs, sliced weights, and the statistics of batch norms."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from helpers import CPU, space_of
from networks import CIFAR, counted, random_architectures
from scipy import stats
from torch import Tensor, nn

from nasrun.config.build import build_setup
from nasrun.config.compose import compose
from nasrun.errors import UserError
from nasrun.evaluator.batch_norm import batch_statistics, recalibrated_statistics
from nasrun.sampler.uniform import Uniform
from nasrun.sampler.warm_up import WideWarmUp
from nasrun.search_space.base import SearchSpace
from nasrun.search_space.chain import WidthScale
from nasrun.search_space.layer import count_layer, count_layers, sum_costs
from nasrun.search_space.spos import SposBlocks, SposBlocksChannels, SposChannels, SposFinalScale
from nasrun.search_space.spos.layers import Choice
from nasrun.search_space.spos.network import Block, block_layer
from nasrun.search_space.spos.plan import BlockPlan, plan_network
from nasrun.search_space.spos.sliced import SlicedBatchNorm
from nasrun.streams import Streams
from nasrun.testing import check_space
from nasrun.values import Architecture, Cost, MapSize, Problem

IMAGENET = Problem(3, 224, 1000)
RELEASED = "21012020202300003233"
RATIOS = [0.2, 0.6, 1.0, 1.5, 2.0]
SPACE_NAMES = ("spos_blocks", "spos_channels", "spos_blocks_channels")
CHANNELS = SPACE_NAMES[1:]


def spos(
    name: str, *, width: float = 0.1, final: float | SposFinalScale = 0.17, **changes: Any
) -> SearchSpace:
    arguments: dict[str, Any] = {
        "stem": "cifar",
        "affine": False,
        "search": WidthScale(width=width),
        "final": final if isinstance(final, SposFinalScale) else SposFinalScale(width=final),
    }
    if name == "spos_blocks":
        return SposBlocks(**arguments | changes)
    arguments["ratios"] = RATIOS
    if name == "spos_blocks_channels":
        return SposBlocksChannels(**arguments | changes)
    return SposChannels(**arguments | {"blocks": RELEASED} | changes)


@torch.no_grad()
def copy_path(supernet: nn.Module, network: nn.Module) -> None:
    """Into the network the supernet's values, as far as the path uses them."""
    shared = supernet.state_dict()
    for name, value in network.state_dict().items():
        if name in shared:
            value.copy_(shared[name][tuple(slice(length) for length in value.shape)])
        else:
            # The supernet has no scales and shifts; those of 1 and 0 stay.
            assert name.endswith((".weight", ".bias")) and value.dim() == 1


@torch.no_grad()
def lively(supernet: nn.Module, space: SearchSpace, problem: Problem) -> nn.Module:
    """The supernet with statistics from some batches, in evaluation mode."""
    for architecture in random_architectures(space, 2, seed=1):
        supernet(torch.randn(8, *problem.size.shape(problem.channels)), architecture.choices)
    for name, parameter in supernet.named_parameters():
        if parameter.dim() == 1:  # affine batch norms: otherwise all ones and zeros
            nn.init.uniform_(parameter, 0.5 if name.endswith("weight") else -0.5, 1.5)
    return supernet.eval()


@pytest.mark.parametrize(
    ("stem", "problem", "digits", "macs", "params"),
    [
        ("imagenet", IMAGENET, "0" * 20, 295.8, 3.15),
        ("imagenet", IMAGENET, "1" * 20, 313.7, None),
        ("imagenet", IMAGENET, "2" * 20, 340.4, None),
        ("imagenet", IMAGENET, "3" * 20, 358.8, None),
        ("imagenet", IMAGENET, RELEASED, 322.9, 3.56),
        ("cifar", CIFAR, "0" * 20, 157.7, 2.03),
        ("cifar", CIFAR, "1" * 20, 164.2, 2.09),
        ("cifar", CIFAR, "2" * 20, 173.8, 2.16),
        ("cifar", CIFAR, "3" * 20, 205.4, 2.75),
    ],
)
def test_published_costs_are_met(stem, problem, digits, macs, params):
    """Millions, with the linear layer, and with the batch norms' scales and shifts."""
    space = spos("spos_blocks", width=1.0, stem=stem)
    cost = space.cost(space.parse(digits), problem)
    assert round(cost.macs / 1e6, 1) == macs
    assert params is None or round(cost.params / 1e6, 2) == params


@pytest.mark.parametrize(("stem", "problem"), [("imagenet", IMAGENET), ("cifar", CIFAR)])
def test_costs_hold_at_the_published_width(stem, problem):
    space = spos("spos_blocks", width=1.0, stem=stem)
    network = space.network(space.parse(RELEASED), problem, "search")
    cost = space.cost(space.parse(RELEASED), problem)
    assert (cost.params, cost.macs) == counted(network, problem)


def test_costs_by_hand():
    """64 to 160 channels, 16×16 pixels, stride 2; then 160 to 160, stride 1, 100 inside."""
    down = count_layer(block_layer(BlockPlan(64, 160, MapSize.square(16), 2), Choice(1, 80)))
    main = 64 * 80 + 25 * 80 + 80 * 96
    assert down.params == main + 2 * (80 + 80 + 96) + 25 * 64 + 64 * 64 + 4 * 64
    assert down.macs == 64 * 80 * 256 + (25 * 80 + 80 * 96 + 25 * 64 + 64 * 64) * 64
    same = count_layer(block_layer(BlockPlan(160, 160, MapSize.square(8), 1), Choice(3, 100)))
    weights = 9 * 80 + 80 * 100 + 9 * 100 + 100 * 100 + 9 * 100 + 100 * 80
    assert same == Cost(weights + 2 * (80 + 4 * 100 + 80), weights * 64)


@pytest.mark.few(1)
@pytest.mark.parametrize("name", SPACE_NAMES)
def test_recalibrated_paths_are_recalibrated_networks(name):
    torch.manual_seed(0)
    space, problem = spos(name), Problem(3, 8, 4)
    supernet = lively(space.supernet(problem), space, problem)
    before = {key: value.clone() for key, value in supernet.state_dict().items()}
    batches = [(torch.randn(8, 3, 8, 8), torch.zeros(8)) for _ in range(3)]
    images = torch.randn(6, 3, 8, 8)
    with recalibrated_statistics(supernet, batches, CPU) as recalibrate:
        for architecture in random_architectures(space, 2):
            network = space.network(architecture, problem, "search").eval()
            copy_path(supernet, network)
            recalibrate(lambda x, path=architecture.choices: supernet(x, path))
            with recalibrated_statistics(network, batches, CPU) as alone:
                alone(network)
                logits = network(images)
            assert torch.allclose(supernet(images, architecture.choices), logits, atol=1e-5)
    assert all(torch.equal(value, before[key]) for key, value in supernet.state_dict().items())


def norms(affine: bool) -> tuple[SlicedBatchNorm, nn.BatchNorm2d]:
    """Make batch norms of 9 channels, and of 5 with the same values."""
    sliced, plain = SlicedBatchNorm(9, affine=affine), nn.BatchNorm2d(5, affine=affine)
    values = sliced.state_dict()
    for value in values.values():
        if value.dim():
            value.uniform_(0.5, 2.0)
    plain.load_state_dict(
        {key: value[:5] if value.dim() else value for key, value in values.items()}
    )
    return sliced, plain


def assert_same(sliced: SlicedBatchNorm, plain: nn.BatchNorm2d, x: Tensor) -> None:
    """Outputs and what they leave behind, to the bit."""
    rest = {key: value[5:].clone() for key, value in sliced.state_dict().items() if value.dim()}
    assert torch.equal(sliced(x), plain(x))
    values = plain.state_dict()
    for key, value in sliced.state_dict().items():
        assert torch.equal(value[:5] if value.dim() else value, values[key]), key
        assert key not in rest or torch.equal(value[5:], rest[key]), key


@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize("momentum", [0.1, 0.7, None])
def test_sliced_batch_norms_are_batch_norms_of_that_width(affine, momentum):
    torch.manual_seed(0)
    sliced, plain = norms(affine)
    sliced.momentum = plain.momentum = momentum
    for training, tracking in ((True, True), (True, True), (False, True), (True, False)):
        for norm in (sliced, plain):
            norm.train(training)
            norm.track_running_stats = tracking
        assert_same(sliced, plain, torch.randn(4, 5, 3, 3))
    whole = nn.BatchNorm2d(9, affine=affine)
    whole.load_state_dict(sliced.state_dict())
    x = torch.randn(4, 9, 3, 3)
    assert torch.equal(sliced.eval()(x), whole.eval()(x))
    with pytest.raises(ValueError, match="4D"):
        sliced(x[0])


def test_sliced_batch_norms_without_statistics():
    sliced = SlicedBatchNorm(9, track_running_stats=False).eval()
    plain = nn.BatchNorm2d(5, track_running_stats=False).eval()
    assert_same(sliced, plain, torch.randn(4, 5, 3, 3))


@pytest.mark.parametrize("affine", [False, True])
def test_both_protocols_see_no_difference(affine):
    torch.manual_seed(0)
    sliced, plain = norms(affine)
    sliced.eval(), plain.eval()
    batches = [(torch.randn(4, 5, 3, 3), torch.zeros(4)) for _ in range(3)]
    x = torch.randn(4, 5, 3, 3)
    inherited = plain(x)
    with (
        recalibrated_statistics(sliced, batches, CPU) as ours,
        recalibrated_statistics(plain, batches, CPU) as theirs,
    ):
        for _ in range(2):  # the second path does not see the first
            ours(sliced)
            theirs(plain)
            assert_same(sliced, plain, x)
            assert not torch.equal(sliced(x), inherited)
    with batch_statistics(sliced), batch_statistics(plain):
        assert_same(sliced, plain, x)
        assert not torch.equal(sliced(x), inherited)
    assert torch.equal(sliced(x), inherited)


def test_blocks_may_be_mixed_and_widths_not():
    space, problem = spos("spos_blocks"), Problem(3, 8, 4)
    torch.manual_seed(0)
    supernet = lively(space.supernet(problem), space, problem)
    block = supernet.blocks[3]
    x = torch.randn(2, 2 * block.options["0"].main[0][0].in_channels, 4, 4)
    assert torch.allclose(block(x, {1: 0.25, 3: 0.5}), 0.25 * block(x, 1) + 0.5 * block(x, 3))
    assert space.gate_kinds == {"path", "mix"}
    for name in CHANNELS:
        assert spos(name).gate_kinds == {"path"}


def test_even_channels_go_through_at_stride_1():
    for op in range(4):
        x = torch.randn(2, 10, 6, 6)
        block = Block(BlockPlan(10, 14, 6, 1), Choice(op, 7))
        out = block(x)
        assert out.shape == (2, 14, 6, 6) and torch.equal(out[:, :5], x[:, ::2])
        odd = x.clone()
        odd[:, ::2] = 0
        assert torch.equal(block(odd)[:, 5:], out[:, 5:])
        down = Block(BlockPlan(10, 14, 7, 2), Choice(op, 7))
        assert down(torch.randn(2, 10, 7, 7)).shape == (2, 14, 4, 4)


@pytest.mark.few(1)
@pytest.mark.parametrize(
    ("name", "stem", "size"),
    [("spos_blocks", "imagenet", 33), *((name, "cifar", 8) for name in CHANNELS)],
)
def test_layers_make_up_the_network(name, stem, size):
    torch.manual_seed(0)
    space, problem = spos(name, stem=stem), Problem(3, size, 4)
    built: dict[str, tuple[tuple[int, ...], dict[str, torch.Size]]] = {}
    for architecture in random_architectures(space, 2):
        network = space.network(architecture, problem, "search").eval()
        own = [network.stem, *(next(iter(b.options.values())) for b in network.blocks)]
        own.append(network.head)
        x = images = torch.randn(2, 3, size, size)
        costs = []
        for layer, theirs in zip(space.layers(architecture, problem), own, strict=True):
            module = layer.build().eval()
            assert type(module) is type(theirs) and x.shape[1:] == layer.shape
            module.load_state_dict(theirs.state_dict())
            shapes = {key: value.shape for key, value in module.state_dict().items()}
            found = (layer.shape, shapes)
            assert built.setdefault(layer.name, found) == found
            costs.append(Cost(*counted(module, Problem(*layer.shape[:2], 0))))
            x = module.eval()(x)
        assert torch.equal(x, network(images))
        assert sum_costs(costs) == space.cost(architecture, problem)
    # Names tell scales and tasks apart, too.
    others = space.layers(architecture, Problem(3, 2 * size, 5), "final")
    assert not {layer.name for layer in others} & set(built)


def test_widths_inside_are_the_ratios_of_half_the_outputs():
    space = spos("spos_channels", width=1.0, ratios=[0.2, 1.0, 2.0], blocks="3" * 20)
    for ratio, mids in enumerate([(6, 16, 32, 64), (32, 80, 160, 320), (64, 160, 320, 640)]):
        network = space.network(Architecture("spos_channels", (ratio,) * 20), CIFAR, "search")
        for block, mid in zip((0, 4, 8, 16), mids, strict=True):
            assert network.blocks[block].options["3"].main[2][0].in_channels == mid
    one = Architecture("spos_channels", (1,) * 20)
    blocks = spos("spos_blocks", width=1.0)
    assert space.cost(one, CIFAR) == blocks.cost(blocks.parse("3" * 20), CIFAR)


def test_at_tiny_widths_stages_still_widen_and_have_channels_inside():
    plan = plan_network(CIFAR, "imagenet", 1e-6)
    channels = [plan.stem, *(block.outputs for block in plan.blocks)]
    assert channels == [2, *[4] * 4, *[6] * 4, *[8] * 8, *[10] * 4] and plan.features == 1
    space = spos("spos_blocks_channels", width=1e-6, stem="imagenet")
    smallest = space.network(Architecture(space.name, (3, 0) * 20), CIFAR, "search")
    assert smallest.blocks[0].options["3"].main[2][0].in_channels == 1
    assert smallest(torch.randn(2, 3, 32, 32)).shape == (2, 10)


def test_weights_start_as_released():
    torch.manual_seed(0)
    network = spos("spos_blocks", final=1.0).network(
        Architecture("spos_blocks", (0,) * 20), Problem(3, 32, 100), "final"
    )
    main = network.blocks[17].options["0"].main
    for module, deviation, error in (
        (network.stem[0], 0.01, 0.15),
        (network.head.classifier, 0.01, 0.02),
        (network.head.features[0], 1 / 640, 0.02),
        (main[0][0], 1 / 320, 0.02),
        (main[1][0], 1.0, 0.1),
    ):
        assert module.weight.std().item() == pytest.approx(deviation, rel=error)
    assert network.head.classifier.bias is None


def test_stems_have_their_activations():
    for stem, kind in (("cifar", nn.ReLU6), ("imagenet", nn.ReLU)):
        space = spos("spos_blocks", stem=stem)
        network = space.network(space.parse(RELEASED), CIFAR, "search")
        assert type(network.stem[2]) is type(network.head.features[2]) is kind
        assert not any(type(m) is nn.ReLU6 for m in network.blocks.modules())


@pytest.mark.parametrize("name", SPACE_NAMES)
def test_batch_norms_lose_scale_and_shift_in_the_supernet_alone(name):
    space = spos(name)
    assert not any(p.dim() == 1 for p in space.supernet(CIFAR).parameters())
    affine = spos(name, affine=True).supernet(CIFAR)
    (architecture,) = random_architectures(space, 1)
    for network in (affine, space.network(architecture, CIFAR, "final")):
        found = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
        assert len(found) > 50 and all(m.affine and m.weight is not None for m in found)


def test_dropout_comes_before_the_linear_layer():
    space = spos("spos_blocks")
    network = space.network(space.parse(RELEASED), CIFAR, "search").eval()
    images = torch.randn(2, 3, 32, 32)
    before = network(images)
    network.noise.begin_step(
        torch.Generator().manual_seed(0), progress=1.0, drop_path_keep=1.0, dropout_keep=0.5
    )
    assert not torch.equal(network(images), before)
    network.noise.stop()
    assert torch.equal(network(images), before)


@pytest.mark.parametrize("name", SPACE_NAMES)
def test_decisions(name):
    space = spos(name)
    assert (
        space.size == {SPACE_NAMES[0]: 4**20, SPACE_NAMES[1]: 5**20, SPACE_NAMES[2]: 20**20}[name]
    )
    kinds = {SPACE_NAMES[0]: ["op"], SPACE_NAMES[1]: ["ratio"], SPACE_NAMES[2]: ["op", "ratio"]}[
        name
    ]
    assert [decision.kind for decision in space.decisions] == kinds * 20
    assert space.decisions[-1].name == f"block19/{kinds[-1]}"


def test_operations_are_read_from_digits_and_numbers():
    ops = tuple(map(int, RELEASED))
    for blocks in (RELEASED, f" {RELEASED} ", int(RELEASED)):
        assert spos("spos_channels", blocks=blocks).ops == ops
    assert spos("spos_channels", blocks="0" * 20).ops == (0,) * 20


@pytest.mark.parametrize(
    ("blocks", "message"),
    [
        ("0" * 19, "blocks = 0{19}: an architecture of spos_blocks has 20 decisions, .* has 19"),
        ("4" * 20, "block00/op = 4 is out of range: 0 to 3"),
        (0, "has 20 decisions, this one has 1; in YAML write the digits in quotes"),
        ("nowhere.json", "blocks = nowhere.json"),
        ("", "has 20 decisions, this one has 0"),
    ],
)
def test_strange_blocks_are_refused(blocks, message):
    with pytest.raises(UserError, match=message):
        spos("spos_channels", blocks=blocks)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["search_space=spos_channels", "search_space.ratios=[0.5,0.5]"], "must rise"),
        (
            ["search_space=spos_channels", "search_space.ratios=[0.5,4.5]"],
            "less than or equal",
        ),
        (["search_space=spos_blocks_channels", "search_space.ratios=[]"], "at least 1 item"),
        (["search_space=spos_channels", "search_space.blocks=012"], "search_space: blocks = 012"),
        (["search_space=spos_blocks", "search_space.stem=large"], "'imagenet' or 'cifar'"),
        (["search_space=spos_blocks", "search_space.search.width=0"], "greater than 0"),
    ],
)
def test_strange_settings_are_refused(overrides, message):
    with pytest.raises(UserError, match=message):
        build_setup(compose(["task=search", *overrides]))


def test_the_configurations_are_as_published():
    blocks = space_of("spos_blocks", "search_space.search.width=1")
    assert round(blocks.cost(blocks.parse("0" * 20), CIFAR).macs / 1e6, 1) == 157.7
    ratios = tuple(f"{step / 5:.1f}" for step in range(1, 11))
    for name in CHANNELS:
        space = space_of(name)
        assert space.decisions[-1].options == ratios
    assert space_of("spos_channels", f"search_space.blocks={RELEASED}").ops[:3] == (2, 1, 0)


@pytest.mark.soak
@pytest.mark.parametrize("name", SPACE_NAMES)
def test_laws_with_affine_norms_and_the_imagenet_stem(name):
    """The widths of the supernet may be anything, and no stage is without channels."""
    laws = ["costs_are_counted", "a_path_is_its_network", "only_the_path_is_trained"]
    space = spos(name, stem="imagenet", affine=True, width=0.2, final=0.01)
    check_space(space, Problem(2, 67, 3), samples=1, only=[*laws, "small_images_are_refused"])


@pytest.mark.soak
def test_the_rows_of_one_operation_are_fitted_to_one_budget():
    """Table 3, "all choice_k": the next width is over the budget, and nothing fits far below."""
    setup = build_setup(compose(["task=retrain", "experiment=spos_all_choice"]))
    space = setup.search_space
    widths = {}
    for digit in "0123":
        row = space.parse(digit * 20)
        widths[digit] = space.width(row, IMAGENET, "final")
        cost = space.cost(row, IMAGENET, "final")
        wider = spos("spos_blocks", stem="imagenet", final=round(widths[digit] + 0.01, 9))
        assert 320e6 < cost.macs <= 330e6 < wider.cost(row, IMAGENET, "final").macs
        same = spos("spos_blocks", stem="imagenet", final=widths[digit])
        assert cost == same.cost(row, IMAGENET, "final")
        assert cost == count_layers(space.layers(row, IMAGENET, "final"))
    assert widths["0"] > widths["1"] > 1 > widths["2"] > widths["3"]
    network = space.network(space.parse("3" * 20), IMAGENET, "final")
    assert sum(p.numel() for p in network.parameters()) == cost.params
    # At the scale of the search nothing is fitted.
    assert round(space.cost(space.parse(RELEASED), IMAGENET).macs / 1e6, 1) == 322.9
    assert space.additive is None and space.limit("macs") == 330e6 and space.limit("params") is None


@pytest.mark.soak
@pytest.mark.parametrize("name", SPACE_NAMES)
def test_fitted_widths_keep_the_limits_and_the_laws(name):
    limits = {"macs": 3e5, "params": 3e4, "step": 0.05}
    space = spos(name, final=SposFinalScale(width=1.0, **limits))
    problem = Problem(3, 8, 4)
    bound = space.cost_bound(problem, "final")
    for architecture in random_architectures(space, 2):
        cost = space.cost(architecture, problem, "final")
        assert cost.params <= 3e4 and cost.macs <= 3e5
        assert cost.params <= bound.params and cost.macs <= bound.macs
        wider = space.width(architecture, problem, "final") + 0.05
        more = spos(name, final=wider).cost(architecture, problem, "final")
        assert more.params > 3e4 or more.macs > 3e5
    laws = ["costs_are_counted", "costs_add_up"]
    check_space(space, problem, samples=2, only=laws)
    small = spos(name, final=SposFinalScale(width=1.0, params=50))
    with pytest.raises(UserError, match=r"not even one of width 0\.01, of at most 50 params"):
        small.network(architecture, problem, "final")


@pytest.mark.parametrize("name", CHANNELS)
def test_the_warm_up_leaves_narrow_widths_out(name):
    space = spos(name, ratios=[0.2, 0.4, 0.6, 0.8, 1.0, 1.2])
    decisions = [i for i, d in enumerate(space.decisions) if d.kind == "ratio"]
    sampled = Uniform().bind(space, CIFAR, None, Streams(0), steps=400)
    rule = WideWarmUp(epochs=20, min_ratio=0.6)
    rule.check(space)
    gates = rule.put_before(sampled, space, 10, Streams(0).sub("warm_up"))
    seen = [Counter() for _ in range(2)]
    for step in range(400):
        (path,), (before,) = gates(step), sampled(step)
        seen[step >= 200].update(path[i] for i in decisions)
        for index, (choice, own) in enumerate(zip(path, before, strict=True)):
            assert choice == own or (step < 200 and index in decisions and own < 2)
    # 4,000 widths are sampled in each half, all that are allowed alike likely.
    assert sorted(seen[0]) == [2, 3, 4, 5] and sorted(seen[1]) == [0, 1, 2, 3, 4, 5]
    for counts in seen:
        assert stats.chisquare(list(counts.values())).pvalue > 1e-3
    assert gates(7) == rule.put_before(sampled, space, 10, Streams(0).sub("warm_up"))(7)


def test_a_warm_up_of_widths_needs_widths():
    setup = build_setup(compose(["task=search", "experiment=spos_channels_cifar10"]))
    setup.check_algo()
    assert isinstance(setup.warm_up, WideWarmUp) and setup.warm_up.min_ratio == 0.6
    rule = WideWarmUp(epochs=1, min_ratio=2.5)
    with pytest.raises(UserError, match=r"spos_blocks decides on none; set warm_up\.epochs=0"):
        rule.check(spos("spos_blocks"))
    with pytest.raises(UserError, match=r"min_ratio=2\.5 leaves no width"):
        rule.check(spos("spos_channels"))
