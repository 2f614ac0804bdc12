"""Checkpoints of strangers: passed over, or a state that is refused because it fits no part."""

from __future__ import annotations

import math
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hostile
import pytest
import torch
from hostile import (
    ESCAPE,
    KINDS,
    Reached,
    each,
    manifests,
    nested,
    newest,
    put,
    shown,
    stopped_before_training,
    write_manifest,
    write_tensors,
)
from safetensors.torch import load, save

from nasrun.cli import main as cli
from nasrun.errors import UserError
from nasrun.run.checkpoints import Checkpoints
from nasrun.run.run import Run


@pytest.fixture(scope="module")
def left_behind(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return hostile.left_behind(tmp_path_factory)


@pytest.fixture(scope="module")
def taken_up(
    left_behind: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Run]:
    """The unfinished runs, resumed to where they would train; by phase."""
    place, runs = tmp_path_factory.mktemp("resumed"), {}
    for phase in ("supernet", "predictor", "retrain"):
        copy = shutil.copytree(left_behind[phase], place / phase)
        with stopped_before_training(), pytest.raises(Reached) as reached:
            cli.main(["resume", str(copy)])
        runs[phase] = reached.value.args[0]
    return runs


@pytest.fixture
def run(left_behind: dict[str, Path], tmp_path: Path) -> Path:
    """A copy of a run that was killed while it trained its supernet."""
    return Path(shutil.copytree(left_behind["supernet"], tmp_path / "run"))


def read(run: Path) -> tuple[list[int], list[str]]:
    """The numbers of the whole checkpoints, and what is said of the others."""
    said: list[str] = []
    found = Checkpoints(run / "checkpoints").read(said.append)
    assert all(line.isprintable() and len(line) < 300 for line in said)
    return [checkpoint.number for checkpoint in found], said


def misfit(run: Path, part: str, taken: Run) -> str:
    """What is said when ``part`` is to take up its state in ``run``."""
    taken._checkpoints = Checkpoints(run / "checkpoints")
    stored = taken._checkpoints.read(pytest.fail)[0].states[part]
    taken._unclaimed = {part: stored}
    with pytest.raises(UserError) as raised:
        taken.keep(part, taken._tracked[part].stateful, stored.label)
    return str(raised.value)


# Manifests that their digests vouch for.


@each(
    {
        "format": [2],
        "number": [7, 10**400],
        "seconds": [math.nan, math.inf, 10**400, -1, "long", None],
        "logs": [[], None],
        "logs/metrics.jsonl": [-1, math.inf, math.nan, [1]],
        "parts": [
            *([], {"scores": 1}),
            {str(part): {"label": "", "tree": {}, "tensors": None} for part in range(5000)},
        ],
        "parts/scores/tree": [nested(200), nested(900)],
        "parts/supernet/tensors": ["x", {"name": "000002-supernet.safetensors"}],
        "parts/supernet/tensors/size": ["9", None, -1, math.inf, 10**400],
        "parts/supernet/tensors/digest": [["x"], None],
        "parts/supernet/tensors/name": [
            *(None, ["x"], ESCAPE, "../../outside/x", "/etc/passwd", "000002-../x.safetensors"),
            *(f"000002-supernet.safetensors{end}" for end in "\0\n"),
            "\u0660" * 6 + "-supernet.safetensors",
        ],
    }
)
def test_a_manifest(where: str, value: Any, run: Path) -> None:
    body = newest(run)
    put(body, where, value)
    write_manifest(run, body)
    (whole,), (line,) = read(run)
    assert whole == 1 and "passed over" in line


@pytest.mark.parametrize(
    "text", ["", "null", "[" * 10**5, '{"a":' * 10**5, "9" * 10**4, '"\\ud800"'], ids=shown
)
@pytest.mark.parametrize("vouched_for", [True, False])
def test_a_manifest_of_odd_json(text: str, vouched_for: bool, run: Path) -> None:
    if vouched_for:
        write_manifest(run, text)
    else:
        manifests(run)[-1].write_text(text)
    assert read(run)[0] == [1]


def test_many_checkpoints(run: Path) -> None:
    for number in range(3, 40):
        shutil.copy(manifests(run)[-1], run / "checkpoints" / f"{number:06d}.json")
        write_manifest(run, {**newest(run), "number": number})
    assert read(run) == ([39, 38, 37, 36], [])


@pytest.mark.parametrize("kind", KINDS)
def test_tensors_in_no_plain_file(kind: str, run: Path, tmp_path: Path) -> None:
    (tmp_path / "canary").write_text("canary")
    (run / "checkpoints" / "000002-supernet.safetensors").unlink()
    KINDS[kind](run / "checkpoints" / "000002-supernet.safetensors", tmp_path)
    assert read(run)[0] == [1]


# Tensors and states that their digests vouch for.


@pytest.mark.few(1)
@pytest.mark.parametrize(
    ("header", "length"),
    [
        ('{"x":{"dtype":"F32","shape":[281474976710656],"data_offsets":[0,1125899906842624]}}', 83),
        ('{"x":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}....', 55),
        ("{}", 2**60),
        ("", 0),
        (pickle.dumps(print).decode("latin-1"), 1),
    ],
    ids=shown,
)
def test_no_safetensors(header: str, length: int, run: Path, taken_up: dict[str, Run]) -> None:
    write_tensors(run, "supernet", length.to_bytes(8, "little") + header.encode("latin-1"))
    assert "no safetensors file" in misfit(run, "supernet", taken_up["supernet"])


CHANGES: dict[str, tuple[str, Callable[[torch.Tensor], torch.Tensor]]] = {
    "longer": ("weight", lambda value: torch.cat([value, value])),
    "one number": ("weight", lambda value: value.flatten()[0].clone()),
    "none": ("weight", lambda value: value[:0]),
    "complex": ("weight", lambda value: value.to(torch.complex64)),
    "eight bits": ("weight", lambda value: value.to(torch.float8_e4m3fn)),
    "momentum of one number": ("momentum_buffer", lambda value: torch.zeros(())),
    "momentum of another shape": ("momentum_buffer", lambda value: value.flatten()[:1].clone()),
    "negative steps": ("/step", lambda value: torch.tensor(-1.0)),
    "no steps": ("/step", lambda value: torch.tensor(math.nan)),
    "steps of a shape": ("/step", lambda value: torch.zeros(3)),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_tensor(
    change: str, left_behind: dict[str, Path], tmp_path: Path, taken_up: dict[str, Run]
) -> None:
    end, changed = CHANGES[change]
    phase, part = ("predictor", "search_algo") if end == "/step" else ("supernet", "supernet")
    run = Path(shutil.copytree(left_behind[phase], tmp_path / "run"))
    file = newest(run)["parts"][part]["tensors"]["name"]
    tensors = load((run / "checkpoints" / file).read_bytes())
    name = next(name for name in tensors if name.endswith(end))
    write_tensors(run, part, save({**tensors, name: changed(tensors[name])}))
    assert "does not fit this run" in misfit(run, part, taken_up[phase])


OTHER = {"space": "nao_cell/small/5", "choices": [0] * 40}
TRIAL = {"architecture": OTHER, "score": 1.0, "seed": 0, "evaluation": {}}
TRIAL["cost"] = {"params": 1, "macs": 1}


def put_into_state(
    where: str, value: Any, left_behind: dict[str, Path], tmp_path: Path, taken_up: dict[str, Run]
) -> None:
    """where: ``PHASE:PART/KEY/KEY``."""
    phase, _, where = where.partition(":")
    run = Path(shutil.copytree(left_behind[phase], tmp_path / "run"))
    part, slash, inside = where.partition("/")
    body = newest(run)
    put(body["parts"], f"{part}/tree{slash}{inside}", value)
    write_manifest(run, body)
    misfit(run, part, taken_up[phase])


@pytest.mark.few(12)
@each(
    {
        "supernet:supernet": [[], None, {}],
        "supernet:supernet/step": [10**9, 10**400, -1, math.nan, None],
        "supernet:supernet/rounds_done": [10**400, -1, "x"],
        "supernet:supernet/skipped": [3],
        "supernet:supernet/measured": [None, {"$tensor": "nowhere"}, {"$tensor": ["x"]}],
        "supernet:supernet/network": [[], {}],
        "supernet:supernet/momenta": [[], {}],
        "supernet:supernet/momenta/0": [
            *({str(10**9): {}}, {"-1": {}}, {"0": {}}, {"0": []}, {"0": {"momentum_buffer": 1.0}}),
            {"0": {"momentum_buffer": {"$tensor": "measured"}}},
        ],
        "supernet:scores": [[], 3, {"round0": 3}, {"round0": ["x"]}, {"round0": [TRIAL]}],
        "supernet:images": [{}],
        "supernet:images/training": [ESCAPE],
        "supernet:search_algo/pool/architectures/0": [OTHER, "x"],
        "supernet:search_algo/pool/architectures/0/choices/0": [10**400, math.nan],
        "supernet:search_algo/pool/pending/0": [OTHER],
        "supernet:search_algo/pool/seen": [[{"space": 3}]],
        "supernet:search_algo/pool/trials": [[]],
        "supernet:search_algo/filled": [3],
        "predictor:search_algo/predictor": [3],
        "predictor:search_algo/predictor/model": [{}],
        "retrain:scores/shortlist": [3, [TRIAL]],
        "retrain:scores/shortlist/0/score": ["x"],
        "retrain:scores/shortlist/0/cost": [{"params": 1}],
        "retrain:retrain/step": [10**9],
    }
)
def test_a_state(
    where: str, value: Any, left_behind: dict[str, Path], tmp_path: Path, taken_up: dict[str, Run]
) -> None:
    put_into_state(where, value, left_behind, tmp_path, taken_up)


@each(
    {
        "supernet:search_algo/pool/trials/0": [TRIAL],
        "supernet:search_algo/pool/pending": [[]],
        "supernet:search_algo/begun": ["x", math.nan, 10**9, -1],
        "supernet:search_algo/new": ["x", -1],
        "predictor:search_algo/predictor/epoch": ["x", -(10**9)],
        "predictor:search_algo/predictor/index": [[]],
    }
)
def test_a_position(
    where: str, value: Any, left_behind: dict[str, Path], tmp_path: Path, taken_up: dict[str, Run]
) -> None:
    put_into_state(where, value, left_behind, tmp_path, taken_up)
