"""The training loop of supernets and stand-alone networks."""
