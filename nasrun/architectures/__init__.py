"""Rules that choose the architectures to be measured: all of a space, or a sample of it."""
