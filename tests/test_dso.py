"""DSO-NAS: penalties by hand, what a step of the gates does, pruning, going on, and bad input."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import CPU, TASK, Images, Recorder, splits, trainer

from nasrun.budget.candidates import Candidates
from nasrun.cli.main import main
from nasrun.config.build import build_setup
from nasrun.config.compose import compose
from nasrun.run.monitor import NullMonitor
from nasrun.search_algo.dso.dso import Dso
from nasrun.search_algo.dso.penalty import Penalty, latency_costs
from nasrun.search_algo.gates.learned import LearnedSearch
from nasrun.search_space.dso_block import DsoBlock
from nasrun.streams import Streams
from nasrun.trainer.gate_learner import GateContext
from nasrun.trainer.step_rules import StepRules
from nasrun.trainer.training import Training
from nasrun.values import Architecture

SCRIPTS = Path(__file__).parent.parent / "scripts"
DEVICE = torch.device("cpu")
COSTS = ("sep_conv_3x3", "sep_conv_5x5", "max_pool_3x3", "avg_pool_3x3", "output")


def parts(*words: str):
    return build_setup(
        compose(
            ["task=search", "search_space=dso_block", "search_algo=dso", "effort=smoke", *words]
        )
    )


def started(*words: str, epochs: int = 4) -> tuple[LearnedSearch, Training]:
    """The algorithm of a smoke run, and its training, of 4 steps an epoch (of all images: 6)."""
    built, found = parts(*words), splits()
    settings, space = built.search_algo, built.search_space
    assert isinstance(settings, Dso)
    settings.check(space)
    algo = settings.bind(Candidates(space), Streams(0), DEVICE)
    images = settings.training_images(found)
    epoch = images.steps_per_epoch(16)
    context = GateContext(
        *(space, TASK, images, found.validation),
        *(16, epochs * epoch, epoch, CPU, Streams(0).sub("gates")),
    )
    algo.bind_learner(context)
    with Streams(0).default("init"):
        supernet = space.supernet(TASK)
    how = trainer(epochs=epochs, batch_size=16, log_every=1)
    training = how.bind(
        supernet, images, CPU, Streams(0), rules=replace(StepRules(), learner=algo.learner)
    )
    return algo, training


def train(algo: LearnedSearch, training: Training, monitor=None, **changed) -> None:
    training.train_round(monitor or NullMonitor(), "supernet", algo.learner.gates, **changed)


def test_eq_9_against_a_block_by_hand():
    """γ_t = γ (1 + 2 + convolutions above level 1 that read anything + edges out) / (1 + 24)."""
    space = parts("search_space.levels=4", "search_space.share=false").search_space
    penalty = Penalty(space, 0.5, DEVICE, by_flops=True, costs=None)
    values = torch.ones(len(space.decisions))
    assert penalty.shares_left(values).tolist() == [1.0, 1.0, 1.0]
    assert torch.allclose(penalty.strengths_of(values), torch.tensor(0.5))

    names = [decision.name for decision in space.decisions]
    second = {i for i, name in enumerate(names) if name.startswith("stage2.block1/")}
    kept = {
        "stage2.block1/level2.sep_conv_3x3/input",
        "stage2.block1/level2.max_pool_3x3/input",  # a pool is no convolution
        "stage2.block1/level4.sep_conv_5x5/input",
        "stage2.block1/level4.sep_conv_5x5/level1.avg_pool_3x3",  # counted once
        "stage2.block1/output/level1.sep_conv_3x3",
        "stage2.block1/output/level4.sep_conv_5x5",
        "stage2.block1/output/level2.max_pool_3x3",
    }
    values = torch.tensor([float(i not in second or names[i] in kept) for i in range(len(names))])
    share = (1 + 2 + 2 + 3) / 25
    assert penalty.shares_left(values).tolist() == pytest.approx([1.0, share, 1.0])
    found = penalty.strengths_of(values)
    assert all(found[i].item() == pytest.approx(0.5 * share) for i in second)
    assert found[-4:].tolist() == [0.5] * 4  # of the reductions
    assert found[0].item() == 0.5


def test_eq_10_by_operation():
    built = parts("search_algo.adaptive=mac")
    space = built.search_space
    penalty = Penalty(space, 2.0, DEVICE, by_flops=False, costs=[built.search_algo.mac])
    found = dict(
        zip(
            (d.name for d in space.decisions),
            penalty.strengths_of(torch.ones(32)).tolist(),
            strict=True,
        )
    )
    expected = {
        "block/level2.sep_conv_3x3/input": 0.986,
        "block/level2.sep_conv_5x5/level1.max_pool_3x3": 1.0,
        "block/level2.avg_pool_3x3/level1.sep_conv_5x5": 0.447,
        "block/output/level1.sep_conv_5x5": 0.448,
        "reduction1/conv_3x3": 1.0,
    }
    for name, cost in expected.items():
        assert found[name] == pytest.approx(2 * cost), name


def test_latencies_are_relative_to_the_slowest_and_summed_where_blocks_share():
    milliseconds = {"sep_conv_3x3": 3.0, "sep_conv_5x5": 4.0, "max_pool_3x3": 1.0}

    def time(layer) -> float:
        stage = int(layer.name.split()[-1])
        return milliseconds.get(layer.name.split("/")[1].split()[0], 2.0) * (
            10 if stage == 8 else 1
        )

    space = parts().search_space
    (shared,) = latency_costs(space, TASK, time)
    assert shared == pytest.approx(dict(zip(COSTS, (0.75, 1.0, 0.25, 0.5, 0.5), strict=True)))
    own = latency_costs(parts("search_space.share=false").search_space, TASK, time)
    assert len(own) == 3 and own[0] == pytest.approx(shared)


def test_the_layers_that_are_timed_are_modules_of_those_shapes():
    space = parts().search_space
    assert isinstance(space, DsoBlock)
    for blocks in space.layers_of_blocks(TASK):
        for block in blocks:
            assert tuple(block) == COSTS
            for layer in block.values():
                x = torch.zeros(2, *layer.shape)
                assert layer.build()(x).shape == x.shape


def test_gates_rest_while_the_network_is_pre_trained():
    algo, training = started("search_algo.pretrain_epochs=2")
    train(algo, training, epochs=2)
    values = algo.learner.apg.values
    assert values.tolist() == [1.0] * len(values)


class Steps:
    """Records the steps of weights (W) and gates (g), and checks that each moves its own alone."""

    def __init__(self, algo: LearnedSearch, training: Training) -> None:
        self.order, self.batches, self.values = "", [], algo.learner.apg.values
        self.training, self.update, self.gradients = training, training.update, training.gradients
        training.update, training.gradients = self.of_weights, self.of_gates  # type: ignore[method-assign]
        self.weights, self.before = self._weights(), self.values.detach().clone()

    def _weights(self) -> list[torch.Tensor]:
        return [p.detach().clone() for p in self.training.network.parameters()]

    def of_weights(self, *arguments):
        now = self._weights()
        assert all(map(torch.equal, now, self.weights)), "the gates' step moved weights"
        assert torch.equal(self.values, self.before) == (self.order[-1:] != "g")
        measured = self.update(*arguments)
        self.weights, self.before = self._weights(), self.values.detach().clone()
        assert not all(map(torch.equal, now, self.weights))
        self.order += "W"
        return measured

    def of_gates(self, images, *rest):
        self.order += "g"
        self.batches.append(images.clone())
        return self.gradients(images, *rest)


@pytest.mark.few(2)
@pytest.mark.parametrize(
    ("ratio", "order"),
    [
        ("[1,1]", "WWWW" + "Wg" * 8),
        ("[4,1]", "WWWW" + "WWWWg" * 2),
        ("[2,3]", "WWWW" + "WWggg" * 4),
        ("[3,1]", "WWWW" + "WWWg" * 2 + "WW"),
    ],
)
def test_x_steps_of_the_weights_then_y_steps_of_the_gates(ratio, order):
    """After an epoch of pre-training; an epoch has four steps of the weights, whatever y is."""
    words = [f"search_algo.ratio={ratio}", "search_algo.pretrain_epochs=1"]
    algo, training = started(*words, "search_algo.prune_epochs=9", epochs=3)
    steps = Steps(algo, training)
    train(algo, training)
    assert steps.order == order
    assert all(p.grad is None for p in training.network.parameters()) and steps.values.grad is None
    expected = algo.learner.batches  # its batches follow each other: passes over its images
    for index, batch in enumerate(steps.batches):
        assert torch.equal(batch, expected.batch_of_step(index)[0])


@pytest.mark.parametrize("learn_on", ["held_out", "train"])
def test_gates_learn_on_held_out_images_or_with_the_weights_on_all(learn_on):
    """Table 3 without a split: both see all images: 96 are six steps an epoch, not four."""
    algo, training = started(f"search_algo.learn_on={learn_on}", "search_algo.pretrain_epochs=0")
    found, steps = splits(), Steps(algo, training)
    train(algo, training, epochs=1)
    own = found.validation if learn_on == "held_out" else found.train_and_validation()
    assert steps.order == "Wg" * (4 if learn_on == "held_out" else 6)
    for batch in steps.batches:
        assert all(any(torch.equal(one, other) for other in own.images) for one in batch)


@pytest.mark.soak
def test_without_a_split_a_run_trains_on_all_images(tmp_path):
    """32 images for training and 16 held out are six steps of eight in an epoch."""
    run = tmp_path / "run"
    words = ["search_space=dso_block", "search_algo=dso", "search_algo.learn_on=train"]
    words += ["dataset=synthetic", "effort=smoke", "threads=1", f"hydra.run.dir={run}"]
    assert main(["search", *words]) == 0
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert max(line["step"] for line in lines if line["stage"] == "supernet/round0") == 6


def test_the_scales_of_all_norms_stay_one_and_their_shifts_move():
    """So that only the gate scales an edge: in operations and reductions, stem and head."""
    algo, training = started()
    train(algo, training)
    norms = [m for m in training.network.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert all((norm.weight == 1).all() and not norm.weight.requires_grad for norm in norms)
    assert any(
        (norm.bias != 0).any()
        for norm in training.network.reductions[0].modules()
        if isinstance(norm, torch.nn.BatchNorm2d)
    )
    space = algo.candidates.space
    alone = space.network(space.sample(Streams(0).numpy("x")), TASK, "final")
    assert all(p.requires_grad for p in alone.parameters())


@pytest.mark.parametrize("recipe", ["dso_share_cifar10", "dso_full_imagenet"])
def test_the_recipes_pull_pools_as_they_pull_convolutions(recipe):
    """Eq. 9 alone: of the complete network all edges have γ, without a factor by operation."""
    built = build_setup(compose(["task=search", f"experiment={recipe}"]))
    assert isinstance(built.search_algo, Dso)
    space, gamma = built.search_space, built.search_algo.penalty
    context = GateContext(space, TASK, splits().train, splits().train, 1, 1, 1, CPU, Streams(0))
    penalty = built.search_algo.make_penalty(context)
    strengths = penalty.strengths_of(torch.ones(len(space.decisions)))
    assert torch.allclose(strengths, torch.tensor(gamma)) and gamma in (0.001, 0.01)


def test_the_rows_of_table_3():
    """As many epochs of search with and without pre-training, and images divided as steps are."""
    rows = {}
    for name in ("share_cifar10", "table3_no_pretraining", "table3_4_to_1", "table3_no_split"):
        built = build_setup(compose(["task=search", f"experiment=dso_{name}"]))
        algo = built.search_algo
        search = built.trainer.epochs - algo.pretrain_epochs
        rows[name] = search, algo.pretrain_epochs, *algo.ratio, algo.learn_on
        if algo.learn_on == "held_out":
            x, y = algo.ratio
            assert built.dataset.validation == 50_000 * y / (x + y)
    assert rows == {
        "share_cifar10": (120, 120, 1, 1, "held_out"),
        "table3_no_pretraining": (120, 0, 1, 1, "held_out"),
        "table3_4_to_1": (120, 120, 4, 1, "held_out"),
        "table3_no_split": (120, 120, 1, 1, "train"),
    }


def test_by_the_penalty_alone_all_edges_fall_alike_whatever_the_images():
    """The control: λ follows APG-NAG without a gradient; at γ = 0.03 it would take 42 steps."""
    words = [
        "search_algo.penalty=0.5",
        "search_algo.pretrain_epochs=0",
        "search_algo.adaptive=none",
    ]
    algo, training = started(*words, "search_algo.loss_gradient=false", epochs=1)
    training.gradients = None  # type: ignore[method-assign, assignment]
    train(algo, training)
    value, velocity = 1.0, 0.0
    for _ in range(4):
        sparse = max(value - 0.1 * 0.5, 0.0)
        velocity = 0.9 * velocity + sparse - value
        value = sparse + 0.9 * velocity
    found = algo.learner.apg.values.tolist()
    assert 0 < value < 0.9 and found == pytest.approx([value] * len(found))
    assert "gates_loss" not in algo.learner.pop_metrics().read()


def test_a_strong_penalty_removes_everything_and_the_identity_remains():
    algo, training = started("search_algo.penalty=20", "search_algo.adaptive=none")
    monitor = Recorder()
    train(algo, training, monitor)
    assert sum(algo.learner.opened) == 0
    macs = [line["macs_M"] for line in monitor.metrics]
    assert macs == sorted(macs, reverse=True) and macs[-1] < macs[0]
    assert monitor.metrics[-1]["edges"] == 0
    logits = training.network(Images(4).images, algo.gates(algo.learner.architecture))
    assert logits.shape == (4, TASK.classes) and logits.isfinite().all()


def test_without_a_penalty_nothing_is_removed():
    algo, training = started("search_algo.penalty=0", "search_algo.lr=0.001")
    train(algo, training)
    assert all(algo.learner.opened)


def test_a_run_says_draws_and_keeps_what_it_found(tmp_path, capsys):
    words = ["search_space=dso_block", "search_algo=dso", "search_algo.penalty=2", "effort=smoke"]
    run = tmp_path / "run"
    assert main(["search", *words, "threads=1", f"hydra.run.dir={run}"]) == 0
    result = json.loads((run / "result.json").read_text())
    assert result["params"] <= 10e3
    for name in ("architecture", "block_macs"):
        assert (run / f"{name}.png").stat().st_size > 1000 and (run / f"{name}.svg").exists()
    macs = json.loads((run / "block_macs.json").read_text())
    assert len(macs["epoch"]) == len(macs["stage1.block1"]) > 1
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    last = [line for line in lines if line["stage"] == "supernet/round0"][-1]
    assert last["edges"] <= 32 and last["macs_M"] > 0
    assert sum(result["architecture"]["choices"]) < 32
    screen = capsys.readouterr().out
    assert "all edges were removed" in screen
    assert "test accuracy" in screen
    written = next(line for line in screen.splitlines() if line.startswith("architecture "))
    space = parts().search_space
    winner = space.parse(written.split()[-1])
    assert winner.to_json() == result["architecture"]
    assert "output of" in "\n".join(space.describe(winner))


@pytest.mark.soak
def test_the_random_control_is_one_network_that_trains_no_supernet(tmp_path, capsys):
    control = ["search_algo=random", "search_algo.evaluations=1", "evaluator=size"]
    run = tmp_path / "run"
    words = ["experiment=dso_share_cifar10", *control, "effort=smoke", "threads=1"]
    assert main(["search", *words, f"hydra.run.dir={run}"]) == 0
    assert len((run / "trials.jsonl").read_text().splitlines()) == 1
    assert not (run / "supernet.safetensors").exists()
    assert json.loads((run / "result.json").read_text())["params"] <= 10e3


@pytest.mark.soak
def test_it_learns_gates_of_other_spaces_that_are_off_or_on(tmp_path):
    words = ["search_space=one_shot_blocks", "search_algo=dso", "search_algo.adaptive=none"]
    run = tmp_path / "run"
    assert main(["search", *words, "effort=smoke", "threads=1", f"hydra.run.dir={run}"]) == 0
    assert (run / "result.json").exists() and not (run / "block_macs.png").exists()


@pytest.mark.few(2)
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["search_space=nao_cell"], "take search_space=dso_block or one_shot_blocks"),
        (["search_space=one_shot_blocks"], "one_shot_blocks has no levels of operations"),
        (["search_space=one_shot_blocks"], "adaptive=none, or take search_space=dso_block"),
        (["search_algo.pretrain_epochs=1"], "leaves nothing of trainer.epochs to search in"),
        (["search_algo.ratio=[9,1]"], "the gates learn after 9 steps of the weights"),
        (["search_algo.ratio=[4,0]"], "search_algo.ratio[1] = 0: "),
        (["search_algo.ratio=[4]"], "search_algo.ratio"),
        (["dataset.validation=0"], "dataset.validation = 0: must be greater than 0"),
        (["dataset=digits", "dataset.validation=5000"], "leaves none of the"),
        (["warm_up.epochs=1"], "sets the gates of every step itself; set warm_up.epochs=0"),
        (["evaluator=size"], "take evaluator=kl or supernet"),
        (["search_space.final.params=50"], "not even one of 1 channels, of at most 50 params"),
        (["+search_algo.mac.conv=1"], "search_algo.mac needs a number for each of"),
        (["search_algo.momentum=1"], "search_algo.momentum = 1: "),
    ],
)
def test_bad_input_is_refused_in_one_line(words, message, tmp_path, capsys):
    run = tmp_path / "run"
    chosen = [word.partition("=")[0] for word in words]
    usual = ["search_space=dso_block", "search_algo=dso", "dataset=synthetic"]
    usual = [word for word in usual if word.partition("=")[0] not in chosen]
    line = [*usual, *words, "effort=smoke", "threads=1", f"hydra.run.dir={run}"]
    assert main(["search", *line]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not run.exists()


@pytest.mark.soak
def test_a_supernet_of_learned_gates_is_not_trained_alone_nor_taken(tmp_path, capsys):
    words = ["search_space=dso_block", "search_algo=dso", "effort=smoke", "threads=1"]
    assert main(["supernet", *words, f"outputs={tmp_path}"]) == 2
    assert "cannot be trained alone: run the whole search" in capsys.readouterr().err
    run = tmp_path / "run"
    path_dropout = ["sampler=path_dropout", "search_algo=random"]
    alone = [words[0], *words[2:], *path_dropout, f"hydra.run.dir={run}"]
    assert main(["supernet", *alone]) == 0
    capsys.readouterr()
    assert main(["search", f"from={run}", "search_algo=dso", f"outputs={tmp_path}"]) == 2
    assert "cannot start from a trained one: leave from= out" in capsys.readouterr().err


@pytest.mark.parametrize("share", [True, False])
def test_a_random_control_has_as_many_edges_in_every_block_and_none_that_lead_nowhere(
    share, monkeypatch
):
    monkeypatch.syspath_prepend(SCRIPTS)
    import dso_chance

    space = parts("search_space.levels=4", f"search_space.share={share}").search_space
    assert isinstance(space, DsoBlock)
    like = space.canonical(space.sample(np.random.default_rng(0)))
    rng = np.random.default_rng(1)
    found = [dso_chance.prune_at_random(space, like, rng) for _ in range(5)]
    assert len(set(found)) == 5
    for one in found:
        assert space.canonical(one) == one
        start = 0
        for count in space.sections.values():
            place = slice(start, start + count)
            assert sum(one.choices[place]) == sum(like.choices[place])
            start += count
    empty = Architecture(space.name, (0,) * len(space.decisions))
    assert dso_chance.prune_at_random(space, empty, rng) == empty


def test_the_overlap_of_survivors_by_hand(monkeypatch):
    monkeypatch.syspath_prepend(SCRIPTS)
    import dso_chance

    kept = [frozenset({0, 1}), frozenset({1, 2}), frozenset({0, 1, 2, 3})]
    assert dso_chance.shared(kept) == pytest.approx((1 + 2 + 2) / 3)
    assert dso_chance.jaccard(kept) == pytest.approx((1 / 3 + 2 / 4 + 2 / 4) / 3)
    assert dso_chance.hypergeometric(kept, 8) == pytest.approx((4 + 8 + 8) / 8 / 3)
    assert dso_chance.jaccard([frozenset(), frozenset()]) == 1.0
