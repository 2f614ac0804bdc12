"""Tab completion: candidates, and the scripts in real shells."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from nasrun.cli import commands
from nasrun.cli.completion.candidates import alternatives, candidates
from nasrun.cli.completion.words import escaped, read_line
from nasrun.cli.main import main
from nasrun.config.groups import files_of, task_of_recipe, tasks
from nasrun.config.outline import outline

ROOT = Path(__file__).parents[1]


def after(line: str) -> list[str]:
    """The candidates at the end of a line."""
    typed = read_line(line)
    return [one.word for one in candidates(typed.words, typed.current)]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with two runs, the second one newer and with a name, and some files."""
    monkeypatch.chdir(tmp_path)
    for number, name in enumerate((None, "baseline")):
        run = tmp_path / "outputs" / "search" / f"2026-11-2{number}_10-00-00-000000"
        run.mkdir(parents=True)
        record = {"task": "search", "deeper": {"in": {"name": "x"}}, "config": {"name": name}}
        (run / "run.json").write_text(json.dumps(record, indent=2))
        os.utime(run, (number, number))
    (tmp_path / "my images").mkdir()
    (tmp_path / "arch.json").touch()
    return tmp_path


def test_tasks_and_commands() -> None:
    assert set(after("nasrun ")) == {*tasks(), *commands.names()}
    assert after("nasrun sea") == ["search"]
    assert after("NASRUN_TRUST=x /opt/bin/nasrun sea") == ["search"]
    assert after("nasrun -cd conf sea") == ["search"]


@pytest.mark.few(8)
@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("nasrun search sampler=", [f"sampler={option}" for option in files_of("sampler")]),
        ("nasrun search -m sampler=uniform,sand", ["sampler=uniform,sandwich"]),
        ("nasrun search 'sampler=sand", ["sampler=sandwich"]),
        ("nasrun search sam", ["sampler=", "sampler."]),
        ("nasrun search nonsense=", []),
        ("nasrun search sampler.", ["sampler.size=", "sampler.exponent="]),
        ("nasrun search sampler=sandwich sampler.", ["sampler.random=", "sampler.size="]),
        ("nasrun search sampler=sandwich sampler.size=p", ["sampler.size=params"]),
        ("nasrun search seed=1 see", []),
        ("nasrun search trainer.sch", ["trainer.schedule."]),
        (
            "nasrun search trainer.schedule.kind=co",
            ["trainer.schedule.kind=cosine", "trainer.schedule.kind=constant"],
        ),
        ("nasrun search trainer.nesterov=", ["trainer.nesterov=true", "trainer.nesterov=false"]),
        ("nasrun search device=c", ["device=cpu", "device=cuda"]),
        ("nasrun rank rank.truth.tra", ["rank.truth.trainer."]),
        ("nasrun rank evaluator@rank.tr", ["evaluator@rank.truth="]),
        ("nasrun rank evaluator@rank.truth=ta", ["evaluator@rank.truth=table"]),
        ("nasrun search --cfg ", ["job", "hydra", "all"]),
        ("nasrun search --multi", ["--multirun"]),
        ("nasrun search +trainer.cutou", ["+trainer.cutout="]),
        ("nasrun completion ", ["bash", "zsh", "fish"]),
        ("nasrun help sampler=sandw", ["sampler=sandwich"]),
        ("nasrun help budget.macs.", ["budget.macs.min", "budget.macs.max"]),
        ("nasrun new samp", ["sampler"]),
        ("nasrun checks --j", ["--json"]),
    ],
)
def test_what_may_follow(line: str, expected: list[str]) -> None:
    assert after(line) == expected


@pytest.mark.soak
@pytest.mark.parametrize("task", tasks())
def test_recipes_are_those_of_the_task(task: str) -> None:
    recipes = [name for name in files_of("experiment") if task_of_recipe(name) == task]
    assert after(f"nasrun {task} experiment=") == [f"experiment={name}" for name in recipes]


@pytest.mark.soak
def test_every_setting_is_reached_level_by_level() -> None:
    wanted = {key for key in outline("rank").settings if not key.endswith("_target_")} - {"task"}
    found, prefixes = set(), [""]
    for prefix in prefixes:  # the list grows
        for word in after(f"nasrun rank {prefix}"):
            if word.endswith("."):
                prefixes.append(word)
            else:
                found.add(word.removesuffix("="))
    assert wanted <= found


def test_runs_and_files(folder: Path) -> None:
    old, new = (str(p.relative_to(folder)) for p in sorted(folder.glob("outputs/search/*")))
    for line in ("nasrun search from=", "nasrun retrain from="):
        assert after(line)[:4] == [f"from={word}" for word in ("latest", "baseline", new, old)]
    assert after("nasrun resume ")[:4] == ["latest", "baseline", new, old]
    assert after("nasrun retrain architecture=a") == ["architecture=arch.json"]
    assert after("nasrun retrain architecture=NAS") == ["architecture=NASNet-A"]
    assert after("nasrun search dataset.root=my") == ["dataset.root=my images/"]
    assert after("nasrun search dataset.root=my\\ im") == ["dataset.root=my images/"]
    assert after("nasrun -cd ou") == ["outputs/"]
    assert after("nasrun search from=no/such/") == []


