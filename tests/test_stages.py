"""The stages of a search, each started alone from the directory of the one before."""

from __future__ import annotations

import json
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
