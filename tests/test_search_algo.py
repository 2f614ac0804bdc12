"""Search algorithms: a small space to try them on, random search, and their configuration."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from nasrun.budget.candidates import Candidates
from nasrun.config.build import build
from nasrun.errors import UserError
from nasrun.run.monitor import NullMonitor
from nasrun.run.state import decode_tensors as decode
from nasrun.run.state import encode_tensors as encode
from nasrun.run.state import pack, unpack
from nasrun.search_algo.base import SearchAlgo
from nasrun.search_algo.nao.epd import PredictorSettings
from nasrun.search_algo.nao.nao import Nao
from nasrun.search_algo.random_search import RandomSearch
from nasrun.search_space.base import SearchSpace
from nasrun.streams import Streams
from nasrun.values import Architecture, Cost, Decision, Trial

CPU = torch.device("cpu")
CONF = Path(__file__).parents[1] / "conf" / "search_algo"

LEARN = {
    "hidden": 32,
    "epochs": 20,
    "batch": 50,
    "expand": 4,
    "mlp_layers": 0,
    "validation_share": 0.2,
    "report_every": 20,
}
"""Predictor settings that learn a planted score in seconds."""


class Cell(SearchSpace):
    """Nodes of two branches (input, op), summed: swapping the branches changes nothing."""

    name = "toy"
    gate_kinds = frozenset({"path"})

    def __init__(self, nodes: int = 2, ops: int = 4, cells: int = 1) -> None:
        self.nodes, self.ops, self.cells = nodes, ops, cells

    @property
    def decisions(self) -> tuple[Decision, ...]:  # type: ignore[override]
        ops = tuple(f"op{i}" for i in range(self.ops))
        return tuple(
            Decision(f"cell{c}/node{n}/{b}/{kind}", options)
            for c in range(self.cells)
            for n in range(self.nodes)
            for b in "xy"
            for kind, options in (("input", tuple(f"in{i}" for i in range(n + 2))), ("op", ops))
        )

    def supernet(self, task: Any, *, auxiliary: bool = False) -> Any:
        raise AssertionError("search algorithms build no networks")

    network = cost = cost_bound = supernet  # type: ignore[assignment]

    def _branches(self, architecture: Architecture) -> np.ndarray:
        return np.array(architecture.choices).reshape(-1, 2, 2)

    def canonical(self, architecture: Architecture) -> Architecture:
        nodes = [sorted(map(tuple, node)) for node in self._branches(architecture).tolist()]
        return Architecture(self.name, tuple(np.array(nodes).ravel().tolist()))

    def equivalent(self, architecture: Architecture, rng: np.random.Generator) -> Architecture:
        nodes = self._branches(architecture).copy()
        for cell in range(self.cells):
            node = cell * self.nodes + rng.integers(self.nodes)
            nodes[node] = nodes[node, ::-1]
        return Architecture(self.name, tuple(nodes.ravel().tolist()))

    def score(self, architecture: Architecture) -> float:
        """Planted: each op has a worth, more so on a late input; symmetric in the branches."""
        branches = self._branches(architecture)
        worth = np.array([0.1, 0.9, 0.4, 0.0, 0.6, 0.2])[branches[..., 1]]
        return float((worth * (1 + 0.3 * branches[..., 0])).mean())


class Plain(SearchSpace):
    """``decisions`` of ``options`` each, no two architectures alike."""

    name = "plain"
    gate_kinds = frozenset({"path"})

    def __init__(self, decisions: int, options: int) -> None:
        self._decisions = tuple(
            Decision(f"layer{i}/op", tuple(map(str, range(options)))) for i in range(decisions)
        )

    @property
    def decisions(self) -> tuple[Decision, ...]:  # type: ignore[override]
        return self._decisions

    network = cost = cost_bound = supernet = None  # type: ignore[assignment]

    def score(self, architecture: Architecture) -> float:
        return sum(architecture.choices) / 100


SMALL = {
    "embedding": 8,
    "hidden": 16,
    "tokens_per_step": 2,
    "mlp_layers": 1,
    "mlp_width": 16,
    "mlp_dropout": 0.1,
    "epochs": 3,
    "batch": 32,
    "lr": 0.01,
    "weight_decay": 0.0,
    "clip_norm": 5.0,
    "trade_off": 0.8,
    "expand": 2,
    "validation_share": 0.1,
    "report_every": 2,
    "keep_weights": True,
}
NAO: dict[str, Any] = {
    "rounds": 3,
    "initial": 30,
    "new_per_round": 10,
    "train_on": "new",
    "rescore": "pool",
    "replace": "none",
    "seeds": 10,
    "step_start": 1.0,
    "step_increment": 1.0,
    "step_max": 20.0,
    "fresh_supernet": False,
    "anchors": 0,
    "carried": 0,
    "batch": 7,
}


def conf(file: str) -> dict[str, Any]:
    node = OmegaConf.to_container(OmegaConf.load(CONF / file))
    assert isinstance(node, dict)
    return node  # type: ignore[return-value]


def settings(**changes: Any) -> PredictorSettings:
    return PredictorSettings(**(SMALL | changes))


def nao(predictor: dict[str, Any] | None = None, **changes: Any) -> Nao:
    return Nao(**(NAO | changes), predictor=settings(**predictor or {}))


def start(algo: SearchAlgo, space: SearchSpace | None = None, seed: int = 0) -> Any:
    return algo.bind(Candidates(space or Cell()), Streams(seed), CPU)


def trial(space: Any, architecture: Architecture, seed: int = 0) -> Trial:
    return Trial(architecture, space.score(architecture), Cost(1, 2), seed, {"by": "table"})


def run(algo: Any, monitor: Any = None) -> list[tuple[Any, list[Architecture]]]:
    """The whole search; each round with what it asked for."""
    history = []
    while training := algo.next_round(monitor or NullMonitor()):
        asked: list[Architecture] = []
        while batch := algo.ask():
            asked += batch
            algo.tell([trial(algo.pool.space, a, training.index) for a in batch])
        assert len(asked) == training.evaluations
        history.append((training, asked))
    return history


def saved(state: dict[str, Any]) -> dict[str, Any]:
    """As bytes and back."""
    tree, tensors = pack(state)
    loaded: dict[str, Any] = unpack(json.loads(json.dumps(tree)), decode(encode(tensors)))
    return loaded


class Recorder(NullMonitor):
    """A monitor that keeps the metrics."""

    def __init__(self) -> None:
        self.metrics: dict[str, list[dict[str, float]]] = {}
        self.steps: dict[str, int] = {}
        self.totals: dict[str, int] = {}

    @contextmanager
    def stage(self, name: str, total: int) -> Iterator[Any]:
        recorder = self

        class Stage:
            def advance(self, steps: int = 1, **metrics: float) -> None:
                recorder.steps[name] = recorder.steps.get(name, 0) + steps
                recorder.metrics.setdefault(name, []).append(metrics)

        self.totals[name] = total
        yield Stage()


def canonical_pool(algo: Any) -> list[Architecture]:
    return [algo.pool.space.canonical(a) for a in algo.pool.trials]


def test_random_search() -> None:
    assert RandomSearch(evaluations=20, batch=6).rounds == 1
    algo = start(RandomSearch(evaluations=20, batch=6))
    round_ = algo.next_round(NullMonitor())
    assert (round_.index, round_.pool, round_.fresh_supernet) == (0, None, True)
    sizes = []
    while batch := algo.ask():
        sizes.append(len(batch))
        algo.tell([trial(Cell(), a) for a in batch])
    assert sizes == [6, 6, 6, 2]
    assert algo.next_round(NullMonitor()) is None
    assert len(set(canonical_pool(algo))) == 20


def test_a_longer_random_search_begins_with_the_same() -> None:
    few, more = (run(start(RandomSearch(evaluations=n, batch=n)))[0][1] for n in (9, 30))
    assert more[:9] == few


@pytest.mark.parametrize(("file", "target"), [("nao.yaml", Nao), ("random.yaml", RandomSearch)])
def test_yaml_is_the_signature(file: str, target: type) -> None:
    node = conf(file)
    parameters = inspect.signature(target).parameters
    assert list(node) == ["_target_", *parameters]
    assert all(p.default is p.empty for p in parameters.values())
    if "predictor" in node:
        inner = inspect.signature(PredictorSettings).parameters
        assert list(node["predictor"]) == ["_target_", *inner]
        assert all(p.default is p.empty for p in inner.values())
    assert type(build(node)) is target


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("rounds", 0),
        ("train_on", "old"),
        ("step_start", 0),
        ("step_start", 51),
        ("predictor.embedding", 0),
        ("predictor.mlp_layers", -1),
        ("predictor.mlp_dropout", 1.0),
        ("predictor.lr", 0.0),
        ("predictor.trade_off", 1.1),
        ("predictor.expand", 0),
        ("predictor.validation_share", 1.0),
    ],
)
def test_out_of_range(key: str, value: Any) -> None:
    node = conf("nao.yaml")
    *inner, last = key.split(".")
    (node[inner[0]] if inner else node)[last] = value
    with pytest.raises(UserError, match=f"{last} = {value}"):
        build(node, "search_algo")
