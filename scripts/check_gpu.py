"""Check nasrun on a GPU: every check and measurement that needs one, in one command.

    python scripts/check_gpu.py                     # all, about an hour
    python scripts/check_gpu.py equality speed      # some of the parts
    python scripts/check_gpu.py --limit 300         # no part takes longer than five minutes
    python scripts/check_gpu.py --device cpu --quick --into /tmp/check   # to see that it works

Each part runs in a process of its own with a time limit; what fails is told, and the others go on.
``check_gpu.md`` and ``check_gpu.json`` are written into the folder ``--into`` (``$OUT``, or
``outputs/check_gpu``) after each row, so that what was found is there whenever it is stopped.

equality   logits and gradients of a path of each search space, on the CPU and on the GPU, in fp32
recipes    every recipe's smoke
bits       the same bits twice with deterministic=true, and after kills and resumes
speed      training steps and scored candidates of recipes at full size beside the targets, the
           kernels of a step and how long the GPU is busy (profile_*.txt: with what); a step of
           SGD, by foreach and fused
compiled   the same steps with compile=blocks
rank_macro_cifar10, rank_table6, balanced_nao_cifar10
           the recipes as they are, ended by SIGTERM at the limit; they need the data in
           $NASRUN_DATA
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import torch
from safetensors.torch import load_file
from torch import Tensor

from nasrun.config.build import build_setup
from nasrun.config.compose import compose
from nasrun.config.groups import conf_dir, task_of_recipe
from nasrun.config.prune import leave_out
from nasrun.evaluator.base import choices_of
from nasrun.run.compute import Compile, Compute
from nasrun.run.monitor import NullMonitor
from nasrun.run.run import Run
from nasrun.run.screen import Screen
from nasrun.streams import Streams
from nasrun.task.setup import Setup
from nasrun.task.supernet_stage import WHOLE_SPACE, SupernetStage

ROOT = Path(__file__).parent.parent
Row = dict[str, Any]

CLOSE = 1e-3
"""Largest difference between CPU and GPU in fp32, relative to the largest number."""

DATA = {
    "rank_macro_cifar10": ("cifar-10-batches-py", "tables/nas_bench_macro_cifar10.csv.gz"),
    "rank_table6": ("cifar-10-batches-py",),
    "balanced_nao_cifar10": ("cifar-10-batches-py",),
}
"""Whole recipes that are run, and what each looks for in $NASRUN_DATA."""


TARGET_MINUTES = {"rank_macro_cifar10": 5}
"""For the whole recipe on one H100."""


@dataclass(frozen=True)
class Options:
    """The options of the command line. quick: the smallest sizes, to see that it works."""

    device: str
    into: Path
    quick: bool
    limit: int

    @property
    def compute(self) -> Compute:
        return Compute.choose(self.device, precision="auto", deterministic=False, repeats=True)


@dataclass(frozen=True)
class Speed:
    """A recipe whose training and scoring are timed, with targets for one H100."""

    recipe: str
    words: tuple[str, ...] = ()
    side: int = 32
    images_per_second: float | None = None
    seconds_per_candidate: float | None = None
    ms_per_step: float | None = None


SPEEDS = (
    Speed("rank_macro_cifar10", images_per_second=40_000),
    Speed("spos_cifar10", images_per_second=15_000, seconds_per_candidate=0.5),
    Speed("balanced_nao_cifar10", images_per_second=10_000),
    Speed("darts_cifar10", ("search_algo.rest_epochs=0",), ms_per_step=30),
    Speed("rank_pools_macro", side=16),
    Speed("rank_pools_nb201", side=8),
)


# Equality


def equality(options: Options) -> Iterator[Row]:
    """Compare a path's logits and gradients between the CPU and the device.

    Some networks enlarge every rounding: "by noise" tells how far gradients on the CPU move if the
    images get noise of 1e-5 (the most of three), and the device's may be ten times as far off.
    """
    names = sorted(path.stem for path in (conf_dir() / "search_space").glob("[!_]*.yaml"))
    for name in names[:1] if options.quick else names:
        try:
            own, *noisy = (_logits_and_gradients(name, "cpu", noise) for noise in range(4))
            found = _logits_and_gradients(name, options.device)
        except Exception as error:  # the other rows are wanted as well
            yield {"space": name, "error": f"{type(error).__name__}: {error!s:.200}", "good": False}
            continue
        logits, gradients = map(_apart, own, found)
        by_noise = max(_apart(own[1], gradients) for _, gradients in noisy)
        good = logits < CLOSE and gradients < 10 * max(CLOSE, by_noise)
        row = {"space": name, "logits": logits, "gradients": gradients}
        yield row | {"by noise": by_noise, "good": good}


def _apart(one: Tensor, other: Tensor) -> float:
    """Return the largest difference, relative to the largest number."""
    return float((one - other).abs().max() / one.abs().max().clamp_min(1e-30))


def _logits_and_gradients(name: str, device: str, noise: int = 0) -> tuple[Tensor, Tensor]:
    """Return the logits [B, K] of a random path, and the gradients of its weights, on the CPU.

    noise: 0 for the images as they are, else the seed of the noise that they get.
    """
    compute = Compute.choose(device, precision="fp32", deterministic=False)
    setup = build_setup(compose(["task=search", f"search_space={name}", "effort=smoke"]))
    streams, space = Streams(0), setup.search_space
    splits = setup.dataset.load(streams.sub("dataset"), torch.device("cpu"))
    with streams.default("init"):
        network = space.supernet(splits.problem)
    network = compute.place(network).train()
    images, labels = next(splits.train.eval_batches(16))
    if noise:
        generator = torch.Generator().manual_seed(noise)
        images = images + 1e-5 * torch.randn(images.shape, generator=generator)
    gates = space.whole if space.binary else space.sample(streams.numpy("path")).choices
    logits = network(compute.images(images.to(compute.device)), gates)
    torch.nn.functional.cross_entropy(logits, labels.to(compute.device)).backward()
    gradients = [p.grad for p in network.parameters() if p.grad is not None]
    whole = torch.cat([gradient.flatten() for gradient in gradients])
    return logits.detach().cpu(), whole.cpu()


# Recipes, and equal bits


def run_nasrun(into: Path, *words: str, seconds: float = 3600) -> tuple[Path | None, str]:
    """Run ``nasrun``; returns the run directory, and the last line of what went wrong, or ''."""
    command = [sys.executable, "-m", "nasrun", *words, f"outputs={into}"]
    log = into.parent / f"{into.name}.txt"
    into.mkdir(parents=True, exist_ok=True)
    with log.open("w") as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGTERM)  # ends the step, writes a checkpoint
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
    lines = log.read_text(errors="replace").strip().splitlines()
    wrong = "" if process.returncode == 0 else f"exit status {process.returncode}: {lines[-1:]}"
    runs = sorted(path.parent for path in into.glob("*/*/run.json"))
    return runs[0] if runs else None, wrong


def result_of(run: Path | None) -> Row:
    """Return the content of result.json, {} if there is none."""
    try:
        return cast(Row, json.loads((run / "result.json").read_text())) if run else {}
    except OSError:
        return {}


def recipes(options: Options) -> Iterator[Row]:
    """Run every recipe's smoke, some side by side."""
    names = sorted(path.stem for path in (conf_dir() / "experiment").glob("[!_]*.yaml"))
    names = ["rank_macro_small"] if options.quick else names

    def smoke(name: str) -> Row:
        task, began = task_of_recipe(name), time.perf_counter()
        words = [task, f"experiment={name}", "effort=smoke", f"device={options.device}"]
        run, wrong = run_nasrun(options.into / "smokes" / name, *words, "report=false")
        measure = {"rank": "kendall", "compare": "regret_random"}.get(task, "test_accuracy")
        value = result_of(run).get(measure)
        took = time.perf_counter() - began
        row = {"recipe": name, measure: value, "seconds": took, "good": not wrong}
        return row | ({"error": wrong} if wrong else {})

    with ThreadPoolExecutor(max(1, (os.cpu_count() or 1) - 2)) as pool:
        for done in as_completed([pool.submit(smoke, name) for name in names]):
            yield done.result()


