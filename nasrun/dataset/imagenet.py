"""ImageNet (ILSVRC 2012) in one folder for each class, streamed."""

from __future__ import annotations

from collections.abc import Callable

from nasrun.dataset.files import ImageFiles, class_names, list_images
from nasrun.dataset.image_folder import ImageFolder, check_classes
from nasrun.dataset.options import Area, Deviations, HueJitter, Jitter, Means, Validation
from nasrun.limits import Images, Side, Workers


class ImageNet(ImageFolder):
    """ImageNet (Russakovsky et al. 2015) in ``root/train/CLASS`` and ``root/val/CLASS``.

    The published validation images are the test set here; our validation split is taken from the
    training images.
    """

    name = "imagenet"

    def __init__(
        self,
        *,
        root: str,
        image_size: Side,
        workers: Workers,
        validation: Validation,
        train_images: Images | None,
        crop_area: Area,
        flip: bool,
        brightness: Jitter,
        contrast: Jitter,
        saturation: Jitter,
        hue: HueJitter,
        mean: Means,
        std: Deviations,
    ) -> None:
        super().__init__(
            root=root,
            image_size=image_size,
            channels=3,
            test_fraction=0.0,  # has a test set of its own
            resident_limit_mb=0,  # always streamed
            workers=workers,
            validation=validation,
            train_images=train_images,
            crop_padding=0,
            crop_area=crop_area,
            flip=flip,
            brightness=brightness,
            contrast=contrast,
            saturation=saturation,
            hue=hue,
            mean=mean,
            std=std,
        )

    def find_files(self) -> tuple[list[str], ImageFiles, Callable[[], ImageFiles]]:
        train, val = self.root / "train", self.root / "val"
        classes = class_names(train)
        if val.is_dir():  # a search reads no test images, so it may run without them
            check_classes(val, classes)

        def test_files() -> ImageFiles:
            check_classes(val, classes)
            return list_images(val, classes)

        return classes, list_images(train, classes), test_files
