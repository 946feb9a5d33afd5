"""The loss of a step and its gradient, in pieces against all logits at once: seconds, and the memory that it takes.

    python tests/benchmarks/loss_in_pieces.py [--vocabulary 49152] [--tokens 1024] [--rounds 5]

A small body below a whole vocabulary's output layer, in bfloat16, since this is about the layer. Sides alternate, each
in a fresh process; its first step, which warms up, is left out.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import time

from timing import medians_of_sides

SIDES = ("whole", "pieces")


def measure(side: str, vocabulary: int, tokens: int, steps: int = 4) -> dict[str, float]:
    """Takes steps on random tokens; returns the seconds of one and by how many MB it raised the peak."""
    import numpy as np
    import torch
    from graftkit.model.attention import PACKED, register_packed_attention
    from graftkit.store.token_store import Example
    from graftkit.training.batch import pack
    from graftkit.training.loss import TokenLoss, summed_loss
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=2,
        num_attention_heads=9,
        num_key_value_heads=3,
    )
    model = LlamaForCausalLM(config).to(torch.bfloat16).requires_grad_(False)
    register_packed_attention()
    model.set_attn_implementation(PACKED)
    model.model.layers[0].requires_grad_(True)
    ids = np.random.default_rng(0).integers(0, vocabulary, tokens)
    rows = pack([Example(ids, np.ones(tokens, dtype=np.float32), 1)], torch.device("cpu"))
    pieces = TokenLoss(model)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds = []
    for _ in range(steps):
        start = time.perf_counter()
        if side == "pieces":
            pieces.backward(rows, 1.0)
        else:
            summed_loss(model, rows).backward()  # type: ignore[no-untyped-call]
        seconds.append(time.perf_counter() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"seconds": statistics.median(seconds[1:]), "megabytes": (peak - before) / 1024}


def main() -> None:
    """Runs both sides in turn and prints medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vocabulary", type=int, default=49_152)
    parser.add_argument("--tokens", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        print(json.dumps(measure(options.side, options.vocabulary, options.tokens)))
        return
    sizes = ["--vocabulary", str(options.vocabulary), "--tokens", str(options.tokens)]
    medians = medians_of_sides(__file__, SIDES, sizes, options.rounds)
    for side, figures in medians.items():
        ratios = [figures[key] / medians["whole"][key] for key in ("seconds", "megabytes")]
        print(f"{side:8}{figures['seconds']:8.3f} s{ratios[0]:6.2f}{figures['megabytes']:9.0f} MB{ratios[1]:6.2f}")


if __name__ == "__main__":
    main()
