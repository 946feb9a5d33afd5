"""What an exporter may say for the model card of an export: what loads it, and how."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

from graftkit.interfaces.architecture import SCORING, SEVERAL_LABELS, Head, PooledBy

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
        head: What it has on its hidden states.
        labels: Of a head that gives scores, what these are of; empty for the one score of a reward model. A single one
            is the name of a number, unless a text may have `several`.
        pad: The id of the padding token that the base model is given with such a head, if any.
        several: Whether a text may have several of the labels, each of which is judged by itself.
        pairs: Whether it was trained on pairs of texts.
        pooled_by: What a sequence's vector is made of, of a model that gives vectors.
        prompts: What was put before texts, by what they are, `query` or `document`, likewise.
    """

    folder: Path
    base: str
    chat: bool
    head: Head = "language"
    labels: Sequence[str] = ()
    pad: int | None = None
    several: bool = False
    pairs: bool = False
    pooled_by: PooledBy | None = None
    prompts: Mapping[str, str] = field(default_factory=dict)

    @property
    def names(self) -> str:
        """What is imported of `transformers` to load such models, and to ask them."""
        return f"{self.auto_class}, AutoTokenizer" + (", pipeline" if self.head == "token" else "")

    @property
    def auto_class(self) -> str:
        """The class of `transformers` that loads such models."""
        return {
            "language": "AutoModelForCausalLM",
            "sequence": "AutoModelForSequenceClassification",
            "token": "AutoModelForTokenClassification",
            "masked": "AutoModelForMaskedLM",
            "embedding": "AutoModel",
        }[self.head]

    def python(self, imports: Sequence[str], load: str) -> str:
        """Returns a program that asks a `transformers` model and prints the answer, or the scores of a text.

        Args:
            imports: Lines of imports.
            load: Lines that make `tokenizer` and `model`.
        """
        if self.head == "language":
            ask, answer = _IN_THE_TEMPLATE if self.chat else _PLAINLY, _ANSWER
        elif self.head == "token":
            ask, answer = "", _TAGGED
        elif self.head == "masked":
            ask, answer = _WITH_A_MASK, _FILLED
        elif self.head == "embedding":
            text = repr(next(iter(self.prompts.values()), "") + "Hello")
            ask = f'inputs = tokenizer({text}, return_tensors="pt")\n'
            answer = _VECTOR[self.pooled_by or "mean"]
        else:
            ask, answer = (
                _OF_A_PAIR if self.pairs else _WITH_AN_ANSWER if self.chat else _PLAINLY,
                _REWARD if len(self.labels) < 2 and not self.several else _LABELS,
            )
            answer = answer.replace("softmax(0)", "sigmoid()") if self.several else answer
        return "\n".join(imports) + f"\n\n{load}\n{ask}{answer}"

    def load_base(self) -> str:
        """Returns the arguments of `from_pretrained` for the base model: which, and with which head."""
        named = dict(enumerate(self.labels))
        kept: dict[str, Any] = {"pad_token_id": self.pad} if self.pad is not None else {}
        kept |= {"problem_type": SEVERAL_LABELS} if self.several else {}
        head = {**({"id2label": named} if named else {"num_labels": 1}), **kept} if self.head in SCORING else {}
        return ", ".join([self._base(), *(f"{name}={value!r}" for name, value in head.items())])

    def _base(self) -> str:
        place = Path(self.base)
        if place.suffix.lower() == ".gguf":
            return f"{_quoted(str(place.parent))}, gguf_file={_quoted(place.name)}"
        return _quoted(self.base)


_PLAINLY = 'inputs = tokenizer("Hello", return_tensors="pt")\n'

_OF_A_PAIR = 'inputs = tokenizer("Hello", "Hi!", return_tensors="pt")\n'

_WITH_AN_ANSWER = """messages = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi!"}]
inputs = tokenizer.apply_chat_template(messages, return_dict=True, return_tensors="pt")
"""

_WITH_A_MASK = """inputs = tokenizer(f"Hello {tokenizer.mask_token}", return_tensors="pt")
"""

_TAGGED = """tagger = pipeline("token-classification", model=model, tokenizer=tokenizer, aggregation_strategy="first")
for entity in tagger("Ada Lovelace lives in London."):
    print(entity["word"], entity["entity_group"], entity["score"])
"""

_FILLED = """place = inputs["input_ids"][0].tolist().index(tokenizer.mask_token_id)
for token in model(**inputs).logits[0, place].topk(5).indices:
    print(tokenizer.decode(token))
"""

_LABELS = """for label, share in enumerate(model(**inputs).logits[0].softmax(0).tolist()):
    print(model.config.id2label[label], share)
"""

_OF_STATES: Mapping[PooledBy, str] = {"mean": ".mean(0)", "cls": "[0]", "lasttoken": "[-1]"}

_VECTOR: Mapping[PooledBy, str] = {
    by: f"""vector = model(**inputs).last_hidden_state[0]{of}
print((vector / vector.norm()).tolist())
"""
    for by, of in _OF_STATES.items()
}

_REWARD = """print(model(**inputs).logits[0].item())
"""

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
