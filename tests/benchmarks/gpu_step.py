"""Training steps on a GPU: graftkit against transformers + PEFT + bitsandbytes, on the same sequences.

    python tests/benchmarks/gpu_step.py [--size 135m|1b|8b ...] [--rounds 3] [--steps 8] [--storage nf4|none]

The models have the shapes of SmolLM2-135M, Llama 3.2 1B and Llama 3.1 8B, and random weights. Both sides train LoRA of
rank 16 on all linear layers in bfloat16 over frozen weights in NF4 (or bfloat16), 16,384 tokens a step in sequences of
64 to 1,000 tokens. graftkit packs them into passes of 8,192 tokens; the peer pads them into batches of 16 (4 for 8B),
sorted by length, as `group_by_length` does. Neither recomputes activations. Tokens are counted without padding. Sides
alternate, each run in a fresh process; the first two steps of a run, which warm up, are left out.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

SIZES: dict[str, dict[str, Any]] = {
    "135m": {"hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30, "num_attention_heads": 9}
    | {"num_key_value_heads": 3, "vocab_size": 49152, "tie_word_embeddings": True},
    "1b": {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 32}
    | {"num_key_value_heads": 8, "vocab_size": 128256, "tie_word_embeddings": True, "head_dim": 64},
    "8b": {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32}
    | {"num_key_value_heads": 8, "vocab_size": 128256, "tie_word_embeddings": False},
}
TOKENS_PER_STEP = 16384
TOKENS_PER_PASS = 8192
PEER_BATCH = {"135m": 16, "1b": 16, "8b": 4}
"""As many of 1,000 tokens as 80 GB hold."""
RANK = 16
WARM_UP = 2


def sequences(vocabulary: int, steps: int) -> list[list[int]]:
    """Returns random sequences of 64 to 1,000 tokens, enough for the steps."""
    import random

    draw = random.Random(0)
    found: list[list[int]] = []
    while sum(map(len, found)) < (steps + 1) * TOKENS_PER_STEP:
        found.append([draw.randrange(vocabulary) for _ in range(draw.randint(64, 1000))])
    return found


class RandomModel:
    """Base model files that are nowhere: bfloat16 weights of the right sizes, made when they are read."""

    reference = "random"
    files = ()

    def __init__(self, config: Mapping[str, Any]) -> None:
        import torch
        from graftkit.interfaces.model_source import TensorInfo
        from graftkit.model.skeleton import build_skeleton

        self.config = {"model_type": "llama", "max_position_embeddings": 8192, **config}
        names = dict(build_skeleton(self.config, "random").named_parameters())
        self.tensors = {name: TensorInfo(tuple(tensor.shape), "BF16") for name, tensor in names.items()}
        self._noise = torch.randn(1 << 22, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16)

    def read(self) -> Iterator[tuple[str, Any]]:
        """Yields each tensor."""
        for name in self.tensors:
            yield name, self.tensor(name)

    def tensor(self, name: str) -> Any:
        """Returns one tensor."""
        import torch

        shape = self.tensors[name].shape
        if len(shape) == 1:
            return torch.ones(shape, dtype=torch.bfloat16)
        size = math.prod(shape)
        noise = self._noise.repeat(-(-size // len(self._noise)))[:size]
        return noise.view(shape) * shape[-1] ** -0.5


def ours(config: Mapping[str, Any], steps: int, storage: str, profile: str | None) -> dict[str, Any]:
    """Trains with graftkit's own loader and trainer."""
    import numpy as np
    import torch
    from graftkit.model.adapt import adapt
    from graftkit.model.load import load_base_model
    from graftkit.model.model_plan import check_base_model
    from graftkit.model.packing import choose_packing, use_packing
    from graftkit.recipe.schema.training import TrainingSection
    from graftkit.store.token_store import Example, TokenStore
    from graftkit.training.loop import Trainer
    from graftkit_adapters.config import LoraConfig
    from graftkit_adapters.lora import Lora
    from graftkit_quantizers.dense import Dense
    from graftkit_quantizers.nf4 import Nf4

    device, files = torch.device("cuda"), RandomModel(config)
    quantizer = {"nf4": Nf4, "none": Dense}[storage]()
    network: Any = load_base_model(files, quantizer, device=device, dtype=torch.bfloat16)
    packing = choose_packing(files.config)
    use_packing(network, packing)
    layers = [layer.path for layer in check_base_model(files)]
    adapted = adapt(network, Lora(LoraConfig(rank=RANK, alpha=2 * RANK)), layers, seed=0)
    parameters = {
        f"{layer}.{name}": p for layer, weight in adapted.items() for name, p in weight.trainable_parameters().items()
    }
    examples = [
        Example(np.array(ids, np.int64), np.ones(len(ids), np.float32), 1)
        for ids in sequences(config["vocab_size"], steps)
    ]
    options = TrainingSection(
        steps=steps, tokens_per_step=TOKENS_PER_STEP, microbatch_tokens=TOKENS_PER_PASS, dtype="bfloat16", warmup=0.0
    )
    trainer = Trainer(network, parameters, TokenStore.of(examples), options, device, packed=packing.packed)
    seconds, tokens, losses = [], [], []
    torch.cuda.reset_peak_memory_stats()

    def note(info: Any) -> None:
        torch.cuda.synchronize()
        seconds.append(info.seconds)
        tokens.append(info.tokens)
        losses.append(info.loss)

    if profile:
        _profiled(lambda: trainer.run(note), profile)
    else:
        trainer.run(note)
    return _facts(seconds, tokens, losses)


