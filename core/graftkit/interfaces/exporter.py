"""What writes the result in a format that other programs load."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from graftkit.interfaces.tokenizer import ROLES
from graftkit.interfaces.vocabulary import VocabularyChange

if TYPE_CHECKING:
    import torch
    from torch import nn

    from graftkit.interfaces.adapted_weight import AdaptedWeight
    from graftkit.interfaces.adapter import Adapter
    from graftkit.interfaces.model_source import BaseModelFiles
    from graftkit.interfaces.tokenizer import Tokenizer

__all__ = [
    "AssetsExporter",
    "BaseFileExporter",
    "ExportReading",
    "Exporter",
    "LoadedAssets",
    "MergeBase",
    "MergingExporter",
    "NewVocabulary",
    "NoticesExporter",
    "OnBaseFile",
    "PlannedModel",
    "Probe",
    "ProofRequest",
    "QuantizingExporter",
    "TrainedModel",
    "Twin",
    "added_ids",
    "role_ids",
]


MergeBase = Literal["dequantized", "original", "requantized"]
"""What an adapter is merged onto: the base as it was trained on, which is dequantized where it was quantized; the base
model's own weights as its files hold them; or the first, quantized again by the run's quantizer once it is merged."""


@dataclass(frozen=True, slots=True)
class NewVocabulary:
    """The new rows of a model's embeddings.

    Attributes:
        change: Which ids are new, how many rows there are, and whether the others kept their places.
        rows: The trained rows, `[new, hidden]`, float32, by the dotted path of their matrix: the embedding's, and the
            output layer's where it is not tied to it.
        tied: Whether the output layer shares the embedding's matrix.
    """

    change: VocabularyChange
    rows: Mapping[str, torch.Tensor]
    tied: bool


@dataclass(frozen=True, slots=True)
class Twin:
    """A tiny model of another's architecture, with every kind of layer of its configuration and random weights.

    Attributes:
        network: The transformers model, float32, on the CPU, in evaluation mode.
        config: Its configuration, with the keys of a `config.json`.
        own: Its tensors by the architecture's names, one that is shared under its first name alone; none of a tower.
        tensors: The same by the names, and in the shapes, that `TrainedModel.published` gives them.
    """

    network: nn.Module
    config: Mapping[str, Any]
    own: Mapping[str, torch.Tensor]
    tensors: Mapping[str, torch.Tensor]


class PlannedModel(Protocol):
    """What a run is going to train, known before it loads a weight."""

    @property
    def config(self) -> Mapping[str, Any]:
        """The model's configuration, with the keys of a `config.json`; its sizes are those of the new vocabulary."""

    @property
    def reference(self) -> str:
        """The base model as the recipe named it."""

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer that the model was trained with."""

    @property
    def change(self) -> VocabularyChange | None:
        """What becomes of the rows of its embeddings, or None where the vocabulary is the base model's."""

    @property
    def unties(self) -> bool:
        """Whether the base ties output layer and embedding, and one of them is adapted or has new rows of its own."""

    @property
    def saved_modules(self) -> Sequence[str]:
        """The names of parameters that are whole beside the adapter, in the place of the base model's; no head's."""

    @property
    def pairs(self) -> bool:
        """Whether it scores pairs of texts, whose tokens are of two types where the model tells types apart."""

    @property
    def adapter(self) -> Adapter:
        """The adapter's method."""

    @property
    def targets(self) -> Sequence[str]:
        """The dotted path of every layer that is adapted, in the model's order, stacks of experts among them."""

    @property
    def expert_targets(self) -> Sequence[str]:
        """Those of them that are a mixture's experts, one tensor a layer, of which each is adapted by itself."""

    @property
    def generation_config(self) -> Mapping[str, Any]:
        """The base model's generation_config.json, with every token that ends an answer, as far as that is known.

        Empty without any. What ends an answer in the records is known once these are encoded.
        """

    def twin(self, *, short_windows: bool = True) -> Twin:
        """Returns a twin of the model, on which a program may be tried before there are weights: made in a second.

        Args:
            short_windows: Whether windows, chunks and original contexts are of fewer than 40 tokens, so that a sequence
                of as many shows whether the program has them.

        Raises:
            Exception: transformers can't build one.
        """


