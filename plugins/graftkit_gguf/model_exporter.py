"""The whole model in one GGUF file, as llama.cpp, Ollama and what is built on them load it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from graftkit import LoadedAssets, PlannedModel, ProofRequest, TrainedModel
from graftkit.errors import ExportError, RequestError

from graftkit_gguf.architectures import complete_config
from graftkit_gguf.config import GgufConfig
from graftkit_gguf.families import architecture_of
from graftkit_gguf.file_writer import StoredTensor, write_gguf
from graftkit_gguf.modelfile import model_modelfile
from graftkit_gguf.rope import FACTORS
from graftkit_gguf.stored_types import stored_bytes, type_of
from graftkit_gguf.tokenizer_metadata import tokenizer_metadata
from graftkit_gguf.unicode_form import in_form

__all__ = ["GgufExporter", "stored_tensors"]

_FILE = "model.gguf"
_TOLERANCES = {"f32": 1e-3, "f16": 1e-2, "bf16": 5e-2, "q8_0": 0.1}
"""What rounding explains, as a share of the largest logit: of weights and, in llama.cpp, of what they multiply."""


class GgufExporter:
    """Writes model.gguf: weights with the adapter merged in, tokenizer, chat template, stop tokens; and a Modelfile."""

    proved_with = ("xllamacpp",)
    log_probabilities = True

    def __init__(self, config: GgufConfig | None = None) -> None:
        self._config = config or GgufConfig()

    def refusal(self, planned: PlannedModel) -> str | None:
        """Only architectures and tokenizers that llama.cpp has, and that graftkit knows the names of, have a form."""
        try:
            architecture_of(planned.config).metadata(complete_config(planned.config))
            _tokenizer(planned, [])
        except (RequestError, ExportError) as error:
            return str(error)
        return None

    def export(self, trained: TrainedModel, folder: Path) -> Mapping[str, Any]:
        """Writes the file, one tensor in memory at a time."""
        stop = trained.generation_config.get("eos_token_id") or []
        metadata = {
            **architecture_of(trained.config).metadata(complete_config(trained.config)),
            **_tokenizer(trained, stop if isinstance(stop, list) else [stop]),
        }
        size = write_gguf(
            folder / _FILE, metadata, stored_tensors(trained.config, trained.merged_tensors(), self._config.type)
        )
        (folder / "Modelfile").write_bytes(model_modelfile(trained, _FILE).encode())
        return {"format": "gguf", "type": self._config.type, "bytes": size}

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
        """Asks llama.cpp to encode the texts, to lay out the conversation, and to end at each stop token.

        Texts are given in the form of Unicode that the tokenizer asks for: llama.cpp leaves that to whoever asks it.
        """
        from graftkit_gguf.header import read_header
        from graftkit_gguf.llama_cpp import LlamaCpp

        metadata = read_header(request.folder / _FILE).metadata
        with LlamaCpp(request.folder / _FILE, 64) as program:
            return LoadedAssets(
                tokens=[program.tokens(in_form(text, metadata)) for text in request.texts],
                rendered=program.rendered([dict(turn) for turn in request.conversation]),
                stop_tokens=[id for id in request.stop_tokens if program.ends_at(id)],
            )


def stored_tensors(
    config: Mapping[str, Any], tensors: Iterable[tuple[str, torch.Tensor]], type: str
) -> Iterator[StoredTensor]:
    """Yields a model's tensors as a GGUF file has them.

    Args:
        config: The keys of its config.json.
        tensors: Its tensors by transformers' names, float32; `lm_head.weight` is left out where it is the embedding.
        type: How matrices are stored.

    Raises:
        ModelError: The architecture has no place for one.
    """
    architecture = architecture_of(config)
    tied = bool(config.get("tie_word_embeddings"))
    for name, tensor in tensors:
        if tied and name == "lm_head.weight":
            continue
        twice = tied and not architecture.ties and name == "model.embed_tokens.weight"
        for own in (name, "lm_head.weight") if twice else (name,):
            for stored_name, values in architecture.tensors(own, tensor, config):
                yield _stored(stored_name, values, type)
    factors = architecture.factors(complete_config(config))
    if factors is not None:
        yield _stored(FACTORS, torch.from_numpy(factors), "f32")


def _stored(name: str, values: torch.Tensor, wanted: str) -> StoredTensor:
    shape = tuple(values.shape)
    type_ = type_of(name, shape, wanted)
    return name, shape, type_, stored_bytes(values, type_)


def _tokenizer(planned: PlannedModel, stop: list[int]) -> dict[str, Any]:
    """Returns the metadata of the model's tokenizer."""
    tokenizer = planned.tokenizer
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save(Path(folder))
        roles = {role: tokenizer.role_token(role) for role in ("bos", "eos", "unk", "pad")}
        found = tokenizer_metadata(Path(folder), planned.config["vocab_size"], roles, (tokenizer.adds_bos, False), stop)
    template = tokenizer.chat_template
    return found | ({"tokenizer.chat_template": template} if template else {})
