"""darts_cell: its architectures, how they are written, and who keeps to genotypes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from networks import CIFAR, random_architectures
from test_darts_cell import (
    DARTS_V1,
    DARTS_V2,
    DIL3,
    MAX,
    NONE,
    SEP3,
    SEP5,
    SKIP,
    SPACE,
    any_edges,
    space,
)

from nasrun.budget.candidates import Bounds, Candidates
from nasrun.cli.main import main
from nasrun.config.build import build_setup
from nasrun.config.compose import compose
from nasrun.errors import UserError
from nasrun.run.monitor import NullMonitor
from nasrun.search_space.darts_cell.operations import OPERATION_NAMES
from nasrun.streams import Streams
from nasrun.values import Architecture, Cost, Trial


def is_genotype(architecture: Architecture) -> bool:
    """Counted anew, for four nodes: edges 0-1, 2-4, 5-8, 9-13 of each cell."""
    opened = [choice != NONE for choice in architecture.choices]
    return len(opened) == 28 and all(
        sum(opened[start + a : start + b]) == 2
        for start in (0, 14)
        for a, b in ((0, 2), (2, 5), (5, 9), (9, 14))
    )


def test_how_many_there_are():
    assert SPACE.size == (1 * 3 * 6 * 10 * 7**8) ** 2
    small = space(nodes=1)
    found = list(small.every())
    assert len(set(found)) == len(found) == small.size == 7**4
    assert all(NONE not in architecture.choices for architecture in found)
    assert [a.choices for a in found] == sorted(a.choices for a in found)
    two = space(nodes=2)
    assert two.size == (7**2 * 3 * 7**2) ** 2
    assert sum(1 for _ in two.variants(random_architectures(two, 1)[0], (2, 3, 4))) == 3 * 7**2


def test_random_architectures_are_genotypes_all_alike_often():
    drawn = random_architectures(SPACE, 3000)
    assert all(map(is_genotype, drawn)) and all(SPACE.check(a) == a for a in drawn)
    table = np.array([a.choices for a in drawn])
    opened = (table != NONE).mean(axis=0)
    expected = np.concatenate([[2 / n] * n for n in (2, 3, 4, 5)] * 2)
    assert np.abs(opened - expected).max() < 0.05
    options = np.bincount(table[table != NONE], minlength=8)[1:]
    assert np.abs(options / options.sum() - 1 / 7).max() < 0.01
    assert any(is_genotype(architecture) for architecture in any_edges(5)) is False


def test_repair_changes_no_more_than_it_must():
    rng = np.random.default_rng(0)
    for architecture in random_architectures(SPACE, 20):
        assert SPACE.repair(architecture, rng) == architecture
    for broken in any_edges(200):
        mended = SPACE.repair(broken, rng)
        assert is_genotype(mended)
        for group in SPACE.groups:
            before = {edge for edge in group if broken.choices[edge] != NONE}
            after = {edge for edge in group if mended.choices[edge] != NONE}
            assert before <= after or after <= before
            assert all(mended.choices[edge] == broken.choices[edge] for edge in before & after)
    sparse = Architecture(SPACE.name, (NONE,) * 28)
    assert len({SPACE.repair(sparse, rng) for _ in range(20)}) == 20
    full = Architecture(SPACE.name, (SEP3,) * 28)
    assert len({SPACE.repair(full, rng) for _ in range(20)}) > 15


def test_the_bound_is_the_largest_cost_and_extremes_are_exact():
    small = space(nodes=1)
    costs = [small.cost(architecture, CIFAR) for architecture in small.every()]
    sizes = [cost.params for cost in costs]
    assert small.cost_bound(CIFAR) == Cost(max(sizes), max(cost.macs for cost in costs))
    low, high = small.extremes(small.sizer("params", CIFAR), Streams(0))
    assert (small.cost(low, CIFAR).params, small.cost(high, CIFAR).params) == (
        min(sizes),
        max(sizes),
    )


def test_a_budget_draws_genotypes_within_it():
    measure = SPACE.sizer("params", CIFAR, "final")
    low, high = (measure(architecture) for architecture in SPACE.extremes(measure, Streams(0)))
    for share in (0.05, 0.6, 0.97):
        bound = Bounds("params", low + share * (high - low), low + (share + 0.02) * (high - low))
        candidates = Candidates(SPACE, [bound], {"params": measure})
        rng = np.random.default_rng(0)
        found = [candidates.sample(rng) for _ in range(10)]
        assert all(is_genotype(a) and bound.low <= measure(a) <= bound.high for a in found)
        assert len(set(found)) == 10
    with pytest.raises(UserError, match=r"the smallest params of darts_cell/4 is"):
        Candidates(SPACE, [Bounds("params", 0, low - 1)], {"params": measure})


@pytest.mark.few(2)
@pytest.mark.parametrize(
    "algorithm", ["random", "evolution", "regularized_evolution", "nsga2", "nao"]
)
def test_algorithms_ask_for_genotypes(algorithm):
    words = ["search_space=darts_cell", "effort=smoke", f"search_algo={algorithm}"]
    if algorithm == "nsga2":
        words.append("search_algo.goals=[params]")
    parts = build_setup(compose(["task=search", *words]))
    chosen = parts.search_space
    measures = {"params": chosen.sizer("params", CIFAR)}
    candidates = Candidates(chosen, (), measures)
    algo = parts.search_algo.bind(candidates, Streams(0), torch.device("cpu"))
    asked = []
    while algo.next_round(NullMonitor()) is not None:
        while architectures := algo.ask():
            asked += architectures
            score = {a: (sum(a.choices) % 50) / 50 for a in architectures}
            algo.tell([Trial(a, score[a], chosen.cost(a, CIFAR), 0) for a in architectures])
    assert len(asked) >= 6 and all(map(is_genotype, asked))


def test_genotypes_are_read_and_written():
    second = SPACE.parse(DARTS_V2)
    normal, reduce = second.choices[:14], second.choices[14:]
    assert normal[:5] == (SEP3, SEP3, SEP3, SEP3, NONE)
    assert normal[5:] == (SKIP, SEP3, NONE, NONE, SKIP, NONE, DIL3, NONE, NONE)
    assert reduce[:5] == (MAX, MAX, NONE, MAX, SKIP)
    assert reduce[5:] == (MAX, NONE, SKIP, NONE, NONE, MAX, SKIP, NONE, NONE)
    assert SPACE.write(second).startswith(
        "Genotype(normal=[('sep_conv_3x3', 0), ('sep_conv_3x3', 1), ('sep_conv_3x3', 0), "
    )
    assert SPACE.write(second).endswith("('skip_connect', 2)], reduce_concat=range(2, 6))")
    for architecture in random_architectures(SPACE, 100):
        text = SPACE.write(architecture)
        assert "\n" not in text and SPACE.parse(text) == SPACE.read(text) == architecture
        assert SPACE.parse(",".join(map(str, architecture.choices))) == architecture
    same = DARTS_V2.replace("range(2, 6)", "[2, 3, 4, 5]").replace("'", '"').replace(", ", ",")
    assert SPACE.parse(f"  PC_DARTS = {same}\n") == second
    assert SPACE.parse(DARTS_V1).choices[9:14] == (SEP3, 0, SKIP, 0, 0)
    three = space(nodes=3)
    for architecture in random_architectures(three, 20):
        assert three.parse(three.write(architecture)) == architecture


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "'dil_conv_3x3', 2",
            "'dil_conv_7x7', 2",
            r"normal, entry 8 .*no operation 'dil_conv_7x7'",
        ),
        ("'dil_conv_3x3', 2", "'none', 2", r"normal, entry 8 .*there is no operation 'none'"),
        ("'dil_conv_3x3', 2", "'dil_conv_3x3', 5", r"entry 8 .*node 3 cannot read 5: .* 0 to 4"),
        ("'dil_conv_3x3', 2", "'dil_conv_3x3', 0", r"node 3 reads 0 twice"),
        ("'dil_conv_3x3', 2", "'dil_conv_3x3', -1", r"normal: .*-1.* is no entry"),
        ("'dil_conv_3x3', 2", "'dil_conv_3x3', 2.0", r"is no entry"),
        ("('dil_conv_3x3', 2)", "['dil_conv_3x3', 2", r"is no entry"),
        ("('dil_conv_3x3', 2)", "print('x')", r"normal: \"print\('x'\)\" is no entry"),
        (", ('dil_conv_3x3', 2)", "", r"normal has 7 entries; two for each of 4 nodes are 8"),
        ("('dil_conv_3x3', 2)", "('dil_conv_3x3', 2), ('skip_connect', 0)", r"has 9 entries"),
        (
            "normal_concat=range(2, 6)",
            "normal_concat=range(3, 6)",
            r"normal_concat = range\(3, 6\)",
        ),
        ("reduce_concat=range(2, 6)", "reduce_concat=[4, 5, 6]", r"reduce_concat = \[4, 5, 6\]"),
        ("reduce_concat=range(2, 6)", "reduce_concat=range(0, 999999999)", "reduce_concat = range"),
        ("reduce_concat=range(2, 6)", "reduce_concat=range(x, 2, 6)", "reduce_concat = range"),
        (", reduce_concat=range(2, 6)", "", r"reduce_concat = range\(3, 6\)"),  # the loose ends
        ("normal_concat", "concat", "a genotype has no field 'concat'"),
        ("Genotype(", "__import__('os') or Genotype(", "is no genotype"),
        ("))", ")); x = 1", "is no genotype"),
        ("Genotype", "genotype", "list of integers"),
    ],
)
def test_nonsense_is_refused(old, new, message):
    broken = DARTS_V2.replace(old, new, 1) if old != "))" else DARTS_V2 + "; x = 1"
    assert broken != DARTS_V2
    for read in (SPACE.parse, SPACE.read):
        with pytest.raises(UserError, match=message) as caught:
            read(broken)
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


def test_hostile_genotypes_are_refused_at_once():
    for text in (
        "Genotype(" * 50_000,
        "Genotype(normal=[" + "(" * 50_000,
        "Genotype" + " " * 50_000,
    ):
        with pytest.raises(UserError, match=r"is no (genotype|entry)"):
            SPACE.parse(text)


def test_what_has_not_two_open_edges_is_no_architecture():
    choices = list(SPACE.parse(DARTS_V2).choices)
    choices[14 + 7] = NONE
    with pytest.raises(UserError, match="node 2 of the reduce cell has 1 open edges"):
        SPACE.check(Architecture(SPACE.name, tuple(choices)))
    choices[14 + 7], choices[2 + 2] = SKIP, SEP5
    three = Architecture(SPACE.name, tuple(choices))
    with pytest.raises(UserError, match="node 1 of the normal cell has 3 open edges"):
        SPACE.read(three.to_json())
    SPACE.network(three, CIFAR, "search")  # which a network can be, all the same
    with pytest.raises(UserError, match="has 28 decisions, this one has 27"):
        SPACE.check(Architecture(SPACE.name, tuple(choices[1:])))
    with pytest.raises(UserError, match=r"normal/node0/cell k-2/op = 8 is out of range: 0 to 7"):
        SPACE.check(Architecture(SPACE.name, (8, *choices[1:])))


def test_words():
    lines = SPACE.describe(SPACE.parse(DARTS_V2))
    assert lines[0] == "normal cell" and lines[6] == "reduction cell"
    assert lines[4] == "  node 3 = skip_connect(cell k-2) + dil_conv_3x3(node 0)"
    assert lines[5] == "  output = concat(node 0, node 1, node 2, node 3)"
    assert [decision.name for decision in SPACE.decisions][4:6] == [
        "normal/node1/node 0/op",
        "normal/node2/cell k-2/op",
    ]
    assert {decision.options for decision in SPACE.decisions} == {OPERATION_NAMES}
    empty = SPACE.describe(Architecture(SPACE.name, (NONE,) * 28))
    assert empty[1] == "  node 0 = zeros"


@pytest.mark.soak
def test_a_genotype_in_a_file_is_retrained(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    line = ["retrain", "search_space=darts_cell", "effort=smoke", "threads=1"]
    (tmp_path / "v1.txt").write_text(DARTS_V1)
    assert main([*line, "architecture=v1.txt"]) == 0
    assert f"architecture {SPACE.write(SPACE.parse(DARTS_V1))}" in " ".join(
        capsys.readouterr().out.split()
    )
    (tmp_path / "bad.txt").write_text(DARTS_V1.replace("'skip_connect', 2", "'skip_connect', 9"))
    assert main([*line, "architecture=bad.txt"]) == 2
    assert "bad.txt: normal, entry 8 ('skip_connect', 9): node 3 cannot" in capsys.readouterr().err
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\xfa")
    assert main([*line, "architecture=binary.txt"]) == 2
    assert "binary.txt is neither JSON nor text" in capsys.readouterr().err
