"""What is saved is what transformers' AutoTokenizer makes of it, whatever class the configuration named."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from graftkit.interfaces.vocabulary import TrainingSpec
from graftkit_tokenizers.config import ByteLevelConfig
from graftkit_tokenizers.huggingface import HuggingFaceBackend, HuggingFaceTokenizer
from graftkit_tokenizers.train.byte_level import ByteLevelBackend
from graftkit_tokenizers.train.wordpiece import WordPieceBackend
from transformers import AutoTokenizer

Make = Callable[..., HuggingFaceTokenizer]

TEXTS = ("hey 12345 he", "a   b\t\n\n c", "🎉 hey 👩‍👩‍👧", "\n\nhe y\n", "éé<tool_call> é", " he", "<|im_end|>", "")
CLASSES = ("GemmaTokenizerFast", "LlamaTokenizer", "LlamaTokenizerFast", "GPT2Tokenizer", "Qwen2TokenizerFast")
CLASSES += ("BertTokenizer", "CohereTokenizerFast", "T5TokenizerFast", "NobodysTokenizer", "")
FAMILIES = ("byte_level", "sentencepiece", "unigram", "word_level", "wordpiece")


def in_transformers(tokenizer: HuggingFaceTokenizer, folder: Path, format: str = "huggingface") -> Any:
    """Returns what AutoTokenizer makes of a saved tokenizer, after a look at its size and ids."""
    tokenizer.save(folder, format)
    theirs = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    assert len(theirs) == tokenizer.vocab_size
    for text in TEXTS:
        assert theirs(text, add_special_tokens=False)["input_ids"] == tokenizer.encode(text, "all")
    return theirs


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("family", FAMILIES)
def test_any_class_gives_the_same_ids(make: Make, tmp_path: Path, family: str, name: str) -> None:
    in_transformers(make(family, **({"tokenizer_class": name} if name else {})), tmp_path)


def test_the_same_ids_beside_a_gemma_model_without_any_configuration(make: Make, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "gemma3_text"}')
    in_transformers(HuggingFaceTokenizer({"tokenizer.json": make("byte_level")._files["tokenizer.json"]}), tmp_path)


def test_nothing_that_the_configuration_said_is_lost(make: Make, tmp_path: Path) -> None:
    said = {"model_max_length": 77, "clean_up_tokenization_spaces": False, "chat_template": "{{ messages }}"}
    roles = {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "extra_special_tokens": ["<|endoftext|>"]}
    tokenizer = make("byte_level", tokenizer_class="LlamaTokenizer", legacy=False, **said, **roles)
    theirs = in_transformers(tokenizer, tmp_path)
    assert {key: getattr(theirs, key) for key in said} == said
    assert {key: getattr(theirs, key) for key in roles} == roles
    again = HuggingFaceBackend().load(tmp_path)
    assert (again.fingerprint, again.chat_template) == (tokenizer.fingerprint, tokenizer.chat_template)


def test_what_the_class_implied_is_written_down(make: Make, tmp_path: Path) -> None:
    theirs = in_transformers(make("sentencepiece", tokenizer_class="LlamaTokenizerFast"), tmp_path)
    assert (theirs.bos_token, theirs.eos_token, theirs.unk_token, theirs.padding_side) == (
        "<s>",
        "</s>",
        "<unk>",
        "left",
    )


def test_roles_in_their_own_file_count_where_the_configuration_lists_tokens(make: Make, tmp_path: Path) -> None:
    """Transformers does not read that file then."""
    base = make("sentencepiece")
    listed = {str(token["id"]): {k: v for k, v in token.items() if k != "id"} for token in base.spec["added_tokens"]}
    config = {"tokenizer_class": "LlamaTokenizer", "added_tokens_decoder": listed}
    files = {"tokenizer_config.json": config, "special_tokens_map.json": {"pad_token": {"content": "[INST]"}}}
    tokenizer = HuggingFaceTokenizer({**base._files, **{name: json.dumps(c).encode() for name, c in files.items()}})
    assert in_transformers(tokenizer, tmp_path).pad_token == "[INST]"


@pytest.mark.parametrize("name", ["PreTrainedTokenizerFast", "TokenizersBackend", "LlamaTokenizer"])
def test_tokens_that_there_are_not_get_no_ids(make: Make, tmp_path: Path, name: str) -> None:
    flags = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
    named = {"pad_token": "<pad>", "image_token": "<image>", "additional_special_tokens": ["<a>", "</s>"]}
    named["added_tokens_decoder"] = {"900": {"content": "<more>", **flags}}
    base = make("sentencepiece", tokenizer_class=name, eos_token="</s>", **named)
    files = {"special_tokens_map.json": b'{"mask_token": "<mask>"}', "added_tokens.json": b'{"<b>": 901}'}
    tokenizer = HuggingFaceTokenizer({**base._files, **files})
    theirs = in_transformers(tokenizer, tmp_path)
    assert (theirs.eos_token, theirs.pad_token, theirs.mask_token) == ("</s>", None, None)


def test_added_tokens_are_found_as_the_tokenizer_json_says(make: Make, tmp_path: Path) -> None:
    other = {
        "content": "éé",
        "lstrip": True,
        "normalized": False,
        "rstrip": True,
        "single_word": True,
        "special": False,
    }
    id = make("byte_level").encode("éé")[0]
    tokenizer = make("byte_level", tokenizer_class="PreTrainedTokenizerFast", added_tokens_decoder={str(id): other})
    in_transformers(tokenizer, tmp_path)


def test_code_that_is_not_saved_is_not_asked_for(make: Make, tmp_path: Path) -> None:
    remote = {"AutoTokenizer": ["tokenization_x.XTokenizer", None]}
    in_transformers(make("byte_level", tokenizer_class="XTokenizer", auto_map=remote), tmp_path)


@pytest.mark.parametrize(
    "specials", [("[UNK]",), ("[UNK]", "<s>", "</s>"), ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")]
)
@pytest.mark.parametrize("format", ["huggingface", "wordpiece"])
def test_a_wordpiece_that_was_trained_gets_no_tokens_of_berts(
    tmp_path: Path, specials: tuple[str, ...], format: str
) -> None:
    spec = TrainingSpec(vocab_size=200, special_tokens=specials, roles={"unk": "[UNK]"})
    tokenizer = WordPieceBackend().train(["hey he y a b c", "hey <|im_end|> tool call"] * 5, spec)
    theirs = in_transformers(tokenizer, tmp_path, format)
    if "[CLS]" not in specials:
        assert theirs("hey")["input_ids"] == tokenizer.encode("hey")
    assert HuggingFaceBackend().load(tmp_path).fingerprint
    assert (tmp_path / "vocab.txt").is_file() is (format == "wordpiece")


@pytest.mark.parametrize("pattern", ["gpt2", "qwen2"])
def test_gpt2s_files_get_no_end_of_text(tmp_path: Path, pattern: str) -> None:
    spec = TrainingSpec(vocab_size=270, special_tokens=("<s>",), roles={"bos": "<s>"})
    tokenizer = ByteLevelBackend(ByteLevelConfig(pattern=pattern)).train(["hey he y"] * 5, spec)
    normalizer = {"type": "NFC"} if pattern == "qwen2" else None
    in_transformers(tokenizer.with_spec({**tokenizer.spec, "normalizer": normalizer}), tmp_path, "gpt2")
