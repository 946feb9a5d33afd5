"""The parsers that take files from strangers, each with a generator of inputs in `hostile.generators`."""

from __future__ import annotations

import importlib
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

__all__ = ["LONG_MESSAGES_PENDING", "PARSERS", "Parser", "parser_named"]

LONG_MESSAGES_PENDING = False
"""Whether messages that fill more than a screen are left out of the faults, as `PENDING` leaves out kinds of change."""

PARSERS: dict[str, str] = {
    "safetensors": "safetensors_files",
    "gguf": "gguf_files",
    "tokenizer.json": "tokenizer_json",
    "sentencepiece": "sentencepiece_models",
    "vocabularies": "vocabularies",
    "config.json": "config_json",
    "chat templates": "chat_templates",
    "recipes": "recipes",
    "records": "records",
    "adapters": "adapters",
    "exports": "exports",
    "gguf exports": "gguf_exports",
    "checkpoints": "checkpoints",
}
"""A parser's name and the module in `hostile.generators` that makes its inputs.

Such a module has `make(draw, folder)`, which writes an input and returns the kinds of change in it, `valid(folder)`,
which writes one without changes, and `read(folder)`, which calls graftkit as a command would and uses what it returns:
it returns if the input was accepted and is usable, and lets graftkit's own errors pass. It may have `prepare(folder)`,
called once in each process, `NAMED`, what an error may name in place of the input's folder, and `AT_ONCE`, how many
inputs a process takes. `PENDING` are the kinds of change whose faults are known and not yet mended.
"""


@dataclass(frozen=True)
class Parser:
    """A parser and what makes its inputs; see `PARSERS`."""

    name: str
    make: Callable[[random.Random, Path], list[str]]
    valid: Callable[[Path], None]
    read: Callable[[Path], None]
    prepare: Callable[[Path], None]
    named: tuple[str, ...]
    at_once: int


def parser_named(name: str) -> Parser:
    """Returns a parser.

    Raises:
        KeyError: None is called so.
    """
    module: ModuleType = importlib.import_module(f"hostile.generators.{PARSERS[name]}")
    return Parser(
        name,
        module.make,
        module.valid,
        module.read,
        getattr(module, "prepare", lambda folder: None),
        getattr(module, "NAMED", ()),
        getattr(module, "AT_ONCE", 2000),
    )
