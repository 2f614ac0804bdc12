"""CIFAR-10, CIFAR-100 and Fashion-MNIST through torchvision, downloaded at first use."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nasrun.dataset.class_names import CIFAR10_NAMES, CIFAR100_NAMES, FASHION_NAMES
from nasrun.dataset.options import Deviations, Means, Padding, ReducedSide, Validation
from nasrun.dataset.resident import ResidentDataset
from nasrun.errors import UserError
from nasrun.limits import Images


class TorchvisionDataset(ResidentDataset):
    """A published set that torchvision reads from ``root``.

    root: folder in torchvision's layout. download: whether to download absent files.
    """

    def __init__(
        self,
        *,
        root: str,
        download: bool,
        validation: Validation,
        train_images: Images | None,
        image_size: ReducedSide | None,
        crop_padding: Padding,
        flip: bool,
        mean: Means,
        std: Deviations,
    ) -> None:
        super().__init__(
            validation=validation,
            train_images=train_images,
            image_size=image_size,
            crop_padding=crop_padding,
            flip=flip,
            mean=mean,
            std=std,
        )
        self.root = Path(root).expanduser()
        self.download = download

    @abstractmethod
    def open_train(self, **where: Any) -> Any:
        """Open torchvision's training images, without a need for files of the test images."""

    @abstractmethod
    def open_test(self, **where: Any) -> Any:
        """Open torchvision's test images, without a need for files of the training images."""

    def read_train(self) -> tuple[Tensor, Tensor]:
        return self._read(self.open_train)

    def read_test(self) -> tuple[Tensor, Tensor]:
        return self._read(self.open_test)

    def _read(self, open_set: Any) -> tuple[Tensor, Tensor]:
        try:
            # Raises RuntimeError if a file is absent or its checksum is not the published one,
            # before the file is read.
            data = open_set(root=self.root, download=False)
        except RuntimeError as absent:
            if not self.download:
                raise UserError(
                    f"{self.name} is absent or incomplete in {self.root.absolute()}: set "
                    "dataset.root (or NASRUN_DATA) to where it is, or dataset.download=true"
                ) from absent
            try:
                data = open_set(root=self.root, download=True)
            except (RuntimeError, OSError, EOFError) as error:
                reason = " ".join(str(error).split())
                raise UserError(
                    f"{self.name} is absent or incomplete in {self.root.absolute()} and the "
                    f"download failed ({reason}): put torchvision's files there, or set "
                    "dataset.root (or NASRUN_DATA) to where they are"
                ) from error
        images = torch.as_tensor(data.data)
        # Grey images come as [N, H, W], colour images as [N, H, W, C].
        images = images[:, None] if images.ndim == 3 else images.permute(0, 3, 1, 2).contiguous()
        return images, torch.as_tensor(data.targets, dtype=torch.int64)


class _CIFAR(TorchvisionDataset):
    """CIFAR, whose files are the only pickles that are ever read.

    torchvision reads them, after it has compared their checksums with the published ones.
    """

    torchvision_name: str

    def open_train(self, **where: Any) -> Any:
        return self._class(test_list=[])(train=True, **where)

    def open_test(self, **where: Any) -> Any:
        return self._class(train_list=[])(train=False, **where)

    def _class(self, **files: Any) -> Any:
        """Derive a class of torchvision's that needs no files of the other split."""
        from torchvision import datasets  # slow to import

        parent = getattr(datasets, self.torchvision_name)
        return type(parent.__name__, (parent,), files)


class CIFAR10(_CIFAR):
    """50,000 and 10,000 colour images of 32×32 pixels (Krizhevsky 2009)."""

    name = "cifar10"
    classes = 10
    class_names = CIFAR10_NAMES
    torchvision_name = "CIFAR10"


class CIFAR100(_CIFAR):
    """50,000 and 10,000 colour images of 32×32 pixels, 100 classes (Krizhevsky 2009)."""

    name = "cifar100"
    classes = 100
    class_names = CIFAR100_NAMES
    torchvision_name = "CIFAR100"


class FashionMNIST(TorchvisionDataset):
    """60,000 and 10,000 grey images of clothes, 28×28 pixels (Xiao et al. 2017)."""

    name = "fashion_mnist"
    classes = 10
    class_names = FASHION_NAMES

    def open_train(self, **where: Any) -> Any:
        return self._class("train-")(train=True, **where)

    def open_test(self, **where: Any) -> Any:
        return self._class("t10k-")(train=False, **where)

    @staticmethod
    def _class(prefix: str) -> Any:
        """Derive a class of torchvision's that needs no files of the other split."""
        from torchvision import datasets  # slow to import

        parent = datasets.FashionMNIST
        files = [file for file in parent.resources if file[0].startswith(prefix)]
        return type(
            parent.__name__, (parent,), {"resources": files}
        )  # torchvision names the folder after the class
