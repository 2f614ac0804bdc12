"""``nasrun benchmark``: how fast a trained network is, by batch size."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeInt

from nasrun.errors import UserError, plural
from nasrun.export import programs, speed
from nasrun.export.speed_report import machine, plot_speed, rows_of, table, write_table
from nasrun.limits import Count
from nasrun.model.model import Model
from nasrun.run.commands import command, shown
from nasrun.run.layout import SPEED, SPEED_PICTURE
from nasrun.run.run import Run
from nasrun.task.export import bare
from nasrun.task.of_network import OfNetwork, Source
from nasrun.task.setup import Setup

Engine = Literal["torch", "onnxruntime"]


class BenchmarkTask(OfNetwork[None]):
    """Measure the latency of a whole network by batch size, and its memory.

    batch_sizes: images of a forward pass. engines: what computes the network.
    repeats: rounds, in each of which every case is measured once. warm_up: forward passes before.
    confidence: of the intervals. max_spread: of the times of a case, above which the machine counts
    as busy: distance of their quartiles over their median.
    """

    settings = "benchmark"

    def __init__(
        self,
        *,
        batch_sizes: Annotated[list[Count], Field(min_length=1, max_length=100)],
        engines: Annotated[list[Engine], Field(min_length=1)],
        repeats: Annotated[int, Field(ge=3, le=100_000)],
        warm_up: NonNegativeInt,
        confidence: Annotated[float, Field(gt=0, lt=1)],
        max_spread: Annotated[float, Field(gt=0)],
    ) -> None:
        self.batch_sizes, self.engines = batch_sizes, engines
        self.repeats, self.warm_up = repeats, warm_up
        self.confidence, self.max_spread = confidence, max_spread

    def prepare(self, setup: Setup, run: Run, model: Model, source: Source) -> None:
        """Check that there is an engine; raises UserError if there is none."""
        missing = programs.missing_for_onnx()
        if missing is not None and self.engines == ["onnxruntime"]:
            raise UserError(f"benchmark.engines=[onnxruntime]: {missing}")

    def work(
        self, setup: Setup, run: Run, model: Model, source: Source, prepared: None
    ) -> dict[str, Any]:
        """Measure all cases, and write the table and the picture."""
        sizes = sorted(set(self.batch_sizes))
        facts = machine(run)
        cases, memory = self._cases(run, model, sizes)
        speeds = speed.measure(
            cases,
            run,
            repeats=self.repeats,
            warm_up=self.warm_up,
            confidence=self.confidence,
            rng=run.streams.numpy("benchmark/order"),
            memory=memory,
        )
        write_table(run.directory / SPEED, speeds)
        where = f"{facts['device']}; {facts['processor']}"
        plot_speed(speeds, run.directory / SPEED_PICTURE, where)
        run.say(f"{where}, load {facts['load']:.1f}" if facts["load"] is not None else where)
        for line in table(speeds, self.confidence):
            run.say(line)
        restless = [one for one in speeds if not one.steady(self.max_spread)]
        for line in told_busy(restless):
            run.say(line, "yellow")
        first, best = speeds[0], max(speeds, key=lambda one: one.images_per_second)
        result = run.finish(
            {
                "latency_ms": first.milliseconds.value,
                "images_per_second": best.images_per_second,
                "steady": not restless,
                "machine": facts,
                "confidence": self.confidence,
                "rows": rows_of(speeds),
            }
        )
        show_end(run, first, best, bool(restless))
        return result

    def _cases(
        self, run: Run, model: Model, sizes: list[int]
    ) -> tuple[list[speed.Case], dict[tuple[str, int], int]]:
        shape = model.manifest.problem.shape
        network = bare(model)
        cases: list[speed.Case] = []
        onnx: list[speed.Case] = []
        if "onnxruntime" in self.engines:
            missing = programs.missing_for_onnx()
            try:
                if missing is not None:
                    raise UserError(missing)
                program = programs.run_onnx_program(programs.onnx_program(network, shape))
                onnx = speed.program_cases("onnxruntime", program, shape, sizes)
            except UserError as error:
                if "torch" not in self.engines:
                    raise
                run.say(f"onnxruntime is left out: {error}", "yellow")
        memory = {}
        if "torch" in self.engines:
            cases = speed.torch_cases(network, shape, sizes, run.compute)
            for size in sizes:
                run.poll()
                memory["torch", size] = speed.peak_memory(network, shape, size, run.compute)
        return [*cases, *onnx], memory


def told_busy(restless: list[speed.Speed]) -> list[str]:
    """Say that the machine is busy, if some times spread too widely."""
    if not restless:
        return []
    worst = max(restless, key=lambda one: one.spread)
    return [
        f"the machine is busy: times spread by up to {100 * worst.spread:.0f} % of their median "
        f"({worst.engine}, {worst.batch_size} at once); do not rely on {len(restless)} of the "
        "rows, measure again when nothing else computes"
    ]


def show_end(run: Run, first: speed.Speed, best: speed.Speed, busy: bool) -> None:
    """Show the numbers that count in the box at the end."""
    time = first.milliseconds
    size = plural(first.batch_size, "image")
    rows = [
        (
            "latency",
            f"{time.value:.3g} ms ({time.low:.3g} to {time.high:.3g}), {size}, {first.engine}",
        ),
        (
            "throughput",
            f"{best.images_per_second:,.0f} images/s, {best.batch_size} at once, {best.engine}",
        ),
    ]
    rows += [("but", "the machine was busy: measure again")] if busy else []
    run.show_end("benchmark done", rows, [command("export", f"from={shown(run.directory)}")])
