"""Every recipe's smoke, as a user types it."""

from __future__ import annotations

from pathlib import Path

import pytest
from kills import RECIPES
from processes import Processes
from smokes import check_smoke

from nasrun.config.groups import task_of_recipe


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_runs_as_a_smoke(recipe: str, processes: Processes, tmp_path: Path) -> None:
    task = task_of_recipe(recipe)
    done = processes.run(tmp_path, task, f"experiment={recipe}", "effort=smoke", "threads=1")
    (directory,) = (tmp_path / "outputs" / task).iterdir()
    check_smoke(done, directory, task)
