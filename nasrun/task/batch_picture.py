"""The first training batch as a picture in TensorBoard."""

from __future__ import annotations

from typing import Any

from nasrun.report.image_sheet import image_sheet
from nasrun.run.run import Run
from nasrun.trainer.training import Training

IMAGES = 16
"""Images on the picture."""


def show_batch(run: Run, name: str, training: Training[Any]) -> None:
    """Show the images of the first step, augmented, unless the training has begun already.

    The images of a step depend on its number alone, so the training sees the same ones again.
    """
    if training.mark != (0, 0):
        return
    settings = training.settings
    batches = training.split.train_batches(
        settings.batch_size, streams=training.streams, first_step=0, cutout=settings.cutout
    )
    images, _ = next(batches)
    run.logs.image(f"{name}/batch", image_sheet(images[:IMAGES]))
