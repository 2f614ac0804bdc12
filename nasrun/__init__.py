"""nasrun: one-shot neural architecture search, the papers' methods side by side."""

__version__ = "0.1.0"
