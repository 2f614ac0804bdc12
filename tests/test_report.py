"""Reports: their numbers, the text beside the page, damaged and hostile runs, the command."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from functools import cache
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from reports import HOSTILE, jsonl, make_run
from test_search_algo import Cell

from nasrun.budget.candidates import Candidates
from nasrun.cli import reporting
from nasrun.cli.main import main
from nasrun.errors import UserError
from nasrun.report import reports
from nasrun.report.document import Chart, Document, Grid, Points, Section
from nasrun.report.graph_svg import svg_of_panels
from nasrun.report.html.page import page
from nasrun.report.markdown import escaped, markdown
from nasrun.report.run_files import RunDirectory, job_files, read_jobs
from nasrun.report.run_lines import MAX_LOG_BYTES, TrialLine, read_curves, read_trials
from nasrun.report.sections.trials import MAX_POINTS, front_of, thin
from nasrun.report.words import NAMES, accuracy, duration, millions
from nasrun.run import layout
from nasrun.run.lock import Lock
from nasrun.run.monitor import NullMonitor
from nasrun.search_algo.evolution import Evolution
from nasrun.search_algo.regularized_evolution import RegularizedEvolution
from nasrun.search_space.graph import Graph
from nasrun.search_space.nas_bench_macro import NasBenchMacro
from nasrun.streams import Streams
from nasrun.values import Architecture, Cost, Trial
from tests.helpers import space_of


class Page(HTMLParser):
    """The tags of a page, the texts of its scripts, and its policy."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: set[str] = set()
        self.scripts: list[str] = []
        self.policy = ""
        self._within = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes |= {name for name, _ in attrs}
        self._within = tag
        if tag == "script":
            self.scripts.append("")
        if ("http-equiv", "Content-Security-Policy") in attrs:
            self.policy = str(dict(attrs)["content"])

    def handle_endtag(self, tag: str) -> None:
        self._within = ""

    def handle_data(self, data: str) -> None:
        if self._within == "script":
            self.scripts[-1] += data


def section(document: Document, key: str) -> Section:
    return next(each for each in document.shown if each.key == key)


def blocks(document: Document, kind: type) -> list[Any]:
    return [b for each in document.shown for b in each.blocks if isinstance(b, kind)]


@cache
def macro() -> NasBenchMacro:
    space = space_of("nas_bench_macro")
    assert isinstance(space, NasBenchMacro)
    return space


# Content.


def test_a_search_in_its_order_and_with_its_numbers(tmp_path: Path) -> None:
    trials = make_run(tmp_path / "run")
    document = reports.of_run(tmp_path / "run", macro())
    assert [each.key for each in document.shown] == [
        *("result", "winner", "trials", "curves", "lineage", "health", "caution", "repeat")
    ]
    assert document.asked == (
        "Find the best network of NAS-Bench-Macro, for images of digits, with at most 30 M "
        "multiply-adds, by evolution; candidates are scored by the shared weights of a supernet "
        "trained for 3 epochs with uniform sampling; seed 3."
    )
    text = markdown(document)
    assert "| test accuracy | 90.00 % (86.47 to 92.69) |" in text  # Wilson, 324 of 360
    assert "61.25 M" in text and "2.500 M" in text and "75 s" in text
    chart = next(block for block in section(document, "trials").blocks if isinstance(block, Chart))
    dots, line, won = chart.traces
    digests = {trial.architecture.digest for trial in trials}
    assert len(dots["x"]) + len(won["x"]) == len(digests)
    assert won["customdata"] == [f"trial={1 + max(range(30), key=lambda i: trials[i].score)}"]
    assert chart.command == f"nasrun retrain from={tmp_path / 'run'} "
    assert line["y"] == sorted(line["y"])
    assert "mbconv" in dots["text"][0] and "<br>" in dots["text"][0]
    *_, retraining = section(document, "curves").blocks
    assert isinstance(retraining, Chart)
    assert [trace["y"][-1] for trace in retraining.traces] == [95, 90, 0.1]
    assert "| epoch whose weights are used | 1 of 2 |" in text
    (points,) = section(document, "caution").blocks
    assert isinstance(points, Points)
    said = " ".join(points.items)
    for words in ("n = 1", "360 images", "search_algo=random", "no commit", "Sizes", "of 30"):
        assert words in said


