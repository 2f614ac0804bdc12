"""Words that name a run: which run they find, and what is said."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from runs import make_run, make_sweep

from nasrun.cli.main import main
from nasrun.cli.resume import apply, run_name
from nasrun.cli.run_names import best_job, resolve
from nasrun.config.compose import check_name, compose
from nasrun.errors import UserError


@pytest.fixture
def outputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path / "outputs"


def test_a_path_stands_for_itself_even_if_a_run_has_its_name(outputs: Path) -> None:
    make_run(outputs / "search" / "a", name="here")
    place = make_run(outputs.parent / "here")
    assert resolve("here") == place
    assert resolve(str(place)) == place
    with pytest.raises(UserError, match="no such directory"):
        resolve("./nowhere")


def test_latest_is_the_newest_that_has_the_file(
    outputs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UserError, match="there is no run below outputs"):
        resolve("latest")
    made = ("architecture.json",)
    new = make_run(outputs / "search" / "0_new", minute=9, files=made)
    make_run(outputs / "search" / "z_old", minute=1, files=made)
    newest = make_run(outputs / "supernet" / "x", minute=20, task="supernet")
    assert resolve("latest") == newest
    assert resolve("latest", needed="architecture.json") == new
    assert capsys.readouterr().err.splitlines()[1] == f"nasrun: note: latest is {new}"
    with pytest.raises(UserError, match="no run below outputs has a network"):
        resolve("latest", needed="network.safetensors")


def test_a_name_is_the_newest_of_that_name(
    outputs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_run(outputs / "search" / "a", name="baseline", minute=3)
    new = make_run(outputs / "rank" / "2026-11-26_04-28-28-123456", name="baseline", minute=5)
    assert resolve("baseline") == new
    assert "2 runs are called baseline" in capsys.readouterr().err
    assert resolve("123456") == resolve(new.name) == new
    with pytest.raises(UserError, match=r"did you mean 'baseline'\?\); `nasrun runs`"):
        resolve("baselin")
    with pytest.raises(UserError, match="did you mean 'latest'"):
        resolve("latst")
    with pytest.raises(UserError, match=r"has no front.json yet.*nasrun resume .*123456"):
        resolve("baseline", needed="front.json")


def test_a_sweep_stands_for_its_best_job_by_validation_images(
    outputs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = make_sweep(outputs / "search" / "multirun_x", 0.5, 0.75, None, 0.25, name="many")
    for word in (str(sweep), "many", "multirun_x", "latest"):
        assert resolve(word) == sweep / "1"
    told = "taking job 1 (seed=1), the best of 3 by validation_accuracy (0.7500)"
    assert capsys.readouterr().err.count(told) == 4
    assert resolve("many", best=False) == sweep
    (sweep / "3" / "front.json").write_text("{}")
    assert resolve("many", needed="front.json") == sweep / "3"


def test_no_job_is_chosen_by_test_images(outputs: Path) -> None:
    images = {"retrain": {"images": "train+validation", "truth": None}}
    sweep = make_sweep(outputs / "m", 0.5, 0.75, task="retrain", **images)
    with pytest.raises(UserError, match=r"no score in common.*name one, e.g. .*m/0"):
        best_job(sweep)
    with pytest.raises(UserError, match=r"no finished job.*nasrun resume"):
        best_job(make_sweep(outputs / "n", None, None))


def test_from_takes_a_name_and_records_a_path(
    outputs: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words = ["effort=smoke", "name=fine", "seed=3"]
    config = compose([*words, "task=search"])
    run = make_run(outputs / "a" / "b", *words, name="fine", files=("architecture.json",))
    record = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**record, "config": config}))
    assert main(["retrain", "from=fine", "--cfg", "job"]) == 0
    out = capfd.readouterr().out
    assert f"from: {run} " in out
    assert "name: null " in out  # a name is not inherited
    assert "seed: 3 " in out
    assert main(["retrain", "from=latest", "resume=auto", "--cfg", "job"]) == 2
    assert "the latest run is another one" in capfd.readouterr().err
    assert main(["retrain", "from=fin"]) == 2
    assert "did you mean 'fine'" in capfd.readouterr().err


def test_names_can_be_typed() -> None:
    for name in (None, "a", "größe", "nao-v2_1.5+x", 7, "x" * 60):
        check_name(name, None)
    for name in ("", "latest", "a/b", "-m", "a b", "x" * 61, True, ["a"], "a\x1b[2J", "=1"):
        with pytest.raises(UserError, match="a run's name has up to 60"):
            check_name(name, None)
    check_name(None, "second try: a wider stem, 50 %")
    for notes in ("two\nlines", "x" * 501, ["a"]):
        with pytest.raises(UserError, match="notes"):
            check_name(None, notes)


def test_a_name_makes_another_run_of_the_same_line_and_notes_do_not() -> None:
    words = ["seed=3", "sampler=uniform"]
    assert run_name("search", [*words, "notes='a b'"], None) == run_name("search", words, None)
    assert run_name("search", [*words, "name=x"], None) != run_name("search", words, None)
    settings = {"name": "x", "notes": None, "seed": 3}
    assert apply(settings, {"name": "y", "notes": "z"}, ()) == {"name", "notes"}
    assert settings == {"name": "y", "notes": "z", "seed": 3}
