"""The whole model in one GGUF file, as llama.cpp, Ollama and what is built on them load it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from graftkit import (
    CardRequest,
    ExportCard,
    ExportReading,
    LoadedAssets,
    LoadingExample,
    PlannedModel,
    Probe,
    ProofRequest,
    Tokenizer,
    TrainedModel,
)
from graftkit.errors import ExportError, ModelError, RequestError
from graftkit.interfaces.architecture import EMBEDDING_PROMPTS, OF_WHOLES, head_of, token_types
from graftkit.interfaces.exporter import added_ids
from graftkit.interfaces.temporary import temporary_folder
from graftkit.interfaces.tokenizer import PutsAround

from graftkit_gguf.architectures import complete_config
from graftkit_gguf.config import GgufConfig
from graftkit_gguf.families import architecture_of
from graftkit_gguf.file_writer import write_gguf
from graftkit_gguf.header import GgufHeader, read_header
from graftkit_gguf.model_tensors import BaseTensors, Kept, stored_tensors
from graftkit_gguf.modelfile import model_modelfile, stop_line
from graftkit_gguf.parts import get_setting
from graftkit_gguf.pooling import SCORES, gives_vectors
from graftkit_gguf.quantize import ggml_is_there
from graftkit_gguf.reading import architecture_of_file, original_context
from graftkit_gguf.rope import rope_notices
from graftkit_gguf.stop_tokens import stop_notices, stop_tokens_of, stored_stops
from graftkit_gguf.stored_types import StoredTypes, file_type
from graftkit_gguf.text_form import in_form, notices_of_spaces
from graftkit_gguf.tokenizer_metadata import tokenizer_metadata
from graftkit_gguf.vocabulary_keys import ROLE_KEYS
from graftkit_gguf.wordpiece import notices_of_scripts

if TYPE_CHECKING:
    from graftkit_gguf.llama_cpp import LlamaCpp

__all__ = ["GgufExporter"]

_FILE = "model.gguf"
_OF_FLOAT32, _OF_OTHERS = 1e-3, 1e-2
"""What rounding explains, as a share of the largest logit, beside what llama.cpp rounds on purpose where weights are
rounded: activations, to 8 bits or to the weights' own type (`ExportReading`)."""


_KEEPS_CHANGES = "q8_0"
"""The type of what an adapter changed, where the base model's file has it in a coarser one."""
_FINE = frozenset({"f32", "f16", "bf16", "q8_0"})


