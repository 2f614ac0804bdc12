"""The winner as a product: what its file says of itself, and a model that predicts."""
