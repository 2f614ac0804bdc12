"""The winner as a product: a file that says what it holds, and a model that predicts with it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import few_images
from networks import search_spaces
from PIL import Image
from processes import tensors
from test_dataset import everything
from test_dataset import load as load_images

import nasrun
from nasrun.building.build import build
from nasrun.config.compose import compose
from nasrun.errors import UserError
from nasrun.model.manifest import MANIFEST_KEY, Manifest, Origin
from nasrun.run.state import encode_tensors, metadata_of, pack
from nasrun.search_space.base import SearchSpace

CELL = {
    "_target_": "nasrun.search_space.nao_cell.NaoCell",
    "operations": "small",
    "nodes": 2,
    "stem": "small",
    "search": {"layers": 1, "channels": 4},
    "final": {"layers": 1, "channels": 4},
}
ORIGIN = Origin(run="here", task="search", seed=3, dataset="helpers", nasrun="0")


def described(node: dict[str, Any], *, auxiliary: bool = False) -> tuple[Manifest, torch.nn.Module]:
    """A manifest, and the untrained network that it describes."""
    space, splits = build(node), few_images()
    assert isinstance(space, SearchSpace)
    architecture = space.sample(np.random.default_rng(5))
    manifest = Manifest.of(space, node, architecture, splits, auxiliary=auxiliary, origin=ORIGIN)
    network = space.network(architecture, splits.problem, "final", auxiliary=auxiliary)
    return manifest, network.eval()


def write(path: Path, network: torch.nn.Module, metadata: dict[str, str] | None) -> Path:
    path.write_bytes(encode_tensors(pack(dict(network.state_dict()))[1], metadata))
    return path


# One file is enough.


@pytest.mark.few(3)
@pytest.mark.parametrize("auxiliary", [False, True])
@pytest.mark.parametrize("option", search_spaces())
def test_a_network_of_every_space_comes_back(option: str, auxiliary: bool, tmp_path: Path) -> None:
    node = compose(["task=search", f"search_space={option}", "effort=smoke"])["search_space"]
    try:
        manifest, network = described(node, auxiliary=auxiliary)
    except UserError as error:
        assert auxiliary and "auxiliary head" in str(error)
        return
    file = write(tmp_path / "x.safetensors", network, manifest.metadata())
    before = torch.get_rng_state()
    model = nasrun.load(file)
    assert torch.equal(torch.get_rng_state(), before)
    assert model.manifest == manifest
    images = torch.randn(3, 1, 8, 8)
    channels_last = network.to(memory_format=torch.channels_last)
    expected = channels_last(images.contiguous(memory_format=torch.channels_last))
    assert torch.equal(model.network(model.compute.images(images)), expected)
    assert not model.network.training
    assert model.cost.params == sum(
        parameter.numel()
        for name, parameter in model.network.named_parameters()
        if "auxiliary" not in name
    )


@pytest.mark.few(1)
@pytest.mark.parametrize(
    ("option", "limit"), [("dso_block", "params"), ("spos_blocks", "macs"), ("spos_channels", None)]
)
def test_a_fitted_width_is_recorded_and_checked(
    option: str, limit: str | None, tmp_path: Path
) -> None:
    node = compose(["task=search", f"search_space={option}", "effort=smoke"])["search_space"]
    node["final"] |= {limit: 300_000} if limit else {}
    manifest, network = described(node)
    assert (manifest.width is None) == (limit is None)
    file = write(tmp_path / "x.safetensors", network, manifest.metadata())
    assert nasrun.load(file).manifest.width == manifest.width
    other = manifest.model_copy(update={"width": 7.0})
    write(file, network, other.metadata())
    with pytest.raises(UserError, match=r"its width was fitted to 7.0, .* use nasrun 0"):
        nasrun.load(file)


def test_metadata_change_no_byte_of_the_tensors(tmp_path: Path) -> None:
    manifest, network = described(CELL)
    with_it = write(tmp_path / "a", network, manifest.metadata())
    without = write(tmp_path / "b", network, None)
    assert tensors(with_it) == tensors(without)
    assert list(metadata_of(with_it.read_bytes())) == [MANIFEST_KEY]
    assert metadata_of(without.read_bytes()) == {}


def test_names_of_any_bytes_are_kept_as_text() -> None:
    manifest, _ = described(CELL)
    odd = os.fsdecode(b"caf\xe9")
    splits = replace(few_images(), classes=("a", "\n", odd, "雪"))
    space = build(CELL)
    found = Manifest.of(space, CELL, manifest.architecture, splits, auxiliary=False, origin=ORIGIN)
    assert found.classes == ("a", "\n", "caf\\udce9", "雪")
    json.loads(found.metadata()[MANIFEST_KEY])


# A run.


def test_a_run_predicts_what_it_has_measured(undisturbed: Path) -> None:
    model = nasrun.load(undisturbed)
    result = json.loads((undisturbed / "result.json").read_text())
    record = json.loads((undisturbed / "run.json").read_text())
    assert model.manifest.measured == {
        key: result[key] for key in ("validation_accuracy", "test_accuracy")
    }
    assert model.manifest.search_space == record["config"]["search_space"]
    assert model.manifest.origin == Origin(
        run="run", task="search", seed=0, dataset="digits", nasrun=nasrun.__version__
    )
    assert model.architecture.to_json() == result["architecture"]
    assert model.cost.params == result["params"]
    assert model.classes == tuple("0123456789")
    assert repr(model).startswith("Model(nao_cell/small/1, 10 classes, ")
    images, labels = everything(load_images("digits", train_images=32, validation=16).test())
    for size in (64, 7, 1000):
        found = model.predict(images, batch_size=size)
        right = sum(one.index == label for one, label in zip(found, labels.tolist(), strict=True))
        assert right / len(labels) == pytest.approx(result["test_accuracy"], abs=1e-12)
    probabilities = model.probabilities(images)
    assert torch.allclose(probabilities.sum(1), torch.ones(len(images)))
    best, places = probabilities.max(1)
    assert [one.index for one in found] == places.tolist()
    assert [one.probability for one in found] == pytest.approx(best.tolist(), abs=1e-6)
    one = found[0]
    assert len(one.top) == 5 and one.top[0] == (one.name, one.probability)
    assert [p for _, p in one.top] == sorted((p for _, p in one.top), reverse=True)
    assert len(model.predict(images[:1], top=99)[0].top) == 10
    assert model.predict([]) == []


@pytest.mark.soak
def test_a_picture_is_the_same_from_a_file_or_an_array(undisturbed: Path, tmp_path: Path) -> None:
    model = nasrun.load(str(undisturbed / "network.safetensors"))
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8)).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    file, array = model.predict([tmp_path / "a.png", pixels])
    assert (file.source, array.source) == (str(tmp_path / "a.png"), None)
    assert file.top == array.top
    for wrong in ({"batch_size": 0}, {"top": 0}):
        with pytest.raises(UserError, match="must be at least 1"):
            model.predict(pixels, **wrong)
    with pytest.raises(UserError, match=r"no such device|is no device"):
        nasrun.load(undisturbed, device="nonsense")


def test_a_set_that_tells_no_preprocessing_takes_floats(tmp_path: Path) -> None:
    manifest, network = described(CELL)
    assert manifest.preprocessing is None and manifest.classes == ("0", "1", "2", "3")
    model = nasrun.load(write(tmp_path / "x.safetensors", network, manifest.metadata()))
    assert len(model.predict(torch.randn(3, 1, 8, 8))) == 3
    for image in ("a.png", torch.zeros(1, 8, 8, dtype=torch.uint8), torch.zeros(1, 9, 9)):
        with pytest.raises(UserError, match="'helpers' does not say how its images are prep"):
            model.predict(image)


def test_importing_nasrun_imports_no_torch() -> None:
    code = "import nasrun, sys; print(nasrun.load.__name__, 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "load False\n"


# Files of strangers, and what is no network.

Edit = Callable[[dict[str, Any]], object]


def spoilt(edit: Edit, tmp_path: Path) -> Path:
    """A file whose manifest was edited."""
    manifest, network = described(CELL)
    content = json.loads(manifest.metadata()[MANIFEST_KEY])
    edit(content)
    return write(tmp_path / "x.safetensors", network, {MANIFEST_KEY: json.dumps(content)})


SPOILT: dict[str, tuple[Edit, str]] = {
    "format": (
        lambda c: c.update(format=2, new=1),
        r"manifest of format 2, and this nasrun \(.*\) reads format 1: use the version .* \(0\)",
    ),
    "no format": (
        lambda c: c.pop("format"),
        "the manifest in .* is damaged: it is no mapping with a format",
    ),
    "code": (
        lambda c: c.update(search_space={"_target_": "os.system", "command": "false"}),
        r"only classes of nasrun, torch.optim are built",
    ),
    "no space": (
        lambda c: c.update(search_space={"_target_": "nasrun.run.logs.Logs", "directory": "x"}),
        "must be a SearchSpace, not a Logs",
    ),
    "inner": (
        lambda c: c["search_space"].update(
            final={"_target_": "nasrun.run.logs.Logs", "directory": "x", "lengths": {}}
        ),
        "search_space.final must be a CellScale, not a Logs",
    ),
    "plain": (lambda c: c.update(search_space={}), "search_space has no _target_"),
    "choices": (
        lambda c: c["architecture"].update(choices=[99] * len(c["architecture"]["choices"])),
        "is out of range",
    ),
    "another space": (
        lambda c: c["architecture"].update(space="darts_cell"),
        "belongs to search space 'darts_cell'",
    ),
    "huge": (
        lambda c: c["search_space"]["final"].update(channels=90_000),
        r"it has [\d,]+ bytes for [\d,]+ parameters",
    ),
    "small": (lambda c: c["search_space"]["final"].update(channels=2), "not those of its network"),
    "classes": (lambda c: c["classes"].pop(), "not those of its network"),
    "no classes": (lambda c: c.update(classes=[]), "manifest.classes"),
    "NaN": (lambda c: c["measured"].update(test_accuracy=float("nan")), "manifest.measured"),
    "more than all": (lambda c: c["measured"].update(test_accuracy=1e9), "manifest.measured"),
    "less than nothing": (lambda c: c["cost"].update(params=-5), "manifest.cost = .*negative"),
    "a terminal": (lambda c: c.update(auxiliary="\x1b[2J"), r"auxiliary = \\x1b\[2J: must be"),
    "many mistakes": (lambda c: c.update(classes=[1] * 5000), "manifest.classes"),
    "more": (lambda c: c.update(code="x"), "manifest.code: no such setting"),
    "less": (lambda c: c.pop("cost"), "manifest.cost: is missing"),
    "preprocessing": (
        lambda c: c.update(
            preprocessing={
                "channels": 3,
                "size": 8,
                "mean": [0.5],
                "std": [0.5],
                "resize": "area",
                "source_side": 16,
            }
        ),
        r"makes images \[3, 8, 8\], the network takes \[1, 8, 8\]",
    ),
}


@pytest.mark.parametrize("kind", SPOILT)
def test_a_manifest_that_is_wrong_is_one_line(kind: str, tmp_path: Path) -> None:
    edit, said = SPOILT[kind]
    file = spoilt(edit, tmp_path)
    with pytest.raises(UserError, match=said) as found:
        nasrun.load(file)
    message = str(found.value)
    assert str(file) in message and message.isprintable() and len(message) < 900


def test_a_name_of_a_tensor_cannot_control_a_terminal(tmp_path: Path) -> None:
    manifest, network = described(CELL)
    data = encode_tensors(pack(dict(network.state_dict()))[1], manifest.metadata())
    (tmp_path / "x.safetensors").write_bytes(
        data.replace(b"classifier.bias", b"\\u001b[2Jr.bias", 1)
    )
    with pytest.raises(UserError, match="not those of its network") as found:
        nasrun.load(tmp_path / "x.safetensors")
    assert str(found.value).isprintable()


def test_an_answer_that_is_no_number_is_none(tmp_path: Path) -> None:
    manifest, network = described(CELL)
    with torch.no_grad():
        next(network.parameters()).fill_(float("nan"))
    model = nasrun.load(write(tmp_path / "x.safetensors", network, manifest.metadata()))
    with pytest.raises(UserError, match=r"x\.safetensors: .* numbers that are not finite"):
        model.predict(torch.zeros(1, 8, 8))


def headed(text: str) -> bytes:
    """A safetensors file with this header and no tensors."""
    return len(text).to_bytes(8, "little") + text.encode()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "no safetensors file"),
        (b"\x80\x04K*.", "no safetensors file"),
        (b"\xff" * 40, "no safetensors file"),
        ((2**40).to_bytes(8, "little") + b"{}", "no safetensors file"),
        (headed("[]"), "its header is none"),
        (headed("[[[[[[[["), "is damaged, or no file of weights"),
        (headed("{}"), "does not say which network it holds"),
        (headed('{"__metadata__":{"nasrun":1}}'), "its header is none"),
        (headed('{"__metadata__":{"nasrun":"["}}'), "the manifest in .* is damaged"),
        (headed('{"__metadata__":{"nasrun":"[1]"}}'), "is damaged: it is no mapping"),
    ],
)
def test_a_file_that_is_none(content: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / "x.safetensors").write_bytes(content)
    with pytest.raises(UserError, match=said):
        nasrun.load(tmp_path / "x.safetensors")


def test_a_run_without_weights(undisturbed: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no such run or file"):
        nasrun.load(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"so it is no run"):
        nasrun.load(tmp_path)
    run = tmp_path / "run"
    shutil.copytree(undisturbed, run)
    weights = run / "network.safetensors"
    weights.rename(tmp_path / "away")
    with pytest.raises(UserError, match="was looked up, not trained"):
        nasrun.load(run)
    (run / "result.json").unlink()
    with pytest.raises(UserError, match=rf"go on with it \(nasrun resume {run}\)"):
        nasrun.load(run)
    record = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**record, "task": "rank"}))
    with pytest.raises(UserError, match="nasrun rank trains no winner"):
        nasrun.load(run)
    # A link in a run, which may be a stranger's, is not followed; the user's own is.
    weights.symlink_to(tmp_path / "away")
    with pytest.raises(UserError, match="it is a link"):
        nasrun.load(run)
    assert nasrun.load(weights).classes == tuple("0123456789")
    weights.unlink()
    os.mkfifo(weights)
    with pytest.raises(UserError, match="it is no regular file"):
        nasrun.load(run)
