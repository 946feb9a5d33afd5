"""Attention within a window, forward and backward: in parts against one mask of the whole sequence.

    python tests/benchmarks/windowed_attention.py [--tokens 8192] [--window 512] [--rounds 3]

Sides alternate, each in a fresh process; the first computation, which evaluates the mask, is left out of the seconds.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import time

from timing import medians_of_sides

SIDES = ("whole", "parts")


def measure(side: str, tokens: int, window: int) -> dict[str, float]:
    """Attends three times; returns the seconds of one and by how many MB it raised the peak."""
    import torch
    from graftkit.model import attention
    from transformers.masking_utils import and_masks, causal_mask_function, sliding_window_overlay

    if side == "whole":
        attention._TILE = tokens
    mask = attention.DeferredMask(
        and_masks(causal_mask_function, sliding_window_overlay(window)), False, torch.device("cpu")
    )
    inputs = [torch.randn(1, heads, tokens, 64, requires_grad=True) for heads in (4, 1, 1)]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        found, _ = attention.packed_attention(None, *inputs, mask, cu_seq_lens_q=torch.tensor([0, tokens]))
        found.sum().backward()
        seconds.append(time.perf_counter() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"seconds": statistics.median(seconds[1:]), "megabytes": (peak - before) / 1024}


def main() -> None:
    """Measures both sides in turn and prints medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=8192)
    parser.add_argument("--window", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        print(json.dumps(measure(options.side, options.tokens, options.window)))
        return
    sizes = ["--tokens", str(options.tokens), "--window", str(options.window)]
    for side, figures in medians_of_sides(__file__, SIDES, sizes, options.rounds).items():
        print(f"{side:8}{figures['seconds']:8.2f} s{figures['megabytes']:8.0f} MB")


if __name__ == "__main__":
    main()
