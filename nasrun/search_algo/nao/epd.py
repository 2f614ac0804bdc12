"""Encoder, predictor and decoder: the network with which NAO climbs from good architectures.

An encoder turns the tokens of an architecture into vectors, a predictor estimates the score from
them, and a decoder turns them back into tokens. A gradient step on the vectors, decoded, gives an
architecture for which the predictor expects a higher score (Luo et al., 2018).

Shapes: N architectures, L tokens each, V tokens in the vocabulary, S = L / tokens_per_step encoder
steps, H hidden units.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, cast

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from nasrun.errors import UserError
from nasrun.limits import Count, Strength, Width
from nasrun.search_algo.nao.tokens import Vocabulary


@dataclass(frozen=True, kw_only=True)
class PredictorSettings:
    """Sizes of the network and settings of its training; units stand in the YAML file."""

    embedding: Width
    hidden: Width
    tokens_per_step: Count
    mlp_layers: Annotated[int, Field(ge=0, le=100)]
    mlp_width: Width
    mlp_dropout: Annotated[float, Field(ge=0, lt=1)]
    epochs: Count
    batch: Count
    lr: Annotated[Strength, Field(gt=0)]
    weight_decay: Strength
    clip_norm: Annotated[Strength, Field(gt=0)]
    trade_off: Annotated[float, Field(ge=0, le=1)]
    expand: Annotated[int, Field(gt=0, le=1000)]
    validation_share: Annotated[float, Field(ge=0, lt=1)]
    report_every: Count
    keep_weights: bool

    def steps(self, vocabulary: Vocabulary) -> int:
        """Encoder steps S; raises UserError if L is no multiple of tokens_per_step."""
        if vocabulary.length % self.tokens_per_step:
            raise UserError(
                f"search_algo.predictor.tokens_per_step = {self.tokens_per_step} does not divide "
                f"the {vocabulary.length} decisions of search space {vocabulary.space.name}: "
                "choose a divisor, e.g. 1"
            )
        return vocabulary.length // self.tokens_per_step


class Encoder(nn.Module):
    """Tokens -> a unit vector a step: embedding, neighbouring tokens joined, LSTM."""

    def __init__(self, settings: PredictorSettings, vocabulary: Vocabulary) -> None:
        super().__init__()
        self.steps = settings.steps(vocabulary)
        self.embed = nn.Embedding(vocabulary.size, settings.embedding)
        self.lstm = nn.LSTM(
            settings.embedding * settings.tokens_per_step, settings.hidden, batch_first=True
        )

    def forward(self, tokens: Tensor) -> Tensor:
        """[N, L] -> [N, S, H]."""
        joined = self.embed(tokens).reshape(len(tokens), self.steps, -1)
        output, _ = self.lstm(joined)
        return F.normalize(output, dim=-1)


class Predictor(nn.Module):
    """Architecture embedding -> predicted score in (0, 1)."""

    def __init__(self, settings: PredictorSettings) -> None:
        super().__init__()
        widths = [settings.hidden] + [settings.mlp_width] * settings.mlp_layers
        self.hidden_layers = nn.ModuleList(
            nn.Linear(width, following) for width, following in pairwise(widths)
        )
        self.last = nn.Linear(widths[-1], 1)
        self.dropout = settings.mlp_dropout

    def forward(self, embedding: Tensor, noise: torch.Generator | None = None) -> Tensor:
        """[N, H] -> [N]; ``noise`` samples the dropout masks; None: no dropout."""
        x = embedding
        for layer in self.hidden_layers:
            x = F.relu(layer(x))
            if noise is not None and self.dropout > 0:
                kept = torch.rand(x.shape, generator=noise, device=x.device) >= self.dropout
                x = x * kept / (1 - self.dropout)
        return torch.sigmoid(self.last(x)).squeeze(-1)


class Decoder(nn.Module):
    """Architecture embedding -> tokens: LSTM with attention to the encoder's steps (Luong).

    The attention comes after the LSTM and does not feed back into it, so a known sequence takes
    a single call.
    """

    def __init__(self, settings: PredictorSettings, vocabulary: Vocabulary) -> None:
        super().__init__()
        hidden = settings.hidden
        self.embed = nn.Embedding(vocabulary.size, hidden)
        self.lstm = nn.LSTM(hidden, hidden, batch_first=True)
        self.query = nn.Linear(hidden, hidden, bias=False)
        self.join = nn.Linear(2 * hidden, hidden, bias=False)
        self.last = nn.Linear(hidden, vocabulary.size)

    def forward(
        self, tokens: Tensor, state: tuple[Tensor, Tensor], encoded: Tensor
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Tokens so far [N, T] -> logits of the token after each [N, T, V], and the new state.

        state: hidden and cell state [1, N, H]; encoded: [N, S, H].
        """
        output, state = self.lstm(self.embed(tokens), state)
        weights = torch.softmax(self.query(output) @ encoded.transpose(1, 2), dim=-1)
        context = weights @ encoded
        joined = torch.tanh(self.join(torch.cat([context, output], dim=-1)))
        return self.last(joined), state


class EPD(nn.Module):
    """Encoder, predictor and decoder together."""

    allowed: Tensor

    def __init__(self, settings: PredictorSettings, vocabulary: Vocabulary) -> None:
        super().__init__()
        self.encoder = Encoder(settings, vocabulary)
        self.predictor = Predictor(settings)
        self.decoder = Decoder(settings, vocabulary)
        self.register_buffer("allowed", vocabulary.allowed, persistent=False)

    def encode(self, tokens: Tensor) -> Tensor:
        """[N, L] -> unit vectors [N, S, H]."""
        return cast(Tensor, self.encoder(tokens))

    @staticmethod
    def embed(encoded: Tensor) -> Tensor:
        """[N, S, H] -> architecture embeddings [N, H], unit vectors too."""
        return F.normalize(encoded.mean(dim=1), dim=-1)

    def predict(self, embedding: Tensor, noise: torch.Generator | None = None) -> Tensor:
        """[N, H] -> predicted scores [N]."""
        return cast(Tensor, self.predictor(embedding, noise))

    def reconstruct(self, tokens: Tensor, encoded: Tensor, embedding: Tensor) -> Tensor:
        """Return logits [N, L, V] of each token given the true previous ones (teacher forcing)."""
        before = F.pad(tokens[:, :-1], (1, 0), value=Vocabulary.start)
        state = embedding.unsqueeze(0)
        logits, _ = self.decoder(before, (state, state), encoded)
        return cast(Tensor, logits)

    @torch.no_grad()
    def decode(self, encoded: Tensor) -> Tensor:
        """[N, S, H] -> tokens [N, L]: at each position the likeliest of the allowed tokens."""
        hidden = self.embed(encoded).unsqueeze(0)
        state = (hidden, hidden)
        token = encoded.new_full((len(encoded), 1), Vocabulary.start, dtype=torch.long)
        tokens = []
        for allowed in self.allowed:
            logits, state = self.decoder(token, state, encoded)
            token = logits.masked_fill(~allowed, -torch.inf).argmax(dim=-1)
            tokens.append(token)
        return torch.cat(tokens, dim=1)

    def ascend(self, encoded: Tensor, step: float) -> Tensor:
        """Take a gradient step of the predicted score: [N, S, H] -> unit vectors [N, S, H]."""
        with torch.enable_grad():
            start = encoded.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(self.predict(self.embed(start)).sum(), start)
        return F.normalize(start.detach() + step * gradient, dim=-1)
