"""Search algorithms: ask/tell rules over architectures; no training, no networks of the space."""
