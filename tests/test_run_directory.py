"""The reader of run directories, strict and tolerant, and the one table of file names."""

from __future__ import annotations

import ast
import json
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from nasrun.errors import UserError
from nasrun.report.run_files import RunDirectory
from nasrun.run import layout

PACKAGE = Path(layout.__file__).parent.parent
LAYOUT = Path(layout.__file__)
FILE_NAME = re.compile(r"\w\.(jsonl?|csv|safetensors|png|svg)\b|tfevents|multirun\.yaml")
FOLDERS = {layout.CHECKPOINTS, layout.LOCK}


def constants(path: Path) -> dict[str, ast.Constant]:
    """String constants of a layout module by their names."""
    body = ast.parse(path.read_text(encoding="utf-8")).body
    return {
        target.id: node.value
        for node in body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
        for target in node.targets
        if isinstance(target, ast.Name)
    }


def literals(path: Path) -> list[str]:
    """The strings of a module, also within f-strings; docstrings are left out."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    prose = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    return [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in prose
    ]


def test_file_names_stand_in_one_table() -> None:
    for path in sorted(PACKAGE.rglob("*.py")):
        if path != LAYOUT:
            found = [text for text in literals(path) if FILE_NAME.search(text) or text in FOLDERS]
            assert not found, f"{path.relative_to(PACKAGE.parent)}: {found}: see run/layout.py"


def test_every_name_says_what_the_file_holds_and_who_writes_it() -> None:
    body = ast.parse(LAYOUT.read_text(encoding="utf-8")).body
    who = r"(\. All tasks|: (every task|search|retrain|supernet|rank|compare)|sweep)\b"
    for node, after in pairwise(body):
        if isinstance(node, ast.Assign):
            assert isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
            assert re.search(who, str(after.value.value)), ast.unparse(node)
    names = [node.value for node in constants(LAYOUT).values()]
    files = [name for name in names if FILE_NAME.search(str(name))]
    assert len(files) == len(set(files)) >= 18


def write(directory: Path, name: str, content: Any) -> None:
    directory.mkdir(exist_ok=True)
    (directory / name).write_text(content if isinstance(content, str) else json.dumps(content))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    resumed = [{"overrides": ["threads=2"]}, {"overrides": 3}, "odd", {"overrides": ["device=cpu"]}]
    record = {"task": "search", "overrides": ["seed=3"], "config": {"seed": 3}, "seed": 3}
    write(tmp_path / "run", layout.RECORD, {**record, "resumed": resumed})
    return tmp_path / "run"


@pytest.mark.parametrize("strict", [True, False])
def test_what_a_record_tells(run: Path, strict: bool) -> None:
    found = RunDirectory(run, strict)
    assert (found.task, found.config, found.seed) == ("search", {"seed": 3}, 3)
    assert found.overrides == ["seed=3", "threads=2", "device=cpu"]
    assert found.result == {} and found.status is None and found.earlier.result is None
    write(run, layout.RESULT, {"status": "done", "score": 0.5})
    found = RunDirectory(run, strict)
    assert found.status == "done" and found.earlier.result == {"status": "done", "score": 0.5}
    assert found.earlier.record == found.record


@pytest.mark.parametrize("content", ["", "{", "[1]", "[" * 10**5, "\udcff", "{}"])
def test_a_damaged_record_is_an_error_or_empty(run: Path, content: str) -> None:
    (run / layout.RECORD).write_text(content, errors="surrogateescape")
    for name in ("task", "overrides", "config"):
        with pytest.raises(UserError, match=re.escape(str(run / layout.RECORD))) as error:
            getattr(RunDirectory(run), name)
        assert "\n" not in str(error.value)
    tolerant = RunDirectory(run, strict=False)
    assert (tolerant.task, tolerant.overrides, tolerant.config, tolerant.seed) == ("", [], {}, None)


def test_links_are_refused_where_a_run_may_be_a_strangers(run: Path) -> None:
    (run / layout.RECORD).rename(run / "elsewhere.json")
    (run / layout.RECORD).symlink_to(run / "elsewhere.json")
    with pytest.raises(UserError, match="it is a link"):
        _ = RunDirectory(run).task
    assert RunDirectory(run, strict=False).task == ""  # in a sweep it counts as absent


@pytest.mark.parametrize(
    ("name", "read"),
    [
        (layout.RANKING, lambda run: run.agreement("kendall")),
        (layout.RANKING, lambda run: run.ranking),
        (layout.COMPARISON, lambda run: run.comparison),
    ],
)
@pytest.mark.parametrize("content", [None, "[1]", '{"epochs": {"x": {}}, "algorithms": {"a": 1}}'])
def test_measures_that_cannot_be_read(run: Path, name: str, read: Any, content: str | None) -> None:
    if content is not None:
        write(run, name, content)
    assert not read(RunDirectory(run, strict=False))
    with pytest.raises(UserError, match=re.escape(str(run))) as error:
        read(RunDirectory(run))
    assert "\n" not in str(error.value)


def test_the_rows_of_a_comparison(run: Path) -> None:
    regret = {"value": 0.5, "low": None, "high": 0.75}
    rows = {
        "random": {"seeds": 4, "regret": regret, "wins": None, "p": None},
        "evolution": {"seeds": 3, "regret": regret, "wins": 0.9, "p": 0.01},
    }
    write(run, layout.COMPARISON, {"algorithms": rows})
    control, other = RunDirectory(run).comparison
    assert (control.algorithm, control.seeds, control.wins, control.p) == ("random", 4, None, None)
    assert (other.algorithm, other.regret.high, other.wins, other.p) == (
        "evolution",
        0.75,
        0.9,
        0.01,
    )


def test_a_place_in_a_front(run: Path) -> None:
    write(run, layout.FRONT, [{"architecture": {"space": "x"}}, {"architecture": 2}])
    assert RunDirectory(run).architecture_at(0) == {"space": "x"}
    for pick in (2, -1, True, "0", None):
        with pytest.raises(UserError, match="has the places 0 to 1"):
            RunDirectory(run).architecture_at(pick)
    for content in ("{}", "[1]"):
        write(run, layout.FRONT, content)
        with pytest.raises(UserError, match="is no front"):
            RunDirectory(run).architecture_at(0)
