"""Search spaces: decisions, supernets, stand-alone networks, costs."""