def test_the_text_has_every_number_of_the_page(tmp_path: Path) -> None:
    make_run(tmp_path / "run")
    document = reports.of_run(tmp_path / "run", macro())
    text = markdown(document)
    for grid in blocks(document, Grid):
        for row in grid.rows:
            for cell in row:
                assert escaped(cell) in text
    assert text.count("\n## ") == len(document.shown)


def test_what_a_run_lacks_is_no_section(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / layout.RECORD).write_text(json.dumps({"task": "search", "overrides": [], "config": {}}))
    document = reports.of_run(run, None)
    assert [each.key for each in document.shown] == ["result", "caution", "repeat"]
    assert "has not ended" in page(document)


def test_a_task_without_sections_of_its_own_shows_its_small_files(tmp_path: Path) -> None:
    run = tmp_path / "run"
    spent = {"evaluations": 0, "training_steps": 0, "images": 0, "device_seconds": 3.0}
    numbers = {"speed": 1234.5, "calibration_error": 0.0825, "validation_accuracy": 0.5}
    result = {"task": "benchmark", "spent": spent, **numbers}
    make_run(run, record={"task": "benchmark"}, result=result)
    (run / "speed.csv").write_text("engine,ms\ntorch,1.23456789\n<b>onnx,2\n")
    (run / "large.csv").write_text("a\n" + "1\n" * 1000)
    (run / "speed.png").write_bytes(b"png")
    (run / "away.png").symlink_to("/etc/passwd")
    document = reports.of_run(run, None)
    grid, shown = section(document, "files").blocks
    assert grid.rows == [["torch", "1.23457"], ["<b>onnx", "2"]] and grid.words == [0]
    assert shown.source == "data:image/png;base64,cG5n"
    text = markdown(document)
    assert "| speed | 1,234.5 |" in text and "| calibration error | 8.25 % |" in text
    assert text.count("50.00 %") == 1 and "| seconds on the device | 3 |" in text
    assert not any(words in text for words in ("architectures scored", "training steps", "seen"))


def test_long_words_of_a_table_have_room_and_short_ones_stay_whole(tmp_path: Path) -> None:
    rows = [["(defaults)", "1"], ["sampler=uniform search_algo=random", "2"]]
    grid = Grid(["settings", "n"], rows, "", words=[0])
    text = page(Document("t", "a", [Section("k", "T", [grid])]))
    assert '<td class="words">(defaults)<' in text
    assert '<td class="words long">sampler=uniform' in text


