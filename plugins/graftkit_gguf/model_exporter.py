"""The whole model in one GGUF file, as llama.cpp, Ollama and what is built on them load it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from graftkit import CardRequest, ExportCard, LoadedAssets, LoadingExample, PlannedModel, ProofRequest, TrainedModel
from graftkit.errors import ExportError, ModelError, RequestError
from graftkit.interfaces.temporary import temporary_folder

from graftkit_gguf.architectures import complete_config
from graftkit_gguf.config import GgufConfig
from graftkit_gguf.families import architecture_of
from graftkit_gguf.file_writer import StoredTensor, write_gguf
from graftkit_gguf.header import GgufHeader
from graftkit_gguf.modelfile import model_modelfile
from graftkit_gguf.rope import FACTORS
from graftkit_gguf.stored_types import stored_bytes, type_of
from graftkit_gguf.tokenizer_metadata import tokenizer_metadata
from graftkit_gguf.unicode_form import in_form
from graftkit_gguf.vocabulary_keys import ROLE_KEYS

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
            _tokenizer(planned, planned.tokenizer.adds_bos, [])
        except (RequestError, ExportError) as error:
            return str(error)
        return None

    def export(self, trained: TrainedModel, folder: Path) -> Mapping[str, Any]:
        """Writes the file, one tensor in memory at a time."""
        stop = trained.generation_config.get("eos_token_id") or []
        metadata = {
            **architecture_of(trained.config).metadata(complete_config(trained.config)),
            **_tokenizer(trained, _adds_bos(trained), stop if isinstance(stop, list) else [stop]),
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
        from graftkit_gguf.llama_cpp import LlamaCpp

        vocabulary = _checked(request).tensors["token_embd.weight"].shape[1]
        longest = max(len(probe.ids) for probe in request.probes)
        with LlamaCpp(request.folder / _FILE, longest + 8) as program:
            return [program.log_probabilities(probe.ids, probe.positions, vocabulary) for probe in request.probes]

    def assets(self, request: ProofRequest) -> LoadedAssets:
        """Asks llama.cpp to encode the texts, to lay out the conversation, and to end at each stop token.

        Texts are given in the form of Unicode that the tokenizer asks for: llama.cpp leaves that to whoever asks it.
        """
        from graftkit_gguf.llama_cpp import LlamaCpp

        metadata = _checked(request).metadata
        with LlamaCpp(request.folder / _FILE, 64) as program:
            return LoadedAssets(
                tokens=[program.tokens(in_form(text, metadata)) for text in request.texts],
                rendered=_left_out_bos(metadata) + program.rendered([dict(turn) for turn in request.conversation]),
                stop_tokens=[id for id in request.stop_tokens if program.ends_at(id)],
            )

    def card(self, request: CardRequest) -> ExportCard:
        """Says how llama.cpp and Ollama run the file."""
        ask = "" if request.chat else ' -no-cnv -p "Hello"'
        return ExportCard(
            "gguf",
            "quantized",
            tags=["gguf", self._config.type],
            loading=[
                LoadingExample("llama.cpp", "sh", f"llama-cli -m {_FILE}{ask}\nllama-server -m {_FILE}"),
                LoadingExample("Ollama", "sh", "ollama create my-model -f Modelfile\nollama run my-model"),
            ],
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


def _checked(request: ProofRequest) -> GgufHeader:
    """Returns the header of an export's file, having made sure that llama.cpp, which trusts a file, may load it.

    Raises:
        ModelError: The file is none that an export holds, or the probes are for more tokens than it has.
        ExportError: Its chat template does far more than it is asked for.
    """
    from graftkit_gguf.exported import check_exported
    from graftkit_gguf.header import read_header
    from graftkit_gguf.metadata import Metadata

    header = read_header(request.folder / _FILE)
    vocabulary = check_exported(header)
    if any(not 0 <= id < vocabulary for probe in request.probes for id in probe.ids):
        raise ModelError(f"the probes have ids beyond its {vocabulary:,} tokens", where=str(header.path))
    metadata = Metadata(header.path, header.metadata)
    if "tokenizer.chat_template" in metadata:
        tokens = metadata.texts("tokenizer.ggml.tokens")
        ids = {role: metadata.integer(ROLE_KEYS[role], -1, least=-1) for role in ("bos", "eos")}
        names = {f"{role}_token": tokens[id] for role, id in ids.items() if id >= 0}
        request.check_template(metadata.text("tokenizer.chat_template"), names)
    return header


def _tokenizer(planned: PlannedModel, adds_bos: bool, stop: list[int]) -> dict[str, Any]:
    """Returns the metadata of the model's tokenizer."""
    tokenizer = planned.tokenizer
    with temporary_folder() as folder:
        tokenizer.save(folder)
        roles = {role: tokenizer.role_token(role) for role in ("bos", "eos", "unk", "pad")}
        found = tokenizer_metadata(folder, planned.config["vocab_size"], roles, (adds_bos, False), stop)
    template = tokenizer.chat_template
    return found | ({"tokenizer.chat_template": template} if template else {})


def _left_out_bos(metadata: Mapping[str, Any]) -> str:
    """Returns the token that llama.cpp leaves out of what the template writes, since it puts it there itself, or ""."""
    if not metadata.get("tokenizer.ggml.add_bos_token"):
        return ""
    bos = str(metadata["tokenizer.ggml.tokens"][metadata[ROLE_KEYS["bos"]]])
    return bos if _writes_bos(str(metadata.get("tokenizer.chat_template", "")), [bos]) else ""


def _adds_bos(trained: TrainedModel) -> bool:
    """Tells whether llama.cpp is to put the beginning-of-sequence token before a prompt.

    Training did where it asked with texts alone and the tokenizer does. In a conversation it had the token only where
    the chat template writes it.
    """
    tokenizer, template = trained.tokenizer, trained.tokenizer.chat_template
    if not tokenizer.adds_bos or trained.prompts == "plain" or not template:
        return tokenizer.adds_bos
    bos = tokenizer.role_token("bos")
    return _writes_bos(template, [text for text, id in tokenizer.special_tokens.items() if id == bos])


def _writes_bos(template: str, tokens: Sequence[str]) -> bool:
    return any(text in template for text in ("bos_token", *tokens))
