"""Real SentencePiece models, out of the packages that ship them, and texts to put through them."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from graftkit.testing.contracts.texts import TEXTS, random_texts
from packages import package_file

__all__ = ["AI21", "BOTCHAN", "JAPANESE", "MISTRAL", "MISTRAL_V3", "MODELS", "corpus", "loaded", "model", "reference"]

_MISTRAL = "mistral-common==1.13.1"
_SDIST = "sdist:sentencepiece==0.2.1"
MODELS = {
    "mistral": (_MISTRAL, "mistral_common/data/tokenizer.model.v1"),
    "mistral-v3": (_MISTRAL, "mistral_common/data/mistral_instruct_tokenizer_240323.model.v3"),
    "ai21": ("ai21-tokenizer==1.1.0", "ai21_tokenizer/resources/j2-tokenizer/j2-tokenizer.model"),
    "botchan": (_SDIST, "test/test_model.model"),
    "japanese": (_SDIST, "test/test_ja_model.model"),
}
MISTRAL, MISTRAL_V3, AI21, BOTCHAN, JAPANESE = MODELS


def model(name: str) -> Path:
    """Returns a model's file."""
    return package_file(*MODELS[name])


@functools.cache
def loaded(name: str) -> Any:
    """Returns a model as a tokenizer; the same to every test, since the large one takes seconds."""
    from graftkit_sentencepiece.backend import SentencePieceBackend

    return SentencePieceBackend().load(model(name))


@functools.cache
def reference(name: str) -> Any:
    """Returns the library's own processor."""
    import sentencepiece

    return sentencepiece.SentencePieceProcessor(model_file=str(model(name)))


@functools.cache
def corpus() -> tuple[str, ...]:
    """Returns paragraphs of a novel, code, other scripts, and texts that tokenizers stumble over."""
    novel = package_file(_SDIST, "test/botchan.txt").read_text(encoding="utf-8").splitlines()
    code = Path(__file__).read_text(encoding="utf-8").split("\n\n")
    scripts = ["Съешь же ещё этих мягких булок", "親譲りの無鉄砲で小供の時から損ばかりしている。", "अनुच्छेद १", "ﬁn ①½ Å"]
    spaces = ["a" + " " * n + "b" + "\t" * n + "c" + "\n" * n for n in range(20)]
    return (*novel[:400], *code, *scripts, *spaces, *TEXTS, *random_texts(500))
