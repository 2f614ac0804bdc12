"""APG-NAG: one step by hand, and the solution of a small lasso problem."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nasrun.search_algo.dso.apg import ApgNag

CPU = torch.device("cpu")


def solver(size: int = 1, **changed: object) -> ApgNag:
    settings = {"rate": 0.1, "momentum": 0.9, "clip": 2.0, "non_negative": True} | changed
    return ApgNag(size, CPU, **settings)


def step(apg: ApgNag, gradient: list[float], penalty: float, mask=None) -> list[float]:
    apg.values.grad = torch.tensor(gradient)
    apg.step(penalty, mask)
    return apg.values.tolist()


def test_two_steps_by_hand():
    # z = 1 - 0.05 - 0.02 = 0.93; v = -0.07; λ = 0.93 - 0.063 = 0.867
    # z = 0.867 - 0.07 = 0.797; v = 0.9·(-0.07) - 0.07 = -0.133; λ = 0.797 - 0.1197 = 0.6773
    apg = solver()
    assert step(apg, [0.5], 0.2) == pytest.approx([0.867])
    assert step(apg, [0.5], 0.2) == pytest.approx([0.6773])


def test_gradients_are_clipped_element_by_element():
    apg = solver(3, momentum=0.0)
    assert step(apg, [100.0, 1.0, -7.0], 0.0) == pytest.approx([0.8, 0.9, 1.2])
    free = solver(1, momentum=0.0, clip=0.0)
    assert step(free, [5.0], 0.0) == pytest.approx([0.5])


def test_what_would_be_negative_is_exactly_zero_unless_that_is_allowed():
    assert step(solver(1, clip=0.0), [50.0], 0.0) == [0.0]
    assert step(solver(1, clip=0.0, non_negative=False), [50.0], 0.0)[0] < 0


def test_the_penalty_alone_ends_at_exactly_zero_and_stays_there():
    apg = solver(2)
    for _ in range(200):
        step(apg, [0.0, 0.0], 0.1)
    assert apg.values.tolist() == [0.0, 0.0]


def test_without_a_gradient_an_edge_dies_after_a_known_number_of_steps():
    """Of the penalty 0.03 after 42 steps, and of a tenth of it after some hundreds."""
    for penalty, known in ((0.03, 42), (0.003, 342)):
        apg, steps = solver(), 0
        while apg.values.item() > 0:
            step(apg, [0.0], penalty)
            steps += 1
        assert steps == known


def test_what_is_masked_never_comes_back():
    apg, mask = solver(2), torch.tensor([1, 0])
    apg.close(mask)
    assert apg.values.tolist() == [1.0, 0.0]
    for _ in range(5):
        values = step(apg, [-1.0, -1.0], 0.0, mask)
    assert values[0] > 1 and values[1] == 0.0


@pytest.mark.few(1)
@pytest.mark.parametrize("non_negative", [True, False])
def test_a_lasso_problem_has_the_solution_of_the_plain_proximal_gradient(non_negative):
    rng = np.random.default_rng(0)
    a = torch.tensor(rng.normal(size=(40, 12)) / np.sqrt(40), dtype=torch.float32)
    truth = torch.tensor([2.0, 0, 0, 1.5, 0, -1.0, 0, 0, 0.8, 0, 0, -0.5])
    b, penalty, rate = a @ truth, 0.05, 0.1

    plain = torch.ones(12)
    for _ in range(20_000):
        moved = plain - rate * a.T @ (a @ plain - b)
        plain = moved.sign() * (moved.abs() - rate * penalty).clamp(min=0)
        if non_negative:
            plain = plain.clamp(min=0)

    apg = solver(12, rate=rate, clip=0.0, non_negative=non_negative)
    for _ in range(3000):
        (0.5 * (a @ apg.values - b).square().sum()).backward()
        apg.step(penalty)
    assert torch.allclose(apg.values, plain, atol=1e-4)
    assert torch.equal(apg.values == 0, plain == 0)
    assert 0 < (plain == 0).sum() < 12


def test_the_state_goes_on_where_it_was():
    one, other = solver(2), solver(2)
    for _ in range(3):
        step(one, [0.3, -0.2], 0.1)
    other.load_state_dict(one.state_dict())
    assert step(one, [0.3, -0.2], 0.1) == step(other, [0.3, -0.2], 0.1)
    with pytest.raises(ValueError, match="another search space"):
        solver(3).load_state_dict(one.state_dict())
