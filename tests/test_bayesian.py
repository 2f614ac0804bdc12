"""Bayesian optimisation by Optuna: planted scores, what is known or forbidden, what is missing."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from scipy import stats
from test_evolution import Planted, flat, started
from test_search_algo import Cell, Plain, saved, start

from nasrun.errors import UserError
from nasrun.run.monitor import NullMonitor
from nasrun.search_algo.bayesian import Bayesian
from nasrun.search_algo.random_search import RandomSearch


def bayesian(**changes: Any) -> Bayesian:
    sizes: dict[str, Any] = {"evaluations": 40, "startup": 8, "model": "tpe"}
    return Bayesian(**sizes | {"multivariate": False, "proposals": 24} | changes)


def test_without_optuna_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(UserError, match=r"pip install 'nasrun\[bayesian\]', or take"):
        start(bayesian())


def test_more_startup_than_evaluations_is_refused() -> None:
    with pytest.raises(UserError, match=r"startup=9 is more than search_algo\.evaluations=8"):
        bayesian(startup=9, evaluations=8)


@pytest.mark.soak
def test_it_finds_more_than_random_search() -> None:
    pytest.importorskip("optuna")
    wins = 0
    for seed in range(10):
        space = Planted(seed)
        ours = started(bayesian(evaluations=60), space, seed)
        theirs = started(RandomSearch(evaluations=60, batch=60), space, seed)
        flat(ours)
        flat(theirs)
        wins += ours.best(1)[0].score > theirs.best(1)[0].score
    assert stats.binomtest(wins, 10, alternative="greater").pvalue < 0.02


@pytest.mark.soak  # the import of Optuna takes a second
@pytest.mark.parametrize("model", ["tpe", "gp"])
def test_all_of_a_small_space_is_found(model: str) -> None:
    """Proposals that are known are not scored again; where there is nothing else, chance helps."""
    optuna = pytest.importorskip("optuna")
    algo = bayesian(evaluations=20, startup=3, model=model)
    if model == "gp" and not hasattr(optuna.samplers, "GPSampler"):
        with pytest.raises(UserError, match="has no Gaussian processes"):
            start(algo, Plain(1, 5))
        return
    search = start(algo, Plain(1, 5))
    assert len(flat(search)) == 5
    assert search.next_round(NullMonitor()) is None
    assert len(search.observed) > 5


@pytest.mark.soak
def test_what_is_forbidden_is_told_to_the_model_alone() -> None:
    pytest.importorskip("optuna")
    space = Planted(0)
    search = started(bayesian(evaluations=16), space, high=10.5)
    asked = flat(search)
    assert len(asked) == 16 and all(space.price(one) <= 10.5 for one in asked)
    assert any(score == 0 for _, score in search.observed)


@pytest.mark.soak
def test_joint_estimators_differ_and_a_state_goes_on() -> None:
    pytest.importorskip("optuna")
    few = [bayesian(multivariate=on, evaluations=14) for on in (False, True)]
    one, joint = (flat(start(algo, Cell())) for algo in few)
    assert one[:8] == joint[:8] and one != joint
    search = start(bayesian(), Cell())
    search.next_round(NullMonitor())
    state = saved(search.state_dict())
    with pytest.raises(ValueError, match="is no number from 0 to 1"):
        start(bayesian(), Cell()).load_state_dict(state | {"observed": [[[9] * 8, 0.5]]})
