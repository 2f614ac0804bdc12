"""Runs nasrun in processes that are forked from one that has imported torch already.

A program of its own: the tests' process may have used a GPU or started threads, after which torch
cannot be forked. It reads one order in JSON from each line of its input: where to run (the
directory), what to type, and the faults to be had, by name. It answers with the exit status.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
from importlib import import_module
from pkgutil import walk_packages
from typing import Any

# Imported here, once, as every run needs it.
import hydra.core.hydra_config  # noqa: F401
import matplotlib.backends.backend_agg
import matplotlib.backends.backend_svg
import matplotlib.pyplot  # noqa: F401
import scipy.stats  # noqa: F401
import torch._dynamo  # noqa: F401
from faults import ENDINGS, FAULTS
from hydra._internal.hydra import Hydra

import nasrun.cli.main
import nasrun.cli.reporting

DEADLOCK_SECONDS = 3600
"""After which a child is killed: no test takes so long, on however busy a machine."""


def child(order: dict[str, Any]) -> int:
    os.chdir(order["place"])
    for number, name in enumerate(("out", "err"), 1):
        handle = os.open(order[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(handle, number)
    signal.alarm(DEADLOCK_SECONDS)
    for name, arguments in order["faults"]:
        FAULTS[name](*arguments)
    status = nasrun.cli.main.main(order["words"])
    for ending in ENDINGS:
        ending()
    return status


def serve() -> None:
    # Hydra would compose everything once more, only to learn that it is no sweep.
    Hydra.get_mode = lambda self, **arguments: None  # type: ignore[method-assign]
    if not os.environ.get("NASRUN_SOAK"):
        nasrun.cli.reporting.wanted = lambda settings: False
    for module in walk_packages(nasrun.__path__, "nasrun."):
        if not module.name.endswith("__main__"):
            import_module(module.name)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # shells have jobs ignore it
    gc.collect()
    gc.freeze()  # else the first collection in a child copies all of its memory
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    for line in sys.stdin:
        order = json.loads(line)
        process = os.fork()
        if process == 0:
            status = 99
            try:
                status = child(order)
            finally:
                os._exit(status)
        _, status = os.waitpid(process, 0)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(status)}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    serve()
    gc.unfreeze()  # else torch's compilers complain as they are taken down
