"""The stages of a search, each started alone from the directory of the one before."""

from __future__ import annotations

import json
import re
import shutil
import signal
from pathlib import Path

import pytest
import torch
from helpers import space_of
from networks import counted
from processes import Processes, outcome, tensors
from safetensors.torch import load_file

from nasrun.cli.main import main
from nasrun.config.build import build, build_setup
from nasrun.streams import Streams
from nasrun.task.base import find_task
from nasrun.values import Problem

WORDS = [
    *("search_space=spos_blocks", "sampler=uniform", "search_algo=evolution"),
    *("dataset=synthetic", "effort=smoke", "threads=1"),
]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def run(task: str, directory: str, *words: str) -> Path:
    assert main([task, *words, f"hydra.run.dir={directory}"]) == 0
    return Path(directory)


@pytest.mark.soak
def test_in_stages_or_at_once_the_bits_are_the_same() -> None:
    whole = run("search", "whole", *WORDS)
    supernet = run("supernet", "supernet", *WORDS)
    searched = run("search", "searched", "from=supernet")
    retrained = run("retrain", "retrained", "from=searched")
    weights = [path / "supernet.safetensors" for path in (whole, supernet, searched)]
    assert len({path.read_bytes() for path in weights}) == 1
    for name in ("trials.jsonl", "architecture.json"):
        assert (whole / name).read_bytes() == (searched / name).read_bytes()
    networks = [tensors(path / "network.safetensors") for path in (whole, retrained)]
    assert networks[0] == networks[1]
    results = [json.loads((path / "result.json").read_text()) for path in (whole, retrained)]
    assert results[0]["test_accuracy"] == results[1]["test_accuracy"]
    assert results[0]["params"] == results[1]["params"]


@pytest.mark.soak
def test_the_points_of_a_front_are_retrained(capsys: pytest.CaptureFixture[str]) -> None:
    found = run("search", "found", *WORDS, "search_algo=nsga2")
    front = json.loads((found / "front.json").read_text())
    trials = [json.loads(line) for line in (found / "trials.jsonl").read_text().splitlines()]
    visited = [t for t in trials if t["evaluation"]["evaluator"] == "supernet"]
    # Nothing that was visited beats a point of the front in both goals.
    for point in front:
        for trial in visited:
            score, macs = trial["score"], trial["cost"]["macs"]
            assert not (score >= point["score"] and macs < point["macs"])
            assert not (score > point["score"] and macs <= point["macs"])
    for name in ("front.png", "front.svg"):
        assert (found / name).stat().st_size > 3000
    last = len(front) - 1
    retrained = run("retrain", "retrained", "from=found", f"pick={last}")
    result = json.loads((retrained / "result.json").read_text())
    assert result["architecture"] == front[last]["architecture"]
    assert result["macs"] == front[last]["macs"]
    capsys.readouterr()
    for word, said in ((f"pick={last + 1}", f"has the places 0 to {last}"), ("pick=-1", "pick=-1")):
        assert main(["retrain", "from=found", word]) == 2
        assert said in capsys.readouterr().err
    assert main(["retrain", "from=retrained", "pick=0"]) == 2
    assert "search_algo=nsga2" in capsys.readouterr().err
    assert main(["retrain", "architecture=found/architecture.json", "pick=0"]) == 2
    assert "it needs from=RUN_DIR" in capsys.readouterr().err


@pytest.mark.soak
@pytest.mark.parametrize("algo", ["random", "evolution", "nsga2"])
def test_what_is_retrained_keeps_to_the_budget_by_another_counter(algo: str) -> None:
    bound = 85_000  # of 55,320 to 118,440
    run("search", "found", *WORDS, f"search_algo={algo}", f"budget.macs.max={bound}")
    result = json.loads((run("retrain", "again", "from=found") / "result.json").read_text())
    space = space_of("spos_blocks")
    for directory in ("found", "again"):
        config = json.loads(Path(directory, "run.json").read_text())["config"]
        assert config["budget"]["macs"]["max"] == bound
        weights = load_file(Path(directory, "network.safetensors"))
        network = space.network(space.read(result["architecture"]), Problem(3, 8, 4), "final")
        network.load_state_dict(weights)  # the very network that was trained
        params, macs = counted(network, Problem(3, 8, 4))
        assert macs == result["macs"] <= bound
        assert params == result["params"]


@pytest.mark.soak
def test_another_seed_keeps_the_split_of_the_supernet() -> None:
    """Else a supernet would be scored on images that it was trained on."""
    run("supernet", "supernet", *WORDS, "seed=3")
    directory = run("search", "search", "from=supernet", "seed=4")
    config = json.loads((directory / "run.json").read_text())["config"]
    assert (config["seed"], config["split_seed"]) == (4, 3)
    own = run("search", "own", "from=supernet", "seed=4", "split_seed=4")
    assert json.loads((own / "run.json").read_text())["config"]["split_seed"] == 4
    retrained = run("retrain", "retrained", "from=search", "seed=5")
    config = json.loads((retrained / "run.json").read_text())["config"]
    assert (config["seed"], config["split_seed"]) == (5, 3)
    split = {name: images(name) for name in ("supernet", "search", "own", "retrained")}
    assert split["supernet"] == split["search"] == split["retrained"]
    assert split["own"] != split["supernet"]


def images(name: str) -> object:
    """What tells the images of a run from others."""
    *_, last = sorted(Path(name, "checkpoints").glob("*.json"))
    return json.loads(json.loads(last.read_text())["checkpoint"])["parts"]["images"]["tree"]


