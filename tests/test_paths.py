"""Settings that are paths, and commands that are shown to be pasted: any character, and ``~``."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from processes import Processes, outcome
from test_dataset_folder import draw

from nasrun.cli.from_run import EarlierRun
from nasrun.cli.main import main
from nasrun.cli.resume import apply
from nasrun.config.compose import compose, parse
from nasrun.config.groups import conf_dir
from nasrun.config.paths import is_path, readable, with_absolute, with_homes
from nasrun.errors import UserError
from nasrun.run.commands import command

ROOT = Path(__file__).parent.parent


ANY_PATH = st.text(
    st.sampled_from("aé 1=,[](){}'\"\\#:;|&*?!@%+-~.$"), min_size=1, max_size=8
).filter(lambda text: "${" not in text and text[0] not in "'\" " and text[-1] != " ")


@given(text=ANY_PATH, key=st.sampled_from(["dataset.root", "outputs", "from", "evaluator.path"]))
def test_any_path_is_read_as_it_was_typed(text: str, key: str) -> None:
    override = parse(readable(f"{key}={text}"))
    assert not override.is_sweep_override()
    found = override.value()
    if text.startswith("~"):
        assert found in (str(Path(text).absolute()), os.path.expanduser(text))  # noqa: PTH111
    elif "\\" in text:
        assert isinstance(found, str)  # a backslash may be Hydra's own
    else:
        assert str(found) == text
        assert isinstance(found, str) or key == "outputs"


@pytest.mark.parametrize(
    ("override", "several", "expected"),
    [
        ("dataset.root=photos", False, "dataset.root=photos"),
        ("dataset.root=~/photos", False, "dataset.root='/home/ann/photos'"),
        ("dataset.root='~/my photos'", False, "dataset.root='/home/ann/my photos'"),
        ("+dataset.mine.path=a=b", False, "+dataset.mine.path='a=b'"),
        ("plugin.folder=~/x", False, "plugin.folder='/home/ann/x'"),
        ("plugin.text='~/x'", False, "plugin.text='~/x'"),
        ("evaluator.architecture=a,b", False, "evaluator.architecture=a,b"),
        ("evaluator.path=2024,v1", False, "evaluator.path='2024,v1'"),
        ("evaluator.path=7", False, "evaluator.path='7'"),
        ("evaluator.path='007'", False, "evaluator.path='007'"),
        ("outputs=null", False, "outputs=null"),
        ("from=run", False, "from='run'"),
        ("from=a,b", True, "from='a,b'"),
        ("evaluator.path=a,b", True, "evaluator.path=a,b"),
        ("evaluator.path=~/a,~/b=c", True, "evaluator.path='/home/ann/a','/home/ann/b=c'"),
        ("dataset.root=choice(a,b)", True, "dataset.root=choice(a,b)"),
        ("outputs=~/x", True, "outputs='/home/ann/x'"),
        ("hydra.run.dir=~/x", False, "hydra.run.dir='/home/ann/x'"),
        ("~compare.algorithms.random", False, "~compare.algorithms.random"),
        ("seed=1", False, "seed=1"),
    ],
)
def test_paths_are_quoted_for_hydra_where_they_must_be(
    override: str, several: bool, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/ann")
    assert readable(override, several=several) == expected


def test_every_setting_that_is_a_path_is_known_as_one() -> None:
    """A path is a text or null by default, and its comment tells of a file or a folder."""
    value = r"( *)(\w+): (?:null|outputs|\$\{\S+) # (.*)"
    found = set()
    for path in sorted(conf_dir().rglob("*.yaml")):
        group = path.parent.relative_to(conf_dir()).as_posix()
        for line in path.read_text(encoding="utf-8").splitlines():
            setting = re.match(value, line)
            if setting and re.search(r"\bfile\b|\bfolder\b|\bdirector|\.csv\b", setting[3]):
                top = not setting[1] and group in (".", "task")
                found.add(setting[2] if top else f"{group}.{setting[2]}")
    assert {"from", "architecture", "dataset.root", "budget.table", "evaluator.path"} <= found
    assert {"architectures.path", "budget.store", "task.truth_store"} <= found
    assert not [key for key in found if not is_path(key)]


def test_homes_are_replaced_in_paths_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ann")
    config = {"outputs": "~/o", "budget": {"latency": {"table": "~/t", "device": "~/d"}}, "n": 1}
    expected = {
        "outputs": "/home/ann/o",
        "budget": {"latency": {"table": "/home/ann/t", "device": "~/d"}},
        "n": 1,
    }
    assert with_homes(config) == expected


@settings(max_examples=30)
@given(text=st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8))
def test_commands_are_read_by_a_shell_as_they_are_meant(text: str) -> None:
    line = command("retrain", f"from=/{text}", "seed=1")
    assert shlex.split(line) == ["nasrun", "retrain", f"from=/{text}", "seed=1"]


def test_every_shown_command_with_a_value_is_made_by_command() -> None:
    for path in sorted((ROOT / "nasrun").rglob("*.py")):
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            shown = re.search(
                r"nasrun (resume|retrain|search|rank|compare|supernet) [^`\[]*\{", line
            )
            assert not shown, f"{path.relative_to(ROOT)}:{number}: {line}"


RETRAIN = (
    *("retrain", "effort=smoke", "search_space=nas_bench_macro", "dataset=synthetic", "threads=1"),
    *("search_space.final.width=0.125", "retrain.trainer.epochs=1"),
    "retrain.trainer.batch_size=8",
)


def test_what_a_run_in_an_odd_folder_shows_can_be_pasted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    home = tmp_path / "home of J\u00fcrgen's, [x=1]"
    home.mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(home))
    (home / "an a=b,c.txt").write_text("11111111", encoding="utf-8")
    assert main([*RETRAIN, "architecture=~/an a=b,c.txt", "outputs=~/my r\u00fcns"]) == 0
    assert [path.name for path in tmp_path.iterdir()] == [home.name]
    (run,) = (home / "my r\u00fcns" / "retrain").iterdir()
    said = capsys.readouterr().out.splitlines()
    shown = [line for line in said if line.startswith(("nasrun ", "tensorboard "))]
    (again,) = (line for line in shown if line.startswith("nasrun retrain "))
    done = subprocess.run(
        ["/bin/bash", "-c", "nasrun() { printf '%s\\0' \"$@\"; }; " + again],
        capture_output=True,
        text=True,
        check=True,
    )
    words = done.stdout.split("\0")[:-1]
    assert words == ["retrain", f"from={run.relative_to(tmp_path)}", "seed=1"]
    assert main([*words, "--cfg", "job"]) == 0  # its overrides are read back too
    assert "seed: 1" in capsys.readouterr().out
    assert all(shlex.split(line) for line in shown)
    record = json.loads((run / "run.json").read_text(encoding="utf-8"))
    assert record["config"]["outputs"] == str(home / "my r\u00fcns")
    assert main(["resume", str(run), "dataset.root=~/x"]) == 2  # synthetic images have no root
    assert f"dataset.root={home}/x" in capsys.readouterr().err


@pytest.mark.few(1)
@pytest.mark.parametrize("several", [False, True])
def test_a_recipe_may_name_the_home(
    several: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    home = tmp_path / "h"
    monkeypatch.setenv("HOME", str(home))
    experiment = home / "conf" / "experiment"
    experiment.mkdir(parents=True)
    (experiment / "mine.yaml").write_text("# @package _global_\noutputs: ~/o\n", encoding="utf-8")
    (tmp_path / "a").write_text("11111111", encoding="utf-8")
    words = [*RETRAIN, "architecture=a", "experiment=mine", "--config-dir=~/conf"]
    assert main([*words, "-m", "seed=0"] if several else words) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "h"]
    (result,) = (home / "o").rglob("result.json")
    record = json.loads(result.with_name("run.json").read_text(encoding="utf-8"))
    assert record["config"]["architecture"] == str(tmp_path / "a")


def test_paths_of_a_configuration_become_absolute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/ann")
    config = {
        "outputs": "o",
        "from": None,
        "dataset": {"root": "../d", "name": "x"},
        "evaluator": {"path": "https://x/t.csv", "architecture": "arch", "table": "/t"},
        "budget": {"latency": {"store": "~/s"}, "path": ""},
    }
    expected = {
        "outputs": f"{tmp_path}/o",
        "from": None,
        "dataset": {"root": f"{tmp_path}/../d", "name": "x"},
        "evaluator": {"path": "https://x/t.csv", "architecture": "arch", "table": "/t"},
        "budget": {"latency": {"store": "/home/ann/s"}, "path": ""},
    }
    assert with_absolute(config) == expected
    assert with_absolute(expected) == expected


def record_of(run: Path, overrides: list[str], config: dict[str, Any]) -> EarlierRun:
    """A run with this record, read back."""
    run.mkdir(exist_ok=True)
    record = {"task": "search", "overrides": overrides, "config": config}
    (run / "run.json").write_text(json.dumps(record))
    (run / "architecture.json").write_text("{}")
    return EarlierRun.read(run, "architecture.json", None)


@pytest.mark.soak
def test_a_run_is_taken_over_in_another_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its images are those that it had, whether it named them or they were in the usual place."""
    monkeypatch.delenv("NASRUN_DATA", raising=False)
    here, there = tmp_path / "here", tmp_path / "there"
    for folder in (here / "photos", here / "data/images", there):
        folder.mkdir(parents=True)
    monkeypatch.chdir(here)
    given = ["dataset=image_folder", "dataset.root=./photos", "seed=1"]
    named = with_absolute(compose(["task=search", *given]))
    usual = with_absolute(compose(["task=search", given[0]]))
    relative = compose(["task=search", *given])
    monkeypatch.chdir(there)
    run = record_of(tmp_path / "run", given, named)
    expected = [given[0], f"dataset.root='{here}/photos'", "seed=1"]
    assert run.merged([], None) == expected
    assert run.merged(["dataset.root=mine"], None) == [given[0], "seed=1", "dataset.root=mine"]
    assert run.changed_defaults([], None) == {}
    run = record_of(tmp_path / "run", given[:1], usual)
    assert run.merged([], None) == [given[0], f"dataset.root='{here}/data/images'"]
    assert "dataset.root" not in run.changed_defaults([], None)
    assert run.merged(["dataset=digits"], None) == ["dataset=digits"]
    (there / "data/images").mkdir(parents=True)  # what is here goes before what was there
    assert run.merged([], None) == given[:1]
    assert list(run.changed_defaults([], None)) == ["dataset.root"]
    run = record_of(tmp_path / "run", given, relative)  # as older versions wrote it
    assert run.merged([], None) == given
    monkeypatch.chdir(here)
    assert run.changed_defaults([], None) == {}


