"""What plugins are proved with, by their authors and here: a contract for each kind, tiny models to try them on.

```python
from graftkit.testing import QuantizerContract

class TestTernary(QuantizerContract):
    provider = "ternary"
```

pytest runs the contract's tests on the provider. They need the extra `testing`; importing this package loads neither
pytest nor torch until a contract is used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from graftkit.interfaces.kinds import KINDS

if TYPE_CHECKING:
    from graftkit.testing.contracts.adapter import AdapterContract as AdapterContract
    from graftkit.testing.contracts.base import Contract as Contract
    from graftkit.testing.contracts.base import deviates as deviates
    from graftkit.testing.contracts.callback import CallbackContract as CallbackContract
    from graftkit.testing.contracts.exporter import ExporterContract as ExporterContract
    from graftkit.testing.contracts.initializer import InitializerContract as InitializerContract
    from graftkit.testing.contracts.metric import MetricContract as MetricContract
    from graftkit.testing.contracts.model_source import ModelSourceContract as ModelSourceContract
    from graftkit.testing.contracts.quantizer import QuantizerContract as QuantizerContract
    from graftkit.testing.contracts.reader import ReaderContract as ReaderContract
    from graftkit.testing.contracts.record_format import FormatContract as FormatContract
    from graftkit.testing.contracts.tokenizer import TokenizerContract as TokenizerContract
    from graftkit.testing.contracts.tokenizer_training import TrainedTokenizerContract as TrainedTokenizerContract
    from graftkit.testing.example_records import tiny_records as tiny_records
    from graftkit.testing.hosts import isolated_host as isolated_host
    from graftkit.testing.tiny import TINY_CONFIG as TINY_CONFIG
    from graftkit.testing.tiny import TINY_SHAPES as TINY_SHAPES
    from graftkit.testing.tiny import tiny_model_folder as tiny_model_folder
    from graftkit.testing.tiny import tiny_tokenizer_files as tiny_tokenizer_files

_HOMES = {
    "Contract": "graftkit.testing.contracts.base",
    "TINY_CONFIG": "graftkit.testing.tiny",
    "TINY_SHAPES": "graftkit.testing.tiny",
    "TrainedTokenizerContract": "graftkit.testing.contracts.tokenizer_training",
    "deviates": "graftkit.testing.contracts.base",
    "isolated_host": "graftkit.testing.hosts",
    "tiny_model_folder": "graftkit.testing.tiny",
    "tiny_records": "graftkit.testing.example_records",
    "tiny_tokenizer_files": "graftkit.testing.tiny",
}


def _homes_of_contracts() -> dict[str, str]:
    """Returns the module that each kind's contract lies in, by the contract's name."""
    targets = (spec.contract.partition(":") for spec in KINDS.values())
    return {name: module for module, _, name in targets}


__all__ = sorted([*_HOMES, *_homes_of_contracts()])


def __getattr__(name: str) -> Any:
    homes = _HOMES | _homes_of_contracts()
    if name not in homes:
        raise AttributeError(f"module 'graftkit.testing' has no attribute {name!r}")
    return getattr(importlib.import_module(homes[name]), name)


def __dir__() -> list[str]:
    return list(__all__)
