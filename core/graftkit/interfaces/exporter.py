"""What writes the result in a format that other programs load."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from graftkit.interfaces.vocabulary import VocabularyChange

if TYPE_CHECKING:
    import torch
    from torch import nn

    from graftkit.interfaces.adapted_weight import AdaptedWeight
    from graftkit.interfaces.adapter import Adapter
    from graftkit.interfaces.tokenizer import Tokenizer

__all__ = ["Exporter", "NewVocabulary", "PlannedModel", "Probe", "ProofRequest", "TrainedModel"]


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
    def adapter(self) -> Adapter:
        """The adapter's method."""

    @property
    def targets(self) -> Sequence[str]:
        """The dotted path of every layer that is adapted, in the model's order."""


class TrainedModel(PlannedModel, Protocol):
    """What a run trained, as exporters see it."""

    @property
    def generation_config(self) -> Mapping[str, Any]:
        """The base model's generation_config.json, with every token that ends an answer; empty without any."""

    @property
    def vocabulary(self) -> NewVocabulary | None:
        """The new rows of its embeddings, or None where the vocabulary is the base model's."""

    @property
    def adapted(self) -> Mapping[str, AdaptedWeight]:
        """Every adapted layer by its dotted path."""

    @property
    def linear_layers(self) -> Sequence[str]:
        """The dotted path of every linear layer whose weight is frozen, adapted or not, adaptable or not."""

    @property
    def transposed_layers(self) -> Sequence[str]:
        """Those of them whose weight the architecture stores as `[in, out]`, as GPT-2 does.

        What is adapted is `[out, in]` all the same; `merged_tensors` gives the architecture's form.
        """

    @property
    def towers(self) -> Collection[str]:
        """The names of a multimodal model's tensors that text does not run through, empty for a model of text alone.

        They were not trained: an export holds them bit for bit, whatever it stores the others as.
        """

    def merged_tensors(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Yields the whole model, `W + delta` where a layer is adapted, one float32 tensor at a time.

        Names are those of the architecture in `transformers`. Buffers that it stores are among them, in their type, and
        so are `towers`, in the type of the base model's file.
        """

    def base_tensors(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Yields the model without its adapter, the new rows of its embeddings in place, likewise."""


@dataclass(frozen=True, slots=True)
class Probe:
    """A token sequence that an export is run on.

    Attributes:
        ids: Token ids, `[tokens]`.
        places: The positions whose logits are compared, ascending.
    """

    ids: tuple[int, ...]
    places: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ProofRequest:
    """What an exporter is asked to compute with an export.

    Attributes:
        folder: The export.
        probes: Token sequences.
        base: Makes the base model in full precision, its quantized weights dequantized, as a plain `transformers`
            model, for formats that hold the adapter alone.
    """

    folder: Path
    probes: Sequence[Probe]
    base: Callable[[], nn.Module]

    def run(self, model: Any) -> list[torch.Tensor]:
        """Returns each probe's logits at its places, `[places, vocabulary]`, float32, of a `transformers` model.

        Each probe runs alone, without a cache, and logits of other places are not made where the model allows.
        """
        import torch

        from graftkit.interfaces.forward import logits_at

        model.eval()
        found: list[torch.Tensor] = []
        for probe in self.probes:
            inputs = {"input_ids": torch.tensor([probe.ids]), "use_cache": False}
            with torch.no_grad():
                found.append(logits_at(model, inputs, torch.tensor(probe.places)).float().cpu())
        return found


class Exporter(Protocol):
    """Writes one format. Built from its own config model: `Class(config)`, or `Class()` without one.

    Attributes:
        proved_with: Import names, which are also distributions, of the programs that `logits` loads the export with.
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
            For each probe the logits at its places, `[places, vocabulary]`, float32: what `request.run(model)` gives
            for a `transformers` model. The caller compares them: an exporter does not judge itself.
        """
