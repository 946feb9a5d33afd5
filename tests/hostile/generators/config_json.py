"""A model's folder whose config.json, or generation_config.json, is malformed; the model is built without memory."""

from __future__ import annotations

import copy
import json
import random
import shutil
from pathlib import Path
from typing import Any

from graftkit.flow.base_files.open_model import embedding_rows
from graftkit.interfaces.architecture import is_multimodal
from graftkit.model.context import context_length
from graftkit.model.model_plan import plan_base_model
from graftkit.testing import tiny_model_folder
from graftkit_models.huggingface import HuggingFaceSource

from hostile.mutate import (
    Raw,
    apply,
    bytes_changed,
    change_json,
    dumped,
    hostile_value,
    place_oddly,
    spliced,
    text_changed,
)

PENDING: frozenset[str] = frozenset()
AT_ONCE = 500

_COUNTS = ("num_hidden_layers", "vocab_size", "hidden_size", "intermediate_size", "num_attention_heads",
"num_key_value_heads", "head_dim",
           "max_position_embeddings")  # fmt: skip
_TYPES = ("mistral", "qwen2", "qwen3", "gemma", "gpt2", "bert", "t5", "clip", "no-such-type", "", "llama4", "gemma3",
"mamba2", "mixtral",
          "Llama", "../llama", "llava")  # fmt: skip
_CODE: dict[str, Any] = {
    "auto_map": {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"},
    "custom_pipelines": {"a": {"impl": "evil.P"}},
    "trust_remote_code": True,
    "attn_implementation": "https://example.org/kernel",
    "_attn_implementation": "kernels-community/evil",
    "_attn_implementation_internal": "evil/evil",
    "quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True},
    "transformers_version": "99.0.0",
    "torch_dtype": "__import__('os')",
    "dtype": "os.system",
    "_name_or_path": "/etc",
    "rope_scaling": {"rope_type": "yarn", "factor": 1e9},
    "rope_parameters": {"rope_type": "longrope", "short_factor": [1.0], "long_factor": []},
    "layer_types": ["full_attention", "no_such_attention"],
    "hidden_act": "__class__",
    "text_config": {"model_type": "llama"},
    "vision_config": {},
    "is_encoder_decoder": True,
    "pad_token_id": 10**9,
    "base_model_tp_plan": {"layers.*": "evil"},
    "sliding_window": -1,
    "num_local_experts": 1000,
}
_KINDS = [
    ("document", 14),
    ("a count", 6),
    ("huge counts", 2),
    ("model type", 3),
    ("a field that means more", 6),
    ("generation settings", 3),
    ("bytes", 4),
    ("text", 2),
    ("spliced", 1),
    ("place", 2),
]
_original: Path | None = None


def prepare(folder: Path) -> None:
    global _original
    _original = tiny_model_folder(folder / "original", num_hidden_layers=1)


def valid(folder: Path) -> None:
    assert _original is not None
    for path in _original.iterdir():
        shutil.copyfile(path, folder / path.name)


def make(draw: random.Random, folder: Path) -> list[str]:
    valid(folder)
    path = folder / "config.json"
    config: Any = json.loads(path.read_bytes())
    kinds = apply(draw, _KINDS, PENDING)
    for kind in kinds:
        if not isinstance(config, dict):
            break
        if kind == "document":
            config = change_json(draw, config)
        elif kind == "a count":
            config[draw.choice(_COUNTS)] = draw.choice(
                (0, -1, 1, 3, 5, 63, 65, 1.5, "2", None, True, [], Raw("1e400"), Raw("NaN"))
            )
        elif kind == "huge counts":
            config[draw.choice(_COUNTS)] = draw.choice((10**4, 10**5, 10**6, 2**31, 2**63, 10**30))
        elif kind == "model type":
            config["model_type"] = draw.choice(_TYPES)
        elif kind == "a field that means more":
            name = draw.choice(sorted(_CODE))
            config[name] = copy.deepcopy(draw.choice((_CODE[name], _CODE[name], hostile_value(draw))))
    if "huge counts" in PENDING and isinstance(config, dict):
        config |= {name: 3 for name in _COUNTS if type(config.get(name)) in (int, float) and abs(config[name]) > 600}
    data = dumped(config).encode("utf-8", "surrogatepass")
    if "bytes" in kinds:
        data = bytes_changed(draw, data)
    if "text" in kinds:
        data = text_changed(draw, json.dumps(json.loads(path.read_bytes()), indent=1).encode())
    if "spliced" in kinds:
        data = spliced(draw, data, data)
    path.write_bytes(data)
    if "generation settings" in kinds:
        settings = change_json(
            draw, {"eos_token_id": [258], "temperature": 0.6, "do_sample": True, "bos_token_id": 257}
        )
        (folder / "generation_config.json").write_bytes(bytes_changed(draw,
        dumped(settings).encode()) if draw.random() < 0.3
                                                        else dumped(settings).encode())  # fmt: skip
    if "place" in kinds:
        place_oddly(draw, folder / draw.choice(("config.json", "generation_config.json", "tokenizer_config.json")))
    return kinds


def read(folder: Path) -> None:
    files = HuggingFaceSource().open(str(folder))
    context_length(files.config)
    embedding_rows(files)
    is_multimodal(files.config)
    assert isinstance(files.generation_config, dict)
    plan_base_model(files)
