"""Models of libraries as contestants: built by name, fitted to the task, counted, trained."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from networks import CIFAR
from torch import nn

from nasrun.cli.main import main
from nasrun.errors import UserError
from nasrun.search_space.library_models import TimmModel, TorchvisionModel, libraries
from nasrun.search_space.library_models.adapting import halvings_to_remove
from nasrun.search_space.library_models.libraries import Torchvision
from nasrun.testing import count_cost
from nasrun.values import Architecture, MapSize, Problem

IMAGENET = Problem(3, MapSize.square(224), 1000)


def network_of(model: str, problem: Problem = CIFAR, stem: str = "fit") -> nn.Module:
    space = TorchvisionModel(model=model, stem=stem)
    with torch.device("meta"):
        return space.network(Architecture(space.name, (0,)), problem, "final")


@pytest.mark.parametrize(
    ("model", "params", "macs"),
    [
        ("mobilenet_v2", 3_504_872, 300_774_272),
        pytest.param("resnet18", 11_689_512, 1_814_073_344, marks=pytest.mark.soak),
        pytest.param("vit_b_16", 86_567_656, None, marks=pytest.mark.soak),
        pytest.param("efficientnet_b0", 5_288_548, None, marks=pytest.mark.soak),
    ],
)
def test_published_sizes_on_imagenet(model: str, params: int, macs: int | None) -> None:
    """Those of torchvision's own documentation."""
    space = TorchvisionModel(model=model, stem="fit")
    (architecture,) = space.every()
    cost = space.cost(architecture, IMAGENET, "final")
    assert cost.params == params and macs in (None, cost.macs)


@pytest.mark.soak
@pytest.mark.parametrize("model", Torchvision().models())
def test_every_model_is_fitted_counted_or_refused(model: str) -> None:
    """On images of 32 pixels, and on grey ones of 64; all counts are those of torch."""
    for problem in (CIFAR, Problem(1, 64, 7)):
        space = TorchvisionModel(model=model, stem="fit")
        (architecture,) = space.every()
        try:
            cost = space.cost(architecture, problem, "final")
        except UserError as error:
            assert model.startswith(("maxvit", "vit_h_14", "inception"))
            assert "\n" not in str(error)
            continue
        with torch.device("meta"):
            network = space.network(architecture, problem, "final")
            assert count_cost(network, problem) == cost
            assert network.eval()(torch.empty(2, *problem.shape)).shape == (2, problem.classes)


def test_the_rule_for_small_images() -> None:
    """The halvings of the first layers are left out, in all branches; kernels stay."""
    sizes = {8: 2, 32: 2, 56: 2, 57: 1, 64: 1, 112: 1, 113: 0, 224: 0, 500: 0}
    assert {side: halvings_to_remove(MapSize.square(side)) for side in sizes} == sizes
    small, usual = network_of("resnet18"), network_of("resnet18", stem="published")
    assert small.model.conv1.stride == (1, 1) and isinstance(small.model.maxpool, nn.Identity)
    assert small.model.layer2[0].conv1.stride == usual.model.conv1.stride == (2, 2)
    assert small.model.conv1.kernel_size == usual.model.conv1.kernel_size == (7, 7)
    assert [p.shape for p in small.parameters()] == [p.shape for p in usual.parameters()]
    seen: list[tuple[int, ...]] = []
    small.model.layer4.register_forward_hook(lambda _, __, out: seen.append(tuple(out.shape[2:])))
    with torch.device("meta"):
        small.eval()(torch.empty(1, 3, 32, 32))
    assert seen == [(4, 4)]


@pytest.mark.soak
def test_both_branches_of_a_block_keep_their_size() -> None:
    medium = network_of("regnet_y_400mf", Problem(3, 64, 5))
    strides = [m.stride[0] for m in medium.modules() if isinstance(m, nn.Conv2d)]
    assert strides.count(2) == 4 * 2  # the stem's is left out; each stage has two branches


def test_auxiliary_heads_are_left_out_and_channels_fitted() -> None:
    network = network_of("googlenet", Problem(1, 64, 7)).train()
    assert not any(name.startswith("model.aux") for name, _ in network.named_parameters())
    with torch.device("meta"):
        out = network(torch.empty(4, 1, 64, 64))
    assert isinstance(out, torch.Tensor) and out.shape == (4, 7)


