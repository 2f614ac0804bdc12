"""Every option and every recipe composes, is built, and runs as a smoke; a new one by itself."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from kills import RECIPES, words
from omegaconf import OmegaConf
from processes import SEARCH, TINY, lines
from smokes import check_smoke

from nasrun.cli.main import main
from nasrun.config.build import build_setup
from nasrun.config.compose import compose
from nasrun.config.groups import task_of_recipe
from nasrun.config.prune import leave_out
from nasrun.streams import Streams
from nasrun.values import Problem

CONF = Path(__file__).parent.parent / "conf"
GROUPS = ("dataset", "search_space", "sampler", "search_algo", "evaluator", "trainer", "logger")
OPTION_OVERRIDES = [
    f"{group}={path.stem}" for group in GROUPS for path in sorted((CONF / group).glob("[!_]*.yaml"))
]


def parts(*overrides: str, task: str = "search"):
    config = compose([*overrides, f"task={task}"])
    leave_out(config, overrides)
    return build_setup(config)


@pytest.mark.few(16)
@pytest.mark.parametrize("override", OPTION_OVERRIDES)
def test_every_option_is_built(override):
    parts(override)


@pytest.mark.few(5)
@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_is_built_at_full_size(recipe):
    built = parts(f"experiment={recipe}", task=task_of_recipe(recipe))
    size = 224 if "imagenet" in recipe else 32
    problem = Problem(3, size, 1000 if "imagenet" in recipe else 10)
    built.check_gates()
    if task_of_recipe(recipe) == "search":
        built.check_networks(problem)
    built.search_space.cost(built.search_space.sample(Streams(0).numpy("x")), problem, "final")


COVERING = [
    *("amoebanet_cifar10", "bender_cifar10", "dso_share_cifar10", "enas_cifar10"),
    *("pc_darts_cifar10", "proxyless_cifar10", "snas_cifar10", "spos_quantized_cifar10"),
]
"""One recipe of each method that no other test here runs as a whole; make soak runs all."""


@pytest.mark.few(4)
@pytest.mark.parametrize("recipe", COVERING)
def test_recipes_run_as_a_smoke(recipe, processes, tmp_path):
    """With two nodes in a cell; tests/soak/ runs every recipe as it is."""
    done = processes.run(tmp_path, *words(recipe))
    check_smoke(done, tmp_path / "run", task_of_recipe(recipe))


def test_the_papers_settings_stand_in_the_recipe():
    built = parts("experiment=balanced_nao_cifar10")
    algo, trainer = built.search_algo, built.trainer
    assert (algo.rounds, algo.initial, algo.new_per_round, algo.fresh_supernet) == (
        4,
        1000,
        300,
        True,
    )
    assert (trainer.epochs, trainer.batch_size, trainer.schedule.lr) == (50, 64, 0.025)
    assert (built.retrain.trainer.epochs, built.retrain.trainer.cutout) == (600, 16)
    assert built.retrain.images == "train+validation"
    scale = built.search_space.scales
    assert (scale["search"].layers, scale["search"].channels) == (3, 20)
    assert (scale["final"].layers, scale["final"].channels) == (6, 36)
    uniform = parts("experiment=nao_ws_cifar10")
    assert type(uniform.sampler).__name__ == "Uniform" and uniform.trainer.schedule.spans == "run"


@pytest.mark.parametrize(
    ("recipe", "coasts"),
    [
        *(("nao_v2_cifar10", True), ("nao_ws_cifar10", True), ("rank_table6", True)),
        *(("enas_cifar10", True), ("spos_cifar10", False), ("random_ws_cifar10", False)),
    ],
)
def test_what_the_released_optimisers_do_with_unused_weights_stands_in_the_recipe(recipe, coasts):
    built = parts(f"experiment={recipe}", task=task_of_recipe(recipe))
    trainer, retrain = built.trainer, built.retrain.trainer
    assert trainer.idle_options == ("coast" if coasts else "freeze")
    if coasts:
        assert trainer.decay_norm_and_bias and retrain.decay_norm_and_bias
        assert trainer.schedule.per == retrain.schedule.per == "epoch"
    if recipe == "enas_cifar10":  # released: l2 of 1e-4 and 2e-4, without a factor of a half
        assert (trainer.weight_decay, retrain.weight_decay) == (2e-4, 4e-4)
        assert trainer.clip == retrain.clip == 0  # the clipped gradients are not used


def test_gdas_zeroes_gradients_and_does_not_drop_them():
    assert parts("experiment=gdas_cifar10").trainer.idle_options == "coast"


def test_the_tables_of_rankings_train_the_pool_and_each_length_anew():
    lengths = {"rank_table2": "5,10,20,30,50", "rank_table6": "5,10,20,30,50", "rank_table3": 5}
    for recipe, epochs in lengths.items():
        rank = compose([f"experiment={recipe}", "task=rank"])["rank"]
        assert (rank["train_on"], rank["epochs"]) == ("pool", [])
        assert rank["architectures"]["count"] == 50
        sweep = OmegaConf.load(CONF / f"experiment/{recipe}.yaml").hydra.sweeper.params
        if recipe == "rank_table2":  # the lengths are those of Table 6
            assert "trainer.epochs" not in sweep
        else:
            assert sweep["trainer.epochs"] == epochs
        samples = sweep.get("architectures@rank.architectures")
        assert samples == ("uniform,similar_size" if recipe == "rank_table3" else None)


def test_sums_ties_and_statistics_stand_where_they_were_released():
    """SPOS' code: equal candidates by top-5, the winner's statistics anew, narrow channels late."""
    assert parts().path_rules.gradients == "sum"
    for recipe in ("spos_cifar10", "spos_imagenet", "spos_channels_cifar10"):
        built = parts(f"experiment={recipe}")
        assert (built.evaluator.ties, built.retrain.batch_norm_epochs) == ("top5", 1)
    warm_up = parts("experiment=spos_channels_cifar10").warm_up
    assert type(warm_up).__name__ == "WideWarmUp" and warm_up.epochs > 0


def test_dso_decays_as_released_on_imagenet():
    for recipe in ("dso_share_imagenet", "dso_full_imagenet"):
        built = parts(f"experiment={recipe}")
        assert built.trainer.weight_decay == built.retrain.trainer.weight_decay == 4e-5


def test_dso_clips_each_element():
    for recipe in ("dso_full_cifar10", "dso_share_imagenet"):
        trainer = parts(f"experiment={recipe}").trainer
        assert (trainer.clip, trainer.clip_value) == (0, 2)


def test_proxyless_and_its_winner_are_trained_as_released():
    """By hand: 40 and 120 epochs of a cosine, all weights decay; then 300 without clipping."""
    built = parts("experiment=proxyless_cifar10")
    trainer, retrain = built.trainer, built.retrain.trainer
    rate = trainer.schedule.learning_rate
    assert rate(0, 160, 1) == rate(40, 160, 1) == 0.025  # one step an epoch
    assert rate(100, 160, 1) == pytest.approx(0.0125) and rate(39, 160, 1) < 1e-4
    assert trainer.decay_norm_and_bias and trainer.label_smoothing == 0.1
    assert (retrain.epochs, retrain.schedule.lr, retrain.label_smoothing) == (300, 0.05, 0.1)
    assert not retrain.decay_norm_and_bias and retrain.clip == 0


def test_fbnet_learns_by_the_papers_rules():
    """By hand: 5·exp(-0.045 t) in epoch t, and 0.2 · log(cost)^0.6, at 100 million multiply-adds;
    a fifth of the images, and of the steps, is for the gates."""
    built = parts("experiment=fbnet_cifar10")
    algo = built.search_algo
    at = [algo.temperature.at(step, 900, 10) for step in (0, 9, 10, 899)]
    assert at == pytest.approx([5.0, 5.0, 5 * math.exp(-0.045), 5 * math.exp(-0.045 * 89)])
    factor = algo.cost.factor_of(torch.tensor(100e6)).item()
    assert factor == pytest.approx(0.2 * math.log(100) ** 0.6, rel=1e-6)
    assert (algo.cost.of_sample, algo.every, built.dataset.validation) == (True, 4, 0.2)


def test_dso_is_retrained_as_released():
    """By hand: on ImageNet five epochs of warm-up; on CIFAR-10 the rate falls once an epoch."""
    rate = parts("experiment=dso_share_imagenet").retrain.trainer.schedule.learning_rate
    assert rate(0, 240, 1) < rate(4, 240, 1) == rate(5, 240, 1) == 0.5
    assert parts("experiment=dso_share_cifar10").retrain.trainer.schedule.per == "epoch"


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """The directory of a finished search, by the command itself."""
    place = tmp_path_factory.mktemp("finished")
    command = [sys.executable, "-m", "nasrun", "search", *TINY]
    done = subprocess.run(command, cwd=place, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (directory,) = (place / "outputs" / "search").iterdir()
    return directory


def test_the_run_directory_is_complete(finished):
    record = json.loads((finished / "run.json").read_text())
    assert record["config"]["search_algo"]["_target_"] == "nasrun.search_algo.nao.Nao"
    assert record["overrides"] == list(TINY) and record["seed"] == 0
    assert record["versions"]["torch"] and record["device"].startswith("CPU")
    trials = lines(finished / "trials.jsonl")
    assert [trial["round"] for trial in trials] == [0] * 4 + [1] * 6 + ["shortlist"] * 2
    assert all(trial["cost"]["params"] > 0 and 0 <= trial["score"] <= 1 for trial in trials)
    metrics = lines(finished / "metrics.jsonl")
    stages = {line["stage"] for line in metrics}
    assert {"supernet/round0", "supernet/round1", "predictor/round1", "retrain"} <= stages
    assert list(finished.glob("events.out.tfevents.*"))
    assert (finished / "supernet.safetensors").exists() and (
        finished / "network.safetensors"
    ).exists()
    kept = sorted(path.suffix for path in (finished / "checkpoints").iterdir())
    assert kept == [
        ".json",
        ".safetensors",
        ".safetensors",
        ".safetensors",
    ]  # the last one, of algorithm, retraining and its best epoch
    assert not (finished / "lock").exists()
    result = json.loads((finished / "result.json").read_text())
    assert result["architecture"] == json.loads((finished / "architecture.json").read_text())
    best = max(trial["score"] for trial in trials if trial["round"] == "shortlist")
    assert result["shortlist_accuracy"] == best
    assert {"score", "validation_accuracy", "test_accuracy", "params", "macs"} <= set(result)


def test_the_same_command_gives_the_same_numbers(finished, undisturbed):
    for name in ("metrics.jsonl", "trials.jsonl", "architecture.json"):
        assert (undisturbed / name).read_bytes() == (finished / name).read_bytes(), name


def test_another_seed_gives_other_numbers(finished, processes, tmp_path):
    assert processes.run(tmp_path, *SEARCH, "seed=1").status == 0
    other = (tmp_path / "run/trials.jsonl").read_bytes()
    assert other != (finished / "trials.jsonl").read_bytes()


def test_retrain_takes_a_run_or_a_file(finished, processes, tmp_path):
    architecture = (finished / "architecture.json").read_bytes()
    for line in (
        [f"from={finished}", "retrain.trainer.epochs=2", "hydra.run.dir=longer"],
        [f"architecture={finished / 'architecture.json'}", *TINY, "hydra.run.dir=same"],
    ):
        assert processes.run(tmp_path, "retrain", *line).status == 0
    for name in ("longer", "same"):
        assert (tmp_path / name / "architecture.json").read_bytes() == architecture
    same = json.loads((tmp_path / "same/result.json").read_text())
    original = json.loads((finished / "result.json").read_text())
    assert same["test_accuracy"] == original["test_accuracy"]  # the same seed, the same network
    config = json.loads((tmp_path / "longer/run.json").read_text())["config"]
    assert config["retrain"]["trainer"]["epochs"] == 2


@pytest.mark.soak
@pytest.mark.parametrize(
    "overrides",
    [
        "evaluator=standalone search_algo=random",
        "search_space.operations=large evaluator.batch_norm=recalibrated search_algo=random",
        "search_space.operations=middle search_algo.fresh_supernet=true search_algo.rescore=new",
        "search_algo.train_on=new search_algo.replace=worst sampler=uniform deterministic=true",
        "shortlist.count=0 retrain.images=train+validation sampler.size=macs trainer.cutout=3",
    ],
)
def test_switches_work_together(overrides, processes, tmp_path):
    of_nao = "search_algo=random" not in overrides
    tiny = [word for word in TINY if of_nao or not word.startswith("search_algo")]
    line = ["search", *tiny, "search_space.nodes=2", *overrides.split(), "hydra.run.dir=run"]
    done = processes.run(tmp_path, *line)
    assert done.status == 0, done.err
    result = json.loads((tmp_path / "run/result.json").read_text())
    assert ("shortlist_accuracy" in result) == ("shortlist.count=0" not in overrides)
    assert ("round_offsets" in result) == ("rescore=new" in overrides)
    assert ("validation_accuracy" in result) == ("train+validation" not in overrides)


def refused(capsys, *line: str) -> str:
    """The one line that a refused command says; nothing is left on the disk."""
    assert main(list(line)) == 2
    captured = capsys.readouterr()
    (said,) = captured.err.strip().splitlines()
    assert said.startswith("nasrun: error: ") and "Traceback" not in captured.out
    assert not Path("outputs").exists()
    return said


@pytest.mark.few(4)
@pytest.mark.parametrize(
    ("line", "message"),
    [
        (["search", "dataset.validation=2000"], "validation"),
        (["search", "effort=smoke", "dataset=synthetic", "dataset.image_size=6"], "too small"),
        (["search", "evaluator.images=5000"], "evaluator.images=5000"),
        (["search", "trainer.auxiliary_weight=0.4"], "auxiliary head"),
        (["search", "retrain.trainer.auxiliary_weight=0.4"], "auxiliary head"),
        (["search", "device=tpu"], "device=tpu"),
        (["search", "trainer.epochs=0"], "trainer.epochs"),
        (["search", "sampler.exponent=-9"], "sampler.exponent"),
        (["search", "trainer.schedule.kind=cosin"], "trainer.schedule.kind"),
        (["search", "dataset=image_folder", "dataset.root=nowhere"], "nowhere"),
        (
            ["search", "dataset=cifar10", "dataset.root=nowhere", "dataset.download=false"],
            "nowhere",
        ),
        (["retrain", "from=nowhere"], "nowhere"),
        (["retrain", "architecture=strange.json"], "belongs to search space 'other'"),
    ],
)
def test_bad_input_gets_one_line_and_leaves_nothing(line, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("strange.json").write_text('{"space": "other", "choices": [1]}')
    assert message in refused(capsys, *line)


def test_an_absent_gpu_is_refused(tmp_path, monkeypatch, capsys):
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    monkeypatch.chdir(tmp_path)
    assert "device=cuda" in refused(capsys, "search", "device=cuda")


@pytest.mark.soak
def test_a_sweep_ends_with_its_table(processes, tmp_path):
    tiny = [word for word in TINY if not word.startswith("search_algo")]
    line = ["sampler=uniform,proportional", "seed=0,1", "search_algo=random"]
    done = processes.run(tmp_path, "search", "-m", *tiny, *line)
    assert done.status == 0, done.err
    (sweep,) = (tmp_path / "outputs" / "search").iterdir()
    table = (sweep / "summary.csv").read_text().splitlines()
    assert len(table) == 3 and "test_accuracy" in table[0]
    assert len((sweep / "jobs.csv").read_text().splitlines()) == 5
    assert "proportional" in done.out


@pytest.mark.soak
def test_another_option_under_a_recipe(processes, tmp_path):
    """What only the recipe's own algorithm, or space, has is left out; the rest holds."""
    line = ["search", "experiment=small_spos_fashion_mnist", "effort=smoke", "threads=1"]
    done = processes.run(tmp_path, *line, "search_algo=nsga2", "hydra.run.dir=a")
    assert done.status == 0
    assert "note: the recipe's search_algo.top mean nothing" in done.err
    config = json.loads((tmp_path / "a/run.json").read_text())["config"]
    assert "top" not in config["search_algo"]
    assert config["budget"]["macs"]["max"] == 11e6  # of the recipe
    nao = [*line, "search_space=nao_cell", "search_space.search.channels=3", "hydra.run.dir=b"]
    done = processes.run(tmp_path, *nao, "search_space.nodes=1")
    assert done.status == 0
    assert "search_space.search.width, search_space.final.width mean" in done.err
    config = json.loads((tmp_path / "b/run.json").read_text())["config"]
    assert "width" not in config["search_space"]["search"]
    # What the user says himself is refused as ever.
    assert processes.run(tmp_path, *line, "search_algo=nsga2", "+search_algo.top=3").status == 2
    done = processes.run(tmp_path, *line, "search_algo=nsga2", "search_algo.top=3")
    assert done.status == 2
    assert "search_algo.top: Nsga2 has no such setting" in done.err
