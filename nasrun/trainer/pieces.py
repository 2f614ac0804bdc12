"""A batch in pieces: as many images as go through the network at once, or a ghost batch each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

from torch import Tensor

from nasrun.search_space.gates import Gates

Paths = Sequence[tuple[Gates, ...]]
"""What each forward pass of a step is given besides the images."""


def in_pieces(
    images: Tensor,
    labels: Tensor,
    paths: Paths,
    at_once: int | None,
    ghost_batch: int | None,
) -> Iterator[tuple[Tensor, Tensor, Paths]]:
    """Images and labels that go through the network at once, and the paths that they take.

    at_once: images at most; None: all. With ghost batches, of that size, each has a path of its
    own, or all have the only one there is. Batch norm has no statistics of one image, so pieces are
    never so small.
    """
    if ghost_batch is None:
        pieces = -(-len(images) // (at_once or len(images)))
        pieces = max(min(pieces, len(images) // 2), 1)
        for part, answers in zip(
            images.tensor_split(pieces), labels.tensor_split(pieces), strict=True
        ):
            yield part, answers, paths
        return
    # The last batch of an epoch may be smaller, and then its last ghost batch; its lone image
    # joins the one before.
    starts = list(range(0, len(images), ghost_batch))
    if len(images) - starts[-1] == 1 and len(starts) > 1:
        starts.pop()
    for index, (start, stop) in enumerate(pairwise([*starts, len(images)])):
        path = paths[index] if len(paths) > 1 else paths[0]
        yield images[start:stop], labels[start:stop], [path]
