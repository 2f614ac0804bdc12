"""Genotypes in all dialects: read, refused, written again, and counted where numbers are known."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from networks import CIFAR, counted, random_architectures
from test_darts_cell import DARTS_V2, PUBLISHED

from nasrun.architectures.given import Place, chosen, given, read_given, settings_of
from nasrun.cli.main import main
from nasrun.errors import UserError
from nasrun.search_space.darts_cell import DartsScale
from nasrun.search_space.darts_cell.operations import OPERATION_NAMES as OF_DARTS
from nasrun.search_space.general_cell import GeneralCell
from nasrun.search_space.general_cell.operations import OPERATION_NAMES
from nasrun.search_space.genotype import Found, Genotype, find_genotypes, read_genotype
from nasrun.search_space.literals import Call, read_literal
from nasrun.values import Architecture

FILE = Path(__file__).parent / "public_genotypes.txt"
TEXT = FILE.read_text()
FOUND = {one.name: one for one in find_genotypes(TEXT)}
UNKNOWN = ("EEEA",)
"""Genotypes with operations that no space has."""


def space(nodes: int = 5, edges: int = 2, *, cells: int = 20, channels: int = 36) -> GeneralCell:
    scale = DartsScale(cells=cells, channels=channels)
    return GeneralCell(nodes=nodes, edges=edges, stem="small", search=scale, final=scale)


def space_for(genotype: Genotype, **scale: int) -> GeneralCell:
    """The smallest general space of a genotype."""
    nodes = max(len(cell.nodes) for cell in genotype.cells)
    edges = max(len(node) for cell in genotype.cells for node in cell.nodes)
    return space(nodes, edges, **scale)


def plain(genotype: Genotype) -> list[object]:
    """Entries without their places, and outputs."""
    return [
        [[(e.operation, e.state) for e in n] for n in c.nodes] + [c.concat] for c in genotype.cells
    ]


def test_all_public_genotypes_are_read_and_come_back() -> None:
    assert len(FOUND) == 33 and "commented_out" not in str(FOUND)
    for name, one in FOUND.items():
        if name not in ("DARTS", "PCDARTS", "output"):  # other names of those that stand above
            assert TEXT.splitlines()[one.line - 1].startswith(f"{name} = ")
        again = read_genotype(one.genotype.write())
        assert plain(again) == plain(one.genotype)
        if name in UNKNOWN:
            continue
        own = space_for(one.genotype)
        architecture = own.of_genotype(one.genotype)
        assert own.parse(own.write(architecture)) == own.read(architecture.to_json())
        (loaded,) = find_genotypes(own.write(architecture))
        assert own.of_genotype(loaded.genotype) == architecture


def test_dialects_of_one_architecture_are_one() -> None:
    ours = PUBLISHED.parse(DARTS_V2)
    for name in ("DARTS", "DARTS_V2", "DARTS_V2_of_AutoDL"):
        assert PUBLISHED.of_genotype(FOUND[name].genotype) == ours
    (first, second) = (
        "normal=[('sep_conv_3x3', 0), ('none', 1)]",
        "reduce=[('zero', 1), ('identity', 0)]",
    )
    same = (
        f"Genotype({first}, normal_concat=range(2, 3), {second}, reduce_concat=[2])",
        f"Genotype({second}, reduce_concat=(2,), {first})",
        "Genotype([('sep_3x3', 0), ('none', 1)], [2], [('zero', 1), ('identity', 0)], range(2, 3))",
        "Genotype(normal=[[('sep_conv_3x3', 0, 0.2), ('none', 1, 1e-3)]], normal_concat=[2], # no\n"
        " reduce=[(('none', 1), ('skip_connect', 0))], reduce_concat=2, connects=None,)",
        "Genotype(normal=[('sep_conv_3x3', 2, 0), ('none', 2, 1)], "
        "reduce=[('none', 2, 1), ('skip_connect', 2, 0)])",
    )
    found = {str(plain(read_genotype(text))) for text in same}
    assert len(found) == 1
    fields = {
        "normal": [["sep_conv_3x3", 0], ["none", 1]],
        "reduce": [["none", 1], ["identity", 0]],
    }
    one = space(1)
    assert one.read(fields) == one.parse(same[0])
    assert one.write(one.read(fields)) == (
        "Genotype(normal=[('sep_conv_3x3', 0), ('none', 1)], normal_concat=range(2, 3), "
        "reduce=[('none', 1), ('skip_connect', 0)], reduce_concat=range(2, 3))"
    )


SAID = {
    "ENASNet": (4.02, 627, 0),
    "GDAS_V1": (3.36, 519, 0),
    "MdeNAS": (3.78, 599, 0),
    "PC_DARTS_cifar": (3.63, 558, 0),
    "PDARTS": (3.43, 532, 0),
    "SNAS": (2.66, 422, 0),
    "FairDARTS_a": (2.83, 373, 1),
    "FairDARTS_b": (3.88, 536, 1),
    "FairDARTS_c": (2.59, 400, 0),
    "FairDARTS_d": (3.84, 532, 1),
    "FairDARTS_e": (3.12, 414, 1),
    "FairDARTS_f": (3.62, 497, 1),
    "FairDARTS_g": (3.375, 453, 1),
    "DCO_SPARSE_BS_64": (3.01, 469, 0),
}
"""Millions of parameters and of multiply-adds beside the genotypes in Fair DARTS' released code;
in some the auxiliary head is counted, too."""


def auxiliary_params(channels: int) -> int:
    """1×1 to 128, 2×2 to 768, ten classes, batch norms."""
    return channels * 128 + 2 * 128 + 128 * 768 * 4 + 2 * 768 + 768 * 10 + 10


def test_nasnet_has_the_numbers_of_its_network() -> None:
    """NASNet's cells in DARTS' network, counted by hand."""
    nasnet = space().of_genotype(FOUND["NASNet"].genotype)
    cost = space().cost(nasnet, CIFAR, "final")
    assert (cost.params, cost.macs) == (3_830_950, 603_452_448)


@pytest.mark.few(2)
@pytest.mark.parametrize("name", SAID)
def test_numbers_that_stand_beside_genotypes(name: str) -> None:
    params, macs, head = SAID[name]
    genotype = FOUND[name].genotype
    own = space_for(genotype)
    cost = own.cost(own.of_genotype(genotype), CIFAR, "final")
    auxiliary = head * auxiliary_params(144 * len(genotype.reduce.concat))
    assert (cost.params + auxiliary) / 1e6 == pytest.approx(params, abs=0.011)
    assert cost.macs / 1e6 == pytest.approx(macs, rel=0.008)


def test_a_general_network_of_darts_cells_is_darts_own() -> None:
    """Equal parameters in the same order, and equal outputs with the same weights."""
    general, cells = space(4, cells=4, channels=6), PUBLISHED.parse(DARTS_V2)
    small = type(PUBLISHED)(
        nodes=4,
        stem="small",
        affine=True,
        partial_channels=1,
        search=DartsScale(cells=4, channels=6),
        final=DartsScale(cells=4, channels=6),
    )
    torch.manual_seed(0)
    ours = general.network(general.parse(DARTS_V2), CIFAR, "final")
    theirs = small.network(cells, CIFAR, "final")
    assert general.cost(general.parse(DARTS_V2), CIFAR, "final") == small.cost(
        cells, CIFAR, "final"
    )
    by_shape = [sorted(p.shape for p in network.parameters()) for network in (ours, theirs)]
    assert by_shape[0] == by_shape[1]
    for mine, other in zip(ours.cells, theirs.cells, strict=True):
        mine.calibrate.load_state_dict(other.calibrate.state_dict())
        edges = iter(e for e in other.edges if e.options)
        placed = [(node, place) for node in range(4) for place in range(2)]
        own = {}
        genotype = general.genotype(general.parse(DARTS_V2)).cells[mine.stride == 2]
        for node, place in placed:
            own[node, genotype.nodes[node][place].state] = mine.nodes[node][place]
        for key in sorted(own):
            (module,) = next(edges).options.values()
            own[key].load_state_dict(module.state_dict())
    for part in ("stem", "classifier"):
        getattr(ours, part).load_state_dict(getattr(theirs, part).state_dict())
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(ours.eval()(images), theirs.eval()(images))


def test_a_path_of_the_supernet_is_the_network_of_its_weights() -> None:
    """Nodes that are not put out are zeros in the supernet, and absent in the network."""
    small = space(2, 2, cells=3, channels=4)
    torch.manual_seed(0)
    supernet = small.supernet(CIFAR)
    images = torch.randn(2, 3, 32, 32)
    for architecture in random_architectures(small, 3, seed=1):
        network = small.network(architecture, CIFAR, "search")
        genotype = small.genotype(architecture)
        for mine, other in zip(network.cells, supernet.cells, strict=True):
            cell = genotype.cells[mine.stride == 2]
            for node, entries in enumerate(cell.nodes):
                for place, entry in enumerate(entries):
                    if entry.operation != "none":
                        chosen_one = other.nodes[node][place][entry.state][entry.operation]
                        mine.nodes[node][place].load_state_dict(chosen_one.state_dict())
        for index, (mine, other) in enumerate(zip(network.cells, supernet.cells, strict=True)):
            for which in (0, 1):
                source = index - 2 + which
                state = other.calibrate[which].state_dict()
                if source >= 0:  # the inputs of the supernet are wider by the closed nodes
                    cell = genotype.cells[supernet.reductions[source]]
                    channels = network.cells[source].calibrate[0][-1]
                    own = (
                        channels.num_features
                        if isinstance(channels, torch.nn.BatchNorm2d)
                        else channels.norm.num_features
                    )
                    kept = [own * (s - 2) + c for s in cell.concat for c in range(own)]
                    state = {k: v[:, kept] if v.dim() == 4 else v for k, v in state.items()}
                mine.calibrate[which].load_state_dict(state)
        network.stem.load_state_dict(supernet.stem.state_dict())
        last = genotype.cells[supernet.reductions[-1]]
        own = network.classifier.in_features // len(last.concat)
        kept = [own * (s - 2) + c for s in last.concat for c in range(own)]
        network.classifier.weight.data = supernet.classifier.weight.data[:, kept]
        network.classifier.bias.data = supernet.classifier.bias.data
        for training in (True, False):
            network.train(training), supernet.train(training)
            torch.testing.assert_close(
                network(images), supernet(images, architecture.choices), rtol=1e-4, atol=1e-5
            )


@pytest.mark.few(2)
@pytest.mark.parametrize("name", ["AmoebaNet", "SETN", "DCO_EDGE_BS_64", "FairDARTS_a", "EA_a518"])
def test_networks_of_public_genotypes_compute_what_is_counted(name: str) -> None:
    genotype = FOUND[name].genotype
    own = space_for(genotype, cells=3, channels=4)
    architecture = own.of_genotype(genotype)
    network = own.network(architecture, CIFAR, "final")
    cost = own.cost(architecture, CIFAR, "final")
    assert counted(network, CIFAR) == (cost.params, cost.macs)
    assert own.repair(architecture, None) == architecture  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("('inv_res_5x5', 1)", r"normal, entry 2 \('inv_res_5x5', 1\): no search space has"),
        ("('sep_conv_3x4', 1)", r"did you mean 'sep_conv_3x3'"),
        ("('sep_conv_3x3', 2)", r"node 0 cannot read 2: before it are 0 to 1"),
        ("'sep_conv_3x3', 1", r"normal: 'sep_conv_3x3' is no entry"),
        ("os.system('x')", r"normal: .*is no entry"),
        ("open('x')", r"normal: \"open\('x'\)\" is no entry"),
        ("('a', 1, 2, 3)", r"is no entry"),
        ("('a', 1), ('b', 0)", r"normal has 3 entries; two for each of 2 nodes are 4"),
        (
            "('sep_conv_3x3', 1)], normal_concat=[1], reduce_concat=[2",
            r"1 is no node of the cell; .* 2 to 2",
        ),
        (
            "('sep_conv_3x3', 1)], normal_concat=[], reduce_concat=[2",
            r"a cell must put out one of its nodes",
        ),
        ("('sep_conv_3x3', 1)], normal=[1", r"is no (entry|genotype)"),
        ("('sep_conv_3x3', 1)], recurrent=[1", r"a genotype of a recurrent cell"),
        ("('sep_conv_3x3', 1)], concat=[1", r"no field 'concat'"),
    ],
)
def test_nonsense_is_one_line(text: str, message: str) -> None:
    whole = f"Genotype(normal=[('skip_connect', 0), {text}], reduce=[('none', 0), ('none', 1)])"
    with pytest.raises(UserError, match=message) as caught:
        space(3).parse(whole)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500


def test_what_another_space_has_is_told() -> None:
    for name, message in {
        "NASNet": "there is no operation|reads 0 twice",
        "FairDARTS_a": "has 4 entries",
        "EA_6dd9": "reads 0 twice",
        "EA_a518": "there is no operation 'none'",
    }.items():
        wide = type(PUBLISHED)(
            nodes=len(FOUND[name].genotype.normal.nodes),
            stem="small",
            affine=True,
            partial_channels=1,
            search=DartsScale(cells=3, channels=4),
            final=DartsScale(cells=3, channels=4),
        )
        with pytest.raises(UserError, match=message) as caught:
            wide.of_genotype(FOUND[name].genotype)
        assert "search_space=general_cell" in str(caught.value)
    with pytest.raises(UserError, match=r"more than search_space\.nodes=4"):
        space(4).of_genotype(FOUND["NASNet"].genotype)
    with pytest.raises(UserError, match=r"4 entries, more than search_space\.edges=2"):
        space(4).of_genotype(FOUND["DCO_EDGE_BS_64"].genotype)
    with pytest.raises(UserError, match="the normal cell puts out none"):
        general = space(1)
        general.check(Architecture(general.name, (0,) * len(general.decisions)))


def test_the_space_of_a_genotype() -> None:
    assert settings_of(FOUND["PDARTS"].genotype) == {
        "search_space": "darts_cell",
        "search_space.nodes": 4,
    }
    assert settings_of(FOUND["DCO_EDGE_BS_64"].genotype) == {
        "search_space": "general_cell",
        "search_space.nodes": 4,
        "search_space.edges": 10,
    }
    assert OPERATION_NAMES[: len(OF_DARTS)] == OF_DARTS


def test_hostile_text_is_refused_at_once() -> None:
    for text in (
        "Genotype(" * 50_000,
        "Genotype(normal=[" + "(" * 50_000,
        "Genotype(normal=[" + "('a', 0)," * 50_000 + "])",
        "Genotype" + " " * 50_000,
        "#" * 50_000 + "Genotype(" + "#" * 50_000,
        "a" * 50_000 + " = Genotype(",
        "= " * 50_000 + "Genotype(normal='" + "a" * 50_000,
        "Genotype(normal=[('a'," + "9" * 50_000 + ")])",
        "Genotype(normal={'a': " * 5000,
    ):
        for read in (read_genotype, find_genotypes):
            with pytest.raises(UserError) as caught:
                read(text)
            assert len(str(caught.value)) < 500


def test_literals_are_pythons() -> None:
    import ast

    for text in (
        *("1", "-3", "2.5e-3", "'a b'", '"c"', "None", "True", "()", "(1)", "(1,)", "[1, 'x', ()]"),
        *("{'a': [1], 'b': (2, -1.)}", "[[], [[]], {}]", " ( 1 , 2 ) ", "[1, # no\n 2]"),
    ):
        assert read_literal(text)[0] == ast.literal_eval(text.strip())
    call, end = read_literal("f(1, [2], x=(3,), y=g()) tail")
    assert call == Call("f", [1, [2]], {"x": (3,), "y": Call("g")}, call.starts) and end == 24
    assert str(call) == "f(1, [2], x=(3,), y=g())"


LOG = """\
11/26 07:12:01 PM epoch 48 lr 1.2e-2
11/26 07:12:02 PM genotype = {one}
11/26 08:12:02 PM genotype = {two}
"""


def test_files_logs_and_names(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    log.write_text(LOG.format(one=FOUND["PDARTS"].genotype.write(), two=DARTS_V2))
    found = read_given(Place(log))
    assert PUBLISHED.read(found.value) == PUBLISHED.parse(DARTS_V2)
    assert found.note == "2 genotypes are called genotype: taking the last one, of line 3"
    named = read_given(Place(FILE, "PCDARTS"))
    assert PUBLISHED.read(named.value) == PUBLISHED.of_genotype(FOUND["PC_DARTS_cifar"].genotype)
    assert named.settings["search_space"] == "darts_cell" and not named.note
    with pytest.raises(
        UserError, match=r"33 genotypes in it: name one, as FILE:NASNet; .* 21 more"
    ):
        read_given(Place(FILE))
    with pytest.raises(UserError, match=r"called 'PDART' in it \(did you mean 'PDARTS'\?\)"):
        read_given(Place(FILE, "PDART"))
    same = [Found("a", 1, FOUND["DARTS"].genotype), Found("b", 2, FOUND["DARTS_V2"].genotype)]
    assert chosen(same, None) == (same[0], "")


NB201 = "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_1x1~1|+|skip_connect~0|none~1|avg_pool_3x3~2|"


def test_cells_of_nas_bench_201_in_all_forms() -> None:
    from nasrun.config.build import build
    from nasrun.config.compose import compose

    own = build(compose(["task=search", "search_space=nas_bench_201"])["search_space"], "")
    expected = own.parse("332104")
    tuples = re.sub(r"(\w+)~(\d)\|", r"('\1', \2), ", NB201).replace("|", "(").replace(" +", " ),")
    for text in (
        NB201,
        f"'{NB201}'",
        f'"{NB201}"',
        f"Structure(4 nodes with {NB201})",
        f"_Structure(4 nodes with {NB201})",
        f"({tuples}))",
        f"[{tuples})]".replace("(", "[").replace(")", "]"),
    ):
        assert own.parse(text) == own.parse(f" {text}\n") == expected, text
    for text in (
        f"{NB201}x",
        f"Structure(4 nodes with {NB201}",
        f"('{NB201}', 1)",
        "(1, 2)",
        "(",
        "((1,),)",
    ):
        with pytest.raises(UserError):
            own.parse(text)
    line = f"[cifar10-valid] REA : best arch is [Structure(4 nodes with {NB201})], 94.26"
    assert given(line).value == NB201 and given(line).settings == {"search_space": "nas_bench_201"}
    with pytest.raises(UserError, match="2 cells of NAS-Bench-201"):
        given(f"{line}\n{line.replace('avg_pool', 'none')}".replace("none_3x3", "none"))


@pytest.mark.soak
def test_a_genotype_of_a_file_is_shown_and_retrained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "all.txt").write_text(TEXT)
    assert main(["show", "all.txt:FairDARTS_a", "effort=smoke"]) == 0
    assert "general_cell/4x2 at" in capsys.readouterr().out
    words = ["retrain", "architecture=all.txt:NASNet", "effort=smoke", "threads=1"]
    assert main(words) == 0
    assert "sep_conv_7x7" in capsys.readouterr().out
    assert main([*words, "search_space=darts_cell"]) == 2
    assert "search_space=general_cell" in capsys.readouterr().err
    assert main(["retrain", "architecture=all.txt", "effort=smoke"]) == 2
    assert "name one, as FILE:NASNet" in capsys.readouterr().err
