"""Search algorithms: ask/tell rules over architectures, without training and networks."""
