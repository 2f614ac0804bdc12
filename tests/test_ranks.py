"""Several ranks: equal to one process, kills, other numbers of ranks, bad input."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers import CPU, Images, Probe, trainer
from processes import SEARCH, TINY, Done, Processes, lines, outcome
from safetensors.torch import load_file

from nasrun.cli.main import main
from nasrun.errors import UserError
from nasrun.run.ranks import Ranks
from nasrun.streams import Streams
from nasrun.trainer.step_rules import StepRules

ROUNDING = 1e-5
"""Largest difference of weights after a few steps: they are in fp64, the loss is in fp32."""


class Two(Ranks):
    """The first of two ranks, as far as it can be asked without the other one."""

    size = 2


def test_two_ranks_compute_what_one_process_does(processes: Processes, tmp_path: Path) -> None:
    first, second = processes.ranks(tmp_path / "two", call="rank_jobs:differences")
    assert (first.status, second.status) == (0, 0), first.err + second.err
    told = json.loads(first.out)
    other = told.pop("other statistics")
    assert other["difference"] > 100 * ROUNDING  # so that the others could have failed
    assert {name: found["equal"] for name, found in told.items()} == dict.fromkeys(told, True)
    assert all(found["difference"] < ROUNDING for found in told.values()), told


@pytest.mark.parametrize(
    ("compute", "rules", "words"),
    [
        (CPU, StepRules(), "2 ranks share a batch of 3 images, and each needs 2"),
        (CPU, StepRules(ghost_batch=3), "2 ranks share a batch of 3 images"),
        (replace(CPU, batch_size=2), StepRules(), "batch_size=2 splits the part of each rank"),
    ],
)
def test_ranks_that_cannot_share_a_batch_are_refused(compute, rules, words):
    size = 3 if "3 images" in words else 16
    with pytest.raises(UserError, match=words):
        trainer(batch_size=size).bind(
            *(Probe(), Images(64), replace(compute, ranks=Two()), Streams(0)), rules=rules
        )


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"WORLD_SIZE": "2"}, "start with torchrun --nproc-per-node=2 -m nasrun ..., or unset"),
        ({"WORLD_SIZE": "two"}, "WORLD_SIZE=two, which is no number"),
        (
            dict.fromkeys(("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"), "0")
            | {"WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2"},
            "2 of 4 ranks are on this machine",
        ),
        (
            dict.fromkeys(("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"), "0")
            | {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MULTIRUN": "-m"},
            "2 ranks work on one run, and -m begins many",
        ),
    ],
)
def test_environments_that_cannot_be_are_told_in_a_line(environment, words, monkeypatch, capsys):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    switches = [value for name, value in environment.items() if name == "MULTIRUN"]
    assert main(["search", *switches]) == 2
    told = capsys.readouterr().err
    assert words in told
    assert told.count("\n") == 1


RUN = ("hydra.run.dir=run",)
SAVED_OFTEN = ("checkpoint.steps=2",)


def ended_well(ranks: list[Done]) -> None:
    assert [done.status for done in ranks] == [0] * len(ranks), "".join(d.err for d in ranks)
    assert all(done.out == "" for done in ranks[1:])  # the first alone speaks


def weights(path: Path) -> torch.Tensor:
    return torch.cat([value.double().flatten() for value in load_file(path).values()])


@pytest.fixture(scope="module")
def two(processes: Processes, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of the same search as ``undisturbed``, by two ranks."""
    place = tmp_path_factory.mktemp("two")
    ended_well(processes.ranks(place, *SEARCH))
    return place / "run"


@pytest.mark.soak
def test_a_search_of_two_ranks_is_that_of_one_process(undisturbed: Path, two: Path) -> None:
    one, several = outcome(undisturbed), outcome(two)
    assert one["architecture.json"] == several["architecture.json"]
    names = [
        {path.name for path in run.iterdir() if "tfevents" not in path.name}
        for run in (undisturbed, two)
    ]
    assert names[0] == names[1]
    # In fp32 the differences of rounding grow from step to step.
    assert torch.allclose(
        weights(undisturbed / "supernet.safetensors"),
        weights(two / "supernet.safetensors"),
        atol=0.02,
    )
    metrics = [lines(run / "metrics.jsonl") for run in (undisturbed, two)]
    # Brief trainings of the shortlist too, of which the second rank has done some by itself.
    stages = [[line["stage"] for line in of_run] for of_run in metrics]
    assert stages[0] == stages[1]
    assert len({stage for stage in stages[1] if stage.startswith("standalone/")}) > 1
    spent = [json.loads((run / "result.json").read_text())["spent"] for run in (undisturbed, two)]
    seconds = [each.pop("device_seconds") for each in spent]
    assert spent[0] == spent[1] and min(seconds) > 0
    assert metrics[1][0] == pytest.approx(metrics[0][0], abs=1e-2)


@pytest.mark.soak
def test_scores_and_trained_truth_are_spread_and_equal(
    processes: Processes, tmp_path: Path
) -> None:
    """Equal to the byte: each score is computed by one rank, as one process would."""
    plain = ("sampler=uniform", "search_algo=random")
    train = ("supernet", *plain, *TINY[:3], *TINY[-2:], *RUN)
    assert processes.run(tmp_path / "supernet", *train).status == 0
    rank = (
        *("rank", "effort=smoke", "threads=1", *TINY[-2:], "rank.architectures.count=5", *RUN),
        *(f"from={tmp_path / 'supernet' / 'run'}", "search_space.nodes=1"),
    )
    places = tmp_path / "one", tmp_path / "several"
    assert processes.run(places[0], *rank).status == 0
    ended_well(processes.ranks(places[1], *rank, size=3))
    one, several = (
        {name: (place / "run" / name).read_bytes() for name in ("trials.jsonl", "ranking.csv")}
        for place in places
    )
    assert one == several


