"""The model of this machine's processor, on which measured times depend."""

from __future__ import annotations

import platform
import subprocess
from contextlib import suppress
from pathlib import Path

CPU_INFO = Path("/proc/cpuinfo")
"""File of Linux that names the processor."""


def processor() -> str:
    """Return the model of this machine's CPU, e.g. ``Intel(R) Xeon(R) CPU @ 2.20GHz``."""
    try:
        lines = CPU_INFO.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    told = dict(line.partition(":")[::2] for line in lines)
    words = {key.strip(): value.strip() for key, value in told.items()}
    for key in ("model name", "Hardware", "cpu model"):
        if words.get(key):
            return words[key]
    if platform.system() == "Darwin":
        ask = ["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"]
        with suppress(OSError, subprocess.SubprocessError):
            told_by = subprocess.run(ask, capture_output=True, text=True, check=False, timeout=5)
            if told_by.stdout.strip():
                return told_by.stdout.strip()
    return platform.processor() or platform.machine() or "unknown processor"
