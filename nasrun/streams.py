"""Random streams: every sample comes from a generator named by (run seed, stream, step).

A generator is made where it is used and thrown away afterwards, so there is no random state to
save: step 7,000 of a resumed run samples the same as step 7,000 of an uninterrupted run.
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
        """Return separate streams for a stage of the run, e.g. ``streams.sub("retrain")``."""
        return Streams(self.seed, f"{self.prefix}{name}/")

    def key(self, stream: str, *step: int) -> int:
        """Return a 63-bit number that depends on the run seed, the stream's name and the step."""
        name = f"{self.seed}/{self.prefix}{stream}/{'/'.join(map(str, step))}"
        return int.from_bytes(blake2b(name.encode(), digest_size=8).digest(), "big") >> 1

    def numpy(self, stream: str, *step: int) -> np.random.Generator:
        return np.random.default_rng(self.key(stream, *step))

    def torch(self, stream: str, *step: int, device: torch.device | str = "cpu") -> torch.Generator:
        return torch.Generator(device).manual_seed(self.key(stream, *step))

    @contextmanager
    def default(self, stream: str, *step: int) -> Iterator[None]:
        """Seed torch's default generator inside; restore its state afterwards.

        This is for code that takes no generator: the initialisation of modules.
        """
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(self.key(stream, *step))
            yield
