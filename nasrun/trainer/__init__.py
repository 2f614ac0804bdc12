"""The one training loop, for supernets and stand-alone networks alike."""
