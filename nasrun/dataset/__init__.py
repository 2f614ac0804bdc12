"""Datasets: train, validation and test splits, resident on the device if they fit."""
