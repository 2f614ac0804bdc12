"""Algorithms that learn mixtures by gradient descent: DARTS and its heirs, made of parts."""
