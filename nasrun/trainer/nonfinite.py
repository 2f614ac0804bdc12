"""Handling of non-finite losses: skip the step, or stop with a report."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
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


class Copies:
    """Copies of tensors as they are now, e.g. batch norm statistics, to undo a step.

    They are joined by type: a few calls for thousands of tensors.
    """

    def __init__(self, tensors: Iterable[Tensor]) -> None:
        by_type: dict[torch.dtype, list[Tensor]] = {}
        for tensor in tensors:
            by_type.setdefault(tensor.dtype, []).append(_as_in_memory(tensor.detach()))
        self._tensors = list(by_type.values())
        self.save()

    def save(self) -> None:
        """Copy the tensors as they are now."""
        self._saved = [_joined(tensors) for tensors in self._tensors]

    def restore(self, unless: Tensor | None = None) -> None:
        """Put the tensors back as they were saved.

        unless: a truth value on their device, for which the host does not wait: where it is true,
        the tensors stay as they are; None: false.
        """
        for tensors, saved in zip(self._tensors, self._saved, strict=True):
            chosen = saved if unless is None else torch.where(unless, _joined(tensors), saved)
            parts = torch.split(chosen, [tensor.numel() for tensor in tensors])
            shaped = [part.view(t.shape) for part, t in zip(parts, tensors, strict=True)]
            torch._foreach_copy_(tensors, shaped)


def _as_in_memory(tensor: Tensor) -> Tensor:
    """Return a view whose dimensions have the order of its memory, for the layouts of networks."""
    is_plain = tensor.dim() != 4 or tensor.is_contiguous()
    return tensor if is_plain else tensor.permute(0, 2, 3, 1)  # channels_last


def _joined(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat([tensor.reshape(-1) for tensor in tensors])


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
