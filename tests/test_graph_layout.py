"""Layouts of graphs: nothing overlaps, lines go one way and around boxes, labels are on lines."""

from __future__ import annotations

import json
import shutil
import xml.etree.ElementTree as ET
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nasrun.report import graph_dot
from nasrun.report.graph_dot import dot_layout, question, read_answer
from nasrun.report.graph_layers import layered, nearest
from nasrun.report.graph_layout import Box, Layout, Line, Point, lay_out, sheet_of
from nasrun.report.graph_svg import svg_of_panels, without_paper
from nasrun.report.graph_text import dot_of, lines_of, mermaid_of
from nasrun.search_space.graph import Graph, chain, staged, with_shape, words
from nasrun.values import MapSize

DARTS_V2 = Graph(
    ("cell k-2", "cell k-1", "node 0", "node 1", "node 2", "node 3", "output"),
    (
        *((0, 2, "sep conv 3×3"), (1, 2, "sep conv 3×3"), (0, 3, "sep conv 3×3")),
        *((1, 3, "sep conv 3×3"), (1, 4, "sep conv 3×3"), (0, 4, "skip connect")),
        *((0, 5, "skip connect"), (2, 5, "dil conv 3×3")),
        *((node, 6, "") for node in (2, 3, 4, 5)),
    ),
)
"""The normal cell of DARTS (second order), as published."""

HOSTILE = "<script>\"'&];#x\u202e\x00`{"


