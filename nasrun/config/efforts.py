"""Register the settings of an effort: a YAML file per group, with a section per option."""

from __future__ import annotations

from functools import cache
from typing import Any, cast

from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf

from nasrun.config.groups import conf_dir


@cache
def register_efforts() -> None:
    """Store section OPTION of ``effort/smoke/GROUP.yaml`` as ``effort/smoke/GROUP/OPTION``.

    Hydra chooses among files by their names, not among the sections of a file. A file of that
    name in a folder of the user wins over a section.
    """
    store = ConfigStore.instance()
    for path in sorted((conf_dir() / "effort").glob("*/[!_]*.yaml")):
        group = path.relative_to(conf_dir()).with_suffix("").as_posix()
        sections = cast(dict[str, Any], OmegaConf.to_container(OmegaConf.load(path)))
        for option, settings in sections.items():
            store.store(group=group, name=option, node=settings, provider="nasrun")
