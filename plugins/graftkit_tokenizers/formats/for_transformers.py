"""Changes a tokenizer's files so that transformers' AutoTokenizer loads its tokenizer.json unchanged.

Since version 5, most tokenizer classes read only vocabulary and merges and build the rest themselves: another
pre-tokenizer, special tokens that the file lacks. `PreTrainedTokenizerFast` loads the file. The defaults of the class
that a configuration named, such as roles and padding side, are written into the configuration.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from graftkit.tokenization.side_files import content_of, object_in
from graftkit.tokenization.tokenizer_json import dump

from graftkit_tokenizers.formats.files import listing

__all__ = ["AS_IT_IS", "for_transformers", "without_defaults"]

Json = dict[str, Any]

AS_IT_IS = "PreTrainedTokenizerFast"
"""The class that loads a tokenizer.json unchanged; called `TokenizersBackend` since version 5."""

_CONFIG, _ROLES, _ADDED = "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"
_LISTS = ("additional_special_tokens", "extra_special_tokens")

_LEFT: Json = {"padding_side": "left"}
_END = {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>"}
_LLAMA = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
_PAIRS: Json = {"model_input_names": ["input_ids", "token_type_ids", "attention_mask"]}
_CLASSES: Mapping[str, Json] = {
    "BertTokenizer": {
        **_PAIRS,
        "unk_token": "[UNK]",
        "sep_token": "[SEP]",
        "pad_token": "[PAD]",
        "cls_token": "[CLS]",
        "mask_token": "[MASK]",
    },
    "CodeLlamaTokenizer": {**_LEFT, **_LLAMA},
    "CohereTokenizer": {
        **_LEFT,
        "bos_token": "<BOS_TOKEN>",
        "eos_token": "<|END_OF_TURN_TOKEN|>",
        "unk_token": "<UNK>",
        "pad_token": "<PAD>",
        "cls_token": "<CLS>",
        "sep_token": "<SEP>",
        "mask_token": "<MASK_TOKEN>",
    },
    "GemmaTokenizer": {
        **_LEFT,
        "bos_token": "<bos>",
        "eos_token": "<eos>",
        "unk_token": "<unk>",
        "pad_token": "<pad>",
        "mask_token": "<mask>",
    },
    "GPT2Tokenizer": _END,
    "GPTNeoXTokenizer": {**_END, "pad_token": "<|padding|>"},
    "LlamaTokenizer": {**_LEFT, **_LLAMA},
    "Qwen2Tokenizer": {"eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>", "pad_token": "<|endoftext|>"},
}
"""Defaults of transformers' classes, for fields that a configuration lacks."""


def for_transformers(
    files: Mapping[str, bytes], spec: Mapping[str, Any], known: Collection[str], where: str
) -> dict[str, bytes]:
    """Returns a tokenizer's files, with which AutoTokenizer loads the tokenizer of the tokenizer.json.

    Tokens that the other files name and the tokenizer.json lacks are removed, since transformers would add them under
    new ids, for which a model has no embedding rows. Files that need no change are kept byte by byte.

    Args:
        files: The files by name.
        spec: The tokenizer.json.
        known: Its tokens.
        where: The folder, for errors.

    Raises:
        ModelError: A file is malformed.
    """
    given, roles, ids = (object_in(files, name, where) for name in (_CONFIG, _ROLES, _ADDED))
    found = {**files}
    if (shorter := _known_only(roles, known)) != roles:
        found[_ROLES] = dump(shorter)
    if (config := _with_same_added_tokens(_known_only(_as_it_is(given, shorter, known), known), spec)) != given:
        found[_CONFIG] = dump(config)
    if not _lists_only(ids, spec):
        del found[_ADDED]
    return found


def without_defaults(name: str, config: Mapping[str, Any], known: Collection[str]) -> Json:
    """Returns a configuration for a class of transformers, with null for each role whose default token is missing.

    Args:
        name: The class.
        config: The tokenizer_config.json.
        known: The tokenizer's tokens.
    """
    usual = {key: token for key, token in _CLASSES[name].items() if key.endswith("_token")}
    missing = {key: None for key, token in usual.items() if key not in config and token not in known}
    return {**config, **missing, "tokenizer_class": name}


def _as_it_is(config: Json, roles: Mapping[str, Any], known: Collection[str]) -> Json:
    """Returns a configuration with the class that loads a tokenizer.json, and the defaults of the class before."""
    name = str(config.get("tokenizer_class"))
    if name in (AS_IT_IS, "TokenizersBackend"):
        return config
    implied = {
        key: value
        for key, value in _CLASSES.get(name.removesuffix("Fast"), {}).items()
        if not key.endswith("_token") or value in known
    }
    named = {key: content_of(token) for key, token in roles.items() if key.endswith("_token")}
    kept = {key: value for key, value in config.items() if key != "auto_map"}
    return {**implied, **named, **kept, "tokenizer_class": AS_IT_IS}


def _known_only(config: Json, known: Collection[str]) -> Json:
    """Returns a configuration without unknown tokens: a role becomes null, so that no class sets its default."""
    return dict(_known_entries(config, known))


def _known_entries(config: Json, known: Collection[str]) -> Iterator[tuple[str, Any]]:
    for key, value in config.items():
        if key.endswith("_token") and isinstance(value, str | dict):
            yield key, value if content_of(value) in known else None
        elif key in _LISTS and isinstance(value, list):
            yield key, [token for token in value if content_of(token) in known]
        elif key in _LISTS and isinstance(value, dict):
            yield key, {name: token for name, token in value.items() if content_of(token) in known}
        else:
            yield key, value


def _with_same_added_tokens(config: Json, spec: Mapping[str, Any]) -> Json:
    """Returns a configuration that lists added tokens as the tokenizer.json does: its list takes precedence."""
    listed = config.get("added_tokens_decoder")
    return {**config, "added_tokens_decoder": listing(spec.get("added_tokens", []))} if listed else config


def _lists_only(ids: Json, spec: Mapping[str, Any]) -> bool:
    """Tells whether an added_tokens.json lists only added tokens of the tokenizer.json, with the same ids."""
    there = {token["content"]: token["id"] for token in spec.get("added_tokens", [])}
    return all(there.get(content) == id for content, id in ids.items())
