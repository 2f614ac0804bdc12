"""``nasrun export``: a trained network as a folder that other programs can use."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any

import torch
from pydantic import Field, NonNegativeInt
from torch import Tensor, nn

from nasrun.errors import UserError
from nasrun.export import programs, speed
from nasrun.export.bundle import Made, Story, python_file, readme
from nasrun.export.programs import Format
from nasrun.export.source_code import write_classes
from nasrun.export.speed_report import in_words, rows_of
from nasrun.model.model import Model
from nasrun.run.checkpoints import MAX_TENSOR_BYTES
from nasrun.run.commands import command, shown
from nasrun.run.files import make_folder, read_bytes, write_bytes
from nasrun.run.layout import (
    BUNDLE,
    BUNDLE_CODE,
    BUNDLE_ONNX,
    BUNDLE_README,
    BUNDLE_TORCH,
    NETWORK,
)
from nasrun.run.run import Run
from nasrun.task.of_network import OfNetwork, Source
from nasrun.task.real_images import real_images
from nasrun.task.setup import Setup

FILES: dict[Format, str] = {"py": BUNDLE_CODE, "pt2": BUNDLE_TORCH, "onnx": BUNDLE_ONNX}
"""The file of each format."""

BATCHES = (1, 7, 2, 30)
"""Numbers of images that each program is given in turn."""


class ExportTask(OfNetwork[tuple[Tensor, str]]):
    """Write a network in other formats, each checked against the network itself.

    formats: which. images: real images for the check. tolerance: largest difference of an output.
    repeats: measurements of the latency that the README tells; 0: none.
    """

    settings = "export"

    def __init__(
        self,
        *,
        formats: Annotated[list[Format], Field(min_length=1)],
        images: Annotated[int, Field(ge=2, le=10_000)],
        tolerance: Annotated[float, Field(gt=0, le=1)],
        repeats: Annotated[int, Field(ge=0, le=10_000)],
        warm_up: NonNegativeInt,
    ) -> None:
        self.formats, self.images, self.tolerance = formats, images, tolerance
        self.repeats, self.warm_up = repeats, warm_up

    def prepare(self, setup: Setup, run: Run, model: Model, source: Source) -> tuple[Tensor, str]:
        """Find images for the check."""
        return real_images(setup, run, model, self.images)

    def work(
        self,
        setup: Setup,
        run: Run,
        model: Model,
        source: Source,
        prepared: tuple[Tensor, str],
    ) -> dict[str, Any]:
        """Write the bundle; a format that fails is left out, with the reason."""
        images, checked = prepared
        network = bare(model)
        weights = read_bytes(run.directory / NETWORK, MAX_TENSOR_BYTES)
        with torch.no_grad():
            logits = network(images)
        if not logits.isfinite().all():
            raise UserError("the outputs of the network are not finite: there is no use of it")
        folder = run.directory / BUNDLE
        make_folder(folder)
        write_bytes(folder / NETWORK, weights)
        made = {NETWORK: Made(NETWORK)}
        cases: list[speed.Case] = []
        shape = model.manifest.problem.shape
        with run.stage("export", len(self.formats)) as stage:
            for kind in dict.fromkeys(self.formats):
                run.poll()
                name = FILES[kind]
                try:
                    data, program = write(kind, model, network, weights)
                    gap = programs.largest_difference(program, images, logits, BATCHES)
                    if gap > self.tolerance:
                        raise UserError(
                            f"its outputs differ by up to {gap:.1e}, more than the "
                            f"{self.tolerance:.1e} of export.tolerance"
                        )
                except UserError as error:
                    made[name] = Made(name, left_out=str(error))
                    (folder / name).unlink(missing_ok=True)
                    run.say(f"{name} is left out: {error}", "yellow")
                else:
                    write_bytes(folder / name, data)
                    made[name] = Made(name, gap)
                    if kind == "onnx":
                        cases += speed.program_cases("onnxruntime", program, shape, [1])
                stage.advance(1)
        speeds = self._latencies(run, model, network, cases)
        story = Story(
            source.command,
            facts_of(model, source),
            [f"- {line}" for line in in_words(speeds, run)],
            checked,
        )
        write_bytes(folder / BUNDLE_README, readme(model, made, story).encode())
        result = run.finish(
            {
                "bundle": BUNDLE,
                "files": {
                    name: {"left_out": one.left_out}
                    if one.left_out is not None
                    else {"largest_difference": one.difference, "bytes": size(folder / name)}
                    for name, one in made.items()
                },
                "tolerance": self.tolerance,
                "checked_on": checked,
                "latency": rows_of(speeds),
            }
        )
        show_end(run, made, speeds)
        return result

    def _latencies(
        self, run: Run, model: Model, network: nn.Module, cases: Sequence[speed.Case]
    ) -> list[speed.Speed]:
        """Measure the latency of a single image, as the README tells it."""
        if not self.repeats:
            return []
        shape = model.manifest.problem.shape
        return speed.measure(
            [*speed.torch_cases(network, shape, [1], run.compute), *cases],
            run,
            repeats=self.repeats,
            warm_up=self.warm_up,
            confidence=0.95,
            rng=run.streams.numpy("benchmark/order"),
        )


def bare(model: Model) -> nn.Module:
    """Return the network on the CPU in torch's usual layout, without a head for training alone."""
    network: nn.Module = model.network.to("cpu").to(memory_format=torch.contiguous_format)
    if isinstance(getattr(network, "auxiliary", None), nn.Module):
        network.auxiliary = None  # type: ignore[assignment]
    return network


