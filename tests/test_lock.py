"""One process for a run directory, whichever way the others end."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from nasrun.errors import UserError
from nasrun.run.lock import Lock

HOLD = """
import sys
from pathlib import Path
from nasrun.run.lock import Lock
lock = Lock(Path(sys.argv[1])).acquire()
print("held", flush=True)
sys.stdin.read()
lock.release()
"""


@contextmanager
def holder(directory: Path) -> Iterator[subprocess.Popen[str]]:
    """Another program that holds the lock, until its input ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(directory)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    assert process.stdout.readline() == "held\n"
    try:
        yield process
    finally:
        process.communicate()


def test_a_second_process_is_refused(tmp_path: Path) -> None:
    with holder(tmp_path) as process:
        for _ in range(3):  # also after a refusal, which must not take the lock away
            with pytest.raises(UserError) as raised:
                Lock(tmp_path).acquire()
            message = str(raised.value)
            assert f"{tmp_path} is in use by process {process.pid} on {socket.gethostname()}" in (
                message
            )
            assert "unknown" not in message
    assert list(tmp_path.iterdir()) == []  # released
    with Lock(tmp_path) as lock:
        assert lock.stale is None
        assert (tmp_path / "lock").exists()
    assert list(tmp_path.iterdir()) == []


def test_the_lock_of_a_killed_process_is_taken_over(tmp_path: Path) -> None:
    with holder(tmp_path) as process:
        process.kill()
        process.wait()
        lock = Lock(tmp_path).acquire()
        assert lock.stale
        assert f"process {process.pid} on {socket.gethostname()}" in lock.stale
        assert json.loads((tmp_path / "lock").read_text())["pid"] == os.getpid()
        lock.release()
    assert Lock(tmp_path).acquire().stale is None


def fork(work: Callable[[], object]) -> int:
    process = os.fork()
    if process == 0:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    return process


def status_of(process: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def test_a_forked_worker_does_not_prolong_the_lock(tmp_path: Path) -> None:
    told, tell = os.pipe()
    end_of_worker, leave = os.pipe()

    def work() -> None:
        os.close(leave)
        os.read(end_of_worker, 1)

    def run() -> None:
        with Lock(tmp_path):
            os.write(tell, str(fork(work)).encode().ljust(20))
            signal.pause()  # until it is killed

    process = fork(run)
    worker = int(os.read(told, 20))
    with pytest.raises(UserError, match=f"in use by process {process} "):
        Lock(tmp_path).acquire()
    os.kill(process, signal.SIGKILL)
    assert status_of(process) == -signal.SIGKILL
    os.kill(worker, 0)  # it lives on
    lock = Lock(tmp_path).acquire()
    assert lock.stale
    assert f"process {process} " in lock.stale
    for handle in (leave, end_of_worker, told, tell):
        os.close(handle)
    lock.release()


def test_the_end_of_a_forked_worker_does_not_release_the_lock(tmp_path: Path) -> None:
    with Lock(tmp_path) as lock:
        assert lock._file
        handle = lock._file.fileno()
        assert status_of(fork(lambda: os.close(handle))) == 0

        def second() -> None:
            with pytest.raises(UserError, match=f"process {os.getppid()} "):
                Lock(tmp_path).acquire()

        assert status_of(fork(second)) == 0


def check_two_at_once(place: Path, left_behind: bool, rounds: int) -> None:
    """Both wait at a gate, and hold what they get until both have tried; one gets it."""
    for number in range(rounds):
        directory = place / str(number)
        directory.mkdir()
        if left_behind:
            (directory / "lock").write_text('{"pid": 1}')
        gate, open_gate = os.pipe()
        told, tell = os.pipe()
        over, end = os.pipe()

        def compete(
            directory: Path = directory,
            handles: tuple[int, ...] = (gate, open_gate, tell, over, end),
        ) -> None:
            gate, open_gate, tell, over, end = handles
            os.close(open_gate)
            os.close(end)
            os.read(gate, 1)
            try:
                lock = Lock(directory).acquire()
                os.write(tell, b"1")
                os.read(over, 1)
                lock.release()
            except UserError:
                os.write(tell, b"0")

        both = [fork(compete), fork(compete)]
        os.close(open_gate)
        assert sorted((os.read(told, 1), os.read(told, 1))) == [b"0", b"1"]
        os.close(end)
        assert [status_of(process) for process in both] == [0, 0]
        assert list(directory.iterdir()) == []
        for handle in (gate, told, tell, over):
            os.close(handle)


@pytest.mark.few(1)
@pytest.mark.parametrize("left_behind", [False, True])
def test_of_two_that_start_at_once_one_gets_it(tmp_path: Path, left_behind: bool) -> None:
    """Twelve rounds; tests/soak/ has many."""
    check_two_at_once(tmp_path, left_behind, 12)


def test_nobody_is_inside_with_another(tmp_path: Path) -> None:
    """Three processes take and leave the lock as fast as they can."""
    inside = tmp_path / "inside"

    def come_and_go() -> None:
        entered = 0
        while entered < 150:
            try:
                with Lock(tmp_path):
                    os.close(os.open(inside, os.O_CREAT | os.O_EXCL))  # fails for a second one
                    inside.unlink()
                    entered += 1
            except UserError:
                continue

    assert [status_of(process) for process in [fork(come_and_go) for _ in range(3)]] == [0, 0, 0]
    assert list(tmp_path.iterdir()) == []


GARBAGE = [
    b"\x00" * 9000,
    b"{",
    b"[1]",
    b'"text"',
    b"\xff\xfe",
    b"[" * 5000,
    b'{"pid": {"a": [1]}, "host": null}',
    b'{"pid": "\\u001b]0;x\\u0007\\n", "host": "\\u202e", "since": "' + b"y" * 3000 + b'"}',
]


@pytest.mark.parametrize("content", GARBAGE, ids=range(len(GARBAGE)))
def test_garbage_in_the_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "lock"
    path.write_bytes(content)
    with Lock(tmp_path) as lock:
        assert lock.stale is None or lock.stale.isprintable()
        assert json.loads(path.read_text())["pid"] == os.getpid()
    assert list(tmp_path.iterdir()) == []
    with holder(tmp_path):
        path.write_bytes(content)
        with pytest.raises(UserError, match="is in use by process") as raised:
            Lock(tmp_path).acquire()
        assert str(raised.value).isprintable()


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "outside").write_text("precious")
    (tmp_path / "lock").symlink_to(tmp_path / "outside")
    with pytest.raises(UserError, match="link"):
        Lock(tmp_path).acquire()
    assert (tmp_path / "outside").read_text() == "precious"