class GgufExporter:
    """Writes model.gguf: weights with the adapter merged in, tokenizer, chat template, stop tokens; and a Modelfile."""

    proved_with = ("xllamacpp",)
    log_probabilities = True
    heads = ("language", "sequence", "embedding")

    def __init__(self, config: GgufConfig | None = None) -> None:
        self._config = config or GgufConfig()

    def refusal(self, planned: PlannedModel) -> str | None:
        """Only architectures and tokenizers that llama.cpp has, and that graftkit knows the names of, have a form."""
        try:
            architecture, config = architecture_of(planned.config), complete_config(planned.config)
            architecture.metadata(config)
            _tokenizer(planned, planned.tokenizer.adds_bos, [])
            types = self._types(planned)
        except (RequestError, ExportError) as error:
            return str(error)
        needed = types.needs_ggml(architecture.stored_shapes(config))
        if planned.pairs and token_types(config):
            return (
                "the model tells the two texts of a pair apart by the types of their tokens, and llama.cpp takes each "
                "token for one of the first type"
            )
        if needed and not ggml_is_there():
            return (
                f"the type {needed[0]} is quantized to by llama.cpp's own code, which is not installed: "
                "pip install 'graftkit[llamacpp]', or take q4_0, q5_1 or q8_0"
            )
        return None

    def notices(self, planned: PlannedModel) -> Sequence[str]:
        """Says which matrices are stored otherwise than the recipe asks, and where an answer does not end by itself."""
        architecture, config = architecture_of(planned.config), complete_config(planned.config)
        shapes = architecture.stored_shapes(config)
        cut = _tokenizer(planned, planned.tokenizer.adds_bos, []) if head_of(config) in OF_WHOLES else {}
        return [
            *self._types(planned).notices(shapes),
            *self._notices_of_changes(planned),
            *stop_notices(planned.tokenizer, stop_tokens_of(planned.generation_config)),
            *rope_notices(get_setting(config, architecture.rope) or {}),
            *_notices_of_prompts(config.get(EMBEDDING_PROMPTS) or {}),
            *notices_of_scripts(cut),
            *notices_of_spaces(cut),
        ]

    def _notices_of_changes(self, planned: PlannedModel) -> Iterator[str]:
        """Says what becomes of changes to matrices that the base model's own file has in few bits."""
        base = BaseTensors.open(planned.reference) if self._config.type == "base" and not self._config.changed else None
        coarse = sorted({*base.types.values()} - _FINE) if base else []
        if coarse:
            yield (
                f"what the base model's file has as {', '.join(coarse)} is stored as {_KEEPS_CHANGES} where it "
                "changed, since rounding to so few bits takes back small changes; changed: base stores it as it was"
            )

    def _types(self, planned: PlannedModel) -> StoredTypes:
        """Returns which type each tensor is stored in.

        Raises:
            ExportError: They are to be the base model's, which is no GGUF file.
        """
        config, chosen = complete_config(planned.config), self._config
        common = {"layers": config["num_hidden_layers"], "ties": architecture_of(config).ties_in_file(config)}
        if chosen.type != "base":
            return StoredTypes(chosen.type, chosen.embeddings, chosen.output, **common)
        base = BaseTensors.open(planned.reference)
        if base is None:
            raise ExportError(
                "type: base stores tensors as the base model's own GGUF file does, and the base model is none",
                hint="Name a type, such as q8_0.",
            )
        # What did not change is copied whatever is said here.
        of_base = base.types if chosen.changed in (None, "base") else {}
        if chosen.changed is None:
            of_base = {name: type_ if type_ in _FINE else _KEEPS_CHANGES for name, type_ in of_base.items()}
        other = _KEEPS_CHANGES if chosen.changed in (None, "base") else chosen.changed
        return StoredTypes(other, chosen.embeddings, chosen.output, of_base=of_base, **common)

    def export(self, trained: TrainedModel, folder: Path) -> Mapping[str, Any]:
        """Writes the file, one tensor in memory at a time."""
        stop = stop_tokens_of(trained.generation_config)
        metadata = {
            **architecture_of(trained.config).metadata(complete_config(trained.config)),
            **_tokenizer(trained, _adds_bos(trained), stop),
        }
        base = BaseTensors.open(trained.reference) if self._config.type == "base" else None
        metadata |= file_type(self._config.type, base.header.metadata if base else {})
        kept = Kept(base)
        tensors = stored_tensors(trained.config, trained.merged_tensors(), self._types(trained), kept)
        size = write_gguf(folder / _FILE, metadata, tensors)
        if head_of(trained.config) != "sequence":  # Ollama gives no scores
            (folder / "Modelfile").write_bytes(model_modelfile(trained, _FILE).encode())
        own = {"tensors_of_base": kept.count} if base else {}
        return {"format": "gguf", "type": self._config.type, "bytes": size, **own}

    def tolerance(self) -> float:
        """Returns what the rounding of llama.cpp explains, weights being as they are stored."""
        return _OF_OTHERS if self.quantizes else _OF_FLOAT32

    @property
    def quantizes(self) -> bool:
        """Whether it stores anything in another type than f32."""
        chosen = self._config
        return not {chosen.type, chosen.embeddings, chosen.output} <= {"f32", None}

    def reading(self, request: ProofRequest) -> ExportReading:
        """Returns graftkit's own reading of the file."""
        from graftkit_gguf.export_reading import export_reading

        return export_reading(_checked(request).path)

    def logits(self, request: ProofRequest) -> list[torch.Tensor]:
        """Loads the file with llama.cpp; gives vectors, or log-probabilities, since llama.cpp gives nothing else."""
        from graftkit_gguf.llama_cpp import LlamaCpp

        header = _checked(request)
        vocabulary, scores = header.tensors["token_embd.weight"].shape[1], SCORES in header.tensors
        vectors, shares = gives_vectors(header), architecture_of_file(header).gives_shares
        found: list[torch.Tensor] = []
        for longest, probes in _by_context(header, request.probes):
            with LlamaCpp(header.path, longest + 8, wholes=scores or vectors) as program:
                for probe in probes:
                    if vectors:
                        found.append(program.vector(probe.ids))
                    elif scores:
                        found.append((program.log_shares if shares else program.log_shares_of_scores)(probe.ids))
                    else:
                        found.append(program.log_probabilities(probe.ids, probe.positions, vocabulary))
        return found

    def assets(self, request: ProofRequest) -> LoadedAssets:
        """Asks llama.cpp to encode the texts, to lay out the conversation, and to end at each stop token.

        Those that the file has no room for, which the run said, have to stand in the Modelfile.

        Texts are given in the form of Unicode that the tokenizer asks for: llama.cpp leaves that to whoever asks it.
        """
        from graftkit_gguf.llama_cpp import LlamaCpp

        header = _checked(request)
        metadata = header.metadata
        left_to_ollama = _only_in_the_modelfile(request, metadata)
        template = str(metadata.get("tokenizer.chat_template", ""))
        with LlamaCpp(request.folder / _FILE, 64, template=request.dated(template)) as program:
            return LoadedAssets(
                tokens=[program.tokens(in_form(text, metadata)) for text in request.texts],
                rendered=_left_out_bos(metadata) + program.rendered([dict(turn) for turn in request.conversation]),
                stop_tokens=[id for id in request.stop_tokens if id in left_to_ollama or program.ends_at(id)],
                added=_added(program) if SCORES in header.tensors or gives_vectors(header) else None,
            )

    def card(self, request: CardRequest) -> ExportCard:
        """Says how llama.cpp and Ollama run the file."""
        ask = "" if request.chat else ' -no-cnv -p "Hello"'
        loading = [
            LoadingExample("llama.cpp", "sh", f"llama-cli -m {_FILE}{ask}\nllama-server -m {_FILE}"),
            LoadingExample("Ollama", "sh", "ollama create my-model -f Modelfile\nollama run my-model"),
        ]
        notes = []
        if request.head == "sequence":
            asked = {"content": "Hello", "embd_normalize": -1}  # scores are no vector to be brought to a length
            loading = [LoadingExample("llama.cpp", "sh", _served(_FILE, "/embedding", asked))]
            named = ", ".join(request.labels)
            shares = architecture_of_file(read_header(request.folder / _FILE)).gives_shares
            given = "probability" if shares else "score before the softmax"
            notes = [f"llama.cpp answers with the {given} of each label, in this order: {named}"]
        if request.head == "embedding":
            text = next(iter(request.prompts.values()), "") + "Hello"
            loading = [
                LoadingExample("llama.cpp", "sh", _served(_FILE, "/v1/embeddings", {"input": text})),
                LoadingExample("Ollama", "sh", _in_ollama({"model": "my-model", "input": text})),
            ]
            notes = _notices_of_prompts(request.prompts)
        return ExportCard("gguf", "quantized", tags=["gguf", self._config.type], loading=loading, notes=notes)


