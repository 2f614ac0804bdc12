"""Folders as people have them: splits, links, copies, unreadable files, uneven classes."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers import CPU, Probe, trainer
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from test_config import flatten
from test_dataset import configured, everything, load, same, train

from nasrun.cli import main as cli
from nasrun.config.compose import compose
from nasrun.dataset import checking
from nasrun.dataset.balance import balanced_order, class_weights
from nasrun.dataset.base import Splits
from nasrun.dataset.folders import split_of
from nasrun.errors import UserError
from nasrun.evaluator.accuracy import accuracy_by_class
from nasrun.run.monitor import NullMonitor
from nasrun.streams import Streams
from nasrun.testing import check_dataset

CLASSES = ("ant", "bee", "cat")


@pytest.fixture(autouse=True)
def own_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def fill(folder: Path, count: int = 5, classes: tuple[str, ...] = CLASSES, seed: int = 0) -> Path:
    """Different noisy images; their red tells the class."""
    for label, name in enumerate(classes):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for index in range(count):
            key = [seed, label, index, *map(ord, folder.name)]
            pixels = np.random.default_rng(key).integers(0, 255, (8, 10, 3), dtype=np.uint8)
            pixels[:, :, 0] = 50 * label
            Image.fromarray(pixels).save(folder / name / f"{index}.png")
    return folder


def read(root: Path, **changes: Any) -> Splits:
    settings = {"root": str(root), "image_size": 8, "workers": 0, **changes}
    return load("image_folder", **settings)


def data(splits: Splits) -> dict[str, Any]:
    assert splits.survey is not None
    return json.loads(json.dumps(splits.survey.to_json()))


# Names


WORDS = {"train": ("train", "training"), "validation": ("val", "valid", "validation")} | {
    "test": ("test", "testing")
}
SPELLINGS = st.sampled_from([str.lower, str.upper, str.title])
FILLED = st.sampled_from(["{}", "{}_set", "{}-images", "{}set", "{} data", "seg_{}", "{}2017"])


@given(st.sampled_from(sorted(WORDS)), st.data(), SPELLINGS, FILLED)
@settings(max_examples=200, deadline=None)
def test_splits_are_known_in_all_spellings(split: str, data: Any, spelt: Any, filled: str) -> None:
    word = data.draw(st.sampled_from(WORDS[split]))
    assert split_of(spelt(filled.format(word))) == split


@pytest.mark.parametrize(
    "name",
    ["train_station", "value", "invalid", "contest", "trained", "tester", "set", "data", "1"],
)
def test_classes_are_no_splits(name: str) -> None:
    assert split_of(name) is None


@pytest.mark.parametrize(
    ("names", "sizes"),
    [
        (("Train", "Test"), (13, 2, 6)),
        (("training", "testing"), (13, 2, 6)),
        (("train", "valid", "test"), (15, 6, 6)),
        (("TRAIN", "Validation", "TestSet"), (15, 6, 6)),
        (("train", "valid"), (13, 2, 6)),
        (("my_train_2", "my_test_2"), (13, 2, 6)),
        (("seg_train/seg_train", "seg_test/seg_test"), (13, 2, 6)),
    ],
)
def test_splits_of_folders(tmp_path: Path, names: tuple[str, ...], sizes: tuple[int, ...]) -> None:
    for index, name in enumerate(names):
        fill(tmp_path / name, 2 if index else 5, seed=index)
    splits = read(tmp_path)
    assert (len(splits.train), len(splits.validation), len(splits.test())) == sizes
    assert data(splits)["classes"] == list(CLASSES)
    for split in (splits.train, splits.validation, splits.test()):
        images, labels = everything(split)
        reds = zip(images[:, 0].mean((1, 2)).tolist(), labels.tolist(), strict=True)
        assert sorted({(round(red, 3), label) for red, label in reds}) == [
            (round((50 * label / 255 - 0.5) / 0.25, 3), label)
            for label in sorted(set(labels.tolist()))
        ]


def test_three_splits_are_used_as_three(tmp_path: Path) -> None:
    for seed, name in enumerate(("train", "valid", "test")):
        fill(tmp_path / name, 3, seed=seed)
    splits = read(tmp_path)
    alone = {name: everything(read_flat(tmp_path / name)) for name in ("train", "valid", "test")}
    for name, split in (
        ("train", splits.train),
        ("valid", splits.validation),
        ("test", splits.test()),
    ):
        assert rows(everything(split)) == rows(alone[name]), name
    both = rows(everything(splits.train_and_validation()))
    assert both == rows(alone["train"]) | rows(alone["valid"])
    less = read(tmp_path, train_images=3)
    assert len(less.train) == 3 and rows(everything(less.validation)) == rows(alone["valid"])
    with pytest.raises(UserError, match="train_images=10 is more than the 9 training images"):
        read(tmp_path, train_images=10)


def read_flat(root: Path) -> Any:
    """All images of a folder of classes, as one split."""
    splits = read(root, test_fraction=0.34)
    both, test = everything(splits.train_and_validation()), everything(splits.test())

    class Joined:
        def eval_batches(self, size: int) -> Any:
            return [both, test]

    return Joined()


def rows(batch: Any) -> set[bytes]:
    return {image.numpy().tobytes() for image in batch[0]}


@pytest.mark.parametrize(
    ("folders", "message"),
    [
        (("cats/a", "dogs/a", "test/a"), "named like a split, but no folder train"),
        (("train/cats", "train/dogs", "training/cats", "training/dogs"), "two folders for one"),
        (("car/", "plane/", "train/"), "train is named like a split, but holds no folders"),
        (("train/cats", "train/test"), "train/test is named like a split, so it is no class"),
        (("cats/train", "cats/test", "dogs/train", "dogs/test"), "a split stands above"),
        (("all/train/cats", "all/train/dogs"), "or set dataset.root to the folder"),
        (("caf\u00e9", "cafe\u0301"), "two folders of one name"),
    ],
)
def test_folders_of_two_meanings_are_refused(
    tmp_path: Path, folders: tuple[str, ...], message: str
) -> None:
    for seed, name in enumerate(folders):
        path = tmp_path / name
        fill(path.parent, 2, (path.name,), seed) if name[-1] != "/" else fill(
            tmp_path, 2, (path.name,), seed
        )
    with pytest.raises(UserError, match=message):
        read(tmp_path)


def test_what_is_left_out_is_counted(tmp_path: Path) -> None:
    fill(tmp_path / "train")
    fill(tmp_path / "__MACOSX", 1)
    fill(tmp_path / "notes", 1)
    (tmp_path / "train" / ".thumbs").mkdir()
    (tmp_path / "train" / "ant" / "__MACOSX").mkdir()
    (tmp_path / "train" / "ant" / "__MACOSX" / "._0.png").write_bytes(b"\0")
    (tmp_path / "train" / "ant" / "clip.MP4").touch()
    (tmp_path / "train" / "ant" / "._0.png").touch()
    (tmp_path / "train" / "list.txt").touch()
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "1.png").touch()
    found = data(read(tmp_path))
    assert found["left_out"]["suffixes"] == {".mp4": 1}
    assert set(found["left_out"]["folders"]) == {".thumbs", "__MACOSX", "notes"}
    assert found["left_out"]["beside"] == 1
    assert any("its 1 files have no labels" in note for note in found["notes"])
    assert sum(map(sum, found["images"].values())) == 15


def test_the_laws_of_datasets_hold(tmp_path: Path) -> None:
    for seed, name in enumerate(("train", "valid", "test")):
        fill(tmp_path / name, 9, seed=seed)
    for limit, balance in ((0, "none"), (100, "weights")):
        changes = {"root": str(tmp_path), "image_size": 8, "workers": 0, "balance": balance}
        dataset = configured("image_folder", resident_limit_mb=limit, train_images=24, **changes)
        check_dataset(dataset, batch_size=8)


# Links and copies


def test_links_change_nothing(tmp_path: Path) -> None:
    root = fill(tmp_path / "images")
    plain = read(root)
    (root / "ant" / "loop").symlink_to(root)
    (root / "bee" / "more").symlink_to(root / "cat")
    (root / "aaa").symlink_to(root)
    (root / "up").symlink_to(tmp_path)
    (root / "zzz").symlink_to(root / "cat")
    (root / "ant" / "again.png").symlink_to(root / "ant" / "0.png")
    (root / "ant" / "endless.png").symlink_to("/dev/zero")
    (root / "ant" / "lost.png").symlink_to("nowhere")
    os.mkfifo(root / "ant" / "pipe.png")
    (tmp_path / "link").symlink_to(root)
    for place in (root, tmp_path / "link"):
        splits = read(place)
        left_out = data(splits)["left_out"]
        assert (left_out["links"], left_out["copies"], left_out["odd"]) == (5, 1, 3)
        assert data(splits)["classes"] == list(CLASSES)
        for one, other in ((splits.train, plain.train), (splits.test(), plain.test())):
            assert same([everything(one)], [everything(other)])


def test_links_of_classes_and_files_out_of_the_folder_are_followed(tmp_path: Path) -> None:
    store = fill(tmp_path / "store", 6)
    root = tmp_path / "subset"
    (root / "mine").mkdir(parents=True)
    for index in range(6):
        (root / "mine" / f"{index}.png").symlink_to(store / "ant" / f"{index}.png")
    (root / "bee").symlink_to(store / "bee")
    assert sum(data(read(root))["images"]["training"]) == 9
    (root / "other").symlink_to(store / "bee")
    with pytest.raises(
        UserError, match=r"other/\d.png and .*bee/\d.png are one file, through link"
    ):
        read(root)


def test_one_image_in_two_splits_is_refused(tmp_path: Path) -> None:
    fill(tmp_path / "train")
    fill(tmp_path / "test", 2, seed=1)
    shutil.copy(tmp_path / "train/ant/3.png", tmp_path / "test/bee/copy.png")
    with pytest.raises(
        UserError, match=r"1 images are in train/ and in test/: .*ant/3.png = .*copy"
    ):
        read(tmp_path)
    assert len(read(tmp_path, duplicates="keep").test()) == 7


def test_copies_are_not_carved_into_two_splits(tmp_path: Path) -> None:
    fill(tmp_path, 12)
    for index in range(6):
        shutil.copy(tmp_path / f"ant/{index}.png", tmp_path / f"ant/copy{index}.png")
    for seed in range(3):
        splits = load(
            "image_folder",
            seed=seed,
            root=str(tmp_path),
            image_size=8,
            workers=0,
            validation=0.3,
        )
        parts = [rows(everything(s)) for s in (splits.train, splits.validation, splits.test())]
        assert not (parts[0] & parts[1] or parts[0] & parts[2] or parts[1] & parts[2])
        notes = " ".join(data(splits)["notes"])
        assert "6 images are copies of others" in notes
    shutil.copy(tmp_path / "ant/0.png", tmp_path / "bee/ant.png")
    assert "are also in another class" in " ".join(data(read(tmp_path))["notes"])


# Unreadable files


def test_all_unreadable_files_are_named_or_passed_over(tmp_path: Path) -> None:
    fill(tmp_path / "train", 10)
    fill(tmp_path / "test", 4, seed=1)
    bad = ["train/ant/3.png", "train/cat/0.png", "test/bee/2.png"]
    for name, content in zip(bad, (b"", b"<html>404</html>", b"\x89PNG"), strict=True):
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError) as refused:
        read(tmp_path)
    message = str(refused.value)
    assert "cannot read 3 of 42 images" in message and "dataset.skip_bad=7.2%" in message
    assert all(name in message for name in bad)
    with pytest.raises(UserError, match="cannot read 3 of 42"):
        read(tmp_path, skip_bad="7%")
    for share in ("7.2%", 0.072):
        splits = read(tmp_path, skip_bad=share)
        assert len(splits.train_and_validation()) == 28 and len(splits.test()) == 11
        assert any("3 of 42 images are passed over" in note for note in data(splits)["notes"])
    for file in (tmp_path / "train" / "ant").iterdir():
        file.write_bytes(b"x")
    with pytest.raises(UserError, match=r"no image of ant in .*train can be read"):
        read(tmp_path, skip_bad=0.9)


@pytest.mark.parametrize("share", ["1", 1, -0.1, "x", "100%", True])
def test_a_share_is_below_one(tmp_path: Path, share: Any) -> None:
    with pytest.raises(UserError, match="skip_bad"):
        read(tmp_path, skip_bad=share)


def test_checked_files_are_remembered_until_they_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = fill(tmp_path / "images")
    looked: list[str] = []

    def watched(path: str) -> int:
        looked.append(path)
        return digest(path)

    digest = checking.digest_of_readable
    monkeypatch.setattr(checking, "digest_of_readable", watched)
    monkeypatch.setattr(checking, "MIN_REMEMBERED", 10)
    first = everything(read(root).train)
    assert len(looked) == 15
    assert same([everything(read(root).train)], [first]) and len(looked) == 15
    # Other content of the same size, with the time of the old one, is looked at again.
    file = root / "bee" / "1.png"
    status = file.stat()
    file.write_bytes(b"x" * status.st_size)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    for _ in range(2):  # what cannot be read is never remembered
        looked.clear()
        with pytest.raises(UserError, match=r"cannot read the image .*bee/1.png"):
            read(root)
        assert looked == [str(file)]
    (memory,) = (tmp_path / "cache" / "nasrun" / "images").iterdir()
    for damage in (b"", b"x", memory.read_bytes()[:-1], memory.read_bytes()[:-3] + b"abc"):
        memory.write_bytes(damage)
        looked.clear()
        with pytest.raises(UserError, match="cannot read the image"):
            read(root)
        assert len(looked) == 15
    shutil.rmtree(tmp_path / "cache")
    (tmp_path / "cache").touch()  # nothing can be written there
    with pytest.raises(UserError, match="cannot read the image"):
        read(root)


# Uneven classes


@given(st.lists(st.integers(1, 40), min_size=2, max_size=6), st.integers(0, 9))
@settings(max_examples=60, deadline=None)
def test_balanced_epochs_hold_each_class_alike(sizes: list[int], seed: int) -> None:
    labels = np.repeat(np.arange(len(sizes)), sizes)
    order = balanced_order(labels, np.random.default_rng(seed))
    assert len(order) == len(labels)
    shares = np.bincount(labels[order], minlength=len(sizes))
    assert shares.max() - shares.min() <= 1
    times = np.bincount(order, minlength=len(labels))
    for label in range(len(sizes)):
        assert np.ptp(times[labels == label]) <= 1
    weights = class_weights(labels)
    assert np.allclose(np.bincount(labels) * weights, len(labels) / len(sizes), rtol=1e-5)


@pytest.mark.parametrize("limit", [0, 100])
def test_sampling_is_balanced_and_a_function_of_the_step(tmp_path: Path, limit: int) -> None:
    fill(tmp_path, 24)
    fill(tmp_path, 4, ("dog",))
    split = read(tmp_path, balance="sampling", resident_limit_mb=limit).train
    steps = split.steps_per_epoch(10)
    whole = train(split, steps + 2, batch_size=10)
    counts = torch.bincount(torch.cat([y for _, y in whole[:steps]]))
    assert counts.max() - counts.min() <= 1
    for first in (1, steps, steps + 1):
        assert same(whole[first:], train(split, steps + 2 - first, first, batch_size=10))
    assert not same(whole, train(split, steps + 2, seed=1, batch_size=10))
    rare = [
        x for images, labels in whole[:steps] for x, y in zip(images, labels, strict=True) if y == 3
    ]
    if limit == 0:  # the same picture is augmented anew each time it comes
        assert len({x.numpy().tobytes() for x in rare}) == len(rare) > 4
    assert everything(split)[1].bincount().tolist() != counts.tolist()


def test_weights_of_classes_are_those_of_the_loss(tmp_path: Path) -> None:
    fill(tmp_path, 24)
    fill(tmp_path, 4, ("dog",))
    split = read(tmp_path, balance="weights").train
    weights = split.class_weights()
    assert weights is not None
    assert read(tmp_path).train.class_weights() is None
    images, labels = next(split.train_batches(30, streams=Streams(0)))
    found = []
    for at_once in (None, 7):
        training = trainer(label_smoothing=0.0).bind(Probe(), split, CPU, Streams(0))
        training.batch_gradients.images_at_once = at_once
        measured = training.batch_gradients.add(images, labels, None, training.position)
        found.append((measured[0].item(), training.network.weight.grad.item()))
    logits = torch.zeros(len(labels), 4)
    loss = F.cross_entropy(logits, labels, weight=weights, reduction="sum") / len(labels)
    gradient = ((0.25 - (labels == 0).float()) * weights[labels]).mean()
    for one in found:
        assert one == pytest.approx((loss.item(), gradient.item()), rel=1e-5)


def test_balanced_accuracy_counts_each_class_once() -> None:
    labels = torch.tensor([0] * 8 + [1] * 2 + [3])
    guesses = torch.tensor([0] * 8 + [1, 0] + [0])
    logits = F.one_hot(guesses, 4).float()[:, :, None, None]
    batches = [(logits[k : k + 4], labels[k : k + 4]) for k in (0, 4, 8)]
    plain, balanced = accuracy_by_class(lambda x: x[:, :, 0, 0], batches, CPU, NullMonitor(), 4)
    assert plain == pytest.approx(9 / 11) and balanced == pytest.approx((1 + 0.5 + 0) / 3)


def test_a_run_says_and_records_what_it_saw(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    fill(tmp_path / "own" / "Train", 30, ("ant", "bee"))
    fill(tmp_path / "own" / "Train", 2, ("cat",))
    fill(tmp_path / "own" / "Test", 4, seed=1)
    (tmp_path / "own" / "Test" / "ant" / "0.png").unlink()
    architecture = {"space": "nas_bench_macro", "choices": [0] * 8}
    (tmp_path / "a.json").write_text(json.dumps(architecture))
    words = [
        *("retrain", "dataset=image_folder", "dataset.root=own", "dataset.image_size=8"),
        *("search_space=nas_bench_macro", "search_space.final.width=0.125", "architecture=a.json"),
        *("retrain.trainer.epochs=1", "retrain.trainer.batch_size=16", "dataset.workers=0"),
        *("hydra.run.dir=run", "threads=1", "dataset.skip_bad=1%"),
    ]
    assert cli.main(words) == 0
    out = capfd.readouterr().out
    assert "uneven: 2" in out and "balanced accuracy" in out and "Test/" in out
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["data"]["classes"] == list(CLASSES)
    assert record["data"]["images"]["test"] == [3, 4, 4]
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert 0 <= result["test_balanced_accuracy"] <= 1


# A smoke of one's own folder


def test_a_smoke_takes_the_first_images_of_the_folder(tmp_path: Path) -> None:
    config = compose(["dataset=image_folder", "effort=smoke", f"dataset.root={tmp_path}/own"])
    assert flatten(config)["dataset._target_"].endswith("ImageFolder")
    fill(tmp_path / "own", 30)
    splits = read(tmp_path / "own", first_images=config["dataset"]["first_images"])
    assert sum(map(sum, data(splits)["images"].values())) == 33
    whole = read(tmp_path / "own")
    of_all = rows(everything(whole.train_and_validation())) | rows(everything(whole.test()))
    assert rows(everything(splits.train)) < of_all
    assert "the first 11 images of each class" in " ".join(data(splits)["notes"])
