"""Tokenizers that a tokenizer.json describes: encoding, decoding, streaming, and what its parts promise."""
