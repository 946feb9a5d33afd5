"""Added tokens are found in texts where one regular expression of all of them would find them."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Any

from graftkit.interfaces.vocabulary import ExtensionSpec
from graftkit_tokenizers.huggingface import HuggingFaceBackend, HuggingFaceTokenizer
from graftkit_tokenizers.tokenizer_json.added_in_text import AddedInText
from hypothesis import given, settings
from hypothesis import strategies as st

Make = Callable[..., HuggingFaceTokenizer]
_FLAGS = ("single_word", "lstrip", "rstrip", "normalized")
_LETTERS = "aAbé ▁^]-\\\n"
_TOKENS = st.dictionaries(
    st.text(_LETTERS, min_size=1, max_size=4),
    st.fixed_dictionaries({flag: st.booleans() for flag in _FLAGS}),
    max_size=6,
).map(lambda tokens: [{"content": content, **flags} for content, flags in tokens.items()])


def by_one_expression(tokens: list[dict[str, Any]], text: str, lowers: bool) -> list[tuple[int, int, str]]:
    ordered = sorted(tokens, key=lambda token: len(token["content"]), reverse=True)
    parts = []
    for token in ordered:
        part = f"({re.escape(token['content'])})"
        part = f"(?i:{part})" if lowers and token["normalized"] else part
        part = rf"(?<!\w){part}(?!\w)" if token["single_word"] else part
        parts.append((r"\s*" if token["lstrip"] else "") + part + (r"\s*" if token["rstrip"] else ""))
    matches = re.finditer("|".join(parts), text) if parts else ()
    return [(*match.span(), ordered[match.lastindex - 1]["content"]) for match in matches]  # type: ignore[operator]


@settings(max_examples=500, deadline=None)
@given(_TOKENS, st.text(_LETTERS, max_size=20), st.booleans())
def test_what_is_found_is_what_one_expression_finds(tokens: list[dict[str, Any]], text: str, lowers: bool) -> None:
    found = AddedInText(tokens, lowers=lowers).find(text)
    assert [tuple(place) for place in found] == by_one_expression(tokens, text, lowers)


def test_thousands_of_added_tokens_are_extended_as_soon_as_a_few(make: Make) -> None:
    def add(spec: dict[str, Any]) -> None:
        size = spec["added_tokens"][-1]["id"] + 1
        like = {**spec["added_tokens"][0], "special": False}
        spec["added_tokens"] += [{**like, "id": size + n, "content": f"<unused{n}>"} for n in range(6000)]

    base = make("byte_level", add)
    texts = [f"the number {n} and the number {n + 1}, said <unused{2 * n}> the teacher" for n in range(1500)]
    start = time.monotonic()
    plan = HuggingFaceBackend().extend(base, texts, ExtensionSpec(20))
    assert time.monotonic() - start < 20, "it takes half a second; as one regular expression it took minutes"
    assert len(plan.tokens) == 20 and plan.tokens[0].id == base.vocab_size
