"""The Modelfile that `ollama create` reads: which file is loaded, when an answer ends, how it is sampled.

The form is that of `docs/modelfile.mdx` in the ollama project, as its `parser/parser.go` reads it. The chat template is
not said again: Ollama takes the one in the GGUF file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from math import isfinite
from typing import Any

from graftkit import TrainedModel
from graftkit.errors import ModelError
from graftkit.interfaces.references import local_path

from graftkit_gguf.stop_tokens import stop_tokens_of

__all__ = ["adapter_modelfile", "model_modelfile", "quoted", "stop_line"]

_SAMPLING = {
    "temperature": ("temperature", float),
    "top_p": ("top_p", float),
    "min_p": ("min_p", float),
    "typical_p": ("typical_p", float),
    "repetition_penalty": ("repeat_penalty", float),
    "top_k": ("top_k", int),
}
"""Key of a generation_config.json -> Ollama's parameter, and its type."""


def model_modelfile(trained: TrainedModel, file: str) -> str:
    """Returns the Modelfile of a whole model.

    Args:
        trained: What was trained.
        file: The GGUF file's name, beside the Modelfile.
    """
    return _text([f"FROM ./{file}", *_settings(trained)])


def adapter_modelfile(trained: TrainedModel, file: str) -> str:
    """Returns the Modelfile of an adapter.

    Of its base model the name of its file or folder stands there, to put the path in the place of: where that lies on
    this machine is nothing to publish.

    Args:
        trained: What was trained.
        file: The adapter's name, beside the Modelfile.
    """
    return _text([*_base(trained.reference), f"ADAPTER ./{file}", *_settings(trained)])


def quoted(text: str) -> str | None:
    r"""Returns a text as the value of an instruction, or None where Ollama would read another one.

    Between triple quotes Ollama keeps spaces and line ends, knows no escapes, and drops what is not printable. It ends
    the value at the first end of a line whose last visible characters are triple quotes.

    Example:
        >>> quoted("one\ntwo").strip('"')
        'one\ntwo'
        >>> quoted("one" + 3 * '"' + "\nFROM elsewhere") is None
        True
    """
    lines = re.split(r"[\r\n]", text)
    printable = all(character.isprintable() or character == "\t" for line in lines for character in line)
    if not printable or any(line.rstrip().endswith('"""') for line in lines[:-1]):
        return None
    return f'"""{text}"""'


def stop_line(token: str) -> str | None:
    """Returns the line that ends an answer at a token, or None where Ollama would read another text."""
    value = quoted(token) if token else None
    return f"PARAMETER stop {value}" if value else None


def _text(lines: list[str]) -> str:
    return "\n".join(lines) + "\n"


def _base(reference: str) -> Iterator[str]:
    try:
        path = local_path(reference)
        value = quoted(f"./{path.name}") if path.name and path.exists() else None
    except (ModelError, OSError, ValueError):
        value = None
    yield "# Put the path of the base model in the place of this name, as a GGUF file or a folder of safetensors."
    yield f"FROM {value or './base.gguf'}"


def _settings(trained: TrainedModel) -> Iterator[str]:
    generation = trained.generation_config
    specials = {id: token for token, id in trained.tokenizer.special_tokens.items()}
    for id in stop_tokens_of(generation):
        token = specials.get(id) or trained.tokenizer.decode([id])
        yield stop_line(token) or f"# The stop token {id} has no form here."
    yield from _sampling(generation)
    if trained.system:
        value = quoted(trained.system)
        yield f"SYSTEM {value}" if value else "# The system message has no form here: say it with each conversation."


def _sampling(generation: Mapping[str, Any]) -> Iterator[str]:
    """Yields the parameters of sampling, where the settings sample; greedy decoding where they say so."""
    sampled = generation.get("do_sample")
    if sampled is False:
        yield "PARAMETER temperature 0"
    for key, (parameter, kind) in _SAMPLING.items() if sampled is True else ():
        value = generation.get(key)
        if isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value):
            yield f"PARAMETER {parameter} {kind(value)!r}"
