"""The recipe: its schema, and how a file becomes one."""
