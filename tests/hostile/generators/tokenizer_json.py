"""tokenizer.json of each kind of model, with the files beside it."""

from __future__ import annotations

import copy
import json
import random
from pathlib import Path
from typing import Any

from graftkit_tokenizers.huggingface import HuggingFaceBackend

from hostile.mutate import (
    apply,
    bytes_changed,
    change_json,
    dumped,
    hostile_string,
    hostile_value,
    place_oddly,
    spliced,
    text_changed,
)
from hostile.tokenizer_use import use_tokenizer

PENDING: frozenset[str] = frozenset()

_BYTES = [chr(n) for n in (*range(33, 127), *range(161, 173), *range(174, 256), *range(256, 324))]
_WORDS = ["a", "b", "c", "ab", "bc", "abc", "▁", "▁a", "##b", "##a", "H", "e", "l", "o", "he"]


def _added(id: int, content: str, **more: Any) -> dict[str, Any]:
    return {
        "id": id,
        "content": content,
        "single_word": False,
        "lstrip": False,
        "rstrip": False,
        "normalized": False,
        "special": True,
        **more,
    }


def _documents() -> list[dict[str, Any]]:
    base: dict[str, Any] = {"version": "1.0", "truncation": None, "padding": None}
    bytewise = {
        **base,
        "added_tokens": [_added(258, "<|endoftext|>"), _added(259, "word", special=False, normalized=True)],
        "normalizer": {"type": "NFC"},
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
        "post_processor": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False, "use_regex": True},
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {
            "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
            "end_of_word_suffix": None, "fuse_unk": False,
            "byte_fallback": False, "ignore_merges": False, "vocab": {piece: id for id, piece in enumerate([*_BYTES,
            "ab", "abc"])},
            "merges": [["a", "b"], ["ab", "c"]],
        },
    }  # fmt: skip
    split = copy.deepcopy(bytewise)
    split["normalizer"] = {
        "type": "Sequence",
        "normalizers": [{"type": "NFKC"}, {"type": "Replace", "pattern": {"String": " "}, "content": "_"}],
    }
    split["pre_tokenizer"] = {
        "type": "Sequence",
        "pretokenizers": [
            {
                "type": "Split",
                "pattern": {"Regex": "\\p{N}{1,3}| ?\\p{L}+|\\s+"},
                "behavior": "Isolated",
                "invert": False,
            },
            {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False},
        ],
    }
    split["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "<|endoftext|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<|endoftext|>": {"id": "<|endoftext|>", "ids": [258], "tokens": ["<|endoftext|>"]}},
    }
    wordpiece = {
        **base,
        "added_tokens": [_added(0, "[UNK]"), _added(1, "[CLS]")],
        "normalizer": {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True,
        "strip_accents": None, "lowercase": True},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {"type": "BertProcessing", "sep": ["[UNK]", 0], "cls": ["[CLS]", 1]},
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
        "model": {
            "type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
            "vocab": {piece: id for id, piece in enumerate(["[UNK]", "[CLS]", *_WORDS])},
        },
    }  # fmt: skip
    unigram = {
        **base,
        "added_tokens": [_added(0, "<unk>"), _added(1, "<s>")],
        "normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}, {"type": "Strip",
        "strip_left": True, "strip_right": True}]},
        "pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True},
        "post_processor": None,
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"},
                {"type": "Fuse"},
                {"type": "Strip", "content": " ", "start": 1, "stop": 0},
            ],
        },
        "model": {
            "type": "Unigram", "unk_id": 0, "byte_fallback": True,
            "vocab": [["<unk>", 0.0], ["<s>", 0.0], *[[f"<0x{n:02X}>", 0.0] for n in range(256)], *[[word,
            -float(n)] for n, word in enumerate(_WORDS)]],
        },
    }  # fmt: skip
    wordlevel = {
        **base,
        "added_tokens": [_added(0, "[UNK]")],
        "normalizer": {"type": "Lowercase"},
        "pre_tokenizer": {"type": "Whitespace"},
        "post_processor": None,
        "decoder": None,
        "model": {
            "type": "WordLevel",
            "unk_token": "[UNK]",
            "vocab": {piece: id for id, piece in enumerate(["[UNK]", *_WORDS])},
        },
    }
    return [bytewise, split, wordpiece, unigram, wordlevel]