def bits(options: Options) -> Iterator[Row]:
    """Compare two runs with deterministic=true, and runs that are killed with others."""
    same = ("search", "effort=smoke", f"device={options.device}", "deterministic=true")
    runs = []
    for name in ("first", "second"):
        run, wrong = run_nasrun(options.into / "bits" / name, *same, "report=false")
        if run is None or wrong:
            yield {"check": "deterministic=true", "error": wrong, "good": False}
            return
        runs.append(run)
    for name in ("metrics.jsonl", "trials.jsonl"):
        first, second = ((run / name).read_bytes() for run in runs)
        yield {"check": f"{name} twice, deterministic=true", "good": first == second}
    one, other = (load_file(run / "network.safetensors") for run in runs)
    equal = all(torch.equal(one[name], other[name]) for name in one | other)
    yield {"check": "network.safetensors twice, deterministic=true", "good": equal}
    kills = ["--kills", "1" if options.quick else "24", "--device", options.device]
    soaked = ["search"] if options.quick else ["search", "retrain", "rank", "nao_v2_cifar10"]
    script = str(ROOT / "scripts/soak_kill.py")
    done = subprocess.run([sys.executable, script, *kills, *soaked], capture_output=True, text=True)
    told = (done.stdout + done.stderr).strip().splitlines()[-1:]
    yield {"check": "killed and resumed", "told": " ".join(told), "good": not done.returncode}


