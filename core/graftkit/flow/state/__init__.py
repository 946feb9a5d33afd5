"""A run while it goes on: its manifest, its stages, what it tells, and from where it goes on."""