class TrainedModel(PlannedModel, Protocol):
    """What a run trained, as exporters see it."""

    @property
    def prompts(self) -> Literal["chat", "plain"]:
        """How it was asked in training: "chat" for the chat template, "plain" for the text alone."""

    @property
    def system(self) -> str | None:
        """The system message that all conversations shared, or None."""

    @property
    def vocabulary(self) -> NewVocabulary | None:
        """The new rows of its embeddings, or None where the vocabulary is the base model's."""

    @property
    def saved_tensors(self) -> Mapping[str, torch.Tensor]:
        """Whole parameters, float32, by name, that are trained beside an adapter in the place of the base model's.

        They are PEFT's `modules_to_save`: those that an adapter from elsewhere holds, or a head's, and part of what
        `merged_tensors` and `base_tensors` yield. Two that are one tied matrix share their memory. Empty for the
        adapter of a language model that graftkit trained from the start.
        """

    @property
    def head(self) -> Sequence[str]:
        """The dotted paths of the modules that are a head giving scores, whose parameters are `saved_tensors`."""

    @property
    def adapted(self) -> Mapping[str, AdaptedWeight]:
        """Every adapted layer by its dotted path; an expert's is that of its stack and its number."""

    @property
    def linear_layers(self) -> Sequence[str]:
        """The dotted path of every linear layer and embedding that is frozen, adapted or not, adaptable or not."""

    @property
    def transposed_layers(self) -> Sequence[str]:
        """Those of them whose weight the architecture stores as `[in, out]`, as GPT-2 does.

        Stacks of experts that it stores as `[experts, in, out]`, as gpt-oss does, are among them, frozen or adapted.
        What is adapted is `[out, in]` all the same; `merged_tensors` gives the architecture's form.
        """

    @property
    def processors(self) -> Mapping[str, Mapping[str, Any]]:
        """How images and sound become a multimodal model's inputs: the base's files by their names; else empty."""

    @property
    def towers(self) -> Collection[str]:
        """The names of a multimodal model's tensors that text does not run through, empty for a model of text alone.

        They were not trained: an export holds them bit for bit, whatever it stores the others as.
        """

    def merged_tensors(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Yields the whole model, `W + delta` where a layer is adapted, one float32 tensor at a time.

        `W` is what was trained on, or what the exporter asks for as a `MergingExporter`. Names are those of the
        architecture in `transformers`. Buffers that it stores are among them, in their type, and so are `towers`, in
        the type of the base model's file.
        """

    def base_tensors(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Yields the model without its adapter, the new rows of its embeddings in place, likewise."""

    def published(self, tensors: Iterable[tuple[str, torch.Tensor]]) -> Iterator[tuple[str, torch.Tensor]]:
        """Yields its tensors by the names, and in the shapes, that published files of the architecture have.

        Programs that load a model's folder know these: those of the base model's files, and what `save_pretrained`
        writes. transformers has other names for some in memory, such as one tensor for all experts of a layer.

        Args:
            tensors: Such as `merged_tensors()`, rounded or not. What one published tensor is made of several of, or
                several of one, is held until these have come.
        """


@dataclass(frozen=True, slots=True)
class Probe:
    """A token sequence that an export is run on.

    Attributes:
        ids: Token ids, `[tokens]`.
        positions: The positions whose logits are compared, ascending; the last one alone where the model has a head
            on sequences, whose scores of the sequence are compared.
        token_type_ids: The type of each token, `[tokens]`, for a model that has embeddings of them; empty where all
            are of the first one.
    """

    ids: tuple[int, ...]
    positions: tuple[int, ...]
    token_type_ids: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class LoadedAssets:
    """What a program loads from an export besides weights. What the format does not carry is None: it is not proved.

    Attributes:
        tokens: For each of the request's texts its token ids, no token added around it, special tokens in it read as
            such.
        decoded: The text that each of those lists of ids is decoded to, special tokens left out.
        rendered: The request's conversation as the loaded chat template lays it out, with the prompt of the answer;
            empty where no template was loaded though the format carries one.
        generation: The loaded generation settings, with the keys of a `generation_config.json`.
        stop_tokens: The token ids that end an answer.
        roles: The ids of the loaded tokenizer's beginning, end, padding and unknown token, by `graftkit.interfaces`'
            roles; None for a role that no token has.
        added: The ids that the tokenizer puts before a text, and those that it puts after it, unless told not to.
        config_roles: The same ids as the loaded model's configuration has them.
        pair: The ids that the tokenizer makes of the text `ANY`, twice, as a pair, and their types, all 0 where it
            gives none.
    """

    tokens: Sequence[Sequence[int]] | None = None
    rendered: str | None = None
    generation: Mapping[str, Any] | None = None
    stop_tokens: Sequence[int] | None = None
    roles: Mapping[str, Any] | None = None
    added: Sequence[Sequence[int]] | None = None
    config_roles: Mapping[str, Any] | None = None
    decoded: Sequence[str] | None = None
    pair: Sequence[Sequence[int]] | None = None


def _any_template(source: str, tokens: Mapping[str, str]) -> None:
    """Refuses no chat template."""


@dataclass(frozen=True, slots=True)
class ProofRequest:
    """What an exporter is asked to compute with an export.

    Attributes:
        folder: The export.
        probes: Token sequences.
        base: Makes the base model in full precision, its quantized weights dequantized, as a plain `transformers`
            model, for formats that hold the adapter alone.
        texts: Texts to encode with the tokenizer that the export's program loads.
        conversation: Messages, `{"role": ..., "content": ...}`, to lay out with the chat template that it loads;
            a content is a text, or a list of parts where the template takes no texts.
        today: The day that a chat template writes where it asks for the date.
        template_arguments: What the chat template is given besides, by name.
        template_name: The chat template's name, where the tokenizer has several; None for the default.
        stop_tokens: The token ids that end an answer, for programs that don't list theirs and have to be tried.
        check_template: Refuses the source of a chat template that does far more work than the conversation asks for;
            given the texts of the special tokens by the names that templates use. It is called before a program of the
            export's runs the template, which most do without counting. `assets` does so itself.
        base_files: The base model's own files on this machine, for programs that load an adapter onto them.
        pair: Whether the model was trained on pairs of texts, so that it is asked what the tokenizer makes of one.
        workspace: A folder for temporary files that the calls of one proof share, which goes when the proof is done;
            None where whoever asks has none.
    """

    folder: Path
    probes: Sequence[Probe]
    base: Callable[[], nn.Module]
    texts: Sequence[str] = ()
    conversation: Sequence[Mapping[str, Any]] = ()
    today: date | None = None
    template_arguments: Mapping[str, Any] = field(default_factory=dict)
    template_name: str | None = None
    stop_tokens: Sequence[int] = ()
    check_template: Callable[[str, Mapping[str, str]], None] = _any_template
    base_files: Sequence[Path] = ()
    workspace: Path | None = None
    pair: bool = False

    def assets(
        self, tokenizer: Any, generation: Mapping[str, Any] | None = None, config: Any | None = None
    ) -> LoadedAssets:
        """Asks a tokenizer of `transformers`, as `AutoTokenizer` loads it from the export.

        Args:
            tokenizer: The tokenizer.
            generation: The loaded generation settings, `GenerationConfig.to_dict()`; None where the format has none.
            config: The loaded configuration, as `AutoConfig` gives it; None where the format has none.
        """
        stop = None if generation is None else generation.get("eos_token_id")
        ends = list(stop) if isinstance(stop, list | tuple) else [] if stop is None else [stop]
        tokens = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in self.texts]
        return LoadedAssets(
            tokens=tokens,
            decoded=decoded(tokenizer, tokens),
            rendered=self._rendered(tokenizer),
            generation=generation,
            stop_tokens=None if generation is None else ends,
            roles=role_ids(tokenizer),
            added=added_ids(tokenizer),
            config_roles=None if config is None else role_ids(config.get_text_config()),
            pair=pair_ids(tokenizer) if self.pair else None,
        )

    def dated(self, template: str) -> str:
        """Returns a chat template that writes the day `today` where it asks for the date, whatever the day is.

        Args:
            template: The template's source.
        """
        return f"{_clock(self.today)}{template}" if "strftime_now" in template else template

    def _rendered(self, tokenizer: Any) -> str:
        if not self.conversation or not tokenizer.chat_template:
            return ""
        template = tokenizer.get_chat_template(self.template_name)
        self.check_template(template, {name: str(token) for name, token in tokenizer.special_tokens_map.items()})
        text: str = tokenizer.apply_chat_template(
            [dict(message) for message in self.conversation],
            chat_template=self.dated(template),
            tokenize=False,
            add_generation_prompt=True,
            **self.template_arguments,
        )
        return text

    def run(self, model: Any) -> list[torch.Tensor]:
        """Returns each probe's logits at its positions, `[positions, vocabulary]`, float32, of a `transformers` model.

        Each probe runs alone, without a cache, and logits of other positions are not made where the model allows. It
        computes in float32 whatever dtype the model was loaded in, one block at a time: load it in the dtype that the
        export is stored in, and no second copy of the weights is made.
        """
        import torch

        from graftkit.interfaces.block_memory import float32_by_block
        from graftkit.interfaces.forward import logits_at

        model.eval()
        found: list[torch.Tensor] = []
        with torch.no_grad(), float32_by_block(model):
            for probe in self.probes:
                inputs: dict[str, Any] = {"input_ids": torch.tensor([probe.ids]), "use_cache": False}
                inputs |= {"token_type_ids": torch.tensor([probe.token_type_ids])} if probe.token_type_ids else {}
                found.append(logits_at(model, inputs, torch.tensor(probe.positions)).float().cpu())
        return found


