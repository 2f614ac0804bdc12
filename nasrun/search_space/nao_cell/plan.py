"""How cells are stacked: channels and resolutions, worked out once for networks and costs alike."""

from __future__ import annotations

from dataclasses import dataclass

from nasrun.errors import UserError
from nasrun.search_space.operation import reduced
from nasrun.values import ImageTask


@dataclass(frozen=True)
class FeatureMap:
    """channels: C; size: H = W, in pixels."""

    channels: int
    size: int


@dataclass(frozen=True)
class CellPlan:
    """One cell: its two inputs (cells k-2 and k-1), its inner channels and its output size."""

    reduction: bool
    inputs: tuple[FeatureMap, FeatureMap]
    channels: int

    @property
    def size_in(self) -> int:
        """Side of the calibrated inputs: that of cell k-1."""
        return self.inputs[1].size

    @property
    def size_out(self) -> int:
        return reduced(self.size_in) if self.reduction else self.size_in


@dataclass(frozen=True)
class NetworkPlan:
    """stem: outputs of the stem, as cells -2 and -1; auxiliary: index of the cell it reads."""

    cells: tuple[CellPlan, ...]
    stem: tuple[FeatureMap, FeatureMap]
    output: FeatureMap
    auxiliary: FeatureMap
    auxiliary_index: int


def plan_network(
    task: ImageTask, *, layers: int, channels: int, stem: str, concat: tuple[int, int]
) -> NetworkPlan:
    """3·layers + 2 cells with reductions at layers and 2·layers + 1, channels doubled at each.

    layers: N, normal cells of a stage; channels: C of the first stage;
    concat: how many states the output of a normal and of a reduction cell is made of.
    Source: the search network of NAO-V2's released code. Raises UserError for images too small.
    """
    if stem == "imagenet":
        quarter = reduced(reduced(task.size))
        stem_maps = (FeatureMap(channels, quarter), FeatureMap(channels, reduced(quarter)))
        smallest = 64
    else:
        stem_maps = (FeatureMap(3 * channels, task.size), FeatureMap(3 * channels, task.size))
        smallest = 8
    if task.size < smallest:
        raise UserError(
            f"images of {task.size}×{task.size} pixels are too small for the reductions of this "
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
