"""Reinforcement learning over architectures: gradients and rewards by hand, planted scores."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers import space_of
from scipy import stats
from test_enas import FREE, all_of, controller
from test_evolution import Planted, flat, started
from test_search_algo import Plain, conf, start
from torch import Tensor, nn

from nasrun.config.build import build
from nasrun.errors import UserError
from nasrun.search_algo.random_search import RandomSearch
from nasrun.search_algo.reinforce import Reinforce
from nasrun.search_algo.reinforce.learning import LearningSettings, PolicyLearning, clipped_loss
from nasrun.search_algo.reinforce.reward import Reward

LEARNING: dict[str, Any] = {
    "rule": "reinforce",
    "lr": 0.01,
    "baseline_decay": 0.9,
    "entropy_weight": 0.0,
    "clip": 0.2,
    "epochs": 3,
    "max_norm": 0.0,
}
SCORE: dict[str, Any] = {"cost": "none", "target": 1, "within": 0.0, "beyond": 0.0}
MACS = {"cost": "macs", "within": -0.07, "beyond": -0.07}


def algo(**changes: Any) -> Reinforce:
    learning = LearningSettings(**LEARNING | changes.pop("learning", {}))
    reward = Reward(**SCORE | changes.pop("reward", {}))
    sizes = {"evaluations": 60, "batch": 10} | changes
    return Reinforce(**sizes, controller=FREE, learning=learning, reward=reward)


def learner(space: Any, **changes: Any) -> PolicyLearning:
    made = controller(space, FREE, hidden=4, init_range=1.0).double()
    return PolicyLearning(made, LearningSettings(**LEARNING | changes))


def gradients(learning: PolicyLearning, loss: Tensor) -> list[Tensor]:
    learning.controller.zero_grad()
    loss.backward()
    return [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters(learning)]


def parameters(learning: PolicyLearning) -> list[nn.Parameter]:
    return list(learning.controller.parameters())


# Steps of the policy.


@pytest.mark.parametrize("rule", ["reinforce", "ppo"])
def test_the_policy_gradient_of_a_bandit_is_the_analytic_one(rule: str) -> None:
    """The mean gradient over the policy is p_a (R_a - Σ p R) for the logit of an arm."""
    learning = learner(Plain(1, 2), rule=rule)
    arms, rewards = torch.tensor([[0], [1]]), torch.tensor([0.3, 0.9]).double()
    with torch.no_grad():
        shares = learning.controller.probabilities_of(arms).log_prob.exp()
    assert shares.sum().item() == pytest.approx(1)
    baseline = 0.7  # of no effect on the mean
    found = [torch.zeros_like(p) for p in parameters(learning)]
    for arm, share, reward in zip(arms, shares, rewards, strict=True):
        loss = learning.loss(arm[None], reward[None] - baseline, None)
        for total, gradient in zip(found, gradients(learning, loss), strict=True):
            total += share * gradient
    expected = -(learning.controller.probabilities_of(arms).log_prob.exp() * rewards).sum()
    for one, other in zip(found, gradients(learning, expected), strict=True):
        assert torch.allclose(one, other, atol=1e-12)
    by_hand = -shares * (rewards - (shares * rewards).sum())
    place = [name for name, _ in learning.controller.named_parameters()].index("heads.0.bias")
    assert torch.allclose(found[place], by_hand, atol=1e-12) and by_hand.abs().min() > 1e-3


def test_ppo_begins_as_reinforce_and_stops_where_the_policy_has_moved() -> None:
    space, advantages = Plain(3, 3), torch.tensor([0.5, -0.2, 0.1]).double()
    one, other = learner(space), learner(space, rule="ppo")
    choices = torch.tensor([[0, 1, 2], [2, 2, 0], [1, 0, 1]])
    ours, theirs = (gradients(each, each.loss(choices, advantages, None)) for each in (one, other))
    for first, second in zip(ours, theirs, strict=True):
        assert torch.allclose(first, second, atol=1e-12)
    # Sampled by a policy that gave them twice, or half, of their present probabilities.
    now = other.controller.probabilities_of(choices).log_prob.detach()
    assert all(
        not g.any()
        for g in gradients(other, other.loss(choices[:1], advantages[:1], now[:1] - 0.7))
    )
    assert any(
        g.any() for g in gradients(other, other.loss(choices[:1], advantages[:1], now[:1] + 0.7))
    )


def test_the_clipped_objective_by_hand() -> None:
    """Schulman et al. 2017, figure 1: the bound holds where a step would go further."""
    for ratio, advantage, loss, slope in (
        *((1.5, 1.0, -1.2, 0.0), (0.5, 1.0, -0.5, -1.0)),
        *((1.5, -1.0, 1.5, 1.0), (0.5, -1.0, 0.8, 0.0), (1.1, 2.0, -2.2, -2.0)),
    ):
        r = torch.tensor([ratio], requires_grad=True)
        found = clipped_loss(r, torch.tensor([advantage]), 0.2)
        found.backward()
        assert (found.item(), r.grad.item()) == (pytest.approx(loss), pytest.approx(slope))


def test_the_baseline_is_that_of_earlier_updates(monkeypatch: pytest.MonkeyPatch) -> None:
    learning, seen = learner(Plain(1, 2)), []
    original = PolicyLearning.loss

    def watched(self: Any, choices: Tensor, advantages: Tensor, before: Any) -> Tensor:
        seen.append(advantages.tolist())
        return original(self, choices, advantages.double(), before)

    monkeypatch.setattr(PolicyLearning, "loss", watched)
    for rewards in ([0.2, 0.4], [1.0, 1.0], [0.0, 0.0]):
        learning.update(torch.tensor([[0], [1]]), rewards)
    # Baselines: the first mean 0.3, then 0.3 (0.9 · 0.3 + 0.1 · 0.3), then 0.9 · 0.3 + 0.1 · 1.
    expected = [[-0.1, 0.1], [0.7, 0.7], [-0.37, -0.37]]
    assert [pytest.approx(row) for row in expected] == seen


def test_entropy_alone_makes_the_policy_uniform() -> None:
    learning = learner(Plain(2, 3), entropy_weight=1.0, lr=0.1)
    every = all_of(Plain(2, 3))
    for _ in range(40):
        learning.update(every, [0.5] * len(every))
    shares = learning.controller.probabilities_of(every).log_prob.exp()
    assert shares.tolist() == pytest.approx([1 / 9] * 9, abs=0.01)


# Rewards.


def test_the_rewards_of_mnasnet_by_hand() -> None:
    """Twice the latency is worth about 5 % of accuracy, whence -0.07 (section 3)."""
    soft = Reward(**SCORE | MACS | {"target": "100M"})
    assert soft.of(0.7, 100e6) == 0.7
    assert soft.of(0.7 * 1.05, 200e6) == pytest.approx(0.7, rel=1e-3)
    assert soft.of(0.5, 50e6) == pytest.approx(0.5 * 2**0.07)
    hard = Reward(cost="latency_ms", target=80, within=0, beyond=-1)
    assert (hard.of(0.7, 20), hard.of(0.7, 80)) == (0.7, 0.7)
    assert hard.of(0.7, 160) == pytest.approx(0.35)
    assert Reward(**SCORE).of(0.7, 1e12) == 0.7


def test_the_winner_has_the_largest_reward() -> None:
    space = Planted(0)
    search = started(
        algo(evaluations=20, reward=MACS | {"target": 5, "beyond": -5.0, "within": 0.0}), space
    )
    flat(search)
    by_reward = [
        search.algo.reward.of(trial.score, space.price(trial.architecture))
        for trial in search.best(20)
    ]
    assert by_reward == sorted(by_reward, reverse=True)
    scores = [trial.score for trial in search.best(20)]
    assert scores != sorted(scores, reverse=True)
    assert search.costs(search.best(1)[0]) == {"macs": space.price(search.best(1)[0].architecture)}


def test_nothing_outside_the_budget_is_asked_for_or_rewarded() -> None:
    space = Planted(1)
    search = started(algo(evaluations=30), space, high=11.0)
    asked = flat(search)
    assert len(asked) == 30 and all(space.price(one) <= 11 for one in asked)


# Whole searches.


@pytest.mark.soak
@pytest.mark.parametrize("rule", ["reinforce", "ppo"])
def test_it_finds_more_than_random_search(rule: str) -> None:
    wins, learning = 0, {"rule": rule, "lr": 0.01, "entropy_weight": 1e-3}
    for seed in range(6):
        space = Planted(seed)
        ours = started(algo(evaluations=200, learning=learning), space, seed)
        theirs = started(RandomSearch(evaluations=200, batch=200), space, seed)
        assert len(flat(ours)) == 200
        flat(theirs)
        wins += ours.best(1)[0].score > theirs.best(1)[0].score
    assert stats.binomtest(wins, 6, alternative="greater").pvalue < 0.05


@pytest.mark.soak
def test_a_policy_that_has_made_up_its_mind_gives_way_to_random_ones() -> None:
    """With a rate that makes it sample the same for ever, all of a small space is scored."""
    search = start(algo(evaluations=30, batch=4, learning={"lr": 1.0}), Plain(2, 3))
    assert len(flat(search)) == 9
    assert search.exhausted and search.best(1)[0].score == 0.04


@pytest.mark.soak
@pytest.mark.parametrize("name", ["nao_cell", "darts_cell", "dso_block", "spos_blocks"])
def test_architectures_are_of_the_space(name: str) -> None:
    space = space_of(name)
    search = start(algo(evaluations=6, batch=3), space)
    space.score = lambda one: sum(one.choices) / 1000  # type: ignore[attr-defined]
    for one in flat(search):
        space.check(one)


# Configuration.


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"batch": 0}, r"search_algo\.batch = 0"),
        ({"learning": {"rule": "a2c"}}, r"search_algo\.learning\.rule"),
        ({"learning": {"clip": 0}}, r"search_algo\.learning\.clip = 0"),
        ({"reward": {"cost": "flops"}}, r"search_algo\.reward\.cost"),
        ({"reward": {"beyond": 0.07}}, r"search_algo\.reward\.beyond = 0\.07"),
        ({"reward": {"target": "5 parsec"}}, r"search_algo\.reward\.target"),
    ],
)
def test_bad_input(changes: dict[str, Any], said: str) -> None:
    node = conf("reinforce.yaml")
    for key, value in changes.items():
        node[key] = node[key] | value if isinstance(value, dict) else value
    with pytest.raises(UserError, match=said):
        build(node, "search_algo")


def test_weights_that_are_no_numbers_are_reported() -> None:
    learning = learner(Plain(1, 2))
    with pytest.raises(UserError, match=r"lower search_algo\.learning\.lr"):
        learning.update(torch.tensor([[0]]), [float("nan")])
