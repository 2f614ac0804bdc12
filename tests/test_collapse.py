"""The collapse watch: how much of an architecture has no parameters, and the warning over it."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from helpers import space_of

from nasrun.cli.main import main
from nasrun.search_space.base import SearchSpace
from nasrun.task.health import warn_of_youth
from nasrun.values import Architecture, Problem

SPACES = (
    *("darts_cell", "dso_block", "nao_cell", "nas_bench_201", "nas_bench_macro"),
    *("one_shot_blocks", "spos_blocks", "spos_channels", "spos_quantized"),
)


def with_open(space: SearchSpace, *names: str) -> Architecture:
    """The architecture of a binary space in which those decisions are on."""
    places = [decision.name for decision in space.decisions]
    assert set(names) <= set(places)
    return Architecture(space.name, tuple(int(name in names) for name in places))


def test_nas_bench_201_by_hand() -> None:
    space = space_of("nas_bench_201")
    # none, skip and pooling are free; both convolutions are not
    for written, share in (("012340", 4 / 6), ("111111", 1.0), ("222333", 0.0), ("400000", 1.0)):
        assert space.free_share(space.parse(written)) == pytest.approx(share)


def test_nas_bench_macro_and_nao_cell_by_hand() -> None:
    macro = space_of("nas_bench_macro")
    assert macro.free_share(macro.parse("01200120")) == 0.5
    nao = space_of("nao_cell")
    free = {"avg_pool_3x3", "max_pool_3x3", "identity"}
    choices = [0] * len(nao.decisions)
    operations = [i for i, decision in enumerate(nao.decisions) if decision.kind == "op"]
    for place, option in zip(operations, (2, 3, 4), strict=False):
        assert nao.decisions[place].options[option] in free
        choices[place] = option
    assert nao.free_share(Architecture(nao.name, tuple(choices))) == 3 / len(operations)


def test_of_darts_cell_the_closed_edges_do_not_count() -> None:
    space = space_of("darts_cell")
    weights = [[0.0] * 8 for _ in space.decisions]
    for row in weights:
        row[3] = 1.0
    assert space.free_share(space.strongest(weights)) == 1.0
    half = len(space.decisions) // 2
    for row in weights[half:]:  # separable convolutions in the reduction cell
        row[3], row[4] = 0.0, 1.0
    assert space.free_share(space.strongest(weights)) == 0.5


def test_of_binary_spaces_what_is_on_counts() -> None:
    blocks = space_of("one_shot_blocks")
    found = with_open(
        *(blocks, "block0/input/cell k-1", "block0/op/identity", "block0/op/sep_conv_3x3"),
        *("block0/op/max_pool_3x3", "block0/op/avg_pool_3x3"),
        "block1/op/sep_conv_7x7",  # a block without an input is off
    )
    assert blocks.free_share(found) == 3 / 4
    dso = space_of("dso_block", "search_space.share=true")
    pool, conv = "block/output/level1.max_pool_3x3", "block/output/level1.sep_conv_3x3"
    assert dso.free_share(with_open(dso, pool)) == 1.0
    assert dso.free_share(with_open(dso, pool, conv)) == 0.5
    assert dso.free_share(with_open(dso)) == 0.0  # nothing is left


@pytest.mark.few(4)
@pytest.mark.parametrize("name", SPACES)
def test_the_share_is_that_of_operations_without_parameters(name: str) -> None:
    space, rng = space_of(name), np.random.default_rng(0)
    shares = [space.free_share(space.sample(rng)) for _ in range(20)]
    assert all(0 <= share <= 1 for share in shares)
    assert any(shares) != name.startswith("spos")  # which have no such operation


def test_a_young_supernet_is_warned_of_with_its_correlation() -> None:
    said: list[str] = []
    run = SimpleNamespace(say=lambda line, style: said.append(line))
    assert warn_of_youth(run, -0.29, 60)  # type: ignore[arg-type]
    assert "(correlation -0.29)" in said[0] and "search_algo.rest=until_ready" in said[0]
    for correlation, paths in ((-0.2, 60), (0.3, 60), (-0.9, 19)):  # chance, ready, too few
        assert not warn_of_youth(run, correlation, paths)  # type: ignore[arg-type]
    assert len(said) == 1


@pytest.mark.soak
def test_a_winner_of_skips_alone_is_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = [
        *("search", "search_space=nas_bench_201", "sampler=uniform", "search_algo=random"),
        *("evaluator=size", "dataset=synthetic", "effort=smoke", "shortlist.count=0"),
    ]
    assert main([*words, "hydra.run.dir=large"]) == 0
    assert "collapsed" not in capsys.readouterr().out
    space = space_of("nas_bench_201")
    found = json.loads(Path("large/result.json").read_text())
    share = space.free_share(Architecture.from_json(found["architecture"]))
    assert found["parameter_free"] == share
    lines = Path("large/metrics.jsonl").read_text().splitlines()
    scored = [json.loads(line) for line in lines if '"score/' in line]
    assert scored[-1]["parameter_free"] == share
    # No other network is as small as that of skips but those without any convolution.
    least = space.cost(space.parse("111111"), Problem(3, 8, 4), "final").params
    assert main([*words, f"budget.params.max={least}"]) == 0
    said = capsys.readouterr().out
    assert "parameter-free share 100 %" in said
    assert said.count("the search may have collapsed: 100 %") == 1  # before the retraining
    assert "gates" not in said  # random search has none to be stopped earlier