def theirs(config: Mapping[str, Any], batch_size: int, steps: int, storage: str) -> dict[str, Any]:
    """Trains with transformers, PEFT and bitsandbytes, in a plain loop over padded batches."""
    import bitsandbytes as bnb
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, LlamaConfig

    torch.manual_seed(0)
    built = LlamaConfig(max_position_embeddings=8192, **config)
    with torch.device("cuda"):
        model = AutoModelForCausalLM.from_config(built, dtype=torch.bfloat16, attn_implementation="sdpa")
    if storage == "nf4":
        for name, layer in list(model.named_modules()):
            if isinstance(layer, torch.nn.Linear) and ".layers." in name:
                stored = bnb.nn.Linear4bit(
                    layer.in_features, layer.out_features, bias=False, compute_dtype=torch.bfloat16,
                    quant_type="nf4", compress_statistics=False,
                )  # fmt: skip
                stored.weight = bnb.nn.Params4bit(
                    layer.weight.data.cpu(), requires_grad=False, quant_type="nf4", compress_statistics=False
                )
                model.set_submodule(name, stored.to("cuda"))
    model = get_peft_model(model, LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules="all-linear"))
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=2e-4)
    rows = sequences(config["vocab_size"], steps)
    seconds, tokens, losses = [], [], []
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    model.train()
    for _ in range(steps):
        step, size = [], 0
        while size + len(rows[-1]) <= TOKENS_PER_STEP:
            size += len(rows[-1])
            step.append(rows.pop())
        step.sort(key=len)
        start, loss = time.perf_counter(), 0.0
        for first in range(0, len(step), batch_size):
            batch = step[first : first + batch_size]
            longest = max(map(len, batch))
            ids = torch.tensor([row + [0] * (longest - len(row)) for row in batch], device="cuda")
            mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in batch], device="cuda")
            found = model(
                input_ids=ids, attention_mask=mask, labels=ids.masked_fill(mask == 0, -100), num_items_in_batch=size
            )
            found.loss.backward()
            loss += found.loss.item()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
        tokens.append(size)
        losses.append(loss)
    return _facts(seconds, tokens, losses)


def _facts(seconds: list[float], tokens: list[int], losses: list[float]) -> dict[str, Any]:
    import torch

    return {
        "rate": sum(tokens[WARM_UP:]) / sum(seconds[WARM_UP:]),
        "peak_mb": torch.cuda.max_memory_allocated() >> 20,
        "loss": losses[-1],
        "card": torch.cuda.get_device_name(),
    }


def _profiled(work: Any, path: str) -> None:
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as found:
        work()
    averages = found.key_averages()
    table = averages.table(sort_by="self_cuda_time_total", row_limit=25, max_name_column_width=60)
    table += averages.table(sort_by="self_cpu_time_total", row_limit=25, max_name_column_width=60)
    Path(path).write_text(table)


def main() -> None:
    """Runs both sides in turn and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--storage", choices=["nf4", "none"], default="nf4")
    parser.add_argument("--side", choices=["graftkit", "peer"], help="run this one once and print its figures")
    parser.add_argument("--profile", help="with --side graftkit: the file that a profile goes into")
    options = parser.parse_args()
    import torch

    if not torch.cuda.is_available():
        print("there is no CUDA device: nothing to measure")
        return
    if options.side:
        config = SIZES[options.size[0]]
        facts = (
            ours(config, options.steps, options.storage, options.profile)
            if options.side == "graftkit"
            else theirs(config, PEER_BATCH[options.size[0]], options.steps, options.storage)
        )
        print(json.dumps(facts))
        return
    print(f"{'model':8}{'side':10}{'tokens/s':>10}{'ratio':>8}{'peak MB':>10}{'last loss':>11}")
    for size in options.size:
        found: dict[str, list[dict[str, Any]]] = {"graftkit": [], "peer": []}
        for _ in range(options.rounds):
            for side, runs in found.items():
                command = [sys.executable, __file__, "--side", side, "--size", size, "--steps", str(options.steps)]
                command += ["--storage", options.storage]
                done = subprocess.run(command, capture_output=True, text=True)
                if done.returncode:
                    sys.exit(f"{size}, {side}:\n{done.stderr[-3000:]}")
                runs.append(json.loads(done.stdout.splitlines()[-1]))
        base = statistics.median(run["rate"] for run in found["peer"])
        for side, runs in found.items():
            rate = statistics.median(run["rate"] for run in runs)
            print(
                f"{size:8}{side:10}{rate:10.0f}{rate / base:8.2f}{max(run['peak_mb'] for run in runs):10}"
                f"{runs[-1]['loss']:11.3f}", flush=True
            )  # fmt: skip
    print(found["graftkit"][0]["card"])


if __name__ == "__main__":
    main()