def _served(file: str, route: str, asked: Mapping[str, Any]) -> str:
    """Returns how llama.cpp is asked for something of a whole sequence, which it computes in one batch."""
    ask = f"curl http://localhost:8080{route} -d {shlex.quote(json.dumps(asked))}"
    return f"llama-server -m {file} --embedding -c 4096 -ub 4096\n{ask}"


def _in_ollama(asked: Mapping[str, Any]) -> str:
    ask = f"curl http://localhost:11434/api/embed -d {shlex.quote(json.dumps(asked))}"
    return f"ollama create my-model -f Modelfile\n{ask}"


def _notices_of_prompts(prompts: Mapping[str, str]) -> list[str]:
    """Says what has to be put before texts, as it was in training: nothing in the file does."""
    named = ", ".join(f"{text!r} before {_ASKED[name]}" for name, text in prompts.items() if text)
    return [f"llama.cpp and Ollama put no prompt before texts: put {named} yourself"] if named else []


_ASKED = {"query": "queries", "document": "documents"}


def _by_context(header: GgufHeader, probes: Sequence[Probe]) -> Iterator[tuple[int, list[Probe]]]:
    """Yields the probes that llama.cpp may be given in one context, and the longest one's length.

    By the length of its context, and not of the sequence, it takes longrope's long or short factors. Probes are sorted
    by length.
    """
    original = original_context(header)
    for _, group in groupby(probes, lambda probe: original is not None and len(probe.ids) > original):
        found = list(group)
        yield max(len(probe.ids) for probe in found), found


