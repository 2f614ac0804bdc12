"""Published architectures by name: their numbers, their list, and their use."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from nasrun.architectures.given import find_place, read_given
from nasrun.architectures.published import FOLDER, all_published, find_published, names
from nasrun.cli import arguments, commands
from nasrun.cli.given import with_given
from nasrun.cli.main import main, ready_overrides
from nasrun.config.build import build
from nasrun.config.compose import compose
from nasrun.errors import UserError
from nasrun.values import MapSize, Problem

ALL = all_published()


def amounts(said: str) -> dict[str, tuple[float, float]]:
    """Published numbers with half of their last digit: ``4.7 M, 574 M`` -> params, then macs."""
    found = {}
    for name, number in zip(("params", "macs"), re.findall(r"([\d.]+) M", said), strict=False):
        found[name] = (float(number), 0.5 * 10.0 ** -len(number.partition(".")[2]))
    return found


@pytest.mark.few(2)
@pytest.mark.parametrize("one", ALL, ids=names())
def test_published_networks_have_their_numbers(one) -> None:
    for network in one.networks:
        side = max(network.shape[1:])
        settings = one.settings(side)
        words = [f"{key}={value}" for key, value in settings.items()]
        space = build(compose(["task=search", *words])["search_space"], "search_space")
        architecture = space.read(one.architecture)
        assert space.write(architecture) == one.architecture
        channels, height, width = network.shape
        problem = Problem(channels, MapSize(height, width), network.classes)
        cost = space.cost(architecture, problem, "final")
        assert (cost.params, cost.macs) == (network.params, network.macs)
        gaps = [
            abs(getattr(network, name) / 1e6 - said) > error * 1.001
            for name, (said, error) in amounts(network.said).items()
        ]
        assert any(gaps) == bool(network.differs), network


def test_files_are_complete_and_names_differ() -> None:
    for path in FOLDER.glob("*.json"):
        content = json.loads(path.read_text())
        assert {"name", "about", "source", "space", "options", "architecture", "networks"} == set(
            content
        )
        assert find_published(path.stem) == find_published(content["name"])
        assert read_given(find_place(content["name"])).published.name == content["name"]
    assert len({name.lower().replace("-", "_") for name in names()}) == len(names()) >= 15


def test_the_list_fits_the_screen(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert all(len(line) <= 80 for line in lines)
    assert all(any(line.startswith(name) for line in lines) for name in names())


def test_words_lead_to_settings() -> None:
    words = with_given(["architecture=nasnet_a", "seed=1"], None)
    assert words == [
        "search_space=general_cell",
        "search_space.nodes=5",
        "search_space.edges=2",
        "search_space.final.cells=20",
        "search_space.final.channels=36",
        "architecture=nasnet_a",
        "seed=1",
    ]
    own = with_given(["architecture=NASNet-A", "search_space.final.cells=5"], None)
    assert "search_space.final.cells=20" not in own and "search_space.final.channels=36" in own
    large = with_given(["architecture=darts_v2", "dataset=imagenet"], None)
    assert large[:5] == [
        "search_space=darts_cell",
        "search_space.nodes=4",
        "search_space.stem=imagenet",
        "search_space.final.cells=14",
        "search_space.final.channels=48",
    ]
    recipe = ["architecture=darts_v2", "experiment=darts_imagenet"]
    assert with_given(recipe, None) == ["search_space.nodes=4", *recipe]
    assert (
        with_given(["architecture=darts_v2", "effort=smoke"], None)[0] == "search_space=darts_cell"
    )
    chosen = ["architecture=darts_v2", "search_space=darts_cell"]
    assert with_given(chosen, None) == chosen
    naonet = with_given(["architecture=naonet_v2", "effort=smoke"], None)
    assert naonet[:2] == ["search_space.operations=small", "search_space.nodes=5"]
    sweep = with_given(["architecture=darts_v1,darts_v2", "effort=smoke"], None)
    assert sweep[0] == "search_space=darts_cell"
    with pytest.raises(UserError, match="different search spaces"):
        with_given(["architecture=darts_v1,nasnet_a"], None)
    assert with_given(["architecture=nowhere"], None) == ["architecture=nowhere"]


def test_unknown_names_are_told_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["retrain", "architecture=darts_v3", "effort=smoke"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "did you mean 'DARTS_V" in error and "show --list" in error
    assert main(["show", "PDART"]) == 2
    assert "did you mean 'P-DARTS'" in capsys.readouterr().err


def test_an_architecture_in_another_space_is_told_its_own(
    capsys: pytest.CaptureFixture[str],
) -> None:
    own = "it is an architecture of search_space=mbconv_fbnet\n"
    for task in (["retrain", "architecture=FBNet-A"], ["show", "FBNet-A"]):
        assert main([*task, "search_space=nas_bench_201", "effort=smoke"]) == 2
        error = capsys.readouterr().err
        assert error.endswith(own) and error.count("\n") == 1
    assert main(["retrain", "architecture=NASNet-A", "search_space=darts_cell"]) == 2
    error = capsys.readouterr().err
    assert error.endswith("or search_space=general_cell has such cells\n")


def test_a_file_of_a_stranger_sets_nothing(tmp_path: Path) -> None:
    """Settings come from our own files alone; a copy elsewhere is no architecture."""
    copy = tmp_path / "mine.json"
    copy.write_text((FOLDER / "darts_v2.json").read_text().replace('"darts_cell"', '"x"'))
    found = read_given(find_place(str(copy)))
    assert found.published is None and found.settings == {"search_space": "x"}
    assert with_given([f"architecture={copy}"], None) == [f"architecture={copy}"]


def smoke_of(name: str, *words: str) -> list[str]:
    return ["retrain", f"architecture={name}", "effort=smoke", "threads=1", *words]


@pytest.mark.few(1)
@pytest.mark.parametrize("name", [one.name for one in ALL if one.space.startswith("mbconv")])
def test_a_smoke_keeps_the_decisions_of_a_published_architecture(name: str) -> None:
    """The smoke's own chains have five layers, in which no published network fits."""
    words = ready_overrides(arguments.split(smoke_of(name), commands.switches))
    space = build(compose(["task=retrain", *words])["search_space"], "search_space")
    found = space.read(find_published(name).architecture)
    assert space.cost(found, Problem(3, MapSize(8, 8), 10), "final").macs < 5e6
    own = compose(["task=retrain", *words[:1], "effort=smoke"])["search_space"]  # no such word
    assert len(build(own, "search_space").decisions) < len(space.decisions)


@pytest.mark.soak
@pytest.mark.parametrize("name", names())
def test_every_named_architecture_is_trained(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(smoke_of(name, "hydra.run.dir=run")) == 0
    assert json.loads((tmp_path / "run" / "result.json").read_text())["status"] == "done"


@pytest.mark.soak
def test_a_named_architecture_is_shown_planned_and_retrained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["show", "NASNet-A", "dataset=cifar10"]) == 0
    assert "3,830,950" in capsys.readouterr().out
    words = ["retrain", "architecture=nasnet_a", "effort=smoke", "threads=1", "hydra.run.dir=run"]
    assert main(words) == 0
    record = json.loads((tmp_path / "run" / "architecture.json").read_text())
    assert record["space"] == "general_cell/5x2"
    assert main(["retrain", "from=run", "effort=smoke", "threads=1"]) == 0
