"""Paths of a chain that are run together: first pieces that are equal are computed once.

The paths are walked as a trie, depth first. Whatever a piece computes depends on the pieces before
it alone, under recalibration also the statistics of its batch norms, and it is computed on the
same batches as for each path by itself: the logits are the same to the bit.

What is kept for later paths are the outputs of one path's first pieces, for all images. The first
of them are the largest and the least often used again, so where memory is short they are the ones
that are computed again.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeVar

from nasrun.search_space.chain import Piece

BYTES_OF_OUTPUT = 4
"""An output is a float32 at most."""

MIN_SAVING = 1.1
"""Paths are walked together if that takes so many times fewer multiply-adds than one by one."""

Outputs = TypeVar("Outputs")
"""The outputs of a piece, for all images."""


@dataclass(frozen=True)
class Work:
    """The work of a piece on one image. macs: multiply-adds. values: numbers in its input."""

    macs: int
    values: int


@dataclass(frozen=True)
class Step:
    """A path of a walk.

    place: where it stands among the paths as they were given.
    shared: the number of its first pieces that are those of the path before.
    reused: the number of its first pieces that are those of the path after it.
    """

    place: int
    shared: int
    reused: int


@dataclass(frozen=True)
class Walk:
    """An order of paths, and the outputs that are kept in between.

    first_kept: outputs of fewer pieces are not kept. saving: multiply-adds of the paths one by one,
    as a multiple of those of the walk.
    """

    steps: tuple[Step, ...]
    first_kept: int
    saving: float

    def run(
        self,
        paths: Sequence[Sequence[Piece]],
        images: Callable[[], Outputs],
        through: Callable[[Piece, Outputs], Outputs],
    ) -> Iterator[Outputs]:
        """Yield the outputs of the last piece of each path, in the order of the walk.

        images: makes the input of first pieces. through: runs a piece on the outputs of the one
        before it.
        """
        kept: dict[int, Outputs] = {}
        for step in self.steps:
            kept = {count: each for count, each in kept.items() if count <= step.shared}
            done = max(kept, default=0)
            outputs = kept[done] if done else images()
            for count, piece in enumerate(paths[step.place][done:], done + 1):
                outputs = through(piece, outputs)
                if self.first_kept <= count <= step.reused:
                    kept[count] = outputs
            yield outputs


def depth_first(paths: Sequence[Sequence[Hashable]]) -> tuple[Step, ...]:
    """Return the paths in the depth-first order of their trie; branches come as they were found.

    paths: the keys of their pieces.
    """
    nodes: dict[tuple[int, Hashable], int] = {}
    numbered = []
    for path in paths:
        node, numbers = 0, []
        for key in path:
            node = nodes.setdefault((node, key), len(nodes) + 1)
            numbers.append(node)
        numbered.append(numbers)
    # The number of a node tells when it was found, and all that is before it.
    order = sorted(range(len(paths)), key=numbered.__getitem__)
    shared = [0]
    for one, other in pairwise(order):
        alike = [a == b for a, b in zip(numbered[one], numbered[other], strict=False)]
        shared.append([*alike, False].index(False))
    reused = [*shared[1:], 0]
    return tuple(Step(*each) for each in zip(order, shared, reused, strict=False))


def plan_walk(
    paths: Sequence[Sequence[Hashable]],
    work: Sequence[Sequence[Work]],
    images: int,
    memory: int,
) -> Walk:
    """Plan the walk of paths that saves the most within the memory.

    paths: the keys of their pieces. work: of each of these pieces.
    images: that pass through each path. memory: bytes that outputs may take.
    """
    steps = depth_first(paths)
    alone = sum(piece.macs for path in work for piece in path)
    depth = max((step.shared for step in steps), default=0)
    # Input and output of the piece under way are there besides those that are kept.
    under_way = 2 * max((piece.values for path in work for piece in path), default=0)
    values = [  # of the outputs of so many pieces
        max((path[count].values for path in work if count < len(path)), default=0)
        for count in range(depth + 1)
    ]
    for first in range(1, depth + 1):
        kept = under_way + sum(values[first:])
        if kept * images * BYTES_OF_OUTPUT <= memory:
            macs = 0
            for step in steps:
                done = step.shared if step.shared >= first else 0
                macs += sum(piece.macs for piece in work[step.place][done:])
            return Walk(steps, first, alone / macs if macs else 1.0)
    return Walk(steps, depth + 1, 1.0)
