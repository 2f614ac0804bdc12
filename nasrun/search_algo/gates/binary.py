"""Binary gates of ProxylessNAS: the weights train a path, the gates compare two options."""

from __future__ import annotations

import torch
from torch import Tensor

from nasrun.run.compute import float64
from nasrun.search_algo.gates.mixed_gates import MixedGates, Sample
from nasrun.search_space.gates import Gates


class BinaryGates(MixedGates):
    """Opens one option of each decision, sampled by its share; in the gates' step compares two.

    Two options of each decision are sampled and one is opened. The other is computed too, times 0,
    so that the loss has a derivative by both gates. Only the two logits change; the sum of their
    exponentials does not. Before the gates learn, paths are uniform.
    Source: ProxylessNAS (Cai et al., ICLR 2019), §3.2, §3.2.1.
    """

    _shares: Tensor | None = None
    _pairs: Tensor | None = None

    def shares_on_host(self) -> Tensor:
        """Return the shares on the CPU, float64; the host waits for them once a change."""
        if self._shares is None:
            self._shares = float64(self.weights().detach()).cpu()
        return self._shares

    def training_gates(self, step: int) -> Gates:
        shares = float64(self.opened) if self.is_resting(step) else self.shares_on_host()
        generator = self.context.streams.torch("path", step)
        path: list[int] = torch.multinomial(shares, 1, generator=generator)[:, 0].tolist()
        return path

    def sample(self, step: int, stream: str, number: int) -> Sample:
        generator = self.context.streams.torch("pair", number)
        shares = self.shares_on_host().clamp(min=1e-12) * self.opened
        pairs = torch.multinomial(shares, 2, generator=generator)
        active = torch.multinomial(shares.gather(1, pairs), 1, generator=generator)
        device, places = self.logits.device, pairs.tolist()
        self._pairs, active = pairs.to(device), active.to(device)
        leaf = torch.zeros(pairs.shape, device=device).scatter_(1, active, 1.0).requires_grad_()

        def open_two(values: Tensor) -> Gates:
            return [
                dict(zip(pair, row.unbind(), strict=True))
                for pair, row in zip(places, values.unbind(), strict=True)
            ]

        return Sample(self.logits.gather(1, self._pairs).softmax(1), leaf, open_two)

    def take_step(
        self, step: int, sample: Sample, gradient: Tensor | None, measured: Tensor | None = None
    ) -> None:
        if gradient is None or self._pairs is None:
            return
        pairs = self._pairs
        before = self.logits.detach().gather(1, pairs).logsumexp(1)
        super().take_step(step, sample, gradient, measured)
        with torch.no_grad():
            after = self.logits.gather(1, pairs).logsumexp(1)
            self.logits.scatter_add_(1, pairs, (before - after)[:, None].expand(-1, 2))
        self.reread()

    def keep_gradients(self) -> None:
        """Keep the gradients of the two compared options only."""
        if self.logits.grad is not None and self._pairs is not None:
            mask = torch.zeros_like(self.logits).scatter_(1, self._pairs, 1.0)
            self.logits.grad.mul_(mask)

    def reread(self) -> None:
        self._shares = None