# Speed


class EnoughError(Exception):
    """The steps to be timed are done."""


PROFILED = 10
"""Steps whose kernels are counted, after those that are timed."""


class Clock(NullMonitor):
    """Times the steps of a training after those that warm up, profiles some more, and ends it."""

    def __init__(self, compute: Compute, warm_up: int, steps: int) -> None:
        self.compute, self.warm_up, self.last = compute, warm_up, warm_up + steps
        self.steps, self.warm, self.seconds = 0, 0.0, 0.0
        self.profile = torch.profiler.profile() if compute.device.type == "cuda" else None

    @contextmanager
    def stage(self, name: str, total: int) -> Iterator[Clock]:
        yield self

    def advance(self, steps: int = 1, **metrics: float) -> None:
        self.steps += steps
        if steps and self.steps == self.warm_up:
            self.warm = self._now()
        elif self.steps == self.last:
            self.seconds = self._now() - self.warm
            if self.profile is None:
                raise EnoughError
            self.profile.start()
        elif self.profile and self.steps == self.last + PROFILED:
            self._now()
            self.profile.stop()
            raise EnoughError

    def _now(self) -> float:
        if self.compute.device.type == "cuda":
            torch.cuda.synchronize(self.compute.device)
        return time.perf_counter()


def speed(options: Options) -> Iterator[Row]:
    """Time training steps and candidates of recipes."""
    yield from _speeds(options, "none")
    yield from _optimisers(options)


def compiled(options: Options) -> Iterator[Row]:
    """Time the same with compiled blocks."""
    yield from _speeds(options, "blocks")


def _speeds(options: Options, compiling: Compile) -> Iterator[Row]:
    warm_up, steps = (2, 2) if options.quick else (60, 60)
    for case in SPEEDS[:1] if options.quick else SPEEDS:
        compute = Compute.choose(
            options.device,
            precision="auto",
            deterministic=False,
            compiling=compiling,
        )
        row: Row = {"recipe": case.recipe, "compiled": compiling}
        try:
            yield row | _speed(case, compute, warm_up, steps, options)
        except Exception as error:  # the other rows are wanted as well
            yield row | {"error": f"{type(error).__name__}: {str(error)[:200]}", "good": False}
        torch._dynamo.reset()


def _speed(case: Speed, compute: Compute, warm_up: int, steps: int, options: Options) -> Row:
    setup = _setup(case, options.quick)
    streams = Streams(0)
    splits = setup.dataset.load(streams.sub("dataset"), compute.device)
    run = cast(Run, SimpleNamespace(compute=compute, streams=streams))
    search = None
    if task_of_recipe(case.recipe) == "search":
        screen = Screen()
        screen.console.quiet = True
        space, problem = setup.search_space, splits.problem
        latencies = setup.budget.latency.bind(space, problem, compute, screen)
        candidates = setup.budget.bind(space, problem, latencies, screen)
        search = setup.search_algo.bind(candidates, streams, compute.device)
    stage = SupernetStage(setup, run, splits, search=search)
    training, clock = stage.training, Clock(compute, warm_up, steps)
    round_ = WHOLE_SPACE if search is None else search.next_round(clock)
    if training is None or round_ is None:
        raise ValueError(f"{case.recipe} trains no supernet")
    began = time.perf_counter()
    with suppress(EnoughError):
        training.train_round(clock, "supernet", stage._gates(round_, training))
    training.rest()
    step = clock.seconds / steps
    batch = setup.trainer.batch_size
    found: Row = {
        "batch": batch,
        "images/s": batch / step,
        "target images/s": case.images_per_second,
        "ms/step": 1e3 * step,
        "target ms/step": case.ms_per_step,
        "first steps (s)": clock.warm - began,
    }
    if clock.profile:
        name = f"profile_{case.recipe}{'_compiled' if compute.compiled else ''}.txt"
        kernels, seconds = _write_profile(clock.profile, options.into / name)
        found["kernels/step"], found["busy (%)"] = kernels, 100 * seconds / step
    if search is None or not setup.search_algo.learns_gates:
        scorer = setup.evaluator.bind(setup.search_space, splits, compute, streams)
        paths = [setup.search_space.sample(streams.numpy("paths", index)) for index in range(8)]
        trials = scorer.score(paths, stage.network, NullMonitor(), choices_of)
        next(trials)
        began = time.perf_counter()
        count = sum(1 for _ in trials)
        found["s/candidate"] = (time.perf_counter() - began) / count
        found["target s/candidate"] = case.seconds_per_candidate
    if compute.device.type == "cuda":
        found["GiB"] = torch.cuda.max_memory_allocated(compute.device) / 2**30
        torch.cuda.reset_peak_memory_stats(compute.device)
    return found


