"""``nasrun predict``: what the screen, the table and the exit status say of any files."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file, save_file

import nasrun
from nasrun.cli.main import main


@pytest.fixture
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Pictures at several depths, hidden ones, one that is none, and a link to a folder."""
    monkeypatch.chdir(tmp_path)
    noise = np.random.default_rng(1)
    for name in ("photos/b.png", "photos/test/7/a.JPG", "photos/.hidden.png", "odd=name.png"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = noise.integers(0, 256, (9, 12)).astype(np.uint8)
        Image.fromarray(pixels).save(path, format="PNG")
    (tmp_path / "photos" / "notes.txt").write_text("no image")
    (tmp_path / "photos" / "again").symlink_to(tmp_path / "photos")
    return tmp_path


Said = pytest.CaptureFixture[str]


def test_a_table_by_line(undisturbed: Path, images: Path, capsys: Said) -> None:
    assert main(["predict", f"from={undisturbed}", "photos", "odd=name.png", "top=2"]) == 0
    out, err = capsys.readouterr()
    model = nasrun.load(undisturbed)
    paths = ["photos/b.png", "photos/test/7/a.JPG", "odd=name.png"]
    lines = [
        f"{path:<19}" + "".join(f"  {name} {100 * p:5.1f} %" for name, p in found.top)
        for path, found in zip(paths, model.predict(paths, top=2), strict=True)
    ]
    assert (out.splitlines(), err) == (lines, "")


def test_a_file_that_is_no_image_stops_nothing(
    undisturbed: Path, images: Path, capsys: Said
) -> None:
    (images / "empty").mkdir()
    names = ["nowhere.png", "photos/notes.txt", "photos/b.png", "empty"]
    file = undisturbed / "network.safetensors"
    assert main(["predict", *names, f"from={file}", "out=table.csv", "device=cpu"]) == 1
    out, err = capsys.readouterr()
    assert out == "1 predictions are in table.csv\n"
    assert err.splitlines() == [
        "nasrun: no images in empty",
        "nasrun: cannot read the image nowhere.png: No such file or directory",
        "nasrun: cannot read the image photos/notes.txt: damaged or no image",
        "nasrun: 3 of 4 were not read",
    ]
    (row,) = csv.DictReader((images / "table.csv").open(newline=""))
    (found,) = nasrun.load(file).predict("photos/b.png", top=3)
    assert row["file"] == "photos/b.png" and row["class"] == found.name
    assert float(row["probability_3"]) == pytest.approx(found.top[2][1], abs=1e-6)
    assert row["class_2"] == found.top[1][0]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["photos"], "predict needs a network: from=RUN_DIR"),
        (["from=RUN"], "predict needs images, or folders of them"),
        (["from=nowhere", "photos"], "nowhere: there is no such run or file"),
        (["from=photos", "photos"], "photos has no network.safetensors and no run.json"),
        (["from=photos/b.png", "photos"], "photos/b.png is damaged, or no file of weights"),
        (["from=RUN", "photos", "tpo=3"], "predict has no setting 'tpo' (did you mean 'top'?)"),
        (["from=RUN", "photos", "top=0"], "top=0: must be a whole number from 1 on"),
        (["from=RUN", "photos", "top=x"], "top=x: must be a whole number"),
        (["from=RUN", "photos", "out=no/where.csv"], "out=no/where.csv: there is no folder"),
        (["from=RUN", "photos", "out=photos"], "out=photos cannot be written"),
        (["from=RUN", "photos", "device=tpu"], "device=tpu is no"),
        (["from=RUN", "photos", "-m"], "predict takes no switch like -m"),
        (["from=old.safetensors", "photos"], "old.safetensors does not say which network"),
    ],
)
def test_mistakes_are_one_line(
    words: list[str], said: str, undisturbed: Path, images: Path, capsys: Said
) -> None:
    if "from=old.safetensors" in words:
        save_file(load_file(undisturbed / "network.safetensors"), images / "old.safetensors")
    assert main(["predict", *(word.replace("RUN", str(undisturbed)) for word in words)]) == 2
    out, err = capsys.readouterr()
    assert said in err and err.startswith("nasrun: error: ") and err.count("\n") == 1
    assert out == ""


def test_a_narrow_terminal_is_not_overrun(
    undisturbed: Path, images: Path, capsys: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = images / ("photo-" * 20)
    deep.mkdir()
    (images / "photos/b.png").rename(deep / "b.png")
    monkeypatch.setenv("FORCE_COLOR", "1")  # for rich this is a terminal
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["predict", f"from={undisturbed}", str(deep)]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert len(line) <= 80 and "…" in line and line.endswith(" %")
