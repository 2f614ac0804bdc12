"""Find out the machine of a run: versions, device, memory, disk, data sets, extras.

Nothing is downloaded, and nothing is written. Whatever cannot be found out is said, since the
machine may be the very thing that is broken.
"""

from __future__ import annotations

import os
import platform
import re
import sys
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any

from nasrun import __version__
from nasrun.run.files import at_home
from nasrun.run.processor import processor

PACKAGES = ("torch", "torchvision", "numpy", "scipy", "hydra-core", "omegaconf")
"""Packages whose versions decide what nasrun computes."""

DATA_VARIABLE = "NASRUN_DATA"

DATA_SETS = {
    "cifar10": ("cifar-10-batches-py",),
    "cifar100": ("cifar-100-python",),
    "fashion_mnist": ("FashionMNIST/raw",),
    "imagenet": ("imagenet/train", "imagenet/val"),
    "image_folder": ("images",),
}
"""Folders below the folder of data, all of which a data set needs."""

EMBEDDED = ("digits", "synthetic")
"""Data sets that need no folder."""

VARIABLES = re.compile(r"(NASRUN|OMP|MKL|CUDA|PYTORCH|TORCH|HYDRA|SLURM_(JOB_ID|CPUS))_?\w*")
"""Names of environment variables that change a run."""

SHELLS = {"bash": (".bashrc", ".bash_profile", ".profile"), "zsh": (".zshrc", ".zprofile")}
"""Files of a home that may install tab completion, by shell."""


def checks(outputs: str = "outputs") -> dict[str, Any]:
    """Return all that there is to tell, as JSON values. outputs: the folder of runs."""
    return {
        "nasrun": _nasrun(),
        "python": {"version": platform.python_version(), "path": sys.executable},
        "system": platform.platform(),
        "packages": {name: _version(name) for name in PACKAGES},
        "torch": _guarded(_torch),
        "cpu": _guarded(_cpu),
        "memory": _guarded(_memory),
        "disk": _guarded(lambda: _disk(at_home(outputs))),
        "data": _data(),
        "extras": _guarded(_extras),
        "completion": _completion(),
        "environment": {
            name: value for name, value in sorted(os.environ.items()) if VARIABLES.fullmatch(name)
        },
    }


