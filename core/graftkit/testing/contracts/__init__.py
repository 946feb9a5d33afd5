"""The contracts: one for each kind of provider, to be subclassed with a provider's name."""

import pkgutil

import pytest

# A failing assertion shows its values here as it does in a test module, and holds under `python -O` too.
pytest.register_assert_rewrite(*(f"{__name__}.{module.name}" for module in pkgutil.iter_modules(__path__)))
