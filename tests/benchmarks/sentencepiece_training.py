"""What graftkit adds to sentencepiece's own time: training, encoding and loading, both sides in turn.

    python tests/benchmarks/sentencepiece_training.py [ROUNDS] [MEGABYTES]

The corpus is the source of Python's standard library. The library is called with the same arguments on the same lines;
graftkit also splits the texts into lines, and sorts them for unigram, whose result depends on their order.
"""

from __future__ import annotations

import io
import statistics
import sys
import sysconfig
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import sentencepiece
from graftkit.interfaces.vocabulary import TrainingSpec
from graftkit_sentencepiece.backend import SentencePieceBackend
from graftkit_sentencepiece.config import SentencePieceConfig

sys.path.insert(0, str(Path(__file__).parent.parent))
from packages import package_file

SPEC = TrainingSpec(8000, ("<unk>", "<s>", "</s>"), {"unk": "<unk>", "bos": "<s>", "eos": "</s>"})
MISTRAL = package_file("mistral-common==1.13.1", "mistral_common/data/tokenizer.model.v1")


def corpus(megabytes: float) -> list[str]:
    """Returns stretches of source code of about so many bytes."""
    texts: list[str] = []
    for path in sorted(Path(sysconfig.get_path("stdlib")).rglob("*.py")):
        if "site-packages" not in path.parts and sum(map(len, texts)) < megabytes * 1e6:
            texts.append(path.read_text(encoding="utf-8", errors="ignore"))
    return texts


def trained_by_the_library(texts: list[str], model_type: str) -> None:
    """Trains with the arguments that graftkit passes."""
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=(line for text in texts for line in text.split("\n") if line), model_writer=io.BytesIO(),
        model_type=model_type, vocab_size=8000, byte_fallback=True, normalization_rule_name="identity",
        remove_extra_whitespaces=False, split_digits=True, allow_whitespace_only_pieces=True, num_threads=16,
        hard_vocab_limit=False, max_sentence_length=65536, minloglevel=2,
    )  # fmt: skip


def compare(name: str, ours: Callable[[], object], theirs: Callable[[], object], rounds: int) -> None:
    """Prints both medians and their ratio."""
    seconds: dict[str, list[float]] = {"ours": [], "theirs": []}
    for _ in range(rounds):
        for side, call in (("theirs", theirs), ("ours", ours)):
            start = time.perf_counter()
            call()
            seconds[side].append(time.perf_counter() - start)
    mine, other = (statistics.median(seconds[side]) for side in ("ours", "theirs"))
    print(f"{name:32} graftkit {mine:8.3f} s   sentencepiece {other:8.3f} s   ratio {mine / other:.2f}")


def main() -> None:
    """Prints a row for each thing that is compared."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    texts = corpus(float(sys.argv[2]) if len(sys.argv) > 2 else 5)
    types: tuple[Literal["bpe", "unigram"], ...] = ("bpe", "unigram")
    for model_type in types:
        backend = SentencePieceBackend(SentencePieceConfig(model_type=model_type))
        compare(
            f"train {model_type}, 8,000 pieces",
            lambda backend=backend: backend.train(iter(texts), SPEC),
            lambda model_type=model_type: trained_by_the_library(texts, model_type),
            rounds,
        )
    ours = SentencePieceBackend().load(MISTRAL)
    theirs = sentencepiece.SentencePieceProcessor(model_file=str(MISTRAL))
    lines = [line for text in texts for line in text.split("\n")][:50_000]
    compare("encode line by line", lambda: [*map(ours.encode, lines)], lambda: [*map(theirs.encode, lines)], rounds)
    compare("encode a batch", lambda: ours.encode_batch(texts), lambda: theirs.encode(texts), rounds)
    load = SentencePieceBackend().load
    compare(
        "load 32,000 pieces",
        lambda: load(MISTRAL),
        lambda: sentencepiece.SentencePieceProcessor(model_file=str(MISTRAL)),
        rounds,
    )


if __name__ == "__main__":
    main()
