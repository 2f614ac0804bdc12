"""The device and the number format in which networks run."""

from __future__ import annotations

import errno
import os
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import torch
from pydantic import Field
from torch import Tensor, nn

from nasrun.errors import UserError, is_panic, plural
from nasrun.run import ranks
from nasrun.run.average_pooling import mend_average_pooling
from nasrun.run.memory import available_bytes
from nasrun.run.ranks import Ranks

Precision = Literal["auto", "fp32", "tf32", "bf16"]
Compile = Literal["none", "blocks", "auto"]
OnNonfinite = Literal["stop", "skip"]
BatchSize = Literal["full", "auto"] | Annotated[int, Field(ge=2)]
NO_MEMORY = (
    *("out of memory", "can't allocate memory", "cannot allocate memory", "not enough memory"),
    *("defaultcpuallocator", "std::bad_alloc", "bad allocation", "alloc_failed"),
    *("could not create a primitive", "could not create a memory", "could not allocate"),
    *("failed to allocate", "unable to allocate", "allocation_failed"),
    *("unable to find an engine to execute", "unable to find a valid cudnn algorithm"),
)
"""Words of RuntimeErrors about short memory, in small letters.

torch's allocators for the CPU and the GPU use them; oneDNN, cuBLAS and cuDNN have their own. Where
no way to convolve is left whose workspace fits, torch says that it finds no engine or algorithm.
"""

DEVICE_FAILED = (
    *("ecc error", "hardware stack error", "nvlink error", "unspecified launch failure"),
    *("gpu is lost", "fallen off the bus", "no cuda-capable device", "busy or unavailable"),
    *("cuda error: unknown error", "launch timed out", "driver shutting down"),
)
"""Words of errors about a device that fails or is lost, in small letters.

Others, such as an index out of bounds on the device, are mistakes of a program.
"""

_Network = TypeVar("_Network", bound=nn.Module)


@dataclass(frozen=True)
class Compute:
    """The device of a run, and how networks are computed on it.

    bf16: whether networks run in bf16 autocast; gates learn in fp32 nevertheless. tf32: whether a
    GPU rounds the factors of fp32 products to 10 bits after the point. channels_last: whether
    networks have that layout.
    batch_size: images of a training batch that pass through the network at once (full: all of
    them; auto: as many as the memory takes).
    on_nonfinite: stop at, or skip, a training step whose loss is NaN or infinite.
    sync_batch_norm: whether batch norm takes its statistics over the images of all ranks while a
    network trains.
    ranks: the processes that train together.
    compiled: whether the blocks of networks in training are compiled (``trainer.regions``).
    """

    device: torch.device
    bf16: bool
    channels_last: bool
    batch_size: BatchSize = "full"
    on_nonfinite: OnNonfinite = "stop"
    sync_batch_norm: bool = True
    ranks: Ranks = field(default_factory=Ranks, compare=False)
    tf32: bool = False
    compiled: bool = False

    @staticmethod
    def choose(
        device: str,
        *,
        precision: Precision,
        deterministic: bool,
        batch_size: BatchSize = "full",
        on_nonfinite: OnNonfinite = "stop",
        sync_batch_norm: bool = True,
        compiling: Compile = "none",
        repeats: bool = False,
    ) -> Compute:
        """Choose the device and set torch up for it; of several ranks each gets a device.

        device: auto (CUDA where there is one), cpu, cuda, cuda:N, or mps (Apple's GPU).
        repeats: whether the same shapes come again and again, so that a search for the fastest
        convolution of each pays.
        Raises UserError if the device is absent or unknown, or cannot do what is asked.
        """
        chosen = device_of(device)
        if ranks.current.size > 1:
            chosen = _of_rank(chosen, ranks.current)
        on_gpu = chosen.type == "cuda"
        if precision == "tf32" and not on_gpu:
            raise UserError(
                f"precision=tf32 is a format of NVIDIA's GPUs, and the device is {chosen.type}: "
                "choose fp32"
            )
        if on_gpu:
            torch.backends.cudnn.benchmark = repeats and not deterministic
            _allow_tf32(precision == "tf32")
            mend_average_pooling()
        if deterministic:
            # cuBLAS is reproducible only with a fixed workspace, read at its first use
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        if deterministic != torch.are_deterministic_algorithms_enabled():
            torch.use_deterministic_algorithms(deterministic)  # this import takes seconds
        return Compute(
            chosen,
            bf16=precision == "bf16" or (precision == "auto" and on_gpu),
            # on two CPU cores a step takes half the time of the default layout; not tried on Macs
            channels_last=chosen.type != "mps",
            batch_size=batch_size,
            on_nonfinite=on_nonfinite,
            sync_batch_norm=sync_batch_norm,
            ranks=ranks.current,
            tf32=precision == "tf32",
            compiled=_is_compiled(compiling, chosen),
        )

    @property
    def alone(self) -> Compute:
        """The same device for work that one rank does by itself."""
        return replace(self, ranks=Ranks()) if self.ranks.size > 1 else self

    def place(self, network: _Network) -> _Network:
        """Move the network to the device and into the memory layout of the run."""
        network = network.to(self.device)
        if self.channels_last:
            network = network.to(memory_format=torch.channels_last)
        return network

    def images(self, images: Tensor) -> Tensor:
        """Bring images [B, C, H, W] into the memory layout of the networks."""
        if self.channels_last:
            return images.contiguous(memory_format=torch.channels_last)
        return images

    def autocast(self, *, exact: bool = False) -> AbstractContextManager[object]:
        """The context in which networks run; exact: in fp32, whatever the precision of the run."""
        if self.bf16 and not exact:
            return torch.autocast(self.device.type, torch.bfloat16)
        return nullcontext()

    def wait(self) -> None:
        """Wait until the device has done what it was told, so that a clock can be read."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        elif self.device.type == "mps":
            torch.mps.synchronize()

    def free_bytes(self) -> int:
        """Return the bytes of memory that are free on the device."""
        if self.device.type == "cuda":
            return int(torch.cuda.mem_get_info(self.device)[0])
        return available_bytes()

    def describe(self) -> str:
        """Describe the device in words, e.g. ``NVIDIA H200, bf16``."""
        if self.device.type == "cuda":
            name = torch.cuda.get_device_name(self.device)
        elif self.device.type == "mps":
            name = "Apple GPU (mps)"
        else:
            name = f"CPU, {plural(torch.get_num_threads(), 'thread')}"
        several = f"{self.ranks.size} ranks, each " if self.ranks.size > 1 else ""
        return f"{several}{name}, {'bf16' if self.bf16 else 'tf32' if self.tf32 else 'fp32'}"


def device_of(device: str) -> torch.device:
    """Return the device of that name, which is there: auto, cpu, cuda, cuda:N or mps.

    auto: CUDA where there is one, else the CPU. Raises UserError if it is absent or unknown.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        chosen = torch.device(device)
    except RuntimeError:
        raise UserError(
            f"device={device} is no device: choose auto, cpu, cuda, cuda:N or mps"
        ) from None
    if chosen.type not in ("cpu", "cuda", "mps"):
        raise UserError(f"device={device} is not supported: choose auto, cpu, cuda, cuda:N or mps")
    if chosen.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (chosen.index or 0) >= count:
            raise UserError(
                f"device={device}: this machine has {plural(count, 'CUDA device')}; "
                "choose device=auto or device=cpu"
            )
    if chosen.type == "mps" and (chosen.index or not torch.backends.mps.is_available()):
        raise UserError(
            f"device={device}: torch finds no such Apple GPU here; choose device=auto or device=cpu"
        )
    return chosen