def test_a_run_that_is_going_and_one_that_has_failed(tmp_path: Path) -> None:
    make_run(tmp_path / "run", result={})
    assert "still going" in page(reports.of_run(tmp_path / "run", None, going=True))
    make_run(tmp_path / "bad", result={"status": "failed", "error": "no [luck] <b>"})
    document = reports.of_run(tmp_path / "bad", None)
    assert "The run has failed: no [luck] &lt;b&gt;" in page(document)
    assert "The run has failed: no \\[luck\\] \\<b\\>" in markdown(document)


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.5, "0.5 s"), (75, "75 s"), (600, "10 min"), (7200, "2.0 h")]
)
def test_durations(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_all_names_are_those_of_classes_of_the_configuration() -> None:
    conf = Path(__file__).parent.parent / "conf"
    found = [
        re.findall(r"_target_: [\w.]+\.(\w+)", path.read_text()) for path in conf.rglob("*.yaml")
    ]
    assert set(NAMES) <= {name for names in found for name in names}


def test_numbers_in_words() -> None:
    assert millions(61_250_000) == "61.25 M"
    assert accuracy(0.5, None) == "50.00 %"
    assert accuracy(1.0, 10) == "100.00 % (72.25 to 100.00)"


def estimate(value: float, low: float, high: float) -> dict[str, float]:
    return {"value": value, "low": low, "high": high}


def test_a_ranking_is_set_beside_size_alone(tmp_path: Path) -> None:
    for low in (-0.02, 0.02):
        run = tmp_path / str(low)
        make_run(run, record={"task": "rank"}, result={"task": "rank", "architectures": 20})
        rows = [f"a{n},{1000 * n},{n},{n / 40},{n / 30}\n" for n in range(20)]
        table = "architecture,params,macs,truth,score_3\n" + "".join(rows)
        (run / layout.RANKING_TABLE).write_text(table)
        report = {
            "confidence": 0.95,
            "agreement": {"kendall": estimate(0.6, 0.4, 0.8)},
            "size alone": {
                "macs_alone": estimate(0.55, 0.3, 0.7),
                "above_macs": estimate(0.05, low, 0.1),
            },
        }
        bias = {"kendall": estimate(-0.4, -0.5, -0.3), "unbiased": -0.1, "thirds": [9, None, -8]}
        bias |= {"steps": [0.2, 0.3, 0.5]} if low < 0 else {"steps": None, "losses": None}
        content = {"epochs": {"3": report}, "noise_ceiling": {}, "size_bias": {"macs": bias}}
        (run / layout.RANKING).write_text(json.dumps(content))
        metrics = [
            {"stage": layout.RANK_PROGRESS, "step": step, "kendall": 0.1 * step} for step in (1, 2)
        ]
        jsonl(run / layout.METRICS, metrics)
        document = reports.of_run(run, None)
        (chart, *_, bias_table, progress) = section(document, "ranking").blocks
        assert progress.traces[0]["x"] == [1, 2]
        steps = "20.0% / 30.0% / 50.0%" if low < 0 else "–"
        row = ["multiply-adds", "-0.400", "-0.500 to -0.300", "-0.100", "+9.0 / – / -8.0"]
        assert bias_table.rows == [[*row, steps, "–"]]
        assert len(chart.traces[0]["x"]) == 20 and "0.600 (0.400 to 0.800)" in chart.caption
        text = markdown(document)
        assert ("rank better than multiply-adds alone is not shown" in text) == (low < 0)
        assert "rank better than chance is not shown" not in text
        assert "20 architectures are too few" in text.replace("\\", "")


def test_a_comparison_says_what_is_not_told_apart(tmp_path: Path) -> None:
    run = tmp_path / "run"
    make_run(run, record={"task": "compare"}, result={"task": "compare"})
    regrets = {"random": (0.2, None), "nao": (0.1, 0.2), "evolution": (0.05, 0.01)}
    content = {
        "control": "random",
        "best": 0.9,
        "best_of_all": True,
        "algorithms": {
            name: {"seeds": 5, "regret": estimate(value, 0, 1), "wins": None, "p": p}
            for name, (value, p) in regrets.items()
        },
    }
    (run / layout.COMPARISON).write_text(json.dumps(content))
    rows = [f"{n},{k},{1 / k},0,1\n" for n in regrets for k in range(1, 500)]
    columns = "algorithm,evaluations,regret,low,high\n"
    (run / layout.COMPARISON_CURVES).write_text(columns + "".join(rows))
    document = reports.of_run(run, None)
    chart, grid = section(document, "comparison").blocks
    lines = [trace for trace in chart.traces if trace.get("name")]
    assert [line["name"] for line in lines] == list(regrets)
    assert lines[0]["x"][0] == 1 and lines[0]["x"][-1] == 499 and len(lines[0]["x"]) <= 60
    assert grid.rows[0][0] == "random (control)"
    text = markdown(document)
    assert "Not shown to differ from random (p ≥ 0.05): nao." in text
    assert "least mean regret: evolution" in text


# Fronts, thinning, lineage.


def line(number: int, score: float, macs: int) -> TrialLine:
    architecture = Architecture("x", (number,))
    return TrialLine(number, architecture, score, Cost(macs, macs), "round 0", "supernet")


def test_a_front_is_what_no_other_beats() -> None:
    rng = np.random.default_rng(0)
    trials = [
        line(n, float(rng.integers(12)), int(rng.integers(12))) for n in range(120)
    ]  # many ties

    def beaten(one: TrialLine) -> bool:
        return any(
            (other.score >= one.score and other.cost.macs <= one.cost.macs)
            and (other.score > one.score or other.cost.macs < one.cost.macs)
            for other in trials
        )

    expected = {(t.score, t.cost.macs) for t in trials if not beaten(t)}
    found = front_of(trials, lambda trial: trial.cost.macs)
    assert {(t.score, t.cost.macs) for t in found} == expected and len(found) == len(expected)


def test_of_many_points_the_best_and_those_that_must_stay_are_kept() -> None:
    trials = [line(n, (n * 7919) % 10007, n) for n in range(10_000)]
    kept = {17, 4711}
    shown = thin(trials, kept)
    assert len(shown) <= MAX_POINTS + 1 and [t.number for t in shown] == sorted(
        t.number for t in shown
    )
    best = sorted(trials, key=lambda t: -t.score)[: MAX_POINTS // 2]
    assert kept | {t.number for t in best} <= {t.number for t in shown}
    others = sorted({t.number for t in shown} - {t.number for t in best})
    assert max(np.diff(others)) < 30  # an even sample of the rest
    assert thin(trials[:5], set()) == trials[:5]


ALGORITHMS = {
    "evolution": Evolution(
        population=8, generations=5, mutations=4, crossovers=3, probability=0.2, tries=10, batch=3,
        top=4,
    ),
    "regularised": RegularizedEvolution(
        population=6, tournament=3, identity=0.1, evaluations=30
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ALGORITHMS)
def test_parents_are_told_and_survive_a_stop(name: str) -> None:
    space = Cell()

    def bound() -> Any:
        return ALGORITHMS[name].bind(Candidates(space), Streams(0), torch.device("cpu"))

    def told(search: Any, stop_at: int | None) -> list[tuple[str, dict[str, Any]]]:
        found = []
        search.next_round(NullMonitor())
        while asked := search.ask():
            for architecture in asked:
                if len(found) == stop_at:
                    state = json.loads(json.dumps(search.state_dict()))
                    search = bound()
                    search.load_state_dict(state)
                    search.next_round(NullMonitor())
                found.append((architecture.digest, search.origin(architecture)))
                score = sum(architecture.choices) / 100
                search.tell([Trial(architecture, score, Cost(1, 1), 0)])
        return found

    found = told(bound(), None)
    for place, (_, origin) in enumerate(found):
        earlier = {digest for digest, _ in found[:place]}
        assert set(origin.get("parents", [])) <= earlier
    made = [origin["by"] for _, origin in found if origin]
    assert len(made) > 10 and set(made) <= {"mutation", "crossover"}
    for stop_at in range(8, 20, 3):
        assert told(bound(), stop_at) == found


def test_the_lineage_goes_back_to_a_sampled_ancestor(tmp_path: Path) -> None:
    make_run(tmp_path / "run")
    (grid,) = section(reports.of_run(tmp_path / "run", macro()), "lineage").blocks
    assert isinstance(grid, Grid)
    numbers = [int(row[0]) for row in grid.rows]
    assert all(child - parent == 5 for child, parent in pairwise(numbers))
    assert numbers[-1] <= 5 and grid.rows[-1][1] == "–"
    assert re.search(r"layer\d/op: \w+ → \w+", grid.rows[0][3])


# Damaged and hostile runs.


def test_damaged_lines_are_left_out_and_counted(tmp_path: Path) -> None:
    make_run(tmp_path / "run")
    path = tmp_path / "run" / layout.TRIALS
    good = path.read_text().splitlines()
    huge = json.loads(good[0])
    huge["score"] = 1e400
    lines = ["{}", "[1]", "null", "nonsense", "[" * 100_000, '{"round": 1, "score": "x"}']
    lines += [json.dumps(huge).replace("Infinity", "1" * 5000), json.dumps({**huge, "cost": []})]
    path.write_bytes("\n".join([good[0], *lines, *good[1:]]).encode() + b"\n\xff\xfe\n" + b'{"ha')
    trials, damage = read_trials(path)
    assert [t.number for t in trials] == [1, *range(2 + len(lines), 1 + len(lines) + len(good))]
    assert damage.lines == len(lines) + 1 and not damage.cut
    metrics = tmp_path / "run" / layout.METRICS
    jsonl(metrics, [{"stage": "a", "step": 1, "loss": 2.0, "x": "y", "b": True}, {"stage": 1}, 7])
    with metrics.open("a") as file:
        file.write('{"stage": "a", "step": 2, "loss": NaN}\n')
    curves, damage = read_curves(metrics)
    assert curves["a"]["loss"].values == [2.0] and set(curves["a"]) == {"loss"}
    assert damage.lines == 2
    text = markdown(reports.of_run(tmp_path / "run", macro()))
    assert f"{layout.TRIALS}: {len(lines) + 1} damaged lines left out." in text


def test_a_log_without_end_is_read_as_far_as_is_sensible(tmp_path: Path) -> None:
    path = tmp_path / layout.METRICS
    with path.open("wb") as file:
        file.write(b'{"stage": "a", "step": 1, "loss": 2.0}\n')
        file.truncate(2 * MAX_LOG_BYTES)
    curves, damage = read_curves(path)
    assert curves["a"]["loss"].values == [2.0] and damage.cut
    assert "MiB" in damage.words("x")


def test_links_are_not_followed(tmp_path: Path) -> None:
    make_run(tmp_path / "run")
    for name in (layout.TRIALS, layout.METRICS, layout.FRONT):
        (tmp_path / "run" / name).unlink(missing_ok=True)
        (tmp_path / "run" / name).symlink_to("/dev/zero")
    run = job_files(tmp_path / "run")
    assert run.trials[0] == [] and run.curves[0] == {} and run.front == {}


def hostile_run(directory: Path) -> None:
    make_run(
        directory,
        record={
            "device": HOSTILE,
            "task": "search",
            "versions": {HOSTILE: HOSTILE},
            "git": {"commit": HOSTILE, "clean": False},
            "overrides": [f"name={HOSTILE}"],
            "data": {
                "root": HOSTILE,
                "classes": [HOSTILE, "</script><script>window.owned=1</script>"],
                "splits": {HOSTILE: HOSTILE},
                "images": {HOSTILE: [1, 2], "test": [3, 4]},
                "left_out": {"suffixes": {HOSTILE: 3}},
                "notes": [HOSTILE],
            },
        },
        config={"name": HOSTILE, "dataset": {"_target_": f"a.{HOSTILE}"}},
        result={"status": "failed", "error": HOSTILE},
    )
    trials = [json.loads(each) for each in (directory / layout.TRIALS).read_text().splitlines()]
    for trial in trials[:9]:
        trial["round"] = trial["evaluation"]["evaluator"] = HOSTILE
    jsonl(directory / layout.TRIALS, trials)
    jsonl(
        directory / layout.METRICS,
        [{"stage": HOSTILE, "step": s, "loss": 1.0, HOSTILE: 2.0} for s in (1, 2)],
    )
    health = {"passes": 5, "decisions": {HOSTILE: {HOSTILE: {"trained": 3, "gradient": 0.5}}}}
    scores = {HOSTILE: {"inherited": [0.1], "batch": HOSTILE}}
    (directory / layout.HEALTH).write_text(json.dumps({**health, "scores": scores}))
    (directory / "architecture.svg").write_text(f"<svg><script>{HOSTILE}</script></svg>")


def test_the_picture_of_the_winner_stands_in_the_page(tmp_path: Path) -> None:
    make_run(tmp_path / "run")
    text = svg_of_panels({"cell": Graph(["a", "b"], [(0, 1, "skip")])}, paper=True)
    (tmp_path / "run/architecture.svg").write_text(text)
    found = Page(page(reports.of_run(tmp_path / "run", None)))
    assert found.tags.count("svg") == 1 and "img" not in found.tags


def test_names_of_a_stranger_are_no_markup(tmp_path: Path) -> None:
    hostile_run(tmp_path / "run")
    document = reports.of_run(tmp_path / "run", None)
    text = page(document)
    found = Page(text)
    data, *scripts = found.scripts
    assert found.tags.count("script") == 3 and found.tags.count("img") == 1
    assert not any(name.startswith("on") for name in found.attributes)
    assert "window.owned" in text and "onerror" not in "".join(scripts[1:])
    digests = [base64.b64encode(hashlib.sha256(s.encode()).digest()).decode() for s in scripts]
    assert all(f"'sha256-{digest}'" in found.policy for digest in digests)
    assert found.policy.count("sha256-") == 2 and "unsafe-inline'; img" in found.policy
    for chart in json.loads(data):
        text = json.dumps(chart).replace("<extra></extra>", "")
        assert not re.search("<(?!br>)", text)  # plotly reads tags
    outside_of_fences = re.sub(r"(?ms)^(`{3,})$.*?^\1$", "", markdown(document))
    assert "<script" not in outside_of_fences.replace("\\<", "")


def test_a_run_of_nonsense_has_a_report(tmp_path: Path) -> None:
    """Every file holds values of wrong types, and some are no text at all."""
    run = tmp_path / "run"
    for wrong in ({"a": 1}, [1], "x", 7, None, {"status": 3, "architecture": [], "spent": [1]}):
        if run.exists():
            for path in run.iterdir():
                path.unlink()
        else:
            run.mkdir()
        for name in (layout.RECORD, layout.RESULT, layout.HEALTH, layout.FRONT, layout.RANKING):
            (run / name).write_text(json.dumps(wrong))
        (run / layout.COMPARISON).write_text(json.dumps({"algorithms": wrong, "best": wrong}))
        (run / layout.COMPARISON_CURVES).write_bytes(b"algorithm,regret\n\xff,\x00\n")
        (run / layout.RANKING_TABLE).write_bytes(b"\xff\xfe\x00")
        document = reports.of_run(run, None)
        assert page(document) and markdown(document)


# Sweeps.


def make_sweep(place: Path, jobs: list[tuple[list[str], dict[str, Any]]]) -> None:
    for number, (overrides, result) in enumerate(jobs):
        folder = place / str(number)
        folder.mkdir(parents=True)
        seed = next((int(w[5:]) for w in overrides if w.startswith("seed=")), 0)
        record = {"task": "search", "overrides": overrides, "seed": seed, "config": {}}
        (folder / layout.RECORD).write_text(json.dumps(record))
        (folder / layout.RESULT).write_text(json.dumps(result))
    (place / layout.SWEEP_RECORD).write_text("")


def methods(steps: int) -> list[tuple[list[str], dict[str, Any]]]:
    """Two methods over four seeds; the second is better, and trains for ``steps`` steps."""
    return [
        (
            [f"search_algo={name}", f"seed={seed}"],
            {
                "status": "done",
                "test_accuracy": level + 0.01 * seed,
                "macs": 1e6,
                "spent": {"images": count + 500, "retraining_images": 500, "evaluations": 100},
            },
        )
        for name, level, count in (("random", 0.8, 1000), ("nao", 0.85, steps))
        for seed in range(4)
    ]


def test_a_sweep_is_tested_and_its_costs_compared(tmp_path: Path) -> None:
    for steps, told in ((1040, False), (1060, True)):
        place = tmp_path / str(steps)
        make_sweep(place, methods(steps))
        document = reports.of_jobs(read_jobs(place), place)
        (grid,) = section(document, "tests").blocks
        assert isinstance(grid, Grid)
        assert grid.columns[0] == "against search_algo=random"
        assert grid.rows == [["search_algo=nao", "4", "+5.00", "+5.00 to +5.00", "0.12", "2"]]
        warned = "1,000 (search_algo=random) to 1,060 (search_algo=nao)" in markdown(
            document
        ).replace("\\", "")
        assert warned == told
        assert "nasrun search -m search\\_algo" not in markdown(document)
        assert "nasrun search -m search_algo=random,nao seed=0,1,2,3" in markdown(document)


def test_equal_errors_are_one_row(tmp_path: Path) -> None:
    jobs = [([f"seed={n}"], {"status": "failed", "error": f"x {n % 2}"}) for n in range(5)]
    make_sweep(tmp_path / "sweep", [*jobs, (["seed=9"], {"status": "done", "score": 0.5})])
    document = reports.of_jobs(read_jobs(tmp_path / "sweep"), tmp_path / "sweep")
    (grid,) = section(document, "failures").blocks
    assert isinstance(grid, Grid)
    assert grid.rows == [["3", "0, 2, 4", "x 0"], ["2", "1, 3", "x 1"]]
    assert "5 jobs failed" in markdown(document)


@pytest.mark.soak
def test_a_sweep_of_a_thousand_jobs(tmp_path: Path) -> None:
    jobs = [
        ([f"search_algo={n % 25}", f"seed={n // 25}"], {"status": "done", "test_accuracy": n / 1e3})
        for n in range(1000)
    ]
    make_sweep(tmp_path / "sweep", jobs)
    assert main(["report", str(tmp_path / "sweep")]) == 0
    assert (tmp_path / "sweep" / layout.REPORT_PAGE).stat().st_size < 10e6


# The command, and the end of a run.


def test_the_command_on_one_run_and_on_several(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    make_run(tmp_path / "one")
    make_run(tmp_path / "two", result={"test_accuracy": 0.95}, config={"trainer": {"epochs": 9}})
    make_sweep(tmp_path / "sweep", methods(1000))
    with Lock(tmp_path / "one"):
        assert main(["report", "one"]) == 0
    text = (tmp_path / "one" / layout.REPORT_TEXT).read_text()
    assert "still going" in text and "mbconv" in text
    assert main(["report", "one"]) == 0  # its own report is replaced
    assert "still going" not in (tmp_path / "one" / layout.REPORT_TEXT).read_text()
    assert main(["report", "one", "two", "out=both.html"]) == 0
    both = (tmp_path / "both.md").read_text()
    assert "| trainer.epochs | 3 | 9 |" in both and "95.00 % (92.24 to 96.81)" in both
    assert main(["report", "one", "sweep"]) == 0
    assert "9 runs" in (tmp_path / layout.REPORT_TEXT).read_text()
    assert main(["report", "sweep"]) == 0
    assert (tmp_path / "sweep" / layout.REPORT_PAGE).stat().st_size < 3e6
    capsys.readouterr()
    (tmp_path / "mine.html").write_text("precious")
    (tmp_path / "empty").mkdir()
    for words, said in (
        ([], "takes directories of runs"),
        (["nowhere"], "no such"),
        (["empty"], "no run has begun in it"),
        (["one", "out=mine.html"], "is no report that nasrun has written"),
        (["one", "out=mine.txt"], "ends with .html"),
        (["one", "out=away/x.html"], "there is no folder"),
    ):
        assert main(["report", *words]) == 2
        err = capsys.readouterr().err
        assert said in err and err.count("\n") == 1, err
    assert (tmp_path / "mine.html").read_text() == "precious"


def test_a_failing_report_fails_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_run(tmp_path / "run")
    said: list[str] = []
    monkeypatch.undo()  # of the suite's: reports are wanted here
    with pytest.MonkeyPatch.context() as patch:
        reporting.after_run({}, tmp_path / "run", macro(), said.append)
        assert (tmp_path / "run" / layout.REPORT_PAGE).exists() and not said

        def fails(*arguments: object) -> None:
            raise RuntimeError("no \x1b[31mink")

        patch.setattr(reports, "write", fails)
        reporting.after_run({"report": True}, tmp_path / "run", macro(), said.append)
        reporting.after_run({"report": False}, tmp_path / "run", macro(), said.append)
    assert said == ["no report was written: no \\x1b[31mink"]
    with pytest.raises(UserError, match="report=yes"):
        reporting.check({"report": "yes"})


def test_any_trial_can_be_trained(tmp_path: Path) -> None:
    trials = make_run(tmp_path / "run")
    run = RunDirectory(tmp_path / "run")
    assert run.architecture_of(7) == trials[6].architecture.to_json()
    for wrong, said in ((0, "lines 1 to 30"), (31, "lines 1 to 30"), ("7", "number of a line")):
        with pytest.raises(UserError, match=said):
            run.architecture_of(wrong)


@pytest.mark.soak
@pytest.mark.reports
def test_a_run_ends_with_its_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    line = ["search", "effort=smoke", "search_algo=evolution", "search_space=spos_blocks"]
    assert main([*line, "sampler=uniform", "hydra.run.dir=run"]) == 0
    text = (tmp_path / "run" / layout.REPORT_TEXT).read_text()
    assert "Lineage of the winner" in text or "mutation" not in text
    trials = [json.loads(x) for x in (tmp_path / "run" / layout.TRIALS).read_text().splitlines()]
    assert any(trial.get("by") == "mutation" for trial in trials)
    assert main(["retrain", "from=run", "trial=3", "hydra.run.dir=again"]) == 0
    found = json.loads((tmp_path / "again" / layout.ARCHITECTURE).read_text())
    assert found == trials[2]["architecture"]
    assert main([*line, "sampler=uniform", "-m", "seed=0,1", "hydra.sweep.dir=sweep"]) == 0
    assert (tmp_path / "sweep" / layout.REPORT_PAGE).exists()
    assert not (tmp_path / "sweep" / "0" / layout.REPORT_PAGE).exists()
