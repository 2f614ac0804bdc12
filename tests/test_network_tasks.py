"""The tasks about a trained network: test, export, benchmark."""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from test_contracts import built

import nasrun
from nasrun.cli.main import main
from nasrun.dataset.preprocessing import Preprocessing
from nasrun.export import programs, speed
from nasrun.export.speed import Case, peak_memory
from nasrun.model.manifest import Manifest, Origin
from nasrun.run.compute import Compute
from nasrun.run.monitor import NullMonitor
from nasrun.run.state import encode_tensors, pack
from nasrun.values import Problem
from tests.helpers import space_of

SPACE = "nas_bench_201"
RETRAIN = (
    *("retrain", "architecture=given.json", f"search_space={SPACE}", "effort=smoke", "threads=1"),
    *("dataset=digits", "dataset.train_images=40", "dataset.validation=20"),
)
CLASSES = ("cat", "dog", "eel")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a retraining that has ended."""
    place = tmp_path_factory.mktemp("trained")
    given = space_of(SPACE).sample(np.random.default_rng(3))
    (place / "given.json").write_text(json.dumps(given.to_json()))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        assert main([*RETRAIN, "hydra.run.dir=run"]) == 0
    return place / "run"


def network_file(path: Path, **settings: Any) -> Path:
    """A network.safetensors of an untrained network for colour pictures of 16 pixels."""
    from nasrun.config.compose import compose

    node = compose(["task=search", "effort=smoke", f"search_space={SPACE}"])["search_space"]
    space = built("search_space", f"search_space={SPACE}")
    architecture = space.sample(np.random.default_rng(3))
    problem = Problem(3, 16, len(CLASSES))
    torch.manual_seed(0)
    network = space.network(architecture, problem, "final").eval()
    preprocessing = {
        "channels": 3,
        "size": 16,
        "mean": [0.4, 0.5, 0.6],
        "std": [0.2, 0.25, 0.3],
        "resize": "bilinear",
        "source_side": 32,
        **settings,
    }
    manifest = Manifest(
        search_space=node,
        architecture=architecture,
        scale="final",
        auxiliary=False,
        width=None,
        channels=3,
        size=16,
        classes=CLASSES,
        preprocessing=Preprocessing(**preprocessing),
        cost=space.cost(architecture, problem, "final"),
        measured={"test_accuracy": 0.9},
        origin=Origin(run="r", task="retrain", seed=0, dataset="pets", nasrun="0.1.0"),
    )
    tensors = pack(dict(network.state_dict()))[1]
    path.write_bytes(encode_tensors(tensors, manifest.metadata()))
    return path


def pictures(root: Path, counts: dict[str, int]) -> Path:
    rng = np.random.default_rng(0)
    for name, count in counts.items():
        folder = root / name
        folder.mkdir(parents=True)
        for number in range(count):
            height, width = rng.integers(18, 40, 2)
            pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{number}.png")
    return root


def rows(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.open(newline="")))


def result(directory: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((directory / "result.json").read_text())
    return found


def test_the_accuracy_is_that_of_the_retraining(trained: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert main(["test", f"from={trained}", f"hydra.run.dir={run}"]) == 0
    found, before = result(run), result(trained)
    assert found["test_accuracy"] == before["test_accuracy"]
    assert (run / "network.safetensors").read_bytes() == (
        trained / "network.safetensors"
    ).read_bytes()
    answers = rows(run / "predictions.csv")
    right = sum(row["true"] == row["predicted"] for row in answers)
    assert right / len(answers) == found["test_accuracy"]
    assert len({row["image"] for row in answers}) == len(answers) == found["test_images"]
    confusion = rows(run / "confusion.csv")
    assert sum(int(row[row["true"]]) for row in confusion) == right
    recalls = {row["class"]: row for row in rows(run / "classes.csv")}
    truth = Counter(row["true"] for row in answers)
    assert {name: int(row["images"]) for name, row in recalls.items()} == truth
    low, high = (found["intervals"]["test_accuracy"][end] for end in ("low", "high"))
    assert low < found["test_accuracy"] < high
    assert all((run / f"{name}.svg").exists() for name in ("confusion", "calibration"))


@pytest.mark.soak
def test_a_test_run_is_a_source_itself(trained: Path, tmp_path: Path) -> None:
    """Also where the directory of the training is gone, and when the run goes on."""
    one, other = tmp_path / "one", tmp_path / "other"
    assert main(["test", f"from={trained}", f"hydra.run.dir={one}"]) == 0
    assert main(["test", f"from={one / 'network.safetensors'}", f"hydra.run.dir={other}"]) == 0
    wanted = result(one)["test_accuracy"]
    assert result(other)["test_accuracy"] == wanted == result(trained)["test_accuracy"]
    (other / "result.json").unlink()
    assert main(["resume", str(other)]) == 0
    assert result(other)["test_accuracy"] == wanted


@pytest.mark.soak
def test_a_folder_of_ones_own_is_matched_by_names(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = network_file(tmp_path / "network.safetensors")
    root = pictures(tmp_path / "images", {"dog": 5, "cat": 4, "fox": 3})
    (root / "cat" / "broken.png").write_bytes(b"no picture")
    run = tmp_path / "run"
    words = ("dataset=image_folder", f"dataset.root={root}", f"hydra.run.dir={run}")
    assert main(["test", f"from={file}", *words]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "left out: images of fox, which the network does not know" in said
    assert "no images of eel" in said
    assert "left out, as they cannot be read:" in said and "broken.png" in said
    model = nasrun.load(file)
    answers = rows(run / "predictions.csv")
    assert Counter(row["true"] for row in answers) == {"dog": 5, "cat": 4}
    for row, told in zip(answers, model.predict([row["image"] for row in answers]), strict=True):
        assert row["true"] == Path(row["image"]).parent.name
        assert row["predicted"] == told.name
        assert float(row["probability"]) == pytest.approx(told.probability, abs=1e-4)


def refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert main(words) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    return told


def test_mistakes_are_told_in_one_line_and_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    file = network_file(tmp_path / "network.safetensors")
    strangers = pictures(tmp_path / "images", {"ant": 1, "bee": 1})
    folder = ["dataset=image_folder", f"dataset.root={strangers}"]
    assert "needs from=RUN_DIR" in refused(["test"], capsys)
    assert "takes images of 3 channels and 16×16" in refused(["test", f"from={file}"], capsys)
    assert "none in common" in refused(["test", f"from={file}", *folder], capsys)
    assert not list((tmp_path / "outputs").rglob("run.json"))


@pytest.mark.soak
@pytest.mark.parametrize("task", ["test", "export", "benchmark"])
def test_damaged_files_are_told_in_one_line(
    task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken.safetensors").write_bytes(b"x" * 100)
    assert "is damaged" in refused([task, "from=./broken.safetensors"], capsys)
    assert "no such" in refused([task, "from=./absent"], capsys)
    assert not list((tmp_path / "outputs").rglob("run.json"))


@pytest.mark.soak
def test_export_goes_on_without_the_packages_of_onnx(
    trained: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(programs, "ONNX_PACKAGES", ("no_such_package",))
    run = tmp_path / "run"
    words = ("export.formats=[py,onnx]", "export.repeats=0", f"hydra.run.dir={run}")
    assert main(["export", f"from={trained}", *words]) == 0
    assert "pip install 'nasrun[export]'" in capsys.readouterr().out
    files = result(run)["files"]
    assert "no_such_package" in files["model.onnx"]["left_out"]
    assert files["model.py"]["largest_difference"] <= 1e-4
    assert "validation images of digits" in result(run)["checked_on"]
    bundle = {path.name for path in (run / "bundle").iterdir()}
    assert bundle == {"model.py", "network.safetensors", "README.md"}


@pytest.mark.soak
def test_the_bundle_needs_torch_alone(trained: Path, tmp_path: Path) -> None:
    """In a process of its own, which finds no nasrun."""
    run = tmp_path / "run"
    assert main(["export", f"from={trained}", f"hydra.run.dir={run}"]) == 0
    model = nasrun.load(trained)
    shape = model.manifest.problem.shape
    code = (
        "import sys; sys.path.insert(0, '.')\n"
        "import model, torch\n"
        "assert 'nasrun' not in sys.modules\n"
        f"images = torch.linspace(-1, 1, {2 * int(np.prod(shape))}).view(2, *{shape})\n"
        "print(model.load()(images).tolist())\n"
        "print(torch.export.load('model.pt2').module()(images).tolist())\n"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", code],
        cwd=run / "bundle",
        capture_output=True,
        text=True,
        check=True,
    )
    pixels = torch.linspace(-1, 1, 2 * int(np.prod(shape))).view(2, *shape)
    wanted = model.network(pixels).detach()
    for line in done.stdout.splitlines():
        assert torch.allclose(torch.tensor(json.loads(line)), wanted, atol=1e-5)


@pytest.mark.parametrize(
    "settings",
    [{}, {"margin": 1.15}, {"fit": "pad", "background": (10, 20, 30)}],
    ids=["crop", "margin", "pad"],
)
def test_the_code_for_preprocessing_in_the_readme_is_right(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    from nasrun.export.bundle import Made, Story, readme
    from nasrun.run.layout import BUNDLE_CODE, BUNDLE_ONNX, BUNDLE_TORCH, NETWORK

    model = nasrun.load(network_file(tmp_path / "network.safetensors", **settings))
    made = {name: Made(name) for name in (NETWORK, BUNDLE_CODE, BUNDLE_TORCH, BUNDLE_ONNX)}
    text = readme(model, made, Story(None, [], [], "2 images"))
    picture = next(pictures(tmp_path / "images", {"cat": 1}).rglob("*.png"))
    section = text.partition("## Preprocessing")[2].partition("\n## ")[0]
    (code,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    names: dict[str, Any] = {}
    exec(code.replace("FILE", str(picture)), names)  # noqa: S102
    assert torch.allclose(names["images"], model.preprocess(picture), atol=1e-5)


def test_names_of_classes_are_text_wherever_they_stand(tmp_path: Path) -> None:
    from nasrun.export.bundle import python_file

    model = nasrun.load(network_file(tmp_path / "network.safetensors"))
    names = ('"""', "a\\", "'''\nimport os", "é\N{GRINNING FACE}", "\udcff")
    manifest = model.manifest.model_copy(update={"classes": names})
    text = python_file(type(model)(manifest, *[getattr(model, k) for k in FIELDS]), "")
    values: dict[str, Any] = {}
    exec(next(line for line in text.splitlines() if line.startswith("CLASSES")), values)  # noqa: S102
    assert tuple(values["CLASSES"]) == names
    compile(text.encode(), "model.py", "exec")


