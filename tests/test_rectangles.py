"""Images that are higher or wider than others: known answers, from the file to the prediction."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from test_dataset import everything, load, train
from test_dataset_folder import draw, options

import nasrun
from nasrun.cli.main import main
from nasrun.dataset.preprocessing import Preprocessing
from nasrun.errors import UserError
from nasrun.values import MapSize, Problem

RED, BLUE = (255, 0, 0), (0, 0, 255)


def halves(height: int, width: int) -> Image.Image:
    """A picture whose left half is red and whose right half is blue."""
    pixels = np.empty((height, width, 3), dtype=np.uint8)
    pixels[:, : width // 2], pixels[:, width // 2 :] = RED, BLUE
    return Image.fromarray(pixels)


def rule(**changes: Any) -> Preprocessing:
    given = {"channels": 3, "size": (4, 8), "mean": [0.0], "std": [1.0], "source_side": 64}
    return Preprocessing(**{"resize": "bilinear", **given, **changes})


@pytest.mark.parametrize("size", [(4, 8), (8, 16), (40, 80), (4, 16), (12, 8)])
def test_the_centre_of_the_wanted_form_is_shown(size: tuple[int, int]) -> None:
    shown = rule().pixels(halves(*size))
    assert shown.shape == (3, 4, 8)
    assert (shown[0, :, :3] == 255).all() and (shown[2, :, :3] == 0).all()  # left of the seam
    assert (shown[0, :, 5:] == 0).all() and (shown[2, :, 5:] == 255).all()


def test_padding_fills_the_form() -> None:
    shown = rule(fit="pad", background=(0, 255, 0)).pixels(halves(4, 4))
    green = torch.tensor([0, 255, 0]).view(3, 1, 1)
    assert (shown[:, :, :2] == green).all() and (shown[:, :, 6:] == green).all()
    assert (shown[0, :, 2] == 255).all() and (shown[2, :, 5] == 255).all()


def test_a_form_of_the_same_aspect_ratio_is_only_scaled() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (4, 8, 3)).astype(np.uint8)
    expected = torch.from_numpy(noise).permute(2, 0, 1)
    for fit in ("crop", "pad"):
        assert torch.equal(rule(fit=fit).pixels(Image.fromarray(noise)), expected)


@pytest.mark.parametrize("limit", [0, 4000])
def test_every_split_has_the_form(limit: int, tmp_path: Path) -> None:
    own = options(draw(tmp_path, 10), image_size=[6, 10], resident_limit_mb=limit)
    splits = load("image_folder", **own)
    assert splits.problem == Problem(3, MapSize(6, 10), 3)
    for split in (splits.train, splits.validation, splits.test()):
        assert everything(split)[0].shape[1:] == (3, 6, 10)
    (images, _), *_ = train(splits.train, 2, batch_size=4, cutout=3)
    assert images.shape == (4, 3, 6, 10)
    assert images.isfinite().all()


def test_cutout_reaches_all_of_a_wide_image() -> None:
    splits = load("synthetic", image_size=[4, 20], crop_padding=0, flip=False)
    plain = train(splits.train, 8, batch_size=32)
    cut = train(splits.train, 8, batch_size=32, cutout=2)
    erased = torch.zeros(4, 20, dtype=torch.bool)
    for (images, _), (others, _) in zip(plain, cut, strict=True):
        erased |= (images != others).any(1).any(0)
    assert erased.all()


@pytest.mark.parametrize("size", [0, [8], [8, 0], [8, 8, 8], "8x8", [8, 5000]])
def test_no_size(size: Any) -> None:
    with pytest.raises(UserError, match="image_size"):
        load("synthetic", image_size=size)


@pytest.mark.soak
def test_a_search_on_wide_images_ends_with_a_network_for_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images, run = draw(tmp_path / "images", 20), tmp_path / "run"
    line = ["search", "effort=smoke", "dataset=image_folder", f"dataset.root={images}"]
    assert main([*line, "dataset.image_size=[12,24]", f"hydra.run.dir={run}"]) == 0
    model = nasrun.load(run)
    assert model.network(torch.zeros(2, 3, 12, 24)).shape == (2, 3)
    files = sorted((images / "ant").glob("*.png"))[:3]
    assert model.preprocess(files).shape == (3, 3, 12, 24)
    assert main(["retrain", f"from={run}", f"hydra.run.dir={tmp_path / 'again'}"]) == 0
