"""Training each built-in tokenizer against the `tokenizers` library called directly with the same options.

.venv/bin/python tests/benchmarks/tokenizer_training.py [ROUNDS] [MEGABYTES]

The texts are the source files of Python's own standard library. Both sides run in this process, in turn.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from graftkit.interfaces.vocabulary import TrainingSpec
from graftkit.tokenization.splitting import PATTERNS
from graftkit_tokenizers.config import BpeConfig, ByteLevelConfig, WordPieceConfig
from graftkit_tokenizers.train.bpe import BpeBackend, _parts
from graftkit_tokenizers.train.byte_level import ByteLevelBackend
from graftkit_tokenizers.train.character import CharacterBackend
from graftkit_tokenizers.train.word import WordBackend
from graftkit_tokenizers.train.wordpiece import WordPieceBackend
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

SIZE = 16_000
SPEC = TrainingSpec(SIZE, ("[UNK]",), {"unk": "[UNK]"})
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]


def logit_positions(megabytes: float) -> list[str]:
    """Returns the standard library's source files, up to a size."""
    texts: list[str] = []
    left = megabytes * 1e6
    for file in sorted(Path(sys.base_prefix, "lib/python3.11").rglob("*.py")):
        if left <= 0:
            break
        if not {"site-packages", "dist-packages"} & set(file.parts):
            texts.append(file.read_text(encoding="utf-8", errors="replace"))
            left -= len(texts[-1])
    return texts


def byte_level(texts: list[str], pattern: str = "gpt2") -> None:
    tokenizer = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(PATTERNS[pattern]), "isolated")
    built_in = pre_tokenizers.ByteLevel(add_prefix_space=False)
    by_regex = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(False, use_regex=False)])
    tokenizer.pre_tokenizer = built_in if pattern == "gpt2" else by_regex
    trainer = trainers.BpeTrainer(
        vocab_size=SIZE, min_frequency=2, show_progress=False, special_tokens=["[UNK]"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    tokenizer.train_from_iterator(texts, trainer)


def bpe(texts: list[str], words: bool = True) -> None:
    tokenizer = Tokenizer(models.BPE(byte_fallback=True))
    tokenizer.pre_tokenizer = Tokenizer.from_str(_bpe_parts(words)).pre_tokenizer
    trainer = trainers.BpeTrainer(
        vocab_size=SIZE, min_frequency=2, special_tokens=["[UNK]", *BYTES], show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)


def _bpe_parts(words: bool) -> str:
    return json.dumps(_parts("words" if words else "spaces"))


def wordpiece(texts: list[str]) -> None:
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=SIZE, min_frequency=2, special_tokens=["[UNK]"], show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)


def word(texts: list[str]) -> None:
    tokenizer = Tokenizer(models.WordLevel(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.WordLevelTrainer(vocab_size=SIZE, min_frequency=2, special_tokens=["[UNK]"], show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)


def character(texts: list[str]) -> None:
    tokenizer = Tokenizer(models.BPE(byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("(?m)."), "isolated")
    trainer = trainers.BpeTrainer(vocab_size=SIZE, special_tokens=["[UNK]", *BYTES], show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)


def pairs(texts: list[str]) -> Iterator[tuple[str, Callable[[], object], Callable[[], object]]]:
    """Yields what is compared: ours, and the library's."""
    for name in ("gpt2", "llama3"):
        backend = ByteLevelBackend(ByteLevelConfig(pattern=name))
        yield f"byte-level ({name})", lambda b=backend: b.train(texts, SPEC), lambda n=name: byte_level(texts, n)  # type: ignore[misc]
    for words in ("words", "spaces"):
        learner = BpeBackend(BpeConfig(split=words, coverage=1.0))
        yield f"bpe ({words})", lambda b=learner: b.train(texts, SPEC), lambda w=words: bpe(texts, w == "words")  # type: ignore[misc]
    yield "wordpiece", lambda: WordPieceBackend(WordPieceConfig()).train(texts, SPEC), lambda: wordpiece(texts)
    yield "word", lambda: WordBackend().train(texts, SPEC), lambda: word(texts)
    yield "character", lambda: CharacterBackend().train(texts, SPEC), lambda: character(texts)


def seconds(call: Callable[[], object]) -> tuple[float, float]:
    """Returns how long a call takes, and how long processors worked on it, which other programs disturb less."""
    start, worked = time.perf_counter(), time.process_time()
    call()
    return time.perf_counter() - start, time.process_time() - worked


def main(rounds: int, megabytes: float) -> None:
    """Prints a line a backend: medians of both sides and their ratio, in seconds and in seconds of processors."""
    texts = logit_positions(megabytes)
    print(f"{sum(map(len, texts)) / 1e6:.1f} million characters, {rounds} rounds")
    print(f"{'':22}{'ours':>8}{'library':>9}{'ratio':>7}{'ours cpu':>12}{'library':>9}{'ratio':>7}")
    for name, ours, library in pairs(texts):
        taken = [(*seconds(ours), *seconds(library)) for _ in range(rounds)]
        a, a_cpu, b, b_cpu = (statistics.median(values) for values in zip(*taken, strict=True))
        print(f"{name:22}{a:8.2f}{b:9.2f}{a / b:7.2f}{a_cpu:12.2f}{b_cpu:9.2f}{a_cpu / b_cpu:7.2f}", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5, float(sys.argv[2]) if len(sys.argv) > 2 else 20)
