"""The states of parts as data: what comes back is what was given, bit for bit."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from nasrun.run.state import (
    decode_tensors,
    encode_tensors,
    load_optimiser_state,
    optimiser_state,
    pack,
    unpack,
)

DTYPES = [torch.bool, torch.int32, torch.int64]
DTYPES += [torch.float16, torch.bfloat16, torch.float32, torch.float64]


class PanicException(BaseException):
    """What pyo3 makes of a panic in Rust."""


@pytest.mark.parametrize(
    ("text", "kind"),
    [("capacity overflow", MemoryError), ("index out of bounds", ValueError)],
)
def test_a_panic_of_safetensors_is_an_error(
    text: str, kind: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    def panic(*arguments: Any, **named: Any) -> Any:
        raise PanicException(text)

    for module, name in (("torch", "load"), ("torch", "save"), ("numpy", "save")):
        monkeypatch.setattr(f"safetensors.{module}.{name}", panic)
    with pytest.raises(kind, match=text):
        decode_tensors(b"")
    with pytest.raises(MemoryError, match=text):
        encode_tensors({"x": torch.zeros(1)})


def round_trip(state: Any) -> Any:
    tree, tensors = pack(state)
    return unpack(json.loads(json.dumps(tree)), decode_tensors(encode_tensors(tensors)))


def bits(value: Any) -> Any:
    """Equal for equal values only: types, shapes and every bit."""
    if isinstance(value, torch.Tensor):
        content = value.detach().contiguous().flatten().view(torch.uint8).tolist()
        return value.dtype, tuple(value.shape), content
    if isinstance(value, dict):
        return {key: bits(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [bits(inner) for inner in value]
    return type(value), struct.pack("<d", value) if isinstance(value, float) else value


def of_bytes(dtype: torch.dtype, shape: list[int], seed: int) -> torch.Tensor:
    """Any bits at all: also NaN of every kind, infinities and -0."""
    generator = torch.Generator().manual_seed(seed)
    most = 2 if dtype == torch.bool else 256
    size = (math.prod(shape) * dtype.itemsize,)
    return torch.randint(most, size, generator=generator, dtype=torch.uint8).view(dtype).view(shape)


TENSORS = st.builds(
    of_bytes,
    st.sampled_from(DTYPES),
    st.lists(st.integers(0, 3), max_size=4),
    st.integers(0, 2**32),
)
LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
KEYS = st.text(st.characters(exclude_characters="/$", exclude_categories=("Cs",)), min_size=1)
STATES = st.dictionaries(
    KEYS,
    st.recursive(
        LEAVES | TENSORS,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
        max_leaves=8,
    ),
    max_size=4,
)


@settings(max_examples=80, deadline=None)
@given(STATES)
def test_every_state_comes_back_bit_for_bit(state: dict[str, Any]) -> None:
    assert bits(round_trip(state)) == bits(state)


def test_special_values_come_back() -> None:
    whole = torch.arange(48.0).view(2, 3, 4, 2)
    specials = torch.tensor([-0.0, math.inf, -math.inf, math.nan])
    state = {
        "numbers": [0, -0.0, math.inf, -math.inf, 2**53 + 1, -(2**70), 5e-324, 0.1],
        "nan": math.nan,
        "ключ 键 🗝": {"": None, "a\n": "ß\x00"},
        "specials": [specials.to(dtype) for dtype in DTYPES if dtype.is_floating_point],
        "empty": torch.zeros(0, 2),
        "scalar": torch.tensor(7),
        "layout": whole.to(memory_format=torch.channels_last),
        "strided": whole[:, 1:, ::2],
        "views": [whole[0], whole[0], whole.flatten()[5:]],
        "expanded": torch.ones(1, 3).expand(4, 3),
        "parameter": nn.Parameter(torch.ones(2)),
        "tuple": (1, (2.0,)),
    }
    assert bits(round_trip(state)) == bits(state)


def test_a_state_is_a_copy() -> None:
    tensor = torch.zeros(3)
    _, tensors = pack({"a": tensor})
    tensor += 1
    assert tensors["a"].tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    "state",
    [
        {"a": {1, 2}},
        {"a": Ellipsis},
        {"a": b"bytes"},
        {"a": torch.float32},
        {"a": [1j]},
        {1: "a"},
        {"a": {None: 1}},
        {"$tensor": "a"},
        {"a": [{"$tensor": 1}]},
        {"a": {"b": torch.zeros(1)}, "a/b": torch.ones(1)},
        {"a": torch.zeros(2, dtype=torch.complex64)},
        {"a": torch.zeros(2, dtype=torch.uint8)},
    ],
    ids=str,
)
def test_nothing_else_is_a_state(state: dict[Any, Any]) -> None:
    with pytest.raises(TypeError):
        pack(state)


def test_missing_tensors_and_strange_files() -> None:
    with pytest.raises(KeyError):
        unpack({"a": {"$tensor": "b"}}, {})
    for data in (b"", b"PK\x03\x04", b"\xff" * 100, encode_tensors({"a": torch.ones(9)})[:-1]):
        with pytest.raises(ValueError, match="safetensors"):
            decode_tensors(data)


OPTIMISERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
    "plain": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.0),
    "adam": lambda p: torch.optim.Adam(p, lr=0.1),
}


def learner(kind: str) -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 2))
    network.append(nn.Linear(2, 2))  # the last one is never used, so it gathers nothing
    network = network.to(memory_format=torch.channels_last)
    return network, OPTIMISERS[kind](list(network.parameters()))


def learn(
    network: nn.Module, optimiser: torch.optim.Optimizer, steps: range, layers: int = 4
) -> None:
    for step in steps:
        images = torch.randn(5, 3, 4, 4, generator=torch.Generator().manual_seed(step))
        optimiser.zero_grad()
        assert isinstance(network, nn.Sequential)
        network[:layers](images).square().sum().backward()
        optimiser.step()


@pytest.mark.parametrize("kind", OPTIMISERS)
def test_an_optimiser_goes_on_as_if_unbroken(kind: str) -> None:
    network, optimiser = learner(kind)
    learn(network, optimiser, range(4))
    kept = round_trip(
        {"network": dict(network.state_dict()), "optimiser": optimiser_state(optimiser)}
    )
    learn(network, optimiser, range(4, 8))
    again, other = learner(kind)
    learn(again, other, range(50, 52), layers=5)  # what it has gathered so far must go
    again.load_state_dict(kept["network"])
    load_optimiser_state(other, kept["optimiser"])
    learn(again, other, range(4, 8))
    assert bits(dict(again.state_dict())) == bits(dict(network.state_dict()))
    assert bits(optimiser_state(other)) == bits(optimiser_state(optimiser))
    assert kind == "plain" or "6" not in kept["optimiser"]
    for parameter, gathered in other.state.items():
        buffers = [value for value in gathered.values() if value.dim()]
        assert {value.stride() for value in buffers} == {parameter.stride()}  # as fast as before


@pytest.mark.parametrize("number", ["-1", "8", "x", "1.0"])
def test_an_optimiser_refuses_other_parameters(number: str) -> None:
    _, optimiser = learner("sgd")
    with pytest.raises(ValueError, match=r"parameter|int"):
        load_optimiser_state(optimiser, {number: {"momentum_buffer": torch.zeros(4)}})


@pytest.mark.parametrize("shape", [[], [1], [4, 3, 3, 1], [108]])
def test_an_optimiser_refuses_other_shapes(shape: list[int]) -> None:
    _, optimiser = learner("sgd")
    with pytest.raises(ValueError, match="shape"):
        load_optimiser_state(optimiser, {"0": {"momentum_buffer": torch.zeros(shape)}})