def decoded(tokenizer: Any, tokens: Iterable[Sequence[int]]) -> list[str]:
    """Returns the texts that a tokenizer of `transformers` makes of ids, special tokens left out.

    Args:
        tokenizer: The tokenizer.
        tokens: The ids of each text.
    """
    return [tokenizer.decode(list(ids), skip_special_tokens=True) for ids in tokens]


def role_ids(of: Any) -> dict[str, Any]:
    """Returns what a tokenizer, or a configuration, of `transformers` has as the id of each role's token.

    Args:
        of: It has `bos_token_id` and the like; one that is missing is None.
    """
    return {role: getattr(of, f"{role}_token_id", None) for role in ROLES}


def added_ids(tokenizer: Any) -> list[list[int]]:
    """Returns the ids that a tokenizer of `transformers` puts before a text, and those that it puts after it."""
    alone = list(tokenizer(ANY, add_special_tokens=False)["input_ids"])
    found = list(tokenizer(ANY)["input_ids"])
    starts = [n for n in range(len(found) - len(alone) + 1) if found[n : n + len(alone)] == alone]
    return [found[: starts[0]], found[starts[0] + len(alone) :]] if starts else [found, []]


def pair_ids(tokenizer: Any) -> list[list[int]]:
    """Returns the ids that a tokenizer of `transformers` makes of `ANY`, twice, as a pair, and their types."""
    found = tokenizer(ANY, ANY)
    ids = list(found["input_ids"])
    return [ids, list(found.get("token_type_ids", [0] * len(ids)))]