def test_a_path_of_a_run_may_be_typed_in_any_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for recorded in (f"{tmp_path}/t.csv", "t.csv"):
        for typed in ("t.csv", f"{tmp_path}/t.csv"):
            config = {"evaluator": {"path": recorded}}
            assert apply(config, {"evaluator.path": typed}, ()) == frozenset()
            assert config == {"evaluator": {"path": recorded}}
        with pytest.raises(UserError, match="cannot go on with another eval"):
            apply({"evaluator": {"path": recorded}}, {"evaluator.path": "u.csv"}, ())


@pytest.mark.soak
def test_a_run_on_images_goes_on_in_another_folder(processes: Processes, tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    draw(here / "photos", 12)
    words = [
        *("retrain", "effort=smoke", "search_space=nas_bench_macro", "dataset=image_folder"),
        *("dataset.root=photos", "dataset.image_size=8", "search_space.final.width=0.125"),
        *("dataset.workers=0", "threads=1", "retrain.trainer.epochs=2", "architecture=a"),
        *("retrain.trainer.batch_size=8", "hydra.run.dir=run"),
    ]
    (here / "a").write_text("11111111", encoding="utf-8")
    stop = [("signal_at", [15, "safe_point", "retrain", 2])]
    assert processes.run(here, *words, faults=stop).status == 143
    record = json.loads((here / "run/run.json").read_text())
    assert record["config"]["dataset"]["root"] == str(here / "photos")
    assert record["config"]["outputs"] == str(here / "outputs")
    older = tmp_path / "older"
    shutil.copytree(here, older)
    record["config"]["dataset"]["root"] = "photos"
    (older / "run/run.json").write_text(json.dumps(record))
    for place, line in ((there, ["resume", "../here/run"]), (older, ["resume", "run"])):
        done = processes.run(place, *line)
        assert done.status == 0, done.err
    assert outcome(here / "run") == outcome(older / "run")
    done = processes.run(there, "retrain", "from=../here/run", "hydra.run.dir=again")
    assert done.status == 0, done.err
    done = processes.run(there, "predict", "from=again", "../here/photos/ant")
    assert (done.status, done.err) == (0, "") and len(done.out.splitlines()) == 12