@pytest.mark.soak
def test_stages_that_an_algorithm_does_not_have(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["supernet", "effort=smoke", "threads=1"]) == 2
    assert "its supernet cannot be trained alone" in capsys.readouterr().err
    supernet = run("supernet", "supernet", *WORDS)
    capsys.readouterr()
    assert main(["search", f"from={supernet}", "search_algo=nao"]) == 2
    assert "it cannot start from a trained one" in capsys.readouterr().err
    assert main(["search", "from=supernet", "search_space.search.width=0.125"]) == 2
    assert "supernet.safetensors" in capsys.readouterr().err


@pytest.mark.soak
def test_a_retraining_ends_with_statistics_of_its_own(
    processes: Processes, tmp_path: Path, undisturbed: Path
) -> None:
    """In any number of attempts; weights and training are those of a run without that end."""
    words = ("retrain", "from=found", "retrain.batch_norm_epochs=2", "hydra.run.dir=run")
    places = [tmp_path / name for name in ("off", "on", "stopped")]
    for place in places:
        shutil.copytree(undisturbed, place / "found")
    assert processes.run(places[0], *words[:2], words[3]).status == 0
    assert processes.run(places[1], *words).status == 0
    stop = ("signal_at", [signal.SIGTERM, "poll", "batch norm", 3])
    assert processes.run(places[2], *words, faults=[stop]).status == 143
    assert processes.run(places[2], "resume", "run").status == 0
    off, on, stopped = (place / "run" for place in places)
    assert outcome(on) == outcome(stopped)
    assert (off / "metrics.jsonl").read_bytes() == (on / "metrics.jsonl").read_bytes()
    before, after = (load_file(run / "network.safetensors") for run in (off, on))
    changed = {name for name, value in after.items() if not torch.equal(value, before[name])}
    assert changed == {
        name for name in after if name.endswith(("running_mean", "running_var", "batches_tracked"))
    }
    # Further epochs go on from the training, not from the statistics of its end.
    more = ("resume", "run", "retrain.trainer.epochs=2")
    for place in places[:2]:
        assert processes.run(place, *more).status == 0
    assert (off / "metrics.jsonl").read_bytes() == (on / "metrics.jsonl").read_bytes()


# The plan of stages, made before anything runs.


def said_of(directory: Path) -> list[tuple[str, int]]:
    """The stages that a run says it has had, with their totals."""
    line = re.compile(r"^  (\S+|batch norm)  \d+/(\d+)  \d+\.\d s(  |$)", re.MULTILINE)
    said = (directory / "log.txt").read_text()
    # A training that pauses while others are scored is said twice.
    return list(dict.fromkeys((name, int(total)) for name, total, _ in line.findall(said)))


def planned_of(directory: Path) -> list[tuple[str, int]]:
    """The stages that its task plans by its settings alone."""
    config = json.loads((directory / "run.json").read_text())["config"]
    setup = build_setup(config)
    splits = setup.dataset.load(Streams(setup.split_seed).sub("dataset"), torch.device("cpu"))
    kind = find_task(config["task"])
    task = build(config[kind.settings], kind.settings, (kind,)) if kind.settings else kind()
    return [(stage.name, stage.steps) for stage in task.stages(setup, splits) if stage.steps]


def test_the_plan_of_a_search_is_what_then_ran(undisturbed: Path) -> None:
    assert said_of(undisturbed) == planned_of(undisturbed)
    assert len(planned_of(undisturbed)) >= 6


SMALL = ("dataset=synthetic", "effort=smoke", "threads=1")
PLANNED = {
    "evolution": ("search", *WORDS, "retrain.batch_norm_epochs=2"),
    "random": (
        "search",
        *WORDS[:2],
        *SMALL,
        "search_algo=random",
        "retrain.images=train+validation",
    ),
    "regularized": ("search", *WORDS[:2], *SMALL, "search_algo=regularized_evolution"),
    "nsga2": ("search", *WORDS[:2], *SMALL, "search_algo=nsga2"),
    "darts": ("search", "search_space=darts_cell", "search_algo=darts", *SMALL),
    "dso": ("search", "search_space=dso_block", "search_algo=dso", *SMALL),
    "enas": ("search", "search_space=nas_bench_201", "search_algo=enas", *SMALL),
    "nao_v2": ("search", "experiment=nao_v2_cifar10", *SMALL[1:]),
    "standalone": ("search", *WORDS, "evaluator=standalone"),
    "supernet": ("supernet", *WORDS),
    "rank": (
        *("rank", "search_space=nas_bench_macro", "search_space.search.width=0.125", *SMALL),
        *("search_space.final.width=0.25", "rank.architectures.count=4", "rank.resamples=0"),
        *("rank.k=2", "rank.truth_store=store", "evaluator@rank.also=kl", "rank.also.images=16"),
        *("trainer.epochs=2", "rank.epochs=[1]"),
    ),
    "compare": (
        *("compare", *WORDS[:1], *SMALL, "evaluator=size", "compare.seeds=2"),
        *("compare.evaluations=20", "compare.resamples=0"),
    ),
}


@pytest.mark.soak
@pytest.mark.parametrize("name", PLANNED)
def test_the_plan_is_what_then_runs(name: str) -> None:
    task, *words = PLANNED[name]
    directory = run(task, "run", *words)
    assert said_of(directory) == planned_of(directory)
