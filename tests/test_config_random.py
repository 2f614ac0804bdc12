"""Random overrides over the whole schema, and small runs of any kind; tests/soak/ has more."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from random_commands import check_line, check_small_run, each_of, no_task, place  # noqa: F401
from random_lines import any_line


@pytest.mark.soak
@pytest.mark.usefixtures("no_task")
@each_of(4)
@given(words=any_line())
def test_any_override_is_valid_or_gets_one_clear_line(words: list[str], place: Path) -> None:  # noqa: F811
    check_line(words, place)


@pytest.mark.soak
@pytest.mark.parametrize("number", range(3))
def test_small_runs_of_every_kind(number: int, place: Path) -> None:  # noqa: F811
    check_small_run(number, place)
