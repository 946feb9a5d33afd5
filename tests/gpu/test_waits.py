"""How often a step of training waits for the device, and what it copies there."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import graftkit
import pytest
import torch
from made_records import labelled_texts, written
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

pytestmark = pytest.mark.gpu
ATEN = torch.ops.aten
WAITS = frozenset(
    [ATEN._local_scalar_dense.default, ATEN.nonzero.default, ATEN.equal.default, ATEN.masked_select.default]
)
COPIES = frozenset([ATEN._to_copy.default, ATEN.copy_.default])
CHATS = [
    {"messages": [{"role": "user", "content": f"say {n}"}, {"role": "assistant", "content": f"{n}!"}]}
    for n in range(60)
]
PAIRS = [{"prompt": f"say {n}", "chosen": f"{n}!", "rejected": f"{n + 1}?"} for n in range(60)]


class Traffic(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the operations for which the CPU waits for the device, and the copies to it."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        there = [tensor for tensor in given if tensor.is_cuda]
        masked = func is ATEN.index.Tensor and any(index is not None and index.dtype == torch.bool for index in args[1])
        if there and (func in WAITS or masked or (func in COPIES and not found.is_cuda)):
            self.counts["waits"] += 1
        elif func in COPIES and found.is_cuda and not given[-1].is_cuda:
            self.counts["copies"] += 1
        return found


@pytest.mark.parametrize(
    ("objective", "records", "dtype", "waits", "copies"),
    [
        ("sft", CHATS, "bfloat16", 4, 4),
        ("sft", CHATS, "float32", 4, 4),
        ("dpo", PAIRS, "bfloat16", 5, 7),
        ("classification", labelled_texts(60), "bfloat16", 5, 7),
    ],
)
def test_a_step_waits_a_few_times_however_many_sequences_it_has(
    objective: str, records: Any, dtype: str, waits: int, copies: int, tiny_model: Path, tmp_path: Path
) -> None:
    """A step of one pass waits for whether a mask is a band, transformers' look at positions, the loss and its norm."""
    counted = []
    for steps in (2, 5):
        recipe = {
            "model": str(tiny_model),
            "data": {"train": str(written(tmp_path / "records.jsonl", records)), "holdout": 0, "max_length": 128},
            "objective": objective,
            "adapter": {"use": "lora", "rank": 4},
            "quantizer": "none",
            "training": {"steps": steps, "tokens_per_step": 200, "microbatch_tokens": 1024, "device": "cuda"}
            | {"dtype": dtype},
        }
        with Traffic() as traffic:
            graftkit.run(recipe, out=tmp_path / str(steps))
        counted.append(traffic.counts)
    of_three_steps = counted[1] - counted[0]
    assert of_three_steps["waits"] <= 3 * waits
    assert of_three_steps["copies"] <= 3 * copies
