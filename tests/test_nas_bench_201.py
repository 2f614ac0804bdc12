"""nas_bench_201: all published costs and classes, cells by hand, and which are alike."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import permutations, product
from typing import Any

import numpy as np
import pytest
import tables
import torch
import torch.nn.functional as F
from networks import (
    CIFAR,
    assert_latencies_add_up,
    assert_layers_make_up_networks,
)

from nasrun.errors import UserError
from nasrun.search_space.nas_bench_201 import NasBench201, Nb201Scale
from nasrun.search_space.nas_bench_201.cell import EDGES, OPERATION_NAMES, meaning
from nasrun.search_space.nas_bench_201.network import Cell
from nasrun.search_space.noise import Noise
from nasrun.testing import check_space
from nasrun.values import Architecture, Problem

TASKS = [CIFAR, Problem(1, 8, 10), Problem(1, 28, 10), Problem(3, 27, 7)]
SILENT = Noise()


def space(
    search: tuple[int, int] = (4, 1),
    final: tuple[int, int] = (6, 2),
    *,
    affine: bool = True,
    partial_channels: int = 1,
) -> NasBench201:
    return NasBench201(
        affine=affine,
        partial_channels=partial_channels,
        search=Nb201Scale(channels=search[0], cells=search[1]),
        final=Nb201Scale(channels=final[0], cells=final[1]),
    )


SPACE = space()


def test_all_published_costs_and_strings_are_met():
    """MFLOPs count multiply-adds of convolutions and of the linear layer, and its 10 biases."""
    published = space(search=(16, 5))
    rows = tables.rows(tables.NB201)
    assert len(rows) == 15_625
    for row in rows:
        architecture = published.parse(row["ops"])
        cost = published.cost(architecture, CIFAR)
        assert (cost.params, cost.macs + 10) == (
            int(row["params"]),
            round(float(row["mflops"]) * 1e6),
        )
        assert published.describe(architecture)[0] == row["arch_str"]
        assert published.parse(row["arch_str"]) == architecture


def published_form(choices: tuple[int, ...]) -> str:
    """The rule behind the published classes: by words, zeros written as a summand."""
    nodes = ["0"]
    for node in (1, 2, 3):
        terms = []
        for (target, source), choice in zip(EDGES, choices, strict=True):
            if target == node:
                name, inputs = OPERATION_NAMES[choice], nodes[source]
                zero = name == "none" or inputs == "#"
                terms.append(
                    "#" if zero else inputs if name == "skip_connect" else f"({inputs})@{name}"
                )
        nodes.append("+".join(sorted(terms)))
    return nodes[3]


def test_the_published_classes_follow_from_our_reading_of_a_cell():
    rows = tables.rows(tables.NB201)
    pairs = {(published_form(SPACE.parse(row["arch_str"]).choices), row["iso_idx"]) for row in rows}
    assert len(pairs) == len({form for form, _ in pairs}) == len({index for _, index in pairs})
    assert len(pairs) == 6466


def test_only_the_path_is_trained_and_of_it_only_what_leads_somewhere():
    supernet = SPACE.supernet(CIFAR)
    choices = SPACE.parse("332030").choices  # nothing reads node 2
    supernet(torch.randn(2, 3, 32, 32), choices).sum().backward()
    for stage in supernet.stages:
        for cell in stage:
            trained = {
                (edge, int(option))
                for edge, options in enumerate(cell.edges)
                for option, module in options.items()
                for parameter in module.parameters()
                if parameter.grad is not None
            }
            assert trained == {(0, 3), (4, 3)}


def cell(choices: str, channels: int = 2, *, affine: bool = True) -> Cell:
    return Cell(channels, [(int(choice),) for choice in choices], affine=affine)


def run(module: Cell, choices: str, x: torch.Tensor) -> torch.Tensor:
    return module(x, [int(choice) for choice in choices], SILENT, 1.0)


def test_partial_channels_by_hand():
    """Of four channels two are skipped through, and two go round; then they take turns."""
    module = Cell(4, [range(5)] * 6, affine=False, partial_channels=2).eval()
    x = torch.randn(3, 4, 6, 6)
    nothing: list[Any] = [0] * 6
    assert torch.equal(module(x, [0, 0, 0, 1, 0, 0], SILENT, 1.0), x[:, [0, 2, 1, 3]])
    assert torch.equal(module(x, nothing, SILENT, 1.0), torch.zeros_like(x))
    assert not module(x, [0, 0, 0, {0: 0.3}, 0, 0], SILENT, 1.0).any()
    gate = {0: 0.2, 1: torch.tensor(0.3), 4: 0.1}
    pooled = F.avg_pool2d(x[:, :2], 3, 1, 1, count_include_pad=False)
    expected = torch.cat([0.3 * x[:, :2] + 0.1 * pooled, 0.6 * x[:, 2:]], dim=1)[:, [0, 2, 1, 3]]
    torch.testing.assert_close(module(x, [0, 0, 0, gate, 0, 0], SILENT, 1.0), expected)
    whole = Cell(4, [range(5)] * 6, affine=False, partial_channels=1)
    halved = sum(p.numel() for p in module.parameters())
    assert sum(p.numel() for p in whole.parameters()) == 4 * halved
    with pytest.raises(UserError, match=r"partial_channels=3 does not divide .*channels=4"):
        space(partial_channels=3)


def test_a_supernet_of_partial_channels_keeps_the_laws():
    gates = ["gates_are_those_of_the_claims", "only_the_path_is_trained", "logits_are_finite"]
    check_space(space(partial_channels=2), Problem(3, 9, 10), only=gates)


@pytest.mark.parametrize(
    ("choices", "factor"),
    [("111111", 4), ("000100", 1), ("000000", 0), ("101001", 1), ("110011", 2), ("011110", 1)],
)
def test_cells_of_skips_by_hand(choices, factor):
    """Node 1 is x or 0, node 2 and node 3 sums of those before: the output is a multiple of x."""
    x = torch.randn(2, 2, 5, 5)
    assert torch.equal(run(cell(choices), choices, x), factor * x)
    constant = torch.full_like(x, 0.5)
    pooled = choices.replace("1", "4")  # of a constant the average is the constant, borders too
    torch.testing.assert_close(run(cell(pooled), pooled, constant), factor * constant)


def test_a_convolution_cell_by_hand():
    """out = conv(x) with one edge, and nothing else is computed."""
    module = cell("003300")
    edge = module.edges[3]["3"]
    x = torch.randn(4, 2, 6, 6)
    weight = edge[1].weight
    z = torch.nn.functional.conv2d(x.relu(), weight, padding=1)
    expected = torch.nn.functional.batch_norm(z, None, None, training=True)
    torch.testing.assert_close(run(module.train(), "003300", x), expected)


@pytest.mark.parametrize("affine", [True, False])
def test_a_cell_without_any_path_still_trains(affine):
    search_space = space(affine=affine)
    supernet = search_space.supernet(CIFAR).train()
    none = search_space.parse("000000")
    network = search_space.network(none, CIFAR, "final").train()
    for logits in (
        supernet(torch.randn(2, 3, 32, 32), none.choices),
        network(torch.rand(2, 3, 32, 32)),
    ):
        assert logits.isfinite().all() and torch.equal(logits[0], logits[1])
        torch.nn.functional.cross_entropy(logits, torch.tensor([1, 2])).backward()
    for module in (supernet, network):
        assert module.classifier.bias.grad.abs().sum() > 0
        assert module.stem[0].weight.grad is None


def test_without_affine_only_the_operations_lose_it():
    search_space = space(affine=False)
    supernet = search_space.supernet(CIFAR)
    assert not any(p.dim() == 1 for p in supernet.stages.parameters())
    fixed = [supernet.stem, supernet.reductions, supernet.head]
    network = search_space.network(Architecture("nas_bench_201", (3,) * 6), CIFAR, "final")
    for part in (*fixed, network):
        norms = [m for m in part.modules() if isinstance(m, torch.nn.BatchNorm2d)]
        assert norms and all(norm.affine for norm in norms)


def exact_form(choices: tuple[int, ...]) -> str:
    """A cell's output with its convolutions numbered, the smallest over all ways to number them.

    Two cells are the same function if and only if some numbering makes them the same.
    """

    def nodes(numbers):
        made, texts = [("x",)], {}
        for node in (1, 2, 3):
            terms = []
            for edge, ((target, source), choice) in enumerate(zip(EDGES, choices, strict=True)):
                if target != node or choice == 0 or (choice in (1, 4) and not made[source]):
                    continue
                if choice == 1:
                    terms += made[source]
                    continue
                number = numbers.get(edge, 0)
                terms.append(f"{choice}{f'#{number}' if number else ''}({'+'.join(made[source])})")
                texts[edge] = terms[-1]
            made.append(tuple(sorted(terms)))
        return "+".join(made[3]), texts

    _, texts = nodes({})
    same: dict[str, list[int]] = {}  # only convolutions of one text can be taken for each other
    for edge, choice in enumerate(choices):
        if choice in (2, 3):
            same.setdefault(texts[edge], []).append(edge)
    numberings = product(*(permutations(edges) for edges in same.values()))
    return min(
        nodes({edge: place for edges in numbering for place, edge in enumerate(edges, 1)})[0]
        for numbering in numberings
    )


def test_meanings_are_equal_exactly_where_the_functions_are():
    """Over the whole space, against the exhaustive comparison."""
    pairs = {(meaning(a.choices), exact_form(a.choices)) for a in SPACE.every()}
    assert len({ours for ours, _ in pairs}) == len({exact for _, exact in pairs}) == len(pairs)
    assert len(pairs) == 5875


@pytest.mark.parametrize(
    ("one", "other", "alike"),
    [
        ("300010", "000300", True),  # a convolution, then a skip
        ("230001", "320010", True),  # the other convolution leads nowhere
        ("333000", "000000", True),  # nothing leads to the output
        ("000040", "000000", True),  # an average of nothing is nothing
        ("000020", "000000", False),  # a convolution of nothing is the shift of its batch norm
        ("301011", "300310", False),  # one convolution twice, two of different weights
        ("200000", "200300", False),
    ],
)
def test_which_cells_are_alike(one, other, alike):
    forms = [SPACE.canonical(SPACE.parse(text)) for text in (one, other)]
    assert (forms[0] == forms[1]) == alike


def outputs(architecture: Architecture, source: Cell, x: torch.Tensor) -> Iterator[torch.Tensor]:
    """The cell's outputs under all assignments of the convolutions of ``source`` to its own."""
    module = cell(SPACE.write(architecture)).double()
    own = [edge for edge, choice in enumerate(architecture.choices) if choice in (2, 3)]
    given = [edge for edge in range(6) if any(True for _ in source.edges[edge].parameters())]
    for chosen in permutations(given, len(own)):
        pairs = [
            (module.edges[to], source.edges[edge]) for edge, to in zip(chosen, own, strict=True)
        ]
        if all(to.keys() == edge.keys() for to, edge in pairs):
            for to, edge in pairs:
                to.load_state_dict(edge.state_dict())
            yield run(module, SPACE.write(architecture), x)


