"""Measure wall-clock seconds and peak memory of the main job, as a user starts it.

python scripts/bench_search.py [OVERRIDES ...]
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table


def main() -> None:
    with tempfile.TemporaryDirectory() as place:
        begin = time.perf_counter()
        command = [sys.executable, "-m", "nasrun", "search", *sys.argv[1:]]
        subprocess.run(command, cwd=place, check=True)
        seconds = time.perf_counter() - begin
        (found,) = Path(place).glob("outputs/search/*/result.json")
        result = json.loads(found.read_text())
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20  # KiB on Linux
    table = Table(title=f"nasrun search {' '.join(sys.argv[1:])}")
    for column in ("seconds", "peak memory (GiB)", "test accuracy (%)"):
        table.add_column(column, justify="right")
    table.add_row(f"{seconds:.1f}", f"{peak:.2f}", f"{100 * result['test_accuracy']:.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()
