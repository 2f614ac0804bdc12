"""The manifest of a network's file: all that is needed to rebuild it and to feed it images.

It stands as one JSON text in the header of ``network.safetensors``. A file may be a stranger's: the
manifest is read strictly and as data, and only classes of the allow-list are built from it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from nasrun import __version__
from nasrun.building.build import build
from nasrun.building.hints import checked
from nasrun.dataset.base import Dataset, Splits
from nasrun.dataset.preprocessing import Preprocessing
from nasrun.errors import UserError, shortened
from nasrun.limits import ImageSize
from nasrun.run.files import parse_json, printable
from nasrun.run.memory import check_fits
from nasrun.run.run import Run
from nasrun.run.state import metadata_of
from nasrun.search_space.base import Network, Scale, SearchSpace
from nasrun.values import Architecture, Cost, MapSize, Problem

FORMAT = 1
"""Number of this form of the manifest; a file with another one is not read."""


MANIFEST_KEY = "nasrun"
"""Name of the manifest among the texts of a safetensors file."""

MAX_MANIFEST_CHARACTERS = 2**24
"""Length of a manifest that is still read; a hundred thousand long names of classes fit."""

BYTES_PER_PARAMETER = 4

MAX_ERROR_CHARACTERS = 400
"""Characters of the reason why a file is refused; a stranger's text may stand in it."""

Name = Annotated[str, StringConstraints(max_length=4096)]


