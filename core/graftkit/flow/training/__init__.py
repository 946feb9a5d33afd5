"""Training and evaluation, and what is looked at meanwhile."""
