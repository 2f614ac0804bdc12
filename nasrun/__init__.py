"""nasrun: one-shot neural architecture search, the papers' methods side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import os

    from nasrun.model.model import Model

__version__ = "0.1.0"
__all__ = ["__version__", "load"]


def load(path: str | os.PathLike[str], device: str = "cpu") -> Model:
    """Load the network that a search or a retraining has trained::

        model = nasrun.load("outputs/search/RUN")
        for found in model.predict(["cat.jpg", "dog.jpg"]):
            print(found.source, found.name, found.probability)

    path: the directory of a run, or a ``network.safetensors`` from anywhere. The file may be a
    stranger's: it is read as data, and only nasrun's own classes are built (others are named in the
    environment, NASRUN_TRUST). device: cpu, cuda, cuda:N, mps, or auto.
    Raises ``nasrun.errors.UserError``, one line, where it cannot be loaded.
    """
    from nasrun.model.model import load as load_model  # torch takes a second to import

    return load_model(path, device)
