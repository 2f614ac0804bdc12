"""``nasrun compare``: what it counts, what it writes, and that it can be stopped anywhere."""

from __future__ import annotations

import csv
import json
import os
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from helpers import space_of
from tables import NB201, rows

from nasrun.cli.main import main
from nasrun.config.build import build
from nasrun.config.compose import compose
from nasrun.errors import UserError
from nasrun.metrics import Estimate
from nasrun.report.comparison import BestSoFar, Comparison, SearchRecord, truths
from nasrun.run.run import Run
from nasrun.search_algo.random_search import RandomSearch
from nasrun.search_algo.regularized_evolution import RegularizedEvolution
from nasrun.search_space.base import SearchSpace
from nasrun.streams import Streams
from nasrun.task import compare as compare_module
from nasrun.task.compare import CompareTask, check_complete
from nasrun.task.compare_search import Searches
from nasrun.values import Architecture

MACRO = [
    *("search_space=nas_bench_macro", "dataset=synthetic", "evaluator=table"),
    *("evaluator.path=table.csv", "evaluator.score=cheap", "threads=1"),
]
TRUTH = [
    "evaluator@compare.truth=table",
    "compare.truth.path=table.csv",
    "compare.truth.score=dear",
]
SHORT = [
    *("compare.evaluations=20", "compare.seeds=4", "compare.resamples=50", "hydra.run.dir=run"),
    *("compare.algorithms.evolution.population=8", "compare.algorithms.evolution.top=4"),
    *("compare.algorithms.evolution.mutations=4", "compare.algorithms.evolution.crossovers=2"),
]


@pytest.fixture(scope="module")
def macro() -> SearchSpace:
    return space_of("nas_bench_macro")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, macro: SearchSpace) -> None:
    """Made-up accuracies of the whole space, by a cheap training and by a dear one."""
    monkeypatch.chdir(tmp_path)
    with Path("table.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["arch", "cheap", "dear"])
        for index, architecture in enumerate(macro.every()):
            dear = 50 + sum(architecture.choices) + 5 * (architecture.choices[0] == 2)
            writer.writerow([macro.write(architecture), dear - 10 + index % 5, dear])


def compare(*words: str) -> int:
    """Of two words for one key the last counts."""
    others = {"evaluator=supernet", "evaluator=size"} & set(words)  # have no settings of a table
    table = MACRO[:2] if others else MACRO
    by_key = {word.split("=", 1)[0]: word for word in [*table, *SHORT, *words]}
    return main(["compare", *by_key.values()])


def read(name: str, run: str = "run") -> list[dict[str, str]]:
    with Path(run, name).open(newline="") as file:
        return list(csv.DictReader(file))


def report(run: str = "run") -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path(run, "compare.json").read_text())
    return found


