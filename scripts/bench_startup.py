"""Measure how long commands take until they answer, and what they import for it.

    python scripts/bench_startup.py [--rounds 3] [--cold]

Seconds of CPU, medians of the rounds; cold: seconds on the clock with none of the environment's
files in memory, as after a boot (as far as no other process holds them). The packages are those
that are slow to import.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

SLOW = ("torch", "torchvision", "scipy", "matplotlib", "hydra", "pydantic", "numpy", "rich", "PIL")
"""Packages that take more than 20 ms to import."""

COMMAND = """
import atexit, sys
from nasrun.cli.main import main

def say():
    print(*[name for name in {slow!r} if name in sys.modules], file=sys.stderr)

{before}
atexit.register(say)
sys.exit(main({words!r}))
"""

UNTIL_FIRST_STEP = """
from nasrun.trainer import step

whole = step.BatchGradients.add

def add(self, *arguments, **named):
    whole(self, *arguments, **named)
    say()
    sys.stderr.flush()
    __import__("os")._exit(0)

step.BatchGradients.add = add
"""

COMMANDS = {
    "python itself": None,
    "nasrun --version": ["--version"],
    "nasrun --help": ["--help"],
    "nasrun search --help": ["search", "--help"],
    "nasrun help sampler=fair": ["help", "sampler=fair"],
    "nasrun runs": ["runs", "outputs=."],
    "nasrun search --cfg job": ["search", "--cfg", "job"],
    "nasrun search, to its first step": ["search", "effort=smoke", "hydra.run.dir=run"],
}


@dataclass(frozen=True)
class Answer:
    """What a command took: seconds of CPU and on the clock, and the slow packages it imported."""

    cpu: float
    clock: float
    imported: str


def evict() -> None:
    """Have the system forget the contents of the environment's files."""
    for place in {sys.prefix, str(Path(__file__).parents[1])}:
        for path in Path(place).rglob("*"):
            if path.suffix in (".py", ".pyc", ".so", ".yaml") and path.is_file():
                handle = os.open(path, os.O_RDONLY)
                os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
                os.close(handle)


def measure(words: list[str] | None, first_step: bool) -> Answer:
    """Run a command in a process of its own."""
    before = UNTIL_FIRST_STEP if first_step else ""
    code = "pass" if words is None else COMMAND.format(slow=SLOW, before=before, words=words)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory() as place, tempfile.TemporaryFile() as said:
        began = time.monotonic()
        process = subprocess.Popen(
            [sys.executable, "-c", code],
            cwd=place,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=said,
        )
        _, status, usage = os.wait4(process.pid, 0)
        clock = time.monotonic() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        said.seek(0)
        lines = said.read().decode().splitlines()
    if process.returncode:
        raise SystemExit("\n".join(lines))
    return Answer(usage.ru_utime + usage.ru_stime, clock, lines[-1] if lines else "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cold", action="store_true")
    wanted = parser.parse_args()
    table = Table("command", "CPU s", *(["cold, clock s"] if wanted.cold else []), "imports")
    for name, words in COMMANDS.items():
        first_step = name.endswith("first step")
        cold = []
        if wanted.cold:
            evict()
            cold = [f"{measure(words, first_step).clock:.2f}"]
        found = [measure(words, first_step) for _ in range(wanted.rounds)]
        cpu = statistics.median(answer.cpu for answer in found)
        table.add_row(name, f"{cpu:.2f}", *cold, found[-1].imported)
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
