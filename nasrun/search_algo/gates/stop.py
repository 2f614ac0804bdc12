"""When the gates stop learning, and maybe the training: by skips, or by sharp curvature."""

from __future__ import annotations

from abc import ABC, abstractmethod
from statistics import fmean
from typing import Annotated, Any, Literal, Protocol

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from nasrun.limits import Count, Epochs


class Stop(BaseModel):
    """Settings of the rules.

    rule: ``epochs``: none but the end of the training; ``skips``: ``SkipStop``; ``eigenvalue``:
    ``EigenvalueStop``; ``agreement``: operations stop one by one, see ``Agreement``.
    then: once the gates have stopped: ``train``: the weights learn on to the last epoch; ``end``:
    the training of the supernet ends as well.
    from_epoch: epochs before which the gates do not stop, or to which they do not go back.
    skips: number of skip connections at which they stop.
    window, delta, factor: see ``EigenvalueStop``. iterations: see ``largest_eigenvalue``.
    agreement, looks: see ``Agreement``.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    rule: Literal["epochs", "skips", "eigenvalue", "agreement"]
    then: Literal["train", "end"]
    from_epoch: Epochs
    skips: Count
    window: Count
    delta: Count
    factor: Annotated[float, Field(gt=1, le=1e6)]
    iterations: Annotated[int, Field(ge=1, le=1000)]
    agreement: Annotated[float, Field(ge=-1, le=1)]
    looks: Count


class Measures(Protocol):
    """The measurements that a rule of stopping may ask for; ``Probe`` makes them."""

    @property
    def logits(self) -> Tensor:
        """A copy of the logits [D, K]."""

    def skip_count(self) -> int:
        """Return the number of skip connections in the architecture that the gates favour."""

    def sharpness(self) -> float:
        """Return the largest eigenvalue of the Hessian of the held-out loss by the logits."""


class StopRule(ABC):
    """A rule that looks at the gates after each epoch."""

    @abstractmethod
    def look(self, epoch: int, probe: Measures) -> Tensor | None:
        """Return the logits to end with if the gates stop after ``epoch`` epochs, else None."""

    def metrics(self) -> dict[str, float]:
        """Return the last measurements, for a line of metrics."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:  # noqa: B027 - some have no state
        """Continue from ``state``."""


class SkipStop(StopRule):
    """Stops once the favoured architecture has a number of skip connections.

    Source: DARTS+ (Liang et al., arXiv 1909.06035), criterion 1: two in a normal cell.
    """

    def __init__(self, settings: Stop) -> None:
        self.settings = settings

    def look(self, epoch: int, probe: Measures) -> Tensor | None:
        if epoch < self.settings.from_epoch or probe.skip_count() < self.settings.skips:
            return None
        return probe.logits


class EigenvalueStop(StopRule):
    """Stops where the held-out loss becomes sharp around the gates.

    With λ(i) the mean of the largest eigenvalue over ``window`` epochs around epoch i, the gates
    stop once λ(i) > factor · λ(i - delta), and go back to the logits of epoch i - delta. They do
    not go back to one of the first ``from_epoch`` epochs.
    Source: RobustDARTS (Zela et al., ICLR 2020, arXiv 1909.09656), §4.3; its code: factor 1.3,
    where the paper has λ(i - k) / λ(i) < 0.75.
    """

    def __init__(self, settings: Stop) -> None:
        self.settings = settings
        self.eigenvalues: list[float] = []
        self.back = settings.window // 2 + settings.delta
        self.logits: list[Tensor] = []  # of the last ``back`` + 1 epochs

    def look(self, epoch: int, probe: Measures) -> Tensor | None:
        window, delta = self.settings.window, self.settings.delta
        self.eigenvalues.append(probe.sharpness())
        self.logits = [*self.logits, probe.logits.cpu()][-self.back - 1 :]
        if epoch - self.back <= self.settings.from_epoch or len(self.logits) <= self.back:
            return None
        now = fmean(self.eigenvalues[-window:])
        before = fmean(self.eigenvalues[:-delta][-window:])
        return self.logits[0] if before > 0 and now > self.settings.factor * before else None

    def metrics(self) -> dict[str, float]:
        return {"gates_eigenvalue": self.eigenvalues[-1]} if self.eigenvalues else {}

    def state_dict(self) -> dict[str, Any]:
        logits = torch.stack(self.logits) if self.logits else torch.zeros(0)
        return {"eigenvalues": list(self.eigenvalues), "logits": logits}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.eigenvalues = [float(value) for value in state["eigenvalues"]]
        self.logits = list(state["logits"])


def rule_of(settings: Stop) -> StopRule | None:
    """Return the rule that looks after each epoch; None: there is none."""
    if settings.rule == "skips":
        return SkipStop(settings)
    return EigenvalueStop(settings) if settings.rule == "eigenvalue" else None
