"""What every backend that learns tokenizers promises, beyond what holds for those that it loads."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from graftkit.errors import RequestError
from graftkit.interfaces.tokenizer import NamedTemplates, Tokenizer
from graftkit.interfaces.vocabulary import TrainableBackend, TrainingSpec
from graftkit.testing.contracts.base import check_interface, refusal
from graftkit.testing.contracts.texts import TEXTS, random_texts
from graftkit.testing.contracts.tokenizer import TokenizerContract, files_in
from graftkit.testing.fresh import call_fresh

__all__ = ["TrainedTokenizerContract", "training_texts"]

_WORDS = (
    *("the", "user", "asks,", "a", "system", "answers:", "heat", "heating", "heater", "12", "365", "lamp", "lamps"),
    *("für", "straße", "日本", "日本語", "и", "мир", "мира"),
)


def training_texts() -> list[str]:
    """Returns texts of several scripts with words that occur often, rarely and once, and that spell special tokens."""
    lines = [" ".join(_WORDS[(place * step) % len(_WORDS)] for place in range(9)) for step in range(1, 60)]
    code = [f"def f{n}(x):\n    return {{'a': [{n}, 2.5e-3]}}\n" for n in range(20)]
    return [*TEXTS, *lines, *code, *random_texts(40), "<|im_end|><|im_end|> <0x41> <0x41>"]


class TrainedTokenizerContract(TokenizerContract):
    """Trains a tokenizer, and puts it through everything that a loaded one must keep.

    Attributes:
        spec: What is learnt. One of its special tokens is a word of the texts.

    Example:
        >>> class TestByteLevel(TrainedTokenizerContract):
        ...     provider = "byte-level"
    """

    spec: ClassVar[TrainingSpec] = TrainingSpec(
        vocab_size=720,
        special_tokens=("<|bos|>", "<|im_end|>", "<pad>", "system"),
        roles={"bos": "<|bos|>", "eos": "<|im_end|>", "pad": "<pad>"},
        adds_bos=True,
        chat_template="{% for message in messages %}{{ message['content'] }}{% endfor %}",
        named_templates={"tool_use": "{{ messages[0]['content'] }}{{ tools }}"},
    )

    _sample: ClassVar[dict[str, bytes]]

    def write_sample(self, folder: Path) -> None:
        """Trains a tokenizer, once a class, and saves it."""
        known = vars(type(self)).get("_sample")
        if known is None:
            self.train(training_texts()).save(folder)
            type(self)._sample = files_in(folder)
        for name, data in (known or {}).items():
            (folder / name).write_bytes(data)

    def train(self, texts: Iterable[str], spec: TrainingSpec | None = None) -> Tokenizer:
        """Trains a tokenizer with the provider."""
        backend = self.make()
        assert isinstance(backend, TrainableBackend), f"{type(backend).__name__} has no method train"
        return backend.train(texts, spec or self.spec)

    def test_what_it_trains_is_a_tokenizer(self, tokenizer: Tokenizer) -> None:
        """One that says so, and the same as after saving and loading."""
        trained = self.train(training_texts())
        check_interface(trained, Tokenizer)
        assert trained.capabilities.trainable, "it was trained, but its capabilities say that it can't be"
        assert trained.capabilities == tokenizer.capabilities, "it declares something else once saved and loaded"
        assert trained.fingerprint == tokenizer.fingerprint, "its fingerprint is another once saved and loaded"
        self._check_same(trained, tokenizer, "once saved and loaded")

    def test_special_tokens_get_the_first_ids(self, tokenizer: Tokenizer) -> None:
        """In the order asked for, with their roles; the text that spells one stays text."""
        wanted = self.spec.special_tokens
        assert list(tokenizer.special_tokens.items())[: len(wanted)] == [(token, id) for id, token in enumerate(wanted)]
        for role, token in self.spec.roles.items():
            found = tokenizer.role_token(role)  # type: ignore[arg-type]
            assert found == wanted.index(token), f"role_token({role!r}) is {found}, not that of {token}"
        assert tokenizer.adds_bos == self.spec.adds_bos, "adds_bos is not what was asked for"
        assert tokenizer.chat_template == self.spec.chat_template, "the chat template is another one"
        named = tokenizer.chat_templates if isinstance(tokenizer, NamedTemplates) else {}
        lost = self.spec.named_templates.keys() - named.keys()
        assert not lost, f"the chat template {min(lost)!r} is lost"

    def test_no_vocabulary_is_larger_than_asked_for(self) -> None:
        """And ids have no gap."""
        for size in (self.spec.vocab_size, self.spec.vocab_size - 1, 5000):
            trained = self.train(training_texts(), replace(self.spec, vocab_size=size))
            assert len(self.spec.special_tokens) < trained.vocab_size <= size, f"{trained.vocab_size} ids, not {size}"
            assert all(trained.token_bytes(id) for id in range(trained.vocab_size)), "an id stands for nothing"

    def test_the_order_of_the_texts_does_not_matter(self, tokenizer: Tokenizer) -> None:
        """Nor whether they come from a list or one by one."""
        trained = self.train(_once(reversed(training_texts())))
        assert trained.fingerprint == tokenizer.fingerprint, "the same texts in another order give another tokenizer"

    def test_every_process_trains_the_same(self, tokenizer: Tokenizer) -> None:
        """Whatever PYTHONHASHSEED is, on one thread or on all."""
        again = self.train(training_texts(), TrainingSpec(self.spec.vocab_size, self.spec.special_tokens))
        for seed, threads in (("0", "false"), ("1", "true")):
            environment = {"PYTHONHASHSEED": seed, "TOKENIZERS_PARALLELISM": threads, "RAYON_NUM_THREADS": "2"}
            arguments = (self.choice.facts(), training_texts(), self.spec.vocab_size, self.spec.special_tokens)
            found = call_fresh("graftkit.testing.training_errand:train", *arguments, **environment)
            assert found == again.fingerprint, f"another process trains another tokenizer: {environment}"

    def test_what_cannot_be_learnt_is_refused(self) -> None:
        """With an error that a user can read."""
        wrong = {
            "a vocabulary with no room for text": replace(self.spec, vocab_size=len(self.spec.special_tokens)),
            "a special token twice": replace(self.spec, special_tokens=(*self.spec.special_tokens, "<pad>")),
            "an empty special token": replace(self.spec, special_tokens=(*self.spec.special_tokens, "")),
            "a role of no special token": replace(self.spec, roles={"eos": "<none>"}),
            "a first token that is none": replace(self.spec, roles={}, adds_bos=True),
        }
        for what, spec in wrong.items():
            did = refusal(lambda spec=spec: self.train(training_texts(), spec), RequestError)  # type: ignore[misc]
            assert not did, f"train must refuse {what} with a RequestError; it {did}"
        for texts in ([], ["", ""]):
            did = refusal(lambda texts=texts: self.train(texts), RequestError)  # type: ignore[misc]
            assert not did, f"train must refuse to learn from nothing with a RequestError; it {did}"


def _once(texts: Iterable[str]) -> Iterator[str]:
    yield from texts
