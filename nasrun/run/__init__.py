"""The run directory: configuration, metrics, checkpoints, results; progress on the screen."""