def sampled(path: tuple[Point, ...]) -> list[Point]:
    """Points of a chain of Bézier curves, close to each other."""
    found = [path[0]]
    for at in range(0, len(path) - 1, 3):
        a, b, c, d = path[at : at + 4]
        for step in range(1, 17):
            t = step / 16
            weights = (1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3
            found.append(
                (
                    sum(w * point[0] for w, point in zip(weights, (a, b, c, d), strict=True)),
                    sum(w * point[1] for w, point in zip(weights, (a, b, c, d), strict=True)),
                )
            )
    return found


def inside(point: Point, box: Box) -> bool:
    x, y = point
    margin = 0.01
    return box.left + margin < x < box.right - margin and box.top + margin < y < box.bottom - margin


def overlap(a: Box, b: Box) -> bool:
    return (
        min(a.right, b.right) - max(a.left, b.left) > 0.01
        and min(a.bottom, b.bottom) - max(a.top, b.top) > 0.01
    )


def grown(box: Box, by: float) -> Box:
    return Box(box.text, box.x, box.y, box.width + 2 * by, box.height + 2 * by)


def on_side(point: Point, box: Box, slack: float) -> bool:
    """Whether the point is on the border of the box."""
    return inside(point, grown(box, slack)) and not inside(point, grown(box, -slack))


def check_layout(graph: Graph, layout: Layout, *, slack: float = 0.05, dot: bool = False) -> None:
    """The laws of layouts. slack: in points; dot: whether lines may turn back a little."""
    assert [box.text for box in layout.boxes] == list(graph.nodes)
    assert [
        (line.source, line.target, line.label.text if line.label else "") for line in layout.lines
    ] == list(graph.edges)
    labels = [line.label for line in layout.lines if line.label]
    solid = [*layout.boxes, *labels]
    for a, b in combinations(solid, 2):
        assert not overlap(a, b), (a, b)
    for box in solid:
        assert box.left >= -0.01 and box.right <= layout.width + 0.01
        assert box.top >= -0.01 and box.bottom <= layout.height + 0.01
    for line in layout.lines:
        check_line(layout, line, solid, slack, None if dot else graph.down)


def check_line(
    layout: Layout, line: Line, solid: list[Box], slack: float, down: bool | None
) -> None:
    boxes = [layout.boxes[line.source], layout.boxes[line.target]]
    stops = [boxes[0], line.label, boxes[1]] if line.label else boxes
    assert len(line.paths) == len(stops) - 1
    for path, (start, end) in zip(line.paths, pairwise(stops), strict=True):
        assert on_side(path[0], start, slack) and on_side(path[-1], end, slack)
        points = sampled(path)
        if down is not None:
            along = [point[down] for point in points]
            assert all(b >= a - 1e-6 for a, b in pairwise(along)), along
        for point in points:
            assert -0.01 <= point[0] <= layout.width + 0.01
            assert -0.01 <= point[1] <= layout.height + 0.01
            met = [box for box in solid if inside(point, grown(box, -slack))]
            assert not met, (line, met)


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    count = draw(st.integers(1, 9))
    label = st.sampled_from(["", "", "op", "sep conv 3×3", "a label that is longer than others"])
    text = st.sampled_from(["x", "node 1", "sep conv 3×3\n64×32×32, stride 2", "W" * 40, "a\nb\nc"])
    pairs = list(combinations(range(count), 2))
    chosen = draw(st.lists(st.sampled_from(pairs), max_size=14)) if pairs else []
    order = draw(st.permutations(range(count)))  # indices need not follow the edges
    edges = [(order[first], order[second], draw(label)) for first, second in chosen]
    return Graph([draw(text) for _ in range(count)], edges, down=draw(st.booleans()))


@settings(max_examples=40, deadline=None, derandomize=True, database=None)
@given(graphs())
def test_layers_keep_the_laws(graph: Graph) -> None:
    check_layout(graph, layered(graph))


@pytest.mark.soak
@settings(max_examples=3000, deadline=None)
@given(graphs())
def test_layers_keep_the_laws_at_length(graph: Graph) -> None:
    check_layout(graph, layered(graph))


def crossings(layout: Layout) -> int:
    """Pairs of lines without a common end that cross."""
    count = 0
    for a, b in combinations(layout.lines, 2):
        if {a.source, a.target} & {b.source, b.target}:
            continue
        ways = [[p for path in line.paths for p in sampled(path)] for line in (a, b)]
        count += any(
            _cross(*first, *second) for first in pairwise(ways[0]) for second in pairwise(ways[1])
        )
    return count


def _cross(a: Point, b: Point, c: Point, d: Point) -> bool:
    def turn(p: Point, q: Point, r: Point) -> float:
        return (q[0] - p[0]) * (r[1] - p[1]) - (q[1] - p[1]) * (r[0] - p[0])

    return turn(a, b, c) * turn(a, b, d) < 0 and turn(c, d, a) * turn(c, d, b) < 0


def test_what_can_be_plotted_without_crossings_is() -> None:
    tree = Graph("abcdefg", [(0, i, "") for i in (1, 2)] + [(i // 2, i, "") for i in (3, 4, 5, 6)])
    swapped = Graph("abcdef", [(0, 5, "x"), (1, 4, "y"), (2, 3, "z")])
    for graph in (tree, swapped, chain("abcd")):
        assert crossings(layered(graph)) == 0


def test_a_published_cell_is_read_from_left_to_right() -> None:
    found = layered(DARTS_V2)
    check_layout(DARTS_V2, found)
    inputs, nodes, output = found.boxes[:2], found.boxes[2:6], found.boxes[6]
    assert inputs[0].x == pytest.approx(inputs[1].x, abs=1) and inputs[0].y < inputs[1].y
    assert max(box.right for box in inputs) < min(box.left for box in nodes)
    assert max(box.right for box in nodes) < output.left
    assert found.width < 700 and found.height < 250
    assert crossings(found) <= 6


def test_a_chain_is_straight() -> None:
    graph = chain(["image\n3×32×32", "a", "a much longer name", "b"])
    found = layered(graph)
    assert len({round(box.x, 6) for box in found.boxes}) == 1 and not found.ends
    assert [box.y for box in found.boxes] == sorted(box.y for box in found.boxes)
    check_layout(graph, found)


def test_a_circle_is_refused() -> None:
    with pytest.raises(ValueError, match="circle"):
        layered(Graph("ab", [(0, 1, ""), (1, 0, "")]))


@pytest.mark.soak
def test_a_dense_graph_takes_no_time() -> None:
    nodes = [f"level{n // 4} {n}" for n in range(32)]
    edges = [(a, b, "") for a, b in combinations(range(32), 2) if a // 4 < b // 4]
    check_layout(Graph(nodes, edges), layered(Graph(nodes, edges)))


@settings(max_examples=50, deadline=None, derandomize=True, database=None)
@given(
    st.lists(st.tuples(st.floats(-20, 20), st.floats(0.1, 9), st.floats(0, 9)), max_size=6),
    st.randoms(use_true_random=False),
)
def test_positions_are_the_nearest_that_keep_the_distances(
    items: list[tuple[float, float, float]], rng: Any
) -> None:
    wanted, weights, spaces = (
        (list(values) for values in zip(*items, strict=True)) if items else ([], [], [])
    )
    spaces = spaces[1:]
    found = nearest(wanted, weights, spaces)

    def loss(places: list[float]) -> float:
        return sum(w * (p - x) ** 2 for w, p, x in zip(weights, places, wanted, strict=True))

    assert len(found) == len(wanted)
    assert all(b - a >= s - 1e-9 for (a, b), s in zip(pairwise(found), spaces, strict=True))
    for _ in range(20):  # no other positions that keep the distances are nearer
        other = sorted(rng.uniform(-30, 30) for _ in found)
        at = 0.0
        for index, space in enumerate(spaces):
            at = max(other[index] + space, other[index + 1])
            other[index + 1] = at
        mixed = [0.99 * a + 0.01 * b for a, b in zip(found, other, strict=True)]
        assert loss(mixed) >= loss(found) - 1e-9


# graphviz


def answer_of(graph: Graph, layout: Layout) -> dict[str, Any]:
    """What ``dot -Tjson0`` would say if it had found that layout."""

    def at(point: Point) -> str:
        return f"{point[0]:.4f},{layout.height - point[1]:.4f}"

    names = {f"n{node}": box for node, box in enumerate(layout.boxes)}
    names |= {f"l{edge}": line.label for edge, line in enumerate(layout.lines) if line.label}
    edges = [
        {"id": f"{'ab'[part]}{edge}", "tail": 0, "head": 0, "pos": " ".join(map(at, path))}
        for edge, line in enumerate(layout.lines)
        for part, path in enumerate(line.paths)
    ]
    return {
        "bb": f"0,0,{layout.width},{layout.height}",
        "objects": [{"name": name, "pos": at((box.x, box.y))} for name, box in names.items()],
        "edges": edges,
    }


def fake_dot(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    program = folder / "dot"
    program.write_text(f"#!/bin/sh\ncat > {folder}/question\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=":")


def test_an_answer_of_dot_is_read_as_it_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = layered(DARTS_V2)
    (tmp_path / "answer").write_text(json.dumps(answer_of(DARTS_V2, own)))
    fake_dot(tmp_path, f"cat {tmp_path}/answer", monkeypatch)
    found = lay_out(DARTS_V2)
    check_layout(DARTS_V2, found)
    for box, other in zip(found.boxes, own.boxes, strict=True):
        assert (box.x, box.y) == pytest.approx((other.x, other.y), abs=1e-3)
    asked = (tmp_path / "question").read_text()
    assert asked == question(DARTS_V2)
    assert asked.count("->") == 8 * 2 + 4 and "rankdir=LR" in asked


@pytest.mark.parametrize(
    "script",
    [
        "exit 1",
        "echo no JSON",
        "echo '{}'",
        'echo \'{"bb": "0,0,nan,9", "objects": [], "edges": []}\'',
        'echo \'{"bb": "0,0,9,9", "objects": [{"name": "n0", "pos": "1,1"}], "edges": []}\'',
        "exec sleep 60",
    ],
)
def test_where_dot_fails_the_layout_is_our_own(
    script: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_dot(tmp_path, script, monkeypatch)
    monkeypatch.setattr(graph_dot, "TIMEOUT_SECONDS", 0.2)
    assert lay_out(DARTS_V2) == layered(DARTS_V2)


def test_boxes_of_dot_that_overlap_are_refused() -> None:
    own = layered(DARTS_V2)
    answer = answer_of(DARTS_V2, own)
    assert read_answer(DARTS_V2, answer) is not None
    answer["objects"][1]["pos"] = answer["objects"][0]["pos"]
    assert read_answer(DARTS_V2, answer) is None


@pytest.mark.skipif(shutil.which("dot") is None, reason="graphviz is not installed")
@pytest.mark.parametrize("down", [False, True])
def test_the_real_dot_keeps_the_laws(down: bool) -> None:
    graph = Graph(DARTS_V2.nodes, DARTS_V2.edges, down)
    found = dot_layout(graph)
    assert found is not None
    check_layout(graph, found, slack=1, dot=True)


# As files


def test_the_picture_of_a_page_is_small_and_self_contained() -> None:
    text = svg_of_panels({"cell": DARTS_V2})
    root = ET.fromstring(text)  # noqa: S314
    assert root.tag == "{http://www.w3.org/2000/svg}svg" and len(text) < 15_000
    said = [node.text for node in root.iter("{http://www.w3.org/2000/svg}text")]
    assert sorted(filter(None, said)) == sorted(
        [*DARTS_V2.nodes, *(label for *_, label in DARTS_V2.edges if label)]
    )
    assert "href" not in text and "url(" not in text and "#fff" not in text
    assert "currentColor" in text and text.count("<polygon") == len(DARTS_V2.edges)


def test_several_graphs_are_on_one_sheet_and_do_not_overlap() -> None:
    panels = {f"stage {n}": chain([f"layer {n}\n64×32×32"] * (1 + n)) for n in range(9)}
    panels["cell"] = DARTS_V2
    sheet = sheet_of(panels)
    assert [title for title, _, _ in sheet.titles] == list(panels)
    every = [box for layout in sheet.layouts for box in layout.boxes]
    assert not any(overlap(a, b) for a, b in combinations(every, 2))
    for layout, (_, x, y) in zip(sheet.layouts, sheet.titles, strict=True):
        for box in layout.boxes:
            assert x - 0.01 <= box.left and y < box.top
            assert box.right <= sheet.width and box.bottom <= sheet.height
    text = svg_of_panels(panels, paper=True)
    assert all(f">{name}</text>" in text for name in panels) and 'fill="#ffffff"' in text


def test_a_file_of_ours_can_stand_in_a_page_and_no_other() -> None:
    panels = {"a": DARTS_V2, HOSTILE: Graph([HOSTILE, "b"], [(0, 1, HOSTILE)])}
    text = svg_of_panels(panels, paper=True)
    assert without_paper(text) == svg_of_panels(panels).rstrip("\n")
    for wrong in (
        text.replace("<path ", '<path onclick="x()" ', 1),
        text.replace("<path ", '<path style="x" ', 1),
        text.replace('fill="none"', 'fill="url(http://a)"', 1),
        text.replace("</svg>", "<script>x()</script>\n</svg>"),
        text.replace("</title>", "<b></b></title>"),
        text.replace("<rect ", "<image ", 1),
        f"<b>\n{text}",
        f"{text}<img src=x>",
        "",
    ):
        assert without_paper(wrong) is None


def test_names_of_strangers_stay_text() -> None:
    graph = Graph([HOSTILE, "b"], [(0, 1, HOSTILE)])
    svg = svg_of_panels({HOSTILE: graph}, HOSTILE)
    ET.fromstring(svg)  # noqa: S314
    assert "<script" not in svg and "\u202e" not in svg
    mermaid = mermaid_of({HOSTILE: graph})
    assert "<script" not in mermaid and "\x00" not in mermaid
    for line in mermaid.splitlines():
        assert line.count('"') in (0, 2), line
    dot = dot_of({HOSTILE: graph})
    assert '<script>\\"' in dot and "\x00" not in dot


def test_text_has_every_node_and_edge() -> None:
    panels = {"normal cell": DARTS_V2, "stage 1": chain(["image\n3×32×32", "a\nb"])}
    mermaid, dot = mermaid_of(panels), dot_of(panels)
    assert mermaid.startswith("flowchart LR\n") and dot.startswith("digraph ")
    for text, arrow in ((mermaid, "-->"), (dot, "->")):
        assert text.count(arrow) == len(DARTS_V2.edges) + 1
        assert text.count("p0n6") == 1 + 4 and text.count("subgraph") == 2
    assert '-- "dil conv 3×3" -->' in mermaid and 'p1n0["image<br/>3×32×32"]' in mermaid
    assert 'p1n1 [label="a\\nb"]' in dot


def test_lines_for_a_terminal() -> None:
    lines = lines_of(DARTS_V2)
    assert lines[0] == "node 0 = sep conv 3×3(cell k-2) + sep conv 3×3(cell k-1)"
    assert lines[-1] == "output = node 0 + node 1 + node 2 + node 3" and len(lines) == 5
    assert lines_of(chain(["image\n3×8×8", "a\nb, c"])) == ["image  3×8×8", "a      b, c"]
    skipped = Graph(["x", "y", "z"], [(0, 1, ""), (1, 2, ""), (0, 2, "skip")], down=True)
    assert lines_of(skipped) == ["x", "y", "z = y + skip(x)"]
    blocks = Graph(["x", "block 0\na\nb", "output\nzeros"], [(0, 1, "")])
    assert lines_of(blocks) == ["block 0 = a + b of x", "output = zeros"]


def test_words_of_labels() -> None:
    assert (
        words("dil_sep_conv_3x3") == "dil sep conv 3×3"
        and words("mbconv_5x5_e6") == "mbconv 5×5 e6"
    )
    assert with_shape("a", 64, MapSize.square(16)) == "a\n64×16×16"
    assert with_shape("a", 64, MapSize(16, 20), 2) == "a\n64×16×20, stride 2"
    found = staged("abcd", [1, 3])
    assert list(found) == ["stage 1", "stage 2"] and found["stage 2"].edges == [
        (0, 1, ""),
        (1, 2, ""),
    ]
