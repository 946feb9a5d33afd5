"""Vocabularies on their own: what a new one would save, how several compare, which rows of a model it keeps."""
