"""What a ranking cannot be made of, in words for the user."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from nasrun.errors import UserError

FEWEST = 3


def checked(
    columns: Mapping[str, npt.ArrayLike],
    labels: Sequence[str] | None = None,
    *,
    may_be_tied: Sequence[str] = (),
) -> list[npt.NDArray[Any]]:
    """The columns as vectors [n] of finite numbers; their names, in the plural, stand in errors.

    Raises UserError for columns of different lengths, fewer than three architectures, values that
    are no finite number, with the label of the first such architecture, and columns that hold one
    value only, apart from those of ``may_be_tied``.
    """
    vectors = {name: np.asarray(values, dtype=np.float64) for name, values in columns.items()}
    first, *_ = vectors
    n = len(vectors[first])
    for name, vector in vectors.items():
        if vector.shape != (n,):
            raise UserError(f"{n:,} {first} but {len(vector):,} {name}: one for each architecture")
    if labels is not None and len(labels) != n:
        raise UserError(f"{n:,} {first} but {len(labels):,} architectures")
    if n < FEWEST:
        raise UserError(f"a ranking needs {FEWEST} architectures at least, not {n}")
    for name, vector in vectors.items():
        wrong = np.flatnonzero(~np.isfinite(vector))
        if len(wrong):
            index = int(wrong[0])
            where = f"architecture {index}" if labels is None else f"architecture {labels[index]}"
            more = f", and {len(wrong) - 1:,} more are none" if len(wrong) > 1 else ""
            raise UserError(f"{name}: {vector[index]} of {where} is no finite number{more}")
        if name not in may_be_tied and (vector == vector[0]).all():
            raise UserError(f"all {n:,} {name} are {vector[0]:g}: they rank nothing")
    return list(vectors.values())
