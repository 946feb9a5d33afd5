"""A tokenizer of a test's own added tokens, chat template and settings, as graftkit and as transformers read it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from graftkit import Tokenizer
from graftkit.corpus.encode import Encoder
from graftkit.corpus.tokenizer_template import chat_template_of
from graftkit.interfaces.samples import Conversation, Message
from graftkit.testing import tiny_tokenizer_files
from graftkit.tokenization.tokenizer_json import added_token
from graftkit_tokenizers.huggingface import HuggingFaceBackend
from transformers import AutoTokenizer

__all__ = ["Pair", "asked"]


class Pair:
    """A tokenizer's files, as graftkit and as transformers read them."""

    def __init__(
        self,
        folder: Path,
        template: str,
        added: Mapping[str, Mapping[str, bool]],
        **config: Any,
    ) -> None:
        files = tiny_tokenizer_files()
        spec = json.loads(files["tokenizer.json"])
        first = max(token["id"] for token in spec["added_tokens"]) + 1
        spec["added_tokens"] += [
            added_token(first + place, text, **{"special": False, **flags})
            for place, (text, flags) in enumerate(added.items())
        ]
        settings = {**json.loads(files["tokenizer_config.json"]), "chat_template": template, **config}
        files |= {"tokenizer.json": json.dumps(spec).encode(), "tokenizer_config.json": json.dumps(settings).encode()}
        for name, data in files.items():
            if name != "chat_template.jinja":
                (folder / name).write_bytes(data)
        self.ours: Tokenizer = HuggingFaceBackend().load(folder)
        self.theirs = AutoTokenizer.from_pretrained(folder)
        self.encoder = Encoder(self.ours, chat_template_of(self.ours), 4096)
        self.ids = {token["content"]: int(token["id"]) for token in spec["added_tokens"]}

    def trained(self, *messages: Message) -> list[int]:
        [example] = self.encoder.encode(Conversation(messages, "a.jsonl:1")).examples
        found: list[int] = example.ids.tolist()
        return found

    def learnt(self, *messages: Message) -> list[int]:
        [example] = self.encoder.encode(Conversation(messages, "a.jsonl:1")).examples
        found: list[int] = example.ids[example.loss_mask].tolist()
        return found

    def expected(self, *messages: Message, **options: Any) -> list[int]:
        turns = [
            {"role": m.role, "content": m.content, **({"reasoning_content": m.reasoning} if m.reasoning else {})}
            for m in messages
        ]
        found: list[int] = self.theirs.apply_chat_template(turns, tokenize=True, return_dict=False, **options)
        return found


def asked(text: str, answer: str = "yes") -> tuple[Message, Message]:
    return Message("user", text), Message("assistant", answer)
