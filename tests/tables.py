"""Benchmark tables as published, where they are at hand; nothing is downloaded."""

from __future__ import annotations

import csv
import gzip
import os
from pathlib import Path

import pytest

DATA = Path(os.environ.get("NASRUN_DATA", Path(__file__).parents[2] / "shared" / "data"))
MACRO = DATA / "tables" / "nas_bench_macro_cifar10.csv.gz"
NB201 = DATA / "tables" / "nasbench201.csv.gz"


def rows(path: Path) -> list[dict[str, str]]:
    """The rows of a table; the test is skipped where it is absent."""
    if not path.is_file():
        pytest.skip(f"no {path.name} in {path.parent}")
    with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))
