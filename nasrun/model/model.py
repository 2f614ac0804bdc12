"""A trained network that can be asked about images: ``nasrun.load``."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from nasrun.dataset.preprocessing import AnyImage, name_of, separate
from nasrun.errors import UserError
from nasrun.model.manifest import Manifest, told
from nasrun.report.run_files import RunDirectory
from nasrun.run.checkpoints import MAX_TENSOR_BYTES
from nasrun.run.commands import command
from nasrun.run.compute import Compute, device_of
from nasrun.run.files import at_home, printable, read_bytes
from nasrun.run.layout import NETWORK, RECORD
from nasrun.run.run import MISFIT_ERRORS
from nasrun.run.state import decode_tensors
from nasrun.search_space.base import Network, SearchSpace
from nasrun.values import Architecture, Cost

BATCH_SIZE = 64
"""Images that are decoded and computed at a time, unless another number is given."""

TOP = 5
"""Classes that a prediction names, unless another number is given."""


@dataclass(frozen=True)
class Prediction:
    """The classes of one image, the most probable first.

    name, probability: of the first class. index: its place among ``Model.classes``.
    top: pairs of name and probability, the first one included.
    source: path of the image, as it was given; None: it was no file.
    """

    name: str
    probability: float
    index: int
    top: tuple[tuple[str, float], ...]
    source: str | None = None


@dataclass(frozen=True, eq=False, repr=False)
class Model:
    """A trained network with all that belongs to it.

    manifest: what its file says. space: the search space it comes from.
    network: a plain ``torch.nn.Module`` in evaluation mode: float32 [B, C, S, S] -> logits [B, K].
    compute: its device and memory layout. path: its file.
    """

    manifest: Manifest
    space: SearchSpace
    network: Network
    compute: Compute
    path: Path

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes, in the order of the network's outputs."""
        return self.manifest.classes

    @property
    def architecture(self) -> Architecture:
        """The architecture of the network, a value of its search space."""
        return self.manifest.architecture

    @property
    def cost(self) -> Cost:
        """Parameters and multiply-adds of the network."""
        return self.manifest.cost

    def __repr__(self) -> str:
        measured = self.manifest.measured.get("test_accuracy")
        words = "" if measured is None else f", test accuracy {100 * measured:.2f} %"
        return (
            f"Model({self.space.name}, {len(self.classes)} classes, "
            f"{self.cost.params:,} parameters{words})"
        )

    def refuse_unless_files(self) -> None:
        """Raise UserError if the network takes no image files, saying why."""
        if self.manifest.preprocessing is None:
            raise UserError(self._untold())
        self.manifest.preprocessing.refuse_pictures()

    def _untold(self) -> str:
        wanted = list(self.manifest.shape)
        return (
            f"the data set {self.manifest.origin.dataset!r} does not say how its images are "
            f"preprocessed: give tensors of floats {wanted}"
        )

    def preprocess(self, images: AnyImage | Iterable[AnyImage]) -> Tensor:
        """Return images as the network takes them: float32 [N, C, H, W], on its device.

        They go the way of the test images. images: one or several, each a path, a picture of
        Pillow's, an array uint8 [H, W] or [H, W, C], or a tensor uint8 [C, H, W]; a tensor of
        floats [C, H, W] counts as preprocessed.
        Raises UserError, naming the file, where one cannot be read.
        """
        preprocessing = self.manifest.preprocessing
        if preprocessing is not None:
            return preprocessing(images, self.compute.device)
        wanted = self.manifest.shape
        every = separate(images)
        found = [
            image
            for image in every
            if isinstance(image, Tensor)
            and image.is_floating_point()
            and tuple(image.shape) == wanted
        ]
        if len(found) != len(every):
            raise UserError(self._untold())
        if not found:
            return torch.empty(0, *wanted, device=self.compute.device)
        return torch.stack(found).float().to(self.compute.device)

    @torch.no_grad()
    def probabilities(
        self, images: AnyImage | Iterable[AnyImage], *, batch_size: int = BATCH_SIZE
    ) -> Tensor:
        """Return the probability of each class for each image, float32 [N, K], on the CPU.

        images: as of ``preprocess``. batch_size: images at a time.
        Raises UserError where an answer is not finite.
        """
        if batch_size < 1:
            raise UserError(f"batch_size={batch_size}: must be at least 1")
        every = separate(images)
        found = [
            self.network(self.compute.images(self.preprocess(every[start : start + batch_size])))
            .float()
            .softmax(1)
            .cpu()
            for start in range(0, len(every), batch_size)
        ]
        if not all(part.isfinite().all() for part in found):
            raise UserError(
                f"{printable(str(self.path))}: the network answers with numbers that are not "
                "finite: its training has diverged, or the file is damaged"
            )
        return torch.cat(found) if found else torch.empty(0, len(self.classes))

    def predict(
        self,
        images: AnyImage | Iterable[AnyImage],
        *,
        batch_size: int = BATCH_SIZE,
        top: int = TOP,
    ) -> list[Prediction]:
        """Return a prediction for each image, in order.

        images: as of ``preprocess``. batch_size: images at a time. top: classes that are named.
        Raises UserError, naming the file, where one cannot be read.
        """
        if top < 1:
            raise UserError(f"top={top}: must be at least 1")
        every = separate(images)
        found = self.probabilities(every, batch_size=batch_size)
        best, places = found.topk(min(top, len(self.classes)), dim=1)
        return [
            Prediction(
                name=self.classes[indices[0]],
                probability=values[0],
                index=indices[0],
                top=tuple((self.classes[k], p) for k, p in zip(indices, values, strict=True)),
                source=name_of(image),
            )
            for image, indices, values in zip(every, places.tolist(), best.tolist(), strict=True)
        ]


