"""Evaluators: from architectures to trials."""
