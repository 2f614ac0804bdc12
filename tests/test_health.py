"""The health report: counts, gradients and scores by hand, and nothing that it looks at changes."""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import CPU, space_of, splits
from processes import Processes, tensors

from nasrun.cli.main import main
from nasrun.run.run import CheckpointEvery, Run
from nasrun.run.state import pack, unpack
from nasrun.task.health import Health, HealthReport
from nasrun.trainer.option_stats import OptionCounts, OptionGradients
from nasrun.values import Decision, Problem

TASK = Problem(3, 32, 4)
SPACES = {
    "darts_cell": "edges",
    "dso_block": "outputs",
    "nao_cell": "branches",
    "nas_bench_201": "edges",
    "nas_bench_macro": "options",
    "one_shot_blocks": "operations",
    "spos_blocks": "options",
    "spos_blocks_channels": "options",
    "spos_channels": "",
    "spos_quantized": "",
}
"""The spaces, and a word in the names of the weights that belong to options; "": there are none."""

SEARCH = (
    *("search", "search_space=nas_bench_201", "sampler=fair", "search_algo=random"),
    *("search_algo.evaluations=2", "shortlist.count=0", "dataset=synthetic", "effort=smoke"),
    *("threads=1", "trainer.epochs=3", "health.every=1", "hydra.run.dir=run"),
)

RANK = (
    *("rank", "search_space=nas_bench_201", "sampler=fair", "dataset=synthetic", "effort=smoke"),
    *("rank.architectures.count=4", "rank.epochs=[2]", "trainer.epochs=3", "health.every=1"),
    *("threads=1", "hydra.run.dir=run"),
)


def through_json(state: dict[str, Any]) -> Any:
    tree, tensors = pack(state)
    return unpack(json.loads(json.dumps(tree)), tensors)


def test_counts_by_hand() -> None:
    decisions = [Decision("a/op", ("x", "y", "z")), Decision("b", ("off", "on"))]
    counts = OptionCounts(decisions)
    counts.add([(2, 0), (2, 1)])  # two passes of one step
    counts.add([({0: 0.5, 1: 0.0, 2: 0.5}, {1: 1.0})])
    counts.add([({0: torch.tensor(0.0), 1: torch.tensor(-0.1)}, {1: torch.tensor(0.0)})])
    counts.add([(0, {1: torch.tensor([0.0, 1.0]).view(2, 1, 1, 1)})])  # on for one image
    assert counts.passes == 5
    assert counts.counts == [[2, 1, 3], [1, 3]]
    for good in (False, True, False):  # a step that is undone on the device does not count
        counts.add([(0, 0)], torch.tensor(good))
    assert counts.passes == 6
    assert counts.counts == [[3, 1, 3], [2, 3]]
    again = OptionCounts(decisions)
    again.load_state_dict(through_json(counts.state_dict()))
    assert (again.passes, again.counts) == (counts.passes, counts.counts)
    with pytest.raises(ValueError, match="another search space"):
        OptionCounts(decisions[:1]).load_state_dict(counts.state_dict())


@pytest.mark.few(2)
@pytest.mark.parametrize("name", SPACES)
def test_weights_of_options_learn_where_their_options_are_open(name: str) -> None:
    space = space_of(name)
    torch.manual_seed(0)
    supernet = space.supernet(TASK)
    names = {id(weight): parameter for parameter, weight in supernet.named_parameters()}
    owners = {
        id(weight): places
        for module, places in supernet.option_modules()
        for weight in module.parameters()
    }
    if not SPACES[name]:
        assert not owners
        return
    own = {parameter for weight, parameter in names.items() if weight in owners}
    rest = set(names.values()) - own
    assert any(f".{SPACES[name]}." in parameter for parameter in own)
    assert any("classifier" in parameter or "head" in parameter for parameter in rest)
    rng = np.random.default_rng(1)
    for _ in range(3):
        path = space.sample(rng).choices
        supernet(torch.randn(4, 3, 32, 32), path).square().sum().backward()
        trained = {id(weight) for weight in supernet.parameters() if weight.grad is not None}
        for weight, places in owners.items():
            opened = all(path[decision] == option for decision, option in places)
            if weight in trained:
                assert opened, names[weight]
            elif opened and not space.binary and name != "nas_bench_201":
                # An edge or a block may lead nowhere; elsewhere what is open is computed.
                assert name in ("nao_cell", "darts_cell"), names[weight]
        supernet.zero_grad(set_to_none=True)


def test_shares_of_the_gradient_by_hand() -> None:
    space = space_of("nas_bench_macro")
    supernet = space.supernet(TASK)
    found = OptionGradients(space.decisions)
    found.begin(supernet)
    layers = supernet.layers
    first = next(layers[0].options["1"].parameters())  # type: ignore[union-attr,index]
    other = next(layers[3].options["2"].parameters())  # type: ignore[union-attr,index]
    shared = supernet.classifier.weight
    for parameter, value in ((first, 1.0), (other, 2.0), (shared, 3.0)):
        parameter.grad = torch.zeros_like(parameter)
        parameter.grad.view(-1)[0] = value  # squares 1, 4 and 9 of 14
    found.look()
    first.grad.view(-1)[0] = 0.0  # type: ignore[union-attr]
    other.grad = shared.grad = None
    found.look()  # nothing but zeros: no sample
    other.grad = torch.ones_like(other)
    found.look()
    found.look(torch.tensor(False))  # of a step that is undone
    sums = found.sums
    assert found.samples == 2
    assert sums[0] == pytest.approx([0.0, 1 / 14, 0.0])
    assert sums[3] == pytest.approx([0.0, 0.0, 4 / 14 + 1.0])
    assert sum(map(sum, sums)) == pytest.approx(5 / 14 + 1)
    again = OptionGradients(space.decisions)
    again.load_state_dict(through_json(found.state_dict()))
    assert again.sums == sums


