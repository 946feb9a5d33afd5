"""The peer's side of `grpo_step.py`: TRL + PEFT, run by a Python that has them.

    python trl_grpo.py MODEL_FOLDER ROWS_JSONL STEPS PROMPTS ANSWERS TOKENS WORD

Prints one JSON object: the tokens of all answers and the seconds of each step, the mean reward of each, peak memory in
MB.
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
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import GRPOConfig, GRPOTrainer


class StepClock(TrainerCallback):  # type: ignore[misc]
    """Notes how long each step takes, sampling included, which happens before a step begins."""

    def __init__(self) -> None:
        self.ends = [0.0]

    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
        self.ends = [time.perf_counter()]

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        self.ends.append(time.perf_counter())


def main() -> None:
    """Trains a few steps."""
    folder, rows_file, word = sys.argv[1], sys.argv[2], sys.argv[7]
    steps, prompts, answers, tokens = map(int, sys.argv[3:7])
    rows = [json.loads(line)["messages"] for line in Path(rows_file).read_text(encoding="utf-8").splitlines()]
    clock, lengths = StepClock(), list[int]()

    def reward(completions: Any, completion_ids: Any, **kwargs: Any) -> list[float]:
        lengths.append(sum(map(len, completion_ids)))
        return [float(word in completion[0]["content"]) for completion in completions]

    with tempfile.TemporaryDirectory() as out:
        trainer = GRPOTrainer(
            model=AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32),
            reward_funcs=reward,
            args=GRPOConfig(
                output_dir=out,
                max_steps=steps,
                per_device_train_batch_size=prompts * answers,
                num_generations=answers,
                max_completion_length=tokens,
                learning_rate=1e-4,
                logging_steps=1,
                save_strategy="no",
                report_to=[],
                bf16=False,
                use_cpu=True,
                gradient_checkpointing=False,
                disable_tqdm=True,
                seed=0,
            ),
            train_dataset=Dataset.from_list([{"prompt": row[:-1]} for row in rows]),
            processing_class=AutoTokenizer.from_pretrained(folder),
            peft_config=LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM"),
            callbacks=[clock],
        )
        trainer.train()
    facts = {
        "tokens": lengths,
        "seconds": [end - start for start, end in zip(clock.ends, clock.ends[1:], strict=False)],
        "rewards": [entry["reward"] for entry in trainer.state.log_history if "reward" in entry],
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }
    print(json.dumps(facts))


if __name__ == "__main__":
    main()
