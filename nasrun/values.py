"""The values that all packages exchange: small, frozen, hashable, JSON; no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

from nasrun.errors import UserError


@dataclass(frozen=True)
class Decision:
    """One choice point of a search space, e.g. ``normal/node2/x/op`` with its options.

    Decisions with the same last word of the name have the same ``kind`` and share a vocabulary.
    """

    name: str
    options: tuple[str, ...]

    @property
    def kind(self) -> str:
        """The last word of the name: ``op`` of ``normal/node2/x/op``."""
        return self.name.rsplit("/", 1)[-1]


@dataclass(frozen=True)
class Architecture:
    """A point of a search space: the index of the chosen option, for each decision in order."""

    space: str
    choices: tuple[int, ...]

    @property
    def digest(self) -> str:
        """Return eight hexadecimal digits that name the architecture in logs."""
        return blake2b(repr(self.choices).encode(), digest_size=4).hexdigest()

    def to_json(self) -> dict[str, Any]:
        return {"space": self.space, "choices": list(self.choices)}

    @staticmethod
    def from_json(value: Any) -> Architecture:
        """Undo ``to_json``: ``{"space": str, "choices": [int, ...]}``; raises UserError."""
        if not isinstance(value, Mapping) or not isinstance(value.get("space"), str):
            raise UserError('an architecture is {"space": NAME, "choices": [INTEGERS]}')
        choices = value.get("choices")
        if not isinstance(choices, list) or not all(type(choice) is int for choice in choices):
            raise UserError('the "choices" of an architecture are a list of integers')
        return Architecture(value["space"], tuple(choices))


@dataclass(frozen=True)
class Cost:
    """The cost of a stand-alone network.

    params: number of learned parameters, auxiliary head excluded (Balanced NAO, Eq. 3).
    macs: multiply-adds of convolutions and linear layers for one image, auxiliary head excluded.
    bitops: sum over quantised layers of multiply-adds × bits of weights × bits of activations
    (SPOS, Table 6); None if the space decides on no bits.
    """

    params: int
    macs: int
    bitops: int | None = None

    def to_json(self) -> dict[str, int]:
        sizes = {"params": self.params, "macs": self.macs}
        return sizes if self.bitops is None else {**sizes, "bitops": self.bitops}


@dataclass(frozen=True)
class Trial:
    """The score of one architecture, and the way it was obtained.

    score: in [0, 1], higher is better; an accuracy, or another measure of the evaluator.
    evaluation: the way the score was obtained (evaluator, batch norm protocol, images, round ...).
    tie_break: orders trials of equal scores, higher is better; None: nothing does.
    """

    architecture: Architecture
    score: float
    cost: Cost
    seed: int
    evaluation: Mapping[str, Any] = field(default_factory=dict, hash=False)
    tie_break: float | None = None

    @property
    def rank_key(self) -> tuple[float, float]:
        """The better of two trials has the larger one; equal ones are equally good."""
        return self.score, 0.0 if self.tie_break is None else self.tie_break

    def to_json(self) -> dict[str, Any]:
        found = {
            "architecture": self.architecture.to_json(),
            "score": self.score,
            "cost": self.cost.to_json(),
            "seed": self.seed,
            "evaluation": dict(self.evaluation),
        }
        return found if self.tie_break is None else {**found, "tie_break": self.tie_break}

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> Trial:
        return Trial(
            Architecture.from_json(value["architecture"]),
            float(value["score"]),
            Cost(**value["cost"]),
            int(value["seed"]),
            dict(value["evaluation"]),
            None if value.get("tie_break") is None else float(value["tie_break"]),
        )


@dataclass(frozen=True)
class MapSize:
    """Height and width of an image or a feature map, in pixels."""

    height: int
    width: int

    @staticmethod
    def square(side: int) -> MapSize:
        return MapSize(side, side)

    @staticmethod
    def of(sides: int | Sequence[int]) -> MapSize:
        """Read a size as people write it: the side of a square, or [height, width]."""
        return MapSize.square(sides) if isinstance(sides, int) else MapSize(*sides)

    @property
    def area(self) -> int:
        return self.height * self.width

    @property
    def short(self) -> int:
        """The shorter side."""
        return min(self.height, self.width)

    @property
    def long(self) -> int:
        """The longer side."""
        return max(self.height, self.width)

    @property
    def words(self) -> str:
        """The size for people: ``48×64``."""
        return f"{self.height}×{self.width}"

    @property
    def sides(self) -> int | tuple[int, int]:
        """The size as people write it (see ``of``)."""
        return self.height if self.height == self.width else (self.height, self.width)

    def shape(self, channels: int) -> tuple[int, int, int]:
        """Return the shape of a map of so many channels, [C, H, W]."""
        return channels, self.height, self.width

    def __str__(self) -> str:
        """Return the size for names of layers: ``48x64``, of a square its side alone."""
        return str(self.height) if self.height == self.width else f"{self.height}x{self.width}"


@dataclass(frozen=True)
class Problem:
    """The shape of an image classification problem: images [channels, height, width].

    size: of the images; a number stands for the side of squares.
    """

    channels: int
    size: MapSize
    classes: int

    def __post_init__(self) -> None:
        if isinstance(self.size, int):
            object.__setattr__(self, "size", MapSize.square(self.size))

    @property
    def shape(self) -> tuple[int, int, int]:
        """The shape of an image, [C, H, W]."""
        return self.size.shape(self.channels)