def run(directory: str, *words: str) -> Path:
    assert main([*SEARCH[:-1], f"hydra.run.dir={directory}", *words]) == 0
    return Path(directory)


@pytest.mark.soak
def test_a_fair_sampler_is_fair_and_looking_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    watched = run("watched", "health.gradient_every=1")
    said = capsys.readouterr().out
    assert re.search(r"least op/\S+ 20\.0 %, most op/\S+ 20\.0 %", said)
    blind = run(
        *("blind", "health.every=0", "health.architectures=0", "health.gradient_every=0"),
    )
    for name in ("supernet.safetensors", "trials.jsonl"):
        assert (watched / name).read_bytes() == (blind / name).read_bytes()
    networks = [tensors(path / "network.safetensors") for path in (watched, blind)]
    assert networks[0] == networks[1]
    lines = [
        [
            line
            for line in (path / "metrics.jsonl").read_text().splitlines()
            if json.loads(line)["stage"] != "health"
        ]
        for path in (watched, blind)
    ]
    assert lines[0] == lines[1]
    found = json.loads((watched / "health.json").read_text())
    assert found["passes"] == 5 * found["gradient_samples"]  # five paths a step
    assert {
        row["trained"] for options in found["decisions"].values() for row in options.values()
    } == {found["passes"] // 5}
    for options in found["decisions"].values():
        assert options["none"]["gradient"] == options["skip_connect"]["gradient"] == 0
        assert 0 < options["nor_conv_3x3"]["gradient"] < 1
    assert list(found["scores"]) == ["0/1", "0/2", "0/3"]
    assert list(found["free_correlation"]) == ["0/1", "0/2", "0/3"]
    assert all(abs(one) <= 1 for one in found["free_correlation"].values() if one is not None)
    assert all(
        list(scores) == ["batch", "recalibrated", "inherited"] and len(scores["batch"]) == 2
        for scores in found["scores"].values()
    )
    assert len(found["architectures"]) == 2


@pytest.mark.soak
def test_rankings_are_looked_at_too_and_stay_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([*RANK]) == 0
    assert "mean score of the same 2 random architectures" in capsys.readouterr().out
    blind = ("health.every=0", "health.architectures=0", "health.gradient_every=0")
    assert main([*RANK[:-1], *blind, "hydra.run.dir=blind"]) == 0
    for name in ("supernet.safetensors", "ranking.csv", "trials.jsonl"):
        assert Path("run", name).read_bytes() == Path("blind", name).read_bytes()
    assert list(json.loads(Path("run/health.json").read_text())["scores"]) == ["0/1", "0/2", "0/3"]
    assert main(["rank", "from=run", "hydra.run.dir=again"]) == 0
    assert not Path("again/health.json").exists()  # it trained nothing


@pytest.mark.soak
@pytest.mark.parametrize("command", [SEARCH, RANK], ids=["search", "rank"])
def test_stopped_and_resumed_the_report_is_the_same(
    processes: Processes, tmp_path: Path, command: tuple[str, ...]
) -> None:
    places = [tmp_path / "whole", tmp_path / "stopped"]
    for place in places:
        place.mkdir()
    assert processes.run(places[0], *command).status == 0
    scoring = "score/round0" if command is SEARCH else "score/epoch3"
    for count, stage in ((11, "supernet/round0"), (2, scoring)):
        words = command if count == 11 else ("resume", "run")
        fault = ("signal_at", [signal.SIGTERM, "safe_point", stage, count])
        assert processes.run(places[1], *words, faults=[fault]).status == 143
    assert processes.run(places[1], "resume", "run").status == 0
    for name in ("health.json", "metrics.jsonl", "supernet.safetensors"):
        assert (places[0] / "run" / name).read_bytes() == (places[1] / "run" / name).read_bytes()


def test_gates_that_favour_skips_are_warned_of_once_and_not_too_early(tmp_path: Path) -> None:
    said: list[str] = []
    run = Run(
        tmp_path / "run",
        task="search",
        config={},
        overrides=[],
        seed=0,
        compute=CPU,
        checkpoint=CheckpointEvery(minutes=None, steps=None),
    )
    run.say = lambda line="", style=None: said.append(f"{style} {line}")  # type: ignore[method-assign]
    settings = Health(
        gradient_every=0,
        architectures=0,
        free_paths=0,
        every=2,
        images=2,
        recalibration_images=2,
        batch_size=2,
    )
    report = HealthReport(settings, space_of("nas_bench_201"), splits(), run)
    for progress, share in ((0.4, 1.0), (0.6, 0.75), (0.7, 0.8), (0.8, 0.9)):
        report.logged({"parameter_free": share}, progress)
    report.logged({}, 1.0)
    assert len(said) == 1
    assert said[0].startswith("yellow the search may have collapsed: 80 %")
    assert [settings.epochs(epochs) for epochs in (1, 2, 5)] == [[1], [2], [2, 4, 5]]


def test_settings_that_cannot_be(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SEARCH, "health.images=1"]) == 2
    assert "health.images = 1" in capsys.readouterr().err
    assert main([*SEARCH, "health.every=-1"]) == 2
    assert "health.every = -1" in capsys.readouterr().err
