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
from graftkit.flow.exports.proof import prove
from graftkit.testing import tiny_model_folder
from graftkit_gguf.file_writer import write_gguf
from graftkit_gguf.header import GgufTensor, read_header

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


def run(
    folder: Path, template: str, records: list[dict[str, Any]], *, adds_bos: bool, type_: str = "f32"
) -> graftkit.RunResult:
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
    return graftkit.run({**recipe, "export": [{"use": "gguf", "type": type_}]}, out=folder / "run")


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
def finished(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> graftkit.RunResult:
    return run(tmp_path_factory.mktemp("run"), CHATML, CHATS, adds_bos=False, type_=request.param)


def swapped(values: Values, tensors: Values) -> None:
    names = ("blk.0.ffn_up.weight", "blk.1.ffn_up.weight")
    tensors[names[0]], tensors[names[1]] = tensors[names[1]], tensors[names[0]]


def unpermuted(values: Values, tensors: Values) -> None:
    name = "blk.0.attn_q.weight"
    rows = tensors[name].reshape(4, 8, 2, -1)
    tensors[name] = np.ascontiguousarray(rows.swapaxes(1, 2)).reshape(tensors[name].shape)


def scaled(values: Values, tensors: Values) -> None:
    """Makes the scales of Q4_0's blocks half as large again."""
    name = "blk.1.ffn_down.weight"
    blocks = tensors[name].reshape(-1, 18).copy()
    blocks[:, :2] = (blocks[:, :2].copy().view(np.float16) * np.float16(1.5)).view(np.uint8)
    tensors[name] = blocks.reshape(tensors[name].shape)


WEIGHTS = r"it computes something else than what was trained: (logits|the divergence|the weight)"
DAMAGE: dict[str, tuple[str, Callable[[Values, Values], object]]] = {
    "swapped layers": (WEIGHTS, swapped),
    "rows of q in another order": (WEIGHTS, unpermuted),
    "another scale": (WEIGHTS, scaled),
    "another rotary embedding": (WEIGHTS, lambda values, tensors: values.update({"llama.rope.freq_base": 50.0})),
    "another template": (
        "chat template: it writes",
        lambda values, tensors: values.update({"tokenizer.chat_template": CHATML.replace("assistant", "model")}),
    ),
    "a missing stop token": (
        r"stop tokens: \[258\] are missing",
        lambda values, tensors: (
            values.update({"tokenizer.ggml.eos_token_id": 256}),
            values["tokenizer.ggml.tokens"].__setitem__(258, "<|stop|>"),
            values.update({"tokenizer.chat_template": "{{ messages[0].content }}"}),
        ),
    ),
    "tokens in another order": (
        "token ids: ",
        lambda values, tensors: values["tokenizer.ggml.tokens"].insert(65, values["tokenizer.ggml.tokens"].pop(70)),
    ),
}


IN_BLOCKS = ("swapped layers", "rows of q in another order", "another scale", "another rotary embedding")
"""What is tried in Q4_0, too: what else a file holds is compared whatever the weights are stored in."""


@pytest.mark.parametrize(
    ("finished", "damage"),
    [
        *[("f32", damage) for damage in DAMAGE if damage != "another scale"],
        *[("q4_0", damage) for damage in (*IN_BLOCKS, "another template", "a missing stop token")],
    ],
    indirect=["finished"],
)
def test_damage_is_named(damage: str, finished: graftkit.RunResult, tmp_path: Path) -> None:
    message, change = DAMAGE[damage]
    folder = shutil.copytree(finished.folder, tmp_path / "run") / "exports" / "gguf"
    header = read_header(folder / "model.gguf")
    whole = (folder / "model.gguf").read_bytes()
    values = {
        key: list(value) if isinstance(value, list) or hasattr(value, "typecode") else value
        for key, value in header.metadata.items()
        if key not in ("GGUF.version", "general.alignment")
    }
    tensors = {name: stored(whole, tensor) for name, tensor in header.tensors.items()}
    change(values, tensors)
    write_gguf(
        folder / "model.gguf",
        values,
        (
            (name, tensor.shape[::-1], tensor.type.name.lower(), tensors[name].reshape(-1).view(np.uint8))
            for name, tensor in header.tensors.items()
        ),
    )
    with pytest.raises(ExportError, match=message):
        prove(folder, tmp_path / "run" / "probes.safetensors", trusted=True)


def stored(whole: bytes, tensor: GgufTensor) -> Any:
    """Returns a tensor's rows as they are stored: numbers, or bytes of blocks."""
    bytes_ = np.frombuffer(whole, np.uint8, tensor.nbytes, tensor.offset)
    return (
        bytes_.view(np.float32).reshape(tensor.shape[::-1])
        if tensor.type.name == "F32"
        else bytes_.reshape(tensor.shape[1], -1)
    )
