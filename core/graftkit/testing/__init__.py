"""What plugin authors, and graftkit's own tests, build tests with."""

from __future__ import annotations

from graftkit.testing.tiny import tiny_model_folder, tiny_tokenizer_files

__all__ = ["tiny_model_folder", "tiny_tokenizer_files"]
