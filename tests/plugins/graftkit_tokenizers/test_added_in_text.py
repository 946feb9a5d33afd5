"""Added tokens are found in texts where the `tokenizers` library finds them."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from graftkit.interfaces.vocabulary import ExtensionSpec
from graftkit_tokenizers.huggingface import HuggingFaceBackend, HuggingFaceTokenizer
from graftkit_tokenizers.tokenizer_json.added_in_text import AddedInText
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, models, normalizers

Make = Callable[..., HuggingFaceTokenizer]
_FLAGS = ("single_word", "lstrip", "rstrip", "normalized")
_LETTERS = "aAbé ▁^]-\\\n"
_TOKENS = st.dictionaries(
    st.text(_LETTERS, min_size=1, max_size=4),
    st.fixed_dictionaries({flag: st.booleans() for flag in _FLAGS}),
    max_size=6,
).map(lambda tokens: [{"content": content, **flags} for content, flags in tokens.items()])


def distinct(tokens: list[dict[str, Any]]) -> bool:
    """Two tokens that one lowercased text stands for are one pattern to the library, in no stated order."""
    lowered = [token["content"].lower() for token in tokens if token["normalized"]]
    return len(lowered) == len(set(lowered))


def plain(content: str, **flags: bool) -> dict[str, Any]:
    return {"content": content, **dict.fromkeys(_FLAGS, False), **flags}


def by_the_library(tokens: list[dict[str, Any]], text: str, lowers: bool) -> list[tuple[int, int, str]]:
    """What `tokenizers` finds. What lies between is given to a model that knows no word."""
    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    if lowers:
        tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.add_tokens([AddedToken(**token) for token in tokens])
    encoding = tokenizer.encode(text, add_special_tokens=False)
    added = tokenizer.get_added_tokens_decoder()
    found = zip(encoding.offsets, encoding.ids, strict=True)
    return [(*offsets, added[id].content) for offsets, id in found if id in added]


@settings(max_examples=500)
@example([plain("\n"), plain("-", lstrip=True)], "\n-", False).via("white space that a token has is not another's")
@example([plain("-", rstrip=True), plain("\n")], "-\n\n", False).via("white space that a token took in is searched")
@example([plain("a"), plain("ab", single_word=True)], "aba ab", False).via("the longest that fails hides the shorter")
@example([plain("b"), plain("ab", normalized=True)], "ab", False).via("those without normalized come first")
@example([plain("A", normalized=True), plain("b")], "aAbB", True).via("in any case")
@given(_TOKENS.filter(distinct), st.text(_LETTERS, max_size=20), st.booleans())
def test_what_is_found_is_what_the_library_finds(tokens: list[dict[str, Any]], text: str, lowers: bool) -> None:
    found = AddedInText(tokens, lowers=lowers).find(text)
    assert [tuple(place) for place in found] == by_the_library(tokens, text, lowers)


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
