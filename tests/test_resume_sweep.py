"""``nasrun resume SWEEP_DIR``: what is missing is done, and a file is not believed."""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]
from helpers import as_job

from nasrun.cli import main as cli
from nasrun.cli.resume_sweep import MAX_VALUES, check_swept, read_line
from nasrun.config.groups import groups
from nasrun.errors import Interrupted, UserError

LINE = ["search", "-m", "effort=smoke", "sampler=uniform,fair", "seed=0,1", "hydra.sweep.dir=s"]


@pytest.fixture
def ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Jobs that end at once, the third of which is stopped the first time; tells who has run."""
    monkeypatch.chdir(tmp_path)
    begun: list[str] = []
    left = [1, 1, 0]  # whether each of the first jobs ends

    def job(composed: Any) -> None:
        place = cli.job_directory(composed)
        if (place / "result.json").exists():
            return
        begun.append(f"{place.name} {' '.join(cli.own_overrides()[1:3])}")
        record = {"task": "search", "overrides": cli.own_overrides()}
        inode = place.stat().st_ino
        (place / "run.json").write_text(json.dumps({**record, "inode": inode}))
        if left and not left.pop(0):
            raise Interrupted(signal.SIGTERM, str(place))
        (place / "result.json").write_text('{"status": "done", "score": 1}')

    monkeypatch.setattr(cli, "job", as_job(job))
    return begun


@pytest.fixture
def stopped(
    ended: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> tuple[Path, list[str]]:
    assert cli.main(LINE) == 143
    sweep = tmp_path / "s"
    told = f"told to stop (SIGTERM); all work is saved, go on with: nasrun resume {sweep}\n"
    assert capfd.readouterr().err == f"nasrun: {told}"
    assert len(ended) == 3
    del ended[:2]
    return sweep, ended


@pytest.mark.soak
def test_all_that_is_missing_is_done(
    stopped: tuple[Path, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep, ended = stopped
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert cli.main(["resume", "../s", "threads=1"]) == 0
    assert ended[1:] == ["2 sampler=fair seed=0", "3 sampler=fair seed=1"]
    assert Path.cwd() == elsewhere and not list(elsewhere.iterdir())
    assert len(list(sweep.glob("*/result.json"))) == 4
    assert cli.main(["resume", str(sweep)]) == 0
    assert len(ended) == 3
    monkeypatch.chdir(tmp_path)
    assert cli.main([*LINE[:4], "seed=0,1,2", *LINE[5:], "resume=auto"]) == 0  # also with more
    assert ended[3:] == ["4 sampler=uniform seed=2", "5 sampler=fair seed=2"]


# Without running anything: the line that the record stands for.


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """A sweep with one job, as Hydra records it in short."""
    place = tmp_path / "s"
    (place / "0").mkdir(parents=True)
    record = {"task": "search", "overrides": ["seed=0"], "inode": (place / "0").stat().st_ino}
    (place / "0" / "run.json").write_text(json.dumps(record))
    overrides = {
        "hydra": ["hydra.sweep.dir=s", "hydra.mode=MULTIRUN", "hydra/launcher=joblib"],
        "task": ["effort=smoke", "sampler=uniform,fair", "resume=auto", "seed=0,1", "task=search"],
    }
    runtime = {"cwd": str(tmp_path), "config_sources": [{"path": "x", "provider": "main"}]}
    hydra = {"runtime": runtime, "overrides": overrides}
    (place / "multirun.yaml").write_text(yaml.safe_dump({"hydra": hydra, "task": "search"}))
    return place


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, Path]]:
    """The lines that would be run, and in which directory."""
    found: list[tuple[Any, Path]] = []

    def hydra_main(line: Any, *, ready: bool) -> int:
        found.append((line, Path.cwd()))
        return 0

    monkeypatch.setattr(cli, "hydra_main", hydra_main)
    return found


def rewritten(sweep: Path, **changes: Any) -> None:
    record = yaml.safe_load((sweep / "multirun.yaml").read_text())
    overrides = record["hydra"]["overrides"]
    overrides |= {key: overrides[key] + words for key, words in changes.items()}
    (sweep / "multirun.yaml").write_text(yaml.safe_dump(record))


def test_the_line_is_given_again(sweep: Path, given: list[tuple[Any, Path]]) -> None:
    rewritten(sweep, hydra=["hydra.sweeper.n_trials=3"], task=["threads=1"])
    assert cli.main(["resume", str(sweep), "threads=2", "hydra.launcher.n_jobs=2"]) == 0
    ((line, place),) = given
    assert place == sweep.parent
    assert (line.task, line.switches) == ("search", ("-m",))
    assert line.overrides == (
        *("effort=smoke", "sampler=uniform,fair", "seed=0,1"),
        *("hydra/launcher=joblib", "hydra.sweeper.n_trials=3", "threads=2"),
        *("hydra.launcher.n_jobs=2", f"hydra.sweep.dir='{sweep}'", "resume=auto"),
    )


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"task": ["+evil=1"]}, "only plain KEY=VALUE.*repeat the line: nasrun search -m"),
        ({"task": ["seed=${oc.env:HOME}"]}, "only plain KEY=VALUE"),
        ({"task": ["hydra.job.chdir=true"]}, "touches Hydra's own configuration"),
        ({"task": ["sampler=uniform,../../x"]}, "has no such option"),
        ({"task": ["seed=range(0,99999999999)"]}, f"it has over {MAX_VALUES:,} values"),
        ({"task": ["seed=shuffle(range(0,99999999999))"]}, "a shuffled range"),
        ({"hydra": ["hydra.callbacks.x._target_=os.system"]}, "is not taken from a file"),
        ({"hydra": ["hydra/launcher=a/../b"]}, "is not taken from a file"),
        ({"hydra": ["hydra.launcher.n_jobs=2"]}, r"nasrun resume .*/s hydra.launcher.n_jobs=2"),
        ({"hydra": ["hydra.searchpath=[file://x]"]}, "is not taken from a file"),
    ],
)
def test_what_a_record_may_not_say(
    sweep: Path,
    given: list[tuple[Any, Path]],
    changes: dict[str, list[str]],
    reason: str,
    capfd: pytest.CaptureFixture[str],
) -> None:
    rewritten(sweep, **changes)
    assert cli.main(["resume", str(sweep)]) == 2
    error = capfd.readouterr().err
    assert error.count("\n") == 1
    assert re.search(reason, error), error
    assert not given


def test_a_copy_is_not_believed_but_its_line_is_told(
    sweep: Path, given: list[tuple[Any, Path]], capfd: pytest.CaptureFixture[str]
) -> None:
    record = json.loads((sweep / "0" / "run.json").read_text())
    (sweep / "0" / "run.json").write_text(json.dumps({**record, "inode": 1}))
    assert cli.main(["resume", str(sweep)]) == 2
    told = "nasrun search -m effort=smoke sampler=uniform,fair seed=0,1 "
    assert told in capfd.readouterr().err
    (sweep / "0" / "run.json").unlink()  # nothing says whose it is
    assert cli.main(["resume", str(sweep)]) == 2
    assert not given


def test_only_the_machine_may_change(
    sweep: Path, given: list[tuple[Any, Path]], capfd: pytest.CaptureFixture[str]
) -> None:
    for word in ("seed=5", "trainer.epochs=9", "device=cpu,cuda", "hydra.sweep.dir=x"):
        assert cli.main(["resume", str(sweep), word]) == 2
        assert "a sweep goes on with its own settings" in capfd.readouterr().err
    assert cli.main(["resume", str(sweep), "-m"]) == 2
    assert "no switch like -m" in capfd.readouterr().err
    assert not given


@pytest.mark.parametrize(
    "content",
    [
        *("", "[1]", "x: 1", "hydra: {overrides: {task: [1]}}", "{" * 1200, "!!python/name:os.x"),
        "a: &a [x]\nb: [*a, *a]\n",
    ],
)
def test_a_damaged_record(tmp_path: Path, content: str) -> None:
    (tmp_path / "multirun.yaml").write_text(content)
    with pytest.raises(UserError, match=r"multirun.yaml (cannot be read|is no)") as error:
        read_line(tmp_path)
    assert "\n" not in str(error.value)


def test_values_of_a_sweep() -> None:
    for word in ("seed=0,1", "seed=range(3)", "x.y=interval(0,1)", "sampler=uniform,fair", "a=b"):
        check_swept(word, groups(), Path("f"))
    for word in ("hydra.x=0,1", "hydra.x=interval(0,1)", "sampler=x,uniform", "+a=1,2"):
        with pytest.raises(UserError, match="refused the override"):
            check_swept(word, groups(), Path("f"))
