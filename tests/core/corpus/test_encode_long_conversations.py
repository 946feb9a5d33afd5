"""The time to encode a conversation grows with its length, not with the square of its turns."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import cache
from itertools import pairwise
from typing import Any

import pytest
from graftkit.corpus import encode as encode_module
from graftkit.corpus.encode import Encoder, chat_template_of
from graftkit.interfaces.samples import Conversation, Message
from graftkit.testing import tiny_tokenizer_files
from graftkit_tokenizers.tokenizer_json.tokenizer import HuggingFaceTokenizer
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

PLAIN = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"


SPACED = "{% for m in messages %}{{ 'User' if m.role == 'user' else 'Assistant' }}: {{ m.content }}\n{% endfor %}"
"""Where a space ends the prompt, which joins the answer's first word in use by nobody."""
LINES = "{% for m in messages %}### {{ m.role }}:\n{{ m.content }}\n\n{% endfor %}"
ONE_SPECIAL = "<|endoftext|>" + LINES
GLUED = "{% for m in messages %}{{ m.content }}{% endfor %}"


class _Counting(HuggingFaceTokenizer):
    """Counts the characters that it is asked to encode."""

    characters = 0

    def encode(self, text: str, specials: Any = "none") -> list[int]:
        self.characters += len(text)
        return super().encode(text, specials)

    def encode_offsets(self, text: str, specials: Any = "none") -> Any:
        self.characters += len(text)
        return super().encode_offsets(text, specials)


def conversation(turns: int, characters: int = 400) -> Conversation:
    contents = (f"{n} " + "word " * (characters // 5) for n in range(turns))
    return Conversation(tuple(Message(("user", "assistant")[n % 2], text) for n, text in enumerate(contents)), "x")


def tokenizer() -> _Counting:
    return _Counting(tiny_tokenizer_files())


@pytest.mark.parametrize("turns", [20, 200, 1000])
def test_it_encodes_each_character_a_few_times(turns: int) -> None:
    counting = tokenizer()
    encoder = Encoder(counting, chat_template_of(counting), 1 << 30)
    (example,) = encoder.encode(conversation(turns)).examples
    assert counting.characters < 4 * len(counting.decode(example.ids.tolist()))


@pytest.mark.parametrize("turns", [2, 20])
def test_it_gives_what_whole_prefixes_give(turns: int) -> None:
    counting = tokenizer()
    encoder, exact = (Encoder(counting, chat_template_of(counting), 1 << 30) for _ in range(2))
    exact._cuts_hold = False
    ours, theirs = (one.encode(conversation(turns)).examples[0] for one in (encoder, exact))
    assert ours.ids.tolist() == theirs.ids.tolist()
    assert ours.supervised.tolist() == theirs.supervised.tolist()
    assert encoder._cuts_hold


def test_thousands_of_turns_without_special_tokens_need_no_deep_stack() -> None:
    counting = tokenizer().with_chat_template(PLAIN)
    encoder = Encoder(counting, chat_template_of(counting), 1 << 30)
    assert encoder.encode(conversation(2400, 10)).examples


WORDS = [
    "the",
    "quick",
    "brown",
    "fox",
    "jumps",
    "over",
    "lazy",
    "dogs",
    "while",
    "1984",
    "people",
    "watch,",
    "naïvely:",
    "ünïcode!",
    "東京",
    "and",
    "x=f(y);",
    "",
]


def chatter(turns: int, words: int = 12, seed: int = 1) -> Conversation:
    draw = random.Random(seed)
    contents = (" ".join(draw.choice(WORDS) for _ in range(draw.randint(1, words))).strip() for _ in range(turns))
    return Conversation(
        tuple(Message(("user", "assistant")[n % 2], text or "x") for n, text in enumerate(contents)), "x"
    )


def _learnt(model: Any, trainer: Any, pre_tokenizer: Any, normalizer: Any, decoder: Any) -> bytes:
    learner = Tokenizer(model)
    learner.normalizer, learner.decoder = normalizer, decoder
    if pre_tokenizer is not None:
        learner.pre_tokenizer = pre_tokenizer
    learner.train_from_iterator(
        [m.content for m in chatter(300, 30).messages] + ["### user:\nUser: Assistant: "], trainer
    )
    return str(learner.to_str()).encode()


@cache
def kinds() -> dict[str, Callable[[], bytes]]:
    specials = ["<unk>", "<|endoftext|>"]
    metaspace = pre_tokenizers.Metaspace("▁", "first")
    llama = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    bpe = trainers.BpeTrainer(vocab_size=600, special_tokens=specials, show_progress=False)
    bytewise = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=specials,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    unigram = trainers.UnigramTrainer(vocab_size=200, special_tokens=specials, unk_token="<unk>", show_progress=False)
    wordpiece = trainers.WordPieceTrainer(vocab_size=400, special_tokens=["[UNK]", *specials], show_progress=False)
    bytes_in, bytes_out = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    marks = decoders.Metaspace()

    def pieces() -> Any:
        return models.BPE(unk_token="<unk>", fuse_unk=True)

    return {
        "byte-level": lambda: _learnt(models.BPE(), bytewise, bytes_in, normalizers.NFC(), bytes_out),
        "metaspace": lambda: _learnt(pieces(), bpe, metaspace, normalizers.NFKC(), marks),
        "whole text": lambda: _learnt(pieces(), bpe, None, llama, marks),
        "unigram": lambda: _learnt(models.Unigram(), unigram, metaspace, normalizers.NFKC(), marks),
        "wordpiece": lambda: _learnt(
            models.WordPiece(unk_token="[UNK]"),
            wordpiece,
            pre_tokenizers.BertPreTokenizer(),
            normalizers.BertNormalizer(),
            decoders.WordPiece(),
        ),
    }


@cache
def _data(kind: str) -> bytes:
    return kinds()[kind]()


def learnt(kind: str, template: str) -> _Counting:
    return _Counting({"tokenizer.json": _data(kind)}).with_chat_template(template)


TEMPLATES = {"spaced": SPACED, "lines": LINES, "one special token": ONE_SPECIAL, "glued": GLUED}


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("kind", kinds())
def test_templates_without_special_tokens_cost_no_more_for_each_turn(kind: str, template: str) -> None:
    spent = []
    for turns in (100, 200, 400, 800):
        counting = learnt(kind, TEMPLATES[template])
        row = chatter(turns)
        assert Encoder(counting, chat_template_of(counting), 1 << 30).encode(row).examples
        spent.append(counting.characters / turns)
    assert all(later < 1.5 * earlier for earlier, later in pairwise(spent)), spent
    assert spent[-1] < 2500, spent


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("kind", kinds())
def test_they_give_what_encoding_every_prefix_gives(kind: str, template: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [chatter(turns, words, seed) for turns, words, seed in ((3, 5, 1), (60, 3, 2), (60, 40, 3), (9, 300, 4))]
    ours = [_tokens(learnt(kind, TEMPLATES[template]), row) for row in rows]
    found = encode_module._openings
    monkeypatch.setattr(encode_module, "_openings", lambda group, begin, end, most: found(group, begin, end, 1 << 30))
    monkeypatch.setattr("graftkit.corpus.prefixes.WINDOW", 1 << 30)
    assert ours == [_tokens(learnt(kind, TEMPLATES[template]), row) for row in rows]


def _tokens(tokenizer: Any, row: Conversation) -> tuple[list[int], list[float]]:
    (example,) = Encoder(tokenizer, chat_template_of(tokenizer), 1 << 30).encode(row).examples
    return example.ids.tolist(), example.supervised.tolist()
