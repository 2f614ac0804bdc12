"""A network as a program of torch.export, as ONNX and as Python, each read again.

What each gives is held against the network itself, on the CPU in fp32.
"""

from __future__ import annotations

import contextlib
import io
import logging
import re
import warnings
from collections.abc import Callable, Iterator
from importlib.abc import InspectLoader
from importlib.machinery import ModuleSpec
from importlib.util import find_spec, module_from_spec
from typing import Any, Literal

import torch
from torch import Tensor, nn

from nasrun.errors import UserError
from nasrun.run.state import decode_tensors

Format = Literal["py", "pt2", "onnx"]

Run = Callable[[Tensor], Tensor]
"""Images float32 [B, C, S, S] on the CPU -> logits [B, K]."""

ONNX_PACKAGES = ("onnx", "onnxruntime", "onnxscript")
"""Packages that ONNX needs; the extra ``export`` installs them."""

OPSET = 18
"""Version of ONNX's operators that is written; the first that torch's exporter writes by itself."""

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")

_EXAMPLES = 2
"""Images of the example that is followed; of one, torch would take the number for a constant."""


def missing_for_onnx() -> str | None:
    """Return a line that says what to install for ONNX; None if all is there."""
    absent = [name for name in ONNX_PACKAGES if find_spec(name) is None]
    if not absent:
        return None
    return f"ONNX needs {', '.join(absent)}: pip install 'nasrun[export]'"


def torch_program(network: nn.Module, shape: tuple[int, int, int]) -> bytes:
    """Return the bytes of a .pt2 file, which takes any number of images.

    network: in evaluation mode, on the CPU. shape: of an image, [C, S, S].
    Raises UserError if torch cannot export it.
    """
    with _quiet(), torch.no_grad():
        program = _exported(network, shape)
        for node in program.graph.nodes:
            node.meta.pop("stack_trace", None)  # paths of this machine
        buffer = io.BytesIO()
        torch.export.save(program, buffer)
    return buffer.getvalue()


def run_torch_program(data: bytes) -> Run:
    """Return the function that a .pt2 file stands for; the bytes are our own."""
    with _quiet():
        module = torch.export.load(io.BytesIO(data)).module()
    return _without_gradients(module)


def onnx_program(network: nn.Module, shape: tuple[int, int, int]) -> bytes:
    """Return the bytes of an .onnx file with input ``images`` and output ``logits``, any batch.

    Raises UserError if torch cannot export it.
    """
    with _quiet(), torch.no_grad():
        program = _tried(
            "ONNX",
            lambda: torch.onnx.export(
                network,
                (torch.zeros(_EXAMPLES, *shape),),
                dynamo=True,
                input_names=["images"],
                output_names=["logits"],
                opset_version=OPSET,
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                custom_translation_table={torch.ops.aten.amax.default: _largest},
                external_data=False,
                verbose=False,
            ),
        )
    proto = program.model_proto
    for node in (*proto.graph.node, *(node for one in proto.functions for node in one.node)):
        node.ClearField("metadata_props")  # traces with paths of this machine
        node.ClearField("doc_string")
    data: bytes = proto.SerializeToString()
    return data


def _largest(x: Any, dim: Any = (), keepdim: bool = False) -> Any:
    """Translate ``amax``, which torch's exporter takes with a list of dimensions alone."""
    from onnxscript import opset18

    if not dim:
        return opset18.ReduceMax(x, keepdims=int(keepdim))
    axes: Any = opset18.Constant(value_ints=list(dim))
    return opset18.ReduceMax(x, axes, keepdims=int(keepdim))


def run_onnx_program(data: bytes, threads: int | None = None) -> Run:
    """Return the function that an .onnx file stands for, computed by onnxruntime on the CPU.

    threads: that onnxruntime computes with; None: as many as torch.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or torch.get_num_threads()
    options.log_severity_level = 3  # errors alone
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])

    def run(images: Tensor) -> Tensor:
        (logits,) = session.run(["logits"], {"images": images.numpy()})
        return torch.from_numpy(logits)

    return run


def run_python(source: str, weights: bytes) -> Run:
    """Return the function of the network in a written model.py, with its weights.

    source: our own text, written from a network. weights: bytes of network.safetensors.
    """
    spec = ModuleSpec("written_network", _Text(source))
    module = module_from_spec(spec)
    spec.loader.exec_module(module)  # type: ignore[union-attr]
    network: nn.Module = module.Network()
    found = decode_tensors(weights)
    network.load_state_dict({name: found[name] for name in network.state_dict()})
    return _without_gradients(network.eval())


class _Text(InspectLoader):
    """Loads a module from a text, and leaves no file behind."""

    def __init__(self, source: str) -> None:
        self.source = source

    def get_source(self, fullname: str) -> str:
        return self.source

    def is_package(self, fullname: str) -> bool:
        return False


def largest_difference(run: Run, images: Tensor, logits: Tensor, batches: tuple[int, ...]) -> float:
    """Return the largest difference of a program's outputs from the network's.

    Where an output is larger than 1, it is the difference over the largest output.
    images: float32 [N, C, S, S]. logits: of the network, [N, K]. batches: numbers of images that
    the program is given at once, in turn, so that it is seen to take any number.
    """
    largest, start, turn = 0.0, 0, 0
    scale = max(1.0, logits.abs().max().item())
    while start < len(images):
        part = slice(start, start + batches[turn % len(batches)])
        found = run(images[part])
        if found.shape != logits[part].shape:
            raise UserError(f"its outputs are {list(found.shape)}, not {list(logits[part].shape)}")
        gap = (found - logits[part]).abs().max().item() / scale
        largest = max(largest, gap) if gap == gap else float("inf")
        start, turn = part.stop, turn + 1
    return largest


def _without_gradients(module: nn.Module) -> Run:
    def run(images: Tensor) -> Tensor:
        with torch.no_grad():
            logits: Tensor = module(images)
        return logits

    return run


def _exported(network: nn.Module, shape: tuple[int, int, int]) -> Any:
    return _tried(
        "torch.export",
        lambda: torch.export.export(
            network,
            (torch.zeros(_EXAMPLES, *shape),),
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            strict=False,
        ),
    )


def _tried(name: str, export: Callable[[], Any]) -> Any:
    """Call ``export``; its errors, which are of any kind, become a UserError of one line."""
    try:
        return export()
    except MemoryError:
        raise
    except Exception as error:
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        words = " ".join(_COLOURS.sub("", str(cause)).split())[:200]
        raise UserError(f"{name} cannot export it ({type(cause).__name__}: {words})") from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporters' own warnings off the screen."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            logger.setLevel(level)
