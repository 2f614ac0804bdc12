"""Algorithms that learn mixtures: DARTS, PC-DARTS, P-DARTS, SNAS and ProxylessNAS."""
