"""A stand-in accelerator: its tensors say ``sim:0`` and hold real numbers on the CPU.

It finds without a GPU what only a GPU shows: tensors and generators of two devices that meet, and
the places where the host waits for the device. Every kernel, synchronisation and copy is counted
by its line of nasrun. It tells nothing about speed, memory, or number formats.

torch cannot forget a type of device, so all of it happens in a forked process: ``apart``.
"""

from __future__ import annotations

import os
import pickle
import sys
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pytest
import torch
import torch._dynamo  # else each process imports it anew, at its first operation
from torch import Tensor
from torch.utils import backend_registration
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

import nasrun
from nasrun.run.compute import Compute, OnNonfinite

Answer = TypeVar("Answer")

SETUP = "_setup_privateuseone_for_python_backend"
"""Name of torch's function, of no stable interface, that makes a type of device in Python."""

WAITS = frozenset(
    f"aten.{name}"
    for name in (
        *("_local_scalar_dense", "is_nonzero", "equal", "nonzero", "masked_select", "bincount"),
        *("unique_dim", "unique_consecutive", "_unique2", "repeat_interleave.Tensor"),
    )
)
"""Operations of which the host waits for the result: a number, or the shape of a tensor."""

INDEXED = frozenset(
    f"aten.{name}"
    for name in ("index.Tensor", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index")
)
"""Operations that take indices from the CPU, and wait if an index is a mask."""

COPIES = frozenset(f"aten.{name}" for name in ("copy_", "_to_copy", "_foreach_copy_"))

VIEWS = frozenset(
    f"aten.{name}"
    for name in (
        *("view", "_unsafe_view", "detach", "alias", "slice.Tensor", "select.int", "as_strided"),
        *("unsqueeze", "squeeze", "squeeze.dim", "squeeze.dims", "expand", "permute", "t"),
        *("transpose.int", "unbind.int", "split.Tensor", "split_with_sizes", "diagonal", "unfold"),
        *("lift_fresh", "_reshape_alias"),
    )
)
"""Operations that start no kernel."""

PACKAGE = str(Path(nasrun.__file__).parent) + os.sep


class MixedDevicesError(RuntimeError):
    """Tensors or generators of two devices have met, which CUDA refuses as well."""


@dataclass
class Ledger:
    """The counts of what the host asked of the device, by line, e.g. ``trainer/step.py:112``.

    own: names of operations that the CPU does not have.
    """

    kernels: Counter[str] = field(default_factory=Counter)
    waits: Counter[str] = field(default_factory=Counter)
    copies: Counter[str] = field(default_factory=Counter)
    own: set[str] = field(default_factory=set)

    @property
    def waited(self) -> int:
        """The number of synchronisations so far."""
        return self.waits.total()


LEDGER = Ledger()
_SEEDED: dict[int, str] = {}
"""The type of the device of each generator by its seed; torch hands on no Python objects."""


def line_of_nasrun() -> str:
    """Return the innermost line of nasrun that is running, or else of its caller."""
    frame = sys._getframe(1)
    outer = "?"
    while frame is not None:
        name = frame.f_code.co_filename
        if name.startswith(PACKAGE):
            return f"{name.removeprefix(PACKAGE)}:{frame.f_lineno}"
        if outer == "?" and "/torch/" not in name and name != __file__:
            outer = f"{Path(name).name}:{frame.f_lineno}"
        frame = frame.f_back  # type: ignore[assignment]
    return outer


class DeviceTensor(Tensor):
    """A tensor that says ``sim:0``; its ``numbers`` are on the CPU."""

    numbers: Tensor

    @staticmethod
    def __new__(cls, real: Tensor) -> DeviceTensor:
        made = Tensor._make_wrapper_subclass(
            cls,
            real.shape,
            strides=real.stride(),
            storage_offset=real.storage_offset(),
            dtype=real.dtype,
            layout=real.layout,
            device=torch.device("sim:0"),
            requires_grad=False,
        )
        made.numbers = real
        return made

    def __repr__(self) -> str:  # type: ignore[override]
        return f"DeviceTensor({self.numbers})"

    @property
    def data(self) -> Tensor:  # type: ignore[override]
        return self.detach()

    @data.setter
    def data(self, value: DeviceTensor) -> None:
        Tensor.data.__set__(self, value)  # type: ignore[attr-defined]
        self.numbers = value.numbers

    def tolist(self) -> Any:
        LEDGER.waits[line_of_nasrun()] += 1
        return self.numbers.tolist()

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(
        cls, function: Any, types: Any, arguments: Any = (), keywords: Any = None
    ) -> Any:
        return dispatch(function, arguments, keywords or {})


def dispatch(function: Any, arguments: Any, keywords: dict[str, Any]) -> Any:
    """Do an operation that takes or makes tensors of the device, and count it.

    Raises MixedDevicesError where CUDA would refuse.
    """
    name = str(function).removesuffix(".default")
    leaves = tree_leaves((arguments, keywords))
    ours = [leaf for leaf in leaves if isinstance(leaf, DeviceTensor)]
    others = [x for x in leaves if isinstance(x, Tensor) and not isinstance(x, DeviceTensor)]
    target = torch.device(keywords["device"]).type if keywords.get("device") else None
    to_device = target == "sim" or (target is None and bool(ours))
    _refuse_mixtures(name, leaves, ours, others, "sim" if to_device or ours else "cpu")

    line = line_of_nasrun()
    masks = name in INDEXED and any(
        isinstance(x, Tensor) and x.dtype == torch.bool for x in tree_leaves(arguments[1])
    )
    if name in COPIES and name != "aten._to_copy":
        to_device = bool(tree_leaves(arguments[0])) and isinstance(
            tree_leaves(arguments[0])[0], DeviceTensor
        )
    if ours and (name in WAITS or masks or not to_device):
        LEDGER.waits[line] += 1
    if to_device and ((not ours and others) or any(other.dim() for other in others)):
        LEDGER.copies[line] += 1
    if name not in VIEWS:
        LEDGER.kernels[line] += 1

    real, plain = tree_map_only(DeviceTensor, lambda x: x.numbers, (arguments, dict(keywords)))
    if target is not None:
        plain["device"] = torch.device("cpu")
    if name == "aten._to_copy" and target is not None:  # between devices it is always a copy
        found = real[0].clone(memory_format=plain.get("memory_format") or torch.preserve_format)
        found = found.to(plain.get("dtype") or found.dtype)
    else:
        if name in LACKING:
            LEDGER.own.add(name)
        found = LACKING.get(name, function)(*real, **plain)
    changed = [
        given
        for given, declared in zip(arguments, function._schema.arguments, strict=False)
        if declared.alias_info is not None and declared.alias_info.is_write
    ]
    if changed:  # in place: the very tensors that were given
        return found if found is None else changed[0]
    if not to_device:
        return found
    return tree_map_only(Tensor, DeviceTensor, found)


def _refuse_mixtures(
    name: str, leaves: list[Any], ours: list[DeviceTensor], others: list[Tensor], device: str
) -> None:
    if ours and any(x.dim() for x in others) and name not in COPIES | INDEXED:
        raise MixedDevicesError(f"{name} of tensors on sim:0 and cpu at {line_of_nasrun()}")
    for generator in leaves:
        if isinstance(generator, torch._C.Generator):  # not the one of ``stand_in``
            own = _SEEDED.get(generator.initial_seed(), "cpu")
            if own != device:
                raise MixedDevicesError(
                    f"{name} on {device} with a generator of {own} at {line_of_nasrun()}"
                )


def lstm_cell(
    inputs: Tensor,
    hidden: Tensor,
    cell: Tensor,
    bias: Tensor | None = None,
    hidden_bias: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Do an LSTM's step from its gates before activation, [B, 4 H] each, and its cell [B, H].

    Devices other than the CPU have one operation for it. Returns hidden, cell, activated gates.
    """
    gates = inputs + hidden
    for each in (bias, hidden_bias):
        gates = gates if each is None else gates + each
    opens, forgets, writes, shows = gates.chunk(4, 1)
    opens, forgets, shows = opens.sigmoid(), forgets.sigmoid(), shows.sigmoid()
    writes = writes.tanh()
    after = forgets * cell + opens * writes
    return shows * after.tanh(), after, torch.cat([opens, forgets, writes, shows], 1)


def lstm_cell_backward(
    of_hidden: Tensor | None,
    of_cell: Tensor | None,
    before: Tensor,
    after: Tensor,
    activated: Tensor,
    has_bias: bool,
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Return the gradients of the gates before activation, the cell and the bias."""
    opens, forgets, writes, shows = activated.chunk(4, 1)
    seen = after.tanh()
    along = torch.zeros_like(after) if of_cell is None else of_cell
    of_shown = torch.zeros_like(after) if of_hidden is None else of_hidden
    along = along + of_shown * shows * (1 - seen**2)
    gates = torch.cat(
        [
            along * writes * opens * (1 - opens),
            along * before * forgets * (1 - forgets),
            along * opens * (1 - writes**2),
            of_shown * seen * shows * (1 - shows),
        ],
        1,
    )
    return gates, along * forgets, gates.sum(0) if has_bias else None


LACKING: dict[str, Callable[..., Any]] = {
    "aten._thnn_fused_lstm_cell": lstm_cell,
    "aten._thnn_fused_lstm_cell_backward_impl": lstm_cell_backward,
}
"""Operations of other devices that the CPU does not have."""


class _Factories(TorchDispatchMode):
    """Leads operations to the device that name it, but take no tensor of it."""

    def __torch_dispatch__(
        self, function: Any, types: Any, arguments: Any = (), keywords: Any = None
    ) -> Any:
        keywords = keywords or {}
        device = keywords.get("device")
        if device is not None and torch.device(device).type == "sim":
            return dispatch(function, arguments, keywords)
        leaves = tree_leaves((arguments, keywords))
        if any(isinstance(leaf, DeviceTensor) for leaf in leaves):
            return dispatch(function, arguments, keywords)
        _refuse_mixtures(str(function), leaves, [], [], "cpu")
        return function(*arguments, **keywords)


class _Generator(torch._C.Generator):
    """A generator that remembers its device; only seeded ones are told apart."""

    def __new__(cls, device: torch.device | str = "cpu") -> _Generator:
        made = super().__new__(cls, "cpu")
        made.kind = torch.device(device).type
        return made

    def __init__(self, device: torch.device | str = "cpu") -> None:
        pass

    def manual_seed(self, seed: int) -> torch.Generator:
        super().manual_seed(seed)
        _SEEDED[self.initial_seed()] = self.kind
        return self


@contextmanager
def stand_in() -> Iterator[Ledger]:
    """Make the device, in a process that is thrown away afterwards; yields its ledger."""
    getattr(backend_registration, SETUP)(rename="sim")
    tensor = torch.tensor

    def made(data: Any, *rest: Any, device: Any = None, **keywords: Any) -> Tensor:
        found = tensor(data, *rest, **keywords)
        on_device = device is not None and torch.device(device).type == "sim"
        return found.to("sim:0") if on_device else found

    with ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.setattr(torch, "tensor", made)
        patch.setattr(torch, "Generator", _Generator)
        # Tensors made in inference mode could not be told apart from their numbers later.
        mode = torch.autograd.grad_mode.inference_mode
        patch.setattr(mode, "__enter__", lambda self: _no_grad(self).__enter__())
        patch.setattr(mode, "__exit__", lambda self, *error: self.plain.__exit__(*error))
        # The device has no thread of its own for the backward pass.
        stack.enter_context(torch.autograd.set_multithreading_enabled(False))
        stack.enter_context(_Factories())
        yield LEDGER


def _no_grad(mode: Any) -> torch.no_grad:
    mode.plain = torch.no_grad()
    return mode.plain


def device_compute(on_nonfinite: OnNonfinite = "stop") -> Compute:
    """The stand-in as nasrun sees a GPU, in fp32."""
    return Compute(torch.device("sim:0"), bf16=False, channels_last=True, on_nonfinite=on_nonfinite)


def apart(work: Callable[[Ledger], Answer]) -> Answer:
    """Return what ``work`` returns on a stand-in, in a forked process.

    Raises AssertionError with its traceback if it fails. Skips the test where torch cannot make
    the device, or where there is a GPU, since torch then cannot be forked.
    """
    if not hasattr(backend_registration, SETUP):
        pytest.skip("this torch makes no device in Python")
    if torch.cuda.is_available():
        pytest.skip("a process that has used a GPU cannot be forked")
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        answer: tuple[bool, Any] = (False, "nothing came back")
        try:
            with stand_in() as ledger:
                answer = True, work(ledger)
        except BaseException:
            answer = False, traceback.format_exc()[:6000]
        finally:
            with os.fdopen(writing, "wb") as file:
                pickle.dump(answer, file)
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as file:
        sent = file.read()
    os.waitpid(child, 0)
    done, answer_ = pickle.loads(sent) if sent else (False, "it died")  # noqa: S301
    assert done, answer_
    return answer_
