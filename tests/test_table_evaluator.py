"""The table evaluator: scores as they stand in a file, and what it says of a bad one."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path

import numpy as np
import pytest
import tables
from helpers import CPU, splits
from helpers import space as nao_space
from test_nas_bench_201 import space as nb201
from test_nas_bench_macro import space as macro

from nasrun.cli.main import main
from nasrun.errors import UserError
from nasrun.evaluator.rank_noise import RankNoise
from nasrun.evaluator.table import TableEvaluator, TableScorer
from nasrun.metrics.ranking import kendall
from nasrun.run.monitor import NullMonitor
from nasrun.search_space.base import SearchSpace
from nasrun.streams import Streams
from nasrun.values import Architecture

GOOD = "arch,note,mean_acc\n00000000,a,45.5\n22212220,b,93.13\n"


def started(
    search_space: SearchSpace,
    path: Path | str | None,
    architecture: str = "arch",
    score: str = "mean_acc",
    scale: float = 0.01,
    tau: float = 1.0,
    seed: int = 3,
) -> TableScorer:
    made = TableEvaluator(
        path=None if path is None else str(path),
        architecture=architecture,
        score=score,
        scale=scale,
        tau=tau,
    )
    return made.bind(search_space, splits(), CPU, Streams(seed))


def table(folder: Path, content: str | bytes, name: str = "table.csv") -> Path:
    path = folder / name
    data = content.encode() if isinstance(content, str) else content
    path.write_bytes(gzip.compress(data, mtime=0) if name.endswith(".gz") else data)
    return path


@pytest.mark.parametrize("name", ["table.csv", "table.csv.gz"])
@pytest.mark.parametrize("content", [GOOD, GOOD.replace("\n", "\r\n"), "\ufeff" + GOOD])
def test_scores_are_those_of_the_table(tmp_path, name, content):
    search_space = macro()
    made = started(search_space, table(tmp_path, content, name))
    assert not TableEvaluator.needs_supernet
    asked = [search_space.parse(word) for word in ("22212220", "00000000")]
    trials = list(made.score(asked, None, NullMonitor()))
    assert [trial.architecture for trial in trials] == asked
    assert [trial.score for trial in trials] == pytest.approx([0.9313, 0.455])
    for trial in trials:
        assert trial.evaluation == {"evaluator": "table", "table": name, "column": "mean_acc"}


@pytest.mark.parametrize("written", ["{}", "[{}]", '"{}"'])
@pytest.mark.parametrize("between", [" ", ",", ", "])
def test_architectures_of_any_space_are_their_choices(tmp_path, written, between):
    search_space = nao_space()
    choices = [0, 4] * 20
    word = written.format(between.join(map(str, choices)))
    if "," in word and '"' not in word:
        word = f'"{word}"'
    made = started(search_space, table(tmp_path, f"a,s\n{word},0.5\n"), "a", "s", 1)
    (architecture,) = made.by_seed
    assert list(architecture.choices) == choices
    assert search_space.parse(search_space.write(architecture)) == architecture


@pytest.mark.soak
@pytest.mark.parametrize("column", ["ops", "arch_str"])
def test_the_published_table_is_read_whole_by_either_column(column):
    tables.rows(tables.NB201)
    search_space = nb201()
    made = started(search_space, tables.NB201, column, "c10_test_200")
    assert len(made.by_seed) == search_space.size
    assert made.by_seed[search_space.parse("000000")] == [pytest.approx(0.1)]


def test_the_published_macro_table_is_read_whole():
    tables.rows(tables.MACRO)
    search_space = macro()
    made = started(search_space, tables.MACRO)
    assert len(made.by_seed) == search_space.size
    best = max(made.by_seed.values())[0]
    assert [best] == made.by_seed[search_space.parse("22212220")]
    assert best == pytest.approx(0.9313, abs=5e-5)


def test_a_path_must_be_given_and_be_there(tmp_path):
    with pytest.raises(UserError, match=r"evaluator\.path is missing"):
        started(macro(), None)
    for path in (tmp_path / "absent.csv", tmp_path):
        with pytest.raises(UserError, match="there is no such file"):
            started(macro(), path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (GOOD.replace("mean_acc", "acc"), r"score=mean_acc: .* it has arch, note, acc$"),
        (GOOD.replace("arch", "name"), r"architecture=arch: .* it has name, note, mean_acc$"),
        ("", "it has none$"),
        ("arch,mean_acc\n", "has no rows"),
        (GOOD.replace("93.13", "high"), r"line 3: mean_acc = 'high' is no number"),
        (GOOD.replace("93.13", ""), r"line 3: mean_acc = '' is no number"),
        (GOOD.replace("93.13", "nan"), r"line 3: mean_acc = nan times .* no accuracy"),
        (GOOD.replace("93.13", "inf"), r"line 3: mean_acc = inf times .* no accuracy"),
        (GOOD.replace("93.13", "-1"), r"line 3: mean_acc = -1 times .* no accuracy"),
        (GOOD.replace("93.13", "9313"), r"9313 times evaluator\.scale=0\.01 is no accuracy"),
        (GOOD + "00000000,c,45.5\n", r"line 4: 00000000 has a score already, in line 2"),
        (GOOD + "00000000\n", r"line 4: 00000000 has a score already, in line 2"),
        (GOOD + "11111111\n", r"line 4: mean_acc = '' is no number"),
        (GOOD + "0000000,c,1\n", r"line 4: '0000000': .* has 8 decisions, this one has 7"),
        (
            "arch,mean_acc\n012345,50\n333333,60\n",
            r"no row of the table is an architecture of nas_bench_macro; .*line 2: '012345'",
        ),
        (b"\xff\xfe\x00", "cannot be read: "),
        ("arch,mean_acc\n" + "0" * 200_000, "cannot be read: field larger than"),
    ],
)
def test_a_bad_table_is_told_in_one_line(tmp_path, content, message):
    with pytest.raises(UserError, match=message) as error:
        started(macro(), table(tmp_path, content))
    assert "\n" not in str(error.value) and len(str(error.value)) < 700


@pytest.mark.parametrize(
    "data", [b"no gzip", gzip.compress(GOOD.encode(), mtime=0)[:-12]], ids=["other", "cut"]
)
def test_a_broken_archive_is_told_in_one_line(tmp_path, data):
    path = tmp_path / "table.csv.gz"
    path.write_bytes(data)
    with pytest.raises(UserError, match="cannot be read: "):
        started(macro(), path)


def test_a_missing_architecture_is_named_and_no_twin_taken_for_it(tmp_path):
    search_space = nb201()
    made = started(search_space, table(tmp_path, "arch,mean_acc\n000300,90\n"))
    with pytest.raises(UserError, match=r"no row for architecture 333333$"):
        next(made.score([search_space.parse("333333")], None, NullMonitor()))
    with pytest.raises(UserError, match=r"300010; its row for 000300, which stands for the same"):
        next(made.score([search_space.parse("300010")], None, NullMonitor()))


def all_scores(made: TableScorer, asked: list[Architecture]) -> list[float]:
    return [trial.score for trial in made.score(asked, None, NullMonitor())]


@pytest.mark.parametrize("digits", [4, 3])  # three: about 70 different scores, so many ties
@pytest.mark.parametrize("tau", [0.0, 0.2, 0.4, 0.6, 0.8, 0.95])
def test_noise_reaches_the_chosen_tau(tau: float, digits: int) -> None:
    every = list(macro().every())
    truth = np.random.default_rng(0).normal(0.9, 0.01, len(every)).round(digits)
    noise = RankNoise(dict(zip(every, truth.tolist(), strict=True)))
    found = [noise.scores(tau, Streams(seed)) for seed in range(2)]
    one, other = ([scores[each] for each in every] for scores in found)
    assert sorted(one) == sorted(truth)  # the scores are only exchanged
    near = 0.02 if digits == 4 else 0.03
    assert kendall(one, truth) == pytest.approx(tau, abs=near)
    assert kendall(other, truth) == pytest.approx(tau, abs=near)
    if digits == 4:
        # Two seeds err apart from each other: z' and z'' have the correlation r².
        apart = 2 / np.pi * np.arcsin(np.sin(np.pi * tau / 2) ** 2)
        assert kendall(one, other) == pytest.approx(apart, abs=0.02)


def test_noise_depends_on_seed_and_architecture_alone(tmp_path: Path) -> None:
    space = macro()
    every = list(space.every())[:500]
    lines = [f"{space.write(each)},{50 + index % 313 / 10}" for index, each in enumerate(every)]
    forward = table(tmp_path, "\n".join(["arch,mean_acc", *lines]))
    backward = table(tmp_path, "\n".join(["arch,mean_acc", *lines[::-1]]), "backward.csv")
    first = all_scores(started(space, forward, tau=0.5), every)
    assert all_scores(started(space, backward, tau=0.5), every) == first
    one_by_one = started(space, forward, tau=0.5)
    assert [all_scores(one_by_one, [each])[0] for each in every] == first
    assert all_scores(started(space, forward, tau=0.5, seed=4), every) != first
    plain = all_scores(started(space, forward), every)
    assert plain == [float(line.split(",")[1]) * 0.01 for line in lines]
    nearly = all_scores(started(space, forward, tau=1 - 1e-12), every)
    assert kendall(nearly, plain) > 0.999
    published = one_by_one.published_scores
    assert [published[each] for each in every] == [[score] for score in first]
    (trial,) = one_by_one.score(every[:1], None, NullMonitor())
    assert trial.evaluation["column"] == "mean_acc, with noise to a tau of 0.5"


def smoke(*words: str) -> int:
    return main(["search", "effort=smoke", "threads=1", *words])


@pytest.mark.few(1)
@pytest.mark.parametrize("algo", ["random", "regularized_evolution", "nao"])
def test_a_search_by_table_runs_to_the_end(tmp_path, monkeypatch, algo):
    """Scores grow with the number of large options: what is found has more of them than not."""
    monkeypatch.chdir(tmp_path)
    search_space = macro()
    with gzip.open("all.csv.gz", "wt", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["arch", "mean_acc"])
        for architecture in search_space.every():
            writer.writerow([search_space.write(architecture), 10 + sum(architecture.choices)])
    words = ["search_space=nas_bench_macro", "evaluator=table", "evaluator.path=all.csv.gz"]
    assert smoke(*words, f"search_algo={algo}") == 0
    (directory,) = (tmp_path / "outputs" / "search").iterdir()
    result = json.loads((directory / "result.json").read_text())
    found = sum(result["architecture"]["choices"])
    assert result["score"] == pytest.approx((10 + found) / 100)
    assert 0 <= result["test_accuracy"] <= 1


def test_a_search_that_the_table_does_not_serve_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ["search_space=nas_bench_macro", "evaluator=table", "search_algo=random"]
    assert smoke(*words) == 2
    assert "nasrun: error: evaluator.path is missing" in capsys.readouterr().err
    assert not Path("outputs").exists()
    assert smoke(*words, f"evaluator.path={table(tmp_path, GOOD)}") == 2
    assert "has no row for architecture" in capsys.readouterr().err


@pytest.mark.soak
@pytest.mark.parametrize("option", ["nas_bench_macro", "nas_bench_201"])
@pytest.mark.parametrize(
    "rest",
    [
        "sampler=uniform",
        "sampler=uniform search_algo=regularized_evolution",
        "evaluator=standalone search_algo=random",
        "evaluator=standalone search_algo=regularized_evolution",
    ],
)
def test_the_benchmark_spaces_are_searched(tmp_path, monkeypatch, option, rest):
    monkeypatch.chdir(tmp_path)
    assert smoke(f"search_space={option}", *rest.split()) == 0
