"""Build the setup of a run, and any other object that a composed configuration names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any, cast

from nasrun.building.build import build, call

if TYPE_CHECKING:
    from nasrun.task.setup import Setup

__all__ = ["build", "build_setup", "call"]


def build_setup(config: Mapping[str, Any]) -> Setup:
    """Build the setup of a run; ignores other keys of ``config``."""
    from nasrun.task.setup import Setup  # imported here since it imports torch

    names = [field.name for field in fields(Setup)]
    return cast("Setup", call(Setup, {name: config[name] for name in names if name in config}, ""))
