"""Pictures of a ranking."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
from PIL import Image

from nasrun.metrics import Estimate
from nasrun.report.figures import Panel, plot_curves, plot_panels, plot_scatter, plot_spread
from nasrun.report.figures_search import Point, plot_front, plot_steps

TAU = Estimate(0.571, 0.551, 0.59)


def points(n: int) -> list[Any]:
    rng = np.random.default_rng(0)
    truth = 0.9 + 0.01 * rng.standard_normal(n)
    return [truth + 0.01 * rng.standard_normal(n), truth, rng.uniform(0.3, 3, n)]


def curve(shift: float, epochs: tuple[int, ...] = (5, 10, 50)) -> list[tuple[float, Estimate]]:
    return [(e, Estimate(v := shift + e / 200, v - 0.1, v + 0.05)) for e in epochs]


def check(files: list[Path], folder: Path, name: str) -> None:
    """A PNG of some colours, readable at column width, and an SVG."""
    assert files == [folder / f"{name}.png", folder / f"{name}.svg"]
    with Image.open(files[0]) as image:
        image.load()
        assert image.width >= 1000
        colors = image.convert("RGB").getcolors(1 << 24)
    assert colors is not None and len(colors) > 10
    assert ET.parse(files[1]).getroot().tag == "{http://www.w3.org/2000/svg}svg"  # noqa: S314


def texts(file: Path) -> str:
    """What the SVG says, which its comments hold: one for each text drawn as paths."""
    return file.read_text(encoding="utf-8")


def test_scatter(tmp_path: Path) -> None:
    folder = tmp_path / "figures"
    files = plot_scatter(*points(50), folder / "epoch.5", tau=TAU, title="uniform & $50_ epochs$")
    check(files, folder, "epoch.5")
    text = texts(files[1])
    assert "τ-b 0.571 (95%: 0.551 to 0.590), n = 50" in text
    assert "uniform &amp; $50_ epochs$" in text and "parameters (M)" in text
    assert "not shown" not in text


def test_scatter_of_a_whole_benchmark_stays_small(tmp_path: Path) -> None:
    scores, truth, size = points(6000)
    truth[:100] = 0.1
    files = plot_scatter(scores, truth, size, tmp_path / "all", tau=TAU)
    check(files, tmp_path, "all")
    assert "lower ones" in texts(files[1])
    assert all(file.stat().st_size < 500_000 for file in files)


@pytest.mark.parametrize("tau", [TAU, Estimate(0.5, float("nan"), float("nan"))])
def test_scatter_of_three_alike(tau: Estimate, tmp_path: Path) -> None:
    check(plot_scatter([1, 1, 2], [3, 3, 3], [5, 5, 5], tmp_path / "a", tau=tau), tmp_path, "a")
    text = texts(tmp_path / "a.svg")
    assert ("95%" in text) == (tau == TAU) and "nan" not in text


def test_curves(tmp_path: Path) -> None:
    names = ["uniform", "proportional", "fair", "sandwich", "size bins", "complexity-aware"]
    found = {name: curve(index / 20) for index, name in enumerate(names)}
    files = plot_curves(found, tmp_path / "tau", title="NAS-Bench-Macro")
    check(files, tmp_path, "tau")
    text = texts(files[1])
    assert all(name in text for name in [*names, "epoch", "Kendall's τ-b", "NAS-Bench-Macro"])
    assert text.count("stroke-dasharray") >= 5  # told apart without colours, too


def test_there_is_no_epoch_between_two_epochs(tmp_path: Path) -> None:
    points = [(epoch, Estimate(0.7, 0.7, 0.7)) for epoch in (1.0, 2.0)]
    said = re.findall("<!-- (.*) -->", texts(plot_curves({"a": points}, tmp_path / "tau")[1]))
    assert "1" in said and "2" in said and not [word for word in said if word.startswith("1.")]


@pytest.mark.parametrize(
    "found",
    [
        {},
        {"uniform": []},
        {"uniform": curve(0, (5,))},
        {"uniform": curve(0), "fair": [(5, Estimate(*[float("nan")] * 3))]},
    ],
)
def test_curves_of_little(found: dict[str, list[tuple[float, Estimate]]], tmp_path: Path) -> None:
    files = plot_curves(found, tmp_path / "tau", x="images", y="ρ")
    assert all(file.stat().st_size > 0 for file in files)


def steps_of(values: list[float]) -> list[Estimate]:
    return [Estimate(value, 0.5 * value, 2 * value) for value in values]


@pytest.mark.parametrize("values", [[90.0, 1.0, 0.01], [1.0, 0.0, 0.0], [0.0, 0.0], [3.0], []])
def test_steps_on_logarithmic_axes(
    values: list[float], tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    """Also down to 0, which has no logarithm."""
    for file in plot_steps({"regret": steps_of(values)}, tmp_path / "regret", y="regret"):
        assert file.stat().st_size > 3000
        assert b"mathdefault" not in file.read_bytes()
    assert not recwarn.list


def test_the_best_so_far_changes_at_evaluations_and_holds_in_between(tmp_path: Path) -> None:
    values = [8.0, 8.0, 5.0, 5.0, 5.0, 1.0, 1.0]
    files = plot_steps({"one": steps_of(values)}, tmp_path / "steps", y="regret (points)")
    check(files, tmp_path, "steps")
    (drawn,) = re.findall(r'<path d="([^"]*)" clip-path[^>]*stroke: #1f77b4', texts(files[1]))
    points = [(float(x), float(y)) for x, y in re.findall(r"[ML] ([\d.]+) ([\d.]+)", drawn)]
    for (x, y), (next_x, next_y) in pairwise(points):
        assert x == next_x or y == next_y
    assert len({y for _, y in points}) == 3  # as many as there are values


def test_names_stand_at_the_ends_of_curves_and_not_over_each_other(tmp_path: Path) -> None:
    found = {f"method {n}": steps_of([90.0, 3.0 + n / 1e3]) for n in range(6)}
    text = texts(plot_steps(found, tmp_path / "steps", y="regret")[1])
    heights = [
        float(re.search(rf"<!-- {name} -->\s*<g[^>]*translate\([\d.]+ ([\d.]+)\)", text)[1])  # type: ignore[index]
        for name in found
    ]
    assert all(abs(a - b) > 7 for a, b in combinations(heights, 2))
    long = {
        "a name that is much too long for the end of a curve": steps_of([2, 1]),
        "b": steps_of([1]),
    }
    files = plot_steps(long, tmp_path / "long", y="regret")
    check(files, tmp_path, "long")


FRONT = [
    Point({"macs": 28.1e6, "latency_ms": 1.5}, 0.91),
    Point({"macs": 12.5e6, "latency_ms": 1.2}, 0.88),
    Point({"macs": 12.4e6, "latency_ms": 1.1}, 0.879),
    Point({"macs": 7.25e6, "latency_ms": 2.0}, 0.60),
]


@pytest.mark.parametrize("goals", [["macs"], ["macs", "latency_ms"]])
def test_fronts_say_their_pick_numbers_and_units(goals: list[str], tmp_path: Path) -> None:
    front = [Point({goal: p.costs[goal] for goal in goals}, p.score) for p in FRONT]
    files = plot_front(front, front, tmp_path / "front", winner=front[1])
    check(files, tmp_path, "front")
    text = texts(files[1])
    said = re.findall("<!-- (.*) -->", text)
    assert "multiply-adds (M)" in said and ("latency (ms)" in said) == (len(goals) == 2)
    assert said.count("score in the search (%)") == 1 and "retrained" in said
    assert "1e7" not in text and "20" in said  # ticks in millions
    for pick in "03":
        assert pick in said
    assert said.count("1") >= 1


def test_picks_too_near_to_another_have_no_number(tmp_path: Path) -> None:
    crowd = [Point({"params": 1e6 + n}, 0.9 - n / 1e6) for n in range(50)]
    crowd.append(Point({"params": 2e5}, 0.2))
    said = re.findall("<!-- (.*) -->", texts(plot_front(crowd, crowd, tmp_path / "crowd")[1]))
    assert "0" in said and "50" in said and not {"1", "2", "30"} & set(said)
    assert "retrained" not in said


@pytest.mark.soak
def test_equal_inputs_give_equal_bytes_whatever_the_users_style(tmp_path: Path) -> None:
    def plot(folder: Path) -> list[bytes]:
        files = plot_scatter(*points(30), folder / "a", tau=TAU)
        files += plot_curves({"a": curve(0), "b": curve(0.1)}, folder / "b")
        return [file.read_bytes() for file in files]

    first = plot(tmp_path / "1")
    with matplotlib.rc_context({"font.size": 20, "lines.linewidth": 5, "svg.hashsalt": None}):
        before = dict(matplotlib.rcParams)
        assert plot(tmp_path / "2") == first
        assert dict(matplotlib.rcParams) == before


@pytest.mark.few(1)
@pytest.mark.parametrize("count", [1, 2, 5, 9])
def test_panels(count: int, tmp_path: Path) -> None:
    """As many as asked for, each with its words; none has a colour scale of its own."""
    found = [Panel(f"rate={index}", *points(20 + index), TAU) for index in range(count)]
    files = plot_panels(found, tmp_path / "panels", y="true accuracy", title="90 % intervals")
    check(files, tmp_path, "panels")
    text = texts(files[1])
    for index in range(count):
        assert f"<!-- rate={index} -->" in text
        assert f"τ-b 0.571 (0.551 to 0.590), n = {20 + index}" in " ".join(text.split("\n"))
    assert text.count("parameters (M)") == text.count("<!-- true accuracy -->") == 1
    assert "supernet accuracy" in text and "90 % intervals" in text


def test_panels_with_axes_of_their_own(tmp_path: Path) -> None:
    undefined = Estimate(*[float("nan")] * 3)
    found = [Panel("", [1, 1], [2, 2], [3, 3], undefined, y) for y in ("left", "right")]
    text = texts(plot_panels(found, tmp_path / "a", x="below")[1])
    assert all(f"<!-- {word} -->" in text for word in ("left", "right", "below"))


@pytest.mark.few(2)
@pytest.mark.parametrize(
    "values", [[0.5], [0.5, 0.5, 0.5], [0.1, 0.9], list(np.arange(3000) / 1e4)]
)
def test_spread(values: list[float], tmp_path: Path) -> None:
    groups = {"sampler.rate=0.01": values, "truth": [0.8, 0.81, 0.82]}
    files = plot_spread(groups, tmp_path / "spread", y="rate", apart=1)
    check(files, tmp_path, "spread")
    text = texts(files[1])
    assert "<!-- sampler.rate=0.01 -->" in text and "<!-- truth -->" in text
    assert "<!-- rate -->" in text
    assert "#1f77b4" in text and "#ff7f0e" in text  # two colours
    assert ("PolyCollection" in text) == (len(values) > 7)  # a box: only of enough values
    again = plot_spread(groups, tmp_path / "again", y="rate", apart=1)
    assert [path.read_bytes() for path in files] == [path.read_bytes() for path in again]
