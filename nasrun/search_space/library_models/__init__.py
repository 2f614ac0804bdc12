"""Models of torchvision and timm as search spaces of one network each: contestants."""

from nasrun.search_space.library_models.space import TimmModel, TorchvisionModel

__all__ = ["TimmModel", "TorchvisionModel"]
