"""Search algorithms: ask for scores of architectures and learn from them."""
