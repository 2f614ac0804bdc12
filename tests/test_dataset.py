"""Laws of the datasets that live on the device, and of their augmentation."""

from __future__ import annotations

import inspect
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from omegaconf import OmegaConf

from nasrun.config.build import build
from nasrun.dataset.augment import Normalise, crop, cut_out, flip, reduce
from nasrun.dataset.base import Batch, Dataset, Split, Splits
from nasrun.dataset.digits import DIGITS
from nasrun.dataset.order import carve_test, carve_validation, stratified_order
from nasrun.dataset.resident import ResidentSplit
from nasrun.errors import UserError
from nasrun.streams import Streams
from nasrun.values import MapSize, Problem

CONF = Path(__file__).parents[1] / "conf" / "dataset"
CPU = torch.device("cpu")


def settings(option: str) -> dict[str, Any]:
    content = OmegaConf.to_container(OmegaConf.load(CONF / f"{option}.yaml"), resolve=True)
    assert isinstance(content, dict)
    return {str(key): value for key, value in content.items()}


def configured(option: str, **changes: Any) -> Dataset:
    """The dataset of a YAML file, with some values changed."""
    dataset = build({**settings(option), **changes})
    assert isinstance(dataset, Dataset)
    return dataset


def load(option: str, seed: int = 0, **changes: Any) -> Splits:
    return configured(option, **changes).load(Streams(seed), CPU)


def train(
    split: Split, count: int, first_step: int = 0, seed: int = 0, **options: Any
) -> list[Batch]:
    batches = split.train_batches(
        options.pop("batch_size", 32), streams=Streams(seed), first_step=first_step, **options
    )
    return list(islice(batches, count))


def same(a: list[Batch], b: list[Batch]) -> bool:
    return len(a) == len(b) and all(
        torch.equal(x, u) and torch.equal(y, v) for (x, y), (u, v) in zip(a, b, strict=True)
    )


def everything(split: Split) -> Batch:
    images, labels = zip(*split.eval_batches(1000), strict=True)
    return torch.cat(images), torch.cat(labels)


def raw_split(images: torch.Tensor, *, padding: int = 0, mirror: bool = False) -> ResidentSplit:
    """Images that come out with the pixels they went in with; label i for image i."""
    normalise = Normalise.from_statistics([0.0], [1 / 255], images.shape[1], CPU)
    return ResidentSplit("train", images, torch.arange(len(images)), normalise, padding, mirror)


def noise(*shape: int) -> torch.Tensor:
    return torch.randint(1, 256, shape, dtype=torch.uint8, generator=torch.manual_seed(0))


# Configuration


@pytest.mark.parametrize("path", sorted(CONF.glob("*.yaml")), ids=lambda path: path.stem)
def test_yaml_keys_are_the_signature_and_build(path: Path) -> None:
    dataset = configured(path.stem)
    parameters = inspect.signature(type(dataset)).parameters
    assert ["_target_", *parameters] == list(settings(path.stem))
    assert all(parameter.default is parameter.empty for parameter in parameters.values())
    assert dataset.name == path.stem


@pytest.mark.parametrize(
    "key, value",
    [
        ("validation", 0),
        ("validation", 1.0),
        ("validation", -0.1),
        ("train_images", 0),
        ("crop_padding", -1),
        ("std", [0.0]),
        ("mean", []),
    ],
)
def test_values_out_of_range_are_refused(key: str, value: Any) -> None:
    with pytest.raises(UserError, match=key):
        configured("digits", **{key: value})


def test_a_mean_for_each_channel_or_one_for_all() -> None:
    with pytest.raises(UserError, match=r"dataset.mean has 2 values.*3 channels"):
        load("synthetic", mean=[0.5, 0.5])
    one, three = load("synthetic", std=[0.2]), load("synthetic", std=[0.2] * 3)
    assert same(train(one.train, 2), train(three.train, 2))


# Splits


@pytest.mark.parametrize("option", ["digits", "synthetic"])
def test_splits_are_disjoint_stratified_and_of_the_asked_sizes(option: str) -> None:
    splits = load(option, validation=100, train_images=200)
    sizes = [len(splits.train), len(splits.validation), len(splits.train_and_validation())]
    assert sizes == [200, 100, 300]
    parts = [everything(split) for split in (splits.train, splits.validation, splits.test())]
    rows = [{image.numpy().tobytes() for image in images} for images, _ in parts]
    assert not rows[0] & rows[1] and not rows[0] & rows[2] and not rows[1] & rows[2]
    both = {image.numpy().tobytes() for image in everything(splits.train_and_validation())[0]}
    assert both == rows[0] | rows[1]
    for _, labels in parts:
        counts = torch.bincount(labels, minlength=splits.problem.classes)
        assert counts.max() - counts.min() <= 0.05 * len(labels)


