"""The laws of the stand-in accelerator, and nasrun on it: no mistake, and how often it waits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from kills import RECIPES, differences, soak, words
from processes import Fault, Processes
from smokes import check_smoke
from stand_in import Ledger, MixedDevicesError, apart
from test_dataset_folder import draw
from waiting import waits_of

from nasrun.config.groups import task_of_recipe
from nasrun.streams import Streams

DEVICE = "sim:0"
WAITING: dict[str, Callable[[torch.Tensor], object]] = {
    "item": lambda x: x.sum().item(),
    "bool": lambda x: bool(x.sum()),
    "float": lambda x: float(x.sum()),
    "tolist": lambda x: x.tolist(),
    "cpu": lambda x: x.cpu(),
    "copy to the CPU": lambda x: torch.zeros(3).copy_(x),
    "nonzero": lambda x: x.nonzero(),
    "mask": lambda x: x[x > 0],
    "masked_select": lambda x: x.masked_select(x > 0),
    "equal": lambda x: torch.equal(x, x),
    "bincount": lambda x: torch.bincount(x.long()),
}
STAYING: dict[str, Callable[[torch.Tensor], object]] = {
    "sum": lambda x: x.sum(),
    "index": lambda x: x[torch.tensor([0, 1], device=DEVICE)],
    "where": lambda x: torch.where(x > 0, x, 0 * x),
    "number": lambda x: x * 2 + torch.tensor(1.0),
    "shape": lambda x: x.shape[0] + len(x),
    "finite": lambda x: x.isfinite().all(),
}


def test_what_waits_for_the_device_is_counted_once_and_nothing_else_is():
    def count(ledger: Ledger) -> dict[str, int]:
        found = {}
        for name, operation in {**WAITING, **STAYING}.items():
            x = torch.tensor([1.0, 2.0, 3.0], device=DEVICE)
            before = ledger.waited
            operation(x)
            found[name] = ledger.waited - before
        return found

    assert apart(count) == {**dict.fromkeys(WAITING, 1), **dict.fromkeys(STAYING, 0)}


def test_devices_do_not_mix():
    def mix(ledger: Ledger) -> None:
        x = torch.ones(3, device=DEVICE)
        assert x.device == torch.device(DEVICE) and x.cpu().device.type == "cpu"
        with pytest.raises(MixedDevicesError, match=r"aten.add.Tensor .* sim:0 and cpu"):
            x + torch.ones(3)
        with pytest.raises(MixedDevicesError, match="convolution"):
            F.conv2d(torch.ones(1, 1, 3, 3, device=DEVICE), torch.ones(1, 1, 1, 1))
        with pytest.raises((RuntimeError, TypeError), match="numpy"):
            x.numpy()
        on_cpu, on_device = (Streams(0).torch(each, device=each) for each in ("cpu", DEVICE))
        with pytest.raises(MixedDevicesError, match="generator of cpu"):
            torch.rand(3, device=DEVICE, generator=on_cpu)
        with pytest.raises(MixedDevicesError, match="generator of cpu"):
            x.bernoulli_(0.5, generator=on_cpu)
        torch.rand(3, device=DEVICE, generator=on_device)
        with pytest.raises(MixedDevicesError, match="on cpu with a generator of sim"):
            torch.rand(3, generator=on_device)

    apart(mix)


def test_copies_and_kernels_are_counted_by_line():
    def count(ledger: Ledger) -> list[int]:
        x = torch.ones(3).to(DEVICE)
        x.add_(torch.zeros(3).to(DEVICE))
        x.copy_(torch.ones(3))
        return [ledger.copies.total(), ledger.kernels.total(), ledger.waited, len(ledger.copies)]

    assert apart(count) == [3, 4, 0, 3]


def test_a_network_learns_on_it_what_it_learns_on_the_cpu():
    def learn(device: str) -> list[torch.Tensor]:
        torch.manual_seed(0)
        network = torch.nn.Sequential(
            torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.ReLU()
        )
        x = torch.randn(2, 3, 8, 8).to(device)
        network = network.to(device).to(memory_format=torch.channels_last)
        optimiser = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
        for _ in range(3):
            optimiser.zero_grad()
            network(x).square().mean().backward()
            optimiser.step()
        network.eval()
        with torch.inference_mode():
            out = network(x)
        return [out.cpu(), *(value.cpu() for value in network.state_dict().values())]

    def both(ledger: Ledger) -> list[bool]:
        pairs = zip(learn("cpu"), learn(DEVICE), strict=True)
        return [torch.equal(one, other) for one, other in pairs]

    same = apart(both)
    assert len(same) == 8 and all(same)


def test_an_lstm_gives_on_it_what_it_gives_on_the_cpu():
    """There it is one operation, whose derivative the stand-in has by hand."""

    def gradients(device: str) -> list[torch.Tensor]:
        torch.manual_seed(0)
        lstm = torch.nn.LSTM(3, 4)
        x = torch.randn(5, 2, 3).to(device).requires_grad_()
        out, (_, cell) = lstm.to(device)(x)
        (out.square().sum() + cell.sum()).backward()
        return [out.detach().cpu(), *(p.grad.cpu() for p in (x, *lstm.parameters()))]

    def both(ledger: Ledger) -> tuple[bool, int]:
        pairs = zip(gradients("cpu"), gradients(DEVICE), strict=True)
        return all(torch.allclose(*pair, atol=1e-6) for pair in pairs), len(ledger.own)

    assert apart(both) == (True, 2)


ON_IT: list[Fault] = [("on_stand_in", [])]

LARGER = dict.fromkeys(("shootout_nas_bench_macro", "regret_by_tau"), ("dataset.image_size=16",))
"""Smokes whose last maps would have one pixel. Such a map is in both memory formats at once, and
batch norm's derivatives take either, with other last bits."""