def test_canonical_forms_compute_the_same():
    """Some assignment of the convolutions' weights makes both the same function."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    x = torch.randn(2, 2, 6, 6, dtype=torch.float64)
    tried = 0
    while tried < 12:
        architecture = SPACE.sample(rng)
        form = SPACE.canonical(architecture)
        convolutions = [choice for choice in architecture.choices if choice in (2, 3)]
        if form == architecture or not 1 <= len(convolutions) <= 4:
            continue
        tried += 1
        assert SPACE.canonical(form) == form
        module = cell(SPACE.write(architecture)).double()
        for norm in module.modules():
            if isinstance(norm, torch.nn.BatchNorm2d):
                torch.nn.init.normal_(norm.weight)
                torch.nn.init.normal_(norm.bias)
        expected = run(module, SPACE.write(architecture), x)
        assert any(torch.allclose(out, expected) for out in outputs(form, module, x))


def test_equivalents_are_alike_and_depend_on_the_generator():
    architecture = SPACE.parse("300010")
    found = {SPACE.equivalent(architecture, np.random.default_rng(seed)) for seed in range(30)}
    assert len(found) > 3
    assert {SPACE.canonical(other) for other in found} == {SPACE.canonical(architecture)}
    again = SPACE.equivalent(architecture, np.random.default_rng(1))
    assert again == SPACE.equivalent(architecture, np.random.default_rng(1))


STRING = "|nor_conv_3x3~0|+|none~0|skip_connect~1|+|avg_pool_3x3~0|nor_conv_1x1~1|none~2|"


def test_the_published_notation():
    architecture = SPACE.parse(STRING)
    assert SPACE.write(architecture) == "301420"
    assert SPACE.read(STRING) == SPACE.read("301420") == architecture
    assert SPACE.describe(architecture) == [
        STRING,
        "  node 1 = nor_conv_3x3(input)",
        "  node 2 = skip_connect(node 1)",
        "  output = avg_pool_3x3(input) + nor_conv_1x1(node 1)",
    ]
    assert SPACE.describe(SPACE.parse("000000"))[-1] == "  output = zeros"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("30142", "has 6 decisions, this one has 5"),
        ("301425", "from2/op = 5 is out of range: 0 to 4"),
        ("30142x", "list of integers"),
        (STRING[:-1], "is no cell of nas_bench_201; one is written"),
        (STRING.replace("none~2", "none~1"), "is no cell"),
        (STRING.replace("none", "zero"), "is no cell"),
        (STRING + "~", "is no cell"),
    ],
)
def test_strange_words_are_refused(text, message):
    for read in (SPACE.parse, SPACE.read):
        with pytest.raises(UserError, match=message):
            read(text)


def test_layers_make_up_the_network():
    assert_layers_make_up_networks(SPACE, TASKS)
    assert_latencies_add_up(SPACE)


def test_edges_without_an_operation_have_no_piece():
    one = [layer.name for layer in SPACE.layers(SPACE.parse("003001"), CIFAR, "final")]
    assert one == [
        "nas_bench_201/stem 3-6 32",
        *["nas_bench_201/nor_conv_3x3 6 32", "nas_bench_201/skip_connect 6 32"] * 2,
        "nas_bench_201/reduction 6-12 32",
        *["nas_bench_201/nor_conv_3x3 12 16", "nas_bench_201/skip_connect 12 16"] * 2,
        "nas_bench_201/reduction 12-24 16",
        *["nas_bench_201/nor_conv_3x3 24 8", "nas_bench_201/skip_connect 24 8"] * 2,
        "nas_bench_201/head 24-10 8",
    ]
