"""Samplers: rules that choose the gates of each training step of a supernet."""
