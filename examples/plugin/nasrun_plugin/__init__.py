"""A search space and a sampler for nasrun, as an example of a package outside of it."""
