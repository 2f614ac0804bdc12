"""Sizes beyond all use, or beyond the memory of the machine, are refused at once."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
import torch
from helpers import CPU, TASK, Images, schedule, space, splits
from torch import nn

from nasrun.cli import errors
from nasrun.cli import main as cli
from nasrun.cli.errors import verdict
from nasrun.cli.main import main
from nasrun.config.build import build_setup
from nasrun.config.compose import compose
from nasrun.dataset.base import Splits
from nasrun.errors import UserError
from nasrun.evaluator.supernet import SupernetEvaluator
from nasrun.run import compute, memory
from nasrun.run.compute import is_out_of_memory
from nasrun.run.memory import available_bytes, check_fits, in_words, network_bytes
from nasrun.run.monitor import NullMonitor
from nasrun.streams import Streams
from nasrun.values import Problem

GIB = 2**30


PANIC = type("PanicException", (BaseException,), {})
"""Like the errors that panics of Rust code become."""


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("could not create a primitive"),
        RuntimeError("could not create a primitive descriptor for a convolution"),
        RuntimeError("std::bad_alloc"),
        RuntimeError("[enforce fail at x] DefaultCPUAllocator: not enough memory: you tried"),
        RuntimeError("[enforce fail at x] DefaultCPUAllocator: can't allocate memory: you tried"),
        RuntimeError("unable to mmap 8 bytes: Cannot allocate memory (12)"),
        RuntimeError("CUDA error: out of memory"),
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
        RuntimeError("GET was unable to find an engine to execute this computation"),
        RuntimeError("Unable to find a valid cuDNN algorithm to run convolution"),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        MemoryError(),
        PANIC("failed to allocate bytes"),
    ],
    ids=repr,
)
def test_short_memory_is_one_line(error: BaseException) -> None:
    assert is_out_of_memory(error)
    text, status = verdict(error)
    assert status == 2 and text.startswith("error: out of memory: ") and "\n" not in text
    assert "lower batch_size" in text
    for other in (RuntimeError("a bug"), OSError(errno.ENOENT, "x"), ValueError("out of memory")):
        assert not is_out_of_memory(other)


@pytest.mark.parametrize("words", compute.DEVICE_FAILED)
def test_a_lost_device_is_one_line_that_tells_how_to_go_on(
    words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = RuntimeError(f"CUDA error: {words}\nkernel errors might be reported elsewhere")
    alone = f"error: the device has failed (CUDA error: {words}): choose another device"
    assert verdict(error) == (alone, 2)
    (tmp_path / "run.json").write_text("{}")
    monkeypatch.setattr(errors, "_output", lambda: tmp_path)
    text, status = verdict(error)
    assert status == 2 and text.endswith(f"here or elsewhere: nasrun resume {tmp_path}")
    assert verdict(RuntimeError("CUDA error: device-side assert triggered"))[1] == 1


def test_a_panic_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def panic(line: object) -> object:
        raise PANIC("index out of bounds")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli, "command", panic)
    assert main(["search"]) == 1
    said = capsys.readouterr().err
    assert (
        said.startswith("nasrun: internal error: PanicException: index") and said.count("\n") == 1
    )


@pytest.mark.few(4)
@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("search_space.search.layers=1001", "less than or equal to 1000"),
        ("search_space.search.layers=200", "search_space.search.layers = 200 with"),
        ("search_space.nodes=101", "less than or equal to 100"),
        ("search_space.nodes=100", "at most 50,000 are built"),
        ("search_space.final.channels=100001", "less than or equal to 100000"),
        ("search_algo.initial=1000001", "less than or equal to 1000000"),
        ("search_algo.step_increment=1e-300", "more than 10,000 step sizes"),
        ("search_algo.predictor.hidden=100000", "search_algo.predictor needs about"),
        ("search_algo.rounds=1000000 search_algo.new_per_round=1000000", "examples needs about"),
        ("trainer.epochs=1000001", "less than or equal to 1000000"),
        ("trainer.schedule.lr=1e400", "must be a finite number"),
        (
            "dataset=synthetic dataset.train_images=100000000 dataset.image_size=999",
            "the synthetic dataset needs about",
        ),
        ("dataset=synthetic dataset.image_size=4096 dataset.classes=1000000", "needs about"),
        ("dataset=synthetic dataset.validation=0.999999999999", "needs about"),
        ("dataset.crop_padding=9", "more than the 8 pixels"),
        ("dataset=image_folder dataset.workers=257", "less than or equal to 256"),
    ],
)
def test_too_large(
    words: str,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["search", *words.split()]) == 2
    assert list(tmp_path.iterdir()) == []  # no run has begun
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("nasrun: error: ") and message in line
    assert list(tmp_path.iterdir()) == []


def test_memory_in_words() -> None:
    assert [in_words(n) for n in (0, 1023, 1024, 20 * GIB, 2**100)] == [
        *("0 bytes", "1,023 bytes", "1.0 KiB", "20.0 GiB"),
        "1,099,511,627,776.0 EiB",
    ]


def test_what_does_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    assert available_bytes() > 0
    monkeypatch.setattr(memory, "available_bytes", lambda: 2 * GIB)
    check_fits(2 * GIB, "it", "x")
    with pytest.raises(UserError, match=r"it needs about 3.0 GiB .* has 2.0 GiB free: lower x"):
        check_fits(3 * GIB, "it", "x")


@pytest.mark.parametrize(
    ("own", "files", "expected"),
    [
        ("0::/", {}, 8),
        ("0::/a/b", {"a/memory.max": 6, "a/memory.current": 4, "a/memory.stat": 1}, 3),
        ("0::/a", {"a/memory.max": "max", "a/memory.current": 4}, 8),
        ("0::/a", {"a/memory.max": 5, "a/memory.current": 7}, 0),
        (
            "4:cpu:/x\n3:memory,hugetlb:/a",
            {"memory/a/memory.limit_in_bytes": 3, "memory/a/memory.usage_in_bytes": 1},
            2,
        ),
    ],
)
def test_limits_of_containers(
    own: str,
    files: dict[str, int | str],
    expected: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in files.items():
        path = tmp_path / "groups" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        text = f"{value * GIB}" if isinstance(value, int) else value
        path.write_text(f"anon 5\ninactive_file {text}\n" if name.endswith("stat") else f"{text}\n")
    (tmp_path / "own").write_text(f"{own}\n")
    (tmp_path / "meminfo").write_text(f"MemTotal: 1 kB\nMemAvailable:   {8 * 2**20} kB\n")
    for name, place in (("MACHINE", "meminfo"), ("OWN_GROUPS", "own"), ("GROUPS", "groups")):
        monkeypatch.setattr(memory, name, tmp_path / place)
    assert available_bytes() == expected * GIB


@pytest.mark.soak
def test_a_network_is_measured_without_its_memory() -> None:
    built = build_setup(compose(["effort=smoke"])).search_space
    problem, architecture = Problem(3, 32, 10), built.sample(Streams(0).numpy("x"))
    before = torch.random.get_rng_state()
    for build in (
        lambda: built.supernet(problem),
        lambda: built.network(architecture, problem, "final", auxiliary=True),
    ):
        measured = network_bytes(build)
        assert torch.equal(torch.random.get_rng_state(), before)
        with Streams(0).default("init"):
            network = build()
        tensors = [*network.parameters(), *network.buffers()]
        assert measured == sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    assert network_bytes(lambda: nn.Linear(10**6, 10**6)) == 4 * (10**12 + 10**6)


# What lies at the other end.


@pytest.mark.parametrize("factor", [1, 1.5, 1e300])
def test_cycles_shorter_than_a_step_come_to_an_end(factor: float) -> None:
    rates = schedule(cycle_epochs=1e-300, cycle_factor=factor)
    assert all(0 <= rates.learning_rate(step, 1000, 10) <= 0.1 for step in range(1000))


def test_cycles_of_equal_length() -> None:
    rates = schedule(cycle_epochs=1.5, cycle_factor=1)
    assert [rates.learning_rate(step, 100, 2) for step in range(9)] == 3 * [
        rates.learning_rate(step, 100, 2) for step in range(3)
    ]


@pytest.mark.few(1)
@pytest.mark.parametrize("protocol", ["batch", "recalibrated", "inherited"])
def test_no_batch_of_a_single_image_is_scored(protocol: str) -> None:
    """Batch norm has no statistics of one image where its map is of one pixel."""
    evaluator = SupernetEvaluator(
        images=9, batch_size=4, batch_norm=protocol, recalibration_images=5
    )
    scorer = evaluator.bind(space(), splits(), CPU, Streams(0))
    assert [len(labels) for _, labels in scorer.validation] == [4, 5]
    assert [len(labels) for _, labels in scorer.calibration] == [5]
    supernet = space().supernet(TASK)
    (trial,) = scorer.score([space().sample(Streams(0).numpy("x"))], supernet, NullMonitor())
    assert trial.evaluation["images"] == 9


def test_statistics_of_one_image_are_refused() -> None:
    one = Splits(TASK, Images(1), Images(1), lambda: Images(1), lambda: Images(1))
    for protocol in ("batch", "recalibrated", "inherited"):
        evaluator = SupernetEvaluator(
            images=None, batch_size=4, batch_norm=protocol, recalibration_images=5
        )
        if protocol == "inherited":
            evaluator.bind(space(), one, CPU, Streams(0))
            continue
        with pytest.raises(UserError, match=f"evaluator.batch_norm={protocol}"):
            evaluator.bind(space(), one, CPU, Streams(0))
