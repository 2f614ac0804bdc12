"""Channels and resolutions of the stack of cells, for networks and costs alike."""

from __future__ import annotations

from nasrun.errors import UserError
from nasrun.search_space.operation import reduced
from nasrun.search_space.stacked_cells import CellPlan, FeatureMap, NetworkPlan, StemKind
from nasrun.values import Problem


def plan_network(
    problem: Problem, *, cells: int, channels: int, stem: StemKind, nodes: int
) -> NetworkPlan:
    """``cells`` cells with reductions at a third and at two thirds, channels doubled at each.

    channels: C of the first stage; nodes: of a cell, which make its output together.
    Source: the released code of DARTS. Raises UserError for images too small.
    """
    smallest = 32 if stem == "imagenet" else 4
    if problem.size < smallest:
        raise UserError(
            f"images of {problem.size}×{problem.size} pixels are "
            "too small for the reductions of this "
            f"network (at least {smallest}×{smallest} with search_space.stem={stem})"
        )
    if stem == "imagenet":
        quarter = reduced(reduced(problem.size))
        stem_maps = (FeatureMap(channels, quarter), FeatureMap(channels, reduced(quarter)))
    else:
        stem_maps = (FeatureMap(3 * channels, problem.size), FeatureMap(3 * channels, problem.size))
    reductions = (cells // 3, 2 * cells // 3)
    plans: list[CellPlan] = []
    before, last = stem_maps
    for index in range(cells):
        channels *= 2 if index in reductions else 1
        cell = CellPlan(index in reductions, (before, last), channels)
        plans.append(cell)
        before, last = last, FeatureMap(nodes * channels, cell.size_out)
        if index == reductions[1]:
            auxiliary = last
    return NetworkPlan(tuple(plans), stem_maps, last, auxiliary, reductions[1])
