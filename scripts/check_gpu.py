"""Run all checks that need a GPU.

These are every recipe's smoke in bf16 and channels_last, the same bits twice with
deterministic=true and after kills and resumes, and the benchmarks.

    python scripts/check_gpu.py [--device cuda]

If CIFAR-10 is in $NASRUN_DATA, it also compares a short Balanced NAO with uniform sampling.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console

from nasrun.config.groups import task_of_recipe

ROOT = Path(__file__).parent.parent
console = Console(highlight=False, soft_wrap=True)


def run(task: str, place: Path, *overrides: str) -> Path:
    """Run ``nasrun TASK``; returns the run directory."""
    command = [sys.executable, "-m", "nasrun", task, *overrides, f"outputs={place}"]
    console.print(f"$ nasrun {task} " + " ".join(overrides))
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return next((place / task).iterdir())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda")
    device = parser.parse_args().device

    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        for recipe in sorted(path.stem for path in (ROOT / "conf/experiment").glob("*.yaml")):
            wanted = (f"experiment={recipe}", "effort=smoke", f"device={device}")
            task = task_of_recipe(recipe)
            result = json.loads((run(task, place / recipe, *wanted) / "result.json").read_text())
            measure = {"rank": "kendall", "compare": "regret_random"}.get(task, "test_accuracy")
            console.print(f"  runs to its end, {measure} {result.get(measure)}")
        same = ("effort=smoke", f"device={device}", "deterministic=true")
        first, second = (run("search", place / name, *same) for name in ("first", "second"))
        for name in ("metrics.jsonl", "trials.jsonl"):
            equal = (first / name).read_bytes() == (second / name).read_bytes()
            console.print(f"  {name}: {'the same bits' if equal else 'DIFFERENT'} twice")
    soak = ["soak_kill.py", "--kills", "40", "search", "retrain", "rank", "nao_v2_cifar10"]
    for script in (soak, ["bench_supernet_step.py"], ["bench_augmentation.py"]):
        command = [sys.executable, str(ROOT / "scripts" / script[0]), *script[1:]]
        subprocess.run([*command, "--device", device], check=True)
    if (Path(os.environ.get("NASRUN_DATA", "data")) / "cifar-10-batches-py").is_dir():
        sweep = ["sampler=proportional,uniform", "seed=0", f"device={device}"]
        short = ["experiment=nao_v2_cifar10", "search_algo.rounds=1", "search_algo.initial=200"]
        brief = ["trainer.epochs=5", "shortlist.count=2", "retrain.trainer.epochs=10"]
        command = [sys.executable, "-m", "nasrun", "search", "-m", *short, *brief, *sweep]
        subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
