"""NAO: gradient ascent in the embedding space of an encoder, a predictor and a decoder."""

from nasrun.search_algo.nao.nao import Nao

__all__ = ["Nao"]
