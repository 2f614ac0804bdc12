"""Hydra's callback: remembers directories before Hydra makes them, and summarises sweeps."""

from __future__ import annotations

import math
from contextlib import suppress
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from nasrun.cli import reporting
from nasrun.cli.outputs import note
from nasrun.config.compose import quote
from nasrun.run.files import at_home


class Outputs(Callback):
    """The callback; config.yaml registers it."""

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        with suppress(OmegaConfBaseException, TypeError):  # Hydra reports the mistake itself
            _replace_home(config, "run")
            note(Path(config.hydra.run.dir), sweep=False)

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        _replace_home(config, "sweep")
        output = note(Path(config.hydra.sweep.dir), sweep=True)
        output.clear()
        words = list(config.hydra.overrides.task)
        # A recipe may sweep too; values of the command line for the same key win.
        typed = {word.partition("=")[0] for word in words}
        for key, value in (config.hydra.sweeper.get("params") or {}).items():
            words += [] if key in typed else [f"{key}={value}"]
        parsed = OverridesParser.create().parse_overrides(words)
        swept = [override for override in parsed if override.is_sweep_override()]
        output.swept = frozenset(override.get_key_element() for override in swept)
        optimises = "direction" in config.hydra.sweeper
        if optimises and not any(
            word.startswith("hydra.sweeper.direction=") for word in config.hydra.overrides.hydra
        ):
            with open_dict(config), read_write(config):
                config.hydra.sweeper.direction = "maximize"  # of what a job returns, more is better
        if not optimises and all(override.is_discrete_sweep() for override in swept):
            output.jobs = math.prod(len(list(o.sweep_string_iterator())) for o in swept)

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        from nasrun.report.sweep import summarise  # rich tables: only for sweeps

        directory = Path(config.hydra.sweep.dir)
        summarise(directory)
        reporting.after_sweep({"report": config.get("report", True)}, directory)


def _replace_home(config: DictConfig, kind: str) -> None:
    """Replace ``~``, which a recipe's outputs may have, in the directory of a run or a sweep.

    Jobs compose their configuration anew, so a sweep hands it on as an override.
    """
    directory = str(config.hydra[kind].dir)
    if not directory.startswith("~"):
        return
    found = str(at_home(directory))
    with read_write(config):
        config.hydra[kind].dir = found
        config.hydra.overrides.hydra.append(f"hydra.{kind}.dir={quote(found)}")
