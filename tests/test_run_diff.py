"""Runs side by side: known differences."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from runs import make_run, make_sweep

from nasrun.cli.main import main

SAMPLERS = [
    {"_target_": f"nasrun.sampler.{name}.X{name}", "size": name, f"of_{name}": 1} for name in "ab"
]


@pytest.fixture
def outputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    for number, name in enumerate(("one", "two")):
        result = {
            "test_accuracy": 0.75 + number / 8,
            "own": 3.0,
            "architecture": {"space": "s", "choices": [0, 1 + number, 2]},
            "spent": {"images": 1000 * (1 + number)},
        }
        settings = {"sampler": SAMPLERS[number], "trainer": {"epochs": 1 + number, "lr": 0.5}}
        make_run(tmp_path / "outputs" / name, name=name, result=result, **settings)
    return tmp_path / "outputs"


def test_what_differs_and_nothing_else(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diff", "one", "two", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["runs"] == [str(outputs / "one"), str(outputs / "two")]
    assert found["settings"] == {
        "sampler._target_": ["nasrun.sampler.a.Xa", "nasrun.sampler.b.Xb"],
        "sampler.size": ["a", "b"],
        "sampler.of_a": [1, None],
        "sampler.of_b": [None, 1],
        "trainer.epochs": [1, 2],
    }
    assert found["results"]["test_accuracy"] == [0.75, 0.875]
    assert found["differences"]["test_accuracy"] == [0.125]
    assert found["differences"]["spent_images"] == [1000]
    assert found["made_with"] == {}


def test_the_screen(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diff", "one", "two"]) == 0
    shown = capsys.readouterr().out
    lines = [" ".join(line.split()) for line in shown.splitlines()]
    assert "sampler (and 2 settings of one alone) Xa Xb" in lines
    assert {"sampler.size a b", "trainer.epochs 1 2", "test % 75.00 87.50 +12.50"} <= set(lines)
    assert "images 1,000 2,000 +1,000" in lines and "made with: no difference" in lines
    assert "architecture: 1 of 3 decisions differ" in lines
    assert f"side by side: nasrun report {outputs / 'one'} {outputs / 'two'}" in shown
    assert "trainer.lr" not in shown


def test_intervals_and_absent_numbers(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kendall = {"value": 0.5, "low": 0.25, "high": 0.75}
    ranking = {"epochs": {"1": {"agreement": {"kendall": kendall}}}, "noise_ceiling": {}}
    ranked = make_run(outputs / "ranked", task="rank", name="three", result={"kendall": 0.5})
    (ranked / "ranking.json").write_text(json.dumps(ranking))
    assert main(["diff", "one", "three", "two"]) == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert "τ-b - 0.500 (0.250 to 0.750) -" in lines
    assert "test % 75.00 - 87.50" in lines


def test_mistakes(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (outputs / "empty").mkdir()
    make_sweep(outputs / "m", None)
    for words, said in (
        (["one"], "diff takes 2 to 12 runs"),
        (["one", "to"], "did you mean 'two'"),
        (["one", "two", "seed=1"], "diff takes 2 to 12 runs"),
        (["one", "outputs/empty"], "is this the directory of a run?"),
        (["one", "m"], "has no finished job"),
        (["one", "two", "--csv"], "unknown switch --csv"),
    ):
        assert main(["diff", *words]) == 2
        assert said in capsys.readouterr().err, words
