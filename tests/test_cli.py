"""The command line: help, mistakes, Hydra's switches, what stays behind, and the wheel."""

from __future__ import annotations

import errno
import importlib.util
import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers import as_job
from hydra.core.hydra_config import HydraConfig
from runs import make_sweep

from nasrun import __version__
from nasrun.cli import arguments
from nasrun.cli import main as cli
from nasrun.cli.from_run import EarlierRun, check_foreign
from nasrun.config.compose import compose
from nasrun.config.groups import groups, tasks
from nasrun.errors import UserError

ROOT = Path(__file__).parent.parent


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NASRUN_DEBUG", raising=False)
    return tmp_path


def nasrun(
    *arguments: str, cwd: Path, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "nasrun", *arguments],
        cwd=cwd,
        env={**os.environ, "NASRUN_DEBUG": "0", **(env or {})},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def no_job(composed: Any) -> None:
    pytest.fail("a job has begun")


# A process of its own: exit status, one line, no torch.


def test_a_mistake_in_a_process_of_its_own(tmp_path: Path) -> None:
    done = nasrun("search", "search_algo.initail=3", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("nasrun: error: ")
    assert done.stderr.count("\n") == 1
    assert "search_algo.initial" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    done = nasrun("search", "sampler=unifrom", cwd=tmp_path, env={"NASRUN_DEBUG": "1"})
    assert done.returncode == 2
    assert "Traceback" in done.stderr
    assert "did you mean 'uniform'" in done.stderr.splitlines()[-1]


@pytest.mark.few(3)
@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--help"],
        ["serch"],
        ["search", "search_algo.initail=3"],
        ["search", "--cfg", "job"],
        ["retrain", "from=nowhere"],
        ["report", "sweep"],
    ],
    ids=" ".join,
)
def test_no_torch_for_help_and_slips(arguments: list[str], tmp_path: Path) -> None:
    slow = {"torch", "scipy", "matplotlib"} if "--cfg" in arguments else {"torch"}
    code = (
        "import sys; from nasrun.cli.main import main; main(sys.argv[1:]);"
        f"sys.exit(7 if {slow!r} & set(sys.modules) else 0)"
    )
    make_sweep(tmp_path / "sweep", 0.5, 0.6)
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=tmp_path, capture_output=True, check=False
    )
    assert done.returncode == 0


