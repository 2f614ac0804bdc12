"""The store of scores: nothing is scored twice, nothing wrong is ever used, no run ends by it."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import CPU, Images, few_images

from nasrun.cli.from_run import SETTINGS_NOT_TAKEN
from nasrun.cli.stores import keep_near
from nasrun.dataset.base import Splits
from nasrun.errors import UserError
from nasrun.evaluator.score_store import NAME, ScoreStore, definition_of
from nasrun.evaluator.supernet import SupernetEvaluator, SupernetScorer
from nasrun.run.monitor import NullMonitor
from nasrun.search_space.base import Supernet
from nasrun.search_space.chain import WidthScale
from nasrun.search_space.nas_bench_macro import NasBenchMacro
from nasrun.streams import Streams
from nasrun.task.base import Task
from nasrun.values import Architecture


def scorer(folder: Path | None, images: Splits | None = None, **changes: Any) -> SupernetScorer:
    settings: dict[str, Any] = {"images": None, "batch_size": 8, "recalibration_images": 16}
    settings |= {"batch_norm": "batch", **changes}
    settings["share"] = False
    made = SupernetEvaluator(store=None if folder is None else str(folder), **settings)
    return made.bind(SPACE, images or few_images(), CPU, Streams(0))


WIDTH = WidthScale(width=0.05)
SPACE = NasBenchMacro(affine=True, search=WIDTH, final=WIDTH)


@pytest.fixture
def supernet() -> Supernet:
    with Streams(0).default("init"):
        return CPU.place(SPACE.supernet(few_images().problem))


def chosen(count: int = 3) -> list[Architecture]:
    rng = np.random.default_rng(0)
    return [SPACE.sample(rng) for _ in range(count)]


class Said(NullMonitor):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str = "", style: str | None = None) -> None:
        self.lines.append(line)


def scored(made: SupernetScorer, network: Supernet, said: Said | None = None) -> tuple[Any, int]:
    """The trials by architecture, and the passes that they took."""
    passes = []
    hook = network.register_forward_hook(lambda *_: passes.append(1))
    _, trials = made.together(chosen(), network, said or Said())
    found = {trial.architecture: trial for trial in trials}
    hook.remove()
    return found, len(passes)


def test_scores_are_those_without_a_store_and_are_computed_once(
    tmp_path: Path, supernet: Supernet
) -> None:
    for changes in ({}, {"ties": "top5"}, {"batch_norm": "recalibrated"}):
        plain, passes = scored(scorer(None, **changes), supernet)
        assert passes >= 2 * 3
        first, again = scorer(tmp_path, **changes), scorer(tmp_path, **changes)
        assert scored(first, supernet) == (plain, passes)
        assert scored(first, supernet) == (plain, 0)
        assert scored(again, supernet) == (plain, 0)
    assert scored(scorer(tmp_path / "elsewhere"), supernet)[1] == 6


def test_what_is_not_known_is_walked_together(tmp_path: Path, supernet: Supernet) -> None:
    made = replace(scorer(tmp_path), share=True)
    near = [*SPACE.variants(chosen()[0], (7,)), *SPACE.variants(chosen()[1], (7,))]
    plain = list(replace(made, store=None).score(near, supernet, Said()))
    list(made.together(near[1:3], supernet, Said())[1])
    in_order, trials = made.together(near, supernet, Said())
    assert list(in_order[:2]) == near[1:3]
    assert sorted(trials, key=lambda trial: near.index(trial.architecture)) == plain


def test_whatever_a_score_depends_on_makes_it_another(tmp_path: Path, supernet: Supernet) -> None:
    made = scorer(tmp_path)
    _, passes = scored(made, supernet)
    other = few_images()
    others = [
        scorer(tmp_path, batch_size=4),
        scorer(tmp_path, images=replace(other, validation=Images(16, seed=3))),
        scorer(tmp_path, ties="top5"),
        scorer(tmp_path, batch_norm="inherited"),
        scorer(tmp_path, batch_norm="recalibrated"),
        scorer(tmp_path, batch_norm="recalibrated", recalibration_images=8),
        replace(made, compute=replace(CPU, channels_last=False)),
    ]
    for each in others:
        assert scored(each, supernet)[1] >= passes
        assert scored(each, supernet)[1] == 0
    with torch.no_grad():
        next(iter(supernet.parameters())).view(-1)[0] += 1e-6
    assert scored(made, supernet)[1] == passes


def test_a_definition_knows_what_no_weight_tells() -> None:
    """The stride of a layer, for one, or the images of a batch."""
    images = few_images()
    network = SPACE.supernet(images.problem)
    batches = list(images.validation.eval_batches(8))

    def told() -> str:
        return definition_of(network, [batches], {})

    before = told()
    assert told() == before != definition_of(network, [batches[:1]], {})
    assert before != definition_of(network, [batches], {"threads": 2})
    layer = network.layers[0].options["0"][0]  # type: ignore[union-attr,index]
    layer.subsample += 1
    assert told() != before
    layer.subsample -= 1
    assert told() == before
    network.train()
    assert told() == before


def test_a_damaged_store_is_begun_anew_and_that_is_said(tmp_path: Path, supernet: Supernet) -> None:
    made, file = scorer(tmp_path), tmp_path / NAME
    plain, passes = scored(made, supernet)
    whole = file.read_bytes()

    def version() -> None:
        with sqlite3.connect(file) as database:
            database.execute("PRAGMA user_version = 7")

    damages: list[tuple[Callable[[], Any], str]] = [
        (lambda: file.write_bytes(b"no database at all" * 100), "is damaged"),
        (lambda: file.write_bytes(whole[:5000]), "is damaged"),
        (lambda: file.write_bytes(whole[:100] + b"\xff" * (len(whole) - 100)), "is damaged"),
        (version, "is of version 7, not 1"),
    ]
    for damage, words in damages:
        damage()
        said = Said()
        assert scored(made, supernet, said) == (plain, passes)
        assert len(said.lines) == 1
        assert words in said.lines[0] and "begun anew" in said.lines[0]
        assert scored(made, supernet) == (plain, 0)


def test_a_score_that_was_tampered_with_is_not_used(tmp_path: Path, supernet: Supernet) -> None:
    made = scorer(tmp_path)
    plain, _ = scored(made, supernet)
    with sqlite3.connect(tmp_path / NAME) as database:
        one = database.execute("SELECT path FROM scores").fetchone()[0]
        database.execute("UPDATE scores SET shares = '[1.0]' WHERE path = ?", (one,))
        database.execute("UPDATE scores SET digest = NULL WHERE path != ?", (one,))
    assert scored(made, supernet) == (plain, 6)
    assert scored(made, supernet) == (plain, 0)


def test_where_it_cannot_be_used_a_run_goes_on_without(tmp_path: Path, supernet: Supernet) -> None:
    plain, passes = scored(scorer(None), supernet)
    (tmp_path / "file").write_text("")
    made, said = scorer(tmp_path / "file" / "folder"), Said()
    assert scored(made, supernet, said) == (plain, passes)
    assert len(said.lines) == 1 and "is not used" in said.lines[0]
    assert scored(made, supernet, said) == (plain, passes)
    assert len(said.lines) == 1  # once a run
    target = tmp_path / "target"
    target.write_text("mine")
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / NAME).symlink_to(target)
    with pytest.raises(UserError, match="it is a link"):
        scored(scorer(tmp_path / "linked"), supernet)
    assert target.read_text() == "mine"


def test_outputs_that_are_not_finite_are_not_kept(tmp_path: Path, supernet: Supernet) -> None:
    with torch.no_grad():
        for parameter in supernet.parameters():
            parameter.fill_(float("nan"))
    made = scorer(tmp_path)
    assert scored(made, supernet)[1] == scored(made, supernet)[1] == 6


def test_several_write_at_once(tmp_path: Path) -> None:
    def write(worker: int) -> list[str]:
        said: list[str] = []
        kept = ScoreStore(tmp_path).of("definition", said.append)
        for index in range(20):
            kept.add((index % 10, worker), [0.1, 0.1 + worker])
        return said

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(write, range(4))) == [[]] * 4
    found = ScoreStore(tmp_path).of("definition", print).read()
    assert found == {(i, worker): [0.1, 0.1 + worker] for i in range(10) for worker in range(4)}
    assert not ScoreStore(tmp_path).of("another", print).read()


def test_a_strangers_run_chooses_no_store(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"evaluator": {"store": None}}
    assert keep_near(settings, tmp_path, (), Task.stores) == []
    assert settings == {"evaluator": {"store": None}}
    settings["evaluator"]["store"] = "/elsewhere"
    (said,) = keep_near(settings, tmp_path, (), Task.stores)
    assert "evaluator.store=/elsewhere is not used" in said
    assert settings["evaluator"]["store"] == str(tmp_path / "scores")
    assert "evaluator.store" in SETTINGS_NOT_TAKEN


def test_a_race_has_no_store(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"evaluator.race and evaluator.store"):
        scorer(tmp_path, race=3)
