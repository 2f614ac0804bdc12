"""Budgets: bounds on what a found network may cost, and architectures drawn within them."""