def test_options_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "sampler").mkdir()
    (tmp_path / "sampler" / "mine.yaml").write_text("_target_: a.B\nrate: 1 # a share\n")
    assert after(f"nasrun search -cd {tmp_path} sampler=mi") == ["sampler=mine"]
    line = f"nasrun search --config-dir={tmp_path} sampler=mine sampler."
    assert after(line) == ["sampler.rate="]


def test_values_that_a_comment_lists() -> None:
    assert alternatives('params | macs: what "largest" means', "macs") == ["params", "macs"]
    text = "statistics: batch (NAO-V2 code) | recalibrated (SPOS, 3.3) | inherited"
    assert alternatives(text, "batch") == ["batch", "recalibrated", "inherited"]
    assert alternatives("a share; ours", "0.1") == []


@pytest.mark.soak
def test_no_beginning_of_a_line_is_an_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = "nasrun search -m 'sampler=[uniform,\"x]} -cd nowhere experiment=nono ++a.b=~$(x)\\"
    for shell in ("bash", "zsh", "fish"):
        monkeypatch.setenv("NASRUN_SHELL", shell)
        for end in range(0, len(whole) + 1, 8 if shell == "bash" else 30):
            monkeypatch.setenv("NASRUN_LINE", whole[:end])
            assert main(["completion", "candidates"]) == 0
    assert capsys.readouterr().err == ""


def test_words_as_a_shell_reads_them() -> None:
    for word in ("plain", "a b", "it's", 'say "x"', "a\\b", "$HOME", "[x,y]", "~/x"):
        assert read_line(f"nasrun {escaped(word, '')}").current == word
        if not word.startswith("~"):
            assert shlex.split(escaped(word, "")) == [word]
        if "$" not in word:  # shlex, other than shells, keeps the backslash
            assert shlex.split(f'"{escaped(word, chr(34))}"') == [word]


def test_a_shell_must_be_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion"]) == 2
    assert main(["completion", "bsh"]) == 2
    assert "did you mean 'bash'" in capsys.readouterr().err


# Real shells.


def shell(name: str, script: str, place: Path) -> str:
    """What a shell prints, with this nasrun in its PATH; it must print no error."""
    bin_folder = place / "bin"
    bin_folder.mkdir(exist_ok=True)
    program = bin_folder / "nasrun"
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m nasrun "$@"\n')
    program.chmod(0o755)
    environment = {
        **os.environ,
        "PATH": f"{bin_folder}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "HOME": str(place),
    }
    done = subprocess.run(
        [name, "-c", script],
        cwd=place,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.stderr == ""
    return done.stdout


BASH = """
eval "$(nasrun completion bash)"
complete -p nasrun >/dev/null
press() {
    COMP_LINE="$1"; COMP_POINT=${#1}; _nasrun nasrun
    printf '%s|' "${COMPREPLY[@]}"; echo
}
"""


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash(folder: Path) -> None:
    lines = (
        'press "nasrun search sampler=sand"; press "nasrun search dataset.root=my";'
        'press "nasrun search trainer.sch"; rm bin/nasrun; press "nasrun sea"'
    )
    assert shell("bash", BASH + lines, folder).splitlines() == [
        "sandwich |",
        "my\\ images/|",
        "trainer.schedule.|",
        "|",  # and no error
    ]


ZSH = """
compdef() { : }
eval "$(nasrun completion zsh)"
compadd() { print -r -- "$@" }
press() { words=("$@"); CURRENT=$#words; PREFIX="${words[-1]}"; _nasrun }
press nasrun search sampler=sand
press nasrun search trainer.sch
"""


@pytest.mark.soak
@pytest.mark.skipif(shutil.which("zsh") is None, reason="needs zsh")
def test_zsh(folder: Path) -> None:
    assert shell("zsh", ZSH, folder).splitlines() == [
        "-Q -l -d complete_lines -- sampler=sandwich",
        "-Q -l -S  -d open_lines -- trainer.schedule.",
    ]


FISH = """
nasrun completion fish | source
complete -C "nasrun search sampler=sand"
complete -C "nasrun search trainer.sch"
complete -C "nasrun search dataset.root=my"
"""


@pytest.mark.soak
@pytest.mark.skipif(shutil.which("fish") is None, reason="needs fish")
def test_fish(folder: Path) -> None:
    lines = [line.split("\t") for line in shell("fish", FISH, folder).splitlines()]
    assert [line[0] for line in lines] == [
        "sampler=sandwich",
        "trainer.schedule.",
        "dataset.root=my images/",
    ]
    assert lines[0][1].startswith("The largest, the smallest and some random")
