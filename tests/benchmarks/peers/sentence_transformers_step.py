"""Takes steps of sentence-transformers + PEFT, and prints what they took; see ../embedding_step.py.

python sentence_transformers_step.py MODEL RECORDS STEPS EXAMPLES
"""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path

import torch
from peft import LoraConfig
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.losses import CachedMultipleNegativesRankingLoss

model_path, records_path, steps, examples = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
records = [json.loads(line) for line in Path(records_path).read_text().splitlines()]
torch.manual_seed(0)
model = SentenceTransformer(model_path, device="cpu")
linear = ["query", "key", "value", "dense"]
model.add_adapter(LoraConfig(r=16, lora_alpha=32, target_modules=linear, task_type="FEATURE_EXTRACTION"))
loss = CachedMultipleNegativesRankingLoss(model, mini_batch_size=32)
optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4)
model.train()
seconds, tokens = [], []
for step in range(steps):
    start = time.perf_counter()
    rows = [records[(step * examples + number) % len(records)] for number in range(examples)]
    features = [model.preprocess([row[column] for row in rows]) for column in ("query", "positive", "negative")]
    loss(features, None).backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()
    seconds.append(time.perf_counter() - start)
    tokens.append(sum(int(each["attention_mask"].sum()) for each in features))
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
print(json.dumps({"seconds": seconds, "tokens": tokens, "peak_mb": peak}))
