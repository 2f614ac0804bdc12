"""Files that are not ours: what they may say of Hydra's own configuration, and what not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra.errors import HydraException

from nasrun.cli.main import main
from nasrun.config.compose import compose
from nasrun.errors import UserError

TARGET = {"_target_": "subprocess.Popen", "args": "touch canary"}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(path: str, content: Any, package: str | None = "_global_") -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    text = content if isinstance(content, str) else yaml.safe_dump(content)
    Path(path).write_text(f"# @package {package}\n{text}" if package else text)


def recipe(hydra: Any, **more: Any) -> None:
    write("cd/experiment/theirs.yaml", {"hydra": hydra, **more})


def composed() -> dict[str, Any]:
    return compose(["task=search", "experiment=theirs"], "cd")


REFUSED: dict[str, Any] = {
    "environment": {"job": {"env_set": {"NASRUN_TRUST": "os"}}},
    "copied environment": {"job": {"env_copy": ["HOME"]}},
    "working directory": {"job": {"chdir": True}},
    "name": {"job": {"name": "../x"}},
    "callback": {"callbacks": {"x": TARGET}},
    "callbacks gone": {"callbacks": None},
    "launcher": {"launcher": TARGET},
    "setup of a launcher": {"launcher": {"setup": ["touch canary"]}},
    "sweeper": {"sweeper": TARGET},
    "storage": {"sweeper": {"storage": "sqlite:///x"}},
    "logging": {"job_logging": {"root": {"handlers": ["x"]}}},
    "files of hydra": {"output_subdir": ".hydra"},
    "search path": {"searchpath": ["file:///tmp"]},
    "help": {"help": {"template": "x"}},
    "verbose": {"verbose": True},
    "another node": "${theirs}",
    "another node for a part": {"run": "${theirs}"},
    "another node for parameters": {"sweeper": {"params": "${theirs}"}},
    "nothing": None,
    "no text": {"run": {"dir": {"x": 1}}},
    **{
        f"parameter {key}": {"sweeper": {"params": {key: "1,2"}}}
        for key in (
            *("hydra.job.env_set.X", "+hydra.callbacks.x._target_", "++hydra.searchpath"),
            *("hydra/launcher", "dataset@hydra.job", "~hydra.callbacks", "hydra.job={a: b}, x"),
            "seed=1\nhydra.run.dir",
        )
    },
}


@pytest.mark.few(4)
@pytest.mark.parametrize("name", REFUSED)
def test_what_a_recipe_may_not_say(name: str) -> None:
    recipe(REFUSED[name], theirs={"dir": "x", "job": {"env_set": {"X": "y"}}})
    # Hydra refuses by itself what does not fit its own configuration.
    said = r"(?s)experiment/theirs.* hydra.*: a file may set only|'experiment/theirs': .*hydra"
    with pytest.raises((UserError, HydraException), match=said):
        composed()


def test_what_a_recipe_may_say() -> None:
    params = {"sampler": "uniform", "trainer.epochs": "5,6", "seed": 3}
    params |= {"architectures@rank.architectures": "uniform,similar_size"}
    hydra = {"run": {"dir": "x/${seed}"}, "sweep": {"dir": "y", "subdir": "z"}}
    chosen = [{"override /hydra/launcher": "basic"}, {"override /hydra/sweeper": "basic"}]
    recipe(hydra | {"sweeper": {"params": params, "max_batch_size": 4}}, defaults=chosen)
    assert composed()["seed"] == 0


@pytest.mark.few(5)
@pytest.mark.parametrize(
    ("defaults", "files"),
    [
        (["override /hydra/job_logging: default"], {}),
        (["override /hydra/callbacks: x"], {"hydra/callbacks/x": {"x": TARGET}}),
        (["override /hydra/launcher: x"], {"hydra/launcher/x": TARGET}),
        (["override /hydra/launcher: ../../../x"], {"../x": TARGET}),
        ([], {"hydra/launcher/basic": {"_target_": "os.system"}}),  # in place of Hydra's own
        (["/dataset@hydra.job.env_set: digits"], {}),
        (["/more@hydra.job: x"], {"more/x": {"env_set": {"X": "y"}}}),
        (["/hydra/job_logging@hydra.callbacks: default"], {}),
        (["/more: x"], {"more/x": {"hydra": {"verbose": True}}}),
        (["//{here}/outside@_global_"], {"../outside": {"hydra": {"verbose": True}}}),
        (["/../../{up}/outside@_global_"], {"../outside": {"hydra": {"verbose": True}}}),
    ],
    ids=str,
)
def test_what_a_recipe_may_not_choose(
    defaults: list[str], files: dict[str, Any], here: Path
) -> None:
    for name, content in files.items():
        write(f"cd/{name}.yaml", content, "_global_" if "hydra" in content else None)
    up = "/".join([".."] * 20) + str(here)
    filled = [entry.format(here=str(here)[1:], up=up) for entry in defaults]
    entries = [dict([entry.split(": ")]) if ": " in entry else entry for entry in filled]
    write("cd/experiment/theirs.yaml", {"defaults": entries})
    with pytest.raises(UserError, match="a file may set only"):
        composed()


def test_a_package_within_a_header() -> None:
    write("cd/experiment/theirs.yaml", {"env_set": {"X": "y"}}, "hydra.job")
    with pytest.raises(UserError, match="a file may set only"):
        composed()


@pytest.mark.parametrize("switches", [["-cn", "theirs"], ["-cp", "{here}/cd", "-cn", "theirs"]])
def test_a_primary_file_that_is_not_ours(
    switches: list[str], here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write("cd/theirs.yaml", {"defaults": ["_self_"], "hydra": {"searchpath": ["pkg://evil"]}})
    words = [word.format(here=here) for word in switches]
    assert main(["search", "-cd", "cd", *words, "--cfg", "job"]) == 2
    assert "theirs.yaml: hydra.searchpath: a file may set only" in capsys.readouterr().err


def test_no_program_of_a_recipe_runs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither alone nor in a sweep; and the command line keeps all its rights."""
    git = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "core.fsmonitor"}
    recipe({"job": {"env_set": {**git, "GIT_CONFIG_VALUE_0": "touch canary"}}})
    for more in ([], ["-m", "seed=0,1"]):
        assert main(["search", "-cd", "cd", "experiment=theirs", "effort=smoke", *more]) == 2
        said = capsys.readouterr().err
        assert "hydra.job.env_set" in said and said.count("\n") == 1
    assert not Path("outputs").exists() and not Path("canary").exists()
    assert main(["search", "hydra.job.chdir=true", "hydra.verbose=true", "--cfg", "hydra"]) == 0
    assert "chdir: true" in capsys.readouterr().out
