"""Runs nasrun in processes that are forked from one that has imported torch already.

A program of its own: the tests' process may have used a GPU or started threads, after which torch
cannot be forked. It reads one order in JSON from each line of its input: where to run (the
directory), what to type, and the faults to be had, by name. It answers with the exit status.

An order for several ranks is done by as many processes, which meet as under torchrun; the faults
are those of one of them. It may name a function to call instead of words to type. The answer has a
status for each rank.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable
from importlib import import_module
from pkgutil import walk_packages
from typing import Any

# Imported here, once, as every run needs it.
import hydra.core.hydra_config  # noqa: F401
import matplotlib.backends.backend_agg
import matplotlib.backends.backend_svg
import matplotlib.pyplot  # noqa: F401
import scipy.stats  # noqa: F401
import torch._dynamo
import torch.distributed
from faults import ENDINGS, FAULTS
from hydra._internal.hydra import Hydra

import nasrun.cli.main
import nasrun.cli.reporting

DEADLOCK_SECONDS = 3600
"""After which a child is killed: no test takes so long, on however busy a machine."""


def child(order: dict[str, Any], rank: int) -> int:
    os.chdir(order["place"])
    for number, name in enumerate(("out", "err"), 1):
        path = f"{order[name]}{rank or ''}"
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(handle, number)
    signal.alarm(DEADLOCK_SECONDS)
    for name, arguments in order["faults"] if rank == order.get("faulty", 0) else ():
        FAULTS[name](*arguments)
    if call := order.get("call"):
        module, _, function = call.partition(":")
        getattr(import_module(module), function)()
        return 0
    status = nasrun.cli.main.main(order["words"])
    for ending in ENDINGS:
        ending()
    return status


def fork(work: Callable[..., int], *arguments: Any) -> int:
    """Start a process that ends with the status that ``work`` returns; returns its number."""
    process = os.fork()
    if process == 0:
        status = 99
        try:
            status = work(*arguments)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    return process


def agent(pipe: int) -> int:
    """Hold the store through which ranks meet, as torchrun does; tells its port."""
    store = torch.distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    os.write(pipe, str(store.port).encode())
    signal.pause()
    return 0


def ranks(order: dict[str, Any], size: int) -> list[int]:
    """Do the order in several ranks; returns their processes and, last, that of the agent."""
    ends = os.pipe()
    helper = fork(agent, ends[1])
    port = os.read(ends[0], 16).decode()
    for end in ends:
        os.close(end)

    def work(rank: int) -> int:
        os.environ.update(
            {"RANK": str(rank), "LOCAL_RANK": str(rank)}
            | dict.fromkeys(("WORLD_SIZE", "LOCAL_WORLD_SIZE"), str(size))
            | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
            | {"TORCHELASTIC_USE_AGENT_STORE": "True"}
        )
        return child(order, rank)

    return [*(fork(work, rank) for rank in range(size)), helper]


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
        size = order.get("ranks", 1)
        started = [fork(child, order, 0)] if size == 1 else ranks(order, size)
        statuses = []
        for process in started:
            if len(statuses) == size:
                os.kill(process, signal.SIGKILL)
            statuses.append(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]))
        sys.stdout.write(" ".join(map(str, statuses[:size])) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    serve()
    gc.unfreeze()  # else torch's compilers complain as they are taken down
