"""Every option in conf/ keeps the public laws of its kind, and each law can be broken."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

CONF = Path(__file__).parents[1] / "conf"


def options(group: str) -> list[str]:
    """The options of a config group, a file each."""
    return sorted(path.stem for path in (CONF / group).glob("[!_]*.yaml"))


def built(group: str, *words: str) -> Any:
    """Build one part of a configuration of smoke size."""
    from nasrun.config.build import build
    from nasrun.config.compose import compose

    return build(compose(["task=search", "effort=smoke", *words])[group], group)


CASE_OF_SPACE = {
    "pnas_cell": ["search_space.blocks=2"],
    "nao_cell": ["search_space.nodes=2"],
    "darts_cell": ["search_space.nodes=2"],
    "general_cell": ["search_space.nodes=2"],
    "mbconv_mobilenet_v2": ["search_space.operations=[k3_e3,k5_e6]"],
}
"""Settings of the spaces whose laws take long; the soak has them at full size."""


LAWS_OF_SHAPES = ["costs_are_counted", "no_cost_exceeds_the_bound", "a_path_is_its_network"]
LAWS = {
    name: [*LAWS_OF_SHAPES, "only_the_path_is_trained"]
    for name in (
        *("spos_blocks_channels", "spos_channels", "spos_quantized"),
        *("mbconv_proxyless", "mbconv_proxyless_cpu", "mbconv_proxyless_gpu"),
    )
}
"""The laws of spaces that share most of their code with others; the soak has all of them."""


@pytest.mark.few(3)
@pytest.mark.parametrize("name", options("search_space"))
def test_spaces(name: str) -> None:
    if name == "timm":
        pytest.importorskip("timm")
    words = [f"search_space={name}", *CASE_OF_SPACE.get(name, [])]
    check_space_of(built("search_space", *words), LAWS.get(name, ()))


@pytest.mark.soak
@pytest.mark.parametrize("name", [*CASE_OF_SPACE, *LAWS])
def test_spaces_at_full_size(name: str) -> None:
    check_space_of(built("search_space", f"search_space={name}"))


def check_space_of(space: Any, laws: Sequence[str] = ()) -> None:
    """Check all laws, or some, on images of 32 pixels, and those of shapes on small grey ones."""
    from nasrun.streams import Streams
    from nasrun.testing import check_space
    from nasrun.values import Problem

    problem = Problem(3, 32, 5)
    check_space(space, problem, samples=1, only=laws)
    check_space(space, Problem(1, 9, 4), samples=1, seed=1, only=LAWS_OF_SHAPES)
    # The bounds are costs of architectures, so that sampling by rejection rejects few.
    for size in ("params", "macs") if space.additive else ():
        measure = space.sizer(size, problem)
        _, largest = space.extremes(measure, Streams(0))
        assert measure(largest) == getattr(space.cost_bound(problem), size)


@pytest.mark.few(4)
@pytest.mark.parametrize("name", options("dataset"))
def test_datasets(name: str, tmp_path: Path) -> None:
    from test_dataset_folder import draw

    from nasrun.testing import check_dataset

    words = [f"dataset={name}"]
    if name == "image_folder":  # the only one that takes one's own images in a smoke run
        words.append(f"dataset.root={draw(tmp_path / 'images', 12)}")
    check_dataset(built("dataset", *words))


@pytest.mark.few(4)
@pytest.mark.parametrize("name", options("sampler"))
@pytest.mark.parametrize("space", ["nas_bench_macro", "darts_cell", "one_shot_blocks"])
def test_samplers(name: str, space: str) -> None:
    """In a small space, one of rules of its own, and one of what is off or on."""
    from nasrun.testing import check_sampler
    from nasrun.values import Problem

    words = (f"sampler={name}", f"search_space={space}")
    sampler, chosen = built("sampler", *words), built("search_space", *words)
    check_sampler(sampler, chosen, Problem(1, 8, 4))


CASE_OF_ALGO = {
    # Its cost has to be above a million bit-operations.
    "dnas": ["search_space=spos_quantized", "search_space.final.width=1"],
    "dso": ["search_space=dso_block", "search_algo.lr=1.5"],
    "enas": ["search_space=nao_cell", "search_space.nodes=1"],
    "nao": ["search_space=nas_bench_macro", "search_algo.step_max=3"],
    "pnas": ["search_space=pnas_cell", "search_space.operations=small"],
    "single_path": ["search_space=mbconv_single_path"],
    "pc_darts": ["search_space=nas_bench_201"],
    "p_darts": [
        *("search_space=darts_cell", "search_space.nodes=1", "search_algo.cells=[3,3]"),
        *("search_algo.options=[5,3]", "search_algo.skip_dropout=[0.0,0.4]"),
    ],
    "drnas_stages": ["search_space=darts_cell", "search_space.nodes=1"],
}
"""Spaces and settings of the algorithms that the smallest space does not suit.

DSO-NAS removes edges, and ENAS samples inputs by attention; P-DARTS and NAO are slow otherwise.
"""


SLOW_ALGOS = {"bayesian"}
"""Algorithms whose laws only the soak checks: each of their states builds a model of Optuna's."""


@pytest.mark.few(2)
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.soak] * (name in SLOW_ALGOS))
        for name in options("search_algo")
    ],
)
def test_algos(name: str) -> None:
    from helpers import few_images

    from nasrun.testing import check_algo

    words = [f"search_algo={name}", *CASE_OF_ALGO.get(name, ["search_space=nas_bench_macro"])]
    check_algo(built("search_algo", *words), built("search_space", *words), few_images())


@pytest.mark.few(3)
@pytest.mark.parametrize("name", options("evaluator"))
def test_evaluators(name: str, tmp_path: Path) -> None:
    from helpers import few_images

    from nasrun.testing import check_evaluator

    table = tmp_path / "table.csv"
    table.write_text("arch,mean_acc\n00000000,45.5\n22212220,93.13\n01201201,70\n")
    words = [f"evaluator={name}", "search_space=nas_bench_macro"]
    words += [f"evaluator.path={table}"] * (name == "table")
    check_evaluator(built("evaluator", *words), built("search_space", *words), few_images())
