"""The commands of the Makefile, and the sample of long tests that a date chooses."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

from chosen import sample

ROOT = Path(__file__).parent.parent
TEST_NAMES = [f"test_a.py::test_{function}[{case}]" for function in "abc" for case in range(12)]


def test_make_lists_its_commands() -> None:
    makefile = (ROOT / "Makefile").read_text()
    (phony,) = re.findall(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    page = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True).stdout  # noqa: S607
    assert re.findall(r"^  make (\w+)  *\w", page, re.MULTILINE) == phony.split()


def test_long_tests_run_on_demand() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["pytest"]
    assert "soak" in settings["ini_options"]["norecursedirs"]
    assert list((ROOT / "tests" / "soak").glob("test_*.py"))


def test_a_date_chooses_always_the_same_and_another_date_others() -> None:
    chosen = sample(TEST_NAMES, 8, "2026-11-25")
    assert len(chosen) == 8
    assert chosen == sample(TEST_NAMES[::-1], 8, "2026-11-25")
    assert chosen != sample(TEST_NAMES, 8, "2026-11-26")
    assert sample(TEST_NAMES, 999, "2026-11-25") == set(TEST_NAMES)


def test_each_function_comes_up_and_in_time_each_case() -> None:
    dates = [f"2026-{month:02}-{day:02}" for month in range(1, 9) for day in range(1, 29)]
    samples = [sample(TEST_NAMES, 3, date) for date in dates]
    for chosen in samples:
        assert {name.partition("[")[0][-1] for name in chosen} == set("abc")
    assert set().union(*samples) == set(TEST_NAMES)