ANY = "say 12"
"""A text without special tokens."""


class Exporter(Protocol):
    """Writes one format. Built from its own config model: `Class(config)`, or `Class()` without one.

    Attributes:
        proved_with: Import names, which are also distributions, of the programs that `logits` loads the export with.
        log_probabilities: Whether `logits` gives log-probabilities, for programs that give nothing else: NaN for tokens
            of which the program gives none. An exporter without this attribute gives logits. Vectors are given as they
            are, whatever it says.
        heads: The heads of models that it writes, of `graftkit.interfaces.architecture.Head`; of another model core
            refuses the export. An exporter without this attribute writes language models.
    """

    proved_with: tuple[str, ...]

    def refusal(self, planned: PlannedModel) -> str | None:
        """Says why this model has no such form, or None. Asked before a weight is loaded: no hour is wasted."""

    def export(self, trained: TrainedModel, folder: Path) -> Mapping[str, Any]:
        """Writes the files into an existing empty folder and returns facts for the manifest, as JSON.

        Files, sizes and hashes are listed by the caller, who also moves the folder into place as a whole. A fact with
        the name of one of the manifest's own is an error.
        """

    def tolerance(self) -> float:
        """Returns how far a logit may be off for this format's precision: a share of the largest logit, 0.1 at most."""

    def logits(self, request: ProofRequest) -> list[torch.Tensor]:
        """Loads the export with the program it is meant for and runs it; called in a fresh process.

        It is called once more with a copy of the folder that lacks the tensors, where it must fail. Look at the
        folder before you call `request.base`, so that this costs nothing.

        Returns:
            For each probe the logits at its positions, `[positions, vocabulary]`, float32: what `request.run(model)`
            gives for a `transformers` model. The caller compares them: an exporter does not judge itself.
        """


def _clock(today: date | None) -> str:
    """Returns a Jinja macro that takes the place of `strftime_now`: transformers lets no function in as a variable."""
    moment = datetime.combine(today, time()) if today else datetime.now()
    written = "".join(f"|replace('%{code}', '{moment.strftime('%' + code)}')" for code in _DIRECTIVES)
    return f"{{%- macro strftime_now(format) -%}}{{{{ format{written} }}}}{{%- endmacro -%}}"


