"""What extending a tokenizer promises. Backends without `extend` declare that, and are asked for nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import accumulate
from pathlib import Path
from typing import ClassVar

import pytest

from graftkit.errors import RequestError
from graftkit.interfaces.tokenizer import Tokenizer, bytes_of
from graftkit.interfaces.vocabulary import ExtendableBackend, ExtensionPlan, ExtensionSpec
from graftkit.testing.contracts.base import Contract, refusal
from graftkit.testing.contracts.texts import TEXTS, random_texts

__all__ = ["TokenizerExtensionContract", "extension_texts"]

_WORDS = (
    "abhead",
    "headbead",
    "deface",
    "bead",
    "a",
    "ab",
    "hello",
    "hellabel",
    "日本語",
    "décor",
    "🎉",
    "aa",
    "dead.",
)


def extension_texts() -> list[str]:
    """Returns texts whose words occur often enough to become tokens, in one script and another."""
    return [" ".join(_WORDS[(place * step) % len(_WORDS)] for place in range(12)) for step in range(1, 40)]


class TokenizerExtensionContract(Contract):
    """Extends the sample, and compares what the two tokenizers make of texts.

    Attributes:
        extension: What is added.
    """

    extension: ClassVar[ExtensionSpec] = ExtensionSpec(tokens=10)

    @pytest.fixture
    def plan(self, tokenizer: Tokenizer) -> ExtensionPlan:
        """The sample, extended."""
        if not tokenizer.capabilities.extendable:
            pytest.skip("this tokenizer declares that it can't be extended")
        return self.extend(tokenizer)

    def extend(
        self, base: Tokenizer, texts: Iterable[str] | None = None, spec: ExtensionSpec | None = None
    ) -> ExtensionPlan:
        """Extends a tokenizer with the provider.

        Args:
            base: The tokenizer.
            texts: What new tokens are learnt from; `extension_texts()` when left out.
            spec: What is asked for; `extension` when left out.
        """
        return self._backend().extend(base, extension_texts() if texts is None else texts, spec or self.extension)

    def test_what_can_be_extended_says_so(self, tokenizer: Tokenizer) -> None:
        """And what can't is refused with an error that a user can read."""
        declared = tokenizer.capabilities
        able = isinstance(self.make(), ExtendableBackend)
        assert able or not declared.extendable, "it declares extendable, but its backend has no method extend"
        assert declared.extendable or not declared.coarsening, "it declares coarsening without being extendable"
        if able and not declared.extendable:
            did = refusal(lambda: self.extend(tokenizer), RequestError)
            assert not did, f"it declares that it can't be extended, so extend must raise a RequestError; it {did}"

    def test_extending_moves_no_id(self, tokenizer: Tokenizer, plan: ExtensionPlan) -> None:
        """Added and special tokens keep theirs; new ids follow without a gap; the base stays as it was."""
        before, size = tokenizer.fingerprint, tokenizer.vocab_size
        new = [token.id for token in plan.tokens]
        assert new == list(range(size, plan.tokenizer.vocab_size)), f"new ids are {new[:3]}..., not {size} and on"
        moved = [id for id in range(size) if bytes_of(tokenizer, id) != bytes_of(plan.tokenizer, id)]
        assert not moved, f"the ids {moved[:5]} stand for something else than before"
        assert plan.tokenizer.special_tokens == tokenizer.special_tokens, "special tokens moved"
        assert tokenizer.fingerprint == before != plan.tokenizer.fingerprint, "the base must be left as it is"

    def test_extending_keeps_the_chat_template(self, tokenizer: Tokenizer) -> None:
        """Its own, or the one that it was given."""
        if not tokenizer.capabilities.extendable:
            return
        given = tokenizer.with_chat_template("{{ messages[0]['content'] }}")
        kept = self.extend(given).tokenizer.chat_template
        assert kept == given.chat_template, f"extended, its chat template {given.chat_template!r} becomes {kept!r}"

    def test_new_tokens_say_what_they_stand_for(self, tokenizer: Tokenizer, plan: ExtensionPlan) -> None:
        """Their bytes, and ids of the base."""
        for token in plan.tokens:
            assert token.data == plan.tokenizer.token_bytes(token.id), f"{token} stands for other bytes"
            assert all(0 <= id < tokenizer.vocab_size for id in token.parts), f"{token} has parts that the base lacks"
            assert len(token.parts) != 1, f"{token} stands for one token of the base"

    def test_a_text_without_new_tokens_is_cut_as_before(self, tokenizer: Tokenizer, plan: ExtensionPlan) -> None:
        """Whatever else is in it."""
        for text in self._extension_probes(tokenizer):
            ids = plan.tokenizer.encode(text)
            if max(ids, default=0) < tokenizer.vocab_size:
                assert ids == tokenizer.encode(text), f"{text!r} uses no new token and becomes other ids than before"

    def test_an_extension_that_coarsens_only_joins(self, tokenizer: Tokenizer, plan: ExtensionPlan) -> None:
        """Where it says so: no text is cut where the base did not cut it."""
        assert plan.coarsens == (tokenizer.capabilities.coarsening and plan.coarsens), "its capabilities deny it"
        parts = {token.id: token.parts for token in plan.tokens}
        for text in self._extension_probes(tokenizer) if plan.coarsens else ():
            ids, base = plan.tokenizer.encode(text), tokenizer.encode(text)
            taken_apart = [part for id in ids for part in parts.get(id, (id,))]
            inside = _cuts(plan.tokenizer, ids) <= _cuts(tokenizer, base)
            assert taken_apart == base or inside, f"{text!r} is cut into {ids}, which joins other tokens than {base}"

    def test_the_plan_counts_what_the_tokenizers_do(self, tokenizer: Tokenizer, plan: ExtensionPlan) -> None:
        """On the texts that were learnt from."""
        uses = Counter(id for text in extension_texts() for id in plan.tokenizer.encode(text))
        wrong = [(token, uses[token.id]) for token in plan.tokens if token.uses != uses[token.id]]
        assert not wrong, f"uses are not as often as the texts have the token: {wrong[:3]}"
        assert plan.tokens_after == sum(uses.values()), "tokens_after is not what encode gives"
        before = sum(len(tokenizer.encode(text)) for text in extension_texts())
        assert plan.base_tokens == before, f"base_tokens is {plan.base_tokens}, but encode gives {before}"

    def test_what_is_learnt_is_a_beginning_of_more(self, tokenizer: Tokenizer, plan: ExtensionPlan) -> None:
        """The first n tokens are those that learning n gives; whatever the order of the texts."""
        if not plan.coarsens:
            return
        texts = reversed(extension_texts())
        fewer = self.extend(tokenizer, _once(texts), replace(self.extension, tokens=self.extension.tokens // 2))
        found = [(token.id, token.data, token.parts) for token in fewer.tokens]
        assert found == [(token.id, token.data, token.parts) for token in plan.tokens[: len(found)]]

    def test_an_extended_tokenizer_is_saved_loaded_and_extended_again(
        self, tokenizer: Tokenizer, plan: ExtensionPlan, tmp_path: Path
    ) -> None:
        """In the format that it uses unasked."""
        folder = tmp_path / "extended"
        folder.mkdir()
        plan.tokenizer.save(folder)
        again: Tokenizer = self.make().load(folder)
        assert again.fingerprint == plan.tokenizer.fingerprint, "its fingerprint is another once saved and loaded"
        for text in self._extension_probes(tokenizer):
            assert again.encode(text) == plan.tokenizer.encode(text), f"{text!r} becomes other ids once loaded"
        more = self.extend(again, ["beadedab beadedab"], ExtensionSpec(tokens=1))
        assert more.tokens[0].id == again.vocab_size, "what was added moved when more was"

    def test_words_become_a_token_each(self, tokenizer: Tokenizer, plan: ExtensionPlan) -> None:
        """And a text without them is as it was."""
        wanted = replace(self.extension, tokens=0, words=("zebrafish", "Quux!"))
        added = self.extend(tokenizer, ["a zebrafish", "Quux! Quux!"], wanted)
        ids = [token.id for token in added.tokens][-2:]
        for word, id in zip(wanted.words, ids, strict=True):
            found = added.tokenizer.encode(word)
            assert id in found, f"encode({word!r}) gives {found}, without the new token {id}"
        for text in self._extension_probes(tokenizer):
            if not set(ids) & set(added.tokenizer.encode(text)):
                self._check_kept(tokenizer, added, text)
        assert [token.uses for token in added.tokens][-2:] == [1, 2], "uses are not as often as the texts have the word"

    def test_what_holds_nothing_to_learn_is_refused(self, tokenizer: Tokenizer, plan: ExtensionPlan) -> None:
        """With an error that a user can read, and so is adding nothing, or nothing that makes sense."""
        requests: list[tuple[str, list[str], ExtensionSpec]] = [
            ("learning from no text", [], ExtensionSpec(5)),
            ("learning from empty texts", ["", ""], ExtensionSpec(5)),
            ("adding nothing", extension_texts(), ExtensionSpec(0, missing_bytes=False)),
            ("an empty word", extension_texts(), ExtensionSpec(0, words=("",))),
        ]
        for what, texts, spec in requests:
            did = refusal(lambda texts=texts, spec=spec: self.extend(tokenizer, texts, spec), RequestError)  # type: ignore[misc]
            assert not did, f"extend must refuse {what} with a RequestError; it {did}"

    def _backend(self) -> ExtendableBackend:
        backend = self.make()
        assert isinstance(backend, ExtendableBackend), f"{type(backend).__name__} has no method extend"
        return backend

    def _check_kept(self, base: Tokenizer, added: ExtensionPlan, text: str) -> None:
        new = {token.id for token in added.tokens}
        found = [id for id in added.tokenizer.encode(text) if id not in new]
        lossless = base.capabilities.lossless_unicode
        assert found == base.encode(text) or not lossless, f"{text!r} has none of the words and becomes other ids"

    def _extension_probes(self, tokenizer: Tokenizer) -> list[str]:
        spelling = [f"a{text} b" for text in tokenizer.special_tokens]
        return [*TEXTS, *extension_texts(), *spelling, *random_texts(80, seed=1)]


def _cuts(tokenizer: Tokenizer, ids: Sequence[int]) -> set[int]:
    """Returns after how many bytes a text was cut."""
    return set(accumulate(len(tokenizer.token_bytes(id)) for id in ids))


def _once(texts: Iterable[str]) -> Iterator[str]:
    yield from texts
