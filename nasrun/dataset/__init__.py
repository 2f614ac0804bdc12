"""Datasets: train, validation and test splits, resident on the device where they fit."""