def _checked(request: ProofRequest) -> GgufHeader:
    """Returns the header of an export's file, having made sure that llama.cpp, which trusts a file, may load it.

    Raises:
        ModelError: The file is none that an export holds, or the probes are for more tokens than it has.
        ExportError: Its chat template does far more than it is asked for.
    """
    from graftkit_gguf.exported import check_exported
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


def _added(program: LlamaCpp) -> list[list[int]]:
    """Returns the ids that llama.cpp puts before a text, and those that it puts after it."""

    def tokenize(text: str, *, add_special_tokens: bool = True) -> dict[str, list[int]]:
        return {"input_ids": program.tokens(text, whole=add_special_tokens)}

    return added_ids(tokenize)


def _put_around(tokenizer: Tokenizer) -> dict[str, int]:
    """Returns the tokens that llama.cpp is to put around a text of which something is said as a whole, by its roles.

    They are what the model's tokenizer puts there: bos before it, eos after it, whatever their roles are elsewhere,
    since such a text is not gone on with.

    Raises:
        ExportError: They are several, of which llama.cpp puts none there.
    """
    if not isinstance(tokenizer, PutsAround):
        bos = tokenizer.role_token("bos")
        return {"bos": bos} if tokenizer.adds_bos and bos is not None else {}
    around = dict(zip(("bos", "eos"), tokenizer.put_around, strict=True))
    if any(len(ids) > 1 for ids in around.values()):
        raise ExportError("its tokenizer puts several tokens before a text or after it, where llama.cpp puts one")
    return {role: ids[0] for role, ids in around.items() if ids}


def _tokenizer(planned: PlannedModel, adds_bos: bool, stop: list[int]) -> dict[str, Any]:
    """Returns the metadata of the model's tokenizer.

    Args:
        planned: The model.
        adds_bos: Whether llama.cpp is to put the token of the role bos before a text that is gone on with.
        stop: The tokens that end an answer.

    Raises:
        ExportError: It has no form in GGUF.
    """
    tokenizer = planned.tokenizer
    roles = {role: tokenizer.role_token(role) for role in ("bos", "eos", "unk", "pad")}
    added = (adds_bos, False)
    wholes = head_of(planned.config) in OF_WHOLES
    if wholes:
        around = _put_around(tokenizer)
        roles, added = {**roles, **around}, ("bos" in around, "eos" in around)
    with temporary_folder() as folder:
        tokenizer.save(folder)
        found = tokenizer_metadata(folder, planned.config["vocab_size"], roles, added, stop, wholes=wholes)
    template = tokenizer.chat_template
    return found | ({"tokenizer.chat_template": template} if template else {})


def _only_in_the_modelfile(request: ProofRequest, metadata: Mapping[str, Any]) -> set[int]:
    """Returns the stop tokens that the file has no room for and the Modelfile names."""
    tokens = dict(enumerate(map(str, metadata["tokenizer.ggml.tokens"])))
    without = stored_stops(request.stop_tokens, metadata.get(ROLE_KEYS["eos"]), tokens).without_room
    try:
        lines = (request.folder / "Modelfile").read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return set()
    return {id for id in without if stop_line(tokens[id]) in lines}


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
