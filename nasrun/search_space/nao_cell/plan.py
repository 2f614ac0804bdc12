"""How cells are stacked: channels and resolutions, worked out once for networks and costs alike."""

from __future__ import annotations

from nasrun.errors import UserError
from nasrun.search_space.operation import reduced
from nasrun.search_space.stacked_cells import CellPlan, FeatureMap, NetworkPlan, StemKind
from nasrun.values import Problem


def plan_network(
    problem: Problem, *, layers: int, channels: int, stem: StemKind, concat: tuple[int, int]
) -> NetworkPlan:
    """3·layers + 2 cells with reductions at layers and 2·layers + 1, channels doubled at each.

    layers: N, normal cells of a stage; channels: C of the first stage;
    concat: how many states the output of a normal and of a reduction cell is made of.
    Source: the search network of NAO-V2's released code. Raises UserError for images too small.
    """
    if stem == "imagenet":
        quarter = reduced(reduced(problem.size))
        stem_maps = (FeatureMap(channels, quarter), FeatureMap(channels, reduced(quarter)))
        smallest = 64
    else:
        stem_maps = (FeatureMap(3 * channels, problem.size), FeatureMap(3 * channels, problem.size))
        smallest = 8
    if problem.size < smallest:
        raise UserError(
            f"images of {problem.size}×{problem.size} pixels are "
            "too small for the reductions of this "
            f"network (at least {smallest}×{smallest} with search_space.stem={stem})"
        )
    cells: list[CellPlan] = []
    before, last = stem_maps
    for index in range(3 * layers + 2):
        reduction = index in (layers, 2 * layers + 1)
        channels *= 2 if reduction else 1
        cell = CellPlan(reduction, (before, last), channels)
        cells.append(cell)
        before, last = last, FeatureMap(channels * concat[reduction], cell.size_out)
        if index == 2 * layers + 1:
            auxiliary = last
    return NetworkPlan(tuple(cells), stem_maps, last, auxiliary, 2 * layers + 1)
