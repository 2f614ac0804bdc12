"""``nasrun show``, and what it shows: the graphs of every space, and the costs of its layers."""

from __future__ import annotations

import io
import json
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import space_of
from networks import CIFAR, random_architectures, search_spaces
from rich.console import Console

from nasrun.cli.main import main
from nasrun.config.compose import compose
from nasrun.report.figures_architecture import FORMATS
from nasrun.report.graph_layers import layered
from nasrun.report.graph_text import lines_of
from nasrun.report.layer_table import layer_rows, layer_table
from nasrun.search_space.layer import sum_costs
from nasrun.values import Architecture, Problem
from tests.test_graph_layout import check_layout

SPACES = search_spaces()
GENOTYPE = (
    "DARTS_V2 = Genotype(normal=[('sep_conv_3x3', 0), ('sep_conv_3x3', 1), ('sep_conv_3x3', 0), "
    "('sep_conv_3x3', 1), ('sep_conv_3x3', 1), ('skip_connect', 0), ('skip_connect', 0), "
    "('dil_conv_3x3', 2)], normal_concat=[2, 3, 4, 5], reduce=[('max_pool_3x3', 0), "
    "('max_pool_3x3', 1), ('skip_connect', 2), ('max_pool_3x3', 1), ('max_pool_3x3', 0), "
    "('skip_connect', 2), ('skip_connect', 2), ('max_pool_3x3', 1)], reduce_concat=[2, 3, 4, 5])"
)


def shown(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["show", *words]) == 0
    return capsys.readouterr().out


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["show", *words]) == 2
    error = capsys.readouterr().err
    assert error.startswith("nasrun: error: ") and error.count("\n") == 1
    return error


@pytest.mark.few(2)
@pytest.mark.parametrize("name", SPACES[::-1])
def test_the_rows_of_the_table_add_up_to_the_cost(name: str) -> None:
    space = space_of(name)
    for scale in ("search", "final"):
        for architecture in random_architectures(space, 2, seed=3):
            layers = space.layers(architecture, CIFAR, scale)
            rows = layer_rows(layers)
            assert sum(row.count for row in rows) == len(layers)
            assert len({row.name for row in rows}) == len(rows)
            assert rows[0].name == layers[0].name and rows[-1].name == layers[-1].name
            cost = space.cost(architecture, CIFAR, scale)
            assert sum_costs(row.cost for row in rows) == cost
            screen = io.StringIO()
            Console(width=80, file=screen).print(layer_table(rows))
            text = screen.getvalue()
            assert f"{cost.params:,}" in text and f"{cost.macs:,}" in text
            assert all(len(line) <= 80 for line in text.splitlines())


@pytest.mark.few(3)
@pytest.mark.parametrize("name", SPACES)
def test_every_space_has_graphs_that_can_be_laid_out(name: str) -> None:
    space = space_of(name)
    for architecture in random_architectures(space, 3, seed=5):
        panels = space.graphs(architecture, Problem(3, 64, 7))
        assert panels and all(graph.nodes and graph.edges for graph in panels.values())
        for graph in panels.values():
            check_layout(graph, layered(graph))
            assert all(lines_of(graph))


def shapes_in(labels: list[str]) -> list[tuple[int, ...]]:
    found = [re.search(r"\n(\d+)×(\d+)×(\d+)", label) for label in labels]
    return [tuple(map(int, match.groups())) for match in found if match]


@pytest.mark.few(2)
@pytest.mark.parametrize(
    ("name", "places"),
    [
        ("nas_bench_macro", ("stem", "layers.", "features")),
        ("spos_blocks", ("stem", "blocks.", "head.features")),
        ("spos_channels", ("stem", "blocks.", "head.features")),
        ("spos_quantized", ("stem", "blocks.")),
    ],
)
def test_shapes_in_labels_are_those_of_the_network(name: str, places: tuple[str, ...]) -> None:
    """Every module that a label stands for puts out what the label says."""
    space, problem = space_of(name), Problem(3, 32, 7)
    (architecture,) = random_architectures(space, 1)
    network = space.network(architecture, problem, "final").eval()
    seen: list[tuple[int, ...]] = []
    parts = [re.escape(place) + (r"\d+" if place.endswith(".") else "") for place in places]
    names = [n for n, _ in network.named_modules() if re.fullmatch("|".join(parts), n)]
    if name == "spos_quantized":  # a block has two layers
        inner = ("first", "second")
        names = ["stem", *(f"{n}.{part}" for n in names if n != "stem" for part in inner)]
    for module in names:
        network.get_submodule(module).register_forward_hook(
            lambda _, __, out: seen.append(tuple(out.shape[1:]))
        )
    with torch.inference_mode():
        network(torch.zeros(2, 3, 32, 32))
    graphs = space.graphs(architecture, problem)
    labels = [label for graph in graphs.values() for label in graph.nodes]
    assert labels[0] == "image\n3×32×32" and labels[-1] == "classifier\n7 classes"
    assert shapes_in(labels[1:]) == seen and len(seen) > 9