def _guarded(find: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    try:
        return find()
    except Exception as error:  # it is told, with the rest
        return {"error": f"{type(error).__name__}: {' '.join(str(error).split())}"}


def _nasrun() -> dict[str, Any]:
    from nasrun.run.git import git_state

    return {
        "version": __version__,
        "path": str(Path(__file__).parents[1]),
        "git": git_state(),
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _torch() -> dict[str, Any]:
    import torch

    devices = []
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            found = torch.cuda.get_device_properties(index)
            devices.append({"name": found.name, "memory": found.total_memory})
    elif torch.backends.mps.is_available():
        devices.append({"name": "Apple GPU (mps)", "memory": None})
    return {
        "version": str(torch.__version__),
        "cuda": torch.version.cuda,
        "devices": devices,
        "threads": torch.get_num_threads(),
    }


def _cpu() -> dict[str, Any]:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {"model": processor(), "usable": usable, "cores": os.cpu_count()}


def _memory() -> dict[str, Any]:
    from nasrun.run.memory import available_bytes

    total = None
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {"free": available_bytes(), "total": total}


def _disk(outputs: Path) -> dict[str, Any]:
    place = outputs.absolute()
    while not place.exists():
        place = place.parent
    free = None
    if hasattr(os, "statvfs"):
        found = os.statvfs(place)
        free = found.f_bavail * found.f_frsize
    return {
        "outputs": str(outputs.absolute()),
        "free": free,
        "writable": os.access(place, os.W_OK),
    }


def _data() -> dict[str, Any]:
    named = os.environ.get(DATA_VARIABLE)
    root = Path(named or "data").absolute()
    tables = sorted(path.name for path in (root / "tables").glob("*.csv*"))
    found = [name for name, needed in DATA_SETS.items() if all((root / n).is_dir() for n in needed)]
    return {
        "root": str(root),
        "named_by": f"${DATA_VARIABLE}" if named else f"${DATA_VARIABLE} is not set",
        "found": [*EMBEDDED, *found],
        "absent": [name for name in DATA_SETS if name not in found],
        "tables": tables,
    }


def _extras() -> dict[str, Any]:
    """Return the packages of each extra with their versions; null: not installed."""
    found: dict[str, dict[str, str | None]] = {}
    for line in requires("nasrun") or []:
        extra = re.search(r"extra\s*==\s*['\"](\w+)['\"]", line)
        name = re.match(r"[\w.-]+", line)
        if extra and name and extra[1] != "dev":
            found.setdefault(extra[1], {})[name[0]] = _version(name[0])
    return found


def _completion() -> dict[str, bool]:
    """Tell for which shells a file of the home installs tab completion."""
    home = Path.home()
    found = {
        shell: any(_mentions(home / name, f"nasrun completion {shell}") for name in names)
        for shell, names in SHELLS.items()
    }
    fish = home / ".config" / "fish"
    found["fish"] = (fish / "completions" / "nasrun.fish").is_file() or _mentions(
        fish / "config.fish", "nasrun completion fish"
    )
    return found


def _mentions(path: Path, words: str) -> bool:
    try:
        return words in path.read_text(errors="replace")
    except OSError:
        return False


def rows(found: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the checks as names and words, for one screen."""
    git = found["nasrun"]["git"]
    commit = (
        f", commit {git['commit'][:10]}{'' if git['clean'] else ' with changes'}" if git else ""
    )
    packages = [f"{name} {number or 'ABSENT'}" for name, number in found["packages"].items()]
    return [
        ("nasrun", f"{found['nasrun']['version']}{commit}, {found['nasrun']['path']}"),
        ("python", f"{found['python']['version']}, {found['python']['path']}"),
        ("system", found["system"]),
        ("packages", ", ".join(packages)),
        ("device", _or_error(found["torch"], _device_words)),
        ("CPU", _or_error(found["cpu"], lambda cpu: _cpu_words(cpu, found["torch"]))),
        ("memory", _or_error(found["memory"], _memory_words)),
        ("disk", _or_error(found["disk"], _disk_words)),
        *_data_rows(found["data"]),
        *_extra_rows(found["extras"]),
        ("completion", _completion_words(found["completion"])),
        ("environment", ", ".join(f"{k}={v}" for k, v in found["environment"].items()) or "-"),
    ]


def _or_error(found: Mapping[str, Any], words: Callable[[Mapping[str, Any]], str]) -> str:
    return f"NOT FOUND OUT: {found['error']}" if "error" in found else words(found)


def _size(count: int | None) -> str:
    return "?" if count is None else f"{count / 2**30:,.1f} GiB"


def _device_words(torch: Mapping[str, Any]) -> str:
    names = [f"{d['name']}, {_size(d['memory'])}" for d in torch["devices"]]
    built = (
        f"torch is built for CUDA {torch['cuda']}" if torch["cuda"] else "torch is built for CPUs"
    )
    return f"{'; '.join(names) or 'cpu alone'} ({built})"


def _cpu_words(cpu: Mapping[str, Any], torch: Mapping[str, Any]) -> str:
    threads = f", threads of torch: {torch['threads']}" if "threads" in torch else ""
    return f"{cpu['model']}, {cpu['usable']} of {cpu['cores']} cores usable{threads}"


def _memory_words(memory: Mapping[str, Any]) -> str:
    return f"{_size(memory['free'])} free of {_size(memory['total'])}"


def _disk_words(disk: Mapping[str, Any]) -> str:
    refused = "" if disk["writable"] else ", NOT WRITABLE: choose outputs=DIR"
    return f"{_size(disk['free'])} free for {disk['outputs']}{refused}"


def _data_rows(data: Mapping[str, Any]) -> list[tuple[str, str]]:
    place = f"{data['root']} ({data['named_by']})"
    return [
        ("data sets", f"in {place}: {', '.join(data['found'])}"),
        ("  not there", ", ".join(data["absent"]) or "-"),
        ("tables", ", ".join(data["tables"]) or f"none in {data['root']}/tables"),
    ]


def _extra_rows(extras: Mapping[str, Any]) -> list[tuple[str, str]]:
    if "error" in extras:
        return [("extras", "nasrun is not installed as a package")]
    lines = []
    for extra, packages in extras.items():
        absent = [name for name, number in packages.items() if number is None]
        have = [f"{name} {number}" for name, number in packages.items() if number is not None]
        lacking = f"absent: {', '.join(absent)} (pip install 'nasrun[{extra}]')" if absent else ""
        lines.append((f"[{extra}]", "; ".join(filter(None, [", ".join(have), lacking]))))
    return lines


def _completion_words(found: Mapping[str, bool]) -> str:
    installed = [shell for shell, there in found.items() if there]
    return ", ".join(installed) or 'not installed: eval "$(nasrun completion bash)" in ~/.bashrc'