def load(path: str | os.PathLike[str], device: str = "cpu") -> Model:
    """Load the network that a run has trained; see ``nasrun.load``."""
    file = weights_of(Path(path))
    shown = printable(str(file))
    chosen = device_of(device)
    compute = Compute(chosen, bf16=False, channels_last=chosen.type != "mps")
    try:
        data = read_bytes(file, MAX_TENSOR_BYTES)
    except OSError as error:
        raise UserError(f"cannot read {shown}: {error.strerror}") from error
    manifest = Manifest.read(data, file)
    try:
        space = manifest.space()
        network = manifest.build(space, len(data))
        network.load_state_dict(decode_tensors(data))
    except UserError as error:
        raise UserError(f"{shown} cannot be loaded: {told(error)}") from error
    except MISFIT_ERRORS as error:
        raise UserError(
            f"{shown}: its weights are not those of its network ({told(error)})"
        ) from error
    return Model(manifest, space, compute.place(network), compute, file)


def weights_of(path: Path) -> Path:
    """Return the file of weights of a run, by its directory or the file itself.

    Raises UserError if there is none, saying what to do.
    """
    found = at_home(path)
    shown = printable(str(path))
    try:
        exists = found.exists()
    except OSError:  # its name is too long
        exists = False
    if not exists:
        raise UserError(f"{shown}: there is no such run or file")
    if not found.is_dir():
        return found.resolve()  # the user's own file may be a link
    if (found / NETWORK).exists():
        return found / NETWORK
    if not (found / RECORD).exists():
        raise UserError(f"{shown} has no {NETWORK} and no {RECORD}, so it is no run")
    run = RunDirectory(found)
    if run.task not in ("search", "retrain"):
        raise UserError(
            f"{shown} has no {NETWORK}: nasrun {printable(run.task)} trains no winner, but search "
            "and retrain do"
        )
    if run.status == "done":
        raise UserError(f"{shown} has no {NETWORK}: its winner was looked up, not trained")
    raise UserError(
        f"{shown} has no {NETWORK} yet: if the run was stopped, go on with it "
        f"({command('resume', found)})"
    )
