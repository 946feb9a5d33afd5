"""What a tokenizer puts around a text, in its tokenizer.json and in the flags of its tokenizer_config.json.

transformers 5 and the tokenizers library go by the post-processor of tokenizer.json; llama.cpp's converter and classes
of older transformers go by `add_bos_token` and `add_eos_token` of tokenizer_config.json. Some models' files contradict
themselves. The flag of the bos token says how texts are trained on, so the post-processor follows it; what the
post-processor puts after a text is what prompts get, so the flag of the eos token follows that.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from graftkit.errors import ModelError
from graftkit.interfaces.tokenizer import PairLayout
from graftkit.tokenization.side_files import content_of
from graftkit.tokenization.tokenizer_json import dump, template
from tokenizers import Tokenizer as Backend

__all__ = ["around", "bos_as_configured", "pair_layout", "with_true_flags"]

Json = dict[str, Any]

_ANY = "a"
"""A text without special tokens."""


def around(backend: Backend) -> tuple[list[int], list[int]]:
    """Returns the ids that the post-processor puts before a text, and those that it puts after it."""
    text = _text_of_a_token(backend)
    alone, whole = (backend.encode(text, add_special_tokens=special).ids for special in (False, True))
    starts = [n for n in range(len(whole) - len(alone) + 1) if whole[n : n + len(alone)] == alone]
    start = starts[0] if starts and alone else len(whole) - len(alone)
    return whole[:start], whole[start + len(alone) :]


def _text_of_a_token(backend: Backend) -> str:
    """Returns a text without special tokens that there is a token for: vocabularies of DNA, say, have no `a`."""
    return next((text for text in _texts(backend) if backend.encode(text, add_special_tokens=False).ids), _ANY)


def _texts(backend: Backend) -> Iterator[str]:
    yield _ANY
    yield from (backend.decode([id]) for id in sorted(backend.get_vocab(with_added_tokens=False).values()))


def pair_layout(backend: Backend, config: Mapping[str, Any], where: str) -> PairLayout:
    """Returns what the post-processor puts around the two texts of a pair.

    Args:
        backend: The tokenizer that the library makes of the tokenizer.json.
        config: The fields of tokenizer_config.json: by `model_input_names` a model is told nothing of types.
        where: The tokenizer's folder, for the error.

    Raises:
        ModelError: It does not put one text before the other, each once.
    """
    text = _text_of_a_token(backend)
    found, length = backend.encode(text, text), len(backend.encode(text, add_special_tokens=False).ids)
    of = found.sequence_ids
    first, second = ([place for place, number in enumerate(of) if number == text] for text in (0, 1))
    if not length or not len(first) == len(second) == length or first[-1] > second[0]:
        raise ModelError(
            "tokenizer.json does not lay a pair of texts out as the first one and then the second one, each once",
            where=where,
            hint="Put the two texts of each record into one text.",
        )
    parts = slice(0, first[0]), slice(first[-1] + 1, second[0]), slice(second[-1] + 1, len(of))
    inputs = config.get("model_input_names")
    typed = not isinstance(inputs, list) or "token_type_ids" in inputs
    types = found.type_ids if typed else [0] * len(of)
    before, between, after = (found.ids[part] for part in parts)
    of_before, of_between, of_after = (types[part] for part in parts)
    return PairLayout(before, between, after, (of_before, types[first[0]], of_between, types[second[0]], of_after))


def bos_as_configured(spec: Mapping[str, Any], config: Mapping[str, Any], backend: Backend) -> Json | None:
    """Returns a tokenizer.json whose post-processor puts the bos token first just where the configuration says so.

    Args:
        spec: The tokenizer.json.
        config: The fields of tokenizer_config.json.
        backend: The tokenizer that the library makes of it.

    Returns:
        The changed one; None where it does so already, nothing is said, or its post-processor is of a kind that is
        left as it is.
    """
    flag, token = config.get("add_bos_token"), content_of(config.get("bos_token"))
    bos = None if token is None else backend.token_to_id(token)
    if not isinstance(flag, bool) or token is None or bos is None or (around(backend)[0][:1] == [bos]) == flag:
        return None
    former = spec.get("post_processor")
    changed = _with_first(former, token, bos) if flag else _without_first(former, token)
    return None if changed == former else {**spec, "post_processor": changed}


def _with_first(processor: Any, token: str, id: int) -> Any:
    """Returns a post-processor that puts a token before each text, before whatever it puts there already."""
    kind = processor.get("type") if isinstance(processor, dict) else None
    first = template(before={token: id})
    if kind is None:
        return first
    if kind == "TemplateProcessing":
        return {
            **processor,
            "single": [first["single"][0], *processor["single"]],
            "pair": [first["single"][0], *processor["pair"]],
            "special_tokens": {**processor.get("special_tokens", {}), **first["special_tokens"]},
        }
    if kind == "ByteLevel":
        return {"type": "Sequence", "processors": [processor, first]}
    if kind == "Sequence" and processor["processors"]:
        *others, last = processor["processors"]
        if isinstance(last, dict) and last.get("type") == "ByteLevel":
            return {**processor, "processors": [*others, last, first]}
        return {**processor, "processors": [*others, _with_first(last, token, id)]}
    return processor


def _without_first(processor: Any, token: str) -> Any:
    """Returns a post-processor that puts a token before no text."""
    kind = processor.get("type") if isinstance(processor, dict) else None
    if kind == "Sequence":
        return {**processor, "processors": [_without_first(inner, token) for inner in processor["processors"]]}
    if kind != "TemplateProcessing":
        return processor
    return {**processor, **{part: _not_before_a_text(processor[part], token) for part in ("single", "pair")}}


def _not_before_a_text(items: list[Json], token: str) -> list[Json]:
    kept: list[Json] = []
    for item in reversed(items):
        first = item.get("SpecialToken", {}).get("id") == token and bool(kept) and "Sequence" in kept[0]
        kept[:0] = [] if first else [item]
    return kept


def with_true_flags(files: Mapping[str, bytes], tokens: Mapping[str, Any], backend: Backend) -> dict[str, bytes]:
    """Returns a tokenizer's files whose tokenizer_config.json says what tokenizer.json does, if it says it at all.

    Args:
        files: The files by name.
        tokens: `bos_token` and `eos_token`, as a configuration has them.
        backend: The tokenizer that the library makes of the tokenizer.json.
    """
    name = "tokenizer_config.json"
    config: Json = json.loads(files[name]) if name in files else {}
    before, after = around(backend)
    true = {f"add_{role}_token": _id(tokens, role, backend) in ids for role, ids in (("bos", before), ("eos", after))}
    wrong = {flag: does for flag, does in true.items() if isinstance(config.get(flag), bool) and config[flag] != does}
    return {**files, name: dump({**config, **wrong})} if wrong else {**files}


def _id(tokens: Mapping[str, Any], role: str, backend: Backend) -> int | None:
    token = content_of(tokens.get(f"{role}_token"))
    return None if token is None else backend.token_to_id(token)