@pytest.mark.parametrize("arguments", ["--help", "search --cfg job"])
def test_output_that_nobody_reads(arguments: str, tmp_path: Path) -> None:
    command = f"{sys.executable} -m nasrun {arguments} | true"
    done = subprocess.run(
        ["bash", "-c", command],  # noqa: S607
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""


# Help.


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"], ["help"]], ids=str)
def test_the_page(arguments: list[str], folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(arguments) == 0
    page = capsys.readouterr().out
    assert "\x1b" not in page
    for word in (*tasks(), "sampler", "uniform", "experiment", "effort", "smoke", "-m", "--cfg"):
        assert word in page
    assert "NASRUN_DEBUG" in page
    assert "effort/smoke" not in page


@pytest.mark.parametrize(
    "arguments", [["retrain", "--help"], ["-h", "retrain"], ["help", "retrain"]], ids=str
)
def test_the_page_of_a_task(
    arguments: list[str], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(arguments) == 0
    assert capsys.readouterr().out.startswith("nasrun retrain: ")


def test_help_comes_before_mistakes(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["search", "sampler=unifrom", "--help"]) == 0


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"nasrun {__version__}\n"


# Mistakes, each one line, with nothing left on the disk.


@pytest.mark.few(14)
@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["serch"], "did you mean 'search'"),
        (["xyzzy"], "test; commands: checks, "),
        (["plan", "serch"], "unknown task 'serch' (did you mean 'search'?); search, "),
        (["seed=1"], "no task given"),
        (["-m", "seed=1,2"], "no task given"),
        (["search", "retrain"], "'retrain' is no setting"),
        (["search", "task=retrain"], "not task=TASK"),
        (["search", "--multrun"], "did you mean '--multirun'"),
        (["search", "--json"], "unknown switch --json; `nasrun --help` names them"),
        (["search", "--cfg"], "--cfg needs a value"),
        (["search", "--cfg", "jbo"], "must be one of job, hydra, all"),
        (["search", "--info=zzz"], "must be one of all, config"),
        (["search", "--experimental-rerun", "x.pickle"], "unpickle"),
        (["search", "-m", "--cfg", "job"], "Only one of"),
        (["search", "-cd", "nowhere"], "nowhere"),
        (["search", "sampler=proportinal"], "did you mean 'proportional'"),
        (["search", "samplr=uniform"], "did you mean 'sampler'"),
        (["search", "search_algo.initail=3"], "did you mean 'search_algo.initial'"),
        (["search", "-m", "search_algo.initail=3,4"], "did you mean 'search_algo.initial'"),
        (["search", "-m", "sampler=uniform,proportinal"], "did you mean 'proportional'"),
        (["search", "seed=[1"], "cannot read 'seed=[1'"),
        (["search", "seed=0,1"], "add -m"),
        (["search", "seed=${nowhere}"], "nowhere"),
        (["search", "outputs=/proc/nowhere"], "/proc/nowhere"),
        (["search", "+sede=3"], "did you mean 'seed'"),
        (["supernet", "from=x"], "'from'"),
        (["search", "from=x"], "no such directory"),
        (["search", "from="], "from= is empty"),
        (["retrain"], "either from=RUN_DIR or architecture=FILE"),
        (["retrain", "from=nowhere"], "no such directory"),
        (["retrain", "architecture=nowhere.json"], "nowhere.json"),
        (["retrain", "-m", "architecture=a.json,b.json"], "a.json"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_mistakes(
    arguments: list[str], expected: str, folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    status = cli.main(arguments)
    err = capfd.readouterr().err
    assert expected in err
    assert "Traceback" not in err
    assert status == 2
    if "architecture=a.json,b.json" not in arguments:  # a sweep, whose jobs failed one by one
        assert err.startswith("nasrun: error: ")
        assert err.count("\n") == 1
        assert list(folder.iterdir()) == []


def test_an_output_directory_that_is_a_file(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (folder / "outputs").write_text("not a folder")
    assert cli.main(["search"]) == 2
    err = capfd.readouterr().err
    assert err.startswith("nasrun: error: cannot write")
    assert "outputs=DIR" in err
    assert [path.name for path in folder.iterdir()] == ["outputs"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk(
    number: int,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    def job(composed: Any) -> None:
        (Path(HydraConfig.get().runtime.output_dir) / "checkpoints").mkdir()
        try:
            raise OSError(number, os.strerror(number))
        finally:
            if number == errno.EFBIG:  # as torch does
                raise RuntimeError("unexpected pos 64 vs 0")

    monkeypatch.setattr(cli, "job", as_job(job))
    assert cli.main(["search"]) == 2
    assert "no space left" in capfd.readouterr().err
    assert list(folder.iterdir()) == []


def test_other_trouble_with_the_run_directory(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def job(composed: Any) -> None:
        place = Path(HydraConfig.get().runtime.output_dir)
        place.rmdir()
        (place / "run.json").write_text("{}")

    monkeypatch.setattr(cli, "job", as_job(job))
    assert cli.main(["search"]) == 2
    assert "run.json: No such file or directory" in capfd.readouterr().err


def test_internal_errors(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def job(composed: Any) -> None:
        raise RuntimeError("a\nbug")

    monkeypatch.setattr(cli, "job", as_job(job))
    assert cli.main(["search"]) == 1
    err = capfd.readouterr().err
    assert err == (
        "nasrun: internal error: RuntimeError: a bug (NASRUN_DEBUG=1 shows the traceback)\n"
    )
    assert list(folder.iterdir()) == []
    monkeypatch.setenv("NASRUN_DEBUG", "1")
    assert cli.main(["search"]) == 1
    assert "Traceback" in capfd.readouterr().err


def test_an_interrupt(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def job(composed: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "job", as_job(job))
    assert cli.main(["search"]) == 130
    assert capfd.readouterr().err == "nasrun: interrupted\n"
    assert list(folder.iterdir()) == []


def test_what_was_written_stays(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def job(composed: Any) -> None:
        (Path(HydraConfig.get().runtime.output_dir) / "run.json").write_text("{}")
        raise UserError("too late")

    monkeypatch.setattr(cli, "job", as_job(job))
    assert cli.main(["search"]) == 2
    assert len(list(folder.glob("outputs/search/*/run.json"))) == 1


def test_an_older_output_directory_stays(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def job(composed: Any) -> None:
        raise UserError("no")

    (folder / "outputs").mkdir()
    monkeypatch.setattr(cli, "job", as_job(job))
    assert cli.main(["search"]) == 2
    assert [path.name for path in folder.rglob("*")] == ["outputs"]


# Hydra's own switches.


@pytest.mark.parametrize(
    "arguments",
    [
        ["search", "--cfg", "job", "seed=7"],
        ["--cfg", "job", "search", "seed=7"],
        ["--cfg=job", "search", "seed=7"],
        ["search", "seed=7", "-c", "job", "shortlist.count=2"],
        ["search", "seed=7", "--cfg", "job", "--resolve"],
        ["seed=7", "search", "-c", "job"],
    ],
    ids=" ".join,
)
def test_cfg(
    arguments: list[str],
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(cli, "job", as_job(no_job))
    assert cli.main(arguments) == 0
    out, err = capfd.readouterr()
    shown = yaml.safe_load(out)
    assert (shown["seed"], shown["task"]) == (7, "search")
    assert err == ""
    assert list(folder.iterdir()) == []


def test_cfg_of_a_package(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["search", "-p", "shortlist", "--cfg", "job"]) == 0
    assert "seed:" not in capfd.readouterr().out


@pytest.mark.few(2)
@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["search", "--info"], "Hydra 1.3"),
        (["search", "--info", "seed=1"], "seed: 1"),
        (["--info", "defaults-tree", "search"], "dataset: digits"),
        (["search", "-i", "searchpath", "seed=1"], "Search path"),
        (["--hydra-help"], "== Flags =="),
        (["search", "--hydra-help"], "== Flags =="),
        (["-sc", "install=bash"], "complete"),
    ],
    ids=str,
)
def test_info(
    arguments: list[str], expected: str, folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    try:
        status = cli.main(arguments)
    except SystemExit as ended:  # Hydra's help ends the process itself
        status = int(ended.code or 0)
    finally:
        root.handlers[:] = before  # --info logs to the screen from then on
        root.setLevel(level)
    assert status == 0
    assert expected in capfd.readouterr().out
    assert list(folder.iterdir()) == []


def test_a_further_folder(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (folder / "mine" / "experiment").mkdir(parents=True)
    (folder / "mine" / "experiment" / "tiny.yaml").write_text("# @package _global_\nseed: 77\n")
    for words in (
        ["search", "-cd", "mine", "experiment=tiny", "--cfg", "job"],
        ["--config-dir=mine", "search", "--cfg", "job", "experiment=tiny"],
    ):
        assert cli.main(words) == 0
        assert yaml.safe_load(capfd.readouterr().out)["seed"] == 77
    assert cli.main(["--help", "-cd", "mine"]) == 0
    assert "tiny" in capfd.readouterr().out
    assert cli.main(["search", "-cd", "mine", "experiment=tinny"]) == 2
    assert "did you mean 'tiny'" in capfd.readouterr().err


def test_the_command_line_sorted() -> None:
    line = arguments.split(["-m", "a=1", "search", "-cd", "x", "b=2", "--info", "c=3"])
    assert line.task == "search"
    assert line.overrides == ("a=1", "b=2", "c=3")
    assert line.switches == ("-m", "-cd", "x", "--info", "all")
    assert line.value(arguments.CONFIG_DIR) == "x"


# What a job hands on.


def test_what_a_task_is_given(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}

    def job(composed: Any) -> None:
        from nasrun.config.compose import plain

        seen.update(config=plain(composed), overrides=cli.own_overrides())

    monkeypatch.setattr(cli, "job", as_job(job))
    before = list(sys.argv), os.environ.get("HYDRA_FULL_ERROR")
    assert cli.main(["search", "seed=3", "effort=smoke"]) == 0
    assert seen["overrides"] == ["seed=3", "effort=smoke"]
    assert seen["config"]["task"] == "search"
    assert seen["config"]["seed"] == 3
    assert "hydra" not in seen["config"]
    assert json.loads(json.dumps(seen["config"])) == seen["config"]
    assert (sys.argv, os.environ.get("HYDRA_FULL_ERROR")) == before


# retrain from=RUN_DIR


def make_run(folder: Path, overrides: list[Any], **changes: Any) -> Path:
    run = folder / "outputs of, 'mine'=x" / "0"
    run.mkdir(parents=True)
    plain = [o for o in overrides if isinstance(o, str) and "hydra" not in o]
    try:
        config = compose(plain)
    except Exception:
        config = {}
    record = {"task": "search", "overrides": overrides, "config": config, **changes}
    (run / "run.json").write_text(json.dumps(record))
    (run / "architecture.json").write_text('{"space": "x", "choices": [0]}')
    return run


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    found: dict[str, Any] = {}

    def job(composed: Any) -> None:
        from nasrun.config.compose import plain
        from nasrun.task.retrain import RetrainTask

        config = plain(composed)
        found.update(config, overrides=cli.own_overrides(), source=RetrainTask.source(config))

    monkeypatch.setattr(cli, "job", as_job(job))
    return found


def test_from_takes_the_overrides_and_mine_win(
    folder: Path, seen: dict[str, Any], capfd: pytest.CaptureFixture[str]
) -> None:
    run = make_run(folder, ["sampler=uniform", "seed=5", "search_algo.initial=9", "outputs=else"])
    assert cli.main(["retrain", f"from={run}", "seed=6"]) == 0
    assert capfd.readouterr().err == ""
    assert seen["sampler"]["_target_"].endswith("Uniform")
    assert seen["seed"] == 6
    assert seen["search_algo"]["initial"] == 9
    assert seen["source"] == run / "architecture.json"
    assert "seed=5" not in seen["overrides"]
    assert seen["outputs"] == "outputs"


def test_from_with_another_option_of_a_group(folder: Path, seen: dict[str, Any]) -> None:
    run = make_run(folder, ["search_algo.initial=9", "seed=5"])
    assert cli.main(["retrain", f"from={run}", "search_algo=random"]) == 0
    assert seen["search_algo"]["_target_"].endswith("RandomSearch")
    assert seen["seed"] == 5


def test_from_in_a_sweep(folder: Path, seen: dict[str, Any]) -> None:
    run = make_run(folder, ["seed=5"])
    cli.main(["retrain", "-m", f"from={run}", "seed=0,1"])
    assert seen["seed"] == 1


def test_architecture_paths_of_any_kind(folder: Path, seen: dict[str, Any]) -> None:
    file = folder / "a = b, [c].json"
    file.write_text("{}")
    for argument in (f"architecture={file.name}", f"architecture='{file.name}'"):
        assert cli.main(["retrain", argument]) == 0
        assert seen["source"] == file


def test_both_from_and_architecture(
    folder: Path, seen: dict[str, Any], capfd: pytest.CaptureFixture[str]
) -> None:
    run = make_run(folder, [])
    assert cli.main(["retrain", f"from={run}", f"architecture={run}/architecture.json"]) == 2
    assert "either from=RUN_DIR or architecture=FILE" in capfd.readouterr().err


def test_defaults_that_have_changed_are_told(
    folder: Path, seen: dict[str, Any], capfd: pytest.CaptureFixture[str]
) -> None:
    run = make_run(folder, ["seed=5"])
    record = json.loads((run / "run.json").read_text())
    record["config"]["search_algo"]["initial"] = 123
    record["config"]["shortlist"]["count"] = 99
    (run / "run.json").write_text(json.dumps(record))
    assert cli.main(["retrain", f"from={run}", "shortlist.count=3"]) == 0
    (note,) = capfd.readouterr().err.splitlines()
    assert note.startswith("nasrun: note: ")
    assert "search_algo.initial (was 123, is now " in note
    assert "shortlist.count" not in note


def test_overrides_that_no_longer_fit(
    folder: Path, seen: dict[str, Any], capfd: pytest.CaptureFixture[str]
) -> None:
    run = make_run(folder, ["search_algo.initail=3"])
    assert cli.main(["retrain", f"from={run}"]) == 2
    err = capfd.readouterr().err
    assert "no longer fit" in err
    assert "search_algo.initial" in err


def test_an_experiment_replaces_the_overrides(
    folder: Path, seen: dict[str, Any], capfd: pytest.CaptureFixture[str]
) -> None:
    run = make_run(folder, ["dataset=cifar10", "seed=5"])
    (folder / "mine" / "experiment").mkdir(parents=True)
    recipe = "# @package _global_\ndefaults:\n  - override /dataset: imagenet\n"
    (folder / "mine" / "experiment" / "big.yaml").write_text(recipe)
    assert cli.main(["retrain", f"from={run}", "experiment=big", "-cd", "mine"]) == 0
    assert seen["dataset"]["_target_"].endswith("ImageNet")
    assert "not taken over" in capfd.readouterr().err


HOSTILE = [
    "--multirun",
    "-cd=/tmp/x",
    "hydra.run.dir=/tmp/x",
    "hydra/launcher=basic",
    "+hydra.callbacks.x._target_=os.system",
    "++hydra.searchpath=[/tmp]",
    "+dataset@hydra.callbacks.x=synthetic",
    "dataset@hydra.callbacks.x=synthetic",
    "trainer@a.hydra=supernet",
    "~hydra.callbacks",
    "~seed",
    "+x=1",
    "seed=0,1",
    "seed=range(3)",
    "seed=choice(1,2)",
    "seed=${oc.env:HOME}",
    "dataset.root=${oc.env:HOME}",
    "dataset=../../../tmp/evil",
    "dataset=/tmp/evil",
    "dataset={_target_: os.system}",
    "dataset=[digits]",
    "zzz@seed=3",
    "seed",
    "seed=[1",
    "",
    3,
    None,
    ["seed=1"],
    {"seed": 1},
]


@pytest.mark.parametrize("override", HOSTILE, ids=repr)
def test_overrides_of_a_stranger(override: Any) -> None:
    with pytest.raises(UserError, match="refused"):
        check_foreign(override, groups(), Path("run.json"))


def test_a_strangers_run_is_refused_as_a_whole(
    folder: Path, seen: dict[str, Any], capfd: pytest.CaptureFixture[str]
) -> None:
    run = make_run(folder, ["seed=1", "hydra.run.dir=/tmp/x"])
    assert cli.main(["retrain", f"from={run}"]) == 2
    assert "refused" in capfd.readouterr().err
    assert seen == {}


@pytest.mark.few(5)
@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("run.json", None),
        ("architecture.json", None),
        ("run.json", "{"),
        ("run.json", "[1]"),
        ("run.json", "\udcff"),
        ("run.json", "[" * 100_000),
        ("run.json", '{"task": "search", "overrides": "seed=1", "config": {}}'),
        ("run.json", '{"task": 3, "overrides": [], "config": {}}'),
        ("run.json", '{"task": "search", "overrides": []}'),
        ("architecture.json", "nonsense"),
    ],
)
def test_directories_that_are_no_runs(name: str, content: str | None, folder: Path) -> None:
    run = make_run(folder, ["seed=1"])
    (run / name).unlink()
    if content is not None:
        (run / name).write_text(content, errors="surrogateescape")
    with pytest.raises(UserError) as raised:
        EarlierRun.read(run, "architecture.json", None)
    assert str(run) in str(raised.value)


# The wheel, installed elsewhere.


@pytest.mark.soak  # and in .ci/run
@pytest.mark.skipif(importlib.util.find_spec("hatchling") is None, reason="needs hatchling")
def test_the_installed_wheel_brings_its_configurations(tmp_path: Path) -> None:
    target, elsewhere = tmp_path / "target", tmp_path / "elsewhere"
    elsewhere.mkdir()
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    install = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--quiet"]
    subprocess.run([*install, "--target", str(target), str(wheel)], check=True)
    env = {"PYTHONPATH": str(target)}
    where = "import nasrun.config.groups; print(nasrun.config.groups.conf_dir())"
    printed = subprocess.run(
        [sys.executable, "-c", where],
        cwd=elsewhere,
        env={**os.environ, **env},
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()
    assert printed == str(target / "nasrun" / "conf")
    page = nasrun("--help", cwd=elsewhere, env=env)
    assert page.returncode == 0
    assert "proportional" in page.stdout
    config = nasrun("search", "effort=smoke", "--cfg", "job", cwd=elsewhere, env=env)
    assert config.returncode == 0, config.stderr
    assert "task: search" in config.stdout
    assert list(elsewhere.iterdir()) == []
    search = nasrun("search", "effort=smoke", "threads=1", cwd=elsewhere, env=env)
    assert search.returncode == 0, search.stderr
    assert list(elsewhere.glob("outputs/search/*/result.json"))


def test_a_placed_option_replaces_what_the_earlier_run_said_of_that_place() -> None:
    """And of no other place that has an option of the same group."""
    said = ("evaluator=kl", "evaluator.images=24", "evaluator@rank.truth=standalone")
    said += ("rank.truth.trainer.epochs=6", "trainer.epochs=2")
    run = EarlierRun(Path("x"), "rank", said, {"seed": 0})
    table = ["evaluator@rank.truth=table", "rank.truth.path=x"]
    merged = run.merged(table, None)
    assert merged == ["evaluator=kl", "evaluator.images=24", "trainer.epochs=2", *table]
    composed = compose(["task=rank", *merged])
    assert composed["rank"]["truth"]["path"] == "x" and composed["evaluator"]["images"] == 24
    again = run.merged(["evaluator=supernet"], None)
    assert again == [*said[2:], "evaluator=supernet"]
    assert run.merged(["+trainer.epochs=3"], None) == [*said[:4], "+trainer.epochs=3"]


def test_all_mistakes_of_a_line_are_told_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also where Hydra stops at the first, and with words that cannot be read at all."""
    monkeypatch.chdir(tmp_path)
    built = {"trainer.epochs=0": "trainer.epochs = 0", "sampler.exponent=-9": "sampler.exponent"}
    cases = [
        {**built, "device=tpu": "device=tpu is no device"},
        {**built, "trainer.epoch=3": "did you mean 'trainer.epochs'", "search_algo=nop": "nop"},
        {**built, "seed=[1": "cannot read 'seed=[1'", "seed": "'seed' is no setting"},
    ]
    for case in cases:
        assert cli.main(["search", *case]) == 2
        first, *lines = capsys.readouterr().err.splitlines()
        assert first == f"nasrun: error: {len(case)} mistakes:"
        assert len(lines) == len(case) and all(line.startswith("  ") for line in lines)
        for said in case.values():
            assert sum(said in line for line in lines) == 1, (said, lines)
    assert list(tmp_path.iterdir()) == []


def test_a_single_mistake_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["search", "trainer.epoch=3", "seed=2"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("nasrun: error: there is no setting 'trainer.epoch'")


def test_flops_as_a_value_is_understood(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["search", "sampler.size=flops"]) == 2
    assert "nasrun counts multiply-adds" in capsys.readouterr().err
