"""GPT-2's files: vocab.json with pieces and ids, merges.txt with pairs in the order of merging."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from graftkit.errors import ModelError, RequestError
from graftkit.tokenization.splitting import GPT2, PATTERNS, byte_level, pre_tokenizer
from graftkit.tokenization.tokenizer_json import bpe_model, byte_level_decoder, dump, tokenizer_json

from graftkit_tokenizers.formats.files import (
    Converted,
    Options,
    added_of,
    beside,
    configuration,
    listing,
    text_of,
    tokenizer_files,
    vocabulary,
)
from graftkit_tokenizers.formats.for_transformers import without_defaults
from graftkit_tokenizers.tokenizer_json.splitting import named, pattern_of

__all__ = ["find", "read", "write"]

_LIKE_GPT2 = ("GPT2Tokenizer", "RobertaTokenizer", "BartTokenizer", "LongformerTokenizer", "CodeGenTokenizer")
_CLASSES = {"": "gpt2", **dict.fromkeys(_LIKE_GPT2, "gpt2"), "Qwen2Tokenizer": "qwen2"}
"""transformers' classes for these files -> the pattern by which each splits text."""

_USUAL = ("<|endoftext|>",)
_HEAD = "#version: 0.2"


def find(path: Path) -> Path | None:
    """Returns the folder that holds both files, given it or one of them."""
    folder = path.parent if path.name in ("vocab.json", "merges.txt") else path
    return folder if all((folder / name).is_file() for name in ("vocab.json", "merges.txt")) else None


def read(folder: Path, options: Options) -> Converted:
    """Reads vocab.json, merges.txt and the files beside them.

    Raises:
        ModelError: A file is malformed, or the pattern that splits text is unknown.
    """
    config = configuration(folder)
    pattern = _pattern(config, options, folder)
    vocab = vocabulary(folder / "vocab.json")
    normalizer = {"type": "NFC"} if _class(config) == "Qwen2Tokenizer" else None
    parts = tokenizer_json(
        bpe_model(vocab, _merges(folder / "merges.txt", vocab)),
        normalizer=normalizer,
        pre_tokenizer=_spaced(pre_tokenizer(pattern), bool(config.get("add_prefix_space"))),
        decoder=byte_level_decoder(),
        added_tokens=added_of(folder, config, vocab, _USUAL),
    )
    return tokenizer_files(parts, config, beside(folder))


def _class(config: Mapping[str, Any]) -> str:
    return str(config.get("tokenizer_class") or "").removesuffix("Fast")


def _pattern(config: Mapping[str, Any], options: Options, folder: Path) -> str:
    if options.pattern is None and _class(config) not in _CLASSES:
        raise ModelError(
            f"vocab.json and merges.txt don't say how a {_class(config)} splits text",
            where=str(folder),
            hint=f"Give the field `pattern`: {', '.join(PATTERNS)}, or a regular expression.",
        )
    return named(options.pattern or _CLASSES[_class(config)])


def _spaced(part: dict[str, Any], first: bool) -> dict[str, Any]:
    """Returns a pre-tokenizer that puts a space before the text if `first`."""
    if not first:
        return part
    if part["type"] == "ByteLevel":
        return {**part, "add_prefix_space": True}
    return {
        **part,
        "pretokenizers": [{**byte_level(use_regex=False), "add_prefix_space": True}, *part["pretokenizers"]],
    }


def _merges(file: Path, vocab: Mapping[str, int]) -> list[list[str]]:
    lines = text_of(file).split("\n")
    start = 1 if lines[0].startswith("#version") else 0
    merges: list[list[str]] = []
    for number, line in enumerate(lines[start:], start=start + 1):
        pair = line.removesuffix("\r").split(" ")
        if pair == [""]:
            continue
        if len(pair) != 2 or not {*pair, "".join(pair)} <= vocab.keys():
            raise ModelError(f"line {number} is not two pieces of vocab.json that make up a third", where=str(file))
        merges.append(pair)
    return merges


def write(spec: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, bytes]:
    """Converts a tokenizer to the files of GPT-2's or Qwen 2's class.

    Args:
        spec: The tokenizer.json.
        config: The tokenizer_config.json.

    Raises:
        RequestError: It is no byte-level BPE that splits text as one of the two does.
    """
    model, pattern = spec["model"], pattern_of(spec.get("pre_tokenizer"))
    kinds = {GPT2: "GPT2Tokenizer", PATTERNS["qwen2"]: "Qwen2Tokenizer"}
    if model.get("type") != "BPE" or pattern not in kinds:
        raise RequestError("vocab.json and merges.txt hold byte-level BPE that splits text as GPT-2 or Qwen 2 does")
    pairs = [" ".join(pair) for pair in model["merges"]]
    added = spec.get("added_tokens", [])
    known = model["vocab"].keys() | {token["content"] for token in added}
    said = {**without_defaults(kinds[pattern], config, known), "added_tokens_decoder": listing(added)}
    return {
        "vocab.json": dump(model["vocab"]),
        "merges.txt": ("\n".join([_HEAD, *pairs]) + "\n").encode("utf-8"),
        "tokenizer_config.json": dump(said),
    }
