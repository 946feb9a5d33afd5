"""Recipes in YAML and TOML, and what `--set` puts into them; names are bound to providers as `toolkit plan` does."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from graftkit.host.host import PluginHost
from graftkit.recipe.bind import bind
from graftkit.recipe.load import load_recipe
from graftkit.testing import isolated_host

from hostile.mutate import apply, bytes_changed, change_json, dumped, hostile_string, place_oddly, spliced, text_changed

PENDING: frozenset[str] = frozenset()
NAMED = ("--set",)

_KINDS = [
    ("document", 16),
    ("override", 8),
    ("syntax", 6),
    ("bytes", 6),
    ("lines", 5),
    ("spliced", 2),
    ("place", 1),
    ("large", 1),
]
_FULL: dict[str, Any] = {
    "model": {"path": "org/name"},
    "tokenizer": {
        "extend": {"tokens": 10, "corpus": ["records.jsonl"], "words": ["a b"]},
        "embedding_init": {"use": "mean"},
    },
    "data": {
        "train": ["records.jsonl"],
        "holdout": 0.1,
        "max_length": 64,
        "date": "2026-01-31",
        "chat_template": "t.jinja",
    },
    "quantizer": {"use": "nf4"},
    "adapter": {"use": "lora", "rank": 4, "alpha": 8, "targets": ["q_proj"]},
    "training": {
        "steps": 6,
        "tokens_per_step": 256,
        "learning_rate": 1e-2,
        "device": "cpu",
        "schedule": "cosine",
        "seed": 3,
    },
    "evaluation": {"answers": 4},
    "export": [{"use": "peft"}, {"use": "merged", "name": "m"}],
    "plugins": {"disable": []},
}
_SHORT: dict[str, Any] = {"model": "./here", "data": {"train": "records.jsonl"}, "adapter": "qlora", "export": ["peft"]}
_YAML = (
    "a: &a [x, x]\nmodel: *a", "model: !!python/object/apply:os.system ['true']", "model: !!binary aGk=",
    "? [a, b]\n: c", "? {a: b}\n: c",
    "<<: {a: 1}", "--- a\n--- b", "%YAML 99.9\n---\nmodel: a", "%YAML 1." + "9" * 5000 + "\n--- a", '"\\UFFFFFFFF": 1',
    '"\\ud800": 1', "- a\n- b",
    "model: |\n  a\n b", "model: >9\n  x", "\tmodel: x", "model: 'x", "model: [", "model: {a: {a: {", "[" * 3000,
    "{a: " * 300, "- " * 2000 + "x",
    "a: " * 200, "model: 0x1F", "model: 1_000", "model: 2001-12-14t21:59:43.10-05:00", "model: .inf", "1: 2", "null: 1",
    "~: x", "true: x", "model: @x",
    "model: `x`", "&a a: *a", "model: \u2028x", "model: \x07", "model: \ufffe", "#" * 70000, "x: " + "9" * 5000,
    "x: 1e" + "9" * 5000, "? |\n  a\n: b",
)  # fmt: skip
_TOML = (
    "[a]\n[a]", "a = 1\na.b = 2", "[[a]]\n[a]", "a = {b = 1, b = 2}", "a = 1979-05-27T07:32:00Z", "a = 07:32:00",
    "a = 1979-05-27", "a = nan", "a = -inf",
    "a = 0xFF", "a = 0b" + "1" * 5000, "a = " + "9" * 5000, "a = '''", 'a = "\\ud800"', 'a = "\\UFFFFFFFF"',
    "a = [" * 50, "a = " + "[" * 5000,
    "[" + "a." * 60 + "a]", "a." * 60 + "a = 1", "a = {" * 3000, '"" = 1', '[""]', "a = 1e400", "a = 1_0", "\x00 = 1",
    "a = \x7f", "[model]\npath = 1\n[model.path]",
    "[[export]]\nuse = 'peft'\n[[export]]\nuse = 3", "a\u0301 = 1", "[ a . 'b.c' ]\nx = 1", "model = 12:00:00",
    "data = {train = 1979-05-27}",
)  # fmt: skip
_host: PluginHost | None = None


def prepare(folder: Path) -> None:
    global _host
    _host = isolated_host()


def _yaml(value: Any, depth: int = 0) -> str:
    if isinstance(value, dict) and value and depth < 3:
        lines = []
        for key, item in value.items():
            inner = _yaml(item, depth + 1)
            nested = isinstance(item, dict) and item and depth < 2
            lines.append(f"{'  ' * depth}{json.dumps(str(key))}:" + (f"\n{inner}" if nested else f" {inner.strip()}"))
        return "\n".join(lines)
    return "  " * depth + dumped(value)


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return (
            "{"
            + ", ".join(f"{json.dumps(str(key), ensure_ascii=False)} = {_toml(item)}" for key, item in value.items())
            + "}"
        )
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return (
        {None: '"null"', True: "true", False: "false"}.get(value, dumped(value))
        if value is None or isinstance(value, bool)
        else dumped(value)
    )


def _written(value: Any, suffix: str) -> str:
    if suffix != ".toml":
        return _yaml(value) + "\n"
    if not isinstance(value, dict):
        return _toml(value)
    return (
        "\n".join(f"{json.dumps(str(key), ensure_ascii=False)} = {_toml(item)}" for key, item in value.items()) + "\n"
    )


def _override(draw: random.Random) -> str:
    key = draw.choice(("training.epochs", "model", "model.path", "adapter.rank", "adapter", "export", "data.train",
    "a.b.c.d", "", ".", "a..b",
                       "training", "export.0.use", "." * 300, "tokenizer.extend.words", "tokenizer.replace",
                       hostile_string(draw)))  # fmt: skip
    value = draw.choice(("3", "", "[a, b]", "{use: nf4}", "{", "[" * 500, "&a x", "*a", "!!python/name:os.system",
    "9" * 5000, "~", "'", "- a", "a: b: c",
                         "1e999", "\x00", "\ud800", "x" * 5000, "%YAML 9", "null", "{a: {b: {c: {d: 1}}}}",
                         hostile_string(draw)))  # fmt: skip
    return draw.choice((f"{key}={value}", f"{key}={value}", key, f"={value}", f"{key} = {value}"))


def make(draw: random.Random, folder: Path) -> list[str]:
    kinds = apply(draw, _KINDS, PENDING)
    suffix = draw.choice((".yaml", ".yaml", ".toml", ".yml"))
    document: Any = json.loads(json.dumps(draw.choice((_FULL, _SHORT))))
    for kind in kinds:
        if kind == "document" and isinstance(document, dict):
            document = change_json(draw, document)
    data = _written(document, suffix).encode("utf-8", "surrogatepass")
    for kind in kinds:
        data = _changed(draw, data, kind, suffix)
    path = folder / f"recipe{suffix}"
    path.write_bytes(data)
    overrides = [_override(draw) for _ in range(kinds.count("override"))]
    (folder / "overrides.json").write_text(json.dumps(overrides))
    if "place" in kinds:
        place_oddly(draw, path)
    return kinds


def _changed(draw: random.Random, data: bytes, kind: str, suffix: str) -> bytes:
    if kind == "syntax":
        odd = draw.choice(_TOML if suffix == ".toml" else _YAML).encode("utf-8", "surrogatepass")
        return draw.choice((odd, data + b"\n" + odd, odd + b"\n" + data))
    if kind == "bytes":
        return bytes_changed(draw, data)
    if kind == "lines":
        return text_changed(draw, data)
    if kind == "spliced":
        return spliced(draw, data, _written(draw.choice((_FULL, _SHORT)), draw.choice((suffix, ".toml"))).encode())
    if kind == "large":
        line = draw.choice((b"# x\n", b"a%d: 1\n", b"[a%d]\n", b"- x\n"))
        return data + b"".join(line % n if b"%d" in line else line for n in range(draw.choice((2000, 20_000))))
    return data


def valid(folder: Path) -> None:
    (folder / "recipe.yaml").write_text(_written(_FULL, ".yaml"))
    (folder / "overrides.json").write_text('["training.steps=7"]')


def read(folder: Path) -> None:
    assert _host is not None
    found = [path for path in folder.iterdir() if path.name.startswith("recipe.") and path.suffix != ".real"]
    path = found[0] if found else folder / "recipe.yaml"
    loaded = load_recipe(path, json.loads((folder / "overrides.json").read_text()))
    bound = bind(loaded, _host)
    json.dumps(bound.resolved())
    bound.providers()