def assert_same_as_on_the_cpu(processes: Processes, place: Path, task: str, *line: str) -> None:
    """The run has no device mistake, and leaves the bytes that it leaves on the CPU.

    An LSTM (of NAO's predictor) is another operation on a device, with other last bits.
    """
    alike: list[Fault] = [("as_on_a_gpu", [])]
    on_cpu = processes.run(place / "cpu", *line, "device=cpu", faults=alike)
    assert on_cpu.status == 0, on_cpu.err
    own = place / "own.txt"
    faults: list[Fault] = [("on_stand_in", [str(own)])]
    on_it = processes.run(place / "sim", *line, "device=sim", faults=faults)
    check_smoke(on_it, place / "sim/run", task)
    if not own.read_text():
        assert list(differences(place / "cpu/run", place / "sim/run")) == []


@pytest.mark.soak
@pytest.mark.parametrize("recipe", RECIPES)
def test_recipes_run_on_it_as_on_the_cpu(recipe, processes, tmp_path):
    """Every stage of a smoke: training, its own stages, predictors, scores, retraining, results."""
    line = words(recipe, LARGER.get(recipe, ()))
    assert_same_as_on_the_cpu(processes, tmp_path, task_of_recipe(recipe), *line)


@pytest.mark.soak
def test_streamed_images_of_a_folder_come_to_it(processes, tmp_path):
    root = draw(tmp_path / "photos", 20)
    images = ["dataset=image_folder", f"dataset.root={root}", "dataset.resident_limit_mb=0"]
    images += ["dataset.image_size=16", "dataset.workers=1"]
    small = ["search_space=nas_bench_macro", "sampler=uniform", "search_algo=random"]
    line = ["search", *small, *images, "effort=smoke", "threads=1", "hydra.run.dir=run"]
    assert_same_as_on_the_cpu(processes, tmp_path, "search", *line)


@pytest.mark.soak
def test_latencies_are_measured_on_it(processes, tmp_path):
    line = words("spos_cifar10", ["budget.latency_ms.max=1e6"])
    done = processes.run(tmp_path, *line, "device=sim", faults=ON_IT)
    check_smoke(done, tmp_path / "run", "search")


@pytest.mark.soak
@pytest.mark.parametrize("run", ["p_darts_cifar10", "balanced_nao_cifar10", "rank_macro_small"])
def test_runs_on_it_are_killed_and_resumed_to_the_same_bits(run, processes, tmp_path):
    counts = soak(processes, run, 3, 0, tmp_path, "device=sim", faults=ON_IT)
    assert counts.resumes and not counts.differences, counts.differences


WAITS = {
    "bayesnas_cifar10": (1, 1, 1),  # when relevances are computed anew, the host asks what is left
    "darts_pt_cifar10": (500, 1, 1),  # in the last steps each option of a decision is scored
    "dso": (1, 1, 1),  # at each pruning the host asks what is left
    "drnas_stages_cifar10": (1, 1, 1),  # between two stages the host asks for the strongest
    "enas_cifar10": (6, 1, 1),  # after an epoch the controller scores six paths
    "gdas_cifar10": (2, 1, 1),  # the host asks for the path of the weights, and of the gates
    "oles_cifar10": (1, 1, 1),  # in a smoke, operations may be frozen after each step
    "p_darts_cifar10": (1, 1, 1),  # between two stages the host asks for the strongest
    "proxyless_cifar10": (2, 1, 1),  # once more where it first asks
    "small_dso_fashion_mnist": (1, 1, 1),
}
"""Waits for the device in a training step, for a line of metrics, and for a scored path, at most;
by recipe, or by the beginning of its name."""

OTHERS = (0, 1, 1)
"""Those of all other recipes."""


def most_waits(recipe: str) -> tuple[int, int, int]:
    return WAITS.get(recipe) or WAITS.get(recipe.partition("_")[0]) or OTHERS


def assert_waits(recipe: str, steps: int, *words: str) -> None:
    found = apart(lambda ledger: waits_of(recipe, ledger, steps, *words))
    waited = (found.step, found.line, found.trial)
    most = most_waits(recipe)
    assert all(one <= other for one, other in zip(waited, most, strict=True)), (waited, found.where)
    assert found.retrained == 0, found.where


@pytest.mark.soak
@pytest.mark.parametrize("recipe", RECIPES)
def test_recipes_wait_no_more_often_than_the_table_says(recipe):
    assert_waits(recipe, 6)


def test_recalibrated_paths_wait_once():
    """The statistics of each path are estimated anew, layer by layer."""
    assert_waits("rank_macro_small", 2, "evaluator.batch_norm=recalibrated")


@pytest.mark.soak
@pytest.mark.parametrize(("recipe", "step"), [("rank_macro_small", 0), ("darts_cifar10", 2)])
def test_steps_that_may_be_skipped_wait_for_learned_gates_alone(recipe, step):
    """Gates ask whether their step counts, and the weights'. What health notes is read later."""
    words = ("on_nonfinite=skip", "health=default")
    found = apart(lambda ledger: waits_of(recipe, ledger, 6, *words))
    assert (found.step, found.line, found.retrained, found.trial) == (step, 1, 0, 1), found.where