def error(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """Return what is said, a line for each mistake; exit status 2, and no run."""
    assert compare(*words) == 2
    first, *others = capsys.readouterr().err.strip().splitlines()
    assert not Path("run").exists()
    assert not others or first == f"nasrun: error: {len(others)} mistakes:"
    return "\n".join([first, *others])


def test_what_it_writes(macro: SearchSpace, capsys: pytest.CaptureFixture[str]) -> None:
    assert compare(*TRUTH, "seed=7") == 0
    names = ["random", "regularized_evolution", "evolution"]
    table = {
        row["arch"]: (float(row["cheap"]), float(row["dear"])) for row in read("table.csv", ".")
    }
    best = max(dear for _, dear in table.values()) / 100
    searches = read("searches.csv")
    assert [(row["algorithm"], int(row["seed"])) for row in searches] == [
        (name, seed) for name in names for seed in range(7, 11)
    ]
    for row in searches:
        cheap, dear = table[row["architecture"]]
        assert float(row["score"]) == pytest.approx(cheap / 100)
        assert float(row["truth"]) == pytest.approx(dear / 100)
        assert int(row["evaluations"]) == 20
    # The mean of the searches is the end of the curve, and what the result says.
    result, end = json.loads(Path("run/result.json").read_text()), report()["algorithms"]
    curve = read("compare.csv")
    assert len(curve) == 3 * 20
    for name in names:
        own = [float(row["truth"]) for row in searches if row["algorithm"] == name]
        points = [row for row in curve if row["algorithm"] == name]
        assert [int(row["evaluations"]) for row in points] == list(range(1, 21))
        regret = best - np.mean(own)
        assert float(points[-1]["regret"]) == pytest.approx(regret)
        assert result[f"regret_{name}"] == pytest.approx(regret)
        assert end[name]["regret"]["low"] <= regret <= end[name]["regret"]["high"]
        assert end[name]["median_regret"] == pytest.approx(best - np.median(own))
        scores = [float(row["score"]) for row in points]
        assert scores == sorted(scores)  # of the score; the truth may well fall
    assert end["random"]["wins"] is end["random"]["p"] is None
    assert all(0 < end[name]["p"] <= 1 for name in names[1:])
    # Nothing is scored twice, by either evaluator.
    trials = [json.loads(line) for line in Path("run/trials.jsonl").read_text().splitlines()]
    asked = [(trial["role"], *trial["architecture"]["choices"]) for trial in trials]
    assert len(asked) == len(set(asked)) <= 3 * 4 * 20 * 2
    assert {role for role, *_ in asked} == {"score", "truth"}
    shown = capsys.readouterr().out
    assert "20 evaluations each, 4 seeds" in shown
    assert f"below the best there is, {100 * best:.2f} %" in shown
    for suffix in ("png", "svg"):
        assert Path(f"run/compare.{suffix}").stat().st_size > 5000


@pytest.mark.soak
@pytest.mark.parametrize(
    "algo", ["random", "regularized_evolution", "evolution"], ids=lambda name: name
)
def test_a_search_is_that_of_nasrun_search(algo: str) -> None:
    """The same seed asks for the same architectures in the same order."""
    sizes = {
        "random": ["search_algo.evaluations=20"],
        "regularized_evolution": [
            *("search_algo.population=10", "search_algo.tournament=3"),
            "search_algo.evaluations=20",
        ],
        "evolution": [
            *("search_algo.population=8", "search_algo.top=4", "search_algo.mutations=4"),
            *("search_algo.crossovers=2", "search_algo.generations=3"),
        ],
    }[algo]
    tiny = ["search_space.final.width=0.25", "effort=smoke", "shortlist.count=0"]
    words = [*MACRO, *tiny, f"search_algo={algo}", *sizes, "seed=3", "hydra.run.dir=alone"]
    assert main(["search", *words]) == 0
    removed = [f"~compare.algorithms.{name}" for name in ("regularized_evolution", "evolution")]
    control = [] if algo == "random" else [f"compare.control={algo}", "~compare.algorithms.random"]
    kept = [word for word in SHORT if "evolution." not in word or algo == "evolution"]
    words = [*MACRO, *kept, "seed=3", "compare.seeds=2", *control]
    words += [word for word in removed if not word.endswith(f".{algo}")]
    assert main(["compare", *words]) == 0

    def asked(run: str) -> list[tuple[list[int], float]]:
        lines = map(json.loads, Path(run, "trials.jsonl").read_text().splitlines())
        return [(line["architecture"]["choices"], line["score"]) for line in lines]

    assert asked("run")[:20] == asked("alone")[:20]
    result = json.loads(Path("alone/result.json").read_text())
    assert max(score for _, score in asked("alone")[:20]) == result["score"]
    first = read("searches.csv")[0]
    assert float(first["score"]) == result["score"]


@pytest.mark.soak
def test_stopped_and_continued_to_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Within the first search, within a later one, and between two."""
    assert compare(*TRUTH, "hydra.run.dir=whole") == 0
    passed, stops, safe_point = [], (3, 70, 101), Run.safe_point

    def stopping(self: Run) -> None:
        passed.append(1)
        if len(passed) in stops:
            os.kill(os.getpid(), signal.SIGTERM)
        safe_point(self)

    monkeypatch.setattr(Run, "safe_point", stopping)
    assert compare(*TRUTH) == 128 + signal.SIGTERM
    for _ in stops[1:]:
        assert main(["resume", "run"]) == 128 + signal.SIGTERM
    assert not Path("run/result.json").exists()
    assert main(["resume", "run"]) == 0
    for name in ("compare.json", "compare.csv", "searches.csv", "trials.jsonl", "metrics.jsonl"):
        assert Path("run", name).read_bytes() == Path("whole", name).read_bytes(), name


@pytest.mark.soak
def test_stand_alone_scores_need_no_table(capsys: pytest.CaptureFixture[str]) -> None:
    """Each network is trained once for all searches; the best that was found is the reference."""
    words = ["effort=smoke", "search_space.search.width=0.125", "evaluator=standalone"]
    words += ["~compare.algorithms.evolution", "compare.evaluations=10", "compare.seeds=2"]
    kept = [word for word in MACRO if not word.startswith("evaluator")]
    assert main(["compare", *kept, *words, "hydra.run.dir=run"]) == 0
    trials = [json.loads(line) for line in Path("run/trials.jsonl").read_text().splitlines()]
    choices = [tuple(trial["architecture"]["choices"]) for trial in trials]
    # Both begin with the same random architectures, see test_regularized_evolution.
    assert len(choices) == len(set(choices)) <= 2 * 10
    assert {trial["evaluation"]["evaluator"] for trial in trials} == {"standalone"}
    found = report()
    assert found["best"] == max(trial["score"] for trial in trials)
    assert found["best_of_all"] is False
    assert "the best that any search found" in capsys.readouterr().out


@pytest.mark.soak
def test_an_algorithm_that_ends_early_and_one_with_fewer_seeds(
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = [
        "+search_algo@compare.algorithms.short=random",
        "compare.algorithms.short.evaluations=5",
        "+compare.fewer_seeds.short=3",
    ]
    assert compare(*words) == 0
    shown = capsys.readouterr().out
    assert "short ended after 5 evaluations in at least one search" in shown
    assert "short, 3 seeds" in shown
    short = report()["algorithms"]["short"]
    assert (short["seeds"], short["fewest_evaluations"]) == (3, 5)
    points = [float(row["regret"]) for row in read("compare.csv") if row["algorithm"] == "short"]
    assert len(points) == 20
    assert len(set(points[4:])) == 1


@pytest.mark.soak
def test_a_budget_bounds_the_best_too() -> None:
    assert compare("budget.params.max=1e6") == 0
    found = report()["best"]
    assert compare("hydra.run.dir=free") == 0
    assert found < report("free")["best"]
    trials = [json.loads(line) for line in Path("run/trials.jsonl").read_text().splitlines()]
    assert max(trial["score"] for trial in trials) <= found


@pytest.mark.soak
def test_regret_by_tau(macro: SearchSpace, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["evaluator.score=dear", "compare.seeds=20", "compare.resamples=20"]
    alone = ["~compare.algorithms.evolution", "compare.taus=[0,0.5,1]"]
    kept = [word for word in SHORT if "evolution." not in word]
    assert main(["compare", *MACRO, *kept, *words, *alone, "hydra.run.dir=taus"]) == 0
    said = capsys.readouterr().out
    assert "τ of the scores" in said and "mean regret after 20 evaluations" in said
    found = {
        (float(row["tau"]), row["algorithm"]): row for row in read("regret_by_tau.csv", "taus")
    }
    assert list(found) == [
        (tau, name) for tau in (0.0, 0.5, 1.0) for name in ("random", "regularized_evolution")
    ]
    regret = {key: float(row["regret"]) for key, row in found.items()}
    for name in ("random", "regularized_evolution"):
        assert regret[0.0, name] > regret[0.5, name] > regret[1.0, name]
    # Scores that say nothing choose a network at random.
    truth = np.array([float(row["dear"]) for row in read("table.csv", ".")]) / 100
    blind = truth.max() - truth
    spread = 4 * blind.std() / np.sqrt(20)
    assert regret[0.0, "random"] == pytest.approx(blind.mean(), abs=spread)
    result = json.loads(Path("taus/result.json").read_text())
    assert result["regret_random_tau0.5"] == regret[0.5, "random"]
    assert result["best"] == truth.max()
    assert Path("taus/regret_by_tau.png").stat().st_size > 5000

    # No noise is what the comparison without the setting finds.
    alone[1:] = ["hydra.run.dir=plain"]
    assert main(["compare", *MACRO, *kept, *words, *alone]) == 0
    plain = report("plain")["algorithms"]
    for name in ("random", "regularized_evolution"):
        assert plain[name]["regret"]["value"] == regret[1.0, name]


@pytest.mark.soak
def test_noise_is_that_of_nasrun_search() -> None:
    tiny = ["search_space.final.width=0.25", "effort=smoke", "shortlist.count=0", "seed=1"]
    words = ["search_algo=random", "search_algo.evaluations=20", "evaluator.tau=0.4"]
    assert main(["search", *MACRO, *tiny, *words, "hydra.run.dir=alone"]) == 0
    searched = ["~compare.algorithms.evolution", "~compare.algorithms.regularized_evolution"]
    kept = [word for word in SHORT if "evolution." not in word]
    sweep = ["compare.taus=[0.4]", "compare.seeds=2", "seed=0"]
    records: list[SearchRecord] = []
    with pytest.MonkeyPatch.context() as patch:
        once = compare_module.search_once

        def kept_record(*given: Any) -> SearchRecord:
            records.append(once(*given))
            return records[-1]

        patch.setattr(compare_module, "search_once", kept_record)
        assert main(["compare", *MACRO, *kept, *searched, *sweep]) == 0
    lines = map(json.loads, Path("alone/trials.jsonl").read_text().splitlines())
    best = max(line["score"] for line in lines)
    assert [record.seed for record in records] == [0, 1]
    assert records[1].found[-1].score == best


# By hand.


def searched(*found: tuple[int, float, float], seed: int = 0, evaluations: int = 5) -> SearchRecord:
    steps = tuple(BestSoFar(at, Architecture("plain", (at,)), s, true) for at, s, true in found)
    return SearchRecord(seed, evaluations, steps)


def test_what_is_held_between_finds() -> None:
    one = searched((1, 0.2, 0.5), (3, 0.3, 0.4), (4, 0.6, 0.9))
    assert truths(one.found, 5).tolist() == [0.5, 0.5, 0.4, 0.9, 0.9]


def settings(**changes: Any) -> CompareTask:
    values: dict[str, Any] = {
        "algorithms": {
            "a": RandomSearch(evaluations=5, batch=5),
            "b": RegularizedEvolution(population=2, tournament=1, identity=0.0, evaluations=5),
        },
        "control": "a",
        "evaluations": 5,
        "seeds": 2,
        "fewer_seeds": {},
        "resamples": 100,
        "confidence": 0.95,
    }
    return CompareTask(**values | changes)


def test_fewer_seeds_are_at_most_so_many() -> None:
    assert settings(fewer_seeds={"b": 3}, seeds=5).seeds == {"a": 5, "b": 3}
    assert settings(fewer_seeds={"b": 3}, seeds=2).seeds == {"a": 2, "b": 2}


def compared(searches: dict[str, list[SearchRecord]], best: float | None) -> Comparison:
    return Comparison.between(
        searches,
        control="a",
        evaluations=5,
        best=best,
        resamples=100,
        confidence=0.95,
        streams=Streams(0),
    )


def test_a_comparison_by_hand() -> None:
    searches = {
        "a": [searched((1, 0.2, 0.5), (3, 0.3, 0.7)), searched((1, 0.1, 0.4), (5, 0.4, 0.5))],
        "b": [searched((1, 0.2, 0.5), (2, 0.5, 0.8)), searched((1, 0.3, 0.5))],
    }
    found = compared(searches, 1.0)
    a, b = found.standings["a"], found.standings["b"]
    assert [point.value for point in a.curve] == pytest.approx([0.55, 0.55, 0.45, 0.45, 0.4])
    assert [point.value for point in b.curve] == pytest.approx([0.5, 0.35, 0.35, 0.35, 0.35])
    assert (b.wins, b.p) == (0.75, 1.0)  # one better, one alike: no two pairs can prove more
    assert a.curve[-1].low >= 0.3 - 1e-9 and a.curve[-1].high <= 0.5 + 1e-9
    unknown = compared(searches, None)
    assert (unknown.best, unknown.of_all) == (0.8, False)
    assert unknown.standings["b"].final.tolist() == pytest.approx([0.0, 0.3])
    alone = compared({"a": searches["a"]}, 1.0)
    assert alone.standings["a"].p is None
    assert all(isinstance(point, Estimate) for point in alone.standings["a"].curve)


# Bad input.


@pytest.mark.few(4)
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["evaluator=supernet"], "compare trains no supernet"),
        (["evaluator@compare.truth=supernet"], "evaluator@compare.truth: compare trains no"),
        (["compare.control=nobody"], "compare.control: nobody is none of the algorithms"),
        (["+compare.fewer_seeds.nobody=2"], "compare.fewer_seeds: nobody is none of"),
        (["+compare.fewer_seeds.evolution=1"], "compare.fewer_seeds.evolution = 1"),
        (["+compare.fewer_seeds.random=3"], "it is the control, which needs all of the seeds"),
        (["compare.seeds=1"], "compare.seeds = 1"),
        (["compare.evaluations=0"], "compare.algorithms.random.evaluations = 0"),
        (["compare.evaluations=9"], "population=10 is more than search_algo.evaluations=9"),
        (["compare.algorithms.random.batch=0"], "compare.algorithms.random.batch = 0"),
        (["evaluator.path=absent.csv"], "there is no such file"),
        ([*TRUTH, "compare.truth.score=other"], "has no such column"),
        (["compare.taus=[0.5,0.2]"], "compare.taus=[0.5, 0.2]: must rise"),
        (["compare.taus=[1.5]"], "compare.taus"),
        (["compare.taus=[0.5]", "evaluator=size"], "must be known: evaluator=table"),
        (["evaluator.tau=0.5"], "compare.taus=[0.5]"),
        (["compare.truths=3"], "compare.truth"),
        (["+search_algo@compare.algorithms.dso=dso"], "leave it out: ~compare.algorithms.dso"),
    ],
)
def test_bad_input(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert said in error(capsys, *words)


def test_tables_that_lack_architectures_are_refused_before_the_run(
    capsys: pytest.CaptureFixture[str],
) -> None:
    header, *rows = Path("table.csv").read_text().splitlines()
    Path("short.csv").write_text("\n".join([header, *rows[1:], ""]))
    said = error(capsys, "evaluator.path=short.csv")
    assert "evaluator: the table has no score for 1 of the 6,561 architectures of" in said
    assert "e.g. 00000000" in said
    said = error(capsys, *TRUTH, "compare.truth.path=short.csv")
    assert "compare.truth: the table has no score for 1 of the 6,561" in said


def test_a_table_may_lack_what_is_outside_of_the_budget(macro: SearchSpace) -> None:
    small, *others = macro.every()
    scorer: Any = SimpleNamespace(published_scores={each: [0.5] for each in others[1:]})
    within: Any = SimpleNamespace(space=macro, bounds=(1,), allows=scorer.published_scores.get)
    check_complete("evaluator", scorer, within)
    within.allows = lambda each: each != small
    said = "for 1 of the 6,560 architectures of nas_bench_macro within the budget, e.g. 00000001"
    with pytest.raises(UserError, match=said):
        check_complete("evaluator", scorer, within)


def test_a_truth_that_is_not_given_is_none() -> None:
    node = compose(["task=compare"])["compare"]
    assert build(node, "compare").truth is None
    assert build(node | {"truth": None}, "compare").truth is None
    with pytest.raises(UserError, match=r"compare\.algorithms"):
        build(node | {"algorithms": None}, "compare")


def test_a_state_of_another_space_is_refused(macro: SearchSpace) -> None:
    searches = Searches(macro)
    with pytest.raises(UserError, match="has 8 decisions"):
        searches.load_state_dict({"a": [[0, 3, [[1, [0], 0.5, 0.5]]]]})
    for steps in ([], [[2, [0] * 8, 0.5, 0.5]]):
        with pytest.raises(ValueError, match="without its first architecture"):
            searches.load_state_dict({"a": [[0, 3, steps]]})


# The published table.


@pytest.mark.soak
def test_a_shoot_out_on_nas_bench_201(monkeypatch: pytest.MonkeyPatch) -> None:
    rows(NB201)
    monkeypatch.setenv("NASRUN_DATA", str(NB201.parents[1]))
    words = ["experiment=shootout_nas_bench_201", "threads=1", "compare.seeds=8"]
    assert main(["compare", *words, "compare.evaluations=100", "hydra.run.dir=run"]) == 0
    found = report()
    assert found["best"] == pytest.approx(0.943733)
    ends = {name: row["regret"]["value"] for name, row in found["algorithms"].items()}
    assert 0 <= ends["regularized_evolution"] < ends["random"] < 0.01
    assert found["algorithms"]["regularized_evolution"]["p"] < 0.05
