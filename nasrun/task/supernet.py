"""``nasrun supernet``: train a supernet of the whole space, for later searches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nasrun.dataset.base import Splits
from nasrun.errors import UserError
from nasrun.run.commands import command, shown
from nasrun.run.run import Run
from nasrun.run.stages import PlannedStage
from nasrun.task.base import Task
from nasrun.task.scoring import SameImages
from nasrun.task.setup import Setup
from nasrun.task.stages import supernet_stage, typical_macs
from nasrun.task.supernet_stage import WHOLE_SPACE, SupernetStage


class SupernetTask(Task):
    """Train the supernet of a search with a single round, without searching."""

    def stages(self, setup: Setup, splits: Splits) -> list[PlannedStage]:
        """Plan the one training."""
        macs = typical_macs(setup.search_space, splits.problem)
        return [supernet_stage(setup, 0, len(splits.train), macs)]

    def run(self, setup: Setup, run: Run, source: Path | None) -> dict[str, Any]:
        """Train the supernet, or finish its training.

        Raises UserError if the search algorithm trains pools of architectures, which depend on the
        search, or learns its gates: then there is no single supernet to train.
        """
        name = type(setup.search_algo).__name__
        if setup.search_algo.trains_pool:
            raise UserError(
                f"search_algo {name} trains a pool of architectures, round "
                "by round, so its supernet cannot be trained alone: choose search_algo=evolution, "
                "random or nsga2, or run the whole search"
            )
        if setup.search_algo.learns_gates:
            raise UserError(
                f"search_algo {name} learns its gates while the supernet "
                "trains, so its supernet cannot be trained alone: run the whole search"
            )
        splits = setup.load(run)
        setup.check_gates()
        supernet = SupernetStage(setup, run, splits)
        run.expect(self.stages(setup, splits))
        run.begin()
        run.keep("images", SameImages(splits))
        supernet.keep()
        supernet.train(WHOLE_SPACE)
        steps = setup.trainer.epochs * splits.train.steps_per_epoch(setup.trainer.batch_size)
        result = run.finish({"steps": steps})
        supernet.say_health()
        where = f"from={shown(run.directory)}"
        run.show_end(
            "supernet trained",
            [("training", f"{steps:,} steps on {len(splits.train):,} images")],
            [command("search", where), command("rank", where)],
        )
        return result