FIELDS = ("space", "network", "compute", "path")


def test_the_memory_is_that_of_tensors_alive_at_once() -> None:
    network = torch.nn.Sequential(*(torch.nn.ReLU() for _ in range(5)), torch.nn.Conv2d(1, 1, 1))
    compute = Compute(torch.device("cpu"), bf16=False, channels_last=False)
    image = 4 * 8 * 8
    assert peak_memory(network, (1, 8, 8), 3, compute) == 2 * 3 * image + 2 * 4


def test_all_cases_are_measured_in_turn_and_a_busy_machine_is_told() -> None:
    from nasrun.task.benchmark import told_busy

    calls: list[str] = []
    cases = [Case(name, 1, lambda name=name: calls.append(name)) for name in "ab"]  # type: ignore[misc]
    found = speed.measure(
        cases,
        NullMonitor(),
        repeats=5,
        warm_up=2,
        confidence=0.95,
        rng=np.random.default_rng(0),
    )
    assert [one.engine for one in found] == ["a", "b"] and {*calls} == {"a", "b"}
    assert all(one.repeats == 5 and one.milliseconds.low <= one.milliseconds.high for one in found)
    restless = [one for one in found if not one.steady(-1)]
    (line,) = told_busy(restless)
    assert "the machine is busy" in line and not told_busy([])


@pytest.mark.soak
def test_benchmark_tells_every_batch_size(trained: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    words = ("benchmark.batch_sizes=[4,1,4]", "benchmark.repeats=5", f"hydra.run.dir={run}")
    assert main(["benchmark", f"from={trained}", *words]) == 0
    table = rows(run / "benchmark.csv")
    assert [row["batch_size"] for row in table if row["engine"] == "torch"] == ["1", "4"]
    found = result(run)
    assert found["machine"]["threads"] == torch.get_num_threads()
    assert found["latency_ms"] == float(table[0]["ms"])
    assert int(table[1]["memory_bytes"]) > int(table[0]["memory_bytes"])