def _write_profile(profile: torch.profiler.profile, path: Path) -> tuple[float, float]:
    """Write what took the time; returns the kernels of a step, and the seconds they ran."""
    events = profile.key_averages()
    tables = [
        events.table(sort_by=f"self_{where}_time_total", row_limit=40, max_name_column_width=90)
        for where in ("cuda", "cpu")
    ]
    path.write_text("\n\n".join(tables))
    on_gpu = [event for event in events if event.device_type.name == "CUDA"]
    seconds = sum(event.self_device_time_total for event in on_gpu) / 1e6
    return sum(event.count for event in on_gpu) / PROFILED, seconds / PROFILED


def _setup(case: Speed, quick: bool) -> Setup:
    """Build a recipe on made-up images of CIFAR-10's shape and number, without its health."""
    task = task_of_recipe(case.recipe)
    words = [f"task={task}", f"experiment={case.recipe}", "health=none", *case.words]
    if quick:
        words.append("effort=smoke")
    else:
        images = ["classes=10", "train_images=40000", "validation=10000", "flip=true"]
        images += [f"image_size={case.side}", f"crop_padding={case.side // 8}"]
        words += ["dataset=synthetic", *(f"dataset.{image}" for image in images)]
    config = compose(words)
    leave_out(config, words)
    return build_setup(config)


def _optimisers(options: Options) -> Iterator[Row]:
    """Time a step of SGD over the weights of a path, by torch's ways."""
    compute = options.compute
    parameters = [
        torch.zeros(shape, device=compute.device, requires_grad=True)
        for _ in range(40)
        for shape in ((64, 64, 1, 1), (64, 1, 3, 3), (64,), (64,))
    ]
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    for kind in ("foreach", "fused"):
        optimiser = torch.optim.SGD(
            parameters, lr=0.1, momentum=0.9, weight_decay=1e-4, **{kind: True}
        )
        clock = Clock(compute, 10, 100)
        with suppress(EnoughError):
            while True:
                optimiser.step()
                clock.advance()
        name = f"a step of SGD, {len(parameters)} weights"
        yield {"recipe": f"{name}, {kind}", "ms/step": 10 * clock.seconds}


# Whole recipes


def whole(recipe: str, options: Options) -> Iterator[Row]:
    """Run a recipe as it is, until it is done or its time is over."""
    place = Path(os.environ.get("NASRUN_DATA", "data"))
    lacking = [name for name in DATA[recipe] if not (place / name).exists()]
    row: Row = {"recipe": recipe, "target minutes": TARGET_MINUTES.get(recipe)}
    if lacking and not options.quick:
        yield row | {"told": f"left out: no {', '.join(lacking)} in {place}"}
        return
    task, began = task_of_recipe(recipe), time.perf_counter()
    words = [f"experiment={recipe}", f"device={options.device}", "report=false"]
    words += ["effort=smoke"] if options.quick else []
    several = ["-m"] if recipe == "rank_table6" and not options.quick else []
    into = options.into / "runs" / recipe
    _, wrong = run_nasrun(into, task, *several, *words, seconds=0.9 * options.limit - 70)
    results = [json.loads(path.read_text()) for path in sorted(into.rglob("result.json"))]
    keys = ("status", "kendall", "test_accuracy", "seconds", "ranking_seconds")
    found = {key: [r[key] for r in results if key in r] for key in keys}
    found = {key: values[0] if len(values) == 1 else values for key, values in found.items()}
    took = {"minutes": (time.perf_counter() - began) / 60, "jobs done": len(results)}
    found = {key: values for key, values in found.items() if values != []}
    yield row | took | found | ({"told": wrong} if wrong else {})


