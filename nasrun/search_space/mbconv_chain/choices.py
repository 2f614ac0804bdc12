"""The decisions of a chain: where they stand, and which layers and options they choose."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from nasrun.errors import UserError
from nasrun.search_space.mbconv_chain.table import Operation, Option, Table, name_of
from nasrun.values import Decision

Decide = Literal["layer", "stage"]
"""``layer``: each layer has its operation, or is the identity. ``stage``: all layers of a stage
have one operation, and their number is a decision."""

Present = Mapping[int, Mapping[int, Option]]
"""The options that layers have, by index of the layer and of the option."""


@dataclass(frozen=True)
class StageChoices:
    """The places of a stage's decisions among all decisions.

    layers: its layers by index. options: of each of them; an identity is the last one.
    ops: the decision on each layer's options; None: it has one option.
    depth: the decision on the number of layers, which is ``shortest`` at its first option; None:
    all layers are there.
    """

    layers: range
    options: tuple[tuple[Option, ...], ...]
    ops: tuple[int | None, ...]
    depth: int | None
    shortest: int

    def present(self, choices: Sequence[int]) -> dict[int, dict[int, Option]]:
        """Return the layers of an architecture, each with its only option, by index."""
        depth = len(self.layers) if self.depth is None else self.shortest + choices[self.depth]
        found: dict[int, dict[int, Option]] = {}
        for layer, options, op in zip(self.layers[:depth], self.options, self.ops, strict=False):
            choice = 0 if op is None else choices[op]
            found[layer] = {choice: options[choice]}
        return found

    def every(self) -> dict[int, dict[int, Option]]:
        """Return all layers with all options, by index."""
        return {
            layer: dict(enumerate(options))
            for layer, options in zip(self.layers, self.options, strict=True)
        }

    @property
    def decisions(self) -> tuple[int, ...]:
        """The decisions of the stage, by index."""
        places = dict.fromkeys((*self.ops, self.depth))
        return tuple(place for place in places if place is not None)

    @property
    def movable(self) -> tuple[int, ...]:
        """The decisions on layers among which an identity may move, as their shapes are equal."""
        several = zip(self.ops[1:], self.options[1:], strict=True)
        return tuple(op for op, options in several if op is not None and options[-1] is None)


class Layout:
    """The decisions of a table, in the order of its layers, and the choices of each stage."""

    def __init__(self, table: Table, decide: Decide, operations: Sequence[str]) -> None:
        """Number the decisions. operations: of stages that have none of their own.

        Raises UserError if the table does not allow them.
        """
        self.decisions: list[Decision] = []
        self.stages: list[StageChoices] = []
        start = 0
        for number, stage in enumerate(table.stages, 1):
            options = _operations(table, number, stage.operations or operations)
            layers = range(start, start + stage.layers)
            start = layers.stop
            if decide == "stage":
                if not stage.shortest:
                    raise UserError(
                        f"stages: with decide=stage, least of stage {number} must be above 0"
                    )
                of_layers = [options] * stage.layers
                op = self._decision(f"stage{number}/op", [*map(name_of, options)])
                ops = [op] * stage.layers
                counts = [str(count) for count in range(stage.shortest, stage.layers + 1)]
                depth = self._decision(f"stage{number}/layers", counts)
            else:
                of_layers = [
                    (*options, None) if place >= stage.shortest else options
                    for place in range(stage.layers)
                ]
                ops = [
                    self._decision(f"layer{layer:02}/op", [*map(name_of, of_layer)])
                    for layer, of_layer in zip(layers, of_layers, strict=True)
                ]
                depth = None
            self.stages.append(
                StageChoices(layers, tuple(of_layers), tuple(ops), depth, stage.shortest)
            )
        if not self.decisions:
            raise UserError("stages: every layer has one option, so there is nothing to decide")

    def _decision(self, name: str, options: list[str]) -> int | None:
        """Add a decision and return its index; None if there is only one option."""
        if len(options) == 1:
            return None
        self.decisions.append(Decision(name, tuple(options)))
        return len(self.decisions) - 1


def _operations(table: Table, number: int, names: Sequence[str]) -> tuple[Option, ...]:
    """Read the operations of a stage; raises UserError if the table does not allow them."""
    if len(set(names)) < len(names):
        raise UserError(f"operations of stage {number}: one of them stands there twice")
    found = tuple(map(Operation.named, names))
    for operation in found:
        if table.divisor % operation.groups:
            raise UserError(
                f"operations: {operation.name} divides channels into {operation.groups} groups, so "
                f"divisor={table.divisor} must be a multiple of {operation.groups}"
            )
    return found


def present_options(stages: Sequence[StageChoices], choices: Sequence[int]) -> Present:
    """Return the layers of an architecture, each with its only option, by index."""
    return {layer: one for stage in stages for layer, one in stage.present(choices).items()}
