"""Compose a configuration, explain mistakes in it, and build the objects that it names."""
