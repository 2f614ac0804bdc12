"""Handling of non-finite losses: skip the step, or stop with a report."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NoReturn

import torch
from torch import Tensor, nn

from nasrun.errors import UserError
from nasrun.run.layout import NONFINITE
from nasrun.run.monitor import Monitor
from nasrun.search_space.gates import Gate, Gates

MAX_SKIPPED_STEPS = 100
"""The training stops after so many skipped steps in a row: the weights are then useless."""

MAX_LISTED_PATHS = 4
"""Upper bound of the paths of a step that a message lists; otherwise it gives their number."""


class Buffers:
    """A copy of a network's buffers (batch norm statistics), to restore them."""

    def __init__(self, network: nn.Module) -> None:
        self.buffers = list(network.buffers())
        self.saved = [buffer.clone() for buffer in self.buffers]

    def save(self) -> None:
        """Copy the current buffers."""
        self._copy(self.buffers, self.saved)

    def restore(self) -> None:
        """Put the buffers back as they were saved."""
        self._copy(self.saved, self.buffers)

    @staticmethod
    @torch.no_grad()
    def _copy(source: list[Tensor], target: list[Tensor]) -> None:
        if source:
            torch._foreach_copy_(target, source)  # one call for thousands of buffers


def gradient_norm(parameters: Sequence[Tensor]) -> Tensor:
    """Return the norm of all gradients together, a scalar on their device."""
    return nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])


def _gate_to_json(gate: Gate) -> int | dict[str, float]:
    """Return a gate as JSON; weights that differ between images are averaged."""
    if isinstance(gate, int):
        return gate
    return {str(option): float(torch.as_tensor(w).detach().mean()) for option, w in gate.items()}


def stop_over_loss(
    monitor: Monitor,
    name: str,
    *,
    step: int,
    loss: float,
    lr: float,
    gates: Sequence[Gates] | None,
    skipped: int,
) -> NoReturn:
    """Raise UserError about the loss of ``step``, with details to find the cause."""
    shown = [[_gate_to_json(gate) for gate in path] for path in gates] if gates else None
    what = ""
    if shown:
        single = all(isinstance(gate, int) for path in shown for gate in path)
        if len(shown) > MAX_LISTED_PATHS:
            paths = f"one of {len(shown)} paths"
        elif single:
            paths = f"architecture {', '.join(map(str, shown))}"
        else:  # weights of many options stand only in the note
            paths = f"a mixture over {len(shown[0])} decisions"
        what = f" of {paths}"
    note = monitor.write_note(
        NONFINITE,
        # JSON has no number for infinity.
        {
            "stage": name,
            "step": step,
            "loss": str(loss),
            "lr": lr,
            "architectures": shown,
            "skipped": skipped,
        },
    )
    kind = "not a number" if math.isnan(loss) else "infinite"
    advice = "lower schedule.lr, set clip, or skip such steps with on_nonfinite=skip"
    if skipped:
        advice = f"{skipped} steps were skipped, {MAX_SKIPPED_STEPS} in a row: lower schedule.lr"
    raise UserError(
        f"{name}: the loss{what} is {kind} at step {step} with learning rate {lr:.3g}: {advice}; "
        f"{note}"
    )
