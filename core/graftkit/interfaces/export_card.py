"""What an exporter may say for the model card of an export: what loads it, and how."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

__all__ = ["CardExporter", "CardRequest", "ExportCard", "LoadingExample"]


@dataclass(frozen=True, slots=True)
class LoadingExample:
    """How a program loads an export.

    Attributes:
        program: The program's name.
        language: The language of the code, as Markdown names it: "python", "sh".
        code: What to run in the export's folder, complete.
    """

    program: str
    language: str
    code: str


@dataclass(frozen=True, slots=True)
class ExportCard:
    """What a model card says of a format. Strings are shown as plain text, code as code.

    Attributes:
        library: The hub's `library_name`: "peft", "transformers", "gguf", ...
        relation: What the export is to the base model, as the hub names it.
        tags: Further tags.
        loading: How the programs load it that do, each by an example.
        notes: Sentences on what else a reader should know.
    """

    library: str
    relation: Literal["adapter", "finetune", "quantized", "merge"]
    tags: Sequence[str] = ()
    loading: Sequence[LoadingExample] = ()
    notes: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class CardRequest:
    """What examples are written for.

    Attributes:
        folder: The export, complete.
        base: What the base model is loaded by once it lies beside the program, `./NAME`, or its id on the hub.
        chat: Whether it is asked in its chat template.
    """

    folder: Path
    base: str
    chat: bool

    def python(self, imports: Sequence[str], load: str) -> str:
        """Returns a program that asks a `transformers` model and prints the answer.

        Args:
            imports: Lines of imports.
            load: Lines that make `tokenizer` and `model`.
        """
        ask = _IN_THE_TEMPLATE if self.chat else 'inputs = tokenizer("Hello", return_tensors="pt")\n'
        return "\n".join(imports) + f"\n\n{load}\n{ask}{_ANSWER}"

    def load_base(self) -> str:
        """Returns the arguments of `AutoModelForCausalLM.from_pretrained` for the base model."""
        place = Path(self.base)
        if place.suffix.lower() == ".gguf":
            return f"{_quoted(str(place.parent))}, gguf_file={_quoted(place.name)}"
        return _quoted(self.base)


_IN_THE_TEMPLATE = """messages = [{"role": "user", "content": "Hello"}]
inputs = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True, return_tensors="pt")
"""

_ANSWER = """output = model.generate(**inputs, max_new_tokens=256)
print(tokenizer.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))
"""


def _quoted(text: str) -> str:
    """Returns a text as a literal of Python, in ASCII where it has anything that a page would obey."""
    return json.dumps(text, ensure_ascii=re.search(r"[^\w\s./\\:@+-]", text) is not None)


@runtime_checkable
class CardExporter(Protocol):
    """What an exporter may have besides, so that the card of its exports says how they are loaded."""

    def card(self, request: CardRequest) -> ExportCard:
        """Returns what the model card says of this format. Core writes the card; the folder stays as it is."""
