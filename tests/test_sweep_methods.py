"""Methods of a sweep against a control: by hand, and as a sweep shows them; winners looked up."""

from __future__ import annotations

import csv
import io
import itertools
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from scipy import stats

from nasrun.cli.main import main
from nasrun.report.sweep_methods import (
    MAX_SHOWN,
    Difference,
    Methods,
    compare_all,
    plot,
    short,
    show,
)

SHARED = ["effort=smoke", "threads=1"]


@dataclass
class Done:
    directory: Path
    metrics: dict[str, float] = field(default_factory=dict)


def job(place: Path, seed: int | None, **metrics: float) -> Done:
    place.mkdir(parents=True)
    if seed is not None:
        (place / "run.json").write_text(json.dumps({"seed": seed}))
    return Done(place, metrics)


def sweep(tmp_path: Path, measure: str = "test_accuracy", **values: list[float]):
    return {
        name.replace("__", "="): [
            job(tmp_path / name / str(seed), seed, **{measure: value})
            for seed, value in enumerate(accuracies)
        ]
        for name, accuracies in values.items()
    }


def compare(combinations: Any) -> Methods | None:
    """The comparison by the first measure that suits."""
    return next(iter(compare_all(combinations)), None)


def shown(methods: Methods) -> str:
    console = Console(width=160, file=io.StringIO())
    show(methods, console)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_differences_by_hand(tmp_path):
    found = compare(
        sweep(tmp_path, a=[0.9, 0.8, 0.7, 0.6], search_algo__random=[0.5, 0.6, 0.4, 0.5])
    )
    assert found is not None and found.control == "search_algo=random"
    one = found.differences["a"]
    assert one.n == 4 and one.mean == pytest.approx(0.25)
    half = stats.t.ppf(0.975, 3) * stats.tstd([0.4, 0.2, 0.3, 0.1]) / 2
    assert (one.low, one.high) == pytest.approx((0.25 - half, 0.25 + half))
    assert one.p == pytest.approx(2 / 16)  # of sixteen ways to swap, all or none is as far off
    assert "+25.00" in shown(found) and "cannot be below 0.12" in shown(found)


def test_pairs_are_those_of_equal_seeds(tmp_path):
    jobs = {
        "x": [job(tmp_path / f"x{s}", s, test_accuracy=s / 10) for s in (5, 1, 2, 3)],
        "y": [job(tmp_path / f"y{s}", s, test_accuracy=s / 10 - 0.1) for s in (1, 2, 3, 7)],
    }
    jobs["y"].append(job(tmp_path / "none", None, test_accuracy=0.9))
    found = compare(jobs)
    assert found is not None and found.control == "x"  # the first, where nothing is random
    assert found.differences["y"].n == 3
    assert found.differences["y"].mean == pytest.approx(-0.1)


def test_true_accuracies_count_before_those_of_the_test_set(tmp_path):
    jobs = sweep(tmp_path, "true_accuracy", a=[0.1] * 3, b=[0.2] * 3)
    for job in itertools.chain(*jobs.values()):
        job.metrics["test_accuracy"] = 0.5
    found = compare(jobs)
    assert found is not None and found.measure == "true_accuracy"
    assert found.differences["b"].mean == pytest.approx(0.1)


def test_nothing_is_compared_without_two_methods_and_three_seeds(tmp_path):
    assert compare({}) is None
    assert compare(sweep(tmp_path / "1", a=[0.1, 0.2, 0.3])) is None
    assert compare(sweep(tmp_path / "2", a=[0.1, 0.2], b=[0.1, 0.2])) is None
    assert compare(sweep(tmp_path / "3", "score", a=[0.1] * 3, b=[0.2] * 3)) is None


def test_rankings_are_compared_by_agreement_and_given_size(tmp_path):
    """By τ-b in its own unit, never in per cent, and beside it given size."""
    jobs = sweep(tmp_path, "kendall", sampler__uniform=[0.2, 0.3, 0.4], b=[0.3, 0.5, 0.4])
    for job in itertools.chain(*jobs.values()):
        job.metrics["partial_macs"] = 1 - job.metrics["kendall"]
    first, second = compare_all(jobs)
    assert (first.measure, second.measure) == ("kendall", "partial_macs")
    assert first.differences["b"].mean == pytest.approx(0.1)
    assert second.differences["b"].mean == pytest.approx(-0.1)
    screen = shown(first)
    assert "+0.100" in screen and "points" not in screen and "against sampler=uniform" in screen
    # Mean 0.1 and deviation 0.1: the known answer of the paired t-test at 80 % is 10 pairs.
    assert first.differences["b"].pairs_needed == 10


def test_the_picture_shows_every_method_and_is_the_same_twice(tmp_path):
    found = compare(sweep(tmp_path, a=[0.9, 0.8, 0.7], b=[0.5, 0.6, 0.4]))
    assert found is not None
    first = [path.read_bytes() for path in plot(found, tmp_path)]
    assert first == [path.read_bytes() for path in plot(found, tmp_path)] and len(first) == 2


