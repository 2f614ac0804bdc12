"""Random overrides over the whole schema, and small runs of any kind, many of each."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, seed
from random_commands import check_line, check_small_run, each_of, no_task, place  # noqa: F401
from random_lines import any_line


@pytest.mark.usefixtures("no_task")
@pytest.mark.parametrize("number", range(20))
def test_any_override_is_valid_or_gets_one_clear_line(number: int, place: Path) -> None:  # noqa: F811
    @seed(number)
    @each_of(100)
    @given(words=any_line())
    def check(words: list[str]) -> None:
        check_line(words, place)

    check()


@pytest.mark.parametrize("number", range(60))
def test_small_runs_of_every_kind(number: int, place: Path) -> None:  # noqa: F811
    check_small_run(number, place)