_DOCUMENTS = _documents()
_CONFIG: dict[str, Any] = {
    "tokenizer_class": "PreTrainedTokenizerFast",
    "bos_token": "<|endoftext|>",
    "eos_token": {"__type": "AddedToken", "content": "<|endoftext|>", "lstrip": False},
    "unk_token": "[UNK]",
    "add_bos_token": False,
    "model_max_length": 512,
    "added_tokens_decoder": {"258": _added(258, "<|endoftext|>")},
    "chat_template": "{{ messages[0]['content'] }}",
}
_PARTS: list[Any] = [
    {"type": "Digits", "individual_digits": True}, {"type": "Punctuation", "behavior": "Isolated"},
    {"type": "CharDelimiterSplit", "delimiter": "a"},
    {"type": "UnicodeScripts"}, {"type": "WhitespaceSplit"}, {"type": "FixedLength", "length": 0},
    {"type": "FixedLength", "length": 2}, {"type": "Nmt"},
    {"type": "StripAccents"}, {"type": "ByteLevel"}, {"type": "Precompiled", "precompiled_charsmap": ""},
    {"type": "Precompiled", "precompiled_charsmap": "AAAA////"},
    {"type": "CTC", "pad_token": "a", "word_delimiter_token": "|", "cleanup": True}, {"type": "BPEDecoder",
    "suffix": "</w>"}, {"type": "Sequence", "normalizers": []},
    {"type": "Sequence", "pretokenizers": []}, {"type": "Sequence", "decoders": []}, {"type": "Sequence",
    "processors": []}, {"type": "NoSuchThing"}, {"type": 3}, {},
    {"type": "RobertaProcessing", "sep": ["a", 0], "cls": ["b", 999], "trim_offsets": True, "add_prefix_space": True},
    {"type": "TemplateProcessing", "single": "$A", "pair": "$A $B", "special_tokens": {}}, {"type": "Strip",
    "content": "", "start": 2**40, "stop": -1},
    {"type": "Metaspace", "replacement": "", "prepend_scheme": "always"}, {"type": "Metaspace", "replacement": "ab",
    "prepend_scheme": "first"},
    {"type": "Prepend", "prepend": ""}, {"type": "Replace", "pattern": {"String": ""}, "content": "x"},
    {"type": "Replace", "pattern": {"Regex": ""}, "content": "xx"},
    {"type": "Split", "pattern": {"Regex": ""}, "behavior": "Removed", "invert": True}, {"type": "Split",
    "pattern": {"String": ""}, "behavior": "MergedWithNext", "invert": False},
    {"type": "Split", "pattern": {"Regex": "("}, "behavior": "Isolated", "invert": False}, {"type": "Split",
    "pattern": {"Regex": "\\k<x>"}, "behavior": "Isolated", "invert": False},
    {"type": "Split", "pattern": {"Regex": "(?<=a)b|^"}, "behavior": "Contiguous", "invert": True}, None, "NFC", [],
]  # fmt: skip
_SLOW = (
    "(a+)+$",
    "(x+x+)+y",
    "(?=(x+))\\1{9,}z",
    "((((x*)*)*)*)*y",
    "(x|x|x)*y",
    "x{1,1000}{1,1000}",
    "(?:" * 500 + ")" * 500,
    "\\s+\\s+$",
    "x*x*(?!x)[^x]",
    "(?=(?:x|x)*y)x",
    ".*.*[^x ]",
    "(?:x?){30}x{30}y",
    " +(?= *!)",
    "\\s+$",
)
_KINDS = [
    ("document", 16),
    ("a part", 8),
    ("vocabulary", 8),
    ("merges", 5),
    ("added tokens", 8),
    ("model", 5),
    ("old form", 2),
    ("beside", 8),
    ("bytes", 4),
    ("text", 2),
    ("spliced", 2),
    ("place", 2),
    ("patterns that take long", 2),
    ("dropout", 1),
    ("normalizers that grow", 2),
]


