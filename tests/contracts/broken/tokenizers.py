"""Tokenizers that break one promise each and keep the others."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from graftkit.interfaces.tokenizer import Specials, Tokenizer
from graftkit.interfaces.vocabulary import ExtensionPlan, ExtensionSpec
from graftkit_tokenizers.huggingface import HuggingFaceBackend, HuggingFaceTokenizer


class LeakyTokenizer(HuggingFaceTokenizer):
    def encode(self, text: str, specials: Specials = "all") -> list[int]:
        return super().encode(text, specials)


class LeaksSpecials(HuggingFaceBackend):
    tokenizer: type[HuggingFaceTokenizer] = LeakyTokenizer

    def load(self, path: Path) -> HuggingFaceTokenizer:
        loaded = super().load(path)
        return self.tokenizer(loaded._files, str(path))


class LossyTokenizer(HuggingFaceTokenizer):
    def encode(self, text: str, specials: Specials = "none") -> list[int]:
        return super().encode(text.replace("\U0001f9ff", "?"), specials)


class LosesOneCharacter(LeaksSpecials):
    tokenizer = LossyTokenizer


class Piecewise:
    def __init__(self, tokenizer: HuggingFaceTokenizer) -> None:
        self.tokenizer = tokenizer

    def push(self, token: int) -> str:
        return self.tokenizer.decode([token])

    def finish(self) -> str:
        return ""


class PiecewiseTokenizer(HuggingFaceTokenizer):
    def stream_decoder(self) -> Any:
        return Piecewise(self)


class ShowsHalfCharacters(LeaksSpecials):
    tokenizer = PiecewiseTokenizer


class HashedTokenizer(HuggingFaceTokenizer):
    fingerprint = property(lambda self: str(hash("everything")))  # type: ignore[assignment]


class HashesWithASeed(LeaksSpecials):
    tokenizer = HashedTokenizer


class ForgetfulTokenizer(HuggingFaceTokenizer):
    def save(self, folder: Path, format: str = "huggingface") -> None:
        super().save(folder, format)
        config = json.loads((folder / "tokenizer_config.json").read_bytes())
        (folder / "tokenizer_config.json").write_text(json.dumps({**config, "chat_template": "the base's"}))


class SavesTheOldTemplate(LeaksSpecials):
    tokenizer = ForgetfulTokenizer


class LosesTheTemplate(HuggingFaceBackend):
    def extend(self, tokenizer: Tokenizer, texts: Iterable[str], spec: ExtensionSpec) -> ExtensionPlan:
        plan = super().extend(tokenizer, texts, spec)
        return replace(plan, tokenizer=plan.tokenizer.with_chat_template("the base's"))


class ForgetsUses(HuggingFaceBackend):
    def extend(self, tokenizer: Tokenizer, texts: Iterable[str], spec: ExtensionSpec) -> ExtensionPlan:
        plan = super().extend(tokenizer, texts, spec)
        return replace(plan, tokens=tuple(replace(token, uses=1) for token in plan.tokens))


class ChangesOldTexts(HuggingFaceBackend):
    def extend(self, tokenizer: Tokenizer, texts: Iterable[str], spec: ExtensionSpec) -> ExtensionPlan:
        plan = super().extend(tokenizer, texts, spec)
        assert isinstance(plan.tokenizer, HuggingFaceTokenizer)
        splitting = {**plan.tokenizer.spec["pre_tokenizer"], "add_prefix_space": True}
        return replace(plan, tokenizer=plan.tokenizer.with_spec({**plan.tokenizer.spec, "pre_tokenizer": splitting}))


class RenumbersTokens(HuggingFaceBackend):
    """Lets added tokens slide behind the new pieces, as the library does by itself."""

    def extend(self, tokenizer: Tokenizer, texts: Iterable[str], spec: ExtensionSpec) -> ExtensionPlan:
        plan = super().extend(tokenizer, texts, spec)
        assert isinstance(plan.tokenizer, HuggingFaceTokenizer)
        parts = dict(plan.tokenizer.spec)
        names = {token["content"] for token in parts["added_tokens"]}
        pieces = [piece for piece in parts["model"]["vocab"] if piece not in names]
        parts["model"] = {**parts["model"], "vocab": {piece: id for id, piece in enumerate(pieces)}}
        parts["added_tokens"] = [
            {**token, "id": len(pieces) + place} for place, token in enumerate(parts["added_tokens"])
        ]
        return replace(plan, tokenizer=plan.tokenizer.with_spec(parts))
