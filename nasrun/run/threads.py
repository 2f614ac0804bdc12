"""Threads that wait: they sleep, so that other processes have the cores."""

from __future__ import annotations

import os

WAITING = {
    "OMP_WAIT_POLICY": "passive",  # the standard's word, of all libraries
    "GOMP_SPINCOUNT": "0",  # GNU's OpenMP, in torch's wheels for Linux
    "KMP_BLOCKTIME": "0",  # LLVM's and Intel's OpenMP, in other builds of torch; milliseconds
}
"""Variables of the environment by which waiting threads sleep at once instead of spinning.

A thread that spins holds a core which the thread it waits for may need. Beside one busy process two
threads on two cores are so several times slower than one (``scripts/bench_threads.py``).
"""


def sleep_while_waiting() -> None:
    """Have the threads of OpenMP sleep as they wait, unless the user has chosen what they do.

    It has an effect only before torch is imported: OpenMP reads its environment as it is loaded.
    """
    if not any(name in os.environ for name in WAITING):
        os.environ.update(WAITING)
