"""Tokenizes conversations as TRL's SFTTrainer does with `assistant_only_loss`: datasets.map over apply_chat_template.

    python trl_chat_map.py TOKENIZER_FOLDER ROWS.jsonl CACHE_FOLDER PROCESSES

TRL converts the rows to its form in one map and tokenizes them in a second, with a template whose answers stand in
`{% generation %}` blocks. Prints one JSON line: seconds from the file to the arrow cache, tokens, tokens in the loss,
seconds of processors, peak memory in MB of the processes together. Imports are not timed.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_DISABLE_PROGRESS_BARS"] = "1"

import datasets
from transformers import PreTrainedTokenizerFast
from trl.data_utils import maybe_convert_to_chatml

TURN = "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}"
MARKED = (
    "{% if message['role'] == 'assistant' %}{{'<|im_start|>assistant\n'}}{% generation %}"
    "{{message['content'] + '<|im_end|>'}}{% endgeneration %}{{'\n'}}{% else %}" + TURN + "{% endif %}"
)
"""A turn of SmolLM2's template, and the same with the answer in a block."""


def main() -> None:
    """Tokenizes the rows and prints what it took."""
    folder, rows, cache, processes = sys.argv[1:5]
    template = Path(folder, "chat_template.jinja").read_text()
    marked = template.replace(TURN, MARKED)
    assert marked != template
    start, began = time.perf_counter(), time.process_time()
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=f"{folder}/tokenizer.json")
    data = datasets.load_dataset("json", data_files=rows, split="train", cache_dir=cache)
    data = data.map(maybe_convert_to_chatml, num_proc=int(processes))

    def tokenize(example: dict[str, Any]) -> dict[str, Any]:
        found = tokenizer.apply_chat_template(
            example["messages"],
            chat_template=marked,
            tokenize=True,
            return_dict=True,
            return_assistant_tokens_mask=True,
        )
        return {"input_ids": found["input_ids"], "assistant_masks": found["assistant_masks"]}

    data = data.map(tokenize, num_proc=int(processes), remove_columns=data.column_names)
    seconds = time.perf_counter() - start
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    cpu = sum(one.ru_utime + one.ru_stime for one in used) - began
    peak = used[0].ru_maxrss + int(processes) * used[1].ru_maxrss
    tokens = sum(len(chunk.flatten()) for chunk in data.data.column("input_ids").chunks)
    learnt = sum(sum(chunk.flatten().to_pylist()) for chunk in data.data.column("assistant_masks").chunks)
    facts = {"seconds": seconds, "tokens": tokens, "learnt": learnt, "records": len(data)}
    print(json.dumps(facts | {"peak_mb": peak // 1024, "cpu": cpu}))


main()
