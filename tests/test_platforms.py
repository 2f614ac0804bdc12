"""Systems on which nasrun runs: without POSIX, with Apple's GPU, beside busy processes."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import nasrun
from nasrun.errors import UserError
from nasrun.run import threads
from nasrun.run.compute import Compute, float64, is_out_of_memory

POSIX_MODULES = ("fcntl", "grp", "pwd", "resource", "syslog", "termios", "tty", "pty")
POSIX_NAMES = {
    "os": {
        *("O_CLOEXEC", "O_DIRECTORY", "O_NOFOLLOW", "O_NONBLOCK", "O_SYNC", "chown", "fork"),
        *("fchmod", "geteuid", "getgid", "getpgid", "getuid", "killpg", "mkfifo", "nice"),
        *("register_at_fork", "sched_getaffinity", "setsid", "sysconf", "statvfs"),
    },
    "signal": {
        *("SIGALRM", "SIGCHLD", "SIGCONT", "SIGHUP", "SIGKILL", "SIGPIPE", "SIGQUIT", "SIGSTOP"),
        *("SIGUSR1", "SIGUSR2", "SIGXCPU", "alarm", "pause", "pthread_sigmask", "setitimer"),
    },
}
"""Names that these modules lack on Windows."""

COMPOSE = f"""
import os, signal, sys
for name in {POSIX_MODULES!r}:
    sys.modules[name] = None
for module, names in {POSIX_NAMES!r}.items():
    for name in names:
        if hasattr(sys.modules[module], name):
            delattr(sys.modules[module], name)
from nasrun.cli.main import main
import nasrun.run.files, nasrun.run.lock, nasrun.cli.resume, nasrun.cli.outputs
sys.exit(main(["search", "--cfg", "job", "effort=smoke"]))
"""


def sources() -> list[Path]:
    return sorted(Path(nasrun.__file__).parent.rglob("*.py"))


def test_the_command_line_starts_without_what_windows_lacks() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", COMPOSE], capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "search_space:" in done.stdout


def needed(tree: ast.AST) -> Iterator[str]:
    """Names that a module takes from modules of POSIX, or from ``os`` and ``signal`` unasked."""
    asked = {
        node.args[1].value
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "hasattr"
        and isinstance(node.args[1], ast.Constant)
    }
    guarded = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.Try) and any("ImportError" in ast.dump(h) for h in node.handlers)
        for statement in node.body
        for inner in ast.walk(statement)
    }
    for node in ast.walk(tree):
        if node in guarded and isinstance(node, ast.Import | ast.ImportFrom):
            continue
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names if name.name in POSIX_MODULES)
        elif isinstance(node, ast.ImportFrom):
            lacking = POSIX_NAMES.get(str(node.module), set())
            yield from (name.name for name in node.names if name.name in lacking)
            if node.module in POSIX_MODULES:
                yield node.module
        elif (
            isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Name)
            and node.attr in POSIX_NAMES.get(node.value.id, set()) - asked
        ):
            yield f"{node.value.id}.{node.attr}"


def test_no_module_needs_what_windows_lacks() -> None:
    found = {
        path.name: names
        for path in sources()
        if (names := list(needed(ast.parse(path.read_text(encoding="utf-8")))))
    }
    assert found == {}
    assert list(needed(ast.parse("import fcntl, os\nos.fork()"))) == ["fcntl", "os.fork"]
    caught = "try:\n    import fcntl\nexcept {}:\n    pass"
    assert list(needed(ast.parse(caught.format("ImportError")))) == []
    assert list(needed(ast.parse(caught.format("OSError")))) == ["fcntl"]


# Apple's GPU.


def chosen(device: str) -> Compute:
    return Compute.choose(device, precision="auto", deterministic=False)


def test_mps_is_taken_where_torch_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    compute = chosen("mps")
    assert compute.device == torch.device("mps")
    assert not compute.bf16
    assert compute.describe() == "Apple GPU (mps), fp32"
    assert chosen("auto").device.type != "mps"
    with pytest.raises(UserError, match=r"^device=mps:1: "):
        chosen("mps:1")


def test_mps_is_refused_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(UserError, match="device=mps: torch finds no such Apple GPU here") as raised:
        chosen("mps")
    assert "\n" not in str(raised.value)


def flags_of_cuda() -> tuple[bool, bool, bool]:
    """Whether matrix products and convolutions may be tf32, and whether cuDNN tries its ways."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    return matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark


def test_fp32_on_a_gpu_is_fp32_unless_tf32_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "a GPU")
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
    found = {}
    for precision in ("tf32", "fp32", "bf16"):
        settings: Any = {"precision": precision, "deterministic": False, "repeats": True}
        compute = Compute.choose("cuda", **settings)
        found[compute.describe()] = flags_of_cuda()
    assert found == {
        "a GPU, tf32": (True, True, True),
        "a GPU, fp32": (False, False, True),
        "a GPU, bf16": (False, False, True),
    }
    Compute.choose("cuda", precision="fp32", deterministic=False)
    assert flags_of_cuda() == (False, False, False)  # shapes that come once are not searched
    with pytest.raises(UserError, match=r"^precision=tf32 .*: choose fp32$"):
        Compute.choose("cpu", precision="tf32", deterministic=False)


def test_blocks_are_compiled_only_where_a_compiler_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def compiled(wanted: str) -> bool:
        settings: Any = {"precision": "fp32", "deterministic": False, "compiling": wanted}
        return Compute.choose("cpu", **settings).compiled

    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "g++").touch()
    assert [compiled(wanted) for wanted in ("none", "auto", "blocks")] == [False, False, True]
    (tmp_path / "g++").unlink()
    assert not compiled("auto")
    with pytest.raises(UserError, match=r"^compile=blocks needs a C\+\+ compiler .*compile=none$"):
        compiled("blocks")


def test_float64_is_the_same_number() -> None:
    values = torch.tensor([0.1, 3e38])
    assert float64(values).dtype == torch.float64
    assert float64(values).tolist() == values.tolist()
    assert is_out_of_memory(RuntimeError("MPS backend out of memory (MPS allocated: 1 GB)"))


# Busy processes.


@pytest.mark.parametrize(
    ("idle", "usable", "free"),
    [(800, 8, 8), (399, 8, 4), (250, 8, 2), (0, 8, 1), (800, 2, 2), (399, 3, 3)],
)
def test_threads_are_the_cores_that_are_idle(
    idle: int, usable: int, free: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eight cores, 800 ticks; half a core more or less is rounded."""
    looks = iter([(1000, 5000), (1000 + idle, 5800)])
    monkeypatch.setattr(threads, "_ticks", lambda: next(looks))
    monkeypatch.setattr(threads, "LOOK_SECONDS", 0)
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    monkeypatch.setattr("os.sched_getaffinity", lambda process: range(usable), raising=False)
    assert threads.free_cores() == free


def test_ticks_of_the_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "stat"
    monkeypatch.setattr(threads, "_COUNTS", place)
    monkeypatch.setattr(threads, "LOOK_SECONDS", 0)
    monkeypatch.setattr("os.getloadavg", lambda: (1.6, 0, 0), raising=False)
    for content in ("", "cpu", "cpu a b c", "cpu  1 2 3 40 5 6 7 8 9 10\ncpu0 1 1\n"):
        place.write_text(content)
        assert threads.busy_cores() == 1.6  # nothing has changed between two looks
    assert threads._ticks() == (45, 72)
