"""The space and the sampler keep the laws of their kinds."""

from __future__ import annotations

from nasrun_plugin.my_sampler import MySampler
from nasrun_plugin.my_space import MySpace

from nasrun.testing import check_sampler, check_space
from nasrun.values import Problem

SPACE = MySpace(search=4, final=6)


def test_my_space() -> None:
    check_space(SPACE, Problem(channels=3, size=8, classes=5))
    check_space(SPACE, Problem(channels=1, size=5, classes=3))


def test_my_sampler() -> None:
    sampler = MySampler(candidates=3, size="macs")
    check_sampler(sampler, SPACE, Problem(channels=3, size=8, classes=5))
