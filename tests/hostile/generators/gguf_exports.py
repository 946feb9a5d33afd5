"""GGUF files of exports, as llama.cpp is given them for a proof: what reaches it, it must load or refuse."""

from __future__ import annotations

import random
from pathlib import Path

from graftkit import Probe, ProofRequest
from graftkit.errors import ExportError, GraftkitError
from graftkit.flow.exports.assets import ExpectedAssets
from graftkit.flow.exports.check_export import template_check
from graftkit_gguf.model_exporter import GgufExporter
from torch.nn import Identity

from hostile.generators.gguf_files import _KINDS as _OF_FILES
from hostile.generators.gguf_files import _STRING, _U32, _change, _File
from hostile.mutate import apply, bytes_changed, spliced

PENDING: frozenset[str] = frozenset()
AT_ONCE = 200

_KINDS = [*((kind, weight) for kind, weight in _OF_FILES if kind != "place"), ("a setting", 14), ("template", 6)]
_SIZES = (0, 1, 2, 3, 15, 17, 31, 33, 64, 259, 261, 2**16, 2**24, 2**24 + 1, 2**31 - 1, 2**31, 2**32 - 1)
_LOOP = "{% for i in range(99999) %}{% for j in range(99999) %}x{% endfor %}{% endfor %}"
_TEMPLATES = (
    _LOOP, f"{{% if tools %}}{_LOOP}{{% endif %}}", "{% for i in range(10**9) %}{% endfor %}", "{{ 'x' * 10**9 }}",
    "{{" + "(" * 40_000 + "1" + ")" * 40_000 + "}}", "{% for", "{{ x.y.z }}", "{{ raise_exception('a\nb') }}", "",
    "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "{{ messages }}", "\x1b]0;x\x07{{ messages[0]['content'] }}",
)  # fmt: skip
_TURNS = [{"role": "user", "content": "Hello"}]


def _file() -> _File:
    """Returns the file of an export."""
    file = _File()
    file.keys = [key for key in file.keys if key[0] != "general.alignment"]
    file.keys[1:1] = [["llama.attention.key_length", _U32, 16], ["llama.attention.value_length", _U32, 16]]
    next(key for key in file.keys if key[0] == "tokenizer.ggml.pre")[2] = "gpt-2"
    end = 0
    for tensor in file.tensors:
        count = tensor[1][0] * (tensor[1][1] if len(tensor[1]) > 1 else 1)
        tensor[2] = 0 if len(tensor[1]) < 2 else tensor[2] if tensor[2] in (0, 1, 8, 30) else 8
        tensor[3] = end
        end += -(-{0: 4 * count, 1: 2 * count, 30: 2 * count, 8: count // 32 * 34}[tensor[2]] // 32) * 32
    file.data = bytes(end)
    return file


def make(draw: random.Random, folder: Path) -> list[str]:
    kinds = apply(draw, _KINDS, PENDING)
    file = _file()
    for kind in kinds:
        if kind == "a setting":
            numbers = [key for key in file.keys if not isinstance(key[2], tuple) and key[1] != _STRING]
            draw.choice(numbers or file.keys)[2] = draw.choice(_SIZES)
        elif kind == "template":
            file.keys.append(["tokenizer.chat_template", _STRING, draw.choice(_TEMPLATES)])
            file.keys = [key for key in file.keys if key[0] != "tokenizer.chat_template" or key is file.keys[-1]]
        elif file.keys and file.tensors and (kind != "alignment" or len(file.keys) > 1):
            _change(draw, file, kind)
    data = file.bytes()
    if "bytes" in kinds:
        cut = len(data) - len(file.data)
        data = bytes_changed(draw, data[:cut]) + data[cut:]
    if "spliced" in kinds:
        data = spliced(draw, data, _file().bytes())
    (folder / "model.gguf").write_bytes(data)
    return kinds


def valid(folder: Path) -> None:
    (folder / "model.gguf").write_bytes(_file().bytes())


def read(folder: Path) -> None:
    expected = ExpectedAssets(["abc", "Grüße \n"], [[1], [2]], _TURNS, "x", None, {}, [])
    check = template_check(folder, expected)
    probes = [Probe((1, 2, 3, 4), (1, 3))]
    request = ProofRequest(folder, probes, Identity, expected.texts, _TURNS, check_template=check)
    exporter = GgufExporter()
    try:
        assert len(exporter.logits(request)) == 1
        assert len(exporter.assets(request).tokens or ()) == 2
    except GraftkitError:
        raise
    except Exception as error:  # as the process that asks for the proof says it
        raise ExportError(f"it can't be loaded again: {type(error).__name__}", where=str(folder)) from None
