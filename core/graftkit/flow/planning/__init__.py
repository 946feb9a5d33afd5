"""A recipe checked and planned, from files alone."""
