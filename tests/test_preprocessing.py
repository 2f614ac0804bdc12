"""The images of a prediction go the way of the test images: equal tensors, whatever they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from test_dataset import configured, everything, load
from test_dataset_folder import draw, options

from nasrun.dataset.base import Splits
from nasrun.dataset.preprocessing import Preprocessing
from nasrun.dataset.resident import ResidentDataset
from nasrun.dataset.streamed import StreamedSplit
from nasrun.errors import UserError


def told(splits: Splits) -> Preprocessing:
    assert splits.preprocessing is not None
    return splits.preprocessing


def rows(images: torch.Tensor) -> list[bytes]:
    return sorted(image.contiguous().numpy().tobytes() for image in images)


@pytest.mark.parametrize(
    ("option", "changes"),
    [
        ("digits", {}),
        ("digits", {"image_size": 5}),
        ("synthetic", {}),
        ("synthetic", {"channels": 1, "image_size": 9}),
        ("synthetic", {"image_size": [9, 6]}),
        ("synthetic", {"channels": 5, "mean": [0.1, 0.2, 0.3, 0.4, 0.5]}),
    ],
)
def test_arrays_become_what_the_test_images_are(option: str, changes: dict[str, Any]) -> None:
    dataset = configured(option, **changes)
    assert isinstance(dataset, ResidentDataset)
    splits = load(option, **changes)
    preprocess = told(splits)
    pixels, _ = dataset.read_test()
    expected = rows(everything(splits.test())[0])
    arrays = [np.ascontiguousarray(image.permute(1, 2, 0).numpy()) for image in pixels]
    assert rows(preprocess(arrays)) == expected
    assert rows(preprocess(pixels)) == expected  # one tensor [N, C, H, W]
    assert rows(preprocess(np.stack(arrays))) == expected
    if pixels.shape[1] in (1, 3):
        pictures = [Image.fromarray(array.squeeze()) for array in arrays]
        assert rows(preprocess(pictures)) == expected
        assert rows(preprocess([np.asarray(picture) for picture in pictures])) == expected
    names = splits.class_names
    assert len(names) == splits.problem.classes
    assert names[:3] == ("0", "1", "2")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Classes of pictures of several shapes and modes, some transparent, some turned by EXIF."""
    root = draw(tmp_path_factory.mktemp("photos"), 4)
    noise = np.random.default_rng(3)
    for name in ("ant", "bee", "cat"):
        for index, (height, width) in enumerate([(30, 17), (9, 40), (150, 5), (6, 6)]):
            values = noise.integers(0, 256, (height, width, 4)).astype(np.uint8)
            Image.fromarray(values).save(root / name / f"clear{index}.png")
            turned = Image.fromarray(values[:, :, :3])
            exif = Image.Exif()
            exif[0x0112] = 6
            turned.save(root / name / f"turned{index}.jpg", exif=exif, quality=90)
            Image.fromarray(values[:, :, 0]).save(root / name / f"grey{index}.png")
    return root


@pytest.mark.parametrize("fit", ["crop", "pad"])
@pytest.mark.parametrize(("channels", "size"), [(1, 12), (3, 12), (3, [9, 14]), (3, [14, 5])])
def test_files_become_what_the_test_images_are(
    fit: str, channels: int, size: Any, photos: Path
) -> None:
    own = options(photos, fit=fit, channels=channels, background="navy", image_size=size)
    streamed = load("image_folder", **own, resident_limit_mb=0)
    split = streamed.test()
    assert isinstance(split, StreamedSplit)
    paths = split.files.paths
    expected = everything(split)[0]
    preprocess = told(streamed)
    assert torch.equal(preprocess(paths), expected)
    assert torch.equal(preprocess(map(Path, paths)), expected)
    opened = [Image.open(path) for path in paths]
    assert torch.equal(preprocess(opened), expected)
    upright = [np.array(preprocess.open(path)) for path in paths]
    assert torch.equal(preprocess(upright), expected)
    assert torch.equal(preprocess(paths[0]), expected[:1])

    resident = load("image_folder", **own)
    assert rows(told(resident)(paths)) == rows(everything(resident.test())[0])
    assert told(resident).margin < told(streamed).margin
    assert resident.class_names == ("ant", "bee", "cat")


def test_imagenet_tells_its_own(tmp_path: Path) -> None:
    draw(tmp_path / "train", 8)
    draw(tmp_path / "val", 2, seed=1)
    splits = load(
        "imagenet", root=str(tmp_path), workers=0, validation=3, image_size=12, mean=[0.4, 0.5, 0.6]
    )
    split = splits.test()
    assert isinstance(split, StreamedSplit)
    assert torch.equal(told(splits)(split.files.paths), everything(split)[0])


def test_pictures_of_any_size_meet_a_set_of_small_images() -> None:
    preprocess = told(load("digits"))
    flat = np.full((30, 50), 200, dtype=np.uint8)
    large, small = preprocess([flat, flat[:3, :3]])
    assert torch.allclose(large, torch.full_like(large, (200 / 255 - 0.3051) / 0.3757), atol=1e-5)
    assert torch.equal(large, small)
    colours = np.stack([flat, flat, flat], axis=2)
    assert torch.equal(preprocess(colours)[0], large)  # made grey
    wide = np.zeros((8, 16), dtype=np.uint8)
    wide[:, 4:12] = 255  # the centre is cut
    assert torch.equal(preprocess(wide), preprocess(np.full((8, 8), 255, dtype=np.uint8)))


def test_floats_are_preprocessed_already() -> None:
    preprocess = told(load("digits"))
    ready = torch.randn(2, 1, 8, 8)
    assert torch.equal(preprocess(ready), ready)
    grey = np.zeros((8, 8), dtype=np.uint8)
    assert torch.equal(
        preprocess([ready[0], grey, ready[1]]), torch.cat([ready[:1], preprocess(grey), ready[1:]])
    )
    assert preprocess([]).shape == (0, 1, 8, 8)


@pytest.mark.parametrize(
    ("image", "said"),
    [
        (3, "a int is no image"),
        ([b"x"], "a bytes is no image"),
        (np.zeros((4, 4)), r"uint8 \[H, W\] or \[H, W, C\], not float64 \[4, 4\]"),
        (np.zeros((4, 4, 2), dtype=np.uint8), "1, 3 or 4 channels"),
        (np.zeros((0, 4), dtype=np.uint8), "uint8"),
        (np.zeros(4, dtype=np.uint8), "uint8"),
        (torch.zeros(8, 8), r"must be \[1, 8, 8\], not \[8, 8\]"),
        (torch.zeros(8, 8, dtype=torch.uint8), r"uint8 \[C, H, W\]"),
        (torch.zeros(1, 8, 8, dtype=torch.int64), "uint8"),
        ("nowhere.png", "cannot read the image nowhere.png: No such file"),
    ],
)
def test_what_is_no_image_is_refused_in_words(image: Any, said: str) -> None:
    with pytest.raises(UserError, match=said):
        told(load("digits"))(image)


def test_five_channels_are_no_picture() -> None:
    preprocess = told(load("synthetic", channels=5))
    for image in ("a.png", Image.new("L", (8, 8)), np.zeros((8, 8, 3), dtype=np.uint8)):
        with pytest.raises(UserError, match="5 channels"):
            preprocess(image)
