"""The list of runs: every status, damage, filters, and the table at 80 columns."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from runs import make_run, make_sweep

from nasrun.cli.main import main
from nasrun.report import run_files
from nasrun.report.run_list import entries, is_sweep, short_name, together
from nasrun.report.run_table import Filter, amount, duration, result_words, show
from nasrun.run.lock import Lock, is_held

MACRO = {"_target_": "nasrun.search_space.nas_bench_macro.NasBenchMacro", "channels": 8}


@pytest.fixture
def outputs(tmp_path: Path) -> Path:
    folder = tmp_path / "outputs"
    make_run(folder / "search/2026-11-26_04-01-00-000111", "seed=1", "name=a", name="a", minute=1)
    done = {"test_accuracy": 0.875, "score": 0.5, "spent": {"evaluations": 1234}, "seconds": 90.0}
    make_run(folder / "search/x", "seed=2", minute=2, result=done, seed=2, search_space=MACRO)
    ranked = {"kendall": 0.5412, "ranking_seconds": 3.0}
    make_run(folder / "rank/auto_0123456789", minute=3, task="rank", result=ranked)
    make_sweep(folder / "search/multirun_2026-11-26_04-04-00-000444", 0.5, None, 0.5, minute=4)
    return folder


def statuses(folder: Path) -> dict[str, str]:
    return {entry.word: entry.status for entry in entries(folder)}


def test_every_run_is_listed_the_newest_last(outputs: Path) -> None:
    found = {"a": "stopped", "x": "done", "0123456789": "done", "000444": "stopped"}
    assert statuses(outputs) == found and list(statuses(outputs)) == list(found)
    with Lock(outputs / "search/2026-11-26_04-01-00-000111"):
        assert statuses(outputs)["a"] == "running"
    sweep = outputs / "search/multirun_2026-11-26_04-04-00-000444"
    (sweep / "1" / "result.json").write_text('{"status": "failed", "error": "no"}')
    assert statuses(outputs)["000444"] == "failed"
    (sweep / "1" / "result.json").write_text('{"status": "done"}')
    assert statuses(outputs)["000444"] == "stopped"  # it has no summary
    (sweep / "jobs.csv").write_text("")
    assert statuses(outputs)["000444"] == "done"
    os.utime(sweep / "jobs.csv", (1, 1))  # of an earlier line
    assert statuses(outputs)["000444"] == "stopped"
    jobs = entries(sweep, jobs=True)
    assert [(entry.word, entry.status) for entry in jobs] == [(n, "done") for n in "012"]


def test_each_record_is_read_once(outputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A filter asks for overrides and settings of thousands of runs."""
    read: list[str] = []
    whole = run_files.read_bytes
    monkeypatch.setattr(
        run_files, "read_bytes", lambda path, limit: read.append(str(path)) or whole(path, limit)
    )
    assert [entry.word for entry in entries(outputs, Filter(["seed=2"], {}))] == ["x", "000444"]
    assert len([path for path in read if path.endswith("run.json")]) == 6
    assert len(read) == len(set(read))


def test_a_look_at_a_lock_changes_nothing(tmp_path: Path) -> None:
    assert not is_held(tmp_path) and not list(tmp_path.iterdir())
    (tmp_path / "lock").write_text("left behind")
    assert not is_held(tmp_path) and (tmp_path / "lock").read_text() == "left behind"
    with Lock(tmp_path):
        assert is_held(tmp_path)
    (tmp_path / "lock").symlink_to("/dev/zero")
    assert not is_held(tmp_path)


@pytest.mark.parametrize(
    "record",
    [
        *("", "{", "[1]", "[" * 9999, '{"overrides": 3, "config": 1, "started": "soon"}'),
        '{"task": "x\\u001b[2J", "overrides": ["a=\\u001b[2J", 7], "started": "9999-99"}',
        json.dumps({"task": "huge", "pad": "x" * 2**20}),
        '{"task": {"a": 1}, "config": {"name": ["b"], "notes": {}}, "started": 1e999}',
    ],
)
def test_damage_hides_no_other_run(outputs: Path, record: str) -> None:
    before = list(statuses(outputs))
    (outputs / "odd").mkdir()
    (outputs / "odd" / "run.json").write_text(record)
    (outputs / "odd" / "result.json").write_text(record)
    assert set(statuses(outputs)) == {*before, "odd"}
    console = Console(width=80, file=io.StringIO(), force_terminal=False)
    show(entries(outputs), console)
    assert "huge" not in console.file.getvalue()  # type: ignore[attr-defined]
    assert "\x1b" not in console.file.getvalue()  # type: ignore[attr-defined]


def test_neither_links_nor_deep_folders_are_followed(outputs: Path, tmp_path: Path) -> None:
    make_run(tmp_path / "elsewhere")
    before = statuses(outputs)
    (outputs / "link").symlink_to(tmp_path / "elsewhere")
    (outputs / "circle").symlink_to(outputs)
    make_run(outputs / "search/x/inside/a-run")
    make_run(outputs.joinpath(*"abcdefg") / "run")
    assert statuses(outputs) == before


