"""Tokenizes a .jsonl file the way most people do: datasets.map(batched=True) with transformers' tokenizer.

    python datasets_map.py TOKENIZER_FOLDER ROWS.jsonl CACHE_FOLDER

Prints one JSON line: seconds from the file to the arrow cache, tokens, seconds of processors, peak memory in MB.
Imports are not timed.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_DISABLE_PROGRESS_BARS"] = "1"

import datasets
from transformers import PreTrainedTokenizerFast


def main() -> None:
    folder, rows, cache = sys.argv[1:4]
    start, began = time.perf_counter(), time.process_time()
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=f"{folder}/tokenizer.json")
    data = datasets.load_dataset("json", data_files=rows, split="train", cache_dir=cache)
    data = data.map(lambda batch: tokenizer(batch["text"]), batched=True, remove_columns=["text"])
    seconds = time.perf_counter() - start
    used = resource.getrusage(resource.RUSAGE_SELF)
    tokens = sum(len(chunk.flatten()) for chunk in data.data.column("input_ids").chunks)
    facts = {"seconds": seconds, "tokens": tokens, "rows": len(data), "peak_mb": used.ru_maxrss // 1024}
    print(json.dumps(facts | {"cpu": used.ru_utime + used.ru_stime - began}))


main()
