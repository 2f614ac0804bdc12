"""Two processes that want a run directory at the same time, many times over."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_lock import check_two_at_once


@pytest.mark.parametrize("left_behind", [False, True])
def test_of_two_that_start_at_once_one_gets_it(tmp_path: Path, left_behind: bool) -> None:
    check_two_at_once(tmp_path, left_behind, 200)
