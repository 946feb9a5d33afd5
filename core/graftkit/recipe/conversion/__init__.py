"""Recipes of what other programs are told."""