def make(draw: random.Random, folder: Path) -> list[str]:
    kinds = apply(draw, _KINDS, PENDING)
    document: Any = copy.deepcopy(draw.choice(_DOCUMENTS))
    for kind in kinds:
        document = _changed(draw, document, kind)
    data = dumped(document).encode("utf-8", "surrogatepass")
    if "bytes" in kinds:
        data = bytes_changed(draw, data)
    if "text" in kinds:
        data = text_changed(draw, json.dumps(document if _plain(document) else {}, indent=1).encode())
    if "spliced" in kinds:
        data = spliced(draw, data, dumped(draw.choice(_DOCUMENTS)).encode())
    (folder / "tokenizer.json").write_bytes(data)
    _write_beside(draw, folder, kinds)
    if "place" in kinds:
        place_oddly(draw, folder / draw.choice(sorted(path.name for path in folder.iterdir())))
    return kinds


def _plain(document: Any) -> bool:
    try:
        json.dumps(document)
    except (TypeError, ValueError, RecursionError):
        return False
    return True


def _write_beside(draw: random.Random, folder: Path, kinds: list[str]) -> None:
    for name, document in (
        ("tokenizer_config.json", _CONFIG),
        ("special_tokens_map.json", {"bos_token": "<s>", "additional_special_tokens": ["<s>"]}),
        ("added_tokens.json", {"<extra>": 300}),
    ):
        if draw.random() < (0.7 if "beside" in kinds else 0.2):
            found: Any = copy.deepcopy(document)
            data = dumped(change_json(draw, found) if "beside" in kinds else found).encode("utf-8", "surrogatepass")
            (folder / name).write_bytes(
                bytes_changed(draw, data) if "beside" in kinds and draw.random() < 0.2 else data
            )
    if "beside" in kinds and draw.random() < 0.3:
        (folder / "chat_template.jinja").write_bytes(bytes_changed(draw, "{{ messages[0]['content'] }}é".encode()))


def _changed(draw: random.Random, document: Any, kind: str) -> Any:
    model = document.get("model") if isinstance(document, dict) else None
    if not isinstance(model, dict):
        return document
    if kind == "document":
        return change_json(draw, document)
    if kind == "a part":
        document[draw.choice(("normalizer", "pre_tokenizer", "post_processor", "decoder"))] = copy.deepcopy(
            draw.choice(_PARTS)
        )
    elif kind == "vocabulary":
        model["vocab"] = _other_vocabulary(draw, model.get("vocab"))
    elif kind == "merges":
        model["merges"] = draw.choice(
            ([["a", "b"], ["b", "c"]], [["a", "b"]] * 2, [["a", "zz"]], ["a b", "ab c"], ["a b c"], ["a"], [[]],
            [["a"]], [["", ""]], [["ab", "c"], ["a", "b"]],
             [["a", 1]], {"a": "b"}, "a b", [["<|endoftext|>", "a"]], None, [["a", "b", "c"]], [["##a", "##b"]])
        )  # fmt: skip
    elif kind == "added tokens":
        _change_added(draw, document)
    elif kind == "model":
        model[draw.choice(("type", "unk_token", "unk_id", "continuing_subword_prefix", "end_of_word_suffix", "fuse_unk",
        "byte_fallback", "ignore_merges",
                           "max_input_chars_per_word",
                           "version"))] = hostile_value(draw) if draw.random() < 0.6 else draw.choice(
            ("BPE", "Unigram", "WordPiece", "WordLevel", "", None, True, "##", "a", 0, 10**6))  # fmt: skip
    elif kind == "old form":
        model.pop("type", None)
        if isinstance(model.get("merges"), list):
            model["merges"] = [" ".join(map(str, pair)) for pair in model["merges"] if isinstance(pair, list)]
    elif kind == "dropout":
        model["dropout"] = draw.choice((0.0, 0.1, 1.0, 1.1, -1, "0.5"))
    elif kind == "patterns that take long":
        document["pre_tokenizer"] = {
            "type": "Split",
            "pattern": {"Regex": draw.choice(_SLOW)},
            "behavior": "Isolated",
            "invert": False,
        }
    elif kind == "normalizers that grow":
        document["normalizer"] = {
            "type": "Sequence",
            "normalizers": [{"type": "Replace", "pattern": {"Regex": "."}, "content": "x" * 40}] * draw.choice((4, 8)),
        }
    return document