def test_a_published_genotype(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    picture = tmp_path / "cell.svg"
    text = shown(capsys, GENOTYPE, f"out={picture}", "experiment=darts_cifar10")
    assert "node 3 = skip connect(cell k-2) + dil conv 3×3(node 0)" in text
    assert "3,349,342" in text  # published: 3.3 M
    assert "darts_cell/4 at the final scale, for 3×32×32 images of 10 classes" in text
    assert ET.parse(picture).getroot().tag.endswith("svg")  # noqa: S314
    assert f"picture in {picture}" in text.replace("\n", "")


@pytest.mark.few(1)
@pytest.mark.parametrize("kind", FORMATS)
def test_pictures_by_suffix(kind: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    picture = tmp_path / f"cell.{kind}"
    shown(capsys, "012340", "search_space=nas_bench_201", f"out={picture}")
    data = picture.read_bytes()
    beginnings = {"png": b"\x89PNG", "svg": b"<svg", "mmd": b"flowchart", "dot": b"digraph"}
    assert data.startswith(beginnings[kind])


@pytest.mark.soak
@pytest.mark.parametrize("name", SPACES)
def test_what_a_space_writes_is_shown(
    name: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    space = space_of(name)
    (architecture,) = random_architectures(space, 1)
    written = space.write(architecture)
    as_text = shown(capsys, written, f"search_space={name}", "effort=smoke")
    file = tmp_path / "given.txt"
    file.write_text(written)
    assert shown(capsys, str(file), f"search_space={name}", "effort=smoke") == as_text
    file = tmp_path / "given.json"
    file.write_text(json.dumps(architecture.to_json()))
    assert shown(capsys, str(file), "effort=smoke") == as_text
    assert all(len(line) <= 80 for line in as_text.splitlines())


def run_of(folder: Path, *overrides: str, **files: object) -> Path:
    """A directory with what a search would leave there."""
    record = {"task": "search", "overrides": overrides, "config": compose(overrides)}
    for name, content in {"run": record, **files}.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


def test_a_run_is_shown_with_its_own_settings(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    words = ("search_space=nas_bench_201", "search_space.final.cells=2", "dataset=cifar100")
    winner, other = (Architecture("nas_bench_201", (n, 1, 2, 3, 4, 0)).to_json() for n in (0, 3))
    front = [{"architecture": winner}, {"architecture": other}]
    run = run_of(tmp_path, *words, architecture=winner, front=front)
    text = shown(capsys, str(run))
    assert text.startswith("012340\nnas_bench_201 at the final scale, for 3×32×32 images of 100")
    assert re.search(r"nor_conv_1x1 16 32 +2 ", text)
    assert shown(capsys, str(run / "architecture.json")) == text
    assert shown(capsys, str(run), "pick=1").startswith("312340")
    changed = shown(capsys, str(run), "search_space.final.cells=3", "dataset=digits")
    assert re.search(r"nor_conv_1x1 16 8 +3 ", changed) and "(digits)" in changed
    assert "pick=2" in refused(capsys, str(run), "pick=2")
    (run / "architecture.json").unlink()
    assert "architecture.json" in refused(capsys, str(run))


@pytest.mark.soak
def test_a_text_is_read_by_the_only_space_that_can(capsys: pytest.CaptureFixture[str]) -> None:
    assert "nas_bench_201 at" in shown(capsys, "012340")
    assert "nas_bench_macro at" in shown(capsys, "01201201")
    assert "spos_blocks at" in shown(capsys, "2" * 20)
    error = refused(capsys, ",".join("0123" * 5))
    assert "search_space=spos_blocks" in error and "search_space=spos_channels" in error
    error = refused(capsys, "nonsense")
    assert "no run of that name" in error and "no architecture of any search space" in error


def test_slips_are_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    nb201 = "search_space=nas_bench_201"
    assert "show takes one architecture" in refused(capsys)
    assert "show takes one architecture, not 2" in refused(capsys, "a", "b")
    assert "must end in .svg" in refused(capsys, "012340", nb201, "out=x.sgv")
    assert "no folder" in refused(capsys, "012340", nb201, f"out={tmp_path}/no/x.svg")
    assert "scale=big" in refused(capsys, "012340", nb201, "scale=big")
    assert "out of range" in refused(capsys, "012349", nb201)
    assert "did you mean 'nas_bench_201'" in refused(capsys, "012340", "search_space=nas_bench_20")
    assert "takes no switch -m" in refused(capsys, "-m", "012340", nb201)
    assert "add search_space=NAME" in refused(capsys, "012340", "search_space.final.cells=2")
    (tmp_path / "given.json").write_text(json.dumps(Architecture("darts_cel", (0,)).to_json()))
    assert "did you mean 'darts_cell'" in refused(capsys, str(tmp_path / "given.json"))
    (tmp_path / "empty").mkdir()
    assert "is no run" in refused(capsys, str(tmp_path / "empty"))


@pytest.mark.soak
def test_architectures_of_nothing_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    text = shown(capsys, "000000", "search_space=nas_bench_201")
    assert "zeros" in text
    nothing = "-".join("0" * size for block in range(4) for size in (2 + block, 7))
    assert "zeros" in shown(capsys, nothing, "search_space=one_shot_blocks")


@pytest.mark.soak
def test_a_fitted_width_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    code = "".join(map(str, np.random.default_rng(0).integers(4, size=20)))
    words = (code, "search_space=spos_blocks", "search_space.final.macs=5e6", "dataset=cifar10")
    total = re.search(r"total +([\d,]+) +([\d,]+)", shown(capsys, *words))
    assert total and 4e6 < int(total[2].replace(",", "")) <= 5e6