def test_labels_lose_the_word_that_all_begin_with():
    assert short(["algo=a", "algo=b"]) == (["a", "b"], "algo")
    for labels in (["algo=a", "seeds=b"], ["algo=a x=1", "algo=b x=1"], ["a", "algo=b"]):
        assert short(labels) == (labels, "")
    assert short([""]) == (["(as it is)"], "")


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> Path:
    """Every network of NAS-Bench-Macro, with made-up accuracies."""
    path = tmp_path_factory.mktemp("table") / "table.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["arch", "acc"])
        for choices in itertools.product("012", repeat=8):
            writer.writerow(["".join(choices), 50 + sum(map(int, choices))])
    return path


@pytest.mark.soak
def test_a_sweep_ends_with_winners_that_were_looked_up(table, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = [
        *("search", "-m", "search_space=nas_bench_macro", "evaluator@retrain.truth=table"),
        *(f"retrain.truth.path={table}", "retrain.truth.architecture=arch"),
        *("retrain.truth.score=acc", "search_algo=random,darts", "seed=0,1,2", *SHARED),
    ]
    assert main(words) == 0
    (directory,) = (tmp_path / "outputs/search").iterdir()
    for number in range(6):
        result = json.loads((directory / str(number) / "result.json").read_text())
        choices = result["architecture"]["choices"]
        assert result["true_accuracy"] == pytest.approx((50 + sum(choices)) / 100)
        assert "test_accuracy" not in result
        assert not (directory / str(number) / "network.safetensors").exists()
    screen = capsys.readouterr().out
    assert "true %" in screen and "against search_algo=random" in screen
    assert (directory / "methods.png").exists()
    rows = list(csv.DictReader((directory / "jobs.csv").open()))
    assert len(rows) == 6 and all(float(row["true_accuracy"]) > 0.5 for row in rows)


def test_a_table_that_does_not_fit_is_refused_before_anything_trains(table, tmp_path, capsys):
    words = ["evaluator@retrain.truth=table", f"retrain.truth.path={table}", *SHARED]
    columns = ["retrain.truth.architecture=arch", "retrain.truth.score=nothing"]
    run = f"hydra.run.dir={tmp_path / 'run'}"
    assert main(["search", "search_space=nas_bench_macro", *words, *columns, run]) == 2
    assert "nothing" in capsys.readouterr().err
    assert main(["search", "evaluator@retrain.truth=supernet", *SHARED, run]) == 2
    assert "what stands for retraining needs no supernet" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.soak
def test_a_recipe_may_speak_of_several_options_but_makes_no_slips(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "conf/experiment"
    folder.mkdir(parents=True)
    lines = ["# @package _global_", "defaults: [override /search_algo: random]"]
    text = "\n".join([*lines, "search_algo: { evaluations: 3, population: 7 }"])
    (folder / "mine.yaml").write_text(text)
    (folder / "slip.yaml").write_text(text.replace("population", "populaton"))
    words = ["-cd", str(tmp_path / "conf"), *SHARED]
    assert main(["search", "experiment=mine", *words]) == 0
    (run,) = (tmp_path / "outputs/search").iterdir()
    config = json.loads((run / "run.json").read_text())["config"]
    assert "population" not in config["search_algo"]
    capsys.readouterr()
    assert main(["search", "experiment=slip", *words]) == 2
    assert "populaton" in capsys.readouterr().err


def test_methods_of_unequal_cost_are_told(tmp_path):
    costs = {"spent_evaluations": 50, "spent_images": 1100, "spent_retraining_images": 1000}

    def of(**more: float) -> Any:
        values = {"a": [0.9, 0.8, 0.7], "search_algo__random": [0.5, 0.6, 0.4]}
        methods = sweep(tmp_path / str(len(list(tmp_path.iterdir()))), **values)
        for name, jobs in methods.items():
            for one in jobs:
                one.metrics |= costs | (more if name == "a" else {})
        return compare(methods)

    assert of().unequal == ()
    assert of(spent_evaluations=52).unequal == ()  # 4 %
    (line,) = of(spent_evaluations=53).unequal
    assert line == "architectures scored: 50 (search_algo=random) to 53 (a), 1.06 times as many"
    # 0.9 % of all images, but twice those of the search.
    (line,) = of(spent_images=1200).unequal
    assert "before the winner's training: 100 (search_algo=random) to 200 (a), 2 times" in line
    assert "UNEQUAL COST" in shown(of(spent_images=1200)) and line in shown(of(spent_images=1200))
    assert "UNEQUAL COST" not in shown(of())
    assert compare(sweep(tmp_path / "old", a=[1, 2, 3], b=[1, 2, 3])).unequal == ()


def test_of_many_methods_the_best_are_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A picture of a thousand methods would be too high to be written."""
    values = {f"lr={number}": dict.fromkeys(range(3), number / 1000) for number in range(1000)}
    difference = Difference(3, 0.1, 0.0, 0.2, 0.5, None)
    methods = Methods(
        "test_accuracy",
        "lr=7",
        values,
        dict.fromkeys([n for n in values if n != "lr=7"], difference),
    )
    found: list[str] = []
    monkeypatch.setattr(
        "nasrun.report.sweep_methods.plot_spread", lambda groups, *_, **__: found.extend(groups)
    )
    plot(methods, tmp_path)
    assert found == ["7", *(str(number) for number in range(1000 - MAX_SHOWN + 1, 1000))]
    text = shown(methods)
    assert f"{999 - MAX_SHOWN} more are in the report" in text
    assert text.count("+10.00") == MAX_SHOWN
