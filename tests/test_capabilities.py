"""Capabilities of spaces: a user's own space works wherever it has what is needed."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from helpers import TASK, space_of
from test_search_algo import Plain, start

from nasrun.cli.errors import verdict
from nasrun.config.build import build
from nasrun.errors import MissingCapabilityError, UserError
from nasrun.run.monitor import NullMonitor
from nasrun.search_algo.enas.controller import plan_of
from nasrun.search_algo.gates.learned_gates import LearnedGates
from nasrun.search_algo.gates.p_darts import PDarts, StagedSupernet
from nasrun.search_algo.gates.soft_gates import GateAdam
from nasrun.search_algo.random_search import RandomSearch
from nasrun.search_space.base import Supernet
from nasrun.search_space.capabilities import (
    DeeperCells,
    OperationLevels,
    TwoInputNodes,
    has_deeper_cells,
    has_operation_levels,
)
from nasrun.search_space.gates import GateKind
from nasrun.values import Decision

SPACES = (
    *("darts_cell", "dso_block", "nao_cell", "nas_bench_201", "nas_bench_macro"),
    *("one_shot_blocks", "spos_blocks", "spos_channels", "spos_quantized"),
)
ADAM = GateAdam(lr=0.1, beta1=0.5, beta2=0.999, weight_decay=0.0)
SETTINGS = {"adam": ADAM, "rest_epochs": 0, "spread": 0.0}


@pytest.mark.few(4)
@pytest.mark.parametrize("name", SPACES)
def test_each_capability_is_that_of_one_space(name: str) -> None:
    space = space_of(name)
    assert isinstance(space, DeeperCells) == has_deeper_cells(type(space)) == (name == "darts_cell")
    levels = isinstance(space, OperationLevels)
    assert levels == has_operation_levels(type(space)) == (name == "dso_block")
    assert isinstance(space, TwoInputNodes) == (name == "nao_cell")


class Own(Plain):
    """A space of a user, none of nasrun's: its network is a linear layer for each cell."""

    name = "own"
    gate_kinds: frozenset[GateKind] = frozenset({"mix"})

    def __init__(self, cells: int = 1) -> None:
        super().__init__(decisions=2, options=3)
        self.depth = cells

    @property
    def normal_skips(self) -> Mapping[int, int]:
        return {0: 2}

    def of_cells(self, cells: int, *, partial_channels: int | None = None) -> Own:
        return Own(cells)

    def supernet(self, task: object, *, auxiliary: bool = False) -> Supernet:  # type: ignore[override]
        made = Supernet()
        made.layers = torch.nn.ModuleList(torch.nn.Linear(1, 1) for _ in range(self.depth))
        return made


def p_darts() -> PDarts:
    stages = {"cells": [3, 5], "options": [3, 2], "skip_dropout": [0.0, 0.0]}
    return PDarts(**stages, **SETTINGS, skips=0)


def test_a_space_of_a_user_is_made_deeper() -> None:
    algo, space = p_darts(), Own()
    algo.check(space)
    supernet = algo.supernet(space, TASK, auxiliary=False)
    assert isinstance(supernet, StagedSupernet)
    assert [len(stage.layers) for stage in supernet.stages] == [3, 5]


def test_a_message_names_the_options_that_have_what_is_lacking() -> None:
    with pytest.raises(MissingCapabilityError) as caught:
        p_darts().check(Plain(2, 3))
    line, status = verdict(caught.value)
    assert status == 2
    assert line.endswith("and plain is no space of its kind: take search_space=darts_cell")


class Nodes(Plain):
    """A space of a user with one node of two inputs and two operations in each of two cells."""

    nodes, operations = 1, ("conv", "pool")

    def __init__(self) -> None:
        super().__init__(decisions=0, options=0)
        names = [f"{c}/node0/{b}/{kind}" for c in "nr" for b in "xy" for kind in ("input", "op")]
        self._decisions = tuple(Decision(name, ("a", "b")) for name in names)

    def cells(self, architecture: object) -> object:
        return None


def test_a_controller_samples_both_inputs_of_a_users_nodes_first() -> None:
    steps = [(step.act, step.decision) for step in plan_of(Nodes())]
    node = [("input", 0), ("input", 2), ("option", 1), ("option", 3), ("node", -1)]
    assert steps[:6] == [("cell", -1), *node] and len(steps) == 12


def test_settings_are_never_changed() -> None:
    algo = RandomSearch(evaluations=3, batch=3)
    with pytest.raises(AttributeError):
        algo.evaluations = 4  # type: ignore[misc]
    before = vars(algo).copy()
    search = start(algo, Plain(3, 2))
    assert search.next_round(NullMonitor()) and vars(algo) == before


def test_gates_cannot_be_asked_for_before_there_is_a_learner() -> None:
    search = start(LearnedGates(**SETTINGS), Plain(3, 2))
    with pytest.raises(RuntimeError, match="bind_learner makes it"):
        search.ask()


def test_the_constructors_of_settings_refuse_what_is_out_of_range() -> None:
    node = {"_target_": "nasrun.search_algo.nsga2.Nsga2", "goals": ["macs"], "population": 4}
    node |= {"generations": 2, "mutations": 2, "crossovers": 2, "tries": 1, "batch": 1}
    with pytest.raises(UserError, match=r"search_algo\.probability = 2: "):
        build(node | {"probability": 2}, "search_algo")  # a field of a class of another module
