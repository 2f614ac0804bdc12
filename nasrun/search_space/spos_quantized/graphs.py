"""The graphs of a quantised ResNet: the blocks of each stage with the bits of their layers."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

from nasrun.search_space.graph import Graph, classes_node, image_node, with_shape
from nasrun.search_space.spos_quantized.layers import Bits, ConvPlan, ResNetPlan, pairs
from nasrun.search_space.stages import reduced
from nasrun.values import Problem


def graphs_of(
    plan: ResNetPlan, problem: Problem, bits: Sequence[Bits], counts: Sequence[int]
) -> dict[str, Graph]:
    """Return a graph for each stage. bits: of each layer; counts: blocks of each stage."""
    blocks = enumerate(zip(plan.blocks, pairs(bits), strict=True))
    found: dict[str, Graph] = {}
    for stage, count in enumerate(counts, 1):
        nodes = [f"stage {stage - 1}"] if stage > 1 else _beginning(plan, problem)
        edges = [(node, node + 1, "") for node in range(len(nodes) - 1)]
        for number, (block, (first, second)) in islice(blocks, count):
            source = len(nodes) - 1
            nodes.append(_label(block.first, f"layer{2 * number:02} conv", first))
            nodes.append(_label(block.second, f"layer{2 * number + 1:02} conv", second))
            nodes.append(f"block {number}")
            edges += [(at, at + 1, "") for at in range(source, source + 3)]
            edges.append((source, source + 3, f"conv 1×1 {first}" if block.shortcut else ""))
        if stage == len(counts):
            edges.append((len(nodes) - 1, len(nodes), ""))
            nodes.append(classes_node(problem))
        found[f"stage {stage}"] = Graph(nodes, edges, down=True)
    return found


def _beginning(plan: ResNetPlan, problem: Problem) -> list[str]:
    """Return the labels before the first block."""
    nodes = [image_node(problem), _label(plan.stem, "stem conv")]
    if plan.pool:
        nodes.append(with_shape("max pool 3×3", plan.stem.outputs, reduced(plan.stem.size_out), 2))
    return nodes


def _label(plan: ConvPlan, name: str, bits: Bits | None = None) -> str:
    text = f"{name} {plan.kernel}×{plan.kernel}{f' {bits}' if bits else ''}"
    return with_shape(text, plan.outputs, plan.size_out, plan.stride)
