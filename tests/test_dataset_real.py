"""CIFAR-10 and Fashion-MNIST as published, where they are at hand; nothing is downloaded."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torchvision
from test_dataset import configured, load, train

from nasrun.dataset.base import Split
from nasrun.dataset.torchvision_sets import TorchvisionDataset
from nasrun.errors import UserError
from nasrun.values import Problem

DATA = Path(os.environ.get("NASRUN_DATA", Path(__file__).parents[2] / "shared" / "data"))


@pytest.fixture(scope="session")
def cifar10(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that holds cifar-10-batches-py."""
    if (DATA / "cifar-10-batches-py").is_dir():
        return DATA
    unpack = DATA / "cifar10" / "unpack.py"
    if not unpack.is_file():
        pytest.skip(f"no CIFAR-10 in {DATA}")
    root = tmp_path_factory.mktemp("cifar10")
    subprocess.run([sys.executable, str(unpack), str(root)], check=True, capture_output=True)
    return root


@pytest.fixture
def fashion_mnist(tmp_path: Path) -> Path:
    """A folder that holds FashionMNIST/raw with the packed files only."""
    packed = sorted((DATA / "FashionMNIST" / "raw").glob("*.gz"))
    if len(packed) != 4:
        pytest.skip(f"no Fashion-MNIST in {DATA}")
    raw = tmp_path / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    for file in packed:
        (raw / file.name).symlink_to(file.resolve())
    return tmp_path


def counts(split: Split) -> list[int]:
    """The number of images of every class."""
    return torch.cat([labels for _, labels in split.eval_batches(1000)]).bincount().tolist()


def moments(split: Split) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation for each channel, a batch at a time to save memory."""
    batches = [
        torch.stack([x.mean((0, 2, 3)), x.square().mean((0, 2, 3))])
        for x, _ in split.eval_batches(1000)
    ]
    mean, square = torch.stack(batches).double().mean(0)
    return mean, (square - mean.square()).sqrt()


@pytest.mark.soak
def test_cifar10_is_complete_and_normalised(cifar10: Path) -> None:
    splits = load("cifar10", root=str(cifar10), download=False)
    assert splits.problem == Problem(3, 32, 10)
    test = splits.test()
    assert [len(s) for s in (splits.train, splits.validation, test)] == [45_000, 5_000, 10_000]
    for split, each in ((splits.train, 4500), (splits.validation, 500), (test, 1000)):
        assert counts(split) == [each] * 10
    mean, deviation = moments(splits.train_and_validation())
    assert mean.abs().max() < 1e-3
    assert (deviation - 1).abs().max() < 1e-3


@pytest.mark.soak
def test_cifar10_subset_is_stratified(cifar10: Path) -> None:
    splits = load("cifar10", root=str(cifar10), train_images=100, validation=1003)
    assert counts(splits.train) == [10] * 10
    assert set(counts(splits.validation)) == {100, 101}


@pytest.mark.soak
def test_cifar10_augmented_batches(cifar10: Path) -> None:
    split = load("cifar10", root=str(cifar10), train_images=1000).train
    (images, labels), *_ = train(split, 1, batch_size=96, cutout=16)
    assert (images.shape, images.dtype) == ((96, 3, 32, 32), torch.float32)
    assert labels.dtype == torch.int64
    cut = (images == 0).all(1).float().mean((1, 2))
    assert cut.min() >= 1 / 16 and cut.max() == 0.25


@pytest.mark.soak
def test_cifar10_test_file_is_not_opened_before_it_is_asked_for(
    cifar10: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "cifar-10-batches-py"
    shutil.copytree(cifar10 / folder.name, folder, copy_function=os.symlink)
    (folder / "test_batch").unlink()
    splits = load("cifar10", root=str(tmp_path), download=False)
    with pytest.raises(UserError, match=r"cifar10 is absent or incomplete in .*dataset\.root"):
        splits.test()


@pytest.mark.soak
def test_cifar10_with_another_checksum_is_not_unpickled(cifar10: Path, tmp_path: Path) -> None:
    folder = tmp_path / "cifar-10-batches-py"
    shutil.copytree(cifar10 / folder.name, folder, copy_function=os.symlink)
    for name in ("data_batch_3", "test_batch"):
        (folder / name).unlink()
        # A pickle that makes a folder when it is read.
        target = str(tmp_path / "unpickled").encode()
        (folder / name).write_bytes(b"cos\nmkdir\n(V" + target + b"\ntR.")
    dataset = configured("cifar10", root=str(tmp_path), download=False)
    assert isinstance(dataset, TorchvisionDataset)
    for read in (dataset.read_train, dataset.read_test):
        with pytest.raises(UserError, match="absent or incomplete"):
            read()
    assert not (tmp_path / "unpickled").exists()


def test_fashion_mnist_is_unpacked_and_normalised(fashion_mnist: Path) -> None:
    splits = load("fashion_mnist", root=str(fashion_mnist))
    assert splits.problem == Problem(1, 28, 10)
    raw = fashion_mnist / "FashionMNIST" / "raw"
    assert not (raw / "t10k-images-idx3-ubyte").exists()  # the test images were left alone
    assert counts(splits.train_and_validation()) == [6_000] * 10
    mean, deviation = moments(splits.train_and_validation())
    assert abs(mean) < 1e-3 and abs(deviation - 1) < 1e-3
    assert counts(splits.test()) == [1_000] * 10


@pytest.mark.parametrize("option", ["cifar10", "cifar100", "fashion_mnist"])
def test_absent_data_without_download_is_an_error(option: str, tmp_path: Path) -> None:
    root = tmp_path / "absent"
    with pytest.raises(UserError, match=rf"{option} is absent .*/absent: set dataset\.root"):
        load(option, root=str(root), download=False)
    assert not root.exists()


@pytest.mark.parametrize("option", ["cifar10", "fashion_mnist"])
def test_a_failed_download_is_an_error(
    option: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_network(*_: object, **__: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr("urllib.request.urlopen", no_network)
    with pytest.raises(UserError, match=r"download failed \(.*no network.*\): put .* there, or"):
        load(option, root=str(tmp_path), download=True)


@pytest.mark.soak
@pytest.mark.parametrize("option", ["cifar10", "fashion_mnist"])
def test_classes_have_the_published_names(option: str, request: pytest.FixtureRequest) -> None:
    dataset = configured(option, root=str(request.getfixturevalue(option)), download=False)
    assert isinstance(dataset, TorchvisionDataset)
    if option == "fashion_mnist":
        published = torchvision.datasets.FashionMNIST.classes
    else:  # its files hold the names
        published = dataset.open_test(root=dataset.root, download=False).classes
    assert dataset.class_names == tuple(published)