def write(
    kind: Format, model: Model, network: nn.Module, weights: bytes
) -> tuple[bytes, Callable[[Tensor], Tensor]]:
    """Return the bytes of a format, and the function that they stand for once read again.

    Raises UserError if the network cannot be written so, or a package is missing.
    """
    shape = model.manifest.problem.shape
    if kind == "py":
        text = python_file(model, write_classes(network, shape))
        return text.encode(), programs.run_python(text, weights)
    if kind == "pt2":
        data = programs.torch_program(network, shape)
        return data, programs.run_torch_program(data)
    if (missing := programs.missing_for_onnx()) is not None:
        raise UserError(missing)
    data = programs.onnx_program(network, shape)
    return data, programs.run_onnx_program(data)


def facts_of(model: Model, source: Source) -> list[tuple[str, str]]:
    """Return what is known of the run that trained the network, as labels and texts."""
    origin, content = model.manifest.origin, source.content
    versions = content.get("versions")
    torch_version = versions.get("torch") if isinstance(versions, dict) else None
    facts = [
        ("run", origin.run),
        ("task", f"nasrun {origin.task}"),
        ("data", origin.dataset),
        ("seed", str(origin.seed)),
        ("nasrun", origin.nasrun),
        ("torch", torch_version),
        ("device", content.get("device")),
        ("begun", content.get("started")),
    ]
    return [(label, str(text)) for label, text in facts if text is not None]


def show_end(run: Run, made: dict[str, Made], speeds: Sequence[speed.Speed]) -> None:
    """Show what was made in the box at the end."""
    differences = ", ".join(
        f"{one.name} {one.difference:.0e}" for one in made.values() if one.difference is not None
    )
    rows = [("bundle", shown(run.directory / BUNDLE))]
    rows += [("differences", differences)] if differences else []
    left_out = ", ".join(one.name for one in made.values() if one.left_out is not None)
    rows += [("left out", left_out)] if left_out else []
    if speeds:
        words = [f"{one.engine} {one.milliseconds.value:.3g} ms" for one in speeds]
        rows.append(("latency", f"{', '.join(words)} (one image)"))
    run.show_end("export done", rows, [command("benchmark", f"from={shown(run.directory)}")])


def size(path: Any) -> int:
    """Return the size of a file, in bytes."""
    return int(path.stat().st_size)
