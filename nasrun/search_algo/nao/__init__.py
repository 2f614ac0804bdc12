"""NAO: a search by gradient in the space that an encoder, a predictor and a decoder learn."""

from nasrun.search_algo.nao.nao import Nao

__all__ = ["Nao"]
