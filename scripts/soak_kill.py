"""Kill runs at random events, resume them, and compare them with undisturbed runs.

    python scripts/soak_kill.py --kills 300                # every recipe's smoke in turn
    python scripts/soak_kill.py --kills 5 nao_v2_cifar10   # one recipe
    python scripts/soak_kill.py --kills 5 search retrain   # the plain search, and a retraining
    python scripts/soak_kill.py --device cuda              # on a GPU, with deterministic=true

Every recipe's smoke is run once undisturbed, and its events are counted: steps of training, safe
points, and operations on files. Then it is run again and killed (SIGKILL) at events that the seed
chooses, resumed after each, and at its end compared: metrics, trials, winner, result and weights
must be the same bytes. Exit status 1 if anything differs. Kills come before the run has begun,
while a checkpoint is half-written, between the rename and the next line of metrics, and at the end.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from kills import RUNS, Counts, soak
from processes import Processes


def soak_all() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("recipes", nargs="*", default=RUNS)
    parser.add_argument("--kills", type=int, default=300, help="at least, over all recipes")
    parser.add_argument("--steps", type=int, default=3, help="steps between checkpoints")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu", help="cpu, or cuda with deterministic=true")
    arguments = parser.parse_args()
    further = [f"checkpoint.steps={arguments.steps}", f"device={arguments.device}"]
    if arguments.device != "cpu":
        further.append("deterministic=true")
    each = -(-arguments.kills // len(arguments.recipes))
    processes, total = Processes(), Counts()
    for recipe in arguments.recipes:
        place = Path(tempfile.mkdtemp(prefix="soak_"))
        counts = soak(processes, recipe, each, arguments.seed, place, *further)
        print(f"{recipe:24}", counts, flush=True)
        if counts.differences:
            found = "; ".join(counts.differences)
            print(f"{recipe}: {found}: see {place}", file=sys.stderr, flush=True)
        else:
            shutil.rmtree(place)
        total.kills += counts.kills
        total.resumes += counts.resumes
        total.runs += counts.runs
        total.differences += counts.differences
    processes.close()
    print(f"{'all':24}", total)
    return int(bool(total.differences))


if __name__ == "__main__":
    sys.exit(soak_all())
