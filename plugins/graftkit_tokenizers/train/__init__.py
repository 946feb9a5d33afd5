"""Backends that learn a tokenizer from texts."""
