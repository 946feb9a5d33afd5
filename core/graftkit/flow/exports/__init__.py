"""Exports: written, described, and proved by the programs that load them."""