def test_digits_have_a_test_set_that_no_seed_changes() -> None:
    a, b = load("digits", seed=0), load("digits", seed=1)
    assert (len(a.train), len(a.validation), len(a.test())) == (1077, 360, 360)
    (x, _), (u, _) = everything(a.test()), everything(b.test())
    assert not torch.equal(x, u)
    assert {image.numpy().tobytes() for image in x} == {image.numpy().tobytes() for image in u}
    assert not torch.equal(everything(a.validation)[0], everything(b.validation)[0])
    assert torch.equal(everything(a.validation)[0], everything(load("digits").validation)[0])


def test_digits_are_those_of_the_published_set() -> None:
    """Images and labels, and their order, are the ones that scikit-learn has."""
    with np.load(DIGITS, allow_pickle=False) as file:
        images, labels = file["images"], file["labels"]
    assert images.shape == (1797, 8, 8) and images.dtype == labels.dtype == np.uint8
    digest = blake2b(images.tobytes() + labels.tobytes(), digest_size=8).hexdigest()
    assert digest == "cefd67273315516d"
    published = pytest.importorskip("sklearn.datasets").load_digits()
    assert np.array_equal(images, published.images) and np.array_equal(labels, published.target)


def test_digits_are_normalised() -> None:
    splits = load("digits")
    images, labels = everything(splits.train_and_validation())
    assert splits.problem == Problem(1, 8, 10)
    assert images.shape == (1437, 1, 8, 8)
    assert (images.dtype, labels.dtype) == (torch.float32, torch.int64)
    assert abs(images.mean()) < 1e-3 and abs(images.std() - 1) < 1e-3


def test_synthetic_images_can_be_learned() -> None:
    splits = load("synthetic")
    images, labels = everything(splits.train)
    means = torch.stack([images[labels == k].mean(0) for k in range(4)])
    x, y = everything(splits.test())
    distances = (x[:, None] - means).square().sum((2, 3, 4))
    assert (distances.argmin(1) == y).float().mean() > 0.9
    assert abs(images.mean()) < 0.2 and abs(images.std() - 1) < 0.2
    share = load("synthetic", validation=0.25)
    assert (len(share.train), len(share.validation)) == (512, 171)


def test_test_images_are_read_only_when_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = configured("synthetic")

    def read_test() -> None:
        raise UserError("no test images")

    monkeypatch.setattr(dataset, "read_test", read_test)
    splits = dataset.load(Streams(0), CPU)
    splits.train_and_validation()
    with pytest.raises(UserError, match="no test images"):
        splits.test()


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"validation": 2000}, "2000 leaves none of the 1437"),
        ({"validation": 1437}, "1437 leaves none of the 1437"),
        ({"validation": 0.0001}, "0.0001 of 1437 training images is none"),
        ({"validation": 1430}, "the 7 training images show only 7 of the 10 classes"),
        ({"train_images": 9}, "the 9 training images show only 9 of the 10 classes"),
        ({"train_images": 1078}, "train_images=1078 and 360 .* more than the 1437"),
    ],
)
def test_splits_that_cannot_be_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        load("digits", **changes)


def test_one_class_or_fewer_images_than_classes_are_refused() -> None:
    with pytest.raises(UserError, match="one class only"):
        load("synthetic", classes=1)
    options: Any = {"validation": 1, "train_images": None, "streams": Streams(0)}
    with pytest.raises(UserError, match="3 training images are fewer than the 4 classes"):
        carve_validation(np.array([0, 1, 2]), 4, **options)


def test_any_prefix_of_a_stratified_order_holds_the_classes_in_proportion() -> None:
    labels = np.repeat(np.arange(5), [100, 200, 50, 10, 140])
    order = stratified_order(labels, np.random.default_rng(0))
    assert sorted(order) == list(range(500))
    for stop in range(1, 500):
        counts = np.bincount(labels[order[:stop]], minlength=5)
        assert np.all(np.abs(counts - stop * np.bincount(labels) / 500) < 2)
    assert not np.array_equal(order, stratified_order(labels, np.random.default_rng(1)))


def test_a_carved_test_set_is_the_same_in_every_run() -> None:
    labels = np.arange(100) % 10
    training, test = carve_test(labels, 20)
    assert sorted([*training, *test]) == list(range(100))
    assert list(np.bincount(labels[test])) == [2] * 10
    assert np.array_equal(carve_test(labels, 20)[1], test)


# Batches


def test_batches_depend_on_seed_and_step_only() -> None:
    splits = load("synthetic")
    whole = train(splits.train, 40, cutout=4)  # 16 steps an epoch
    assert same(whole, train(load("synthetic").train, 40, cutout=4))
    assert not same(whole, train(splits.train, 40, seed=1, cutout=4))
    for first in (1, 15, 16, 17, 33):
        assert same(whole[first:], train(splits.train, 40 - first, first_step=first, cutout=4))