def _of_rank(device: torch.device, own: Ranks) -> torch.device:
    """Return the device of one of several ranks; raises UserError if one is named for all.

    With more ranks than devices several ranks share one.
    """
    if device.type == "cpu":
        return device
    if device.type != "cuda" or device.index is not None:
        raise UserError(
            f"device={device} is one device for all {own.size} ranks: set device=cuda, and each "
            "gets its own, or device=cpu"
        )
    device = torch.device("cuda", own.rank % torch.cuda.device_count())
    torch.cuda.set_device(device)
    return device


def _allow_tf32(allowed: bool) -> None:
    """Let fp32 products on a GPU round their factors to tf32, or not.

    Without this, torch rounds those of convolutions and no others.
    """
    torch.backends.cuda.matmul.allow_tf32 = allowed
    torch.backends.cudnn.allow_tf32 = allowed


def _is_compiled(wanted: Compile, device: torch.device) -> bool:
    """Tell whether blocks are compiled; auto: on CUDA, if its compiler is there.

    Raises UserError if they are to be compiled and cannot be.
    """
    if wanted == "none" or (wanted == "auto" and device.type != "cuda"):
        return False
    lacks = ""
    if device.type == "cuda":
        lacks = "" if find_spec("triton") else "the package triton"
    elif device.type != "cpu":
        lacks = f"a compiler for {device.type}"
    elif not any(map(_is_program, filter(None, (os.environ.get("CXX"), "g++", "clang++")))):
        lacks = "a C++ compiler (g++ or clang++)"
    if lacks and wanted == "blocks":
        raise UserError(f"compile=blocks needs {lacks}, which is not here: set compile=none")
    return not lacks


def _is_program(name: str) -> bool:
    """Tell whether the name is a program on PATH, or a path to one."""
    return any((Path(folder) / name).is_file() for folder in os.get_exec_path())


def float64(tensor: Tensor) -> Tensor:
    """Return the tensor in float64, on the CPU if its device has no such numbers (mps)."""
    return (tensor.cpu() if tensor.device.type == "mps" else tensor).double()


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error means that torch, a library of it, or Python has found no memory."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    text = str(error).lower()
    failed = isinstance(error, RuntimeError) or is_panic(error)
    return failed and any(words in text for words in NO_MEMORY)


def is_lost_device(error: BaseException) -> bool:
    """Tell whether an error of torch means that the device fails, or is there no more."""
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(words in text for words in DEVICE_FAILED)
