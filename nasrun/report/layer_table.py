"""The layers of a network as a table: what each adds to its parameters and multiply-adds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from rich import box
from rich.markup import escape
from rich.table import Table

from nasrun.search_space.layer import Layer, count_layers, sum_costs
from nasrun.values import Cost


@dataclass(frozen=True)
class LayerRow:
    """Equal layers of a network. cost: of all of them together."""

    name: str
    count: int
    cost: Cost


def layer_rows(layers: Sequence[Layer]) -> list[LayerRow]:
    """Group equal layers, in the order of their first appearance."""
    first = {layer.name: layer for layer in reversed(layers)}
    return [
        LayerRow(name, count, count_layers([first[name]] * count))
        for name, count in Counter(layer.name for layer in layers).items()
    ]


def layer_table(rows: Sequence[LayerRow]) -> Table:
    """Return the table of the rows, with their sum, in at most 80 columns."""
    total = sum_costs(row.cost for row in rows)
    table = Table(box=box.SIMPLE_HEAD, show_footer=True, pad_edge=False)
    table.add_column("layer", "total", overflow="fold", max_width=36)
    table.add_column("×", justify="right")
    table.add_column("parameters", f"{total.params:,}", justify="right", no_wrap=True)
    table.add_column("multiply-adds", f"{total.macs:,}", justify="right", no_wrap=True)
    table.add_column("%", justify="right")
    if total.bitops is not None:
        table.add_column(
            "G bit-operations", f"{total.bitops / 1e9:,.3f}", justify="right", no_wrap=True
        )
    for row in rows:
        cells = [
            escape(row.name.partition("/")[2] or row.name),
            str(row.count) if row.count > 1 else "",
            f"{row.cost.params:,}",
            f"{row.cost.macs:,}",
            f"{100 * row.cost.macs / total.macs:.1f}" if total.macs else "",
        ]
        if total.bitops is not None:
            cells.append("" if row.cost.bitops is None else f"{row.cost.bitops / 1e9:,.3f}")
        table.add_row(*cells)
    return table