def test_splits_draw_differently() -> None:
    images = noise(64, 1, 4, 4)
    whole = raw_split(images)
    first, second = whole.cut("train", slice(0, 32)), whole.cut("validation", slice(32, 64))
    assert not torch.equal(train(first, 1)[0][1], train(second, 1)[0][1] - 32)


def test_every_epoch_is_a_new_permutation() -> None:
    split = raw_split(noise(65, 1, 4, 4))
    assert split.steps_per_epoch(32) == 2  # the rest of one image is left out
    assert [len(y) for _, y in train(split, 4)] == [32] * 4
    assert [len(y) for _, y in train(split, 4, batch_size=21)] == [21, 21, 21, 2]
    assert [len(y) for _, y in train(split, 4, batch_size=25)] == [25, 25, 15, 25]
    epochs = [torch.cat([y for _, y in train(split, 3, 3 * k, batch_size=25)]) for k in range(3)]
    assert all(sorted(epoch.tolist()) == list(range(65)) for epoch in epochs)
    assert not torch.equal(epochs[0], epochs[1]) and not torch.equal(epochs[1], epochs[2])


def test_steps_per_epoch_of_small_splits() -> None:
    assert raw_split(noise(1, 1, 4, 4)).steps_per_epoch(32) == 1
    assert [len(y) for _, y in train(raw_split(noise(1, 1, 4, 4)), 2)] == [1, 1]
    assert raw_split(noise(5, 1, 4, 4)).steps_per_epoch(32) == 1
    assert raw_split(noise(64, 1, 4, 4)).steps_per_epoch(32) == 2
    assert raw_split(noise(66, 1, 4, 4)).steps_per_epoch(32) == 3


def test_eval_batches_are_the_images_in_order() -> None:
    images = noise(50, 3, 4, 4)
    split = raw_split(images, padding=2, mirror=True)
    pairs = list(split.eval_batches(20))
    assert [len(y) for _, y in pairs] == [20, 20, 10]
    assert torch.allclose(torch.cat([x for x, _ in pairs]), images.float())
    assert [y.tolist() for _, y in split.eval_batches(20, 25)] == [
        list(range(20)),
        list(range(20, 25)),
    ]
    assert sum(len(y) for _, y in split.eval_batches(20, 500)) == 50


def test_the_first_images_of_a_split_are_a_fair_sample() -> None:
    for split in (load("digits").validation, load("digits").train, load("digits").test()):
        _, labels = next(split.eval_batches(100, 100))
        assert torch.bincount(labels, minlength=10).min() >= 8


# Augmentation


