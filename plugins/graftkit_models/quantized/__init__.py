"""Weights that a Hugging Face folder holds quantized: which tensors make a matrix, and what its numbers are."""
