"""The state of an object as data: a tree of JSON values, and the tensors that it names.

Every object that is kept in checkpoints (a training, a search algorithm) gives its state as nested
dicts and lists of numbers, strings and tensors. Nothing else is written or read: no classes, no
code.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from safetensors import numpy as safetensors_numpy
from safetensors import torch as safetensors
from torch import Tensor

from nasrun.errors import is_panic
from nasrun.run.files import parse_json

_TENSOR = "$tensor"
_NUMBERS = frozenset(
    {torch.bool, torch.int32, torch.int64}
    | {torch.float16, torch.bfloat16, torch.float32, torch.float64}
)
"""Number types of the tensors of a state: none are complex or of eight bits."""

MAX_HEADER_BYTES = 2**26
"""Size of the header of a safetensors file that is still read."""

_GATHERED = {
    torch.optim.SGD: {"momentum_buffer"},
    torch.optim.Adam: {"step", "exp_avg", "exp_avg_sq"},
}
"""Names of the tensors that an optimiser keeps for each parameter."""

State = dict[str, Any]
"""Nested dicts (string keys) and lists of None, bool, int, float, str and tensors."""


class Stateful(Protocol):
    """An object whose state can be kept in checkpoints."""

    def state_dict(self) -> State: ...

    def load_state_dict(self, state: State) -> None: ...


def pack(state: State) -> tuple[Any, dict[str, Tensor]]:
    """Split a state into a JSON tree and its tensors by name, on the CPU.

    Raises TypeError over any other kind of value.
    """
    tensors: dict[str, Tensor] = {}

    def visit(value: Any, name: str) -> Any:
        if isinstance(value, Tensor):
            if name in tensors:
                raise TypeError(f"two tensors of a state are called {name!r}")
            if value.dtype not in _NUMBERS:
                raise TypeError(f"a state cannot hold a tensor of {value.dtype} ({name!r})")
            # Copied, since safetensors refuses tensors that share memory.
            tensors[name] = value.detach().to("cpu", copy=True).contiguous()
            return {_TENSOR: name}
        if isinstance(value, dict):
            if _TENSOR in value or not all(isinstance(key, str) for key in value):
                raise TypeError(f"the keys of a state must be strings: {name!r}")
            return {
                key: visit(inner, f"{name}/{key}" if name else key) for key, inner in value.items()
            }
        if isinstance(value, list | tuple):
            return [visit(inner, f"{name}/{index}") for index, inner in enumerate(value)]
        if value is None or isinstance(value, bool | int | float | str):
            return value
        raise TypeError(f"a state cannot hold a {type(value).__name__} ({name!r})")

    return visit(state, ""), tensors


def unpack(tree: Any, tensors: dict[str, Tensor]) -> Any:
    """Undo ``pack``; raises KeyError if a tensor is missing."""
    if isinstance(tree, dict):
        if _TENSOR in tree:
            return tensors[tree[_TENSOR]]
        return {key: unpack(value, tensors) for key, value in tree.items()}
    if isinstance(tree, list):
        return [unpack(value, tensors) for value in tree]
    return tree


def encode_tensors(tensors: dict[str, Tensor], metadata: Mapping[str, str] | None = None) -> bytes:
    """Make the bytes of a safetensors file from tensors as ``pack`` gives them.

    metadata: texts for the file's header; they change no byte of the tensors.
    Raises MemoryError if there is no memory for them.
    """
    texts = dict(metadata) if metadata else None
    with _panics_as(MemoryError):
        if any(tensor.dtype == torch.bfloat16 for tensor in tensors.values()):
            return safetensors.save(tensors, texts)  # numpy has no such number type
        # Gives the same bytes, ten times as fast for the many small tensors of a supernet.
        arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
        return safetensors_numpy.save(arrays, texts)


def metadata_of(data: bytes) -> dict[str, str]:
    """Return the texts in the header of a safetensors file, without reading its tensors.

    Raises ValueError if they are no such file.
    """
    size = int.from_bytes(data[:8], "little")
    if len(data) < 8 or not 0 < size <= min(len(data) - 8, MAX_HEADER_BYTES):
        raise ValueError("no safetensors file: its header has no length that can be")
    header = parse_json(data[8 : 8 + size])
    found = header.get("__metadata__", {}) if isinstance(header, dict) else None
    if not isinstance(found, dict) or not all(isinstance(text, str) for text in found.values()):
        raise ValueError("no safetensors file: its header is none")
    return found


def decode_tensors(data: bytes) -> dict[str, Tensor]:
    """Read the bytes of a safetensors file; raises ValueError if they are no such file."""
    try:
        with _panics_as(ValueError):
            tensors = safetensors.load(data)
    except MemoryError:
        raise
    except Exception as error:  # safetensors' own errors, and errors of torch over a bad header
        raise ValueError(f"no safetensors file: {error}") from error
    for tensor in tensors.values():
        if tensor.dtype not in _NUMBERS:
            raise ValueError(f"no state has tensors of {tensor.dtype}")
    return tensors


@contextmanager
def _panics_as(kind: type[Exception]) -> Iterator[None]:
    """Turn a panic of Rust code, which no ``except Exception`` catches, into an error.

    It becomes a MemoryError if it speaks of memory, else one of the ``kind``.
    """
    try:
        yield
    except BaseException as error:
        if not is_panic(error):
            raise
        text = str(error)
        short = any(words in text.lower() for words in ("memory", "alloc", "capacity overflow"))
        raise (MemoryError if short else kind)(f"safetensors: {text}") from error


def whole_number(value: Any, *, most: int) -> int:
    """Return ``value``; raises ValueError if it is no integer from 0 to ``most``."""
    if type(value) is not int or not 0 <= value <= most:
        raise ValueError(f"{value!r:.80} is no number from 0 to {most}")
    return value


def optimiser_state(optimiser: torch.optim.Optimizer) -> State:
    """Return the tensors that the optimiser keeps, by the number of the parameter.

    Settings of the optimiser are left out: they come from the configuration and the step.
    """
    return {
        str(index): dict(optimiser.state[parameter])
        for index, parameter in enumerate(_parameters(optimiser))
        if parameter in optimiser.state
    }


def load_optimiser_state(optimiser: torch.optim.Optimizer, state: State) -> None:
    """Undo ``optimiser_state``; raises ValueError if it does not fit the parameters."""
    parameters = _parameters(optimiser)
    optimiser.state.clear()
    for number, values in state.items():
        if not 0 <= int(number) < len(parameters):
            raise ValueError(f"there is no parameter {number}")
        if values.keys() != _GATHERED.get(type(optimiser), values.keys()):
            raise ValueError(f"its parameters have {', '.join(values)!r:.80}")
        parameter = parameters[int(number)]
        optimiser.state[parameter] = {
            name: _counted(value) if name == "step" else _placed(value, parameter)
            for name, value in values.items()
        }


def _counted(steps: Tensor) -> Tensor:
    """Check a number of steps, which stays on the CPU."""
    if steps.dim() or not 0 <= steps.item() < math.inf:
        raise ValueError("no number of steps")
    return steps.float()


def _placed(value: Tensor, parameter: Tensor) -> Tensor:
    """Copy a tensor into the memory layout and to the device of its parameter."""
    if value.shape != parameter.shape:
        raise ValueError(f"a buffer of shape {list(value.shape)} for {list(parameter.shape)}")
    return torch.empty_like(parameter, requires_grad=False).copy_(value)


def _parameters(optimiser: torch.optim.Optimizer) -> list[Tensor]:
    return [parameter for group in optimiser.param_groups for parameter in group["params"]]