class Origin(BaseModel):
    """Tells which run has trained a network, by its directory's name, its task and seed.

    name: the one that the user gave it; None: it has none. dataset: name of the data set.
    nasrun: version that wrote the file.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    run: Name
    name: Name | None = None
    task: Name
    seed: int
    dataset: Name
    nasrun: Name

    @staticmethod
    def of(run: Run, dataset: Dataset) -> Origin:
        """Describe a run that trains on a data set."""
        name = run.config.get("name")
        return Origin(
            run=_escaped(run.directory.name),
            name=None if name is None else str(name),
            task=run.task,
            seed=run.streams.seed,
            dataset=_escaped(dataset.name),
            nasrun=__version__,
        )


class Manifest(BaseModel):
    """All that a file of weights says of its network, so that it can be used by itself.

    It holds no times, so equal runs write equal manifests.

    search_space: the node of the configuration, with its ``_target_``. auxiliary: whether the
    network has an auxiliary head. width: the width to which it was fitted; None: no fitting.
    classes: names in the order of the outputs. channels: of the images.
    size: the side of squares, or [height, width], in pixels.
    preprocessing: from an image to the network's input; None: the data set does not tell it.
    measured: accuracies on validation and test images, in [0, 1], by the names of result.json.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    search_space: dict[str, Any]
    architecture: Architecture
    scale: Scale
    auxiliary: bool
    width: float | None
    channels: Annotated[int, Field(gt=0, le=1000)]
    size: ImageSize
    classes: Annotated[tuple[Name, ...], Field(min_length=1, max_length=1_000_000)]
    preprocessing: Preprocessing | None
    cost: Cost
    measured: dict[Name, Annotated[float, Field(ge=0, le=1)]]
    origin: Origin

    @staticmethod
    def of(
        space: SearchSpace,
        node: Mapping[str, Any],
        architecture: Architecture,
        splits: Splits,
        *,
        auxiliary: bool,
        origin: Origin,
    ) -> Manifest:
        """Describe the final network of an architecture, as far as it is not measured yet.

        node: the space's part of the configuration.
        """
        problem = splits.problem
        return Manifest(
            search_space=dict(node),
            architecture=architecture,
            scale="final",
            auxiliary=auxiliary,
            width=space.fitted_width(architecture, problem),
            channels=problem.channels,
            size=problem.size.sides,
            classes=tuple(map(_escaped, splits.class_names)),
            preprocessing=splits.preprocessing,
            cost=space.cost(architecture, problem, "final"),
            measured={},
            origin=origin,
        )

    @property
    def problem(self) -> Problem:
        """The shape of the images and the number of classes."""
        return Problem(self.channels, MapSize.of(self.size), len(self.classes))

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of an image as the network takes it, [C, H, W]."""
        return self.problem.size.shape(self.channels)

    def with_measured(self, result: Mapping[str, Any]) -> Manifest:
        """Add the accuracies in the content of result.json."""
        found = {key: float(v) for key, v in result.items() if key.endswith("_accuracy")}
        return self.model_copy(update={"measured": found})

    def metadata(self) -> dict[str, str]:
        """Return the manifest as the texts of a safetensors file."""
        content = {"format": FORMAT, **self.model_dump(mode="json")}
        return {
            MANIFEST_KEY: json.dumps(
                content, sort_keys=True, separators=(",", ":"), allow_nan=False
            )
        }

    @staticmethod
    def read(data: bytes, path: Path) -> Manifest:
        """Read the manifest in the bytes of a file; path: of the file, for messages.

        Raises UserError if there is none, or it is of another format, or damaged.
        """
        shown = printable(str(path))
        try:
            text = metadata_of(data).get(MANIFEST_KEY)
        except ValueError as error:
            raise UserError(f"{shown} is damaged, or no file of weights: {error}") from error
        if text is None:
            raise UserError(
                f"{shown} does not say which network it holds: an older nasrun wrote it; train the "
                "network again (nasrun retrain from=RUN_DIR)"
            )
        try:
            if len(text) > MAX_MANIFEST_CHARACTERS:
                raise ValueError(f"{len(text):,} characters are too many")
            content = parse_json(text)
            if not isinstance(content, dict) or "format" not in content:
                raise ValueError("it is no mapping with a format")
            number = content.pop("format")
        except ValueError as error:
            raise UserError(f"the manifest in {shown} is damaged: {told(error)}") from error
        if number != FORMAT:
            origin = content.get("origin")
            writer = origin.get("nasrun") if isinstance(origin, dict) else None
            raise UserError(
                f"{shown} has a manifest of format {shortened(repr(number), 20)}, and this nasrun "
                f"({__version__}) reads format {FORMAT}: use the version that wrote it"
                + (f" ({printable(shortened(str(writer), 40))})" if writer else "")
            )
        try:
            found: Manifest = checked(content, Manifest, "manifest")
            if found.preprocessing is not None:
                found.preprocessing.check(found.channels, MapSize.of(found.size))
            if min(found.cost.to_json().values()) < 0:
                raise UserError(f"manifest.cost = {found.cost.to_json()}: must not be negative")
            return found
        except UserError as error:
            raise UserError(f"{shown} is damaged: {told(error)}") from error

    def space(self) -> SearchSpace:
        """Build the search space; raises UserError if its class is not on the allow-list."""
        found: SearchSpace = build(self.search_space, "search_space", (SearchSpace,))
        if not isinstance(found, SearchSpace):
            raise UserError("search_space has no _target_")
        return found

    def build(self, space: SearchSpace, file_bytes: int | None = None) -> Network:
        """Build the network, without its weights; leaves torch's random state as it was.

        file_bytes: size of the file of weights; a network that it cannot hold is not built.
        Raises UserError if the architecture is none of the space, or its width has changed.
        """
        architecture = space.check(self.architecture)
        cost = space.cost(architecture, self.problem, self.scale)
        if file_bytes is not None and cost.params * BYTES_PER_PARAMETER > file_bytes:
            raise UserError(f"it has {file_bytes:,} bytes for {cost.params:,} parameters")
        check_fits(cost.params * BYTES_PER_PARAMETER, "the network", "its size")
        width = space.fitted_width(architecture, self.problem)
        if width != self.width:
            raise UserError(
                f"its width was fitted to {self.width}, and this nasrun ({__version__}) fits it to "
                f"{width}: use nasrun {self.origin.nasrun}"
            )
        with torch.random.fork_rng(devices=[]):
            return space.network(
                architecture, self.problem, self.scale, auxiliary=self.auxiliary
            ).eval()


def told(error: Exception) -> str:
    """Return the message of an error in one line, without signs that could control a terminal."""
    return printable(shortened(" ".join(str(error).split()), MAX_ERROR_CHARACTERS))


def _escaped(name: str) -> str:
    """Return a name whose letters all have a code: a folder's name may be any bytes."""
    return name.encode("utf-8", "backslashreplace").decode()