def test_normalisation_is_that_of_the_formula() -> None:
    images = noise(4, 3, 5, 5)
    mean, std = [0.1, 0.5, 0.9], [0.2, 0.25, 0.3]
    expected = (images / 255 - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    assert torch.allclose(Normalise.from_statistics(mean, std, 3, CPU)(images), expected, atol=1e-5)


def test_reduced_images_are_the_means_of_their_areas() -> None:
    images = noise(5, 3, 12, 12)
    blocks = images.view(5, 3, 4, 3, 4, 3).double().mean((3, 5))
    assert torch.equal(reduce(images, MapSize.square(4)), blocks.round().to(torch.uint8))
    by_hand = torch.tensor([[[[1, 3, 255, 255], [2, 4, 255, 254], [0] * 4, [0, 1, 0, 3]]]])
    found = reduce(
        by_hand.to(torch.uint8), MapSize.square(2)
    )  # 2.5, 254.75, 0.25, 0.75; halves to even
    assert found.flatten().tolist() == [2, 255, 0, 1]
    assert reduce(images, MapSize.square(12)) is images


@pytest.mark.parametrize("size", [4, 5, 7, 11])
def test_a_constant_image_stays_constant(size: int) -> None:
    levels = torch.arange(256, dtype=torch.uint8).view(-1, 1, 1, 1)
    found = reduce(levels.expand(-1, 1, 11, 11), MapSize.square(size))
    assert torch.equal(found, levels.expand(-1, 1, size, size))


def test_reducing_in_parts_is_reducing_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    images = noise(10, 1, 6, 6)
    whole = reduce(images, MapSize.square(4))
    monkeypatch.setattr("nasrun.dataset.augment._IMAGES_AT_A_TIME", 3)
    assert torch.equal(reduce(images, MapSize.square(4)), whole)


def test_image_size_reduces_every_split_and_the_problem() -> None:
    full, small = load("digits"), load("digits", image_size=4)
    assert (full.problem.size.short, small.problem.size.short) == (8, 4)
    for one, other in (
        (full.train, small.train),
        (full.validation, small.validation),
        (full.train_and_validation(), small.train_and_validation()),
        (full.test(), small.test()),
    ):
        (images, labels), (reduced, same_labels) = everything(one), everything(other)
        assert torch.equal(labels, same_labels)
        # Normalised pixels, so that the bytes' rounding is half of 1/255 of a standard deviation.
        means = F.avg_pool2d(images, 2)
        torch.testing.assert_close(reduced, means, rtol=0, atol=0.501 / 255 / 0.3757)
    assert small.train.fingerprint() != full.train.fingerprint()
    unchanged = load("digits", image_size=8).train.fingerprint()
    assert unchanged == full.train.fingerprint()


@pytest.mark.parametrize("option", ["digits", "cifar10", "cifar100", "fashion_mnist"])
def test_image_sizes_below_4_are_refused(option: str) -> None:
    with pytest.raises(UserError, match="image_size"):
        configured(option, image_size=3)


def test_images_are_never_enlarged() -> None:
    with pytest.raises(UserError, match=r"dataset.image_size=9 is more than the 8 pixels"):
        load("digits", image_size=9)


def test_crops_are_the_windows_of_the_padded_image() -> None:
    images, padding = noise(60, 3, 6, 6), 2
    top, left = torch.randint(5, (2, 60), generator=torch.manual_seed(1))
    for got, image, y, x in zip(crop(images, padding, top, left), images, top, left, strict=True):
        slow = torch.zeros(3, 10, 10, dtype=torch.uint8)
        slow[:, 2:8, 2:8] = image
        assert torch.equal(got, slow[:, y : y + 6, x : x + 6])


def test_training_images_are_mirrored_windows_and_all_of_them_come() -> None:
    images = noise(2, 1, 4, 4)
    windows = {}
    for label, image in enumerate(images):
        padded = torch.nn.functional.pad(image, (1, 1, 1, 1)).float()
        for y in range(3):
            for x in range(3):
                for mirrored in (False, True):
                    window = padded[:, y : y + 4, x : x + 4]
                    window = window.flip(-1) if mirrored else window
                    windows[window.numpy().tobytes()] = (label, y, x, mirrored)
    counts = dict.fromkeys(windows.values(), 0)
    for x, y in train(raw_split(images, padding=1, mirror=True), 1800, batch_size=2):
        for image, label in zip(x.round(), y, strict=True):
            window = windows[image.numpy().tobytes()]
            assert window[0] == label
            counts[window] += 1
    # 3,600 draws of 36 equally likely windows: 100 each, standard deviation 10.
    assert min(counts.values()) > 55 and max(counts.values()) < 145


def test_half_of_the_images_are_mirrored() -> None:
    images = noise(1000, 1, 4, 4)
    flips = torch.cat(
        [
            (x.round() == images[y].float().flip(-1)).all(dim=(1, 2, 3))
            for x, y in train(raw_split(images, mirror=True), 40, batch_size=100)
        ]
    )
    assert abs(flips.float().mean() - 0.5) < 0.04  # five standard deviations
    some = torch.tensor([0, 1, 1])
    assert torch.equal(flip(images[:3], some)[1:], images[1:3].flip(-1))
    assert torch.equal(flip(images[:3], some)[0], images[0])


@pytest.mark.parametrize("side", [1, 4, 5, 8])
def test_cutout_is_a_square_around_its_centre_clipped_at_the_border(side: int) -> None:
    size = 8
    row, column = torch.cartesian_prod(torch.arange(size), torch.arange(size)).unbind(1)
    images = cut_out(torch.ones(size * size, 2, size, size), side, row, column)
    for image, y, x in zip(images, row.tolist(), column.tolist(), strict=True):
        expected = torch.ones(2, size, size)
        rows = slice(max(y - side // 2, 0), max(y - side // 2 + side, 0))
        expected[:, rows, max(x - side // 2, 0) : max(x - side // 2 + side, 0)] = 0
        assert torch.equal(image, expected)


def test_cutout_has_the_area_that_uniform_centres_give() -> None:
    size, side = 8, 4
    split = raw_split(noise(500, 1, size, size))
    pairs = train(split, 20, batch_size=250, cutout=side)
    cut = torch.cat([(x == 0).float().mean(dim=(1, 2, 3)) for x, _ in pairs])
    lengths = [min(c + 2, size) - max(c - 2, 0) for c in range(size)]
    assert abs(cut.mean() - (np.mean(lengths) / size) ** 2) < 0.005
    assert cut.max() == (side / size) ** 2
    assert cut.min() == (min(lengths) / size) ** 2


def test_switching_one_augmentation_on_leaves_the_others() -> None:
    images = noise(64, 1, 8, 8)
    plain, cut = (train(raw_split(images, padding=2), 3, cutout=side) for side in (0, 3))
    for (x, y), (u, v) in zip(plain, cut, strict=True):
        assert torch.equal(y, v) and torch.equal(torch.where(u == 0, 0, x), u)
