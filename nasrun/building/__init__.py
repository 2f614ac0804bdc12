"""Build objects from plain configuration nodes, of classes of the allow-list alone."""