def test_filters(outputs: Path) -> None:
    def words(*filters: str, **targets: str) -> list[str]:
        known = {f"search_space={name}": target for name, target in targets.items()}
        return [entry.word for entry in entries(outputs, Filter(filters, known))]

    assert words("rank") == ["0123456789"]
    assert words("search", "seed=2") == ["x", "000444"]  # one job of the sweep has that seed
    assert words("SEED=1") == []
    assert words("seed=1", "name=a") == ["a"]
    assert words("sampler=unif") == []
    assert words("uniform") == words("sampler=uniform") == ["000444"]
    assert words("shortlist.count=1.0", "seed=2e0", "status=done") == ["x", "000444"]
    assert words("retrain.truth=null", "a") == ["a", "x", "0123456789", "000444"]
    target = MACRO["_target_"]
    assert words("search_space=nas_bench_macro", nas_bench_macro=str(target)) == ["x"]
    assert words("search_space=nao_cell", nao_cell="y") == []
    assert words("nothing.like=this") == words("nothing") == []


def test_the_table_fits_80_columns(outputs: Path) -> None:
    words = ["search_algo.predictor.hidden=8", "seed=3", "from='/a/2026-11-26_04-01-00-000111'"]
    make_run(outputs / "search/long", *words, minute=5, name="x" * 60)
    console = Console(width=80, file=io.StringIO())
    show(entries(outputs), console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert max(map(len, text.splitlines())) <= 80
    assert "test 87.50 %  1.2k" in text and "90 s" in text and "τ-b 0.541" in text
    assert "2 of 3 jobs" in text and "seed=0,1,2" in text
    wide = Console(width=200, file=io.StringIO())
    show(entries(outputs), wide)
    assert f"from=000111 {' '.join(words[:2])}" in wide.file.getvalue()  # type: ignore[attr-defined]


def test_the_command(
    outputs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(outputs.parent)

    def out(*words: str) -> str:
        assert main(["runs", *words]) == 0
        return capsys.readouterr().out

    found = json.loads(out("--json"))
    assert [each["run"] for each in found] == ["a", "x", "0123456789", "000444"]
    assert found[1]["result"]["test_accuracy"] == 0.875
    assert found[3]["jobs"] == {"done": 2, "stopped": 1}
    assert found[3]["spent"] == {"images": 60} and found[3]["result"] == {"seconds": 3.0}
    rows = list(csv.DictReader(io.StringIO(out("--csv"))))
    assert [row["spent_evaluations"] for row in rows] == ["", "1234", "", ""]
    assert [row["spent_images"] for row in rows] == ["", "", "", "60"]
    assert "3 runs and 1 sweep in" in out() and "nasrun resume 000444" in out()
    sweep = "outputs/search/multirun_2026-11-26_04-04-00-000444"
    assert [each["run"] for each in json.loads(out(sweep, "--json", "seed=1"))] == ["1"]
    lines = [" ".join(line.split()) for line in out(sweep).splitlines()]
    assert lines[2].startswith("0 ") and lines[2].endswith(" seed=0")  # they share the sampler
    assert lines[5].startswith("3 jobs in")
    assert "no run below" in out("seed=7")
    assert out("nothing", "--json") == "[]\n"
    for name in "abcde":
        (outputs / "empty/full" / name).mkdir(parents=True)
    for words, said in (
        (["nothing"], "there is no folder nothing, and no run below"),
        (["nothing", "seed=1"], "fits nothing seed=1"),
        (["outputs/empty/full"], "full: it holds a, b, c and 2 more"),
        (["outputs/empty/full/a"], "a: it is empty"),
        (["\0"], "there is no folder"),
        (["outputs=nowhere"], "there is no folder"),
        (["a/b"], "no such directory"),
        (["--jsn"], "did you mean '--json'"),
        (["-m"], "runs takes no -m"),
    ):
        assert main(["runs", *words]) == 2
        assert said in capsys.readouterr().err


def test_it_needs_no_torch(outputs: Path) -> None:
    code = (
        "import sys; from nasrun.cli.main import main; main(['runs', 'outputs=outputs']); "
        "sys.exit(any(name in sys.modules for name in ('torch', 'hydra', 'matplotlib')))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=outputs.parent, check=False)
    assert done.returncode == 0


def test_words_and_numbers_of_the_table(outputs: Path) -> None:
    assert short_name(Path("2026-11-26_04-28-28-123456")) == "123456"
    assert short_name(Path("multirun_auto_01234abcde")) == "01234abcde"
    assert short_name(Path("mine")) == "mine"
    overrides = [("seed=0", "a=b"), ("seed=1", "a=b"), ("seed=0", "c=x=y")]
    assert together(overrides) == ("seed=0,1", "a=b", "c=x=y")
    assert [amount(n) for n in (7, 999, 1000, 123_456, 1.25e6, None, True)] == [
        *("7", "999", "1.0k", "123k", "1.2M", "-", "-"),
    ]
    told = [duration(s) for s in (None, 0.4, 99, 100, 7200, 1e6)]
    assert told == ["-", "0 s", "99 s", "2 min", "2.0 h", "11.6 d"]
    assert is_sweep(outputs / "search/multirun_2026-11-26_04-04-00-000444")
    assert not is_sweep(outputs) and not is_sweep(outputs / "search/x")
    assert result_words(entries(outputs)[0]) == "-"


def test_runs_that_vanish_meanwhile(outputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real: Any = os.scandir

    def scandir(path: Any) -> Any:
        if str(path).endswith("x"):
            raise FileNotFoundError(path)
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    assert list(statuses(outputs)) == ["a", "0123456789", "000444"]
