"""Graphs as text: for Mermaid (which GitHub shows), for graphviz, and for a terminal."""

from __future__ import annotations

from collections.abc import Mapping

from nasrun.search_space.graph import Graph


def mermaid_of(panels: Mapping[str, Graph]) -> str:
    """Return graphs as a flow chart of Mermaid, each in a frame with its name."""
    lines = ["flowchart LR"]
    for panel, (name, graph) in enumerate(panels.items()):
        lines.append(f'  subgraph p{panel}["{_mermaid(name)}"]')
        lines.append(f"    direction {'TB' if graph.down else 'LR'}")
        for node, label in enumerate(graph.nodes):
            lines.append(f'    p{panel}n{node}["{_mermaid(label)}"]')
        for source, target, label in graph.edges:
            arrow = f'-- "{_mermaid(label)}" -->' if label else "-->"
            lines.append(f"    p{panel}n{source} {arrow} p{panel}n{target}")
        lines.append("  end")
    return "\n".join([*lines, ""])


def _mermaid(text: str) -> str:
    """Write a text between quotes of Mermaid: its own signs by their numbers."""
    signs = (
        "<br/>" if sign == "\n" else f"#{ord(sign)};" if sign in "#\"'<>&`;|[]{}" else sign
        for sign in text
        if sign == "\n" or sign.isprintable()
    )
    return "".join(signs)


def dot_of(panels: Mapping[str, Graph]) -> str:
    """Return graphs as a file for graphviz, each a cluster with its name."""
    down = all(graph.down for graph in panels.values())
    lines = [
        "digraph architecture {",
        f"  rankdir={'TB' if down else 'LR'};",
        '  node [shape=box, style=rounded, fontname="Helvetica", fontsize=10];',
        '  edge [fontname="Helvetica", fontsize=8, arrowsize=0.6];',
    ]
    for panel, (name, graph) in enumerate(panels.items()):
        lines.append(f"  subgraph cluster_{panel} {{")
        lines.append(f"    label={quoted(name)}; color=gray;")
        for node, label in enumerate(graph.nodes):
            lines.append(f"    p{panel}n{node} [label={quoted(label)}];")
        for source, target, label in graph.edges:
            attributes = f" [label={quoted(label)}]" if label else ""
            lines.append(f"    p{panel}n{source} -> p{panel}n{target}{attributes};")
        lines.append("  }")
    return "\n".join([*lines, "}", ""])


def quoted(text: str) -> str:
    """Return a text as a string of graphviz's language."""
    kept = "".join(sign for sign in text if sign == "\n" or sign.isprintable())
    escaped = kept.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def lines_of(graph: Graph) -> list[str]:
    """Return a graph as lines like ``node 0 = sep conv 3×3(cell k-2) + max pool 3×3(cell k-1)``.

    Inputs have no line of their own. A node of a chain that reads the one before does not say so.
    """
    found = []
    width = max((len(label.partition("\n")[0]) for label in graph.nodes), default=0)
    for node, label in enumerate(graph.nodes):
        name, *details = label.split("\n")
        sources = [(source, text) for source, target, text in graph.edges if target == node]
        reads = " + ".join(_term(graph, *source) for source in sources)
        if graph.down:
            text = f"{name:<{width}}  {', '.join(details)}".rstrip()
            follows = sources in ([], [(node - 1, "")])
            found.append(text if follows else f"{text} = {reads}")
        elif details or sources:
            parts = [" + ".join(details)] * bool(details) + [reads] * bool(sources)
            found.append(f"{name} = {' of '.join(parts)}")
    return found


def _term(graph: Graph, source: int, label: str) -> str:
    name = graph.nodes[source].partition("\n")[0]
    return f"{label}({name})" if label else name
