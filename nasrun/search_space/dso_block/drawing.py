"""A block as a graph to be drawn (DSO-NAS, Fig. 4)."""

from __future__ import annotations

from nasrun.figures_architecture import Graph, Node
from nasrun.search_space.dso_block.wiring import INPUT, NAMES, Edges, Wiring

SHORT = {
    "sep_conv_3x3": "sep 3×3",
    "sep_conv_5x5": "sep 5×5",
    "max_pool_3x3": "max 3×3",
    "avg_pool_3x3": "avg 3×3",
}


def graph_of(wiring: Wiring, edges: Edges) -> Graph:
    """Input below, a row for each level, output above; operations that are dead are left out."""
    middle = (len(NAMES) - 1) / 2
    nodes = [Node("input", middle, 0)]
    places = {INPUT: 0}
    for node in wiring.nodes:
        places[node.index] = len(nodes)
        level, kind = divmod(node.index, len(NAMES))
        nodes.append(Node(SHORT[NAMES[kind]], kind, level + 1))
    nodes.append(Node("output", middle, edges.levels + 1))
    lines = [(places[s], places[node.index], "") for node in wiring.nodes for s in node.inputs]
    lines += [(places[node.index], len(nodes) - 1, "") for node in wiring.nodes if node.output]
    return Graph(nodes, lines or [(0, len(nodes) - 1, "shortcut")])