def _other_vocabulary(draw: random.Random, vocab: Any) -> Any:
    change = draw.randrange(8)
    if isinstance(vocab, dict) and vocab:
        piece = draw.choice(list(vocab))
        if change == 0:
            vocab[piece] = draw.choice((0, 5, 10**6, 2**31, 2**32 - 1, 2**32, -1, 1.0, "1", None))
        elif change == 1:
            del vocab[piece]
        elif change == 2:
            vocab[hostile_string(draw)] = vocab.pop(piece)
        elif change == 3:
            return draw.choice(({}, [], None, [["a", 0]], {"a": 0}))
        elif change == 4:
            return {piece: id + 1000 for piece, id in vocab.items() if isinstance(id, int)}
        elif change == 5:
            vocab |= {f"w{n}": 1000 + n for n in range(5000)}
        else:
            vocab[piece] = vocab[draw.choice(list(vocab))]
    elif isinstance(vocab, list) and vocab:
        place = draw.randrange(len(vocab))
        if change < 5:
            vocab[place] = draw.choice(
                (
                    ["a"],
                    ["a", "b"],
                    [1, 2],
                    ["a", 1e308],
                    ["a", -1e308],
                    ["", 0.0],
                    ["a", 0.0, 1],
                    "a",
                    None,
                    [hostile_string(draw), -3.0],
                    vocab[0],
                )
            )
        else:
            return draw.choice(([], {}, vocab[:1], vocab[1:], vocab * 2))
    return vocab


def _change_added(draw: random.Random, document: dict[str, Any]) -> None:
    added = document.get("added_tokens")
    if not isinstance(added, list) or not added or not all(isinstance(token, dict) for token in added):
        document["added_tokens"] = [_added(0, "a")]
        return
    token = draw.choice(added)
    change = draw.randrange(7)
    if change == 0:
        token["id"] = draw.choice((0, 3, 300, 10**6, 2**32 - 1, 2**32, -1, "3", None, 1.5))
    elif change == 1:
        token["content"] = hostile_string(draw)
    elif change == 2:
        added.append({**token, "id": token.get("id", 0)})
    elif change == 3:
        token[draw.choice(("special", "normalized", "lstrip", "rstrip", "single_word"))] = draw.choice(
            (True, False, None, 1, "yes")
        )
    elif change == 4:
        token.pop(draw.choice(list(token)))
    elif change == 5:
        document["added_tokens"] = draw.choice(
            ([], None, {}, [[]], ["<s>"], [_added(260 + n, f"<{n}>") for n in range(500)])
        )
    else:
        document.pop("added_tokens")


def valid(folder: Path) -> None:
    (folder / "tokenizer.json").write_text(json.dumps(_DOCUMENTS[0]))
    (folder / "tokenizer_config.json").write_text(json.dumps(_CONFIG))


def read(folder: Path) -> None:
    use_tokenizer(HuggingFaceBackend().load(folder))
