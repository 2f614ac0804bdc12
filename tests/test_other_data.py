"""Recipes on other images than their own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kills import RECIPES
from PIL import Image

from nasrun.cli.main import main
from nasrun.config.build import build_setup
from nasrun.config.compose import compose, flatten
from nasrun.config.groups import option_of_recipe, task_of_recipe
from nasrun.config.other_data import fit_to_data
from nasrun.config.prune import leave_out

OWN = ("dataset=image_folder", "dataset.root=/mine")


def fitted(recipe: str, *words: str) -> tuple[dict[str, Any], list[str]]:
    line = [f"experiment={recipe}", *words]
    settings = compose([*line, f"task={task_of_recipe(recipe)}"])
    leave_out(settings, line)
    notes = fit_to_data(settings, line, None)
    return settings, notes


def test_numbers_of_images_become_shares_or_upper_bounds() -> None:
    """By hand: DARTS holds half of CIFAR-10 out; the small recipes 1,000 of 6,000 images."""
    darts, _ = fitted("darts_cifar10", *OWN)
    assert darts["dataset"]["validation"] == 0.5
    small, notes = fitted("small_fashion_mnist", *OWN)
    assert small["dataset"]["validation"] == 0.167
    assert small["dataset"]["train_images"] == "at most 5000"
    assert small["evaluator"]["images"] == "at most 1000"  # all that the recipe holds out
    assert "dataset.validation=0.167 (1,000 of 6,000)" in notes[0]
    spos, _ = fitted("spos_cifar10", *OWN)
    assert spos["evaluator"]["images"] == "at most 5000"
    assert spos["dataset"]["validation"] == 0.1  # image_folder's own: the recipe names none


def test_budgets_go_with_the_pixels() -> None:
    settings, notes = fitted("small_spos_fashion_mnist", *OWN)
    assert settings["budget"]["macs"]["max"] == pytest.approx(11e6 * (64 / 28) ** 2, rel=0.01)
    assert "budget.macs.max=57.5M" in notes[0]
    assert "images of 64 pixels where the recipe has 28 take 5.2 times" in notes[1]
    settings, _ = fitted("small_spos_fashion_mnist", *OWN, "budget.macs.max=5M")
    assert settings["budget"]["macs"]["max"] == "5M"  # as typed
    settings, _ = fitted("small_spos_fashion_mnist", *OWN, "dataset.image_size=28")
    assert settings["budget"]["macs"]["max"] == 11e6


def test_what_a_recipe_says_of_its_images_gives_way() -> None:
    settings, notes = fitted("rank_macro_laptop", *OWN)
    assert settings["dataset"]["image_size"] == 64 and settings["dataset"]["crop_padding"] == 4
    assert any("accuracies in" in note and "are those of cifar10" in note for note in notes)
    settings, _ = fitted("spos_imagenet", *OWN)
    assert settings["dataset"]["hue"] == compose(["dataset=image_folder"])["dataset"]["hue"]


def test_a_recipe_on_its_own_images_stays_as_it_is() -> None:
    for words in ((), ("dataset=cifar10",), ("dataset.root=/x",)):
        settings, notes = fitted("spos_cifar10", *words)
        assert notes == [] and settings["evaluator"]["images"] == 5000
    settings, notes = fitted("darts_cifar10", "dataset=cifar100")  # as many images, as large
    assert settings["dataset"]["validation"] == 25000


@pytest.mark.few(4)
@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_takes_a_folder_of_images(recipe: str) -> None:
    settings, _ = fitted(recipe, *OWN)
    assert build_setup(settings).dataset.name == "image_folder"
    counts = {k: v for k, v in flatten(settings).items() if k.endswith(".images")}
    if option_of_recipe(recipe, "dataset") != "synthetic":
        for key in ("evaluator.images", "rank.also.images"):
            assert not isinstance(counts.get(key), int)


def pictures(folder: Path, count: int = 40) -> Path:
    """Two classes of noisy pictures, of odd sizes."""
    rng = np.random.default_rng(0)
    for name, level in (("dark", 60), ("light", 180)):
        (folder / name).mkdir(parents=True)
        for number in range(count):
            pixels = rng.normal(level, 30, (40 + number % 7, 50, 3)).clip(0, 255)
            Image.fromarray(pixels.astype(np.uint8)).save(folder / name / f"{number}.png")
    return folder


@pytest.mark.soak
@pytest.mark.parametrize(
    "recipe", ["spos_cifar10", "small_fashion_mnist", "darts_cifar10", "small_spos_fashion_mnist"]
)
def test_a_recipe_runs_on_a_folder_of_pictures(
    recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    root = pictures(tmp_path / "mine")
    words = ["dataset=image_folder", f"dataset.root={root}", "effort=smoke", "threads=1"]
    line = ["search", f"experiment={recipe}", *words, "hydra.run.dir=run"]
    assert main(line) == 0
    record = json.loads(Path("run/run.json").read_text())
    assert record["config"]["dataset"]["root"] == str(root)
    assert record["data"]["classes"] == ["dark", "light"]