def test_dropout_follows_the_generator_of_the_step() -> None:
    """And nothing else is random: equal generators give equal outputs, whatever torch's seed is."""
    torch.manual_seed(0)
    space = TorchvisionModel(model="squeezenet1_1", stem="published")
    (architecture,) = space.every()
    network = space.network(architecture, CIFAR, "final").train()
    images, outs = torch.randn(2, 3, 32, 32), []
    for seed in (1, 1, 2):
        torch.manual_seed(int(torch.randint(1000, ())))
        generator = torch.Generator().manual_seed(seed)
        network.noise.begin_step(generator, progress=1.0, drop_path_keep=1.0, dropout_keep=1.0)
        outs.append(network(images))
    assert torch.equal(outs[0], outs[1]) and not torch.equal(outs[0], outs[2])
    network.noise.stop()
    assert torch.equal(network(images), network.eval()(images))


def test_unknown_models_and_small_images_are_refused() -> None:
    with pytest.raises(UserError, match=r"no such model .*did you mean 'resnet18'"):
        TorchvisionModel(model="resnet19", stem="fit")
    for name in (
        "quantized_resnet18",
        "fasterrcnn_resnet50_fpn",
        "raft_small",
        "../x",
        "resnet18 ",
    ):
        with pytest.raises(UserError, match="has no such model for classification"):
            TorchvisionModel(model=name, stem="fit")
    space = TorchvisionModel(model="vgg11", stem="fit")
    with pytest.raises(UserError, match=r"7×7 pixels are too small for vgg11 .*at least 8×8"):
        space.cost(Architecture(space.name, (0,)), Problem(3, 7, 5))
    space = TorchvisionModel(model="vit_b_16", stem="fit")  # which takes multiples of 16 pixels
    with pytest.raises(UserError, match=r"vit_b_16 of torchvision cannot be built for .* 40×40"):
        space.cost(Architecture(space.name, (0,)), Problem(3, 40, 5))


def test_timm_is_an_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    libraries._timm_models.cache_clear()
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(UserError, match=r"needs timm, .* pip install 'nasrun\[timm\]'"):
        TimmModel(model="resnet10t", stem="fit")


@pytest.mark.soak
@pytest.mark.parametrize("model", ["resnet10t", "mobilenetv3_small_050", "vit_tiny_patch16_224"])
def test_models_of_timm(model: str) -> None:
    pytest.importorskip("timm")
    space = TimmModel(model=model, stem="fit")
    (architecture,) = space.every()
    problem = Problem(1, 32, 7)
    cost = space.cost(architecture, problem, "final")
    with torch.device("meta"):  # where attention is made of products that torch counts
        assert count_cost(space.network(architecture, problem, "final"), problem) == cost
    network = space.network(architecture, problem, "final").eval()
    assert sum(p.numel() for p in network.parameters()) == cost.params
    assert network(torch.zeros(2, *problem.shape)).shape == (2, problem.classes)


@pytest.mark.soak
def test_a_contestant_is_retrained_used_and_exported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without an architecture on the line, and like any winner afterwards."""
    monkeypatch.chdir(tmp_path)
    words = ["search_space=torchvision", "effort=smoke", "threads=1"]
    assert main(["retrain", *words, "hydra.run.dir=run"]) == 0
    assert "shufflenet_v2_x0_5" in capsys.readouterr().out
    record = json.loads((tmp_path / "run" / "architecture.json").read_text())
    assert record == {"space": "torchvision/shufflenet_v2_x0_5", "choices": [0]}
    import nasrun

    model = nasrun.load(tmp_path / "run")
    assert model.network.model.conv1[0].in_channels == model.manifest.channels
    assert main(["export", "from=run", "export.images=4", "export.repeats=0"]) == 0
    assert main(["retrain", "from=run", "seed=1", "effort=smoke", "threads=1"]) == 0
    assert main(["search", *words]) == 2
    assert "is one network, so there is nothing to search" in capsys.readouterr().err
