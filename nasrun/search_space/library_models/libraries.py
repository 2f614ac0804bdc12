"""Build classification models of torchvision and of timm by name, without weights of others.

Only names that a library lists are built, so a name from a stranger's file imports nothing else
and loads nothing from the network.
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from types import ModuleType
from typing import Any

from torch import nn

from nasrun.errors import UserError, nearest, shortened
from nasrun.values import Problem


class Library(ABC):
    """A library of models. name: also that of the option of ``search_space``."""

    name: str

    @abstractmethod
    def models(self) -> list[str]:
        """Return the names of all models; raises UserError if the library is not installed."""

    @abstractmethod
    def has_fixed_size(self, model: str) -> bool:
        """Tell whether the model is built for one size of images, as vision transformers are."""

    @abstractmethod
    def build(self, model: str, problem: Problem) -> nn.Module:
        """Build the model for the classes of a problem, without auxiliary heads.

        It reads three channels, unless the library can do otherwise. Raises what the library
        raises if it cannot be built for images of this size.
        """

    def check(self, model: str) -> None:
        """Raise UserError unless the library has the model."""
        known = self.models()
        if model not in known:
            raise UserError(
                f"search_space.model = {shortened(model, 60)}: {self.name} has no such model for "
                f"classification{nearest(model, known)}; it has {len(known)}, such as "
                f"{', '.join(known[:: max(len(known) // 5, 1)][:5])}"
            )


class Torchvision(Library):
    """torchvision, which every installation has."""

    name = "torchvision"

    def models(self) -> list[str]:
        import torchvision

        found: list[str] = torchvision.models.list_models(module=torchvision.models)
        return found

    def has_fixed_size(self, model: str) -> bool:
        return model.startswith(("vit_", "maxvit"))

    def build(self, model: str, problem: Problem) -> nn.Module:
        import torchvision

        options: dict[str, Any] = {}
        if model in ("googlenet", "inception_v3"):
            options = {"aux_logits": False, "init_weights": True}
        if model.startswith("vit_"):
            options = {"image_size": side_of(problem, model)}
        if model.startswith("maxvit"):
            options = {"input_size": (problem.size.height, problem.size.width)}
        with quiet():
            found: nn.Module = torchvision.models.get_model(
                model, weights=None, num_classes=problem.classes, **options
            )
        return found


class Timm(Library):
    """timm, an extra: ``pip install 'nasrun[timm]'``."""

    name = "timm"

    def models(self) -> list[str]:
        return _timm_models()

    def has_fixed_size(self, model: str) -> bool:
        return bool(_timm().get_pretrained_cfg(model).fixed_input_size)

    def build(self, model: str, problem: Problem) -> nn.Module:
        options: dict[str, Any] = {}
        if self.has_fixed_size(model):
            options = {"img_size": (problem.size.height, problem.size.width)}
        with quiet():
            found: nn.Module = _timm().create_model(
                model,
                pretrained=False,
                num_classes=problem.classes,
                in_chans=problem.channels,
                **options,
            )
        return found


def side_of(problem: Problem, model: str) -> int:
    """Return the side of square images; raises UserError over other images."""
    if problem.size.height != problem.size.width:
        raise UserError(
            f"{model} is built for squares, and these images have {problem.size.words} pixels"
        )
    return problem.size.height


@contextmanager
def quiet() -> Iterator[None]:
    """Keep warnings of a library to itself: they are about defaults that are not used here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@cache
def _timm_models() -> list[str]:
    found: list[str] = _timm().list_models()
    return found


def _timm() -> ModuleType:
    try:
        import timm
    except ImportError as error:
        raise UserError(
            "search_space=timm needs timm, which is not installed: pip install 'nasrun[timm]'"
        ) from error
    found: ModuleType = timm
    return found
