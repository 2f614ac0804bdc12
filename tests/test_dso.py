"""DSO-NAS: penalties by hand, what a step of the gates does, pruning, going on, and bad input."""

from __future__ import annotations

import json
from dataclasses import replace

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

DEVICE = torch.device("cpu")
COSTS = ("sep_conv_3x3", "sep_conv_5x5", "max_pool_3x3", "avg_pool_3x3", "output")


def parts(*words: str):
    return build_setup(
        compose(
            ["task=search", "search_space=dso_block", "search_algo=dso", "effort=smoke", *words]
        )
    )


def started(*words: str, epochs: int = 4) -> tuple[LearnedSearch, Training]:
    """The algorithm of a smoke run, and its training, of 4 steps an epoch."""
    built, found = parts(*words), splits()
    settings, space = built.search_algo, built.search_space
    assert isinstance(settings, Dso)
    settings.check(space)
    algo = settings.bind(Candidates(space), Streams(0), DEVICE)
    context = GateContext(
        *(space, TASK, found.train, found.validation),
        *(16, epochs * 4, 4, CPU, Streams(0).sub("gates")),
    )
    algo.bind_learner(context)
    with Streams(0).default("init"):
        supernet = space.supernet(TASK)
    how = trainer(epochs=epochs, batch_size=16, log_every=1)
    training = how.bind(
        supernet, found.train, CPU, Streams(0), rules=replace(StepRules(), learner=algo.learner)
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
    built = parts("search_algo.adaptive_costs=mac")
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


def test_gates_rest_while_the_network_is_pre_trained_and_weights_while_gates_learn():
    algo, training = started("search_algo.pretrain_epochs=2")
    train(algo, training, epochs=2)
    values = algo.learner.apg.values
    assert values.tolist() == [1.0] * len(values)
    before = {name: p.clone() for name, p in training.network.named_parameters()}
    images, labels = Images(16).images, Images(16).labels
    algo.learner.learn_before(8, (images, labels), training)
    assert not torch.equal(values, torch.ones_like(values))
    assert all(torch.equal(before[n], p) for n, p in training.network.named_parameters())
    assert all(p.grad is None for p in training.network.parameters())
    assert values.grad is None


def test_gates_learn_on_held_out_images_or_on_those_of_the_weights():
    seen: dict[str, list[torch.Tensor]] = {}
    for split in ("held_out", "train"):
        algo, training = started(f"search_algo.learn_on={split}")
        inner, seen[split] = training.gradients, []

        def spy(images, *rest, inner=inner, split=split):
            seen[split].append(images.clone())
            return inner(images, *rest)

        training.gradients = spy  # type: ignore[method-assign]
        train(algo, training, epochs=1)
        assert len(seen[split]) == 2  # half an epoch of four steps is pre-training
    held_out, own = splits().validation.images, splits().train.images
    for split, images in (("held_out", held_out), ("train", own)):
        for batch in seen[split]:
            assert all(any(torch.equal(one, other) for other in images) for one in batch)


def test_the_scales_of_the_operations_stay_one_and_their_shifts_move():
    algo, training = started()
    train(algo, training)
    norms = [
        (name, p)
        for name, p in training.network.named_parameters()
        if ".operations." in name and name.startswith("blocks") and p.dim() == 1
    ]
    scales = [p for name, p in norms if name.endswith("weight")]
    shifts = [p for name, p in norms if name.endswith("bias")]
    assert scales and all((p == 1).all() for p in scales)
    assert any((p != 0).any() for p in shifts)


def test_a_strong_penalty_removes_everything_and_the_identity_remains():
    algo, training = started("search_algo.penalty=20", "search_algo.adaptive_flops=false")
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
    assert "output of" in screen and "test accuracy" in screen
    written = next(line for line in screen.splitlines() if line.startswith("architecture "))
    space = parts().search_space
    assert space.parse(written.split()[-1]).to_json() == result["architecture"]


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
    words = ["search_space=one_shot_blocks", "search_algo=dso", "search_algo.adaptive_flops=false"]
    run = tmp_path / "run"
    assert main(["search", *words, "effort=smoke", "threads=1", f"hydra.run.dir={run}"]) == 0
    assert (run / "result.json").exists() and not (run / "block_macs.png").exists()


@pytest.mark.few(5)
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["search_space=nao_cell"], "take search_space=dso_block or one_shot_blocks"),
        (["search_space=one_shot_blocks"], "one_shot_blocks has no levels of operations"),
        (["search_space=one_shot_blocks"], "adaptive_costs=none, or take search_space=dso_block"),
        (["search_algo.pretrain_epochs=1"], "leaves nothing of trainer.epochs to search in"),
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
