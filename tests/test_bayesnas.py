"""BayesNAS: its update by hand and on a quadratic, curvatures, what is derived."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from helpers import gate_context, space_of
from test_search_algo import Plain
from torch import Tensor, nn

from nasrun.errors import MissingCapabilityError, UserError
from nasrun.search_algo.bayesnas import BayesNas, RelevanceGates, reweighted
from nasrun.search_algo.dso.apg import ApgNag

NO_BATCH: Any = (torch.zeros(0), torch.zeros(0))


def algo(**changes: Any) -> BayesNas:
    settings: dict[str, Any] = {"rest_epochs": 0, "lr": 0.1, "momentum": 0.0, "probes": 2}
    settings |= {"edge_strength": 0.01, "option_strength": 0.02, "update_epochs": 1}
    return BayesNas(**settings | {"threshold": 0.05} | changes)


def gates(space: str = "darts_cell", **changes: Any) -> RelevanceGates:
    return RelevanceGates(algo(**changes), gate_context(space_once(space)))


@cache
def space_once(name: str) -> Any:
    words = ["search_space.nodes=1"] if name == "darts_cell" else []
    return space_of(name, *words)


class Quadratic:
    """A training with the loss Σ h (w - a)² / 2 over the weights w of all open options."""

    def __init__(self, learner: RelevanceGates, h: Tensor, a: Tensor) -> None:
        self.learner, self.h, self.a, self.network = learner, h, a, nn.Module()

    def gradients(self, images: Any, labels: Any, gates: Any, inputs: list[Tensor]) -> Tensor:
        loss = sum(
            h * (gates[place][option] - a) ** 2 / 2
            for (place, option), h, a in zip(self.learner.options, self.h, self.a, strict=True)
            if isinstance(gates[place], dict) and option in gates[place]
        )
        loss.backward()  # type: ignore[union-attr]
        return torch.tensor([1.0, 0.5])


def test_one_update_by_hand() -> None:
    """H / λ = 4 and γ = 0.5: ω = sqrt(4 / (1 + 2)), as by the posterior variance 1 / 6."""
    omega, gamma = reweighted(*map(torch.tensor, ([-0.3], [0.5], [0.04], [0.01])))
    variance = 1 / (1 / 0.5 + 4)
    assert omega.item() == pytest.approx((1 / 0.5 - variance / 0.5**2) ** 0.5)
    assert omega.item() == pytest.approx((4 / 3) ** 0.5)
    assert gamma.item() == pytest.approx(0.3 / (4 / 3) ** 0.5)


def test_on_a_quadratic_it_ends_at_the_maximum_of_the_evidence() -> None:
    """γ = a² - λ / H where that is positive, else 0, and the switch goes to exactly 0."""
    a, h, strength = torch.tensor([1.0, -0.8, 0.3, 0.05]), torch.full((4,), 2.0), 0.1
    gamma, omega = torch.ones(4), torch.ones(4)
    apg = ApgNag(4, torch.device("cpu"), rate=0.3, momentum=0.0, clip=0, non_negative=False)
    for _ in range(30):
        for _ in range(30):
            apg.values.grad = h * (apg.values.detach() - a)
            apg.step(strength * omega)
        omega, gamma = reweighted(apg.values.detach(), gamma, h, torch.full((4,), strength))
    assert gamma.tolist() == pytest.approx([1 - 0.05, 0.64 - 0.05, 0.09 - 0.05, 0.0], abs=1e-3)
    assert apg.values[3] == 0


@pytest.mark.few(1)
@pytest.mark.parametrize("space", ["one_shot_blocks", "darts_cell"])
def test_the_curvature_of_a_quadratic_is_exact(space: str) -> None:
    """Of on-off decisions h; of w = s_edge s_option with s = 1 each h and, over the edge, Σ h."""
    learner = gates(space, probes=1 if space == "one_shot_blocks" else 200)
    count = len(learner.options)
    h = torch.linspace(0.5, 2.0, count)
    learner.learn_before(0, NO_BATCH, Quadratic(learner, h, torch.ones(count)))  # type: ignore[arg-type]
    found = learner.curvature(1)
    own = found[learner.edges :]
    if space == "one_shot_blocks":
        assert torch.allclose(own, h, rtol=1e-3)
    else:  # off the diagonal is noise, which 200 random signs average out
        assert torch.allclose(own, h, atol=0.6) and (own - h).abs().mean() < 0.2
        over = torch.zeros(learner.edges).index_add(0, learner.edge_of, h)
        assert torch.allclose(found[: learner.edges], over, rtol=0.2)


def test_an_option_is_no_more_relevant_than_its_edge() -> None:
    learner = gates()
    count = len(learner.options)
    learner.learn_before(0, NO_BATCH, Quadratic(learner, torch.ones(count), torch.ones(count)))  # type: ignore[arg-type]
    with torch.no_grad():
        learner.apg.values[0] = 1e-3  # an edge
    learner._update(1)
    of_edges = learner.gamma[: learner.edges][learner.edge_of]
    assert (learner.gamma[learner.edges :] <= of_edges).all()
    assert max(learner.relevances()[0]) < min(r for r in learner.relevances()[1] if r > 0)


def test_what_is_derived() -> None:
    """In darts_cell the two most relevant edges; of what is off or on, all that is relevant."""
    learner = gates()
    with torch.no_grad():
        learner.gamma.zero_()
        for place, option, gamma in ((0, 3, 0.5), (1, 5, 0.4), (2, 2, 0.3), (3, 1, 0.9)):
            learner.gamma[learner.edges + learner.options.index((place, option))] = gamma
    assert learner.derive().choices == (3, 5, 2, 1)
    assert learner.warning() is None
    learner.gamma.zero_()
    assert "no option is relevant" in (learner.warning() or "")
    on_off = gates("one_shot_blocks")
    on_off.gamma = torch.where(torch.arange(len(on_off.options)) < 5, 0.06, 0.04)
    form = on_off.space.canonical
    chosen = on_off.derive()
    assert chosen == form(chosen) and not any(chosen.choices[5:])


def test_none_is_taken_where_nothing_else_is_relevant() -> None:
    learner = gates("nas_bench_201")
    with torch.no_grad():
        learner.gamma.fill_(0.01)
        learner.gamma[learner.edges + learner.options.index((2, 3))] = 0.2
    assert learner.derive().choices == (0, 0, 3, 0, 0, 0)


def test_what_it_refuses() -> None:
    with pytest.raises(MissingCapabilityError, match="opens one option of a decision"):
        algo().check(Plain(2, 2))
    with pytest.raises(UserError, match="no relevance would be computed"):
        gates(rest_epochs=2, update_epochs=1)
