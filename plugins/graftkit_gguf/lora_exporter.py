"""The adapter alone as a GGUF file, as `llama.cpp --lora` and Ollama's ADAPTER load it onto a base model in GGUF."""

from __future__ import annotations

import shlex
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from graftkit import CardRequest, ExportCard, LoadingExample, PlannedModel, ProofRequest, TrainedModel
from graftkit.errors import ExportError, RequestError
from graftkit.exporting.lora_matrices import lora_matrices
from graftkit.interfaces.exporter import OnBaseFile

from graftkit_gguf.adapter_file import check_adapter, check_fits, write_adapter
from graftkit_gguf.base_file import same_weights, write_base
from graftkit_gguf.config import GgufLoraConfig
from graftkit_gguf.families import architecture_of
from graftkit_gguf.header import is_gguf, read_header
from graftkit_gguf.lora_layers import INSTEAD, check_planned, factor_of_b, file_alpha, stored_layer
from graftkit_gguf.modelfile import adapter_modelfile

__all__ = ["GgufLoraExporter"]

_FILE = "adapter.gguf"
_TOLERANCES = {"f32": 1e-3, "f16": 1e-2}
"""What rounding explains, as a share of the largest logit: of the adapter and, in llama.cpp, of what it multiplies.
Measured on SmolLM2-135M: 5e-6 and 1.5e-5; on tiny random models, whose logits lie close, for f16 up to 6e-3, and for
f32 up to 4e-4 where llama.cpp looks GELU up in a table of float16."""


class GgufLoraExporter:
    """Writes adapter.gguf, a Modelfile for Ollama, and the chat template that it was trained with."""

    proved_with = ("xllamacpp",)
    log_probabilities = True

    def __init__(self, config: GgufLoraConfig | None = None) -> None:
        self._config = config or GgufLoraConfig()

    def refusal(self, planned: PlannedModel) -> str | None:
        """Only LoRA, on layers that are matrices of their own in a GGUF file, has a form."""
        try:
            check_planned(planned)
        except (RequestError, ExportError) as error:
            return str(error)
        return None

    def export(self, trained: TrainedModel, folder: Path) -> Mapping[str, Any]:
        """Writes the file; its scale is folded into `lora_b` where a layer's is not the file's alpha over its rank."""
        alpha = file_alpha(trained.adapter.peft_config())
        architecture, layers = architecture_of(trained.config), dict(_layers(trained))
        size = write_adapter(folder / _FILE, architecture.name, alpha, layers, self._config.type)
        (folder / "Modelfile").write_bytes(adapter_modelfile(trained, _FILE).encode())
        template = trained.tokenizer.chat_template
        if template is not None:
            (folder / "chat_template.jinja").write_bytes(template.encode())
        return {"format": "gguf-lora", "type": self._config.type, "bytes": size, "layers": len(layers)}

    def tolerance(self) -> float:
        """Returns what the rounding of the stored type explains."""
        return _TOLERANCES[self._config.type]

    def logits(self, request: ProofRequest) -> list[torch.Tensor]:
        """Loads the adapter with llama.cpp onto the weights that it was trained on, written as float32."""
        adapter = check_adapter(request.folder / _FILE)
        with _base(request) as base:
            check_fits(adapter, read_header(base))
            return _run(request, base, adapter.path)

    def on_base_file(self, request: ProofRequest) -> OnBaseFile | None:
        """Loads the adapter with llama.cpp onto the base model's own file, where that is one GGUF file."""
        adapter = check_adapter(request.folder / _FILE)
        if len(request.base_files) != 1 or not is_gguf(request.base_files[0]):
            return None
        file = read_header(request.base_files[0])
        check_fits(adapter, file)
        with _base(request) as base:
            same = same_weights(read_header(base), file)
        adapted, alone = _run(request, file.path, adapter.path), _run(request, file.path, None)
        return OnBaseFile(file.path.name, same, adapted, alone)

    def card(self, request: CardRequest) -> ExportCard:
        """Says how llama.cpp and Ollama put the adapter on its base model."""
        base = request.base if request.base.lower().endswith(".gguf") else "BASE.gguf"
        ask = "" if request.chat else ' -no-cnv -p "Hello"'
        run = f"llama-cli -m {shlex.quote(base)} --lora {_FILE}{ask}"
        return ExportCard(
            "gguf",
            "adapter",
            tags=["gguf", "lora"],
            loading=[
                LoadingExample("llama.cpp", "sh", run),
                LoadingExample("Ollama", "sh", "ollama create my-model -f Modelfile\nollama run my-model"),
            ],
        )


def _layers(trained: TrainedModel) -> Iterator[tuple[str, tuple[torch.Tensor, torch.Tensor]]]:
    """Yields each adapted weight's name in the file, `lora_a [rank, in]` and `lora_b [out, rank]`.

    The embedding's `lora_a` is `[tokens, rank]`: llama.cpp looks its rows up.
    """
    fields, architecture = trained.adapter.peft_config() or {}, architecture_of(trained.config)
    for layer, a, b in lora_matrices(trained, INSTEAD):
        embeds = trained.adapted[layer].info.kind == "embedding"
        name, order = stored_layer(architecture, layer, a.shape[1] if embeds else len(b), trained.config)
        b = b * factor_of_b(fields, layer, len(a))
        yield name, (a.T[order].contiguous(), b) if embeds else (a, b[order])


@contextmanager
def _base(request: ProofRequest) -> Iterator[Path]:
    """Gives the base model that was trained on as a GGUF file, which the calls of a proof share."""
    with tempfile.TemporaryDirectory() as folder:
        path = (request.workspace or Path(folder)) / "base.gguf"
        if not path.exists():
            write_base(request.base(), path)
        yield path


def _run(request: ProofRequest, base: Path, adapter: Path | None) -> list[torch.Tensor]:
    from graftkit_gguf.llama_cpp import LlamaCpp

    tensor = read_header(base).tensors["token_embd.weight"]
    longest = max(len(probe.ids) for probe in request.probes)
    with LlamaCpp(base, longest + 8, adapter) as program:
        return [program.log_probabilities(probe.ids, probe.positions, tensor.shape[1]) for probe in request.probes]
