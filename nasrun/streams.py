"""Random streams: every draw comes from a generator named by (run seed, stream, step).

A generator is made where it is used and thrown away afterwards, so there is no random state to
save: step 7,000 of a resumed run draws what step 7,000 of an unbroken run draws.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
import torch


@dataclass(frozen=True)
class Streams:
    """The random streams of one run."""

    seed: int
    prefix: str = ""

    def sub(self, name: str) -> Streams:
        """Streams of their own for one part of the run, e.g. ``streams.sub("retrain")``."""
        return Streams(self.seed, f"{self.prefix}{name}/")

    def key(self, stream: str, *step: int) -> int:
        """A 63-bit number that depends on the run seed, the stream's name and the step."""
        name = f"{self.seed}/{self.prefix}{stream}/{'/'.join(map(str, step))}"
        return int.from_bytes(blake2b(name.encode(), digest_size=8).digest(), "big") >> 1

    def numpy(self, stream: str, *step: int) -> np.random.Generator:
        return np.random.default_rng(self.key(stream, *step))

    def torch(self, stream: str, *step: int, device: torch.device | str = "cpu") -> torch.Generator:
        return torch.Generator(device).manual_seed(self.key(stream, *step))

    @contextmanager
    def default(self, stream: str, *step: int) -> Iterator[None]:
        """torch's default generator is seeded inside and as before afterwards.

        For code that takes no generator: the initialisation of modules.
        """
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(self.key(stream, *step))
            yield