PARTS: dict[str, Callable[[Options], Iterator[Row]]] = {
    "equality": equality,
    "recipes": recipes,
    "bits": bits,
    "speed": speed,
    "compiled": compiled,
    **{recipe: lambda options, recipe=recipe: whole(recipe, options) for recipe in DATA},  # type: ignore[misc]
}

LIMITS = {"equality": 300, "recipes": 900, "bits": 600, "speed": 600, "compiled": 900}
"""Seconds that a part may take; the others have an hour each."""


# The whole, and how it is written


def written(found: dict[str, list[Row]], told: str) -> str:
    """Return all rows as tables in Markdown."""
    lines = [f"# nasrun on a GPU\n\n{told}\n"]
    for part, rows in found.items():
        columns = list(dict.fromkeys(key for row in rows for key in row))
        lines += [f"\n## {part}\n", f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
        lines += [f"| {' | '.join(_cell(row.get(column)) for column in columns)} |" for row in rows]
    return "\n".join(lines) + "\n"


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "**NO**"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return str(value).replace("|", "/").replace("\n", " ")


def do_part(part: str, options: Options) -> None:
    """Do one part in this process; its rows are written as they come."""
    rows: list[Row] = []
    for row in PARTS[part](options):
        rows.append(row)
        (options.into / f"{part}.json").write_text(json.dumps(rows, indent=1))


def do_all(parts: Sequence[str], options: Options) -> int:
    """Do the parts one after the other; returns how many rows were no good."""
    found: dict[str, list[Row]] = {}
    compute = options.compute
    told = f"{compute.describe()}, torch {torch.__version__}, {time.strftime('%Y-%m-%d %H:%M')}"
    print(told, flush=True)
    for part in parts:
        limit = min(LIMITS.get(part, 3600), options.limit)
        command = [sys.executable, __file__, part, "--alone", "--limit", str(limit)]
        command += ["--device", options.device, "--into", str(options.into)]
        command += ["--quick"] if options.quick else []
        own, began = options.into / f"{part}.json", time.perf_counter()
        own.unlink(missing_ok=True)
        end: Row = {}
        try:
            done = subprocess.run(command, timeout=limit, stderr=subprocess.PIPE, text=True)
            if done.returncode:
                end = {"error": " ".join(done.stderr.strip().splitlines()[-1:]), "good": False}
        except subprocess.TimeoutExpired:
            end = {"told": f"stopped after {limit} s"}
        rows = json.loads(own.read_text()) if own.exists() else []
        found[part] = [*rows, *([end] if end else [])]
        print(
            f"{part}: {len(rows)} rows in {time.perf_counter() - began:.0f} s",
            end or "",
            flush=True,
        )
        (options.into / "check_gpu.json").write_text(json.dumps({"on": told, **found}, indent=1))
        (options.into / "check_gpu.md").write_text(written(found, told))
    print((options.into / "check_gpu.md").read_text())
    bad = sum(row.get("good") is False for rows in found.values() for row in rows)
    print(f"{bad} of {sum(map(len, found.values()))} rows are no good; all in {options.into}")
    return bad


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", help=f"of {', '.join(PARTS)}; default: all")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--into", type=Path, default=None, help="folder of the results")
    parser.add_argument("--limit", type=int, default=3600, help="seconds that a part may take")
    parser.add_argument("--quick", action="store_true", help="the smallest sizes")
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    unknown = [part for part in given.parts if part not in PARTS]
    if unknown:
        parser.error(f"no part {', '.join(unknown)}: choose of {', '.join(PARTS)}")
    into = given.into or Path(os.environ.get("OUT", "outputs/check_gpu"))
    into.mkdir(parents=True, exist_ok=True)
    options = Options(given.device, into.absolute(), given.quick, given.limit)
    if given.alone:
        do_part(given.parts[0], options)
        return 0
    for old in ("smokes", "bits", "runs"):
        shutil.rmtree(options.into / old, ignore_errors=True)
    return int(bool(do_all(given.parts or list(PARTS), options)))


if __name__ == "__main__":
    sys.exit(main())
