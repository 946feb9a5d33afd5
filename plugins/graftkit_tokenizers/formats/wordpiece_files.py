"""BERT's vocab.txt: a piece a line; its id is the number of the line, from 0."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from graftkit.errors import ModelError, RequestError
from graftkit.tokenization.side_files import content_of
from graftkit.tokenization.tokenizer_json import dump

from graftkit_tokenizers.formats.files import (
    Converted,
    Options,
    added_of,
    beside,
    configuration,
    listing,
    text_of,
    tokenizer_files,
)
from graftkit_tokenizers.formats.for_transformers import AS_IT_IS, without_defaults
from graftkit_tokenizers.tokenizer_json.wordpiece_parts import PREFIX, wordpiece_json

__all__ = ["find", "read", "write"]

Json = dict[str, Any]

_USUAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def find(path: Path) -> Path | None:
    """Returns the vocab.txt, given it or its folder."""
    file = path if path.name == "vocab.txt" else path / "vocab.txt"
    return file if file.is_file() else None


def read(file: Path, options: Options) -> Converted:
    """Reads a vocab.txt and what lies beside it.

    Raises:
        ModelError: It is not UTF-8, or lacks the token for unknown words.
    """
    folder, config = file.parent, configuration(file.parent)
    vocab = {piece: id for id, piece in enumerate(_lines(text_of(file)))}
    unknown = content_of(config.get("unk_token", "[UNK]"))
    if unknown is None or unknown not in vocab:
        raise ModelError(f"no line is {unknown}, the token for unknown words", where=str(file))
    lowercase = config.get("do_lower_case", True) if options.lowercase is None else options.lowercase
    parts = wordpiece_json(
        vocab,
        unknown,
        lowercase=bool(lowercase),
        strip_accents=config.get("strip_accents"),
        chinese_characters=bool(config.get("tokenize_chinese_chars", True)),
    )
    parts["added_tokens"] = added_of(folder, config, vocab, _USUAL)
    ids = {token["content"]: token["id"] for token in parts["added_tokens"]}
    if "add_bos_token" not in config and {"[CLS]", "[SEP]"} <= ids.keys():
        parts["post_processor"] = _between(ids)
    said = config if "unk_token" in config else {**config, "unk_token": unknown}
    extra = beside(folder)
    return tokenizer_files(parts, config, extra if said == config else {**extra, "tokenizer_config.json": dump(said)})


def _lines(text: str) -> list[str]:
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return lines[:-1] if lines[-1] == "" else lines


def _between(ids: Mapping[str, int]) -> Json:
    """Returns BERT's post-processor: [CLS] before a text, [SEP] after it."""

    def token(content: str, type_id: int = 0) -> Json:
        return {"SpecialToken": {"id": content, "type_id": type_id}}

    first, second = ({"Sequence": {"id": name, "type_id": n}} for n, name in enumerate("AB"))
    single = [token("[CLS]"), first, token("[SEP]")]
    names = {name: {"id": name, "ids": [ids[name]], "tokens": [name]} for name in ("[CLS]", "[SEP]")}
    pair = [*single, second, token("[SEP]", 1)]
    return {"type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": names}


def write(spec: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, bytes]:
    """Converts a tokenizer to BERT's files; adds a tokenizer.json where transformers' class would differ.

    Args:
        spec: The tokenizer.json.
        config: The tokenizer_config.json.

    Raises:
        RequestError: It is no WordPiece model with BERT's normalizer, or its ids have gaps.
    """
    model, cleaning = spec["model"], spec.get("normalizer") or {}
    if model.get("type") != "WordPiece" or cleaning.get("type") != "BertNormalizer":
        raise RequestError("vocab.txt holds WordPiece with BERT's cleaning of text, and this is another tokenizer")
    pieces = sorted(model["vocab"], key=model["vocab"].__getitem__)
    if model["vocab"][pieces[-1]] != len(pieces) - 1 or model.get("continuing_subword_prefix") != PREFIX:
        raise RequestError(f"vocab.txt holds ids without a gap and pieces that go on with {PREFIX}")
    added = spec.get("added_tokens", [])
    said = {
        **without_defaults("BertTokenizer", config, model["vocab"].keys() | {token["content"] for token in added}),
        "do_lower_case": cleaning.get("lowercase"),
        "strip_accents": cleaning.get("strip_accents"),
        "tokenize_chinese_chars": cleaning.get("handle_chinese_chars"),
        "unk_token": model["unk_token"],
        "added_tokens_decoder": listing(added),
    }
    written = {"vocab.txt": "".join(f"{piece}\n" for piece in pieces).encode("utf-8")}
    if None in (said.get("cls_token", ""), said.get("sep_token", "")):  # for which BertTokenizer takes its defaults
        written |= {"tokenizer.json": dump(dict(spec))}
        said |= {"tokenizer_class": AS_IT_IS}
    return {**written, "tokenizer_config.json": dump(said)}
