"""The first import of transformers, which several threads may need at once."""

from __future__ import annotations

__all__ = ["import_transformers"]


def import_transformers() -> None:
    """Imports transformers, or waits until another thread has; call it before names are taken from it.

    transformers puts another module in its own place while it is imported. `from transformers import X` in a second
    thread waits, too, but then looks for the name in the module that was there before, which lacks it.
    """
    import transformers  # noqa: F401
