"""Samplers: which gates one training step of the supernet opens."""
