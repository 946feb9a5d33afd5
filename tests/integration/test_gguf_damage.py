"""GGUF exports whose weights, template or tokens are not the run's: their proof says so, and what it is."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import graftkit
import numpy as np
import pytest
from graftkit.errors import ExportError
from graftkit.flow.export import prove
from graftkit.testing import tiny_model_folder
from graftkit_gguf.file_writer import write_gguf
from graftkit_gguf.header import read_header

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
PLAIN = [{"prompt": f"say {n}", "completion": f"{n}!"} for n in range(20)]
CHATS = [
    {"messages": [{"role": "user", "content": f"say {n}"}, {"role": "assistant", "content": f"{n}!"}]}
    for n in range(20)
]
Values = dict[str, Any]


def run(folder: Path, template: str, records: list[dict[str, Any]], *, adds_bos: bool) -> graftkit.RunResult:
    model = tiny_model_folder(folder / "model")
    spec = json.loads((model / "tokenizer.json").read_bytes())
    config = json.loads((model / "tokenizer_config.json").read_bytes())
    if adds_bos:
        spec["post_processor"] = {
            "type": "TemplateProcessing",
            "single": [
                {"SpecialToken": {"id": "<|endoftext|>", "type_id": 0}},
                {"Sequence": {"id": "A", "type_id": 0}},
            ],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<|endoftext|>": {"id": "<|endoftext|>", "ids": [256], "tokens": ["<|endoftext|>"]}},
        }
    config |= {"bos_token": "<|endoftext|>", "add_bos_token": adds_bos, "chat_template": template}
    (model / "tokenizer.json").write_text(json.dumps(spec))
    (model / "tokenizer_config.json").write_text(json.dumps(config))
    path = folder / "records.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    training = {"steps": 2, "tokens_per_step": 128, "learning_rate": 3e-2, "device": "cpu"}
    recipe = {"model": str(model), "data": {"train": str(path)}, "training": training}
    return graftkit.run({**recipe, "export": [{"use": "gguf", "type": "f32"}]}, out=folder / "run")


@pytest.mark.parametrize(
    ("template", "records", "adds"),
    [
        pytest.param("{{ bos_token }}" + CHATML, CHATS, True, id="the template writes it"),
        pytest.param("<|endoftext|>" + CHATML, CHATS, True, id="the template spells it"),
        pytest.param(CHATML, CHATS, False, id="no conversation had it"),
        pytest.param(CHATML, PLAIN, True, id="texts had it"),
    ],
)
def test_llama_cpp_begins_a_prompt_as_training_did(
    template: str, records: list[dict[str, Any]], adds: bool, tmp_path: Path
) -> None:
    result = run(tmp_path, template, records, adds_bos=True)
    header = read_header(result.exports["gguf"] / "model.gguf")
    assert header.metadata["tokenizer.ggml.add_bos_token"] is adds
    assert result.manifest["exports"]["gguf"]["proof"]["covers"] == ["logits", "tokens", "template", "stop tokens"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> graftkit.RunResult:
    return run(tmp_path_factory.mktemp("run"), CHATML, CHATS, adds_bos=False)


def swapped(values: Values, tensors: Values) -> None:
    names = ("blk.0.ffn_up.weight", "blk.1.ffn_up.weight")
    tensors[names[0]], tensors[names[1]] = tensors[names[1]], tensors[names[0]]


def unpermuted(values: Values, tensors: Values) -> None:
    name = "blk.0.attn_q.weight"
    rows = tensors[name].reshape(4, 8, 2, -1)
    tensors[name] = np.ascontiguousarray(rows.swapaxes(1, 2)).reshape(tensors[name].shape)


DAMAGE: dict[str, Callable[[Values, Values], object]] = {
    "logits": swapped,
    "logits ": unpermuted,
    "logits  ": lambda values, tensors: values.update({"llama.rope.freq_base": 5e5}),
    "chat template: it writes": lambda values, tensors: values.update(
        {"tokenizer.chat_template": CHATML.replace("assistant", "model")}
    ),
    "stop tokens: [258] are missing": lambda values, tensors: (
        values.update({"tokenizer.ggml.eos_token_id": 256}),
        values["tokenizer.ggml.tokens"].__setitem__(258, "<|stop|>"),
        values.update({"tokenizer.chat_template": "{{ messages[0].content }}"}),
    ),
    "token ids: ": lambda values, tensors: values["tokenizer.ggml.tokens"].insert(
        65, values["tokenizer.ggml.tokens"].pop(70)
    ),
}


@pytest.mark.parametrize("message", DAMAGE)
def test_damage_is_named(message: str, finished: graftkit.RunResult, tmp_path: Path) -> None:
    folder = shutil.copytree(finished.folder, tmp_path / "run") / "exports" / "gguf"
    header = read_header(folder / "model.gguf")
    whole = (folder / "model.gguf").read_bytes()
    values = {
        key: list(value) if isinstance(value, list) or hasattr(value, "typecode") else value
        for key, value in header.metadata.items()
        if key not in ("GGUF.version", "general.alignment")
    }
    tensors = {
        name: np.frombuffer(whole, np.float32, int(np.prod(tensor.shape)), tensor.offset).reshape(tensor.shape[::-1])
        for name, tensor in header.tensors.items()
    }
    DAMAGE[message](values, tensors)
    write_gguf(
        folder / "model.gguf",
        values,
        ((name, t.shape, "f32", t.reshape(-1).view(np.uint8)) for name, t in tensors.items()),
    )
    with pytest.raises(ExportError) as caught:
        prove(folder, tmp_path / "run" / "probes.safetensors", trusted=True)
    assert message.strip() in caught.value.message
