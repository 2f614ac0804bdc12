"""Budgets: bounds on what a found network may cost, and architectures sampled within them."""
