"""Other libraries' vocabularies: vocab.json with merges.txt, vocab.txt, tiktoken's ranks, tekken.json."""

from __future__ import annotations

import base64
import copy
import json
import random
from pathlib import Path
from typing import Any

from graftkit_tokenizers.huggingface import HuggingFaceBackend

from hostile.mutate import apply, bytes_changed, change_json, dumped, hostile_string, place_oddly, spliced, text_changed
from hostile.tokenizer_use import use_tokenizer

PENDING: frozenset[str] = frozenset()

_BYTES = [chr(n) for n in (*range(33, 127), *range(161, 173), *range(174, 256), *range(256, 324))]
_PATTERN = "'s|'t| ?\\p{L}+| ?\\p{N}+|\\s+(?!\\S)|\\s+"
_RANKS = [*(bytes([n]) for n in range(256)), b"ab", b"abc", b"he", b"hel", b"ll"]
_CONFIG: dict[str, Any] = {
    "tokenizer_class": "GPT2Tokenizer", "bos_token": "<|endoftext|>", "unk_token": "<|endoftext|>",
    "add_prefix_space": False,
    "added_tokens_decoder": {"258": {"content": "<|endoftext|>", "special": True}},
}  # fmt: skip
_BERT: dict[str, Any] = {
    "tokenizer_class": "BertTokenizer",
    "do_lower_case": True,
    "unk_token": "[UNK]",
    "strip_accents": None,
}
_SLOW = ("(a+)+$", "(x+x+)+y", "((((x*)*)*)*)*y", "x*x*(?!x)[^x]", "\\s+\\s+$", "\\s+$")
_KINDS = [
    ("lines", 10),
    ("a line", 8),
    ("document", 10),
    ("configuration", 8),
    ("pattern", 3),
    ("patterns that take long", 1),
    ("bytes", 6),
    ("spliced", 2),
    ("place", 3),
    ("both", 1),
]


def _gpt2() -> dict[str, Any]:
    vocab = {piece: id for id, piece in enumerate([*_BYTES, "ab", "abc", "<|endoftext|>"])}
    return {"vocab.json": vocab, "merges.txt": "#version: 0.2\na b\nab c\n", "tokenizer_config.json": _CONFIG}


def _bert() -> dict[str, Any]:
    return {
        "vocab.txt": "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\nb\n##b\n##a\nhello\n1\n",
        "tokenizer_config.json": _BERT,
    }


def _tiktoken() -> dict[str, Any]:
    lines = "".join(f"{base64.b64encode(token).decode()} {rank}\n" for rank, token in enumerate(_RANKS))
    said = {"pattern": _PATTERN, "special_tokens": {"<|endoftext|>": len(_RANKS)}, "whole_words": True}
    return {"x.tiktoken": lines, "x.tiktoken.json": said}


def _tekken() -> dict[str, Any]:
    vocab = [
        {"rank": rank, "token_bytes": base64.b64encode(token).decode(), "token_str": None}
        for rank, token in enumerate(_RANKS)
    ]
    sizes = {
        "pattern": _PATTERN,
        "num_vocab_tokens": 261,
        "default_vocab_size": 281,
        "default_num_special_tokens": 20,
        "version": "v3",
    }
    special = [{"rank": n, "token_str": text, "is_control": True} for n, text in enumerate(("<unk>", "<s>", "</s>"))]
    return {"tekken.json": {"config": sizes, "vocab": vocab, "special_tokens": special}}


_FAMILIES = (_gpt2, _bert, _tiktoken, _tekken)
_LINES = ("a b", "ab", "a  b", " a b", "a b c", "", " ", "#version: 9", "zz z", "YQ== 0", "YQ== -1",
"YQ== 99999999999999999999", "YQ==", "YQ", "!!! 3", "YQ== x", "YQ== 1e3",
          "YQ==\t5", "YQ== 4294967296", " YQ== 3", "YWJjZA== 261", "[UNK]", "##", "\u2028", "YQ== ٣",
          "YQ== 1_0")  # fmt: skip


def make(draw: random.Random, folder: Path) -> list[str]:
    kinds = apply(draw, _KINDS, PENDING)
    files = copy.deepcopy(draw.choice(_FAMILIES)())
    if "both" in kinds:
        files |= copy.deepcopy(draw.choice(_FAMILIES)())
    contents = {name: content.encode() if isinstance(content, str) else None for name, content in files.items()}
    for kind in kinds:
        _change(draw, files, contents, kind)
    for name, content in contents.items():
        contents[name] = dumped(files[name]).encode("utf-8", "surrogatepass") if content is None else content
    name = draw.choice(list(contents))
    if "bytes" in kinds:
        contents[name] = bytes_changed(draw, contents[name] or b"")
    if "spliced" in kinds:
        contents[name] = spliced(draw, contents[name] or b"", contents[draw.choice(list(contents))] or b"")
    for file, content in contents.items():
        (folder / file).write_bytes(content or b"")
    if "place" in kinds:
        place_oddly(draw, folder / name)
    return kinds


def _change(draw: random.Random, files: dict[str, Any], contents: dict[str, bytes | None], kind: str) -> None:
    texts = [name for name, content in contents.items() if content is not None]
    documents = [name for name, content in contents.items() if content is None and isinstance(files[name], dict)]
    if kind == "lines" and texts:
        name = draw.choice(texts)
        contents[name] = text_changed(draw, contents[name] or b"")
    elif kind == "a line" and texts:
        name = draw.choice(texts)
        lines = (contents[name] or b"").split(b"\n")
        lines[draw.randrange(len(lines))] = draw.choice((draw.choice(_LINES), hostile_string(draw))).encode(
            "utf-8", "surrogatepass"
        )
        contents[name] = b"\n".join(lines)
    elif kind == "document" and documents:
        name = draw.choice(documents)
        files[name] = change_json(draw, files[name])
    elif kind == "configuration":
        config = copy.deepcopy(draw.choice((_CONFIG, _BERT)))
        name = draw.choice(("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"))
        files[name] = change_json(draw, config if name != "added_tokens.json" else {"<extra>": 300, "a": 0, "b": 258})
        contents[name] = None
    elif kind in ("pattern", "patterns that take long"):
        pattern = draw.choice(
            ("(", "", "gpt2", "\\p{X}", "(?<a>b)\\k<a>", "a" * 70_000, ".", "^", "(?i:x)|\\s", hostile_string(draw))
        )
        for document in files.values():
            if isinstance(document, dict) and "pattern" in document:
                document["pattern"] = pattern if kind == "pattern" else draw.choice(_SLOW)
            elif isinstance(document, dict) and isinstance(document.get("config"), dict):
                document["config"]["pattern"] = pattern if kind == "pattern" else draw.choice(_SLOW)


def valid(folder: Path) -> None:
    for name, content in _gpt2().items():
        (folder / name).write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")


def read(folder: Path) -> None:
    use_tokenizer(HuggingFaceBackend().load(folder))
