"""The whole model in one GGUF file, as llama.cpp, Ollama and what is built on them load it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from graftkit import CardRequest, ExportCard, LoadedAssets, LoadingExample, PlannedModel, ProofRequest, TrainedModel
from graftkit.errors import ExportError, RequestError

from graftkit_gguf.architectures import architecture_of
from graftkit_gguf.config import GgufConfig
from graftkit_gguf.file_writer import StoredTensor, write_gguf
from graftkit_gguf.stored_types import stored_bytes, type_of
from graftkit_gguf.tokenizer_metadata import tokenizer_metadata

__all__ = ["GgufExporter"]

_FILE = "model.gguf"
_TOLERANCES = {"f32": 1e-4, "f16": 1e-2, "bf16": 5e-2, "q8_0": 0.1}
"""What rounding explains, as a share of the largest logit: of weights and, in llama.cpp, of what they multiply."""


class GgufExporter:
    """Writes model.gguf: weights with the adapter merged in, tokenizer, chat template, stop tokens."""

    proved_with = ("xllamacpp",)
    log_probabilities = True

    def __init__(self, config: GgufConfig | None = None) -> None:
        self._config = config or GgufConfig()

    def refusal(self, planned: PlannedModel) -> str | None:
        """Only architectures and tokenizers that llama.cpp has, and that graftkit knows the names of, have a form."""
        try:
            architecture_of(planned.config).metadata(planned.config)
            _tokenizer(planned, [])
        except (RequestError, ExportError) as error:
            return str(error)
        return None

    def export(self, trained: TrainedModel, folder: Path) -> Mapping[str, Any]:
        """Writes the file, one tensor in memory at a time."""
        stop = trained.generation_config.get("eos_token_id") or []
        metadata = {
            **architecture_of(trained.config).metadata(trained.config),
            **_tokenizer(trained, stop if isinstance(stop, list) else [stop]),
        }
        size = write_gguf(folder / _FILE, metadata, self._tensors(trained))
        return {"format": "gguf", "type": self._config.type, "bytes": size}

    def _tensors(self, trained: TrainedModel) -> Iterator[StoredTensor]:
        architecture = architecture_of(trained.config)
        tied = bool(trained.config.get("tie_word_embeddings"))
        for name, tensor in trained.merged_tensors():
            if tied and name == "lm_head.weight":
                continue
            stored_name, values = architecture.tensor(name, tensor, trained.config)
            type_ = type_of(tuple(values.shape), self._config.type)
            yield stored_name, tuple(values.shape), type_, stored_bytes(values, type_)

    def tolerance(self) -> float:
        """Returns what the rounding of the stored type explains."""
        return _TOLERANCES[self._config.type]

    def logits(self, request: ProofRequest) -> list[torch.Tensor]:
        """Loads the file with llama.cpp; gives log-probabilities, since llama.cpp gives nothing else."""
        from graftkit_gguf.header import read_header
        from graftkit_gguf.llama_cpp import LlamaCpp

        header = read_header(request.folder / _FILE)
        vocabulary = len(header.metadata["tokenizer.ggml.tokens"])  # type: ignore[arg-type]
        longest = max(len(probe.ids) for probe in request.probes)
        with LlamaCpp(request.folder / _FILE, longest + 8) as program:
            return [program.log_probabilities(probe.ids, probe.positions, vocabulary) for probe in request.probes]

    def assets(self, request: ProofRequest) -> LoadedAssets:
        """Asks llama.cpp to encode the texts and to lay out the conversation."""
        from graftkit_gguf.llama_cpp import LlamaCpp

        with LlamaCpp(request.folder / _FILE, 64) as program:
            return LoadedAssets(
                tokens=[program.tokens(text) for text in request.texts],
                rendered=program.rendered([dict(turn) for turn in request.conversation]),
            )

    def card(self, request: CardRequest) -> ExportCard:
        """Says how llama.cpp and Ollama run the file."""
        ask = "" if request.chat else ' -no-cnv -p "Hello"'
        made = f'echo "FROM $PWD/{_FILE}" > ../Modelfile  # beside this folder, whose files are listed\n'
        return ExportCard(
            "gguf",
            "quantized",
            tags=["gguf", self._config.type],
            loading=[
                LoadingExample("llama.cpp", "sh", f"llama-cli -m {_FILE}{ask}\nllama-server -m {_FILE}"),
                LoadingExample("Ollama", "sh", f"{made}ollama create my-model -f ../Modelfile\nollama run my-model"),
            ],
        )


def _tokenizer(planned: PlannedModel, stop: list[int]) -> dict[str, Any]:
    """Returns the metadata of the model's tokenizer."""
    tokenizer = planned.tokenizer
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save(Path(folder))
        roles = {role: tokenizer.role_token(role) for role in ("bos", "eos", "unk", "pad")}
        found = tokenizer_metadata(Path(folder), planned.config["vocab_size"], roles, (tokenizer.adds_bos, False), stop)
    template = tokenizer.chat_template
    return found | ({"tokenizer.chat_template": template} if template else {})
