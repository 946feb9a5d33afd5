"""The peer's side of `sft_step.py`: TRL + PEFT + bitsandbytes, run by a Python that has them.

    python trl_sft.py MODEL_FOLDER ROWS_JSONL fp32|bf16|nf4|nf4-bf16 STEPS ROWS_PER_STEP random|group_by_length

Prints one JSON object: tokens without padding and seconds of each step, losses, peak memory in MB.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ |= {"HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1", "TOKENIZERS_PARALLELISM": "true"}

import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig, TrainerCallback
from trl import SFTConfig, SFTTrainer


class StepClock(TrainerCallback):  # type: ignore[misc]
    """Notes how long each step takes."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
        self._start = time.perf_counter()

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        self.seconds.append(time.perf_counter() - self._start)


def main() -> None:
    """Trains a few steps."""
    folder, rows_file, mode, sampling = sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[6]
    steps, batch = int(sys.argv[4]), int(sys.argv[5])
    dtype = torch.bfloat16 if "bf16" in mode else torch.float32
    nf4 = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )
    rows = [json.loads(line) for line in Path(rows_file).read_text(encoding="utf-8").splitlines()]
    clock = StepClock()
    with tempfile.TemporaryDirectory() as out:
        trainer = SFTTrainer(
            model=AutoModelForCausalLM.from_pretrained(
                folder, dtype=dtype, quantization_config=nf4 if "nf4" in mode else None
            ),
            args=SFTConfig(
                output_dir=out,
                max_steps=steps,
                per_device_train_batch_size=batch,
                learning_rate=2e-4,
                max_length=512,
                logging_steps=1,
                save_strategy="no",
                report_to=[],
                bf16="bf16" in mode,
                use_cpu=True,
                gradient_checkpointing=False,
                train_sampling_strategy=sampling,
                disable_tqdm=True,
                seed=0,
            ),
            train_dataset=Dataset.from_list(rows),
            processing_class=AutoTokenizer.from_pretrained(folder),
            peft_config=LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM"),
            callbacks=[clock],
        )
        trainer.train()
    logs = [entry for entry in trainer.state.log_history if "loss" in entry]
    facts = {
        "tokens": logs[-1]["num_tokens"],
        "seconds": clock.seconds,
        "losses": [float(entry["loss"]) for entry in logs],
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }
    print(json.dumps(facts))


if __name__ == "__main__":
    main()
