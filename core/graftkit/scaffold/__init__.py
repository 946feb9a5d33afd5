"""Starts a plugin of somebody's own, and tests one that is installed."""
