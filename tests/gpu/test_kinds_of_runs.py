"""Each kind of run trains on a CUDA device what it trains on the CPU."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import graftkit
import pytest
import torch
from encoder_models import encoder_folder
from made_records import labelled_texts, similar_texts, tagged_texts, written
from safetensors.torch import load_file

pytestmark = pytest.mark.gpu

CHATS = [
    {"messages": [{"role": "user", "content": f"say {n}"}, {"role": "assistant", "content": f"{n}!"}]}
    for n in range(40)
]
PAIRS = [{"prompt": f"say {n}", "chosen": f"{n}!", "rejected": f"{n + 1}?"} for n in range(40)]
JUDGED = [{"prompt": f"say {n}", "completion": f"{n}!", "label": n % 2 == 0} for n in range(40)]
LORA = {"use": "lora", "rank": 4}
KINDS: dict[str, tuple[list[dict[str, Any]], dict[str, Any]]] = {
    "nf4, answers": (CHATS, {"quantizer": "nf4", "evaluation": {"answers": 3, "max_new_tokens": 4}}),
    "int8": (CHATS, {"quantizer": "int8"}),
    "stored": (CHATS, {"quantizer": "stored"}),
    "dora, dropout": (CHATS, {"adapter": {**LORA, "dora": True, "dropout": 0.1}}),
    "pissa": (CHATS, {"adapter": {**LORA, "init": "pissa"}}),
    "eva": (CHATS, {"adapter": {**LORA, "init": "eva"}}),
    "full": (CHATS, {"adapter": "full"}),
    "whole modules": (CHATS, {"adapter": {**LORA, "modules_to_save": ["lm_head"]}}),
    "new tokens": (CHATS, {"tokenizer": {"extend": {"words": ["qqqq", "zzzzz"]}}}),
    "checkpointed, offloaded": (CHATS, {"memory": {"checkpoint": "blocks", "offload": True}}),
    "memory as there is": (CHATS, {"memory": {"checkpoint": "auto"}, "training": {"microbatch_tokens": "auto"}}),
    "noise, 8-bit adamw": (CHATS, {"training": {"neftune_noise_alpha": 5.0, "optimizer": "adamw-8bit"}}),
    "dpo": (PAIRS, {"objective": "dpo"}),
    "kto": (JUDGED, {"objective": "kto"}),
    "reward": (PAIRS, {"objective": "reward"}),
    "distill": (CHATS, {"objective": {"use": "distill", "teacher": "tiny"}}),
    "grpo": (
        CHATS,
        {"objective": {"use": "grpo", "max_new_tokens": 4, "beta": 0.1}, "evaluation": {"metrics": "exact-match"}},
    ),
    "classification": (labelled_texts(40), {"objective": "classification", "model": "bert"}),
    "token-classification": (tagged_texts(40), {"objective": "token-classification"}),
    "masked-lm": ([{"text": "the film was long and lovely"}] * 20, {"objective": "masked-lm", "model": "bert"}),
    "embedding": (similar_texts(40), {"objective": "embedding", "model": "bert"}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_what_the_cpu_trains(kind: str, tiny_model: Path, tmp_path: Path) -> None:
    records, sections = KINDS[kind]
    models = {"tiny": tiny_model, "bert": tmp_path / "bert"}
    if sections.get("model") == "bert":
        encoder_folder(models["bert"], "bert")
    objective = sections.get("objective", "sft")
    if isinstance(objective, dict) and "teacher" in objective:
        objective = {**objective, "teacher": str(models[objective["teacher"]])}
    losses, trained = {}, {}
    for device in ("cpu", "cuda"):
        training = {"steps": 3, "tokens_per_step": 256, "learning_rate": 1e-3, "device": device}
        recipe = {
            "data": {"train": str(written(tmp_path / "records.jsonl", records)), "holdout": 0.2, "max_length": 128},
            "quantizer": "none",
            "adapter": LORA,
            **sections,
            "model": str(models[sections.get("model", "tiny")]),
            "objective": objective,
            "training": {**training, "dtype": "float32", **sections.get("training", {})},
        }
        run = graftkit.run(recipe, out=tmp_path / device)
        lines = map(json.loads, (run.folder / "metrics.jsonl").read_text().splitlines())
        losses[device] = [line["loss"] for line in lines if "loss" in line]
        trained[device] = load_file(run.folder / "adapter" / "adapter.safetensors")
    assert losses["cuda"] == pytest.approx(losses["cpu"], rel=1e-3, abs=1e-4)
    assert trained["cuda"].keys() == trained["cpu"].keys()
    for name, tensor in trained["cpu"].items():
        torch.testing.assert_close(trained["cuda"][name], tensor, rtol=1e-2, atol=1e-4, msg=name)
