"""Datasets of image files: resident and streamed, and what is said of folders that are wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from test_dataset import CPU, configured, everything, load, same, train
from torchvision.transforms.v2 import functional as F

from nasrun.dataset import jitter, streamed
from nasrun.dataset.files import open_image
from nasrun.dataset.resident import ResidentSplit
from nasrun.dataset.streamed import StreamedSplit
from nasrun.errors import UserError
from nasrun.run.ranks import Ranks
from nasrun.streams import Streams
from nasrun.values import Problem

CLASSES = ("ant", "bee", "cat")


def draw(folder: Path, per_class: int, classes: tuple[str, ...] = CLASSES, seed: int = 0) -> Path:
    """Noisy images of 20×16 pixels whose colour tells the class."""
    noise = np.random.default_rng(seed)
    for label, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for index in range(per_class):
            pixels = noise.integers(0, 100, (16, 20, 3))
            pixels[:, :, label % 3] += 150
            Image.fromarray(pixels.astype(np.uint8)).save(folder / name / f"{index}.png")
    return folder


@pytest.fixture(scope="module")
def flat(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw(tmp_path_factory.mktemp("flat"), 20)


@pytest.fixture(scope="module")
def nested(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("nested")
    draw(root / "train", 20)
    draw(root / "val", 4, seed=1)
    return root


def options(root: Path, **changes: Any) -> dict[str, Any]:
    return {"root": str(root), "image_size": 8, "workers": 0, **changes}


def jittered(root: Path, **changes: Any) -> dict[str, Any]:
    """Streamed, with every augmentation on."""
    jitter = {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.2}
    return options(root, resident_limit_mb=0, **jitter, **changes)


# What is found


def test_a_flat_folder_gives_three_disjoint_stratified_splits(flat: Path) -> None:
    splits = load("image_folder", **options(flat))
    test = splits.test()
    assert splits.problem == Problem(3, 8, 3)
    assert isinstance(splits.train, ResidentSplit)
    assert [len(s) for s in (splits.train, splits.validation, test)] == [43, 5, 12]
    parts = [everything(split) for split in (splits.train, splits.validation, test)]
    rows = {image.numpy().tobytes() for images, _ in parts for image in images}
    assert len(rows) == 60
    assert torch.bincount(parts[2][1]).tolist() == [4, 4, 4]
    other = everything(load("image_folder", seed=1, **options(flat)).test())[0]
    assert {x.numpy().tobytes() for x in other} == {x.numpy().tobytes() for x in parts[2][0]}


def test_labels_are_those_of_the_folders(nested: Path) -> None:
    splits = load("image_folder", **options(nested))
    assert [len(splits.train), len(splits.validation), len(splits.test())] == [54, 6, 12]
    for split in (splits.train, splits.validation, splits.test()):
        images, labels = everything(split)
        assert torch.equal(images.mean(dim=(2, 3)).argmax(1), labels)
    (images, labels), *_ = train(splits.train, 1)
    assert (images.dtype, images.shape[1:], labels.dtype) == (torch.float32, (3, 8, 8), torch.int64)


def test_unreadable_test_images_are_told_at_once(tmp_path: Path) -> None:
    draw(tmp_path / "train", 5)
    draw(tmp_path / "test", 1, seed=1)
    (tmp_path / "test" / "bee" / "0.png").write_bytes(b"broken")
    with pytest.raises(UserError, match=r"cannot read the image .*test/bee/0\.png"):
        load("image_folder", **options(tmp_path))
    splits = load("image_folder", **options(tmp_path, check_files=False))
    splits.train_and_validation()
    with pytest.raises(UserError, match=r"cannot read the image .*test/bee/0\.png"):
        splits.test()
    (tmp_path / "test" / "bee" / "0.png").unlink()
    splits = load("image_folder", **options(tmp_path))
    assert splits.survey is not None
    assert "no test images of bee" in splits.survey.to_json()["notes"]
    assert torch.bincount(everything(splits.test())[1]).tolist() == [1, 0, 1]


def test_a_subset_decodes_only_itself(tmp_path: Path) -> None:
    draw(tmp_path, 10)
    splits = load("image_folder", **options(tmp_path, validation=3, train_images=6))
    assert [len(splits.train), len(splits.validation)] == [6, 3]
    assert torch.bincount(everything(splits.train)[1]).tolist() == [2, 2, 2]


def test_grey_images(flat: Path) -> None:
    splits = load("image_folder", **options(flat, channels=1))
    assert splits.problem.channels == 1
    assert everything(splits.train)[0].shape == (43, 1, 8, 8)


def test_resident_and_streamed_hold_the_same_images(flat: Path) -> None:
    resident = load("image_folder", **options(flat))
    stream = load("image_folder", **options(flat, resident_limit_mb=0))
    assert isinstance(stream.train, StreamedSplit)
    for a, b in zip(
        (resident.train, resident.validation, resident.test()),
        (stream.train, stream.validation, stream.test()),
        strict=True,
    ):
        assert torch.equal(everything(a)[1], everything(b)[1])


# Mistakes


def test_wrong_roots_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no folder .*/nowhere: set dataset.root"):
        load("image_folder", **options(tmp_path / "nowhere"))
    with pytest.raises(UserError, match="holds no folders, one for each class"):
        load("image_folder", **options(tmp_path))
    draw(tmp_path, 5, ("ant",))
    with pytest.raises(UserError, match="one class only"):
        load("image_folder", **options(tmp_path))
    (tmp_path / "bee").mkdir()
    with pytest.raises(UserError, match=r"no images in .*/bee"):
        load("image_folder", **options(tmp_path))


def test_other_classes_in_the_test_images_are_named(tmp_path: Path) -> None:
    draw(tmp_path / "train", 5)
    draw(tmp_path / "test", 1, ("ant", "cat", "dog", "elk"))
    message = "has 4 class folders, .* have 3; absent .*: bee; only there: dog, elk"
    with pytest.raises(UserError, match=message):
        load("image_folder", **options(tmp_path))


def test_no_image_for_testing_is_an_error(tmp_path: Path) -> None:
    draw(tmp_path, 5)
    with pytest.raises(UserError, match=r"test_fraction=0.01 of the 15 images .* is none"):
        load("image_folder", **options(tmp_path, test_fraction=0.01))


@pytest.mark.parametrize("limit", [0, 100])
@pytest.mark.parametrize("workers", [0, 2])
def test_an_unreadable_image_is_named(tmp_path: Path, limit: int, workers: int) -> None:
    draw(tmp_path, 5)
    for file in (tmp_path / "bee").iterdir():
        file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(UserError, match=r"^cannot read the image .*/bee/\d\.png: "):
        changes = {"resident_limit_mb": limit, "workers": workers, "check_files": False}
        splits = load("image_folder", **options(tmp_path, **changes))
        train(splits.train, 1)


def test_colour_jitter_of_resident_images_is_refused(flat: Path) -> None:
    with pytest.raises(UserError, match="colour jitter is for streamed images"):
        load("image_folder", **options(flat, hue=0.1))


# Streaming


def test_streamed_batches_do_not_depend_on_the_workers(nested: Path) -> None:
    alone, two = (load("image_folder", **jittered(nested, workers=n)).train for n in (0, 2))
    a, b = (train(split, 5, batch_size=20, cutout=3) for split in (alone, two))
    assert same(a, b)
    assert [len(y) for _, y in a] == [20, 20, 14, 20, 20]
    assert same(list(alone.eval_batches(20, 30)), list(two.eval_batches(20, 30)))


def test_streamed_batches_depend_on_seed_and_step_only(nested: Path) -> None:
    split = load("image_folder", **jittered(nested)).train
    whole = train(split, 8, batch_size=20, cutout=3)
    assert not same(whole, train(split, 8, batch_size=20, cutout=3, seed=1))
    for first in (1, 3, 4):
        assert same(whole[first:], train(split, 8 - first, first, batch_size=20, cutout=3))
    by_label = [torch.cat([y for _, y in whole[k : k + 3]]) for k in (0, 3)]
    assert not torch.equal(*by_label)


def test_skipped_images_are_not_decoded(nested: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    split = load("image_folder", **jittered(nested)).train
    opened: list[str] = []

    def watched(path: str, channels: int, **settings: Any) -> Image.Image:
        opened.append(path)
        return open_image(path, channels, **settings)

    monkeypatch.setattr(streamed, "open_image", watched)
    train(split, 1, first_step=100_000, batch_size=20)
    assert len(opened) == 20


def by_torchvision(image: torch.Tensor, sampled: torch.Tensor) -> torch.Tensor:
    """A jittered image float32 [C, H, W] from 0 to 1, one change after the other."""
    (brightness, contrast, saturation, hue), order = sampled.tolist()
    for change in order:
        image = (
            lambda x: F.adjust_brightness(x, brightness),
            lambda x: F.adjust_contrast(x, contrast),
            lambda x: F.adjust_saturation(x, saturation),
            lambda x: F.adjust_hue(x, hue),
        )[int(change)](image)
    return image


@pytest.mark.parametrize("channels", [1, 3])
def test_jitter_on_the_device_is_torchvisions(channels: int) -> None:
    torch.manual_seed(0)
    strengths = (0.9, 0.9, 0.9, 0.5)
    images = torch.randint(0, 256, (40, channels, 6, 5), dtype=torch.uint8)
    images[0], images[1] = 0, 255  # without a hue
    images[2, :, :3] = images[2, :1, :3]
    sampled = torch.stack([jitter.sample(strengths) for _ in images])
    found = jitter.jitter(images, sampled, strengths)
    wanted = [by_torchvision(i / 255, s) for i, s in zip(images, sampled, strict=True)]
    torch.testing.assert_close(found / 255, torch.stack(wanted), atol=2e-5, rtol=0)
    assert len({tuple(order) for order in sampled[:, 1].tolist()}) > 12
    factors = sampled[:, 0]
    assert ((factors[:, :3] - 1).abs() <= 0.9).all() and (factors[:, 3].abs() <= 0.5).all()
    assert torch.equal(jitter.jitter(images, sampled, (0, 0, 0, 0)), images.float())


def test_jitter_on_the_device_changes_colours_alone(nested: Path) -> None:
    """The crops and flips are those without jitter, whatever the workers and the first step."""
    splits = {
        (on, hue): load(
            "image_folder",
            **options(nested, resident_limit_mb=0, jitter_on=on, hue=hue, mean=[0.0], std=[1.0]),
        ).train
        for on, hue in (("workers", 0.0), ("device", 0.0), ("device", 0.5))
    }
    plain, same_too, turned = (train(split, 4, batch_size=20) for split in splits.values())
    assert same(plain, same_too)
    for (a, _), (b, _) in zip(plain, turned, strict=True):
        assert not torch.allclose(a, b, atol=0.01)
        torch.testing.assert_close(a.amax(1), b.amax(1))  # a turned hue keeps the value
        torch.testing.assert_close(a.amin(1), b.amin(1))
    split = splits["device", 0.5]
    assert same(turned[2:], train(split, 2, 2, batch_size=20))


def test_ranks_decode_their_own_images_which_make_up_the_batches(
    nested: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    split = load("image_folder", **jittered(nested)).train
    whole = train(split, 3, batch_size=20, cutout=3)
    opened: list[str] = []

    def watched(path: str, channels: int, **settings: Any) -> Image.Image:
        opened.append(path)
        return open_image(path, channels, **settings)

    monkeypatch.setattr(streamed, "open_image", watched)
    parts = []
    for number in range(3):
        rank = Ranks()
        rank.rank, rank.size = number, 3
        batches = train(split.of_rank(rank), 3, batch_size=20, cutout=3)
        own = [slice(rows.start, rows.stop) for rows in (rank.rows(len(y)) for _, y in batches)]
        parts.append([(x[one], y[one]) for (x, y), one in zip(batches, own, strict=True)])
    steps = zip(*parts, strict=True)
    together = [tuple(map(torch.cat, zip(*of_step, strict=True))) for of_step in steps]
    assert same(together, whole)
    assert len(opened) == sum(len(y) for _, y in whole)


def test_streaming_leaves_the_global_generator_alone(nested: Path) -> None:
    splits = load("image_folder", **jittered(nested))
    torch.manual_seed(5)
    before = torch.get_rng_state()
    train(splits.train, 2)
    list(splits.validation.eval_batches(4))
    assert torch.equal(torch.get_rng_state(), before)


def test_an_image_is_augmented_anew_in_every_epoch(tmp_path: Path) -> None:
    draw(tmp_path, 3)
    split = load("image_folder", **jittered(tmp_path, validation=1)).train
    epochs = train(split, 4, batch_size=len(split))
    assert len({image.numpy().tobytes() for x, _ in epochs for image in x}) == 4 * len(split)


def test_streamed_cutout_and_normalisation(nested: Path) -> None:
    split = load("image_folder", **options(nested, resident_limit_mb=0, mean=[0.0])).train
    plain, cut = (train(split, 1, batch_size=50, cutout=side)[0][0] for side in (0, 4))
    assert torch.equal(torch.where(cut == 0, 0, plain), cut)
    share = (cut == 0).all(1).float().mean((1, 2))
    assert share.min() > 0 and share.max() == 0.25
    assert plain.min() >= 0 and plain.max() <= 1 / 0.25


def test_evaluation_scales_the_short_side_and_cuts_the_centre(tmp_path: Path) -> None:
    gradient = np.zeros((64, 128, 3), dtype=np.uint8)
    gradient[:, :, 0] = np.arange(128)
    for name in ("ant", "bee"):
        (tmp_path / name).mkdir()
        for index in range(4):
            Image.fromarray(gradient).save(tmp_path / name / f"{index}.png")
    changes = {"validation": 2, "mean": [0.0], "std": [1.0], "image_size": 56, "duplicates": "keep"}
    stream = load("image_folder", **options(tmp_path, resident_limit_mb=0) | changes)
    columns = everything(stream.train)[0][0, 0, 0] * 255
    # 64×128 pixels keep their size (56 * 256 / 224 = 64); columns 36 to 91 are the centre.
    assert torch.equal(columns.round(), torch.arange(36.0, 92.0))


# ImageNet


def test_imagenet_is_streamed_and_tested_on_val(nested: Path) -> None:
    changes = {"root": str(nested), "image_size": 8, "workers": 0, "validation": 6}
    splits = load("imagenet", **changes)
    assert isinstance(splits.train, StreamedSplit)
    assert [len(splits.train), len(splits.validation), len(splits.test())] == [54, 6, 12]
    (images, _), *_ = train(splits.train, 1)
    assert images.shape == (32, 3, 8, 8)


def test_imagenet_without_val_fails_at_the_test_only(tmp_path: Path) -> None:
    draw(tmp_path / "train", 5)
    changes = {"root": str(tmp_path), "image_size": 8, "workers": 0, "validation": 3}
    splits = configured("imagenet", **changes).load(Streams(0), CPU)
    with pytest.raises(UserError, match=r"no folder .*/val"):
        splits.test()
    with pytest.raises(UserError, match=r"no folder .*/train"):
        load("imagenet", root=str(tmp_path / "train"))