_DIRECTIVES = (
    *"aAbBcdHIjmMpSuUwWxXyYZzf",
    *(("-d", "-m", "-H", "-I", "e", "F", "D", "T") if os.name == "posix" else ()),
)
"""strftime's: those of every system, and of POSIX."""


@runtime_checkable
class AssetsExporter(Protocol):
    """What an exporter may have besides, so that its proof covers more than logits."""

    def assets(self, request: ProofRequest) -> LoadedAssets:
        """Loads tokenizer and generation settings with the program the export is meant for, and answers the request.

        Called in the process that `logits` is called in. `request.assets(tokenizer, generation)` gives the answer of a
        `transformers` tokenizer; a part that the format does not carry stays None, and the proof says that it does not
        cover it.
        """


@runtime_checkable
class MergingExporter(Protocol):
    """What an exporter of merged models may have besides, so that it merges onto another base than was trained on.

    Core refuses what there is not, measures where it is to choose, gives `export` a model whose `merged_tensors` are
    those of the chosen base, and has the proof compare with the trained adapter on that base.
    """

    @property
    def merge_onto(self) -> MergeBase | Literal["auto"]:
        """What `merged_tensors` is to yield; "auto" has core measure and choose."""

    @property
    def merge_dtype(self) -> Literal["float32", "bfloat16", "float16"]:
        """The type that merged weights are stored in; they are measured so rounded."""


@runtime_checkable
class NoticesExporter(Protocol):
    """What an exporter may have besides, whose format is not quite what somebody may expect of it."""

    def notices(self, planned: PlannedModel) -> Sequence[str]:
        """Returns what to tell of the format that this model takes: sentences without a full stop.

        Asked with `refusal`, before a weight is loaded, and again of the `TrainedModel` that is exported.
        """


@dataclass(frozen=True, slots=True)
class ExportReading:
    """An export whose weights are quantized, as it is read without the program that it is meant for.

    Attributes:
        files: Its configuration and weights, dequantized exactly, by the architecture's own names of parameters.
        steps: Gives for one of these names how far apart the levels are that a weight's numbers were rounded to, in its
            shape, float32; None where they were not.
        round_as_program: Has a model round what the export's program rounds besides the weights, such as what they are
            multiplied with, before it is compared with the program.
        last_rows: The names of weights of which the export may have the last rows alone, since no text has the others.
    """

    files: BaseModelFiles
    steps: Callable[[str], torch.Tensor | None]
    round_as_program: Callable[[nn.Module], None] = lambda model: None
    last_rows: frozenset[str] = frozenset()


@runtime_checkable
class QuantizingExporter(Protocol):
    """What an exporter must have besides whose format quantizes weights, so that logits are off by more than 0.1.

    What its program computes is compared with the reading, of the same weights, as closely as with any format. The
    reading is compared with what was trained, by as much as rounding explains (`flow/exports/rounding.py`).
    """

    @property
    def quantizes(self) -> bool:
        """Whether it was told to; else its export is compared as any other, and `reading` is not asked."""

    def reading(self, request: ProofRequest) -> ExportReading:
        """Reads the export."""


@dataclass(frozen=True, slots=True)
class OnBaseFile:
    """What a program computes with an adapter on the base model's own file.

    Attributes:
        file: The file's name.
        same_weights: Whether its weights are those that the adapter was trained on, number by number. They are not
            where training quantized or rounded them again.
        adapted: What `Exporter.logits` returns, computed on that file.
        base: The same without the adapter.
    """

    file: str
    same_weights: bool
    adapted: Sequence[torch.Tensor]
    base: Sequence[torch.Tensor]


@runtime_checkable
class BaseFileExporter(Protocol):
    """What an exporter of adapters may have besides, whose users load them onto the base model's own file.

    `Exporter.logits` compares the adapter on the very weights that it was trained on, without rounding. A program
    that multiplies a file's quantized blocks rounds more, with an adapter and without one: how much is measured here.
    """

    def on_base_file(self, request: ProofRequest) -> OnBaseFile | None:
        """Runs the probes on the base model's own file, with the adapter and without; None where it has another format.

        Called after `logits` in the same process. The caller compares: with the adapter the difference may be that of
        the base model alone, and what the format explains besides.
        """
