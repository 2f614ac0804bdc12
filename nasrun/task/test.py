"""``nasrun test``: measure a trained network on test images."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field, NonNegativeInt, PositiveInt

from nasrun.dataset.folders import named
from nasrun.errors import UserError
from nasrun.limits import Count
from nasrun.metrics.classification import Answers
from nasrun.model.model import Model
from nasrun.report.test_report import Report
from nasrun.run.commands import command, shown
from nasrun.run.compute import float64
from nasrun.run.end_box import accuracy
from nasrun.run.run import Run
from nasrun.task.images_to_test import ImagesToTest, find_images
from nasrun.task.of_network import OfNetwork, Source
from nasrun.task.setup import Setup

TOP = 5
"""Places of the second accuracy, which is the custom of ImageNet."""


class TestTask(OfNetwork[ImagesToTest]):
    """Measure a network on the test images of its run, or on a folder of the user's own.

    bins: of the calibration error. confidence: of the intervals. resamples: of the bootstrap.
    shown: classes and confusions that are named on the screen.
    batch_size: images at a time; None: as in the retraining.
    """

    __test__ = False  # no test of pytest's
    settings = "test"

    def __init__(
        self,
        *,
        bins: Annotated[int, Field(ge=2, le=1000)],
        confidence: Annotated[float, Field(gt=0, lt=1)],
        resamples: Annotated[int, Field(ge=0, le=1_000_000)],
        shown: NonNegativeInt,
        batch_size: Count | None,
    ) -> None:
        self.bins, self.confidence, self.resamples = bins, confidence, resamples
        self.shown, self.batch_size = shown, batch_size

    def prepare(self, setup: Setup, run: Run, model: Model, source: Source) -> ImagesToTest:
        """Find the images; raises UserError if there are none that fit the network."""
        images = find_images(setup, run, model, source)
        if not images.count:
            raise UserError(f"there is no image to measure the network on: {images.words}")
        return images

    def work(
        self, setup: Setup, run: Run, model: Model, source: Source, prepared: ImagesToTest
    ) -> dict[str, Any]:
        """Measure the network, and write tables and pictures."""
        images = prepared
        for note in images.notes:
            run.say(note, "yellow")
        size = self.batch_size or setup.retrain.trainer.batch_size
        answers = ask(model, images, run, size)
        failed = set(images.left_out)
        sources = [name for name in images.sources if name not in failed]
        report = Report(
            answers,
            model.classes,
            sources,
            rng=run.streams.numpy("test/bootstrap"),
            confidence=self.confidence,
            resamples=self.resamples,
            bins=self.bins,
        )
        report.write(run.directory)
        for line in report.lines(self.shown, images.words):
            run.say(line)
        result: dict[str, Any] = {
            "test_accuracy": report.accuracy.value,
            "test_images": len(answers),
            **report.to_json(),
            "images": images.words,
        }
        if failed:
            result["left_out"] = sorted(failed)
            run.say(left_out_in_words(images.left_out), "yellow")
        before = model.manifest.measured.get("test_accuracy")
        if images.own and before is not None and before != report.accuracy.value:
            run.say(
                f"the retraining measured {100 * before:.2f} %, on the same images: another device "
                "or number format rounds in another way",
                "yellow",
            )
        result = run.finish(result)
        show_end(run, report)
        return result


def show_end(run: Run, report: Report) -> None:
    """Show the numbers that count in the box at the end."""
    top1, balanced = report.accuracy, report.balanced
    place = f"from={shown(run.directory)}"
    run.show_end(
        "test done",
        [
            ("test accuracy", accuracy(top1.value, top1.low, top1.high, len(report.answers))),
            (
                "measured also",
                f"balanced {100 * balanced.value:.2f} %, calibration error "
                f"{100 * report.calibration.error:.2f} %, "
                f"-ln p {report.answers.negative_log_likelihood:.3f}",
            ),
        ],
        [command("export", place), command("benchmark", place)],
    )


def left_out_in_words(paths: list[str]) -> str:
    """Say which files could not be read."""
    return f"left out, as they cannot be read: {named(paths)}"


@torch.inference_mode()
def ask(model: Model, images: ImagesToTest, run: Run, batch_size: PositiveInt) -> Answers:
    """Ask the network about all images, on the device and in the number format of the run.

    Raises UserError if its outputs are not finite, or if no image can be read.
    """
    network = run.compute.place(model.network)
    columns: list[tuple[np.ndarray[Any, Any], ...]] = []
    with run.stage("test", images.count) as stage:
        for pixels, labels in polled(images, run, batch_size):
            with run.compute.autocast():
                logits = network(run.compute.images(pixels.to(run.compute.device)))
            predicted = logits.argmax(1)  # as in the retraining, before any rounding of ours
            best = logits.topk(min(TOP, logits.shape[1]), dim=1).indices
            labels = labels.to(logits.device)
            log_p = float64(logits).log_softmax(1)
            if not logits.isfinite().all():
                raise UserError("the outputs of the network are not finite, so it has no accuracy")
            labels_, predicted_ = labels.to(log_p.device), predicted.to(log_p.device)
            parts = (
                *(labels, predicted, log_p.gather(1, predicted_[:, None])[:, 0].exp()),
                *(log_p.gather(1, labels_[:, None])[:, 0], (best == labels[:, None]).any(1)),
            )
            columns.append(tuple(part.cpu().numpy() for part in parts))
            stage.advance(len(labels))
    if not columns:
        raise UserError(f"no image can be read: {images.words}")
    return Answers(len(model.classes), *map(np.concatenate, zip(*columns, strict=True)))


def polled(images: ImagesToTest, run: Run, batch_size: int) -> Iterator[Any]:
    """Yield the batches; the run may stop between two of them."""
    for batch in images.batches(batch_size):
        run.poll()
        yield batch
