"""What the command line can be asked to do: search, retrain; each reads top to bottom."""
