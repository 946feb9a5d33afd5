"""The contracts: one for each kind of provider, to be subclassed with a provider's name."""

import pytest

# A failing assertion shows its values here as it does in a test module, and holds under `python -O` too.
_MODULES = (
    "base",
    "samples",
    "quantizer",
    "adapter",
    "tokenizer",
    "tokenizer_extension",
    "tokenizer_training",
    "exporter",
    "model_source",
    "initializer",
)
pytest.register_assert_rewrite(*(f"{__name__}.{module}" for module in _MODULES))
