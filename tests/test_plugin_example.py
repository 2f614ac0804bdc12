"""The package in examples/plugin: it keeps its laws and runs, without being installed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PLUGIN = ROOT / "examples" / "plugin"
ENVIRONMENT = {"PYTHONPATH": f"{ROOT}{os.pathsep}{PLUGIN}", "OMP_NUM_THREADS": "1"}


def run(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *words],
        cwd=PLUGIN,
        env={**os.environ, **ENVIRONMENT, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.soak
def test_its_own_tests_pass() -> None:
    done = run("pytest", "-q", "-p", "no:cacheprovider", "tests")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.soak
def test_the_line_of_its_readme_runs(tmp_path: Path) -> None:
    readme = (PLUGIN / "README.md").read_text()
    (line,) = [line for line in readme.splitlines() if line.startswith("NASRUN_TRUST")]
    trust, program, *words = line.split()
    assert program == "nasrun"
    words += ["threads=1", f"hydra.run.dir={tmp_path}/run"]
    done = run("nasrun", *words, NASRUN_TRUST=trust.partition("=")[2])
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["architecture"]["space"] == "my_space"
    refused = run("nasrun", *words[:-1], f"hydra.run.dir={tmp_path}/refused", NASRUN_TRUST="")
    assert refused.returncode == 2 and "NASRUN_TRUST=PACKAGE" in refused.stderr
