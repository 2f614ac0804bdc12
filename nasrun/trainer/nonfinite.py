"""What becomes of a training step that goes wrong: undone, or told in full."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NoReturn

import torch
from torch import Tensor, nn

from nasrun.errors import UserError
from nasrun.run.monitor import Monitor
from nasrun.search_space.gates import Gate, Gates

MOST_SKIPPED = 100
"""Steps in a row; after so many without a finite loss the weights are beyond help."""

FEW = 4
"""Paths of a step that are told in a line; of more, only how many they are."""


class Buffers:
    """The buffers of a network (batch norm statistics) as they were before a step."""

    def __init__(self, network: nn.Module) -> None:
        self.buffers = list(network.buffers())
        self.saved = [buffer.clone() for buffer in self.buffers]

    def save(self) -> None:
        self._copy(self.buffers, self.saved)

    def restore(self) -> None:
        self._copy(self.saved, self.buffers)

    @staticmethod
    @torch.no_grad()
    def _copy(source: list[Tensor], target: list[Tensor]) -> None:
        if source:
            torch._foreach_copy_(target, source)  # one call: a supernet has thousands


def gradient_norm(parameters: Sequence[Tensor]) -> Tensor:
    """The norm of all gradients together, a scalar on their device."""
    return nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])


def _shown(gate: Gate) -> int | dict[str, float]:
    """A gate as JSON; a weight that differs between images by its mean."""
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
    """Raises UserError over the loss of ``step``, with all that helps to find the cause."""
    shown = [[_shown(gate) for gate in path] for path in gates] if gates else None
    what = ""
    if shown:
        single = all(isinstance(gate, int) for path in shown for gate in path)
        if len(shown) > FEW:
            told = f"one of {len(shown)} paths"
        elif single:
            told = f"architecture {', '.join(map(str, shown))}"
        else:  # weights of many options, for the note alone
            told = f"a mixture over {len(shown[0])} decisions"
        what = f" of {told}"
    note = monitor.write_note(
        "nonfinite",
        # JSON has no sign for infinity.
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
        advice = f"{skipped} steps were skipped, {MOST_SKIPPED} in a row: lower schedule.lr"
    raise UserError(
        f"{name}: the loss{what} is {kind} at step {step} with learning rate {lr:.3g}: {advice}; "
        f"{note}"
    )
