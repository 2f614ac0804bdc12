"""ENAS' controller: an LSTM that samples an architecture decision by decision.

Shapes: N architectures, D decisions, H hidden units, S states of a cell that may be read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple, cast

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from nasrun.limits import Strength, Width
from nasrun.run.memory import check_fits, network_bytes
from nasrun.search_space.base import SearchSpace
from nasrun.search_space.capabilities import TwoInputNodes
from nasrun.values import Architecture

Positive = Annotated[Strength, Field(gt=0)]

GIVEN_STATES = 2
"""Number of states that a cell begins with: the outputs of the two cells before it."""

CONV_WORD = "conv"
"""Names of convolutions contain this word."""


@dataclass(frozen=True, kw_only=True)
class ControllerSettings:
    """Sizes and biases of the network; units and sources stand in the YAML file."""

    hidden: Width
    init_range: Strength
    tanh_constant: Positive | None
    op_tanh_reduce: Positive
    conv_bias: Strength
    normal_bias: Strength


@dataclass(frozen=True)
class Step:
    """One step of the LSTM.

    act: ``cell``: begins a cell and makes its two given states (two steps); ``input``: samples one
    of the states so far, by attention; ``option``: samples an option, by softmax; ``node``: makes
    the state of the node that is now complete.
    decision: index of the sampled decision.
    head: index of the softmax.
    biased: whether convolutions are favoured in this step.
    """

    act: Literal["cell", "input", "option", "node"]
    decision: int = -1
    head: int = -1
    biased: bool = False


class Sample(NamedTuple):
    """N architectures with their probabilities.

    choices: [N, D], int64.
    log_prob: log-probability of each architecture [N], in nats; with a gradient.
    entropy: entropy of each decision given the previous ones, summed [N], in nats; with a gradient.
    """

    choices: Tensor
    log_prob: Tensor
    entropy: Tensor


Choose = Callable[[Step, Tensor], Tensor]
"""(Step, log-probabilities of its options [N, options]) -> chosen options [N]."""


def plan_of(space: SearchSpace) -> list[Step]:
    """Return the steps in which a controller decides.

    In spaces with ``TwoInputNodes`` it decides node by node on both inputs, then on both operations
    (ENAS, §2.4). In any other space it takes the decisions in their order.
    """
    kinds = list(dict.fromkeys(decision.kind for decision in space.decisions))
    heads = [kinds.index(decision.kind) for decision in space.decisions]
    if not isinstance(space, TwoInputNodes):
        return [Step("option", index, head) for index, head in enumerate(heads)]
    plan: list[Step] = []
    for cell in range(2):
        plan.append(Step("cell"))
        for node in range(space.nodes):
            first = 4 * (cell * space.nodes + node)  # x input, x op, y input, y op
            plan += [Step("input", first), Step("input", first + 2)]
            for index in (first + 1, first + 3):
                plan.append(Step("option", index, heads[index], biased=cell == 0))
            plan.append(Step("node"))
    return plan


class Controller(nn.Module):
    """The policy over the architectures of a space.

    Source: Pham et al., arXiv 1802.03268, and its released code.

    The choice of a step is the input of the next one: an operation as an embedding, an earlier node
    as its state. Decisions of one kind share a softmax and the embeddings. The reduction cell
    starts with the LSTM's state after the normal cell.
    """

    favour: Tensor

    def __init__(self, settings: ControllerSettings, space: SearchSpace) -> None:
        """Make the controller, with weights from torch's default generator."""
        super().__init__()
        self.space, self.plan, hidden = space, plan_of(space), settings.hidden
        self.limit = settings.tanh_constant
        self.option_limit = self.limit and self.limit / settings.op_tanh_reduce
        self.counts = [len(decision.options) for decision in space.decisions]
        widths: dict[int, int] = {}
        for step in self.plan:
            if step.act == "option":
                count = self.counts[step.decision]
                widths[step.head] = max(widths.get(step.head, 0), count)
        self.place = {head: index for index, head in enumerate(widths)}
        self.heads = nn.ModuleList(nn.Linear(hidden, width) for width in widths.values())
        self.embeddings = nn.ModuleList(nn.Embedding(width, hidden) for width in widths.values())
        self.lstm = nn.LSTMCell(hidden, hidden, bias=False)
        self.start = nn.Parameter(torch.empty(hidden))
        attends = any(step.act == "input" for step in self.plan)
        self.key, self.query, self.energy = (
            nn.Linear(hidden, width, bias=False) if attends else nn.Identity()
            for width in (hidden, hidden, 1)
        )
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -settings.init_range, settings.init_range)
        for head in self.heads:
            nn.init.zeros_(cast(nn.Linear, head).bias)
        favour = torch.zeros(0)
        if isinstance(space, TwoInputNodes):
            convolutions = torch.tensor([CONV_WORD in name for name in space.operations]).float()
            with torch.no_grad():
                cast(nn.Linear, self.heads[0]).bias.add_(settings.conv_bias * convolutions)
            favour = settings.normal_bias * (2 * convolutions - 1)
        self.register_buffer("favour", favour, persistent=False)

    def sample(self, count: int, generator: torch.Generator) -> Sample:
        """Sample ``count`` architectures, independently."""

        def choose(step: Step, log_probs: Tensor) -> Tensor:
            return torch.multinomial(log_probs.detach().exp(), 1, generator=generator)[:, 0]

        return self._walk(count, choose)

    def probabilities_of(self, choices: Tensor) -> Sample:
        """Return given architectures [N, D] with their probabilities, as if they were sampled."""
        return self._walk(len(choices), lambda step, _: choices[:, step.decision])

    def architectures(self, choices: Tensor, rng: np.random.Generator) -> list[Architecture]:
        """[N, D] -> N architectures; ``rng`` repairs choices that are not a valid architecture."""
        rows = choices.tolist()
        return [self.space.repair(Architecture(self.space.name, tuple(row)), rng) for row in rows]

    def _walk(self, count: int, choose: Choose) -> Sample:
        start = self.start.expand(count, -1)
        nothing = torch.zeros_like(start)
        memory, x = (nothing, nothing), start
        values: list[Tensor] = []
        keys: list[Tensor] = []
        chosen = [nothing.new_zeros(count, dtype=torch.long)] * len(self.counts)
        log_prob = entropy = nothing.new_zeros(count)
        for step in self.plan:
            memory = self.lstm(x, memory)
            if step.act == "cell":
                keys = [self.key(memory[0])]
                memory = self.lstm(x, memory)
                keys.append(self.key(memory[0]))
                values = [nothing] * GIVEN_STATES  # their inputs to the next step are zeros
                continue
            if step.act == "node":
                values.append(memory[0])
                keys.append(self.key(memory[0]))
                x = start
                continue
            log_probs = F.log_softmax(self._logits(step, memory[0], keys), dim=1)
            choice = choose(step, log_probs)
            chosen[step.decision] = choice
            log_prob = log_prob + log_probs.gather(1, choice[:, None])[:, 0]
            entropy = entropy - (log_probs.exp() * log_probs).sum(1)
            if step.act == "input":
                x = torch.stack(values, dim=1)[torch.arange(count), choice]
            else:
                x = self.embeddings[self.place[step.head]](choice)
        return Sample(torch.stack(chosen, dim=1), log_prob, entropy)

    def _logits(self, step: Step, hidden: Tensor, keys: Sequence[Tensor]) -> Tensor:
        """Compute the logits [N, options] from the hidden state [N, H] and S keys [N, H]."""
        if step.act == "input":
            mixed = torch.tanh(torch.stack(list(keys), dim=1) + self.query(hidden)[:, None])
            return bounded(self.energy(mixed)[:, :, 0], self.limit)
        logits = self.heads[self.place[step.head]](hidden)[:, : self.counts[step.decision]]
        logits = bounded(logits, self.option_limit)
        return logits + self.favour if step.biased else logits


def bounded(logits: Tensor, limit: float | None) -> Tensor:
    """Squash logits into (-limit, limit); limit None: leave them as they are."""
    return logits if limit is None else limit * torch.tanh(logits)


def check_controller(settings: ControllerSettings, space: SearchSpace) -> None:
    """Raise UserError if a controller of ``space`` does not fit into the memory in training."""
    weights = network_bytes(lambda: Controller(settings, space))
    # For each weight there are a gradient and two numbers of Adam.
    check_fits(4 * weights, "search_algo.controller", "search_algo.controller.hidden")
