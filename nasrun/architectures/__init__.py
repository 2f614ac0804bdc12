"""Which architectures are measured: all of a space, or a sample of it."""