@pytest.mark.soak
@pytest.mark.parametrize("faulty", [0, 1])
def test_a_killed_rank_ends_the_other_in_one_line_and_resume_goes_on_exactly(
    faulty: int, two: Path, processes: Processes, tmp_path: Path
) -> None:
    kill = ("signal_at", [signal.SIGKILL, "safe_point", "supernet/*", 5])
    place = tmp_path / "killed"
    killed = processes.ranks(place, *SEARCH, *SAVED_OFTEN, faults=[kill], faulty=faulty)
    assert killed[faulty].status == -signal.SIGKILL
    other = killed[1 - faulty]
    assert other.status == 2
    assert other.err.count("\n") == 1
    assert "another of the 2 ranks has ended" in other.err
    assert f"nasrun resume {place / 'run'}" in other.err
    ended_well(processes.ranks(place, "resume", "run"))
    assert outcome(place / "run") == outcome(two)


@pytest.mark.soak
@pytest.mark.parametrize("stage", ["supernet/*", "score/*", "predictor*", "retrain"])
def test_ranks_that_are_told_to_stop_save_and_go_on_exactly(
    stage: str, two: Path, processes: Processes, tmp_path: Path
) -> None:
    """torchrun tells all ranks; here it is the first alone, and the other follows."""
    stop = ("signal_at", [signal.SIGTERM, "safe_point", stage, 2])
    stopped = processes.ranks(tmp_path, *SEARCH, faults=[stop])
    assert stopped[0].status == 128 + signal.SIGTERM
    assert "all work is saved" in stopped[0].err
    assert stopped[1].err == ""
    ended_well(processes.ranks(tmp_path, "resume", "run"))
    assert outcome(tmp_path / "run") == outcome(two)


@pytest.mark.soak
def test_a_run_goes_on_with_another_number_of_ranks(
    two: Path, processes: Processes, tmp_path: Path
) -> None:
    stop = ("signal_at", [signal.SIGTERM, "safe_point", "supernet/*", 3])
    processes.ranks(tmp_path, *SEARCH, faults=[stop])
    shutil.copytree(tmp_path / "run", tmp_path / "three")
    assert processes.run(tmp_path, "resume", "run").status == 0
    ended_well(processes.ranks(tmp_path, "resume", "three", size=3))
    for name in ("run", "three"):
        assert torch.allclose(
            weights(two / "supernet.safetensors"),
            weights(tmp_path / name / "supernet.safetensors"),
            atol=1e-3,
        )


@pytest.mark.soak
@pytest.mark.parametrize("algo", ["darts", "snas", "proxyless", "p_darts", "enas", "dso"])
def test_ranks_learn_the_gates_that_one_process_learns(
    algo: str, processes: Processes, tmp_path: Path
) -> None:
    space = {"dso": "dso_block", "enas": "nao_cell"}.get(algo, "darts_cell")
    words = (
        *("search", f"search_space={space}", f"search_algo={algo}", "effort=smoke", "threads=1"),
        *("trainer.log_every=1", "retrain.trainer.epochs=1", *TINY[-2:], *RUN),
    )
    assert processes.run(tmp_path / "one", *words).status == 0
    ended_well(processes.ranks(tmp_path / "two", *words))
    logs = (tmp_path / name / "run" / "metrics.jsonl" for name in ("one", "two"))
    # Rounding may lead to another winner, and other networks are then trained on their own.
    one, two = ([line for line in lines(log) if "super" in line["stage"]] for log in logs)
    assert [line["stage"] for line in two] == [line["stage"] for line in one]
    for found, expected in zip(two[:3], one[:3], strict=True):  # later on rounding grows
        assert found == pytest.approx(expected, abs=0.02)


@pytest.mark.soak
def test_a_rank_that_fails_alone_tells_why(processes: Processes, tmp_path: Path) -> None:
    first, second = processes.ranks(tmp_path, *SEARCH, faults=[("fail_at", [3])], faulty=1)
    assert "rank 1: internal error: RuntimeError: a bug" in second.err
    assert second.status == 1
    assert "another of the 2 ranks has ended" in first.err
    assert first.status == 2


@pytest.mark.soak
def test_a_mistake_is_told_once(processes: Processes, tmp_path: Path) -> None:
    for words in (("search", "sampler=unifrom"), (*SEARCH, "trainer.batch_size=3")):
        first, second = processes.ranks(tmp_path, *words)
        assert (first.status, second.status) == (2, 2)
        assert first.err.startswith("nasrun: error: ")
        assert second.err == ""


@pytest.mark.soak
def test_torchrun_starts_ranks(tmp_path: Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command = [*torchrun, "--nproc-per-node=2", "-m", "nasrun", "supernet", "sampler=uniform"]
    command += ["search_algo=random", *TINY[:3], *RUN]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("supernet on 2 ranks, each CPU") == 1
    assert (tmp_path / "run" / "supernet.safetensors").is_file()
